"""Rounds that are drawn: rates to ten million rounds, three regimes, real ratings.

    python benchmarks/stochastic.py [--minutes N] [--only PLACE]

writes `book/results/stochastic.json` in pieces; a finished piece is kept.  The sweep
plays the coupled policy and the log-barrier bandit on streams of one urn, 20 seeds, for
a million rounds and for ten million; the regimes play every policy on the same rounds
in an adversary's order, drawn, and with a map from a historical sample; the ratings are
those of the book in the order of time and in random orders.  About half an hour on one
core.
"""

from __future__ import annotations

import os
from functools import partial
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import numpy as np
from movielens_figures import Figures, plain
from storing import cpu, in_pieces, options_of

from prunefair.fairness.bandit_feedback import LogBarrierBandit
from prunefair.fairness.baselines import make_policy
from prunefair.fairness.fast.compiled import LOADERS, run_fast
from prunefair.fairness.fixed_map import FixedMap
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.limits import phase_stream
from prunefair.fairness.offline_optimum import (
    offline_optimum_of,
    reward_sums,
    solve_offline,
)
from prunefair.fairness.ratings import load_ratings, movielens_stream, shuffled
from prunefair.fairness.simulation import simulate
from prunefair.fairness.stochastic import (
    FrankWolfeBandit,
    drawn_from,
    in_context_order,
    mean_optimum,
    random_model,
)
from prunefair.fairness.utility import alpha_fair_utility

RESULT = Path(__file__).parents[1] / "book" / "results" / "stochastic.json"
CONFIGURATION = {
    "alphas": [0.25, 0.5, 0.75],
    "checkpoints": [1000, 3162, 10000, 31623, 100000, 316228, 1000000, 3162278, 10**7],
    "block": 500000,
    "seeds": 20,
    "group": 5,
    "n_contexts": 3,
    "n_arms": 4,
    "regime_alpha": 0.5,
    "regime_arms": 5,
    "regime_power": 1.8,
    "regime_rounds": 3000,
    "samples": [100, 1000],
    "ratings_alpha": 0.9,
    "seed": 20261130,
}


def generator(*names) -> np.random.Generator:
    """The generator of a piece of this name."""
    key = "/".join(map(str, names)).encode()
    return np.random.default_rng([CONFIGURATION["seed"], *key])


# --- the sweep


def run_to_the_end(model, alpha, feedback, last: int, *, rng) -> list[list[float]]:
    """What a run of `last` rounds misses of both optima at checkpoints, (2, C)."""
    rounds, played = [t for t in CONFIGURATION["checkpoints"] if t <= last], 0
    m, n = model.chances.shape
    if feedback == "full":
        policy = AlphaFairGradient(n, alpha)
    else:
        policy = LogBarrierBandit(n, alpha, horizon=rounds[-1])
    G, found = np.zeros((m, n)), []
    for stop in rounds:
        while played < stop:
            size = min(CONFIGURATION["block"], stop - played)
            stream = model.stream(size, rng=rng)
            run_fast(policy, stream, rng=rng, n_points=1)
            G += [stream.rewards[stream.contexts == j].sum(0) for j in range(m)]
            played += size
        U = alpha_fair_utility(policy.rewards, alpha)
        optima = mean_optimum(model.means, alpha, stop), solve_offline(G, alpha)
        found.append([best.utility - U for best in optima])
    return np.array(found).T.tolist()


def sweep(last: int, feedback: str, alpha: float, group: int) -> dict:
    """Some seeds of one policy at one alpha, for `last` rounds."""
    sizes = CONFIGURATION["n_contexts"], CONFIGURATION["n_arms"]
    model = random_model(*sizes, rng=generator("model"))
    rng = generator("sweep", last, feedback, alpha, group)
    runs = [
        run_to_the_end(model, alpha, feedback, last, rng=child)
        for child in rng.spawn(CONFIGURATION["group"])
    ]
    behind, offline = zip(*runs)
    return plain({"behind": list(behind), "offline": list(offline)})


# --- the regimes


def played(policy, stream, rng=None) -> np.ndarray:
    """Final rewards, compiled where there is a kernel."""
    kind = f"{type(policy).__module__}.{type(policy).__qualname__}"
    play = run_fast if kind in LOADERS else simulate
    play(policy, stream, rng=rng, n_points=1)
    return policy.rewards


def named(name: str, stream, alpha: float, feedback: str = "full"):
    """A policy for `stream` by its name."""
    return make_policy(
        name,
        feedback=feedback,
        n_arms=stream.n_arms,
        n_contexts=stream.n_contexts,
        alpha=alpha,
        horizon=stream.n_rounds,
    )


def collections(*, rng) -> dict:
    """The two collections of rounds, in an adversary's order."""
    n, power = CONFIGURATION["regime_arms"], CONFIGURATION["regime_power"]
    lengths = (n / np.arange(n, 0, -1)) ** power
    lengths = (lengths / lengths.sum() * CONFIGURATION["regime_rounds"]).round()
    urn = random_model(n, n, rng=generator("urn"))
    drawn = urn.stream(CONFIGURATION["regime_rounds"], rng=rng)
    return {"phases": phase_stream(lengths, rng=rng), "urn": in_context_order(drawn)}


FULL = ("alpha_fair", "frank_wolfe", "dual_descent", "resolving")


def regime(name: str) -> dict:
    """Optimum over utility of all policies on one collection, over the seeds."""
    alpha, out = CONFIGURATION["regime_alpha"], {"in order": {}, "drawn": {}}
    for rng in generator("regimes", name).spawn(CONFIGURATION["seeds"]):
        game = collections(rng=rng)[name]
        drawn = drawn_from(game, game.n_rounds, rng=rng)
        for order, stream in (("in order", game), ("drawn", drawn)):
            best = offline_optimum_of(stream, alpha).utility
            policies = {k: named(k, stream, alpha) for k in FULL}
            for size in CONFIGURATION["samples"]:
                sample = drawn_from(game, size, rng=rng)
                G = reward_sums(sample.contexts, sample.rewards, game.n_contexts)
                x = solve_offline(G * game.n_rounds / size, alpha).x
                policies[f"map of {size} rounds"] = FixedMap(x)
            for k, policy in policies.items():
                R = played(policy, stream)
                out[order].setdefault(k, []).append(best / alpha_fair_utility(R, alpha))
    return plain(out)


# --- real ratings

RATED = {name: "full" for name in FULL} | {
    "frank_wolfe, bandit": "bandit",
    "scale_free, bandit": "bandit",
    "log_barrier, bandit": "bandit",
}


def frank_wolfe_bandits(policy, stream, orders, rngs) -> np.ndarray:
    """Final rewards of copies of a new `FrankWolfeBandit`, one an order, in step.

    The rounds of `stream` come in the order of each row of `orders`, shape (S, T), and
    arms are drawn as `simulate` draws them with each generator; a test compares.
    """
    (S, T), N, k = orders.shape, stream.n_arms, policy.prior
    row, R = np.arange(S), np.ones((S, N))
    own = np.zeros((2, S, stream.n_contexts, N))  # gains and pulls in each context
    pooled = np.zeros((2, S, N))
    draws = np.array([rng.random(T) for rng in rngs])
    for t in range(T):
        j, r = stream.contexts[orders[:, t]], stream.rewards[orders[:, t]]
        gains, pulls = own[:, row, j]
        predicted = (gains + k * (pooled[0] + 0.5) / (pooled[1] + 1)) / (pulls + k)
        p = np.full((S, N), policy.explore / N)
        p[row, (R**-policy.alpha * predicted).argmax(1)] += 1 - policy.explore
        cumulative = np.cumsum(p, axis=1)
        arm = (cumulative <= (draws[:, t] * cumulative[:, -1])[:, None]).sum(1)
        paid = r[row, arm]
        R[row, arm] += paid
        for part, value in ((0, paid), (1, 1.0)):
            own[part, row, j, arm] += value
            pooled[part, row, arm] += value
    return R


def ratings(name: str) -> dict:
    """Optimum over utility in the order of time and in random orders."""
    alpha, seeds = CONFIGURATION["ratings_alpha"], CONFIGURATION["seeds"]
    stream, feedback = movielens_stream(load_ratings()), RATED[name]
    best = offline_optimum_of(stream, alpha).utility
    rng = generator("ratings", name)

    def ratio(data, child):
        policy = named(name.split(",")[0], data, alpha, feedback)
        return best / alpha_fair_utility(played(policy, data, child), alpha)

    times = rng.spawn(seeds if feedback == "bandit" else 1)
    orders = generator("orders").spawn(seeds)
    if name == "frank_wolfe, bandit":
        policy, T = FrankWolfeBandit(stream.n_arms, alpha), stream.n_rounds
        in_time = np.tile(np.arange(T), (seeds, 1))
        mixed = np.array([order.permutation(T) for order in orders])  # as `shuffled`
        kinds = {"time": (in_time, times), "shuffled": (mixed, rng.spawn(seeds))}
        rewards = {
            kind: frank_wolfe_bandits(policy, stream, *given)
            for kind, given in kinds.items()
        }
        return plain(
            {k: best / alpha_fair_utility(R, alpha) for k, R in rewards.items()}
        )
    return plain(
        {
            "time": [ratio(stream, child) for child in times],
            "shuffled": [
                ratio(shuffled(stream, rng=order), child)
                for order, child in zip(orders, rng.spawn(seeds))
            ],
        }
    )


def pieces():
    """The place of every piece and the function that makes it."""
    for name in ("phases", "urn"):
        yield ("parts", "regimes", name), partial(regime, name)
    for name in RATED:
        yield ("parts", "movielens", name), partial(ratings, name)
    groups = range(CONFIGURATION["seeds"] // CONFIGURATION["group"])
    for last, group in product((10**6, 10**7), groups):
        for feedback, alpha in product(("full", "bandit"), CONFIGURATION["alphas"]):
            place = "sweep", str(last), feedback, str(alpha), str(group)
            yield ("parts", *place), partial(sweep, last, feedback, alpha, group)


def main() -> None:
    """Measure and store the table."""
    options = in_pieces(options_of(__doc__, RESULT))
    table = Figures(options.results, CONFIGURATION, "numpy", "numba", device=cpu())
    table.setdefault("parts", {})
    table.fill(pieces(), options, print)


if __name__ == "__main__":
    main()
