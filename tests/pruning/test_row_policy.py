"""Claims of the chapter `pruning/row_policy`."""

import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy import integrate, stats

from prunefair.pruning.row_policy import (
    FEATURES,
    RIDGE,
    ReleasedScorer,
    RowPolicy,
    bernoulli_divergence,
    check_k,
    coherence,
    collapse,
    gumbel_top_k,
    leverage,
    load_policy,
    plackett_luce_gradient,
    plackett_luce_log_prob,
    plackett_luce_set_log_prob,
    plot_keep_probabilities,
    policy_metadata,
    released_keep_probabilities,
    row_features,
    save_policy,
    selected_rows,
    z_scores,
)
from prunefair.pruning.spectrum import graded_matrix

SEEDS = st.integers(0, 2**31)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
HALF = [torch.float16, torch.bfloat16]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def sequential_probability(logits, ordered):
    """Plackett-Luce by its definition, one item after the other."""
    weight, p = logits.exp().tolist(), 1.0
    for j, item in enumerate(ordered):
        p *= weight[item] / sum(w for i, w in enumerate(weight) if i not in ordered[:j])
    return p


# the released scorer


@given(SEEDS, st.integers(1, 7), st.integers(2, 9))
def test_released_scorer_collapses_to_one_direction_and_an_offset(seed, n, m):
    generator = seeded(seed)
    scorer = ReleasedScorer(n, m, generator=generator).double()
    W = torch.randn(m, n, generator=generator, dtype=torch.float64)
    u, c = collapse(scorer)
    s = scorer.scores(W).detach()
    torch.testing.assert_close(s, W @ u + c)
    torch.testing.assert_close(scorer.scores(-W).detach() - c, -(s - c))


def test_collapse_fails_for_a_scorer_with_a_nonlinearity():
    scorer = ReleasedScorer(4, 6, generator=seeded(0)).double()
    W = normal(6, 4)
    u, c = collapse(scorer)
    bent = (torch.relu(W @ scorer.P + scorer.b) @ scorer.v).detach()
    assert (bent - (W @ u + c)).abs().max() > 0.1


def test_collapsed_order_has_the_same_gradient_in_every_parameter():
    slow = ReleasedScorer(4, 6, generator=seeded(1)).double()
    fast = ReleasedScorer(4, 6, generator=seeded(1), collapsed=True).double()
    W, direction = normal(6, 4), normal(6, seed=2)
    for scorer in (slow, fast):
        (scorer.scores(W) @ direction).backward()
    for name, parameter in slow.named_parameters():
        torch.testing.assert_close(parameter.grad, fast.get_parameter(name).grad)


def test_initial_scores_have_the_variance_of_the_chapter():
    n, m = 16, 48
    scorers = [ReleasedScorer(n, m, generator=seeded(seed)) for seed in range(2000)]
    directions, offsets = zip(*(collapse(scorer) for scorer in scorers), strict=True)
    u, c = torch.stack(directions), torch.stack(offsets)
    one = m / (9 * n)
    assert abs(u.var() / one - 1) < 0.03
    assert abs(c.var() / one - 1) < 0.1  # three standard errors of 2000 draws
    for length in (0.0, 0.5, 1.0, 3.0):
        w = torch.nn.functional.normalize(normal(n), dim=0) * length
        assert abs((u @ w + c).var() / ((length**2 + 1) * one) - 1) < 0.1


@pytest.mark.parametrize("device", DEVICES)
def test_released_scorer_is_made_on_the_device_of_its_generator(device, monkeypatch):
    asked, rand = [], torch.rand

    def recorded(*arguments, device=None, **rest):
        asked.append(device)
        return rand(*arguments, device=device, **rest)

    monkeypatch.setattr(torch, "rand", recorded)
    generator = torch.Generator(device).manual_seed(0)
    scorer = ReleasedScorer(4, 6, generator=generator)
    assert asked == [generator.device] * 3
    assert {p.device.type for p in scorer.parameters()} == {device}


def test_keep_probabilities_are_coins_with_the_probability_alpha():
    scores = torch.tensor([-3.0, 0.0, 1.0], dtype=torch.float64)
    keep = released_keep_probabilities(scores.expand(20_000, 3), generator=seeded(0))
    heads = (keep > 0.5).sum(0).tolist()
    for count, alpha in zip(heads, scores.sigmoid().tolist(), strict=True):
        assert stats.binomtest(count, 20_000, alpha).pvalue > 1e-3


def rounded_noise(scores, generator):
    """Keep probabilities with the noise rounded to the type of the scores first."""
    noise = torch.rand(scores.shape, generator=generator).clamp(min=2**-25)
    return (noise.to(scores).logit() + scores.sigmoid().logit()).sigmoid()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keep_probabilities_of_full_precision_are_those_of_the_formula(dtype):
    scores = 8 * normal(100_000).to(dtype)
    keep = released_keep_probabilities(scores, generator=seeded(5))
    assert keep.dtype == dtype
    assert torch.equal(keep, rounded_noise(scores, seeded(5)))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("sign", [-1, 1])
def test_keep_probabilities_of_half_precision_are_numbers_where_alpha_is_not_between(
    dtype, sign
):
    scores = torch.full((100_000,), 120.0 * sign, dtype=dtype)  # alpha is 0 or 1
    keep = released_keep_probabilities(scores, generator=seeded(1))
    assert keep.dtype == dtype and (keep == (sign + 1) / 2).all()
    if sign < 0:  # noise that rounds to 1
        assert rounded_noise(scores, seeded(1)).isnan().any()
    middle = released_keep_probabilities(0 * scores, generator=seeded(1))
    noise = torch.rand(100_000, generator=seeded(1))
    torch.testing.assert_close(middle.float(), noise, atol=0.01, rtol=0)


@pytest.mark.parametrize("value", [0.0, 2**-25])
@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
def test_the_least_noise_gives_no_nan(value, dtype, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, value))
    scores = torch.tensor([-120.0, -1.0, 1.0, 120.0], dtype=dtype)
    keep = released_keep_probabilities(scores, generator=seeded(0))
    assert keep.isfinite().all() and keep[0] == 0 and keep[3] == 1


def test_gradient_of_keep_probabilities_ends_where_alpha_rounds_to_zero_or_one():
    scores = torch.tensor([-120.0, -5.0, 5.0, 20.0], requires_grad=True)
    released_keep_probabilities(scores, generator=seeded(0)).sum().backward()
    assert scores.detach().sigmoid()[[0, 3]].tolist() == [0, 1]
    assert scores.grad.isfinite().tolist() == [False, True, True, False]


def test_second_pass_of_the_released_code_gives_other_keep_probabilities():
    generator, scores = seeded(0), normal(10)
    first = released_keep_probabilities(scores, generator=generator)
    second = released_keep_probabilities(scores, generator=generator)
    assert (first - second).abs().max() > 0.1


def test_alpha_of_half_precision_is_one_where_float64_is_not():
    assert torch.tensor(9.0, dtype=torch.float16).sigmoid() == 1
    assert torch.tensor(9.0, dtype=torch.float64).sigmoid() < 1


def test_divergence_from_the_fair_coin_is_that_of_torch_and_not_the_released_one():
    alpha = torch.linspace(0, 1, 21, dtype=torch.float64)
    coin = torch.distributions.Bernoulli(alpha)
    fair = torch.distributions.Bernoulli(torch.full_like(alpha, 0.5))
    oracle = torch.distributions.kl_divergence(coin, fair)
    torch.testing.assert_close(bernoulli_divergence(alpha), oracle)
    a = torch.tensor(0.9, dtype=torch.float64)
    swapped = -(1 - a) * a.log() - a * (1 - a).log() - math.log(2)
    assert float(bernoulli_divergence(a)) == pytest.approx(0.368, abs=5e-4)
    assert float(swapped) == pytest.approx(1.39, abs=5e-3)


# features


@given(SEEDS, st.integers(2, 9), st.integers(1, 5), st.floats(1e-6, 1e6))
def test_features_ignore_signs_scale_and_rotation_of_the_columns(seed, m, n, scale):
    generator = seeded(seed)
    W = torch.randn(m, n, generator=generator, dtype=torch.float64)
    signs = 2.0 * torch.randint(2, (m, 1), generator=generator) - 1
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    raw = torch.stack([leverage(W), coherence(W)])
    changed = torch.stack([leverage(signs * W @ Q), coherence(signs * W @ Q)])
    torch.testing.assert_close(changed, raw, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(row_features(scale * signs * W), row_features(W))


def test_released_scores_are_not_invariant_under_the_sign_of_a_row():
    scorer = ReleasedScorer(4, 6, generator=seeded(0)).double()
    W = normal(6, 4)
    assert (scorer.scores(W) - scorer.scores(-W)).abs().max() > 0.1


def test_leverage_is_the_diagonal_of_the_hat_matrix_also_without_full_rank():
    W = normal(9, 4)
    W[:, 3] = W[:, 0] + W[:, 1]
    hat = (W @ torch.linalg.pinv(W)).diagonal()
    torch.testing.assert_close(leverage(W), hat, atol=1e-7, rtol=0)
    assert float(leverage(W).sum()) == pytest.approx(3, abs=1e-6)


def graded(seed, condition, m=60, n=20):
    """Float32 matrix (m, n) of the given condition, and its leverages by QR."""
    values = torch.logspace(0, -math.log10(condition), n, dtype=torch.float64)
    W = graded_matrix(m, values, generator=seeded(seed)).float()
    return W, torch.linalg.qr(W.double()).Q.square().sum(1)


@given(SEEDS, st.floats(0, 3.5))  # beyond, the ridge of float64 shows
def test_leverage_of_float32_is_right_up_to_a_condition_of_3000(seed, exponent):
    W, oracle = graded(seed, 10**exponent)
    torch.testing.assert_close(leverage(W).double(), oracle, atol=1e-3, rtol=0)


@given(SEEDS)
def test_leverage_of_a_condition_of_a_million_is_that_of_the_ridge(seed):
    values = torch.logspace(0, -6, 20, dtype=torch.float64)
    W = graded_matrix(60, values, generator=seeded(seed))
    U, s, _ = torch.linalg.svd(W, full_matrices=False)
    share = s**2 / (s**2 + RIDGE * W.square().sum())  # of each direction
    assert share[0] > 0.999 and share[-1] < 0.1
    torch.testing.assert_close(leverage(W), U.square() @ share, atol=1e-4, rtol=0)
    assert (leverage(W) - U.square().sum(1)).abs().max() > 0.01  # the pseudo-inverse


def test_leverage_stays_in_float32_only_where_its_sum_says_that_it_may():
    W, _ = graded(0, 3)
    assert leverage(W).dtype == torch.float32
    W, _ = graded(0, 3000)
    assert torch.equal(leverage(W), leverage(W.double()))
    W[:, 3] = W[:, 0] + W[:, 1]  # no Cholesky factor, or one of rounding errors
    assert float(leverage(W).sum()) == pytest.approx(19, abs=1e-2)
    wide = normal(5, 9).float()
    assert float(leverage(wide).sum()) == pytest.approx(5, abs=1e-6)


def test_coherence_is_the_mean_squared_cosine_to_the_other_rows():
    W = normal(7, 3)
    for i in range(7):
        cosines = [
            float(W[i] @ W[j] / (W[i].norm() * W[j].norm())) for j in range(7) if j != i
        ]
        mean = sum(c * c for c in cosines) / 6
        assert float(coherence(W)[i]) == pytest.approx(mean)


def test_features_are_standardised_and_constant_ones_are_zero():
    F = row_features(normal(50, 6))
    assert F.shape == (50, len(FEATURES)) and F.dtype == torch.float64
    torch.testing.assert_close(F.mean(0), torch.zeros(6).double(), atol=1e-10, rtol=0)
    torch.testing.assert_close(F.std(0, correction=0), torch.ones(6).double())
    assert not row_features(torch.eye(5)).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_features_of_rows_that_are_alike_are_zero(dtype):
    Q = torch.linalg.qr(normal(40, 40)).Q
    signs = 1 - 2.0 * (normal(90, 1) > 0)
    for W in (torch.eye(40), Q, torch.cat([Q, -Q]), signs * normal(1, 7)):
        assert not row_features(W.to(dtype)).any()


def test_a_small_coherence_that_differs_between_rows_is_a_feature():
    W = torch.eye(50, dtype=torch.float64)
    W[0, 1] = 0.005  # two rows with a coherence of 5e-7, the others with none
    assert coherence(W).std(correction=0) < 1e-6
    z = row_features(W)[:, 2]
    share = 2 / 50
    expected = torch.full((50,), -share, dtype=torch.float64)
    expected[:2] += 1
    torch.testing.assert_close(z, expected / (share * (1 - share)) ** 0.5)


def test_a_small_leverage_that_differs_between_rows_is_a_feature():
    m, step = 4000, 1e-4
    W = torch.ones(m, 1, dtype=torch.float64)
    W[: m // 2] += step  # half of the rows are longer, by one part in 10 000
    assert 1e-9 < leverage(W).std(correction=0) < 1e-6
    expected = torch.ones(m, dtype=torch.float64)
    expected[m // 2 :] = -1
    torch.testing.assert_close(row_features(W)[:, 1], expected, atol=1e-6, rtol=0)


def test_a_column_is_constant_relative_to_its_size():
    x = 1e-3 * torch.tensor([[1.0, 1], [1 + 1e-5, 1 + 1e-7]], dtype=torch.float64)
    assert not z_scores(x).any()
    expected = torch.tensor([[-1.0, 0], [1, 0]], dtype=torch.float64)
    torch.testing.assert_close(z_scores(x, x.mean(0)), expected)


def test_features_of_a_matrix_with_a_zero_row_are_finite_and_half_precision_works():
    W = normal(8, 3)
    W[2] = 0
    F = row_features(W)
    assert F.isfinite().all() and F[:, 0].argmin() == 2
    assert row_features(normal(8, 3).bfloat16()).isfinite().all()


@pytest.mark.parametrize(
    "W",
    [torch.zeros(4, 3), torch.ones(4), torch.ones(1, 3), torch.full((4, 3), math.nan)],
)
def test_features_reject_what_is_no_matrix_of_rows(W):
    with pytest.raises(ValueError, match="finite matrix of at least two rows"):
        row_features(W)


# draws without replacement


@given(SEEDS, st.integers(1, 6), st.data())
def test_log_probability_of_a_draw_is_the_product_of_its_fractions(seed, m, data):
    k = data.draw(st.integers(1, m))
    logits = 3 * normal(m, seed=seed)
    ordered = gumbel_top_k(logits, k, generator=seeded(seed))
    p = plackett_luce_log_prob(logits, ordered).exp()
    assert float(p) == pytest.approx(sequential_probability(logits, ordered.tolist()))


@pytest.mark.parametrize(("m", "k"), [(1, 1), (4, 2), (5, 5)])
def test_probabilities_of_all_ordered_draws_sum_to_one(m, k):
    orders = torch.tensor(list(itertools.permutations(range(m), k)))
    p = plackett_luce_log_prob(2 * normal(m), orders).exp()
    assert float(p.sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("of_logits", "of_ordered"),
    [((5,), ()), ((), (5,)), ((3, 1), (4,)), ((4,), (3, 1)), ((3, 4), (3, 4))],
)
def test_leading_axes_of_logits_and_draws_broadcast(of_logits, of_ordered):
    logits = normal(*of_logits, 6)
    ordered = gumbel_top_k(torch.zeros(*of_ordered, 6), 2, generator=seeded(1))
    found = plackett_luce_log_prob(logits, ordered)
    lead = torch.broadcast_shapes(of_logits, of_ordered)
    assert found.shape == lead
    logits, ordered = logits.expand(*lead, 6), ordered.expand(*lead, 2)
    for index in itertools.product(*(range(size) for size in lead)):
        p = sequential_probability(logits[index], ordered[index].tolist())
        assert float(found[index].exp()) == pytest.approx(p)


def test_log_probability_survives_scores_of_any_size_and_any_shift():
    logits = torch.tensor([1000.0, 0.0, -1000.0], dtype=torch.float64)
    in_order = plackett_luce_log_prob(logits, torch.tensor([0, 1, 2]))
    assert float(in_order) == pytest.approx(0)
    reversed_order = plackett_luce_log_prob(logits, torch.tensor([2, 1, 0]))
    assert float(reversed_order) == pytest.approx(-3000)
    shifted = plackett_luce_log_prob(normal(6) + 1e6, torch.arange(4))
    original = plackett_luce_log_prob(normal(6), torch.arange(4))
    torch.testing.assert_close(shifted, original, atol=1e-8, rtol=0)


def chi_square(drawn, logits):
    """p-value of the frequencies of ordered draws against their probabilities."""
    orders = list(itertools.permutations(range(len(logits)), drawn.shape[1]))
    counts = dict.fromkeys(orders, 0)
    for row in drawn.tolist():
        counts[tuple(row)] += 1
    p = [sequential_probability(logits, list(order)) for order in orders]
    expected = [len(drawn) * q / sum(p) for q in p]
    return stats.chisquare(list(counts.values()), expected).pvalue


def test_gumbel_top_k_draws_with_plackett_luce_frequencies():
    logits = normal(5)
    drawn = gumbel_top_k(logits.expand(20_000, 5), 3, generator=seeded(0))
    assert chi_square(drawn, logits) > 1e-3
    assert chi_square(drawn.sort(1).values, logits) < 1e-12  # the order matters
    uniform = gumbel_top_k(torch.zeros(20_000, 5), 3, generator=seeded(0))
    assert chi_square(uniform, logits) < 1e-12


def homogeneity(first, second, m):
    """p-value of two samples of ordered pairs of `m` items being alike."""
    counts = [
        torch.bincount(x[:, 0] * m + x[:, 1], minlength=m * m) for x in (first, second)
    ]
    table = torch.stack(counts)
    return stats.chi2_contingency(table[:, table.sum(0) > 0].numpy()).pvalue


def test_gumbel_top_k_has_the_frequencies_of_multinomial():
    logits = normal(4)
    weights = logits.exp().expand(20_000, 4)
    oracle = torch.multinomial(weights, 2, generator=seeded(3))
    drawn = gumbel_top_k(logits.expand(20_000, 4), 2, generator=seeded(4))
    assert homogeneity(drawn, oracle, 4) > 1e-3
    assert homogeneity(drawn.flip(1), oracle, 4) < 1e-12


def test_an_item_of_weight_zero_comes_after_all_others():
    logits = torch.tensor([0.0, -math.inf, -5.0])
    drawn = gumbel_top_k(logits.expand(1000, 3), 3, generator=seeded(0))
    assert (drawn[:, 2] == 1).all()


def test_same_generator_gives_the_same_draw_and_distinct_rows():
    logits = normal(50)
    first = gumbel_top_k(logits, 20, generator=seeded(7))
    assert torch.equal(first, gumbel_top_k(logits, 20, generator=seeded(7)))
    assert len(set(first.tolist())) == 20


@given(SEEDS, st.integers(2, 7), st.data())
def test_closed_gradient_is_that_of_autograd_and_sums_to_zero(seed, m, data):
    k = data.draw(st.integers(1, m))
    logits = (2 * normal(m, seed=seed)).requires_grad_()
    ordered = gumbel_top_k(logits, k, generator=seeded(seed))
    log_prob = plackett_luce_log_prob(logits, ordered)
    (autograd,) = torch.autograd.grad(log_prob, logits)
    closed = plackett_luce_gradient(logits, ordered)
    torch.testing.assert_close(closed, autograd, atol=1e-9, rtol=1e-9)
    assert abs(float(closed.sum())) < 1e-9


@pytest.mark.parametrize("S", [(0,), (1, 3), (0, 2, 4), (0, 1, 2, 3, 4)])
def test_probability_of_a_set_is_the_sum_over_its_orders(S):
    logits = normal(5)
    orders = torch.tensor(list(itertools.permutations(S)))
    of_orders = plackett_luce_log_prob(logits, orders).logsumexp(0)
    of_set = plackett_luce_set_log_prob(logits, torch.tensor(S))
    torch.testing.assert_close(of_set, of_orders)


def test_probability_of_a_set_is_the_integral_over_exponential_times():
    weight = normal(7).exp()
    Z = float(weight[3:].sum())

    def density(t):
        inside = math.prod(1 - math.exp(-w * t) for w in weight[:3].tolist())
        return Z * math.exp(-Z * t) * inside

    P = plackett_luce_set_log_prob(weight.log(), torch.arange(3)).exp()
    assert float(P) == pytest.approx(integrate.quad(density, 0, math.inf)[0], abs=1e-8)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (check_k, (0, 3), "k is 0; give a number of rows from 1 to 3"),
        (selected_rows, (torch.zeros(3), 4), "k is 4; give a number"),
        (plackett_luce_log_prob, (torch.zeros(3), torch.tensor([3])), "outside"),
        (plackett_luce_log_prob, (torch.zeros(3), torch.tensor([1, 1])), "twice"),
        (plackett_luce_gradient, (torch.zeros(3), torch.tensor([-1])), "outside"),
        (plackett_luce_set_log_prob, (torch.zeros(20), torch.arange(13)), "at most 12"),
        (plackett_luce_set_log_prob, (torch.zeros(3), torch.tensor([1, 1])), "twice"),
        (plackett_luce_gradient, (torch.zeros(3), torch.tensor([1, 1])), "twice"),
        (selected_rows, (torch.tensor([0, math.nan, 1]), 1), "scores holds a NaN"),
        (RowPolicy().select, (torch.eye(3), 0), "k is 0; give a number"),
        (RowPolicy().select, (torch.zeros(3, 3), 1), "at least two rows"),
        (RowPolicy, (torch.zeros(5),), "6 finite numbers"),
        (RowPolicy, (torch.full((6,), math.inf),), "6 finite numbers"),
    ],
)
def test_wrong_arguments_are_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_gumbel_top_k_rejects_more_items_than_there_are():
    with pytest.raises(ValueError, match="k is 4"):
        gumbel_top_k(torch.zeros(3), 4, generator=seeded(0))


def test_a_nan_is_drawn_neither_as_a_logit_nor_as_a_score():
    scores = torch.tensor([[0.0, 1.0], [math.nan, 1.0]])
    with pytest.raises(ValueError, match="logits holds a NaN; give scores that can be"):
        gumbel_top_k(scores, 1, generator=seeded(0))
    with pytest.raises(ValueError, match="scores holds a NaN; give scores that can be"):
        selected_rows(scores[1], 1, generator=seeded(0))


# the policy and its file


def test_policy_without_weights_draws_every_row_equally_often():
    W, generator = normal(6, 3), seeded(0)
    counts = torch.zeros(6)
    for _ in range(600):
        counts[RowPolicy().select(W, 2, generator=generator)] += 1
    # inclusions of one draw are negatively correlated: the statistic is conservative
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_select_keeps_the_top_rows_in_ascending_order_and_ties_by_index():
    W = torch.diag(torch.tensor([1.0, 5.0, 2.0, 4.0, 3.0]))
    kept = RowPolicy(torch.tensor([1.0, 0, 0, 0, 0, 0])).select(W, 3)
    assert kept.tolist() == [1, 3, 4] and kept.dtype == torch.int64
    assert selected_rows(torch.zeros(5), 3).tolist() == [0, 1, 2]


def test_policy_file_returns_weights_and_metadata_and_has_the_same_bytes_twice(
    tmp_path,
):
    policy = RowPolicy(normal(6))
    for name in ("a", "b"):
        save_policy(policy, tmp_path / name, {"ratio": 0.3, "seed": 1})
    assert torch.equal(load_policy(tmp_path / "a").weights, policy.weights)
    assert policy_metadata(tmp_path / "a") == {"ratio": 0.3, "seed": 1}
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_failed_save_leaves_the_older_policy(tmp_path):
    path = tmp_path / "policy"
    save_policy(RowPolicy(), path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_policy(RowPolicy(torch.ones(6)), path, {"generator": object()})
    with pytest.raises(TypeError, match="give a RowPolicy"):
        save_policy(torch.nn.Linear(2, 2), path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_load_policy_rejects_other_files_and_says_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_policy(tmp_path / "missing")
    (tmp_path / "text").write_text(json.dumps({"weights": 1}))
    with pytest.raises(ValueError, match="no safetensors file"):
        load_policy(tmp_path / "text")
    save_file({"weights": torch.zeros(6)}, tmp_path / "other")
    with pytest.raises(ValueError, match="holds no row policy"):
        load_policy(tmp_path / "other")


def test_figure_has_one_line_for_each_start():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert plot_keep_probabilities(ax, {"a": torch.rand(9), "b": torch.rand(9)}) is ax
    assert len(ax.patches) == 2
