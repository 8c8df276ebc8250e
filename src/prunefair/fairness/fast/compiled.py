"""Running a policy over a long stream: the results of `simulate`, compiled.

`run_fast` plays what `prunefair.fairness.simulation.simulate` plays, with the same
random numbers, and leaves the policy in the same state to rounding.  Its memory is
that of the learners and the checkpoints, whatever the number of rounds; contexts that
the stream names but never shows take none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from prunefair.fairness.policy import Policy, owned
from prunefair.fairness.simulation import (
    RewardStream,
    Trajectory,
    check_run,
    checkpoints,
)

ROUNDS_AT_ONCE = 1 << 16
STEP_KINDS = ("squared", "centred", "released")  # as the kernels number them


class Run(NamedTuple):
    """A policy unpacked: `kernel(contexts, rewards, draws, *state)`, then `store()`.

    `state` begins with the cumulative rewards; the kernel changes it in place.
    """

    kernel: Callable
    state: tuple
    store: Callable


def run_fast(
    policy: Policy,
    stream: RewardStream | Iterable[RewardStream],
    *,
    rng: np.random.Generator | None = None,
    n_points: int = 200,
) -> Trajectory:
    """Play `policy` on `stream` from its first round to its last, compiled.

    Feedback comes at once; `simulate` and `run_batch` can also bring it late.

    Parameters
    ----------
    policy : Policy
        Changed by the run; contexts of `stream` are its contexts 0, ..., M-1.
    stream : RewardStream or iterable of RewardStream
        Blocks are played one after the other, so that a stream may exceed the memory.
    rng : numpy.random.Generator, optional
        Draws the arms; required by a bandit policy, unused with full information.
    n_points : int
        Number of checkpoints at most; of blocks, the end of each is one.

    Returns
    -------
    trajectory : Trajectory
        Its `seconds` leave out compiling, which happens once.

    Raises
    ------
    ValueError
        If the numbers of arms differ, a bandit policy is given no `rng`, or the
        policy has no kernel.
    RuntimeError
        If Newton's method does not converge; the policy is unchanged then.
    """
    if not isinstance(stream, RewardStream):
        blocks = stream if isinstance(stream, Iterable) else [stream]
        return _joined(_played(policy, block, rng) for block in blocks)
    kind = f"{type(policy).__module__}.{type(policy).__qualname__}"
    if kind not in LOADERS:
        known = ", ".join(name.rsplit(".")[-1] for name in LOADERS)
        raise ValueError(
            f"policy is a {type(policy).__name__}, for which there is no kernel; play "
            f"it with simulate, or take one of {known}"
        )
    bandit = check_run(policy, stream, rng)
    rounds = checkpoints(stream.n_rounds, n_points)
    found = np.empty((len(rounds), stream.n_arms))
    seen = seen_contexts(stream)
    run = LOADERS[kind](policy, seen.tolist())
    run.kernel(*_pieces(stream, 0, 0, seen), np.empty(0), *run.state)  # compiles
    start = time.perf_counter()
    for point, (first, last) in enumerate(zip([0, *rounds[:-1]], rounds)):
        for low in range(first, last, ROUNDS_AT_ONCE):
            high = min(low + ROUNDS_AT_ONCE, last)
            draws = rng.random(high - low) if bandit else np.empty(0)
            run.kernel(*_pieces(stream, low, high, seen), draws, *run.state)
        found[point] = run.state[0]
    seconds = time.perf_counter() - start
    if len(rounds):
        policy.rewards = run.state[0]
        run.store()
    return Trajectory(rounds=rounds, rewards=found, seconds=seconds)


def _played(policy, block, rng) -> Trajectory:
    """One block of a stream, which must be a stream."""
    check_run(policy, block, rng)
    return run_fast(policy, block, rng=rng, n_points=1)


def seen_contexts(stream: RewardStream) -> np.ndarray:
    """The contexts that occur in `stream`, in order, shape (K,), int64."""
    few, seen = stream.n_contexts <= ROUNDS_AT_ONCE, np.empty(0, np.int64)
    for low in range(0, stream.n_rounds, ROUNDS_AT_ONCE):
        block = stream.contexts[low : low + ROUNDS_AT_ONCE]
        block = np.flatnonzero(np.bincount(block)) if few else block
        seen = np.union1d(seen, block)
    return seen


def _pieces(
    stream: RewardStream, low: int, high: int, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the contexts in `seen` and rewards of some rounds, for the kernels.

    Both are contiguous and read-only, so that a kernel is compiled once.
    """
    contexts, rewards = stream.contexts[low:high], stream.rewards[low:high]
    if len(seen) < stream.n_contexts:
        contexts = np.searchsorted(seen, contexts)
    pieces = np.ascontiguousarray(contexts).view(), np.ascontiguousarray(rewards).view()
    for piece in pieces:
        piece.flags.writeable = False
    return pieces


def _joined(parts: Iterator[Trajectory]) -> Trajectory:
    """One trajectory with the ends of `parts`, played in this order."""
    parts = [part for part in parts if len(part.rounds)]
    return Trajectory(
        rounds=np.cumsum([part.rounds[-1] for part in parts], dtype=np.int64),
        rewards=np.array([part.rewards[-1] for part in parts]),
        seconds=sum(part.seconds for part in parts),
    )


@cache
def _kernel(name: str) -> Callable:
    """A compiled kernel; numba is imported when the first one is wanted."""
    from prunefair.fairness.fast import kernels

    return kernels.compiled_kernel(getattr(kernels, name))


def gradient_step(state: NamedTuple, gradient: np.ndarray, kind: str) -> NamedTuple:
    r"""One step of a projected gradient learner, its projection compiled.

    Parameters
    ----------
    state : NamedTuple
        The point and the sum of its norms, as `AdaptiveState`.
    gradient : ndarray, shape (N,), float64
        $g_t$, finite.
    kind : {"squared", "centred", "released"}
        Which norms are summed.

    Returns
    -------
    state : NamedTuple
        To the byte what `adaptive_step` and `released_step` return.

    References
    ----------
    Book {eq}`eq-online-gradient-step`, {eq}`eq-online-gradient-released`.
    """
    point, total = state
    g = gradient - gradient.sum() / gradient.size if kind == "centred" else gradient
    square = float(g @ g)
    total += square**0.5 if kind == "released" else square
    if total == 0:
        return state
    return type(state)(owned(_kernel("projected")(point + g / total**0.5)), total)


def barrier_step(
    state: NamedTuple,
    arm: int,
    loss: float,
    probability: float,
    rates: tuple[float, float],
) -> NamedTuple:
    r"""One step of a scale-free or of a log-barrier learner, compiled.

    Parameters
    ----------
    state : ScaleFreeState or LogBarrierState
    arm : int
        Place of the arm that was drawn.
    loss : float
        Its loss, at most 0.
    probability : float
        With which it was drawn.
    rates : tuple of (float, float)
        The numerator of the learning rate, and what stands under it beside the
        penalties.

    Returns
    -------
    state : ScaleFreeState or LogBarrierState

    References
    ----------
    Book {eq}`eq-bandit-feedback-scale-free`, {eq}`eq-bandit-feedback-rate`.
    """
    point, estimates, penalties, last = state
    point, estimates = point.copy(), estimates.copy()
    n, estimate = point.size, float(loss / probability)
    settings = (arm, *rates)
    penalties = _kernel("barrier_round")(
        point, estimates, penalties, estimate, settings
    )
    owned(point), owned(estimates)
    if hasattr(state, "explored"):
        last -= n / (2 * n + last) * estimate
    return type(state)(point, estimates, penalties, last)


def slate_gradient_step(
    state: NamedTuple, gradient: np.ndarray, slate: int
) -> NamedTuple:
    r"""One step of a projected gradient learner for slates, its projection compiled.

    Parameters
    ----------
    state : AdaptiveState
    gradient : ndarray, shape (N,), float64
        $g_t$, finite.
    slate : int
        Number of arms chosen in each round.

    Returns
    -------
    state : AdaptiveState
        To rounding what `slate_step` returns; for one arm to the byte.

    References
    ----------
    Book {eq}`eq-slates-step`.
    """
    if slate == 1:
        return gradient_step(state, gradient, "squared")
    point, total = state
    total += float(gradient @ gradient)
    if total == 0:
        return state
    width = max(min(slate, gradient.size - slate), 1) ** 0.5
    moved = _kernel("capped")(point + width * gradient / total**0.5, slate)
    return type(state)(owned(moved), total)


def slate_barrier_step(
    state: NamedTuple,
    places: np.ndarray,
    estimates: np.ndarray,
    rates: tuple[float, float],
    slate: int,
) -> NamedTuple:
    r"""One step of the log-barrier learner for slates, compiled.

    Parameters
    ----------
    state : LogBarrierState
    places : ndarray, shape (k,), int64
        Places of the arms that were shown.
    estimates : ndarray, shape (k,), float64
        Their estimated losses, at most 0.
    rates : tuple of (float, float)
        The numerator of the learning rate, and what stands under it beside the
        penalties.
    slate : int
        Number of arms chosen in each round.

    Returns
    -------
    state : LogBarrierState
        To rounding what `slate_update` returns.

    References
    ----------
    Book {eq}`eq-slates-shown`.
    """
    point, sums = state.point.copy(), state.estimates.copy()
    penalties = _kernel("slate_round")(
        point, sums, state.penalties, places, estimates, (*rates, slate)
    )
    return state._replace(
        point=owned(point), estimates=owned(sums), penalties=penalties
    )


def optimistic_point(estimates: np.ndarray, eta: float) -> np.ndarray:
    r"""Play of an optimistic learner, compiled.

    Parameters
    ----------
    estimates : ndarray, shape (N,), float64
        Summed estimates of one context.
    eta : float
        Learning rate.

    Returns
    -------
    p : ndarray, shape (N,), float64
        To rounding what `optimistic_play` returns.

    References
    ----------
    Book {eq}`eq-high-probability-play`.
    """
    return _kernel("optimistic_shares")(estimates, eta)


def fair_solve(
    scores: np.ndarray, q: np.ndarray, floor: float, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Multipliers and play of the FairCB step, compiled.

    Parameters
    ----------
    scores : ndarray, shape (K, N), float64
        $-\eta L^j_i$ for each context.
    q : ndarray, shape (K,), float64
        Probability of each context; sums to 1.
    floor : float
        Least probability $\nu < 1 / N$ of each arm.
    start : ndarray, shape (N,), float64
        Multipliers to start from, at least 0.

    Returns
    -------
    multipliers : ndarray, shape (N,), float64
    play : ndarray, shape (K, N), float64
        To rounding what `fair_multipliers` returns.

    Raises
    ------
    RuntimeError
        If Newton's method does not converge.

    References
    ----------
    Book {eq}`eq-baselines-dual`.
    """
    c = start.copy()
    play = _kernel("fair_solution")(c, np.ascontiguousarray(scores), q, float(floor))
    return c, play


class Learners:
    """The learners of a policy as arrays with one row each.

    Rows are in the order of `policy.learners`, and contexts without a learner take the
    next ones when they come; there is room for all.

    Parameters
    ----------
    policy : Policy
    contexts : list of int
        The K contexts that occur in the stream.
    blind : bool
        Whether all contexts share the learner of the context None.

    Attributes
    ----------
    rows : ndarray, shape (K,), int64
        Row of each context, -1 without a learner.
    count : ndarray, shape (1,), int64
        Number of rows in use.
    states : list of ndarray, shapes (L, ...)
        The fields of the learners' states.
    """

    def __init__(self, policy: Policy, contexts: list[int], *, blind: bool = False):
        self.policy, self.keys = policy, list(policy.learners)
        if blind and None not in policy.learners:
            self.keys.append(None)
        place = {key: row for row, key in enumerate(self.keys)}
        self.contexts = [None] * len(contexts) if blind else contexts
        self.rows = np.array([place.get(j, -1) for j in self.contexts], np.int64)
        self.count = np.array([len(self.keys)])
        spare = int((self.rows < 0).sum())
        known = [policy.learner(key) for key in self.keys]
        known += [policy.initial()] * max(spare, 1 - len(known))  # one gives the shapes
        self.kind = type(policy.initial())
        self.states = [np.array(field) for field in zip(*known)]

    def store(self) -> None:
        """Give the policy its learners; those without a visit stay unborn."""
        new = np.argsort(self.rows)[np.sort(self.rows) >= len(self.keys)]
        for row, key in enumerate(self.keys + [self.contexts[k] for k in new]):
            state = (field[row] for field in self.states)
            self.policy.learners[key] = self.kind(
                *(s.copy() if s.ndim else s.item() for s in state)
            )


def _gradient(policy, contexts: list[int], *, blind: bool = False) -> Run:
    table, R = Learners(policy, contexts, blind=blind), policy.rewards.copy()
    points, norms, *own = table.states
    earned = own[0] if own else R[None]
    kind = STEP_KINDS.index(getattr(policy, "step_kind", "squared"))
    after = getattr(policy, "weights", "before") == "after"
    settings = (policy.alpha, kind, after, not own)
    weights = earned**-policy.alpha
    learners = (table.rows, table.count, points, norms, earned, weights)
    return Run(_kernel("gradient_rounds"), (R, *learners, settings), table.store)


def _context_free(policy, contexts: list[int]) -> Run:
    return _gradient(policy, contexts, blind=True)


def _barrier(policy, contexts: list[int], *, blind: bool = False) -> Run:
    table, R = Learners(policy, contexts, blind=blind), policy.rewards.copy()
    if hasattr(policy, "barrier"):
        settings = (policy.alpha, policy.barrier, policy.cap, False)
    else:
        settings = (policy.alpha, float(policy.n_arms), 1.0, True)
    learners = (table.rows, table.count, *table.states)
    return Run(_kernel("barrier_rounds"), (R, *learners, settings), table.store)


def _single(policy, contexts: list[int]) -> Run:
    return _barrier(policy, contexts, blind=True)


def _slates(policy, contexts: list[int]) -> Run:
    table, R = Learners(policy, contexts), policy.rewards.copy()
    settings = (policy.alpha, policy.barrier, policy.cap, policy.slate)
    learners = (table.rows, table.count, *table.states)
    return Run(_kernel("slate_rounds"), (R, *learners, settings), table.store)


def _optimistic(policy, contexts: list[int]) -> Run:
    table, rounds = Learners(policy, contexts), np.array([policy.shared.rounds])

    def store():
        table.store()
        policy.shared = policy.shared._replace(rounds=int(rounds[0]))

    learners = (table.rows, table.count, *table.states, rounds)
    state = (policy.rewards.copy(), *learners, (policy.alpha, policy.room))
    return Run(_kernel("optimistic_rounds"), state, store)


def _hedge(policy, contexts: list[int]) -> Run:
    gains = policy.shared.gains.copy()

    def store():
        policy.shared = policy.shared._replace(gains=gains)

    state = (policy.rewards.copy(), gains, float(policy.eta))
    return Run(_kernel("hedge_rounds"), state, store)


def _uniform(policy, contexts: list[int]) -> Run:
    state = (policy.rewards.copy(), policy.feedback == "bandit")
    return Run(_kernel("uniform_rounds"), state, lambda: None)


def _fair(policy, contexts: list[int]) -> Run:
    table, shared = Learners(policy, contexts), policy.shared
    used, room = len(shared.visits), len(table.states[0])
    table.states[0][:] = np.arange(room)
    losses = np.pad(shared.losses, ((0, room - used), (0, 0)))
    visits = np.pad(shared.visits, (0, room - used))
    multipliers, given = shared.multipliers.copy(), policy.q is not None
    q = np.zeros(room)
    q[: len(policy.q) if given else 0] = policy.q if given else []

    def store():
        table.store()
        rows = table.count[0]
        policy.shared = type(shared)(losses[:rows], visits[:rows], multipliers)

    settings = (float(policy.eta), policy.floor, given, policy.feedback == "bandit")
    learners = (table.rows, table.count, losses, visits, multipliers, q)
    state = (policy.rewards.copy(), *learners, settings)
    return Run(_kernel("fair_rounds"), state, store)


_HERE = "prunefair.fairness."  # names, so that who plays fast imports no chapter
LOADERS: dict[str, Callable[[Policy, list[int]], Run]] = {
    f"{_HERE}full_information.AlphaFairGradient": _gradient,
    f"{_HERE}baselines.IndependentGradient": _gradient,
    f"{_HERE}baselines.ContextFreeGradient": _context_free,
    f"{_HERE}baselines.Hedge": _hedge,
    f"{_HERE}baselines.FullInformationFairCB": _fair,
    f"{_HERE}uniform.Uniform": _uniform,
    f"{_HERE}bandit_feedback.ScaleFreeBandit": _barrier,
    f"{_HERE}bandit_feedback.SingleScaleFreeBandit": _single,
    f"{_HERE}bandit_feedback.LogBarrierBandit": _barrier,
    f"{_HERE}high_probability.OptimisticBandit": _optimistic,
    f"{_HERE}slate_policy.SlateBandit": _slates,
    f"{_HERE}baselines.FairCB": _fair,
    f"{_HERE}uniform.UniformBandit": _uniform,
}
