"""The drawings of the pages "Start here" are those of the code, and are true."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from prunefair.fairness.limits import nested_ceiling
from prunefair.fairness.offline_optimum import solve_offline

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import drawings  # noqa: E402

PAGES = {name: (ROOT / "book" / f"{name}.md").read_text() for name in drawings.DRAWINGS}


@pytest.mark.parametrize("name", drawings.DRAWINGS)
def test_a_fresh_drawing_equals_the_stored_one(name):
    stored = (drawings.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert stored == drawings.DRAWINGS[name]()


@pytest.mark.parametrize("name", drawings.DRAWINGS)
def test_letters_can_be_read_on_a_phone_and_the_page_says_what_is_seen(name):
    drawn = drawings.DRAWINGS[name]()
    assert "font-size" not in drawn.replace(f'font-size="{drawings.LETTER}"', "", 1)
    assert drawings.LETTER * 358 / drawings.WIDTH >= 9
    (alt,) = re.findall(rf"!\[([^]]{{100,}})\]\(drawings/{name}\.svg\)", PAGES[name])
    for number in re.findall(r">\D*(\d+\.\d+)<", drawn):
        assert number in alt


@pytest.mark.parametrize("name", drawings.DRAWINGS)
def test_the_picture_is_explained_in_ten_sentences(name):
    assert re.findall(r"^(\d+)\. ", PAGES[name], re.M) == [*map(str, range(1, 11))]


def test_utilities_of_the_game_are_those_of_solver_and_theorem():
    lengths, alpha = np.array([4, 16]), 0.5
    G = np.array([[4.0, 4.0], [0.0, 16.0]])  # a context a row, an arm a column
    best = solve_offline(G, alpha).utility
    policy = nested_ceiling(lengths, alpha)
    text = PAGES["start_fairness"]
    assert f"utility {best:.2f}" in text and f"utility {policy:.2f}" in text
    assert f"difference of {best - policy:.2f}" in text


def test_the_distance_of_the_spectra_is_the_statistic_of_scipy():
    drawn = drawings.pruning()
    shown = re.search(r"KS distance (0\.\d+)", drawn)[1]
    assert drawn.count(f'fill="{drawings.ORANGE}" fill-opacity') == 8
    G, kept = drawings.layer()[:2]
    whole, some = (np.linalg.svd(A, compute_uv=False) for A in (G, G[kept]))
    assert f"{ks_2samp(whole, some).statistic:.2f}" == shown
    assert kept.sum() == 8 and len(kept) == 12
