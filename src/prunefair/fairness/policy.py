"""What every bandit policy of Part II shares: contexts, checks, saving, resuming."""

from __future__ import annotations

import io
import json
import math
import os
import threading
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from copy import copy
from importlib import import_module
from inspect import isabstract, signature
from typing import Any, ClassVar, NamedTuple

import numpy as np

from prunefair.messages import checked_path, shortened, shown
from prunefair.outputs import check_new_file, whole_file

CONTEXT_BITS = 2048  # of a whole number: below 640 digits, which Python always reads
CONTEXT_DEPTH = 50  # of tuples, far below what a parser of JSON can follow
LEAST_PROBABILITY = 1e-9  # a single reward weighs no more than its inverse
NEVER = 1e-18  # an arm of less probability has not been drawn
MODULES = (  # with policies
    "baselines",
    "fixed_map",
    "one_context",
    "late_feedback",
    "beyond_one",
    "stochastic",
    "slate_policy",
)
LATER = {  # policies by name, of chapters after `baselines`
    "full": {
        "follow_the_leader": "one_context.FollowTheLeader",
        "late_gradient": "late_feedback.LateGradient",
        "half_leader": "beyond_one.HalfLeader",
        "half_gradient": "beyond_one.HalfGradient",
        "frank_wolfe": "stochastic.FrankWolfe",
        "dual_descent": "stochastic.DualDescent",
        "resolving": "stochastic.Resolving",
        "slates": "slate_policy.SlateGradient",
    },
    "bandit": {
        "frank_wolfe": "stochastic.FrankWolfeBandit",
        "slates": "slate_policy.SlateBandit",
    },
}


def array_of(value: Any) -> np.ndarray:
    """`value` as an array, of None if it is ragged."""
    try:
        return np.asarray(value)
    except ValueError:
        return np.asarray(None)


def check_real(
    value: float, name: str, holds: Callable[[float], bool], wanted: str
) -> float:
    """Return `value` as a float, or raise if it is no number for which `holds`.

    Parameters
    ----------
    value : float
        What the caller was given.
    name : str
        Its name.
    holds : callable
        Whether a float is in range; false for NaN.
    wanted : str
        The range in words, after "it must".

    Returns
    -------
    value : float

    Raises
    ------
    ValueError
        If `value` is no real number or out of range.
    """
    number = array_of(value)
    real = not number.shape and number.dtype.kind in "iuf"
    if not real or not holds(float(number)):
        raise ValueError(f"{name} is {shown(value)}; it must {wanted}")
    return float(number)


def check_numbers(value: Any, name: str) -> np.ndarray:
    """Return `value` as an array of real numbers, or raise.

    Parameters
    ----------
    value : array_like
        What the caller was given.
    name : str
        Its name.

    Returns
    -------
    array : ndarray

    Raises
    ------
    ValueError
        If it is ragged, or holds anything else.
    """
    array = array_of(value)
    if not array.size:  # an empty list reads as floats, an empty column as objects
        array = array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        kind = f" of kind {array.dtype}" if array.shape else ""
        raise ValueError(
            f"{name} is {shown(value)}{kind}; it must hold real numbers, in rows of one "
            "length"
        )
    return array


def check_entries(
    value: np.ndarray, name: str, holds: Callable[[np.ndarray], np.ndarray], wanted: str
) -> None:
    """Raise if an entry of an array is out of range, with its place.

    Parameters
    ----------
    value : ndarray
    name : str
        Its name.
    holds : callable
        Whether each entry of an array is in range; false for NaN.
    wanted : str
        The range in words, after "every entry must".

    Raises
    ------
    ValueError
        If one is not; the message names the first.
    """
    bad = np.argwhere(~holds(value))
    if len(bad):
        place = bad[0].tolist() if value.ndim else []
        raise ValueError(
            f"{name}{place or ''} is {value[tuple(place)]}; every entry must {wanted}"
        )


def check_alpha(alpha: float, *, below: float = np.inf) -> float:
    """Return `alpha` as a float, or raise if it is not in `[0, below)`."""
    return check_real(alpha, "alpha", lambda a: 0 <= a < below, f"lie in [0, {below})")


def check_policy_alpha(alpha: float) -> float:
    r"""Return `alpha` as a float, or raise beyond 1, where bounds of policies end.

    The bounds of the book are for $0 \le \alpha < 1$, and for $\alpha = 1$ by the
    exercise on full information.
    """
    check_real(alpha, "alpha", lambda a: 0 <= a < np.inf, "be a number in [0, 1]")
    return check_real(
        alpha,
        "alpha",
        lambda a: a <= 1,
        "lie in [0, 1] for a policy: beyond 1 no bound is proved and play can be worse "
        "than uniform; take HalfGradient or HalfLeader of prunefair.fairness.beyond_one",
    )


def check_count(count: int, name: str, *, least: int = 1) -> int:
    """Return `count` as an int, or raise if it is no whole number from `least` on.

    Parameters
    ----------
    count : int
        What the caller was given; 3.0 is taken as 3.
    name : str
        Its name.
    least : int
        The smallest that is allowed.

    Returns
    -------
    count : int

    Raises
    ------
    ValueError
        If `count` is no whole number or too small.
    """
    value = array_of(count)
    whole = not value.shape and value.dtype.kind in "iuf" and float(value).is_integer()
    if not whole or value < least:
        kind = "positive whole number" if least == 1 else f"whole number >= {least}"
        raise ValueError(f"{name} is {shown(count)}; it must be a {kind}")
    return int(value)


def check_n_arms(n_arms: int) -> int:
    """Return `n_arms` as an int, or raise if it is not a positive whole number."""
    return check_count(n_arms, "n_arms")


def check_slate(slate: int, n_arms: int) -> int:
    """Return `slate` as an int, or raise if no slate of so many arms can be chosen.

    Parameters
    ----------
    slate : int
        Number of arms in a slate, $k$.
    n_arms : int
        Number of arms $N$.

    Returns
    -------
    slate : int

    Raises
    ------
    ValueError
        If `slate` is no whole number from 1 to `n_arms`.
    """
    k = check_count(slate, "slate")
    if k > n_arms:
        raise ValueError(
            f"slate is {k}, more than there are arms; choose at most {n_arms} of them"
        )
    return k


def check_context(context: Hashable) -> Hashable:
    """Return the key of `context`, or raise if it is no context.

    A context is a string, a real number, a boolean, None, or a tuple of contexts.  A
    numpy scalar is the Python value that it holds, and an enumeration of strings or
    whole numbers is its value.  Two contexts are the same if they are equal in Python:
    1, 1.0 and True are one context, 1 and (1,) are two.  NaN is equal to nothing, so it
    is refused; write None for what is missing.  What no file can hold is refused too:
    whole numbers of more than 2048 bits, and tuples more than 50 deep.

    Parameters
    ----------
    context : hashable

    Returns
    -------
    key : str, int, float, bool, None or tuple of these
        Equal for the same context; what a file can hold.

    Raises
    ------
    TypeError
        If `context` or a part of it is of another type.
    ValueError
        If it is or holds a NaN or too large a number, or is nested too deep.
    """
    return _key_of(context, CONTEXT_DEPTH)


def _key_of(context: Hashable, levels: int) -> Hashable:
    """`check_context` of a part that may hold so many `levels` of tuples."""
    kind = type(context)
    if kind is str or kind is bool or context is None:
        return context
    if kind is int:
        if context.bit_length() > CONTEXT_BITS:
            raise ValueError(
                f"context is or holds {shown(context)}, a number of more than "
                f"{CONTEXT_BITS} bits, which no file can hold; give it as a string"
            )
        return context
    if isinstance(context, tuple):
        if not levels:
            raise ValueError(
                f"context is nested more than {CONTEXT_DEPTH} tuples deep, which no "
                "file can hold; give a flatter tuple or a string"
            )
        return tuple([_key_of(part, levels - 1) for part in context])
    if isinstance(context, np.generic) and context.dtype.kind in "biufU":
        context = context.item()  # a longdouble stays what it is
    if isinstance(context, float):
        if context != context:
            raise ValueError(
                "context is or holds NaN, which is not equal to itself, so it would be "
                "a new context in every round; write None for what is missing"
            )
        return float(context)
    for plain in (bool, int, str):
        if isinstance(context, plain):
            key = plain(context) if plain is not str else str.__str__(context)
            return _key_of(key, levels)
    raise TypeError(
        f"context is or holds {shown(context)} of type {type(context).__name__}; give "
        "a string, number, boolean, None or a tuple of these (of an array or a list: "
        "tuple(values))"
    )


def check_rewards(rewards, n_arms: int) -> np.ndarray:
    """Return `rewards` as float64 of shape (N,), or raise if one is outside [0, 1]."""
    if type(rewards) is np.ndarray and rewards.dtype == np.float64:
        r = rewards
        if r.shape == (n_arms,) and r.min() >= 0 and r.max() <= 1:
            return r.copy()  # the usual case, quickly
    r = array_of(rewards)
    if r.dtype.kind not in "biuf":
        raise ValueError(f"rewards is {shown(rewards)}; it must hold {n_arms} numbers")
    if r.shape != (n_arms,):
        raise ValueError(
            f"rewards has shape {r.shape}; it must be ({n_arms},), a reward for each arm "
            "that there is now, in the order of `arms`"
        )
    if not ((r >= 0) & (r <= 1)).all():  # false for NaN as well
        raise ValueError(f"rewards is {shown(r)}; every entry must lie in [0, 1]")
    return r.astype(np.float64)


def check_played(played, n_arms: int, slate: int = 1) -> np.ndarray:
    """Return `played` as float64 of shape (N,), or raise if it cannot have been played.

    Parameters
    ----------
    played : array_like, shape (N,)
        Probabilities of the arms.
    n_arms, slate : int
        Numbers of arms and of those that are chosen in a round, $N$ and $k$.

    Raises
    ------
    ValueError
        If it has another shape, an entry below 0 or above 1, or another sum than $k$.
    """
    x = array_of(played)
    fits = x.dtype.kind in "biuf" and x.shape == (n_arms,)
    fits = fits and x.size and x.min() >= 0 and (slate == 1 or x.max() <= 1 + 1e-6)
    if not (fits and abs(x.sum() - slate) <= 1e-6):  # false for NaN as well
        raise ValueError(
            f"played is {shown(played)}; it must hold the {n_arms} probabilities that "
            f"were played, whose sum is {slate}, as `probabilities` returned them"
        )
    return x.astype(np.float64)


def check_arm(arm: int, n_arms: int) -> int:
    """Return `arm` as an int, or raise if it is not one of 0, ..., `n_arms` - 1."""
    if type(arm) is int and 0 <= arm < n_arms:
        return arm
    value = array_of(arm)
    if value.shape or value.dtype.kind not in "iuf" or value not in range(n_arms):
        raise ValueError(f"arm is {shown(arm)}; it must be one of 0, ..., {n_arms - 1}")
    return int(value)


def unknown_arm(
    arm: Hashable, arms: tuple[Hashable, ...], retired: frozenset[Hashable]
) -> ValueError:
    """Error for what is the name of no arm: it was one, or never was.

    Parameters
    ----------
    arm : hashable
        What was given.
    arms : tuple
        Names of the arms that there are.
    retired : frozenset
        Names of those that there were.

    Returns
    -------
    error : ValueError
    """
    try:
        gone = check_context(arm) in retired
    except (TypeError, ValueError):
        gone = False
    if gone:
        return ValueError(
            f"arm is {shown(arm)}, which was retired; drop what comes for it or for "
            "another name in `policy.retired`"
        )
    return ValueError(f"arm is {shown(arm)}; it must be one of {shown([*arms], 120)}")


def check_reward(reward: float) -> float:
    """Return `reward` as a float, or raise if it is not a number in [0, 1]."""
    if type(reward) is float and 0 <= reward <= 1:
        return reward
    value = array_of(reward)
    if value.shape or value.dtype.kind not in "biuf" or not 0 <= value <= 1:
        raise ValueError(f"reward is {shown(reward)}; it must be a number in [0, 1]")
    return float(value)


def check_probability(probability: float) -> float:
    """Return `probability` as a float, or raise if no draw can have had it."""
    if type(probability) is float and LEAST_PROBABILITY <= probability <= 1:
        return probability
    return check_real(
        probability,
        "probability",
        lambda p: LEAST_PROBABILITY <= p <= 1,
        f"lie in [{LEAST_PROBABILITY:g}, 1]; clip propensities from below",
    )


def check_mask(mask, n_arms: int) -> np.ndarray:
    """Return `mask` as booleans of shape (N,), or raise if it leaves no arm.

    Parameters
    ----------
    mask : array_like of bool, shape (N,)
        Whether each arm may be played now.
    n_arms : int
        Number of arms $N$.

    Returns
    -------
    mask : ndarray, shape (N,), bool

    Raises
    ------
    ValueError
        If it has another shape or kind, or no entry is true.
    """
    allowed = array_of(mask)
    if allowed.dtype != bool or allowed.shape != (n_arms,) or not allowed.any():
        raise ValueError(
            f"mask is {shown(mask)}; it must hold {n_arms} booleans, at least one of "
            "them True"
        )
    return allowed


def masked_play(p: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The distribution `p` without the arms that are masked, renormalised.

    Parameters
    ----------
    p : ndarray, shape (N,), float64
        A distribution.
    mask : ndarray, shape (N,), bool
        Whether each arm may be played; one at least.

    Returns
    -------
    play : ndarray, shape (N,), float64
        At least `p` where `mask` holds, 0 elsewhere; uniform where `mask` holds if `p`
        has nothing there.
    """
    play = np.where(mask, p, 0.0)
    total = play.sum()
    return play / total if total > 0 else mask / mask.sum()


def drawn_place(p: np.ndarray, u: float) -> int:
    """Place that the number `u` in [0, 1) draws from the distribution `p`, (N,)."""
    cumulative = np.cumsum(p)
    place = int(cumulative.searchsorted(u * cumulative[-1], "right"))
    return min(place, int(p.nonzero()[0][-1]))  # where the product was rounded up


def check_arms(arms: Iterable[Hashable]) -> tuple[Hashable, ...]:
    """Return the names `arms` as a tuple, or raise if they are none.

    Parameters
    ----------
    arms : iterable
        Names of what a context may be, as `check_context` says; no two are equal.

    Returns
    -------
    keys : tuple

    Raises
    ------
    ValueError
        If there is none, two are equal, or one is no name.
    """
    try:
        keys = tuple(check_context(arm) for arm in arms)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"n_arms is {shown(arms)}; the name of an arm is a string, number, "
            "boolean, None or a tuple of these"
        ) from error
    if not keys or len(set(keys)) < len(keys):
        raise ValueError(
            f"n_arms is {shown(arms)}; give a number, or names of which no two are equal"
        )
    return keys


def arms_of(n_arms: Any) -> tuple[Hashable, ...]:
    """Names of the arms that `n_arms`, a number or names in an order, stands for.

    Parameters
    ----------
    n_arms : int or sequence of names

    Returns
    -------
    arms : tuple

    Raises
    ------
    ValueError
        If it is neither; a set has no order.
    """
    if isinstance(n_arms, set | frozenset):
        raise ValueError(
            f"n_arms is {shown(n_arms)}, a set, which has no order; give a list or a "
            "tuple, sorted(names)"
        )
    named = isinstance(n_arms, Iterable) and not isinstance(n_arms, str | bytes)
    if named and getattr(n_arms, "shape", True) != ():
        return check_arms(tuple(n_arms))
    try:
        return tuple(range(check_n_arms(n_arms)))
    except ValueError as error:
        raise ValueError(f"{error} or a list of names") from None


def check_generator(rng: np.random.Generator, name: str = "rng") -> np.random.Generator:
    """Return `rng`, or raise if it is not numpy's random generator."""
    if not isinstance(rng, np.random.Generator):
        raise ValueError(
            f"{name} is {shown(rng)}; give a generator, numpy.random.default_rng(seed)"
        )
    return rng


def read_only(array: np.ndarray) -> np.ndarray:
    """`array` if nobody can write to it, else a copy that nobody can write to."""
    owner = array if array.base is None else array.base
    if (
        array.flags.writeable
        or not isinstance(owner, np.ndarray)
        or owner.flags.writeable
    ):
        array = array.copy()
        array.flags.writeable = False
    return array


def owned(array: np.ndarray) -> np.ndarray:
    """`array`, just made and held by nobody else, which from now on is read-only."""
    array.flags.writeable = False
    return array


def frozen_value(value: Any) -> Any:
    """`value`, an array or a named tuple of arrays, with `read_only` arrays."""
    if isinstance(value, np.ndarray):
        return read_only(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = [frozen_value(part) for part in value]
        if any(new is not old for new, old in zip(parts, value)):
            return type(value)(*parts)
    return value


class _Learners(dict):
    """Learners by context; their arrays cannot be written to."""

    def __copy__(self) -> _Learners:
        return type(self)(self)

    def __setitem__(self, context: Hashable, state: NamedTuple) -> None:
        super().__setitem__(context, frozen_value(state))


class Draw(NamedTuple):
    """The arm that was drawn, by its name, and the probability that it had."""

    arm: Hashable
    probability: float


class Policy(ABC):
    """A policy over `n_arms` arms that keeps one learner for each context.

    What a context is, and when two are the same, says `check_context`; its learner is
    created by the first update.  All state is `rewards`, the cumulative reward $R$ of
    each arm, the named tuple `shared` and one named tuple a context in `learners`, all
    made of arrays and numbers.  Arrays that a policy holds cannot be written to, and
    what it returns belongs to the caller.  Subclasses are pure in the learners: a step
    takes a state and returns a new one.

    Threads may call `probabilities`, `draw`, `update` and `save` of one policy at any
    time: updates wait for each other, and a file holds the state between two of them.
    The engines (`simulate`, `run_fast`, `run_batch`) want the policy for themselves.

    Arms come and go: `add_arm` begins one, `retire_arm` ends one.  An arm keeps its
    name, whatever its place; unnamed ones are called 0, 1, ... in the order in which
    they came.  No name is given twice, for a reward that is still on its way to the arm
    that had it would count for the one that has it now.

    Parameters
    ----------
    n_arms : int or sequence of names
        Number of arms $N$, or their names, each of which may be what a context may be.

    Attributes
    ----------
    arms : tuple
        Name of each arm, in the order in which distributions and rewards hold them.
    retired : frozenset
        Names of the arms that there were.  `update` and `update_many` refuse what comes
        for them late; drop a reward whose arm is `in policy.retired`.
    rewards : ndarray, shape (N,), float64
        Cumulative rewards $R_i(t)$, reward units; $R_i(0) = 1$.
    learners : dict
        State of the learner of each context seen so far.
    shared : NamedTuple or None
        State that all contexts share, beside `rewards`.

    Raises
    ------
    ValueError
        If `n_arms` is no positive whole number and no list of names.
    """

    feedback: ClassVar[str]
    slate = 1  # arms that are chosen in a round
    #: Whether `play` is what was asked for last, None if nothing was asked so far.
    _asked: bool | None = None

    def __init__(self, n_arms: int | Sequence[Hashable]):
        self._lock = threading.Lock()
        self._set_arms(arms_of(n_arms))
        self._named = 0  # numbers below were names of arms that are gone
        self.retired: frozenset[Hashable] = frozenset()
        self.rewards = np.ones(self.n_arms)
        self.learners: dict[Hashable, NamedTuple] = _Learners()
        self.shared: NamedTuple | None = None
        self._limit: int | None = None
        self._recent: dict[Hashable, None] = {}  # by their last update, if limited

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, frozen_value(value))

    @property
    def max_contexts(self) -> int | None:
        """How many contexts are remembered, all if None, which can be set.

        Beyond it the context whose last update is longest ago is forgotten: its learner
        goes, and if it comes again it is new.  `rewards` and `shared` stay.
        """
        return self._limit

    @max_contexts.setter
    def max_contexts(self, limit: int | None) -> None:
        if limit is not None:
            limit = check_count(limit, "max_contexts")
        with self._lock:
            self._limit, self._recent = limit, {}
            self._forget_oldest()

    def forget(self, context: Hashable) -> None:
        """Forget the learner of `context`, if there is one; what is shared stays."""
        key = check_context(context)
        with self._lock:
            self._recent.pop(key, None)
            self.learners.pop(key, None)

    def _updated(self, context: Hashable) -> None:
        """Note the update of `context`, and forget what is beyond the limit."""
        if self._asked:
            self._asked = False
        if self._limit is not None:
            self._recent.pop(context, None)
            if context in self.learners:
                self._recent[context] = None
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Forget the contexts beyond the limit that were updated longest ago."""
        if self._limit is None:
            return
        if len(self._recent) < len(self.learners):  # set anew, or after an engine
            older = (key for key in self.learners if key not in self._recent)
            self._recent = dict.fromkeys(older) | self._recent
        while len(self.learners) > self._limit:
            oldest = next(iter(self._recent))
            del self._recent[oldest], self.learners[oldest]

    def _learn_all(self, columns: dict[str, Any]) -> None:
        """Learn from rounds in their order, or from none if one fails."""
        with self._lock:  # arms neither come nor go between check and update
            rounds = checked_rounds(self._checked, columns)
            names = ("learners", "shared", "rewards", "_recent")
            before = {name: copy(getattr(self, name)) for name in names}
            try:
                for feedback in rounds:
                    self._learn(*feedback)
            except BaseException:
                for name, value in before.items():
                    setattr(self, name, value)
                raise

    def _set_arms(self, keys: Iterable[Hashable]) -> None:
        self.arms = tuple(keys)
        self._places = {key: place for place, key in enumerate(self.arms)}
        self.n_arms = len(self.arms)

    def _place(self, arm: Hashable) -> int:
        """Place of an arm by its name, or raise if there is none."""
        if type(arm) in (int, str) and arm in self._places:
            return self._places[arm]
        if not self.retired and self.arms == tuple(range(self.n_arms)):
            return check_arm(arm, self.n_arms)
        try:
            return self._places[check_context(arm)]
        except (KeyError, TypeError, ValueError):
            raise unknown_arm(arm, self.arms, self.retired) from None

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = self.__dict__ | {"learners": self.learners.copy()}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._lock = threading.Lock()
        for name, value in state.items():
            setattr(self, name, value)
        self.learners = _Learners()
        for context, learner in state["learners"].items():
            self.learners[context] = learner

    def config(self) -> dict[str, Any]:
        """Arguments that build an equal, untrained policy; plain JSON values.

        They are the attributes that have the names of the constructor's arguments.
        """
        return {name: getattr(self, name) for name in signature(type(self)).parameters}

    @abstractmethod
    def initial(self) -> NamedTuple:
        """State of a learner whose context has not been seen."""

    @abstractmethod
    def play(self, context: Hashable) -> np.ndarray:
        """Distribution over the arms, shape (N,), for a checked `context`."""

    #: `begun(x, gradients)` is the state of a learner that begins at the distribution
    #: `x`, shape (N,), after a log with these surrogate rewards, shape (T, N); a policy
    #: without it has no warm start.
    begun: ClassVar[Callable | None] = None

    def probabilities(self, context: Hashable, *, mask=None) -> np.ndarray:
        """Distribution over the arms, shape (N,), for `context`; changes no state.

        Parameters
        ----------
        context : hashable
            As `check_context` says.
        mask : array_like of bool, shape (N,), optional
            Whether each arm may be played now; what is left is renormalised.  Such a
            round is told to `update` with what was played, `played` or `probability`.

        Raises
        ------
        TypeError, ValueError
            If `context` is none, or `mask` leaves no arm.
        """
        p = self.play(check_context(context))
        self._asked = mask is None
        if mask is None:
            return np.array(p)
        return masked_play(p, check_mask(mask, self.n_arms))

    def draw(self, context: Hashable, rng: np.random.Generator, *, mask=None) -> Draw:
        """An arm drawn from `probabilities`, with its probability; changes no state.

        Parameters
        ----------
        context : hashable
            As `check_context` says.
        rng : numpy.random.Generator
            Gives one uniform number.
        mask : array_like of bool, shape (N,), optional
            Whether each arm may be played now.

        Returns
        -------
        draw : Draw
            The name of the arm, and its probability among those that may be played.

        Raises
        ------
        TypeError, ValueError
            As `probabilities`, or if `rng` is no generator.
        """
        check_generator(rng)
        with self._lock:  # so that the names are those of the probabilities
            p, arms = self.probabilities(context, mask=mask), self.arms
        place = drawn_place(p, rng.random())
        return Draw(arms[place], float(p[place]))

    def learner(self, context: Hashable) -> NamedTuple:
        """State of the learner of `context`, the initial one if it is new."""
        state = self.learners.get(check_context(context))
        return self.initial() if state is None else state

    def warm_start(self, contexts, rewards):
        r"""Begin where the offline optimum of a log plays, as if it had played there.

        Each learner begins at the distribution of its context, and the cumulative
        rewards are those of the optimum on the log.

        Parameters
        ----------
        contexts : sequence, length T
            Context of each round of the log, as `check_context` says.
        rewards : array_like, shape (T, N)
            Rewards of all arms in [0, 1], reward units, in the order of `arms`.

        Returns
        -------
        optimum : OfflineOptimum
            Its row $j$ belongs to the $j$-th context of `learners`.

        Raises
        ------
        TypeError, ValueError
            If a context is none, `rewards` do not fit, the policy has learned already,
            or it has no such start; it is unchanged then.
        """
        from prunefair.fairness.offline_optimum import reward_sums, solve_offline

        if self.begun is None:
            kind = type(self).__name__
            raise ValueError(f"a {kind} has no warm start; replay the log by `update`")
        if self.learners or (self.rewards != 1).any():
            raise ValueError("the policy has learned already; warm-start a new one")
        r, index = check_numbers(rewards, "rewards").astype(np.float64), {}
        rows = [index.setdefault(check_context(c), len(index)) for c in contexts]
        if r.shape != (len(rows), self.n_arms) or not rows:
            raise ValueError(
                f"rewards has shape {r.shape}; it must be {(len(rows), self.n_arms)}, a "
                "row for each round of the log, which has one at least"
            )
        G = reward_sums(rows, r, len(index))
        optimum = solve_offline(G, self.alpha, slate=self.slate)
        gradients = r * optimum.rewards**-self.alpha
        begun = {
            context: self.begun(optimum.x[row], gradients[np.array(rows) == row])
            for context, row in index.items()
        }
        with self._lock:
            self.rewards = optimum.rewards
            for context, state in begun.items():
                self.learners[context] = state
            self._forget_oldest()
        return optimum

    def add_arm(self, arm: Hashable = None, *, initial: float = 1.0) -> Hashable:
        r"""Begin a new arm, last in the order, and return its name.

        Learners take it up as an arm that was there and has paid nothing so far; what
        is proved of that stands beside the definition of each policy.

        Parameters
        ----------
        arm : hashable, optional
            Its name, one that no arm has or had; by default the next whole number.
        initial : float
            $R_i$ to begin with, at least 1 and in reward units.  With more it is
            treated as one that has earned as much, and is favoured less.

        Raises
        ------
        ValueError
            If the name is none, taken, or that of an arm that was retired, or
            `initial` is below 1; nothing is changed.
        """
        start = check_real(
            initial, "initial", lambda c: 1 <= c < np.inf, "be at least 1, finite"
        )
        with self._lock:
            key = self._next_name() if arm is None else check_arms([arm])[0]
            if key in self._places:
                raise ValueError(
                    f"arm is {shown(arm)}, which there is; take a new name"
                )
            if key in self.retired:
                raise ValueError(
                    f"arm is {shown(arm)}, which was retired: rewards still on their "
                    "way would count for the new one; take a new name"
                )
            self._rearrange((*self.arms, key), [*range(self.n_arms), -1], start)
        return key

    def retire_arm(self, arm: Hashable) -> None:
        """End an arm: it is played no more, and what it earned is forgotten.

        Its probability in each context goes to the others.  Its name is not given again
        and stands in `retired`: `update` and `update_many` refuse rewards that come for
        it later, which are to be dropped.

        Raises
        ------
        ValueError
            If there is no such arm, or no other; nothing is changed then.
        """
        with self._lock:
            gone = self._place(arm)
            if self.n_arms == 1:
                raise ValueError(f"arm is {shown(arm)}, the only one; add one before")
            left = [place for place in range(self.n_arms) if place != gone]
            self.retired |= {self.arms[gone]}
            self._rearrange(tuple(self.arms[place] for place in left), left, 1.0)

    def _next_name(self) -> int:
        """A whole number that was never the name of an arm."""
        return max([self._named, *(a + 1 for a in self.arms if type(a) is int)])

    def _rearrange(self, arms: tuple, old: list[int], initial: float) -> None:
        """Take over other arms, the one in place i from place `old[i]`, -1 if new."""
        places, named = np.array(old), self._next_name()
        rewards = np.where(places < 0, initial, self.rewards[places])
        moved = {
            context: self.rearranged(state, places, rewards)
            for context, state in self.learners.items()
        }
        shared = self.shared and self.rearranged(self.shared, places, rewards)
        self._set_arms(arms)
        self._named = max(named, self._next_name())
        self.rewards, self.shared = rewards, shared
        for context, state in moved.items():
            self.learners[context] = state

    def rearranged(
        self, state: NamedTuple, places: np.ndarray, rewards: np.ndarray
    ) -> NamedTuple:
        """State of a learner, or `shared`, for other arms: entries moved and begun.

        Parameters
        ----------
        state : NamedTuple
        places : ndarray, shape (N',), int
            Place that each arm had, -1 for a new one.
        rewards : ndarray, shape (N',), float64
            Cumulative rewards of the arms that there are now, reward units.

        Returns
        -------
        state : NamedTuple
        """
        changed = {}
        for name, value in state._asdict().items():
            if name in _OF_A_NEW_ARM:
                new = np.asarray(value)[..., places]
                new[..., places < 0] = _OF_A_NEW_ARM[name]
                changed[name] = new
        return state._replace(**changed)

    def save(self, path: str | os.PathLike) -> None:
        """Write the whole state to one npz file; `load` resumes it bit for bit.

        Other threads may go on updating: what is written is the state between two
        updates.

        Raises
        ------
        TypeError, ValueError
            If `path` is no name of a file in an existing folder.
        OSError
            If it cannot be written.
        """
        check_new_file(path)
        with self._lock:
            rewards, shared, learners = self.rewards, self.shared, dict(self.learners)
            config, arms, named = self.config(), self.arms, self._next_name()
            limit, retired = self._limit, self.retired
            recent = [key for key in self._recent if key in learners]
        for key in recent:  # the last in the file is the last that was updated
            learners[key] = learners.pop(key)
        header = {
            "policy": type(self).__name__,
            "config": config,
            "contexts": [encode_key(check_context(key)) for key in learners],
        }
        if (arms, named) != (tuple(range(len(arms))), len(arms)):
            header |= {"arms": [encode_key(arm) for arm in arms], "named": named}
        if retired:
            header["retired"] = [encode_key(arm) for arm in sorted(retired, key=repr)]
        if limit is not None:
            header["max_contexts"] = limit
        arrays = {"header": np.array(json.dumps(header)), "rewards": rewards}
        if shared is not None:
            arrays |= {f"shared.{k}": v for k, v in shared._asdict().items()}
        states = list(learners.values())
        for field in states[0]._fields if states else ():
            arrays[f"learners.{field}"] = np.stack([getattr(s, field) for s in states])
        with whole_file(path) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Policy:
        """Policy saved by `save`; of the class that is in the file if `cls` is abstract.

        `Policy.load` finds the class among the policies of the book and what else is
        imported.  Nothing is unpickled, and no more is read than the file is long.  Whatever
        `save` guarantees is checked: every array with its shape and kind, finite and in
        range, distributions on the simplex, and a learner for every context.

        Raises
        ------
        ValueError
            If `path` holds no whole policy or one of another kind.
        TypeError
            If `path` is no name of a file.
        OSError
            If `path` cannot be read.
        """
        path = checked_path(path)
        with opened_file(path) as file:
            try:
                arrays = arrays_of_file(file)
                header = _header_of(arrays)
                kind = cls._kind(header["policy"])
                policy = kind and kind._restored(header, arrays)
            except Exception as error:
                reason = shown(str(error), 120).strip("\"'")
                raise ValueError(
                    f"path is {shown(path)}, which holds no policy or is "
                    f"damaged ({reason}); give a file that `save` wrote"
                ) from error
        if not policy:
            known = header["policy"] in {kind.__name__ for kind in _below(Policy)}
            remedy = f"load it with {header['policy']}.load, not {cls.__name__}.load"
            raise ValueError(
                f"path is {shown(path)}, which holds a {header['policy']}; "
                + (remedy if known else "no policy that is imported has this name")
            )
        return policy

    @classmethod
    def _kind(cls, name: str) -> type[Policy] | None:
        """The class of that name, which is `cls` unless `cls` is abstract, or None."""
        if not isabstract(cls):
            return cls if cls.__name__ == name else None
        for module in MODULES:
            import_module(f"prunefair.fairness.{module}")
        kinds = [k for k in _below(cls) if k.__name__ == name and not isabstract(k)]
        if len(kinds) > 1:
            raise ValueError(f"{len(kinds)} classes have the name {name}")
        return kinds[0] if kinds else None

    @classmethod
    def _restored(cls, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Policy:
        """The policy of a file, or raise if it is not what `save` writes."""
        contexts = [check_context(decode_key(value)) for value in header["contexts"]]
        config, earned = header["config"], arrays.pop("rewards")
        if config.get("n_arms", earned.size) != earned.size:  # before it takes memory
            raise ValueError("rewards do not fit n_arms")
        policy = cls(**config)
        if "arms" in header:
            arms = check_arms(decode_key(value) for value in header["arms"])
            if len(arms) != policy.n_arms:
                raise ValueError("arms do not fit n_arms")
            policy._set_arms(arms)
            policy._named = check_count(header["named"], "named", least=0)
        if "retired" in header:
            policy.retired = frozenset(
                check_context(decode_key(value)) for value in header["retired"]
            )
            if policy.retired & set(policy.arms):
                raise ValueError("an arm is there and retired")
        policy.rewards = policy._loaded("rewards", earned, policy.rewards)
        like = policy.empty(len(contexts))
        if like is not None:
            fields = {k: arrays.pop(f"shared.{k}") for k in like._fields}
            policy.shared = like._replace(
                **{k: policy._loaded(k, v, getattr(like, k)) for k, v in fields.items()}
            )
        new, columns = policy.initial(), []
        for name in new._fields if contexts else ():
            one = np.broadcast_to(
                getattr(new, name), (len(contexts), *np.shape(getattr(new, name)))
            )
            columns.append(policy._loaded(name, arrays.pop(f"learners.{name}"), one))
        born = dict(policy.learners)
        for row, key in enumerate(contexts):
            state = (values[row] for values in columns)
            policy.learners[key] = type(new)(
                *(v.copy() if v.ndim else v.item() for v in state)
            )
        if arrays or len(policy.learners) != len(contexts):
            raise ValueError("there are arrays or learners too many or too few")
        if any(policy.learners[key] != state for key, state in born.items()):
            raise ValueError("learners are lost")
        if "max_contexts" in header:
            policy.max_contexts = header["max_contexts"]
            if len(policy.learners) != len(contexts):
                raise ValueError("there are more contexts than it remembers")
        return policy

    def empty(self, n_learners: int) -> NamedTuple | None:
        """`shared` with the shapes that it has beside so many learners."""
        return self.shared

    def _loaded(self, name: str, values: np.ndarray, like: np.ndarray) -> np.ndarray:
        """A field of the state as `like`, or raise if no policy can be in it."""
        wanted = np.asarray(like)
        if (
            values.shape != wanted.shape
            or values.dtype.newbyteorder("=") != wanted.dtype
        ):
            raise ValueError(f"{name} has another shape or kind of number")
        allowed = _RANGES.get(name, lambda v: v >= 0)(values)
        if name == "point" and self.feedback == "bandit":  # estimates divide by it
            allowed = allowed & (values > 0)
        if not (np.isfinite(values) & allowed).all():
            raise ValueError(f"{name} has an entry out of range")
        return values.astype(wanted.dtype)


_OF_A_NEW_ARM = {  # entries of a state that are one for each arm, and how they begin
    "point": 0.0,
    "estimates": 0.0,
    "gains": 0.0,
    "pulls": 0.0,
    "earned": 1.0,
    "losses": 0.0,
    "multipliers": 0.0,
}
_RANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # others are at least 0
    "rewards": lambda v: v >= 1,
    "earned": lambda v: v >= 1,
    "point": lambda v: (v >= 0) & (abs(v.sum(-1, keepdims=True) - 1) <= 1e-9),
    "estimates": lambda v: np.isfinite(v),
    "scale": lambda v: (v > 0) & (v <= 1),
    "index": lambda v: np.sort(v) == np.arange(len(v)),
}


class FullInformationPolicy(Policy):
    """A policy that sees the reward of every arm after each round.

    Play is fractional: arm $i$ earns $r_i(t) x_i(t)$, the expected reward of a draw.
    """

    feedback = "full"

    @abstractmethod
    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        """Learn from `rewards`, already checked; `x` is what was played."""

    def update(self, context: Hashable, rewards, *, played=None) -> None:
        """Learn from the rewards of all arms in `context`.

        Parameters
        ----------
        context : hashable
            The context $j_t$ in which $x(t)$ was played, as `check_context` says.
        rewards : array_like, shape (N,)
            Rewards $r(t) \\in [0, 1]^N$, reward units, of the arms that there are now, in
            the order of `arms`; 0 for an arm that was masked or is new since the play.
        played : array_like, shape (N,), or mapping, optional
            What `probabilities(context)` returned when the round was played; by default
            what it returns now, which is the same only if no update came between and no
            arm was masked.  If arms came or went between, their names then with the
            probabilities, `dict(zip(policy.arms, p))`.

        Raises
        ------
        ValueError
            If `rewards` has another shape or an entry outside [0, 1], `played` is no
            distribution, or `context` holds NaN; the state is unchanged then.
        TypeError
            If `context` is none.
        """
        with self._lock:
            self._learn(*self._checked(context, rewards, played))

    def update_many(self, contexts, rewards, *, played=None) -> None:
        """Learn from several rounds in their order, as `update` one by one would.

        Parameters
        ----------
        contexts : sequence, length T
            Context of each round.
        rewards : array_like, shape (T, N)
            Rewards of all arms, reward units.
        played : array_like, shape (T, N), or sequence of mappings, optional
            What was played in each round, as for `update`; by default what is played
            when its turn comes.

        Raises
        ------
        TypeError, ValueError
            As `update`, with the number of the round; the state is unchanged then.
        """
        columns = {"contexts": contexts, "rewards": rewards, "played": played}
        self._learn_all(columns)

    def _checked(self, context: Hashable, rewards, played) -> tuple:
        context = check_context(context)
        r = check_rewards(rewards, self.n_arms)
        return context, r, None if played is None else self._in_order(played)

    def _in_order(self, played) -> np.ndarray:
        """What was played, shape (N,), as the arms stand now; by their names if given."""
        if not isinstance(played, Mapping):
            return check_played(played, self.n_arms, self.slate)
        named = {check_context(arm): p for arm, p in played.items()}
        unknown = named.keys() - self._places.keys() - self.retired
        if unknown:
            raise ValueError(
                f"played has {shown(min(unknown, key=repr))}, which is and was no arm"
            )
        check_played(list(named.values()), len(named), self.slate)
        return np.array([named.get(arm, 0.0) for arm in self.arms], np.float64)

    def _learn(self, context: Hashable, r: np.ndarray, x: np.ndarray | None) -> None:
        x = self.play(context) if x is None else x
        self.step(context, x, r)
        self.rewards = owned(self.rewards + r * x)
        self._updated(context)


class BanditPolicy(Policy):
    """A policy that sees only the reward of the arm it pulled."""

    feedback = "bandit"
    told: ClassVar[str] = "probability"  # what a late `update` is told by
    _warned: bool = False  # of a late `update` that was not told

    def drawn(self, p: np.ndarray, u: float) -> tuple[Hashable, Any]:
        """Name and place of the arm that the uniform number `u` draws from `p`."""
        place = drawn_place(p, u)
        return self.arms[place], place

    @abstractmethod
    def step(
        self, context: Hashable, arm: int, reward: float, probability: float
    ) -> None:
        """Learn from the checked `reward` of `arm`, drawn with `probability`."""

    def update(
        self,
        context: Hashable,
        arm: Hashable,
        reward: float,
        *,
        probability: float | None = None,
    ) -> None:
        """Learn from the reward of the arm pulled in `context`.

        Parameters
        ----------
        context : hashable
            The context $j_t$, as `check_context` says.
        arm : int or name
            The arm $I_t$ that was drawn, by its name; unnamed ones are called 0, 1, ...
        reward : float
            Its reward in [0, 1], reward units.
        probability : float, optional
            With which the arm was drawn, as `draw` returned it.  Give it for a reward
            that comes late: the default is that of now, which is the same only if no
            update came between and no arm was masked.

        Raises
        ------
        ValueError
            If `arm` is unknown or was retired, `reward` is outside [0, 1],
            `probability` is outside [1e-9, 1], or not given for an arm that is now all
            but never drawn, or `context` holds NaN; the state is unchanged then.
        TypeError
            If `context` is none.

        Warns
        -----
        UserWarning
            Once, if `probability` is not given though the policy was updated, or an arm
            was masked, when it was last asked what to play.
        """
        with self._lock:
            self._learn(*self._checked(context, arm, reward, probability))

    def update_many(self, contexts, arms, rewards, *, probabilities=None) -> None:
        """Learn from several rounds in their order, as `update` one by one would.

        Parameters
        ----------
        contexts, arms : sequence, length T
            Context and arm of each round; none of the arms is retired.
        rewards : array_like, shape (T,)
            Reward of the arm, reward units.
        probabilities : array_like, shape (T,), optional
            With which each arm was drawn, as for `update`.

        Raises
        ------
        TypeError, ValueError
            As `update`, with the number of the round; the state is unchanged then.

        Examples
        --------
        Rewards that come too late, for arms that were retired meanwhile, are dropped:

        >>> from prunefair import ScaleFreeBandit
        >>> policy = ScaleFreeBandit(["news", "sport", "film"], alpha=0.9)
        >>> policy.retire_arm("news")
        >>> late = [("ada", "news", 1.0, 0.3), ("ada", "film", 1.0, 0.3)]
        >>> kept = [row for row in late if row[1] not in policy.retired]
        >>> contexts, arms, rewards, p = zip(*kept)
        >>> policy.update_many(contexts, arms, rewards, probabilities=p)
        >>> policy.rewards
        array([1., 2.])
        """
        columns = {"contexts": contexts, "arms": arms, "rewards": rewards}
        columns["probabilities"] = probabilities
        self._learn_all(columns)

    def _checked(self, context: Hashable, arm, reward, probability) -> tuple:
        context, place = check_context(context), self._place(arm)
        reward = check_reward(reward)
        if probability is not None:
            probability = check_probability(probability)
        return context, place, reward, probability

    def _play_now(self, context: Hashable) -> np.ndarray:
        """What stands for a play that was not told; warn where it may be another."""
        if self._asked is False and not self._warned:
            self._warned = True
            warnings.warn(
                f"`{self.told}` is not given, and since the policy was last asked it was "
                f"updated, or an arm was masked: what it would play now is taken; give "
                f"`{self.told}` as `draw` returned it",
                stacklevel=4,
            )
        return self.play(context)

    def _learn(self, context, place: int, reward: float, probability) -> None:
        p = probability
        if p is None:
            p = float(self._play_now(context)[place])
        if p < NEVER:
            raise ValueError(
                f"arm is {shown(self.arms[place])}, which is drawn with probability "
                f"{p:.0e} now; give `probability`, that of the draw"
            )
        self.step(context, place, reward, p)
        rewards = self.rewards.copy()
        rewards[place] += reward
        self.rewards = owned(rewards)
        self._updated(context)


def checked_rounds(check: Callable, columns: dict[str, Any]) -> list[tuple]:
    """Rows of `columns`, each checked; a column of None stands for Nones."""
    given = {k: list(v) for k, v in columns.items() if v is not None}
    sizes = {k: len(v) for k, v in given.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{shown(sizes)} are the lengths; they must agree")
    rounds = []
    for t in range(sizes["contexts"]):
        try:
            row = (given[k][t] if k in given else None for k in columns)
            rounds.append(check(*row))
        except (TypeError, ValueError) as error:
            raise type(error)(f"round {t}: {shortened(str(error), 270)}") from error
    return rounds


def opened_file(path: str):
    """The file of that name, open, or raise with a remedy."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise type(error)(
            f"path is {shown(path)}, which cannot be read ({error.strerror}); give a "
            "file that `save` wrote"
        ) from error


def _below(kind: type) -> set[type]:
    """The classes derived from `kind`."""
    children = kind.__subclasses__()
    return set(children).union(*map(_below, children))


def encode_key(key: Hashable) -> Any:
    """A context or the name of an arm as JSON holds it."""
    return (
        {"tuple": [encode_key(part) for part in key]} if isinstance(key, tuple) else key
    )


def decode_key(value: Any) -> Hashable:
    """The context or name that `encode_key` encoded."""
    if isinstance(value, dict):
        return tuple(decode_key(part) for part in value["tuple"])
    return value


def arrays_of_file(file) -> dict[str, np.ndarray]:
    """The arrays of an open npz file, which `save` writes without compression."""
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        stored = all(m.compress_type == zipfile.ZIP_STORED for m in members)
        if not stored or sum(m.file_size for m in members) > size:  # sizes may lie
            raise ValueError("its parts are compressed or overlap")
        arrays = {
            m.filename.removesuffix(".npy"): _array_of(archive.read(m)) for m in members
        }
    if len(arrays) != len(members):
        raise ValueError("two of its parts have one name")
    return arrays


def _array_of(data: bytes) -> np.ndarray:
    """The array of an npy file, whose header must fit its length."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array is of another version")
    shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
    body = data[file.tell() :]
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError("an array is not as long as it says")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if by_column else "C")


def _header_of(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What `save` wrote beside the arrays, taken out of them."""
    header = json.loads(str(arrays.pop("header")))
    kinds = {"policy": str, "config": dict, "contexts": list}
    if "arms" in header:
        kinds |= {"arms": list, "named": int}
    if "retired" in header:
        kinds["retired"] = list
    if "max_contexts" in header:
        kinds["max_contexts"] = int
    if {name: type(value) for name, value in header.items()} != kinds:
        raise ValueError("its header is not as it should be")
    if not (header["policy"].isidentifier() and len(header["policy"]) < 60):
        raise ValueError("its header names no policy")
    return header
