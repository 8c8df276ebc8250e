"""CPU time and gap of our offline solver beside cvxpy with Clarabel, in one process.

    python benchmarks/offline_solver.py [RESULT]

Both get the same random reward sums, and both answers are certified by the same
function, so the gaps compare.  cvxpy is timed at its second solve, with new sums; it
compiles again only beyond `DPP_ENTRIES` sums; null where Clarabel found no optimum.
Times are CPU seconds of the process with one thread, which other load on the machine
stretches little.  Last, the optimum of the ratings after each of 200 numbers of rounds.

Not in pieces: what is measured is time, which workers would lengthen.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import numpy as np
from storing import Table, cpu, options_of

from prunefair.fairness.offline_optimum import (
    gap_unit,
    offline_problem,
    optimum_over_time,
    solve_offline,
)
from prunefair.fairness.ratings import load_ratings, movielens_stream
from prunefair.fairness.simulation import checkpoints

RESULT = Path(__file__).parents[1] / "book" / "results" / "offline_solver.json"
CONFIGURATION = {
    "sizes": [[75, 19], [1000, 10], [10, 1000], [100, 1000], [1000, 100]],
    "alphas": [0.5, 0.9, 2.0],
    "sums": "gamma, shape 0.5, mean 100 reward units",
    "rtol": 1e-9,
    "repeats": 5,
    "checkpoints": 200,
    "seed": 20233,
}


def timed(function, *arguments, **options):
    """CPU seconds and value of a call."""
    start = time.process_time()
    value = function(*arguments, **options)
    return time.process_time() - start, value


def relative(optimum, alpha: float) -> float:
    """Certified gap in the unit of `solve_offline`."""
    return optimum.gap / gap_unit(optimum.rewards, alpha)


def row(M: int, N: int, alpha: float, rng: np.random.Generator) -> dict:
    """Both solvers on one size."""
    rtol, repeats = CONFIGURATION["rtol"], CONFIGURATION["repeats"]
    first, G = rng.gamma(0.5, 200, (2, M, N))
    runs = [timed(solve_offline, G, alpha, rtol=rtol) for _ in range(repeats)]
    ours = runs[-1][1]
    found = {
        "contexts": M,
        "arms": N,
        "alpha": alpha,
        "seconds": statistics.median(seconds for seconds, _ in runs),
        "steps": ours.iterations,
        "gap": relative(ours, alpha),
        "utility": ours.utility,
    }
    problem = offline_problem(M, N, alpha)
    try:
        problem.optimum(first)  # compiles
        seconds, theirs = timed(problem.optimum, G)
    except RuntimeError:  # Clarabel found no optimum
        return found | dict.fromkeys(("cvxpy_seconds", "cvxpy_gap", "cvxpy_utility"))
    found["cvxpy_seconds"] = seconds
    found["cvxpy_gap"] = relative(theirs, alpha)
    found["cvxpy_utility"] = theirs.utility
    return found


def measure() -> dict:
    """All sizes, then the curve of the ratings."""
    rng = np.random.default_rng(CONFIGURATION["seed"])
    rows = []
    for M, N in CONFIGURATION["sizes"]:
        for alpha in CONFIGURATION["alphas"]:
            rows.append(row(M, N, alpha, rng))
            print(rows[-1], flush=True)
    stream = movielens_stream(load_ratings())
    rounds = checkpoints(stream.n_rounds, CONFIGURATION["checkpoints"])
    seconds, curve = timed(optimum_over_time, stream, 0.9, rounds)
    units = [gap_unit(R, 0.9) for R in curve.rewards]
    return {
        "rows": rows,
        "curve": {
            "checkpoints": len(rounds),
            "rounds": stream.n_rounds,
            "alpha": 0.9,
            "seconds": seconds,
            "gap": float((curve.gap / units).max()),
        },
    }


def main() -> None:
    """Measure and store the table."""
    options = options_of(__doc__, RESULT).parse_args()
    names = ("numpy", "scipy", "cvxpy", "clarabel")
    table = Table(options.results, CONFIGURATION, *names, device=cpu())
    table.replace(measure())


if __name__ == "__main__":
    main()
