"""The map of the chapters says what they import, and the times what they hold."""

import json
import re
import sys
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import spine  # noqa: E402

ORDER = sum(spine.acts(ROOT).values(), [])


def code_lines(chapter):
    cells = json.loads((ROOT / "book" / f"{chapter}.ipynb").read_text())["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    return "\n".join(code).split("\n")


def test_an_arc_leads_from_every_chapter_that_another_imports():
    needed = spine.needs(ROOT)
    assert list(needed) == ORDER and sum(map(len, needed.values())) > 50
    for place, chapter in enumerate(ORDER):
        found = set()
        for line in code_lines(chapter):
            if got := re.match(r"\s*from prunefair\.(\w+)\.(\w+) import", line):
                found.add("/".join(got.groups()))
        assert found & set(ORDER[:place]) == set(needed[chapter]), chapter


@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=25))
def test_only_arcs_that_follow_from_others_are_left_out(pairs):
    edges = [(min(pair), max(pair)) for pair in pairs if len({*pair}) == 2]
    needed = {n: sorted({a for a, b in edges if b == n}) for n in range(8)}
    kept = spine.without_shortcuts(needed)
    graph = nx.DiGraph(edges)
    graph.add_nodes_from(range(8))
    wanted = nx.transitive_reduction(graph)
    assert {(a, b) for b, its in kept.items() for a in its} == set(wanted.edges)


def root_with(folder, *chapters):
    """A book of chapters, each given as pairs of a kind and a source."""
    names = [f"pruning/c{number}" for number in range(len(chapters))]
    part = {"caption": "I. Pruning: the paper", "numbered": True}
    part["chapters"] = [{"file": f"book/{name}"} for name in names]
    (folder / "_toc.yml").write_text(json.dumps({"parts": [part]}))
    (folder / "book" / "pruning").mkdir(parents=True)
    for name, cells in zip(names, chapters):
        cells = [
            {"cell_type": kind, "source": [text]}
            | ({"outputs": [{"data": {"image/png": ""}}]} if kind == "code" else {})
            for kind, text in cells
        ]
        (folder / "book" / f"{name}.ipynb").write_text(json.dumps({"cells": cells}))
    return folder


PROSE = "# C0: five words of prose\n\n$$\na + b\n$$ (eq-c)"
CODE = '''\
def f(x):
    """What it does.

    Much more of it.
    """
    return x

'''


def test_times_follow_the_rule_that_the_page_states(tmp_path):
    colab = ("code", "import sys\nif 'google.colab' in sys.modules: 1")
    root = root_with(tmp_path, [("markdown", PROSE), colab, ("code", CODE)])
    words, lines = 6, 2  # with the label of the equation; the definition and its return
    wanted = words / 200 + 0.5 + 0.5 + lines * 3 / 60
    assert spine.minutes(root, "pruning/c0") == pytest.approx(wanted, abs=1 / 200)
    rule = (ROOT / "book" / "intro.md").read_text()
    for words in ("200 words", "half a minute for a", "three seconds for a line"):
        assert words in rule
    assert (spine.WORDS, spine.CODE_LINE) == (1 / 200, 3 / 60)


def test_a_line_gets_the_time_of_the_chapters_that_it_links(tmp_path):
    root = root_with(tmp_path, *[[("code", "x = 1\n" * 400)]] * 3)  # 20 minutes each
    line = f"- {spine.TIME}: [a](pruning/c0.ipynb#x), [b](pruning/c1.ipynb), [c](d.md)"
    assert spine.timed(root, line, "book/intro").startswith(
        "- 40\N{NO-BREAK SPACE}min: [a]"
    )
    assert spine.timed(root, "no time", "book/intro") == "no time"


@pytest.mark.parametrize(
    ("time", "words"), [(1, "5 min"), (33, "35 min"), (89, "90 min"), (200, "3.5 h")]
)
def test_times_are_shown_as_roughly_as_they_are_known(time, words):
    assert spine.shown(time) == words.replace(" ", "\N{NO-BREAK SPACE}")


def test_the_map_leads_to_every_chapter_in_order_and_follows_the_theme():
    drawn = spine.chapter_map(ROOT, "book/intro")
    links = re.findall(r'href="([\w/]+)\.html"', drawn)
    assert links == ORDER
    for link in links:
        assert (ROOT / "book" / f"{link}.ipynb").is_file()
    arcs = spine.without_shortcuts(spine.needs(ROOT))
    inside = [c for c, its in arcs.items() for o in its if Path(o).parts[0] in c]
    assert drawn.count("<path") == len(inside) < sum(map(len, arcs.values()))
    numbers = re.findall(r'class="number"[^>]*>(\d+)<', drawn)
    assert numbers == [str(n + 1) for n in range(len(ORDER))]
    names = [spine.title(ROOT, chapter).partition(": ")[0] for chapter in ORDER]
    assert max(map(len, names)) <= 20  # no name runs into the time beside it
    assert not re.search(r"#[0-9a-f]{3}|\n\s*\n|http", drawn)
    sizes = [int(s) for s in re.findall(r"(\d+)px(?: sans|;)", drawn)]
    assert min(sizes) >= 11  # a unit of the drawing is a pixel on a phone


def test_the_map_is_drawn_to_the_names_that_titles_begin_with(tmp_path):
    root = root_with(
        tmp_path,
        [("markdown", "# C0: a <b>"), ("code", "")],
        [("markdown", "# C1: x"), ("code", "from prunefair.pruning.c0 import f")],
    )
    drawn = spine.drawing(root, "pruning", "book/intro")
    assert ">C0</text>" in drawn and "<title>a &lt;b&gt;</title>" in drawn
    assert drawn.count("<path") == 1


def test_a_chapter_says_below_its_title_what_it_used(tmp_path):
    record = {"processor_seconds": 200, "peak_mib": 1536}
    results = tmp_path / "book" / "results"
    root_with(tmp_path, [("markdown", "# Cuts: short\n\nText."), ("code", "x = 1")])
    results.mkdir()
    (results / "colab.json").write_text(
        json.dumps({"chapters": {"pruning/c0": record}})
    )
    notebook = tmp_path / "book" / "pruning" / "c0.ipynb"
    document = json.loads(notebook.read_text()) | {"metadata": {}}
    for metadata, said in (({}, "on Colab."), ({"accelerator": "GPU"}, "been timed.")):
        notebook.write_text(json.dumps(document | {"metadata": metadata}))
        page = json.loads(spine.headed(tmp_path, "pruning/c0", notebook.read_text()))
        text = "".join(page["cells"][0]["source"])
        assert text.startswith(
            "# Cuts: short\n\n:::{div} times\nReading: about 5\xa0min"
        )
        assert "about 3\xa0min of one processor core and 1.5\xa0GB" in text
        assert f"{said}\n:::\n\nText." in text
    (results / "colab.json").write_text('{"chapters": {"pruning/c0": {}}}')
    page = spine.headed(tmp_path, "pruning/c0", notebook.read_text())
    assert "Reading: about 5\\u00a0min.\\n:::" in page and "Running" not in page
