"""Sphinx extension: docstrings written in the book's notation, shown on the API pages.

The docstring of a chapter's module is the chapter's opening and is left out, as is the
text that Python makes up for the fields of a named tuple.  In every other
docstring `$x$` becomes mathematics and `{eq}`, `{cite}` or `{prf:ref}` a link, as in
the chapters.
"""

import inspect
import re

ROLE = re.compile(r"\{(eq|cite|cite:t|cite:p|prf:ref|ref|numref)\}`")
MATHEMATICS = re.compile(r"(?<!\\)\$([^$]+)\$")


def rest(text: str) -> str:
    """`text` with MyST's roles and dollars written as reStructuredText."""
    text = MATHEMATICS.sub(
        lambda found: f":math:`{' '.join(found[1].split())}`" + "\\ ", text
    )
    return ROLE.sub(r":\1:`", text)


def _process(app, what, name, obj, options, lines):
    chapter = what == "module" and inspect.getsource(obj).startswith("# %%")
    empty = chapter or lines[:1] and lines[0].startswith("Alias for field")
    lines[:] = [] if empty else rest("\n".join(lines)).split("\n")


def setup(app):
    """Connect the handler."""
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}
