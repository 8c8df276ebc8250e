"""The coupled policy in games that are too long to record, in compiled code.

`norms_over_time` plays a stream, `probe_norms` the probe, for millions of rounds in
about a second.
"""

from __future__ import annotations

import numpy as np

from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.full_information import AlphaFairGradient
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
    from prunefair.fairness.fast.kernels import compiled_kernel

    norms, regrets = np.empty((2, n_rounds))
    compiled_kernel(_probe_rounds)(float(alpha), norms, regrets)
    return norms, regrets
