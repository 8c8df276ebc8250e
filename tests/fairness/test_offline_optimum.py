"""Claims of the chapter on the offline optimum."""

import re
import warnings

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize_scalar

from prunefair.fairness.offline_optimum import (
    DPP_ENTRIES,
    arrow_solver,
    certificate,
    certified_optimum,
    dual_value,
    gap_unit,
    inner_product_benchmark,
    offline_problem,
    optimum_over_time,
    plot_map,
    plot_optimum,
    reward_sums,
    solve_offline,
    sums_over_time,
)
from prunefair.fairness.ratings import (
    load_ratings,
    movielens_stream,
    synthetic_stream,
)
from prunefair.fairness.simulation import RewardStream, checkpoints
from prunefair.fairness.utility import (
    alpha_fair_utility,
    arm_utility,
    equivalent_reward,
    jain_index,
    utility_gradient,
)

ALPHAS = (0.1, 0.5, 0.9, 1, 1.5, 3)
SIZES = [(1, 1), (1, 6), (6, 1), (2, 2), (3, 8), (8, 3), (15, 15), (5, 40), (40, 5)]
shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))
seeds = st.integers(0, 2**32 - 1)


def assert_certified(optimum, G, alpha, rtol=1e-9):
    """The gap is below `rtol`, and it is what the objectives say it is."""
    assert 0 <= optimum.gap <= rtol * gap_unit(optimum.rewards, alpha)
    gap = certificate(optimum.x, G, alpha, p=None if alpha == 0 else optimum.prices)
    np.testing.assert_allclose(gap, optimum.gap, rtol=1e-12)
    np.testing.assert_allclose(optimum.rewards, 1 + (G * optimum.x).sum(0), rtol=1e-12)
    assert optimum.utility == alpha_fair_utility(optimum.rewards, alpha)
    bound = dual_value(optimum.prices, G, alpha)
    np.testing.assert_allclose(optimum.dual, bound, rtol=1e-12, atol=1e-12)


def random_stream(rng, n_rounds=60, n_contexts=4, n_arms=3):
    return RewardStream(
        contexts=rng.integers(0, n_contexts, n_rounds),
        rewards=rng.random((n_rounds, n_arms)),
        n_contexts=n_contexts,
    )


@pytest.fixture(scope="module")
def ratings():
    return movielens_stream(load_ratings())


def test_reward_sums_equal_a_loop_over_the_rounds():
    stream = random_stream(np.random.default_rng(0))
    G = np.zeros((4, 3))
    for context, rewards in zip(stream.contexts, stream.rewards, strict=True):
        G[context] += rewards
    found = reward_sums(stream.contexts, stream.rewards, 4)
    np.testing.assert_allclose(found, G, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 0.9, 1])
def test_problem_over_sums_equals_the_problem_over_rounds(alpha):
    stream = random_stream(np.random.default_rng(1))
    x = cp.Variable((4, 3), nonneg=True)
    earned = [cp.multiply(r, x[j]) for j, r in zip(stream.contexts, stream.rewards)]
    R = 1 + sum(earned)
    phi = cp.log(R) if alpha == 1 else cp.power(R, 1 - alpha) / (1 - alpha)
    problem = cp.Problem(cp.Maximize(cp.sum(phi)), [cp.sum(x, axis=1) == 1])
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    G = reward_sums(stream.contexts, stream.rewards, 4)
    np.testing.assert_allclose(
        solve_offline(G, alpha).utility, problem.value, rtol=1e-6
    )


@given(shapes, seeds, st.floats(0.05, 5))
def test_certificate_is_the_difference_of_the_objectives_at_any_price(
    shape, seed, alpha
):
    rng = np.random.default_rng(seed)
    G, x = rng.gamma(1, 10, shape), rng.dirichlet(np.ones(shape[1]), shape[0])
    R = 1 + (G * x).sum(0)
    p, U = utility_gradient(R, alpha), alpha_fair_utility(R, alpha)
    size = np.abs(arm_utility(R, alpha)).sum() + (p * R).sum()
    difference = dual_value(p, G, alpha) - U
    np.testing.assert_allclose(certificate(x, G, alpha), difference, atol=1e-11 * size)
    other = p * rng.lognormal(0, 0.5, shape[1])
    bound = dual_value(other, G, alpha)
    gap = certificate(x, G, alpha, p=other)
    assert gap >= 0
    np.testing.assert_allclose(
        gap, bound - U, rtol=1e-9, atol=1e-11 * (size + abs(bound))
    )


@given(shapes, seeds, st.floats(0, 3))
def test_every_price_bounds_every_map(shape, seed, alpha):
    rng = np.random.default_rng(seed)
    G = rng.gamma(0.3, 10, shape)
    p = 1 + rng.gamma(1, 1, shape[1])  # in the domain for every alpha
    for x in rng.dirichlet(np.full(shape[1], 0.3), (20, shape[0])):
        U = alpha_fair_utility(1 + (G * x).sum(0), alpha)
        assert dual_value(p, G, alpha) >= U - 1e-9 * abs(U)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("M", "N"), SIZES)
def test_solver_and_cvxpy_do_not_beat_each_other(M, N, alpha):
    G = np.random.default_rng(M * 100 + N).gamma(0.5, 100, (M, N))
    ours = solve_offline(G, alpha)
    assert_certified(ours, G, alpha)
    theirs = offline_problem(M, N, alpha).optimum(G)
    unit = gap_unit(ours.rewards, alpha)
    assert theirs.utility <= ours.dual + 1e-12 * abs(ours.dual)
    assert ours.utility <= theirs.dual + 1e-12 * abs(theirs.dual)
    assert theirs.utility >= ours.utility - 1e-3 * unit


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 0.9, 0.9999999, 1, 1.0000001, 2, 5, 20])
def test_solver_meets_its_tolerance_on_hard_sums(alpha):
    rng = np.random.default_rng(5)
    for M, N in [
        (1, 2),
        (3, 5),
        (5, 3),
        (1, 40),
        (40, 2),
        (20, 20),
        (60, 19),
        (19, 60),
    ]:
        sparse = (rng.random((M, N)) < 0.15) * rng.pareto(1, (M, N)) * 1000
        tied = rng.integers(0, 3, (M, N)).astype(float)
        spread = rng.lognormal(0, 4, (M, N))
        skew = rng.random((M, 1)) * 1000 * np.exp(-10 * rng.random(N))
        for G in (sparse, tied, spread, skew, np.full((M, N), 1e6), 1e-9 * spread):
            assert_certified(solve_offline(G, alpha), G, alpha)


def test_solver_has_no_trouble_with_many_arms_or_many_contexts():
    G = np.random.default_rng(6).gamma(1, 100, (30, 400))
    for sums in (G, G.T):
        assert_certified(solve_offline(sums, 0.9), sums, 0.9)


@pytest.mark.parametrize("alpha", [0.3, 1, 2.5])
def test_one_context_two_arms_against_a_line_search(alpha):
    G = np.array([[7.0, 3.0]])
    line = minimize_scalar(
        lambda v: -alpha_fair_utility([1 + 7 * v, 1 + 3 * (1 - v)], alpha),
        bounds=(0, 1),
        method="bounded",
        options={"xatol": 1e-12},
    )
    best = solve_offline(G, alpha)
    np.testing.assert_allclose(best.utility, -line.fun, rtol=1e-8)
    np.testing.assert_allclose(best.x[0, 0], line.x, atol=1e-5)


def test_at_alpha_zero_the_optimum_is_the_linear_programs():
    G = np.random.default_rng(7).random((5, 4))
    G[2] = 0.5  # a tie
    best = solve_offline(G, 0)
    rows = np.kron(np.eye(5), np.ones(4))
    found = linprog(-G.ravel(), A_eq=rows, b_eq=np.ones(5))
    np.testing.assert_allclose(best.utility, 4 - found.fun)
    assert best.gap == 0 and ((best.x == 0) | (best.x == 1)).all()
    assert_certified(best, G, 0)


@given(shapes, seeds, st.sampled_from([0.3, 0.9, 1, 2]))
def test_optimum_is_certified_and_no_random_map_beats_it(shape, seed, alpha):
    rng = np.random.default_rng(seed)
    G = rng.gamma(0.4, 30, shape)
    best = solve_offline(G, alpha)
    assert_certified(best, G, alpha)
    np.testing.assert_allclose(best.x.sum(1), 1, rtol=1e-12)
    for x in rng.dirichlet(np.full(shape[1], 0.4), (30, shape[0])):
        U = alpha_fair_utility(1 + (G * x).sum(0), alpha)
        assert best.dual + 1e-12 * abs(best.dual) >= U


@given(shapes, seeds, st.sampled_from([0.01, 0.5, 0.999, 1, 3]), st.floats(-6, 6))
def test_sums_from_tiny_to_huge_are_certified(shape, seed, alpha, power):
    rng = np.random.default_rng(seed)
    G = 10 ** rng.uniform(-12, 12, shape) * (rng.random(shape) < 0.7)
    best = solve_offline(G, alpha, initial=10**power)
    assert best.gap <= 1e-9 * gap_unit(best.rewards, alpha)
    other = rng.dirichlet(np.full(shape[1], 0.3), size=shape[0])
    rewards = 10**power + (G * other).sum(0)
    assert alpha_fair_utility(rewards, alpha) <= best.dual + 1e-9 * abs(best.dual)


@given(seeds, st.floats(0.1, 2.5), st.floats(1e-4, 1e4))
def test_the_unit_of_reward_and_the_order_of_contexts_do_not_matter(seed, alpha, unit):
    rng = np.random.default_rng(seed)
    G = rng.gamma(1, 10, (5, 3))
    rewards = solve_offline(G, alpha).rewards
    scaled = solve_offline(unit * G[::-1], alpha, initial=unit).rewards
    np.testing.assert_allclose(scaled / unit, rewards, rtol=1e-3)
    E, F = equivalent_reward(rewards, alpha), equivalent_reward(scaled, alpha)
    np.testing.assert_allclose(F / unit, E, rtol=1e-8)


def test_contexts_and_arms_without_reward_are_harmless():
    G = np.array([[0, 0, 0], [4.0, 2.0, 0], [1.0, 3.0, 0]])
    best = solve_offline(G, 0.9)
    assert_certified(best, G, 0.9)
    np.testing.assert_array_equal(best.x[0], 1 / 3)
    alone = solve_offline(G[1:, :2], 0.9)
    np.testing.assert_allclose(best.rewards[:2], alone.rewards, rtol=1e-4)
    nothing = solve_offline(np.zeros((2, 3)), 0.5)
    assert nothing.gap == 0 and nothing.utility == 6


def test_initial_rewards_may_differ_between_arms():
    G, c = np.array([[6.0, 6.0]]), np.array([1.0, 3.0])
    best = solve_offline(G, 0.5, initial=c)
    np.testing.assert_allclose(best.rewards, [5, 5], rtol=1e-4)
    theirs = offline_problem(1, 2, 0.5).optimum(G, c)
    np.testing.assert_allclose(theirs.utility, best.utility, rtol=1e-7)


def test_certificate_rejects_a_map_that_is_not_optimal():
    G = np.random.default_rng(8).gamma(1, 50, (6, 4))
    best = solve_offline(G, 0.9)
    worse = 0.9 * best.x + 0.1 * best.x[:, ::-1]
    with pytest.raises(AssertionError):
        assert_certified(certified_optimum(worse, G, 0.9), G, 0.9)
    loss = best.utility - certified_optimum(worse, G, 0.9).utility
    assert 0 < loss <= certificate(worse, G, 0.9)


def test_a_price_on_the_wrong_side_of_its_domain_is_no_bound():
    G = np.ones((2, 2))
    assert dual_value([0.5, 2.0], G, 0) == np.inf
    assert dual_value([0.0, 1.0], G, 0.5) == np.inf
    assert dual_value([-1.0, 1.0], G, 3) == np.inf
    assert np.isfinite(dual_value([0.0, 1.0], G, 3))


def test_cvxpy_problem_is_compiled_once_for_many_sums():
    problem = offline_problem(3, 2, 0.9)
    assert problem.problem.is_dcp(dpp=True)
    rng = np.random.default_rng(9)
    compiled = set()
    for _ in range(3):
        G = rng.gamma(1, 10, (3, 2))
        assert problem.optimum(G).gap < 1e-4
        compiled.add(id(problem.problem._cache.param_prog))
    assert len(compiled) == 1


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")  # it is certified
def test_cvxpy_solves_a_thousand_contexts_without_a_parametrised_compilation():
    G = np.random.default_rng(17).gamma(0.5, 200, (1000, 10))
    assert G.size > DPP_ENTRIES
    problem = offline_problem(*G.shape, 0.5)
    theirs, ours = problem.optimum(G), solve_offline(G, 0.5)
    assert theirs.gap < 1e-4 * gap_unit(ours.rewards, 0.5)
    assert ours.utility <= theirs.dual and theirs.utility <= ours.dual
    again = problem.optimum(2 * G)  # the constants of the first solve are not kept
    assert again.utility > 1.3 * theirs.utility


@pytest.mark.parametrize(("n_contexts", "n_arms"), [(300, 40), (40, 60)])
@pytest.mark.parametrize("alpha", [0.9, 0.99])
def test_clarabel_solves_plain_uniform_sums(n_contexts, n_arms, alpha):
    G = np.random.default_rng(0).uniform(0, 1, (n_contexts, n_arms))
    theirs = offline_problem(n_contexts, n_arms, alpha).optimum(G)
    ours = solve_offline(G, alpha)
    assert theirs.gap < 1e-3 * gap_unit(ours.rewards, alpha)
    assert abs(theirs.utility - ours.utility) < theirs.gap + ours.gap


@pytest.mark.parametrize("alpha", [150, 200])
def test_a_utility_beyond_floating_point_is_told_from_bad_input(alpha):
    G = np.random.default_rng(0).uniform(0, 1000, (5, 4))
    with pytest.raises(RuntimeError, match="divide G and initial by") as caught:
        solve_offline(G, alpha)
    assert len(str(caught.value)) <= 300
    uniform = np.full(G.shape, 0.25)
    with pytest.raises(RuntimeError, match="leave the range of floating point"):
        certificate(uniform, G, alpha)  # a gap of zero would prove it optimal
    unit = float(re.search(r"initial by ([\d.e+]+),", str(caught.value))[1])
    best = solve_offline(G / unit, alpha, initial=1 / unit, max_iter=400)
    mild = solve_offline(G, 20)
    assert best.rewards.min() * unit > mild.rewards.min()


def test_what_clarabel_cannot_solve_is_reported(monkeypatch):
    problem = offline_problem(2, 2, 0.5)

    def fail(**options):
        raise cp.error.SolverError("no luck")

    monkeypatch.setattr(problem.problem, "solve", fail)
    with pytest.raises(
        RuntimeError, match=r"Clarabel found no optimum for G of shape \(2, 2\)"
    ):
        problem.optimum(np.ones((2, 2)))


def test_exponents_are_exact_where_cvxpys_default_replaces_them():
    alpha, G = 0.1234567, np.array([[10.0, 20.0], [30.0, 10.0]])
    x = cp.Variable(pos=True)
    default = cp.Problem(cp.Maximize(cp.power(x, 1 - alpha)), [x <= 2])
    with pytest.warns(UserWarning, match="approximated with rational"):
        default.solve(solver=cp.CLARABEL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact = offline_problem(2, 2, alpha).optimum(G)
    np.testing.assert_allclose(
        exact.utility, solve_offline(G, alpha).utility, rtol=1e-8
    )


@pytest.mark.parametrize(("M", "N"), [(7, 3), (3, 7), (1, 5), (5, 1), (4, 4)])
def test_arrow_solver_equals_a_dense_solve(M, N):
    rng = np.random.default_rng(10)
    theta, G = rng.uniform(0.1, 3, (2, M, N))
    B, s = theta * G, theta.sum(1)
    e = rng.uniform(0.1, 1, N) + (B * G).sum(0)
    u, v = rng.normal(size=N), rng.normal(size=M)
    whole = np.block([[np.diag(e), B.T], [B, np.diag(s)]])
    assert np.linalg.eigvalsh(whole).min() > 0
    expected = np.linalg.solve(whole, np.concatenate([u, v]))
    np.testing.assert_allclose(np.concatenate(arrow_solver(e, B, s)(u, v)), expected)


def test_arrow_solver_says_when_the_system_is_not_positive_definite():
    with pytest.raises(RuntimeError, match="rounding broke the Newton system"):
        arrow_solver(np.ones(2), np.full((3, 2), 5.0), np.ones(3))


def test_solver_says_when_its_steps_are_spent():
    G = np.random.default_rng(11).gamma(1, 50, (6, 4))
    with pytest.raises(RuntimeError, match="max_iter = 3 steps left a relative gap"):
        solve_offline(G, 0.9, max_iter=3)
    loose = solve_offline(G, 0.9, rtol=1e-2, max_iter=8)
    assert loose.iterations < solve_offline(G, 0.9, rtol=1e-11).iterations


def test_optimum_over_time_is_the_optimum_of_each_prefix():
    stream = random_stream(np.random.default_rng(12), n_rounds=300)
    rounds = [1, 7, 7, 100, 300]
    curve = optimum_over_time(stream, 0.9, rounds)
    for t, U, gap, R in zip(*curve, strict=True):
        G = reward_sums(stream.contexts[:t], stream.rewards[:t], 4)
        alone = solve_offline(G, 0.9)
        np.testing.assert_allclose(U, alone.utility, rtol=1e-9)
        assert gap <= 1e-9 * U and abs(alpha_fair_utility(R, 0.9) - U) < 1e-9
    assert (np.diff(curve.utility) >= -1e-9).all()
    assert curve.rewards.shape == (5, 3)


def test_sums_over_time_end_in_the_sums_of_the_stream():
    stream = random_stream(np.random.default_rng(13))
    last = [G.copy() for G in sums_over_time(stream, [5, 20, 60])][-1]
    whole = reward_sums(stream.contexts, stream.rewards, 4)
    np.testing.assert_allclose(last, whole, rtol=1e-12)


@given(shapes, seeds, st.sampled_from([0.4, 1, 2]))
def test_some_optimal_map_has_few_positive_entries(shape, seed, alpha):
    M, N = shape
    G = np.random.default_rng(seed).gamma(1, 30, shape)
    best = solve_offline(G, alpha, rtol=1e-11)
    assert (best.x > 1e-4).sum() <= M + N - 1  # generic sums: the map is unique


def test_inner_product_in_place_of_elementwise_shows_after_one_round():
    r = np.array([[1.0, 1.0, 0.001]])
    assert solve_offline(r, 0.9).rewards.sum() <= 3 + r.max() + 1e-9
    assert inner_product_benchmark(r, 0.9) > solve_offline(r, 0.9).dual + 1


@pytest.mark.parametrize("alpha", [0.5, 0.9, 1])
def test_closed_form_of_the_inner_product_benchmark(alpha):
    G = np.random.default_rng(14).gamma(1, 20, (4, 3))
    x = cp.Variable((4, 3), nonneg=True)
    R = 1 + sum(G[j] @ x[j] for j in range(4)) * np.ones(3)  # broadcast to all arms
    phi = cp.log(R) if alpha == 1 else cp.power(R, 1 - alpha) / (1 - alpha)
    problem = cp.Problem(cp.Maximize(cp.sum(phi)), [cp.sum(x, axis=1) == 1])
    problem.solve(solver=cp.CLARABEL)
    expected = inner_product_benchmark(G, alpha)
    np.testing.assert_allclose(problem.value, expected, rtol=1e-6)
    np.testing.assert_allclose(
        inner_product_benchmark(G[:, :1], alpha), arm_utility(1 + G[:, 0].sum(), alpha)
    )


def test_optimum_of_the_ratings_is_the_recorded_one(ratings):
    G = reward_sums(ratings.contexts, ratings.rewards, ratings.n_contexts)
    best = solve_offline(G, 0.9)
    assert_certified(best, G, 0.9)
    assert f"{best.utility:.4f}" == "353.9061"
    assert f"{solve_offline(G, 0.5).utility:.3f}" == "972.184"
    assert f"{inner_product_benchmark(G, 0.9):.2f}" == "525.15"
    assert f"{jain_index(best.rewards):.3f}" == "0.548"
    assert f"{best.rewards.sum():.0f}" == "13895"


def test_optimum_of_the_ratings_after_one_round_is_the_recorded_one(ratings):
    one = reward_sums(ratings.contexts[:1], ratings.rewards[:1], ratings.n_contexts)
    assert f"{solve_offline(one, 0.9).utility:.2f}" == "190.72"
    assert f"{inner_product_benchmark(one, 0.9):.2f}" == "203.64"


def test_two_hundred_checkpoints_of_the_ratings_are_all_certified(ratings):
    curve = optimum_over_time(ratings, 0.9, checkpoints(ratings.n_rounds, 200))
    assert len(curve.rounds) == 200
    assert (curve.gap <= 1e-9 * curve.utility).all()
    assert (np.diff(curve.utility) >= -1e-9 * curve.utility[1:]).all()


ONE = [[1.0, 2.0]]
BAD = [
    (reward_sums, ([0, 1], [[1.0]], 2), r"contexts has shape \(2,\)"),
    (reward_sums, ([2], [[1.0]], 2), "n_contexts - 1 = 1"),
    (reward_sums, ([-1], [[1.0]], 2), "n_contexts - 1 = 1"),
    (solve_offline, ([1.0], 0.5), r"G has shape \(1,\)"),
    (solve_offline, (np.empty((0, 2)), 0.5), r"G has shape \(0, 2\)"),
    (solve_offline, ([[np.nan, 1]], 0.5), "negative, infinite or NaN"),
    (solve_offline, ([[np.inf, 1]], 0.5), "negative, infinite or NaN"),
    (solve_offline, ([[-1.0, 1]], 0.5), "negative, infinite or NaN"),
    (solve_offline, (ONE, -0.1), "alpha is -0.1"),
    (solve_offline, (ONE, np.inf), "alpha is inf"),
    (solve_offline, (ONE, np.nan), "alpha is nan"),
    (dual_value, ([1.0], ONE, 0.5), r"p has shape \(1,\)"),
    (dual_value, ([1.0, np.nan], ONE, 0.5), "p is"),
    (dual_value, ([1.0, 1.0], ONE, 0.5, 0.0), "initial is 0.0"),
    (dual_value, ([1.0, 1.0], ONE, 0.5, np.ones(3)), r"initial has shape \(3,\)"),
    (certificate, ([[1.0]], ONE, 0.5), r"x has shape \(1, 1\)"),
    (certificate, ([[0.7, 0.7]], ONE, 0.5), "no distribution"),
    (certificate, ([[1.5, -0.5]], ONE, 0.5), "no distribution"),
    (offline_problem, (2, 2, np.inf), "alpha is inf"),
    (offline_problem, ("2", 2, 0.5), "n_contexts is '2'; it must be a positive whole"),
    (offline_problem, (2, 2.5, 0.5), "n_arms is 2.5; it must be a positive whole"),
    (offline_problem, (10**12, 2, 0.5), "n_contexts is 1000000000000 .*solve_offline"),
    (reward_sums, (["a"], ONE, 2), r"contexts is \['a'\] .* must hold real numbers"),
    (reward_sums, ([0.5], ONE, 2), r"contexts\[0\] is 0.5; .* whole number from 0"),
    (reward_sums, ([[0], [1, 2]], ONE, 2), "contexts is .* in rows of one length"),
    (reward_sums, ([0], [[1j, 0]], 2), "rewards is .* must hold real numbers"),
    (reward_sums, ([0], [["x", "y"]], 2), "rewards is .* must hold real numbers"),
    (reward_sums, ([0], [[1, -3]], 2), r"rewards\[0, 1\] is -3.0; .*\[0, 1\]"),
    (reward_sums, ([0], [[3, 1]], 2), r"rewards\[0, 0\] is 3.0; .*\[0, 1\]"),
    (reward_sums, ([0], 3, 2), r"contexts has shape \(1,\) and rewards \(\)"),
    (reward_sums, ([0], ONE, "2"), "n_contexts is '2'; it must be a positive whole"),
    (
        reward_sums,
        ([0], [[1, 0]], 10**12),
        "n_contexts is 10+, too many.*unique",
    ),
    (solve_offline, ("G", 0.5), "G is 'G'; it must hold real numbers"),
    (solve_offline, ([[1], [1, 2]], 0.5), "G is .* in rows of one length"),
    (solve_offline, ([[1, 1j]], 0.5), "G is .* must hold real numbers"),
    (solve_offline, ([[1, 2], [3, -4]], 0.5), r"G\[1, 1\] is -4.0; .* at least 0"),
    (certificate, ([["a", "b"]], ONE, 0.5), "x is .* must hold real numbers"),
    (dual_value, (["a", "b"], ONE, 0.5), "p is .* must hold real numbers"),
    (dual_value, ([1.0, 1.0], ONE, 0.5, [1, 0]), r"initial\[1\] is 0.0; .* positive"),
    (inner_product_benchmark, ([1.0], 0.5), "G has shape"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), BAD)
def test_bad_arguments_are_named(function, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        function(*arguments)
    assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value)


def test_prices_are_refused_where_they_are_no_prices():
    with pytest.raises(ValueError, match="must all be positive"):
        certificate([[0.5, 0.5]], ONE, 0.5, p=[0.0, 1.0])
    with pytest.raises(ValueError, match="must all be positive"):
        certificate([[0.5, 0.5]], ONE, 0, p=[1.0, 1.0])


@pytest.mark.parametrize("rounds", [[5, 4], [-1, 3], [10, 61]])
def test_rounds_outside_the_stream_are_refused(rounds):
    stream = random_stream(np.random.default_rng(15))
    with pytest.raises(ValueError, match="rounds must increase from 0 to at most 60"):
        optimum_over_time(stream, 0.5, rounds)


def test_figures_have_labels_and_one_line_a_curve():
    from matplotlib.figure import Figure

    curve = optimum_over_time(random_stream(np.random.default_rng(16)), 0.5, [1, 60])
    ax = plot_optimum(Figure().add_subplot(), curve, [3, 4], [1, 2])
    assert len(ax.lines) == 3 and "utility units" in ax.get_ylabel()
    ax = plot_map(Figure().add_subplot(), np.eye(3), ["a", "b", "c"])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]


@pytest.mark.parametrize("alpha", [5e-324, 1e-308, 1e-300, 1e-100, 1e-20, 1e-12])
def test_the_smallest_alphas_are_solved_like_zero(alpha):
    G = np.random.default_rng(4).random((4, 5)) * 1e3
    with np.errstate(all="raise", under="ignore"):
        found = solve_offline(G, alpha)
    np.testing.assert_allclose(found.utility, 5 + G.max(1).sum(), rtol=1e-8)
    assert 0 <= found.gap <= 1e-8 * found.utility


def test_a_stream_is_no_matrix_of_sums_and_the_error_says_what_is():
    stream = synthetic_stream(
        n_rounds=9, n_contexts=2, n_arms=3, rng=np.random.default_rng(0)
    )
    with pytest.raises(ValueError, match=r"G is a stream .*offline_optimum_of\(stream"):
        solve_offline(stream, 0.5)
