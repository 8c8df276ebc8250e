r"""LoRA recovery of the small real model pruned by 30 %, before and after.

    nice -n 10 env OMP_NUM_THREADS=1 python benchmarks/recovery.py

writes `book/results/recovery.json`.  Four models start: the dense one, and those that
keep the rows of the exact policy, random rows, and the rows of largest output energy on
text that the dense model samples itself.  All get the same plan and train on WikiText-2
validation, the dense one on other windows, since they are drawn after A; rank, scale
and rate were fixed before any recovered model was judged, and sizes were raised once
after that.  Each is judged before and after on the first windows of WikiText-2 test, by
its divergence from the dense model on other self-sampled text, and on the first
questions of two zero-shot tasks.  Each model before, and each training after it, is a
piece; the steps of one training depend on each other.  `--seeds` adds to the table,
other sizes need another file.

The default sizes take about half an hour of one core.  With more at hand:

    python benchmarks/recovery.py --device cuda --batch-size 4 --window 256 \
        --seeds 3 --windows 48 --test-window 1024 --questions 1000 \
        --results larger.json
"""

from __future__ import annotations

import functools
import time
from dataclasses import asdict
from pathlib import Path

import torch
from storing import (
    THEN,
    OncePerProcess,
    Table,
    cpu,
    in_pieces,
    latest,
    made_once,
    options_of,
)

from prunefair.models import load_model, load_tokenizer
from prunefair.pruning.perplexity import (
    beginning_tokens,
    kl_per_position,
    self_sample,
    wikitext_tokens,
)
from prunefair.pruning.recovery import RecoveryPlan, recover, window_nats
from prunefair.pruning.spectral_pruning import (
    output_energies,
    prune_spectral,
    rows_by_scores,
)
from prunefair.pruning.surgery import prune_rows, row_matrices
from prunefair.pruning.zero_shot import zero_shot

RESULT = Path(__file__).parents[1] / "book" / "results" / "recovery.json"
RATIO, TASKS = 0.3, ("arc_easy", "piqa")
SEED = {"policy": 0, "random": 1, "energy text": 2, "judged text": 3}
METHODS = ("largest energy", "policy", "random rows", "dense")


def seeded(name):
    return torch.Generator().manual_seed(SEED[name])


def pruned_model(method, dense):
    """The model that `method` leaves of the dense one."""
    if method == "policy":
        return prune_spectral(dense, RATIO, generator=seeded("policy")).model
    if method == "random rows":
        equal = [torch.zeros(len(W)) for W in row_matrices(dense)]
        return prune_rows(
            dense, rows_by_scores(equal, RATIO, generator=seeded("random"))
        )
    if method == "largest energy":
        text = self_sample(dense, 8, 64, generator=seeded("energy text"))
        return prune_rows(dense, rows_by_scores(output_energies(dense, text), RATIO))
    return dense


class Bench(OncePerProcess):
    """The dense model, what judges, and what is trained on."""

    def __init__(self, device, plan, windows, test_window, questions):
        self.given = device, plan, windows, test_window, questions
        self.plan, self.windows = plan, (test_window, windows)
        self.dense = load_model("smollm2", dtype=torch.float32, device=device)
        self.tokenizer = load_tokenizer("smollm2")
        self.validation = wikitext_tokens(self.tokenizer, "validation")
        self.test = wikitext_tokens(self.tokenizer, "test")
        self.samples = self_sample(self.dense, 8, 64, generator=seeded("judged text"))
        self.questions = questions

    @latest
    def start(self, method):
        """The pruned model, kept for the next piece."""
        return pruned_model(method, self.dense)

    def judged(self, model):
        """Nats of test windows, divergence of own texts, answers to questions."""
        beginning = beginning_tokens(self.tokenizer)
        nats = window_nats(model, self.test, *self.windows, beginning=beginning)
        kl = kl_per_position(self.dense, model, self.samples).mean(1)
        results = zero_shot(model, self.tokenizer, TASKS, limit=self.questions)
        return {
            "nats": [round(float(x), 5) for x in nats],
            "kl": [round(float(x), 5) for x in kl],
            "correct": {
                name: "".join(str(int(x)) for x in result.per_question.correct)
                for name, result in results.items()
            },
        }

    def before(self, method):
        """A model as it is pruned."""
        begin = time.process_time()
        model = self.start(method)
        before = self.judged(model)
        seconds = round(time.process_time() - begin, 1)
        done = {"after": {}, "parameters": model.num_parameters(), "before": before}
        return done | {"seconds_before": seconds}

    def after(self, method, seed):
        """The same model after training."""
        model, begin = self.start(method), time.process_time()
        generator = torch.Generator().manual_seed(100 + seed)
        result = recover(model, self.validation, self.plan, generator=generator)
        trained = time.process_time() - begin
        after = self.judged(result.model)
        after["trained"] = result.n_trained
        after["losses"] = [round(float(x), 4) for x in result.losses]
        after["seconds_training"] = round(trained, 1)
        after["seconds"] = round(time.process_time() - begin, 1)
        return after


def pieces(bench, seeds):
    """Place of every piece, and what makes it."""
    for method in METHODS:
        yield ("runs", method), functools.partial(bench.before, method)
    yield THEN  # each lies in the one of its method
    for method in METHODS:
        for seed in range(seeds):
            place = "runs", method, "after", str(seed)
            yield place, functools.partial(bench.after, method, seed)


def arguments():
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--test-window", type=int, default=512)
    parser.add_argument("--questions", type=int, default=200)
    return in_pieces(parser)


def main():
    options = arguments()
    plan = RecoveryPlan(
        steps=options.steps, batch_size=options.batch_size, window=options.window
    )
    sizes = {n: getattr(options, n) for n in ("windows", "test_window", "questions")}
    configuration = {"model": "smollm2", "ratio": RATIO, "plan": asdict(plan)}
    configuration |= sizes | {"tasks": list(TASKS), "samples": [8, 64], "seeds": SEED}
    configuration |= {"trained_on": "WikiText-2 validation", "dtype": "float32"}
    table = Table(
        options.results,
        configuration,
        *("torch", "transformers", "peft"),
        device=cpu() if options.device == "cpu" else options.device,
    )
    bench = made_once(Bench, options.device, plan, *sizes.values())
    table.fill(pieces(bench, options.seeds), options, print)


if __name__ == "__main__":
    main()
