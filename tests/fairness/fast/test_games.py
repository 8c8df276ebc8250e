"""Compiled games are the recorded ones."""

import numpy as np
import pytest

from prunefair.fairness.adversaries import (
    late_rewards,
    probe_rewards,
)
from prunefair.fairness.fast.games import norms_over_time, probe_norms
from prunefair.fairness.full_information import (
    AlphaFairGradient,
    context_norms,
    linear_regret,
)
from prunefair.fairness.simulation import play_game


@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.9])
def test_the_compiled_probe_is_the_game_against_the_probe(alpha):
    def probe(t, policy):
        return 0, probe_rewards(policy.probabilities(0), policy.rewards)

    game = play_game(AlphaFairGradient(2, alpha), probe, 700, 1)
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

    game = play_game(AlphaFairGradient(2, 0.6), opponent, 40, 3)
    np.testing.assert_allclose(rewards, game.cumulative[[5, 17, 40]], rtol=1e-12)
    np.testing.assert_allclose(norms, context_norms(game)[[4, 16, 39]].sum(1))
