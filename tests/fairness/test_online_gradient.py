"""Projection, adaptive step and its regret: oracles, invariants, negative controls."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq

from prunefair.fairness.online_gradient import (
    AdaptiveState,
    GradientPath,
    ReleasedState,
    _assert_chain,
    _random_gradients,
    _reactive_path,
    _suite_of_paths,
    _worst_ratios,
    adaptive_step,
    checked_gradient,
    gradient_path,
    initial_state,
    plot_regret_ratios,
    plot_worst_ratios,
    regret,
    regret_chain,
    regret_factor,
    released_step,
    simplex_projection,
    worst_gradients,
)


def vectors(bound=1e3, max_size=12):
    entries = st.floats(-bound, bound, allow_subnormal=False)
    return arrays(np.float64, st.integers(1, max_size), elements=entries)


def obtuse_gap(v, p):
    """max over u of <v - p, u - p>; zero only at the projection."""
    return (v - p).max() - (v - p) @ p


def enumerated_projection(v):
    """Nearest feasible point among the stationary points of all faces."""
    best = None
    for size in range(1, v.size + 1):
        for support in itertools.combinations(range(v.size), size):
            p = np.zeros(v.size)
            face = list(support)
            p[face] = v[face] - (v[face].sum() - 1) / size
            distance = ((p - v) ** 2).sum()
            if (p >= 0).all() and (best is None or distance < best[0]):
                best = distance, p
    return best[1]


# --- projection


def test_projection_equals_cvxpy():
    rng = np.random.default_rng(0)
    p, v = cp.Variable(8), cp.Parameter(8)
    nearest = cp.Problem(cp.Minimize(cp.sum_squares(p - v)), [p >= 0, cp.sum(p) == 1])
    for scale in (0.01, 0.3, 1, 10):
        for _ in range(10):
            v.value = scale * rng.normal(size=8)
            nearest.solve(solver=cp.CLARABEL)
            assert nearest.status == cp.OPTIMAL
            np.testing.assert_allclose(simplex_projection(v.value), p.value, atol=2e-6)


def test_projection_equals_enumeration_of_the_faces():
    rng = np.random.default_rng(1)
    for _ in range(100):
        v = rng.integers(-4, 5, size=5) / rng.integers(1, 5)
        np.testing.assert_allclose(
            simplex_projection(v), enumerated_projection(v), atol=1e-14
        )


@given(vectors())
def test_projection_subtracts_the_root_of_the_mass(v):
    tau = brentq(
        lambda tau: np.maximum(v - tau, 0).sum() - 1,
        v.max() - 1,
        v.max(),
        xtol=1e-14,
        rtol=1e-14,
    )
    np.testing.assert_allclose(simplex_projection(v), np.maximum(v - tau, 0), atol=1e-9)


@given(vectors(bound=10))
def test_projection_makes_an_obtuse_angle_with_every_point(v):
    p = simplex_projection(v)
    assert (p >= 0).all()
    assert abs(p.sum() - 1) < 1e-14 * v.size
    assert obtuse_gap(v, p) < 1e-13


def test_the_obtuse_angle_rejects_other_points():
    v = np.array([0.9, 0.5, -0.3])
    careless = np.maximum(v, 0) / np.maximum(v, 0).sum()
    assert obtuse_gap(v, careless) > 0.01
    assert obtuse_gap(v, np.full(3, 1 / 3)) > 0.01


@given(vectors(), st.data())
def test_projection_brings_no_point_of_the_simplex_farther(v, data):
    weights = data.draw(arrays(np.float64, v.size, elements=st.floats(0.01, 1)))
    u = weights / weights.sum()
    p = simplex_projection(v)
    assert ((p - u) ** 2).sum() <= ((v - u) ** 2).sum() * (1 + 1e-12) + 1e-12


@given(vectors(), st.floats(-1e3, 1e3))
def test_projection_ignores_a_common_shift(v, shift):
    np.testing.assert_allclose(
        simplex_projection(v + shift), simplex_projection(v), atol=1e-11
    )


@given(vectors(), st.randoms(use_true_random=False))
def test_projection_commutes_with_a_reordering(v, random):
    order = list(range(v.size))
    random.shuffle(order)
    np.testing.assert_allclose(
        simplex_projection(v[order]), simplex_projection(v)[order], atol=1e-12
    )


@given(vectors(bound=3))
def test_projection_changes_no_point_of_the_simplex(v):
    p = simplex_projection(v)
    np.testing.assert_allclose(simplex_projection(p), p, atol=1e-15)


@pytest.mark.parametrize(
    ("v", "p"),
    [
        ([7.0], [1]),
        ([1e17, 1e17, -1e17], [0.5, 0.5, 0]),
        ([1e-17, 2e-17, -1e-17], [1 / 3] * 3),
        ([1e308, -1e308, 0], [1, 0, 0]),
        ([-1e308, -1e308], [0.5, 0.5]),
        ([0.0] * 4, [0.25] * 4),
        ([2.0, 2, 2, 0], [1 / 3, 1 / 3, 1 / 3, 0]),
        ([1.0, 0, 0], [1, 0, 0]),
        ([1e17, 0, 1e17 + 16], [0, 0, 1]),
        ([5e-324, 0], [0.5, 0.5]),
    ],
)
def test_projection_at_ties_and_at_extreme_scales(v, p):
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(simplex_projection(np.array(v)), p, atol=1e-15)


@pytest.mark.parametrize("size", [1, 2, 1000, 100_000])
def test_projection_sums_to_one_for_many_arms(size):
    v = np.random.default_rng(2).normal(size=size)
    assert abs(simplex_projection(v).sum() - 1) < 1e-12


@pytest.mark.parametrize(
    "v", [np.array([]), np.ones((2, 2)), np.array([1, np.nan]), np.array([np.inf, 0])]
)
def test_projection_refuses_what_is_no_finite_vector(v):
    with pytest.raises(ValueError, match="(?s)v is .*; it must be a finite vector"):
        simplex_projection(v)


def test_the_released_projection_fails_where_ours_does_not():
    v = np.array([1e17, 1e17, -1e17])
    u = np.sort(v)[::-1]
    passed = np.nonzero(u * np.arange(1, 4) > np.cumsum(u) - 1)[0]
    assert passed.size == 0  # the released code takes its last entry: IndexError
    np.testing.assert_allclose(simplex_projection(v), [0.5, 0.5, 0])


# --- step


def test_steps_by_hand():
    first = adaptive_step(initial_state(2), np.array([3.0, 0]))
    np.testing.assert_allclose(first.point, [1, 0])
    second = adaptive_step(first, np.array([0, 4.0]))
    np.testing.assert_allclose(second.point, [0.6, 0.4])
    assert (first.squared_norms, second.squared_norms) == (9, 25)


def test_zero_gradients_at_the_start_change_nothing():
    for step in (adaptive_step, released_step):
        path = gradient_path(np.zeros((3, 4)), step=step)
        np.testing.assert_array_equal(path.points, np.full((4, 4), 0.25))
    state = initial_state(3)
    assert adaptive_step(state, np.full(3, 2.0), centred=True) is state


def test_a_step_does_not_change_its_arguments():
    state, g = initial_state(3), np.array([1.0, 2, 3])
    for centred in (False, True):
        adaptive_step(state, g, centred=centred)
    released_step(ReleasedState(*state), g)
    np.testing.assert_array_equal(state.point, np.full(3, 1 / 3))
    np.testing.assert_array_equal(g, [1, 2, 3])


@pytest.mark.parametrize("exponent", [-200, -40, 3, 200])
@pytest.mark.parametrize("centred", [False, True])
def test_the_adaptive_step_is_scale_free_to_the_last_bit(exponent, centred):
    g = np.random.default_rng(3).normal(size=(100, 5))

    def step(state, gradient):
        return adaptive_step(state, gradient, centred=centred)

    scaled = gradient_path(g * 2.0**exponent, step=step)
    np.testing.assert_array_equal(scaled.points, gradient_path(g, step=step).points)


def test_the_released_step_is_not_scale_free():
    g = np.random.default_rng(3).normal(size=(100, 5))
    base = gradient_path(g, step=released_step).points
    moved = gradient_path(4 * g, step=released_step).points
    assert abs(base - moved).max() > 0.1


def test_the_released_step_equals_a_restatement_of_the_released_code():
    g = np.random.default_rng(4).random((300, 6))
    x, norms = np.full(6, 1 / 6), 0.0
    path = gradient_path(g, step=released_step)
    for t, gradient in enumerate(g):
        np.testing.assert_allclose(path.points[t], x, atol=1e-12)
        norms += np.linalg.norm(gradient)
        v = x + gradient / np.sqrt(norms)
        u = np.sort(v)[::-1]
        rho = np.nonzero(u * np.arange(1, 7) > np.cumsum(u) - 1)[0][-1]
        x = np.maximum(v - (np.cumsum(u)[rho] - 1) / (rho + 1), 0)


@given(vectors(bound=5), st.floats(-5, 5))
def test_the_centred_step_ignores_a_common_shift_of_the_gradient(g, shift):
    state = AdaptiveState(np.full(g.size, 1 / g.size), 0.3)
    one = adaptive_step(state, g, centred=True)
    two = adaptive_step(state, g + shift, centred=True)
    np.testing.assert_allclose(one.point, two.point, atol=1e-10)
    np.testing.assert_allclose(one.squared_norms, two.squared_norms, rtol=1e-10)


@given(vectors(bound=5))
def test_centring_gives_the_least_norm_among_all_shifts(g):
    state = AdaptiveState(np.full(g.size, 1 / g.size), 1.0)
    least = adaptive_step(state, g, centred=True).squared_norms - 1
    for shift in (-1.0, 0.0, g.mean() + 0.01, g.max()):
        assert least <= ((g - shift) ** 2).sum() + 1e-12
    assert adaptive_step(state, g).squared_norms - 1 >= least - 1e-12


@pytest.mark.parametrize("step", [adaptive_step, released_step])
def test_a_step_refuses_bad_gradients(step):
    state = initial_state(3)
    with pytest.raises(ValueError, match=r"gradient has shape \(2,\).*\(3,\)"):
        step(state, np.ones(2))
    for bad in (np.nan, np.inf, 1e200):
        with (
            np.errstate(over="ignore"),
            pytest.raises(
                ValueError, match="gradient is .*; its entries must be finite"
            ),
        ):
            step(state, np.array([0, bad, 0]))


def test_a_gradient_is_taken_as_float64():
    assert checked_gradient([1, 2], np.zeros(2)).dtype == np.float64


@pytest.mark.parametrize("n_arms", [0, -1, 2.5])
def test_numbers_of_arms_are_checked(n_arms):
    for function in (initial_state, regret_factor):
        with pytest.raises(ValueError, match="n_arms is"):
            function(n_arms)


# --- regret


def test_regret_takes_the_best_vertex_as_cvxpy_does():
    path = gradient_path(np.random.default_rng(5).normal(size=(40, 5)))
    u = cp.Variable(5, nonneg=True)
    gain = cp.sum(cp.multiply(path.gradients, u[None, :] - path.points[:-1]))
    worst = cp.Problem(cp.Maximize(gain), [cp.sum(u) == 1])
    worst.solve(solver=cp.CLARABEL)
    assert worst.status == cp.OPTIMAL
    np.testing.assert_allclose(regret(path)[-1], worst.value, atol=1e-6)


def test_regret_against_a_point_is_the_plain_sum():
    path = gradient_path(np.random.default_rng(6).normal(size=(20, 3)))
    u = np.array([0.2, 0.5, 0.3])
    total = 0.0
    for t in range(20):
        total += path.gradients[t] @ (u - path.points[t])
        np.testing.assert_allclose(regret(path, u)[t], total, atol=1e-12)


@pytest.mark.parametrize("n_arms", [1, 2, 3, 7, 30])
def test_every_link_of_the_regret_proof_holds_at_every_round(n_arms):
    rng = np.random.default_rng(n_arms)
    for path in _suite_of_paths(300, n_arms, rng=rng).values():
        assert _assert_chain(path) <= 1


@given(arrays(np.float64, (25, 3), elements=st.floats(-1, 1, width=32)))
def test_the_chain_holds_on_arbitrary_gradients(g):
    assert _assert_chain(gradient_path(g)) <= 1


@given(arrays(np.float64, (25, 4), elements=st.sampled_from([0.0, 1e-6, 0.5, 1.0])))
def test_rewards_have_the_smaller_factor(g):
    path = gradient_path(g)
    assert (regret(path) <= (2 - 1 / 4) * np.sqrt(path.totals) + 1e-12).all()


def test_the_chain_holds_for_random_comparators():
    rng = np.random.default_rng(7)
    path = gradient_path(rng.normal(size=(200, 4)))
    for u in rng.dirichlet(np.ones(4), size=20):
        assert (np.diff(regret_chain(path, u, 1.0), axis=0) > -1e-11).all()


def test_the_centred_step_keeps_twice_the_root_of_the_centred_sum():
    rng = np.random.default_rng(8)
    for g in _random_gradients(300, 5, rng=rng).values():
        path = gradient_path(g, step=lambda s, g: adaptive_step(s, g, centred=True))
        inner = gradient_path(g - g.mean(1, keepdims=True))
        centred = np.cumsum(((g - g.mean(1, keepdims=True)) ** 2).sum(1))
        np.testing.assert_allclose(path.totals, centred, rtol=1e-9)
        unit = np.sqrt(centred)
        assert (regret(inner) <= 2 * unit * (1 + 1e-9)).all()


def test_the_widest_distance_is_that_of_the_theorem():
    rng = np.random.default_rng(9)
    points = rng.dirichlet(np.full(5, 0.1), size=2000)
    for u, widest in ((np.eye(5)[2], 2.0), (np.full(5, 0.2), 0.8)):
        far = ((points - u) ** 2).sum(1)
        assert far.max() <= widest + 1e-12
        assert (1 - 2 * u + u @ u).max() == pytest.approx(widest)


def test_the_chain_rejects_a_learner_that_does_not_project():
    def careless(state, g):
        total = state.squared_norms + g @ g
        p = np.maximum(state.point + g / total**0.5, 0)
        return AdaptiveState(p / p.sum(), total)

    path = gradient_path(np.full((100, 3), [2.0, 1, 1]), step=careless)
    with pytest.raises(ArithmeticError, match="a link of the chain fails"):
        _assert_chain(path)


def test_the_chain_rejects_a_wrong_total():
    path = gradient_path(np.random.default_rng(1).normal(size=(50, 3)))
    wrong = GradientPath(path.gradients, path.points, path.totals / 9)
    with pytest.raises(ArithmeticError, match="a link of the chain fails"):
        _assert_chain(wrong)


def test_the_chain_holds_when_gradients_react_to_the_point():
    rng = np.random.default_rng(10)
    path = _reactive_path(lambda x: np.sin(37 * x) * rng.exponential(), 400, 4)
    assert _assert_chain(path) < 1


# --- the released step


def test_the_released_step_breaks_the_bound_on_a_small_constant_gradient():
    g = np.tile([1e-4, 0.0], (4000, 1))
    bound = 2 * np.sqrt(np.cumsum((g**2).sum(1)))
    released = regret(gradient_path(g, step=released_step)) / bound
    squared = regret(gradient_path(g)) / bound
    assert released[-1] == pytest.approx(3.44, abs=0.01)
    assert squared[-1] == pytest.approx(0.004, abs=1e-4)


@pytest.mark.parametrize("epsilon", [1.0, 1e-2, 1e-4, 1e-6])
def test_the_lower_bound_on_the_released_step_holds_at_every_round(epsilon):
    t = np.arange(1, 5001)
    path = gradient_path(np.tile([epsilon, 0], (5000, 1)), step=released_step)
    ratio = regret(path, np.array([1.0, 0])) / (2 * epsilon * np.sqrt(t))
    assert (ratio >= np.sqrt(t) / 4 - np.sqrt(epsilon) * t / 3 - 1e-9).all()


def test_the_released_step_keeps_its_own_bound():
    rng = np.random.default_rng(11)
    for n_arms in (2, 6):
        for g in _random_gradients(300, n_arms, rng=rng).values():
            path = gradient_path(g, step=released_step)
            largest = np.maximum.accumulate(np.linalg.norm(g, axis=1))
            bound = (1 + largest) * np.sqrt(path.totals)
            assert (regret(path) <= bound * (1 + 1e-11)).all()


# --- how tight


def test_no_grid_sequence_exceeds_the_proved_constants():
    signed, rewards = _worst_ratios(800), _worst_ratios(800, nonnegative=True)
    assert (np.diff(signed) >= 0).all() and (np.diff(rewards) >= 0).all()
    assert 1.95 < signed[-1] <= 2
    assert 1.45 < rewards[-1] <= 1.5 == regret_factor(2, nonnegative=True)


def test_the_dynamic_programme_agrees_with_the_learner_on_two_rounds():
    worst = -np.inf
    for sine in np.arange(-99, 100) / 100:
        z = sine / np.sqrt(1 - sine**2)
        for sign in (1, -1):
            path = gradient_path(np.array([[sign, -sign], [z, -z]]) / 2**0.5)
            ratio = regret(path, np.array([1.0, 0]))[-1] / path.totals[-1] ** 0.5
            worst = max(worst, ratio)
    fine = _worst_ratios(2, n_grid=3001)[1]
    assert worst <= 2**0.5 and fine <= 2**0.5  # sine 1 would need an infinite gradient
    assert fine == pytest.approx(2**0.5, abs=0.03)
    assert worst == pytest.approx(2**0.5, abs=0.15)


@pytest.mark.parametrize(("nonnegative", "constant"), [(False, 2.0), (True, 1.5)])
def test_the_written_sequence_nearly_attains_the_constant(nonnegative, constant):
    g = worst_gradients(0.05, 2500, 100, nonnegative=nonnegative)
    assert g.shape == (1 + 5000 + 100, 2)
    path = gradient_path(g)
    reached = regret(path)[-1] / np.sqrt(path.totals[-1])
    assert 0.96 * constant < reached < constant
    assert (g.min() >= 0) == nonnegative
    assert _assert_chain(path) < 1


def test_the_swings_settle_at_their_fixed_point():
    theta = 0.1
    path = gradient_path(worst_gradients(theta, 600, 10)[:1201])
    ratio = regret(path, np.array([1.0, 0]))[-1] / np.sqrt(path.totals[-1])
    assert ratio == pytest.approx(1 - 2**0.5 * np.tan(theta / 2), abs=5e-3)


# --- figures


def test_figures_draw_one_line_for_each_entry():
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert plot_regret_ratios(ax, {"a": np.ones(3), "b": np.zeros(3)}) is ax
    assert len(ax.lines) == 3 and ax.get_xlabel() == "round"
    ax = Figure().add_subplot()
    assert plot_worst_ratios(ax, {"a": (np.ones(3), 2.0)}) is ax
    assert len(ax.lines) == 2 and ax.get_xscale() == "log"
