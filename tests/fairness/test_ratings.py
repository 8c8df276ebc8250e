"""Reading MovieLens: every line becomes a rating or a fault with its number."""

import dataclasses
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefair.data import data_folder
from prunefair.fairness import ratings as module
from prunefair.fairness.ratings import (
    Ratings,
    first_rows,
    half_years,
    load_ratings,
    movielens_stream,
    random_groups,
    random_users,
    rating_of,
    rows_at_once,
    shuffled,
    synthetic_stream,
    users_with,
)

HELD = data_folder()
needs_data = pytest.mark.skipif(HELD is None, reason="no data folder")

RATINGS = "userId,movieId,rating,timestamp\n"
MOVIES = "movieId,title,genres\n"


def folder_with(
    path, ratings, movies='5,"Toys, again (1995)",Comedy|IMAX\n6,"A",War\n'
):
    (path / "ratings.csv").write_text(RATINGS + ratings, encoding="utf-8")
    (path / "movies.csv").write_text(MOVIES + movies, encoding="utf-8")
    return path


@needs_data
def test_every_rating_of_the_file_is_loaded_in_its_order():
    ratings = load_ratings()
    table = np.loadtxt(HELD / "movielens/ratings.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(ratings.users, table[:, 0])
    np.testing.assert_array_equal(ratings.timestamps, table[:, 3])
    assert ratings.faults == ()
    titles = (HELD / "movielens/movies.csv").read_text(encoding="utf-8").splitlines()
    by_id = {int(t.split(",")[0]): t.rsplit(",", 1)[1].split("|") for t in titles[1:]}
    for row in range(0, len(table), 997):
        flags = ratings.genre_table[ratings.movies[row]]
        found = {g for g, flag in zip(ratings.genres, flags) if flag}
        assert found == set(by_id[int(table[row, 1])]) - {"(no genres listed)"}


def test_windows_line_ends_quoted_commas_and_a_subfolder_are_understood(tmp_path):
    (tmp_path / "movielens").mkdir()
    folder = folder_with(tmp_path / "movielens", "1,5,4.0,9\r\n2,6,0.5,8\r\n")
    for given_folder in (tmp_path, folder):
        loaded = load_ratings(given_folder)
        assert loaded.genres == ("Comedy", "IMAX", "War")
        assert loaded.users.tolist() == [1, 2]
        assert loaded.genre_table[loaded.movies].tolist() == [[1, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("block", [1, 2, 1 << 18])
def test_a_byte_order_mark_and_blank_lines_at_the_end_are_no_rows(
    tmp_path, monkeypatch, block
):
    monkeypatch.setattr(module.line_blocks, "__defaults__", (block,))
    plain = load_ratings(folder_with(tmp_path, "1,5,4.0,9\n2,6,0.5,8\n"))
    for name in ("ratings.csv", "movies.csv"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        marked = "\ufeff" + text.replace("\n", " \n", 1) + "\n  \n\r\n\n"
        (tmp_path / name).write_text(marked, encoding="utf-8")
    marked = load_ratings(tmp_path)
    assert marked.faults == () and marked.genres == plain.genres
    for name in ("users", "movies", "timestamps", "genre_table"):
        np.testing.assert_array_equal(getattr(marked, name), getattr(plain, name))


@pytest.mark.parametrize("block", [1, 2, 3, 1 << 18])
def test_blank_lines_between_rows_are_faults_with_their_line(
    tmp_path, monkeypatch, block
):
    monkeypatch.setattr(module.line_blocks, "__defaults__", (block,))
    folder = folder_with(tmp_path, "1,5,4.0,9\n\n  \n2,6,0.5,8\n\n\nx\n\n\n")
    loaded = load_ratings(folder, malformed="drop")
    assert loaded.users.tolist() == [1, 2]
    assert [fault.line for fault in loaded.faults] == [3, 4, 6, 7, 8]


def test_spaces_around_genres_make_no_new_genre(tmp_path):
    movies = "5,A, Comedy | IMAX\n6,B,IMAX |War \n7,C, (no genres listed) \n"
    loaded = load_ratings(folder_with(tmp_path, "1,5,4.0,9\n1,7,4.0,9\n", movies))
    assert loaded.genres == ("Comedy", "IMAX", "War")
    assert loaded.genre_table.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    with pytest.raises(ValueError, match="empty genre"):
        load_ratings(folder_with(tmp_path, "1,5,4.0,9\n", "5,A,War| |IMAX\n"))


BAD_ROWS = {
    "too few fields": ("1,5,4.0", "3 fields instead of 4"),
    "too many fields": ("1,5,4.0,9,9", "5 fields instead of 4"),
    "empty": ("", "0 fields instead of 4"),
    "word for a user": ("one,5,4.0,9", "invalid literal"),
    "address in the timestamp": ("1,5,4.0,http://a", "invalid literal"),
    "no number of stars": ("1,5,x,9", "could not convert"),
    "nan stars": ("1,5,nan,9", "rating nan is not in"),
    "no stars": ("1,5,0,9", "rating 0 is not in"),
    "six stars": ("1,5,6,9", "rating 6 is not in"),
    "unknown movie": ("1,7,4.0,9", "movie 7 is not in movies.csv"),
    "open quote": ('1,5,4.0,"9', "a quote is not closed"),
    "huge user": (f"{2**64},5,4.0,9", "is too large"),
    "comment": ("1,5,4.0,9# first", "invalid literal"),
    "fraction of a user": ("1.0,5,4.0,9", "invalid literal"),
}


@pytest.mark.parametrize("block", [1, 3, 1 << 18])
@pytest.mark.parametrize(("row", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_malformed_rows_are_reported_with_their_line(
    tmp_path, monkeypatch, row, reason, block
):
    monkeypatch.setattr(module.line_blocks, "__defaults__", (block,))
    folder = folder_with(tmp_path, f"1,5,4.0,9\n{row}\n2,6,3.0,8\n{row}\n3,6,3.0,8\n")
    with pytest.raises(ValueError, match="2 malformed rows .ratings.csv line 3: ") as e:
        load_ratings(folder)
    assert reason in str(e.value) and "ratings.csv line 5: " in str(e.value)
    assert "malformed='drop'" in str(e.value)
    kept = load_ratings(folder, malformed="drop")
    assert kept.users.tolist() == [1, 2, 3]
    assert [fault.line for fault in kept.faults] == [3, 5]
    assert "2 malformed" in movielens_stream(kept, n_users=1).source


def test_malformed_movies_are_reported_with_their_line(tmp_path):
    folder = folder_with(tmp_path, "1,5,4.0,9\n", "5,A,War\n6,B\nx,C,War\n7,D,War||\n")
    with pytest.raises(ValueError, match="3 malformed rows .*movies.csv line 3: 2 fi"):
        load_ratings(folder)
    faults = load_ratings(folder, malformed="drop").faults
    assert [(f.file, f.line) for f in faults] == [("movies.csv", n) for n in (3, 4, 5)]


def test_a_movie_listed_twice_is_malformed(tmp_path):
    folder = folder_with(tmp_path, "1,5,4.0,9\n", "5,A,War\n5,B,Comedy\n")
    with pytest.raises(ValueError, match="movies.csv line 3: movie 5 is listed twice"):
        load_ratings(folder)


def test_many_malformed_rows_are_counted_and_the_first_shown(tmp_path):
    folder = folder_with(tmp_path, "bad\n" * 9)
    with pytest.raises(ValueError, match="9 malformed rows .*line 6: .*and 4 more"):
        load_ratings(folder)


def test_a_folder_without_the_files_or_rows_or_header_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder is .*holds no ratings.csv"):
        load_ratings(tmp_path)
    folder_with(tmp_path, "")
    with pytest.raises(ValueError, match="has no rows"):
        load_ratings(tmp_path)
    (tmp_path / "ratings.csv").write_text("user::movie\n")
    with pytest.raises(ValueError, match="begins with 'user::movie'; its header must"):
        load_ratings(tmp_path)
    with pytest.raises(ValueError, match="malformed is 'skip'"):
        load_ratings(tmp_path, malformed="skip")


# Two ways to parse

tokens = st.sampled_from(
    ["1", "5", "6", "7", " 5", "5 ", "+5", "-1", "0x5", "5.0", "1e2", "1_0", '"5"', ""]
    + ["nan", "inf", "#1", "5#", "'5'", "٣", str(2**63), str(2**63 - 1), "5,1"]
)


@given(st.lists(st.lists(tokens, min_size=3, max_size=5), min_size=1, max_size=3))
def test_parsing_a_block_at_once_is_never_more_lenient_than_line_by_line(rows):
    index = {5: 0, 6: 1, 1: 2}
    lines = [",".join(row) + "\n" for row in rows]
    block = rows_at_once(lines, index)
    if block is not None:
        assert block.tolist() == [list(rating_of(line, index)) for line in lines]


def test_a_well_formed_block_is_parsed_at_once_with_every_row():
    rng = np.random.default_rng(0)
    table = rng.integers(1, 1000, (500, 4))
    table[:, 2] = rng.integers(1, 6, 500)
    index = {int(m): k for k, m in enumerate(np.unique(table[:, 1])[::-1])}
    block = rows_at_once([",".join(map(str, row)) + "\n" for row in table], index)
    np.testing.assert_array_equal(block[:, [0, 2]], table[:, [0, 3]])
    assert block[:, 1].tolist() == [index[m] for m in table[:, 1].tolist()]


# The large sets: the same layout, small


@pytest.mark.parametrize("dataset", ["ml-25m", "ml-32m"])
@pytest.mark.parametrize("inner", [True, False])
def test_a_folder_laid_out_like_the_large_sets_is_read(tmp_path, dataset, inner):
    folder = tmp_path / dataset if inner else tmp_path
    folder.mkdir(exist_ok=True)
    folder_with(folder, "3,6,3.5,1147880044\n1,5,5.0,1147868817\n")
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\n3,6,x,1\n")
    loaded = load_ratings(tmp_path, dataset=dataset)
    assert loaded.users.tolist() == [3, 1]
    assert loaded.timestamps.tolist() == [1147880044, 1147868817]
    stream = movielens_stream(loaded, n_users=2)
    assert stream.contexts.tolist() == [0, 1] and stream.arm_names[2] == "War"


def test_an_unknown_data_set_is_named():
    with pytest.raises(ValueError, match="dataset is 'ml-1m'; .* ml-25m, ml-32m"):
        load_ratings(dataset="ml-1m")


# Selections


def test_selections_keep_whole_rows_and_say_so(tmp_path):
    rows = "".join(f"{u},{5 + u % 2},4.0,{9 - u}\n" for u in (1, 2, 2, 3, 3, 3))
    loaded = load_ratings(folder_with(tmp_path, rows))
    some = users_with(loaded, 2, 2)
    assert some.users.tolist() == [2, 2] and some.timestamps.tolist() == [7, 7]
    assert some.source.endswith("; 2 by users with 2 to 2 ratings")
    assert users_with(loaded, 2, 9).users.tolist() == [2, 2, 3, 3, 3]
    part = first_rows(loaded, 4)
    assert part.users.tolist() == [1, 2, 2, 3]
    np.testing.assert_array_equal(part.movies, loaded.movies[:4])
    for field in dataclasses.fields(loaded):
        if field.name not in ("users", "movies", "timestamps", "source"):
            assert getattr(part, field.name) is getattr(loaded, field.name)


def test_selections_that_select_nothing_are_refused(tmp_path):
    loaded = load_ratings(folder_with(tmp_path, "1,5,4.0,9\n"))
    with pytest.raises(ValueError, match="low is 2 .* counts run from 1 to 1"):
        users_with(loaded, 2, 3)
    for n_rows in (0, 2):
        with pytest.raises(ValueError, match=f"n_rows is {n_rows}; .* 1, the number"):
            first_rows(loaded, n_rows)


def test_ratings_are_equal_if_their_rows_are(tmp_path):
    folder = folder_with(tmp_path, "1,5,3.5,9\n2,6,4.0,10\n")
    one = load_ratings(folder)
    assert one == load_ratings(folder)
    assert one != dataclasses.replace(one, users=one.users[::-1])
    assert one != first_rows(one, 1)


@pytest.fixture(scope="module")
def ratings():
    return load_ratings()


@pytest.fixture(scope="module")
def stream(ratings):
    return movielens_stream(ratings)


def test_the_stream_has_the_published_sizes(stream):
    assert (stream.n_contexts, stream.n_arms, stream.n_rounds) == (75, 19, 53_372)
    assert list(stream.arm_names) == sorted(stream.arm_names)
    assert "(no genres listed)" not in stream.arm_names
    assert set(np.unique(stream.rewards)) == {0.001, 1.0}
    assert (stream.rewards == 1).any(1).all()
    assert "47 without a genre" in stream.source
    visits = np.bincount(stream.contexts)
    assert (np.diff(visits) <= 0).all()  # context 0 is the most active user


def slow_stream(rows, genres_of, n_users, small):
    """The stream by plain Python, from (user, movie, time) rows."""
    rows = [row for row in rows if genres_of[row[1]]]
    users = sorted({u for u, _, _ in rows})
    users.sort(key=lambda u: -sum(row[0] == u for row in rows))
    rank = {u: k for k, u in enumerate(users[:n_users])}
    rows = sorted((row for row in rows if row[0] in rank), key=lambda row: row[2])
    names = sorted(set().union(*genres_of.values()))
    rewards = [[1.0 if g in genres_of[m] else small for g in names] for _, m, _ in rows]
    return [rank[u] for u, _, _ in rows], rewards


GENRES_OF = {1: {"War"}, 2: {"Comedy", "War"}, 3: set(), 4: {"IMAX"}}


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3)),
        min_size=1,
        max_size=30,
    ),
    n_users=st.integers(1, 3),
    small=st.sampled_from([0.0, 0.001, 0.5]),
)
def test_the_stream_equals_a_slow_one_with_ties(tmp_path_factory, rows, n_users, small):
    folder = tmp_path_factory.mktemp("ratings")
    movies = "".join(
        f"{m},T,{'|'.join(sorted(g)) or '(no genres listed)'}\n"
        for m, g in GENRES_OF.items()
    )
    (folder / "movies.csv").write_text("movieId,title,genres\n" + movies)
    lines = "".join(f"{u},{m},3.5,{t}\n" for u, m, t in rows)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + lines)
    loaded = load_ratings(folder)
    active = len({u for u, m, _ in rows if GENRES_OF[m]})
    if active < n_users:
        with pytest.raises(ValueError, match=f"n_users is {n_users}; .* {active}, "):
            movielens_stream(loaded, n_users=n_users)
        return
    got = movielens_stream(loaded, n_users=n_users, small_reward=small)
    contexts, rewards = slow_stream(rows, GENRES_OF, n_users, small)
    assert got.contexts.tolist() == contexts
    assert got.rewards.tolist() == rewards


def test_without_a_number_every_user_is_a_context(ratings):
    part = first_rows(ratings, 5_000)
    stream = movielens_stream(part, n_users=None)
    assert stream.n_contexts == len(set(part.users.tolist())) == part.users.max()
    labelled = part.genre_table[part.movies].any(1)
    assert stream.n_rounds == labelled.sum()
    assert "5000 in the first rows" in stream.source


def test_bad_arguments_of_the_stream_are_named(ratings):
    with pytest.raises(ValueError, match="small_reward is 2"):
        movielens_stream(ratings, small_reward=2)
    with pytest.raises(ValueError, match="n_users is 0; it must lie in 1, ..., 610"):
        movielens_stream(ratings, n_users=0)


def test_the_synthetic_stream_says_so_and_repeats_with_its_seed():
    one, two, other = (
        synthetic_stream(n_rounds=500, rng=np.random.default_rng(s)) for s in (1, 1, 2)
    )
    assert one.source.startswith("SYNTHETIC") and "not MovieLens" in one.source
    assert (one.n_contexts, one.n_arms, one.n_rounds) == (75, 19, 500)
    np.testing.assert_array_equal(one.rewards, two.rewards)
    assert (one.rewards != other.rewards).any()


def test_bad_sizes_of_the_synthetic_stream_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="must all be at least 1"):
        synthetic_stream(n_arms=0, rng=rng)
    with pytest.raises(ValueError, match="small_reward is -1"):
        synthetic_stream(small_reward=-1, rng=rng)


# --- other cuts of the same ratings


def a_few_ratings(n=600, users=40, seed=3):
    rng = np.random.default_rng(seed)
    return Ratings(
        users=rng.integers(100, 100 + users, n),
        movies=rng.integers(0, 5, n),
        timestamps=rng.integers(0, 2 * 365 * 86_400, n),
        genre_table=np.eye(5, 3, dtype=bool) | np.eye(5, 3, -2, dtype=bool),
        genres=("A", "B", "C"),
    )


def rows(ratings):
    return sorted(zip(ratings.users, ratings.movies, ratings.timestamps))


def test_half_years_split_the_ratings_at_the_first_of_january_and_of_july():
    ratings = a_few_ratings()
    halves = half_years(ratings)
    names = [f"{y}, {h} half" for y in (1970, 1971) for h in ("first", "second")]
    assert list(halves) == names
    assert sum(map(rows, halves.values()), []) != rows(ratings)  # another order
    assert sorted(sum(map(rows, halves.values()), [])) == rows(ratings)
    for name, part in halves.items():
        days = [datetime.fromtimestamp(t, UTC) for t in part.timestamps.tolist()]
        assert {(d.year, d.month > 6) for d in days} == {
            (int(name[:4]), "second" in name)
        }
        assert part.source.endswith(f"{len(part.users)} of {name}")
    sizes = sorted(len(part.users) for part in halves.values())
    assert len(half_years(ratings, sizes[-1])) == 1
    with pytest.raises(ValueError, match=f"n_rows is {sizes[-1] + 1}, but the most"):
        half_years(ratings, sizes[-1] + 1)


def test_random_users_keep_all_ratings_of_a_set_in_which_each_is_as_likely():
    ratings, counts = a_few_ratings(), dict.fromkeys(range(100, 140), 0)
    for rng in np.random.default_rng(0).spawn(400):
        part = random_users(ratings, 10, rng=rng)
        chosen = set(part.users.tolist())
        assert len(chosen) == 10
        assert rows(part) == [row for row in rows(ratings) if row[0] in chosen]
        for user in chosen:
            counts[user] += 1
    assert max(abs(n - 100) for n in counts.values()) < 5 * (400 / 4 * 3 / 4) ** 0.5
    for wrong in (0, 41):
        with pytest.raises(ValueError, match=f"n_users is {wrong}; it must lie in 1"):
            random_users(ratings, wrong, rng=rng)


def test_random_groups_merge_users_evenly_and_change_nothing_else():
    ratings, rng = a_few_ratings(), np.random.default_rng(1)
    part = random_groups(ratings, 7, rng=rng)
    pairs = set(zip(ratings.users.tolist(), part.users.tolist()))
    assert len(pairs) == 40  # a user is in one group
    sizes = np.bincount([group for _, group in pairs])
    assert len(sizes) == 7 and sizes.max() - sizes.min() == 1
    np.testing.assert_array_equal(part.movies, ratings.movies)
    np.testing.assert_array_equal(part.timestamps, ratings.timestamps)
    assert (random_groups(ratings, 7, rng=rng).users != part.users).any()
    for wrong in (0, 41):
        with pytest.raises(ValueError, match=f"n_groups is {wrong}; it must lie in 1"):
            random_groups(ratings, wrong, rng=rng)


def test_a_shuffled_stream_has_the_same_rounds_in_another_order():
    stream = movielens_stream(a_few_ratings(), n_users=5)
    other = shuffled(stream, rng=np.random.default_rng(2))

    def table(one):
        return np.column_stack([one.contexts, one.rewards])

    assert other != stream and other.source == f"{stream.source}; in random order"
    assert sorted(table(other).tolist()) == sorted(table(stream).tolist())
    at = np.random.default_rng(2).permutation(stream.n_rounds)
    np.testing.assert_array_equal(table(other), table(stream)[at])


# --- files larger than memory

EVENTS = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from([5, 6, 7]), st.integers(0, 9)),
    min_size=1,
    max_size=30,
)
WITHOUT_GENRE = "5,A,War\n6,B,Drama|War\n7,C,(no genres listed)\n"


def written_parquet(folder, **columns):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(columns)
    pyarrow.parquet.write_table(table, folder / "ratings.parquet", row_group_size=3)
    (folder / "ratings.csv").unlink(missing_ok=True)


@settings(max_examples=40)
@given(events=EVENTS, n_users=st.integers(1, 5), block=st.integers(1, 7))
def test_the_most_active_users_alone_give_the_stream_of_all(
    tmp_path_factory, events, n_users, block
):
    rows = "".join(f"{u},{m},4.0,{t}\n" for u, m, t in events)
    path = tmp_path_factory.mktemp("ratings")
    folder = folder_with(path, rows, WITHOUT_GENRE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.line_blocks, "__defaults__", (block,))
        patch.setattr(module.parquet_blocks, "__defaults__", (block,))
        whole = load_ratings(folder)
        users = {u for u, m, _ in events if m != 7}
        n_users = min(n_users, len(users))
        if n_users:
            stream = movielens_stream(whole, n_users=n_users)
            some = load_ratings(folder, n_users=n_users)
            assert len(set(some.users.tolist())) == n_users
            assert movielens_stream(some, n_users=n_users) == stream
        u, m, t = map(list, zip(*events, strict=True))
        written_parquet(
            folder, timestamp=t, more=t, rating=[4.0] * len(t), movieId=m, userId=u
        )
        assert load_ratings(folder) == whole


def test_malformed_rows_of_parquet_are_reported_and_its_columns_asked_for(tmp_path):
    folder = folder_with(tmp_path, "1,5,4.0,9\n")
    rows = {"userId": [1, None, 2, 3, 3], "movieId": [5, 5, 6, 9, 5]}
    times = {"rating": [4.0, 4.0, 4.0, 4.0, 7.5], "timestamp": [9, 9, 8, 8, 7]}
    written_parquet(folder, **rows, **times)
    line = "3 malformed rows .ratings.parquet line 3: invalid .*line 5: movie 9 is not"
    for n_users in (None, 1):
        with pytest.raises(ValueError, match=line):
            load_ratings(folder, n_users=n_users)
    kept = load_ratings(folder, malformed="drop", n_users=2)
    assert kept.users.tolist() == [1, 2]
    assert [fault.line for fault in kept.faults] == [3, 5, 6]
    written_parquet(folder, **rows, rating=[4.0] * 5)
    missing = "ratings.parquet cannot be read as Parquet with columns userId, .*; give"
    with pytest.raises(ValueError, match=missing):
        load_ratings(folder)
    (folder / "ratings.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=missing):
        load_ratings(folder)
    with pytest.raises(ValueError, match="n_users is 0"):
        load_ratings(folder, n_users=0)


def test_memory_holds_the_chosen_users_and_a_block(tmp_path, monkeypatch):
    import tracemalloc

    monkeypatch.setattr(module.line_blocks, "__defaults__", (200,))
    users = np.repeat(np.arange(800), 10) + 1
    users[:200] = 1
    rows = "".join(f"{u},5,4.0,9\n" for u in users.tolist())
    folder, peaks = folder_with(tmp_path, rows), {}
    load_ratings(folder, n_users=1)  # imports and caches
    for n_users in (1, None):
        tracemalloc.start()
        loaded = load_ratings(folder, n_users=n_users)
        peaks[n_users] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(loaded.users) == (200 if n_users else len(users))
    assert peaks[1] < peaks[None] / 2
