"""What a bound on the widest layer costs, and what padding to it is worth.

    python benchmarks/widths.py

fills `book/results/widths.json`.  From the small model 30 % of the neurons are removed:
the same share of every layer, or widths by Fisher cost of which none is larger than
some share of the dense one.  A model of uneven widths that is padded to its widest
layer weighs what one of that width in every layer weighs; so those stand beside it.
Neurons are chosen by energy and re-fitted on texts of the model itself, and judged on
others of its texts, text by text.

Not in pieces: five minutes, most of them for statistics that all selections share.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from storing import Table, cpu, options_of

from prunefair.models import load_model
from prunefair.pruning.functional_policy import uneven_ratios
from prunefair.pruning.functional_pruning import self_statistics
from prunefair.pruning.perplexity import kl_per_position, self_sample
from prunefair.pruning.refit import find_ridge, mean_moments, refit_
from prunefair.pruning.self_moments import down_projections
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.surgery import prune_rows

RESULT = Path(__file__).parents[1] / "book" / "results" / "widths.json"
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "texts": [32, 128],
    "seed": 320,
    "held_out": [24, 64],
    "held_out_seed": 321,
    "widest": [1.0, 0.9, 0.8],
}


def selections(costs: list, ratio: float, widest: list) -> dict:
    """Ratios of all layers: of one width, bounded, and of the width of the bound."""
    found = {"equal": [ratio] * len(costs)}
    for bound in widest:
        least = round(1 - bound, 2)
        found[f"uneven up to {bound}"] = uneven_ratios(costs, ratio, least=least)
    padded = [bound for bound in widest if bound < 1]
    return found | {f"equal {b}": [round(1 - b, 2)] * len(costs) for b in padded}


def main() -> None:
    """Everything, stored selection by selection."""
    c, options = CONFIGURATION, options_of(__doc__, RESULT).parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    table = Table(options.results, c, "torch", "transformers", device=cpu())
    model = load_model(c["model"], dtype=torch.float32)
    generator = torch.Generator().manual_seed(c["held_out_seed"])
    held = self_sample(model, *c["held_out"], generator=generator)
    generator.manual_seed(c["seed"])
    n_texts, length = c["texts"]
    options = {"generator": generator, "n_texts": n_texts, "length": length}
    halves, costs, _ = self_statistics(model, **options)
    moments = mean_moments(halves)
    weights = [linear.weight.detach() for linear in down_projections(model)]
    pairs = zip(weights, moments.second, strict=True)
    energies = [H.diagonal() * D.double().square().sum(0) for D, H in pairs]
    rows = {}
    for name, ratios in selections(costs, c["ratio"], c["widest"]).items():
        kept = rows_by_scores(energies, ratios)
        widths = [len(rows) for rows in kept]
        ridge, _ = find_ridge(weights, halves, kept)
        pruned = prune_rows(model, kept)
        refit_(pruned, model, kept, moments, ridge=ridge)
        kl = kl_per_position(model, pruned, held).mean(1)
        rows[name] = {"widths": widths, "ridge": ridge}
        rows[name]["kl"] = [round(float(x), 5) for x in kl]
        seconds = time.process_time() - start
        print(f"{seconds:6.0f} s {name:17} {max(widths)} {kl.mean():.4f}", flush=True)
    table.replace({"selections": rows, "seconds": round(time.process_time() - start)})


if __name__ == "__main__":
    main()
