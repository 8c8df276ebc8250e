"""Sphinx extension: verdicts of the claims page have a colour and a mark, and a filter.

The verdict of a claim is the text of its cell in the column `verdict`.  The cell and
the row of the claim get a class, which `static/claims.css` colours and marks, and by
which the buttons of `static/claims.js` show the claims of one verdict.  Without a
script the page is the plain table.
"""

import re
from pathlib import Path

from docutils import nodes

VERDICTS = ("reproduced", "contradicted", "bounded", "not testable here")
STATIC = Path(__file__).parent / "static"


def tables(text: str) -> list[list[str]]:
    """The verdicts of each table of a page in Markdown, in order."""
    found = []
    for line in text.split("\n"):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and cells[1] == "verdict":
            found.append([])
        elif len(cells) == 3 and found and not re.fullmatch("-+", cells[1]):
            found[-1].append(cells[1])
    return found


def classified(doctree) -> bool:
    """Give cells and rows of claims the class of their verdict; whether one did."""
    any_claim = False
    for table in doctree.findall(nodes.table):
        rows = list(table.findall(nodes.row))
        heads = [entry.astext() for entry in rows[0].children]
        if "verdict" not in heads:
            continue
        for row in rows[1:]:
            entry = row.children[heads.index("verdict")]
            verdict = f"verdict-{entry.astext().lower().replace(' ', '-')}"
            entry["classes"] += ["verdict", verdict]
            if heads[0] == "claim":
                row["classes"].append(verdict)
                table["classes"] += ["claims"] * ("claims" not in table["classes"])
                any_claim = True
    return any_claim


def _resolved(app, doctree, docname):
    if classified(doctree):
        app.env.metadata[docname]["claims"] = True


def _page(app, pagename, templatename, context, doctree):
    if app.env.metadata.get(pagename, {}).get("claims"):
        app.add_css_file("claims.css")
        app.add_js_file("claims.js", loading_method="defer")


def setup(app):
    """Connect the handlers."""
    app.connect("doctree-resolved", _resolved)
    app.connect("html-page-context", _page)
    app.connect(
        "config-inited", lambda app, config: config.html_static_path.append(str(STATIC))
    )
    return {"parallel_read_safe": True}
