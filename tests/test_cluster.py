"""Pieces on several workers: the same table, also if a worker is killed."""

import functools
import json
import os
import signal
import threading
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest

from prunefair import cluster
from prunefair.cluster import run_pieces


def options_of(**given):
    options = {"backend": "processes", "workers": 1, "scheduler": None, "only": ""}
    return Namespace(**options | {"deadline": float("inf")} | given)


def noted(folder):
    """A piece of a table, drawn by its place, that notes who makes it, and when.

    The piece called slow waits until whoever tries it first is gone.
    """

    def piece(*place):
        import os
        import time

        import numpy as np

        log = folder / "-".join(place)
        with open(log, "a") as file:
            file.write(f"{os.getpid()} ")
        while "slow" in place and len(log.read_text().split()) == 1:
            time.sleep(0.01)
        rng = np.random.default_rng([7, *"/".join(place).encode()])
        A = rng.standard_normal((60, 60))
        return (A @ A.T).sum(0)[:3].tolist()

    return piece


PLACES = [("a", "slow"), ("a", "1"), ("b",), *(("c", str(n)) for n in range(6))]


def filled(folder, *, kill=False, **given):
    """Bytes of the table, attempts at each place, how often each was stored, and those
    that were before the kill."""
    from storing import THEN, Table

    class Counted(Table):
        stored = Counter()

        def add(self, value, *place, **made_by):
            self.stored[place] += 1
            super().add(value, *place, **made_by)

    folder.mkdir()
    early, piece, Counted.stored = [], noted(folder), Counter()
    table = Counted(folder / "table.json", {"n": 1}, "numpy", device="here")

    def pieces():
        for place in PLACES:
            yield place, functools.partial(piece, *place)
        yield THEN
        total = sum(table["c"][str(n)][0] for n in range(6))
        yield ("total",), lambda: total

    def killer():
        log = folder / "a-slow"
        while not log.exists() or not log.read_text().endswith(" "):
            time.sleep(0.01)
        while kill and len(table.stored) < 2:  # in the middle
            time.sleep(0.01)
        early.extend([*table.stored])
        os.kill(int(log.read_text()), signal.SIGKILL)

    if kill:
        threading.Thread(target=killer, daemon=True).start()
    else:
        (folder / "a-slow").write_text("none ")
    table.fill(pieces(), options_of(**given), lambda *_: None)
    tries = {p: len((folder / "-".join(p)).read_text().split()) for p in PLACES}
    return (folder / "table.json").read_bytes(), tries, table.stored, early


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("alone") / "here")


@pytest.mark.parametrize("backend", ["processes", "dask"])
def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(
    backend, alone, tmp_path
):
    found, tries, stored, early = filled(
        tmp_path / "x", kill=True, backend=backend, workers=2
    )
    assert found == alone[0]
    assert tries["a", "slow"] == 2  # the one that was killed was run again
    assert stored == {place: 1 for place in [*PLACES, ("total",)]}
    assert len(early) >= 2 and {tries[p] for p in early} == {
        1
    }  # what was there was not


def test_a_worker_that_always_dies_ends_the_run(monkeypatch):
    monkeypatch.setattr(cluster, "DEATHS", 0)
    die = [("die", lambda: os.kill(os.getpid(), signal.SIGKILL)), ("b", lambda: 2)]
    with pytest.raises(RuntimeError, match=r"worker died 1 times .*; give it more"):
        list(run_pieces([*die[:1], ("c", lambda: time.sleep(9))], workers=2))


def test_what_fails_says_so_and_what_was_finished_is_kept():
    got = []
    with pytest.raises(ZeroDivisionError):
        for place, _ in run_pieces([("a", int), ("b", lambda: 1 / 0), ("c", int)]):
            got.append(place)
    assert got == ["a"]


def test_no_piece_is_begun_when_time_is_up():
    assert list(run_pieces([("a", int)], seconds=0)) == []
    slow = [(n, functools.partial(time.sleep, 0.05)) for n in range(9)]
    assert [place for place, _ in run_pieces(slow, seconds=0.08)] == [0, 1]


TWO = [("a", int), ("b", int)]
WRONG = {
    "backend": ({"backend": "mpi"}, ValueError, "backend is 'mpi'; give one of proc"),
    "workers": ({"workers": 0}, ValueError, "workers is 0; "),
    "scheduler": (
        {"scheduler": "tcp://x:1"},
        ValueError,
        "scheduler is 'tcp://x:1', which only dask and ray have; give backend='dask'",
    ),
    "nobody": (
        {"scheduler": "tcp://127.0.0.1:9", "backend": "dask"},
        ConnectionError,
        "scheduler is 'tcp://127.0.0.1:9', where no dask scheduler answers",
    ),
    "no address": (
        {"scheduler": "nonsense:x", "backend": "dask"},
        ConnectionError,
        "scheduler is 'nonsense:x', where no dask scheduler answers",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_told_in_one_line(name):
    import dask

    given, kind, line = WRONG[name]
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(kind, match=line) as caught,
    ):
        list(run_pieces(TWO, **given))
    assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value)


def test_two_pieces_with_one_place_and_an_engine_that_is_missing_are_told(monkeypatch):
    with pytest.raises(ValueError, match="pieces has two with one place"):
        run_pieces([*TWO, TWO[0]])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for backend, package in (("dask", "distributed"), ("ray", "ray")):
        with pytest.raises(ModuleNotFoundError, match=f"pip install {package}, or"):
            list(run_pieces(TWO, backend=backend))


def test_what_all_pieces_read_is_made_once_in_a_process():
    from storing import OncePerProcess

    class Bench(OncePerProcess):
        made = 0

        def __init__(self):
            type(self).made += 1
            self.number = self.made

        def read(self):
            return os.getpid(), self.number

    reads = [(n, Bench().read) for n in range(6)]
    found = [value for _, value in run_pieces(reads, workers=2)]
    assert os.getpid() not in dict(found)
    assert len(set(found)) == len(dict(found))  # one number in each process


READ_BY_A_WORKER = """
import functools, sys
from storing import once
from prunefair.cluster import run_pieces

class Bench:
    @KEPT
    def value(self, n):
        return 7 * n

    def piece(self, n):
        return self.value(n), self.value(n)

if __name__ == "__main__":
    pieces = [(n, functools.partial(Bench().piece, n)) for n in (1, 2)]
    print(sorted(run_pieces(pieces, workers=2)))
"""


@pytest.mark.parametrize("kept", ["once", "functools.cache"])
def test_what_a_worker_cannot_read_is_told_and_once_can_be(kept, tmp_path):
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(READ_BY_A_WORKER.replace("KEPT", kept))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True
    )
    if kept == "once":
        assert run.stdout == "[(1, (7, 7)), (2, (14, 14))]\n"
    else:
        error = run.stderr.strip().splitlines()[-1]
        assert error.startswith("TypeError: pieces has one that a worker cannot read")


def test_answers_are_kept_for_each_object_and_question():
    from storing import latest, once

    class Bench:
        asked = 0

        @once
        def value(self, n):
            self.asked += 1
            return n

        @latest
        def last(self, n):
            self.asked += 1
            return n

    a, b = Bench(), Bench()
    assert [a.value(1), a.value(2), a.value(1), b.value(1)] == [1, 2, 1, 1]
    assert (a.asked, b.asked) == (2, 1)
    assert [a.last(1), a.last(1), a.last(2), a.last(1)] == [1, 1, 2, 1]
    assert a.asked == 5


def test_places_are_ordered_as_they_are_told_and_others_keep_theirs(tmp_path):
    from storing import Table

    table = Table(tmp_path / "t.json", {}, device="here")
    table.update(first=1, a={"y": 1}, last=2)
    table.places = dict.fromkeys([("b",), ("a",), ("a", "x"), ("a", "y"), ("c",)])
    table.add(3, "a", "x")
    table.add(4, "c")
    table.add(5, "b")
    kept = ["configuration", "versions", "device", "first"]
    assert [*table] == [*kept, "b", "last", "a", "c"]
    assert [*table["a"]] == ["x", "y"]


def test_the_page_says_what_was_measured():
    book = Path(__file__).parents[1] / "book"
    page = (book / "cluster.md").read_text(encoding="utf-8")
    found = json.loads((book / "results" / "cluster.json").read_text())
    one, two = (found["runs"][f"processes, {n}"] for n in (1, 2))
    gain, each = found["speed_up"]["processes"], found["overhead_seconds"]
    written, short = found["writing_seconds"], found["predicted_seconds"]["1"]
    assert found["same_values"]
    load = float(found["load"].split("average ")[1].split()[0])
    for text in (
        f"a load average of {load}, {found['pieces']} pieces of "
        f"{found['piece_seconds'][1]:.2f} s took {one['wall']:.1f} s one after the "
        f"other and {two['wall']:.1f} s with two workers, {gain['measured']} times as",
        f"took {two['processor'] / one['processor'] - 1:.0%} more".replace("%", " %"),
        f"two free cores would allow {gain['undisturbed']} times",
        f"takes {1000 * each['processes, 2']:.2f} ms for a piece with two processes "
        f"and {1000 * each['dask, 2']:.0f} ms with Dask",
        f"{1000 * written['100']:.1f} ms with a hundred pieces, "
        f"{1000 * written['10000']:.0f} ms with ten thousand",
        f"a thousand times both, {found['busy_from_seconds']['1000']:.0f} s",
        *(
            f"| {int(w):,} | {short[w]:,.0f} s | {longer:,.0f} s |"
            for w, longer in found["predicted_seconds"]["100"].items()
        ),
    ):
        assert text in page, text


def test_the_page_says_what_millions_of_ratings_take():
    book = Path(__file__).parents[1] / "book"
    page = (book / "cluster.md").read_text(encoding="utf-8")
    table = json.loads((book / "results" / "many_ratings.json").read_text())
    for name, row in table["played"].items():
        dataset, kind = name.split()
        kinds = {"csv": "CSV", "parquet": "Parquet", "whole": "CSV, all kept"}
        what = (kinds | {"all": "CSV, all played"})[kind]
        line = (
            f"| {dataset} | {what} | {row['rows']:,} | "
            f"{row['processor_seconds']:.0f} s | {row['wall_seconds']:.0f} s | "
            f"{row['peak_bytes'] / 1e6:,.0f} MB |"
        )
        assert line in page, line
    rounds = table["played"]["ml-32m all"]["rounds"]
    assert f"{rounds / 1e6:.1f} million rounds" in page
