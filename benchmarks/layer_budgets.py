"""Rows shared among layers by alpha-fair utilities, on both real models.

    python benchmarks/layer_budgets.py [--minutes N] [--only PLACE]
    python benchmarks/layer_budgets.py --model gemma3 --results FILE

fills `book/results/layer_budgets.json`, for another model another file.  Statistics
come from the model's own texts and are kept under build/.  For every value of a row,
every alpha and every ratio the widths are shared, the neurons of largest Fisher cost
stay, `down_proj` is re-fitted, and the model is judged by its divergence on other texts
of its own, text by text, and on windows of WikiText-2 validation, which decide nothing.
A piece that is there is not measured again.
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
    made_once,
    once,
    options_of,
    tensors_once,
)

from prunefair.bridge.layer_budgets import kept_costs, refit_values, share_rows
from prunefair.models import load_model, load_tokenizer
from prunefair.pruning.anatomy import ratio_of_rows, rows_to_keep
from prunefair.pruning.functional_pruning import text_statistics
from prunefair.pruning.perplexity import (
    beginning_tokens,
    self_sample,
    token_nats,
    wikitext_tokens,
)
from prunefair.pruning.refit import mean_moments, refit_
from prunefair.pruning.self_moments import Moments, down_projections
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.surgery import prune_rows

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "layer_budgets.json"
CONFIGURATION = {
    "model": "smollm2",
    "texts": [64, 128],
    "seed": 300,
    "held_out": [16, 64],
    "held_out_seed": 341,
    "ridge": 0.1,
    "most": 0.5,
    "text": "WikiText-2 validation, first windows",
    "windows": [2, 512],
    "alphas": [0, 0.25, 0.5, 1, 2, 4, "inf"],
}
SECOND = {"model": "gemma3", "texts": [32, 128], "held_out": [12, 64]}
CONFIGURATIONS = {"smollm2": CONFIGURATION, "gemma3": CONFIGURATION | SECOND}
RATIOS = {"smollm2": (0.3, 0.1), "gemma3": (0.3,)}


class Bench(OncePerProcess):
    """The dense model, its statistics, and the texts that judge."""

    def __init__(self, name):
        self.given = (name,)
        self.c = c = CONFIGURATIONS[name]
        self.model = load_model(c["model"], dtype=torch.float32)
        known = tensors_once(ROOT / "build" / "layer_budgets", c["model"], self.measure)
        second, mean, fisher = (
            [known[f"{name} {i}"] for i in range(len(known) // 3)]
            for name in ("second", "mean", "fisher")
        )
        self.moments, self.fisher = Moments(second, mean, 0), fisher
        self.held = self.sample("held_out", "held_out_seed")
        tokenizer = load_tokenizer(c["model"])
        text = wikitext_tokens(tokenizer, "validation")
        n, length = c["windows"]
        head = torch.tensor(beginning_tokens(tokenizer), dtype=text.dtype)
        windows = text[: n * length].view(n, length)
        self.windows = torch.cat([head.expand(n, -1), windows], 1)
        self.dense = [self.log_distribution(self.model, x) for x in self.held.split(4)]

    def sample(self, sizes, seed):
        generator = torch.Generator().manual_seed(self.c[seed])
        return self_sample(self.model, *self.c[sizes], generator=generator)

    def measure(self):
        halves, fisher, _ = text_statistics(self.model, self.sample("texts", "seed"))
        moments = mean_moments(halves)
        parts = {"second": moments.second, "mean": moments.mean, "fisher": fisher}
        return {
            f"{name} {i}": x.float()
            for name, each in parts.items()
            for i, x in enumerate(each)
        }

    @once
    def values(self, kind):
        """Value of every number of rows, of each layer."""
        if kind == "costs":
            return [kept_costs(f) for f in self.fisher]
        if kind == "shares":
            return [kept_costs(f / f.double().sum()) for f in self.fisher]
        maps = zip(down_projections(self.model), self.moments.second, self.fisher)
        return [
            refit_values(linear.weight.detach(), H, order, ridge=self.c["ridge"])
            for linear, H, f in maps
            for order in [f.argsort(descending=True, stable=True)]
        ]

    @torch.no_grad()
    def log_distribution(self, model, texts):
        return model(texts, use_cache=False).logits.float().log_softmax(-1)

    def judged(self, model):
        kl = []
        for p, chunk in zip(self.dense, self.held.split(4), strict=True):
            q = self.log_distribution(model, chunk)
            kl.append((p.exp() * (p - q)).sum(-1).mean(1))
        n, length = self.c["windows"]
        nats = [token_nats(model, w[None])[0, -length:].mean() for w in self.windows]
        return {"kl": rounded(torch.cat(kl)), "nats": rounded(nats)}

    def pruned(self, kind, alpha, ratio):
        """A model whose rows are shared so, and what was measured of it."""
        sizes = [len(f) for f in self.fisher]
        total = sum(rows_to_keep(m, ratio) for m in sizes)
        least = [rows_to_keep(m, max(self.c["most"], ratio)) for m in sizes]
        if kind == "equal":
            widths, row = [rows_to_keep(m, ratio) for m in sizes], {}
        else:
            values = self.values(kind)
            shared = share_rows(values, total, float(alpha), least=least)
            widths = shared.widths.tolist()
            kept = [v[k] for v, k in zip(values, widths, strict=True)]
            row = {"gap": shared.gap, "values": rounded(kept)}
        ratios = [ratio_of_rows(m, k) for m, k in zip(sizes, widths, strict=True)]
        kept = rows_by_scores(self.fisher, ratios)
        model = prune_rows(self.model, kept)
        refit_(model, self.model, kept, self.moments, ridge=self.c["ridge"])
        return {"widths": widths} | row | self.judged(model)


def rounded(values) -> list:
    return [float(f"{float(x):.6g}") for x in values]


def pieces(bench):
    """Place of every piece, and what makes it: the most telling first."""
    c = bench.c
    yield ("dense",), lambda: bench.judged(bench.model)
    ratios = RATIOS[c["model"]]
    cases = [(ratios[0], "equal", "")]
    cases += [(ratio, "costs", a) for ratio in ratios for a in c["alphas"]]
    cases += [(ratios[0], "re-fit", a) for a in c["alphas"]]
    cases += [(ratios[0], "shares", a) for a in (0, "inf")]
    cases += [(ratio, "equal", "") for ratio in ratios[1:]]
    for ratio, kind, alpha in cases:
        place = str(ratio), kind, str(alpha)
        yield place, functools.partial(bench.pruned, kind, alpha, ratio)
    yield ("concavity",), lambda: concavity(bench)


def concavity(bench):
    """By how much the least concave function lies above the re-fit value, a layer."""
    found = []
    for value in bench.values("re-fit"):
        k = np.arange(len(value))
        upper = [0]
        for i in k[1:]:  # the upper hull
            while len(upper) > 1:
                a, b = upper[-2:]
                slope = (value[i] - value[a]) / (i - a)
                if value[b] - value[a] > slope * (b - a):
                    break
                upper.pop()
            upper.append(i)
        found.append((np.interp(k, upper, value[upper]) - value).max())
    return rounded(found)


def main() -> None:
    """Everything that is not there yet."""
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--model", choices=CONFIGURATIONS, default="smollm2")
    options = in_pieces(parser)
    c = CONFIGURATIONS[options.model]
    torch.set_num_threads(1)
    start = time.process_time()
    table = Table(options.results, c, "torch", "transformers", device=cpu())
    bench = made_once(Bench, options.model)
    print(f"{time.process_time() - start:.0f} s to begin with", flush=True)
    table.fill(pieces(bench), options, functools.partial(print, flush=True))


if __name__ == "__main__":
    main()
