"""Perplexity of a text and divergence on the model's own text, against oracles."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prunefair.models import load_model, load_tokenizer, within_context
from prunefair.pruning.estimates import standard_error
from prunefair.pruning.perplexity import (
    information,
    kl_per_position,
    kl_to_dense,
    log_perplexity,
    perplexity,
    random_llama,
    self_sample,
    start_token,
    text_windows,
    token_nats,
    wikitext_tokens,
)
from prunefair.pruning.surgery import tiny_model


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("smollm2")


@pytest.fixture(scope="module")
def tiny():
    return random_llama(vocabulary=11, generator=seeded(1))


# perplexity


def test_information_equals_the_log_softmax_in_float64():
    logits = 5 * torch.randn(3, 7, 50, generator=seeded(), dtype=torch.float64)
    tokens = torch.randint(50, (3, 7), generator=seeded())
    expected = -logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(information(logits, tokens), expected)


def test_information_survives_half_precision_logits_of_large_scale():
    logits = torch.tensor([[60000.0, 0.0, -60000.0]], dtype=torch.float16)
    assert information(logits, torch.tensor([0])) == 0
    assert information(logits, torch.tensor([2])) == 120000


def test_token_nats_equal_the_loss_of_the_library(tiny):
    tokens = torch.randint(11, (1, 30), generator=seeded())
    loss = tiny(tokens, labels=tokens).loss
    assert float(token_nats(tiny, tokens).mean()) == pytest.approx(
        loss.item(), rel=1e-6
    )


@given(st.integers(2, 60), st.integers(2, 20), st.data())
def test_windows_score_no_token_twice_and_none_without_context(length, window, data):
    stride = data.draw(st.integers(1, window))
    windows = text_windows(length, window, stride)
    scored = [i for _, first, end in windows for i in range(first, end)]
    assert len(scored) == len(set(scored))
    assert all(start < first <= end <= start + window for start, first, end in windows)
    if stride < window:
        assert scored == list(range(1, length))
    else:
        assert scored == [i for i in range(length) if i % window]


def test_perplexity_without_overlap_is_the_weighted_exponential(tiny):
    text = torch.randint(11, (25,), generator=seeded())
    total = count = 0
    for start in (0, 10, 20):
        part = text[None, start : start + 10]
        size = part.shape[1] - 1
        total, count = total + tiny(part, labels=part).loss.item() * size, count + size
    assert perplexity(tiny, text, window=10) == pytest.approx(math.exp(total / count))


def test_the_mean_of_window_perplexities_is_not_the_perplexity(tiny):
    text = torch.randint(11, (40,), generator=seeded(3))
    wrong = np.mean([perplexity(tiny, part, window=10) for part in text.split(10)])
    assert wrong > perplexity(tiny, text, window=10) * 1.001


def test_sliding_windows_condition_on_the_tokens_before(tiny):
    text = torch.randint(11, (9,), generator=seeded())
    nats = [
        token_nats(tiny, text[None, max(0, i - 3) : i + 1])[0, -1] for i in range(1, 9)
    ]
    expected = math.exp(float(torch.stack(nats).mean()))
    assert perplexity(tiny, text, window=4, stride=1) == pytest.approx(expected)


def test_a_window_as_long_as_the_text_sees_all_of_it(tiny):
    text = torch.randint(11, (12,), generator=seeded())
    whole = math.exp(token_nats(tiny, text[None]).mean())
    assert perplexity(tiny, text, window=12) == pytest.approx(whole)
    assert perplexity(tiny, text, window=100) == pytest.approx(whole)


def test_a_model_without_knowledge_has_the_perplexity_of_the_vocabulary():
    model = random_llama(vocabulary=7, scale=0.0, generator=seeded())
    text = torch.randint(7, (20,), generator=seeded())
    assert perplexity(model, text, window=5) == pytest.approx(7)


@pytest.mark.parametrize(
    ("mean", "expected"), [(709.0, math.exp(709)), (710.0, math.inf)]
)
def test_a_perplexity_too_large_for_a_float_is_infinite(
    monkeypatch, tiny, mean, expected
):
    nats = torch.full((1, 9), mean, dtype=torch.float64)
    monkeypatch.setattr(
        "prunefair.pruning.perplexity.token_nats", lambda model, tokens: nats
    )
    assert perplexity(tiny, torch.zeros(10, dtype=torch.int64)) == expected


def test_a_beginning_stands_in_every_window_and_counts_among_its_tokens(tiny):
    text = torch.randint(11, (11,), generator=seeded())
    nats = [
        token_nats(tiny, torch.tensor([[7, *part.tolist()]])).sum()
        for part in text.split(4)
    ]
    expected = math.exp(float(sum(nats)) / 11)  # the first token is scored, too
    found = perplexity(tiny, text, window=5, beginning=[7])
    assert found == pytest.approx(expected, rel=1e-9)
    assert found != pytest.approx(perplexity(tiny, text, window=5), rel=1e-3)
    nats = [  # two tokens before, the text's own in steps of one
        token_nats(tiny, torch.tensor([[7, 8, *text[max(0, i - 2) : i + 1].tolist()]]))
        for i in range(11)
    ]
    expected = math.exp(float(sum(n[0, -1] for n in nats)) / 11)
    sliding = {"window": 5, "stride": 1, "beginning": (7, 8)}
    assert perplexity(tiny, text, **sliding) == pytest.approx(expected, rel=1e-9)


def test_no_window_is_longer_than_the_context():
    model = tiny_model("opt", generator=seeded(), max_position_embeddings=8)
    text = torch.randint(32, (30,), generator=seeded())
    assert within_context(model, 1024) == 8 and within_context(model, 5) == 5
    assert perplexity(model, text) == perplexity(model, text, window=8)
    assert perplexity(model, text, beginning=[1]) > 0
    endless = SimpleNamespace(get_text_config=SimpleNamespace)  # such as BLOOM
    assert within_context(SimpleNamespace(config=endless), 1024) == 1024


def test_perplexity_rejects_bad_arguments(tiny):
    text = torch.zeros(10, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"tokens is torch.int64 of shape \(2, 5\)"):
        perplexity(tiny, text.view(2, 5))
    with pytest.raises(ValueError, match=r"tokens is torch.int64 of shape \(1,\)"):
        perplexity(tiny, text[:1])
    with pytest.raises(ValueError, match="window is 1"):
        perplexity(tiny, text, window=1)
    with pytest.raises(ValueError, match="stride is 5; it must lie between 1 and 4"):
        perplexity(tiny, text, window=4, stride=5)
    with pytest.raises(ValueError, match="stride is 0"):
        text_windows(10, 4, 0)
    with pytest.raises(ValueError, match="max_windows is 0"):
        perplexity(tiny, text, max_windows=0)


def test_wikitext_is_one_text_without_special_tokens(tokenizer):
    tokens = wikitext_tokens(tokenizer)
    assert tokens.dtype == torch.int64
    assert len(tokens) == 312_144
    assert tokens[0] != tokenizer.bos_token_id
    assert tokenizer.decode(tokens[:8]).startswith(" \n = Robert <unk>")
    with pytest.raises(ValueError, match="split is 'train'"):
        wikitext_tokens(tokenizer, "train")


# the error of a perplexity


def test_log_perplexity_weighs_tokens_and_not_windows():
    assert log_perplexity([10, 90], [10, 30]).value == 2.5
    equal = log_perplexity([20.0, 40, 30], [10, 10, 10])
    np.testing.assert_allclose(equal.stderr, standard_error(np.array([2.0, 4, 3])))
    assert np.isnan(log_perplexity([3.0], [1]).stderr)
    with pytest.raises(ValueError, match="nats is empty"):
        log_perplexity([], [1])
    with pytest.raises(ValueError, match="counts has 1 windows; give all 2"):
        log_perplexity([3.0, 4.0], [1])


def test_the_error_of_log_perplexity_covers_the_truth_at_its_level():
    rng, inside = np.random.default_rng(3), 0
    for _ in range(1000):
        n = rng.integers(200, 1000, 60)
        e = log_perplexity(n * rng.gamma(9, 1 / 3, 60), n)
        inside += abs(e.value - 3) < 1.96 * e.stderr
    assert 0.92 < inside / 1000 < 0.97


# divergence


def test_samples_are_reproducible_and_begin_with_the_start_token(tiny):
    first = self_sample(tiny, 3, 6, generator=seeded(5))
    assert torch.equal(first, self_sample(tiny, 3, 6, generator=seeded(5)))
    assert not torch.equal(first, self_sample(tiny, 3, 6, generator=seeded(6)))
    assert first.shape == (3, 6)
    assert (first[:, 0] == 0).all()
    assert (self_sample(tiny, 2, 1, generator=seeded(), start=4) == 4).all()


def test_samples_follow_the_models_distribution_over_texts():
    model = random_llama(vocabulary=3, generator=seeded(4))
    texts = torch.tensor([[0, *t] for t in itertools.product(range(3), repeat=2)])
    p = torch.exp(-token_nats(model, texts).sum(1)).numpy()
    drawn = self_sample(model, 20_000, 3, generator=seeded(7))
    counts = np.bincount(3 * drawn[:, 1] + drawn[:, 2], minlength=9)
    assert stats.chisquare(counts, 20_000 * p / p.sum()).pvalue > 0.001
    wrong = np.full(9, 20_000 / 9)  # a sampler that ignores the model is found out
    assert stats.chisquare(counts, wrong).pvalue < 1e-6


def test_temperature_divides_the_logits_of_every_token():
    model = random_llama(vocabulary=3, generator=seeded(4))
    texts = torch.tensor([[0, *t] for t in itertools.product(range(3), repeat=2)])
    with torch.no_grad():
        steps = (model(texts[:, :-1]).logits / 0.5).log_softmax(-1)
    p = steps.gather(-1, texts[:, 1:, None])[..., 0].sum(1).exp().numpy()
    options = {"generator": seeded(7), "temperature": 0.5}
    drawn = self_sample(model, 20_000, 3, **options)
    counts = np.bincount(3 * drawn[:, 1] + drawn[:, 2], minlength=9)
    assert stats.chisquare(counts, 20_000 * p / p.sum()).pvalue > 0.001
    untempered = torch.exp(-token_nats(model, texts).sum(1)).numpy()
    untempered = 20_000 * untempered / untempered.sum()
    assert stats.chisquare(counts, untempered).pvalue < 1e-6


def test_temperature_one_leaves_the_draws_alone(tiny):
    one = self_sample(tiny, 4, 9, generator=seeded(5), temperature=1)
    assert torch.equal(one, self_sample(tiny, 4, 9, generator=seeded(5)))
    tokens, generator = torch.zeros(4, 9, dtype=torch.int64), seeded(5)
    for i in range(8):  # without a cache, and without a division
        with torch.no_grad():
            p = tiny(tokens[:, : i + 1]).logits[:, -1].float().softmax(-1)
        tokens[:, i + 1] = torch.multinomial(p, 1, generator=generator)[:, 0]
    assert torch.equal(one, tokens)


def drawn_without_cache(model, first, n, length, temperature, generator):
    """Texts behind given tokens, every token by a pass over the whole text so far."""
    texts = [list(first) for _ in range(n)]
    while len(texts[0]) < length:
        with torch.no_grad():
            logits = [model(torch.tensor([t])).logits[0, -1].float() for t in texts]
        p = (torch.stack(logits) / temperature).softmax(-1)
        for text, token in zip(texts, p.multinomial(1, generator=generator)):
            text.append(int(token))
    return texts


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("first", [[4], [1, 5, 2], [7, 7, 0, 3, 1, 2]])
def test_text_behind_a_start_is_that_of_a_model_without_cache(tiny, first, temperature):
    options = {"start": first, "temperature": temperature}
    found = self_sample(tiny, 3, 10, generator=seeded(9), **options)
    own = drawn_without_cache(tiny, first, 3, 10, temperature, seeded(9))
    assert found.tolist() == own and found.dtype == torch.int64
    for wrong in (first[-1:], first[::-1]):  # the whole start is read, in its order
        if wrong != first:
            other = drawn_without_cache(tiny, wrong, 3, 10, temperature, seeded(9))
            behind = [text[len(wrong) :] for text in other]
            assert behind != [text[len(first) :][: len(behind[0])] for text in own]


def test_a_start_may_be_a_number_a_list_or_an_array(tiny):
    def drawn(start, length=6):
        return self_sample(tiny, 2, length, generator=seeded(3), start=start)

    assert torch.equal(drawn(4), drawn([4]))
    for same in (torch.tensor([4, 2]), np.array([4, 2]), (4, 2)):
        assert torch.equal(drawn([4, 2]), drawn(same))
    assert drawn([4, 2], 2).tolist() == [[4, 2], [4, 2]]  # nothing left to draw


def test_cold_text_behind_a_start_is_the_likeliest(tiny):
    options = {"generator": seeded(10), "temperature": 1e-4, "start": [1, 5]}
    text = self_sample(tiny, 2, 5, **options)
    with torch.no_grad():
        best = tiny(text[:, :-1]).logits.argmax(-1)[:, 1:]
    assert torch.equal(text[:, 2:], best)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ([], "start is torch.float32 of shape .0,.; give one text"),
        ([[1, 2]], "start is torch.int64 of shape .1, 2.; give one text"),
        ([0.5], "start is torch.float32 of shape .1,.; give one text"),
        ("Once", "start is 'Once'; give one text"),
        ([1, 11], "start holds 11, and the model has embeddings of the tokens 0 to 10"),
        (-1, "start holds -1"),
        (range(6), "length is 5, and start alone has 6 tokens; give a length of 6"),
    ],
)
def test_a_start_that_is_none_is_refused(tiny, start, message):
    with pytest.raises(ValueError, match=message):
        self_sample(tiny, 1, 5, generator=seeded(), start=start)


def test_self_sample_rejects_bad_arguments(tiny):
    for temperature in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"temperature is {temperature}"):
            self_sample(tiny, 1, 5, generator=seeded(), temperature=temperature)
    with pytest.raises(ValueError, match="n_sequences, length are 0, 5"):
        self_sample(tiny, 0, 5, generator=seeded())
    silent = random_llama(vocabulary=5, generator=seeded())
    silent.config.bos_token_id = silent.config.eos_token_id = None
    with pytest.raises(ValueError, match="start is None"):
        self_sample(silent, 1, 5, generator=seeded())
    silent.config.eos_token_id = [3, 4]
    assert start_token(silent) == 3
    silent.config.bos_token_id = 2
    assert start_token(silent) == 2 and start_token(silent, 1) == 1


def test_divergence_equals_scipys_entropy_at_every_position(tiny):
    other = random_llama(vocabulary=11, generator=seeded(9))
    tokens = torch.randint(11, (5, 8), generator=seeded())
    with torch.no_grad():
        p, q = (m(tokens).logits.softmax(-1).numpy() for m in (tiny, other))
    found = kl_per_position(tiny, other, tokens, batch_size=2)
    np.testing.assert_allclose(found, stats.entropy(p, q, axis=-1), rtol=1e-8)
    assert kl_to_dense(tiny, other, tokens) == pytest.approx(float(found.mean()))
    swapped = stats.entropy(q, p, axis=-1)  # the other direction is another number
    assert abs(float(found.mean()) - swapped.mean()) > 1e-3


def test_divergence_vanishes_only_for_the_same_model(tiny):
    other = random_llama(vocabulary=11, generator=seeded(9))
    tokens = self_sample(tiny, 4, 6, generator=seeded())
    assert kl_to_dense(tiny, tiny, tokens) == pytest.approx(0, abs=1e-12)
    assert (kl_per_position(tiny, other, tokens) > 0).all()


def test_chain_rule_holds_by_enumeration_and_fails_on_other_text():
    p, q = (random_llama(vocabulary=3, generator=seeded(s)) for s in (1, 2))
    texts = torch.tensor([[0, *t] for t in itertools.product(range(3), repeat=4)])
    log_p, log_q = (-token_nats(m, texts).sum(1) for m in (p, q))
    joint = log_p.exp() @ (log_p - log_q) / 4
    conditional = kl_per_position(p, q, texts[:, :-1]).mean(1)
    assert float(log_p.exp() @ conditional) == pytest.approx(float(joint), rel=1e-8)
    assert float(conditional.mean()) != pytest.approx(float(joint), rel=1e-3)


def test_kl_rejects_bad_arguments(tiny):
    with pytest.raises(ValueError, match=r"tokens is torch.int64 of shape \(4,\)"):
        kl_to_dense(tiny, tiny, torch.zeros(4, dtype=torch.int64))
    other = random_llama(vocabulary=12, generator=seeded())
    with pytest.raises(
        ValueError, match="pruned has 12 tokens to choose from, dense 11"
    ):
        kl_to_dense(tiny, other, torch.zeros(1, 4, dtype=torch.int64))
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size is {size}; it must be at"):
            kl_to_dense(tiny, tiny, torch.zeros(1, 4).long(), batch_size=size)


# the small real model


def test_the_real_model_has_the_perplexity_of_the_librarys_own_loss(tokenizer):
    model = load_model("smollm2")
    text = wikitext_tokens(tokenizer)[:320]
    with torch.no_grad():
        hidden = model.model(text[None]).last_hidden_state
        logits = model.lm_head(hidden)[0, :-1].double()
    oracle = torch.nn.functional.cross_entropy(logits, text[1:])
    assert perplexity(model, text) == pytest.approx(math.exp(oracle), rel=1e-5)
    assert kl_to_dense(model, model, text[None, :16]) == pytest.approx(0, abs=1e-6)
