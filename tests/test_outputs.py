"""Outputs appear whole or not at all; what a killed process left is removed."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from prunefair import outputs
from prunefair.outputs import (
    check_new_folder,
    remove_dead_scratch,
    scratch_folder,
    whole_file,
    whole_folder,
)

WRITER = """
import sys
from pathlib import Path
from prunefair.outputs import whole_folder
with whole_folder(sys.argv[1]) as partial:
    (partial / "weights").write_text("half")
    print("writing", flush=True)
    input()
"""


def fill(folder):
    for name in ("a", "config.json", "weights"):
        (folder / name).write_text(name)


def names(folder):
    return sorted(os.listdir(folder))


@pytest.fixture
def writer():
    """Start a process that is in the middle of writing a folder, and end it after."""
    started = []

    def start(out):
        command = [sys.executable, "-c", WRITER, str(out)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, **pipes)
        started.append(process)
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def scratches(folder):
    return [path for path in folder.rglob(".prunefair-partial-*") if path.is_dir()]


@pytest.mark.parametrize("existing", [False, True])
def test_the_next_run_removes_what_a_killed_one_left_and_nothing_of_a_live_one(
    existing, tmp_path, writer
):
    dead, live = tmp_path / "dead", tmp_path / "live"
    if existing:
        dead.mkdir()
        live.mkdir()
    writing = writer(live)
    kept = scratches(tmp_path)
    kill(writer(dead))
    assert len(kept) == 1 and len(scratches(tmp_path)) == 2
    with whole_folder(dead) as partial:
        fill(partial)
    assert names(dead) == ["a", "config.json", "weights"]
    assert scratches(tmp_path) == kept
    writing.communicate("\n")
    assert writing.returncode == 0
    assert names(live) == ["weights"] and names(tmp_path) == ["dead", "live"]


def test_what_another_thread_or_user_is_writing_is_left_alone(tmp_path):
    mine = tmp_path / ".prunefair-partial-notes"
    mine.mkdir()
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        remove_dead_scratch(tmp_path)
        assert first.is_dir() and second.is_dir() and first != second
    assert names(tmp_path) == [mine.name]


def test_a_scratch_folder_that_was_not_locked_yet_is_replaced(tmp_path, monkeypatch):
    make, open_lock = outputs.tempfile.mkdtemp, outputs._open_lock
    made = []

    def lose_the_first(scratch):
        made.append(scratch)
        if len(made) == 1:  # another process takes it for dead
            remove_dead_scratch(tmp_path)
            raise FileNotFoundError
        if len(made) == 3:  # the same, between opening and locking
            lock = open_lock(scratch)
            outputs.shutil.rmtree(scratch)
            return lock
        return open_lock(scratch)

    monkeypatch.setattr(outputs, "_open_lock", lose_the_first)
    with scratch_folder(tmp_path) as partial:
        assert partial.is_dir() and make
        assert len(scratches(tmp_path)) == 1
    assert len(made) == 4 and names(tmp_path) == []


@pytest.mark.parametrize("way", ["no module", "no locks on this disk"])
def test_without_locks_nothing_is_taken_for_dead(way, tmp_path, monkeypatch, writer):
    kill(writer(tmp_path / "out"))
    left = scratches(tmp_path)

    def refuse(*arguments):
        raise OSError("no locks available")

    if way == "no module":
        monkeypatch.setattr(outputs, "fcntl", None)
    else:
        monkeypatch.setattr(outputs.fcntl, "flock", refuse)
    with whole_folder(tmp_path / "out") as partial:
        fill(partial)
    assert scratches(tmp_path) == left and len(left) == 1


def test_an_existing_empty_folder_is_filled_and_stays_what_it_was(
    tmp_path, monkeypatch
):
    out = tmp_path / "volume"
    out.mkdir()
    out.chmod(0o2751)
    before = out.stat()
    monkeypatch.chdir(out)
    moved, rename = [], Path.rename

    def recorded(self, target):
        moved.append(target.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", recorded)
    with whole_folder(".") as partial:
        fill(partial)
        assert [name for name in names(out) if not name.startswith(".")] == []
    after = out.stat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert names(".") == ["a", "config.json", "weights"]  # the caller is still in it
    assert moved == ["a", "weights", "config.json"]


class Stopped(BaseException):
    """As an interrupt is."""


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("x"), Stopped()])
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("moment", ["block", "move"])
def test_a_failure_at_any_moment_leaves_what_was_there_before(
    error, existing, moment, tmp_path, monkeypatch
):
    out = tmp_path / "out" if existing else tmp_path / "new" / "out"
    if existing:
        out.mkdir()
    before = names(tmp_path)
    if moment == "move":
        rename = Path.rename

        def fail(self, target):
            if self.name in ("weights", "partial"):
                raise error
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", fail)
    message = "out is .*disk full.*nothing was left" if "disk" in str(error) else "x|"
    with pytest.raises(type(error), match=message), whole_folder(out) as partial:
        fill(partial)
        if moment == "block":
            raise error
    assert names(tmp_path) == before
    assert not existing or names(out) == []


def test_a_kill_while_entries_move_is_undone_by_the_next_run(tmp_path):
    program = (
        "import os, pathlib, sys\n"
        "from prunefair.outputs import whole_folder\n"
        "rename = pathlib.Path.rename\n"
        "def stop(self, target):\n"
        "    if self.name == sys.argv[2]: os.kill(os.getpid(), 9)\n"
        "    return rename(self, target)\n"
        "pathlib.Path.rename = stop\n"
        "with whole_folder(sys.argv[1]) as partial:\n"
        "    for name in ('a', 'config.json', 'weights'):\n"
        "        (partial / name).write_text(name)\n"
    )
    for last, there in (
        ("a", []),
        ("weights", ["a"]),
        ("config.json", ["a", "weights"]),
    ):
        out = tmp_path / last
        out.mkdir()
        run = subprocess.run([sys.executable, "-c", program, str(out), last])
        assert run.returncode == -signal.SIGKILL
        assert [name for name in names(out) if not name.startswith(".")] == there
        with whole_folder(out) as partial:
            (partial / "other").touch()
        assert names(out) == ["other"]


def test_a_kill_after_the_last_move_leaves_the_whole_folder(tmp_path):
    program = (
        "import os, sys, shutil\n"
        "from prunefair.outputs import whole_folder\n"
        "def stop(*a, **k):\n"
        "    if os.path.exists(sys.argv[1] + '/config.json'): os.kill(os.getpid(), 9)\n"
        "remove = shutil.rmtree\n"
        "shutil.rmtree = lambda *a, **k: stop() or remove(*a, **k)\n"
        "with whole_folder(sys.argv[1]) as partial:\n"
        "    for name in ('a', 'config.json'):\n"
        "        (partial / name).write_text(name)\n"
    )
    out = tmp_path / "out"
    out.mkdir()
    run = subprocess.run([sys.executable, "-c", program, str(out)])
    assert run.returncode == -signal.SIGKILL and len(scratches(out)) == 1
    with pytest.raises(ValueError, match="is not an empty folder"):
        check_new_folder(out)
    assert names(out) == ["a", "config.json"]


def test_what_appears_in_the_folder_meanwhile_is_kept(tmp_path):
    with (
        pytest.raises(OSError, match="weights has appeared in it.*nothing was left"),
        whole_folder(tmp_path) as partial,
    ):
        fill(partial)
        (tmp_path / "weights").write_text("precious")
    assert names(tmp_path) == ["weights"]
    assert (tmp_path / "weights").read_text() == "precious"


def below_a_file(folder):
    (folder / "file").touch()
    return folder / "file" / "sub" / "out", "lies below '.*file', a file; choose"


def a_loop(folder):
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop" / "out", "which names no file or folder .Too many levels"


def a_long_name(folder):
    return folder / "new" / ("n" * 300), "which cannot be written .File name too long"


def unwritable(folder):
    return "/proc/out/sub", "which cannot be written .*; choose another folder"


@pytest.mark.parametrize("place", [below_a_file, a_loop, a_long_name, unwritable])
def test_what_cannot_be_a_folder_is_known_before_anything_is_written(place, tmp_path):
    out, message = place(tmp_path)
    before = names(tmp_path)
    with pytest.raises((ValueError, OSError), match=f"^out is .*{message}"):
        check_new_folder(out)
    with pytest.raises((ValueError, OSError), match=message), whole_folder(out):
        pytest.fail("the work began")
    assert names(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match="which cannot be written .Permission denied"):
            check_new_folder(tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("existing", [False, True])
def test_everything_is_on_the_disk_before_it_gets_its_name(
    existing, tmp_path, monkeypatch
):
    events, fsync, rename = [], os.fsync, Path.rename

    def flushed(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        events.append(path.name)
        return fsync(descriptor)

    def renamed(self, target):
        events.append(f"-> {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "rename", renamed)
    out = tmp_path / "out"
    if existing:
        out.mkdir()
    with whole_folder(out) as partial:
        fill(partial)
        (partial / "sub").mkdir()
        (partial / "sub" / "deep").touch()
    first = next(i for i, event in enumerate(events) if event.startswith("->"))
    assert {"a", "config.json", "weights", "deep", "sub", "partial"} <= {
        *events[:first]
    }
    assert events[-1] == (out.name if existing else tmp_path.name)


def test_a_file_is_replaced_whole_or_kept(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ValueError), whole_file(path) as partial:
        partial.write_text("half")
        raise ValueError
    assert path.read_text() == "old"
    with whole_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and names(tmp_path) == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
