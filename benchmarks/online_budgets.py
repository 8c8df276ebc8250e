"""Rows shared for several kinds of text by the online fair policy, on the small model.

    python benchmarks/online_budgets.py [--minutes N] [--only PLACE]

fills `book/results/online_budgets.json`.  Of every seed the model writes a stream of
texts, most of them from nothing and few of every other kind.  The policy plays on their
Fisher costs; the rows that it would play next stay, `down_proj` is re-fitted to the
texts of the stream, and the divergence from the dense model is measured on texts of
every kind that no statistic was taken on.  Texts and statistics are kept under build/.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path

import numpy as np
import torch
from storing import (
    OncePerProcess,
    Table,
    cpu,
    in_pieces,
    latest,
    made_once,
    once,
    options_of,
    tensors_once,
)

from prunefair.bridge.online_budgets import (
    KINDS,
    best_rows,
    fair_rows,
    first_tokens,
    play_rows,
    text_costs,
)
from prunefair.models import load_model, load_tokenizer
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.perplexity import self_sample
from prunefair.pruning.refit import refit_
from prunefair.pruning.self_moments import (
    Moments,
    down_projections,
    hidden_sums,
    summed_moments,
)
from prunefair.pruning.surgery import prune_rows

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "online_budgets.json"
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "most": 0.5,
    "kinds": {name: [*kind] for name, kind in KINDS.items()},
    "texts": {name: 50 if name == "anything" else 10 for name in KINDS},
    "length": 48,
    "held_out": 10,
    "held_out_seed": 349,
    "seeds": [350, 351, 352],
    "alphas": [0, 0.5, 0.9],
    "orders": 2,
    "ridge": 0.1,
}
OWN, BEST = "from nothing", "best"
BUILD = ROOT / "build" / "online_budgets"


class Bench(OncePerProcess):
    """The dense model and the texts that judge."""

    def __init__(self):
        self.c = c = CONFIGURATION
        self.model = load_model(c["model"], dtype=torch.float32)
        tokenizer = load_tokenizer(c["model"])
        self.first = {
            name: first_tokens(tokenizer, kind.asked) for name, kind in KINDS.items()
        }
        held = tensors_once(
            BUILD, "held", lambda: self.write(c["held_out_seed"], c["held_out"])
        )
        self.held = {name: held[name] for name in KINDS}

    def write(self, seed, counts):
        """Texts of every kind by its name."""
        generator = torch.Generator().manual_seed(seed)
        options = {"generator": generator}
        texts = {}
        for name, kind in KINDS.items():
            n = counts if isinstance(counts, int) else counts[name]
            options["temperature"] = kind.temperature
            first = self.first[name]
            length = len(first) + self.c["length"]
            texts[name] = self_sample(self.model, n, length, start=first, **options)
        return texts

    def measure(self, seed):
        """Costs of every text, and moments of all."""
        texts, linears = self.write(seed, self.c["texts"]), down_projections(self.model)
        found, tokens = {f"texts {name}": x for name, x in texts.items()}, 0
        for name, x in texts.items():
            costs = text_costs(self.model, x, len(self.first[name]))
            found[f"costs {name}"] = torch.from_numpy(costs)
        with torch.no_grad(), hidden_sums(linears) as hidden:
            for x in texts.values():
                tokens += x.numel()
                for chunk in x.split(12):
                    self.model(chunk, use_cache=False, logits_to_keep=1)
        moments = summed_moments(hidden, tokens)
        for i, (H, mean) in enumerate(zip(moments.second, moments.mean, strict=True)):
            found |= {f"second {i}": H.float(), f"mean {i}": mean.float()}
        return found

    @latest
    def statistics(self, seed):
        """Shares of every row in each text of each kind, and the moments."""
        known = tensors_once(BUILD, f"seed-{seed}", lambda: self.measure(seed))
        shares = {}
        for name in KINDS:
            costs = known[f"costs {name}"].double().numpy()
            shares[name] = costs / costs.sum((1, 2), keepdims=True)
        layers = range(len(down_projections(self.model)))
        second, mean = (
            [known[f"{name} {i}"] for i in layers] for name in ("second", "mean")
        )
        return shares, Moments(second, mean, 0)

    @functools.cached_property
    def limits(self):
        """The budget, and what every layer keeps."""
        sizes = [linear.in_features for linear in down_projections(self.model)]
        m, c = sizes[0], self.c
        return {
            "budget": len(sizes) * rows_to_keep(m, c["ratio"]),
            "least": rows_to_keep(m, c["most"]),
        }

    def stream(self, seed, order):
        """All texts of a seed in a random order: shares, and the number of the kind."""
        shares, _ = self.statistics(seed)
        texts = [(s, i) for i, each in enumerate(shares.values()) for s in each]
        places = np.random.default_rng([seed, order]).permutation(len(texts))
        return zip(*(texts[place] for place in places), strict=True)

    def play(self, seed, alpha, order):
        return play_rows(
            *self.stream(seed, order), len(KINDS), float(alpha), **self.limits
        )

    def sums(self, seed):
        return np.array([s.sum(0) for s in self.statistics(seed)[0].values()])

    def played(self, seed, alpha):
        """What the policy earned in several orders, and what the best rows would."""
        plays = [self.play(seed, alpha, order) for order in range(self.c["orders"])]
        best = fair_rows(self.sums(seed), float(alpha), **self.limits)
        return {
            "rewards": [rounded(play.rewards[-1]) for play in plays],
            "regret": rounded(play.regret[-1] for play in plays),
            "bound": rounded(play.bound[-1] for play in plays),
            "best": rounded(best.rewards),
            "gap": float(f"{best.gap:.3g}"),
        }

    def kept(self, seed, choice):
        """Rows that stay, by a policy or by the texts from nothing alone."""
        if choice == OWN:
            scores = self.statistics(seed)[0]["anything"].sum(0)
        elif choice.startswith(BEST):
            alpha = float(choice.removeprefix(BEST))
            scores = fair_rows(self.sums(seed), alpha, **self.limits).x
        else:
            scores = self.play(seed, choice, 0).point
        return best_rows(scores, **self.limits)

    def pruned(self, seed, choice):
        """Widths, shares of every kind that are kept, and divergences of a model."""
        kept = self.kept(seed, choice)
        rows = [torch.from_numpy(layer.nonzero()[0]) for layer in kept]
        model = prune_rows(self.model, rows)
        moments = self.statistics(seed)[1]
        refit_(model, self.model, rows, moments, ridge=self.c["ridge"])
        shares = {n: s.mean(0) for n, s in self.statistics(seed)[0].items()}
        return {
            "widths": kept.sum(1).tolist(),
            "kept": {n: rounded([s[kept].sum()])[0] for n, s in shares.items()},
            "kl": {n: self.divergences(model, n) for n in KINDS},
        }

    def divergences(self, model, name):
        """Mean divergence on every text, behind what it was given."""
        p, q = self.dense(name), self.log_distribution(model, name)
        found = [(a.exp() * (a - b)).sum(-1).mean(1) for a, b in zip(p, q, strict=True)]
        return rounded(torch.cat(found))

    @once
    def dense(self, name):
        return [*self.log_distribution(self.model, name)]

    def log_distribution(self, model, name):
        """What comes next at every position behind what was given, chunk by chunk."""
        given = len(self.first[name])
        for chunk in self.held[name].split(5):
            with torch.no_grad():
                logits = model(chunk, use_cache=False).logits
            yield logits[:, given - 1 : -1].log_softmax(-1)


def rounded(values) -> list:
    return [float(f"{float(x):.5g}") for x in values]


def pieces(bench):
    """Place of every piece, and what makes it, seed after seed."""
    c = bench.c
    for seed in c["seeds"]:
        for choice in (OWN, *map(str, c["alphas"])):
            place = "pruned", str(seed), choice
            yield place, functools.partial(bench.pruned, seed, choice)
        for alpha in map(str, c["alphas"]):
            place = "played", str(seed), alpha
            yield place, functools.partial(bench.played, seed, alpha)


def main() -> None:
    """Everything that is not there yet."""
    options = in_pieces(options_of(__doc__, RESULT))
    torch.set_num_threads(1)
    start = time.process_time()
    table = Table(options.results, CONFIGURATION, "torch", "transformers", device=cpu())
    bench = made_once(Bench)
    print(f"{time.process_time() - start:.0f} s to begin with", flush=True)
    table.fill(pieces(bench), options, functools.partial(print, flush=True))


if __name__ == "__main__":
    main()
