"""A model pruned by what it feels, a layer at a time."""

from __future__ import annotations

import contextlib
import logging
import time

from prunefair.messages import Given
from prunefair.pipelines._arguments import model_name, started
from prunefair.pipelines._room import check_room, free_bytes

LENGTH = 128  # tokens of a text
SAID_FROM = 60  # seconds from which on a run is worth a word before it starts
SMALL = 1e12  # operations that no device is measured for
SPARE = 5e8  # bytes that sampling leaves free on a GPU, on a CPU a tenth of all

_log = logging.getLogger(__name__)


def prune_in_turns(job):
    """The functional method with one layer on the device.

    Parameters
    ----------
    job : _Job
        Checked arguments of `prune`.

    Returns
    -------
    report : PruneReport
    """
    import torch

    from prunefair.models import within_context
    from prunefair.pipelines import pruning
    from prunefair.pruning import surgery, sweeps
    from prunefair.pruning.functional_policy import FunctionalPolicy
    from prunefair.pruning.functional_pruning import needs_costs
    from prunefair.pruning.layered import LayeredModel
    from prunefair.pruning.throughput import Stopwatch

    start, argument = time.perf_counter(), "geometry" if job.geometry else "model"
    given = Given(argument, job.geometry or model_name(job.model))
    policy = job.known_policy(FunctionalPolicy)
    weights, source, dense, read, tokenizer = pruning.opened(job)
    if tokenizer is None and job.out is not None and not job.geometry:
        pruning.say_no_tokenizer()
    sizes = [len(matrix) for matrix in surgery.row_matrices(dense)]
    length = within_context(dense, LENGTH)
    sizes_of = {"tokens": job.texts * length, "length": length}
    plan = sweeps.sweep_plan(dense, job.ratio, reconstruct=job.plan, **sizes_of)
    size = dense.num_parameters() * dense.dtype.itemsize
    check_room(plan, device=job.device, offload=job.offload, out=job.out, size=size)
    seconds = _planned_seconds(job, dense, length)
    _say(job, plan, seconds)
    store, generator = _store(job, dense, read), torch.Generator().manual_seed(job.seed)
    layered, watch = LayeredModel(dense, read, device=job.device), Stopwatch(job.device)
    options = {"generator": generator, "watch": watch}
    with started(layered.model, tokenizer, given), watch("texts"), _drawn(given):
        sweeps.put_texts(
            layered,
            store,
            generator=generator,
            n_texts=job.texts,
            length=LENGTH,
            free=_free(job.device),
        )
    costs = needs_costs(job.choice, job.even)
    statistics = sweeps.swept_statistics(layered, store, costs=costs, **options)
    run = sweeps.prune_swept(
        layered,
        statistics,
        job.ratio,
        store=store,
        refit=job.refit_apart,
        choice=job.choice,
        policy=policy,
        even=job.even,
        multiple=job.multiple,
        episodes=job.episodes,
        **options,
    )
    if job.reconstruct and job.out is not None:
        with started(layered.model, tokenizer, given), watch("reconstruction"):
            how = {"plan": job.plan, "generator": generator}
            how |= {"free": _free(job.device)}
            run = sweeps.reconstruct_swept(layered, statistics, run, store, **how)
    removed, ks_mean = surgery.removed_parameters(dense, run.kept), float(run.ks.mean())
    counts = pruning.counted(job, dense, removed, sizes, run.kept, ks_mean)
    record = pruning.recorded(job, source, counts, sizes, run)

    def save():
        with watch("save"):
            rest = job.out, tokenizer, record
            sweeps.write_swept(dense, layered, statistics, run, *rest)

    pruning.save_all(job, run.policy if policy is None else None, save)
    if run.fits:
        run.fits.drop()
    return pruning.PruneReport(
        model=None,
        source=given.value,
        method="functional",
        **counts,
        kept=run.kept,
        policy=run.policy,
        history=run.history,
        seconds_policy=watch.seconds["choice"] if run.history else 0.0,
        seconds_total=time.perf_counter() - start,
        out=job.out,
        details={
            "weights": weights,
            **pruning.fitted_details(job, run),
            "seconds": watch.seconds,
            "peak_gpu_bytes": watch.peak_bytes(),
            "planned_bytes": plan._asdict(),
            "planned_seconds": seconds,
        },
    )


def _free(device: str) -> float:
    """Bytes that sampling may take."""
    free = free_bytes(device)
    return 0.9 * free if device == "cpu" else free - SPARE


@contextlib.contextmanager
def _drawn(given: Given):
    """Say it in one line if nothing can be drawn, as from NaN."""
    try:
        yield
    except RuntimeError as error:
        raise given.error(
            "from which no text can be sampled", "give another model", str(error)
        ) from error


def _planned_seconds(job, dense, length: int) -> dict[str, float]:
    """Least seconds of every stage at the rates of the device; none of a small job."""
    from prunefair.pruning.functional_pruning import needs_costs
    from prunefair.pruning.sweeps import stage_seconds, sweep_work
    from prunefair.pruning.throughput import device_rates

    size = {"tokens": job.texts * length, "length": length, "episodes": job.episodes}
    work = sweep_work(dense, job.ratio, reconstruct=job.plan, **size)
    if job.choice == "energy":
        del work["features"], work["policy"]
    if not needs_costs(job.choice, job.even):
        del work["backward"]
    if not job.refit_apart:
        del work["ridge"], work["refit"]
    if sum(cost.operations for _, cost in work.values()) < SMALL:
        return {}
    return stage_seconds(work, device_rates(job.device, dense.dtype))


def _say(job, plan, seconds: dict[str, float]) -> None:
    """Tell what a long run will take, before it starts."""
    total = sum(seconds.values())
    if total < SAID_FROM:
        return
    place = f"in {str(job.offload)!r}" if job.offload else "in memory"
    longest = max(seconds, key=seconds.get)
    _log.warning(
        f"a layer at a time: {plan.device / 1e9:.2g} GB on {job.device}, "
        f"{plan.waiting / 1e9:.2g} GB wait {place}; at least {total / 60:.0f} min, most "
        f"of it for {longest}"
    )


def _store(job, dense, read):
    """Where statistics wait: in memory, or in the folder that was named."""
    from prunefair.pruning.layered import FolderStore, MemoryStore, fingerprint

    if job.offload is None:
        return MemoryStore()
    identity = {"model": fingerprint(dense, read), "texts": job.texts}
    identity |= {"length": LENGTH, "seed": job.seed}
    return FolderStore(job.offload, identity)
