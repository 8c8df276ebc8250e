# %% [markdown]
r"""
# Limits: no policy does without the factor

The bounds of [full information](full_information.ipynb) and [bandit feedback](bandit_feedback.ipynb) compare a policy with the optimum *divided by* $c_\alpha$.
Is that factor a weakness of the proof, or would any policy need it?
At $\alpha=\frac12$ the answer of this chapter is one number, $c_{1/2}=\sqrt2$.
Whatever factor below $\sqrt2$ one would like to prove, some game defeats every policy, be it randomised, with full information, and even shown the rewards of a round before playing it.

All games here are of one kind.
Arms die one after the other, in an order that nobody knows; a policy shares the rewards among the living, the optimum knows who dies next and pays each arm just in time.

## Notation

| symbol | in code | meaning |
| --- | --- | --- |
| $\beta$ | | $1-\alpha$, with $0<\alpha<1$ throughout |
| $N$ | `n_arms` | arms, and as many contexts ($M=N$) and phases |
| $\pi$ | | random order of death: arm $\pi_k$ dies after phase $k$ |
| $n_k$ | `lengths` | rounds of phase $k$, all of them in context $k$ |
| $\ell_k$ | `lengths` | relative length of phase $k$, any positive number |
| $\rho_k$ | `nested_shares` | $\sum_{s\le k}\frac{n_s}{N-s+1}$, an equal share of every phase up to $k$ |
| $\phi$, $U$, $U^*$ | `arm_utility` | as before: $\phi(u)=u^\beta/\beta$, utility of the policy and of the best map |
| $Q(\ell)$ | `nested_ratio` | $\sum_k\ell_k^\beta\big/\sum_k\rho_k^\beta$, what optimum and policy are apart when $T$ is large |
| $\tau$ | `tau` | in $(0,1)$; the family of power lengths has the exponent $\tau/\beta$ |

Phases are counted from 1 in the text, from 0 in code.
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

from functools import cache
from itertools import permutations

import numpy as np
import scipy

from prunefair.fairness.bandit_feedback import nested_stream
from prunefair.fairness.full_information import approximation_factor
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.policy import check_alpha, check_n_arms
from prunefair.fairness.simulation import RewardStream
from prunefair.fairness.utility import alpha_fair_utility

# %% tags=["active-ipynb"]
# from scipy.optimize import minimize
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.fairness.bandit_feedback import LogBarrierBandit, mean_interval
# from prunefair.fairness.full_information import AlphaFairGradient, certificate_bound
# from prunefair.fairness.simulation import simulate
# from prunefair.plotting import figure
#
# SEED = 7
# ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)
# rng = np.random.default_rng(SEED)

# %% [markdown]
# ## A game that hides the order of death
#
# The order $\pi$ is drawn uniformly before the game.
# All rounds of phase $k$ are in context $k$; they reward with 1 the arms $\pi_k,\dots,\pi_N$, which are alive, and with 0 the others.
# So the sets of rewarded arms are nested, and each phase removes one arm.
#
# Here is the game for four arms.
# Compare the blue area of an arm, which is all that a policy can give it, with the orange frame, which is what the best map gives.


# %%
def plot_nested(ax, lengths):
    """Who is paid in each phase, and what a policy and the best map make of it."""
    lengths, n = np.asarray(lengths, dtype=float), len(lengths)
    begins, living = np.cumsum(lengths) - lengths, np.arange(n, 0, -1)
    equal = np.cumsum(lengths / living)
    for k in range(n):
        for s in range(k + 1):
            place = {"width": lengths[s], "left": begins[s]}
            ax.barh(k, height=0.8, color="0.9", ec="0.5", **place)
            part = {"height": 0.8 / living[s], "align": "edge"}
            ax.barh(k - 0.4, color="C0", **part, **place)
        frame = {"fc": "none", "ec": "C1", "lw": 2.5}
        ax.barh(k, lengths[k], height=0.8, left=begins[k], **frame)
        words = f"{equal[k]:.1f} / {lengths[k]:g}"
        ax.text(1.02 * lengths.sum(), k, words, va="center")
    ax.set_yticks(range(n), [rf"arm $\pi_{k + 1}$" for k in range(n)])
    ax.set_xticks(begins + lengths / 2, [f"phase {k + 1}" for k in range(n)])
    ax.tick_params(length=0)
    ax.invert_yaxis()
    ax.grid(False)
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_nested(ax, [6, 8, 11, 16])

# %% [markdown]
# **Figure (fig-limits-nested).** <a id="fig-limits-nested"></a> A game that hides who dies next: the arms in the order of death, and the rounds of each phase from left to right. Grey: rounds in which the arm pays. Blue: its part if all living arms share them equally, in the mean the most that a policy can give it while the order is hidden. Orange: what the best map in hindsight gives it. At the right both in numbers: the sum is the same, but the blue one is uneven.
#
# Number of arms, lengths and contexts may all be known in advance; only $\pi$ is hidden.
# How much can a policy earn that does not know who dies next?
#
# **Theorem (Ceiling of the hidden order).** <a id="thm-limits-ceiling"></a>
# Every policy, with bandit feedback or full information, randomised or not, and even if it is shown $r(t)$ before it plays round $t$, has
#
# $$
# \begin{gathered}
# \mathbb E\,U\ \le\ \sum_{k=1}^N\phi(1+\rho_k),\\
# \rho_k=\sum_{s\le k}\frac{n_s}{N-s+1},
# \end{gathered}
# $$ (eq-limits-ceiling)
#
# while the best map earns $U^*\ge\sum_k\phi(1+n_k)$ in every order, with equality if $n_1\le\dots\le n_N$.
# If rewards are shown first, the policy that plays uniformly on the living arms attains the ceiling in every order.
#
# **Proof.**
# *Policy.* Let $y_k(s)$ be the expected number of pulls (or the sum of $x_i(t)$) that arm $\pi_k$ gets in phase $s\le k$, given the policy's own random numbers and $\pi_1,\dots,\pi_{s-1}$.
# Up to the end of phase $s$ all rewards, of all arms, are functions of $\pi_1,\dots,\pi_{s-1}$ alone: the arm that dies after phase $s$ is still paid in it.
# So what the policy does in phase $s$ does not depend on the order of the $N-s+1$ living arms, and given all this $\pi_k$ is any of them with equal probability.
# The living arms together get at most $n_s$, so the mean of $y_k(s)$ is at most $\frac{n_s}{N-s+1}$.
# Arm $\pi_k$ is paid in the phases $s\le k$, hence $\mathbb E R_{\pi_k}\le1+\rho_k$, and Jensen's inequality with the increasing concave $\phi$ gives $\mathbb E\,\phi(R_{\pi_k})\le\phi(1+\rho_k)$.
# Every arm is some $\pi_k$, so the sum over $k$ is $\mathbb E\,U$.
# Uniform play on the living arms makes $R_{\pi_k}=1+\rho_k$ without any randomness.
#
# *Map.* Context $k\mapsto$ arm $\pi_k$ gives $R^*_{\pi_k}=1+n_k$.
# The arms $\pi_1,\dots,\pi_m$ are dead after phase $m$, so under any map they earn together at most $m+\sum_{s\le m}n_s$.
# If the lengths do not decrease, that is the sum of the $m$ poorest of the arms above, for every $m$; an increasing concave function of the rewards is then largest there (weak majorisation). ∎
#
# In words: living arms look alike, so nobody can do better in the mean than to share each phase equally among them.
# The best map does better, because it knows whose last phase it is.
# For every policy some order is no better than the mean over orders.
# So there is one *fixed* sequence on which $U^*-c\,\mathbb E\,U$ is at least what the theorem gives for the mean.


# %%
def check_lengths(lengths) -> np.ndarray:
    """Return `lengths` as float64 of shape (N,), or raise if one is negative."""
    n = np.asarray(lengths, dtype=np.float64)
    if n.ndim != 1 or not n.size:
        raise ValueError(f"lengths has shape {n.shape}; it must be a vector")
    if not (np.isfinite(n).all() and n.min() >= 0 and n.max() > 0):
        raise ValueError(f"lengths is {n}; it must be finite, not negative and not 0")
    return n


# %%
def nested_shares(lengths) -> np.ndarray:
    r"""Equal shares of all phases an arm lives through, $\rho_k$.

    Parameters
    ----------
    lengths : array_like, shape (N,)
        Length of each phase, in rounds or relative.

    Returns
    -------
    shares : ndarray, shape (N,), float64
        $\rho_k$ in the unit of `lengths`, for the arm that dies after phase $k$.

    Raises
    ------
    ValueError
        If `lengths` is no vector of finite numbers, none negative, one positive.

    References
    ----------
    Book {eq}`eq-limits-ceiling`.
    """
    n = check_lengths(lengths)
    return np.cumsum(n / np.arange(n.size, 0, -1))  # (N,) over the number alive


# %%
def nested_ceiling(lengths, alpha: float) -> float:
    r"""Largest mean utility of any policy, $\sum_k \phi(1 + \rho_k)$.

    Parameters
    ----------
    lengths : array_like, shape (N,)
        Rounds of each phase.
    alpha : float
        Fairness parameter in [0, 1).

    Returns
    -------
    ceiling : float
        Utility units.

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1) or `lengths` is no vector of lengths.

    References
    ----------
    Book {eq}`eq-limits-ceiling`.
    """
    return alpha_fair_utility(1 + nested_shares(lengths), check_alpha(alpha, below=1))


# %%
def nested_optimum(lengths, alpha: float) -> float:
    r"""Utility of the map that pays each arm in its last phase, $\sum_k \phi(1 + n_k)$.

    Parameters
    ----------
    lengths : array_like, shape (N,)
        Rounds of each phase; if they do not decrease, no map earns more.
    alpha : float
        Fairness parameter in [0, 1).

    Returns
    -------
    utility : float
        Utility units.

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1) or `lengths` is no vector of lengths.

    References
    ----------
    Book {prf:ref}`thm-limits-ceiling`.
    """
    return alpha_fair_utility(1 + check_lengths(lengths), check_alpha(alpha, below=1))


# %%
def phase_stream(lengths, *, rng: np.random.Generator) -> RewardStream:
    """The game as a stream: nested sets whose phases have the given lengths.

    Parameters
    ----------
    lengths : array_like, shape (N,), int
        Rounds of each phase; phase $k$ is context $k$.
    rng : numpy.random.Generator
        Draws the order of death.

    Returns
    -------
    stream : RewardStream
    """
    n = check_lengths(lengths).astype(np.int64)
    once = nested_stream(n.size, n.size, rng=rng)  # one round a phase
    return RewardStream(
        contexts=np.repeat(once.contexts, n),
        rewards=np.repeat(once.rewards, n, axis=0),
        n_contexts=n.size,
    )


# %% [markdown]
# The checks of this chapter take the statement as an argument and return the smallest constant in front of it that would still pass; the tests put stronger statements in its place.


# %%
def _ceiling_share(lengths, alpha, *, rng, ceiling=nested_ceiling, map_=nested_optimum):
    """Utility of uniform play on living arms over `ceiling`, `map_` over optimum."""
    stream = phase_stream(lengths, rng=rng)
    living = stream.rewards / stream.rewards.sum(1, keepdims=True)
    utility = alpha_fair_utility(1 + (living * stream.rewards).sum(0), alpha)
    G = reward_sums(stream.contexts, stream.rewards, stream.n_contexts)
    best = solve_offline(G, alpha)
    return max(utility / ceiling(lengths, alpha), map_(lengths, alpha) / best.dual)


# %% [markdown]
# By hand, with two arms and $n=(4,16)$: $\rho=(2,18)$, so at $\alpha=\frac12$ the ceiling is $2(\sqrt3+\sqrt{19})$ and the map earns $2(\sqrt5+\sqrt{17})$.
# Then by brute force: uniform play on the living arms, round by round, against the certified optimum of [its own chapter](offline_optimum.ipynb).

# %% tags=["active-ipynb"]
# np.testing.assert_allclose(nested_ceiling([4, 16], 0.5), 2 * (3**0.5 + 19**0.5))
# np.testing.assert_allclose(nested_optimum([4, 16], 0.5), 2 * (5**0.5 + 17**0.5))
# for a in ALPHAS:
#     n = np.sort(rng.integers(1, 30, size=5))
#     assert _ceiling_share(n, a, rng=rng) <= 1 + 1e-12
#     stream = phase_stream(n, rng=rng)
#     living = stream.rewards / stream.rewards.sum(1, keepdims=True)
#     R = 1 + (living * stream.rewards).sum(0)
#     np.testing.assert_allclose(alpha_fair_utility(R, a), nested_ceiling(n, a))
#     best = solve_offline(reward_sums(stream.contexts, stream.rewards, 5), a)
#     np.testing.assert_allclose(best.utility, nested_optimum(n, a), rtol=1e-8)

# %% [markdown]
# ## Two contexts are enough
#
# What does the ceiling mean for regret?
# Take relative lengths $\ell$ with sum $|\ell|$, and for a horizon $T$ the phases $n_k=\lfloor\ell_kT/|\ell|\rfloor$; rounds that are left over reward nobody.
#
# **Theorem (Floor under the regret).** <a id="thm-limits-floor"></a>
# For every $c\ge0$, every $\ell$ and every $T$, every policy meets a sequence of $T$ rounds with $N$ arms and $N$ contexts on which
#
# <a id="eq-limits-floor"></a>
# $$
# U^*-c\,\mathbb E\,U\ \ge\ \frac{T^\beta}{\beta|\ell|^\beta}\Big[\sum_k\ell_k^\beta-c\sum_k\rho_k^\beta\Big]-\frac{cN}\beta,
# $$ (eq-limits-floor)
#
# where $\rho$ belongs to $\ell$.
# With two arms, two contexts and $\ell=(1,1)$,
#
# <a id="eq-limits-two"></a>
# $$
# U^*-\mathbb E\,U\ \ge\ \frac{2-(\frac32)^\beta-(\frac12)^\beta}{2^\beta\beta}\,T^\beta-\frac2\beta,
# $$ (eq-limits-two)
#
# whose leading constant is positive: no policy has a standard regret that is sublinear in $T^{1-\alpha}$.
#
# **Proof.**
# $1+n_k\ge\ell_kT/|\ell|$, so $\phi(1+n_k)\ge\phi(\ell_k)\,(T/|\ell|)^\beta$.
# The shares that belong to $n$ are at most $\rho_kT/|\ell|$, and $(1+u)^\beta\le1+u^\beta$ gives $\phi(1+u)\le\phi(u)+\frac1\beta$.
# Insert both into [Theorem (Ceiling of the hidden order)](#thm-limits-ceiling).
# For $\ell=(1,1)$ we have $|\ell|=2$ and $\rho=(\frac12,\frac32)$, and strict concavity makes $\frac12(\frac12)^\beta+\frac12(\frac32)^\beta<1$. ∎
#
# In words: with two arms and two contexts every policy loses a fixed share of the optimum, at any horizon, because utilities themselves grow like $T^{1-\alpha}$.
# More arms or contexts do not help the policy: arms that never pay and contexts that never come change nothing but constants.
# The check compares the explicit floor with what the exact ceiling leaves, up to $10^{12}$ rounds.
# At $\alpha=0.5$ it is 0.99997 of it; at $\alpha=0.9$ it is still negative there and says nothing.


# %%
def regret_floor(n_rounds, lengths, alpha: float, *, factor: float = 1.0) -> np.ndarray:
    r"""Floor under $U^* - c\,\mathbb E\,U$ that some sequence forces on every policy.

    Parameters
    ----------
    n_rounds : array_like
        Number of rounds $T$.
    lengths : array_like, shape (N,)
        Relative lengths of the phases.
    alpha : float
        Fairness parameter in [0, 1).
    factor : float
        The factor $c$; 1 is standard regret.

    Returns
    -------
    floor : ndarray, float64, the shape of `n_rounds`
        Utility units.

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1) or `lengths` is no vector of lengths.

    References
    ----------
    Book {eq}`eq-limits-floor`.
    """
    beta, ell = 1 - check_alpha(alpha, below=1), check_lengths(lengths)
    apart = (ell**beta).sum() - factor * (nested_shares(ell) ** beta).sum()
    scale = (np.asarray(n_rounds) / ell.sum()) ** beta
    return (scale * apart - factor * ell.size) / beta


# %%
def scaled_lengths(lengths, n_rounds: int) -> np.ndarray:
    r"""Whole rounds $\lfloor\ell_kT/|\ell|\rfloor$ that fit `n_rounds`, int64."""
    ell = check_lengths(lengths)
    return np.floor(ell * (n_rounds / ell.sum())).astype(np.int64)


# %%
def _floor_share(n_rounds, lengths, alpha, factor=1.0, floor=regret_floor) -> float:
    """Largest `floor` over what the exact ceiling leaves, at the given horizons."""
    sizes = [scaled_lengths(lengths, int(T)) for T in n_rounds]
    exact = [
        nested_optimum(n, alpha) - factor * nested_ceiling(n, alpha) for n in sizes
    ]
    claimed = floor(n_rounds, lengths, alpha, factor=factor)
    worst = np.where(claimed > exact, np.inf, 0.0)  # where the floor is not positive
    return np.where(np.array(exact) > 0, claimed / np.array(exact), worst).max()


# %% tags=["active-ipynb"]
# long = np.geomspace(10, 1e12, 40).round()
# for a in ALPHAS:
#     share = max(_floor_share(long, [1, x], a) for x in (1, 4))
#     assert share <= 1
#     print(f"alpha {a}: floor over what is left {share:.5f}; below 0 it says nothing")

# %% [markdown]
# The coupled policy, played on the two-arm game with $\ell=(1,4)$ at nine horizons.
# It treats all arms alike, so the order of death cannot matter; the first cell asserts it, and that the $c_\alpha$-regret of the same runs is below the certificate.

# %% tags=["active-ipynb"]
# horizons, shown = np.unique(np.geomspace(40, 10_240, 9).astype(int)), (0.3, 0.5, 0.7)
# regret = {a: [] for a in shown}
# for a in shown:
#     for T in horizons:
#         n, runs = scaled_lengths([1, 4], T), []
#         for child in rng.spawn(4 if T < 1000 else 1):
#             simulate(policy := AlphaFairGradient(2, a), phase_stream(n, rng=child))
#             runs.append(alpha_fair_utility(policy.rewards, a))
#         np.testing.assert_allclose(runs, runs[0])  # both orders occur
#         missed = nested_optimum(n, a) - approximation_factor(a) * runs[0]
#         assert missed < certificate_bound(policy.squared_norms, a, 2)
#         regret[a].append(nested_optimum(n, a) - runs[0])

# %% [markdown]
# No regret is below its floor, the exact one of [Theorem (Ceiling of the hidden order)](#thm-limits-ceiling) or the explicit [(eq-limits-floor)](#eq-limits-floor).
# All grow like $T^{1-\alpha}$: the measured exponents are 0.70, 0.50 and 0.30.

# %% tags=["active-ipynb"]
# floors = {}
# for a in shown:
#     sizes = [scaled_lengths([1, 4], T) for T in horizons]
#     floors[a] = np.array([nested_optimum(n, a) - nested_ceiling(n, a) for n in sizes])
#     explicit = regret_floor(horizons, [1, 4], a)
#     assert (regret[a] >= floors[a]).all() and (floors[a] >= explicit).all()
#     for name, values in (("regret", regret[a]), ("floor", floors[a])):
#         slope = np.log(values[-1] / values[-4]) / np.log(horizons[-1] / horizons[-4])
#         assert abs(slope - (1 - a)) < 0.02
#         print(f"alpha {a}: {name:6} grows like T^{slope:.2f}")


# %%
def plot_floor(ax, rounds, regret: dict, floors: dict):
    r"""Measured standard regret and its floor against the horizon."""
    for alpha, floor in floors.items():
        (line,) = ax.plot(rounds, floor, lw=1.2, label=f"$\\alpha$ = {alpha}")
        ax.plot(rounds, regret[alpha], "o", ms=5, color=line.get_color())
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel="rounds $T$", ylabel="standard regret (utility units)")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_floor(ax, horizons, regret, floors)

# %% [markdown]
# **Figure (fig-limits-floor).** <a id="fig-limits-floor"></a> Two arms, two contexts, the second four times as long. Dots: standard regret of the coupled policy at nine horizons. Lines: the least standard regret that any policy can have in the mean over both orders of death. On these axes the lines become straight with slope $1-\alpha$.

# %% [markdown]
# ## The best policy, computed
#
# [Theorem (Ceiling of the hidden order)](#thm-limits-ceiling) is an argument; a solver that knows nothing of it can check its value.
# A policy for the game is a tree: at each node, the deaths so far, it names one distribution over the arms.
# One is enough for a whole phase, because nothing is learnt within it, and by concavity the average of its plays serves as well.
# The mean utility over all $N!$ orders is concave in these distributions, so cvxpy finds the best policy, $R(0)=1$ included.
# With three arms the optimum is up to 1.0842 times what the best policy has, at $\alpha=0.5$.


# %%
def tree_optimum(lengths, alpha: float) -> tuple[float, dict]:
    r"""Best mean utility over all policies by cvxpy, and a policy that attains it.

    Parameters
    ----------
    lengths : array_like, shape (N,)
        Rounds of each phase; the tree has about $e\,N!$ nodes, so keep $N\le4$.
    alpha : float
        Fairness parameter in [0, 1).

    Returns
    -------
    utility : float
        Mean over the orders of death, utility units.
    plays : dict of tuple to ndarray of shape (N,)
        Distribution played after the deaths that the key lists.

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1) or `lengths` is no vector of lengths.
    RuntimeError
        If the solver does not find the optimum.

    References
    ----------
    Book {prf:ref}`thm-limits-ceiling`.
    """
    import cvxpy as cp

    n, beta = check_lengths(lengths), 1 - check_alpha(alpha, below=1)
    orders = list(permutations(range(n.size)))
    nodes = sorted({order[:k] for order in orders for k in range(n.size)})
    plays = {node: cp.Variable(n.size, nonneg=True) for node in nodes}
    rewards = [  # of every arm in every order
        1 + sum(n[s] * plays[order[:s]][arm] for s in range(place + 1))
        for order in orders
        for place, arm in enumerate(order)
    ]
    power = cp.power(cp.hstack(rewards), beta, approx=False)
    problem = cp.Problem(
        cp.Maximize(cp.sum(power) / (beta * len(orders))),
        [cp.sum(play) == 1 for play in plays.values()],
    )
    problem.solve(solver=cp.CLARABEL)
    if problem.status != cp.OPTIMAL:
        raise RuntimeError(f"the solver stopped with status {problem.status}")
    return float(problem.value), {node: play.value for node, play in plays.items()}


# %%
def tree_utility(plays: dict, lengths, alpha: float) -> float:
    r"""Mean utility of a policy over all orders of death, by enumeration.

    Parameters
    ----------
    plays : dict of tuple to ndarray of shape (N,)
        Distribution played after the deaths that the key lists.
    lengths : array_like, shape (N,)
        Rounds of each phase.
    alpha : float
        Fairness parameter in [0, 1).

    Returns
    -------
    utility : float
        Utility units.

    References
    ----------
    Book {prf:ref}`thm-limits-ceiling`.
    """
    n, utilities = check_lengths(lengths), []
    for order in permutations(range(n.size)):
        R = np.ones(n.size)
        for phase in range(n.size):
            living = np.isin(np.arange(n.size), order[phase:])
            R += n[phase] * np.asarray(plays[order[:phase]]) * living
        utilities.append(alpha_fair_utility(R, alpha))
    return float(np.mean(utilities))


# %% tags=["active-ipynb"]
# for a in ALPHAS:
#     for n in ([30.0, 30.0], [10.0, 40.0], [10.0, 20.0, 60.0]):
#         best, plays = tree_optimum(n, a)
#         np.testing.assert_allclose(best, nested_ceiling(n, a), rtol=1e-5)
#         np.testing.assert_allclose(tree_utility(plays, n, a), best, rtol=1e-5)
#         mixed = {node: rng.dirichlet(np.ones(len(n))) for node in plays}
#         assert tree_utility(mixed, n, a) < nested_ceiling(n, a)
#     gap = nested_optimum(n, a) / best
#     print(f"alpha {a}: optimum over best policy, N = 3: {gap:.4f}")

# %% [markdown]
# ## How far apart: the choice of lengths
#
# For large $T$ the initial rewards do not matter, and optimum and ceiling are apart by the ratio
#
# $$
# Q(\ell)=\frac{\sum_k\ell_k^\beta}{\sum_k\rho_k^\beta}.
# $$ (eq-limits-ratio)
#
# By [(eq-limits-floor)](#eq-limits-floor) every $c<Q(\ell)$ has a $c$-regret of the order $T^\beta$.
# We know one bound on $Q$ already: [Theorem (No lower bound on rewards)](full_information.ipynb#thm-full-information-explicit) would be false if $Q(\ell)>c_\alpha$ for some $\ell$.
# That is a proof by regret; there is a direct one, and it shows that no finite $N$ attains $c_\alpha$.
#
# Number the phases by the living arms: $a_m$ is the length of the phase with $m$ living arms, $r_m=\sum_{j=m}^N a_j/j$ its $\rho$.
#
# **Theorem (Below the factor).** <a id="thm-limits-below"></a>
# For every $N$ and all lengths that are not all zero, $Q(\ell)<c_\alpha$; that is
#
# <a id="eq-limits-below"></a>
# $$
# \sum_{m=1}^N\Big(\sum_{j=m}^N\frac{a_j}j\Big)^\beta\ >\ \beta^\beta\sum_{m=1}^Na_m^\beta .
# $$ (eq-limits-below)
#
# **Proof.**
# Set $r_{N+1}=0$; then $a_m=m\,(r_m-r_{m+1})$.
# Let $m$ be such that $r_m>0$; for larger $m$ all terms vanish.
# The tangent of $u\mapsto u^\beta$ at $r_m$ bounds it at $\beta a_m$,
#
# $$
# \begin{aligned}
# \beta^\beta a_m^\beta&\le r_m^\beta+\beta r_m^{\beta-1}(\beta a_m-r_m)\\
# &=(1-\beta)\,r_m^\beta+\beta\cdot\beta r_m^{\beta-1}a_m,
# \end{aligned}
# $$ (eq-limits-tangent)
#
# and at $r_{m+1}$ it says $\beta r_m^{\beta-1}(r_m-r_{m+1})\le r_m^\beta-r_{m+1}^\beta$, so that $\beta r_m^{\beta-1}a_m\le m\,(r_m^\beta-r_{m+1}^\beta)$.
# Summed over $m$, the last right side telescopes to $\sum_mr_m^\beta$.
# Hence $\beta^\beta\sum_ma_m^\beta\le(1-\beta+\beta)\sum_mr_m^\beta$.
# At the largest $m$ with $a_m>0$ we have $r_{m+1}=0<r_m$, where the second tangent is strictly above. ∎
#
# In words: no choice of phases sets optimum and ceiling apart by the whole factor $c_\alpha$.
#
# This is the reduction of [Theorem (From linear regret to fair utility)](full_information.ipynb#thm-full-information-reduction) once more, with the same $\beta$, in a game without noise.
# In the theory of series [(eq-limits-below)](#eq-limits-below) is known: it is the case $0<\beta<1$ of Copson's inequality ([Copson 1928](../references.bib#copson1928); [Hardy et al. 1952](../references.bib#hardy1952inequalities)), whose constant $\beta^\beta$ is the best that serves all $N$.


# %%
def nested_ratio(lengths, alpha: float) -> float:
    r"""Optimum over ceiling for long games, $Q(\ell)$.

    Parameters
    ----------
    lengths : array_like, shape (N,)
        Relative lengths of the phases; their scale does not matter.
    alpha : float
        Fairness parameter in [0, 1).

    Returns
    -------
    ratio : float
        Below $c_\alpha$ if `alpha` is positive.

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1) or `lengths` is no vector of lengths.

    References
    ----------
    Book {eq}`eq-limits-ratio`.
    """
    beta, rho = 1 - check_alpha(alpha, below=1), nested_shares(lengths)
    return float((check_lengths(lengths) ** beta).sum() / (rho**beta).sum())


# %% [markdown]
# Which lengths make $Q$ largest?
# At a largest value $\lambda$ the derivatives of $\sum_ma_m^\beta-\lambda\sum_mr_m^\beta$ vanish, which says
#
# <a id="eq-limits-stationary"></a>
# $$
# \begin{gathered}
# a_m=\Big(\frac{\lambda S_m}m\Big)^{-1/\alpha},\qquad S_m=\sum_{j\le m}r_j^{-\alpha},\\
# r_{m+1}=r_m-\frac{a_m}m .
# \end{gathered}
# $$ (eq-limits-stationary)
#
# Multiplied by $a_m$ and summed, the first equation gives $\sum a_m^\beta=\lambda\sum r_m^\beta$, so a solution with multiplier $\lambda$ has the ratio $\lambda$.
# With $r_1=1$ the recursion runs from $\lambda$ alone, and the condition at its end is $r_{N+1}=0$: one equation in one unknown, for any $N$.


# %%
def _last_share(ratio: float, n_arms: int, alpha: float) -> float:
    """$r_{N+1}$ of the recursion with multiplier `ratio`, negative if it ends early."""
    r, total, power = 1.0, 0.0, -1 / alpha
    for m in range(1, n_arms + 1):
        total += r**-alpha
        r -= (ratio * total / m) ** power / m
        if r <= 0:
            return r + m - n_arms
    return r


# %%
def best_lengths(n_arms: int, alpha: float) -> np.ndarray:
    r"""Lengths that solve the stationarity conditions of $Q$, the first one 1.

    Parameters
    ----------
    n_arms : int
        Number of arms $N$; time and memory are proportional to it.
    alpha : float
        Fairness parameter in (0, 1).

    Returns
    -------
    lengths : ndarray, shape (N,), float64
        Relative lengths, in the order of the phases; they do not decrease.

    Raises
    ------
    ValueError
        If `alpha` is not in (0, 1), `n_arms` is not a positive whole number, or both
        are so large that the shortest phase is nothing beside the longest.

    References
    ----------
    Book {eq}`eq-limits-stationary`.
    """
    N, limit = check_n_arms(n_arms), approximation_factor(alpha)
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha!r}; it must lie in (0, 1)")
    try:
        ratio = scipy.optimize.brentq(_last_share, 1, limit, (N, alpha), xtol=1e-13)
    except OverflowError:
        raise ValueError(
            f"alpha is {alpha!r}; with n_arms = {N} the lengths differ by more than a "
            "float holds; lower one of the two"
        ) from None
    r, S, a = 1.0, 0.0, np.empty(N)
    for m in range(1, N):
        S += r**-alpha
        a[m - 1] = (ratio * S / m) ** (-1 / alpha)
        r -= a[m - 1] / m
    a[-1] = N * r  # makes the last share zero
    return a[::-1] / a[-1]


# %% [markdown]
# An optimiser that only sees $Q$ agrees, from three starts:

# %% tags=["active-ipynb"]
# def freely(N, a):
#     loss = lambda z: -np.log(nested_ratio(np.exp(z), a))
#     starts = [np.linspace(0, power * np.log(N), N) for power in (0.5, 1, 1 / (1 - a))]
#     return max(np.exp(-minimize(loss, start).fun) for start in starts)
#
# for a in ALPHAS:
#     for N in (2, 5, 12):
#         lengths = best_lengths(N, a)
#         np.testing.assert_allclose(nested_ratio(lengths, a), freely(N, a), rtol=1e-6)
#         assert (np.diff(lengths) > 0).all()
# np.testing.assert_allclose(best_lengths(2, 0.5), [1, 4])
# np.testing.assert_allclose(nested_ratio([1, 4], 0.5), 1.5 / 2**0.5)

# %% [markdown]
# ## Many arms: the ratio meets $c_\alpha$
#
# A family with one parameter suffices for the limit: with $m$ arms alive the phase has the length $(N/m)^{\tau/\beta}$.
#
# **Theorem (Limit of the power lengths).** <a id="thm-limits-power"></a>
# Let $0<\tau<1$ and $\ell_k=\big(\frac N{N-k+1}\big)^{\tau/\beta}$.
# Then, as $N\to\infty$,
#
# <a id="eq-limits-power"></a>
# $$
# Q(\ell)\ \to\ Q_\tau:=\Big(\frac\tau\beta\Big)^\beta\,\frac{\Gamma(1+\beta/\tau)}{\Gamma(1+\beta)\,\Gamma(1-\beta+\beta/\tau)},
# $$ (eq-limits-power)
#
# and $Q_\tau\to c_\alpha$ as $\tau\to1$, $Q_\tau\to1/\Gamma(2-\alpha)$ as $\tau\to0$.
#
# **Proof.**
# Write $\kappa=\tau/\beta$ and $u=m/N$.
# *Numerator.* $\frac1N\sum_m(m/N)^{-\tau}$ is a Riemann sum of the decreasing integrable function $u^{-\tau}$, taken at the right ends: it tends to $\int_0^1u^{-\tau}du=\frac1{1-\tau}$.
#
# *Denominator.* $r_m=\frac1N\sum_{j=m}^N(j/N)^{-\kappa-1}$ is a Riemann sum as well; along $m=\lceil uN\rceil$ it tends to $\int_u^1v^{-\kappa-1}dv=\frac{u^{-\kappa}-1}\kappa$ for each $u\in(0,1)$.
# Its first term is $\frac1m(m/N)^{-\kappa}\le u^{-\kappa}$, the others are below the integral from $m/N$, so $r_m\le(1+\frac1\kappa)u^{-\kappa}$, and $r_m^\beta$ is below a multiple of the integrable $u^{-\tau}$.
# By dominated convergence $\frac1N\sum_mr_m^\beta\to\kappa^{-\beta}\int_0^1(u^{-\kappa}-1)^\beta du$.
# Substituting $w=u^\kappa$ makes the integral $\frac1\kappa\int_0^1w^{1/\kappa-\beta-1}(1-w)^\beta dw=\frac1\kappa\,\frac{\Gamma(1/\kappa-\beta)\,\Gamma(1+\beta)}{\Gamma(1+1/\kappa)}$; its first exponent exceeds $-1$ because $\kappa\beta<1$.
#
# *Ratio.* Numerator over denominator is $\frac{\kappa^{1+\beta}\,\Gamma(1+1/\kappa)}{(1-\tau)\,\Gamma(1/\kappa-\beta)\,\Gamma(1+\beta)}$, and $(1-\tau)\,\Gamma(\frac1\kappa-\beta)=\kappa\,(\frac1\kappa-\beta)\,\Gamma(\frac1\kappa-\beta)=\kappa\,\Gamma(1+\frac1\kappa-\beta)$.
# That is [(eq-limits-power)](#eq-limits-power).
#
# *Ends.* It is continuous at $\tau=1$, where both $\Gamma(1+\beta)$ cancel, $\Gamma(1)=1$ and $\beta^{-\beta}=c_\alpha$ is left.
# As $z=\beta/\tau\to\infty$, $\Gamma(1+z)/\Gamma(1-\beta+z)\sim z^\beta$, which cancels $(\tau/\beta)^\beta$. ∎
#
# In words: phases that grow like a power of $1/m$ set optimum and ceiling apart by nearly $c_\alpha$, if there are enough arms.
#
# This was the missing half of the answer to the question at the head of this chapter.
#
# **Theorem (The factor cannot be improved).** <a id="thm-limits-tight"></a>
# Let $0<\alpha<1$.
# If $c\ge c_\alpha$, the coupled policy has $U^*-c\,U=O(T^{(1-\alpha)/2})$ on all sequences, for all $M$ and $N$.
# If $c<c_\alpha$, there are $N=M$, $C>0$ and $T_0$ such that every policy meets, for each $T\ge T_0$, a sequence with $U^*-c\,\mathbb E\,U\ge C\,T^{1-\alpha}$.
#
# **Proof.**
# The first part is [Theorem (No lower bound on rewards)](full_information.ipynb#thm-full-information-explicit).
# For the second take $\tau<1$ with $Q_\tau>c$, then $N$ with $Q(\ell)>c$ by [Theorem (Limit of the power lengths)](#thm-limits-power), and insert these lengths into [(eq-limits-floor)](#eq-limits-floor): its bracket is positive. ∎
#
# In words: $c_\alpha$ is no weakness of the proof.
# With it the regret is small on every sequence; with any smaller factor it is a fixed share of the optimum on some.


# %%
def limit_ratio(alpha: float, tau: float) -> float:
    r"""Ratio of the power lengths for infinitely many arms, $Q_\tau$.

    Parameters
    ----------
    alpha : float
        Fairness parameter in [0, 1).
    tau : float
        Share of the critical exponent, in (0, 1]; at 1 the value is $c_\alpha$.

    Returns
    -------
    ratio : float

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1) or `tau` not in (0, 1].

    References
    ----------
    Book {eq}`eq-limits-power`.
    """
    beta = 1 - check_alpha(alpha, below=1)
    if not 0 < tau <= 1:
        raise ValueError(f"tau is {tau!r}; it must lie in (0, 1]")
    z, gammaln = beta / tau, scipy.special.gammaln
    log = gammaln(1 + z) - gammaln(1 + beta) - gammaln(1 - beta + z)
    return float(np.exp(log) * z**-beta)


# %%
def power_lengths(n_arms: int, alpha: float, tau: float) -> np.ndarray:
    r"""Lengths $(N / m)^{\tau / (1 - \alpha)}$ with $m = N, ..., 1$ arms alive.

    Parameters
    ----------
    n_arms : int
        Number of arms $N$.
    alpha : float
        Fairness parameter in [0, 1).
    tau : float
        Share of the critical exponent.

    Returns
    -------
    lengths : ndarray, shape (N,), float64
        Relative lengths, in the order of the phases.

    References
    ----------
    Book {prf:ref}`thm-limits-power`.
    """
    N = check_n_arms(n_arms)
    return (N / np.arange(N, 0, -1)) ** (tau / (1 - check_alpha(alpha, below=1)))


# %% tags=["active-ipynb"]
# for a in ALPHAS:
#     np.testing.assert_allclose(limit_ratio(a, 1), approximation_factor(a))
#     none = 1 / scipy.special.gamma(2 - a)
#     np.testing.assert_allclose(limit_ratio(a, 1e-4), none, rtol=1e-3)
#     for tau in (0.2, 0.5):
#         few, many = (nested_ratio(power_lengths(N, a, tau), a) for N in (10**3, 10**6))
#         gap = limit_ratio(a, tau) - many
#         assert 0 < gap < 0.1 * (limit_ratio(a, tau) - few) and gap < 2e-3

# %% [markdown]
# For very many arms we need no array of that length.
# The shares of the power lengths are differences of Hurwitz zeta functions, $r_m=N^\kappa\big(\zeta(1+\kappa,m)-\zeta(1+\kappa,N+1)\big)$.
# The sums over $m$ are smooth beyond the first thousands, and there we replace them by an integral with midpoints, $\sum_{m=m_0+1}^Nf(m)\approx\int_{m_0+1/2}^{N+1/2}f$, by Gauss's rule in $\ln m$.


# %%
@cache
def _gauss_rule(n_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss's rule on [-1, 1]."""
    return np.polynomial.legendre.leggauss(n_nodes)


# %%
def long_sum(term, n_terms: int, *, direct: int = 4096) -> float:
    r"""Sum of a smooth, slowly varying `term(m)` over $m = 1, ..., N$.

    Parameters
    ----------
    term : callable
        Vectorised; defined for real $m$ up to $N + 1/2$.
    n_terms : int
        Number of terms $N$.
    direct : int
        So many terms are added one by one, the others as an integral.

    Returns
    -------
    total : float
    """
    head = term(np.arange(1.0, min(n_terms, direct) + 1)).sum()
    if n_terms <= direct:
        return float(head)
    ends = np.log([direct + 0.5, n_terms + 0.5])
    nodes, weights = _gauss_rule(400)
    m = np.exp(ends.mean() + nodes * np.diff(ends) / 2)
    return float(head + (weights * m * term(m)).sum() * np.diff(ends)[0] / 2)


# %%
def power_ratio(n_arms: int, alpha: float, tau: float) -> float:
    r"""$Q$ of the power lengths without an array of $N$ numbers.

    Parameters
    ----------
    n_arms : int
        Number of arms $N$, as large as one likes.
    alpha : float
        Fairness parameter in [0, 1).
    tau : float
        Share of the critical exponent, in (0, 1].

    Returns
    -------
    ratio : float

    References
    ----------
    Book {prf:ref}`thm-limits-power`.
    """
    N, beta = check_n_arms(n_arms), 1 - check_alpha(alpha, below=1)
    zeta, last = scipy.special.zeta, scipy.special.zeta(1 + tau / beta, n_arms + 1)
    top = long_sum(lambda m: m**-tau, N)
    rest = long_sum(lambda m: (zeta(1 + tau / beta, m) - last) ** beta, N)
    return top / rest


# %%
def best_power_ratio(n_arms: int, alpha: float) -> float:
    r"""Largest $Q$ of the power lengths over $\tau$, a floor under the largest $Q$."""
    found = scipy.optimize.minimize_scalar(
        lambda tau: -power_ratio(n_arms, alpha, tau), bounds=(0.01, 1), method="bounded"
    )
    return -float(found.fun)


# %% tags=["active-ipynb"]
# for a in ALPHAS:
#     for N in (1000, 10**5):
#         plain = nested_ratio(power_lengths(N, a, 0.8), a)
#         np.testing.assert_allclose(power_ratio(N, a, 0.8), plain, rtol=1e-6)

# %% [markdown]
# With as many arms as we like, the three theorems on $Q$ can be checked near their limits.
# With $10^{18}$ arms the ratio comes to between 0.0034 and 0.0132 below the factor, in parts of it.


# %%
def _below_share(alpha: float, factor=approximation_factor) -> float:
    """Largest ratio found over `factor`, that nothing may exceed."""
    found = [nested_ratio(best_lengths(N, alpha), alpha) for N in (2, 10, 1000)]
    return max(*found, best_power_ratio(10**18, alpha)) / factor(alpha)


def _power_error(alpha: float, tau: float, limit=limit_ratio) -> float:
    """Distance of the ratio from its limit at 10^12 arms, over 0.002."""
    return abs(power_ratio(10**12, alpha, tau) / limit(alpha, tau) - 1) / 2e-3


def _tight_share(alpha, below=approximation_factor, above=approximation_factor):
    """`below`, less 2 %, over the largest ratio found; the latter over `above`."""
    ratio = best_power_ratio(10**18, alpha)
    return max(0.98 * below(alpha) / ratio, ratio / above(alpha))


# %% tags=["active-ipynb"]
# for a in ALPHAS:
#     share = _below_share(a)
#     assert share < 1 and _tight_share(a) <= 1
#     assert max(_power_error(a, tau) for tau in (0.2, 0.5)) <= 1
#     print(f"alpha {a}: the largest ratio found is {1 - share:.4f} below the factor")

# %% [markdown]
# ## Ratio against the number of arms
#
# The table gives $Q$ of the best lengths [(eq-limits-stationary)](#eq-limits-stationary), in the last column that of the best power lengths.
# Every entry is proved, whether or not the lengths are the best ones: for any smaller $c$, [Theorem (Floor under the regret)](#thm-limits-floor) has a positive leading term.
# At $\alpha=0.5$ two arms give 1.061, ten 1.194 and a hundred thousand 1.381, of 1.4142.

# %% tags=["active-ipynb"]
# sizes, ratios = (2, 3, 5, 10, 20, 100, 1000, 10**4, 10**5), {}
# print("alpha  factor", *(f"{N:6}" for N in sizes), " 1e7, power")
# for a in ALPHAS:
#     ratios[a] = [nested_ratio(best_lengths(N, a), a) for N in sizes]
#     far = best_power_ratio(10**7, a)
#     assert max(*ratios[a], far) < approximation_factor(a)
#     assert (np.diff(ratios[a]) > 0).all()
#     print(f"{a:5} {approximation_factor(a):7.4f}", end=" ")
#     print(*(f"{ratio:6.3f}" for ratio in ratios[a]), f"{far:11.3f}")

# %% [markdown]
# The approach is slow, as a power of $\ln N$.
# Each time that $N$ becomes ten times as large, the inverse of the missing part $c_\alpha-Q$ of the power lengths grows by nearly the same amount, 3.04 at $\alpha=0.5$.
# For the best lengths the inverse of the root of the missing part does, by about 0.85.
# So the missing parts behave like $1/\ln N$ and $1/(\ln N)^2$.
# We measure these rates and do not prove them.

# %% tags=["active-ipynb"]
# print("alpha   power: steps of 1/missing     best: steps of 1/sqrt(missing)")
# for a in ALPHAS:
#     power = np.array([best_power_ratio(10**e, a) for e in (4, 5, 6, 7)])
#     inverse = np.diff(1 / (approximation_factor(a) - power))
#     root = np.diff((approximation_factor(a) - np.array(ratios[a][-4:])) ** -0.5)
#     print(f"{a:5}  ", inverse.round(2), "       ", root.round(3))
#     assert inverse.max() < 1.05 * inverse.min() and root.max() < 1.1 * root.min()
#     assert a != 0.5 or round(root.mean(), 2) == 0.85


# %%
def plot_ratio(ax, sizes, ratios: dict, power_sizes):
    r"""Ratio against the number of arms: best lengths, power lengths and $c_\alpha$."""
    for alpha, values in ratios.items():
        (line,) = ax.plot(sizes, values, "o-", ms=4, label=f"$\\alpha$ = {alpha}")
        power = [best_power_ratio(int(N), alpha) for N in power_sizes]
        ax.plot(power_sizes, power, "--", lw=1.2, color=line.get_color())
        level = approximation_factor(alpha)
        ax.axhline(level, ls=":", lw=1, color=line.get_color())
        ax.annotate("$c_\\alpha$", (power_sizes[-1], level), va="bottom")
    ax.set(xscale="log", xlabel="arms $N$", ylabel="optimum over ceiling")
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0.92))
    return ax


# %%
def plot_limit(ax, alphas):
    r"""The limit $Q_\tau$ against $\tau$, with $c_\alpha$ at its right end."""
    tau = np.linspace(0.01, 1, 200)
    for alpha in alphas:
        values = [limit_ratio(alpha, t) for t in tau]
        (line,) = ax.plot(tau, values, label=f"$\\alpha$ = {alpha}")
        ax.plot(1, approximation_factor(alpha), "o", ms=5, color=line.get_color())
    ax.set(xlabel="$\\tau$", ylabel="limit of the ratio, $N\\to\\infty$")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# with figure(2) as axes:
#     few = {a: ratios[a] for a in (0.1, 0.5, 0.9)}
#     plot_ratio(axes[0], sizes, few, np.geomspace(3, 1e7, 12).round())
#     plot_limit(axes[1], few)

# %% [markdown]
# **Figure (fig-limits-ratio).** <a id="fig-limits-ratio"></a> What the hidden order costs every policy. Above: optimum over ceiling against the number of arms; dots for the best lengths, dashed for the best power lengths, dotted the factor that the coupled policy is guaranteed. Below: the limit of the ratio for power lengths; the dots are the factor.
#
# ## What policies do on these games
#
# Eight arms, the best lengths, at most 10 000 rounds.
# The coupled policy is not told the rewards in advance, so after each death it needs some rounds to notice.
# It treats arms alike, so one run stands for every order of death; the cell plays two orders to assert it.

# %% tags=["active-ipynb"]
# print("alpha   ceiling allows at least   coupled policy     factor")
# for a in ALPHAS:
#     n = scaled_lengths(best_lengths(8, a), 10_000)
#     optimum, utilities = nested_optimum(n, a), []
#     for child in rng.spawn(2):
#         simulate(policy := AlphaFairGradient(8, a), phase_stream(n, rng=child))
#         utilities.append(alpha_fair_utility(policy.rewards, a))
#     np.testing.assert_allclose(utilities, utilities[0], rtol=1e-9)
#     floor, got = optimum / nested_ceiling(n, a), optimum / utilities[0]
#     assert floor <= got < approximation_factor(a)
#     print(f"{a:5} {floor:17.4f} {got:22.4f} {approximation_factor(a):14.4f}")

# %% [markdown]
# At $\alpha=0.5$ the optimum is 1.1768 times what the coupled policy has, and no policy could bring that below 1.1765.
# So on these games it can hardly be improved.
#
# A bandit draws its arms, so here orders and runs differ and the theorem speaks of the mean.
# Twenty runs of the log-barrier bandit, each in an order of its own, have 137.2 utility units in the mean at $\alpha=\frac12$, below the ceiling of 142.1; the optimum has 159.3.

# %% tags=["active-ipynb"]
# n, utilities = scaled_lengths(best_lengths(4, 0.5), 2000), []
# for child in rng.spawn(20):
#     order, draws = child.spawn(2)
#     policy = LogBarrierBandit(4, 0.5, horizon=2000)
#     simulate(policy, phase_stream(n, rng=order), rng=draws)
#     utilities.append(alpha_fair_utility(policy.rewards, 0.5))
# mean, half = mean_interval(utilities)
# ceiling, optimum = nested_ceiling(n, 0.5), nested_optimum(n, 0.5)
# print(f"mean utility {mean:.1f} +- {half:.1f},"
#       f" ceiling {ceiling:.1f}, optimum {optimum:.1f}")
# assert mean + half < ceiling < optimum

# %% [markdown]
# ## What is proved here, what was known, what is open
#
# *Proved above*: the ceiling for every policy; standard regret of the order $T^{1-\alpha}$ with two arms and two contexts; $Q<c_\alpha$ for every $N$; the limit of the power lengths.
# Hence $c_\alpha$ is the best factor that serves all numbers of arms and contexts.
#
# *Known*: [Sinha et al. (2023)](../references.bib#sinha2023noregret) say in their abstract that, for their problem of resource allocation, policies with sublinear standard regret were already known not to exist.
# Nested sets in random order are a standard device for online matching since [Karp et al. (1990)](../references.bib#karp1990optimal).
# For online matching with concave returns [Devanur and Jain (2012)](../references.bib#devanur2012concave) characterise the best competitive ratio for every concave function; powers are among them, and there too the optimum may choose anew for every item.
# For means of power $p$ of the agents' utilities, [Huang et al. (2025)](../references.bib#huang2025nashian) give competitive ratios that they call optimal over the whole range of $p$.
# In that language, with $p=1-\alpha$, our factor is $c_\alpha^{1/p}=1/p$.
# The inequality behind the ceiling of the family is Copson's.
# Of these works we could read abstracts and openings only, so we do not say which of our statements follow from theirs.
#
# *Not found*: the statement that $c_\alpha$ is the best factor for the regret of $\alpha$-fair bandits with contexts.
# We did not find it elsewhere; we searched a little, and given the works above it would not surprise us if it, or the constant for powers, were written down somewhere.
#
# *Not for one context*: these games need at least two (an exercise).
# For $M=1$ the best factor is 1: [the next chapter](one_context.ipynb) follows the leader and stays behind the optimum by at most a power of $\ln T$.
#
# *Open here*: the best factor for a fixed number of contexts from two on; for $M<N$ our games say little.
# Nor do we prove that the solution of [(eq-limits-stationary)](#eq-limits-stationary) is the best choice of lengths, or how fast the best ratio approaches $c_\alpha$.

# %% tags=["active-ipynb"]
# for a in ALPHAS:
#     p = 1 - a
#     np.testing.assert_allclose(approximation_factor(a) ** (1 / p), 1 / p)

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# apart = {n: nested_ratio(best_lengths(n, 0.5), 0.5) for n in (2, 1000)}
# Quiz(
#     "α = 1/2, two arms and two contexts, a long game that hides the order. How much "
#     "more than the best policy does the best map have?",
#     right=f"{apart[2] - 1:.0%}",
#     because="With phases 1 and 4. It takes many arms to come near the factor.",
#     wrong={
#         "0%": "The share does not vanish with the rounds, however long the game.",
#         f"{approximation_factor(0.5) - 1:.0%}": "Only in the limit of many arms.",
#         f"{apart[1000] - 1:.0%}": "That needs a thousand arms.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# short = scaled_lengths(best_lengths(8, 0.5), 4000)
# hidden = phase_stream(short, rng=np.random.default_rng(SEED))
# simulate(blind := AlphaFairGradient(8, 0.5), hidden)
# below = 1 - alpha_fair_utility(blind.rewards, 0.5) / nested_ceiling(short, 0.5)
# Quiz(
#     "The ceiling is for policies that are shown the rewards of a round before they "
#     "play. Eight arms, 4000 rounds: how far below is the coupled policy, which is not?",
#     right=f"{below:.2%}",
#     because="It only needs a few rounds after each death to notice.",
#     wrong={"18%": "So much more than the ceiling has the best map.",
#            "41%": "That is what the factor of its bound would allow."},
# )

# %% tags=["active-ipynb", "remove-input"]
# hidden = phase_stream([40, 160], rng=np.random.default_rng(SEED))
# together = hidden.rewards.sum(0)[None]
# easy = solve_offline(together, 0.5).utility <= nested_ceiling([40, 160], 0.5)
# Quiz(
#     "Which change of the game takes the advantage from the best map?",
#     right="All rounds in one context." if easy else "None of them.",
#     because="A fixed map then plays one distribution, and cannot tell phases apart.",
#     wrong={"More rounds.": "Regret and optimum grow alike.",
#            "More arms.": "The two are then farther apart.",
#            "Rewards shown first.": "The ceiling holds for policies that see them."},
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-limits-0"></a>
# Write the equal shares $\rho_k$ of [Theorem (Ceiling of the hidden order)](#thm-limits-ceiling): what the arm that dies after phase $k$ earns if every phase is shared by the living.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# In the first phase $N$ arms live, in the last one 1. An arm adds up its shares of all phases that it lives through.
#
# </details>

# %% tags=["active-ipynb"]
# def shared_equally(lengths):
#     """What each arm earns, in the order of death, shape (N,)."""
#     # your lines
#
#
# calls = [(np.array([4, 16]),), (np.array([6, 8, 11, 16]),)]
# check_answer(shared_equally, nested_shares, *calls)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Phase $s$ has $N-s+1$ living arms, and each of them gets $n_s/(N-s+1)$.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def shared_equally(lengths):
#     """What each arm earns, in the order of death, shape (N,)."""
#     living = np.arange(len(lengths), 0, -1)
#     return np.cumsum(lengths / living)
#
#
# assert check_answer(shared_equally, nested_shares, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-limits-1"></a>
# By hand: two arms, $\alpha=\frac12$, $\ell=(1,x)$.
# Find the $x$ that makes $Q$ largest.
#
# <details><summary>Solution</summary>
#
# $\rho=(\frac12,\frac12+x)$ and $Q=\frac{1+\sqrt x}{\sqrt{1/2}+\sqrt{1/2+x}}$.
# The derivative vanishes where $\sqrt{\frac12+x}\,\big(\sqrt{\frac12}+\sqrt{\frac12+x}\big)=\sqrt x\,(1+\sqrt x)$, that is $\sqrt{\frac12(\frac12+x)}=\sqrt x-\frac12$.
# Squared, this is $\frac x2=x-\sqrt x$, so $\sqrt x=2$ and $x=4$.
# There $Q=3/(2\sqrt2)$.
#
# </details>

# %% tags=["active-ipynb"]
# grid = np.linspace(0.1, 20, 2000)
# values = [nested_ratio([1, x], 0.5) for x in grid]
# assert abs(grid[np.argmax(values)] - 4) < 0.01
# np.testing.assert_allclose(nested_ratio([1, 4], 0.5), 3 / 8**0.5)

# %% [markdown]
# **Exercise ★★.** <a id="ex-limits-2"></a>
# Limits: what happens to $c_\alpha$, and to the constant of $T^{1-\alpha}$ in [(eq-limits-two)](#eq-limits-two), as $\alpha\to0$ and as $\alpha\to1$?
#
# <details><summary>Solution</summary>
#
# $c_\alpha=\beta^{-\beta}\to1$ in both cases.
# As $\alpha\to0$ the numerator $2-(\frac32)^\beta-(\frac12)^\beta$ tends to $2-2=0$: for sums of rewards standard regret can be sublinear, and is, for any learner.
# As $\alpha\to1$ numerator and denominator both vanish like $\beta$, and the constant tends to $-\ln\frac32-\ln\frac12=\ln\frac43$, while $T^\beta\to1$.
# For logarithms the loss stays, but it no longer grows, in line with the bound of order $\ln\ln T$ in the exercises of [full information](full_information.ipynb).
#
# </details>

# %% tags=["active-ipynb"]
# def constant(alpha):  # of the term in T^(1 - alpha): what is left between two horizons
#     near, far = regret_floor(np.array([1e3, 1e4]), [1, 1], alpha)
#     return (far - near) / (1e4 ** (1 - alpha) - 1e3 ** (1 - alpha))
#
# assert constant(1e-6) < 1e-6 < 0.01 < constant(0.5)
# np.testing.assert_allclose(constant(1 - 1e-5), np.log(4 / 3), rtol=1e-3)
# for a in (1e-4, 1 - 1e-4):
#     assert approximation_factor(a) < 1.001

# %% [markdown]
# **Exercise ★★★.** <a id="ex-limits-3"></a>
# Break an assumption: merge all contexts into one.
# Show that on these games, for all lengths, uniform play on the living arms is then at least as good as the best map, which is now a single distribution.
#
# <details><summary>Hint</summary>
#
# Show first that the best distribution does not give less to an arm that lives longer.
# Then compare the sums of the $m$ poorest arms, as in the proof of [Theorem (Ceiling of the hidden order)](#thm-limits-ceiling).
#
# </details>
#
# <details><summary>Solution</summary>
#
# Let $\bar n_k=\sum_{s\le k}n_s$ be the rounds in which arm $\pi_k$ is paid.
# A distribution $x$ (its entry for $\pi_k$ called $x_k$) gives $R_{\pi_k}=1+x_k\bar n_k$.
# At the best one all marginal utilities $\bar n_k(1+x_k\bar n_k)^{-\alpha}$ with $x_k>0$ are some $\mu$, so $x_k=\max\{0,\,\bar n_k^{1/\alpha-1}\mu^{-1/\alpha}-1/\bar n_k\}$, which does not decrease with $k$.
# For each $m$,
# $\sum_{k\le m}x_k\bar n_k=\sum_{s\le m}n_s\sum_{k=s}^mx_k\le\sum_{s\le m}n_s\frac{m-s+1}{N-s+1}=\sum_{k\le m}\rho_k$,
# because the $m-s+1$ smallest of the entries $x_s,\dots,x_N$ have at most the mean's share of their sum, which is at most 1.
# The $\rho_k$ increase, so the right side is the sum of the $m$ poorest under uniform play, and the left side is at least that under $x$: by weak majorisation the uniform policy's utility is the larger.
# So the proof needs a map that tells phases apart; that $M=1$ does allow a sublinear standard regret, on every sequence, [the next chapter](one_context.ipynb) shows.
#
# </details>

# %% tags=["active-ipynb"]
# for a in ALPHAS:
#     for N in (2, 5):
#         n = rng.integers(1, 200, size=N)
#         stream = phase_stream(n, rng=rng)
#         single = solve_offline(stream.rewards.sum(0)[None], a).utility
#         assert single <= nested_ceiling(n, a) + 1e-9
#         each = reward_sums(stream.contexts, stream.rewards, N)
#         assert solve_offline(each, a).utility > nested_ceiling(n, a)

# %% [markdown]
# **Exercise ★★.** <a id="ex-limits-4"></a>
# Break the other one: the order of death is known.
# What can a policy earn, and where does the proof of [Theorem (Ceiling of the hidden order)](#thm-limits-ceiling) fail?
#
# <details><summary>Solution</summary>
#
# It plays arm $\pi_k$ in phase $k$ and earns what the best map does.
# Given the order, $\pi_k$ is no longer a uniform living arm, so the mean of its share of a phase may be all of it.
# The tree policy below knows the order only by chance: it always bets on the identity, wins once in $N!$ games, and is under the ceiling in the mean.
#
# </details>

# %% tags=["active-ipynb"]
# n, a, places = [10.0, 20.0, 60.0], 0.5, np.eye(3)
# nodes = tree_optimum(n, a)[1]
# bet = {node: places[len(node)] for node in nodes}  # phase k: arm k, whatever died
# R = 1 + np.array(n)  # in the order 0, 1, 2, which the bet gets right
# np.testing.assert_allclose(alpha_fair_utility(R, a), nested_optimum(n, a))
# assert tree_utility(bet, n, a) < nested_ceiling(n, a) < nested_optimum(n, a)

# %% [markdown]
# ## What you can do now
#
# No policy avoids a regret of the order of the utility itself: with two contexts and two arms at $\alpha=\frac12$ the best map can have 1.061 times as much as any policy.
# With many arms this ratio tends to $c_\alpha=1.4142$, so no smaller factor serves all numbers of arms.
# The coupled policy is nearly as good as any can be on these games, 1.1768 against 1.1765 with eight arms.
#
# - Put a number on what nobody can avoid: `regret_floor`, drawn by `plot_floor`.
# - Play the game that hides the order of death: `phase_stream`, with the utilities `nested_shares`, `nested_ceiling`, `nested_optimum`; `tree_optimum` and `tree_utility` go through all policies of small games.
# - Find how far apart optimum and policies can be: `nested_ratio`, `best_lengths`, `power_lengths`, `power_ratio`, `best_power_ratio`, and `limit_ratio` for infinitely many arms; `long_sum` adds up what has no closed form, `plot_ratio` and `plot_limit` draw it.
#
# Next: [One context](one_context.ipynb) asks what becomes of all this if there is nothing to tell rounds apart by.
