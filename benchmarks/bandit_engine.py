"""Rounds a second of the compiled engine beside the pure-Python policies.

    python benchmarks/bandit_engine.py

writes `book/results/bandit_engine.json` and prints it as a table: every policy on real
ratings, once by `simulate` and once by `run_fast` in the same process; a stream with
1000 arms, made and played in blocks; and many runs at once by `run_batch`.

Not in pieces: what is measured is time, which workers would lengthen.
"""

from __future__ import annotations

import os
import platform
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import numba
import numpy as np
from storing import Table, options_of

from prunefair.fairness.bandit_feedback import ScaleFreeBandit
from prunefair.fairness.baselines import POLICIES
from prunefair.fairness.fast.batch import run_batch
from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.movielens import policy_for
from prunefair.fairness.ratings import load_ratings, movielens_stream
from prunefair.fairness.simulation import RewardStream, simulate

RESULT = Path(__file__).parents[1] / "book" / "results" / "bandit_engine.json"
ALPHA, SEED = 0.9, 7
REQUIRED = {
    "full, alpha_fair": 2e6,
    "full, hedge": 8e6,
    "full, faircb": 15e3,
    "bandit, scale_free": 1e6,
    "bandit, faircb": 15e3,
}
REQUIRED_WIDE, REQUIRED_BATCH = 90e3, 1.5e6


def timed(play, repeats, at_least=0.0):
    """Least processor and wall-clock seconds of `play()`.

    It is called `repeats` times, and until `at_least` seconds of wall-clock have gone.
    """
    processor, wall = [], []
    while len(wall) < repeats or sum(wall) < at_least:
        start = time.thread_time(), time.perf_counter()
        play()
        processor.append(time.thread_time() - start[0])
        wall.append(time.perf_counter() - start[1])
    return min(processor), min(wall)


def judged(row, required):
    """`row` with the required speed and whether it was reached."""
    return row | {"required": required, "met": row["rounds_per_second"] >= required}


def on_ratings(stream, repeats):
    """Speeds of every policy by `simulate` and by `run_fast`."""
    table = {}
    for feedback, names in POLICIES.items():
        for name in names:
            short = stream.first(1000 if name == "faircb" else 10_000)

            def played(play, data=short, feedback=feedback, name=name):
                policy = policy_for(name, stream, ALPHA, feedback)
                return play(policy, data, rng=np.random.default_rng(SEED))

            first_call, _ = timed(partial(played, run_fast, stream.first(1)), 1)
            python, _ = timed(partial(played, simulate), repeats)
            fast, wall = timed(partial(played, run_fast, stream), repeats, 2.0)
            error = played(run_fast).rewards / played(simulate).rewards - 1
            row = {
                "rounds_per_second": round(stream.n_rounds / fast),
                "rounds_per_second_wall": round(stream.n_rounds / wall),
                "python_rounds": short.n_rounds,
                "python_rounds_per_second": round(short.n_rounds / python),
                "first_call_seconds": round(first_call, 2),
                "largest_relative_difference": float(np.abs(error).max()),
            }
            row["ratio"] = round(
                row["rounds_per_second"] / row["python_rounds_per_second"], 1
            )
            required = REQUIRED.get(f"{feedback}, {name}")
            table[f"{feedback}, {name}"] = judged(row, required) if required else row
            print(f"{feedback}, {name}: {table[f'{feedback}, {name}']}", flush=True)
    return table


def blocks(n_rounds, n_contexts, n_arms, size, *, rng):
    """A stream of 0.001 and 1 in blocks of `size` rounds, made when they are asked."""
    chance = rng.beta(0.5, 1.5, (n_contexts, n_arms))
    for low in range(0, n_rounds, size):
        contexts = rng.integers(n_contexts, size=min(size, n_rounds - low))
        on = rng.random((len(contexts), n_arms)) < chance[contexts]
        yield RewardStream(
            contexts=contexts,
            rewards=np.where(on, 1.0, 0.001),
            n_contexts=n_contexts,
        )


def many_arms(n_rounds, kinds, *, size=10_000, n_contexts=100, n_arms=1000):
    """Speeds with 1000 arms; only the playing is timed, not the making."""
    table = {}
    for kind in kinds:
        rng, policy = np.random.default_rng(SEED), kind(n_arms, ALPHA)
        seconds = np.zeros(2)
        for block in blocks(n_rounds, n_contexts, n_arms, size, rng=rng):
            play = partial(run_fast, policy, block, rng=rng, n_points=1)
            seconds += timed(play, 1)
        table[kind.__name__] = {
            "rounds": n_rounds,
            "rounds_per_second": round(n_rounds / seconds[0]),
            "rounds_per_second_wall": round(n_rounds / seconds[1]),
            "mean_support": float(
                np.mean([(s.point > 0).sum() for s in policy.learners.values()])
            ),
            "rewards_gigabytes": n_rounds * n_arms * 8 / 1e9,
            "peak_memory_gigabytes": round(
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2
            ),
        }
        print(f"{n_arms} arms, {kind.__name__}: {table[kind.__name__]}", flush=True)
    return table


def together(stream, repeats, n_rounds=10_000):
    """Run-rounds a second of `run_batch` by the number of runs."""
    table = {}
    for kind in (AlphaFairGradient, ScaleFreeBandit):
        rows = table.setdefault(kind.__name__, {})
        data = stream.first(n_rounds if kind is AlphaFairGradient else n_rounds // 8)
        for runs in (1, 16, 64, 256):

            def play(runs=runs, kind=kind, data=data):
                policies = [kind(stream.n_arms, ALPHA) for _ in range(runs)]
                rngs = np.random.default_rng(SEED).spawn(runs)
                return run_batch(policies, data, rngs=rngs, n_points=10)

            processor, wall = timed(play, repeats)
            count = runs * data.n_rounds
            row = {
                "rounds": data.n_rounds,
                "rounds_per_second": round(count / processor),
                "rounds_per_second_wall": round(count / wall),
            }
            wanted = runs == 256 and kind is AlphaFairGradient
            rows[str(runs)] = judged(row, REQUIRED_BATCH) if wanted else row
            print(f"{runs} runs, {kind.__name__}: {rows[str(runs)]}", flush=True)
    return table


def processor_name():
    """Name of the processor as the system gives it."""
    lines = Path("/proc/cpuinfo")
    if lines.exists():
        for line in lines.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def main():
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--wide-rounds", type=int, default=200_000)
    options = parser.parse_args()
    numba.config.CACHE_DIR = tempfile.mkdtemp()  # so that the first call compiles
    stream = movielens_stream(load_ratings())
    load = os.getloadavg()[0]
    configuration = {
        "stream": stream.source,
        "sizes": {
            "n_contexts": stream.n_contexts,
            "n_arms": stream.n_arms,
            "n_rounds": stream.n_rounds,
        },
        "alpha": ALPHA,
        "seed": SEED,
        "checkpoints": 200,
        "repeats": options.repeats,
        "wide_rounds": options.wide_rounds,
        "clock": "processor time of the one thread, with the checkpoints and "
        "unpacking the policy; wall-clock time beside it; best of the repeats, and "
        "of as many as fit into 2 seconds for run_fast",
    }
    packages, device = ("numpy", "numba", "llvmlite"), f"{processor_name()}, 1 thread"
    table = Table(options.results, configuration, *packages, device=device)
    policies = on_ratings(stream, options.repeats)
    wide = many_arms(options.wide_rounds, [AlphaFairGradient, ScaleFreeBandit])
    name = AlphaFairGradient.__name__
    wide[name] = judged(wide[name], REQUIRED_WIDE)
    pieces = {
        "machine": f"shared with other work: load average {load:.1f} on "
        f"{os.cpu_count()} processors at the start",
        "policies": policies,
        "many_arms": {"n_contexts": 100, "n_arms": 1000, "policies": wide},
        "batch": together(stream, options.repeats),
    }
    table.replace(pieces)
    print(f"{'policy':32}{'Python/s':>10}{'engine/s':>13}{'ratio':>8}  required")
    for key, row in table["policies"].items():
        need = f"{row['required']:.0f} {row['met']}" if "required" in row else ""
        python, fast = row["python_rounds_per_second"], row["rounds_per_second"]
        print(f"{key:32}{python:10d}{fast:13d}{row['ratio']:8.0f}  {need}")


if __name__ == "__main__":
    main()
