"""Sphinx extension: the API and the command line, written from the package itself.

At each build `book/api/` gets a page for every module of the package that holds public
names, so that none is missing and none outlives its module; the command line has a page
of its own instead.  The line
`[All modules](../src/prunefair)` of a page becomes the list of them, and
`[All commands](../src/prunefair/cli.py)` the commands with their options, from the same
declarations as `prunefair --help`.  A name of the package that a page sets in code font
is a link to its documentation.
"""

import ast
import importlib
import importlib.util
import inspect
import re
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import get_args, get_type_hints
from weakref import WeakKeyDictionary

from docutils import nodes
from sphinx.ext.autodoc import FunctionDocumenter
from sphinx.util.nodes import make_refnode

PACKAGE = "prunefair"
FOLDER = "book/api"  # in the folder of the book's settings; not tracked
MODULES = f"[All modules](../src/{PACKAGE})"
COMMANDS = f"[All commands](../src/{PACKAGE}/cli.py)"
PARTS = {
    "pipelines": "Pipelines",
    "pruning": "Part I: pruning",
    "fairness": "Part II: fairness",
    "bridge": "Part III: the bridge",
    "": "Shared",
}
_targets = WeakKeyDictionary()  # of each build
ADDRESS = re.compile(r"(?<=[=, ])<[^<>'\"]+>")  # an object without a notation
NAME = re.compile(r"([A-Za-z_][\w.]*)(\(.*\))?", re.DOTALL)


def package_folder() -> Path:
    """The folder of the package that autodoc will import."""
    return Path(importlib.util.find_spec(PACKAGE).origin).parent


def public_names(path: Path) -> dict[str, str]:
    """Functions and classes that a module defines, each with its first line."""
    return {
        node.name: " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    }


def modules(package: Path | None = None) -> dict[str, Path]:
    """Every module with public names, by the parts of its name below the package."""
    package = package or package_folder()
    paths = {p.relative_to(package).with_suffix(""): p for p in package.rglob("*.py")}
    return {
        place.as_posix(): path
        for place, path in sorted(paths.items())
        if place.as_posix() != "cli"  # its page is that of the commands
        and not place.name.startswith("_")
        and public_names(path)
    }


def is_chapter(text: str) -> bool:
    """Whether the text of a module is that of a chapter."""
    return text.startswith("# %%")


def _order(root: Path) -> list[str]:
    """Chapters in reading order."""
    found = re.findall(r"file: book/(\S+/\S+)", (root / "_toc.yml").read_text("utf-8"))
    return [name for name in found if not name.startswith("api/")]


def _title(path: Path) -> str:
    """What a module is about: the title of its chapter, or its first sentence."""
    text = path.read_text(encoding="utf-8")
    if is_chapter(text):
        return re.search(r"^# (?!%%)(.+)$", text, re.M)[1]
    return (
        (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].replace("\n", " ")
    )


def _row(*cells: str) -> str:
    texts = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
    return "| " + " | ".join(texts) + " |"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [_row(*head), _row(*["---"] * len(head)), *(_row(*row) for row in rows), ""]


def module_page(place: str, path: Path) -> str:
    """The page of one module."""
    depth = place.count("/") + 1
    name = f"{PACKAGE}.{place.replace('/', '.')}"
    lines = [f"# {place.replace('/', '.')}", ""]
    if is_chapter(path.read_text(encoding="utf-8")):
        target = f"{'../' * depth}{place}.ipynb"
        lines += [f"Chapter: [{_title(path)}]({target})", ""]
    lines += _table(
        ("name", "what"), [(f"`{n}`", d) for n, d in public_names(path).items()]
    )
    source = f"{'../' * (depth + 1)}src/{PACKAGE}/{place}.py"
    return "\n".join([*lines, f"[`{name}`]({source})", ""])


def write_pages(folder: Path, package: Path | None = None) -> None:
    """Renew the pages of all modules; those of modules that are gone go."""
    pages = {folder / f"{p}.md": module_page(p, f) for p, f in modules(package).items()}
    for path in folder.rglob("*.md"):
        if path not in pages:
            path.unlink()
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def module_list(root: Path) -> str:
    """All modules in tables, a part of the book each, chapters in reading order."""
    order = {name: number for number, name in enumerate(_order(root))}
    known, facade = modules(), importlib.import_module(PACKAGE)
    rows = [
        (f"`{PACKAGE}.{name}`", inspect.getdoc(getattr(facade, name)).split("\n\n")[0])
        for name in facade.__all__
    ]
    lines = ["## The main jobs", "", *_table(("name", "what"), rows)]
    for part, title in PARTS.items():
        places = [p for p in known if (p.partition("/")[0] if "/" in p else "") == part]
        rows = [
            (
                f"[{place.removeprefix(part + '/')}](api/{place}.md)",
                f"{_title(known[place])}<br>"
                + ", ".join(f"`{name}`" for name in public_names(known[place])),
            )
            for place in sorted(places, key=lambda p: (order.get(p, len(order)), p))
        ]
        lines += [f"## {title}", "", *_table(("module", "what, and its names"), rows)]
    return "\n".join(lines)


def _kind(hint) -> str:
    """What a value is in words, empty for a switch."""
    kinds = {int: "whole number", float: "number", Path: "path", str: "text"}
    return next((kinds[t] for t in (*get_args(hint), hint) if t in kinds), "")


def _default(parameter) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if isinstance(value, bool):
        return f"by default `{parameter.opts[0]}`" if value else ""
    return f"by default `{value}`" if value or value == 0 else ""


@cache
def command_list() -> str:
    """Every command: what it does, its arguments and options, an example.

    It is made once, before autodoc can leave a signature without its options at a
    function of the command line.
    """
    import typer

    cli = importlib.import_module(f"{PACKAGE}.cli")
    group, lines = typer.main.get_command(cli.app), []
    for name, command in group.commands.items():
        hints = get_type_hints(command.callback)
        help_text = inspect.cleandoc(command.help or "").replace("<", "\\<")
        lines += [f"## {PACKAGE} {name}", "", help_text, ""]
        options = [p.param_type_name == "option" for p in command.params]
        for option, parameter in sorted(
            zip(options, command.params), key=itemgetter(0)
        ):
            names = [*parameter.opts, *parameter.secondary_opts]
            names = names if option else [parameter.name.upper()]
            about = [_kind(hints[parameter.name]), _default(parameter)]
            about = f" ({'; '.join(filter(None, about))})" if any(about) else ""
            meaning = re.sub(r"(?<!\w)--[\w-]+", r"`\g<0>`", parameter.help or "")
            shown = ", ".join(f"`{name}`" for name in names)
            lines += [shown + about, f": {meaning}", ""]
        if command.epilog:
            lines += ["```sh", command.epilog.removeprefix("Example: "), "```", ""]
    return "\n".join(lines)


def shorten(app, what, name, obj, options, signature, returned):
    """An ellipsis for values that Python can only show as `<...>`."""
    return (ADDRESS.sub("...", signature), returned) if signature else None


class Compiled(FunctionDocumenter):
    """Documents what numba compiles as the function it was made from."""

    objtype, directivetype, priority = "compiled", "function", 20

    @classmethod
    def can_document_member(cls, member, membername, isattr, parent):
        """Whether it holds a function of Python."""
        return inspect.isfunction(getattr(member, "py_func", None))

    def import_object(self, raiseerror=False):
        """The function behind the compiled one."""
        found = super().import_object(raiseerror)
        self.object = getattr(self.object, "py_func", self.object)
        return found


def link_targets(objects) -> dict[str, tuple[str, str]]:
    """Page and place of each public name, by what a text calls it, if unique."""
    found: dict[str, set] = {}
    facade = importlib.import_module(PACKAGE).__all__
    for full, entry in objects.items():
        parts = full.split(".")
        short = {full, full.partition(".")[2]} if len(parts) > 2 else {full}
        if entry.objtype in ("function", "class", "exception"):
            short.add(parts[-1])
            if parts[-1] in facade:
                short.add(f"{PACKAGE}.{parts[-1]}")
        elif entry.objtype in ("method", "classmethod", "staticmethod", "property"):
            short.add(".".join(parts[-2:]))
        elif entry.objtype != "module":
            continue
        for name in short:
            found.setdefault(name, set()).add((entry.docname, entry.node_id))
    return {name: places.pop() for name, places in found.items() if len(places) == 1}


def link_names(app, doctree, docname):
    """Make links of the public names that stand in code font."""
    targets = _targets.get(app)
    if targets is None:
        targets = _targets[app] = link_targets(app.env.get_domain("py").objects)
    for literal in list(doctree.findall(nodes.literal)):
        name = NAME.fullmatch(literal.astext())
        within, above = literal.parent, []
        while within is not None:
            above.append(within)
            within = within.parent
        if not name or any(isinstance(n, nodes.reference | nodes.title) for n in above):
            continue
        if target := targets.get(name[1]):
            link = make_refnode(app.builder, docname, *target, [literal.deepcopy()])
            literal.replace_self(link)


def _write(app, config):
    if (Path(app.srcdir) / "src" / PACKAGE).is_dir():
        write_pages(Path(app.srcdir) / FOLDER)
    command_list()


def _read(app, docname, source):
    if MODULES in source[0]:
        source[0] = source[0].replace(MODULES, module_list(Path(app.srcdir)))
        app.env.note_reread()  # it depends on every module
    if COMMANDS in source[0]:
        source[0] = source[0].replace(COMMANDS, command_list())
        app.env.note_reread()


def setup(app):
    """Connect the handlers; the pages are there before the contents are read."""
    app.connect("config-inited", _write, priority=100)
    app.connect("source-read", _read, priority=100)
    app.connect("autodoc-process-signature", shorten)
    app.connect("doctree-resolved", link_names)
    app.add_autodocumenter(Compiled)
    app.add_css_file("reference.css", priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
