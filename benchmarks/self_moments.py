"""How much self-sampled text the moments need, and what cheaper inputs give.

    python benchmarks/self_moments.py

fills `book/results/self_moments.json`: errors of the moments and what their selections
cost against the number of texts, for independent seeds; the same selections from random
tokens, Gaussian inputs and weights alone; seconds of the processor.

Not in pieces: the moments of more texts are added to those of fewer, 283 MB a seed,
and each selection is judged by those of the other seeds.  Eleven minutes.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from storing import Table, cpu, options_of

from prunefair.models import load_model
from prunefair.pruning.perplexity import kl_per_position, self_sample, start_token
from prunefair.pruning.self_moments import (
    down_projections,
    error_of_mean,
    hidden_moments,
    lost_energy,
    removed_neurons,
)
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.spectrum import uniform_selections
from prunefair.pruning.surgery import prune_rows, sharing_copy

RESULT = Path(__file__).parents[1] / "book" / "results" / "self_moments.json"
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "length": 160,
    "texts": [1, 2, 4, 8, 16, 32, 64],
    "seeds": [100, 101, 102],
    "judged_at": [1, 4, 16, 64],
    "held_out": [12, 128],
    "held_out_seed": 7,
    "substitute_texts": 16,
    "substitute_seed": 8,
}
SECONDS = {}


def timed(name, work, *args, **options):
    """What `work` returns; the seconds of the processor are added under `name`."""
    start = time.process_time()
    result = work(*args, **options)
    SECONDS[name] = SECONDS.get(name, 0) + time.process_time() - start
    return result


class Bench:
    """The dense model, its `down_proj`, and the texts that a selection is judged on."""

    def __init__(self):
        self.model = load_model(CONFIGURATION["model"], dtype=torch.float32)
        linears = down_projections(self.model)
        self.matrices = [linear.weight.detach() for linear in linears]
        self.held = self.sample(
            *CONFIGURATION["held_out"], CONFIGURATION["held_out_seed"]
        )

    def sample(self, n, length, seed):
        generator = torch.Generator().manual_seed(seed)
        return timed(
            "sampling", self_sample, self.model, n, length, generator=generator
        )

    def selection(self, second):
        """Rows that have the largest energies by these second moments."""
        scores = [
            H.diagonal() * D.square().sum(0)
            for H, D in zip(second, self.matrices, strict=True)
        ]
        return rows_by_scores(scores, CONFIGURATION["ratio"])

    def lost(self, second, kept):
        """Share of each layer's output energy that a selection loses, by `second`."""
        return [
            float(lost_energy(D, H, removed_neurons(rows, len(H))) / (D @ H * D).sum())
            for D, H, rows in zip(self.matrices, second, kept, strict=True)
        ]

    def divergence(self, kept):
        """Divergence of the pruned model on each held-out text, nats a token."""
        pruned = prune_rows(self.model, kept)
        kl = timed("divergence", kl_per_position, self.model, pruned, self.held)
        return [round(float(x), 5) for x in kl.mean(1)]


def level_errors(bench, sums, texts):
    """Errors of the moments over all seeds' texts, in each layer, and of the output."""
    rows = {"hidden": [], "output": []}
    for layer, D in enumerate(bench.matrices):
        H = torch.stack([s[layer] for s in sums]) / texts
        for name, X in (("hidden", H), ("output", D @ H @ D.T)):
            rows[name].append(float(error_of_mean(X) / X.mean(0).norm()))
    return rows


def convergence(bench):
    """Moments of growing numbers of texts, for every seed, with their errors."""
    c = CONFIGURATION
    samples = [bench.sample(c["texts"][-1], c["length"], s) for s in c["seeds"]]
    sums = [
        [torch.zeros(D.shape[1], D.shape[1]) for D in bench.matrices] for _ in samples
    ]
    errors, kept, before = [], [], 0
    for texts in c["texts"]:
        for total, sample in zip(sums, samples, strict=True):
            new = timed("moments", hidden_moments, bench.model, sample[before:texts])
            for H, added in zip(total, new.second, strict=True):
                H.add_(added, alpha=texts - before)
        before = texts
        errors.append(level_errors(bench, sums, texts))
        kept.append([bench.selection(total) for total in sums])
        print(texts, sorted(errors[-1]["output"])[15], SECONDS, flush=True)
    return sums, errors, kept


def selections(bench, sums, kept):
    """What the selections of every level lose, by the moments of the other seeds."""
    levels = []
    for texts, row in zip(CONFIGURATION["texts"], kept, strict=True):
        lost = []
        for seed, rows in enumerate(row):
            others = [s for i, s in enumerate(sums) if i != seed]
            lost.append(bench.lost([sum(H) for H in zip(*others, strict=True)], rows))
        level = {"texts": texts, "lost": lost}
        if texts in CONFIGURATION["judged_at"]:
            level["kl"] = [bench.divergence(rows) for rows in row]
            print(texts, level["kl"], flush=True)
        levels.append(level)
    return levels


def agreement(kept):
    """Share of the kept rows that two seeds have in common, mean over layers."""
    pairs = [(a, b) for i, a in enumerate(kept) for b in kept[:i]]
    return [
        sum(torch.isin(x, y).double().mean().item() for x, y in zip(a, b)) / len(a)
        for a, b in pairs
    ]


def gaussian_hidden(bench, count, generator):
    """Second moments for independent normal inputs of every block."""
    moments = []
    for layer in bench.model.model.layers:
        gain, mlp = layer.post_attention_layernorm.weight, layer.mlp
        x = torch.randn(count, len(gain), generator=generator) * gain
        with torch.no_grad():
            h = mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)
        moments.append(h.T @ h / count)
    return moments


def substitutes(bench):
    """Name and second moments of every cheaper input, one at a time."""
    model, c = bench.model, CONFIGURATION
    generator = torch.Generator().manual_seed(c["substitute_seed"])
    shape = (c["substitute_texts"], c["length"])
    tokens = torch.randint(model.config.vocab_size, shape, generator=generator)
    started = tokens.clone()
    started[:, 0] = start_token(model)
    yield "random tokens after the start token", hidden_moments(model, started).second
    yield "random tokens", hidden_moments(model, tokens).second
    E = model.get_input_embeddings().weight
    noise = torch.randn(E.shape, generator=generator) * E.detach().std()
    other = sharing_copy(model)
    other.get_input_embeddings().weight = torch.nn.Parameter(noise, False)
    yield "Gaussian embeddings", hidden_moments(other, tokens).second
    yield "Gaussian block inputs", gaussian_hidden(bench, tokens.numel(), generator)
    yield "column norms alone", [torch.eye(D.shape[1]) for D in bench.matrices]


def judged_substitutes(bench, reference):
    """What the selection of every cheaper input loses, and its divergence."""
    table, c = {}, CONFIGURATION
    for name, second in substitutes(bench):
        kept = bench.selection(second)
        table[name] = {
            "lost": [bench.lost(reference, kept)],
            "kl": [bench.divergence(kept)],
        }
        print(name, table[name]["kl"], flush=True)
    generator = torch.Generator().manual_seed(c["substitute_seed"])
    sizes = [(D.shape[1], len(rows)) for D, rows in zip(bench.matrices, kept)]
    draws = [
        [uniform_selections(m, k, 1, generator=generator)[0] for m, k in sizes]
        for _ in c["seeds"]
    ]
    table["random rows"] = {
        "lost": [bench.lost(reference, rows) for rows in draws],
        "kl": [bench.divergence(rows) for rows in draws],
    }
    return table


def main() -> None:
    """Everything, stored at the end."""
    options = options_of(__doc__, RESULT).parse_args()
    torch.set_num_threads(1)
    table = Table(options.results, CONFIGURATION, "torch", "transformers", device=cpu())
    bench = Bench()
    sums, errors, kept = convergence(bench)
    levels = selections(bench, sums, kept)
    reference = [sum(H) for H in zip(*sums, strict=True)]
    pieces = {
        "errors": errors,
        "levels": levels,
        "agreement": [agreement(row) for row in kept],
        "substitutes": judged_substitutes(bench, reference),
        "seconds": {name: round(s, 1) for name, s in SECONDS.items()},
    }
    table.replace(pieces)


if __name__ == "__main__":
    main()
