"""Questions show every answer with its reason; only right code is called right."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefair.exercises import Quiz, check_answer

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*/*.ipynb"))
sys.path.insert(0, str(ROOT / "tools"))

import mystplain  # noqa: E402

WORDS = st.text(st.characters(exclude_categories=["C"]), min_size=1).filter(str.strip)


class Text(HTMLParser):
    """The words of HTML, and whether its elements are closed in order."""

    def __init__(self, page):
        super().__init__()
        self.words, self.open = [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@given(WORDS, WORDS, st.dictionaries(WORDS, WORDS, min_size=1, max_size=4))
def test_every_answer_is_shown_with_its_reason_and_one_is_right(text, right, wrong):
    if right in wrong:
        with pytest.raises(ValueError, match="none that is right"):
            Quiz(text, right, "so", wrong)
        return
    question = Quiz(text, right, "so", wrong)
    page = question._repr_html_()
    assert page.count("<strong>Right.</strong>") == 1
    assert page.count("<strong>No.</strong>") == len(wrong)
    words = "".join(Text(page).words)
    for said in (text, right, *wrong, *wrong.values()):
        assert said.replace("`", "") in words.replace("`", "")
    assert repr(question).count("( ) ") >= 1 + len(wrong)
    assert page == Quiz(text, right, "so", dict([*wrong.items()][::-1]))._repr_html_()


def test_answers_stand_by_size_and_no_order_tells_the_right_one():
    sizes = Quiz("?", "47 %", "so", {"100 %": "no", "5.5 %": "no", "−3 %": "no"})
    assert [*sizes.answers] == ["−3 %", "5.5 %", "47 %", "100 %"]
    places = set()
    for n in range(20):
        mixed = Quiz("?", f"right {n}", "so", {f"wrong {n}": "no", f"no {n}": "no"})
        places.add([*mixed.answers].index(f"right {n}"))
    assert places == {0, 1, 2}


def test_a_question_without_reason_or_choice_is_refused():
    with pytest.raises(ValueError, match="wrong has the answers"):
        Quiz("?", "1", "so", {})
    with pytest.raises(ValueError, match="'2' has no reason"):
        Quiz("?", "1", "so", {"2": ""})


def mean(x):
    return np.mean(x)


@pytest.mark.parametrize(
    ("yours", "said"),
    [
        (lambda x: None, "Nothing yet"),
        (
            lambda x: np.median(x),
            r"Not yet: .*\(\[1.*6.0\]\) gives 2.0, and 3.0 is right",
        ),
        (lambda x: [np.mean(x)], "Not yet"),  # another shape
        (lambda x: x / 0, "Not yet: .* raises TypeError"),
        (lambda x: "three", "Not yet"),
        (lambda x: np.mean(x) * (1 + 1e-5), "Not yet"),
        (lambda x: np.nan, "Not yet"),
    ],
)
def test_wrong_code_is_not_called_right(yours, said):
    verdict = check_answer(yours, mean, ([1.0, 1.0],), ([1.0, 2.0, 6.0],))
    assert not verdict and re.match(said, verdict.text)


def test_right_code_is_called_right_up_to_rounding_and_by_entries():
    right = check_answer(lambda x: sum(x) / len(x), mean, ([0.1, 0.2, 0.3],))
    assert right and repr(right) == "Right: <lambda> agrees on 1 input."
    assert check_answer(lambda x: (x, "a"), lambda x: (x * 1.0, "a"), (2,))
    assert not check_answer(lambda x: (x, "b"), lambda x: (x * 1.0, "a"), (2,))
    assert not check_answer(lambda x: x, lambda x: (x, x), (2,))
    assert check_answer(lambda x: np.nan, lambda x: np.nan, (2,))
    with pytest.raises(ValueError, match="inputs is empty"):
        check_answer(mean, mean)


EXERCISE = """\
**Exercise ★★.** <a id="ex-a-1"></a>
Write it.

<details><summary>Hint</summary>

Think of $x$.

</details>"""
SOLUTION = "<details><summary>Solution</summary>\n\nSo.\n\n</details>"


def test_a_hint_folds_within_its_exercise_and_the_solution_comes_later():
    reader = mystplain.Reader("a")
    page = reader.cell(0, EXERCISE)
    assert page.startswith(":::{exercise} ★★\n:label: ex-a-1\n")
    hint = (
        '<details class="hint"><summary>Hint</summary>\n\nThink of $x$.\n\n</details>'
    )
    assert hint in page and page.rstrip().endswith(":::")
    solved = reader.cell(2, SOLUTION, checked=True)
    assert ":::{solution-start} ex-a-1" in solved
    assert ":::{solution-end}" in reader.cell(4, "Next.")
    reader.finish()


def test_an_exercise_without_solution_and_a_hint_outside_are_refused():
    reader = mystplain.Reader("a")
    reader.cell(0, EXERCISE)
    with pytest.raises(mystplain.SphinxError, match="ex-a-1 has no solution"):
        reader.finish()
    with pytest.raises(mystplain.SphinxError, match="hint outside"):
        mystplain.Reader("a").cell(0, EXERCISE.split("\n\n", 1)[1])


def shown(cell):
    """What a cell shows as text."""
    outputs = cell.get("outputs", [])
    parts = [o.get("text") or o.get("data", {}).get("text/plain") for o in outputs]
    return "".join(filter(None, parts))


def calls(cell, name):
    """Whether a code cell calls a function of this name."""
    return cell.cell_type == "code" and f"{name}(" in cell.source


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_asks_and_has_an_exercise_that_begins_with_a_blank_cell(path):
    """Two questions or more; a blank, its hint, and a solution that is judged right."""
    cells = nbformat.read(path, 4).cells
    headings = [re.findall(r"^## .*", c.source, re.M) for c in cells]
    order = [h for found in headings for h in found][-3:]
    asked = [i for i, c in enumerate(cells) if calls(c, "Quiz")]
    assert order == ["## Check yourself", "## Exercises", "## What you can do now"]
    begins = next(i for i, h in enumerate(headings) if "## Check yourself" in h)
    ends = next(i for i, h in enumerate(headings) if "## Exercises" in h)
    assert 2 <= len(asked) <= 4 and all(begins < i < ends for i in asked)
    for i in asked:
        assert "remove-input" in cells[i].metadata.tags, "its code tells the answer"
        assert any("text/html" in o.get("data", {}) for o in cells[i].outputs)
    blanks = [i for i, c in enumerate(cells) if shown(c).startswith("Nothing yet")]
    assert len(blanks) == 1 and calls(cells[blanks[0]], "check_answer")
    before, _, solution, check = cells[blanks[0] - 1 : blanks[0] + 3]
    assert re.match(r"(## Exercises\n\n)?\*\*Exercise ★", before.source)
    assert "<details><summary>Hint</summary>" in before.source
    assert solution.source.startswith("<details><summary>Solution</summary>")
    assert check.source.startswith("# @title Solution {")  # which Colab folds
    assert re.search(r"^assert check_answer\(", check.source, re.M)
    exercises = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    assert "**Exercise.**" not in exercises  # each says how hard it is
