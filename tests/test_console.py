"""Built pages in a browser: no error, no other host, nothing too wide; code that folds,
figures that open over the page and links that show what they lead to."""

import asyncio
import base64
import re
import shutil
import subprocess
import sys
from collections import Counter
from io import BytesIO, StringIO
from pathlib import Path

import nbformat
import pytest
from matplotlib.figure import Figure
from nbformat import v4

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import console  # noqa: E402

needs_chromium = pytest.mark.skipif(
    console.browser() is None, reason="no Chromium is installed"
)
PAGE = """\
# A page

As ([Luce 1959](../references.bib#luce1959)) has it:

**Theorem (One).** <a id="thm-a"></a>
Text.

$$
x
$$ (eq-a)

**Proof.**
Clear. ∎

**Lemma (Two).** <a id="lem-b"></a>
More.

**Proof.**
By [Theorem (One)](#thm-a). ∎

$$
WIDE
$$ (eq-wide)

[All works](references.bib)
""".replace("WIDE", " + ".join(["a_i b_i"] * 9))
CODE = '''\
def half(x):
    """Half of `x`.

    Parameters
    ----------
    x : float
    """
    return x / 2'''
FIGURE = """\
**Figure (fig-half).** <a id="fig-half"></a> A blue line from $0$ on up to `1`. More.

See [Theorem (One)](page.md#thm-a), [(eq-a)](page.md#eq-a),
[Figure (fig-half)](#fig-half) and ([Luce 1959](../references.bib#luce1959))."""
EXERCISE = """\
**Exercise.** <a id="ex-half"></a>
Half of what?

<details><summary>Solution</summary>

Of `x`.

</details>"""
PHONE = 358  # pixels of a figure, see `prunefair.plotting`
WIDE = f"print({'1 + ' * 30}1)"


def chapter():
    """A notebook with code, a figure and links to another page."""
    file = BytesIO()
    figure = Figure(figsize=(5.6, 3), dpi=150)
    figure.subplots().plot([0, 1])
    figure.savefig(file)
    data = {"image/png": base64.b64encode(file.getvalue()).decode()}
    drawn = v4.new_output("display_data", data)
    said = v4.new_output("stream", name="stdout", text="word " * 40)
    cells = [
        v4.new_markdown_cell("# A chapter"),
        v4.new_code_cell(CODE),
        v4.new_code_cell(WIDE, outputs=[said], metadata={"tags": []}),
        v4.new_code_cell("plot()", outputs=[drawn]),
        v4.new_markdown_cell(FIGURE),
        v4.new_markdown_cell(EXERCISE),
        v4.new_code_cell("assert half(4) == 2"),
        v4.new_markdown_cell(EXERCISE.replace("ex-half", "ex-again")),
        v4.new_code_cell("assert half(2) == 1"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A book of two pages with the settings of the real one."""
    folder = tmp_path_factory.mktemp("book")
    shutil.copy(ROOT / "_config.yml", folder)
    shutil.copytree(ROOT / "tools", folder / "tools")
    (folder / "book").mkdir()
    for name in ("references.bib", "favicon.svg"):
        shutil.copy(ROOT / "book" / name, folder / "book")
    (folder / "book" / "page.md").write_text(PAGE, encoding="utf-8")
    nbformat.write(chapter(), folder / "book" / "chapter.ipynb")
    contents = "format: jb-book\nroot: book/page\nchapters: [{file: book/chapter}]\n"
    (folder / "_toc.yml").write_text(contents)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "-W"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "_build" / "html"


def declared_twice(html):
    """Constants that the classic scripts of one page declare more than once."""
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    names = re.findall(r"(?:^|;)\s*const (\w+)", ";".join(scripts))
    return [name for name, count in Counter(names).items() if count > 1]


def test_a_page_declares_no_constant_twice_and_names_no_other_host(built):
    html = (built / "book" / "page.html").read_text(encoding="utf-8")
    assert "Theorem 1" in html and "<script>" in html
    assert not declared_twice(html)
    assert declared_twice("<script>const a = 1; const b = 2</script>" * 2) == ["a", "b"]
    assert not re.search(r'(src|href)="(https?:)?//[^"]*\.(js|css|woff2?)\b', html)
    assert 'dataset.mode = localStorage.getItem("mode") || "auto"' in html
    assert 'rel="preload" as="font"' not in html


def test_no_two_elements_of_a_page_have_one_id(built):
    for name, kind in {"page": "proof", "chapter": "solution-content"}.items():
        html = (built / "book" / f"{name}.html").read_text(encoding="utf-8")
        ids = re.findall(r'<[^<>]* id="([^"]*)"', html)
        assert [i for i, count in Counter(ids).items() if count > 1] == []
        assert {f"{kind}-1", f"{kind}-2"} < set(ids)


@needs_chromium
def test_no_page_complains_in_a_browser(built):
    assert console.check(built, console.browser()) == []


def in_browser(page, *expressions, width=1280):
    """Values of expressions of a page, one after the other."""

    async def values(port):
        tab = await console.Tab.opened(port)
        await tab.call("Page.enable")
        await tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
        await tab.screen(width, "light")
        await tab.open(page.as_uri())
        return [await tab.value(expression) for expression in expressions]

    with console.started(console.browser()) as port:
        return asyncio.run(values(port))


@needs_chromium
def test_code_folds_and_a_figure_opens_over_the_page_by_keys(built):
    pre, height = (
        "document.querySelector('details.fold').closest('pre')",
        "offsetHeight",
    )
    figure, dialog = (
        "document.querySelector('a.enlarge')",
        "document.querySelector('dialog')",
    )
    text, folded, _, open_, image, shown, closed = in_browser(
        built / "book" / "chapter.html",
        f"{pre}.textContent",
        f"{pre}.{height}",
        "document.querySelector('details.fold > summary').click()",
        f"{pre}.{height}",
        f"({figure}.focus(), {figure}.click(), {dialog}.querySelector('img').alt)",
        f"{dialog}.open && {dialog}.querySelector('img').offsetWidth",
        f"({dialog}.close(), new Promise((r) => setTimeout(r, 50)).then(() => "
        f"{dialog} === null && document.activeElement === {figure}))",
    )
    assert text == CODE + "\n"
    assert open_ - folded == pytest.approx((open_ - 16) / 8 * 5, abs=4)  # 5 of 8 lines
    assert image == "A blue line from 0 on up to 1. More." and shown > 800 and closed


@needs_chromium
def test_on_a_phone_a_figure_is_as_wide_as_its_letters_need(built):
    image = "document.querySelector('a.enlarge img').offsetWidth"
    (phone,) = in_browser(built / "book" / "chapter.html", image, width=390)
    (wide,) = in_browser(built / "book" / "chapter.html", image)
    assert phone >= PHONE and wide >= 500


@needs_chromium
def test_a_formula_that_is_wider_than_a_phone_is_set_smaller(built):
    formula = "document.querySelector('#equation-eq-{} mjx-container')"
    size = "parseFloat(getComputedStyle({}).fontSize)"
    fits = "{0}.scrollWidth <= {0}.clientWidth"
    number = "{0}.getBoundingClientRect().bottom <= " + (
        "{0}.parentElement.querySelector('.eqno').getBoundingClientRect().top"
    )
    ask = [
        f"new Promise((done) => setTimeout(done, 300)).then(() => {what})".format(
            formula.format(name)
        )
        for name in ("a", "wide")
        for what in (size, fits, number)
    ]
    usual, *small = in_browser(built / "book" / "page.html", *ask, width=390)
    assert small[:2] == [True, True] and small[3:] == [True, True]
    assert 0.55 * usual <= small[2] < 0.95 * usual
    assert in_browser(built / "book" / "page.html", ask[3])[0] == pytest.approx(
        usual, rel=0.01
    )


@needs_chromium
def test_the_check_of_an_exercise_folds_with_its_solution(built):
    every = "[...document.querySelectorAll('pre')]"
    code = f"{every}.find((e) => /half.4/.test(e.textContent))"
    before, _, after = in_browser(
        built / "book" / "chapter.html",
        f"{code}.offsetHeight > 0 && getComputedStyle({code}).visibility",
        "document.querySelector('.solution .toggle-button, .solution button').click()",
        f"new Promise((done) => setTimeout(done, 600)).then(() => {code}.offsetHeight)",
    )
    assert before in (False, "hidden") and after > 10


@needs_chromium
def test_a_link_shows_the_theorem_equation_figure_or_work_that_it_leads_to(built):
    show = """(async (kind) => {
      const links = [...document.querySelectorAll("article a.internal")];
      links.find((a) => a.href.includes(kind)).focus({focusVisible: true});
      for (let i = 0; i < 60 && getComputedStyle(document.querySelector("#tip") ??
        document.body).visibility !== "visible"; i++) await 0;
      await new Promise((done) => setTimeout(done, 400));
      const tip = document.querySelector("#tip");
      return [tip.innerText, tip.querySelectorAll("mjx-container").length,
        [...tip.querySelectorAll("img")].every((image) => image.naturalWidth > 100),
        tip.getBoundingClientRect().right <= innerWidth];
    })"""
    kinds = ("#thm-a", "#equation-eq-a", "#fig-half", "#id")
    found = in_browser(
        built / "book" / "chapter.html", *(f"{show}('{kind}')" for kind in kinds)
    )
    theorem, equation, figure, work = found
    assert "Theorem 1" in theorem[0] and theorem[1] == 1
    assert "(1)" in equation[0] and equation[1] == 1
    assert "A blue line" in figure[0] and figure[1] == 1
    assert "Luce" in work[0] and "1959" in work[0]
    assert all(images and fits for _, _, images, fits in found)


@needs_chromium
def test_the_browser_check_finds_what_is_too_wide(tmp_path):
    box = "<div style='overflow-x: auto'>"
    wide = "<p style='width: 1170px'>text</p>"
    page = f"<article style='width: 90vw'>{wide}</article>"
    (tmp_path / "a.html").write_text(page)
    (tmp_path / "b.html").write_text(page.replace(wide, f"{box}{wide}</div>"))
    found = "\n".join(console.check(tmp_path, console.browser()))
    wide = {w for w in console.WIDTHS if w * 0.9 < 1170}
    for px in console.WIDTHS:
        for theme in ("light", "dark"):
            at = f"{px} px, {theme}: "
            assert (f"a.html, {at}too wide: <p" in found) == (px in wide)
            assert (f"a.html, {at}scrolls sideways" in found) == (px < 1178)
            fits = px not in wide or px <= console.SCROLLS
            assert (f"b.html, {at}" not in found) == fits


class Terminal(StringIO):
    """A text file that says it is a terminal."""

    def isatty(self):
        """Say so."""
        return True


@needs_chromium
def test_the_browser_check_shows_how_far_it_is_on_a_terminal(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "p.html").write_text("<p>text</p>", encoding="utf-8")
    assert console.main([str(tmp_path)]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert str(tmp_path) in first and last == "console: 0 complaints"
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert console.check(tmp_path, console.browser()) == []
    assert "2/2" in sys.stderr.getvalue()


@needs_chromium
def test_a_page_that_names_no_icon_is_no_complaint(tmp_path):
    for number in range(4):  # the browser asks for one late, during a later page
        (tmp_path / f"{number}.html").write_text("<p>no icon</p>", encoding="utf-8")
    assert console.check(tmp_path, console.browser()) == []


@needs_chromium
def test_the_browser_check_finds_each_kind_of_fault(tmp_path):
    assert len(console.check(tmp_path, console.browser())) == 1  # no page at all
    (tmp_path / "p.html").write_text(
        "<script>const A = 1</script><script>const A = 1</script>"
        "<script>console.error('not well')</script><script src='none.js'></script>"
        "<img src='http://host.invalid/x.png'>"
    )
    found = "\n".join(console.check(tmp_path, console.browser()))
    for text in (
        "Identifier 'A' has already been declared",
        "p.html: not well",
        "p.html: request to http://host.invalid/x.png",
        "404",
    ):
        assert text in found
    assert len(found.splitlines()) >= 8
