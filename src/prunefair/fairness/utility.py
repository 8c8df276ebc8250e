# %% [markdown]
r"""
# Utility: what is a fair total?

One hour is shared by three arms that earn 1, 1/2 and 1/10 reward units an hour.
The total is largest if the first arm gets the whole hour, and then two arms have nothing.
**How much of the total must we give up so that every arm gets its share?**
*Proportional* fairness gives each arm a third of the hour, and the total is 47 % smaller than it could be.

This chapter defines the objective of everything in Part II.
It is a family of utilities with one parameter, $\alpha$, that runs from the plain total to the smallest entry ([Mo and Walrand 2000](../references.bib#mo2000fair)).
An allocation that maximises it is called $\alpha$-fair.
It also derives the concave conjugate of these utilities, from which [the offline optimum](offline_optimum.ipynb) gets its certificate.
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

import numpy as np

from prunefair.fairness.policy import check_alpha

# %% tags=["active-ipynb"]
# import cvxpy as cp
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.playing import playable
# from prunefair.plotting import figure
#
# SEED = 20231
# rng = np.random.default_rng(SEED)
# hourly = np.array([1.0, 0.5, 0.1])  # reward units an hour
# price = 1 - hourly.mean() / hourly.max()
# print(f"price of proportional fairness: {price:.3f}")
# assert round(price, 2) == 0.47

# %% [markdown]
# The picture shows three ways to share the hour, and what each leaves of the total.
# Look at arm 2: the more of the hour it gets, the less all earn together.


# %%
def plot_shared_hour(axes, w, shares: dict):
    """How the hour is shared, and what each arm earns in its part."""
    for ax, unit in zip(axes, (np.ones_like(w), w)):
        for y, share in enumerate(shares.values()):
            ends = np.cumsum(share * unit)
            for i, (end, width) in enumerate(zip(ends, share * unit)):
                bar = ax.barh(y, width, left=end - width, color=f"C{i}", ec="white")
                if width > 0.3:  # there is room for a name
                    ax.bar_label(bar, [f"arm {i}"], label_type="center", c="white")
        ax.set_yticks(range(len(shares)), list(shares))
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    axes[0].set(xlabel="share of the hour")
    axes[1].set(xlabel="reward units")
    return axes


# %% tags=["active-ipynb"]
# shared = {
#     "largest total": 1.0 * (hourly == hourly.max()),
#     "proportional": np.full(3, 1 / 3),
#     "largest minimum": 1 / hourly / (1 / hourly).sum(),
# }
# with figure(2, n_columns=2, sharey=True, figsize=(5.6, 2.3)) as axes:
#     plot_shared_hour(axes, hourly, shared)

# %% [markdown]
# **Figure (fig-utility-hour).** <a id="fig-utility-hour"></a> One hour, three ideas of a fair share: what each arm gets of the time, and what it earns in it. The largest total starves two arms; equal time gives up almost half of it; equal rewards give up most of it.

# %% [markdown]
# ## Notation
#
# | symbol | Python | meaning |
# |---|---|---|
# | $N$ | `n_arms` | number of arms |
# | $R \in [0, \infty)^N$ | `R` | cumulative reward of each arm, reward units |
# | $\alpha \in [0, \infty]$ | `alpha` | fairness parameter, no unit |
# | $\phi_\alpha(u)$ | `arm_utility` | utility of one arm |
# | $U_\alpha(R)$ | `alpha_fair_utility` | utility of an allocation |
# | $p \in \mathbb R^N$ | `p` | prices: utility units that a reward unit is worth |
# | $\phi_{\alpha*}(p)$ | `concave_conjugate` | concave conjugate of $\phi_\alpha$ |
#
# Arms count from 0 in the code, as everywhere in this book.

# %% [markdown]
# ## One family from the sum to the minimum
#
# For a finite $\alpha \ge 0$ and $u > 0$ we set
#
# <div class="alert alert-info">
#
# **The objective of Part II.**
#
# <a id="eq-utility-phi"></a>
# $$
# \phi_\alpha(u) = \frac{u^{1-\alpha}}{1-\alpha} \quad (\alpha \ne 1), \qquad \phi_1(u) = \ln u,
# $$ (eq-utility-phi)
#
# $$
# U_\alpha(R) = \sum_{i} \phi_\alpha(R_i), \qquad U_\infty(R) = \min_i R_i .
# $$ (eq-utility-sum)
#
# </div>
#
# At $u = 0$ we take the limit, so $\phi_\alpha(0) = 0$ for $\alpha < 1$ and $-\infty$ for $\alpha \ge 1$.
# The derivative has the same form on both sides of $\alpha = 1$:
#
# $$
# \phi_\alpha'(u) = u^{-\alpha}, \qquad \phi_\alpha''(u) = -\alpha u^{-\alpha - 1} .
# $$ (eq-utility-gradient)
#
# So $\phi_\alpha$ is increasing and concave, strictly concave for $\alpha > 0$.
# A reward unit is worth $R_i^{-\alpha}$ to an arm that already has $R_i$: the poorer the arm, the more it is worth, and $\alpha$ says how much more.
# These weights are what a fair bandit policy learns from ([full information](full_information.ipynb)).


# %%
def check_nonnegative(values, name: str) -> np.ndarray:
    """Return `values` as float64 with at least one axis, or raise."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(
            f"{name} has shape {array.shape}; its last axis must hold the arms"
        )
    if not (array >= 0).all():  # false for NaN as well
        raise ValueError(f"{name} is {values!r}; no entry may be negative or NaN")
    return array


# %%
def arm_utility(u, alpha: float) -> np.ndarray:
    r"""Utility of one arm, $\phi_\alpha(u)$, elementwise.

    Parameters
    ----------
    u : array_like, any shape
        Rewards, reward units; no entry negative.
    alpha : float
        Fairness parameter, finite; no unit.

    Returns
    -------
    utility : ndarray, float64, the shape of `u`
        $u^{1-\alpha} / (1 - \alpha)$, or $\ln u$ at `alpha = 1`; $-\infty$ at $u = 0$
        if `alpha >= 1`.

    Raises
    ------
    ValueError
        If `alpha` is negative or not finite, or `u` has a negative or NaN entry.

    References
    ----------
    Book {eq}`eq-utility-phi`; the objective of {cite}`chaudhary2023alphafair`.
    """
    alpha = check_alpha(alpha)
    u = check_nonnegative(np.atleast_1d(u), "u").reshape(np.shape(u))
    with np.errstate(divide="ignore"):
        return np.log(u) if alpha == 1 else u ** (1 - alpha) / (1 - alpha)


# %%
def alpha_fair_utility(R, alpha: float) -> float | np.ndarray:
    r"""Utility of an allocation, $U_\alpha(R) = \sum_i \phi_\alpha(R_i)$.

    Parameters
    ----------
    R : array_like, shape (..., N)
        Cumulative reward of each arm, reward units; no entry negative.
    alpha : float
        Fairness parameter; 0 gives the sum, 1 the sum of logarithms, `inf` the minimum.

    Returns
    -------
    utility : float, or ndarray of shape (...) and float64
        Utility of each allocation; $-\infty$ if an arm has nothing and `alpha >= 1`.

    Raises
    ------
    ValueError
        If `alpha` is negative or NaN, or `R` has a negative or NaN entry or no arm.

    References
    ----------
    Book {eq}`eq-utility-sum`; the objective of {cite}`chaudhary2023alphafair`.

    Examples
    --------
    >>> from prunefair.fairness.utility import alpha_fair_utility
    >>> float(alpha_fair_utility([4.0, 1.0], alpha=0.5))
    6.0
    """
    R = check_nonnegative(R, "R")
    total = R.min(-1) if alpha == np.inf else arm_utility(R, alpha).sum(-1)
    return float(total) if R.ndim == 1 else total


# %%
def utility_gradient(R, alpha: float) -> np.ndarray:
    r"""Gradient of the utility, $\phi'_\alpha(R_i) = R_i^{-\alpha}$ for each arm.

    Parameters
    ----------
    R : array_like, shape (..., N)
        Cumulative reward of each arm, reward units; no entry negative.
    alpha : float
        Fairness parameter, finite; no unit.

    Returns
    -------
    gradient : ndarray, shape (..., N), float64
        Utility units a reward unit; infinite where $R_i = 0$ and `alpha > 0`.

    Raises
    ------
    ValueError
        If `alpha` is negative or not finite, or `R` has a negative or NaN entry.

    References
    ----------
    Book {eq}`eq-utility-gradient`.
    """
    alpha = check_alpha(alpha)
    with np.errstate(divide="ignore"):
        return check_nonnegative(R, "R") ** -alpha


# %% [markdown]
# A regret is a difference of two utilities.
# Near $\alpha = 1$ each of them is about $N / |1 - \alpha|$ and their difference is not, so subtracting one from the other loses the digits that matter.
# With $s = 1 - \alpha$ the difference of one arm is
#
# <a id="eq-utility-difference"></a>
# $$
# \phi_\alpha(a) - \phi_\alpha(b) = b^s\, \frac{e^{s \ln (a/b)} - 1}{s}, \qquad \phi_1(a) - \phi_1(b) = \ln \frac ab ,
# $$ (eq-utility-difference)
#
# in which nothing large cancels.


# %%
def utility_difference(R, other, alpha: float) -> float | np.ndarray:
    r"""Difference $U_\alpha(R) - U_\alpha(R')$, to rounding of the difference itself.

    Parameters
    ----------
    R, other : array_like, shapes (..., N) that go together
        Cumulative rewards of two allocations, reward units; positive.
    alpha : float
        Fairness parameter, finite; no unit.

    Returns
    -------
    difference : float, or ndarray of shape (...) and float64
        Utility units.

    Raises
    ------
    ValueError
        If `alpha` is negative or not finite, or an entry is not positive.

    References
    ----------
    Book {eq}`eq-utility-difference`.
    """
    s, R = 1 - check_alpha(alpha), check_nonnegative(R, "R")
    other = check_nonnegative(other, "other")
    if not ((R > 0).all() and (other > 0).all()):
        raise ValueError("R and other must be positive")
    step = (R - other) / other
    small = np.log1p(np.maximum(step, -0.5))
    ratio = np.where(step > -0.5, small, np.log(R / other))
    each = ratio if s == 0 else other**s * np.expm1(s * ratio) / s
    total = each.sum(-1)
    return float(total) if total.ndim == 0 else total


# %% tags=["active-ipynb"]
# R, other = np.array([[1.0, 4.0, 30.0], [2.0, 3.0, 50.0]])
# for alpha in (0, 0.5, 0.9, 2):
#     plain = alpha_fair_utility(R, alpha) - alpha_fair_utility(other, alpha)
#     np.testing.assert_allclose(utility_difference(R, other, alpha), plain, rtol=1e-12)
# logarithms = np.log(R / other).sum()
# np.testing.assert_allclose(utility_difference(R, other, 1), logarithms)
# np.testing.assert_allclose(utility_difference(R, other, 1 - 1e-12), logarithms)
# one_less = alpha_fair_utility(R, 1 - 1e-12) - alpha_fair_utility(other, 1 - 1e-12)
# print(f"near 1: {logarithms:.6f}, by subtraction {one_less:.6f}")

# %% [markdown]
# By hand, with two arms that have 1 and 4: the sum is 5, the sum of logarithms $\ln 4$, at $\alpha = 1/2$ we get $2 \cdot 1 + 2 \cdot 2 = 6$, and the minimum is 1.
# The gradient agrees with central differences.

# %% tags=["active-ipynb"]
# R = np.array([1.0, 4.0])
# values = [alpha_fair_utility(R, alpha) for alpha in (0, 0.5, 1, np.inf)]
# np.testing.assert_allclose(values, [5, 6, np.log(4), 1], rtol=1e-15)
# for alpha in (0, 0.3, 1, 2.5):
#     ahead, behind = arm_utility(R + 1e-6, alpha), arm_utility(R - 1e-6, alpha)
#     np.testing.assert_allclose(
#         (ahead - behind) / 2e-6, utility_gradient(R, alpha), rtol=1e-8
#     )

# %% [markdown]
# ### The elasticity identity, and why this family
#
# **Theorem (Elasticity).** <a id="thm-utility-elasticity"></a>
# Let $\alpha \ge 0$, $\alpha \ne 1$.
# For all $u > 0$
#
# <a id="eq-utility-elasticity"></a>
# $$
# u\, \phi_\alpha'(u) = (1 - \alpha)\, \phi_\alpha(u),
# $$ (eq-utility-elasticity)
#
# and a differentiable $f$ on $(0, \infty)$ has $u f'(u) = (1 - \alpha) f(u)$ for all $u$ only if it is a multiple of $\phi_\alpha$.
# At $\alpha = 1$ the identity becomes $u\, \phi_1'(u) = 1$.
# Changing the unit of reward changes no preference: for $c > 0$, $U_\alpha(c R) = c^{1-\alpha} U_\alpha(R)$, and $U_1(c R) = U_1(R) + N \ln c$.
#
# **Proof.**
# Both sides of [(eq-utility-elasticity)](#eq-utility-elasticity) are $u^{1-\alpha}$.
# If $f$ satisfies it, then $(f(u) u^{\alpha - 1})' = u^{\alpha-2} (u f'(u) - (1 - \alpha) f(u)) = 0$, so $f(u) u^{\alpha-1}$ is a constant.
# The last statement is read off [(eq-utility-phi)](#eq-utility-phi). ∎
#
# In words: one percent more reward gives $1 - \alpha$ percent more utility, whatever the arm has.
# The identity does much of the work in the proofs of Part II, because it turns the linear term of a tangent into a multiple of the utility itself.
#
# The checks of this chapter take the statement, or a part of it, as an argument and return the smallest constant in front of it that would still pass, or for an equation the error over what is allowed.
# The tests put wrong statements in its place and see each of them rejected.


# %%
def _elasticity_error(alpha, slope=lambda a: 1 - a, power=lambda a: 1 - a) -> float:
    r"""Largest relative error of both equations over 1e-6, by central differences."""
    u = np.logspace(-6, 6, 101)
    phi, h = arm_utility(u, alpha), 1e-5 * u
    rate = (arm_utility(u + h, alpha) - arm_utility(u - h, alpha)) / (2 * h)
    errors = u * rate / (slope(alpha) * phi) - 1
    scaled = arm_utility(3 * u, alpha) / (3 ** power(alpha) * phi) - 1
    return max(abs(errors).max(), abs(scaled).max()) / 1e-6


# %% tags=["active-ipynb"]
# assert max(_elasticity_error(a) for a in (0, 0.1, 0.5, 0.9, 1.5, 4)) <= 1
# u = np.logspace(-6, 6, 101)
# np.testing.assert_allclose(arm_utility(3 * u, 1), arm_utility(u, 1) + np.log(3))

# %% [markdown]
# ### What "fair" means
#
# **Theorem (Fairness as a vote of relative changes).** <a id="thm-utility-variational"></a>
# Let $\mathcal R \subset [0, \infty)^N$ be convex and $R^* \in \mathcal R$ with all entries positive.
# For a finite $\alpha$, $R^*$ maximises $U_\alpha$ over $\mathcal R$ if and only if
#
# <a id="eq-utility-variational"></a>
# $$
# \sum_i \frac{R_i - R_i^*}{(R_i^*)^\alpha} \le 0 \qquad \text{for all } R \in \mathcal R .
# $$ (eq-utility-variational)
#
# If $\alpha > 0$, there is at most one such $R^*$.
#
# **Proof.**
# If [(eq-utility-variational)](#eq-utility-variational) holds, concavity gives $U_\alpha(R) \le U_\alpha(R^*) + \sum_i \phi_\alpha'(R_i^*) (R_i - R_i^*) \le U_\alpha(R^*)$.
# If it fails for some $R$, the derivative of $U_\alpha$ at $R^*$ towards $R$ is positive, so a small step from $R^*$ towards $R$, which stays in $\mathcal R$, has a larger utility.
# For $\alpha > 0$ the utility is strictly concave, and two maximisers would both be beaten by their midpoint. ∎
#
# At $\alpha = 1$ the condition says that no other allocation has a positive sum of *relative* changes; this is proportional fairness.
# With $\alpha > 1$ a loss of the poor weighs more than its percentage, with $\alpha < 1$ less.
# We check it on random polytopes, at maximisers that cvxpy finds ([Diamond and Boyd 2016](../references.bib#diamond2016cvxpy)).


# %%
def _largest_vote(points, R, alpha, weight=utility_gradient) -> float:
    """Largest sum of weighted changes from `R` to one of `points`, shape (K, N)."""
    return ((points - R) @ weight(R, alpha)).max()


# %% tags=["active-ipynb"]
# points = rng.uniform(0.5, 5, (6, 4))  # the polytope is the hull of six allocations
# mix = cp.Variable(6, nonneg=True)
# for alpha in (0.5, 1, 2):
#     R = points.T @ mix
#     phi = cp.log(R) if alpha == 1 else cp.power(R, 1 - alpha) / (1 - alpha)
#     problem = cp.Problem(cp.Maximize(cp.sum(phi)), [cp.sum(mix) == 1])
#     problem.solve(solver=cp.CLARABEL)
#     assert problem.status == cp.OPTIMAL
#     assert _largest_vote(points, R.value, alpha) < 1e-4
#     assert _largest_vote(points, points.mean(0), alpha) > 1e-2  # no maximiser

# %% [markdown]
# ## Limits: the reward that is as good if all have it
#
# Utilities at two values of $\alpha$ are not comparable, not even in sign.
# What is comparable is the reward that, given to every arm, is as good as $R$:
#
# <a id="eq-utility-equivalent"></a>
# $$
# \begin{gathered}
# E_\alpha(R) = \Big( \frac1N \sum_i R_i^{1-\alpha} \Big)^{1/(1-\alpha)},\\
# E_1(R) = \Big( \prod_i R_i \Big)^{1/N}, \qquad E_\infty(R) = \min_i R_i .
# \end{gathered}
# $$ (eq-utility-equivalent)
#
# It is the power mean of exponent $1 - \alpha$, and an increasing function of $U_\alpha$, so it orders allocations as $U_\alpha$ does.
#
# **Theorem (From the mean to the minimum).** <a id="thm-utility-limits"></a>
# For every $R$ with positive entries, $E_\alpha(R)$ does not increase in $\alpha$ and is continuous at $\alpha = 1$; $E_0$ is the mean, and for $\alpha > 1$
#
# <a id="eq-utility-maxmin"></a>
# $$
# \min_i R_i \le E_\alpha(R) \le N^{1/(\alpha - 1)} \min_i R_i ,
# $$ (eq-utility-maxmin)
#
# so $E_\alpha(R) \to \min_i R_i$ as $\alpha \to \infty$.
#
# **Proof.**
# Let $s = 1 - \alpha$, $X = \ln R_i$ with $i$ uniform, and $\psi(s) = \ln \mathbb E\, e^{sX}$, so that $\ln E_\alpha = \psi(s) / s$.
# $\psi$ is convex (its second derivative is a variance) and $\psi(0) = 0$, so the slope $\psi(s) / s$ of its chord from 0 does not decrease in $s$; as $s \to 0$ it tends to $\psi'(0) = \mathbb E X$, the logarithm of the geometric mean.
# For [(eq-utility-maxmin)](#eq-utility-maxmin) put $\beta = \alpha - 1 > 0$ and $m = \min_i R_i$.
# The mean of the $R_i^{-\beta}$ lies between $m^{-\beta} / N$, one term alone, and $m^{-\beta}$, which no term exceeds; take the power $-1/\beta$. ∎


# %%
def equivalent_reward(R, alpha: float) -> float | np.ndarray:
    r"""Reward that, given to every arm, is as good as `R`: $E_\alpha(R)$.

    Parameters
    ----------
    R : array_like, shape (..., N)
        Cumulative reward of each arm, reward units; no entry negative.
    alpha : float
        Fairness parameter, `inf` included; no unit.

    Returns
    -------
    equivalent : float, or ndarray of shape (...) and float64
        Power mean of exponent $1 - \alpha$, reward units.

    Raises
    ------
    ValueError
        If `alpha` is negative or NaN, or `R` has a negative or NaN entry or no arm.

    References
    ----------
    Book {eq}`eq-utility-equivalent`.
    """
    R = check_nonnegative(R, "R")
    if alpha == np.inf:
        return alpha_fair_utility(R, alpha)
    s = 1 - check_alpha(alpha)
    with np.errstate(divide="ignore"):
        X = np.log(R)
    if s == 0:
        mean = X.mean(-1)
    else:
        top = (s * X).max(-1)
        with np.errstate(invalid="ignore"):
            spread = np.where(np.isfinite(top)[..., None], s * X - top[..., None], 0)
        mean = (top + np.log1p(np.expm1(spread).mean(-1))) / s
    return float(np.exp(mean)) if R.ndim == 1 else np.exp(mean)


# %%
def _maxmin_share(R, alpha, ceiling=lambda n, alpha: n ** (1 / (alpha - 1))) -> float:
    """Largest equivalent reward over `ceiling` times the least reward, alpha > 1."""
    R = np.asarray(R, dtype=np.float64)
    E, least = equivalent_reward(R, alpha), R.min(-1)
    if (least > E * (1 + 1e-9)).any():
        return np.inf
    return float(np.max(E / (ceiling(R.shape[-1], alpha) * least)))


# %% tags=["active-ipynb"]
# alphas = np.array([0, 0.5, 0.999999, 1, 1.000001, 2, 10, 100, 1000])
# R = rng.lognormal(0, 2, (500, 5))
# E = np.array([equivalent_reward(R, alpha) for alpha in alphas])  # (9, 500)
# assert (np.diff(E, axis=0) <= 1e-9 * E[:-1]).all()
# np.testing.assert_allclose(E[[2, 4]], E[[3, 3]], rtol=1e-4)
# np.testing.assert_allclose(E[0], R.mean(1))
# shares = [_maxmin_share(R, alpha) for alpha in alphas[5:]]
# lopsided = [_maxmin_share(np.array([1.0, *[1e300] * 4]), a) for a in (2, 10, 100)]
# assert max(shares + lopsided) <= 1 + 1e-9
# print("constant of the upper bound: random {:.3f}".format(max(shares)), end=" ")
# print("and with one poor arm {:.6f}".format(max(lopsided)))

# %% [markdown]
# ### Indifference curves
#
# Which allocations of two arms are as good as one reward unit for each?
# Solving $E_\alpha(R_0, R_1) = 1$ for the second entry gives $R_1 = (2 - R_0^{1-\alpha})^{1/(1-\alpha)}$, a straight line at $\alpha = 0$ and a corner at $\alpha = \infty$.
# The curves of all finite $\alpha$ touch at $(1, 1)$ with slope $-1$; they differ in how much of the rich arm's reward replaces a reward unit of the poor one.
# In the figure you can drag the allocation, or set it with the sliders, and move $\alpha$ from 0 at the left to $\infty$ at the right.


# %%
def indifferent_reward(first, alpha: float) -> np.ndarray:
    r"""Reward $R_1$ for which $(R_0, R_1)$ is as good as $(1, 1)$; NaN if none is.

    Parameters
    ----------
    first : array_like, shape (K,)
        Rewards $R_0 > 0$ of the first arm, reward units.
    alpha : float
        Fairness parameter, finite; no unit.

    Returns
    -------
    second : ndarray, shape (K,), float64
        Reward units.
    """
    first, s = np.asarray(first, dtype=np.float64), 1 - check_alpha(alpha)
    if s == 0:
        return 1 / first
    rest = 2 - first**s
    return np.where(rest > 0, np.abs(rest), np.nan) ** (1 / s)


def plot_indifference(ax, alphas):
    """Allocations to two arms that are as good as one reward unit for each."""
    first = np.linspace(0.005, 3, 1200)
    for alpha in alphas:
        ax.plot(first, indifferent_reward(first, alpha), label=f"$\\alpha = {alpha}$")
    ax.plot([1, 1, 3], [3, 1, 1], label=r"$\alpha = \infty$")
    ax.set(xlabel="reward of arm 0 (reward units)", xlim=(0, 3), ylim=(0, 3))
    ax.set(ylabel="reward of arm 1 (reward units)", aspect="equal")
    ax.legend(loc="upper right")
    return ax


# %% tags=["active-ipynb"]
# first = np.linspace(0.6, 1.4, 9)
# for alpha in (0, 0.5, 1, 2):
#     pairs = np.stack([first, indifferent_reward(first, alpha)], axis=1)
#     np.testing.assert_allclose(equivalent_reward(pairs, alpha), 1, rtol=1e-12)

# %% tags=["hide-input"]
_FORMULAS = {  # of the allocation R, which is dragged, and the slider k
    "alpha": "k < 1 ? 2 * k / (1 - k) : 1e6",
    "s": "abs(1 - alpha) < 1e-6 ? 1e-6 : 1 - alpha",
    "low": "min(R.x[0], R.y[0])",
    "even": "low * pow((1 + pow(max(R.x[0], R.y[0]) / low, s)) / 2, 1 / s)",
    "end": "s > 0 ? min(3, even * pow(2, 1 / s)) : 3",
    "total": "R.x[0] + R.y[0]",
    "jain": "total * total / (2 * (R.x[0] * R.x[0] + R.y[0] * R.y[0]))",
}
_CURVE = {  # both halves of the indifference curve, one the mirror image of the other
    "u": "even + abs(datum.n) / 100 * (end - even)",
    "v": "even * pow(max(2 - pow(datum.u / even, s), 0), 1 / s)",
    "x": "datum.n < 0 ? datum.v : datum.u",
    "y": "datum.n < 0 ? datum.u : datum.v",
}
_SAYS = [
    "'α = ' + (k < 1 ? format(alpha, '.2f') : '∞') + ': (' + format(R.x[0], '.1f')"
    " + ', ' + format(R.y[0], '.1f') + ') is as good as '"
    " + format(even, '.2f') + ' each'",
    "'sum ' + format(total, '.1f') + ', Jain’s index ' + format(jain, '.2f')",
]


# %% tags=["hide-input"]
def play_indifference():
    """Chart of all that is as good as an allocation of two arms, to be dragged."""
    import altair as alt

    from prunefair.playing import COLOURS, board, dragged, slider

    labels = {"x": "reward of arm 0", "y": "reward of arm 1"}
    axes = [
        axis(f"{name}:Q").title(f"{labels[name]} (reward units)").scale(domain=[0, 3])
        for name, axis in (("x", alt.X), ("y", alt.Y))
    ]
    line = alt.Chart(alt.sequence(-100, 101, as_="n")).transform_calculate(**_CURVE)
    layers = [line.mark_line(color=COLOURS[0]).encode(*axes, order="n:Q")]
    one = alt.Chart(alt.InlineData([{}]))
    for x, y, size, colour in (("even", "even", 60, 2), ("R.x[0]", "R.y[0]", 250, 1)):
        dot = one.mark_point(size=size, filled=True, opacity=1, color=COLOURS[colour])
        layers.append(dot.transform_calculate(x=x, y=y).encode(x="x:Q", y="y:Q"))
    layers.append(dragged("R", labels, (0.1, 3, 0.1), (2, 0.7)))
    k = slider("k", "fairness, from sum to minimum", (0, 1, 0.01), 0.2)
    computed = [alt.param(name, expr=text) for name, text in _FORMULAS.items()]
    about = "Allocations of two arms that are as good as the one dragged"
    size = {"width": 300, "height": 300}
    return board(layers, [k, *computed], _SAYS, about=about, **size)


# %% tags=["active-ipynb"]
# with playable(play_indifference(), figsize=(4.6, 4.4)) as ax:
#     plot_indifference(ax, (0, 0.5, 1, 2, 5))

# %% [markdown]
# **Figure (fig-utility-indifference).** <a id="fig-utility-indifference"></a> Allocations that are as good as one that you drag, from the straight line of the sum to the corner of the minimum. Blue: as good as the orange one; green: the same for both arms. On paper: the curves through (1, 1).
#
# ## Two ways to report an allocation
#
# **Jain's index** ([Jain et al. 1984](../references.bib#jain1984)) says how even an allocation is:
#
# $$
# J(R) = \frac{(\sum_i R_i)^2}{N \sum_i R_i^2} \in \big[\tfrac1N, 1\big] .
# $$ (eq-utility-jain)
#
# With the mean $m$ and the variance $v$ of the entries, $J = m^2 / (m^2 + v)$, so it is one over one plus the squared coefficient of variation.
# It ignores the unit of reward, is 1 if and only if all entries are equal, and $k/N$ if $k$ arms share everything evenly.
# It also ignores how large the rewards are, so it is never reported alone.
#
# **The price of fairness** ([Bertsimas et al. 2011](../references.bib#bertsimas2011price)) is the part of the largest total that an allocation gives up:
#
# $$
# P(R) = 1 - \frac{\sum_i R_i}{\max_{R' \in \mathcal R} \sum_i R_i'} \in [0, 1] .
# $$ (eq-utility-price)


# %%
def jain_index(R) -> float | np.ndarray:
    r"""Jain's index $(\sum_i R_i)^2 / (N \sum_i R_i^2)$, in $[1/N, 1]$.

    Parameters
    ----------
    R : array_like, shape (..., N)
        Cumulative reward of each arm, reward units; no entry negative.

    Returns
    -------
    index : float, or ndarray of shape (...) and float64
        1 if all arms have the same, $1/N$ if one arm has everything; no unit.

    Raises
    ------
    ValueError
        If `R` has a negative, infinite or NaN entry, or an allocation of nothing.

    References
    ----------
    Book {eq}`eq-utility-jain`; {cite}`jain1984`.

    Examples
    --------
    >>> from prunefair.fairness.utility import jain_index
    >>> float(jain_index([1.0, 1.0, 0.0, 0.0]))
    0.5
    """
    R = check_nonnegative(R, "R")
    largest = R.max(-1, keepdims=True)
    if not ((largest > 0) & (largest < np.inf)).all():
        raise ValueError("R holds an allocation that is all zero or not finite")
    shares = R / largest  # squares can no longer overflow or vanish
    index = shares.sum(-1) ** 2 / (R.shape[-1] * (shares**2).sum(-1))
    return float(index) if R.ndim == 1 else index


# %%
def price_of_fairness(R, largest_sum: float) -> float | np.ndarray:
    r"""Part of the largest possible total that the allocation `R` gives up.

    Parameters
    ----------
    R : array_like, shape (..., N)
        Cumulative reward of each arm, reward units; no entry negative.
    largest_sum : float
        Largest total over all feasible allocations, reward units; positive.

    Returns
    -------
    price : float, or ndarray of shape (...) and float64
        $1 - \sum_i R_i$ / `largest_sum`, in [0, 1]; no unit.

    Raises
    ------
    ValueError
        If `R` has a negative or NaN entry, or a total above `largest_sum`.

    References
    ----------
    Book {eq}`eq-utility-price`.
    """
    R = check_nonnegative(R, "R")
    total = R.sum(-1)
    if not (largest_sum > 0 and (total <= largest_sum * (1 + 1e-9)).all()):
        raise ValueError(
            f"largest_sum is {largest_sum!r}; it must be positive and no total of R "
            f"may exceed it, but one is {np.max(total)}"
        )
    price = np.maximum(1 - total / largest_sum, 0)
    return float(price) if R.ndim == 1 else price


# %% tags=["active-ipynb"]
# for k in (1, 2, 5):
#     assert jain_index([2.0] * k + [0.0] * (5 - k)) == k / 5
# R = rng.gamma(1, size=(200, 7))
# np.testing.assert_allclose(jain_index(R), 1 / (1 + R.var(1) / R.mean(1) ** 2))
# assert price_of_fairness([0.5, 0.25], 1.0) == 0.25

# %% [markdown]
# ### The shared hour, solved
#
# We return to the question of the first paragraph.
# Arm $i$ earns $w_i > 0$ an hour and gets the part $x_i$ of it, so $R_i = w_i x_i$ with $x$ in the simplex.
# Setting the derivative of $\sum_i \phi_\alpha(w_i x_i)$ equal for all arms, $w_i^{1-\alpha} x_i^{-\alpha} = \text{const}$, gives for $\alpha > 0$
#
# <a id="eq-utility-shares"></a>
# $$
# \begin{gathered}
# x_i = \frac{w_i^{s}}{\sum_k w_k^{s}}, \qquad R_i = \frac{w_i^{1/\alpha}}{\sum_k w_k^{s}},\\
# s = \frac{1 - \alpha}{\alpha} \in (-1, \infty) .
# \end{gathered}
# $$ (eq-utility-shares)
#
# **Theorem (More fairness costs more and is more even).** <a id="thm-utility-price"></a>
# Along [(eq-utility-shares)](#eq-utility-shares) the price of fairness does not decrease in $\alpha$, and neither does Jain's index.
# The price goes from 0 as $\alpha \to 0$ to $1 - N / (\max_i w_i \sum_i 1/w_i)$ as $\alpha \to \infty$, and Jain's index to 1.
#
# **Proof.**
# Let $q_s$ be the distribution with weights proportional to $w_i^s$.
# For any $f$, $\frac{d}{ds} \sum_i q_s(i) f(w_i)$ is the covariance of $f(w)$ and $\ln w$ under $q_s$, and it is not negative if $f$ is increasing: two increasing functions of one variable are not negatively correlated.
# The total is $\sum_i w_i x_i = \sum_i q_s(i) w_i$, so it does not decrease in $s$, which decreases in $\alpha$.
# As $s \to \infty$ all weight moves to the largest $w_i$; at $s = -1$ the total is $N / \sum_i w_i^{-1}$.
# For Jain's index write $a = 1/\alpha$: $\ln J = 2 \ln \sum_i w_i^a - \ln \sum_i w_i^{2a} - \ln N$ has the derivative $2 \sum_i q_a(i) \ln w_i - 2 \sum_i q_{2a}(i) \ln w_i \le 0$ in $a$, by the same argument; at $a = 0$ all entries are equal. ∎


# %%
def fair_shares(w, alpha: float) -> np.ndarray:
    r"""Shares $x_i$ of one budget that maximise $\sum_i \phi_\alpha(w_i x_i)$.

    Parameters
    ----------
    w : array_like, shape (N,)
        Reward of each arm for the whole budget, reward units; positive and finite.
    alpha : float
        Fairness parameter, `inf` included; 0 gives all to the first best arm.

    Returns
    -------
    x : ndarray, shape (N,), float64
        Shares that sum to 1; no unit.

    Raises
    ------
    ValueError
        If `w` is no positive finite vector, or `alpha` is negative or NaN.

    References
    ----------
    Book {eq}`eq-utility-shares`.
    """
    w = check_nonnegative(w, "w")
    if w.ndim != 1 or not (np.isfinite(w) & (w > 0)).all():
        raise ValueError(f"w is {w!r}; it must be a vector of positive finite rewards")
    if alpha == 0:
        return np.eye(len(w))[w.argmax()]
    log_w = np.log(w)
    with np.errstate(over="ignore"):
        if alpha == np.inf:
            exponent = -log_w
        else:
            exponent = (log_w - log_w.max()) / check_alpha(alpha) * (1 - alpha)
    x = np.exp(exponent - exponent.max())  # the largest is 1, whatever alpha
    return x / x.sum()


# %%
def _shares_excess(w, limit=lambda w: 1 - len(w) / (w.max() * (1 / w).sum())) -> float:
    """Price of fairness over `limit`: the largest quotient, or its inverse at the end.

    Infinite if price or Jain's index falls somewhere as alpha grows.
    """
    alphas = [0, *np.logspace(-2, 3, 60), np.inf]
    R = np.array([w * fair_shares(w, alpha) for alpha in alphas])
    price = price_of_fairness(R, w.max())
    if min(np.diff(price).min(), np.diff(jain_index(R)).min()) < -1e-12:
        return np.inf
    return max(price.max() / limit(w), limit(w) / price[-1])


# %% tags=["active-ipynb"]
# alphas = np.array([0, 0.1, 0.3, 0.5, 0.9, 1, 2, 5, 50, np.inf])
# R = np.array([hourly * fair_shares(hourly, alpha) for alpha in alphas])
# price, jain = price_of_fairness(R, hourly.max()), jain_index(R)
# assert (np.diff(price) >= 0).all() and (np.diff(jain) >= 0).all()
# assert _shares_excess(hourly) <= 1 + 1e-12
# for alpha, x in [(0.5, cp.Variable(3)), (2, cp.Variable(3))]:
#     phi = cp.power(cp.multiply(hourly, x), 1 - alpha) / (1 - alpha)
#     cp.Problem(cp.Maximize(cp.sum(phi)), [cp.sum(x) == 1]).solve(solver=cp.CLARABEL)
#     np.testing.assert_allclose(x.value, fair_shares(hourly, alpha), atol=1e-3)
# for row in zip(alphas, price, jain, strict=True):
#     print("alpha {:4.1f}: price {:.3f}, Jain's index {:.3f}".format(*row))


# %%
def plot_price(ax, w):
    """Price of fairness and Jain's index of the shared budget against alpha."""
    alphas = np.logspace(-1.5, 1.5, 200)
    R = np.array([w * fair_shares(w, alpha) for alpha in alphas])
    ax.plot(alphas, price_of_fairness(R, np.max(w)), label="price of fairness")
    ax.plot(alphas, jain_index(R), label="Jain's index")
    ax.set(xscale="log", xlabel=r"fairness parameter $\alpha$", ylim=(0, 1.02))
    ax.set(ylabel="price, index (no unit)")
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_price(ax, hourly)

# %% [markdown]
# **Figure (fig-utility-price).** <a id="fig-utility-price"></a> The shared hour: what evenness costs as the fairness parameter grows.

# %% [markdown]
# ## The concave conjugate
#
# A concave function is the lower envelope of its tangents.
# The **concave conjugate** stores the intercepts of these tangents as a function of their slope, which we read as a price:
#
# $$
# \phi_{\alpha*}(p) = \inf_{u > 0} \big( p u - \phi_\alpha(u) \big) \in [-\infty, \infty) .
# $$ (eq-utility-conjugate-definition)
#
# It is concave, as an infimum of affine functions.
# An arm that sells all its reward at the price $p$ gains at least $\phi_{\alpha*}(p)$ on balance, revenue minus utility given up, whatever it has.
#
# **Theorem (The conjugate in closed form).** <a id="thm-utility-conjugate"></a>
#
# $$
# \phi_{\alpha*}(p) =
# \begin{cases}
# 0 & \alpha = 0,\ p \ge 1, \\
# -\frac{\alpha}{1-\alpha}\, p^{-(1-\alpha)/\alpha} & 0 < \alpha < 1,\ p > 0, \\
# 1 + \ln p & \alpha = 1,\ p > 0, \\
# \frac{\alpha}{\alpha-1}\, p^{(\alpha-1)/\alpha} & \alpha > 1,\ p \ge 0,
# \end{cases}
# $$ (eq-utility-conjugate)
#
# and $-\infty$ for every other $p$.
# For $\alpha > 0$ and $p > 0$ the infimum is attained at $u = p^{-1/\alpha}$ only.
#
# **Proof.**
# For $\alpha > 0$ and $p > 0$ the function $pu - \phi_\alpha(u)$ is strictly convex, and its derivative $p - u^{-\alpha}$ vanishes at $u = p^{-1/\alpha}$ only, where $pu = p^{(\alpha-1)/\alpha} = u^{1-\alpha}$; so for $\alpha \ne 1$ its value is $p^{(\alpha-1)/\alpha} \big(1 - \frac{1}{1-\alpha}\big)$, the second and fourth line, and $1 + \ln p$ for $\alpha = 1$.
# If $p < 0$, the first term alone tends to $-\infty$ as $u$ grows, and $\phi_\alpha(u)$ does not decrease.
# If $p = 0$, the infimum is $-\sup \phi_\alpha$: $-\infty$ for $\alpha \le 1$, and 0 for $\alpha > 1$, approached as $u \to \infty$ and not attained.
# For $\alpha = 0$ the function is $(p - 1) u$: its infimum is 0, approached as $u \to 0$, if $p \ge 1$, and $-\infty$ if $p < 1$. ∎
#
# The domain matters in the next chapter: a price outside it makes the dual objective infinite, so it is no bound at all.


# %%
def concave_conjugate(p, alpha: float) -> np.ndarray:
    r"""Concave conjugate $\phi_{\alpha*}(p) = \inf_{u > 0} (p u - \phi_\alpha(u))$.

    Parameters
    ----------
    p : array_like, any shape
        Prices, utility units a reward unit; any sign.
    alpha : float
        Fairness parameter, finite; no unit.

    Returns
    -------
    conjugate : ndarray, float64, the shape of `p`
        Elementwise, utility units; $-\infty$ outside the domain, which is
        $p \ge 1$ (`alpha = 0`), $p > 0$ (`0 < alpha <= 1`) or $p \ge 0$ (`alpha > 1`).

    Raises
    ------
    ValueError
        If `alpha` is negative or not finite, or `p` has a NaN.

    References
    ----------
    Book {eq}`eq-utility-conjugate`.
    """
    alpha = check_alpha(alpha)
    p = np.asarray(p, dtype=np.float64)
    if np.isnan(p).any():
        raise ValueError(f"p is {p!r}; no entry may be NaN")
    if alpha == 0:
        return np.where(p >= 1, 0.0, -np.inf)
    q = np.where(p >= 0, p, 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        if alpha == 1:
            inside = 1 + np.log(q)
        else:
            inside = alpha / (alpha - 1) * q ** ((alpha - 1) / alpha)
    return np.where(p >= 0, inside, -np.inf)


# %% [markdown]
# In the picture, look at the left edge: there each tangent begins at the height $-\phi_{\alpha*}(p)$, which depends on its slope alone.


# %%
def plot_tangents(ax, alpha: float, prices):
    """A utility below its tangents: where they touch it, and where they begin."""
    u = np.linspace(0, 6, 301)
    for price in prices:
        start, touch = -concave_conjugate(price, alpha), price ** (-1 / alpha)
        (line,) = ax.plot(u, price * u + start, label=f"price {price:g}")
        heights = [start, arm_utility(touch, alpha)]
        ax.plot([0, touch], heights, "o", c=line.get_color(), clip_on=False, zorder=4)
    ax.plot(u, arm_utility(u, alpha), "k-", lw=2.4, label="utility")
    words, arrow = r"$-\phi_{\alpha*}(p)$", {"arrowstyle": "->"}
    start = -concave_conjugate(min(prices), alpha)
    ax.annotate(words, (0.08, start + 0.1), (0.5, start + 1.6), arrowprops=arrow)
    ax.set(xlabel="reward $u$ (reward units)", ylabel="utility units")
    ax.set(xlim=(0, 6), ylim=(0, 6))
    ax.legend(loc="lower right")
    return ax


# %% tags=["active-ipynb"]
# with figure() as ax:
#     plot_tangents(ax, 0.5, (0.45, 0.6, 1.0))

# %% [markdown]
# **Figure (fig-utility-tangents).** <a id="fig-utility-tangents"></a> A utility is the lower envelope of its tangents, here at $\alpha=\frac12$ for three prices. A tangent has the slope $p$, touches at $u=p^{-1/\alpha}$ and begins at $-\phi_{\alpha*}(p)$: the higher the price, the less reward is left at the point of contact.

# %% [markdown]
# One oracle is a search over 600 orders of magnitude of $u$, the other cvxpy, which minimises $pu - \phi_\alpha(u)$ over $u$ without knowing the formula.


# %%
def _conjugate_error(p: float, alpha: float, formula=concave_conjugate) -> float:
    """Distance of `formula` from the least value found, over what is allowed."""
    u = np.logspace(-300, 300, 600_001)
    with np.errstate(over="ignore"):
        values = p * u - arm_utility(u, alpha)
    least, claimed = values.min(), float(formula(p, alpha))
    if claimed == -np.inf:  # the search must run away to the right
        return 0.0 if values.argmin() == u.size - 1 and least < -100 else np.inf
    return abs(least - claimed) / (1e-5 * (1 + abs(claimed)))


# %% tags=["active-ipynb"]
# for alpha in (0, 0.25, 0.5, 1, 1.5, 3):
#     for price in (-0.5, 0, 0.5, 1, 2.5):
#         assert _conjugate_error(price, alpha) <= 1

# %% tags=["active-ipynb"]
# u, p = cp.Variable(pos=True), cp.Parameter(nonneg=True)
# for alpha in (0.25, 0.5, 1, 1.5, 3):
#     phi = cp.log(u) if alpha == 1 else cp.power(u, 1 - alpha) / (1 - alpha)
#     problem = cp.Problem(cp.Minimize(p * u - phi))
#     for p.value in (0.5, 1, 2.5):
#         problem.solve(solver=cp.CLARABEL)
#         assert problem.status == cp.OPTIMAL
#         closed = concave_conjugate(p.value, alpha)
#         np.testing.assert_allclose(problem.value, closed, rtol=1e-6, atol=1e-6)
#         np.testing.assert_allclose(u.value, p.value ** (-1 / alpha), rtol=1e-3)
# assert concave_conjugate(0.0, 3) == 0 and concave_conjugate(0.0, 1) == -np.inf

# %% [markdown]
# Outside the domain cvxpy finds the problem unbounded, and at $\alpha = 0$ the infimum is 0 or $-\infty$.

# %% tags=["active-ipynb"]
# for alpha, price in [(0, 1.5), (0, 0.5), (0.5, -0.5), (1, -0.5), (3, -0.5)]:
#     phi = cp.log(u) if alpha == 1 else cp.power(u, 1 - alpha) / (1 - alpha)
#     problem = cp.Problem(cp.Minimize(price * u - phi))
#     problem.solve(solver=cp.CLARABEL)
#     closed = concave_conjugate(price, alpha)
#     assert problem.status == (cp.OPTIMAL if np.isfinite(closed) else cp.UNBOUNDED)
#     assert abs(problem.value) < 1e-6 or closed == -np.inf

# %% [markdown]
# ### Fenchel–Young
#
# **Theorem (Fenchel–Young inequality and its equality case).** <a id="thm-utility-fenchel-young"></a>
# For every finite $\alpha$, $u > 0$ and real $p$
#
# <a id="eq-utility-fenchel-young"></a>
# $$
# \phi_\alpha(u) + \phi_{\alpha*}(p) \le p u .
# $$ (eq-utility-fenchel-young)
#
# For $\alpha > 0$ equality holds if and only if $p = \phi_\alpha'(u) = u^{-\alpha}$.
# Therefore $\phi_\alpha(u) = \inf_p \big( p u - \phi_{\alpha*}(p) \big)$: the conjugate of the conjugate is $\phi_\alpha$.
#
# **Proof.**
# The inequality is the definition of the infimum.
# Equality means that $u$ attains it.
# For $p > 0$ that is $u = p^{-1/\alpha}$ by [Theorem (The conjugate in closed form)](#thm-utility-conjugate); for $p < 0$ and for $p = 0$, $\alpha \le 1$ the left side is $-\infty$; for $p = 0$, $\alpha > 1$ nothing attains it.
# For the last statement, [(eq-utility-fenchel-young)](#eq-utility-fenchel-young) gives $\le$, and $p = u^{-\alpha}$ gives equality; at $\alpha = 0$ the infimum over $p \ge 1$ is at $p = 1$. ∎
#
# The **Fenchel–Young gap** $\sum_i p_i R_i - \phi_\alpha(R_i) - \phi_{\alpha*}(p_i)$ measures how far prices are from the gradient.
# The three terms nearly cancel when the gap is small, and are themselves of size $1 / |1 - \alpha|$ near $\alpha = 1$.
# With $t_i = p_i R_i^\alpha$, the ratio of price and gradient, nothing cancels but $t - 1$ and a logarithm:
#
# $$
# \begin{gathered}
# \sum_i R_i^{1-\alpha} \Big( t_i - 1 - \ell_\alpha(t_i) \Big),\\
# \ell_\alpha(t) = \frac{\alpha}{\alpha - 1} \Big( t^{(\alpha-1)/\alpha} - 1 \Big), \quad \ell_1(t) = \ln t .
# \end{gathered}
# $$ (eq-utility-gap)


# %%
def fenchel_young_gap(R, p, alpha: float) -> float:
    r"""Sum over the arms of $p_i R_i - \phi_\alpha(R_i) - \phi_{\alpha*}(p_i) \ge 0$.

    Parameters
    ----------
    R : array_like, shape (N,)
        Cumulative reward of each arm, reward units; positive.
    p : array_like, shape (N,)
        Prices, utility units a reward unit; positive.
    alpha : float
        Fairness parameter, positive and finite; no unit.

    Returns
    -------
    gap : float
        Utility units; 0 if and only if $p_i = R_i^{-\alpha}$ for all arms.

    Raises
    ------
    ValueError
        If `alpha` is not positive and finite, or an entry of `R` or `p` is not
        positive.

    References
    ----------
    Book {eq}`eq-utility-gap`.
    """
    R, p = check_nonnegative(R, "R"), check_nonnegative(p, "p")
    if check_alpha(alpha) == 0 or not ((R > 0).all() and (p > 0).all()):
        raise ValueError(f"alpha is {alpha!r}; it, R and p must all be positive")
    log_t = np.log(p) + alpha * np.log(R)
    s = (alpha - 1) / alpha
    with np.errstate(over="ignore"):
        ell = log_t if s == 0 else np.expm1(s * log_t) / s
        return float((R ** (1 - alpha) * (np.expm1(log_t) - ell)).sum())


# %%
def _fenchel_excess(u, p, alpha, right=lambda p, u: p * u, price=utility_gradient):
    r"""Largest $\phi_\alpha(u)+\phi_{\alpha*}(p)$ less `right`; its miss at `price`.

    Both are over $10^{-12}$ of the size of the terms.
    """
    excess = []
    for q in (p, price(u, alpha)):
        left = arm_utility(u, alpha) + concave_conjugate(q, alpha)
        size = 1 + abs(arm_utility(u, alpha)) + abs(concave_conjugate(q, alpha))
        excess.append((left - right(q, u)) / size / 1e-12)
    return max(excess[0].max(), abs(excess[1]).max())


# %% tags=["active-ipynb"]
# R, p = rng.lognormal(0, 1, 20), rng.lognormal(0, 1, 20)
# assert max(_fenchel_excess(R, p, alpha) for alpha in (0.2, 0.5, 1, 1.5, 4)) <= 1
# for alpha in (0.2, 0.5, 0.9999999, 1, 1.5, 4):
#     assert fenchel_young_gap(R, p, alpha) > 0
#     assert abs(fenchel_young_gap(R, R**-alpha, alpha)) < 1e-12
#     plain = p * R - arm_utility(R, alpha) - concave_conjugate(p, alpha)
#     size = np.abs(arm_utility(R, alpha)).sum()
#     assert abs(plain.sum() - fenchel_young_gap(R, p, alpha)) < 1e-13 * size + 1e-10

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.
# The right ones are computed, in cells that a page leaves out and the notebook has.

# %% tags=["active-ipynb", "remove-input"]
# earned = np.array([1, 1 / 2, 1 / 10])
# given_up = price_of_fairness(earned / 3, earned.max())
# Quiz(
#     "Three arms earn 1, 1/2 and 1/10 an hour. How much of the largest total does "
#     "proportional fairness give up?",
#     right=f"{given_up:.0%}",
#     because=f"Equal time earns {earned.mean():.3f} of at most 1 reward unit.",
#     wrong={
#         f"{1 - given_up:.0%}": "That is what is left of it.",
#         "67%": "The best arm loses two thirds of its time, but the others earn in it.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# poor, rich = utility_gradient([1.0, 16.0], alpha=0.5)
# Quiz(
#     "One arm has 1 reward unit, another has 16, and α = 1/2. How many times as much "
#     "is the next reward unit worth to the poorer one?",
#     right=f"{poor / rich:.0f}",
#     because="A unit is worth one over the square root of what the arm has.",
#     wrong={
#         "16": "That is right at α = 1, where relative changes count.",
#         "1": "That is right at α = 0, where only the total counts.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# all_or_even = alpha_fair_utility([[9.0, 0.0], [1.0, 1.0]], alpha=1)
# Quiz(
#     "At α = 1, which allocation is better: (9, 0) or (1, 1)?",
#     right="(1, 1)" if all_or_even[1] > all_or_even[0] else "(9, 0)",
#     because="The logarithm of nothing is minus infinity, whatever the other has.",
#     wrong={
#         "(9, 0)": "Its total is larger, but one arm has nothing.",
#         "neither": "One of them has a finite utility and the other has not.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-utility-0"></a>
# Write a function that gives the reward which, given to every arm, is as good as `R`, for $\alpha \ne 1$.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# Average $R_i^{1-\alpha}$ over the arms, and ask which single reward has this average.
#
# </details>

# %% tags=["active-ipynb"]
# def as_good_for_all(R, alpha):
#     """Reward for every arm that is as good as `R`, shape (N,)."""
#     # your lines
#
#
# rewards = np.array([1.0, 4.0])
# check_answer(as_good_for_all, equivalent_reward, (rewards, 0.5), (rewards, 2))

# %% [markdown]
# <details><summary>Solution</summary>
#
# If every arm has $u$, the average is $u^{1-\alpha}$, so $u$ is the average to the power $1/(1-\alpha)$: [(eq-utility-equivalent)](#eq-utility-equivalent).
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def as_good_for_all(R, alpha):
#     """Reward for every arm that is as good as `R`, shape (N,)."""
#     return np.mean(R ** (1 - alpha)) ** (1 / (1 - alpha))
#
#
# calls = [(rewards, 0.5), (rewards, 2), (np.array([3.0, 1.0, 2.0]), 0)]
# assert check_answer(as_good_for_all, equivalent_reward, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-utility-1"></a>
# By hand: two arms earn 1 and 4 for a whole hour.
# Find the shares, the rewards and the price of fairness at $\alpha = 1/2$ and $\alpha = 2$.
#
# <details><summary>Solution</summary>
#
# At $\alpha = 1/2$, $s = 1$: shares $1/5$ and $4/5$, rewards $1/5$ and $16/5$, total $17/5$ of at most 4.
# At $\alpha = 2$, $s = -1/2$: shares $2/3$ and $1/3$, rewards $2/3$ and $4/3$, total 2, half of what is possible.
#
# </details>

# %% tags=["active-ipynb"]
# w = np.array([1.0, 4.0])
# np.testing.assert_allclose(fair_shares(w, 0.5), [1 / 5, 4 / 5])
# np.testing.assert_allclose(fair_shares(w, 2), [2 / 3, 1 / 3])
# prices = [price_of_fairness(w * fair_shares(w, alpha), 4) for alpha in (0.5, 2)]
# np.testing.assert_allclose(prices, [0.15, 0.5])

# %% [markdown]
# **Exercise ★★.** <a id="ex-utility-2"></a>
# A limit: $\phi_\alpha$ itself has no limit as $\alpha \to 1$.
# Show that $(u^{1-\alpha} - 1) / (1 - \alpha)$ tends to $\ln u$, that it gives the same preferences as $\phi_\alpha$, and that the error is at most $\frac12 |1 - \alpha| (\ln u)^2 \max(1, u^{1-\alpha})$.
#
# <details><summary>Solution</summary>
#
# With $h = (1 - \alpha) \ln u$ the expression is $\ln u \cdot (e^h - 1) / h$, and $e^h - 1 - h = \frac12 h^2 e^{\xi}$ for some $\xi$ between 0 and $h$.
# So the error is $\frac{1}{2} h^2 e^\xi / |1 - \alpha|$, which is the bound.
# A constant for each arm changes no preference.
#
# </details>

# %% tags=["active-ipynb"]
# u = np.logspace(-3, 3, 61)
# for alpha in (0.9, 0.99, 1.01, 1.1):
#     error = np.abs(arm_utility(u, alpha) - 1 / (1 - alpha) - np.log(u))
#     bound = abs(1 - alpha) / 2 * np.log(u) ** 2 * np.maximum(1, u ** (1 - alpha))
#     assert (error <= bound + 1e-12).all()

# %% [markdown]
# **Exercise ★★.** <a id="ex-utility-3"></a>
# Breaking an assumption: [Theorem (Fairness as a vote of relative changes)](#thm-utility-variational) asks for positive entries.
# Let two arms share an hour with $w = (1, 0)$, so the second can earn nothing.
# Which allocations maximise $U_{1/2}$, and which maximise $U_1$?
# The policies of this book give every arm one reward unit to begin with, $R_i(0) = 1$: why?
#
# <details><summary>Solution</summary>
#
# $U_{1/2}$ is largest at $R = (1, 0)$, where the second entry of the gradient is infinite.
# $U_1$ is $-\infty$ at every allocation, so all are maximisers and none is fair in any useful sense.
# With $R_i(0) = 1$ the gradient is at most 1, every utility is finite, and an arm that never earns anything cannot spoil the comparison of the others.
#
# </details>

# %% tags=["active-ipynb"]
# x = np.linspace(0, 1, 11)
# R = np.stack([x, 0 * x], axis=1)  # every way to share the hour
# assert alpha_fair_utility(R, 0.5).argmax() == 10
# assert (alpha_fair_utility(R, 1) == -np.inf).all()
# assert np.isinf(utility_gradient(R[-1], 0.5)[1])
# assert alpha_fair_utility(1 + R, 1).argmax() == 10

# %% [markdown]
# **Exercise ★★★.** <a id="ex-utility-4"></a>
# The conjugate of the minimum: compute $\inf_{R \ge 0} \big( \sum_i p_i R_i - \min_i R_i \big)$ for every $p$, and say what the prices of a max-min fair allocation look like.
#
# <details><summary>Hint</summary>
#
# Fix the minimum $m$ first.
# If no price is negative, what are then the best other entries?
#
# </details>
#
# <details><summary>Solution</summary>
#
# If some $p_i < 0$, let that $R_i$ grow: $-\infty$.
# Else the best $R$ for a given minimum $m$ has all entries $m$, which gives $(\sum_i p_i - 1) m$: 0 if $\sum_i p_i \ge 1$ and $-\infty$ otherwise.
# So the useful prices are those with sum 1: a distribution over the arms, concentrated on the poorest, because $\sum_i p_i R_i = \min_i R_i$ forces $p_i = 0$ wherever $R_i$ is above the minimum.
#
# </details>

# %% tags=["active-ipynb"]
# for prices, finite in [([0.5, 0.5], 1), ([0.9, 0.2], 1), ([0.4, 0.5], 0), ([2, -1], 0)]:
#     R = cp.Variable(2, nonneg=True)
#     problem = cp.Problem(cp.Minimize(np.array(prices) @ R - cp.min(R)))
#     problem.solve(solver=cp.CLARABEL)
#     assert problem.status == (cp.OPTIMAL if finite else cp.UNBOUNDED)
#     assert abs(problem.value) < 1e-6 or not finite

# %% [markdown]
# ## What you can do now
#
# One parameter runs from the sum over proportional fairness to the minimum, and the gradient $R_i^{-\alpha}$ is the weight of an arm.
# More fairness costs more of the total: of the shared hour, proportional fairness gives up 47 %.
# Prices are dual to rewards: the Fenchel–Young gap is zero exactly at the gradient.
#
# - Judge an allocation at any $\alpha$: `alpha_fair_utility`, with `arm_utility` for one arm and `utility_gradient` for the weights; `utility_difference` subtracts two without losing digits near $\alpha=1$.
# - Compare different $\alpha$: `equivalent_reward` is the reward that is as good if all arms have it; `indifferent_reward` and `plot_indifference` draw what is equally good.
# - Report an allocation in one number: `jain_index`, and `price_of_fairness` for the part of the largest total that is given up; `fair_shares` and `plot_price` show where it goes.
# - Bound a utility from above: `concave_conjugate` and `fenchel_young_gap`.
#
# Next: [Offline optimum](offline_optimum.ipynb) finds the best map from contexts to arms, and uses the conjugate to certify it.
