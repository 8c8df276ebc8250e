"""Time and memory of training the policy at 30 %, beside the released recipe.

    python benchmarks/policy_training.py [--threads 1] [--episodes 20]

writes `book/results/policy_training.json`.  All sides train on the 30 gate matrices of
the small real model, in one process and on the same cores, taking turns: each of our
trainings runs three times, with another seed each, between episodes of the others.
The released recipe is restated here as it was published (a copy of the model and of
every state in each episode, all three matrices sliced, a whole singular value
decomposition with vectors, one step a layer) and, as `values only`, without what its
result does not depend on.  Memory is the rise of the resident set above its value
before the training, each side three times in a process of its own, where the allocator
gives freed memory back at once.  About seven minutes on an idle core.

Not in pieces: what is measured is time and memory, which workers would change.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
from storing import Table, cpu, options_of
from streaming_memory import resident

from prunefair.models import load_model
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.policy_gradient import train_policy
from prunefair.pruning.released import (
    _released_step_,
    released_draw,
    released_loss,
    released_rewards,
    train_released,
)
from prunefair.pruning.row_policy import ReleasedScorer
from prunefair.pruning.spectrum import ks_distance, spectral_distance
from prunefair.pruning.surgery import row_matrices, slice_ffn_

RESULT = Path(__file__).parents[1] / "book" / "results" / "policy_training.json"
RATIO, SEED, DISCOUNT, DTYPE = 0.3, 0, 0.99, torch.float32
SIDES = ("this book", "this book, 12 episodes", "released", "released, values only")
OURS = {"this book": 6, "this book, 12 episodes": 12}
MALLOC = {  # of glibc: else what was freed before may be used again and hide the peak
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


def with_vectors(W):
    return torch.svd(W)[1]


def released_episodes(model, *, as_published: bool):
    """The released recipe on `model`, giving the mean KS distance of each episode."""
    spectrum = with_vectors if as_published else torch.linalg.svdvals
    generator = torch.Generator().manual_seed(SEED)
    matrices = row_matrices(model)
    m, n = matrices[0].shape
    scorer = ReleasedScorer(n, m, generator=generator)
    k, references = rows_to_keep(m, RATIO), [spectrum(W) for W in matrices]
    optimiser = torch.optim.AdamW(scorer.parameters(), lr=1e-3)
    while True:
        states, drawn = matrices, []
        if as_published:
            pruned = copy.deepcopy(model)
            states = [W.clone() for W in row_matrices(pruned)]
        for W in states:
            drawn.append(released_draw(scorer.scores(W), k, generator=generator))
        if as_published:
            sliced = row_matrices(slice_ffn_(pruned, drawn))
        else:
            sliced = (W[rows] for W, rows in zip(states, drawn))  # one at a time
        distances = [
            float(ks_distance(whole, spectrum(W)))
            for whole, W in zip(references, sliced)
        ]
        rewards = released_rewards(distances, DISCOUNT).tolist()
        for W, rows, reward in zip(states, drawn, rewards):
            loss = released_loss(scorer.scores(W), rows, reward, generator=generator)
            _released_step_(scorer, optimiser, loss)
            optimiser.zero_grad()
        yield sum(distances) / len(distances)


class Clock:
    """Seconds of the wall and of the processor, summed over its intervals."""

    def __init__(self):
        self.wall = self.cpu = 0.0

    def __enter__(self):
        self.start = time.perf_counter(), time.process_time()

    def __exit__(self, *_):
        self.wall += time.perf_counter() - self.start[0]
        self.cpu += time.process_time() - self.start[1]


def ours(model, episodes: int, seed: int = SEED):
    """One training of this book; the trained policy and its history."""
    generator = torch.Generator().manual_seed(seed)
    options = {"episodes": episodes, "dtype": DTYPE}
    return train_policy(row_matrices(model), RATIO, generator=generator, **options)


def entry(clock: Clock, preparation: Clock, runs: int, ks: list[float]) -> dict:
    """Table entry: seconds of a whole training, of its preparation and an episode."""
    whole = {"wall": clock.wall / runs, "cpu": clock.cpu / runs}
    before = {"wall": preparation.wall, "cpu": preparation.cpu}
    each = {key: (whole[key] - before[key]) / len(ks) for key in whole}
    parts = {"seconds": whole, "preparation": before, "episode": each}
    parts = {name: {k: round(v, 3) for k, v in p.items()} for name, p in parts.items()}
    return parts | {"episodes": len(ks), "ks": [round(x, 5) for x in ks]}


def top_distance(model, policy) -> float:
    """Mean KS distance of the rows of largest score."""
    matrices = row_matrices(model)
    k = rows_to_keep(len(matrices[0]), RATIO)
    top = [spectral_distance(W, policy.select(W, k), dtype=DTYPE) for W in matrices]
    return round(float(sum(top) / len(top)), 5)


def eigenvalue_share(model) -> float:
    """Share of the processor time of our training that computes eigenvalues."""
    inside, total, plain = Clock(), Clock(), torch.linalg.eigvalsh

    def timed(*arguments, **options):
        with inside:
            return plain(*arguments, **options)

    torch.linalg.eigvalsh = timed
    try:
        with total:
            ours(model, OURS["this book"])
    finally:
        torch.linalg.eigvalsh = plain
    return inside.cpu / total.cpu


def measure_time(model, episodes: int) -> dict:
    """All sides in turns; their times, distances and our profile."""
    clocks = {side: Clock() for side in SIDES}
    first = {side: Clock() for side in SIDES}
    recipes = {
        "released": released_episodes(model, as_published=True),
        "released, values only": released_episodes(model, as_published=False),
    }
    ks = {name: [] for name in recipes}
    ours(model, 1)  # warm
    trained = {side: [] for side in OURS}
    for turn in range(3):
        for side, length in OURS.items():
            with clocks[side]:
                trained[side].append(ours(model, length, SEED + turn))
            with first[side]:
                ours(model, 1)
        for name, recipe in recipes.items():
            for _ in range(turn * episodes // 3, (turn + 1) * episodes // 3):
                with clocks[name] if ks[name] else first[name]:
                    ks[name].append(next(recipe))
    table = {}
    for side in SIDES:
        clock, start, runs = clocks[side], first[side], 3
        if side in ks:  # the first episode holds the preparation
            clock.wall, clock.cpu = clock.wall + start.wall, clock.cpu + start.cpu
            runs, history = 1, ks[side]
        else:
            start.wall, start.cpu = start.wall / runs, start.cpu / runs
            history = trained[side][0].history
        rest = max(1, len(history) - 1)
        start.wall -= (clock.wall / runs - start.wall) / rest
        start.cpu -= (clock.cpu / runs - start.cpu) / rest
        table[side] = entry(clock, start, runs, history)
    for side, results in trained.items():
        table[side]["top_k_ks"] = [top_distance(model, r.policy) for r in results]
    table["this book"]["eigenvalue_share"] = round(eigenvalue_share(model), 3)
    return table


def measure_memory(side: str) -> int:
    """Bytes by which the resident set rises in two episodes of one side."""
    model = load_model("smollm2")
    for parameter in model.parameters():
        parameter.sum()  # a mapped page that was not read yet would count as ours
    train_policy(row_matrices(model)[:1], RATIO, generator=torch.Generator())  # warm
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = resident("VmRSS")
    if side == "this book":
        ours(model, 2)
    else:
        recipe = released_episodes(model, as_published=side == "released")
        next(recipe), next(recipe)
    return resident("VmHWM") - before


def check_restatement(model) -> None:
    """The recipe restated here has the history of the package's `train_released`."""
    recipe = released_episodes(model, as_published=True)
    restated = [next(recipe), next(recipe)]
    gaps = []
    for seed in (SEED, SEED + 1):  # another seed is the negative control
        generator = torch.Generator().manual_seed(seed)
        package = train_released(
            row_matrices(model), RATIO, generator=generator, episodes=2
        )
        gaps.append(max(abs(a - b) for a, b in zip(restated, package.history)))
    assert gaps[0] < 5e-5 < gaps[1], gaps


def main():
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--episodes", type=int, default=20, help="of the released one")
    parser.add_argument(
        "--part", nargs="+", help="one measurement, for a child process"
    )
    options = parser.parse_args()
    if options.part:
        kind, *argument = options.part
        torch.set_num_threads(options.threads[0])
        model = load_model("smollm2") if kind == "time" else None
        measured = (
            measure_memory(argument[0])
            if kind == "memory"
            else measure_time(model, options.episodes)
        )
        print(json.dumps(measured))
        return
    configuration = {
        "model": "smollm2",
        "ratio": RATIO,
        "seed": SEED,
        "episodes": options.episodes,
        "draws": 2,
        "spectra": "float32",
        "memory": "rise of VmHWM over VmRSS in two episodes, own process, 1 thread",
        "memory_environment": {"libc": platform.libc_ver()[0]} | MALLOC,
        "memory_runs": 3,
    }
    device = cpu(max(options.threads))
    table = Table(options.results, configuration, "torch", device=device)
    check_restatement(load_model("smollm2"))

    def child(*part, threads):
        command = [sys.executable, __file__, "--threads", str(threads)]
        command += ["--episodes", str(options.episodes), "--part", *part]
        environment = os.environ | (MALLOC if part[0] == "memory" else {})
        run = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
        return json.loads(run.stdout.splitlines()[-1])

    for side in ("this book", *SIDES[2:]):
        peaks = [child("memory", side, threads=1) for _ in range(3)]
        table.add(peaks, "peak_bytes", side)
    for threads in options.threads:
        table.add(child("time", threads=threads), "threads", str(threads))


if __name__ == "__main__":
    main()
