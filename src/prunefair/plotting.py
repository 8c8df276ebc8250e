"""One look for every figure of the book: size, font, colours and line width."""

from __future__ import annotations

from contextlib import contextmanager

COLOURS = ("#0b6e99", "#d1495b", "#66a182", "#edae49", "#6a4c93", "#8d6a4f", "#5c6770")
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

STYLE = {
    "figure.figsize": (6.4, 3.6),
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
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


@contextmanager
def figure(n_axes: int = 1, *, n_rows: int = 1, **options):
    """Figure with `n_axes` axes in each row, in the book's style; shown on leaving.

    Yields the axes: one object for a single one, an array otherwise.
    """
    import matplotlib.pyplot as plt

    use_style()
    width, height = STYLE["figure.figsize"]
    wide = width * (1 if n_axes == 1 else 1.5)
    size = options.pop("figsize", (wide, height * n_rows))
    options |= {"figsize": size, "layout": "constrained"}
    _, axes = plt.subplots(n_rows, n_axes, **options)
    yield axes
    plt.show()
