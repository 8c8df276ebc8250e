"""Neurons, rank of values or attention sublayers: what should go, on the small model.

    python benchmarks/attention_rank.py [--results FILE] [--minutes N] [--only PLACE]

samples texts once and keeps them and what is measured on them under
build/attention_rank.  Then it removes the same numbers of parameters in several ways
(`cuts`), drops every attention sublayer alone (`sublayers`), compares the closed form
of the values with its bounds (`values`), and does to rows of `v_proj` what the paper
does to rows of `gate_proj` (`paper`).  Every divergence is taken on texts that nothing
else reads.  The table is written after each piece, and a piece that is there is not
measured again.
"""

from __future__ import annotations

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
    options_of,
    tensors_once,
)

from prunefair.models import load_model, load_tokenizer
from prunefair.pruning.anatomy import ratio_of_rows
from prunefair.pruning.attention_rank import (
    PartCosts,
    attention_moments,
    attention_sublayers,
    cheapest_cut,
    part_costs,
    part_sizes,
    value_basis,
    value_output_reduction,
    value_ridge,
    without_attention,
)
from prunefair.pruning.perplexity import (
    perplexity,
    self_sample,
    token_nats,
    wikitext_tokens,
)
from prunefair.pruning.policy_gradient import train_policy
from prunefair.pruning.reconstruction import set_maps_
from prunefair.pruning.refit import find_ridge, mean_moments, refit_
from prunefair.pruning.self_moments import Moments, down_projections, hidden_moments
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.spectrum import RowSlices
from prunefair.pruning.surgery import prune_rows, row_matrices, sharing_copy

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "attention_rank.json"
SCRATCH = ROOT / "build" / "attention_rank"
kept_file = functools.partial(tensors_once, SCRATCH)
CONFIGURATION = {
    "model": "smollm2",
    "length": 128,
    "seed": 500,
    "texts": 64,  # texts that are sampled
    "held_out": 12,  # last of them: for divergences
    "moments_on": 40,  # first of them
    "costs_on": 16,  # first of them
    "alone_on": 4,  # behind the first: for sublayers dropped one by one
    "windows": [2, 512],  # of WikiText-2 validation
    "ridges_at": 9,  # budget at which the ridges are found
    "kinds": {  # what may go, and what to save, in attention sublayers
        "neurons": [3, 6, 9, 12, 18, 27],
        "values": [3, 6, 9, 12],
        "sublayers": [3, 6, 9],
        "neurons and values": [3, 6, 9, 12, 18, 27],
        "all": [3, 6, 9, 12, 18, 27],
        "all, measured": [3, 9, 18, 27],  # sublayers by their divergence alone
    },
    "positions": {"budgets": [9, 27], "edges": [0, 127, 255, 511]},
    "paper": {"budgets": [3, 9], "seeds": 2, "episodes": 6},
}
MAY_GO = {
    "neurons": (1, 0, 0),
    "values": (0, 1, 0),
    "sublayers": (0, 0, 1),
    "neurons and values": (1, 1, 0),
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def rounded(values):
    return [float(f"{float(x):.4g}") for x in values]


class Bench(OncePerProcess):
    """The dense model, its own texts, and what is measured on them."""

    def __init__(self):
        self.start = time.process_time()
        self.model = load_model(CONFIGURATION["model"], dtype=torch.float32)
        self.sizes = part_sizes(self.model)

    def say(self, *words):
        print(f"{time.process_time() - self.start:6.0f} s", *words, flush=True)

    @functools.cached_property
    def texts(self):
        c = CONFIGURATION

        def sampled():
            draws = seeded(1000 * c["seed"])
            found = self_sample(self.model, c["texts"], c["length"], generator=draws)
            self.say("sampled")
            return {"tokens": found}

        return kept_file("texts", sampled)["tokens"]

    @functools.cached_property
    def held(self):
        return self.texts[-CONFIGURATION["held_out"] :]

    @functools.cached_property
    def halves(self):
        """Moments of neurons and of attention, on two halves of the texts."""
        found, layers = kept_file("moments", self.measured), len(self.weights)
        tokens = CONFIGURATION["moments_on"] * CONFIGURATION["length"] // 2
        halves = {}
        for kind in ("ffn", "attention"):
            for half in range(2):
                second = [found[f"{kind}.{half}.{n}"] for n in range(layers)]
                mean = [torch.zeros(len(H)) for H in second]  # no bias asks for it
                each = Moments(second, mean, tokens)
                halves.setdefault(kind, []).append(each)
        return halves

    def measured(self):
        found = {}
        for half, some in enumerate(
            self.texts[: CONFIGURATION["moments_on"]].tensor_split(2)
        ):
            for kind, measure in (
                ("ffn", hidden_moments),
                ("attention", attention_moments),
            ):
                moments = measure(self.model, some)
                names = (f"{kind}.{half}.{n}" for n in range(len(moments.second)))
                found |= dict(zip(names, moments.second, strict=True))
        self.say("moments")
        return found

    @functools.cached_property
    def weights(self):
        return [x.weight.detach() for x in down_projections(self.model)]

    @functools.cached_property
    def moments(self):
        return {kind: mean_moments(halves) for kind, halves in self.halves.items()}

    @functools.cached_property
    def costs(self):
        def measured():
            texts = self.texts[: CONFIGURATION["costs_on"]]
            neurons, values, whole = part_costs(
                self.model, texts, self.moments["attention"]
            )
            self.say("costs")
            found = {f"neurons.{n}": x for n, x in enumerate(neurons)}
            found |= {f"values.{n}": x for n, x in enumerate(values)}
            return found | {"sublayers": torch.tensor(whole)}

        found, layers = kept_file("costs", measured), range(len(self.weights))
        return PartCosts(
            [found[f"neurons.{n}"] for n in layers],
            [found[f"values.{n}"] for n in layers],
            found["sublayers"].tolist(),
        )

    @functools.cached_property
    def windows(self):
        count, length = CONFIGURATION["windows"]
        tokenizer = load_tokenizer(CONFIGURATION["model"])
        return wikitext_tokens(tokenizer, "validation")[: count * length]

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

    def wikitext(self, model):
        return round(
            perplexity(model, self.windows, window=CONFIGURATION["windows"][1]), 3
        )

    @functools.cached_property
    def energies(self):
        pairs = zip(self.weights, self.moments["ffn"].second, strict=True)
        return [H.diagonal() * D.double().square().sum(0) for D, H in pairs]

    def cut(self, kind, budget, alone=None):
        """Cheapest cut where only some kinds of part may go."""
        costs, some = self.costs, []
        if kind == "all, measured":  # a divergence is half of a cost
            costs = costs._replace(sublayers=[2 * x for x in alone])
        for part, may in zip(costs, MAY_GO.get(kind, (1, 1, 1)), strict=True):
            some.append(part if may else [x + float("inf") for x in part])
        return cheapest_cut(PartCosts(*some), self.sizes, budget * self.sizes.sublayer)

    def rows(self, found):
        """Neurons of largest energy that stay, by layer."""
        pairs = zip(self.energies, found.neurons, strict=True)
        return rows_by_scores(
            self.energies, [ratio_of_rows(len(e), len(e) - n) for e, n in pairs]
        )

    def ranks(self, found):
        """Ranks that stay, by layer; full where the whole sublayer goes."""
        width = self.costs.values[0].shape[1]
        pairs = enumerate(found.ranks)
        return [[width] * len(r) if n in found.dropped else r for n, r in pairs]

    def refitted(self, found, ridges):
        """The model after a cut, re-fitted."""
        rows, ranks = self.rows(found), self.ranks(found)
        pruned = prune_rows(self.model, rows)
        if sum(found.neurons):
            moments, ridge = self.moments["ffn"], ridges["neurons"]
            refit_(pruned, self.model, rows, moments, ridge=ridge)
        moments, ridge = self.moments["attention"], ridges["values"]
        pruned = value_output_reduction(pruned, moments, ranks, ridge=ridge)
        return without_attention(pruned, found.dropped)

    def ridges(self):
        """Of the neurons and of the values, where each kind goes alone."""
        budget, halves = CONFIGURATION["ridges_at"], self.halves
        rows = self.rows(self.cut("neurons", budget))
        ridge, _ = find_ridge(self.weights, halves["ffn"], rows)
        ranks = self.ranks(self.cut("values", budget))
        ours = value_ridge(self.model, halves["attention"], ranks)
        return {"neurons": ridge, "values": ours}


def cut(bench, kind, budget, table):
    """One way to save parameters, re-fitted; values alone also without a re-fit."""
    found = bench.cut(kind, budget, table.get("sublayers"))
    ranks = bench.ranks(found)
    width = bench.costs.values[0].shape[1]
    row = {
        "saved": found.saved,
        "neurons": found.neurons,
        "coordinates": [sum(width - x for x in r) for r in ranks],
        "sublayers": found.dropped,
        "cost": round(found.cost, 5),
    }
    if kind not in MAY_GO and not found.dropped:
        return row  # the same as neurons and values
    if kind == "values":
        attention = bench.moments["attention"]
        sliced = value_output_reduction(bench.model, attention, ranks)
        row["sliced"] = bench.divergence(sliced)
    pruned = bench.refitted(found, table["ridges"])
    row["kl"] = bench.divergence(pruned)
    return row | {"perplexity": bench.wikitext(pruned)}


def by_position(bench, kind, budget, table):
    """Information of a token of WikiText-2, mean over positions between edges, nats."""
    model, edges = bench.model, CONFIGURATION["positions"]["edges"]
    if kind != "dense":
        model = bench.refitted(bench.cut(kind, budget), table["ridges"])
    windows = bench.windows.view(CONFIGURATION["windows"])
    nats = token_nats(model, windows)  # of every token but the first
    pairs = zip(edges[:-1], edges[1:], strict=True)
    return [round(float(nats[:, a:b].mean()), 5) for a, b in pairs]


def alone(bench):
    """Divergence with one attention sublayer less, for each."""
    c, found = CONFIGURATION, []
    some = bench.texts[c["moments_on"] : c["moments_on"] + c["alone_on"]]
    p = bench.log_distribution(bench.model, some)
    for layer in range(len(bench.weights)):
        q = bench.log_distribution(without_attention(bench.model, [layer]), some)
        found.append((p.exp() * (p - q)).sum(-1).mean())
    return rounded(found)


def values(bench):
    """What the closed form loses at half the width, over the output, by layer."""
    rows = {"least": [], "closed form": [], "most": [], "re-fitted": []}
    for layer, attention in enumerate(attention_sublayers(bench.model)):
        shape, Z = attention.shape, bench.moments["attention"].second[layer].double()
        n_values, shared, width = shape
        O, r = attention.output.weight.detach().double(), shape[2] // 2
        basis = value_basis(O, Z, shape)
        rest = basis.back[:, :, r:] @ basis.into[:, r:]
        parts, blocks = O.view(-1, *shape), Z.view(*shape, *shape)
        energy = least = closed = fitted = 0.0
        for g in range(n_values):
            for i in range(shared):
                A, C = parts[:, g, i], blocks[g, i, :, g, i]
                spectrum = torch.linalg.eigvals(A.T @ A @ C).real.sort().values
                energy += float(spectrum.sum())
                least += float(spectrum[:-r].clamp(min=0).sum())
                N = A @ rest[g]
                closed += float((N @ C * N).sum())
                E = basis.into[g, :r]
                gone = C - C @ E.T @ torch.linalg.solve(E @ C @ E.T, E @ C)
                fitted += float((A @ gone * A).sum())
        found = least, closed, shared * float(basis.energies[:, r:].sum()), fitted
        for row, x in zip(rows.values(), found, strict=True):
            row.append(x / energy)
    return {name: rounded(row) for name, row in rows.items()}


def paper(bench, what, choice, seed, budgets):
    """Rows of one matrix of every layer by a trained policy, or at random."""
    matrices = [W.detach() for W in row_matrices(bench.model)]
    if what == "value rows":
        matrices = [a.values.weight.detach() for a in attention_sublayers(bench.model)]
    size = bench.sizes.neuron if what == "gate rows" else bench.sizes.value
    total, rows = sum(map(len, matrices)), {}
    ratios = [b * bench.sizes.sublayer / (size * total) for b in budgets]
    if choice == "policy":
        options = {"episodes": CONFIGURATION["paper"]["episodes"]}
        options |= {"generator": seeded(seed), "dtype": torch.float32}
        policy = train_policy(matrices, ratios[-1], **options).policy
        scores = [policy.scores(W).detach() for W in matrices]
    else:
        draws = seeded(900 + seed)
        scores = [torch.rand(len(W), generator=draws) for W in matrices]
    for budget, ratio in zip(budgets, ratios, strict=True):
        kept = rows_by_scores(scores, ratio)
        pairs = zip(matrices, kept, strict=True)
        ks = [float(RowSlices(W, dtype=torch.float32).distance(S)) for W, S in pairs]
        if what == "gate rows":
            pruned = prune_rows(bench.model, kept)
        else:
            pruned = without_values(bench.model, kept)
        row = {"ks": round(sum(ks) / len(ks), 5), "kl": bench.divergence(pruned)}
        rows[str(budget)] = row
    return rows


def without_values(model, kept):
    """Model that reads some rows of `v_proj` only."""
    smaller = sharing_copy(model)
    for attention, rows in zip(attention_sublayers(smaller), kept, strict=True):
        n_values, shared, width = attention.shape
        stays = torch.zeros(n_values * width)
        stays[rows] = 1
        columns = stays.view(n_values, 1, width).expand(-1, shared, -1).flatten()
        set_maps_(
            [attention.output], [(attention.output.weight.detach() * columns, None)]
        )
    return smaller


def pieces(bench, table):
    """Place in the table of every piece, and the function that fills it."""
    c, fill = CONFIGURATION, functools.partial
    yield ("costs",), fill(summary, bench)
    yield ("ridges",), bench.ridges
    yield ("sublayers",), fill(alone, bench)
    yield ("values",), fill(values, bench)
    yield THEN
    for kind, budgets in c["kinds"].items():
        for budget in budgets:
            yield ("cuts", kind, str(budget)), fill(cut, bench, kind, budget, table)
    yield ("positions", "dense", "0"), fill(by_position, bench, "dense", 0, table)
    for kind in ("neurons", "neurons and values"):
        for budget in c["positions"]["budgets"]:
            done = fill(by_position, bench, kind, budget, table)
            yield ("positions", kind, str(budget)), done
    for seed in range(c["paper"]["seeds"]):
        for what in ("gate rows", "value rows"):
            for choice in ("policy", "random"):
                given = bench, what, choice, seed, c["paper"]["budgets"]
                yield ("paper", what, choice, str(seed)), fill(paper, *given)


def summary(bench):
    """Sums and sizes of the costs, by layer, and the dense model."""
    costs = bench.costs
    return {
        "sizes": bench.sizes._asdict(),
        "parameters": bench.model.num_parameters(),
        "neurons": rounded(x.sum() for x in costs.neurons),
        "values": rounded(x.sum() for x in costs.values),
        "sublayers": rounded(costs.sublayers),
        "perplexity": bench.wikitext(bench.model),
    }


def main():
    """Every piece that the table lacks, for as long as there is time."""
    options = in_pieces(options_of(__doc__, RESULT))
    torch.set_num_threads(1)
    table = Table(options.results, CONFIGURATION, "torch", "transformers", device=cpu)
    bench = Bench()
    table.fill(pieces(bench, table), options, bench.say)


if __name__ == "__main__":
    main()
