"""Quadrature against matrix functions, distances against eigenvalues, costs counted."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from prunefair.pruning.lanczos import (
    PROBES,
    STEPS,
    GaussRule,
    LanczosSlices,
    calibrated_rule,
    gauss_rule,
    lanczos,
    middle_distribution,
    orthonormal_probes,
    selection_cost,
    spectral_distribution,
)
from prunefair.pruning.llama2_7b import shaped_matrix
from prunefair.pruning.policy_gradient import train_policy
from prunefair.pruning.row_policy import row_features, selected_rows
from prunefair.pruning.spectrum import RowSlices, uniform_selections


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(11)


def symmetric(n, generator):
    X = torch.randn(2 * n, n, generator=generator, dtype=torch.float64)
    return X.T @ X / (2 * n)


def unit_rows(count, n, generator):
    v = torch.randn(count, n, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(v, dim=1)


@given(st.integers(0, 10**6), st.integers(2, 14), st.integers(1, 6))
def test_the_rule_is_exact_up_to_degree_2s_minus_1_and_not_beyond(seed, n, steps):
    generator = torch.Generator().manual_seed(seed)
    steps, A = min(steps, n), symmetric(n, generator)
    v = unit_rows(3, n, generator)
    rule = gauss_rule(lanczos(lambda q: q @ A, v, steps))
    powers = range(2 * steps + 1)
    exact = torch.stack(
        [((v @ torch.linalg.matrix_power(A, p)) * v).sum(1) for p in powers]
    )
    found = torch.stack([(rule.weights * rule.nodes**p).sum(1) for p in powers])
    torch.testing.assert_close(found[:-1], exact[:-1], rtol=1e-8, atol=1e-10)
    if steps < n:
        assert (exact[-1] > found[-1]).all()  # the sign of Gauss's error term


def test_as_many_steps_as_distinct_eigenvalues_give_the_measure_itself(generator):
    values = torch.tensor([0.5, 1, 4], dtype=torch.float64)
    Q = torch.linalg.qr(torch.randn(9, 9, generator=generator, dtype=torch.float64)).Q
    A, v = (Q * values.repeat(3)) @ Q.T, unit_rows(4, 9, generator)
    weights = (v @ Q).square().view(4, 3, 3).sum(1)  # of each distinct eigenvalue
    rule = gauss_rule(lanczos(lambda q: q @ A, v, 3))
    torch.testing.assert_close(rule.nodes, values.expand(4, 3))
    torch.testing.assert_close(rule.weights, weights)
    longer = gauss_rule(lanczos(lambda q: q @ A, v, 7))  # four steps after the end
    f = torch.sin
    torch.testing.assert_close(
        (longer.weights * f(longer.nodes)).sum(1), weights @ f(values)
    )


def test_no_eigenvalue_appears_twice_after_it_has_converged(generator):
    values = torch.linspace(0, 1, 300)
    values[-1] = 1000  # converges at once; without projections copies of it appear
    v = orthonormal_probes(300, 4, generator=generator)
    rule = gauss_rule(lanczos(lambda q: q * values, v, 60))
    assert ((rule.nodes > 100).sum(-1) == 1).all()


def test_all_probes_of_a_basis_give_the_trace(generator):
    A = symmetric(12, generator).float()
    v = orthonormal_probes(12, 12, generator=generator)
    torch.testing.assert_close(v @ v.T, torch.eye(12), atol=1e-5, rtol=0)
    rule = gauss_rule(lanczos(lambda q: q @ A, v, 12))
    found = (rule.weights * rule.nodes.sqrt()).sum(-1).mean()
    exact = torch.linalg.eigvalsh(A.double()).sqrt().mean()
    torch.testing.assert_close(found, exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_mean_and_variance_over_orthonormal_probes(generator, count):
    f, n, sets = torch.tensor([3.0, -1, 0, 0, 2, 1]), 6, 4000
    normal = torch.randn(sets, n, n, generator=generator)
    Q, R = torch.linalg.qr(normal)  # an oracle of its own: no orthonormal_probes
    Q = Q * R.diagonal(dim1=1, dim2=2).sign()[:, None]
    oracle = (Q[:, :, :count].square() * f[:, None]).sum(1).mean(1)
    seen = torch.stack(
        [
            (orthonormal_probes(n, count, generator=generator).square() @ f).mean()
            for _ in range(sets)
        ]
    )
    variance = 2 / (n + 2) * f.var(correction=0) / count * (n - count) / (n - 1)
    for sample in (oracle, seen):
        assert abs(sample.mean() - f.mean()) < 5 * math.sqrt(variance / sets)
        assert abs(sample.var() / variance - 1) < 0.15


def test_calibration_makes_two_moments_exact_also_of_one_eigenvalue(generator):
    A = torch.stack([symmetric(20, generator), 3 * torch.eye(20, dtype=torch.float64)])
    v = unit_rows(5, 20, generator).expand(2, 5, 20)
    rule = gauss_rule(lanczos(lambda q: q @ A, v, 6))
    eigenvalues = torch.linalg.eigvalsh(A)
    first, second = eigenvalues.mean(1), eigenvalues.square().mean(1)
    new = calibrated_rule(rule, first, second)
    for power, exact in ((0, torch.ones(2).double()), (1, first), (2, second)):
        found = (new.weights * rule.nodes**power).sum(-1).mean(-1)
        torch.testing.assert_close(found, exact)
    before = (rule.weights * rule.nodes**2).sum(-1).mean(-1)
    assert abs(before[0] - second[0]) > 1e-3


def test_the_distribution_goes_through_the_middles_of_the_steps():
    rule = GaussRule(torch.tensor([[1.0, 4, 9]]), torch.tensor([[0.2, 0.5, 0.3]]))
    rule = GaussRule(*(x.double() for x in rule))
    t = torch.tensor([0.1, 1, 1.5, 2, 3, 5], dtype=torch.float64)
    found = spectral_distribution(rule, t)
    by_hand = [0, 0.1, (0.1 + 0.45) / 2, 0.45, 0.85, 1]
    torch.testing.assert_close(found, torch.tensor(by_hand, dtype=torch.float64))


def test_the_joined_sample_distribution_equals_numpy(generator):
    sample = torch.rand(30, generator=generator, dtype=torch.float64).sort().values
    t = torch.rand(4, 50, generator=generator, dtype=torch.float64)
    oracle = np.interp(t, sample, (np.arange(30) + 0.5) / 30)
    np.testing.assert_allclose(middle_distribution(sample, t), oracle)


@pytest.fixture(scope="module")
def shaped():
    """A matrix like a trained one, its selections, and their exact distances."""
    generator = torch.Generator().manual_seed(5)
    W = shaped_matrix(800, 300, generator=generator)
    kept = uniform_selections(800, 560, 4, generator=generator)
    features = row_features(W)[:, :2].T
    best = torch.stack([selected_rows(f, 560) for f in features])
    kept = torch.cat([kept, best])
    return W, kept, RowSlices(W).distance(kept)


def test_the_default_sees_differences_and_more_steps_and_probes_the_distance(shaped):
    W, kept, exact = shaped
    errors = {}
    for rule in ((32, 8), (32, 24), (4, 24)):
        found = []
        for seed in range(4):
            g = torch.Generator().manual_seed(seed)
            v = orthonormal_probes(300, rule[0], generator=g)
            slices = LanczosSlices(W, probes=v, steps=rule[1])
            found.append(slices.distance(kept) - exact)
        errors[rule] = torch.stack(found)
    default = errors[PROBES, STEPS]
    gap = exact[:4].mean() - exact[4:].min()
    differences = default - default.mean(1, keepdim=True)
    assert differences.square().mean().sqrt() < gap / 5 < 0.01  # 300 columns only
    rms = {rule: e.square().mean().sqrt() for rule, e in errors.items()}
    assert rms[32, 24] < 0.005 < exact.min() / 10
    assert rms[32, 24] < rms[4, 24]


def test_batches_types_signs_order_and_scale_change_nothing(shaped, generator):
    W, kept, _ = shaped
    v = orthonormal_probes(300, 8, generator=generator)
    slices = LanczosSlices(W, probes=v, steps=12)
    found = slices.distance(kept)
    assert found.shape == (6,) and found.dtype == torch.float64
    for same in (
        torch.stack([slices.distance(rows) for rows in kept]),
        slices.distance(kept.view(2, 3, -1)).flatten(),
        slices.distance(kept.flip(1)),
        LanczosSlices(1024 * W, probes=v, steps=12).distance(kept),
        LanczosSlices(RowSlices(W, dtype=torch.float32), probes=v, steps=12).distance(
            kept
        ),
    ):
        torch.testing.assert_close(same, found, atol=1e-4, rtol=0)
    signs = 2.0 * torch.randint(2, (800, 1), generator=generator) - 1
    flipped = LanczosSlices(signs * W, probes=v, steps=12)
    torch.testing.assert_close(flipped.distance(kept), found, atol=1e-4, rtol=0)
    assert slices.distance(torch.arange(800)) == 0
    half = LanczosSlices(W.half(), probes=v, steps=12)
    assert half.W.dtype == torch.float16
    torch.testing.assert_close(half.distance(kept), found, atol=5e-3, rtol=0)


def test_operations_are_those_that_torch_counts(shaped, generator):
    W, kept, _ = shaped
    for probes, steps in ((32, 24), (8, 12)):
        v = orthonormal_probes(300, probes, generator=generator)
        slices = LanczosSlices(W, probes=v, steps=steps)
        with FlopCounterMode(display=False) as counter:
            slices.distance(kept[:1])
        expected = selection_cost(800, 300, 560, probes, steps).operations
        # the small products of the calibration and the last half step are not in it
        assert expected < counter.get_total_flops() < 1.12 * expected
    exact = selection_cost(800, 300, 560).operations
    assert exact == 2 * 240 * 300**2 + 4 / 3 * 300**3


def test_training_takes_any_spectra(generator):
    matrices = [shaped_matrix(120, 40, generator=generator) for _ in range(3)]
    draw = torch.Generator()
    options = {"episodes": 4, "dtype": torch.float32}
    plain = train_policy(matrices, 0.3, generator=draw.manual_seed(1), **options)
    same = train_policy(
        matrices,
        0.3,
        generator=draw.manual_seed(1),
        penalty=lambda W: RowSlices(W, dtype=torch.float32).distance,
        **options,
    )
    assert same.history == plain.history
    v = orthonormal_probes(40, 40, generator=generator)
    close = train_policy(
        matrices,
        0.3,
        generator=draw.manual_seed(1),
        penalty=lambda W: LanczosSlices(W, probes=v, steps=30).distance,
        episodes=1,
    )
    assert close.history != plain.history[:1]
    assert close.history[0] == pytest.approx(plain.history[0], abs=0.03)


def test_bad_input_names_itself(shaped, generator):
    W, kept, _ = shaped
    with pytest.raises(ValueError, match="count is 0.*1 to 5"):
        orthonormal_probes(5, 0, generator=generator)
    v = orthonormal_probes(300, 2, generator=generator)
    with pytest.raises(ValueError, match="steps is 301.*1 to 300"):
        lanczos(lambda q: q, v, 301)
    with pytest.raises(ValueError, match="kept has 299 rows for 300 columns"):
        LanczosSlices(W, probes=v, steps=4).distance(kept[0, :299])
    with pytest.raises(ValueError, match=r"W has shape \(300, 800\).*RowSlices"):
        LanczosSlices(W.T, probes=v, steps=4)
    with pytest.raises(ValueError, match="kept names a row twice"):
        LanczosSlices(W, probes=v, steps=4).distance(kept[0].clamp(max=700))
