"""MovieLens streams that no memory holds: rounds on disk, sorted there, in blocks."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from prunefair.fairness.offline_optimum import (
    OfflineOptimum,
    reward_sums,
    solve_offline,
)
from prunefair.fairness.policy import check_count
from prunefair.fairness.ratings import (
    Fault,
    activity_ranks,
    check_reading,
    check_small_reward,
    listed_movies,
    most_active,
    raise_faults,
    rating_rows,
    ratings_files,
)
from prunefair.fairness.simulation import RewardStream

ROUNDS_AT_ONCE = 1 << 17  # of a block, in memory with the rewards of all arms
ROWS_AT_ONCE = 1 << 20  # that are sorted in memory
BINS = 1 << 12  # of time, by which rows are parted that are too many to sort
ROW = np.dtype([("time", "<i8"), ("user", "<i8"), ("movie", "<i4")])
ROUND = np.dtype([("context", "<i4"), ("movie", "<i4")])


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockStream:
    """A stream whose rounds lie on disk; iterating gives them in blocks, each time.

    `run_fast` and `prunefair.play` take it in the place of a `RewardStream`.  Its file
    goes when the last stream of it does.

    Parameters
    ----------
    path : pathlib.Path
        The rounds, of kind `ROUND`.
    rewards_of : ndarray, shape (K, N), float64
        Rewards of all arms in a round of each of K movies, reward units.
    n_rounds, n_contexts : int
        $T$ and $M$.
    arm_names : tuple of str
        Names of the $N$ arms.
    source : str
        Where the rounds come from.
    size : int
        Rounds of a block at most.
    folder : object
        Whoever removes the file, when it is gone itself.
    """

    path: Path
    rewards_of: np.ndarray
    n_rounds: int
    n_contexts: int
    arm_names: tuple[str, ...]
    source: str = ""
    size: int = ROUNDS_AT_ONCE
    folder: object = field(default=None, repr=False)

    @property
    def n_arms(self) -> int:
        """Number of arms $N$."""
        return self.rewards_of.shape[1]

    def first(self, n_rounds: int) -> BlockStream:
        """The stream of the first `n_rounds` rounds, of all if there are fewer."""
        n = check_count(n_rounds, "n_rounds", least=0)
        return replace(self, n_rounds=min(n, self.n_rounds))

    def __iter__(self) -> Iterator[RewardStream]:
        for block in file_blocks(self.path, ROUND, self.size, self.n_rounds):
            yield RewardStream(
                contexts=block["context"],
                rewards=self.rewards_of[block["movie"]],
                n_contexts=self.n_contexts,
                arm_names=self.arm_names,
                source=self.source,
            )

    def optimum(self, alpha: float) -> OfflineOptimum:
        """Certified best fixed map of the whole stream."""
        G = np.zeros((self.n_contexts, self.n_arms))
        for block in self:
            seen, place = np.unique(block.contexts, return_inverse=True)
            G[seen] += reward_sums(place, block.rewards, len(seen))
        return solve_offline(G, alpha)


def file_blocks(
    path: Path, kind: np.dtype, size: int, n_rows: int | None = None
) -> Iterator[np.ndarray]:
    """Rows of a file in blocks.

    Parameters
    ----------
    path : pathlib.Path
    kind : numpy.dtype
        Of a row.
    size : int
        Rows of a block at most.
    n_rows : int, optional
        Only the first so many.
    """
    n_rows = path.stat().st_size // kind.itemsize if n_rows is None else n_rows
    for low in range(0, n_rows, size):
        count = min(size, n_rows - low)
        yield np.fromfile(path, kind, count, offset=low * kind.itemsize)


def sorted_blocks(path: Path, size: int) -> Iterator[np.ndarray]:
    """Rows of a file in the order of their time, equal ones as they stood.

    Where there are more than `size` they are parted by time into files of their own,
    each of which is sorted in its turn.

    Parameters
    ----------
    path : pathlib.Path
        Rows of kind `ROW`; the file is removed.
    size : int
        Rows in memory at most.
    """
    n_rows = path.stat().st_size // ROW.itemsize
    spans = [(b["time"].min(), b["time"].max()) for b in file_blocks(path, ROW, size)]
    low, high = (
        (min(s[0] for s in spans), max(s[1] for s in spans)) if spans else (0, 0)
    )
    if n_rows <= size or low == high:
        for rows in file_blocks(path, ROW, size):
            yield rows[np.argsort(rows["time"], kind="stable")]
        path.unlink()
        return
    width = np.uint64((int(high) - int(low)) // BINS + 1)
    counts = np.zeros(BINS, np.int64)
    for rows in file_blocks(path, ROW, size):
        counts += np.bincount(_bins(rows, low, width), minlength=BINS)
    part_of, parts = _parts(counts, size), []
    for rows in file_blocks(path, ROW, size):
        part = part_of[_bins(rows, low, width)]
        order = np.argsort(part, kind="stable")
        names, first = np.unique(part[order], return_index=True)
        for name, found in zip(names.tolist(), np.split(rows[order], first[1:])):
            parts.append(name)
            with open(f"{path}.{name}", "ab") as file:
                found.tofile(file)
    path.unlink()
    for name in sorted(set(parts)):
        yield from sorted_blocks(Path(f"{path}.{name}"), size)


def _bins(rows: np.ndarray, low: int, width: np.uint64) -> np.ndarray:
    """Number of the bin of time of each row; differences wrap, and are never negative."""
    since = (rows["time"] - low).view(np.uint64)
    return (since // width).astype(np.int64)


def _parts(counts: np.ndarray, size: int) -> np.ndarray:
    """Number of the part of each bin: neighbours, together `size` rows if they can."""
    part, held, found = 0, 0, []
    for count in counts.tolist():
        if held and held + count > size:
            part, held = part + 1, 0
        held += count
        found.append(part)
    return np.array(found)


def movielens_blocks(
    folder: str | os.PathLike | None = None,
    *,
    dataset: str = "ml-latest-small",
    malformed: str = "raise",
    small_reward: float = 1e-3,
    scratch: str | os.PathLike | None = None,
) -> BlockStream:
    r"""The stream of all users, as `movielens_stream` gives it, with rounds on disk.

    Memory holds a block of lines or of rounds, and what is counted of each user; the
    disk holds at most 40 bytes for each rating while they are sorted, 8 afterwards.

    Parameters
    ----------
    folder : path, optional
        Where the ratings are, as for `load_ratings`.
    dataset : {"ml-latest-small", "ml-25m", "ml-32m"}
        Which data set.
    malformed : {"raise", "drop"}
        Whether a malformed row is an error or is left out.
    small_reward : float
        Reward of a genre that the rated movie has not; 1 if it has.
    scratch : path, optional
        Folder for the rounds, by default that of temporary files.

    Returns
    -------
    stream : BlockStream
        In the order of the timestamps, equal ones in the order of the file; the most
        active user is context 0.

    Raises
    ------
    ValueError
        As `load_ratings` and `movielens_stream`.
    FileNotFoundError
        If a file is missing.
    """
    check_reading(dataset, malformed)
    check_small_reward(small_reward)
    ratings_file, movies_file = ratings_files(folder, dataset)
    faults: list[Fault] = []
    index, genres, table = listed_movies(movies_file, faults)
    labelled, total, n_rows = table.any(1), Counter(), 0
    held = tempfile.TemporaryDirectory(prefix="prunefair-rounds-", dir=scratch)
    rows_path, path = Path(held.name) / "rows", Path(held.name) / "rounds"
    with open(rows_path, "wb") as file:
        for block in rating_rows(ratings_file, index, faults):
            n_rows += len(block)
            block = block[labelled[block[:, 1]]]
            ids, counts = np.unique(block[:, 0], return_counts=True)
            total.update(dict(zip(ids.tolist(), counts.tolist())))
            rows = np.empty(len(block), ROW)
            rows["user"], rows["movie"], rows["time"] = block.T
            rows.tofile(file)
    raise_faults(faults, malformed)
    if not n_rows:
        raise ValueError(
            f"{ratings_file} has no rows; give a folder that holds ratings"
        )
    if not total:
        activity_ranks(np.empty(0, np.int64), None)  # raises
    pairs = np.array(sorted(total.items()), dtype=np.int64)
    ids, rank = pairs[:, 0], np.empty(len(pairs), np.int64)
    rank[most_active(ids, pairs[:, 1], len(ids))] = np.arange(len(ids))
    with open(path, "wb") as file:
        for rows in sorted_blocks(rows_path, ROWS_AT_ONCE):
            rounds = np.empty(len(rows), ROUND)
            rounds["context"] = rank[np.searchsorted(ids, rows["user"])]
            rounds["movie"] = rows["movie"]
            rounds.tofile(file)
    T = total.total()
    return BlockStream(
        path=path,
        rewards_of=np.where(table, 1.0, small_reward),
        n_rounds=T,
        n_contexts=len(ids),
        arm_names=genres,
        source=f"MovieLens, {n_rows} ratings; {T} by the {len(ids)} most active users; "
        f"left out: {n_rows - T} without a genre, {len(faults)} malformed",
        folder=held,
    )
