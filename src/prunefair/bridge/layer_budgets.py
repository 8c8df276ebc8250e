# %%
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import isotonic_regression

from prunefair.fairness.utility import arm_utility


# %%
def kept_costs(costs: np.ndarray) -> np.ndarray:
    r"""Value of the k dearest neurons of a layer, for every k: the costs they hold.

    Parameters
    ----------
    costs : array_like, shape (m,)
        Cost of every neuron, such as its Fisher cost in nats squared; none negative.

    Returns
    -------
    value : ndarray, shape (m + 1,), float64
        $V(0) = 0, \dots, V(m)$, in the unit of the costs; concave in $k$.

    Raises
    ------
    ValueError
        If `costs` is not a vector, or an entry is negative or not finite.

    References
    ----------
    Book {eq}`eq-layer-budgets-kept`.
    """
    costs = np.asarray(costs, dtype=np.float64)
    if costs.ndim != 1 or not (costs.size and np.isfinite(costs).all()):
        raise ValueError(f"costs has shape {costs.shape}; give a finite vector")
    if costs.min() < 0:
        raise ValueError(f"costs has an entry {costs.min()}; none may be negative")
    return np.r_[0.0, np.cumsum(np.sort(costs)[::-1])]


# %%
def refit_values(D, H, order, *, ridge: float) -> np.ndarray:
    r"""Share of a block's output that its first k neurons give back, for every k.

    Parameters
    ----------
    D : Tensor, shape (d, m), any floating type
        `down_proj`; weight units.
    H : Tensor, shape (m, m)
        Second moment of its input; squared activations.
    order : Tensor, shape (m,), int64
        All neurons, in the order in which they are kept.
    ridge : float
        $\rho$, a share of each neuron's mean square, as of noise of its own; positive.

    Returns
    -------
    value : ndarray, shape (m + 1,), float64
        $V(0) = 0, \dots, V(m) = 1$, no unit; it does not decrease.

    Raises
    ------
    ValueError
        If `ridge` is not positive and finite, or `order` is not every neuron once.

    References
    ----------
    Book {eq}`eq-layer-budgets-refit`.
    """
    if not 0 < ridge < float("inf"):
        raise ValueError(f"ridge is {ridge!r}; give a positive number")
    if sorted(order.tolist()) != list(range(len(H))):
        raise ValueError(f"order holds {len(order)} neurons; give all {len(H)} once")
    H = H.double()[order][:, order]
    H.diagonal().mul_(1 + ridge).add_(torch.finfo(H.dtype).tiny)  # a dead neuron
    gains = (D.double()[:, order] @ torch.linalg.cholesky(H)).square().sum(0)
    value = np.r_[0.0, gains.cumsum(0).cpu().numpy()]
    return value / value[-1]


# %%
def marginal_gains(value, alpha: float) -> np.ndarray:
    r"""What every further row of a layer adds to its utility, made non-increasing.

    Parameters
    ----------
    value : array_like, shape (K + 1,)
        Value of the layer with each number of rows that it may keep; not decreasing.
    alpha : float
        Fairness parameter; at infinity a row is worth the more the less there is.

    Returns
    -------
    gains : ndarray, shape (K,), float64
        Slopes of the least concave function above $\phi_\alpha \circ V$: the
        differences themselves where these do not increase. Utility units.

    Raises
    ------
    ValueError
        If the value decreases or begins at 0 where `alpha >= 1`.

    References
    ----------
    Book {eq}`eq-layer-budgets-gain`.
    """
    value = np.asarray(value, dtype=np.float64)
    if (np.diff(value) < 0).any():
        raise ValueError("values has a layer that loses by a further row")
    if alpha == np.inf:
        return -value[:-1]
    if alpha >= 1 and not value[0] > 0:
        raise ValueError(
            f"values begins at {value[0]}, whose utility at alpha = {alpha} is not "
            "finite; let least keep rows that are worth something"
        )
    gains = np.diff(arm_utility(value, alpha))
    return isotonic_regression(gains, increasing=False).x if len(gains) else gains


# %%
class Budget(NamedTuple):
    """Rows of every layer, with what proves how good they are."""

    widths: np.ndarray  # (L,), int64
    price: float  # of a parameter, utility units
    gap: float  # no widths within the budget have a utility larger by more


# %%
def share_rows(values, budget: int, alpha: float, *, least=1, sizes=1) -> Budget:
    r"""Widths of all layers with the largest alpha-fair utility of their values.

    Parameters
    ----------
    values : sequence of L array_like, each of shape (m + 1,)
        Value of each layer with 0 to m rows; it does not decrease.
    budget : int
        Parameters to keep in all, or rows where every row has size 1.
    alpha : float
        Fairness parameter, in $[0, \infty]$; no unit.
    least : int or sequence of L int
        Rows that every layer keeps.
    sizes : int or sequence of L int
        Parameters of a row of each layer.

    Returns
    -------
    budget : Budget
        Its gap is 0 to rounding where values are concave and all sizes equal.

    Raises
    ------
    ValueError
        If `alpha` is negative or NaN, a value decreases, `least` is outside a layer,
        or the budget is too small for it.

    References
    ----------
    Book {eq}`eq-layer-budgets-problem`.
    """
    values = [np.asarray(v, dtype=np.float64) for v in values]
    least, sizes = (np.broadcast_to(x, len(values)) for x in (least, sizes))
    _check(values, budget, alpha, least, sizes)
    gains = [marginal_gains(v[k:], alpha) for v, k in zip(values, least, strict=True)]
    layer = np.repeat(np.arange(len(values)), [len(g) for g in gains])
    rate = np.concatenate(gains) / (1 if alpha == np.inf else sizes[layer])
    order = np.argsort(-rate, kind="stable")
    spent = np.cumsum(sizes[layer][order]) + (least * sizes).sum()
    taken = order[: np.searchsorted(spent, budget, side="right")]
    widths = least + np.bincount(layer[taken], minlength=len(values))
    next_rates = rate[order[len(taken) :]]
    price = float(next_rates[0]) if len(next_rates) and alpha < np.inf else 0.0
    gap = row_certificate(
        values, widths, budget, alpha, price=price, least=least, sizes=sizes
    )
    return Budget(widths, price, gap)


# %%
def _check(values, budget, alpha, least, sizes) -> None:
    """Raise where a problem has no solution, or none that is asked for."""
    if not alpha >= 0:  # NaN as well
        raise ValueError(f"alpha is {alpha!r}; give a number of at least 0, or inf")
    if not values:
        raise ValueError("values is empty; give the values of one layer or more")
    for number, (v, k) in enumerate(zip(values, least, strict=True)):
        if not 0 <= k < len(v):
            raise ValueError(
                f"least is {k} in layer {number}, which has {len(v) - 1} rows"
            )
    if (sizes < 1).any():
        raise ValueError(f"sizes has {sizes.min()}; a row has a parameter or more")
    if budget < (least * sizes).sum():
        raise ValueError(
            f"budget is {budget!r}; least asks for {(least * sizes).sum()} already"
        )


# %%
def row_certificate(
    values, widths, budget: int, alpha: float, *, price: float, least=1, sizes=1
) -> float:
    r"""How much larger the utility of other widths within the budget can be.

    Parameters
    ----------
    values, budget, alpha, least, sizes
        See `share_rows`; the values may be any, concave or not.
    widths : array_like, shape (L,)
        The widths to judge, within the budget.
    price : float
        $\lambda \ge 0$ of a parameter, utility units; not used at infinity.

    Returns
    -------
    gap : float
        Utility units, at infinity those of the value; at least 0 to rounding.

    Raises
    ------
    ValueError
        If `price` is negative, or `widths` are over the budget.

    References
    ----------
    Book {eq}`eq-layer-budgets-weak`.
    """
    widths, least, sizes = (
        np.broadcast_to(x, len(values)) for x in (widths, least, sizes)
    )
    if not price >= 0:
        raise ValueError(f"price is {price!r}; it is at least 0")
    if (widths * sizes).sum() > budget:
        raise ValueError(f"widths hold {(widths * sizes).sum()}, over {budget!r}")
    if alpha == np.inf:
        return _maxmin_gap(values, widths, budget, least, sizes)
    gap = price * (budget - (widths * sizes).sum())
    for v, k, first, size in zip(values, widths, least, sizes, strict=True):
        phi = arm_utility(np.asarray(v)[first:], alpha)
        net = phi - price * size * np.arange(len(phi))
        gap += float((net - net[k - first]).max())
    return float(gap)


# %%
def _maxmin_gap(values, widths, budget, least, sizes) -> float:
    """By how much the least value can be raised: over all levels that a layer has."""
    now = min(v[k] for v, k in zip(values, widths, strict=True))
    levels = np.unique(np.concatenate(values))
    levels = levels[levels <= min(v[-1] for v in values)]  # a layer has no more
    need = [np.searchsorted(v, levels) for v in values]  # fewest rows for a level
    need = np.maximum(need, least[:, None])
    within = levels[sizes @ need <= budget]
    return float(max(within.max(initial=now) - now, 0.0))
