"""The bandit learners: their step, their sign, their bounds and their bookkeeping."""

import decimal

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq

from prunefair.fairness import bandit_feedback as module
from prunefair.fairness.bandit_feedback import (
    LogBarrierBandit,
    LogBarrierState,
    ScaleFreeBandit,
    ScaleFreeState,
    SingleScaleFreeBandit,
    _mean_check,
    _path_slacks,
    _two_armed_pulls,
    audited_run,
    bandit_bound,
    bernoulli_stream,
    log_barrier_step,
    log_barrier_update,
    mean_interval,
    nested_stream,
    plot_regret_bands,
    repeated_runs,
    sampling_distribution,
    scale_free_step,
    stability,
)
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.simulation import RewardStream, checkpoints, simulate
from prunefair.fairness.utility import alpha_fair_utility

B = 8 * np.log(2) - 4


@given(arrays(float, st.integers(1, 40), elements=st.floats(-1e6, 1e6)))
def test_log_barrier_step_meets_its_optimality_conditions(v):
    p = log_barrier_step(v)
    assert (p > 0).all()
    assert abs(p.sum() - 1) <= 1e-14 * v.size
    lam = 1 / p.max()
    np.testing.assert_allclose(1 / p, v - v.min() + lam, rtol=1e-9)


@given(arrays(float, st.integers(2, 12), elements=st.floats(-50, 50)))
def test_log_barrier_step_equals_scipys_root(v):
    w = v - v.min()
    lam = brentq(lambda x: (1 / (w + x)).sum() - 1, 1, v.size, xtol=1e-14, rtol=1e-14)
    np.testing.assert_allclose(log_barrier_step(v), 1 / (w + lam), rtol=1e-10)


def test_log_barrier_step_beats_cvxpy():
    rng = np.random.default_rng(0)
    for n in (2, 3, 7, 19):
        v = rng.normal(size=n) * 10
        q = cp.Variable(n)
        problem = cp.Problem(cp.Minimize(v @ q - cp.sum(cp.log(q))), [cp.sum(q) == 1])
        problem.solve(solver=cp.CLARABEL)
        p = log_barrier_step(v)
        assert v @ p - np.log(p).sum() <= problem.value + 1e-9
        np.testing.assert_allclose(p, q.value, atol=1e-3)


@pytest.mark.parametrize("scale", [0, 1e-17, 1e-8, 1, 1e8, 1e17])
@pytest.mark.parametrize("size", [1, 2, 19, 1000])
def test_log_barrier_step_survives_ties_and_every_scale(size, scale):
    v = np.tile([0.0, 1.0, 1.0, 3.0], size // 4 + 1)[:size] * scale
    p = log_barrier_step(v)
    assert abs(p.sum() - 1) < 1e-12
    assert (p > 0).all()
    for value in np.unique(v):
        assert np.ptp(p[v == value]) == 0


def test_log_barrier_step_does_not_care_about_a_shift_unlike_an_absolute_stop():
    v = np.array([0.0, 0.5, 2.0, 7.0])
    p = log_barrier_step(v)
    np.testing.assert_allclose(log_barrier_step(v + 2.0**27), p, rtol=1e-14)

    def stopped_by_value(v, limit):
        """Newton's method on the sum itself, stopped when it is within 1e-9 of one."""
        v = -v
        lam = -v.max() - 1
        for count in range(limit):
            total = 1 + (1 / (v + lam)).sum()
            if abs(total) < 1e-9 and (v + lam).max() <= 0:
                return count
            lam += total / (1 / (v + lam) ** 2).sum()
        return limit

    assert stopped_by_value(v, 200) < 20
    assert stopped_by_value(v + 1e8, 200) == 200


def test_newton_iterates_climb_to_the_root():
    rng = np.random.default_rng(1)
    for n in (2, 5, 50, 500):
        w = 10 ** rng.uniform(-8, 8, n)
        w[0] = 0
        root, lam = 1 / log_barrier_step(w).max(), 1.0
        for _ in range(60):
            s1, s2 = (1 / (w + lam)).sum(), ((1 / (w + lam)) ** 2).sum()
            new = lam + s1 * (s1 - 1) / s2
            assert lam * (1 - 1e-12) <= new <= root * (1 + 1e-12)
            lam = new
        np.testing.assert_allclose(lam, root, rtol=1e-12)


@pytest.mark.parametrize("v", [np.array([np.nan, 1]), np.array([]), np.zeros((2, 2))])
def test_log_barrier_step_refuses_what_is_no_finite_vector(v):
    with pytest.raises(ValueError, match="(?s)v is .*must be a finite vector"):
        log_barrier_step(v)


def test_ten_newton_steps_are_enough_for_the_log_barrier_at_every_scale():
    rng = np.random.default_rng(21)
    for n in (2, 3, 19, 300):
        for _ in range(60):
            v = 10 ** rng.uniform(-9, 9, n)
            p = log_barrier_step(v, max_iter=10)
            np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)


def test_log_barrier_step_says_when_it_gave_up():
    with pytest.raises(RuntimeError, match="max_iter is 1"):
        log_barrier_step(np.array([0.0, 1, 5]), max_iter=1)


distributions = arrays(float, st.integers(2, 8), elements=st.floats(1e-3, 1)).map(
    lambda v: v / v.sum()
)


@given(distributions, st.floats(-0.9, 3), st.floats(0.01, 5))
def test_stability_lies_between_zero_and_its_closed_form(p, z, eta):
    cost = stability(p, 0, z / (eta * p[0]), eta)
    assert 0 <= cost <= (z - np.log1p(z)) / eta * (1 + 1e-9) + 1e-12


@given(distributions, st.floats(-20, 20), st.floats(0.01, 20))
def test_stability_is_at_least_what_any_other_point_attains(p, estimate, eta):
    cost = stability(p, 1, estimate, eta)
    for weight in (0.1, 0.5, 0.9, 0.999):
        for target in np.eye(p.size):
            q = (1 - weight) * p + weight * target
            d = q / p - 1
            value = estimate * (p[1] - q[1]) - (d - np.log1p(d)).sum() / eta
            assert cost >= value - 1e-9 * (1 + abs(value))


def test_stability_equals_cvxpy_where_the_closed_form_is_infinite():
    p, eta, estimate = np.array([0.2, 0.3, 0.5]), 4.0, -3.0
    assert eta * p[2] * estimate < -1
    q = cp.Variable(3)
    divergence = cp.sum(cp.multiply(1 / p, q) - 1 - cp.log(q) + np.log(p))
    gain = estimate * (p[2] - q[2]) - divergence / eta
    oracle = cp.Problem(cp.Maximize(gain), [cp.sum(q) == 1]).solve("CLARABEL")
    np.testing.assert_allclose(stability(p, 2, estimate, eta), oracle, atol=1e-6)


def replayed_scale_free(arms, losses, n):
    """The learner from its whole history in every round, by SciPy's root finder."""
    L, penalties, explored, points = np.zeros(n), 0.0, 0.0, []

    def ftrl(v):
        lam = brentq(
            lambda x: (1 / (v - v.min() + x)).sum() - 1, 1, n, xtol=1e-15, rtol=1e-14
        )
        return 1 / (v - v.min() + lam)

    for arm, loss in zip(arms, losses):
        eta, gamma = n / (1 + penalties), n / (2 * n + explored)
        p = ftrl(eta * L)
        points.append((1 - gamma) * p + gamma / n)
        estimate = np.zeros(n)
        estimate[arm] = loss / points[-1][arm]
        q = ftrl(eta * estimate + 1 / p)
        divergence = (q / p - 1 - np.log(q / p)).sum()
        penalties += estimate @ (p - q) - divergence / eta
        explored += gamma * abs(loss) / points[-1][arm]
        L += estimate
    return np.array(points)


def test_scale_free_step_equals_a_replay_from_the_whole_history():
    rng = np.random.default_rng(2)
    arms, losses = rng.integers(4, size=60), rng.normal(size=60) * 3
    state = ScaleFreeState(np.full(4, 0.25), np.zeros(4), 0.0, 0.0)
    points = []
    for arm, loss in zip(arms, losses):
        points.append(sampling_distribution(state))
        state = scale_free_step(state, arm, loss)
    expected = replayed_scale_free(arms, losses, 4)
    np.testing.assert_allclose(points, expected, rtol=1e-7)


def test_steps_are_pure():
    for state, step in (
        (ScaleFreeState(np.full(3, 1 / 3), np.zeros(3), 0.0, 0.0), scale_free_step),
        (
            LogBarrierState(np.full(3, 1 / 3), np.zeros(3), 0.0, 1.0),
            lambda *a: log_barrier_update(*a, 5.0, 2.0),
        ),
    ):
        before = [np.array(value, copy=True) for value in state]
        assert step(state, 1, -0.7).estimates[1] < 0
        for value, old in zip(state, before):
            np.testing.assert_array_equal(value, old)


def test_the_right_sign_pulls_the_better_arm_and_the_released_one_the_worse():
    for seed in range(3):
        good = _two_armed_pulls(-1, 1500, rng=np.random.default_rng(seed))
        bad = _two_armed_pulls(1, 1500, rng=np.random.default_rng(seed))
        assert good[0] > 1400 > 100 > bad[0]
        assert good.sum() == bad.sum() == 1500


@pytest.mark.parametrize("build", [ScaleFreeBandit, LogBarrierBandit])
def test_the_policies_feed_losses(build):
    sizes = {"horizon": 100} if build is LogBarrierBandit else {}
    policy = build(3, 0.5, **sizes)
    for _ in range(30):
        policy.update("c", 2, 1.0)
        policy.update("c", 0, 0.01)
    p = policy.probabilities("c")
    assert p[2] > p[1] > 1e-3  # rewarded above never pulled
    assert p[2] > 0.6


def test_learners_see_the_weight_before_the_reward():
    policy = LogBarrierBandit(2, 0.5, horizon=10)
    policy.update(0, 0, 1.0)
    assert policy.learners[0].estimates[0] == -1 / 0.5
    policy.update(1, 0, 1.0)
    np.testing.assert_allclose(policy.learners[1].estimates[0], -(2**-0.5) / 0.5)


def test_the_scale_of_a_learner_is_the_largest_weight_at_its_first_visit():
    policy = LogBarrierBandit(2, 0.5, horizon=100)
    for _ in range(8):
        policy.update("early", 0, 1.0)
        policy.update("early", 1, 1.0)
    policy.update("late", 0, 1.0)
    assert policy.learners["early"].scale == 1
    np.testing.assert_allclose(policy.learners["late"].scale, 9**-0.5)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("cap", [2.0, 5.0])
def test_path_theorem_on_every_prefix(alpha, cap):
    rng = np.random.default_rng(3)
    for stream in (
        bernoulli_stream(150, 2, 3, rng=rng),
        nested_stream(150, 4, rng=rng),
    ):
        n = stream.n_arms
        policy = LogBarrierBandit(n, alpha, horizon=150, cap=cap)
        earned, squares = np.zeros((2, stream.n_contexts))
        for j, rewards in zip(stream.contexts.tolist(), stream.rewards):
            p = policy.probabilities(j)
            arm = int(rng.choice(n, p=p / p.sum()))
            g = rewards[arm] * policy.rewards[arm] ** -alpha
            earned[j] += g
            squares[j] += g**2
            policy.update(j, arm, rewards[arm])
            state = policy.learners[j]
            moved = (1 - 1 / 150) * np.eye(n) + 1 / (150 * n)  # (u, N)
            regret = -earned[j] - moved @ state.estimates
            room = n * np.log(150)
            assert (regret <= cap * room * state.scale + 2 * state.penalties).all()
            assert state.penalties <= (B * room * squares[j]) ** 0.5


def test_path_slacks_reports_the_same_and_would_notice_wrong_books():
    stream = bernoulli_stream(300, 2, 3, rng=np.random.default_rng(4))
    policy = LogBarrierBandit(3, 0.5, horizon=300)
    run = audited_run(policy, stream, rng=np.random.default_rng(5))
    ratios = _path_slacks(policy, run)
    assert ratios.shape == (2, 2)
    assert (ratios <= 1).all()
    wrong = run._replace(earned=-run.earned - 500)
    assert (_path_slacks(policy, wrong)[:, 0] > 1).all()
    poor = run._replace(squares=run.squares / 1e4)
    assert (_path_slacks(policy, poor)[:, 1] > 1).all()


def test_audited_run_keeps_true_books():
    stream = bernoulli_stream(200, 2, 3, rng=np.random.default_rng(6))
    policy = ScaleFreeBandit(3, 0.5)
    run = audited_run(policy, stream, rng=np.random.default_rng(7))
    np.testing.assert_array_equal(run.rewards, policy.rewards)
    assert (run.squares <= run.earned + 1e-12).all()
    assert (run.surrogates <= reward_sums(stream.contexts, stream.rewards, 2)).all()
    np.testing.assert_allclose(run.losses[:, 0], run.surrogates.sum(1))
    assert run.earned.sum() <= alpha_fair_utility(run.rewards, 0.5)
    sure = RewardStream(
        contexts=stream.contexts, rewards=np.ones((200, 1)), n_contexts=2
    )
    run = audited_run(ScaleFreeBandit(1, 0.5), sure, rng=np.random.default_rng(8))
    np.testing.assert_allclose(run.earned.sum(), (np.arange(1, 201) ** -0.5).sum())


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_mean_theorem_and_the_reduction_on_every_path(alpha):
    stream = nested_stream(200, 3, rng=np.random.default_rng(9))
    check = _mean_check(
        lambda: LogBarrierBandit(3, alpha, horizon=200),
        stream,
        10,
        rng=np.random.default_rng(10),
    )
    assert check.regrets.shape == check.reductions.shape == check.form.shape == (10,)
    assert (check.regrets <= check.reductions + 1e-9).all()
    mean, half = mean_interval(check.regrets)
    assert mean + half <= check.bound
    best = solve_offline(reward_sums(stream.contexts, stream.rewards, 3), alpha)
    c = (1 - alpha) ** -(1 - alpha)
    assert (check.regrets >= best.utility - c * best.utility - 1e-9).all()


def test_bandit_bound_is_the_formula_by_hand():
    bound = bandit_bound(10.0, 2.5, 0.5, n_arms=3, n_contexts=4, horizon=100, cap=2)
    room = 3 * np.log(100)
    inside = 2 * room * 2.5 + 1 + 2 * np.sqrt(B * 4 * room * 10) - 3
    np.testing.assert_allclose(bound, 0.5**0.5 * inside)


def test_bandit_bound_is_refused_where_nothing_is_proved():
    sizes = {"n_arms": 2, "n_contexts": 1, "horizon": 10}
    with pytest.raises(
        ValueError, match="cap is 0.1; the bound is proved for cap >= 2"
    ):
        bandit_bound(1.0, 1.0, 0.5, cap=0.1, **sizes)
    with pytest.raises(ValueError, match="alpha is 1"):
        bandit_bound(1.0, 1.0, 1.0, **sizes)


@pytest.mark.parametrize("horizon", [1, 0, np.inf, np.nan])
def test_a_horizon_that_is_none_is_refused(horizon):
    with pytest.raises(ValueError, match="horizon is"):
        LogBarrierBandit(2, 0.5, horizon=horizon)


@pytest.mark.parametrize("cap", [0, -1, np.inf, np.nan])
def test_a_cap_that_is_none_is_refused(cap):
    with pytest.raises(ValueError, match="cap is"):
        LogBarrierBandit(2, 0.5, horizon=10, cap=cap)


def test_both_learners_beat_uniform_play_over_twenty_seeds():
    stream = bernoulli_stream(600, 2, 3, rng=np.random.default_rng(12))
    uniform = alpha_fair_utility(1 + stream.rewards.sum(0) / 3, 0.7)
    for build in (
        lambda: ScaleFreeBandit(3, 0.7),
        lambda: LogBarrierBandit(3, 0.7, horizon=600),
    ):
        runs = repeated_runs(build, stream, 20, rng=np.random.default_rng(13))
        mean, half = mean_interval(alpha_fair_utility(runs[:, -1], 0.7))
        assert mean - half > uniform


def test_repeated_runs_differ_among_themselves_and_repeat_as_a_whole():
    stream = bernoulli_stream(80, 2, 3, rng=np.random.default_rng(14))
    first, again = (
        repeated_runs(
            lambda: ScaleFreeBandit(3, 0.5),
            stream,
            3,
            rng=np.random.default_rng(15),
            n_points=5,
        )
        for _ in range(2)
    )
    assert first.shape == (3, 5, 3)
    np.testing.assert_array_equal(first, again)
    assert len({run.tobytes() for run in first}) == 3


def test_mean_interval_is_students():
    mean, half = mean_interval(np.array([[1.0, 0], [3.0, 0], [5.0, 0]]))
    np.testing.assert_allclose(mean, [3, 0])
    np.testing.assert_allclose(half, [4.302653 * 2 / 3**0.5, 0], rtol=1e-6)
    rng = np.random.default_rng(31)
    for runs in (3, 10, 20):  # the normal quantile covers 81, 92 and 93.5 %
        mean, half = mean_interval(rng.normal(size=(runs, 40_000)))
        assert abs((abs(mean) < half).mean() - 0.95) < 0.005


def test_nested_sets_lose_one_arm_a_phase():
    stream = nested_stream(40, 4, rng=np.random.default_rng(16))
    alive = stream.rewards.sum(1)
    assert alive.tolist() == [4.0] * 10 + [3.0] * 10 + [2.0] * 10 + [1.0] * 10
    assert (np.diff(stream.rewards, axis=0) <= 0).all()
    assert set(stream.contexts) == {0, 1, 2, 3}


def test_bernoulli_rewards_are_one_or_small():
    stream = bernoulli_stream(500, 3, 4, rng=np.random.default_rng(17))
    assert set(np.unique(stream.rewards)) == {0.001, 1.0}
    assert (stream.n_rounds, stream.n_contexts, stream.n_arms) == (500, 3, 4)


def test_the_figure_shows_mean_band_and_bound():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rounds, runs = checkpoints(40, 4), np.arange(12.0).reshape(3, 4)
    ax = plt.figure().subplots()
    assert plot_regret_bands(ax, rounds, {"a": runs}, bound=np.ones(4)) is ax
    np.testing.assert_allclose(ax.lines[0].get_ydata(), runs.mean(0))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "a",
        "proved bound",
    ]
    assert len(ax.collections) == 1
    plt.close("all")


def test_the_simulator_and_the_audit_play_the_same_policy():
    stream = bernoulli_stream(100, 2, 3, rng=np.random.default_rng(18))
    a, b = ScaleFreeBandit(3, 0.5), ScaleFreeBandit(3, 0.5)
    simulate(a, stream, rng=np.random.default_rng(19))
    module.audited_run(b, stream, rng=np.random.default_rng(19))
    np.testing.assert_array_equal(a.rewards, b.rewards)


@pytest.mark.parametrize("estimate", [-1e15, -3e16, -1e30, -1e90])
def test_stability_of_a_rare_draw_is_what_two_hundred_digits_say(estimate):
    p, eta = np.full(3, 1 / 3), 3.0
    v = 1 / p
    v[1] += eta * estimate
    with decimal.localcontext(prec=200):
        w = [decimal.Decimal(x) - decimal.Decimal(v.min()) for x in v.tolist()]
        lam = decimal.Decimal(1)
        for _ in range(50):
            s1, s2 = sum(1 / (x + lam) for x in w), sum((x + lam) ** -2 for x in w)
            lam += s1 * (s1 - 1) / s2
        ratio = [1 / (x + lam) / decimal.Decimal(y) for x, y in zip(w, p.tolist())]
        divergence = sum(r - 1 - r.ln() for r in ratio)
        gain = decimal.Decimal(estimate) * decimal.Decimal(p[1]) * (1 - ratio[1])
        cost = float(gain - divergence / decimal.Decimal(eta))
    with np.errstate(all="raise", under="ignore"):
        assert stability(p, 1, estimate, eta) == pytest.approx(cost, rel=1e-12)


def test_the_single_learner_ignores_contexts_and_cumulative_rewards():
    a, b = SingleScaleFreeBandit(3), SingleScaleFreeBandit(3)
    b.rewards = b.rewards * 50
    for t in range(30):
        a.update(t % 4, t % 3, 0.5)
        b.update("same", t % 3, 0.5)
    np.testing.assert_array_equal(a.probabilities(0), b.probabilities("x"))
