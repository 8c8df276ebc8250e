r"""Self-distillation of the small real model pruned by 30 %, over the tokens it takes.

    python benchmarks/distillation.py [--widths equal] [--tokens N] [--batch-size B]

writes `book/results/distillation.json`.  On 32 texts of the dense model the neurons of
largest energy are chosen and re-fitted, with uneven widths by Fisher cost or with equal
ones, and what is left learns from the dense model on further text of that.  At each
look stands the divergence of 24 held-out texts of the dense model, which also say when
to stop; at every third one the information of four windows of WikiText-2 test, by which
nothing is chosen.  Beside it the same model learns as many tokens of WikiText-2
validation, as in `benchmarks/recovery.py`.

A run is put aside after each look in the folder `--scratch` and goes on from there; its
pieces are stored as they come.  On one core a thousand tokens take about half a minute.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import torch
from storing import Table, cpu, options_of

from prunefair import prune
from prunefair.models import cache_folder, load_model, load_tokenizer
from prunefair.pruning.folders import load_pruned
from prunefair.pruning.layered import FolderStore
from prunefair.pruning.perplexity import (
    beginning_tokens,
    kl_per_position,
    wikitext_tokens,
)
from prunefair.pruning.recovery import RecoveryPlan, recover, window_nats
from prunefair.pruning.self_distillation import DistillationPlan, self_distill

RESULT = Path(__file__).parents[1] / "book" / "results" / "distillation.json"
TEACHER = {"batch_size": 1, "steps": 96, "rank": 8}  # of WikiText-2
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "pruned": {"texts": 32, "seed": 0, "choice": "energy"},
    "plan": {"held": 24, "looks_every": 4096, "learning_rate": 3e-4, "window": 128},
    "test": {"windows": 4, "window": 1024},
    "wikitext": TEACHER,
    "seeds": {"training": 76, "wikitext": 77},
}
SEEDS = CONFIGURATION["seeds"]


def seeded(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(SEEDS[name])


def rounded(values) -> list[float]:
    return [round(float(value), 5) for value in values]


def pruned_folder(widths: str, scratch: Path) -> Path:
    """Folder of the pruned model, made where it is missing."""
    folder = scratch / f"pruned-{widths}"
    if not folder.exists():
        prune(
            CONFIGURATION["model"],
            CONFIGURATION["ratio"],
            widths=widths,
            out=folder,
            device="cpu",
            **CONFIGURATION["pruned"],
        )
    return folder


def test_nats(model, material) -> list[float]:
    """Information of the windows of WikiText-2 test."""
    size = CONFIGURATION["test"]
    beginning = beginning_tokens(material["tokenizer"])
    text = material["test"]
    return rounded(
        window_nats(model, text, size["window"], size["windows"], beginning=beginning)
    )


def judged(model, material, texts) -> dict:
    """A model by the held-out texts and by the windows of WikiText-2."""
    kl = kl_per_position(material["dense"], model, texts).mean(1)
    return {"kl": rounded(kl), "nats": test_nats(model, material)}


def distilled(name, model, plan, material, table, scratch) -> torch.Tensor:
    """One run, each look stored as it comes; the held-out texts."""
    begin = time.perf_counter()

    def watch(tokens, divergences, student):
        number = tokens // (plan.every * plan.batch_size * plan.window)
        piece = {"kl": rounded(divergences)}
        if number % 3 == 0:
            piece["nats"] = test_nats(student, material)
        piece["seconds"] = round(time.perf_counter() - begin)
        table.add(piece, "runs", name, "looks", str(tokens))

    store = FolderStore(scratch / name, {"plan": asdict(plan) | {"tokens": None}})
    run = self_distill(
        model,
        material["dense"],
        plan,
        generator=seeded("training"),
        store=store,
        watch=watch,
    )
    table.add(asdict(plan), "runs", name, "plan")
    table.add(run.levelled, "runs", name, "levelled")
    table.add(run.looked_at[run.best], "runs", name, "best")
    table.add(run.n_trained, "runs", name, "trained")
    return run.held


def taught_wikitext(model, material, texts) -> dict:
    """The same model after the paper's recovery."""
    plan = RecoveryPlan(**TEACHER)
    run = recover(model, material["validation"], plan, generator=seeded("wikitext"))
    return judged(run.model, material, texts)


def arguments():
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--widths", default="uneven", choices=("uneven", "equal"))
    parser.add_argument("--tokens", type=int, default=12_288)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rank", type=int)
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
        "validation": wikitext_tokens(tokenizer, "validation"),
    }
    if not table.has("dense"):
        table.add({"nats": test_nats(dense, material)}, "dense")
    model = load_pruned(pruned_folder(options.widths, options.scratch))
    own = CONFIGURATION["plan"]
    step = options.batch_size * own["window"]
    plan = DistillationPlan(
        tokens=options.tokens,
        rank=options.rank,
        batch_size=options.batch_size,
        window=own["window"],
        learning_rate=own["learning_rate"],
        held=own["held"],
        every=own["looks_every"] // step,
    )
    ways = f"rank {options.rank}" if options.rank else "all weights"
    name = f"{options.widths}, {ways}, {options.batch_size} texts a step"
    held = distilled(name, model, plan, material, table, options.scratch)
    if not table.has("wikitext", options.widths):
        taught = taught_wikitext(model, material, held)
        table.add(taught, "wikitext", options.widths)


if __name__ == "__main__":
    main()
