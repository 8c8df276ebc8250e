"""The simulator plays every round once, draws fairly and reports what happened."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from prunefair.fairness.baselines import FixedMap, Uniform, UniformBandit
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.policy import BanditPolicy
from prunefair.fairness.simulation import RewardStream, checkpoints, simulate


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

    def step(self, context, arm, reward):
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

    class Last:
        def random(self, size):
            return np.full(size, np.nextafter(1, 0))

    policy = Short(3)
    simulate(policy, stream(), rng=Last())
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
