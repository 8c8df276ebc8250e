"""Re-execution is deterministic, and a failing chapter is left as it was."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import execute  # noqa: E402


@pytest.fixture
def write(tmp_path):
    def notebook(*sources):
        path = tmp_path / "chapter.ipynb"
        cells = [
            nbformat.v4.new_code_cell(source, metadata={"tags": ["kept"], "odd": 1})
            for source in sources
        ]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return notebook


def outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    return "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for cell in cells
        for output in cell.outputs
    )


def test_executing_twice_gives_the_same_bytes(write):
    path = write(
        "import matplotlib.pyplot as plt, os\nprint({'a', 'b', 'c'}, os.getcwd())",
        "print(object())",
        "from prunefair.plotting import figure\nwith figure() as ax: ax.plot([1, 2])",
    )
    execute.main([str(path)])
    first = path.read_bytes()
    execute.main([str(path)])
    assert path.read_bytes() == first
    assert b"image/png" in first


def test_addresses_folders_times_and_odd_metadata_are_not_stored(write):
    path = write(f"print(object(), {sys.prefix!r}, {str(ROOT / 'book')!r})")
    execute.main([str(path)])
    assert outputs(path) == "<object object at 0x0> ENV ./book\n"
    cell = nbformat.read(path, as_version=4).cells[0]
    assert cell.metadata == {"tags": ["kept"]}


def test_a_failing_cell_raises_and_leaves_the_file_unchanged(write):
    path = write("1 / 0")
    before = path.read_bytes()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute.execute(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
