"""Chapters read in two worlds: as plain Markdown, and through the builder as MyST."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest
from markdown_it import MarkdownIt
from pybtex.database import parse_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import mystplain  # noqa: E402
from sphinx.errors import SphinxError  # noqa: E402

BOOK = ROOT / "book"
CHAPTERS = sorted([*BOOK.glob("*.ipynb"), *BOOK.glob("*/*.ipynb")])
PAGES = sorted(BOOK.glob("*.md"))
EQUATION = re.compile(r"^( *)\$\$\n(.*?)\n *\$\$( \((eq-[\w-]+)\))?$", re.M | re.S)
ENVIRONMENT = re.compile(
    r"\\begin\{(aligned|gathered|split|cases|array|[bp]?matrix)\}.*?\\end\{\1\}", re.S
)
LINK = re.compile(r"\[((?:[^][]|\[[^][]*\])+)\]\(([^()\s]*)#([\w-]+)\)")


def relative(path):
    return path.relative_to(BOOK).as_posix()


def texts(path):
    """The Markdown cells of a chapter, or the one text of a page."""
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")]
    cells = jupytext.read(path).cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


def without_mathematics(text):
    """As Jupyter and Colab do it: mathematics is put aside before Markdown is read."""
    return re.sub(r"(?<!\\)\$[^$\n]+\$", "M", EQUATION.sub(r"\1M\3", text))


def faults(text):
    """What a plain Markdown renderer would show of MyST, or leave unrendered."""
    renderer = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for token in renderer.parse(without_mathematics(text)):
        if token.type in ("fence", "code_block") and token.info.startswith("{"):
            yield f"a directive: {token.info}"
        if token.type == "code_block":
            yield f"text indented as code: {token.content}"
        if token.type == "html_block" and re.sub(
            r"<[^>]+>|\s", "", token.content
        ) not in (
            "",
            "Hint",
            "Solution",
        ):
            yield f"Markdown behind a tag without a blank line: {token.content}"
        if token.type == "inline":
            shown = "".join(
                "`" if child.type == "code_inline" else child.content
                for child in token.children
            )
            for found in re.findall(r":{3,}|\{[\w:.-]+\}`|\$\$", shown):
                yield f"{found} in {shown}"


def mathematical_faults(text):
    """What would keep an equation from being read elsewhere."""
    for _, body, *_ in EQUATION.findall(text):
        if re.search(r"\\\\|(?<!\\)&", ENVIRONMENT.sub("", body)):
            yield f"lines or columns outside an environment: {body}"
        if re.search(r"^\s*$", body, re.M):
            yield f"a blank line: {body}"
        if re.search(r"^\s*([-+*>#]|\d+[.)]|=+\s*$)(\s|$)", body, re.M):
            yield f"a line that Markdown takes for a list, heading or quote: {body}"


@pytest.mark.parametrize("path", CHAPTERS + PAGES, ids=relative)
def test_chapters_show_no_myst_in_a_plain_renderer(path):
    assert texts(path)
    for text in texts(path):
        assert not [*faults(text), *mathematical_faults(text)]
    if path.suffix == ".ipynb":
        assert not [c for c in jupytext.read(path).cells if "mystnb" in c.metadata]


@pytest.mark.parametrize(
    "text",
    [
        "Text.\n\n```{math}\n:label: eq-a\n\nx\n```",
        ":::{prf:theorem} T\n:label: thm-a\n\nText.\n:::",
        "By {eq}`eq-a`.",
        "- as in {cite:t}`b`",
        "<details><summary>Solution</summary>\nText.\n</details>",
        "Text\n$$ x\n$$",
        "$$\na &= b \\\\ c\n$$",
        "$$\na\n+ b\n$$",
        "$$\na\n\nb\n$$",
    ],
)
def test_the_plain_renderer_would_show_myst(text):
    assert [*faults(text), *mathematical_faults(text)]


@pytest.mark.parametrize("path", CHAPTERS + PAGES, ids=relative)
def test_every_form_is_one_that_the_builder_knows(path):
    turn = mystplain.notebook if path.suffix == ".ipynb" else mystplain.page
    assert turn(path.stem, path.read_text(encoding="utf-8"))


def test_the_book_defines_no_mathematics_of_its_own():
    assert "macros" not in (ROOT / "_config.yml").read_text()
    for path in CHAPTERS + PAGES:
        for text in texts(path):
            assert not re.search(r"\\(?:re)?newcommand|\\def\\", text)


def anchors():
    """Label to file and, for theorems, what a reference to it reads."""
    found = {}
    for path in CHAPTERS + PAGES:
        for text in texts(path):
            names = {m[3]: f"{m[1]} ({m[2]})" for m in map_lines(text)}
            for label in re.findall(mystplain.ANCHOR, text):
                assert label not in found, label
                kind = {"fig": "Figure ", "ex": "Exercise ", "eq": ""}
                prefix = kind.get(label.partition("-")[0])
                found[label] = path, names.get(label) or f"{prefix}({label})"
    return found


def map_lines(text):
    return filter(None, map(mystplain.STATEMENT.fullmatch, text.splitlines()))


def author_and_year(entry):
    names = [" ".join(map(str, p.rich_last_names)) for p in entry.persons["author"]]
    short = f"{names[0]} et al." if len(names) > 2 or names[-1] == "others" else None
    return short or " and ".join(names), entry.fields["year"]


def test_references_read_as_what_they_point_to_and_lead_there():
    known, count = anchors(), 0
    works = parse_file(str(BOOK / "references.bib")).entries
    for path in CHAPTERS + PAGES:
        for shown, file, label in LINK.findall("\n".join(texts(path))):
            target = (path.parent / file).resolve() if file else path
            if target.name == "references.bib":
                name, year = author_and_year(works[label])
                assert shown in (f"{name} {year}", f"{name} ({year})"), (path, shown)
            elif re.match("(eq|thm|lem|ex|fig)-", label):
                assert (target, shown) == known[label], (path, shown)
            else:
                continue
            count += 1
    assert count > 300


SAMPLE = """\
Before ([Luce 1959](../references.bib#luce1959); [Mo 2000](references.bib#mo2000fair)).

<a id="eq-a"></a>
$$
x = 1
$$ (eq-a)

**Theorem (A title with $d$).** <a id="thm-a"></a>
By [(eq-a)](#eq-a) and [Lemma (What (it) gives)](other.ipynb#lem-b):

$$
y
$$ (eq-b)

**Proof.**
[Luce (1959)](../references.bib#luce1959) has it. ∎

```md
**Theorem (Not this).** <a id="thm-no"></a>
```

<div class="alert alert-warning">

**Deviation.**
*Paper*: see [Figure (fig-a)](x.ipynb#fig-a).

</div>

**Exercise.** <a id="ex-a"></a>
Do it.

<details><summary>Solution</summary>

Done.

</details>

**Exercise.** <a id="ex-b"></a>
Do [Exercise (ex-a)](#ex-a) again.

[`prunefair.data`](../src/prunefair/data.py)

[All works](references.bib)"""

MYST = """\
Before {cite}`luce1959,mo2000fair`.

$$
x = 1
$$ (eq-a)

:::{prf:theorem} A title with $d$
:label: thm-a

By {eq}`eq-a` and {prf:ref}`lem-b`:

$$
y
$$ (eq-b)

:::

:::{prf:proof}
{cite:t}`luce1959` has it.
:::


```md
**Theorem (Not this).** <a id="thm-no"></a>
```

:::{admonition} Deviation
:class: warning

*Paper*: see {numref}`fig-a`.

:::


:::{exercise}
:label: ex-a

Do it.

:::

:::{solution} ex-a
:class: dropdown


Done.

:::


:::{exercise}
:label: ex-b

Do {ref}`ex-a` again.

```{eval-rst}
.. automodule:: prunefair.data
   :members:
```

```{bibliography}
```
:::
"""


def test_every_form_becomes_its_directive_or_role():
    reader = mystplain.Reader("page")
    assert reader.cell(0, SAMPLE) == MYST
    gated = ":::{solution-start} ex-b\n:class: dropdown\n:::\n\nCode:\n"
    solution = f"{mystplain.DETAILS}\nCode:\n</details>"
    assert reader.cell(1, solution, checked=True) == gated.rstrip("\n")
    assert reader.cell(3, "Text") == ":::{solution-end}\n:::\n\nText"
    reader.finish()


def cell(kind, source, **metadata):
    rest = {"outputs": [], "execution_count": 1} if kind == "code" else {}
    return {"cell_type": kind, "source": source, "metadata": metadata} | rest


def test_a_caption_goes_to_the_cell_that_draws_the_figure():
    caption = '**Figure (fig-a).** <a id="fig-a"></a> Of $x$, [(eq-a)](#eq-a).'
    cells = [
        cell("code", "plot()", tags=["t"]),
        cell("markdown", [caption, "\n\nText"]),
    ]
    read = json.loads(mystplain.notebook("n", json.dumps({"cells": cells})))["cells"]
    assert [c["source"] for c in read] == ["plot()", "Text"]
    figure = {"name": "fig-a", "caption": "Of $x$, {eq}`eq-a`."}
    shown = {"figure": figure, "image": {"alt": "Of x, (eq-a)."}}
    assert read[0]["metadata"] == {"tags": ["t"], "mystnb": shown}
    with pytest.raises(SphinxError, match="n, cell 0: fig-a is not right behind"):
        mystplain.notebook("n", json.dumps({"cells": cells[1:]}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('**Theorem (T).** <a id="thm-a"></a>\nText.', "not followed by its proof"),
        ('**Lemma (T).** <a id="lem-a"></a>\n\n## Next', "a heading within a theorem"),
        ("**Proof.**\nText.", "a proof is not closed"),
        ("**Proof.**\nText.\n**Proof.**\nMore. ∎", "a proof begins within a proof"),
        ("Text. ∎", "the end of a proof that has not begun"),
        ("<details><summary>Solution</summary>", "a solution without an exercise"),
        ('**Exercise.** <a id="ex-a"></a>\nDo it.', "ex-a has no solution"),
        ('**Exercise.** <a id="ex-a"></a>\n\n**Solution.**\nDone.', "begins with <det"),
        ('<div class="alert alert-warning">\n\n**Deviation.**\nText.', "not closed"),
        ("See [the theorem](#thm-a).", "form is not known: See .the theorem"),
        ("See [(eq-a)](#eq-b).", "form is not known"),
        ("By [Luce](../references.bib#luce1959).", "form is not known"),
        ('**Theorem: T.** <a id="thm-a"></a>', "form is not known"),
    ],
)
def test_a_form_that_is_not_known_or_not_closed_stops_the_build(text, message):
    with pytest.raises(SphinxError, match=f"page, cell 0: .*{message}"):
        mystplain.page("page", text)


def build(folder, text):
    (folder / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'tools')!r})\n"
        "extensions = ['myst_parser', 'sphinx_proof', 'sphinx_exercise', 'mystplain']\n"
        "myst_enable_extensions = ['dollarmath', 'colon_fence']\n"
    )
    (folder / "index.md").write_text(f"# Page\n\n{text}\n", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", folder, folder / "out"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


STATEMENT = """\
**Theorem (One).** <a id="thm-a"></a>
Text.

$$
x
$$ (eq-a)

**Proof.**
By [(eq-a)](#eq-a). ∎

So says [Theorem (One)](#thm-a)."""


def test_the_builder_numbers_and_links_what_is_plain(tmp_path):
    done = build(tmp_path, STATEMENT)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "index.html").read_text()
    assert re.search(r'id="thm-a"[^§]*Theorem 1 [^§]*\(One\)', page)
    assert re.search(r'href="#thm-a"[^§]*Theorem 1', page)
    assert re.search(r'href="#equation-eq-a"[^§]*\(1\)', page)


@pytest.mark.parametrize("label", ["eq-a", "thm-a"])
def test_the_builder_refuses_a_label_that_does_not_exist(tmp_path, label):
    text = STATEMENT.replace(f"](#{label})", f"](#{label}x)")
    done = build(tmp_path, text.replace(f"[({label})]", f"[({label}x)]"))
    assert done.returncode != 0 and f"{label}x" in done.stderr
