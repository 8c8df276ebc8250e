"""Whole trajectories of the bandit policies as loops over arrays, compiled by numba.

Each kernel plays the rounds of `contexts` and `rewards` and changes the state it is
given in place; it allocates nothing of the size of the number of rounds.  The step
functions of the chapters are the reference; a kernel computes the same numbers in an
order that suits a processor, so the two agree to rounding.

A learner has one row in each state array.  `rows`, shape (M,), int64, maps contexts to
rows, -1 before the first visit, and `count`, shape (1,), int64, is the number of rows
in use: a new context takes the next row, so rows are in the order of first visits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic, register_jitable

from prunefair.fairness.baselines import STAGE_STEPS, TOLERANCE

CENTRED, RELEASED = 1, 2  # kinds of step; 0 is squared
MAX_ITER = 2000
LOG2_E, LN2_HIGH, LN2_LOW = (
    1.4426950408889634,
    0.6931471803691238,
    1.9082149292705877e-10,
)
TAYLOR = tuple(1 / float(f) for f in np.cumprod([1, *range(1, 14)])[::-1])


class MendingCache(FunctionCache):
    """Numba's cache of compiled code, for which a damaged file is a missing one.

    A file that a kill or a full disk cut off is written anew after compiling; what
    cannot be written is compiled again by the next process.
    """

    def load_overload(self, sig, target_context):
        """The code compiled before, or None."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling a part of a file may raise
            return None

    def save_overload(self, sig, data):
        """Keep `data`, in a new index if the old one cannot be read."""
        for mend in (self.flush, lambda: None):
            try:
                return super().save_overload(sig, data)
            except Exception:
                with suppress(OSError):
                    mend()


@cache
def compiled_kernel(kernel: Callable) -> Callable:
    """`kernel` compiled, and kept on disk if numba finds a folder that it may write.

    Sums keep their order: with "reassoc" in `fastmath` the process that compiles and
    those that read the file could differ in the last digits.
    """
    options = {"error_model": "numpy", "fastmath": {"contract", "nsz"}}
    dispatcher = njit(**options)(kernel)
    with suppress(RuntimeError):  # no such folder
        dispatcher._cache = MendingCache(kernel)
    return dispatcher


@register_jitable
def _row_of(context, rows, count):
    """Row of `context`, a new one at its first visit."""
    row = rows[context]
    if row < 0:
        row = rows[context] = count[0]
        count[0] += 1
    return row


@intrinsic
def _as_float(_, bits):
    """The float64 that has these bits."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(bits), codegen


@register_jitable(fastmath={"contract"})  # not in another order
def _exp(x):
    """exp(x) for x <= 700 in operations that run on several x at once.

    Right to rounding above -708; what is smaller counts as nothing beside 1.
    """
    x = max(x, -708.0)
    k = np.floor(x * LOG2_E + 0.5)
    y = (x - k * LN2_HIGH) - k * LN2_LOW  # at most half of ln 2 from 0
    series = 0.0
    for coefficient in TAYLOR:
        series = series * y + coefficient
    return series * _as_float((np.int64(np.int32(k)) + 1023) << 52)


@register_jitable
def _drawn(cumulative, u):
    """The arm that the uniform number `u` draws, as `searchsorted` finds it."""
    target, arm = u * cumulative[-1], 0
    for i in range(cumulative.size):
        arm += cumulative[i] <= target
    return min(arm, cumulative.size - 1)


@register_jitable
def _positive(x, held):
    """Write the places where `x` is positive to the head of `held`; their number."""
    size = 0
    for i in range(x.size):
        held[size] = i
        size += x[i] > 0  # no branch: nobody could predict it
    return size


@register_jitable
def _project_ascent(x, g, eta, v, held, size):
    """Replace `x` by the projection of `x + eta g` onto the simplex.

    The multiplier of the projection onto any subset is a lower bound.  The support of
    `x`, the first `size` of `held`, gives one; what lies below the bound is dropped,
    and what is left gives the next, until nothing is dropped.  `v` is scratch.
    """
    n, total = x.size, 0.0
    for i in range(n):
        v[i] = x[i] + eta * g[i]
    for k in range(size):
        total += v[held[k]]
        x[held[k]] = 0.0
    tau, size = (total - 1) / size, 0
    for i in range(n):
        held[size] = i
        size += v[i] > tau
    for _ in range(n):
        total, kept = 0.0, 0
        for k in range(size):
            total += v[held[k]]
        tau = (total - 1) / size
        for k in range(size):
            i = held[k]
            held[kept] = i
            kept += v[i] > tau
        if kept == size:
            break
        size = kept
    for k in range(size):
        x[held[k]] = v[held[k]] - tau


def projected(v):
    """The projection of `v` on the simplex, with the sums of the chapter in its order.

    Parameters
    ----------
    v : ndarray, shape (N,), float64

    Returns
    -------
    p : ndarray, shape (N,), float64
    """
    n, top, total, tau = v.size, -_smallest(-v), 0.0, 0.0
    p = np.empty(n)
    for i in range(n):
        p[i] = max(v[i] - top, -1.0)
    u = np.sort(p)
    for k in range(n):
        total += u[n - 1 - k]
        candidate = (total - 1) / (k + 1)
        if u[n - 1 - k] > candidate:
            tau = candidate
    for i in range(n):
        p[i] = max(p[i] - tau, 0.0)
    return p


def capped(v, slate):
    """The projection of `v` on the capped simplex, as the chapter on slates finds it.

    Parameters
    ----------
    v : ndarray, shape (N,), float64
    slate : int
        Sum of the result.

    Returns
    -------
    p : ndarray, shape (N,), float64
    """
    n = v.size
    top, p, edges = np.sort(v)[n - slate], np.empty(n), np.empty(2 * n)
    for i in range(n):
        p[i] = min(max(v[i] - top, -1.0), 1.0)
        edges[i], edges[n + i] = p[i] - 1, p[i]
    order = np.argsort(edges, kind="mergesort")
    fallen, slope, last, excess = 0.0, 0, 0.0, 0.0
    for place in range(2 * n):
        edge = edges[order[place]]
        if place:
            fallen += slope * (edge - last)
        if n - fallen < slate:
            break
        slope += 1 if order[place] < n else -1
        last, excess = edge, 0.0
        if n - fallen > slate:
            excess = (n - fallen - slate) / slope
    for i in range(n):
        p[i] = min(max(p[i] - last - excess, 0.0), 1.0)
    return p


def gradient_rounds(
    contexts, rewards, draws, R, rows, count, points, norms, earned, weights, settings
):
    """Rounds of the projected gradient policies.

    Parameters
    ----------
    contexts, rewards : ndarray, shapes (T,) and (T, N)
    draws : ndarray
        Unused.
    R : ndarray, shape (N,)
        Cumulative rewards.
    rows, count : ndarray
        See the head of the module.
    points, norms : ndarray, shapes (L, N) and (L,)
        State of each learner.
    earned, weights : ndarray, shape (L, N), or (1, N) if learners are coupled
        Rewards that weigh, `R` itself if coupled, and their weights.
    settings : tuple of (float, int, bool, bool)
        alpha, the kind of step, weights after the round, coupled.
    """
    alpha, kind, after, coupled = settings
    n = R.size
    g, v, held = np.empty(n), np.empty(n), np.empty(n, np.int64)
    for t in range(contexts.size):
        row = _row_of(contexts[t], rows, count)
        x, r, e = points[row], rewards[t], 0 if coupled else row
        w, own = weights[e], earned[e]
        if not after:
            for i in range(n):
                g[i] = w[i] * r[i]
        size = _positive(x, held)
        for k in range(size):
            i = held[k]
            own[i] += r[i] * x[i]
            w[i] = own[i] ** -alpha
        if not coupled:
            for i in range(n):
                R[i] += r[i] * x[i]
        if after:
            for i in range(n):
                g[i] = w[i] * r[i]
        mean, square = 0.0, 0.0
        if kind == CENTRED:
            for i in range(n):
                mean += g[i] / n
        for i in range(n):
            square += (g[i] - mean) ** 2
        norms[row] += square**0.5 if kind == RELEASED else square
        if norms[row] > 0:
            _project_ascent(x, g, 1 / norms[row] ** 0.5, v, held, size)


def uniform_rounds(contexts, rewards, draws, R, bandit):
    """Rounds of uniform play.

    Parameters
    ----------
    contexts, rewards, draws : ndarray, shapes (T,), (T, N) and (T,)
    R : ndarray, shape (N,)
        Cumulative rewards.
    bandit : bool
        Whether an arm is drawn; play is fractional if not.
    """
    n = R.size
    x = 1 / n
    cumulative = np.cumsum(np.full(n, x))
    for t in range(contexts.size):
        if bandit:
            arm = _drawn(cumulative, draws[t])
            R[arm] += rewards[t, arm]
        else:
            for i in range(n):
                R[i] += rewards[t, i] * x


def hedge_rounds(contexts, rewards, draws, R, gains, eta):
    """Rounds of Hedge.

    Parameters
    ----------
    contexts, rewards : ndarray, shapes (T,) and (T, N)
    draws : ndarray
        Unused.
    R, gains : ndarray, shape (N,)
        Cumulative rewards, of the policy and of each arm had it always been played.
    eta : float
        Learning rate.
    """
    n = R.size
    w = np.empty(n)
    top = 0.0
    for t in range(contexts.size):
        r, total = rewards[t], 0.0
        if t % 32 == 0:  # any shift will do while the largest weight is near 1
            top = -_smallest(-gains)
        for i in range(n):
            w[i] = _exp(eta * (gains[i] - top))
        for i in range(n):
            total += w[i]
        scale = 1 / total
        for i in range(n):
            R[i] += r[i] * (w[i] * scale)
            gains[i] += r[i]


@register_jitable
def _barrier_point(w, start, p):
    """Minimiser `p` of <p, w> - sum ln p over the simplex, `w` at least 0.

    Newton's method as in the chapter, from a better start.  The error of a step is
    below the square of the error before, so the step below 1e-8 is the last.
    """
    n = w.size
    lam = min(max(start, 1.0), float(n))
    for _ in range(MAX_ITER):
        s1 = s2 = 0.0
        for i in range(n):
            q = 1 / (w[i] + lam)
            s1 += q
            s2 += q * q
        step = s1 * (s1 - 1) / s2
        lam = min(max(lam + step, 1.0), float(n))
        if abs(step) <= 1e-8:
            total = 0.0
            for i in range(n):
                p[i] = 1 / (w[i] + lam)
                total += p[i]
            for i in range(n):
                p[i] /= total
            return
    raise RuntimeError("Newton's method needs more steps for the log-barrier step")


@register_jitable
def _smallest(w):
    low = w[0]
    for i in range(1, w.size):
        low = min(low, w[i])
    return low


@register_jitable
def _stability_cost(p, arm, estimate, eta, w, q):
    """What one estimated loss, at most 0, may cost; `w` and `q` are scratch."""
    n = p.size
    for i in range(n):
        w[i] = 1 / p[i]
    w[arm] += eta * estimate
    low = _smallest(w)
    for i in range(n):
        w[i] -= low
    _barrier_point(w, low, q)
    divergence = 0.0
    for i in range(n):
        d = q[i] / p[i] - 1
        divergence += d - (np.log1p(d) if d > -0.5 else np.log(q[i] / p[i]))
    return max(estimate * (p[arm] - q[arm]) - divergence / eta, 0.0)


@register_jitable
def _barrier_learn(p, L, penalties, estimate, settings, w, q):
    """Penalties after an estimated loss, which moves `p` and `L`."""
    arm, room, start = settings
    eta = room / (start + penalties)
    penalties += _stability_cost(p, arm, estimate, eta, w, q)
    L[arm] += estimate
    eta, top = room / (start + penalties), p[0]
    for i in range(p.size):
        w[i] = eta * L[i]
        top = max(top, p[i])
    low = _smallest(w)
    for i in range(p.size):
        w[i] -= low
    _barrier_point(w, 1 / top, p)
    return penalties


def barrier_round(p, L, penalties, estimate, settings):
    """One round of a learner of the scale-free or the log-barrier bandit.

    Parameters
    ----------
    p, L : ndarray, shape (N,)
        Point and summed estimates of the learner.
    penalties, estimate : float
        Its penalties, and the estimated loss, at most 0.
    settings : tuple of (int, float, float)
        The arm, the numerator of the learning rate, and what stands under it beside
        the penalties.

    Returns
    -------
    penalties : float
    """
    if estimate == 0:
        return penalties
    w, q = np.empty(p.size), np.empty(p.size)
    return _barrier_learn(p, L, penalties, estimate, settings, w, q)


def barrier_rounds(
    contexts,
    rewards,
    draws,
    R,
    rows,
    count,
    points,
    estimates,
    penalties,
    last,
    settings,
):
    """Rounds of the scale-free and of the log-barrier bandits.

    Parameters
    ----------
    contexts, rewards, draws : ndarray, shapes (T,), (T, N) and (T,)
    R : ndarray, shape (N,)
        Cumulative rewards.
    rows, count : ndarray
        See the head of the module.
    points, estimates, penalties : ndarray, shapes (L, N), (L, N) and (L,)
        State of each learner.
    last : ndarray, shape (L,)
        What else it holds: `explored` if scale-free, else `scale`.
    settings : tuple of (float, float, float, bool)
        alpha, numerator of the learning rate, its cap, whether scale-free.
    """
    alpha, room, cap, scale_free = settings
    n = R.size
    cumulative, w, q = np.empty(n), np.empty(n), np.empty(n)
    for t in range(contexts.size):
        seen = count[0]
        row = _row_of(contexts[t], rows, count)
        if count[0] > seen and not scale_free:
            last[row] = _smallest(R) ** -alpha
        p, L, gamma, start, total = points[row], estimates[row], 0.0, 1.0, 0.0
        if scale_free:
            gamma = n / (2 * n + last[row])
        else:
            start = cap * room * last[row]
        for i in range(n):
            total += (1 - gamma) * p[i] + gamma / n
            cumulative[i] = total
        arm = _drawn(cumulative, draws[t])
        reward = rewards[t, arm]
        estimate = -reward * R[arm] ** -alpha / ((1 - gamma) * p[arm] + gamma / n)
        R[arm] += reward
        if estimate == 0:
            continue
        penalties[row] = _barrier_learn(
            p, L, penalties[row], estimate, (arm, room, start), w, q
        )
        if scale_free:
            last[row] -= gamma * estimate


@register_jitable
def _slate_point(L, eta, slate, p, w, q, held):
    """Minimiser `p` of eta <p, L> - sum ln p over the capped simplex.

    What comes out above 1 is 1, and the others share what is left, until none does.
    """
    n = size = L.size
    for i in range(n):
        held[i] = i
    while True:
        left, low = slate - (n - size), L[held[0]]
        for f in range(1, size):
            low = min(low, L[held[f]])
        for f in range(size):
            w[f] = left * eta * (L[held[f]] - low)
        _barrier_point(w[:size], 1.0, q[:size])
        kept = 0
        for f in range(size):
            i = held[f]
            p[i] = min(left * q[f], 1.0)
            held[kept] = i
            kept += left * q[f] <= 1
        if kept == size or kept == 0:
            return
        size = kept


@register_jitable
def _slate_learn(p, L, penalties, places, estimates, settings, w, q, held):
    """Penalties after the estimated losses of a slate, which move `p` and `L`."""
    room, start, slate = settings
    eta = room / (start + penalties)
    for c in range(places.size):
        z = max(eta * estimates[c] * p[places[c]], -0.5)
        penalties += (z - np.log1p(z)) / eta
        L[places[c]] += estimates[c]
    _slate_point(L, room / (start + penalties), slate, p, w, q, held)
    return penalties


def slate_round(p, L, penalties, places, estimates, settings):
    """One round of a learner of the bandit for slates.

    Parameters
    ----------
    p, L : ndarray, shape (N,)
        Point and summed estimates of the learner.
    penalties : float
        Its penalties.
    places, estimates : ndarray, shape (k,)
        The arms that were shown, and their estimated losses, at most 0.
    settings : tuple of (float, float, int)
        The numerator of the learning rate, what stands under it beside the penalties,
        and the number of arms in a slate.

    Returns
    -------
    penalties : float
    """
    w, q, held = np.empty(p.size), np.empty(p.size), np.empty(p.size, np.int64)
    return _slate_learn(p, L, penalties, places, estimates, settings, w, q, held)


def slate_rounds(
    contexts,
    rewards,
    draws,
    R,
    rows,
    count,
    points,
    estimates,
    penalties,
    scales,
    settings,
):
    """Rounds of the bandit for slates, drawn by the comb in the order of the arms.

    Parameters
    ----------
    contexts, rewards, draws : ndarray, shapes (T,), (T, N) and (T,)
    R : ndarray, shape (N,)
        Cumulative rewards.
    rows, count : ndarray
        See the head of the module.
    points, estimates, penalties, scales : ndarray, shapes (L, N), (L, N), (L,), (L,)
        State of each learner.
    settings : tuple of (float, float, float, int)
        alpha, numerator of the learning rate, its cap, number of arms in a slate.
    """
    alpha, room, cap, slate = settings
    n = R.size
    edges, w, q = np.empty(n), np.empty(n), np.empty(n)
    held, places, losses = np.empty(n, np.int64), np.empty(slate, np.int64), np.empty(n)
    for t in range(contexts.size):
        seen = count[0]
        row = _row_of(contexts[t], rows, count)
        if count[0] > seen:
            scales[row] = _smallest(R) ** -alpha
        p, total, size = points[row], 0.0, 0
        for i in range(n):
            total += p[i]
            edges[i] = total
        i = 0
        for c in range(slate):
            while i < n - 1 and edges[i] < total and edges[i] <= draws[t] + c:
                i += 1
            if size == 0 or places[size - 1] != i:
                places[size] = i
                size += 1
        for c in range(size):
            i = places[c]
            losses[c] = -rewards[t, i] * R[i] ** -alpha / p[i]
            R[i] += rewards[t, i]
        penalties[row] = _slate_learn(
            p,
            estimates[row],
            penalties[row],
            places[:size],
            losses[:size],
            (room, cap * room * scales[row], slate),
            w,
            q,
            held,
        )


@register_jitable
def _optimistic_point(estimates, eta, w):
    """The play of the chapter in `w`, shape (N,)."""
    n, top, total = estimates.size, -_smallest(-estimates), 0.0
    for i in range(n):
        w[i] = np.exp(eta * (estimates[i] - top))
        total += w[i]
    for i in range(n):
        w[i] = (1 - eta * n) * (w[i] / total) + eta


def optimistic_shares(estimates, eta):
    """The play of an optimistic learner.

    Parameters
    ----------
    estimates : ndarray, shape (N,)
    eta : float

    Returns
    -------
    p : ndarray, shape (N,)
    """
    w = np.empty(estimates.size)
    _optimistic_point(estimates, eta, w)
    return w


def optimistic_rounds(
    contexts, rewards, draws, R, rows, count, estimates, rounds, settings
):
    """Rounds of the optimistic bandit.

    Parameters
    ----------
    contexts, rewards, draws : ndarray, shapes (T,), (T, N) and (T,)
    R : ndarray, shape (N,)
        Cumulative rewards.
    rows, count : ndarray
        See the head of the module.
    estimates : ndarray, shape (L, N)
        State of each learner.
    rounds : ndarray, shape (1,), int64
        Rounds that were learnt from.
    settings : tuple of (float, float)
        alpha, and the room that sets the learning rate.
    """
    alpha, room = settings
    n = R.size
    w, cumulative = np.empty(n), np.empty(n)
    for t in range(contexts.size):
        row = _row_of(contexts[t], rows, count)
        log = np.log1p((rounds[0] + 1) / n)
        most = log if alpha == 1 else np.expm1((1 - alpha) * log) / (1 - alpha)
        eta = min(1 / (2 * n), (room / (n * (n * (1 + most)))) ** 0.5)
        _optimistic_point(estimates[row], eta, w)
        mixed = 0.0
        for i in range(n):
            mixed += w[i]
            cumulative[i] = mixed
        arm = _drawn(cumulative, draws[t])
        reward = rewards[t, arm]
        gain = reward * R[arm] ** -alpha
        estimates[row, arm] -= np.log1p(np.expm1(-eta * gain) / w[arm]) / eta
        R[arm] += reward
        rounds[0] += 1


@register_jitable
def _boundary_step(c, direction, scale, moved, step):
    """`boundary_step` of the chapter along `scale` times `direction`."""
    low = np.inf
    for i in range(c.size):
        step[i] = max(scale * direction[i], -c[i])
        low = min(low, c[i] + step[i])
    for i in range(c.size):
        step[i] -= low
        moved[i] = c[i] + step[i]
        if moved[i] <= 1e-14 * (abs(c[i]) + abs(step[i])):
            moved[i], step[i] = 0.0, -c[i]


@register_jitable
def _fair_dual_at(c, scores, factor, q, floor, logs, play, excess):
    """`fair_dual` of the chapter for `factor` times `scores`; returns the value."""
    n, value = c.size, 0.0
    for i in range(n):
        value -= floor * c[i]
        excess[i] = -floor
    for k in range(q.size):
        z, p, top, total = logs[k], play[k], -np.inf, 0.0
        for i in range(n):
            z[i] = q[k] * c[i] + factor * scores[k, i]
            top = max(top, z[i])
        for i in range(n):
            z[i] -= top
            p[i] = _exp(z[i])
        for i in range(n):
            total += p[i]
        log = np.log(total)
        value += top + log
        for i in range(n):
            z[i] -= log
            p[i] /= total
            excess[i] += q[k] * p[i]
    return value


@register_jitable
def _violation(c, excess):
    """Largest violation of the optimality conditions of FairCB's dual."""
    worst = 0.0
    for i in range(c.size):
        if c[i] > 0 or excess[i] < 0:
            worst = max(worst, abs(excess[i]))
    return worst


@register_jitable
def _solve_positive(H, b, size):
    """Solve H x = b in place of `b` by elimination.

    `H` is symmetric and positive definite; its half above the diagonal is read.
    """
    for k in range(size):
        pivot = max(H[k, k], 1e-300)
        for i in range(k + 1, size):
            factor = H[k, i] / pivot
            b[i] -= factor * b[k]
            for m in range(i, size):
                H[i, m] -= factor * H[k, m]
    for k in range(size - 1, -1, -1):
        for m in range(k + 1, size):
            b[k] -= H[k, m] * b[m]
        b[k] /= max(H[k, k], 1e-300)


@register_jitable
def _take_squares(H, D, size):
    """Subtract the products of the first columns of `D`, above the diagonal of `H`.

    Four rows of `D` at once: the inner loops are short, and what costs is their number.
    """
    fours = len(D) - len(D) % 4
    for a in range(size):
        row = H[a]
        for k in range(0, fours, 4):
            one, two, three, four = D[k], D[k + 1], D[k + 2], D[k + 3]
            w, x, y, z = one[a], two[a], three[a], four[a]
            for m in range(a, size):
                row[m] -= (w * one[m] + x * two[m]) + (y * three[m] + z * four[m])
        for k in range(fours, len(D)):
            w = D[k, a]
            for m in range(a, size):
                row[m] -= w * D[k, m]


@register_jitable
def _newton_direction(c, excess, play, q, H, D, free, b, direction):
    """`multiplier_step` of the chapter, over the free multipliers alone."""
    n, last, size = c.size, -1, 0
    for i in range(n):
        if c[i] == 0 and (last < 0 or excess[i] > excess[last]):
            last = i
    for i in range(n):
        if i != last and (c[i] > 0 or excess[i] < 0):
            free[size] = i
            b[size] = -excess[i]
            size += 1
    for a in range(size):
        H[a, a:size] = 0.0
        H[a, a] = 1e-14
    for k in range(q.size):
        for a in range(size):
            D[k, a] = q[k] * play[k, free[a]]
            H[a, a] += q[k] * D[k, a]
    _take_squares(H, D[: q.size], size)
    _solve_positive(H, b, size)
    longest, widest = 1e-300, 0.0
    for k in range(q.size):
        widest = max(widest, q[k])
    for a in range(size):
        longest = max(longest, widest * abs(b[a]))
    direction[:] = 0.0
    for a in range(size):
        direction[free[a]] = b[a] * min(1.0, 30 / longest)


@register_jitable
def _fair_descent(c, losses, factor, q, floor, n_steps, play, scratch):
    """`_newton_descent` of the chapter: success and steps; changes `c` and `play`."""
    logs, new_logs, new_play, D, H, vectors, free = scratch
    excess, new_excess, direction, moved, step, b = vectors
    direction[:] = 0.0
    _boundary_step(c, direction, 1.0, moved, step)
    c[:] = moved
    _fair_dual_at(c, losses, factor, q, floor, logs, play, excess)
    for taken in range(n_steps + 1):
        solved = _violation(c, excess) <= TOLERANCE
        if solved or taken == n_steps:
            return solved, taken
        _newton_direction(c, excess, play, q, H, D, free, b, direction)
        scale = 1.0
        for _ in range(60):
            _boundary_step(c, direction, scale, moved, step)
            change = _fair_dual_at(
                step, logs, 1.0, q, floor, new_logs, new_play, new_excess
            )
            gain, longest = 0.0, 0.0
            for i in range(c.size):
                gain += excess[i] * step[i]
                longest = max(longest, abs(step[i]))
            if change <= 1e-4 * gain + 1e-15 * (q.size + longest):
                break
            scale *= 0.5
        c[:], excess[:] = moved, new_excess
        logs[: q.size], play[: q.size] = new_logs[: q.size], new_play[: q.size]
    return False, n_steps


@register_jitable
def _fair_multipliers(c, losses, eta, q, floor, play, scratch):
    """`fair_multipliers` of the chapter; changes `c`, fills `play`."""
    solved, spent = _fair_descent(c, losses, -eta, q, floor, STAGE_STEPS, play, scratch)
    if solved:
        return
    spread = 1.0
    for k in range(q.size):
        widest = -_smallest(-losses[k]) - _smallest(losses[k])
        spread = max(spread, abs(eta) * widest)
    last, scale, factor = 0.0, 1 / spread, 4.0
    best = np.zeros(c.size)
    while spent < MAX_ITER:
        for i in range(c.size):
            c[i] = best[i] * (scale / last if last > 0 else 1.0)
        solved, taken = _fair_descent(
            c, losses, -eta * scale, q, floor, STAGE_STEPS, play, scratch
        )
        spent += taken
        if solved and scale == 1:
            return
        if solved:
            best[:], last, factor = c, scale, min(factor**2, 16.0)
        else:
            factor = factor**0.5
        scale = min(1.0, last * factor) if last > 0 else scale / 4
    raise RuntimeError("the dual of FairCB needs more Newton steps")


@register_jitable
def _fair_scratch(shape):
    """Arrays that a solution of FairCB's dual needs, for losses of this shape."""
    n = shape[1]
    return (
        np.empty(shape),
        np.empty(shape),
        np.empty(shape),
        np.empty(shape),
        np.empty((n, n)),
        np.empty((6, n)),
        np.empty(n, np.int64),
    )


def fair_solution(c, scores, q, floor):
    """`fair_multipliers` of the chapter.

    Parameters
    ----------
    c : ndarray, shape (N,)
        Multipliers to start from; those of the solution afterwards.
    scores : ndarray, shape (K, N)
        Minus the losses, times the learning rate.
    q : ndarray, shape (K,)
        Probability of each context.
    floor : float
        Least probability of each arm.

    Returns
    -------
    play : ndarray, shape (K, N)
    """
    play = np.empty(scores.shape)
    _fair_multipliers(c, scores, -1.0, q, floor, play, _fair_scratch(scores.shape))
    return play


def fair_rounds(
    contexts, rewards, draws, R, rows, count, losses, visits, multipliers, q, settings
):
    """Rounds of FairCB, with bandit feedback or full information.

    Parameters
    ----------
    contexts, rewards : ndarray, shapes (T,) and (T, N)
    draws : ndarray, shape (T,)
        Unused with full information.
    R : ndarray, shape (N,)
        Cumulative rewards.
    rows, count : ndarray
        See the head of the module.
    losses, visits : ndarray, shapes (L, N) and (L,)
        State of each context.
    multipliers : ndarray, shape (N,)
        Those of the last round.
    q : ndarray, shape (L,)
        Given probabilities of the contexts; overwritten if they are not given.
    settings : tuple of (float, float, bool, bool)
        Learning rate, floor, probabilities given, bandit feedback.
    """
    eta, floor, given, bandit = settings
    n = R.size
    play, c, cumulative = np.empty(losses.shape), multipliers.copy(), np.empty(n)
    scratch = _fair_scratch(losses.shape)
    for t in range(contexts.size):
        row = _row_of(contexts[t], rows, count)
        K, r = count[0], rewards[t]
        if not given:
            total = 1.0
            for k in range(K):
                total += visits[k]
            for k in range(K):
                q[k] = (visits[k] + (k == row)) / total
        _fair_multipliers(c, losses, eta, q[:K], floor, play, scratch)
        p = play[row]
        visits[row] += 1
        if bandit:
            total = 0.0
            for i in range(n):
                total += p[i]
                cumulative[i] = total
            arm = _drawn(cumulative, draws[t])
            losses[row, arm] += (1 - r[arm]) / p[arm]
            R[arm] += r[arm]
        else:
            for i in range(n):
                losses[row, i] += 1 - r[i]
                R[i] += r[i] * p[i]
    multipliers[:] = c
