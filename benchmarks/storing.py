"""How every benchmark begins and what it does with its table: whose it is, all or none.

A stored table belongs to a run with the same settings, whatever the versions and the
machine: the run adds to it, or measures it anew.  A run with other settings refuses and
leaves the file as it is.  The table's `versions` and `device` are those of the run that
began it; pieces that other versions or another device made are listed, each with its
own, under `made_elsewhere`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path


def options_of(doc: str, result: Path) -> argparse.ArgumentParser:
    """The options that every benchmark has: where its table is, `result` by default."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument(
        "--results", type=Path, default=result, help="the table, of these settings"
    )
    return parser


def in_pieces(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line says, with the options of `Table.fill`."""
    parser.add_argument(
        "--minutes",
        dest="deadline",
        type=lambda text: time.monotonic() + 60 * float(text),
        default=float("inf"),
    )
    parser.add_argument("--only", default="", help="pieces whose place begins so")
    return parser.parse_args()


def cpu(threads: int = 1) -> str:
    """What a run without a GPU says of its device."""
    return f"{platform.machine()} CPU, {threads} of {os.cpu_count()} cores"


def write_whole(path: Path, text: str) -> None:
    """Write a file under a name of its own, then rename it: none is half written."""
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as folder:
        whole = Path(folder) / path.name
        whole.write_text(text, encoding="utf-8")
        os.replace(whole, path)


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

    Nothing is written before the first piece; `path` may not exist.
    """

    def __init__(self, path: Path, configuration: dict, *packages: str, device: str):
        stored = read_table(path)
        check_same(path, stored.get("configuration", {}), configuration)
        self.path = path
        self.here = {"versions": versions(*packages), "device": device}
        super().__init__(stored or {"configuration": configuration} | self.here)

    def has(self, *place: str) -> bool:
        """Whether there is a piece at a place: the keys that lead to it."""
        inner = self
        for name in place:
            if name not in inner:
                return False
            inner = inner[name]
        return True

    def add(self, value, *place: str) -> None:
        """Store a piece that was made now, here, and the table with it."""
        inner = self
        for name in place[:-1]:
            inner = inner.setdefault(name, {})
        inner[place[-1]] = value
        self.say_where("/".join(place))
        self.write()

    def fill(self, pieces, options: argparse.Namespace, say) -> None:
        """Add every piece that is asked for and not there, while there is time.

        `pieces` gives the place of each and the function that makes it.
        """
        for place, make in pieces:
            if time.monotonic() > options.deadline:
                return
            if not self.has(*place) and "/".join(place).startswith(options.only):
                start = time.process_time()
                self.add(make(), *place)
                say(*place, f"in {time.process_time() - start:.0f} s")

    def say_where(self, name: str) -> None:
        """Note which versions and device made a piece, where they are others."""
        elsewhere = self.setdefault("made_elsewhere", {})
        elsewhere.pop(name, None)
        if self.here != {key: self[key] for key in self.here}:
            elsewhere[name] = self.here
        if not elsewhere:
            del self["made_elsewhere"]

    def replace(self, pieces: dict) -> None:
        """Store all pieces, made now and here, in the place of all that were."""
        configuration = self["configuration"]
        self.clear()
        self.update(pieces | {"configuration": configuration} | self.here)
        self.write()

    def write(self) -> None:
        """The table, whole."""
        write_table(self.path, self)


def tensors_once(folder: Path, name: str, make) -> dict:
    """Tensors by name that `make` makes where `folder` does not hold them yet."""
    from safetensors.torch import load_file, save_file

    path = folder / f"{name}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file({k: v.contiguous() for k, v in make().items()}, partial)
        partial.rename(path)
    return load_file(path)
