"""Files and folders that appear whole or not at all, on any disk, after any kill.

What is to be written goes into a hidden scratch folder on the same disk, is flushed
and only then moved to its place.  A process holds a lock on its scratch folder while
it lives; the next one to write there removes those that nobody holds any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prunefair.messages import Given, checked_path, named, shown

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing of others is removed
    fcntl = None

_PREFIX = ".prunefair-partial-"
_LOCK, _PARTIAL, _MOVED = "lock", "partial", "moved.json"
_LAST = "config.json"  # without it a folder is no model


@contextlib.contextmanager
def scratch_folder(parent) -> Iterator[Path]:
    """Hidden empty folder for the length of a block; those of the dead are removed.

    Parameters
    ----------
    parent : str or path
        Existing folder to create it in.

    Yields
    ------
    partial : pathlib.Path

    Raises
    ------
    OSError
        If `parent` is no folder that can be written to.
    """
    parent = Path(parent)
    remove_dead_scratch(parent)
    scratch, lock = _locked_scratch(parent)
    try:
        (scratch / _PARTIAL).mkdir()
        yield scratch / _PARTIAL
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(lock)


def remove_dead_scratch(parent) -> None:
    """Remove the scratch folders in `parent` whose processes were killed.

    Parameters
    ----------
    parent : str or path
        Folder to look into.
    """
    for scratch in Path(parent).glob(_PREFIX + "?" * 8):
        with contextlib.suppress(OSError):  # gone by now, or another user's
            lock = _open_lock(scratch)
            try:
                if _lock(lock):
                    _undo_moves(scratch)
                    shutil.rmtree(scratch)
            finally:
                os.close(lock)


def _locked_scratch(parent: Path) -> tuple[Path, int]:
    """New scratch folder and its open lock file."""
    while True:
        scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with contextlib.suppress(FileNotFoundError):  # another took it for dead
            lock = _open_lock(scratch)
            locked = _lock(lock)
            if locked is None or (locked and (scratch / _LOCK).exists()):
                return scratch, lock
            os.close(lock)


def _open_lock(scratch: Path) -> int:
    return os.open(scratch / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)


def _lock(lock: int) -> bool | None:
    """Whether we hold the lock now; None if there are no locks here.

    A lock ends with its process however that ends, unlike a number in a file.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network disks
        return None
    return True


def check_new_folder(out, *, argument: str = "out") -> None:
    """Raise unless `out` can become, or be filled as, a new folder.

    Parameters
    ----------
    out : str or path
        Folder to create; an existing one must be empty.
    argument : str
        What errors call `out`.

    Raises
    ------
    ValueError
        If `out` exists and is not an empty folder, or lies below a file.
    OSError
        If it cannot be written.
    """
    given = Given(argument, checked_path(out, argument))
    try:
        target = Path(given.value).resolve()
        if target.is_dir():
            remove_dead_scratch(target)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise given.error(
                "which exists and is not an empty folder",
                "choose another name or remove it",
            )
        home, missing = _existing_part(target)
        if not home.is_dir():
            raise given.error(
                f"which lies below {shown(str(home))}, a file", "choose another name"
            )
        with scratch_folder(home) as scratch:
            (scratch / missing).mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
        raise _unwritable(given, error, "choose another folder") from error


def check_new_file(path, *, argument: str = "path") -> None:
    """Raise unless a file can be written to `path`.

    Parameters
    ----------
    path : str or path
        File to create or to replace.
    argument : str
        What errors call `path`.

    Raises
    ------
    ValueError
        If `path` is a folder or a device, or its own folder does not exist.
    OSError
        If it cannot be written.
    """
    given = Given(argument, checked_path(path, argument))
    path = Path(given.value)
    try:
        if path.is_dir():
            raise given.error("which is a folder", "name a file")
        if path.exists() and not path.is_file():  # it would be replaced
            raise given.error("which is a device or a pipe", "name a file")
        if not path.parent.is_dir():
            raise given.error(
                "whose folder does not exist", "create that folder or name another one"
            )
        with scratch_folder(path.parent) as scratch:
            (scratch / path.name).touch()
    except OSError as error:
        raise _unwritable(given, error, "name another file") from error


def _unwritable(given: Given, error: Exception, remedy: str) -> OSError:
    problem = f"which cannot be written ({_reason(error)})"
    return OSError(str(given.error(problem, remedy)))


def _existing_part(target: Path) -> tuple[Path, Path]:
    """The nearest place above or at `target` that exists, and the way from there."""
    home = next(place for place in (target, *target.parents) if place.exists())
    return home, target.relative_to(home)


def _reason(error: Exception) -> str:
    """What went wrong, without the names of scratch folders."""
    return getattr(error, "strerror", None) or str(error)


@contextlib.contextmanager
def whole_folder(out, *, argument: str = "out") -> Iterator[Path]:
    """Folder to fill; it becomes `out` only if the block ends without an error.

    An interruption at any moment leaves no `out` at all; an existing empty one, such
    as a mount point or the current folder, is filled at the end and stays empty until
    then, `config.json` coming last.

    Parameters
    ----------
    out : str or path
        Folder to create; an existing one must be empty.
    argument : str
        What errors call `out`.

    Yields
    ------
    partial : pathlib.Path
        Existing empty folder.

    Raises
    ------
    ValueError
        If `out` exists and is not an empty folder, or lies below a file.
    OSError
        If something cannot be written, as on a full disk; what was written is gone.
    """
    check_new_folder(out, argument=argument)
    target = Path(out).resolve()
    with (
        _one_error(f"{named(argument)} is {shown(str(out))}"),
        scratch_folder(_existing_part(target)[0]) as partial,
    ):
        yield partial
        _flush(partial)
        if target.exists():
            _move_entries(partial, target)
        else:
            _move_folder(partial, target)


@contextlib.contextmanager
def _one_error(subject: str) -> Iterator[None]:
    """Turn what comes from the disk into one line about `subject`."""
    try:
        yield
    except Exception as error:
        # libraries written in Rust report a full disk as an error of their own
        if not isinstance(error, OSError) and "os error" not in str(error):
            raise
        kind = type(error) if isinstance(error, OSError) else OSError
        raise kind(
            f"{subject}, which could not be written ({_reason(error)}); free some "
            "space or choose another place; nothing was left behind"
        ) from error


def _move_folder(partial: Path, target: Path) -> None:
    """Give the folder `partial` its place, making what is missing above it."""
    missing = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.rename(target)
    except BaseException:
        for parent in missing:
            with contextlib.suppress(OSError):  # another run fills it
                parent.rmdir()
        raise
    for place in (target, *missing):
        _flush_entry(place.parent)


def _move_entries(partial: Path, target: Path) -> None:
    """Move what `partial` holds into the existing folder `target`, or nothing."""
    names = sorted(os.listdir(partial), key=lambda name: (name == _LAST, name))
    record = partial.with_name(_MOVED)
    record.write_text(json.dumps(names))
    _flush(record)
    try:
        for name in names:
            if os.path.lexists(target / name):
                raise FileExistsError(f"{name} has appeared in it")
            (partial / name).rename(target / name)
        _flush_entry(target)
    except BaseException:
        _undo_moves(partial.parent)
        raise


def _undo_moves(scratch: Path) -> None:
    """Take out of the folder around what a killed or failed move has put there.

    A move that was finished is left as it is.
    """
    record = scratch / _MOVED
    if not record.exists():
        return
    with contextlib.suppress(ValueError):  # killed while it was written: none moved
        names, left = json.loads(record.read_text()), os.listdir(scratch / _PARTIAL)
        for name in set(names) - set(left) if left else ():
            place = scratch.parent / name
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path, *, argument: str = "path") -> Iterator[Path]:
    """Name to write to; that file becomes `path` if the block ends without an error.

    Parameters
    ----------
    path : str or path
        File to create or to replace.
    argument : str
        What errors call `path`.

    Yields
    ------
    partial : pathlib.Path

    Raises
    ------
    ValueError
        See `check_new_file`.
    OSError
        If it cannot be written; an older file is kept then.
    """
    check_new_file(path, argument=argument)
    path = Path(os.fsdecode(path))
    subject = f"{named(argument)} is {shown(str(path))}"
    with _one_error(subject), scratch_folder(path.parent) as scratch:
        partial = scratch / "file"
        yield partial
        _flush(partial)
        os.replace(partial, path)
        _flush_entry(path.parent)


def _flush(place: Path) -> None:
    """Have a file, or a folder and all it holds, on the disk and not in a cache."""
    for path in (*place.rglob("*"), place):
        if path.is_dir():
            _flush_entry(path)
        else:
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


def _flush_entry(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
