"""The adversaries do what their names say."""

import numpy as np
import pytest

from prunefair.fairness.adversaries import (
    adversaries,
    play_suite,
    probe_rewards,
)
from prunefair.fairness.full_information import (
    AlphaFairGradient,
)


def test_adversaries_refuse_bad_arguments():
    with pytest.raises(ValueError, match="delta is 2"):
        adversaries(1, 2, 10, delta=2, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="n_arms is 0"):
        adversaries(1, 0, 10, rng=np.random.default_rng(0))


def test_a_seed_repeats_the_suite_and_delta_raises_every_reward():
    def run(delta):
        rng = np.random.default_rng(9)
        return list(
            play_suite(
                AlphaFairGradient, (0.5,), ((2, 3),), 40, deltas=(delta,), rng=rng
            )
        )

    for (name, one), (_, two), (_, raised) in zip(run(0.0), run(0.0), run(0.3)):
        np.testing.assert_array_equal(one.rewards, two.rewards, err_msg=name)
        np.testing.assert_array_equal(one.points, two.points, err_msg=name)
        assert raised.rewards.min() >= 0.3


def test_adversaries_do_what_their_names_say():
    rng = np.random.default_rng(10)
    games = {
        name: game
        for name, game in play_suite(AlphaFairGradient, (0.5,), ((3, 4),), 90, rng=rng)
    }
    played = games["least played"]
    chosen = played.points[np.arange(90), played.rewards.argmax(1)]
    np.testing.assert_allclose(chosen, played.points.min(1), atol=1e-9)
    rich, poor = games["rich"], games["poor"]
    gained = rich.cumulative[:-1][np.arange(90), rich.rewards.argmax(1)]
    np.testing.assert_allclose(gained, rich.cumulative[:-1].max(1), atol=1e-9)
    gained = poor.cumulative[:-1][np.arange(90), poor.rewards.argmax(1)]
    np.testing.assert_allclose(gained, poor.cumulative[:-1].min(1), atol=1e-9)
    assert (games["ones"].rewards == 1).all()
    assert (np.diff(games["nested"].contexts) >= 0).all()
    sizes = [games["nested"].rewards[30 * j].sum() for j in range(3)]
    assert sizes == [4, 3, 2]
    assert (games["rotating"].rewards.argmax(1) == np.arange(90) % 4).all()


def test_the_probe_rewards_the_poorest_idle_arm():
    x = np.array([1.0, 0, 0])
    np.testing.assert_array_equal(probe_rewards(x, np.array([9, 2.0, 1])), [0, 0, 1])
    np.testing.assert_array_equal(probe_rewards(x + 0.1, np.ones(3)), [1, 0, 0])
