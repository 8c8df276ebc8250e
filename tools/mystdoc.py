"""Sphinx extension: the API page leaves out module docstrings, which are chapters."""


def _drop_module_text(app, what, name, obj, options, lines):
    if what == "module":
        lines.clear()


def setup(app):
    """Connect the handler."""
    app.connect("autodoc-process-docstring", _drop_module_text)
    return {"parallel_read_safe": True}
