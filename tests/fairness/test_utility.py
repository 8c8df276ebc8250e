"""Claims of the chapter on alpha-fair utility."""

import warnings
from decimal import Decimal, localcontext

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import gmean, pmean

from prunefair.fairness.utility import (
    alpha_fair_utility,
    arm_utility,
    concave_conjugate,
    equivalent_reward,
    fair_shares,
    fenchel_young_gap,
    indifferent_reward,
    jain_index,
    plot_indifference,
    plot_price,
    plot_shared_hour,
    plot_tangents,
    price_of_fairness,
    utility_difference,
    utility_gradient,
)

ALPHAS = (0, 0.1, 0.5, 0.9, 1, 1.5, 3)
positive = st.floats(1e-3, 1e3)
vectors = st.lists(positive, min_size=1, max_size=6).map(np.array)
fairness = st.floats(0, 8)


def test_utility_by_hand_at_the_sum_the_logarithm_and_the_minimum():
    R = [1.0, 4.0]
    assert alpha_fair_utility(R, 0) == 5
    assert alpha_fair_utility(R, 0.5) == 6
    assert alpha_fair_utility(R, 1) == np.log(4)
    assert alpha_fair_utility(R, 2) == -1.25
    assert alpha_fair_utility(R, np.inf) == 1
    assert isinstance(alpha_fair_utility(R, 0.5), float)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_utility_is_the_integral_of_its_gradient(alpha):
    area, _ = quad(lambda u: utility_gradient([u], alpha)[0], 0.5, 7, epsabs=1e-12)
    difference = arm_utility(7.0, alpha) - arm_utility(0.5, alpha)
    np.testing.assert_allclose(area, difference, rtol=1e-10)


@given(vectors, fairness)
def test_elasticity_identity_holds_at_every_reward(R, alpha):
    left = R * utility_gradient(R, alpha)
    if alpha == 1:
        np.testing.assert_allclose(left, 1)
    else:
        np.testing.assert_allclose(left, (1 - alpha) * arm_utility(R, alpha))


@given(vectors, vectors, fairness, st.floats(1e-3, 1e3))
def test_a_change_of_the_unit_changes_no_preference(R, Q, alpha, unit):
    n = min(len(R), len(Q))
    before = equivalent_reward(R[:n], alpha) / equivalent_reward(Q[:n], alpha)
    after = equivalent_reward(unit * R[:n], alpha) / equivalent_reward(
        unit * Q[:n], alpha
    )
    np.testing.assert_allclose(before, after, rtol=1e-9)


def test_a_utility_outside_the_family_is_rejected_by_the_elasticity_check():
    u = np.linspace(0.5, 4, 9)
    outside = np.log1p(u)  # concave and increasing, but no power
    elasticity = u / (1 + u) / outside
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(elasticity, elasticity[0])


def test_utility_of_an_arm_with_nothing_is_the_limit():
    assert alpha_fair_utility([0.0, 1.0], 0.5) == 2
    for alpha in (1, 2):
        assert alpha_fair_utility([0.0, 1.0], alpha) == -np.inf
    assert utility_gradient([0.0], 0.5)[0] == np.inf
    assert utility_gradient([0.0], 0)[0] == 1


def test_a_batch_of_allocations_equals_one_at_a_time():
    R = np.random.default_rng(1).gamma(1, size=(3, 4, 5))
    for function in (alpha_fair_utility, equivalent_reward):
        for alpha in (*ALPHAS, np.inf):
            batch = function(R, alpha)
            assert batch.shape == (3, 4)
            np.testing.assert_allclose(batch[1, 2], function(R[1, 2], alpha))
    assert jain_index(R)[2, 0] == jain_index(R[2, 0])


def test_equivalent_reward_is_scipys_power_mean():
    R = np.random.default_rng(2).lognormal(0, 3, (50, 6))
    for alpha in (0, 0.3, 2, 5):
        expected = pmean(R, 1 - alpha, axis=1)
        np.testing.assert_allclose(equivalent_reward(R, alpha), expected, rtol=1e-12)
    np.testing.assert_allclose(equivalent_reward(R, 1), gmean(R, axis=1))


@given(vectors, fairness, fairness)
def test_equivalent_reward_does_not_increase_with_alpha(R, alpha, beta):
    low, high = sorted((alpha, beta))
    larger, smaller = equivalent_reward(R, low), equivalent_reward(R, high)
    assert R.min() * (1 - 1e-12) <= smaller <= larger * (1 + 1e-12)
    assert larger <= R.mean() * (1 + 1e-12)


@given(vectors, st.floats(1.1, 1e4))
def test_equivalent_reward_meets_the_bounds_of_the_max_min_limit(R, alpha):
    factor = len(R) ** (1 / (alpha - 1))
    value = equivalent_reward(R, alpha)
    assert R.min() * (1 - 1e-12) <= value <= factor * R.min() * (1 + 1e-12)


@pytest.mark.parametrize("shift", [1e-15, 1e-9, -1e-12])
def test_equivalent_reward_is_continuous_at_one_to_rounding(shift):
    R = np.array([1e-3, 2.0, 500.0])
    near = equivalent_reward(R, 1 + shift)
    np.testing.assert_allclose(near, equivalent_reward(R, 1), rtol=1e-7)


def test_equivalent_reward_with_an_empty_arm_is_the_limit():
    assert equivalent_reward([0.0, 0.0], 0.5) == 0
    assert equivalent_reward([0.0, 1.0], 2) == 0
    assert equivalent_reward([0.0, 1.0], 1) == 0
    np.testing.assert_allclose(equivalent_reward([0.0, 1.0], 0.5), 0.25)


@pytest.mark.parametrize("alpha", [0, 0.5, 1, 2, 5])
def test_indifference_curve_is_a_level_set_through_even_shares(alpha):
    first = np.linspace(0.9, 1.5, 30)
    pairs = np.stack([first, indifferent_reward(first, alpha)], axis=1)
    np.testing.assert_allclose(equivalent_reward(pairs, alpha), 1, rtol=1e-12)
    assert np.isnan(indifferent_reward([9.0], 0)[0])


@pytest.mark.parametrize("alpha", [0.5, 1, 2])
def test_maximiser_on_a_polytope_wins_the_vote_and_other_points_lose_it(alpha):
    points = np.random.default_rng(3).uniform(0.5, 5, (7, 4))
    mix = cp.Variable(7, nonneg=True)
    R = points.T @ mix
    phi = cp.log(R) if alpha == 1 else cp.power(R, 1 - alpha) / (1 - alpha)
    problem = cp.Problem(cp.Maximize(cp.sum(phi)), [cp.sum(mix) == 1])
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    votes = (points - R.value) @ utility_gradient(R.value, alpha)
    assert votes.max() < 1e-4
    even = points.mean(0)
    assert ((points - even) @ utility_gradient(even, alpha)).max() > 0.01


def test_jain_index_by_hand():
    for k in range(1, 6):
        np.testing.assert_allclose(jain_index([3.0] * k + [0.0] * (5 - k)), k / 5)


@given(vectors, st.floats(1e-150, 1e150))
def test_jain_index_ignores_the_unit_and_stays_in_its_range(R, unit):
    index = jain_index(R)
    assert 1 / len(R) * (1 - 1e-12) <= index <= 1 + 1e-12
    np.testing.assert_allclose(jain_index(R * unit), index, rtol=1e-10)
    variation = R.std() / R.mean()
    np.testing.assert_allclose(index, 1 / (1 + variation**2), rtol=1e-9)


def test_price_of_fairness_is_zero_at_the_largest_total_only():
    assert price_of_fairness([3.0, 1.0], 4.0) == 0
    assert price_of_fairness([1.0, 1.0], 4.0) == 0.5
    np.testing.assert_allclose(price_of_fairness([[4.0, 0], [1, 1]], 4.0), [0, 0.5])


@given(vectors, fairness, fairness)
def test_more_fairness_costs_more_and_is_more_even(w, alpha, beta):
    low, high = (w * fair_shares(w, a) for a in sorted((alpha, beta)))
    assert low.sum() >= high.sum() * (1 - 1e-9)
    assert jain_index(low) <= jain_index(high) * (1 + 1e-9)


@given(vectors, st.floats(0.02, 20))
def test_fair_shares_equalise_the_marginal_utilities(w, alpha):
    x = fair_shares(w, alpha)
    np.testing.assert_allclose(x.sum(), 1)
    played = x > 1e-200
    marginal = np.log(w[played]) * (1 - alpha) - alpha * np.log(x[played])
    np.testing.assert_allclose(marginal, marginal[0], rtol=1e-6, atol=1e-6)


def test_fair_shares_at_both_ends():
    w = np.array([1.0, 3.0, 2.0])
    np.testing.assert_array_equal(fair_shares(w, 0), [0, 1, 0])
    np.testing.assert_allclose(w * fair_shares(w, np.inf), 6 / 11)
    np.testing.assert_allclose(fair_shares(w, 1e-9), [0, 1, 0])


@pytest.mark.parametrize("alpha", [0.05, 0.25, 0.5, 0.9, 1, 1.1, 2, 6])
@pytest.mark.parametrize("p", [0.2, 1.0, 4.0])
def test_conjugate_is_the_minimum_found_by_search(alpha, p):
    found = minimize_scalar(
        lambda v: p * np.exp(v) - arm_utility(np.exp(v), alpha),
        bracket=(-1 - np.log(p) / alpha, 1 - np.log(p) / alpha),
        tol=1e-12,
    )
    np.testing.assert_allclose(concave_conjugate(p, alpha), found.fun, rtol=1e-9)


def test_domain_of_the_conjugate_at_every_alpha():
    p = np.array([-1, 0, 0.5, 1, 2])
    finite = {
        0: [False, False, False, True, True],
        0.5: [False, False, True, True, True],
        1: [False, False, True, True, True],
        3: [False, True, True, True, True],
    }
    for alpha, expected in finite.items():
        values = concave_conjugate(p, alpha)
        np.testing.assert_array_equal(np.isfinite(values), expected)
        assert (values[~np.isfinite(values)] == -np.inf).all()


@pytest.mark.parametrize("alpha", [0.5, 1, 3])
def test_cvxpy_says_unbounded_where_the_conjugate_is_minus_infinity(alpha):
    u = cp.Variable(pos=True)
    phi = cp.log(u) if alpha == 1 else cp.power(u, 1 - alpha) / (1 - alpha)
    problem = cp.Problem(cp.Minimize(-0.5 * u - phi))
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.UNBOUNDED
    assert concave_conjugate(-0.5, alpha) == -np.inf


@pytest.mark.parametrize(("p", "value"), [(1.5, 0.0), (1.0, 0.0), (0.5, -np.inf)])
def test_conjugate_of_the_sum_is_zero_or_unbounded_for_cvxpy_too(p, value):
    u = cp.Variable(nonneg=True)
    problem = cp.Problem(cp.Minimize((p - 1) * u))
    problem.solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(problem.value, value, atol=1e-6)
    assert concave_conjugate(p, 0) == value


@given(positive, st.floats(-2, 50), fairness)
def test_fenchel_young_inequality_holds_for_every_price(u, p, alpha):
    left = arm_utility(u, alpha) + concave_conjugate(p, alpha)
    assert left <= p * u + 1e-9 * (abs(p * u) + abs(arm_utility(u, alpha)))


@given(vectors, st.floats(0.05, 8))
def test_fenchel_young_gap_is_zero_at_the_gradient_and_positive_elsewhere(R, alpha):
    p = utility_gradient(R, alpha)
    size = R ** (1 - alpha)
    assert abs(fenchel_young_gap(R, p, alpha)) <= 1e-12 * size.sum()
    assert fenchel_young_gap(R, 1.1 * p, alpha) > 1e-5 * size.sum()
    assert fenchel_young_gap(R, 0.9 * p, alpha) > 1e-5 * size.sum()


def test_fenchel_young_gap_equals_its_three_terms():
    rng = np.random.default_rng(4)
    R, p = rng.lognormal(size=30), rng.lognormal(size=30)
    for alpha in (0.3, 0.9, 1, 1.2, 4):
        terms = p * R - arm_utility(R, alpha) - concave_conjugate(p, alpha)
        np.testing.assert_allclose(fenchel_young_gap(R, p, alpha), terms.sum())


def test_biconjugate_is_the_utility():
    p = np.logspace(-6, 6, 200_001)
    for alpha in (0.5, 1, 2):
        for u in (0.2, 1.0, 5.0):
            envelope = (p * u - concave_conjugate(p, alpha)).min()
            np.testing.assert_allclose(envelope, arm_utility(u, alpha), atol=1e-6)


BAD = [
    (arm_utility, (1.0, -1), "alpha is -1"),
    (arm_utility, (1.0, np.inf), "alpha is inf"),
    (arm_utility, (-1.0, 0.5), "u is"),
    (alpha_fair_utility, ([1, -1], 0.5), "R is"),
    (alpha_fair_utility, ([1, np.nan], 0.5), "R is"),
    (alpha_fair_utility, ([], 0.5), "last axis must hold the arms"),
    (alpha_fair_utility, (3.0, 0.5), "last axis must hold the arms"),
    (alpha_fair_utility, ([1.0], np.nan), "alpha is nan"),
    (utility_gradient, ([1.0], np.inf), "alpha is inf"),
    (utility_gradient, ([-1.0], 1), "R is"),
    (equivalent_reward, ([1.0], -2), "alpha is -2"),
    (equivalent_reward, ([-1.0], 2), "R is"),
    (jain_index, ([0.0, 0.0],), "all zero"),
    (jain_index, ([np.inf, 0.0],), "not finite"),
    (jain_index, ([-1.0, 0.0],), "R is"),
    (price_of_fairness, ([1.0, 2.0], 2.0), "largest_sum is 2.0"),
    (price_of_fairness, ([0.0], 0.0), "largest_sum is 0.0"),
    (price_of_fairness, ([-1.0], 2.0), "R is"),
    (fair_shares, ([1.0, 0.0], 1), "positive finite rewards"),
    (fair_shares, ([[1.0]], 1), "must be a vector"),
    (fair_shares, ([1.0], -1), "alpha is -1"),
    (concave_conjugate, (np.nan, 1), "p is"),
    (concave_conjugate, (1.0, np.inf), "alpha is inf"),
    (fenchel_young_gap, ([1.0], [1.0], 0), "must all be positive"),
    (fenchel_young_gap, ([1.0], [0.0], 1), "must all be positive"),
    (fenchel_young_gap, ([1.0], [1.0], np.inf), "alpha is inf"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), BAD)
def test_bad_arguments_are_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_figures_have_labels_and_one_line_a_curve():
    from matplotlib.figure import Figure

    ax = plot_indifference(Figure().add_subplot(), (0, 1))
    assert len(ax.lines) == 3 and "reward units" in ax.get_xlabel()
    ax = plot_price(Figure().add_subplot(), np.array([1.0, 0.5]))
    assert len(ax.lines) == 2 and ax.get_xscale() == "log"


def test_the_picture_of_the_hour_shows_shares_that_fill_it_and_what_they_earn():
    from matplotlib.figure import Figure

    w, share = np.array([1.0, 0.5, 0.1]), fair_shares([1.0, 0.5, 0.1], 2)
    axes = plot_shared_hour(Figure().subplots(1, 2), w, {"fair": share})
    widths = [[bar.get_width() for bar in ax.patches] for ax in axes]
    np.testing.assert_allclose(widths, [share, share * w])
    assert axes[0].patches[-1].get_x() + share[-1] == pytest.approx(1)


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
def test_tangents_in_the_picture_lie_above_the_utility_and_touch_it(alpha):
    from matplotlib.figure import Figure

    ax = plot_tangents(Figure().add_subplot(), alpha, (0.7, 1.0))
    utility = ax.lines[-1].get_ydata()
    for tangent, dots in zip(ax.lines[:-1:2], ax.lines[1::2]):
        above = tangent.get_ydata() - utility
        assert above.min() > -1e-12 and above.min() < 1e-3
        touch, height = dots.get_xdata()[1], dots.get_ydata()[1]
        slope = tangent.get_ydata()[1] - tangent.get_ydata()[0]
        assert slope / tangent.get_xdata()[1] == pytest.approx(touch**-alpha)
        assert height == pytest.approx(touch ** (1 - alpha) / (1 - alpha))


@pytest.mark.parametrize("alpha", ["0", "0.5", "0.999999999999", "1.000000001", "3"])
def test_a_difference_of_utilities_keeps_its_digits(alpha):
    """Against decimal arithmetic of fifty digits."""
    R, other = np.array([3.5, 900.0, 7.0]), np.array([3.25, 1e3, 7.0 + 1e-9])
    with localcontext() as context:
        context.prec = 50
        s = 1 - Decimal(float(alpha))

        def phi(u):
            return Decimal(u) ** s / s

        exact = float(sum(phi(a) - phi(b) for a, b in zip(R.tolist(), other.tolist())))
    found = utility_difference(R, other, float(alpha))
    np.testing.assert_allclose(found, exact, rtol=1e-13)
    np.testing.assert_allclose(utility_difference(other, R, float(alpha)), -exact)
    limit = utility_difference(R, other, 1)
    np.testing.assert_allclose(limit, np.log(R / other).sum(), rtol=1e-13)


def test_a_difference_of_utilities_takes_many_allocations_and_refuses_zeros():
    R = np.random.default_rng(3).uniform(1, 9, (4, 5))
    plain = alpha_fair_utility(R, 0.7) - alpha_fair_utility(R[0], 0.7)
    found = utility_difference(R, R[0], 0.7)
    np.testing.assert_allclose(found, plain, atol=1e-12)
    assert found[0] == 0
    with pytest.raises(ValueError, match="R and other must be positive"):
        utility_difference([1, 0], [1, 1], 0.5)


@given(st.integers(0, 10**6), st.sampled_from([0, 0.5, 1 - 1e-12, 1, 3]))
def test_a_difference_of_far_utilities_is_quiet_and_right(seed, alpha):
    rng = np.random.default_rng(seed)
    R, other = 10 ** rng.uniform(-12, 12, (2, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = utility_difference(R, other, alpha)
    assert found == pytest.approx(-utility_difference(other, R, alpha), rel=1e-9)
    if abs(alpha - 1) > 0.1:
        sizes = abs(arm_utility(R, alpha)).sum() + abs(arm_utility(other, alpha)).sum()
        plain = alpha_fair_utility(R, alpha) - alpha_fair_utility(other, alpha)
        assert abs(found - plain) <= 1e-12 * sizes
