"""Pieces on one and on two workers: speed-up, overhead a piece, a thousand workers.

    python benchmarks/cluster.py [--results FILE]

plays a coupled policy on made-up streams, a piece for each fairness and seed, with
one worker and two of each engine, in turns; then pieces that do nothing, and tables of
ever more pieces.  What a thousand workers would take follows from these, for pieces are
given out and stored one by one.  Other work on the machine lengthens the seconds of the
wall clock, so that the processor time that the pieces got stands beside them.

Not in pieces itself: it times those that it gives to workers.
"""

from __future__ import annotations

import functools
import heapq
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from storing import Table, cpu, made, maker, options_of

from prunefair.cluster import run_pieces
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.ratings import synthetic_stream
from prunefair.fairness.simulation import simulate
from prunefair.fairness.utility import alpha_fair_utility

RESULT = Path(__file__).parents[1] / "book" / "results" / "cluster.json"
CONFIGURATION = {
    "alphas": [0.2, 0.5, 0.8, 0.9],
    "seeds": 4,
    "rounds": 20_000,
    "runs": [["processes", 1], ["processes", 2], ["dask", 1], ["dask", 2]],
    "repeats": 3,
    "empty_pieces": 400,
    "tables": [100, 1000, 10_000],  # pieces of one that is written
    "predicted": {"pieces": 10_000, "longer": [1, 100], "workers": [1, 10, 100, 1000]},
}


def played(alpha: float, seed: int) -> float:
    """Utility of a policy on a stream that its place draws."""
    stream = synthetic_stream(
        n_rounds=CONFIGURATION["rounds"], rng=np.random.default_rng([seed, 19])
    )
    policy = AlphaFairGradient(n_arms=stream.n_arms, alpha=alpha)
    return float(alpha_fair_utility(simulate(policy, stream).rewards[-1], alpha))


def pieces() -> list:
    made_by = functools.partial(maker, (), cpu)
    return [
        ((str(alpha), str(seed)), functools.partial(made, make, made_by))
        for alpha in CONFIGURATION["alphas"]
        for seed in range(CONFIGURATION["seeds"])
        for make in [functools.partial(played, alpha, seed)]
    ]


def timed(todo: list, backend: str, workers: int) -> tuple[dict, float, float]:
    """Results by place, seconds to the first of them, and from there to the last."""
    start, found, first = time.perf_counter(), {}, None
    for place, value in run_pieces(todo, backend=backend, workers=workers):
        found[place] = value
        first = first or time.perf_counter()
    return found, first - start, time.perf_counter() - first


def ran(backend: str, workers: int) -> dict:
    """Seconds of all pieces, but for those that the first ones took."""
    found, begun, seconds = timed(pieces(), backend, workers)
    used = [row[2] for row in found.values()]
    return {
        "values": {"/".join(place): found[place][0] for place, _ in pieces()},
        "processor": sum(used),
        "piece": used,
        "begun": begun,
        "wall": seconds,
        "share": sum(used[workers:]) / seconds,
    }


def nothing() -> None:
    """A piece without work."""


def overhead(backend: str, workers: int) -> float:
    """Seconds that the engine takes for a piece, from its first result on."""
    todo = [(n, nothing) for n in range(CONFIGURATION["empty_pieces"])]
    return timed(todo, backend, workers)[2] / len(todo)


def writing(count: int) -> float:
    """Seconds to add a piece to a table that holds so many."""
    with tempfile.TemporaryDirectory() as folder:
        table = Table(Path(folder) / "t.json", {}, device="")
        table["runs"] = {str(n): {"utility": n / 7} for n in range(count)}
        start = time.process_time()
        for n in range(5):
            table.add({"utility": n / 7}, "runs", f"{n} more")
        return (time.process_time() - start) / 5


def makespan(seconds, workers: int, each: float) -> float:
    """Time until the last piece ends, if giving out and storing one takes `each`."""
    free, clock, end = [0.0] * workers, 0.0, 0.0
    for piece in seconds:
        clock = max(clock + each, heapq.heappop(free))
        end = max(end, clock + piece)
        heapq.heappush(free, clock + piece)
    return end


def measure() -> dict:
    """All of it; the engines by turns, so that other work burdens them alike."""
    c, load = CONFIGURATION, os.getloadavg()[0]
    rows = {f"{b}, {w}": [] for b, w in c["runs"]}
    for _ in range(c["repeats"]):
        for backend, workers in c["runs"]:
            rows[f"{backend}, {workers}"].append(ran(backend, workers))
            print(
                backend, workers, rows[f"{backend}, {workers}"][-1]["wall"], flush=True
            )
    values = [row.pop("values") for run in rows.values() for row in run]
    used = [row.pop("piece") for row in rows["processes, 1"]]
    runs = {
        name: {
            key: round(median(r[key] for r in run), 3)
            for key in run[0]
            if key != "piece"
        }
        for name, run in rows.items()
    }
    each = {f"{b}, {w}": overhead(b, w) for b, w in c["runs"]}
    written = {str(n): writing(n) for n in c["tables"]}
    measured, rng = np.median(used, axis=0), np.random.default_rng(0)
    many = rng.choice(measured, c["predicted"]["pieces"])
    serial = each["dask, 2"] + written[str(c["predicted"]["pieces"])]
    predicted = {
        str(times): {
            str(w): round(makespan(times * many, w, serial), 1)
            for w in c["predicted"]["workers"]
        }
        for times in c["predicted"]["longer"]
    }
    return {
        "load": f"shared with other work: load average {load:.1f} on "
        f"{os.cpu_count()} processors at the start",
        "same_values": all(found == values[0] for found in values),
        "pieces": len(measured),
        "piece_seconds": [
            round(float(q), 3) for q in np.quantile(measured, [0, 0.5, 1])
        ],
        "runs": runs,
        "speed_up": {  # as the wall clock said, and if two cores were free
            b: {
                "measured": round(runs[f"{b}, 1"]["wall"] / runs[f"{b}, 2"]["wall"], 2),
                "undisturbed": round(
                    2 * runs[f"{b}, 1"]["processor"] / runs[f"{b}, 2"]["processor"], 2
                ),
            }
            for b in dict(c["runs"])
        },
        "overhead_seconds": {name: round(x, 5) for name, x in each.items()},
        "writing_seconds": {name: round(x, 5) for name, x in written.items()},
        "predicted_seconds": predicted,
        "busy_from_seconds": {
            str(w): round(w * serial, 2) for w in c["predicted"]["workers"]
        },
    }


def main() -> None:
    """Measure and store the table."""
    options = options_of(__doc__, RESULT).parse_args()
    packages = ("numpy", "joblib", "distributed")
    table = Table(options.results, CONFIGURATION, *packages, device=cpu(2))
    table.replace(measure())


if __name__ == "__main__":
    main()
