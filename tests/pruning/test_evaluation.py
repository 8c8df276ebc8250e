"""Perplexity, divergence, zero-shot accuracy and retention against oracles."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tokenizers.processors import TemplateProcessing

import prunefair.pruning.evaluation as evaluation
from prunefair.models import load_model, load_tokenizer, within_context
from prunefair.pruning.anatomy import counted_flops
from prunefair.pruning.comparison import lost_outputs
from prunefair.pruning.compression import output_energies
from prunefair.pruning.evaluation import (
    LETTERS,
    MMLU_CHANCE,
    STATISTICS,
    TASK_CHANCE,
    ChoiceTokens,
    PerQuestion,
    Question,
    TaskResult,
    above_chance_retention,
    accuracy_difference,
    beginning_tokens,
    choice_log_likelihoods,
    common_stem,
    encode_pair,
    encoded_questions,
    information,
    kl_per_position,
    kl_to_dense,
    last_tokens,
    log_likelihoods,
    mean_accuracies,
    mmlu_questions,
    paired_bootstrap,
    paired_outcomes,
    perplexity,
    plot_retention,
    random_llama,
    raw_retention,
    resampled_outcomes,
    self_sample,
    shared_prefix,
    similar_batches,
    simulated_results,
    standard_error,
    start_token,
    task_questions,
    task_result,
    text_windows,
    throughput,
    token_nats,
    tokens_read,
    wikitext_tokens,
    zero_shot,
)
from prunefair.pruning.functional_policy import fisher_costs
from prunefair.pruning.recovery import window_nats
from prunefair.pruning.refit import prune_functional
from prunefair.pruning.self_moments import hidden_moments
from prunefair.pruning.surgery import ADAPTERS, tiny_model


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("smollm2")


@pytest.fixture(scope="module")
def tiny():
    return random_llama(vocabulary=11, generator=seeded(1))


@pytest.fixture(scope="module")
def tiny_real(tokenizer):
    """Random model with the real vocabulary, so that real text can be scored."""
    return random_llama(vocabulary=len(tokenizer), generator=seeded(2))


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
    monkeypatch.setattr(evaluation, "token_nats", lambda model, tokens: nats)
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


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_a_text_longer_than_the_context_is_refused(family):
    """OPT has no more positions; LLaMA would go on without a word."""
    model = tiny_model(family, generator=seeded(), max_position_embeddings=8)
    texts = torch.randint(32, (2, 12), generator=seeded())
    message = r"a text of 1\d tokens is longer than the 8 of the model's context"
    for measure in (
        lambda: token_nats(model, texts),
        lambda: kl_per_position(model, model, texts),
        lambda: self_sample(model, 2, 12, generator=seeded()),
        lambda: throughput(model, texts[:, :4], 8),
        lambda: hidden_moments(model, texts),
        lambda: output_energies(model, texts),
        lambda: fisher_costs(model, texts),
    ):
        with pytest.raises(ValueError, match=message):
            measure()
    assert token_nats(model, texts[:, :9]).isfinite().all()  # the last is not read


def test_perplexity_rejects_bad_arguments(tiny):
    text = torch.zeros(10, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"tokens has shape \(2, 5\)"):
        perplexity(tiny, text.view(2, 5))
    with pytest.raises(ValueError, match=r"tokens has shape \(1,\)"):
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
    with pytest.raises(ValueError, match=r"tokens has shape \(4,\)"):
        kl_to_dense(tiny, tiny, torch.zeros(4, dtype=torch.int64))
    other = random_llama(vocabulary=12, generator=seeded())
    with pytest.raises(
        ValueError, match="pruned has 12 tokens to choose from, dense 11"
    ):
        kl_to_dense(tiny, other, torch.zeros(1, 4, dtype=torch.int64))
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size is {size}; it must be at"):
            kl_to_dense(tiny, tiny, torch.zeros(1, 4).long(), batch_size=size)


# questions and their tokens


def test_tasks_have_their_published_sizes_and_chances():
    sizes = {name: len(task_questions(name)) for name in (*TASK_CHANCE, "mmlu")}
    assert sizes == {
        "piqa": 1838,
        "winogrande": 1267,
        "hellaswag": 10042,
        "arc_easy": 2376,
        "arc_challenge": 1172,
        "mmlu": 2067,
    }
    for name, chance in (TASK_CHANCE | MMLU_CHANCE).items():
        for q in task_questions(name):
            assert len(q.contexts) == len(q.continuations) == 1 / chance
            assert 0 <= q.gold < len(q.contexts)
    with pytest.raises(ValueError, match="task is 'mnli'; use some of piqa"):
        task_questions("mnli")


PHILOSOPHY = """\
The following are multiple choice questions (with answers) about philosophy.

Psychological egoism is:
A. an ethical theory about how we ought to behave.
B. a generalization concerning the way people tend to behave.
C. a claim about human nature and the ways people are capable of behaving.
D. none of the above.
Answer: C

"""


def test_mmlu_shows_five_solved_questions_of_the_subject_before_the_one_asked():
    first, second = mmlu_questions("philosophy", 2)
    prompt = first.contexts[0]
    assert prompt.startswith(PHILOSOPHY)
    assert prompt.count("\nAnswer:") == 6 and prompt.endswith("\nAnswer:")
    assert set(first.contexts) == {prompt}
    assert first.continuations == ("A", "B", "C", "D")
    shots = prompt.rsplit("\n\n", 1)[0]
    assert second.contexts[0].startswith(shots + "\n\n")
    assert second.contexts[0] != prompt


def test_mmlu_is_the_mean_over_the_questions_of_all_subjects(monkeypatch):
    sizes = {"philosophy": 3, "global_facts": 1}
    monkeypatch.setattr(evaluation, "MMLU_SUBJECTS", tuple(sizes))
    monkeypatch.setattr(
        evaluation,
        "mmlu_questions",
        lambda subject, limit: [Question((subject,) * 4, LETTERS, 0)] * sizes[subject],
    )
    right = {"philosophy": np.array([1.0, 0, 0, 0]), "global_facts": np.zeros(4) - 1}
    right["global_facts"][2] = 0
    monkeypatch.setattr(
        evaluation,
        "log_likelihoods",
        lambda model, tokenizer, qs, batch_size: [right[q.contexts[0]] for q in qs],
    )
    found = zero_shot(None, None, ["mmlu", "mmlu_global_facts"])
    assert (found["mmlu"].n, found["mmlu"].acc) == (4, 3 / 4)
    assert (found["mmlu_global_facts"].n, found["mmlu_global_facts"].acc) == (1, 0)
    assert found["mmlu"].chance == 1 / 4


def test_a_limit_counts_in_every_subject_of_mmlu():
    questions = task_questions("mmlu", 2)
    assert len(questions) == 20
    assert len({q.contexts[0].split("\n")[0] for q in questions}) == 10


def test_what_all_questions_begin_with_is_read_once(tiny):
    stem = [1, 2, 3, 4, 5]
    questions = [
        [ChoiceTokens([*stem, *own, t], len(stem) + len(own)) for t in (7, 8)]
        for own in ([6], [9, 9, 1], [6, 2])
    ]
    read = []
    hook = tiny.model.register_forward_pre_hook(
        lambda module, args, options: read.append(tuple(options["input_ids"].shape)),
        with_kwargs=True,
    )
    known = common_stem(tiny, questions)
    found = choice_log_likelihoods(tiny, questions, known)
    again = choice_log_likelihoods(tiny, questions, known)  # the stem is left as it was
    hook.remove()
    assert known.tokens == stem
    own = [(3, 1), (6, 2)]  # the shortest prefix, and the rest of every choice
    assert read == [(1, 5), *own, *own]
    for choices, scores, repeated in zip(questions, found, again, strict=True):
        np.testing.assert_allclose(scores, slow_scores(tiny, choices), rtol=1e-9)
        np.testing.assert_array_equal(scores, repeated)


def test_the_tokens_read_are_counted_as_the_model_is_fed_them(tiny):
    questions = [
        [ChoiceTokens([1, 2, 3, *own, t, 4], 3 + len(own)) for t in (7, 8)]
        for own in ([6], [9, 9, 1], [6, 2])
    ]
    fed = []
    hook = tiny.model.register_forward_pre_hook(
        lambda module, args, options: fed.append(options["input_ids"].numel()),
        with_kwargs=True,
    )
    stem = common_stem(tiny, questions)
    counts = [[], [], fed.copy()]
    for question in questions:  # one at a time, so that nothing is padded
        for count, score in zip(
            counts,
            (
                lambda q: slow_scores(tiny, q),
                lambda q: choice_log_likelihoods(tiny, [q]),
                lambda q: choice_log_likelihoods(tiny, [q], stem),
            ),
            strict=True,
        ):
            fed.clear()
            score(question)
            count += fed
    hook.remove()
    assert tokens_read(questions, len(stem.tokens)) == tuple(map(sum, counts))


def test_a_stem_leaves_a_token_of_every_prefix_and_may_be_empty(tiny):
    same = [[ChoiceTokens([1, 2, 3, t], 3) for t in (4, 5)]] * 2
    assert common_stem(tiny, same).tokens == [1, 2]
    apart = [[ChoiceTokens([1, 2], 1), ChoiceTokens([3, 2], 1)], *same]
    for questions in (apart, []):
        assert common_stem(tiny, questions) == ([], None)
    for choices, scores in zip(
        same, choice_log_likelihoods(tiny, same, common_stem(tiny, same)), strict=True
    ):
        np.testing.assert_allclose(scores, slow_scores(tiny, choices), rtol=1e-9)


def reference_pair(tokenizer, context, continuation):
    """The harness's rule, restated with its own steps."""
    n_spaces = len(context) - len(context.rstrip())
    if n_spaces > 0:
        continuation = context[-n_spaces:] + continuation
        context = context[:-n_spaces]
    whole = tokenizer.encode(context + continuation)
    alone = tokenizer.encode(context)
    return alone, whole[len(alone) :]


@pytest.mark.parametrize(
    ("context", "continuation"),
    [
        ("Question: why?\nAnswer:", " because"),
        ("Question: why?\nAnswer: ", "because"),
        ("ends in spaces   ", " x"),
        ("hel", "lo there"),  # a token straddles the seam
        ("naïve café", " über 🙂"),
        ("new\nline\n", " after"),
    ],
)
def test_pairs_are_encoded_as_the_harness_encodes_them(
    tokenizer, context, continuation
):
    head, tail = reference_pair(tokenizer, context, continuation)
    found = encode_pair(tokenizer, context, continuation)
    assert found.tokens[found.n_context :] == tail
    assert found.n_context == len(head)


def test_encoding_apart_is_rejected_where_a_token_straddles_the_seam(tokenizer):
    apart = tokenizer.encode("hel") + tokenizer.encode("lo")
    assert encode_pair(tokenizer, "hel", "lo there").tokens[: len(apart)] != apart


def test_an_empty_context_is_the_start_token_and_nothing_to_score_is_an_error(
    tokenizer,
):
    plain = tokenizer.encode(" yes", add_special_tokens=False)
    assert encode_pair(tokenizer, "", " yes", start=1) == ChoiceTokens([1, *plain], 1)
    with pytest.raises(ValueError, match="context is ''"):
        encode_pair(tokenizer, "", " yes")
    with pytest.raises(ValueError, match="continuation is ''"):
        encode_pair(tokenizer, "why", "")


@pytest.fixture(
    params=["$A", "<|im_start|> $A", "$A <|im_end|>", "<|im_start|> $A <|im_end|>"]
)
def framing(request):
    """The small model's tokenizer, with what another one puts around a text."""
    tokenizer = load_tokenizer("smollm2")
    special = [(token, tokenizer.vocab[token]) for token in request.param.split()
               if token != "$A"]  # fmt: skip
    frame = TemplateProcessing(single=request.param, special_tokens=special)
    tokenizer.backend_tokenizer.post_processor = frame
    return tokenizer, request.param.split("$A")[0].split()


def test_an_end_token_is_never_scored_and_a_beginning_stands_before_the_context(
    framing, tokenizer
):
    framed, before = framing
    before = [tokenizer.vocab[token] for token in before]
    assert beginning_tokens(framed) == before
    for context, continuation in (("Answer:", " A"), ("hel", "lo there")):
        plain = tokenizer.encode(context + continuation)
        n = len(tokenizer.encode(context))
        found = encode_pair(framed, context, continuation)
        assert found == ChoiceTokens(before + plain, len(before) + n)
    assert encode_pair(framed, "", " A", start=5).tokens == [
        5,
        *tokenizer.encode(" A"),
    ]


def test_a_choice_longer_than_the_context_keeps_its_last_tokens():
    choice = ChoiceTokens([*range(10)], 7)
    assert last_tokens(choice, None) == last_tokens(choice, 9) == choice
    assert last_tokens(choice, 6) == ChoiceTokens([*range(3, 10)], 4)
    assert last_tokens(choice, 3) == ChoiceTokens([6, 7, 8, 9], 1)
    with pytest.raises(
        ValueError, match="continuation holds 3 tokens, more than the 2"
    ):
        last_tokens(choice, 2)


def test_shared_prefix_stops_at_the_first_difference_and_inside_the_contexts():
    assert (
        shared_prefix([ChoiceTokens([1, 2, 3], 2), ChoiceTokens([1, 2, 3, 4], 2)]) == 2
    )
    assert shared_prefix([ChoiceTokens([1, 5, 3], 2), ChoiceTokens([1, 2, 3], 2)]) == 1
    assert shared_prefix([ChoiceTokens([9, 5, 3], 2), ChoiceTokens([1, 5, 3], 2)]) == 0


# scores


def slow_scores(model, choices):
    """One whole forward pass for every choice."""
    scores = []
    for tokens, n in choices:
        nats = token_nats(model, torch.tensor([tokens]))[0]
        scores.append(-float(nats[n - 1 :].sum()))
    return np.array(scores)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_batched_scores_equal_one_pass_a_choice(tiny, batch_size):
    rng = np.random.default_rng(batch_size)
    questions = []
    for _ in range(7):
        context = rng.integers(11, size=rng.integers(1, 6)).tolist()
        choices = []
        for _ in range(rng.integers(2, 5)):
            own = rng.integers(11, size=rng.integers(0, 3)).tolist()  # as in WinoGrande
            rest = rng.integers(11, size=rng.integers(1, 6)).tolist()
            head = context + own
            choices.append(ChoiceTokens(head + rest, len(head)))
        questions.append(choices)
    questions[0] = [ChoiceTokens([t, 3, 4], 2) for t in (1, 2, 5)]  # nothing shared
    for begin in range(0, 7, batch_size):
        batch = questions[begin : begin + batch_size]
        found = choice_log_likelihoods(tiny, batch)
        for choices, scores in zip(batch, found, strict=True):
            np.testing.assert_allclose(scores, slow_scores(tiny, choices), rtol=1e-9)


def test_questions_without_any_common_prefix_and_single_tokens_are_scored(tiny):
    apart = [[ChoiceTokens([1, 2], 1), ChoiceTokens([3, 2], 1)]]
    single = [[ChoiceTokens([1, 2, t], 2) for t in (4, 5, 6)]]
    for question in (apart, single):
        found = choice_log_likelihoods(tiny, question)[0]
        np.testing.assert_allclose(found, slow_scores(tiny, question[0]), rtol=1e-9)


def test_padding_that_is_not_masked_would_be_noticed(tiny):
    short, long = [ChoiceTokens([1, 2], 1)] * 2, [ChoiceTokens([5, 6, 7, 8, 2], 4)] * 2
    right = choice_log_likelihoods(tiny, [short, long])[0]
    padded = [ChoiceTokens([0, 0, 0, 1, 2], 4)]  # padding fed as if it were text
    assert abs(slow_scores(tiny, padded)[0] - right[0]) > 1e-6


def test_padding_by_a_token_that_cannot_follow_changes_no_score():
    model = random_llama(vocabulary=11, generator=seeded(1))
    never = torch.tensor([-math.inf, *[0.0] * 10], dtype=torch.float64)  # token 0
    model.lm_head.register_forward_hook(lambda module, args, out: out + never)
    choices = [ChoiceTokens([1, 2, 3], 1), ChoiceTokens([1, 2, 3, 4, 5], 1)]
    found = choice_log_likelihoods(model, [choices])[0]
    np.testing.assert_allclose(found, slow_scores(model, choices), rtol=1e-9)
    impossible = choice_log_likelihoods(model, [[ChoiceTokens([1, 2, 0], 1)] * 2])
    assert impossible[0].tolist() == [-math.inf] * 2


@pytest.mark.parametrize("name", [*TASK_CHANCE, "mmlu_philosophy"])
def test_real_questions_score_alike_batched_and_one_by_one(tiny_real, tokenizer, name):
    questions = task_questions(name, 6 if name in TASK_CHANCE else 2)
    encoded = encoded_questions(tiny_real, tokenizer, questions)
    found = log_likelihoods(tiny_real, tokenizer, questions, batch_size=4)
    for choices, scores in zip(encoded, found, strict=True):
        np.testing.assert_allclose(scores, slow_scores(tiny_real, choices), rtol=1e-9)


def tokens_fed(batch):
    """Tokens fed for a batch of questions, padding and repeated prefixes included."""
    choices = [choice for question in batch for choice in question]
    prefix = min(map(shared_prefix, batch))
    longest = max(len(choice.tokens) for choice in choices)
    return len(batch) * prefix + len(choices) * (longest - 1 - prefix)


@pytest.mark.parametrize(("name", "limit"), [("piqa", 1000), ("mmlu_philosophy", 25)])
def test_batches_read_few_tokens_in_vain(tiny, tokenizer, name, limit):
    encoded = encoded_questions(tiny, tokenizer, task_questions(name, limit))
    batches = similar_batches(encoded, 8)
    assert sorted(i for batch in batches for i in batch) == [*range(len(encoded))]
    assert max(map(len, batches)) <= 8
    assert len(batches) < len(encoded) / 3
    apart = sum(tokens_fed([question]) for question in encoded)
    assert sum(tokens_fed([encoded[i] for i in batch]) for batch in batches) < (
        1.12 * apart
    )


SLIDING = {  # windows by another name each; the first layer has one, the second may
    "mistral": lambda w: {"sliding_window": w},
    "phi3": lambda w: {"sliding_window": w},
    "gemma2": lambda w: {"sliding_window": w, "layer_types": MIXED},
    "gemma3_text": lambda w: {"sliding_window": w, "layer_types": MIXED},
    "qwen2": lambda w: {"use_sliding_window": True} | SLIDING["gemma2"](w),
    "qwen3": lambda w: {"use_sliding_window": True} | SLIDING["gemma2"](w),
    "llama4_text": lambda w: {
        "attention_chunk_size": w,
        "intermediate_size_mlp": 12,
        "num_local_experts": 2,
        "layer_types": ["chunked_attention", "full_attention"],
    },
}
MIXED = ["sliding_attention", "full_attention"]


def model_with_window(family, window):
    """Random model in float64; `window` tokens are seen, all of them if None."""
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {} if window is None else SLIDING[family](window)
    if family in ADAPTERS:
        options = {"generator": seeded(1), "dtype": torch.float64}
        return tiny_model(family, **options, **fields)
    shape = tiny_model("llama", generator=seeded()).config.to_dict()
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "head_dim",
             "num_attention_heads", "num_key_value_heads", "intermediate_size",
             "pad_token_id", "bos_token_id", "eos_token_id")  # fmt: skip
    fields |= {name: shape[name] for name in names}
    config = AutoConfig.for_model(family, **fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()
    generator = seeded(1)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.5, generator=generator)
    return model


@st.composite
def stemmed_questions(draw):
    """Five questions behind one stem, their prefixes and choices of many lengths."""
    token = st.integers(3, 31)
    stem, questions = draw(st.lists(token, min_size=2, max_size=9)), []
    for _ in range(5):
        head = stem + draw(st.lists(token, min_size=1, max_size=12))
        rests = st.lists(
            st.lists(token, min_size=1, max_size=4), min_size=2, max_size=3
        )
        questions.append([ChoiceTokens(head + r, len(head)) for r in draw(rests)])
    return questions


@pytest.mark.parametrize(
    ("family", "window"),
    [(f, None) for f in ADAPTERS if f not in SLIDING]
    + [(f, w) for f in SLIDING for w in (4, 100)],
)
def test_scores_do_not_depend_on_the_batch(family, window):
    model = model_with_window(family, window)

    @settings(max_examples=4, deadline=None)
    @given(stemmed_questions())
    def hold(questions):
        stem = common_stem(model, questions)
        expected = [slow_scores(model, choices) for choices in questions]
        for size, known in itertools.product((1, 5), (None, stem)):
            for begin in range(0, 5, size):
                batch = slice(begin, begin + size)
                found = choice_log_likelihoods(model, questions[batch], known)
                for scores, right in zip(found, expected[batch], strict=True):
                    np.testing.assert_allclose(scores, right, rtol=1e-5)

    hold()


def test_prompts_beyond_the_context_are_scored_by_their_last_tokens(tokenizer):
    options = {"vocab_size": len(tokenizer), "max_position_embeddings": 40}
    model = tiny_model("opt", generator=seeded(), dtype=torch.float64, **options)
    questions = task_questions("mmlu_philosophy", 3)  # several hundred tokens each
    found = log_likelihoods(model, tokenizer, questions, batch_size=3)
    for question, scores in zip(questions, found, strict=True):
        for letter, score in zip(LETTERS, scores, strict=True):
            whole = tokenizer.encode(f"{question.contexts[0]} {letter}")
            with torch.no_grad():
                logits = model(torch.tensor([whole[-41:-1]])).logits[0, -1]
            assert score == pytest.approx(float(logits.log_softmax(0)[whole[-1]]))


def instruments(model, tokenizer):
    """Everything of the package that runs a model in order to measure it."""
    texts = torch.randint(32, (4, 12), generator=seeded())
    question = [ChoiceTokens([1, 2, 3, t, 5], 3) for t in (4, 6)]
    kept, ticks = [torch.arange(6)] * 2, itertools.count()
    policy = {"episodes": 1, "n_texts": 4, "even": True, "refit": True}
    return {
        "token_nats": lambda: token_nats(model, texts),
        "perplexity": lambda: perplexity(model, texts.flatten(), window=9),
        "window_nats": lambda: window_nats(model, texts.flatten(), 9, 3),
        "kl_per_position": lambda: kl_per_position(model, model, texts),
        "self_sample": lambda: self_sample(model, 3, 9, generator=seeded()),
        "choices": lambda: choice_log_likelihoods(model, [question]),
        "stem": lambda: common_stem(model, [question] * 2).cache.layers[1].keys,
        "zero_shot": lambda: zero_shot(model, tokenizer, ["piqa"], limit=2),
        "throughput": lambda: throughput(model, texts, 2, clock=ticks.__next__),
        "flops": lambda: counted_flops(model, 5),
        "moments": lambda: hidden_moments(model, texts).second,
        "fisher": lambda: fisher_costs(model, texts),
        "energies": lambda: output_energies(model, texts),
        "lost": lambda: lost_outputs(model, texts, kept),
        "functional": lambda: prune_functional(
            model, 0.5, generator=seeded(), **policy
        ).kept,
    }  # fmt: skip


def test_every_instrument_measures_in_evaluation_mode_and_restores_each_module(
    tokenizer,
):
    model = tiny_model(
        "gpt_neox", generator=seeded(), hidden_dropout=0.5, vocab_size=len(tokenizer)
    )
    quiet = {n: f() for n, f in instruments(model, tokenizer).items()}
    model.train()
    model.gpt_neox.layers[1].eval()  # a module whose parts differ
    modes = [module.training for module in model.modules()]
    for name, measure in instruments(model, tokenizer).items():
        found = measure()
        assert modes == [module.training for module in model.modules()], name
        assert repr(found) == repr(quiet[name]), name
    with pytest.raises(ValueError, match="longer than the 64"):
        token_nats(model, torch.zeros(1, 99, dtype=torch.int64))
    assert modes == [module.training for module in model.modules()]


def test_accuracy_takes_the_largest_score_by_sum_and_by_length():
    questions = [
        Question(("c",) * 2, ("ab", "abcdef"), 1),
        Question(("c",) * 2, ("ab", "abcdef"), 0),
    ]
    scores = [np.array([-2.0, -3.0])] * 2  # by sum the first, by length the second
    result = task_result(questions, scores, 0.5)
    assert result.per_question.correct.tolist() == [False, True]
    assert result.per_question.correct_norm.tolist() == [True, False]
    assert result.acc == result.acc_norm == 0.5
    assert result.stderr == pytest.approx(math.sqrt(0.25 / 1))


def test_bytes_and_characters_can_choose_differently():
    questions = [Question(("c",) * 2, ("ééé", "aaaa"), 1)]  # 6 bytes, 3 characters
    scores = [np.array([-4.0, -4.0])]
    assert task_result(questions, scores, 0.5).acc_norm == 0.0
    assert task_result(questions, scores, 0.5, length="characters").acc_norm == 1.0


def test_one_continuation_after_several_contexts_has_no_normalised_accuracy():
    questions = [Question(("a", "b"), ("same", "same"), 1)]
    result = task_result(questions, [np.array([-2.0, -1.0])], 0.5)
    assert result.acc == 1.0
    assert result.acc_norm is result.stderr_norm is None
    assert math.isnan(result.stderr)


def test_zero_shot_reports_the_first_questions_of_every_task(tiny_real, tokenizer):
    found = zero_shot(tiny_real, tokenizer, ["piqa", "winogrande"], limit=5)
    assert list(found) == ["piqa", "winogrande"]
    for name, result in found.items():
        assert (result.n, result.chance) == (5, TASK_CHANCE[name])
        assert len(result.per_question.log_likelihoods) == 5
        assert result.acc == result.per_question.correct.mean()
    assert found["winogrande"].acc_norm is None


def test_zero_shot_rejects_bad_arguments_before_it_scores(tokenizer, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("scored")

    monkeypatch.setattr(evaluation, "log_likelihoods", never)
    with pytest.raises(ValueError, match="task is 'boolq'"):
        zero_shot(None, tokenizer, ["boolq"])
    with pytest.raises(ValueError, match="limit, batch_size are 0, 8"):
        zero_shot(None, tokenizer, ["piqa"], limit=0)
    with pytest.raises(ValueError, match="length is 'tokens'; use 'bytes' or"):
        zero_shot(None, tokenizer, ["piqa"], limit=1, length="tokens")


def test_scores_reject_bad_arguments(tiny, tokenizer):
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size is {size}; it must be at"):
            log_likelihoods(tiny, tokenizer, task_questions("piqa", 1), batch_size=size)
    with pytest.raises(ValueError, match="questions is empty"):
        task_result([], [], 0.5)
    question = Question(("a",) * 2, ("b", "c"), 0)
    with pytest.raises(ValueError, match="length is 'tokens'"):
        task_result([question], [np.zeros(2)], 0.5, length="tokens")


def test_a_score_that_is_not_a_number_is_no_answer():
    questions = [Question(("a",) * 2, ("b", "c"), 0)] * 3
    scores = [np.array(pair) for pair in ((-1, -2), (math.nan, -2), (-math.inf, -2))]
    with pytest.raises(ValueError, match="holds NaN for 1 of 3 questions; look for"):
        task_result(questions, scores, 0.5)
    assert task_result(questions[1:], scores[::2], 0.5).acc == 0.5  # -inf: impossible


# retention


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


# speed


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


# the small real model


def test_the_real_model_has_the_perplexity_of_the_librarys_own_loss(tokenizer):
    model = load_model("smollm2")
    text = wikitext_tokens(tokenizer)[:320]
    with torch.no_grad():
        hidden = model.model(text[None]).last_hidden_state
        logits = model.lm_head(hidden)[0, :-1].double()
    oracle = torch.nn.functional.cross_entropy(logits, text[1:])
    assert perplexity(model, text) == pytest.approx(math.exp(oracle), rel=1e-5)
    assert evaluation.kl_to_dense(model, model, text[None, :16]) == pytest.approx(
        0, abs=1e-6
    )
