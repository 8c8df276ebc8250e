"""One look for all that the book shows: size, font and colours of figures, listings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from textwrap import fill

# Seven colours that differ by at least 14 (CIEDE2000) for every reader, also for one
# without red or green cones, and that stand out from white by at least 3 to 1.
COLOURS = ("#0b6e99", "#cc7707", "#6c013a", "#6e9a92", "#7b4628", "#7e7163", "#d45eee")
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

COLUMNS = 88  # of a page, in code and in what it prints
WIDTH = 5.6  # inches, of every figure: on a phone, 358 px, a label is then 9 px high

STYLE = {
    "figure.figsize": (WIDTH, 3.2),
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "axes.formatter.min_exponent": 4,  # 3000 and 0.3, not 3 times a power of ten
}


def use_style() -> None:
    """Apply the book's style; lines differ by colour and by dash pattern.

    In a notebook the inline figures become 150 dpi PNG files without metadata that
    changes between versions, so that re-execution gives the same bytes.
    """
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(STYLE)
    mpl.rcParams["axes.prop_cycle"] = cycler(color=COLOURS) + cycler(
        linestyle=LINE_STYLES
    )
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    set_matplotlib_formats("png", dpi=150, metadata={"Software": None})


def shades(number: int) -> list[tuple[float, float, float]]:
    """`number` colours for curves in an order, from dark to light blue.

    Parameters
    ----------
    number : int
        How many; at least one.
    """
    from matplotlib.colors import to_rgb

    dark, light = to_rgb("#03263a"), to_rgb("#4593c4")
    steps = [i / max(1, number - 1) for i in range(number)]
    return [tuple(a + t * (b - a) for a, b in zip(dark, light)) for t in steps]


def _legend_above(ax) -> None:
    """Put a legend of more than three entries above its axes, where no data are."""
    legend = ax.get_legend()
    if legend is None or legend.get_bbox_to_anchor() is not ax.bbox:
        return
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 3 and labels == [text.get_text() for text in legend.get_texts()]:
        columns = 3 if max(map(len, labels)) <= 9 else 2
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": columns}
        ax.legend(handles, labels, **place)


@contextmanager
def drawn(n_axes: int = 1, *, n_columns: int = 1, **options):
    """Figure with `n_axes` axes in the book's style, in columns, that is not shown.

    Yields the figure and its axes: one object for a single one, otherwise an array in
    reading order.
    """
    import matplotlib.pyplot as plt

    use_style()
    n_rows = -(-n_axes // n_columns)
    height = 3.2 if n_axes == 1 else 2.7 * n_rows
    options = {"figsize": (WIDTH, height), "layout": "constrained"} | options
    drawing, axes = plt.subplots(n_rows, n_columns, squeeze=False, **options)
    axes = axes.ravel()
    for spare in axes[n_axes:]:
        drawing.delaxes(spare)
    yield drawing, axes[0] if n_axes == 1 else axes[:n_axes]
    for ax in axes[:n_axes]:
        _legend_above(ax)


@contextmanager
def figure(n_axes: int = 1, *, n_columns: int = 1, **options):
    """Figure with `n_axes` axes in the book's style, in columns; shown on leaving.

    Yields the axes: one object for a single one, otherwise an array in reading order.
    """
    import matplotlib.pyplot as plt

    with drawn(n_axes, n_columns=n_columns, **options) as (_, axes):
        yield axes
    plt.show()


def listing(values) -> str:
    """`values` as text of at most 88 columns.

    Parameters
    ----------
    values : mapping, iterable or any
        A mapping gives a line for each name, and indented lines for a mapping within;
        other iterables give their entries, separated by commas; what is none of these
        gives itself.

    Returns
    -------
    text : str
    """
    if isinstance(values, Mapping):
        lines = []
        for name, value in values.items():
            inner = listing(value)
            if isinstance(value, Mapping):
                lines.append(f"{name}:\n  " + inner.replace("\n", "\n  "))
            else:
                whole = f"{name}: {' '.join(inner.split())}"
                lines.append(fill(whole, COLUMNS, subsequent_indent="  "))
        return "\n".join(lines)
    if isinstance(values, Iterable) and not isinstance(values, str):
        values = ", ".join(map(str, values))
    return fill(str(values), COLUMNS, subsequent_indent="  ")
