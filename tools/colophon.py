"""Sphinx extension: what every page says of itself: version, commit, description.

The commit is that of the checkout at the time of the build, and is left out where the
sources are in none; two builds of one commit say the same.  The page at the root, which
leads to the first one, has a title, a description and the icon as well.
"""

import html
import subprocess
from importlib import import_module
from pathlib import Path

import yaml
from docutils import nodes

LENGTH = 160  # characters that search engines show
REDIRECT = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta name="description" content="{description}">
<meta http-equiv="Refresh" content="0; url={page}">
<link rel="icon" href="_static/{icon}">
</head>
<body><a href="{page}">{title}</a></body>
</html>
"""


def commit(folder: Path) -> str:
    """The commit that is checked out in `folder`, empty if that is no checkout's root.

    A plus sign says that tracked files differ from it.
    """

    def git(*arguments):
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        top = git("rev-parse", "--show-toplevel")
        if not top or Path(top).resolve() != folder.resolve():
            return ""
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except OSError:  # no git
        return ""


def footer(folder: Path, url: str) -> str:
    """Version and commit as HTML."""
    version = import_module("prunefair").__version__
    name = commit(folder)
    link = f'<a href="{url}/commit/{name.rstrip("+")}">{name}</a>'
    return f"<p>Version {version}" + (f", commit {link}" if name else "") + "</p>"


def description(doctree) -> str:
    """The first paragraph of a page's text, at most `LENGTH` characters of it."""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section | nodes.document):
            text = " ".join(paragraph.astext().split())
            if len(text) > LENGTH:
                text = text[: LENGTH - 1].rpartition(" ")[0] + "…"
            return text
    return ""


def _inited(app, config):
    settings = yaml.safe_load((Path(app.srcdir) / "_config.yml").read_text("utf-8"))
    url = settings["repository"]["url"]
    options = config.html_theme_options | {
        "extra_footer": footer(Path(app.srcdir), url)
    }
    config.html_theme_options = options


def _page(app, pagename, templatename, context, doctree):
    about = description(doctree) if doctree else ""
    about = html.escape(about or app.config.html_title or app.config.project)
    tag = f'\n<meta name="description" content="{about}" />'
    context["metatags"] = context.get("metatags", "") + tag
    if pagename == app.config.master_doc != "index":
        fields = {
            "title": html.escape(app.config.html_title or app.config.project),
            "description": about,
            "page": f"{pagename}.html",
            "icon": Path(app.config.html_favicon).name,
        }
        index = Path(app.outdir) / "index.html"
        index.write_text(REDIRECT.format(**fields), encoding="utf-8")


def setup(app):
    """Connect the handlers."""
    app.connect("config-inited", _inited)
    app.connect("html-page-context", _page)
    return {"parallel_read_safe": True}
