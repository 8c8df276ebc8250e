"""Adversaries for a full-information policy, and the record of a game against one.

Games that are too long to record are followed in compiled code: `norms_over_time` plays
a stream, `probe_norms` the probe, for millions of rounds in about a second;
`unweighted_run` and `gap_runs` do the same for a bandit policy without weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from prunefair.fairness.bandit_feedback import AuditedRun, LogBarrierBandit
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.offline_optimum import reward_sums
from prunefair.fairness.policy import check_generator, check_n_arms
from prunefair.fairness.simulation import RewardStream

Adversary = Callable[[int, AlphaFairGradient], tuple[int, np.ndarray]]


class Game(NamedTuple):
    """Everything that happened in $T$ rounds of a policy against an adversary.

    Parameters
    ----------
    contexts : ndarray, shape (T,), int64
        Contexts $j_t$.
    rewards : ndarray, shape (T, N), float64
        Rewards $r(t)$, reward units.
    points : ndarray, shape (T, N), float64
        What was played, $x(t)$.
    cumulative : ndarray, shape (T + 1, N), float64
        $R(0), ..., R(T)$, reward units.
    n_contexts : int
        $M$.
    alpha : float
        Fairness parameter of the policy.
    weights : str
        Which cumulative rewards weigh a round, `"before"` or `"after"`.
    """

    contexts: np.ndarray
    rewards: np.ndarray
    points: np.ndarray
    cumulative: np.ndarray
    n_contexts: int
    alpha: float
    weights: str = "before"


def play(
    policy: AlphaFairGradient, adversary: Adversary, n_rounds: int, n_contexts: int
) -> Game:
    """Record of `n_rounds` rounds; `adversary(t, policy)` names context and rewards.

    Parameters
    ----------
    policy : AlphaFairGradient
        Changed by the game; the adversary may look at all of it.
    adversary : callable
        Returns the context, below `n_contexts`, and the rewards in [0, 1], shape (N,).
    n_rounds, n_contexts : int
        $T$ and $M$.

    Returns
    -------
    game : Game
    """
    contexts = np.empty(n_rounds, dtype=np.int64)
    rewards = np.empty((n_rounds, policy.n_arms))
    points = np.empty((n_rounds, policy.n_arms))
    cumulative = np.empty((n_rounds + 1, policy.n_arms))
    cumulative[0] = policy.rewards
    for t in range(n_rounds):
        contexts[t], rewards[t] = adversary(t, policy)
        points[t] = policy.probabilities(int(contexts[t]))
        policy.update(int(contexts[t]), rewards[t])
        cumulative[t + 1] = policy.rewards
    alpha, weights = policy.alpha, policy.weights
    return Game(contexts, rewards, points, cumulative, n_contexts, alpha, weights)


def adversaries(
    n_contexts: int,
    n_arms: int,
    n_rounds: int,
    *,
    delta: float = 0.0,
    rng: np.random.Generator,
) -> dict[str, Adversary]:
    """Twelve adversaries by name, from random to spiteful.

    Contexts are drawn at random, but come one after the other in `nested` and in
    `phases`.  Bernoulli, uniform, nested, rotating, phases and ones are oblivious, the
    others look at the policy, rounded to nine decimals so that ties are ties.

    Parameters
    ----------
    n_contexts, n_arms, n_rounds : int
        $M$, $N$ and $T$.
    delta : float
        Every reward is raised to at least this, in [0, 1].
    rng : numpy.random.Generator
        Draws contexts and random rewards.

    Returns
    -------
    suite : dict of callables

    Raises
    ------
    ValueError
        If `delta` is outside [0, 1], `n_arms` is not a positive whole number, or `rng`
        is no generator.
    """
    if not 0 <= delta <= 1:
        raise ValueError(f"delta is {delta!r}; it must lie in [0, 1]")
    arms = np.eye(check_n_arms(n_arms))
    mean = check_generator(rng).random((n_contexts, n_arms))
    order = rng.permutation(n_arms)  # nested sets lose one arm of this order a phase
    length = -(-n_rounds // n_contexts)
    nested = [
        np.isin(np.arange(n_arms), order[j % n_arms :]) for j in range(n_contexts)
    ]

    def drawn(rule: Callable) -> Adversary:
        """Random context; `rule(t, context, x, R)` gives the rewards."""

        def adversary(t, policy):
            j = int(rng.integers(n_contexts))
            x, R = policy.probabilities(j).round(9), policy.rewards.round(9)  # ties
            r = rule(t, j, x, R)
            return j, np.maximum(r, delta)

        return adversary

    def phased(rule: Callable) -> Adversary:
        """Contexts one after the other; `rule(t, context)` gives the rewards."""
        return lambda t, policy: (
            t // length,
            np.maximum(rule(t, t // length), delta),
        )

    return {
        "bernoulli": drawn(lambda t, j, x, R: rng.random(n_arms) < mean[j]),
        "uniform": drawn(lambda t, j, x, R: rng.random(n_arms)),
        "least played": drawn(lambda t, j, x, R: arms[x.argmin()]),
        "lower half": drawn(lambda t, j, x, R: x <= np.median(x)),
        "next": drawn(lambda t, j, x, R: arms[(x.argmax() + 1) % n_arms]),
        "nested": phased(lambda t, j: nested[j]),
        "phases": phased(lambda t, j: arms[j % n_arms]),
        "rotating": drawn(lambda t, j, x, R: arms[t % n_arms]),
        "rich": drawn(lambda t, j, x, R: arms[R.argmax()]),
        "poor": drawn(lambda t, j, x, R: arms[R.argmin()]),
        "ones": drawn(lambda t, j, x, R: np.ones(n_arms)),
        "probe": drawn(lambda t, j, x, R: probe_rewards(x, R)),
    }


def probe_rewards(x: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Reward 1 for the poorest arm that is not played, or for arm 0 if all are.

    An arm with probability zero earns nothing from its reward, so its weight stays
    what it was and the learner is moved by a full-sized surrogate reward.  Below 1e-9
    a probability counts as zero.

    Parameters
    ----------
    x : ndarray, shape (N,), float64
        What will be played.
    R : ndarray, shape (N,), float64
        Cumulative rewards, reward units.

    Returns
    -------
    rewards : ndarray, shape (N,), float64
    """
    idle = np.flatnonzero(x < 1e-9)
    rewards = np.zeros(x.size)
    rewards[idle[R[idle].argmin()] if idle.size else 0] = 1
    return rewards


def play_suite(
    alphas: tuple[float, ...],
    shapes: tuple[tuple[int, int], ...],
    n_rounds: int,
    *,
    deltas: tuple[float, ...] = (0.0,),
    rng: np.random.Generator,
    **options,
) -> Iterator[tuple[str, Game]]:
    """Play every adversary at every alpha, shape and least reward.

    Parameters
    ----------
    alphas : tuple of float
        Fairness parameters.
    shapes : tuple of (int, int)
        Pairs $(M, N)$.
    n_rounds : int
        $T$ of every game.
    deltas : tuple of float
        Least rewards.
    rng : numpy.random.Generator
        Draws contexts and random rewards.
    **options
        Passed to `AlphaFairGradient`.

    Yields
    ------
    name : str
        Of the adversary.
    game : Game
    """
    for n_contexts, n_arms in shapes:
        for delta in deltas:
            for alpha in alphas:
                suite = adversaries(n_contexts, n_arms, n_rounds, delta=delta, rng=rng)
                for name, adversary in suite.items():
                    policy = AlphaFairGradient(n_arms, alpha, **options)
                    yield name, play(policy, adversary, n_rounds, n_contexts)


def late_rewards(
    n_contexts: int, n_arms: int, n_rounds: int, *, delta: float
) -> RewardStream:
    """Stream that teaches each context arm 0 and then rewards all arms alike.

    Contexts come in turn.  The first round of each rewards arm 0 with 1 and the others
    with `delta`, the later ones reward all arms with `delta`.

    Parameters
    ----------
    n_contexts, n_arms, n_rounds : int
        $M$, $N$ and $T$.
    delta : float
        Least reward, in [0, 1].

    Returns
    -------
    stream : RewardStream
    """
    rewards = np.full((n_rounds, n_arms), float(delta))
    rewards[:n_contexts, 0] = 1
    contexts = np.arange(n_rounds) % n_contexts
    return RewardStream(contexts=contexts, rewards=rewards, n_contexts=n_contexts)


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
    from prunefair.fairness.engine import run_fast

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
    from prunefair.fairness.kernels import compiled

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
    from prunefair.fairness.engine import run_fast

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
    from prunefair.fairness.engine import run_fast

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
