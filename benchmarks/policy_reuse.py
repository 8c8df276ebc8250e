"""Train once, prune at every ratio: the paper's experiment on the whole small model.

    python benchmarks/policy_reuse.py

writes `book/results/policy_reuse.json`: policies trained at 10, 30 and 40 % with three
seeds each and used at 10 to 40 %, beside random rows; ratios of 0 to 40 % spread over
the layers, rising and falling; the top rows beside draws.  Each selection is judged by
its mean KS distance, the divergence from the dense model on text that it samples
itself, and the perplexity on the beginning of the test part of WikiText-2.  A policy is
a piece, and so is a selection, once the policies are there.  Less than twenty minutes
on one core.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from storing import (
    THEN,
    OncePerProcess,
    Table,
    cpu,
    in_pieces,
    made_once,
    options_of,
)

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

    def get_input_embeddings(self):
        return self.model.get_input_embeddings()

    def forward(self, tokens, use_cache=False):
        key = tokens.numpy().tobytes()
        if key not in self.answers:
            self.answers[key] = self.model(tokens, use_cache=False).logits
        return SimpleNamespace(logits=self.answers[key])


class Experiment(OncePerProcess):
    """The model, and the texts by which its selections are judged."""

    def __init__(self):
        c = CONFIGURATION
        self.model = load_model("smollm2")
        self.matrices = row_matrices(self.model)
        self.slices = [RowSlices(W, dtype=DTYPE) for W in self.matrices]
        generator = torch.Generator().manual_seed(c["sample_seed"])
        shape = c["self_sampled_texts"]
        self.texts = self_sample(self.model, *shape, generator=generator)
        self.dense = Remembered(self.model)
        length = c["window"] * c["wikitext2_test_windows"]
        self.wikitext = wikitext_tokens(load_tokenizer("smollm2"))[:length]

    def policy(self, ratio: float, seed: int) -> dict:
        """The policy trained at `ratio`."""
        trained = train_policy(
            self.matrices,
            ratio,
            episodes=CONFIGURATION["episodes"],
            draws=CONFIGURATION["draws"],
            generator=torch.Generator().manual_seed(seed),
            dtype=DTYPE,
        )
        history = [round(x, 5) for x in trained.history]
        return {"weights": trained.policy.weights.tolist(), "ks": history}

    def scores(self, weights) -> list[torch.Tensor]:
        """Scores of a policy, or equal ones."""
        if weights is None:
            return [torch.zeros(len(W)) for W in self.matrices]
        policy = RowPolicy(torch.tensor(weights))
        return [policy.scores(W).detach() for W in self.matrices]

    def dense_log_perplexity(self) -> float:
        window = CONFIGURATION["window"]
        return round(math.log(perplexity(self.model, self.wikitext, window=window)), 4)

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

    def run(self, weights, ratio, draw: int | None = None) -> dict:
        """One selection by a policy, or at random, and what it costs."""
        noise = None if draw is None else torch.Generator().manual_seed(draw)
        return self.judge(rows_by_scores(self.scores(weights), ratio, generator=noise))


def pieces(e: Experiment, table: Table):
    """Place of every piece of the configuration, and what makes it."""
    c = CONFIGURATION
    rising = spread_ratios(len(e.matrices), *c["spread"])
    plans = {"rising": rising, "falling": rising[::-1]}
    ratios = {str(ratio): ratio for ratio in c["used_at"]}
    yield ("dense_log_perplexity",), e.dense_log_perplexity
    for seed in range(c["seeds"]):
        for ratio in c["trained_at"]:
            yield ("policies", f"{ratio} seed {seed}"), partial(e.policy, ratio, seed)
    yield THEN
    for seed in range(c["seeds"]):
        for name, ratio in (ratios | plans).items():
            place = "runs", f"random / {seed} / {name}"
            yield place, partial(e.run, None, ratio, seed)
        for at in c["trained_at"]:
            weights = table["policies"][f"{at} seed {seed}"]["weights"]
            spread = plans if at == c["spread_trained_at"] else {}
            for name, ratio in (ratios | spread).items():
                yield (
                    ("runs", f"{at} / {seed} / {name}"),
                    partial(e.run, weights, ratio),
                )
            for draw in range(c["sampled_draws"] if at == c["sampled_at"] else 0):
                place = "runs", f"{at} / {seed} / draw {draw}"
                yield place, partial(e.run, weights, at, draw)


def main():
    options = in_pieces(options_of(__doc__, RESULT))
    table = Table(options.results, CONFIGURATION, "torch", device=cpu())
    table.fill(pieces(made_once(Experiment), table), options, print)


if __name__ == "__main__":
    main()
