"""Sphinx extension: docstrings written in the book's notation, shown on the API pages.

The docstring of a chapter's module is the chapter's opening and is left out, as is the
text that Python makes up for the fields of a named tuple.  In every other
docstring `$x$` becomes mathematics and `{eq}`, `{cite}` or `{prf:ref}` a link, as in
the chapters.  A class ends with links to those of the package that it is made from.
"""

import inspect
import re

from docutils import nodes

ROLE = re.compile(r"\{(eq|cite|cite:t|cite:p|prf:ref|ref|numref)\}`")
GROUP = re.compile(r"(\s*)(\w+(?:, \w+)+)( : .*)")
MATHEMATICS = re.compile(r"(?<!\\)\$([^$]+)\$")


def rest(text: str) -> str:
    """`text` with MyST's roles and dollars written as reStructuredText."""
    text = MATHEMATICS.sub(
        lambda found: f":math:`{' '.join(found[1].split())}`" + "\\ ", text
    )
    return ROLE.sub(r":\1:`", text)


def bases(cls: type) -> list[str]:
    """Links to the public classes of the same package that `cls` is made from."""
    package = cls.__module__.partition(".")[0] + "."
    return [
        f":py:class:`~{base.__module__}.{base.__qualname__}`"
        for base in cls.__mro__[1:]
        if base.__module__.startswith(package) and base.__name__[0] != "_"
    ]


def _group(app, what, name, obj, options, lines):
    """Keep `a, b : int` together: at a space Sphinx would take `a,` for the type."""
    for place, line in enumerate(lines):
        if found := GROUP.fullmatch(line):
            lines[place] = found[1] + found[2].replace(", ", ",") + found[3]


def _ungroup(app, doctree):
    for strong in doctree.findall(nodes.strong):
        if re.fullmatch(r"\w*(,\w*)+", text := strong.astext()):
            strong[:] = [nodes.Text(text.replace(",", ", "))]


def _process(app, what, name, obj, options, lines):
    chapter = what == "module" and inspect.getsource(obj).startswith("# %%")
    empty = chapter or lines[:1] and lines[0].startswith("Alias for field")
    lines[:] = [] if empty else rest("\n".join(lines)).split("\n")
    if inspect.isclass(obj) and (found := bases(obj)):
        lines += ["", f"Bases: {', '.join(found)}", ""]


def setup(app):
    """Connect the handlers, the first one before napoleon's."""
    app.connect("autodoc-process-docstring", _group, priority=400)
    app.connect("autodoc-process-docstring", _process)
    app.connect("doctree-read", _ungroup)
    return {"parallel_read_safe": True}
