"""Sphinx extension: a map of the chapters, and how long to read and run each of them.

The line `[Map of the chapters](../_toc.yml)` of a page becomes a drawing with a link to
every chapter, in reading order, and an arc from each chapter to a later one that
imports from it; an arc that follows from others is left out.
`[time](../tools/spine.py)` becomes the time that the chapters take to which the same
line of text links.

Reading takes a minute for 200 words of prose, half a minute for a displayed equation or
a figure, and three seconds for a line of code.  Docstrings, which fold, take none.

Below its title every chapter says how long it takes to read, and what it used when it
was run as on Colab (`book/results/colab.json`).
"""

import ast
import json
import posixpath
import re
from functools import cache
from html import escape
from pathlib import Path

import yaml

MAP = "[Map of the chapters](../_toc.yml)"
TIME = "[time](../tools/spine.py)"
WORDS, EQUATION, FIGURE, CODE_LINE = 1 / 200, 0.5, 0.5, 0.05  # minutes
PARTS = {
    "pruning": "Part I: pruning",
    "fairness": "Part II: fairness",
    "bridge": "Part III: the bridge",
}
LINK = re.compile(r"\]\(([\w./]+\.ipynb)")

# The look of the map: one unit is a pixel on a phone.
WIDTH, ROW, HEAD, RADIUS, SPINE = 340, 30, 34, 11, 104
STYLE = """\
.spine { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.spine svg { flex: 1 1 300px; max-width: 420px; height: auto; }
.spine text { fill: var(--pst-color-text-base); font: 15px sans-serif; }
.spine .part { font-weight: bold; }
.spine .act, .spine .time { fill: var(--pst-color-text-muted); font-size: 13px; }
.spine .number { fill: var(--pst-color-background); font-size: 11px; }
.spine circle { fill: var(--pst-color-primary); }
.spine path { fill: none; stroke: var(--pst-color-text-muted); stroke-width: 1.2; }
.spine g:hover path, .spine g:focus-within path { stroke: var(--pst-color-primary);
  stroke-width: 3; }
.spine a { text-decoration: none; }
.spine a:hover text:not(.number) { text-decoration: underline; }"""


def acts(root: Path) -> dict[str, list[str]]:
    """Chapters in reading order, by the act of the contents that they stand in."""
    parts = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    return {
        part["caption"]: [c["file"].removeprefix("book/") for c in part["chapters"]]
        for part in parts
        if part.get("numbered")
    }


@cache
def cells(root: Path, chapter: str, kind: str) -> list[dict]:
    """Cells of a chapter, without the one that prepares Colab."""
    text = (root / "book" / f"{chapter}.ipynb").read_text(encoding="utf-8")
    found = [c for c in json.loads(text)["cells"] if c["cell_type"] == kind]
    for cell in found:
        cell["source"] = "".join(cell["source"])
    return [cell for cell in found if "google.colab" not in cell["source"]]


def title(root: Path, chapter: str) -> str:
    """What stands at the top of a chapter."""
    return cells(root, chapter, "markdown")[0]["source"].split("\n")[0].lstrip("# ")


@cache
def imports(root: Path, chapter: str) -> set[str]:
    """Modules of the package that any cell of a chapter imports, such as `data`."""
    names = set()
    for cell in cells(root, chapter, "code"):
        for node in ast.walk(ast.parse(cell["source"])):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{a.name}" for a in node.names} | {node.module}
    inside = {name.removeprefix("prunefair.") for name in names if "prunefair." in name}
    return {name.replace(".", "/") for name in inside}


def needs(root: Path) -> dict[str, list[str]]:
    """For every chapter the others that it imports from, in reading order."""
    order = sum(acts(root).values(), [])
    return {
        c: [o for o in order[:i] if o in imports(root, c)] for i, c in enumerate(order)
    }


def without_shortcuts(needed: dict[str, list[str]]) -> dict[str, list[str]]:
    """The same dependencies, less those that follow from others."""
    above = {}
    for chapter, its in needed.items():
        above[chapter] = set(its).union(*(above.get(name, ()) for name in its))
    return {
        chapter: [n for n in its if not any(n in above.get(o, ()) for o in its)]
        for chapter, its in needed.items()
    }


@cache
def minutes(root: Path, chapter: str) -> float:
    """How long a chapter takes to read, by the rule above."""
    total = 0.0
    for cell in cells(root, chapter, "markdown"):
        text, equations = re.subn(r"\$\$.*?\$\$", " ", cell["source"], flags=re.S)
        text = re.sub(r"\]\([^)]*\)|<[^>]*>", " ", re.sub(r"\$[^$]*\$", " x ", text))
        total += EQUATION * equations + WORDS * len(re.findall(r"[\w'’-]*\w", text))
    for cell in cells(root, chapter, "code"):
        tree, folded = ast.parse(cell["source"]), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(
                node
            ):
                folded |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        lines = enumerate(cell["source"].split("\n"), 1)
        code = [line for n, line in lines if line.strip() and n not in folded]
        figures = sum("image/png" in o.get("data", {}) for o in cell["outputs"])
        total += CODE_LINE * len(code) + FIGURE * figures
    return total


def shown(time: float, step: int = 5) -> str:
    """Minutes rounded to `step` of them, or hours to halves."""
    if time < 90:
        return f"{step * max(1, round(time / step))}\N{NO-BREAK SPACE}min"
    return f"{round(time / 30) / 2:g}\N{NO-BREAK SPACE}h"


def _arc(start: int, end: int) -> str:
    """From the circle at one height to that at a larger one, by the left."""
    x = SPINE - RADIUS
    out = (
        x - min(x - 3, 4 + 3.4 * (end - start) ** 0.5) / 0.75
    )  # a quarter is not reached
    return f'<path d="M {x} {start} C {out:.0f} {start} {out:.0f} {end} {x} {end}"/>'


def drawing(root: Path, part: str, page: str) -> str:
    """The map of one part, whose links lead from `page`; no line is blank."""
    order = sum(acts(root).values(), [])
    needed, y, heights = without_shortcuts(needs(root)), 22, {}
    lines = [f'<text class="part" x="4" y="{y}">{PARTS[part]}</text>']
    for act, its in acts(root).items():
        if its[0].split("/")[0] != part:
            continue
        y += HEAD
        act = act.split(": ", 1)[-1]
        act = act[0].upper() + act[1:]
        lines.append(f'<text class="act" x="{SPINE - RADIUS}" y="{y}">{act}</text>')
        y += ROW - HEAD
        for chapter in its:
            y += ROW
            heights[chapter] = y
            name, _, rest = title(root, chapter).partition(": ")
            target = posixpath.relpath(f"book/{chapter}.html", posixpath.dirname(page))
            number, x = order.index(chapter) + 1, SPINE
            near = [
                other for other in needed[chapter] if other in heights
            ]  # in this map
            arcs = [_arc(heights[other], y) for other in near]
            lines += [
                f"<g><title>{escape(rest or name)}</title>{''.join(arcs)}",
                f'<a href="{target}"><circle cx="{x}" cy="{y}" r="{RADIUS}"/>',
                f'<text class="number" x="{x}" y="{y + 4}" text-anchor="middle">'
                f"{number}</text>",
                f'<text x="{x + 18}" y="{y + 5}">{escape(name)}</text></a>',
                f'<text class="time" x="{WIDTH - 4}" y="{y + 5}" text-anchor="end">'
                f"{shown(minutes(root, chapter))}</text></g>",
            ]
    box = f'viewBox="0 0 {WIDTH} {y + 20}"'
    label = f"{PARTS[part]}: its chapters and which of them use which"
    return "\n".join(
        [f'<svg {box} role="group" aria-label="{label}">', *lines, "</svg>"]
    )


def chapter_map(root: Path, page: str) -> str:
    """All parts as HTML for `page`."""
    parts = "\n".join(drawing(root, part, page) for part in PARTS)
    return f'<div class="spine"><style>\n{STYLE}\n</style>\n{parts}</div>'


def timed(root: Path, line: str, page: str) -> str:
    """A line of text of `page` with the time that its chapters take."""
    if TIME not in line:
        return line
    folder = posixpath.join(posixpath.dirname(page), "")
    found = {
        posixpath.normpath(folder + link).removeprefix("book/").removesuffix(".ipynb")
        for link in LINK.findall(line)
    }
    return line.replace(TIME, shown(sum(minutes(root, name) for name in found)))


def needed_to_run(root: Path, chapter: str, metadata: dict) -> str:
    """What a run of a chapter used, in words; empty where it was not measured."""
    results = root / "book" / "results" / "colab.json"
    record = json.loads(results.read_text(encoding="utf-8"))["chapters"][chapter]
    if "processor_seconds" not in record:
        return ""
    seconds, memory = record["processor_seconds"], record["peak_mib"] / 1024
    time = f"{seconds}\N{NO-BREAK SPACE}s" if seconds < 90 else shown(seconds / 60, 1)
    text = (
        f" Running: about {time} of one processor core and {max(memory, 0.1):.1f}"
        "\N{NO-BREAK SPACE}GB of memory, on a laptop as on Colab"
    )
    if metadata.get("accelerator") == "GPU":
        text += "; a GPU is used where there is one, and has not been timed"
    return f"{text}."


def headed(root: Path, chapter: str, text: str) -> str:
    """The notebook `text` of a chapter, JSON, with its times below the title."""
    document = json.loads(text)
    cell = document["cells"][0]
    title, _, rest = "".join(cell["source"]).partition("\n")
    head = (
        f":::{{div}} times\nReading: about {shown(minutes(root, chapter))}."
        f"{needed_to_run(root, chapter, document['metadata'])}\n:::"
    )
    cell["source"] = f"{title}\n\n{head}\n{rest}"
    return json.dumps(document)


def _read(app, docname, source):
    root, text = Path(app.srcdir), source[0]
    chapter = docname.removeprefix("book/")
    if app.env.doc2path(docname).endswith(".ipynb") and "/" in chapter:
        app.env.note_dependency(str(root / "book" / "results" / "colab.json"))
        source[0] = headed(root, chapter, text)
        return
    if MAP not in text and TIME not in text or docname.count("/") > 1:
        return
    app.env.note_reread()  # it depends on every chapter
    text = "\n".join(timed(root, line, docname) for line in text.split("\n"))
    source[0] = text.replace(MAP, chapter_map(root, docname) if MAP in text else "")


def setup(app):
    """Connect the handler."""
    app.connect("source-read", _read, priority=100)
    return {"parallel_read_safe": True}
