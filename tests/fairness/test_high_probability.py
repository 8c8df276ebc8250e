"""The optimistic bandit: its estimate, its policy, its simulation over seeds."""

import sys
from functools import partial
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from prunefair.fairness.bandit_feedback import (
    LogBarrierBandit,
    ScaleFreeBandit,
    bernoulli_stream,
)
from prunefair.fairness.high_probability import (
    OptimisticBandit,
    earnings_bound,
    high_probability_bound,
    optimistic_gain,
    optimistic_play,
    plot_quantiles,
)
from prunefair.fairness.policy import Policy
from prunefair.fairness.simulation import RewardStream, simulate

matplotlib.use("Agg")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

# --- the estimate -----------------------------------------------------------------


@given(st.floats(0, 1), st.floats(1e-4, 0.5), st.floats(0, 1))
def test_the_estimate_has_the_exponential_moment_one(gain, eta, share):
    p = eta + share * (1 - eta)
    f = float(optimistic_gain(gain, p, eta))
    moment = (1 - p + p * np.exp(-eta * f)) * np.exp(eta * gain)
    assert abs(moment - 1) < 1e-9
    assert f >= gain / p * (1 - 1e-9) - 1e-12


@given(st.integers(2, 6), st.floats(-300, 300), st.integers(0, 2**32 - 1))
def test_play_is_a_distribution_that_leaves_no_arm_below_the_rate(n, size, seed):
    rng = np.random.default_rng(seed)
    eta = rng.uniform(1e-3, 1) / (2 * n)
    p = optimistic_play(size * rng.random(n) / eta, eta)
    np.testing.assert_allclose(p.sum(), 1, atol=1e-12)
    assert p.min() >= eta * (1 - 1e-12)


def test_the_compiled_play_is_that_of_the_chapter_and_follows_the_rounds():
    rng, policy = np.random.default_rng(3), OptimisticBandit(5, 0.6, n_contexts=2)
    for t in range(30):
        most = earnings_bound(t + 1, 0.6, n_arms=5)
        rate = min(1 / 10, (4 * np.log(5) / (5 * most)) ** 0.5)
        np.testing.assert_allclose(policy.eta, rate, rtol=1e-14)
        p = optimistic_play(policy.learner("x").estimates, rate)
        np.testing.assert_allclose(policy.probabilities("x"), p, rtol=1e-13)
        policy.update("x", int(rng.integers(5)), rng.random())
    policy.add_arm()
    np.testing.assert_allclose(policy.probabilities("x").sum(), 1)


def test_earnings_are_bounded_by_the_integral_of_the_weights():
    for alpha, n in product((0.0, 0.3, 0.9, 1.0), (1, 5)):
        rounds = 700
        by_hand, _ = quad(lambda u, a=alpha: u**-a, 1, 1 + rounds / n)
        expected = n * (1 + by_hand)
        np.testing.assert_allclose(earnings_bound(rounds, alpha, n_arms=n), expected)
    near, at = (earnings_bound(700, a, n_arms=3) for a in (1 - 1e-9, 1))
    np.testing.assert_allclose(near, at, rtol=1e-6)
    with pytest.raises(ValueError, match="alpha is"):
        earnings_bound(7, 2, n_arms=3)


# --- all sequences of draws -------------------------------------------------------


def sequences(n_rounds, adversary, eta, n_arms, n_contexts):
    """Probability, regret and earned rewards of every sequence of draws.

    `adversary(arms)` names context and rewards after these draws; alpha is 0.
    """
    for arms in product(range(n_arms), repeat=n_rounds):
        sums, true = np.zeros((2, n_contexts, n_arms))
        probability, earned = 1.0, []
        for t, arm in enumerate(arms):
            j, r = adversary(arms[:t])
            p = optimistic_play(sums[j], eta)
            probability *= p[arm]
            sums[j, arm] += optimistic_gain(r[arm], p[arm], eta)
            true[j] += r
            earned.append(r[arm])
        moment = np.exp(eta * (true - sums)).sum(1).prod()
        yield probability, true.max(1).sum() - sum(earned), earned, moment


def not_again(arms):
    last = arms[-1] if arms else 0
    return len(arms) % 2, np.array([last != 0, last != 1], float)


def spiteful(arms):
    ahead = 2 * sum(arms) >= len(arms)
    return sum(arms) % 2, np.array([1.0, 0.2]) if ahead else np.array([0.3, 1.0])


@pytest.mark.parametrize("adversary", [not_again, spiteful])
@pytest.mark.parametrize("eta", [0.02, 0.25])
def test_over_all_draws_against_one_who_watches_the_theorems_hold_exactly(
    adversary, eta
):
    played = list(sequences(9, adversary, eta, 2, 2))
    chance = np.array([row[0] for row in played])
    np.testing.assert_allclose(chance.sum(), 1)
    moment = np.array([row[3] for row in played])
    np.testing.assert_allclose(chance @ moment, 2**2)  # N to the M
    for risk in (0.5, 0.1, 0.01):
        bounds = np.array(
            [
                high_probability_bound(row[2], eta, n_arms=2, n_contexts=2, risk=risk)
                for row in played
            ]
        )
        regret = np.array([row[1] for row in played])
        assert chance @ (regret > bounds) <= risk


def test_an_unbiased_estimate_fails_the_exact_moment():
    """The control: with g / p in place of the optimistic estimate it is exceeded."""
    p, eta = 0.26, 0.25
    moment = (1 - p + p * np.exp(-eta / p)) * np.exp(eta)
    assert moment > 1.05


# --- the policy -------------------------------------------------------------------


def test_the_rate_falls_and_knows_no_horizon():
    policy, rng = OptimisticBandit(3, 0.5, n_contexts=2), np.random.default_rng(0)
    rates = []
    for t in range(400):
        rates.append(policy.eta)
        arm, p = policy.draw(t % 2, rng)
        assert p >= policy.eta
        policy.update(t % 2, arm, 1.0, probability=p)
    assert (np.diff(rates) <= 0).all() and rates[0] == 1 / 6 and rates[-1] < 1 / 6
    expected = (4 * np.log(3) / (3 * earnings_bound(400, 0.5, n_arms=3))) ** 0.5
    np.testing.assert_allclose(rates[-1], expected)


def test_it_finds_the_arm_that_pays():
    stream = RewardStream(
        contexts=np.arange(6000) % 2,
        rewards=np.eye(3)[np.arange(6000) % 2],
        n_contexts=2,
    )
    policy = OptimisticBandit(3, 0.0, n_contexts=2)
    simulate(policy, stream, rng=np.random.default_rng(4))
    assert policy.rewards.sum() > 0.8 * 6000
    assert [int(policy.probabilities(j).argmax()) for j in (0, 1)] == [0, 1]


def test_a_tiny_propensity_is_taken_as_the_rate():
    policy = OptimisticBandit(2, 0.0, n_contexts=1)
    policy.update(None, 0, 1.0, probability=1e-9)
    eta = OptimisticBandit(2, 0.0, n_contexts=1).eta
    estimate = policy.learners[None].estimates[0]
    np.testing.assert_allclose(estimate, optimistic_gain(1.0, eta, eta))
    assert np.isfinite(policy.probabilities(None)).all()


def test_a_saved_policy_goes_on_with_its_rate(tmp_path):
    policy, rng = OptimisticBandit(3, 0.5, n_contexts=2), np.random.default_rng(1)
    stream = bernoulli_stream(80, 2, 3, rng=rng)
    simulate(policy, stream, rng=np.random.default_rng(2))
    policy.save(tmp_path / "p.npz")
    loaded = Policy.load(tmp_path / "p.npz")
    assert type(loaded) is OptimisticBandit and loaded.shared.rounds == 80
    for one in (policy, loaded):
        simulate(one, stream, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(policy.rewards, loaded.rewards)


@pytest.mark.parametrize("n_contexts", [0, 1.5, "x", None])
def test_a_number_of_contexts_that_is_none_is_refused(n_contexts):
    with pytest.raises(ValueError, match="n_contexts is"):
        OptimisticBandit(3, 0.5, n_contexts=n_contexts)


# --- the benchmark ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["optimistic", "log_barrier", "scale_free"])
def test_all_seeds_in_step_play_what_the_policies_play(kind):
    import high_probability as benchmark

    sizes, alpha, T, runs = (2, 3), 0.5, 120, 4
    build = {
        "optimistic": partial(OptimisticBandit, 3, alpha, n_contexts=2),
        "log_barrier": partial(LogBarrierBandit, 3, alpha, horizon=T),
        "scale_free": partial(ScaleFreeBandit, 3, alpha),
    }[kind]
    policies = [build() for _ in range(runs)]
    adversary = benchmark.not_again(sizes, T, runs, rng=np.random.default_rng(5))
    policy = benchmark.POLICIES[kind](sizes, alpha, T, runs)
    out = benchmark.played(
        policy, adversary, sizes, alpha, T, runs, rng=np.random.default_rng(6)
    )
    rng, last = np.random.default_rng(6), np.zeros(runs, int)
    for t in range(T):
        draws = rng.random(runs)
        _, rewards = adversary(t, None, last, None)
        for s, one in enumerate(policies):
            p = one.probabilities(t % 2)
            last[s] = np.searchsorted(np.cumsum(p), draws[s] * p.sum(), "right")
            one.update(t % 2, int(last[s]), float(rewards[s, last[s]]))
    rewards = np.array([one.rewards for one in policies])
    np.testing.assert_allclose(out["R"], rewards, rtol=1e-9)


def test_the_figure_has_one_bar_a_policy_and_game():
    import matplotlib.pyplot as plt

    games = [
        {
            "adversary": name,
            "policies": {"a": {"regret": [1, 2, 3]}, "b": {"regret": [0, 1, 2]}},
        }
        for name in ("x", "y", "z")
    ]
    ax = plt.figure().subplots()
    assert plot_quantiles(ax, games) is ax
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["x", "y", "z"]
    assert len(ax.containers) == 2
    plt.close("all")
