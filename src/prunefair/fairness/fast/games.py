"""Games that are too long to record, followed in compiled code.

`norms_over_time` plays a stream, `probe_norms` the probe, for millions of rounds in
about a second; `unweighted_run` and `gap_runs` do the same for a bandit policy without
weights.
"""

from __future__ import annotations

import numpy as np

from prunefair.fairness.bandit_feedback import AuditedRun, LogBarrierBandit
from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.offline_optimum import reward_sums
from prunefair.fairness.policy import check_generator
from prunefair.fairness.simulation import RewardStream


def norms_over_time(
    stream: RewardStream, alpha: float, rounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""The coupled policy's rewards and squared norms, in compiled code.

    Parameters
    ----------
    stream : RewardStream
        At least as long as the last of `rounds`.
    alpha : float
        Fairness parameter of the policy.
    rounds : ndarray, shape (C,), int64
        Increasing numbers of rounds.

    Returns
    -------
    rewards : ndarray, shape (C, N), float64
        Cumulative rewards $R$, reward units.
    norms : ndarray, shape (C,), float64
        $S = \sum_j S_j$, squared surrogate units.
    """
    policy, found, norms, start = AlphaFairGradient(stream.n_arms, alpha), [], [], 0
    for stop in rounds:
        contexts, rewards = stream.contexts[start:stop], stream.rewards[start:stop]
        part = RewardStream(
            contexts=contexts, rewards=rewards, n_contexts=stream.n_contexts
        )
        run_fast(policy, part, n_points=1)
        found.append(policy.rewards.copy())
        norms.append(policy.squared_norms.sum())
        start = stop
    return np.array(found), np.array(norms)


def _probe_rounds(alpha, norms, regrets):
    """`AlphaFairGradient(2, alpha)` against the probe, for `norms.size` rounds."""
    x, R0, R1, total, lost = 0.5, 1.0, 1.0, 0.0, 0.0  # x is the probability of arm 1
    for t in range(norms.size):
        if x < 1e-9:
            g = R1**-alpha
            R1 += x
            step = g
            lost -= g * x
        else:
            g = R0**-alpha
            R0 += 1 - x
            step = -g
            lost += g * x
        total += g * g
        x = min(max(x + step / (2 * total**0.5), 0.0), 1.0)
        norms[t], regrets[t] = total, lost


def probe_norms(n_rounds: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    r"""The coupled policy with two arms against the probe, in compiled code.

    Parameters
    ----------
    n_rounds : int
        Number of rounds $T$.
    alpha : float
        Fairness parameter of the policy.

    Returns
    -------
    norms : ndarray, shape (T,), float64
        $S_t$ after each round, squared surrogate units.
    regrets : ndarray, shape (T,), float64
        Linear regret against arm 0 after each round, surrogate units.
    """
    from prunefair.fairness.fast.kernels import compiled

    norms, regrets = np.empty((2, n_rounds))
    compiled(_probe_rounds)(float(alpha), norms, regrets)
    return norms, regrets


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
