# %% [markdown]
r"""
# Slates: fair play when several arms are chosen at once

A cache holds 3 of 18 genres, and a person asks for what they like.
On 3000 ratings a cache that aims at hits alone scores 1.27 of them a round and a fair one 0.79, but Jain's index of the first is 0.29 and of the second 0.51.
Does the theory of this book survive a choice of $k$ arms out of $N$?

It survives with one condition, that no arm is chosen twice.
The learner projects onto another set, its regret grows by the factor $\sqrt{\min(k,N-k)}$, the offline optimum keeps its certificate, and $c_\alpha$ is the right factor for every $k$ as long as nothing bounds $N$.
A cache that holds more than the share $1-\alpha$ of all files is a different matter: uniform play is then better than $c_\alpha$ promises.

## Notation

| symbol | in code | meaning |
| --- | --- | --- |
| $k$ | `slate` | number of arms chosen in each round, $1\le k\le N$ |
| $\Delta_k$ | | capped simplex $\{x\in[0,1]^N:\sum_ix_i=k\}$ |
| $\Pi_k$ | `capped_projection` | Euclidean projection onto $\Delta_k$ |
| $m$ | | $\min(k,N-k)$ |
| $x(t)\in\Delta_k$ | `points` | inclusion probabilities; arm $i$ earns $r_i(t)x_i(t)$ |
| $\Sigma_k(v)$ | `largest_sum` | sum of the $k$ largest entries of $v$ |
| $\zeta$ | | $1-\frac1N$, as in [online gradient](online_gradient.ipynb) |
| $g$, $S_j$, $V$, $R$, $U$, $c_\alpha$ | | as in [full information](full_information.ipynb) |

A set of $k$ arms is a vertex of $\Delta_k$, and every point of $\Delta_k$ is a mixture of such sets; [drawing a slate](#drawing-a-slate) makes one.
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it fetches the book, installs the package
# # and goes to the folder of this chapter.
# import sys
#
# if "google.colab" in sys.modules:
#     !git clone --quiet --depth 1 https://github.com/prunefair/prunefair /content/book
#     %pip install --quiet "/content/book"
#     %cd -q /content/book/book/fairness

# %%
from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from prunefair.fairness.full_information import (
    context_norms,
    linear_regret,
)
from prunefair.fairness.limits import nested_ceiling, phase_stream
from prunefair.fairness.offline_optimum import (
    OfflineOptimum,
    arrow_solver,
    check_range,
    check_sums,
    gap_unit,
    reward_unit,
)

# %%
from prunefair.fairness.online_gradient import (
    AdaptiveState,
    GradientPath,
    regret_factor,
    simplex_projection,
)
from prunefair.fairness.policy import (
    check_alpha,
    check_count,
)
from prunefair.fairness.simulation import Game, RewardStream
from prunefair.fairness.utility import (
    alpha_fair_utility,
    concave_conjugate,
    fenchel_young_gap,
    utility_gradient,
)
from prunefair.messages import shown

# %% tags=["active-ipynb"]
# from functools import partial
#
# import cvxpy as cp
#
# from prunefair.fairness.adversaries import play_suite
# from prunefair.fairness.full_information import approximation_factor
# from prunefair.fairness.offline_optimum import reward_sums
# from prunefair.fairness.online_gradient import gradient_path
# from prunefair.fairness.ratings import load_ratings, movielens_stream
# from prunefair.fairness.simulation import simulate
# from prunefair.fairness.slate_policy import SlateGradient
# from prunefair.fairness.utility import jain_index
# from prunefair.plotting import figure

# %% tags=["active-ipynb"]
# SEED = 31
# rng = np.random.default_rng(SEED)


# %%
def check_slate(slate: int, n_arms: int) -> int:
    """Return `slate` as an int, or raise if no slate of so many arms can be chosen.

    Parameters
    ----------
    slate : int
        Number of arms in a slate, $k$.
    n_arms : int
        Number of arms $N$.

    Returns
    -------
    slate : int

    Raises
    ------
    ValueError
        If `slate` is no whole number from 1 to `n_arms`.
    """
    k = check_count(slate, "slate")
    if k > n_arms:
        raise ValueError(
            f"slate is {k}, more than there are arms; choose at most {n_arms} of them"
        )
    return k


# %% [markdown]
# ## Projection onto the capped simplex
#
# As for the simplex one number does it, and now each entry is cut from above as well.
#
# **Theorem (Projection onto the capped simplex).** <a id="thm-slates-projection"></a>
# Let $1\le k\le N$ and $h(\tau)=\sum_i\min(\max(v_i-\tau,0),1)$.
# The equation $h(\tau)=k$ has a solution, with every solution
#
# <a id="eq-slates-projection"></a>
# $$
# \Pi_k(v)_i=\min(\max(v_i-\tau,0),1),
# $$ (eq-slates-projection)
#
# and there is one with $u_k-1\le\tau\le u_k$, where $u_k$ is the $k$-th largest entry of $v$.
# So $v$ may be replaced by $\min(\max(v-u_k,-1),1)$ without changing the projection.
# A point $p\in\Delta_k$ is $\Pi_k(v)$ if and only if $\Sigma_k(v-p)\le\langle v-p,p\rangle$.
#
# **Proof.**
# $h$ is continuous and does not increase.
# At $\tau=u_k-1$ at least $k$ terms are 1, so $h\ge k$; at $\tau=u_k$ at most $k-1$ terms are positive, so $h<k$.
# Hence there is a root $\tau$ between the two.
# Let $p$ be the right side of [(eq-slates-projection)](#eq-slates-projection) with any root; then $p\in\Delta_k$.
# Where $0<p_i<1$, $v_i-p_i=\tau$; where $p_i=0$, $v_i-p_i\le\tau$; where $p_i=1$, $v_i-p_i\ge\tau$.
# So $(v_i-p_i-\tau)(q_i-p_i)\le0$ for every $q\in\Delta_k$ and every $i$, and since $\sum_i(q_i-p_i)=0$ the sum over $i$ is $\langle v-p,q-p\rangle\le0$.
# This is what characterises a projection onto a convex set: it makes $\lVert v-q\rVert^2=\lVert v-p\rVert^2+2\langle v-p,p-q\rangle+\lVert p-q\rVert^2$ at least $\lVert v-p\rVert^2$, and no second point of $\Delta_k$ has it, by the argument of [Lemma (What the projection gives)](online_gradient.ipynb#lem-online-gradient-projection).
# The largest $\langle v-p,q\rangle$ over $q\in\Delta_k$ is $\Sigma_k(v-p)$: moving mass from a smaller to a larger entry until the latter is full never lowers the product.
#
# For the replacement subtract $u_k$ first, which moves $\tau$ into $[-1,0]$.
# Then every entry of at least 1 is cut to 1 and every entry of at most $-1$ to 0, whatever its size. ∎
#
# Between two neighbours among the $2N$ numbers $v_i-1,v_i$ the function $h$ is linear, so sorting them and adding up its slopes finds the root in $O(N\log N)$ operations.
# After the replacement all of them lie in $[-2,1]$: no input is too large for the sums.


# %%
def capped_projection(v: np.ndarray, slate: int) -> np.ndarray:
    r"""Euclidean projection of `v` onto the capped simplex, $\Pi_k(v)$.

    Parameters
    ----------
    v : ndarray, shape (N,), float64
        Point to project; finite; no unit.
    slate : int
        Sum $k$ of the result, from 1 to $N$.

    Returns
    -------
    p : ndarray, shape (N,), float64
        Entries in [0, 1] whose sum is $k$ to rounding; for $k = 1$ to the byte what
        `simplex_projection` returns.

    Raises
    ------
    ValueError
        If `v` is not a finite vector, or `slate` out of range.

    References
    ----------
    Book {eq}`eq-slates-projection`.

    Examples
    --------
    >>> import numpy as np
    >>> from prunefair.fairness.slates import capped_projection
    >>> capped_projection(np.array([5.0, 0.5, 0.25, -1.0]), 2)
    array([1.   , 0.625, 0.375, 0.   ])
    """
    if v.ndim != 1 or not (v.size and np.isfinite(v).all()):
        raise ValueError(f"v is {v!r}; it must be a finite vector, not empty")
    k = check_slate(slate, v.size)
    return simplex_projection(v) if k == 1 else _clipped(v, k)


def _clipped(v: np.ndarray, k: int) -> np.ndarray:
    """The projection by sorting, for every k."""
    with np.errstate(over="ignore"):  # entries 1e308 apart: infinite, cut next
        v = np.clip(v - np.partition(v, -k)[-k], -1, 1)
    order = np.argsort(np.concatenate([v - 1, v]), kind="stable")
    tau = np.concatenate([v - 1, v])[order]  # (2N,) ascending
    slope = np.cumsum(np.where(order < v.size, 1, -1))  # (2N,) how fast h falls
    h = v.size - np.concatenate([[0], np.cumsum(slope[:-1] * np.diff(tau))])
    last = int((h >= k).nonzero()[0][-1])  # h(tau) = k here or before the next one
    excess = (h[last] - k) / slope[last] if h[last] > k else 0.0
    return np.clip(v - tau[last] - excess, 0, 1)


# %% [markdown]
# For slates of two among three arms the set is a triangle once more, in the middle of a larger one.
# Look at the corners of the larger one: there a single arm would fill both places.


# %%
def plot_capped(ax, points, slate: int = 2):
    """Points of the plane of three arms and their projections under a cap."""
    plane = np.array([[0, 0], [1, 0], [0.5, 0.75**0.5]])
    sets, centre = (1 - np.eye(3)) @ plane, slate * plane.mean(0)
    ax.fill(*(slate * plane).T, fc="none", ec="0.6", ls=":")
    ax.fill(*sets.T, fc="0.93", ec="0.4", ls="-")
    for v in points:
        v = v + (slate - v.sum()) / 3  # into the plane
        ends = np.array([v, capped_projection(v, slate)]) @ plane
        ax.plot(*ends.T, "C1--")
        ax.plot(*ends[0], "C0o")
        ax.plot(*ends[1], "ko")
    for i, (twice, others) in enumerate(zip(slate * plane, sets)):
        pair = "{" + ", ".join(str(j) for j in range(3) if j != i) + "}"
        for words, corner, by in ((f"{i} twice", twice, 1.1), (pair, others, 1.25)):
            x, y = centre + by * (corner - centre)
            ax.text(x, y, words, ha="center", va="center")
    ax.set(aspect="equal")
    ax.axis("off")
    return ax


# %% tags=["active-ipynb"]
# aims = [[1.5, 0.6, -0.1], [0.1, 1.7, 0.2], [0.9, 0.7, 0.4], [0.2, 0.6, 1.2]]
# with figure(figsize=(5.6, 3.8)) as ax:
#     plot_capped(ax, np.array(aims))

# %% [markdown]
# **Figure (fig-slates-capped).** <a id="fig-slates-capped"></a> Slates of two among three arms. Grey: the capped simplex, whose corners are the three slates. Dotted: what would be allowed if an arm could fill both places. Blue points are projected along the dashed lines to the nearest point of the grey set; the one that lies in it stays.

# %% [markdown]
# By hand: in the example above $\tau=-\frac18$, the first entry is full and the other two share what is left.
# The last statement of the theorem pins the point, so it is the check, on ties, on entries of $10^{\pm17}$ and at the ends of the floating-point range; cvxpy agrees on moderate ones.


# %%
def largest_sum(v: np.ndarray, slate: int) -> np.ndarray:
    r"""Sum of the $k$ largest entries along the last axis, $\Sigma_k(v)$.

    Parameters
    ----------
    v : ndarray, shape (..., N), float64
    slate : int
        $k$, from 1 to $N$.

    Returns
    -------
    total : ndarray, shape (...), float64
    """
    return np.partition(v, -slate, axis=-1)[..., -slate:].sum(-1)


def _projection_share(points, slates, project: Callable = capped_projection) -> float:
    """Largest miss of the theorem's condition, over what rounding allows."""
    share = 0.0
    for v in points:
        for k in slates:
            p = project(v, min(k, v.size))
            k = min(k, v.size)
            outside = max(-p.min(), p.max() - 1, abs(p.sum() - k))
            w = np.clip(v / 2 - np.partition(v, -k)[-k] / 2, -0.5, 0.5) * 2
            obtuse = largest_sum(w - p, k) - (w - p) @ p
            share = max(share, outside / (1e-14 * v.size), obtuse / (1e-13 * v.size))
    return share


# %% tags=["active-ipynb"]
# huge, tiny = 1e17, 1e-17
# points = [np.zeros(6), np.full(6, huge), np.array([huge, huge, -huge, 1.0])]
# points += [np.array([1e308, -1e308, 0, 1, 2]), np.array([tiny, 2 * tiny, -tiny])]
# points += [rng.integers(-4, 5, 20) / 4 for _ in range(50)]
# assert _projection_share(points, range(1, 21)) <= 1
# np.testing.assert_allclose(_clipped(points[-1], 1), simplex_projection(points[-1]))
# p, v = cp.Variable(8), cp.Parameter(8)
# inside = [p >= 0, p <= 1, cp.sum(p) == 3]
# nearest = cp.Problem(cp.Minimize(cp.sum_squares(p - v)), inside)
# for v.value in rng.normal(size=(20, 8)) * 2:
#     nearest.solve(solver=cp.CLARABEL)
#     np.testing.assert_allclose(capped_projection(v.value, 3), p.value, atol=1e-6)

# %% [markdown]
# ## What a wider set costs the learner
#
# Two slates differ in at most $2m$ arms, where $m=\min(k,N-k)$: two points of the set can be $\sqrt m$ times as far apart as in the simplex.
# A step longer by the same factor balances the proof again.
#
# <a id="eq-slates-step"></a>
# $$
# \begin{gathered}
# x_{t+1}=\Pi_k\Big(x_t+\sqrt{\max(m,1)}\,\frac{g_t}{\sqrt{S_t}}\Big),\\
# x_1=\tfrac kN\mathbf 1,\qquad S_t=\sum_{s\le t}\lVert g_s\rVert^2 .
# \end{gathered}
# $$ (eq-slates-step)
#
# **Theorem (Regret of the step for slates).** <a id="thm-slates-regret"></a>
# Let $g_1,g_2,\dots$ have no negative entry; $g_t$ may depend on $x_1,\dots,x_t$.
# For every $u\in\Delta_k$ and every $T$
#
# <a id="eq-slates-regret"></a>
# $$
# \mathrm{Reg}_T(u)=\sum_{t\le T}\langle g_t,u-x_t\rangle\le\Big(2-\frac1N\Big)\sqrt{m\,S_T}.
# $$ (eq-slates-regret)
#
# For $u=\frac kN\mathbf 1$ the right side may be replaced by $\frac32\sqrt{m\,S_T}$.
# No learner has a factor of $\sqrt{mS_T}$ below $1/\sqrt\pi$ for gradients of either sign and all $T$.
#
# **Proof.**
# If $m=0$, $\Delta_k$ is one point and both sides are zero; let $m\ge1$.
# The proof of [Theorem (Regret of the adaptive step)](online_gradient.ipynb#thm-online-gradient-regret) uses of $\Delta$ only that it is convex, that its points have equal sums, and the largest $d_t=\lVert x_t-u\rVert^2$.
# With steps $\sqrt m/\sqrt{S_t}$ its one-step inequality reads
# $\langle g_t,u-x_t\rangle\le\frac1{2\sqrt m}(d_t-d_{t+1})\sqrt{S_t}+\frac{\sqrt m}2\lVert Pg_t\rVert^2/\sqrt{S_t}$, and its two sums give
#
# <a id="eq-slates-balance"></a>
# $$
# \mathrm{Reg}_T(u)\le\Big(\frac{\bar d_u}{2\sqrt m}+\zeta\sqrt m\Big)\sqrt{S_T},\qquad\bar d_u=\max_{x\in\Delta_k}\lVert x-u\rVert^2 .
# $$ (eq-slates-balance)
#
# $\lVert x-u\rVert^2$ is convex in $x$ and in $u$, so it is largest at two vertices, slates $A$ and $B$, where it is $2(k-|A\cap B|)\le2m$, because $|A\cap B|\ge\max(0,2k-N)$.
# That gives $1+\zeta=2-\frac1N$ times $\sqrt m$.
# At $u=\frac kN\mathbf 1$ every vertex has the distance $\bar d_u=k-\frac{k^2}N=\frac{k(N-k)}N\le m$, and $\frac12+\zeta\le\frac32$.
#
# *Below.* Take $m$ pairs of arms, which leaves $N-2m\ge k-m$ others.
# In round $t$ let $g_t$ be $\varepsilon_t$ on the first arm of each pair, $-\varepsilon_t$ on the second and 0 elsewhere, with fair independent signs.
# Every learner earns 0 in the mean.
# The slate of all first or all second arms and $k-m$ others earns $m|\sum_t\varepsilon_t|$, in the mean $m\sqrt{2T/\pi}$ up to a factor that tends to 1.
# As $S_T=2mT$, this is $\sqrt{mS_T/\pi}$. ∎
#
# So the price of a slate is a factor $\sqrt m$, and it is real.
# It is not monotone in $k$: to leave out one arm is as easy as to choose one.


# %%
def slate_factor(n_arms: int, slate: int) -> float:
    r"""The factor $(2 - 1/N) \sqrt{m}$ of $\sqrt{S_T}$ in the regret.

    Parameters
    ----------
    n_arms : int
        Number of arms $N$.
    slate : int
        Number of arms chosen, $k$.

    Returns
    -------
    factor : float

    Raises
    ------
    ValueError
        If `slate` is out of range.

    References
    ----------
    Book {eq}`eq-slates-regret`.
    """
    k = check_slate(slate, n_arms)
    return regret_factor(n_arms, nonnegative=True) * min(k, n_arms - k) ** 0.5


# %%
def slate_step(state: AdaptiveState, gradient: np.ndarray, slate: int) -> AdaptiveState:
    """State after one gradient, for slates.

    Parameters
    ----------
    state : AdaptiveState
        $x_t$ and $S_{t-1}$; unchanged.
    gradient : ndarray, shape (N,), float64
        $g_t$, finite.
    slate : int
        Number of arms chosen, $k$.

    Returns
    -------
    state : AdaptiveState
        For $k = 1$ to the byte what `adaptive_step` returns.

    References
    ----------
    Book {eq}`eq-slates-step`.
    """
    total = state.squared_norms + float(gradient @ gradient)
    if total == 0:
        return state
    width = max(min(slate, gradient.size - slate), 1) ** 0.5
    moved = state.point + width * gradient / total**0.5
    return AdaptiveState(capped_projection(moved, slate), total)


# %%
def slate_path(gradients: np.ndarray, slate: int) -> GradientPath:
    """Path of the learner for slates over the rows of `gradients`, shape (T, N)."""
    n = gradients.shape[1]
    state, points, totals = AdaptiveState(np.full(n, slate / n), 0.0), [], []
    points.append(state.point)
    for g in gradients:
        state = slate_step(state, g, slate)
        points.append(state.point)
        totals.append(state.squared_norms)
    return GradientPath(gradients, np.array(points), np.array(totals))


def _regret_share(path: GradientPath, slate: int, factor=slate_factor) -> float:
    """Largest regret against the best slate, over `factor` and the root of S."""
    earned = np.cumsum((path.gradients * path.points[:-1]).sum(1))
    best = largest_sum(np.cumsum(path.gradients, axis=0), slate)
    allowed = factor(path.gradients.shape[1], slate) * path.totals**0.5
    return ((best - earned) / np.maximum(allowed, 1e-12)).max()


# %% [markdown]
# The check runs random gradients, a change of the good half, and a constant gradient on $k=N/2$ arms, whose very first round costs $\frac12\sqrt{mS}$.

# %% tags=["active-ipynb"]
# worst = 0.0
# for n, k in [(2, 1), (6, 2), (6, 4), (6, 5), (64, 32)]:
#     half = np.repeat(np.eye(2), [k, n - k], axis=1)  # the first k arms, the others
#     streams = [half[[0] * 50], half[[0] * 25 + [1] * 75], rng.random((200, n))]
#     worst = max([worst, *(_regret_share(slate_path(g, k), k) for g in streams)])
# assert worst <= 1
# g = rng.random((50, 5))
# assert (slate_path(g, 1).points == gradient_path(g).points).all()
# print(f"largest share of the bound: {worst:.2f}")

# %% [markdown]
# ## The policy and its guarantee
#
# [Lemma (Telescoping)](full_information.ipynb#lem-full-information-telescoping) asks that an arm earn at most $R_i(0)=1$ in a round, that is $x_i(t)\le1$.
# The cap of $\Delta_k$ gives just this.
# The reduction uses nothing else of $x(t)$, and nothing at all of $x^*$ but that it has no negative entry.
#
# **Theorem (Fair slates).** <a id="thm-slates-fair"></a>
# For every policy that plays $x(t)\in[0,1]^N$ and every map $x^*$ into $\Delta_k$, [(eq-full-information-reduction)](full_information.ipynb#eq-full-information-reduction) holds as it stands.
# One learner [(eq-slates-step)](#eq-slates-step) a context, with surrogate rewards $g_i(t)=R_i(t-1)^{-\alpha}r_i(t)$, has on every sequence, at every $T$
#
# <a id="eq-slates-certificate"></a>
# $$
# U^*-c_\alpha U\le(1-\alpha)^\alpha\Big[\Big(2-\frac1N\Big)\sqrt m\sum_j\sqrt{S_j}-\frac{N\alpha}{1-\alpha}\Big],
# $$ (eq-slates-certificate)
#
# and here
#
# <a id="eq-slates-explicit"></a>
# $$
# \begin{gathered}
# \sqrt m\sum_j\sqrt{S_j}\le\tfrac32NM+\sqrt{NMU},\\
# U\le\frac{N^\alpha(N+kT)^{1-\alpha}}{1-\alpha}.
# \end{gathered}
# $$ (eq-slates-explicit)
#
# **Proof.**
# *Certificate.* The reduction was discussed above; insert [Theorem (Regret of the step for slates)](#thm-slates-regret) for each context.
#
# *Norms.* If $m=0$ the left side is zero.
# Entries of $g$ lie in $[0,1]$, so $S_j\le\sum_{t:j_t=j}\sum_ig_i(t)=\frac Nk\sum_{t:j_t=j}\langle g(t),\frac kN\mathbf 1\rangle$.
# Let $V_j$ be the context's share of $V$.
# The theorem with $u=\frac kN\mathbf 1$ bounds the sum by $V_j+\frac32\sqrt{mS_j}$, hence
# $S_j\le\frac NkV_j+\frac{3N}{2k}\sqrt m\sqrt{S_j}$.
# A number with $s^2\le a+bs$ is at most $b+\sqrt a$, so $\sqrt{S_j}\le\frac{3N}{2k}\sqrt m+\sqrt{NV_j/k}$.
# Multiply by $\sqrt m$ and use $m\le k$: $\sqrt{mS_j}\le\frac32N+\sqrt{NV_j}$.
# Sum over the contexts with Cauchy–Schwarz and $\sum_jV_j=V\le U$.
#
# *Utility.* $\sum_iR_i\le N+kT$, and Jensen's inequality. ∎
#
# Apart from the utility itself the slate has dropped out: the bound is that for single arms, with what $k$ arms a round can earn in place of what one can.
# So $U^*-c_\alpha U=O\big(\sqrt M\,N^{(1+\alpha)/2}(kT)^{(1-\alpha)/2}\big)$.
# The condition that no arm is chosen twice is needed: if an arm could be played five times in a round, it would earn 5 at the weight 1, where $\phi$ grows by less, and the telescoping lemma fails.

# %% tags=["active-ipynb"]
# earned, a = 5.0, 0.5  # alpha = 1/2, from R = 1 to R = 6 in one round
# left = earned * 1.0 + (1 + earned) ** -a
# right = (1 + earned) ** (1 - a) / (1 - a) - a / (1 - a)
# assert left > right + 1


# %% [markdown]
# The policy is `SlateGradient` of `prunefair.fairness.slate_policy`, the coupled policy with another set: for $k=1$ it plays as `AlphaFairGradient` to the byte.
# What arms that come and go, files and masks need is the same projection.
# Under a mask the play is projected onto the slates of what is left: each arm that may be played then has at least its share of before, since $\tau\le0$.

# %% [markdown]
# The two functions below put numbers to the theorem; they wait for the best maps, which the next section finds.


# %%
def _reduced_share(game: Game, fixed_map: np.ndarray, slate: int, factor=slate_factor):
    """Largest linear regret over `factor` times the sum of the roots of the norms."""
    roots = np.sqrt(context_norms(game)).sum(1)
    allowed = factor(game.rewards.shape[1], slate) * roots
    return (linear_regret(game, fixed_map) / np.maximum(allowed, 1e-12)).max()


def _explicit_bound(U, n_contexts: int, n_arms: int):
    """The right side of the bound of the norms."""
    return 1.5 * n_arms * n_contexts + np.sqrt(n_arms * n_contexts * U)


def _explicit_share(game: Game, slate: int, bound: Callable = _explicit_bound):
    """Largest root of the norms over its bound."""
    n = game.rewards.shape[1]
    roots = min(slate, n - slate) ** 0.5 * np.sqrt(context_norms(game)).sum(1)
    utility = alpha_fair_utility(game.cumulative[1:], game.alpha)
    return (roots / bound(utility, game.n_contexts, n)).max()


# %% [markdown]
# ## The offline optimum
#
# A context sells its rounds to the $k$ arms that pay most for them.
# With $\Sigma_k$ in place of the maximum the dual of [the offline optimum](offline_optimum.ipynb) is
#
# <a id="eq-slates-dual"></a>
# $$
# D_k(p)=\sum_j\Sigma_k\big((p_iG_{ji})_i\big)+\sum_ic_ip_i-\sum_i\phi_*(p_i).
# $$ (eq-slates-dual)
#
# **Theorem (The certificate for slates).** <a id="thm-slates-offline"></a>
# For every map $x$ into $\Delta_k$ and all prices, $U(x)\le D_k(p)$, and with $p=\phi'(R(x))$
#
# <a id="eq-slates-gap"></a>
# $$
# \begin{aligned}
# \max_{x'}U(x')-U(x)&\le D_k(p)-U(x)\\
# &=\sum_j\Big(\Sigma_k\big((p_iG_{ji})_i\big)-\sum_ip_iG_{ji}x_{ji}\Big),
# \end{aligned}
# $$ (eq-slates-gap)
#
# where the right side is zero if and only if $x$ is optimal.
#
# **Proof.**
# $D_k(p)-U(x)$ is the sum over $j$ on the right of [(eq-slates-gap)](#eq-slates-gap), at any prices, plus $\sum_i(p_iR_i-\phi(R_i)-\phi_*(p_i))$: add and subtract $\sum_ip_iR_i(x)$.
# The second is not negative by Fenchel–Young and zero at $p=\phi'(R(x))$.
# The first is not negative because $\Sigma_k(v)$ is the largest $\langle v,q\rangle$ over $q\in\Delta_k$.
# At $p=\phi'(R(x))$ it is also the largest derivative of the concave $U$ at $x$ towards another map, which is zero exactly at an optimum. ∎
#
# A gap of zero thus proves a map of slates optimal, as it did for single arms.
# The solver follows the path of [the offline optimum](offline_optimum.ipynb) with a second family of slacks: $z_{ji}$ belongs to $x_{ji}\ge0$ and $w_{ji}$ to $x_{ji}\le1$, with $z-w=y_j-p_iG_{ji}$ and $xz=(1-x)w=\mu$.
# After the elimination of $z$ and $w$ the Newton system is the same arrow, with $\theta=(z/x+w/(1-x))^{-1}$.


# %%
def slate_certificate(x, G, alpha: float, slate: int, initial=1.0, *, p=None) -> float:
    r"""Gap $D_k(p) - U(x)$: how far the map `x` into slates can be from the optimum.

    Parameters
    ----------
    x : ndarray, shape (M, N), float64
        Inclusion probabilities for each context.
    G : array_like, shape (M, N)
        Reward sums, reward units.
    alpha : float
        Fairness parameter, finite.
    slate : int
        Number of arms chosen, $k$.
    initial : float or array_like of shape (N,)
        Initial rewards, reward units.
    p : ndarray, shape (N,), optional
        Positive prices, utility units a reward unit; $\phi'(R(x))$ by default.

    Returns
    -------
    gap : float
        Utility units, at least what the best map has more.

    Raises
    ------
    ValueError
        If an argument is out of range, or a row of `x` is not in the capped simplex.

    References
    ----------
    Book {eq}`eq-slates-gap`.
    """
    G, c = check_sums(G, initial)
    k = check_slate(slate, G.shape[1])
    x = np.asarray(x, dtype=np.float64)
    fits = x.shape == G.shape and (x >= 0).all() and (x <= 1 + 1e-12).all()
    if not fits or not np.allclose(x.sum(1), k, rtol=0, atol=1e-9):
        raise ValueError(
            f"x is {shown(x)}; it must have shape {G.shape}, entries in [0, 1] and "
            f"rows whose sum is {k}"
        )
    R = c + (G * x).sum(0)  # (N,)
    check_range(R, alpha)
    wrongly = 0.0 if p is None else max(fenchel_young_gap(R, p, alpha), 0.0)
    pG = (utility_gradient(R, alpha) if p is None else p) * G  # (M, N)
    return float((largest_sum(pG, k) - (x * pG).sum(1)).sum()) + wrongly


# %%
class SlatePoint(NamedTuple):
    """Map `x`, prices `p` and `y`, slacks `z` and `w` of the path, or a change."""

    x: np.ndarray
    p: np.ndarray
    y: np.ndarray
    z: np.ndarray
    w: np.ndarray


def _direction(point: SlatePoint, R, G, alpha, slate) -> Callable:
    """Newton direction, as a function of the targets of xz and (1 - x)w."""
    x, p, y, z, w = point
    theta, kappa = 1 / (z / x + w / (1 - x)), R / (alpha * p)  # (M, N), (N,)
    B = theta * G
    solve = arrow_solver(kappa + (B * G).sum(0), B, theta.sum(1))
    drift = kappa * p * (np.log(p) + alpha * np.log(R))  # (N,)
    infeasible = y[:, None] - p * G - z + w  # (M, N)

    def direction(low, high) -> SlatePoint:
        b = low / x - z - high / (1 - x) + w - infeasible
        missing = x.sum(1) - slate
        q, dy = solve((B * b).sum(0) + drift, (theta * b).sum(1) + missing)
        dx = theta * (b - G * q - dy[:, None])
        dz = (low - z * dx) / x - z
        return SlatePoint(dx, -q, dy, dz, (high + w * dx) / (1 - x) - w)

    return direction


# %%
def _lengths(point: SlatePoint, R, step: SlatePoint, G) -> tuple[float, float]:
    """Primal and dual steps, at most 1, that stay well inside the domain."""

    def reach(values, change):
        shrink = -(change / values).min()
        return 1 / shrink if shrink > 0 else np.inf

    primal = min(reach(point.x, step.x), reach(1 - point.x, -step.x))
    dual = min(reach(point.z, step.z), reach(point.w, step.w))
    earned = reach(R, (G * step.x).sum(0))
    return (
        min(1.0, 0.995 * primal, 0.8 * earned),
        min(1.0, 0.995 * dual, 0.8 * reach(point.p, step.p)),
    )


# %%
def _next(point: SlatePoint, R, G, alpha, slate) -> SlatePoint:
    """One predictor-corrector step."""
    x, p, y, z, w = point
    direction = _direction(point, R, G, alpha, slate)
    guess = direction(0.0, 0.0)
    a, b = _lengths(point, R, guess, G)
    mu = (x * z + (1 - x) * w).mean()
    low = (x + a * guess.x) * (z + b * guess.z)
    reached = (low + (1 - x - a * guess.x) * (w + b * guess.w)).mean()
    behind = min(0.3 * fenchel_young_gap(R, p, alpha) / x.size, mu)
    target = max((reached / mu) ** 3 * mu, behind) / 2
    step = direction(target - guess.x * guess.z, target + guess.x * guess.w)
    a, b = _lengths(point, R, step, G)
    lengths = (a, b, b, b, b)
    return SlatePoint(*(v + s * d for v, s, d in zip(point, lengths, step)))


# %%
def _followed(G, c, alpha, slate, rtol, max_iter):
    """Map and prices of relative gap `rtol`, and the number of steps they took."""
    unit = reward_unit(G, c)
    check_range(c + G.sum(0) * slate / G.shape[1], alpha)  # of uniform play
    G, c = G / unit, c / unit
    x = np.full(G.shape, slate / G.shape[1])
    p = (c + (G * x).sum(0)) ** -alpha
    y = np.partition(p * G, -slate, axis=1)[:, -slate]
    slack, over = 0.1 * (p * G).max(), p * G - y[:, None]
    z, w = np.maximum(-over, 0) + slack, np.maximum(over, 0) + slack
    point = SlatePoint(x, p, y, z, w)
    for iteration in range(max_iter):
        R = c + (G * point.x).sum(0)
        gap = slate_certificate(point.x, G, alpha, slate, c, p=point.p)
        if gap <= rtol * gap_unit(R, alpha):
            return point.x, point.p * unit**-alpha, iteration
        point = _next(point, R, G, alpha, slate)
    raise RuntimeError(
        f"max_iter = {max_iter} steps left a gap of {gap:.1e}; raise rtol"
    )


# %%
def solve_slates(
    G, alpha: float, slate: int, *, initial=1.0, rtol: float = 1e-9, max_iter: int = 100
) -> OfflineOptimum:
    r"""The best fixed map of contexts to slates, with its certificate.

    Parameters
    ----------
    G : array_like, shape (M, N)
        Reward sums, reward units; finite, none negative.
    alpha : float
        Fairness parameter, finite.
    slate : int
        Number of arms chosen in each round, $k$.
    initial : float or array_like of shape (N,)
        Initial rewards $c_i > 0$, reward units.
    rtol : float
        Largest gap relative to $\min(|U|, \sum_i R_i^{1-\alpha})$; no unit.
    max_iter : int
        Largest number of Newton steps; 10 to 20 are usual.

    Returns
    -------
    optimum : OfflineOptimum
        Rows of `x` are inclusion probabilities.

    Raises
    ------
    ValueError
        If an argument is out of range.
    RuntimeError
        If `max_iter` steps do not reach `rtol`.

    References
    ----------
    Book {eq}`eq-slates-gap`.

    Examples
    --------
    >>> from prunefair.fairness.slates import solve_slates
    >>> optimum = solve_slates([[3.0, 1.0, 2.0], [0.0, 4.0, 4.0]], 0.5, slate=2)
    >>> optimum.gap < 1e-6
    True
    """
    alpha = check_alpha(alpha)
    G, c = check_sums(G, initial)
    k = check_slate(slate, G.shape[1])
    x, p, iterations = np.full(G.shape, k / G.shape[1]), None, 0
    seen = G.max(1) > 0
    if alpha == 0:
        x = np.zeros(G.shape)
        np.put_along_axis(x, np.argpartition(G, -k, axis=1)[:, -k:], 1.0, axis=1)
    elif k < G.shape[1] and seen.any():
        x[seen], p, iterations = _followed(G[seen], c, alpha, k, rtol, max_iter)
    gap, R = slate_certificate(x, G, alpha, k, c, p=p), c + (G * x).sum(0)
    utility, p = alpha_fair_utility(R, alpha), utility_gradient(R, alpha)
    return OfflineOptimum(x, R, utility, utility + gap, gap, p, iterations)


# %%
def slate_dual(p, G, alpha: float, slate: int, initial=1.0) -> float:
    """Dual objective $D_k(p)$: no map of contexts to slates has a larger utility.

    Parameters
    ----------
    p : ndarray, shape (N,), float64
        Prices, utility units a reward unit.
    G, alpha, slate, initial
        As for `slate_certificate`.

    Returns
    -------
    D : float
        Utility units.

    References
    ----------
    Book {eq}`eq-slates-dual`.
    """
    G, c = check_sums(G, initial)
    sold = largest_sum(np.asarray(p) * G, check_slate(slate, G.shape[1])).sum()
    return float(sold + np.asarray(p) @ c - concave_conjugate(p, alpha).sum())


def _offline_share(maps, G, alpha, slate, dual=slate_dual) -> float:
    """Largest utility of the first map over the dual at the prices of any map."""
    rewards = [1 + (G * x).sum(0) for x in maps]
    utility = alpha_fair_utility(rewards[0], alpha)
    bounds = [dual(R**-alpha, G, alpha, slate) for R in rewards]
    return utility / min(bounds)


# %% [markdown]
# cvxpy is the oracle; neither may beat the other by more than its certificate.

# %% tags=["active-ipynb"]
# for M, N, k, alpha in [(1, 4, 2, 0.5), (6, 5, 3, 0.9), (3, 8, 2, 0.3), (4, 4, 3, 2)]:
#     sums = rng.gamma(0.5, 50, (M, N))
#     ours, x = solve_slates(sums, alpha, k), cp.Variable((M, N))
#     earned = 1 + cp.sum(cp.multiply(sums, x), axis=0)
#     value = cp.sum(cp.power(earned, 1 - alpha, approx=False)) / (1 - alpha)
#     sets = [x >= 0, x <= 1, cp.sum(x, axis=1) == k]
#     theirs = cp.Problem(cp.Maximize(value), sets).solve(solver=cp.CLARABEL)
#     assert ours.gap <= 1e-9 * gap_unit(ours.rewards, alpha)
#     np.testing.assert_allclose(ours.utility, theirs, rtol=1e-5)
#     print(f"M = {M}, N = {N}, k = {k}: {ours.iterations} steps, gap {ours.gap:.0e}")

# %% [markdown]
# With the best maps at hand, the check of [Theorem (Fair slates)](#thm-slates-fair) on the suite of adversaries:

# %% tags=["active-ipynb"]
# build = partial(SlateGradient, slate=2)
# shares = {"certificate": 0.0, "explicit": 0.0}
# for _, game in play_suite(build, (0.1, 0.5, 0.9), [(2, 5)], 200, rng=rng):
#     sums = reward_sums(game.contexts, game.rewards, 2)
#     best = solve_slates(sums, game.alpha, 2).x
#     found = _reduced_share(game, best, 2), _explicit_share(game, 2)
#     shares = {name: max(shares[name], x) for name, x in zip(shares, found)}
# assert max(shares.values()) <= 1
# print(*(f"{name} {float(x):.2f}" for name, x in shares.items()))

# %% [markdown]
# ## Is the factor still the right one?
#
# For single arms no factor below $c_\alpha$ serves all $M$ and $N$ ([limits](limits.ipynb)).
# Choosing more arms at once does not help against that, unless they are a fair part of all.
#
# **Theorem (The factor for slates).** <a id="thm-slates-tight"></a>
# (a) Play $k$ games of the hidden order with $N'$ arms each and independent orders side by side, as one game with $N=kN'$ arms, and slates of $k$.
# Every policy has $\mathbb EU\le k\sum_n\phi(1+\rho_n)$, while the best map earns at least $k\sum_n\phi(1+n_n)$, with $n_n$ and $\rho_n$ of [Theorem (Ceiling of the hidden order)](limits.ipynb#thm-limits-ceiling).
# So for each $k$, each $0<\alpha<1$ and each $c<c_\alpha$ there are $M$, $N$ and $C>0$ such that every policy has $U^*-c\,\mathbb EU\ge CT^{1-\alpha}$ on some sequence, for all large $T$.
#
# (b) Uniform slates, $x(t)=\frac kN\mathbf 1$, have on every sequence
#
# <a id="eq-slates-uniform"></a>
# $$
# U^*\le\Big(\frac Nk\Big)^{1-\alpha}U,
# $$ (eq-slates-uniform)
#
# and $(N/k)^{1-\alpha}<c_\alpha$ exactly if $k>(1-\alpha)N$.
#
# **Proof.**
# (a) In phase $s$ let the policy put the expected mass $\mu_b$ a round on the living arms of game $b$; $\sum_b\mu_b\le k$.
# Within a game the living arms cannot be told apart, as in the theorem cited, so an arm that lives until phase $n$ gets the share $\mu_b/(N'-s+1)$ in the mean.
# Sum over the phases $s\le n$ and average over the $k$ games.
# The mean of the expected rewards of the arms that die after phase $n$ is at most $1+\rho_n$, and Jensen's inequality, for the average over the games as well, bounds their utility together by $k\,\phi(1+\rho_n)$.
# In phase $n$ the map may choose in each game the arm that dies after it: $k$ arms, each with $1+n_n$.
# Both sides are $k$ times those for one game, so [Theorem (The factor cannot be improved)](limits.ipynb#thm-limits-tight) carries over.
#
# (b) $x^*\le1$, so $R_i=1+\frac kN\sum_tr_i(t)\ge\frac kN\big(1+\sum_tr_i(t)x^*_{j_t,i}\big)=\frac kNR_i^*$, and $\phi$ is homogeneous of degree $1-\alpha$.
# The quotient of $(N/k)^{1-\alpha}$ and $c_\alpha=(1-\alpha)^{-(1-\alpha)}$ is $\big((1-\alpha)N/k\big)^{1-\alpha}$. ∎
#
# At $\alpha=0.9$ a cache that holds more than a tenth of the files is beyond the reach of the theory: there the guarantee $c_\alpha$ is weaker than that of a policy which looks at nothing.
# Which factor is best for a given $k/N$ is open; it is at most $\min\big(c_\alpha,(N/k)^{1-\alpha}\big)$.


# %%
def slate_phase_stream(
    lengths, slate: int, *, rng: np.random.Generator
) -> RewardStream:
    """As many independent games of the hidden order side by side as a slate has arms.

    Parameters
    ----------
    lengths : array_like, int
        Rounds of each phase, as for `phase_stream`.
    slate : int
        Number of games, $k$.
    rng : numpy.random.Generator
        Draws the orders.

    Returns
    -------
    stream : RewardStream
        With $k$ times as many arms as there are phases.
    """
    games = [phase_stream(lengths, rng=rng) for _ in range(slate)]
    rewards = np.hstack([game.rewards for game in games])
    return RewardStream(
        contexts=games[0].contexts, rewards=rewards, n_contexts=len(lengths)
    )


def _phases_share(stream, lengths, alpha, slate, ceiling=nested_ceiling) -> float:
    """Utility of uniform play on what lives over its ceiling."""
    living = stream.rewards
    x = slate * living / living.sum(1, keepdims=True)
    R = 1 + (living * x).sum(0)
    return alpha_fair_utility(R, alpha) / (slate * ceiling(lengths, alpha))


def _uniform_share(G, alpha, slate, factor=lambda N, k, a: (N / k) ** (1 - a)):
    """Utility of the best map over `factor` times that of uniform slates."""
    even = alpha_fair_utility(1 + G.sum(0) * slate / G.shape[1], alpha)
    best = solve_slates(G, alpha, slate).utility
    return best / (factor(G.shape[1], slate, alpha) * even)


# %% tags=["active-ipynb"]
# lengths, k, alpha = np.array([100, 400]), 3, 0.5
# means = []
# for _ in range(10):
#     stream = slate_phase_stream(lengths, k, rng=rng)
#     found = simulate(SlateGradient(6, alpha, k), stream).rewards[-1]
#     means.append(alpha_fair_utility(found, alpha))
#     np.testing.assert_allclose(_phases_share(stream, lengths, alpha, k), 1)
# ceiling = k * nested_ceiling(lengths, alpha)
# best = solve_slates(reward_sums(stream.contexts, stream.rewards, 2), alpha, k)
# assert np.mean(means) <= ceiling < best.utility
# print(f"optimum over ceiling {best.utility / ceiling:.3f}, over the policy's mean "
#       f"{best.utility / np.mean(means):.3f}")

# %% tags=["active-ipynb"]
# blocks = np.kron(np.eye(4), np.ones((1, 3))) * 1e7  # context j wants its own 3 arms
# assert 0.99 <= _uniform_share(blocks, 0.5, 3) <= 1
# for alpha in (0.1, 0.5, 0.9):
#     for share in (0.05, 0.5, 0.95):
#         better = (1 / share) ** (1 - alpha) < approximation_factor(alpha)
#         assert better == (share > 1 - alpha)

# %% [markdown]
# ## Drawing a slate
#
# The policy gives inclusion probabilities; a cache needs a set.
# Lay the $x_i$ end to end on a line of length $k$ and drop a comb whose teeth are one apart: **systematic sampling** ([Madow 1949](../references.bib#madow1949)).
#
# **Theorem (Systematic slates).** <a id="thm-slates-draw"></a>
# Let $x\in\Delta_k$, $C_i=\sum_{l\le i}x_l$, and $v$ uniform on $[0,1)$.
# Choose arm $i$ if $[C_{i-1},C_i)$ contains one of $v,v+1,\dots,v+k-1$.
# Then exactly $k$ different arms are chosen, and arm $i$ with probability $x_i$.
#
# **Proof.**
# The intervals tile $[0,k)$, so each of the $k$ points lies in exactly one.
# An interval of length at most 1 that is open at one end contains no two points one apart: the arms differ.
# It contains a point of $v+\mathbb Z$ if and only if $v$ lies in the interval taken modulo 1, a set of length $x_i$ in $[0,1)$. ∎
#
# Nothing is said of pairs: two neighbours with small $x_i$ are never chosen together.
# So the arms are put in a random order first, which changes no inclusion probability.


# %%
def systematic_slate(x: np.ndarray, offset: float) -> np.ndarray:
    """Places of the arms under the comb that begins at `offset`.

    Parameters
    ----------
    x : ndarray, shape (N,), float64
        Inclusion probabilities whose sum is a whole number $k$ to rounding.
    offset : float
        Where the comb begins, $v$ in [0, 1).

    Returns
    -------
    places : ndarray, shape (k,), int
        In increasing order.

    References
    ----------
    Book {prf:ref}`thm-slates-draw`.
    """
    edges = np.cumsum(x)
    slate = round(float(edges[-1]))
    edges[edges >= edges[-1]] = slate  # the last arm with a share, and those after it
    return edges.searchsorted(offset + np.arange(slate), "right")


def drawn_slate(x: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Places of a slate drawn with inclusion probabilities `x`, in no order.

    Parameters
    ----------
    x : ndarray, shape (N,), float64
        A point of the capped simplex.
    rng : numpy.random.Generator
        Gives an order of the arms and one uniform number.

    Returns
    -------
    places : ndarray, shape (k,), int
    """
    order = rng.permutation(x.size)
    places = systematic_slate(x[order], rng.random())
    while (np.diff(places) == 0).any():  # only if rounding made an interval too long
        places = systematic_slate(x[order], rng.random())
    return order[places]


# %% [markdown]
# The comb is easily drawn; each tooth picks the arm below it.
# Move it in your mind from 0 to 1: every arm is hit for a share of the way that is its width.


# %%
def plot_comb(ax, x, offset: float):
    """Inclusion probabilities end to end, and the teeth that choose a slate."""
    ends, chosen = np.cumsum(x), systematic_slate(x, offset)
    for i, (width, end) in enumerate(zip(x, ends)):
        shade = {"color": "C1" if i in chosen else "0.88", "ec": "white"}
        bar = ax.barh(0, width, left=end - width, height=0.6, **shade)
        ax.bar_label(bar, [str(i)], label_type="center")
    tooth = {"arrowstyle": "-|>", "color": "C0", "lw": 1.8}
    for place in offset + np.arange(len(chosen)):
        ax.annotate("", (place, 0.32), (place, 0.95), arrowprops=tooth)
    ax.plot([offset, offset + len(chosen) - 1], [0.94, 0.94], "C0-")
    ax.set(xlabel="inclusion probabilities $x_i$ end to end", yticks=[])
    ax.set(ylim=(-0.35, 1.1), xlim=(0, len(chosen)))
    ax.spines["left"].set_visible(False)
    ax.grid(False)
    return ax


# %% tags=["active-ipynb"]
# aim = np.array([0.9, 0.5, 0.3, 0.7, 0.35, 0.25, 0.6, 0.4])
# with figure(figsize=(5.6, 1.6)) as ax:
#     plot_comb(ax, capped_projection(aim, 3), 0.35)

# %% [markdown]
# **Figure (fig-slates-comb).** <a id="fig-slates-comb"></a> A systematic draw of three arms among eight. The teeth of the comb are one apart and no arm is wider than one, so three different arms are hit, here those in orange.

# %% [markdown]
# The check needs no sampling.
# The slate changes only where $v$ passes the fractional part of some $C_i$, so a sum over the pieces in between is the exact inclusion probability.
# For $x_i$ that are multiples of $2^{-10}$ floating point adds them without rounding, and rational numbers confirm the equality.


# %%
def inclusion_probabilities(x, select: Callable = systematic_slate) -> list[Fraction]:
    """Exact probability that each arm is chosen, over a uniform offset.

    Parameters
    ----------
    x : ndarray, shape (N,), float64
        A point of the capped simplex; multiples of a power of two, not too small.
    select : callable
        Takes `x` and an offset, returns places.

    Returns
    -------
    probabilities : list of Fraction
    """
    edges = np.cumsum([Fraction(float(v)) for v in x])
    cuts = sorted({Fraction(0), Fraction(1), *(edge % 1 for edge in edges)})
    found = [Fraction(0)] * len(x)
    for low, high in zip(cuts, cuts[1:]):
        for place in set(select(x, float((low + high) / 2)).tolist()):
            found[place] += high - low
    return found


def _draw_share(x: np.ndarray, select: Callable = systematic_slate) -> float:
    """0 if all inclusion probabilities are exact, else infinite."""
    exact = [Fraction(float(v)) for v in x]
    return 0.0 if inclusion_probabilities(x, select) == exact else np.inf


# %% tags=["active-ipynb"]
# for n, k in [(2, 1), (5, 2), (9, 4), (18, 3)]:
#     for v in rng.normal(size=(10, n)):
#         x = np.round(capped_projection(v, k) * 1024)
#         x[x.argmin() if x.sum() < 1024 * k else x.argmax()] += 1024 * k - x.sum()
#         assert _draw_share(x / 1024) == 0

# %% [markdown]
# ## A cache of genres
#
# Contexts are the 75 most active people of MovieLens, arms the 18 genres, and a cache holds 3 of them before it is known which movie is rated next.
# A genre earns 1 if it is in the cache and the movie has it.
# At $\alpha=0$ the policy counts hits; at $\alpha=0.9$ it also asks who gets them.

# %% tags=["active-ipynb"]
# ratings = movielens_stream(load_ratings())
# first = dict(contexts=ratings.contexts[:3000], rewards=ratings.rewards[:3000])
# stream = RewardStream(**first, n_contexts=75)
# G, found = reward_sums(stream.contexts, stream.rewards, 75), {}
# for alpha in (0.0, 0.5, 0.9):
#     run = simulate(SlateGradient(stream.n_arms, alpha, 3), stream)
#     best = solve_slates(G, alpha, 3)
#     found[alpha] = R = run.rewards[-1]
#     ratio = best.utility / alpha_fair_utility(R, alpha)
#     assert best.utility <= approximation_factor(alpha) * alpha_fair_utility(R, alpha)
#     print(f"alpha {alpha}: hits {(R - 1).sum() / 3000:.2f} a round, Jain's index "
#           f"{jain_index(R):.2f}, OPT/U {ratio:.3f}")


# %%
def plot_cache(ax, arm_names, earned: dict[float, np.ndarray]):
    """Hits of every arm for each alpha, the most requested first."""
    order = np.argsort(-next(iter(earned.values())))
    for (alpha, R), mark in zip(earned.items(), "os^dv"):
        ax.plot(R[order], mark + "-", label=f"$\\alpha$ = {alpha}", markersize=4)
    ax.set_xticks(range(len(order)), [arm_names[i] for i in order], rotation=90)
    ax.set(yscale="log", ylabel="cumulative reward (reward units)", xlabel="")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# hits = [(R - 1).sum() / 3000 for R in found.values()]
# np.testing.assert_allclose(hits, [1.27, 1.00, 0.79], atol=0.005)
# even = [jain_index(R) for R in found.values()]
# np.testing.assert_allclose(even, [0.29, 0.41, 0.51], atol=0.005)
# with figure() as ax:
#     plot_cache(ax, ratings.arm_names, found)

# %% [markdown]
# **Figure (fig-slates-cache).** <a id="fig-slates-cache"></a> What each genre earned in a cache of 3. Counting hits alone leaves the rare genres with next to nothing; a larger $\alpha$ lifts them.

# %% [markdown]
# Fairness has its price: 1.27 hits a round at $\alpha=0$, 1.00 at 0.5 and 0.79 at 0.9, while Jain's index rises from 0.29 over 0.41 to 0.51.
# The quotient of optimum and policy is not only below $c_\alpha$ but below 1.
# On these 3000 rounds the policy is ahead of the best fixed map, which must choose once for each person, while a learner may follow what a person asks for now.
# So on this stream the bound is met with ease; what tells the values of $\alpha$ apart is the table.
#
# ## What is open
#
# The guarantee is for full information: a cache sees every request, so it knows what each file would have earned.
# A shop that shows $k$ articles sees only those.
# Importance weights $g_i(t)[i\in A_t]/x_i(t)$ of the drawn slate $A_t$ are unbiased by [Theorem (Systematic slates)](#thm-slates-draw), and the reduction holds for the drawn slates, whose indicators lie in $[0,1]^N$.
# [Exercise (ex-slates-4)](#ex-slates-4) carries the proof of [bandit feedback](bandit_feedback.ipynb) over to them; a policy that plays so is not part of the package.
#
# ## Exercises
#
# **Exercise.** <a id="ex-slates-1"></a>
# By hand: project $(1,\frac12,0)$ onto the slates of two arms.
#
# <details><summary>Solution</summary>
#
# If no entry were cut, $\frac32-3\tau=2$ and $\tau=-\frac16$, but then the first entry exceeds 1.
# So it is 1, and $\frac12-2\tau=1$ gives $\tau=-\frac14$: the projection is $(1,\frac34,\frac14)$.
#
# </details>

# %% tags=["active-ipynb"]
# found = capped_projection(np.array([1, 0.5, 0]), 2)
# np.testing.assert_allclose(found, [1, 0.75, 0.25])

# %% [markdown]
# **Exercise.** <a id="ex-slates-2"></a>
# The limit $k=N-1$: show that $\Pi_k(v)=\mathbf 1-\Pi_{N-k}(-v)$, so that choosing all arms but one is choosing one arm to leave out.
#
# <details><summary>Solution</summary>
#
# $p\mapsto\mathbf 1-p$ maps $\Delta_k$ onto $\Delta_{N-k}$ and keeps distances, so $\Pi_k(v)=\mathbf 1-\Pi_{N-k}(\mathbf 1-v)$, and a common shift changes no projection.
#
# </details>

# %% tags=["active-ipynb"]
# for v in rng.normal(size=(20, 7)):
#     for k in range(1, 7):
#         other = 1 - capped_projection(-v, 7 - k)
#         np.testing.assert_allclose(capped_projection(v, k), other, atol=1e-14)

# %% [markdown]
# **Exercise.** <a id="ex-slates-3"></a>
# Breaking an assumption: let an arm be chosen up to $b$ times in a round, $0\le x_i\le b$.
# Which initial reward $R_i(0)$ repairs the telescoping lemma, and what does it say then?
#
# <details><summary>Solution</summary>
#
# $R_i(0)=b$.
# Let $A_t$ be $\sum_{s\le t}w_ir_ix_i+b\,\phi'(R_i(t))-\phi(R_i(t))$.
# With $0\le h\le b$ the first case of the proof becomes $A_t-A_{t-1}\le(h-b)\big(\phi'(a)-\phi'(a+h)\big)\le0$, so $A_t\le A_0=b\,\phi'(b)-\phi(b)=-\frac\alpha{1-\alpha}b^{1-\alpha}$.
#
# </details>

# %% tags=["active-ipynb"]
# b, a = 5.0, 0.5
# R = b + np.concatenate([[0], np.cumsum(rng.random(200) * b)])
# earned = np.concatenate([[0], np.cumsum(R[:-1] ** -a * np.diff(R))])
# lemma = earned + b * R**-a - R ** (1 - a) / (1 - a)
# assert (lemma <= -a / (1 - a) * b ** (1 - a) + 1e-9).all()

# %% [markdown]
# **Exercise.** <a id="ex-slates-4"></a>
# Semi-bandit feedback: the drawn slate $A_t$ answers, arm by arm.
# Let each context play $x(t)\in\Delta_k$ that minimises $\langle x,\sum_{s<t}\hat\ell(s)\rangle-\frac1{\eta_t}\sum_i\ln x_i$, with $\hat\ell_i(t)=-g_i(t)[i\in A_t]/x_i(t)$, $\eta_t=N\Lambda/(2N\Lambda+\sum_{s<t}M_s)$ and $\Lambda=\ln T\ge1$.
# Bound $U^*-c_\alpha\mathbb EU$ for a stream fixed in advance.
#
# <details><summary>Solution</summary>
#
# Follow [Theorem (The log-barrier learner on every path)](bandit_feedback.ipynb#thm-bandit-feedback-path), whose first part holds for every convex set.
# *Start.* $u'=(1-\frac1T)u+\frac kT\frac{\mathbf 1}N$ has entries of at least $\frac k{NT}$, so its barrier exceeds that of $\frac kN\mathbf 1$ by at most $N\Lambda$; it costs at most $k$ in all rounds together.
# *One round.* Without the constraints the maximum that defines $M_t$ splits into a sum over the arms, so $M_t\le\sum_{i\in A_t}(z_i-\ln(1+z_i))/\eta_t$ with $z_i=-\eta_tg_i\in[-\frac12,0]$.
# There $z-\ln(1+z)\le0.7726z^2$, so $M_t\le0.7726\,\eta_tq_t$ with $q_t=\sum_{i\in A_t}g_i^2\le k$, and $M_t\le0.387k$.
# *Sum.* With $B=2N\Lambda+A$, $B_t^2-B_{t-1}^2=2M_tB_{t-1}+M_t^2\le1.5452N\Lambda q_t+0.387kM_t$, so the sum $A$ of all $M_t$ has $A^2+4N\Lambda A\le1.5452N\Lambda Q+0.387kA$ with $Q=\sum_tq_t$.
# As $0.387k\le4N\Lambda$, $A\le1.2431\sqrt{N\Lambda Q}$.
# The regret of a context is at most $2N\Lambda+2A$ in the mean, and $\mathbb E\sum_jQ_j\le\mathbb EV\le\mathbb EU$; with Cauchy–Schwarz
# $U^*-c_\alpha\mathbb EU\le(1-\alpha)^\alpha\big[2MN\ln T+k+2.4862\sqrt{MN\ln T\;\mathbb EU}-\frac{N\alpha}{1-\alpha}\big]$: again only the utility and one term know of $k$.
#
# </details>

# %% tags=["active-ipynb"]
# z = -np.linspace(1e-4, 0.5, 1000)
# assert (z - np.log1p(z) <= 0.7726 * z**2).all() and 0.7726 / 2 < 0.387
# x, g = np.array([0.25, 0.5, 0.5, 0.75]), np.array([0.3, 1.0, 0.1, 0.6])
# cuts, mean = np.array([0, 0.25, 0.75, 1]), np.zeros(4)
# for low, high in zip(cuts, cuts[1:]):
#     places = systematic_slate(x, (low + high) / 2)
#     mean[places] += (high - low) * g[places] / x[places]
# np.testing.assert_allclose(mean, g)

# %% [markdown]
# ## What you can do now
#
# Fairness over slates costs the learner the factor $\sqrt{\min(k,N-k)}$ in front of the norms and nothing in front of the utility.
#
# - Play: `SlateGradient` chooses $k$ arms; `probabilities` are those of inclusion, `draw` returns a `SlateDraw` of names.
# - Compare: `solve_slates` certifies the best map into slates, `slate_certificate` any map of yours, and `slate_dual` any prices; `SlatePoint` is where the solver stands.
# - Use the parts: `capped_projection`, `largest_sum`, `slate_step`, `slate_path`, `slate_factor`; `check_slate` refuses what is no slate.
# - Draw: `systematic_slate`, `drawn_slate`, and `inclusion_probabilities` for the exact check; `slate_phase_stream` is the game in which no factor below $c_\alpha$ serves, `plot_cache` the picture.
#
# Next: [Late feedback](late_feedback.ipynb) asks what becomes of a guarantee if rewards take their time.
