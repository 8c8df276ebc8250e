"""Slates: the capped simplex, its learner, its optimum, and a draw that is exact."""

import inspect
import re
from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.optimize import brentq

from prunefair.fairness.bandit_feedback import bandit_bound
from prunefair.fairness.baselines import make_policy
from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.offline_optimum import (
    certificate,
    dual_value,
    gap_unit,
    largest_sum,
    solve_offline,
)
from prunefair.fairness.online_gradient import AdaptiveState, simplex_projection
from prunefair.fairness.policy import Policy, check_slate
from prunefair.fairness.simulation import RewardStream, simulate
from prunefair.fairness.slate_policy import SlateBandit, SlateDraw, SlateGradient
from prunefair.fairness.slates import (
    _clipped,
    _projection_share,
    capped_projection,
    drawn_slate,
    inclusion_probabilities,
    plot_cache,
    slate_bandit_bound,
    slate_barrier_point,
    slate_factor,
    slate_path,
    slate_phase_stream,
    slate_step,
    slate_update,
    systematic_slate,
)
from prunefair.fairness.utility import alpha_fair_utility

vectors = st.lists(st.floats(-1e17, 1e17), min_size=1, max_size=12).map(np.array)
small = st.lists(st.integers(-8, 8), min_size=2, max_size=9).map(
    lambda v: np.array(v) / 4
)


def stream(n_rounds=60, n_contexts=2, n_arms=5, seed=0):
    rng = np.random.default_rng(seed)
    contexts = rng.integers(n_contexts, size=n_rounds)
    rewards = rng.random((n_rounds, n_arms))
    return RewardStream(contexts=contexts, rewards=rewards, n_contexts=n_contexts)


# --- projection


@given(vectors, st.data())
def test_the_projection_meets_its_condition_at_every_size(v, data):
    k = data.draw(st.integers(1, v.size))
    assert _projection_share([v], [k]) <= 1


@given(small, st.data())
def test_the_projection_is_the_clipped_shift_that_root_finding_gives(v, data):
    k = data.draw(st.integers(1, v.size - 1))
    excess = lambda tau: np.clip(v - tau, 0, 1).sum() - k  # noqa: E731
    tau = brentq(excess, v.min() - 2, v.max() + 1, xtol=1e-14)
    np.testing.assert_allclose(
        capped_projection(v, k), np.clip(v - tau, 0, 1), atol=1e-11
    )


@given(small)
def test_one_arm_is_the_simplex_to_the_byte_and_the_general_way_to_rounding(v):
    assert (capped_projection(v, 1) == simplex_projection(v)).all()
    np.testing.assert_allclose(_clipped(v, 1), simplex_projection(v), atol=1e-14)


def test_the_projection_agrees_with_a_search_over_a_grid():
    grid = np.array([(a, b, 2 - a - b) for a in range(101) for b in range(101)])
    grid = np.array([(a, b, 200 - a - b) for a, b, _ in grid]) / 100
    grid = grid[(grid[:, 2] >= 0) & (grid[:, 2] <= 1)]
    for v in np.random.default_rng(1).normal(size=(20, 3)):
        nearest = ((grid - v) ** 2).sum(1).min()
        found = ((capped_projection(v, 2) - v) ** 2).sum()
        assert found <= nearest <= found + 0.05


def test_all_arms_have_one_slate():
    assert (capped_projection(np.array([3.0, -5, 0]), 3) == 1).all()


# --- the learner and the policy


def test_one_arm_plays_as_the_coupled_policy_to_the_byte():
    given = stream(200)
    one, coupled = SlateGradient(5, 0.7, 1), AlphaFairGradient(5, 0.7)
    runs = [simulate(policy, given).rewards for policy in (one, coupled)]
    assert (runs[0] == runs[1]).all()
    for context in (0, 1, "new"):
        assert (one.probabilities(context) == coupled.probabilities(context)).all()


def test_the_step_of_two_arms_by_hand():
    state = SlateGradient(4, 0.5, 2).initial()
    np.testing.assert_allclose(state.point, 0.5)
    after = slate_step(state, np.array([0.25, 0.0, 0, 0]), 2)
    # moved by root 2 to 1.914, which is cut to 1; the others share 1 by a third
    np.testing.assert_allclose(after.point, [1, 1 / 3, 1 / 3, 1 / 3])
    assert after.squared_norms == 1 / 16
    assert slate_step(state, np.zeros(4), 2) is state


def test_the_first_round_costs_half_the_root_of_m():
    g = np.repeat([[1.0, 0.0]], 32, axis=1)
    path = slate_path(g, 32)
    regret = 32 - g[0] @ path.points[0]
    np.testing.assert_allclose(regret / path.totals[0] ** 0.5, 32**0.5 / 2)
    assert slate_factor(64, 32) == (2 - 1 / 64) * 32**0.5
    assert slate_factor(5, 5) == 0


def test_a_policy_is_saved_and_resumed_bit_for_bit(tmp_path):
    policy = SlateGradient(["a", "b", "c", "d", "e"], 0.5, 3)
    given = stream()
    for context, r in zip(given.contexts[:30].tolist(), given.rewards[:30]):
        policy.update(context, r)
    policy.save(tmp_path / "slates.npz")
    again = SlateGradient.load(tmp_path / "slates.npz")
    assert again.slate == 3 and again.arms == policy.arms
    for context, r in zip(given.contexts[30:].tolist(), given.rewards[30:]):
        policy.update(context, r)
        again.update(context, r)
        assert (policy.probabilities(context) == again.probabilities(context)).all()
    assert (policy.rewards == again.rewards).all()


def test_arms_come_and_go_and_a_slate_is_always_left():
    policy = SlateGradient(["a", "b", "c"], 0.5, 2)
    for _ in range(5):
        policy.update("x", [1.0, 1.0, 0.0])
    policy.add_arm("d")
    np.testing.assert_allclose(policy.probabilities("x"), [1, 1, 0, 0])
    policy.retire_arm("a")
    np.testing.assert_allclose(policy.probabilities("x"), [1, 0.5, 0.5])
    policy.retire_arm("d")
    np.testing.assert_allclose(policy.probabilities("x"), 1)
    with pytest.raises(ValueError, match="arm is 'b', one of 2 for a slate of 2"):
        policy.retire_arm("b")
    with pytest.raises(ValueError, match="arm is 'z'"):
        policy.retire_arm("z")


def test_late_rewards_of_a_slate_whose_arm_was_retired_say_so():
    policy, rng = SlateBandit([*"abcd"], 0.5, 2, horizon=100), np.random.default_rng(0)
    draws = [policy.draw("x", rng) for _ in range(3)]
    policy.retire_arm("a")
    for call in (policy.update, lambda c, *rest: policy.update_many([c], *zip(rest))):
        with pytest.raises(ValueError, match="arm is 'a', which was retired; drop"):
            call("x", ["b", "a"], [1.0, 1.0])
    policy.update("x", ["b"], [1.0], probabilities=[0.5])  # what is left of it
    kept = [draw for draw in draws if not policy.retired & {*draw.arms}]
    with pytest.warns(UserWarning, match="`probabilities` is not given, and since"):
        policy.update("x", kept[0].arms, [1.0, 1.0])
    masked = SlateBandit(4, 0.5, 2, horizon=100)
    shown = masked.draw("x", rng, mask=[True, True, True, False])
    with pytest.warns(UserWarning, match="or an arm was masked"):
        masked.update("x", shown.arms, [1.0, 1.0])


def test_a_mask_leaves_a_slate_of_what_may_be_played_and_lowers_no_share():
    policy = SlateGradient(5, 0.5, 2)
    policy.update(0, [0.9, 0.1, 0.3, 0.0, 0.2])
    mask = np.array([False, True, True, True, True])
    before, x = policy.probabilities(0), policy.probabilities(0, mask=mask)
    assert x[0] == 0 and x.max() <= 1 and abs(x.sum() - 2) < 1e-12
    assert (x[1:] >= before[1:] - 1e-12).all()
    draw = policy.draw(0, np.random.default_rng(0), mask=mask)
    assert 0 not in draw.arms
    policy.update(0, [0.0, 0.1, 0.3, 0.0, 0.2], played=x)
    np.testing.assert_allclose(policy.rewards[2], 1 + 0.3 * 0.4 + 0.3 * x[2])
    with pytest.raises(ValueError, match="mask is .*at least 2 arms"):
        policy.probabilities(0, mask=np.array([True, False, False, False, False]))


@pytest.mark.parametrize("slate", [0, -1, 1.5, "two", None, True, float("nan"), [2]])
def test_what_is_no_slate_is_refused(slate):
    for call in (
        lambda: SlateGradient(4, 0.5, slate),
        lambda: check_slate(slate, 4),
        lambda: slate_factor(4, slate),
        lambda: capped_projection(np.ones(4), slate),
        lambda: solve_offline(np.ones((2, 4)), 0.5, slate=slate),
        lambda: certificate(np.ones((2, 4)), np.ones((2, 4)), 0.5, slate=slate),
    ):
        with pytest.raises(ValueError, match="slate is ") as caught:
            call()
        assert len(str(caught.value)) <= 300


def test_a_slate_of_more_arms_than_there_are_is_refused():
    with pytest.raises(ValueError, match="slate is 5, more than there are arms"):
        SlateGradient(4, 0.5, 5)


@pytest.mark.parametrize(
    "played", [[1, 1, 0], [1, 1, 1, 0, 0], [2, 0, 0, 0, 0], [-1, 1, 1, 1, 0], "x"]
)
def test_what_was_no_slate_cannot_have_been_played(played):
    policy = SlateGradient(5, 0.5, 2)
    remedy = "it must hold the 5 probabilities that were played, whose sum is 2"
    with pytest.raises(ValueError, match=f"played is .*; {remedy}"):
        policy.update(0, np.ones(5), played=played)
    assert not policy.learners and (policy.rewards == 1).all()


def test_a_slate_is_told_by_names_where_arms_came_or_went():
    """As every policy with full information is; the others keep what they earned."""
    policy = SlateGradient(list("abcd"), 0.5, 2)
    policy.update("x", [1.0, 0.2, 0.0, 0.6])
    earned = dict(zip(policy.arms, policy.rewards))
    shown = dict(zip(policy.arms, policy.probabilities("x")))
    policy.retire_arm("b")
    policy.add_arm("e")
    policy.update("x", [0.5, 1.0, 0.25, 1.0], played=shown)
    now = dict(zip(policy.arms, policy.rewards))
    told = {"a": 0.5, "c": 1.0, "d": 0.25}
    for arm, reward in told.items():
        np.testing.assert_allclose(now[arm], earned[arm] + reward * shown[arm])
    assert now["e"] == 1
    before = policy.rewards
    for wrong, match in (
        ({"a": 1.0, "z": 1.0}, "played has 'z', which is and was no arm"),
        ({"a": 1.0, "c": 0.5}, "played is .*whose sum is 2"),
        ({"a": 2.0, "c": 0.0}, "played is .*whose sum is 2"),
    ):
        with pytest.raises(ValueError, match=match):
            policy.update("x", np.ones(4), played=wrong)
    assert policy.rewards is before


@pytest.mark.parametrize("v", [np.ones((2, 2)), np.array([]), np.array([1, np.nan])])
def test_the_projection_wants_a_finite_vector(v):
    with pytest.raises(ValueError, match="v is "):
        capped_projection(v, 1)


def test_lists_are_taken_and_a_sum_that_is_no_number_of_arms_is_refused():
    v = [1.5, 0.25, -0.5, 0.75]
    for one, other in (
        (capped_projection(v, 2), capped_projection(np.array(v), 2)),
        (slate_barrier_point(v, 2), slate_barrier_point(np.array(v), 2)),
        (slate_path([v, v], 2).points, slate_path(np.array([v, v]), 2).points),
    ):
        np.testing.assert_array_equal(one, other)
    assert len(drawn_slate([0.5, 0.5, 1.0], rng=np.random.default_rng(0))) == 2
    with pytest.raises(ValueError, match="x has the sum 1.7 .*whole"):
        systematic_slate([0.5, 0.2, 1.0], 0.2)


def test_a_policy_begins_where_the_best_map_of_a_log_plays():
    log = stream(80)
    best = solve_offline(
        [log.rewards[log.contexts == j].sum(0) for j in (0, 1)], 0.5, slate=2
    )
    policy = SlateGradient(5, 0.5, 2)
    policy.warm_start(log.contexts.tolist(), log.rewards)
    np.testing.assert_allclose(policy.rewards, best.rewards, rtol=1e-4)
    shown = SlateBandit(5, 0.5, 2, horizon=100)
    shown.warm_start(log.contexts.tolist(), log.rewards)
    for j in (0, 1):
        np.testing.assert_allclose(policy.probabilities(j), best.x[j], atol=1e-3)
        n = (log.contexts == j).sum()
        near = (n * best.x[j] + 2 / 5) / (n + 1)
        np.testing.assert_allclose(shown.probabilities(j), near, atol=1e-3)
    state = shown.learners[0]
    rate = 1 / (2 * state.scale)  # where no penalty has been paid
    again = slate_barrier_point(rate * state.estimates, 2)
    np.testing.assert_allclose(again, state.point, rtol=1e-9)


# --- what is shown alone


@given(small, st.data())
def test_the_point_of_the_barrier_meets_its_conditions(v, data):
    k = data.draw(st.integers(1, v.size))
    x = slate_barrier_point(4 * v, k)
    np.testing.assert_allclose(x.sum(), k)
    assert (x > 0).all() and (x <= 1).all()
    price = 1 / x - 4 * v  # one number where x is free, at least that where it is 1
    free = x < 1
    if free.any():
        np.testing.assert_allclose(price[free], price[free].max(), atol=1e-7)
        assert (price[~free] >= price[free].max() - 1e-7).all()


@given(st.integers(0, 1000), st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_compiled_steps_and_runs_are_those_of_the_chapter(seed, k):
    rng = np.random.default_rng(seed)
    policy = SlateBandit(5, 0.7, k, horizon=40)
    gradient, path = SlateGradient(5, 0.0, k), AdaptiveState(np.full(5, k / 5), 0.0)
    state = policy.initial()
    for _ in range(40):
        draw, r = policy.draw("x", rng), rng.random(5)
        places = np.array(draw.arms)
        losses = -r[places] * policy.rewards[places] ** -0.7
        state = slate_update(state, places, losses, policy.barrier, k)
        policy.update("x", rewards=r[places], **draw._asdict())
        np.testing.assert_allclose(policy.probabilities("x"), state.point, rtol=1e-8)
        gradient.update("x", r)
        path = slate_step(path, r, k)
        np.testing.assert_allclose(gradient.probabilities("x"), path.point, atol=1e-12)
    given = stream(60, seed=seed)
    one, other = (SlateBandit(5, 0.5, k, horizon=60) for _ in range(2))
    slow = simulate(one, given, rng=np.random.default_rng(seed))
    fast = run_fast(other, given, rng=np.random.default_rng(seed))
    np.testing.assert_allclose(fast.rewards, slow.rewards, rtol=1e-12)
    for j in (0, 1):
        x = one.probabilities(j), other.probabilities(j)
        np.testing.assert_allclose(*x, rtol=1e-9)


def test_feedback_of_slates_may_come_late_or_not_be_told():
    given = stream(300)
    ends = [
        simulate(
            SlateBandit(5, 0.5, 2, horizon=300),
            given,
            rng=np.random.default_rng(0),
            delay=delay,
            told=told,
        ).rewards[-1]
        for delay, told in ((0, True), (20, True), (20, False))
    ]
    assert all(np.isfinite(R).all() and (R > 1).all() for R in ends)
    assert abs(ends[0] - ends[1]).max() > 0 and abs(ends[1] - ends[2]).max() > 0


def test_the_estimates_of_a_slate_are_without_bias():
    """Over the pieces of the comb, exactly: their mean is minus the rewards."""
    x, r = np.array([0.25, 0.5, 0.5, 0.75]), np.array([0.3, 1.0, 0.1, 0.6])
    policy, mean = SlateBandit(4, 0.0, 2, horizon=10), np.zeros(4)
    for low, high in ((0, 0.25), (0.25, 0.75), (0.75, 1)):
        names, places = policy.drawn(x, (low + high) / 2)
        one = SlateBandit(4, 0.0, 2, horizon=10)
        one.update(0, names, r[places], probabilities=x[places])
        mean += (high - low) * one.learners[0].estimates
    np.testing.assert_allclose(mean, -r)


def test_a_bandit_for_slates_is_saved_takes_arms_and_forgets_what_is_gone(tmp_path):
    policy = SlateBandit(list("abcde"), 0.5, 2, horizon=100)
    rng = np.random.default_rng(1)
    for _ in range(30):
        draw = policy.draw("x", rng)
        policy.update("x", rewards=[0.5, 1.0], **draw._asdict())
    policy.save(tmp_path / "slates.npz")
    again = Policy.load(tmp_path / "slates.npz")
    assert type(again) is SlateBandit and again.config() == policy.config()
    for p in (policy, again):
        p.retire_arm("b")
        p.add_arm("f")
        x = p.probabilities("x")
        np.testing.assert_allclose(x.sum(), 2)
        assert (x > 0).all() and (x <= 1).all()
    np.testing.assert_array_equal(x, policy.probabilities("x"))


@pytest.mark.parametrize(
    ("told", "match"),
    [
        (dict(arms=[0, 0], rewards=[1, 1]), "different arms"),
        (dict(arms=[0, 1, 2], rewards=[1, 1, 1]), "at most 2"),
        (dict(arms=[], rewards=[]), "at most 2"),
        (dict(arms=[0, 1], rewards=[1]), "a reward for each"),
        (
            dict(arms=[0, 7], rewards=[1, 1]),
            r"arms is \[0, 7\], where arm is 7; it mus",
        ),
        (dict(arms=[0, 1], rewards=[1, 2]), r"rewards is \[1, 2\], where reward is 2"),
        (dict(arms=[0, 1], rewards=[1, 1], probabilities=[0.5]), "of the 2 arms"),
        (dict(arms=[0], rewards=[1], probabilities=[2.0]), "probability is 2.0; it mu"),
        (dict(arms=3, rewards=[1]), "arms is 3; give a list"),
        (dict(arms="01", rewards=[1, 1]), "arms is '01'; give a list"),
        (dict(arms={0, 1}, rewards=[1, 1]), "arms is {0, 1}; give a list"),
        (dict(arms=np.array(3), rewards=[1]), r"arms is array\(3\); give a list"),
        (dict(arms=[0], rewards=1.0), "rewards is 1.0; give a list"),
        (dict(arms=[0], rewards={0: 1.0}), "rewards is {0: 1.0}; give a list"),
        (dict(arms=[0], rewards=[1], probabilities=0.5), "probabilities is 0.5; give"),
        (
            dict(arms=[0], rewards=[1], probabilities=["half"]),
            r"probabilities is \['half'\], where probability is 'half'; it must lie",
        ),
    ],
)
def test_what_no_slate_can_have_answered_is_refused(told, match):
    policy = SlateBandit(5, 0.5, 2, horizon=100)
    with pytest.raises(ValueError, match=match):
        policy.update(0, **told)
    with pytest.raises(ValueError, match=f"round 1: .*{match}"):
        ok = {"arms": [0], "rewards": [1.0], "probabilities": [0.5]}
        rows = {k: [v, told.get(k, v)] for k, v in ok.items()}
        policy.update_many([0, 0], **rows)
    assert not policy.learners and (policy.rewards == 1).all()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (dict(n_arms=0), "n_arms is 0; it must be a positive whole number"),
        (dict(n_arms={"a", "b"}), "n_arms is {.*, a set, .*give a list or a tuple"),
        (dict(n_arms=["a", "a"]), "n_arms is .*no two are equal"),
        (dict(alpha=1.5), "alpha is 1.5; it must lie in .0, 1. for a policy"),
        (dict(alpha="fair"), "alpha is 'fair'; it must be a number"),
        (dict(slate=6), "slate is 6, more than there are arms; choose at most 5"),
        (dict(slate=1.5), "slate is 1.5; it must be a positive whole number"),
        (dict(horizon=1), "horizon is 1; it must be at least 2"),
        (dict(horizon=None), "horizon is None; it must be at least 2"),
    ],
)
def test_what_a_policy_for_slates_is_built_from_is_checked(given, match):
    for kind in (SlateGradient, SlateBandit):
        fine = dict(n_arms=5, alpha=0.5, slate=2, horizon=9) | given
        if kind is SlateGradient and "horizon" in given:
            continue
        if kind is SlateGradient:
            del fine["horizon"]
        with pytest.raises(ValueError, match=match):
            kind(**fine)


@pytest.mark.parametrize(
    "policy", [SlateGradient(5, 0.5, 2), SlateBandit(5, 0.5, 2, horizon=9)]
)
def test_what_is_asked_is_checked_before_any_work(policy, monkeypatch):
    monkeypatch.setattr(type(policy), "play", None)  # whoever works, falls
    rng, one = np.random.default_rng(0), np.arange(5) == 0
    for call, error, match in (
        (lambda: policy.probabilities([]), TypeError, "context is"),
        (lambda: policy.probabilities([], mask=~one), TypeError, "context is"),
        (lambda: policy.probabilities(0, mask=one), ValueError, "at least 2 arms"),
        (lambda: policy.probabilities(0, mask=[1] * 5), ValueError, "5 booleans"),
        (lambda: policy.draw(0, 7), ValueError, "rng is 7; give a generator"),
        (lambda: policy.draw(0, rng, mask=one), ValueError, "at least 2 arms"),
        (lambda: policy.retire_arm(9), ValueError, "arm is 9; it must be one of"),
    ):
        with pytest.raises(error, match=match):
            call()


@pytest.mark.parametrize("kind", [SlateGradient, SlateBandit])
def test_every_argument_of_a_policy_for_slates_is_documented(kind):
    names = ("probabilities", "draw", "update", "update_many", "retire_arm", "add_arm")
    for call in (kind, *(getattr(kind, name) for name in names)):
        text = inspect.getdoc(call)
        assert "Raises" in text
        for name in inspect.signature(call).parameters:
            assert name == "self" or re.search(rf"\b{name}\b.* : ", text), (call, name)


def test_tools_of_slates_name_what_is_wrong():
    x, rng = np.array([0.5, 0.75, 0.75]), np.random.default_rng(0)
    for call, match in (
        (lambda: systematic_slate(x, 1.0), "offset is 1.0; .*an offset in .0, 1"),
        (lambda: systematic_slate(x[:2], 0.5), "x has the sum 1.25 and"),
        (lambda: systematic_slate(x * np.nan, 0.5), "x has the sum nan and"),
        (lambda: drawn_slate(x, rng=3), "rng is 3; give a generator"),
        (lambda: drawn_slate(x[1:], rng=rng), "x has the sum 1.5 and"),
        (lambda: slate_factor(0, 1), "n_arms is 0"),
        (lambda: slate_path(np.ones((3, 4)), 5), "slate is 5"),
        (lambda: slate_step(AdaptiveState(x, 0.0), 0 * x, 4), "slate is 4"),
        (lambda: slate_phase_stream([2, 3], 0, rng=rng), "slate is 0"),
        (lambda: slate_barrier_point(x, 4), "slate is 4"),
        (
            lambda: slate_bandit_bound(
                1.0, 1.0, 0.5, 4, n_arms=3, n_contexts=1, horizon=9
            ),
            "slate is 4",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_a_batch_is_the_rounds_one_by_one():
    rounds = [("x", ["a", "c"], [1.0, 0.5]), ("y", ["b"], [0.25])]
    one, many = (SlateBandit(list("abc"), 0.5, 2, horizon=9) for _ in range(2))
    for row in rounds:
        one.update(*row)
    many.update_many(*zip(*rounds))
    np.testing.assert_array_equal(one.rewards, many.rewards)
    np.testing.assert_array_equal(one.probabilities("x"), many.probabilities("x"))


def test_a_map_into_slates_is_no_policy_for_single_arms():
    with pytest.raises(ValueError, match="slate is 2"):
        solve_offline(np.ones((2, 4)), 0.5, slate=2).policy()


def test_the_bound_in_the_mean_is_that_of_single_arms_and_k():
    sizes = {"n_arms": 4, "n_contexts": 2, "horizon": 100}
    one = bandit_bound(50.0, 2.0, 0.5, **sizes)
    np.testing.assert_allclose(slate_bandit_bound(50.0, 2.0, 0.5, 1, **sizes), one)
    np.testing.assert_allclose(
        slate_bandit_bound(50.0, 2.0, 0.5, 3, **sizes), one + 0.5**0.5 * 2
    )


def test_both_have_a_name():
    sizes = dict(n_arms=5, n_contexts=1, alpha=0.5, horizon=9, slate=3)
    for feedback, kind in (("full", SlateGradient), ("bandit", SlateBandit)):
        policy = make_policy("slates", feedback=feedback, **sizes)
        assert type(policy) is kind and policy.slate == 3


# --- the offline optimum


@pytest.mark.parametrize("alpha", [0, 0.3, 0.9, 1, 2])
@pytest.mark.parametrize(("M", "N", "k"), [(1, 4, 2), (5, 3, 2), (3, 7, 5), (4, 3, 3)])
def test_the_optimum_is_that_of_cvxpy(M, N, k, alpha):
    G = np.random.default_rng(M + N).gamma(0.5, 40, (M, N))
    ours, x = solve_offline(G, alpha, slate=k), cp.Variable((M, N))
    R = 1 + cp.sum(cp.multiply(G, x), axis=0)
    value = {0: cp.sum, 1: lambda R: cp.sum(cp.log(R))}.get(
        alpha, lambda R: cp.sum(cp.power(R, 1 - alpha)) / (1 - alpha)
    )(R)
    problem = cp.Problem(cp.Maximize(value), [x >= 0, x <= 1, cp.sum(x, axis=1) == k])
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    np.testing.assert_allclose(ours.utility, problem.value, rtol=1e-5)
    assert -1e-9 <= ours.gap <= 1e-9 * gap_unit(ours.rewards, alpha) + 1e-9


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([0.2, 0.5, 1, 2]))
def test_the_certificate_bounds_what_any_map_misses(seed, k, alpha):
    rng = np.random.default_rng(seed)
    G = rng.gamma(0.5, 20, (3, 5))
    x = np.array([capped_projection(v, k) for v in rng.normal(size=(3, 5))])
    R, best = 1 + (G * x).sum(0), solve_offline(G, alpha, slate=k)
    gap = certificate(x, G, alpha, slate=k)
    size = 1 + abs(best.utility)
    utility = alpha_fair_utility(R, alpha)
    assert best.utility - utility <= gap + 1e-9 * size
    assert abs(dual_value(R**-alpha, G, alpha, slate=k) - utility - gap) <= 1e-9 * size


def test_a_context_without_rewards_plays_evenly():
    G = np.array([[0.0, 0, 0], [5, 3, 1]])
    np.testing.assert_allclose(solve_offline(G, 0.5, slate=2).x[0], 2 / 3)
    assert (solve_offline(0 * G, 0.5, slate=2).x == 2 / 3).all()


def test_a_map_that_is_none_is_refused_and_a_short_search_says_so():
    G = np.random.default_rng(0).random((2, 3)) * 50
    for x in (np.ones((2, 3)), np.array([[2.0, 0, 0]] * 2), np.ones((3, 2)) * 2 / 3):
        with pytest.raises(ValueError, match="x has (a row that is no sl|shape)"):
            certificate(x, G, 0.5, slate=2)
    with pytest.raises(RuntimeError, match="max_iter = 1 steps"):
        solve_offline(G, 0.5, slate=2, max_iter=1)


# --- drawing


@given(st.lists(st.integers(-64, 64), min_size=2, max_size=9), st.data())
def test_inclusion_probabilities_are_exact_rational_numbers(v, data):
    k = data.draw(st.integers(1, len(v)))
    x = np.round(capped_projection(np.array(v) / 64, k) * 2**20)
    x[np.argmin(x) if x.sum() < k * 2**20 else np.argmax(x)] += k * 2**20 - x.sum()
    x /= 2**20
    assert inclusion_probabilities(x) == [Fraction(float(p)) for p in x]


@given(vectors, st.integers(0, 1000), st.data())
def test_a_draw_is_a_slate_of_arms_with_a_share(v, seed, data):
    k = data.draw(st.integers(1, v.size))
    x = capped_projection(v, k)
    places = drawn_slate(x, rng=np.random.default_rng(seed))
    assert len(set(places.tolist())) == k and (x[places] > 0).all()


def test_neighbours_meet_in_some_draws_because_the_order_is_random():
    x, rng = np.full(4, 0.5), np.random.default_rng(0)
    assert not any({0, 1} == set(systematic_slate(x, v)) for v in np.linspace(0, 0.99))
    pairs = {tuple(sorted(drawn_slate(x, rng=rng).tolist())) for _ in range(200)}
    assert len(pairs) == 6


def test_a_policy_draws_names_with_their_probabilities():
    policy = SlateGradient(list("abcde"), 0.5, 2)
    rng, count = np.random.default_rng(3), dict.fromkeys("abcde", 0)
    policy.update(0, [0.9, 0.1, 0.3, 0.0, 0.2])
    policy.update(0, [0.0, 0.9, 0.9, 0.9, 0.2])
    x = dict(zip("abcde", policy.probabilities(0)))
    for _ in range(4000):
        draw = policy.draw(0, rng)
        assert isinstance(draw, SlateDraw) and len(set(draw.arms)) == 2
        np.testing.assert_array_equal(draw.probabilities, [x[a] for a in draw.arms])
        for arm in draw.arms:
            count[arm] += 1
    for arm, p in x.items():
        assert abs(count[arm] / 4000 - p) <= 4 * (p * (1 - p) / 4000) ** 0.5 + 1e-12
    with pytest.raises(ValueError, match="rng is "):
        policy.draw(0, 7)


# --- pieces


def test_games_side_by_side_are_independent_games():
    found = slate_phase_stream([2, 3], 4, rng=np.random.default_rng(0))
    assert found.n_arms == 8 and found.n_contexts == 2 and found.n_rounds == 5
    assert (found.rewards.reshape(5, 4, 2).sum(2)[:2] == 2).all()
    assert (found.rewards.reshape(5, 4, 2).sum(2)[2:] == 1).all()


def test_the_sum_of_the_largest():
    assert largest_sum(np.array([3.0, 1, 2]), 2) == 5
    np.testing.assert_array_equal(largest_sum(np.array([[3.0, 1], [1, 5]]), 1), [3, 5])


def test_the_picture_has_a_line_for_each_alpha():
    ax = Figure().add_subplot()
    plot_cache(ax, ["a", "b"], {0.0: np.array([1.0, 5]), 0.9: np.array([2.0, 3])})
    assert len(ax.get_lines()) == 2
    assert [t.get_text() for t in ax.get_xticklabels()] == ["b", "a"]
