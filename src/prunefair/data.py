"""Evaluation sets and ratings: from a folder, or from their publishers."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path | None:
    """Folder given by `PRUNEFAIR_DATA`, or `../shared/data` beside a checkout."""
    given = os.environ.get("PRUNEFAIR_DATA")
    if given:
        return Path(given)
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    return shared if shared.is_dir() else None


def data_file(name: str) -> Path:
    """Path of the data file `name`, such as `"wikitext2/test.txt"`."""
    folder = data_folder()
    if folder is None or not (folder / name).is_file():
        raise FileNotFoundError(name)
    return folder / name
