r"""Self-distillation of the small real model pruned by 30 %, over the tokens it takes.

    python benchmarks/distillation.py [--plan NAME] [--tokens N] [--rank R]

writes `book/results/distillation.json`.  It begins with a model that closed forms
leave, which `benchmarks/reconstruction.py --only whole` has stored, and which then
learns from the dense model on text that this samples.  At each look stands the
divergence of 24 held-out texts of the dense model, which also say when to stop; at
every third one, and at the last, the information of four windows of WikiText-2 test, by
which nothing is chosen.

A run is put aside after each look in the folder `--scratch` and goes on from there; its
pieces are stored as they come.  On one core a thousand tokens take about half a minute.

Not in pieces for workers: each step of a training needs the one before.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import torch
from storing import Table, cpu, options_of

from prunefair.models import cache_folder, load_model, load_tokenizer
from prunefair.pruning.folders import load_pruned
from prunefair.pruning.layered import FolderStore
from prunefair.pruning.perplexity import (
    beginning_tokens,
    wikitext_tokens,
)
from prunefair.pruning.recovery import window_nats
from prunefair.pruning.self_distillation import DistillationPlan, self_distill

RESULT = Path(__file__).parents[1] / "book" / "results" / "distillation.json"
START = "drift 0.5, 256 texts"
PRUNED = Path(__file__).parents[1] / "build" / "reconstruction" / START
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "pruned": f"whole/{START} of reconstruction.json",
    "plan": {"held": 24, "window": 128},
    "plans": {
        "8 texts a step": {
            **{"batch_size": 8, "every": 8, "patience": 8},
            **{"learning_rate": 2e-4, "cooldown": 0.6},
        },
        "16 texts a step": {
            **{"batch_size": 16, "every": 8, "patience": 4},
            **{"learning_rate": 3e-4, "cooldown": 0.25},
        },
        "8 texts a step, half the rate": {
            **{"batch_size": 8, "every": 8, "patience": 8},
            **{"learning_rate": 1e-4, "cooldown": 0.6},
        },
    },
    "test": {"windows": 4, "window": 1024},
    "seed": 76,
}


def rounded(values) -> list[float]:
    return [round(float(value), 5) for value in values]


def test_nats(model, material) -> list[float]:
    """Information of the windows of WikiText-2 test."""
    size = CONFIGURATION["test"]
    beginning = beginning_tokens(material["tokenizer"])
    text = material["test"]
    return rounded(
        window_nats(model, text, size["window"], size["windows"], beginning=beginning)
    )


def distilled(name, model, plan, material, table, scratch) -> None:
    """One run, each look stored as it comes."""
    stored = table.get("runs", {}).get(name, {}).get("looks", {}).values()
    before = max((look["seconds"] for look in stored), default=0)
    begin = time.perf_counter() - before

    def watch(tokens, divergences, student):
        number = tokens // (plan.every * plan.batch_size * plan.window)
        piece = {"kl": rounded(divergences)}
        if number % 3 == 0 or tokens == plan.steps * plan.batch_size * plan.window:
            piece["nats"] = test_nats(student, material)
        piece["seconds"] = round(time.perf_counter() - begin)
        table.add(piece, "runs", name, "looks", str(tokens))

    store = FolderStore(scratch / name, {"plan": asdict(plan) | {"tokens": None}})
    run = self_distill(
        model,
        material["dense"],
        plan,
        generator=torch.Generator().manual_seed(CONFIGURATION["seed"]),
        store=store,
        watch=watch,
    )
    table.add(asdict(plan), "runs", name, "plan")
    table.add(run.levelled, "runs", name, "levelled")
    table.add(run.looked_at[run.best], "runs", name, "best")
    table.add(run.n_trained, "runs", name, "trained")


def arguments():
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--tokens", type=int, default=262_144)
    plans = [*CONFIGURATION["plans"]]
    parser.add_argument("--plan", default="16 texts a step", choices=plans)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--pruned", type=Path, default=PRUNED)
    parser.add_argument("--scratch", type=Path, default=cache_folder() / "distillation")
    return parser.parse_args()


def main():
    options = arguments()
    table = Table(
        options.results,
        CONFIGURATION,
        *("torch", "transformers"),
        device=cpu(torch.get_num_threads()),
    )
    options.scratch.mkdir(parents=True, exist_ok=True)
    dense, tokenizer = load_model("smollm2"), load_tokenizer("smollm2")
    material = {
        "dense": dense,
        "tokenizer": tokenizer,
        "test": wikitext_tokens(tokenizer, "test"),
    }
    if not table.has("dense"):
        table.add({"nats": test_nats(dense, material)}, "dense")
    model = load_pruned(options.pruned)
    plan = DistillationPlan(
        tokens=options.tokens,
        rank=options.rank,
        **CONFIGURATION["plan"],
        **CONFIGURATION["plans"][options.plan],
    )
    ways = f"rank {options.rank}" if options.rank else "all weights"
    name = f"{ways}, {options.plan}"
    distilled(name, model, plan, material, table, options.scratch)


if __name__ == "__main__":
    main()
