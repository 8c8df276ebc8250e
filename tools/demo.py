"""The main job, end to end: prune a real model, play the fair policy, write a report.

    python tools/demo.py [FOLDER]      # build/demo by default

Both halves run on real input: SmolLM2-135M, WikiText-2 and MovieLens.  Where the data
can neither be found nor downloaded, the ratings are replaced by a synthetic stream and
the perplexity is left out, and the report says so.
"""

from __future__ import annotations

import base64
import html
import io
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from transformers import AutoModelForCausalLM

import prunefair
from prunefair.fairness.movielens import plot_over_time
from prunefair.fairness.ratings import (
    load_ratings,
    movielens_stream,
    synthetic_stream,
)
from prunefair.fairness.utility import jain_index
from prunefair.models import default_device, load_tokenizer
from prunefair.plotting import use_style
from prunefair.pruning.perplexity import (
    kl_to_dense,
    perplexity,
    self_sample,
    wikitext_tokens,
)
from prunefair.pruning.spectral_pruning import selection_distances
from prunefair.pruning.spectrum import uniform_selections
from prunefair.pruning.surgery import prune_rows, row_matrices

ROOT = Path(__file__).resolve().parents[1]
RATIO, TEXTS, WINDOWS = 0.3, 64, 3
ALPHA = 0.9
SEED = 0
NO_DATA = "neither data nor network: {}; {}"

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto;
       padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
.note { background: #fff4e0; padding: .5rem 1rem; border-left: 4px solid #edae49; }
"""


@dataclass
class Half:
    """What one half of the demonstration has to report."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    picture: str = ""


def stage(text: str) -> None:
    """Say what is being done."""
    print(f"== {text}", flush=True)


def encoded(figure) -> str:
    """A figure as PNG inside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def pruning(folder: Path) -> Half:
    """Prune the small real model, reload it plainly, and measure what was lost."""
    stage("1/6 load SmolLM2-135M")
    device, tokenizer = default_device(), load_tokenizer("smollm2")
    dense = prunefair.load_model("smollm2", device=device)
    matrices = row_matrices(dense)

    stage(
        f"2/6 remove {RATIO:.0%} of the rows, by the functional policy on {TEXTS} "
        "texts of the model's own, and by the policy of the paper"
    )
    out = folder / "smollm2-pruned"
    shutil.rmtree(out, ignore_errors=True)
    options = {"multiple": 1, "seed": SEED, "device": device}
    result = prunefair.prune("smollm2", RATIO, out=out, texts=TEXTS, **options)
    spectral = prunefair.prune("smollm2", RATIO, method="spectral", **options)
    spectral_ks = selection_distances(matrices, spectral.kept)

    stage("3/6 reload it with plain transformers and compare")
    reloaded = AutoModelForCausalLM.from_pretrained(out).to(device).eval()
    probe = torch.arange(1000, 1064, device=device)[None]
    with torch.no_grad():
        wanted = result.model(probe).logits
        error = (reloaded(probe).logits - wanted).abs().max() / wanted.abs().max()

    stage("4/6 measure perplexity and divergence from the dense model")
    rows, k = matrices[0].shape[0], len(result.kept[0])
    generator = torch.Generator().manual_seed(SEED)
    random = list(uniform_selections(rows, k, len(matrices), generator=generator))
    judged = {
        "dense": (dense, 0.0),
        "functional, re-fitted": (
            reloaded,
            float(selection_distances(matrices, result.kept).mean()),
        ),
        "PruneNet's objective": (spectral.model, spectral.ks_mean),
        "random rows": (
            prune_rows(dense, random),
            float(selection_distances(matrices, random).mean()),
        ),
    }
    half = Half(
        f"Part I: {RATIO:.0%} of the feed-forward rows of SmolLM2-135M removed",
        ("model", "parameters", "mean KS", "perplexity", "KL to dense (nats)"),
    )
    text = None
    try:
        text = wikitext_tokens(tokenizer)
    except FileNotFoundError as error_:
        half.notes.append(NO_DATA.format(error_, "the perplexity is left out"))
    sample = self_sample(
        dense, 8, 128, generator=torch.Generator(device).manual_seed(SEED)
    )
    for name, (model, ks) in judged.items():
        score = None if text is None else perplexity(model, text, max_windows=WINDOWS)
        kl = None if model is dense else kl_to_dense(dense, model, sample)
        half.rows.append((name, f"{model.num_parameters():,}", ks, score, kl))
    half.text = [
        f"The functional policy was trained in {result.seconds_policy:.0f} s on "
        f"{device}, that of the paper in {spectral.seconds_policy:.0f} s; the mean KS "
        "distance of the drawn selections fell from "
        f"{result.history[0]:.3f} to {result.history[-1]:.3f} (functional spectrum) "
        f"and from {spectral.history[0]:.3f} to {spectral.history[-1]:.3f} "
        "(gate_proj).",
        f"Reloaded with plain transformers from {out.relative_to(folder)}; its logits "
        f"differ from those of the model that was saved by at most {error:.1e} of the "
        "largest logit, in float32.",
        f"Perplexity on {WINDOWS} windows of 1024 tokens of WikiText-2 test in its "
        "tokenised form, so not comparable with that on the raw text; KL on "
        f"{sample.numel()} tokens that the dense model samples itself.",
        "The column of mean KS is the paper's distance, of gate_proj. Its policy is "
        "trained for a small one and reaches it, and the model is broken all the same, "
        "as it is with random rows (one draw); the functional policy looks at another "
        "spectrum. The chapters on spectral pruning and on the functional policy show "
        "why.",
    ]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    axes[0].plot(result.history, label="functional spectrum")
    axes[0].plot(spectral.history, label="gate_proj")
    axes[0].set(xlabel="episode", ylabel="mean KS distance")
    axes[0].legend()
    axes[1].plot(selection_distances(matrices, result.kept), label="functional")
    axes[1].plot(spectral_ks, label="PruneNet's objective")
    axes[1].plot(selection_distances(matrices, random), label="random rows")
    axes[1].set(xlabel="layer", ylabel="KS distance of gate_proj")
    axes[1].legend()
    half.picture = encoded(figure)
    return half


def fairness() -> Half:
    """Play every policy with full information on real ratings."""
    stage("5/6 read the ratings and certify the best fixed map")
    notes = []
    try:
        stream = movielens_stream(load_ratings())
    except FileNotFoundError as error:
        notes.append(NO_DATA.format(error, "the rewards below are synthetic"))
        stream = synthetic_stream(rng=np.random.default_rng(SEED))

    stage(f"6/6 play every policy with full information, {stream.n_rounds} rounds")
    report = prunefair.play(stream, alpha=ALPHA, seed=SEED)
    optimum, results = report.optimum, report.results
    half = Half(
        f"Part II: α-fair policies with full information, α = {ALPHA}",
        ("policy", "utility", "Jain's index", "regret", "c-regret", "rounds/s"),
        notes=notes,
    )
    half.rows = [
        (
            name,
            result.utility,
            result.jain,
            result.regret,
            result.c_regret,
            f"{result.rounds_per_second:,.0f}",
        )
        for name, result in results.items()
    ]
    half.text = [
        f"{stream.source}; M = {stream.n_contexts} contexts, N = {stream.n_arms} arms, "
        f"T = {stream.n_rounds} rounds.",
        f"Best fixed map in hindsight: utility {optimum.utility:.4f}, certified to "
        f"{optimum.gap / optimum.utility:.1e} of it, Jain's index "
        f"{jain_index(optimum.rewards):.3f}.",
        "Regret is against that optimum; the c-regret is negative for uniform play as "
        "well, so it says little here. The chapter on MovieLens explains it.",
    ]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    rounds = next(iter(results.values())).trajectory.rounds
    curves = {
        name: np.array([jain_index(R) for R in result.trajectory.rewards])
        for name, result in results.items()
    }
    plot_over_time(axes[0], rounds, curves, "Jain's index")
    names = list(results)
    axes[1].barh(names[::-1], [results[name].regret for name in names[::-1]])
    axes[1].set(xlabel="regret at the last round (utility units)")
    half.picture = encoded(figure)
    return half


def shown(value) -> str:
    """A table entry."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)


def page(halves: list[Half], seconds: float) -> str:
    """The whole report, one file without references to others."""
    parts = ["<h1>Prune &amp; Fair: the demonstration</h1>"]
    for half in halves:
        parts.append(f"<h2>{html.escape(half.title)}</h2>")
        parts += [f'<p class="note">{html.escape(note)}</p>' for note in half.notes]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in half.columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(shown(v))}</td>' for v in row)}</tr>"
            for row in half.rows
        )
        parts.append(f"<table><tr>{head}</tr>{body}</table>")
        parts += [f"<p>{html.escape(line)}</p>" for line in half.text]
        parts.append(f'<img alt="" src="data:image/png;base64,{half.picture}">')
    parts.append(
        f"<p>Seed {SEED}, torch {torch.__version__}, {torch.get_num_threads()} "
        f"threads, {seconds:.0f} s in all. The book: <code>make book</code>, then "
        "<code>_build/html/index.html</code>.</p>"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Prune &amp; Fair'
        f"</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def console(half: Half) -> str:
    """The table and the notes of one half for a terminal."""
    table = [half.columns] + [tuple(map(shown, row)) for row in half.rows]
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        )
        for row in table
    ]
    return "\n".join([half.title, *half.notes, *lines])


def main(folder: Path) -> None:
    """Run both halves and write `report.html` into `folder`."""
    start = time.perf_counter()
    use_style()
    folder.mkdir(parents=True, exist_ok=True)
    halves = [pruning(folder), fairness()]
    report = folder / "report.html"
    partial = report.with_suffix(".partial")
    partial.write_text(page(halves, time.perf_counter() - start), encoding="utf-8")
    partial.replace(report)
    print(*("\n" + console(half) for half in halves), sep="\n")
    print(f"\nreport: {report}")
    print("book:   make book, then _build/html/index.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "demo")
