# %% [markdown]
r"""
# Late feedback: what waiting costs, and what a log can tell

A click comes seconds after the page, a purchase days after; most services learn in batches, and some only from a log of another policy.
What does a fair policy lose if it learns late, and can it learn from what another policy did?

Suppose that at most $m$ rounds of a context wait for their rewards at any time.
Then a step that knows $m$ keeps the guarantee of [full information](full_information.ipynb): waiting costs at most a factor of the order of $\sqrt m$ in the regret, and nothing in the factor $c_\alpha$.
And a log of draws whose probabilities were kept tells what *any* fixed map would have earned, without bias.
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
from itertools import product
from typing import NamedTuple

import numpy as np

from prunefair.fairness.full_information import AlphaFairGradient, surrogate_weights
from prunefair.fairness.online_gradient import AdaptiveState, simplex_projection
from prunefair.fairness.policy import check_alpha, check_count
from prunefair.fairness.simulation import RewardStream
from prunefair.messages import shown

# %% tags=["active-ipynb"]
# from prunefair.exercises import Quiz, check_answer
# from prunefair.fairness.bandit_feedback import bernoulli_stream, mean_interval
# from prunefair.fairness.offline_optimum import reward_sums, solve_offline
# from prunefair.fairness.simulation import simulate
# from prunefair.fairness.utility import alpha_fair_utility
# from prunefair.plotting import figure
#
# SEED = 13
# rng = np.random.default_rng(SEED)

# %% [markdown]
# In the picture, a bar is a round from its play to the arrival of its reward.
# Count the bars that cross the dotted line: they are the rounds that wait at that step.
# Below, look at how the weight of an arm lags behind.

# %% tags=["active-ipynb"]
# from prunefair.fairness import late_feedback as package
#
# with figure(2, sharex=True, figsize=(5.6, 4.6)) as axes:
#     package.plot_waiting(axes, [2, 5, 1, 6, 0, 3, 1, 4, 2, 3], 0.5)

# %% [markdown]
# **Figure (fig-late-feedback-waiting).** <a id="fig-late-feedback-waiting"></a> What a late reward does. Above: each round from its play to the arrival of its reward; orange are those that wait at the step with most of them, which is $m$. Below: the weight of an arm that earns 1 in every round falls later than it would without delay, so the arm is taken for poorer than it is.

# %% [markdown]
# ## Notation
#
# | symbol | in code | meaning |
# | --- | --- | --- |
# | $m$ | `waiting` | most rounds of one context that wait while another is learnt from |
# | $k$ | | number of a learning step of one context, in the order in which rewards arrive |
# | $g_k$, $x_k$ | `gradient` | surrogate rewards of step $k$, and what was played in its round |
# | $y_k$ | `point` | point of the learner before step $k$ |
# | $b$ | | bound on every $\lVert g_k\rVert$; $\sqrt N$ here |
# | $\hat S$ | `squared_norms` | $\sum_k\lVert g_k\rVert(\lVert g_k\rVert+2mb)$ |
# | $p_t$ | `probability` | with which arm $I_t$ was drawn by the policy that made the log |
# | $x^*$ | `fixed_map` | map whose value is asked for |
# | $G^*_i$ | | $\sum_tr_i(t)x^*_{j_t,i}$, what arm $i$ would earn under it |
# | $\hat r_i(t)$ | `predicted` | prediction of a reward, from anything but round $t$'s draw |
#
# The rest is as in [full information](full_information.ipynb) and [bandit feedback](bandit_feedback.ipynb).

# %% [markdown]
# ## A step that knows how many rounds wait
#
# Rewards of a context arrive in any order, one round after the other.
# Rounds that wait together have been played at nearly the same point, and each of them will push the learner, perhaps all in one direction.
# If ten rounds wait, eleven steps are taken from one point: that is like one step, eleven times too long.
# So a step has to be shorter, the more rounds wait: step $k$ moves the learner by
#
# $$
# y_{k+1}=\Pi_\Delta\Big(y_k+\frac{g_k}{\sqrt{\hat S_k}}\Big),\qquad\hat S_k=\sum_{l\le k}\lVert g_l\rVert\big(\lVert g_l\rVert+2mb\big),
# $$ (eq-late-feedback-step)
#
# and a round is played at the point of the moment, $x_k=y_{k'}$ with some $k'\le k$.
# With $m=0$ this is the step of [online gradient](online_gradient.ipynb), and the regret is at most $2\sqrt{\sum_k\lVert g_k\rVert^2}$.
# We want the same form of guarantee for the late step, however the rewards are delayed.
#
# **Theorem (The late step).** <a id="thm-late-feedback-step"></a>
# If at every step at most $m$ other rounds have been played whose rewards have not arrived, and $\lVert g_k\rVert\le b$ for all $k$, then for every $u\in\Delta$ and every number $n$ of steps
#
# <a id="eq-late-feedback-regret"></a>
# $$
# \sum_{k\le n}\langle g_k,u-x_k\rangle\ \le\ 2\sqrt{\hat S_n} .
# $$ (eq-late-feedback-regret)
#
# **Proof.**
# Write $\eta_k=\hat S_k^{-1/2}$ and $\langle g_k,u-x_k\rangle=\langle g_k,u-y_k\rangle+\langle g_k,y_k-x_k\rangle$.
#
# *The first part* is the regret of the learner that is never late.
# As in [Theorem (Regret of the adaptive step)](online_gradient.ipynb#thm-online-gradient-regret), a projection does not increase distances, $\lVert y-u\rVert^2\le2$ and $\eta$ does not increase, so it is at most $\frac1{\eta_n}+\frac12\sum_k\eta_k\lVert g_k\rVert^2$.
#
# *The second part.*
# Between the play of $x_k$ and step $k$ the learner has made the steps $l$ of a set $A_k$, each of a length of at most $\eta_l\lVert g_l\rVert$.
# So $\langle g_k,y_k-x_k\rangle\le\lVert g_k\rVert\sum_{l\in A_k}\eta_l\lVert g_l\rVert$.
# Sum over $k$ and count by $l$ instead: $l\in A_k$ says that round $k$ had been played and was waiting at step $l$, and of such $k$ there are at most $m$.
# The second part is at most $\sum_l\eta_l\lVert g_l\rVert\,mb$.
#
# *Together* the sums are $\sum_k\eta_k\lVert g_k\rVert\big(\frac12\lVert g_k\rVert+mb\big)=\frac12\sum_k(\hat S_k-\hat S_{k-1})/\sqrt{\hat S_k}\le\sqrt{\hat S_n}$, and $\frac1{\eta_n}=\sqrt{\hat S_n}$. ∎
#
# In words: four times as many waiting rounds cost at most twice the regret.
# The count by $l$ is the point of the proof: what a step costs depends on the rounds that wait *while it is made*, and their number is known then, though their rewards are not.
# So $m$ need not be known in advance: the proof holds with another number $m_k$ in each term of $\hat S$, as long as no more than $m_k$ rounds wait at step $k$.
# That regret grows like the root of the sum of all delays is known: [Quanrud and Khashabi (2015)](../references.bib#quanrud2015delays) show it for plain gradient steps, and [McMahan and Streeter (2014)](../references.bib#mcmahan2014delay) adapt to the gradients as well.


# %%
def late_step(state: AdaptiveState, gradient, waiting: int) -> AdaptiveState:
    r"""One step that allows for rounds whose rewards have not arrived.

    Parameters
    ----------
    state : AdaptiveState
        Point and $\hat S$ before the step.
    gradient : array_like, shape (N,)
        Surrogate rewards $g_k \in [0, 1]^N$.
    waiting : int
        Most rounds $m$ of the context that wait at a step.

    Returns
    -------
    state : AdaptiveState

    References
    ----------
    Book {eq}`eq-late-feedback-step`.
    """
    g = np.asarray(gradient, dtype=np.float64)
    norm = np.linalg.norm(g)
    S = state.squared_norms + norm * (norm + 2 * waiting * g.size**0.5)
    if not norm:
        return AdaptiveState(state.point, S)
    return AdaptiveState(simplex_projection(state.point + g / np.sqrt(S)), S)


# %% [markdown]
# By hand, with two arms, $m=1$ and $g=(1,0)$: $\hat S=1+2\sqrt2$, so the step has the length $0.511$ instead of 1, and half of it is projected away.

# %% tags=["active-ipynb"]
# first = late_step(AdaptiveState(np.array([0.5, 0.5]), 0.0), [1, 0], 1)
# np.testing.assert_allclose(first.squared_norms, 1 + 8**0.5)
# np.testing.assert_allclose(first.point[0] - 0.5, (1 + 8**0.5) ** -0.5 / 2)
# assert round((1 + 8**0.5) ** -0.5, 3) == 0.511

# %% [markdown]
# ## Late and fair
#
# Which cumulative rewards weigh a reward that comes late?
# Those of the moment at which it arrives: $R$ before its own credit.
# What is credited is $r_i(t)\,x_i(t)$, with the play of the round in which it was earned.
# Nothing of [Theorem (From linear regret to fair utility)](full_information.ipynb#thm-full-information-reduction) is lost.
#
# The next function draws [Figure (fig-late-feedback-waiting)](#fig-late-feedback-waiting), at the head of this chapter.


# %%
def plot_waiting(axes, delays, alpha: float):
    """Rounds from play to arrival, and the weight of an arm that always earns 1."""
    played = np.arange(len(delays))
    arrived = played + np.asarray(delays) + 0.5
    waits = (played < arrived[:, None]) & (arrived > arrived[:, None])
    worst = waits.sum(1).argmax()
    lines = axes[0].hlines(played, played, arrived, colors="C0", lw=4)
    lines.set_colors(["C1" if wait else "C0" for wait in waits[worst]])
    axes[0].axvline(arrived[worst], color="0.3", ls=":")
    words = f" {waits[worst].sum()} wait"
    axes[0].text(arrived[worst], -0.5, words, va="center")
    axes[0].set(ylabel="round $t$", ylim=(played[-1] + 0.8, -1))
    time = np.linspace(0, arrived.max() + 1, 500)
    for label, known in (("at arrival", arrived), ("if at once", played + 0.5)):
        R = 1 + (known <= time[:, None]).sum(1)
        axes[1].plot(time, surrogate_weights(R, alpha), label=label)
    axes[1].set(xlabel="time (rounds)", ylabel=r"weight $R^{-\alpha}$", ylim=(0, 1.05))
    axes[1].legend()
    return axes


# %% [markdown]
# So far the regret is that of one learner, in surrogate rewards $r_iR_i^{-\alpha}$.
# What we want is a bound on utility, for all contexts together; the price of waiting should be read off it.
#
# **Theorem (Late and fair).** <a id="thm-late-feedback-fair"></a>
# Let one learner with the late step play in each context, weights be $R_i^{-\alpha}$ at arrival, and let all rewards have arrived after round $T$.
# If never more than $m$ rounds of a context wait at one of its steps, then for every fixed map
#
# <a id="eq-late-feedback-fair"></a>
# $$
# U^*-c_\alpha U\ \le\ (1-\alpha)^\alpha\Big[2\sum_j\sqrt{\hat S_j}-\frac{N\alpha}{1-\alpha}\Big],
# $$ (eq-late-feedback-fair)
#
# and with $a=N(1+2m\sqrt N)$ the sum is at most $2aM+\sqrt{aMU}$.
#
# **Proof.**
# Number the rounds in the order of arrival.
# In this order $R$ grows as in [Lemma (Telescoping)](full_information.ipynb#lem-full-information-telescoping) with the weights before each credit, and every weight is at least $\phi'(R_i(T))$.
# These are the two facts that the reduction uses, so it holds as it stands, and the linear regret in it is a sum over the same rounds.
# [Theorem (The late step)](#thm-late-feedback-step) bounds it with $b=\sqrt N$, as $g\in[0,1]^N$.
# Further $\lVert g\rVert^2\le\sum_ig_i$ and $\lVert g\rVert\le\sum_ig_i$, so $\hat S_j\le(1+2m\sqrt N)\sum_k\sum_ig_{k,i}\le a\,\max_i\sum_kg_{k,i}\le a\big(V_j+2\sqrt{\hat S_j}\big)$, where $V_j$ is what the learner earned in surrogate rewards.
# Hence $\sqrt{\hat S_j}\le a+\sqrt{a^2+aV_j}\le2a+\sqrt{aV_j}$; sum over $j$ with the inequality of Cauchy and Schwarz and $\sum_jV_j\le U$. ∎
#
# In words: the policy is as fair as without delay, up to the same factor $c_\alpha$; the bound keeps its order $T^{(1-\alpha)/2}$, with $\sqrt m$ in front.
# A batch of $m+1$ rounds that are learnt together is a special case.
# For bandits we have no such theorem: their estimates divide by probabilities, so no bound $b$ on the gradients is known in advance.


# %%
class LateGradient(AlphaFairGradient):
    r"""The coupled policy with the late step, for feedback that may wait.

    Give `update` what was `played`, and what waits now if it may be more than
    `waiting`: a policy sees no play, so it cannot count what is on its way.

    Parameters
    ----------
    n_arms : int or sequence of names
        Number of arms $N$, or their names.
    alpha : float
        Fairness parameter in [0, 1].
    waiting : int
        Most rounds $m$ of a context that wait when another is learnt from, unless
        `update` is told of more.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Book {prf:ref}`thm-late-feedback-fair`.

    Examples
    --------
    >>> from prunefair.fairness.late_feedback import LateGradient
    >>> policy = LateGradient(n_arms=2, alpha=0.5, waiting=1)
    >>> first, second = policy.probabilities(0), policy.probabilities(0)
    >>> policy.update(0, [0, 1], played=second)
    >>> policy.update(0, [1, 0], played=first)
    >>> policy.rewards
    array([1.5, 1.5])
    """

    def __init__(self, n_arms: int | Sequence[Hashable], alpha: float, *, waiting: int):
        super().__init__(n_arms, alpha)
        self.waiting = check_count(waiting, "waiting", least=0)
        self._told = 0  # more that waits at the step to come

    def update(self, context, rewards, *, played=None, waiting: int = 0) -> None:
        """Learn from a round, as other policies with full information do.

        Parameters
        ----------
        context, rewards, played
            As for `AlphaFairGradient`.
        waiting : int
            Other rounds of the context that wait now; where it is more than the
            policy's own `waiting`, this step allows for it.
        """
        waiting = check_count(waiting, "waiting", least=0)
        with self._lock:
            checked = self._checked(context, rewards, played)
            self._told = waiting
            self._learn(*checked)

    def step(self, context, x: np.ndarray, rewards: np.ndarray) -> None:
        gradient = surrogate_weights(self.rewards, self.alpha) * rewards
        allowed, self._told = max(self.waiting, self._told), 0
        self.learners[context] = late_step(self.learner(context), gradient, allowed)


# %%
def late_bound(squared_norms, alpha: float, n_arms: int) -> float:
    r"""Proved bound on $U^* - c_\alpha U$ of a run of `LateGradient`.

    Parameters
    ----------
    squared_norms : array_like, shape (..., M)
        $\hat S_j$ of each context, as the policy's `squared_norms` holds them.
    alpha : float
        Fairness parameter in [0, 1).
    n_arms : int
        Number of arms $N$.

    Returns
    -------
    bound : float, or ndarray of shape (...)
        Utility units.

    Raises
    ------
    ValueError
        If `alpha` is not in [0, 1).

    References
    ----------
    Book {eq}`eq-late-feedback-fair`.
    """
    alpha = check_alpha(alpha, below=1)
    linear = 2 * np.sqrt(squared_norms).sum(-1) - n_arms * alpha / (1 - alpha)
    return (1 - alpha) ** alpha * linear


# %% [markdown]
# For the check rewards arrive in a random order, some at once and some much later; the record is in the order of arrival.


# %%
class LateGame(NamedTuple):
    """Learning steps in the order of arrival, and the most rounds that waited."""

    contexts: np.ndarray
    rounds: np.ndarray
    gradients: np.ndarray
    points: np.ndarray
    waited: int


# %%
def late_game(policy: AlphaFairGradient, stream: RewardStream, delays) -> LateGame:
    """Play `policy` on `stream`, each round learnt so many rounds late.

    Parameters
    ----------
    policy : AlphaFairGradient or LateGradient
        Changed by the game; told what it played.
    stream : RewardStream
    delays : array_like, shape (T,), whole numbers
        Rounds between play and update; what is left at the end is learnt then.

    Returns
    -------
    game : LateGame
    """
    T, contexts = stream.n_rounds, stream.contexts.tolist()
    due = np.minimum(np.arange(T) + np.asarray(delays), T - 1)
    ready = [[] for _ in range(T)]
    for t in range(T):
        ready[due[t]].append(t)
    played, out, steps, waited = {}, dict.fromkeys(contexts, 0), [], 0
    for now, j in enumerate(contexts):
        played[now] = policy.probabilities(j)
        out[j] += 1
        for t in ready[now]:
            k, x, r = contexts[t], played.pop(t), stream.rewards[t]
            out[k] -= 1
            waited = max(waited, out[k])
            g = surrogate_weights(policy.rewards, policy.alpha) * r
            policy.update(k, r, played=x)
            steps.append((k, t, g, x))
    return LateGame(*map(np.array, zip(*steps)), waited)


# %%
def _late_norms(gradients: np.ndarray, waiting: int) -> np.ndarray:
    r"""$\hat S_n$ after every step of one context, shape (n,)."""
    norms = np.linalg.norm(gradients, axis=1)
    return np.cumsum(norms * (norms + 2 * waiting * gradients.shape[1] ** 0.5))


def _late_share(game: LateGame, waiting: int, norms=_late_norms, factor=2.0) -> float:
    r"""Largest linear regret of a learner over `factor` times its $\sqrt{\hat S}$."""
    shares = []
    for j in np.unique(game.contexts):
        g, x = (v[game.contexts == j] for v in (game.gradients, game.points))
        regret = np.cumsum(g, axis=0).max(1) - np.cumsum((g * x).sum(1))
        shares.append((regret / (factor * np.sqrt(norms(g, waiting)).clip(1e-9))).max())
    return max(shares)


# %%
def block_stream(n_rounds: int, length: int) -> RewardStream:
    """Two arms and one context; the arms pay alone in turn, for `length` rounds each.

    Parameters
    ----------
    n_rounds, length : int
        Rounds of the stream and of a block.

    Returns
    -------
    stream : RewardStream
    """
    pays = np.arange(n_rounds) // length % 2
    return RewardStream(
        contexts=np.zeros(n_rounds, int), rewards=np.eye(2)[pays], n_contexts=1
    )


# %% tags=["active-ipynb"]
# for a in (0.0, 0.5, 0.9):
#     for m in (0, 5, 50):
#         random = bernoulli_stream(800, 2, 3, rng=rng)
#         for stream, delays in (
#             (block_stream(800, m + 1), np.full(800, m)),
#             (random, rng.integers(m + 1, size=800)),
#         ):
#             policy = LateGradient(stream.n_arms, a, waiting=m)
#             game = late_game(policy, stream, delays)
#             assert game.waited <= m and _late_share(game, m) <= 1

# %% [markdown]
# And the theorem itself, on one stream with ever longer delays: the $c_\alpha$-regret stays below its bound, and the standard regret is printed.
# The step of [full information](full_information.ipynb) does not know $m$ and has no theorem here; both are told what was played.

# %% tags=["active-ipynb"]
# stream, a = bernoulli_stream(4000, 3, 4, rng=rng), 0.5
# G = reward_sums(stream.contexts, stream.rewards, 3)
# best, sweep = solve_offline(G, a).utility, {}
# for m in (0, 10, 100, 1000):
#     late, plain = policies = LateGradient(4, a, waiting=m), AlphaFairGradient(4, a)
#     for policy in policies:
#         simulate(policy, stream, delay=m)
#     sweep[m] = [best - alpha_fair_utility(p.rewards, a) for p in policies]
#     assert best - 2**0.5 * (best - sweep[m][0]) <= late_bound(late.squared_norms, a, 4)
#     print(f"m = {m:4}: late step {sweep[m][0]:5.2f}, plain step {sweep[m][1]:5.2f}")

# %% [markdown]
# The late step is cautious: it prepares for the worst order, and random rewards do not come in it.
# So here the plain step is better: at a delay of 100 it misses 1.89 utility units, the late step 13.86.
# On blocks in which the arms pay in turn it is the other way round:

# %% tags=["active-ipynb"]
# for m in (10, 100, 1000):
#     stream = block_stream(20 * (m + 1), m + 1)
#     target = solve_offline(stream.rewards.sum(0)[None], a).utility
#     missed = []
#     for policy in (LateGradient(2, a, waiting=m), AlphaFairGradient(2, a)):
#         simulate(policy, stream, delay=m)
#         missed.append(target - alpha_fair_utility(policy.rewards, a))
#     assert missed[0] < missed[1]
#     print(f"blocks of {m + 1}: late step {missed[0]:.2f}, plain step {missed[1]:.2f}")


# %%
def plot_late(ax, sweep: dict, names):
    """Standard regret against the delay, one line for each policy."""
    for values, name, marker in zip(zip(*sweep.values()), names, "osv"):
        ax.plot(list(sweep), values, marker=marker, ms=5, label=name)
    ax.set(xscale="symlog", xlabel="delay $m$ (rounds)")
    ax.set(ylabel="standard regret (utility units)")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_late(ax, sweep, ("late step", "plain step"))

# %% [markdown]
# **Figure (fig-late-feedback-sweep).** <a id="fig-late-feedback-sweep"></a> What waiting costs on random rewards with three contexts and four arms at $\alpha=\frac12$: standard regret after 4000 rounds against the delay.
#
# On the blocks the late step misses 1.23 where the plain one misses 5.25, at a delay of 100.
# Take the late step where the order of rewards may be against you, and the plain one where it is as good as random.
#
# ## What a log can tell
#
# A log holds, for every round, the context, the arm that was drawn, its reward and the probability $p_t$ with which it was drawn.
# What would arm $i$ have earned under a map $x^*$ that never played?
# An arm that was drawn with a small probability stands for many rounds in which it was not:
#
# <div class="alert alert-info">
#
# **What a map would have earned, from a log.**
#
# <a id="eq-late-feedback-estimate"></a>
# $$
# \hat G_i=\sum_tx^*_{j_t,i}\Big[\hat r_i(t)+\frac{\mathbb 1\{I_t=i\}}{p_t}\big(r_i(t)-\hat r_i(t)\big)\Big].
# $$ (eq-late-feedback-estimate)
#
# A draw counts as one over its probability; a prediction has to be corrected only by what it missed.
#
# </div>
#
# With $\hat r=0$ this is inverse propensity weighting, after [Horvitz and Thompson (1952)](../references.bib#horvitz1952sampling); with predictions it is called doubly robust ([Dudík et al. 2011](../references.bib#dudik2011doubly)).
#
# Is the estimate right on average, and how far off is it in one log?
#
# **Theorem (Value from a log).** <a id="thm-late-feedback-log"></a>
# Let rewards and contexts be fixed, arm $i$ be drawn in round $t$ with probability $p_i(t)>0$, independently between rounds, and $\hat r$ not depend on the draws.
# Then
#
# <a id="eq-late-feedback-moments"></a>
# $$
# \begin{gathered}
# \mathbb E\,\hat G_i=G^*_i=\sum_tr_i(t)\,x^*_{j_t,i},\\
# \operatorname{Var}\hat G_i=\sum_t\big(x^*_{j_t,i}\big)^2\big(r_i(t)-\hat r_i(t)\big)^2\Big(\frac1{p_i(t)}-1\Big).
# \end{gathered}
# $$ (eq-late-feedback-moments)
#
# If the reward of a draw is missing with probability $1-s_t$, whatever its value, the same holds with $p_i(t)s_t$ in the place of $p_i(t)$.
# The utility $\sum_i\phi(1+\hat G_i)$ is too low in the mean, as long as it is defined.
#
# **Proof.**
# $\mathbb 1\{I_t=i\}/p_i(t)$ has the mean 1 and the variance $\frac1{p_i(t)}-1$; the rest of round $t$ is a constant, and variances of independent rounds add.
# A draw whose reward is seen is an event of probability $p_i(t)s_t$.
# The last statement is Jensen's inequality. ∎
#
# In words: the estimate is right on average, however bad the predictions are.
# It varies much where the log seldom draws what the map wants, and little where the predictions are good.
#
# If the policy of the log learns, $p(t)$ depends on earlier draws.
# Each round is unbiased given the past, so the mean is right all the same, and the variance is the mean of the right side, as the errors of two rounds are uncorrelated.
#
# Both estimates may lie outside what is possible.
# The *self-normalised* one cannot: with $w_t=\mathbb 1\{I_t=i\}\,x^*_{j_t,i}/p_t$ it is
#
# $$
# \Big(\sum_tx^*_{j_t,i}\Big)\frac{\sum_tw_tr_i(t)}{\sum_tw_t},
# $$ (eq-late-feedback-self)
#
# after [Swaminathan and Joachims (2015)](../references.bib#swaminathan2015selfnormalized): a mean of rewards that were seen, times the pulls that the map would make.
# It is exact if the arm always pays the same, and has a bias that vanishes with the number of draws.


# %%
class RewardLog(NamedTuple):
    """What a policy leaves behind: one entry for each round.

    Parameters
    ----------
    contexts, arms : ndarray, shape (T,), int64
        Contexts $j_t$ and arms drawn $I_t$.
    rewards : ndarray, shape (T,), float64
        Reward of the arm drawn; NaN where it is missing.
    probabilities : ndarray, shape (T,), float64
        With which the arm was drawn and its reward seen.
    """

    contexts: np.ndarray
    arms: np.ndarray
    rewards: np.ndarray
    probabilities: np.ndarray


# %%
def draw_log(
    stream: RewardStream, fixed_map, *, seen: float = 1.0, rng: np.random.Generator
) -> RewardLog:
    """Log of a fixed map that draws its arms on a stream.

    Parameters
    ----------
    stream : RewardStream
    fixed_map : array_like, shape (M, N)
        Distribution over the arms for each context.
    seen : float
        Probability with which the reward of a draw is not missing.
    rng : numpy.random.Generator
        Draws arms and what is missing.

    Returns
    -------
    log : RewardLog
    """
    p = np.asarray(fixed_map)[stream.contexts]  # (T, N)
    u = rng.random((2, stream.n_rounds))
    arms = (u[0][:, None] > np.cumsum(p, axis=1)[:, :-1]).sum(1)
    rounds = np.arange(stream.n_rounds)
    rewards = np.where(u[1] < seen, stream.rewards[rounds, arms], np.nan)
    return RewardLog(stream.contexts, arms, rewards, seen * p[rounds, arms])


# %%
def check_log(log: RewardLog, fixed_map) -> tuple[RewardLog, np.ndarray]:
    """Log and map as arrays, or raise.

    Parameters
    ----------
    log : RewardLog
    fixed_map : array_like, shape (M, N)

    Returns
    -------
    log : RewardLog
    fixed_map : ndarray, shape (M, N), float64

    Raises
    ------
    ValueError
        If the lengths differ, a context or arm is no place in the map, a reward is
        neither NaN nor in [0, 1], a probability is not in (0, 1], or a row of the map
        is no distribution.
    """
    x = np.asarray(fixed_map, np.float64)
    if x.ndim != 2 or not ((x >= 0).all() and (abs(x.sum(1) - 1) < 1e-6).all()):
        raise ValueError(
            f"fixed_map is {shown(fixed_map)}; give a distribution over the arms for "
            "each context"
        )
    places = (("contexts", len(x)), ("arms", x.shape[1]))
    ranges = {name: lambda v, n=n: (v >= 0) & (v < n) for name, n in places}
    ranges["rewards"] = lambda v: np.isnan(v) | (v >= 0) & (v <= 1)
    ranges["probabilities"] = lambda v: (v > 0) & (v <= 1)
    arrays = {name: np.asarray(getattr(log, name)) for name in ranges}
    for name, values in arrays.items():
        whole = values.dtype.kind in ("iu" if name in dict(places) else "fiu")
        if values.shape != (len(arrays["arms"]),) or not whole:
            raise ValueError(
                f"{name} is {shown(values)}; give one number for each round, and for "
                "contexts and arms their places in the map"
            )
        if not (good := ranges[name](values)).all():
            raise ValueError(
                f"{name} holds {shown(values[~good][0].item())}, which is out of range"
            )
    return RewardLog(*arrays.values()), x


# %%
def arm_totals(log: RewardLog, fixed_map, predicted=0.0) -> np.ndarray:
    r"""Unbiased estimate of what each arm would earn under a map, $\hat G_i$.

    Parameters
    ----------
    log : RewardLog
        Of any policy, with the probabilities of its draws.
    fixed_map : array_like, shape (M, N)
        The map $x^*$ that is asked for.
    predicted : array_like, shape (M, N)
        Predicted reward in each context; 0 gives inverse propensity weighting.

    Returns
    -------
    totals : ndarray, shape (N,), float64
        Reward units.

    References
    ----------
    Book {eq}`eq-late-feedback-estimate`.
    """
    log, x = check_log(log, fixed_map)
    predicted = np.broadcast_to(predicted, x.shape)
    rest = log.rewards - predicted[log.contexts, log.arms]
    rest = np.nan_to_num(rest) / log.probabilities  # missing: nothing was seen
    totals = (x * predicted)[log.contexts].sum(0)
    np.add.at(totals, log.arms, x[log.contexts, log.arms] * rest)
    return totals


# %%
def self_normalised_totals(log: RewardLog, fixed_map) -> np.ndarray:
    """Estimate of what each arm would earn under a map that stays in range.

    Parameters
    ----------
    log : RewardLog
        Of any policy, with the probabilities of its draws.
    fixed_map : array_like, shape (M, N)
        The map $x^*$ that is asked for.

    Returns
    -------
    totals : ndarray, shape (N,), float64
        Reward units; NaN for an arm that was never seen and would be pulled.

    References
    ----------
    Book {eq}`eq-late-feedback-self`.
    """
    log, x = check_log(log, fixed_map)
    n, seen = x.shape[1], ~np.isnan(log.rewards)
    w = x[log.contexts, log.arms] / log.probabilities * seen
    paid = np.nan_to_num(w * log.rewards)
    total, earned = (np.bincount(log.arms, weights, n) for weights in (w, paid))
    pulls = x[log.contexts].sum(0)
    mean = np.divide(earned, total, out=np.full(n, np.nan), where=total > 0)
    return np.where(pulls > 0, pulls * mean, 0.0)


# %% [markdown]
# Few rounds have few logs: going through all of them gives mean and variance exactly.
# The check compares them with the theorem.


# %%
def _variances(stream, behaviour, fixed_map, predicted, seen) -> np.ndarray:
    """Variance of every total by the theorem."""
    rest = stream.rewards - np.broadcast_to(predicted, fixed_map.shape)[stream.contexts]
    chance = seen * behaviour[stream.contexts]
    return (fixed_map[stream.contexts] ** 2 * rest**2 * (1 / chance - 1)).sum(0)


def _log_error(
    stream,
    behaviour,
    fixed_map,
    predicted=0.0,
    seen=1.0,
    told=1.0,
    variances=_variances,
) -> float:
    """Largest error of mean and variance over all logs, in units of 1e-9."""
    T, N, j = stream.n_rounds, stream.n_arms, stream.contexts
    chances, found, rounds = [], [], np.arange(stream.n_rounds)
    for arms, visible in product(
        product(range(N), repeat=T), product((0, 1), repeat=T if seen < 1 else 0)
    ):
        arms, kept = np.array(arms), np.array(visible or (1,) * T, bool)
        p = behaviour[j, arms]
        chances.append((p * np.where(kept, seen, 1 - seen)).prod())
        r = np.where(kept, stream.rewards[rounds, arms], np.nan)
        log = RewardLog(j, arms, r, told * seen * p)
        found.append(arm_totals(log, fixed_map, predicted))
    chances, found = np.array(chances)[:, None], np.array(found)
    mean = (chances * found).sum(0)
    spread = (chances * (found - mean) ** 2).sum(0)
    truth = (stream.rewards * fixed_map[j]).sum(0)
    wanted = variances(stream, behaviour, fixed_map, predicted, seen)
    return max(abs(mean - truth).max(), abs(spread - wanted).max()) / 1e-9


# %% tags=["active-ipynb"]
# few = bernoulli_stream(4, 2, 2, rng=rng)
# few = RewardStream(contexts=few.contexts, rewards=rng.random((4, 2)), n_contexts=2)
# log_map, wanted_map, guess = rng.dirichlet(np.ones(2), 6).reshape(3, 2, 2)
# for predicted, seen in product((0.0, guess), (1.0, 0.7)):
#     assert _log_error(few, log_map, wanted_map, predicted, seen) <= 1
# assert _log_error(few, log_map, wanted_map, told=0.9) > 1  # wrong propensities

# %% [markdown]
# ## Three estimates against the truth
#
# A lopsided map leaves a log of 3000 rounds, in which a tenth of the rewards is missing.
# We ask for a map with the same probabilities in reverse order, so it wants most what the log draws least.
# The predictions come from a log of another 3000 rounds: the mean reward of each arm in each context.
# Four hundred logs of the same stream give errors of the totals, relative to the truth, and of the utility.


# %%
def predictions(log: RewardLog, n_contexts: int, n_arms: int) -> np.ndarray:
    """Mean of the rewards seen in each context and arm, 0 where there are none.

    Parameters
    ----------
    log : RewardLog
    n_contexts, n_arms : int
        $M$ and $N$.

    Returns
    -------
    predicted : ndarray, shape (M, N), float64
    """
    seen = ~np.isnan(log.rewards)
    sums, counts = np.zeros((2, n_contexts, n_arms))
    np.add.at(sums, (log.contexts[seen], log.arms[seen]), log.rewards[seen])
    np.add.at(counts, (log.contexts[seen], log.arms[seen]), 1)
    return sums / np.maximum(counts, 1)


# %% tags=["active-ipynb"]
# whole = bernoulli_stream(6000, 3, 4, rng=rng)
# first, second = whole.first(3000), RewardStream(
#     contexts=whole.contexts[3000:], rewards=whole.rewards[3000:], n_contexts=3
# )
# lopsided = np.tile([0.7, 0.2, 0.07, 0.03], (3, 1))
# asked = lopsided[:, ::-1]
# truth = (second.rewards * asked[second.contexts]).sum(0)
# guess = predictions(draw_log(first, lopsided, seen=0.9, rng=rng), 3, 4)

# %% tags=["active-ipynb"]
# found = {"inverse propensity": [], "self-normalised": [], "doubly robust": []}
# for child in rng.spawn(400):
#     log = draw_log(second, lopsided, seen=0.9, rng=child)
#     found["inverse propensity"].append(arm_totals(log, asked))
#     found["self-normalised"].append(self_normalised_totals(log, asked))
#     found["doubly robust"].append(arm_totals(log, asked, guess))
# errors = {name: np.array(totals) / truth - 1 for name, totals in found.items()}
# for name, e in errors.items():
#     print(f"{name:18} bias {e.mean():+.3f}, error {np.sqrt((e**2).mean()):.3f}")

# %% [markdown]
# A log misses the total of an arm by 18 % with inverse propensities alone, and by 17 % with either refinement.
# The two unbiased estimates pass a test of their bias for every arm.
# Better predictions would hardly help: with the mean rewards themselves in their place it is 16 %.
# For a reward is almost 0 or 1, and its mean misses it by much.

# %% tags=["active-ipynb"]
# for name in ("inverse propensity", "doubly robust"):
#     z = errors[name].mean(0) / (errors[name].std(0, ddof=1) / 20)  # 400 logs
#     assert abs(z).max() < 4
# spread = {name: np.sqrt((e**2).mean()) for name, e in errors.items()}
# assert [f"{e:.0%}" for e in spread.values()] == ["18%", "17%", "17%"]
# utility = alpha_fair_utility(1 + truth, 0.5)
# for name, totals in found.items():
#     mean, half = mean_interval(alpha_fair_utility(1 + np.array(totals), 0.5) / utility)
#     print(f"{name:18} utility over truth {mean:.4f} +- {half:.4f}")

# %% tags=["active-ipynb"]
# best_guess = np.array([whole.rewards[whole.contexts == j].mean(0) for j in range(3)])
# totals = []
# for child in np.random.default_rng(SEED).spawn(400):
#     log = draw_log(second, lopsided, seen=0.9, rng=child)
#     totals.append(arm_totals(log, asked, best_guess))
# with_means = np.sqrt(((np.array(totals) / truth - 1) ** 2).mean())
# assert f"{with_means:.0%}" == "16%"
# print(f"doubly robust with the mean rewards: error {with_means:.3f}")


# %%
def plot_estimates(ax, errors: dict):
    """Relative errors of the totals of every arm, one row for each estimate."""
    for row, e in enumerate(errors.values()):
        places = row + np.linspace(-0.3, 0.3, e.shape[1])
        low, first, median, third, high = np.quantile(
            e, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0
        )
        ax.hlines(places, low, high, lw=1, color="C0")
        ax.hlines(places, first, third, lw=7, color="C0")
        ax.plot(median, places, "|", ms=7, color="w")
    ax.axvline(0, lw=0.8, color="0.6")
    ax.set_yticks(range(len(errors)), list(errors))
    ax.set(xlabel="estimate over truth, minus 1", ylim=(len(errors) - 0.5, -0.5))
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_estimates(ax, errors)

# %% [markdown]
# **Figure (fig-late-feedback-estimates).** <a id="fig-late-feedback-estimates"></a> Relative error of three estimates of what four arms would earn under a map that never played, over 400 logs; in each group the arms from the one that the log draws most to the one that it draws least. Thin lines hold nine tenths of the logs, thick ones half.

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# unit = np.tile([1.0, 0.0, 0.0, 0.0], (500, 1))
# grows = (_late_norms(unit, 100)[-1] / _late_norms(unit, 25)[-1]) ** 0.5
# Quiz(
#     "Instead of 25 rounds a hundred wait for their rewards. By which factor does the "
#     "proved regret of the late step grow?",
#     right=f"{grows:.0f}",
#     because="The bound is twice the root of S, and S grows with what waits.",
#     wrong={
#         f"{grows**2:.0f}": "That is the factor of S, and the regret is its root.",
#         "1": "A round that is learnt late has been played at an older point.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# Quiz(
#     "Rewards are random, and a hundred rounds wait. Which step has the smaller regret?",
#     right="the plain one" if sweep[100][1] < sweep[100][0] else "the late one",
#     because=f"It misses {sweep[100][1]:.2f}, the late one {sweep[100][0]:.2f}: "
#     "caution against the worst order is not needed here.",
#     wrong={
#         "the late one": "Its theorem is for the worst order; random rewards do not "
#         "come in it.",
#         "they are equal": "The late step is shorter as soon as anything waits.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# rare = RewardLog(*(np.array([v]) for v in (0, 1, 1.0, 0.03)))
# stands_for = arm_totals(rare, [[0.0, 1.0]])[1]
# Quiz(
#     "A log draws an arm with probability 0.03 and sees a reward of 1. The map that is "
#     "asked for always pulls this arm. How many reward units does the draw count?",
#     right=f"{stands_for:.0f}",
#     because="It stands for the rounds in which the arm was not drawn, too.",
#     wrong={
#         "1": "That would be the log's own earnings, not the map's.",
#         "0.03": "Such a weight makes seldom draws count even less.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-late-feedback-0"></a>
# Write the estimate [(eq-late-feedback-estimate)](#eq-late-feedback-estimate) without predictions, for all arms: what would each earn under the map `x`, shape (M, N)?
# No reward is missing.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# Each round adds to the arm that was drawn only: its reward, times what the map would play, over the probability of the draw.
# `np.bincount(arms, weights, n)` sums weights by arm.
#
# </details>

# %% tags=["active-ipynb"]
# def what_arms_earn(contexts, arms, rewards, probabilities, x):
#     """Estimated total of every arm under the map `x`, shape (N,)."""
#     # your lines
#
#
# def ours(contexts, arms, rewards, probabilities, x):
#     return arm_totals(RewardLog(contexts, arms, rewards, probabilities), x)
#
#
# x = np.array([[0.2, 0.8], [1.0, 0.0]])
# tiny = [0, 1, 0], [1, 0, 0], [1.0, 0.5, 0.25], [0.5, 0.4, 0.5]
# tiny = tuple(map(np.array, tiny))
# check_answer(what_arms_earn, ours, (*tiny, x), (*(v[:1] for v in tiny), x))

# %% [markdown]
# <details><summary>Solution</summary>
#
# By hand for the first round: arm 1 is drawn with probability $\frac12$, pays 1, and the map would play it with 0.8: it adds 1.6 to arm 1 and nothing to arm 0.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def what_arms_earn(contexts, arms, rewards, probabilities, x):
#     """Estimated total of every arm under the map `x`, shape (N,)."""
#     each = x[contexts, arms] * rewards / probabilities
#     return np.bincount(arms, each, x.shape[1])
#
#
# assert check_answer(what_arms_earn, ours, (*tiny, x), (*(v[:1] for v in tiny), x))

# %% [markdown]
# **Exercise ★.** <a id="ex-late-feedback-1"></a>
# By hand: two rounds of one context are both played at $(\frac12,\frac12)$ and pay $(1,0)$ and $(0,1)$; both rewards arrive after the second play.
# What does `LateGradient` credit, and what does an update that is not told?
#
# <details><summary>Solution</summary>
#
# Told, each arm gets $\frac12$.
# Not told, the second update credits what would be played after the first, which has moved towards arm 0: arm 1 gets less than $\frac12$ for a reward of 1 that was played at $\frac12$.
# With the plain step, which the cell takes, play has moved to arm 0 alone, and arm 1 gets nothing.
#
# </details>

# %% tags=["active-ipynb"]
# credited = {}
# for told in (True, False):
#     policy = AlphaFairGradient(2, 0.5)
#     for r in ([1, 0], [0, 1]):
#         policy.update(0, r, **({"played": [0.5, 0.5]} if told else {}))
#     credited[told] = policy.rewards - 1
# np.testing.assert_allclose(credited[True], [0.5, 0.5])
# np.testing.assert_allclose(credited[False], [0.5, 0])

# %% [markdown]
# **Exercise ★★.** <a id="ex-late-feedback-2"></a>
# The limit: everything arrives at the end, $m=T-1$.
# What is the order of the bound, and what does the policy play?
#
# <details><summary>Solution</summary>
#
# It plays uniformly all the time, and learns nothing that it can use.
# $\hat S$ is of the order $m\sqrt N\sum\lVert g\rVert$, with $m\approx T$ and $\sum\lVert g\rVert\approx T^{1-\alpha}$: the bound is of the order $T^{1-\alpha/2}$, more than the utility, as it has to be.
#
# </details>

# %% tags=["active-ipynb"]
# stream = block_stream(600, 600)  # arm 0 alone pays
# policy = LateGradient(2, 0.5, waiting=599)
# game = late_game(policy, stream, np.full(600, 599))
# assert (game.points == 0.5).all() and game.waited == 599
# assert late_bound(policy.squared_norms, 0.5, 2) > alpha_fair_utility([601, 1], 0.5)

# %% [markdown]
# **Exercise ★★.** <a id="ex-late-feedback-3"></a>
# Break an assumption: rewards are missing *because* of their value; a click is reported, the absence of a click often is not.
# In which direction are the estimates wrong?
#
# <details><summary>Solution</summary>
#
# If a reward of 1 is seen always and one of 0 with probability $s<1$, and both are told as seen with probability 1, the inverse propensity estimate is still right, for a missing zero adds nothing.
# The self-normalised one is too large, as it takes its mean over the rewards that were seen.
# Missing at random is an assumption about the world that no log can check.
#
# </details>

# %% tags=["active-ipynb"]
# log = draw_log(second, lopsided, rng=rng)
# log = log._replace(rewards=log.rewards.round())  # 0 or 1
# hidden = (log.rewards == 0) & (rng.random(3000) < 0.5)
# partial = log._replace(rewards=np.where(hidden, np.nan, log.rewards))
# np.testing.assert_array_equal(arm_totals(partial, asked), arm_totals(log, asked))
# more, right = (self_normalised_totals(x, asked).sum() for x in (partial, log))
# assert more > 1.02 * right
# print(f"too large by {100 * (more / right - 1):.0f} %")

# %% [markdown]
# ## What you can do now
#
# Feedback that waits costs a root of how much of it waits: four times as many waiting rounds double the proved regret, and the factor $c_\alpha$ stays.
# The step that is safe for every order pays for it on random rewards, where it misses 13.86 utility units against 1.89, at a delay of 100.
# A log with propensities answers what another map would have earned, without bias.
# For a map that reverses the log's, 3000 rounds gave the arms' totals with errors of 17 or 18 %.
#
# - Learn from late or batched rewards: `LateGradient` by `late_step`, with its certificate `late_bound`; play a stream with any delays by `late_game` (`LateGame`), hard ones from `block_stream`; drawn by `plot_late`.
# - Write a log with what it needs, `RewardLog` by `draw_log`, and ask it: `arm_totals` without bias, with `predictions` for less variance, `self_normalised_totals` within range; drawn by `plot_estimates`.
#
# Next: [Scale](scale.ipynb) spreads the policy over many workers, whose copies of the cumulative rewards are late.
