"""lm-evaluation-harness on the local data: its tasks and its scoring, our files.

Needs the extra `eval`.  The definition of every task is the harness's own; what is
replaced is where its questions come from.  The local files hold some questions
already rendered, so these are taken apart into the publisher's fields again, and the
harness's templates put them together.  The harness also rewrites the text of HellaSwag:
it capitalises the sentence that a choice is to end and deletes what is in brackets.
This step is left out, so that both programs are given the local text.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prunefair.models import measuring
from prunefair.publishers import MMLU_SUBJECTS

DEFINITIONS = {
    "piqa": "piqa/piqa.yaml",
    "winogrande": "winogrande/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
}


class HarnessResult(NamedTuple):
    """What the harness says of a model on one task, question by question.

    Parameters
    ----------
    metrics : dict of str to ndarray, shape (n,), float64
        Outcome of every question, 0 or 1, by `acc` and, where the task has it, by
        `acc_norm`.
    means : dict of str to float
        The harness's own aggregates of them.
    prompts : list of list of (str, str)
        Context and continuation of every choice, as they were scored.
    log_likelihoods : list of ndarray, shape (n_choices,), float64
        Nats; one array a question.
    """

    metrics: dict[str, np.ndarray]
    means: dict[str, float]
    prompts: list[list[tuple[str, str]]]
    log_likelihoods: list[np.ndarray]


def publisher_row(task: str, row: dict) -> dict:
    """A row of a local file with the fields that the harness's templates read.

    Parameters
    ----------
    task : str
        Such as `"piqa"` or `"mmlu_philosophy"`.
    row : dict
        A row of the local file.

    Returns
    -------
    row : dict
    """
    gold = row["gold"]
    if task.startswith("mmlu_"):
        return {"question": row["question"], "choices": row["choices"], "answer": gold}
    if task == "winogrande":
        stem = os.path.commonprefix(row["contexts"])
        sentence, answer = f"{stem}_ {row['continuation']}", str(gold + 1)
        options = [context[len(stem) :] for context in row["contexts"]]
        named = zip(("option1", "option2"), options, strict=True)
        return {"sentence": sentence, "answer": answer} | dict(named)
    choices = row["choices"]
    if task == "hellaswag":
        return {"query": row["context"], "choices": choices, "label": gold}
    question = row["context"].removeprefix("Question: ").removesuffix("\nAnswer:")
    if task == "piqa":
        first, second = choices
        return {"goal": question, "sol1": first, "sol2": second, "label": gold}
    labels = list("ABCDE"[: len(choices)])
    return {
        "question": question,
        "choices": {"text": choices, "label": labels},
        "answerKey": labels[gold],
    }


def _definition(task: str, limit: int | None, folder: Path) -> dict[str, Any]:
    """The harness's definition of a task, with our files for its data set."""
    import lm_eval.tasks

    from prunefair.pruning.zero_shot import task_rows

    files = {"test": f"zeroshot/{task}.jsonl"}
    where = DEFINITIONS.get(task, f"mmlu/default/{task}.yaml")
    few = {}
    if task.startswith("mmlu_"):
        subject = task.removeprefix("mmlu_")
        files = {s: f"mmlu/{subject}_{s}.jsonl" for s in ("test", "dev")}
        few = {"num_fewshot": 5}
    elif task == "hellaswag":
        few = {"process_docs": None}  # it would change the local text
    for split, name in files.items():
        rows = task_rows(name, limit if split == "test" else None)
        lines = [json.dumps(publisher_row(task, row)) + "\n" for row in rows]
        files[split] = str(folder / f"{task}_{split}.jsonl")
        Path(files[split]).write_text("".join(lines), encoding="utf-8")
    return {
        "include": str(Path(lm_eval.tasks.__file__).parent / where),
        "task": task,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
    } | few


def harness_results(
    model,
    tokenizer,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 8,
    **overrides,
) -> dict[str, HarnessResult]:
    """Accuracy of a model as lm-evaluation-harness measures it, on the local data.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    tasks : sequence of str
        Keys of `TASK_CHANCE` or, but for `"mmlu"` as a whole, of `MMLU_CHANCE`; see
        `prunefair.pruning.zero_shot`.
    limit : int, optional
        Only the first so many questions of each task.
    batch_size : int
        Choices in one forward pass.
    **overrides
        Entries of the harness's task definition to replace, such as `metric_list`.

    Returns
    -------
    results : dict of str to HarnessResult

    Raises
    ------
    ImportError
        If the extra `eval` is not installed.
    ValueError
        If there is no such task, or it is `"mmlu"`.
    """
    known = [*DEFINITIONS, *(f"mmlu_{subject}" for subject in MMLU_SUBJECTS)]
    for task in tasks:
        if task not in known:
            raise ValueError(f"task is {task!r}; use some of {', '.join(known)}")
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ImportError(
            "the harness (lm_eval) is not installed; install prunefair[eval]"
        ) from error

    with (
        measuring(model),  # the harness sets the mode and leaves it so
        tempfile.TemporaryDirectory(prefix="harness-") as folder,
    ):
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        for task in tasks:
            definition = _definition(task, limit, Path(folder)) | overrides
            text = json.dumps(definition)  # JSON is YAML
            (Path(folder) / f"{task}.yaml").write_text(text, encoding="utf-8")
        found = simple_evaluate(
            model=lm,
            tasks=list(tasks),
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            bootstrap_iters=0,
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
            fewshot_random_seed=None,
        )
    return {
        task: _result(found["results"][task], found["samples"][task]) for task in tasks
    }


def _result(means: dict[str, Any], samples: list[dict]) -> HarnessResult:
    """One task's part of what the harness returns, in the order of the questions."""
    samples = sorted(samples, key=lambda sample: sample["doc_id"])
    names = [key.split(",")[0] for key in means if key.endswith(",none")]
    names = [name for name in names if not name.endswith("_stderr")]
    return HarnessResult(
        {name: np.array([s[name] for s in samples]) for name in names},
        {name: means[f"{name},none"] for name in names},
        [[tuple(pair) for pair in s["arguments"]] for s in samples],
        [np.array([ll for ll, _ in s["filtered_resps"]]) for s in samples],
    )
