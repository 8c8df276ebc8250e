"""Neurons by other scores: entropy, fluctuation, fidelity, beside energies and costs.

    python benchmarks/scores.py

fills `book/results/scores.json`.  All scores are measured on the same self-sampled
texts of the small real model; each keeps 70 % of the neurons of every layer, and some
share the budget among layers, too.  The models are judged by the divergence from the
dense one on texts of another seed, as they are cut and after a re-fit.
"""

from __future__ import annotations

from pathlib import Path

import torch
from storing import Table, cpu, options_of

from prunefair.models import load_model
from prunefair.pruning.functional_policy import (
    fisher_costs,
    surgeon_energies,
    uneven_ratios,
)
from prunefair.pruning.perplexity import kl_per_position, self_sample, token_nats
from prunefair.pruning.refit import find_ridge, mean_moments, refit_
from prunefair.pruning.row_policy import z_scores
from prunefair.pruning.scores import entropy_costs, fidelities, fluctuations
from prunefair.pruning.self_moments import down_projections, hidden_moments
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.surgery import prune_rows

RESULT = Path(__file__).parents[1] / "book" / "results" / "scores.json"
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "texts": [64, 128],
    "seed": 500,
    "held_out": [16, 64],
    "held_out_seed": 501,
    "sampled_to_filter": 96,  # of these the texts of least perplexity are kept
    "widths": ["energy", "Fisher cost", "entropy", "entropy squared", "fluctuation"],
}


def moments_of(model, texts):
    """Moments of both halves."""
    return tuple(hidden_moments(model, half) for half in texts.tensor_split(2))


def all_scores(model, texts, halves):
    """Every score of every neuron."""
    moments = mean_moments(halves)
    weights = [linear.weight.detach() for linear in down_projections(model)]
    layers = [*zip(weights, moments.second, moments.mean, strict=True)]
    return {
        "energy": [surgeon_energies(D, H)[0] for D, H, _ in layers],
        "surgeon energy": [surgeon_energies(D, H)[1] for D, H, _ in layers],
        "Fisher cost": fisher_costs(model, texts),
        "entropy": entropy_costs(model, texts),
        "entropy squared": entropy_costs(model, texts, power=2),
        "fluctuation": [fluctuations(D, H, mean) for D, H, mean in layers],
        "fidelity": [fidelities(D, H) for D, H, _ in layers],
    }


def budget(scores, name, ratio):
    """Ratios of the layers: the least scores of all go, standardised for FLAP's."""
    if name in ("energy", "fluctuation"):  # their units are those of a layer
        scores = [z_scores(each, each.abs().max()) for each in scores]
    return uneven_ratios(scores, ratio)


class Bench:
    """The dense model, its texts, and the judgement."""

    def __init__(self):
        self.model = load_model("smollm2", dtype=torch.float32)
        c = CONFIGURATION
        held = torch.Generator().manual_seed(c["held_out_seed"])
        self.held = self_sample(self.model, *c["held_out"], generator=held)
        self.weights = [each.weight for each in down_projections(self.model)]

    def divergence(self, model):
        kl = kl_per_position(self.model, model, self.held)
        return [round(float(x), 5) for x in kl.mean(1)]

    def judged(self, kept, halves, ridge):
        """Divergence as cut, and after the re-fit."""
        pruned = prune_rows(self.model, kept)
        cut = self.divergence(pruned)
        pruned = refit_(pruned, self.model, kept, mean_moments(halves), ridge=ridge)
        return {"cut": cut, "re-fitted": self.divergence(pruned)}


def main() -> None:
    """Measure what the table lacks."""
    options = options_of(__doc__, RESULT).parse_args()
    table = Table(options.results, CONFIGURATION, "torch", "transformers", device=cpu())
    c, bench = CONFIGURATION, Bench()
    generator = torch.Generator().manual_seed(c["seed"])
    n, length = c["texts"]
    drawn = self_sample(
        bench.model, c["sampled_to_filter"], length, generator=generator
    )
    nats = torch.cat([token_nats(bench.model, part).sum(1) for part in drawn.split(8)])
    filtered = drawn[nats.argsort()[:n].sort().values]
    texts = drawn[:n]
    halves = moments_of(bench.model, texts)
    scores = all_scores(bench.model, texts, halves)
    if not table.has("ranks"):
        ranks = {
            name: torch.stack([s.double().argsort().argsort() for s in each]).double()
            for name, each in scores.items()
        }
        table.add(
            {a: {b: correlation(ranks[a], ranks[b]) for b in ranks} for a in ranks},
            "ranks",
        )
    if not table.has("ridge"):  # one for all, of the energies
        kept = rows_by_scores(scores["energy"], c["ratio"])
        table.add(find_ridge(bench.weights, halves, kept)[0], "ridge")
    runs = {f"{name}, equal widths": (name, None, halves) for name in scores}
    for name in c["widths"]:
        runs[f"{name}, its own widths"] = (name, name, halves)
        if name != "energy":
            runs[f"energy, widths by {name}"] = ("energy", name, halves)
    for run, (name, widths, read) in runs.items():
        if not table.has("kl", run):
            ratios = c["ratio"]
            if widths:
                ratios = budget(scores[widths], widths, c["ratio"])
            kept = rows_by_scores(scores[name], ratios)
            table.add(bench.judged(kept, read, table["ridge"]), "kl", run)
            print(run, sum(table["kl"][run]["re-fitted"]) / len(bench.held), flush=True)
    name = "energy, equal widths, filtered texts"
    if not table.has("kl", name):
        read = moments_of(bench.model, filtered)
        moments = mean_moments(read)
        kept = [
            surgeon_energies(D.detach(), H)[0]
            for D, H in zip(bench.weights, moments.second, strict=True)
        ]
        kept = rows_by_scores(kept, c["ratio"])
        table.add(bench.judged(kept, read, table["ridge"]), "kl", name)


def correlation(a, b):
    """Mean over layers of the rank correlation of two scores."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return round(float(((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()), 4)


if __name__ == "__main__":
    main()
