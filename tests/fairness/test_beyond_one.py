"""Beyond one: uniform play is best in the worst case, and can be beaten elsewhere."""

from itertools import permutations
from math import factorial

import cvxpy as cp
import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest

from prunefair.fairness.bandit_feedback import LogBarrierBandit, ScaleFreeBandit
from prunefair.fairness.baselines import make_policy
from prunefair.fairness.beyond_one import (
    HalfGradient,
    HalfLeader,
    _nash_share,
    _uniform_share,
    check_made_for,
    half_leader_rewards,
    plot_judged,
    price_of_order,
)
from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.offline_optimum import solve_offline
from prunefair.fairness.one_context import leader
from prunefair.fairness.policy import Policy
from prunefair.fairness.simulation import RewardStream, simulate
from prunefair.fairness.utility import alpha_fair_utility, equivalent_reward

matplotlib.use("Agg")


def optimum(G, alpha):
    """Largest equivalent reward of a map, by cvxpy alone."""
    x = cp.Variable(G.shape, nonneg=True)
    R = 1 + cp.sum(cp.multiply(G, x), axis=0)
    if alpha == 1:
        target = cp.sum(cp.log(R))
    elif alpha == np.inf:
        target = cp.min(R)
    else:
        sign = 1 if alpha < 1 else -1
        target = sign * cp.sum(cp.power(R, 1 - alpha, approx=False))
    cp.Problem(cp.Maximize(target), [cp.sum(x, 1) == 1]).solve(solver=cp.CLARABEL)
    return equivalent_reward(1 + (G * x.value).sum(0), alpha)


@pytest.mark.parametrize("alpha", [1, 1.5, 2, 4])
def test_the_certified_solver_is_right_from_one_on(alpha):
    G = np.random.default_rng(3).gamma(0.5, 10, (4, 3))
    best = solve_offline(G, alpha)
    assert best.gap <= 1e-8 * abs(best.utility)
    mine = equivalent_reward(best.rewards, alpha)
    np.testing.assert_allclose(mine, optimum(G, alpha), rtol=1e-5)


def uniform_shares(**statement):
    rng = np.random.default_rng(4)
    streams = [1e5 * np.eye(4), *rng.gamma(0.3, 20, (3, 3, 4))]
    return max(
        _uniform_share(G, alpha, optimum(G, alpha), **statement)
        for G in streams
        for alpha in (0.5, 1, 2, np.inf)
    )


def test_uniform_play_has_its_factor_at_every_alpha_and_no_smaller_one():
    assert 0.999 < uniform_shares() <= 1
    for wrong in (lambda n: 0.99 * n, lambda n: n - 0.1, lambda n: n**0.9):
        assert uniform_shares(factor=wrong) > 1


@pytest.mark.parametrize("n", [2, 3, 6])
def test_no_policy_has_a_smaller_factor(n):
    for alpha in (1.5, 2, 8):
        b = alpha - 1
        factor = price_of_order(1e4 ** np.arange(n), alpha)
        assert n * (1 + (n - 1) * 1e4**-b) ** (-1 / b) <= factor * (1 + 1e-9)
        assert factor <= n * (1 + 1e-9)
    nash = price_of_order(1e4 ** np.arange(n), 1)
    assert factorial(n) ** (1 / n) * (1 - 1e-4) <= nash < n
    assert factorial(n) ** (1 / n) >= n / np.e
    assert nash < 1.001 * factorial(n) ** (1 / n)  # the mutant's constant


@pytest.mark.parametrize("alpha", [1, 2, 4])
def test_the_best_policy_computed_is_no_better_than_equal_shares(alpha):
    """Three arms: the whole tree of plays in cvxpy, equal shares are its optimum."""
    lengths = np.array([1.0, 3, 9])
    first, second = cp.Variable(3, nonneg=True), cp.Variable((3, 3), nonneg=True)
    utilities = []
    for a, b, c in permutations(range(3)):  # a dies first, then b
        R = [
            1 + lengths[0] * first[a],
            1 + lengths[0] * first[b] + lengths[1] * second[a, b],
            1 + lengths[0] * first[c] + lengths[1] * second[a, c] + lengths[2],
        ]
        R = cp.hstack(R)
        power = (
            cp.log(R)
            if alpha == 1
            else -cp.power(R, 1 - alpha, approx=False) / (alpha - 1)
        )
        utilities.append(cp.sum(power))
    rules = [cp.sum(first) == 1, cp.sum(second, 1) == 1]
    problem = cp.Problem(cp.Maximize(sum(utilities) / 6), rules)
    problem.solve(solver=cp.CLARABEL)
    shares = 1 + np.cumsum(lengths / np.array([3, 2, 1]))
    ceiling = alpha_fair_utility(shares, alpha)
    np.testing.assert_allclose(problem.value, ceiling, rtol=1e-5)


def nash_shares(**statement):
    rows = [np.array([1e12, 0, 0]), np.array([1e12] * 3 + [0] * 5)]
    rows += list(10 ** np.random.default_rng(5).uniform(-1, 6, (6, 4)))
    return max(_nash_share(G, 0.0 + nash(G), **statement) for G in rows)


def nash(G):
    """Water filling: the largest sum of ln(1 + G x), by bisection on the level."""
    paid = G[G > 0]
    low, high = 0.0, 1 + (1 / paid).sum()
    for _ in range(200):
        level = (low + high) / 2
        if np.maximum(level - 1 / paid, 0).sum() < 1:
            low = level
        else:
            high = level
    return np.log(1 + paid * np.maximum(low - 1 / paid, 0)).sum()


def test_nash_welfare_in_one_context_costs_a_constant():
    assert 0.99 < nash_shares() <= 1
    for wrong in (lambda n: 0.99 * n / np.e, lambda n: n / 3, lambda n: np.log(n)):
        assert nash_shares(bound=wrong) > 1


def over_a_grid(G, alpha):
    x = np.linspace(0, 1, 20_001)
    return equivalent_reward(1 + G * np.stack([x, 1 - x], 1), alpha).max()


def test_half_the_leader_beats_uniform_play_and_is_never_behind_half_of_it():
    r = np.tile([1, 0.25], (40_000, 1))
    uniform = 1 + r.sum(0) / 2
    known = {2: (8001, 8890), 10: (5401, 8160)}
    for alpha, (even, best) in known.items():
        half = equivalent_reward(half_leader_rewards(r, alpha)[-1], alpha)
        np.testing.assert_allclose(equivalent_reward(uniform, alpha), even, atol=0.6)
        np.testing.assert_allclose(over_a_grid(r.sum(0), alpha), best, rtol=2e-4)
        certified = solve_offline(r.sum(0)[None], alpha).rewards
        np.testing.assert_allclose(equivalent_reward(certified, alpha), best, rtol=2e-4)
        assert (even + best) / 2 * (1 - 1e-3) <= half < best
        assert even < half
    rng = np.random.default_rng(6)
    r = rng.random((300, 3)) * (rng.random((300, 1)) < np.linspace(0, 1, 3))
    R, even = half_leader_rewards(r, 3.0), 1 + np.cumsum(r, 0) / 3
    assert (even / 2 <= R).all()
    lead = 2 * R - even
    for alpha in (0, 0.5, 1, 3, np.inf):
        mean = (equivalent_reward(lead, alpha) + equivalent_reward(even, alpha)) / 2
        assert (equivalent_reward(R, alpha) >= mean * (1 - 1e-12)).all()
        assert (equivalent_reward(R, alpha) < 1.05 * mean).any()


def test_every_curve_of_the_figure_is_a_share():
    _, ax = matplotlib.pyplot.subplots()
    plot_judged(ax, np.tile([1, 0.25], (2000, 1)), (2,), [0.5, 1, 4])
    shares = np.array([line.get_ydata() for line in ax.lines])
    assert shares.shape == (2, 3) and (shares > 0).all() and (shares <= 1.01).all()


KNOWN = {  # constant rewards 1 and 1/4, T = 40 000; bandits with the generator of 0
    2: {"scale-free": 7494, "log-barrier": 7632, "gradient": 8708, "half": 8643},
    10: {"scale-free": 3954, "log-barrier": 4417, "gradient": 2712, "half": 6896},
}


@pytest.mark.parametrize("alpha", KNOWN)
def test_policies_of_the_theorems_below_one_end_where_it_is_known_beyond_one(alpha):
    T, found = 40_000, {}
    rewards = np.tile([1, 0.25], (T, 1))
    stream = RewardStream(contexts=np.zeros(T, int), rewards=rewards, n_contexts=1)
    policies = {
        "scale-free": ScaleFreeBandit(2, 1.0),
        "log-barrier": LogBarrierBandit(2, 1.0, horizon=T),
        "gradient": AlphaFairGradient(2, 1.0),
    }
    for name, policy in policies.items():
        policy.alpha = float(alpha)
        run_fast(policy, stream, rng=np.random.default_rng(0), n_points=1)
        found[name] = equivalent_reward(policy.rewards, alpha)
    found["half"] = equivalent_reward(half_leader_rewards(rewards, alpha)[-1], alpha)
    for name, expected in KNOWN[alpha].items():
        np.testing.assert_allclose(found[name], expected, atol=0.6, err_msg=name)


def many_contexts(n_rounds=400):
    rng = np.random.default_rng(7)
    pays = rng.random((3, 4)) ** 3
    contexts = rng.integers(3, size=n_rounds)
    rewards = (rng.random((n_rounds, 4)) < pays[contexts]) * 1.0
    return RewardStream(contexts=contexts, rewards=rewards, n_contexts=3)


@pytest.mark.parametrize("alpha", [0.5, 1, 2, 6])
def test_half_a_policy_earns_half_of_what_it_would_alone_and_half_of_uniform(alpha):
    stream = many_contexts()
    alone = AlphaFairGradient(4, min(alpha, 1))
    alone.alpha = float(alpha)
    simulate(alone, stream)
    before = 1 + np.cumsum(stream.rewards, 0) - stream.rewards
    lead = 1 + (stream.rewards * leader(before, alpha)).sum(0)
    even = 1 + (stream.rewards / 4).sum(0)
    for kind, own in ((HalfGradient, alone.rewards), (HalfLeader, lead)):
        policy = kind(4, alpha)
        simulate(policy, stream)
        np.testing.assert_allclose(policy.rewards, (own + even) / 2, rtol=1e-12)
        assert (policy.probabilities(0) >= 1 / 8).all()
        for judge in (0, 1, 3, np.inf):
            G = np.array(
                [stream.rewards[stream.contexts == j].sum(0) for j in (0, 1, 2)]
            )
            best = optimum(G, judge) if judge else 1 + G.max(1).sum() / 4
            assert equivalent_reward(policy.rewards, judge) >= best / 8
    np.testing.assert_allclose(HalfLeader(4, alpha).probabilities("new"), 1 / 4)


@pytest.mark.parametrize("kind", [HalfLeader, HalfGradient])
def test_half_policies_are_saved_with_their_books_and_take_new_arms(kind, tmp_path):
    stream, policy = many_contexts(60), kind(["a", "b", "c", "d"], 3.0)
    simulate(policy, stream)
    policy.save(tmp_path / "half.npz")
    other = Policy.load(tmp_path / "half.npz")
    assert type(other) is kind and other.alpha == 3
    for p in (policy, other):
        p.retire_arm("b")
        p.add_arm("e")
        p.update(1, [1, 0, 0.5, 0.25])
    for context in (0, 1, "new"):
        x = policy.probabilities(context)
        np.testing.assert_array_equal(x, other.probabilities(context))
        np.testing.assert_allclose(x.sum(), 1)
        assert (x >= 1 / 8 - 1e-15).all()


def test_a_round_that_was_played_earlier_is_credited_with_what_was_played_then():
    policy, alone = HalfGradient(2, 2.0), AlphaFairGradient(2, 1.0)
    alone.alpha = 2.0
    played = [p.probabilities(0) for p in (policy, alone)]
    for p, x in zip((policy, alone), played):
        p.update(0, [1, 0])
        p.update(0, [0, 1], played=x)
    np.testing.assert_array_equal(policy.shared.earned, alone.rewards)
    np.testing.assert_array_equal(policy.shared.earned, [1.5, 1.5])


@pytest.mark.parametrize("alpha", [0, -1, np.inf, np.nan, "x", None])
def test_an_alpha_that_is_not_positive_and_finite_is_refused(alpha):
    for call in (
        check_made_for,
        lambda a: HalfLeader(2, a),
        lambda a: HalfGradient(2, a),
        lambda a: half_leader_rewards([[1, 0]], a),
    ):
        with pytest.raises(
            ValueError, match="alpha is .*; it must be positive and fin"
        ):
            call(alpha)


def test_both_have_a_name():
    sizes = {"feedback": "full", "n_arms": 3, "n_contexts": 2, "horizon": 9}
    for name, kind in (("half_leader", HalfLeader), ("half_gradient", HalfGradient)):
        policy = make_policy(name, alpha=4, **sizes)
        assert type(policy) is kind and policy.alpha == 4
