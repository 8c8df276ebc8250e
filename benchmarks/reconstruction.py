"""Reconstruction on the small real model: ways to do it, texts, choices of neurons.

    python benchmarks/reconstruction.py [--results FILE] [--minutes N] [--only KIND]

samples texts once, in parts that are kept under build/reconstruction, with the inputs
of some blocks.  Then it fits ten of the thirty layers in every way that the chapter
compares (`ways`); some blocks to ever more tokens (`blocks`); the same ten layers
after other choices of neurons (`selections`); and the whole model (`whole`).  Every
divergence is taken on texts of another seed.  The table is written after each piece,
and a piece that is there is not measured again.
"""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from storing import Table, cpu, options_of

from prunefair.models import load_model
from prunefair.pruning.functional_policy import (
    FisherSum,
    functional_layers,
    log_likelihood,
    surgeon_energies,
    train_functional,
    uneven_ratios,
)
from prunefair.pruning.perplexity import kl_per_position, self_sample
from prunefair.pruning.policy_gradient import train_policy
from prunefair.pruning.reconstruction import (
    FfnBlock,
    ReconstructionPlan,
    Samples,
    block_error,
    ffn_block,
    reconstruct_,
    reconstruct_block,
)
from prunefair.pruning.refit import find_ridge, mean_moments, refit_, refit_down
from prunefair.pruning.self_moments import Moments, down_projections, hidden_moments
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.surgery import prune_rows, row_matrices

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "reconstruction.json"
SCRATCH = ROOT / "build" / "reconstruction"
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "length": 128,
    "seed": 400,
    "part": 128,  # texts in a part, each with a seed of its own
    "held_out": [24, 128],
    "held_out_seed": 401,
    "chosen_on": 64,  # texts of the statistics that choose the rows
    "episodes": 8,
    "layers": [1, 4, 7, 10, 13, 16, 19, 22, 25, 28],
    "passes": 4,
    "ways": {
        "plain": {"spread": 0.0},
        "spread": {"spread": 0.6},
        "spread, by the stream": {"spread": 0.6, "weighting": "stream"},
        "spread, by the gradient": {"spread": 0.6},
        "spread, own inputs": {"spread": 0.6, "inputs": "own"},
        "spread, corrected": {"spread": 0.6, "inputs": "corrected"},
    },
    "metric_floor": 0.1,  # of the mean, what is added to the second moment of gradients
    "selections_passes": 2,
    "blocks": [8, 22],
    "blocks_held": 64,  # texts that judge a block, from the last part
    "spreads": {"64": [0.0, 0.3, 0.6, 1.0], "256": [0.0, 0.6], "768": [0.0, 0.6]},
    "whole": [64, 256],
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def kept_file(name, make):
    """Tensors that are made once."""
    path = SCRATCH / f"{name}.safetensors"
    if not path.exists():
        SCRATCH.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file({k: v.contiguous() for k, v in make().items()}, partial)
        partial.rename(path)
    return load_file(path)


class Bench:
    """The dense model, its own texts, and the texts that judge."""

    def __init__(self):
        self.start = time.process_time()
        self.model = load_model(CONFIGURATION["model"], dtype=torch.float32)
        self.weights = [x.weight.detach() for x in down_projections(self.model)]
        self.blocks = [layer.mlp for layer in self.model.model.layers]

    def say(self, *words):
        print(f"{time.process_time() - self.start:6.0f} s", *words, flush=True)

    @functools.cached_property
    def held(self):
        sizes, draws = CONFIGURATION["held_out"], seeded(CONFIGURATION["held_out_seed"])
        sample = self_sample
        make = lambda: {"tokens": sample(self.model, *sizes, generator=draws)}  # noqa: E731
        return kept_file("held", make)["tokens"]

    def part(self, number):
        """Texts of a part, and what the blocks of the curves were given meanwhile."""
        return kept_file(f"part-{number}", functools.partial(self.sampled, number))

    def sampled(self, number):
        c, found = CONFIGURATION, {layer: [] for layer in CONFIGURATION["blocks"]}
        with contextlib.ExitStack() as stack:
            for layer, seen in found.items():
                block = self.blocks[layer]
                hook = lambda _, x, seen=seen: seen.append(x[0][:, 0])  # noqa: E731
                stack.callback(block.register_forward_pre_hook(hook).remove)
            draws = seeded(1000 * c["seed"] + number)
            texts = self_sample(self.model, c["part"], c["length"], generator=draws)
        self.say("sampled part", number)
        inputs = {f"x.{la}": torch.stack(x, 1).flatten(0, 1) for la, x in found.items()}
        return {"tokens": texts} | inputs

    def texts(self, count):
        parts = -(-count // CONFIGURATION["part"])
        return torch.cat([self.part(i)["tokens"] for i in range(parts)])[:count]

    @functools.cached_property
    def statistics(self):
        """Halves of the moments, Fisher costs, and second moments of gradients."""
        found = kept_file("statistics", self.measured)
        layers, count = range(len(self.weights)), CONFIGURATION["chosen_on"]
        tokens = count * CONFIGURATION["length"] // 2
        halves = [
            Moments(
                [found[f"second.{h}.{n}"] for n in layers],
                [torch.zeros(1)] * len(layers),
                tokens,
            )
            for h in range(2)
        ]
        fisher = [found[f"fisher.{n}"] for n in layers]
        return halves, fisher, [found[f"gradient.{n}"] for n in layers]

    def measured(self):
        texts = self.texts(CONFIGURATION["chosen_on"])
        halves = [hidden_moments(self.model, half) for half in texts.tensor_split(2)]
        self.say("moments")
        found = {
            f"second.{h}.{n}": H
            for h, half in enumerate(halves)
            for n, H in enumerate(half.second)
        }
        fisher, gradients = self.backward(texts)
        self.say("gradients")
        found |= {f"fisher.{n}": f for n, f in enumerate(fisher)}
        return found | {f"gradient.{n}": G for n, G in enumerate(gradients)}

    def backward(self, texts):
        """Fisher costs, and E g g^T for the gradient g at the output of every block."""
        linears = down_projections(self.model)
        sums = [FisherSum(linear) for linear in linears]
        second = [torch.zeros(len(D), len(D)) for D in self.weights]

        def watch(number):
            def add(gradient):
                g = gradient.reshape(-1, gradient.shape[-1])
                second[number].addmm_(g.T, g)

            def forward(_, __, output):
                output.register_hook(add)

            return forward

        self.model.requires_grad_(False)
        with contextlib.ExitStack() as stack:
            for number, each in enumerate(sums):
                stack.enter_context(each)
                hook = linears[number].register_forward_hook(watch(number))
                stack.callback(hook.remove)
            for some in texts.split(8):
                logits = self.model(some, use_cache=False).logits
                log_likelihood(logits, some).backward()
        n = texts.numel()
        return [each.mean(n) for each in sums], [G / n for G in second]

    @functools.cached_property
    def scores(self):
        """Scores of every neuron by each kind, in every layer."""
        halves, fisher, _ = self.statistics
        moments = mean_moments(halves)
        layers = functional_layers(self.model, moments, fisher)
        options = {"episodes": CONFIGURATION["episodes"], "generator": seeded(0)}
        policy = train_functional(layers, CONFIGURATION["ratio"], **options).policy
        self.say("policy")
        pairs = [surgeon_energies(layer.D, layer.H) for layer in layers]
        gates = [W.float() for W in row_matrices(self.model)]
        product = [
            block.gate_proj.weight.norm(dim=1)
            * block.up_proj.weight.norm(dim=1)
            * block.down_proj.weight.norm(dim=0)
            for block in self.blocks
        ]
        return {
            "norm of gate_proj": [W.norm(dim=1) for W in gates],
            "norm product": [x.detach() for x in product],
            "energy": [pair[0] for pair in pairs],
            "surgeon energy": [pair[1] for pair in pairs],
            "Fisher cost": fisher,
            "policy, functional KS": [policy.scores(x).detach() for x in layers],
        }

    def spectral(self):
        """Scores of the policy of the paper's objective."""
        gates = [row_matrices(self.model)[n].float() for n in CONFIGURATION["layers"]]
        options = {"episodes": CONFIGURATION["episodes"], "dtype": torch.float32}
        trained = train_policy(
            gates, CONFIGURATION["ratio"], generator=seeded(0), **options
        )
        found = [torch.zeros(len(W)) for W in row_matrices(self.model)]
        for n, W in zip(CONFIGURATION["layers"], gates, strict=True):
            found[n] = trained.policy.scores(W).detach()
        return found

    def noisy(self, name, size, seed):
        """Standardised logarithms of scores, with normal noise."""
        logs = [x.double().clamp(min=1e-300).log() for x in self.scores[name]]
        draws = seeded(seed)
        noise = [
            torch.randn(len(x), generator=draws, dtype=torch.float64) for x in logs
        ]
        return [(x - x.mean()) / x.std() + size * e for x, e in zip(logs, noise)]

    @functools.cached_property
    def uneven(self):
        """Rows by the functional policy, widths by Fisher cost."""
        ratios = uneven_ratios(self.statistics[1], CONFIGURATION["ratio"])
        return rows_by_scores(self.scores["policy, functional KS"], ratios)

    def some(self, kept):
        """The same rows in the layers that are pruned, all rows in the others."""
        return [
            rows
            if n in CONFIGURATION["layers"]
            else torch.arange(len(self.blocks[n].up_proj.weight))
            for n, rows in enumerate(kept)
        ]

    def divergence(self, pruned):
        """Divergence from the dense model on each held-out text, nats a token."""
        kl = kl_per_position(self.model, pruned, self.held)
        return [round(float(x), 5) for x in kl.mean(1)]

    def refitted(self, kept, moments, ridge):
        pruned = prune_rows(self.model, kept)
        return refit_(pruned, self.model, kept, moments, ridge=ridge)

    def ridge(self, halves, kept):
        return find_ridge(self.weights, halves, kept)[0]

    def fitted(self, pruned, texts, metrics=None, **plan):
        """Reconstruct a model, and say how its blocks and its divergence changed."""
        begin = time.process_time()
        plan = ReconstructionPlan(**{"passes": CONFIGURATION["passes"]} | plan)
        options = {"plan": plan, "metrics": metrics, "generator": seeded(7)}
        fits = reconstruct_(pruned, self.model, texts, **options)
        seconds = round(time.process_time() - begin)
        errors = [[round(fit.errors[i], 6) for i in (0, fit.best)] for fit in fits]
        return {"kl": self.divergence(pruned), "errors": errors, "seconds": seconds}


def start_of(bench):
    """What the ways begin with: ten layers, re-fitted."""
    kept = bench.some(bench.uneven)
    halves = bench.statistics[0]
    ridge = bench.ridge(halves, bench.uneven)
    moments = mean_moments(halves)
    return kept, moments, ridge


def before(bench):
    kept, moments, ridge = start_of(bench)
    sliced = bench.divergence(prune_rows(bench.model, kept))
    return {
        "ridge": ridge,
        "sliced": sliced,
        "refitted": bench.divergence(bench.refitted(kept, moments, ridge)),
    }


def way(bench, name):
    kept, moments, ridge = start_of(bench)
    metrics, floor = None, CONFIGURATION["metric_floor"]
    if "gradient" in name:
        metrics = []
        for G in bench.statistics[2]:
            G = G / G.diagonal().mean() + floor * torch.eye(len(G))
            metrics.append(torch.linalg.cholesky(G.double()).T.float())
    texts = bench.texts(CONFIGURATION["chosen_on"])
    pruned = bench.refitted(kept, moments, ridge)
    return bench.fitted(pruned, texts, metrics, **CONFIGURATION["ways"][name])


def scores_of(bench, name):
    if name.startswith("random"):
        return bench.noisy("energy", 1e9, 500 + int(name[-1]))
    if name == "policy, raw KS":
        return bench.spectral()
    kind, _, size = name.partition(", noise ")
    return bench.noisy(kind, float(size), 600) if size else bench.scores[kind]


SELECTED = (
    *("energy", "policy, functional KS", "random 0", "norm of gate_proj"),
    *("Fisher cost", "surgeon energy", "energy, noise 2", "policy, raw KS"),
    *("energy, noise 1", "Fisher cost, noise 3", "energy, noise 4", "random 1"),
    *("norm product", "Fisher cost, noise 1"),
)


def selected(bench, name):
    """One choice of neurons in ten layers: sliced, re-fitted, reconstructed."""
    kept = bench.some(rows_by_scores(scores_of(bench, name), CONFIGURATION["ratio"]))
    _, moments, _ = start_of(bench)
    everywhere = rows_by_scores(scores_of(bench, name), CONFIGURATION["ratio"])
    ridge = bench.ridge(bench.statistics[0], everywhere)
    row = {"ridge": ridge, "sliced": bench.divergence(prune_rows(bench.model, kept))}
    pruned = bench.refitted(kept, moments, ridge)
    row["refitted"] = bench.divergence(pruned)
    texts = bench.texts(CONFIGURATION["chosen_on"])
    found = bench.fitted(pruned, texts, passes=CONFIGURATION["selections_passes"])
    return row | {"reconstructed": found.pop("kl")} | found


def curve(bench, layer, count):
    """Errors of one block: sliced, re-fitted and fitted to some texts."""
    c, kept = CONFIGURATION, bench.uneven[layer]
    parts = -(-count // c["part"])
    x = torch.cat([bench.part(i)[f"x.{layer}"] for i in range(parts)])
    texts = bench.texts(count)
    x = x[: texts[:, :-1].numel()]
    judge = bench.part(-1)[f"x.{layer}"][: c["blocks_held"] * (c["length"] - 1)]
    dense = ffn_block(bench.model, bench.blocks[layer])
    D = bench.weights[layer]
    halves = []
    for half in x.tensor_split(2):
        h = [dense.hidden(some) for some in half.split(4096)]
        second = sum(a.T @ a for a in h) / len(half)
        halves.append(Moments([second], [torch.zeros(1)], len(half)))
    ridge = find_ridge([D], halves, [kept])[0]
    H = mean_moments(halves).second[0]
    (G, _), (U, _), _ = dense.maps
    names = {"sliced": D[:, kept]}
    names["refitted"] = refit_down(D, H, kept, ridge=ridge).weight.float()
    row = {"tokens": len(x), "ridge": ridge}
    for name, weight in names.items():
        block = FfnBlock(
            [(G[kept], None), (U[kept], None), (weight, None)], dense.activation
        )
        row[name] = block_error(dense, block, Samples(judge))
    held = len(x) // 8
    for spread in c["spreads"][str(count)]:
        begin = time.process_time()
        plan = ReconstructionPlan(passes=c["passes"], spread=spread)
        some = Samples(x[:-held]), Samples(x[-held:])
        fit = reconstruct_block(dense, block, *some, plan=plan, generator=seeded(7))
        fitted = block_error(dense, block._replace(maps=fit.maps), Samples(judge))
        row[f"spread {spread}"] = fitted
        row.setdefault("seconds", []).append(round(time.process_time() - begin))
        bench.say(layer, len(x), spread, row["refitted"], fitted)
    return row


def whole(bench, count):
    """The model with widths by Fisher cost: sliced, re-fitted, reconstructed."""
    texts = bench.texts(count)
    halves = [hidden_moments(bench.model, half) for half in texts.tensor_split(2)]
    bench.say("moments of", count)
    kept = bench.uneven
    ridge = bench.ridge(halves, kept)
    row = {"ridge": ridge, "sliced": bench.divergence(prune_rows(bench.model, kept))}
    pruned = bench.refitted(kept, mean_moments(halves), ridge)
    row["refitted"] = bench.divergence(pruned)
    found = bench.fitted(pruned, texts)
    return row | {"reconstructed": found.pop("kl")} | found


def pieces(bench):
    """Place in the table of every piece, and the function that fills it."""
    c = CONFIGURATION
    yield ("before",), functools.partial(before, bench)
    for name in c["ways"]:
        yield ("ways", name), functools.partial(way, bench, name)
    for count in map(int, c["spreads"]):
        for layer in c["blocks"]:
            fill = functools.partial(curve, bench, layer, count)
            yield ("blocks", str(layer), str(count)), fill
    for name in SELECTED:
        yield ("selections", name), functools.partial(selected, bench, name)
    for count in c["whole"]:
        yield ("whole", str(count)), functools.partial(whole, bench, count)


def main():
    """Every piece that the table lacks, for as long as there is time."""
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--only", default="", help="pieces of this kind")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    torch.set_num_threads(1)
    table = Table(options.results, CONFIGURATION, "torch", "transformers", device=cpu())
    bench = Bench()
    for place, fill in pieces(bench):
        if time.monotonic() > deadline:
            return
        if not table.has(*place) and place[0].startswith(options.only):
            begin = time.process_time()
            table.add(fill(), *place)
            bench.say(*place, f"in {time.process_time() - begin:.0f} s")


if __name__ == "__main__":
    main()
