"""Running a policy over a stream of contexts and rewards."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
from tqdm import tqdm

from prunefair.fairness.policy import Policy


@dataclass(frozen=True, kw_only=True)
class RewardStream:
    """Contexts and rewards of $T$ rounds, fixed in advance (an oblivious adversary).

    Parameters
    ----------
    contexts : ndarray, shape (T,), int64
        Context $j_t \\in \\{0, ..., M-1\\}$ of each round.
    rewards : ndarray, shape (T, N), float64
        Rewards $r(t) \\in [0, 1]^N$, reward units.
    n_contexts : int
        Number of contexts $M$.
    arm_names : tuple of str, optional
        Names of the $N$ arms.
    source : str
        Where the stream comes from, for reports.

    Raises
    ------
    ValueError
        If the shapes disagree, a context is not below `n_contexts`, or a reward lies
        outside [0, 1].
    """

    contexts: np.ndarray
    rewards: np.ndarray
    n_contexts: int
    arm_names: tuple[str, ...] = ()
    source: str = field(default="", compare=False)

    def __post_init__(self):
        if self.rewards.ndim != 2 or self.contexts.shape != self.rewards.shape[:1]:
            raise ValueError(
                f"contexts has shape {self.contexts.shape} and rewards "
                f"{self.rewards.shape}; they must be (T,) and (T, N)"
            )
        if not ((self.contexts >= 0) & (self.contexts < self.n_contexts)).all():
            raise ValueError(
                f"contexts must lie in 0, ..., n_contexts - 1 = {self.n_contexts - 1}"
            )
        if not ((self.rewards >= 0) & (self.rewards <= 1)).all():
            raise ValueError("rewards has an entry outside [0, 1]")

    @property
    def n_rounds(self) -> int:
        """Number of rounds $T$."""
        return len(self.contexts)

    @property
    def n_arms(self) -> int:
        """Number of arms $N$."""
        return self.rewards.shape[1]

    def first(self, n_rounds: int) -> RewardStream:
        """The stream of the first `n_rounds` rounds."""
        return replace(
            self, contexts=self.contexts[:n_rounds], rewards=self.rewards[:n_rounds]
        )


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Cumulative rewards of a policy at some rounds.

    Parameters
    ----------
    rounds : ndarray, shape (C,), int64
        Rounds played before each checkpoint; the last is $T$.
    rewards : ndarray, shape (C, N), float64
        Cumulative rewards $R_i$ after that many rounds, $R_i(0) = 1$ included.
    seconds : float
        Wall-clock time of the whole run.
    """

    rounds: np.ndarray
    rewards: np.ndarray
    seconds: float


def checkpoints(n_rounds: int, n_points: int = 200) -> np.ndarray:
    """About `n_points` rounds, evenly spread over 1, ..., `n_rounds` with the last."""
    if n_points < 1:
        raise ValueError(f"n_points is {n_points!r}; it must be at least 1")
    return np.unique(np.linspace(n_rounds, 1, min(n_points, n_rounds)).astype(np.int64))


def check_run(
    policy: Policy, stream: RewardStream, rng: np.random.Generator | None
) -> bool:
    """Whether arms are drawn when `policy` plays `stream`, or raise if it cannot.

    Parameters
    ----------
    policy : Policy
    stream : RewardStream
    rng : numpy.random.Generator or None
        Draws the arms of a bandit policy.

    Returns
    -------
    bandit : bool

    Raises
    ------
    ValueError
        If the numbers of arms differ or a bandit policy is given no `rng`.
    """
    if policy.n_arms != stream.n_arms:
        raise ValueError(
            f"policy has {policy.n_arms} arms and stream {stream.n_arms}; "
            "they must agree"
        )
    bandit = policy.feedback == "bandit"
    if bandit and rng is None:
        raise ValueError("rng is None; a bandit policy draws its arms from a generator")
    return bandit


def simulate(
    policy: Policy,
    stream: RewardStream,
    *,
    rng: np.random.Generator | None = None,
    n_points: int = 200,
) -> Trajectory:
    """Play `policy` on `stream` from its first round to its last.

    Parameters
    ----------
    policy : Policy
        Changed by the run.
    stream : RewardStream
    rng : numpy.random.Generator, optional
        Draws the arms; required by a bandit policy, unused with full information.
    n_points : int
        Number of checkpoints at most.

    Returns
    -------
    trajectory : Trajectory

    Raises
    ------
    ValueError
        If the numbers of arms differ or a bandit policy is given no `rng`.
    """
    bandit = check_run(policy, stream, rng)
    rounds = checkpoints(stream.n_rounds, n_points)
    rewards = np.empty((len(rounds), stream.n_arms))
    draws = rng.random(stream.n_rounds) if bandit else None
    start, point = time.perf_counter(), 0
    name = type(policy).__name__
    for t, context in enumerate(tqdm(stream.contexts.tolist(), desc=name, leave=False)):
        if bandit:
            cumulative = np.cumsum(policy.probabilities(context))
            arm = int(np.searchsorted(cumulative, draws[t] * cumulative[-1], "right"))
            policy.update(context, arm, stream.rewards[t, arm])
        else:
            policy.update(context, stream.rewards[t])
        if t + 1 == rounds[point]:
            rewards[point] = policy.rewards
            point += 1
    seconds = time.perf_counter() - start
    return Trajectory(rounds=rounds, rewards=rewards, seconds=seconds)
