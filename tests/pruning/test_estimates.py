"""Estimates over seeds and over pairs, with their errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prunefair.pruning.estimates import Estimate, range_over_seeds, rank_correlation


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
