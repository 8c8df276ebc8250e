"""What every bandit policy of Part II shares: contexts, checks, saving, resuming."""

from __future__ import annotations

import json
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from prunefair.outputs import whole_file


def check_alpha(alpha: float, *, below: float = np.inf) -> float:
    """Return `alpha` as a float, or raise if it is not in `[0, below)`."""
    value = np.asarray(alpha)
    if value.shape or value.dtype.kind not in "iuf" or not 0 <= value < below:
        raise ValueError(f"alpha is {alpha!r}; it must lie in [0, {below})")
    return float(value)


def check_count(count: int, name: str) -> int:
    """Return `count` as an int, or raise if it is not a positive whole number."""
    value = np.asarray(count)
    whole = not value.shape and value.dtype.kind in "iuf" and float(value).is_integer()
    if not whole or value < 1:
        raise ValueError(f"{name} is {count!r}; it must be a positive whole number")
    return int(value)


def check_n_arms(n_arms: int) -> int:
    """Return `n_arms` as an int, or raise if it is not a positive whole number."""
    return check_count(n_arms, "n_arms")


def check_context(context: Hashable) -> Hashable:
    """Return `context`, or raise if no learner could be found again by it."""
    try:
        hash(context)
    except TypeError:
        raise TypeError(
            f"context is {context!r}; it must be hashable: a string, a number or a tuple"
        ) from None
    if context != context:
        raise ValueError(f"context is {context!r}, which is not equal to itself")
    return context


def check_rewards(rewards, n_arms: int) -> np.ndarray:
    """Return `rewards` as float64 of shape (N,), or raise if one is outside [0, 1]."""
    try:
        r = np.asarray(rewards)
    except ValueError:  # lists of different lengths
        r = np.asarray(None)
    if r.dtype.kind not in "biuf":
        raise ValueError(f"rewards is {rewards!r}; it must hold {n_arms} numbers")
    if r.shape != (n_arms,):
        raise ValueError(f"rewards has shape {r.shape}; it must be ({n_arms},)")
    if not ((r >= 0) & (r <= 1)).all():  # false for NaN as well
        raise ValueError(f"rewards is {r}; every entry must lie in [0, 1]")
    return r.astype(np.float64)


def check_arm(arm: int, n_arms: int) -> int:
    """Return `arm` as an int, or raise if it is not one of 0, ..., `n_arms` - 1."""
    value = np.asarray(arm)
    if value.shape or value.dtype.kind not in "iuf" or value not in range(n_arms):
        raise ValueError(f"arm is {arm!r}; it must be one of 0, ..., {n_arms - 1}")
    return int(value)


def check_reward(reward: float) -> float:
    """Return `reward` as a float, or raise if it is not a number in [0, 1]."""
    value = np.asarray(reward)
    if value.shape or value.dtype.kind not in "biuf" or not 0 <= value <= 1:
        raise ValueError(f"reward is {reward!r}; it must be a number in [0, 1]")
    return float(value)


class Policy(ABC):
    """A policy over `n_arms` arms that keeps one learner for each context.

    A context is any hashable key; its learner is created by the first update.  All
    state is `rewards`, the cumulative reward $R$ of each arm, the named tuple `shared`
    and one named tuple a context in `learners`, all made of arrays and numbers.
    Subclasses are pure in the learners: a step takes a state and returns a new one.

    Parameters
    ----------
    n_arms : int
        Number of arms $N$.

    Attributes
    ----------
    rewards : ndarray, shape (N,), float64
        Cumulative rewards $R_i(t)$, reward units; $R_i(0) = 1$.
    learners : dict
        State of the learner of each context seen so far.
    shared : NamedTuple or None
        State that all contexts share, beside `rewards`.

    Raises
    ------
    ValueError
        If `n_arms` is not a positive whole number.
    """

    feedback: ClassVar[str]

    def __init__(self, n_arms: int):
        self.n_arms = check_n_arms(n_arms)
        self.rewards = np.ones(self.n_arms)
        self.learners: dict[Hashable, NamedTuple] = {}
        self.shared: NamedTuple | None = None

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Arguments that build an equal, untrained policy; plain JSON values."""

    @abstractmethod
    def initial(self) -> NamedTuple:
        """State of a learner whose context has not been seen."""

    @abstractmethod
    def probabilities(self, context: Hashable) -> np.ndarray:
        """Distribution over the arms, shape (N,), for `context`; changes no state."""

    def learner(self, context: Hashable) -> NamedTuple:
        """State of the learner of `context`, the initial one if it is new."""
        check_context(context)
        state = self.learners.get(context)
        return self.initial() if state is None else state

    def save(self, path: str | os.PathLike) -> None:
        """Write the whole state to one npz file; `load` resumes it bit for bit.

        Raises
        ------
        TypeError
            If a context is not a string, number, boolean, None or a tuple of these;
            nothing is written then.
        """
        header = {
            "policy": type(self).__name__,
            "config": self.config(),
            "contexts": [_encode(key) for key in self.learners],
        }
        arrays = {"header": np.array(json.dumps(header)), "rewards": self.rewards}
        if self.shared is not None:
            arrays |= {f"shared.{k}": v for k, v in self.shared._asdict().items()}
        states = list(self.learners.values())
        for field in states[0]._fields if states else ():
            arrays[f"learners.{field}"] = np.stack([getattr(s, field) for s in states])
        with whole_file(path) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Policy:
        """Policy saved by `save`.

        Raises
        ------
        ValueError
            If `path` holds no whole policy or one of another kind.
        """
        try:
            with zipfile.ZipFile(path) as file:  # np.load alone would try pickle
                broken = file.testzip()
            arrays = {} if broken else dict(np.load(path, allow_pickle=False))
        except zipfile.BadZipFile:
            arrays = {}
        if "header" not in arrays:
            raise ValueError(
                f"path is {os.fspath(path)!r}, which holds no policy or is damaged; "
                "give a file that `save` wrote"
            )
        header = json.loads(str(arrays["header"]))
        if header["policy"] != cls.__name__:
            raise ValueError(
                f"path is {os.fspath(path)!r}, which holds a {header['policy']}; "
                f"load it with {header['policy']}.load, not {cls.__name__}.load"
            )
        policy = cls(**header["config"])
        policy.rewards = arrays["rewards"]
        if policy.shared is not None:
            policy.shared = type(policy.shared)(
                *(_scalar(arrays[f"shared.{k}"]) for k in policy.shared._fields)
            )
        kind = type(policy.initial())
        stacked = [arrays.get(f"learners.{field}") for field in kind._fields]
        for index, key in enumerate(header["contexts"]):
            state = kind(*(_scalar(values[index]) for values in stacked))
            policy.learners[_decode(key)] = state
        return policy


class FullInformationPolicy(Policy):
    """A policy that sees the reward of every arm after each round.

    Play is fractional: arm $i$ earns $r_i(t) x_i(t)$, the expected reward of a draw.
    """

    feedback = "full"

    @abstractmethod
    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        """Learn from `rewards`, already checked; `x` is what was played."""

    def update(self, context: Hashable, rewards) -> None:
        """Learn from the rewards of all arms in `context`.

        Parameters
        ----------
        context : hashable
            The context $j_t$ in which $x(t)$ was played.
        rewards : array_like, shape (N,)
            Rewards $r(t) \\in [0, 1]^N$, reward units.

        Raises
        ------
        ValueError
            If `rewards` has another shape or an entry outside [0, 1], or `context` is
            NaN; the state is unchanged then.
        TypeError
            If `context` is not hashable.
        """
        context = check_context(context)
        r = check_rewards(rewards, self.n_arms)
        x = self.probabilities(context)
        self.step(context, x, r)
        self.rewards = self.rewards + r * x


class BanditPolicy(Policy):
    """A policy that sees only the reward of the arm it pulled."""

    feedback = "bandit"

    @abstractmethod
    def step(self, context: Hashable, arm: int, reward: float) -> None:
        """Learn from the checked `reward` of `arm`."""

    def update(self, context: Hashable, arm: int, reward: float) -> None:
        """Learn from the reward of the arm pulled in `context`.

        Parameters
        ----------
        context : hashable
            The context $j_t$.
        arm : int
            The arm $I_t$ drawn from `probabilities(context)`, 0-based.
        reward : float
            Its reward in [0, 1], reward units.

        Raises
        ------
        ValueError
            If `arm` is unknown, `reward` is outside [0, 1] or `context` is NaN; the
            state is unchanged then.
        TypeError
            If `context` is not hashable.
        """
        context = check_context(context)
        arm, reward = check_arm(arm, self.n_arms), check_reward(reward)
        self.step(context, arm, reward)
        gained = np.zeros(self.n_arms)
        gained[arm] = reward
        self.rewards = self.rewards + gained


def _scalar(value: np.ndarray) -> Any:
    """A 0-d array as a Python number, any other array unchanged."""
    return value.item() if value.ndim == 0 else value


def _encode(key: Hashable) -> Any:
    if isinstance(key, tuple):
        return {"tuple": [_encode(part) for part in key]}
    if isinstance(key, np.generic) and key.dtype.kind in "biufU":
        key = key.item()  # equal, with the same hash; a time would become a number
    if key is None or isinstance(key, str | int | float | bool):
        return key
    raise TypeError(
        f"context is {key!r} of type {type(key).__name__}; only strings, numbers, "
        "booleans, None and tuples of these can be saved"
    )


def _decode(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple(_decode(part) for part in value["tuple"])
    return value
