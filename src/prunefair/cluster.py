"""Independent pieces of work: in this process, on its cores, or on a cluster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any

from prunefair.messages import checked_whole, named, shown

BACKENDS = ("processes", "dask", "ray")
DEATHS = 3  # of workers, before a piece is finished, that a run survives


def run_pieces(
    pieces: Iterable[tuple[Hashable, Callable[[], Any]]],
    *,
    backend: str = "processes",
    workers: int | None = 1,
    scheduler: str | None = None,
    seconds: float = float("inf"),
) -> Iterator[tuple[Hashable, Any]]:
    """Run pieces that do not depend on each other, and give each result as it comes.

    A worker that dies loses nothing: what it had not finished is run again, elsewhere.
    No result is given twice.  What a piece draws must depend on its place alone, then
    its result does not depend on the backend, on the workers or on the order.

    Parameters
    ----------
    pieces : iterable of tuple
        Place of each piece, no two alike, and the function without arguments that makes
        it; with more than one worker both the function and its result are pickled.
    backend : {"processes", "dask", "ray"}
        The engine behind joblib.
    workers : int or None
        How many pieces run at a time; None for one on each core, with a `scheduler` one
        on each of its workers' threads.  With "processes", 1 is this process itself.
    scheduler : str, optional
        Address of a cluster that runs: of the scheduler of Dask, such as
        `tcp://host:8786`, or of Ray, such as `ray://host:10001`.  By default "dask" and
        "ray" begin a cluster of their own on this machine, which ends with the run.
    seconds : float
        No piece is begun later than so many seconds from now.

    Yields
    ------
    place : hashable
    result : object
        In the order in which the pieces finish.

    Raises
    ------
    ValueError
        If an argument is none of those above or two pieces have one place.
    ModuleNotFoundError
        If the engine is not installed.
    ConnectionError
        If nobody answers at `scheduler`.
    RuntimeError
        If workers die again and again before a piece is finished.
    TypeError
        If workers of this machine cannot read a piece.

    Examples
    --------
    >>> from functools import partial
    >>> from prunefair.cluster import run_pieces
    >>> pieces = [((base, power), partial(pow, base, power))
    ...           for base in (2, 3) for power in (4, 5)]
    >>> sorted(run_pieces(pieces))
    [((2, 4), 16), ((2, 5), 32), ((3, 4), 81), ((3, 5), 243)]
    """
    if backend not in BACKENDS:
        raise ValueError(
            f"{named('backend')} is {shown(backend)}; give one of {', '.join(BACKENDS)}"
        )
    if scheduler and backend == "processes":
        raise ValueError(
            f"{named('scheduler')} is {shown(scheduler)}, which only dask and ray "
            f"have; give {named('backend', 'dask')}, or leave it out"
        )
    if workers is not None:
        workers = checked_whole("workers", workers, 1)
    listed = list(pieces)
    left = dict(listed)
    if len(left) < len(listed):
        raise ValueError("pieces has two with one place; give each its own")
    return _results(left, backend, workers, scheduler, time.monotonic() + seconds)


def _results(left, backend, workers, scheduler, deadline) -> Iterator:
    from joblib import delayed
    from tqdm import tqdm

    deaths, last = 0, None
    with (
        (
            _engine(backend, workers, scheduler) if left else contextlib.nullcontext()
        ) as engine,
        tqdm(total=len(left), desc="pieces", disable=None) as bar,
    ):
        while left and time.monotonic() <= deadline:
            if deaths > DEATHS:
                raise RuntimeError(
                    f"a worker died {deaths} times before one of {len(left)} pieces "
                    f"was finished, {shown(next(iter(left)))} the first; give it more "
                    f"memory or fewer {named('workers')}"
                ) from last
            todo = list(left.items())
            tasks = (
                delayed(_done)(place, make)
                for place, make in todo
                if time.monotonic() <= deadline
            )
            parallel, death = engine()
            results = parallel(tasks)
            try:
                for place, result in results:
                    del left[place]
                    deaths = 0
                    bar.update()
                    yield place, result
                    if time.monotonic() > deadline and parallel.pre_dispatch == "all":
                        return  # what waits on the cluster is not begun
            except death as error:
                if "un-serialize" in str(error):  # nobody died
                    raise _unreadable(error) from error
                deaths, last = deaths + (DEATHS + 1 if backend == "dask" else 1), error
            finally:
                results.close()


def _done(place, make):
    return place, make()


@contextlib.contextmanager
def _engine(backend: str, workers: int | None, scheduler: str | None) -> Iterator:
    """A function that gives joblib's runner, and what it raises if a worker died."""
    import joblib

    options = {"batch_size": 1, "return_as": "generator_unordered"}
    options["pre_dispatch"] = "all" if scheduler and not workers else "2*n_jobs"
    options["n_jobs"] = workers or -1
    with contextlib.ExitStack() as stack:
        if backend == "processes":
            death, kind = (
                BrokenExecutor,
                {"backend": "loky", "inner_max_num_threads": 1},
            )
        elif backend == "dask":
            death, kind = _dask(stack, workers, scheduler)
        else:
            death, kind = _ray(stack, workers, scheduler)

        def runner():
            with joblib.parallel_config(**kind):
                return joblib.Parallel(**options), death

        yield runner


def _dask(stack: contextlib.ExitStack, workers: int | None, scheduler: str | None):
    """The client of a cluster that is there, or of one of this machine's processes.

    Dask runs the pieces of a worker that died on others by itself, thrice.
    """
    _need("distributed", "dask")
    from distributed import Client, KilledWorker, LocalCluster

    address = scheduler
    if scheduler is None:
        import joblib

        address = stack.enter_context(
            LocalCluster(
                n_workers=workers or joblib.cpu_count(),
                threads_per_worker=1,
                dashboard_address=None,
                silence_logs=50,
            )
        )
    try:
        client = stack.enter_context(Client(address, set_as_default=False))
    except (OSError, ValueError) as error:
        raise _nobody(scheduler, "dask scheduler", error) from error
    client.wait_for_workers(1)  # a queue may take its time
    return KilledWorker, {"backend": "dask", "client": client}


def _ray(stack: contextlib.ExitStack, workers: int | None, scheduler: str | None):
    _need("ray", "ray")
    import ray
    from joblib import register_parallel_backend
    from ray.util.joblib.ray_backend import RayBackend

    class Pieces(RayBackend):
        supports_return_generator = True  # its pool calls back as each task ends

    if not ray.is_initialized():
        size = {"address": scheduler} if scheduler else {"num_cpus": workers}
        try:
            ray.init(**size, log_to_driver=False, include_dashboard=False)
        except (OSError, ValueError) as error:
            raise _nobody(scheduler, "ray cluster", error) from error
        stack.callback(ray.shutdown)
    register_parallel_backend("ray pieces", Pieces)
    return ray.exceptions.RayActorError, {"backend": "ray pieces"}


def _need(module: str, backend: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise ModuleNotFoundError(
            f"{named('backend')} is {backend!r}, which needs the package {module}; "
            f"pip install {module}, or give {named('backend', 'processes')}"
        )


def _unreadable(error: Exception) -> TypeError:
    cause = str(error.__cause__ or "").strip().splitlines()
    why = next((line for line in reversed(cause) if "Error" in line), error)
    return TypeError(
        f"pieces has one that a worker cannot read ({shown(str(why))}); keep locks, "
        "open files and functools.cache out of what it holds"
    )


def _nobody(scheduler: str | None, kind: str, error: Exception) -> ConnectionError:
    return ConnectionError(
        f"{named('scheduler')} is {shown(scheduler)}, where no {kind} answers "
        f"({shown(str(error))}); give the address that it printed when it began"
    )
