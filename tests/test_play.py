"""Figures to play with show what the functions of their chapters return."""

import asyncio
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from transformers import LlamaConfig

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import console  # noqa: E402
import mystplay  # noqa: E402

from prunefair import plotting  # noqa: E402
from prunefair.bridge.layer_budgets import play_widths  # noqa: E402
from prunefair.fairness.movielens import play_race, policy_for, race  # noqa: E402
from prunefair.fairness.offline_optimum import offline_optimum_of  # noqa: E402
from prunefair.fairness.online_gradient import (  # noqa: E402
    _PLANE,
    _STARTS,
    AdaptiveState,
    adaptive_step,
    play_simplex,
)
from prunefair.fairness.ratings import synthetic_stream  # noqa: E402
from prunefair.fairness.simulation import simulate  # noqa: E402
from prunefair.fairness.utility import (  # noqa: E402
    equivalent_reward,
    indifferent_reward,
    jain_index,
    play_indifference,
)
from prunefair.playing import COLOURS, playable, table  # noqa: E402
from prunefair.pruning.anatomy import (  # noqa: E402
    parameter_counts,
    rows_to_keep,
    throughput_bound,
)
from prunefair.pruning.comparison import budget, play_budget  # noqa: E402
from prunefair.pruning.spectrum import (  # noqa: E402
    RowSlices,
    play_spectra,
    sliced_values,
    spectra_to_play,
    widest_gap,
)

VEGA = ROOT / "tools" / "static" / "vega"
HASHES = {  # begin those of vega 6.2.0 and vega-lite 6.4.1 as published on npm
    "vega.min.js": "ea6a5936381d06f912466354e2b6a20eb66c4d41f1ca9dff",
    "vega-lite.min.js": "aeb23656e635221d797b0588e25bf5a8a885c842100f89b7",
}
# Runs a chart without a page: sets signals, and prints signals and what is drawn.
PROBE = """
globalThis.vega = require(process.argv[1] + "/vega.min.js");
const Module = require("module"), load = Module._load;
Module._load = (name, ...rest) => name === "vega" ? vega : load(name, ...rest);
const lite = require(process.argv[1] + "/vega-lite.min.js");
const {spec, states, wanted} = JSON.parse(require("fs").readFileSync(0, "utf8"));
spec.width = 300;
(async () => {
  const view = new vega.View(vega.parse(lite.compile(spec).spec), {renderer: "none"});
  const found = [];
  await view.runAsync();
  for (const state of states) {
    for (const [name, value] of Object.entries(state)) view.signal(name, value);
    await view.runAsync();
    await view.runAsync(); // selections follow their sliders afterwards
    const signals = Object.fromEntries(wanted.map((name) => [name, view.signal(name)]));
    const marks = [];
    const visit = (node) => { for (const part of node.items || []) {
      if (part.role === "mark" && !["group", "path"].includes(part.marktype))
        marks.push(part.items.map((one) => one.datum));
      visit(part); } };
    visit(view.scenegraph().root);
    found.push(JSON.parse(JSON.stringify({signals, marks})));
  }
  console.log(JSON.stringify(found));
})().catch((error) => console.error(error.message));
"""
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


def played(chart, states, wanted=("says",)):
    """Signals of a chart and the rows behind its marks, after each of the states."""
    given = {"spec": chart.to_dict(), "states": states, "wanted": [*wanted]}
    command = ["node", "-e", PROBE, str(VEGA)]
    told = subprocess.run(
        command, input=json.dumps(given), capture_output=True, text=True
    )
    assert not told.stderr, told.stderr[-500:]
    return json.loads(told.stdout)


def stored():
    """Every stored chart of the book, by its notebook, with its still and its text."""
    for path in sorted((ROOT / "book").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", ()):
                data = output.get("data", {})
                for kind in filter(mystplay.CHART.fullmatch, data):
                    yield path, data[kind], data


CHARTS = [*stored()]


@pytest.mark.parametrize("name", HASHES)
def test_the_library_is_the_published_one_and_asks_for_nothing(name):
    text = (VEGA / name).read_bytes()
    assert hashlib.sha256(text).hexdigest().startswith(HASHES[name])
    assert b"sourceMappingURL" not in text


@pytest.mark.parametrize(
    ("path", "spec", "data"), CHARTS, ids=[str(p.stem) for p, *_ in CHARTS]
)
def test_a_stored_chart_is_small_named_and_has_a_still(path, spec, data):
    assert len(json.dumps(spec)) < 150_000
    assert spec["description"] in data["text/plain"] and data["image/png"]
    page = mystplay.markup(spec)
    assert not re.search(r"https?:", page) and page.count("</script>") == 1
    says = next(part for part in spec["params"] if part["name"] == "says")
    assert says["expr"].startswith("[")


@needs_node
@pytest.mark.parametrize(
    ("path", "spec", "data"), CHARTS, ids=[str(p.stem) for p, *_ in CHARTS]
)
def test_what_a_chart_says_fits_on_a_phone(path, spec, data):
    class Chart:
        to_dict = staticmethod(lambda: json.loads(json.dumps(spec)))

    bound = [p for p in spec["params"] if "input" in p.get("bind", {})]
    ends = [[b["bind"][k] for k in ("min", "max")] if "min" in b["bind"]
            else b["bind"]["options"] for b in bound]  # fmt: skip
    states = [{b["name"]: v} for b, values in zip(bound, ends) for v in values]
    for state in played(Chart, [{}, *states]):
        for line in state["signals"]["says"]:
            assert len(line) <= 50 and "NaN" not in line and "undefined" not in line, (
                line
            )


def test_colours_stand_out_from_both_pages():
    light = np.array([plotting_contrast(c, "#ffffff") for c in COLOURS])
    dark = np.array([plotting_contrast(c, "#14181e") for c in COLOURS])
    assert {*COLOURS} <= {*plotting.COLOURS}
    assert light.min() >= 3 and dark.min() >= 3


def plotting_contrast(one, other):
    """Contrast of two colours (WCAG 2)."""
    from matplotlib.colors import to_rgb

    c = np.array([to_rgb(one), to_rgb(other)])
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    low, high = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (high + 0.05) / (low + 0.05)


def test_tables_are_text_of_four_digits_and_columns_of_one_length():
    data = table({"x": [1 / 3, 12345, float("nan")], "name": ["a", "b,c", "d"]})
    assert data.values == 'x,name\n0.3333,a\n12345,"b,c"\n,d'
    assert data.format.to_dict()["parse"] == {"x": "number", "name": "string"}
    with pytest.raises(ValueError, match="one length"):
        table({"x": [1], "y": []})


def test_a_chart_stores_the_same_bytes_twice_and_a_still(capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    for _ in range(2):
        with playable(play_indifference()) as ax:
            ax.plot([0, 1])
    kind = next(name for name in shown[0] if mystplay.CHART.fullmatch(name))
    assert json.dumps(shown[0][kind]) == json.dumps(shown[1][kind])
    assert shown[0]["image/png"] == shown[1]["image/png"]


@needs_node
def test_the_indifference_chart_computes_what_the_functions_do():
    states, wanted = [], []
    for k, R in [(0, (2, 0.7)), (0.2, (2, 0.7)), (0.34, (0.4, 3)), (0.6, (0.1, 0.1)),
                 (0.99, (3, 0.1)), (1, (1.4, 2.2))]:  # fmt: skip
        states.append({"k": k, "R_x": R[0], "R_y": R[1]})
        wanted.append((2 * k / (1 - k) if k < 1 else np.inf, R))
    names = ["even", "jain", "says"]
    for state, (alpha, R) in zip(played(play_indifference(), states, names), wanted):
        even, curve = state["signals"]["even"], state["marks"][0]
        np.testing.assert_allclose(even, equivalent_reward(R, alpha), rtol=2e-6)
        np.testing.assert_allclose(state["signals"]["jain"], jain_index(R), rtol=1e-12)
        x, y = (np.array([row[name] for row in curve]) for name in "xy")
        if np.isfinite(alpha):
            there = even * indifferent_reward(x / even, alpha)
            near = np.isfinite(there) & (x >= even) & (y > 1e-3)
            assert near.sum() > 50
            np.testing.assert_allclose(y[near], there[near], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(np.c_[x, y], np.c_[y, x][::-1])
        dots = [(rows[0]["x"], rows[0]["y"]) for rows in state["marks"][1:3]]
        np.testing.assert_allclose(dots, [(even, even), R], rtol=1e-12)


@needs_node
def test_the_simplex_chart_steps_and_projects_as_the_functions_do():
    rng, states, wanted = np.random.default_rng(7), [], []
    for start, point in _STARTS.items():
        for _ in range(8):
            g, past = rng.uniform(-1.6, 1.6, 2).round(1), float(rng.choice([0, 1, 9]))
            states.append({"start": start, "g_x": g[0], "g_y": g[1], "past": past})
            x = np.array(point) / sum(point)
            gradient = _PLANE.T @ (g - _PLANE @ x)
            state = AdaptiveState(x, past)
            wanted.append(adaptive_step(state, gradient, centred=True))
    found = played(play_simplex(), states, ["p", "S", "q"])
    for state, after in zip(found, wanted, strict=True):
        p, S, q = (state["signals"][name] for name in "pSq")
        np.testing.assert_allclose(p, after.point, atol=2e-6)
        np.testing.assert_allclose(S, after.squared_norms, rtol=1e-5)
        np.testing.assert_allclose(q, _PLANE @ after.point, atol=2e-6)


@needs_node
def test_the_spectra_chart_shows_the_distances_of_the_theorem(tmp_path):
    W = torch.randn(60, 20, generator=torch.Generator().manual_seed(3))
    slices, lengths = RowSlices(W), W.norm(dim=1)
    orders = {"random": torch.arange(60), "longest": lengths.argsort(descending=True)}
    stairs, gaps = spectra_to_play(slices, orders, range(40, 101, 10))
    chart = play_spectra(stairs, gaps)
    states = [{"rows": r, "kept": k} for r in orders for k in (40, 70, 100)]
    for state, at in zip(played(chart, states, ["now"]), states, strict=True):
        order, percent = orders[at["rows"]], at["kept"]
        k, _, low, high, most = state["signals"]["now"]
        assert k == 60 * percent // 100
        assert abs(high - low - float(slices.distance(order[:k]))) < 1e-4
        assert high - low <= most + 1e-5 and most == min(60 - k, 20) / 20
        values = sliced_values(slices, order[:k]).flip(0)[3::4]
        drawn = [row["value"] for row in state["marks"][1]]
        np.testing.assert_allclose(drawn, values, rtol=1e-3)


def test_the_widest_gap_is_the_distance_and_where_it_is():
    place, low, high = widest_gap([3.0, 2.0, 1.0], [2.5, 1.5, 0.5])
    assert (place, low, high) == (0.5, 0, pytest.approx(1 / 3))
    place, low, high = widest_gap([4.0, 3.0, 2.0, 1.0], [3.5, 1.5, 0.8, 0.2])
    assert (place, low, high) == (0.8, 0, 0.5)


@needs_node
def test_the_widths_chart_shows_the_stored_table():
    table = json.loads((ROOT / "book/results/layer_budgets.json").read_text())
    shares = {"0.3": "30 %", "0.1": "10 %", "0.5": "50 %"}
    kinds = [(ratio, i) for ratio in shares for i in range(7)]
    states = [{"share": shares[ratio], "step": i} for ratio, i in kinds]
    for (ratio, i), state in zip(
        kinds, played(play_widths(table), states), strict=True
    ):
        alpha, row = [*table[ratio]["costs"].items()][i]
        assert [one["kept"] for one in state["marks"][0]] == row["widths"]
        says = " ".join(state["signals"]["says"])
        assert f"α = {alpha.replace('inf', '∞')}, " in says
        assert f"{min(row['widths'])} to {max(row['widths'])} rows" in says
        assert f"{np.mean(row['kl']):.2f} nats" in says


@needs_node
def test_the_race_shows_policy_and_optimum():
    rng = np.random.default_rng(2)
    stream = synthetic_stream(n_rounds=400, n_contexts=5, n_arms=4, rng=rng)
    rewards, found = race(stream, [0, 0.5, 1], points=2)
    chart = play_race(rewards, found)
    states = [{"alpha": a, "part": p} for a in (0, 0.5, 1) for p in (1, 2)]
    names = [*stream.arm_names]
    for state, at in zip(played(chart, states), states, strict=True):
        alpha, ticks, dots = at["alpha"], *state["marks"][:2]
        order = [names.index(row["arm"]) for row in dots]
        best = offline_optimum_of(stream, alpha).rewards[order]
        np.testing.assert_allclose([r["value"] for r in ticks], best, rtol=1e-3)
        policy = policy_for("alpha_fair", stream, alpha, "full")
        path = simulate(policy, stream, rng=np.random.default_rng(0), n_points=3)
        wanted = path.rewards[at["part"]][order]
        np.testing.assert_allclose([r["value"] for r in dots], wanted, rtol=1e-3)


@needs_node
def test_the_calculator_counts_as_the_functions_do():
    small = {"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 64}
    configs = [
        LlamaConfig(**small, intermediate_size=m, vocab_size=500, tie_word_embeddings=t)
        for m, t in ((300, True), (1536, False))
    ]
    measured = {
        "a": {0: 1, 10: 1.1, 20: 1.3, 25: 1.6, 30: 2.5},
        "b": {0: 1, 10: 2, 20: 4, 25: 8, 30: 9},
    }
    sizes = {name: budget(c) for name, c in zip(("one", "two"), configs)}
    states = [
        {"model": name, "method": method, "multiple": multiple, "ratio": ratio}
        for name, method in (("one", "a"), ("one", "b"), ("two", "a"))
        for multiple in (1, 32, 128)
        for ratio in (*range(0, 30, 4), 25, 30)
    ]
    found = played(
        play_budget(sizes, measured),
        states,
        ["kept", "left", "bound", "factor", "seen"],
    )
    for state, at in zip(found, states, strict=True):
        config, shown = configs[at["model"] == "two"], state["signals"]
        m = config.intermediate_size
        kept = rows_to_keep(m, at["ratio"] / 100, at["multiple"])
        assert shown["kept"] == kept
        assert shown["left"] == parameter_counts(config, kept).total
        bound = throughput_bound(parameter_counts(config), 1 - kept / m)
        assert abs(shown["bound"] - bound) < 1e-12
        removed = 100 * (1 - kept / m)
        logs = np.log([*measured[at["method"]].values()])
        wanted = np.interp(removed, [0, 10, 20, 25, 30], logs)
        wanted += max(0, removed - 30) * (logs[4] - logs[3]) / 5
        np.testing.assert_allclose(shown["factor"], np.exp(wanted), rtol=1e-3)
        assert shown["seen"] == (at["model"] == "one" and removed < 30.1)


# fingers


async def drawn_by_a_finger(port, page, path):
    """Values of the sliders before a touch and after each point of its `path`.

    A point is a pair of shares of the chart's width and height.
    """
    tab, found = await console.Tab.opened(port), []
    sliders = "[...document.querySelectorAll('input')].map(x => +x.value)"
    for domain in ("Page", "Runtime"):
        await tab.call(f"{domain}.enable")
    await tab.screen(390, "light")
    await tab.call("Emulation.setTouchEmulationEnabled", enabled=True)
    await tab.open(page.as_uri())
    box = "document.querySelector('svg').getBoundingClientRect()"
    left, top, width, height = await tab.value(
        f"(async () => {{ while (!document.querySelector('svg')) await new Promise("
        f"(done) => setTimeout(done, 20)); const b = {box};"
        " return [b.x, b.y, b.width, b.height]; })()"
    )
    found.append(await tab.value(sliders))
    for number, (x, y) in enumerate(path):
        point = {"x": left + x * width, "y": top + y * height}
        kind = "touchMove" if number else "touchStart"
        await tab.call("Input.dispatchTouchEvent", type=kind, touchPoints=[point])
        found.append(
            await tab.value(
                f"new Promise((done) => setTimeout(done, 100)).then(() => {sliders})"
            )
        )
    return found


@pytest.mark.skipif(console.browser() is None, reason="no Chromium is installed")
@pytest.mark.parametrize("chart", [play_indifference, play_simplex])
def test_a_finger_drags_as_a_mouse_does(chart, tmp_path):
    scripts = "".join(
        f'<script defer src="{(ROOT / "tools" / "static" / name).as_uri()}"></script>'
        for name in mystplay.FILES
    )
    style = (ROOT / "tools" / "static" / "play.css").as_uri()
    page = tmp_path / "page.html"
    page.write_text(
        f'<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="{style}">'
        f"{scripts}{mystplay.markup(chart().to_dict())}",
        encoding="utf-8",
    )
    path = [(0.7, 0.4), (0.6, 0.45), (0.5, 0.55), (0.4, 0.65)]
    with console.started(console.browser()) as port:
        start, *along = asyncio.run(drawn_by_a_finger(port, page, path))
    x, y = np.array(along).T[:2]
    assert along[0] != start and (np.diff(x) < 0).all() and (np.diff(y) < 0).all()
