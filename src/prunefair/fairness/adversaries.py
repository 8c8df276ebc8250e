"""Adversaries for a full-information policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from prunefair.fairness.policy import check_generator, check_n_arms
from prunefair.fairness.simulation import (
    Adversary,
    Game,
    RewardStream,
    WeightedPolicy,
    play_game,
)


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
    build: Callable[..., WeightedPolicy],
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
    build : callable
        Takes the number of arms and alpha, returns a new policy; a class will do.
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
        Passed to `build`.

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
                    policy = build(n_arms, alpha, **options)
                    yield name, play_game(policy, adversary, n_rounds, n_contexts)


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
