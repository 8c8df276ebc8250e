"""Numbers in sentences are those of a cell: printed, asserted, or an input of it."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*/*.ipynb"))
NUMBER = re.compile(r"(?<![\w.\\^_{/-])(\d+\.\d+|\d+(?=\s?\\?%))(\s?\\?%)?")
NO_SENTENCE = [  # what is no sentence, or quotes somebody
    r"```.*?```",
    r"\$\$.*?\$\$",
    r"<details>.*?</details>",
    r"`[^`]*`",
    r"(?m)^\|[^\n]*$",
    r"(?m)^[^\n]*references\.bib[^\n]*$",
    r"\]\([^)]*\)",
    r"<[^>]*>",
]


def said(markdown):
    """Decimal numbers and percentages of sentences."""
    for form in NO_SENTENCE:
        markdown = re.sub(form, " ", markdown, flags=re.DOTALL)
    found = NUMBER.finditer(markdown.replace("$", ""))
    return [(match[1], bool(match[2])) for match in found]


def known(cells):
    """Numbers that code cells hold or show."""
    texts = [cell.source for cell in cells if cell.cell_type == "code"]
    for cell in cells:
        for output in cell.get("outputs", []):
            texts.append(output.get("text") or output.get("data", {}).get("text/plain"))
    numbers = re.findall(
        r"(?<![\w.])(?:\d+(?:\.\d*)?|\.\d+)", "\n".join(filter(None, texts))
    )
    return {float(number) for number in numbers}


def unfounded(cells):
    """Numbers of sentences that no cell holds or shows."""
    markdown = "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    numbers = known(cells)
    return [
        number + percent * "%"
        for number, percent in said(markdown)
        if float(number) not in numbers
        and not (percent and round(float(number) / 100, 8) in numbers)
    ]


def notebook(*pairs):
    """Cells of a chapter, given as pairs of a kind and a source."""
    make = {
        "code": nbformat.v4.new_code_cell,
        "markdown": nbformat.v4.new_markdown_cell,
    }
    return [make[kind](source) for kind, source in pairs]


def test_a_number_that_no_cell_knows_is_found():
    text = "It gives up 47 % of 1.24, and $0.533$ is left; see `9.9` and $$8.8$$."
    code = ("code", "assert round(price, 2) == 0.47 and f'{x:.2f}' == '1.24'")
    assert unfounded(notebook(code, ("markdown", text))) == ["0.533"]
    other = ("code", "assert round(price, 2) == 0.48 and f'{x:.2f}' == '1.25'")
    wrong = unfounded(notebook(other, ("markdown", text)))
    assert wrong == ["47%", "1.24", "0.533"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_number_in_a_sentence_is_one_of_a_cell(path):
    assert unfounded(nbformat.read(path, 4).cells) == []
