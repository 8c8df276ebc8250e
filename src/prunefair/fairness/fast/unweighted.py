"""A bandit policy without weights in games that are too long to record, compiled."""

from __future__ import annotations

import numpy as np

from prunefair.fairness.bandit_feedback import AuditedRun, LogBarrierBandit
from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.offline_optimum import reward_sums
from prunefair.fairness.policy import check_generator
from prunefair.fairness.simulation import RewardStream


def unweighted_run(
    rewards: np.ndarray, *, rng: np.random.Generator
) -> tuple[LogBarrierBandit, AuditedRun]:
    """The log-barrier policy at alpha 0 in one context, compiled, with its books.

    Parameters
    ----------
    rewards : ndarray, shape (T, N), float64
        Each 0 or 1.
    rng : numpy.random.Generator
        Draws the arms.

    Returns
    -------
    policy : LogBarrierBandit
        After the run.
    run : AuditedRun
    """
    n_rounds, n_arms = rewards.shape
    none = np.zeros(n_rounds, dtype=np.int64)
    policy = LogBarrierBandit(n_arms, 0.0, horizon=n_rounds)
    stream = RewardStream(contexts=none, rewards=rewards, n_contexts=1)
    run_fast(policy, stream, rng=rng, n_points=1)
    earned, sums = np.array([policy.rewards.sum() - n_arms]), rewards.sum(0)
    losses = np.full((1, 2), sums.sum())
    return policy, AuditedRun(policy.rewards, sums[None], earned, earned, losses)


def gap_runs(
    n_rounds: int,
    n_contexts: int,
    n_arms: int,
    n_runs: int,
    *,
    mean: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """The log-barrier policy at alpha 0 where one arm is better by what is barely told.

    Rewards are 0 or 1 and contexts are drawn at random; the best arm's mean exceeds the
    common mean of the others by three times the root of `mean` N M / T.

    Parameters
    ----------
    n_rounds, n_contexts, n_arms : int
        $T$, $M$ and $N$.
    n_runs : int
        Number of compiled runs, each on a stream of its own.
    mean : float
        Mean reward of the other arms.
    rng : numpy.random.Generator
        Its children draw streams and arms.

    Returns
    -------
    regrets, utilities : ndarray, shape (n_runs,), float64
        Against the best map, and of the policy; reward units.
    """
    chance = np.full(n_arms, mean)
    chance[0] += 3 * (mean * n_arms * n_contexts / n_rounds) ** 0.5
    results = []
    for child in check_generator(rng).spawn(n_runs):
        rewards = (child.random((n_rounds, n_arms)) < chance).astype(np.float64)
        contexts = child.integers(n_contexts, size=n_rounds)
        stream = RewardStream(contexts=contexts, rewards=rewards, n_contexts=n_contexts)
        policy = LogBarrierBandit(n_arms, 0.0, horizon=n_rounds)
        run_fast(policy, stream, rng=child, n_points=1)
        best = n_arms + reward_sums(contexts, rewards, n_contexts).max(1).sum()
        utility = policy.rewards.sum()
        results.append((best - utility, utility))
    regrets, utilities = np.array(results).T
    return regrets, utilities
