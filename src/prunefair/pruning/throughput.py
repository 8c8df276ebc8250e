"""Tokens a second of a model, operations a second of a device, seconds of a stage."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import linear

from prunefair.models import check_tokens, measuring


class Throughput(NamedTuple):
    """Tokens a second while reading a prompt and while writing."""

    prefill: float
    decode: float


@torch.no_grad()
def throughput(
    model,
    tokens: torch.Tensor,
    new_tokens: int,
    *,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Throughput:
    """Tokens a second of a model, prefill and decode apart.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokens : Tensor, shape (B, N), int64
        Prompts.
    new_tokens : int
        Tokens to write after each prompt, one at a time and with a cache.
    repeats : int
        Runs after the warm-up, of which the fastest counts.
    clock : callable
        Returns seconds.

    Returns
    -------
    throughput : Throughput
        Tokens a second, all B prompts together.

    Raises
    ------
    ValueError
        If `new_tokens` or `repeats` is below 1, `tokens` is not a matrix of the model's
        tokens, or its context is shorter than prompt and new tokens.
    """
    if new_tokens < 1 or repeats < 1:
        raise ValueError(
            f"new_tokens, repeats are {new_tokens!r}, {repeats!r}; give positive ones"
        )
    check_tokens(tokens, model)
    with measuring(model, length=tokens.shape[1] + new_tokens):
        runs = [
            _timed_run(model, tokens.to(model.device), new_tokens, clock)
            for _ in range(repeats + 1)
        ]
    prefill, decode = np.array(runs[1:]).min(0)
    n = len(tokens)
    return Throughput(float(tokens.numel() / prefill), float(n * new_tokens / decode))


def _timed_run(model, tokens, new_tokens: int, clock) -> tuple[float, float]:
    """Seconds of reading `tokens` and of writing what follows."""
    start = _now(model, clock)
    out = model(tokens, use_cache=True, logits_to_keep=1)
    read = _now(model, clock)
    for _ in range(new_tokens):
        last, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
        out = model(last, past_key_values=cache, use_cache=True)
    return read - start, _now(model, clock) - read


def _now(model, clock: Callable[[], float]) -> float:
    """Time at which the model's device has finished what it was given."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return clock()


class Stopwatch:
    """Seconds by stage, the device's work included, and the peak of its memory.

    Parameters
    ----------
    device : str or torch.device
        Waited for at both ends of a stage.

    Attributes
    ----------
    seconds : dict of str to float
        Time of each stage, summed over its visits; time of a stage inside another
        counts for the inner one only.
    """

    def __init__(self, device):
        self.device, self.seconds, self._stack = torch.device(device), {}, []
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int | None:
        """Most that was allocated on the GPU since the start; None on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return None

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, stage: str):
        """Count the time of a block for `stage`."""
        start = self._now()
        self._stack.append(0.0)
        try:
            yield
        finally:
            whole = self._now() - start
            inner = self._stack.pop()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + whole - inner
            if self._stack:
                self._stack[-1] += whole


def device_rates(device, stored: torch.dtype = torch.bfloat16) -> dict[str, float]:
    """Operations and bytes a second of a device, measured by one product and one copy.

    Parameters
    ----------
    device : str or torch.device
        What to measure.
    stored : torch.dtype
        Type of the weights.

    Returns
    -------
    rates : dict of str to float
        Operations a second in the types `stored`, `float32` and `float64`, and
        `bytes` read or written a second.
    """
    device = torch.device(device)
    size = 4096 if device.type == "cuda" else 512
    types = {"stored": stored, "float32": torch.float32, "float64": torch.float64}
    rates = {}
    for name, dtype in types.items():
        X = torch.ones(size, size, dtype=dtype, device=device)
        rates[name] = 2 * size**3 / _seconds(lambda X=X: linear(X, X), device)
    X = torch.ones(2**24 if device.type == "cuda" else 2**22, device=device)
    return rates | {"bytes": 2 * 4 * len(X) / _seconds(X.clone, device)}


def _seconds(work: Callable, device: torch.device, repeats: int = 3) -> float:
    """Least time of some work, after a warm-up."""
    watch, times = Stopwatch(device), []
    work()
    for number in range(repeats):
        with watch(str(number)):
            work()
        times.append(watch.seconds[str(number)])
    return min(times)
