"""What is free, what a job takes of it, and what would fit where it does not."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path

from prunefair.messages import named

WIDE = 2048  # columns


def available_bytes() -> int:
    """Memory that programs can still take, or all of it, or no limit if none is known.

    What the page cache holds counts as free: it is given back on demand.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def free_bytes(device: str) -> int:
    """Memory that is free on a device."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(torch.device(device).index)[0]
    return available_bytes()


def goes_in_turns(skeleton, device: str, *, functional: bool) -> bool:
    """Whether a model is too wide, or too large, to be pruned as a whole.

    Parameters
    ----------
    skeleton : transformers.PreTrainedModel
        On the meta device.
    device : str
        Where it would be.
    functional : bool
        Moments are taken beside the weights.

    Returns
    -------
    in_turns : bool
        If it has more than 2048 columns, or would take more than half of the memory.
    """
    from prunefair.pruning.surgery import row_matrices

    size = skeleton.num_parameters() * skeleton.dtype.itemsize
    if functional:
        size += sum(3 * 4 * len(W) ** 2 for W in row_matrices(skeleton))
    wide = getattr(skeleton.config, "hidden_size", 0) > WIDE
    return wide or size > free_bytes(device) / 2


def check_room(plan, *, device: str, offload, out, size: int) -> None:
    """Raise unless functional pruning a layer at a time fits, and say what would.

    Parameters
    ----------
    plan : SweepPlan
    device : str
        Where to compute.
    offload : path or None
        Folder for what waits; without one it waits in memory.
    out : path or None
        Folder of the result.
    size : int
        Bytes of the dense model, which the result does not exceed.

    Raises
    ------
    ValueError
        If the device, the memory or a disk has too little room.
    """
    free, host = free_bytes(device), plan.passing
    fewer = f"fewer {named('texts')}"
    if plan.device > free:
        raise ValueError(
            f"{named('device')} is {device!r}, which has {_gb(free)} free where a layer "
            f"at a time takes {_gb(plan.device)}; give one with more memory, or "
            f"{named('method', 'spectral')}"
        )
    if device == "cpu":
        host += plan.device
    room = available_bytes()
    if offload is None and host + plan.waiting > room:
        larger = host > room
        remedy = "a larger machine" if larger else f"{named('offload')} a folder"
        raise ValueError(
            f"{named('offload')} is missing, and {_gb(host + plan.waiting)} would be in "
            f"memory where {_gb(room)} are free; give {remedy}, or {fewer}"
        )
    if host > room:
        raise ValueError(
            f"{named('texts')} take {_gb(host)} of memory a layer at a time, where "
            f"{_gb(room)} are free; give fewer of them, or a larger machine"
        )
    _check_disks({"offload": (offload, plan.waiting), "out": (out, size)}, fewer)


def check_training_room(model, dense, *, device: str, rank: int | None) -> None:
    """Raise unless training fits beside the dense model, and say what would.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        What is trained; its values are not read.
    dense : transformers.PreTrainedModel or None
        The teacher, if there is one.
    device : str
        Where to compute.
    rank : int or None
        Of the adapters, whose own size is small; None trains all weights.

    Raises
    ------
    ValueError
        If the device has too little memory.
    """
    taken = sum(m.num_parameters() * m.dtype.itemsize for m in (model, dense) if m)
    if rank is None:  # weights, gradients, two moments and the best, in 32 bits
        taken += model.num_parameters() * 5 * 4
    else:
        taken += model.num_parameters() * model.dtype.itemsize  # the adapted copy
    free = free_bytes(device)
    if taken > free:
        larger = "a device with more memory"
        raise ValueError(
            f"{named('device')} is {device!r}, which has {_gb(free)} free where training "
            f"takes at least {_gb(taken)}; give {larger}"
            + ("" if rank else f", or {named('rank', 8)}")
        )


def _check_disks(wanted: dict, fewer: str) -> None:
    """Raise unless every disk has room for the folders that go to it."""
    taken: dict[int, int] = {}
    for argument, (folder, size) in wanted.items():
        if folder is None:
            continue
        home = next(
            p for p in (Path(folder), *Path(folder).resolve().parents) if p.exists()
        )
        disk = home.stat().st_dev
        taken[disk] = taken.get(disk, 0) + max(size - _size_of(folder), 0)
        free = shutil.disk_usage(home).free
        if taken[disk] > free:
            raise ValueError(
                f"{named(argument)} is {str(folder)!r}, on a disk with {_gb(free)} free "
                f"where {_gb(taken[disk])} are needed; name another disk, or give {fewer}"
            )


def _size_of(folder) -> int:
    """Bytes of the files in a folder, which a run that goes on does not need again."""
    return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
