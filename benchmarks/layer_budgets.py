"""Rows shared among layers by alpha-fair utilities, on both real models.

    python benchmarks/layer_budgets.py [--minutes N] [--only PLACE]
    python benchmarks/layer_budgets.py --model gemma3
                                       --results book/results/layer_budgets_gemma3.json

fills `book/results/layer_budgets.json`, or the table of the second real model.
Statistics come from the model's own texts and are kept under build/.  For every value
of a row, every alpha and every ratio the widths are shared, the neurons of largest
Fisher cost stay, `down_proj` is re-fitted, and the model is judged by its divergence on
other texts of its own, text by text.  With Fisher costs and with equal widths it also
reads windows of WikiText-2 validation, at some of the ratios, and at the first it
answers zero-shot questions; both decide nothing.  A piece that is there is not measured
again.
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
from prunefair.pruning.records import evaluation_order, outcomes_to_hex
from prunefair.pruning.refit import mean_moments, refit_
from prunefair.pruning.self_moments import Moments, down_projections
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.surgery import prune_rows
from prunefair.pruning.zero_shot import (
    TASK_CHANCE,
    log_likelihoods,
    task_questions,
    task_result,
)

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
    "most_at": {"0.5": 0.8},  # where the bound for the others leaves no choice
    "text": "WikiText-2 validation, first windows",
    "windows": [12, 512],
    "read_at": [0.3, 0.5],
    "alphas": [0, 0.25, 0.5, 1, 2, 4, "inf"],
    "tasks": list(TASK_CHANCE),
    "questions": 100,  # of each task
    "order_seed": 2025,  # as in pruning_methods.py
    "asked": [0, 0.5, "inf"],
}
SECOND = {
    "model": "gemma3",
    "texts": [32, 128],
    "held_out": [12, 64],
    "windows": [12, 256],
}
CONFIGURATIONS = {"smollm2": CONFIGURATION, "gemma3": CONFIGURATION | SECOND}
RATIOS = (0.3, 0.5, 0.1)  # questions are asked at the first
UNWEIGHTED = ("shares", "energies")  # each layer's costs over their sum; what it writes
HELLASWAG = 2000  # from which the questions of HellaSwag are drawn


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
        self.tokenizer = tokenizer = load_tokenizer(c["model"])
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

    @property
    def downs(self):
        return down_projections(self.model)

    @once
    def values(self, kind):
        """Value of every number of rows, of each layer."""
        if kind == "costs":
            return [kept_costs(f) for f in self.fisher]
        if kind == "shares":
            return [kept_costs(f / f.double().sum()) for f in self.fisher]
        if kind == "energies":
            squares = [x.weight.detach().double() ** 2 for x in self.downs]
            pairs = zip(squares, self.moments.second, strict=True)
            return [kept_costs(D2.sum(0) * H.diagonal()) for D2, H in pairs]
        maps = zip(self.downs, self.moments.second, self.fisher)
        return [
            refit_values(linear.weight.detach(), H, order, ridge=self.c["ridge"])
            for linear, H, f in maps
            for order in [f.argsort(descending=True, stable=True)]
        ]

    @torch.no_grad()
    def log_distribution(self, model, texts):
        return model(texts, use_cache=False).logits.float().log_softmax(-1)

    def judged(self, model, windows=True):
        kl = []
        for p, chunk in zip(self.dense, self.held.split(4), strict=True):
            q = self.log_distribution(model, chunk)
            kl.append((p.exp() * (p - q)).sum(-1).mean(1))
        found = {"kl": rounded(torch.cat(kl))}
        if windows:
            length = self.c["windows"][1]
            nats = [token_nats(model, w[None])[0, -length:] for w in self.windows]
            found["nats"] = rounded(x.mean() for x in nats)
        return found

    def shared(self, kind, alpha, ratio):
        """Widths, and what the table says of them beside."""
        sizes = [len(f) for f in self.fisher]
        total = sum(rows_to_keep(m, ratio) for m in sizes)
        most = max(self.c["most_at"].get(str(ratio), self.c["most"]), ratio)
        least = [rows_to_keep(m, most) for m in sizes]
        if kind == "equal":
            return {"widths": [rows_to_keep(m, ratio) for m in sizes]}
        values = self.values(kind)
        found = share_rows(values, total, float(alpha), least=least)
        widths = found.widths.tolist()
        kept = [v[k] for v, k in zip(values, widths, strict=True)]
        return {"widths": widths, "gap": found.gap, "values": rounded(kept)}

    def pruned(self, widths):
        """The model with these widths."""
        sizes = [len(f) for f in self.fisher]
        ratios = [ratio_of_rows(m, k) for m, k in zip(sizes, widths, strict=True)]
        kept = rows_by_scores(self.fisher, ratios)
        model = prune_rows(self.model, kept)
        return refit_(model, self.model, kept, self.moments, ridge=self.c["ridge"])

    def row(self, kind, alpha, ratio):
        """Widths, and how near the model is to the dense one."""
        row = self.shared(kind, alpha, ratio)
        windows = kind in ("costs", "equal") and ratio in self.c["read_at"]
        return row | self.judged(self.pruned(row["widths"]), windows)

    def answers(self, kind, alpha, ratio):
        """Outcomes of the questions of every task, by either rule."""
        model = self.model
        if kind != "dense":
            model = self.pruned(self.shared(kind, alpha, ratio)["widths"])
        found = {}
        for task in self.c["tasks"]:
            questions = self.questions(task)
            scores = log_likelihoods(model, self.tokenizer, questions, batch_size=4)
            of = task_result(questions, scores, TASK_CHANCE[task]).per_question
            rules = [r for r in (of.correct, of.correct_norm) if r is not None]
            marks = ["".join("01"[int(right)] for right in rule) for rule in rules]
            found[task] = [outcomes_to_hex(m) for m in marks]
        return found

    def questions(self, task):
        """The first of the order in which `pruning_methods.py` asks."""
        questions = task_questions(task)
        count = min(len(questions), HELLASWAG if task == "hellaswag" else 10**6)
        rng = np.random.default_rng(self.c["order_seed"])
        order = evaluation_order(count, rng=rng)[: self.c["questions"]]
        return [questions[i] for i in order]


def rounded(values) -> list:
    return [float(f"{float(x):.6g}") for x in values]


def pieces(bench):
    """Place of every piece, and what makes it: the most telling first."""
    c, first = bench.c, RATIOS[0]
    yield ("dense",), lambda: bench.judged(bench.model)
    cases = [(first, "equal", "")] + [(first, "costs", a) for a in c["alphas"]]
    yield from (placed(bench.row, *case) for case in cases)
    asked = [(first, "costs", a) for a in c["asked"]]
    for case in [*asked, (first, "equal", "")]:
        yield placed(bench.answers, *case, "answers")
    cases = []
    for ratio in RATIOS[1:]:
        cases += [(ratio, "equal", "")] + [(ratio, "costs", a) for a in c["alphas"]]
    if c["model"] == CONFIGURATION["model"]:
        cases += [(first, "re-fit", a) for a in c["alphas"]]
        cases += [(first, kind, a) for kind in UNWEIGHTED for a in (0, "inf")]
    yield from (placed(bench.row, *case) for case in cases)
    yield ("concavity",), lambda: concavity(bench)
    yield ("answers", "dense"), lambda: bench.answers("dense", "", 0)


def placed(make, ratio, kind, alpha, *above):
    place = (*above, str(ratio), kind, str(alpha))
    return place, functools.partial(make, kind, alpha, ratio)


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
