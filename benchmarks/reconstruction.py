"""Reconstruction on the small real model: ways to do it, texts, choices of neurons.

    python benchmarks/reconstruction.py [--results FILE] [--minutes N] [--only PLACE]

samples texts once, in parts that are kept under build/reconstruction, with the inputs
of some blocks.  Then it fits six of the thirty layers in every way that the chapter
compares (`ways`); the whole model (`whole`); some blocks to ever more tokens
(`blocks`); and the same six layers after other choices of neurons (`selections`).
Every divergence is taken on texts that no fit reads.  The table is written after each
piece, and a piece that is there is not measured again.
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
from prunefair.pruning.perplexity import self_sample
from prunefair.pruning.policy_gradient import train_policy
from prunefair.pruning.reconstruction import (
    FfnBlock,
    ReconstructionPlan,
    Samples,
    block_error,
    ffn_block,
    reconstruct_,
    reconstruct_block,
    set_maps_,
)
from prunefair.pruning.refit import find_ridge, mean_moments, refit_down
from prunefair.pruning.self_moments import Moments, down_projections, hidden_moments
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.surgery import prune_rows

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "reconstruction.json"
SCRATCH = ROOT / "build" / "reconstruction"
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "length": 128,
    "seed": 400,
    "part": 96,  # texts in a part, each with a seed of its own
    "held_out": 24,  # last texts of the first part: for divergences and errors
    "chosen_on": 64,  # first texts: for moments, fits and choices
    "gradients_on": 32,
    "episodes": 8,
    "layers": [2, 7, 12, 17, 22, 27],
    "passes": 3,
    "ways": {
        "spread": {"spread": 0.6},
        "plain": {"spread": 0.0},
        "by the stream": {"spread": 0.6, "weighting": "stream"},
        "by the gradient": {"spread": 0.6},
        "own inputs": {"spread": 0.6, "inputs": "own"},
        "corrected": {"spread": 0.6, "inputs": "corrected"},
    },
    "metric_floor": 0.1,  # of the mean, what is added to the second moment of gradients
    "selections_passes": 2,
    "blocks": [8, 22],
    "spreads": {"64": [0.0, 0.3, 0.6, 1.0], "168": [0.0, 0.6], "360": [0.0, 0.6]},
    "whole": [64],
}
SCORES = (
    *("norm of gate_proj", "norm product", "energy", "surgeon energy"),
    *("Fisher cost", "policy, functional KS"),
)
SELECTED = (
    *("energy", "norm of gate_proj", "policy, functional KS", "random 0"),
    *("Fisher cost", "policy, raw KS", "energy, noise 2", "Fisher cost, noise 3"),
    *("energy, noise 4", "norm product", "surgeon energy", "random 1"),
)


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
        self.layers = self.model.model.layers

    def say(self, *words):
        print(f"{time.process_time() - self.start:6.0f} s", *words, flush=True)

    def part(self, number):
        """Texts of a part, and what the blocks of the curves were given meanwhile."""
        return kept_file(f"part-{number}", functools.partial(self.sampled, number))

    def sampled(self, number):
        c, found = CONFIGURATION, {layer: [] for layer in CONFIGURATION["blocks"]}
        with contextlib.ExitStack() as stack:
            for layer, seen in found.items():
                hook = lambda _, x, seen=seen: seen.append(x[0][:, 0])  # noqa: E731
                block = self.layers[layer].mlp
                stack.callback(block.register_forward_pre_hook(hook).remove)
            draws = seeded(1000 * c["seed"] + number)
            texts = self_sample(self.model, c["part"], c["length"], generator=draws)
        self.say("sampled part", number)
        inputs = {f"x.{la}": torch.stack(x, 1).flatten(0, 1) for la, x in found.items()}
        return {"tokens": texts} | inputs

    def texts(self, count):
        """First texts; those that judge are left out."""
        parts = -(-(count + CONFIGURATION["held_out"]) // CONFIGURATION["part"])
        texts = [self.part(i)["tokens"] for i in range(parts)]
        texts[0] = texts[0][: -CONFIGURATION["held_out"]]
        return torch.cat(texts)[:count]

    @functools.cached_property
    def held(self):
        return self.part(0)["tokens"][-CONFIGURATION["held_out"] :]

    @functools.cached_property
    def statistics(self):
        """Halves of the moments; inputs of the layers that are fitted, and streams."""
        found = kept_file("statistics", self.measured)
        layers, count = range(len(self.weights)), CONFIGURATION["chosen_on"]
        tokens, none = count * CONFIGURATION["length"] // 2, [torch.zeros(1)] * 30
        halves = [
            Moments([found[f"second.{h}.{n}"] for n in layers], none, tokens)
            for h in range(2)
        ]
        return halves, found

    def measured(self):
        """Moments, and what the layers are given and leave behind."""
        texts, found = self.texts(CONFIGURATION["chosen_on"]), {}
        with contextlib.ExitStack() as stack:
            for n in CONFIGURATION["layers"]:
                x, stream = found.setdefault(n, ([], []))
                watch = self.layers[n].mlp.register_forward_pre_hook
                hook = lambda _, given, x=x: x.append(given[0].flatten(0, 1))  # noqa: E731
                stack.callback(watch(hook).remove)
                out = lambda *a, s=stream: s.append(as_tensor(a[-1]))  # noqa: E731
                stack.callback(self.layers[n].register_forward_hook(out).remove)
            halves = [
                hidden_moments(self.model, half) for half in texts.tensor_split(2)
            ]
        self.say("moments")
        pairs = [
            (f"second.{h}.{n}", H)
            for h, half in enumerate(halves)
            for n, H in enumerate(half.second)
        ]
        pairs += [(f"x.{n}", torch.cat(x)) for n, (x, _) in found.items()]
        pairs += [(f"stream.{n}", torch.cat(s)) for n, (_, s) in found.items()]
        return dict(pairs)

    @functools.cached_property
    def gradients(self):
        """Fisher costs, and E g g^T for the gradient g at the output of every block."""
        found = kept_file("gradients", self.backward)
        layers = range(len(self.weights))
        return [[found[f"{name}.{n}"] for n in layers] for name in ("fisher", "second")]

    def backward(self):
        linears = down_projections(self.model)
        texts = self.texts(CONFIGURATION["gradients_on"])
        sums = [FisherSum(linear) for linear in linears]
        second = [torch.zeros(len(D), len(D)) for D in self.weights]

        def watch(number):
            def add(gradient):
                g = gradient.reshape(-1, gradient.shape[-1])
                second[number].addmm_(g.T, g)

            return lambda _, __, output: output.register_hook(add) and None

        self.model.requires_grad_(False)
        with contextlib.ExitStack() as stack:
            for number, each in enumerate(sums):
                stack.enter_context(each)
                hook = linears[number].register_forward_hook(watch(number))
                stack.callback(hook.remove)
            for some in texts.split(8):
                logits = self.model(some, use_cache=False).logits
                log_likelihood(logits, some).backward()
        self.say("gradients")
        found = {f"fisher.{n}": f.mean(texts.numel()) for n, f in enumerate(sums)}
        return found | {f"second.{n}": G for n, G in enumerate(second)}

    @functools.cached_property
    def scores(self):
        """Scores of every neuron by each kind, in every layer."""
        found, layers = kept_file("scores", self.scored), range(len(self.weights))
        return {name: [found[f"{name}.{n}"] for n in layers] for name in SCORES}

    def scored(self):
        fisher, moments = self.gradients[0], mean_moments(self.statistics[0])
        layers = functional_layers(self.model, moments, fisher)
        options = {"episodes": CONFIGURATION["episodes"], "generator": seeded(0)}
        policy = train_functional(layers, CONFIGURATION["ratio"], **options).policy
        self.say("policy")
        pairs = [surgeon_energies(layer.D, layer.H) for layer in layers]
        blocks = [layer.mlp for layer in self.layers]
        gates = [block.gate_proj.weight.detach().norm(dim=1) for block in blocks]
        product = [
            gate
            * block.up_proj.weight.detach().norm(dim=1)
            * block.down_proj.weight.detach().norm(dim=0)
            for gate, block in zip(gates, blocks, strict=True)
        ]
        energy, surgeon = zip(*pairs, strict=True)
        scores = [policy.scores(layer).detach() for layer in layers]
        every = (gates, product, energy, surgeon, fisher, scores)
        found = dict(zip(SCORES, every, strict=True))
        return {
            f"{name}.{n}": x for name, xs in found.items() for n, x in enumerate(xs)
        }

    @functools.cached_property
    def spectral(self):
        """Scores by the paper's objective, of the layers that are fitted."""
        places = CONFIGURATION["layers"]
        gates = [self.layers[n].mlp.gate_proj.weight.detach() for n in places]
        options = {"episodes": CONFIGURATION["episodes"], "dtype": torch.float32}
        policy = train_policy(
            gates, CONFIGURATION["ratio"], generator=seeded(0), **options
        ).policy
        found = [torch.zeros(len(layer.mlp.gate_proj.weight)) for layer in self.layers]
        for n, W in zip(places, gates, strict=True):
            found[n] = policy.scores(W).detach()
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
        ratios = uneven_ratios(self.gradients[0], CONFIGURATION["ratio"])
        return rows_by_scores(self.scores["policy, functional KS"], ratios)

    @torch.no_grad()
    def log_distribution(self, model, texts):
        return model(texts, use_cache=False).logits.float().log_softmax(-1)

    @functools.cached_property
    def dense(self):
        return [self.log_distribution(self.model, t) for t in self.held.split(4)]

    def divergence(self, pruned):
        """Divergence from the dense model on each held-out text, nats a token."""
        rows = []
        for p, some in zip(self.dense, self.held.split(4), strict=True):
            q = self.log_distribution(pruned, some)
            rows.append((p.exp() * (p - q)).sum(-1).mean(1))
        return [round(float(x), 5) for x in torch.cat(rows)]

    def ridge(self, kept, layers):
        """Ridge that the halves choose, for some layers."""
        halves, _ = self.statistics
        none = [torch.zeros(1)] * len(layers)
        some = [Moments([h.second[n] for n in layers], none, h.tokens) for h in halves]
        weights = [self.weights[n] for n in layers]
        return find_ridge(weights, some, [kept[n] for n in layers])[0]

    def pruned(self, kept, layers):
        """The model without some rows of some layers."""
        every = [torch.arange(D.shape[1]) for D in self.weights]
        chosen = [kept[n] if n in layers else rows for n, rows in enumerate(every)]
        return prune_rows(self.model, chosen)

    def refit_(self, pruned, kept, layers, ridge):
        """Re-fit some layers to all texts of the statistics."""
        moments = mean_moments(self.statistics[0])
        for n in layers:
            D, H = self.weights[n], moments.second[n]
            weight = refit_down(D, H, kept[n], ridge=ridge).weight.float()
            down = pruned.model.layers[n].mlp.down_proj
            set_maps_([down], [(weight, None)])
        return pruned

    def fit_(self, pruned, layers, plan, metrics=None):
        """Fit some layers to the stored inputs of the dense model."""
        errors, found, options = [], self.statistics[1], {"plan": plan}
        for n in layers:
            x, weight = found[f"x.{n}"], None
            if plan.weighting == "stream":
                weight = 1 / found[f"stream.{n}"]
                weight = weight / weight.mean()
            judges = round(plan.held * CONFIGURATION["chosen_on"])
            judges, samples = judges * CONFIGURATION["length"], Samples(x, None, weight)
            dense = ffn_block(self.model, self.layers[n].mlp)
            module = pruned.model.layers[n].mlp
            start = ffn_block(pruned, module)
            parts = samples[:-judges], samples[-judges:]
            metric = None if metrics is None else metrics[n]
            options |= {"generator": seeded(n), "metric": metric}
            fit = reconstruct_block(dense, start, *parts, **options)
            set_maps_([module.gate_proj, module.up_proj, module.down_proj], fit.maps)
            errors.append([round(fit.errors[i], 6) for i in (0, fit.best)])
        return errors


def as_tensor(output):
    """Mean square of what a layer puts out at every token."""
    output = output[0] if isinstance(output, tuple) else output
    return output.flatten(0, 1).square().mean(1)


def before(bench):
    """Six layers: sliced, and re-fitted."""
    kept, layers = bench.uneven, CONFIGURATION["layers"]
    pruned, ridge = bench.pruned(kept, layers), bench.ridge(bench.uneven, layers)
    row = {"ridge": ridge, "sliced": bench.divergence(pruned)}
    bench.refit_(pruned, kept, layers, ridge)
    return row | {"refitted": bench.divergence(pruned)}


def way(bench, name, ridge):
    """Six layers fitted in one of the ways."""
    kept, layers, c = bench.uneven, CONFIGURATION["layers"], CONFIGURATION
    plan = ReconstructionPlan(passes=c["passes"], **c["ways"][name])
    pruned, metrics = bench.pruned(kept, layers), None
    bench.refit_(pruned, kept, layers, ridge)
    if name == "by the gradient":
        unit = [G / G.diagonal().mean() for G in bench.gradients[1]]
        floor = c["metric_floor"] * torch.eye(len(unit[0]))
        metrics = [torch.linalg.cholesky((G + floor).double()) for G in unit]
        metrics = [Q.T.float() for Q in metrics]
    begin = time.process_time()
    if plan.inputs == "dense":
        errors = bench.fit_(pruned, layers, plan, metrics)
    else:
        options = {"plan": plan, "generator": seeded(7)}
        fits = reconstruct_(pruned, bench.model, bench.texts(c["chosen_on"]), **options)
        errors = [
            [round(fits[n].errors[i], 6) for i in (0, fits[n].best)] for n in layers
        ]
    seconds = round(time.process_time() - begin)
    return {"kl": bench.divergence(pruned), "errors": errors, "seconds": seconds}


def scores_of(bench, name):
    if name.startswith("random"):
        return bench.noisy("energy", 1e9, 500 + int(name[-1]))
    if name == "policy, raw KS":
        return bench.spectral
    kind, _, size = name.partition(", noise ")
    return bench.noisy(kind, float(size), 600) if size else bench.scores[kind]


def selected(bench, name):
    """One choice of neurons in six layers: sliced, re-fitted, reconstructed."""
    layers, c = CONFIGURATION["layers"], CONFIGURATION
    kept = rows_by_scores(scores_of(bench, name), c["ratio"])
    ridge, pruned = bench.ridge(kept, layers), bench.pruned(kept, layers)
    row = {"ridge": ridge, "sliced": bench.divergence(pruned)}
    bench.refit_(pruned, kept, layers, ridge)
    row["refitted"] = bench.divergence(pruned)
    plan = ReconstructionPlan(passes=c["selections_passes"])
    row["errors"] = bench.fit_(pruned, layers, plan)
    return row | {"reconstructed": bench.divergence(pruned)}


def curve(bench, layer, count):
    """Errors of one block on other texts: sliced, re-fitted, fitted to some texts."""
    c, kept, parts = CONFIGURATION, bench.uneven[layer], []
    for i in range(-(-(count + c["held_out"]) // c["part"])):
        parts.append(bench.part(i)[f"x.{layer}"].unflatten(0, (c["part"], -1)))
    judge, parts[0] = parts[0][-c["held_out"] :], parts[0][: -c["held_out"]]
    x, judge = torch.cat(parts)[:count].flatten(0, 1), Samples(judge.flatten(0, 1))
    dense, D = ffn_block(bench.model, bench.layers[layer].mlp), bench.weights[layer]
    halves = []
    for half in x.tensor_split(2):
        h = [dense.hidden(some) for some in half.split(4096)]
        second = sum(a.T @ a for a in h) / len(half)
        halves.append(Moments([second], [torch.zeros(1)], len(half)))
    ridge = find_ridge([D], halves, [kept])[0]
    H, (G, _), (U, _) = mean_moments(halves).second[0], *dense.maps[:2]
    weights = {"sliced": D[:, kept]}
    weights["refitted"] = refit_down(D, H, kept, ridge=ridge).weight.float()
    row = {"tokens": len(x), "ridge": ridge}
    for name, weight in weights.items():
        maps = [(G[kept], None), (U[kept], None), (weight, None)]
        block = FfnBlock(maps, dense.activation)
        row[name] = block_error(dense, block, judge)
    held = len(x) // 8
    for spread in c["spreads"][str(count)]:
        plan = ReconstructionPlan(passes=c["passes"], spread=spread)
        some = Samples(x[:-held]), Samples(x[-held:])
        fit = reconstruct_block(dense, block, *some, plan=plan, generator=seeded(7))
        fitted = block_error(dense, block._replace(maps=fit.maps), judge)
        row[f"spread {spread}"] = fitted
        bench.say(layer, len(x), spread, row["refitted"], fitted)
    return row


def whole(bench, count):
    """The model with widths by Fisher cost: sliced, re-fitted, reconstructed."""
    kept, layers = bench.uneven, [*range(len(bench.weights))]
    ridge = bench.ridge(kept, CONFIGURATION["layers"])
    pruned = bench.pruned(kept, layers)
    row = {"ridge": ridge, "sliced": bench.divergence(pruned)}
    bench.refit_(pruned, kept, layers, ridge)
    row["refitted"] = bench.divergence(pruned)
    begin = time.process_time()
    options = {"generator": seeded(7), "plan": ReconstructionPlan(passes=3)}
    fits = reconstruct_(pruned, bench.model, bench.texts(count), **options)
    row["seconds"] = round(time.process_time() - begin)
    row["errors"] = [[round(fit.errors[i], 6) for i in (0, fit.best)] for fit in fits]
    return row | {"reconstructed": bench.divergence(pruned)}


def pieces(bench, table):
    """Place in the table of every piece, and the function that fills it."""
    c = CONFIGURATION
    yield ("before",), functools.partial(before, bench)
    for name in c["ways"]:
        yield ("ways", name), lambda n=name: way(bench, n, table["before"]["ridge"])
    for count in c["whole"]:
        yield ("whole", str(count)), functools.partial(whole, bench, count)
    for count in map(int, c["spreads"]):
        for layer in c["blocks"]:
            fill = functools.partial(curve, bench, layer, count)
            yield ("blocks", str(layer), str(count)), fill
    for name in SELECTED:
        yield ("selections", name), functools.partial(selected, bench, name)


def main():
    """Every piece that the table lacks, for as long as there is time."""
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--only", default="", help="pieces whose place begins so")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    torch.set_num_threads(1)
    table = Table(options.results, CONFIGURATION, "torch", "transformers", device=cpu())
    bench = Bench()
    for place, fill in pieces(bench, table):
        if time.monotonic() > deadline:
            return
        if not table.has(*place) and "/".join(place).startswith(options.only):
            begin = time.process_time()
            table.add(fill(), *place)
            bench.say(*place, f"in {time.process_time() - begin:.0f} s")


if __name__ == "__main__":
    main()
