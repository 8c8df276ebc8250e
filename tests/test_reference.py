"""The reference pages say what the package is: modules, names, commands."""

import importlib
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import prunefair

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import reference  # noqa: E402

from prunefair import cli  # noqa: E402


def test_every_module_with_public_names_has_its_page_and_no_other(tmp_path):
    stale = tmp_path / "fairness" / "gone.md"
    stale.parent.mkdir()
    stale.write_text("# gone")
    reference.write_pages(tmp_path)
    pages = {
        path.relative_to(tmp_path).with_suffix("").as_posix().replace("/", "."): path
        for path in tmp_path.rglob("*.md")
    }
    holding = {}
    for found in pkgutil.walk_packages(prunefair.__path__, "prunefair."):
        if found.ispkg or found.name.endswith(".__main__"):
            continue
        module = importlib.import_module(found.name)
        names = {
            name
            for name, value in vars(module).items()
            if callable(value)
            and not name.startswith("_")
            and value.__class__.__module__ != "typing"
            and getattr(value, "__module__", None) == module.__name__
            and getattr(value, "__name__", None) == name
        }
        if names:
            holding[found.name.removeprefix("prunefair.")] = names
    assert pages.keys() == holding.keys() and len(pages) > 30
    for name, path in pages.items():
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == holding[name]
        assert f"[`prunefair.{name}`](" in text


def test_pages_that_stay_are_not_written_again(tmp_path):
    reference.write_pages(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")}
    reference.write_pages(tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_list_holds_every_page_once_and_the_contents_take_them_all():
    text = reference.module_list(ROOT)
    listed = re.findall(r"\]\(api/([\w/]+)\.md\)", text)
    assert sorted(listed) == sorted(reference.modules())
    chapters = reference._order(ROOT)
    assert [p for p in listed if p in chapters] == chapters
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    for folder in {p.rpartition("/")[0].partition("/")[0] for p in listed}:
        assert f"glob: book/api/{folder}/**" in contents or not folder


def test_the_command_page_holds_every_option_that_help_shows():
    text = reference.command_list()
    sections = dict(
        re.findall(r"^## prunefair (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    )
    commands = typer.main.get_command(cli.app).commands
    assert sections.keys() == commands.keys() and len(sections) >= 4
    for name, section in sections.items():
        shown = CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "200"})
        options = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", shown.stdout))
        column = re.findall(r"^\| (`-[^|]*) \|", section, re.M)
        assert set(re.findall(r"--[\w-]+", " ".join(column))) == options - {"--help"}
        assert "| `--json` |  |  |" in section


def test_every_command_has_an_example_that_its_parser_takes():
    commands = typer.main.get_command(cli.app).commands
    for name, command in commands.items():
        program, named, *rest = shlex.split(command.epilog.removeprefix("Example: "))
        assert (program, named) == ("prunefair", name)
        assert command.make_context(name, rest).params
        with pytest.raises(Exception, match="(?i)no such option"):
            command.make_context(name, [*rest, "--no-such"])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A small book with the settings of the real one and a page for each form."""
    folder = tmp_path_factory.mktemp("reference")
    shutil.copy(ROOT / "_config.yml", folder)
    shutil.copytree(ROOT / "tools", folder / "tools")
    (folder / "book").mkdir()
    for name in ("references.bib", "favicon.svg"):
        shutil.copy(ROOT / "book" / name, folder / "book")
    (folder / "book" / "page.md").write_text(PAGE, encoding="utf-8")
    (folder / "_toc.yml").write_text(
        "format: jb-book\nroot: book/page\nchapters:\n- file: book/second\n"
    )
    (folder / "book" / "second.md").write_text(SECOND, encoding="utf-8")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "-W"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "_build" / "html"


PAGE = """\
# A page

By `shortened`, `prunefair.messages`, `Given.error` and `shown(1)`, not `argument`.
"""
SECOND = """\
# Names

[`prunefair.messages`](../src/prunefair/messages.py)

[`prunefair.fairness.kernels`](../src/prunefair/fairness/kernels.py)
"""


def test_names_in_code_font_lead_to_their_documentation(built):
    html = (built / "book" / "page.html").read_text(encoding="utf-8")
    paragraph = re.search(r"<p>By .*?</p>", html, re.S)[0]
    targets = re.findall(r'href="second\.html#([\w.-]+)"', paragraph)
    assert targets == [
        "prunefair.messages.shortened",
        "module-prunefair.messages",
        "prunefair.messages.Given.error",
        "prunefair.messages.shown",
    ]
    second = (built / "book" / "second.html").read_text(encoding="utf-8")
    assert all(f'id="{target}"' in second for target in targets)
    for name in reference.public_names(ROOT / "src/prunefair/fairness/kernels.py"):
        assert f'id="prunefair.fairness.kernels.{name}"' in second  # compiled ones too
