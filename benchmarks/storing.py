"""How every benchmark begins and what it does with its table: whose it is, all or none.

A stored table belongs to a run with the same settings, whatever the versions and the
machine: the run adds to it, or measures it anew.  A run with other settings refuses and
leaves the file as it is.  The table's `versions` and `device` are those of the run that
began it; pieces that other versions or another device made are listed, each with its
own, under `made_elsewhere`.

A run in pieces goes through `prunefair.cluster.run_pieces`: one writer, here, stores
each piece as it is finished, and the table is the same whichever workers made it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from prunefair.cluster import BACKENDS, run_pieces

THEN = None  # between pieces and those that read them in the table


def options_of(doc: str, result: Path) -> argparse.ArgumentParser:
    """The options that every benchmark has: where its table is, `result` by default."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument(
        "--results", type=Path, default=result, help="the table, of these settings"
    )
    return parser


def in_pieces(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line says, with the options of `Table.fill`."""
    parser.add_argument("--only", default="", help="pieces whose place begins so")
    return with_engine(parser)


def with_engine(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line says, with those that `run_pieces` needs."""
    parser.add_argument(
        "--minutes",
        dest="deadline",
        type=lambda text: time.monotonic() + 60 * float(text),
        default=float("inf"),
    )
    parser.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0])
    parser.add_argument(
        "--workers",
        type=lambda text: int(text) or None,
        default=1,
        help="pieces at a time; 0 for as many as there are cores",
    )
    parser.add_argument("--scheduler", help="address of a cluster that runs")
    return parser.parse_args()


def cpu(threads: int = 1) -> str:
    """What a run without a GPU says of its device."""
    return f"{platform.machine()} CPU, {threads} of {os.cpu_count()} cores"


class OncePerProcess:
    """What is not sent to a worker, but made there once for all its pieces."""

    given = ()  # what it is made with

    def __reduce__(self):
        return made_once, (type(self), *self.given)


@functools.cache
def made_once(kind: type, *given):
    return kind(*given)


def once(method, *, latest: bool = False):
    """A method that computes each answer once, and that workers can read.

    They cannot read a `functools.cache` in a class of the script that is run.
    """

    @functools.wraps(method)
    def answer(self, *asked):
        known = self.__dict__.setdefault(f"known {method.__name__}", {})
        if asked not in known:
            if latest:
                known.clear()
            known[asked] = method(self, *asked)
        return known[asked]

    return answer


latest = functools.partial(once, latest=True)  # keeps one answer, the last


@contextlib.contextmanager
def one_thread():
    """Numbers of linear algebra that do not depend on how many threads there are."""
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    before = torch and torch.get_num_threads()
    with threadpool_limits(1):
        if torch:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)


def made(make, made_by) -> tuple:
    """What `make` gives, who made it, and in how many seconds of processor time."""
    with one_thread():
        start = time.process_time()
        value = make()
        return value, made_by(), time.process_time() - start


def run_by(options: argparse.Namespace, pieces, *, whole: bool = False):
    """`run_pieces` as the command line has it; the whole of it takes its time."""
    return run_pieces(
        pieces,
        backend=options.backend,
        workers=options.workers,
        scheduler=options.scheduler,
        seconds=float("inf") if whole else options.deadline - time.monotonic(),
    )


def maker(packages: tuple[str, ...], device) -> dict:
    """Versions and device of this process."""
    device = device() if callable(device) else device
    return {"versions": versions(*packages), "device": device}


@contextlib.contextmanager
def whole_file(path: Path):
    """Name to write a file under before it gets its own: none is half written."""
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as folder:
        yield Path(folder) / path.name
        os.replace(Path(folder) / path.name, path)


def write_whole(path: Path, text: str) -> None:
    with whole_file(path) as whole:
        whole.write_text(text, encoding="utf-8")


def read_table(path: Path) -> dict:
    """The stored table, empty if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_table(path: Path, table: dict) -> None:
    write_whole(path, json.dumps(table, indent=1) + "\n")


def versions(*names: str) -> dict[str, str]:
    """Version of Python and of each installed package."""
    return {"python": platform.python_version()} | {n: version(n) for n in names}


def check_same(path: Path, stored: dict, settings: dict) -> None:
    """End unless a stored table, if there is one, was made with these settings."""
    settings = json.loads(json.dumps(settings))  # as a file gives them back
    names = {*settings, *stored} if stored else ()
    other = sorted(n for n in names if settings.get(n) != stored.get(n))
    if other:
        raise SystemExit(
            f"error: {path} was made with another {', '.join(other)} and does not "
            "belong to this run; name another file, or move it away"
        )


class Table(dict):
    """A stored table as a run with the same settings goes on with it.

    Nothing is written before the first piece; `path` may not exist.  `device` is a
    text, or a function that names the device of the process that calls it.
    """

    def __init__(self, path: Path, configuration: dict, *packages: str, device):
        stored = read_table(path)
        check_same(path, stored.get("configuration", {}), configuration)
        self.path, self.places = path, {}
        self.made_by = functools.partial(maker, packages, device)
        self.here = self.made_by()
        super().__init__(stored or {"configuration": configuration} | self.here)

    def has(self, *place: str) -> bool:
        """Whether there is a piece at a place: the keys that lead to it."""
        inner = self
        for name in place:
            if name not in inner:
                return False
            inner = inner[name]
        return True

    def add(self, value, *place: str, made_by: dict | None = None) -> None:
        """Store a piece that was made now, here, and the table with it."""
        inner = self
        for name in place[:-1]:
            inner = inner.setdefault(name, {})
        inner[place[-1]] = value
        self.say_where("/".join(place), made_by or self.here)
        self.in_order()
        self.write()

    def fill(self, pieces, options: argparse.Namespace, say) -> bool:
        """Add what is asked for and not there, while there is time; whether all is.

        `pieces` gives the place of each and the function that makes it, and `THEN`
        before a piece that reads earlier ones, without which it is not made.
        """
        for stage in stages(pieces):
            self.places |= {name: None for place, _ in stage for name in steps(place)}
            lacking = [
                (place, functools.partial(made, make, self.made_by))
                for place, make in stage
                if not self.has(*place) and "/".join(place).startswith(options.only)
            ]
            for place, (value, made_by, seconds) in run_by(options, lacking):
                self.add(value, *place, made_by=made_by)
                say(*place, f"in {seconds:.0f} s")
            if not all(self.has(*place) for place, _ in stage):
                return False  # what comes then may read what is not there
        return True

    def in_order(self) -> None:
        """Pieces in the order in which `fill` was told them, whenever they came."""
        number = {name: n for n, name in enumerate(self.places)}

        def arrange(inner: dict, *above: str) -> None:
            ranks = {key: number.get((*above, key)) for key in inner}
            told = iter(
                sorted((k for k in inner if ranks[k] is not None), key=ranks.get)
            )
            keys = [k if ranks[k] is None else next(told) for k in inner]
            parts = {key: inner[key] for key in keys}
            inner.clear()
            inner.update(parts)
            for key in keys:
                if ranks[key] is not None and isinstance(inner[key], dict):
                    arrange(inner[key], *above, key)

        arrange(self)

    def say_where(self, name: str, made_by: dict) -> None:
        """Note which versions and device made a piece, where they are others."""
        elsewhere = self.setdefault("made_elsewhere", {})
        elsewhere.pop(name, None)
        if made_by != {key: self[key] for key in made_by}:
            elsewhere[name] = made_by
        del self["made_elsewhere"]
        if elsewhere:
            self["made_elsewhere"] = dict(sorted(elsewhere.items()))

    def replace(self, pieces: dict) -> None:
        """Store all pieces, made now and here, in the place of all that were."""
        configuration = self["configuration"]
        self.clear()
        self.update(pieces | {"configuration": configuration} | self.here)
        self.write()

    def write(self) -> None:
        """The table, whole."""
        write_table(self.path, self)


def stages(pieces):
    """Pieces that can be made side by side: those up to the next `THEN`."""
    stage = []
    for piece in pieces:
        if piece is not THEN:
            stage.append(piece)
        elif stage:
            yield stage
            stage = []
    yield stage


def steps(place: tuple[str, ...]):
    """A place and those that it lies in."""
    return [place[: n + 1] for n in range(len(place))]


def tensors_once(folder: Path, name: str, make) -> dict:
    """Tensors by name that `make` makes where `folder` does not hold them yet."""
    from safetensors.torch import load_file, save_file

    path = folder / f"{name}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.contiguous() for k, v in make().items()}
        with whole_file(path) as partial:  # other workers may write it, too
            save_file(tensors, partial)
    return load_file(path)
