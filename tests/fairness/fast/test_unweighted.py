"""Compiled runs without weights keep the books of audited ones."""

import numpy as np

from prunefair.fairness.bandit_feedback import (
    LogBarrierBandit,
    _path_slacks,
    audited_run,
)
from prunefair.fairness.fast.unweighted import gap_runs, unweighted_run
from prunefair.fairness.simulation import RewardStream


def test_an_unweighted_run_has_the_books_of_an_audited_one():
    rewards = (np.random.default_rng(21).random((400, 3)) < 0.4).astype(float)
    policy, run = unweighted_run(rewards, rng=np.random.default_rng(22))
    none = np.zeros(400, int)
    stream = RewardStream(contexts=none, rewards=rewards, n_contexts=1)
    audited = LogBarrierBandit(3, 0.0, horizon=400)
    books = audited_run(audited, stream, rng=np.random.default_rng(22))
    for found, right in zip(run[:4], books[:4]):
        np.testing.assert_allclose(found, right)
    found, right = _path_slacks(policy, run), _path_slacks(audited, books)
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
