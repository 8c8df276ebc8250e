# %% [markdown]
r"""
# Beyond one: from Nash welfare to the poorest arm

For $\alpha<1$ a policy can reach $1-\alpha$ of the best map's equivalent reward in the long run, whatever the number of arms ([full information](full_information.ipynb)).
As $\alpha\to1$ this promise fades, and beyond 1 there is nothing left to learn in the worst case: **for every $\alpha>1$ no policy promises more than uniform play**, and the factor is exactly the number of arms.

That is true of the worst case only.
On other streams, uniform play can be beaten while half of its promise is kept.
On real ratings at $\alpha=10$, half of the coupled policy beside half of uniform play gives the 19 genres an equivalent reward of 118; uniform play gives 40.
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

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from prunefair.fairness.fast.compiled import gradient_step
from prunefair.fairness.full_information import AlphaFairGradient, surrogate_weights
from prunefair.fairness.limits import check_lengths, nested_shares
from prunefair.fairness.one_context import FollowTheLeader, leader
from prunefair.fairness.policy import (
    Policy,
    check_alpha,
    check_real,
)
from prunefair.fairness.utility import equivalent_reward

# %% tags=["active-ipynb"]
# from fractions import Fraction
# from functools import partial
# from math import factorial
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.fairness.bandit_feedback import (
#     LogBarrierBandit,
#     ScaleFreeBandit,
#     mean_interval,
#     repeated_runs,
# )
# from prunefair.fairness.fast.compiled import run_fast
# from prunefair.fairness.offline_optimum import reward_sums, solve_offline

# %% tags=["active-ipynb"]
# from prunefair.fairness.ratings import load_ratings, movielens_stream
# from prunefair.fairness.simulation import RewardStream, simulate
# from prunefair.plotting import figure
#
# rng = np.random.default_rng(31)

# %% [markdown]
# In a game that hides which arm dies next, four arms show why only the poorest counts.
# Compare the two dashed lines with the two lowest dots.

# %% tags=["active-ipynb"]
# from prunefair.fairness import beyond_one as package
#
# with figure() as ax:
#     package.plot_poorest(ax, 20.0 ** np.arange(4), 3)

# %% [markdown]
# **Figure (fig-beyond-one-poorest).** <a id="fig-beyond-one-poorest"></a> Four arms whose phases grow by a factor of twenty, at $\alpha=3$. Dots: what each arm earns. Dashed: the equivalent reward of all four, which lies next to the poorest arm however rich the others are. Equal shares leave the first arm a quarter of its phase, and nothing later makes up for it.

# %% [markdown]
# ## Notation
#
# | symbol | in code | meaning |
# | --- | --- | --- |
# | $N$, $T$ | `n_arms`, `n_rounds` | arms, rounds |
# | $R_i$, $R_i^*$ | `R` | rewards of the policy and of the best map, both with $R_i(0)=1$ |
# | $G_i$ | `G` | $\sum_tr_i(t)$, what arm $i$ would have earned alone |
# | $E_\alpha$ | `equivalent_reward` | reward that is as good if all arms have it, from [utility](utility.ipynb) |
# | $\ell_k$, $\rho_k$ | `lengths`, `nested_shares` | lengths of phases and equal shares, from [limits](limits.ipynb) |

# %% [markdown]
# ## What uniform play promises
#
# Before we look for a clever policy: what does one promise that learns nothing?
#
# **Theorem (Uniform play, for every fairness at once).** <a id="thm-beyond-one-uniform"></a>
# On every stream with any contexts, uniform play has $R_i\ge R_i^*/N$ for every arm and every map.
# So for all $\alpha\in[0,\infty]$
#
# <a id="eq-beyond-one-uniform"></a>
# $$
# E_\alpha(R)\ \ge\ \tfrac1N\,E_\alpha(R^*),\qquad\text{and at }\alpha=1\quad U^*-U\le N\ln N .
# $$ (eq-beyond-one-uniform)
#
# **Proof.**
# $R_i=1+\frac{G_i}N\ge\frac{1+G_i}N$, and no map gives the arm more than $1+G_i$.
# $E_\alpha$ does not decrease in any entry, and $E_\alpha(cR)=cE_\alpha(R)$.
# At $\alpha=1$, $U=N\ln E_1$. ∎
#
# In words: uniform play has at least the $N$th part of the best equivalent reward, whoever judges.
# The optimum of the next check comes from the certified solver; in the diagonal stream each context has one arm that pays, and there 0.9997 of the bound is needed.


# %%
def _uniform_share(G, alpha, best, factor=lambda n: n) -> float:
    """Equivalent reward `best` over `factor` times that of uniform play."""
    R = 1 + G.sum(0) / G.shape[1]
    return best / (factor(len(R)) * equivalent_reward(R, alpha))


# %% tags=["active-ipynb"]
# shares = []
# for alpha in (0.5, 1, 2, 4):
#     for G in (1e4 * np.eye(4), 50 * rng.gamma(0.3, size=(3, 4))):
#         best = equivalent_reward(solve_offline(G, alpha).rewards, alpha)
#         shares.append(_uniform_share(G, alpha, best))
# assert 0.99 < max(shares) <= 1
# print(f"constant of the bound that is needed: {max(shares):.4f}")

# %% [markdown]
# ## No policy promises more
#
# Can a policy that learns promise more than that?
# We reuse the game of [limits](limits.ipynb): phase $k$ is a context of its own with $\ell_kT_0$ rounds, all arms that still live pay 1, and after phase $k$ one of them, drawn at random, pays nothing any more.
# With equal shares the arm that dies after phase $k$ gets $\rho_kT_0$, where $\rho_k=\sum_{s\le k}\frac{\ell_s}{N-s+1}$.
#
# **Theorem (No policy beats uniform play by much).** <a id="thm-beyond-one-floor"></a>
# Let $\alpha\ge1$ and $\ell_k=L^{k-1}$ with $L>1$.
# The mean utility of every policy is at most $U_\alpha(1+\rho T_0)$, and the best map has at least $U_\alpha(1+\ell T_0)$.
# As $T_0\to\infty$ the ratio of the two equivalent rewards tends to
#
# <a id="eq-beyond-one-floor"></a>
# $$
# \frac{E_\alpha(\ell)}{E_\alpha(\rho)}\ \ge\
# \begin{cases}
# N\big[1+(N-1)L^{1-\alpha}\big]^{-1/(\alpha-1)}&(\alpha>1),\\
# (N!)^{1/N}\big(1-\frac1L\big)&(\alpha=1).
# \end{cases}
# $$ (eq-beyond-one-floor)
#
# So no factor below $N$ can be promised for $\alpha>1$, and none below $(N!)^{1/N}\ge N/e$ for $\alpha=1$.
#
# **Proof.**
# The map that plays in phase $k$ the arm that dies after it gives $1+\ell_kT_0$ to this arm.
# Before phase $s$ ends, the $N-s+1$ arms alive look alike, so each that dies in phase $k\ge s$ gets in the mean at most the share $\frac1{N-s+1}$ of phase $s$.
# Its mean reward is at most $1+\rho_kT_0$, and $\phi$ is concave and increasing: Jensen.
# The limit is homogeneity and continuity of $E_\alpha$.
# For $\alpha>1$ and $b=\alpha-1$, $E_\alpha(\ell)=N^{1/b}(\sum_k\ell_k^{-b})^{-1/b}\ge N^{1/b}[1+(N-1)L^{-b}]^{-1/b}$, since $\ell_1=1$ and all others are at least $L$; and $E_\alpha(\rho)\le N^{1/b}\rho_1=N^{1/b}/N$ by [(eq-utility-maxmin)](utility.ipynb#eq-utility-maxmin).
# For $\alpha=1$, $\rho_k\le\frac{\ell_k}{N-k+1}\sum_{m\ge0}L^{-m}=\frac{\ell_k}{N-k+1}\,\frac L{L-1}$; multiply over $k$.
# Finally $N!\ge(N/e)^N$, a term of the series of $e^N$. ∎
#
# In words: whom the first phase leaves poor is not known before it is over, and for $\alpha>1$ nothing that others get later makes up for it.
# At $\alpha=1$, uniform play misses at most $N\ln N$ units of utility and some stream takes nearly $\ln N!$ from every policy; the two differ by at most $N$.


# %%
def price_of_order(lengths, alpha: float) -> float:
    r"""Factor that the hidden order takes from every policy, $E(\ell) / E(\rho)$.

    Parameters
    ----------
    lengths : array_like, shape (N,)
        Length of each phase, positive; rounds or relative.
    alpha : float
        Fairness parameter, at least 1 and finite; no unit.

    Returns
    -------
    factor : float
        Ratio of equivalent rewards in the long run, from 1 to $N$; no unit.

    Raises
    ------
    ValueError
        If `alpha` is no number or negative, or `lengths` is no vector of lengths.

    References
    ----------
    Book {eq}`eq-beyond-one-floor`.
    """
    lengths, alpha = check_lengths(lengths), check_alpha(alpha)
    shares = nested_shares(lengths)
    return equivalent_reward(lengths, alpha) / equivalent_reward(shares, alpha)


# %% [markdown]
# The next function draws [Figure (fig-beyond-one-poorest)](#fig-beyond-one-poorest), at the head of this chapter.


# %%
def plot_poorest(ax, lengths, alpha: float):
    """Rewards of the arms in a game with a hidden order, and what they are worth."""
    arms = np.arange(1, len(lengths) + 1)
    rewards = {"best map": lengths, "equal shares": nested_shares(lengths)}
    for (name, values), mark in zip(rewards.items(), "os"):
        (dots,) = ax.plot(arms, values, ls="", marker=mark, label=name)
        worth = equivalent_reward(values, alpha)
        ax.axhline(worth, color=dots.get_color(), ls="--", lw=1.5)
        words = {"ha": "right", "va": "bottom"}
        ax.text(arms[-1] + 0.45, worth, f"worth {worth:.2f}", **words)
    ax.set(yscale="log", xticks=arms, xlim=(0.5, arms[-1] + 0.5))
    ax.set(xlabel="arm, in the order of death", ylabel="reward (first phase is 1)")
    ax.legend(loc="upper left")
    return ax


# %% tags=["active-ipynb"]
# for n in (2, 3, 5):
#     for alpha in (1, 2, 5):
#         factor, b = price_of_order(100.0 ** np.arange(n), alpha), alpha - 1
#         if alpha == 1:
#             floor = factorial(n) ** (1 / n) * (1 - 1 / 100)
#         else:
#             floor = n * (1 + (n - 1) * 100.0**-b) ** (-1 / b)
#         assert floor - 1e-9 <= factor <= n + 1e-9
#         print(f"{n} arms, alpha {alpha}: {factor:.4f}")

# %% [markdown]
# ## One context, Nash welfare
#
# With one context the worst case is milder at $\alpha=1$.
#
# **Theorem (Nash welfare in one context).** <a id="thm-beyond-one-nash"></a>
# With one context and $\alpha=1$, uniform play has $U^*-U\le N/e$ on every stream, for every $T$.
#
# **Proof.**
# With $w_i=\frac1{1+G_i/N}$ the quotient $\frac{1+G_ix_i}{1+G_i/N}=w_i+(1-w_i)Nx_i$ is at most $\max\{1,Nx_i\}$.
# Let $k$ arms have $Nx_i>1$.
# The sum of their logarithms is at most $k\ln\frac Nk$ by Jensen, and this is largest at $k=N/e$, where it is $N/e$. ∎
#
# In words: at $\alpha=1$ and without contexts, who learns nothing misses at most $1/e$ utility units for each arm, however long the game.
# For three arms, of which one alone pays, the regret tends to $\ln3=1.0986$, and the bound is $1.1036$.


# %%
def _nash_share(G, best, bound=lambda n: n / np.e) -> float:
    """Regret of uniform play at alpha = 1 in one context, over `bound`."""
    return (best - np.log(1 + G / len(G)).sum()) / bound(len(G))


# %% tags=["active-ipynb"]
# rows = [np.array([1e9, 0, 0]), *(10 ** rng.uniform(-1, 6, (9, 5)))]
# shares = [_nash_share(G, solve_offline(G[None], 1.0).utility) for G in rows]
# assert 0.99 < max(shares) <= 1
# assert [round(float(v), 4) for v in (np.log(3), 3 / np.e)] == [1.0986, 1.1036]
# print(f"constant of the bound that is needed: {max(shares):.4f}")

# %% [markdown]
# ## Better than uniform play, and half as safe
#
# For $\alpha>1$ the leader of [one context](one_context.ipynb), $\lambda_i\propto H_i^{(1-\alpha)/\alpha}$, prefers the arms that pay little.
# Alone it promises nothing there, and neither does any other policy of this book.
# But half of a policy can be had beside half of uniform play, if it keeps **books of its own**: it learns from the rewards of all arms as if it played alone.
#
# **Theorem (Half of a policy).** <a id="thm-beyond-one-half"></a>
# Let a policy that keeps books of its own play $\pi(t)$, and play $x(t)=\frac12\pi(t)+\frac1{2N}$.
# On every stream with any contexts, and for every $\alpha'\in[0,\infty]$, whatever $\alpha$ the policy was made for,
#
# <a id="eq-beyond-one-half"></a>
# $$
# E_{\alpha'}(R)\ \ge\ \tfrac12E_{\alpha'}(R^{\pi})+\tfrac12E_{\alpha'}(R^{\text{uniform}})\ \ge\ \tfrac1{2N}E_{\alpha'}(R^*) .
# $$ (eq-beyond-one-half)
#
# **Proof.**
# What the policy plays depends on the rewards of all arms and not on the mixture, so $R=\frac12R^\pi+\frac12R^{\text{uniform}}$ after every round.
# A power mean whose exponent is at most 1 is concave; the second inequality is [Theorem (Uniform play, for every fairness at once)](#thm-beyond-one-uniform). ∎
#
# In words: the mixture has at least the mean of what both halves have alone, and at least half of what uniform play promises.
# So it beats uniform play at least where the policy alone does.
# With one context the leader is the policy to take.


# %%
def check_made_for(alpha: float) -> float:
    """Return `alpha` as a float, or raise if it is not positive and finite."""
    return check_real(
        alpha, "alpha", lambda a: 0 < a < np.inf, "be positive and finite"
    )


# %%
class HalfLeader(FollowTheLeader):
    r"""Half the leader of all contexts together, half uniform play.

    Parameters
    ----------
    n_arms : int or sequence of names
        Number of arms $N$, or their names.
    alpha : float
        Fairness parameter that the leader is made for, positive and finite.

    Raises
    ------
    ValueError
        If `n_arms` or `alpha` is out of range.

    References
    ----------
    Book {prf:ref}`thm-beyond-one-half`.

    Examples
    --------
    >>> from prunefair.fairness.beyond_one import HalfLeader
    >>> policy = HalfLeader(n_arms=2, alpha=2)
    >>> policy.update("any", [1, 0])
    >>> policy.probabilities("any").round(3)
    array([0.457, 0.543])
    """

    checked_alpha = staticmethod(check_made_for)

    def play(self, context: Hashable) -> np.ndarray:
        return (super().play(context) + 1 / self.n_arms) / 2


# %% [markdown]
# On a stored stream all rounds at once:


# %%
def half_leader_rewards(rewards, alpha: float) -> np.ndarray:
    r"""Cumulative rewards of `HalfLeader` on a stream, all rounds at once.

    Parameters
    ----------
    rewards : array_like, shape (T, N)
        Rewards of every arm, in [0, 1].
    alpha : float
        Fairness parameter of the leader, positive and finite; no unit.

    Returns
    -------
    R : ndarray, shape (T, N), float64
        $R(1), ..., R(T)$, reward units.

    Raises
    ------
    ValueError
        If `alpha` is not positive and finite.

    References
    ----------
    Book {prf:ref}`thm-beyond-one-half`.
    """
    r = np.asarray(rewards, dtype=np.float64)
    lead = leader(1 + np.cumsum(r, axis=0) - r, check_made_for(alpha))  # (T, N)
    return 1 + np.cumsum(r * (lead + 1 / r.shape[1]) / 2, axis=0)


def _half_share(R, own, even, judge, weights=(0.5, 0.5)) -> float:
    """Weighted equivalent rewards of both halves, over that of the mixture `R`."""
    parts = [equivalent_reward(half, judge) for half in (own, even)]
    return float(np.dot(weights, parts)) / equivalent_reward(R, judge)


# %% [markdown]
# We let two arms pay 1 and $\frac14$ in each of 40 000 rounds.
# The policies of the chapters before refuse $\alpha>1$; here we set it behind their backs, to see why.
# Bandits are played 20 times.

# %% tags=["active-ipynb"]
# T, pays = 40_000, np.array([1, 0.25])
# r = np.tile(pays, (T, 1))
# constant = RewardStream(contexts=np.zeros(T, int), rewards=r, n_contexts=1)
#
# def made_for(alpha, kind, n_arms=2, **options):
#     policy = kind(n_arms, 1.0, **options)
#     policy.alpha = float(alpha)
#     return policy

# %% tags=["active-ipynb"]
# def over_runs(kind, alpha, runs, **options):
#     build = partial(made_for, alpha, kind, **options)
#     play = {"rng": np.random.default_rng(1), "n_points": 1, "play": run_fast}
#     R = repeated_runs(build, constant, runs, **play)[:, -1]  # (runs, N)
#     return equivalent_reward(R, alpha)

# %% tags=["active-ipynb"]
# table = {}
# for alpha in (2, 10):
#     best = np.array(solve_offline(r.sum(0)[None], alpha).rewards)
#     fixed = {"optimum": best, "uniform": 1 + r.sum(0) / 2}
#     fixed["half the leader"] = half_leader_rewards(r, alpha)[-1]
#     table[alpha] = {k: equivalent_reward(R[None], alpha) for k, R in fixed.items()}
#     table[alpha] |= {
#         "coupled gradient": over_runs(AlphaFairGradient, alpha, 1),
#         "scale-free": over_runs(ScaleFreeBandit, alpha, 20),
#         "log-barrier": over_runs(LogBarrierBandit, alpha, 20, horizon=T),
#     }

# %% tags=["active-ipynb"]
# for alpha, found in table.items():
#     print(f"alpha {alpha}:")
#     for name, E in found.items():
#         half = mean_interval(E)[1] if len(E) > 1 else 0  # of a 95 % interval
#         print(f"  {name:16} {E.mean():6.0f}" + f" +- {half:.0f}" * (len(E) > 1))
#     upper = {k: sum(mean_interval(E)) for k, E in found.items() if len(E) > 1}
#     even = found["uniform"][0]
#     assert max(upper.values()) < even < found["half the leader"][0]
# assert table[2]["coupled gradient"] > table[2]["half the leader"]
# assert table[10]["coupled gradient"] < 0.51 * table[10]["uniform"]

# %% [markdown]
# These are equivalent rewards, judged by the $\alpha$ that each policy was made for; bandits with a 95 % interval over 20 runs.
# Both bandits are behind uniform play.
# At $\alpha=10$ the coupled gradient has 2712, half of the 5401 of uniform play, although it sees every reward; at $\alpha=2$ it is ahead of half the leader.
# Only half the leader is ahead of uniform play at both: 8643 against 8001, and 6896 against 5401.
#
# ## Many contexts
#
# The theorem holds for any contexts, but the leader pools them: it follows the best *distribution*, and a map may do far better.
# So with contexts we put the coupled policy into the first half, with books of its own.


# %%
class OwnBooks(NamedTuple):
    """What each arm would have earned if the policy had played alone."""

    earned: np.ndarray


# %%
class HalfGradient(AlphaFairGradient):
    r"""Half the coupled policy with books of its own, half uniform play.

    Parameters
    ----------
    n_arms : int or sequence of names
        Number of arms $N$, or their names.
    alpha : float
        Fairness parameter that the coupled policy is made for, positive and finite.

    Raises
    ------
    ValueError
        If `n_arms` or `alpha` is out of range.

    References
    ----------
    Book {prf:ref}`thm-beyond-one-half`.

    Examples
    --------
    >>> from prunefair.fairness.beyond_one import HalfGradient
    >>> policy = HalfGradient(n_arms=2, alpha=2)
    >>> policy.update("evening", [1, 0])
    >>> policy.probabilities("evening")
    array([0.75, 0.25])
    """

    begun = None  # no warm start

    def __init__(self, n_arms: int | Sequence[Hashable], alpha: float):
        super().__init__(n_arms, min(check_made_for(alpha), 1.0))
        self.alpha, self.shared = float(alpha), OwnBooks(np.ones(self.n_arms))

    def rearranged(self, state, places, rewards):
        if isinstance(state, OwnBooks):
            return Policy.rearranged(self, state, places, rewards)
        return super().rearranged(state, places, rewards)

    def play(self, context: Hashable) -> np.ndarray:
        return (self.learner(context).point + 1 / self.n_arms) / 2

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        books, state = self.shared.earned, self.learner(context)
        g = surrogate_weights(books, self.alpha) * rewards
        own = np.clip(2 * x - 1 / self.n_arms, 0, 1)  # what it played alone
        self.learners[context] = gradient_step(state, g, "squared")
        self.shared = OwnBooks(books + rewards * own)


# %% [markdown]
# That this half is a good one is measured, not proved, for $\alpha>1$: we know of no bound on the coupled policy alone.
# On the ratings of [MovieLens](movielens.ipynb), with 75 people as contexts and 19 genres as arms, it is.

# %% tags=["active-ipynb"]
# ratings = movielens_stream(load_ratings())
# G = reward_sums(ratings.contexts, ratings.rewards, ratings.n_contexts)
# for alpha in (2, 10):
#     found = {"optimum": np.array(solve_offline(G, alpha).rewards)}
#     found["best distribution"] = np.array(solve_offline(G.sum(0)[None], alpha).rewards)
#     found["uniform"] = 1 + G.sum(0) / ratings.n_arms
#     found["HalfLeader"] = half_leader_rewards(ratings.rewards, alpha)[-1]
#     policy = HalfGradient(ratings.n_arms, alpha)
#     found["HalfGradient"] = simulate(policy, ratings, n_points=1).rewards[-1]
#     own = policy.shared.earned
#     assert _half_share(policy.rewards, own, found["uniform"], alpha) <= 1
#     table[alpha] = {k: equivalent_reward(R, alpha) for k, R in found.items()}

# %% tags=["active-ipynb"]
# for alpha in (2, 10):
#     print(f"alpha {alpha}:")
#     print(*(f"  {name:18} {E:4.0f}\n" for name, E in table[alpha].items()), sep="")
#     even = table[alpha]["uniform"]
#     assert even < table[alpha]["HalfLeader"] < table[alpha]["HalfGradient"]
#     assert table[alpha]["HalfGradient"] > (1.6, 2.7)[alpha == 10] * even
# assert [round(table[10][k]) for k in ("HalfGradient", "uniform")] == [118, 40]

# %% [markdown]
# Both mixtures are ahead of uniform play: at $\alpha=10$ half the leader has 78 and half the coupled policy 118, against 40.
# The optimum has 305.
# This is one stream, played once without randomness; in the worst case nobody is ahead.
#
# ## One policy, every judge
#
# The next figure judges policies that were made for one $\alpha$ at all others.


# %%
def plot_judged(ax, rewards, trained, judged):
    """Share of the best equivalent reward of policies for one alpha, at all alphas."""
    G = np.sum(rewards, axis=0)

    def best(alpha):  # without the initial rewards
        return equivalent_reward(G * leader(G, alpha), alpha)

    curves = {f"half the leader, {a}": half_leader_rewards(rewards, a) for a in trained}
    curves["uniform"] = 1 + np.cumsum(rewards, axis=0) / len(G)
    for name, R in curves.items():
        shares = [equivalent_reward(R[-1], a) / best(a) for a in judged]
        ax.plot(judged, shares, label=name)
    ax.set(xlabel="fairness parameter of the judge", ylabel="share of the optimum")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_judged(ax, r, (0.5, 2, 10), np.linspace(0.05, 12, 100))

# %% [markdown]
# **Figure (fig-beyond-one-judged).** <a id="fig-beyond-one-judged"></a> One policy, judged at every $\alpha$, where two arms pay 1 and $\frac14$: made for a large $\alpha$, half the leader is ahead of uniform play at large $\alpha$ and behind at small.
#
# ## Fair to arms, or fair to rounds
#
# "Nash regret" is also the name of another notion ([Barman et al. 2023](../references.bib#barman2023nash)): there the geometric mean is taken over the *rounds*, of the expected reward that each round's user gets.
# [Krishna et al. (2025)](../references.bib#krishna2025pmean) take the power mean of any exponent $p\le1$ in its place; $p=1-\alpha$.
# The two can disagree.
# Let arms pay 1 and $\frac14$ in each of $T$ rounds.
# Always the first arm: every round gets 1, and the arms have $1+T$ and 1.
# Uniform play: every round gets $\frac58$, and the arms have $1+\frac T2$ and $1+\frac T8$.
# Over rounds the first policy is better, 1 against $\frac58$.
# Over arms the second is better as soon as $(1+\frac T2)(1+\frac T8)>1+T$, that is for $T>6$.
# The first fairness is owed to those who come, one a round; the second to those who are shown.

# %% tags=["active-ipynb"]
# for n_rounds in (5, 6, 7, 100):
#     arms = (1 + Fraction(n_rounds, 2)) * (1 + Fraction(n_rounds, 8))  # squared mean
#     assert (arms > 1 + n_rounds) == (n_rounds > 6)
# print("over rounds 1 against 5/8; over arms, 100 rounds,", 1 + 100, "against", arms)

# %% [markdown]
# ### What others call fair over time
#
# We read the abstracts and openings of these works, not their proofs.
#
# - *A round or the horizon.* [Si Salem et al. (2023)](../references.bib#sisalem2023longterm) tell apart fairness in each time slot from fairness of what was earned over the horizon, as here.
#   They show that against an unrestricted adversary regret for the horizon cannot vanish, and give a policy for adversaries that are restricted.
# - *Welfare of a round.* In [Zhang et al. (2024)](../references.bib#zhang2024nash) an arm pays each of several agents, and the Nash welfare of the agents is taken in every round and then added up.
#   No algorithm has sublinear regret for it with adversarial rewards and bandit feedback; with full information $\sqrt T$ is possible.
#   A sum over rounds has no memory of who is poor, so neither result is one on our objective.
# - *One allocation for all.* [Barman et al. (2022)](../references.bib#barman2022universal) divide goods that come one by one among $n$ agents, and one allocation is within $O(\sqrt n\log n)$ of the best for every $p\le1$ at once.
#   It needs that each agent's value for all goods together is scaled beforehand.
#   In the game of the hidden order the sums $G_i$ differ and nobody knows them; without that scale the factor of one policy for all is $N$, by the first two theorems of this page.

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# rungs = 1000.0 ** np.arange(5)  # lengths of the phases
# promise = 1 / price_of_order(rungs, alpha=5)
# Quiz(
#     "Five arms, several contexts, α = 5. Which part of the best equivalent reward can "
#     "the cleverest policy promise on every stream?",
#     right=f"{promise:.0%}",
#     because="One over the number of arms, which uniform play promises as well.",
#     wrong={
#         "80%": "The promise 1 − α of full information is for α < 1 only.",
#         "0%": "Uniform play gives every arm a fifth of what it could have.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# uneven = equivalent_reward([1.0, 1000.0], 10)
# Quiz(
#     "Two arms have 1 and 1000 reward units. Which reward for both is as good, at "
#     "α = 10?",
#     right=f"{uneven:.2f}",
#     because="Nearly that of the poorest arm; the other one hardly counts.",
#     wrong={
#         "500.50": "That is the mean, right at α = 0.",
#         f"{1000**0.5:.2f}": "That is the geometric mean, right at α = 1.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# alone, evenly = np.array([400.0, 200.0]), np.array([10.0, 70.0])
# mixed = equivalent_reward((alone + evenly) / 2, np.inf)
# floor = (alone.min() + evenly.min()) / 2
# Quiz(
#     "A policy alone would leave its poorest arm 200, uniform play its own 10. They are "
#     "mixed half and half. What is the poorest arm left at least?",
#     right=f"{floor:.0f}",
#     because=f"The mean of both; more if the poorest differ, as {mixed:.0f} here.",
#     wrong={"10": "The mixture also earns half of what the policy would.",
#            "200": "Half of the rounds go to uniform play."},
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-beyond-one-0"></a>
# Write the factor that a game with a hidden order takes from every policy, $E_\alpha(\ell)/E_\alpha(\rho)$.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# $\rho_k$ is the running sum of $\ell_s/(N-s+1)$: in phase $s$ there are $N-s+1$ arms alive. `equivalent_reward` computes $E_\alpha$.
#
# </details>

# %% tags=["active-ipynb"]
# def taken_by_the_order(lengths, alpha):
#     """Equivalent reward of the best map over that of equal shares."""
#     # your lines
#
#
# calls = [(np.array([1.0, 20, 400]), 2), (np.array([1.0, 100]), 1)]
# check_answer(taken_by_the_order, price_of_order, *calls)

# %% [markdown]
# <details><summary>Solution</summary>
#
# The best map gives arm $k$ the whole of its last phase, $\ell_k$; nobody who does not know the order can give it more than $\rho_k$ in the mean.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def taken_by_the_order(lengths, alpha):
#     """Equivalent reward of the best map over that of equal shares."""
#     equal = np.cumsum(lengths / np.arange(len(lengths), 0, -1))
#     return equivalent_reward(lengths, alpha) / equivalent_reward(equal, alpha)
#
#
# assert check_answer(taken_by_the_order, price_of_order, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-beyond-one-1"></a>
# What do both theorems of the worst case say at $\alpha=\infty$?
#
# <details><summary>Solution</summary>
#
# The mean of a minimum is at most the least of the means, $1+\rho_1T_0=1+\frac{T_0}N$, and the optimum is $1+T_0$ already with phases of one length.
# So the factor is $N$, and uniform play has it.
#
# </details>

# %% tags=["active-ipynb"]
# assert nested_shares(np.ones(4)).min() == 1 / 4

# %% [markdown]
# **Exercise ★★.** <a id="ex-beyond-one-2"></a>
# Another share: play $w\pi(t)+\frac{1-w}N$ with some $w$ from 0 to 1 in the place of $\frac12$.
# What does [Theorem (Half of a policy)](#thm-beyond-one-half) become?
# And what would other shares have earned on the ratings at $\alpha=10$?
#
# <details><summary>Solution</summary>
#
# The proof stays as it is with $w$ and $1-w$ for the two halves, so $E(R)\ge wE(R^\pi)+(1-w)E(R^{\text{uniform}})\ge\frac{1-w}NE(R^*)$.
# What the policy writes into its books does not depend on $w$, so the run of the text tells all shares.
# On these ratings more of the policy is always better: 80 at $w=\frac14$, 118 at $\frac12$, and 182 for the policy alone, which promises nothing.
# Whether a stream is of this kind is known only when it is over.
# With $w=\frac12$ one has, on every stream, at least half of the better of the two.
#
# </details>

# %% tags=["active-ipynb"]
# even = found["uniform"]  # own and found are those of the ratings at alpha = 10
# worth = {w: equivalent_reward(w * own + (1 - w) * even, 10) for w in (0, 0.25, 0.5, 1)}
# np.testing.assert_allclose(worth[0.5], table[10]["HalfGradient"])
# assert 2 * worth[0.5] >= max(worth[0], worth[1])
# print(*(f"w = {w}: {E:.0f}" for w, E in worth.items()), sep=", ")

# %% [markdown]
# **Exercise ★★.** <a id="ex-beyond-one-3"></a>
# Break the assumption: let the coupled policy learn from what the mixture has earned, without books of its own.
# Which line of the proof of [Theorem (Half of a policy)](#thm-beyond-one-half) fails, and what is still promised?
#
# <details><summary>Solution</summary>
#
# What the policy plays now depends on the mixture, so $R$ is no longer the mean of what both halves have alone, and the first inequality is lost.
# The uniform half still pays every arm: $R_i\ge1+\frac{G_i}{2N}\ge\frac12R_i^{\text{uniform}}$, so $E(R)\ge\frac1{2N}E(R^*)$ stays.
# On the first 2000 ratings it is even a little better without books, 3.76 against 3.67: the weights are those of what the arms really have.
# Books are there for the proof that one keeps half of the policy.
#
# </details>

# %% tags=["active-ipynb"]
# class OneBook(AlphaFairGradient):
#     def play(self, context):
#         return (super().play(context) + 1 / self.n_arms) / 2
#
# few, ends = ratings.first(2000), {}
# for kind in (AlphaFairGradient, OneBook):
#     policy = made_for(10, kind, few.n_arms)
#     ends[kind] = simulate(policy, few, n_points=1).rewards[-1]
# even = 1 + few.rewards.sum(0) / few.n_arms
# assert (ends[OneBook] >= even / 2).all()
# ends["mean of both"] = (ends[AlphaFairGradient] + even) / 2
# shown = [equivalent_reward(ends[key], 10) for key in (OneBook, "mean of both")]
# print("without books {:.2f}, with books {:.2f}".format(*shown))

# %% [markdown]
# ## What you can do now
#
# For $\alpha>1$ no policy promises more than uniform play, one part in $N$ of the best equivalent reward, because nobody knows in time which arm will stay poor.
# Half of a policy beside half of uniform play keeps half of that promise and can be far better: on the ratings at $\alpha=10$ it has 118 and uniform play 40.
#
# - Know what can be promised beyond one: `price_of_order` gives the factor that a game takes from every policy, up to the number of arms.
# - Beat uniform play without losing more than half of its promise: `HalfLeader` where contexts say nothing, `HalfGradient` where they do.
#   `make_policy` calls them `half_leader` and `half_gradient`; `check_made_for` says which $\alpha$ they take, and `OwnBooks` is what the second keeps.
# - Try the first on a stored stream: `half_leader_rewards`, drawn by `plot_judged`.
#
# Next: [Slates](slates.ipynb) chooses several arms at once.
