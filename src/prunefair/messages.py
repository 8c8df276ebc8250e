"""What a user is told: one short line that names what was given and the remedy."""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType

MESSAGE_LENGTH = 293  # 300 with "error: " before it
_WORDS: ContextVar[Mapping] = ContextVar("words", default=MappingProxyType({}))


def named(argument: str, *value) -> str:
    """An argument, alone or with a value, as whoever reads the message writes it.

    Parameters
    ----------
    argument : str
        Its name in Python, such as `malformed`.
    *value : object, optional
        `malformed='drop'` in Python, `--malformed drop` on the command line.
    """
    words = _WORDS.get()
    if argument not in words:
        return f"{argument}={value[0]!r}" if value else argument
    if not value:
        return words[argument]
    return words.get((argument, *value)) or f"{words[argument]} {value[0]}"


@contextmanager
def called(words: Mapping) -> Iterator[None]:
    """Let messages name arguments by other words for as long as the block runs.

    Parameters
    ----------
    words : mapping
        Word of each argument, and of a pair of argument and value where the value is
        another one there.
    """
    before = _WORDS.set(words)
    try:
        yield
    finally:
        _WORDS.reset(before)


def shown(value, limit: int = 80) -> str:
    """`repr` of a value on one line, cut in the middle to `limit` characters."""
    try:
        text = " ".join(repr(value).split())
    except (RecursionError, ValueError):  # deep nesting, or an integer of many digits
        text = f"a {type(value).__name__} too large to show"
    return shortened(text, limit)


def plain(number) -> str:
    """A number as one would write it: 3600000 for 3600000.0 and 3.6e6."""
    whole = isinstance(number, float) and number.is_integer() and abs(number) < 1e18
    return str(int(number)) if whole else shown(number)


def shortened(text: str, limit: int) -> str:
    """`text`, or its beginning and its longer end, `limit` characters in all."""
    if len(text) <= limit:
        return text
    end = 2 * (limit - 3) // 3
    return f"{text[: limit - 3 - end]}...{text[len(text) - end :]}"


class InputError(ValueError):
    """What was given cannot be used; the message is one line and names the remedy."""


@dataclass(frozen=True)
class Given:
    """What a user gave, in the words in which it was asked for.

    Parameters
    ----------
    argument : str
        Name of the argument; see `named`.
    value : str or path
        What was given.
    held : bool
        Whether it is in memory, and `value` only what it is called.
    """

    argument: str
    value: str | os.PathLike
    held: bool = False

    def error(self, problem: str, remedy: str, reason: str = "") -> InputError:
        """Error of one line: the argument, its value, the problem and the remedy."""
        head = f"{named(self.argument)} is {shown(os.fspath(self.value))}, "
        room = MESSAGE_LENGTH - len(head) - len(remedy) - len("; ")
        problem = " ".join(problem.split())
        if reason:
            reason = shortened(
                " ".join(reason.split()), max(room - len(problem) - 3, 20)
            )
            problem += f" ({reason})"
        return InputError(f"{head}{shortened(problem, room)}; {remedy}")

    @contextmanager
    def using(self, problem: str, remedy: str):
        """Turn whatever a library raises in the block into one such line."""
        try:
            yield
        except InputError:
            raise
        except BaseException as error:
            panic = type(error).__name__ == "PanicException"  # of a library in Rust
            if not isinstance(error, Exception) and not panic:
                raise
            name, lines = type(error).__name__, str(error).strip().splitlines()
            reason = [] if name == "ValueError" and lines else [name]
            reason = ": ".join([*reason, " ".join(lines[:2])] if lines else reason)
            raise self.error(problem, remedy, reason) from error


class NoPath(InputError, TypeError):
    """What was given is neither a string nor a path."""


def checked_path(path, argument: str = "path") -> str:
    """A path as a string, if a file or folder can be called so here.

    Parameters
    ----------
    path : str, bytes or path
        Of a file or folder that may be missing.
    argument : str
        What errors call `path`.

    Returns
    -------
    name : str

    Raises
    ------
    NoPath
        If it is no path; it is a TypeError and a ValueError.
    ValueError
        If it is empty or too long, holds control characters, as the end of a line, or
        leads round in links.
    """
    try:
        name = os.fsdecode(path)
    except TypeError as error:
        raise NoPath(
            f"{named(argument)} is {shown(path)}; give a path, as a string or a Path"
        ) from error
    given, remedy = Given(argument, name), "give another path"
    if not name:
        raise given.error("which names no file or folder", remedy)
    if any(ord(letter) < 32 for letter in name):
        raise given.error("which holds control characters", "give it without these")
    try:
        os.stat(name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # what that means is for others to say
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise given.error("which names no file or folder", remedy, reason) from error
    return name


def checked_whole(argument: str, value, least: int, below: int | None = None) -> int:
    """A value as an int in [`least`, `below`).

    Parameters
    ----------
    argument : str
        What errors call `value`.
    value : object
        An int, or what stands for one as numbers of NumPy do; no truth value.
    least : int
        Smallest that is allowed.
    below : int, optional
        Smallest that is too large.

    Returns
    -------
    number : int

    Raises
    ------
    ValueError
        If it is something else.
    """
    allowed = f"at least {least}" if below is None else f"in [{least}, {below})"
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if (
        number is None
        or isinstance(value, bool)
        or number < least
        or (below is not None and number >= below)
    ):
        raise ValueError(
            f"{named(argument)} is {shown(value)}; give a whole number {allowed}"
        )
    return number


def checked_share(argument: str, value) -> float:
    """A value as a float in [0, 1), such as the share of rows to remove.

    Parameters
    ----------
    argument : str
        What errors call `value`.
    value : object
        A real number, also one of NumPy; no truth value.

    Returns
    -------
    number : float

    Raises
    ------
    ValueError
        If it is something else.
    """
    return checked_number(argument, value, "a number in [0, 1)", lambda x: 0 <= x < 1)


def checked_number(argument: str, value, wanted: str, allowed: Callable) -> float:
    """A value as a float, if it is a real number that is allowed.

    Parameters
    ----------
    argument : str
        What errors call `value`.
    value : object
        A real number, also one of NumPy; no truth value.
    wanted : str
        What to give, such as "a positive number".
    allowed : callable
        Says of a number whether it may be.

    Returns
    -------
    number : float

    Raises
    ------
    ValueError
        If it is something else.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and allowed(value)):
        raise ValueError(f"{named(argument)} is {shown(value)}; give {wanted}")
    return float(value)
