"""Every figure of the paper's public code on real ratings, with intervals.

    python benchmarks/movielens_figures.py

computes what the figures show, writes it to `book/results/movielens_figures.json` and
draws each figure, with the ratio to the certified optimum and the standard regret
beside it, to `_build/figures/NAME.png` under the name it has in the public code.  A
finished part is kept, so an interrupted run resumes where it stopped, and `--workers`
makes several at a time.  `--dataset
ml-25m` or `ml-32m` plays the public code's own choice, the users with exactly a
thousand ratings; `--results` then names another table.  About twenty minutes on one
core, most of them for FairCB.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from storing import THEN, Table, cpu, in_pieces, options_of, write_whole

from prunefair.fairness import movielens_figures as figures
from prunefair.fairness.ratings import (
    DATASETS,
    first_rows,
    load_ratings,
    movielens_stream,
    users_with,
)
from prunefair.fairness.simulation import RewardStream

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "movielens_figures.json"
ALPHA, FAIRNESS, SMALL_REWARD = 0.9, 0.98, 1e-3


def streams_of(dataset: str, folder, first: int) -> dict[str, RewardStream]:
    """The stream of the figures, and the one without a choice of users."""
    ratings = load_ratings(folder, dataset=dataset)
    if dataset == "ml-latest-small":  # nobody gave exactly a thousand ratings
        active = movielens_stream(ratings, small_reward=SMALL_REWARD)
    else:
        chosen = users_with(ratings, 1000, 1000)
        active = movielens_stream(chosen, n_users=None, small_reward=SMALL_REWARD)
    part = first_rows(ratings, first)
    others = movielens_stream(part, n_users=None, small_reward=SMALL_REWARD)
    return {"active": active, "first rows": others}


def work(
    streams: dict[str, RewardStream], options, table: dict
) -> Iterator[tuple[tuple[str, str], Callable] | None]:
    """Place and computation of every part."""

    def rng_of(key: str) -> np.random.Generator:
        return np.random.default_rng([options.seed, *key.encode()])

    points, runs, sweep_runs = options.points, options.runs, options.sweep_runs

    def part(key: str, compute: Callable, *given, **options):
        return ("parts", key), partial(plain_part, compute, *given, **options)

    for name, stream in streams.items():
        yield part(f"optimum/{name}", figures.optimum_part, stream, ALPHA, points)
    active = streams["active"]
    for alpha in np.linspace(0, 1, options.alphas, endpoint=False):
        key = f"alphas/{alpha:.3f}"
        given = (active, float(alpha), sweep_runs)
        yield part(key, figures.alpha_part, *given, rng=rng_of(key))
    for fairness in np.linspace(0, 1, options.floors, endpoint=False):
        key = f"floors/{fairness:.3f}"
        given = (active, float(fairness), ALPHA, sweep_runs)
        yield part(key, figures.fairness_part, *given, rng=rng_of(key))
    yield THEN
    for name, stream in streams.items():
        players = {"bandit": figures.bandit_players(stream, ALPHA)}
        if name == "active":
            full = figures.full_players(stream, ALPHA, FAIRNESS)
            players = {"full": full} | players
        for feedback, builders in players.items():
            for player, build in builders.items():
                key = f"curves/{name}/{feedback}/{player}"
                best = np.array(table["parts"][f"optimum/{name}"]["utility"])
                slow = player == "scale-free, released sign"  # not compiled
                given = (build, stream, ALPHA, best, sweep_runs if slow else runs)
                yield part(key, figures.curve_part, *given, rng=rng_of(key))


def plain(value):
    """`value` as JSON knows it, numbers with six digits."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def plain_part(compute: Callable, *given, **options):
    return plain(compute(*given, **options))


class Figures(Table):
    """The table of all parts, in the file one line for each."""

    def write(self) -> None:
        head = {key: part for key, part in self.items() if key != "parts"}
        lines = [f'  "{k}": {json.dumps(v)}' for k, v in self["parts"].items()]
        body = ",\n".join(lines)
        text = json.dumps(head, indent=1).removesuffix("\n}") + ',\n "parts": {\n'
        write_whole(self.path, f"{text}{body}\n }}\n}}\n")


def draw(table: dict, folder: Path) -> None:
    """One file for each figure, the judgement against the optimum beside it."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from prunefair.plotting import use_style

    use_style()
    folder.mkdir(parents=True, exist_ok=True)
    for name, (view, quantity) in figures.published_figures(table).items():
        wanted = list(dict.fromkeys([quantity, "ratio", "regret"]))
        size = {"figsize": (3.6 * len(wanted), 3.8), "layout": "constrained"}
        fig, axes = plt.subplots(1, len(wanted), **size)
        figures.plot_quantities(axes, view, wanted)
        fig.savefig(folder / f"{name}.png")
        plt.close(fig)


def main() -> None:
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--dataset", choices=list(DATASETS), default="ml-latest-small")
    parser.add_argument("--data", type=Path, help="folder with the ratings")
    parser.add_argument("--figures", type=Path, default=ROOT / "_build" / "figures")
    parser.add_argument("--seed", type=int, default=20231014)
    parser.add_argument("--runs", type=int, default=20, help="of a curve over time")
    parser.add_argument("--sweep-runs", type=int, default=10, help="of a sweep's point")
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--alphas", type=int, default=50)
    parser.add_argument("--floors", type=int, default=50)
    parser.add_argument("--first-rows", type=int, default=50_000)
    options = in_pieces(parser)
    streams = streams_of(options.dataset, options.data, options.first_rows)
    configuration = {
        "dataset": options.dataset,
        "streams": {name: stream.source for name, stream in streams.items()},
        "sizes": {k: [s.n_rounds, s.n_contexts, s.n_arms] for k, s in streams.items()},
        **{"alpha": ALPHA, "fairness": FAIRNESS, "small_reward": SMALL_REWARD},
        **{"seed": options.seed, "runs": options.runs, "points": options.points},
        **{"sweep_runs": options.sweep_runs, "alphas": options.alphas},
        "floors": options.floors,
    }
    names = ("numpy", "numba", "scipy")
    table = Figures(options.results, configuration, *names, device=cpu)
    if table.fill(work(streams, options, table), options, partial(print, flush=True)):
        draw(table, options.figures)


if __name__ == "__main__":
    main()
