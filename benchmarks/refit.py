"""What re-fitting `down_proj` to self-sampled text gains, and with how much of it.

    python benchmarks/refit.py

fills `book/results/refit.json`.  Several selections of 30 % removed neurons, fixed
beforehand on 64 self-sampled texts, are re-fitted to 16, 64 and 256 texts and judged by
the divergence from the dense model on texts of another seed.  One of them is also
re-fitted to other texts of the model, more, longer, or sampled at other temperatures;
and layer after layer, to what the pruned model itself feeds its blocks.

Not in pieces: all texts, policies and random rows are drawn from one generator in turn,
and the moments of more texts are added to those of fewer.  A quarter of an hour.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from storing import Table, cpu, options_of

from prunefair.models import load_model
from prunefair.pruning.functional_policy import (
    fisher_costs,
    functional_layers,
    surgeon_energies,
    train_functional,
    uneven_ratios,
)
from prunefair.pruning.perplexity import kl_per_position, self_sample
from prunefair.pruning.refit import (
    choose_ridge,
    mean_moments,
    output_error,
    refit_,
    refit_down,
)
from prunefair.pruning.self_moments import down_projections, hidden_moments
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.surgery import prune_rows

RESULT = Path(__file__).parents[1] / "book" / "results" / "refit.json"
CONFIGURATION = {
    "model": "smollm2",
    "ratio": 0.3,
    "length": 128,
    "texts": [16, 64, 256],
    "seed": 300,
    "selected_on": 64,
    "episodes": 8,
    "held_out": [12, 64],
    "held_out_seed": 301,
    "others": {
        "twice as many": [256, 128, 1.0],
        "half as many, twice as long": [128, 256, 1.0],
        "temperature 0.7": [256, 128, 0.7],
        "temperature 1.3": [256, 128, 1.3],
    },
    "most_removed": [0.5, 0.6, 0.7, 0.8],
    "sequential_texts": 32,
    "sequential_shares": [0.0, 0.5, 1.0],
    "sequential_ridge": 0.3,
}
ALL = "functional, widths by Fisher cost"


class Bench:
    """The dense model, its own texts, and the texts that judge."""

    def __init__(self):
        c = CONFIGURATION
        self.start = time.process_time()
        self.model = load_model(c["model"], dtype=torch.float32)
        self.weights = [x.weight.detach() for x in down_projections(self.model)]
        self.generator = torch.Generator().manual_seed(c["held_out_seed"])
        self.held = self_sample(self.model, *c["held_out"], generator=self.generator)
        self.held_moments = hidden_moments(self.model, self.held)
        self.generator.manual_seed(c["seed"])
        sizes = c["texts"][-1], c["length"]
        self.texts = self_sample(self.model, *sizes, generator=self.generator)
        self.say("sampled")

    def say(self, *words):
        print(f"{time.process_time() - self.start:6.0f} s", *words, flush=True)

    def halves(self):
        """Moments of both halves of ever more texts."""
        texts, n = CONFIGURATION["texts"], CONFIGURATION["texts"][0] // 2
        first, before = hidden_moments(self.model, self.texts[:n]), n
        for count in texts:
            if count // 2 > before:  # what was the whole before, and what lies between
                more = hidden_moments(self.model, self.texts[before : count // 2])
                first = mean_moments([first, more])
            second = hidden_moments(self.model, self.texts[count // 2 : count])
            self.say("moments of", count)
            yield count, (first, second)
            first, before = mean_moments([first, second]), count

    def selections(self, moments):
        """Rows kept by each method, on the moments and Fisher costs of some texts."""
        c = CONFIGURATION
        fisher = fisher_costs(self.model, self.texts[: c["selected_on"]])
        self.say("Fisher costs")
        layers = functional_layers(self.model, moments, fisher)
        options = {"episodes": c["episodes"], "generator": self.generator}
        policy = train_functional(layers, c["ratio"], **options).policy
        self.say("policy")
        scores = [policy.scores(layer).detach() for layer in layers]
        energies = [surgeon_energies(layer.D, layer.H)[0] for layer in layers]
        equal = [torch.zeros(len(layer)) for layer in layers]
        kept = {
            "random": rows_by_scores(equal, c["ratio"], generator=self.generator),
            "energy": rows_by_scores(energies, c["ratio"]),
            "functional, equal widths": rows_by_scores(scores, c["ratio"]),
            ALL: rows_by_scores(scores, uneven_ratios(fisher, c["ratio"])),
        }
        capped = {
            most: rows_by_scores(scores, uneven_ratios(fisher, c["ratio"], most=most))
            for most in c["most_removed"]
        }
        return kept, capped

    def refitted(self, kept, moments, ridge):
        """Divergence of a re-fitted model."""
        pruned = prune_rows(self.model, kept)
        refit_(pruned, self.model, kept, moments, ridge=ridge)
        return self.divergence(pruned)

    def divergence(self, pruned):
        """Divergence from the dense model on each held-out text, nats a token."""
        kl = kl_per_position(self.model, pruned, self.held)
        return [round(float(x), 5) for x in kl.mean(1)]

    def errors(self, kept, moments=None, ridge=None):
        """Error of each layer's output on held-out texts, sliced or re-fitted."""
        errors = []
        for layer, (D, rows) in enumerate(zip(self.weights, kept, strict=True)):
            weight = D[:, rows].double()
            if moments is not None:
                weight = refit_down(D, moments.second[layer], rows, ridge=ridge).weight
            H = self.held_moments.second[layer]
            errors.append(round(float(output_error(D, H, rows, weight)), 6))
        return errors


def independent(bench, levels, kept):
    """Every selection before the re-fit and after it, with more and more texts."""
    table = {name: {} for name in kept}
    for name, rows in kept.items():
        table[name]["before"] = bench.divergence(prune_rows(bench.model, rows))
        table[name]["after"] = []
    fits = []
    for count, halves in levels.items():
        ridge, curve = choose_ridge(bench.weights, halves, kept[ALL])
        moments = mean_moments(halves)
        fits.append({"texts": count, "tokens": moments.tokens, "ridge": ridge})
        fits[-1] |= {"curve": curve, "error": bench.errors(kept[ALL], moments, ridge)}
        bench.say(count, ridge, curve)
        for name, rows in kept.items():
            table[name]["after"].append(bench.refitted(rows, moments, ridge))
            bench.say(count, name, sum(table[name]["after"][-1]) / len(bench.held))
    return {"selections": table, "fits": fits, "error_before": bench.errors(kept[ALL])}


def other_texts(bench, halves, kept, ridge):
    """Divergence after the re-fit to other texts of the model, and to all of them."""
    known, rows = mean_moments(halves), []
    everything = [known]
    for name, (n, length, temperature) in CONFIGURATION["others"].items():
        options = {"generator": bench.generator, "temperature": temperature}
        more = hidden_moments(
            bench.model, self_sample(bench.model, n, length, **options)
        )
        everything.append(more)
        moments = mean_moments([known, more]) if name == "twice as many" else more
        row = {"texts": name, "tokens": moments.tokens}
        rows.append(row | {"kl": bench.refitted(kept, moments, ridge)})
        bench.say(name, sum(rows[-1]["kl"]) / len(bench.held))
    moments = mean_moments(everything)
    row = {"texts": "all of these", "tokens": moments.tokens}
    return [*rows, row | {"kl": bench.refitted(kept, moments, ridge)}]


def caps(bench, capped, moments, ridge):
    """Divergence where no layer loses more than some share, sliced and re-fitted."""
    rows = []
    for most, kept in capped.items():
        row = {"most": most, "before": bench.divergence(prune_rows(bench.model, kept))}
        rows.append(row | {"after": bench.refitted(kept, moments, ridge)})
        bench.say("at most", most, sum(rows[-1]["after"]) / len(bench.held))
    return rows


@torch.no_grad()
def sequential_refit(model, kept, texts, share, *, ridge, batch=8):
    """Re-fit of a LLaMA, each block to its inputs in the model pruned so far.

    The target of a block is its dense output and `share` of what the residual stream
    before it lacks.
    """
    dense = model.model.embed_tokens(texts)  # (n, N, hidden), the residual stream
    pruned, fitted = dense.clone(), []
    places = torch.arange(texts.shape[1])[None]
    rotary = model.model.rotary_emb(dense[:1], places)
    for layer, rows in zip(model.model.layers, kept, strict=True):

        def block(x, layer=layer, rows=rows):
            """Stream after attention, and the hidden vectors of the block."""
            x = x + layer.self_attn(layer.input_layernorm(x), rotary, None)[0]
            z, mlp = layer.post_attention_layernorm(x), layer.mlp
            return x, mlp.act_fn(mlp.gate_proj(z)) * mlp.up_proj(z)

        D = layer.mlp.down_proj.weight
        k, hidden = len(rows), []
        H, C = torch.zeros(k, k), torch.zeros(len(D), k)
        for i in range(0, len(texts), batch):
            part = slice(i, i + batch)
            stream, h = block(dense[part])
            mine, g = block(pruned[part])
            y, g = h @ D.T, g[..., rows]
            target = (y + share * (stream - mine)).flatten(0, 1)
            H += g.flatten(0, 1).T @ g.flatten(0, 1)
            C += target.T @ g.flatten(0, 1)
            dense[part], pruned[part] = stream + y, mine
            hidden.append(g)
        H, C = H.double(), C.double()
        damping = ridge * H.diagonal()
        C, H = C + D[:, rows] * damping, H + torch.diag(damping)
        weight = torch.linalg.solve(H, C.T).T.float()
        fitted.append(weight)
        pruned += torch.cat(hidden) @ weight.T
    expected = model.model(texts[:1], use_cache=False).last_hidden_state
    assert (model.model.norm(dense[:1]) - expected).norm() < 1e-3 * expected.norm()
    return fitted


def sequential(bench, kept):
    """Divergence of the sequential re-fits, and of an independent one, on few texts."""
    c, rows = CONFIGURATION, []
    texts, ridge = bench.texts[: c["sequential_texts"]], c["sequential_ridge"]
    moments, pruned = hidden_moments(bench.model, texts), prune_rows(bench.model, kept)
    rows.append({"share": None, "kl": bench.refitted(kept, moments, ridge)})
    bench.say("independent", sum(rows[-1]["kl"]) / len(bench.held))
    for share in c["sequential_shares"]:
        fitted = sequential_refit(bench.model, kept, texts, share, ridge=ridge)
        for linear, weight in zip(down_projections(pruned), fitted, strict=True):
            linear.weight = torch.nn.Parameter(weight, False)
        rows.append({"share": share, "kl": bench.divergence(pruned)})
        bench.say("sequential", share, sum(rows[-1]["kl"]) / len(bench.held))
    return rows


def main() -> None:
    """Everything, stored at the end."""
    options = options_of(__doc__, RESULT).parse_args()
    torch.set_num_threads(1)
    table = Table(options.results, CONFIGURATION, "torch", "transformers", device=cpu())
    bench = Bench()
    levels = dict(bench.halves())
    chosen_by = mean_moments(levels[CONFIGURATION["selected_on"]])
    kept, capped = bench.selections(chosen_by)
    result = independent(bench, levels, kept)
    halves, ridge = levels[CONFIGURATION["texts"][-1]], result["fits"][-1]["ridge"]
    result["caps"] = caps(bench, capped, mean_moments(halves), ridge)
    result["others"] = other_texts(bench, halves, kept[ALL], ridge)
    result["widths"] = [len(rows) for rows in kept[ALL]]
    result["sequential"] = sequential(bench, kept[ALL])
    table.replace(result | {"seconds": round(time.process_time() - bench.start)})


if __name__ == "__main__":
    main()
