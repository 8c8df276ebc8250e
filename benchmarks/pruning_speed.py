"""What the statistics of functional pruning cost, stage by stage, in one process.

    python benchmarks/pruning_speed.py

fills `book/results/pruning_speed.json`, in processor seconds of one thread: sampling
texts, then moments and Fisher costs by a pass each with whole products, by one pass
with half of the symmetric ones, and without the costs.

Not in pieces: what is measured is time, which workers would lengthen.
"""

from __future__ import annotations

import time
from pathlib import Path
from unittest import mock

import torch
from storing import Table, cpu, options_of

from prunefair.models import load_model
from prunefair.pruning import self_moments
from prunefair.pruning.functional_policy import fisher_costs
from prunefair.pruning.functional_pruning import text_statistics
from prunefair.pruning.perplexity import self_sample
from prunefair.pruning.self_moments import hidden_moments

RESULT = Path(__file__).parents[1] / "book" / "results" / "pruning_speed.json"
CONFIGURATION = {"model": "smollm2", "texts": 8, "length": 64, "seed": 420}


def apart(model, texts) -> None:
    """Moments and costs by a pass each, whole products and all."""
    with mock.patch.object(self_moments, "BAND", 10**9):
        for half in texts.tensor_split(2):
            hidden_moments(model, half)
    fisher_costs(model, texts)


def timed(work, *given, **options) -> tuple:
    """What a call returns, and its processor seconds."""
    start = time.process_time()
    found = work(*given, **options)
    return found, time.process_time() - start


def main() -> None:
    """Measure all stages."""
    options = options_of(__doc__, RESULT).parse_args()
    torch.set_num_threads(1)
    names = ("torch", "transformers", "numpy")
    table = Table(options.results, CONFIGURATION, *names, device=cpu())
    model = load_model(CONFIGURATION["model"], dtype=torch.float32, device="cpu")
    model(torch.zeros(1, 2).long())  # what is allocated once is there
    size = [CONFIGURATION[name] for name in ("texts", "length")]
    generator = torch.Generator().manual_seed(CONFIGURATION["seed"])
    texts, seconds = timed(self_sample, model, *size, generator=generator)
    stages = {"sampling": seconds}
    for name, work, how in (
        ("a pass each, whole products", apart, {}),
        ("one pass", text_statistics, {}),
        ("moments only", text_statistics, {"costs": False}),
    ):
        _, stages[name] = timed(work, model, texts, **how)
        print(name, stages[name], flush=True)
    table.replace({"stages": stages})


if __name__ == "__main__":
    main()
