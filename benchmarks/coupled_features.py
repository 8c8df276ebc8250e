"""Features in the place of contexts: a ridge learner made fair, on real ratings.

    python benchmarks/coupled_features.py [--results FILE] [--workers 2]

Arms are genres, a round is a rating, contexts are the most active users.  The ridge
learner is not told who the user is; it reads a 1 and, for each genre, the share of the
user's ratings before that had it.  That history knows the genres of every film rated,
where the bandit by users sees the reward of its own arm only, so both the bandit and
the policy with full information stand beside it.  The optimum is that of fixed maps
from users to genres.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import numpy as np
from storing import Table, cpu, in_pieces, made_once, options_of

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
DRAWN = ("ridge on histories", "scale-free by user")


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


def material() -> tuple:
    """Stream, histories, and the certified optimum; once in each process."""
    stream = movielens_stream(load_ratings()).first(CONFIGURATION["rounds"])
    sums = reward_sums(stream.contexts, stream.rewards, stream.n_contexts)
    return stream, histories(stream), solve_offline(sums, CONFIGURATION["alpha"])


def played(name: str) -> dict:
    """Optimum over utility of one policy, with its 95 % interval over runs."""
    (stream, features, best), c = made_once(material), CONFIGURATION
    rngs = np.random.default_rng(c["seed"]).spawn(2 * c["runs"])
    if name in DRAWN:
        i = DRAWN.index(name)
        rngs = rngs[i * c["runs"] : (i + 1) * c["runs"]]
        play = [partial(by_features, stream, features), partial(by_users, stream)][i]
        rewards = np.array([play(rng) for rng in rngs])
    else:
        policy = Uniform(stream.n_arms)
        if name != "uniform":
            policy = AlphaFairGradient(stream.n_arms, c["alpha"])
        run_fast(policy, stream, n_points=1)
        rewards = policy.rewards
    ratio = best.utility / alpha_fair_utility(rewards, c["alpha"])
    mean, half = mean_interval(ratio) if name in DRAWN else (ratio, 0.0)
    return {"ratio": float(mean), "half": float(half)}


def optimum() -> float:
    return float(made_once(material)[2].utility)


def main() -> None:
    """Measure what the table lacks."""
    options = in_pieces(options_of(__doc__, RESULT))
    table = Table(options.results, CONFIGURATION, "numpy", "numba", device=cpu())
    names = [*DRAWN, "full information by user", "uniform"]
    pieces = [(("optimum",), optimum)]
    pieces += [(("policies", name), partial(played, name)) for name in names]
    table.fill(pieces, options, partial(print, flush=True))


if __name__ == "__main__":
    main()
