"""Quantiles of the regret of bandit policies over 1000 seeds, beside the bound.

    python benchmarks/high_probability.py

writes `book/results/high_probability.json` and prints it as a table: four policies and
uniform play on streams that are fixed in advance and against adversaries that see every
draw.  All seeds are played in step, as arrays whose first axis is the seed; a test
compares every policy here with its class.

Not in pieces: all seeds of a game are one vectorised run of a few seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import numpy as np
from storing import Table, cpu, options_of

from prunefair.fairness.full_information import approximation_factor
from prunefair.fairness.high_probability import earnings_bound
from prunefair.fairness.offline_optimum import solve_offline
from prunefair.fairness.utility import alpha_fair_utility

RESULT = Path(__file__).parents[1] / "book" / "results" / "high_probability.json"
CONFIGURATION = {
    "n_contexts": 2,
    "n_arms": 4,
    "rounds": 2000,
    "runs": 1000,
    "alphas": [0.0, 0.5],
    "levels": [0.5, 0.99, 0.999],
    "risk": 0.001,
    "seed": 31,
}


# --- policies: play(j, t, scales) and learn(j, t, arm, g, p), of all runs ------------


def barrier_points(v):
    """`log_barrier_step` of every row of `v`, shape (runs, N)."""
    w = v - v.min(1, keepdims=True)
    lam, n = np.ones((len(v), 1)), v.shape[1]
    for _ in range(100):
        p = 1 / (w + lam)
        total = p.sum(1, keepdims=True)
        step = total * (total - 1) / (p * p).sum(1, keepdims=True)
        if (abs(step) <= 4e-16 * n * lam).all():
            return p / total
        lam = np.clip(lam + step, 1.0, n)
    raise RuntimeError("Newton's method needs more steps")


class Barrier:
    """The log-barrier policy, or the scale-free one, in `runs` runs."""

    def __init__(self, sizes, alpha, horizon, runs, *, scale_free=False):
        m, n = sizes
        self.row, self.n, self.free = np.arange(runs), n, scale_free
        self.room = float(n) if scale_free else n * np.log(horizon)
        self.start = 1.0 if scale_free else 2 * self.room
        self.points = np.full((runs, m, n), 1 / n)
        self.sums = np.zeros((runs, m, n))
        self.penalties, self.explored = np.zeros((2, runs, m))
        self.scales = np.zeros((runs, m))

    def play(self, j, t, scales):
        """Distributions of all runs, shape (runs, N); `scales`: largest weights."""
        p = self.points[self.row, j]
        if self.free:
            gamma = self.n / (2 * self.n + self.explored[self.row, j])[:, None]
            return (1 - gamma) * p + gamma / self.n
        new = self.scales[self.row, j] == 0
        self.scales[self.row, j] = np.where(new, scales, self.scales[self.row, j])
        return p

    def learn(self, j, t, arm, g, probability):
        """Learn from the gain `g` of `arm`, all of shape (runs,)."""
        at = self.row, j
        p, estimate = self.points[at], -g / probability
        start = self.start * (1.0 if self.free else self.scales[at])
        eta = self.room / (start + self.penalties[at])
        v = 1 / p
        v[self.row, arm] += eta * estimate
        q = barrier_points(v)
        d = q / p - 1
        move = (p - q)[self.row, arm] * estimate
        cost = move - (d - np.log1p(d)).sum(1) / eta
        self.penalties[at] += np.maximum(cost, 0)
        self.sums[self.row, j, arm] += estimate
        rate = self.room / (start + self.penalties[at])
        self.points[at] = barrier_points(rate[:, None] * self.sums[at])
        gamma = self.n / (2 * self.n + self.explored[at])
        self.explored[at] += gamma * abs(estimate)


class Optimistic:
    """The optimistic policy."""

    def __init__(self, sizes, alpha, horizon, runs):
        m, n = sizes
        self.row, self.n = np.arange(runs), n
        times = np.arange(1, horizon + 1)
        room = 2 * m * np.log(n)
        self.rates = np.minimum(
            1 / (2 * n), (room / (n * earnings_bound(times, alpha, n_arms=n))) ** 0.5
        )
        self.sums, self.spent = np.zeros((runs, m, n)), np.zeros(runs)

    def play(self, j, t, scales):
        """Distributions of all runs, shape (runs, N)."""
        eta = self.rates[t]
        scores = eta * self.sums[self.row, j]
        w = np.exp(scores - scores.max(1, keepdims=True))
        return (1 - self.n * eta) * w / w.sum(1, keepdims=True) + eta

    def learn(self, j, t, arm, g, probability):
        """Learn from the gain `g` of `arm`, all of shape (runs,)."""
        eta = self.rates[t]
        self.spent += self.n * eta / (1 - self.n * eta) * g
        estimate = -np.log1p(np.expm1(-eta * g) / probability) / eta
        self.sums[self.row, j, arm] += estimate


class UniformPlay:
    """Every arm with the same probability."""

    def __init__(self, sizes, alpha, horizon, runs):
        self.p = np.full((runs, sizes[1]), 1 / sizes[1])

    def play(self, j, t, scales):
        """Distributions of all runs, shape (runs, N)."""
        return self.p

    def learn(self, j, t, arm, g, probability):
        """Nothing."""


POLICIES = {
    "optimistic": Optimistic,
    "log_barrier": Barrier,
    "scale_free": partial(Barrier, scale_free=True),
    "uniform": UniformPlay,
}


# --- adversaries: (t, R, last, p) -> contexts (runs,), rewards (runs, N) -------------


def gap(sizes, horizon, runs, *, rng) -> Callable:
    """Fixed in advance: one arm a context better by what T rounds can just tell."""
    (m, n), mean = sizes, 0.5
    chance = np.full((m, n), mean)
    chance[np.arange(m), np.arange(m) % n] += 1.5 * (mean * n * m / horizon) ** 0.5
    contexts = rng.integers(m, size=horizon)
    rewards = (rng.random((horizon, n)) < chance[contexts]).astype(float)

    def fixed(t, R, last, p):
        """Context and rewards of round `t` for all runs."""
        return np.full(runs, contexts[t]), np.broadcast_to(rewards[t], (runs, n))

    return fixed


def rare(sizes, horizon, runs, *, rng) -> Callable:
    """Fixed in advance: contexts in turn; one arm of each pays, for half the time."""
    m, n = sizes
    arms = np.eye(n)

    def fixed(t, R, last, p):
        """Context and rewards of round `t` for all runs."""
        j = t % m
        arm = (j + (2 * t >= horizon)) % n
        return np.full(runs, j), np.broadcast_to(arms[arm], (runs, n))

    return fixed


def not_again(sizes, horizon, runs, *, rng) -> Callable:
    """Sees draws: the arm just drawn pays nothing, the others in half the rounds."""
    m, n = sizes
    coins = rng.random((horizon, n)) < 0.5

    def adapted(t, R, last, p):
        """Context and rewards of round `t` for all runs."""
        rewards = np.where(np.arange(n) == last[:, None], 0.0, coins[t])
        return np.full(runs, t % m), rewards

    return adapted


def neglected(sizes, horizon, runs, *, rng) -> Callable:
    """Sees draws: only the arm that is played least in its context pays."""
    m, n = sizes

    def adapted(t, R, last, p):
        """Context and rewards of round `t` for all runs."""
        return np.full(runs, t % m), np.eye(n)[
            p(np.full(runs, t % m)).round(9).argmin(1)
        ]

    return adapted


ADVERSARIES = {
    "gap": gap,
    "rare": rare,
    "not again": not_again,
    "neglected": neglected,
}


def played(policy, adversary, sizes, alpha, horizon, runs, *, rng) -> dict:
    """Rewards, sums by context and gains of all runs, and what was learnt from."""
    (m, n), row = sizes, np.arange(runs)
    R, last = np.ones((runs, n)), np.zeros(runs, int)
    sums, gains = np.zeros((2, runs, m, n))
    earned = np.zeros(runs)
    for t in range(horizon):
        w = R**-alpha
        largest = w.max(1)
        asked = partial(policy.play, t=t, scales=largest)
        j, r = adversary(t, R, last, asked)
        p = asked(j)
        cumulative = np.cumsum(p, axis=1)
        draw = rng.random(runs) * cumulative[:, -1]
        last = np.minimum((cumulative <= draw[:, None]).sum(1), n - 1)
        g = w * r
        sums[row, j] += r
        gains[row, j] += g
        got = g[row, last]
        earned += got
        policy.learn(j, t, last, got, p[row, last])
        R[row, last] += r[row, last]
    return {"R": R, "sums": sums, "gains": gains, "earned": earned}


def judged(policy, out, sizes, alpha, horizon) -> dict:
    """Quantiles of the regrets of all runs, and the bound where there is one."""
    (m, n), levels = sizes, CONFIGURATION["levels"]
    regret = out["gains"].max(2).sum(1) - out["earned"]
    row = {"regret": np.quantile(regret, levels).round(3).tolist()}
    U = alpha_fair_utility(out["R"], alpha)
    same = (out["sums"] == out["sums"][0]).all()
    best = [solve_offline(G, alpha).utility for G in out["sums"][: 1 if same else None]]
    fair = np.array(best) - approximation_factor(alpha) * U
    allowed = (1 - alpha) ** alpha * (regret - n * alpha / (1 - alpha))
    assert (fair <= allowed + 1e-6 * U).all()
    row["factor_regret"] = np.quantile(fair, levels).round(3).tolist()
    if isinstance(policy, Optimistic):
        room = 2 * m * np.log(n) - np.log(CONFIGURATION["risk"])
        bound = room / policy.rates[-1] + policy.spent
        row["bound"] = round(float(bound.mean()), 3)
        row["above"] = int((regret > bound).sum())
    return row


def measure() -> list[dict]:
    """Every policy in every game, for every alpha."""
    sizes = CONFIGURATION["n_contexts"], CONFIGURATION["n_arms"]
    horizon, runs = CONFIGURATION["rounds"], CONFIGURATION["runs"]
    games = []
    for alpha in CONFIGURATION["alphas"]:
        for name, make in ADVERSARIES.items():
            rows = {}
            for kind, build in POLICIES.items():
                seeds = np.random.default_rng(CONFIGURATION["seed"]).spawn(2)
                adversary = make(sizes, horizon, runs, rng=seeds[0])
                policy = build(sizes, alpha, horizon, runs)
                out = played(
                    policy, adversary, sizes, alpha, horizon, runs, rng=seeds[1]
                )
                rows[kind] = judged(policy, out, sizes, alpha, horizon)
                print(alpha, name, kind, rows[kind], flush=True)
            games.append({"alpha": alpha, "adversary": name, "policies": rows})
    return games


def main() -> None:
    """Measure and store the table."""
    options = options_of(__doc__, RESULT).parse_args()
    table = Table(options.results, CONFIGURATION, "numpy", "scipy", device=cpu())
    table.replace({"games": measure()})


if __name__ == "__main__":
    main()
