"""The reduction as a function: any learner made fair, and what bounds its regret."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefair.fairness import full_information as full
from prunefair.fairness.bandit_feedback import ScaleFreeBandit, scale_free_step
from prunefair.fairness.coupled import (
    KernelLearner,
    RegressorLearner,
    RidgeLearner,
    coupled,
    explored,
)
from prunefair.fairness.simulation import Game
from prunefair.fairness.utility import alpha_fair_utility

N, D = 4, 3


class ScaleFree:
    """The book's learner for each context, as a learner of gains."""

    def __init__(self):
        self.states, self.new = {}, ScaleFreeBandit(N, 0.0).initial()

    def predict(self, context, weights):
        self.state = self.states.get(tuple(context), self.new)
        n, gamma = N, N / (2 * N + self.state.explored)
        return (1 - gamma) * self.state.point + gamma / n

    def update(self, context, arm, gain, *, probability, weight):
        state = self.states.get(tuple(context), self.new)
        step = scale_free_step(state, arm, -gain, probability)
        self.states[tuple(context)] = step


class Foolish:
    """Draws what gained least."""

    def __init__(self):
        self.gains = np.zeros(N)

    def predict(self, context, weights):
        return explored(-self.gains, 0.1)

    def update(self, context, arm, gain, *, probability, weight):
        self.gains[arm] += gain


class External:
    """A bandit of mabwiser, which gives its expectations and takes decisions."""

    def __init__(self):
        mab = pytest.importorskip("mabwiser.mab", reason="mabwiser is not installed")
        policy = mab.LearningPolicy.LinUCB(alpha=0.5)
        self.mab, self.begun = mab.MAB(list(range(N)), policy, seed=3), False

    def predict(self, context, weights):
        if not self.begun:
            return np.full(N, 1 / N)
        found = self.mab.predict_expectations([context])
        return explored(weights * [found[arm] for arm in range(N)], 0.1)

    def update(self, context, arm, gain, *, probability, weight):
        learn = self.mab.partial_fit if self.begun else self.mab.fit
        learn([arm], [gain / weight], [context])
        self.begun = True


def stochastic_gradient():
    linear = pytest.importorskip("sklearn.linear_model")
    return RegressorLearner(
        lambda: linear.SGDRegressor(learning_rate="constant", eta0=0.1), N
    )


LEARNERS = {
    "ridge": lambda: RidgeLearner(N, D),
    "kernel": lambda: KernelLearner(N, D, rng=np.random.default_rng(5), size=30),
    "regressor": stochastic_gradient,
    "scale-free": ScaleFree,
    "foolish": Foolish,
    "mabwiser": External,
}


def linear_stream(rounds, rng):
    """Features, the same few again and again, and coins whose means are linear."""
    kinds = rng.dirichlet(np.ones(D), size=8)
    features = kinds[rng.integers(8, size=rounds)]
    means = features @ rng.random((D, N))
    return features, (rng.random((rounds, N)) < means).astype(float)


def hard_stream(rounds, rng):
    """Rewards that shrink from arm to arm, the worst that we know for the factor."""
    features, place = np.tile(np.eye(D)[0], (rounds, 1)), np.arange(rounds)[:, None]
    return features, (np.arange(N) >= (place * N) // rounds).astype(float)


def played(policy, features, rewards, rng):
    """The record of a game in which every round is a context of its own."""
    T, cumulative = len(features), [policy.rewards]
    points = np.zeros((T, N))
    for t, x in enumerate(features):
        arm, p = policy.draw(x, rng)
        points[t, arm] = 1
        policy.update(x, arm, rewards[t, arm], probability=p)
        cumulative.append(policy.rewards)
    return Game(np.arange(T), rewards, points, np.array(cumulative), T, policy.alpha)


def maps(features, rewards, rng):
    """Maps from features to arms: hindsight, a fixed arm, linear ones at random."""
    yield np.eye(N)[rewards.argmax(1)]
    yield np.eye(N)[np.full(len(rewards), rewards.sum(0).argmax())]
    kinds, row = np.unique(features, axis=0, return_inverse=True)
    sums = np.zeros((len(kinds), N))
    np.add.at(sums, row.ravel(), rewards)
    yield np.eye(N)[sums.argmax(1)][row.ravel()]
    for _ in range(3):
        yield np.eye(N)[(features @ rng.normal(size=(D, N))).argmax(1)]


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_the_regret_of_the_policy_is_bounded_by_that_of_any_learner(name, alpha):
    for seed, make in enumerate((linear_stream, hard_stream)):
        rng = np.random.default_rng(seed)
        rounds = 50 if name in ("mabwiser", "regressor") else 200
        features, rewards = make(rounds, rng)
        game = played(coupled(LEARNERS[name](), N, alpha), features, rewards, rng)
        for x in maps(features, rewards, rng):
            assert full.reduction_slack(game, x).min() >= -1e-9


def smallest(**statement):
    """Largest share of the statement that games of several learners need."""
    shares = []
    for alpha in (0.1, 0.5):
        for name in ("ridge", "foolish"):
            rng = np.random.default_rng(4)
            features, rewards = hard_stream(300, rng)
            game = played(coupled(LEARNERS[name](), N, alpha), features, rewards, rng)
            for x in maps(features, rewards, rng):
                shares.append(full._reduction_share(game, x, **statement))
    return max(shares)


def test_a_stronger_statement_is_rejected_by_those_games():
    assert smallest() <= 1 + 1e-9
    assert smallest(factor=lambda a: 0.9 * full.approximation_factor(a)) > 1
    assert smallest(weight=lambda a: 0.5 * (1 - a) ** a) > 1


@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.3, 0.9]))
@settings(max_examples=10, deadline=None)
def test_over_the_books_learner_it_is_the_books_policy(seed, alpha):
    rng = np.random.default_rng(seed)
    mine, theirs = coupled(ScaleFree(), N, alpha), ScaleFreeBandit(N, alpha)
    features, rewards = linear_stream(40, rng)
    for x, r in zip(features, rewards):
        p = mine.probabilities(x)
        np.testing.assert_allclose(p, theirs.probabilities(tuple(x)), rtol=1e-7)
        arm, probability = mine.draw(x, rng)
        for policy, context in ((mine, x), (theirs, tuple(x))):
            policy.update(context, arm, r[arm], probability=probability)
        np.testing.assert_allclose(mine.rewards, theirs.rewards)


@pytest.mark.parametrize("name", ["ridge", "regressor"])
def test_fairness_costs_the_learner_little_and_helps_the_poor(name):
    rng = np.random.default_rng(2)
    rounds = 1500 if name == "ridge" else 500
    features, rewards = linear_stream(rounds, rng)
    rewards[:, 0] *= rng.random(rounds) < 0.3  # an arm that is never the best
    found = {}
    for alpha in (0.0, 0.9):
        policy = coupled(LEARNERS[name](), N, alpha)
        played(policy, features, rewards, np.random.default_rng(3))
        found[alpha] = policy.rewards
    utility = {a: alpha_fair_utility(R, 0.9) for a, R in found.items()}
    assert utility[0.9] > utility[0.0]
    assert np.sort(found[0.9])[1] > 2 * np.sort(found[0.0])[1]
    if name == "ridge":  # the regressors see a third of its rounds
        uniform = 1 + rewards.sum(0) / N
        assert utility[0.9] > alpha_fair_utility(uniform, 0.9)


def test_the_ridge_learner_solves_its_normal_equations():
    rng, learner = np.random.default_rng(0), RidgeLearner(N, D, explore=0.2)
    rows = [(rng.normal(size=D), int(rng.integers(N)), rng.random()) for _ in range(50)]
    for x, arm, reward in rows:
        learner.update(x, arm, 0.5 * reward, probability=0.3, weight=0.5)
    for arm in range(N):
        X = np.array([x for x, a, _ in rows if a == arm]).reshape(-1, D)
        y = np.array([r for _, a, r in rows if a == arm])
        A = np.eye(D) + X.T @ X
        np.testing.assert_allclose(learner.inverses[arm], np.linalg.inv(A), atol=1e-10)
        np.testing.assert_allclose(learner.sums[arm], X.T @ y, atol=1e-10)
    x, w = rng.normal(size=D), rng.random(N)
    theta = np.einsum("nde,ne->nd", learner.inverses, learner.sums)
    spread = [(x @ inverse @ x) ** 0.5 for inverse in learner.inverses]
    best = (w * (theta @ x + 0.5 * np.array(spread))).argmax()
    np.testing.assert_allclose(
        learner.predict(x, w), 0.05 + 0.8 * (np.arange(N) == best)
    )


def test_random_features_have_the_kernel_for_their_inner_products():
    rng, s = np.random.default_rng(6), 0.7
    learner = KernelLearner(2, D, rng=rng, scale=s, size=20_000)
    X = rng.normal(size=(6, D)) / 2
    features = np.array([learner._features(x) for x in X])
    squares = ((X[:, None] - X) ** 2).sum(-1)
    found = features @ features.T
    np.testing.assert_allclose(found, np.exp(-squares / (2 * s**2)), atol=0.03)
    assert abs(found - np.exp(-squares / (2 * (2 * s) ** 2))).max() > 0.1


def test_a_kernel_learns_what_is_not_linear_in_features():
    """Arms 0 and 1 pay by the sign of a product, of which no line tells anything."""
    rng, T = np.random.default_rng(7), 1500
    features, rewards = rng.uniform(-1, 1, (T, D)), np.zeros((T, N))
    same = features[:, 0] * features[:, 1] > 0
    rewards[:, 0], rewards[:, 1] = same, ~same
    earned = []
    for learner in (RidgeLearner(2, D), KernelLearner(2, D, rng=rng, scale=0.7)):
        policy = coupled(learner, 2, 0.5)
        played(policy, features, rewards, np.random.default_rng(3))
        earned.append((policy.rewards.sum() - 2) / T)
    assert earned[0] < 0.6 and earned[1] > 0.85


def test_a_kernel_learner_is_resumed_with_its_random_features(tmp_path):
    def build(seed, size=9):
        rng = np.random.default_rng(seed)
        return coupled(KernelLearner(3, D, rng=rng, size=size), list("abc"), alpha=0.5)

    policy, again = build(1), build(2)
    told(policy, 20, np.random.default_rng(4))
    policy.add_arm("d"), policy.retire_arm("a")
    policy.save(tmp_path / "p.npz")
    x = np.ones(D)
    assert (again.probabilities(x).shape, policy.probabilities(x).shape) == ((3,),) * 2
    again.resume(tmp_path / "p.npz")
    assert all_of(again) == all_of(policy)
    seeds = [np.random.default_rng(3) for _ in range(2)]
    assert str(told(policy, 9, seeds[0])) == str(told(again, 9, seeds[1]))
    other = build(1, 8)
    before = all_of(other)
    with pytest.raises(ValueError, match="frequencies must be .8, .. finite floats"):
        other.resume(tmp_path / "p.npz")
    assert all_of(other) == before


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (dict(rng=3), "rng is 3; give a generator"),
        (dict(scale=0), "scale is 0; it must be positive and finite"),
        (dict(scale="wide"), "scale is 'wide'; it must be positive"),
        (dict(size=0.5), "size is 0.5; it must be a positive whole number"),
        (dict(n_features=0), "n_features is 0; it must be a positive whole number"),
        (dict(n_arms=0), "n_arms is 0; it must be a positive whole number"),
        (dict(width=-1), "width is -1; it must be at least 0"),
        (dict(explore=2), "explore is 2; "),
    ],
)
def test_what_a_kernel_learner_is_built_from_is_checked(given, match):
    fine = dict(n_arms=3, n_features=2, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=match):
        KernelLearner(**fine | given)


def test_names_masks_and_what_is_refused():
    policy, rng = coupled(Foolish(), [*"abcd"], 0.5), np.random.default_rng(0)
    mask = [False, True, False, True]
    drawn = {policy.draw(None, rng, mask=mask) for _ in range(40)}
    assert {arm for arm, _ in drawn} == {"b", "d"}
    for call, message in [
        (
            lambda: policy.update(None, "e", 1, probability=0.5),
            "arm is 'e'; it must be",
        ),
        (lambda: policy.update(None, "a", 2, probability=0.5), "reward is 2; it must"),
        (
            lambda: policy.update(None, "a", 1, probability=0),
            "probability is 0; it must",
        ),
        (lambda: coupled(Foolish(), 0, 0.5), "n_arms is 0"),
        (lambda: coupled(Foolish(), 2, 1.5), "alpha is 1.5"),
        (
            lambda: coupled(Foolish(), 3, 0.5).probabilities(None),
            "learner predicts .*;",
        ),
        (lambda: RidgeLearner(2, 0), "n_features is 0"),
        (lambda: RidgeLearner(2, 2, width=-1), "width is -1; it must be at least 0"),
        (
            lambda: RegressorLearner(object, 2, explore=2),
            "explore is 2; it must lie in",
        ),
    ]:
        with pytest.raises(ValueError, match=message), warnings.catch_warnings():
            call()
    assert (policy.rewards == 1).all() and (policy.learner.gains == 0).all()


@pytest.mark.parametrize(
    "features", [[1, np.nan, 0], [1, np.inf, 0], [1, 1e200, 0], ["1", "2", "3"], [1, 2]]
)
def test_features_that_are_none_are_refused_and_nothing_is_learned(features):
    policy = coupled(RidgeLearner(2, D), ["a", "b"], 0.5)
    policy.update([1, 0.5, 0], "a", 1.0, probability=0.5)
    known = [x.copy() for x in (policy.learner.inverses, policy.learner.sums)]
    with pytest.raises(ValueError, match="it must be 3 finite numbers"):
        policy.update(features, "a", 1.0, probability=0.5)
    with pytest.raises(ValueError, match="it must be 3 finite numbers"):
        policy.probabilities(features)
    assert policy.rewards.tolist() == [2, 1]
    for before, now in zip(known, (policy.learner.inverses, policy.learner.sums)):
        np.testing.assert_array_equal(before, now)


def test_scores_that_are_no_numbers_never_play():
    with pytest.raises(ValueError, match="scores are .*nan.* must be finite"):
        explored(np.array([0.5, np.nan]), 0.1)


def test_a_draw_can_be_told_with_its_own_probability():
    class Rounded(ScaleFree):
        def predict(self, context, weights):
            return np.array([1.0000001, 0, 0, 0], np.float32)

    policy = coupled(Rounded(), N, 0.5)
    assert policy.draw(0, np.random.default_rng(0)).probability == 1


def ridge(arms=("a", "b", "c")):
    return coupled(RidgeLearner(len(arms), D), list(arms), alpha=0.5)


def told(policy, rounds, rng):
    """So many rounds, told one by one; their columns."""
    fed = []
    for _ in range(rounds):
        x = rng.random(D)
        arm, p = policy.draw(x, rng)
        fed.append((x, arm, float(rng.random()), p))
        policy.update(x, arm, fed[-1][2], probability=p)
    return [list(column) for column in zip(*fed)]


def all_of(policy):
    return policy.arms, policy.rewards.tobytes(), policy.learner.sums.tobytes()


def test_a_batch_is_the_loop_and_one_with_a_bad_round_teaches_nothing():
    one, many = ridge(), ridge()
    x, arms, rewards, p = told(one, 12, np.random.default_rng(0))
    many.update_many(x, arms, rewards, probabilities=p)
    assert all_of(many) == all_of(one)
    bad = [*rewards[:-1], 1.5]
    with pytest.raises(ValueError, match="round 11: reward is 1.5; it must be"):
        many.update_many(x, arms, bad, probabilities=p)
    with pytest.raises(ValueError, match="are the lengths; they must agree"):
        many.update_many(x, arms, rewards[1:], probabilities=p)
    assert all_of(many) == all_of(one)


def test_arms_come_and_go_and_the_others_keep_what_was_learned():
    policy, rng = ridge(), np.random.default_rng(1)
    told(policy, 20, rng)
    before, sums = dict(zip(policy.arms, policy.rewards)), policy.learner.sums
    assert policy.add_arm("d", initial=2.0) == "d"
    policy.retire_arm("b")
    assert policy.arms == ("a", "c", "d") and policy.retired == {"b"}
    np.testing.assert_array_equal(policy.rewards, [before["a"], before["c"], 2.0])
    np.testing.assert_array_equal(policy.learner.sums, [sums[0], sums[2], [0] * D])
    told(policy, 10, rng)
    for call, message in [
        (lambda: policy.add_arm("b"), "arm is 'b', which is or was one"),
        (lambda: policy.add_arm("c"), "arm is 'c', which is or was one"),
        (lambda: policy.add_arm("e", initial=0), "initial is 0; it must be at least 1"),
        (lambda: policy.retire_arm("b"), "arm is 'b', which was retired; drop what"),
        (lambda: policy.retire_arm("z"), r"arm is 'z'; it must be one of \['a', 'c'"),
        (
            lambda: policy.update(np.ones(D), "b", 1, probability=0.5),
            "arm is 'b', which was retired; drop what .* in `policy.retired`",
        ),
        (
            lambda: policy.update_many(
                np.ones((2, D)), "ab", [1, 1], probabilities=[0.5, 0.5]
            ),
            "round 1: arm is 'b', which was retired; drop what",
        ),
    ]:
        state = all_of(policy)
        with pytest.raises(ValueError, match=message):
            call()
        assert all_of(policy) == state
    other = coupled(ScaleFree(), N, 0.5)
    for call in (lambda: other.add_arm("e"), lambda: other.retire_arm(0)):
        with pytest.raises(ValueError, match="learner is a ScaleFree without .*_arm;"):
            call()
    assert other.arms == (0, 1, 2, 3)


def test_a_regressor_learner_takes_a_new_arm_as_one_that_pays():
    class Mean:
        def __init__(self):
            self.values = [0.0]

        def predict(self, _):
            return [sum(self.values) / len(self.values)]

        def partial_fit(self, _, y):
            self.values += y

    policy = coupled(RegressorLearner(Mean, 2, explore=0.0), ["a", "b"], 0.0)
    for arm in "ab":
        policy.update([1.0], arm, 0.0, probability=0.5)
    policy.add_arm("c")
    assert policy.draw([1.0], np.random.default_rng(0)).arm == "c"
    policy.retire_arm("a")
    assert len(policy.learner.regressors) == 2 and policy.learner.drawn.tolist() == [
        1,
        0,
    ]


def test_what_was_saved_is_resumed_to_the_byte_and_nothing_else_is(tmp_path):
    policy, rng = ridge(), np.random.default_rng(2)
    told(policy, 10, rng)
    policy.add_arm(("d", 1)), policy.retire_arm("a")
    policy.save(path := tmp_path / "p.npz")
    again = ridge()
    again.resume(path)
    assert all_of(again) == all_of(policy) and again.retired == {"a"}
    seeds = [np.random.default_rng(3) for _ in range(2)]
    assert str(told(policy, 9, seeds[0])) == str(told(again, 9, seeds[1]))
    for other, words in [
        (coupled(RidgeLearner(3, D), 3, alpha=0.4), "another alpha"),
        (coupled(RidgeLearner(3, D + 1), 3, alpha=0.5), "must be of 3 arms and 4 feat"),
    ]:
        before = all_of(other)
        with pytest.raises(ValueError, match="path is .*does not fit.*" + words):
            other.resume(path)
        assert all_of(other) == before
    (tmp_path / "text").write_text("x")
    with pytest.raises(ValueError, match="does not fit this policy"):
        again.resume(tmp_path / "text")
    with pytest.raises(ValueError, match="learner is a ScaleFree without arrays;"):
        coupled(ScaleFree(), N, 0.5).save(tmp_path / "q.npz")
