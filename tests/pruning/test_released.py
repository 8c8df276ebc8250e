"""The released recipe: its draw, its loss and what it learns."""

import numpy as np
import pytest
import torch

from prunefair.pruning.policy_gradient import train_policy
from prunefair.pruning.released import (
    released_draw,
    released_rewards,
    released_spectrum,
    train_released,
)
from prunefair.pruning.row_policy import (
    ReleasedScorer,
)
from prunefair.pruning.spectrum import singular_values


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


W = normal(8, 3)


# training


def planted(seed, m=40, n=8):
    """Matrix whose first half carries the spectrum and whose rest is small."""
    A = normal(m, n, seed=seed)
    A[m // 2 :] *= 0.05
    return A


def test_released_recipe_drives_alpha_up_and_learns_no_rows():
    matrices = [planted(seed) for seed in range(4)]
    scorer = ReleasedScorer(8, 40, generator=seeded(3), collapsed=True)
    before = torch.stack([scorer.scores(A) for A in matrices]).sigmoid().mean()
    trained = train_released(
        matrices,
        0.5,
        episodes=60,
        learning_rate=0.01,
        generator=seeded(3),
        scorer=scorer,
    )
    after = torch.stack([scorer.scores(A) for A in matrices]).sigmoid().mean()
    assert after > 0.85 > before
    exact = train_policy(matrices, 0.5, episodes=25, generator=seeded(0))
    assert np.mean(trained.history[-10:]) > np.mean(exact.history[-10:]) + 0.1


def test_collapsed_order_and_gram_spectrum_train_the_same_released_scorer():
    matrices = [normal(12, 4, seed=s).float() for s in range(3)]
    histories = [
        train_released(
            matrices,
            0.5,
            episodes=4,
            generator=(generator := seeded(5)),
            scorer=ReleasedScorer(4, 12, generator=generator, collapsed=collapsed),
            spectrum=spectrum,
        ).history
        for collapsed, spectrum in ((False, released_spectrum), (True, singular_values))
    ]
    assert histories[0] == pytest.approx(histories[1], abs=0.02)


def test_released_draw_keeps_distinct_rows_in_order():
    S = released_draw(normal(30), 20, generator=seeded(0)).tolist()
    assert sorted(set(S)) == S and len(S) == 20


def test_released_step_is_skipped_where_alpha_rounds_to_one():
    scorer = ReleasedScorer(3, 8, generator=seeded(0))
    with torch.no_grad():
        scorer.b.fill_(100.0)
    before = [p.detach().clone() for p in scorer.parameters()]
    train_released([W], 0.5, episodes=2, generator=seeded(0), scorer=scorer)
    for old, new in zip(before, scorer.parameters(), strict=True):
        assert torch.equal(old, new)


def test_released_rewards_are_the_discounted_inverse_distances():
    rewards = released_rewards([0.5, 0.25], 0.9)
    torch.testing.assert_close(rewards, torch.tensor([2.0, 3.6], dtype=torch.float64))
