"""Evaluation sets and ratings: from a folder, or from their publishers."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from prunefair.messages import checked_path, named
from prunefair.models import CACHE, cache_folder
from prunefair.outputs import scratch_folder, whole_file
from prunefair.publishers import ARCHIVES, FILES, Archive, archive_contents

REMEDY = "set PRUNEFAIR_DATA to a folder that holds it, or connect to a network"


def data_folder() -> Path | None:
    """Folder given by `PRUNEFAIR_DATA`, or `../shared/data` beside a checkout."""
    given = os.environ.get("PRUNEFAIR_DATA")
    if given:
        return Path(checked_path(given, "PRUNEFAIR_DATA"))
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    return shared if shared.is_dir() else None


def data_file(name: str, *, folder: str | os.PathLike | None = None) -> Path:
    """Path of the data file `name`: in the folder, the cache, or downloaded now.

    A file found in a folder is checked for its header and number of rows, once in a
    process.  A download is checked against the SHA-256 of the archive, and the files
    in it against their SHA-256 and size where they are kept as published, and against
    header and rows always.  Nothing stays behind when a check fails.

    Parameters
    ----------
    name : str
        A key of `prunefair.publishers.FILES`, such as `"wikitext2/test.txt"`.
    folder : path, optional
        Where to look first; by default what `data_folder` gives.

    Returns
    -------
    path : pathlib.Path

    Raises
    ------
    ValueError
        If there is no data file of that name, or its contents are not as expected.
    FileNotFoundError
        If it is in no folder and cannot be downloaded.
    """
    if name not in FILES:
        known = ", ".join(sorted(FILES))
        raise ValueError(f"name is {name!r}; it must be one of {known}")
    own = data_folder() if folder is None else Path(checked_path(folder, "data"))
    for place in (own, cache_folder() / "data"):
        if place is not None and (place / name).is_file():
            path = place / name
            status = path.stat()
            _check_found(name, path, status.st_size, status.st_mtime_ns)
            return path
    cached, faults = cache_folder() / "data", []
    for archive in (archive for archive in ARCHIVES if name in archive.files):
        try:
            _fetch(archive, cached)
            return cached / name
        except (FileNotFoundError, ValueError) as error:
            faults.append(error)
    reached = [fault for fault in faults if isinstance(fault, ValueError)]
    remedy = REMEDY
    if folder is not None:
        remedy = f"give a {named('data')} that holds it, or connect to a network"
    raise (ValueError if reached else FileNotFoundError)(
        f"{name} is not in {own or 'any data folder'}; "
        f"{'; '.join(map(str, faults))}; nothing was kept; {remedy}"
    ) from faults[0]


def check_contents(name: str, contents: bytes, *, where: str) -> None:
    """Raise unless `contents` has the header and rows that the file `name` must have.

    Parameters
    ----------
    name : str
        A key of `prunefair.publishers.FILES`.
    contents : bytes
        The whole file.
    where : str
        Where they come from, for the message.

    Raises
    ------
    ValueError
        If the header or the number of rows is another one.
    """
    known = FILES[name]
    rows = contents.count(b"\n") + (contents[-1:] not in (b"", b"\n"))
    end = contents.find(b"\n")  # no list of lines: a file may have millions
    first = (contents if end < 0 else contents[:end]).rstrip(b"\r")
    header = ()
    if name.endswith(".csv"):
        header = tuple(first.decode("utf-8", "replace").split(",")) if first else ()
        rows -= 1
    elif name.endswith(".jsonl"):
        header = _keys(first)
    if header != known.header:
        raise ValueError(
            f"{name} from {where} begins with the columns {', '.join(header) or 'none'}"
            f" instead of {', '.join(known.header)}"
        )
    if rows != known.rows:
        raise ValueError(f"{name} from {where} has {rows} rows instead of {known.rows}")


def _keys(line: bytes) -> tuple[str, ...]:
    try:
        row = json.loads(line)
    except ValueError:
        return ()
    return tuple(row) if isinstance(row, dict) else ()


@cache
def _check_found(name: str, path: Path, size: int, modified: int) -> None:
    """Check a file once; `size` and `modified` make a changed file a new one."""
    try:
        check_contents(name, path.read_bytes(), where=str(path.parent))
    except ValueError as error:
        raise ValueError(f"{error}; replace it, or {REMEDY}") from None


def _check_published(name: str, contents: bytes, url: str) -> None:
    """Check what came against everything known of the file `name`."""
    known = FILES[name]
    if known.size is not None and len(contents) != known.size:
        raise ValueError(
            f"{name} from {url} has {len(contents)} bytes, not {known.size}"
        )
    if known.sha256 is not None:
        digest = hashlib.sha256(contents).hexdigest()
        if digest != known.sha256:
            raise ValueError(
                f"{name} from {url} has the SHA-256 {digest}, not {known.sha256}"
            )
    check_contents(name, contents, where=url)


def _check_cache(folder: Path) -> None:
    """Make the folder of downloads, or say that nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> PermissionError:
    return PermissionError(
        f"{CACHE} is {str(folder)!r}, which cannot be written "
        f"({error.strerror or error}); choose another one, free some space, or {REMEDY}"
    )


def _fetch(archive: Archive, folder: Path) -> None:
    """Download `archive` and put all its files under `folder`, each only whole."""
    import pooch
    from pyarrow import ArrowInvalid
    from requests import RequestException

    url, known = archive.url, archive.sha256 and f"sha256:{archive.sha256}"
    pooch.get_logger().setLevel("WARNING")  # no address in a chapter's outputs
    _check_cache(folder)
    with scratch_folder(folder) as partial:
        try:
            path = pooch.retrieve(
                url,
                known_hash=known,
                fname=url.rsplit("/", 1)[1],
                path=partial,
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=(10, 120)),
            )
        except RequestException as error:
            raise FileNotFoundError(
                f"{urlsplit(url).netloc} cannot be reached ({type(error).__name__})"
            ) from error
        except OSError as error:
            raise _unwritable(folder, error) from error
        except ValueError as error:
            raise ValueError(
                f"what came from {url} does not have the SHA-256 {archive.sha256}"
            ) from error
        try:
            files = archive_contents(archive, Path(path))
        except (
            KeyError,
            IndexError,
            tarfile.TarError,
            zipfile.BadZipFile,
            ArrowInvalid,
        ) as error:
            raise ValueError(
                f"what came from {url} has another layout than expected ({error!r:.60})"
            ) from error
        for name, contents in files.items():
            _check_published(name, contents, url)
        for name, contents in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with whole_file(folder / name) as whole:
                whole.write_bytes(contents)
