"""What a built page does with code, figures and references."""

import ast
import base64
import html
import itertools
import json
import re
import sys
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import mystpage  # noqa: E402
import mystplain  # noqa: E402

from prunefair.plotting import COLUMNS, WIDTH, listing  # noqa: E402

CHAPTERS = sorted((ROOT / "book").glob("*/*.ipynb"))
CODE = '''\
from __future__ import annotations

import numpy as np


def half(x):
    r"""Half of `x < 1`.

    Parameters
    ----------
    x : float
    """
    return x / 2


class Pair:
    """Two."""

    def sum(self):
        """Their sum,

        a number."""
        return 0'''
PLOT = '''\
def plot_a(ax):
    """A curve.

    Parameters
    ----------
    ax : Axes
    """
    ax.plot([1])
    return ax


def plot_b(
    ax,
):
    """Another."""
    return ax


def plot_c(ax):
    return ax'''


def folded(source):
    """The code as on a page."""
    page = highlight(source, PythonLexer(stripnl=False), HtmlFormatter())
    return mystpage.fold_html(page, source).strip()


def text_of(page):
    """The text of HTML, as a copy button takes it."""
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def shown(page):
    """The text of HTML that shows while everything is folded."""
    page = re.sub(r"(</summary>).*?(</details>)", r"\1\2", page, flags=re.DOTALL)
    page = re.sub(r'<span class="fold-break">\n</span>', "", page)
    page = re.sub(r'<span class="fold-end" data-end="([^"]*)"></span>', r"\1…", page)
    return text_of(page.replace("</details>", "</details>\n")).rstrip("\n")


def test_a_docstring_folds_behind_its_first_line_and_imports_behind_the_first():
    assert (
        shown(folded(CODE))
        == '''\
from __future__ import annotations…


def half(x):
    r"""Half of `x < 1`."""…
    return x / 2


class Pair:
    """Two."""

    def sum(self):
        """Their sum,"""…
        return 0'''
    )


def test_imports_of_what_the_package_itself_offers_stay_in_sight():
    code = "import tempfile\n\nfrom prunefair import play\nfrom prunefair.data import x"
    assert shown(folded(code)) == code
    other = code.replace("from prunefair import play", "from prunefair import_ play")
    assert shown(folded("import tempfile\nfrom prunefair.data import x")).endswith("…")
    assert shown(folded(other)) == other  # no Python, no fold


def test_a_function_that_draws_shows_its_signature_and_first_sentence():
    assert (
        shown(folded(PLOT))
        == '''\
def plot_a(ax):
    """A curve."""…


def plot_b(
    ax,
):
    """Another."""…


def plot_c(ax):…'''
    )


def test_what_is_no_docstring_does_not_fold():
    for code in ('text = """a\nb"""', "%pip install x\nimport a\nimport b", "x = 1"):
        assert mystpage.folds(code) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_code_of_a_chapter_is_the_same_to_the_letter(path):
    sources = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    for source in sources:
        assert text_of(folded(source)) == source + "\n"
    long = [s for s in sources if re.search(r'"""[^"]*\n\n    Parameters', s)]
    assert all('<details class="fold">' in folded(s) for s in long)


LINES = st.sampled_from(
    ["import a", "def f():", '    """A', "", "    B", '    """', "    x = '''", "'''"]
)


@given(st.lists(LINES, min_size=1))
def test_no_code_is_lost_by_folding(lines):
    source = "\n".join(lines).strip("\n")
    page = folded(source)
    assert text_of(page) == source + "\n"
    assert page.count("<details") == page.count("</details>")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_figure_has_a_caption_and_words_for_who_does_not_see_it(path):
    text = path.read_text(encoding="utf-8")
    for cell in json.loads(mystplain.notebook(path.stem, text))["cells"]:
        outputs = cell.get("outputs", [])
        drawn = [o for o in outputs if "image/png" in o.get("data", {})]
        settings = cell["metadata"].get("mystnb", {})
        assert len(drawn) == ("figure" in settings), cell["source"]
        if drawn:
            picture = base64.b64decode(drawn[0]["data"]["image/png"])
            width = Image.open(BytesIO(picture)).size[0]
            assert width <= 150 * WIDTH + 20, "its letters are too small on a phone"
            assert re.fullmatch(r"[^$`*\\{}]{40,}[.;:]", settings["image"]["alt"])


def checks(source):
    """Whether the code can fail on a wrong answer."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
        if isinstance(node, ast.Call) and "assert_" in ast.unparse(node.func):
            return True
    return False


def test_code_that_only_prints_is_no_check():
    assert checks("if x:\n    assert x == 1") and checks(
        "np.testing.assert_equal(1, x)"
    )
    assert not any(map(checks, ("", "print(x)", "assert True", "x = 'assert 1 == x'")))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_exercise_has_one_form(path):
    """Question, folded solution, and the code that checks it right behind.

    An exercise that begins with a blank cell has it before its solution.
    """
    cells = nbformat.read(path, 4).cells
    for place, cell in enumerate(cells):
        if cell.cell_type == "markdown" and "**Exercise" in cell.source:
            form = r"(\A|## Exercises\n\n)\*\*Exercise( ★{1,3})?\.\*\* "
            assert re.search(form, cell.source)
            assert cell.source.count("**Exercise") == 1
            if "<summary>Solution" not in cell.source:
                assert "check_answer(" in cells[place + 1].source
                place, cell = place + 2, cells[place + 2]
                assert cell.source.startswith("<details><summary>Solution")
            assert cell.source.endswith("\n</details>"), cell.source[:60]
            code = itertools.takewhile(
                lambda c: c.cell_type == "code", cells[place + 1 :]
            )
            assert checks("\n".join(c.source for c in code)), cell.source[:60]
    page = json.loads(mystplain.notebook(path.stem, path.read_text("utf-8")))
    text = "\n".join("".join(c["source"]) for c in page["cells"])
    count = text.count(":::{exercise}")
    assert count == text.count(":::{solution-start}") == text.count(":::{solution-end}")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_has_one_form_of_notation_and_ends_with_what_one_can_do(path):
    cells = nbformat.read(path, 4).cells
    text = "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    assert re.findall(r"^## (.*)$", text, re.M)[-1] == "What you can do now"
    assert len(re.findall(r"^(?:#+ |\*\*)Notation\b", text, re.M)) == 1
    assert text.count("\n## Notation\n\n") == 1


def test_words_for_a_figure_are_the_first_sentences_of_its_caption():
    caption = (
        r"[Regret](a.md) of $\hat R_t$. Left: `a` by *b*, which is 0.5; right. No."
    )
    assert mystplain.plain(caption) == "Regret of R_t. Left: a by b, which is 0.5;"


def test_tips_hold_the_element_with_addresses_from_the_root():
    page = (
        '<p>x</p><div class="a" id="thm-a"><div>In <a href="b.html#eq">b</a> and '
        '<a href="#thm-a">here</a> <img src="../_images/c.png" id="i"></div>'
        '<a class="headerlink" href="#thm-a">#</a></div><div>no</div>'
    )
    assert mystpage.tips("book/part/a.html", page) == {
        "book/part/a.html#thm-a": '<div class="a"><div>In '
        '<a href="book/part/b.html#eq">b</a> and '
        '<a href="book/part/a.html#thm-a">here</a> '
        '<img src="book/_images/c.png"></div></div>'
    }
    with pytest.raises(mystpage.SphinxError, match="<div> is not closed"):
        mystpage.element("<div><div></div>", 0)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_printed_lines_fit_on_a_page_and_are_no_raw_dictionaries(path):
    for cell in nbformat.read(path, 4).cells:
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            for line in text.split("\n"):
                assert len(line) <= COLUMNS, cell.source
                assert not re.match(r"\s*[{\[]['\"]", line), cell.source


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_lines_of_code_fit_on_a_page(path):
    for cell in nbformat.read(path, 4).cells:
        hidden = "remove-cell" in cell.metadata.get("tags", ())
        if cell.cell_type == "code" and not hidden:
            assert max(map(len, cell.source.split("\n"))) <= COLUMNS, cell.source


def test_a_listing_has_a_line_for_each_name_and_wraps():
    values = {"a": 1, "b": {"c": [1, 2], "d": {"e": None}}, "f": "word " * 40}
    text = listing(values)
    assert text.startswith("a: 1\nb:\n  c: 1, 2\n  d:\n    e: None\nf: word word")
    assert max(map(len, text.split("\n"))) <= 88
    assert text.split("\n")[-1].startswith("  word")
    assert listing(f"{i}" for i in range(3)) == "0, 1, 2"
    assert listing(ValueError("bad")) == "bad"
