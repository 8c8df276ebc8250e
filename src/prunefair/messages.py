"""What a user is told: one short line that names what was given and the remedy."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass

MESSAGE_LENGTH = 293  # 300 with "error: " before it


def shown(value, limit: int = 80) -> str:
    """`repr` of a value on one line, cut in the middle to `limit` characters."""
    try:
        text = " ".join(repr(value).split())
    except (RecursionError, ValueError):  # deep nesting, or an integer of many digits
        text = f"a {type(value).__name__} too large to show"
    return shortened(text, limit)


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
        Name of the argument: of a function, or as the command line calls it.
    value : str or path
        What was given.
    """

    argument: str
    value: str | os.PathLike

    def error(self, problem: str, remedy: str, reason: str = "") -> InputError:
        """Error of one line: the argument, its value, the problem and the remedy."""
        head = f"{self.argument} is {shown(os.fspath(self.value))}, "
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
