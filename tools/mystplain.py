r"""Sphinx extension: chapters are plain Markdown, and the builder reads them as MyST.

Colab, Jupyter and GitHub know nothing of MyST's directives and roles, and would show
them as code.  The chapters therefore use forms that read well anywhere, which this
extension turns into numbered theorems, exercises, figures and references.

    **Theorem (Title).** <a id="thm-x"></a>      statement, up to its proof;
    text                                         or `Lemma`
    **Proof.**
    text ∎                                       proof, up to the mark

    **Exercise ★★.** <a id="ex-x"></a>           exercise with its difficulty, up to its
    text                                         solution or to the end of the cell
    <details><summary>Hint</summary>             hint, which folds within the exercise
    text
    </details>
    <details><summary>Solution</summary>         solution, which folds with the code
    text                                         cells right behind it, its check
    </details>

    <div class="alert alert-warning">            note; with `alert-info` a box for what
    **Deviation.**                               is to be remembered
    text
    </div>

    **Figure (fig-x).** <a id="fig-x"></a> ...   caption, right behind the cell that
                                                 draws the figure; its first sentences
                                                 say what is to be seen, and are what
                                                 a reader hears who does not see it
    <a id="eq-x"></a>
    $$                                           equation
    ...
    $$ (eq-x)

    [(eq-x)](#eq-x)  [Theorem (Title)](#thm-x)  [Figure (fig-x)](#fig-x)
    ([Luce 1959](../references.bib#luce1959); [Other 1960](../references.bib#other1960))
    [Luce (1959)](../references.bib#luce1959)    references; those to another chapter
                                                 have its file before the `#`
    [`prunefair.data`](../src/prunefair/data.py)     documentation of a module
    [All works](references.bib)                      the bibliography
"""

import json
import re

from sphinx.errors import SphinxError

ANCHOR = r'<a id="([\w-]+)"></a>'
STATEMENT = re.compile(rf"\*\*(Theorem|Lemma) \((.+)\)\.\*\* {ANCHOR}")
EQUATION = re.compile(r' *<a id="eq-[\w-]+"></a>')
EXERCISE = re.compile(rf"\*\*Exercise((?: ★{{1,3}})?)\.\*\* {ANCHOR}")
FIGURE = re.compile(rf"\*\*Figure \((fig-[\w-]+)\)\.\*\* {ANCHOR} (.+)\n*")
MODULE = re.compile(r"\[`([\w.]+)`\]\([\w./]+\.py\)")
WORKS = "[All works](references.bib)"
DETAILS = "<details><summary>Solution</summary>"
HINT = "<details><summary>Hint</summary>"
NOTES = {f'<div class="alert alert-{kind}">': kind for kind in ("warning", "info")}
END = "∎"
LINK = r"\]\([^()\s]*#"
BIB = r"\]\([^()\s]*references\.bib#([\w-]+)\)"
PLAIN = [  # what is plain, and what MyST has for it
    (rf"\[\((eq-[\w-]+)\){LINK}\1\)", r"{eq}`\1`"),
    (rf"\[Figure \((fig-[\w-]+)\){LINK}\1\)", r"{numref}`\1`"),
    (rf"\[Exercise \((ex-[\w-]+)\){LINK}\1\)", r"{ref}`\1`"),
    (rf"\[(?:Theorem|Lemma) \([^]]+\){LINK}((?:thm|lem)-[\w-]+)\)", r"{prf:ref}`\1`"),
    (rf"\[[^][]+ \(\d{{4}}\){BIB}", r"{cite:t}`\1`"),
]
CITATIONS = re.compile(rf"\((\[[^][]+ \d{{4}}{BIB}(?:; \[[^][]+ \d{{4}}{BIB})*)\)")
LEFT = re.compile(
    rf'.*({END}|<a id="|\]\([^()\s]*#(eq|thm|lem|ex|fig)-|references\.bib#).*'
)
FENCE = re.compile(r" *(```+|~~~+)")


class Reader:
    """Turns the Markdown cells of one page into MyST, one after the other.

    Parameters
    ----------
    name : str
        Name of the page, for errors.
    """

    def __init__(self, name: str):
        self.name, self.number, self.open, self.label = name, 0, None, None
        self.gated = False  # whether code belongs to the solution that begins
        self.hint, self.note = False, None  # whether one is open; its kind

    def fail(self, message: str):
        """Stop the build."""
        raise SphinxError(f"{self.name}, cell {self.number}: {message}")

    def cell(self, number: int, text: str, checked: bool = False) -> str:
        """The cell `number` as MyST.

        With code behind it, `checked`, a solution at its end stays open up to the next
        cell.
        """
        self.number = number
        lines, fence = [], None
        if self.open == "gated":
            lines = [":::{solution-end}", *self.close("gated")]
        checked = checked and text.rstrip().endswith("</details>")
        given = text.split("\n")
        last = max((i for i, x in enumerate(given) if x == DETAILS), default=-1)
        for place, line in enumerate(given):
            self.gated = checked and place == last
            mark = FENCE.match(line)
            if mark and fence in (None, mark[1]):
                fence = None if fence else mark[1]
            if fence:
                lines.append(line)
            else:
                lines += [inline(new, self.fail) for new in self.line(line)]
        if self.open == "exercise":
            lines += self.close("exercise")
        if self.open not in (None, "gated"):
            wanted = {"theorem": "not followed by its proof"}
            self.fail(f"a {self.open} is {wanted.get(self.open, 'not closed')}")
        return "\n".join(lines)

    def finish(self) -> None:
        """The page ends here."""
        if self.open or self.label:
            self.fail(f"{self.label} has no solution")

    def begin(self, kind: str, after: str | None = None) -> list[str]:
        """Lines that close what may end here, `after`; `kind` is open now."""
        lines = self.close(after) if after and self.open == after else []
        if self.open:
            self.fail(f"a {kind} begins within a {self.open}")
        self.open = kind
        return lines

    def close(self, kind: str) -> list[str]:
        """Lines that end the directive."""
        if self.open != kind:
            self.fail(f"the end of a {kind} that has not begun")
        self.open = None
        return [":::", ""]

    def solution(self, kind: str, directive: str) -> list[str]:
        """Lines that begin the solution of the last exercise."""
        lines = self.begin(kind, "exercise")
        if not self.label:
            self.fail("a solution without an exercise of its own")
        return lines + [f":::{{{directive}}} {self.label}", ":class: dropdown", ""]

    def line(self, line: str) -> list[str]:
        """The lines of MyST for one line outside fenced code."""
        if EQUATION.fullmatch(line):
            return []
        if found := MODULE.fullmatch(line):
            directive = [f".. automodule:: {found[1]}", "   :members:"]
            return ["```{eval-rst}", *directive, "```"]
        if line == WORKS:
            return ["```{bibliography}", "```"]
        if found := STATEMENT.fullmatch(line):
            directive = f":::{{prf:{found[1].lower()}}} {found[2]}"
            return self.begin("theorem") + [directive, f":label: {found[3]}", ""]
        if line == "**Proof.**":
            return self.begin("proof", "theorem") + [":::{prf:proof}"]
        if found := EXERCISE.fullmatch(line):
            if self.label:
                self.fail(f"{self.label} has no solution")
            self.label = found[2]
            return self.begin("exercise") + [
                f":::{{exercise}}{found[1]}",
                f":label: {self.label}",
                "",
            ]
        if line == HINT:
            if self.open != "exercise":
                self.fail("a hint outside its exercise")
            self.hint = True
            return [line.replace(">", ' class="hint">', 1)]
        if line == "</details>" and self.hint:
            self.hint = False
            return [line]
        if line == DETAILS and self.gated:
            return [*self.solution("gated", "solution-start")[:-1], ":::", ""]
        if line == DETAILS:
            return self.solution("solution", "solution")
        if line == "</details>":
            self.label = None
            return [] if self.open == "gated" else self.close("solution")
        if line.startswith("**Solution"):
            self.fail(f"a solution begins with {DETAILS}")
        if line.endswith(END):
            return [line.removesuffix(END).rstrip(), *self.close("proof")]
        if line in NOTES:
            self.note = NOTES[line]
            return self.begin("note without its title")
        if self.open == "note without its title":
            if not line:
                return []
            self.open = "note"
            return [f":::{{admonition}} {line.strip('*.')}", f":class: {self.note}", ""]
        if line == "</div>":
            return self.close("note")
        if line.startswith("#") and self.open:
            self.fail(f"a heading within a {self.open}")
        return [line]


def inline(text: str, fail) -> str:
    """`text` with its references as roles; calls `fail` on one of no known form."""
    for plain, role in PLAIN:
        text = re.sub(plain, role, text)
    text = CITATIONS.sub(
        lambda found: "{cite}`" + ",".join(re.findall(BIB, found[1])) + "`", text
    )
    if found := LEFT.search(text):
        fail(f"this form is not known: {found[0].strip()[:200]}")
    return text


def plain(caption: str) -> str:
    """The first sentences of a caption, of 40 characters or more, without marks."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", caption)  # a link's text
    text = re.sub(r"\\(?:bar|hat|mathrm|operatorname|text)\b", "", text)
    text = " ".join(re.sub(r"[$`*\\{}]", "", text).split())
    end = re.compile(r"[.;](?= )|$").search(text, min(40, len(text)))
    return text[: end.end()]


def notebook(name: str, text: str) -> str:
    """The notebook `text`, a JSON document, with its Markdown cells as MyST."""
    document, reader = json.loads(text), Reader(name)
    before, cells = {}, document["cells"]
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            source = "".join(cell["source"])
            reader.number = number
            if found := FIGURE.match(source):
                if before.get("cell_type") != "code" or found[1] != found[2]:
                    reader.fail(f"{found[1]} is not right behind its code cell")
                figure = {"name": found[1], "caption": inline(found[3], reader.fail)}
                settings = before["metadata"].setdefault("mystnb", {})
                settings |= {"figure": figure, "image": {"alt": plain(found[3])}}
                source = source[found.end() :]
            checked = [c["cell_type"] for c in cells[number + 1 :][:1]] == ["code"]
            cell["source"] = reader.cell(number, source, checked)
        before = cell
    if reader.open == "gated":
        last = {"cell_type": "markdown", "id": "solution-end", "metadata": {}}
        cells.append(last | {"source": reader.cell(len(cells), "")})
    reader.finish()
    return json.dumps(document)


def page(name: str, text: str) -> str:
    """A whole Markdown page as MyST."""
    reader = Reader(name)
    text = reader.cell(0, text)
    reader.finish()
    return text


def _read(app, docname, source):
    suffix = app.env.doc2path(docname).rpartition(".")[2]
    source[0] = {"ipynb": notebook, "md": page}[suffix](docname, source[0])


def setup(app):
    """Connect the handler."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
