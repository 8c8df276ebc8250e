"""Every theorem and lemma of Part II, and wrong, stronger forms that its check rejects.

The check of a statement is a function of its chapter's module.  It takes the statement,
or a part of it, as an argument and returns the smallest constant in front of it that
would still pass its instances: at most 1 if the statement holds.  A mutant is the same
check with a statement that claims more; it must come out above 1.
"""

import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import cvxpy as cp
import numpy as np
import pytest

from prunefair.fairness import bandit_feedback as bandit
from prunefair.fairness import (
    baselines,
    beyond_one,
    late_feedback,
    limits,
    movielens,
    one_context,
    scale,
    slates,
    stochastic,
    utility,
)
from prunefair.fairness import full_information as full
from prunefair.fairness import high_probability as likely
from prunefair.fairness import movielens_figures as figures
from prunefair.fairness import offline_optimum as offline
from prunefair.fairness import online_gradient as gradient
from prunefair.fairness.adversaries import late_rewards, play_suite
from prunefair.fairness.fast.games import norms_over_time, probe_norms
from prunefair.fairness.fast.unweighted import gap_runs, unweighted_run
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.online_gradient import worst_gradients
from prunefair.fairness.simulation import RewardStream, play_game, simulate
from prunefair.fairness.slate_policy import SlateGradient

ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)
ROUNDING = 1e-9


class Claim(NamedTuple):
    """A check and the arguments that make its statement stronger than the truth."""

    check: Callable[..., float]
    mutants: dict[str, dict]


# --- utility

SOME_ALPHAS = (0, 0.1, 0.5, 0.9, 1.5, 4)


def elasticity(**statement):
    return max(utility._elasticity_error(a, **statement) for a in SOME_ALPHAS)


@cache
def fairest():
    """Corners of a polytope, its allocation of largest utility, and alpha."""
    points = np.random.default_rng(1).uniform(0.5, 5, (6, 4))
    found = []
    for alpha in (0.5, 1, 2):
        mix = cp.Variable(6, nonneg=True)
        R = points.T @ mix
        phi = cp.log(R) if alpha == 1 else cp.power(R, 1 - alpha) / (1 - alpha)
        problem = cp.Problem(cp.Maximize(cp.sum(phi)), [cp.sum(mix) == 1])
        problem.solve(solver=cp.CLARABEL)
        assert problem.status == cp.OPTIMAL
        found.append((points, R.value, alpha))
    return found


def votes(**statement):
    largest = [utility._largest_vote(*given, **statement) for given in fairest()]
    return max(largest) / 1e-4


def maxmin(**statement):
    poor = np.array([1.0, *[1e300] * 4])
    return max(utility._maxmin_share(poor, a, **statement) for a in (1.5, 2, 10, 100))


def price(**statement):
    hours = [np.array([1, 0.5, 0.1]), np.array([3.0, 2]), np.array([7.0, 1, 1, 4])]
    return max(utility._shares_excess(w, **statement) for w in hours)


def conjugate(**statement):
    prices = (-0.5, 0.0, 0.5, 1.0, 2.5)
    return max(
        utility._conjugate_error(p, a, **statement)
        for a in (0, 0.25, 1, 3)
        for p in prices
    )


def scaled_conjugate(p, alpha):
    return utility.concave_conjugate(p, alpha) * (1.01 if alpha == 0.25 else 1)


def plain_power(p, alpha):
    """The conjugate with the exponent 1 - alpha of the utility itself."""
    if alpha != 0.25 or p <= 0:
        return utility.concave_conjugate(p, alpha)
    return -alpha / (1 - alpha) * p ** (alpha - 1)


def any_price_at_zero(p, alpha):
    return 0.0 if alpha == 0 and p > 0 else utility.concave_conjugate(p, alpha)


def fenchel(**statement):
    rng = np.random.default_rng(2)
    u, p = rng.lognormal(0, 1, (2, 50))
    return max(utility._fenchel_excess(u, p, a, **statement) for a in (0.2, 1, 4))


# --- offline optimum


def sums(statistic=offline.reward_sums):
    rng = np.random.default_rng(3)
    contexts, rewards = rng.integers(3, size=40), rng.random((40, 4))
    order = rng.permutation(40)
    streams = [
        (contexts, rewards),
        (contexts[order], rewards[order]),  # other rounds, equal sums
        (contexts[order], rewards),  # equal totals of the arms
        (contexts, rewards[:, ::-1]),  # equal totals of the contexts
    ]
    maps = list(rng.dirichlet(np.ones(4), (5, 3)))
    return offline._sums_error(streams, maps, statistic)


@cache
def offline_games():
    rng = np.random.default_rng(4)
    games = []
    for alpha in (0.001, 0.5, 0.9):
        G = rng.gamma(0.5, 200, (4, 5))
        games.append((G, alpha, solve_offline(G, alpha), rng.dirichlet(np.ones(5), 4)))
    return games


def weak(**statement):
    pairs = []
    for G, alpha, best, x in offline_games():
        for y in (best.x, x):
            pairs.append(offline._weak_share(y, best.prices, G, alpha, **statement))
    return max(pairs)


def strong(**statement):
    return max(
        offline._certificate_share(x, best.utility, G, alpha, **statement)
        for G, alpha, best, x in offline_games()
    )


# --- online gradient


def points():
    rng = np.random.default_rng(5)
    ties = [rng.integers(-2, 3, size=12) / 4 for _ in range(20)]
    return [*ties, np.array([0.2, 0.3, 0.5]), rng.normal(size=7) * 5]


def projection(project=gradient.simplex_projection):
    return max(gradient._obtuse_excess(v, project(v)) for v in points()) / 1e-12


def cut_and_divided(v):
    positive = np.maximum(v, 1e-9)
    return positive / positive.sum()


def first_multiplier(v):
    """The projection with all entries kept, cut at zero afterwards."""
    return np.maximum(v - (v.sum() - 1) / v.size, 0)


def lemma(**statement):
    return max(gradient._lemma_shares(points(), **statement))


@cache
def gradient_paths():
    rng = np.random.default_rng(6)
    paths = [(gradient.gradient_path(worst_gradients(0.04, 4000, 200)), 1.0)]
    hard = worst_gradients(0.04, 4000, 200, nonnegative=True)
    paths.append((gradient.gradient_path(hard), 0.5))
    uniform = gradient.gradient_path(rng.random((200, 4)))
    return [*paths, (uniform, 0.75)]


def adaptive(factor=None):
    return max(gradient._regret_share(p, rho, factor) for p, rho in gradient_paths())


@cache
def released_paths():
    return [
        gradient.gradient_path(
            gradient._swinging_gradients(size, 6000), step=gradient.released_step
        )
        for size in (0.1, 1.0, 10.0)
    ]


def released(bound=None, **floor):
    statement = {"bound": bound} if bound else {}
    shares = [gradient._released_share(p, **statement) for p in released_paths()]
    constant = np.tile([1e-4, 0], (3000, 1))
    path = gradient.gradient_path(constant, step=gradient.released_step)
    return max(*shares, gradient._floor_share(path, 1e-4, **floor))


def tight(**statement):
    return max(gradient._tight_shares(**statement))


# --- baselines


def hedge(**statement):
    shares = []
    for n in (2, 20):
        eta = (8 * np.log(n) / 10**5) ** 0.5
        rewards = baselines._turning_rewards(10**5, n, eta)
        shares.append(baselines._hedge_share(rewards, eta, **statement))
    return max(shares)


@cache
def fair_solution():
    rng = np.random.default_rng(7)
    scores, q = -3 * rng.random((5, 4)), rng.dirichlet(np.ones(5))
    p = cp.Variable((5, 4))
    cost = cp.sum(cp.multiply(-scores, p)) - cp.sum(cp.entr(p))
    quota = [cp.sum(p, axis=1) == 1, q @ p >= 0.98 / 4]
    problem = cp.Problem(cp.Minimize(cost), quota)
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    return p.value, scores, q, 0.98 / 4


def dual(**statement):
    return baselines._dual_error(*fair_solution(), **statement)


# --- limits


def ceiling(**statement):
    lengths, rng = ([3, 3, 9], [1, 4, 16, 16]), np.random.default_rng(8)
    return max(
        limits._ceiling_share(n, a, rng=rng, **statement)
        for n in lengths
        for a in ALPHAS
    )


def ceiling_of(shares):
    return {"ceiling": lambda n, a: utility.alpha_fair_utility(1 + shares(n), a)}


def floor(**statement):
    rounds = np.geomspace(10, 1e12, 40).round()
    return max(
        limits._floor_share(rounds, [1, x], a, c, **statement)
        for x in (1, 4)
        for a in ALPHAS
        for c in (1.0, 1.01)
    )


def floor_times(factor, shift=0.0):
    def changed(T, lengths, alpha, *, factor_=factor, **given):
        c = given["factor"]
        plain = limits.regret_floor(T, lengths, alpha, factor=c)
        constant = -c * len(lengths) / (1 - alpha)
        return factor * (plain - constant) + (1 - shift) * constant

    return {"floor": changed}


def below(**statement):
    return max(limits._below_share(a, **statement) for a in ALPHAS)


def power(**statement):
    return max(
        limits._power_error(a, t, **statement) for a in ALPHAS for t in (0.2, 0.5)
    )


def best_factor(**statement):
    return max(limits._tight_share(a, **statement) for a in ALPHAS)


# --- one context


@cache
def single_optima():
    """Sums, alpha, and the optima from nothing and from 1 by cvxpy."""
    rng, x, found = np.random.default_rng(10), cp.Variable(4, nonneg=True), []
    for alpha in (0.2, 0.5, 0.8):
        for G in (rng.gamma(1, 50, 4), np.array([1e4, 0.5, 0.5, 0.5])):
            optima = []
            for start in (0, 1):
                earned = start + cp.multiply(G, x)
                total = cp.sum(cp.power(earned, 1 - alpha, approx=False)) / (1 - alpha)
                problem = cp.Problem(cp.Maximize(total), [cp.sum(x) == 1])
                optima.append(problem.solve(solver=cp.CLARABEL))
                assert problem.status == cp.OPTIMAL
            found.append((G, optima, alpha))
    return found


def best_distribution(**statement):
    shares = [
        one_context._leader_share(*given, **statement) for given in single_optima()
    ]
    return max(shares) - 1e-5  # tolerance of the solver


@cache
def paths():
    rng = np.random.default_rng(11)
    straight = np.outer([1.0, 2, 5], [0.3, 2, 7])
    first = np.array([[1.0, 1], [1, 30], [30, 30]])
    return straight, first, *(one_context._corners(3, 6, rng=rng) for _ in range(8))


def never_behind(**statement):
    return max(
        one_context._path_share(corners, a, **statement)
        for corners in paths()
        for a in (0.2, 0.5, 0.9)
    )


def value_times(factor):
    return {"value": lambda H, a: factor * one_context.leader_value(H, a)}


def played(play, alphas, arms, n_rounds):
    """Games of the adversaries of the chapter: alpha, R and H of each."""
    rng, games = np.random.default_rng(12), []
    for a in alphas:
        for n in arms:
            for adversary in one_context._adversaries(n, a, rng=rng).values():
                rule = lambda R, H, a=a: play(R, H, a)  # noqa: E731
                games.append((a, *one_context._played(rule, adversary, n, n_rounds)))
    return games


@cache
def led():
    return played(lambda R, H, a: one_context.leader(H, a), ALPHAS, (2, 5), 400)


def follow(**statement):
    return max(one_context._rounds_share(*game, **statement) for game in led())


@cache
def gaps_kept(alphas):
    return played(one_context.gap_play, alphas, (2, 20), 400)


@cache
def idle_arms():
    """Half of twenty arms pay, at 0.6, beyond the theorem."""
    rule = lambda R, H: one_context.gap_play(R, H, 0.6)  # noqa: E731
    half = np.arange(20) < 10
    return [(0.6, *one_context._played(rule, lambda *_: half, 20, 4000))]


def gap_kept(games=None, **statement):
    games = gaps_kept((0.1, 0.3, 0.5)) if games is None else games()
    return max(one_context._gap_share(*game, **statement) for game in games)


@cache
def loads():
    turn, games = lambda t, *_: np.eye(3)[t % 3], []
    for d in (1.02, 1.5, 2.0, 4.0):
        rule = lambda R, H, d=d: one_context.gap_play(R, H, 1 - d)  # noqa: E731
        games.append((d, *one_context._played(rule, turn, 3, 3000)))
    return games


def load_kept(**statement):
    return max(one_context._load_share(*game, **statement) for game in loads())


# --- late feedback


@cache
def late_games():
    """Games against blocks that turn as late as rewards come, with their m."""
    games = []
    for m in (0, 5, 50):
        for factor in (1, 3, 10):
            stream = late_feedback.block_stream(1500, factor * (m + 1))
            policy = late_feedback.LateGradient(2, 0.0, waiting=m)
            delays = np.full(1500, m)
            games.append((late_feedback.late_game(policy, stream, delays), m))
    hard = worst_gradients(0.04, 4000, 200, nonnegative=True)
    none = np.zeros(len(hard), int)
    stream = RewardStream(contexts=none, rewards=hard / hard.max(), n_contexts=1)
    policy = late_feedback.LateGradient(2, 0.0, waiting=0)
    return [*games, (late_feedback.late_game(policy, stream, none), 0)]


def late(**statement):
    return max(late_feedback._late_share(*game, **statement) for game in late_games())


@cache
def late_fair():
    """What the bound on the regret must cover, and its sum of roots, for M and N."""
    rng, found = np.random.default_rng(13), []
    for m, M in ((0, 1), (20, 1), (20, 3)):
        stream = late_feedback.block_stream(2000, m + 1)
        contexts = rng.integers(M, size=2000)
        stream = RewardStream(contexts=contexts, rewards=stream.rewards, n_contexts=M)
        for a in (0.0, 0.3, 0.6):
            policy = late_feedback.LateGradient(2, a, waiting=m)
            late_feedback.late_game(policy, stream, np.full(2000, m))
            G = reward_sums(stream.contexts, stream.rewards, M)
            U = utility.alpha_fair_utility(policy.rewards, a)
            missed = solve_offline(G, a).utility - full.approximation_factor(a) * U
            covered = missed / (1 - a) ** a + 2 * a / (1 - a)
            found.append((covered, policy.squared_norms, U, m, M))
    return found


def late_and_fair(roots=lambda S: 2 * np.sqrt(S).sum(), room=None):
    shares = [0.0]
    for covered, S, U, m, M in late_fair():
        a = 2 * (1 + 2 * m * 2**0.5)
        shares.append(covered / max(roots(S), 1e-9))
        limit = 2 * a * M + (a * M * U) ** 0.5 if room is None else room(a, M, U)
        shares.append(np.sqrt(S).sum() / limit)
    return max(shares)


def from_logs(**statement):
    rng = np.random.default_rng(14)
    contexts, rewards = np.array([0, 1, 1, 0]), rng.random((4, 2))
    stream = RewardStream(contexts=contexts, rewards=rewards, n_contexts=2)
    maps = rng.dirichlet(np.ones(2), 6).reshape(3, 2, 2)
    return max(
        late_feedback._log_error(stream, *maps[:2], predicted, seen, **statement)
        for predicted in (0.0, maps[2])
        for seen in (1.0, 0.7)
    )


def without_predictions(stream, behaviour, fixed_map, predicted, seen):
    return late_feedback._variances(stream, behaviour, fixed_map, 0.0, seen)


def without_missing(stream, behaviour, fixed_map, predicted, seen):
    return late_feedback._variances(stream, behaviour, fixed_map, predicted, 1.0)


# --- scale


def late_lemma(**statement):
    return max(
        scale._late_lemma_share(np.ones(n), late, a, s, **statement)
        for n, late in ((0, 0), (400, 0), (400, 60))
        for a in (0.1, 0.5, 0.9)
        for s in (0.0, 5.0)
    )


def late_state(**statement):
    games = [(3000, 500, 0.0), (3000, 30, 0.0), (0, 500, None), (300, 30, None)]
    return max(
        scale._state_share(
            n, late, a, scale.late_shift(late, a) if s is None else s, **statement
        )
        for n, late, s in games
        for a in (0.1, 0.5, 0.9)
    )


def late_factor(factor):
    return {"factor": lambda a: factor(full.approximation_factor(a))}


@cache
def hard_stream():
    hard = worst_gradients(0.04, 4000, 200, nonnegative=True)
    none = np.zeros(len(hard), int)
    return RewardStream(contexts=none, rewards=hard / hard.max(), n_contexts=1)


@cache
def late_runs():
    """Runs, alpha, lateness and shift, and the best utility of each."""
    stream, alphas = scale.group_stream(64, 64, 4000, 0.8), (0.3, 0.5)
    shifts = (scale.late_shift(4000, 0.3), 0.0)
    runs = scale.play_late(stream, alphas, late=4000, shift=shifts)
    G = reward_sums(stream.contexts, stream.rewards, 1)
    games = [
        (runs, k, a, 4000, shifts[k], solve_offline(G, a).utility)
        for k, a in enumerate(alphas)
    ]
    hard = hard_stream()
    most = 2 + hard.rewards.sum(0).max()  # alpha 0, one context: the best arm
    return [*games, (scale.play_late(hard, [0.0]), 0, 0.0, 0, 0.0, most)]


def late_coupled(**statement):
    return max(scale._coupled_share(*game, **statement) for game in late_runs())


def groups_lose(**statement):
    return max(
        scale._floor_share(n, 8, 2000, 0.7, a, **statement)
        for n, a in ((8, 0.9), (16, 0.5))
    )


def floor_with(change):
    return {"floor": lambda *given: change(scale.late_floor, *given)}


def buckets(**statement):
    G = np.random.default_rng(15).gamma(0.3, 50, size=(6, 3))
    games = [(1e8 * np.eye(4), [0] * 4), (1e8 * np.eye(4), [0, 1, 0, 2])]
    many = np.tile(1e8 * np.eye(3), (3, 1))  # nine contexts, three arms
    games += [(G, [0, 1, 0, 2, 2, 0]), (many, [0] * 9)]
    return max(
        scale._bucket_share(*game, a, **statement)
        for game in games
        for a in (0.1, 0.5, 0.9)
    )


def collisions(**statement):
    return max(
        scale._collision_share(np.diag(T), np.array(T), B, 0.0, **statement)
        for T, B in (([9, 5], 2), ([9, 5], 3), ([9, 9, 9], 5))
    )


def more_lives(**statement):
    hard = np.tile(hard_stream().rewards, (2, 1))
    return scale._lives_share(hard, 2, **statement)


# --- MovieLens


def price_bounds(**statement):
    rng, shares = np.random.default_rng(9), []
    for alpha in (0.001, 0.5):
        G = rng.gamma(0.5, 200, (4, 5))
        shares.append(movielens._price_share(1 + G.sum(0) / 5, G, alpha, **statement))
    return max(shares)


def uniform(**statement):
    games = [(n, a) for n in (2, 5, 10) for a in (0.1, 0.5, 0.9)]
    return max(
        movielens._uniform_share(1e12 * np.eye(n), a, **statement) for n, a in games
    )


def largest(**statement):
    return max(figures._largest_share(n, **statement) for n in (2, 10, 1e12, 1e100))


# --- full information


@cache
def suite():
    """Games of all adversaries, each with its best fixed map."""
    rng, shapes = np.random.default_rng(4), ((1, 2), (2, 2), (3, 5), (5, 3))
    games = []
    for _, game in play_suite(
        full.AlphaFairGradient, ALPHAS, shapes, 240, deltas=(0.05,), rng=rng
    ):
        G = reward_sums(game.contexts, game.rewards, game.n_contexts)
        games.append((game, solve_offline(G, game.alpha).x))
    return games


def over_suite(share: Callable, *, with_map=False) -> Callable:
    """The largest share over the suite, as a function of the statement."""

    def check(**statement):
        return max(
            share(game, *([x] if with_map else []), **statement) for game, x in suite()
        )

    return check


def telescoping(constant=lambda a: -a / (1 - a)):
    found = [
        full.telescoping_excess(game, constant=constant(game.alpha)).max()
        for game, _ in suite()
    ]
    return 1 + max(found)


@cache
def hard_game():
    """Full information at alpha 0 against the worst sequence of two arms."""
    hard = worst_gradients(0.04, 4000, 200, nonnegative=True)
    hard /= hard.max()
    policy = full.AlphaFairGradient(2, 0.0)
    return play_game(policy, lambda t, policy: (0, hard[t]), len(hard), 1)


def certificate(factor=None):
    found = full._certificate_share(hard_game(), np.eye(2)[:1], factor)
    share = over_suite(full._certificate_share, with_map=True)
    return max(found, share(factor=factor))


def changing(**statement):
    coins = partial(full._masked_coins, rng=np.random.default_rng(6))
    games = [(2, 0.0, full._newest_pays), (2, 0.9, full._newest_pays), (6, 0.5, coins)]
    return max(
        full._changing_share(full.AlphaFairGradient(n, a), 25, pay, **statement)
        for n, a, pay in games
    )


@cache
def late_growth(M, N, delta, alpha):
    rounds = 1000 * 2 ** np.arange(9)
    R, _ = norms_over_time(late_rewards(M, N, rounds[-1], delta=delta), alpha, rounds)
    return rounds, R, alpha, delta, M


def growth(bound=full._growth_bound):
    runs = [(1, 1, 1.0, 0.01), (1000, 10, 0.03, 0.05), (1, 3, 0.1, 0.3)]
    return max(full._growth_share(*late_growth(*run), bound=bound) for run in runs)


T = 2 ** np.arange(11, 22)


@cache
def coins(alpha):
    rewards = np.maximum(np.random.default_rng(4).random((T[-1], 2)) < 0.5, 0.9)
    none = np.zeros(T[-1], int)
    stream = RewardStream(contexts=none, rewards=rewards, n_contexts=1)
    return norms_over_time(stream, alpha, T)[1]


def phase(growth=full._phase_growth, bound=full.norms_bound, alphas=ALPHAS):
    gaps = [full._phase_gap(T, coins(a), a, growth) / 0.01 for a in alphas]
    return max(*gaps, *(full._phase_share(T, coins(a), a, 0.9, bound) for a in alphas))


def norms_without_integral(T, M, N, alpha, delta):
    return N * np.minimum(T, np.ceil(4 * N * M / delta) + 1 + 8 * N * M / delta)


@cache
def probe_game(alpha):
    return probe_norms(2**20, alpha)


def probe(floors=full._probe_floors):
    t = np.arange(1, 2**20 + 1)
    shares = [full._probe_shares(t, *probe_game(a), a, floors) for a in ALPHAS]
    return np.max(shares)


def probe_floors(rate=None, of_regret=None):
    """The theorem's floors with one of them replaced."""

    def floors(t, S, alpha):
        norms, regret = full._probe_floors(t, S, alpha)
        if rate:
            norms = rate(t, alpha)
        return norms, of_regret(S) if of_regret else regret

    return {"floors": floors}


# --- bandit feedback


def newton(**statement):
    rng = np.random.default_rng(20)
    vectors = [10 ** rng.uniform(-6, 6, n) for n in [2, 5, 19, 200] * 25]
    vectors += [np.zeros(n) for n in (2, 30)] + [np.array([0, 1e12, 1e12])]
    return bandit._newton_share(vectors, **statement)


@cache
def unweighted(paying):
    rewards = np.tile((np.arange(20) < paying).astype(float), (2**17, 1))
    return unweighted_run(rewards, rng=np.random.default_rng(20))


def on_paths(bounds=bandit._path_bounds):
    found = [bandit._path_slacks(*unweighted(paying), bounds) for paying in (1, 20)]
    return np.max(found)


def _path_bounds(room=None, *, regret=1.0, penalties=1.0, without_start=False):
    """The theorem's bounds with another room for the barrier, or scaled."""

    def bounds(policy, state, squares):
        first, second = bandit._path_bounds(policy, state, squares)
        if room:
            share = room(policy) / policy.barrier
            first = share * (first - 2 * state.penalties) + 2 * state.penalties
            second *= share**0.5
        if without_start:
            first = 2 * state.penalties
        return regret * first, penalties * second

    return {"bounds": bounds}


GAPS = (((2**19, 16, 20), 0.5),)


@cache
def gaps(sizes, mean):
    return gap_runs(*sizes, 3, mean=mean, rng=np.random.default_rng(20))


def in_the_mean(bound=bandit.bandit_bound):
    return max(bandit._mean_share(gaps(s, mean), s, bound) for s, mean in GAPS)


def root_times(scale):
    """The bound in the mean with `scale(T, M, N, U)` times what is in the root."""

    def bound(utility, scales, alpha, *, n_arms, n_contexts, horizon):
        sizes = {"n_arms": n_arms, "n_contexts": n_contexts, "horizon": horizon}
        inside = utility * scale(horizon, n_contexts, n_arms, utility)
        return bandit.bandit_bound(inside, scales, alpha, **sizes)

    return {"bound": bound}


# --- high probability


def at_once(**statement):
    games = (2, (0,) * 6), (2, (0, 1) * 4), (3, (0, 0, 1, 0, 0))
    return max(likely._sums_share(n, c, **statement) for n, c in games)


@cache
def one_arm_games():
    return likely._one_arm_games(rng=np.random.default_rng(31))


def with_high_probability(**statement):
    return likely._game_shares(one_arm_games(), **statement)[1:].max()


def weighed(room=1.0, gamma=1.0, mean=False):
    """The bound on runs, or in the mean, with its two terms multiplied."""

    def bound(earned, eta, n, m):
        size = m * np.log(n) if mean else 2 * m * np.log(n) + np.log(len(earned))
        given_away = n * eta / (1 - n * eta) * earned.sum(-1)
        given_away = given_away.mean() if mean else given_away
        return room * size / eta + gamma * given_away

    return bound


def earnings(bound=likely.earnings_bound):
    """Arms in turn that always pay earn as much as can be earned."""
    share = 0.0
    for alpha in (0, 0.1, 0.5, 0.9, 1):
        for n, each in ((2, 10_000), (5, 10), (20, 1000)):
            earned = n * (np.arange(1.0, each + 1) ** -alpha).sum()
            share = max(share, earned / bound(n * each, alpha, n_arms=n))
    return share


def horizons(**statement):
    alphas = (0, 0.5, 0.9, 1)
    return max(likely._horizon_share(a, 10**5, **statement) for a in alphas)


def guesses(**statement):
    return max(likely._guess_share(2**14, T, **statement) for T in (10, 2**14))


def guess_bound(first=1.0, penalties=1.0, log=np.log):
    """The bound on a path with its terms multiplied, or another logarithm."""

    def bound(state, scale, n, room, n_rounds):
        T = log(n_rounds)
        start = 2 * n * T * scale
        return first * start + penalties * (1 + n * T / room) * state.penalties

    return bound


@cache
def scale_free_losses():
    rng = np.random.default_rng(31)
    one = np.tile(-(np.arange(6) == 0).astype(float), (1500, 1))
    return one, rng.choice([-1.0, 1.0], (1500, 6))


def scale_free(one_round=None, **statement):
    shares = [likely._round_shares(**(one_round or {})).max()]
    for losses in scale_free_losses():
        rng = np.random.default_rng(31)
        shares.append(likely._scale_free_shares(losses, **statement, rng=rng).max())
    return max(shares)


# --- slates


def slate_projection(**statement):
    points = np.random.default_rng(41).normal(size=(20, 7)) * 2
    return slates._projection_share(points, range(1, 7), **statement)


def slate_regret(**statement):
    shares = []
    for n, k in [(6, 2), (6, 4), (64, 32)]:
        half = np.repeat(np.eye(2), [k, n - k], axis=1)
        for rows in ([0] * 40, [0] * 25 + [1] * 75):
            path = slates.slate_path(half[rows], k)
            shares.append(slates._regret_share(path, k, **statement))
    return max(shares)


@cache
def slate_games():
    """Games of slates with their best maps, and one that rewards half of 64 arms."""
    rng, found = np.random.default_rng(42), []
    build = partial(SlateGradient, slate=2)
    for _, game in play_suite(build, (0.1, 0.5, 0.9), [(3, 6)], 150, rng=rng):
        G = reward_sums(game.contexts, game.rewards, 3)
        found.append((game, solve_offline(G, game.alpha, slate=2).x, 2))
    half = np.repeat([1.0, 0.0], 32)
    policy = SlateGradient(64, 0.5, 32)
    game = play_game(policy, lambda t, policy: (0, half), 5, 1)
    return [*found, (game, half[None], 32)]


def fair_slates(bound=slates._explicit_bound, factor=slates.slate_factor):
    return max(
        share
        for game, best, k in slate_games()
        for share in (
            slates._reduced_share(game, best, k, factor),
            slates._explicit_share(game, k, bound),
        )
    )


def slate_optimum(**statement):
    rng, shares = np.random.default_rng(43), []
    for alpha in (0.2, 0.5, 0.9):
        G = rng.gamma(0.5, 40, (4, 6))
        best = solve_offline(G, alpha, slate=3).x
        maps = [best, np.full((4, 6), 0.5)]
        shares.append(slates._offline_share(maps, G, alpha, 3, **statement))
    return max(shares)


def slate_dual(times=1.0, fewer=0):
    return lambda p, G, a, slate: (
        times * offline.dual_value(p, G, a, slate=slate - fewer)
    )


@cache
def shown_runs():
    """Slates of what always pays, told of what was shown alone, at alpha 0."""
    rng = np.random.default_rng(45)
    games = ((np.ones((2**13, 40)), 2), (np.ones((2**16, 20)), 3))
    return [unweighted_run(rewards, rng=rng, slate=k)[0] for rewards, k in games]


def shown_on_paths(bounds=slates._shown_bounds):
    return max(slates._shown_share(policy, bounds) for policy in shown_runs())


def shown_bounds(regret=1.0, penalties=1.0, room=None):
    def bounds(state, barrier, squares):
        first, second = slates._shown_bounds(state, barrier, squares)
        if room:
            second *= (room(state, barrier) / barrier) ** 0.5
        return regret * first, penalties * second

    return {"bounds": bounds}


SHOWN = (2**16, 4, 12)


@cache
def shown_gaps():
    rng = np.random.default_rng(46)
    return gap_runs(*SHOWN, 4, mean=0.5, rng=rng, slate=2)


def shown_in_the_mean(bound=slates.slate_bandit_bound):
    return slates._shown_mean_share(shown_gaps(), SHOWN, 2, bound)


def shown_root(scale):
    """The bound in the mean with `scale(U)` times what is in the root."""

    def bound(utility, *given, **sizes):
        return slates.slate_bandit_bound(utility * scale(utility), *given, **sizes)

    return {"bound": bound}


def slate_factors(ceiling=limits.nested_ceiling, **statement):
    lengths, shares = np.array([300, 600, 1200]), []
    stream = slates.slate_phase_stream(lengths, 2, rng=np.random.default_rng(44))
    blocks = np.kron(np.eye(4), np.ones((1, 3))) * 1e8
    for alpha in (0.1, 0.5, 0.9):
        shares.append(slates._phases_share(stream, lengths, alpha, 2, ceiling))
        shares.append(slates._uniform_share(blocks, alpha, 3, **statement))
    return max(shares)


def slate_draws(**statement):
    points = ([0.5, 0.25, 0.25, 1.0], [0.5] * 6, [0.875, 0.75, 0.375])
    return max(slates._draw_share(np.array(x), **statement) for x in points)


# --- beyond one

BEYOND = (0.5, 1, 2, 8)


def uniform_play(**statement):
    rng, found = np.random.default_rng(4), []
    for G in (1e5 * np.eye(4), *rng.gamma(0.3, 20, (3, 3, 4))):
        for a in BEYOND:
            best = utility.equivalent_reward(solve_offline(G, a).rewards, a)
            found.append(beyond_one._uniform_share(G, a, best, **statement))
    return max(found)


def hidden_order(more=1.0):
    """What is proved to be lost, times `more`, over what the game takes."""
    found, step = [], 1e4
    for n in (2, 3, 6):
        lengths = step ** np.arange(n)
        for a in (1.5, 2, 8):
            proved = n * (1 + (n - 1) * step ** (1 - a)) ** (-1 / (a - 1))
            found.append(more * proved / beyond_one.price_of_order(lengths, a))
        proved = (1 - 1e-4) * np.exp(np.log(np.arange(1, n + 1)).mean())
        found.append(more * proved / beyond_one.price_of_order(lengths, 1))
    return max(found)


def nash_welfare(**statement):
    """One paying arm of three, and three of eight: the optima are known."""
    G = np.array([1e12, 0, 0]), np.array([1e12] * 3 + [0] * 5)
    best = np.log1p(1e12), 3 * np.log1p(1e12 / 3)
    return max(beyond_one._nash_share(*both, **statement) for both in zip(G, best))


@cache
def halves():
    """What half of a policy earned, alone, and uniform play, with its books' alpha."""
    rng, found = np.random.default_rng(6), []
    contexts = rng.integers(3, size=300)
    for r in (rng.random((300, 3)) * [1, 0.5, 0.1], np.ones((300, 3))):
        stream = RewardStream(contexts=contexts, rewards=r, n_contexts=3)
        for a in (1.5, 3, 8):
            alone = full.AlphaFairGradient(3, 1)
            alone.alpha = a
            lead = one_context.leader(1 + np.cumsum(r, 0) - r, a)
            own = simulate(alone, stream).rewards[-1], 1 + (r * lead).sum(0)
            for kind, earned in zip(
                (beyond_one.HalfGradient, beyond_one.HalfLeader), own
            ):
                R = simulate(kind(3, a), stream).rewards[-1]
                found.append((R, earned, 1 + r.sum(0) / 3))
    return found


def half_policy(**statement):
    """Both halves' equivalent rewards over that of the mixture, at every judge."""
    return max(
        beyond_one._half_share(*game, judge, **statement)
        for game in halves()
        for judge in BEYOND
    )


# --- stochastic

CERTAIN = stochastic.BernoulliModel(np.ones(1), np.ones((1, 1)))
ONE_ARM = stochastic.BernoulliModel(np.ones(1), np.array([[0.5]]))


@cache
def drawn_optima():
    """Models with alpha, number of rounds and optima of drawn streams."""
    rare = stochastic.BernoulliModel(np.full(20, 1 / 20), np.full((20, 40), 1 / 40))
    rng, found = np.random.default_rng(20), []
    for model, a, T, n in (
        (CERTAIN, 0.5, 9, 2),
        (rare, 0.1, 20, 60),
        (ONE_ARM, 0.9, 1, 800),
    ):
        draws = stochastic._optima_draws(model, a, T, n, rng=rng)
        found.append((model, a, T, draws))
    return found


def optima(**statement):
    return max(stochastic._optima_share(*case, **statement) for case in drawn_optima())


def fluctuation_times(factor):
    return lambda means, a, T: (
        factor(*means.shape) * stochastic.fluctuation(means, a, T)
    )


@cache
def turning():
    """Model, alpha and runs that turn to a bad arm."""
    model, found = stochastic.random_model(3, 4, rng=np.random.default_rng(41)), []
    for case, a, T, turn, n in (
        (model, 0.0, 3000, 0, 200),
        (model, 0.3, 30_000, 27_000, 10),
        (ONE_ARM, 0.9, 2, 5, 20_000),
    ):
        rng = np.random.default_rng(21)
        runs = stochastic._turning_runs(case, a, T, turn, n, rng=rng)
        found.append((case, a, runs))
    return found


def exactly(**statement):
    return max(stochastic._reduction_share(*case, **statement) for case in turning())


def regret_times(factor):
    return {
        "right": lambda r, v, w, a: stochastic._reduction_right(factor(a) * r, v, w, a)
    }


@cache
def runs_of_many(play):
    """Two models, few rounds a context and one arm, with runs of a policy."""
    play, found = getattr(stochastic, play), []
    many = stochastic.random_model(1000, 4, rng=np.random.default_rng(3))
    for model, a, T in ((many, 0.0, 4000), (CERTAIN, 0.01, 4000), (CERTAIN, 0.1, 4000)):
        found.append((model, a, T, play(model, a, T, 5, rng=np.random.default_rng(22))))
    return found


def drawn_full(**statement):
    cases = runs_of_many("coupled_runs")
    return max(stochastic._full_shares(*case, **statement).max() for case in cases)


def drawn_bandit(**statement):
    cases = runs_of_many("bandit_runs")
    return max(stochastic._bandit_shares(*case, **statement).max() for case in cases)


def over_contexts(bound):
    return lambda means, a, T: bound(means, a, T) / len(means) ** 0.5


@cache
def frank_wolfe_shares():
    many = stochastic.random_model(1000, 3, rng=np.random.default_rng(2))
    rng = np.random.default_rng(23)
    bound = lambda *given, **prior: 1.0  # noqa: E731
    share = stochastic._frank_wolfe_share(
        many, 0.1, 2000, rng=rng, n_runs=2, bound=bound
    )
    return many.means, share


def frank_wolfe(bound=stochastic.frank_wolfe_bound):
    means, regret = frank_wolfe_shares()
    return regret / bound(means, 0.1, 2000, prior=3.0)


CLAIMS = {
    "thm-stochastic-optima": Claim(
        optima,
        {
            "0.4 of the root": {"above": fluctuation_times(lambda m, n: 0.4)},
            "without M": {"above": fluctuation_times(lambda m, n: m**-0.5)},
            "without the sum over arms": {
                "above": fluctuation_times(lambda m, n: n**-0.5)
            },
            "never above the mean problem": {"above": lambda *case: 0.0},
            "never below it": {"below": lambda n: 1e-9},
            "a thousandth less for policies": {"ceiling": 0.999},
        },
    ),
    "thm-stochastic-reduction": Claim(
        exactly,
        {
            "2 % less of the regret": regret_times(lambda a: 0.98),
            "regret weighs less": regret_times(lambda a: (1 - a) ** 2),
            "linear regret alone": {"right": lambda r, *rest: r},
        },
    ),
    "thm-stochastic-full": Claim(
        drawn_full,
        {
            "95 % of an arm": {"arm": lambda *case: 0.95 * stochastic._full_arm(*case)},
            "a smaller power": {
                "arm": lambda *case: stochastic._full_arm(*case) ** 0.95
            },
            "without M": {"bound": over_contexts(stochastic.exact_bound)},
            "a thirtieth": {"bound": lambda *case: stochastic.exact_bound(*case) / 30},
        },
    ),
    "thm-stochastic-bandit": Claim(
        drawn_bandit,
        {
            "98 % of the squares": {
                "squares": lambda *case: 0.98 * stochastic._squares_bound(*case)
            },
            "without the first heights": {
                "squares": lambda t, a, n: stochastic._squares_bound(t, a, n) - n
            },
            "a smaller power": {
                "squares": lambda t, a, n: stochastic._squares_bound(t, 1.1 * a, n)
            },
            "a hundredth": {
                "bound": lambda *case: stochastic.exact_bandit_bound(*case) / 100
            },
        },
    ),
    "thm-stochastic-frank-wolfe": Claim(
        frank_wolfe,
        {
            "a thousandth": {
                "bound": lambda *case, prior: (
                    stochastic.frank_wolfe_bound(*case, prior=prior) / 1000
                )
            },
            "without contexts and arms": {
                "bound": lambda means, a, T, prior: stochastic.frank_wolfe_bound(
                    np.ones((1, 1)), a, T, prior=prior
                )
            },
        },
    ),
    "thm-beyond-one-uniform": Claim(
        uniform_play,
        {
            "0.99 N": {"factor": lambda n: 0.99 * n},
            "N - 0.1": {"factor": lambda n: n - 0.1},
            "N to the 0.9": {"factor": lambda n: n**0.9},
        },
    ),
    "thm-beyond-one-floor": Claim(
        hidden_order, {"a thousandth more": {"more": 1.001}, "a tenth": {"more": 1.1}}
    ),
    "thm-beyond-one-nash": Claim(
        nash_welfare,
        {
            "0.99 N / e": {"bound": lambda n: 0.99 * n / np.e},
            "N / 3": {"bound": lambda n: n / 3},
            "ln N": {"bound": np.log},
        },
    ),
    "thm-beyond-one-half": Claim(
        half_policy,
        {
            "more of the leader": {"weights": (0.6, 0.5)},
            "more of uniform play": {"weights": (0.5, 0.6)},
        },
    ),
    "thm-utility-elasticity": Claim(
        elasticity,
        {
            "slope 1": {"slope": lambda a: 1.0},
            "slope 1 - alpha / 2": {"slope": lambda a: 1 - a / 2},
            "scaling without alpha": {"power": lambda a: 1.0},
        },
    ),
    "thm-utility-variational": Claim(
        votes,
        {
            "plain changes": {"weight": lambda R, a: np.ones_like(R)},
            "relative changes": {"weight": lambda R, a: 1 / R},
            "squared weights": {"weight": lambda R, a: R ** (-2 * a)},
        },
    ),
    "thm-utility-limits": Claim(
        maxmin,
        {
            "exponent 1 / alpha": {"ceiling": lambda n, a: n ** (1 / a)},
            "one arm fewer": {"ceiling": lambda n, a: (n - 1) ** (1 / (a - 1))},
            "no factor": {"ceiling": lambda n, a: 1.0},
        },
    ),
    "thm-utility-price": Claim(
        price,
        {
            "mean in place of the largest": {
                "limit": lambda w: 1 - len(w) / (w.mean() * (1 / w).sum())
            },
            "least over largest": {"limit": lambda w: 1 - w.min() / w.max()},
            "1 % less": {
                "limit": lambda w: 0.99 - 0.99 * len(w) / (w.max() * (1 / w).sum())
            },
        },
    ),
    "thm-utility-conjugate": Claim(
        conjugate,
        {
            "1 % less": {"formula": scaled_conjugate},
            "exponent of the utility": {"formula": plain_power},
            "every price at alpha 0": {"formula": any_price_at_zero},
        },
    ),
    "thm-utility-fenchel-young": Claim(
        fenchel,
        {
            "0.1 % less": {"right": lambda p, u: 0.999 * p * u},
            "equality at 1 / u": {"price": lambda u, a: 1 / u},
        },
    ),
    "thm-offline-sums": Claim(
        sums,
        {
            "totals of the arms": {"statistic": lambda c, r, m: r.sum(0)},
            "totals of the contexts": {
                "statistic": lambda c, r, m: offline.reward_sums(c, r, m).sum(1)
            },
            "the rounds in order": {"statistic": lambda c, r, m: r},
        },
    ),
    "thm-offline-weak": Claim(
        weak,
        {
            "1e-6 less": {
                "dual": lambda *given: offline.dual_value(*given) * (1 - 1e-6)
            },
            "without the initial rewards": {
                "dual": lambda p, *given: offline.dual_value(p, *given) - p.sum()
            },
            "mean over the arms": {
                "dual": lambda p, G, a: (
                    offline.dual_value(p, G, a)
                    - (p * G).max(1).sum()
                    + (p * G).mean(1).sum()
                )
            },
        },
    ),
    "thm-offline-strong": Claim(
        strong,
        {
            "1 % less": {"gap": lambda *given: 0.99 * offline.certificate(*given)},
            "half": {"gap": lambda *given: 0.5 * offline.certificate(*given)},
        },
    ),
    "thm-online-gradient-projection": Claim(
        projection,
        {
            "cut and divided": {"project": cut_and_divided},
            "all entries kept": {"project": first_multiplier},
            "exponential": {"project": lambda v: np.exp(v) / np.exp(v).sum()},
        },
    ),
    "lem-online-gradient-projection": Claim(
        lemma,
        {
            "an angle below zero": {"angle": 0.01},
            "1 % nearer": {"factor": 0.99},
            "scale in place of shift": {"move": lambda v, c: v * c},
        },
    ),
    "thm-online-gradient-regret": Claim(
        adaptive,
        {
            "3 % less": {"factor": lambda rho, D, d: 0.97 * (rho + D / 2 - d / 2)},
            "half of rho": {"factor": lambda rho, D, d: rho / 2 + D / 2 - d / 2},
            "half of the distance": {"factor": lambda rho, D, d: rho + D / 4 - d / 4},
            "whole last distance": {"factor": lambda rho, D, d: rho + D / 2 - 2 * d},
        },
    ),
    "thm-online-gradient-released": Claim(
        released,
        {
            "without the largest norm": {"bound": lambda largest, root: root},
            "largest norm alone": {"bound": lambda largest, root: largest * root},
            "a tenth less": {"bound": lambda largest, root: 0.9 * (1 + largest) * root},
            "floor a twentieth higher": {"slope": 1.05 / 4},
            "floor that falls later": {"loss": 1 / 4},
        },
    ),
    "thm-online-gradient-tight": Claim(
        tight,
        {"signed 2.1": {"signed": 2.1}, "non-negative 1.6": {"rewards": 1.6}},
    ),
    "thm-baselines-hedge": Claim(
        hedge,
        {
            "1 % less": {
                "bound": lambda n, T, eta: 0.99 * (np.log(n) / eta + eta * T / 8)
            },
            "half the logarithm": {
                "bound": lambda n, T, eta: np.log(n) / eta / 2 + eta * T / 8
            },
            "eta T / 10": {"bound": lambda n, T, eta: np.log(n) / eta + eta * T / 10},
        },
    ),
    "thm-baselines-dual": Claim(
        dual,
        {
            "multipliers without q": {
                "play": lambda s, q, t: baselines._exponential_play(s, 0 * q + 0.2, t)
            },
            "half the multipliers": {
                "play": lambda s, q, t: baselines._exponential_play(s, q, t / 2)
            },
            "all multipliers positive": {"least": 0.01},
        },
    ),
    "thm-limits-ceiling": Claim(
        ceiling,
        {
            "one more arm alive": ceiling_of(
                lambda n: np.cumsum(np.array(n) / np.arange(len(n) + 1, 1, -1))
            ),
            "all arms share every phase": ceiling_of(
                lambda n: np.cumsum(np.array(n) / len(n))
            ),
            "map with one reward unit more": {
                "map_": lambda n, a: utility.alpha_fair_utility(2 + np.array(n), a)
            },
        },
    ),
    "thm-limits-floor": Claim(
        floor,
        {
            "0.1 % higher": floor_times(1.001),
            "without the constant": floor_times(1.0, shift=1.0),
        },
    ),
    "thm-limits-below": Claim(
        below,
        {
            "1 % smaller": {"factor": lambda a: 0.99 * (1 - a) ** (a - 1)},
            "root": {"factor": lambda a: (1 - a) ** (a / 2 - 0.5)},
        },
    ),
    "thm-limits-power": Claim(
        power,
        {
            "the factor itself": {"limit": lambda a, t: (1 - a) ** (a - 1)},
            "tau 5 % larger": {"limit": lambda a, t: limits.limit_ratio(a, 1.05 * t)},
        },
    ),
    "thm-limits-tight": Claim(
        best_factor,
        {
            "a smaller factor serves": {"above": lambda a: 0.98 * (1 - a) ** (a - 1)},
            "even larger ones do not": {"below": lambda a: 1.05 * (1 - a) ** (a - 1)},
        },
    ),
    "thm-one-context-leader": Claim(
        best_distribution,
        {
            "0.1 % more": value_times(1.001),
            "0.1 % less": value_times(0.999),
            "exponent 1 / alpha": {
                "value": lambda H, a: (H ** (1 / a)).sum() ** a / (1 - a)
            },
            "one arm fewer in the room": {"room": 2.9},
        },
    ),
    "thm-one-context-path": Claim(
        never_behind,
        {
            "0.1 % ahead": value_times(1.001),
            "play in proportion to the sums": {
                "play": lambda H, a: one_context.leader(H, 0.5)
            },
            "play all on the best arm": {
                "play": lambda H, a: one_context.leader(H, 0.01)
            },
            "uniform play": {"play": lambda H, a: one_context.leader(H, 1.0)},
        },
    ),
    "thm-one-context-regret": Claim(
        follow,
        {
            "no price": {"error": lambda H, a: 1e-9 * np.log(H)},
            "half of the price": {
                "error": lambda H, a: one_context.leader_error(H, a) / 2
            },
            "without the logarithm": {
                "error": lambda H, a: one_context.leader_error(0 * H + 9, a)
            },
            "price without q": {"error": lambda H, a: np.log(H) / (8 * np.log(2))},
            "no regret": {"bound": lambda T, a, n: 1e-9},
            "a fifth of the bound": {
                "bound": lambda T, a, n: one_context.leader_bound(T, a, n) / 5
            },
        },
    ),
    "thm-one-context-gap": Claim(
        gap_kept,
        {
            "half of the error": {
                "error": lambda R, H, a: one_context.gap_error(R, H, a) / 2
            },
            "of one arm": {
                "error": lambda R, H, a: one_context.gap_error(R, H, a) / R.shape[1]
            },
            "without the logarithm": {
                "error": lambda R, H, a: one_context.gap_error(0 * R + 2, 0 * H + 2, a)
            },
            "without the sums": {
                "error": lambda R, H, a: one_context.gap_error(R, 0 * H + 1, a)
            },
            "at alpha 0.6": {"games": idle_arms},
        },
    ),
    "thm-one-context-loads": Claim(
        load_kept,
        {
            "a tenth of the error": {
                "error": lambda R, H, d: one_context.load_error(R, H, d) / 10
            },
            "without the sums": {
                "error": lambda R, H, d: one_context.load_error(R, 1.0, d)
            },
            "without the logarithm": {
                "error": lambda R, H, d: one_context.load_error(0 * R + 1.5, 1.5, d)
            },
            "without the blow-up at 1": {
                "error": lambda R, H, d: one_context.load_error(R, H, 2.0)
            },
        },
    ),
    "thm-late-feedback-step": Claim(
        late,
        {
            "as if nothing waited": {
                "norms": lambda g, m: late_feedback._late_norms(g, 0)
            },
            "half as many wait": {
                "norms": lambda g, m: late_feedback._late_norms(g, m / 2),
                "factor": 1.0,
            },
            "factor 1.4": {"factor": 1.4},
        },
    ),
    "thm-late-feedback-fair": Claim(
        late_and_fair,
        {
            "a tenth of the roots": {"roots": lambda S: np.sqrt(S).sum() / 5},
            "without the utility": {"room": lambda a, M, U: 0.5 * a * M},
            "without M": {"room": lambda a, M, U: (a * U) ** 0.5 / 2},
        },
    ),
    "thm-late-feedback-log": Claim(
        from_logs,
        {
            "propensities 0.1 % too small": {"told": 0.999},
            "predictions cost nothing and gain nothing": {
                "variances": without_predictions
            },
            "what is missing costs nothing": {"variances": without_missing},
        },
    ),
    "lem-scale-telescoping": Claim(
        late_lemma,
        {
            "0.9 of what is missing": {"right": lambda D: 1 + 0.9 * D},
            "without the 1": {"right": lambda D: D},
            "more on the left": {"left": lambda D: 1.1 + D},
            "as if nothing were late": {
                "left": lambda D: 1.0,
                "right": lambda D: 1.0,
            },
        },
    ),
    "thm-scale-state": Claim(
        late_state,
        {
            "a smaller factor": late_factor(lambda c: 1 + 0.95 * (c - 1)),
            "0.9 of what is missing": {
                "excess": lambda D, *given: scale._excess(0.9 * D, *given)
            },
            "as if nothing were late": {
                "excess": lambda D, *given: scale._excess(0 * D, *given)
            },
            "without the shift in the utility": {
                "utility": lambda R, s, a: utility.alpha_fair_utility(R, a)
            },
        },
    ),
    "thm-scale-coupled": Claim(
        late_coupled,
        {
            "lateness is free": {"cost": lambda d, a, n: 0.0},
            "lateness costs one arm": {
                "cost": lambda d, a, n: scale.late_cost(d, a, 1)
            },
            "0.3 of the power": {"cost": lambda d, a, n: scale.late_cost(d**0.3, a, n)},
            "roots: by the utility alone": {
                "room": lambda R, a: utility.alpha_fair_utility(R, a)
            },
            "kappa 1.4": {"kappa": 1.9},
        },
    ),
    "thm-scale-floor": Claim(
        groups_lose,
        {
            "a twentieth more": floor_with(lambda floor, *g: 1.05 * floor(*g)),
            "with the factor 1": floor_with(
                lambda floor, n, G, d, v, a: (
                    floor(n, G, d, v, a)
                    + n
                    / G
                    * (full.approximation_factor(a) - 1)
                    * utility.arm_utility(2 + d, a)
                )
            ),
            "a group for every arm": floor_with(
                lambda floor, n, G, *g: G * floor(n, G, *g)
            ),
            "others are starved at once": floor_with(
                lambda floor, n, G, d, v, a: (
                    n
                    / G
                    * (
                        G * utility.arm_utility(1 + v * (d + 1) / G, a)
                        - full.approximation_factor(a)
                        * utility.alpha_fair_utility([2 + d, *[1] * (G - 1)], a)
                    )
                )
            ),
        },
    ),
    "thm-scale-buckets": Claim(
        buckets,
        {
            "no factor": {"factor": lambda K, N: 1},
            "0.97 of K": {"factor": lambda K, N: 0.97 * min(K, N)},
            "the root of K": {"factor": lambda K, N: min(K, N) ** 0.5},
        },
    ),
    "thm-scale-collisions": Claim(
        collisions,
        {
            "99 hundredths": {"loss": lambda T, B: 0.99 * scale.collision_loss(T, B)},
            "one bucket more": {"loss": lambda T, B: scale.collision_loss(T, B + 1)},
            "without the second": {
                "loss": lambda T, B: scale.collision_loss(T[1:], B) + 1e-9
            },
        },
    ),
    "thm-scale-lives": Claim(
        more_lives,
        {
            "one learner, not forgotten": {"group": lambda r: (r @ r) ** 0.5},
            "kappa 1.4": {"factor": 1.4},
            "the longest life": {"group": max},
        },
    ),
    "thm-slates-projection": Claim(
        slate_projection,
        {
            "the simplex, scaled": {
                "project": lambda v, k: k * gradient.simplex_projection(v / k)
            },
            "scaled, then cut": {
                "project": lambda v, k: np.minimum(
                    k * gradient.simplex_projection(v / k), 1
                )
            },
            "the k largest": {
                "project": lambda v, k: (v >= np.sort(v)[-k]).astype(float)
            },
        },
    ),
    "thm-slates-regret": Claim(
        slate_regret,
        {
            "as for one arm": {"factor": lambda N, k: 2 - 1 / N},
            "a quarter": {"factor": lambda N, k: slates.slate_factor(N, k) / 4},
            "fourth root": {"factor": lambda N, k: min(k, N - k) ** 0.25},
        },
    ),
    "thm-slates-fair": Claim(
        fair_slates,
        {
            "as for one arm": {"factor": lambda N, k: 2 - 1 / N},
            "without the constant": {"bound": lambda U, M, N: np.sqrt(U)},
            "without U": {"bound": lambda U, M, N: 0.2 * M * N + 0 * U},
        },
    ),
    "thm-slates-offline": Claim(
        slate_optimum,
        {
            "0.1 % less": {"dual": slate_dual(times=0.999)},
            "the largest alone": {"dual": slate_dual(fewer=2)},
            "one arm fewer": {"dual": slate_dual(fewer=1)},
        },
    ),
    "thm-slates-tight": Claim(
        slate_factors,
        {
            "a ceiling 0.1 % lower": {
                "ceiling": lambda *given: 0.999 * limits.nested_ceiling(*given)
            },
            "uniform slates 2 % better": {
                "factor": lambda N, k, a: 0.98 * (N / k) ** (1 - a)
            },
            "root": {"factor": lambda N, k, a: (N / k) ** ((1 - a) / 2)},
        },
    ),
    "thm-slates-path": Claim(
        shown_on_paths,
        {
            "a quarter of the first": shown_bounds(regret=1 / 4),
            "three quarters of the second": shown_bounds(penalties=0.75),
            "without N": shown_bounds(room=lambda state, room: room / state.point.size),
            "without the logarithm": shown_bounds(
                room=lambda state, room: state.point.size
            ),
        },
    ),
    "thm-slates-shown": Claim(
        shown_in_the_mean,
        {
            "a seventh": {
                "bound": lambda *a, **k: slates.slate_bandit_bound(*a, **k) / 7
            },
            "without the root": shown_root(lambda U: 0),
            "without the utility": shown_root(lambda U: 1 / U),
            "the fourth root of U": shown_root(lambda U: U**-0.5),
        },
    ),
    "thm-slates-draw": Claim(
        slate_draws,
        {
            "the k largest": {"select": lambda x, v: np.argsort(-x)[: round(x.sum())]},
            "squared shares": {
                "select": lambda x, v: slates.systematic_slate(
                    x**2 * (x.sum() / (x**2).sum()), v
                )
            },
            "a comb that begins at 0": {
                "select": lambda x, v: slates.systematic_slate(x, 0.0)
            },
        },
    ),
    "thm-movielens-price": Claim(
        price_bounds,
        {
            "1 % less": {"bound": lambda *given: 0.99 * movielens.price_bound(*given)},
            "a tenth more earned": {
                "bound": lambda R, G, a: (
                    (R**-a * G).max(1).sum() - 1.1 * R**-a @ (R - 1)
                )
            },
        },
    ),
    "thm-movielens-uniform": Claim(
        uniform,
        {
            "0.1 % less": {"factor": lambda n, a: 0.999 * n ** (1 - a)},
            "one arm fewer": {"factor": lambda n, a: (n - 1) ** (1 - a)},
            "root": {"factor": lambda n, a: n ** ((1 - a) / 2)},
        },
    ),
    "thm-movielens-figures-largest": Claim(
        largest,
        {
            "2 % less": {"bound": lambda n: 0.98 * (2 * np.log(n)) ** 0.5},
            "without the two": {"bound": lambda n: np.log(n) ** 0.5},
            "slower than a root": {"bound": lambda n: 2 * np.log(n) ** 0.4},
        },
    ),
    "lem-full-information-telescoping": Claim(
        telescoping,
        {
            "constant lower by 1e-6": {"constant": lambda a: -a / (1 - a) - 1e-6},
            "constant -1/(1-alpha)": {"constant": lambda a: -1 / (1 - a)},
        },
    ),
    "thm-full-information-reduction": Claim(
        over_suite(full._reduction_share, with_map=True),
        {
            "factor 1": {"factor": lambda a: 1.0},
            "factor 2 % smaller": {"factor": lambda a: 0.98 * (1 - a) ** (a - 1)},
            "root of the factor": {"factor": lambda a: (1 - a) ** (a / 2 - 0.5)},
            "regret weighs less": {"weight": lambda a: 0.5 * (1 - a) ** a},
        },
    ),
    "thm-full-information-certificate": Claim(
        certificate,
        {
            "kappa 1.4": {"factor": 1.4},
            "kappa 1": {"factor": 1.0},
        },
    ),
    "thm-full-information-arms": Claim(
        changing,
        {
            "retirements are free": {"factor": lambda kappa, K: kappa},
            "a square root of them": {"factor": lambda kappa, K: kappa + K**0.5 / 4},
        },
    ),
    "lem-full-information-norms": Claim(
        over_suite(full._norms_share),
        {
            "without the constant": {"bound": lambda V, N: np.sqrt(N * V)},
            "without N": {"bound": lambda V, N: 1.5 * (N - 1) + np.sqrt(V)},
            "a quarter smaller": {"bound": lambda V, N: 0.75 * full._norms_root(V, N)},
        },
    ),
    "thm-full-information-explicit": Claim(
        over_suite(full._explicit_share),
        {
            "without M": {"bound": lambda U, M, N: 1.5 * (N - 1) * M + np.sqrt(N * U)},
            "without N": {"bound": lambda U, M, N: 1.5 * (N - 1) * M + np.sqrt(M * U)},
            "without the constant": {"bound": lambda U, M, N: np.sqrt(N * M * U)},
            "without U": {"bound": lambda U, M, N: 1.5 * (N - 1) * M + 0 * U},
        },
    ),
    "lem-full-information-growth": Claim(
        growth,
        {
            "U alone": {"bound": lambda U, M, N: U},
            "2 % less of U": {
                "bound": lambda U, M, N: full._growth_bound(U, M, N) - 0.02 * U
            },
            "a smaller power of U": {
                "bound": lambda U, M, N: full._growth_bound(U**0.9, M, N)
            },
        },
    ),
    "thm-full-information-phase": Claim(
        phase,
        {
            "no growth below one half": {"growth": lambda T, a: np.ones(len(T))},
            "no logarithm at one half": {
                "growth": lambda T, a: np.ones(len(T)),
                "alphas": (0.5,),
            },
            "a transition at 0.4": {"growth": lambda T, a: T ** max(0.0, 1 - 2.5 * a)},
            "a hundredth of the bound at 0.7": {
                "bound": lambda *args: full.norms_bound(*args) / 100,
                "alphas": (0.7,),
            },
            "without the integral": {"bound": norms_without_integral},
            "a quarter of the bound": {
                "bound": lambda *args: full.norms_bound(*args) / 4
            },
        },
    ),
    "thm-full-information-probe": Claim(
        probe,
        {
            "norms three times as large": probe_floors(
                rate=lambda t, a: 3 * full._probe_floors(t, t, a)[0]
            ),
            "norms at the rate of a smaller alpha": probe_floors(
                rate=lambda t, a: full._probe_floors(t, t, 0.8 * a)[0]
            ),
            "regret five times as large": probe_floors(
                of_regret=lambda S: 5 / 8 * (np.sqrt(S) - 4)
            ),
            "regret like S": probe_floors(of_regret=lambda S: (S - 4) / 8),
        },
    ),
    "thm-bandit-feedback-newton": Claim(
        newton,
        {
            "root above 1.01": {"low": 1.01},
            "root below N - 1": {"high": lambda n: n - 1},
            "from the right end": {"start": lambda n: float(n)},
        },
    ),
    "thm-bandit-feedback-path": Claim(
        on_paths,
        {
            "without the first term": _path_bounds(without_start=True),
            "two thirds of the first": _path_bounds(regret=2 / 3),
            "half of the second": _path_bounds(penalties=0.5),
            "without N": _path_bounds(lambda p: p.barrier / p.n_arms),
            "without the logarithm": _path_bounds(lambda p: p.n_arms),
        },
    ),
    "thm-bandit-feedback-mean": Claim(
        in_the_mean,
        {
            "a sixth": {"bound": lambda *a, **k: bandit.bandit_bound(*a, **k) / 6},
            "without the root": root_times(lambda T, M, N, U: 0),
            "without the utility": root_times(lambda T, M, N, U: 1 / U),
            "a smaller power of U": root_times(lambda T, M, N, U: U**-0.4),
            "root without M and N": root_times(lambda T, M, N, U: 1 / (M * N)),
            "root without M and logarithm": root_times(
                lambda T, M, N, U: 1 / (M * np.log(T))
            ),
        },
    ),
    "lem-high-probability-estimate": Claim(
        likely._estimate_share,
        {
            "no optimism": {"estimate": lambda g, p, eta: g / p},
            "a hundredth less": {
                "estimate": lambda g, p, eta: likely.optimistic_gain(g, p, 0.99 * eta)
            },
            "Neu's with a third": {"below": lambda x, p, lam: x / (p + lam / 3)},
        },
    ),
    "thm-high-probability-sums": Claim(
        at_once,
        {
            "without M": {"bound": lambda n, m, e, eta: np.log(n / e) / eta},
            "without N": {"bound": lambda n, m, e, eta: -np.log(e) / eta + 1e-9},
            "nine tenths of M": {
                "bound": lambda n, m, e, eta: (0.9 * m * np.log(n) - np.log(e)) / eta
            },
            "nine tenths of the risk": {
                "bound": lambda n, m, e, eta: (m * np.log(n) - 0.9 * np.log(e)) / eta
            },
        },
    ),
    "thm-high-probability-path": Claim(
        lambda **given: likely._game_shares(one_arm_games(), **given)[0],
        {
            "without the first term": {
                "path": lambda earned, eta, n, m: earned.sum(-1) / (1 - n * eta)
            },
            "without the mixing": {
                "path": lambda earned, eta, n, m: m * np.log(n) / eta + earned.sum(-1)
            },
            "99 hundredths": {"path": lambda *a: 0.99 * likely._path_bound(*a)},
        },
    ),
    "thm-high-probability-bound": Claim(
        with_high_probability,
        {
            "mean: nine tenths of the first": {"mean": weighed(0.9, mean=True)},
            "mean: half of the second": {"mean": weighed(gamma=0.5, mean=True)},
            "mean: without M": {
                "mean": lambda e, eta, n, m: weighed(1 / m, mean=True)(e, eta, n, m)
            },
            "run: half of both": {"runs": weighed(0.5, 0.5)},
            "run: without the second": {"runs": weighed(gamma=0)},
            "run: half of the second": {"runs": weighed(gamma=0.5)},
            "run: without the first": {"runs": weighed(room=0)},
            "run: a hundredth of the first": {"runs": weighed(room=0.01)},
        },
    ),
    "lem-high-probability-earnings": Claim(
        earnings,
        {
            "99 hundredths": {
                "bound": lambda t, a, n_arms: (
                    0.99 * likely.earnings_bound(t, a, n_arms=n_arms)
                )
            },
            "as if for half of the rounds": {
                "bound": lambda t, a, n_arms: likely.earnings_bound(
                    t / 2, a, n_arms=n_arms
                )
            },
        },
    ),
    "thm-high-probability-horizon": Claim(
        horizons,
        {
            "half": {"bound": lambda *a: likely._horizon_bound(*a) / 2},
            "without N": {
                "bound": lambda earned, D, n, room: 4 * (room * earned) ** 0.5
            },
            "without M ln N": {
                "bound": lambda earned, D, n, room: 4 * (n * earned) ** 0.5
            },
            "a smaller power": {
                "bound": lambda earned, D, n, room: 4 * (room * n * earned) ** 0.4
            },
        },
    ),
    "thm-high-probability-guess": Claim(
        guesses,
        {
            "the guess in the place of T": {
                "bound": lambda state, scale, n, room, T: guess_bound(
                    log=lambda T: room / n
                )(state, scale, n, room, T)
            },
            "half of both": {"bound": guess_bound(0.5, 0.5)},
            "without the first": {"bound": guess_bound(0)},
            "without N": {
                "bound": lambda state, scale, n, room, T: guess_bound(1 / n)(
                    state, scale, n, room, T
                )
            },
        },
    ),
    "thm-high-probability-scale-free": Claim(
        scale_free,
        {
            "explored: 0.9": {"explored": lambda *a: 0.9 * likely._gamma_bound(*a)},
            "explored: without N": {"explored": lambda n, Y, most: (2 * Y) ** 0.5},
            "penalties: a twelfth": {
                "penalties": lambda *a: likely._penalty_bound(*a) / 12
            },
            "penalties: without the losses": {
                "penalties": lambda n, gamma, Q, most: 2.0
            },
            "leader: half": {"leader": lambda *a: likely._leader_bound(*a) / 2},
            "leader: without the logarithm": {"leader": lambda n, A, T: 1 + 2 * A},
            "round: 0.85 of the square": {
                "one_round": {"quadratic": lambda *a: 0.85 * likely._one_penalty(*a)}
            },
            "round: b in the place of 2b": {
                "one_round": {"quadratic": lambda *a: likely._one_penalty(*a) / 2}
            },
            "round: 1.7 losses": {"one_round": {"linear": lambda loss: 1.7}},
            "round: 0.99 estimates": {
                "one_round": {"estimated": lambda estimate: 0.99 * abs(estimate)}
            },
        },
    ),
}

CASES = [
    pytest.param(claim, mutant, id=f"{label}: {name}")
    for label, claim in CLAIMS.items()
    for name, mutant in claim.mutants.items()
]


@pytest.mark.parametrize("label", CLAIMS)
def test_the_statement_passes_its_check(label):
    assert CLAIMS[label].check() <= 1 + ROUNDING


@pytest.mark.parametrize(("claim", "mutant"), CASES)
def test_the_check_rejects_a_stronger_statement(claim, mutant):
    assert claim.check(**mutant) > 1 + ROUNDING


def labels():
    """Labels of all theorems and lemmas of the chapters of Part II."""
    folder = Path(full.__file__).parent
    form = r'(?:^# :label: |<a id=")((?:thm|lem|cor|prop)-[\w-]+)'
    return [
        label
        for path in sorted(folder.glob("*.py"))
        for label in re.findall(form, path.read_text(), re.MULTILINE)
    ]


def test_every_theorem_has_mutants():
    found = labels()
    assert len(found) == len(set(found)) > 30
    missing, gone = set(found) - set(CLAIMS), set(CLAIMS) - set(found)
    assert not missing, f"add a check and mutants for {sorted(missing)}"
    assert not gone, f"no chapter has {sorted(gone)}"
    assert all(claim.mutants for claim in CLAIMS.values())
