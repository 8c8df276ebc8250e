"""Wherever a path enters, an odd one is one line that names it, before any work."""

import os
import shutil
from pathlib import Path

import pytest
import torch

import prunefair
from prunefair import cli
from prunefair.data import data_file
from prunefair.export import export_gguf
from prunefair.fairness.baselines import Uniform
from prunefair.fairness.ratings import load_ratings
from prunefair.messages import checked_path
from prunefair.models import load_tokenizer
from prunefair.outputs import whole_file
from prunefair.pruning.folders import prune_checkpoint, save_pruned
from prunefair.pruning.row_policy import (
    RowPolicy,
    load_policy,
    policy_metadata,
    save_policy,
)
from prunefair.pruning.self_moments import (
    hidden_moments,
    load_moments,
    save_moments,
)
from prunefair.pruning.surgery import tiny_model

MODEL = tiny_model("llama", generator=torch.Generator().manual_seed(0))
EVERY = [torch.arange(12)] * 2
ODD = {
    "empty": ("", "names no file"),
    "long": ("n" * 300, "names no file or folder .File name too long"),
    "long-inside": ("folder/" + "n" * 300 + "/x", "File name too long"),
    "long-as-a-whole": ("n/" * 3000, "File name too long"),
    "null": ("a\0b", "holds control characters"),
    "line-end": ("name\n", "holds control characters"),
    "links-in-a-ring": ("ring", "names no file or folder .Too many levels of"),
}
COMMANDS = {
    "out": ("prune", "llama", "--ratio", "0.3", "--out", "ODD"),
    "policy": ("prune", "llama", "--ratio", "0.3", "--out", "o", "--policy", "ODD"),
    "offload": ("prune", "llama", "--ratio", "0.3", "--out", "o", "--offload", "ODD"),
    "model": ("prune", "ODD", "--ratio", "0.3", "--out", "o"),
    "streamed": ("prune", "ODD", "--ratio", "0.3", "--out", "o", "--spectra", "exact"),
    "evaluated": ("evaluate", "ODD"),
    "against": ("evaluate", "llama", "--tasks", "", "--against", "ODD"),
    "data": ("evaluate", "llama", "--data", "ODD"),
    "ratings": ("bandits", "--data", "ODD"),
    "exported": ("export", "ODD", "--gguf", "g"),
    "gguf": ("export", "llama", "--gguf", "ODD"),
}
MAY_BE_EMPTY = {"against", "model", "streamed", "evaluated", "exported"}  # own lines
CALLS = {
    "save": Uniform(2).save,
    "load": Uniform.load,
    "load_policy": load_policy,
    "policy_metadata": policy_metadata,
    "save_policy": lambda path: save_policy(RowPolicy(), path),
    "load_moments": load_moments,
    "save_moments": lambda p: save_moments(
        hidden_moments(MODEL, torch.arange(4)[None]), p
    ),
    "load_model": prunefair.load_model,
    "load_pruned": prunefair.load_pruned,
    "load_tokenizer": load_tokenizer,
    "save_pruned": lambda path: save_pruned(MODEL, None, path, EVERY),
    "prune_checkpoint": lambda path: prune_checkpoint("llama", path, RowPolicy(), 0.3),
    "prune-policy": lambda path: prunefair.prune(MODEL, 0.3, policy=path),
    "prune-out": lambda path: prunefair.prune(MODEL, 0.3, out=path),
    "data_file": lambda path: data_file("wikitext2/test.txt", folder=path),
    "load_ratings": load_ratings,
    "export_gguf": lambda path: export_gguf("llama", path),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of a tiny model with a tokenizer."""
    folder = tmp_path_factory.mktemp("saved") / "llama"
    MODEL.save_pretrained(folder)
    load_tokenizer("smollm2").save_pretrained(folder)
    return folder


@pytest.fixture
def place(saved, tmp_path, monkeypatch):
    """Working folder with a model, a file, a full folder, a pipe, a ring of links."""
    shutil.copytree(saved, tmp_path / "llama")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "full").touch()
    (tmp_path / "file").touch()
    (tmp_path / "ring").symlink_to("ring")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("odd", ODD)
def test_the_command_line_names_its_option_and_writes_nothing(odd, place, capsys):
    before = {*place.rglob("*")}
    path, problem = ODD[odd]
    for name, words in COMMANDS.items():
        if not path and name in MAY_BE_EMPTY:
            continue
        with pytest.raises(SystemExit) as stopped:
            cli.main([path if word == "ODD" else word for word in words])
        line = capsys.readouterr().err.strip().splitlines()[-1]
        option = words[words.index("ODD") - 1]
        option = option if option.startswith("--") else ("MODEL", "FOLDER")
        assert stopped.value.code == 2 and len(line) <= 300, (name, line)
        assert line.removeprefix("error: ").startswith(option), (name, line)
        assert problem.split(" .")[-1] in line, (name, line)
        assert "[Errno" not in line and {*place.rglob("*")} == before, (name, line)


@pytest.mark.parametrize("name", CALLS)
def test_python_names_its_argument_and_writes_nothing(name, place):
    before = {*place.rglob("*")}
    for path, problem in ODD.values():
        if not path and name in ("load_model", "load_pruned", "load_tokenizer"):
            problem = "holds no config.json; give 'smollm2'"
        with pytest.raises(ValueError, match=problem) as caught:
            CALLS[name](path)
        text = str(caught.value)
        assert len(text) <= 300 and "\n" not in text and "[Errno" not in text, text
    if name != "load_ratings":  # None is a choice there
        with pytest.raises((TypeError, ValueError), match="^[a-z_]+ is 3.5; give"):
            CALLS[name](3.5)
    assert {*place.rglob("*")} == before


WRONG_KIND = {
    "out-file": ("out", "file", "exists and is not an empty folder"),
    "policy-folder": ("policy", "folder", "is a folder; name a file"),
    "policy-pipe": ("policy", "pipe", "is a device or a pipe; name a file"),
    "model-file": ("model", "file", "holds no config.json"),
    "model-folder": ("model", "folder", "holds no config.json"),
    "data-file": ("data", "file", "is no folder"),
    "ratings-file": ("ratings", "file", "holds no ratings.csv"),
    "gguf-folder": ("gguf", "folder", "which exists"),
    "gguf-below-a-file": ("gguf", "file/x", "does not exist"),
    "exported-file": ("exported", "file", "holds no config.json"),
}


@pytest.mark.parametrize("name", WRONG_KIND)
def test_a_folder_for_a_file_and_the_reverse_are_one_line(name, place, capsys):
    before = {*place.rglob("*")}
    command, path, problem = WRONG_KIND[name]
    with pytest.raises(SystemExit):
        cli.main([path if word == "ODD" else word for word in COMMANDS[command]])
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert problem in line and f"is '{path}'" in line and len(line) <= 300
    assert {*place.rglob("*")} == before


def test_a_pipe_or_device_is_never_replaced_by_a_file(place):
    for call in (Uniform(2).save, lambda path: save_policy(RowPolicy(), path)):
        with pytest.raises(ValueError, match="^path is 'pipe', which is a device or a"):
            call("pipe")
    with pytest.raises(ValueError, match="device"), whole_file(Path("pipe")):
        pytest.fail("the work began")
    assert (place / "pipe").is_fifo()


def test_the_folder_of_the_environment_is_checked_as_well(monkeypatch):
    for variable, call in (
        ("PRUNEFAIR_DATA", lambda: data_file("wikitext2/test.txt")),
        ("PRUNEFAIR_CACHE", lambda: data_file("wikitext2/test.txt")),
    ):
        monkeypatch.setenv("PRUNEFAIR_DATA", "/nowhere")
        monkeypatch.setenv(variable, "n" * 300)
        with pytest.raises(ValueError, match=f"{variable}.? is 'nnn.*too long"):
            call()


def test_a_path_is_given_back_as_it_is_named():
    for path in ("a", b"a", Path("a"), "nowhere/a", "/", "ü ö", "\udcff"):
        assert checked_path(path) == os.fsdecode(path)
