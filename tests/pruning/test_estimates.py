"""Estimates over seeds and over pairs, with their errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prunefair.pruning.estimates import (
    Estimate,
    half_interval,
    range_over_seeds,
    rank_correlation,
    standard_error,
)


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=30))
def test_half_an_interval_is_students(values):
    if np.ptp(values):
        found = stats.t.interval(0.95, len(values) - 1, 0, stats.sem(values))
        np.testing.assert_allclose(half_interval(values), found[1], rtol=1e-9)
    else:
        assert half_interval(values) == 0


def test_half_an_interval_of_one_value_is_not_known():
    assert np.isnan(half_interval([3.0])) and np.isnan(half_interval([]))


@pytest.mark.parametrize("n", [4, 16])
def test_students_interval_covers_the_mean_of_few_values_where_the_normal_fails(n):
    draws = np.random.default_rng(0).normal(2, 3, size=(20_000, n))
    off = np.abs(draws.mean(1) - 2)
    halves = np.array([half_interval(row) for row in draws])
    normal = np.array([1.96 * standard_error(row) for row in draws])
    student, too_few = (off < halves).mean(), (off < normal).mean()
    error = (0.95 * 0.05 / len(draws)) ** 0.5
    assert abs(student - 0.95) < 4 * error
    assert too_few < 0.95 - 8 * error


def test_a_range_holds_the_intervals_of_all_seeds():
    found = range_over_seeds([Estimate(1.0, 0.5), Estimate(2.0, 0.0)])
    assert found.value == 1.5
    np.testing.assert_allclose([found.low, found.high], [1 - 0.98, 2.0])
    for unknown in ([np.nan, 0.1], [0.1, np.nan]):
        found = range_over_seeds([Estimate(1.0, e) for e in unknown])
        assert np.isnan(found.low) and np.isnan(found.high)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3))
def test_rank_correlation_is_spearmans(pairs):
    x, y = np.array(pairs, dtype=float).T
    found = rank_correlation(x, y, resamples=50, rng=np.random.default_rng(0))
    if np.ptp(x) and np.ptp(y):
        np.testing.assert_allclose(
            found.value, stats.spearmanr(x, y).statistic, atol=1e-12
        )
    else:  # nothing is ranked
        assert found.value == 0


def test_rank_correlation_refuses_two_pairs():
    for x, y in (([1, 2], [3, 4]), ([1, 2, 3], [1, 2, 3, 4])):
        with pytest.raises(ValueError, match="3 pairs"):
            rank_correlation(x, y, rng=np.random.default_rng(0))
