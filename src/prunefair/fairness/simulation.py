"""Running a policy over a stream of rewards, or in a game against an adversary."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from prunefair.fairness.policy import (
    Policy,
    check_count,
    check_generator,
    check_numbers,
    read_only,
)
from prunefair.messages import shown


class ArraysEqual:
    """A dataclass with arrays: equal if all fields that take part in it are equal."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        pairs = [
            (getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)
            if f.compare
        ]
        return all(
            np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
            for a, b in pairs
        )

    __hash__ = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RewardStream(ArraysEqual):
    """Contexts and rewards of $T$ rounds, fixed in advance (an oblivious adversary).

    Whatever numpy reads as numbers is taken (lists, pandas columns); what is kept are
    arrays that nobody can write to, copies unless they were so before.  Two streams are
    equal if their contexts, rewards and arms are, wherever they come from.

    Parameters
    ----------
    contexts : array_like, shape (T,), whole numbers
        Context $j_t \\in \\{0, ..., M-1\\}$ of each round; kept as int64.
    rewards : array_like, shape (T, N)
        Rewards $r(t) \\in [0, 1]^N$, reward units; kept as float64.
    n_contexts : int
        Number of contexts $M$.
    arm_names : sequence of str, optional
        Names of the $N$ arms; kept as a tuple.
    source : str
        Where the stream comes from, for reports.

    Raises
    ------
    ValueError
        If the shapes disagree, a context is no whole number below `n_contexts`, a
        reward lies outside [0, 1], or `arm_names` are not one string for each arm.
    """

    contexts: np.ndarray
    rewards: np.ndarray
    n_contexts: int
    arm_names: tuple[str, ...] = ()
    source: str = field(default="", compare=False)

    def __post_init__(self):
        contexts = check_numbers(self.contexts, "contexts")
        rewards = check_numbers(self.rewards, "rewards")
        if rewards.ndim != 2 or contexts.shape != rewards.shape[:1]:
            raise ValueError(
                f"contexts has shape {contexts.shape} and rewards {rewards.shape}; they "
                "must be (T,) and (T, N)"
            )
        n_contexts = check_count(self.n_contexts, "n_contexts")
        n_arms = check_count(rewards.shape[1], "number of columns of rewards")
        if not ((contexts >= 0) & (contexts < n_contexts) & (contexts % 1 == 0)).all():
            raise ValueError(
                "contexts must lie in 0, ..., n_contexts - 1 = "
                f"{n_contexts - 1} and be whole numbers"
            )
        if not ((rewards >= 0) & (rewards <= 1)).all():  # false for NaN as well
            raise ValueError("rewards has an entry outside [0, 1]")
        names = self.arm_names
        names = (names,) if isinstance(names, str) else tuple(names)
        strings = all(isinstance(name, str) for name in names)
        if not strings or len(names) not in (0, n_arms):
            raise ValueError(
                f"arm_names is {shown(self.arm_names)}; it must hold {n_arms} strings"
            )
        kept = {
            "contexts": _kept(contexts, np.int64),
            "rewards": _kept(rewards, np.float64),
            "n_contexts": n_contexts,
            "arm_names": names,
        }
        for name, value in kept.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen

    @property
    def n_rounds(self) -> int:
        """Number of rounds $T$."""
        return len(self.contexts)

    @property
    def n_arms(self) -> int:
        """Number of arms $N$."""
        return self.rewards.shape[1]

    def first(self, n_rounds: int) -> RewardStream:
        """The stream of the first `n_rounds` rounds, of all if there are fewer."""
        n = check_count(n_rounds, "n_rounds", least=0)
        return replace(self, contexts=self.contexts[:n], rewards=self.rewards[:n])


def _kept(array: np.ndarray, kind: type) -> np.ndarray:
    """`array` of this kind of number, as nobody can write to it."""
    if array.dtype != kind:
        array = array.astype(kind)
        array.flags.writeable = False
    return read_only(array)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory(ArraysEqual):
    """Cumulative rewards of a policy at some rounds.

    Parameters
    ----------
    rounds : ndarray, shape (C,), int64
        Rounds played before each checkpoint; the last is $T$.
    rewards : ndarray, shape (C, N), float64
        Cumulative rewards $R_i$ after that many rounds, $R_i(0) = 1$ included.
    seconds : float
        Wall-clock time of the whole run; no part of equality.
    """

    rounds: np.ndarray
    rewards: np.ndarray
    seconds: float = field(compare=False)


def checkpoints(n_rounds: int, n_points: int = 200) -> np.ndarray:
    """About `n_points` rounds, evenly spread over 1, ..., `n_rounds` with the last."""
    n_points = check_count(n_points, "n_points")
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
        If `policy` or `stream` is none, the numbers of arms differ, or a bandit policy
        is given no generator.
    """
    for name, value, kind in (
        ("policy", policy, Policy),
        ("stream", stream, RewardStream),
    ):
        if not isinstance(value, kind):
            raise ValueError(f"{name} is {shown(value)}; give a {kind.__name__}")
    if policy.n_arms != stream.n_arms:
        raise ValueError(
            f"policy has {policy.n_arms} arms and stream {stream.n_arms}; "
            "they must agree"
        )
    bandit = policy.feedback == "bandit"
    if bandit:
        check_generator(rng)
    return bandit


def simulate(
    policy: Policy,
    stream: RewardStream,
    *,
    rng: np.random.Generator | None = None,
    n_points: int = 200,
    delay: int = 0,
    told: bool = True,
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
    delay : int
        How many rounds late feedback comes, always in the order of the rounds; what
        has not come by the end comes then.
    told : bool
        Whether a late update is told what was played (True), or credits what the
        policy would play by now, which is wrong and only there to show it.

    Returns
    -------
    trajectory : Trajectory
        Cumulative rewards as far as feedback has come.

    Raises
    ------
    ValueError
        If the numbers of arms differ, a bandit policy is given no `rng`, or `delay` is
        no whole number from 0 on.

    Examples
    --------
    >>> from prunefair.fairness.simulation import RewardStream, simulate
    >>> from prunefair.fairness.full_information import AlphaFairGradient
    >>> stream = RewardStream(
    ...     contexts=[0, 1] * 50, rewards=[[0.2, 0.8], [0.6, 0.4]] * 50, n_contexts=2
    ... )
    >>> run = simulate(AlphaFairGradient(n_arms=2, alpha=0.5), stream)
    >>> run.rewards[-1].round(2)
    array([30.47, 40.93])
    """
    bandit = check_run(policy, stream, rng)
    delay, waiting = check_count(delay, "delay", least=0), deque()
    rounds = checkpoints(stream.n_rounds, n_points)
    rewards = np.empty((len(rounds), stream.n_arms))
    draws = rng.random(stream.n_rounds) if bandit else None
    start, point = time.perf_counter(), 0
    kind = type(policy).__name__
    for t, context in enumerate(tqdm(stream.contexts.tolist(), desc=kind, leave=False)):
        if bandit:
            p = policy.probabilities(context)
            name, places = policy.drawn(p, draws[t])
            late = {policy.told: p[places]} if delay and told else {}
            waiting.append(((context, name, stream.rewards[t, places]), late))
        else:
            late = {"played": policy.probabilities(context)} if delay and told else {}
            waiting.append(((context, stream.rewards[t]), late))
        while len(waiting) > (0 if t + 1 == stream.n_rounds else delay):
            feedback, late = waiting.popleft()
            if delay and not told:  # it credits what it says now
                policy.probabilities(feedback[0])
            policy.update(*feedback, **late)
        if t + 1 == rounds[point]:
            rewards[point] = policy.rewards
            point += 1
    seconds = time.perf_counter() - start
    return Trajectory(rounds=rounds, rewards=rewards, seconds=seconds)


class WeightedPolicy(Protocol):
    """What a game needs of a policy: `AlphaFairGradient` has it."""

    n_arms: int
    alpha: float
    weights: str
    rewards: np.ndarray

    def probabilities(self, context: Hashable) -> np.ndarray:
        """Distribution over the arms for `context`."""

    def update(self, context: Hashable, rewards: np.ndarray) -> None:
        """Learn from the rewards of all arms in `context`."""


Adversary = Callable[[int, WeightedPolicy], tuple[int, np.ndarray]]


class Game(NamedTuple):
    """Everything that happened in $T$ rounds of a policy against an adversary.

    Parameters
    ----------
    contexts : ndarray, shape (T,), int64
        Contexts $j_t$.
    rewards : ndarray, shape (T, N), float64
        Rewards $r(t)$, reward units.
    points : ndarray, shape (T, N), float64
        What was played, $x(t)$.
    cumulative : ndarray, shape (T + 1, N), float64
        $R(0), ..., R(T)$, reward units.
    n_contexts : int
        $M$.
    alpha : float
        Fairness parameter of the policy.
    weights : str
        Which cumulative rewards weigh a round, `"before"` or `"after"`.
    """

    contexts: np.ndarray
    rewards: np.ndarray
    points: np.ndarray
    cumulative: np.ndarray
    n_contexts: int
    alpha: float
    weights: str = "before"


def play_game(
    policy: WeightedPolicy, adversary: Adversary, n_rounds: int, n_contexts: int
) -> Game:
    """Record of `n_rounds` rounds; `adversary(t, policy)` names context and rewards.

    Parameters
    ----------
    policy : AlphaFairGradient or another that has its attributes
        Changed by the game; the adversary may look at all of it.
    adversary : callable
        Returns the context, below `n_contexts`, and the rewards in [0, 1], shape (N,).
    n_rounds, n_contexts : int
        $T$ and $M$.

    Returns
    -------
    game : Game
    """
    contexts = np.empty(n_rounds, dtype=np.int64)
    rewards = np.empty((n_rounds, policy.n_arms))
    points = np.empty((n_rounds, policy.n_arms))
    cumulative = np.empty((n_rounds + 1, policy.n_arms))
    cumulative[0] = policy.rewards
    for t in range(n_rounds):
        contexts[t], rewards[t] = adversary(t, policy)
        points[t] = policy.probabilities(int(contexts[t]))
        policy.update(int(contexts[t]), rewards[t])
        cumulative[t + 1] = policy.rewards
    alpha, weights = policy.alpha, policy.weights
    return Game(contexts, rewards, points, cumulative, n_contexts, alpha, weights)
