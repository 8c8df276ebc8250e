"""What `import prunefair` offers: few names, each that of its room, none early."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import prunefair

PACKAGE = Path(prunefair.__file__).parent


def declared_for_type_checkers():
    """Module of each name that the block for type checkers imports."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_every_offered_name_is_what_its_room_defines_and_type_checkers_know_it():
    rooms = declared_for_type_checkers()
    assert sorted(rooms) == prunefair.__all__ == sorted(prunefair._HOMES)
    for name, module in rooms.items():
        offered = getattr(prunefair, name)
        assert offered is getattr(importlib.import_module(module), name)
        assert offered.__module__ == module  # where it is defined, not passed on


def test_the_facade_lists_what_it_offers_and_refuses_what_it_does_not():
    assert set(prunefair.__all__) <= set(dir(prunefair))
    with pytest.raises(AttributeError, match="'prunefair' has no attribute 'prunes'"):
        prunefair.prunes  # noqa: B018


@pytest.mark.parametrize(
    "name", ["FairCB", "LateGradient", "ks_profile", "movielens_figures", "_HOMES2"]
)
def test_what_is_elsewhere_is_refused_with_its_address(name):
    homes = {"FairCB": "fairness.baselines", "LateGradient": "fairness.late_feedback"}
    home = homes.get(name)
    with pytest.raises(ImportError) as caught:
        exec(f"from prunefair import {name}")
    if home is None:
        assert str(caught.value).startswith(f"cannot import name '{name}'")
        assert not hasattr(prunefair, name)
    else:
        words = f"{name} is elsewhere; write: from prunefair.{home} import {name}"
        assert str(caught.value) == words
        exec(words.partition("write: ")[2])


def test_importing_the_package_and_part_two_load_no_torch():
    code = (
        "import sys, prunefair; early = set(sys.modules); prunefair.AlphaFairGradient;"
        "heavy = {'torch', 'transformers'};"
        "early &= heavy | {'numpy', 'matplotlib', 'cvxpy'};"
        "print(sorted(early), sorted(heavy & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] []\n"
