"""CPU time of a call of every policy, beside the chapters' steps and mabwiser's.

    python benchmarks/policy_calls.py [--results FILE] [--only ROWS]

One process and one thread, 40 arms and 20 contexts.  A policy is asked and told in
turn, in blocks, of which the fastest counts: other load on the machine makes a block
slower, never faster.  "numpy step" is the same bandit with the step of its chapter,
which the compiled one replaced.  Bandits are told with which probability an arm was
drawn.  With full information "update" is told nothing and asks for the play itself, and
"told" is given what was played, as a service gives it: FairCB solves a problem for its
play in every round.  mabwiser is measured where it is installed, without contexts: it
keeps no policy for each.

Not in pieces: what is measured is time, which workers would lengthen.
"""

from __future__ import annotations

import importlib.util
import os
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import numpy as np
from storing import Table, cpu, options_of

from prunefair.fairness.bandit_feedback import (
    LogBarrierBandit,
    ScaleFreeBandit,
    log_barrier_update,
    scale_free_step,
)
from prunefair.fairness.baselines import POLICIES, make_policy
from prunefair.fairness.full_information import surrogate_weights

RESULT = Path(__file__).parents[1] / "book" / "results" / "policy_calls.json"
CONFIGURATION = {
    "arms": 40,
    "contexts": 20,
    "alpha": 0.5,
    "horizon": 100_000,
    "blocks": 120,
    "calls": 100,
    "seed": 5,
}


class NumpyScaleFree(ScaleFreeBandit):
    """The bandit with the step of its chapter."""

    def step(self, context, arm: int, reward: float, probability: float) -> None:
        loss = -reward * surrogate_weights(self.rewards, self.alpha)[arm]
        state = self.learner(context)
        self.learners[context] = scale_free_step(state, arm, loss, probability)


class NumpyLogBarrier(LogBarrierBandit):
    """The bandit with the step of its chapter."""

    def step(self, context, arm: int, reward: float, probability: float) -> None:
        loss = -reward * surrogate_weights(self.rewards, self.alpha)[arm]
        state, room = self.learner(context), (self.barrier, self.cap)
        self.learners[context] = log_barrier_update(
            state, arm, loss, *room, probability
        )


def per_call(calls: list) -> float:
    """CPU microseconds of a call, of some in a row."""
    start = time.process_time_ns()
    for call in calls:
        call()
    return (time.process_time_ns() - start) / 1e3 / len(calls)


def paid(draw: dict, rng: np.random.Generator) -> dict:
    """Rewards of what was drawn, an arm or a slate, as `update` takes them."""
    if "arms" in draw:
        return {"rewards": rng.random(len(draw["arms"])).tolist()}
    return {"reward": rng.random()}


def row(policy, rng: np.random.Generator) -> dict:
    """Microseconds of a prediction and of an update, the fastest blocks."""
    n, best = CONFIGURATION["calls"], {}
    for _ in range(CONFIGURATION["blocks"]):
        contexts = rng.integers(CONFIGURATION["contexts"], size=n).tolist()
        if policy.feedback == "bandit":
            drawn = [policy.draw(j, rng)._asdict() for j in contexts]
            feed = [
                partial(policy.update, j, **draw, **paid(draw, rng))
                for j, draw in zip(contexts, drawn)
            ]
        else:
            rewards = rng.random((n, policy.n_arms))
            feed = [partial(policy.update, j, r) for j, r in zip(contexts, rewards)]
        ask = [partial(policy.probabilities, j) for j in contexts]
        found = {"predict": per_call(ask), "update": per_call(feed)}
        if policy.feedback == "full":
            told = [partial(f, played=policy.probabilities(*f.args[:1])) for f in feed]
            found["told"] = per_call(told)
        best = {k: min(v, best.get(k, v)) for k, v in found.items()}
    return best


def theirs(rng: np.random.Generator) -> dict:
    """The same of mabwiser, for policies without features."""
    from mabwiser.mab import MAB, LearningPolicy

    kinds = {
        "epsilon greedy": LearningPolicy.EpsilonGreedy(0.1),
        "Thompson sampling": LearningPolicy.ThompsonSampling(),
        "UCB1": LearningPolicy.UCB1(),
    }
    rows, n = {}, CONFIGURATION["calls"]
    for name, kind in kinds.items():
        mab = MAB(list(range(CONFIGURATION["arms"])), kind)
        mab.fit(
            rng.integers(CONFIGURATION["arms"], size=400), rng.integers(2, size=400)
        )
        best = {}
        for _ in range(20):
            pulls = [mab.predict() for _ in range(n)]
            feed = [
                partial(mab.partial_fit, [arm], [int(paid)])
                for arm, paid in zip(pulls, rng.integers(2, size=n))
            ]
            found = {"predict": per_call([mab.predict] * n), "update": per_call(feed)}
            best = {k: min(v, best.get(k, v)) for k, v in found.items()}
        rows[name] = best
    return rows


def builders() -> dict:
    """What makes the policy of each row."""
    sizes = {k: CONFIGURATION[k] for k in ("alpha", "horizon")}
    sizes |= {"n_arms": CONFIGURATION["arms"], "n_contexts": CONFIGURATION["contexts"]}
    named = [
        (f"{name}, {feedback}", partial(make_policy, name, feedback=feedback, **sizes))
        for feedback, names in POLICIES.items()
        for name in names
    ]
    slates = partial(make_policy, "slates", slate=4, **sizes)
    named += [(f"slates of 4, {f}", partial(slates, feedback=f)) for f in POLICIES]
    n, alpha, horizon = sizes["n_arms"], sizes["alpha"], sizes["horizon"]
    return dict(named) | {
        "scale_free, numpy step": partial(NumpyScaleFree, n, alpha),
        "log_barrier, numpy step": partial(NumpyLogBarrier, n, alpha, horizon=horizon),
    }


def measure(only: str) -> dict:
    """The rows whose name begins so."""
    rows = {}
    for name, build in builders().items():
        if name.startswith(only):
            rng = np.random.default_rng(CONFIGURATION["seed"])
            rows[name] = row(build(), rng)
            print(name, {k: round(v, 1) for k, v in rows[name].items()}, flush=True)
    return rows


def main() -> None:
    """Measure and store the table."""
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--only", default="", help="rows whose name begins so")
    options = parser.parse_args()
    there = importlib.util.find_spec("mabwiser") is not None
    names = ("numpy", "numba", *["mabwiser"] * there)
    table = Table(options.results, CONFIGURATION, *names, device=cpu())
    rows = table.get("microseconds", {}) | measure(options.only)
    known = table.get("mabwiser")
    found = theirs(np.random.default_rng(0)) if there and not options.only else known
    table.replace({"microseconds": rows, "mabwiser": found})


if __name__ == "__main__":
    main()
