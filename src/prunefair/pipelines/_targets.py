"""The ratio that leaves a model of a given size."""

from __future__ import annotations

from prunefair.messages import checked_number, checked_share, named, plain


def given_target(ratio, parameters, size) -> tuple[str, float]:
    """Which of the three targets was given, and its value.

    Parameters
    ----------
    ratio : float or None
        Share of the FFN rows to remove.
    parameters, size : float or None
        Most parameters, or bytes of weights, that are to be left.

    Returns
    -------
    argument : str
    value : float

    Raises
    ------
    ValueError
        Unless one of the three is given, and is a number that can be one.
    """
    given = {"ratio": ratio, "parameters": parameters, "bytes": size}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        raise ValueError(
            f"none of {named('ratio')}, {named('parameters')} and {named('bytes')} is "
            f"given; give one of them, such as {named('ratio', 0.3)}"
        )
    if len(given) > 1:
        words = " and ".join(f"{named(n)} {plain(v)}" for n, v in given.items())
        raise ValueError(f"{words} are given; give one of them")
    ((argument, value),) = given.items()
    if argument == "ratio":
        return argument, checked_share("ratio", value)
    return argument, checked_number(
        argument, value, "a positive number", lambda x: x > 0
    )


def asked_size(argument: str, value: float) -> str | None:
    """What was asked for in words, if it was a size and not a ratio."""
    noun = {"parameters": "parameters", "bytes": "bytes of weights"}.get(argument)
    return noun and f"at most {plain(value)} {noun}"


def wanted_ratio(argument, value, skeleton, *, even: bool, multiple) -> float:
    """The ratio that was given, or the one that meets the target that was given.

    Parameters
    ----------
    argument, value
        See `given_target`.
    skeleton : transformers.PreTrainedModel
        Dense model of a supported family.
    even : bool
        All layers lose the same share.
    multiple : int
        What widths are multiples of.

    Returns
    -------
    ratio : float
        In [0, 1).

    Raises
    ------
    ValueError
        If the target cannot be met.
    """
    if argument == "ratio":
        return value
    return _least_ratio(argument, value, skeleton, even, multiple)


def _least_ratio(argument, value, skeleton, even, multiple) -> float:
    """Least ratio that leaves at most `value` parameters, or bytes of their files."""
    from prunefair.pruning.anatomy import ratio_of_rows, rows_to_keep
    from prunefair.pruning.folders import stored_bytes
    from prunefair.pruning.surgery import ffn_slices, row_matrices

    layers, sizes = ffn_slices(skeleton), [len(W) for W in row_matrices(skeleton)]
    weights = [[skeleton.get_parameter(n) for n in names] for names in layers]
    neurons = [sum(w.numel() for w in part) // m for part, m in zip(weights, sizes)]
    in_bytes = argument == "bytes"
    dense = stored_bytes(skeleton) if in_bytes else skeleton.num_parameters()
    if in_bytes:
        neurons = [n * part[0].element_size() for n, part in zip(neurons, weights)]

    def left(ratio: float) -> int:
        kept = [rows_to_keep(m, ratio, multiple if even else 1) for m in sizes]
        if not even and sum(kept) < sum(sizes):  # groups of neurons, wherever they are
            groups = max(sum(kept) // multiple, len(sizes))
            gone = sum(sizes) - groups * multiple
            return dense - gone * max(neurons)  # no header of a file grows
        if in_bytes:
            return stored_bytes(skeleton, kept)
        return dense - sum((m - k) * n for m, k, n in zip(sizes, kept, neurons))

    step = multiple if even else 1
    ratios = sorted(
        {ratio_of_rows(m, k) for m in sizes for k in range(step, m + 1, step)}
    )
    if dense <= value:
        raise ValueError(
            f"{named(argument)} is {plain(value)}, and the model has no more than "
            f"{dense}; give fewer"
        )
    least = left(ratios[-1])
    if least > value:
        raise ValueError(
            f"{named(argument)} is {plain(value)}, fewer than the {least} that are left "
            "when almost all FFN rows are gone; give more"
        )
    low, high = 0, len(ratios) - 1  # the first that meets the target
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if left(ratios[middle]) <= value else (middle + 1, high)
        )
    return ratios[low]
