"""Late feedback: the step's regret, its certificate, and what a log can tell."""

from collections import deque
from itertools import product

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefair.fairness.full_information import AlphaFairGradient, approximation_factor
from prunefair.fairness.late_feedback import (
    LateGradient,
    RewardLog,
    _late_share,
    arm_totals,
    block_stream,
    check_log,
    draw_log,
    late_bound,
    late_game,
    late_step,
    plot_estimates,
    plot_late,
    predictions,
    self_normalised_totals,
)
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.online_gradient import initial_state
from prunefair.fairness.simulation import RewardStream, simulate
from prunefair.fairness.utility import alpha_fair_utility

matplotlib.use("Agg")

seeds = st.integers(0, 2**32 - 1)


def random_stream(rng, rounds=150, contexts=2, arms=3):
    rewards = rng.random((rounds, arms)) * (rng.random((rounds, arms)) < 0.6)
    drawn = rng.integers(contexts, size=rounds)
    return RewardStream(contexts=drawn, rewards=rewards, n_contexts=contexts)


# --- the step ----------------------------------------------------------------------


def test_a_step_by_hand():
    state = late_step(initial_state(2), [1, 0], 1)
    np.testing.assert_allclose(state.squared_norms, 1 + 2 * 2**0.5)
    length = (1 + 2 * 2**0.5) ** -0.5
    np.testing.assert_allclose(state.point, [0.5 + length / 2, 0.5 - length / 2])
    same = late_step(state, [0, 0], 1)
    np.testing.assert_array_equal(same.point, state.point)
    assert same.squared_norms == state.squared_norms


@settings(max_examples=15, deadline=None)
@given(alpha=st.floats(0.01, 0.95), m=st.integers(0, 40), seed=seeds)
def test_random_delays_cost_no_more_than_is_proved(alpha, m, seed):
    rng = np.random.default_rng(seed)
    stream = random_stream(rng)
    policy = LateGradient(3, alpha, waiting=m)
    game = late_game(policy, stream, rng.integers(m + 1, size=150))
    assert game.waited <= m
    assert _late_share(game, m) <= 1
    G = reward_sums(stream.contexts, stream.rewards, 2)
    best = solve_offline(G, alpha).utility
    utility = alpha_fair_utility(policy.rewards, alpha)
    bound = late_bound(policy.squared_norms, alpha, 3)
    assert best - approximation_factor(alpha) * utility <= bound + 1e-9


def test_a_step_that_does_not_know_what_waits_has_a_regret_beyond_its_bound():
    stream, delays = block_stream(1500, 51), np.full(1500, 50)
    game = late_game(AlphaFairGradient(2, 0), stream, delays)
    assert _late_share(game, 0) > 1.5
    game = late_game(LateGradient(2, 0, waiting=50), stream, delays)
    assert _late_share(game, 50) < 1


def test_without_delays_the_step_is_that_of_full_information():
    stream = random_stream(np.random.default_rng(1))
    late, plain = LateGradient(3, 0.6, waiting=0), AlphaFairGradient(3, 0.6)
    for policy in (late, plain):
        simulate(policy, stream)
    np.testing.assert_allclose(late.rewards, plain.rewards, rtol=1e-10)


def test_a_game_learns_in_the_order_of_arrival_and_credits_what_was_played():
    rng = np.random.default_rng(2)
    stream, m = random_stream(rng), 7
    by_game, by_simulation = (LateGradient(3, 0.5, waiting=m) for _ in range(2))
    game = late_game(by_game, stream, np.full(150, m))
    simulate(by_simulation, stream, delay=m)
    np.testing.assert_allclose(by_game.rewards, by_simulation.rewards)
    np.testing.assert_array_equal(game.rounds, np.arange(150))
    delays = rng.integers(20, size=150)
    policy = LateGradient(3, 0.5, waiting=20)
    game = late_game(policy, stream, delays)
    due = np.minimum(np.arange(150) + delays, 149)
    assert (np.diff(due[game.rounds]) >= 0).all()
    earned = (game.points * stream.rewards[game.rounds]).sum(0)
    np.testing.assert_allclose(policy.rewards, 1 + earned)


def test_a_saved_policy_resumes_and_knows_what_waits(tmp_path):
    policy = LateGradient(2, 0.3, waiting=4)
    policy.update("a", [1, 0])
    policy.save(tmp_path / "late.npz")
    other = LateGradient.load(tmp_path / "late.npz")
    assert other.waiting == 4
    np.testing.assert_array_equal(other.probabilities("a"), policy.probabilities("a"))


@pytest.mark.parametrize("waiting", [-1, 1.5, "x", None])
def test_a_number_of_waiting_rounds_that_is_none_is_refused(waiting):
    with pytest.raises(
        ValueError, match="waiting is .*; it must be a whole number >= 0"
    ):
        LateGradient(2, 0.5, waiting=waiting)


def test_the_bound_needs_alpha_below_one():
    with pytest.raises(ValueError, match="alpha is 1"):
        late_bound([1.0], 1, 2)


# --- logs --------------------------------------------------------------------------


def every_log(stream, behaviour):
    rounds = np.arange(stream.n_rounds)
    for arms in product(range(stream.n_arms), repeat=stream.n_rounds):
        p = behaviour[stream.contexts, list(arms)]
        paid = stream.rewards[rounds, list(arms)]
        yield p.prod(), RewardLog(stream.contexts, np.array(arms), paid, p)


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_the_mean_over_all_logs_is_the_truth_whatever_is_predicted(seed):
    rng = np.random.default_rng(seed)
    stream = random_stream(rng, rounds=4, arms=2)
    behaviour, asked = rng.dirichlet(np.full(2, 2.0), (2, 2))
    guess = rng.normal(size=(2, 2))
    truth = (stream.rewards * asked[stream.contexts]).sum(0)
    for predicted in (0.0, guess):
        mean = sum(
            p * arm_totals(log, asked, predicted)
            for p, log in every_log(stream, behaviour)
        )
        np.testing.assert_allclose(mean, truth, atol=1e-9)


def test_an_estimate_by_hand():
    log = RewardLog(
        np.array([0, 0, 1]),
        np.array([1, 0, 1]),
        np.array([1.0, 0.5, np.nan]),
        np.array([0.25, 0.75, 0.5]),
    )
    asked = np.array([[0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(arm_totals(log, asked), [0.5 * 0.5 / 0.75, 0.5 / 0.25])
    np.testing.assert_allclose(self_normalised_totals(log, asked), [0.5, 2.0])
    guess = np.array([[0.2, 0.4], [0.6, 0.8]])  # nothing was seen in context 1
    wanted = [0.2 + 0.5 * 0.3 / 0.75, 0.4 + 0.8 + 0.5 * 0.6 / 0.25]
    np.testing.assert_allclose(arm_totals(log, asked, guess), wanted)
    np.testing.assert_allclose(predictions(log, 2, 2), [[0.5, 1], [0, 0]])


def test_the_self_normalised_estimate_stays_in_range_and_knows_what_it_cannot():
    rng = np.random.default_rng(3)
    stream = random_stream(rng, rounds=30)
    behaviour = np.tile([0.9, 0.09, 0.01], (2, 1))
    asked = behaviour[:, ::-1]
    pulls = asked[stream.contexts].sum(0)
    outside = 0
    for child in rng.spawn(50):
        log = draw_log(stream, behaviour, rng=child)
        total = self_normalised_totals(log, asked)
        drawn = np.bincount(log.arms, minlength=3) > 0
        np.testing.assert_array_equal(np.isnan(total), ~drawn)
        assert (total[drawn] <= pulls[drawn] * stream.rewards.max() + 1e-12).all()
        outside += (arm_totals(log, asked) > pulls).any()
    assert outside > 0


def test_a_log_draws_with_its_probabilities_and_loses_what_it_says():
    stream = random_stream(np.random.default_rng(4), rounds=40_000)
    behaviour = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    log = draw_log(stream, behaviour, seen=0.8, rng=np.random.default_rng(5))
    for j in range(2):
        share = np.bincount(log.arms[log.contexts == j]) / (log.contexts == j).sum()
        np.testing.assert_allclose(share, behaviour[j], atol=0.015)
    np.testing.assert_allclose(np.isnan(log.rewards).mean(), 0.2, atol=0.01)
    np.testing.assert_allclose(
        log.probabilities, 0.8 * behaviour[log.contexts, log.arms]
    )


# --- figures -----------------------------------------------------------------------


def test_figures_show_all_that_they_are_given():
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    plot_late(ax, {0: [1, 2], 10: [3, 4]}, ("late", "plain"))
    assert [list(line.get_ydata()) for line in ax.lines] == [[1, 3], [2, 4]]
    _, ax = plt.subplots()
    plot_estimates(ax, {"one": np.ones((5, 3)), "other": np.zeros((5, 3))})
    assert [t.get_text() for t in ax.get_yticklabels()] == ["one", "other"]
    plt.close("all")


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("contexts", [0, -1], "contexts holds -1, which is out of range"),
        ("contexts", ["u", "v"], "contexts is .*; give one number for each round"),
        ("arms", [0, 2], "arms holds 2, which is out of range"),
        ("rewards", [0.5, 100.0], "rewards holds 100.0"),
        ("rewards", [0.5], "rewards is .*; give one number for each round"),
        ("probabilities", [0.5, 0.0], "probabilities holds 0.0"),
        ("probabilities", [0.5, np.nan], "probabilities holds nan"),
    ],
)
@pytest.mark.parametrize("estimate", [arm_totals, self_normalised_totals])
def test_a_log_that_cannot_be_is_refused(estimate, field, value, line):
    log = RewardLog([0, 0], [0, 1], [0.5, np.nan], [0.5, 0.5])  # lists will do
    assert np.isfinite(estimate(log, [[0.5, 0.5]])[0])
    with pytest.raises(ValueError, match=line):
        estimate(log._replace(**{field: value}), [[0.5, 0.5]])
    for fixed_map in ([[1.0, 1.0]], [[-0.5, 1.5]], [0.5, 0.5]):
        with pytest.raises(ValueError, match="fixed_map is .*; give a distribution"):
            check_log(log, fixed_map)


def test_a_step_that_is_told_of_more_that_waits_allows_for_it():
    stream = block_stream(1200, 61)
    shares = {}
    for told in (True, False):
        policy, waiting, shares[told] = LateGradient(2, 0.0, waiting=0), deque(), []
        for t, r in enumerate(stream.rewards):
            waiting.append((r, policy.probabilities(0)))
            while len(waiting) > (60 if t < 1199 else 0):
                r, x = waiting.popleft()
                more = {"waiting": len(waiting)} if told else {}
                policy.update(0, r, played=x, **more)
            lack = stream.rewards[: t + 1 - len(waiting)].sum(0).max()
            lack -= (policy.rewards - 1).sum()
            norms = policy.squared_norms.sum()
            shares[told].append(lack / (2 * norms**0.5) if norms else 0)
    assert max(shares[True]) <= 1 < 1.5 < max(shares[False])


def test_what_is_told_counts_for_one_step_and_never_less_than_the_policys_own():
    def after(own, *told):
        policy = LateGradient(2, 0.0, waiting=own)
        for waiting in told:
            policy.update(0, [1.0, 0.0], waiting=waiting)
        return policy.squared_norms.sum()

    assert after(2, 0) == after(0, 2) == after(2, 1) < after(2, 3)
    np.testing.assert_allclose(after(1, 5, 0) - after(1, 5), after(1, 0))
    policy = LateGradient(2, 0.0, waiting=1)
    with pytest.raises(ValueError, match="waiting is -1; it must be a whole number"):
        policy.update(0, [1, 0], waiting=-1)
    with pytest.raises(ValueError, match="rewards"):
        policy.update(0, [2, 0], waiting=9)
    policy.update_many([0], [[1.0, 0.0]])
    assert policy.squared_norms.sum() == after(1, 0)
