"""The compiled engine plays what the readable step functions play."""

import functools

import numpy as np
import pytest

from prunefair.fairness.baselines import POLICIES, make_policy
from prunefair.fairness.engine import run_fast
from prunefair.fairness.movielens import load_ratings, movielens_stream
from prunefair.fairness.simulation import simulate

ALL = [(feedback, name) for feedback in POLICIES for name in POLICIES[feedback]]
every_policy = pytest.mark.parametrize(("feedback", "name"), ALL)


@functools.cache
def ratings(n_rounds):
    return movielens_stream(load_ratings()).first(n_rounds)


def pair(feedback, name, stream, alpha=0.9):
    """Two equal, untrained policies."""
    sizes = {"n_arms": stream.n_arms, "n_contexts": stream.n_contexts}
    sizes |= {"alpha": alpha, "horizon": max(stream.n_rounds, 2)}
    return [make_policy(name, feedback=feedback, **sizes) for _ in range(2)]


@every_policy
def test_on_real_ratings_the_engine_agrees_with_the_reference(feedback, name):
    stream = ratings(1000 if name == "faircb" else 3000)
    slow, fast = pair(feedback, name, stream)
    expected = simulate(slow, stream, rng=np.random.default_rng(1))
    found = run_fast(fast, stream, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(found.rounds, expected.rounds)
    np.testing.assert_allclose(found.rewards, expected.rewards, rtol=1e-12)
    assert list(fast.learners) == list(slow.learners)
