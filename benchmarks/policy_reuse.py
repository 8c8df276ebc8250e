"""Train once, prune at every ratio: the paper's experiment on the whole small model.

    python benchmarks/policy_reuse.py

writes `book/results/policy_reuse.json`: policies trained at 10, 30 and 40 % with three
seeds each and used at 10 to 40 %, beside random rows; ratios of 0 to 40 % spread over
the layers, rising and falling; the top rows beside draws.  Each selection is judged by
its mean KS distance, the divergence from the dense model on text that it samples
itself, and the perplexity on the beginning of the test part of WikiText-2.  Less than
twenty minutes on one core; a finished selection is kept, so it resumes where it
stopped.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import torch
from storing import Table, cpu, options_of

from prunefair.models import load_model, load_tokenizer
from prunefair.pruning.estimates import standard_error
from prunefair.pruning.perplexity import (
    kl_per_position,
    perplexity,
    self_sample,
    wikitext_tokens,
)
from prunefair.pruning.policy_gradient import train_policy
from prunefair.pruning.row_policy import RowPolicy
from prunefair.pruning.spectral_pruning import rows_by_scores, spread_ratios
from prunefair.pruning.spectrum import RowSlices
from prunefair.pruning.surgery import prune_rows, row_matrices

RESULT = Path(__file__).parents[1] / "book" / "results" / "policy_reuse.json"
CONFIGURATION = {
    "model": "smollm2",
    "trained_at": [0.1, 0.3, 0.4],
    "used_at": [0.1, 0.2, 0.3, 0.4],
    "seeds": 3,
    "episodes": 12,
    "draws": 2,
    "spectra": "float32",
    "self_sampled_texts": [16, 64],
    "sample_seed": 20250128,
    "wikitext2_test_windows": 1,
    "window": 1024,
    "spread": [0.0, 0.4],
    "spread_trained_at": 0.3,
    "sampled_at": 0.3,
    "sampled_draws": 3,
}
DTYPE = torch.float32


class Remembered(torch.nn.Module):
    """The dense model, which answers the same texts each time and so only once."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.answers = model, model.config, {}
        self.device = model.device

    def forward(self, tokens, use_cache=False):
        key = tokens.numpy().tobytes()
        if key not in self.answers:
            self.answers[key] = self.model(tokens, use_cache=False).logits
        return SimpleNamespace(logits=self.answers[key])


class Experiment:
    """The model, its texts and the table that is filled."""

    def __init__(self, table: Table):
        self.table, c = table, CONFIGURATION
        self.model = load_model("smollm2")
        self.matrices = row_matrices(self.model)
        self.slices = [RowSlices(W, dtype=DTYPE) for W in self.matrices]
        self.equal = [torch.zeros(len(W)) for W in self.matrices]
        generator = torch.Generator().manual_seed(c["sample_seed"])
        shape = c["self_sampled_texts"]
        self.texts = self_sample(self.model, *shape, generator=generator)
        self.dense = Remembered(self.model)
        length = c["window"] * c["wikitext2_test_windows"]
        self.wikitext = wikitext_tokens(load_tokenizer("smollm2"))[:length]

    def scores(self, ratio: float, seed: int) -> list[torch.Tensor]:
        """Scores of the policy trained at `ratio`, trained now unless it is stored."""
        place = "policies", f"{ratio} seed {seed}"
        if not self.table.has(*place):
            trained = train_policy(
                self.matrices,
                ratio,
                episodes=CONFIGURATION["episodes"],
                draws=CONFIGURATION["draws"],
                generator=torch.Generator().manual_seed(seed),
                dtype=DTYPE,
            )
            weights = trained.policy.weights.tolist()
            history = [round(x, 5) for x in trained.history]
            self.table.add({"weights": weights, "ks": history}, *place)
        weights = self.table[place[0]][place[1]]["weights"]
        policy = RowPolicy(torch.tensor(weights))
        return [policy.scores(W).detach() for W in self.matrices]

    def judge(self, kept) -> dict:
        """What keeping these rows costs."""
        distances = [s.distance(r) for s, r in zip(self.slices, kept, strict=True)]
        smaller = prune_rows(self.model, kept)
        kl = kl_per_position(self.dense, smaller, self.texts).mean(1).numpy()
        window = CONFIGURATION["window"]
        nats = math.log(perplexity(smaller, self.wikitext, window=window))
        return {
            "ks": round(float(sum(distances) / len(distances)), 5),
            "kl": round(float(kl.mean()), 4),
            "kl_standard_error": round(standard_error(kl), 4),
            "log_perplexity": round(nats, 4),
        }

    def record(self, name: str, scores, ratio, *, draw: int | None = None) -> None:
        """Judge one selection, unless the table has it already."""
        if not self.table.has("runs", name):
            noise = None if draw is None else torch.Generator().manual_seed(draw)
            kept = rows_by_scores(scores, ratio, generator=noise)
            self.table.add(self.judge(kept), "runs", name)


def run(table: Table) -> None:
    """All selections of the configuration."""
    c, e = CONFIGURATION, Experiment(table)
    rising = spread_ratios(len(e.matrices), *c["spread"])
    plans = {"rising": rising, "falling": rising[::-1]}
    if not table.has("dense_log_perplexity"):
        nats = math.log(perplexity(e.model, e.wikitext, window=c["window"]))
        table.add(round(nats, 4), "dense_log_perplexity")
    for seed in range(c["seeds"]):
        for ratio in c["used_at"]:
            e.record(f"random / {seed} / {ratio}", e.equal, ratio, draw=seed)
        for plan, ratios in plans.items():
            e.record(f"random / {seed} / {plan}", e.equal, ratios, draw=seed)
        for trained_at in c["trained_at"]:
            scores = e.scores(trained_at, seed)
            for ratio in c["used_at"]:
                e.record(f"{trained_at} / {seed} / {ratio}", scores, ratio)
            if trained_at == c["spread_trained_at"]:
                for plan, ratios in plans.items():
                    e.record(f"{trained_at} / {seed} / {plan}", scores, ratios)
            if trained_at == c["sampled_at"]:
                for draw in range(c["sampled_draws"]):
                    name = f"{trained_at} / {seed} / draw {draw}"
                    e.record(name, scores, trained_at, draw=draw)


def main():
    options = options_of(__doc__, RESULT).parse_args()
    device = cpu(torch.get_num_threads())
    run(Table(options.results, CONFIGURATION, "torch", device=device))


if __name__ == "__main__":
    main()
