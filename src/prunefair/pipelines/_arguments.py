"""What the pipelines ask of their arguments: one line of error before the work."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunefair.messages import Given, checked_path, named, shown
from prunefair.models import given_model


def in_memory(given) -> bool:
    """Whether what was given is a thing itself, neither the name of one nor None."""
    return not isinstance(given, str | os.PathLike | None)


def is_tokenizer(given) -> bool:
    """Whether what was given is a loaded tokenizer, no name or class of one."""
    return hasattr(given, "save_pretrained") and not isinstance(given, type)


def model_name(model) -> str:
    """What to call a model that was named, or is in memory."""
    return os.fspath(given_model(model).value)


def check_names(names, known: Sequence[str], argument: str) -> list[str]:
    """`names` as a list, each of which must be known."""
    if isinstance(names, str | bytes) or not hasattr(names, "__iter__"):
        example = names if isinstance(names, str) else known[0]
        raise ValueError(
            f"{named(argument)} is {shown(names)}; give a list of names, such as "
            f"[{shown(example)}]"
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


def check_apart(places: Mapping) -> dict[str, str]:
    """The places that are not None, as strings, none of them in another one."""
    given = {
        n: checked_path(place, n) for n, place in places.items() if place is not None
    }
    for first, second in itertools.combinations(given, 2):
        real = [Path(os.path.realpath(given[name])) for name in (first, second)]
        if any(a in (b, *b.parents) for a, b in (real, real[::-1])):
            raise ValueError(
                f"{named(first)} is {shown(given[first])} and {named(second)} "
                f"{shown(given[second])}: one would be in the place of the other; name "
                "two places side by side"
            )
    return given


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
