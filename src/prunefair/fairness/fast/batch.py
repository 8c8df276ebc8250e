"""Many runs of one policy at once: arrays with an axis for the runs, numpy only.

`run_batch` plays what `prunefair.fairness.simulation.simulate` plays, in each round one
step for all runs, so that they share the cost of a Python statement.  Inside, the axis
of the runs is the last one: sums over arms then add whole rows.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from functools import partial

import numpy as np

from prunefair.fairness.bandit_feedback import ScaleFreeBandit
from prunefair.fairness.fast.compiled import seen_contexts
from prunefair.fairness.full_information import AlphaFairGradient, surrogate_weights
from prunefair.fairness.policy import Policy, check_count, check_generator
from prunefair.fairness.simulation import (
    RewardStream,
    Trajectory,
    check_run,
    checkpoints,
)

DRAWS_AT_ONCE = 1 << 12
MAX_ITER = 100


def run_batch(
    policies: Sequence[Policy],
    stream: RewardStream,
    *,
    rngs: Sequence[np.random.Generator] = (),
    n_points: int = 200,
    delay: int = 0,
    told: bool = True,
) -> Trajectory:
    r"""Play every policy on the same stream, all in step.

    Parameters
    ----------
    policies : sequence of S `AlphaFairGradient`, or of S `ScaleFreeBandit`
        All of one kind and with the same options, but $\alpha$ may differ; changed by
        the run, whose contexts are their contexts 0, ..., M-1.
    stream : RewardStream
    rngs : sequence of S numpy.random.Generator
        Draw the arms, one a run; unused with full information.
    n_points : int
        Number of checkpoints at most.
    delay : int
        How many rounds late feedback comes, as for `simulate`.
    told : bool
        Whether an update is told what was played, as for `simulate`.

    Returns
    -------
    trajectory : Trajectory
        `rewards` has shape (S, C, N) and `seconds` is the time of all runs together.

    Raises
    ------
    ValueError
        If the policies are not of one kind that has a batch form, with the same
        options, if numbers of arms or of generators do not fit, or `delay` is no
        whole number from 0 on.
    RuntimeError
        If Newton's method does not converge; the policies are unchanged then.
    """
    bandit = _check_batch(policies, stream, rngs)
    seen = seen_contexts(stream)
    fields = _stacked(policies, seen.tolist())
    R = np.array([policy.rewards for policy in policies]).T.copy()  # (N, S)
    alpha = np.array([policy.alpha for policy in policies])  # (S,)
    if bandit:
        play, learn = _drawn, partial(_bandit_step, R=R, alpha=alpha)
    else:
        options = {"kind": policies[0].step_kind, "weights": policies[0].weights}
        W, powers = surrogate_weights(R, alpha), np.tile(-alpha, (len(R), 1))
        play, learn = (
            _point,
            partial(_gradient_step, R=R, W=W, powers=powers, **options),
        )
    delay, waiting = check_count(delay, "delay", least=0), deque()
    rounds, point, visited = checkpoints(stream.n_rounds, n_points), 0, {}
    found, draws = np.empty((len(policies), len(rounds), stream.n_arms)), None
    start = time.perf_counter()
    for t in range(stream.n_rounds):
        if bandit and t % DRAWS_AT_ONCE == 0:
            size = min(DRAWS_AT_ONCE, stream.n_rounds - t)
            draws = np.array([rng.random(size) for rng in rngs]).T  # (size, S)
        j = int(np.searchsorted(seen, stream.contexts[t]))
        visited[j] = True
        learner = [field[j] for field in fields]
        played = play(learner, draws[t % DRAWS_AT_ONCE] if bandit else None)
        waiting.append((learner, stream.rewards[t][:, None], played))
        while len(waiting) > (0 if t + 1 == stream.n_rounds else delay):
            learner, r, played = waiting.popleft()
            learn(learner, r, played if told else play(learner, None, played))
        if t + 1 == rounds[point]:
            found[:, point] = R.T
            point += 1
    seconds = time.perf_counter() - start
    for s, policy in enumerate(policies):
        policy.rewards, kind = R[:, s].copy(), type(policy.initial())
        for j in visited:
            state = [field[j, ..., s] for field in fields]
            policy.learners[int(seen[j])] = kind(
                *(x.copy() if x.ndim else x.item() for x in state)
            )
    return Trajectory(rounds=rounds, rewards=found, seconds=seconds)


def _check_batch(policies, stream, rngs) -> bool:
    """Whether arms are drawn, or raise if this batch cannot be played."""
    kinds = {type(policy) for policy in policies}
    if len(kinds) != 1 or not kinds <= {AlphaFairGradient, ScaleFreeBandit}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds)) or "empty"
        raise ValueError(
            f"policies is {names}; give one kind, AlphaFairGradient or ScaleFreeBandit"
        )
    options = {tuple((policy.config() | {"alpha": 0}).items()) for policy in policies}
    if len(options) != 1:
        raise ValueError(
            f"policies have different options, {sorted(options)}; only alpha may differ"
        )
    bandit = policies[0].feedback == "bandit"
    if bandit and len(rngs) != len(policies):
        raise ValueError(
            f"rngs has {len(rngs)} generators for {len(policies)} policies; give one each"
        )
    for rng in rngs if bandit else ():
        check_generator(rng, "an entry of rngs")
    return check_run(policies[0], stream, rngs[0] if bandit else None)


def _stacked(policies, contexts: list[int]) -> list[np.ndarray]:
    """The fields of the learners' states, shapes (K, N, S) and (K, S)."""
    table = [[policy.learner(j) for policy in policies] for j in contexts]
    fields = []
    for f in range(len(table[0][0]) if table else 0):
        values = np.array([[state[f] for state in row] for row in table])  # (M, S, ...)
        fields.append(np.ascontiguousarray(np.moveaxis(values, 1, -1)))
    return fields


def _point(learner, _, played=None) -> np.ndarray:
    """What all runs play now, shape (N, S)."""
    return learner[0].copy()


def _gradient_step(learner, r, played, *, R, W, powers, kind, weights) -> None:
    """One step of all runs after `played`; `learner`, `R` and `W` change."""
    x, norms = learner  # (N, S) and (S,)
    support = x > 0
    g = W * r
    R += r * played
    places = np.flatnonzero(played > 0)
    W.reshape(-1)[places] = R.take(places) ** powers.take(places)
    if weights == "after":
        g = W * r
    v = g - g.sum(0) / len(g) if kind == "centred" else g
    square = np.einsum("is,is->s", v, v)
    norms += square**0.5 if kind == "released" else square
    v = g * np.where(norms > 0, norms, np.inf) ** -0.5
    v += x
    x[:] = _projections(v, support)


def _projections(v: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Projections onto the simplex of the columns of `v`, shape (N, S).

    The multiplier of the projection onto any subset is a lower bound; `support` gives
    the first, and what lies above a bound gives the next, until nothing is dropped.
    """
    support, dropped = v > _multipliers(v, support), True
    while dropped:
        tau = _multipliers(v, support)
        left = support & (v > tau)
        support, dropped = left, (left != support).any()
    return np.maximum(v - tau, 0)


def _multipliers(v: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Multipliers, shape (S,), of the projections onto the subsets in `support`."""
    chosen = support.astype(float)
    return (np.einsum("is,is->s", chosen, v) - 1) / chosen.sum(0)


def _drawn(learner, u, played=None) -> tuple[np.ndarray, np.ndarray]:
    """Arms that all runs draw, or the arms of `played`, and their probabilities now."""
    p, _, _, explored = learner
    n, runs = len(p), np.arange(p.shape[1])
    gamma = n / (2 * n + explored)
    mixed = (1 - gamma) * p + gamma / n  # (N, S)
    if played is None:
        cumulative = np.cumsum(mixed, axis=0)
        arm = np.minimum((cumulative <= u * cumulative[-1]).sum(0), n - 1)
    else:
        arm = played[0]
    return arm, mixed[arm, runs]


def _bandit_step(learner, r, played, *, R, alpha) -> None:
    """One step of all runs after `played`; `learner` and `R` change."""
    p, estimates, penalties, explored = learner
    arm, probability = played
    n, runs = len(p), np.arange(p.shape[1])
    gamma = n / (2 * n + explored)
    pulled, reward = (arm, runs), r[arm, 0]
    estimate = -reward * R[pulled] ** -alpha / probability
    R[pulled] += reward
    eta = n / (1 + penalties)
    w = 1 / p
    w[pulled] += eta * estimate
    low = w.min(0)
    q = _barrier_points(w - low, low)
    d = q / p - 1
    cost = estimate * (p[pulled] - q[pulled]) - (d - np.log1p(d)).sum(0) / eta
    penalties += np.maximum(cost, 0)
    explored -= gamma * estimate
    estimates[pulled] += estimate
    w = n / (1 + penalties) * estimates
    p[:] = _barrier_points(w - w.min(0), 1 / p.max(0))


def _barrier_points(w: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Log-barrier steps for the columns of `w`, shape (N, S), least entry 0."""
    n = float(len(w))
    lam = np.clip(start, 1, n)
    for _ in range(MAX_ITER):
        q = 1 / (w + lam)
        total = q.sum(0)
        step = total * (total - 1) / np.einsum("is,is->s", q, q)
        lam = np.clip(lam + step, 1, n)
        if np.abs(step).max() <= 1e-8:
            q = 1 / (w + lam)
            return q / q.sum(0)
    raise RuntimeError("Newton's method needs more steps for the log-barrier step")
