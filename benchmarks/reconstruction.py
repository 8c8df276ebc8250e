"""Reconstruction on the small real model: ways to do it, texts, choices of neurons.

    python benchmarks/reconstruction.py [--results FILE] [--minutes N] [--only PLACE]

samples texts once and keeps them under build/reconstruction, with the inputs of some
blocks.  Then it fits three of the thirty layers in every way that the chapter compares
(`ways`), and two blocks to ever more tokens (`blocks`) and after other choices of
neurons (`selections`).  At last it prunes the whole model with uneven widths and
repairs all its layers in several ways (`whole`).  Two of these read 640 texts, most of
which the dense model writes in bfloat16: in closed form alone, and with steps of all
matrices from there; a block stays sliced there where it errs by less than a thousandth.
The latter is asked the questions of `pruning_methods.py` (`answers`).
Every divergence and error is taken on texts that no fit reads.  The table is written
after each piece, and a piece that is there is not measured again; the models of `whole`
stay under build/reconstruction, as do the fits of each layer to 640 texts, and a run
that was interrupted goes on at the next layer.
"""

from __future__ import annotations

import contextlib
import functools
import time
from dataclasses import replace
from pathlib import Path

import torch
from pruning_methods import CONFIGURATION as METHODS
from pruning_methods import marks, ordered_questions
from reconstruction_text import written
from storing import (
    THEN,
    OncePerProcess,
    Table,
    cpu,
    in_pieces,
    once,
    options_of,
    tensors_once,
)

from prunefair.models import load_model, load_tokenizer
from prunefair.pruning.folders import save_pruned
from prunefair.pruning.functional_policy import (
    FisherSum,
    FunctionalLayer,
    log_likelihood,
    train_functional,
)
from prunefair.pruning.functional_pruning import prune_functional, text_statistics
from prunefair.pruning.layered import layered_copy
from prunefair.pruning.perplexity import (
    beginning_tokens,
    kl_per_position,
    self_sample,
    wikitext_tokens,
)
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
from prunefair.pruning.records import outcomes_to_hex
from prunefair.pruning.recovery import window_nats
from prunefair.pruning.refit import find_ridge, mean_moments, refit_, refit_down
from prunefair.pruning.self_moments import Moments, down_projections, hidden_moments
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.surgery import prune_rows
from prunefair.pruning.zero_shot import TASK_CHANCE

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "reconstruction.json"
SCRATCH = ROOT / "build" / "reconstruction"
kept_file = functools.partial(tensors_once, SCRATCH)
TURN = 32  # texts in one pass of a layer
NOTHING = 1e-3  # error of a block that stays sliced; rounding alone leaves 1e-5
CLOSED = {"steps": 0, "inputs": "corrected", "ridges": (0.1, 0.3, 1.0, 3.0)}
MORE = {**CLOSED, "ridges": (0.01, 0.03, 0.1, 0.3, 1.0), "drift": 0.5}
STEPS = {"steps": 320, "spread": 0.0, "judgements": 8, "patience": 3}
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "length": 128,
    "seed": 400,
    "texts": 60,  # texts that are sampled
    "held_out": 12,  # last of them: for divergences and errors
    "chosen_on": 40,  # first of them: for moments, fits and choices
    "judges": 8,  # texts behind them
    "gradients_on": 16,
    "episodes": 8,
    "layers": [7, 17, 27],
    "steps": 40,
    "ways": {
        "spread": {"spread": 0.6},
        "plain": {"spread": 0.0},
        "by the stream": {"spread": 0.6, "weighting": "stream"},
        "by the gradient": {"spread": 0.6},
        "own inputs": {"spread": 0.6, "inputs": "own"},
    },
    "metric_floor": 0.1,  # of the mean, what is added to the second moment of gradients
    "selections_steps": 20,
    "blocks": [7, 27],
    "spreads": {"5": [0.0, 0.6], "14": [0.0, 0.6], "40": [0.0, 0.6]},
    "whole": {
        "seed": 410,
        "texts": 256,
        "ways": {  # texts, of which an eighth judges where a ridge is chosen; the plan
            "re-fit, 256 texts": (256, None),
            "steps, 256 texts": (256, {}),
            "drift 0.5, 256 texts": (256, CLOSED | {"drift": 0.5}),
            "re-fit, 64 texts": (64, None),
            "drift 0, 64 texts": (64, CLOSED | {"drift": 0.0}),
            "drift 0.5, 64 texts": (64, CLOSED | {"drift": 0.5}),
            "drift 0.75, 64 texts": (64, CLOSED | {"drift": 0.75}),
            "drift 1, 64 texts": (64, CLOSED | {"drift": 1.0}),
        },
        "held_out": [24, 128],
        "held_out_seed": 411,
        "windows": [4, 1024],  # of WikiText-2 test
    },
    "long": {
        "seed": 412,
        "further": 512,  # texts besides those of `whole`
        "ways": {  # texts, of which an eighth judges, and the plan
            "drift 0.5, 640 texts": (640, MORE),
            "drift 0.5 and steps, 640 texts": (640, MORE | STEPS),
        },
        "held_out": [24, 128],  # other texts that test
        "held_out_seed": 413,
        "asked": "drift 0.5 and steps, 640 texts",  # the questions of pruning_methods
    },
}
SCORES = (
    *("norm of gate_proj", "energy", "Fisher cost"),
    *("policy, functional KS", "policy, raw KS"),
)
SELECTED = (
    *("energy", "norm of gate_proj", "policy, functional KS", "random"),
    *("Fisher cost", "policy, raw KS"),
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class Bench(OncePerProcess):
    """The dense model, its own texts, and the texts that judge."""

    def __init__(self):
        self.start = time.process_time()
        self.model = load_model(CONFIGURATION["model"], dtype=torch.float32)
        self.weights = [x.weight.detach() for x in down_projections(self.model)]
        self.layers = self.model.model.layers

    def say(self, *words):
        print(f"{time.process_time() - self.start:6.0f} s", *words, flush=True)

    @functools.cached_property
    def sample(self):
        """Texts, and what the blocks of the curves were given meanwhile."""
        return kept_file("texts", self.sampled)

    def sampled(self):
        c, found = CONFIGURATION, {layer: [] for layer in CONFIGURATION["blocks"]}
        with contextlib.ExitStack() as stack:
            for layer, seen in found.items():
                hook = lambda _, x, seen=seen: seen.append(x[0][:, 0])  # noqa: E731
                block = self.layers[layer].mlp
                stack.callback(block.register_forward_pre_hook(hook).remove)
            draws = seeded(1000 * c["seed"])
            texts = self_sample(self.model, c["texts"], c["length"], generator=draws)
        self.say("sampled")
        inputs = {f"x.{la}": torch.stack(x, 1).flatten(0, 1) for la, x in found.items()}
        return {"tokens": texts} | inputs

    def texts(self, count):
        """First texts."""
        return self.sample["tokens"][:count]

    @property
    def judges(self):
        first = CONFIGURATION["chosen_on"]
        return self.sample["tokens"][first : first + CONFIGURATION["judges"]]

    @functools.cached_property
    def held(self):
        return self.sample["tokens"][-CONFIGURATION["held_out"] :]

    @functools.cached_property
    def statistics(self):
        """Of the layers that are fitted: halves of the moments, inputs, streams."""
        found, layers = kept_file("statistics", self.measured), CONFIGURATION["layers"]
        tokens = CONFIGURATION["chosen_on"] * CONFIGURATION["length"] // 2
        none = [torch.zeros(1)] * len(layers)
        halves = [
            Moments([found[f"second.{h}.{n}"] for n in layers], none, tokens)
            for h in range(2)
        ]
        return halves, found

    def measured(self):
        c, found = CONFIGURATION, {}
        texts = self.texts(c["chosen_on"])
        with contextlib.ExitStack() as stack:
            for n in c["layers"]:
                x, stream = found.setdefault(n, ([], []))
                watch = self.layers[n].mlp.register_forward_pre_hook
                hook = lambda _, given, x=x: x.append(given[0].flatten(0, 1))  # noqa: E731
                stack.callback(watch(hook).remove)
                out = lambda *a, s=stream: s.append(mean_square(a[-1]))  # noqa: E731
                stack.callback(self.layers[n].register_forward_hook(out).remove)
            halves = [
                hidden_moments(self.model, half, layers=c["layers"])
                for half in texts.tensor_split(2)
            ]
            hidden_moments(self.model, self.judges, layers=c["layers"][-1:])
        self.say("moments")
        pairs = [
            (f"second.{h}.{n}", H)
            for h, half in enumerate(halves)
            for n, H in zip(c["layers"], half.second, strict=True)
        ]
        pairs += [(f"x.{n}", torch.cat(x)) for n, (x, _) in found.items()]
        pairs += [(f"stream.{n}", torch.cat(s)) for n, (_, s) in found.items()]
        return dict(pairs)

    @functools.cached_property
    def gradients(self):
        """Fisher costs, and E g g^T for the gradient g at the output of a block."""
        return kept_file("gradients", self.backward)

    def backward(self):
        texts, layers = (
            self.texts(CONFIGURATION["gradients_on"]),
            CONFIGURATION["layers"],
        )
        linears = [self.layers[n].mlp.down_proj for n in layers]
        sums = [FisherSum(linear) for linear in linears]
        second = [torch.zeros(len(x.weight), len(x.weight)) for x in linears]

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
        found = zip(layers, sums, second, strict=True)
        return {
            f"{name}.{n}": value
            for n, fisher, G in found
            for name, value in (("fisher", fisher.mean(texts.numel())), ("second", G))
        }

    @functools.cached_property
    def scores(self):
        """Scores of the neurons by each kind, in the layers that are fitted."""
        found, layers = kept_file("scores", self.scored), CONFIGURATION["layers"]
        return {name: [found[f"{name}.{n}"] for n in layers] for name in SCORES}

    def scored(self):
        moments, places = mean_moments(self.statistics[0]), CONFIGURATION["layers"]
        fisher = [self.gradients[f"fisher.{n}"] for n in places]
        pairs = zip(places, moments.second, fisher, strict=True)
        layers = [FunctionalLayer(self.weights[n], H, f) for n, H, f in pairs]
        ratio, episodes = CONFIGURATION["ratio"], CONFIGURATION["episodes"]
        options = {"episodes": episodes, "generator": seeded(0)}
        policy = train_functional(layers, ratio, **options).policy
        blocks = [self.layers[n].mlp for n in places]
        gates = [block.gate_proj.weight.detach() for block in blocks]
        options = {"episodes": episodes, "dtype": torch.float32}
        raw = train_policy(gates, ratio, generator=seeded(0), **options).policy
        self.say("policies")
        norms = [gate.norm(dim=1) for gate in gates]
        energy = [layer.energies for layer in layers]
        scores = [policy.scores(layer).detach() for layer in layers]
        spectral = [raw.scores(gate).detach() for gate in gates]
        every = (norms, energy, fisher, scores, spectral)
        return {
            f"{name}.{n}": value
            for name, values in zip(SCORES, every, strict=True)
            for n, value in zip(places, values, strict=True)
        }

    def rows(self, name):
        """Rows of a choice, by layer."""
        if name == "random":
            on = {"generator": seeded(500), "dtype": torch.float64}
            widths = [len(x) for x in self.scores["energy"]]
            scores = [torch.randn(m, **on) for m in widths]
        else:
            scores = self.scores[name]
        kept = rows_by_scores(scores, CONFIGURATION["ratio"])
        return dict(zip(CONFIGURATION["layers"], kept, strict=True))

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

    @functools.cached_property
    def whole_texts(self):
        """Texts for the whole model."""
        c = CONFIGURATION["whole"]
        sizes = c["texts"], c["held_out"][1]
        return self.sampled_once("whole-0", *sizes, seed=c["seed"])

    @functools.cached_property
    def whole_rows(self):
        """Rows that stay, of every layer."""
        rows = kept_file("whole-rows", lambda: chosen(self))
        return [rows[layer] for layer in sorted(rows)]

    @functools.cached_property
    def more_texts(self):
        """Texts that the dense model writes in bfloat16."""
        c = CONFIGURATION["long"]

        def make():
            writer = load_model(CONFIGURATION["model"], dtype=torch.bfloat16)
            found = written(writer, c["further"], seeded(1000 * c["seed"]))
            return {"tokens": found["tokens"]}

        return kept_file("long-0", make)["tokens"]

    @functools.cached_property
    def further(self):
        """Texts that test, further ones."""
        c = CONFIGURATION["long"]
        seed = c["held_out_seed"]
        return self.sampled_once("whole-further", *c["held_out"], seed=seed)

    @once
    def turns(self, count):
        """Fits of all layers in the ways that read so many texts."""
        ways = CONFIGURATION["long"]["ways"]
        plans = {
            name: ReconstructionPlan(**plan)
            for name, (texts, plan) in ways.items()
            if texts == count
        }
        texts, judges = self.whole_texts, round(count / 8)
        if count > len(texts):
            texts = torch.cat([texts, self.more_texts])
        texts = texts[:count]
        return in_turns(self, texts[:-judges], texts[-judges:], plans)

    def sampled_once(self, name, count, length, *, seed):
        """Texts of the dense model that are sampled once."""
        options = {"generator": seeded(seed)}
        make = functools.partial(self_sample, self.model, count, length, **options)
        return kept_file(name, lambda: {"tokens": make()})["tokens"]

    @functools.cached_property
    def whole_judges(self):
        """Texts that judge the whole model, and windows of WikiText-2."""
        c = CONFIGURATION["whole"]
        seed = c["held_out_seed"]
        texts = self.sampled_once("whole-held", *c["held_out"], seed=seed)
        tokenizer = load_tokenizer(CONFIGURATION["model"])
        return texts, wikitext_tokens(tokenizer), beginning_tokens(tokenizer)

    def judged(self, model):
        """Divergence of every text, information of every window."""
        texts, wikitext, beginning = self.whole_judges
        n, window = CONFIGURATION["whole"]["windows"]
        kl = kl_per_position(self.model, model, texts).mean(1)
        nats = window_nats(model, wikitext, window, n, beginning=beginning)
        return {
            name: [round(float(x), 5) for x in values]
            for name, values in (("kl", kl), ("nats", nats))
        }

    def ridge(self, kept):
        """Ridge that the halves choose."""
        weights = [self.weights[n] for n in kept]
        return find_ridge(weights, self.statistics[0], [*kept.values()])[0]

    def pruned(self, kept):
        """The model without some rows of some layers."""
        every = [torch.arange(D.shape[1]) for D in self.weights]
        return prune_rows(self.model, [kept.get(n, r) for n, r in enumerate(every)])

    def refit_(self, pruned, kept, ridge):
        """Re-fit the layers to all texts of the statistics."""
        moments = mean_moments(self.statistics[0])
        for (n, rows), H in zip(kept.items(), moments.second, strict=True):
            weight = refit_down(self.weights[n], H, rows, ridge=ridge).weight.float()
            set_maps_([pruned.model.layers[n].mlp.down_proj], [(weight, None)])

    def fit_(self, pruned, plan, metrics=None):
        """Fit the layers to the stored inputs of the dense model."""
        errors, found, c = [], self.statistics[1], CONFIGURATION
        for n in c["layers"]:
            weight = None
            if plan.weighting == "stream":
                weight = 1 / found[f"stream.{n}"]
                weight = weight / weight.mean()
            samples = Samples(found[f"x.{n}"], None, weight)
            first = c["chosen_on"] * c["length"]
            module = pruned.model.layers[n].mlp
            dense = ffn_block(self.model, self.layers[n].mlp)
            rest = ffn_block(pruned, module), samples[:first], samples[first:]
            metric = None if metrics is None else metrics[n]
            options = {"plan": plan, "generator": seeded(n), "metric": metric}
            fit = reconstruct_block(dense, *rest, **options)
            set_maps_([module.gate_proj, module.up_proj, module.down_proj], fit.maps)
            errors.append([round(fit.errors[i], 6) for i in (0, fit.best)])
        return errors


def mean_square(output):
    """Of what a layer puts out, at every token."""
    output = output[0] if isinstance(output, tuple) else output
    return output.flatten(0, 1).square().mean(1)


def before(bench):
    """Three layers: sliced, and re-fitted."""
    kept = bench.rows("energy")
    pruned, ridge = bench.pruned(kept), bench.ridge(kept)
    row = {"ridge": ridge, "sliced": bench.divergence(pruned)}
    bench.refit_(pruned, kept, ridge)
    return row | {"refitted": bench.divergence(pruned)}


def way(bench, name, ridge):
    """Three layers fitted in one of the ways."""
    kept, layers, c = bench.rows("energy"), CONFIGURATION["layers"], CONFIGURATION
    plan = ReconstructionPlan(steps=c["steps"], **c["ways"][name])
    pruned, metrics = bench.pruned(kept), None
    bench.refit_(pruned, kept, ridge)
    if name == "by the gradient":
        metrics = {n: bench.gradients[f"second.{n}"].double() for n in layers}
        for n, G in metrics.items():
            G = G / G.diagonal().mean()
            G.diagonal().add_(c["metric_floor"])
            metrics[n] = torch.linalg.cholesky(G).T.float()
    begin = time.process_time()
    if plan.inputs == "dense":
        errors = bench.fit_(pruned, plan, metrics)
    else:
        options = {"plan": plan, "generator": seeded(7), "judges": bench.judges}
        fits = reconstruct_(pruned, bench.model, bench.texts(c["chosen_on"]), **options)
        fits = [fits[n] for n in layers]
        errors = [[round(fit.errors[i], 6) for i in (0, fit.best)] for fit in fits]
    seconds = round(time.process_time() - begin)
    return {"kl": bench.divergence(pruned), "errors": errors, "seconds": seconds}


def selected(bench, name):
    """One choice of neurons in some blocks: sliced, re-fitted, reconstructed."""
    c, row = CONFIGURATION, {}
    for layer in c["blocks"]:
        kept, options = bench.rows(name)[layer], {"steps": c["selections_steps"]}
        found = fits(bench, layer, kept, c["chosen_on"], spreads=[0.6], **options)
        found["reconstructed"] = found.pop("spread 0.6")
        row[str(layer)] = found
    return row


def curve(bench, layer, count):
    """Errors of one block whose rows are those of largest energy."""
    c, kept = CONFIGURATION, bench.rows("energy")[layer]
    options = {"spreads": c["spreads"][str(count)], "steps": c["steps"]}
    return fits(bench, layer, kept, count, **options)


def fits(bench, layer, kept, count, *, spreads, steps):
    """Errors of one block on other texts: sliced, re-fitted, fitted to some texts."""
    c, n = CONFIGURATION, CONFIGURATION["chosen_on"]
    known = bench.sample[f"x.{layer}"].unflatten(0, (c["texts"], -1))
    judges, judge = known[n : n + c["judges"]], known[n + c["judges"] :]
    judges, judge = (Samples(some.flatten(0, 1)) for some in (judges, judge))
    x = known[:count].flatten(0, 1)
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
    for spread in spreads:
        plan = ReconstructionPlan(steps=steps, spread=spread)
        options = {"plan": plan, "generator": seeded(7)}
        fit = reconstruct_block(dense, block, Samples(x), judges, **options)
        fitted = block_error(dense, block._replace(maps=fit.maps), judge)
        row[f"spread {spread}"] = fitted
        bench.say(layer, len(x), spread, row["refitted"], fitted)
    return row


def chosen(bench):
    """Rows of the whole model by energy, with widths by Fisher cost."""
    statistics = text_statistics(bench.model, bench.whole_texts)
    options = {"statistics": statistics, "choice": "energy", "refit": False}
    ratio, generator = CONFIGURATION["ratio"], seeded(0)
    found = prune_functional(bench.model, ratio, generator=generator, **options)
    return {f"{n:03}": rows for n, rows in enumerate(found.kept)}


def whole(bench, name):
    """All layers repaired in one of the ways, with the same rows."""
    texts, plan = CONFIGURATION["whole"]["ways"][name]
    closed, judges = bool(plan and plan.get("ridges")), None  # by default further texts
    kept = bench.whole_rows
    pruned, texts = prune_rows(bench.model, kept), bench.whole_texts[:texts]
    begin, row = time.process_time(), {}
    if closed:
        judges = round(len(texts) / 8)
        texts, judges = texts[:-judges], texts[-judges:]
    else:
        halves = [hidden_moments(bench.model, half) for half in texts.tensor_split(2)]
        row["ridge"] = find_ridge(bench.weights, halves, kept)[0]
        moments, options = mean_moments(halves), {"ridge": row["ridge"]}
        refit_(pruned, bench.model, kept, moments, **options)
    if plan is not None:
        options = {"plan": ReconstructionPlan(**plan), "judges": judges}
        fits = reconstruct_(pruned, bench.model, texts, generator=seeded(7), **options)
        row["errors"] = [[round(f.errors[i], 6) for i in (0, f.best)] for f in fits]
    row["seconds"] = round(time.process_time() - begin)
    folder = SCRATCH / name
    if not folder.exists():
        tokenizer = load_tokenizer(CONFIGURATION["model"])
        save_pruned(pruned, tokenizer, folder, kept)
    return row | bench.judged(pruned)


class Silent(torch.nn.Module):
    """In the place of a block: keeps what that is given, and adds nothing."""

    def forward(self, x):
        self.given = x
        return torch.zeros_like(x)


def quick():
    """Products of matrices in bfloat16, sums in float32; weights may change inside."""
    return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)


@contextlib.contextmanager
def rounded():
    """Factors of float32 products rounded to bfloat16, the products not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@torch.no_grad()
def before_block(layered, layer, stream):
    """What the block of a layer is given, and the stream that its output joins."""
    module, x, before = layered.layers[layer], *map(torch.empty_like, (stream, stream))
    silent, block = Silent(), module.mlp
    module.mlp = silent
    with quick():
        for rows in torch.arange(len(stream)).split(TURN):
            before[rows] = layered.run(layer, stream[rows])
            x[rows] = silent.given.float()
    module.mlp = block
    return x.flatten(0, 1), before.flatten(0, 1)


@torch.no_grad()
def said(block, x):
    """What a block puts out."""
    with quick():
        return torch.cat([block(some).float() for some in x.split(4096)])


def in_turns(bench, texts, judges, plans):
    """Every layer fitted by some plans, each on the stream that it makes itself."""
    layered, every = layered_copy(bench.model), torch.cat([texts, judges])
    begun = torch.cat([layered.begin(some) for some in every.split(TURN)])
    streams, tokens = dict.fromkeys(("dense", *plans), begun), texts.numel()
    fits = {name: ([], [], []) for name in plans}  # maps, errors, seconds of the layers
    for layer, kept in enumerate(bench.whole_rows):
        begin = time.process_time()
        with layered.present(layer) as module:
            dense = ffn_block(layered.model, module.mlp)
            x, stream = before_block(layered, layer, streams["dense"])
            y = said(dense, x)
            streams["dense"] = (stream + y).view_as(begun)
            shared = time.process_time() - begin
            for name, plan in plans.items():
                begin = time.process_time()
                x, own = before_block(layered, layer, streams[name])
                samples = Samples(x, y + plan.drift * (stream - own))
                passes = shared + time.process_time() - begin
                make = functools.partial(
                    fit_to_target, dense, kept, samples, tokens, plan, seeded(layer)
                )
                fit = kept_file(f"{name}, layer {layer}", make)
                begin = time.process_time()
                maps = [(fit[matrix], None) for matrix in "WUD"]
                own += said(dense._replace(maps=maps), x)
                streams[name] = own.view_as(begun)
                passes += time.process_time() - begin
                errors = [round(float(error), 6) for error in fit["errors"]]
                seconds = passes + float(fit["seconds"])
                for found, new in zip(fits[name], (maps, errors, seconds), strict=True):
                    found.append(new)
                bench.say(layer, name, *errors, f"in {seconds:.0f} s")
    return fits


def fit_to_target(dense, kept, samples, tokens, plan, generator):
    """Maps of a block without some rows, and its errors: sliced, re-fitted, fitted."""
    begin = time.process_time()
    (W, _), (U, _), (D, _) = dense.maps
    maps = [(W[kept], None), (U[kept], None), (D[:, kept], None)]
    block, parts = dense._replace(maps=maps), (samples[:tokens], samples[tokens:])
    steps, closed = replace(plan, ridges=()), replace(plan, steps=0)
    errors, fit = [block_error(nothing, block, parts[1])], block
    if errors[0] > NOTHING:
        with rounded():
            fit = reconstruct_block(
                nothing, block, *parts, plan=closed, generator=generator
            )
        errors.append(min(fit.errors))
        if plan.steps:
            with quick():
                block = block._replace(maps=fit.maps)
                fit = reconstruct_block(
                    nothing, block, *parts, plan=steps, generator=generator
                )
            errors += fit.errors
    seconds = time.process_time() - begin
    found = {name: w for name, (w, _) in zip("WUD", fit.maps, strict=True)}
    return found | {
        "errors": torch.tensor(errors).double(),
        "seconds": torch.tensor(seconds),
    }


def nothing(x):
    """What the dense block puts out, where the gap is all of the target."""
    return 0.0


def turned(bench, name):
    """The model with all layers fitted one after the other, errors, and seconds."""
    count = CONFIGURATION["long"]["ways"][name][0]
    maps, errors, seconds = bench.turns(count)[name]
    pruned = prune_rows(bench.model, bench.whole_rows)
    for layer, new in zip(pruned.model.layers, maps, strict=True):
        block = layer.mlp
        set_maps_([block.gate_proj, block.up_proj, block.down_proj], new)
    return pruned, errors, seconds


def asked(bench, name, task):
    """Zeros and ones of the questions of a task, as records store them."""
    pruned, tokenizer = turned(bench, name)[0], load_tokenizer(CONFIGURATION["model"])
    questions = ordered_questions(task, METHODS)
    return [*map(outcomes_to_hex, marks(pruned, tokenizer, task, questions, 8))]


def much_text(bench, name):
    """All layers fitted in turn with much text; ways of as many texts share a pass."""
    pruned, errors, seconds = turned(bench, name)
    row = {"errors": errors, "seconds": round(sum(seconds))} | bench.judged(pruned)
    kl = kl_per_position(bench.model, pruned, bench.further).mean(1)
    return row | {"further": [round(float(x), 5) for x in kl]}


def pieces(bench, table):
    """Place in the table of every piece, and the function that fills it."""
    c = CONFIGURATION
    yield ("before",), functools.partial(before, bench)
    yield THEN
    for name in c["ways"]:
        ridge = table["before"]["ridge"]
        yield ("ways", name), functools.partial(way, bench, name, ridge)
    for count in map(int, c["spreads"]):
        for layer in c["blocks"]:
            fill = functools.partial(curve, bench, layer, count)
            yield ("blocks", str(layer), str(count)), fill
    yield ("whole", "dense"), lambda: bench.judged(bench.model)
    for name in c["whole"]["ways"]:
        yield ("whole", name), functools.partial(whole, bench, name)
    for name in c["long"]["ways"]:
        yield ("whole", name), functools.partial(much_text, bench, name)
    for task in TASK_CHANCE:
        fill = functools.partial(asked, bench, c["long"]["asked"], task)
        yield ("answers", task), fill
    for name in SELECTED:
        yield ("selections", name), functools.partial(selected, bench, name)


def main():
    """Every piece that the table lacks, for as long as there is time."""
    options = in_pieces(options_of(__doc__, RESULT))
    torch.set_num_threads(1)
    table = Table(options.results, CONFIGURATION, "torch", "transformers", device=cpu)
    bench = Bench()
    table.fill(pieces(bench, table), options, bench.say)


if __name__ == "__main__":
    main()
