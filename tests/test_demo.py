"""The demonstration says what it ran on, and its report is one whole page."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import demo  # noqa: E402

from prunefair.fairness.ratings import synthetic_stream  # noqa: E402


@pytest.fixture
def no_data(monkeypatch):
    def missing(*arguments):
        raise FileNotFoundError("movielens/ratings.csv is nowhere; connect")

    monkeypatch.setattr(demo, "load_ratings", missing)
    monkeypatch.setattr(
        demo, "synthetic_stream", lambda rng: synthetic_stream(rng=rng, n_rounds=500)
    )


def test_without_data_or_network_the_report_says_that_the_rewards_are_synthetic(
    no_data, capsys
):
    half = demo.fairness()
    assert len(half.notes) == 1
    assert "neither data nor network" in half.notes[0]
    assert "synthetic" in half.notes[0]
    assert any("synthetic" in line.lower() for line in half.text)
    assert "synthetic" in demo.page([half], 1.0)
    assert "synthetic" in demo.console(half)
    names = [row[0] for row in half.rows]
    assert "alpha_fair" in names
    assert "uniform" in names
    assert "== 5/6" in capsys.readouterr().out


def test_the_report_is_one_page_without_references_to_other_files(no_data):
    page = demo.page([demo.fairness()], 1.0)
    assert page.count("data:image/png;base64,") == 1
    assert "src=" in page
    assert "http" not in page


def test_table_entries_are_escaped_and_missing_values_are_dashes():
    half = demo.Half("<title>", ("a",), rows=[("<b>",), (None,), (123456.7,)])
    page = demo.page([half], 1.0)
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "–" in page
    assert "123,457" in page
