"""What every benchmark does with its table: name the versions, and write it whole."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path


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
