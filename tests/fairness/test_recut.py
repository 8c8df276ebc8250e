"""Verdicts on other streams of the same ratings: margins, tables and what is stored."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from prunefair.fairness import recut as module
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.ratings import Ratings, synthetic_stream
from prunefair.fairness.recut import (
    ALPHAS,
    FLOORS,
    Played,
    Standing,
    cuts,
    margins,
    played,
    players,
    plot_ratio_by_visits,
    plot_standings,
    read_runs,
    standings,
    stored_runs,
)
from prunefair.fairness.simulation import simulate
from prunefair.fairness.utility import alpha_fair_utility, jain_index

matplotlib.use("agg")
ROOT = Path(__file__).resolve().parents[2]
ALPHA = 0.9
CUTS = "as in the book", "shuffled", "other users", "cold users", "half-years"
CUTS += ("drifting groups",)


@pytest.fixture(scope="module")
def stream():
    sizes = {"n_contexts": 3, "n_arms": 4, "n_rounds": 60}
    return synthetic_stream(**sizes, rng=np.random.default_rng(5))


@pytest.fixture(scope="module")
def run(stream):
    with pytest.MonkeyPatch.context() as patch:  # the loop in place of the kernels
        patch.setattr(module, "run_fast", simulate)
        return played(stream, ALPHA, rng=np.random.default_rng(1))


def test_what_is_played_is_what_the_policies_reach(stream, run):
    G = reward_sums(stream.contexts, stream.rewards, 3)
    assert (run.rounds, run.contexts) == (60, 3)
    np.testing.assert_allclose(run.optimum, solve_offline(G, ALPHA).utility)
    coupled = AlphaFairGradient(4, ALPHA)
    simulate(coupled, stream)
    utility = alpha_fair_utility(coupled.rewards, ALPHA)
    np.testing.assert_allclose(run.ratio["coupled"], run.optimum / utility)
    np.testing.assert_allclose(run.jain["coupled"], jain_index(coupled.rewards))
    die = 1 + stream.rewards.sum(0) / 4
    np.testing.assert_allclose(
        run.ratio["uniform"], run.optimum / alpha_fair_utility(die, ALPHA)
    )
    missed = 1 - 1 / run.ratio["coupled"]
    assert run.price >= missed - 1e-9  # the price bound is a bound
    best = [solve_offline(G, a).utility for a in ALPHAS]
    for k, alpha in enumerate(ALPHAS):
        simulate(policy := AlphaFairGradient(4, alpha), stream)
        ratio = best[k] / alpha_fair_utility(policy.rewards, alpha)
        np.testing.assert_allclose(run.sweep["ratio"][k], ratio)
        np.testing.assert_allclose(run.sweep["mean_reward"][k], policy.rewards.mean())
    assert len(players(stream, ALPHA)) == 10 + 2 * len(FLOORS) == len(run.ratio)


def holds(run, alpha):
    """The verdicts in other words, from the numbers of the run."""
    U = {name: run.optimum / ratio for name, ratio in run.ratio.items()}
    fair = [n for n in U if n.startswith("FairCB")]
    strict = [n for n in fair if n.endswith("0.98")]
    full = ["independent", "blind to contexts", "Hedge", "uniform", *strict]
    others = ["coupled", "independent", "blind to contexts", "uniform", *strict]
    factor = (1 - alpha) ** (alpha - 1)
    regret = {name: run.optimum - u for name, u in U.items()}
    shift = (run.broadcast - 1) * run.optimum
    sign, right = "scale-free, released sign", "scale-free"
    mean, jain, ratio, lead = run.sweep.values()
    return {
        "least regret": all(regret["coupled"] < regret[n] for n in full),
        "within 1 %": run.optimum < 1.01 * U["coupled"],
        "most even": all(run.jain["coupled"] > run.jain[n] for n in full),
        "evener than optimum": run.jain["coupled"] > run.optimum_jain,
        "mostly ahead": run.ahead > 0.5,
        "price bound": run.price * run.optimum < 2 * regret["coupled"],
        "right step": U["coupled, released step"] < U["coupled"],
        "released step": U["coupled, released step"] < U["independent"],
        "alpha trades": (np.diff(mean) < 0).all() and (np.diff(jain) > 0).all(),
        "alpha, within 2 %": (ratio < 1.02).all(),
        "benchmark": all(shift > regret[n] for n in full),
        "Hedge": run.top_two > 0.99
        and all(run.total["Hedge"] > run.total[n] for n in others),
        "die below factor": run.optimum < factor * U["uniform"],
        "only Hedge above": run.optimum > factor * U["Hedge"]
        and all(run.optimum < factor * U[n] for n in others),
        "quota, evenness": all(run.jain["coupled"] > run.jain[n] for n in fair),
        "quota, regret": all(U["coupled"] > U[n] for n in fair),
        "bandit ahead": U[right] > U["uniform, drawn"],
        "bandit, every alpha": (lead > 0).all(),
        "released sign": U[sign] < U["uniform, drawn"],
        "sign and evenness": run.jain[sign] > run.jain[right],
        "bound in the mean": run.proved > 1,
    }


def random_run(rng):
    """A run in which every verdict holds about half of the time."""
    names = players(synthetic_stream(n_rounds=9, n_arms=3, rng=rng), ALPHA)
    ratio = {n: rng.uniform(1.002, 1.03) for n in names}
    ratio["coupled"] = rng.uniform(1.0, 1.02)
    high = rng.choice([*names], 2)
    ratio |= {n: rng.uniform(1.2, 1.3) for n in high} | {"Hedge": rng.uniform(1.2, 1.4)}
    jain = {n: rng.random() for n in names} | {"coupled": rng.uniform(0.7, 1)}
    total = {n: rng.random() for n in names} | {"Hedge": rng.uniform(0.7, 1.2)}
    ups = np.sort(rng.random(5)) if rng.random() < 0.6 else rng.random(5)
    sweep = {"mean_reward": np.sort(rng.random(5))[::-1], "jain": ups}
    sweep |= {"ratio": rng.uniform(1, 1.023, 5), "lead": rng.uniform(-0.1, 0.9, 5)}
    shift, price = 1 + rng.uniform(0, 0.5), rng.uniform(0, 0.04)
    return Played(
        9, 3, ratio, jain, total, rng.uniform(1, 90), rng.random(),
        rng.uniform(0.98, 1), rng.random(), price, shift, rng.uniform(0, 2), sweep,
    )  # fmt: skip


def test_a_margin_is_positive_exactly_where_the_verdict_holds():
    rng, seen = np.random.default_rng(8), {}
    for _ in range(300):
        one = random_run(rng)
        found, wanted = margins(one, ALPHA), holds(one, ALPHA)
        assert found.keys() == wanted.keys() and len(found) == 21
        for name, value in found.items():
            assert (value > 0) == wanted[name], name
            seen.setdefault(name, set()).add(bool(wanted[name]))
    assert all(words == {True, False} for words in seen.values()), seen


def test_a_verdict_stands_or_fails_only_if_its_interval_is_on_one_side(run):
    assert Standing(0.2, 0.1, 3, 4).word == "stands"
    assert Standing(-0.2, 0.1, 1, 4).word == "fails"
    assert Standing(0.2, 0.3, 3, 4).word == Standing(0.0, 0.0, 0, 4).word == "open"
    rng = np.random.default_rng(3)
    runs = [random_run(rng) for _ in range(6)]
    values = np.array([margins(one, ALPHA)["within 1 %"] for one in runs])
    one = standings(runs, ALPHA)["within 1 %"]
    half = 2.570582 * values.std(ddof=1) / 6**0.5
    np.testing.assert_allclose([one.mean, one.half], [values.mean(), half], rtol=1e-6)
    assert (one.holds, one.n_runs) == ((values > 0).sum(), 6)


def test_runs_come_back_from_a_table_as_they_were(run):
    again = read_runs(json.loads(json.dumps(stored_runs([run, run]), default=list)))
    assert len(again) == 2
    for name in Played._fields:
        new, old = getattr(again[1], name), getattr(run, name)
        if isinstance(old, dict):
            assert new.keys() == old.keys()
            assert all(np.array_equal(new[k], old[k]) for k in old)
        else:
            assert new == old


def test_every_cut_is_of_the_same_ratings():
    rng = np.random.default_rng(4)
    n = 6000
    ratings = Ratings(
        users=np.minimum(rng.geometric(0.02, n), 90) + rng.integers(0, 2, n) * 100,
        movies=rng.integers(0, 5, n),
        timestamps=np.sort(rng.integers(0, 3 * 365 * 86_400, n)),
        genre_table=np.eye(5, 3, dtype=bool) | np.eye(5, 3, -2, dtype=bool),
        genres=("A", "B", "C"),
    )
    made = {name: build(rng) for name, build in cuts(ratings, 4).items()}
    assert tuple(made) == CUTS
    assert {k: len(v) for k, v in made.items()} == dict(zip(CUTS, (2, 2, 4, 4, 6, 4)))
    book, mixed, users, cold, halves, groups = made.values()
    assert book[0] is book[1] and mixed[0] != mixed[1] != book[0]
    assert {s.n_contexts for s in users} == {75} and users[0] != users[1]
    counts = np.bincount(cold[0].contexts)
    assert counts.max() <= 40 and cold[0].n_contexts == (
        (np.unique(ratings.users, return_counts=True)[1] <= 40).sum()
    )
    assert sum(s.n_rounds for s in halves) == n == groups[0].n_rounds
    assert {s.n_contexts for s in groups} == {12}


def test_the_stored_table_holds_every_cut_and_its_figures_can_be_drawn():
    import matplotlib.pyplot as plt

    table = json.loads((ROOT / "book/results/recut.json").read_text())
    runs = {cut: read_runs(part) for cut, part in table["parts"].items()}
    assert set(runs) == set(CUTS)
    found = {cut: standings(many, ALPHA) for cut, many in runs.items()}
    fig, axes = plt.subplots(1, 2)
    plot_standings(axes[0], found), plot_ratio_by_visits(axes[1], runs)
    texts = [t.get_text() for t in axes[0].texts]
    assert len(texts) == 21 * 6 and set(texts) > {"42/42", "5/5", "0/10"}
    assert len(axes[1].collections) == 6
    plt.close(fig)
