"""Windows of five kinds of text."""

import json

import pytest
import torch

from prunefair.data import data_file
from prunefair.models import load_tokenizer
from prunefair.pruning.domains import DOMAINS, domain_windows, right_answer
from prunefair.pruning.perplexity import wikitext_tokens


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("smollm2")


def test_a_text_is_the_question_and_its_right_answer_without_the_frame():
    framed = {"context": "Question: Why?\nAnswer:", "choices": ["a", "b"], "gold": 1}
    assert right_answer(framed) == "Why? b"
    assert right_answer({"question": "Why? ", "choices": ["a"], "gold": 0}) == "Why? a"
    assert right_answer(framed | {"context": "A man. he"}) == "A man. he b"


@pytest.mark.parametrize("domain", DOMAINS)
def test_windows_of_one_seed_begin_alike_and_those_of_another_are_others(
    tokenizer, domain
):
    few = domain_windows(tokenizer, domain, window=32, count=3, seed=5)
    more = domain_windows(tokenizer, domain, window=32, count=9, seed=5)
    assert few.shape == (3, 32) and torch.equal(more[:3], few)
    other = domain_windows(tokenizer, domain, window=32, count=3, seed=6)
    assert not torch.equal(few, other)
    assert len({tuple(window.tolist()) for window in more}) == 9


def test_every_right_answer_is_in_the_text_once(tokenizer):
    rows = data_file("zeroshot/piqa.jsonl").read_text().splitlines()
    longest = sum(map(len, rows)) // 10
    with pytest.raises(ValueError, match="take less"):
        domain_windows(tokenizer, "household", window=longest, count=10, seed=1)
    windows = domain_windows(tokenizer, "household", window=40_000, count=1, seed=1)
    text = tokenizer.decode(windows[0])
    found = [right_answer(json.loads(row)) for row in rows]
    asked = [line for line in set(found) if f"\n\n{line}\n\n" in text]
    assert len(asked) > 100
    assert all(text.count(f"\n\n{line}\n\n") <= found.count(line) for line in asked)


def test_windows_of_the_encyclopedia_are_pieces_of_it_that_share_nothing(tokenizer):
    text = wikitext_tokens(tokenizer)
    windows = domain_windows(tokenizer, "encyclopedia", window=512, count=5, seed=2)
    places = {}
    for start in range(0, len(text) - 512, 512):
        places[tuple(text[start : start + 512].tolist())] = start
    starts = [places[tuple(window.tolist())] for window in windows]
    assert len(set(starts)) == 5 and starts != sorted(starts)


def test_an_unknown_kind_of_text_is_named(tokenizer):
    with pytest.raises(ValueError, match="domain is 'poems'; give one of encyclopedia"):
        domain_windows(tokenizer, "poems", window=8, count=1, seed=0)
