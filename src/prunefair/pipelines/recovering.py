"""A pruned model trained again: towards the dense one, or on WikiText-2 as in the paper."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from prunefair.messages import Given, checked_whole, named, shown
from prunefair.models import alone, given_model, usable_device
from prunefair.pipelines._arguments import (
    check_apart,
    in_memory,
    is_tokenizer,
    model_name,
    started,
)
from prunefair.pipelines._room import check_training_room

TEXTS = ("own", "wikitext")
TRAINING = "training"  # what a folder of an interrupted run holds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RecoveryReport:
    """A model after recovery, and what it cost.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        The recovered model, of the pruned one's shapes and type.
    source, against : str
        What was recovered, and the dense model that it was trained towards; None for
        the latter where a text was the teacher.
    text : str
        `"own"` for the dense model's own, or `"wikitext"`.
    tokens : int
        Tokens that were trained on.
    rank : int or None
        Of the adapters; None if all weights were trained.
    n_trained : int
        Number of trained parameters.
    divergence_before, divergence_after : float or None
        From the dense model, on own texts of it that were held out, in nats a token.
    levelled : bool or None
        Whether the divergence stopped falling before all tokens were used.
    curve : list of dict
        Tokens and divergence of every look, or the loss of every step.
    seconds_total : float
        Seconds of all of it, without those of a run that it went on from.
    out : pathlib.Path or None
        Folder of the model, if it was written.
    """

    model: Any
    source: str
    against: str | None
    text: str
    tokens: int
    rank: int | None
    n_trained: int
    divergence_before: float | None
    divergence_after: float | None
    levelled: bool | None
    curve: list[dict[str, float]]
    seconds_total: float
    out: Path | None

    def __repr__(self) -> str:
        """The summary: a model would fill pages."""
        return f"RecoveryReport({self.summary()})"

    def summary(self) -> dict[str, Any]:
        """What JSON can hold of the report, for a file or a terminal."""
        values = {k: v for k, v in vars(self).items() if k not in ("model", "source")}
        values["out"] = None if self.out is None else str(self.out)
        return {"model": self.source} | values


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The checked arguments that every recovery has."""

    model: Any
    tokenizer: Any
    out: Path | None
    state: Path | None
    seed: int
    device: str


def distill(
    model,
    against,
    *,
    tokens: int = 262_144,
    rank: int | None = None,
    learning_rate: float | None = None,
    out: str | os.PathLike | None = None,
    state: str | os.PathLike | None = None,
    tokenizer=None,
    seed: int = 0,
    device: str | None = None,
) -> RecoveryReport:
    """Train a pruned model towards the dense one, on text that the dense one writes.

    Parameters
    ----------
    model : str, path or transformers.PreTrainedModel
        The pruned model: a folder, also of uneven widths, a hub name, or a model in
        memory, which is not changed.
    against : str, path or transformers.PreTrainedModel
        The dense model that it was made from.
    tokens : int
        At most so many tokens are trained on; fewer if the divergence levels off.
    rank : int, optional
        Train low-rank adapters of this rank and merge them, not all weights.
    learning_rate : float, optional
        Largest learning rate; by default that of `DistillationPlan`, 1e-4.
    out : path, optional
        New folder for the result.
    state : path, optional
        Folder in which the run is put aside after each look; an interrupted run goes
        on from there, to the same bytes.  As long as its rate has not begun to fall, in
        the first two fifths of the run, it may be given more tokens.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        To be saved beside a model given in memory; a named model brings its own.
    seed : int
        Of all draws: the same seed gives the same bytes.
    device : str, optional
        As torch names it; a GPU by default if there is one.

    Returns
    -------
    report : RecoveryReport

    Raises
    ------
    ValueError
        If an argument cannot be used; nothing has been written then.
    OSError
        If something cannot be written.
    ImportError
        If `rank` is given and peft is not installed.

    Examples
    --------
    >>> import torch
    >>> from prunefair.pipelines import distill, prune
    >>> from prunefair.pruning.surgery import tiny_model
    >>> dense = tiny_model("llama", generator=torch.Generator().manual_seed(0))
    >>> pruned = prune(dense, 0.5, method="spectral", episodes=1).model
    >>> report = distill(pruned, dense, tokens=4096, learning_rate=0.01)
    >>> report.divergence_after < report.divergence_before
    True
    """
    import torch

    from prunefair.pruning.self_distillation import DistillationPlan

    given_model(against, "against")
    job = _checked(model, out, state, tokenizer, seed, device)
    given = {} if learning_rate is None else {"learning_rate": learning_rate}
    plan = DistillationPlan(tokens=tokens, rank=rank, **given)
    # training needs gradients, whatever is around the call
    with torch.inference_mode(False), torch.enable_grad(), alone(model, against):
        return _distilled(job, against, plan)


def _distilled(job: _Job, against, plan) -> RecoveryReport:
    """The report, once the arguments are checked."""
    import torch

    from prunefair.models import check_runs, model_of
    from prunefair.pruning.self_distillation import check_pair, self_distill

    start = time.perf_counter()
    pruned, dense = _looked_at(job.model, "model"), _looked_at(against, "against")
    past = _history(job.model, pruned[0])
    plan = _within(plan, pruned[0], dense[0])
    check_pair(pruned[0], dense[0], plan, argument="against")
    check_training_room(pruned[0], dense[0], device=job.device, rank=plan.rank)
    tokenizer = _tokenizer(job, against)
    teacher = model_of(against, device=job.device, argument="against")
    learner = model_of(job.model, device=job.device)
    for model, argument in ((learner, "model"), (teacher, "against")):
        given = given_model(job.model if argument == "model" else against, argument)
        check_runs(model, given)
    generator = torch.Generator(teacher.device).manual_seed(job.seed)
    with started(teacher, tokenizer, given):
        store = _store(job, plan, pruned, dense)  # the first that is written
        run = self_distill(learner, teacher, plan, generator=generator, store=store)
    before, after = (float(run.curve[i].mean()) for i in (0, run.best))
    if run.best == 0:
        _log.warning(
            "no look came nearer to the dense model than the beginning, so the result "
            f"has the weights of {named('model')}; give more {named('tokens')}, or a "
            f"lower {named('learning_rate')}"
        )
    record = {
        "recovery": "own",
        "recovery_tokens": run.looked_at[-1],
        "recovery_rank": plan.rank,
        "recovery_seed": job.seed,
        "divergence_before": float(f"{before:.3g}"),
        "divergence_after": float(f"{after:.3g}"),
    }
    _save(job, run.model, tokenizer, past, record)
    return RecoveryReport(
        model=run.model,
        source=model_name(job.model),
        against=model_name(against),
        text="own",
        tokens=run.looked_at[-1],
        rank=plan.rank,
        n_trained=run.n_trained,
        divergence_before=before,
        divergence_after=after,
        levelled=run.levelled,
        curve=[
            {"tokens": tokens, "divergence": float(look.mean())}
            for tokens, look in zip(run.looked_at, run.curve)
        ],
        seconds_total=time.perf_counter() - start,
        out=job.out,
    )


def fine_tune(
    model,
    *,
    tokens: int = 102_400,
    rank: int | None = None,
    learning_rate: float = 5e-4,
    out: str | os.PathLike | None = None,
    tokenizer=None,
    data: str | os.PathLike | None = None,
    seed: int = 0,
    device: str | None = None,
) -> RecoveryReport:
    """The paper's recovery: low-rank adapters trained on WikiText-2, and merged.

    Parameters
    ----------
    model, out, seed, device
        See `distill`.
    tokens : int
        Tokens that are trained on, of the validation split.
    rank : int, optional
        Rank of the adapters; by default 8.
    learning_rate : float
        Largest learning rate.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        Of a model in memory; a named model brings its own.
    data : path, optional
        Folder with the data; see `prunefair.data.data_file`.

    Returns
    -------
    report : RecoveryReport
        Its curve holds the loss of every step.

    Raises
    ------
    ValueError
        If an argument cannot be used; nothing has been written then.
    OSError
        If something cannot be written.
    ImportError
        If peft is not installed.
    """
    job = _checked(model, out, None, tokenizer, seed, device)
    if in_memory(model) and tokenizer is None:
        raise ValueError(
            f"{named('tokenizer')} is None, but {named('model')} is a model in memory; "
            "give its loaded tokenizer"
        )
    with alone(model):
        return _fine_tuned(job, tokens, rank, learning_rate, data)


def _fine_tuned(job: _Job, tokens, rank, learning_rate, data) -> RecoveryReport:
    """The report, once the arguments are checked."""
    import torch

    from prunefair.models import load_tokenizer, model_of, within_context
    from prunefair.pruning.perplexity import wikitext_tokens
    from prunefair.pruning.recovery import RecoveryPlan, recover

    start = time.perf_counter()
    skeleton, _ = _looked_at(job.model, "model")
    past, plan = (
        _history(job.model, skeleton),
        RecoveryPlan(learning_rate=learning_rate),
    )
    options = {} if rank is None else {"rank": rank}
    options["window"] = within_context(skeleton, plan.window)
    step = plan.batch_size * options["window"]
    options["steps"] = checked_whole("tokens", tokens, step) // step
    plan = replace(plan, **options)
    check_training_room(skeleton, None, device=job.device, rank=plan.rank)
    tokenizer = job.tokenizer
    if not in_memory(job.model):
        tokenizer = load_tokenizer(job.model, argument="model")
    text = wikitext_tokens(tokenizer, "validation", folder=data)
    learner = model_of(job.model, device=job.device)
    generator = torch.Generator(learner.device).manual_seed(job.seed)
    run = recover(learner, text, plan, generator=generator)
    record = {
        "recovery": "wikitext",
        "recovery_tokens": plan.steps * step,
        "recovery_rank": plan.rank,
        "recovery_seed": job.seed,
    }
    _save(job, run.model, tokenizer, past, record)
    return RecoveryReport(
        model=run.model,
        source=model_name(job.model),
        against=None,
        text="wikitext",
        tokens=plan.steps * step,
        rank=plan.rank,
        n_trained=run.n_trained,
        divergence_before=None,
        divergence_after=None,
        levelled=None,
        curve=[
            {"tokens": i * step, "loss": float(loss)}
            for i, loss in enumerate(run.losses)
        ],
        seconds_total=time.perf_counter() - start,
        out=job.out,
    )


def restored(
    model, against, *, text: str, learning_rate: float | None, state, data, **options
) -> RecoveryReport:
    """What the command does: one of the two ways, with what belongs to it.

    Parameters
    ----------
    model, against, state, data
        See `distill` and `fine_tune`; None where not given.
    text : {"own", "wikitext"}
        The dense model's own text, or WikiText-2.
    learning_rate : float, optional
        By default that of the way.
    **options
        What both ways take.

    Returns
    -------
    report : RecoveryReport

    Raises
    ------
    ValueError
        If `text` is another word, something is missing or belongs to the other way,
        and see `distill` and `fine_tune`.
    """
    if text not in TEXTS:
        raise ValueError(f"{named('text')} is {shown(text)}; give {' or '.join(TEXTS)}")
    own = text == "own"
    if own and against is None:
        raise ValueError(
            f"{named('against')} is missing; name the dense model, or give "
            f"{named('text', 'wikitext')}"
        )
    ways = {"data": data} if own else {"against": against, "state": state}
    for argument, value in ways.items():
        if value is not None:
            raise ValueError(
                f"{named(argument)} is {shown(value)}, which {named('text', text)} does "
                "not read; leave it out"
            )
    if learning_rate is not None:
        options["learning_rate"] = learning_rate
    if own:
        return distill(model, against, state=state, **options)
    return fine_tune(model, data=data, **options)


def _checked(model, out, state, tokenizer, seed, device) -> _Job:
    """The arguments that every recovery has, or one line of error."""
    from prunefair.outputs import check_new_folder

    given_model(model)
    if not (tokenizer is None or is_tokenizer(tokenizer)):
        raise ValueError(
            f"{named('tokenizer')} is {shown(tokenizer)}; give a loaded one, or None"
        )
    places = check_apart({"state": state, "out": out})
    if out is not None:
        check_new_folder(out)
    return _Job(
        model=model,
        tokenizer=tokenizer,
        out=Path(places["out"]) if out is not None else None,
        state=Path(places["state"]) if state is not None else None,
        seed=checked_whole("seed", seed, 0, 2**64),
        device=str(model.device) if in_memory(model) else usable_device(device),
    )


def _looked_at(model, argument: str) -> tuple:
    """A model and what reads its tensors, without its values if it is named."""
    from prunefair.models import check_runs, stream_folder
    from prunefair.pruning.surgery import row_matrices

    if in_memory(model):
        check_runs(model, given_model(model, argument))
        skeleton, read = model, model.state_dict().__getitem__
    else:
        skeleton, read = stream_folder(model, argument=argument)
    if argument == "model":
        row_matrices(skeleton)  # raises if its family is not supported
    return skeleton, read


def _within(plan, *models):
    """The plan with texts that the models can read."""
    from prunefair.models import within_context

    window = min(within_context(each, plan.window) for each in models)
    return plan if window == plan.window else replace(plan, window=window)


def _store(job: _Job, plan, model: tuple, dense: tuple):
    """Where the run is put aside, if anywhere."""
    from prunefair.pruning.layered import FolderStore, fingerprint

    if job.state is None:
        return None
    identity = {"model": fingerprint(*model), "dense": fingerprint(*dense)}
    identity |= {"seed": job.seed, **asdict(plan)}
    del identity["tokens"]  # a run may be given more
    return FolderStore(job.state, identity, argument="state", holds=TRAINING)


def _tokenizer(job: _Job, against):
    """The given tokenizer, else that of the pruned model or of the dense one."""
    from prunefair.models import load_tokenizer

    found = job.tokenizer
    for argument, model in (("model", job.model), ("against", against)):
        if found is None and not in_memory(model):
            found = load_tokenizer(model, argument=argument, optional=True)
    return found


def _save(job: _Job, model, tokenizer, past: tuple, record: dict[str, Any]) -> None:
    """Write the result with what is known of how its model came about."""
    from prunefair.pruning.folders import save_pruned

    if job.out is None:
        return
    if tokenizer is None:
        _log.warning(f"{named('model')} has no tokenizer; none is written")
    kept, before = past
    save_pruned(model, tokenizer, job.out, kept, before | record)


def _history(given, model) -> tuple[list, dict[str, Any]]:
    """Rows that are left of the base model, and the record of the pruning."""
    from prunefair.checkpoint import read_json
    from prunefair.model_card import license_in
    from prunefair.models import model_folder
    from prunefair.pruning.surgery import row_matrices
    from prunefair.widths import CONFIG_KEY, KEPT_ROWS

    widths = [len(matrix) for matrix in row_matrices(model)]
    unknown = [list(range(width)) for width in widths]
    if in_memory(given):
        return unknown, {"base_model": model_name(given), "base_license": None}
    folder = model_folder(given, argument="model")
    said = read_json(folder / "config.json", Given("model", given)).get(CONFIG_KEY)
    if "widths_unpadded" in (said or {}):
        raise Given("model", given).error(
            "whose layers are filled up with neurons of zeros",
            "recover the folder that it was made from, and pad the result",
        )
    path = folder / KEPT_ROWS
    if not path.is_file():  # of another tool: the rows of the folder itself
        name = Path(given).resolve().name if Path(given).is_dir() else str(given)
        return unknown, {"base_model": name, "base_license": license_in(str(folder))}
    record = read_json(path, Given("model", given))
    kept = record.pop("kept", None)
    remedy = "get that file again, or remove it"
    with Given("model", given).using(f"whose {KEPT_ROWS} does not fit it", remedy):
        if [len(rows) for rows in kept] != widths:
            raise ValueError("it names other numbers of rows")
    for key in ("widths", "versions", "ks_mean"):  # the spectra are others now
        record.pop(key, None)
    return kept, record
