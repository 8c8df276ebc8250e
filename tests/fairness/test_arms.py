"""Policies in service: arms that come and go, masks, draws, batches, forgetting."""

import importlib
import inspect
import json
import re
import subprocess
import sys
import warnings
from collections import OrderedDict
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefair.fairness.bandit_feedback import (
    LogBarrierBandit,
    ScaleFreeBandit,
    SingleScaleFreeBandit,
    bernoulli_stream,
    log_barrier_step,
)
from prunefair.fairness.baselines import POLICIES, Hedge, make_policy
from prunefair.fairness.coupled import Coupled, coupled
from prunefair.fairness.fixed_map import FixedMap
from prunefair.fairness.full_information import AlphaFairGradient, surrogate_weights
from prunefair.fairness.late_feedback import LateGradient
from prunefair.fairness.offline_optimum import reward_sums, solve_offline
from prunefair.fairness.one_context import FollowTheLeader
from prunefair.fairness.online_gradient import simplex_projection
from prunefair.fairness.policy import (
    MODULES,
    BanditPolicy,
    FullInformationPolicy,
    Policy,
)
from prunefair.fairness.simulation import simulate
from prunefair.fairness.uniform import Uniform
from prunefair.fairness.utility import alpha_fair_utility

ALL = [(feedback, name) for feedback in POLICIES for name in POLICIES[feedback]]
every_policy = pytest.mark.parametrize(("feedback", "name"), ALL)
some = settings(max_examples=12, deadline=None)
QUICK = [(f, n) for f, n in ALL if n != "faircb"]  # which solves a problem a round


def build(feedback, name, n_arms=4, alpha=0.7):
    sizes = {"n_contexts": 3, "alpha": alpha, "horizon": 90}
    return make_policy(name, feedback=feedback, n_arms=n_arms, **sizes)


def play(policy, rounds, rng, contexts=3):
    """Rounds in random contexts, the bandits' by `draw`; what was fed back."""
    fed = []
    for _ in range(rounds):
        context = f"user {rng.integers(contexts)}"
        if policy.feedback == "bandit":
            arm, p = policy.draw(context, rng)
            fed.append(((context, arm, rng.random()), {"probability": p}))
        else:
            x = policy.probabilities(context)
            fed.append(((context, rng.random(policy.n_arms)), {"played": x}))
        policy.update(*fed[-1][0], **fed[-1][1])
    return fed


def state(policy):
    """All state as bytes, learners by context."""
    shared = () if policy.shared is None else policy.shared
    learners = {
        context: [np.asarray(value).tobytes() for value in learner]
        for context, learner in policy.learners.items()
    }
    shared = [np.asarray(value).tobytes() for value in shared]
    return policy.arms, policy.rewards.tobytes(), shared, learners


# --- batches


@every_policy
@given(seed=st.integers(0, 10**6), rounds=st.integers(0, 25), told=st.booleans())
@some
def test_a_batch_is_the_loop_to_the_byte(feedback, name, seed, rounds, told):
    rng = np.random.default_rng(seed)
    one, many = build(feedback, name), build(feedback, name)
    fed = play(build(feedback, name), rounds, rng)
    for arguments, given_ in fed:
        one.update(*arguments, **(given_ if told else {}))
    columns = [list(column) for column in zip(*(a for a, _ in fed))]
    columns = columns or [[]] * (3 if feedback == "bandit" else 2)
    word = {"bandit": "probabilities", "full": "played"}[feedback]
    given_ = [next(iter(g.values())) for _, g in fed]
    many.update_many(*columns, **({word: given_} if told else {}))
    assert state(many) == state(one)


@every_policy
def test_a_batch_with_a_bad_round_teaches_nothing(feedback, name):
    policy, rng = build(feedback, name), np.random.default_rng(0)
    policy.max_contexts = None if name == "faircb" else 2
    play(policy, 6, rng)
    before, order = state(policy), list(policy.learners)
    good = [0.5] * 4 if feedback == "full" else 0.5
    bad = [0.5, 0.5, 0.5, 1.5] if feedback == "full" else 1.5
    arms = [[0, 1, 2]] if feedback == "bandit" else []
    with pytest.raises(ValueError, match=r"^round 2: rewards? is .*; ") as caught:
        policy.update_many("abc", *arms, [good, good, bad])
    assert len(str(caught.value)) <= 300
    with pytest.raises(ValueError, match=r"are the lengths; they must agree"):
        policy.update_many("ab", *arms, [good] * 3)
    calls, step = [], policy.step

    def breaks(*arguments):
        calls.append(arguments)
        step(*arguments)
        if len(calls) == 2:
            raise RuntimeError("Newton's method needs more steps")

    policy.step = breaks
    with pytest.raises(RuntimeError, match="Newton"):
        policy.update_many("abc", *arms, [good] * 3)
    del policy.step
    assert state(policy) == before and list(policy.learners) == order
    play(policy, 3, rng)


# --- masks and draws


@every_policy
@given(seed=st.integers(0, 10**6), data=st.data())
@some
def test_a_masked_play_is_renormalised_over_what_is_left(feedback, name, seed, data):
    policy, rng = build(feedback, name), np.random.default_rng(seed)
    play(policy, 12, rng)
    mask = data.draw(st.lists(st.booleans(), min_size=4, max_size=4).filter(any))
    p, left = policy.probabilities("user 1"), np.array(mask)
    q = policy.probabilities("user 1", mask=mask)
    np.testing.assert_allclose(q.sum(), 1, atol=1e-12)
    assert (q[~left] == 0).all() and (q[left] >= p[left] - 1e-15).all()
    if p[left].sum() > 0:
        np.testing.assert_allclose(q * p[left].sum(), np.where(left, p, 0), atol=1e-15)
    else:
        np.testing.assert_allclose(q[left], 1 / left.sum())
    for _ in range(20):
        arm, probability = policy.draw("user 1", rng, mask=mask)
        assert mask[arm] and probability == q[arm] > 0
    np.testing.assert_array_equal(policy.probabilities("user 1"), p)


@pytest.mark.parametrize(
    "mask", [[False] * 4, [True] * 3, [1, 1, 1, 1], "1111", None, [[True] * 4]]
)
def test_a_mask_that_leaves_no_arm_or_is_none_is_refused(mask):
    policy, rng = Uniform(4), np.random.default_rng(0)
    if mask is None:
        assert policy.draw(0, rng, mask=None).probability == 0.25
        return
    for ask in (policy.probabilities, partial(policy.draw, rng=rng)):
        with pytest.raises(ValueError, match="mask is .*; it must hold 4 booleans"):
            ask(0, mask=mask)


@pytest.mark.parametrize("name", ["scale_free", "log_barrier", "faircb"])
def test_what_draw_draws_is_what_a_simulation_draws(name):
    stream = bernoulli_stream(60, 3, 4, rng=np.random.default_rng(1))
    played, drawn = build("bandit", name), build("bandit", name)
    simulate(played, stream, rng=np.random.default_rng(2))
    rng = np.random.default_rng(2)
    for context, rewards in zip(stream.contexts.tolist(), stream.rewards):
        arm, probability = drawn.draw(context, rng)
        assert type(arm) is int and type(probability) is float
        drawn.update(context, arm, rewards[arm], probability=probability)
    assert state(drawn) == state(played)
    with pytest.raises(ValueError, match="rng is None; give a generator"):
        drawn.draw(0, None)


def test_the_estimate_of_a_masked_round_is_divided_by_what_was_played():
    policy = LogBarrierBandit(4, 0.0, horizon=90)
    q = policy.probabilities(0, mask=[True, False, True, False])
    policy.update(0, 2, 1.0, probability=q[2])
    np.testing.assert_allclose(policy.learners[0].estimates, [0, 0, -2, 0])


# --- names


def test_arms_have_the_names_that_they_were_given():
    policy = ScaleFreeBandit(["sport", "news", ("film", 1)], alpha=0.9)
    rng = np.random.default_rng(0)
    drawn = {policy.draw("ada", rng).arm for _ in range(60)}
    assert drawn == set(policy.arms) == {"sport", "news", ("film", 1)}
    policy.update("ada", ("film", np.int64(1)), 1.0)
    np.testing.assert_array_equal(policy.rewards, [1, 1, 2])
    with pytest.raises(
        ValueError, match=r"arm is 'music'; it must be one of \['sport'"
    ):
        policy.update("ada", "music", 1.0)
    with pytest.raises(ValueError, match="arm is 0; it must be one of"):
        policy.update("ada", 0, 1.0)
    stream = bernoulli_stream(40, 2, 3, rng=rng)
    named, plain = ScaleFreeBandit([*"xyz"], 0.5), ScaleFreeBandit(3, 0.5)
    for other in (named, plain):
        simulate(other, stream, rng=np.random.default_rng(1))
    assert state(named)[1:] == state(plain)[1:]
    as_array = Uniform(np.array(["a", "b"]))
    assert as_array.arms == ("a", "b") and type(as_array.arms[0]) is str


@pytest.mark.parametrize(
    "names", [[], ["a", "a"], [1, True], ["a", []], [float("nan")]]
)
def test_names_that_are_none_or_equal_are_refused(names):
    with pytest.raises(ValueError, match=r"n_arms is [\[(].*; "):
        Uniform(names)


def made_of_arms():
    """Every public policy, and what makes one, that is given arms."""
    for module in MODULES + ("full_information", "bandit_feedback", "high_probability"):
        module = importlib.import_module(f"prunefair.fairness.{module}")
        for kind in vars(module).values():
            policy = inspect.isclass(kind) and issubclass(kind, Policy)
            whole = policy and not inspect.isabstract(kind)
            if whole and "n_arms" in inspect.signature(kind).parameters:
                yield kind
    yield from (make_policy, coupled)


def test_every_policy_says_that_arms_are_a_number_or_names():
    found = {one for one in made_of_arms() if not one.__name__.startswith("_")}
    assert len(found) >= 25
    for one in found:
        named = inspect.signature(one).parameters["n_arms"]
        assert named.annotation == "int | Sequence[Hashable]", one
        words = r"\bn_arms : int or sequence of names\n|\bn_arms, .*\n    As for `"
        assert re.search(words, inspect.getdoc(one)), one
        update = getattr(one, "update", None)
        arm = update and inspect.signature(update).parameters.get("arm")
        assert arm is None or arm.annotation == "Hashable", one


@pytest.mark.parametrize("kind", [Policy, ScaleFreeBandit, AlphaFairGradient, Coupled])
def test_the_names_of_retired_arms_are_documented_with_what_to_do(kind):
    attributes = inspect.getdoc(kind).split("Attributes\n")[1].split("Raises\n")[0]
    assert "retired" in attributes and "drop" in attributes


# --- arms that come and go

steps = st.lists(
    st.tuples(st.sampled_from(["add", "retire", "play"]), st.integers(0, 9)),
    max_size=10,
)


@pytest.mark.parametrize(("feedback", "name"), ALL)
@given(steps=steps, seed=st.integers(0, 10**6))
@some
def test_arms_that_came_and_went_are_in_the_file(
    feedback, name, steps, seed, tmp_path_factory
):
    path = tmp_path_factory.getbasetemp() / f"{feedback} {name}.npz"
    policy, rng, ever = build(feedback, name), np.random.default_rng(seed), {0, 1, 2, 3}
    for step, k in steps:
        if step == "add" and policy.n_arms < 7:
            arm = policy.add_arm(initial=1 + k)
            assert arm not in ever and policy.arms[-1] == arm
            assert policy.rewards[-1] == 1 + k
            ever.add(arm)
        elif step == "retire" and policy.n_arms > 2:
            gone = policy.arms[k % policy.n_arms]
            kept = [a for a in policy.arms if a != gone]
            earned = dict(zip(policy.arms, policy.rewards))
            policy.retire_arm(gone)
            assert list(policy.arms) == kept
            assert [earned[a] for a in kept] == policy.rewards.tolist()
        else:
            play(policy, 2, rng)
        for context in ("user 0", "new"):
            p = policy.probabilities(context)
            assert p.shape == (policy.n_arms,) and (p >= 0).all()
            np.testing.assert_allclose(p.sum(), 1, atol=1e-9)
    policy.save(path)
    again = Policy.load(path)
    assert type(again) is type(policy) and state(again) == state(policy)
    seeds = np.random.default_rng(seed).spawn(2)
    play(policy, 4, np.random.default_rng(7)), play(again, 4, np.random.default_rng(7))
    assert policy.add_arm() == again.add_arm()
    assert state(again) == state(policy) and len(seeds) == 2


@pytest.mark.parametrize(("feedback", "name"), ALL)
@given(seed=st.integers(0, 10**6), rounds=st.integers(0, 20))
@some
def test_an_arm_that_is_added_and_retired_leaves_no_trace(feedback, name, seed, rounds):
    policy = build(feedback, name, alpha=0.0)
    play(policy, rounds, np.random.default_rng(seed))
    before, old = state(policy), dict(policy.learners)
    asked = [policy.probabilities(f"user {j}") for j in range(3)]
    policy.retire_arm(policy.add_arm("a newcomer"))
    if hasattr(policy, "barrier") or "scale_free" in name:  # points are solved again
        for context, learner in policy.learners.items():
            for new, value in zip(learner, old[context]):
                np.testing.assert_allclose(new, value, rtol=1e-9, atol=1e-12)
        assert state(policy)[:2] == before[:2]
    else:
        assert state(policy) == before
    for p, j in zip(asked, range(3)):
        q = policy.probabilities(f"user {j}")
        np.testing.assert_allclose(q, p, rtol=1e-6, atol=1e-9)


@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.5, 1.0]))
@some
def test_the_gradient_policy_plays_as_one_that_knew_all_arms_from_the_start(
    seed, alpha
):
    """The oracle is projected ascent over all six arms from a vertex of their faces."""
    rng, known = np.random.default_rng(seed), 3
    policy = AlphaFairGradient(known, alpha)
    x, S, R = np.array([1, 1, 1, 0, 0, 0]) / 3, 0.0, np.ones(6)
    for t in range(40):
        if t in (5, 6, 20):
            policy.add_arm()
            known += 1
        r = np.where(np.arange(6) < known, rng.random(6) < 0.5, 0.0)
        policy.update(0, r[:known])
        g, earned = r * R**-alpha, r * x
        S += g @ g
        x = simplex_projection(x + g / S**0.5) if S else x
        R = R + earned
        np.testing.assert_allclose(policy.probabilities(0), x[:known], atol=1e-9)
        np.testing.assert_allclose(policy.rewards, R[:known], rtol=1e-9)


def test_a_newcomer_that_pays_is_found_and_one_that_has_earned_less_so():
    found = {}
    for initial in (1.0, 300.0):
        policy, rng = LogBarrierBandit(3, 0.9, horizon=2000), np.random.default_rng(0)
        for t in range(2000):
            if t == 1000:
                policy.add_arm("new", initial=initial)
            arm, p = policy.draw(0, rng)
            policy.update(0, arm, 0.5 if arm != "new" else 0.9, probability=p)
        found[initial] = policy.rewards[-1] - initial
    assert found[1.0] > 1.5 * found[300.0] > 0


@given(
    st.lists(st.floats(0, 50), min_size=1, max_size=8),
    st.floats(1e-3, 1),
    st.floats(0, 40),
)
def test_a_new_arm_does_not_lower_what_the_log_barrier_proof_sums(losses, eta, paid):
    """min over the larger simplex of <q, L> + (F - F(uniform)) / eta is no less."""

    def least(L):
        p = log_barrier_step(eta * L)
        barrier = -np.log(p).sum() - p.size * np.log(p.size)
        return p @ L + barrier / eta

    L = -np.array(losses)
    grown = least(np.append(L, 0.0))
    assert grown >= least(L) - 1e-9 * (1 + abs(grown))


@pytest.mark.parametrize("alpha", [0.0, 0.9])
def test_the_rate_of_the_log_barrier_learner_does_not_rise_with_a_new_arm(alpha):
    policy, rng = LogBarrierBandit(3, alpha, horizon=300), np.random.default_rng(3)
    policy.rewards = np.full(3, 20.0)  # so that contexts begin with a small scale
    play(policy, 50, rng)

    def rates():
        rooms = [policy.barrier] * len(policy.learners)
        return np.array(
            [
                room / (policy.cap * room * s.scale + s.penalties)
                for room, s in zip(rooms, policy.learners.values())
            ]
        )

    before = rates()
    policy.add_arm()
    assert (rates() <= before * (1 + 1e-12)).all()
    if alpha == 0:
        np.testing.assert_allclose(rates(), before)
    weights = surrogate_weights(policy.rewards, alpha)
    assert all(s.scale >= weights.max() for s in policy.learners.values())


def test_what_cannot_be_added_or_retired_is_named_and_changes_nothing():
    policy = ScaleFreeBandit(["a", "b"], 0.5)
    play(policy, 5, np.random.default_rng(0))
    before = state(policy)
    for call, message in [
        (lambda: policy.add_arm("a"), "arm is 'a', which there is; take a new name"),
        (lambda: policy.add_arm([1]), "the name of an arm is"),
        (
            lambda: policy.add_arm("c", initial=0.5),
            "initial is 0.5; it must be at least",
        ),
        (lambda: policy.retire_arm("c"), "arm is 'c'; it must be one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    assert state(policy) == before
    policy.retire_arm("a")
    with pytest.raises(ValueError, match="arm is 'b', the only one"):
        policy.retire_arm("b")
    with pytest.raises(ValueError, match="arm is 'a', which was retired; drop"):
        policy.retire_arm("a")


@pytest.mark.parametrize("name", POLICIES["bandit"])
def test_a_reward_for_an_arm_that_was_retired_says_so_and_can_be_dropped(name):
    policy, rng = build("bandit", name), np.random.default_rng(0)
    play(policy, 6, rng)
    late = [("user 1", arm, 0.5, 0.25) for arm in (0, 3, 1, np.int64(3), 2)]
    policy.retire_arm(3)  # the last, so that the others are still called 0, 1, 2
    before = state(policy)
    for gone in (3, 3.0, np.int64(3)):
        for asked in (policy.update, policy.retire_arm):
            rest = ("user 1", gone, 0.5) if asked == policy.update else (gone,)
            with pytest.raises(
                ValueError, match="which was retired; drop what"
            ) as told:
                asked(*rest)
            assert "`policy.retired`" in str(told.value) and "must be" not in str(told)
    with pytest.raises(ValueError, match="round 1: arm is 3, which was retired; drop"):
        columns = dict(
            zip(("contexts", "arms", "rewards", "probabilities"), zip(*late))
        )
        policy.update_many(**columns)
    with pytest.raises(ValueError, match=r"arm is 7; it must be one of \[0, 1, 2\]"):
        policy.update("user 1", 7, 0.5)
    assert state(policy) == before
    kept = [row for row in late if row[1] not in policy.retired]
    policy.update_many(*list(zip(*kept))[:3], probabilities=[0.25] * 3)
    np.testing.assert_allclose(policy.rewards - np.frombuffer(before[1]), [0.5] * 3)


@pytest.mark.parametrize("name", POLICIES["full"])
def test_rewards_of_arms_that_came_or_went_meanwhile_are_said_to_be_too_many(name):
    policy = build("full", name)
    policy.retire_arm(1)
    with pytest.raises(ValueError, match="each arm that there is now, in the order of"):
        policy.update("user 1", [0.5] * 4)


# --- what is not told


@pytest.mark.parametrize("name", POLICIES["bandit"])
def test_a_late_reward_without_its_probability_is_noticed_once(name):
    policy, rng = build("bandit", name), np.random.default_rng(0)

    def noticed(*arguments, many=False, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            (policy.update_many if many else policy.update)(*arguments, **options)
        assert many or all(w.filename == __file__ for w in caught)
        return [str(w.message) for w in caught]

    assert not noticed("a", 0, 0.5)  # nothing was asked: rounds of somebody else
    assert not noticed("a", 0, 0.5)
    for _ in range(3):  # at once
        assert not noticed("a", policy.draw("a", rng).arm, 0.5)
    draws = [policy.draw("a", rng) for _ in range(2)]
    for arm, p in draws:  # late, and told
        assert not noticed("a", arm, 0.5, probability=p)
    draws = [policy.draw("a", rng) for _ in range(3)]
    late = deepcopy(policy)
    assert not noticed("a", draws[0].arm, 0.5)  # none came between
    (said,) = noticed("a", draws[1].arm, 0.5)
    assert said.startswith("`probability` is not given, and since the policy was last")
    assert not noticed("a", draws[2].arm, 0.5)  # once is enough
    policy = late
    rounds = [[value] * 3 for value in ("a", draws[0].arm, 0.5)]
    assert not noticed(*rounds, many=True, probabilities=[0.2] * 3)
    assert len(noticed(*rounds, many=True)) == 1
    policy = build("bandit", name)
    drawn = policy.draw("a", rng, mask=[True, False, True, True])
    assert len(noticed("a", drawn.arm, 0.5)) == 1


def test_a_number_that_was_a_name_is_not_given_again(tmp_path):
    policy = Uniform(3)
    policy.retire_arm(2)
    policy.save(tmp_path / "p.npz")
    assert Policy.load(tmp_path / "p.npz").add_arm() == 3 == policy.add_arm()
    assert policy.arms == (0, 1, 3)
    with pytest.raises(ValueError, match="arm is 2, which was retired"):
        policy._place(2)
    assert [policy._place(arm) for arm in (0, 1, 3, 3.0)] == [0, 1, 2, 2]


# --- forgetting


@given(
    visits=st.lists(st.integers(0, 6), max_size=40),
    limit=st.integers(1, 5),
    way=st.sampled_from(QUICK),
)
@settings(max_examples=40, deadline=None)
def test_the_contexts_that_are_left_are_those_updated_last(
    visits, limit, way, tmp_path_factory
):
    free, policy, kept = build(*way), build(*way), OrderedDict()
    policy.max_contexts = limit
    rng, path = np.random.default_rng(0), tmp_path_factory.getbasetemp() / "l.npz"
    for k, context in enumerate(visits):
        feed = (k % 4, 0.5) if way[0] == "bandit" else (rng.random(4),)
        policy.update(context, *feed)
        free.update(context, *feed)
        kept.pop(context, None)
        kept[context] = None
        while len(kept) > limit:
            kept.popitem(last=False)
        if k % 7 == 3:
            policy.save(path)
            policy = Policy.load(path)
            assert policy.max_contexts == limit
    contextual = len(free.learners) == len(set(visits)) and visits
    if contextual and None not in free.learners:
        assert set(policy.learners) == set(kept)
    assert len(policy.learners) <= limit
    if len(set(visits)) <= limit:
        assert state(policy) == state(free)


def test_a_forgotten_context_is_new_and_what_is_shared_stays():
    policy = AlphaFairGradient(3, 0.5)
    policy.max_contexts = 2
    for context in "abc":
        policy.update(context, [1, 0, 0])
    np.testing.assert_array_equal(policy.probabilities("a"), np.full(3, 1 / 3))
    assert policy.probabilities("b")[0] > 0.9
    np.testing.assert_allclose(policy.rewards, [2, 1, 1])
    policy.forget("b"), policy.forget("never seen")
    assert list(policy.learners) == ["c"]
    policy.max_contexts = None
    for context in "defg":
        policy.update(context, [1, 0, 0])
    assert len(policy.learners) == 5
    policy.max_contexts = 2
    assert list(policy.learners) == ["f", "g"]
    with pytest.raises(ValueError, match="max_contexts is 0; it must be a positive"):
        policy.max_contexts = 0
    for call in (lambda p: p.forget(0), lambda p: setattr(p, "max_contexts", 2)):
        with pytest.raises(ValueError, match="FairCB forgets no context"):
            call(build("bandit", "faircb"))


# --- files


@every_policy
def test_the_class_of_a_file_is_found(feedback, name, tmp_path):
    policy, path = build(feedback, name), tmp_path / "p.npz"
    policy.save(path)
    roots = {"bandit": BanditPolicy, "full": FullInformationPolicy}
    for kind in (Policy, roots.pop(feedback)):
        assert type(kind.load(path)) is type(policy)
    (other,) = roots.values()
    with pytest.raises(ValueError, match=f"load it with {type(policy).__name__}.load"):
        other.load(path)


def test_a_class_that_nobody_imported_is_not_looked_for(tmp_path):
    path = tmp_path / "p.npz"
    header = {"policy": "Popen", "config": {"args": "true"}, "contexts": []}
    np.savez(path, header=np.array(json.dumps(header)), rewards=np.ones(2))
    with pytest.raises(ValueError, match="no policy that is imported has this name"):
        Policy.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"arms": ["a"]},
        {"arms": ["a", "a"]},
        {"arms": "ab"},
        {"named": -1},
        {"named": None},
        {"max_contexts": 0},
        {"max_contexts": 1},
        {"max_contexts": "3"},
    ],
)
def test_names_and_limits_that_no_policy_has_are_refused(change, tmp_path):
    policy, path = Uniform(["a", "b"]), tmp_path / "p.npz"
    policy.learners |= {0: policy.initial(), 1: policy.initial()}
    policy.max_contexts = 2
    policy.save(path)
    Policy.load(path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header"))) | change
    np.savez(path, header=np.array(json.dumps(header)), **arrays)
    with pytest.raises(ValueError, match=r"path is .*, which holds no policy"):
        Policy.load(path)


# --- the offline optimum


def test_the_optimum_is_a_policy_under_the_names_of_its_users(tmp_path):
    G = [[9.0, 1.0], [2.0, 8.0], [3.0, 3.0]]
    best = solve_offline(G, 0.5)
    contexts, arms = [("ada", 1), "ben", None], ["sport", "news"]
    policy = best.policy(contexts, arms)
    policy.save(tmp_path / "p.npz")
    for fixed in (policy, Policy.load(tmp_path / "p.npz")):
        assert fixed.arms == ("sport", "news")
        for context, row in zip(contexts, best.x):
            np.testing.assert_array_equal(fixed.probabilities(context), row)
        np.testing.assert_array_equal(fixed.probabilities(0), [0.5, 0.5])
    policy.add_arm("film")
    np.testing.assert_array_equal(policy.probabilities("ben"), [*best.x[1], 0])
    policy.retire_arm("news")
    np.testing.assert_array_equal(policy.probabilities("ben"), [1, 0])
    np.testing.assert_array_equal(best.policy().probabilities(2), best.x[2])
    for names in (["a", "b"], ["a", "b", "a"], 3 * [float("nan")]):
        with pytest.raises(ValueError, match="context"):
            best.policy(names)
    with pytest.raises(ValueError, match="arms has 3 names, table 2 arms"):
        FixedMap([[1, 0]], arms="abc")


WARM = [
    partial(AlphaFairGradient, alpha=0.7),
    partial(AlphaFairGradient, alpha=0.7, step="centred"),
    partial(AlphaFairGradient, alpha=0.7, step="released"),
    partial(LogBarrierBandit, alpha=0.7, horizon=1000),
    partial(ScaleFreeBandit, alpha=0.7),
]


@pytest.mark.parametrize("kind", WARM)
def test_a_warm_start_plays_the_optimum_of_the_log_and_saves_regret(kind, tmp_path):
    stream = bernoulli_stream(2000, 5, 4, rng=np.random.default_rng(1))
    old, late = stream.first(1000), slice(1000, None)
    names = [("segment", int(j)) for j in stream.contexts]
    warm, cold = kind(4), kind(4)
    optimum = warm.warm_start(names[:1000], old.rewards)
    best = solve_offline(reward_sums(old.contexts, old.rewards, 5), 0.7)
    np.testing.assert_allclose(optimum.utility, best.utility, rtol=1e-8)
    np.testing.assert_array_equal(warm.rewards, optimum.rewards)
    for context, learner in warm.learners.items():
        np.testing.assert_allclose(learner.point, best.x[context[1]], atol=0.02)
    if getattr(warm, "step_kind", None) == "squared":
        squares = ((old.rewards * best.rewards**-0.7) ** 2).sum(1)
        norms = [squares[old.contexts == j[1]].sum() for j in warm.learners]
        np.testing.assert_allclose(warm.squared_norms, norms, rtol=1e-6)
    warm.save(tmp_path / "p.npz")
    assert state(Policy.load(tmp_path / "p.npz")) == state(warm)
    cold.rewards = optimum.rewards  # the same past, without what it taught
    for policy in (warm, cold):
        rng = np.random.default_rng(5)
        for context, r in zip(names[late], stream.rewards[late]):
            if policy.feedback == "full":
                policy.update(context, r)
                continue
            arm, p = policy.draw(context, rng)
            policy.update(context, arm, r[arm], probability=p)
    earned = [alpha_fair_utility(policy.rewards, 0.7) for policy in (warm, cold)]
    assert earned[0] > earned[1]


def test_a_warm_start_that_cannot_be_is_refused():
    rewards = [[1.0, 0.0], [0.0, 1.0]]
    policy = AlphaFairGradient(2, 0.5)
    with pytest.raises(
        ValueError, match=r"rewards has shape \(2, 2\); it must be \(1, 2"
    ):
        policy.warm_start("a", rewards)
    with pytest.raises(ValueError, match=r"every entry must lie in \[0, 1\]"):
        policy.warm_start("ab", [[1.0, 0.0], [0.0, 1.5]])
    assert not policy.learners and (policy.rewards == 1).all()
    policy.update("a", [1, 0])
    with pytest.raises(ValueError, match="has learned already; warm-start a new one"):
        policy.warm_start("ab", rewards)
    for other in (Hedge(2, horizon=9), SingleScaleFreeBandit(2)):
        with pytest.raises(ValueError, match="has no warm start"):
            other.warm_start("ab", rewards)


@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.5, 0.9]))
@settings(max_examples=15, deadline=None)
def test_what_a_retirement_costs_is_what_the_theorem_says(seed, alpha):
    """Arms that were there throughout cost nothing more, epochs one root each."""
    rng = np.random.default_rng(seed)
    policy, ever, K = AlphaFairGradient([*"abcd"], alpha), 4, int(rng.integers(6))
    kept = set(rng.choice([*"abcd"], size=2, replace=False).tolist())
    stay, epochs = dict.fromkeys(kept, 0.0), 0.0
    for epoch in range(K + 1):
        pays = rng.random(policy.n_arms) ** 3
        against = np.zeros(policy.n_arms)
        for _ in range(30):
            mask = rng.random(policy.n_arms) < 0.8
            mask[rng.integers(policy.n_arms)] = True
            r = (rng.random(policy.n_arms) < pays) * mask
            x = policy.probabilities(0, mask=mask)
            g = policy.rewards**-alpha * r
            against += g - g @ x
            policy.update(0, r, played=x)
        epochs += against.max()
        for arm in kept:
            stay[arm] += against[policy.arms.index(arm)]
        if epoch < K:
            others = [arm for arm in policy.arms if arm not in kept]
            policy.retire_arm(others[rng.integers(len(others))])
            policy.add_arm()
            ever += 1
    root, kappa = policy.squared_norms[0] ** 0.5, 2 - 1 / ever
    assert max(stay.values()) <= kappa * root + 1e-9
    assert epochs <= (kappa + K) * root + 1e-9


@pytest.mark.parametrize("many", [False, True])
def test_no_arm_goes_between_the_check_of_an_update_and_the_update(many, monkeypatch):
    policy, checked = ScaleFreeBandit(["a", "b", "c"], alpha=0.5), []
    check = policy._checked
    monkeypatch.setattr(
        policy,
        "_checked",
        lambda *given: checked.append(policy._lock.locked()) or check(*given),
    )
    if many:
        policy.update_many(["x"], ["c"], [1.0], probabilities=[0.5])
    else:
        policy.update("x", "c", 1.0, probability=0.5)
    assert checked == [True]


@pytest.mark.parametrize(("feedback", "name"), ALL)
def test_a_name_is_never_given_twice_also_by_a_policy_from_a_file(
    feedback, name, tmp_path
):
    policy, rng = build(feedback, name), np.random.default_rng(1)
    policy.add_arm(("a", 1))
    play(policy, 4, rng)
    policy.retire_arm(("a", 1)), policy.retire_arm(2)
    policy.save(tmp_path / "p.npz")
    for one in (policy, Policy.load(tmp_path / "p.npz"), deepcopy(policy)):
        assert one.retired == {("a", 1), 2}
        before = state(one)
        for gone in (("a", 1), 2, 2.0):
            with pytest.raises(ValueError, match="which was retired: rewards still on"):
                one.add_arm(gone)
        assert state(one) == before and one.add_arm() == 4


@pytest.mark.parametrize("name", POLICIES["full"])
def test_a_play_on_its_way_is_told_by_names_when_arms_have_come_and_gone(name):
    padded, named = build("full", name), build("full", name)
    for policy in (padded, named):
        play(policy, 5, np.random.default_rng(2))
    x = named.probabilities("user 1")
    on_its_way = dict(zip(named.arms, x))
    for policy in (padded, named):
        policy.add_arm("new")
    told = [*x, 0.0]
    padded.update("user 1", [0.5] * 5, played=told)
    named.update("user 1", [0.5] * 5, played=on_its_way)
    assert state(padded) == state(named)
    before = named.rewards[[0, 2, 3, 4]]
    named.retire_arm(1)
    named.update_many(["user 1"], [[0.5] * 4], played=[on_its_way])
    np.testing.assert_allclose(named.rewards - before, [*0.5 * x[[0, 2, 3]], 0.0])
    after = state(named)
    for wrong, message in [
        ({0: 0.5, "flim": 0.5}, "played has 'flim', which is and was no arm"),
        ({0: 0.5, 2: 0.2}, "it must hold the 2 probabilities that were played"),
        ({0: 1.5, 2: -0.5}, "it must hold the 2 probabilities that were played"),
    ]:
        with pytest.raises(ValueError, match=message):
            named.update("user 1", [0.5] * 4, played=wrong)
    assert state(named) == after


@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_set_is_no_order_of_arms_and_other_iterables_are(kind):
    for make in (lambda arms: Uniform(arms), lambda arms: coupled(None, arms, 0.5)):
        with pytest.raises(ValueError, match="a set, which has no order; give a list"):
            make(kind("ab"))
        for arms in ("ab", ["a", "b"], {"a": 1, "b": 2}, dict.fromkeys("ab").keys()):
            if arms == "ab":
                words = "n_arms is 'ab'; .* positive whole number or a list of names"
                with pytest.raises(ValueError, match=words):
                    make(arms)
            else:
                assert make(arms).arms == ("a", "b") == make(iter(arms)).arms
        assert make(np.int64(2)).arms == make(np.array(2.0)).arms == (0, 1)


def test_a_file_of_any_policy_is_found_by_a_process_that_imported_none(tmp_path):
    LateGradient(2, 0.5, waiting=3).save(tmp_path / "LateGradient.npz")
    FollowTheLeader(2, 0.5).save(tmp_path / "FollowTheLeader.npz")
    code = (
        "import sys; from prunefair.fairness.policy import Policy;"
        "print(*(type(Policy.load(f'{sys.argv[1]}/{n}.npz')).__name__"
        " for n in ('LateGradient', 'FollowTheLeader')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout == "LateGradient FollowTheLeader\n", done.stderr
