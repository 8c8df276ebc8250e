"""Claims of the chapter `pruning/functional_policy`."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import ks_2samp, spearmanr

from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.functional_policy import (
    EnergySlices,
    FunctionalLayer,
    FunctionalPolicy,
    FunctionalSlices,
    fisher_costs,
    functional_distances,
    functional_layers,
    surgeon_energies,
    train_functional,
    uneven_ratios,
)
from prunefair.pruning.perplexity import random_llama
from prunefair.pruning.policy_gradient import all_selections, leave_one_out
from prunefair.pruning.row_policy import (
    RowPolicy,
    gumbel_top_k,
    load_policy,
    plackett_luce_gradient,
    plackett_luce_set_log_prob,
    save_policy,
)
from prunefair.pruning.self_moments import (
    Moments,
    down_projections,
    hidden_moments,
    lost_energy,
    removed_neurons,
)
from prunefair.pruning.surgery import ADAPTERS, tiny_model

ROOT = Path(__file__).parents[2]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(seed=0, m=9, d=5):
    """D, and hidden vectors far from isotropic, with their moment."""
    D = torch.randn(d, m, generator=seeded(seed), dtype=torch.float64)
    h = torch.randn(40, m, generator=seeded(seed + 1), dtype=torch.float64)
    h = h @ torch.randn(m, m, generator=seeded(seed + 2), dtype=torch.float64) + 0.5
    h = h * torch.logspace(-1, 1, m, dtype=torch.float64)
    return D, h, h.T @ h / len(h)


def layer(seed=0, m=9, d=5):
    D, _, H = problem(seed, m, d)
    fisher = torch.rand(m, generator=seeded(seed + 3)) + 0.1
    return FunctionalLayer(D, H, fisher)


# Fisher costs against divergences that are computed by enumeration


def log_probabilities(model, texts):
    """Log-probability of every text given its first token."""
    with torch.no_grad():
        steps = model(texts).logits.double().log_softmax(-1)
    length = texts.shape[1]
    return sum(steps[range(len(texts)), t, texts[:, t + 1]] for t in range(length - 1))


def enumerated(model):
    """All texts of four tokens that begin with token 0."""
    size = range(model.config.vocab_size)
    return torch.tensor([(0, *rest) for rest in itertools.product(size, repeat=3)])


def divergence(model, texts, before, linear, positions, neuron, epsilon):
    """KL from the model to the one with a neuron scaled at some positions."""

    def scale(_, inputs):
        h = inputs[0].reshape(*texts.shape, -1).clone()
        h[:, positions, neuron] *= 1 - epsilon
        return (h.reshape(inputs[0].shape),)

    hook = linear.register_forward_pre_hook(scale)
    change = log_probabilities(model, texts) - before
    hook.remove()
    # sum of p log(p / q), and of q - p, which is zero: so rounding does not add up
    return float(before.exp() @ (change.expm1() - change))


def curvature(small, *arguments, epsilon=1e-2):
    """Second derivative of the divergence; the two signs take out the cubic term."""
    both = [divergence(*small, *arguments, e) for e in (epsilon, -epsilon)]
    return sum(both) / epsilon**2


def expected_costs(model, texts, before, **options):
    """Fisher costs under the exact distribution of the texts."""
    p = before.exp()
    costs = [torch.stack(fisher_costs(model, t[None], **options)) for t in texts]
    return sum(w * c.double() for w, c in zip(p, costs, strict=True))  # (L, m)


@pytest.fixture(scope="module")
def small():
    model = random_llama(vocabulary=5, hidden=4, scale=0.7, generator=seeded(3))
    texts = enumerated(model)
    before = log_probabilities(model, texts)
    assert abs(before.exp().sum() - 1) < 1e-9  # no text was left out
    return model, texts, before


def test_fisher_costs_are_the_curvature_of_the_divergence_by_enumeration(small):
    model, texts, _ = small
    found = expected_costs(*small)
    for number, linear in enumerate(down_projections(model)):
        for j in range(linear.in_features):
            at_one = [curvature(small, linear, [t], j) for t in range(4)]
            assert at_one[3] == 0  # after the last token nothing is said
            assert float(found[number, j]) == pytest.approx(sum(at_one) / 4, rel=3e-3)


def test_later_positions_are_part_of_the_cost_and_not_only_the_next_token(small):
    model, texts, _ = small
    linear = down_projections(model)[0]  # attention of the second layer reads it
    begun = texts[:, :2].unique(dim=0)
    next_token = model, begun, log_probabilities(model, begun)
    whole, part = (
        np.array([curvature(s, linear, [0], j) for j in range(8)])
        for s in (small, next_token)
    )
    assert (part < 1.01 * whole).all()  # data processing
    assert (part < 0.9 * whole).any()


def test_costs_of_all_positions_at_once_hold_the_cross_terms(small):
    together = expected_costs(*small, together=True)
    apart = expected_costs(*small)
    for number, linear in enumerate(down_projections(small[0])):
        for j in (0, 3, 5):
            exact = curvature(small, linear, [0, 1, 2, 3], j) / 4
            assert float(together[number, j]) == pytest.approx(exact, rel=3e-3)
    assert (together / apart - 1).abs()[0].max() > 0.05  # the two are not the same
    # after the last block no position is read by another: no cross terms
    torch.testing.assert_close(together[1], apart[1], rtol=1e-4, atol=0)


def test_the_identity_needs_the_models_own_texts(small):
    model, texts, _ = small
    found = expected_costs(*small)
    other = torch.stack(fisher_costs(model, texts)).double()  # all texts alike
    assert ((other / found - 1).abs() > 0.05).double().mean() > 0.5


def test_the_mean_score_is_zero_on_the_models_own_texts(small):
    # so that the mean of squares is a variance, and a Fisher information
    model, texts, before = small
    p = before.exp()
    linear = down_projections(model)[1]
    x = linear.weight.detach().clone().requires_grad_(True)
    scores = []
    for text in texts:
        steps = torch.func.functional_call(
            model, {"model.layers.1.mlp.down_proj.weight": x}, (text[None],)
        ).logits.log_softmax(-1)
        ll = sum(steps[0, t, text[t + 1]] for t in range(3))
        scores.append((torch.autograd.grad(ll, x)[0] * x.detach()).sum(0))
    # the gradient in a column of D, times it, is the sum of c over positions
    scores = torch.stack(scores)
    assert (p @ scores).abs().max() < 1e-6 < 1e-3 < scores.abs().mean()
    together = expected_costs(*small, together=True)[1]
    torch.testing.assert_close(p @ scores**2 / 4, together, rtol=1e-4, atol=0)


@pytest.mark.parametrize("family", ADAPTERS)
def test_every_family_has_the_same_costs_in_any_batch(family):
    model = tiny_model(family, generator=seeded(), dtype=torch.float64)
    texts = torch.randint(3, 32, (5, 6), generator=seeded(1))
    for together in (False, True):
        whole = fisher_costs(model, texts, batch_size=8, together=together)
        parts = [fisher_costs(model, t[None], together=together) for t in texts]
        for number, costs in enumerate(whole):
            assert costs.shape == (12,) and costs.dtype == torch.float32
            mean = torch.stack([p[number] for p in parts]).mean(0)
            torch.testing.assert_close(costs, mean, rtol=1e-4, atol=1e-10)
            assert (costs >= 0).all() and (costs > 0).any()


def test_costs_leave_the_model_as_it_was_even_after_an_error():
    model = tiny_model("llama", generator=seeded())
    frozen = next(model.parameters()).requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    texts = torch.randint(3, 32, (2, 6), generator=seeded(1))
    fisher_costs(model, texts)
    with pytest.raises(IndexError):
        fisher_costs(model, texts + 100)  # no such token
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old) and p.grad is None
        assert p.requires_grad == (p is not frozen)
    for linear in down_projections(model):
        assert not linear._forward_hooks
    for bad in (texts[0], texts[:, :1], texts[:0]):
        with pytest.raises(ValueError, match="texts has shape"):
            fisher_costs(model, bad)


# features


def test_surgeon_energy_is_the_residual_of_a_regression_on_the_other_neurons():
    D, h, H = problem()
    energy, surgeon = surgeon_energies(D, H, ridge=0.05)
    damping = 0.05 * H.diagonal().mean() * len(h)
    rows = torch.cat([h, damping.sqrt() * torch.eye(9)])  # ridge as more data
    for j in range(9):
        others = [i for i in range(9) if i != j]
        _, residual, *_ = np.linalg.lstsq(rows[:, others], rows[:, j])
        expected = float(residual[0]) / len(h) * float(D[:, j].square().sum())
        assert float(surgeon[j]) == pytest.approx(expected, rel=1e-8)
        alone = (h[:, j, None] * D[:, j]).square().sum(1).mean()
        torch.testing.assert_close(energy[j], alone)
    damped = energy + damping / len(h) * D.square().sum(0)
    assert (surgeon <= damped).all()


def test_a_neuron_that_others_can_replace_has_no_surgeon_energy():
    D, h, _ = problem()
    h[:, 4] = h[:, 1] - 2 * h[:, 3]
    energy, surgeon = surgeon_energies(D, h.T @ h / 40, ridge=1e-9)
    assert surgeon[4] < 1e-5 * energy[4] and surgeon[0] > 1e-3 * energy[0]


def test_features_are_standardised_logarithms_and_survive_dead_neurons():
    one = layer()
    one.H[2], one.H[:, 2], one.fisher[2] = 0, 0, 0  # a neuron that is never active
    F = one.features
    assert F.shape == (9, 6) and F.dtype == torch.float64 and F.isfinite().all()
    torch.testing.assert_close(F.mean(0), torch.zeros(6).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(F.std(0, correction=0), torch.ones(6).double())
    assert F[:, 0].argmin() == 2 == F[:, 2].argmin()
    plain = layer(5)
    logs = plain.fisher.double().log().numpy()
    z = (logs - logs.mean()) / logs.std()
    np.testing.assert_allclose(plain.features[:, 2], z, rtol=1e-10)
    scaled = FunctionalLayer(3 * plain.D, 5 * plain.H, 7 * plain.fisher)
    torch.testing.assert_close(scaled.features, plain.features)  # units do not matter


def test_a_layer_of_other_shapes_is_refused():
    D, _, H = problem()
    with pytest.raises(ValueError, match=r"D, H and fisher have shapes \(5, 9\)"):
        FunctionalLayer(D, H[:8], torch.ones(9))
    with pytest.raises(ValueError, match=r"must be \(d, m\), \(m, m\) and \(m,\)"):
        FunctionalLayer(D, H, torch.ones(8))


def test_bad_ridges_and_dead_layers_are_named():
    D, _, H = problem()
    for ridge in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ridge is"):
            surgeon_energies(D, H, ridge=ridge)
    with pytest.raises(ValueError, match=r"H has a mean square of 0\.0"):
        surgeon_energies(D, 0 * H)
    dead = FunctionalLayer(D, 0 * H, torch.zeros(9))
    with pytest.raises(ValueError, match=r"H has a mean square of 0\.0"):
        FunctionalSlices(dead)
    with pytest.raises(ValueError, match=r"layer has the output energy 0\.0"):
        EnergySlices(dead)
    with pytest.raises(ValueError, match=r"H has a mean square of 0\.0"):
        train_functional([layer(), dead], 0.3, generator=seeded(), episodes=1)
    (distance,) = functional_distances([dead], [torch.arange(4)])
    assert distance == 0  # nothing before, nothing after
    cancelling = torch.tensor([[1.0, -1], [-1, 1]])  # active, and no output
    silent = FunctionalLayer(torch.ones(1, 2), cancelling, torch.ones(2))
    with pytest.raises(ValueError, match=r"layer has the output energy 0\.0"):
        EnergySlices(silent)
    assert FunctionalSlices(silent)(torch.tensor([0])) == 1


def test_layers_of_a_model_belong_together():
    model = tiny_model("opt", generator=seeded(), dtype=torch.float64)
    texts = torch.randint(3, 32, (4, 6), generator=seeded(1))
    moments, fisher = hidden_moments(model, texts), fisher_costs(model, texts)
    found = functional_layers(model, moments, fisher)
    for one, linear, H, f in zip(
        found, down_projections(model), moments.second, fisher, strict=True
    ):
        assert torch.equal(one.D, linear.weight) and len(one) == 12
        assert torch.equal(one.H, H) and torch.equal(one.fisher, f)
        assert not one.D.requires_grad
    for less in (
        (Moments(moments.second[:1], moments.mean[:1], 24), fisher),
        (moments, fisher[:1]),
    ):
        with pytest.raises(ValueError, match="the model has 2 layers, moments"):
            functional_layers(model, *less)


# penalties


def svd_distance(one, kept):
    """KS distance by SciPy, of singular values of products with matrix roots."""
    spectra = []
    for S in (range(len(one)), kept.tolist()):
        S = list(S)
        A = one.D[:, S].numpy() @ sqrtm(one.H[S][:, S].numpy()).real
        spectra.append(np.linalg.svd(A, compute_uv=False))
    return ks_2samp(*spectra, method="asymp").statistic


@pytest.mark.parametrize("k", [2, 4, 7])
def test_the_functional_penalty_is_scipys_on_spectra_by_svd(k):
    one, draws = (
        layer(),
        torch.stack([torch.randperm(9, generator=seeded(i)) for i in range(6)]),
    )
    kept = draws[:, :k].reshape(2, 3, k)
    for dtype in (torch.float32, torch.float64):
        found = FunctionalSlices(one, dtype=dtype)(kept)
        assert found.shape == (2, 3)
        for place in itertools.product(range(2), range(3)):
            expected = svd_distance(one, kept[place])
            assert float(found[place]) == pytest.approx(expected, abs=1e-12)
            (exact,) = functional_distances([one], [kept[place]])
            assert float(exact) == pytest.approx(expected, abs=1e-12)


def test_keeping_all_costs_nothing_and_a_common_factor_changes_nothing():
    one, kept = layer(), torch.tensor([0, 2, 3, 7])
    large = FunctionalLayer(1e3 * one.D, 1e12 * one.H, one.fisher)
    for penalty in (FunctionalSlices, EnergySlices):
        assert penalty(one)(torch.arange(9)) == 0
        a, b = (penalty(x)(kept) for x in (one, large))
        torch.testing.assert_close(a, b)


def test_the_energy_penalty_is_the_share_of_the_lost_energy():
    one, draws = (
        layer(),
        torch.stack([torch.randperm(9, generator=seeded(i)) for i in range(6)]),
    )
    found = EnergySlices(one)(draws[:, :4].reshape(2, 3, 4))
    total = lost_energy(one.D, one.H, range(9))
    for share, row in zip(found.flatten(), draws, strict=True):
        lost = lost_energy(one.D, one.H, removed_neurons(row[:4], 9))
        torch.testing.assert_close(share, lost / total)
        kept = lost_energy(one.D, one.H, row[:4])
        assert abs(share - kept / total) > 1e-6  # the wrong side is found out
    assert EnergySlices(one)(draws[0, :4]).shape == ()


# training


@pytest.mark.parametrize("penalty", [FunctionalSlices, EnergySlices])
def test_the_gradient_is_that_of_the_expected_penalty_by_enumeration(penalty):
    one = layer(m=7, d=4)
    policy = FunctionalPolicy(0.4 * torch.randn(6, generator=seeded(8)))
    slices, sets = penalty(one), all_selections(7, 4)
    logs = torch.stack(
        [plackett_luce_set_log_prob(policy.scores(one), S) for S in sets]
    )
    d = slices(sets)
    (exact,) = torch.autograd.grad(logs.exp() @ d, policy.weights)
    logits = policy.scores(one).detach()
    draws = gumbel_top_k(logits.expand(4000, 2, -1), 4, generator=seeded(9))
    charged = torch.stack([d[index_of(sets, draw)] for draw in draws.reshape(-1, 4)])
    advantages = leave_one_out(charged.reshape(4000, 2).T).T
    scores = plackett_luce_gradient(logits, draws) @ one.features
    samples = (advantages[..., None] * scores).mean(1)
    z = (samples.mean(0) - exact) / (samples.std(0) / 4000**0.5)
    assert z.abs().max() < 4.2  # six components, once in 6000 times


def index_of(sets, draw):
    return int((sets == draw.sort().values).all(1).nonzero())


def test_training_takes_the_first_step_that_the_draws_dictate():
    layers = [layer(0), layer(5)]
    trained = train_functional(
        layers, 0.4, generator=seeded(1), episodes=1, learning_rate=0.3
    )
    generator, gradient, seen = seeded(1), 0, []
    draws = [gumbel_top_k(torch.zeros(2, 9), 5, generator=generator) for _ in layers]
    for number, (one, drawn) in enumerate(zip(layers, draws, strict=True)):
        d = torch.tensor([svd_distance(one, S) for S in drawn.sort(-1).values])
        seen.append(d.mean())
        p = plackett_luce_gradient(torch.zeros(9), drawn) @ one.features
        gradient += 0.99**number * ((d - d.flip(0))[:, None] * p).mean(0)
    assert trained.history == pytest.approx([float(sum(seen) / 2)])
    step = -0.3 * gradient.sign()  # the first step of Adam
    torch.testing.assert_close(trained.policy.weights.detach(), step, rtol=1e-4, atol=0)
    assert isinstance(trained.policy, FunctionalPolicy)


@pytest.mark.parametrize("penalty", [FunctionalSlices, EnergySlices])
def test_training_lowers_the_expected_penalty(penalty):
    layers = [layer(seed, m=8, d=6) for seed in (0, 5, 10)]
    options = {"penalty": penalty, "episodes": 12, "draws": 4}
    policy = train_functional(layers, 0.5, generator=seeded(), **options).policy

    def expected(policy):
        sets, total = all_selections(8, 4), 0
        for one in layers:
            scores = policy.scores(one).detach()
            p = torch.stack([plackett_luce_set_log_prob(scores, S) for S in sets]).exp()
            total += float(p @ penalty(one)(sets)) / 3
        return total

    assert expected(policy) < 0.95 * expected(FunctionalPolicy())


def test_a_functional_policy_is_kept_in_a_file_of_its_kind(tmp_path):
    policy = FunctionalPolicy(torch.arange(6.0))
    save_policy(policy, tmp_path / "policy")
    again = load_policy(tmp_path / "policy", FunctionalPolicy)
    assert isinstance(again, FunctionalPolicy)
    assert torch.equal(again.weights, policy.weights)
    with pytest.raises(ValueError, match="log_energy.*; a RowPolicy sees log_norm"):
        load_policy(tmp_path / "policy")
    save_policy(RowPolicy(), tmp_path / "rows")
    with pytest.raises(ValueError, match="a FunctionalPolicy sees log_energy"):
        load_policy(tmp_path / "rows", FunctionalPolicy)
    with pytest.raises(ValueError, match="give 6 finite numbers"):
        FunctionalPolicy(torch.ones(5))


# widths

sizes = st.lists(st.integers(4, 9), min_size=1, max_size=4)


def layers_of_costs(sizes, seed, ties):
    generator = seeded(seed)
    top = 4 if ties else 10**6
    return [torch.randint(top, (m,), generator=generator).double() for m in sizes]


@settings(max_examples=100, deadline=None)
@given(
    sizes,
    st.integers(0, 49),
    st.tuples(st.integers(0, 70), st.integers(0, 50)),
    st.integers(0, 99),
    st.booleans(),
)
@example([5, 5], 30, (50, 0), 0, False)
@example([9, 9], 30, (50, 12), 0, False)
def test_the_total_is_kept_and_no_layer_loses_more_or_less_than_the_bounds(
    sizes, percent, bounds, seed, ties
):
    ratio, (most, least) = percent / 100, (bound / 100 for bound in bounds)
    costs = layers_of_costs(sizes, seed, ties)
    ratios = uneven_ratios(costs, ratio, most=most, least=least)
    kept = [rows_to_keep(m, r) for m, r in zip(sizes, ratios, strict=True)]
    assert sum(kept) == sum(rows_to_keep(m, ratio) for m in sizes)
    few = [rows_to_keep(m, max(most, ratio)) for m in sizes]
    many = [rows_to_keep(m, min(least, ratio)) for m in sizes]
    assert all(a <= k <= b for a, k, b in zip(few, kept, many, strict=True))
    # where a layer is not at its bound, what stays is as dear as anything that goes
    # from a layer that is not at the other
    layers = [*zip(costs, kept, many, strict=True)]
    gone = [c.sort().values[: len(c) - k] for c, k, b in layers if k < b]
    dearest = max((float(g.max()) for g in gone), default=-1.0)
    for c, k, a in zip(costs, kept, few, strict=True):
        if k > a:
            assert float(c.sort(descending=True).values[:k].min()) >= dearest


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(2, 5), min_size=2, max_size=3),
    st.sampled_from([0.2, 0.34, 0.4]),
    st.sampled_from([0.0, 0.2, 0.34]),
    st.integers(0, 99),
)
def test_no_other_widths_of_the_same_total_have_a_smaller_sum_of_costs(
    sizes, ratio, least, seed
):
    costs = layers_of_costs(sizes, seed, False)
    total = sum(rows_to_keep(m, ratio) for m in sizes)

    def cheapest(widths):
        return sum(
            float(c.sort().values[: len(c) - k].sum())
            for c, k in zip(costs, widths, strict=True)
        )

    most = [rows_to_keep(m, min(least, ratio)) for m in sizes]
    ranges = [range(rows_to_keep(m, 0.5), k + 1) for m, k in zip(sizes, most)]
    feasible = [w for w in itertools.product(*ranges) if sum(w) == total]
    ratios = uneven_ratios(costs, ratio, least=least)
    found = [rows_to_keep(m, r) for m, r in zip(sizes, ratios, strict=True)]
    assert cheapest(found) == min(map(cheapest, feasible))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(4, 7), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7]),
    st.integers(1, 4),
    st.integers(0, 2**31),
)
def test_widths_in_groups_are_the_best_of_all_multiples_within_the_budget(
    sizes, ratio, multiple, seed
):
    generator = torch.Generator().manual_seed(seed)
    costs = [torch.rand(m, generator=generator).double() for m in sizes]
    ratios = uneven_ratios(costs, ratio, multiple=multiple)
    found = tuple(rows_to_keep(m, r) for m, r in zip(sizes, ratios, strict=True))
    budget = sum(rows_to_keep(m, ratio) for m in sizes)
    if ratio == 0:
        assert found == tuple(sizes)
        return
    assert not any(width % multiple for width in found)
    least = [
        max(rows_to_keep(m, max(ratio, 0.5)) // multiple, 1) * multiple for m in sizes
    ]
    if sum(least) >= budget:
        assert found == tuple(least)
        return
    assert budget - multiple < sum(found) <= budget or found == tuple(
        m // multiple * multiple for m in sizes
    )

    def lost(widths):
        pairs = zip(costs, widths, strict=True)
        return sum(float(c.sort().values[: len(c) - k].sum()) for c, k in pairs)

    others = itertools.product(
        *(range(a, m + 1, multiple) for a, m in zip(least, sizes))
    )
    best = min(lost(w) for w in others if sum(w) <= budget)
    assert lost(found) == pytest.approx(best, abs=1e-12)


def test_a_group_larger_than_a_layer_is_refused():
    costs = [torch.rand(5), torch.rand(9)]
    for multiple in (0, 6, 1.5, -1):
        with pytest.raises(ValueError, match=f"multiple is {multiple}; give a whole"):
            uneven_ratios(costs, 0.3, multiple=multiple)


def test_equal_costs_at_the_bound_and_bad_shares():
    costs = [torch.arange(10.0), 100 + torch.arange(10.0)]
    assert uneven_ratios(costs, 0.3) == [0.5, 0.1]
    assert uneven_ratios(costs, 0.3, most=0.3) == [0.3, 0.3]
    assert uneven_ratios(costs, 0.3, most=0.1) == [0.3, 0.3]
    assert uneven_ratios(costs, 0.0) == [0.0, 0.0]
    assert uneven_ratios(costs, 0.4, most=0.7) == [0.7, 0.1]
    assert uneven_ratios(costs, 0.3, least=0.2) == [0.4, 0.2]
    assert uneven_ratios(costs, 0.3, least=0.5) == [0.3, 0.3]
    with pytest.raises(ValueError, match="ratio is -0.1"):
        uneven_ratios(costs, -0.1)
    with pytest.raises(ValueError, match=r"most is 1.5; give a share in \[0, 1\)"):
        uneven_ratios(costs, 0.3, most=1.5)
    with pytest.raises(ValueError, match=r"least is -0.1; give a share in \[0, 1\)"):
        uneven_ratios(costs, 0.3, least=-0.1)
    with pytest.raises(ValueError, match="costs is empty"):
        uneven_ratios([], 0.3)


# the stored study


@pytest.fixture(scope="module")
def table():
    return json.loads((ROOT / "book/results/functional_policy.json").read_text())


def test_within_a_ratio_the_functional_spectrum_ranks_the_stored_models(table):
    assert [len(at) for at in table["selections"].values()] == [22, 22, 22]
    for at in table["selections"].values():
        damage = [np.mean(row["kl"]) for row in at.values()]
        ranks = {
            name: spearmanr([row[name] for row in at.values()], damage).statistic
            for name in ("raw KS", "functional KS")
        }
        assert ranks["raw KS"] < 0 < 0.9 < ranks["functional KS"]


def test_stored_policies_by_the_bounded_penalty_are_better_for_every_seed(table):
    by_name = {
        name: [np.mean(run["kl"]) for run in runs.values()]
        for name, runs in table["outlier"].items()
    }
    bounded = by_name.pop("functional KS")
    assert len(bounded) == 3
    assert max(bounded) < min(min(kls) for kls in by_name.values())
    energy = np.mean(table["selections"]["0.3"]["energy"]["kl"])
    assert max(bounded) < energy


def test_stored_uneven_widths_are_better_and_keep_the_total(table):
    rows = [(float(r), row) for at in table["widths"].values() for r, row in at.items()]
    assert len(rows) == 7
    for ratio, row in rows:
        assert np.mean(row["uneven"]["kl"]) < np.mean(row["equal"]["kl"])
        kept = sum(rows_to_keep(1536, r) for r in row["ratios"])
        assert kept == 30 * rows_to_keep(1536, ratio) and max(row["ratios"]) <= 0.5
