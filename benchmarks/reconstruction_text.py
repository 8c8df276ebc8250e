"""Gain against text: two blocks of the small real model, fitted to 320 thousand tokens.

    python benchmarks/reconstruction_text.py [--minutes N] [--only PLACE]

writes `book/results/reconstruction_text.json`.  The dense model writes the texts once,
in bfloat16, and what two of its blocks are given meanwhile is kept under
build/reconstruction_text, 1.5 GB.  Texts that judge and texts that test are written in
float32.  Each block loses 30 % of its rows, those of least energy, always the same
ones.  It is re-fitted in closed form to 40 to 2520 texts (`refitted`), and from there
fitted by gradients to the same ones, as they are and spread, in few steps and in as
many as read all of them once (`fits`).  Both blocks are put into the model (`model`).
Other seeds take other texts, as they are.  The table is written after each piece.
"""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path

import torch
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
from transformers.cache_utils import Cache, DynamicLayer

from prunefair.models import load_model, measuring
from prunefair.pruning.perplexity import kl_per_position, start_token
from prunefair.pruning.reconstruction import (
    ReconstructionPlan,
    Samples,
    ffn_block,
    reconstruct_block,
    set_maps_,
)
from prunefair.pruning.refit import find_ridge, mean_moments, refit_down
from prunefair.pruning.self_moments import Moments
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.surgery import prune_rows

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "reconstruction_text.json"
SCRATCH = ROOT / "build" / "reconstruction_text"
kept_file = functools.partial(tensors_once, SCRATCH)
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "layers": [7, 27],
    "length": 128,
    "seed": 420,
    "parts": [5, 504],  # what is written at a time: five times so many texts
    "rows_on": 40,  # first texts, by whose energies rows are chosen
    "judges": 40,
    "tests": 80,
    "steps": {  # of a fit to so many texts
        **{"40": [40, 320], "160": [40, 320]},
        **{"640": [40, 320], "2520": [40, 320]},
    },
    "long": [2520, 1280, 0.0],  # texts, steps and spread of one fit more
    "judgements": {"40": [8, 3], "320": [16, 4], "1280": [32, 8]},  # and the patience
    "spreads": [0.0, 0.6],
    "seeds": 3,  # one of them where all texts are read
    "model_on": [[40, 2520], 24],  # texts of the fits, and texts that test
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class RoomyLayer(DynamicLayer):
    """Keys and values that find room for a whole text, and are not appended."""

    def update(self, keys, values, *_, **__):
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            n, heads, _, d = keys.shape
            shape = n, heads, CONFIGURATION["length"], d
            self.room = keys.new_empty(shape), values.new_empty(shape)
            self.keys, self.values = (room[:, :, :0] for room in self.room)
        begin = self.keys.shape[2]
        end = begin + keys.shape[2]
        for room, new in zip(self.room, (keys, values), strict=True):
            room[:, :, begin:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self.room)
        return self.keys, self.values


@torch.no_grad()
def written(model, count, generator):
    """Texts of a model, and what its blocks are given while it writes them.

    Every token is drawn by the inverse of its distribution function, in a third of the
    time of `torch.multinomial`.
    """
    found = {layer: [] for layer in CONFIGURATION["layers"]}
    length, cache = CONFIGURATION["length"], Cache(layer_class_to_replicate=RoomyLayer)
    tokens = torch.full((count, length), start_token(model, None))
    with contextlib.ExitStack() as stack:
        stack.enter_context(measuring(model, length=length - 1))
        for layer, seen in found.items():
            hook = lambda _, x, seen=seen: seen.append(x[0][:, 0])  # noqa: E731
            block = model.model.layers[layer].mlp
            stack.callback(block.register_forward_pre_hook(hook).remove)
        for i in range(length - 1):
            last = tokens[:, i : i + 1]
            logits = model(last, past_key_values=cache, use_cache=True).logits
            sums = logits[:, -1].float()
            sums = sums.sub_(sums.max(-1, keepdim=True).values).exp_()
            torch.cumsum(sums, -1, out=sums)
            drawn = torch.rand(count, 1, generator=generator) * sums[:, -1:]
            draws = torch.searchsorted(sums, drawn, right=True)
            tokens[:, i + 1] = draws[:, 0].clamp(max=sums.shape[1] - 1)
    inputs = {f"x.{layer}": torch.stack(x, 1) for layer, x in found.items()}
    return {"tokens": tokens} | inputs  # (count, length - 1, d)


class Bench(OncePerProcess):
    """The dense model, and what its blocks are given on its own texts."""

    def __init__(self):
        self.start = time.process_time()
        self.model = load_model(CONFIGURATION["model"], dtype=torch.float32)
        self.known = None, None  # layer, and its inputs

    def say(self, *words):
        print(f"{time.process_time() - self.start:6.0f} s", *words, flush=True)

    def part(self, number):
        """Some of the texts to fit to."""
        count, seed = CONFIGURATION["parts"][1], 1000 * CONFIGURATION["seed"] + number

        def make():
            found = written(self.writer, count, seeded(seed))
            self.say("part", number)
            return found

        return kept_file(f"part-{number}", make)

    @functools.cached_property
    def writer(self):
        return load_model(CONFIGURATION["model"], dtype=torch.bfloat16)

    @functools.cached_property
    def others(self):
        """Texts that judge, and texts that test behind them."""
        count = CONFIGURATION["judges"] + CONFIGURATION["tests"]
        draws = seeded(CONFIGURATION["seed"])
        return kept_file("others", lambda: written(self.model, count, draws))

    def inputs(self, layer):
        """Of all texts to fit to; those of one layer are in memory."""
        if self.known[0] != layer:
            self.known = None, None
            parts, name = range(CONFIGURATION["parts"][0]), f"x.{layer}"
            x = torch.cat([self.part(number)[name].float() for number in parts])
            self.known = layer, x
        return self.known[1]

    def dense(self, layer):
        return ffn_block(self.model, self.model.model.layers[layer].mlp)

    @once
    def rows(self, layer):
        """Rows that stay, ascending."""
        x = self.part(0)[f"x.{layer}"][: CONFIGURATION["rows_on"]].float()
        second = second_moment(self.dense(layer), x.flatten(0, 1)).diagonal()
        D = self.dense(layer).maps[-1][0]
        energies = second * D.double().square().sum(0)
        return rows_by_scores([energies], CONFIGURATION["ratio"])[0]

    def sliced(self, layer):
        kept, dense = self.rows(layer), self.dense(layer)
        (W, _), (U, _), (D, _) = dense.maps
        maps = [(W[kept], None), (U[kept], None), (D[:, kept], None)]
        return dense._replace(maps=maps)

    def chosen(self, layer, count, seed):
        """First of the texts of a seed, and inputs at all their tokens."""
        sets = CONFIGURATION["parts"][0] * CONFIGURATION["parts"][1] // count
        first = seed % sets * count
        return first, self.inputs(layer)[first : first + count].flatten(0, 1)

    def judges(self, layer):
        return self.others[f"x.{layer}"][: CONFIGURATION["judges"]].flatten(0, 1)

    def errors(self, layer, block):
        """Error of a block on every text that tests, over the mean of their energy."""
        dense, lost, energy = self.dense(layer), [], []
        for x in self.others[f"x.{layer}"][CONFIGURATION["judges"] :]:
            y = dense(x)
            lost.append((block(x) - y).square().sum())
            energy.append(y.square().sum())
        errors = torch.stack(lost) / torch.stack(energy).mean()
        return [round(float(error), 6) for error in errors]

    def refitted(self, layer, count, seed):
        """The block with a new last map, and the ridge that halves of it chose."""
        first, x = self.chosen(layer, count, seed)
        dense, kept = self.dense(layer), self.rows(layer)
        D = dense.maps[-1][0]

        def make():
            halves = [
                Moments([second_moment(dense, half)], [torch.zeros(1)], len(half))
                for half in x.tensor_split(2)
            ]
            ridge, errors = find_ridge([D], halves, [kept])
            if ridge in (min(errors), max(errors)):
                raise ValueError(f"ridge {ridge} lies on the edge of {[*errors]}")
            H = mean_moments(halves).second[0]
            weight = refit_down(D, H, kept, ridge=ridge).weight.float()
            return {"weight": weight, "ridge": torch.tensor(ridge)}

        found = kept_file(f"refit-{layer}-{count}-{first}", make)
        block = self.sliced(layer)
        block = block._replace(maps=[*block.maps[:2], (found["weight"], None)])
        return block, float(f"{float(found['ridge']):.1g}")

    def fit(self, layer, count, seed, spread, steps):
        """Maps of the fit and its errors on the texts that judge."""
        _, x = self.chosen(layer, count, seed)
        judgements, patience = CONFIGURATION["judgements"][str(steps)]
        plan = ReconstructionPlan(
            steps=steps, spread=spread, judgements=judgements, patience=patience
        )
        block, judges = self.refitted(layer, count, seed)[0], self.judges(layer)
        options = {"plan": plan, "generator": seeded(7 + seed)}
        return reconstruct_block(
            self.dense(layer), block, Samples(x), Samples(judges), **options
        )


def second_moment(dense, x):
    """Of the hidden vectors of a block, in float64 from sums of 4096 tokens."""
    total = 0.0
    for some in x.split(4096):
        h = dense.hidden(some)
        total = total + (h.T @ h).double()
    return total / len(x)


def closed(bench, layer, count, seed):
    """A block re-fitted to some texts."""
    block, ridge = bench.refitted(layer, count, seed)
    return {"ridge": ridge, "errors": bench.errors(layer, block)}


def way(spread, steps):
    return f"spread {spread}, {steps} steps"


def fitted(bench, layer, count, seed, spread, steps):
    """A block fitted to some texts by gradients."""
    begin = time.process_time()
    fit = bench.fit(layer, count, seed, spread, steps)
    seconds = round(time.process_time() - begin)
    if not seed and count in CONFIGURATION["model_on"][0]:
        maps = {name: w for name, (w, _) in zip("WUD", fit.maps, strict=True)}
        kept_file(f"fit-{layer}-{count}-{way(spread, steps)}", lambda: maps)
    errors = bench.errors(layer, bench.dense(layer)._replace(maps=fit.maps))
    bench.say(layer, count, seed, way(spread, steps), sum(errors) / len(errors))
    judged = [round(error, 6) for error in fit.errors]
    return {"judged": judged, "errors": errors, "seconds": seconds}


def model(bench, table, repair, count):
    """Divergence of the model with both blocks repaired, on texts that test."""
    kept = [torch.arange(layer.mlp.down_proj.in_features) for layer in layers_of(bench)]
    kept = [
        bench.rows(n) if n in CONFIGURATION["layers"] else rows
        for n, rows in enumerate(kept)
    ]
    pruned = prune_rows(bench.model, kept)
    for layer in CONFIGURATION["layers"]:
        if repair == "sliced":
            continue
        maps = bench.refitted(layer, count, 0)[0].maps
        if repair == "fitted":  # of all ways the one that the texts that judge prefer
            fits = table["fits"][str(layer)][str(count)]["0"]
            best = min(fits, key=lambda name: min(fits[name]["judged"]))
            found = kept_file(f"fit-{layer}-{count}-{best}", None)
            maps = [(found[name], None) for name in "WUD"]
        block = pruned.model.layers[layer].mlp
        set_maps_([block.gate_proj, block.up_proj, block.down_proj], maps)
    first, texts = CONFIGURATION["judges"], CONFIGURATION["model_on"][1]
    texts = bench.others["tokens"][first : first + texts]
    kl = kl_per_position(bench.model, pruned, texts).mean(1)
    return [round(float(x), 5) for x in kl]


def layers_of(bench):
    return bench.model.model.layers


def fits(bench, spread, seed):
    """Place and function of the fits of a seed, those of whole texts but once."""
    for layer in CONFIGURATION["layers"]:
        for count, each in CONFIGURATION["steps"].items():
            if int(count) < CONFIGURATION["long"][0] or not seed:
                for steps in each:
                    yield one_fit(bench, layer, int(count), seed, spread, steps)


def one_fit(bench, *how):
    layer, count, seed, *ways = how
    place = ("fits", str(layer), str(count), str(seed), way(*ways))
    return place, functools.partial(fitted, bench, *how)


def refits(bench, seed):
    """Place and function of the closed forms of a seed."""
    for layer in CONFIGURATION["layers"]:
        if not seed:
            fill = lambda la=layer: bench.errors(la, bench.sliced(la))  # noqa: E731
            yield ("sliced", str(layer)), fill
        for count in map(int, CONFIGURATION["steps"]):
            if count < CONFIGURATION["long"][0] or not seed:
                place = ("refitted", str(layer), str(count), str(seed))
                yield place, functools.partial(closed, bench, layer, count, seed)


def pieces(bench, table):
    """Place in the table of every piece, and the function that fills it."""
    c = CONFIGURATION
    for number in range(c["parts"][0]):
        part = functools.partial(bench.part, number)
        yield ("written", str(number)), lambda part=part: len(part()["tokens"])
    yield THEN
    yield from refits(bench, 0)
    yield from fits(bench, c["spreads"][0], 0)
    yield THEN
    yield from repaired(bench, table)
    yield THEN
    for spread in c["spreads"][1:]:
        yield from fits(bench, spread, 0)
    yield THEN
    for seed in range(1, c["seeds"]):
        yield from refits(bench, seed)
        yield from fits(bench, c["spreads"][0], seed)
    yield THEN
    count, steps, spread = c["long"]
    for layer in c["layers"]:
        yield one_fit(bench, layer, count, 0, spread, steps)


def repaired(bench, table):
    """Place and function of every model with both blocks repaired."""
    yield ("model", "sliced"), functools.partial(model, bench, table, "sliced", 0)
    for repair in ("refitted", "fitted"):
        for count in CONFIGURATION["model_on"][0]:
            fill = functools.partial(model, bench, table, repair, count)
            yield ("model", repair, str(count)), fill


def main():
    """Every piece that the table lacks, for as long as there is time."""
    options = in_pieces(options_of(__doc__, RESULT))
    torch.set_num_threads(1)
    table = Table(options.results, CONFIGURATION, "torch", "transformers", device=cpu)
    bench = Bench()
    table.fill(pieces(bench, table), options, bench.say)


if __name__ == "__main__":
    main()
