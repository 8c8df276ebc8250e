"""Claims of the chapter `pruning/policy_gradient`."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prunefair.models import load_model
from prunefair.pruning.anatomy import gate_matrices
from prunefair.pruning.policy_gradient import (
    all_selections,
    discounts,
    enumerated_gradient,
    future_penalties,
    leave_one_out,
    plot_gradient_spread,
    plot_learning_curves,
    sampled_scores,
    train_policy,
)
from prunefair.pruning.released import (
    released_draw,
    released_loss,
    released_rewards,
    train_released,
)
from prunefair.pruning.row_policy import (
    ReleasedScorer,
    RowPolicy,
    gumbel_top_k,
    plackett_luce_gradient,
    plackett_luce_log_prob,
    plackett_luce_set_log_prob,
)
from prunefair.pruning.spectrum import singular_values, spectral_distance

CONFIDENCE = 0.999


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def assert_mean(samples, mean):
    """The mean of `samples` (N, p) is `mean`, at CONFIDENCE for all p together."""
    allowed = stats.norm.isf((1 - CONFIDENCE) / (2 * samples.shape[1]))
    z = (samples.mean(0) - mean) / (samples.std(0) / len(samples) ** 0.5)
    assert z.abs().max() < allowed, z


W = normal(8, 3)
POLICY = RowPolicy(0.3 * normal(6, seed=1))


@pytest.fixture(scope="module")
def samples():
    return sampled_scores(POLICY, W, 4, (8000, 2), generator=seeded(2))


# the enumerated gradient, and estimates of it


def test_enumerated_gradient_is_the_finite_difference_of_the_enumerated_penalty():
    _, gradient = enumerated_gradient(POLICY, W, 4)
    theta = POLICY.weights.detach()
    direction = normal(6, seed=8)
    up = enumerated_gradient(RowPolicy(theta + 1e-5 * direction), W, 4)[0]
    down = enumerated_gradient(RowPolicy(theta - 1e-5 * direction), W, 4)[0]
    slope = float(gradient @ direction)
    assert slope == pytest.approx((up - down) / 2e-5, abs=1e-8)


def test_enumeration_needs_the_state_and_the_scores_of_a_policy_only():
    class Linear(torch.nn.Linear):  # no method `scores`
        def state(self, W):
            return RowPolicy().state(W)

        def forward(self, state):
            return super().forward(state).squeeze(-1)

    linear = Linear(6, 1, bias=False, dtype=torch.float64)
    penalty, gradient = enumerated_gradient(linear, W, 4)
    same = enumerated_gradient(RowPolicy(linear.weight[0]), W, 4)
    assert penalty == same[0]
    torch.testing.assert_close(gradient, same[1])


def test_expected_penalty_is_the_mean_over_all_ordered_draws():
    logits = POLICY.scores(W[:6]).detach()
    orders = torch.tensor(list(itertools.permutations(range(6), 3)))
    p = plackett_luce_log_prob(logits, orders).exp()
    mean = p @ spectral_distance(W[:6], orders)
    assert enumerated_gradient(POLICY, W[:6], 3)[0] == pytest.approx(float(mean))


def test_ordered_and_set_scores_have_the_same_mean_and_the_set_less_variance():
    small, k = W[:6], 3
    logits, F = POLICY.scores(small).detach(), POLICY.state(small)
    orders = torch.tensor(list(itertools.permutations(range(6), k)))
    p = plackett_luce_log_prob(logits, orders).exp()
    d = spectral_distance(small, orders)[:, None]
    by_order = plackett_luce_gradient(logits, orders) @ F
    by_set = []
    for S in orders:
        free = logits.clone().requires_grad_()
        log_prob = plackett_luce_set_log_prob(free, S)
        by_set.append(torch.autograd.grad(log_prob, free)[0] @ F)
    by_set = torch.stack(by_set)
    truth = enumerated_gradient(POLICY, small, k)[1]
    torch.testing.assert_close(p @ (d * by_order), truth)
    torch.testing.assert_close(p @ (d * by_set), truth)
    var_order = p @ (d * by_order).square() - truth.square()
    var_set = p @ (d * by_set).square() - truth.square()
    assert (var_set <= var_order + 1e-12).all() and var_set.sum() < var_order.sum()


def test_sampled_gradient_is_unbiased_with_and_without_baseline(samples):
    exact = enumerated_gradient(POLICY, W, 4)[1]
    d, scores = samples
    assert_mean((d[..., None] * scores).mean(1), exact)
    assert_mean((leave_one_out(d.T).T[..., None] * scores).mean(1), exact)


def test_unbiasedness_check_rejects_wrong_estimates(samples):
    exact = enumerated_gradient(POLICY, W, 4)[1]
    d, scores = samples
    with pytest.raises(AssertionError):  # the penalty of another draw
        assert_mean((d.flip(1)[..., None] * scores).mean(1), exact)
    with pytest.raises(AssertionError):  # a baseline that holds the draw itself
        advantage = d - d.mean(1, keepdim=True)
        assert_mean((advantage[..., None] * scores).mean(1), exact)
    logits, F = POLICY.scores(W).detach(), POLICY.state(W)
    drawn = gumbel_top_k(logits.expand(8000, 8), 4, generator=seeded(3))
    picked = torch.zeros(8000, 8, dtype=torch.float64).scatter(1, drawn, 1)
    naive = (picked - 4 * logits.softmax(0)) @ F  # as if drawn with replacement
    with pytest.raises(AssertionError):
        assert_mean(spectral_distance(W, drawn)[:, None] * naive, exact)


def test_leave_one_out_cuts_the_variance(samples):
    d, scores = samples
    none = (d[..., None] * scores).mean(1).var(0).sum()
    baseline = (leave_one_out(d.T).T[..., None] * scores).mean(1).var(0).sum()
    assert baseline < 0.5 * none


def test_scores_have_mean_zero(samples):
    assert_mean(samples.scores.flatten(0, 1), torch.zeros(6))


@given(st.integers(2, 6), st.integers(0, 1000))
def test_leave_one_out_subtracts_the_mean_of_the_others(B, seed):
    d = normal(B, 3, seed=seed)
    for b in range(B):
        others = torch.cat([d[:b], d[b + 1 :]]).mean(0)
        torch.testing.assert_close(leave_one_out(d)[b], d[b] - others)
    torch.testing.assert_close(leave_one_out(d + 7), leave_one_out(d))


def test_one_draw_has_no_baseline():
    assert torch.equal(leave_one_out(torch.ones(1, 3)), torch.ones(1, 3))


@given(st.integers(1, 6), st.floats(0, 1), st.integers(0, 1000))
def test_future_penalties_are_discounted_sums_of_what_follows(L, gamma, seed):
    d = normal(2, L, seed=seed)
    future = future_penalties(d, gamma)
    for i in range(L):
        wanted = sum(gamma**j * d[:, j] for j in range(i, L))
        torch.testing.assert_close(future[:, i], wanted)


def test_discounts_of_integer_penalties_are_not_truncated():
    assert future_penalties(torch.tensor([1, 2, 4]), 0.5).tolist() == [3, 2, 1]


def test_future_penalties_have_the_same_mean_and_more_variance():
    layers = [normal(8, 3, seed=s) for s in (0, 4, 5, 6)]
    parts = [
        sampled_scores(POLICY, L, 4, (1500, 2), generator=seeded(i))
        for i, L in enumerate(layers)
    ]
    d = torch.stack([p.penalties.T for p in parts], 2)  # (2, N, L)
    scores = torch.stack([p.scores.transpose(0, 1) for p in parts], 2)

    def estimates(charged):
        return (leave_one_out(charged)[..., None] * scores).mean(0).sum(1)

    gamma = discounts(4, 0.9)
    exact = sum(
        g * enumerated_gradient(POLICY, L, 4)[1]
        for g, L in zip(gamma, layers, strict=True)
    )
    own, future = estimates(d * gamma), estimates(future_penalties(d, 0.9))
    assert_mean(own, exact)
    assert_mean(future, exact)
    assert future.var(0).sum() > 1.3 * own.var(0).sum()


# training


def planted(seed, m=40, n=8):
    """Matrix whose first half carries the spectrum and whose rest is small."""
    A = normal(m, n, seed=seed)
    A[m // 2 :] *= 0.05
    return A


def test_training_finds_the_rows_that_carry_the_spectrum():
    matrices = [planted(seed) for seed in range(4)]
    trained = train_policy(matrices, 0.5, episodes=25, generator=seeded(0))
    assert len(trained.history) == 25
    assert trained.history[-1] < 0.6 * trained.history[0]
    kept = trained.policy.select(planted(9), 20)
    assert len(set(kept.tolist()) & set(range(20))) >= 18


def test_training_is_repeatable_and_changes_the_given_policy():
    runs = []
    for _ in range(2):
        policy = RowPolicy()
        trained = train_policy(
            [planted(0)], 0.5, episodes=3, generator=seeded(1), policy=policy
        )
        assert trained.policy is policy and policy.weights.abs().max() > 0
        runs.append((trained.history, policy.weights.tolist()))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("future", [False, True])
@pytest.mark.parametrize("draws", [1, 3])
def test_step_of_training_is_the_estimated_gradient(draws, future):
    matrices, policy = [normal(8, 3, seed=s) for s in (0, 5, 6)], RowPolicy()
    options = {"draws": draws, "future": future, "policy": policy}
    train_policy(matrices, 0.5, episodes=1, generator=seeded(4), **options)
    generator, drawn = seeded(4), []
    for _ in matrices:
        drawn.append(gumbel_top_k(torch.zeros(draws, 8), 4, generator=generator))
    own = [
        0.99**i * spectral_distance(A, rows)
        for i, (A, rows) in enumerate(zip(matrices, drawn, strict=True))
    ]
    wanted = torch.zeros(6, dtype=torch.float64)
    for i, (A, rows) in enumerate(zip(matrices, drawn, strict=True)):
        d = sum(own[i:]) if future else own[i]
        for b in range(draws):
            others = (d.sum() - d[b]) / (draws - 1) if draws > 1 else 0
            score = plackett_luce_gradient(torch.zeros(8), rows[b])
            wanted += (d[b] - others) / draws * (score @ RowPolicy().state(A))
    torch.testing.assert_close(policy.weights.grad, wanted)


def test_nothing_explodes_where_nothing_is_removed():
    trained = train_policy([W], 0.0, episodes=3, generator=seeded(0))
    assert trained.history == [0, 0, 0]
    assert trained.policy.weights.abs().max() < 1e-9


def test_exact_gradient_trains_the_papers_scorer():
    A, scorer = planted(0).float(), ReleasedScorer(8, 40, generator=seeded(0))
    logits = scorer.scores(A)
    drawn = gumbel_top_k(logits.expand(2, 40), 20, generator=seeded(1))
    advantages = leave_one_out(spectral_distance(A, drawn))
    loss = advantages @ plackett_luce_log_prob(logits.double(), drawn) / 2
    wanted, before = torch.autograd.grad(loss, scorer.P)[0], scorer.P.detach().clone()
    options = {"episodes": 1, "learning_rate": 1e-3, "policy": scorer}
    trained = train_policy([A], 0.5, generator=seeded(1), **options)
    assert trained.policy is scorer and wanted.abs().max() > 0
    torch.testing.assert_close(scorer.P.grad, wanted)
    torch.testing.assert_close(scorer.P, before - 1e-3 * wanted.sign())  # first of Adam


def test_training_on_parameters_of_a_model_leaves_no_gradient_in_them():
    parameter = torch.nn.Parameter(planted(0).float())
    for train, policy in (
        (train_policy, {"policy": ReleasedScorer(8, 40, generator=seeded(0))}),
        (train_policy, {}),
        (train_released, {}),
    ):
        options = {"episodes": 2, "learning_rate": 1e-3} | policy
        on_parameter = train([parameter], 0.5, generator=seeded(1), **options)
        assert parameter.grad is None and len(on_parameter.history) == 2
    samples = sampled_scores(POLICY, parameter, 20, (3,), generator=seeded(1))
    assert not samples.scores.requires_grad and not samples.penalties.requires_grad


# the released recipe


def test_constant_reward_moves_the_released_scores_and_not_the_exact_ones():
    logits = normal(8).requires_grad_()
    generator, steps = seeded(0), []
    for _ in range(1500):
        S = released_draw(logits, 4, generator=generator)
        loss = released_loss(logits, S, 1.0, generator=generator)
        step = -torch.autograd.grad(loss, logits)[0]
        assert (step[S] > 0).all() and int((step != 0).sum()) == 4
        steps.append(step)
    with pytest.raises(AssertionError):
        assert_mean(torch.stack(steps), torch.zeros(8))
    drawn = gumbel_top_k(logits.expand(1500, 8), 4, generator=generator)
    assert_mean(plackett_luce_gradient(logits, drawn), torch.zeros(8))


# errors, figures


@pytest.mark.parametrize(
    ("function", "arguments", "options", "message"),
    [
        (train_policy, ([], 0.3), {}, "matrices is empty"),
        (train_policy, ([W], 0.3), {"episodes": 0}, "episodes is 0"),
        (train_policy, ([W], 0.3), {"draws": 0}, "draws is 0"),
        (train_policy, ([W], 0.3), {"learning_rate": -1}, "learning_rate is -1"),
        (train_policy, ([W], 0.3), {"learning_rate": math.inf}, "learning_rate is inf"),
        (train_policy, ([W], 0.3), {"discount": 1.1}, "discount is 1.1"),
        (train_policy, ([W], 1.0), {}, "ratio is 1.0"),
        (train_released, ([], 0.3), {}, "matrices is empty"),
        (train_released, ([W, W[:5]], 0.3), {}, "matrices differ in shape"),
        (train_released, ([W], 0.3), {"episodes": 0}, "episodes is 0"),
        (train_released, ([W], 0.3), {"learning_rate": 0}, "learning_rate is 0"),
        (train_released, ([W], 0.3), {"discount": -1}, "discount is -1"),
        (train_released, ([W], 0.0), {}, "positive distances only"),
    ],
)
def test_wrong_training_arguments_are_named(function, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments, generator=seeded(0), **options)


def test_enumeration_refuses_what_it_cannot_finish():
    with pytest.raises(ValueError, match="more than 10000 selections"):
        all_selections(40, 20)
    with pytest.raises(ValueError, match="k is 0"):
        all_selections(4, 0)
    with pytest.raises(ValueError, match="k is 9"):
        enumerated_gradient(POLICY, W, 9)
    with pytest.raises(ValueError, match="distances has the smallest entry 0"):
        released_rewards([0.1, 0.0], 0.9)
    with pytest.raises(ValueError, match="discount is 2"):
        discounts(3, 2)
    with pytest.raises(ValueError, match="discount is -1"):
        future_penalties(torch.ones(3), -1)


@pytest.mark.parametrize(
    ("matrix", "k", "message"),
    [(W, 0, "k is 0"), (W, 9, "k is 9"), (W * math.nan, 4, "give a finite matrix")],
)
def test_draws_refuse_what_has_no_rows_or_spectrum(matrix, k, message):
    with pytest.raises(ValueError, match=message):
        sampled_scores(POLICY, matrix, k, (2,), generator=seeded(0))


def test_figures_return_their_axes():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert plot_learning_curves(ax, {"a": [[0.3, 0.2], [0.4, 0.1]]}, {"b": 0.2}) is ax
    assert len(ax.lines) == 2 and len(ax.collections) == 1
    top = ax.collections[0].get_paths()[0].vertices[:, 1].max()  # t of one degree
    assert top == pytest.approx(0.35 + 12.7062 * 0.05, abs=1e-4)
    ax = Figure().subplots()
    assert plot_gradient_spread(ax, {"a": [1.0, 2.0]}, ["x", "y"]) is ax


# the real model


def test_exact_gradient_goes_below_0_140_on_the_real_model_and_the_recipe_does_not():
    matrices = [W.float() for W in gate_matrices(load_model("smollm2"))][4::12]
    options = {"episodes": 12, "dtype": torch.float32}
    exact = train_policy(matrices, 0.3, generator=seeded(0), **options)
    assert exact.history[0] > 0.160 and exact.history[-1] < 0.140
    m, n = matrices[0].shape
    released = train_released(
        matrices,
        0.3,
        generator=seeded(0),
        episodes=12,
        scorer=ReleasedScorer(n, m, generator=seeded(1), collapsed=True),
        spectrum=lambda A: singular_values(A, dtype=torch.float32),
    )
    assert abs(np.mean(released.history[-4:]) - 0.168) < 0.006
