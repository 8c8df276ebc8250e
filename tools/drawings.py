"""The drawings of the pages "Start here", written into `book/drawings/`.

    python tools/drawings.py

What is drawn is computed: the spectra are those of the matrix shown, the totals those
of the game shown.  A drawing is 560 pixels wide; its letters have 9 px on a phone.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from prunefair.plotting import COLOURS

FOLDER = Path(__file__).resolve().parents[1] / "book" / "drawings"
WIDTH, LETTER = 560, 15
BLUE, ORANGE, DARK, PALE = *COLOURS[:2], "#222222", "#c8c8c8"


def text(x, y, words, anchor="start", fill=DARK, weight="normal") -> str:
    """Words at a place."""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{fill}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )


def box(x, y, width, height, fill="none", line=DARK, opacity=1.0, **rest) -> str:
    """A rectangle; its filling has the opacity."""
    more = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in rest.items())
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
        f'fill="{fill}" fill-opacity="{opacity:.2f}" stroke="{line}"{more}/>'
    )


def path(points, line=DARK, width=1.5, **rest) -> str:
    """A line through points."""
    steps = " L ".join(f"{x:.1f} {y:.1f}" for x, y in points)
    more = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in rest.items())
    return (
        f'<path d="M {steps}" fill="none" stroke="{line}" '
        f'stroke-width="{width:g}"{more}/>'
    )


def arrow(x, y, to_x, to_y) -> str:
    """An arrow from one point to another."""
    return path([(x, y), (to_x, to_y)], marker_end="url(#tip)")


def drawing(height: int, parts: list[str]) -> str:
    """A whole drawing, on a white ground that any page can carry."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
            f'height="{height}" viewBox="0 0 {WIDTH} {height}" '
            f'font-family="Helvetica, Arial, sans-serif" font-size="{LETTER}">',
            '<marker id="tip" markerUnits="userSpaceOnUse" markerWidth="10" '
            'markerHeight="10" refX="9" refY="5" orient="auto">'
            f'<path d="M0 0 L10 5 L0 10 z" fill="{DARK}"/></marker>',
            f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def cells(x, y, values, width, height, kept) -> list[str]:
    """A matrix as shades of blue, without the rows that are not kept."""
    largest = np.abs(values).max()
    return [
        box(
            x + j * width,
            y + i * height,
            width,
            height,
            fill=BLUE,
            opacity=0.9 * abs(value) / largest,
            line=BLUE,
            stroke_width=0.5,
        )
        if kept[i, j]
        else box(
            x + j * width,
            y + i * height,
            width,
            height,
            line=PALE,
            stroke_width=0.5,
        )
        for (i, j), value in np.ndenumerate(values)
    ]


def layer():
    """Gate matrix, neurons kept by the scores, `down_proj`, and the scores."""
    rng = np.random.default_rng(31)
    m, n, k = 12, 6, 8
    G = rng.normal(size=(m, n)) * rng.uniform(0.4, 1.2, size=(m, 1))
    scores = np.linalg.norm(G, axis=1)
    kept = np.zeros(m, dtype=bool)
    kept[np.argsort(-scores)[:k]] = True
    return G, kept, rng.normal(size=(n, m)), scores


def pruning() -> str:
    """Neurons of a feed-forward block, a policy's choice, and what a spectrum loses."""
    G, kept, D, scores = layer()
    m, n = G.shape
    top, row, cell = 70, 17, 18
    middle = top + m * row / 2
    parts = [text(20, 28, "A neuron is a row of G and a column of D", weight="bold")]
    parts += cells(
        20, middle - 3 * row, np.ones((n, 1)) * 0.3, cell, row, np.ones((n, 1))
    )
    parts += [text(29, middle - 3 * row - 8, "x", "middle")]
    parts += [arrow(44, middle, 66, middle)]
    for i, score in enumerate(scores):
        length, y = 52 * score / scores.max(), top + i * row
        colour = ORANGE if kept[i] else PALE
        parts.append(box(128 - length, y + 4, length, row - 8, colour, line=colour))
    parts += [text(128, top - 10, "score", "end")]
    parts += cells(134, top, G, cell, row, np.repeat(kept[:, None], n, 1))
    parts += [text(188, top - 10, "G", "middle"), arrow(250, middle, 276, middle)]
    parts += cells(282, top, np.ones((m, 1)) * 0.3, cell, row, kept[:, None])
    parts += [text(291, top - 10, "h", "middle"), arrow(308, middle, 334, middle)]
    high = middle - 3 * row
    parts += cells(342, high, D, 13, row, np.repeat(kept[None], n, 0))
    parts += [text(420, high - 10, "D", "middle"), arrow(504, middle, 528, middle)]
    parts += cells(534, high, np.ones((n, 1)) * 0.3, cell, row, np.ones((n, 1)))
    parts += [text(342, high + n * row + 24, "blue: kept")]
    parts += [text(342, high + n * row + 44, "empty: removed")]

    whole, some = (np.linalg.svd(A, compute_uv=False)[::-1] for A in (G, G[kept]))
    pooled = np.sort(np.concatenate([whole, some]))
    shares = [np.searchsorted(s, pooled, "right") / n for s in (whole, some)]
    apart = np.abs(shares[0] - shares[1])
    widths = np.diff(pooled, append=pooled[-1])
    worst = int(np.argmax(np.where(apart == apart.max(), widths, -1)))
    base, left, across, up = 500, 60, 420 / whole.max(), 150
    parts += [text(20, 316, "Its spectrum: the singular values of G", weight="bold")]
    parts += [path([(left, base - up), (left, base), (540, base)])]
    parts += [
        text(left - 8, base - up + 10, "1", "end"),
        text(left - 8, base, "0", "end"),
    ]
    parts += [text(540, base + 22, "singular value", "end")]
    for values, colour, dash in ((whole, BLUE, "none"), (some, ORANGE, "7 4")):
        steps = [(left, base)]
        for i, value in enumerate(values):
            x = left + value * across
            steps += [(x, base - i / n * up), (x, base - (i + 1) / n * up)]
        steps.append((520, base - up))
        parts.append(path(steps, colour, 2.5, stroke_dasharray=dash))
    x = left + (pooled[worst] + pooled[worst + 1]) / 2 * across
    low, high = (base - share[worst] * up for share in shares)
    parts += [path([(x, low), (x, high)], DARK, 2, marker_end="url(#tip)")]
    parts += [text(x, base + 22, f"KS distance {apart.max():.2f}", "middle")]
    parts += [text(left - 40, base - up - 10, "share of the values so far")]
    parts += [text(left + 14, base - up + 24, "kept rows", fill=ORANGE)]
    parts += [text(left + 14, base - up + 44, "all rows", fill=BLUE)]
    return drawing(535, parts)


def fairness() -> str:
    """Two arms of which one dies, and what a policy and hindsight give them."""
    phases = (4, 16)
    pays = np.ones((2, sum(phases)))
    pays[0, phases[0] :] = 0  # arm 0 dies
    context = np.repeat([0, 1], phases)
    shares = {
        "A policy: who dies is hidden": np.where(context == 0, 0.5, [[0], [1]]),
        "The best map in hindsight": np.where(context == 0, [[1], [0]], [[0], [1]]),
    }
    left, cell, parts, y = 70, 18, [], 28
    end = left + cell * sum(phases) + 10
    parts += [text(20, y, "What the arms pay, round after round", weight="bold")]
    for label, start, length in (("context 0", 0, 4), ("context 1", 4, 16)):
        x = left + cell * start
        parts += [text(x + cell * length / 2, y + 26, label, "middle")]
        parts += [path([(x + 2, y + 34), (x + cell * length - 2, y + 34)])]
    y += 40
    parts += rows(left, y, cell, pays, pays)
    parts += [text(end, y + 14, "reward"), text(end, y + 32, "1 or 0")]
    y += 78
    for words, share in shares.items():
        totals = 1 + (pays * share).sum(1)
        utility = 2 * np.sqrt(totals).sum()
        parts += [text(20, y, words, weight="bold")]
        parts += [text(540, y, f"utility {utility:.2f}", "end", weight="bold")]
        parts += rows(left, y + 12, cell, share, pays)
        for i in range(2):
            parts.append(text(end, y + 26 + 22 * i, f"total {totals[i]:.0f}"))
        y += 94
    return drawing(int(y) - 28, parts)


def rows(left, y, cell, filled, pays) -> list[str]:
    """Two arms over the rounds: how full each box is, pale where it pays nothing."""
    parts = []
    for i, colour in enumerate((ORANGE, BLUE)):
        top = y + 22 * i
        parts.append(text(20, top + 14, f"arm {i}"))
        for t, share in enumerate(filled[i]):
            x, line = left + cell * t, colour if pays[i, t] else PALE
            height = (cell - 2) * share
            parts.append(
                box(x, top + cell - 2 - height, cell - 2, height, colour, "none")
            )
            parts.append(box(x, top, cell - 2, cell - 2, line=line))
    return parts


DRAWINGS = {"start_pruning": pruning, "start_fairness": fairness}


def main() -> None:
    """Write all drawings."""
    for name, draw in DRAWINGS.items():
        (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
