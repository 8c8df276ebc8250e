"""Execute chapters from their first cell and store them in one normal form.

    python tools/execute.py [NOTEBOOK ...]     # all chapters by default

A second run gives the same bytes: no times, no counters of other runs, no addresses
and no absolute paths are stored, and the kernel runs with one thread.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from pairs import metadata

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm without ipywidgets
}
CELL_METADATA = ("cell_marker", "lines_to_next_cell", "tags")


def scrub(text: str) -> str:
    """`text` without addresses and without the folders of this machine."""
    for folder, name in ((sys.prefix, "ENV"), (ROOT, "."), (Path.home(), "~")):
        text = text.replace(str(folder), name)
    return re.sub(r" at 0x[0-9a-f]+", " at 0x0", text)


def _scrubbed(value):
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, list):
        return [_scrubbed(part) for part in value]
    if isinstance(value, dict):
        return {
            key: part if key.startswith("image/") else _scrubbed(part)
            for key, part in value.items()
        }
    return value


def normalise(notebook) -> None:
    """Bring `notebook` into normal form, in place."""
    notebook.metadata = nbformat.from_dict(metadata(notebook))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        kept = {
            key: cell.metadata[key] for key in CELL_METADATA if key in cell.metadata
        }
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            cell.outputs = [nbformat.from_dict(_scrubbed(o)) for o in cell.outputs]


def execute(path: Path) -> None:
    """Run every cell of `path` in a fresh kernel and store the outputs.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails; the file is unchanged then.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    normalise(notebook)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as partial:
        nbformat.write(notebook, partial)
    os.replace(partial.name, path)
    path.chmod(0o644)


def main(arguments: list[str]) -> None:
    """Execute the named chapters, or all of them."""
    os.environ.update(ENVIRONMENT)
    paths = [Path(name).resolve() for name in arguments]
    for path in paths or sorted((ROOT / "book").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        start = time.perf_counter()
        execute(path)
        print(f"{os.path.relpath(path, ROOT)}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
