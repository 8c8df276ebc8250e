"""The examples in docstrings do what they show."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
FOUND = [
    (".".join(path.relative_to(SOURCE).with_suffix("").parts), node.name)
    for path in sorted(SOURCE.rglob("*.py"))
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef | ast.ClassDef)
    and ">>> " in (ast.get_docstring(node) or "")
]


def test_the_names_that_people_use_have_examples():
    names = [name for _, name in FOUND]
    assert len(names) == len(set(names)) >= 20
    assert {"ks_distance", "make_policy", "load_model", "zero_shot"} <= set(names)


@pytest.mark.parametrize(("module", "name"), FOUND)
def test_an_example_does_what_it_shows(module, name):
    value = getattr(importlib.import_module(module), name)
    text = value.__doc__
    assert "Examples\n" in text
    example = doctest.DocTestParser().get_doctest(text, {}, name, module, 0)
    assert any(step.want for step in example.examples), "it shows nothing"
    said = []
    failed = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(
        example, out=said.append
    )
    assert not failed.failed, "".join(said)
