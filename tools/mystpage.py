"""Sphinx extension: what a built page does beyond its text.

Code folds.  Of a docstring the first line shows, of a run of imports the first, of a
cell that defines nothing but `plot_*` functions their signatures and first sentences;
the rest is one click away, without JavaScript, and is copied and printed with the rest.
A figure is a link to its own file, which `page.js` opens over the page; and a link to a
theorem, an equation, a figure, an exercise or a work shows it while the pointer rests
on it (`tips`).  No two elements of a page have one id.
"""

from __future__ import annotations

import ast
import html
import json
import posixpath
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx.errors import SphinxError

STATIC = Path(__file__).with_name("static")
DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SHARED = {"proof", "proof-content", "exercise-content", "solution-content"}
TARGET = re.compile(r'<\w+[^<>]* id="((?:equation-eq|thm|lem|ex|fig)-[\w-]+|id\d+)"')


class Fold(NamedTuple):
    """The lines after `first`, up to `last`, fold; counted from 1.

    `end` is shown behind the line `first` in their place.
    """

    first: int
    last: int
    end: str = ""


def _docstring(definition) -> Fold | None:
    """The fold of a docstring; of one line, it holds nothing."""
    match definition.body[0]:
        case ast.Expr(value=ast.Constant(value=str()) as text):
            return Fold(text.lineno, text.end_lineno, '"""')
    return None


def _is_import(statement) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom) or (
        isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"
    )


def folds(source: str) -> list[Fold]:
    """What folds in the code `source`, from above; nothing where it is no Python.

    Imports of what the package itself offers are part of what is shown.
    """
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return []
    found, run = [], []
    for statement in [*body, ast.Pass()]:
        if _is_import(statement):
            run.append(statement)
        elif run:
            if not any(getattr(s, "module", "") == "prunefair" for s in run):
                found.append(Fold(run[0].lineno, run[-1].end_lineno))
            run = []
    rest = [statement for statement in body if not _is_import(statement)]
    if rest and all(
        isinstance(s, ast.FunctionDef) and s.name.startswith("plot_") for s in rest
    ):
        for function in rest:
            doc = _docstring(function)
            first = doc.first if doc else function.body[0].lineno - 1
            end = '"""' if doc and doc.last > doc.first else ""
            found.append(Fold(first, function.end_lineno, end))
    else:
        inner = (n for s in rest for n in ast.walk(s) if isinstance(n, DEFINITION))
        found += filter(None, map(_docstring, inner))
    return sorted(fold for fold in found if fold.last > fold.first)


def fold_html(highlighted: str, source: str) -> str:
    """The `highlighted` code of `source` with its folds as `<details>`.

    The text between the marks stays the code, to the letter.
    """
    before, start, rest = highlighted.partition("<pre><span></span>")
    code, stop, after = rest.rpartition("</pre>")
    lines = code.removesuffix("\n").split("\n")
    if not start or len(lines) != source.count("\n") + 1:
        return highlighted
    newline = '<span class="fold-break">\n</span>'  # a block begins a line by itself
    for first, last, end in reversed(folds(source)):
        mark = f'<span class="fold-end" data-end="{html.escape(end)}"></span>'
        lines[first - 1 : last] = [
            f'<details class="fold"><summary>{lines[first - 1]}{mark}</summary>'
            + newline
            + "\n".join(lines[first:last])
            + "</details>\0"
        ]
    text = "".join(f"{line}\n" for line in lines).replace("\0\n", newline)
    return f"{before}{start}{text}{stop}{after}"


def _is_cell(node, kind: str) -> bool:
    while node := node.parent:
        if kind in node.get("classes", ()):
            return True
    return False


def _visit_code(self, node):
    """As the builder does; the code of a cell folds."""
    try:
        type(self).visit_literal_block(self, node)
    except nodes.SkipNode:
        if _is_cell(node, "cell_input"):
            self.body[-1] = fold_html(self.body[-1], node.astext())
        raise


def _visit_image(self, node):
    """As the builder does; a drawing leads to its own file."""
    type(self).visit_image(self, node)
    if not isinstance(node.parent, nodes.reference):
        link = f'<a class="enlarge" href="{html.escape(node["uri"])}">'
        self.body[-1] = f"{link}{self.body[-1].rstrip()}</a>\n"


def _number_ids(app, doctree, name):
    """Count the ids that every proof, exercise and solution of a page shares."""
    seen = Counter()
    for node in doctree.findall(nodes.Element):
        for place, shared in enumerate(node.get("ids", ())):
            if shared in SHARED:
                seen[shared] += 1
                node["ids"][place] = f"{shared}-{seen[shared]}"


def element(page: str, at: int) -> str:
    """The element of the HTML `page` whose first tag begins at `at`."""
    name = re.compile(r"<(\w+)").match(page, at)[1]
    depth = 0
    for tag in re.compile(rf"<(/?){name}\b").finditer(page, at):
        depth += -1 if tag[1] else 1
        if not depth:
            return page[at : page.index(">", tag.end()) + 1]
    raise SphinxError(f"<{name}> is not closed")


def tips(address: str, page: str) -> dict[str, str]:
    """What links may lead to on a built page, by its address with `#` and name.

    Links and images in it count from the root of the book.
    """
    folder = posixpath.dirname(address)

    def moved(found):
        path, mark, name = found[2].partition("#")
        path = posixpath.normpath(posixpath.join(folder, path)) if path else address
        return f'{found[1]}="{path}{mark}{name}"'

    found = {}
    for tag in TARGET.finditer(page):
        text = element(page, tag.start())
        text = re.sub(r'<a class="headerlink".*?</a>', "", text, flags=re.DOTALL)
        text = re.sub(r'<div class="play">.*?</div>', "", text, flags=re.DOTALL)
        text = re.sub(r' id="[^"]*"', "", text)
        text = re.sub(r'\b(src|href)="(?![a-z]+:)([^"]*)"', moved, text)
        found[f"{address}#{tag[1]}"] = text
    return found


def _write_tips(app, exception):
    if exception or app.builder.format != "html":
        return
    out, found = Path(app.outdir), {}
    for name in sorted(app.env.found_docs):
        address = app.builder.get_target_uri(name)
        found |= tips(address, (out / address).read_text(encoding="utf-8"))
    text = json.dumps(found, ensure_ascii=False, indent=0)
    (out / "_static" / "tips.js").write_text(f"TIPS = {text}\n", encoding="utf-8")


def setup(app):
    """Connect the handlers."""
    app.connect(
        "builder-inited", lambda app: app.config.html_static_path.append(str(STATIC))
    )
    app.connect("doctree-resolved", _number_ids, priority=900)
    app.connect("build-finished", _write_tips)
    app.add_css_file("page.css")
    app.add_js_file("page.js", loading_method="defer")
    app.add_node(nodes.literal_block, override=True, html=(_visit_code, None))
    app.add_node(nodes.image, override=True, html=(_visit_image, None))
    return {"parallel_read_safe": True}
