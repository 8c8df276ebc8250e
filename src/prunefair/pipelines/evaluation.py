"""A model evaluated: perplexity, divergence from the dense one, zero-shot tasks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunefair.messages import Given, checked_path, checked_whole, named, shown
from prunefair.models import (
    alone,
    check_runs,
    check_vocabulary,
    given_model,
    load_tokenizer,
    model_of,
    within_context,
)
from prunefair.pipelines._arguments import (
    check_names,
    in_memory,
    is_tokenizer,
    model_name,
    started,
)

TASKS = ("piqa", "winogrande", "hellaswag", "arc_easy", "arc_challenge")
TASK_KEYS = ("acc", "acc_norm", "stderr", "n", "chance")


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """What a model is worth, alone and beside the dense one.

    Attributes
    ----------
    perplexity : float
        On the tokenised WikiText-2, with `<unk>`, not on the raw text.
    perplexity_window : int
        Tokens that the model sees at once.
    perplexity_beginning : str or None
        What every window begins with.
    kl_to_dense : float or None
        Divergence from the dense model on text that it samples, nats a token.
    tasks : dict of str to TaskResult
        Zero-shot answers.
    dense_perplexity : float or None
        Of the dense model on the same windows.
    dense_tasks : dict of str to TaskResult, or None
        The dense model's answers to the same questions, which retention divides by.
    raw_retention : float or None
        Share of the dense model's accuracy.
    above_chance_retention : float or None
        The same above chance.
    """

    perplexity: float
    perplexity_window: int
    perplexity_beginning: str | None
    kl_to_dense: float | None
    tasks: dict[str, Any]
    dense_perplexity: float | None
    dense_tasks: dict[str, Any] | None
    raw_retention: float | None
    above_chance_retention: float | None

    def summary(self) -> dict[str, Any]:
        """What JSON can hold of the report, for a file or a terminal."""
        answers = {
            key: {
                name: {field: getattr(answer, field) for field in TASK_KEYS}
                for name, answer in vars(self)[key].items()
            }
            for key in ("tasks", "dense_tasks")
            if vars(self)[key] is not None
        }
        return vars(self) | answers


def evaluate(
    model,
    *,
    against=None,
    tokenizer=None,
    tasks: Sequence[str] = TASKS,
    limit: int | None = None,
    data: str | os.PathLike | None = None,
    seed: int = 0,
    device: str | None = None,
) -> EvaluationReport:
    """Perplexity, divergence from the dense model and zero-shot accuracy of a model.

    Parameters
    ----------
    model : str, path or transformers.PreTrainedModel
        `"smollm2"`, a folder, a hub name, or a model in memory.
    against : str, path or transformers.PreTrainedModel, optional
        The dense model to compare with; it reads the same windows and questions.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        Of a model in memory; a named model brings its own.
    tasks : sequence of str
        Names of tasks, also `mmlu` or `mmlu_SUBJECT`; empty for none.
    limit : int, optional
        At most so many questions a task and windows of text.
    data : path, optional
        Folder with the data; see `prunefair.data.data_file`.
    seed : int
        Of the text that the dense model samples.
    device : str, optional
        As torch names it; a GPU by default if there is one.

    Returns
    -------
    report : EvaluationReport

    Raises
    ------
    ValueError
        If an argument cannot be used, or the two models do not go together.
    FileNotFoundError
        If data are missing and cannot be downloaded.
    """
    from prunefair.data import data_file
    from prunefair.pruning.zero_shot import MMLU_CHANCE, TASK_CHANCE, task_questions

    given_model(model)
    if against is not None:
        given_model(against, "against")
    seed = checked_whole("seed", seed, 0, 2**64)
    limit = None if limit is None else checked_whole("limit", limit, 1)
    if data is not None and not Path(checked_path(data, "data")).is_dir():
        raise Given("data", data).error(
            "which is no folder",
            "give one that holds wikitext2/test.txt and zeroshot/piqa.jsonl, ..., or "
            "leave it out",
        )
    tasks = check_names(tasks, (*TASK_CHANCE, *MMLU_CHANCE), "tasks")
    for name in tasks:  # what is missing is known, or fetched, before the work
        task_questions(name, 1, folder=data)
    data_file("wikitext2/test.txt", folder=data)
    if not in_memory(model):
        tokenizer = load_tokenizer(model, argument="model")
    elif not is_tokenizer(tokenizer):
        raise ValueError(
            f"{named('tokenizer')} is {shown(tokenizer)}, but {named('model')} is a "
            "model in memory; give its loaded tokenizer"
        )
    with alone(model, against):
        return _evaluated(model, against, tokenizer, tasks, limit, data, seed, device)


def _evaluated(model, against, tokenizer, tasks, limit, data, seed, device):
    """The report, once the arguments are checked."""
    import torch

    from prunefair.pruning import perplexity, retention, zero_shot

    dense, cached = None, bool(tasks) or against is not None
    if against is not None:
        reference = given_model(against, "against")
        dense = model_of(against, device=device, argument="against")
        with started(dense, tokenizer, reference):
            pass  # before the other model is loaded
    judged = model_of(model, device=device)
    _check_scored(given_model(model), judged, tokenizer, cached)
    if dense is not None:
        check_runs(dense, reference)
        _check_same_vocabulary(dense, judged, model_name(against), model_name(model))
        _check_scored(reference, dense, tokenizer, cached)
    compared = [judged] if dense is None else [judged, dense]
    text = perplexity.wikitext_tokens(tokenizer, folder=data)
    beginning = perplexity.beginning_tokens(tokenizer)
    window = min(within_context(each, 1024) for each in compared)
    options = {"window": window, "max_windows": limit, "beginning": beginning}
    asked = {"limit": limit, "folder": data}
    surprise = [perplexity.perplexity(each, text, **options) for each in compared]
    answers = [
        zero_shot.zero_shot(each, tokenizer, tasks, **asked) for each in compared
    ]
    kl, retained = None, {"raw_retention": None, "above_chance_retention": None}
    if dense is not None:
        generator = torch.Generator(device=dense.device).manual_seed(seed)
        length = min(within_context(each, 128) for each in compared)
        with started(dense, tokenizer, reference):
            sample = perplexity.self_sample(dense, 16, length, generator=generator)
        kl = perplexity.kl_to_dense(dense, judged, sample)
        for key in retained if tasks else ():
            retained[key] = getattr(retention, key)(*answers).value
    return EvaluationReport(
        perplexity=surprise[0],
        perplexity_window=window,
        perplexity_beginning=tokenizer.decode(beginning) or None,
        kl_to_dense=kl,
        tasks=answers[0],
        dense_perplexity=None if dense is None else surprise[1],
        dense_tasks=None if dense is None else answers[1],
        **retained,
    )


def _check_same_vocabulary(dense, judged, against: str, model: str) -> None:
    ours, theirs = (m.get_output_embeddings().weight.shape[0] for m in (judged, dense))
    if ours != theirs:
        raise ValueError(
            f"{named('against')} is {shown(against)}, which chooses among {theirs} tokens, "
            f"but {shown(model)} among {ours}; compare a model with the one it was made from"
        )


def _check_scored(given, model, tokenizer, cached: bool) -> None:
    """Raise if text of the tokenizer, or questions if `cached`, cannot be scored."""
    check_vocabulary(tokenizer, model, given)
    check_runs(model, given)
    if cached and getattr(model, "_is_stateful", False):
        raise given.error(
            f"of the family {model.config.model_type!r}, whose state cannot be shared "
            "by the answers of a question",
            f"give a model with attention, or only its perplexity, without "
            f"{named('tasks')}",
        )
