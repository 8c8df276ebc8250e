"""The comparison of policies on real ratings, and the defects of the code."""

import re

import cvxpy as cp
import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefair.fairness.bandit_feedback import ScaleFreeBandit, repeated_runs
from prunefair.fairness.full_information import (
    AlphaFairGradient,
    approximation_factor,
    certificate_bound,
)
from prunefair.fairness.movielens import (
    RewardFedBandit,
    compare_policies,
    plot_arms,
    plot_over_time,
    price_bound,
    price_bounds,
    squared_norms_over_time,
)
from prunefair.fairness.offline_optimum import (
    certificate,
    dual_value,
    inner_product_benchmark,
    offline_optimum_of,
    reward_sums,
    solve_offline,
)
from prunefair.fairness.ratings import (
    load_ratings,
    movielens_stream,
)
from prunefair.fairness.simulation import RewardStream, simulate
from prunefair.fairness.utility import alpha_fair_utility, jain_index, utility_gradient

matplotlib.use("agg")
ALPHA = 0.9


@pytest.fixture(scope="module")
def ratings():
    return load_ratings()


@pytest.fixture(scope="module")
def stream(ratings):
    return movielens_stream(ratings)


@pytest.fixture(scope="module")
def optimum(stream):
    return offline_optimum_of(stream, ALPHA)


def sums_of(stream):
    return reward_sums(stream.contexts, stream.rewards, stream.n_contexts)


# Comparing policies


def test_the_optimum_is_certified_and_equals_cvxpys(stream, optimum):
    G = sums_of(stream)
    x = cp.Variable(G.shape, nonneg=True)
    R = 1 + cp.sum(cp.multiply(G, x), axis=0)
    utility = cp.sum(cp.power(R, 1 - ALPHA)) / (1 - ALPHA)
    problem = cp.Problem(cp.Maximize(utility), [cp.sum(x, axis=1) == 1])
    problem.solve(solver=cp.CLARABEL)
    assert optimum.utility == pytest.approx(problem.value, rel=1e-6)
    assert optimum.utility == pytest.approx(353.9061, abs=1e-4)
    assert 0 <= optimum.gap < 1e-6 * optimum.utility


def test_policies_reach_the_recorded_utilities(stream, optimum):
    results = compare_policies(
        stream, ["alpha_fair", "uniform"], ALPHA, seed=0, optimum=optimum
    )
    fair, die = results["alpha_fair"], results["uniform"]
    assert fair.utility == pytest.approx(351.871, abs=5e-4)
    assert die.utility == pytest.approx(332.273, abs=5e-4)
    assert fair.regret == pytest.approx(2.03, abs=0.01)
    assert die.c_regret == pytest.approx(-64.4, abs=0.05)
    played = 1 + stream.rewards.sum(0) / stream.n_arms  # uniform play in closed form
    np.testing.assert_allclose(die.trajectory.rewards[-1], played, rtol=1e-9)
    S = fair.policy.squared_norms
    bound = certificate_bound(S, ALPHA, stream.n_arms)
    assert fair.c_regret <= bound < 0  # true, and yet the die satisfies it as well
    assert die.c_regret < bound


def test_the_released_step_loses_what_coupling_gains(stream, optimum):
    released = AlphaFairGradient(stream.n_arms, ALPHA, step="released", weights="after")
    simulate(released, stream)
    utility = alpha_fair_utility(released.rewards, ALPHA)
    assert utility == pytest.approx(344.895, abs=5e-4)
    alone = compare_policies(
        stream, ["independent_gradient"], ALPHA, seed=0, optimum=optimum
    )["independent_gradient"]
    assert alone.utility == pytest.approx(346.074, abs=5e-4)
    assert utility < alone.utility < 351.8


def test_results_agree_with_their_definitions(stream):
    short = stream.first(300)
    names = ["scale_free", "uniform"]
    results = compare_policies(short, names, 0.5, seed=3, feedback="bandit")
    assert list(results) == names
    best = offline_optimum_of(short, 0.5).utility
    for result in results.values():
        R = result.trajectory.rewards[-1]
        assert result.utility == alpha_fair_utility(R, 0.5)
        assert result.jain == jain_index(R)
        assert result.reward_sum == pytest.approx(R.sum())
        assert result.regret == pytest.approx(best - result.utility)
        assert result.c_regret == pytest.approx(best - 2**0.5 * result.utility)
        assert result.rounds_per_second > 0


def test_draws_depend_on_the_seed_and_not_on_the_company(stream):
    short = stream.first(200)

    def utilities(names, seed):
        found = compare_policies(short, names, ALPHA, seed=seed, feedback="bandit")
        return {name: result.utility for name, result in found.items()}

    both = utilities(["scale_free", "uniform"], 1)
    assert utilities(["uniform"], 1)["uniform"] == both["uniform"]
    assert utilities(["uniform"], 2)["uniform"] != both["uniform"]


def test_from_alpha_one_on_there_is_no_c_regret(stream):
    short = stream.first(100)
    result = compare_policies(short, ["uniform"], 1.0, seed=0)["uniform"]
    assert result.c_regret is None
    best = offline_optimum_of(short, 1.0).utility
    assert result.regret == pytest.approx(best - result.utility)


def test_unknown_names_and_values_are_refused(stream):
    short = stream.first(10)
    with pytest.raises(ValueError, match="name is 'best'"):
        compare_policies(short, ["best"], ALPHA, seed=0)
    with pytest.raises(ValueError, match="feedback is 'none'"):
        compare_policies(short, ["uniform"], ALPHA, seed=0, feedback="none")
    with pytest.raises(ValueError, match="alpha is -1"):
        compare_policies(short, ["uniform"], -1, seed=0)


# The price bound and the test that says nothing

seeds = st.integers(0, 2**32 - 1)
alphas = st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0, 2.0])


def random_run(seed):
    """A random stream and the rewards of a random policy that changes each round."""
    rng = np.random.default_rng(seed)
    T, M, N = rng.integers(1, 40), rng.integers(1, 5), rng.integers(1, 6)
    rewards = rng.random((T, N)) * (rng.random((T, N)) < rng.random())
    contexts = rng.integers(M, size=T)
    x = rng.dirichlet(np.full(N, 0.3), T)
    return reward_sums(contexts, rewards, int(M)), 1 + (rewards * x).sum(0)


@given(seeds, alphas)
def test_the_price_bound_is_a_dual_gap_above_the_regret_of_any_run(seed, alpha):
    G, R = random_run(seed)
    best = solve_offline(G, alpha)
    bound = price_bound(R, G, alpha)
    scale = 1 + abs(best.utility)
    assert best.utility - alpha_fair_utility(R, alpha) <= bound + 1e-9 * scale
    dual = dual_value(utility_gradient(R, alpha), G, alpha)
    assert bound == pytest.approx(
        dual - alpha_fair_utility(R, alpha), abs=1e-9 * scale, rel=1e-9
    )


@given(seeds, alphas)
def test_at_a_fixed_map_the_price_bound_is_its_certificate(seed, alpha):
    G, _ = random_run(seed)
    x = np.random.default_rng(seed).dirichlet(np.ones(G.shape[1]), G.shape[0])
    R = 1 + (G * x).sum(0)
    assert price_bound(R, G, alpha) == pytest.approx(certificate(x, G, alpha), abs=1e-9)
    best = solve_offline(G, alpha)
    unit = 1 + abs(best.utility)
    assert price_bound(best.rewards, G, alpha) == pytest.approx(0, abs=1e-6 * unit)


def test_other_prices_do_not_bound_the_regret():
    G = np.array([[10.0, 0.0], [10.0, 10.0]])  # negative control: equal prices
    R = np.array([21.0, 1.0])
    wrong = G.max(1).sum() - (R - 1).sum()
    regret = solve_offline(G, ALPHA).utility - alpha_fair_utility(R, ALPHA)
    assert wrong < regret <= price_bound(R, G, ALPHA)


def test_bounds_over_time_are_the_bounds_of_the_first_rounds(stream):
    short = stream.first(500)
    path = simulate(AlphaFairGradient(19, ALPHA), short, n_points=5)
    bounds = price_bounds(short, path, ALPHA)
    fresh = AlphaFairGradient(19, ALPHA)
    norms = squared_norms_over_time(fresh, short, path.rounds)
    for t, R, bound, row in zip(path.rounds, path.rewards, bounds, norms):
        part = short.first(t)
        assert bound == pytest.approx(price_bound(R, sums_of(part), ALPHA))
        policy = AlphaFairGradient(19, ALPHA)
        simulate(policy, part)
        np.testing.assert_allclose(row[row > 0].sum(), policy.squared_norms.sum())
    np.testing.assert_array_equal(fresh.rewards, path.rewards[-1])


@given(seeds, st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_uniform_play_loses_at_most_the_factor_of_the_theorem(seed, alpha):
    G, _ = random_run(seed)
    n = G.shape[1]
    die = alpha_fair_utility(1 + G.sum(0) / n, alpha)
    best = solve_offline(G, alpha).utility
    assert best <= n ** (1 - alpha) * die * (1 + 1e-9)
    if n <= 1 / (1 - alpha) + 1e-9:
        assert best <= approximation_factor(alpha) * die * (1 + 1e-9)


def test_the_factor_of_uniform_play_is_reached_and_eleven_arms_break_it():
    for n in (10, 11):
        G = 1e15 * np.eye(n)
        ratio = solve_offline(G, ALPHA).utility
        ratio /= alpha_fair_utility(1 + G.sum(0) / n, ALPHA)
        assert ratio == pytest.approx(n**0.1, rel=1e-9)
        assert (ratio > approximation_factor(ALPHA) * (1 + 1e-6)) == (n == 11)


# The three defects


@given(seeds, st.sampled_from([0.2, 0.5, 0.9]))
def test_the_broadcast_benchmark_is_what_summing_over_arms_maximises(seed, alpha):
    G, _ = random_run(seed)
    rng = np.random.default_rng(seed)
    value = inner_product_benchmark(G, alpha)
    assert value >= solve_offline(G, alpha).utility * (1 - 1e-9)
    for x in [
        *rng.dirichlet(np.ones(G.shape[1]), (5, G.shape[0])),
        np.eye(G.shape[1])[G.argmax(1)],
    ]:
        everyone = np.full(G.shape[1], 1 + (G * x).sum())  # one scalar for all arms
        assert alpha_fair_utility(everyone, alpha) <= value * (1 + 1e-12)
    assert alpha_fair_utility(everyone, alpha) == pytest.approx(value)


def test_the_broadcast_benchmark_on_the_ratings_is_the_recorded_one(stream):
    assert inner_product_benchmark(sums_of(stream), ALPHA) == pytest.approx(
        525.15, abs=5e-3
    )


def test_the_sign_decides_which_arm_is_pulled():
    good = RewardStream(
        contexts=np.zeros(3000, int),
        rewards=np.tile([1.0, 0.001], (3000, 1)),
        n_contexts=1,
    )
    share = {}
    for kind in (ScaleFreeBandit, RewardFedBandit):
        rng = np.random.default_rng(1)
        R = repeated_runs(lambda kind=kind: kind(2, 0.0), good, 3, rng=rng)
        share[kind] = (R[:, -1, 0] - 1) / 3000
    assert (share[ScaleFreeBandit] > 0.95).all()
    assert (share[RewardFedBandit] < 0.05).all()


# Figures


def test_figures_draw_one_line_for_each_entry():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    rewards = {"one": np.array([1.0, 3.0, 2.0]), "two": np.ones(3)}
    assert plot_arms(ax, ("a", "b", "c"), rewards) is ax
    assert [label.get_text() for label in ax.get_xticklabels()] == ["b", "c", "a"]
    ax = Figure().subplots()
    curves = {"one": np.arange(4.0), "proved bound": np.ones(4)}
    assert plot_over_time(ax, np.arange(1, 5), curves, "regret (units)") is ax
    assert len(ax.lines) == 2 and ax.lines[1].get_color() == "black"
    assert re.match("round", ax.get_xlabel()) and ax.get_ylabel() == "regret (units)"
