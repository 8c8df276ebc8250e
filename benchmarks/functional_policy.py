"""What the functional policy learns, and which objective ranks pruned models.

    python benchmarks/functional_policy.py [--minutes 20]

fills `book/results/functional_policy.json`: learning curves of the two penalties on
every third layer of the small real model; one policy used at other ratios than its own;
equal and uneven widths; what the layer of an outlier does to training; and for 66
selections at three ratios seven objectives, the divergence from the dense model and the
perplexity; and the divergence of those at the largest ratio after every repair.  A
finished piece is never done again, so that the run may be stopped at any
moment.  About an hour and a half on one core.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from pathlib import Path

import numpy as np
import torch
from storing import (
    OncePerProcess,
    Table,
    cpu,
    in_pieces,
    once,
    options_of,
    tensors_once,
)

from prunefair.models import load_model, load_tokenizer
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.functional_policy import (
    EnergySlices,
    FunctionalSlices,
    fisher_costs,
    functional_distances,
    functional_layers,
    surgeon_energies,
    train_functional,
    uneven_ratios,
)
from prunefair.pruning.perplexity import perplexity, self_sample, wikitext_tokens
from prunefair.pruning.policy_gradient import leave_one_out, train_policy
from prunefair.pruning.reconstruction import CORRECTED, reconstruct_
from prunefair.pruning.refit import find_ridge, mean_moments, refit_
from prunefair.pruning.row_policy import gumbel_top_k, plackett_luce_gradient
from prunefair.pruning.self_moments import (
    down_projections,
    hidden_moments,
    load_moments,
    lost_energy,
    removed_neurons,
    save_moments,
)
from prunefair.pruning.spectral_pruning import rows_by_scores, selection_distances
from prunefair.pruning.spectrum import singular_values
from prunefair.pruning.surgery import adapter_for, prune_rows, row_matrices

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "functional_policy.json"
CACHE = ROOT / "build" / "functional_policy"
CONFIGURATION = {
    "model": "smollm2",
    "self_texts": [64, 128],
    "self_seed": 300,
    "held_out": [8, 128],
    "held_out_seed": 301,
    "text": "WikiText-2 validation, first 2 windows of 512 tokens",
    "trained_at": 0.3,
    "episodes": 8,
    "draws": 2,
    "seeds": [0, 1, 2],
    "every": 3,
    "ratios": [0.1, 0.2, 0.3],
    "reused_at": [0.1, 0.2, 0.3, 0.4],
    "noise_seed": 302,
    "repaired": {"texts": 32, "judges": 4},
}
PENALTIES = {"functional KS": FunctionalSlices, "lost energy": EnergySlices}
MAIN = CONFIGURATION["trained_at"]
TRAINING = {name: CONFIGURATION[name] for name in ("episodes", "draws")}


def short(x):
    return float(f"{float(x):.6g}")


class Bench(OncePerProcess):
    """The dense model, its statistics, and the text that a selection is judged on."""

    def __init__(self):
        c = CONFIGURATION
        self.model = load_model(c["model"], dtype=torch.float32)
        moments, self.fisher, self.joint = self.statistics()
        self.layers = functional_layers(self.model, moments, self.fisher)
        self.spectra = [FunctionalSlices(layer) for layer in self.layers]
        self.energy, self.surgeon = zip(
            *(surgeon_energies(layer.D, layer.H) for layer in self.layers), strict=True
        )
        self.totals = [float((la.D @ la.H * la.D).sum()) for la in self.layers]
        self.gates = [W.float() for W in row_matrices(self.model)]
        self.references = [singular_values(W, dtype=torch.float32) for W in self.gates]
        self.norms = self.row_norms()
        self.held = self.sample("held_out", "held_out_seed")
        self.text = wikitext_tokens(load_tokenizer(c["model"]), "validation")
        self.dense = [self.log_distribution(self.model, t) for t in self.held.split(4)]

    def sample(self, sizes, seed):
        n, length = CONFIGURATION[sizes]
        generator = torch.Generator().manual_seed(CONFIGURATION[seed])
        return self_sample(self.model, n, length, generator=generator)

    def statistics(self):
        """Moments and both kinds of Fisher costs on self-sampled text, once."""
        CACHE.mkdir(parents=True, exist_ok=True)
        moments, fisher = CACHE / "moments.safetensors", CACHE / "fisher.npy"
        if not fisher.exists():
            start = time.process_time()
            texts = self.own_texts
            print("sampled", time.process_time() - start, flush=True)
            save_moments(hidden_moments(self.model, texts), moments)
            print("moments", time.process_time() - start, flush=True)
            costs = [fisher_costs(self.model, texts, together=t) for t in (False, True)]
            print("costs", time.process_time() - start, flush=True)
            partial = fisher.with_suffix(".partial.npy")
            np.save(partial, torch.stack([torch.stack(c) for c in costs]).numpy())
            os.replace(partial, fisher)
        both = torch.from_numpy(np.load(fisher))
        return load_moments(moments)[0], [*both[0]], [*both[1]]

    @functools.cached_property
    def own_texts(self):
        """Texts of the model, sampled once."""
        return tensors_once(
            CACHE, "texts", lambda: {"texts": self.sample("self_texts", "self_seed")}
        )["texts"]

    @functools.cached_property
    def to_fit(self):
        """Texts for the repair of selections, and the moments of both halves."""
        texts = self.own_texts[: CONFIGURATION["repaired"]["texts"]]
        return texts, [hidden_moments(self.model, t) for t in texts.tensor_split(2)]

    def row_norms(self):
        """Norms of the rows of every matrix of a block, (matrices, m) in each layer."""
        adapter = adapter_for(self.model)
        norms = []
        for block in adapter.blocks(self.model):
            *into, out = [linear.weight.detach() for linear in adapter.linears(block)]
            norms.append(torch.stack([W.norm(dim=1) for W in into] + [out.norm(dim=0)]))
        return norms

    @torch.no_grad()
    def log_distribution(self, model, texts):
        return model(texts, use_cache=False).logits.float().log_softmax(-1)

    def divergence(self, model):
        """Divergence on each held-out text, nats a token."""
        rows = []
        for p, chunk in zip(self.dense, self.held.split(4), strict=True):
            q = self.log_distribution(model, chunk)
            rows.append((p.exp() * (p - q)).sum(-1).mean(1))
        return [short(x) for x in torch.cat(rows)]

    def perplexity(self, model):
        return short(perplexity(model, self.text, window=512, max_windows=2))

    def objectives(self, kept):
        """Penalties that objectives charge a selection with; larger is worse."""
        gone = [removed_neurons(S, len(H)) for S, H in zip(kept, self.energy)]
        lost = [
            float(lost_energy(la.D, la.H, R)) / total
            for la, R, total in zip(self.layers, gone, self.totals, strict=True)
        ]
        felt = [s.distance(S) for s, S in zip(self.spectra, kept, strict=True)]
        raw = selection_distances(
            self.gates, kept, self.references, dtype=torch.float32
        )
        return {
            "raw KS": short(raw.mean()),
            "functional KS": short(torch.stack(felt).mean()),
            "lost energy": short(np.mean(lost)),
            "norm of gate_proj": short(
                removed_sum([n[0].log() for n in self.norms], gone)
            ),
            "norm product": short(
                removed_sum([n.log().sum(0) for n in self.norms], gone)
            ),
            "Fisher cost": short(removed_sum(self.fisher, gone)),
            "Fisher cost, all positions": short(removed_sum(self.joint, gone)),
        }

    def judged(self, kept, *, text=True):
        model = prune_rows(self.model, kept)
        row = {"kl": self.divergence(model)}
        return row | ({"perplexity": self.perplexity(model)} if text else {})

    def trained(self, penalty, seed, ratio, layers):
        generator = torch.Generator().manual_seed(seed)
        options = {"penalty": PENALTIES[penalty], "generator": generator, **TRAINING}
        return train_functional(layers, ratio, **options)

    @once
    def scores(self, penalty):
        """Scores of the policy trained on all layers, and its training."""
        generator = torch.Generator().manual_seed(0)
        if penalty == "raw KS":
            options = {"generator": generator, "dtype": torch.float32, **TRAINING}
            policy = train_policy(self.gates, CONFIGURATION["trained_at"], **options)
            policy, seen = policy.policy, self.gates
        else:
            ratio = CONFIGURATION["trained_at"]
            policy, seen = (
                self.trained(penalty, 0, ratio, self.layers).policy,
                self.layers,
            )
        return [policy.scores(x).detach() for x in seen]


def removed_sum(values, gone):
    return sum(float(v[R].double().sum()) for v, R in zip(values, gone, strict=True))


def noisy(scores, size, generator):
    """Standardised logarithms of positive scores, with normal noise."""
    logs = [s.double().clamp(min=1e-300).log() for s in scores]
    return [
        (x - x.mean()) / x.std()
        + size * torch.randn(len(x), generator=generator, dtype=torch.float64)
        for x in logs
    ]


def selections(bench):
    """Name of every kind of selection, and its scores given a source of noise."""
    gate = [n[0] for n in bench.norms]
    product = [n.prod(0) for n in bench.norms]
    plain = {
        "norm of gate_proj": gate,
        "norm of up_proj and down_proj": [n[1:].prod(0) for n in bench.norms],
        "norm product": product,
        "energy": bench.energy,
        "surgeon energy": bench.surgeon,
        "Fisher cost": bench.fisher,
    }
    for name, scores in plain.items():
        yield name, lambda _, scores=scores: scores
    for i in range(3):
        yield f"random {i}", lambda g: noisy(gate, 1e9, g)
    for name in ("raw KS", *PENALTIES):
        yield f"policy, {name}", lambda _, name=name: bench.scores(name)
    for size in (0.5, 1.0, 1.5, 2.0, 4.0):
        yield f"energy, noise {size}", lambda g, s=size: noisy(bench.energy, s, g)
    for size in (1.0, 3.0):
        yield f"Fisher cost, noise {size}", lambda g, s=size: noisy(bench.fisher, s, g)
    yield "surgeon energy, noise 2.0", lambda g: noisy(bench.surgeon, 2.0, g)
    yield "norm product, noise 1.0", lambda g: noisy(product, 1.0, g)
    mixed = [e * p for e, p in zip(bench.energy, product, strict=True)]
    yield "energy times norm product", lambda _: mixed


def curve(bench, penalty, seed):
    """One training on some layers, with what its best selection is charged."""
    layers = bench.layers[:: CONFIGURATION["every"]]
    ratio = CONFIGURATION["trained_at"]
    trained = bench.trained(penalty, seed, ratio, layers)
    kept = rows_by_scores([trained.policy.scores(x).detach() for x in layers], ratio)
    row = {"history": [short(x) for x in trained.history]}
    row["weights"] = [short(w) for w in trained.policy.weights.detach()]
    return row | {"best": charged(layers, kept)}


def charged(layers, kept):
    """Mean of both penalties, of a selection of some layers."""
    pairs = list(zip(layers, kept, strict=True))
    return {
        name: short(torch.stack([slices(la)(S) for la, S in pairs]).mean())
        for name, slices in PENALTIES.items()
    }


def levels(bench):
    """Both penalties of selections that were not trained."""
    layers = bench.layers[:: CONFIGURATION["every"]]
    scores = {"energy": bench.energy, "Fisher cost": bench.fisher}
    table = {}
    for name, values in scores.items():
        kept = rows_by_scores(
            values[:: CONFIGURATION["every"]], CONFIGURATION["trained_at"]
        )
        table[name] = charged(layers, kept)
    generator = torch.Generator().manual_seed(CONFIGURATION["noise_seed"])
    noise = [torch.rand(len(la), generator=generator) for la in layers]
    table["random"] = charged(
        layers, rows_by_scores(noise, CONFIGURATION["trained_at"])
    )
    return table


def reuse(bench, at):
    """Functional KS of a policy trained at one ratio, at every ratio."""
    layers = bench.layers[:: CONFIGURATION["every"]]
    policy = bench.trained("functional KS", 0, at, layers).policy
    scores = [policy.scores(x).detach() for x in layers]
    used = CONFIGURATION["reused_at"]
    return [charged(layers, rows_by_scores(scores, r))["functional KS"] for r in used]


def widths(bench, name, ratio):
    """Equal and uneven widths, from the same scores."""
    scores = bench.scores(name) if name in PENALTIES else getattr(bench, name)
    shares = {"equal": ratio, "uneven": uneven_ratios(bench.fisher, ratio)}
    table = {"ratios": [short(r) for r in shares["uneven"]]}
    for kind, share in shares.items():
        table[kind] = bench.judged(rows_by_scores(scores, share))
    return table


def outlier(bench, penalty, without, seed):
    """Policy trained with or without the layer in which one neuron has most energy."""
    shares = [float(e.max() / e.sum()) for e in bench.energy]
    odd = int(np.argmax(shares))
    layers = [la for i, la in enumerate(bench.layers) if not (without and i == odd)]
    trained = bench.trained(penalty, seed, CONFIGURATION["trained_at"], layers)
    scores = [trained.policy.scores(la).detach() for la in bench.layers]
    kept = rows_by_scores(scores, CONFIGURATION["trained_at"])
    found = bench.objectives(kept)
    row = {name: found[name] for name in PENALTIES}
    row["weights"] = [short(w) for w in trained.policy.weights.detach()]
    return row | {"layer": odd, "kl": bench.divergence(prune_rows(bench.model, kept))}


def signal(bench, pairs=16):
    """Gradients at the start of training, from the same draws for both penalties."""
    generator = torch.Generator().manual_seed(CONFIGURATION["noise_seed"])
    table = {name: {"gradients": 0, "deviation": []} for name in PENALTIES}
    for number, layer in enumerate(bench.layers):
        equal = torch.zeros(len(layer))
        k = rows_to_keep(len(layer), CONFIGURATION["trained_at"])
        draws = gumbel_top_k(equal.expand(pairs, 2, -1), k, generator=generator)
        scores = plackett_luce_gradient(equal, draws) @ layer.features
        for name, slices in PENALTIES.items():
            d = slices(layer)(draws)  # (pairs, 2)
            charged = leave_one_out(d.T).T[..., None] * scores
            table[name]["gradients"] += 0.99**number * charged.mean(1)
            table[name]["deviation"].append(short(d.std()))
    for row in table.values():
        row["gradients"] = [[short(x) for x in g] for g in row["gradients"]]
    return table


def precision(bench):
    """Functional distances of every layer in float32 and in float64."""
    kept = rows_by_scores(bench.energy, CONFIGURATION["trained_at"])
    single = [s.distance(S) for s, S in zip(bench.spectra, kept, strict=True)]
    exact = functional_distances(bench.layers, kept)
    return {"float32": [short(x) for x in single], "float64": [short(x) for x in exact]}


def agreement(bench):
    """Rank correlation of the two kinds of Fisher costs in every layer."""
    from scipy.stats import spearmanr

    pairs = zip(bench.fisher, bench.joint, strict=True)
    return {
        "rank": [short(spearmanr(f, j).statistic) for f, j in pairs],
        "sum_ratio": [
            short(j.sum() / f.sum()) for f, j in zip(bench.fisher, bench.joint)
        ],
    }


def drawn(scores, ratio, number):
    """Rows of a selection."""
    seed = CONFIGURATION["noise_seed"] + 1000 * number + round(100 * ratio)
    return rows_by_scores(scores(torch.Generator().manual_seed(seed)), ratio)


def selected(bench, scores, ratio, number):
    kept = drawn(scores, ratio, number)
    return bench.objectives(kept) | bench.judged(kept)


def repaired(bench, scores, number):
    """Divergence of a selection: sliced, re-fitted, with its blocks fitted."""
    kept, sizes = drawn(scores, MAIN, number), CONFIGURATION["repaired"]
    row, (texts, halves) = {}, bench.to_fit
    model = prune_rows(bench.model, kept)
    row["sliced"] = bench.divergence(model)
    weights = [linear.weight for linear in down_projections(bench.model)]
    row["ridge"] = find_ridge(weights, halves, kept)[0]
    moments, options = mean_moments(halves), {"ridge": row["ridge"]}
    row["refitted"] = bench.divergence(
        refit_(model, bench.model, kept, moments, **options)
    )
    texts, judges = texts.tensor_split([len(texts) - sizes["judges"]])
    options = {"plan": CORRECTED, "generator": torch.Generator().manual_seed(number)}
    model = prune_rows(bench.model, kept)
    reconstruct_(model, bench.model, texts, judges=judges, **options)
    return row | {"reconstructed": bench.divergence(model)}


def pieces(bench):
    """Place in the table of every piece, and the function that fills it."""
    c = CONFIGURATION
    yield ("dense",), lambda: {"perplexity": bench.perplexity(bench.model)}
    yield ("precision",), lambda: precision(bench)
    yield ("agreement",), lambda: agreement(bench)
    yield ("levels",), lambda: levels(bench)
    for seed in c["seeds"]:
        for penalty in PENALTIES:
            yield (
                ("curves", penalty, str(seed)),
                functools.partial(curve, bench, penalty, seed),
            )
    for ratio in reversed(c["ratios"]):
        for number, (name, scores) in enumerate(selections(bench)):
            place = ("selections", str(ratio), name)
            yield place, functools.partial(selected, bench, scores, ratio, number)
    for number, (name, scores) in enumerate(selections(bench)):
        yield ("repaired", name), functools.partial(repaired, bench, scores, number)
    for name in (*PENALTIES, "energy", "fisher"):
        for ratio in c["reused_at"] if name == "functional KS" else [c["trained_at"]]:
            place = ("widths", name, str(ratio))
            yield place, functools.partial(widths, bench, name, ratio)
    yield ("signal",), lambda: signal(bench)
    for seed in c["seeds"]:
        for name, without in itertools.product(reversed(PENALTIES), (False, True)):
            if without and name == "functional KS":
                continue
            kind = f"{name}, without the layer" if without else name
            fill = functools.partial(outlier, bench, name, without, seed)
            yield ("outlier", kind, str(seed)), fill
    for at in c["reused_at"]:
        yield ("reuse", str(at)), functools.partial(reuse, bench, at)


def main():
    options = in_pieces(options_of(__doc__, RESULT))
    table = Table(options.results, CONFIGURATION, "torch", "transformers", device=cpu)
    bench = Bench()
    table.fill(pieces(bench), options, functools.partial(print, flush=True))


if __name__ == "__main__":
    main()
