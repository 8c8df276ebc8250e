"""What every bandit policy of Part II shares: contexts, checks, saving, resuming."""

from __future__ import annotations

import io
import json
import math
import os
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from prunefair.messages import checked_path, shown
from prunefair.outputs import check_new_file, whole_file

CONTEXT_BITS = 2048  # of a whole number: below 640 digits, which Python always reads
CONTEXT_DEPTH = 50  # of tuples, far below what a parser of JSON can follow
LEAST_PROBABILITY = 1e-9  # a single reward weighs no more than its inverse
NEVER = 1e-18  # an arm of less probability has not been drawn


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
    second exercise on full information.
    """
    check_real(alpha, "alpha", lambda a: 0 <= a < np.inf, "be a number in [0, 1]")
    return check_real(
        alpha,
        "alpha",
        lambda a: a <= 1,
        "lie in [0, 1] for a policy: beyond 1 no bound is proved and play can be worse "
        "than uniform; utility and offline optimum take every alpha",
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
    r = array_of(rewards)
    if r.dtype.kind not in "biuf":
        raise ValueError(f"rewards is {shown(rewards)}; it must hold {n_arms} numbers")
    if r.shape != (n_arms,):
        raise ValueError(f"rewards has shape {r.shape}; it must be ({n_arms},)")
    if not ((r >= 0) & (r <= 1)).all():  # false for NaN as well
        raise ValueError(f"rewards is {shown(r)}; every entry must lie in [0, 1]")
    return r.astype(np.float64)


def check_played(played, n_arms: int) -> np.ndarray:
    """Return `played` as float64 of shape (N,), or raise if it is no distribution."""
    x = array_of(played)
    fits = x.dtype.kind in "biuf" and x.shape == (n_arms,)
    if not fits or not ((x >= 0).all() and abs(x.sum() - 1) <= 1e-6):
        raise ValueError(
            f"played is {shown(played)}; it must hold the {n_arms} probabilities that "
            "were played, as `probabilities` returned them"
        )
    return x.astype(np.float64)


def check_arm(arm: int, n_arms: int) -> int:
    """Return `arm` as an int, or raise if it is not one of 0, ..., `n_arms` - 1."""
    value = array_of(arm)
    if value.shape or value.dtype.kind not in "iuf" or value not in range(n_arms):
        raise ValueError(f"arm is {shown(arm)}; it must be one of 0, ..., {n_arms - 1}")
    return int(value)


def check_reward(reward: float) -> float:
    """Return `reward` as a float, or raise if it is not a number in [0, 1]."""
    value = array_of(reward)
    if value.shape or value.dtype.kind not in "biuf" or not 0 <= value <= 1:
        raise ValueError(f"reward is {shown(reward)}; it must be a number in [0, 1]")
    return float(value)


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

    def __setitem__(self, context: Hashable, state: NamedTuple) -> None:
        super().__setitem__(context, frozen_value(state))


class Policy(ABC):
    """A policy over `n_arms` arms that keeps one learner for each context.

    What a context is, and when two are the same, says `check_context`; its learner is
    created by the first update.  All state is `rewards`, the cumulative reward $R$ of
    each arm, the named tuple `shared` and one named tuple a context in `learners`, all
    made of arrays and numbers.  Arrays that a policy holds cannot be written to, and
    what it returns belongs to the caller.  Subclasses are pure in the learners: a step
    takes a state and returns a new one.

    Threads may call `probabilities`, `update` and `save` of one policy at any time:
    updates wait for each other, and a file holds the state between two of them.  The
    engines (`simulate`, `run_fast`, `run_batch`) want the policy for themselves.

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
        self._lock = threading.Lock()
        self.n_arms = check_n_arms(n_arms)
        self.rewards = np.ones(self.n_arms)
        self.learners: dict[Hashable, NamedTuple] = _Learners()
        self.shared: NamedTuple | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, frozen_value(value))

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

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Arguments that build an equal, untrained policy; plain JSON values."""

    @abstractmethod
    def initial(self) -> NamedTuple:
        """State of a learner whose context has not been seen."""

    @abstractmethod
    def play(self, context: Hashable) -> np.ndarray:
        """Distribution over the arms, shape (N,), for a checked `context`."""

    def probabilities(self, context: Hashable) -> np.ndarray:
        """Distribution over the arms, shape (N,), for `context`; changes no state.

        Raises
        ------
        TypeError, ValueError
            If `context` is none, as `check_context` says.
        """
        return np.array(self.play(check_context(context)))

    def learner(self, context: Hashable) -> NamedTuple:
        """State of the learner of `context`, the initial one if it is new."""
        state = self.learners.get(check_context(context))
        return self.initial() if state is None else state

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
        header = {
            "policy": type(self).__name__,
            "config": self.config(),
            "contexts": [_encode(check_context(key)) for key in learners],
        }
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
        """Policy saved by `save`.

        Nothing is unpickled, and no more is read than the file is long.  Whatever
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
        with _opened(path) as file:
            try:
                arrays = _arrays_of(file)
                header = _header_of(arrays)
                policy = header["policy"] == cls.__name__ and cls._restored(
                    header, arrays
                )
            except Exception as error:
                reason = shown(str(error), 120).strip("\"'")
                raise ValueError(
                    f"path is {shown(path)}, which holds no policy or is "
                    f"damaged ({reason}); give a file that `save` wrote"
                ) from error
        if not policy:
            known = header["policy"] in _names_below(Policy)
            remedy = f"load it with {header['policy']}.load, not {cls.__name__}.load"
            raise ValueError(
                f"path is {shown(path)}, which holds a {header['policy']}; "
                + (remedy if known else "no policy that is imported has this name")
            )
        return policy

    @classmethod
    def _restored(cls, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Policy:
        """The policy of a file, or raise if it is not what `save` writes."""
        contexts = [check_context(_decode(value)) for value in header["contexts"]]
        config, earned = header["config"], arrays.pop("rewards")
        if config.get("n_arms", earned.size) != earned.size:  # before it takes memory
            raise ValueError("rewards do not fit n_arms")
        policy = cls(**config)
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
            Rewards $r(t) \\in [0, 1]^N$, reward units.
        played : array_like, shape (N,), optional
            What `probabilities(context)` returned when the round was played; by default
            what it returns now, which is the same only if no update came between.

        Raises
        ------
        ValueError
            If `rewards` has another shape or an entry outside [0, 1], `played` is no
            distribution, or `context` holds NaN; the state is unchanged then.
        TypeError
            If `context` is none.
        """
        context = check_context(context)
        r = check_rewards(rewards, self.n_arms)
        x = None if played is None else check_played(played, self.n_arms)
        with self._lock:
            x = self.play(context) if x is None else x
            self.step(context, x, r)
            self.rewards = self.rewards + r * x


class BanditPolicy(Policy):
    """A policy that sees only the reward of the arm it pulled."""

    feedback = "bandit"

    @abstractmethod
    def step(
        self, context: Hashable, arm: int, reward: float, probability: float
    ) -> None:
        """Learn from the checked `reward` of `arm`, drawn with `probability`."""

    def update(
        self,
        context: Hashable,
        arm: int,
        reward: float,
        *,
        probability: float | None = None,
    ) -> None:
        """Learn from the reward of the arm pulled in `context`.

        Parameters
        ----------
        context : hashable
            The context $j_t$, as `check_context` says.
        arm : int
            The arm $I_t$, 0-based.
        reward : float
            Its reward in [0, 1], reward units.
        probability : float, optional
            With which the arm was drawn, `probabilities(context)[arm]` at that time;
            by default that of now, which is the same only if no update came between.

        Raises
        ------
        ValueError
            If `arm` is unknown, `reward` is outside [0, 1], `probability` is outside
            [1e-9, 1], or not given for an arm that is now all but never drawn, or
            `context` holds NaN; the state is unchanged then.
        TypeError
            If `context` is none.
        """
        context = check_context(context)
        arm, reward = check_arm(arm, self.n_arms), check_reward(reward)
        if probability is not None:
            probability = check_real(
                probability,
                "probability",
                lambda p: LEAST_PROBABILITY <= p <= 1,
                f"lie in [{LEAST_PROBABILITY:g}, 1]; clip propensities from below",
            )
        with self._lock:
            p = float(self.play(context)[arm]) if probability is None else probability
            if p < NEVER:
                raise ValueError(
                    f"arm is {arm}, which is drawn with probability {p:.0e} now; give "
                    "`probability`, that of the draw"
                )
            self.step(context, arm, reward, p)
            gained = np.zeros(self.n_arms)
            gained[arm] = reward
            self.rewards = self.rewards + gained


def _opened(path: str):
    """The file of that name, open, or raise with a remedy."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise type(error)(
            f"path is {shown(path)}, which cannot be read ({error.strerror}); give a "
            "file that `save` wrote"
        ) from error


def _names_below(kind: type) -> set[str]:
    """Names of the classes derived from `kind`."""
    children = kind.__subclasses__()
    return {c.__name__ for c in children}.union(*map(_names_below, children))


def _encode(key: Hashable) -> Any:
    return {"tuple": [_encode(part) for part in key]} if isinstance(key, tuple) else key


def _decode(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple(_decode(part) for part in value["tuple"])
    return value


def _arrays_of(file) -> dict[str, np.ndarray]:
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
    if {name: type(value) for name, value in header.items()} != kinds:
        raise ValueError("its header is not as it should be")
    if not (header["policy"].isidentifier() and len(header["policy"]) < 60):
        raise ValueError("its header names no policy")
    return header
