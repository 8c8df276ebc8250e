"""The compiled engine plays what the readable step functions play."""

import copy
import functools
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from functools import partial

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefair.fairness.bandit_feedback import (
    LogBarrierBandit,
    ScaleFreeBandit,
    bernoulli_stream,
    log_barrier_update,
    scale_free_step,
)
from prunefair.fairness.baselines import POLICIES, FairCB, make_policy
from prunefair.fairness.fast import compiled, kernels
from prunefair.fairness.fast.batch import run_batch
from prunefair.fairness.fast.compiled import barrier_step, gradient_step, run_fast
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.online_gradient import (
    AdaptiveState,
    ReleasedState,
    adaptive_step,
    released_step,
)
from prunefair.fairness.ratings import load_ratings, movielens_stream
from prunefair.fairness.simulation import RewardStream, simulate
from prunefair.fairness.uniform import UniformBandit

ALL = [(feedback, name) for feedback in POLICIES for name in POLICIES[feedback]]
every_policy = pytest.mark.parametrize(("feedback", "name"), ALL)
KINDS = [
    *((name, feedback, {}) for feedback, name in ALL),
    *(
        ("alpha_fair", "full", {"step": step, "weights": weights})
        for step in ("squared", "centred", "released")
        for weights in ("before", "after")
    ),
]


@functools.cache
def ratings(n_rounds):
    return movielens_stream(load_ratings()).first(n_rounds)


def build(feedback, name, stream, *, alpha=0.9, q=None, **options):
    """An untrained policy for `stream`."""
    if options:
        return AlphaFairGradient(stream.n_arms, alpha, **options)
    return make_policy(
        name,
        feedback=feedback,
        n_arms=stream.n_arms,
        n_contexts=stream.n_contexts,
        alpha=alpha,
        horizon=max(stream.n_rounds, 2),
        context_probabilities=q,
    )


def parts(stream, *cuts):
    """`stream` cut before these rounds."""
    pieces = zip(np.split(stream.contexts, cuts), np.split(stream.rewards, cuts))
    return [replace(stream, contexts=c, rewards=r) for c, r in pieces]


def assert_same_state(found, expected, rtol=1e-10):
    np.testing.assert_allclose(found.rewards, expected.rewards, rtol=1e-12)
    assert list(found.learners) == list(expected.learners)
    pairs = [(found.learners[key], expected.learners[key]) for key in found.learners]
    for a, b in [*pairs, (found.shared, expected.shared)]:
        assert type(a) is type(b)
        for mine, theirs in zip(a or (), b or ()):
            assert np.shape(mine) == np.shape(theirs)
            np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=1e-10)


@every_policy
def test_on_real_ratings_the_engine_agrees_with_the_reference(feedback, name):
    stream = ratings(600 if name == "faircb" else 3000)
    slow, fast = (build(feedback, name, stream) for _ in range(2))
    expected = simulate(slow, stream, rng=np.random.default_rng(1))
    found = run_fast(fast, stream, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(found.rounds, expected.rounds)
    np.testing.assert_allclose(found.rewards, expected.rewards, rtol=1e-12)
    assert_same_state(fast, slow)


@st.composite
def games(draw):
    """A stream with zeros and ties, a policy for it, and where to stop and resume."""
    name, feedback, options = draw(st.sampled_from(KINDS))
    rounds, n_contexts, n_arms = (draw(st.integers(1, top)) for top in (60, 4, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([[0.0], [0.0, 1.0], [0.001, 1.0], [0.0, 0.3, 0.7]]))
    stream = RewardStream(
        contexts=rng.integers(n_contexts, size=rounds),
        rewards=rng.choice(levels, (rounds, n_arms)),
        n_contexts=n_contexts,
    )
    q = None
    if draw(st.booleans()):  # a context that never comes by what FairCB is told
        q = rng.dirichlet(np.ones(n_contexts)) * (np.arange(n_contexts) != 1)
        q /= q.sum()
    alpha = draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    policy = build(feedback, name, stream, alpha=alpha, q=q, **options)
    return stream, policy, draw(st.integers(0, rounds)), int(rng.integers(2**32))


@given(games())
def test_on_any_stream_and_from_any_state_the_engine_agrees(game):
    stream, slow, stop, seed = game
    fast, rng = copy.deepcopy(slow), np.random.default_rng(seed)
    simulate(slow, stream, rng=np.random.default_rng(seed))
    head, tail = parts(stream, stop)
    (simulate if seed % 2 else run_fast)(fast, head, rng=rng)
    found = run_fast(fast, tail, rng=rng)
    assert len(found.rounds) == tail.n_rounds
    assert_same_state(fast, slow, rtol=1e-7)


@given(
    st.sampled_from([name for feedback, name in ALL if feedback == "bandit"]),
    st.floats(-9, 0),
    st.integers(0, 2**32 - 1),
)
def test_after_a_log_with_tiny_propensities_the_engine_and_the_batch_agree(
    name, low, seed
):
    rng = np.random.default_rng(seed)
    stream = RewardStream(
        contexts=rng.integers(2, size=20),
        rewards=rng.random((20, 4)) * 10 ** rng.uniform(-12, 0, (20, 4)),
        n_contexts=2,
    )
    slow = build("bandit", name, stream, alpha=0.5)
    for _ in range(8):
        reward, probability = rng.integers(2), max(10**low, 1e-9)
        slow.update(*rng.integers([2, 4]).tolist(), reward, probability=probability)
    fast, batch = copy.deepcopy(slow), copy.deepcopy(slow)
    simulate(slow, stream, rng=np.random.default_rng(seed))
    run_fast(fast, stream, rng=np.random.default_rng(seed))
    np.testing.assert_allclose(fast.rewards, slow.rewards, rtol=1e-9)
    if type(slow) is ScaleFreeBandit:
        run_batch([batch], stream, rngs=[np.random.default_rng(seed)])
        np.testing.assert_allclose(batch.rewards, slow.rewards, rtol=1e-9)


@every_policy
def test_saved_in_the_middle_the_engine_goes_on_as_if_it_had_not_stopped(
    feedback, name, tmp_path
):
    stream = bernoulli_stream(200, 3, 4, rng=np.random.default_rng(2))
    whole, first = (build(feedback, name, stream) for _ in range(2))
    expected = run_fast(whole, stream, rng=np.random.default_rng(3))
    rng = np.random.default_rng(3)
    head, tail = parts(stream, 90)
    run_fast(first, head, rng=rng)
    first.save(tmp_path / "policy.npz")
    second = type(first).load(tmp_path / "policy.npz")
    found = run_fast(second, tail, rng=rng)
    assert list(second.learners) == list(whole.learners)
    np.testing.assert_allclose(found.rewards[-1], expected.rewards[-1], rtol=1e-13)
    p, q = second.probabilities(0), whole.probabilities(0)
    np.testing.assert_allclose(p, q, rtol=1e-12, atol=1e-15)


@every_policy
def test_blocks_are_one_stream_and_each_end_is_a_checkpoint(feedback, name):
    stream = bernoulli_stream(120, 3, 4, rng=np.random.default_rng(4))
    whole, blocks = (build(feedback, name, stream) for _ in range(2))
    fine = run_fast(whole, stream, rng=np.random.default_rng(5))
    pieces = (part for part in parts(stream, 40, 41, 41, 90))
    coarse = run_fast(blocks, pieces, rng=np.random.default_rng(5))
    assert coarse.rounds.tolist() == [40, 41, 90, 120]
    expected = fine.rewards[coarse.rounds - 1]
    np.testing.assert_allclose(coarse.rewards, expected, rtol=1e-13)
    assert_same_state(blocks, whole)


@every_policy
def test_no_rounds_change_nothing(feedback, name):
    stream = bernoulli_stream(3, 2, 4, rng=np.random.default_rng(4))
    slow, fast = (build(feedback, name, stream) for _ in range(2))
    nothing = [stream.first(0), stream.first(0)]
    found = run_fast(fast, nothing[0], rng=np.random.default_rng(5))
    assert found.rewards.shape == (0, 4)
    assert len(run_fast(fast, nothing, rng=np.random.default_rng(5)).rounds) == 0
    assert_same_state(fast, slow)


def test_draws_made_in_blocks_are_the_same_draws(monkeypatch):
    stream = bernoulli_stream(150, 2, 3, rng=np.random.default_rng(6))
    slow, fast = ScaleFreeBandit(3, 0.9), ScaleFreeBandit(3, 0.9)
    simulate(slow, stream, rng=np.random.default_rng(7))
    monkeypatch.setattr(compiled, "ROUNDS_AT_ONCE", 11)
    run_fast(fast, stream, rng=np.random.default_rng(7), n_points=2)
    np.testing.assert_array_equal(fast.rewards, slow.rewards)


def test_memory_does_not_grow_with_the_rounds():
    rounds = 400_000
    stream = RewardStream(
        contexts=np.zeros(rounds, np.int32),
        rewards=np.ones((rounds, 2), np.float32),
        n_contexts=1,
    )
    run_fast(UniformBandit(2), stream.first(1), rng=np.random.default_rng(8))
    tracemalloc.start()
    run_fast(UniformBandit(2), stream, rng=np.random.default_rng(8), n_points=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * rounds  # not one number a round


def test_other_kinds_of_numbers_and_strides_are_taken():
    data = bernoulli_stream(60, 2, 6, rng=np.random.default_rng(9))
    stream = RewardStream(
        contexts=data.contexts.astype(np.int16)[::-1],
        rewards=data.rewards.astype(np.float32)[:, ::2],
        n_contexts=2,
    )
    slow, fast = AlphaFairGradient(3, 0.9), AlphaFairGradient(3, 0.9)
    simulate(slow, stream)
    run_fast(fast, stream)
    assert_same_state(fast, slow)


@every_policy
def test_learners_of_other_contexts_are_left_as_they_are(feedback, name):
    stream = bernoulli_stream(50, 3, 4, rng=np.random.default_rng(10))
    policies = [build(feedback, name, stream) for _ in range(2)]
    for policy, play in zip(policies, (simulate, run_fast)):
        arguments = (2, 0.5) if feedback == "bandit" else ([0.1, 0.5, 0.9, 0.0],)
        policy.update("ada", *arguments)
        play(policy, stream, rng=np.random.default_rng(11))
    assert_same_state(policies[1], policies[0])


def test_a_policy_without_a_kernel_is_refused_by_name():
    class Other(ScaleFreeBandit):
        """Might step in another way."""

    stream = bernoulli_stream(5, 1, 3, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="policy is a Other, for which there is no"):
        run_fast(Other(3, 0.5), stream, rng=np.random.default_rng(0))


def test_what_simulate_refuses_is_refused():
    stream = bernoulli_stream(5, 1, 3, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="policy has 2 arms and stream 3"):
        run_fast(AlphaFairGradient(2, 0.5), stream)
    with pytest.raises(ValueError, match="rng is None"):
        run_fast(ScaleFreeBandit(3, 0.5), stream)
    for none in (None, "stream", [None], 3):
        with pytest.raises(ValueError, match="stream is .*; give a RewardStream"):
            run_fast(AlphaFairGradient(3, 0.5), none)
    with pytest.raises(ValueError, match="n_points is 0"):
        run_fast(AlphaFairGradient(3, 0.5), stream, n_points=0)


def test_no_convergence_is_an_error_and_leaves_the_policy_alone():
    stream = bernoulli_stream(50, 1, 3, rng=np.random.default_rng(0))
    policy = ScaleFreeBandit(3, 0.5)
    policy.learners[0] = policy.initial()._replace(estimates=np.full(3, np.nan))
    with pytest.raises(RuntimeError, match="more steps"):
        run_fast(policy, stream, rng=np.random.default_rng(0))
    assert (policy.rewards == 1).all()


def test_faircb_keeps_its_quota_in_the_engine():
    stream = bernoulli_stream(80, 3, 4, rng=np.random.default_rng(12))
    q = np.array([0.2, 0.5, 0.3])
    policy = FairCB(4, n_contexts=3, horizon=80, context_probabilities=q)
    run_fast(policy, stream, rng=np.random.default_rng(13))
    average = q @ [policy.probabilities(j) for j in range(3)]
    assert average.min() >= policy.floor - 1e-9


def test_kernels_are_compiled_where_nothing_can_be_written(monkeypatch):
    def nowhere(py_func):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(kernels, "MendingCache", nowhere)
    made = kernels.compiled_kernel.__wrapped__(kernels.hedge_rounds)
    assert type(made._cache).__name__ == "NullCache"


def test_a_cache_that_was_cut_off_is_compiled_again_and_mended(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def hits():
        """Whether the kernel was found on the disk; it computes the same anyway."""
        kernel, R = (
            kernels.compiled_kernel.__wrapped__(kernels.uniform_rounds),
            np.ones(2),
        )
        kernel(np.zeros(3, int), np.ones((3, 2)), np.zeros(0), R, False)
        assert R.tolist() == [2.5, 2.5]
        return sum(kernel.stats.cache_hits.values())

    assert (hits(), hits()) == (0, 1)
    for suffix in ("nbi", "nbc"):
        (file,) = tmp_path.rglob(f"*uniform_rounds*.{suffix}")
        file.write_bytes(file.read_bytes()[:40])
        assert (hits(), hits()) == (0, 1)


def test_contexts_that_never_come_take_no_memory():
    names = 3_000_000
    data = bernoulli_stream(200, 3, 4, rng=np.random.default_rng(14))
    places = np.array([5, 2_000_000, names - 1])
    few = RewardStream(contexts=data.contexts, rewards=data.rewards, n_contexts=3)
    many = replace(few, contexts=places[data.contexts], n_contexts=names)
    policies = [AlphaFairGradient(4, 0.9) for _ in range(4)]
    run_fast(policies[0], few)
    tracemalloc.start()
    run_fast(policies[1], many)
    run_batch(policies[2:], many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    for policy in policies[1:]:
        np.testing.assert_allclose(policy.rewards, policies[0].rewards, rtol=1e-12)
        assert set(policy.learners) == set(places.tolist())


def test_numba_is_imported_by_the_first_run_only():
    code = "import sys, prunefair.fairness.fast.compiled; print('numba' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


SUMS = """
import numpy as np
from prunefair.fairness.baselines import ContextFreeGradient
from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.simulation import RewardStream
rng = np.random.default_rng(0)
few = np.where(rng.random((3000, 19)) < 0.2, 1, 1e-3)
stream = RewardStream(contexts=rng.integers(0, 9, 3000), rewards=few, n_contexts=9)
for kind in (AlphaFairGradient, ContextFreeGradient):
    print(run_fast(kind(19, 0.9), stream).rewards.tobytes().hex())
"""


def test_the_process_that_compiles_gets_the_same_bits_as_later_ones(tmp_path):
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SUMS]
    cold, warm = (subprocess.check_output(command, env=env) for _ in range(2))
    assert list(tmp_path.rglob("*.nbc")) and cold == warm


@given(st.integers(0, 10**6), st.integers(1, 45), st.integers(-6, 6))
@settings(max_examples=60, deadline=None)
def test_a_gradient_step_is_that_of_the_chapter_to_the_byte(seed, n, power):
    rng = np.random.default_rng(seed)
    point = np.where(rng.random(n) < 0.4, 0.0, rng.random(n).round(1))
    point[rng.integers(n)] += 1
    state = AdaptiveState(point / point.sum(), float(rng.random() * (seed % 3)))
    gradient = 10.0**power * rng.random(n).round(seed % 4) * (rng.random(n) < 0.6)
    for kind, step in (
        ("squared", adaptive_step),
        ("centred", partial(adaptive_step, centred=True)),
        ("released", released_step),
    ):
        given_ = ReleasedState(*state) if kind == "released" else state
        new, old = gradient_step(given_, gradient, kind), step(given_, gradient)
        assert type(new) is type(old) and new[1] == old[1]
        assert new.point.tobytes() == old.point.tobytes()


@given(st.integers(0, 10**6), st.integers(2, 45), st.sampled_from([1, 0.1, 1e-9]))
@settings(max_examples=60, deadline=None)
def test_a_bandit_step_is_that_of_the_chapter_to_rounding(seed, n, probability):
    rng = np.random.default_rng(seed)
    free, barrier = ScaleFreeBandit(n, 0.0), LogBarrierBandit(n, 0.5, horizon=500)
    room, start = barrier.barrier, 2 * barrier.barrier
    states = [free.initial(), barrier.initial()._replace(scale=1.0)]
    for _ in range(6):
        arm, loss = int(rng.integers(n)), -round(rng.random(), 1)
        p = probability if rng.random() < 0.3 else 0.5
        wanted = (
            scale_free_step(states[0], arm, loss, p),
            log_barrier_update(states[1], arm, loss, room, 2.0, p),
        )
        states = [
            barrier_step(states[0], arm, loss, p, (float(n), 1.0)),
            barrier_step(states[1], arm, loss, p, (room, start)),
        ]
        for new, old in zip(states, wanted):
            assert type(new) is type(old)
            for value, reference in zip(new, old):
                np.testing.assert_allclose(value, reference, rtol=1e-8, atol=1e-13)
