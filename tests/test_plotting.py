"""Figures are readable for every reader and on a phone."""

import ast
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from prunefair import plotting

matplotlib.use("agg")
ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "src" / "prunefair").rglob("*.py"))
PHONE = 358  # pixels that a figure has on a phone
LEAST = 9  # pixels of a label there

# Linear sRGB as a reader without red or green cones sees it, by two ways: planes of
# Viénot, Brettel and Mollon (1999) in their cone space, and sensitivities shifted by
# Machado, Oliveira and Fernandes (2009).
CONES = np.array(
    [
        [17.8824, 43.5161, 4.11935],
        [3.45565, 27.1554, 3.86714],
        [0.0299566, 0.184309, 1.46709],
    ]
)
WITHOUT_L = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
WITHOUT_M = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
READERS = {
    "all cones": np.eye(3),
    "protanopia, 1999": np.linalg.inv(CONES) @ WITHOUT_L @ CONES,
    "deuteranopia, 1999": np.linalg.inv(CONES) @ WITHOUT_M @ CONES,
    "protanopia, 2009": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia, 2009": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def linear(colours):
    """Linear sRGB of hexadecimal or other colours, one a row."""
    c = np.array([matplotlib.colors.to_rgb(colour) for colour in colours])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB of linear sRGB, white at D65."""
    t = np.clip(rgb, 0, 1) @ XYZ.T / XYZ.sum(1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def ciede2000(one, other):
    """The colour difference of the CIE of 2000 (Sharma, Wu and Dalal 2005)."""
    (L1, a1, b1), (L2, a2, b2) = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    c = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 1.5 - np.sqrt(c**7 / (c**7 + 25.0**7)) / 2
    c1, c2 = np.hypot(g * a1, b1), np.hypot(g * a2, b2)
    h1, h2 = np.arctan2(b1, g * a1), np.arctan2(b2, g * a2)
    turn = (h2 - h1 + np.pi) % (2 * np.pi) - np.pi
    dH = 2 * np.sqrt(c1 * c2) * np.sin(turn / 2)
    h, L, c = np.degrees(h1 + turn / 2) % 360, (L1 + L2) / 2, (c1 + c2) / 2
    t = (
        1
        - 0.17 * np.cos(np.radians(h - 30))
        + 0.24 * np.cos(np.radians(2 * h))
        + 0.32 * np.cos(np.radians(3 * h + 6))
        - 0.20 * np.cos(np.radians(4 * h - 63))
    )
    dL = (L2 - L1) / (1 + 0.015 * (L - 50) ** 2 / np.sqrt(20 + (L - 50) ** 2))
    dC, dH = (c2 - c1) / (1 + 0.045 * c), dH / (1 + 0.015 * c * t)
    bend = np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2))))
    bend = bend * 2 * np.sqrt(c**7 / (c**7 + 25.0**7))
    return np.sqrt(dL**2 + dC**2 + dH**2 - bend * dC * dH)


def nearest(colours, reader):
    """The smallest difference between two of the colours for one reader."""
    seen = lab(linear(colours) @ READERS[reader].T)
    apart = ciede2000(seen[:, None], seen[None])
    return apart[np.triu_indices(len(colours), 1)].min()


def contrast(colours):
    """Contrast to white (WCAG 2), one number a colour."""
    return 1.05 / (linear(colours) @ XYZ[1] + 0.05)


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [  # three pairs of the table of Sharma, Wu and Dalal
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (58, 24, 15), 19.4535),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ],
)
def test_the_difference_is_the_published_one(one, other, difference):
    found = ciede2000(np.array(one, float), np.array(other, float))
    assert found == pytest.approx(difference, abs=1e-4)


@pytest.mark.parametrize("reader", READERS)
def test_any_two_colours_differ_for_every_reader(reader):
    assert nearest([*plotting.COLOURS, "black"], reader) > 14


def test_a_reader_without_red_cones_takes_some_blue_for_purple():
    """The colours that the book had before fail the test above."""
    old = ("#0b6e99", "#d1495b", "#66a182", "#edae49", "#6a4c93", "#8d6a4f", "#5c6770")
    assert min(nearest(old, reader) for reader in READERS) < 3
    assert contrast(old).min() < 2


def test_lines_stand_out_from_white():
    ramp = plotting.shades(30)
    light = np.argsort(contrast(ramp))[::-1]
    assert contrast(plotting.COLOURS).min() >= 3 and contrast(ramp).min() >= 3
    assert (light == np.arange(30)).all() and plotting.shades(1) == ramp[:1]
    assert len(plotting.COLOURS) == len(set(map(str, plotting.LINE_STYLES)))


@pytest.mark.parametrize("options", [{}, {"n_axes": 3}, {"n_axes": 5, "n_columns": 2}])
def test_labels_are_readable_on_a_phone(options, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    with plotting.figure(**options) as axes:
        for ax in np.atleast_1d(axes):
            line = ax.plot([0, 1], [0, 1000], label="a")[0]
            ax.set(xlabel="round", ylabel="regret")
            ax.legend()
    assert len(np.atleast_1d(axes)) == options.get("n_axes", 1)
    figure = line.figure
    assert len(figure.axes) == options.get("n_axes", 1)
    file = BytesIO()
    figure.savefig(file)
    width = Image.open(file).size[0]
    for ax in figure.axes:
        texts = [ax.xaxis.label, ax.yaxis.label, *ax.get_legend().get_texts()]
        for text in texts + ax.get_yticklabels():
            pixels = text.get_fontsize() / 72 * plt.rcParams["savefig.dpi"]
            assert pixels * PHONE / width >= LEAST, (text, width)
    plt.close(figure)


@pytest.mark.parametrize(("entries", "own"), [(3, {}), (4, {}), (5, {"ncols": 2})])
def test_a_long_legend_stands_above_the_data(entries, own, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    with plotting.figure() as ax:
        for number in range(entries):
            ax.plot([0, 1], [number, 0], label=f"line {number}")
        ax.legend(**own)
    ax.figure.canvas.draw()
    legend = ax.get_legend()
    assert len(legend.get_texts()) == entries
    above = legend.get_window_extent().y0 >= ax.get_window_extent().y1 - 1
    assert above == (entries > 3)
    plt.close(ax.figure)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_figure_of_the_book_is_wider_or_has_smaller_letters(path):
    text = "\n".join(
        line.removeprefix("# ") for line in path.read_text("utf-8").split("\n")
    )
    for call in ("figsize=(", "fontsize="):
        for at in text.split(call)[1:]:
            value = ast.literal_eval(at.split(",")[0].split(")")[0])
            if call == "figsize=(":
                assert value <= plotting.WIDTH, f"{call}{value}"
            else:
                assert value * PHONE / 72 / plotting.WIDTH >= LEAST, f"{call}{value}"
