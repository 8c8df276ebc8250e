"""The notation page: where a symbol is first used, and that it means one thing."""

import json
import re
from functools import cache
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "book" / "notation.md").read_text(encoding="utf-8")
LETTERS = ["S", "K", "G", "D", "L", "W", "R", r"\rho", r"\alpha", r"\lambda"]
ROW = re.compile(
    r"^\| (\$.+?) \| (.*?) \|.*\| \[[^]]+\]\((\w+)/(\w+)\.ipynb\) \|$", re.M
)
NAMES = re.compile(
    r"\\(?:text|mathrm|operatorname|mathcal|mathbb|mathbf)\s*(\{[^}]*\}|\w)"
)
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$([^$]+)\$", re.S)


@cache
def chapters(part):
    """Chapters of a part in reading order, with the formulae of their text."""
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    found = {}
    for stem in re.findall(rf"file: book/{part}/(\w+)", toc):
        cells = jupytext.read(ROOT / "src" / "prunefair" / part / f"{stem}.py").cells
        text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
        found[stem] = [a or b for a, b in FORMULA.findall(text)]
    return found


def holds(formula, letter):
    """Whether a formula uses a letter, alone or with indices."""
    bare = NAMES.sub(" ", formula)
    return (
        re.search(rf"(?<![A-Za-z\\]){re.escape(letter)}(?![A-Za-z])", bare) is not None
    )


def head(symbol):
    """The letter of a symbol without indices, arguments and accents."""
    bare = re.sub(r"^\\(hat|bar|widehat)\s*", "", symbol.strip("{} "))
    return re.match(r"\\?[A-Za-z]+", bare)[0]


def rows(part):
    """Symbols of a part with the chapter where the page says that they begin."""
    for symbols, _, folder, stem in ROW.findall(PAGE):
        if folder == part:
            for symbol in re.findall(r"\$([^$]+)\$", symbols):
                yield symbol, stem


@pytest.mark.parametrize("part", ["pruning", "fairness"])
def test_symbols_are_first_used_where_the_page_says(part):
    formulae, said = chapters(part), list(rows(part))
    assert len(formulae) >= 9 and len(said) > 20
    for symbol, stem in said:
        plain = re.sub(r"\s", "", symbol)
        users = [
            name
            for name, found in formulae.items()
            if any(plain in re.sub(r"\s", "", formula) for formula in found)
        ]
        assert stem in users, (symbol, stem)
        if not re.fullmatch(r"\\?[A-Za-z]+", plain):  # a letter may be an index before
            assert users[0] == stem, (symbol, stem, users)


@pytest.mark.parametrize("part", ["pruning", "fairness"])
@pytest.mark.parametrize("letter", LETTERS)
def test_a_letter_of_the_page_is_used_by_no_earlier_chapter(part, letter):
    formulae = chapters(part)
    users = [n for n, f in formulae.items() if any(holds(x, letter) for x in f)]
    plain = [s for s, _ in rows(part) if not s.startswith((r"\hat", r"\mathrm"))]
    known = [stem for s, stem in rows(part) if s in plain and head(s) == letter]
    assert bool(users) == bool(known), (letter, users)
    if users:
        assert known[0] == users[0], (letter, known, users)


def test_regret_has_a_symbol_of_its_own():
    for stem, found in chapters("fairness").items():
        assert not [f for f in found if re.search(r"(?<![A-Za-z\\])R_\{?[tT]\b", f)], (
            stem
        )
    assert holds("R_T(u)", "R") and not holds(r"\mathrm{Reg}_T \in \mathbb R", "R")


def plain(text):
    """Lower-case words, without hyphens."""
    return re.sub("[-–]", " ", text.lower())


def test_the_glossary_is_in_order_and_its_chapters_use_the_terms():
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    names = []
    for section in text.split("\n## ")[1:]:
        rows = re.findall(r"^\| (.+) \| (.+) \| \[.+\]\((.+)\) \|$", section, re.M)
        terms = [term for term, _, _ in rows]
        assert len(rows) == section.count("\n|") - 2 and len(rows) > 20
        assert terms == sorted(terms, key=plain)
        names += terms
        for term, meaning, link in rows:
            cells = json.loads((ROOT / "book" / link).read_text("utf-8"))["cells"]
            chapter = " ".join("".join(cell["source"]) for cell in cells)
            assert plain(term) in plain(chapter), (term, link)
            assert 20 < len(meaning) < 200
    assert len({*names}) == len(names)
