"""Neurons by other scores: entropy, fluctuation, fidelity, beside energies and costs.

    python benchmarks/scores.py [--minutes 30] [--only kl] [--workers 2]

fills `book/results/scores.json`.  All scores are measured on the same self-sampled
texts of the small real model; each keeps 70 % of the neurons of every layer, and some
share the budget among layers, too.  The models are judged by the divergence from the
dense one on texts of another seed, as they are cut and after a re-fit.  Each selection
is a piece; texts and scores wait in `build/scores`.
"""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path

import torch
from storing import (
    THEN,
    OncePerProcess,
    Table,
    cpu,
    in_pieces,
    made_once,
    options_of,
    tensors_once,
)

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

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "scores.json"
CACHE = ROOT / "build" / "scores"
SCORES = (
    "energy",
    "surgeon energy",
    "Fisher cost",
    "entropy",
    "entropy squared",
    "fluctuation",
    "fidelity",
)
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


class Bench(OncePerProcess):
    """The dense model, its texts, what is measured on them, and the judgement."""

    def __init__(self):
        self.c = c = CONFIGURATION
        self.model = load_model(c["model"], dtype=torch.float32)
        self.weights = [each.weight for each in down_projections(self.model)]
        self.texts = tensors_once(CACHE, "texts", self.sampled)
        self.held = self.texts["held"]

    def sampled(self):
        """Texts to judge on, to measure on, and to measure on after a filter."""
        c, (n, length) = self.c, self.c["texts"]
        generator = torch.Generator().manual_seed(c["held_out_seed"])
        held = self_sample(self.model, *c["held_out"], generator=generator)
        generator = torch.Generator().manual_seed(c["seed"])
        drawn = self_sample(
            self.model, c["sampled_to_filter"], length, generator=generator
        )
        nats = [token_nats(self.model, part).sum(1) for part in drawn.split(8)]
        filtered = drawn[torch.cat(nats).argsort()[:n].sort().values]
        return {"held": held, "first": drawn[:n], "filtered": filtered}

    @cached_property
    def halves(self):
        """Moments of both halves of the texts."""
        return moments_of(self.model, self.texts["first"])

    @cached_property
    def scores(self):
        """Every score of every neuron, once on a machine."""

        def measured():
            found = all_scores(self.model, self.texts["first"], self.halves)
            return {
                f"{name}, {layer}": values
                for name, each in found.items()
                for layer, values in enumerate(each)
            }

        layers = range(len(self.weights))
        known = tensors_once(CACHE, "scores", measured)
        names = dict.fromkeys(name.rpartition(", ")[0] for name in known)
        return {name: [known[f"{name}, {i}"] for i in layers] for name in sorted(names)}

    def divergence(self, model):
        kl = kl_per_position(self.model, model, self.held)
        return [round(float(x), 5) for x in kl.mean(1)]

    def judged(self, kept, halves, ridge):
        """Divergence as cut, and after the re-fit."""
        pruned = prune_rows(self.model, kept)
        cut = self.divergence(pruned)
        pruned = refit_(pruned, self.model, kept, mean_moments(halves), ridge=ridge)
        return {"cut": cut, "re-fitted": self.divergence(pruned)}


def ranks(bench):
    """Rank correlation of every two scores."""
    found = {
        name: torch.stack([s.double().argsort().argsort() for s in each]).double()
        for name, each in ((name, bench.scores[name]) for name in SCORES)
    }
    return {a: {b: correlation(found[a], found[b]) for b in found} for a in found}


def ridge(bench):
    """One ridge for all, found for the energies."""
    kept = rows_by_scores(bench.scores["energy"], bench.c["ratio"])
    return find_ridge(bench.weights, bench.halves, kept)[0]


def selected(bench, name, widths, found):
    """Divergence of the neurons that a score keeps, with the widths of another."""
    ratios = bench.c["ratio"]
    if widths:
        ratios = budget(bench.scores[widths], widths, ratios)
    kept = rows_by_scores(bench.scores[name], ratios)
    return bench.judged(kept, bench.halves, found)


def filtered(bench, found):
    """Divergence of the energies on the texts of least perplexity."""
    read = moments_of(bench.model, bench.texts["filtered"])
    moments = zip(bench.weights, mean_moments(read).second, strict=True)
    energies = [surgeon_energies(D.detach(), H)[0] for D, H in moments]
    return bench.judged(rows_by_scores(energies, bench.c["ratio"]), read, found)


def pieces(bench, table):
    """Place in the table of every piece, and the function that fills it."""
    yield ("ranks",), partial(ranks, bench)
    yield ("ridge",), partial(ridge, bench)
    yield THEN
    found = table["ridge"]
    runs = {f"{name}, equal widths": (name, None) for name in SCORES}
    for name in CONFIGURATION["widths"]:
        runs[f"{name}, its own widths"] = (name, name)
        if name != "energy":
            runs[f"energy, widths by {name}"] = ("energy", name)
    for run, (name, widths) in runs.items():
        yield ("kl", run), partial(selected, bench, name, widths, found)
    last = "energy, equal widths, filtered texts"
    yield ("kl", last), partial(filtered, bench, found)


def main() -> None:
    """Measure what the table lacks."""
    options = in_pieces(options_of(__doc__, RESULT))
    table = Table(options.results, CONFIGURATION, "torch", "transformers", device=cpu)
    table.fill(pieces(made_once(Bench), table), options, partial(print, flush=True))


def correlation(a, b):
    """Mean over layers of the rank correlation of two scores."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return round(float(((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()), 4)


if __name__ == "__main__":
    main()
