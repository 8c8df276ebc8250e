"""Accuracies of this book and of lm-evaluation-harness on the same questions.

    python benchmarks/harness_equality.py [--workers 2]

Needs the extra `eval`.  The small real model, dense and with a tenth of the rows of
every layer removed at random, answers the first questions of every task twice: by
`zero_shot`, and by the harness with its own task definitions and its own scoring.
Seconds are processor time of one thread, which other load on the machine changes less.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from storing import Table, cpu, in_pieces, options_of

from prunefair.harness import HarnessResult, harness_results
from prunefair.models import load_model, load_tokenizer
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.surgery import row_matrices, slice_ffn_
from prunefair.pruning.zero_shot import TaskResult, zero_shot

RESULT = Path(__file__).parents[1] / "book" / "results" / "harness_equality.json"
CONFIGURATION = {
    "model": "smollm2",
    "dtype": "float32",
    "questions": {
        "piqa": 100,
        "winogrande": 100,
        "hellaswag": 40,
        "arc_easy": 50,
        "arc_challenge": 50,
        "mmlu_abstract_algebra": 10,
        "mmlu_miscellaneous": 10,
        "mmlu_philosophy": 10,
    },
    "length": "characters",
    "batch_size": 16,
    "ratio": 0.1,
    "seed": 20250127,
}


def pruned_model():
    """The small model without a tenth of its rows, drawn at random in every layer."""
    generator = torch.Generator().manual_seed(CONFIGURATION["seed"])
    model = load_model(CONFIGURATION["model"])
    sizes = [len(W) for W in row_matrices(model)]
    rows = [torch.randperm(m, generator=generator) for m in sizes]
    kept = [rows_to_keep(m, CONFIGURATION["ratio"]) for m in sizes]
    return slice_ffn_(
        model, [r[:k].sort().values for r, k in zip(rows, kept, strict=True)]
    )


def comparison(ours: TaskResult, theirs: HarnessResult) -> dict:
    """One row of the table."""
    found = ours.per_question
    outcomes = {"acc": found.correct, "acc_norm": found.correct_norm}
    pairs = list(zip(found.log_likelihoods, theirs.log_likelihoods, strict=True))
    row = {"n": ours.n}
    for metric, outcome in theirs.metrics.items():
        row |= {
            f"{metric}_ours": getattr(ours, metric),
            f"{metric}_harness": theirs.means[metric],
            f"{metric}_outcomes_differ": int((outcomes[metric] != outcome).sum()),
        }
    return row | {
        "choices_differ": sum(int(np.argmax(a) != np.argmax(b)) for a, b in pairs),
        "largest_difference_nats": max(float(abs(a - b).max()) for a, b in pairs),
    }


def measure(label: str) -> dict:
    """One model, every task, both programs."""
    tokenizer = load_tokenizer(CONFIGURATION["model"])
    model = load_model(CONFIGURATION["model"]) if label == "dense" else pruned_model()
    assert model.dtype == torch.float32
    options = {"batch_size": CONFIGURATION["batch_size"]}
    table = {}
    for task, limit in CONFIGURATION["questions"].items():
        options["limit"] = limit
        clock = [time.process_time()]
        ours = zero_shot(
            model, tokenizer, [task], length=CONFIGURATION["length"], **options
        )
        clock.append(time.process_time())
        theirs = harness_results(model, tokenizer, [task], **options)
        clock.append(time.process_time())
        seconds = zip(("seconds_ours", "seconds_harness"), np.diff(clock).round(1))
        table[task] = comparison(ours[task], theirs[task]) | dict(seconds)
        print(label, task, json.dumps(table[task]), file=sys.stderr, flush=True)
    return table


def main() -> None:
    """Measure what the table lacks, model by model."""
    options = in_pieces(options_of(__doc__, RESULT))
    names = ("torch", "transformers", "tokenizers", "lm_eval", "datasets", "numpy")
    table = Table(options.results, CONFIGURATION, *names, device=cpu())
    labels = ("dense", "pruned")
    pieces = [(("tasks", name), functools.partial(measure, name)) for name in labels]
    table.fill(pieces, options, functools.partial(print, flush=True))


if __name__ == "__main__":
    main()
