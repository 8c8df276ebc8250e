"""The contract that every policy of Part II keeps, and saving and resuming."""

import copy
import inspect
import itertools
import json
import pickle
import threading
import tracemalloc
import zipfile
from enum import IntEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpydoc.docscrape import FunctionDoc

from prunefair.fairness import policy as root
from prunefair.fairness.bandit_feedback import LogBarrierBandit
from prunefair.fairness.baselines import (
    POLICIES,
    FullInformationFairCB,
    make_policy,
)
from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.fixed_map import FixedMap
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.policy import (
    Policy,
    check_alpha,
    check_arm,
    check_context,
    check_n_arms,
    check_reward,
)
from prunefair.fairness.simulation import RewardStream, simulate
from prunefair.fairness.uniform import Uniform


class Season(IntEnum):
    """A context that is a whole number in disguise."""

    SPRING = 1
    WINTER = 3


N_ARMS, N_CONTEXTS, ROUNDS = 4, 3, 60
ALL = [(feedback, name) for feedback in POLICIES for name in POLICIES[feedback]]
every_policy = pytest.mark.parametrize(("feedback", "name"), ALL)


def build(feedback, name, **options):
    sizes = {
        "n_arms": N_ARMS,
        "n_contexts": N_CONTEXTS,
        "alpha": 0.7,
        "horizon": ROUNDS,
    }
    return make_policy(name, feedback=feedback, **(sizes | options))


def stream(rounds=ROUNDS, seed=5):
    rng = np.random.default_rng(seed)
    contexts = rng.integers(N_CONTEXTS, size=rounds)
    rewards = rng.random((rounds, N_ARMS)) * (rng.random((rounds, N_ARMS)) < 0.7)
    return RewardStream(contexts=contexts, rewards=rewards, n_contexts=N_CONTEXTS)


def play(policy, data, rng):
    """Every distribution played; the arms are drawn by inverting the distribution."""
    played = []
    for context, rewards in zip(data.contexts.tolist(), data.rewards):
        p = policy.probabilities(context)
        played.append(p)
        if policy.feedback == "bandit":
            arm = int(rng.choice(policy.n_arms, p=p / p.sum()))
            policy.update(context, arm, rewards[arm])
        else:
            policy.update(context, rewards)
    return np.array(played)


def feed_of(feedback):
    return (1, 0.5) if feedback == "bandit" else ([0.5, 0.25, 1, 0],)


def snapshot(policy):
    """All state as one nested structure of bytes."""
    shared = () if policy.shared is None else policy.shared
    parts = [("rewards", policy.rewards.tobytes())]
    parts += [(f"shared {i}", np.asarray(v).tobytes()) for i, v in enumerate(shared)]
    for key, state in policy.learners.items():
        parts += [(repr(key), np.asarray(value).tobytes()) for value in state]
    return parts


@every_policy
def test_every_answer_is_a_distribution(feedback, name):
    policy = build(feedback, name)
    played = play(policy, stream(), np.random.default_rng(0))
    assert played.shape == (ROUNDS, N_ARMS)
    assert played.dtype == np.float64
    assert (played >= 0).all()
    np.testing.assert_allclose(played.sum(axis=1), 1, atol=1e-12)
    if feedback == "bandit":
        assert (played > 0).all()  # an estimate is divided by it


@every_policy
def test_asking_changes_nothing_and_the_answer_belongs_to_the_caller(feedback, name):
    policy = build(feedback, name)
    play(policy, stream(20), np.random.default_rng(1))
    before, answer = snapshot(policy), policy.probabilities(0)
    kept = answer.copy()
    policy.probabilities("never seen")
    answer[:] = np.nan
    np.testing.assert_array_equal(policy.probabilities(0), kept)
    assert snapshot(policy) == before


@every_policy
def test_rewards_are_the_sum_of_what_was_played(feedback, name):
    policy, data = build(feedback, name), stream()
    total = np.ones(N_ARMS)
    rng = np.random.default_rng(2)
    for context, rewards in zip(data.contexts.tolist(), data.rewards):
        p = policy.probabilities(context)
        if feedback == "bandit":
            arm = int(rng.choice(N_ARMS, p=p / p.sum()))
            policy.update(context, arm, rewards[arm])
            total[arm] += rewards[arm]
        else:
            policy.update(context, rewards)
            total += rewards * p
    np.testing.assert_allclose(policy.rewards, total, rtol=1e-14)


@every_policy
@pytest.mark.parametrize("stop", [0, 1, 33])
def test_saved_in_the_middle_it_resumes_bit_for_bit(feedback, name, stop, tmp_path):
    data = stream()
    whole, first = build(feedback, name), build(feedback, name)
    played = play(whole, data, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    head = RewardStream(
        contexts=data.contexts[:stop],
        rewards=data.rewards[:stop],
        n_contexts=N_CONTEXTS,
    )
    tail = RewardStream(
        contexts=data.contexts[stop:],
        rewards=data.rewards[stop:],
        n_contexts=N_CONTEXTS,
    )
    play(first, head, rng)
    first.probabilities("an answer that was asked for and never used")
    first.save(tmp_path / "policy.npz")
    second = type(first).load(tmp_path / "policy.npz")
    assert snapshot(second) == snapshot(first)
    assert second.config() == first.config()
    np.testing.assert_array_equal(play(second, tail, rng), played[stop:])
    assert snapshot(second) == snapshot(whole)


@every_policy
def test_the_same_seed_gives_the_same_bytes_on_disk(feedback, name, tmp_path):
    for name_of_file in ("a", "b"):
        policy = build(feedback, name)
        simulate(policy, stream(), rng=np.random.default_rng(4))
        policy.save(tmp_path / name_of_file)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@every_policy
def test_a_context_never_seen_gets_a_distribution_and_then_learns(feedback, name):
    policy = build(feedback, name)
    play(policy, stream(20), np.random.default_rng(6))
    for context in ("late", ("user", 7, None), 2.5, True, -1):
        p = policy.probabilities(context)
        np.testing.assert_allclose(p.sum(), 1, atol=1e-12)
        feed = (2, 1.0) if feedback == "bandit" else ([0, 0, 1, 0],)
        before = policy.rewards[2]
        policy.update(context, *feed)
        assert policy.rewards[2] > before


@every_policy
def test_given_probabilities_that_do_not_cover_a_context_are_no_obstacle(
    feedback, name
):
    policy = build(feedback, name, context_probabilities=[0.5, 0.5, 0])
    play(policy, stream(30), np.random.default_rng(7))
    p = policy.probabilities("not among the three")
    np.testing.assert_allclose(p.sum(), 1, atol=1e-12)


BAD_REWARDS = [
    ([0.5] * (N_ARMS + 1), "shape"),
    ([[0.5] * N_ARMS], "shape"),
    (0.5, "shape"),
    ([0.5, np.nan, 0, 0], r"\[0, 1\]"),
    ([0.5, 1.5, 0, 0], r"\[0, 1\]"),
    ([0.5, -0.1, 0, 0], r"\[0, 1\]"),
    ([0.5, np.inf, 0, 0], r"\[0, 1\]"),
    (None, "rewards is None; it must hold 4 numbers"),
    ("abcd", "rewards is 'abcd'"),
    (["1", "0", "0", "0"], "it must hold 4 numbers"),
    ([0.5, [1], 0, 0], "it must hold 4 numbers"),
    ([0.5, 1j, 0, 0], "it must hold 4 numbers"),
]
BAD_PULLS = [
    (N_ARMS, 0.5, "arm is 4; it must be one of 0, ..., 3"),
    (-1, 0.5, "arm is -1"),
    (1.5, 0.5, "arm is 1.5"),
    (np.nan, 0.5, "arm is nan"),
    (None, 0.5, "arm is None"),
    ("1", 0.5, "arm is '1'"),
    ([1], 0.5, "arm is"),
    (True, 0.5, "arm is True"),
    (1, 1.5, "reward is 1.5; it must be a number in"),
    (1, -0.1, "reward is -0.1"),
    (1, np.nan, "reward is nan"),
    (1, [0.5], "reward is"),
    (1, None, "reward is None"),
    (1, "1", "reward is '1'"),
]


@every_policy
def test_bad_feedback_is_named_and_leaves_the_state_unchanged(feedback, name):
    policy = build(feedback, name)
    play(policy, stream(10), np.random.default_rng(8))
    before = snapshot(policy)
    bad = BAD_PULLS if feedback == "bandit" else BAD_REWARDS
    for *arguments, message in bad:
        for context in (0, "new"):
            with pytest.raises(ValueError, match=message):
                policy.update(context, *arguments)
    assert snapshot(policy) == before


class Enormous(IntEnum):
    NUMBER = 2**2048


def nested(depth):
    """A context of so many tuples, one in the other."""
    context = "ada"
    for _ in range(depth):
        context = (context,)
    return context


NO_CONTEXTS = [
    (["list"], TypeError, r"context is or holds \['list'\] of type list; give a"),
    (np.zeros(2), TypeError, "of type ndarray"),
    (frozenset({1}), TypeError, "of type frozenset"),
    (b"bytes", TypeError, "of type bytes"),
    (1j, TypeError, "of type complex"),
    (("nested", (1, b"bytes")), TypeError, "context is or holds b'bytes'"),
    (np.longdouble(1), TypeError, "of type longdouble"),
    (np.datetime64("2020-01-01T00:00:00.000000001"), TypeError, "of type datetime64"),
    (float("nan"), ValueError, "holds NaN, .* write None for what is missing"),
    (("ada", (np.float32("nan"), 3)), ValueError, "holds NaN"),
    (10**5000, ValueError, "more than 2048 bits.*; give it as a string"),
    (("a", -(2**2048)), ValueError, "more than 2048 bits"),
    (Enormous.NUMBER, ValueError, "more than 2048 bits"),
    (nested(51), ValueError, "more than 50 tuples deep.*; give a flatter tuple"),
    (nested(100_000), ValueError, "more than 50 tuples deep"),
]


@every_policy
def test_what_is_no_context_is_refused_before_a_learner_is_made(feedback, name):
    policy = build(feedback, name)
    play(policy, stream(10), np.random.default_rng(8))
    before = snapshot(policy)
    for context, kind, message in NO_CONTEXTS:
        with pytest.raises(kind, match=message) as caught:
            policy.update(context, *feed_of(feedback))
        assert len(str(caught.value)) <= 300
        with pytest.raises(kind, match=message):
            policy.probabilities(context)
    assert snapshot(policy) == before


SAME = [
    [1, 1.0, True, np.int64(1), np.float32(1), np.bool_(True), Season.SPRING],
    [(1,), (1.0,), (np.int64(1),), (True,)],
    ["1", np.str_("1")],
    [(1, ("a", None)), (np.int8(1), (np.str_("a"), None))],
    [0, False, -0.0, np.float64(0)],
    [None],
    [(None,)],
    [()],
    [0.1, np.float64(0.1)],
    [np.float32(0.1), 0.10000000149011612],  # what a float32 holds
    [2**70],
    [float("inf"), np.inf],
]


@every_policy
def test_two_contexts_are_the_same_exactly_if_they_are_equal_in_python(feedback, name):
    policy = build(feedback, name)
    for group in SAME:
        for context in group:
            policy.update(context, *feed_of(feedback))
            shown = policy.probabilities(context)
            assert shown.shape == (N_ARMS,)
            for other in group:
                np.testing.assert_array_equal(policy.probabilities(other), shown)
    blind = {"hedge", "uniform", "context_free_gradient", "single_scale_free"}
    if name not in blind:
        assert len(policy.learners) == len(SAME)


def test_a_fixed_map_takes_equal_contexts_as_one():
    table = np.array([[0.25, 0.75], [1.0, 0.0]])
    policy = FixedMap(table)
    for context, row in ((0, 0), (False, 0), (0.0, 0), (np.int8(1), 1), (True, 1)):
        np.testing.assert_array_equal(policy.probabilities(context), table[row])
    for elsewhere in (0.5, (0,), "0", None, -1, 2):
        np.testing.assert_array_equal(policy.probabilities(elsewhere), [0.5, 0.5])


def test_the_contract_would_notice_a_learner_that_updates_first():
    class Hasty(AlphaFairGradient):
        def update(self, context, rewards):
            self.rewards = self.rewards + 1
            super().update(context, rewards)

    policy = Hasty(2, 0.5)
    before = snapshot(policy)
    with pytest.raises(ValueError):
        policy.update(0, [0.5, 2])
    assert snapshot(policy) != before


@pytest.mark.parametrize("arm", [0, np.int64(3), 2.0, np.float32(1)])
def test_whole_numbers_of_any_type_are_arms(arm):
    assert check_arm(arm, 4) == arm
    assert type(check_arm(arm, 4)) is int


@pytest.mark.parametrize("reward", [0, 1, True, np.float32(0.5), np.array(0.25)])
def test_numbers_of_any_type_are_rewards(reward):
    assert check_reward(reward) == reward
    assert type(check_reward(reward)) is float


@pytest.mark.parametrize("value", [-0.1, 1.0, np.nan, np.inf, None, "0.5", [0.5]])
def test_alpha_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match="alpha is"):
        check_alpha(value, below=1)


@pytest.mark.parametrize("value", [0, -1, 1.5, np.nan, np.inf, None, "3", [3]])
def test_a_number_of_arms_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="n_arms is"):
        check_n_arms(value)
    with pytest.raises(ValueError, match="n_contexts is"):
        build("bandit", "faircb", n_contexts=value)


missing = [float("nan"), np.float32("nan"), np.nan]
keys = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


def in_numpy(context):
    """The same context with every number and string in numpy's clothes."""
    if isinstance(context, tuple):
        return tuple(in_numpy(part) for part in context)
    fits = not isinstance(context, int) or abs(context) < 2**63
    if context is None or not fits or (isinstance(context, str) and "\0" in context):
        return context
    return np.array([context])[0]


@given(keys)
def test_the_key_of_a_context_is_equal_to_it_and_to_its_numpy_form(context):
    key = check_context(context)
    assert key == context and hash(key) == hash(context)
    assert check_context(in_numpy(context)) == key
    assert check_context(key) is key or check_context(key) == key


@given(keys, st.integers(0, 3), st.sampled_from(missing))
def test_a_missing_number_is_refused_at_any_depth(context, depth, nan):
    context = (context, nan)
    for _ in range(depth):
        context = (1, context, "a")
    with pytest.raises(ValueError, match="NaN"):
        check_context(context)


@given(st.lists(keys, max_size=6, unique=True))
def test_contexts_of_every_allowed_kind_come_back_in_order(contexts):
    decoded = [
        root.decode_key(value)
        for value in json.loads(json.dumps([root.encode_key(key) for key in contexts]))
    ]
    assert decoded == contexts
    assert [type(key) for key in decoded] == [type(key) for key in contexts]


@pytest.mark.parametrize("context", [2**2048 - 1, 1 - 2**2048, nested(50)])
def test_the_largest_contexts_come_back_from_a_file(context, tmp_path):
    policy = AlphaFairGradient(2, 0.5)
    policy.update(context, [1, 0])
    policy.save(tmp_path / "p.npz")
    assert list(AlphaFairGradient.load(tmp_path / "p.npz").learners) == [context]


def test_numpy_and_enum_contexts_find_their_learner_again(tmp_path):
    policy = AlphaFairGradient(2, 0.5)
    for context in (np.int64(4), np.str_("a"), Season.WINTER):
        policy.update(context, [1, 0])
    policy.save(tmp_path / "p.npz")
    loaded = AlphaFairGradient.load(tmp_path / "p.npz")
    assert list(loaded.learners) == [4, "a", 3]


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    policy = Uniform(2)
    policy.save(tmp_path / "p.npz")
    old = (tmp_path / "p.npz").read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        policy.save(tmp_path / "p.npz")
    assert [f.name for f in tmp_path.iterdir()] == ["p.npz"]
    assert (tmp_path / "p.npz").read_bytes() == old


def test_a_file_of_another_policy_or_of_none_is_refused(tmp_path):
    Uniform(2).save(tmp_path / "p.npz")
    with pytest.raises(ValueError, match="holds a Uniform; load it with Uniform.load"):
        AlphaFairGradient.load(tmp_path / "p.npz")
    np.savez(tmp_path / "q.npz", x=np.ones(2))
    with pytest.raises(ValueError, match="holds no policy"):
        Uniform.load(tmp_path / "q.npz")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (None, TypeError, "path is None; give a path"),
        (3.5, TypeError, "path is 3.5; give a path"),
        ("a\0b", ValueError, "path is 'a.*b', which holds control .*; give"),
        ("", ValueError, "path is '', which names no file"),
        ("folder", (ValueError, OSError), "folder'.*a director.*give a|a folder; name"),
        ("nowhere/p.npz", (ValueError, OSError), "path is .*; give a file|create that"),
    ],
)
def test_a_path_that_is_none_is_named_with_a_remedy(name, kind, message, tmp_path):
    (tmp_path / "folder").mkdir()
    place = tmp_path / name if isinstance(name, str) and name.strip("a\0b") else name
    for call in (Uniform(2).save, Uniform.load):
        with pytest.raises(kind, match=message) as caught:
            call(place)
        text = str(caught.value)
        assert text.startswith("path is ") and "\n" not in text and len(text) <= 300
    assert [f.name for f in tmp_path.iterdir()] == ["folder"]


def test_only_a_policy_that_there_is_is_suggested(tmp_path):
    class Uniform2(Uniform):
        pass

    Uniform2.__name__ = "NoSuchPolicy"
    Uniform2(2).save(tmp_path / "p.npz")
    Uniform2.__name__ = "Uniform2"
    with pytest.raises(ValueError, match="holds a NoSuchPolicy; no policy that is imp"):
        Uniform.load(tmp_path / "p.npz")


@pytest.mark.parametrize("damage", ["text", "cut", "flipped", "pickled", "npy"])
def test_a_damaged_file_is_named_and_never_unpickled(damage, tmp_path):
    path = tmp_path / "p.npz"
    policy = AlphaFairGradient(2, 0.5)
    policy.update("a", [1, 0])
    policy.save(path)
    whole = path.read_bytes()
    if damage == "npy":
        np.save(path.with_suffix(".npy"), np.ones(2))
        path.with_suffix(".npy").replace(path)
    else:
        path.write_bytes(
            {
                "text": b"no policy",
                "cut": whole[: len(whole) // 2],
                "flipped": whole[:200] + bytes([whole[200] ^ 255]) + whole[201:],
                "pickled": pickle.dumps({"header": "{}"}),
            }[damage]
        )
    with pytest.raises(
        ValueError, match=r"path is .*p\.npz', which holds no policy or"
    ):
        AlphaFairGradient.load(path)
    with pytest.raises(FileNotFoundError):
        AlphaFairGradient.load(tmp_path / "missing.npz")


def test_files_hold_no_pickle(tmp_path):
    for feedback, name in ALL:
        policy = build(feedback, name)
        play(policy, stream(10), np.random.default_rng(9))
        policy.save(tmp_path / "p.npz")
        with np.load(tmp_path / "p.npz", allow_pickle=False) as file:
            assert all(file[key].dtype != object for key in file)


def test_the_fixed_map_keeps_the_contract_too(tmp_path):
    table = np.array([[0.25, 0.75], [1.0, 0.0], [1 / 3, 2 / 3]])
    policy = FixedMap(table)
    policy.update(1, [0.5, 0.5])
    policy.save(tmp_path / "p.npz")
    again = FixedMap.load(tmp_path / "p.npz")
    np.testing.assert_array_equal(again.probabilities(2), table[2])
    np.testing.assert_array_equal(again.rewards, policy.rewards)
    np.testing.assert_array_equal(again.probabilities("elsewhere"), [0.5, 0.5])


@every_policy
def test_late_feedback_is_credited_to_what_was_played_then(feedback, name):
    policy = build(feedback, name)
    play(policy, stream(10), np.random.default_rng(8))
    if feedback == "full":
        answers = [policy.probabilities(0), policy.probabilities(1)]
        before, rewards = policy.rewards, np.array([0.9, 0.1, 0.5, 1.0])
        for j in (0, 1, 0):
            policy.update(j, rewards, played=answers[j])
        credit = rewards * (2 * answers[0] + answers[1])
        np.testing.assert_allclose(policy.rewards - before, credit, rtol=1e-12)
    else:
        known, later = build(feedback, name), build(feedback, name)
        arm, p = 2, known.probabilities("new")[2]
        known.update("new", arm, 0.5)
        later.update("new", arm, 0.5, probability=p)
        assert snapshot(known) == snapshot(later)


def test_two_late_rounds_by_hand():
    """Both played at (1/2, 1/2): each arm is paid what it earned then."""
    policy = AlphaFairGradient(2, 0.5)
    first = policy.probabilities("ada")
    second = policy.probabilities("ada")
    policy.update("ada", [1, 0], played=first)
    np.testing.assert_allclose(policy.rewards - 1, [0.5, 0])
    policy.update("ada", [0, 1], played=second)
    np.testing.assert_allclose(policy.rewards - 1, [0.5, 0.5])


@pytest.mark.parametrize("name", ["scale_free", "log_barrier", "faircb"])
def test_the_estimate_is_divided_by_the_probability_of_the_draw(name):
    now, then = (build("bandit", name, alpha=0.0) for _ in range(2))
    now.update(0, 1, 0.5)
    then.update(0, 1, 0.5, probability=0.05)  # five times rarer than now

    def estimate(policy):
        if name == "faircb":
            return policy.shared.losses[0, 1]
        return policy.learners[0].estimates[1]

    np.testing.assert_allclose(estimate(then), 5 * estimate(now))
    np.testing.assert_array_equal(then.rewards, now.rewards)


@every_policy
def test_a_probability_or_distribution_that_is_none_is_refused(feedback, name):
    policy = build(feedback, name)
    before = snapshot(policy)
    bad = [0, 1e-308, 9e-10, -0.1, 1.1, np.nan, "0.5", [0.5], True]
    if feedback == "full":
        bad = [[0.5] * N_ARMS, [1, 0, 0], 0.5, "abcd", [2, -1, 0, 0], [np.nan, 1, 0, 0]]
    word = "probability" if feedback == "bandit" else "played"
    for value in bad:
        with pytest.raises(ValueError, match=f"{word} is .*; it must"):
            policy.update(0, *feed_of(feedback), **{word: value})
    assert snapshot(policy) == before


def test_a_uniform_log_teaches_with_its_propensities_and_misleads_without():
    means, rng = np.array([0.9, 0.6, 0.3, 0.1]), np.random.default_rng(11)
    arms = rng.integers(4, size=4000)
    paid = (rng.random(4000) < means[arms]).astype(float)
    told, blind = (build("bandit", "log_barrier", alpha=0.0) for _ in range(2))
    for arm, reward in zip(arms.tolist(), paid.tolist()):
        told.update(0, arm, reward, probability=0.25)
        blind.update(0, arm, reward)
    assert told.probabilities(0)[0] > 0.95
    assert blind.probabilities(0)[0] < 0.6


def arrays_in(value, seen):
    """Every array that can be reached from `value`."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from arrays_in(part, seen)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from arrays_in(part, seen)


@pytest.mark.parametrize("way", ["played", "loaded", "copied", "pickled", "fast"])
@every_policy
def test_no_array_of_a_policy_can_be_written_to(feedback, name, way, tmp_path):
    given_q = {"context_probabilities": np.full(3, 1 / 3)} if name == "faircb" else {}
    policy = build(feedback, name, **given_q)
    if way == "fast":
        run_fast(policy, stream(20), rng=np.random.default_rng(2))
    else:
        play(policy, stream(20), np.random.default_rng(2))
    if way == "loaded":
        policy.save(tmp_path / "p.npz")
        policy = type(policy).load(tmp_path / "p.npz")
    if way in ("copied", "pickled"):
        before = snapshot(policy)
        again = (
            copy.deepcopy
            if way == "copied"
            else lambda p: pickle.loads(pickle.dumps(p))
        )
        policy = again(policy)
        assert snapshot(policy) == before
    policy.probabilities(0)
    held = list(arrays_in(vars(policy), set()))
    assert held and not any(array.flags.writeable for array in held)
    answer = policy.probabilities(0)
    answer *= 0  # belongs to the caller
    assert policy.probabilities(0).sum() > 0.99
    with pytest.raises(ValueError, match="read-only"):
        policy.rewards += 1
    policy.update(0, *feed_of(feedback))  # and it goes on


def test_what_a_policy_was_given_may_be_changed_later():
    table, q = np.full((2, 2), 0.5), np.full(3, 1 / 3)
    fixed, fair = FixedMap(table), build("full", "faircb", context_probabilities=q)
    table[:], q[:] = 9, 9
    np.testing.assert_array_equal(fixed.probabilities(0), [0.5, 0.5])
    np.testing.assert_allclose(fair.q, 1 / 3)


@every_policy
@pytest.mark.parametrize(
    "alpha", [-0.1, 1.0001, 2, 10, np.inf, np.nan, "x", True, None]
)
def test_policies_refuse_alpha_where_their_theorems_end(feedback, name, alpha):
    if "alpha" not in inspect.signature(POLICIES[feedback][name]).parameters:
        return
    beyond = not isinstance(alpha, (str, bool, type(None))) and 1 < alpha < np.inf
    told = "lie in .* for a policy: beyond 1" if beyond else r"be a number in \[0, 1\]$"
    with pytest.raises(ValueError, match=f"alpha is .*; it must {told}") as caught:
        build(feedback, name, alpha=alpha)
    assert len(str(caught.value)) <= 300


@every_policy
@pytest.mark.parametrize("alpha", [0, 1])
def test_both_ends_of_the_range_of_alpha_are_played(feedback, name, alpha):
    played = play(
        build(feedback, name, alpha=alpha), stream(), np.random.default_rng(1)
    )
    np.testing.assert_allclose(played.sum(1), 1, atol=1e-12)


def every_class(kind=Policy):
    for child in kind.__subclasses__():
        if child.__module__.startswith("prunefair"):
            yield child
            yield from every_class(child)


@pytest.mark.parametrize("kind", sorted(set(every_class()), key=lambda c: c.__name__))
def test_every_policy_class_documents_its_parameters(kind):
    made_by = next(parent for parent in kind.__mro__ if "__init__" in vars(parent))
    text = inspect.getdoc(made_by)
    documented = {
        name.strip()
        for parameter in FunctionDoc(None, doc=text)["Parameters"]
        for name in parameter.name.split(",")
    }
    assert documented == set(inspect.signature(kind).parameters)


def test_a_file_saved_beside_threads_that_update_holds_one_moment(tmp_path):
    """In every file the rewards paid are those of the learners' rounds."""
    policy, stop = FullInformationFairCB(3, n_contexts=9, horizon=99, fairness=0), []
    problems = []

    def serve(number):
        try:
            for t in itertools.count():
                if stop:
                    return
                policy.update((number, t % 40), [1.0, 1.0, 1.0])
                policy.probabilities((number, t % 40))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=serve, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            policy.save(tmp_path / "p.npz")
            loaded = FullInformationFairCB.load(tmp_path / "p.npz")
            paid = loaded.rewards.sum() - 3
            np.testing.assert_allclose(paid, loaded.shared.visits.sum(), atol=1e-6)
    finally:
        stop.append(True)
        for thread in threads:
            thread.join()
    assert not problems
    assert loaded.shared.visits.sum() > 0


def test_a_save_waits_for_the_update_that_is_under_way(tmp_path):
    half, release = threading.Event(), threading.Event()

    class Slow(Uniform):
        def step(self, context, x, rewards):
            self.learners[context] = self.initial()
            half.set()
            assert release.wait(20)

    policy = Slow(2)
    update = threading.Thread(target=policy.update, args=(0, [1, 1]))
    save = threading.Thread(target=policy.save, args=(tmp_path / "p.npz",))
    update.start()
    assert half.wait(20)
    np.testing.assert_array_equal(policy.probabilities(0), [0.5, 0.5])  # no waiting
    save.start()
    save.join(0.2)
    assert not (tmp_path / "p.npz").exists()
    release.set()
    for thread in (update, save):
        thread.join(20)
    loaded = Slow.load(tmp_path / "p.npz")
    assert list(loaded.learners) == [0]
    np.testing.assert_array_equal(loaded.rewards, [1.5, 1.5])


def parts_of(path):
    """The header and the arrays of a state file."""
    with np.load(path) as file:
        arrays = dict(file)
    return json.loads(str(arrays.pop("header"))), arrays


def write(path, header, arrays, save=np.savez):
    save(path, header=np.array(json.dumps(header)), **arrays)


MUTATIONS = {
    "another shape": lambda a: np.concatenate([a, a]) if a.ndim else np.array([a, a]),
    "transposed": lambda a: a.T[..., None],
    "complex": lambda a: a.astype(complex),
    "single": lambda a: a.astype(np.float32),
    "text": lambda a: a.astype(str),
    "NaN": lambda a: a * np.nan,
    "infinite": lambda a: a + np.inf,
    "negative": lambda a: -a - 1,
    "gone": None,
}
never_mind = {"estimates": {"negative"}}  # any finite number is an estimate


@pytest.mark.parametrize("mutation", MUTATIONS)
@every_policy
def test_a_state_that_save_cannot_write_is_refused(feedback, name, mutation, tmp_path):
    policy, path = build(feedback, name), tmp_path / "p.npz"
    play(policy, stream(20), np.random.default_rng(2))
    policy.save(path)
    header, arrays = parts_of(path)
    for field, old in arrays.items():
        if mutation in never_mind.get(field.removeprefix("learners."), ()):
            continue
        change = MUTATIONS[mutation]
        new = {k: v for k, v in arrays.items() if k != field}
        if change is not None:
            new[field] = change(old)
        write(path, header, new)
        refused(type(policy), path)


def refused(kind, path):
    with pytest.raises(
        ValueError, match=r"path is .*, which holds no policy"
    ) as caught:
        kind.load(path)
    assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda h, a: h.pop("config"),
        lambda h, a: h.pop("contexts"),
        lambda h, a: h.update(more=1),
        lambda h, a: h.update(config=[]),
        lambda h, a: h.update(config=h["config"] | {"alpha": 3}),
        lambda h, a: h.update(config=h["config"] | {"n_arms": 10**12}),
        lambda h, a: h.update(config=h["config"] | {"unknown": 3}),
        lambda h, a: h.update(policy=3),
        lambda h, a: h.update(policy="x" * 10_000),
        lambda h, a: h.update(contexts=None),
        lambda h, a: h["contexts"].pop(),
        lambda h, a: h["contexts"].append(7),
        lambda h, a: h["contexts"].__setitem__(0, h["contexts"][1]),
        lambda h, a: h["contexts"].__setitem__(0, float("nan")),
        lambda h, a: h["contexts"].__setitem__(0, [1]),
        lambda h, a: h["contexts"].__setitem__(0, {"tuple": 1}),
        lambda h, a: h["contexts"].__setitem__(0, {}),
        lambda h, a: a.update(more=np.ones(1)),
        lambda h, a: a["learners.point"].__setitem__(0, [-5, 3, 2, 1]),
        lambda h, a: a["learners.point"].__setitem__(0, [3.6, 0, 0, 0]),
        lambda h, a: a["learners.point"].__setitem__(0, [0, 0.5, 0.5, 0]),
        lambda h, a: a["learners.scale"].__setitem__(0, 2),
        lambda h, a: a["rewards"].__setitem__(0, 0.5),
    ],
)
def test_a_header_or_number_that_no_policy_has_is_refused(change, tmp_path):
    policy, path = build("bandit", "log_barrier"), tmp_path / "p.npz"
    play(policy, stream(20), np.random.default_rng(2))
    policy.save(path)
    header, arrays = parts_of(path)
    write(path, header, arrays)
    LogBarrierBandit.load(path)  # the way of writing is not at fault
    change(header, arrays)
    write(path, header, arrays)
    refused(LogBarrierBandit, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda h, a: a["learners.index"].__setitem__(0, 1),
        lambda h, a: a["learners.index"].__setitem__(slice(None), [1, 0, 2]),
        lambda h, a: a["shared.visits"].__setitem__(0, -1),
        lambda h, a: [
            h["contexts"].pop(),
            a.update({k: v[:-1] for k, v in a.items() if k.startswith("learners")}),
        ],
    ],
)
def test_lost_rows_of_faircb_are_missed(change, tmp_path):
    policy = build("full", "faircb", context_probabilities=[0.2, 0.3, 0.5])
    play(policy, stream(20), np.random.default_rng(2))
    policy.save(tmp_path / "p.npz")
    header, arrays = parts_of(tmp_path / "p.npz")
    change(header, arrays)
    write(tmp_path / "p.npz", header, arrays)
    refused(FullInformationFairCB, tmp_path / "p.npz")


def test_a_file_that_unpacks_to_more_than_its_size_is_not_unpacked(tmp_path):
    path = tmp_path / "p.npz"
    header = {"policy": "Uniform", "config": {"n_arms": 2}, "contexts": []}
    write(path, header, {"rewards": np.ones(1 << 22)}, save=np.savez_compressed)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    refused(Uniform, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    lying = bytearray(path.read_bytes())  # its arrays claim to unpack to 100 bytes
    local, central = lying.rfind(b"PK\x03\x04"), lying.rfind(b"PK\x01\x02")
    for at in (local + 22, central + 24):
        lying[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(lying)
    tracemalloc.start()
    refused(Uniform, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    long = (
        b"\x93NUMPY\x01\x00v\x00"
        + (
            b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }"
        ).ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("rewards.npy", long)
    refused(Uniform, path)
    write(path, header, {"rewards": np.ones(2)})
    whole = path.read_bytes()
    deep = json.dumps(header).replace("[]", "[" * 50_000 + "]" * 50_000)
    np.savez(path, header=np.array(deep), rewards=np.ones(2))
    refused(Uniform, path)
    path.write_bytes(whole)
    assert Uniform.load(path).n_arms == 2


@pytest.fixture(scope="module")
def state_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("states") / "p.npz"
    policy = build("bandit", "scale_free")
    play(policy, stream(9), np.random.default_rng(2))
    policy.save(path)
    return path, path.read_bytes(), snapshot(policy)


@given(st.data())
def test_any_damage_to_the_bytes_is_named_or_harmless(state_file, data):
    path, whole, state = state_file
    bytes_, size = bytearray(whole), len(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(bytes_) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "drop", "insert", "zero"]))
        if kind == "flip":
            bytes_[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del bytes_[max(at, 1) :]
        elif kind == "drop":
            del bytes_[at : at + data.draw(st.integers(1, 40))]
        elif kind == "zero":
            bytes_[at : at + 8] = bytes(len(bytes_[at : at + 8]))
        else:
            bytes_[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        if not bytes_:
            bytes_ = bytearray(b"x")
    damaged = path.with_name("damaged.npz")
    damaged.write_bytes(bytes_)
    try:
        loaded = type(build("bandit", "scale_free")).load(damaged)
    except ValueError as error:
        assert str(error).startswith("path is ") and len(str(error)) <= 300
    else:
        assert snapshot(loaded) == state, size
