"""Seconds and memory of `prunefair bandits` on millions of ratings.

    python benchmarks/many_ratings.py [--results FILE] [--only PLACE]

makes up ratings in the layout and the number of those of ml-25m and ml-32m, sorted by
user as the publisher's are, and plays the coupled policy on those of the most active
users, and on those of all, each in a process of its own.  Needs 3 GB of disk, which it
gives back.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from storing import Table, cpu, in_pieces, options_of

from prunefair.fairness.ratings import MOVIE_COLUMNS, RATING_COLUMNS
from prunefair.publishers import FILES

RESULT = Path(__file__).parents[1] / "book" / "results" / "many_ratings.json"
CONFIGURATION = {
    "users": {"ml-25m": 162_541, "ml-32m": 200_948},
    "played": [
        "ml-32m csv",
        "ml-25m csv",
        "ml-32m parquet",
        "ml-32m whole",
        "ml-32m all",
    ],
    "policies": "alpha_fair",
    "fewest": 20,  # ratings of a user
    "activity": 0.45,  # exponent of the law of the others
    "rows_at_once": 1 << 20,
    "seed": 32,
}
GENRES = re.findall(
    r"\S+",
    "Action Adventure Animation Children Comedy Crime Documentary Drama Fantasy "
    "Film-Noir Horror IMAX Musical Mystery Romance Sci-Fi Thriller War Western",
)
BEFORE = """\
import atexit, re, sys, time
from pathlib import Path

def peak():  # of the child alone; what the kernel says of it begins with its parent's
    status = Path("/proc/self/status").read_text()
    kilobytes = re.findall(r"VmHWM:\\s+(\\d+)", status)
    print(time.process_time(), *kilobytes, file=sys.stderr)

atexit.register(peak)
"""
COMMAND = BEFORE + "from prunefair.cli import main; main(sys.argv[1:])"
WHOLE = (
    BEFORE + "from prunefair.fairness.ratings import load_ratings; "
    "load_ratings(sys.argv[-2], dataset=sys.argv[-1])"
)


def write_movies(path: Path, n_movies: int, rng: np.random.Generator) -> None:
    """Movies with up to four genres, as many as the data set has."""
    lines = [",".join(MOVIE_COLUMNS)]
    for movie in range(1, n_movies + 1):
        genres = sorted(rng.choice(GENRES, rng.integers(0, 5), replace=False))
        named = "|".join(genres) or "(no genres listed)"
        lines.append(f'{movie},"Film, the {movie}th (2001)",{named}')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def rating_tables(dataset: str, rng: np.random.Generator):
    """Ratings in blocks: users in order, each at a time of its own."""
    import pyarrow

    c, size = CONFIGURATION, CONFIGURATION["rows_at_once"]
    rows, movies = (FILES[f"{dataset}/{n}.csv"].rows for n in ("ratings", "movies"))
    share = 1 / np.arange(1, c["users"][dataset] + 1) ** c["activity"]
    free = rows - c["fewest"] * len(share)
    counts = c["fewest"] + (free * share / share.sum()).astype(np.int64)
    counts[0] += rows - counts.sum()
    users = np.repeat(np.arange(1, len(share) + 1), rng.permutation(counts))
    for first in range(0, rows, size):
        user = users[first : first + size]
        n = len(user)
        movie = 1 + (movies * rng.random(n) ** 3).astype(np.int64)
        begun = 789_652_009 + user * 7919 % 800_000_000
        columns = (
            user,
            np.minimum(movie, movies),
            rng.integers(1, 11, n) / 2,
            begun + rng.integers(0, 30_000_000, n),
        )
        yield pyarrow.table(dict(zip(RATING_COLUMNS, columns, strict=True)))


def write_ratings(path: Path, tables) -> None:
    """One file of all tables, CSV as the publisher writes it, or Parquet."""
    import pyarrow.csv
    import pyarrow.parquet

    if path.suffix == ".csv":
        options = pyarrow.csv.WriteOptions(include_header=False)
        with open(path, "wb") as file:
            file.write(",".join(RATING_COLUMNS).encode() + b"\n")
            for table in tables:
                pyarrow.csv.write_csv(table, file, options)
        return
    first = next(tables)
    with pyarrow.parquet.ParquetWriter(path, first.schema) as file:
        file.write_table(first)
        for table in tables:
            file.write_table(table)


def played(dataset: str, kind: str) -> dict:
    """Seconds and peak memory of one command, or of reading all ratings at once."""
    rng = np.random.default_rng(CONFIGURATION["seed"])
    with tempfile.TemporaryDirectory() as folder:
        n_movies = FILES[f"{dataset}/movies.csv"].rows
        write_movies(Path(folder) / "movies.csv", n_movies, rng)
        suffix = "parquet" if kind == "parquet" else "csv"
        path = Path(folder) / f"ratings.{suffix}"
        write_ratings(path, rating_tables(dataset, rng))
        command = [COMMAND, "bandits", "--policies", CONFIGURATION["policies"]]
        command += ["--json", "--dataset", dataset, "--data", folder]
        if kind == "all":
            command += ["--users", "0"]
        if kind == "whole":
            command = [WHOLE, folder, dataset]
        start, pipe = time.perf_counter(), subprocess.PIPE
        child = subprocess.Popen(
            [sys.executable, "-c", *command],
            **{"stdout": pipe, "stderr": pipe},
        )
        said, errors = (text.decode() for text in child.communicate())
        wall = time.perf_counter() - start
        assert child.returncode == 0, errors
        return {
            "rows": FILES[f"{dataset}/ratings.csv"].rows,
            "file_bytes": path.stat().st_size,
            "processor_seconds": round(float(errors.split()[-2]), 1),
            "wall_seconds": round(wall, 1),
            "peak_bytes": 1024 * int(errors.split()[-1]),
            "rounds": json.loads(said)["T"] if said else None,
        }


def pieces():
    """Place in the table of every piece, and the function that fills it."""
    for name in CONFIGURATION["played"]:
        yield ("played", name), functools.partial(played, *name.split())


def main() -> None:
    """Measure what the table lacks."""
    options = in_pieces(options_of(__doc__, RESULT))
    packages = ("numpy", "numba", "pyarrow", "scipy")
    table = Table(options.results, CONFIGURATION, *packages, device=cpu)
    table.fill(pieces(), options, functools.partial(print, flush=True))


if __name__ == "__main__":
    main()
