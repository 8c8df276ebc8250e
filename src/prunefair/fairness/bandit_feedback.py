# %% [markdown]
r"""
# Bandit feedback: fair play when only the pulled arm answers

Two arms pay 1 and 0.001 in every round, and a learner may pull one of them 3000 times.
How often does the released bandit learner pull the better one?
In 60 rounds of 3000: it minimises losses and is fed with rewards.
With one minus sign in front of the reward it pulls the better arm in 2941 rounds.

In [the previous chapter](full_information.ipynb) a policy saw the reward of every arm after each round.
A bandit sees one number, the reward of the arm it pulled.
This chapter shows why that number, weighted by cumulative rewards that are already known, is enough.
It gives the learner of [Putta and Agrawal (2022)](../references.bib#putta2022scalefree), which needs to know neither the scale of its losses nor the number of rounds, with the right sign.
Then it proves a bound for a simpler learner, each inequality of which we can assert.
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

from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy

from prunefair.fairness.fast.compiled import barrier_step
from prunefair.fairness.full_information import (
    approximation_factor,
    surrogate_weights,
)
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.policy import (
    BanditPolicy,
    Policy,
    check_alpha,
    check_count,
    check_generator,
    check_policy_alpha,
    check_real,
)
from prunefair.fairness.simulation import RewardStream, check_run, simulate
from prunefair.fairness.utility import alpha_fair_utility

# %% tags=["active-ipynb"]
# import json
# import tempfile
# from functools import partial
# from itertools import product
# from pathlib import Path
#
# import cvxpy as cp
#
# from prunefair.fairness import bandit_feedback as package
# from prunefair.fairness.fast.batch import run_batch
# from prunefair.fairness.fast.unweighted import gap_runs, unweighted_run
# from prunefair.fairness.offline_optimum import optimum_over_time
# from prunefair.fairness.simulation import checkpoints
# from prunefair.fairness.uniform import UniformBandit

# %% tags=["active-ipynb"]
# from prunefair.exercises import Quiz, check_answer
# from prunefair.plotting import figure
#
# SEED = 20

# %% [markdown]
# A bandit must not give up an arm too soon, for then it learns nothing more of it.
# So the learner adds a *regulariser* to what it minimises, a cost of leaving the uniform distribution.
# Compare two of them, for two arms of which one falls behind; the scale is logarithmic.

# %% tags=["active-ipynb"]
# with figure() as ax:
#     package.plot_barriers(ax, np.linspace(0, 15, 100))
# factors = [1 / package.log_barrier_step(np.array([0, 15.0]))[1], 1 + np.exp(15)]
# assert 16 < factors[0] < 17 and 3e6 < factors[1] < 4e6

# %% [markdown]
# **Figure (fig-bandit-feedback-barriers).** <a id="fig-bandit-feedback-barriers"></a> What two regularisers leave of an arm that falls behind. The estimate of its reward is divided by this probability: where arm 1 is behind by 15, softmax multiplies a single reward by three million, the log barrier by 16.

# %% [markdown]
# ## Notation
#
# | symbol | in code | meaning |
# | --- | --- | --- |
# | $N$, $M$, $T$ | `n_arms`, `n_contexts`, `horizon` | arms, contexts, rounds |
# | $j_t$, $r(t)$ | `contexts`, `rewards` | context and rewards in $[0,1]^N$ of round $t$, fixed in advance |
# | $p(t)$ | `probabilities` | distribution the arm is drawn from |
# | $I_t$ | `arm` | the arm pulled, $I_t\sim p(t)$, 0-based |
# | $R_i(t)$ | `rewards` of a policy | $1+\sum_{s\le t}r_i(s)\,[I_s=i]$, realised rewards |
# | $g_i(t)$ | | $r_i(t)\,R_i(t-1)^{-\alpha}$, surrogate reward |
# | $\hat\ell(t)$ | `estimate` | estimated losses, zero but for the arm $I_t$ |
# | $M_t$ | `stability` | what one estimate may cost |
# | $A_j$ | `penalties` | $\sum M_t$ over the rounds of context $j$ |
# | $s_j$ | `scale` | $\max_iR_i^{-\alpha}$ at the first visit of context $j$ |
# | $\Lambda$, $\kappa$ | `barrier` is $N\Lambda$, `cap` | $\ln T$; learning rates stay below $1/(\kappa s_j)$ |
# | $U$, $U^*$ | `utility` | $\sum_i\phi(R_i(T))$ of the policy, and of the best fixed map |
#
# Rounds count from 1 in formulas, as in the papers; arms and contexts count from 0 everywhere.

# %% [markdown]
# ## Why the pulled arm's reward is enough
#
# The reduction ([Theorem (From linear regret to fair utility)](full_information.ipynb#thm-full-information-reduction)) holds for every sequence of plays, so also for the vertices $x(t)=e_{I_t}$ that a bandit plays:
#
# <a id="eq-bandit-feedback-reduction"></a>
# $$
# \begin{gathered}
# U^*-c_\alpha U\le(1-\alpha)^\alpha\Big[\sum_{t=1}^T\langle g(t),x^*_{j_t}-e_{I_t}\rangle-\frac{N\alpha}{1-\alpha}\Big],\\
# g_i(t)=r_i(t)\,R_i(t-1)^{-\alpha}.
# \end{gathered}
# $$ (eq-bandit-feedback-reduction)
#
# What is left is a linear bandit problem for each context, with rewards $g(t)$ of which one coordinate is seen.
# Dividing by the probability of seeing it gives an estimate of all of them, as losses,
#
# <div class="alert alert-info">
#
# **The estimate of a bandit.**
#
# <a id="eq-bandit-feedback-estimate"></a>
# $$
# \begin{gathered}
# \hat\ell_i(t)=-\frac{g_i(t)}{p_i(t)}\,[I_t=i],\\
# \mathbb E[\hat\ell(t)\mid\text{rounds before }t]=-g(t),
# \end{gathered}
# $$ (eq-bandit-feedback-estimate)
#
# </div>
#
# **if** $g(t)$ is fixed before $I_t$ is drawn.
# Two conditions make it so.
# The stream of contexts and rewards is fixed in advance, and the weights are those of $R(t-1)$: with full information $R(t)$ would do as well, but here $R(t)$ depends on the draw.
# An adversary who reacts to the draws breaks the argument at a second place.
# The best map $x^*$ is then random and depends on the estimates, so the mean of their product is not the product of their means.
# [High probability](high_probability.ipynb) has a learner for such an adversary.
#
# The expectation is a sum over $N$ cases, so we can check it without sampling.

# %% tags=["active-ipynb"]
# p, g = np.array([0.5, 0.3, 0.2]), np.array([0.4, 1.0, 0.05])
# estimates = -np.diag(g / p)  # row I: the estimate if arm I is pulled
# np.testing.assert_allclose(p @ estimates, -g, atol=1e-15)
# second_moment = p @ estimates**2
# np.testing.assert_allclose(second_moment, g**2 / p, atol=1e-15)
# print("mean", p @ estimates, " second moment", second_moment.round(3))

# %% [markdown]
# The second moment grows like $1/p_i$, so a learner that abandons an arm pays for it with the variance of that arm's estimate.
# The regulariser has to resist: $-\sum_i\ln p_i$, the log barrier, does so most strongly near the boundary.
#
# ## The log-barrier step
#
# The method *follow the regularised leader* plays what would have been best so far, regulariser included.
# With the rate $\eta$ that is the minimiser of $\langle p,v\rangle-\sum_i\ln p_i$ over the simplex, $v=\eta\sum_s\hat\ell(s)$.
# Setting the derivative of the Lagrangian to zero,
#
# $$
# p_i=\frac1{v_i+\lambda},
# \qquad
# \psi(\lambda)=\Big(\sum_i\frac1{v_i+\lambda}\Big)^{-1}-1=0 .
# $$ (eq-bandit-feedback-newton)
#
# A common shift of $v$ changes nothing, so we take $\min_iv_i=0$.
# The step has no closed form, and it is taken in every round.
# So we want a method that cannot fail and is done in a few iterations.
#
# **Theorem (Newton's method climbs to the root).** <a id="thm-bandit-feedback-newton"></a>
# With $\min_iv_i=0$ the root of $\psi$ lies in $[1,N]$, and Newton's method started at $\lambda=1$ increases to it without passing it.
#
# **Proof.**
# Let $s_k=\sum_i(v_i+\lambda)^{-k}$.
# At $\lambda=1$ the smallest entry alone gives $s_1\ge1$, so $\psi\le0$; at $\lambda=N$ every term is at most $1/N$, so $\psi\ge0$.
# Further $\psi'=s_2/s_1^2>0$ and $\psi''=2(s_2^2-s_1s_3)/s_1^3\le0$ by Cauchy--Schwarz.
# The graph of a concave function lies below its tangents, so the tangent at a point left of the root meets zero between that point and the root. ∎
#
# In words: started at 1, no iterate overshoots, so nothing has to be guarded but rounding.
# On vectors of any size below, at most 7 steps are needed.
#
# The step is $\lambda\leftarrow\lambda+s_1(s_1-1)/s_2$.
# Applied to $\sum_i1/(v_i+\lambda)-1$ itself, Newton's method is monotone too, but slow while one term is large; the reciprocal of the sum is nearly straight.
# The interval $[1,N]$ guards the iterates against rounding.


# %%
def log_barrier_step(v: np.ndarray, *, max_iter: int = 100) -> np.ndarray:
    r"""Minimiser of $\langle p, v\rangle - \sum_i \ln p_i$ over the simplex.

    Parameters
    ----------
    v : ndarray, shape (N,), float64
        Learning rate times cumulative losses; finite; no unit.
    max_iter : int
        Newton steps at most; fewer than ten are needed.

    Returns
    -------
    p : ndarray, shape (N,), float64
        Probabilities, all positive: $p_i = 1 / (v_i + \lambda)$.

    Raises
    ------
    ValueError
        If `v` is not a finite vector with an entry.
    RuntimeError
        If `max_iter` steps do not reach rounding.

    References
    ----------
    Book {eq}`eq-bandit-feedback-newton`; {cite}`putta2022scalefree`, the FTRL step.
    """
    if v.ndim != 1 or not (v.size and np.isfinite(v).all()):
        raise ValueError(f"v is {v!r}; it must be a finite vector with an entry")
    w = v - v.min()  # (N,) a common shift changes nothing
    lam, n = 1.0, v.size
    for _ in range(max_iter):
        p = 1 / (w + lam)  # (N,)
        total = p.sum()
        step = total * (total - 1) / (p @ p)
        if abs(step) <= 4e-16 * n * lam:
            return p / total
        lam = min(max(lam + step, 1.0), float(n))
    raise RuntimeError(f"max_iter is {max_iter}; Newton's method needs more steps")


# %% [markdown]
# By hand for $N=2$: with $v=(0,d)$ the root solves $\lambda^2+(d-2)\lambda-d=0$.
# Optimality pins the answer: $v_i-1/p_i$ is the same number for every arm.
# The third check asks cvxpy, the fourth brings ties, a shift of $10^8$ and a gap of $10^{17}$.

# %% tags=["active-ipynb"]
# d = 3.0
# lam = (2 - d + np.sqrt((d - 2) ** 2 + 4 * d)) / 2
# np.testing.assert_allclose(log_barrier_step(np.array([0, d])), [1 / lam, 1 / (d + lam)])
# v = np.random.default_rng(SEED).normal(size=6) * 10
# p = log_barrier_step(v)
# np.testing.assert_allclose(np.ptp(v - 1 / p), 0, atol=1e-11)
# np.testing.assert_allclose(log_barrier_step(v + 1e8), p, rtol=1e-6)
# q = cp.Variable(6)
# cp.Problem(cp.Minimize(v @ q - cp.sum(cp.log(q))), [cp.sum(q) == 1]).solve("CLARABEL")
# np.testing.assert_allclose(p, q.value, atol=1e-4)
# np.testing.assert_array_equal(log_barrier_step(np.full(4, 7.0)), np.full(4, 0.25))
# print(log_barrier_step(np.array([0, 1e17, 0])))

# %% [markdown]
# The next function draws [Figure (fig-bandit-feedback-barriers)](#fig-bandit-feedback-barriers), at the head of this chapter.


# %%
def plot_barriers(ax, leads):
    """Probability of an arm that is behind: log barrier and softmax."""
    barrier = [log_barrier_step(np.array([0.0, lead]))[1] for lead in leads]
    ax.plot(leads, barrier, label=r"log barrier, $-\sum_i\ln p_i$")
    softmax = 1 / (1 + np.exp(leads))
    ax.plot(leads, softmax, label=r"softmax, $\sum_ip_i\ln p_i$")
    ax.set(yscale="log", xlabel="how far arm 1 is behind, $v_1-v_0$")
    ax.set(ylabel="probability of arm 1")
    ax.legend()
    return ax


# %% [markdown]
# The theorem says that the iterates rise to the root, and where the root lies.
# We follow them on vectors of every size, on equal entries, where the root is $N$, and on one small entry among huge ones, where it is 1.


# %%
def _newton_path(v: np.ndarray, start: float) -> list[float]:
    r"""Iterates of Newton's method for $\psi$ from `start`, without any guard."""
    path, w = [start], v - v.min()
    while len(path) < 200:
        s1, s2 = (1 / (w + path[-1])).sum(), ((1 / (w + path[-1])) ** 2).sum()
        path.append(path[-1] + s1 * (s1 - 1) / s2)
        if path[-1] <= path[-2] * (1 + 1e-13):
            break
    return path


def _newton_share(vectors, low=1.0, high=lambda n: n, start=lambda n: 1.0) -> float:
    """Largest quotient of what the theorem puts in order: `low`, iterates, `high`."""
    share = 0.0
    for v in vectors:
        path = _newton_path(v, start(v.size))
        root = path[-1] if abs((1 / (v - v.min() + path[-1])).sum() - 1) < 1e-9 else 0
        ordered = [low, *path, root, high(v.size)] if root else [1.0, 0.5]
        share = max(share, max(a / b for a, b in pairwise(ordered)))
    return share


# %% tags=["active-ipynb"]
# draws = np.random.default_rng(SEED)
# vectors = [10 ** draws.uniform(-6, 6, n) for n in [2, 5, 19, 200] * 25]
# vectors += [np.zeros(n) for n in (2, 30)] + [np.array([0, 1e12, 1e12])]
# constant = _newton_share(vectors)
# assert constant <= 1 + 1e-12
# most = max(len(_newton_path(v, 1.0)) for v in vectors)
# print(f"Newton steps at most: {most}; constant {constant:.6f}")

# %% [markdown]
# <div class="alert alert-warning">
#
# **Deviation.**
# The paper asks for the minimiser and leaves the method open.
# The released `log_opt` runs the same kind of iteration in a `while` without a limit, and stops when the sum is within $10^{-9}$ of one.
# That test depends on a common shift of $v$: moved by $10^8$ it never returns.
# We subtract the minimum first, stop on the step, and raise after `max_iter` steps.
#
# </div>
#
# ## What one estimate may cost
#
# How large may the rate $\eta$ be?
# A large rate learns fast, but lets a single estimate move the play far.
# The adaptive rate of this learner measures that cost round by round.
# With $F(p)=-\sum_i\ln p_i$ and its Bregman divergence, how far $F$ at $q$ lies above its tangent at $p$, $\mathrm{Br}(q,p)=\sum_i\big(\tfrac{q_i}{p_i}-1-\ln\tfrac{q_i}{p_i}\big)$, let
#
# $$
# M_t=\max_{q\in\Delta}\ \langle\hat\ell(t),p(t)-q\rangle-\frac1{\eta_t}\mathrm{Br}(q,p(t)) .
# $$ (eq-bandit-feedback-stability)
#
# This is what the learner can lose by having played $p(t)$ before it knew $\hat\ell(t)$.
# The maximiser is one more log-barrier step, from $1/p(t)$ along $\eta_t\hat\ell(t)$.
# Without the constraint $\sum_iq_i=1$ the maximum has a closed form, and so
#
# <a id="eq-bandit-feedback-stability-bound"></a>
# $$
# M_t\le\frac{z-\ln(1+z)}{\eta_t},\qquad z=\eta_t\,p_{I_t}(t)\,\hat\ell_{I_t}(t)>-1 .
# $$ (eq-bandit-feedback-stability-bound)


# %%
def stability(p: np.ndarray, arm: int, estimate: float, eta: float) -> float:
    r"""What one estimated loss may cost, $M_t$.

    Parameters
    ----------
    p : ndarray, shape (N,), float64
        Point of the learner, positive probabilities.
    arm : int
        The arm pulled, the one coordinate where the estimate is not zero.
    estimate : float
        Estimated loss of that arm, any sign.
    eta : float
        Learning rate, positive.

    Returns
    -------
    cost : float
        The maximum over the simplex, at least 0.

    References
    ----------
    Book {eq}`eq-bandit-feedback-stability`; {cite}`putta2022scalefree`, step 6.
    """
    v = 1 / p
    v[arm] += eta * estimate
    q = log_barrier_step(v)
    d = q / p - 1
    log = np.where(d > -0.5, np.log1p(np.maximum(d, -0.5)), np.log(q / p))
    return max(estimate * (p[arm] - q[arm]) - (d - log).sum() / eta, 0.0)


# %% tags=["active-ipynb"]
# p, eta, estimate = np.array([0.5, 0.3, 0.2]), 0.7, -4.0
# q = cp.Variable(3)
# divergence = cp.sum(cp.multiply(1 / p, q) - 1 - cp.log(q) + np.log(p))
# gain = estimate * (p[2] - q[2]) - divergence / eta
# oracle = cp.Problem(cp.Maximize(gain), [cp.sum(q) == 1]).solve("CLARABEL")
# cost = stability(p, 2, estimate, eta)
# np.testing.assert_allclose(cost, oracle, atol=1e-7)
# z = eta * p[2] * estimate
# assert cost <= (z - np.log1p(z)) / eta
# print(f"cost {cost:.4f}, without the constraint {(z - np.log1p(z)) / eta:.4f}")

# %% [markdown]
# ## The scale-free learner
#
# [Putta and Agrawal (2022)](../references.bib#putta2022scalefree) make both the rate and the exploration adapt:
#
# <a id="eq-bandit-feedback-scale-free"></a>
# $$
# \begin{gathered}
# \eta_t=\frac N{1+\sum_{s<t}M_s},\qquad
# p'(t)=(1-\gamma_t)\,p(t)+\frac{\gamma_t}N\mathbf 1,\\
# \gamma_t=\frac N{2N+\sum_{s<t}\gamma_s|\ell_{I_s}(s)|/p'_{I_s}(s)}.
# \end{gathered}
# $$ (eq-bandit-feedback-scale-free)
#
# The arm is drawn from $p'(t)$, which never lets an arm go unexplored, because a loss of unknown size may be hiding there; the estimate divides by $p'$.
# Sums run over the rounds of one context.
# Their abstract states a regret of $\tilde O(\sqrt{NL_2}+L_\infty\sqrt{NL_1})$ with $L_2=\sum\lVert\ell\rVert_2^2$, $L_1=\sum\lVert\ell\rVert_1$ and $L_\infty=\max\lVert\ell\rVert_\infty$; we measure against that form below, and [prove it with constants](high_probability.ipynb#the-scale-free-bound-proved) in the next chapter.


# %%
class ScaleFreeState(NamedTuple):
    """A scale-free learner: its point, summed estimates, penalties, exploration."""

    point: np.ndarray
    estimates: np.ndarray
    penalties: float
    explored: float


# %%
def sampling_distribution(state: ScaleFreeState) -> np.ndarray:
    r"""The point mixed with uniform play, weight $\gamma_t$, shape (N,)."""
    n = state.point.size
    gamma = n / (2 * n + state.explored)
    return (1 - gamma) * state.point + gamma / n


# %%
def scale_free_step(
    state: ScaleFreeState, arm: int, loss: float, probability: float | None = None
) -> ScaleFreeState:
    """One step of the scale-free learner on the loss of the pulled arm.

    Parameters
    ----------
    state : ScaleFreeState
    arm : int
        The arm drawn from `sampling_distribution`.
    loss : float
        Its loss, of any sign and size; a reward enters with a minus.
    probability : float, optional
        With which it was drawn; that of `state` by default.

    Returns
    -------
    state : ScaleFreeState

    References
    ----------
    Book {eq}`eq-bandit-feedback-scale-free`; {cite}`putta2022scalefree`, Algorithm 1.
    """
    n = state.point.size
    if probability is None:
        probability = sampling_distribution(state)[arm]
    estimate = loss / probability
    gamma = n / (2 * n + state.explored)
    penalties = state.penalties + stability(
        state.point, arm, estimate, n / (1 + state.penalties)
    )
    estimates = state.estimates.copy()
    estimates[arm] += estimate
    point = log_barrier_step(n / (1 + penalties) * estimates)
    explored = state.explored + gamma * abs(estimate)
    return ScaleFreeState(point, estimates, penalties, explored)


# %% [markdown]
# One learner a context, all of them weighing rewards by the same $R(t-1)$, is the policy.
# It steps by `barrier_step` of `prunefair.fairness.fast.compiled`, the same step compiled, which a test compares with `scale_free_step`.
# When arms come and go, and when it begins from a log, the point is that of the estimates that are then there.


# %%
def _rates(policy, state) -> tuple[float, float]:
    """Numerator of the learning rate, and what is under it beside the penalties."""
    if isinstance(state, ScaleFreeState):
        return float(state.point.size), 1.0
    room = state.point.size * policy.log_horizon
    return room, policy.cap * room * state.scale


def _rearranged(policy, state, places, rewards):
    """`Policy.rearranged`: a new arm is one that was there and paid nothing."""
    grown = places.size / state.point.size
    state = Policy.rearranged(policy, state, places, rewards)
    if isinstance(state, LogBarrierState):  # the rate is kept, or lowered by scale
        new = surrogate_weights(rewards[places < 0], policy.alpha)
        scale = float(new.max(initial=state.scale))
        state = state._replace(penalties=state.penalties * grown, scale=scale)
    room, start = _rates(policy, state)
    scores = room / (start + state.penalties) * state.estimates
    return state._replace(point=log_barrier_step(scores))


def _begun(policy, x, gradients):
    """`Policy.warm_start`: estimates whose point is `x`, a little off the boundary."""
    state, n = policy.initial(), len(gradients)
    p = (n * x + 1 / x.size) / (n + 1)
    room, start = _rates(policy, state)
    return state._replace(point=p, estimates=(1 / p - 1 / p.min()) * start / room)


# %%
class ScaleFreeBandit(BanditPolicy):
    r"""Coupled alpha-fair bandit: one scale-free learner a context, shared weights.

    Parameters
    ----------
    n_arms : int or sequence of names
        Number of arms $N$, or their names.
    alpha : float
        Fairness parameter in [0, 1].

    Attributes
    ----------
    arms, retired, rewards
        Names of the arms, names of those that there were, whose late rewards are to be
        dropped, and what each arm earned: as for every `Policy`.

    Raises
    ------
    ValueError
        If `n_arms` or `alpha` is out of range.

    References
    ----------
    Book {eq}`eq-bandit-feedback-scale-free`; {cite}`putta2022scalefree`, Algorithm 1.

    Examples
    --------
    >>> from prunefair.fairness.bandit_feedback import ScaleFreeBandit
    >>> policy = ScaleFreeBandit(n_arms=3, alpha=0.9)
    >>> p = policy.probabilities("evening")
    >>> policy.update("evening", arm=1, reward=0.5)
    >>> int(policy.probabilities("evening").argmax())
    1
    """

    def __init__(self, n_arms: int | Sequence[Hashable], alpha: float):
        super().__init__(n_arms)
        self.alpha = check_policy_alpha(alpha)

    def initial(self) -> ScaleFreeState:
        n = self.n_arms
        return ScaleFreeState(np.full(n, 1 / n), np.zeros(n), 0.0, 0.0)

    def play(self, context: Hashable) -> np.ndarray:
        return sampling_distribution(self.learner(context))

    def step(self, context, arm: int, reward: float, probability: float) -> None:
        loss = -reward * surrogate_weights(self.rewards[arm], self.alpha)
        state, rates = self.learner(context), (float(self.n_arms), 1.0)
        self.learners[context] = barrier_step(state, arm, loss, probability, rates)

    rearranged, begun = _rearranged, _begun


# %% [markdown]
# The minus in the first line of `step` is what the released code lacks.
# Two arms with constant rewards show it; the learner is the same, only the sign of what it is fed differs.


# %%
def _two_armed_pulls(
    sign: float, rounds: int, *, rng: np.random.Generator
) -> np.ndarray:
    """Pulls of two arms that pay 1 and 0.001, shape (2,).

    Parameters
    ----------
    sign : float
        -1 feeds the learner with losses, +1 with rewards, as the released code does;
        another size changes their unit.
    rounds : int
        Number of rounds.
    rng : numpy.random.Generator
        Draws the arms.

    Returns
    -------
    pulls : ndarray, shape (2,), int64
    """
    check_generator(rng)
    state, pulls = ScaleFreeBandit(2, 0.0).initial(), np.zeros(2, int)
    for _ in range(rounds):
        arm = int(rng.random() > sampling_distribution(state)[0])
        state = scale_free_step(state, arm, sign * (1.0, 0.001)[arm])
        pulls[arm] += 1
    return pulls


# %% tags=["active-ipynb"]
# for name, sign in (("losses", -1), ("rewards, as released", 1)):
#     runs = np.random.default_rng(SEED).spawn(5)
#     pulls = np.array([_two_armed_pulls(sign, 3000, rng=rng)[0] for rng in runs])
#     print(f"fed with {name}: {pulls.mean():.0f} pulls of the better arm of 3000")
#     assert (pulls > 2900).all() if sign < 0 else (pulls < 100).all()

# %% [markdown]
# <div class="alert alert-warning">
#
# **Deviation.**
# The paper on scale-free bandits is written for losses.
# The released $\alpha$-fair code passes it the surrogate *reward* without a minus, so its policy minimises reward, and its published bandit figures show such a policy.
# We pass $-r_{I_t}(t)R_{I_t}(t-1)^{-\alpha}$.
# The cell above is the two-line test: one of the signs pulls the better arm, the other the worse one.
#
# </div>
#
# ## A learner whose bound we prove
#
# Here the scale is no secret: $R\ge1$ and it never falls, so $0\le g_i(t)\le s_j\le1$ from the first visit of context $j$ on, with $s_j=\max_iR_i^{-\alpha}$ at that visit.
# Forced exploration can go, and the rate may start at a known size:
#
# $$
# \eta_t=\frac{N\Lambda}{\kappa N\Lambda\,s_j+\sum_{s<t}M_s},\qquad\Lambda=\ln T,\quad\kappa\ge2,
# $$ (eq-bandit-feedback-rate)
#
# sums again over the rounds of the context.
# The arm is drawn from $p(t)$ itself.


# %%
class LogBarrierState(NamedTuple):
    """A log-barrier learner: its point, summed estimates, penalties and scale."""

    point: np.ndarray
    estimates: np.ndarray
    penalties: float
    scale: float


# %%
def log_barrier_update(
    state: LogBarrierState,
    arm: int,
    loss: float,
    barrier: float,
    cap: float,
    probability: float | None = None,
) -> LogBarrierState:
    r"""One step of the log-barrier learner on the loss of the pulled arm.

    Parameters
    ----------
    state : LogBarrierState
    arm : int
        The arm drawn from the learner's point.
    loss : float
        Its loss in `[-state.scale, 0]`.
    barrier : float
        $N \Lambda$, the room given to the barrier.
    cap : float
        $\kappa$: the learning rate never exceeds 1 / (cap scale).
    probability : float, optional
        With which the arm was drawn; that of `state.point` by default.

    Returns
    -------
    state : LogBarrierState

    References
    ----------
    Book {eq}`eq-bandit-feedback-rate`.
    """
    start = cap * barrier * state.scale
    estimate = loss / (state.point[arm] if probability is None else probability)
    penalties = state.penalties + stability(
        state.point, arm, estimate, barrier / (start + state.penalties)
    )
    estimates = state.estimates.copy()
    estimates[arm] += estimate
    point = log_barrier_step(barrier / (start + penalties) * estimates)
    return LogBarrierState(point, estimates, penalties, state.scale)


# %%
class LogBarrierBandit(BanditPolicy):
    r"""Coupled alpha-fair bandit without forced exploration.

    Parameters
    ----------
    n_arms : int or sequence of names
        Number of arms $N$, or their names.
    alpha : float
        Fairness parameter in [0, 1]; the bound in the mean is for (0, 1).
    horizon : float
        Number of rounds $T \ge 2$ that the rate is made for; more may be played.
    cap : float
        $\kappa$: the first rate is $1 / (\kappa s_j)$; the bound is for at least 2.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Book {eq}`eq-bandit-feedback-rate`.
    """

    def __init__(
        self,
        n_arms: int | Sequence[Hashable],
        alpha: float,
        *,
        horizon: float,
        cap: float = 2.0,
    ):
        super().__init__(n_arms)
        self.alpha = check_policy_alpha(alpha)
        self.horizon = check_real(
            horizon, "horizon", lambda T: 2 <= T < np.inf, "be at least 2, finite"
        )
        self.cap = check_real(
            cap, "cap", lambda k: 0 < k < np.inf, "be positive and finite"
        )
        self.log_horizon = float(np.log(self.horizon))

    barrier = property(lambda self: self.n_arms * self.log_horizon)

    def initial(self) -> LogBarrierState:
        n, scale = self.n_arms, surrogate_weights(self.rewards, self.alpha).max()
        return LogBarrierState(np.full(n, 1 / n), np.zeros(n), 0.0, float(scale))

    def play(self, context: Hashable) -> np.ndarray:
        return self.learner(context).point

    def step(self, context, arm: int, reward: float, probability: float) -> None:
        loss, state = -reward * self.rewards[arm] ** -self.alpha, self.learner(context)
        rates = (self.barrier, self.cap * self.barrier * state.scale)
        self.learners[context] = barrier_step(state, arm, loss, probability, rates)

    rearranged, begun = _rearranged, _begun


# %% [markdown]
# What can we promise for this learner?
# The bound comes in two parts, one for every path and one for the mean.
# The first is a statement on estimates, which are all that the learner sees; the second brings back the true rewards, by taking means.
# Write $b=8\ln2-4$, and for a point $u$ of the simplex $u'=(1-\frac1T)u+\frac1{TN}\mathbf 1$, the same point moved off the boundary.
#
# **Theorem (The log-barrier learner on every path).** <a id="thm-bandit-feedback-path"></a>
# Let $\kappa\ge2$ and $T\ge2$.
# For every context $j$, every sequence of rewards in $[0,1]$ and of draws, and every $u\in\Delta$, with sums over the rounds of $j$,
#
# $$
# \begin{gathered}
# \sum\langle\hat\ell(t),p(t)-u'\rangle\le\kappa N\Lambda s_j+2A_j,\\
# A_j\le\sqrt{b\,N\Lambda\,Q_j},\quad Q_j=\sum g_{I_t}(t)^2 .
# \end{gathered}
# $$ (eq-bandit-feedback-path)
#
# **Proof.**
# *Follow the regularised leader.*
# Let $\Psi=F-F(\mathbf 1/N)\ge0$ and $\Phi_t(q)=\langle q,\sum_{s<t}\hat\ell(s)\rangle+\Psi(q)/\eta_t$, minimised by $p(t)$.
# Rates do not increase, so $\Phi_{t+1}(q)\ge\Phi_t(q)+\langle\hat\ell(t),q\rangle$, and $\Phi_t(q)\ge\Phi_t(p(t))+\mathrm{Br}(q,p(t))/\eta_t$ because $p(t)$ is a minimiser over a convex set.
# With the definition of $M_t$ therefore $\min\Phi_{t+1}\ge\min\Phi_t+\langle\hat\ell(t),p(t)\rangle-M_t$.
# Start from $\min\Phi_1=0$, sum over the rounds, use $\eta_T$ once more in the last of them, and evaluate at $u'$:
# $\sum\langle\hat\ell(t),p(t)-u'\rangle\le\Psi(u')/\eta_T+A_j$.
# Every entry of $u'$ is at least $1/(TN)$, so $\Psi(u')\le N\ln(TN)-N\ln N=N\Lambda$, and $N\Lambda/\eta_T\le\kappa N\Lambda s_j+A_j$.
#
# *The penalties.*
# $\eta_t\le1/(\kappa s_j)$ and $g_{I_t}\le s_j$, so $z=-\eta_tg_{I_t}\in[-\frac12,0]$ in [(eq-bandit-feedback-stability-bound)](#eq-bandit-feedback-stability-bound).
# There $z-\ln(1+z)\le\frac b2z^2$: the quotient $(z-\ln(1+z))/z^2$ decreases in $z$ and equals $4(\ln2-\frac12)=\frac b2$ at $-\frac12$.
# Hence $M_t\le\frac b2\eta_tg_{I_t}^2=\frac b2N\Lambda g_{I_t}^2/B_{t-1}$ with $B_t=\kappa N\Lambda s_j+\sum_{s\le t}M_s$, and $M_t\le\frac b4s_j$.
# Sum $B_t^2-B_{t-1}^2=2B_{t-1}M_t+M_t^2\le bN\Lambda g_{I_t}^2+\frac b4s_jM_t$:
#
# $$
# A_j^2+2\kappa N\Lambda s_jA_j\le bN\Lambda Q_j+\tfrac b4s_jA_j,
# $$
#
# and $\frac b4<0.39<2\kappa N\Lambda$ as $\kappa N\Lambda\ge2\ln2$. ∎
#
# In words: against its own estimates the learner loses at most a constant times $N\ln T$ and twice its penalties, and these grow like the root of the squares it has seen.
# Nothing here is random, so it holds for every run.
#
# **Theorem (The log-barrier policy in the mean).** <a id="thm-bandit-feedback-mean"></a>
# For a stream fixed in advance, $0\le\alpha<1$, $\kappa\ge2$ and $T\ge2$, and for the best fixed map,
#
# <a id="eq-bandit-feedback-bound"></a>
# $$
# \begin{aligned}
# U^*-c_\alpha\,\mathbb EU\le(1-\alpha)^\alpha\Big[&\kappa N\ln T\;\mathbb E\sum_js_j+1\\
# &+2\sqrt{b\,MN\ln T\;\mathbb EU}-\frac{N\alpha}{1-\alpha}\Big],
# \end{aligned}
# $$ (eq-bandit-feedback-bound)
#
# the sum over the contexts that occur.
# As $s_j\le1$ and $U\le N^\alpha(N+T)^{1-\alpha}/(1-\alpha)$, this is $\tilde O\big(\sqrt M\,N^{(1+\alpha)/2}\,T^{(1-\alpha)/2}+MN\big)$, and no reward needs a positive lower bound.
#
# **Proof.**
# Take expectations in [(eq-bandit-feedback-reduction)](#eq-bandit-feedback-reduction), where $x^*$ is not random.
# Given the rounds before $t$, the draw $I_t$ has mean $p(t)$ and $\hat\ell(t)$ has mean $-g(t)$, so
# $\mathbb E\langle g(t),x^*_{j_t}-e_{I_t}\rangle=\mathbb E\langle\hat\ell(t),p(t)-x^*_{j_t}\rangle$.
# Moving $x^*_{j_t}$ off the boundary costs $\langle-g(t),u'-u\rangle=\frac1T\langle g(t),u-\frac1N\mathbf 1\rangle\le\frac1T$ a round, 1 in all.
# By the theorem on paths the rest is at most $\mathbb E\sum_j\big(\kappa N\Lambda s_j+2\sqrt{bN\Lambda Q_j}\big)$.
# Cauchy--Schwarz gives $\sum_j\sqrt{Q_j}\le\sqrt{M\sum_jQ_j}$, then $g\le1$ gives $\sum_jQ_j\le\sum_tg_{I_t}(t)\le U$ by [Lemma (Telescoping)](full_information.ipynb#lem-full-information-telescoping), and Jensen's inequality moves the expectation under the root. ∎
#
# In words: seeing one reward a round instead of all costs a factor of about $\sqrt{\ln T}$ in the bound, and the bound holds in the mean over the draws only.


# %%
def bandit_bound(
    utility: float,
    scales: float,
    alpha: float,
    *,
    n_arms: int,
    n_contexts: int,
    horizon: float,
    cap: float = 2.0,
) -> float:
    r"""Right side of the bound in the mean, on $U^* - c_\alpha\,\mathbb{E}U$.

    Parameters
    ----------
    utility : float
        Mean utility $\mathbb{E}U$ of the policy, utility units.
    scales : float
        Mean of $\sum_j s_j$ over the contexts that occur; at most `n_contexts`.
    alpha : float
        Fairness in [0, 1).
    n_arms, n_contexts : int
        Numbers of arms and of contexts.
    horizon : float
        Number of rounds $T \ge 2$.
    cap : float
        $\kappa \ge 2$ of the policy.

    Returns
    -------
    bound : float
        Utility units.

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1) or `cap` is below 2, where the proof ends.

    References
    ----------
    Book {eq}`eq-bandit-feedback-bound`.
    """
    alpha = check_alpha(alpha, below=1)
    if not cap >= 2:
        raise ValueError(f"cap is {cap!r}; the bound is proved for cap >= 2 only")
    room = n_arms * np.log(horizon)
    b = 8 * np.log(2) - 4
    regret = cap * room * scales + 1 + 2 * (b * n_contexts * room * utility) ** 0.5
    return float((1 - alpha) ** alpha * (regret - n_arms * alpha / (1 - alpha)))


# %% [markdown]
# ## Checking both theorems
#
# A run that keeps books on its surrogate rewards lets us assert every inequality above.


# %%
class AuditedRun(NamedTuple):
    """What one run earned, in rewards (N,) and in surrogate rewards by context.

    `surrogates` has shape (M, N) and sums $g(t)$; `earned`, `squares` have shape (M,)
    and sum $g_{I_t}$ and its square; `losses` has shape (M, 2) and holds $L_1$, $L_2$.
    """

    rewards: np.ndarray
    surrogates: np.ndarray
    earned: np.ndarray
    squares: np.ndarray
    losses: np.ndarray


# %%
def audited_run(
    policy: BanditPolicy, stream: RewardStream, *, rng: np.random.Generator
) -> AuditedRun:
    """Play `policy` on `stream` and keep books on its surrogate rewards.

    Parameters
    ----------
    policy : BanditPolicy
        With an attribute `alpha`; changed by the run.
    stream : RewardStream
    rng : numpy.random.Generator
        Draws the arms.

    Returns
    -------
    run : AuditedRun
    """
    check_run(policy, stream, rng)
    surrogates = np.zeros((stream.n_contexts, stream.n_arms))
    earned, squares = np.zeros((2, stream.n_contexts))
    losses = np.zeros((stream.n_contexts, 2))
    for j, rewards in zip(stream.contexts.tolist(), stream.rewards):
        p = policy.probabilities(j)
        arm = int(np.searchsorted(np.cumsum(p), rng.random() * p.sum(), "right"))
        g = rewards * surrogate_weights(policy.rewards, policy.alpha)
        surrogates[j] += g
        earned[j] += g[arm]
        squares[j] += g[arm] ** 2
        losses[j] += g.sum(), g @ g
        policy.update(j, arm, rewards[arm])
    return AuditedRun(policy.rewards, surrogates, earned, squares, losses)


# %% [markdown]
# Two families of streams: rewards that are 1 with a probability of their own for each context and arm, and nested sets, where arms die one after another.


# %%
def bernoulli_stream(
    n_rounds: int, n_contexts: int, n_arms: int, *, rng: np.random.Generator
) -> RewardStream:
    """Contexts at random, rewards 1 with a fixed probability a pair, else 0.001.

    Parameters
    ----------
    n_rounds, n_contexts, n_arms : int
        Sizes $T$, $M$, $N$.
    rng : numpy.random.Generator

    Returns
    -------
    stream : RewardStream
    """
    for name, size in (("n_contexts", n_contexts), ("n_arms", n_arms)):
        check_count(size, name)
    contexts = check_generator(rng).integers(n_contexts, size=n_rounds)
    chance = rng.beta(0.5, 1.5, (n_contexts, n_arms))[contexts]  # (T, N)
    rewards = np.where(rng.random(chance.shape) < chance, 1.0, 0.001)
    return RewardStream(contexts=contexts, rewards=rewards, n_contexts=n_contexts)


# %%
def nested_stream(
    n_rounds: int, n_arms: int, *, rng: np.random.Generator
) -> RewardStream:
    """As many contexts as arms, one after the other; an arm dies after each.

    Parameters
    ----------
    n_rounds, n_arms : int
        Sizes $T$ and $N = M$.
    rng : numpy.random.Generator
        Draws the order in which arms die.

    Returns
    -------
    stream : RewardStream
    """
    contexts = np.arange(n_rounds) * check_count(n_arms, "n_arms") // n_rounds
    place = check_generator(rng).permutation(
        n_arms
    )  # arm i lives through phases 0, ..., place[i]
    rewards = (place >= contexts[:, None]).astype(np.float64)  # (T, N)
    return RewardStream(contexts=contexts, rewards=rewards, n_contexts=n_arms)


# %% [markdown]
# The first check is [Theorem (The log-barrier learner on every path)](#thm-bandit-feedback-path), for every vertex $u$ and every context, on every path.
# As $\langle\hat\ell(t),p(t)\rangle=-g_{I_t}(t)$, both sides can be read off the final state.


# %%
def _path_bounds(policy: LogBarrierBandit, state: LogBarrierState, squares: float):
    """Right sides of both inequalities on paths for one context.

    Parameters
    ----------
    policy : LogBarrierBandit
    state : LogBarrierState
        Of the context, after the run.
    squares : float
        Sum $Q_j$ of the squared surrogate rewards that were earned.

    Returns
    -------
    regret, penalties : float
        Surrogate units.

    References
    ----------
    Book {eq}`eq-bandit-feedback-path`.
    """
    room = policy.barrier  # N lambda
    regret = policy.cap * room * state.scale + 2 * state.penalties
    return regret, ((8 * np.log(2) - 4) * room * squares) ** 0.5


# %%
def _path_slacks(
    policy: LogBarrierBandit, run: AuditedRun, bounds: Callable = _path_bounds
) -> np.ndarray:
    """Left over right side of the two inequalities on paths, shape (contexts, 2).

    Parameters
    ----------
    policy : LogBarrierBandit
        After the run.
    run : AuditedRun
        Of contexts 0, ..., M-1.
    bounds : callable
        The right sides, as `_path_bounds` gives them.

    Returns
    -------
    ratios : ndarray, shape (contexts seen, 2), float64
        At most 1 if the theorem holds.
    """
    T, ratios = policy.horizon, []
    for j, state in policy.learners.items():
        moved = (1 - 1 / T) * state.estimates + state.estimates.mean() / T  # (N,)
        regret = -run.earned[j] - moved.min()
        allowed, most = bounds(policy, state, run.squares[j])
        ratios.append((regret / allowed, state.penalties / max(most, 1e-300)))
    return np.array(ratios).reshape(-1, 2)


# %% tags=["active-ipynb"]
# makers = np.random.default_rng(SEED).spawn(2)
# streams = {
#     "bernoulli": bernoulli_stream(400, 3, 4, rng=makers[0]),
#     "nested": nested_stream(400, 5, rng=makers[1]),
# }

# %% tags=["active-ipynb"]
# print("alpha  stream     regret / bound   penalties / bound")
# for alpha, (name, stream) in product((0.1, 0.5, 0.9), streams.items()):
#     worst = np.full(2, -np.inf)
#     for rng in np.random.default_rng(SEED).spawn(5):
#         policy = LogBarrierBandit(stream.n_arms, alpha, horizon=stream.n_rounds)
#         run = audited_run(policy, stream, rng=rng)
#         worst = np.maximum(worst, _path_slacks(policy, run).max(0))
#     print(f"{alpha:4}   {name:9}  {worst[0]:12.3f}   {worst[1]:15.3f}")
#     assert (worst <= 1).all()

# %% [markdown]
# On these short runs at most 0.364 and 0.223 of the two bounds are used.
# Other games use more.
# The first is large if one arm pays and the others never do: the learner keeps pulling them, about $\kappa/n$ times in round $n$, which adds up to $\kappa\ln T$ each.
# The second is large if all arms pay, so that no estimate moves the play for long.
# With $2^{17}$ rounds of rewards 0 and 1 at $\alpha=0$ they are 0.719 and 0.551.

# %% tags=["active-ipynb"]
# T, N = 2**17, 20
# for name, paying in (("one arm pays", 1), ("all arms pay", N)):
#     rewards = np.tile((np.arange(N) < paying).astype(float), (T, 1))
#     shares = _path_slacks(*unweighted_run(rewards, rng=np.random.default_rng(SEED)))[0]
#     assert (shares <= 1).all()
#     print(f"{name}: constants {shares[0]:.3f} and {shares[1]:.3f}")

# %% [markdown]
# The second check is [Theorem (The log-barrier policy in the mean)](#thm-bandit-feedback-mean), with means over 20 runs in place of expectations, and on every single path the reduction [(eq-bandit-feedback-reduction)](#eq-bandit-feedback-reduction) under it.


# %%
def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the first axis and half the width of its 95 % interval.

    The interval is Student's, so that it covers the mean of normal results with 95 %
    for any number of runs; the normal quantile 1.96 would cover 91.8 % with ten.
    """
    values = np.asarray(values)
    runs = len(values)
    quantile = scipy.special.stdtrit(max(runs - 1, 1), 0.975)
    return values.mean(0), quantile * values.std(0, ddof=1) / runs**0.5


# %%
class _MeanCheck(NamedTuple):
    r"""Regrets of several runs beside what the theory allows.

    `regrets` and `reductions` have shape (runs,) and hold both sides of the reduction,
    utility units; `surrogate` (runs,) is $\sum_j\mathrm{Reg}_j$; `bound` is the one in
    the mean, proved for `LogBarrierBandit` only; `form` (runs,) is
    $\sum_j(\sqrt{NL_2}+\sqrt{NL_1})$.
    """

    regrets: np.ndarray
    reductions: np.ndarray
    surrogate: np.ndarray
    bound: float
    form: np.ndarray


# %%
def _mean_check(
    build: Callable[[], BanditPolicy],
    stream: RewardStream,
    n_runs: int,
    *,
    rng: np.random.Generator,
) -> _MeanCheck:
    """Run a policy several times against the best fixed map of the stream.

    Parameters
    ----------
    build : callable
        Makes a new policy with attribute `alpha` in (0, 1).
    stream : RewardStream
    n_runs : int
        Number of runs, each with a generator of its own.
    rng : numpy.random.Generator
        Its children draw the arms.

    Returns
    -------
    check : _MeanCheck
    """
    check_generator(rng)
    policies = [build() for _ in range(check_count(n_runs, "n_runs"))]
    runs = [
        audited_run(policy, stream, rng=child)
        for policy, child in zip(policies, rng.spawn(n_runs))
    ]
    alpha, n, m = policies[0].alpha, stream.n_arms, stream.n_contexts
    best = solve_offline(reward_sums(stream.contexts, stream.rewards, m), alpha)
    U = np.array([alpha_fair_utility(run.rewards, alpha) for run in runs])
    surrogate = np.array([(r.surrogates * best.x).sum() - r.earned.sum() for r in runs])
    reductions = (1 - alpha) ** alpha * (surrogate - n * alpha / (1 - alpha))
    scales = [
        sum(getattr(s, "scale", 1) for s in p.learners.values()) for p in policies
    ]
    sizes = {"n_arms": n, "n_contexts": m, "horizon": stream.n_rounds}
    bound = bandit_bound(U.mean(), float(np.mean(scales)), alpha, **sizes)
    form = np.array([np.sqrt(n * r.losses).sum() for r in runs])
    regrets = best.utility - approximation_factor(alpha) * U
    return _MeanCheck(regrets, reductions, surrogate, bound, form)


# %% tags=["active-ipynb"]
# print("alpha  stream      c_alpha-regret     bound   surrogate regret")
# for alpha, (name, stream) in product((0.1, 0.5, 0.9), streams.items()):
#     n, T = stream.n_arms, stream.n_rounds
#     build = partial(LogBarrierBandit, n, alpha, horizon=T)
#     check = _mean_check(build, stream, 20, rng=np.random.default_rng(SEED))
#     mean, half = mean_interval(check.regrets)
#     row = f"{alpha:4}   {name:9}  {mean:8.2f} +- {half:.2f}  {check.bound:8.1f}"
#     print(row, f"{check.surrogate.mean():12.2f}")
#     assert mean + half <= check.bound
#     assert (check.regrets <= check.reductions + 1e-9).all()

# %% [markdown]
# The bound holds and is far from tight at this size: 334.2 where the regret is 16.62.
# How much of it is needed shows in long games that are as hard as we can make them.
# Rewards are 0 or 1, and one arm a context has a mean that is better by about what can be told apart in $T$ rounds.
# At $\alpha=0$ the left side is the plain regret, and the best map plays the arm with the largest sum.


# %%
def _mean_share(results, sizes, bound: Callable = bandit_bound) -> float:
    """Upper end of the interval of the mean regret over its bound, at alpha 0."""
    T, M, N = sizes
    mean, half = mean_interval(results[0])
    sizes = {"n_arms": N, "n_contexts": M, "horizon": T}
    return (mean + half) / bound(results[1].mean(), M, 0.0, **sizes)


# %% tags=["active-ipynb"]
# sizes = (2**19, 16, 20)
# results = gap_runs(*sizes, 4, mean=0.5, rng=np.random.default_rng(SEED))
# share = _mean_share(results, sizes)
# assert share <= 1
# print(f"T, M, N = {sizes}: constant {share:.3f}")

# %% [markdown]
# So 0.214 of the bracket is reached.
# Dropping the root, or $\mathbb EU$ in it, or both $M$ and $N$ there, or both $M$ and $\ln T$, gives a statement that these runs refute.
# They cannot judge its factors one by one: without $\sqrt M$ alone the bracket is still nearly twice the measured regret.
# That the first term is needed shows in the theorem on paths, where we have just measured it.
#
# At $\alpha=1$ the reduction says nothing, and we use the tangent of [Exercise (ex-full-information-2)](full_information.ipynb#ex-full-information-2) instead.
# Its $Q$ is $\sum_t\langle g(t),x^*_{j_t}-e_{I_t}\rangle+U+N$, the lemma now gives $\sum_jQ_j\le U+N$, and the logarithm is concave, so
#
# <a id="eq-bandit-feedback-proportional"></a>
# $$
# \begin{aligned}
# U^*-\mathbb EU\le{}&N\ln\frac{\mathbb EQ}N,\\
# \mathbb EQ\le{}&\kappa N\ln T\;\mathbb E\sum_js_j+1\\
# &+2\sqrt{b\,MN\ln T\,(\mathbb EU+N)}+\mathbb EU+N .
# \end{aligned}
# $$ (eq-bandit-feedback-proportional)
#
# Beyond $\alpha=1$ no bound is known here, and the policies refuse it.

# %% tags=["active-ipynb"]
# stream, b = streams["bernoulli"], 8 * np.log(2) - 4
# n, M, T = stream.n_arms, stream.n_contexts, stream.n_rounds
# best = solve_offline(reward_sums(stream.contexts, stream.rewards, M), 1)
# policies = [LogBarrierBandit(n, 1, horizon=T) for _ in range(20)]
# for policy, rng in zip(policies, np.random.default_rng(SEED).spawn(20)):
#     simulate(policy, stream, rng=rng)
# U = np.mean([alpha_fair_utility(policy.rewards, 1) for policy in policies])
# scales = np.mean([sum(s.scale for s in p.learners.values()) for p in policies])
# Q = 2 * n * np.log(T) * scales + 1 + U + n
# Q += 2 * (b * M * n * np.log(T) * (U + n)) ** 0.5
# print(f"regret {best.utility - U:.2f}, bound {n * np.log(Q / n):.2f}")
# assert best.utility - U <= n * np.log(Q / n)

# %% [markdown]
# The scale-free learner is compared with the form of its bound, $\sum_j\big(\sqrt{NL_2}+\sqrt{NL_1}\big)$ as $L_\infty\le1$.
# Its mean regret is at most 0.315 of that.

# %% tags=["active-ipynb"]
# for alpha, (name, stream) in product((0.1, 0.5, 0.9), streams.items()):
#     build = partial(ScaleFreeBandit, stream.n_arms, alpha)
#     check = _mean_check(build, stream, 20, rng=np.random.default_rng(SEED))
#     assert (check.regrets <= check.reductions + 1e-9).all()
#     ratio, half = mean_interval(check.surrogate / check.form)
#     print(f"{alpha:4}   {name:9}  {ratio:.3f} +- {half:.3f}")
#     assert ratio + half < 1

# %% [markdown]
# ## Both learners over twenty seeds
#
# A bandit's run depends on its draws, so one curve says little.
# We play each policy 20 times on one stream and show mean and 95 % interval of its regret.
# Beside them are learners that lack one of the ideas: a single learner that sees neither contexts nor weights, and uniform play.
# The third has the rate of the proved learner started 20 times larger, $\kappa=0.1$, which leaves the proof.


# %%
class SingleScaleFreeBandit(ScaleFreeBandit):
    """One scale-free learner fed plain rewards; blind to contexts and to fairness.

    Parameters
    ----------
    n_arms : int or sequence of names
        Number of arms $N$, or their names.
    """

    def __init__(self, n_arms: int | Sequence[Hashable]):
        super().__init__(n_arms, 0.0)

    begun = None  # no warm start

    def play(self, context: Hashable) -> np.ndarray:
        return super().play(None)

    def step(self, context, arm: int, reward: float, probability: float) -> None:
        super().step(None, arm, reward, probability)


# %%
def repeated_runs(
    build: Callable[[], BanditPolicy],
    stream: RewardStream,
    n_runs: int,
    *,
    rng: np.random.Generator,
    n_points: int = 40,
    play: Callable = simulate,
) -> np.ndarray:
    """Cumulative rewards of several runs at the checkpoints of a stream.

    Parameters
    ----------
    build : callable
        Makes a new policy.
    stream : RewardStream
    n_runs : int
        Number of runs.
    rng : numpy.random.Generator
        Its children draw the arms.
    n_points : int
        Number of checkpoints at most.
    play : callable
        `simulate`, or what gives its results faster.

    Returns
    -------
    rewards : ndarray, shape (n_runs, C, N), float64
        Reward units, $R(0) = 1$ included.
    """
    children = check_generator(rng).spawn(check_count(n_runs, "n_runs"))
    return np.array(
        [play(build(), stream, rng=c, n_points=n_points).rewards for c in children]
    )


# %% tags=["active-ipynb"]
# ALPHA, T = 0.7, 1200
# stream = bernoulli_stream(T, 3, 4, rng=np.random.default_rng(SEED))
# optimum = optimum_over_time(stream, ALPHA, checkpoints(T, 40))
# builders = {
#     "scale-free": partial(ScaleFreeBandit, 4, ALPHA),
#     "log-barrier": partial(LogBarrierBandit, 4, ALPHA, horizon=T),
#     "log-barrier, cap 0.1": partial(LogBarrierBandit, 4, ALPHA, horizon=T, cap=0.1),
#     "one learner, plain rewards": partial(SingleScaleFreeBandit, 4),
#     "uniform": partial(UniformBandit, 4),
# }

# %% tags=["active-ipynb"]
# utilities = {}
# for name, build in builders.items():
#     R = repeated_runs(build, stream, 20, rng=np.random.default_rng(SEED))
#     utilities[name] = alpha_fair_utility(R, ALPHA)  # (runs, C)
#     ratio, half = mean_interval(optimum.utility[-1] / utilities[name][:, -1])
#     print(f"{name:27} OPT/U {ratio:.4f} +- {half:.4f}")

# %% [markdown]
# The optimum is 1.0862 times the utility of the scale-free learner and 1.1020 times that of the proved one.
# For uniform play it is 1.1942 times, for the single learner 1.3146, and these intervals do not overlap.
# The proved learner moves slowly at this horizon, because its rate starts at $1/(\kappa s_j)$.
# Started 20 times larger, it comes to 1.0613, without a proof.

# %% tags=["active-ipynb"]
# finals = {name: mean_interval(U[:, -1]) for name, U in utilities.items()}
# for fair, other in product(list(finals)[:2], list(finals)[3:]):
#     assert finals[fair][0] - finals[fair][1] > finals[other][0] + finals[other][1]


# %%
def plot_regret_bands(ax, rounds, curves: dict, bound=None):
    """Mean regret with its 95 % interval over runs, and the proved bound."""
    for name, regret in curves.items():
        mean, half = mean_interval(regret)
        (line,) = ax.plot(rounds, mean, label=name)
        ax.fill_between(
            rounds, mean - half, mean + half, color=line.get_color(), alpha=0.2
        )
    if bound is not None:
        ax.plot(rounds, bound, "k--", label="proved bound")
    ax.set(xlabel="round $t$", ylabel="regret (utility units)")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# standard = {name: optimum.utility - U for name, U in utilities.items()}
# proved = utilities["log-barrier"]
# approximate = optimum.utility - approximation_factor(ALPHA) * proved
# sizes = {"n_arms": 4, "n_contexts": 3, "horizon": T}
# bound = [bandit_bound(u, 3, ALPHA, **sizes) for u in proved.mean(0)]
# with figure(2) as (above, below):
#     plot_regret_bands(above, optimum.rounds, standard)
#     plot_regret_bands(below, optimum.rounds, {"log-barrier": approximate}, bound)
#     below.set_ylabel(r"$c_\alpha$-regret (utility units)")

# %% [markdown]
# **Figure (fig-bandit-feedback-regret).** <a id="fig-bandit-feedback-regret"></a> Above: standard regret against the certified optimum of the rounds so far, mean of 20 runs and 95 % interval; no policy has a sublinear bound on it. Below: the approximate regret of the proved learner, which is negative here, and the bound on its mean, which holds at every round up to the horizon.
#
# ## In a recommender
#
# Outside a book the contexts are not numbers.
# A string, a number, a boolean, None or a tuple of these is a context, and two are the same if they are equal.
# NaN is equal to nothing and is refused, so write None for what is missing.
# The learner of a context is made when it first comes and learns from the rounds of this context alone.
# A vector of features is a context like any other, as a tuple, so group its entries until contexts come back (an age into decades).
# A policy does not know that two vectors are near each other; for learners that do, see [the end of this section](#learners-of-another-kind).
# The state of a policy is one file, and a loop that stops and resumes plays as if it had never stopped.

# %% tags=["active-ipynb"]
# rng, folder = np.random.default_rng(SEED), Path(tempfile.mkdtemp())
# policy, pays = ScaleFreeBandit(["news", "sport", "film"], alpha=0.9), {"news": 0.2}
# for visit in range(200):
#     context = (("ada", "ben", "cy")[visit % 3], "evening" if visit % 2 else "morning")
#     arm, p = policy.draw(context, rng)
#     policy.update(context, arm, float(rng.random() < pays.get(arm, 0.6)), probability=p)
#     if visit == 100:
#         policy.save(folder / "policy.npz")
#         policy = ScaleFreeBandit.load(folder / "policy.npz")
# print("rewards", policy.rewards, "of", len(policy.learners), "contexts")
# print("someone new:", policy.probabilities(("dee", "noon")).round(3))

# %% [markdown]
# A reward or an arm that cannot be is refused with its name, and the state stays as it was.

# %% tags=["active-ipynb", "raises-exception"]
# policy.update(("ada", "evening"), "film", reward=4.5)

# %% [markdown]
# ### Arms that come and go
#
# `add_arm` and `retire_arm` change the arms, `mask` leaves some out for a round.
# The reduction asks only what was played and earned, so it stays as in [Theorem (Arms that come and go)](full_information.ipynb#thm-full-information-arms): $N$ counts all arms that ever were, and an absent or masked one pays 0.
# What is left is the learner.
#
# *Masks* cost it nothing.
# The estimate divides by the probability that was used, so its mean is $-g$ with 0 for masked arms.
# Every other arm was played at least as often as $p$ says, which is no loss against any map; and $z$ in [(eq-bandit-feedback-stability-bound)](#eq-bandit-feedback-stability-bound) is nearer to 0, as $p_I$ is at most that probability.
# Both theorems hold, the one in the mean if masks and arms are fixed in advance as rewards are.
#
# *A new arm* begins in each learner with the estimate 0, that of an arm that was there and paid nothing.
# In the log-barrier learner $A_j$ is multiplied by the new number of arms over the old one, and $s_j$ is raised to the weight of the new arm, so that the rate does not rise.
# Let $\Psi_N=F-N\ln N$ be $\Psi$ of the proof for $N$ arms.
# At $q=((1-s)\tilde q,s)$ no entry of the summed estimates is positive, so $\langle q,\sum\hat\ell\rangle\ge\langle\tilde q,\sum\hat\ell\rangle$, and $\Psi_{N+1}(q)-\Psi_N(\tilde q)=-N\ln(1-s)-\ln s-(N+1)\ln(N+1)+N\ln N$, which is least at $s=\frac1{N+1}$, where it is 0.
# So $\min\Phi$ does not fall when an arm comes, and the first inequality of the theorem on paths holds with the last $N$ and the last $s_j$.
# In a round with $N_t$ arms $a=A_j/N$ grows by $m=M_t/N_t$ and $a^2$ by $2am+m^2$, and when an arm comes it does not change; the sum is that of the proof, so $A_j\le\sqrt{b\,N\Lambda\sum\frac N{N_t}g_{I_t}(t)^2}$.
#
# *A retired arm* leaves the estimates of the others as they are, and the play is theirs.
# What that costs we have not bounded, nor what any of this costs the scale-free learner, nor a warm start of either; for all three the reduction stands and the learner's regret is open.
#
# With $\alpha$ near 1 a new arm is favoured, because it has earned nothing; `add_arm(name, initial=...)` begins with more.
# In the cell a new arm that pays best is shown 1268 times of 2000 if it begins at 1, and 227 times if it begins at 300.

# %% tags=["active-ipynb"]
# shown, late = {}, np.random.default_rng(SEED)
# for initial in (1, 300):
#     policy = LogBarrierBandit(["news", "sport"], 0.9, horizon=3000)
#     for visit in range(3000):
#         if visit == 1000:
#             policy.add_arm("film", initial=initial)
#         arm, p = policy.draw(None, late)
#         policy.update(None, arm, 0.8 if arm == "film" else 0.5, probability=p)
#     shown[initial] = (policy.rewards[-1] - initial) / 0.8
#     print(f"begun at {initial:3}: film shown {shown[initial]:.0f} times of 2000")
# assert shown[1] > 1.2 * shown[300]

# %% [markdown]
# ### Feedback that comes late, and logs
#
# A click is known minutes after the recommendation, and by then the policy plays otherwise.
# The estimate [(eq-bandit-feedback-estimate)](#eq-bandit-feedback-estimate) divides by the probability *of the draw*: keep it with the recommendation and give it back, `update(context, arm, reward, probability=p[arm])`, or `played=p` with full information.
# By default `update` takes the probabilities of now, which is right only if no other update came in between.
# The weights may be those of the update, because no reward of round $t$ is in them yet.
# The theorems of this chapter are for feedback at once ([late feedback](late_feedback.ipynb) has one for full information).
# The cell measures what lateness costs, for 20 runs with a delay of so many rounds, told the probability of the draw or not.
# A delay of 100 rounds costs nothing that shows; at 1000 of the 4000 rounds the optimum is 1.087 times the utility if the probability is told, and 1.100 times if not.
# (`run_batch` asks for the package's class, the same text as here.)

# %% tags=["active-ipynb"]
# late, stream = {}, bernoulli_stream(4000, 3, 4, rng=np.random.default_rng(SEED))
# target = solve_offline(reward_sums(stream.contexts, stream.rewards, 3), 0.5).utility
# print("delay  told   optimum over utility")
# for delay, told in [(0, True), *product((10, 100, 1000), (True, False))]:
#     bandits = [package.ScaleFreeBandit(4, 0.5) for _ in range(20)]
#     rngs = np.random.default_rng(SEED).spawn(20)
#     run = run_batch(bandits, stream, rngs=rngs, n_points=1, delay=delay, told=told)
#     utility = alpha_fair_utility(run.rewards[:, -1], 0.5)
#     mean, half = late[delay, told] = mean_interval(target / utility)
#     print(f"{delay:5}  {told!s:5}  {mean:.3f} +- {half:.3f}")
# assert sum(late[1000, True]) < late[1000, False][0] - late[1000, False][1]

# %% [markdown]
# A log is late feedback of *another* policy.
# Replayed through `update` without its probabilities (its *propensities*), every estimate is divided by the wrong number.
# The policy below then ends with 0.39 on the best arm; with the propensities it ends with almost all.
# A small propensity makes a single reward weigh $1/p$ times: clip propensities from below, at 0.01 say; `update` refuses those below $10^{-9}$.
# `rewards` then holds what the log earned, which sets the weights if $\alpha>0$.

# %% tags=["active-ipynb"]
# means, rng = np.array([0.9, 0.6, 0.3, 0.1]), np.random.default_rng(SEED)
# arms = rng.integers(4, size=4000)  # the log drew them uniformly
# paid = (rng.random(4000) < means[arms]).astype(float)
# learned = {}
# for name, given in (("without", {}), ("with", {"probability": 0.25})):
#     policy = LogBarrierBandit(4, 0, horizon=4000)
#     for arm, reward in zip(arms, paid):
#         policy.update(None, arm, reward, **given)
#     learned[name] = policy.probabilities(None)
#     print(f"{name:7} propensities:", learned[name].round(2))
# assert learned["with"][0] > 0.95 and learned["without"][0] < 0.6

# %% [markdown]
# ### Learners of another kind
#
# Nothing in [(eq-bandit-feedback-reduction)](#eq-bandit-feedback-reduction) asks where the play came from, nor that a context ever comes back.
# So `coupled(learner, n_arms, alpha)` of `prunefair.fairness.coupled` makes a fair policy of any object that predicts a distribution from a context, whatever that is, and is told the gain $g_{I_t}(t)$ of the arm that was drawn.
# On every path and against every map $x^*$ from contexts to arms, $U^*-c_\alpha U\le(1-\alpha)^\alpha\big[\sum_t\langle g(t),x^*_t-e_{I_t}\rangle-\frac{N\alpha}{1-\alpha}\big]$: what the learner guarantees for gains, the policy has for fairness.
# Gains shrink as their arms grow rich, rewards do not; a learner that models rewards is therefore told the weights, too, and multiplies by them.
# `RidgeLearner` is linear in features (LinUCB), and `KernelLearner` the same in random features of a Gaussian kernel ([Rahimi and Recht 2007](../references.bib#rahimi2007random)), for rewards that are smooth in them.
# `RegressorLearner` takes any incremental regressor of scikit-learn, and the tests hold a bandit of mabwiser to the same bound, on paths where a smaller factor fails.
# With [a scale-free learner](#the-scale-free-learner) for each context the result is the policy of this chapter.
#
# On all of the [ratings](movielens.ipynb), $\alpha=0.9$ and 20 runs, a ridge learner that is not told the user but reads the shares of genres in the user's ratings so far stands beside the bandit by users.
# With the ridge learner the optimum is 1.0262 times the utility, with the bandit by users 1.0582.
# But a history holds more than a bandit by users ever sees, so compare the policy with full information by users as well, at 1.0058.
# All are measured by `benchmarks/coupled_features.py`:

# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/coupled_features.json").read_text())
# print("optimum over utility")
# for name, found in table["policies"].items():
#     print(f"{name:25} {found['ratio']:.4f} +- {found['half']:.4f}")
# ridge, users = (found for name, found in [*table["policies"].items()][:2])
# assert ridge["ratio"] + ridge["half"] < users["ratio"] - users["half"]

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# wrong_way = _two_armed_pulls(1, 1000, rng=np.random.default_rng(SEED))
# Quiz(
#     "A learner that minimises losses is fed with rewards. Two arms pay 1 and 0.001. "
#     "How does it end?",
#     right="It pulls the worse arm." if wrong_way.argmax() == 1 else "It pulls both.",
#     because=f"In {wrong_way[1]} of 1000 rounds here: a large reward looks like a loss.",
#     wrong={
#         "It pulls both equally.": "It learns well, only the wrong thing.",
#         "It pulls the better arm.": "To a minimiser the arm that pays 1 is the dearer.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# chance, gain = np.array([0.9, 0.1]), np.array([0.5, 0.5])
# seen = gain / chance  # the estimate of an arm when it is pulled
# Quiz(
#     "Two arms pay 0.5 each and are pulled with probabilities 0.9 and 0.1. The second "
#     "has been pulled. What is the estimate of its reward?",
#     right=f"{seen[1]:.0f}",
#     because="0.5 over 0.1: it is seen once in ten rounds, and then counts tenfold.",
#     wrong={"0.5": "Its mean would then be a tenth of that, as it is 0 if not pulled.",
#            f"{seen[0]:.2f}": "That is the estimate of the first arm, over 0.9."},
# )

# %% tags=["active-ipynb", "remove-input"]
# behind = log_barrier_step(np.array([0.0, 99.0]))[1]
# Quiz(
#     "An arm is 99 behind, in units of the inverse rate. How often does the log "
#     "barrier still play it?",
#     right=f"about {behind:.0%} of the time",
#     because="Nearly one over its distance, so it is tried again and again.",
#     wrong={"never": "Only at infinite distance does the barrier give an arm up.",
#            "half of the time": "The barrier resists, but 99 is far.",
#            "about once in e⁹⁹ rounds": "That is softmax; its estimates would explode."},
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-bandit-feedback-0"></a>
# Write the log-barrier step for two arms, $v=(0,d)$, without an iteration: the probabilities of both.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# Solve $\frac1\lambda+\frac1{d+\lambda}=1$ for its positive root; the probabilities are the two terms.
#
# </details>

# %% tags=["active-ipynb"]
# def two_armed_barrier(d):
#     """Probabilities of two arms, the second `d` behind, shape (2,)."""
#     # your lines
#
#
# def by_newton(d):
#     return log_barrier_step(np.array([0.0, d]))
#
#
# check_answer(two_armed_barrier, by_newton, (3.0,), (0.0,), (1e4,))

# %% [markdown]
# <details><summary>Solution</summary>
#
# Multiplied out, $\lambda^2+(d-2)\lambda-d=0$, and the root $\lambda$ lies between 1 and 2.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def two_armed_barrier(d):
#     """Probabilities of two arms, the second `d` behind, shape (2,)."""
#     lam = (2 - d + np.sqrt((d - 2) ** 2 + 4 * d)) / 2
#     return np.array([1 / lam, 1 / (d + lam)])
#
#
# assert check_answer(two_armed_barrier, by_newton, (3.0,), (0.0,), (1e4,))

# %% [markdown]
# **Exercise ★.** <a id="ex-bandit-feedback-1"></a>
# By hand: show that with two arms and $v=(0,d)$ the log-barrier step plays the worse arm with probability near $1/d$ when $d$ is large, while exponential weights play it with probability near $e^{-d}$.
# How often is an arm still pulled whose estimated loss is a thousand times the inverse rate?
#
# <details><summary>Solution</summary>
#
# The positive root of $\lambda^2+(d-2)\lambda-d=0$ tends to 1, so the worse arm has probability $1/(d+\lambda)\approx1/(d+1)$.
# It keeps being pulled about once in a thousand rounds: the barrier explores by itself.
#
# </details>

# %% tags=["active-ipynb"]
# for d in (10.0, 1000.0):
#     worse = log_barrier_step(np.array([0, d]))[1]
#     print(f"d = {d:6.0f}: d times the probability is {d * worse:.4f}")
# np.testing.assert_allclose(1000 * worse, 1, atol=2e-3)

# %% [markdown]
# **Exercise ★.** <a id="ex-bandit-feedback-2"></a>
# A limit: what does the coupled policy become as $\alpha\to0$ with one context?
# Show that the pulls of `ScaleFreeBandit` and of `SingleScaleFreeBandit` then agree, and say why they differ at $\alpha=0$ with two contexts.
#
# <details><summary>Solution</summary>
#
# At $\alpha=0$ every weight is 1, and one context means one learner: the two are the same.
# With two contexts the first still keeps two learners, each of which sees only its own rounds.
#
# </details>

# %% tags=["active-ipynb"]
# one = bernoulli_stream(300, 1, 3, rng=np.random.default_rng(SEED))
# coupled, single = ScaleFreeBandit(3, 0.0), SingleScaleFreeBandit(3)
# for policy in (coupled, single):
#     simulate(policy, one, rng=np.random.default_rng(SEED))
# np.testing.assert_array_equal(coupled.rewards, single.rewards)
# print(coupled.rewards.round(3))

# %% [markdown]
# **Exercise ★★.** <a id="ex-bandit-feedback-3"></a>
# Break an assumption: feed the learner $r_I(t)R_I(t)^{-\alpha}$, the weight *after* the reward.
# Of which vector is the estimate then the mean, and why does the reduction not cover it?
#
# <details><summary>Solution</summary>
#
# If arm $i$ is pulled, its weight is $(R_i(t-1)+r_i(t))^{-\alpha}$, so the mean is $r_i(t)(R_i(t-1)+r_i(t))^{-\alpha}$ for every arm, pulled or not.
# The reduction with the later weights uses $R_i(t)^{-\alpha}$ on *both* sides, and for an arm that is not pulled $R_i(t)=R_i(t-1)$: the estimate is too small for all arms but one.
# It needs $\phi'(R_i(T))\le w_i(t)$, which fails for an arm never pulled again.
#
# </details>

# %% tags=["active-ipynb"]
# R, r, p, alpha = np.array([1.0, 4.0]), np.array([1.0, 1.0]), np.array([0.6, 0.4]), 0.5
# later = np.array([(R + r * e) ** -alpha for e in np.eye(2)])  # row I: weights if I
# mean = sum(p[i] * (r[i] * later[i, i] / p[i]) * np.eye(2)[i] for i in range(2))
# wanted = p @ (later * r)  # the mean of what the reduction would use
# np.testing.assert_allclose(mean, r * (R + r) ** -alpha)
# assert (mean < wanted).all()
# print("mean of the estimate", mean.round(4), " needed", wanted.round(4))

# %% [markdown]
# **Exercise ★★.** <a id="ex-bandit-feedback-4"></a>
# Where does the cap $\kappa\ge2$ enter the proof, and what is left of it for $\kappa>1$?
# Compute the constant that replaces $b$.
#
# <details><summary>Solution</summary>
#
# Only in $z\ge-1/\kappa$.
# For $\kappa>1$ the quotient $(z-\ln(1+z))/z^2$ at $z=-1/\kappa$ is finite, so the proof goes through with twice that value in place of $b$, and with a start that is smaller.
# At $\kappa=1$ it is infinite, and below the closed form [(eq-bandit-feedback-stability-bound)](#eq-bandit-feedback-stability-bound) says nothing, while $M_t$ itself stays finite.
#
# </details>

# %% tags=["active-ipynb"]
# for cap in (4, 2, 1.25, 1.01):
#     z = -1 / cap
#     print(f"cap {cap:5}: constant {2 * (z - np.log1p(z)) / z**2:.3f}")
# z = np.linspace(-0.5, -1e-3, 1000)
# quotient = (z - np.log1p(z)) / z**2
# assert (np.diff(quotient) < 0).all()
# np.testing.assert_allclose(2 * quotient[0], 8 * np.log(2) - 4)

# %% [markdown]
# **Exercise ★★.** <a id="ex-bandit-feedback-5"></a>
# What does *scale-free* mean here?
# Divide all losses by $10^4$ and compare the learner of [(eq-bandit-feedback-scale-free)](#eq-bandit-feedback-scale-free) with the adaptive step of [online gradient ascent](online_gradient.ipynb), whose points do not change at all.
# Which term does $\tilde O(\sqrt{NL_2}+L_\infty\sqrt{NL_1})$ then lack?
#
# <details><summary>Solution</summary>
#
# The first rate is $\eta_1=N$ in any unit.
# While all losses together are small, so are the penalties and $\eta_t\sum_s\hat\ell(s)$, and the play stays uniform.
# With two arms of losses $-\varepsilon$ and almost 0 the regret is then about $\varepsilon T/2$, and the form is about $\varepsilon\sqrt{2T}$: their quotient grows like $\sqrt T$.
# The barrier alone costs $N\ln T/\eta_1=\ln T$ in the unit of the losses, so a term of that size has to be added; the regret here is far below it.
# The learner is told neither the scale nor the horizon, which is what the name says, but its play is not invariant.
#
# </details>

# %% tags=["active-ipynb"]
# T, form = 1000, []
# for scale in (1.0, 1e-2, 1e-4):
#     runs = np.random.default_rng(SEED).spawn(20)
#     worse = np.array([_two_armed_pulls(-scale, T, rng=r)[1] for r in runs])
#     ratio, half = mean_interval(worse / ((2 * T) ** 0.5 * (1 + scale**0.5)))
#     form.append((ratio - half, ratio + half))
#     assert (scale * worse).max() <= scale * (2 * T) ** 0.5 * 2 + np.log(T)
#     print(f"scale {scale:6}: regret over the form {ratio:.2f} +- {half:.2f}")
# assert form[0][1] < 1 and form[2][0] > 5

# %% [markdown]
# ## What you can do now
#
# With weights from $R(t-1)$ the pulled arm's reward, divided by its probability, estimates every surrogate reward without bias, and the reduction of full information carries over.
# The stream has to be fixed in advance, and the bound is one on the mean.
# The sign decides: fed with rewards, the learner pulls the better arm in 60 of 3000 rounds, fed with losses in 2941.
# The log barrier keeps trying an arm that falls behind, about once in $d$ rounds at the distance $d$.
#
# - Play fairly from the pulled arm alone: `ScaleFreeBandit`, the paper's policy with the sign put right, or `LogBarrierBandit`, which needs no forced exploration and has the proved bound `bandit_bound`.
# - Leave out contexts and fairness, for comparison: `SingleScaleFreeBandit`.
# - Take a learner apart: `log_barrier_step` climbs to its root by Newton's method, `stability` is what one estimate may cost, `scale_free_step`, `sampling_distribution` and `log_barrier_update` are the steps, `ScaleFreeState` and `LogBarrierState` the states.
# - Judge a policy over seeds: `repeated_runs`, `mean_interval`, `plot_regret_bands`; `audited_run` (`AuditedRun`) keeps the books of a run; `bernoulli_stream` and `nested_stream` are streams to play on.
# - Learn from late feedback and from logs: give `update` the probability of the draw.
# - Make a learner of features, a regressor or somebody else's bandit fair: `coupled` (`Coupled`, `RidgeLearner`, `RegressorLearner` of `prunefair.fairness.coupled`).
# - Serve: `draw`, `update_many`, `add_arm`, `retire_arm`, and [what else there is in service](baselines.ipynb#in-service).
# - Play many runs at once: `run_batch` of `prunefair.fairness.fast.batch`.
#
# Next: [High probability](high_probability.ipynb) bounds a single run, against an adversary who sees the draws.
