"""Questions whose answers say why, and a judge of code that the reader writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from textwrap import fill
from zlib import crc32

import numpy as np

from prunefair.messages import shortened
from prunefair.plotting import COLUMNS


def _shown(value) -> str:
    """A value on one line, cut in the middle where it is long."""
    if isinstance(value, np.generic):
        value = value.item()
    plain = isinstance(value, str | bool | int | float | list | tuple | dict)
    text = repr(value) if plain else np.array2string(np.asarray(value), precision=6)
    return shortened(" ".join(text.split()), 60)


@dataclass(frozen=True)
class Quiz:
    """A question with answers to choose from; each says why it is right or wrong.

    A notebook and a page show every answer as a line to open, by mouse, finger or
    keyboard and without a script; where only text is shown there are the answers alone.

    Parameters
    ----------
    text : str
        The question; what stands between backquotes is code.
    right : str
        The right answer, as a cell writes it from what it has computed.
    because : str
        Why it is right.
    wrong : mapping of str to str
        The other answers, and why each of them is wrong.

    Raises
    ------
    ValueError
        If there is no wrong answer, the right one is among the wrong ones, or a reason
        is missing.

    Examples
    --------
    >>> from prunefair.exercises import Quiz
    >>> Quiz(
    ...     "How many rows has a layer of 1536 at a ratio of 0.3?",
    ...     right=f"{int(0.7 * 1536)}",
    ...     because="0.7 times 1536 is 1075.2, and the paper rounds down.",
    ...     wrong={"460": "So many are removed.", "1076": "That rounds up."},
    ... )
    How many rows has a layer of 1536 at a ratio of 0.3?
      ( ) 460
      ( ) 1075
      ( ) 1076
    """

    text: str
    right: str
    because: str
    wrong: Mapping[str, str]

    def __post_init__(self):
        if not self.wrong or self.right in self.wrong:
            raise ValueError(
                f"wrong has the answers {[*self.wrong]} and right is {self.right!r}; "
                "give at least one wrong answer, and none that is right"
            )
        if empty := [a for a, why in self.answers.items() if not (a and why)]:
            raise ValueError(f"the answer {empty[0]!r} has no reason; give one")

    @property
    def answers(self) -> dict[str, str]:
        """Every answer with its reason, by size if all begin with a number."""

        def place(answer):
            number = re.match(r"-?\d[\d ]*(\.\d+)?", answer.replace("−", "-"))
            return number and float(number[0].replace(" ", ""))

        both = {self.right: self.because, **self.wrong}
        by_size = all(place(answer) is not None for answer in both)
        key = place if by_size else lambda answer: crc32(answer.encode())
        return {answer: both[answer] for answer in sorted(both, key=key)}

    def __repr__(self) -> str:
        lines = [fill(self.text, COLUMNS)]
        for answer in self.answers:
            lines.append(fill(f"  ( ) {answer}", COLUMNS, subsequent_indent=" " * 6))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        lines = ['<div class="question">', f"<p>{_coded(self.text)}</p>"]
        for answer, why in self.answers.items():
            verdict = "Right." if answer == self.right else "No."
            lines += [
                f"<details><summary>{_coded(answer)}</summary>",
                f"<p><strong>{verdict}</strong> {_coded(why)}</p></details>",
            ]
        return "\n".join([*lines, "</div>"])


def _coded(text: str) -> str:
    """Text as HTML; between backquotes it is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, true or false as a condition, and what to say of it.

    Parameters
    ----------
    right : bool
        Whether it is.
    text : str
        What a notebook shows.
    """

    right: bool
    text: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return fill(self.text, COLUMNS)


def check_answer(
    yours: Callable,
    ours: Callable,
    *inputs: tuple,
    rtol: float = 1e-6,
    atol: float = 1e-9,
) -> Verdict:
    """Compare a reader's function with the book's on some inputs.

    Parameters
    ----------
    yours : callable
        What the reader wrote; it returns None until it is filled in.
    ours : callable
        What is right.
    *inputs : tuple
        Arguments of each call, at least one call.
    rtol, atol : float
        How far numbers may differ, relatively and absolutely.

    Returns
    -------
    verdict : Verdict
        True if all results agree in shape and value, a tuple's entry by entry; else the
        first call that differs is named.

    Raises
    ------
    ValueError
        If there is no input.

    Examples
    --------
    >>> from prunefair.exercises import check_answer
    >>> def square(x):
    ...     return 2 * x
    >>> check_answer(square, lambda x: x**2, (2,), (3,))
    Not yet: square(3) gives 6, and 9 is right.
    """
    if not inputs:
        raise ValueError("inputs is empty; give the arguments of at least one call")
    for arguments in inputs:
        if fault := _fault(yours, ours, arguments, rtol, atol):
            return Verdict(False, fault)
    times = "1 input" if len(inputs) == 1 else f"{len(inputs)} inputs"
    return Verdict(True, f"Right: {yours.__name__} agrees on {times}.")


def _fault(yours, ours, arguments, rtol, atol) -> str:
    """What is wrong with one result, empty if nothing is."""
    call = f"{yours.__name__}({', '.join(map(_shown, arguments))})"
    want = ours(*arguments)
    try:
        have = yours(*arguments)
    except Exception as error:  # whatever the reader's code may raise
        return f"Not yet: {call} raises {type(error).__name__}: {error}"
    if have is None:
        return f"Nothing yet: fill in {yours.__name__} and run this cell again."
    several = isinstance(want, tuple)
    if several and not (isinstance(have, tuple) and len(have) == len(want)):
        return f"Not yet: {call} must give a tuple of {len(want)}."
    for a, b in zip(have, want) if several else [(have, want)]:
        if not _same(a, b, rtol, atol):
            return f"Not yet: {call} gives {_shown(a)}, and {_shown(b)} is right."
    return ""


def _same(have, want, rtol, atol) -> bool:
    """Whether two results agree, numbers up to rounding."""
    try:
        have, want = np.asarray(have), np.asarray(want)
        if have.shape != want.shape:
            return False
        if want.dtype.kind in "fc" or have.dtype.kind in "fc":
            return bool(np.allclose(have, want, rtol=rtol, atol=atol, equal_nan=True))
        return bool((have == want).all())
    except (TypeError, ValueError):
        return False
