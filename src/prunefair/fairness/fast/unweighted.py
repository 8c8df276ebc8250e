"""Bandit policies without weights in games that are too long to record, compiled."""

from __future__ import annotations

import numpy as np

from prunefair.fairness.bandit_feedback import AuditedRun, LogBarrierBandit
from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.offline_optimum import largest_sum, reward_sums
from prunefair.fairness.policy import check_generator
from prunefair.fairness.simulation import RewardStream


def _unweighted(n_arms: int, n_rounds: int, slate: int) -> LogBarrierBandit:
    """A new policy at alpha 0, for slates if they hold more than one arm."""
    if slate == 1:
        return LogBarrierBandit(n_arms, 0.0, horizon=n_rounds)
    from prunefair.fairness.slate_policy import SlateBandit

    return SlateBandit(n_arms, 0.0, slate, horizon=n_rounds)


def unweighted_run(
    rewards: np.ndarray, *, rng: np.random.Generator, slate: int = 1
) -> tuple[LogBarrierBandit, AuditedRun]:
    """The log-barrier policy at alpha 0 in one context, compiled, with its books.

    Parameters
    ----------
    rewards : ndarray, shape (T, N), float64
        Each 0 or 1.
    rng : numpy.random.Generator
        Draws the arms.
    slate : int
        Number of arms chosen in each round.

    Returns
    -------
    policy : LogBarrierBandit, or SlateBandit
        After the run.
    run : AuditedRun
    """
    n_rounds, n_arms = rewards.shape
    none = np.zeros(n_rounds, dtype=np.int64)
    policy = _unweighted(n_arms, n_rounds, slate)
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
    slate: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """The log-barrier policy at alpha 0 where one arm is better by what is barely told.

    Rewards are 0 or 1 and contexts are drawn at random; the best arm's mean exceeds the
    common mean of the others by three times the root of `mean` N M / T; of a slate, as
    many arms' means as it holds.

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
    slate : int
        Number of arms chosen in each round.

    Returns
    -------
    regrets, utilities : ndarray, shape (n_runs,), float64
        Against the best map, and of the policy; reward units.
    """
    chance = np.full(n_arms, mean)
    chance[:slate] += 3 * (mean * n_arms * n_contexts / n_rounds) ** 0.5
    results = []
    for child in check_generator(rng).spawn(n_runs):
        rewards = (child.random((n_rounds, n_arms)) < chance).astype(np.float64)
        contexts = child.integers(n_contexts, size=n_rounds)
        stream = RewardStream(contexts=contexts, rewards=rewards, n_contexts=n_contexts)
        policy = _unweighted(n_arms, n_rounds, slate)
        run_fast(policy, stream, rng=child, n_points=1)
        sums = reward_sums(contexts, rewards, n_contexts)
        best = n_arms + largest_sum(sums, slate).sum()
        utility = policy.rewards.sum()
        results.append((best - utility, utility))
    regrets, utilities = np.array(results).T
    return regrets, utilities
