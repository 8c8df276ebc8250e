"""Two models on the same questions: retention and its errors, against oracles."""

import math

import numpy as np
import pytest
from scipy import stats

from prunefair.pruning.estimates import standard_error
from prunefair.pruning.retention import (
    STATISTICS,
    above_chance_retention,
    accuracy_difference,
    mean_accuracies,
    paired_bootstrap,
    paired_outcomes,
    plot_retention,
    raw_retention,
    resampled_outcomes,
    simulated_results,
)
from prunefair.pruning.zero_shot import TASK_CHANCE, PerQuestion, TaskResult


def results(outcomes, norm=None, chance=0.25):
    """Task results from vectors of right and wrong answers."""
    table = {}
    for name, correct in outcomes.items():
        correct = np.asarray(correct, dtype=bool)
        n = None if norm is None else np.asarray(norm[name], dtype=bool)
        table[name] = TaskResult(
            correct.mean(), None, standard_error(correct), None, len(correct), chance,
            PerQuestion(correct, n, []),
        )  # fmt: skip
    return table


def test_outcomes_count_every_question_once():
    pruned = results({"x": [1, 1, 0, 0, 0], "y": [1, 0]})
    dense = results({"x": [1, 0, 1, 0, 0], "y": [1, 1]})
    assert paired_outcomes(pruned, dense).tolist() == [[1, 1, 1, 2], [1, 0, 1, 0]]
    a, d = mean_accuracies(paired_outcomes(pruned, dense))
    assert (a, d) == (pytest.approx((0.4 + 0.5) / 2), pytest.approx((0.4 + 1) / 2))


def test_retention_is_a_ratio_of_means_raw_and_above_chance():
    pruned = results({"x": [1, 0, 0, 0], "y": [1, 1, 0, 0]})
    dense = results({"x": [1, 1, 0, 0], "y": [1, 1, 1, 0]})
    assert raw_retention(pruned, dense).value == pytest.approx(0.375 / 0.625)
    assert above_chance_retention(pruned, dense).value == pytest.approx(0.125 / 0.375)
    assert accuracy_difference(pruned, dense).value == pytest.approx(-0.25)


def test_a_model_at_chance_retains_nothing_above_chance_and_much_of_the_raw():
    dense = results({"x": [1, 1, 0, 0, 1, 0, 1, 0]}, chance=0.25)
    coin = results({"x": [1, 0, 0, 0, 1, 0, 0, 0]}, chance=0.25)
    assert above_chance_retention(coin, dense).value == 0
    assert raw_retention(coin, dense).value == 0.5


def test_the_same_model_retains_everything_without_error():
    dense = results({"x": [1, 0, 1, 1], "y": [0, 1, 1, 1]})
    for function in (raw_retention, above_chance_retention):
        assert function(dense, dense) == (1.0, 0.0)
    assert accuracy_difference(dense, dense) == (0.0, 0.0)


def test_retention_is_undefined_where_the_dense_model_is_at_chance():
    dense, better = results({"x": [1, 0, 0, 0]}), results({"x": [1, 1, 0, 0]})
    assert math.isnan(above_chance_retention(better, dense).value)
    hopeless = results({"x": [0, 0, 0, 0]})
    assert math.isnan(raw_retention(better, hopeless).value)
    rng = np.random.default_rng(0)
    boot = paired_bootstrap(better, dense, "above_chance_retention", rng=rng)
    assert (boot.low, boot.high) == (-math.inf, math.inf)
    assert math.isnan(boot.stderr)


def test_draws_without_a_retention_lie_outside_the_interval_on_both_sides():
    rng = np.random.default_rng(0)
    dense = results({"x": [1] * 21 + [0] * 9}, chance=0.5)
    pruned = results({"x": [1] * 12 + [0] * 9 + [1] * 6 + [0] * 3}, chance=0.5)
    options = {"resamples": 4000, "level": 0.95}
    boot = paired_bootstrap(
        pruned, dense, "above_chance_retention", **options, rng=np.random.default_rng(0)
    )
    counts = paired_outcomes(pruned, dense)
    a, d = mean_accuracies(resampled_outcomes(counts, 4000, rng=rng))
    bad = d <= 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        retention = (a - 0.5) / (d - 0.5)
    assert 0.005 < bad.mean() < 0.025
    low, high = (np.sort(np.where(bad, x, retention)) for x in (-np.inf, np.inf))
    assert (boot.low, boot.high) == (low[100], high[-101])
    assert boot.stderr == pytest.approx(retention[~bad].std(ddof=1))
    narrow = np.quantile(retention[~bad], [0.025, 0.975])  # as if there were no others
    assert boot.low < narrow[0] and boot.high > narrow[1]
    tight = paired_bootstrap(
        pruned, dense, "above_chance_retention", level=0.999, rng=rng
    )
    assert tight[2:] == (-math.inf, math.inf) and math.isnan(tight.stderr)


def test_a_difference_needs_no_chance():
    pair = [results({"x": x}, chance=0.0) for x in ([1, 0, 0, 1] * 9, [1, 1, 0, 0] * 9)]
    boot = paired_bootstrap(*pair, rng=np.random.default_rng(0))
    assert boot.value == 0 and -1 < boot.low < 0 < boot.high < 1
    raw = paired_bootstrap(*pair, "raw_retention", rng=np.random.default_rng(0))
    assert raw.value == 1 and 0 < raw.low < 1 < raw.high < math.inf


def test_acc_norm_is_used_where_the_task_has_it():
    norm = {"x": [0, 0, 1, 1]}
    pruned = results({"x": [1, 1, 1, 1]}, norm) | results({"y": [1, 0, 0, 0]})
    dense = results({"x": [1, 1, 1, 1]}, {"x": [1] * 4}) | results({"y": [1, 1, 0, 0]})
    assert raw_retention(pruned, dense).value == pytest.approx((1 + 0.25) / (1 + 0.5))
    found = raw_retention(pruned, dense, metric="acc_norm").value
    assert found == pytest.approx((0.5 + 0.25) / (1 + 0.5))


def test_retention_rejects_results_on_other_questions():
    one, two = results({"x": [1, 0]}), results({"x": [1, 0, 1]})
    for function in (raw_retention, above_chance_retention, accuracy_difference):
        with pytest.raises(ValueError, match="judge both on one set"):
            function(one, two)
    with pytest.raises(ValueError, match="judge both on one set"):
        paired_outcomes({}, {})
    with pytest.raises(ValueError, match="metric is 'f1'"):
        paired_outcomes(one, one, metric="f1")


def test_the_error_of_the_difference_is_the_paired_t_tests():
    rng = np.random.default_rng(1)
    a, d = rng.random((2, 200)) < [[0.5], [0.7]]
    estimate = accuracy_difference(results({"x": a}), results({"x": d}))
    t = stats.ttest_rel(a.astype(float), d.astype(float)).statistic
    assert estimate.value / estimate.stderr == pytest.approx(t)


def test_the_delta_error_covers_the_spread_over_repeated_experiments():
    accuracies = {"piqa": 0.7, "arc_easy": 0.5}
    rng = np.random.default_rng(2)
    for function in (raw_retention, above_chance_retention, accuracy_difference):
        runs = [
            function(*simulated_results(accuracies, 0.5, 400, rng=rng))
            for _ in range(400)
        ]
        values, errors = np.array(runs).T
        assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.12)


def test_bootstrap_by_counts_is_the_bootstrap_by_questions():
    rng = np.random.default_rng(3)
    counts = np.array([[30, 10, 15, 5], [2, 3, 4, 1]])
    fast = resampled_outcomes(counts, 20_000, rng=rng)
    assert (fast.sum(2) == counts.sum(1)).all()
    for task, row in enumerate(counts):
        label, n = np.repeat(np.arange(4), row), row.sum()
        picked = label[rng.integers(n, size=(20_000, n))]
        for c in range(4):
            slow = (picked == c).sum(1)
            assert fast[:, task, c].mean() == pytest.approx(slow.mean(), abs=0.15)
            assert stats.ks_2samp(fast[:, task, c], slow).statistic < 0.02


def test_bootstrap_agrees_with_the_delta_method_on_many_questions():
    rng = np.random.default_rng(4)
    usual = {name: 0.6 for name in TASK_CHANCE}
    a, d = simulated_results(usual, 0.6, 1000, rng=rng)
    linear = (accuracy_difference, raw_retention, above_chance_retention)
    for name, function in zip(STATISTICS, linear, strict=True):
        boot, delta = paired_bootstrap(a, d, name, rng=rng), function(a, d)
        assert boot.value == pytest.approx(delta.value)
        assert boot.stderr == pytest.approx(delta.stderr, rel=0.1)
        assert boot.low < delta.value < boot.high
        width = (boot.high - boot.low) / (2 * 1.96 * delta.stderr)
        assert width == pytest.approx(1, rel=0.1)


def test_an_unpaired_error_would_be_noticed():
    a, d = simulated_results({"piqa": 0.7}, 0.9, 2000, rng=np.random.default_rng(5))
    unpaired = math.hypot(a["piqa"].stderr, d["piqa"].stderr)
    assert unpaired > 2 * accuracy_difference(a, d).stderr


def test_bootstrap_rejects_bad_arguments():
    one, rng = results({"x": [1, 0]}), np.random.default_rng(0)
    with pytest.raises(ValueError, match="statistic is 'ratio'"):
        paired_bootstrap(one, one, "ratio", rng=rng)
    with pytest.raises(ValueError, match="level, resamples are 1, 4000"):
        paired_bootstrap(one, one, level=1, rng=rng)
    with pytest.raises(ValueError, match="level, resamples are 0.95, 1"):
        paired_bootstrap(one, one, resamples=1, rng=rng)


def test_the_figure_draws_both_retentions_of_every_method():
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert plot_retention(ax, {"m": {0: 0.7, 30: 0.5}}, 0.3) is ax
    raw, above = (line.get_ydata() for line in ax.lines[:2])
    np.testing.assert_allclose(raw, [1, 0.5 / 0.7])
    np.testing.assert_allclose(above, [1, 0.5])
