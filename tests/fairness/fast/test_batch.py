"""Many runs at once are the single runs."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefair.fairness.bandit_feedback import ScaleFreeBandit, bernoulli_stream
from prunefair.fairness.baselines import Hedge
from prunefair.fairness.fast import batch
from prunefair.fairness.fast.batch import run_batch
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.simulation import RewardStream, simulate

ALPHAS = (0.0, 0.5, 0.9, 1.0)


def generators(seed, n):
    return np.random.default_rng(seed).spawn(n)


def assert_runs_agree(policies, stream, seed, **late):
    """`run_batch` gives what `simulate` gives for each policy, and so its state."""
    singles = copy.deepcopy(policies)
    rngs = generators(seed, len(policies))
    together = run_batch(policies, stream, rngs=generators(seed, len(policies)), **late)
    for s, (single, rng) in enumerate(zip(singles, rngs)):
        alone = simulate(single, stream, rng=rng, **late)
        np.testing.assert_array_equal(together.rounds, alone.rounds)
        np.testing.assert_allclose(together.rewards[s], alone.rewards, rtol=1e-12)
        np.testing.assert_allclose(policies[s].rewards, single.rewards, rtol=1e-12)
        assert list(policies[s].learners) == list(single.learners)
        for key, state in single.learners.items():
            assert type(policies[s].learners[key]) is type(state)
            for mine, theirs in zip(policies[s].learners[key], state):
                assert np.shape(mine) == np.shape(theirs)
                np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("step", ["squared", "centred", "released"])
@pytest.mark.parametrize("weights", ["before", "after"])
def test_gradient_runs_with_different_alphas_are_the_single_runs(step, weights):
    stream = bernoulli_stream(300, 3, 6, rng=np.random.default_rng(0))
    options = {"step": step, "weights": weights}
    assert_runs_agree([AlphaFairGradient(6, a, **options) for a in ALPHAS], stream, 1)


def test_bandit_runs_with_different_draws_are_the_single_runs(monkeypatch):
    monkeypatch.setattr(batch, "DRAWS_AT_ONCE", 64)
    stream = bernoulli_stream(300, 3, 6, rng=np.random.default_rng(2))
    assert_runs_agree([ScaleFreeBandit(6, a) for a in ALPHAS * 2], stream, 3)


@given(
    st.sampled_from([AlphaFairGradient, ScaleFreeBandit]),
    st.tuples(st.integers(1, 40), st.integers(1, 3), st.integers(1, 6)),
    st.sampled_from([[0.0], [0.0, 1.0], [0.001, 1.0], [0.0, 0.3, 0.7]]),
    st.integers(0, 2**32 - 1),
)
def test_any_stream_in_two_batches_is_the_single_runs(kind, sizes, levels, seed):
    rounds, n_contexts, n_arms = sizes
    rng = np.random.default_rng(seed)
    policies = [kind(n_arms, alpha) for alpha in ALPHAS[: 1 + seed % 4]]
    for _ in range(2):  # the second starts where the first one ended
        stream = RewardStream(
            contexts=rng.integers(n_contexts, size=rounds),
            rewards=rng.choice(levels, (rounds, n_arms)),
            n_contexts=n_contexts,
        )
        assert_runs_agree(policies, stream, seed)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("delay", [1, 7, 300])
@pytest.mark.parametrize("kind", [AlphaFairGradient, ScaleFreeBandit])
def test_late_feedback_is_that_of_the_single_runs(kind, delay, told):
    stream = bernoulli_stream(120, 3, 5, rng=np.random.default_rng(4))
    policies = [kind(5, alpha) for alpha in ALPHAS]
    assert_runs_agree(policies, stream, 5, delay=delay, told=told)


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ([], "policies is empty"),
        ([Hedge(3, horizon=9)], "policies is Hedge; give one kind"),
        ([AlphaFairGradient(3, 0.5), ScaleFreeBandit(3, 0.5)], "give one kind"),
        (
            [AlphaFairGradient(3, 0.5), AlphaFairGradient(3, 0.5, step="centred")],
            "policies have different options",
        ),
        ([AlphaFairGradient(2, 0.5)], "policy has 2 arms and stream 3"),
        ([ScaleFreeBandit(3, 0.5)], "rngs has 0 generators for 1 policies"),
    ],
)
def test_a_batch_that_is_none_is_refused(policies, message):
    stream = bernoulli_stream(5, 1, 3, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        run_batch(policies, stream)


def test_no_convergence_is_an_error_and_leaves_the_policies_alone(monkeypatch):
    monkeypatch.setattr(batch, "MAX_ITER", 1)
    stream = bernoulli_stream(50, 1, 3, rng=np.random.default_rng(0))
    policies = [ScaleFreeBandit(3, 0.5)]
    with pytest.raises(RuntimeError, match="more steps"):
        run_batch(policies, stream, rngs=generators(0, 1))
    assert (policies[0].rewards == 1).all() and not policies[0].learners
