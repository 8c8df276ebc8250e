"""Every policy on other streams of the same ratings: which verdicts stand there?

    python benchmarks/recut.py [--results FILE]

Six cuts of MovieLens: the book's own, its rounds in random orders, other users, users
with few ratings, half-years, and groups of users through all years.  A cut is ten
streams, or ten runs on one, of the book's own stream five; half-years are as many as
have five hundred ratings.  What all policies reach on each goes to
`book/results/recut.json`; a finished cut is kept.  About ten minutes on one core, most
of them for FairCB.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import numpy as np
from movielens_figures import Figures, plain
from storing import cpu, in_pieces, options_of

from prunefair.fairness.ratings import load_ratings
from prunefair.fairness.recut import ALPHAS, FLOORS, cuts, played, stored_runs

RESULT = Path(__file__).parents[1] / "book" / "results" / "recut.json"
CONFIGURATION = {
    "alpha": 0.9,
    "alphas": list(ALPHAS),
    "floors": list(FLOORS),
    "runs": 10,
    "seed": 20240930,
}


def measure(name: str, build) -> dict:
    """What all policies reach on the streams of one cut."""
    rng = np.random.default_rng([CONFIGURATION["seed"], *name.encode()])
    streams = build(rng)
    runs = [
        played(stream, CONFIGURATION["alpha"], rng=child)
        for stream, child in zip(streams, rng.spawn(len(streams)))
    ]
    return plain(stored_runs(runs))


def main() -> None:
    """Measure and store the table."""
    options = in_pieces(options_of(__doc__, RESULT))
    table = Figures(options.results, CONFIGURATION, "numpy", "numba", device=cpu())
    table.setdefault("parts", {})
    made = cuts(load_ratings(), CONFIGURATION["runs"])
    pieces = ((("parts", k), partial(measure, k, build)) for k, build in made.items())
    table.fill(pieces, options, print)


if __name__ == "__main__":
    main()
