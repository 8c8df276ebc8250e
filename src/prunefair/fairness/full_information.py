# %% [markdown]
r"""
# Full information: fair play when every reward is seen

Can a policy that sees the rewards of a round only after playing it be as fair as the best map from contexts to arms, chosen with all rounds in view?
Up to a factor, yes: on every sequence its $\alpha$-fair utility stays within $c_\alpha=(1-\alpha)^{-(1-\alpha)}$ of the optimum, apart from a term that grows more slowly than the utility itself; and $c_\alpha$ never exceeds 1.4447.

The difficulty is that the utility does not add up over rounds.
A reward of today is worth more to an arm that stays poor than to one that will be rich, and which arms stay poor is known only later.
The way out of [Sinha et al. (2023)](../references.bib#sinha2023noregret), with contexts [Chaudhary and Sinha (2023)](../references.bib#chaudhary2023alphafair), is to weigh each reward by the marginal utility of its arm *now*, and to leave the weighted rewards to a learner with small regret.
This chapter proves what that costs, with every constant explicit.
Some of the constants, and the bound that needs no lower bound on rewards, are new in this book.
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

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from prunefair.fairness.fast.compiled import gradient_step
from prunefair.fairness.online_gradient import (
    AdaptiveState,
    ReleasedState,
    initial_state,
    regret_factor,
    simplex_projection,
)
from prunefair.fairness.policy import (
    FullInformationPolicy,
    Policy,
    check_alpha,
    check_policy_alpha,
)
from prunefair.fairness.simulation import Game
from prunefair.fairness.utility import alpha_fair_utility, arm_utility

# %% tags=["active-ipynb"]
# from functools import partial
#
# import cvxpy as cp
# from scipy.special import zeta
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.fairness import full_information as package
# from prunefair.fairness.adversaries import adversaries, late_rewards, play_suite
# from prunefair.fairness.fast.games import norms_over_time, probe_norms

# %% tags=["active-ipynb"]
# from prunefair.fairness.offline_optimum import reward_sums, solve_offline
# from prunefair.fairness.online_gradient import adaptive_step, worst_gradients
# from prunefair.fairness.simulation import RewardStream, play_game
# from prunefair.fairness.utility import equivalent_reward
# from prunefair.plotting import figure
#
# SEED = 4
# ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)
# rng = np.random.default_rng(SEED)

# %% [markdown]
# The idea for one arm: what it earns in a round is a rectangle, as wide as the reward and as high as the weight that the arm has at that time.
# The policy adds up rectangles, the utility is the area under the curve.
# Look at the parts of the rectangles above the curve, and at where they fit.

# %% tags=["active-ipynb"]
# with figure() as ax:
#     package.plot_telescope(ax, [1.0, 0.5, 0.9, 0.4, 1.0, 0.8], 0.5)

# %% [markdown]
# **Figure (fig-full-information-telescoping).** <a id="fig-full-information-telescoping"></a> The telescoping lemma for one arm in six rounds. Blue: the area under the curve, which is the gain in utility. Orange: by how much the weighted rewards exceed it. Moved to the left, the orange parts fit into the dotted column of width $R_i(0)=1$ between $\phi'(R_i(T))$ and $\phi'(1)$, because no reward is wider than 1.

# %% [markdown]
# ## Notation
#
# | symbol | in code | meaning |
# | --- | --- | --- |
# | $M$, $N$, $T$ | `n_contexts`, `n_arms`, `n_rounds` | contexts, arms, rounds |
# | $j_t$ | `contexts` | context of round $t$, seen before playing |
# | $r(t)\in[0,1]^N$ | `rewards` | rewards of all arms, seen after playing |
# | $x(t)\in\Delta$ | `points` | what is played; arm $i$ earns $r_i(t)x_i(t)$ |
# | $R_i(t)$ | `cumulative` | $R_i(0)=1$, $R_i(t)=R_i(t-1)+r_i(t)x_i(t)$ |
# | $\phi(u)$ | | $u^{1-\alpha}/(1-\alpha)$ with $0\le\alpha<1$; $\phi'(u)=u^{-\alpha}$ |
# | $U_t$ | | $\sum_i\phi(R_i(t))$, the $\alpha$-fair utility; $U=U_T$ |
# | $x^*$, $R^*_i$, $U^*$ | | a fixed map from contexts to distributions, $R_i^*=1+\sum_tr_i(t)x^*_{j_t,i}$, and its utility |
# | $w_i(t)$, $g(t)$ | `surrogate_weights` | weight, and surrogate reward $g_i(t)=w_i(t)r_i(t)$ |
# | $V$ | | $\sum_t\langle g(t),x(t)\rangle$, surrogate rewards earned |
# | $\mathrm{Reg}_T(x^*)$ | | $\sum_t\langle g(t),x^*_{j_t}-x(t)\rangle$, linear regret against the map |
# | $S_j$ | `squared_norms` | $\sum_{t:j_t=j}\lVert g(t)\rVert^2$ |
# | $\kappa$ | `regret_factor` | $2-\frac1N$, from [the previous chapter](online_gradient.ipynb) |
#
# Quantities without a round are those after round $T$.
# The offline optimum over maps is the subject of [its own chapter](offline_optimum.ipynb).

# %% [markdown]
# ## Surrogate rewards
#
# How much is a reward worth to an arm?
# At the moment, its marginal utility: before round $t$ that is $\phi'(R_i(t-1))$.
# We take it as the weight of the reward:
#
# <div class="alert alert-info">
#
# **The surrogate reward.**
#
# $$
# g_i(t)=w_i(t)\,r_i(t),\qquad w_i(t)=R_i(t-1)^{-\alpha}.
# $$ (eq-full-information-weights)
#
# </div>
#
# Since $R_i\ge1$, weights and surrogate rewards lie in $[0,1]$.
# A second convention takes $w_i(t)=R_i(t)^{-\alpha}$, the marginal utility *after* the round.
# Both will do in this chapter.
# With bandit feedback, where only the reward of the played arm is seen, the weight has to be known before the round is played; so we take the first.


# %%
def surrogate_weights(R: np.ndarray, alpha: float) -> np.ndarray:
    r"""Weights $R_i^{-\alpha}$ that turn rewards into surrogate rewards.

    Parameters
    ----------
    R : ndarray, shape (..., N), float64
        Cumulative rewards, reward units; positive (at least 1 in a policy).
    alpha : float
        Fairness parameter; no unit.

    Returns
    -------
    weights : ndarray, shape (..., N), float64

    References
    ----------
    Book {eq}`eq-full-information-weights`.
    """
    return R**-alpha


# %% [markdown]
# A learner will collect weighted rewards, and we want utility.
# A telescoping sum connects the two: the weighted rewards of an arm never exceed its utility.
#
# **Lemma (Telescoping).** <a id="lem-full-information-telescoping"></a>
# For each arm, for every $T\ge0$ and for both conventions,
#
# <a id="eq-full-information-telescoping"></a>
# $$
# \begin{gathered}
# \sum_{t\le T}w_i(t)r_i(t)x_i(t)+\phi'(R_i(T))\\
# \le\ \phi(R_i(T))-\frac\alpha{1-\alpha},
# \end{gathered}
# $$ (eq-full-information-telescoping)
#
# with equality at $T=0$.
#
# **Proof.**
# Let $A_t$ be the left side after $t$ rounds minus $\phi(R_i(t))$.
# As $R_i(0)=1$, $A_0=1-\frac1{1-\alpha}=-\frac\alpha{1-\alpha}$.
# We show that $A_t$ does not increase.
# Write $a=R_i(t-1)$ and $b=R_i(t)=a+h$ with $0\le h\le1$.
#
# Weight $\phi'(a)$: for $u\in[a,b]$, $\phi'(u)\ge\phi'(b)$ because $\phi'$ does not increase, so
# $A_t-A_{t-1}=\int_a^b\big(\phi'(a)-\phi'(u)\big)du-\big(\phi'(a)-\phi'(b)\big)\le(h-1)\big(\phi'(a)-\phi'(b)\big)\le0$.
#
# Weight $\phi'(b)$: $h\,\phi'(b)\le\int_a^b\phi'(u)\,du=\phi(b)-\phi(a)$, so
# $A_t-A_{t-1}=h\,\phi'(b)-(\phi(b)-\phi(a))-\big(\phi'(a)-\phi'(b)\big)\le0$. ∎
#
# The first case uses $h\le R_i(0)$: a single reward must not exceed the initial one.
# The 1 in front of $\phi_\alpha'(R_i(T))$ is $R_i(0)$; it absorbs the whole difference between the sum and the integral.
# In words: whoever collects weighted rewards has at least as much utility.
# Summed over the arms, [(eq-full-information-telescoping)](#eq-full-information-telescoping) gives $V\le U-\sum_i\phi'(R_i)-\frac{N\alpha}{1-\alpha}\le U$.
#
# The proof is [Figure (fig-full-information-telescoping)](#fig-full-information-telescoping), at the head of this chapter, which the next function draws.


# %%
def plot_telescope(ax, earned, alpha: float):
    r"""Rounds as rectangles over $\phi'$; what sticks out, moved into one column."""
    R = 1 + np.concatenate([[0], np.cumsum(earned)])
    u = np.linspace(0.4, R[-1] + 0.5, 300)
    curve = surrogate_weights(u, alpha)
    ax.plot(u, curve, "k-", label=r"$\phi'(u)=u^{-\alpha}$", zorder=3)
    for a, b in zip(R, R[1:]):
        inside, top = np.linspace(a, b, 50), surrogate_weights(a, alpha)
        low = surrogate_weights(inside, alpha)
        ax.fill_between(inside, 0, low, color="C0", alpha=0.35, lw=0)
        for shift, shade in ((0, 1), (a, 0.6)):
            excess = {"color": "C1", "alpha": shade, "lw": 0}
            ax.fill_between(inside - shift, low, top, **excess)
        ax.plot([a, a, b, b], [0, top, top, 0], "C0-", lw=1)
    last = surrogate_weights(R[-1], alpha)
    ax.plot([0, 1, 1, 0, 0], [last, last, 1, 1, last], "k:", lw=1.5)
    ax.set(xlabel="cumulative reward $u$ (reward units)", ylabel="weight")
    ax.set(xlim=(0, u[-1]), ylim=(0, 1.3))
    ax.legend()
    return ax


# %%
def surrogate_gradients(game: Game) -> np.ndarray:
    r"""Surrogate rewards $g(t) = w(t) r(t)$ of a recorded game, shape (T, N).

    Parameters
    ----------
    game : Game
        Its field `weights` says whether $R(t-1)$ or $R(t)$ weighs round $t$.

    Returns
    -------
    gradients : ndarray, shape (T, N), float64
    """
    R = game.cumulative[:-1] if game.weights == "before" else game.cumulative[1:]
    return surrogate_weights(R, game.alpha) * game.rewards


# %%
def telescoping_excess(game: Game, *, constant: float | None = None) -> np.ndarray:
    r"""Left minus right side of the telescoping lemma, never positive.

    Parameters
    ----------
    game : Game
    constant : float, optional
        What stands for the lemma's $-\alpha / (1 - \alpha)$.

    Returns
    -------
    excess : ndarray, shape (T + 1, N), float64
        Utility units, for each number of rounds and each arm.

    References
    ----------
    Book {eq}`eq-full-information-telescoping`.
    """
    alpha, R = game.alpha, game.cumulative
    earned = np.zeros_like(R)
    earned[1:] = np.cumsum(surrogate_gradients(game) * game.points, axis=0)
    constant = -alpha / (1 - alpha) if constant is None else constant
    right = arm_utility(R, alpha) + constant
    return earned + surrogate_weights(R, alpha) - right


# %% [markdown]
# ## The reduction
#
# Learners are good at small regret in what adds up over rounds.
# We want to use them as they are, so we have to say what their regret in weighted rewards costs in utility.
#
# **Theorem (From linear regret to fair utility).** <a id="thm-full-information-reduction"></a>
# For any policy, any sequence, any fixed map $x^*$, either convention and every $T$,
#
# <a id="eq-full-information-reduction"></a>
# $$
# \begin{gathered}
# U^*-c_\alpha U\ \le\ (1-\alpha)^\alpha\Big[\mathrm{Reg}_T(x^*)-\frac{N\alpha}{1-\alpha}\Big],\\
# c_\alpha=(1-\alpha)^{-(1-\alpha)}\le e^{1/e}.
# \end{gathered}
# $$ (eq-full-information-reduction)
#
# **Proof.**
# Fix $\beta>0$.
# A concave function lies below its tangent at $R_i$; at the point $\beta R_i^*$ this says
#
# $$
# \begin{aligned}
# \phi(\beta R_i^*)&\le\phi(R_i)+\phi'(R_i)(\beta R_i^*-R_i)\\
# &=\alpha\,\phi(R_i)+\beta\,\phi'(R_i)R_i^*,
# \end{aligned}
# $$ (eq-full-information-tangent)
#
# because $R\,\phi'(R)=(1-\alpha)\phi(R)$.
# Cumulative rewards never fall and $\phi'$ never rises, so $\phi'(R_i(T))\le w_i(t)$ for all $t\le T$, and
#
# <a id="eq-full-information-past"></a>
# $$
# \begin{aligned}
# \phi'(R_i)R_i^*&=\phi'(R_i)+\sum_{t\le T}\phi'(R_i)r_i(t)x^*_{j_t,i}\\
# &\le\phi'(R_i)+\sum_{t\le T}g_i(t)x^*_{j_t,i}.
# \end{aligned}
# $$ (eq-full-information-past)
#
# Sum over the arms.
# The last sums add up to $\mathrm{Reg}_T(x^*)+V$, and [Lemma (Telescoping)](#lem-full-information-telescoping) bounds $V+\sum_i\phi'(R_i)$ by $U-\frac{N\alpha}{1-\alpha}$.
# On the left, $\phi(\beta u)=\beta^{1-\alpha}\phi(u)$.
# Hence
#
# $$
# \begin{gathered}
# U^*\le\frac{\alpha+\beta}{\beta^{1-\alpha}}\,U+\beta^\alpha\Big[\mathrm{Reg}_T(x^*)-\frac{N\alpha}{1-\alpha}\Big]\\
# \text{for every }\beta>0 .
# \end{gathered}
# $$ (eq-full-information-beta)
#
# The factor of $U$ has the derivative $\beta^{\alpha-2}\big(\beta-(1-\alpha)(\alpha+\beta)\big)=\alpha\beta^{\alpha-2}(\beta-(1-\alpha))$, negative before $\beta=1-\alpha$ and positive after.
# There it equals $(1-\alpha)^{-(1-\alpha)}$, and $\beta^\alpha=(1-\alpha)^\alpha$.
# With $y=1-\alpha$, $\ln c_\alpha=-y\ln y$ is largest at $y=1/e$, with the value $1/e$. ∎
#
# In words: a policy whose regret in weighted rewards is small has at least $1/c_\alpha$ of the best utility.
# The factor $c_\alpha$ is 1.10 at $\alpha=0.1$, 1.41 at $\alpha=0.5$ and 1.26 at $\alpha=0.9$.
#
# This is where it comes from: the tangent at $R$ is evaluated at $\beta R^*$ in place of $R^*$.
# Scaling the optimum costs the factor $\beta^{1-\alpha}$ in its utility, the tangent leaves $(\alpha+\beta)U$, and the quotient is least at $\beta=1-\alpha$.
# With $\beta=1$, no scaling, the factor would be $1+\alpha$.


# %%
def approximation_factor(alpha: float) -> float:
    r"""The constant $c_\alpha = (1 - \alpha)^{-(1 - \alpha)}$, between 1 and $e^{1/e}$.

    Parameters
    ----------
    alpha : float
        Fairness parameter in [0, 1).

    Returns
    -------
    c_alpha : float

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1).

    References
    ----------
    Book {eq}`eq-full-information-reduction`; abstract of Sinha et al. (2023).
    """
    alpha = check_alpha(alpha, below=1)
    return (1 - alpha) ** (alpha - 1)


# %% tags=["active-ipynb"]
# factors = [approximation_factor(a) for a in np.linspace(0, 0.99, 100)]
# assert max(factors) <= np.exp(1 / np.e) < 1.4447 and factors[0] == 1
# assert [round(factors[i], 2) for i in (10, 50, 90)] == [1.10, 1.41, 1.26]

# %% [markdown]
# The choice of $\beta$ can be seen as well.
# Without regret the two inequalities of the proof leave $R_i^*/R_i$ at most $1/(1-\alpha)$ on average over the arms, with the weights $\phi(R_i)$.
# Look at the dotted line in the next figure: each $\beta$ gives a tangent above the curve, and the height of the tangent on the line is the factor.


# %%
def plot_best_tangent(ax, alpha: float):
    r"""Tangents of $x^{1-\alpha}$ and their heights at $x = 1/(1-\alpha)$."""
    most, betas = 1 / (1 - alpha), {"1": 1, r"1-\alpha": 1 - alpha}
    x = np.linspace(0, 1.5 * most, 300)
    for name, beta in betas.items():
        scale = beta ** (alpha - 1)
        tangent = scale * (alpha + beta * (1 - alpha) * x)
        (line,) = ax.plot(x, tangent, label=rf"tangent, $\beta = {name}$")
        marks = {"c": line.get_color(), "zorder": 4}
        ax.plot(1 / beta, scale, "o", mfc="white", ms=8, **marks)
        height = scale * (alpha + beta)
        ax.plot(most, height, "o", **marks)
        shift = 0.12 if beta == 1 else -0.2
        ax.text(most - 0.1, height + shift, f"{height:.2f}", ha="right")
    ax.plot(x, x ** (1 - alpha), "k-", label=r"$x^{1-\alpha}$")
    ax.axvline(most, color="0.4", ls=":")
    ax.set(xlim=(0, x[-1]), ylim=(0, 2.4), xlabel="$x=R_i^*/R_i$")
    ax.set(ylabel=r"$\phi(R_i^*)\,/\,\phi(R_i)$")
    ax.legend(loc="lower right")
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_best_tangent(ax, 0.7)

# %% [markdown]
# **Figure (fig-full-information-tangent).** <a id="fig-full-information-tangent"></a> Where the constant comes from, at $\alpha=0.7$. Curve: what the optimum gains in utility where it has $x$ times the reward of the policy. A tangent touches it at $x=1/\beta$ (open circle) and proves the factor that it reaches on the dotted line, $x=1/(1-\alpha)$. The tangent that touches there proves $c_\alpha$, the height of the curve itself.

# %% [markdown]
# Two steps are optimisation claims, and cvxpy judges both: the best $\beta$ as a geometric program, for $\alpha\beta^{\alpha-1}+\beta^\alpha$ is a sum of monomials, and the tangent as the largest $\phi(\beta u)-\beta\phi'(R)u$ over $u$.

# %% tags=["active-ipynb"]
# beta, u = cp.Variable(pos=True), cp.Variable(pos=True)
# for a in ALPHAS:
#     factor = cp.Problem(cp.Minimize(a * beta ** (a - 1) + beta**a))
#     factor.solve(gp=True, solver=cp.CLARABEL)
#     np.testing.assert_allclose(factor.value, approximation_factor(a), rtol=1e-6)
#     np.testing.assert_allclose(beta.value, 1 - a, rtol=1e-2)
#     b, R = 1 - a, 3.0
#     power = cp.power(u, 1 - a, approx=False)
#     gap = b ** (1 - a) * power / (1 - a) - b * R**-a * u
#     value = cp.Problem(cp.Maximize(gap)).solve(solver=cp.CLARABEL)
#     np.testing.assert_allclose(value, a * R ** (1 - a) / (1 - a), rtol=1e-4)


# %%
def plot_factor(ax, alphas: Iterable[float]):
    r"""The factor $(\alpha + \beta) \beta^{\alpha - 1}$ of $U$ against $\beta$."""
    beta = np.linspace(0.02, 1.3, 400)
    for alpha in alphas:
        factor = (alpha + beta) * beta ** (alpha - 1)
        (line,) = ax.plot(beta, factor, label=f"$\\alpha$ = {alpha}")
        lowest = approximation_factor(alpha)
        ax.plot(1 - alpha, lowest, "o", color=line.get_color(), markersize=5)
    ax.set(xlabel="$\\beta$", ylabel="factor of $U$", ylim=(0.9, 2.6))
    ax.legend(ncols=3, loc="upper right")
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_factor(ax, ALPHAS)

# %% [markdown]
# **Figure (fig-full-information-factor).** <a id="fig-full-information-factor"></a> The factor in front of the policy's utility, as a function of the free scale; the dots mark its minimum, the constant of the theorem.

# %% [markdown]
# To check the theorem at every round we evaluate both sides for a fixed map.


# %%
def linear_regret(game: Game, fixed_map: np.ndarray) -> np.ndarray:
    r"""Linear regret against a fixed map after each round, $\mathrm{Reg}_t(x^*)$.

    Parameters
    ----------
    game : Game
    fixed_map : ndarray, shape (M, N), float64
        A distribution over the arms for each context.

    Returns
    -------
    regret : ndarray, shape (T,), float64
        Surrogate units.
    """
    ahead = fixed_map[game.contexts] - game.points  # (T, N)
    return np.cumsum((surrogate_gradients(game) * ahead).sum(1))


# %%
def reduction_slack(game: Game, fixed_map: np.ndarray) -> np.ndarray:
    r"""Right minus left side of the reduction after each round, over $U_t$.

    Parameters
    ----------
    game : Game
        With $0 \le \alpha < 1$.
    fixed_map : ndarray, shape (M, N), float64
        A distribution over the arms for each context.

    Returns
    -------
    slack : ndarray, shape (T,), float64
        Never negative; a share of the policy's utility.

    Raises
    ------
    ValueError
        If `alpha` of the game is not below 1.

    References
    ----------
    Book {eq}`eq-full-information-reduction`.
    """
    alpha, n_arms = game.alpha, game.rewards.shape[1]
    factor = approximation_factor(alpha)
    utility = alpha_fair_utility(game.cumulative[1:], alpha)  # (T,)
    earned = 1 + np.cumsum(game.rewards * fixed_map[game.contexts], axis=0)
    regret = linear_regret(game, fixed_map) - n_arms * alpha / (1 - alpha)
    left = alpha_fair_utility(earned, alpha) - factor * utility
    return ((1 - alpha) ** alpha * regret - left) / utility


# %% [markdown]
# ## The coupled policy
#
# One learner of [the previous chapter](online_gradient.ipynb) for every context; they share only the cumulative rewards, through the weights:
#
# $$
# x^{(j_t)}\leftarrow\Pi_\Delta\Big(x^{(j_t)}+\frac{g(t)}{\sqrt{S_{j_t}}}\Big),\qquad S_{j_t}\leftarrow S_{j_t}+\lVert g(t)\rVert^2\ \text{first}.
# $$ (eq-full-information-policy)
#
# The surrogate rewards depend on past play through $R(t-1)$.
# That is allowed: the learner's bound holds on every path.
#
# <div class="alert alert-warning">
#
# **Deviation.**
# *Papers*: the abstracts speak of a greedy estimate of the gradient; whether the weight is taken before or after the round is not said there.
#
# *Released code*: with full information the weight is $R(t)^{-\alpha}$, after the round, and the step is the one without squares of [the previous chapter](online_gradient.ipynb); with bandit feedback the weight is $R(t-1)^{-\alpha}$.
#
# *This book*: $R(t-1)^{-\alpha}$ everywhere and squared norms.
# `AlphaFairGradient(n_arms, alpha, step="released", weights="after")` plays as the released code does.
#
# </div>


# %% [markdown]
# The policy steps by `gradient_step` of `prunefair.fairness.fast.compiled`, which gives every bit of the step of [the previous chapter](online_gradient.ipynb); only its projection is compiled.
# Two helpers serve policies in use: one changes a learner when arms are added or removed, the other starts a learner from a log; [arms that come and go](#arms-that-come-and-go) says what is proved of both.


# %%
def kept_point(point: np.ndarray) -> np.ndarray:
    """`point` on the simplex again, if arms that are gone have left a gap in it."""
    return point if point.sum() > 1 - 1e-12 else simplex_projection(point)


def _rearranged(policy, state, places, rewards):
    """`Policy.rearranged`: new arms have probability 0, what is free is shared."""
    state = Policy.rearranged(policy, state, places, rewards)
    return state._replace(point=kept_point(state.point))


def _begun(policy, x, gradients):
    """`Policy.warm_start`: the point `x`, with norms of the log's surrogate rewards."""
    if policy.step_kind == "centred":
        gradients = gradients - gradients.mean(1, keepdims=True)
    squares = (gradients**2).sum(1)
    released = policy.step_kind == "released"
    total = (squares**0.5 if released else squares).sum()
    return type(policy.initial())(x, float(total))


# %%
class AlphaFairGradient(FullInformationPolicy):
    r"""The coupled policy: one adaptive learner a context, weights $R(t-1)^{-\alpha}$.

    Parameters
    ----------
    n_arms : int or sequence of names
        Number of arms $N$, or their names.
    alpha : float
        Fairness parameter in [0, 1]; the theorems are for [0, 1), at 1 the second
        exercise bounds the regret, and beyond 1 no bound is known here.
    step : {"squared", "centred", "released"}
        Which norms divide the step: squared, squared without the mean entry, or the
        plain norms of the released code, for which no theorem here holds.
    weights : {"before", "after"}
        Whether $R(t-1)$ or $R(t)$ weighs the rewards of round $t$.

    Attributes
    ----------
    arms, retired, rewards
        Names of the arms, names of those that there were, whose late rewards are to be
        dropped, and what each arm earned: as for every `Policy`.

    Raises
    ------
    ValueError
        If `n_arms` or `alpha` is out of range, or `step` or `weights` has no meaning.

    References
    ----------
    Book {eq}`eq-full-information-policy`.

    Examples
    --------
    >>> import numpy as np
    >>> from prunefair.fairness.full_information import AlphaFairGradient
    >>> policy = AlphaFairGradient(n_arms=2, alpha=0.9)
    >>> policy.probabilities("evening")
    array([0.5, 0.5])
    >>> policy.update("evening", np.array([0.0, 1.0]))
    >>> policy.probabilities("evening").round(3)
    array([0., 1.])
    """

    def __init__(
        self,
        n_arms: int | Sequence[Hashable],
        alpha: float,
        *,
        step="squared",
        weights="before",
    ):
        super().__init__(n_arms)
        if step not in ("squared", "centred", "released"):
            raise ValueError(f"step is {step!r}; take squared, centred or released")
        if weights not in ("before", "after"):
            raise ValueError(f"weights is {weights!r}; take before or after")
        self.alpha = check_policy_alpha(alpha)
        self.step_kind, self.weights = step, weights

    def config(self) -> dict[str, Any]:
        given = super().config()  # `step` is a method
        return given | ({"step": self.step_kind} if "step" in given else {})

    def initial(self) -> AdaptiveState | ReleasedState:
        state = initial_state(self.n_arms)
        return ReleasedState(*state) if self.step_kind == "released" else state

    rearranged, begun = _rearranged, _begun

    def play(self, context: Hashable) -> np.ndarray:
        return self.learner(context).point

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        R = self.rewards if self.weights == "before" else self.rewards + rewards * x
        step, g = self.step_kind, surrogate_weights(R, self.alpha) * rewards
        self.learners[context] = gradient_step(self.learner(context), g, step)

    @property
    def squared_norms(self) -> np.ndarray:
        """What divides the steps, $S_j$ for each context seen so far, shape (M,)."""
        return np.array([state[1] for state in self.learners.values()])


# %% [markdown]
# By hand, with one context, two arms, $\alpha=\frac12$ and rewards $(1,0)$, then $(0,1)$.
# Round 1 plays $(\frac12,\frac12)$ with weights 1; $g=(1,0)$, $S=1$, the next point is $(1,0)$ and $R=(\frac32,1)$.
# Round 2 earns nothing; $g=(0,1)$, $S=2$, and the next point is $(1-\frac1{2\sqrt2},\frac1{2\sqrt2})$.

# %% tags=["active-ipynb"]
# policy = AlphaFairGradient(2, 0.5)
# policy.update("any key", [1, 0])
# np.testing.assert_allclose(policy.probabilities("any key"), [1, 0])
# policy.update("any key", [0, 1])
# np.testing.assert_allclose(policy.rewards, [1.5, 1])
# np.testing.assert_allclose(policy.probabilities("any key")[1], 8**-0.5)
# np.testing.assert_allclose(policy.probabilities("a new one"), [0.5, 0.5])
# np.testing.assert_allclose(policy.squared_norms, [2])

# %% [markdown]
# Feedback may come late: keep what `probabilities` returned and hand it to `update` as `played`, so that the arms are credited with what they earned.
#
# The policy takes $0\le\alpha\le1$: the theorem is for $\alpha<1$, and [Exercise (ex-full-information-2)](#ex-full-information-2) bounds the regret at 1.
# Beyond 1 no bound is known here, and play can be bad.
# Take one context and constant rewards $(1,\frac14)$ for 4000 rounds, and compare the equivalent rewards: those that give the same utility if both arms have them ([(eq-utility-equivalent)](utility.ipynb#eq-utility-equivalent)).
# At $\alpha=0.5$ the policy has 1252 and uniform play 1126; at $\alpha=10$ the same steps have 272, half of the 541 of uniform play.
# So the policies refuse $\alpha>1$, while utility and offline optimum take it.

# %% tags=["active-ipynb"]
# constant, equivalent = np.array([1.0, 0.25]), {}
# for a in (0.5, 10):
#     R, state = np.ones(2), AlphaFairGradient(2, 1).initial()
#     for _ in range(4000):
#         g, R = surrogate_weights(R, a) * constant, R + constant * state.point
#         state = adaptive_step(state, g)
#     equivalent[a] = equivalent_reward(R, a), equivalent_reward(1 + 2000 * constant, a)
#     print(f"alpha {a:3}: {equivalent[a][0]:.0f}, uniform play {equivalent[a][1]:.0f}")
# assert equivalent[0.5][0] > equivalent[0.5][1]
# assert equivalent[10][0] < equivalent[10][1]

# %% [markdown]
# ## A suite to check against
#
# Twelve adversaries play against the policy, at five $\alpha$, four shapes $(M,N)$ and two least rewards $\delta$.
# Two give random rewards, Bernoulli and uniform.
# Three look at the play and reward the arm played least, the lower half, or the arm after the one played most.
# Three reward sets of arms that shrink from context to context, one arm in each context, or arms in turn.
# The others reward the richest arm, the poorest, or all, and the last one is the probe that the end of this chapter describes.
# The offline optimum of the whole game and of its first third serve as fixed maps.


# %%
def _worst_by_alpha(
    games: Iterable[tuple[str, Game]], measure: Callable[[Game], float]
) -> dict[float, float]:
    """Largest `measure(game)` for each alpha that occurs.

    Parameters
    ----------
    games : iterable of (str, Game)
        Named games, as `play_suite` yields them.
    measure : callable
        Number of a game.

    Returns
    -------
    worst : dict
        From alpha to the largest number.
    """
    worst: dict[float, float] = {}
    for _, game in games:
        worst[game.alpha] = max(worst.get(game.alpha, -np.inf), measure(game))
    return worst


# %% tags=["active-ipynb"]
# SHAPES = ((1, 2), (2, 2), (3, 5), (5, 3))
# suite = partial(play_suite, AlphaFairGradient, rng=rng)
# games = list(suite(ALPHAS, SHAPES, 240, deltas=(0.0, 0.05)))
# table = {}  # one row for each statement: its worst value at each alpha
#
# def optimal_map(game, rounds):
#     G = reward_sums(game.contexts[:rounds], game.rewards[:rounds], game.n_contexts)
#     return solve_offline(G, game.alpha).x
#
# maps = {id(g): (optimal_map(g, 240), optimal_map(g, 80)) for _, g in games}
# print(f"{len(games)} games, {len({name for name, _ in games})} adversaries")

# %% [markdown]
# Each statement is checked by a function that takes the statement as an argument, so that the tests can put a stronger one in its place and see it rejected.
# It returns the smallest constant that could stand in front of the right side, or of the term that it names, and still pass these games: more than 1 would be a violation, and the nearer to 1, the less room is left.


# %%
def _map_utility(game: Game, fixed_map: np.ndarray) -> np.ndarray:
    """Utility of a fixed map after each round of `game`, shape (T,)."""
    earned = 1 + np.cumsum(game.rewards * fixed_map[game.contexts], axis=0)
    return alpha_fair_utility(earned, game.alpha)


def _reduction_share(game, fixed_map, factor=approximation_factor, weight=None):
    """Largest part of `factor` that the reduction needs: the least c over `factor`."""
    a, n = game.alpha, game.rewards.shape[1]
    weight = (1 - a) ** a if weight is None else weight(a)
    linear = linear_regret(game, fixed_map) - n * a / (1 - a)
    needed = _map_utility(game, fixed_map) - weight * linear
    return (needed / (factor(a) * alpha_fair_utility(game.cumulative[1:], a))).max()


# %% [markdown]
# [Lemma (Telescoping)](#lem-full-information-telescoping) at every round and arm, then [Theorem (From linear regret to fair utility)](#thm-full-information-reduction) at every round for both maps:

# %% tags=["active-ipynb"]
# worst = _worst_by_alpha(games, lambda game: telescoping_excess(game).max())
# assert max(worst.values()) < 1e-13
# table["reduction: factor"] = _worst_by_alpha(
#     games, lambda game: max(_reduction_share(game, x) for x in maps[id(game)])
# )

# %% [markdown]
# ## A certificate for each run
#
# The reduction leaves the linear regret open, and the bound of the learners closes it.
# The learner of context $j$ has regret at most $\kappa\sqrt{S_j}$ on its own rounds, so $\mathrm{Reg}_T(x^*)\le\kappa\sum_j\sqrt{S_j}$ for every map.
#
# **Theorem (Certificate).** <a id="thm-full-information-certificate"></a>
# On every run of the coupled policy with squared norms, at every $T$ and for every fixed map,
#
# <a id="eq-full-information-certificate"></a>
# $$
# \begin{gathered}
# U^*-c_\alpha U\ \le\ (1-\alpha)^\alpha\Big[\kappa\sum_j\sqrt{S_j}-\frac{N\alpha}{1-\alpha}\Big],\\
# \kappa=2-\frac1N .
# \end{gathered}
# $$ (eq-full-information-certificate)
#
# With centred norms, of $g$ less its mean over the arms, it holds with $\kappa=2$ and the centred $S_j$.
#
# **Proof.**
# $\mathrm{Reg}_T(x^*)=\sum_j\sum_{t:j_t=j}\langle g(t),x^*_j-x(t)\rangle$.
# Each inner sum is the regret of one learner, bounded by [Theorem (Regret of the adaptive step)](online_gradient.ipynb#thm-online-gradient-regret) with surrogate rewards that are not negative.
# Insert into [(eq-full-information-reduction)](#eq-full-information-reduction). ∎
#
# In words: at any time the policy can say how far it may be from the best map, from sums that it keeps anyway.
# No solution of the offline problem is needed.


# %%
def certificate_bound(
    squared_norms, alpha: float, n_arms: int, *, centred: bool = False
) -> float:
    r"""Proved bound on $U^* - c_\alpha U$ of one run, from its squared norms alone.

    Parameters
    ----------
    squared_norms : array_like, shape (..., M)
        $S_j$ of each context, as `AlphaFairGradient.squared_norms` holds them.
    alpha : float
        Fairness parameter in [0, 1).
    n_arms : int
        Number of arms $N$.
    centred : bool
        Whether the norms are centred.

    Returns
    -------
    bound : float, or ndarray of shape (...)
        Utility units.

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1) or `n_arms` is not a positive whole number.

    References
    ----------
    Book {eq}`eq-full-information-certificate`.
    """
    alpha = check_alpha(alpha, below=1)
    kappa = regret_factor(n_arms, nonnegative=not centred)
    linear = kappa * np.sqrt(squared_norms).sum(-1)
    return (1 - alpha) ** alpha * (linear - n_arms * alpha / (1 - alpha))


# %% [markdown]
# Its ingredients, for each context and after each round:


# %%
def context_sums(game: Game, values: np.ndarray) -> np.ndarray:
    """Running sums of a quantity, apart for each context.

    Parameters
    ----------
    game : Game
        Names the context of each round.
    values : ndarray, shape (T, ...), float64
        Quantity of each round.

    Returns
    -------
    sums : ndarray, shape (T, M, ...), float64
    """
    sums = np.zeros((len(values), game.n_contexts, *values.shape[1:]))
    sums[np.arange(len(values)), game.contexts] = values
    return np.cumsum(sums, axis=0)


# %%
def context_norms(game: Game) -> np.ndarray:
    """Squared norms $S_j$ of each context after each round.

    Parameters
    ----------
    game : Game

    Returns
    -------
    norms : ndarray, shape (T, M), float64
        Squared surrogate units.
    """
    return context_sums(game, (surrogate_gradients(game) ** 2).sum(1))


# %%
def context_regrets(game: Game) -> np.ndarray:
    """Regret of each context's learner against its best arm, after each round.

    Parameters
    ----------
    game : Game

    Returns
    -------
    regrets : ndarray, shape (T, M), float64
        Surrogate units.
    """
    g = surrogate_gradients(game)
    best = context_sums(game, g).max(2)  # (T, M)
    return best - context_sums(game, (g * game.points).sum(1))


# %%
def _roots_share(game: Game, factor=None) -> float:
    r"""Largest regret of a learner over `factor` times its $\sqrt{S_j}$."""
    roots = np.sqrt(context_norms(game))  # (T, M)
    n_arms = game.rewards.shape[1]
    kappa = regret_factor(n_arms, nonnegative=True) if factor is None else factor
    return (context_regrets(game) / np.where(roots > 0, kappa * roots, 1)).max()


def _linear_part(game: Game, fixed_map: np.ndarray) -> np.ndarray:
    r"""What the bounds must be at least.

    $\frac{U^*-c_\alpha U}{(1-\alpha)^\alpha}+\frac{N\alpha}{1-\alpha}$
    """
    a, n_arms = game.alpha, game.rewards.shape[1]
    fair = approximation_factor(a) * alpha_fair_utility(game.cumulative[1:], a)
    behind = (_map_utility(game, fixed_map) - fair) / (1 - a) ** a
    return behind + n_arms * a / (1 - a)  # (T,)


def _certificate_share(game: Game, fixed_map: np.ndarray, factor=None) -> float:
    r"""Largest part of `factor` times $\sum_j\sqrt{S_j}$ that the certificate needs."""
    kappa = regret_factor(game.rewards.shape[1], nonnegative=True)
    roots = (kappa if factor is None else factor) * np.sqrt(context_norms(game))
    return (_linear_part(game, fixed_map) / roots.sum(1).clip(1e-300)).max()


# %% tags=["active-ipynb"]
# table["learner: regret"] = _worst_by_alpha(games, _roots_share)
# table["certificate: roots"] = _worst_by_alpha(
#     games, lambda game: max(_certificate_share(game, x) for x in maps[id(game)])
# )

# %% [markdown]
# The suite needs at most 0.416 of the certificate, as the table of the smallest constants below says.
# Almost all of it is needed at $\alpha=0$, where $c_\alpha=1$ and the left side is the regret itself: against the worst sequence of [the previous chapter](online_gradient.ipynb) it is 0.981.

# %% tags=["active-ipynb"]
# hard = worst_gradients(0.04, 4000, 200, nonnegative=True)
# hard /= hard.max()
# game = play_game(
#     AlphaFairGradient(2, 0.0), lambda t, policy: (0, hard[t]), len(hard), 1
# )
# print(f"constant in front of the roots {_certificate_share(game, np.eye(2)[:1]):.3f}")

# %% [markdown]
# ## Arms that come and go
#
# In use, articles appear and expire, and some may not be shown today.
# `add_arm` begins an arm with probability 0 in every learner that there is, and with $R_i=1$, or with a larger $R_i=c_i$ if it is to be favoured less.
# A new context begins uniform over the arms that there are.
# `retire_arm` removes an arm, and its probability goes to the others, by projection.
# `probabilities(context, mask=...)` leaves out what may not be played now and divides by what is left; give `update` the point that was played, and the reward 0 for each masked arm.
#
# **Theorem (Arms that come and go).** <a id="thm-full-information-arms"></a>
# Let $N$ count all arms that ever were, an arm that is absent or masked pay 0 in that round, and arms keep in $U$ what they have earned.
# Then [Theorem (Certificate)](#thm-full-information-certificate) holds for squared norms, with $\sum_ic_i^{1-\alpha}$ in the place of $N$ before $\frac\alpha{1-\alpha}$, against every fixed map that plays only arms which stay and were there at every retirement; without retirements these are all maps.
# Against maps that change at each of $K$ retirements, and are arbitrary between them, it holds with $\kappa+K$ in the place of $\kappa$.
#
# **Proof.**
# *The reduction* never used that the map is fixed, nor that a play is chosen by the learner.
# With $R_i(0)=c_i\ge1$ the increments in the proof of [Lemma (Telescoping)](#lem-full-information-telescoping) have $h\le1\le c_i$, so $V_i+c_i\phi'(R_i)\le\phi(R_i)-\frac\alpha{1-\alpha}c_i^{1-\alpha}$.
#
# *Masks.* What is played is at least the learner's point on the arms that pay, and no reward is negative: the linear regret is at most that of the point.
#
# *New arms.* Look at all $N$ arms from the start, with a point that is 0 on those to come.
# Surrogate rewards are not negative, so the entries of $x+\eta g$ sum to 1 or more, the multiplier $\tau$ of the projection is not negative, and an entry that is 0 without a reward stays 0.
# So the learner is the one of [Theorem (Regret of the adaptive step)](online_gradient.ipynb#thm-online-gradient-regret) over all arms, from another first point, of which the proof uses nothing.
#
# *Retirements.* The point is projected on the face of the arms that are left.
# By (b) of [Lemma (What the projection gives)](online_gradient.ipynb#lem-online-gradient-projection) that does not move it away from any $u$ on that face; so the sum over distances in the proof is no larger.
# For any other $u$, or if $u$ changes there, $d_t$ rises by at most 2, which adds at most $\sqrt{S_T}$ for each of the $K$ times. ∎
#
# In words: new arms and masks cost nothing, and a map that changes when an arm retires costs one more root of the squared norms for each retirement.
# The restriction to arms that were there is needed in the proof.
# If $x$ has a tenth on the arm that goes and the rest on another, the projection leads away from an arm that is still to come.
#
# With centred norms the step *New arms* fails: adding arms changes the mean.
# Two more statements are of the same kind.
# A context that was forgotten ([a limit of contexts](baselines.ipynb#in-service)) and comes again is a new one: it has two terms $\sqrt{S_j}$ in the sum.
# `warm_start` begins at the optimum of a log with the log's $S_j$ and the optimum's rewards $c_i$: the certificate holds for the rounds to come, with $S_j$ of both together.


# %%
def _changing_share(policy, n_epochs, pay, *, factor=lambda kappa, K: kappa + K):
    r"""Regret of one learner over its bound, when arms change after every epoch.

    In each epoch `pay(policy)` gives 200 times the rewards and a mask; then an arm
    comes, and the one that is played most goes.
    """
    behind = 0.0
    for epoch in range(n_epochs):
        against = np.zeros(policy.n_arms)
        for _ in range(200):
            r, mask = pay(policy)
            x = policy.probabilities(None, mask=mask)
            g = surrogate_weights(policy.rewards, policy.alpha) * r * mask
            against += g - g @ x
            policy.update(None, r * mask, played=x)
        behind += against.max()  # the best arm of this epoch
        if epoch + 1 < n_epochs:
            policy.add_arm()
            policy.retire_arm(policy.arms[policy.probabilities(None).argmax()])
    kappa = regret_factor(policy.n_arms + n_epochs - 1, nonnegative=True)
    return behind / (factor(kappa, n_epochs - 1) * policy.squared_norms[0] ** 0.5)


# %% [markdown]
# First the last arm alone pays, so that after each retirement the arm that pays starts again from a small probability; then rewards are random, under random masks.
# At most 0.174 of the bound is used.
# A negative constant says that the policy earned more than the maps.


# %%
def _newest_pays(policy):
    """Rewards of the arm that came last, and no mask."""
    return np.eye(policy.n_arms)[-1], np.ones(policy.n_arms, bool)


def _masked_coins(policy, *, rng):
    """Random rewards, and a mask that leaves the first arm and some others."""
    mask = rng.random(policy.n_arms) < 0.5
    mask[0] = True
    return rng.random(policy.n_arms) * (rng.random(policy.n_arms) < 0.5), mask


# %% tags=["active-ipynb"]
# coins = partial(_masked_coins, rng=np.random.default_rng(SEED))
# for pay, n_arms in ((_newest_pays, 2), (coins, 6)):
#     for a in (0.0, 0.5, 0.9):
#         share = _changing_share(AlphaFairGradient(n_arms, a), 25, pay)
#         print(f"{n_arms} arms at a time, alpha {a}: constant {share:.3f}")
#         assert share <= 1

# %% [markdown]
# ## A bound without assumptions on the rewards
#
# The crude $\lVert g\rVert^2\le N$ gives $\sum_j\sqrt{S_j}\le\sqrt{MNT}$, which for $\alpha\ge\frac12$ grows at least as fast with $T$ as the utility itself.
# The squared norms are in fact at most of the order of the utility earned, because a large surrogate reward that the policy misses is regret, and regret is small.
#
# **Lemma (Self-bounding norms).** <a id="lem-full-information-norms"></a>
# With $V_j=\sum_{t:j_t=j}\langle g(t),x(t)\rangle$, at every $T$
#
# <a id="eq-full-information-norms"></a>
# $$
# \sqrt{S_j}\ \le\ \tfrac32(N-1)+\sqrt{NV_j}.
# $$ (eq-full-information-norms)
#
# **Proof.**
# Since $0\le g_i\le1$, $\lVert g\rVert^2\le\sum_ig_i=N\langle g,\mathbf 1/N\rangle$.
# So $S_j\le N(V_j+\mathrm{Reg}_j)$, where $\mathrm{Reg}_j$ is the regret of learner $j$ against the uniform point.
# By [Theorem (Regret of the adaptive step)](online_gradient.ipynb#thm-online-gradient-regret) with $\zeta=1-\frac1N$ and $\bar d_u=1-\frac1N$, $\mathrm{Reg}_j\le\frac32(1-\frac1N)\sqrt{S_j}$.
# Thus $S_j\le b\sqrt{S_j}+NV_j$ with $b=\frac32(N-1)$, and the larger root of the quadratic is at most $b+\sqrt{NV_j}$. ∎
#
# In words: the squared norms of a learner grow at most like $N$ times what this learner earns.
# Put into the certificate, this bounds the regret before the first round, whatever the rewards.
#
# **Theorem (No lower bound on rewards).** <a id="thm-full-information-explicit"></a>
# For the coupled policy, every sequence, every fixed map and every $T$,
#
# $$
# \begin{aligned}
# U^*-c_\alpha U&\le(1-\alpha)^\alpha\Big[\kappa\Big(\tfrac32(N-1)M+\sqrt{NMU}\Big)-\frac{N\alpha}{1-\alpha}\Big],\\
# U&\le\bar U_T:=\frac{N^\alpha(N+T)^{1-\alpha}}{1-\alpha}.
# \end{aligned}
# $$ (eq-full-information-explicit)
#
# The right side is $O\big(NM+\sqrt M\,N^{(1+\alpha)/2}\,T^{(1-\alpha)/2}\big)$, while utilities may grow like $T^{1-\alpha}$.
#
# **Proof.**
# By [(eq-full-information-norms)](#eq-full-information-norms) and Cauchy–Schwarz, $\sum_j\sqrt{S_j}\le\frac32(N-1)M+\sqrt{NM\sum_jV_j}$, and $\sum_jV_j=V\le U$.
# Insert into [(eq-full-information-certificate)](#eq-full-information-certificate).
# For the last part, a round hands out at most 1 in all, so $\sum_iR_i\le N+T$, and by Jensen's inequality $U\le N\phi\big(\frac{N+T}N\big)$. ∎
#
# In words: beyond the factor $c_\alpha$, the policy misses at most a multiple of the square root of the utility.


# %%
def utility_ceiling(n_rounds, n_arms: int, alpha: float) -> np.ndarray:
    r"""Largest utility $\bar U_T$ that `n_rounds` rounds can give.

    Parameters
    ----------
    n_rounds : array_like
        Number of rounds $T$.
    n_arms : int
        Number of arms $N$.
    alpha : float
        Fairness parameter in [0, 1).

    Returns
    -------
    ceiling : ndarray, float64, the shape of `n_rounds`
        Utility units.

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1).

    References
    ----------
    Book {eq}`eq-full-information-explicit`.
    """
    alpha = check_alpha(alpha, below=1)
    return n_arms * arm_utility(1 + np.asarray(n_rounds) / n_arms, alpha)


# %%
def _norms_root(V: np.ndarray, n_arms: int) -> np.ndarray:
    r"""Right side of the lemma, $\frac32(N-1)+\sqrt{NV_j}$."""
    return 1.5 * (n_arms - 1) + np.sqrt(n_arms * V)


def _norms_share(game: Game, bound: Callable = _norms_root) -> float:
    r"""Largest $\sqrt{S_j}$ over its bound."""
    V = context_sums(game, (surrogate_gradients(game) * game.points).sum(1))  # (T, M)
    allowed = bound(V, game.rewards.shape[1])
    return (np.sqrt(context_norms(game)) / np.where(allowed > 0, allowed, 1)).max()


# %%
def _roots_bound(U, n_contexts: int, n_arms: int) -> np.ndarray:
    r"""What the theorem puts for $\sum_j\sqrt{S_j}$, $\frac32(N-1)M+\sqrt{NMU}$."""
    return 1.5 * (n_arms - 1) * n_contexts + np.sqrt(n_arms * n_contexts * U)


def _explicit_share(game: Game, bound: Callable = _roots_bound) -> float:
    r"""Largest $\sum_j\sqrt{S_j}$ over its bound."""
    U = alpha_fair_utility(game.cumulative[1:], game.alpha)
    allowed = bound(U, game.n_contexts, game.rewards.shape[1])
    return (np.sqrt(context_norms(game)).sum(1) / allowed).max()


def _ceiling_share(game: Game, ceiling: Callable = utility_ceiling) -> float:
    r"""Largest $U_t$ over its ceiling."""
    (T, N), U = game.rewards.shape, alpha_fair_utility(game.cumulative[1:], game.alpha)
    return (U / ceiling(np.arange(1, T + 1), N, game.alpha)).max()


# %% tags=["active-ipynb"]
# table["norms: root"] = _worst_by_alpha(games, _norms_share)
# table["explicit: roots"] = _worst_by_alpha(games, _explicit_share)
# table["explicit: ceiling"] = _worst_by_alpha(games, _ceiling_share)

# %% [markdown]
# ## Rewards bounded away from zero: the phase transition
#
# Can the bound stop growing altogether?
# It can, if $\alpha>\frac12$ and every reward is at least $\delta>0$.
# An arm that is always paid but stays poor would be regret; so every arm grows, its weight falls, and the squared norms stop growing like the utility.
# First we bound the weights.
#
# **Lemma (Growth).** <a id="lem-full-information-growth"></a>
# If $r_i(t)\ge\delta>0$ always, then for every arm and every $t\ge1$
#
# <a id="eq-full-information-growth"></a>
# $$
# \begin{aligned}
# R_i(t)^{-\alpha}\ &\le\ \frac{U_t+\kappa\big(\frac32(N-1)M+\sqrt{NMU_t}\big)}{\delta\,t}\\
# &\le\ \frac{2U_t+4NM}{\delta\,t},
# \end{aligned}
# $$ (eq-full-information-growth)
#
# and $R_i(t)^{-\alpha}\le1$.
#
# **Proof.**
# The weights never fall below $R_i(t)^{-\alpha}$, so $\delta\,t\,R_i(t)^{-\alpha}\le\sum_{s\le t}g_i(s)$.
# The right side is what the map "always arm $i$" earns in surrogate rewards: at most $V_t$ plus the regret, hence at most
# $U_t+\kappa\big(\tfrac32(N-1)M+\sqrt{NMU_t}\big)$ by [Lemma (Self-bounding norms)](#lem-full-information-norms).
# Now $\kappa\sqrt{NMU_t}\le U_t+\frac{\kappa^2}4NM$, and $\kappa\le2$ gives $3(N-1)M+NM\le4NM$ for the rest. ∎
#
# In words: after $t$ rounds a weight is at most about $2U_t/(\delta t)$, and this falls like $t^{-\alpha}$.
# The squared norms add up squares of weights, so they grow like the sum of $t^{-2\alpha}$, which converges for $\alpha>\frac12$.
#
# **Theorem (Phase transition).** <a id="thm-full-information-phase"></a>
# Let $r_i(t)\ge\delta>0$ always, $n_0=\max(N,\lceil4NM/\delta\rceil)$ and $\Lambda=\int_{n_0}^{\max(T,n_0)}u^{-2\alpha}du$.
# Then $S=\sum_jS_j$ satisfies
#
# $$
# \begin{aligned}
# S&\le N\min\Big\{T,\ n_0+1+\frac{8NM}\delta+\frac{8\cdot4^{1-\alpha}N^{2\alpha}}{(1-\alpha)^2\delta^2}\,\Lambda\Big\},\\
# U^*-c_\alpha U&\le(1-\alpha)^\alpha\Big[\kappa\sqrt{MS}-\frac{N\alpha}{1-\alpha}\Big].
# \end{aligned}
# $$ (eq-full-information-phase)
#
# With all but $T$ fixed, the regret bound is $O(T^{1/2-\alpha})$ for $\alpha<\frac12$, $O(\sqrt{\ln T})$ for $\alpha=\frac12$, and $O(1)$ for $\alpha>\frac12$.
#
# **Proof.**
# A weight of round $t+1$ is at most $R_i(t)^{-\alpha}$ in both conventions, so $S\le N\sum_{t=0}^{T-1}m_t^2$ with $m_t$ the smaller of 1 and the last term of [(eq-full-information-growth)](#eq-full-information-growth), and $m_0=1$.
# The rounds $t\le n_0$ contribute at most $n_0+1$.
# For $t>n_0$ we have $N+t\le2t$, hence $U_t\le\frac{N^\alpha(2t)^{1-\alpha}}{1-\alpha}$, and $(a+b)^2\le2a^2+2b^2$ gives
# $m_t^2\le\frac{8\cdot4^{1-\alpha}N^{2\alpha}}{(1-\alpha)^2\delta^2}t^{-2\alpha}+\frac{32N^2M^2}{\delta^2t^2}$.
# Sums of decreasing functions are below integrals: $\sum_{t>n_0}t^{-2}\le\frac1{n_0}\le\frac\delta{4NM}$ and $\sum_{n_0<t<T}t^{-2\alpha}\le\Lambda$.
# Cauchy–Schwarz over the contexts and [Theorem (Certificate)](#thm-full-information-certificate) give the second part.
# $\Lambda$ is $\frac{T^{1-2\alpha}-n_0^{1-2\alpha}}{1-2\alpha}$, or $\ln\frac T{n_0}$ at $\alpha=\frac12$, and for $\alpha>\frac12$ it is at most $\frac{n_0^{1-2\alpha}}{2\alpha-1}$. ∎
#
# In words: the regret bound changes its nature at $\alpha=\frac12$; above, it does not depend on the number of rounds any more.
# The proof uses the learners' regret bound once, without an induction over rounds: the growth of every arm follows at once from the utility's ceiling.


# %%
def norms_bound(
    n_rounds, n_contexts: int, n_arms: int, alpha: float, delta: float
) -> np.ndarray:
    r"""Bound on $S = \sum_j S_j$ if no reward is below `delta`.

    Parameters
    ----------
    n_rounds : array_like
        Number of rounds $T$.
    n_contexts, n_arms : int
        $M$ and $N$.
    alpha : float
        Fairness parameter in [0, 1).
    delta : float
        Least reward, in (0, 1], reward units.

    Returns
    -------
    bound : ndarray, float64, the shape of `n_rounds`
        Squared surrogate units.

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1) or `delta` not in (0, 1].

    References
    ----------
    Book {eq}`eq-full-information-phase`.
    """
    alpha = check_alpha(alpha, below=1)
    if not 0 < delta <= 1:
        raise ValueError(f"delta is {delta!r}; it must lie in (0, 1]")
    N, M, T = n_arms, n_contexts, np.asarray(n_rounds, dtype=np.float64)
    start = max(N, np.ceil(4 * N * M / delta))
    end, power = np.maximum(T, start), 1 - 2 * alpha
    integral = np.log(end / start)
    if power:
        integral = (end**power - start**power) / power
    slope = 8 * 4 ** (1 - alpha) * N ** (2 * alpha) / ((1 - alpha) * delta) ** 2
    return N * np.minimum(T, start + 1 + 8 * N * M / delta + slope * integral)


# %%
def regret_bound(
    n_rounds, n_contexts: int, n_arms: int, alpha: float, *, delta: float = 0.0
) -> np.ndarray:
    r"""Proved bound on $U^* - c_\alpha U$ of the coupled policy, before it has played.

    Parameters
    ----------
    n_rounds : array_like
        Number of rounds $T$.
    n_contexts, n_arms : int
        $M$ and $N$.
    alpha : float
        Fairness parameter in [0, 1).
    delta : float
        Least reward in [0, 1]; if positive, the smaller of both bounds is returned.

    Returns
    -------
    bound : ndarray, float64, the shape of `n_rounds`
        Utility units.

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1) or `delta` not in [0, 1].

    References
    ----------
    Book {eq}`eq-full-information-explicit` and {eq}`eq-full-information-phase`.
    """
    N, M, kappa = n_arms, n_contexts, regret_factor(n_arms, nonnegative=True)
    root = _roots_bound(utility_ceiling(n_rounds, N, alpha), M, N)
    if delta:
        S = norms_bound(n_rounds, M, N, alpha, delta)
        root = np.minimum(root, np.sqrt(M * S))
    return (1 - alpha) ** alpha * (kappa * root - N * alpha / (1 - alpha))


# %% [markdown]
# ### How sharp these bounds are
#
# [Lemma (Growth)](#lem-full-information-growth) on the games with $\delta=0.05$ uses little of its bound, since their rewards are far above $\delta$.
# Two special streams use more of the bound.
# With one arm, $\delta=1$ and $\alpha$ near 0 the factor of $U_t$ cannot be lowered: 0.988 of the bound is used.
# The other has a thousand contexts and ten arms, a first round in each context that rewards arm 0, and then rewards $\delta$ for all.
# There the weight is 1.040 times $U_t/(\delta t)$, so the bound needs its second term: the regret of a thousand learners that all start late.


# %%
def _growth_bound(U, n_contexts: int, n_arms: int) -> np.ndarray:
    r"""Bound on $\delta t R_i(t)^{-\alpha}$, the first of the lemma's two."""
    kappa = regret_factor(n_arms, nonnegative=True)
    return U + kappa * _roots_bound(U, n_contexts, n_arms)


def _growth_share(
    rounds, R, alpha, delta, n_contexts, bound: Callable = _growth_bound
) -> float:
    r"""Largest $\delta t R_i(t)^{-\alpha}$ over its bound, for `R` of shape (C, N)."""
    allowed = bound(alpha_fair_utility(R, alpha), n_contexts, R.shape[1])
    return (delta * rounds * surrogate_weights(R.min(1), alpha) / allowed).max()


# %% tags=["active-ipynb"]
# def growth_share(game):
#     rounds, delta = np.arange(1, len(game.rewards) + 1), game.rewards.min()
#     R, M = game.cumulative[1:], game.n_contexts
#     return _growth_share(rounds, R, game.alpha, delta, M)
#
# positive = [(name, game) for name, game in games if game.rewards.min() > 0]
# table["growth: weight"] = _worst_by_alpha(positive, growth_share)

# %% tags=["active-ipynb"]
# rounds = 1000 * 2 ** np.arange(9)
# for M, N, delta, a in ((1, 1, 1.0, 0.01), (1000, 10, 0.03, 0.05)):
#     stream = late_rewards(M, N, rounds[-1], delta=delta)
#     R, _ = norms_over_time(stream, a, rounds)
#     share = _growth_share(rounds, R, a, delta, M)
#     alone = _growth_share(rounds, R, a, delta, M, bound=lambda U, M, N: U)
#     assert share <= 1
#     print(f"M {M:4d}, N {N:2d}: constant {share:.3f}, with U alone {alone:.3f}")

# %% [markdown]
# [Theorem (Phase transition)](#thm-full-information-phase) is a statement about rates, and games of a few hundred rounds say nothing about rates.
# So we play $2^{21}$ rounds in compiled code, with one context, two arms and rewards that are 1 or $\delta=0.9$ with equal probability.
# The growth of $S$ over a doubling of $T$ is compared with that of $\int u^{-2\alpha}du$, which is $T^{1-2\alpha}$, $\ln T$ or a constant.
# The exponents must come within 0.01 of the limit, from above; and $S$ must stay below its bound, which at $\alpha\le\frac12$ it would not without the integral $\Lambda$.


# %%
def _phase_growth(rounds, alpha: float) -> np.ndarray:
    r"""How $S$ may grow with `rounds` $T$: $T^{1-2\alpha}$, $\ln T$ or a constant."""
    T = np.asarray(rounds, dtype=np.float64)
    return np.log(T) if alpha == 0.5 else T ** max(0.0, 1 - 2 * alpha)


def _local_exponents(rounds, values) -> np.ndarray:
    """Slopes of `values` against `rounds`, both logarithmic, shape (C - 1,)."""
    return np.diff(np.log(values)) / np.diff(np.log(rounds))


def _phase_gap(rounds, norms, alpha, growth: Callable = _phase_growth) -> float:
    """How far the last local exponent is from its limit; infinite if not from above."""
    gap = _local_exponents(rounds, norms)
    gap -= _local_exponents(rounds, growth(rounds, alpha))
    falls = (np.diff(gap) < 2e-3).all() and gap[-1] > -1e-3  # but for noise
    return abs(gap[-1]) if falls else np.inf


def _phase_share(rounds, norms, alpha, delta, bound: Callable = norms_bound) -> float:
    r"""Largest $S$ over its bound, for one context and two arms."""
    return (norms / bound(rounds, 1, 2, alpha, delta)).max()


# %% tags=["active-ipynb"]
# T, least, phase = 2 ** np.arange(11, 22), 0.9, {}
# coins = np.maximum(rng.random((T[-1], 2)) < 0.5, least)
# stream = RewardStream(contexts=np.zeros(T[-1], int), rewards=coins, n_contexts=1)
# for a in ALPHAS:
#     _, S = norms_over_time(stream, a, T)
#     assert _phase_gap(T, S, a) < 0.01
#     constant, phase[a] = _phase_share(T, S, a, least), S
#     assert constant <= 1
#     print(f"alpha {a}: constant in front of the bound on S {constant:.3f}")

# %% [markdown]
# The smallest constants of all statements, over all games of one $\alpha$ and all their rounds.
# The telescoping lemma has no row: it is an equality at $t=0$.
# A constant of 1.000 says that the statement cannot be sharpened on these games; 0.416 in the row of the certificate says that its roots could be multiplied by that.

# %% tags=["active-ipynb"]
# print(f"{'alpha':24}", *(f"{a:8.1f}" for a in ALPHAS))
# for statement, row in table.items():
#     assert max(row.values()) < 1 + 1e-12
#     print(f"{statement:24}", *(f"{row[a]:8.3f}" for a in ALPHAS))

# %% [markdown]
# How near to $c_\alpha$ a game can come is the question of [a chapter of its own](limits.ipynb).
#
# Here is a run with its bounds: the $c_\alpha$-regret $U^*-c_\alpha U$ against the offline optimum, the certificate that the run carries, and the bound known beforehand.


# %%
def plot_bounds(ax, rounds: np.ndarray, curves: dict[str, np.ndarray]):
    r"""The $c_\alpha$-regret and its bounds against the round."""
    for name, values in curves.items():
        ax.plot(rounds, values, label=name)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xlabel="round", ylabel="$c_\\alpha$-regret (utility units)")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# opponent = adversaries(3, 4, 3000, delta=0.1, rng=rng)["bernoulli"]
# game = play_game(AlphaFairGradient(4, 0.5), opponent, 3000, 3)
# rounds = np.arange(100, 3001, 100)
# ahead = []
# for t in rounds:
#     G = reward_sums(game.contexts[:t], game.rewards[:t], 3)
#     ahead.append(solve_offline(G, 0.5).utility)
# fair = alpha_fair_utility(game.cumulative[rounds], 0.5)
# curves = {"measured": np.array(ahead) - approximation_factor(0.5) * fair}
# curves["certificate"] = certificate_bound(context_norms(game)[rounds - 1], 0.5, 4)
# curves["explicit bound"] = regret_bound(rounds, 3, 4, 0.5, delta=0.1)

# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_bounds(ax, rounds, curves)

# %% [markdown]
# **Figure (fig-full-information-bounds).** <a id="fig-full-information-bounds"></a> Bernoulli rewards raised to at least 0.1, three contexts, four arms, $\alpha=0.5$: the measured $c_\alpha$-regret, the certificate computed from the run's own squared norms, and the bound known before the run. The measured value is negative because the policy is far better than the factor allows.

# %% [markdown]
# ## Why the lower bound on rewards matters
#
# Is the lower bound $\delta$ only convenient, or is there no phase transition without it?
# Without $\delta$ the squared norms need not stop growing, whatever $\alpha$.
# The **probe** adversary is for one context and two arms.
# While arm 1 (the second) has positive probability, only arm 0 is rewarded.
# Once the probability of arm 1 is zero (in the code: below a billionth, for the sake of rounding), arm 1 is rewarded, once.
# This reward earns nothing, so $R_1$ stays at 1 and the probe moves the learner by a surrogate reward of full size, however long the game has lasted.
#
# **Theorem (Probing).** <a id="thm-full-information-probe"></a>
# Against the probe adversary ($M=1$, $N=2$) the coupled policy has, for every $T\ge1$,
#
# $$
# \begin{gathered}
# S_T\ \ge\ \frac{T-1}{2+\sqrt2\,(1+T)^\alpha},\\
# \mathrm{Reg}_T(e_0)\ \ge\ \tfrac18\big(\sqrt{S_T}-4\big).
# \end{gathered}
# $$ (eq-full-information-probe)
#
# So $S_T$ grows at least like $T^{1-\alpha}$ and the linear regret like $T^{(1-\alpha)/2}$, for every $\alpha<1$, as [Theorem (No lower bound on rewards)](#thm-full-information-explicit) allows: no phase transition.
#
# **Proof.**
# Round 1 rewards arm 0 and moves the learner to $e_0$ with $S=1$.
# From then on the game consists of cycles.
# A cycle is a probe, which raises $S$ by 1 to some $S_p\ge2$ and moves the learner to $x_1=\frac1{2\sqrt{S_p}}$, then rounds $s$ with the surrogate reward $(w_s,0)$, $w_s=R_0(s-1)^{-\alpha}$, each of which lowers $x_1$ by $\frac{w_s}{2\sqrt{S_s}}$, until it is zero.
#
# *Length of a cycle.* The cycle ends once $\sum_sw_s/\sqrt{S_s}\ge1/\sqrt{S_p}$.
# Let $A=\sum_sw_s$; as $w_s\le1$, $S_s\le S_p+A$.
# If $A\ge\sqrt2$ then $A^2S_p\ge S_p+A$, because $S_p\ge2$ gives $(A^2-1)S_p-A\ge2A^2-A-2>0$; so the cycle is over when $A$ reaches $\sqrt2$, and then $A\le\sqrt2+1$.
# As $w_s\ge(1+T)^{-\alpha}$, the sum is still below $\sqrt2$ before the last round, so a cycle has at most $\ell=2+\sqrt2(1+T)^\alpha$ rounds, the probe included.
# Rounds 2 to $T$ hold more than $\frac{T-1}\ell-1$ complete cycles; each adds at least 1 to $S$, and round 1 another 1, which proves the first inequality.
#
# *Regret.* Probes happen at $x=e_0$ and cost nothing against $e_0$.
# A round $s$ costs $w_sx_1(s)=2\sqrt{S_s}\,\big(x_1(s)-x_1^+\big)x_1(s)$ if the step is not cut off, and more otherwise; here $x_1^+$ is the next value.
# Since $(a-b)a\ge\frac12(a^2-b^2)$ and $S_s\ge S_p$, a complete cycle costs at least $\sqrt{S_p}\cdot\frac1{4S_p}=\frac1{4\sqrt{S_p}}$.
# During a cycle, and with the next probe, $S$ grows by at most $1+A\le4$.
# So the cost of a cycle is at least $\frac1{16}$ of the growth of $S$ divided by $\sqrt{S_p}$, and thus at least $\frac1{16}\int dS/\sqrt S$ over that growth.
# The integral runs from the first $S_p=2$ to the last probe, after which $S$ grows by at most 3.
# Hence $\mathrm{Reg}_T(e_0)\ge\frac18\big(\sqrt{S_T-3}-\sqrt2\big)\ge\frac18\big(\sqrt{S_T}-\sqrt3-\sqrt2\big)$ if $S_T\ge5$; for smaller $S_T$ the claim is empty, as $\mathrm{Reg}_T(e_0)\ge0$. ∎
#
# In words: an adversary that now and then rewards the abandoned arm keeps the learner moving for ever.
# The theorem is about linear regret.
# The $c_\alpha$-regret of these games is negative, so they do not show that the $c_\alpha$-regret itself has no phase transition without $\delta$; we leave that open.


# %%
def plot_growth(ax, rounds: np.ndarray, growth: dict[float, np.ndarray]):
    r"""$\sqrt{S_T}$ against $T$, logarithmic, one line for each alpha."""
    for alpha, norms in growth.items():
        ax.plot(rounds, np.sqrt(norms), label=f"$\\alpha$ = {alpha}")
    ax.set(xlabel="rounds", ylabel="$\\sqrt{S}$", xscale="log", yscale="log")
    ax.legend()
    return ax


# %%
def _probe_floors(rounds, norms, alpha: float):
    r"""The theorem's floors under $S_T$ and under the linear regret, shapes (C,)."""
    T = np.asarray(rounds, dtype=np.float64)
    return (T - 1) / (2 + 2**0.5 * (1 + T) ** alpha), (np.sqrt(norms) - 4) / 8


def _probe_shares(rounds, norms, regrets, alpha, floors: Callable = _probe_floors):
    """Largest floors over what the probe forces: of the norms, of the regret."""
    allowed = floors(rounds, norms, alpha)
    return [(f / v).max() for f, v in zip(allowed, (norms, regrets))]


# %% [markdown]
# The probe as well is played for $2^{21}$ rounds.
# The cell prints the ratio of each lower bound to the measured value: at $\alpha=0.1$ they are 0.502 of $S$ and 0.255 of the regret, at $\alpha=0.9$ only 0.148 and 0.090.
# At large $\alpha$ the rates below say more than the constants.

# %% tags=["active-ipynb"]
# probed, t = {}, np.arange(1, T[-1] + 1)
# for a in ALPHAS:
#     S, lost = probe_norms(T[-1], a)
#     shares, probed[a] = _probe_shares(t, S, lost, a), S[T - 1]
#     assert max(shares) <= 1
#     of_S, of_regret = shares
#     print(f"alpha {a}: constants of the floors {of_S:.3f} and {of_regret:.3f}")

# %% [markdown]
# The table has growth exponents of $S$ and the exponents that the theorems allow in the limit.
# With rewards of at least 0.9 they are measured over the first and over the last of ten doublings of $T$, under the probe over all ten.
# The first kind falls towards its limit: at $\alpha=\frac12$ from 0.132 to 0.072, like the exponent of $\ln T$ itself.
# The exponent under the probe comes from either side.

# %% tags=["active-ipynb"]
# print("alpha  rewards >= 0.9: first   last  limit  probe: mean  limit")
# for a in ALPHAS:
#     first, *_, last = _local_exponents(T, phase[a])
#     mean = _local_exponents(T, probed[a]).mean()
#     assert abs(mean - (1 - a)) < 0.03
#     left = f"{first:21.3f} {last:7.3f} {max(0, 1 - 2 * a):6.1f}"
#     print(f"{a:5.1f} {left} {mean:12.3f} {1 - a:6.1f}")

# %% tags=["active-ipynb"]
# with figure(2, sharey=True) as axes:
#     for ax, growth in zip(axes, (phase, probed)):
#         plot_growth(ax, T, growth)

# %% [markdown]
# **Figure (fig-full-information-growth).** <a id="fig-full-information-growth"></a> Root of the squared norms, to which the regret bound is proportional, for one context and two arms. Above: Bernoulli rewards raised to at least 0.9; the curves flatten as $\alpha$ passes one half. Below: the probe adversary; every curve keeps growing.

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# most, early = approximation_factor(0.9), 1 + 0.9
# Quiz(
#     "At α = 0.9 the linear regret of a policy is negligible. How much more utility can "
#     "the best map have, by the reduction?",
#     right=f"{most - 1:.0%}",
#     because="That is the factor c, at the best tangent, β = 1 − α.",
#     wrong={
#         f"{early - 1:.0%}": "So says the tangent with β = 1; a better one is proved.",
#         "0%": "Weights of now are not those of the end, which costs the factor.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# S_most = norms_bound(np.array([2.0**40, 2.0**41]), 1, 2, 0.9, 0.5)
# growth = (S_most[1] / S_most[0]) ** 0.5 - 1
# Quiz(
#     "No reward is below 0.5 and α = 0.9. A long game becomes twice as long. How much "
#     "does the bound of the phase transition grow?",
#     right="Not at all." if growth < 1e-2 else f"By {growth:.0%}.",
#     because="Above α = 1/2 the squared norms converge, and the bound with them.",
#     wrong={
#         "By a factor of √2.": "That is right at α = 0, where all weights stay 1.",
#         "By a factor of 2.": "A regret that grows like the rounds would be no bound.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# ann, ben = AlphaFairGradient(2, 0.5), AlphaFairGradient(2, 0.5)
# ann.update("ann", [1, 0])
# same_now = (ann.probabilities("ben") == ben.probabilities("ben")).all()
# ann.update("ben", [1, 0.5]), ben.update("ben", [1, 0.5])
# same_later = (ann.probabilities("ben") == ben.probabilities("ben")).all()
# Quiz(
#     "Ann and Ben are two contexts. A round with Ann was played. What changes for Ben?",
#     right="His next step." if same_now > same_later else "Nothing.",
#     because="Learners share the cumulative rewards, which weigh the rewards to come.",
#     wrong={"Nothing.": "The arms are richer now, and weights are lower for all.",
#            "What is played for him now.": "His learner moves in his own rounds."},
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-full-information-0"></a>
# Write the certificate of a run, the right side of [(eq-full-information-certificate)](#eq-full-information-certificate), from its squared norms $S_j$.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# $\kappa=2-\frac1N$ times the sum of the roots $\sqrt{S_j}$, less $\frac{N\alpha}{1-\alpha}$, times $(1-\alpha)^\alpha$.
#
# </details>

# %% tags=["active-ipynb"]
# def behind_at_most(squared_norms, alpha, n_arms):
#     """Bound on what the best map can be ahead of c times the policy."""
#     # your lines
#
#
# norms = np.array([4.0, 9.0])
# check_answer(behind_at_most, certificate_bound, (norms, 0.5, 3), (norms, 0.9, 2))

# %% [markdown]
# <details><summary>Solution</summary>
#
# The learner of context $j$ has at most $\kappa\sqrt{S_j}$ regret; the rest is the reduction.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def behind_at_most(squared_norms, alpha, n_arms):
#     """Bound on what the best map can be ahead of c times the policy."""
#     regret = (2 - 1 / n_arms) * np.sqrt(squared_norms).sum()
#     return (1 - alpha) ** alpha * (regret - n_arms * alpha / (1 - alpha))
#
#
# calls = [(norms, 0.5, 3), (norms, 0.9, 2), (np.ones(5), 0, 4)]
# assert check_answer(behind_at_most, certificate_bound, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-full-information-1"></a>
# By hand: one arm, reward 1 in every round.
# What does [Lemma (Telescoping)](#lem-full-information-telescoping) say, and what is its slack as $T\to\infty$?
#
# <details><summary>Solution</summary>
#
# $R(t)=1+t$, so it says $\sum_{s=1}^Ts^{-\alpha}+(1+T)^{-\alpha}\le\frac{(1+T)^{1-\alpha}-\alpha}{1-\alpha}$.
# The sum is $\frac{(1+T)^{1-\alpha}}{1-\alpha}+\zeta(\alpha)+o(1)$ with Riemann's zeta function, so the slack tends to $-\frac\alpha{1-\alpha}-\zeta(\alpha)$, which is positive on $(0,1)$ and near $\frac12$.
#
# </details>

# %% tags=["active-ipynb"]
# for a in ALPHAS:
#     policy = AlphaFairGradient(1, a)
#     game = play_game(policy, lambda t, policy: (0, np.ones(1)), 5000, 1)
#     np.testing.assert_allclose(game.cumulative[-1], 5001)
#     limit = -a / (1 - a) - zeta(a)
#     assert 0.4 < limit < 0.5
#     slack = -telescoping_excess(game)[-1, 0]
#     assert abs(slack - limit) < 5001**-a  # what is left is of this order

# %% [markdown]
# **Exercise ★★.** <a id="ex-full-information-2"></a>
# A limit: let $\alpha\to1$.
# $c_\alpha\to1$, but both utilities grow without bound, and [(eq-full-information-reduction)](#eq-full-information-reduction) becomes empty.
# Derive from the same tangent, for $\phi=\ln$, a bound on $\sum_i\ln R^*_i-\sum_i\ln R_i$.
#
# <details><summary>Solution</summary>
#
# The tangent at $R_i$ gives $\ln(\beta R_i^*)\le\ln R_i+\beta R_i^*/R_i-1$.
# As before $\sum_iR_i^*/R_i\le \mathrm{Reg}_T(x^*)+V+\sum_i1/R_i$, and the lemma at $\alpha=1$ reads $V+\sum_i1/R_i\le\sum_i\ln R_i+N$, the same proof with $A_0=1$.
# Call the sum of both right sides $Q=\mathrm{Reg}_T(x^*)+\sum_i\ln R_i+N$.
# Then $\sum_i\ln R_i^*-\sum_i\ln R_i\le\beta Q-N-N\ln\beta$, and the best $\beta=N/Q$ leaves $N\ln(Q/N)$:
# an additive regret of order $N\ln\ln T$ when the linear regret is small.
#
# </details>

# %% tags=["active-ipynb"]
# for name, game in suite((1.0,), SHAPES, 200):
#     N, logs = game.rewards.shape[1], np.log(game.cumulative[1:]).sum(1)
#     x = optimal_map(game, 200)
#     ahead = 1 + np.cumsum(game.rewards * x[game.contexts], axis=0)
#     Q = linear_regret(game, x) + logs + N
#     assert (np.log(ahead).sum(1) - logs <= N * np.log(Q / N) + 1e-12).all()

# %% [markdown]
# **Exercise ★★.** <a id="ex-full-information-3"></a>
# Break an assumption: start from $R_i(0)=c$ with a small $c$, rewards still up to 1.
# Which step of [Lemma (Telescoping)](#lem-full-information-telescoping) fails, and how should rewards be scaled?
#
# <details><summary>Solution</summary>
#
# The increment is at most $(h-1)(\phi'(a)-\phi'(b))$ as before, but $A_0$ is now $\phi'(c)-\phi(c)=c^{-\alpha}-\frac{c^{1-\alpha}}{1-\alpha}$, of the order $c^{-\alpha}$: a large constant in place of a negative one.
# With $c\,\phi'(R)$ in place of $\phi'(R)$, which is what [(eq-full-information-past)](#eq-full-information-past) then asks for, the constant would again be $-\frac\alpha{1-\alpha}c^{1-\alpha}$, but the increment is $(h-c)(\phi'(a)-\phi'(b))$ at best, positive when $h>c$.
# So no reward may exceed the initial one: scale rewards to $[0,c]$.
#
# </details>

# %% tags=["active-ipynb"]
# a, c = 0.5, 0.1
# for largest, holds in ((1.0, False), (c, True)):
#     R = c + largest * np.arange(200)  # one arm, always played, reward `largest`
#     earned = np.concatenate([[0], np.cumsum(largest * R[:-1] ** -a)])
#     left = earned + c * R**-a
#     right = R ** (1 - a) / (1 - a) - c ** (1 - a) * a / (1 - a)
#     assert (left <= right + 1e-12).all() == holds

# %% [markdown]
# **Exercise ★.** <a id="ex-full-information-4"></a>
# Repeat the check of the lemma and of the reduction with weights taken after the round, as the released code does with full information, and with the released step.
# Which statement is lost?
#
# <details><summary>Solution</summary>
#
# The lemma and the reduction hold for any policy, so neither is lost.
# What is lost with the released step is [Theorem (Regret of the adaptive step)](online_gradient.ipynb#thm-online-gradient-regret), and with it every bound of this chapter after the reduction.
#
# </details>

# %% tags=["active-ipynb"]
# options = {"step": "released", "weights": "after"}
# for name, game in suite(ALPHAS, ((2, 3),), 200, **options):
#     assert telescoping_excess(game).max() < 1e-13
#     assert reduction_slack(game, optimal_map(game, 200)).min() > 0

# %% [markdown]
# ## What you can do now
#
# Weighting each reward by the marginal utility that its arm has now turns fair utility into plain regret, at the price of the factor $c_\alpha$: 1.41 at $\alpha=0.5$, never more than 1.4447.
# Beyond the factor, what is missed grows like the root of the utility.
# If all rewards are at least $\delta>0$ and $\alpha>\frac12$, the bound stays constant.
# Without $\delta$ an adversary can make the linear regret, and with it this bound, grow for ever; whether the $c_\alpha$-regret itself then grows is open.
#
# - Play fairly when every reward is seen: `AlphaFairGradient`; its two ingredients are `surrogate_weights` and `approximation_factor`.
# - Bound the $c_\alpha$-regret of a run from its own `squared_norms`: `certificate_bound`.
# - Bound it before the first round: `regret_bound`, `norms_bound`, `utility_ceiling`.
# - Measure a recorded `Game` (`play_game` of `prunefair.fairness.simulation`, the opponents of `prunefair.fairness.adversaries`): `telescoping_excess`, `reduction_slack`, `linear_regret`, `surrogate_gradients`, and by context `context_sums`, `context_norms`, `context_regrets`.
# - Follow games of millions of rounds in compiled code: `prunefair.fairness.fast`, whose `run_fast` gives the results of `simulate`.
# - Draw it: `plot_factor`, `plot_bounds`, `plot_growth`.
#
# Next: [Bandit feedback](bandit_feedback.ipynb) sees only the reward of the arm that it pulled.
