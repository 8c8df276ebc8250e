"""A model evaluated: perplexity, divergence from the dense one, zero-shot tasks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunefair.messages import Given, named
from prunefair.pipelines._arguments import (
    check_model,
    check_names,
    in_memory,
    model_name,
    started,
    usable_device,
    whole,
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
    raw_retention: float | None
    above_chance_retention: float | None

    def summary(self) -> dict[str, Any]:
        """What JSON can hold of the report, for a file or a terminal."""
        tasks = {
            name: {key: getattr(answer, key) for key in TASK_KEYS}
            for name, answer in self.tasks.items()
        }
        return vars(self) | {"tasks": tasks}


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
        The dense model to compare with.
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
    import torch

    from prunefair.data import data_file
    from prunefair.models import load_tokenizer, within_context
    from prunefair.pruning import perplexity, retention, zero_shot

    check_model(model, "model")
    check_model(against, "against")
    seed = whole("seed", seed, 0, 2**64)
    limit = None if limit is None else whole("limit", limit, 1)
    if data is not None and not Path(data).is_dir():
        raise ValueError(
            f"{named('data')} is {str(data)!r}, which is no folder; give one that "
            "holds wikitext2/test.txt and zeroshot/piqa.jsonl, ..., or leave it out"
        )
    tasks = check_names(
        tasks, (*zero_shot.TASK_CHANCE, *zero_shot.MMLU_CHANCE), "tasks"
    )
    for name in tasks:  # what is missing is known, or fetched, before the work
        zero_shot.task_questions(name, 1, folder=data)
    data_file("wikitext2/test.txt", folder=data)
    if isinstance(model, str | os.PathLike):
        tokenizer = load_tokenizer(model, argument="model")
    elif tokenizer is None:
        raise ValueError(
            f"{named('tokenizer')} is None, but {named('model')} is a model in memory; "
            "give its tokenizer"
        )
    dense = None
    if against is not None:
        dense = _loaded(against, "against", device)
        with started(dense, tokenizer, Given("against", model_name(against))):
            pass  # before the other model is loaded
    judged = _loaded(model, "model", device)
    if dense is not None:
        _check_same_vocabulary(dense, judged, model_name(against), model_name(model))
    for argument, value, loaded in (
        ("model", model, judged),
        ("against", against, dense),
    ):
        if loaded is not None:
            cached = bool(tasks) or dense is not None
            _check_scored(Given(argument, model_name(value)), loaded, tokenizer, cached)
    text = perplexity.wikitext_tokens(tokenizer, folder=data)
    beginning = perplexity.beginning_tokens(tokenizer)
    window = within_context(judged, 1024)
    options = {"window": window, "max_windows": limit, "beginning": beginning}
    asked = {"limit": limit, "folder": data}
    measured = perplexity.perplexity(judged, text, **options)
    answers = zero_shot.zero_shot(judged, tokenizer, tasks, **asked)
    kl, retained = None, {"raw_retention": None, "above_chance_retention": None}
    if dense is not None:
        generator = torch.Generator(device=dense.device).manual_seed(seed)
        length = min(within_context(m, 128) for m in (dense, judged))
        with started(dense, tokenizer, Given("against", model_name(against))):
            sample = perplexity.self_sample(dense, 16, length, generator=generator)
        kl = perplexity.kl_to_dense(dense, judged, sample)
        reference = zero_shot.zero_shot(dense, tokenizer, tasks, **asked)
        for key in retained if tasks else ():
            retained[key] = getattr(retention, key)(answers, reference).value
    return EvaluationReport(
        perplexity=measured,
        perplexity_window=window,
        perplexity_beginning=tokenizer.decode(beginning) or None,
        kl_to_dense=kl,
        tasks=answers,
        **retained,
    )


def _loaded(model, argument: str, device: str | None):
    """A model in memory as it is, a named one loaded."""
    from prunefair.models import load_model

    if in_memory(model):
        return model
    return load_model(model, device=usable_device(device), argument=argument)


def _check_same_vocabulary(dense, judged, against: str, model: str) -> None:
    ours, theirs = (m.get_output_embeddings().weight.shape[0] for m in (judged, dense))
    if ours != theirs:
        raise ValueError(
            f"{named('against')} is {against!r}, which chooses among {theirs} tokens, "
            f"but {model!r} among {ours}; compare a model with the one it was made from"
        )


def _check_scored(given, model, tokenizer, cached: bool) -> None:
    """Raise if text of the tokenizer, or questions if `cached`, cannot be scored."""
    from prunefair.models import check_runs, check_vocabulary

    check_vocabulary(tokenizer, model, given)
    check_runs(model, given)
    if cached and getattr(model, "_is_stateful", False):
        raise given.error(
            f"of the family {model.config.model_type!r}, whose state cannot be shared "
            "by the answers of a question",
            f"give a model with attention, or only its perplexity, without "
            f"{named('tasks')}",
        )
