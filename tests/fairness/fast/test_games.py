"""Compiled games are the recorded ones."""

import numpy as np
import pytest

from prunefair.fairness.adversaries import (
    late_rewards,
    probe_rewards,
)
from prunefair.fairness.bandit_feedback import (
    LogBarrierBandit,
    audited_run,
    path_slacks,
)
from prunefair.fairness.fast.games import (
    gap_runs,
    norms_over_time,
    probe_norms,
    unweighted_run,
)
from prunefair.fairness.full_information import (
    AlphaFairGradient,
    context_norms,
    linear_regret,
)
from prunefair.fairness.simulation import RewardStream, play


@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.9])
def test_the_compiled_probe_is_the_game_against_the_probe(alpha):
    def probe(t, policy):
        return 0, probe_rewards(policy.probabilities(0), policy.rewards)

    game = play(AlphaFairGradient(2, alpha), probe, 700, 1)
    norms, regrets = probe_norms(700, alpha)
    np.testing.assert_allclose(norms, context_norms(game)[:, 0], rtol=1e-12)
    lost = linear_regret(game, np.eye(2)[:1])
    np.testing.assert_allclose(regrets, lost, rtol=1e-9, atol=1e-12)


def test_norms_over_time_are_those_of_the_game():
    data = late_rewards(3, 2, 40, delta=0.2)
    assert (data.rewards[:3, 0] == 1).all() and (data.rewards.min(1) == 0.2).all()
    rewards, norms = norms_over_time(data, 0.6, np.array([5, 17, 40]))

    def opponent(t, policy):
        return (data.contexts[t], data.rewards[t])

    game = play(AlphaFairGradient(2, 0.6), opponent, 40, 3)
    np.testing.assert_allclose(rewards, game.cumulative[[5, 17, 40]], rtol=1e-12)
    np.testing.assert_allclose(norms, context_norms(game)[[4, 16, 39]].sum(1))


def test_an_unweighted_run_has_the_books_of_an_audited_one():
    rewards = (np.random.default_rng(21).random((400, 3)) < 0.4).astype(float)
    policy, run = unweighted_run(rewards, rng=np.random.default_rng(22))
    none = np.zeros(400, int)
    stream = RewardStream(contexts=none, rewards=rewards, n_contexts=1)
    audited = LogBarrierBandit(3, 0.0, horizon=400)
    books = audited_run(audited, stream, rng=np.random.default_rng(22))
    for found, right in zip(run[:4], books[:4]):
        np.testing.assert_allclose(found, right)
    found, right = path_slacks(policy, run), path_slacks(audited, books)
    np.testing.assert_allclose(found, right, rtol=1e-9)


def test_gap_runs_judge_each_run_against_the_best_map_of_its_own_stream():
    sizes = {"n_rounds": 3000, "n_contexts": 2, "n_arms": 3, "n_runs": 4}
    results = [
        gap_runs(**sizes, mean=0.3, rng=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0][0] != results[2][0]).all()
    regrets, utilities = results[0]
    assert regrets.shape == utilities.shape == (4,)
    best = regrets + utilities - 3  # the first arm's mean is 0.3 + 3 root(0.3 6 / 3000)
    assert abs(best.mean() / 3000 - 0.3735) < 0.02
    assert (regrets > 0).all() and (regrets < 0.1 * best).all()
