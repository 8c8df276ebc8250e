"""Features in the place of contexts: a ridge learner made fair, on real ratings.

    python benchmarks/coupled_features.py [--results FILE]

Arms are genres, a round is a rating, contexts are the most active users.  The ridge
learner is not told who the user is; it reads a 1 and, for each genre, the share of the
user's ratings before that had it.  That history knows the genres of every film rated,
where the bandit by users sees the reward of its own arm only, so both the bandit and
the policy with full information stand beside it.  The optimum is that of fixed maps
from users to genres.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import numpy as np
from storing import Table, cpu, options_of

from prunefair.fairness.bandit_feedback import ScaleFreeBandit, mean_interval
from prunefair.fairness.coupled import RidgeLearner, coupled
from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.ratings import load_ratings, movielens_stream
from prunefair.fairness.uniform import Uniform
from prunefair.fairness.utility import alpha_fair_utility

RESULT = Path(__file__).parents[1] / "book" / "results" / "coupled_features.json"
CONFIGURATION = {
    "rounds": 53_372,
    "alpha": 0.9,
    "runs": 20,
    "width": 0.5,
    "explore": 0.05,
    "seed": 7,
}


def histories(stream) -> np.ndarray:
    """A 1 and the share of each genre among the user's ratings before, (T, 1 + N)."""
    sums = np.zeros((stream.n_contexts, stream.n_arms))
    counts = np.zeros(stream.n_contexts)
    features = np.ones((stream.n_rounds, 1 + stream.n_arms))
    for t, user in enumerate(stream.contexts):
        features[t, 1:] = sums[user] / max(counts[user], 1)
        sums[user] += stream.rewards[t] == 1
        counts[user] += 1
    return features


def by_features(stream, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cumulative rewards of the ridge learner made fair, shape (N,)."""
    sizes = {"n_arms": stream.n_arms, "n_features": features.shape[1]}
    options = {k: CONFIGURATION[k] for k in ("width", "explore")}
    learner = RidgeLearner(**sizes, **options)
    policy = coupled(learner, stream.n_arms, CONFIGURATION["alpha"])
    for x, rewards in zip(features, stream.rewards):
        arm, probability = policy.draw(x, rng)
        policy.update(x, arm, float(rewards[arm]), probability=probability)
    return policy.rewards


def by_users(stream, rng: np.random.Generator) -> np.ndarray:
    """Cumulative rewards of the book's bandit, shape (N,)."""
    policy = ScaleFreeBandit(stream.n_arms, CONFIGURATION["alpha"])
    run_fast(policy, stream, rng=rng, n_points=1)
    return policy.rewards


def measure() -> dict:
    """Optimum over utility of each, with 95 % intervals over runs."""
    stream = movielens_stream(load_ratings()).first(CONFIGURATION["rounds"])
    alpha, features = CONFIGURATION["alpha"], histories(stream)
    best = solve_offline(
        reward_sums(stream.contexts, stream.rewards, stream.n_contexts), alpha
    )
    seeds = np.random.default_rng(CONFIGURATION["seed"])
    found = {}
    for name, play in (
        ("ridge on histories", lambda rng: by_features(stream, features, rng)),
        ("scale-free by user", lambda rng: by_users(stream, rng)),
    ):
        rewards = [play(rng) for rng in seeds.spawn(CONFIGURATION["runs"])]
        ratio = best.utility / alpha_fair_utility(np.array(rewards), alpha)
        mean, half = mean_interval(ratio)
        found[name] = {"ratio": float(mean), "half": float(half)}
        print(name, found[name], flush=True)
    for name, policy in (
        ("full information by user", AlphaFairGradient(stream.n_arms, alpha)),
        ("uniform", Uniform(stream.n_arms)),
    ):
        run_fast(policy, stream, n_points=1)
        ratio = best.utility / alpha_fair_utility(policy.rewards, alpha)
        found[name] = {"ratio": float(ratio), "half": 0.0}
        print(name, found[name], flush=True)
    return {"optimum": float(best.utility), "policies": found}


def main() -> None:
    """Measure and store the table."""
    options = options_of(__doc__, RESULT).parse_args()
    table = Table(options.results, CONFIGURATION, "numpy", "numba", device=cpu())
    table.replace(measure())


if __name__ == "__main__":
    main()
