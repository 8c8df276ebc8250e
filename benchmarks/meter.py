"""Seconds and peaks of the stages of a run, each stored as soon as it is over."""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path

import torch

from prunefair.pruning.throughput import Stopwatch


def resident(field: str) -> int | None:
    """Resident memory of this process in bytes, `VmRSS` now or `VmHWM` at its peak.

    Linux tells it, and None is what there is elsewhere; `ru_maxrss` would not do, for
    it starts at the parent's peak.  Pages of mapped files count while they are mapped.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = (1024 * int(s.split()[1]) for s in lines if s.startswith(field))
    return next(found, None)


class Meter(Stopwatch):
    """Stopwatch that stores each stage: seconds, parts of them, and the peaks.

    Processor seconds stand beside them: on a machine that others use, half of them is
    what both cores alone would have needed.

    Parameters
    ----------
    table : Table
        Gets the stages under `part`; those that are there already stay.
    part : str
        Which run they belong to.
    device : str
        Waited for at both ends of a stage.
    """

    def __init__(self, table, part: str, device="cpu"):
        super().__init__(device)
        self.table, self.part, self.extra = table, part, {}
        self.before = resident("VmRSS") or 0

    @contextlib.contextmanager
    def __call__(self, stage: str):
        with contextlib.suppress(OSError):  # not on Linux, or not allowed
            Path("/proc/self/clear_refs").write_text("5")  # peaks count from here on
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        start, self.extra = (time.perf_counter(), time.process_time()), {}
        with super().__call__(stage):
            yield
        piece = {"seconds": self.seconds[stage]}
        piece["processor_seconds"] = time.process_time() - start[1]
        peak = resident("VmHWM")
        piece |= self.extra | {"peak_bytes": peak and peak - self.before}
        if self.device.type == "cuda":
            piece["peak_gpu_bytes"] = self.peak_bytes()
        print(self.part, stage, piece, flush=True)
        if not self.table.has(self.part, "stages", stage):
            self.table.add(piece, self.part, "stages", stage)

    def counted(self, call, name: str):
        """A function whose time is counted beside that of the stage, as part of it."""

        @functools.wraps(call)
        def counting(*args):
            start = time.perf_counter()
            found = call(*args)
            taken = time.perf_counter() - start
            self.extra[name] = self.extra.get(name, 0) + taken
            return found

        return counting
