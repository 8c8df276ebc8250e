"""What the pipelines ask of their arguments: one line of error before the work."""

from __future__ import annotations

import contextlib
import math
import numbers
import operator
import os
from collections.abc import Sequence

from prunefair.messages import Given, named, shown


def whole(argument: str, value, least: int, below: int | None = None) -> int:
    """`value` as an int in [`least`, `below`)."""
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


def share(argument: str, value) -> float:
    """`value` as a float in [0, 1)."""
    number = float(value) if isinstance(value, numbers.Real) else math.nan
    if isinstance(value, bool) or not 0 <= number < 1:
        raise ValueError(
            f"{named(argument)} is {shown(value)}; give a number in [0, 1)"
        )
    return number


def in_memory(given) -> bool:
    """Whether what was given is a thing itself, neither the name of one nor None."""
    return not isinstance(given, str | os.PathLike | None)


def check_model(model, argument: str) -> None:
    """Raise unless `model` is a name, a model in memory, or None."""
    if in_memory(model) and not (
        hasattr(model, "config") and hasattr(model, "state_dict")
    ):
        raise ValueError(
            f"{named(argument)} is {shown(model)}; give 'smollm2', a folder, a hub "
            "name, or a model that transformers has loaded"
        )


def usable_device(device: str | None) -> str:
    """`device`, or the default one; raise if torch cannot use it.

    Parameters
    ----------
    device : str or None
        As torch names it.

    Raises
    ------
    ValueError
        If tensors cannot be on it here.
    """
    import torch

    from prunefair.models import default_device

    device = device or default_device()
    try:
        torch.empty(0, device=device).tolist()  # the meta device has no values
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"{named('device')} is {device!r}, which torch cannot use here "
            f"({str(error).splitlines()[0]}); give 'cpu' or leave it out"
        ) from error
    return device


def model_name(model) -> str:
    """What to call a model that was named, or is in memory."""
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    return model.config._name_or_path or type(model).__name__


def check_names(names, known: Sequence[str], argument: str) -> list[str]:
    """`names` as a list, each of which must be known."""
    if isinstance(names, str | bytes):
        raise ValueError(
            f"{named(argument)} is {shown(names)}; give a list of names, such as "
            f"[{shown(names)}]"
        )
    names = list(names)
    for name in names:
        if name not in known:
            listed = [other for other in known if not other.startswith("mmlu_")]
            raise ValueError(
                f"{named(argument)} names {shown(name)}, which is unknown; choose "
                f"among {', '.join(listed)}"
                + (" or mmlu_SUBJECT" if len(listed) < len(known) else "")
            )
    return names


@contextlib.contextmanager
def started(model, tokenizer, given: Given):
    """See that texts can begin: the tokenizer helps out where the model names none."""
    config = model.config
    before = config.bos_token_id
    if before is None and config.eos_token_id is None:
        ids = (getattr(tokenizer, f"{kind}_token_id", None) for kind in ("bos", "eos"))
        config.bos_token_id = next((n for n in ids if n is not None), None)
        if config.bos_token_id is None:
            raise given.error(
                "whose configuration and tokenizer name no token to begin a text with",
                "set bos_token_id in its config.json",
            )
    try:
        yield
    finally:
        config.bos_token_id = before
