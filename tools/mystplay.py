"""Sphinx extension: charts to play with, from files and without a server.

A cell that shows one (`prunefair.playing`) stores the chart as Vega-Lite and a still of
it.  A page has both: `play.js` draws the chart with the files of `static/vega`, which
only the pages with charts load, and hides the still until the page is printed.
"""

import json
import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

CHART = re.compile(r"application/vnd\.vegalite\.v\d+\+json")
FILES = ("vega/vega.min.js", "vega/vega-lite.min.js", "play.js")
BEGIN = '<div class="play">'


def markup(spec: dict) -> str:
    """A chart as HTML, for `play.js`."""
    named = {name: part for name, part in spec.items() if name != "$schema"}
    text = json.dumps(named, ensure_ascii=False).replace("</", "<\\/")
    return f'{BEGIN}<script type="application/json">{text}</script></div>'


def charted(text: str) -> str:
    """The notebook `text`, JSON, with each chart as HTML beside its still."""
    if not CHART.search(text):
        return text
    document = json.loads(text)
    for cell in document["cells"]:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            for kind in filter(CHART.fullmatch, [*data]):
                data["text/html"] = markup(data.pop(kind))
    return json.dumps(document)


class BothShown(SphinxPostTransform):
    """Put a chart before its still; of other outputs one form is chosen, later."""

    default_priority = 3
    builders = ("html",)

    def run(self, **kwargs):
        """Move the HTML out of the forms that there are to choose from."""
        for part in [*self.document.findall(nodes.raw)]:
            if part.astext().startswith(BEGIN):
                form = part.parent
                bundle = form.parent
                bundle.remove(form)
                bundle.parent.insert(bundle.parent.index(bundle), part)


def _read(app, docname, source):
    if app.env.doc2path(docname).endswith(".ipynb"):
        source[0] = charted(source[0])


def _load(app, pagename, templatename, context, doctree):
    if BEGIN in context.get("body", ""):
        for name in FILES:
            app.add_js_file(name, loading_method="defer")
        app.add_css_file("play.css")


def setup(app):
    """Connect the handlers."""
    app.connect("source-read", _read, priority=400)
    app.connect("html-page-context", _load)
    app.add_post_transform(BothShown)
    return {"parallel_read_safe": True}
