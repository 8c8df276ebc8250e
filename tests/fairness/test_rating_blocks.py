"""Streams on disk: the rounds of memory's stream, in its order, with less memory."""

import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prunefair
from prunefair.fairness import rating_blocks
from prunefair.fairness.offline_optimum import offline_optimum_of
from prunefair.fairness.rating_blocks import (
    ROW,
    file_blocks,
    movielens_blocks,
    sorted_blocks,
)
from prunefair.fairness.ratings import load_ratings, movielens_stream
from prunefair.fairness.simulation import RewardStream

MOVIES = (
    "movieId,title,genres\n1,A,War\n2,B,Comedy|War\n3,C,(no genres listed)\n4,D,IMAX\n"
)


def written(folder, lines, movies=MOVIES):
    (folder / "movies.csv").write_text(movies)
    header = "userId,movieId,rating,timestamp\n"
    (folder / "ratings.csv").write_text(header + "".join(lines))
    return folder


def whole(stream):
    """All rounds of a stream in blocks as one stream in memory."""
    blocks = list(stream)
    return RewardStream(
        contexts=np.concatenate([b.contexts for b in blocks]),
        rewards=np.concatenate([b.rewards for b in blocks]),
        n_contexts=stream.n_contexts,
        arm_names=stream.arm_names,
        source=stream.source,
    )


# --- order ------------------------------------------------------------------------

times = st.one_of(
    st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**62] * 3)
)


@settings(max_examples=60, deadline=None)
@given(drawn=st.lists(times, max_size=40), size=st.integers(1, 9))
def test_rows_come_in_the_order_of_time_and_ties_as_they_stood(
    tmp_path_factory, drawn, size
):
    folder = tmp_path_factory.mktemp("rows")
    rows = np.zeros(len(drawn), ROW)
    rows["time"], rows["movie"] = drawn, np.arange(len(drawn))
    rows.tofile(folder / "rows")
    with mock.patch.object(rating_blocks, "BINS", 4):
        blocks = list(sorted_blocks(folder / "rows", size))
    found = [int(m) for block in blocks for m in block["movie"]]
    assert found == sorted(range(len(drawn)), key=lambda k: drawn[k])
    assert all(len(block) <= size for block in blocks)
    assert not list(folder.iterdir())  # what was sorted is gone


def test_blocks_are_of_the_first_rows_that_are_wanted(tmp_path):
    rows = np.zeros(10, ROW)
    rows["movie"] = np.arange(10)
    rows.tofile(tmp_path / "rows")
    sizes = [len(b) for b in file_blocks(tmp_path / "rows", ROW, 4)]
    assert sizes == [4, 4, 2]
    few = [b["movie"].tolist() for b in file_blocks(tmp_path / "rows", ROW, 4, 6)]
    assert few == [[0, 1, 2, 3], [4, 5]]


# --- the stream -------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 6)),
        min_size=1,
        max_size=30,
    ),
    small=st.sampled_from([0.0, 0.001, 0.5]),
)
def test_the_rounds_are_those_of_the_stream_in_memory(tmp_path_factory, rows, small):
    folder = tmp_path_factory.mktemp("ratings")
    written(folder, [f"{u},{m},3.5,{t}\n" for u, m, t in rows])
    if all(m == 3 for _, m, _ in rows):
        with pytest.raises(ValueError, match="n_users is 0"):
            movielens_blocks(folder)
        return
    wanted = movielens_stream(load_ratings(folder), n_users=None, small_reward=small)
    with mock.patch.multiple(rating_blocks, BINS=3, ROWS_AT_ONCE=4):
        stream = movielens_blocks(folder, small_reward=small)
    stream = rating_blocks.replace(stream, size=3)
    got = whole(stream)
    assert got == wanted and stream.source == wanted.source
    assert (stream.n_rounds, stream.n_arms) == (wanted.n_rounds, wanted.n_arms)
    assert whole(stream) == wanted  # once more
    part = stream.first(2)
    assert part.n_rounds == min(2, wanted.n_rounds) and whole(part) == wanted.first(2)
    for alpha in (0.0, 0.9):
        best = stream.optimum(alpha)
        np.testing.assert_allclose(
            best.utility, offline_optimum_of(wanted, alpha).utility
        )


def test_policies_earn_on_blocks_what_they_earn_in_memory(tmp_path):
    rng = np.random.default_rng(1)
    draws = rng.integers([1, 1, 0], [40, 5, 500], size=(3000, 3))
    written(tmp_path, [f"{u},{m},4.0,{t}\n" for u, m, t in draws])
    blocks = rating_blocks.replace(movielens_blocks(tmp_path), size=700)
    stream = movielens_stream(load_ratings(tmp_path), n_users=None)
    for feedback, names in (
        ("full", ["alpha_fair", "hedge"]),
        ("bandit", ["scale_free"]),
    ):
        one, other = (
            prunefair.play(s, names, alpha=0.7, feedback=feedback).summary()
            for s in (stream, blocks)
        )
        assert one.keys() == other.keys() and one["T"] == other["T"]
        for name, values in one["policies"].items():
            for key, value in values.items():
                found = other["policies"][name][key]
                np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-6)


def test_faults_are_raised_or_left_out_and_counted(tmp_path):
    written(tmp_path, ["1,1,4.0,9\n", "1,2,9.0,8\n", "2,4,4.0,7\n"])
    with pytest.raises(ValueError, match="ratings.csv line 3"):
        movielens_blocks(tmp_path)
    stream = movielens_blocks(tmp_path, malformed="drop")
    assert stream.n_rounds == 2 and "1 malformed" in stream.source
    written(tmp_path, [])
    for arguments, message in (
        ({}, "has no rows"),
        ({"dataset": "x"}, "dataset is 'x'"),
        ({"malformed": "x"}, "malformed is 'x'"),
        ({"small_reward": 2}, "small_reward is 2"),
    ):
        with pytest.raises(ValueError, match=message):
            movielens_blocks(tmp_path, **arguments)


def test_the_rounds_go_with_their_stream(tmp_path):
    data, scratch = tmp_path / "data", tmp_path / "scratch"
    data.mkdir(), scratch.mkdir()
    written(data, ["1,1,4.0,9\n", "2,2,4.0,8\n"])
    stream = movielens_blocks(data, scratch=scratch)
    part = stream.first(1)
    del stream
    assert len(list(part)) == 1 and list(scratch.iterdir())
    del part
    assert not list(scratch.iterdir())


def test_memory_holds_blocks_and_not_all_rounds(tmp_path):
    """200,000 rounds of 20 arms are 32 MB; blocks of 8 thousand lines hold 4."""
    rng, n = np.random.default_rng(2), 200_000
    names = "|".join(f"G{k}" for k in range(20))
    movies = f"movieId,title,genres\n1,A,{names}\n2,B,G0\n"
    draws = rng.integers([1, 1, 0], [3000, 3, 10**9], size=(n, 3)).tolist()
    written(tmp_path, [f"{u},{m},4.0,{t}\n" for u, m, t in draws], movies)
    del draws
    small = {"ROWS_AT_ONCE": 1 << 13, "ROUNDS_AT_ONCE": 1 << 13}
    line_blocks, few = rating_blocks.rating_rows.__globals__["line_blocks"], 1 << 13
    peaks = []
    with (
        mock.patch.multiple(rating_blocks, **small),
        mock.patch(
            "prunefair.fairness.ratings.line_blocks",
            lambda path, columns: line_blocks(path, columns, few),
        ),
    ):
        for make in (
            lambda: rating_blocks.replace(movielens_blocks(tmp_path), size=few),
            lambda: [movielens_stream(load_ratings(tmp_path), n_users=None)],
        ):
            tracemalloc.start()
            assert sum(block.n_rounds for block in make()) == n
            peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
            tracemalloc.stop()
    assert peaks[0] < 10 < 32 < peaks[1]
