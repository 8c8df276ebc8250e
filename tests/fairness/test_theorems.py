"""Every theorem and lemma of Part II, and wrong, stronger forms that its check rejects.

The check of a statement is a function of its chapter's module.  It takes the statement,
or a part of it, as an argument and returns the smallest constant in front of it that
would still pass its instances: at most 1 if the statement holds.  A mutant is the same
check with a statement that claims more; it must come out above 1.
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from prunefair.fairness import bandit_feedback as bandit
from prunefair.fairness import full_information as full
from prunefair.fairness.adversaries import (
    gap_runs,
    late_rewards,
    norms_over_time,
    play,
    play_suite,
    probe_norms,
    unweighted_run,
)
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.online_gradient import worst_gradients
from prunefair.fairness.simulation import RewardStream

ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)
ROUNDING = 1e-9


class Claim(NamedTuple):
    """A check and the arguments that make its statement stronger than the truth."""

    check: Callable[..., float]
    mutants: dict[str, dict]


# --- full information


@cache
def suite():
    """Games of all adversaries, each with its best fixed map."""
    rng, shapes = np.random.default_rng(4), ((1, 2), (2, 2), (3, 5), (5, 3))
    games = []
    for _, game in play_suite(ALPHAS, shapes, 240, deltas=(0.05,), rng=rng):
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
    return play(policy, lambda t, policy: (0, hard[t]), len(hard), 1)


def certificate(factor=None):
    found = full._certificate_share(hard_game(), np.eye(2)[:1], factor)
    share = over_suite(full._certificate_share, with_map=True)
    return max(found, share(factor=factor))


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


def on_paths(bounds=bandit.path_bounds):
    found = [bandit.path_slacks(*unweighted(paying), bounds) for paying in (1, 20)]
    return np.max(found)


def path_bounds(room=None, *, regret=1.0, penalties=1.0, without_start=False):
    """The theorem's bounds with another room for the barrier, or scaled."""

    def bounds(policy, state, squares):
        first, second = bandit.path_bounds(policy, state, squares)
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
    """The bound in the mean with `scale(T, M, N, U)` in front of what is in the root."""

    def bound(utility, scales, alpha, *, n_arms, n_contexts, horizon):
        sizes = {"n_arms": n_arms, "n_contexts": n_contexts, "horizon": horizon}
        inside = utility * scale(horizon, n_contexts, n_arms, utility)
        return bandit.bandit_bound(inside, scales, alpha, **sizes)

    return {"bound": bound}


CLAIMS = {
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
            "logarithm above one half": {
                "growth": lambda T, a: np.log(T),
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
            "without the first term": path_bounds(without_start=True),
            "two thirds of the first": path_bounds(regret=2 / 3),
            "half of the second": path_bounds(penalties=0.5),
            "without N": path_bounds(lambda p: p.barrier / p.n_arms),
            "without the logarithm": path_bounds(lambda p: p.n_arms),
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
    assert set(CLAIMS) <= set(found)
    assert all(claim.mutants for claim in CLAIMS.values())
