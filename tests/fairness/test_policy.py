"""The contract that every policy of Part II keeps, and saving and resuming."""

import json
import pickle
from enum import IntEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefair.fairness import policy as root
from prunefair.fairness.baselines import POLICIES, FixedMap, Uniform, make_policy
from prunefair.fairness.full_information import AlphaFairGradient
from prunefair.fairness.policy import check_alpha, check_arm, check_n_arms, check_reward
from prunefair.fairness.simulation import RewardStream, simulate

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
    for copy in ("a", "b"):
        policy = build(feedback, name)
        simulate(policy, stream(), rng=np.random.default_rng(4))
        policy.save(tmp_path / copy)
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


@every_policy
def test_a_context_that_no_learner_could_be_found_by_is_refused(feedback, name):
    policy = build(feedback, name)
    play(policy, stream(10), np.random.default_rng(8))
    before = snapshot(policy)
    feed = (1, 0.5) if feedback == "bandit" else ([0.5] * N_ARMS,)
    with pytest.raises(TypeError, match=r"context is \['list'\]; it must be hashable"):
        policy.update(["list"], *feed)
    with pytest.raises(ValueError, match="context is nan, which is not equal"):
        policy.update(float("nan"), *feed)
    assert snapshot(policy) == before


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


keys = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@given(st.lists(keys, max_size=6, unique=True))
def test_contexts_of_every_allowed_kind_come_back_in_order(contexts):
    decoded = [
        root._decode(value)
        for value in json.loads(json.dumps([root._encode(key) for key in contexts]))
    ]
    assert decoded == contexts
    assert [type(key) for key in decoded] == [type(key) for key in contexts]


class Season(IntEnum):
    """A context that is a whole number in disguise."""

    WINTER = 3


def test_numpy_and_enum_contexts_find_their_learner_again(tmp_path):
    policy = AlphaFairGradient(2, 0.5)
    for context in (np.int64(4), np.str_("a"), Season.WINTER):
        policy.update(context, [1, 0])
    policy.save(tmp_path / "p.npz")
    loaded = AlphaFairGradient.load(tmp_path / "p.npz")
    assert list(loaded.learners) == [4, "a", 3]


@pytest.mark.parametrize(
    "context",
    [
        frozenset({1}),
        b"bytes",
        ("nested", (1, b"bytes")),
        np.longdouble(1),
        np.datetime64("2020-01-01"),
        np.datetime64("2020-01-01T00:00:00.000000001"),  # its item() is a number
    ],
    ids=repr,
)
def test_a_context_that_cannot_be_stored_is_refused_and_nothing_is_written(
    context, tmp_path
):
    policy = AlphaFairGradient(2, 0.5)
    policy.update(context, [1, 0])
    with pytest.raises(TypeError, match="context is .* can be saved"):
        policy.save(tmp_path / "p.npz")
    assert not list(tmp_path.iterdir())


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
