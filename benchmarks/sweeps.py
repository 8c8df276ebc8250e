"""Sweeps on the small real model: the same answer as in memory, and the same ridge.

    python benchmarks/sweeps.py [--results FILE] [--only PLACE]

prunes the small real model in memory and a layer at a time, in float32 and in bfloat16,
and compares rows and weights; and the ridge that a walk over a few layers finds with
that of all layers on a fixed grid.  `book/results/sweeps.json` is written after each
piece, and a piece that is there is not measured again.
"""

from __future__ import annotations

import copy
import functools
import tempfile
import time
from pathlib import Path

import torch
from storing import Table, cpu, in_pieces, options_of

from prunefair.messages import Given
from prunefair.models import empty_model, load_model
from prunefair.pruning.folders import load_pruned
from prunefair.pruning.functional_policy import fisher_costs
from prunefair.pruning.functional_pruning import SelfStatistics, prune_functional
from prunefair.pruning.layered import LayeredModel, MemoryStore
from prunefair.pruning.perplexity import self_sample
from prunefair.pruning.refit import choose_ridge, find_ridge, mean_moments
from prunefair.pruning.self_moments import down_projections, hidden_moments
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.sweeps import prune_swept, swept_statistics, write_swept

RESULT = Path(__file__).parents[1] / "book" / "results" / "sweeps.json"
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "episodes": 1,
    "paths": {"float32": [16, 32], "bfloat16": [4, 16]},  # texts, tokens in each
    "ridges": [[16, 64], [64, 64]],
    "grid": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
    "seed": 65,
}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(CONFIGURATION["seed"])


def halves_of(model, texts):
    return tuple(hidden_moments(model, half) for half in texts.tensor_split(2))


def compared(dtype: str) -> dict:
    """Both ways on the same texts: rows, weights and seconds."""
    model = load_model(CONFIGURATION["model"], dtype=getattr(torch, dtype))
    generator, size = seeded(), CONFIGURATION["paths"][dtype]
    texts = self_sample(model, *size, generator=generator)
    ratio, state = CONFIGURATION["ratio"], generator.get_state()
    options = {"episodes": CONFIGURATION["episodes"], "even": True}
    start = time.perf_counter()
    known = SelfStatistics(halves_of(model, texts), fisher_costs(model, texts))
    whole = prune_functional(
        model, ratio, statistics=known, generator=generator, **options
    )
    seconds = [time.perf_counter() - start]
    start, store = time.perf_counter(), MemoryStore()
    given = Given("model", CONFIGURATION["model"])
    skeleton = empty_model(copy.deepcopy(model.config), given, dtype=model.dtype)
    layered = LayeredModel(skeleton, model.state_dict().__getitem__)
    store.put("texts", tokens=texts, state=state)
    swept = swept_statistics(layered, store, generator=generator)
    run = prune_swept(layered, swept, ratio, generator=generator, **options)
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_swept(skeleton, layered, swept, run, Path(scratch) / "out")
        seconds.append(time.perf_counter() - start)
        again = load_pruned(folder).state_dict()
    pairs = [(again[n], value) for n, value in whole.model.state_dict().items()]
    return {
        "rows_equal": all(torch.equal(a, b) for a, b in zip(run.kept, whole.kept)),
        "ridges": [run.ridge, whole.ridge],
        "weights_equal": all(torch.equal(a, b) for a, b in pairs),
        "largest_difference": max(
            float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30))
            for a, b in pairs
        ),
        "seconds": dict(zip(("in memory", "a layer at a time"), seconds)),
    }


def ridges(texts: int, length: int) -> dict:
    """The walk over a few layers, and all layers over a grid, for the same rows."""
    model = load_model(CONFIGURATION["model"])
    halves = halves_of(model, self_sample(model, texts, length, generator=seeded()))
    weights = [linear.weight.detach() for linear in down_projections(model)]
    second = mean_moments(halves).second
    pairs = zip(second, weights, strict=True)
    energies = [H.diagonal() * D.square().sum(0) for H, D in pairs]
    kept, times = rows_by_scores(energies, CONFIGURATION["ratio"]), []
    start, grid = time.perf_counter(), CONFIGURATION["grid"]
    ridge, errors = choose_ridge(weights, halves, kept, grid)
    times.append(time.perf_counter() - start)
    start = time.perf_counter()
    walk, tried = find_ridge(weights, halves, kept)
    times.append(time.perf_counter() - start)
    return {
        "tokens": texts * length,
        "all_layers": {"ridge": ridge, "errors": errors, "seconds": times[0]},
        "walk": {
            "ridge": walk,
            "errors": {str(tried_ridge): error for tried_ridge, error in tried.items()},
            "seconds": times[1],
        },
    }


def pieces():
    """Place in the table of every piece, and the function that fills it."""
    for dtype in CONFIGURATION["paths"]:
        yield ("paths", dtype), functools.partial(compared, dtype)
    for size in CONFIGURATION["ridges"]:
        yield ("ridges", "x".join(map(str, size))), functools.partial(ridges, *size)


def main() -> None:
    """Measure what the table lacks."""
    options = in_pieces(options_of(__doc__, RESULT))
    names = ("torch", "transformers", "numpy")
    table = Table(options.results, CONFIGURATION, *names, device=cpu)
    table.fill(pieces(), options, functools.partial(print, flush=True))


if __name__ == "__main__":
    main()
