"""Spectra against SVD, distances against SciPy, theorems on enumerated selections."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import ks_2samp

from prunefair.models import load_model
from prunefair.pruning.anatomy import gate_matrices
from prunefair.pruning.spectrum import (
    RowSlices,
    distance_floor,
    graded_matrix,
    interlaces,
    interlacing_bounds,
    ks_distance,
    plot_gram_errors,
    plot_layer_distances,
    plot_ratios,
    row_mask,
    singular_values,
    sliced_values,
    slicing_effect,
    spectral_distance,
    uniform_selections,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ENTRIES = st.floats(-1e3, 1e3, width=32)
EPS = torch.finfo(torch.float64).eps


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


@pytest.fixture(scope="module")
def gates():
    return gate_matrices(load_model("smollm2", dtype=torch.float32))


def normal(*shape, generator):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@st.composite
def sliced_matrices(draw, wide=True):
    """A matrix, among them many with ties, zero rows and low rank, and kept rows."""
    m = draw(st.integers(1, 12))
    n = draw(st.integers(1, 12 if wide else m))
    entries = draw(st.sampled_from([ENTRIES, st.integers(-1, 1).map(float)]))
    W = draw(hnp.arrays(np.float64, (m, n), elements=entries))
    k = draw(st.integers(1 if wide else n, m))
    kept = draw(st.permutations(range(m)))[:k]
    return torch.tensor(W), torch.tensor(sorted(kept))


def proved_error(W):
    """The theorem's bound for one Gram matrix; its roundoff is EPS / 2."""
    return 2 * sum(W.shape) * (EPS / 2) * W.square().sum() + 1e-300


def oracle_error(W):
    """Bound assumed for the squares of LAPACK's values, (m + n) EPS relative to the
    largest, and for the rounding of the roots and squares that are compared."""
    return 2 * sum(W.shape) * EPS * torch.linalg.matrix_norm(W, 2) ** 2


# singular values


@given(sliced_matrices())
def test_squared_singular_values_are_within_the_proved_error_of_the_svd(case):
    W, _ = case
    error = (singular_values(W) ** 2 - torch.linalg.svdvals(W) ** 2).abs().max()
    assert error <= proved_error(W) + oracle_error(W)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_error_of_the_gram_route_grows_with_the_square_and_no_faster(
    dtype, generator
):
    exact = torch.logspace(0, -3, 30, dtype=torch.float64)
    W = graded_matrix(50, exact, generator=generator)
    error = (singular_values(W, dtype=dtype) / exact - 1).abs()
    eps = torch.finfo(dtype).eps
    assert (error <= 80 * eps / exact**2).all()
    if dtype == torch.float64:  # seen, not only bounded: small values do lose digits
        assert error[-1] > 100 * error[0].clamp(min=EPS)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 3, 7, 4), (1, 1)])
@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
        *(torch.float8_e4m3fn, torch.int64, torch.int8, torch.uint16),
    ],
)
def test_batches_on_every_device_and_type_equal_the_svd(
    device, shape, dtype, generator
):
    W = 8 * normal(*shape, generator=generator)
    W = (W if dtype.is_signed else W.abs()).to(device, dtype)
    values = singular_values(W)
    assert values.dtype == torch.float64 and values.device == W.device
    assert (values.diff(dim=-1) <= 0).all() and (values >= 0).all()
    torch.testing.assert_close(values, torch.linalg.svdvals(W.double()))


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1, 1e30, 1e300])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_scale_overflows_or_vanishes(scale, dtype, generator):
    W = normal(6, 4, generator=generator)
    values = singular_values(W * scale, dtype=dtype)
    torch.testing.assert_close(
        values / scale, torch.linalg.svdvals(W), rtol=1e-4, atol=0
    )
    same = 1e-12 if dtype == torch.float64 else 1e-6
    assert (values / scale).allclose(singular_values(W, dtype=dtype), rtol=same)


def test_zero_and_rank_one_matrices_have_the_values_they_must():
    assert (singular_values(torch.zeros(4, 3)) == 0).all()
    ones = singular_values(torch.ones(4, 9))
    torch.testing.assert_close(ones[0].item(), 6.0)
    assert (ones[1:] < 1e-6).all()


@pytest.mark.parametrize(
    ("W", "message"),
    [
        (torch.ones(3), r"shape \(3,\)"),
        (torch.ones(0, 3), r"shape \(0, 3\)"),
        (torch.ones(2, 2, dtype=torch.complex64), "complex64"),
        (torch.ones(2, 2, dtype=torch.bool), r"torch\.bool; give real matrices"),
        (torch.tensor([[1.0, math.nan]]), "not finite"),
        (torch.tensor([[1.0, math.inf]]), "not finite"),
    ],
)
def test_singular_values_refuse_what_is_no_matrix(W, message):
    for call in (singular_values, RowSlices):
        with pytest.raises(ValueError, match=message):
            call(W)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_spectra_are_refused_in_a_precision_that_has_none(dtype):
    for call in (singular_values, RowSlices):
        with pytest.raises(ValueError, match=f"dtype is {dtype}; give torch.float64"):
            call(torch.eye(3), dtype=dtype)
    with pytest.raises(ValueError, match=f"dtype is {dtype}; give torch.float64"):
        spectral_distance(torch.eye(3), [0], torch.ones(3), dtype=dtype)


@pytest.mark.parametrize(
    "values", [torch.ones(3), [], 1.0, [[1.0]], [math.nan], [math.inf], [1.0, -1.0]]
)
def test_a_matrix_with_impossible_singular_values_is_refused(values, generator):
    with pytest.raises(ValueError, match="values is .* for a matrix of 2 rows; give"):
        graded_matrix(2, values, generator=generator)


def test_the_released_decomposition_gives_the_same_values(gates):
    _, released, _ = torch.svd(gates[7])
    values = singular_values(gates[7])
    torch.testing.assert_close(released.double(), values, rtol=2e-5, atol=0)
    assert not torch.equal(released.double(), values)  # float32: same, not equal


# interlacing


@given(sliced_matrices())
def test_sliced_spectra_interlace(case):
    W, kept = case
    deleted = W.shape[0] - len(kept)
    assert interlaces(singular_values(W), singular_values(W[kept]), deleted)


def hard_matrices(generator):
    base = normal(30, 8, generator=generator)
    yield "equal rows", base[:3].repeat(10, 1)
    yield "rank one", base[:, :1] @ base[:1]
    yield "zero rows", torch.cat([base[:10], torch.zeros(20, 8, dtype=torch.float64)])
    yield "one row dominates", torch.cat([1e9 * base[:1], base[1:]])
    yield "graded", graded_matrix(30, torch.logspace(0, -14, 8), generator=generator)
    yield "huge", base * 1e200
    yield "tiny", base * 1e-200
    yield "orthogonal", torch.linalg.qr(base).Q
    yield "wide", normal(10, 30, generator=generator)


def test_sliced_spectra_of_adversarial_matrices_interlace(generator):
    for name, W in hard_matrices(generator):
        by_norm = W.norm(dim=1).argsort()
        m = W.shape[0]
        for r in (1, m // 3, m - 1):
            for kept in (by_norm[r:], by_norm[: m - r], torch.arange(r, m)):
                for values in (singular_values(W[kept]), torch.linalg.svdvals(W[kept])):
                    assert interlaces(singular_values(W), values, r), (name, r)


def test_both_bounds_are_attained(generator):
    W = torch.diag(torch.arange(9.0, 0, -1))
    for r in range(9):
        lower, upper = interlacing_bounds(singular_values(W), r, 9 - r)
        torch.testing.assert_close(singular_values(W[r:]), lower)
        torch.testing.assert_close(singular_values(W[: 9 - r]), upper)


@given(sliced_matrices(), st.booleans())
def test_an_impossible_spectrum_is_refused(case, above):
    W, kept = case
    deleted = W.shape[0] - len(kept)
    values = singular_values(W[kept])
    lower, upper = interlacing_bounds(singular_values(W), deleted, len(values))
    wrong = values.clone()
    wrong[0] = 1.001 * upper[0] if above else 0.999 * lower[0]
    if lower[0] > 1e-3 * upper[0]:
        assert not interlaces(singular_values(W), wrong, deleted)


def test_one_row_too_few_is_noticed(generator):
    W = torch.diag(torch.arange(9.0, 0, -1))
    assert interlaces(singular_values(W), singular_values(W[3:]), 3)
    assert not interlaces(singular_values(W), singular_values(W[3:]), 2)


def test_interlacing_refuses_counts_that_cannot_be():
    for deleted, count in ((-1, 2), (1, 0), (1, 4)):
        with pytest.raises(ValueError, match="deleted is .* count"):
            interlacing_bounds([3.0, 2, 1], deleted, count)
    with pytest.raises(ValueError, match="deleted is -1"):
        interlaces([3.0], [2.0], -1)
    with pytest.raises(ValueError, match="count 2 for a spectrum of 1"):
        interlaces([3.0], [2.0, 1.0], 0)


# the distance


SAMPLES = st.lists(
    st.one_of(st.integers(-3, 3).map(float), st.floats(-1e300, 1e300)),
    min_size=1,
    max_size=40,
)


@given(SAMPLES, SAMPLES)
@settings(max_examples=250)
@pytest.mark.filterwarnings("ignore:ks_2samp")
def test_ks_distance_equals_scipys_with_ties(x, y):
    ours = ks_distance(x, y).item()
    assert ours == ks_2samp(x, y, method="exact").statistic
    assert ours == ks_distance(y, x).item()


@pytest.mark.filterwarnings("ignore:ks_2samp")
def test_ks_distance_equals_scipys_on_large_samples_and_infinite_values():
    rng = np.random.default_rng(3)
    for p, q in ((576, 576), (4096, 4096), (997, 1009), (1, 5000)):
        x, y = rng.normal(size=p), rng.normal(0.1, size=q)
        x[: p // 3] = np.round(x[: p // 3], 1)
        y[: q // 3] = np.round(y[: q // 3], 1)
        assert ks_distance(x, y).item() == ks_2samp(x, y).statistic
    x, y = [-np.inf, 0, np.inf], [0, np.inf]
    far = np.nan_to_num(x), np.nan_to_num(y)  # SciPy before 1.14 knows no infinity
    assert ks_distance(x, y).item() == ks_2samp(*far).statistic == 1 / 3


@pytest.mark.parametrize("device", DEVICES)
def test_batches_broadcast_and_each_equals_scipys(device):
    rng = np.random.default_rng(4)
    x, y = rng.integers(0, 9, (3, 4, 30)), rng.integers(0, 9, (4, 50))
    found = ks_distance(torch.tensor(x, device=device), torch.tensor(y))
    assert found.shape == (3, 4) and found.device.type == device
    for i, j in np.ndindex(3, 4):
        assert found[i, j].item() == ks_2samp(x[i, j], y[j]).statistic


def wrong_at_ties(x, y):
    """Walks the pooled sample one value at a time, which splits ties."""
    pooled = np.argsort(np.concatenate([x, y]), kind="stable")
    steps = np.where(pooled < len(x), 1 / len(x), -1 / len(y))
    return np.abs(np.cumsum(steps)).max()


def test_a_distance_that_splits_ties_would_be_seen():
    x, y = [1.0, 1.0, 2.0], [1.0, 1.0, 2.0]
    assert ks_distance(x, y) == 0 < wrong_at_ties(x, y)


@given(SAMPLES, SAMPLES, SAMPLES)
def test_the_distance_is_a_metric_of_distributions(x, y, z):
    xy, yz, xz = (ks_distance(*pair).item() for pair in ((x, y), (y, z), (x, z)))
    assert 0 <= xz <= min(1, xy + yz + 1e-15)
    assert ks_distance(x, x + x) == 0  # the distribution counts, not the size
    assert ks_distance(x, np.array(x)[::-1].copy()) == 0


@given(sliced_matrices(wide=False))
def test_slicing_moves_a_spectrum_one_way_and_not_beyond_the_bound(case):
    W, kept = case
    m, n = W.shape
    full, sliced = torch.linalg.svdvals(W), torch.linalg.svdvals(W[kept])
    slack = 1e-9 * float(full[0])
    for t in [*full.tolist(), *sliced.tolist()]:
        cdf = (full <= t).sum(), (sliced <= t + slack).sum()
        assert cdf[0] <= cdf[1]
        cdf = (full <= t + slack).sum(), (sliced <= t).sum()
        assert cdf[1] <= cdf[0] + min(m - len(kept), n)
    gaps = (sliced[:, None] - full).abs()  # ties that rounding has split are ties
    tied = torch.where(gaps.min(1).values <= slack, full[gaps.argmin(1)], sliced)
    one_sided = ks_2samp(tied, full, alternative="greater", method="asymp")
    count = ks_distance(full, sliced).item() * n
    assert abs(count - round(count)) < 1e-9
    if (full.diff().abs() > slack).all():  # without ties that rounding could split
        assert one_sided.statistic * n <= min(m - len(kept), n) + 1e-9


def test_samples_are_compared_in_float64():
    assert ks_distance(torch.tensor([2**53]), torch.tensor([2**53 + 1])) == 0
    assert ks_distance(torch.tensor([2**53]), torch.tensor([2**53 + 2])) == 1


def test_the_distance_refuses_empty_samples_and_nan():
    for x, y, name in (
        ([], [1.0], "x"),
        ([1.0], [], "y"),
        ([math.nan], [1.0], "x"),
        ([1.0], [0.0, math.nan], "y"),
        (1.0, [1.0], "x"),
    ):
        with pytest.raises(ValueError, match=f"^{name} has shape"):
            ks_distance(x, y)


# selections


@given(sliced_matrices())
def test_prepared_slices_have_the_spectrum_of_the_rows(case):
    W, kept = case
    found = sliced_values(RowSlices(W), kept)
    exact = torch.linalg.svdvals(W[kept])
    assert found.shape == exact.shape
    error = (found**2 - exact**2).abs().max()
    # two Gram matrices, of the whole and of the deleted rows, and their difference
    assert error <= 2 * proved_error(W) + oracle_error(W)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [30, 55, 90])  # direct, both products, and downdate
def test_every_route_to_the_spectral_distance_agrees(device, k, generator):
    W = normal(100, 50, generator=generator).to(device)
    kept = uniform_selections(100, k, 4, generator=generator)
    values = singular_values(W)
    expected = [
        ks_2samp(torch.linalg.svdvals(W[rows]).cpu(), values.cpu()).statistic
        for rows in kept
    ]
    for found in (
        spectral_distance(W, kept),
        spectral_distance(W, kept, values),
        RowSlices(W).distance(kept),
        torch.stack([spectral_distance(W, rows, values) for rows in kept]),
        spectral_distance(W, kept.reshape(2, 2, k)).flatten(),
        spectral_distance(1e200 * W, kept),
    ):
        assert found.dtype == torch.float64 and found.device.type == device
        assert found.tolist() == expected
    assert spectral_distance(W, kept[0]).shape == ()


def test_a_matrix_wider_than_a_band_of_columns_has_the_same_slices(generator):
    W = normal(520, 250, generator=generator)  # the downdate takes 192 at a time
    kept = uniform_selections(520, 300, 1, generator=generator)[0]
    exact = torch.linalg.svdvals(W[kept])
    torch.testing.assert_close(sliced_values(RowSlices(W), kept), exact)


def test_a_distance_to_the_wrong_rows_would_be_seen(generator):
    W = normal(40, 10, generator=generator)
    kept = torch.arange(20)
    assert spectral_distance(W, kept) != spectral_distance(W, kept + 20)


def test_float32_changes_no_distance_on_the_real_model_by_more_than_one_count(gates):
    generator = torch.Generator().manual_seed(11)
    kept = uniform_selections(1536, 1075, 2, generator=generator)
    changes = []
    for W in gates[::5]:
        double = RowSlices(W).distance(kept)
        single = RowSlices(W, dtype=torch.float32).distance(kept)
        changes += ((single - double) * 576).abs().tolist()
    assert max(changes) < 1.5 and np.mean(changes) < 0.1


def test_random_rows_of_the_real_model_are_far_from_the_bound_and_the_floor(gates):
    generator = torch.Generator().manual_seed(12)
    kept = uniform_selections(1536, 1075, 2, generator=generator)
    for W in gates[::10]:
        slices = RowSlices(W)
        D = slices.distance(kept)
        assert distance_floor(slices, 1075) < D.min() and D.max() < 0.2 < 461 / 576
        exact = torch.linalg.svdvals(W.double()), torch.linalg.svdvals(W[kept[0]])
        assert abs(ks_2samp(*exact).statistic - D[0]) < 1.5 / 576


def test_selections_are_uniform_distinct_and_ascending(generator):
    draws = 4000
    kept = uniform_selections(5, 2, draws, generator=generator)
    assert (kept.diff(dim=-1) > 0).all()
    counts = torch.bincount(kept[:, 0] * 5 + kept[:, 1])
    counts = counts[counts > 0]
    chi_square = ((counts - draws / 10) ** 2 / (draws / 10)).sum()
    assert len(counts) == 10 and chi_square < 27.9  # 99.9 % of chi-square with 9
    again = torch.Generator().manual_seed(7)
    assert torch.equal(kept, uniform_selections(5, 2, draws, generator=again))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (torch.tensor([], dtype=torch.long), "at least one row index"),
        (torch.empty(0, 3, dtype=torch.long), "at least one row index"),
        (
            torch.tensor([True, False, True]),
            r"a mask of type torch\.bool; give indices",
        ),
        (torch.tensor(1), "at least one row index"),
        (torch.tensor([0.5]), "at least one row index"),
        (torch.tensor([0, 5]), r"outside \[0, 5\)"),
        (torch.tensor([-1]), r"outside \[0, 5\)"),
        (torch.tensor([1, 1]), "a row twice"),
    ],
)
def test_selections_that_are_none_are_refused(kept, message):
    W = torch.eye(5)
    values = singular_values(W)
    for call in (
        lambda: row_mask(kept, 5),
        lambda: sliced_values(RowSlices(W), kept),
        lambda: spectral_distance(W, kept),
        lambda: spectral_distance(W, kept, values),
        lambda: slicing_effect(RowSlices(W), kept),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_matrices_and_counts_that_are_none_are_refused(generator):
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\); give one matrix"):
        RowSlices(torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match=r"shape \(1, 1, 2\); give one matrix"):
        RowSlices([[[1.0, 2.0]]])
    for reference in (None, torch.ones(1)):
        with pytest.raises(ValueError, match=r"shape \(3,\)"):
            spectral_distance(torch.ones(3), torch.tensor([0]), reference)
        with pytest.raises(ValueError, match=r"shape \(1, 2, 2\); give one matrix"):
            spectral_distance(torch.ones(1, 2, 2), torch.tensor([0]), reference)
    for kept in (0, 6):
        with pytest.raises(ValueError, match=f"kept is {kept}; give between 1"):
            uniform_selections(5, kept, 1, generator=generator)
        with pytest.raises(ValueError, match=f"kept is {kept}; give between 3"):
            distance_floor(RowSlices(torch.ones(5, 3)), kept)


@pytest.mark.parametrize("kept", [[0, 1], [[0, 1], [1, 0]]])
def test_a_reference_changes_neither_what_is_refused_nor_what_is_taken(kept):
    W = [[3.0, 0.0], [0.0, 2.0], [0.0, 1.0]]
    for reference in (None, singular_values(W)):
        assert (spectral_distance(W, kept, reference) == 0.5).all()
        with pytest.raises(ValueError, match="not finite"):  # in a row that goes
            spectral_distance([*W[:2], [0.0, math.nan]], kept, reference)


def test_values_equal_in_the_reals_alone_are_no_ties(generator):
    Q = torch.linalg.qr(normal(10, 10, generator=generator)).Q
    for k in range(1, 9):
        assert spectral_distance(torch.eye(10), torch.arange(k)) == 0
        assert spectral_distance(Q, torch.arange(k)) > 0
        rounded = (singular_values(M).round(decimals=12) for M in (Q, Q[:k]))
        assert ks_distance(*rounded) == 0


# shrinking, skewing and the floor


@pytest.mark.parametrize("k", [2, 4, 6])
def test_random_slicing_spreads_the_spectrum_in_the_mean(k, generator):
    W = normal(7, 4, generator=generator)
    every = torch.tensor(list(combinations(range(7), k)))
    mu = torch.stack([torch.linalg.svdvals(W[rows]) for rows in every])
    mu = torch.nn.functional.pad(7 / k * mu**2, (0, 4 - mu.shape[1])).mean(0)
    gain = mu.cumsum(0) - torch.linalg.svdvals(W).square().cumsum(0)
    assert (gain[:-1] > 0).all() and abs(gain[-1]) < 1e-12


def test_the_effect_splits_the_distance_into_factor_and_shape(generator):
    W = torch.cat([torch.eye(4)] * 4)  # every quarter is the identity
    effect = slicing_effect(RowSlices(W), torch.arange(8).reshape(1, 8))
    torch.testing.assert_close(effect.ratios[0], torch.full((4,), 0.5**0.5).double())
    assert effect.distance.tolist() == [1.0]
    gauss = normal(200, 60, generator=generator)
    kept = uniform_selections(200, 140, 3, generator=generator)
    effect = slicing_effect(RowSlices(gauss), kept)
    assert effect.ratios.shape == (3, 60) and (effect.ratios <= 1).all()
    scaled = [singular_values(gauss[rows]) * (200 / 140) ** 0.5 for rows in kept]
    expected = [ks_2samp(singular_values(gauss), s).statistic for s in scaled]
    assert effect.shape_distance.tolist() == expected
    assert (effect.shape_distance < effect.distance).all()


def test_the_effect_on_a_value_that_is_zero_to_rounding_is_refused(generator):
    W = normal(9, 3, generator=generator)
    deficient = torch.cat([W, W[:, :1]], 1)
    for slices in (
        RowSlices(deficient),
        RowSlices(1e200 * deficient),
        RowSlices(deficient, dtype=torch.float32),
        RowSlices(torch.zeros(9, 4)),
    ):
        with pytest.raises(ValueError, match="0 to rounding; give a matrix of full"):
            slicing_effect(slices, torch.arange(6))
    two = slicing_effect(RowSlices(deficient), torch.arange(2))  # no fourth value
    assert two.ratios.isfinite().all() and two.ratios.shape == (2,)
    for dtype, smallest in ((torch.float64, 1e-6), (torch.float32, 1e-2)):
        W = graded_matrix(9, [1.0, 0.1, smallest], generator=generator)
        effect = slicing_effect(RowSlices(W, dtype=dtype), torch.arange(6))
        exact = torch.linalg.svdvals(W[:6]) / torch.linalg.svdvals(W)
        torch.testing.assert_close(effect.ratios, exact, rtol=0.01, atol=0)


@given(st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([0, 0.5, 2]))
def test_no_selection_is_below_the_floor(seed, n, spread):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.exp(spread * normal(8, generator=generator))
    W = scale[:, None] * normal(8, n, generator=generator)
    slices = RowSlices(W)
    for k in range(n, 9):
        every = torch.tensor(list(combinations(range(8), k)))
        spectra = [torch.linalg.svdvals(W[rows]) for rows in every]
        best = ks_distance(torch.linalg.svdvals(W), torch.stack(spectra)).min()
        assert best >= distance_floor(slices, k)


def test_the_floor_is_zero_where_deleting_costs_nothing_and_tight_where_it_must_be():
    W = torch.cat([torch.diag(torch.arange(5.0, 0, -1)), torch.zeros(2, 5)])
    slices = RowSlices(W)
    assert distance_floor(slices, 5) == distance_floor(slices, 7) == 0
    assert slices.distance(torch.arange(5)) == 0
    twice = RowSlices(torch.cat([torch.eye(3), 2 * torch.eye(3)]))
    every = torch.tensor(list(combinations(range(6), 4)))
    assert distance_floor(twice, 4) == twice.distance(every).min() == 1 / 3
    single = RowSlices(W[:5], dtype=torch.float32)
    assert distance_floor(single, 5) == 0


def test_figures_show_every_layer_and_route(generator):
    from matplotlib.figure import Figure

    values = torch.logspace(0, -2, 5, dtype=torch.float64)
    errors = {"SVD": (values * 0, 1e-16), "Gram": (values * 1e-9, 1e-8)}
    ax = plot_gram_errors(Figure().subplots(), values, errors)
    assert len(ax.lines) == 3 and (ax.lines[2].get_ydata() == 1e-8 / values**2).all()
    ratios = torch.rand(3, 5, generator=generator)
    ax = plot_ratios(Figure().subplots(), ratios, {"factor": 0.8})
    assert [len(line.get_ydata()) for line in ax.lines] == [5] * 4
    ax = plot_layer_distances(
        Figure().subplots(), {"a": torch.rand(3, 2)}, torch.zeros(3)
    )
    assert len(ax.lines) == 2 and len(ax.collections) == 1
