# %% [markdown]
r"""
# Layer budgets: rows shared as a fair allocation

A pruner may keep 70 % of the rows of a model. Which layer gets how many?
(A row is a neuron of a feed-forward block: a row of `gate_proj` and `up_proj`, with its column of `down_proj`.)
That is an allocation, and Part II has a family of objectives for it, from the largest sum at $\alpha = 0$ to the largest minimum at $\alpha = \infty$.
The [widths by Fisher cost](../pruning/functional_policy.ipynb) of Part I, which keep the neurons that the model's output depends on most, turn out to be its member $\alpha = 0$.
Would a fairer one leave a better model?
On two small models the answer is no. For the first, with these 70 % kept, the divergence from the dense model is 0.52 nats a token at $\alpha = 0$ and 0.88 at $\alpha = 1$, worse than the 0.66 of equal widths.
With half of the rows removed no fairer one is nearer on a model's own texts, but on WikiText-2 one model does better at $\alpha = \frac14$.
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it fetches the book, installs the package
# # and goes to the folder of this chapter.
# import sys
#
# if "google.colab" in sys.modules:
#     !git clone --quiet --depth 1 https://github.com/prunefair/prunefair /content/book
#     %pip install --quiet "/content/book"
#     %cd -q /content/book/book/bridge

# %%
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from prunefair.fairness.utility import arm_utility

# %% tags=["active-ipynb"]
# import itertools
# import json
# from pathlib import Path
#
# from prunefair.fairness.bandit_feedback import mean_interval
# from prunefair.fairness.utility import alpha_fair_utility
# from prunefair.playing import playable
# from prunefair.plotting import figure
# from prunefair.pruning.anatomy import rows_to_keep
# from prunefair.pruning.functional_policy import fisher_costs, uneven_ratios
# from prunefair.pruning.refit import output_error, refit_down
#
# SEED = 340
# rng = np.random.default_rng(SEED)

# %% [markdown]
# Three layers of twelve rows with random costs show how rows are shared.
# Look at where each curve crosses the dotted line, the price of a row, which is the same for all layers.

# %% tags=["active-ipynb"]
# from prunefair.bridge import layer_budgets as package
# from prunefair.exercises import Quiz, check_answer
# from prunefair.pruning.perplexity import self_sample
# from prunefair.pruning.records import outcomes_from_hex
# from prunefair.pruning.surgery import prune_rows, tiny_model
#
# sizes = np.array([[0.6], [1.0], [2.0]])
# costs = sizes * np.random.default_rng(SEED + 1).lognormal(0, 0.7, (3, 12))
# toy = [package.kept_costs(layer) for layer in costs]
# with figure(2, sharex=True) as axes:
#     package.plot_row_gains(axes, toy, 18, (0, 1))

# %% [markdown]
# **Figure (fig-layer-budgets-price).** <a id="fig-layer-budgets-price"></a> Half of the rows of three layers, shared at two fairness parameters. Each curve is what a further row adds in its layer; the rows with a dot are kept. One price, the dotted line, cuts all curves. At $\alpha=0$ the dear layer gets most rows; at $\alpha=1$ what a layer has already counts against it, and the widths come closer.

# %% [markdown]
# ## Notation
#
# $L$ layers have $m$ rows each; layer $l$ keeps $k_l$ of them, at least $a_l$, and $K$ in all.
# $V_l(k)$ is the value of $k$ rows of layer $l$, and does not decrease in $k$; $\phi_\alpha$ is the [utility](../fairness/utility.ipynb) of Part II.
# $\lambda$ is the price of a row.

# %% [markdown]
# ## What rows are worth
#
# The simplest value is the sum of the costs $f_{lj}$ of the neurons kept, the dearest first:
#
# <a id="eq-layer-budgets-kept"></a>
# $$
# V_l(k) = \sum_{i=1}^{k} f_{l(i)}, \qquad f_{l(1)} \ge f_{l(2)} \ge \dots
# $$ (eq-layer-budgets-kept)
#
# Its differences are sorted, so it is concave: every further row is worth less than the one before.


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


# %% [markdown]
# Another value is what the kept neurons can give back of a block's output after a [re-fit](../pruning/refit.ipynb).
# To compute a re-fit for every width of every layer would be slow.
# The theorem finds all of them at once, from one Cholesky factor of $H$, the second moment of the neurons $h$; $D$ is `down_proj`.
#
# **Theorem (The re-fit of every width from one factor).** <a id="thm-layer-budgets-refit"></a>
# Let the neurons be numbered in the order in which they are kept, $H = C C^\top$ with $C$ lower triangular and $H$ positive definite.
# The least error $\min_{\hat D} \mathbb E\, \lVert \hat D h_{\le k} - D h \rVert^2$ is $\sum_{j > k} \lVert D C_{:j} \rVert^2$, so the share of the output energy that comes back is
#
# <a id="eq-layer-budgets-refit"></a>
# $$
# V(k) = \sum_{j \le k} \lVert D C_{:j} \rVert^2 \Big/ \sum_{j} \lVert D C_{:j} \rVert^2 .
# $$ (eq-layer-budgets-refit)
#
# It does not decrease, and need not be concave, whatever the order.
#
# **Proof.**
# $z = C^{-1} h$ has the second moment $C^{-1} H C^{-\top} = I$.
# $C$ is triangular with a positive diagonal, so linear functions of $h_{\le k}$ are those of $z_{\le k}$.
# The best of them for $D h = \sum_j z_j\, D C_{:j}$ keeps the terms $j \le k$, and the others remain, orthogonal to one another.
#
# Let $h_1 = x + e$, $h_2 = e$ and $D = (1, -1)$, with $x$ and $e$ uncorrelated, $\mathbb E\, x^2 = 1$ and $\mathbb E\, e^2 = 9$.
# The output is $x$; the first neuron alone gives back a tenth of it, the second nothing, both everything.
# So the values are $(0, \frac1{10}, 1)$ or $(0, 0, 1)$. ∎
#
# In words: each further neuron gives back the part of the output that the ones before it could not imitate.
# Two neurons that are useless alone may be useful together, so this value need not be concave.
#
# A ridge $\rho$ adds to $H$ a share of its diagonal, as if every neuron had noise of its own.


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
        If `ridge` is not positive and finite, `order` is not every neuron once, or `D`
        does not fit or gives nothing.

    References
    ----------
    Book {eq}`eq-layer-budgets-refit`.
    """
    if not 0 < ridge < float("inf"):
        raise ValueError(f"ridge is {ridge!r}; give a positive number")
    if sorted(order.tolist()) != list(range(len(H))):
        raise ValueError(f"order holds {len(order)} neurons; give all {len(H)} once")
    if D.shape[-1] != len(H):
        raise ValueError(f"D has shape {tuple(D.shape)}; H is of {len(H)} neurons")
    H = H.double()[order][:, order]
    H.diagonal().mul_(1 + ridge).add_(torch.finfo(H.dtype).tiny)  # a dead neuron
    gains = (D.double()[:, order] @ torch.linalg.cholesky(H)).square().sum(0)
    value = np.r_[0.0, gains.cumsum(0).cpu().numpy()]
    if not value[-1] > 0:
        raise ValueError("D gives no output, so no share of it can come back")
    return value / value[-1]


# %% tags=["active-ipynb"]
# draw = torch.Generator().manual_seed(SEED)
# D, X = (torch.randn(n, 8, generator=draw).double() for n in (4, 50))
# H, order = X.T @ X / 50, torch.randperm(8, generator=draw)
# value = refit_values(D, H, order, ridge=1e-12)
# for k in range(1, 9):
#     fit = refit_down(D, H, order[:k], ridge=1e-12).weight
#     error = float(output_error(D, H, order[:k], fit))
#     assert abs(1 - value[k] - error) < 1e-9
# H = torch.tensor([[10.0, 9.0], [9.0, 9.0]])
# both = [refit_values(torch.tensor([[1.0, -1.0]]), H, torch.tensor(o), ridge=1e-9)
#         for o in ([0, 1], [1, 0])]  # fmt: skip
# np.testing.assert_allclose(both, [[0, 0.1, 1], [0, 0, 1]], atol=1e-6)

# %% [markdown]
# ## The allocation, and why greedy is enough
#
# <div class="alert alert-info">
#
# **The widths that are asked for.**
#
# <a id="eq-layer-budgets-problem"></a>
# $$
# \max_{k}\; \sum_l \phi_\alpha\bigl(V_l(k_l)\bigr), \qquad \sum_l k_l \le K, \quad a_l \le k_l \le m .
# $$ (eq-layer-budgets-problem)
#
# At $\alpha = 0$ the values are added, at $\alpha = \infty$ the poorest layer alone counts.
#
# </div>
#
# The gain of the next row of a layer is
#
# <a id="eq-layer-budgets-gain"></a>
# $$
# g_l(k) = \phi_\alpha(V_l(k + 1)) - \phi_\alpha(V_l(k)) .
# $$ (eq-layer-budgets-gain)
#
# There are far too many widths to try all of them.
# The obvious way is greedy: give each row to the layer in which it is worth most.
# Is that enough, and how could one tell?
# A choice may be judged without knowing the best one, by a price.
#
# **Theorem (Greedy widths and their certificate).** <a id="thm-layer-budgets-greedy"></a>
# Let $\alpha$ be finite.
#
# 1. For every $\lambda \ge 0$ and all widths within the budget
#
#    <a id="eq-layer-budgets-weak"></a>
#    $$
#    \sum_l \phi_\alpha(V_l(k_l)) \le \lambda K + \sum_l \max_{a_l \le j \le m} \bigl(\phi_\alpha(V_l(j)) - \lambda j\bigr) .
#    $$ (eq-layer-budgets-weak)
#
# 2. Let every $V_l$ be concave. The widths to which rows are added one by one, each time where the gain is largest, are optimal, and $\lambda$ equal to the largest gain that is left makes [(eq-layer-budgets-weak)](#eq-layer-budgets-weak) an equality.
# 3. At $\alpha = 0$ with [(eq-layer-budgets-kept)](#eq-layer-budgets-kept) these are the widths by Fisher cost.
# 4. At $\alpha = \infty$ the row always goes to the poorest layer that has one left, and the smallest value is the largest possible, concave or not.
#
# **Proof.**
# (1) Add $\lambda (K - \sum_l k_l) \ge 0$ to the left side, and bound every term by its largest.
#
# (2) $\phi_\alpha$ is concave and increasing and $V_l$ concave, so $\phi_\alpha \circ V_l$ is concave in $k$ and the gains of a layer do not increase.
# Greedy spends $K$ rows, or all that there are; then $\lambda = 0$.
# Every row taken had a gain of at least $\lambda$, since the gains on offer never grow, and every row left has one of at most $\lambda$.
# So $j \mapsto \phi_\alpha(V_l(j)) - \lambda j$ rises up to $k_l$ and falls after it: its maximum is at $k_l$, and both sides are equal.
#
# (3) Gains are then the costs, and the rows added are the dearest of all layers beyond the first $a_l$.
#
# (4) To have at least $t$ everywhere takes at least $n_l(t) = \min\{k \ge a_l : V_l(k) \ge t\}$ rows in layer $l$.
# As long as some layer is below $t$, greedy gives rows only to layers below $t$, so no layer has more than $n_l(t)$; if $\sum_l n_l(t) \le K$, it gets there. ∎
#
# In words: where every further row of a layer is worth less than the one before, greedy is exact, and one price for all layers proves it.
#
# With Part II's [conjugate](../fairness/utility.ipynb) the same bound needs prices of value instead of the utility itself: $\phi_\alpha(v) \le p v - \phi_{\alpha*}(p)$, so $\max_j (p_l V_l(j) - \lambda j) - \phi_{\alpha*}(p_l)$ may stand for the $l$-th maximum, for any $p_l > 0$.
# Where a value is not concave, the code adds rows by the slopes of the least concave function above the utility, and the certificate says how much that can have missed.
# Where rows differ in size, gains and price are those of a parameter.


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
    from scipy.optimize import isotonic_regression  # slow to import

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
        If `alpha` is negative or NaN, a value decreases, is negative or NaN, `least`
        is outside a layer, or the budget is too small for it.

    References
    ----------
    Book {eq}`eq-layer-budgets-problem`.
    """
    values = [np.asarray(v, dtype=np.float64) for v in values]
    least, sizes = _by_layer(len(values), least=least, sizes=sizes)
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
def _by_layer(n_layers: int, **given) -> list[np.ndarray]:
    """Each argument as one number for each layer, or raise."""
    for name, value in given.items():
        if np.shape(value) not in ((), (n_layers,)):
            raise ValueError(
                f"{name} is {value!r}; give one number, or one for each of the "
                f"{n_layers} layers"
            )
    return [np.broadcast_to(value, n_layers) for value in given.values()]


# %%
def _check(values, budget, alpha, least, sizes) -> None:
    """Raise where a problem has no solution, or none that is asked for."""
    if not alpha >= 0:  # NaN as well
        raise ValueError(f"alpha is {alpha!r}; give a number of at least 0, or inf")
    if not values:
        raise ValueError("values is empty; give the values of one layer or more")
    for number, (v, k) in enumerate(zip(values, least, strict=True)):
        if v.ndim != 1 or not (v >= 0).all():  # NaN as well
            raise ValueError(
                f"values has {v!r} for layer {number}; give what 0, 1, ... rows are "
                "worth, none negative or NaN"
            )
        if not 0 <= k < len(v):
            raise ValueError(
                f"least is {k} in layer {number}, which has {len(v) - 1} rows"
            )
    if (sizes < 1).any():
        raise ValueError(f"sizes has {sizes.min()}; a row has a parameter or more")
    if not budget >= (least * sizes).sum():  # NaN as well
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
        If `price` is negative, or `widths` are over the budget or outside a layer.

    References
    ----------
    Book {eq}`eq-layer-budgets-weak`.
    """
    given = {"widths": widths, "least": least, "sizes": sizes}
    widths, least, sizes = _by_layer(len(values), **given)
    for number, (v, k, a) in enumerate(zip(values, widths, least, strict=True)):
        if not a <= k < len(v):
            raise ValueError(
                f"widths is {k} in layer {number}; give {a} to {len(v) - 1} rows"
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


# %% [markdown]
# The next function draws [Figure (fig-layer-budgets-price)](#fig-layer-budgets-price), at the head of this chapter.


# %%
def plot_row_gains(axes, values, budget: int, alphas):
    """Gain of each further row, the price that all layers share, and the widths."""
    for ax, alpha in zip(axes, alphas):
        shared = share_rows(values, budget, alpha)
        for layer, (value, width) in enumerate(zip(values, shared.widths)):
            gains = marginal_gains(value[1:], alpha)
            rows = np.arange(2, len(value))
            (line,) = ax.plot(rows, gains, label=f"layer {layer}: {width} rows")
            colour = line.get_color()
            ax.plot(rows[: width - 1], gains[: width - 1], "o", color=colour, ms=5)
        ax.axhline(shared.price, color="k", ls=":")
        ax.set(ylabel=rf"gain at $\alpha = {alpha:g}$", yscale="log")
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes[-1].set(xlabel="row of the layer, the dearest first")
    return axes


# %% [markdown]
# We try all widths of three small layers, for seven $\alpha$; and at $\alpha = 0$ we find the widths of Part I.

# %% tags=["active-ipynb"]
# values = [kept_costs(rng.exponential(size=m) * s) for m, s in ((4, 1), (5, 3), (6, 9))]
# for alpha in (0, 0.25, 0.5, 1, 2, 4, np.inf):
#     found = share_rows(values, 9, alpha)
#     every = [alpha_fair_utility([v[k] for v, k in zip(values, ks)], alpha)
#              for ks in itertools.product(range(1, 5), range(1, 6), range(1, 7))
#              if sum(ks) <= 9]  # fmt: skip
#     ours = [v[k] for v, k in zip(values, found.widths)]
#     assert abs(alpha_fair_utility(ours, alpha) - max(every)) < 1e-12
#     assert found.gap < 1e-12
#     print(f"alpha {alpha:4}: widths {found.widths}, price of a row {found.price:.3f}")

# %% tags=["active-ipynb"]
# costs = [torch.from_numpy(rng.exponential(size=40) * s) for s in (1, 2, 4)]
# widths = [rows_to_keep(40, r) for r in uneven_ratios(costs, 0.3)]
# same = share_rows([kept_costs(c) for c in costs], 84, 0, least=20)
# assert same.widths.tolist() == widths

# %% [markdown]
# ## From costs to a smaller model
#
# With a model of your own four steps are needed: let it write texts, ask them for the Fisher cost of every row, share the rows, and keep the dearest ones of each layer.
# Here they are for a tiny random model, of which 70 % of the rows stay.

# %% tags=["active-ipynb"]
# draw = torch.Generator().manual_seed(SEED)
# tiny = tiny_model("llama", generator=draw)
# own_costs = fisher_costs(tiny, self_sample(tiny, 8, 16, generator=draw))
# rows = sum(len(layer) for layer in own_costs)
# half = [len(layer) // 2 for layer in own_costs]
# shared = share_rows([kept_costs(c) for c in own_costs], int(0.7 * rows), 0, least=half)
# kept = [c.topk(int(k)).indices.sort()[0] for c, k in zip(own_costs, shared.widths)]
# small = prune_rows(tiny, kept)
# assert [block.mlp.down_proj.in_features for block in small.model.layers] == [
#     *shared.widths
# ]
# print(f"{rows} rows, widths {shared.widths}, gap {shared.gap:.0e}")

# %% [markdown]
# ## What it does to a model
#
# `benchmarks/layer_budgets.py` shares the rows of the small real model, keeps the neurons of largest Fisher cost, at least half of every layer, and re-fits `down_proj`.
# Where half of all rows go, that would leave no choice, and the bound is a fifth.
# It measures the divergence on 16 texts of the model's own that no statistic was taken on; of a second model, Gemma-3-270M, on 12.
# Twelve windows of WikiText-2 validation ([tokenised](../pruning/perplexity.ipynb#the-tokenised-text)) and 500 zero-shot questions stand beside it; they decide nothing.


# %%
def plot_by_alpha(ax, curves: dict[str, dict[str, np.ndarray]], what="divergence"):
    """What is lost against the fairness of the widths, with 95 % intervals.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    curves : dict of str to dict of str to ndarray, shape (n,)
        Of each line, the losses of the texts at every alpha; nats a token.
    what : str
        What is lost.

    Returns
    -------
    ax : matplotlib.axes.Axes
    """
    from prunefair.fairness.bandit_feedback import mean_interval

    styles = ("o-", "s--", "^:", "D-.", "v-")
    for style, (label, curve) in zip(styles, curves.items(), strict=False):
        mean, half = mean_interval(np.array([*curve.values()]).T)
        ax.errorbar([*curve], mean, half, fmt=style, capsize=3, label=label)
    ax.set(xlabel=r"fairness $\alpha$", ylabel=f"{what} (nats a token)")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# files = {"SmolLM2": "layer_budgets", "Gemma-3": "layer_budgets_gemma3"}
# tables = {name: json.loads(Path(f"../results/{file}.json").read_text())
#           for name, file in files.items()}  # fmt: skip
# table, kl, read = tables["SmolLM2"], {}, {}
# for r, name in itertools.product(("0.3", "0.5", "0.1"), tables):
#     rows = tables[name].get(r, {"costs": {}})["costs"]
#     for a, row in rows.items():
#         line, a = f"{name}, {100 * float(r):g} %", a.replace("inf", "∞")
#         kl.setdefault(line, {})[a] = np.array(row["kl"])
#         if "nats" in row:
#             more = np.subtract(row["nats"], tables[name]["dense"]["nats"])
#             read.setdefault(line, {})[a] = more

# %% tags=["active-ipynb"]
# with figure(2, sharex=True) as axes:
#     plot_by_alpha(axes[0], kl)
#     plot_by_alpha(axes[1], read, "lost on WikiText-2")
#     axes[0].set(xlabel="")

# %% [markdown]
# **Figure (fig-layer-budgets-alpha).** <a id="fig-layer-budgets-alpha"></a> Widths that share Fisher costs with $\alpha \ge 1$ lose more than at 0, everywhere beyond the error; for a smaller $\alpha$ it depends on model and ratio. With 95 % intervals. Above: mean divergence over texts of their own, with 30 % and 50 % of the rows removed, and of SmolLM2 with 10 %. Below: information of twelve windows of WikiText-2 beyond that of the dense model; its exponential is the factor of the perplexity.
#
# The same in numbers, text by text and window by window against $\alpha = 0$:

# %% tags=["active-ipynb"]
# gaps = {}
# for what, curves in (("own texts", kl), ("WikiText-2", read)):
#     for name, curve in curves.items():
#         for a, x in curve.items():
#             gap, half = mean_interval(x - curve["0"])
#             gaps[what, name, a] = gap - half, gap, gap + half
#             print(f"{what:10}  {name:13} alpha {a:4}: {x.mean():.3f}, "
#                   f"more than at 0 by {gap:+.3f} +- {half:.3f}")  # fmt: skip

# %% tags=["active-ipynb"]
# close = {key[:2] for key, (low, *_) in gaps.items() if low <= 0 and key[2] != "0"}
# assert close == {("own texts", "Gemma-3, 30 %"), ("own texts", "Gemma-3, 50 %"),
#                  ("own texts", "SmolLM2, 50 %"), ("WikiText-2", "SmolLM2, 30 %"),
#                  ("WikiText-2", "SmolLM2, 50 %")}  # fmt: skip
# better = {key for key, (*_, high) in gaps.items() if high < 0}
# assert better == {("WikiText-2", "SmolLM2, 50 %", a) for a in ("0.25", "0.5")}
# assert all(low > 0 for key, (low, *_) in gaps.items() if key[2] in ("1", "2", "4", "∞"))
# half_gone = [np.exp(read["SmolLM2, 50 %"][a].mean()) for a in ("0", "0.25")]
# assert [round(x, 2) for x in half_gone] == [3.43, 2.95]

# %% [markdown]
# With 10 % and with 30 % of the rows removed $\alpha = 0$ is the nearest to SmolLM2 by its own texts, beyond the error of every pair.
# At 30 % the divergence is 0.521, against 0.656 of equal widths and 0.955 at $\alpha = \infty$.
# On WikiText-2 it has the smallest perplexity, too, 1.73 times the dense one; $\alpha = \frac14$ and $\frac12$, with 1.75 and 1.78, cannot be told from it, $\alpha = 1$ with 2.47 can.
# The first two of these windows alone would have put $\alpha = \frac12$ first.
#
# Gemma-3 agrees, but there WikiText-2 is the sharper judge.
# On its own texts $\alpha = 0$ and $\frac14$ are level, with 0.600 and 0.599, and $\frac12$ cannot be told from them; on WikiText-2 $\alpha = 0$ is ahead of every other, of $\frac14$ by 0.11 nats a token.
# Equal widths are behind $\alpha = 0$ by both, with a divergence of 0.680.
# So at this ratio no fairer member serves either model better, and the rule of Part I stays.
# A likely reason is the value that is shared: a Fisher cost stands for a divergence, small divergences of layers about add up, and a layer of small costs is better left poor than made rich.
#
# Does one $\alpha$ serve all ratios?
# With half of the rows removed, its own texts cannot tell 0 from $\frac14$ or $\frac12$ on either model.
# At $\frac14$ the divergence of SmolLM2 is smaller by 0.025 $\pm$ 0.039 nats a token, that of Gemma-3 larger by 0.014 $\pm$ 0.036.
# On WikiText-2 they can be told apart, and the models disagree.
# At $\frac14$ SmolLM2 loses 0.150 $\pm$ 0.031 less than at 0, with 2.95 times the dense perplexity instead of 3.43; Gemma-3 loses 0.149 $\pm$ 0.049 more.
# So by the texts that decide, $\alpha = 0$ is nowhere worse beyond the error; by WikiText-2 the best $\alpha$ depends on the ratio for SmolLM2, and not for Gemma-3.
# One reason may be that costs are made for small cuts, and half of the rows is not one.
#
# How do the other rules fare, with 30 % removed?

# %% tags=["active-ipynb"]
# factors = {a: np.exp(x.mean()) for a, x in read["SmolLM2, 30 %"].items()}
# found = [round(factors[a], 2) for a in ("0", "0.25", "0.5", "1")]
# assert found == [1.73, 1.75, 1.78, 2.47]
# equal = table["0.3"]["equal"][""]
# means = [kl["SmolLM2, 30 %"][a].mean() for a in ("0", "∞", "1")]
# means += [np.mean(equal["kl"])]
# assert [round(x, 3) for x in means[:2]] == [0.521, 0.955]
# assert [round(x, 2) for x in means] == [0.52, 0.96, 0.88, 0.66]
# assert round(means[3], 3) == 0.656
# two = {a: x[:2].mean() for a, x in read["SmolLM2, 30 %"].items()}
# assert min(two, key=two.get) == "0.5"

# %% tags=["active-ipynb"]
# second = tables["Gemma-3"]["0.3"]
# shared, even = second["costs"]["0"], second["equal"][""]
# means = [np.mean(row["kl"]) for row in (shared, second["costs"]["0.25"], even)]
# assert [round(x, 3) for x in means] == [0.600, 0.599, 0.680]
# for name, r in itertools.product(tables, ("0.3", "0.5")):
#     even, shared = (tables[name][r][k][a] for k, a in (("equal", ""), ("costs", "0")))
#     for what in ("kl", "nats"):
#         gap, half = mean_interval(np.subtract(even[what], shared[what]))
#         print(f"{name:7} {r} equal widths: {what:4} {gap:+.3f} +- {half:.3f}")
#         assert (gap > half) == ((name, r, what) != ("SmolLM2", "0.5", "nats"))
# assert round(gaps["WikiText-2", "Gemma-3, 30 %", "0.25"][1], 2) == 0.11

# %% tags=["active-ipynb"]
# for kind in ("re-fit", "shares", "energies"):
#     for a, row in table["0.3"][kind].items():
#         gap, half = mean_interval(np.subtract(row["kl"], equal["kl"]))
#         print(f"{kind:8} alpha {a:4}: {gap:+.3f} +- {half:.3f} beside equal widths")
#         assert gap > half or (kind, a) == ("energies", "inf")
#     assert kind != "re-fit" or gap > 0.15
# more = np.subtract(equal["nats"], table["0.3"]["costs"]["0"]["nats"])
# gap, half = mean_interval(more)
# low, middle, high = np.exp([gap - half, gap, gap + half])
# print(f"equal widths: perplexity times {middle:.2f}, {low:.2f} to {high:.2f}")

# %% [markdown]
# Equal widths have a perplexity that is 15 % larger, with an interval from 12 to 18.
# With half of the rows removed they are behind $\alpha = 0$ as well, except for SmolLM2 on WikiText-2, where the two cannot be told apart.
# The re-fit value counts every layer's output as equally important, which it is not: at every $\alpha$ it is worse than equal widths, by at least 0.15 nats a token.
# Costs as shares of those of their layer are worse than equal widths, too.
# So are functional energies, what a row writes: by 0.24 nats a token at $\alpha = 0$, while at $\alpha = \infty$ they are level with equal widths.
#
# Answers tell two models apart only after many questions.
# These are 100 of each of five tasks, by `acc_norm` where there is one:

# %% tags=["active-ipynb"]
# right = {(name, a): np.array([int(mark) for rules in tasks.values()
#                               for mark in outcomes_from_hex(rules[-1])])
#          for name in tables
#          for a, tasks in tables[name]["answers"]["0.3"]["costs"].items()}  # fmt: skip
# for (name, a), marks in right.items():
#     gap, half = mean_interval(marks - right[name, "0"])
#     print(f"{name:8} alpha {a:4}: {marks.mean():.1%} of {len(marks)} right, "
#           f"beside alpha 0 {gap:+.1%} +- {half:.1%}")  # fmt: skip
# assert {len(marks) for marks in right.values()} == {500}

# %% [markdown]
# On neither model can $\alpha = \frac12$ be told from 0.
# On SmolLM2 $\alpha = \infty$ answers 4.4 points less, just beyond the error of 4.1; on Gemma-3 no difference is seen.
#
# And what does fairness take from the sum of the costs?

# %% tags=["active-ipynb"]
# for r in ("0.3", "0.1"):
#     total = sum(table[r]["costs"]["0"]["values"])
#     kept = {a: sum(row["values"]) for a, row in table[r]["costs"].items()}
#     print(r, *(f"{a}: {1 - x / total:.1%}" for a, x in kept.items()), sep="   ")

# %% [markdown]
# Even $\alpha = \infty$ takes only 4.5 % from the sum of the costs, and yet almost doubles the divergence at 30 %: small differences of the sum matter.
#
# Which layers give, and which get?
# The next figure shows the stored widths at every $\alpha$.


# %%
def plot_widths(ax, widths: dict[str, np.ndarray]):
    """Rows that every layer keeps, a line for each name."""
    for style, (label, kept) in zip(("o-", "s--", "^:"), widths.items(), strict=False):
        ax.plot(kept, style, ms=4, label=label)
    ax.set(xlabel="layer", ylabel="rows kept", ylim=(0, None))
    ax.legend()
    return ax


# %% tags=["hide-input"]
_WIDTHS_SAY = [
    "'α = ' + now[0] + ', ' + share + ' of the rows removed'",
    "'layers keep ' + now[1] + ' to ' + now[2] + ' rows'",
    "'divergence ' + format(now[3], '.2f') + ' nats a token'",
]


# %% tags=["hide-input"]
def play_widths(table: dict):
    """Chart of the widths by Fisher costs that are stored, at every fairness."""
    import altair as alt

    from prunefair.playing import COLOURS, board, choice, slider
    from prunefair.playing import table as columns

    stored, found = {"layer": range(len(table["concavity"]))}, {}
    shares = {f"{100 * float(ratio):g} %": ratio for ratio in ("0.3", "0.1", "0.5")}
    for removed, ratio in shares.items():
        for i, (alpha, row) in enumerate(table[ratio]["costs"].items()):
            name, widths = f"{removed} {i}", row["widths"]
            stored[name], kl = widths, round(float(np.mean(row["kl"])), 7)
            found[name] = [alpha.replace("inf", "∞"), min(widths), max(widths), kl]
    step = slider("step", "fairness, from 0 to ∞", (0, i, 1), 0)
    share = choice("share", "rows removed", [*shares])
    known = alt.param("found", value=found)
    now = alt.param("now", expr="found[share + ' ' + step]")
    chart = alt.Chart(columns(stored)).mark_bar(color=COLOURS[0])
    chart = chart.transform_calculate(kept="datum[share + ' ' + step]")
    top = max(max(row) for row in stored.values())
    kept = alt.Y("kept:Q").title("rows kept").scale(domain=[0, top])
    layer = alt.X("layer:O").title("layer").axis(labelOverlap=True, labelAngle=0)
    bars, about = chart.encode(x=layer, y=kept), "Rows that every layer keeps"
    return board([bars], [step, share, known, now], _WIDTHS_SAY, about=about)


# %% tags=["active-ipynb"]
# stored = table["0.3"]["costs"]
# names = {"0": "α = 0", "1": "α = 1", "inf": "α = ∞"}
# widths = {label: stored[alpha]["widths"] for alpha, label in names.items()}
# with playable(play_widths(table)) as ax:
#     plot_widths(ax, widths)
# assert len({sum(kept) for kept in widths.values()}) == 1

# %% [markdown]
# **Figure (fig-layer-budgets-widths).** <a id="fig-layer-budgets-widths"></a> Rows that each layer of the small real model keeps when the widths share Fisher costs. The fairer they are, the more rows go to the layers in the middle, whose costs are small. On paper: three fairness parameters, with 30 % of the rows removed.
#
# Two small models and a few short texts stand behind all of this.
#
# How far from concave is the re-fit value?
# Its distance from the least concave function above it, and what the certificate says was missed:

# %% tags=["active-ipynb"]
# far = np.array(table["concavity"])
# gaps = [row["gap"] for a, row in table["0.3"]["re-fit"].items()]
# print(f"distance: median {np.median(far):.3f}, largest {far.max():.2f} of the output")
# print(f"largest gap of the utility: {max(gaps):.1e}")
# assert max(gaps) < 2e-4 < far.max() and round(max(gaps), 5) == 0.00015
# assert max(row["gap"] for row in table["0.3"]["costs"].values()) < 1e-9

# %% [markdown]
# In some layers it is far from concave, by up to 0.30 of the output; the widths found are optimal all the same, up to 0.00015 utility units.

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# by_alpha = {a: x.mean() for a, x in kl["SmolLM2, 30 %"].items()}
# Quiz(
#     "The rows of the small model are shared by Fisher costs. Which α leaves the model "
#     "that is nearest to the dense one?",
#     right=f"{min(by_alpha, key=by_alpha.get)}",
#     because="Small divergences about add up, so the sum of what is kept counts.",
#     wrong={
#         "1": "Then a layer that has little is favoured, even if it matters little.",
#         "∞": "The poorest layer has most, and the divergence is almost twice as large.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# apart = refit_values(torch.tensor([[1.0, -1.0]]), H, torch.tensor([1, 0]), ridge=1e-9)
# Quiz(
#     "A neuron alone gives back nothing of a block's output. Is it worthless?",
#     right="no" if apart[2] - apart[0] > 0.99 and apart[1] < 1e-6 else "yes",
#     because="With a second one it may give back everything: values may be convex.",
#     wrong={
#         "yes": "So a pruner would think that adds neurons one by one.",
#         "yes, if it is small": "Size says little: here it adds nine tenths of the "
#         "output to what the other neuron gives back.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# unequal = share_rows([[0, 1, 1.9], [0, 1, 1.5, 1.81]], 7, 0, sizes=[3, 1])
# Quiz(
#     f"Rows have different sizes, and the certificate says {unequal.gap:.2f}. What do "
#     "we know of the widths?",
#     right=f"others may be better, by at most {unequal.gap:.2f}",
#     because="The gap bounds what was missed; here it is 0.09.",
#     wrong={
#         f"others are better by {unequal.gap:.2f}": "The bound need not be reached.",
#         "nothing": "A price bounds the utility of all widths at once.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-layer-budgets-0"></a>
# Write greedy widths for concave values at $\alpha = 0$: begin with one row in each layer, and give each further row to the layer that gains most by it, until `budget` rows are given.
# `values` holds a vector for each layer, $V_l(0), V_l(1), \dots$
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# Keep a list of widths.
# In a loop compute the gain `v[k + 1] - v[k]` of every layer that has a row left, and add one to the width of the best.
#
# </details>

# %% tags=["active-ipynb"]
# def greedy_widths(values, budget):
#     """Rows of every layer, shape (L,)."""
#     # your lines
#
#
# def ours(values, budget):
#     return share_rows(values, budget, 0).widths
#
#
# three = [np.array(v) for v in ([0, 4, 7, 9, 10], [0, 2, 3, 3.5], [0, 6, 11])]
# check_answer(greedy_widths, ours, (three, 5), (three, 3), (three, 8))

# %% [markdown]
# <details><summary>Solution</summary>
#
# With five rows the first layer gets two, the second one and the third two: after the first rows the largest gains are 5 and 3.
# `share_rows` sorts all gains at once, which is the same because they do not increase within a layer.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def greedy_widths(values, budget):
#     """Rows of every layer, shape (L,)."""
#     kept = [1] * len(values)
#     while sum(kept) < budget:
#         gains = [np.diff(v)[k] if k + 1 < len(v) else -1 for v, k in zip(values, kept)]
#         kept[np.argmax(gains)] += 1
#     return kept
#
#
# assert check_answer(greedy_widths, ours, (three, 5), (three, 3), (three, 8))

# %% [markdown]
# **Exercise ★.** <a id="ex-layer-budgets-1"></a>
# By hand: two layers of two rows have the costs $(4, 3)$ and $(1, 1)$, three rows may stay, and each layer keeps one.
# Which layer gets the third row at $\alpha = 0$ and at $\alpha = \infty$?
#
# <details><summary>Solution</summary>
#
# At 0 the first, which gains 3; at infinity the second, which has 1 where the first has 4.
#
# </details>

# %% tags=["active-ipynb"]
# pair = [kept_costs([4, 3]), kept_costs([1, 1])]
# assert share_rows(pair, 3, 0).widths.tolist() == [2, 1]
# assert share_rows(pair, 3, np.inf).widths.tolist() == [1, 2]

# %% [markdown]
# **Exercise ★★.** <a id="ex-layer-budgets-2"></a>
# Break an assumption: rows of the first layer have three parameters, those of the second one, and seven parameters may stay.
# The costs are $(1, 0.9)$ and $(1, 0.5, 0.31)$.
# Is greedy by gain a parameter still optimal?
#
# <details><summary>Solution</summary>
#
# No: it keeps one row and three, worth 2.81, and a parameter is left over; two rows and one are worth 2.9.
# The certificate is larger than 0 and bounds what was missed.
#
# </details>

# %% tags=["active-ipynb"]
# pair = [kept_costs([1, 0.9]), kept_costs([1, 0.5, 0.31])]
# found = share_rows(pair, 7, 0, sizes=[3, 1])
# assert found.widths.tolist() == [1, 3] and 0.09 <= found.gap < 0.4
# assert row_certificate(pair, [1, 3], 7, 0, price=0.3, sizes=[3, 1]) >= found.gap - 1e-9

# %% [markdown]
# ## What you can do now
#
# Widths are an allocation, and greedy solves it, with a certificate.
# For Fisher costs the sum is the right objective: with 30 % of the rows removed the small model is 0.521 nats a token from the dense one, 0.656 with equal widths and 0.955 if the poorest layer alone counts.
# There fairness among layers takes at most 4.5 % from the sum of the costs, and even that matters.
# With half of the rows removed a little fairness costs nothing that can be seen on the models' own texts, and on WikiText-2 it helps one of them.
#
# - Say what rows are worth: `kept_costs`, `refit_values`, `marginal_gains`.
# - Share them: `share_rows` (`Budget`), and judge any widths by a price: `row_certificate`.
# - Draw what it brings: `plot_by_alpha`.
#
# Next: [Online budgets](online_budgets.ipynb) learns the rows text by text, so that no kind of text is forgotten.
