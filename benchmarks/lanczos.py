"""Error and time of the spectral distance by quadrature, beside exact eigenvalues.

    python benchmarks/lanczos.py [PART ...]

writes `book/results/lanczos.json`: the error over a grid of probes and steps on real
gate matrices (576 columns) and on one random matrix in the shape of LLaMA-2-7B's gate
(4096 columns, spectrum shaped like trained ones), beside what the policy must see; the
time of both on the CPU; and training with each on every third layer of the small model.
About eight minutes on one core; with names of parts (`n_576`, `n_4096`, `training`)
only these are measured anew.

Not in pieces: times are measured, and the parts draw from one generator in turn.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from pathlib import Path

import torch
from storing import Table, cpu, options_of

from prunefair.models import load_model
from prunefair.pruning.anatomy import gate_matrices, rows_to_keep
from prunefair.pruning.lanczos import (
    LanczosSlices,
    orthonormal_probes,
    quadrature_distance,
)
from prunefair.pruning.llama2_7b import shaped_matrix
from prunefair.pruning.policy_gradient import train_policy
from prunefair.pruning.row_policy import row_features, selected_rows
from prunefair.pruning.spectrum import (
    RowSlices,
    ks_distance,
    row_mask,
    uniform_selections,
)

RESULT = Path(__file__).parents[1] / "book" / "results" / "lanczos.json"
CONFIGURATION = {
    "ratio": 0.3,
    "layers": [0, 5, 10, 15, 20, 25],
    "random_selections": {"576": 6, "4096": 3},
    "probes": [8, 16, 32, 64],
    "steps": [8, 16, 24],
    "grid_4096": [[8, 24], [16, 24], [32, 24], [64, 24], [32, 8]],
    "probe_seeds": {"576": [1, 2], "4096": [1]},
    "training_layers": list(range(0, 30, 3)),
    "training_seeds": [1, 2, 3, 4],
    "training_rules": {
        "exact": None,
        "32 probes, 8 steps": [32, 8],
        "32 probes, 24 steps": [32, 24],
    },
    "seed": 20250128,
}


def timed(work):
    """What `work` returns, and the seconds of the processor it took."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def judged(W, draws, generator):
    """A matrix, and Gram matrices and distances of slices: random, then the best."""
    m = len(W)
    k = rows_to_keep(m, CONFIGURATION["ratio"])
    features = row_features(W)
    best = [selected_rows(features[:, column], k) for column in range(2)]
    random = uniform_selections(m, k, draws, generator=generator)
    slices = RowSlices(W, dtype=torch.float32)
    slices.gram, slices.values  # noqa: B018  (prepared once for a matrix)
    masks = row_mask(torch.cat([random, torch.stack(best)]), m)

    def downdates():
        removed = [W[~mask] / slices.power.float() for mask in masks]
        return torch.stack([slices.gram - R.T @ R for R in removed])

    def distances():
        eigenvalues = torch.linalg.eigvalsh(grams).clamp(min=0)
        return ks_distance(slices.values, eigenvalues.sqrt() * slices.power)

    grams, downdate = timed(downdates)
    exact, eigenvalues = timed(distances)
    seconds = {"downdate": downdate, "eigenvalues": eigenvalues}
    seconds = {part: s / len(masks) for part, s in seconds.items()}
    print(W.shape, exact.tolist(), seconds, flush=True)
    return {"slices": slices, "grams": grams, "exact": exact, "seconds": seconds}


def signals(cases):
    """What the policy must see: spread of random rows, and their gap to the best."""
    spread = [float(case["exact"][:-2].std()) for case in cases]
    means = [float(case["exact"][:-2].mean()) for case in cases]
    gaps = [mean - float(case["exact"][-2:].min()) for mean, case in zip(means, cases)]
    return {
        "random_mean": statistics.mean(means),
        "random_deviation": statistics.mean(s**2 for s in spread) ** 0.5,
        "gap_to_best_feature": statistics.mean(gaps),
    }


def errors(cases, probes, steps):
    """Errors of distances, and of their differences in a layer, and seconds."""
    every, among_random, gaps, seconds = [], [], [], []
    n = cases[0]["slices"].W.shape[1]
    for seed in CONFIGURATION["probe_seeds"][str(n)]:
        generator = torch.Generator().manual_seed(seed)
        v = orthonormal_probes(n, probes, generator=generator)
        for case in cases:
            slices = LanczosSlices(case["slices"], probes=v, steps=steps)
            found, s = timed(
                lambda c=case, sl=slices: quadrature_distance(sl, c["grams"])
            )
            seconds.append(s / len(found))
            error = found - case["exact"]
            every.append(error)
            among_random.append(error[:-2].var())
            gaps.append(error[:-2].mean() - error[-2:])
    every, gaps = torch.cat(every), torch.cat(gaps)
    row = {
        "probes": probes,
        "steps": steps,
        "rms": float(every.square().mean().sqrt()),
        "bias": float(every.mean()),
        "among_random": float(torch.stack(among_random).mean().sqrt()),
        "gap": float(gaps.square().mean().sqrt()),
        "seconds": statistics.median(seconds),
    }
    print(row, flush=True)
    return row


def study(cases, grid):
    """Errors over the grid beside the signals and the exact time."""
    return {
        "shape": list(cases[0]["slices"].W.shape),
        "signals": signals(cases),
        "seconds": {
            part: statistics.median(case["seconds"][part] for case in cases)
            for part in ("downdate", "eigenvalues")
        },
        "errors": [errors(cases, probes, steps) for probes, steps in grid],
    }


def distances_by(prepared):
    """What a selection is charged with, by prepared spectra."""
    return lambda matrix: prepared(matrix).distance


def prepared_by(rule, n, generator):
    """What prepares a matrix: exact, or by so many probes and steps."""
    if rule is None:
        return partial(RowSlices, dtype=torch.float32)
    v = orthonormal_probes(n, rule[0], generator=generator)
    return partial(LanczosSlices, probes=v, steps=rule[1])


def training(matrices):
    """Training by exact spectra and by quadrature, judged by exact ones."""
    ratio, table = CONFIGURATION["ratio"], {}
    k = rows_to_keep(len(matrices[0]), ratio)
    references = [RowSlices(W, dtype=torch.float32) for W in matrices]
    for name, rule in CONFIGURATION["training_rules"].items():
        table[name] = []
        for seed in CONFIGURATION["training_seeds"]:
            generator = torch.Generator().manual_seed(seed)
            spectra = prepared_by(rule, matrices[0].shape[1], generator)
            trained, seconds = timed(
                lambda g=generator, s=spectra: train_policy(
                    matrices, ratio, generator=g, penalty=distances_by(s)
                )
            )
            kept = [trained.policy.select(W, k) for W in matrices]
            top = [float(r.distance(rows)) for r, rows in zip(references, kept)]
            table[name].append(
                {
                    "seed": seed,
                    "first": trained.history[0],
                    "last": trained.history[-1],
                    "top_k_exact": sum(top) / len(top),
                    "seconds": seconds,
                }
            )
            print(name, table[name][-1], flush=True)
    return table


def small_study(matrices, generator):
    """Errors on real gate matrices."""
    draws = CONFIGURATION["random_selections"]["576"]
    cases = [judged(matrices[i], draws, generator) for i in CONFIGURATION["layers"]]
    grid = [(b, s) for b in CONFIGURATION["probes"] for s in CONFIGURATION["steps"]]
    return study(cases, grid)


def wide_study(generator):
    """Errors on one matrix of the shape of LLaMA-2-7B's gate."""
    wide = shaped_matrix(11008, 4096, generator=generator)
    draws = CONFIGURATION["random_selections"]["4096"]
    return study([judged(wide, draws, generator)], CONFIGURATION["grid_4096"])


def main() -> None:
    """All parts or the named ones, each stored as soon as it is done."""
    parser = options_of(__doc__, RESULT)
    parser.add_argument("parts", nargs="*", help="all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(options.results, CONFIGURATION, "torch", device=cpu())
    generator = torch.Generator().manual_seed(CONFIGURATION["seed"])
    matrices = [W.float() for W in gate_matrices(load_model("smollm2"))]
    few = [matrices[i] for i in CONFIGURATION["training_layers"]]
    work = {
        "n_576": lambda: small_study(matrices, generator),
        "n_4096": lambda: wide_study(generator),
        "training": lambda: training(few),
    }
    for part in options.parts or work:
        table.add(work[part](), part)


if __name__ == "__main__":
    main()
