"""Limits: no policy passes the ceiling, and the ratio of the games meets c_alpha."""

from itertools import permutations, product
from math import factorial

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import gamma, zeta

from prunefair.fairness.baselines import ContextFreeGradient, Hedge
from prunefair.fairness.full_information import (
    AlphaFairGradient,
    approximation_factor,
)
from prunefair.fairness.limits import (
    best_lengths,
    best_power_ratio,
    check_lengths,
    limit_ratio,
    long_sum,
    nested_ceiling,
    nested_optimum,
    nested_ratio,
    nested_shares,
    phase_stream,
    plot_floor,
    plot_limit,
    plot_ratio,
    power_lengths,
    power_ratio,
    regret_floor,
    scaled_lengths,
    tree_optimum,
    tree_utility,
)
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.simulation import RewardStream, simulate
from prunefair.fairness.uniform import Uniform
from prunefair.fairness.utility import alpha_fair_utility

matplotlib.use("Agg")

ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)
alphas = st.floats(0.01, 0.95)
length_lists = st.lists(st.floats(0.01, 100), min_size=1, max_size=12)
round_lists = st.lists(st.integers(1, 40), min_size=2, max_size=3)


def stream_of(order, lengths):
    """The game for a given order of death, written down round by round."""
    contexts = [k for k, n in enumerate(lengths) for _ in range(n)]
    rewards = [
        [float(order.index(i) >= k) for i in range(len(order))] for k in contexts
    ]
    return RewardStream(
        contexts=np.array(contexts), rewards=np.array(rewards), n_contexts=len(order)
    )


def orders(n_arms):
    return list(permutations(range(n_arms)))


def random_tree(n_arms, seed):
    rng = np.random.default_rng(seed)
    nodes = sorted({order[:k] for order in orders(n_arms) for k in range(n_arms)})
    # small concentrations give nearly pure bets, large ones nearly uniform play
    return {
        node: rng.dirichlet(np.full(n_arms, 10 ** rng.uniform(-2, 2))) for node in nodes
    }


# --- the ceiling -------------------------------------------------------------------


def test_shares_ceiling_and_optimum_by_hand():
    np.testing.assert_allclose(nested_shares([6, 6, 6]), [2, 5, 11])
    np.testing.assert_allclose(nested_ceiling([6, 6], 0.5), 2 * (2 + 10**0.5))
    np.testing.assert_allclose(nested_optimum([3, 8], 0.5), 2 * (2 + 3))
    assert nested_ceiling([5], 0.5) == nested_optimum([5], 0.5)  # nothing to hide


@settings(max_examples=60, deadline=None)
@given(lengths=round_lists, alpha=alphas, seed=st.integers(0, 2**32 - 1))
def test_no_random_policy_passes_the_ceiling_on_the_exact_tree(lengths, alpha, seed):
    plays = random_tree(len(lengths), seed)
    ceiling = nested_ceiling(lengths, alpha)
    assert tree_utility(plays, lengths, alpha) <= ceiling * (1 + 1e-12)


def test_tree_utility_is_what_the_rounds_pay():
    lengths, alpha, plays = [2, 5, 3], 0.4, random_tree(3, 1)
    utilities = []
    for order in orders(3):
        stream, R = stream_of(order, lengths), np.ones(3)
        for context, rewards in zip(stream.contexts, stream.rewards):
            R = R + rewards * plays[order[:context]]
        utilities.append((R ** (1 - alpha)).sum() / (1 - alpha))
    assert len(utilities) == factorial(3)
    np.testing.assert_allclose(tree_utility(plays, lengths, alpha), np.mean(utilities))


@pytest.mark.parametrize(
    ("alpha", "lengths"), list(product(ALPHAS, ([20, 60], [9, 4, 30])))
)
def test_the_exact_optimum_over_the_tree_is_the_ceiling(alpha, lengths):
    best, plays = tree_optimum(lengths, alpha)
    np.testing.assert_allclose(best, nested_ceiling(lengths, alpha), rtol=1e-5)
    np.testing.assert_allclose(tree_utility(plays, lengths, alpha), best, rtol=1e-5)
    # a wrong share, of all arms in place of the living ones, is told apart
    wrong = alpha_fair_utility(1 + np.cumsum(lengths) / len(lengths), alpha)
    assert abs(wrong - best) > 1e-3 * best


def test_uniform_play_on_the_living_attains_the_ceiling_and_a_peeking_one_passes_it():
    lengths, alpha = [4, 6, 25], 0.6
    nodes = random_tree(3, 0)
    living = {
        node: np.array([i not in node for i in range(3)]) / (3 - len(node))
        for node in nodes
    }
    ceiling = nested_ceiling(lengths, alpha)
    np.testing.assert_allclose(tree_utility(living, lengths, alpha), ceiling)
    stream, R = stream_of((1, 2, 0), lengths), np.ones(3)
    for context, rewards in zip(stream.contexts, stream.rewards):
        R[(1, 2, 0)[context]] += rewards[(1, 2, 0)[context]]  # knows who dies next
    assert alpha_fair_utility(R, alpha) > ceiling * 1.01


@pytest.mark.parametrize("alpha", [0.3, 0.7])
@pytest.mark.parametrize("kind", ["coupled", "hedge", "uniform", "context-free"])
def test_policies_of_the_book_stay_below_the_ceiling_over_all_orders(alpha, kind):
    lengths = [10, 15, 60]
    build = {
        "coupled": lambda: AlphaFairGradient(3, alpha),
        "hedge": lambda: Hedge(3, horizon=85),
        "uniform": lambda: Uniform(3),
        "context-free": lambda: ContextFreeGradient(3, alpha),
    }[kind]
    utilities = []
    for order in orders(3):
        policy = build()
        simulate(policy, stream_of(order, lengths))
        utilities.append(alpha_fair_utility(policy.rewards, alpha))
    assert np.mean(utilities) <= nested_ceiling(lengths, alpha)
    if kind == "coupled":  # and the order of death does not matter to it
        np.testing.assert_allclose(utilities, utilities[0])


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), min_size=2, max_size=5), alpha=alphas)
def test_the_optimum_is_certified_for_lengths_that_do_not_decrease(lengths, alpha):
    n = sorted(lengths)
    stream = stream_of(tuple(range(len(n))), n)
    G = reward_sums(stream.contexts, stream.rewards, len(n))
    best = solve_offline(G, alpha)
    np.testing.assert_allclose(best.utility, nested_optimum(n, alpha), rtol=1e-7)


def test_decreasing_lengths_leave_the_optimum_above_the_simple_map():
    stream = stream_of((0, 1), [50, 2])
    best = solve_offline(reward_sums(stream.contexts, stream.rewards, 2), 0.5).utility
    assert best > nested_optimum([50, 2], 0.5) * 1.05


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 200), min_size=1, max_size=6), alpha=alphas)
def test_with_one_context_the_best_map_is_under_the_ceiling(lengths, alpha):
    rewards = stream_of(tuple(range(len(lengths))), lengths).rewards
    single = solve_offline(rewards.sum(0)[None], alpha).utility
    assert single <= nested_ceiling(lengths, alpha) * (1 + 1e-8)


# --- the floor under the regret -----------------------------------------------------


@given(
    lengths=length_lists,
    alpha=alphas,
    rounds=st.integers(1, 10**7),
    factor=st.floats(0, 2),
)
def test_the_explicit_floor_is_below_the_exact_one(lengths, alpha, rounds, factor):
    whole = np.floor(np.array(lengths) * (rounds / sum(lengths)))
    if not whole.any():
        return
    np.testing.assert_array_equal(scaled_lengths(lengths, rounds), whole)
    assert whole.sum() <= rounds
    exact = nested_optimum(whole, alpha) - factor * nested_ceiling(whole, alpha)
    floor = regret_floor(rounds, lengths, alpha, factor=factor)
    assert floor <= exact + 1e-9 * nested_optimum(whole, alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_two_contexts_force_regret_of_the_order_of_the_utility(alpha):
    beta, T = 1 - alpha, np.array([1e3, 1e5, 1e7])
    constant = (2 - 1.5**beta - 0.5**beta) / (2**beta * beta)
    assert constant > 0
    floor = regret_floor(T, [1, 1], alpha)
    np.testing.assert_allclose(floor, constant * T**beta - 2 / beta)
    exact = nested_optimum([5e8, 5e8], alpha) - nested_ceiling([5e8, 5e8], alpha)
    np.testing.assert_allclose(exact, constant * 1e9**beta, rtol=0.02)


def test_no_floor_without_concavity_and_none_at_the_factor():
    assert regret_floor(1e6, [1, 4], 0.0) < 0  # sums of rewards: sublinear is possible
    for alpha in ALPHAS:
        lengths, factor = best_lengths(50, alpha), approximation_factor(alpha)
        assert (
            np.diff(regret_floor([1e3, 1e6], lengths, alpha, factor=factor)) < 0
        ).all()


# --- the ratio ----------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_ratio_is_what_brute_force_finds_in_long_games(alpha):
    lengths, rounds = [1, 2, 7], 3000
    stream = stream_of((2, 0, 1), scaled_lengths(lengths, rounds).tolist())
    living = stream.rewards / stream.rewards.sum(1, keepdims=True)
    R = (stream.rewards * living).sum(0)  # without the initial rewards
    G = reward_sums(stream.contexts, stream.rewards, 3)
    best = solve_offline(G, alpha, initial=1e-6).utility
    np.testing.assert_allclose(
        best / alpha_fair_utility(R, alpha), nested_ratio(lengths, alpha), rtol=1e-5
    )


@given(lengths=length_lists, alpha=alphas, scale=st.floats(0.01, 100))
def test_the_ratio_is_below_the_factor_and_free_of_scale(lengths, alpha, scale):
    ratio = nested_ratio(lengths, alpha)
    assert ratio < approximation_factor(alpha)
    np.testing.assert_allclose(nested_ratio(scale * np.array(lengths), alpha), ratio)


def test_a_smaller_factor_would_be_false():
    for alpha in ALPHAS:
        ratio = nested_ratio(best_lengths(10_000, alpha), alpha)
        assert ratio > 1 + 0.87 * (approximation_factor(alpha) - 1)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_best_lengths_are_what_a_free_optimiser_finds(alpha):
    def loss(z):
        ell = np.exp(z)
        alive = np.arange(len(z), 0, -1)
        shares = [sum(ell[: k + 1] / alive[: k + 1]) for k in range(len(z))]
        top = (ell ** (1 - alpha)).sum()
        return -np.log(top / (np.array(shares) ** (1 - alpha)).sum())

    for n_arms in (2, 4, 7):
        lengths = best_lengths(n_arms, alpha)
        found = min(
            minimize(loss, start).fun
            for start in np.random.default_rng(n_arms).normal(0, 3, (3, n_arms))
            + np.linspace(0, np.log(n_arms) / (1 - alpha), n_arms)
        )
        ratio = nested_ratio(lengths, alpha)
        np.testing.assert_allclose(ratio, np.exp(-found), rtol=1e-6)
        assert lengths[0] == 1 and (np.diff(lengths) > 0).all()


def test_best_lengths_by_hand_and_at_their_end():
    np.testing.assert_allclose(best_lengths(2, 0.5), [1, 4])
    np.testing.assert_allclose(best_lengths(1, 0.3), [1])
    for n_arms in (30, 500):
        lengths = best_lengths(n_arms, 0.6)
        base = nested_ratio(lengths, 0.6)
        for place, step in product((0, n_arms // 2, n_arms - 1), (0.9, 1.1)):
            moved = lengths.copy()
            moved[place] *= step
            assert nested_ratio(moved, 0.6) < base


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("tau", [0.2, 0.6, 0.95])
def test_the_limit_is_the_quotient_of_the_integrals(alpha, tau):
    beta, kappa = 1 - alpha, tau / (1 - alpha)
    # u = v**q with q = 1/(1 - tau) takes the singularity at 0 away
    q = 1 / (1 - tau)

    def integrand(v):
        return (1 - v ** (q * kappa)) ** beta * q  # u**-tau du = q dv

    below = quad(integrand, 0, 1)[0] * kappa**-beta
    np.testing.assert_allclose(limit_ratio(alpha, tau), q / below, rtol=1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_limit_meets_the_factor_at_one_and_gamma_at_zero(alpha):
    factor = approximation_factor(alpha)
    np.testing.assert_allclose(limit_ratio(alpha, 1), factor, rtol=1e-12)
    assert limit_ratio(alpha, 0.99) < factor
    np.testing.assert_allclose(limit_ratio(alpha, 0.99), factor, rtol=4e-3)
    np.testing.assert_allclose(
        limit_ratio(alpha, 1e-5), 1 / gamma(2 - alpha), rtol=1e-4
    )
    assert limit_ratio(0.0, 0.5) == pytest.approx(1)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_many_arms_approach_the_limit(alpha):
    gaps = [
        limit_ratio(alpha, 0.4) - power_ratio(n_arms, alpha, 0.4)
        for n_arms in (10**3, 10**5, 10**7)
    ]
    assert gaps[0] > gaps[1] > gaps[2] > 0 and gaps[2] < 2e-4
    best = [best_power_ratio(10**e, alpha) for e in (3, 5, 7)]
    assert best[0] < best[1] < best[2] < approximation_factor(alpha)
    assert best[0] < nested_ratio(best_lengths(1000, alpha), alpha)


@pytest.mark.parametrize("n_arms", [1, 7, 4096, 30_000])
@pytest.mark.parametrize(("alpha", "tau"), [(0.3, 0.9), (0.9, 0.5)])
def test_the_long_sums_equal_plain_ones(n_arms, alpha, tau):
    plain = nested_ratio(power_lengths(n_arms, alpha, tau), alpha)
    np.testing.assert_allclose(power_ratio(n_arms, alpha, tau), plain, rtol=3e-6)


def test_the_long_sum_of_inverse_squares_is_a_zeta_function():
    total = long_sum(lambda m: m**-2.0, 10**9)
    np.testing.assert_allclose(total, zeta(2, 1) - zeta(2, 10**9 + 1), rtol=1e-11)
    crude = long_sum(lambda m: m**-2.0, 10**9, direct=1)
    assert abs(crude - total) > 1e-3  # the integral alone would not do


# --- streams, bad input, figures -----------------------------------------------------


def test_the_stream_is_the_game_and_every_order_occurs():
    seen = set()
    for child in np.random.default_rng(3).spawn(60):
        stream = phase_stream([2, 3, 1], rng=child)
        order = tuple(np.argsort(stream.rewards.sum(0)).tolist())
        want = stream_of(order, [2, 3, 1])
        np.testing.assert_array_equal(stream.rewards, want.rewards)
        np.testing.assert_array_equal(stream.contexts, want.contexts)
        seen.add(order)
    assert seen == set(orders(3))


@pytest.mark.parametrize("lengths", [[], [[1, 2]], 3.0, [1, -1], [0, 0], [1, np.nan]])
def test_bad_lengths_are_named(lengths):
    with pytest.raises(ValueError, match="lengths"):
        check_lengths(lengths)


def test_bad_input_is_named():
    for alpha in (-0.1, 1.0, 2.0):
        for call in (nested_ceiling, nested_optimum, nested_ratio, tree_optimum):
            with pytest.raises(ValueError, match="alpha"):
                call([1, 2], alpha)
        with pytest.raises(ValueError, match="alpha"):
            regret_floor(10, [1, 2], alpha)
        with pytest.raises(ValueError, match="alpha"):
            best_lengths(3, alpha)
    with pytest.raises(ValueError, match=r"alpha is 0; it must lie in \(0, 1\)"):
        best_lengths(3, 0)
    with pytest.raises(ValueError, match="n_arms"):
        best_lengths(2.5, 0.5)
    for tau in (0, 1.1, np.nan):
        with pytest.raises(ValueError, match="tau"):
            limit_ratio(0.5, tau)


def test_the_figures_draw_what_they_are_given():
    import matplotlib.pyplot as plt

    ax = plt.figure().subplots()
    regret, floors = {0.5: [3.0, 4.0]}, {0.5: [1.0, 2.0]}
    assert plot_floor(ax, np.array([10, 20]), regret, floors) is ax
    np.testing.assert_allclose(
        [line.get_ydata() for line in ax.lines], [[1, 2], [3, 4]]
    )
    ax = plt.figure().subplots()
    assert plot_ratio(ax, [2, 3], {0.5: [1.06, 1.1]}, [10, 100]) is ax
    assert len(ax.lines) == 3
    np.testing.assert_allclose(ax.lines[2].get_ydata(), approximation_factor(0.5))
    ax = plt.figure().subplots()
    assert plot_limit(ax, [0.5]) is ax
    np.testing.assert_allclose(ax.lines[0].get_ydata()[-1], approximation_factor(0.5))
    plt.close("all")


def test_lengths_that_no_float_holds_are_refused():
    lengths = best_lengths(60, 0.99)
    assert (lengths > 0).all() and (np.diff(lengths) >= 0).all()
    with pytest.raises(ValueError, match=r"alpha is 0.999; with n_arms = 1000 .*lower"):
        best_lengths(1000, 0.999)
