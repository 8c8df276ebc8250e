"""Questions, their tokens and scores, and accuracies, against oracles."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from prunefair.models import load_tokenizer
from prunefair.pruning.perplexity import beginning_tokens, random_llama, token_nats
from prunefair.pruning.surgery import ADAPTERS, tiny_model
from prunefair.pruning.zero_shot import (
    LETTERS,
    MMLU_CHANCE,
    TASK_CHANCE,
    ChoiceTokens,
    Question,
    choice_log_likelihoods,
    common_stem,
    encode_pair,
    encoded_questions,
    last_tokens,
    log_likelihoods,
    mmlu_questions,
    shared_prefix,
    similar_batches,
    task_questions,
    task_result,
    tokens_read,
    zero_shot,
)


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
    monkeypatch.setattr("prunefair.pruning.zero_shot.MMLU_SUBJECTS", tuple(sizes))
    monkeypatch.setattr(
        "prunefair.pruning.zero_shot.mmlu_questions",
        lambda subject, limit, folder: (
            [Question((subject,) * 4, LETTERS, 0)] * sizes[subject]
        ),
    )
    right = {"philosophy": np.array([1.0, 0, 0, 0]), "global_facts": np.zeros(4) - 1}
    right["global_facts"][2] = 0
    monkeypatch.setattr(
        "prunefair.pruning.zero_shot.log_likelihoods",
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

    monkeypatch.setattr("prunefair.pruning.zero_shot.log_likelihoods", never)
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
