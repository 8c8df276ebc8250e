"""Learning curves of the row policies, with bands over seeds.

    python benchmarks/policy_learning_curves.py

writes `book/results/policy_learning_curves.json`: the mean KS distance of every episode
for the released recipe, the exact gradient with the paper's scorer and the exact
gradient with row features, on every third layer of the small real model over all seeds
and on all its layers over a few, beside random rows and deterministic selections.
About fifteen minutes on one core; a finished run is kept, so it resumes where it
stopped.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from storing import OncePerProcess, Table, cpu, in_pieces, options_of

from prunefair.models import load_model
from prunefair.pruning.anatomy import gate_matrices, rows_to_keep
from prunefair.pruning.policy_gradient import train_policy
from prunefair.pruning.released import train_released
from prunefair.pruning.row_policy import (
    FEATURES,
    ReleasedScorer,
    row_features,
    selected_rows,
)
from prunefair.pruning.spectrum import singular_values, spectral_distance

RESULT = Path(__file__).parents[1] / "book" / "results" / "policy_learning_curves.json"
RATIO, DTYPE = 0.3, torch.float32
EPISODES = {"released": 20, "exact": 12}
RATES = {"released": 1e-3, "exact, paper's scorer": 1e-3, "exact, row features": 0.3}
DRAWS = 2


def spectrum(W):
    return singular_values(W, dtype=DTYPE)


def scorer(matrices, generator):
    m, n = matrices[0].shape
    return ReleasedScorer(n, m, generator=generator, collapsed=True)


def released(matrices, generator):
    trained = train_released(
        matrices,
        RATIO,
        generator=generator,
        episodes=EPISODES["released"],
        learning_rate=RATES["released"],
        scorer=scorer(matrices, generator),
        spectrum=spectrum,
    )
    return trained, trained.policy


def exact(matrices, generator, name, policy=None):
    trained = train_policy(
        matrices,
        RATIO,
        generator=generator,
        episodes=EPISODES["exact"],
        draws=DRAWS,
        learning_rate=RATES[f"exact, {name}"],
        policy=policy,
        dtype=DTYPE,
    )
    return trained, trained.policy


def exact_released_scorer(matrices, generator):
    return exact(matrices, generator, "paper's scorer", scorer(matrices, generator))


def exact_row_features(matrices, generator):
    return exact(matrices, generator, "row features")


METHODS = {
    "released recipe": released,
    "exact gradient, paper's scorer": exact_released_scorer,
    "exact gradient, row features": exact_row_features,
}


def mean_distance(matrices, selections):
    distances = [
        spectral_distance(W, rows, dtype=DTYPE)
        for W, rows in zip(matrices, selections, strict=True)
    ]
    return float(sum(distances) / len(distances))


class Matrices(OncePerProcess):
    """Gate projections of all layers."""

    def __init__(self):
        self.all = [W.float() for W in gate_matrices(load_model("smollm2"))]


def run(method, matrices, every, seed):
    """Training by one method on every so many-th layer."""
    matrices = matrices.all[::every]
    generator = torch.Generator().manual_seed(seed)
    trained, policy = METHODS[method](matrices, generator)
    k = rows_to_keep(len(matrices[0]), RATIO)
    with torch.no_grad():
        kept = [selected_rows(policy.scores(W), k) for W in matrices]
        alpha = torch.stack([policy.scores(W) for W in matrices]).sigmoid()
    return {
        "ks": [round(x, 5) for x in trained.history],
        "top_k_ks": round(mean_distance(matrices, kept), 5),
        "alpha_above_0.99": round(float((alpha > 0.99).double().mean()), 5),
    }


def levels(matrices, seeds):
    """Distances without training: random rows, and top and bottom of each feature."""
    m = len(matrices[0])
    k = rows_to_keep(m, RATIO)
    random = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        rows = [torch.randperm(m, generator=generator)[:k] for _ in matrices]
        random.append(round(mean_distance(matrices, rows), 5))
    fixed = {}
    features = [row_features(W) for W in matrices]
    for column, name in enumerate(FEATURES[:3]):
        for sign, end in ((1, "largest"), (-1, "smallest")):
            rows = [selected_rows(sign * F[:, column], k) for F in features]
            fixed[f"{end} {name}"] = round(mean_distance(matrices, rows), 5)
    return {"random": random, "deterministic": fixed}


def main():
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--full-seeds", type=int, default=3)
    parser.add_argument("--every", type=int, default=3)
    options = in_pieces(parser)
    configuration = {"model": "smollm2", "ratio": RATIO, "every": options.every}
    configuration |= {"gram": str(DTYPE).removeprefix("torch."), "draws": DRAWS}
    configuration |= {"episodes": EPISODES, "learning_rate": RATES}
    table = Table(options.results, configuration, "torch", device=cpu)
    matrices, pieces = Matrices(), []
    parts = {"some layers": options.every, "all layers": 1}
    counts = {"some layers": options.seeds, "all layers": options.full_seeds}
    for part, every in parts.items():
        known = table.get("levels", {}).get(part, {"random": []})["random"]
        if len(known) < counts[part]:
            chosen = matrices.all[::every]
            table.add(levels(chosen, range(counts[part])), "levels", part)
        for seed in range(counts[part]):
            for method in METHODS:
                make = functools.partial(run, method, matrices, every, seed)
                pieces.append((("runs", part, method, str(seed)), make))
    table.fill(pieces, options, functools.partial(print, flush=True))


if __name__ == "__main__":
    main()
