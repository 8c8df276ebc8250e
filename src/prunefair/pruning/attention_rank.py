# %% [markdown]
r"""
# Attention rank: where to cut besides neurons

So far only neurons have gone, and in the small real model a quarter of every block is attention.
Is a parameter of attention worth more than one of a neuron, as the paper says?
This chapter gives every part one kind of cost and spends one budget over neurons, the rank of values and whole attention sublayers.

On the model's own text, cutting some values and fewer neurons leaves the model a little nearer to the dense one: a tenth to a fifth less divergence.
Cutting whole attention sublayers instead of neurons more than doubles the divergence.
On another, longer text neurons alone are soon the better choice: with 18 % of all parameters gone the perplexity is 30.9, and 42.8 if values go too.
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it fetches the book, installs the package
# # and goes to the folder of this chapter.
# import sys
#
# if "google.colab" in sys.modules:
#     !git clone --quiet --depth 1 https://github.com/prunefair/prunefair /content/book
#     %pip install --quiet "/content/book"
#     %cd -q /content/book/book/pruning

# %%
from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from tqdm import tqdm

from prunefair.models import check_tokens, measuring
from prunefair.pruning.functional_policy import FisherSum, fisher_sums
from prunefair.pruning.reconstruction import set_maps_
from prunefair.pruning.refit import find_ridge, mean_moments, refit_down
from prunefair.pruning.self_moments import (
    BATCH,
    Moments,
    hidden_sums,
    summed_moments,
)
from prunefair.pruning.surgery import adapter_for, ffn_slices, sharing_copy

# %% tags=["active-ipynb"]
# import json
# from pathlib import Path
#
# import numpy as np
# from scipy.optimize import Bounds, LinearConstraint, milp
# from scipy.stats import spearmanr
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.plotting import figure
# from prunefair.pruning.estimates import standard_error
# from prunefair.pruning.self_moments import plot_by_layer
# from prunefair.pruning.surgery import tiny_model

# %% tags=["active-ipynb"]
# SEED = 67
# generator = torch.Generator().manual_seed(SEED)
# table = json.loads(Path("../results/attention_rank.json").read_text())

# %% [markdown]
# Values of length two that are read by two heads show what has to be agreed on.
# Each cloud is what one head gathers; look at how far the points are moved to the one line that is kept.

# %% tags=["active-ipynb"]
# from prunefair.pruning import attention_rank as package
#
# apart = torch.Generator().manual_seed(3)
# clouds = torch.randn(2, 40, 2, generator=apart).double() * torch.tensor([2.0, 0.5])
# turns = [torch.tensor([[c, s], [-s, c]]).double() for c, s in ((0.9, 0.44), (0.6, 0.8))]
# gathered = [cloud @ turn for cloud, turn in zip(clouds, turns)]
# with figure(2, n_columns=2, sharex=True, sharey=True, figsize=(5.6, 3.0)) as axes:
#     package.plot_shared_value(axes, gathered)

# %% [markdown]
# **Figure (fig-attention-rank-shared).** <a id="fig-attention-rank-shared"></a> Two heads that share a value of length two, of which one number is to be kept. Coloured: what each head gathers. Black: what is left of it, all on the one line that the heads share. It suits both a little and neither quite, because they gather along different directions.

# %% [markdown]
# ## Notation
#
# One value head gives each token a vector of length $d_h$, and a set $\mathcal I$ of query heads shares it.
# Head $i \in \mathcal I$ mixes these vectors by its attention weights to $z_i \in \mathbb R^{d_h}$, and $O_i \in \mathbb R^{d \times d_h}$, its columns of the output map, writes $O_i z_i$ to the residual stream.
# $Z_i = \mathbb E\, z_i z_i^\top$ is a second moment on text that the model samples itself, $r \le d_h$ the rank that stays.

# %% [markdown]
# ## The best values of rank $r$
#
# What head $i$ writes is linear in $z_i$, and $z_i$ is linear in the values.
# So a value may be replaced by $r$ numbers, $E \in \mathbb R^{r \times d_h}$ times it, that every head of $\mathcal I$ mixes as before and reads with a matrix of its own, $F_i \in \mathbb R^{d \times r}$.
# $E$ is multiplied into the value map, and the cache of values shrinks with it.
#
# The heads that share a value share $E$.
# With
#
# <a id="eq-attention-rank-basis"></a>
# $$
# \begin{gathered}
# M = \sum_{i \in \mathcal I} O_i^\top O_i, \qquad \bar Z = \tfrac{1}{|\mathcal I|} \sum_{i \in \mathcal I} Z_i ,\\
# M^{1/2} \bar Z M^{1/2} = Y \operatorname{diag}(\lambda)\, Y^\top ,
# \end{gathered}
# $$ (eq-attention-rank-basis)
#
# eigenvalues $\lambda$ in descending order and $M$ invertible, let $\Omega = Y^\top M^{1/2}$.
# The *closed form* of rank $r$ takes the first $r$ rows of $\Omega$ as $E$ and the first $r$ columns of $O_i\, \Omega^{-1}$ as $F_i$.
# In these coordinates the components of a value are uncorrelated and ordered by how much of the output they carry.
#
# Is it the best choice of $r$ numbers?
# For a head that has its value to itself it is, and what it loses can be read off the eigenvalues.
#
# **Theorem (One head, one value).** <a id="thm-attention-rank-one"></a>
# If $\mathcal I = \{i\}$, the closed form is optimal:
#
# $$
# \min_{F, E}\; \mathbb E\, \lVert (O_i - F E)\, z_i \rVert^2 = \sum_{j > r} \lambda_j ,
# $$ (eq-attention-rank-one)
#
# and $\lambda$ are the eigenvalues of the second moment of what the head writes.
#
# **Proof.**
# The error is $\lVert O_i Z_i^{1/2} - F E Z_i^{1/2} \rVert_F^2$, and the second matrix has at most rank $r$.
# By Eckart and Young ([Horn and Johnson 2013](../references.bib#hornjohnson2013matrix)) it is at least the sum of the squares of all but the $r$ largest singular values of $O_i Z_i^{1/2}$.
# These squares are the eigenvalues of $O_i Z_i O_i^\top$, and, zeros aside, of $Z_i^{1/2} M Z_i^{1/2}$ and $M^{1/2} Z_i M^{1/2}$.
# The closed form has $O_i - F E = O_i\, \Omega^{-1} (I - I_r)\, \Omega$ with $I_r$ the first $r$ ones of the identity.
# $O_i \Omega^{-1}$ has orthonormal columns and $\Omega Z_i \Omega^\top = \operatorname{diag}(\lambda)$, so its error is $\operatorname{tr}\bigl((I - I_r) \operatorname{diag}(\lambda)\bigr)$. ∎
#
# In words: at rank $r$ a head loses the energy of the directions in which it writes least, and no other choice of $r$ numbers loses less.
# This is regression of reduced rank, as [Lin et al. (2025)](../references.bib#lin2025modegpt) use it with calibration data.
#
# Heads that share a value ([Ainslie et al. 2023](../references.bib#ainslie2023gqa)) need not agree on what may go.
# What is left of the optimality then?
#
# **Theorem (Shared values).** <a id="thm-attention-rank-shared"></a>
# Let $e_i = (O_i - F_i E)\, z_i$.
#
# 1. If all $Z_i$ are equal, the closed form minimises $\sum_i \mathbb E\, \lVert e_i \rVert^2$, and the minimum is $\sum_{j > r} \lambda_j$.
# 2. In general no reduction has a smaller $\sum_i \mathbb E\, \lVert e_i \rVert^2$ than $\sum_i \sum_{j > r} \lambda_j(O_i Z_i O_i^\top)$, and that of the closed form is at most $|\mathcal I| \sum_{j > r} \lambda_j$.
# 3. The error of what these heads say together, $\mathbb E\, \lVert \sum_i e_i \rVert^2$, is at most $|\mathcal I| \sum_i \mathbb E\, \lVert e_i \rVert^2$. For the whole sublayer sum over the heads of all its values, and take their number in the place of $|\mathcal I|$.
#
# **Proof.**
# (1) Stack the $O_i$: with one moment $Z$ for all heads the sum is $\mathbb E\, \lVert (O - F E)\, z \rVert^2$, the problem of one head with $O^\top O = M$.
#
# (2) Below: each head alone cannot do better with rank $r$ than [Theorem (One head, one value)](#thm-attention-rank-one) says.
# Above: let $N = \Omega^{-1} (I - I_r)\, \Omega$.
# All terms being at least 0, $\sum_i \operatorname{tr}(O_i N Z_i N^\top O_i^\top) \le \sum_{i, k} \operatorname{tr}(O_i N Z_k N^\top O_i^\top) = |\mathcal I| \operatorname{tr}(M N \bar Z N^\top)$, which is $|\mathcal I| \sum_{j > r} \lambda_j$ as before.
#
# (3) is the inequality of Cauchy and Schwarz. ∎
#
# In words: with shared values the closed form is optimal if the heads gather alike.
# Otherwise it loses at most $|\mathcal I|$ times its tail of eigenvalues, and an $E$ may exist that serves all heads better.
# [Exercise (ex-attention-rank-1)](#ex-attention-rank-1) has a case where it loses all that the bound allows while another choice loses nothing.


# %%
class ValueBasis(NamedTuple):
    r"""Coordinates of the values in which the last ones go first.

    Attributes
    ----------
    into : Tensor, shape (n_values, width, width), float64
        $\Omega$ of every value head: new coordinates from old ones.
    back : Tensor, shape (n_values, width, width), float64
        Its inverse, or where the output map leaves a direction out, what undoes it for
        the others.
    energies : Tensor, shape (n_values, width), float64
        $\lambda$, descending; squared output units.
    """

    into: torch.Tensor
    back: torch.Tensor
    energies: torch.Tensor


# %%
def value_basis(O: torch.Tensor, Z: torch.Tensor, shape) -> ValueBasis:
    r"""Basis in which the first $r$ coordinates of a value are the closed form.

    Parameters
    ----------
    O : Tensor, shape (d, n_values * shared * width), any floating type
        Output map of an attention sublayer; weight units.
    Z : Tensor, shape (n_values * shared * width,) twice
        Second moment of its input; squared activations.
    shape : tuple of three int
        Value heads, query heads that share one, and width of a head.

    Returns
    -------
    basis : ValueBasis

    Raises
    ------
    ValueError
        If `O` or `Z` does not fit `shape`.

    References
    ----------
    Book {eq}`eq-attention-rank-basis`.
    """
    n_values, shared, width = shape
    size = n_values * shared * width
    if O.shape[1:] != (size,) or Z.shape != (size, size):
        raise ValueError(
            f"O and Z have shapes {tuple(O.shape)} and {tuple(Z.shape)}; with heads of "
            f"shape {tuple(shape)} they must be (d, {size}) and ({size}, {size})"
        )
    parts = O.detach().double().view(-1, *shape)
    M = torch.einsum("dgia,dgib->gab", parts, parts)
    blocks = Z.to(M).view(*shape, *shape)
    mean = torch.einsum("giagib->gab", blocks) / shared
    values, Q = torch.linalg.eigh(M)
    alive = values > torch.finfo(O.dtype).eps * values[:, -1:]
    root = values.clamp(min=0).sqrt()
    inverse = torch.where(alive, 1 / root, 0.0)
    root, inverse = (torch.einsum("gab,gb,gcb->gac", Q, s, Q) for s in (root, inverse))
    energies, Y = torch.linalg.eigh(root @ mean @ root)
    Y = Y.flip(-1)
    return ValueBasis(Y.mT @ root, inverse @ Y, energies.flip(-1).clamp(min=0))


# %% [markdown]
# The next function draws [Figure (fig-attention-rank-shared)](#fig-attention-rank-shared), at the head of this chapter.


# %%
def plot_shared_value(axes, gathered, shape=(1, 2, 2)):
    """What two heads gather, and what a value of rank one leaves of it."""
    z = torch.cat(gathered, 1)
    basis = value_basis(torch.eye(4).double(), z.T @ z / len(z), shape)
    keep = basis.back[0][:, :1] @ basis.into[0][:1]
    for i, (ax, points) in enumerate(zip(axes, gathered)):
        left = points @ keep.T
        for ends in zip(points, left):
            ax.plot(*torch.stack(ends).T, color="0.75", lw=0.8, ls="-")
        ax.plot(*points.T, "o", color=f"C{i}", ms=4)
        ax.plot(*left.T, "ko", ms=2)
        lost = (points - left).square().sum() / points.square().sum()
        words = f"head {i}: {100 * lost:.0f} % of the energy lost"
        ax.set(xlabel=words, aspect="equal")
    axes[0].set(ylabel="second number of the value")
    return axes


# %% [markdown]
# The check takes one head, data in the place of moments, and least squares that alternates between $E$ and $F$ from a random start and knows no eigenvalues.

# %% tags=["active-ipynb"]
# O = torch.randn(8, 6, generator=generator).double()
# z = torch.randn(60, 6, generator=generator).double() * 3.0 ** -torch.arange(6)
# basis = value_basis(O, z.T @ z / 60, (1, 1, 6))
# for r in range(1, 6):
#     E = torch.randn(r, 6, generator=generator).double()
#     for _ in range(60):
#         F = torch.linalg.lstsq(z @ E.T, z @ O.T).solution.T
#         E = torch.linalg.lstsq(F, O).solution
#     least = (z @ (O - F @ E).T).square().sum() / 60
#     closed = O - O @ basis.back[0][:, :r] @ basis.into[0][:r]
#     torch.testing.assert_close((z @ closed.T).square().sum() / 60, least)
#     torch.testing.assert_close(basis.energies[0, r:].sum(), least)


# %% [markdown]
# Now three heads with moments of their own.
# $E$ is sought by descent from several starts, each time with the best $F_i$.
# What it loses is compared with both bounds, with the closed form, and with the closed form's $E$ when every head reads it by least squares (*re-fitted*).

# %% tags=["active-ipynb"]
# def best(parts, moments, E):
#     """What E loses, with the best way to read it for every head."""
#     gone = [C - C @ E.T @ torch.linalg.solve(E @ C @ E.T, E @ C) for C in moments]
#     return sum((A @ G * A).sum() for A, G in zip(parts, gone, strict=True))
# def descended(parts, moments, E):
#     E = E.clone().requires_grad_()
#     search = torch.optim.LBFGS([E], max_iter=300, line_search_fn="strong_wolfe")
#     def loss():
#         search.zero_grad()
#         (value := best(parts, moments, E)).backward()
#         return value
#     search.step(loss)
#     return float(best(parts, moments, E).detach())

# %% tags=["active-ipynb"]
# r = 2
# def three_heads(own):
#     """Output maps and moments of three heads, and what the closed form loses."""
#     O = torch.randn(6, 12, generator=generator).double()
#     z, x = torch.randn(2, 60, 4, generator=generator).double()
#     moments = [(z + own * x.roll(i, 1) ** 3) for i in range(3)]
#     moments = [y.T @ y / 60 for y in moments]
#     basis = value_basis(O, torch.block_diag(*moments), (1, 3, 4))
#     N, parts = basis.back[0][:, r:] @ basis.into[0][r:], O.split(4, 1)
#     pairs = zip(parts, moments, strict=True)
#     closed = sum(float((A @ N @ C * (A @ N)).sum()) for A, C in pairs)
#     tail = float(basis.energies[0, r:].sum())
#     return parts, moments, basis.into[0][:r], closed, tail

# %% tags=["active-ipynb"]
# for own in (0.0, 0.5, 3.0):  # how much of what a head gathers is its own
#     *heads, E, closed, tail = three_heads(own)
#     starts = [E, *torch.randn(8, r, 4, generator=generator).double()]
#     found = min(descended(*heads, start) for start in starts)
#     spectra = [torch.linalg.eigvalsh(A @ C @ A.T) for A, C in zip(*heads)]
#     least, fitted = sum(float(s[:-r].sum()) for s in spectra), float(best(*heads, E))
#     print(f"own {own}: at least {least:.3f}, found {found:.3f}, closed form")
#     print(f"    {closed:.3f}, re-fitted {fitted:.3f}, tail {tail:.3f} and 3 times it")
#     assert least <= found + 1e-9 <= fitted + 2e-9 <= closed + 3e-9 <= 3 * tail + 4e-9
#     assert own or abs(closed - tail) + abs(found - tail) < 1e-6
#     assert not own or found < 0.99 * closed
# assert round(closed / found, 1) == 1.5

# %% [markdown]
# Where the heads gather alike, descent finds nothing better than the closed form.
# Where most of what a head gathers is its own, the closed form loses half as much again as the best that descent finds.

# %% [markdown]
# ## From a model to one with narrower values
#
# Families whose values have a linear map of their own can be treated alike; biases of values turn with them.
#
# What a narrower value saves, no `LlamaForCausalLM` can store: its one `head_dim` is the width of queries, keys and values.
# Some formats have a width for values alone, as `v_head_dim` of DeepSeek's configurations.
# So the function below returns a model of the old shapes, with zeros in the rows of the value map and the columns of the output map that are gone.
# What this chapter counts is what a format with a width of its own would save.
# The same goes for attention sublayers that are dropped: their output maps are zero.


# %%
class Attention(NamedTuple):
    """Linear maps of an attention sublayer that the values pass."""

    module: torch.nn.Module
    values: torch.nn.Linear
    output: torch.nn.Linear
    shape: tuple[int, int, int]  # value heads, query heads on each, width of a head


# %%
def attention_sublayers(model) -> list[Attention]:
    """Attention sublayers of a model, in order.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of a supported family.

    Returns
    -------
    sublayers : list of L Attention

    Raises
    ------
    ValueError
        If the family is not supported or keeps values and queries in one matrix.
    """
    layers = model.base_model.get_submodule(adapter_for(model).layers)
    heads, found = model.config.num_attention_heads, []
    for layer in layers:
        module = getattr(layer, "self_attn", None)
        outputs = [getattr(module, n, None) for n in ("o_proj", "out_proj", "dense")]
        maps = [getattr(module, "v_proj", None), *filter(None, outputs)]
        if len(maps) != 2 or not all(type(m) is torch.nn.Linear for m in maps):
            raise ValueError(
                f"model is of the family {model.config.model_type!r}, whose values "
                "have no plain matrix of their own; give one with v_proj"
            )
        values, output = maps
        width = output.in_features // heads
        n_values = values.out_features // width
        shape = n_values, heads // n_values, width
        found.append(Attention(module, values, output, shape))
    return found


# %%
@torch.no_grad()
def attention_moments(
    model, tokens: torch.Tensor, *, batch_size: int = BATCH
) -> Moments:
    """Moments of what all heads of every attention sublayer have gathered.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of a family that `attention_sublayers` knows.
    tokens : Tensor, shape (n, N), int64
        Texts, best sampled by `model` itself.
    batch_size : int
        Texts in one forward pass.

    Returns
    -------
    moments : Moments
        Of the input of the output map, of shape (heads * width,).

    Raises
    ------
    ValueError
        If `tokens` is not a matrix of the model's tokens, or the family is not one of
        those.
    """
    check_tokens(tokens, model)
    linears = [each.output for each in attention_sublayers(model)]
    with hidden_sums(linears) as sums, measuring(model, length=tokens.shape[1]):
        for chunk in tqdm(tokens.split(batch_size), "moments"):
            model(chunk.to(model.device), use_cache=False, logits_to_keep=1)
    return summed_moments(sums, tokens.numel())


# %%
class _Turned(NamedTuple):
    """An attention sublayer whose values are in the coordinates of a basis."""

    values: torch.Tensor  # weight
    bias: torch.Tensor | None
    output: torch.Tensor  # weight
    turn: torch.Tensor  # what all heads have gathered, from old coordinates to new


# %%
def _turned(attention: Attention, basis: ValueBasis) -> _Turned:
    shape, V = attention.shape, attention.values.weight.detach().double()
    into, back = (x.to(V) for x in basis[:2])
    bias = attention.values.bias
    if bias is not None:
        bias = torch.einsum("gab,gb->ga", into, bias.double().view(shape[0], -1))
        bias = bias.flatten()
    values = (into @ V.view(shape[0], shape[2], -1)).flatten(0, 1)
    O = attention.output.weight.detach().double().view(-1, *shape)
    output = torch.einsum("dgia,gab->dgib", O, back).flatten(1)
    turn = torch.block_diag(*into.repeat_interleave(shape[1], 0))
    return _Turned(values, bias, output, turn)


# %%
def _in_turn(moments: Moments, layer: int, turn: torch.Tensor) -> tuple:
    """Second moment and mean of a layer, in the new coordinates."""
    second, mean = (x[layer].to(turn) for x in moments[:2])
    return turn @ second @ turn.T, turn @ mean


# %%
def _kept(shape, rank, layer: int) -> torch.Tensor:
    """Coordinates that stay of each value head, (n_values, width), at some ranks."""
    n_values, _, width = shape
    rank = torch.as_tensor(rank).expand(n_values)
    if rank.is_floating_point() or rank.min() < 0 or rank.max() > width:
        raise ValueError(
            f"ranks[{layer}] is {rank.tolist()}; give whole numbers from 0 to {width}"
        )
    return torch.arange(width) < rank[:, None]


# %%
def _columns(kept: torch.Tensor, shape) -> torch.Tensor:
    """Columns of the output map that read them, for all heads."""
    return kept[:, None].expand(shape).flatten()


# %%
@torch.no_grad()
def value_output_reduction(
    model, moments: Moments, ranks: Sequence, *, ridge: float | None = None
):
    """Model whose value heads have smaller ranks; `model` itself is not changed.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of a family that `attention_sublayers` knows.
    moments : Moments
        What `attention_moments` has found.
    ranks : sequence of L int, or of L vectors of shape (n_values,)
        Coordinates that stay: of every value head of a layer, or of each.
    ridge : float, optional
        Re-fit the output map to them, as `refit_down` does; left out by default.

    Returns
    -------
    reduced : transformers.PreTrainedModel
        Of the same shapes: rows of the value map and columns of the output map are
        zero where a coordinate has gone.  A layer of full rank is as it was.

    Raises
    ------
    ValueError
        If `ranks` has not an entry for every layer, or one is outside [0, width].

    References
    ----------
    Book {eq}`eq-attention-rank-basis`.
    """
    reduced = sharing_copy(model)
    sublayers = attention_sublayers(reduced)
    if len(ranks) != len(sublayers):
        raise ValueError(
            f"ranks has {len(ranks)} entries and the model {len(sublayers)} layers"
        )
    for layer, (attention, rank) in enumerate(zip(sublayers, ranks, strict=True)):
        kept = _kept(attention.shape, rank, layer)
        if not kept.all():
            _reduce_(attention, moments, layer, kept, ridge)
    return reduced


# %%
def _reduce_(attention: Attention, moments, layer: int, kept, ridge) -> None:
    """Let one sublayer have the coordinates that stay only."""
    basis = value_basis(attention.output.weight, moments.second[layer], attention.shape)
    turned, columns = _turned(attention, basis), _columns(kept, attention.shape)
    rows = kept.flatten().to(turned.values)
    output, bias = turned.output * columns.to(rows), attention.output.bias
    if ridge is not None and columns.any():
        H, mean = _in_turn(moments, layer, turned.turn)
        mean = None if bias is None else mean
        S = columns.nonzero()[:, 0]
        fit = refit_down(turned.output, H, S, ridge=ridge, mean=mean)
        output[:, S.to(output.device)] = fit.weight
        bias = None if bias is None else bias + fit.shift
    dtype = attention.values.weight.dtype
    given = (turned.values * rows[:, None], turned.bias), (output, bias)
    if turned.bias is not None:
        given = (given[0][0], turned.bias * rows), given[1]
    maps = [tuple(None if x is None else x.to(dtype) for x in each) for each in given]
    set_maps_([attention.values, attention.output], maps)


# %%
def value_ridge(model, halves: Sequence[Moments], ranks: Sequence) -> float:
    """Ridge whose re-fit of the output maps on one half errs least on the other.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of a family that `attention_sublayers` knows.
    halves : two Moments
        What `attention_moments` has found on two halves of the texts.
    ranks : sequence
        See `value_output_reduction`; some value must lose and keep a coordinate.

    Returns
    -------
    ridge : float
        See `find_ridge`.
    """
    moments, found = mean_moments(halves), []
    for layer, attention in enumerate(attention_sublayers(model)):
        columns = _columns(_kept(attention.shape, ranks[layer], layer), attention.shape)
        if columns.any() and not columns.all():
            O, H = attention.output.weight, moments.second[layer]
            turned = _turned(attention, value_basis(O, H, attention.shape))
            pairs = [_in_turn(half, layer, turned.turn) for half in halves]
            found.append((turned.output, pairs, columns.nonzero()[:, 0]))
    weights, pairs, kept = zip(*found, strict=True)
    turned = [
        Moments(*zip(*(pair[i] for pair in pairs), strict=True), half.tokens)
        for i, half in enumerate(halves)
    ]
    biased = attention_sublayers(model)[0].output.bias is not None
    return find_ridge(weights, turned, kept, biased=biased)[0]


# %%
@torch.no_grad()
def without_attention(model, dropped: Sequence[int]):
    """Model in which some attention sublayers add nothing; `model` is not changed.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of a family that `attention_sublayers` knows.
    dropped : sequence of int
        Layers, counted from 0.

    Returns
    -------
    smaller : transformers.PreTrainedModel
        Of the same shapes: the output maps of these layers are zero.
    """
    smaller = sharing_copy(model)
    sublayers = attention_sublayers(smaller)
    for layer in dropped:
        output = sublayers[layer].output
        zeros = [None if x is None else 0 * x for x in (output.weight, output.bias)]
        set_maps_([output], [zeros])
    return smaller


# %% [markdown]
# The check: what the first sublayer of a tiny model with one head writes, before and after, for every rank; and rank 0 is a sublayer that is dropped.

# %% tags=["active-ipynb"]
# some = torch.randint(3, 32, (20, 10), generator=generator)
# def written(model):
#     seen, output = [], attention_sublayers(model)[0].output
#     hook = output.register_forward_hook(lambda _, x, y: seen.append(y.detach()))
#     model(some)
#     hook.remove()
#     return seen[0].flatten(0, 1)

# %% tags=["active-ipynb"]
# options = {"generator": generator, "num_attention_heads": 1}
# small = tiny_model("qwen2", **options, num_key_value_heads=1)
# moments, (first, _) = attention_moments(small, some), attention_sublayers(small)
# shape = first.shape
# energies = value_basis(first.output.weight, moments.second[0], shape).energies[0]
# whole = written(small)
# for r in range(shape[2] + 1):
#     reduced = value_output_reduction(small, moments, [r, shape[2]])
#     lost = (written(reduced) - whole).square().sum(1).mean().double()
#     torch.testing.assert_close(lost, energies[r:].sum(), rtol=1e-3, atol=1e-4)
# torch.testing.assert_close(written(without_attention(small, [0])), 0 * whole)

# %% [markdown]
# ## One cost for every kind of part
#
# How do a neuron, a coordinate of a value and a whole sublayer compare?
# The errors of their outputs cannot be compared: an error in a late layer counts otherwise than one in an early layer.
# The divergence of the model without each part could, but there are 50 000 parts.
#
# [Theorem (The cost of a neuron is a mean square on the model's own text)](functional_policy.ipynb#thm-functional-policy-fisher) needs of a neuron only that it is a summand of what is written to the residual stream.
# So it holds for every such summand, $y_t$ at position $t$: with $g_t$ the gradient of the log-likelihood of the text at the stream,
#
# <a id="eq-attention-rank-cost"></a>
# $$
# \begin{gathered}
# f = \frac1T \sum_t \mathbb E\, (y_t^\top g_t)^2, \qquad y_t = D_{:j}\, h_{tj},\\
# \textstyle\sum_{i \in \mathcal I} (O_i \Omega^{-1})_{:j}\, (\Omega z_{ti})_j \quad \text{or} \quad \sum_i O_i z_{ti}
# \end{gathered}
# $$ (eq-attention-rank-cost)
#
# for a neuron, a coordinate of a value and a whole sublayer.
# All have one unit, nats squared, and half of $f$ is to second order the divergence, in nats a token, when the part is scaled down at one position.
# That is why we take it; how far it can be trusted for a part as large as a sublayer is measured below.


# %%
class PartCosts(NamedTuple):
    """Fisher costs of all that can be cut, nats squared; one entry a layer each."""

    neurons: list[torch.Tensor]  # (m,)
    values: list[torch.Tensor]  # (n_values, width)
    sublayers: list[float]


# %%
class AttentionSum(FisherSum):
    """Sums of squares for the coordinates of values, and for the whole sublayer.

    Parameters
    ----------
    attention : Attention
    basis : ValueBasis
    """

    def __init__(self, attention: Attention, basis: ValueBasis):
        super().__init__(attention.output)
        n_values, _, width = self.shape = attention.shape
        self.total = self.total.new_zeros(n_values, width)
        self.into, self.back = (x.to(self.total) for x in basis[:2])
        self.whole = 0.0

    def add(self, h: torch.Tensor, gradient: torch.Tensor) -> None:
        """Add the tokens of one pass."""
        z, g = (x.float().reshape(-1, *self.shape) for x in (h, gradient))
        c = torch.einsum("tgia,gba->tgib", z, self.into)
        c = c * torch.einsum("tgia,gab->tgib", g, self.back)
        c = c.sum(2)  # of the heads that share a value
        self.total += c.square().sum(0)
        self.whole += float(c.sum((1, 2)).square().sum())


# %%
def part_costs(
    model, texts: torch.Tensor, moments: Moments, *, batch_size: int = BATCH
) -> PartCosts:
    """Fisher costs of neurons, of coordinates of values and of attention sublayers.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of a family that `attention_sublayers` knows; it is not changed.
    texts : Tensor, shape (n, N), int64
        Sampled by `model`.
    moments : Moments
        What `attention_moments` has found.
    batch_size : int
        Texts in one forward and backward pass.

    Returns
    -------
    costs : PartCosts

    References
    ----------
    Book {eq}`eq-attention-rank-cost`.
    """
    sublayers, n = attention_sublayers(model), texts.numel()
    with contextlib.ExitStack() as stack:
        neurons, add = stack.enter_context(fisher_sums(model, texts.shape[1]))
        sums = []
        for attention, Z in zip(sublayers, moments.second, strict=True):
            basis = value_basis(attention.output.weight, Z, attention.shape)
            sums.append(stack.enter_context(AttentionSum(attention, basis)))
        for chunk in tqdm(texts.split(batch_size), "Fisher costs"):
            add(chunk)
    values = [each.mean(n) for each in sums]
    return PartCosts(
        [each.mean(n) for each in neurons], values, [each.whole / n for each in sums]
    )


# %% [markdown]
# The check takes the scores of a tiny model apart: automatic differentiation with respect to a factor on each part, one position at a time.

# %% tags=["active-ipynb"]
# small = tiny_model("llama", generator=generator, num_key_value_heads=1)
# moments = attention_moments(small, some)
# costs = part_costs(small, some, moments)
# attention = attention_sublayers(small)[1]
# basis = value_basis(attention.output.weight, moments.second[1], attention.shape)
# _, shared, width = attention.shape
# factor = torch.ones(*some.shape, width, requires_grad=True)
# def scaled(_, given):
#     turned = given[0].unflatten(-1, (shared, width)) @ basis.into[0].T.float()
#     return ((turned * factor[:, :, None]) @ basis.back[0].T.float()).flatten(-2)

# %% tags=["active-ipynb"]
# hook = attention.output.register_forward_pre_hook(scaled)
# small(some).logits.log_softmax(-1)[:, :-1].gather(2, some[:, 1:, None]).sum().backward()
# hook.remove()
# c = factor.grad.flatten(0, 1)  # the score of each coordinate at each position
# torch.testing.assert_close(costs.values[1][0], c.square().mean(0), rtol=1e-3, atol=1e-6)
# whole = float(c.sum(1).square().mean())
# assert abs(costs.sublayers[1] / whole - 1) < 1e-3

# %% [markdown]
# ## One price for every parameter
#
# Which parts should go, if together they must save a number of parameters?
# To try all sets is out of the question.
# A *price* $\tau$ makes it easy: a part goes if it costs less than $\tau$ for each parameter that it saves.
#
# Let a set $R$ of parts cost $C(R)$, the sum of their costs, and save $P(R)$ parameters; a sublayer that goes as a whole has a cost of its own and takes its values along.
#
# **Theorem (One price).** <a id="thm-attention-rank-price"></a>
# Let $R_\tau$ minimise $C(R) - \tau P(R)$ for a price $\tau \ge 0$ of a parameter.
#
# 1. Every set that saves at least $P(R_\tau)$ costs at least $C(R_\tau)$.
# 2. One such set holds each neuron and each coordinate with $f < \tau p$, where $p$ is its number of parameters, and each sublayer for which
#
#    <a id="eq-attention-rank-price"></a>
#    $$
#    \begin{gathered}
#    f_{\text{sublayer}} - \tau\, p_{\text{sublayer}}\\
#    < \textstyle\sum_j \min(0, f_j - \tau\, p_{\text{value}}) ,
#    \end{gathered}
#    $$ (eq-attention-rank-price)
#
#    with the sum over the coordinates of its values.
#
# **Proof.**
# (1) $C(R) - \tau P(R) \ge C(R_\tau) - \tau P(R_\tau)$, so $P(R) \ge P(R_\tau)$ gives $C(R) \ge C(R_\tau)$.
# (2) The objective is a sum over neurons and sublayers, and each summand is minimised by itself: a neuron adds $f - \tau p$ or 0, a sublayer the smaller side of [(eq-attention-rank-price)](#eq-attention-rank-price). ∎
#
# In words: at a given price every part is decided alone, and whatever set comes out is the cheapest of all that save as much.
# The first part is the generalised multiplier of [Everett (1963)](../references.bib#everett1963lagrange).
# Raising the price until the budget is met is greedy by cost per parameter.
# As in [functional policy](functional_policy.ipynb), a layer loses at most half of its neurons.
# From the solution we take only how many parts go: which neurons of a layer stay is decided by energy, which coordinates by the closed form.


# %%
class PartSizes(NamedTuple):
    """Parameters of one part of each kind."""

    neuron: int
    value: int
    sublayer: int


# %%
def part_sizes(model) -> PartSizes:
    """Parameters of a neuron, of a coordinate of a value and of an attention sublayer.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of a family that `attention_sublayers` knows.

    Returns
    -------
    sizes : PartSizes
        Of the first layer.
    """
    attention, names = attention_sublayers(model)[0], ffn_slices(model)[0]
    parts = [model.get_parameter(name) for name in names]
    neuron = sum(part.numel() for part in parts) // parts[-1].shape[1]
    (_, shared, _), values = attention.shape, attention.values
    value = values.in_features + (values.bias is not None)
    value += shared * attention.output.out_features
    return PartSizes(
        neuron, value, sum(p.numel() for p in attention.module.parameters())
    )


# %%
class Cut(NamedTuple):
    """What goes of each layer."""

    neurons: list[int]  # how many
    ranks: list[list[int]]  # that the value heads keep
    dropped: list[int]  # layers without attention
    saved: int  # parameters
    cost: float  # nats squared, of all parts alone, summed


# %%
def cut_at_price(
    costs: PartCosts, sizes: PartSizes, price: float, *, most: float = 0.5
) -> Cut:
    """Parts that cost less than a price for each of their parameters.

    Parameters
    ----------
    costs, sizes, most
        See `cheapest_cut`.
    price : float
        Of a parameter; nats squared.

    Returns
    -------
    cut : Cut

    References
    ----------
    Book {eq}`eq-attention-rank-price`.
    """
    neurons, ranks, dropped, cost, saved = [], [], [], 0.0, 0
    for layer, (f, v, whole) in enumerate(zip(*costs, strict=True)):
        f = f.double().sort().values[: int(most * len(f))]
        f = f[f < price * sizes.neuron]
        gone = v < price * sizes.value
        inner, count = float(v[gone].double().sum()), int(gone.sum())
        ranks.append((v.shape[1] - gone.sum(1)).tolist())
        if whole - price * sizes.sublayer < inner - price * sizes.value * count:
            dropped.append(layer)
            inner, ranks[-1] = whole, [0] * len(v)
        saved += sizes.sublayer if layer in dropped else sizes.value * count
        neurons.append(len(f))
        cost, saved = cost + float(f.sum()) + inner, saved + sizes.neuron * len(f)
    return Cut(neurons, ranks, dropped, saved, cost)


# %%
def cheapest_cut(
    costs: PartCosts, sizes: PartSizes, budget: int, *, most: float = 0.5
) -> Cut:
    r"""Parts that save a number of parameters at a small sum of their costs.

    Parameters
    ----------
    costs : PartCosts
        Parts of infinite cost stay.
    sizes : PartSizes
    budget : int
        Parameters to save.
    most : float
        No layer loses a larger share of its neurons.

    Returns
    -------
    cut : Cut
        Saves at least `budget`; what the dearest part saves too much is given back as
        neurons, the dearest first.

    Raises
    ------
    ValueError
        If no cut saves so much.

    References
    ----------
    Book {eq}`eq-attention-rank-price`.
    """
    low, high = 0.0, 1e-12
    while cut_at_price(costs, sizes, high, most=most).saved < budget:
        low, high = high, 10 * high
        if high > 1e12:
            raise ValueError(f"budget is {budget}; the parts hold fewer parameters")
    for _ in range(60):
        price = (low + high) / 2
        enough = cut_at_price(costs, sizes, price, most=most).saved >= budget
        low, high = (low, price) if enough else (price, high)
    cut = cut_at_price(costs, sizes, high, most=most)
    return _given_back(cut, costs, sizes, (cut.saved - budget) // sizes.neuron)


# %%
def _given_back(cut: Cut, costs: PartCosts, sizes: PartSizes, count: int) -> Cut:
    """The cut without its dearest neurons."""
    pairs = zip(costs.neurons, cut.neurons, strict=True)
    gone = [f.double().sort().values[:n] for f, n in pairs]
    layer = torch.repeat_interleave(torch.arange(len(gone)), torch.tensor(cut.neurons))
    every = torch.cat(gone)
    back = every.argsort(descending=True, stable=True)[:count]
    fewer = torch.bincount(layer[back], minlength=len(gone)).tolist()
    neurons = [n - k for n, k in zip(cut.neurons, fewer, strict=True)]
    saved, cost = (
        cut.saved - sizes.neuron * len(back),
        cut.cost - float(every[back].sum()),
    )
    return cut._replace(neurons=neurons, saved=saved, cost=cost)


# %% [markdown]
# The check is an integer programme: two layers, every neuron, coordinate and sublayer a variable in $\{0, 1\}$, a coordinate gone only where its sublayer is not.

# %% tags=["active-ipynb"]
# rng, sizes = np.random.default_rng(SEED), PartSizes(6, 8, 40)
# f, v = (torch.from_numpy(rng.exponential(size=shape)) for shape in ((2, 6), (2, 1, 3)))
# costs = PartCosts([*f], [*v], [2.5, 6.0])
# f = np.concatenate([*map(np.ravel, costs.neurons + costs.values), costs.sublayers])
# p = np.repeat([6, 8, 40], [12, 6, 2])
# apart = np.zeros((6, 20))
# for j in range(6):
#     apart[j, [12 + j, 18 + j // 3]] = 1

# %% tags=["active-ipynb"]
# for price in (0.02, 0.06, 0.1, 0.3):
#     cut = cut_at_price(costs, sizes, price, most=1)
#     limits = [LinearConstraint(p, lb=cut.saved), LinearConstraint(apart, ub=1)]
#     found = milp(f, constraints=limits, integrality=np.ones(20), bounds=Bounds(0, 1))
#     assert found.success and abs(found.fun - cut.cost) < 1e-9
#     print(f"price {price}: {cut.saved} saved for {cut.cost:.2f}, {cut.neurons} neurons,"
#           f" ranks {cut.ranks}, sublayers {cut.dropped}")  # fmt: skip

# %% [markdown]
# ## What should go from the small real model
#
# `benchmarks/attention_rank.py` measures moments on 40 texts of 128 tokens of the small real model's own, and costs on 16 of them.
# It removes as many parameters as 3 to 27 attention sublayers hold; 27 of them hold as much as 30 % of the neurons.
# What stays is re-fitted in closed form, `down_proj` and the output maps alike, and judged by the divergence on 12 other texts.
# Differences are taken text by text.


# %%
def plot_by_saved(ax, curves: dict[str, dict[float, float]]):
    """Divergence against the share of the model's parameters that went, by kind."""
    for name, curve in curves.items():
        ax.plot([*curve], [*curve.values()], marker="o", ms=4, label=name)
    ax.set(xlabel="parameters removed over all", ylabel="divergence (nats a token)")
    ax.set(yscale="log")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# total, sublayer = (table["costs"][k] for k in ("parameters", "sizes"))
# sublayer, curves = sublayer["sublayer"], {}
# kl = {kind: {int(b): np.array(row["kl"]) for b, row in rows.items() if "kl" in row}
#       for kind, rows in table["cuts"].items()}  # fmt: skip
# for kind in ("neurons", "values", "sublayers", "neurons and values"):
#     curves[kind] = {b * sublayer / total: x.mean() for b, x in kl[kind].items()}
# with figure() as ax:
#     plot_by_saved(ax, curves)

# %% [markdown]
# **Figure (fig-attention-rank-kinds).** <a id="fig-attention-rank-kinds"></a> By divergence on its own texts the small real model is best without some neurons and some values together, whatever the number of parameters that go. Values alone and whole attention sublayers are worse than neurons, values by little at the smallest budget. Each is re-fitted in closed form; mean divergence over 12 texts of the model.

# %% tags=["active-ipynb"]
# for b, ours in kl["neurons and values"].items():
#     gap, row = ours - kl["neurons"][b], table["cuts"]["neurons and values"][str(b)]
#     share = sum(row["coordinates"]) * table["costs"]["sizes"]["value"] / row["saved"]
#     print(f"{b * sublayer / total:5.1%} removed, {share:.0%} of it values: divergence "
#           f"{ours.mean():.4f}, difference {gap.mean():+.4f} "
#           f"({gap.mean() / standard_error(gap):+.1f} errors)")  # fmt: skip
#     assert -0.2 < gap.mean() / kl["neurons"][b].mean() < -0.09
# assert 2 * kl["neurons"][6].mean() < kl["values"][6].mean()

# %% tags=["active-ipynb"]
# for b, alone in kl["sublayers"].items():
#     values, best = kl["values"][b].mean(), kl["neurons"][b].mean()
#     print(f"{b * sublayer / total:5.1%} removed: neurons {best:.3f}, values "
#           f"{values:.3f}, sublayers {alone.mean():.3f}")  # fmt: skip
#     assert best < values and 2 * best < alone.mean()
# gap = kl["values"][3] - kl["neurons"][3]
# assert abs(gap.mean()) < 2 * standard_error(gap)
# for kind in ("all", "all, measured"):  # where sublayers may go, too, none does
#     assert not any(row["sublayers"] for row in table["cuts"][kind].values())

# %% [markdown]
# The cheapest coordinates of the values cost next to nothing, the others much: at the smallest budget values are 55 % of what goes, at the largest 20 %.
# If values may go too, the divergence is a tenth to a fifth smaller than with neurons alone, at all six budgets; only at the two largest is the difference two errors or more.
# Values alone are level with neurons at the smallest budget, 0.064 against 0.058 nats a token, and more than twice as bad at the next, 0.234 against 0.114.
# A fourth kind of cut lets sublayers go too, but at no budget are they among the cheapest parts.
# [He et al. (2024)](../references.bib#he2024attention) drop many from models of 7 billion parameters and more at little loss; in this small one each is dear.
#
# A sublayer is a large part, and its cost is derived for small changes; can it be trusted?
# We compare half the cost with the divergence when one sublayer is dropped, on texts that no cost was measured on.

# %% tags=["active-ipynb"]
# alone, half = np.array(table["sublayers"]), np.array(table["costs"]["sublayers"]) / 2
# rank = spearmanr(alone, half).statistic
# print(f"divergence over half the cost: {(alone / half).min():.1f} to "
#       f"{(alone / half).max():.1f}, median {np.median(alone / half):.1f}; "
#       f"rank correlation {rank:.2f}")  # fmt: skip
# assert rank > 0.8 and 1 < np.median(alone / half) < 2

# %% [markdown]
# The costs have the right order, with a rank correlation of 0.86.
# They are too small rather than too large: the divergence is 1.5 times half the cost in the median.
# With the measured divergences in their place no sublayer goes either.
#
# How far from the best is the closed form, where three heads share a value?
# At half the width, as a share of what the heads write one by one:

# %% tags=["active-ipynb"]
# with figure() as ax:
#     lines = {name: table["values"][name] for name in ("least", "re-fitted")}
#     lines["closed form"] = table["values"]["closed form"]
#     plot_by_layer(ax, lines, ylabel="loss over output energy")
# least, found = (np.array(table["values"][k]) for k in ("least", "closed form"))
# print(f"closed form over lower bound: {(found / least).min():.2f} to "
#       f"{(found / least).max():.2f}")  # fmt: skip
# assert (least <= found).all() and (found < 2.3 * least).all()
# assert (found <= table["values"]["most"]).all()

# %% [markdown]
# **Figure (fig-attention-rank-values).** <a id="fig-attention-rank-values"></a> What a value loses at half its width lies between what every head would lose with a basis of its own (*least*), which cannot be had, and the closed form. Re-fitted: the same coordinates, read in the best way by every head.
#
# The closed form loses 1.18 to 1.89 times the lower bound.
# [Theorem (Shared values)](#thm-attention-rank-shared) would allow three times its own tail of eigenvalues.
#
# ## Another text says otherwise
#
# Nothing was chosen on WikiText-2, so two windows of its validation text, of 512 tokens each, may judge.
# On them the order turns from the second budget on: neurons alone are better ([tokenised](perplexity.ipynb#the-tokenised-text), as all perplexities here).

# %% tags=["active-ipynb"]
# dense, ways = table["costs"]["perplexity"], table["cuts"]
# print(f"dense: {dense:.1f}")
# for b, row in ways["neurons and values"].items():
#     ours, theirs = row["perplexity"], ways["neurons"][b]["perplexity"]
#     print(f"{int(b) * sublayer / total:5.1%} removed: perplexity {theirs:.1f} by "
#           f"neurons, {ours:.1f} by neurons and values")  # fmt: skip
#     assert (ours < theirs) == (b == "3")

# %% tags=["active-ipynb"]
# places, edges = table["positions"], table["configuration"]["positions"]["edges"]
# (first,) = places["dense"].values()
# for size in places["neurons"]:
#     ours, theirs = (places[k][size] for k in ("neurons and values", "neurons"))
#     for a, b, x, y, d in zip(edges[:-1], edges[1:], ours, theirs, first, strict=True):
#         print(f"{int(size) * sublayer / total:5.1%} gone, tokens {a + 2} to {b + 1}: "
#               f"{y - d:.3f} nats over dense, {x - d:.3f} with values")  # fmt: skip
#     more, alone = np.subtract(ours, theirs), np.subtract(theirs, first)
#     assert np.ptp(alone) < 0.06
#     assert more[1] > more[2] > more[0] and (more[0] > 0) == (size == "27")

# %% [markdown]
# With values gone too, the perplexity is 18.0 instead of 18.7 at the smallest budget, and 42.8 instead of 30.9 at the largest.
# Part of the reason is length: the texts that measured the values had 128 tokens, and behind the 128th token of a window the values are missed most.
# With 5.9 % of the parameters gone they are missed only behind it: at tokens 129 to 256 the model loses 0.403 nats, against 0.226 by neurons alone.
# With 17.8 % gone they are missed from the beginning, 0.853 against 0.644, so length is not all of it.
# What neurons alone cost hardly depends on the position.
#
# Whoever cuts values should measure them on texts as long as those to be read.
# That we have not done, and two windows have no interval.
#
# So the pruner goes on taking neurons only.
#
# ## Slicing attention as the paper would
#
# The paper says that slicing attention as well hurts much more, and does not say which rows it means; we take those of `v_proj`, with the columns of the output map that read them.
# A policy is trained to preserve the spectrum of every `v_proj`, as the paper trains one for every `gate_proj`, and both remove as many parameters.
# Random rows are drawn beside them; nothing is re-fitted.
# Two seeds of each can show large differences only.

# %% tags=["active-ipynb"]
# found = {}
# for what, choices in table["paper"].items():
#     for choice, seeds in choices.items():
#         for b in ("3", "9"):
#             x = [(s[b]["ks"], np.mean(s[b]["kl"])) for s in seeds.values()]
#             ks, (low, high) = np.mean(x, 0)[0], np.sort([y for _, y in x])[[0, -1]]
#             found[what, choice, b] = low, high
#             print(f"{int(b) * sublayer / total:.1%} removed, {what:10}, {choice:6}: "
#                   f"KS {ks:.3f}, divergence {low:.2f} to {high:.2f}")  # fmt: skip

# %% tags=["active-ipynb"]
# for b in ("3", "9"):
#     (gate, _), (_, value) = (found[w, "policy", b] for w in table["paper"])
#     assert gate > 1.5 * value and gate > found["gate rows", "random", b][1]
# assert value < 0.6 * found["value rows", "random", "9"][0]
# assert found["value rows", "random", "9"][0] > 2 * found["gate rows", "random", "9"][1]

# %% [markdown]
# Does slicing attention hurt more?
# The answer depends on who chooses the rows.
#
# - *The paper's policy*: rows of attention hurt less, with a divergence of 2.13 to 2.50 at the larger budget, against 4.93 to 5.10 for rows of the feed-forward blocks. The reason is its choice of the latter, which is worse than random rows ([why](spectral_pruning.ipynb#why-the-proxy-can-fail)).
# - *Random rows*: rows of attention hurt more, 5.05 to 5.72 against 1.11 to 1.23.
# - *Energies and closed forms*, above: rows of attention hurt more from 4 % of the parameters on.
#
# So the choices that leave the best model agree with the paper's statement, and the paper's own choice does not.

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# spoken = np.diag([8.0, 1.0, 0.5, 0.5])
# energies = value_basis(torch.eye(4), torch.tensor(spoken), (1, 1, 4)).energies[0]
# gone = float(energies[2:].sum() / energies.sum())
# Quiz(
#     "What a head writes has the energies 8, 1, 1/2 and 1/2 along four directions. "
#     "Two of its four numbers go. What share of the energy is lost at best?",
#     right=f"{gone:.0%}",
#     because="The two weakest directions go, and nobody can lose less.",
#     wrong={"50%": "Half of the numbers go, but not half of the energy.",
#            "20%": "That takes all but the strongest direction away."},
# )

# %% tags=["active-ipynb", "remove-input"]
# held = table["costs"]["sizes"]
# neuron, whole = 3 / held["neuron"], 1000 / held["sublayer"]
# Quiz(
#     f"A neuron of {held['neuron']} parameters costs 3, an attention sublayer of "
#     f"{held['sublayer']} parameters costs 1000. Which goes first, as the price rises?",
#     right="the sublayer" if whole < neuron else "the neuron",
#     because=f"A parameter of it costs {whole:.4f}, one of the neuron {neuron:.4f}.",
#     wrong={"the neuron": "It costs less, but it saves less still.",
#            "neither": "All parts have one unit of cost, so their prices compare."},
# )

# %% tags=["active-ipynb", "remove-input"]
# with_values, alone_gone = (ways[kind]["27"] for kind in ("neurons and values",
#                                                          "neurons"))
# assert np.mean(with_values["kl"]) < np.mean(alone_gone["kl"])
# Quiz(
#     "Values and neurons go together; on the model's own texts of 128 tokens the "
#     "divergence is a tenth smaller than by neurons alone. And on windows of 512?",
#     right=f"worse: perplexity {with_values['perplexity']:.1f} instead of "
#     f"{alone_gone['perplexity']:.1f}",
#     because="Values were judged on short texts, and are missed most in long ones.",
#     wrong={"a tenth better": "Nothing measured on 128 tokens says so.",
#            "as good as by neurons": "So it would be if only the kind of text counted."},
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-attention-rank-0"></a>
# Write a function that says what a head with a value of its own loses at least when $r$ numbers of the value stay.
# `O` is its part of the output map, `Z` the second moment of what it gathers.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# [Theorem (One head, one value)](#thm-attention-rank-one) names the matrix whose eigenvalues you need; `np.linalg.eigvalsh` gives them in ascending order.
#
# </details>

# %% tags=["active-ipynb"]
# def least_loss(O, Z, r):
#     """Energy that no choice of `r` numbers of the value can keep."""
#     # your lines
#
#
# def by_the_book(O, Z, r):
#     """The same from the basis of this chapter."""
#     basis = value_basis(torch.tensor(O), torch.tensor(Z), (1, 1, len(Z)))
#     return float(basis.energies[0, r:].sum())
#
#
# writes, gathers = np.array([[1.0, 2], [0, 1], [1, 0]]), np.array([[2.0, 1], [1, 3]])
# check_answer(least_loss, by_the_book, (writes, gathers, 1), (writes, gathers, 0))

# %% [markdown]
# <details><summary>Solution</summary>
#
# What the head writes has the second moment $O Z O^\top$; all of its eigenvalues but the $r$ largest are lost.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def least_loss(O, Z, r):
#     """Energy that no choice of `r` numbers of the value can keep."""
#     return np.linalg.eigvalsh(O @ Z @ O.T)[: len(O) - r].sum()
#
#
# calls = [(writes, gathers, r) for r in (0, 1, 2)]
# assert check_answer(least_loss, by_the_book, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-attention-rank-1"></a>
# By hand: two heads share a value of two numbers, $O_1 = \operatorname{diag}(1, 0)$ and $O_2 = \operatorname{diag}(0, 1)$; the first gathers $(\pm 2, 0)$ and the second $(0, \pm 1)$.
# What does the closed form lose at rank 1, what does [Theorem (Shared values)](#thm-attention-rank-shared) allow, and which $E$ loses nothing?
#
# <details><summary>Solution</summary>
#
# $M = I$ and $\bar Z = \frac12 \operatorname{diag}(4, 1)$, so $\lambda = (2, \frac12)$, and the closed form keeps the first number.
# The second head then loses all that it says, 1, which is $|\mathcal I| \lambda_2$: all that the theorem allows.
# $E = (1, 1)$ loses nothing, for each head gathers one of the two numbers only and reads it back, $F_1 = (1, 0)^\top$ and $F_2 = (0, 1)^\top$.
# So with shared values the closed form may lose everything where nothing need be lost.
#
# </details>

# %% tags=["active-ipynb"]
# O = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1]])
# Z = torch.tensor([4.0, 0, 0, 1]).diag()
# basis = value_basis(O, Z, (1, 2, 2))
# assert basis.energies.tolist() == [[2.0, 0.5]]
# kept = basis.back[0][:, :1] @ basis.into[0][:1]  # what the closed form leaves of z
# rest = O - O @ torch.block_diag(kept, kept).float()
# assert (rest @ Z * rest).sum() == 2 * basis.energies[0, 1]
# both = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])  # (1, 1) for either head
# assert ((O - torch.eye(2) @ both) @ Z == 0).all()

# %% [markdown]
# **Exercise ★.** <a id="ex-attention-rank-2"></a>
# A limit: at rank 0 a sublayer writes nothing but its bias.
# Why is it still not the same as to drop it, and how many parameters does each save in the small real model, with 9 query heads, 3 value heads, $d = 576$ and $d_h = 64$?
#
# <details><summary>Solution</summary>
#
# Queries and keys go, too, where a sublayer is dropped, for nobody uses what they compute.
# Values and output map have $3 \cdot 64 \cdot 576 + 576 \cdot 9 \cdot 64$ parameters, queries and keys as many: 442 368 and 884 736.
#
# </details>

# %% tags=["active-ipynb"]
# sizes = table["costs"]["sizes"]
# assert 3 * 64 * sizes["value"] == 442368 and sizes["sublayer"] == 884736

# %% [markdown]
# **Exercise ★★.** <a id="ex-attention-rank-3"></a>
# Break an assumption: take the singular vectors of $O_i$ alone, as if $Z_i$ were the identity.
# Can that be better than the closed form at any rank, and is it ever as good?
#
# <details><summary>Solution</summary>
#
# Never better where one head has the value to itself, for the closed form is optimal; as good if $Z_i$ is a multiple of the identity, or by luck.
#
# </details>

# %% tags=["active-ipynb"]
# O, Z = torch.randn(8, 6, generator=generator).double(), z.T @ z / len(z)
# W = torch.linalg.svd(O).Vh
# ours, isotropic = (value_basis(O, C, (1, 1, 6)) for C in (Z, torch.eye(6)))
# for r in range(1, 6):
#     rest = O - O @ W[:r].T @ W[:r]
#     lost = (rest @ Z * rest).sum()
#     print(f"rank {r}: {lost:.4f} by weights alone, {ours.energies[0, r:].sum():.4f}")
#     assert lost > 1.01 * ours.energies[0, r:].sum()
#     torch.testing.assert_close(rest.square().sum(), isotropic.energies[0, r:].sum())

# %% [markdown]
# **Exercise ★.** <a id="ex-attention-rank-4"></a>
# A neuron of 2 parameters costs 1, another 3; an attention sublayer of 12 parameters costs 5, and its two coordinates of 3 parameters each cost 1 and 4.
# What goes at a price of 0.4, of 0.6 and of 1?
#
# <details><summary>Solution</summary>
#
# At 0.4 the coordinate of cost 1, since $1 < 0.4 \cdot 3$; the neuron costs more than 0.8, and the sublayer adds $5 - 4.8$, more than $1 - 1.2$.
# At 0.6 the first neuron goes as well; the sublayer now adds $5 - 7.2 = -2.2$ against $1 - 1.8$ and goes as a whole.
# At 1 nothing changes: the second neuron costs 3 for 2 parameters.
#
# </details>

# %% tags=["active-ipynb"]
# parts = [torch.tensor([1.0, 3.0])], [torch.tensor([[1.0, 4.0]])], [5.0]
# for price, gone in ((0.4, (0, [[1]], [])), (0.6, (1, [[0]], [0]))):
#     cut = cut_at_price(PartCosts(*parts), PartSizes(2, 3, 12), price, most=1)
#     assert (cut.neurons[0], *cut[1:3]) == gone
# assert cut_at_price(PartCosts(*parts), PartSizes(2, 3, 12), 1.0, most=1) == cut

# %% [markdown]
# ## What you can do now
#
# Neurons, values and attention sublayers have one kind of cost and one budget.
# On the model's own texts some values and fewer neurons leave a tenth to a fifth less divergence than neurons alone; whole sublayers leave more than twice as much.
# On longer texts the values are missed: with 17.8 % of the parameters gone the perplexity is 42.8 instead of 30.9.
# So the pruner takes neurons only.
#
# - Give value heads a smaller rank by the closed form, `value_output_reduction` (`value_basis`, `ValueBasis`), from what `attention_moments` measures, with a ridge by `value_ridge`.
# - Drop attention sublayers: `without_attention`; find them, `attention_sublayers` (`Attention`).
# - Say what parts cost and hold: `part_costs` (`PartCosts`, `AttentionSum`) and `part_sizes` (`PartSizes`).
# - Spend a budget: `cut_at_price` and `cheapest_cut` (`Cut`); draw what it brings, `plot_by_saved`.
#
# Next: [Zero-shot tasks](zero_shot.ipynb) ask the models questions, about which a perplexity says little.
