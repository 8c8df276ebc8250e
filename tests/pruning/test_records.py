"""What is stored of a model, and what comes back of it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prunefair.pruning.records import (
    ModelRecord,
    common_questions,
    evaluation_order,
    outcomes_from_hex,
    outcomes_to_hex,
    records_by_method,
    task_results,
)

SHOWN = {"seed": 0, "ratio": 0.3, "parameters": 9, "seconds": 1.5, "ks": 0.25}


def record(method="a", **fields):
    return ModelRecord(method=method, **SHOWN | fields)


@given(st.text(alphabet="01"))
def test_packing_keeps_every_outcome(outcomes):
    assert outcomes_from_hex(outcomes_to_hex(outcomes)) == outcomes
    assert len(outcomes_to_hex(outcomes)) <= len(outcomes) / 4 + 6


def test_a_record_survives_a_json_file_with_six_digits():
    whole = record(nats=[1.25, 2.5], kl=[0.123456], answers={"piqa": ["101", "011"]})
    again = ModelRecord.from_json(json.loads(json.dumps(whole.to_json())))
    assert again == whole
    assert record(nats=[1 / 3]).to_json()["nats"] == [0.333333]


def test_any_prefix_of_the_order_is_a_simple_random_sample():
    rng, firsts = np.random.default_rng(0), np.zeros(7)
    for _ in range(7000):
        order = evaluation_order(7, rng=rng)
        assert sorted(order) == [*range(7)]
        firsts[order[:3]] += 1
    assert stats.chisquare(firsts, np.full(7, 3000)).pvalue > 1e-3


def test_groups_leave_out_the_dense_model_and_other_ratios():
    records = [record("dense", ratio=0.0), record("a"), record("b"), record("a")]
    records += [record("a", ratio=0.1)]
    assert {k: len(v) for k, v in records_by_method(records, 0.3).items()} == {
        "a": 2,
        "b": 1,
    }


def test_only_questions_that_every_model_answered_count():
    one = record(answers={"piqa": ["1101", "1111"], "winogrande": ["10"]})
    two = record(answers={"piqa": ["001", "000"], "winogrande": ["0111"]})
    limits = common_questions([one, two])
    assert limits == {"piqa": 3, "winogrande": 2}
    results = task_results(one, limits)
    assert results["piqa"].acc == 2 / 3 and results["piqa"].acc_norm == 1
    assert results["winogrande"].acc_norm is None and results["winogrande"].n == 2
    assert common_questions([one, record()]) == {}
    with pytest.raises(
        ValueError, match="asks for 4 questions of piqa, of which a has"
    ):
        task_results(two, {"piqa": 4})
    with pytest.raises(ValueError, match="of which a has answered 0"):
        task_results(record(), {"piqa": 4})
