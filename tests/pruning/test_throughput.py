"""Tokens a second, reading and writing apart."""

import pytest
import torch

from prunefair.pruning.perplexity import random_llama
from prunefair.pruning.throughput import throughput


@pytest.fixture(scope="module")
def tiny():
    return random_llama(vocabulary=11, generator=torch.Generator().manual_seed(1))


def test_throughput_divides_tokens_by_the_fastest_run_after_the_warm_up(tiny):
    times = iter([0, 50, 99, 100, 104, 114, 200, 202, 222])  # three looks a run
    tokens = torch.zeros(3, 8, dtype=torch.int64)
    found = throughput(tiny, tokens, 5, repeats=2, clock=lambda: next(times))
    assert found == (24 / 2, 15 / 10)


def test_decoding_feeds_one_token_at_a_time_with_a_cache(tiny):
    widths = []
    hook = tiny.model.register_forward_pre_hook(
        lambda module, args, options: widths.append(options["input_ids"].shape[1]),
        with_kwargs=True,
    )
    throughput(tiny, torch.zeros(1, 6, dtype=torch.int64), 4, repeats=1)
    hook.remove()
    assert widths == [6, 1, 1, 1, 1] * 2


def test_throughput_rejects_bad_arguments(tiny):
    with pytest.raises(ValueError, match="new_tokens, repeats are 0, 3"):
        throughput(tiny, torch.zeros(1, 2, dtype=torch.int64), 0)
