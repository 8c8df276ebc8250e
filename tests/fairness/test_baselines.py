"""The baselines: Hedge's bound, FairCB's quota and dual, and the registry."""

import subprocess
import sys

import cvxpy as cp
import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from prunefair.fairness.bandit_feedback import bernoulli_stream
from prunefair.fairness.baselines import (
    POLICIES,
    ContextFreeGradient,
    FairCB,
    FullInformationFairCB,
    Hedge,
    IndependentGradient,
    _final_rewards,
    boundary_step,
    check_distribution,
    check_fairness,
    check_horizon,
    fair_dual,
    fair_multipliers,
    fair_play,
    make_policy,
    multiplier_step,
    plot_scores,
    running_frequencies,
)
from prunefair.fairness.fast.compiled import fair_solve
from prunefair.fairness.fixed_map import FixedMap
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.policy import Policy
from prunefair.fairness.simulation import RewardStream, simulate
from prunefair.fairness.uniform import Uniform
from prunefair.fairness.utility import alpha_fair_utility

matplotlib.use("Agg")


def random_stream(rounds=80, m=3, n=4, seed=0):
    rng = np.random.default_rng(seed)
    return RewardStream(
        contexts=rng.integers(m, size=rounds),
        rewards=rng.random((rounds, n)),
        n_contexts=m,
    )


# --- reference points ------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 1.0, 2.0])
def test_the_best_fixed_map_earns_the_offline_optimum(alpha):
    stream = random_stream()
    best = solve_offline(reward_sums(stream.contexts, stream.rewards, 3), alpha)
    policy = FixedMap(best.x)
    simulate(policy, stream)
    np.testing.assert_allclose(policy.rewards, best.rewards, rtol=1e-12)
    plain = Uniform(4)
    simulate(plain, stream)
    assert alpha_fair_utility(plain.rewards, alpha) <= best.utility + best.gap


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([0.5, 0.5], r"shape \(M, N\)"),
        ([[0.5, 0.6]], "not a distribution"),
        ([[1.5, -0.5]], "not a distribution"),
        ([[np.nan, 1]], "not a distribution"),
    ],
)
def test_a_table_that_is_no_map_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        FixedMap(table)


# --- Hedge -----------------------------------------------------------------------


def hedge_regret(rewards):
    T, n = rewards.shape
    policy = Hedge(n, horizon=T)
    stream = RewardStream(contexts=np.zeros(T, int), rewards=rewards, n_contexts=1)
    simulate(policy, stream)
    return rewards.sum(0).max() - (policy.rewards - 1).sum()


@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 10**6))
def test_hedge_keeps_its_bound(rounds, n, seed):
    rewards = np.random.default_rng(seed).random((rounds, n)).round()
    assert hedge_regret(rewards) <= (rounds * np.log(n) / 2) ** 0.5 + 1e-9


def test_hedge_keeps_its_bound_against_an_adversary_who_pays_the_least_played():
    policy, T = Hedge(3, horizon=300), 300
    gains = np.zeros(3)
    for _ in range(T):
        r = np.zeros(3)
        r[policy.probabilities(0).argmin()] = 1
        policy.update(0, r)
        gains += r
    regret = gains.max() - (policy.rewards - 1).sum()
    assert 0 < regret <= (T * np.log(3) / 2) ** 0.5


def test_hedge_is_the_softmax_of_the_summed_rewards():
    stream = random_stream(30)
    policy = Hedge(4, horizon=30)
    simulate(policy, stream)
    expected = softmax((8 * np.log(4) / 30) ** 0.5 * stream.rewards.sum(0))
    np.testing.assert_allclose(policy.probabilities("any"), expected, rtol=1e-13)


def test_the_released_rate_has_the_larger_constant_and_its_weights_overflow():
    T, n = 1e6, 19
    eta = np.sqrt(np.log(n) / T)
    np.testing.assert_allclose(
        np.log(n) / eta + eta * T / 8, 1.125 * np.sqrt(T * np.log(n))
    )
    ours = Hedge(n, horizon=T).eta
    np.testing.assert_allclose(
        np.log(n) / ours + ours * T / 8, np.sqrt(T * np.log(n) / 2)
    )
    with np.errstate(over="ignore"):
        assert np.isinf(np.exp(eta * 413_643))
        assert np.isfinite(np.exp(eta * 413_641))
    policy = Hedge(n, horizon=T)
    policy.shared = policy.shared._replace(gains=np.linspace(0, 1e6, n))
    np.testing.assert_allclose(policy.probabilities(0).sum(), 1, atol=1e-15)


# --- one idea less ---------------------------------------------------------------


def test_the_context_free_policy_is_the_coupled_one_told_of_a_single_context():
    stream = random_stream()
    blind, told = ContextFreeGradient(4, 0.7), AlphaFairGradient(4, 0.7)
    merged = RewardStream(
        contexts=np.zeros(80, int), rewards=stream.rewards, n_contexts=1
    )
    simulate(blind, stream)
    simulate(told, merged)
    np.testing.assert_array_equal(blind.rewards, told.rewards)


def test_independent_learners_are_coupled_policies_of_their_own():
    stream = random_stream()
    policy = IndependentGradient(4, 0.7)
    simulate(policy, stream)
    total = np.ones(4)
    for j in range(3):
        own = stream.contexts == j
        part = RewardStream(
            contexts=np.zeros(own.sum(), int), rewards=stream.rewards[own], n_contexts=1
        )
        alone = AlphaFairGradient(4, 0.7)
        simulate(alone, part)
        np.testing.assert_allclose(policy.learners[j].earned, alone.rewards, rtol=1e-13)
        total += alone.rewards - 1
    np.testing.assert_allclose(policy.rewards, total, rtol=1e-12)


def test_coupling_feeds_the_arm_that_only_one_context_can_feed():
    turns = np.arange(400) % 2
    rewards = np.where(turns[:, None] == 0, [1.0, 1.0], [0.0, 1.0])
    stream = RewardStream(contexts=turns, rewards=rewards, n_contexts=2)
    coupled, independent = AlphaFairGradient(2, 0.9), IndependentGradient(2, 0.9)
    simulate(coupled, stream)
    simulate(independent, stream)
    assert coupled.rewards[0] > 190
    np.testing.assert_allclose(independent.rewards[0], 101, atol=1)


# --- FairCB: the dual and its Newton steps ---------------------------------------


def dual_case(seed):
    rng = np.random.default_rng(seed)
    K, n = rng.integers(1, 10), rng.integers(1, 8)
    scores = -(10 ** rng.uniform(-3, 2.5)) * rng.random((K, n))
    scores *= rng.random((K, n)) < rng.choice([0.2, 1.0])
    q = rng.dirichlet(np.full(K, rng.choice([0.1, 1, 10])))
    return scores, q, rng.choice([0, 0.3, 0.9, 0.98, 0.9999]) / n


@given(st.integers(0, 10**6))
def test_the_play_meets_the_optimality_conditions_from_a_cold_start(seed):
    scores, q, floor = dual_case(seed)
    theta, play = fair_multipliers(scores, q, floor, np.zeros(scores.shape[1]))
    excess = q @ play - floor
    assert (excess >= -1e-9).all()
    np.testing.assert_allclose(play.sum(1), 1, atol=1e-13)
    np.testing.assert_allclose(play, softmax(scores + q[:, None] * theta, axis=1))
    assert (theta >= 0).all()
    assert theta.min() == 0
    assert (abs(theta * excess) <= 1e-10 * (1 + theta)).all()


@given(st.integers(0, 10**6), st.floats(0, 50))
def test_the_start_changes_the_way_and_not_the_play(seed, size):
    scores, q, floor = dual_case(seed)
    n = scores.shape[1]
    start = size * np.random.default_rng(seed).random(n)
    cold = fair_multipliers(scores, q, floor, np.zeros(n))[1]
    warm = fair_multipliers(scores, q, floor, start)[1]
    np.testing.assert_allclose(q @ cold, q @ warm, atol=1e-8)


@pytest.mark.parametrize("seed", range(8))
def test_the_play_is_cvxpys_and_no_worse(seed):
    rng = np.random.default_rng(seed)
    K, n = rng.integers(1, 6), rng.integers(2, 6)
    scores = -4 * rng.random((K, n))
    q, floor = rng.dirichlet(np.ones(K)), rng.choice([0.5, 0.98]) / n
    play = fair_multipliers(scores, q, floor, np.zeros(n))[1]
    p = cp.Variable((K, n))
    cost = cp.sum(cp.multiply(-scores, p)) - cp.sum(cp.entr(p))
    problem = cp.Problem(cp.Minimize(cost), [cp.sum(p, axis=1) == 1, q @ p >= floor])
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    ours = (-scores * play).sum() + (play * np.log(play)).sum()
    assert ours <= problem.value + 1e-6
    np.testing.assert_allclose(play, p.value, atol=2e-3)


def test_a_solver_of_default_accuracy_projected_on_the_simplex_misses_the_quota():
    rng = np.random.default_rng(1)
    scores, q = -4 * rng.random((6, 5)), rng.dirichlet(np.ones(6))
    floor, worst = 0.98 / 5, 0.0
    p = cp.Variable((6, 5))
    cost = cp.sum(cp.multiply(-scores, p)) - cp.sum(cp.entr(p))
    constraints = [cp.sum(p, axis=1) == 1, q @ p >= floor, p >= 0]
    cp.Problem(cp.Minimize(cost), constraints).solve(solver=cp.SCS)
    from prunefair.fairness.online_gradient import simplex_projection

    projected = np.array([simplex_projection(row) for row in p.value])
    worst = floor - (q @ projected).min()
    ours = floor - (q @ fair_multipliers(scores, q, floor, np.zeros(5))[1]).min()
    assert ours <= 1e-10 < 1e-8 < worst


@pytest.mark.parametrize("seed", range(10))
def test_excess_is_the_gradient_and_the_direction_descends(seed):
    scores, q, floor = dual_case(seed)
    n = scores.shape[1]
    c, _ = boundary_step(np.random.default_rng(seed).random(n), np.zeros(n))
    point = fair_dual(c, scores, q, floor)
    for i in range(n):
        e = 1e-5 * np.eye(n)[i]
        ahead = fair_dual(c + e, scores, q, floor).value
        behind = fair_dual(c - e, scores, q, floor).value
        np.testing.assert_allclose((ahead - behind) / 2e-5, point.excess[i], atol=1e-6)
    shifted = fair_dual(c + 3, scores, q, floor)
    np.testing.assert_allclose(shifted.play, point.play, rtol=1e-9)
    np.testing.assert_allclose(
        shifted.value - point.value, 3 * (1 - n * floor), atol=1e-8
    )
    assert multiplier_step(c, point, q) @ point.excess <= 0


@given(st.integers(0, 10**6), st.floats(0, 15))
def test_a_boundary_step_touches_zero_and_loses_no_digit_of_a_small_step(seed, power):
    rng = np.random.default_rng(seed)
    c = 10**power * rng.random(5) * (np.arange(5) > 0)
    direction = rng.normal(size=5)
    moved, step = boundary_step(c, direction)
    cut = np.maximum(direction, -c)
    assert moved.min() == 0
    np.testing.assert_allclose(moved, c + cut - (c + cut).min(), rtol=1e-12, atol=1e-12)
    change = step - cut  # a common shift, however large the multipliers
    np.testing.assert_allclose(change[moved > 0], -(c + cut).min(), atol=1e-14)


@st.composite
def extreme_duals(draw):
    """Scores from 1e-12 to 1e12 with ties, contexts from common to all but unseen."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    K, n = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    scores = -(10 ** rng.uniform(-12, 12, (K, n)))
    scores = draw(st.sampled_from([scores, np.full((K, n), scores[0, 0])])).copy()
    scores *= rng.random((K, n)) < draw(st.sampled_from([0.3, 1.0]))
    q = rng.dirichlet(np.full(K, draw(st.sampled_from([0.01, 0.1, 1, 10]))))
    return scores, q, draw(st.sampled_from([0, 0.3, 0.98, 0.9999, 1 - 1e-9])) / n


@given(extreme_duals(), st.sampled_from([0.0, 50.0, 1e9]))
def test_scores_of_any_size_have_multipliers_that_meet_the_conditions(case, start):
    scores, q, floor = case
    n = scores.shape[1]
    theta, play = fair_multipliers(scores, q, floor, start * np.arange(n))
    excess = q @ play - floor
    assert theta.min() == 0 and abs(np.where(theta > 0, excess, 0)).max() <= 1e-11
    assert excess.min() >= -1e-11
    np.testing.assert_allclose(play.sum(1), 1, atol=1e-13)
    z = scores + q[:, None] * theta
    where = play > 1e-200
    z -= z.max(1, keepdims=True)
    own = np.log(play, where=where, out=np.zeros_like(z))
    rounding = 1e-12 * (1 + abs(scores).max() + (q[:, None] * theta).max())
    shift = np.where(where, own - z, np.nan)
    assert (np.nanmax(shift, 1) - np.nanmin(shift, 1) <= rounding).all()


def test_the_conditions_of_an_extreme_dual_reject_the_play_of_another_quota():
    scores, q = np.array([[0.0, -1e9], [-1e9, 0.0]]), np.array([0.3, 0.7])
    theta, play = fair_multipliers(scores, q, 0.45, np.zeros(2))
    np.testing.assert_allclose(q @ play, [0.45, 0.55], atol=1e-11)
    assert (q @ fair_multipliers(scores, q, 0.44, np.zeros(2))[1]).min() < 0.45 - 1e-3


def test_too_few_newton_steps_are_reported():
    scores, q = np.array([[0.0, -50.0]]), np.ones(1)
    with pytest.raises(RuntimeError, match="max_iter is 1"):
        fair_multipliers(scores, q, 0.4, np.zeros(2), max_iter=1)


# --- FairCB: the policies --------------------------------------------------------


def quota_violation(policy, q):
    table = np.array([policy.probabilities(j) for j in range(len(q))])
    return policy.floor - (q @ table).min()


@pytest.mark.parametrize("kind", [FairCB, FullInformationFairCB])
@pytest.mark.parametrize("fairness", [0.5, 0.98, 0.999])
def test_the_quota_holds_in_every_round_for_the_given_distribution(kind, fairness):
    stream, rng = random_stream(60), np.random.default_rng(1)
    q = np.array([0.6, 0.1, 0.3])
    policy = kind(
        4, n_contexts=3, horizon=60, fairness=fairness, context_probabilities=q
    )
    for context, rewards in zip(stream.contexts.tolist(), stream.rewards):
        assert quota_violation(policy, q) <= 1e-9
        arm = int(rng.integers(4))
        feed = (arm, rewards[arm]) if kind is FairCB else (rewards,)
        policy.update(context, *feed)


def test_the_quota_holds_for_the_running_frequencies():
    stream = random_stream(60)
    policy = FullInformationFairCB(4, n_contexts=3, horizon=60)
    counts = np.zeros(3)
    for context, rewards in zip(stream.contexts.tolist(), stream.rewards):
        counts[context] += 1
        policy.probabilities(context)
        state = policy.solved.state
        q = running_frequencies(state.visits, policy.solved.row)
        np.testing.assert_allclose(sorted(q), sorted(counts / counts.sum())[-len(q) :])
        play = softmax(
            -policy.eta * state.losses + q[:, None] * state.multipliers, axis=1
        )
        assert policy.floor - (q @ play).min() <= 1e-9
        policy.update(context, rewards)


def test_the_first_round_and_a_context_outside_the_given_ones_know_nothing():
    sizes = {"n_contexts": 2, "horizon": 10}
    for q in (None, [0.5, 0.5]):
        policy = FairCB(4, **sizes, context_probabilities=q)
        np.testing.assert_allclose(policy.probabilities("new"), 0.25, atol=1e-9)
    told = FullInformationFairCB(2, **sizes, context_probabilities=[0.5, 0.5])
    for _ in range(50):
        told.update("outside", [1.0, 0.0])
    assert told.probabilities("outside")[1] < 1e-3  # no say in the quota, no floor
    np.testing.assert_allclose(told.probabilities(0), 0.5, atol=1e-9)


def test_without_a_quota_full_information_faircb_is_hedge_in_each_context():
    stream = random_stream(50)
    policy = FullInformationFairCB(4, n_contexts=3, horizon=50, fairness=0)
    simulate(policy, stream)
    for j in range(3):
        gains = stream.rewards[stream.contexts == j].sum(0)
        expected = softmax(policy.eta * gains)
        np.testing.assert_allclose(policy.probabilities(j), expected, rtol=1e-10)


def test_bandit_faircb_estimates_losses_by_the_probability_it_played():
    policy = FairCB(3, n_contexts=2, horizon=20)
    p = policy.probabilities("a")[1]
    policy.update("a", 1, 0.25)
    np.testing.assert_allclose(policy.shared.losses, [[0, 0.75 / p, 0]], rtol=1e-12)
    assert policy.shared.visits.tolist() == [1]
    p = policy.probabilities("b")[0]
    policy.update("b", 0, 1.0)
    assert policy.shared.losses[1].tolist() == [0, 0, 0]


@st.composite
def logs(draw):
    """Rounds of a log: contexts, arms, rewards and propensities down to 1e-9."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low, size = draw(st.floats(-9, 0)), draw(st.integers(1, 12))
    propensities = np.maximum(10 ** rng.uniform(low, 0, size), 1e-9)
    if draw(st.booleans()):
        propensities[:] = propensities.min()
    rewards = rng.random(size) * rng.integers(0, 2, size)
    return rng.integers(2, size=size), rng.integers(3, size=size), rewards, propensities


@given(logs())
def test_no_propensity_that_update_takes_leaves_faircb_without_a_play(log):
    policy = FairCB(3, n_contexts=2, horizon=100)
    for context, arm, reward, propensity in zip(*(part.tolist() for part in log)):
        policy.update(context, arm, reward, probability=propensity)
        p = policy.probabilities(context)
        state, row = policy.solved.state, policy.solved.row
        q = running_frequencies(state.visits, row)
        play = fair_play(state, row, None, policy.eta, policy.floor)[1]
        np.testing.assert_allclose(play[row], p, atol=1e-8)
        assert (q @ play).min() >= policy.floor - 1e-10


def test_an_arm_that_cannot_have_been_drawn_needs_the_probability_of_its_draw():
    policy = FairCB(2, n_contexts=1, horizon=10, fairness=0)
    for _ in range(2):
        policy.update(0, 0, 0.0, probability=1e-9)
    before = policy.shared
    with pytest.raises(ValueError, match="arm is 0, .* probability .*e-.*give `prob"):
        policy.update(0, 0, 0.0)
    assert policy.shared is before and policy.rewards.tolist() == [1, 1]
    policy.update(0, 0, 0.0, probability=0.5)
    np.testing.assert_allclose(policy.probabilities(0), [0, 1], atol=1e-300)


@pytest.mark.parametrize("value", [-0.1, 1.0, np.nan])
def test_a_quota_that_cannot_be_met_is_refused(value):
    with pytest.raises(ValueError, match=r"fairness is .*\[0, 1\)"):
        check_fairness(value)


@pytest.mark.parametrize(
    "q", [[0.5, 0.5], [0.5, 0.6, 0.1], [1.5, -0.5, 0], [np.nan, 0.5, 0.5]]
)
def test_context_probabilities_that_are_none_are_refused(q):
    with pytest.raises(ValueError, match="context_probabilities is .*3 probabilities"):
        check_distribution(q, 3)


@pytest.mark.parametrize("value", [0, -1, np.inf, np.nan])
def test_a_horizon_of_no_round_is_refused(value):
    with pytest.raises(ValueError, match="horizon is"):
        check_horizon(value)


# --- registry --------------------------------------------------------------------

SIZES = {"n_arms": 4, "n_contexts": 3, "alpha": 0.5, "horizon": 50}


@pytest.mark.parametrize("size", [1, 1e3, 1e6, 1e9])
def test_the_compiled_solution_is_that_of_the_chapter(size):
    rng = np.random.default_rng(8)
    for _ in range(10):
        scores, q = -size * rng.random((4, 6)), rng.dirichlet(np.ones(4))
        start = rng.random(6) * (rng.random(6) < 0.5)
        theta, play = fair_multipliers(scores, q, 0.9 / 6, start)
        found = fair_solve(scores, q, 0.9 / 6, start)
        np.testing.assert_allclose(found[1], play, atol=1e-9)
        np.testing.assert_allclose(found[0], theta, rtol=1e-6, atol=1e-8)


def test_learning_solves_nothing_and_plays_as_if_it_had_been_asked():
    one, other = (FairCB(4, n_contexts=2, horizon=50) for _ in range(2))
    rng = np.random.default_rng(9)
    for t in range(50):
        draw = one.draw(t % 3, rng)
        told = {"reward": rng.random(), **draw._asdict()}
        one.update(t % 3, **told)
        other.update(t % 3, **told)
        assert other.solved is None
    for context in (0, 1, 2, "new"):
        both = one.probabilities(context), other.probabilities(context)
        np.testing.assert_allclose(*both, atol=1e-9)


def test_every_name_builds_a_policy_of_its_feedback():
    names = [(f, n) for f in POLICIES for n in POLICIES[f]]
    assert len(names) >= 11
    for feedback, name in names:
        policy = make_policy(name, feedback=feedback, **SIZES)
        assert isinstance(policy, Policy)
        assert type(policy) is POLICIES[feedback][name]
        assert policy.feedback == feedback
        assert policy.n_arms == 4


def test_policies_of_later_chapters_have_a_name_that_imports_them_when_asked():
    code = (
        "import sys; from prunefair.fairness.baselines import LATER, make_policy\n"
        "assert 'prunefair.fairness.one_context' not in sys.modules\n"
        f"sizes = {SIZES | {'waiting': 3, 'slate': 2}}\n"
        "for feedback, names in LATER.items():\n"
        "    for name, place in names.items():\n"
        "        policy = make_policy(name, feedback=feedback, **sizes)\n"
        "        kind = type(policy)\n"
        "        assert f'{kind.__module__}.{kind.__name__}'.endswith('.' + place)\n"
        "        assert policy.feedback == feedback\n"
        "        print(name, getattr(policy, 'waiting', '-'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    named = "follow_the_leader -\nlate_gradient 3\nhalf_leader -\nhalf_gradient -\n"
    named += "frank_wolfe -\ndual_descent -\nresolving -\nslates -\n"
    named += "frank_wolfe -\nslates -\n"
    assert done.stdout == named, done.stderr


def test_arguments_reach_the_policies_that_take_them():
    policy = make_policy("alpha_fair", feedback="full", **SIZES)
    assert policy.alpha == 0.5
    policy = make_policy(
        "faircb",
        feedback="bandit",
        fairness=0.4,
        context_probabilities=[0.2, 0.3, 0.5],
        **SIZES,
    )
    assert policy.floor == 0.1
    assert policy.q.tolist() == [0.2, 0.3, 0.5]
    assert make_policy("log_barrier", feedback="bandit", **SIZES).horizon == 50


def test_an_unknown_name_or_feedback_lists_what_there_is():
    with pytest.raises(
        ValueError, match="name is 'hedge'; with bandit feedback .*scale"
    ):
        make_policy("hedge", feedback="bandit", **SIZES)
    with pytest.raises(ValueError, match="feedback is 'half'; it must be 'full' or"):
        make_policy("hedge", feedback="half", **SIZES)


def test_final_rewards_plays_every_policy_and_bandits_many_times():
    stream = bernoulli_stream(30, 2, 3, rng=np.random.default_rng(2))
    found = _final_rewards(stream, 0.5, 3, rng=np.random.default_rng(3))
    assert len(found) == sum(map(len, POLICIES.values()))
    for name, rewards in found.items():
        assert rewards.shape == (3 if name.endswith("bandit") else 1, 3)


def test_the_figure_has_one_row_a_policy():
    import matplotlib.pyplot as plt

    ax = plt.figure().subplots()
    values = {"a": np.array([1.5]), "b": np.array([1.0, 2.0, 3.0])}
    assert plot_scores(ax, values) is ax
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
    assert len(ax.containers) == 2
    plt.close("all")


@pytest.mark.parametrize("word", [["hedge"], {"hedge": 1}, None, "x" * 999, "no\nname"])
def test_what_is_no_name_of_a_policy_is_shown_on_one_line(word):
    for (name, feedback), message in (
        ((word, "full"), "name is"),
        (("hedge", word), "feedback is"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            make_policy(name, feedback=feedback, **SIZES)
        assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value)
