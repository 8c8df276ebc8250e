"""Figures to play with: Vega-Lite charts that need no server, and a still of each."""

from __future__ import annotations

import csv
import sys
from base64 import b64encode
from collections.abc import Mapping
from contextlib import contextmanager
from io import BytesIO, StringIO
from numbers import Integral

from prunefair.plotting import drawn

# Colours of the book that stand out by at least 3 to 1 from white and from a dark page.
COLOURS = ("#0b6e99", "#cc7707", "#6e9a92", "#d45eee", "#7e7163")
INK = "currentColor"  # that of the text around the chart
LETTERS = {"labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": "normal"}
INKED = {"labelColor": INK, "titleColor": INK, **LETTERS}
CONFIG = {
    "background": "transparent",
    "font": "sans-serif",
    "axis": {"domainColor": INK, "tickColor": INK, "gridColor": INK, **INKED}
    | {"gridOpacity": 0.15},
    "legend": {"orient": "top", "title": None, "symbolStrokeWidth": 3, **INKED},
    "title": {"color": INK, "fontSize": 13, "fontWeight": "normal", "anchor": "start"},
    "text": {"color": INK, "fontSize": 12},
    "rule": {"color": INK},
    "range": {"category": [*COLOURS]},
    "view": {"stroke": None},
}


def table(columns: Mapping, digits: int = 4):
    """Columns as the data of a chart, inline and rounded, the same bytes each time.

    Parameters
    ----------
    columns : mapping
        Sequences of one length, numbers or words, by name; NaN becomes null.
    digits : int
        Significant digits of numbers that are not whole.

    Returns
    -------
    data : altair.InlineData
        Values separated by commas.

    Raises
    ------
    ValueError
        If the columns differ in length or there is none.
    """
    import altair as alt

    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError(f"columns {[*columns]} must have one length")
    text, kinds = StringIO(), {}
    for name, column in columns.items():
        words = all(isinstance(value, str) for value in column)
        kinds[name] = "string" if words else "number"
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values()):
        writer.writerow([_cell(value, digits) for value in row])
    form = alt.CsvDataFormat(type="csv", parse=kinds)
    return alt.InlineData(values=text.getvalue().strip("\n"), format=form)


def _cell(value, digits: int) -> str:
    """A value of a table as text."""
    if isinstance(value, str | Integral):
        return str(value)
    value = float(value)
    return "" if value != value else f"{value:.{digits}g}"


def slider(name: str, label: str, values: tuple, start):
    """A parameter that a slider sets, by mouse, finger or arrow keys.

    Parameters
    ----------
    name, label : str
        Of the parameter in expressions, and what stands before the slider.
    values : tuple of three numbers
        First and last value, and the step between them.
    start : float
        Value at first.

    Returns
    -------
    parameter : altair.Parameter
    """
    import altair as alt

    first, last, step = values
    bind = alt.binding_range(min=first, max=last, step=step, name=label)
    return alt.param(name=name, value=start, bind=bind)


def choice(name: str, label: str, words: list):
    """A parameter that takes one of `words`, the first one at first, from a list.

    Parameters
    ----------
    name, label : str
        Of the parameter in expressions, and what stands before the list.
    words : list of str or int
        What there is to choose from.

    Returns
    -------
    parameter : altair.Parameter
    """
    import altair as alt

    bind = alt.binding_select(options=words, name=label)
    return alt.param(name=name, value=words[0], bind=bind)


def dragged(name: str, labels: dict, values: tuple, start: tuple):
    """A layer in which mouse or finger moves a point, and sliders do the same.

    Parameters
    ----------
    name : str
        Of the selection; `NAME.x[0]` and `NAME.y[0]` are the coordinates.
    labels : dict
        What stands before the sliders of `x` and `y`.
    values : tuple of three numbers
        First and last value of both coordinates, and the step between them.
    start : tuple of two numbers
        Coordinates at first.

    Returns
    -------
    layer : altair.Chart
        Points that are not seen; the nearest one is taken.
    """
    import altair as alt

    first, last, step = values
    side = round((last - first) / step) + 1
    ways = {"x": f"datum.n % {side}", "y": f"floor(datum.n / {side})"}
    places = {
        k: f"round(1e6 * ({first} + {step} * ({w}))) / 1e6" for k, w in ways.items()
    }
    move = "[pointerdown, window:pointerup] > pointermove"
    range_of = {
        k: alt.binding_range(min=first, max=last, step=step, name=label)
        for k, label in labels.items()
    }
    taken = alt.selection_point(
        name=name,
        fields=["y", "x"],  # in this order, the slider of x stands first
        value=[dict(zip("xy", start))],
        bind=range_of,
        on=f"pointerdown, {move}",
        nearest=True,
        clear=False,
        toggle=False,
    )
    grid = alt.Chart(alt.sequence(side * side, as_="n")).transform_calculate(**places)
    return grid.mark_point(opacity=0).encode(x="x:Q", y="y:Q").add_params(taken)


def board(layers: list, parameters: list, says: list[str], *, about: str, **size):
    """Layers as one chart with controls below and sentences above that follow them.

    Parameters
    ----------
    layers : list of altair.Chart
        Drawn one over the other.
    parameters : list of altair.Parameter
        Controls, and what is computed from them.
    says : list of str
        Expressions, one a line, of at most 50 letters so that they fit on a phone.
    about : str
        What the chart is for a reader who does not see it.
    **size
        `width` and `height`, pixels; by default as wide as its place and 300 high.

    Returns
    -------
    chart : altair.LayerChart
    """
    import altair as alt

    spoken = alt.param(name="says", expr="[" + ", ".join(says) + "]")
    chart = alt.layer(*layers).add_params(*parameters, spoken)
    title = alt.TitleParams(text=alt.ExprRef("says"))
    size = {"width": "container", "height": 300} | size
    chart = chart.properties(title=title, description=about, **size)
    return chart.configure(**CONFIG)


@contextmanager
def playable(chart, n_axes: int = 1, *, n_columns: int = 1, **options):
    """Show a chart to play with, and a still of it where nothing moves.

    Parameters
    ----------
    chart : altair chart
        As from `board`.
    n_axes, n_columns : int
        Axes of the still, as for `prunefair.plotting.figure`, and so `options`.

    Yields
    ------
    axes : Axes, or ndarray of Axes
        What is drawn on them is the still: for print, for previews of a notebook, and
        for pages without scripts.
    """
    import altair as alt
    import matplotlib.pyplot as plt
    from IPython.display import display

    with drawn(n_axes, n_columns=n_columns, **options) as (drawing, axes):
        yield axes
    if "google.colab" in sys.modules:  # shows no data of this type by itself
        display(chart)
        plt.show()
        return
    picture = BytesIO()
    drawing.savefig(picture, format="png", dpi=150, metadata={"Software": None})
    plt.close(drawing)
    version = alt.SCHEMA_VERSION.lstrip("v").split(".")[0]
    shown = {
        f"application/vnd.vegalite.v{version}+json": chart.to_dict(),
        "image/png": b64encode(picture.getvalue()).decode() + "\n",
        "text/plain": f"<{chart.description}>",
    }
    display(shown, raw=True)
