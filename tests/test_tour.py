"""The tour keeps its promises: thirty lines, a model that is left, a fairer policy."""

import re
from pathlib import Path

import jupytext
from test_house import code_lines

from prunefair import play
from prunefair.fairness.ratings import load_ratings, movielens_stream

ROOT = Path(__file__).resolve().parents[1]
CELLS = jupytext.read(ROOT / "book" / "tour.ipynb").cells
CODE = [c for c in CELLS if c.cell_type == "code" and "google.colab" not in c.source]


def printed(word):
    """The first number after a word, in each line of the tour's output that has it."""
    lines = "".join(o.get("text", "") for c in CODE for o in c.outputs).splitlines()
    found = (re.search(rf"{word} ([\d.]+)", line) for line in lines)
    return [float(number[1]) for number in found if number]


def test_the_tour_takes_thirty_lines():
    assert "Thirty lines" in CELLS[0].source
    assert 25 <= sum(len(code_lines(cell.source)) for cell in CODE) <= 30


def test_the_pruned_model_is_smaller_and_still_a_language_model():
    text = "".join(o.get("text", "") for c in CODE for o in c.outputs)
    before, after = map(float, re.findall(r"([\d.]+)(?: million|\s+after)", text))
    assert before == 134.5 and 0.8 < after / before < 0.85
    dense, pruned = printed("perplexity")
    assert dense < pruned < 4 * dense


def test_the_fair_policy_comes_closer_to_the_optimum_though_its_sum_is_smaller():
    optimum, hedge, fair = printed("utility")
    assert hedge < 0.99 * optimum < fair < optimum
    assert printed("sum")[0] > printed("sum")[1]


def test_the_caption_says_what_the_policies_did():
    stream = movielens_stream(load_ratings())
    played = play(stream, ["hedge", "alpha_fair"], alpha=0.9)
    totals = {n: sorted(r.trajectory.rewards[-1]) for n, r in played.results.items()}
    caption = next(c.source for c in CELLS if "**Figure (" in c.source)
    assert "two genres take nearly everything" in caption and "fifty" in caption
    assert sum(totals["hedge"][-2:]) > 0.99 * sum(totals["hedge"])
    assert min(totals["alpha_fair"]) > 50 > max(totals["hedge"][:-2])
