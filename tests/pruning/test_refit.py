"""The re-fit against least-squares solvers on the hidden vectors themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefair.pruning.refit import (
    RIDGES,
    choose_ridge,
    find_ridge,
    mean_moments,
    moment_about,
    output_error,
    refit_,
    refit_down,
    ridge_errors,
    ridge_layers,
    solved_errors,
)
from prunefair.pruning.self_moments import Moments, down_projections, hidden_moments
from prunefair.pruning.surgery import (
    ADAPTERS,
    mask_ffn_,
    prune_rows,
    slice_ffn_,
    tiny_model,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def vectors(seed, n=60, m=9, d=5):
    """D, and n hidden vectors of very different sizes that are not centred."""
    D = torch.randn(d, m, generator=seeded(seed), dtype=torch.float64)
    mix = torch.randn(m, m, generator=seeded(seed + 1), dtype=torch.float64)
    h = torch.randn(n, m, generator=seeded(seed + 2), dtype=torch.float64) @ mix + 0.7
    return D, h * torch.logspace(-1, 1, m, dtype=torch.float64)


def moments_of(h):
    return h.T @ h / len(h), h.mean(0)


def by_solver(D, h, kept, ridge, constant=False):
    """Weight (d, k) and constant (d,) by plain least squares on appended rows."""
    D, h, kept = D.numpy(), h.numpy(), list(kept)
    sizes = h[:, kept].var(0) if constant else (h[:, kept] ** 2).mean(0)
    sizes[sizes == 0] = 1  # a dead neuron stays where it was
    pull = np.diag(np.sqrt(len(h) * ridge * sizes))
    rows = np.vstack([h[:, kept], pull])
    goal = np.vstack([h @ D.T, pull @ D[:, kept].T])
    if constant:
        ones = np.r_[np.ones(len(h)), np.zeros(len(kept))]
        rows = np.column_stack([rows, ones])
    solution = scipy.linalg.lstsq(rows, goal)[0]
    return solution[: len(kept)].T, solution[-1] if constant else None


def error_on(h, D, kept, weight, shift=0.0):
    """Mean squared error of the output, one vector after the other."""
    S = torch.as_tensor(kept)
    errors = [((weight @ x[S] + shift - D @ x) ** 2).sum() for x in h]
    return sum(errors) / len(errors)


# one block


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("ridge", [1e-4, 0.3, 10.0])
@pytest.mark.parametrize("kept", [[0, 2, 3, 7], [5], [8, 1, 4, 0, 2, 6]])
def test_the_closed_form_is_what_a_solver_finds_on_the_vectors(kept, ridge, constant):
    D, h = vectors(3)
    H, mean = moments_of(h)
    S = torch.tensor(kept)
    found = refit_down(D, H, S, ridge=ridge, mean=mean if constant else None)
    weight, shift = by_solver(D, h, kept, ridge, constant)
    np.testing.assert_allclose(found.weight, weight, rtol=1e-7, atol=1e-9)
    assert found.weight.dtype == torch.float64
    if constant:
        np.testing.assert_allclose(found.shift, shift, rtol=1e-7, atol=1e-9)
    else:
        assert found.shift is None
        error = error_on(h, D, kept, found.weight) / error_on(h, D, [0], 0 * D[:, :1])
        torch.testing.assert_close(output_error(D, H, S, found.weight), error)


def test_without_a_ridge_the_schur_complement_is_left():
    D, h = vectors(8)
    H, _ = moments_of(h)
    S, R = [0, 3, 4, 6, 8], [1, 2, 5, 7]
    schur = np.linalg.inv(np.linalg.inv(H.numpy())[np.ix_(R, R)])  # by block inversion
    left = np.trace(D[:, R].numpy() @ schur @ D[:, R].numpy().T)
    weight = refit_down(D, H, torch.tensor(S), ridge=1e-11).weight
    assert float(error_on(h, D, S, weight)) == pytest.approx(left, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(2, 30))
def test_on_its_own_vectors_the_fit_never_errs_more_than_the_slice(seed, k, n):
    D, h = vectors(seed, n)
    H, mean = moments_of(h)
    order = torch.randperm(9, generator=seeded(seed))
    S = order[:k].sort().values
    errors = [output_error(D, H, S, D[:, S])]
    for ridge in (10.0, 1.0, 0.1, 1e-3, 1e-6):
        errors.append(output_error(D, H, S, refit_down(D, H, S, ridge=ridge).weight))
    slack = 1e-9 * (1 + float(errors[0]))
    assert all(b <= a + slack for a, b in zip(errors, errors[1:], strict=False))
    more = order[: k + 1]  # one more neuron can only help, where the ridge is none
    fit = refit_down(D, H, more, ridge=1e-6).weight
    assert output_error(D, H, more, fit) <= errors[-1] + 1e-4
    free = refit_down(D, H, S, ridge=1e-6, mean=mean)
    free = error_on(h, D, S, *free) / error_on(h, D, S, 0 * D[:, S])
    assert free <= errors[-1] + 1e-4


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_how_the_neurons_are_scaled_ordered_and_shifted_does_not_matter(seed, constant):
    D, h = vectors(seed)
    a = torch.rand(9, generator=seeded(seed + 5)).double() * 4 - 2.2
    order = torch.randperm(9, generator=seeded(seed + 6))
    S = torch.tensor([0, 2, 5, 6])

    def fit(D, h, kept):
        H, mean = moments_of(h)
        return refit_down(D, H, kept, ridge=0.2, mean=mean if constant else None)

    plain = fit(D, h, S)
    close = {"rtol": 1e-6, "atol": 1e-8}
    torch.testing.assert_close(
        fit(D / a, h * a, S).weight * a[S], plain.weight, **close
    )
    places = torch.stack([(order == j).nonzero()[0, 0] for j in S])
    moved = fit(D[:, order], h[:, order], places)
    torch.testing.assert_close(moved.weight, plain.weight, **close)
    if constant:
        lifted = fit(D, h + 3 * a, S)
        torch.testing.assert_close(lifted.weight, plain.weight, **close)
        change = 3 * (D @ a - plain.weight @ a[S])
        torch.testing.assert_close(lifted.shift, plain.shift + change, **close)


def test_with_nothing_to_learn_from_the_slice_stays_exactly():
    D, h = vectors(2)
    H, mean = moments_of(h)
    S, every = torch.tensor([1, 4, 8]), torch.arange(9)
    assert torch.equal(refit_down(D, H, every, ridge=0.1).weight, D)
    alone = refit_down(D, H.diagonal().diag(), S, ridge=0.1)
    assert torch.equal(alone.weight, D[:, S])
    assert torch.equal(refit_down(D, 0 * H, S, ridge=0.1).weight, D[:, S])
    whole = refit_down(D, H, every, ridge=0.1, mean=mean)
    torch.testing.assert_close(whole.shift, torch.zeros(5).double())


def test_dead_neurons_and_fewer_vectors_than_neurons_do_no_harm():
    D, h = vectors(4, n=3)
    h[:, [2, 5]] = 0  # one of them is kept
    H, mean = moments_of(h)
    S = torch.tensor([0, 2, 3, 8])
    found = refit_down(D, H.float(), S, ridge=0.01)
    assert torch.isfinite(found.weight).all()
    torch.testing.assert_close(found.weight[:, 1], D[:, 2], rtol=0, atol=0)
    alive = by_solver(
        D[:, [0, 3, 8, 1, 4, 6, 7]], h[:, [0, 3, 8, 1, 4, 6, 7]], range(3), 0.01
    )
    np.testing.assert_allclose(
        found.weight[:, [0, 2, 3]], alive[0], rtol=1e-4, atol=1e-5
    )
    assert torch.isfinite(refit_down(D, H, S, ridge=0.01, mean=mean).weight).all()


@pytest.mark.parametrize("level", [5.0, 50.0, 500.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_variance_that_float32_loses_counts_as_none(seed, level):
    """The fit and the rule are those for the neurons that vary, and the mean goes."""
    generator = seeded(seed)
    h = torch.randn(200, 14, generator=generator) + 0.5
    D = torch.randn(6, 14, generator=generator)
    stuck = torch.tensor([3, 5, 12])  # the last of them is removed
    h[:, stuck] = level * (1 + 1e-5 * h[:, stuck])
    varies = torch.tensor([j for j in range(14) if j not in stuck])
    kept, fewer = torch.arange(8), torch.arange(6)
    halves = [Moments([x], [y], 100) for x, y in map(moments_of, h.split(100))]
    less = [
        Moments([half.second[0][varies][:, varies]], [half.mean[0][varies]], 100)
        for half in halves
    ]
    H, mean = moments_of(h)
    fit = refit_down(D, H, kept, ridge=1e-3, mean=mean)
    alone = H[varies][:, varies], fewer
    alone = refit_down(D[:, varies], *alone, ridge=1e-3, mean=mean[varies])
    torch.testing.assert_close(fit.weight[:, varies[:6]], alone.weight)
    assert torch.equal(fit.weight[:, stuck[:2]], D[:, stuck[:2]].double())
    constant = D[:, 12].double() * float(mean[12])  # what the bias takes of them
    torch.testing.assert_close(fit.shift - alone.shift, constant)
    found = choose_ridge([D], halves, [kept], biased=True)
    expected = choose_ridge([D[:, varies]], less, [fewer], biased=True)
    assert found[0] == expected[0]
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)


def test_in_float64_the_same_small_variance_is_learnt_from():
    D, h = vectors(3)
    h = h / h.std(0) + 100
    H, mean = moments_of(h)
    found = moment_about(H, mean, mean)
    assert (found.diagonal() > 0).all()
    assert not moment_about(H.float(), mean.float(), mean.float()).any()


def test_bad_input_of_the_fit_is_named():
    D, h = vectors(1)
    H, _ = moments_of(h)
    S = torch.tensor([0, 1])
    for ridge in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="ridge is"):
            refit_down(D, H, S, ridge=ridge)
    half = Moments([H], [h.mean(0)], 60)
    for ridges in ([0.1, 0], [], [0.1, float("nan")], [float("inf")]):
        with pytest.raises(ValueError, match="ridges are"):
            ridge_errors(D, H, H, S, ridges)
        with pytest.raises(ValueError, match="ridges are"):
            choose_ridge([D], [half, half], [S], ridges)
    with pytest.raises(ValueError, match=r"H, mean and centre have shapes \(9, 9\)"):
        refit_down(D, H, S, ridge=1, mean=h.mean(0)[:8])
    silent = Moments([0 * H], [0 * h.mean(0)], 60)
    with pytest.raises(ValueError, match=r"H gives the output the energy 0\.0"):
        output_error(D, 0 * H, S, D[:, S])
    with pytest.raises(ValueError, match=r"H gives the output the energy 0\.0"):
        ridge_errors(D, H, 0 * H, S)
    with pytest.raises(ValueError, match=r"H gives the output the energy 0\.0"):
        choose_ridge([D], [half, silent], [S])
    with pytest.raises(ValueError, match=r"H has shape \(8, 8\) and D \(5, 9\)"):
        refit_down(D, H[:8, :8], S, ridge=1)
    with pytest.raises(ValueError, match="names a row twice"):
        refit_down(D, H, torch.tensor([1, 1]), ridge=1)
    with pytest.raises(ValueError, match="names a row outside"):
        ridge_errors(D, H, H, torch.tensor([9]))


# the ridge


@pytest.mark.parametrize("n", [60, 4])  # and with fewer vectors than neurons
@pytest.mark.parametrize("constant", [False, True])
def test_all_ridges_at_once_are_the_errors_of_each_on_other_vectors(n, constant):
    D, h = vectors(6, n)
    g = vectors(6, 50)[1] + 0.3
    h[:, 4] = 0  # dead in the fit and alive afterwards
    S, ridges = torch.tensor([7, 0, 4, 3]), [1e-3, 0.1, 5.0]
    (A, a), (B, b) = moments_of(h), moments_of(g)
    expected = []
    for ridge in ridges:
        fit = refit_down(D, A, S, ridge=ridge, mean=a if constant else None)
        error = error_on(g, D, S, fit.weight, fit.shift if constant else 0.0)
        centre = D @ a if constant else 0 * D[:, 0]
        energy = np.mean([((D @ x - centre) ** 2).sum() for x in g])
        expected.append(float(error / energy))
    if constant:
        A, B = moment_about(A, a, a), moment_about(B, b, a)
    found = ridge_errors(D, A, B, S, ridges)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_moment_about_a_point_is_that_of_the_moved_vectors():
    _, h = vectors(11)
    H, mean = moments_of(h)
    centre = torch.arange(9).double()
    torch.testing.assert_close(moment_about(H, mean, centre), moments_of(h - centre)[0])
    cov = torch.from_numpy(np.cov(h.T.numpy(), bias=True))
    torch.testing.assert_close(moment_about(H, mean, mean), cov)


@pytest.mark.parametrize("biased", [False, True])
def test_the_rule_fits_each_half_and_judges_on_the_other(biased):
    layers = [vectors(20 + i, 80) for i in range(2)]
    kept = [torch.tensor([0, 3, 4, 7]), torch.tensor([1, 2, 8])]
    halves = []
    for part in (slice(0, 30), slice(30, 80)):
        pairs = [moments_of(h[part]) for _, h in layers]
        halves.append(Moments(*map(list, zip(*pairs, strict=True)), 0))
    best, errors = choose_ridge([D for D, _ in layers], halves, kept, biased=biased)
    expected = np.zeros(len(RIDGES))
    for (D, h), S in zip(layers, kept, strict=True):
        for fit, held in ((h[:30], h[30:]), (h[30:], h[:30])):
            centre = D @ fit.mean(0) if biased else 0 * D[:, 0]
            energy = np.mean([((D @ x - centre) ** 2).sum() for x in held])
            for i, ridge in enumerate(RIDGES):
                weight, shift = by_solver(D, fit, S.tolist(), ridge, biased)
                weight = torch.from_numpy(weight)
                shift = torch.from_numpy(shift) if biased else 0.0
                expected[i] += error_on(held, D, S, weight, shift) / energy / 4
    np.testing.assert_allclose(errors, expected, rtol=1e-6)
    assert best == RIDGES[int(np.argmin(expected))]


def test_the_rule_takes_a_large_ridge_for_noise_and_a_small_one_for_laws():
    D = torch.randn(4, 12, generator=seeded(1)).double()
    noise = torch.randn(20, 12, generator=seeded(2)).double()
    law = noise.clone()
    law[:, 8:] = law[:, :8] @ torch.randn(8, 4, generator=seeded(3)).double()
    found = []
    for h in (noise, law):
        pairs = [moments_of(half) for half in h.split(10)]
        halves = [Moments([H], [mean], 10) for H, mean in pairs]
        found.append(choose_ridge([D], halves, [torch.arange(8)])[0])
    assert found[0] >= 1 and found[1] == min(RIDGES)


def test_the_candidates_reach_from_rounding_to_no_re_fit_at_all():
    D, h = vectors(3, 60)
    (A, _), (B, _), kept = moments_of(h[:30]), moments_of(h[30:]), torch.arange(5)
    errors = ridge_errors(D, A, B, kept)
    sliced = output_error(D, B, kept, D[:, kept])
    exact = refit_down(D, A, kept, ridge=1e-12).weight
    torch.testing.assert_close(errors[-1], sliced, rtol=1e-3, atol=0)
    torch.testing.assert_close(
        errors[0], output_error(D, B, kept, exact), rtol=1e-3, atol=0
    )
    assert sorted(RIDGES) == list(RIDGES) and RIDGES[-1] / RIDGES[0] == 1e10
    assert max(b / a for a, b in zip(RIDGES, RIDGES[1:])) < 3.4


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(1, 8))
def test_factors_say_of_every_ridge_what_eigenvalues_say(seed, k):
    D, h = vectors(seed, 40)
    fit, held = (moments_of(half)[0] for half in h.split(20))
    kept = torch.randperm(9, generator=seeded(seed))[:k].sort().values
    ridges = [1e-3, 0.1, 1.0, 30.0]
    found = solved_errors(D, fit, held, kept, ridges)
    expected = ridge_errors(D, fit, held, kept, ridges)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    weight = refit_down(D, fit, kept, ridge=0.1).weight
    torch.testing.assert_close(found[1], output_error(D, held, kept, weight))


def test_a_ridge_below_the_rounding_of_a_moment_is_never_the_best():
    """Summed in float32, the moment of two like neurons has a negative eigenvalue."""
    D, h = vectors(3, 40)
    h[:, 1] = h[:, 0]
    fit, held = (moments_of(half)[0] for half in h.split(20))
    fit[0, 1] = fit[1, 0] = fit[0, 0] * (1 + 1e-5)
    kept = torch.tensor([0, 1, 2, 3])
    errors = solved_errors(D, fit, held, kept, [1e-6, 0.1])
    assert errors[0] == float("inf") and 0 < errors[1] < 1
    pair = Moments([fit], [h.mean(0)], 20), Moments([held], [h.mean(0)], 20)
    ridge, found = find_ridge([D], pair, [kept])
    assert found[ridge] == min(found.values()) < float("inf")


@given(st.integers(1, 200))
def test_the_layers_that_judge_a_ridge_are_few_and_evenly_spaced(layers):
    judges = ridge_layers(layers)
    assert len(judges) == min(layers, 6) and judges == sorted({*judges})
    assert judges[0] >= 0 and judges[-1] < layers
    ends = [judges[0], layers - 1 - judges[-1]]
    gaps = [b - a for a, b in zip(judges, judges[1:])] or [layers]
    assert max(gaps) - min(gaps) <= 1 and max(ends) <= max(gaps)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("law", [0.0, 0.2, 0.5, 1.0])
def test_the_walk_ends_at_the_least_error_of_a_grid_that_nothing_bounds(law, biased):
    D = torch.randn(4, 12, generator=seeded(1)).double()
    h = torch.randn(40, 12, generator=seeded(2)).double()
    mixed = h[:, :8] @ torch.randn(8, 4, generator=seeded(3)).double()
    h[:, 8:] = law * mixed + (1 - law) * h[:, 8:]
    pairs = [moments_of(half) for half in h.split(20)]
    halves, kept = [Moments([H], [mean], 20) for H, mean in pairs], [torch.arange(8)]
    grid = [float(f"{a}e{b}") for b in range(-6, 5) for a in (1, 3)][:21]
    expected, errors = choose_ridge([D], halves, kept, grid, biased=biased)
    found, tried = find_ridge([D], halves, kept, biased=biased)
    assert found == expected and list(tried) == sorted(tried)
    for ridge, error in tried.items():
        assert error == pytest.approx(errors[grid.index(ridge)], rel=1e-6, abs=1e-12)
    inside = found not in (min(tried), max(tried))
    assert inside or found in (grid[0], grid[-1])
    assert (law == 1.0) == (found == grid[0])  # a law needs no ridge


# whole models


def hidden(model, texts):
    """Hidden vectors of every block, one row a token."""
    seen = [[] for _ in down_projections(model)]
    hooks = [
        linear.register_forward_pre_hook(lambda m, x, into=into: into.append(x[0]))
        for linear, into in zip(down_projections(model), seen, strict=True)
    ]
    with torch.no_grad():
        model(texts)
    for hook in hooks:
        hook.remove()
    return [torch.cat(parts).flatten(0, -2) for parts in seen]


def tiny(family, **fields):
    model = tiny_model(family, generator=seeded(7), dtype=torch.float64, **fields)
    return model, torch.randint(3, 32, (6, 9), generator=seeded(8))


KEPT = [torch.tensor([0, 3, 4, 7, 9, 10]), torch.tensor([1, 2, 5, 6, 8, 10, 11])]


@pytest.mark.parametrize("family", ADAPTERS)
def test_every_block_of_every_family_gets_the_solution_on_its_own_vectors(family):
    dense, texts = tiny(family)
    before = {name: p.detach().clone() for name, p in dense.named_parameters()}
    moments = hidden_moments(dense, texts, dtype=torch.float64)
    pruned = prune_rows(dense, KEPT)
    refit_(pruned, dense, KEPT, moments, ridge=0.05)
    rows = zip(
        down_projections(dense),
        down_projections(pruned),
        hidden(dense, texts),
        KEPT,
        strict=True,
    )
    for old, new, h, S in rows:
        constant = old.bias is not None
        D = old.weight.detach()
        weight, shift = by_solver(D, h, S.tolist(), 0.05, constant)
        np.testing.assert_allclose(new.weight.detach(), weight, rtol=1e-6, atol=1e-8)
        if constant:
            found = (new.bias - old.bias).detach()
            np.testing.assert_allclose(found, shift, rtol=1e-6, atol=1e-8)
    for name, p in dense.named_parameters():
        assert torch.equal(p, before[name])
    plain = slice_ffn_(prune_rows(dense, [torch.arange(12)] * 2), KEPT)
    named, changed = dict(plain.named_parameters()), set()
    for name, p in pruned.named_parameters():
        if not torch.equal(p, named[name]):
            changed.add(name)
    ends = [".weight"] + [".bias"] * (old.bias is not None)
    assert len(changed) == 2 * len(ends)


def test_bad_input_of_a_whole_refit_is_named():
    dense, texts = tiny("opt")
    moments, pruned = hidden_moments(dense, texts), prune_rows(dense, KEPT)
    with pytest.raises(ValueError, match="ridge is 0"):
        refit_(pruned, dense, KEPT, moments, ridge=0)
    with pytest.raises(ValueError, match="shorter"):
        refit_(pruned, dense, KEPT[:1], moments, ridge=1)
    half = Moments([H[:5, :5] for H in moments.second], moments.mean, 54)
    with pytest.raises(ValueError, match=r"shapes \(5, 5\), \(12,\)"):
        refit_(pruned, dense, KEPT, half, ridge=1)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_the_output_of_the_only_block_comes_nearer_to_the_dense_one(family):
    dense, texts = tiny(family, num_hidden_layers=1)
    moments = hidden_moments(dense, texts, dtype=torch.float64)
    refitted = prune_rows(dense, KEPT[:1])
    refit_(refitted, dense, KEPT[:1], moments, ridge=1e-6)
    masked, outputs = (
        mask_ffn_(prune_rows(dense, [torch.arange(12)]), KEPT[:1]),
        [],
    )
    for model in (dense, masked, refitted):
        linear = down_projections(model)[0]
        hook = linear.register_forward_hook(lambda m, x, y: outputs.append(y))
        with torch.no_grad():
            model(texts)
        hook.remove()
    exact, sliced, fitted = outputs
    assert (fitted - exact).norm() < 0.9 * (sliced - exact).norm()
    if dense.config.model_type == "opt":  # a free constant leaves no mean error
        torch.testing.assert_close(fitted.mean((0, 1)), exact.mean((0, 1)))


def test_moments_of_samples_of_unequal_size_add_up_to_those_of_all_texts():
    model, texts = tiny("llama")
    parts = [hidden_moments(model, t, dtype=torch.float64) for t in texts.split([1, 5])]
    found, whole = (
        mean_moments(parts),
        hidden_moments(model, texts, dtype=torch.float64),
    )
    assert found.tokens == whole.tokens == 54
    for ours, theirs in zip(found[:2], whole[:2], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_fit_on_a_gpu_equals_that_on_the_cpu():
    dense, texts = tiny("opt")
    moments = hidden_moments(dense, texts, dtype=torch.float64)
    found = []
    for device in ("cpu", "cuda"):
        model = dense.to(device)
        pruned = refit_(prune_rows(model, KEPT), model, KEPT, moments, ridge=0.1)
        found.append([x.weight.detach().cpu() for x in down_projections(pruned)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


# the small real model


def sure(gap):
    """Means over texts in standard errors, one a row."""
    return gap.mean(1) / gap.std(1, ddof=1) * gap.shape[1] ** 0.5


def test_stored_refits_help_guided_selections_and_more_text_helps_more():
    path = Path(__file__).parents[2] / "book/results/refit.json"
    table = json.loads(path.read_text())
    kl = {
        name: np.array([row["before"], *row["after"]])  # (4, texts)
        for name, row in table["selections"].items()
    }
    random, energy, equal, uneven = kl.values()
    for each in (energy, equal, uneven):
        before, *after = each.mean(1)
        assert before > after[0] > after[1] > after[2]
    for each in (random, energy, equal):
        assert (sure(each - uneven) > 2).all()
    assert (np.abs(sure(energy - equal)) < 2).all()  # their order is not known
    assert (sure(random[:1] - random[1:]) < 2).all()  # which nothing repairs
    errors = [np.mean(table["error_before"])]
    errors += [np.mean(fit["error"]) for fit in table["fits"]]
    assert errors[-1] < errors[-2] < errors[0]
    independent, *shares = (np.array(row["kl"]) for row in table["sequential"])
    assert len(shares) == 3 and (sure(np.array(shares) - independent) > 2).all()
