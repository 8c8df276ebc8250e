"""Stochastic: exact regret of rounds that are drawn, by enumeration of all streams."""

import importlib.util
import json
from itertools import product
from pathlib import Path

import cvxpy as cp
import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefair.fairness import stochastic
from prunefair.fairness.bandit_feedback import mean_interval
from prunefair.fairness.baselines import make_policy
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.online_gradient import regret_factor
from prunefair.fairness.policy import Policy
from prunefair.fairness.simulation import RewardStream, simulate
from prunefair.fairness.stochastic import (
    BernoulliModel,
    DualDescent,
    FrankWolfe,
    FrankWolfeBandit,
    Resolving,
    best_shares,
    drawn_from,
    exact_bandit_bound,
    exact_bound,
    fluctuation,
    frank_wolfe_bound,
    grouped,
    in_context_order,
    lower_terms,
    mean_optimum,
    plot_rates,
    random_model,
    rate,
)
from prunefair.fairness.uniform import Uniform

matplotlib.use("Agg")
TABLE = Path(__file__).parents[2] / "book" / "results" / "stochastic.json"
MODELS = {
    "two arms": BernoulliModel(np.ones(1), np.array([[0.3, 0.6]])),
    "two contexts": BernoulliModel(
        np.array([0.25, 0.75]), np.array([[0.9, 0.2], [0.1, 0.5]])
    ),
}
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def utility(R, alpha):
    return (np.asarray(R) ** (1 - alpha)).sum(-1) / (1 - alpha)


def optimum(G, alpha, start=1.0):
    """Largest utility of a map for these sums, and its rewards, by cvxpy alone."""
    x = cp.Variable(np.shape(G), nonneg=True)
    R = start + cp.sum(cp.multiply(np.asarray(G), x), axis=0)
    target = cp.sum(cp.power(R, 1 - alpha, approx=False)) / (1 - alpha)
    problem = cp.Problem(cp.Maximize(target), [cp.sum(x, 1) == 1])
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    return problem.value, R.value - start, x.value


def streams(model, n_rounds):
    """Every stream of so many rounds, with its probability."""
    m, n = model.chances.shape
    single = [
        (j, np.array(r, float)) for j in range(m) for r in product((0, 1), repeat=n)
    ]
    chance = [
        model.contexts[j] * np.where(r, model.chances[j], 1 - model.chances[j]).prod()
        for j, r in single
    ]
    for chosen in product(range(len(single)), repeat=n_rounds):
        yield [single[k] for k in chosen], np.prod([chance[k] for k in chosen])


@each_model
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9])
def test_the_three_optima_lie_as_the_theorem_says_over_all_streams(model, alpha):
    T, n = 3, 2
    mean, _, x = optimum(T * model.means, alpha)
    np.testing.assert_allclose(
        mean_optimum(model.means, alpha, T).utility, mean, rtol=1e-6
    )
    offline = fixed = total = 0.0
    known = {}
    for rounds, p in streams(model, T):
        G = np.zeros_like(model.means)
        for j, r in rounds:
            G[j] += r
        if G.tobytes() not in known:
            known[G.tobytes()] = optimum(G, alpha)[0]
        offline += p * known[G.tobytes()]
        fixed += p * utility(1 + (G * x).sum(0), alpha)
        total += p
    np.testing.assert_allclose(total, 1)
    assert mean - n / 2 <= fixed <= offline + 1e-6
    assert fixed <= mean + 1e-6
    excess = fluctuation(model.means, alpha, T)
    assert offline <= mean + excess
    weights = (1 + T * (model.means * x).sum(0)) ** -alpha
    variance = len(model.means) * T * (model.means.sum(0) * weights**2).sum()
    np.testing.assert_allclose(excess, variance**0.5, rtol=1e-4)
    bound = np.minimum(1, (1 - alpha) * mean / (model.means.sum(0) * T))
    assert (weights <= bound + 1e-6).all()


def test_neither_optimum_is_always_the_larger():
    one = BernoulliModel(np.ones(1), np.array([[0.5]]))
    assert np.mean([2 * 1, 2 * 2**0.5]) < mean_optimum(one.means, 0.5, 1).utility
    two = BernoulliModel(np.ones(1), np.array([[0.5, 0.5]]))
    assert mean_optimum(two.means, 0.0, 1).utility < 2 + 0.75  # 3 of 4 pay some arm


POLICIES = {
    "coupled": AlphaFairGradient,
    "Frank-Wolfe": FrankWolfe,
    "uniform": lambda n, alpha: Uniform(n),
}


@each_model
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9])
def test_the_reduction_holds_for_every_policy_over_all_streams(model, name, alpha):
    T = 4 if len(model.contexts) == 1 else 3
    best, earned, _ = optimum(T * model.means, alpha)
    if alpha:
        _, v, x = optimum(1e4 * model.means, alpha, start=1e-2)
        v = v / 1e4
    else:
        x = np.eye(2)[model.chances.argmax(1)]
        v = (model.means * x).sum(0)
    gained = regret = 0.0
    weights = np.zeros((T, 2))
    for rounds, p in streams(model, T):
        policy = POLICIES[name](2, alpha)
        for t, (j, r) in enumerate(rounds):
            g = r * policy.rewards**-alpha
            regret += p * g @ (x[j] - policy.probabilities(j))
            policy.update(j, r)
            weights[t] += p * policy.rewards**-alpha
        gained += p * utility(policy.rewards, alpha)
    assert gained <= best + 1e-6  # no policy is ahead of the mean problem
    right = regret + (1 - weights[-1]).sum()
    right += sum(alpha * (T * a) ** -alpha for a in v if alpha)
    for s in range(1, T):
        for i in range(2):
            long = alpha**2 * (s * v[i]) ** -alpha if alpha else 0
            right += (long + weights[s - 1, i] - (1 + s * v[i]) ** -alpha) / s
    assert best - gained <= right + 1e-6
    if alpha == 0:
        np.testing.assert_allclose(best - gained, right, atol=1e-6)
    rest = lower_terms(best_shares(model.means, alpha), weights, alpha)
    np.testing.assert_allclose(
        rest, right - regret - (1 - weights[-1]).sum(), rtol=1e-3, atol=1e-6
    )


def test_best_shares_are_those_of_cvxpy():
    model = random_model(3, 4, rng=np.random.default_rng(1))
    for alpha in (0.2, 0.5, 0.9):
        x = cp.Variable((3, 4), nonneg=True)
        v = cp.sum(cp.multiply(model.means, x), axis=0)
        target = cp.sum(cp.power(v, 1 - alpha, approx=False))
        cp.Problem(cp.Maximize(target), [cp.sum(x, 1) == 1]).solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(best_shares(model.means, alpha), v.value, rtol=1e-3)


def slow_terms(v, m, alpha):
    T = len(m)
    total = alpha * sum((T * a) ** -alpha for a in v)
    for s in range(1, T):
        for i, a in enumerate(v):
            total += alpha**2 * (s * a) ** -alpha / s
            total += (m[s - 1][i] - (1 + s * a) ** -alpha) / s
    return total


def slow_weights(B, rates):
    return [[min(1, b / (a * t)) for a in rates] for t, b in enumerate(B, 1)]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.9])
def test_both_bounds_are_those_of_the_text_term_by_term(alpha):
    means, T = random_model(2, 3, rng=np.random.default_rng(2)).means, 40
    means = np.hstack([means, np.zeros((2, 1))])  # an arm that never pays
    M, N = means.shape
    rates, v = means.sum(0)[:3], best_shares(means, alpha)[:3]
    D = [
        N * ((1 + t / N) ** (1 - alpha) - alpha) / (1 - alpha) for t in range(1, T + 1)
    ]
    kappa = 2 - 1 / N
    B = [d + kappa * (1.5 * (N - 1) * M + (N * M * d) ** 0.5) for d in D]
    m = slow_weights(B, rates)
    S = 0.0
    for i in range(3):
        S += B[0] + sum((B[t - 1] - B[t - 2]) * m[t - 2][i] for t in range(2, T + 1))
    whole = (
        kappa * (M * S) ** 0.5 + 3 * (1 - (1 + T) ** -alpha) + slow_terms(v, m, alpha)
    )
    np.testing.assert_allclose(exact_bound(means, alpha, T), whole, rtol=1e-9)
    assert kappa == regret_factor(N, nonnegative=True)

    def A(t):
        u = np.linspace(1, 1 + t / N, 20_001)
        Q = N * (1 + np.trapezoid(u ** (-2 * alpha), u))
        room = M * N * np.log(T)
        return 2 * room + 1 + 2 * ((8 * np.log(2) - 4) * room * Q) ** 0.5

    m = slow_weights([d + A(t) for t, d in enumerate(D, 1)], rates)
    whole = A(T) + 3 * (1 - (1 + T) ** -alpha) + slow_terms(v, m, alpha)
    np.testing.assert_allclose(exact_bandit_bound(means, alpha, T), whole, rtol=1e-6)


def test_the_bound_of_frank_wolfe_is_that_of_the_text():
    means, T, k = np.array([[0.1, 0.2], [0.3, 0.05]]), 50, 3.0
    c = 4 * (np.log(1 + T / 6) / 4 + 1 + 3)
    root = c**0.5 * (0.4**-0.5 + 0.25**-0.5)
    D = 2 * ((1 + T / 2) ** 0.5 - 0.5) / 0.5
    wanted = root**2 + root * D**0.5
    np.testing.assert_allclose(frank_wolfe_bound(means, 0.5, T, prior=k), wanted)


def test_the_bounds_grow_as_the_theorems_say():
    means = random_model(3, 4, rng=np.random.default_rng(3)).means
    for alpha, power in ((0.1, 0.4), (0.3, 0.2), (0.7, 0.0), (0.9, 0.0)):
        ends = [exact_bound(means, alpha, 10**k) for k in (4, 5)]
        assert abs(np.log10(ends[1] / ends[0]) - power) < 0.08
        ends = [exact_bandit_bound(means, alpha, 10**k) for k in (4, 5)]
        assert np.log10(ends[1] / ends[0]) < power + 0.14


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=60),
    st.floats(0, 0.99),
    st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_squares_of_drawn_surrogate_rewards_are_bounded_on_every_path(r, alpha, seed):
    R, total, arms = np.ones(3), 0.0, np.random.default_rng(seed).integers(3, size=60)
    for t, (reward, arm) in enumerate(zip(r, arms), 1):
        total += (reward * R[arm] ** -alpha) ** 2
        R[arm] += reward
        u = np.linspace(1, 1 + t / 3, 2001)
        bound = 3 * (1 + np.trapezoid(u ** (-2 * alpha), u))
        assert total <= bound * (1 + 1e-6)
        mine = stochastic._squares_bound(t, alpha, 3)
        np.testing.assert_allclose(mine, bound, rtol=1e-5)


def test_a_model_draws_what_it_says():
    model = random_model(3, 2, rng=np.random.default_rng(4))
    stream = model.stream(200_000, rng=np.random.default_rng(5))
    seen = np.bincount(stream.contexts, minlength=3) / stream.n_rounds
    np.testing.assert_allclose(seen, model.contexts, atol=5e-3)
    for j in range(3):
        paid = stream.rewards[stream.contexts == j].mean(0)
        np.testing.assert_allclose(paid, model.chances[j], atol=0.02)
    some = drawn_from(stream.first(50), 5000, rng=np.random.default_rng(6))
    rounds = {(j, *r) for j, r in zip(stream.contexts[:50], stream.rewards[:50])}
    assert {(j, *r) for j, r in zip(some.contexts, some.rewards)} <= rounds
    kept = grouped(stream, mixed=False, rng=np.random.default_rng(7))
    mixed = grouped(stream, mixed=True, rng=np.random.default_rng(7))
    for one in (kept, mixed):
        assert np.count_nonzero(np.diff(one.contexts)) == 2
    for j in range(3):
        own = [one.rewards[one.contexts == j] for one in (stream, kept, mixed)]
        np.testing.assert_array_equal(own[0], own[1])
        assert (own[0] != own[2]).any()
        np.testing.assert_allclose(own[0].sum(0), own[2].sum(0))
    ordered = in_context_order(stream)
    assert (np.diff(ordered.contexts) >= 0).all()
    np.testing.assert_array_equal(
        ordered.rewards[ordered.contexts == 1], stream.rewards[stream.contexts == 1]
    )


# --- policies


def data(n_rounds=300, seed=7, n=4):
    rng = np.random.default_rng(seed)
    contexts = rng.integers(3, size=n_rounds)
    rewards = rng.random((n_rounds, n)) * (rng.random((n_rounds, n)) < 0.6)
    return RewardStream(contexts=contexts, rewards=rewards, n_contexts=3)


def test_frank_wolfe_plays_the_largest_weighted_estimate():
    stream, alpha, k = data(), 0.7, 4
    policy, R = FrankWolfe(4, alpha), np.ones(4)
    for t, (j, r) in enumerate(zip(stream.contexts.tolist(), stream.rewards)):
        before = stream.contexts[:t] == j
        pooled = (stream.rewards[:t].sum(0) + 0.5) / (t + 1)
        own = stream.rewards[:t][before].sum(0)
        score = R**-alpha * (own + k * pooled) / (before.sum() + k)
        p = policy.probabilities(j)
        np.testing.assert_allclose(p[score < score.max() * (1 - 1e-9)], 0)
        np.testing.assert_allclose(p.sum(), 1)
        R = R + r * p
        policy.update(j, r)
    np.testing.assert_allclose(policy.rewards, R)


def test_the_bandit_form_learns_from_the_arm_that_was_pulled_alone():
    stream, alpha, k = data(), 0.5, 3.0
    policy = FrankWolfeBandit(4, alpha, prior=k, explore=0.2)
    rng, log = np.random.default_rng(8), []
    R = np.ones(4)
    for j, r in zip(stream.contexts.tolist(), stream.rewards):
        gains, pulls, all_gains, all_pulls = np.zeros((4, 4))
        for c, i, reward in log:
            all_gains[i] += reward
            all_pulls[i] += 1
            if c == j:
                gains[i] += reward
                pulls[i] += 1
        pooled = (all_gains + 0.5) / (all_pulls + 1)
        score = R**-alpha * (gains + k * pooled) / (pulls + k)
        wanted = np.full(4, 0.05)
        wanted[score.argmax()] += 0.8
        np.testing.assert_allclose(policy.probabilities(j), wanted)
        arm, probability = policy.draw(j, rng)
        policy.update(j, arm, r[arm], probability=probability)
        log.append((j, arm, r[arm]))
        R[arm] += r[arm]
    np.testing.assert_allclose(policy.rewards, R)


def test_prices_of_dual_descent_ask_for_what_is_earned():
    model = random_model(3, 4, rng=np.random.default_rng(9))
    stream, alpha = model.stream(6000, rng=np.random.default_rng(10)), 0.5
    policy = DualDescent(4, alpha, horizon=6000)
    np.testing.assert_allclose(policy.scale() ** (-1 / alpha), 1 / 4)
    first = policy.shared.multipliers
    x, r = policy.probabilities(0), stream.rewards[0]
    policy.update(0, r)
    moved = np.maximum(first - (r * x - 1 / 4) / 6000**0.5, 0)
    np.testing.assert_allclose(policy.shared.multipliers, moved)
    policy = DualDescent(4, alpha, horizon=6000)
    simulate(policy, stream)
    asked = policy.scale() ** (-1 / alpha)
    np.testing.assert_allclose(asked, best_shares(model.means, alpha), rtol=0.2)
    np.testing.assert_allclose((policy.rewards - 1) / 6000, asked, rtol=0.2)
    assert DualDescent(4, 0.0, horizon=10).scale().tolist() == [1] * 4


def test_a_plan_is_the_optimum_of_what_is_left():
    stream, alpha, T = data(40), 0.5, 100
    policy = Resolving(4, alpha, horizon=T, growth=1.5)
    planned = []
    for t, (j, r) in enumerate(zip(stream.contexts.tolist(), stream.rewards), 1):
        due = t >= policy.shared.due
        policy.update(j, r)
        if due:
            planned.append(t)
            G = np.zeros((3, 4))
            np.add.at(G, stream.contexts[:t], stream.rewards[:t])
            left = G * (T - t) / t
            x = np.array([policy.probabilities(c) for c in range(3)])
            mine = utility(policy.rewards + (left * x).sum(0), alpha)
            theirs = optimum(left, alpha, start=policy.rewards)[0]
            np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    assert planned == [1, 2, 3, 5, 8, 12, 18, 27]


def test_many_bandits_in_step_play_what_each_plays_alone(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    benchmark = importlib.util.spec_from_file_location(
        "stochastic_benchmark", Path(__file__).parents[2] / "benchmarks/stochastic.py"
    )
    module = importlib.util.module_from_spec(benchmark)
    benchmark.loader.exec_module(module)
    stream, rng = data(), np.random.default_rng(17)
    orders = np.array([np.arange(300), rng.permutation(300)])
    R = module.frank_wolfe_bandits(
        FrankWolfeBandit(4, 0.7), stream, orders, rng.spawn(2)
    )
    rng = np.random.default_rng(17)
    rng.permutation(300)
    for order, child, mine in zip(orders, rng.spawn(2), R):
        policy = FrankWolfeBandit(4, 0.7)
        own = RewardStream(
            contexts=stream.contexts[order],
            rewards=stream.rewards[order],
            n_contexts=3,
        )
        simulate(policy, own, rng=child)
        np.testing.assert_allclose(policy.rewards, mine, rtol=1e-12)


def built():
    sizes = {"n_arms": 4, "n_contexts": 3, "alpha": 0.7, "horizon": 60}
    for name in ("frank_wolfe", "dual_descent", "resolving"):
        yield make_policy(name, feedback="full", **sizes)
    yield make_policy("frank_wolfe", feedback="bandit", **sizes)


@pytest.mark.parametrize("policy", [*built()], ids=lambda p: type(p).__name__)
def test_policies_keep_the_contract(policy, tmp_path):
    stream = data(60)
    simulate(policy, stream, rng=np.random.default_rng(11))
    for j in range(4):
        p = policy.probabilities(j)
        assert p.shape == (4,) and (p >= 0).all()
        np.testing.assert_allclose(p.sum(), 1)
    policy.save(tmp_path / "policy.npz")
    again = Policy.load(tmp_path / "policy.npz")
    assert type(again) is type(policy) and again.config() == policy.config()
    more = data(60, seed=12)
    for one in (policy, again):
        simulate(one, more, rng=np.random.default_rng(13))
    np.testing.assert_array_equal(policy.rewards, again.rewards)
    name = policy.add_arm()
    feedback = (name, 1.0) if policy.feedback == "bandit" else (np.ones(5),)
    policy.update(0, *feedback, **({"probability": 0.2} if len(feedback) > 1 else {}))
    policy.retire_arm(1)
    p = policy.probabilities(0, mask=[True, False, True, True])
    assert p.shape == (4,) and p[1] == 0
    np.testing.assert_allclose(p.sum(), 1)
    feedback = (name, 1.0) if policy.feedback == "bandit" else (np.ones(4),)
    policy.update(0, *feedback, **({"probability": 0.2} if len(feedback) > 1 else {}))


def test_on_drawn_rounds_all_come_near_the_optimum():
    model = random_model(3, 4, rng=np.random.default_rng(14))
    stream = model.stream(3000, rng=np.random.default_rng(15))
    best = mean_optimum(model.means, 0.5, 3000).utility
    for policy in (
        FrankWolfe(4, 0.5),
        DualDescent(4, 0.5, horizon=3000),
        Resolving(4, 0.5, horizon=3000),
    ):
        simulate(policy, stream)
        assert best / utility(policy.rewards, 0.5) < 1.03


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FrankWolfe(3, 2.0), "alpha is 2.0"),
        (lambda: FrankWolfe(3, 0.5, prior=0), "prior is 0; it must be positive"),
        (lambda: FrankWolfeBandit(3, 0.5, explore=2), "explore is 2"),
        (lambda: DualDescent(3, 0.5, horizon=0), "horizon is 0"),
        (lambda: Resolving(3, 0.5, horizon=np.inf), "horizon is inf"),
        (lambda: Resolving(3, 0.5, horizon=9, growth=1), "growth is 1"),
        (lambda: random_model(0, 3, rng=np.random.default_rng()), "n_contexts is 0"),
        (lambda: random_model(1, 3, rng=7), "rng is 7"),
        (lambda: exact_bound(np.ones((1, 2)), 1.0, 5), "alpha is 1.0"),
        (lambda: exact_bandit_bound(np.ones((1, 2)), 0.5, 5, cap=1), "cap is 1"),
        (lambda: frank_wolfe_bound(np.ones((1, 2)), 0.5, 5, prior=-1), "prior is -1"),
        (
            lambda: frank_wolfe_bound(np.eye(2)[:1], 0.5, 5, prior=1),
            "means is .*must pay",
        ),
        (lambda: exact_bound(np.ones((1, 2)), 0.5, 0), "n_rounds is 0"),
        (lambda: rate([1e4, 1e5], [[1.0, 2.0]]), "behind has 1 runs with 2"),
        (lambda: rate([10, 1e5], np.ones((3, 2))), "behind has 3 runs with 1"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_model_may_be_written_as_lists():
    lists, chances = ([0.25, 0.75], [[0.1, 0.9], [0.5, 1.0]]), np.array([[0.1], [0.5]])
    model = BernoulliModel(*lists)
    np.testing.assert_allclose(model.means[:, :1], [[0.25], [0.75]] * chances)
    same = BernoulliModel(*map(np.array, lists))
    one, two = (m.stream(50, rng=np.random.default_rng(1)) for m in (model, same))
    assert (one.rewards == two.rewards).all() and (one.contexts == two.contexts).all()


def test_the_rate_of_a_power_is_its_exponent():
    rounds = 10.0 ** np.arange(3, 8)
    noise = np.random.default_rng(16).normal(1, 0.05, (20, 5))
    slope, half = rate(rounds, 3 * rounds**0.25 * noise)
    assert abs(slope - 0.25) < 2 * half < 0.02
    slope, _ = rate(rounds, np.tile(np.where(rounds < 1e4, 1, rounds**-0.5), (3, 1)))
    np.testing.assert_allclose(slope, -0.5)


def test_the_figure_has_a_curve_for_each_entry():
    _, ax = matplotlib.pyplot.subplots()
    rounds, behind = np.array([1, 10, 100]), np.ones((4, 3))
    plot_rates(ax, {"a": (rounds, behind), "b": (rounds, 2 * behind)})
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    assert len(ax.collections) == 2 and ax.get_xscale() == "log"


def test_what_the_chapter_says_of_the_ratings_is_in_the_table():
    found = json.loads(TABLE.read_text())["parts"]["movielens"]
    assert found["frank_wolfe"]["time"][0] <= 1.003
    mean, half = mean_interval(found["frank_wolfe, bandit"]["time"])
    assert mean + half <= 1.045
    assert mean + half < min(found["scale_free, bandit"]["time"])
