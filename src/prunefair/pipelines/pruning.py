"""A model pruned by the learned policy, whole or a layer at a time."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from prunefair.messages import (
    Given,
    checked_whole,
    named,
    shown,
)
from prunefair.model_card import SPECTRUM
from prunefair.models import alone, given_model, usable_device
from prunefair.pipelines._arguments import (
    check_apart,
    in_memory,
    is_tokenizer,
    model_name,
    started,
)
from prunefair.pipelines._room import goes_in_turns
from prunefair.pipelines._targets import asked_size, given_target, wanted_ratio
from prunefair.pipelines.sweeping import prune_in_turns

METHODS = ("functional", "spectral")
SPECTRA = ("exact", "lanczos")
WIDTHS = ("equal", "uneven")
CHOICES = ("policy", "energy")
FAST = {"choice": "energy", "widths": "equal", "texts": 64}  # a quarter of the time
OWN_DEFAULT = ("widths", "choice")  # None is none of their words
COUNTS = ("multiple", "ratio_reached")
COUNTS += ("params_before", "params_after", "bytes_before", "bytes_after", "ks_mean")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PruneReport:
    """A pruned model and how it came about.

    Attributes
    ----------
    model : transformers.PreTrainedModel or None
        The pruned model, with values of its own; None if it went a layer at a time
        and is in no memory.
    source : str
        What was pruned.
    method : str
        Of `METHODS`.
    ratio : float
        Share of the FFN rows that was to be removed, or that the asked size needs.
    asked : str or None
        The size that was asked for in the place of a ratio, in words.
    ratio_reached : float
        Share that was.
    multiple : int
        What widths are multiples of.
    params_before : int
        Number of parameters of the dense model.
    params_after : int
        Number of parameters of the pruned model.
    bytes_before, bytes_after : int
        Bytes of the files of weights, with their headers, of the dense and of the
        pruned model.
    ks_mean : float
        Mean over layers of the Kolmogorov-Smirnov distance between the spectra before
        and after, of the spectrum that the method looks at: 0 if they are the same, 1
        at most.
    kept : list of L Tensors, each of shape (k,), int64
        Rows kept in every layer.
    policy : RowPolicy or None
        Reusable at any ratio; None if the energies chose.
    history : list of float
        Mean distance in every episode of training; empty if the policy was given.
    seconds_policy : float
        Seconds of the training alone.
    seconds_total : float
        Seconds of all of it.
    out : pathlib.Path or None
        Folder of the pruned model, if it was written.
    details : dict
        What only this method or way has to report.
    """

    model: Any
    source: str
    method: str
    ratio: float
    asked: str | None
    multiple: int
    ratio_reached: float
    params_before: int
    params_after: int
    bytes_before: int
    bytes_after: int
    ks_mean: float
    kept: list
    policy: Any
    history: list[float]
    seconds_policy: float
    seconds_total: float
    out: Path | None
    details: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The summary: a model and its rows would fill pages."""
        return f"PruneReport({self.summary()})"

    def summary(self) -> dict[str, Any]:
        """What JSON can hold of the report, for a file or a terminal."""
        asked, details = asked_for(vars(self)), dict(self.details)
        weights = {"weights": details.pop("weights")} if "weights" in details else {}
        return {
            **weights,  # first: random ones are said to be
            "model": self.source,
            "method": self.method,
            **asked,
            **{key: getattr(self, key) for key in COUNTS},
            "ks_of": f"{SPECTRUM[self.method]}; 0 is the same, 1 the largest distance",
            "rows_kept": [len(rows) for rows in self.kept],
            "seconds_policy": self.seconds_policy,
            "seconds_total": self.seconds_total,
            "out": None if self.out is None else str(self.out),
            **details,
            **({} if self.out is None else {"load": self._load()}),
        }

    def _load(self) -> str:
        """What opens the folder, in one line."""
        out = str(self.out)
        if len({len(rows) for rows in self.kept}) == 1:
            return f"AutoModelForCausalLM.from_pretrained({out!r})"
        export = shlex.join(["prunefair", "export", out, "--padded", "NEW"])
        return f"prunefair.load_pruned({out!r}); for other loaders: {export}"


def asked_for(counts: dict) -> dict[str, Any]:
    """The ratio that was asked for; or the size that was, and the ratio found for it."""
    if counts["asked"] is None:
        return {"ratio": counts["ratio"]}
    return {"asked": counts["asked"], "ratio_found": counts["ratio"]}


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The checked arguments of one pruning."""

    model: Any
    tokenizer: Any
    ratio: float
    asked: str | None
    method: str
    geometry: str | None
    spectra: str | None
    refit: bool
    reconstruct: bool
    steps: int
    choice: str
    widths: str
    multiple: int
    texts: int
    policy: Any
    episodes: int
    seed: int
    device: str
    offload: Path | None
    out: Path | None

    @property
    def plan(self):
        """How whole blocks are fitted, or None if they are not."""
        from prunefair.pruning.reconstruction import CORRECTED, LONGER

        if self.steps:
            return replace(LONGER, steps=self.steps)
        return CORRECTED if self.reconstruct else None

    @property
    def refit_apart(self) -> bool:
        """Whether there is a re-fit before blocks are fitted, or in their place."""
        return self.refit and not (self.plan and self.plan.ridges)

    @property
    def even(self) -> bool:
        """Whether every layer loses the same share."""
        return self.widths == "equal"

    @property
    def loaded(self) -> bool:
        """Whether `model` is a model in memory, not the name of one."""
        return in_memory(self.model)

    def known_policy(self, kind: type):
        """The policy to reuse, of class `kind`, or None if one is to be trained."""
        from prunefair.pruning.row_policy import RowPolicy, load_policy

        if in_memory(self.policy):
            if not isinstance(self.policy, RowPolicy):
                raise ValueError(
                    f"{named('policy')} is {shown(self.policy)}; give a {kind.__name__}, "
                    "or a file"
                )
            if type(self.policy) is not kind:
                raise ValueError(
                    f"{named('policy')} is a {type(self.policy).__name__}, which "
                    f"another method trains; give a {kind.__name__}"
                )
            return self.policy
        if self.policy is None or not Path(self.policy).exists():
            return None
        return load_policy(self.policy, kind, argument="policy")


def prune(
    model,
    ratio: float | None = None,
    *,
    parameters: float | None = None,
    bytes: float | None = None,
    out: str | os.PathLike | None = None,
    tokenizer=None,
    method: str | None = None,
    geometry: str | None = None,
    spectra: str | None = None,
    refit: bool = True,
    reconstruct: bool = False,
    reconstruct_steps: int = 0,
    choice: str = "policy",
    widths: str = "equal",
    multiple: int | None = None,
    texts: int = 256,
    policy=None,
    episodes: int = 6,
    seed: int = 0,
    device: str | None = None,
    offload: str | os.PathLike | None = None,
) -> PruneReport:
    """Remove a share of the feed-forward rows of a model by the learned policy.

    A model with more than 2048 columns, or that would take more than half of the free
    memory, goes through a layer at a time and is never in memory as a whole; the result
    is the same.  With the options `**prunefair.pipelines.FAST` it takes a quarter of the
    time, and the result diverges more from the dense model.

    Parameters
    ----------
    model : str, path, transformers.PreTrainedModel or None
        `"smollm2"`, a folder, a hub name, or a model in memory, which is not changed
        and stays on its device (another call on it waits); None with `geometry`.
    ratio : float, optional
        Share of the FFN rows to remove, in [0, 1).
    parameters, bytes : float, optional
        In its place: the most parameters, or bytes of the files of weights with their
        headers, that are to be left.
    out : path, optional
        New folder for the pruned model.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        To be saved beside a model given in memory; a named model brings its own.
    method : {"functional", "spectral"}, optional
        `"spectral"` is the paper's, and the default with `geometry` or `spectra` alone.
    geometry : str, optional
        Random weights of this geometry instead of a model.
    spectra : {"exact", "lanczos"}, optional
        Go a layer at a time with these spectra; by default exact up to 2048 columns.
    refit : bool
        With functional: re-fit what is left to the model's own text.
    reconstruct : bool
        With functional: re-fit block after block to what each is given in the pruned
        model, and make good half of what has drifted; nearer to the dense model, and
        minutes more for a small one.
    reconstruct_steps : int
        With functional: reconstruct, and then fit all matrices of each block by so many
        steps of gradients; 320 with `texts=640` come nearest, and take several times
        as long.
    choice : {"policy", "energy"}
        With functional: rows by a trained policy, or by the energies alone, which is
        faster.
    widths : {"equal", "uneven"}
        Uneven is nearer to the dense model with functional, but only `load_pruned`
        reads it, and llama.cpp after `export_gguf`; with `export_padded` every loader
        does, without a saving.  No layer loses more than half of its neurons, so that
        widths are equal at ratios of 0.5 and more.
    multiple : int, optional
        Widths are multiples of it; by default 32 with functional where every layer has
        512 neurons or more, else 1, the paper's count.
    texts : int
        With functional: texts of 128 tokens that the model samples.
    policy : path or RowPolicy, optional
        Reused if the file exists, else trained and saved there.
    episodes : int
        Episodes of training.
    seed : int
        Of all draws: the same seed gives the same bytes.
    device : str, optional
        As torch names it; a GPU by default if there is one.
    offload : path, optional
        With functional: go a layer at a time, and keep what waits in this folder; a run
        that was interrupted goes on from it, another ratio starts with the choice, and
        only `out` is written anew, whole or not at all.

    Returns
    -------
    report : PruneReport

    Raises
    ------
    ValueError
        If an argument cannot be used; nothing has been written then.
    OSError
        If something cannot be written; a policy that was trained is saved first.

    Examples
    --------
    >>> import torch
    >>> from prunefair.pipelines import prune
    >>> from prunefair.pruning.surgery import tiny_model
    >>> model = tiny_model("llama", generator=torch.Generator().manual_seed(0))
    >>> report = prune(model, 0.25, method="spectral", episodes=1)
    >>> [len(rows) for rows in report.kept], report.ratio_reached
    ([9, 9], 0.25)
    """
    import torch

    if model is not None:
        given_model(model)
    only = {"choice": choice != "policy" and choice, "offload": offload}
    steps = checked_whole("reconstruct_steps", reconstruct_steps, 0)
    only |= {"reconstruct": bool(reconstruct), "reconstruct_steps": steps}
    _check_choices(model, geometry, method, spectra, widths, choice, only)
    target = given_target(ratio, parameters, bytes)
    if choice == "energy" and policy is not None:
        raise ValueError(
            f"{named('policy')} is {shown(policy)}, and {named('choice')} 'energy', "
            "which knows no policy; leave one of them out"
        )
    if not (tokenizer is None or is_tokenizer(tokenizer)):
        raise ValueError(
            f"{named('tokenizer')} is {shown(tokenizer)}; give a loaded one, or None"
        )
    multiple = None if multiple is None else checked_whole("multiple", multiple, 1)
    texts = checked_whole("texts", texts, 2)
    episodes = checked_whole("episodes", episodes, 1)
    seed = checked_whole("seed", seed, 0, 2**64)
    _check_outputs(out, policy, offload)
    loaded = in_memory(model)
    device = str(model.device) if loaded else usable_device(device)
    skeleton = model if loaded else _skeleton(model, geometry)
    method = method or ("spectral" if geometry or spectra else "functional")
    functional, sizes = method == "functional", _sizes(skeleton)
    step = _multiple(multiple, sizes, 32 if functional and min(sizes) >= 512 else 1)
    even = {"even": widths == "equal", "multiple": step}
    ratio = wanted_ratio(*target, skeleton, **even)
    _check_rows(sizes, ratio)
    streamed = bool(geometry or spectra or offload)
    if not (loaded or streamed):
        streamed = goes_in_turns(skeleton, device, functional=functional)
    if method == "spectral" and widths != "equal":
        raise ValueError(
            f"{named('widths')} is {widths!r}, which the spectral method does not "
            f"choose; give equal, or {named('method', 'functional')}"
        )
    job = _Job(
        model=model,
        tokenizer=tokenizer,
        ratio=ratio,
        asked=asked_size(*target),
        method=method,
        geometry=geometry,
        spectra=spectra,
        refit=bool(refit),
        reconstruct=bool(reconstruct or steps),
        steps=steps,
        choice=choice,
        widths=widths,
        multiple=step,
        texts=texts,
        policy=policy,
        episodes=episodes,
        seed=seed,
        device=device,
        offload=None if offload is None else Path(offload),
        out=None if out is None else Path(out),
    )
    run = _prune_whole
    if streamed:
        run = prune_in_turns if functional else _prune_streamed
    # training needs gradients, whatever is around the call
    with torch.inference_mode(False), torch.enable_grad(), alone(model):
        return run(job)


def _check_choices(model, geometry, method, spectra, widths, choice, only) -> None:
    """Raise unless the words are known and go together."""
    if (model is None) == (geometry is None):
        if model is None:
            raise ValueError(
                f"neither of {named('model')} and {named('geometry')} is given; give one "
                "of the two"
            )
        raise ValueError(
            f"{named('model')} is {model_name(model)!r} and {named('geometry')} "
            f"{geometry!r}; give one of the two"
        )
    for argument, value, known in (
        ("spectra", spectra, SPECTRA),
        ("method", method, METHODS),
        ("widths", widths, WIDTHS),
        ("choice", choice, CHOICES),
    ):
        if value not in known and (value is not None or argument in OWN_DEFAULT):
            raise ValueError(
                f"{named(argument)} is {shown(value)}; give {' or '.join(known)}"
            )
    if method == "functional" and spectra:
        raise ValueError(
            f"{named('method')} is 'functional', which knows no {named('spectra')}; "
            f"leave that out, or give {named('method', 'spectral')}"
        )
    spectral = method == "spectral" or (method is None and bool(geometry or spectra))
    for argument, value in only.items():
        if spectral and value:
            raise ValueError(
                f"{named(argument)} is {shown(value)}, which only the functional method "
                f"knows; leave it out, or give {named('method', 'functional')}"
            )
    for argument, value in (("spectra", spectra), ("offload", only["offload"])):
        if value and in_memory(model):
            raise ValueError(
                f"{named(argument)} is {shown(value)}, with which a model goes a layer "
                "at a time; give its folder or name instead of the model"
            )


def _check_outputs(out, policy, offload) -> None:
    """Raise, before the work, unless all can be written beside each other."""
    from prunefair.outputs import check_new_file, check_new_folder

    file = None if in_memory(policy) else policy
    check_apart({"policy": file, "offload": offload, "out": out})
    if out is not None:
        check_new_folder(out, argument="out")
    if file is not None and not Path(file).is_file():  # an existing one is only read
        check_new_file(file, argument="policy")


def _skeleton(model, geometry: str | None):
    """The dense model without values, from its configuration alone."""
    from prunefair.models import empty_model, load_config
    from prunefair.pruning.llama2_7b import GEOMETRIES, geometry_config
    from prunefair.pruning.surgery import ADAPTERS, adapter_for

    if geometry and geometry not in GEOMETRIES:
        raise ValueError(
            f"{named('geometry')} is {geometry!r}; give one of " + ", ".join(GEOMETRIES)
        )
    given = Given("geometry" if geometry else "model", geometry or model_name(model))
    if geometry:
        config = geometry_config(geometry)
    else:
        config = load_config(model, argument="model")
    config.per_layer_config = None  # every layer at its largest
    if config.model_type not in ADAPTERS:
        raise given.error(
            f"of the family {config.model_type!r}, which cannot be pruned",
            f"give one of {', '.join(sorted(ADAPTERS))}",
        )
    skeleton = empty_model(config, given)
    adapter_for(skeleton)  # raises if it is not built like its family
    return skeleton


def _sizes(skeleton) -> list[int]:
    """Number of neurons of every layer."""
    from prunefair.pruning.surgery import row_matrices

    return [len(matrix) for matrix in row_matrices(skeleton)]


def _check_rows(sizes: list[int], ratio: float) -> None:
    from prunefair.pruning.anatomy import rows_to_keep

    rows = max(sizes)
    try:
        rows_to_keep(rows, ratio)
    except ValueError as error:
        raise ValueError(
            f"{named('ratio')} is {ratio}, which leaves no row of {rows}; lower it"
        ) from error


def _prune_streamed(job: _Job) -> PruneReport:
    """Prune by the paper's method, one layer in memory at a time."""
    import torch

    from prunefair.pruning import folders, lanczos, llama2_7b, row_policy, surgery

    start, policy = time.perf_counter(), job.known_policy(row_policy.RowPolicy)
    weights, source, dense, read, tokenizer = opened(job)
    matrices = surgery.row_matrices(dense)
    columns = min(matrix.shape[1] for matrix in matrices)
    if job.spectra == "lanczos" and columns < lanczos.PROBES:
        raise ValueError(
            f"{named('spectra')} is 'lanczos', which needs {lanczos.PROBES} columns, "
            f"and the model has {columns}; give exact"
        )
    sizes = [len(matrix) for matrix in matrices]
    shares = _shares(sizes, job.ratio, job.multiple)
    if len(set(shares)) > 1:
        raise ValueError(
            f"{named('multiple')} is {job.multiple}, and the layers of "
            f"{model_name(job.model)!r} differ in width; give 1 where the model goes a "
            "layer at a time"
        )
    run = llama2_7b.prune_streamed(
        dense,
        read,
        shares[0],
        generator=torch.Generator().manual_seed(job.seed),
        device=job.device,
        policy=policy,
        episodes=job.episodes,
        probes={None: None, "exact": 0, "lanczos": lanczos.PROBES}[job.spectra],
    )
    ks_mean = sum(run.distances) / len(run.distances)
    removed = surgery.removed_parameters(dense, run.kept)
    counts = counted(job, dense, removed, sizes, run.kept, ks_mean)
    record = {"method": "spectral", "widths_before": sizes, "seed": job.seed}
    record |= {"episodes": job.episodes if run.history else None}
    record = _base(job, source) | record | _rounded(counts)

    def save():
        begin = time.perf_counter()
        meta = copy.deepcopy(dense)
        folders.write_sliced(meta, read, job.out, run.kept, tokenizer, record)
        run.seconds["save"] = time.perf_counter() - begin

    save_all(job, run.policy if policy is None else None, save)
    return PruneReport(
        model=None,
        source=job.geometry or model_name(job.model),
        method="spectral",
        **counts,
        kept=run.kept,
        policy=run.policy,
        history=run.history,
        seconds_policy=run.seconds["policy"] if run.history else 0.0,
        seconds_total=time.perf_counter() - start,
        out=job.out,
        details={
            "weights": weights,
            "seconds": run.seconds,
            "peak_gpu_bytes": run.peak_bytes,
        },
    )


def _multiple(multiple: int | None, sizes: list[int], default: int) -> int:
    """What widths are multiples of; raise if a layer is narrower."""
    if multiple is not None and multiple > min(sizes):
        raise ValueError(
            f"{named('multiple')} is {multiple}, more than the {min(sizes)} neurons of "
            f"a layer; give at most {min(sizes)}"
        )
    return default if multiple is None else multiple


def _shares(sizes: list[int], ratio: float, multiple: int) -> list[float]:
    """Ratio of every layer at which its width is the multiple nearest to `ratio`."""
    from prunefair.pruning.anatomy import ratio_of_rows, rows_to_keep

    if multiple == 1:
        return [ratio] * len(sizes)
    return [ratio_of_rows(m, rows_to_keep(m, ratio, multiple)) for m in sizes]


def opened(job: _Job) -> tuple:
    """Words, source, skeleton, reader and tokenizer of what goes a layer at a time."""
    import torch

    from prunefair.models import load_tokenizer, model_source, stream_folder
    from prunefair.pruning import llama2_7b

    if job.geometry:
        dtype = torch.bfloat16 if job.method == "functional" else torch.float16
        options = {"seed": job.seed, "device": job.device, "dtype": dtype}
        weights = llama2_7b.weights_line(job.geometry)
        return weights, "", *llama2_7b.open_geometry(job.geometry, **options), None
    source = model_source(job.model, argument="model")
    dense, read = stream_folder(job.model, argument="model")
    tokenizer = load_tokenizer(job.model, argument="model", optional=True)
    for name in dense.state_dict():  # what cannot be used is found before the work
        read(name)
    return f"weights of {model_name(job.model)}", source, dense, read, tokenizer


def say_no_tokenizer() -> None:
    """Warn that the folder of the result will have none."""
    _log.warning(f"{named('model')} has no tokenizer; none is written")


def counted(job: _Job, dense, removed: int, sizes, kept, ks_mean: float) -> dict:
    """The numbers of a report, whichever way the model went.

    Parameters
    ----------
    job : _Job
    dense : transformers.PreTrainedModel
    removed : int
        Parameters that are gone.
    sizes : list of L ints
        Neurons of every layer before.
    kept : list of L Tensors, each of shape (k,), int64
        Rows kept.
    ks_mean : float
        Mean spectral distance.

    Returns
    -------
    counts : dict
    """
    from prunefair.pruning.folders import stored_bytes

    before = dense.num_parameters()
    return {
        "ratio": job.ratio,
        "asked": job.asked,
        "multiple": job.multiple,
        "ratio_reached": 1 - sum(len(rows) for rows in kept) / sum(sizes),
        "params_before": before,
        "params_after": before - removed,
        "bytes_before": stored_bytes(dense),
        "bytes_after": stored_bytes(dense, [len(rows) for rows in kept]),
        "ks_mean": ks_mean,
    }


def _rounded(counts: dict[str, Any]) -> dict[str, Any]:
    """What a record has of `counts`, with so many digits as come twice."""
    digits = {"ks_mean": 3, "ratio_reached": 6}
    kept = asked_for(counts) | {key: counts[key] for key in COUNTS}
    return kept | {k: float(f"{counts[k]:.{n}g}") for k, n in digits.items()}


def _base(job: _Job, source: str) -> dict[str, Any]:
    """What the record of a pruned model says of the model it was."""
    from prunefair.model_card import license_in
    from prunefair.models import REAL_MODELS

    if job.geometry:
        return {"base_model": f"random weights in the geometry of {job.geometry}"}
    name = model_name(job.model)
    if name in REAL_MODELS:
        real = REAL_MODELS[name]
        known = {"base_model": real.hub_name, "base_license": real.license}
        quantised = {"base_weights": f"dequantised from {real.weights}"}
        return known | (quantised if Path(source).is_dir() else {})
    if job.loaded:  # under what its class is called the hub has another, or none
        return {"base_model": name, "base_license": None}
    name = Path(name).resolve().name if Path(name).is_dir() else name
    return {"base_model": name, "base_license": license_in(source)}


def _prune_whole(job: _Job) -> PruneReport:
    """Prune a model that is in memory as a whole."""
    import torch

    from prunefair.models import check_runs, load_model, load_tokenizer, model_source
    from prunefair.pruning.folders import save_pruned
    from prunefair.pruning.functional_policy import FunctionalPolicy
    from prunefair.pruning.row_policy import RowPolicy
    from prunefair.pruning.surgery import row_matrices

    start, given = time.perf_counter(), given_model(job.model)
    functional = job.method == "functional"
    policy = job.known_policy(FunctionalPolicy if functional else RowPolicy)
    if job.loaded:
        dense, tokenizer, source = job.model, job.tokenizer, model_name(job.model)
    else:
        source = model_source(job.model, argument="model")
        tokenizer = load_tokenizer(job.model, argument="model", optional=True)
        dense = load_model(job.model, device=job.device, argument="model")
    if tokenizer is None and job.out is not None:
        say_no_tokenizer()
    check_runs(dense, given)
    sizes, multiple = [len(matrix) for matrix in row_matrices(dense)], job.multiple
    generator = torch.Generator().manual_seed(job.seed)
    if functional:
        with started(dense, tokenizer, given):
            pruned = _run_functional(job, dense, policy, multiple, generator)
    else:
        pruned = _run_spectral(job, dense, policy, sizes, multiple, generator)
    if job.loaded:  # what was not sliced is shared with the caller's model
        pruned = pruned._replace(model=copy.deepcopy(pruned.model))
    removed = dense.num_parameters() - pruned.model.num_parameters()
    counts = counted(job, dense, removed, sizes, pruned.kept, pruned.ks_mean)
    record = recorded(job, source, counts, sizes, pruned)
    new = pruned.policy if policy is None else None
    save = partial(save_pruned, pruned.model, tokenizer, job.out, pruned.kept, record)
    save_all(job, new, save)
    return PruneReport(
        model=pruned.model,
        source=model_name(job.model),
        method=job.method,
        **counts,
        kept=pruned.kept,
        policy=pruned.policy,
        history=pruned.history,
        seconds_policy=pruned.seconds_policy,
        seconds_total=time.perf_counter() - start,
        out=job.out,
        details=fitted_details(job, pruned) if functional else {},
    )


def _run_spectral(job, dense, policy, sizes, multiple, generator):
    from prunefair.pruning.spectral_pruning import prune_spectral

    options = {"policy": policy, "episodes": job.episodes, "generator": generator}
    ratio = job.ratio if multiple == 1 else _shares(sizes, job.ratio, multiple)
    return prune_spectral(dense, ratio, **options)


def _run_functional(job, dense, policy, multiple, generator):
    from prunefair.pruning.functional_pruning import (
        needs_costs,
        prune_functional,
        self_statistics,
    )
    from prunefair.pruning.self_moments import down_projections
    from prunefair.pruning.sweeps import functional_penalty

    sizes = {"n_texts": job.texts, "costs": needs_costs(job.choice, job.even)}
    statistics = self_statistics(dense, generator=generator, **sizes)
    on = {"generator": generator, "device": dense.device}
    penalty = functional_penalty(down_projections(dense)[0].out_features, **on)
    return prune_functional(
        dense,
        job.ratio,
        generator=generator,
        statistics=statistics,
        choice=job.choice,
        policy=policy,
        penalty=penalty,
        refit=job.refit_apart,
        reconstruct=job.plan,
        even=job.even,
        multiple=multiple,
        episodes=job.episodes,
    )


def recorded(job: _Job, source: str, counts: dict, sizes: list[int], pruned) -> dict:
    """What the folder says of how its model came about; the same for every way.

    Parameters
    ----------
    job : _Job
    source : str
        Folder or hub name of the dense model.
    counts : dict
        Numbers of the report.
    sizes : list of int
        Neurons of every layer before.
    pruned : Pruned or Swept
        What was chosen, with `history` and `ridge`.

    Returns
    -------
    record : dict
        See `save_pruned`.
    """
    record = {"method": job.method, "seed": job.seed}
    if job.method == "functional":
        record |= {"texts": job.texts, "refit": job.refit} | _fit_errors(job, pruned)
        record["method"] += ", by energy" if job.choice == "energy" else ""
    record["episodes"] = job.episodes if pruned.history else None
    record |= {"widths_before": sizes, "ridge": pruned.ridge}
    return _base(job, source) | record | _rounded(counts)


def fitted_details(job: _Job, pruned) -> dict[str, Any]:
    """What a report says of the re-fit, the reconstruction and the widths.

    Parameters
    ----------
    job : _Job
    pruned : Pruned or Swept

    Returns
    -------
    details : dict
    """
    return {"refit": job.refit, "widths": job.widths} | _fit_errors(job, pruned)


def _fit_errors(job: _Job, pruned) -> dict[str, Any]:
    """Steps, and mean error of the blocks on texts that judge before and after, if any."""
    if not pruned.block_errors:
        return {}
    means = [sum(e) / len(e) for e in zip(*pruned.block_errors, strict=True)]
    details = {"reconstruction": [float(f"{mean:.3g}") for mean in means]}
    return details | ({"reconstruction_steps": job.steps} if job.steps else {})


def save_all(job: _Job, policy, save: Callable) -> None:
    """Write a new policy, then the model: what is trained is kept if `save` fails.

    Parameters
    ----------
    job : _Job
    policy : RowPolicy or None
        The new one.
    save : callable
        Writes the model.

    Raises
    ------
    OSError
        If one of them cannot be written.
    """
    from prunefair.pruning.row_policy import save_policy

    kept = "nothing was left behind"
    if policy is not None and job.policy is not None:
        with _blamed_on("policy", job.policy, kept):
            save_policy(policy, job.policy)
        kept = "the policy is saved, and the same command goes on from it"
    if job.out is not None:
        with _blamed_on("out", job.out, kept):
            save()


@contextlib.contextmanager
def _blamed_on(argument: str, place, kept: str):
    """Say what could not be written, and what there is now."""
    try:
        yield
    except OSError as error:
        reason = error.__cause__ or error
        raise OSError(
            f"{named(argument)} is {str(place)!r}, which could not be written "
            f"({getattr(reason, 'strerror', None) or reason}); free some space or name "
            f"another place; {kept}"
        ) from error
