"""MovieLens ratings: reading them, saying what is malformed, streams of rewards."""

from __future__ import annotations

import csv
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prunefair.data import data_file
from prunefair.fairness.simulation import ArraysEqual, RewardStream
from prunefair.messages import checked_path, checked_whole, named, shown

DATASETS = {"ml-latest-small": "movielens", "ml-25m": "ml-25m", "ml-32m": "ml-32m"}
RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
MOVIE_COLUMNS = ("movieId", "title", "genres")
NO_GENRE = "(no genres listed)"
LINES_AT_ONCE = 1 << 18  # lines in memory at a time


class Fault(NamedTuple):
    """A malformed row: its file, its line (the header is line 1) and what is wrong."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Ratings(ArraysEqual):
    r"""Who rated which movie when, and the genres of every movie.

    Parameters
    ----------
    users : ndarray, shape (n,), int64
        Identifier of the user of each rating, in the order of the file.
    movies : ndarray, shape (n,), int64
        Row of `genre_table` that holds the rated movie, 0-based.
    timestamps : ndarray, shape (n,), int64
        Seconds since 1970.
    genre_table : ndarray, shape (K, N), bool
        Whether each of the $K$ movies has each genre.
    genres : tuple of str
        Names of the $N$ genres, sorted.
    faults : tuple of Fault
        Malformed rows that were left out.
    source : str
        Where the ratings come from.
    """

    users: np.ndarray
    movies: np.ndarray
    timestamps: np.ndarray
    genre_table: np.ndarray
    genres: tuple[str, ...]
    faults: tuple[Fault, ...] = ()
    source: str = ""


def line_blocks(
    path: Path, columns: tuple[str, ...], size: int = LINES_AT_ONCE
) -> Iterator[tuple[int, list[str]]]:
    """Lines after the header of a CSV file in blocks, each with its first line number.

    A byte-order mark before the header and blank lines at the end are no part of it.

    Parameters
    ----------
    path : pathlib.Path
    columns : tuple of str
        What the header must be.
    size : int
        Lines of a block at most.

    Raises
    ------
    ValueError
        If the header is another one.
    """
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        header = file.readline().strip()
        if header != ",".join(columns):
            raise ValueError(
                f"{path} begins with {header!r}; its header must be {','.join(columns)}"
            )
        first, blank = 2, []  # blank lines are held back until another line comes
        while lines := list(islice(file, size)):
            lines = blank + lines
            kept = len(lines)
            while kept and not lines[kept - 1].strip():
                kept -= 1
            lines, blank = lines[:kept], lines[kept:]
            if lines:
                yield first, lines
            first += len(lines)


def parquet_blocks(
    path: Path, columns: tuple[str, ...], size: int = LINES_AT_ONCE
) -> Iterator[tuple[int, list[str]]]:
    """Rows of a Parquet file as lines of CSV in blocks, numbered as behind a header.

    Parameters
    ----------
    path : pathlib.Path
    columns : tuple of str
        What is read; others are left alone.
    size : int
        Rows of a block at most.

    Raises
    ------
    ValueError
        If it is no Parquet file or lacks a column.
    """
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    options, first = pyarrow.csv.WriteOptions(include_header=False), 2
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(size, columns=list(columns)):
                text = pyarrow.BufferOutputStream()
                pyarrow.csv.write_csv(batch.select(columns), text, options)
                lines = text.getvalue().to_pybytes().decode().splitlines(keepends=True)
                yield first, lines
                first += len(lines)
    except (pyarrow.ArrowException, KeyError) as error:
        raise ValueError(
            f"{path} cannot be read as Parquet with columns {', '.join(columns)} "
            f"({shown(str(error))}); give ratings.csv, or a file that holds them"
        ) from error


def fields_of(line: str, n_fields: int) -> list[str]:
    """The fields of one line, or ValueError if there are not `n_fields` of them."""
    try:
        (row,) = csv.reader([line.rstrip("\n") + "\n"])
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if any("\n" in field for field in row):
        raise ValueError("a quote is not closed")
    if len(row) != n_fields:
        raise ValueError(f"{len(row)} fields instead of {n_fields}")
    return row


def checked_rows(
    file: str, first: int, lines: Sequence[str], parse: Callable, faults: list[Fault]
) -> Iterator:
    """Parsed lines, one by one; the malformed ones are appended to `faults`.

    Parameters
    ----------
    file : str
        Name of the file, for the faults.
    first : int
        Number of the first line.
    lines : sequence of str
    parse : callable
        Turns a line into a value; raises ValueError with the reason.
    faults : list of Fault
        Grows.
    """
    for number, line in enumerate(lines, first):
        try:
            value = parse(line)
        except ValueError as error:
            faults.append(Fault(file, number, str(error)))
        else:
            yield value


def whole_number(text: str) -> int:
    """`text` as a whole number of 64 bits, or ValueError."""
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{text} is too large")
    return value


def movie_of(line: str, seen: set[int]) -> tuple[int, frozenset[str]]:
    """Identifier and genres of a line of movies.csv; the identifier goes to `seen`."""
    row = fields_of(line, len(MOVIE_COLUMNS))
    movie = whole_number(row[0])
    genres = frozenset(genre.strip() for genre in row[2].split("|"))
    if "" in genres:
        raise ValueError(f"empty genre in {row[2]!r}")
    if movie in seen:
        raise ValueError(f"movie {movie} is listed twice")
    seen.add(movie)
    return movie, genres - {NO_GENRE}


def rating_of(line: str, index: dict[int, int]) -> tuple[int, int, int]:
    """User, movie (its row by `index`) and timestamp of a line of ratings.csv."""
    row = fields_of(line, len(RATING_COLUMNS))
    user, movie, time = (whole_number(row[k]) for k in (0, 1, 3))
    if movie not in index:
        raise ValueError(f"movie {movie} is not in movies.csv")
    if not 0 < float(row[2]) <= 5:
        raise ValueError(f"rating {row[2]} is not in (0, 5]")
    return user, index[movie], time


def rows_at_once(lines: list[str], index: dict[int, int]) -> np.ndarray | None:
    """What `rating_of` gives for every line, (n, 3) int64; None if one is malformed.

    Never more lenient than `rating_of`, so that None only costs time.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = np.loadtxt(
                lines, delimiter=",", dtype="i8,i8,f8,i8", comments=None, ndmin=1
            )
    except (ValueError, UserWarning, DeprecationWarning):
        return None
    if len(table) != len(lines) or not ((table["f2"] > 0) & (table["f2"] <= 5)).all():
        return None
    ids, place = np.unique(table["f1"], return_inverse=True)
    rows = np.array([index.get(movie, -1) for movie in ids.tolist()])
    if (rows < 0).any():
        return None
    return np.stack([table["f0"], rows[place], table["f3"]], axis=1)


def rating_rows(
    path: Path, index: dict[int, int], faults: list[Fault]
) -> Iterator[np.ndarray]:
    """Well-formed rows of ratings in blocks of shape (n, 3): user, movie, time.

    Parameters
    ----------
    path : pathlib.Path
    index : dict of int to int
        Row of each movie.
    faults : list of Fault
        Grows by the malformed rows.
    """
    parse = partial(rating_of, index=index)
    blocks = parquet_blocks if path.suffix == ".parquet" else line_blocks
    for first, lines in blocks(path, RATING_COLUMNS):
        block = rows_at_once(lines, index)
        if block is None:
            rows = checked_rows(path.name, first, lines, parse, faults)
            block = np.fromiter(rows, dtype=np.dtype((np.int64, 3)))
        yield block


def ratings_files(
    folder: str | os.PathLike | None, dataset: str = "ml-latest-small"
) -> tuple[Path, Path]:
    """Paths of ratings and movies.csv of a data set, found or downloaded.

    Parameters
    ----------
    folder : path or None
        Holds them, itself or in a subfolder named after the data set; ratings.parquet
        is taken where there is no ratings.csv.
    dataset : str
        A key of `DATASETS`.

    Raises
    ------
    FileNotFoundError
        If a file is missing, with the remedy.
    """
    names = ("ratings.csv", "movies.csv")
    if folder is None:
        ratings, movies = (data_file(f"{DATASETS[dataset]}/{name}") for name in names)
        return ratings, movies
    folder = Path(checked_path(folder, "folder"))
    inner = [folder / name for name in (DATASETS[dataset], dataset)]
    folder = next((path for path in inner if path.is_dir()), folder)
    if not (folder / names[0]).is_file() and (folder / "ratings.parquet").is_file():
        names = ("ratings.parquet", names[1])
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{named('folder')} is {shown(str(folder))}, which holds no {name}; give "
                "a folder with ratings.csv and movies.csv of a MovieLens data set"
            )
    ratings, movies = (folder / name for name in names)
    return ratings, movies


def genre_rows(
    listed: Sequence[tuple[int, frozenset[str]]],
) -> tuple[dict[int, int], tuple[str, ...], np.ndarray]:
    """Row of each movie, sorted genre names, and the table of both, (K, N) bool."""
    genres = tuple(sorted(frozenset().union(*(found for _, found in listed))))
    table = np.array([[g in found for g in genres] for _, found in listed], dtype=bool)
    index = {movie: row for row, (movie, _) in enumerate(listed)}
    return index, genres, table


def faults_message(faults: Sequence[Fault]) -> str:
    """One line that gives the number of malformed rows and the first lines."""
    shown = "; ".join(f"{f.file} line {f.line}: {f.reason}" for f in faults[:5])
    more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
    return (
        f"{len(faults)} malformed rows ({shown}{more}); mend them, or pass "
        f"{named('malformed', 'drop')} to leave them out"
    )


def listed_movies(
    path: Path, faults: list[Fault]
) -> tuple[dict[int, int], tuple[str, ...], np.ndarray]:
    """What `genre_rows` gives for the well-formed rows of movies.csv."""
    movie, listed = partial(movie_of, seen=set()), []
    for first, lines in line_blocks(path, MOVIE_COLUMNS):
        listed += checked_rows(path.name, first, lines, movie, faults)
    return genre_rows(listed)


def counted_users(
    blocks: Iterator[np.ndarray], labelled: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Users with a rating of a movie that is `labelled`, sorted, and how many of each.

    Parameters
    ----------
    blocks : iterator of ndarray, shape (n, 3), int64
        Of `rating_rows`.
    labelled : ndarray, shape (K,), bool
        Whether each movie has a genre.

    Returns
    -------
    ids, counts : ndarray, shape (M,), int64
    """
    total = Counter()
    for block in blocks:
        ids, counts = np.unique(block[labelled[block[:, 1]], 0], return_counts=True)
        total.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
    pairs = np.array(sorted(total.items()), dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def most_active(ids: np.ndarray, counts: np.ndarray, n_users: int) -> np.ndarray:
    """Place in `ids` of the users with most ratings, the most active first.

    Parameters
    ----------
    ids, counts : ndarray, shape (M,), int64
        Users, and how often each rated; the smaller identifier first of two alike.
    n_users : int
        How many.

    Returns
    -------
    places : ndarray, shape (n_users,), int64
    """
    return np.lexsort((ids, -counts))[:n_users]


def check_reading(dataset: str, malformed: str) -> None:
    """Raise unless `dataset` is known and `malformed` is "raise" or "drop".

    Raises
    ------
    ValueError
        If one is not.
    """
    if dataset not in DATASETS:
        known = ", ".join(DATASETS)
        raise ValueError(f"{named('dataset')} is {dataset!r}; give one of {known}")
    if malformed not in ("raise", "drop"):
        raise ValueError(
            f"{named('malformed')} is {malformed!r}; it must be 'raise' or 'drop'"
        )


def check_small_reward(small_reward: float) -> None:
    """Raise unless the reward of a genre that a movie has not lies in [0, 1].

    Raises
    ------
    ValueError
        If it does not.
    """
    if not 0 <= small_reward <= 1:
        raise ValueError(
            f"{named('small_reward')} is {small_reward!r}; it must lie in [0, 1]"
        )


def load_ratings(
    folder: str | os.PathLike | None = None,
    *,
    dataset: str = "ml-latest-small",
    malformed: str = "raise",
    n_users: int | None = None,
) -> Ratings:
    """Ratings and genres of a MovieLens data set in its CSV layout.

    Every line after the header becomes a rating or a fault; none is left out unsaid.
    The file goes through memory in blocks.

    Parameters
    ----------
    folder : path, optional
        Holds `ratings.csv`, or `ratings.parquet` with the same columns, and
        `movies.csv`, itself or in a subfolder named after the data set (`movielens` for
        ml-latest-small); by default the publisher's own files, found or downloaded by
        `prunefair.data.data_file`.
    dataset : {"ml-latest-small", "ml-25m", "ml-32m"}
        Which data set.
    malformed : {"raise", "drop"}
        Whether a malformed row is an error or is left out and listed in `faults`.
    n_users : int, optional
        Keep only the ratings of so many users, those that `movielens_stream` takes with
        this number: the file is read twice, and memory holds no more of it than them
        and a block.

    Returns
    -------
    ratings : Ratings

    Raises
    ------
    ValueError
        If a row is malformed (the message gives line numbers), a header is another
        one, a file has no rows, `dataset` is unknown, `malformed` is neither word, or
        `n_users` is no whole number from 1 on.
    FileNotFoundError
        If a file is missing.
    """
    check_reading(dataset, malformed)
    if n_users is not None:
        n_users = checked_whole("n_users", n_users, 1)
    ratings_file, movies_file = ratings_files(folder, dataset)
    faults: list[Fault] = []
    index, genres, table = listed_movies(movies_file, faults)
    blocks = rating_rows(ratings_file, index, faults)
    chosen = None
    if n_users is not None:
        ids, counts = counted_users(blocks, table.any(1))
        chosen = np.sort(ids[most_active(ids, counts, n_users)])
        raise_faults(faults, malformed)
        blocks = rating_rows(ratings_file, index, [])  # their faults are known
    n_rows, columns = 0, ([], [], [])
    for block in blocks:
        n_rows += len(block)
        if chosen is not None:
            block = block[np.isin(block[:, 0], chosen)]
        for column, part in zip(columns, block.T, strict=True):
            column.append(part.copy())
    raise_faults(faults, malformed)
    if not n_rows:
        raise ValueError(
            f"{ratings_file} has no rows; give a folder that holds ratings"
        )
    users, movies, times = (_joined(column) for column in columns)
    some = (
        f"; those of the {len(chosen)} most active users" if chosen is not None else ""
    )
    return Ratings(
        users=users,
        movies=movies,
        timestamps=times,
        genre_table=table,
        genres=genres,
        faults=tuple(faults),
        source=f"MovieLens, {n_rows} ratings{some}",
    )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """One array of all; `parts` is emptied, so that no column is held twice for long."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def raise_faults(faults: Sequence[Fault], malformed: str) -> None:
    """Raise if there are faults and `malformed` is "raise", with their lines.

    Raises
    ------
    ValueError
        If so.
    """
    if faults and malformed == "raise":
        raise ValueError(faults_message(faults))


def selected_rows_of(ratings: Ratings, keep, how: str) -> Ratings:
    """The ratings picked by the index or mask `keep`; `how` is added to `source`.

    Parameters
    ----------
    ratings : Ratings
    keep : ndarray or slice
        Rows to keep.
    how : str
        The rule, in words.
    """
    kept = {k: getattr(ratings, k)[keep] for k in ("users", "movies", "timestamps")}
    text = f"{ratings.source}; {len(kept['users'])} {how}"
    return replace(ratings, **kept, source=text)


def first_rows(ratings: Ratings, n_rows: int) -> Ratings:
    """The first `n_rows` ratings of the file, which is sorted by user.

    Raises
    ------
    ValueError
        If there are fewer, or `n_rows` is below 1.
    """
    if not 1 <= n_rows <= len(ratings.users):
        raise ValueError(
            f"n_rows is {n_rows!r}; it must lie in 1, ..., {len(ratings.users)}, the "
            "number of ratings"
        )
    return selected_rows_of(ratings, slice(n_rows), "in the first rows of the file")


def users_with(ratings: Ratings, low: int, high: int) -> Ratings:
    """The ratings of the users who gave at least `low` and at most `high` of them.

    The public code of the paper keeps the users with exactly a thousand.

    Parameters
    ----------
    ratings : Ratings
    low, high : int
        Bounds, included.

    Raises
    ------
    ValueError
        If no user has so many ratings.
    """
    _, place, counts = np.unique(ratings.users, return_inverse=True, return_counts=True)
    keep = ((counts >= low) & (counts <= high))[place]
    if not keep.any():
        raise ValueError(
            f"low is {low!r} and high is {high!r}, but no user has so many ratings; the "
            f"counts run from {counts.min()} to {counts.max()}"
        )
    how = f"by users with {low} to {high} ratings"
    return selected_rows_of(ratings, keep, how)


def random_users(
    ratings: Ratings, n_users: int, *, rng: np.random.Generator
) -> Ratings:
    """The ratings of `n_users` users, every set of so many with the same probability.

    Parameters
    ----------
    ratings : Ratings
    n_users : int
        How many users are drawn.
    rng : numpy.random.Generator

    Returns
    -------
    ratings : Ratings

    Raises
    ------
    ValueError
        If there are fewer.
    """
    ids = np.unique(ratings.users)
    if not 1 <= n_users <= len(ids):
        raise ValueError(
            f"n_users is {n_users!r}; it must lie in 1, ..., {len(ids)}, the number of "
            "users with ratings"
        )
    chosen = rng.choice(ids, n_users, replace=False)
    keep = np.isin(ratings.users, chosen)
    return selected_rows_of(ratings, keep, f"by {n_users} users drawn at random")


def random_groups(
    ratings: Ratings, n_groups: int, *, rng: np.random.Generator
) -> Ratings:
    """The same ratings, each user replaced by one of `n_groups` groups at random.

    A user rates for a day or a year, a group for as long as the file: its taste drifts
    as its members come and go.

    Parameters
    ----------
    ratings : Ratings
    n_groups : int
        Number of groups, of sizes that differ by one at most.
    rng : numpy.random.Generator

    Returns
    -------
    ratings : Ratings
        `users` are 0, ..., `n_groups` - 1.

    Raises
    ------
    ValueError
        If there are fewer users than groups.
    """
    ids, place = np.unique(ratings.users, return_inverse=True)
    if not 1 <= n_groups <= len(ids):
        raise ValueError(
            f"n_groups is {n_groups!r}; it must lie in 1, ..., {len(ids)}, the number "
            "of users with ratings"
        )
    groups = rng.permutation(np.arange(len(ids)) % n_groups)
    text = f"{ratings.source}; users in {n_groups} groups at random"
    return replace(ratings, users=groups[place], source=text)


def half_years(ratings: Ratings, n_rows: int = 1) -> dict[str, Ratings]:
    """The ratings of each half of a calendar year (UTC) that has `n_rows` or more.

    Parameters
    ----------
    ratings : Ratings
    n_rows : int
        Least number of ratings of a half-year.

    Returns
    -------
    halves : dict of str to Ratings
        In the order of time, by names such as "2001, second half".

    Raises
    ------
    ValueError
        If no half-year has so many.
    """
    months = ratings.timestamps.astype("datetime64[s]").astype("datetime64[M]")
    halves = months.astype(np.int64) // 6  # since 1970, rounded down
    parts = {}
    for half in np.unique(halves):
        keep = halves == half
        if keep.sum() >= n_rows:
            name = f"{1970 + half // 2}, {('first', 'second')[half % 2]} half"
            parts[name] = selected_rows_of(ratings, keep, f"of {name}")
    if not parts:
        most = np.unique(halves, return_counts=True)[1].max()
        raise ValueError(
            f"n_rows is {n_rows!r}, but the most that a half-year has is {most}"
        )
    return parts


def activity_ranks(users: np.ndarray, n_users: int | None) -> np.ndarray:
    """Rank of the user of each rating by activity, 0 the most active; -1 if not ranked.

    Parameters
    ----------
    users : ndarray, shape (n,), int64
        Identifier of the user of each rating.
    n_users : int or None
        How many users are ranked; None for all.

    Returns
    -------
    ranks : ndarray, shape (n,), int64

    Raises
    ------
    ValueError
        If there are fewer than `n_users` users.
    """
    ids, counts = np.unique(users, return_counts=True)
    n_users = len(ids) if n_users is None else n_users
    if not 1 <= n_users <= len(ids):
        raise ValueError(
            f"{named('n_users')} is {n_users!r}; it must lie in 1, ..., {len(ids)}, the "
            f"number of users with ratings, or give {named('n_users', None)} for all"
        )
    rank = np.full(len(ids), -1)
    rank[most_active(ids, counts, n_users)] = np.arange(n_users)
    return rank[np.searchsorted(ids, users)]


def movielens_stream(
    ratings: Ratings, *, n_users: int | None = 75, small_reward: float = 1e-3
) -> RewardStream:
    r"""Contexts are the most active users, arms the genres, rounds the ratings.

    Parameters
    ----------
    ratings : Ratings
    n_users : int or None
        Number of contexts $M$: users with most ratings, the smaller identifier first
        where two are equal; None for all users.
    small_reward : float
        Reward of a genre that the rated movie has not; 1 if it has.

    Returns
    -------
    stream : RewardStream
        In the order of the timestamps, equal ones in the order of the file; the most
        active user is context 0.  `source` counts what was left out.

    Raises
    ------
    ValueError
        If there are fewer than `n_users` users, or `small_reward` is not in [0, 1].
    """
    check_small_reward(small_reward)
    labelled = ratings.genre_table.any(1)[ratings.movies]  # (n,)
    rank_of = np.full(len(ratings.users), -1)
    rank_of[labelled] = activity_ranks(ratings.users[labelled], n_users)
    chosen, n_contexts = np.flatnonzero(rank_of >= 0), int(rank_of.max()) + 1
    chosen = chosen[np.argsort(ratings.timestamps[chosen], kind="stable")]
    has = ratings.genre_table[ratings.movies[chosen]]  # (T, N)
    return RewardStream(
        contexts=rank_of[chosen],
        rewards=np.where(has, 1.0, small_reward),
        n_contexts=n_contexts,
        arm_names=ratings.genres,
        source=f"{ratings.source}; {len(chosen)} by the {n_contexts} most active users; "
        f"left out: {(~labelled).sum()} without a genre, {len(ratings.faults)} malformed",
    )


def shuffled(stream: RewardStream, *, rng: np.random.Generator) -> RewardStream:
    """The rounds of a stream in an order drawn at random.

    Parameters
    ----------
    stream : RewardStream
    rng : numpy.random.Generator

    Returns
    -------
    stream : RewardStream
    """
    order = rng.permutation(stream.n_rounds)
    return replace(
        stream,
        contexts=stream.contexts[order],
        rewards=stream.rewards[order],
        source=f"{stream.source}; in random order",
    )


def synthetic_stream(
    *,
    n_contexts: int = 75,
    n_arms: int = 19,
    n_rounds: int = 20_000,
    small_reward: float = 1e-3,
    rng: np.random.Generator,
) -> RewardStream:
    r"""A made-up stream of the same form, for where there is neither data nor network.

    Parameters
    ----------
    n_contexts, n_arms, n_rounds : int
        $M$, $N$ and $T$.
    small_reward : float
        Reward of an arm that is off; 1 if it is on.
    rng : numpy.random.Generator

    Returns
    -------
    stream : RewardStream
        `source` begins with "SYNTHETIC".

    Raises
    ------
    ValueError
        If a size is below 1 or `small_reward` is not in [0, 1].
    """
    if min(n_contexts, n_arms, n_rounds) < 1:
        raise ValueError("n_contexts, n_arms and n_rounds must all be at least 1")
    check_small_reward(small_reward)
    activity = 1 / np.arange(1, n_contexts + 1) ** 0.7
    popularity = np.geomspace(0.4, 0.01, n_arms)  # of an arm, over all contexts
    taste = np.minimum(popularity * rng.gamma(2, 0.5, (n_contexts, n_arms)), 1)
    contexts = rng.choice(n_contexts, n_rounds, p=activity / activity.sum())
    has = rng.random((n_rounds, n_arms)) < taste[contexts]  # (T, N)
    return RewardStream(
        contexts=contexts,
        rewards=np.where(has, 1.0, small_reward),
        n_contexts=n_contexts,
        arm_names=tuple(f"arm {i}" for i in range(n_arms)),
        source=f"SYNTHETIC stream, {n_rounds} rounds; not MovieLens",
    )
