"""Stored tables of the benchmarks: whose they are, and who made their pieces."""

import ast
import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from prunefair.pruning.refit import RIDGES

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
STORING = [path for path in SCRIPTS if "RESULT =" in path.read_text()]
SECOND = ROOT / "book" / "results" / "pruning_methods_gemma3.json"
REPAIRS = SECOND.with_name("pruning_methods_repairs.json")
LAYERS = SECOND.with_name("layer_budgets_gemma3.json")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def opened(path, device, configuration=None, **known):
    from storing import Table

    table = Table(path, configuration or {"n": 3, "sizes": (1, 2)}, device=device)
    table.here["versions"] = known or {"python": "3"}
    if not path.exists():
        table["versions"] = table.here["versions"]
    return table


def test_a_table_is_begun_with_the_first_piece_and_taken_up_again(tmp_path):
    path = tmp_path / "table.json"
    table = opened(path, "here")
    assert not path.exists() and not table.has("runs", "a")
    table.add(1, "runs", "a")
    again = opened(path, "here")
    assert again.has("runs", "a") and not again.has("runs", "b")
    again.add([2], "runs", "b")
    assert json.loads(path.read_text()) == {
        "configuration": {"n": 3, "sizes": [1, 2]},
        "versions": {"python": "3"},
        "device": "here",
        "runs": {"a": 1, "b": [2]},
    }


def test_pieces_keep_the_versions_and_the_device_that_made_them(tmp_path):
    path = tmp_path / "table.json"
    opened(path, "here").add(1, "runs", "a")
    opened(path, "there").add(2, "runs", "b")
    opened(path, "here", python="4").add(3, "total")
    table = opened(path, "here")
    assert (table["device"], table["versions"]) == ("here", {"python": "3"})
    there = {"versions": {"python": "3"}, "device": "there"}
    later = {"versions": {"python": "4"}, "device": "here"}
    assert table["made_elsewhere"] == {"runs/b": there, "total": later}
    table.add(4, "runs", "b")  # measured anew where the table was begun
    assert table["made_elsewhere"] == {"total": later}
    opened(path, "there").replace({"runs": {"a": 5}})
    table = opened(path, "here")
    assert table == {"configuration": table["configuration"], "runs": {"a": 5}} | there


@pytest.mark.parametrize("other", [{"n": 4, "sizes": (1, 2)}, {"n": 3}, {"x": 1}])
def test_a_table_of_other_settings_is_left_as_it_is(tmp_path, other):
    path = tmp_path / "table.json"
    opened(path, "here").add(1, "runs", "a")
    before = path.read_bytes()
    with pytest.raises(SystemExit, match="was made with another .*; name another file"):
        opened(path, "here", other)
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", STORING, ids=lambda p: p.stem)
def test_every_benchmark_asks_whose_the_table_is_before_it_writes(path):
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]
    assert {"Table", "Figures", "check_same"} & set(calls)
    assert "write_table" not in calls or "check_same" in calls
    assert "versions" not in calls or "check_same" in calls


@pytest.mark.parametrize("path", STORING, ids=lambda p: p.stem)
def test_every_benchmark_writes_its_table_where_it_is_told(path):
    tree = ast.parse(path.read_text())
    main = next(n for n in tree.body if getattr(n, "name", "") == "main")
    assert not main.args.args, "options come from the command line"
    called = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
    assert "options_of" in called and "ArgumentParser" not in " ".join(called)
    assert "options.results" in path.read_text()
    uses = [n for n in ast.walk(tree) if getattr(n, "id", "") == "RESULT"]
    assert len(uses) == 2, "where it is defined, and as the default"


@pytest.mark.parametrize("path", STORING, ids=lambda p: p.stem)
def test_every_benchmark_takes_workers_or_says_why_it_has_none(path):
    tree = ast.parse(path.read_text())
    called = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    workers = bool({"in_pieces", "with_engine"} & called)
    assert workers != ("Not in pieces" in ast.get_docstring(tree))
    assert not {"Parallel", "Pool", "ProcessPoolExecutor"} & called
    for node in ast.walk(tree):  # a worker cannot read these in a class of the script
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            known = [ast.unparse(d) for d in getattr(inner, "decorator_list", ())]
            words = {word for d in known for word in re.findall(r"\w+", d)}
            assert not {"cache", "lru_cache"} & words


def test_options_begin_with_the_table(tmp_path):
    from storing import options_of

    parser = options_of("What it does.\n\nMore.", tmp_path / "a.json")
    assert parser.description == "What it does."
    assert parser.parse_args([]).results == tmp_path / "a.json"
    assert parser.parse_args(["--results", "b.json"]).results == Path("b.json")


def ridges_in(stored, name=""):
    """Every ridge of a table, wherever it stands."""
    if isinstance(stored, dict):
        for key, value in stored.items():
            yield from ridges_in(value, key)
    elif name == "ridge" and isinstance(stored, float):
        yield stored


def test_no_stored_ridge_ends_the_grid_it_was_chosen_from():
    tables = (ROOT / "book" / "results").glob("*.json")
    found = [r for path in tables for r in ridges_in(json.loads(path.read_text()))]
    assert len(found) > 60 and all(RIDGES[0] < ridge < RIDGES[-1] for ridge in found)


def test_no_benchmark_is_left_out():
    tables = {path.stem for path in (ROOT / "book" / "results").glob("*.json")}
    # of tools/colab.py, and of benchmarks that measure a second model
    others = {"colab", SECOND.stem, REPAIRS.stem, LAYERS.stem}
    assert others < tables and len(STORING) == len(tables - others) >= 18


@pytest.mark.parametrize("path", STORING, ids=lambda p: p.stem)
def test_the_tracked_table_belongs_to_its_benchmark(path):
    module = importlib.import_module(path.stem)
    stored = json.loads(module.RESULT.read_text())
    assert {"versions", "device"} <= set(stored)
    if hasattr(module, "CONFIGURATION"):
        settings = json.loads(json.dumps(module.CONFIGURATION))
        assert stored["configuration"] == settings


@pytest.mark.parametrize(
    "path, model", [(SECOND, "gemma3"), (REPAIRS, "smollm2"), (LAYERS, "gemma3")]
)
def test_further_tables_belong_to_the_benchmark_with_their_model(path, model):
    name = "layer_budgets" if path == LAYERS else "pruning_methods"
    module = importlib.import_module(name)
    stored = json.loads(path.read_text())
    settings = json.loads(json.dumps(module.CONFIGURATIONS[model]))
    assert stored["configuration"] == settings
    assert {"versions", "device"} <= set(stored)


def run(monkeypatch, module, *options):
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, options)])
    module.main()


def test_learning_curves_of_more_seeds_are_added_and_other_layers_refused(
    tmp_path, monkeypatch
):
    import policy_learning_curves as module

    asked, path = [], tmp_path / "table.json"
    path.write_bytes(module.RESULT.read_bytes())
    monkeypatch.setattr(module, "load_model", lambda name: None)
    monkeypatch.setattr(module, "gate_matrices", lambda model: [torch.ones(2, 2)] * 4)
    monkeypatch.setattr(module, "run", lambda *place: asked.append(place[0]) or {})
    monkeypatch.setattr(module, "levels", lambda W, seeds: {"random": [*seeds]})
    run(monkeypatch, module, "--results", path)
    assert asked == [] and path.read_bytes() == module.RESULT.read_bytes()
    run(monkeypatch, module, "--results", path, "--full-seeds", 4)
    assert asked == [*module.METHODS]
    before = path.read_bytes()
    with pytest.raises(SystemExit, match="another every and does not belong"):
        run(monkeypatch, module, "--results", path, "--every", 5)
    assert path.read_bytes() == before


def test_the_figures_table_is_whole_and_smaller_settings_leave_it_alone(
    tmp_path, monkeypatch
):
    import movielens_figures as module

    path = tmp_path / "table.json"
    path.write_bytes(module.RESULT.read_bytes())
    monkeypatch.setattr(module, "draw", lambda table, folder: None)
    monkeypatch.setattr(module, "plain", pytest.fail)  # nothing is computed
    run(monkeypatch, module, "--results", path)
    for option in ("points", "alphas", "floors", "runs", "sweep-runs"):
        name = option.replace("-", "_")
        with pytest.raises(SystemExit, match=f"another {name} and does not belong"):
            run(monkeypatch, module, "--results", path, f"--{option}", 4)
    assert path.read_bytes() == module.RESULT.read_bytes()


def test_a_run_in_pieces_makes_what_is_asked_for_and_none_twice(tmp_path, monkeypatch):
    from storing import in_pieces, options_of, tensors_once

    made, path = [], tmp_path / "table.json"

    def pieces():
        for place in (("a", "x"), ("a", "y"), ("b",)):
            yield place, lambda place=place: made.append(place) or len(made)

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["it.py", *options])
        given = in_pieces(options_of("A run.", path))
        opened(path, "here", {"n": 3}).fill(pieces(), given, lambda *_: None)
        return json.loads(path.read_text()) if path.exists() else {}

    assert run("--minutes", "0") == {} == run("--only", "c")
    assert run("--only", "a/y")["a"] == {"y": 1}
    table = run()
    assert (table["a"], table["b"]) == ({"y": 1, "x": 2}, 3) and run() == table
    assert made == [("a", "y"), ("a", "x"), ("b",)]
    tensors = lambda: made.append("t") or {"t": torch.arange(3).flip(0)}  # noqa: E731
    for _ in range(2):
        found = tensors_once(tmp_path / "new", "t", tensors)["t"]
        assert found.tolist() == [2, 1, 0]
    assert made.count("t") == 1
