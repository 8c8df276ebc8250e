"""The book's accuracies are those of lm-evaluation-harness, question by question."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from prunefair.harness import harness_results, publisher_row
from prunefair.models import load_tokenizer
from prunefair.pruning.perplexity import random_llama
from prunefair.pruning.surgery import tiny_model
from prunefair.pruning.zero_shot import (
    TASK_CHANCE,
    encode_pair,
    task_questions,
    task_rows,
    zero_shot,
)

TASKS = [*TASK_CHANCE, "mmlu_conceptual_physics"]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("smollm2")


@pytest.fixture(scope="module")
def model(tokenizer):
    """Float64, so that no choice hangs on the order of a summation."""
    generator = torch.Generator().manual_seed(2)
    return random_llama(vocabulary=len(tokenizer), generator=generator)


@pytest.fixture(scope="module")
def theirs(model, tokenizer):
    pytest.importorskip("lm_eval", reason="needs the extra eval")
    return harness_results(model, tokenizer, TASKS, limit=3, batch_size=2)


def assert_equal(ours, theirs):
    """The same log-likelihoods, and the same outcome of every question."""
    found = ours.per_question
    outcomes = {"acc": found.correct, "acc_norm": found.correct_norm}
    for metric, outcome in theirs.metrics.items():
        assert outcomes[metric].tolist() == outcome.tolist()
        assert getattr(ours, metric) == theirs.means[metric]
    pairs = zip(found.log_likelihoods, theirs.log_likelihoods, strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-9)
        assert np.argmax(a) == np.argmax(b)


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_those_which_the_harness_renders(task, theirs):
    ours = [
        [(c, f" {t}") for c, t in zip(q.contexts, q.continuations, strict=True)]
        for q in task_questions(task, 3)
    ]
    assert theirs[task].prompts == ours


@pytest.mark.parametrize("task", TASKS)
def test_scores_and_accuracies_equal_the_harness(task, theirs, model, tokenizer):
    ours = zero_shot(model, tokenizer, [task], limit=3, length="characters")[task]
    assert set(theirs[task].metrics) >= {"acc"}
    assert ours.n == len(theirs[task].log_likelihoods) == 3
    assert_equal(ours, theirs[task])


def test_long_prompts_sliding_windows_and_beginnings_score_as_in_the_harness():
    """Gemma-like: the context is shorter than a prompt of MMLU, the window too."""
    pytest.importorskip("lm_eval", reason="needs the extra eval")
    tokenizer = load_tokenizer("smollm2")
    special = [("<|im_start|>", tokenizer.vocab["<|im_start|>"])]
    frame = TemplateProcessing(single="<|im_start|> $A", special_tokens=special)
    tokenizer.backend_tokenizer.post_processor = frame
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 100}
    size |= {"sliding_window": 20, "dtype": torch.float64}
    model = tiny_model("mistral", generator=torch.Generator().manual_seed(3), **size)
    tasks = ["mmlu_conceptual_physics", "hellaswag"]
    theirs = harness_results(model, tokenizer, tasks, limit=3, batch_size=3)
    ours = zero_shot(model, tokenizer, tasks, limit=3, length="characters")
    for task in tasks:
        assert_equal(ours[task], theirs[task])


def test_the_harness_would_rewrite_a_third_of_the_local_hellaswag():
    pytest.importorskip("lm_eval", reason="needs the extra eval")
    from lm_eval.tasks.hellaswag.utils import process_docs

    rows, docs = task_rows("zeroshot/hellaswag.jsonl"), []
    for row in rows:
        label, text = row["context"].split(": ", 1)
        last = re.search(r"(?<=[.!?]) +[a-z][^.!?]*$", text)  # begun in lower case
        begin = last.start() if last else len(text)
        parts = {"ctx_a": text[:begin], "ctx_b": text[begin:].strip()}
        doc = {"activity_label": label, "endings": row["choices"], "label": row["gold"]}
        docs.append(doc | parts)
    theirs = process_docs(SimpleNamespace(map=lambda f: [f(doc) for doc in docs]))
    contexts = [new["query"] != old["context"] for new, old in zip(theirs, rows)]
    choices = [new["choices"] != old["choices"] for new, old in zip(theirs, rows)]
    assert sum(bool(doc["ctx_b"]) for doc in docs) == 3236
    assert (sum(contexts), sum(choices), len(rows)) == (3238, 12, 10042)


def test_both_lengths_equal_the_harness_where_they_choose_differently(
    monkeypatch, model, tokenizer
):
    pytest.importorskip("lm_eval", reason="needs the extra eval")
    context = "Question: Comment dit-on?\nAnswer:"
    rows = [
        {"context": context, "choices": ["é" * n, "a" * m], "gold": 0}
        for n in range(2, 6)
        for m in range(2, 12)
    ]
    monkeypatch.setattr(
        "prunefair.pruning.zero_shot.task_rows", lambda path, limit, folder=None: rows
    )
    names = ("acc", "acc_norm", "acc_bytes")
    metrics = [
        {"metric": m, "aggregation": "mean", "higher_is_better": True} for m in names
    ]
    theirs = harness_results(
        model, tokenizer, ["piqa"], batch_size=20, metric_list=metrics
    )["piqa"]
    found = {}
    for length, name in {"characters": "acc_norm", "bytes": "acc_bytes"}.items():
        ours = zero_shot(model, tokenizer, ["piqa"], length=length)["piqa"]
        found[length] = ours.per_question.correct_norm.tolist()
        assert found[length] == theirs.metrics[name].tolist()
    assert found["bytes"] != found["characters"]


def test_a_beginning_of_text_token_is_added_where_the_tokenizer_adds_one(model):
    pytest.importorskip("lm_eval", reason="needs the extra eval")
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer("smollm2")
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    assert encode_pair(tokenizer, "why", " so").tokens[0] == tokenizer.bos_token_id
    ours = zero_shot(model, tokenizer, ["winogrande"], limit=3)
    theirs = harness_results(model, tokenizer, ["winogrande"], limit=3, batch_size=2)
    assert_equal(ours["winogrande"], theirs["winogrande"])


def test_a_winogrande_row_is_taken_apart_where_the_contexts_part():
    row = {"contexts": ["So Sarah", "So Sam"], "continuation": "left.", "gold": 1}
    assert publisher_row("winogrande", row) == {
        "sentence": "So Sa_ left.",
        "option1": "rah",
        "option2": "m",
        "answer": "2",
    }


def test_without_the_harness_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ImportError, match=r"install prunefair\[eval\]"):
        harness_results(None, None, ["piqa"])


@pytest.mark.parametrize("task", ["mmlu", "boolq"])
def test_a_task_that_is_not_there_is_refused_by_name(task):
    with pytest.raises(
        ValueError, match=f"task is '{task}'; use some of piqa, .*mmlu_"
    ):
        harness_results(None, None, ["piqa", task])
