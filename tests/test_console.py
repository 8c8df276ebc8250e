"""Built pages log no error in a browser and ask no other host for anything."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

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

[All works](references.bib)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A book of one page with the settings of the real one."""
    folder = tmp_path_factory.mktemp("book")
    shutil.copy(ROOT / "_config.yml", folder)
    shutil.copytree(ROOT / "tools", folder / "tools")
    (folder / "book").mkdir()
    for name in ("references.bib", "favicon.svg"):
        shutil.copy(ROOT / "book" / name, folder / "book")
    (folder / "book" / "page.md").write_text(PAGE, encoding="utf-8")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/page\n")
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


@needs_chromium
def test_no_page_complains_in_a_browser(built):
    assert console.check(built, console.browser()) == []


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
