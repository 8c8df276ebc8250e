"""Late copies of the shared rewards, a million contexts, and many runs in step.

    python benchmarks/scale.py [--minutes 30] [--only sweep]

writes `book/results/scale.json` in pieces: the optimum over the utility against
lateness, the losses on the streams of the lower bound, the memory of a million
contexts, fairness with too little room, and rounds a second of the engines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import numpy as np
from storing import Table, cpu, in_pieces, options_of

from prunefair.fairness.bandit_feedback import (
    bernoulli_stream,
    mean_interval,
    nested_stream,
)
from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.full_information import AlphaFairGradient, approximation_factor
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.online_gradient import regret_factor
from prunefair.fairness.scale import (
    bucket_of,
    group_stream,
    late_cost,
    late_floor,
    late_shift,
    late_state_bound,
    lives_of,
    play_late,
)
from prunefair.fairness.simulation import RewardStream, simulate
from prunefair.fairness.utility import alpha_fair_utility

RESULT = Path(__file__).parents[1] / "book" / "results" / "scale.json"
CONFIGURATION = {
    "sweep": {
        "rounds": 20_000,
        "n_arms": 5,
        "n_contexts": [1, 10, 100],
        "alphas": [0.3, 0.5, 0.7, 0.9],
        "late": [0, 10, 100, 1000, 10_000],
        "streams": 20,
    },
    "groups": {
        "n_arms": 16,
        "size": 8,
        "pay": 0.7,
        "alphas": [0.3, 0.5, 0.7, 0.9],
        "late": [30, 100, 300, 1000, 3000, 10_000],
    },
    "memory": {"contexts": 1_000_000, "n_arms": 8, "limit": 10_000, "buckets": 16_384},
    "room": {
        "rounds": 100_000,
        "n_contexts": 10_000,
        "n_arms": 8,
        "kinds": 20,
        "alpha": 0.5,
        "rooms": [1000, 100],
        "streams": 5,
    },
    "engine": {"rounds": 2000, "n_contexts": 10, "n_arms": 5, "streams": 20},
    "seed": 19,
}


def interval(values) -> list[float]:
    """Mean and half of the 95 % interval, as stored."""
    return [round(float(x), 5) for x in mean_interval(np.asarray(values))]


# --- lateness ---------------------------------------------------------------------


def sweep_streams(kind: str) -> list[RewardStream]:
    """The streams of one kind, the same for every alpha and lateness."""
    s = CONFIGURATION["sweep"]
    make = {"nested sets": partial(nested_stream, s["rounds"], s["n_arms"])}
    make |= {
        f"chance, M = {m}": partial(bernoulli_stream, s["rounds"], m, s["n_arms"])
        for m in s["n_contexts"]
    }
    rngs = np.random.default_rng(CONFIGURATION["seed"]).spawn(s["streams"])
    return [make[kind](rng=rng) for rng in rngs]


def late_row(kind: str, alpha: float) -> dict:
    """Optimum over utility against lateness, without and with the shift."""
    streams, row = sweep_streams(kind), {"plain": {}, "shifted": {}}
    sums = [reward_sums(s.contexts, s.rewards, s.n_contexts) for s in streams]
    best = np.array([solve_offline(G, alpha).utility for G in sums])
    n, c = len(streams), approximation_factor(alpha)
    for d in CONFIGURATION["sweep"]["late"]:
        shifts = np.repeat([0.0, late_shift(d, alpha)], n)
        runs = play_late(streams * 2, [alpha] * (2 * n), late=d, shift=shifts)
        U = alpha_fair_utility(runs.rewards, alpha)
        for r, u, b, s in zip(range(2 * n), U, np.tile(best, 2), shifts):
            R, S, D = (field[r] for field in runs[:3])
            assert b - c * u <= late_state_bound(S, R, alpha, missing=D, shift=s)
        for name, part in (("plain", U[:n]), ("shifted", U[n:])):
            row[name][str(d)] = interval(best / part)
    return row


def group_row(alpha: float) -> dict:
    """Loss with late and up-to-date copies, floor and bound, against lateness."""
    g, row = CONFIGURATION["groups"], {}
    for d in g["late"]:
        sizes = g["n_arms"], g["size"], d, g["pay"]
        stream, shift = group_stream(*sizes), late_shift(d, alpha)
        late, at_once = (
            play_late(stream, [alpha], late=lag, shift=shift if lag else 0.0)
            for lag in (d, 0)
        )
        G = reward_sums(stream.contexts, stream.rewards, stream.n_contexts)
        best, c = solve_offline(G, alpha).utility, approximation_factor(alpha)
        lost = [
            best - c * alpha_fair_utility(run.rewards[0], alpha)
            for run in (late, at_once)
        ]
        roots = np.sqrt(late.squared_norms[0]).sum()
        linear = regret_factor(g["n_arms"], nonnegative=True) * roots
        bound = (1 - alpha) ** alpha * linear + late_cost(d, alpha, g["n_arms"])
        values = (*lost, late_floor(*sizes, alpha), bound)
        row[str(d)] = [round(float(v), 3) for v in values]
    return row


# --- room -------------------------------------------------------------------------


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def meet(name: str) -> dict:
    """Memory and time of one policy that meets every context once, in this process."""
    m = CONFIGURATION["memory"]
    policy, rng = AlphaFairGradient(m["n_arms"], 0.5), np.random.default_rng(0)
    if name == "the last 10,000 kept":
        policy.max_contexts = m["limit"]
    rewards = rng.random((1000, m["n_arms"]))
    policy.update("first", rewards[0])
    policy.forget("first")
    before, start = resident(), time.process_time()
    for j in range(m["contexts"]):
        context = bucket_of(j, m["buckets"]) if "buckets" in name else j
        policy.update(context, rewards[j % 1000])
    seconds, used = time.process_time() - start, resident() - before
    return {
        "learners": len(policy.learners),
        "megabytes": round(used / 1e6, 1),
        "bytes_a_learner": round(used / len(policy.learners)),
        "seconds": round(seconds, 1),
    }


def met(name: str) -> dict:
    """`meet` in a process of its own, whose memory nothing else has touched."""
    command = [sys.executable, __file__, "--meet", name]
    return json.loads(subprocess.run(command, check=True, stdout=-1, text=True).stdout)


MEETINGS = ("all kept", "the last 10,000 kept", "16,384 buckets")


def rare_stream(kinds: int, *, rng: np.random.Generator):
    """Contexts whose visits fall like 1 / j, and their kinds; each its own if 0."""
    s = CONFIGURATION["room"]
    M, N = s["n_contexts"], s["n_arms"]
    chance = 1 / np.arange(1, M + 1)
    contexts = rng.choice(M, s["rounds"], p=chance / chance.sum())
    pays = rng.beta(0.5, 1.5, (kinds or M, N))
    kind = rng.integers(kinds, size=M) if kinds else np.arange(M)
    rewards = (rng.random((s["rounds"], N)) < pays[kind][contexts]).astype(float)
    return RewardStream(contexts=contexts, rewards=rewards, n_contexts=M), kind


def with_contexts(stream: RewardStream, contexts: np.ndarray) -> RewardStream:
    """The stream with other contexts."""
    n_contexts = int(contexts.max()) + 1
    return replace(stream, contexts=contexts, n_contexts=n_contexts)


def room_row(name: str) -> dict:
    """Optimum over utility of one policy on both kinds of streams."""
    s, row = CONFIGURATION["room"], {}
    for label, kinds in (("each its own", 0), ("twenty kinds", s["kinds"])):
        found = []
        if name == "a learner a kind" and not kinds:
            continue
        for rng in np.random.default_rng(CONFIGURATION["seed"]).spawn(s["streams"]):
            stream, kind = rare_stream(kinds, rng=rng)
            policy = AlphaFairGradient(s["n_arms"], s["alpha"])
            G = reward_sums(stream.contexts, stream.rewards, stream.n_contexts)
            if name.startswith("limit"):
                lives = lives_of(stream.contexts.tolist(), int(name.split()[1]))
                run_fast(policy, with_contexts(stream, lives))
            elif name == "a learner a kind":
                run_fast(policy, with_contexts(stream, kind[stream.contexts]))
            elif name.startswith("buckets"):
                B = int(name.split()[1])
                buckets = [bucket_of(j, B) for j in range(stream.n_contexts)]
                contexts = np.array(buckets)[stream.contexts]
                run_fast(policy, with_contexts(stream, contexts))
            elif name == "all kept":
                run_fast(policy, stream)
            R = policy.rewards
            if name == "uniform play":
                R = 1 + G.sum(0) / s["n_arms"]
            best = solve_offline(G, s["alpha"]).utility
            found.append(best / alpha_fair_utility(R, s["alpha"]))
        row[label] = interval(found)
    return row


# --- engines ----------------------------------------------------------------------


def engines() -> dict:
    """Rounds a second of every engine on the same runs, in one process."""
    s = CONFIGURATION["engine"]
    sizes = s["rounds"], s["n_contexts"], s["n_arms"]
    rngs = np.random.default_rng(CONFIGURATION["seed"]).spawn(s["streams"])
    streams = [bernoulli_stream(*sizes, rng=rng) for rng in rngs]
    alphas = np.repeat(np.linspace(0.1, 0.8, 8), len(streams))
    pairs = list(zip(alphas, streams * 8))
    found, table = {}, {}

    def one_by_one(play):
        policies = [AlphaFairGradient(s["n_arms"], a) for a, _ in pairs]
        for policy, (_, stream) in zip(policies, pairs):
            play(policy, stream)
        return np.array([policy.rewards for policy in policies])

    run_fast(AlphaFairGradient(s["n_arms"], 0.5), streams[0])  # compiles
    ways = {
        "policies one by one": partial(one_by_one, simulate),
        "compiled, one by one": partial(one_by_one, run_fast),
        "in step, one at a time": lambda: np.array(
            [play_late(stream, [a]).rewards[0] for a, stream in pairs]
        ),
        f"in step, {len(pairs)} at once": lambda: (
            play_late(streams * 8, alphas).rewards
        ),
        f"in step, {len(pairs)} at once, late": lambda: (
            play_late(streams * 8, alphas, late=1000).rewards
        ),
    }
    for name, play in ways.items():
        start = time.process_time()
        found[name] = play()
        seconds = time.process_time() - start
        rate = len(pairs) * s["rounds"] / seconds
        table[name] = {"rounds_a_second": int(round(rate, -2))}
        if "late" not in name:
            np.testing.assert_allclose(
                found[name], found["policies one by one"], rtol=1e-7
            )
    return table


def main() -> None:
    """Measure what the table lacks and store it."""
    if sys.argv[1:2] == ["--meet"]:
        print(json.dumps(meet(sys.argv[2])))
        return
    options = in_pieces(options_of(__doc__, RESULT))
    table = Table(options.results, CONFIGURATION, "numpy", "scipy", device=cpu())
    s, rooms = CONFIGURATION["sweep"], CONFIGURATION["room"]["rooms"]
    kinds = [*(f"chance, M = {m}" for m in s["n_contexts"]), "nested sets"]
    places = ["all kept", *(f"{w} {n}" for w in ("limit", "buckets") for n in rooms)]
    pieces = [
        *(
            (("sweep", f"{kind}, alpha {a}"), partial(late_row, kind, a))
            for kind, a in product(kinds, s["alphas"])
        ),
        *(
            (("groups", f"alpha {a}"), partial(group_row, a))
            for a in CONFIGURATION["groups"]["alphas"]
        ),
        *((("memory", name), partial(met, name)) for name in MEETINGS),
        *((("room", name), partial(room_row, name)) for name in places),
        *(
            (("room", name), partial(room_row, name))
            for name in ("a learner a kind", "uniform play")
        ),
        (("engine",), engines),
    ]
    table.fill(pieces, options, print)


if __name__ == "__main__":
    main()
