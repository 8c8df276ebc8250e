"""Rows shared among layers: optimal by enumeration, certified, and Part I's rule."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefair.bridge.layer_budgets import (
    kept_costs,
    marginal_gains,
    refit_values,
    row_certificate,
    share_rows,
)
from prunefair.fairness.utility import alpha_fair_utility, concave_conjugate
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.functional_policy import uneven_ratios
from prunefair.pruning.refit import output_error, refit_down

ALPHAS = st.sampled_from([0, 0.25, 0.5, 1, 2, 4, np.inf])
COSTS = st.lists(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=5), min_size=1, max_size=3
)


def best_utility(values, budget, alpha, sizes):
    ranges = [range(1, len(v)) for v in values]
    return max(
        alpha_fair_utility([v[k] for v, k in zip(values, ks, strict=True)], alpha)
        for ks in itertools.product(*ranges)
        if np.dot(ks, sizes) <= budget
    )


def shortfall(values, widths, budget, alpha, sizes):
    """How much the utility of some widths lacks, over what rounding explains."""
    ours = alpha_fair_utility(
        [v[k] for v, k in zip(values, widths, strict=True)], alpha
    )
    best = best_utility(values, budget, alpha, sizes)
    return (best - ours) / (1e-9 * (1 + abs(best)))


@settings(max_examples=60, deadline=None)
@given(COSTS, ALPHAS, st.integers(0, 12))
def test_greedy_is_optimal_where_values_are_concave(costs, alpha, more):
    values, budget = [kept_costs(c) for c in costs], len(costs) + more
    found = share_rows(values, budget, alpha)
    ones = np.ones(len(values))
    assert found.widths.sum() <= budget
    assert shortfall(values, found.widths, budget, alpha, ones) <= 1
    ours = alpha_fair_utility(
        [v[k] for v, k in zip(values, found.widths, strict=True)], alpha
    )
    assert -1e-12 <= found.gap <= 1e-9 * (1 + abs(ours))


@settings(max_examples=60, deadline=None)
@given(COSTS, ALPHAS, st.integers(0, 12), st.data())
def test_the_certificate_bounds_what_any_values_and_sizes_miss(
    costs, alpha, more, pick
):
    values = [np.r_[0, np.cumsum(c)] for c in costs]  # in any order: not concave
    sizes = np.array([pick.draw(st.integers(1, 3)) for _ in costs])
    budget = int(sizes.sum()) + more
    found = share_rows(values, budget, alpha, sizes=sizes)
    ours = alpha_fair_utility(
        [v[k] for v, k in zip(values, found.widths, strict=True)], alpha
    )
    best = best_utility(values, budget, alpha, sizes)
    assert found.gap >= best - ours - 1e-9 * (1 + abs(best))
    if alpha == np.inf:
        assert abs(best - ours) < 1e-9


@pytest.mark.parametrize("wrong", ["equal", "by value", "other alpha"])
def test_other_rules_are_rejected(wrong):
    values = [kept_costs([8, 4, 2, 1.5]), kept_costs([3, 3, 1, 1])]
    widths = {
        "equal": [3, 3],
        "by value": share_rows([v / v[-1] for v in values], 6, 0).widths,
        "other alpha": share_rows(values, 6, np.inf).widths,
    }[wrong]
    if wrong == "by value":
        values = [values[0] * 100, values[1]]
    assert shortfall(values, share_rows(values, 6, 0).widths, 6, 0, [1, 1]) <= 1
    assert shortfall(values, widths, 6, 0, [1, 1]) > 1e6
    assert row_certificate(values, widths, 6, 0, price=2.0) > 0.1


def bound_by_conjugates(values, budget, alpha, price, of_value, sign=1):
    """Prices of a row and of each layer's value, in the place of the utility."""
    total = price * budget
    for v, p in zip(values, of_value, strict=True):
        net = p * np.array(v[1:]) - price * np.arange(1, len(v))
        total += net.max() - sign * float(concave_conjugate(p, alpha))
    return total


@settings(max_examples=60, deadline=None)
@given(COSTS, st.sampled_from([0.25, 0.5, 1, 2, 4]), st.integers(0, 12), st.data())
def test_prices_of_value_bound_the_utility_too(costs, alpha, more, pick):
    values, budget = [np.r_[0, np.cumsum(c)] for c in costs], len(costs) + more
    price = pick.draw(st.floats(0, 10))
    of_value = [pick.draw(st.floats(1e-3, 10)) for _ in costs]
    best = best_utility(values, budget, alpha, np.ones(len(costs)))
    bound = bound_by_conjugates(values, budget, alpha, price, of_value)
    assert bound >= best - 1e-9 * (1 + abs(best))


def test_the_bound_by_conjugates_is_near_and_the_other_sign_is_none():
    rng = np.random.default_rng(8)
    values = [kept_costs(rng.gamma(2, size=40) * s) for s in (1, 2, 4)]
    found = share_rows(values, 70, 0.5)
    kept = np.array([v[k] for v, k in zip(values, found.widths, strict=True)])
    ours, of_value = alpha_fair_utility(kept, 0.5), kept**-0.5
    near = bound_by_conjugates(values, 70, 0.5, found.price, of_value)
    assert -1e-9 <= near - ours < 0.01 * ours
    wrong = bound_by_conjugates(values, 70, 0.5, found.price, of_value, sign=-1)
    assert wrong < ours


def solver_bound(values, budget, alpha, sizes):
    """Largest utility if parts of rows could be kept, along the chords of phi(V)."""
    kept, utility, spent = [], 0, 0
    for v, size in zip(values, sizes, strict=True):
        first, gains = v[1], np.diff([alpha_fair_utility([x], alpha) for x in v[1:]])
        x = cp.Variable(len(gains))
        kept += [x >= 0, x <= 1]
        utility += alpha_fair_utility([first], alpha) + gains @ x
        spent += size * (1 + cp.sum(x))
    problem = cp.Problem(cp.Maximize(utility), [*kept, spent <= budget])
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    return problem


@pytest.mark.parametrize("alpha", [0, 0.5, 1, 2])
def test_many_rows_are_optimal_and_priced_by_a_solver(alpha):
    rng = np.random.default_rng(5)
    values = [kept_costs(rng.gamma(0.5, size=40) * s) for s in (1, 2, 4, 8)]
    found = share_rows(values, 90, alpha)
    ours = alpha_fair_utility(
        [v[k] for v, k in zip(values, found.widths, strict=True)], alpha
    )
    problem = solver_bound(values, 90, alpha, [1] * 4)
    assert abs(problem.value - ours) < 1e-5 * (1 + abs(ours))
    price = problem.constraints[-1].dual_value  # of a row, between two gains
    assert row_certificate(values, found.widths, 90, alpha, price=float(price)) < 1e-4
    other = share_rows(values, 90, np.inf).widths
    ours = alpha_fair_utility([v[k] for v, k in zip(values, other, strict=True)], alpha)
    assert problem.value - ours > 1e-3


def test_the_gap_covers_what_a_solver_finds_for_rows_of_several_sizes():
    rng, sizes = np.random.default_rng(6), [3, 1, 2, 5]
    values = [kept_costs(rng.gamma(0.5, size=30) * s) for s in (1, 2, 4, 8)]
    found = share_rows(values, 150, 0.5, sizes=sizes)
    ours = alpha_fair_utility(
        [v[k] for v, k in zip(values, found.widths, strict=True)], 0.5
    )
    best = solver_bound(values, 150, 0.5, sizes).value
    assert -1e-6 < best - ours <= found.gap + 1e-5


def test_alpha_zero_gives_the_widths_by_fisher_cost():
    draw = torch.Generator().manual_seed(3)
    costs = [torch.rand(30, generator=draw).double() * s for s in (1, 2, 5)]
    for ratio in (0.1, 0.3, 0.45):
        widths = [rows_to_keep(30, r) for r in uneven_ratios(costs, ratio)]
        budget = 3 * rows_to_keep(30, ratio)
        found = share_rows([kept_costs(c) for c in costs], budget, 0, least=15)
        assert found.widths.tolist() == widths


def test_one_factor_gives_the_error_of_every_refit():
    draw = torch.Generator().manual_seed(4)
    D, X = (torch.randn(n, 7, generator=draw).double() for n in (3, 40))
    H, order = X.T @ X / 40, torch.randperm(7, generator=draw)
    value = refit_values(D, H, order, ridge=1e-12)
    for k in range(1, 8):
        fit = refit_down(D, H, order[:k], ridge=1e-12).weight
        error = float(output_error(D, H, order[:k], fit))
        assert abs(1 - value[k] - error) < 1e-9
    backwards = refit_values(D, H, order.flip(0), ridge=1e-12)
    assert abs(backwards - value).max() > 0.01


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda v: kept_costs([[1.0]]), "costs has shape"),
        (lambda v: kept_costs([1.0, -1]), "none may be negative"),
        (lambda v: marginal_gains([2.0, 1], 0), "loses by a further row"),
        (lambda v: marginal_gains([0.0, 1], 1), "values begins at 0"),
        (lambda v: share_rows(v, 4, -1), "alpha is -1"),
        (lambda v: share_rows([], 4, 0), "values is empty"),
        (lambda v: share_rows(v, 4, 0, least=9), "least is 9 in layer 0"),
        (lambda v: share_rows(v, 1, 0), "budget is 1"),
        (lambda v: share_rows(v, 4, 0, sizes=0), "sizes has 0"),
        (lambda v: row_certificate(v, [1, 1], 4, 0, price=-1), "price is -1"),
        (lambda v: row_certificate(v, [3, 3], 4, 0, price=1), "widths hold 6"),
        (lambda v: row_certificate(v, [0, 3], 4, 0, price=1), "widths is 0 in layer 0"),
        (lambda v: row_certificate(v, [1, 4], 9, 0, price=1), "widths is 4 in layer 1"),
        (lambda v: row_certificate(v, [1, 1, 1], 9, 0, price=1), "of the 2 layers"),
        (lambda v: share_rows(v, 4, 0, least=[1, 1, 1]), "least is .*of the 2 layers"),
        (lambda v: share_rows(v, np.nan, 0), "budget is nan"),
        (lambda v: share_rows(v[0], 4, 0), "values has .* for layer 0"),
        (lambda v: share_rows([v[0], v[1] * np.nan], 4, 0), "for layer 1"),
    ],
)
def test_errors_name_what_is_wrong(call, match):
    values = [kept_costs([3, 2, 1]), kept_costs([1, 1, 1])]
    with pytest.raises(ValueError, match=match):
        call(values)


def test_a_refit_needs_a_block_that_fits_and_gives_something():
    H, order = torch.eye(2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="D has shape .*of 2 neurons"):
        refit_values(torch.ones(2, 3), H, order, ridge=0.1)
    with pytest.raises(ValueError, match="D gives no output"):
        refit_values(torch.zeros(2, 2), H, order, ridge=0.1)


@pytest.mark.parametrize(("ridge", "order"), [(0.0, [0, 1]), (0.1, [0, 0])])
def test_a_refit_needs_a_ridge_and_every_neuron(ridge, order):
    with pytest.raises(ValueError, match="ridge is|order holds"):
        refit_values(torch.ones(1, 2), torch.eye(2), torch.tensor(order), ridge=ridge)
