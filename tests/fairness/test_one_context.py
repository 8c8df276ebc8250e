"""One context: the leader is never behind, and whole rounds cost it a logarithm."""

from functools import partial

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefair.fairness.offline_optimum import solve_offline
from prunefair.fairness.one_context import (
    RATES,
    TIMES,
    FollowTheLeader,
    _adversaries,
    _corners,
    _gap,
    _gap_share,
    _greedy_rewards,
    _load_share,
    _path_rewards,
    _path_share,
    _played,
    _rounds_share,
    check_leader_alpha,
    gap_error,
    gap_play,
    leader,
    leader_bound,
    leader_error,
    leader_rewards,
    leader_value,
    load_error,
    plot_leader,
    plot_missed,
)
from prunefair.fairness.simulation import RewardStream, simulate
from prunefair.fairness.utility import alpha_fair_utility

matplotlib.use("Agg")

alphas = st.floats(0.05, 0.95)
seeds = st.integers(0, 2**32 - 1)


def stream_of(rewards, contexts=None):
    contexts = np.zeros(len(rewards), int) if contexts is None else contexts
    return RewardStream(contexts=contexts, rewards=rewards, n_contexts=3)


# --- the best fixed distribution ---------------------------------------------------


def test_the_leader_by_hand():
    np.testing.assert_allclose(leader([1, 3], 0.5), [1 / 4, 3 / 4])
    np.testing.assert_allclose(leader([1, 2], 1 / 3), [1 / 5, 4 / 5])  # q = 2
    np.testing.assert_allclose(leader([7, 1], 1.0), [1 / 2, 1 / 2])
    np.testing.assert_allclose(leader_value([1, 3], 0.5), 4)
    np.testing.assert_allclose(leader([[0, 2], [2, 2]], 0.3), [[0, 1], [0.5, 0.5]])


@settings(max_examples=60, deadline=None)
@given(alpha=alphas, seed=seeds)
def test_no_random_distribution_is_better_than_the_leader(alpha, seed):
    rng = np.random.default_rng(seed)
    H = rng.lognormal(0, 4, 5)
    value = leader_value(H, alpha)
    np.testing.assert_allclose(alpha_fair_utility(H * leader(H, alpha), alpha), value)
    others = rng.dirichlet(np.full(5, 0.3), 200)
    assert (alpha_fair_utility(H * others, alpha) <= value * (1 + 1e-12)).all()


def test_values_stay_finite_where_powers_do_not():
    H = np.array([1e300, 1e-300, 1.0])
    for alpha in (1e-3, 0.5, 0.999):
        assert np.isfinite(leader_value(H, alpha))
        np.testing.assert_allclose(leader(H, alpha).sum(), 1)


# --- small steps -------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(alpha=alphas, n=st.integers(1, 5), seed=seeds)
def test_the_leader_is_behind_on_no_random_path(alpha, n, seed):
    corners = _corners(n, 5, rng=np.random.default_rng(seed))
    assert _path_share(corners, alpha) <= 1 + 1e-7


def test_how_far_the_leader_is_ahead_is_the_identity_of_the_proof():
    alpha, corners = 0.7, np.array([[1.0, 1.0], [1, 4], [6, 4]])
    q, beta = (1 - alpha) / alpha, 1 - alpha
    R = _path_rewards(corners, alpha)
    Y = (R**beta).sum()
    pi, gamma, s = R**beta / Y, 1 / q, np.linspace(0, 1, 200_001)[:, None]
    legs = [a + s * (b - a) for a, b in zip([[0.0, 0.0], *corners], corners)]
    u = np.concatenate(legs) ** q
    P = u.sum(1)
    K = (pi * (u / pi) ** (1 + gamma)).sum(1) / (1 + gamma)
    J = K - P ** (1 + gamma) / (1 + gamma)
    assert J.min() > -1e-12
    inside = (J / np.maximum(P, 1e-100) ** 2)[1:]
    ahead = gamma * (J[-1] / P[-1] + (inside * np.diff(P)).sum())
    np.testing.assert_allclose(Y ** (1 + gamma) - P[-1] ** gamma, ahead, rtol=1e-3)


def test_greedy_play_falls_behind_by_the_same_factor_at_any_scale():
    sums = TIMES @ RATES
    for scale in (1.0, 1e6):
        R = _greedy_rewards(scale * TIMES, RATES, 0.9)
        behind = leader_value(scale * sums, 0.9) / alpha_fair_utility(R, 0.9)
        np.testing.assert_allclose(behind, 1.00744, atol=1e-4)
    # an independent computation: very small steps of the same play
    R = np.full(2, 1e-12)
    for time, r in zip(TIMES, RATES):
        steps = 20_000
        for _ in range(steps):
            arm = (r * R**-0.9).argmax()
            R[arm] += time / steps * r[arm]
    np.testing.assert_allclose(R, _greedy_rewards(TIMES, RATES, 0.9), rtol=1e-3)


# --- whole rounds ------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(alpha=alphas, n=st.integers(1, 6), seed=seeds)
def test_whole_rounds_cost_no_more_than_is_proved(alpha, n, seed):
    rng = np.random.default_rng(seed)
    rewards = rng.random((150, n)) ** rng.choice([0.1, 1, 10])
    rewards *= rng.random((150, n)) < rng.random(n)
    R = np.vstack([np.ones(n), leader_rewards(rewards, alpha)])
    H = np.vstack([np.ones(n), 1 + np.cumsum(rewards, axis=0)])
    assert _rounds_share(alpha, R, H) <= 1


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
def test_adversaries_that_look_gain_no_more(alpha):
    for name, adversary in _adversaries(3, alpha, rng=np.random.default_rng(1)).items():
        R, H = _played(lambda R, H: leader(H, alpha), adversary, 3, 150)
        assert _rounds_share(alpha, R, H) <= 1, name


def test_the_regret_of_turns_is_below_the_bound_and_of_sums_it_is_not_small():
    turns = np.tile(np.eye(2), (50_000, 1))
    for alpha in (0.1, 0.5, 0.9):
        best = solve_offline(turns.sum(0)[None], alpha).utility
        missed = best - alpha_fair_utility(leader_rewards(turns, alpha)[-1], alpha)
        assert missed < leader_bound(1e5, alpha, 2)
    first = np.vstack([[0.5, 0], np.tile(np.eye(2)[::-1], (500, 1))])
    nearly_sum = leader_rewards(first, 1e-4)[-1].sum()
    assert nearly_sum < 260  # of 500: the leader is wrong in every round


def test_error_and_bound_by_hand():
    np.testing.assert_allclose(leader_error([1, 2], 0.5), [0, 1 / 8])
    np.testing.assert_allclose(leader_bound(255, 0.5, 3), 6 * (1 + 1))
    assert leader_bound([1, 10], 0.3, 2).shape == (2,)


# --- the policy --------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.05, 0.5, 1.0])
def test_the_policy_plays_what_the_array_says_in_any_context(alpha):
    rng = np.random.default_rng(3)
    rewards, contexts = rng.random((80, 4)), rng.integers(3, size=80)
    run = simulate(FollowTheLeader(4, alpha), stream_of(rewards, contexts))
    expected = leader_rewards(rewards, alpha)[run.rounds - 1]
    np.testing.assert_allclose(run.rewards, expected, rtol=1e-12)


def test_a_saved_policy_resumes_bit_for_bit(tmp_path):
    policy, rng = FollowTheLeader(3, 0.4), np.random.default_rng(4)
    for _ in range(20):
        policy.update("a", rng.random(3))
    policy.save(tmp_path / "policy.npz")
    other = FollowTheLeader.load(tmp_path / "policy.npz")
    for p in (policy, other):
        p.update("b", [0.5, 0, 1])
    np.testing.assert_array_equal(policy.probabilities(0), other.probabilities(0))
    np.testing.assert_array_equal(policy.rewards, other.rewards)


@pytest.mark.parametrize("alpha", [0, -0.1, 1.01, np.nan, "x", None, True])
def test_alpha_outside_the_theorems_is_refused(alpha):
    for call in (
        check_leader_alpha,
        lambda a: FollowTheLeader(2, a),
        lambda a: leader_rewards([[1, 0]], a),
    ):
        with pytest.raises(ValueError, match=r"alpha is .*; it must lie in \(0, 1\]"):
            call(alpha)


def test_a_number_of_arms_that_is_none_is_refused():
    with pytest.raises(ValueError, match="n_arms is 0"):
        leader_bound(10, 0.5, 0)
    with pytest.raises(ValueError, match="n_arms is -1"):
        FollowTheLeader(-1, 0.5)


# --- the gap -----------------------------------------------------------------------


def test_the_rule_of_the_gap_by_hand():
    np.testing.assert_allclose(gap_play([4, 1], [9, 5], 0.5), [2 / 3, 1 / 3])
    # q = 2 at alpha 1/3: 8^(1/3) * 3 against 1 * 2
    np.testing.assert_allclose(gap_play([8, 1], [3, 2], 1 / 3), [3 / 4, 1 / 4])
    np.testing.assert_allclose(gap_error([4, 1], [9, 9], 0.5), 0.5)


@settings(max_examples=60, deadline=None)
@given(alpha=st.floats(0.05, 0.5), n=st.integers(1, 6), seed=seeds)
def test_in_small_steps_the_gap_never_grows(alpha, n, seed):
    rng = np.random.default_rng(seed)
    R = 1e6 * rng.lognormal(0, 2, n)
    H = R * (1 + rng.lognormal(0, 2, n))
    x, r = gap_play(R, H, alpha), rng.random(n) * (rng.random(n) < 0.6)
    step = np.array([R, R + 1e-3 * r * x]), np.array([H, H + 1e-3 * r])
    assert _gap(*step, alpha)[1] <= 1e-5


def test_beyond_one_half_the_gap_grows_in_small_steps():
    R, H = np.array([1e6, 1e6]), np.array([1e8, 2e6])
    grown = []
    for r in np.eye(2):
        x = gap_play(R, H, 0.7)
        step = np.array([R, R + 1e-2 * r * x]), np.array([H, H + 1e-2 * r])
        grown.append(_gap(*step, 0.7)[1])
    assert max(grown) > 1e-4


def test_the_gap_in_rounds_is_within_its_error_up_to_one_half():
    for alpha in (0.25, 0.5):
        for adversary in _adversaries(4, alpha, rng=np.random.default_rng(5)).values():
            play = partial(gap_play, alpha=alpha)
            R, H = _played(play, adversary, 4, 150)
            assert _gap_share(alpha, R, H) <= 1


# --- loads ------------------------------------------------------------------------


def test_no_fixed_distribution_of_loads_is_cheaper_than_the_leader():
    rng = np.random.default_rng(6)
    for d in (1.2, 2, 5):
        H, q = rng.lognormal(0, 2, 4), d / (1 - d)
        cost = ((H * leader(H, 1 - d)) ** d).sum() ** (1 / d)
        np.testing.assert_allclose(cost, (H**q).sum() ** (1 / q))
        others = H * rng.dirichlet(np.ones(4), 300)
        assert ((others**d).sum(1) ** (1 / d)).min() >= cost * (1 - 1e-12)


@settings(max_examples=20, deadline=None)
@given(d=st.floats(1.1, 5), n=st.integers(1, 5), seed=seeds)
def test_loads_grow_over_their_target_by_no_more_than_is_proved(d, n, seed):
    rng = np.random.default_rng(seed)
    jobs = rng.random((120, n)) ** rng.choice([0.1, 1, 10])
    jobs *= rng.random((120, n)) < 0.8
    R, H = _played(lambda R, H: gap_play(R, H, 1 - d), lambda t, *_: jobs[t], n, 120)
    assert _load_share(d, R, H, lambda *a: load_error(*a) + 1e-12) <= 1


# --- figures -----------------------------------------------------------------------


def test_figures_show_every_regret_and_its_bound():
    import matplotlib.pyplot as plt

    rounds, (_, ax) = np.array([10, 100]), plt.subplots()
    plot_leader(ax, rounds, {0.5: [0.1, 0.2], 0.7: [0.1, 0.3]}, 2)
    assert len(ax.lines) == 4
    np.testing.assert_allclose(ax.lines[1].get_ydata(), leader_bound(rounds, 0.5, 2))
    _, ax = plt.subplots()
    plot_missed(ax, rounds, {"one": [1, 2], "other": [0, 1]})
    assert [t.get_text() for t in ax.get_legend().texts] == ["one", "other"]
    plt.close("all")
