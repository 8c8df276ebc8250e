"""A checkpoint folder that appears whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(out):
    """Folder to fill; it becomes `out` only if the block ends without an error.

    The folder is made beside `out` under a temporary name and renamed at the end, so
    that an interruption at any moment leaves no `out` at all.

    Parameters
    ----------
    out : str or path
        Folder to create; an existing one must be empty.

    Yields
    ------
    partial : pathlib.Path
        Existing empty folder.

    Raises
    ------
    ValueError
        If `out` exists and is not an empty folder.
    OSError
        If something cannot be written, as on a full disk; what was written is gone.
    """
    from safetensors import SafetensorError

    target = Path(out).resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(
            f"out is {str(out)!r}, which exists and is not an empty folder; "
            "choose another name or remove it"
        )
    scratch = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        partial = scratch / "partial"
        partial.mkdir()
        yield partial
        if target.exists():
            target.rmdir()
        partial.rename(target)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"out is {str(out)!r}, which could not be written ({error}); free some "
            "space or choose another folder; nothing was left behind"
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
