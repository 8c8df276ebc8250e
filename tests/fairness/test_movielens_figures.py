"""The figures of the public code: what is computed, stored and drawn."""

import json
import statistics
import sys
from functools import partial
from pathlib import Path

import matplotlib
import movielens_figures as benchmark
import numpy as np
import pytest

from prunefair.fairness import movielens_figures as module
from prunefair.fairness.bandit_feedback import ScaleFreeBandit
from prunefair.fairness.full_information import AlphaFairGradient, certificate_bound
from prunefair.fairness.movielens_figures import (
    MeanCurve,
    alpha_part,
    bandit_players,
    context_frequencies,
    curve_part,
    fairness_part,
    full_players,
    mean_curve,
    mean_curves,
    optimum_part,
    over_alpha,
    over_fairness,
    over_time,
    plot_quantities,
    plot_quantity,
    published_figures,
    quantities,
    with_regret,
)
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.ratings import synthetic_stream
from prunefair.fairness.simulation import simulate

matplotlib.use("agg")
ROOT = Path(__file__).resolve().parents[2]

ALPHA = 0.9
PUBLISHED = {
    *("jains_index_full_information", "standard_regret_full_information"),
    *("approximate_regret_full_information", "jains_index_bandit_information"),
    *("standard_regret_bandit_information", "approximate_regret_bandit_information"),
    *("avg_cumulative_rewards", "jains_index_varying_alphas"),
    *("jains_index_varying_nus", "avg_cumulative_rewards_bandit"),
    *("alpha_objective_variation_bandit", "fairness_variation_bandit"),
    "jains_index_bandit_information_first_rows",
}


@pytest.fixture(autouse=True)
def slow_engine(monkeypatch):
    """The reference loop in place of the compiled one, which has tests of its own."""
    monkeypatch.setattr(module, "run_fast", simulate)


@pytest.fixture(scope="module")
def stream():
    rng = np.random.default_rng(1)
    return synthetic_stream(n_contexts=3, n_arms=4, n_rounds=120, rng=rng)


@pytest.fixture(scope="module")
def table():
    path = ROOT / "book" / "results" / "movielens_figures.json"
    return json.loads(path.read_text(encoding="utf-8"))


# What is computed


def test_a_band_is_the_mean_with_students_interval():
    values = [[1.0, 5.0], [2.0, 5.5], [4.0, 3.0]]
    for k in range(2):
        column = [row[k] for row in values]
        mean, half = mean_curve(values).mean[k], mean_curve(values).half[k]
        assert mean == pytest.approx(statistics.mean(column))
        assert half == pytest.approx(4.302653 * statistics.stdev(column) / 3**0.5)
    np.testing.assert_array_equal(mean_curve([[1.0, 2.0]]), [[1, 2], [0, 0]])


def test_quantities_are_what_their_names_say():
    R = np.array([[[1.0, 4.0]], [[9.0, 16.0]]])  # two runs, one checkpoint
    found = quantities(R, np.array([30.0]), 0.5)
    np.testing.assert_allclose(found["utility"].mean, (2 * (1 + 2) + 2 * (3 + 4)) / 2)
    np.testing.assert_allclose(found["ratio"].mean, (30 / 6 + 30 / 14) / 2)
    np.testing.assert_allclose(found["mean_reward"].mean, (2.5 + 12.5) / 2)
    np.testing.assert_allclose(found["jain"].mean, (25 / 34 + 625 / 674) / 2)


def test_regrets_follow_from_the_utility_with_their_intervals():
    U = np.array([[3.0], [5.0], [4.0]])
    bands = with_regret({"utility": mean_curve(U)}, np.array([9.0]), 1.5)
    for name, c in (("regret", 1.0), ("c_regret", 1.5)):
        np.testing.assert_allclose(bands[name], mean_curve(9 - c * U))
    assert "c_regret" not in with_regret({"utility": mean_curve(U)}, 9.0)


def test_a_curve_is_made_of_independent_runs_of_its_policy(stream):
    optimum = optimum_part(stream, ALPHA, 4)["utility"]
    build = partial(ScaleFreeBandit, 4, ALPHA)
    part = curve_part(build, stream, ALPHA, optimum, 3, rng=np.random.default_rng(5))
    children = np.random.default_rng(5).spawn(3)
    runs = [simulate(build(), stream, rng=c, n_points=4).rewards for c in children]
    for name, band in quantities(np.array(runs), optimum, ALPHA).items():
        np.testing.assert_array_equal(part[name], band)
        assert name == "mean_reward" or band.half[-1] > 0
    full = partial(AlphaFairGradient, 4, ALPHA)
    part = curve_part(full, stream, ALPHA, optimum, 3, rng=np.random.default_rng(5))
    assert all((band.half == 0).all() for band in part.values())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_every_run_stays_below_its_own_bound(stream, alpha):
    optimum = optimum_part(stream, alpha, 5)["utility"]
    players = full_players(stream, alpha) | bandit_players(stream, alpha)
    for build in players.values():
        part = curve_part(
            build, stream, alpha, optimum, 1, rng=np.random.default_rng(5)
        )
        c = (1 - alpha) ** (alpha - 1)
        c_regret = optimum - c * part["utility"].mean
        assert (c_regret <= part["price"].mean + 1e-9 * optimum).all()


def test_the_optimum_over_time_is_that_of_the_first_rounds(stream):
    part = optimum_part(stream, ALPHA, 4)
    for t, utility, bound in zip(part["rounds"], part["utility"], part["certificate"]):
        first = stream.first(t)
        G = reward_sums(first.contexts, first.rewards, 3)
        assert utility == pytest.approx(solve_offline(G, ALPHA).utility, rel=1e-9)
        policy = AlphaFairGradient(4, ALPHA)
        simulate(policy, first)
        assert bound == pytest.approx(certificate_bound(policy.squared_norms, ALPHA, 4))
    assert part["rounds"][-1] == 120 and 0 <= part["gap"] < 1e-6


def test_faircb_is_given_the_frequencies_of_all_rounds(stream):
    q = context_frequencies(stream)
    assert q.tolist() == [np.mean(stream.contexts == j) for j in range(3)]
    for name in ("FairCB", "FairCB, full information"):
        policy = full_players(stream, ALPHA, 0.5)[name]()
        np.testing.assert_array_equal(policy.q, q)
        assert policy.floor == 0.5 / 4


def test_a_point_of_a_sweep_holds_what_its_runs_reached(stream):
    part = alpha_part(stream, 0.5, 2, rng=np.random.default_rng(0))
    G = reward_sums(stream.contexts, stream.rewards, 3)
    best = solve_offline(G, 0.5)
    assert part["optimum"]["utility"].mean == pytest.approx(best.utility)
    assert part["optimum"]["ratio"].mean == pytest.approx(1)
    policy = AlphaFairGradient(4, 0.5)
    simulate(policy, stream)
    assert part["coupled"]["mean_reward"].mean == pytest.approx(policy.rewards.mean())
    assert part["scale-free"]["jain"].half > 0 == part["uniform"]["jain"].half
    floor = fairness_part(stream, 0.5, ALPHA, 3, rng=np.random.default_rng(0))
    assert len(set(floor["FairCB"]["jain"].tolist())) == 3
    assert floor["FairCB, full information"]["utility"].shape == (1,)


# What is stored


def test_the_table_holds_every_part_of_the_sweeps(table):
    parts, configuration = table["parts"], table["configuration"]
    assert configuration["sizes"]["active"] == [53_372, 75, 19]
    assert configuration["sizes"]["first rows"][1:] == [322, 19]
    alphas = [p["alpha"] for k, p in parts.items() if k.startswith("alphas/")]
    np.testing.assert_allclose(alphas, np.arange(50) / 50)
    floors = [p for k, p in parts.items() if k.startswith("floors/")]
    np.testing.assert_allclose([p["fairness"] for p in floors], np.arange(50) / 50)
    for point in floors:
        runs = set(zip(point["FairCB"]["jain"], point["FairCB"]["utility"]))
        assert len(runs) == 10 == configuration["sweep_runs"]  # all different
        assert len(point["FairCB, full information"]["utility"]) == 1
    for key, part in parts.items():
        assert 0 <= part.get("gap", 0) < 1e-6, key


def test_random_curves_have_intervals_and_the_others_have_none(table):
    assert table["configuration"]["runs"] >= table["configuration"]["sweep_runs"] >= 10
    seen = set()
    for key, part in table["parts"].items():
        if key.startswith("curves/"):
            random = "/bandit/" in key or key.endswith("/FairCB")
            half = mean_curves(part)["utility"].half
            assert (half[1:] > 0).all() if random else (half == 0).all(), key
            seen.add(random)
    assert seen == {True, False}


def test_the_stored_curves_agree_with_recorded_values(table):
    full = over_time(table, "active", "full").curves
    assert full["coupled"]["utility"].mean[-1] == pytest.approx(351.871, abs=5e-4)
    assert full["coupled, released step"]["utility"].mean[-1] == pytest.approx(
        344.895, abs=5e-4
    )
    assert full["uniform"]["c_regret"].mean[-1] == pytest.approx(-64.4, abs=0.05)
    best = table["parts"]["optimum/active"]["utility"][-1]
    assert best == pytest.approx(353.9061, abs=5e-4)
    bandit = over_time(table, "active", "bandit").curves
    for name, value in {"scale-free": 334.475, "log-barrier, cap 0.1": 337.39}.items():
        mean, half = bandit[name]["utility"]
        assert abs(mean[-1] - value) < 3 * half[-1] + 0.4, name
    assert bandit["scale-free, released sign"]["utility"].mean[-1] == pytest.approx(
        329.97, abs=0.5
    )


# What is drawn


def test_every_figure_of_the_public_code_is_made_and_judged(table):
    figures = published_figures(table)
    assert set(figures) == PUBLISHED
    for name, (view, quantity) in figures.items():
        drawn = [k for k, bands in view.curves.items() if quantity in bands]
        assert len(drawn) >= 2, name
        judged = {"ratio", "regret"}
        assert any(judged <= set(bands) for bands in view.curves.values()), name
        if quantity == "c_regret":  # never without uniform play and the bound
            assert "uniform" in drawn and any(k.startswith("bound") for k in drawn)
            assert len(drawn) == 3


def test_the_largest_of_the_runs_is_drawn_beside_their_mean(table):
    curves = over_fairness(table).curves
    top, mean = (
        curves["largest of the runs"]["jain"].mean,
        curves["FairCB"]["jain"].mean,
    )
    assert (top > mean).all()
    level = curves["coupled"]["jain"].mean
    assert (level == level[0]).all() and level[0] == pytest.approx(0.607, abs=5e-4)


def test_uniform_play_is_left_out_where_it_would_hide_the_regret(table):
    alone, beside = (
        over_alpha(table, ["coupled"]),
        over_alpha(table, ["scale-free"] * 2),
    )
    assert "regret" not in alone.curves["uniform"] and "jain" in alone.curves["uniform"]
    assert "regret" in beside.curves["uniform"]
    assert "regret" not in beside.curves["optimum"]


def test_a_panel_shows_the_mean_and_the_interval():
    from matplotlib.figure import Figure

    view = module.FigureCurves(
        np.arange(3.0),
        "round $t$",
        {
            "uniform": {
                "regret": MeanCurve(np.array([1.0, 2, 3]), np.array([0.0, 1, 1]))
            },
            "optimum": {"jain": MeanCurve(np.ones(3), np.zeros(3))},
        },
    )
    worse = {"Hedge": {"regret": MeanCurve(np.full(3, 50.0), np.zeros(3))}}
    cut = plot_quantity(
        Figure().subplots(), view._replace(curves=view.curves | worse), "regret"
    )
    assert cut.get_ylim()[1] == pytest.approx(4.8)
    fig = Figure()
    axes = fig.subplots(1, 2)
    assert plot_quantities(axes, view, ["regret", "jain"]) is axes
    assert axes[0].lines[0].get_ydata().tolist() == [1, 2, 3]
    edges = axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (1, 4)
    assert axes[0].get_ylabel() == "standard regret"
    assert axes[0].get_ylim()[1] < 4.8  # nothing is cut
    assert axes[1].lines[0].get_color() == "black"
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [
        *("uniform", "optimum")
    ]
    assert plot_quantity(fig.subplots(), view, "ratio").lines[:] == []


# The command


def test_the_command_keeps_finished_parts_and_draws_every_figure(
    tmp_path, monkeypatch, stream, capsys
):
    streams = {"active": stream, "first rows": stream.first(60)}
    monkeypatch.setattr(benchmark, "streams_of", lambda *_: streams)
    sizes = ("--runs", "2", "--sweep-runs", "2", "--points", "3", "--alphas", "2")
    files = ("--results", tmp_path / "table.json", "--figures", tmp_path / "drawn")
    command = ["x", *sizes, "--floors", "2", *map(str, files)]
    monkeypatch.setattr(sys, "argv", command)
    original = module.curve_part
    monkeypatch.setattr(module, "curve_part", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        benchmark.main()
    assert capsys.readouterr().out.count(" s\n") == 2 + 2 + 2
    monkeypatch.setattr(module, "curve_part", original)
    for part in ("optimum_part", "alpha_part", "fairness_part"):
        monkeypatch.setattr(module, part, lambda *_, **__: 1 / 0)
    benchmark.main()  # what is there is not computed again
    assert capsys.readouterr().out.count(" s\n") == 7 + 2 * 6
    assert {path.stem for path in (tmp_path / "drawn").glob("*.png")} == PUBLISHED
    made = json.loads((tmp_path / "table.json").read_text())
    assert {"configuration", "versions", "device", "parts"} <= set(made)
    assert [*tmp_path.glob("*.partial")] == []


def test_on_a_large_set_the_command_takes_the_public_codes_choice(tmp_path):
    (tmp_path / "ml-25m").mkdir()
    rows = [(user, 1 + k % 2) for user, n in ((1, 999), (2, 1000)) for k in range(n)]
    text = "".join(f"{user},{movie},4.0,9\n" for user, movie in rows)
    for name, body in {
        "ratings.csv": "userId,movieId,rating,timestamp\n" + text,
        "movies.csv": "movieId,title,genres\n1,A,War\n2,B,IMAX\n",
    }.items():
        (tmp_path / "ml-25m" / name).write_text(body)
    streams = benchmark.streams_of("ml-25m", tmp_path, 1500)
    assert (streams["active"].n_rounds, streams["active"].n_contexts) == (1000, 1)
    assert (streams["first rows"].n_rounds, streams["first rows"].n_contexts) == (
        *(1500, 2),
    )
