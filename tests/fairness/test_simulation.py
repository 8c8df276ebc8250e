"""The simulator plays every round once, draws fairly and reports what happened."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from prunefair.fairness.bandit_feedback import (
    LogBarrierBandit,
    ScaleFreeBandit,
    _two_armed_pulls,
    audited_run,
    bernoulli_stream,
    nested_stream,
    repeated_runs,
)
from prunefair.fairness.baselines import FairCB, Hedge
from prunefair.fairness.fast.batch import run_batch
from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.fixed_map import FixedMap
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.policy import BanditPolicy
from prunefair.fairness.simulation import RewardStream, checkpoints, simulate
from prunefair.fairness.uniform import Uniform, UniformBandit


def stream(rounds=50, n_arms=3, seed=0):
    rng = np.random.default_rng(seed)
    return RewardStream(
        contexts=rng.integers(2, size=rounds),
        rewards=rng.random((rounds, n_arms)),
        n_contexts=2,
    )


class Skewed(UniformBandit):
    """Pulls by a fixed distribution and remembers what it pulled."""

    weights = np.array([0.0, 0.5, 0.125, 0.375])

    def __init__(self, n_arms):
        super().__init__(n_arms)
        self.pulled = []

    def probabilities(self, context):
        return self.weights.copy()

    def step(self, context, arm, reward, probability):
        self.pulled.append((context, arm, reward))


def test_every_round_is_played_once_in_order_and_pays_the_pulled_arm():
    data, policy = stream(n_arms=4), Skewed(4)
    trajectory = simulate(policy, data, rng=np.random.default_rng(1))
    contexts, arms, rewards = map(list, zip(*policy.pulled))
    assert contexts == data.contexts.tolist()
    assert rewards == [data.rewards[t, arm] for t, arm in enumerate(arms)]
    total = 1 + np.bincount(arms, weights=rewards, minlength=4)
    np.testing.assert_allclose(trajectory.rewards[-1], total, rtol=1e-13)


def test_arms_are_drawn_with_their_probabilities_and_never_with_zero():
    rounds = 20_000
    data = RewardStream(
        contexts=np.zeros(rounds, int), rewards=np.ones((rounds, 4)), n_contexts=1
    )
    policy = Skewed(4)
    simulate(policy, data, rng=np.random.default_rng(2))
    counts = np.bincount([arm for _, arm, _ in policy.pulled], minlength=4)
    assert counts[0] == 0
    assert chisquare(counts[1:], Skewed.weights[1:] * rounds).pvalue > 1e-3


def test_a_sum_just_below_one_never_pulls_an_impossible_arm():
    class Short(Skewed):
        weights = np.array([0.5, 0.5 - 1e-12, 0.0])

    class Last(np.random.Generator):
        def random(self, size):
            return np.full(size, np.nextafter(1, 0))

    policy = Short(3)
    simulate(policy, stream(), rng=Last(np.random.PCG64()))
    assert {arm for _, arm, _ in policy.pulled} == {1}


def test_the_same_seed_pulls_the_same_arms_and_another_does_not():
    runs = []
    for seed in (3, 3, 4):
        policy = Skewed(4)
        simulate(policy, stream(n_arms=4), rng=np.random.default_rng(seed))
        runs.append(policy.pulled)
    assert runs[0] == runs[1] != runs[2]


def test_a_run_in_two_halves_is_a_run():
    data = stream(60)
    whole, halves = AlphaFairGradient(3, 0.5), AlphaFairGradient(3, 0.5)
    simulate(whole, data)
    for part in (slice(0, 25), slice(25, None)):
        cut = RewardStream(
            contexts=data.contexts[part], rewards=data.rewards[part], n_contexts=2
        )
        simulate(halves, cut)
    np.testing.assert_array_equal(whole.rewards, halves.rewards)


def test_a_fixed_map_earns_the_sums_by_hand():
    data = stream(40)
    table = np.array([[1.0, 0, 0], [0.2, 0.3, 0.5]])
    trajectory = simulate(FixedMap(table), data)
    by_hand = 1 + (data.rewards * table[data.contexts]).sum(axis=0)
    np.testing.assert_allclose(trajectory.rewards[-1], by_hand, rtol=1e-13)


def test_checkpoints_hold_the_state_after_that_many_rounds():
    data = stream(37)
    coarse = simulate(AlphaFairGradient(3, 0.5), data, n_points=5)
    fine = simulate(AlphaFairGradient(3, 0.5), data, n_points=37)
    assert fine.rounds.tolist() == list(range(1, 38))
    np.testing.assert_array_equal(coarse.rewards, fine.rewards[coarse.rounds - 1])
    assert coarse.seconds > 0


@given(st.integers(1, 500), st.integers(1, 60))
def test_checkpoints_rise_stay_inside_and_end_at_the_last_round(rounds, points):
    found = checkpoints(rounds, points)
    assert found[-1] == rounds
    assert found[0] >= 1
    assert (np.diff(found) > 0).all()
    assert len(found) == min(points, rounds)


def test_memory_is_the_checkpoints_not_the_rounds():
    trajectory = simulate(Uniform(3), stream(5000), n_points=10)
    assert trajectory.rewards.shape == (10, 3)


def test_no_checkpoint_is_refused():
    with pytest.raises(ValueError, match="n_points is 0"):
        simulate(Uniform(3), stream(), n_points=0)


def test_another_number_of_arms_is_refused():
    with pytest.raises(ValueError, match="policy has 2 arms and stream 3"):
        simulate(Uniform(2), stream())


def test_a_bandit_without_a_generator_is_refused():
    policy = UniformBandit(3)
    assert isinstance(policy, BanditPolicy)
    with pytest.raises(ValueError, match="rng is None"):
        simulate(policy, stream())


GOOD = {
    "contexts": np.array([0, 1]),
    "rewards": np.array([[0.0, 1.0], [0.5, 0.5]]),
    "n_contexts": 2,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contexts": np.array([0, 1, 1])}, r"must be \(T,\) and \(T, N\)"),
        ({"rewards": np.array([0.5, 0.5])}, r"must be \(T,\) and \(T, N\)"),
        ({"n_contexts": 1}, "contexts must lie in 0, ..., n_contexts - 1 = 0"),
        ({"contexts": np.array([0, -1])}, "contexts must lie"),
        ({"rewards": np.array([[0.0, 1.1], [0.5, 0.5]])}, r"outside \[0, 1\]"),
        ({"rewards": np.array([[0.0, np.nan], [0.5, 0.5]])}, r"outside \[0, 1\]"),
    ],
)
def test_a_stream_that_is_none_is_refused(change, message):
    assert RewardStream(**GOOD).n_rounds == 2
    with pytest.raises(ValueError, match=message):
        RewardStream(**(GOOD | change))


def test_whatever_numpy_reads_as_numbers_is_a_stream():
    wanted = RewardStream(**GOOD)
    for change in (
        {"contexts": [0, 1], "rewards": [[0, 1], [0.5, 0.5]]},
        {"contexts": np.array([0.0, 1.0]), "n_contexts": 2.0},
        {"contexts": np.array([False, True]), "n_contexts": np.int8(2)},
        {"rewards": GOOD["rewards"].astype(np.float16)},
    ):
        stream = RewardStream(**(GOOD | change))
        assert stream == wanted
        assert (stream.contexts.dtype, stream.rewards.dtype) == (np.int64, np.float64)
        assert type(stream.n_contexts) is int


class Column:
    """What numpy reads by its protocol, as it reads a column of pandas."""

    def __init__(self, values, dtype=None):
        self.values = np.array(values, dtype)

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype or self.values.dtype)


def test_a_table_that_numpy_can_read_is_taken_and_one_of_objects_is_not():
    assert RewardStream(**(GOOD | {"contexts": Column([0, 1])})) == RewardStream(**GOOD)
    with pytest.raises(ValueError, match="contexts is .* of kind object; it must hold"):
        RewardStream(**(GOOD | {"contexts": Column([0, 1], object)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contexts": np.array([0.5, 1])}, "contexts must lie .* and be whole numbers"),
        ({"contexts": np.array([0, np.nan])}, "contexts must lie"),
        ({"contexts": ["0", "1"]}, "contexts is .* it must hold real numbers"),
        ({"contexts": [[0], [0, 1]]}, "contexts is .* it must hold real numbers"),
        ({"contexts": None}, "contexts is None"),
        ({"contexts": [0, 1j]}, "contexts is .* of kind complex128"),
        ({"rewards": [["0", "1"], ["1", "0"]]}, "rewards is .* must hold real numbers"),
        ({"rewards": [[0, 1], [0]]}, "rewards is .* must hold real numbers"),
        ({"rewards": np.zeros((2, 0))}, "number of columns of rewards is 0"),
        ({"n_contexts": "2"}, "n_contexts is '2'; it must be a positive whole number"),
        ({"n_contexts": 2.5}, "n_contexts is 2.5"),
        ({"arm_names": "ab"}, "arm_names is 'ab'; it must hold 2 strings"),
        ({"arm_names": ("a",)}, "it must hold 2 strings"),
        ({"arm_names": ("a", 1)}, "it must hold 2 strings"),
    ],
)
def test_odd_input_is_named_on_construction(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        RewardStream(**(GOOD | change))
    assert len(str(caught.value)) <= 300


def test_a_stream_keeps_what_it_was_given_and_nobody_can_change_it():
    given_contexts, given_rewards = GOOD["contexts"].copy(), GOOD["rewards"].copy()
    data = RewardStream(contexts=given_contexts, rewards=given_rewards, n_contexts=2)
    given_contexts[:], given_rewards[:] = 1, 0.25
    assert data == RewardStream(**GOOD)
    for array in (data.contexts, data.rewards, data.first(1).rewards):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    base = GOOD["rewards"].copy()
    seen = base[:]
    seen.flags.writeable = False  # but its owner can write
    kept = RewardStream(**(GOOD | {"rewards": seen}))
    base[:] = 0.5
    np.testing.assert_array_equal(kept.rewards, GOOD["rewards"])
    assert np.shares_memory(data.first(1).rewards, data.rewards)  # no copy of a part


def test_streams_and_trajectories_are_equal_if_their_numbers_are():
    one, two = RewardStream(**GOOD), RewardStream(**GOOD, source="elsewhere")
    assert one == two and one != "a stream"
    for change in (
        {"contexts": [1, 0]},
        {"rewards": [[0, 1], [0.5, 0.25]]},
        {"n_contexts": 3},
        {"arm_names": ("a", "b")},
    ):
        assert one != RewardStream(**(GOOD | change))
    assert one != one.first(1)
    runs = [simulate(AlphaFairGradient(2, a), one) for a in (0.5, 0.5, 1.0)]
    assert runs[0] == runs[1]
    longer = [simulate(AlphaFairGradient(3, a), stream()) for a in (0.1, 0.9)]
    assert longer[0] != longer[1]


@pytest.mark.parametrize("n_rounds", [-1, 1.5, "3", None, np.nan])
def test_a_number_of_rounds_that_is_none_is_refused(n_rounds):
    with pytest.raises(ValueError, match="n_rounds is .*; it must be a whole number"):
        stream().first(n_rounds)
    assert stream().first(0).n_rounds == 0
    assert stream().first(10**9) == stream()


@pytest.mark.parametrize("rng", [42, "42", np.random, np.random.RandomState(0)])
def test_what_is_no_generator_is_refused_by_everything_that_draws(rng):
    draws = (
        lambda: simulate(UniformBandit(3), stream(), rng=rng),
        lambda: run_fast(UniformBandit(3), stream(), rng=rng),
        lambda: run_batch([ScaleFreeBandit(3, 0.5)], stream(), rngs=[rng]),
        lambda: bernoulli_stream(5, 2, 3, rng=rng),
        lambda: nested_stream(5, 3, rng=rng),
        lambda: repeated_runs(lambda: UniformBandit(3), stream(), 2, rng=rng),
        lambda: _two_armed_pulls(-1, 3, rng=rng),
        lambda: audited_run(ScaleFreeBandit(3, 0.5), stream(), rng=rng),
    )
    for draw in draws:
        with pytest.raises(ValueError, match=r"rngs? is .* give a generator"):
            draw()


@pytest.mark.parametrize("horizon", ["10", None, [9], np.nan, -1, np.inf, 1j])
def test_a_horizon_that_is_none_is_refused_by_name(horizon):
    for build in (
        lambda: Hedge(3, horizon=horizon),
        lambda: LogBarrierBandit(3, 0.5, horizon=horizon),
        lambda: FairCB(3, n_contexts=2, horizon=horizon),
    ):
        with pytest.raises(ValueError, match="horizon is .*; it must be at least"):
            build()


@pytest.mark.parametrize("other", [None, "stream", GOOD])
def test_what_is_no_stream_or_policy_is_refused(other):
    with pytest.raises(ValueError, match="stream is .*; give a RewardStream"):
        simulate(Uniform(3), other)
    with pytest.raises(ValueError, match="policy is .*; give a Policy"):
        simulate(other, stream())


@pytest.mark.parametrize("bandit", [True, False])
@pytest.mark.parametrize("delay", [0, 1, 5, 12, 100])
def test_late_feedback_comes_so_many_rounds_late_with_what_was_played(bandit, delay):
    """Against a loop that keeps every round and looks up which one is due."""
    data, kept = stream(30), []
    policies = [
        LogBarrierBandit(3, 0.5, horizon=30) if bandit else AlphaFairGradient(3, 0.5)
        for _ in range(2)
    ]
    found = simulate(
        policies[0], data, rng=np.random.default_rng(3), n_points=30, delay=delay
    )
    draws, policy = np.random.default_rng(3).random(30), policies[1]
    for t in range(30 + delay):
        if t < 30:
            p = policy.probabilities(data.contexts[t])
            kept.append((p, int((np.cumsum(p) <= draws[t] * np.cumsum(p)[-1]).sum())))
        if 0 <= (due := t - delay) < 30:
            p, arm = kept[due]
            context, rewards = data.contexts[due], data.rewards[due]
            if bandit:
                policy.update(context, arm, rewards[arm], probability=p[arm])
            else:
                policy.update(context, rewards, played=p)
        if t < 29:
            np.testing.assert_array_equal(found.rewards[t], policy.rewards)
    np.testing.assert_array_equal(found.rewards[-1], policy.rewards)


def test_late_rewards_that_are_not_told_go_to_other_arms():
    data = stream(60)
    told, not_told = AlphaFairGradient(3, 0.5), AlphaFairGradient(3, 0.5)
    simulate(told, data, delay=20)
    simulate(not_told, data, delay=20, told=False)
    assert abs(told.rewards - not_told.rewards).max() > 0.5


@pytest.mark.parametrize("delay", [-1, 0.5, "3", None])
def test_a_delay_that_is_none_is_refused(delay):
    with pytest.raises(ValueError, match="delay is .*; it must be a whole number >= 0"):
        simulate(Uniform(3), stream(), delay=delay)
