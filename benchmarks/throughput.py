"""Tokens a second of the small real model, dense and pruned, beside the bound.

    python benchmarks/throughput.py [RESULT]

Both models live in one process and take turns, so that a change of the machine's
speed meets both.  Seconds are processor time of one thread, which other load on the
machine changes less than the time on the wall.

Not in pieces: what is measured is time, which workers would lengthen.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from storing import Table, cpu, options_of

from prunefair.models import load_model
from prunefair.pruning.anatomy import parameter_counts, rows_to_keep, throughput_bound
from prunefair.pruning.surgery import row_matrices, slice_ffn_
from prunefair.pruning.throughput import throughput

RESULT = Path(__file__).parents[1] / "book" / "results" / "throughput.json"
CONFIGURATION = {
    "model": "smollm2",
    "dtype": "float32",
    "ratio": 0.3,
    "prompts": 1,
    "prompt_tokens": 128,
    "new_tokens": 16,
    "rounds": 11,
    "seed": 20250127,
}


def measure() -> dict:
    """Both models in turn; medians, and the median of the rounds' ratios."""
    generator = torch.Generator().manual_seed(CONFIGURATION["seed"])
    dense, pruned = (load_model("smollm2", dtype=torch.float32) for _ in range(2))
    counts, sizes = (
        parameter_counts(dense.config),
        [len(W) for W in row_matrices(dense)],
    )
    kept = [rows_to_keep(m, CONFIGURATION["ratio"]) for m in sizes]
    slice_ffn_(pruned, [torch.arange(k) for k in kept])  # which rows is all the same
    shape = CONFIGURATION["prompts"], CONFIGURATION["prompt_tokens"]
    tokens = torch.randint(dense.config.vocab_size, shape, generator=generator)
    speeds = []  # (rounds, dense or pruned, prefill or decode)
    for number in range(CONFIGURATION["rounds"]):
        print("round", number, file=sys.stderr)
        speeds.append(
            [
                throughput(
                    model,
                    tokens,
                    CONFIGURATION["new_tokens"],
                    repeats=1,
                    clock=time.process_time,
                )
                for model in (dense, pruned)
            ]
        )
    speeds = np.array(speeds)
    removed = 1 - sum(kept) / sum(sizes)
    headless = 1 / (1 - removed * counts.ffn / (counts.attention + counts.ffn))
    bounds = {"prefill": headless, "decode": throughput_bound(counts, removed)}
    return {
        phase: {
            "dense": float(np.median(speeds[:, 0, i])),
            "pruned": float(np.median(speeds[:, 1, i])),
            "ratio": float(np.median(speeds[:, 1, i] / speeds[:, 0, i])),
            "ratio_quartiles": np.quantile(
                speeds[:, 1, i] / speeds[:, 0, i], [0.25, 0.75]
            ).tolist(),
            "bound": bound,
        }
        for i, (phase, bound) in enumerate(bounds.items())
    }


def main() -> None:
    """Measure and store the table."""
    options = options_of(__doc__, RESULT).parse_args()
    torch.set_num_threads(1)
    table = Table(options.results, CONFIGURATION, "torch", "transformers", device=cpu())
    table.replace({"phases": measure()})


if __name__ == "__main__":
    main()
