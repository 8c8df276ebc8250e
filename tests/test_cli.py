"""The command line is a stable surface: keys, exit statuses, one line for bad input."""

import errno
import io
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import prunefair
from prunefair import cli
from prunefair.messages import Given
from prunefair.models import load_model, load_tokenizer
from prunefair.pipelines import _room, pruning
from prunefair.pipelines._arguments import started
from prunefair.pruning.folders import load_pruned, save_pruned
from prunefair.pruning.functional_policy import FunctionalPolicy
from prunefair.pruning.perplexity import start_token, token_nats, wikitext_tokens
from prunefair.pruning.row_policy import RowPolicy, save_policy
from prunefair.pruning.surgery import slice_ffn_, tiny_model

pytestmark = pytest.mark.usefixtures("short_texts")
POLICY_KEYS = {"utility", "jain", "regret", "c_regret", "reward_sum"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a tiny random LLaMA with the small real model's tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "dense"
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=49152,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    load_tokenizer("smollm2").save_pretrained(folder)
    return folder


FEW = ("--episodes", 2, "--texts", 4)


def run(capsys, *arguments):
    """Exit status, last line of standard output as JSON, and standard error."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    lines = out.strip().splitlines()
    result = None
    if stopped.value.code in (0, None):
        result = json.loads(lines[-1], parse_constant=pytest.fail)  # no NaN in JSON
    return stopped.value.code, result, err


def complaint(capsys, *arguments):
    """The one line that bad input ends with, checked for its form."""
    status, _, err = run(capsys, *arguments)
    assert status == 2
    last = err.rstrip("\n").splitlines()[-1]
    assert last.startswith("error: ") and len(last) <= 300
    assert "Traceback" not in err
    return last


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("method", ["", "functional", "spectral"])
def test_prune_reports_every_key_and_plain_transformers_reloads_it(
    method, capsys, model, tmp_path
):
    out = tmp_path / "pruned"
    options = ("--ratio", 0.3, "--out", out, *FEW, "--method", method)
    status, result, _ = run(capsys, "prune", model, *options, "--json")
    assert status in (0, None)
    assert set(result) - {"refit", "widths"} == {
        *("model", "ratio", "rows_kept", "params_before", "params_after", "ks_mean"),
        *("bytes_before", "bytes_after", "ks_of"),
        *("seconds_policy", "seconds_total", "out", "load", "method"),
        *("multiple", "ratio_reached"),
    }
    assert (result["multiple"], result["ratio_reached"]) == (1, pytest.approx(0.3))
    assert result["method"] == (method or "functional")
    assert ("refit" in result) == (result["method"] == "functional")
    assert result["rows_kept"] == [28, 28]
    removed = 2 * 12 * 3 * 16
    assert result["params_before"] - result["params_after"] == removed
    assert result["load"] == f"AutoModelForCausalLM.from_pretrained({str(out)!r})"
    reloaded = eval(result["load"])
    assert reloaded.num_parameters() == result["params_after"]
    assert 0 < result["ks_mean"] < 1
    assert result["bytes_after"] == (out / "model.safetensors").stat().st_size
    dense = (Path(model) / "model.safetensors").stat().st_size
    assert abs(result["bytes_before"] - dense) < 100  # of the dense model's own header
    spectra = (
        "the first feed-forward matrices" if method == "spectral" else "on own text"
    )
    assert re.search(f"{spectra}; 0 is the same, 1 the largest", result["ks_of"])
    card = (out / "README.md").read_text()
    assert f"| bytes of weights | {result['bytes_after']:,} |" in card
    (line,) = (line for line in card.splitlines() if "Kolmogorov" in line)
    assert "0 if they are the same and 1 at most" in line and spectra in line


@pytest.mark.parametrize("widths", ["equal", "uneven"])
@pytest.mark.parametrize(
    ("option", "noun"),
    [("--bytes", "bytes of weights"), ("--parameters", "parameters")],
)
def test_a_size_that_was_asked_is_kept_by_the_files_and_told_as_such(
    option, noun, widths, capsys, model, tmp_path
):
    out, dense = tmp_path / "out", load_model(model)
    unit, size = dense.dtype.itemsize, (model / "model.safetensors").stat().st_size
    if option == "--parameters":
        unit, size = 1, dense.num_parameters()
    most = size - 1000 * unit  # of 3840 parameters in neurons of 48
    words = ("--widths", widths, "--choice", "energy", "--texts", 4, "--multiple", 1)
    _, result, _ = run(
        capsys, "prune", model, option, f"{most}.0", "--out", out, *words, "--json"
    )
    written = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    assert result["bytes_after"] == written < result["bytes_before"]
    reached = written if option == "--bytes" else result["params_after"]
    assert most - (96 + 40) * unit < reached <= most
    asked = f"at most {most} {noun}"
    assert result["asked"] == asked and "ratio" not in result
    assert 0 < result["ratio_found"] < 1
    card = (out / "README.md").read_text()
    config = json.loads((out / "config.json").read_text())
    assert f"| asked for | {asked} |" in card and "rows to remove" not in card
    said = config["prunefair"]
    assert said["asked"] == asked and said["bytes_after"] == written
    assert "ratio" not in said and said["ratio_found"] == result["ratio_found"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(
    capsys, model, tmp_path
):
    options = ("--ratio", 0.5, *FEW, "--json")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / name
        run(capsys, "prune", model, "--out", out, "--seed", seed, *options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_the_refit_changes_only_the_last_matrix_and_uneven_widths_keep_the_size(
    capsys, model, tmp_path
):
    options = ("--ratio", 0.3, *FEW, "--json")
    for name, more in {
        "plain": ("--no-refit",),
        "fitted": ("--refit",),
        "uneven": ("--widths", "uneven"),
    }.items():
        _, result, _ = run(
            capsys, "prune", model, "--out", tmp_path / name, *options, *more
        )
    assert sum(result["rows_kept"]) == 2 * 28 and len(set(result["rows_kept"])) == 2
    assert load_pruned(tmp_path / "uneven").num_parameters() == result["params_after"]
    plain, fitted = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict()
        for name in ("plain", "fitted")
    )
    changed = {key for key in plain if not torch.equal(plain[key], fitted[key])}
    assert changed == {f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1)}


def test_a_reconstruction_changes_what_the_re_fit_leaves_and_is_reported(
    capsys, model, tmp_path
):
    options = ("--ratio", 0.5, "--choice", "energy", "--texts", 24, "--json")
    found = {}
    ways = {"plain": (), "closed": ("--reconstruct",)}
    for name, more in (ways | {"fitted": ("--reconstruct-steps", 40)}).items():
        out = tmp_path / name
        _, found[name], _ = run(capsys, "prune", model, "--out", out, *options, *more)
    before, closed = found["closed"]["reconstruction"]
    assert found["fitted"]["reconstruction"][1] < closed < before
    assert "reconstruction" not in found["plain"]
    plain, *others = (load_pruned(tmp_path / name).state_dict() for name in found)
    for other, matrices in zip(others, (("down",), ("gate", "up", "down"))):
        changed = {key for key in plain if not torch.equal(plain[key], other[key])}
        wanted = {key for key in plain if any(f".{m}_proj" in key for m in matrices)}
        assert changed == {key for key in wanted if ".mlp." in key}
    line = complaint(
        *(capsys, "prune", model, "--out", tmp_path / "no", "--ratio", 0.3),
        *("--method", "spectral", "--reconstruct"),
    )
    assert "--reconstruct is True, which only the functional method knows" in line


def test_fast_is_short_for_the_options_that_are_not_given(
    capsys, model, tmp_path, monkeypatch
):
    monkeypatch.setitem(pruning.FAST, "texts", 3)
    ways = {
        "short": ("--fast",),
        "long": ("--choice", "energy", "--widths", "equal", "--texts", 3),
        "mixed": ("--fast", *FEW, "--choice", "policy", "--widths", "equal"),
        "own": (*FEW, "--choice", "policy"),
    }
    for name, options in ways.items():
        out = ("--out", tmp_path / name, "--ratio", 0.5)
        run(capsys, "prune", model, *out, *options, "--json")
    assert contents(tmp_path / "short") == contents(tmp_path / "long")
    assert contents(tmp_path / "mixed") == contents(tmp_path / "own")
    assert contents(tmp_path / "short") != contents(tmp_path / "own")
    for spectral in (("--method", "spectral"), ("--spectra", "exact")):
        line = complaint(
            capsys, "prune", model, "--out", tmp_path / "no", "--fast", *spectral
        )
        assert "--fast is given, and the spectral method reads no texts" in line


@pytest.mark.parametrize("way", ["functional", "uneven", "spectral", "streamed"])
def test_widths_are_multiples_and_the_report_and_the_card_say_what_came_of_it(
    way, capsys, model, tmp_path
):
    options = {
        "functional": ("--method", "functional"),
        "uneven": ("--widths", "uneven"),
        "spectral": ("--method", "spectral"),
        "streamed": ("--spectra", "exact"),
    }[way]
    out = tmp_path / "out"
    few = (*FEW, "--json", "--out", out, "--ratio", 0.3, "--multiple", 8, "--seed", 5)
    _, result, _ = run(capsys, "prune", model, *few, *options)
    assert all(rows % 8 == 0 for rows in result["rows_kept"])
    total = 56 if way == "uneven" else 48  # of 28 and 28; a tie goes to the smaller
    assert sum(result["rows_kept"]) == total and result["multiple"] == 8
    assert result["ratio_reached"] == pytest.approx(1 - total / 80)
    config = json.loads((out / "config.json").read_text())
    said, card = config["prunefair"], (out / "README.md").read_text()
    assert said["base_model"] == "dense" and said["seed"] == 5
    assert said["ratio"] == 0.3 and said["ratio_reached"] == round(1 - total / 80, 6)
    assert said["widths"] == result["rows_kept"] and said["widths_before"] == [40, 40]
    assert said["ks_mean"] == pytest.approx(result["ks_mean"], rel=5e-3)
    assert (said.get("ridge") is not None) == (way in ("functional", "uneven"))
    assert "| widths are multiples of | 8 |" in card and "| seed | 5 |" in card
    line = complaint(capsys, "prune", model, *few[:-4], "--multiple", 41, *options)
    assert "out is" in line  # the folder is there already
    few = (*FEW, "--out", tmp_path / "no", "--ratio", 0.3, "--multiple", 41)
    line = complaint(capsys, "prune", model, *few, *options)
    assert "--multiple is 41, more than the 40 neurons of a layer" in line


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Folder of a tiny random LLaMA with 512 neurons and a model card."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=64,
    )
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: mit\n---\n# A model\n")
    return folder


@pytest.mark.parametrize("method", ["functional", "spectral"])
def test_wide_layers_get_multiples_of_32_unless_it_is_the_papers_objective(
    method, capsys, wide, tmp_path
):
    options = (*FEW, "--json", "--out", tmp_path / "out", "--method", method)
    _, result, _ = run(capsys, "prune", wide, *options, "--ratio", 0.3)
    rows = {"functional": 352, "spectral": 358}[method]
    assert result["rows_kept"] == [rows, rows]
    assert "license: mit\n" in (tmp_path / "out" / "README.md").read_text()
    if method == "functional":
        _, result, _ = run(
            *(capsys, "prune", wide, *FEW, "--json", "--out", tmp_path / "paper"),
            *("--method", method, "--ratio", 0.3, "--multiple", 1),
        )
        assert result["rows_kept"] == [358, 358]


@pytest.mark.parametrize("method", ["functional", "spectral"])
def test_a_saved_policy_is_reused_at_another_ratio(method, capsys, model, tmp_path):
    policy = tmp_path / "policy.safetensors"
    options = ("--policy", policy, *FEW, "--method", method, "--json")
    run(capsys, "prune", model, "--ratio", 0.4, "--out", tmp_path / "a", *options)
    saved = policy.read_bytes()
    _, result, _ = run(
        capsys, "prune", model, "--ratio", 0.1, "--out", tmp_path / "b", *options
    )
    assert policy.read_bytes() == saved
    assert result["rows_kept"] == [36, 36]
    assert result["seconds_policy"] == 0
    other = {"functional": "spectral", "spectral": "functional"}[method]
    again = ("--ratio", 0.1, "--out", tmp_path / "c", *options, "--method", other)
    assert "give a file of that kind" in complaint(capsys, "prune", model, *again)


def test_a_layer_at_a_time_writes_the_bytes_that_the_whole_model_gives(
    capsys, model, tmp_path
):
    options = ("--ratio", 0.3, "--episodes", 2, "--json", "--method", "spectral")
    run(capsys, "prune", model, "--out", tmp_path / "a", *options)
    streamed = ("--out", tmp_path / "b", "--spectra", "exact")
    _, result, _ = run(capsys, "prune", model, *streamed, *options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert result["weights"] == f"weights of {model}"
    assert result["params_before"] - result["params_after"] == 2 * 12 * 3 * 16
    assert result["peak_gpu_bytes"] is None and "save" in result["seconds"]


def test_a_model_larger_than_memory_goes_a_layer_at_a_time_to_the_same_bytes(
    capsys, model, tmp_path, monkeypatch
):
    options = ("--ratio", 0.3, "--episodes", 1, "--texts", 4, "--json")
    _, result, _ = run(capsys, "prune", model, "--out", tmp_path / "whole", *options)
    assert "planned_bytes" not in result
    skeleton = pruning._skeleton(str(model), None)
    size = 4 * skeleton.num_parameters()
    for functional, taken in ((False, size), (True, size + 2 * 3 * 4 * 40**2)):
        for free, in_turns in ((2 * taken, False), (2 * taken - 1, True)):
            monkeypatch.setattr(_room, "available_bytes", lambda free=free: free)
            found = _room.goes_in_turns(skeleton, "cpu", functional=functional)
            assert found == in_turns
    monkeypatch.setattr(pruning, "goes_in_turns", lambda *_, **__: True)
    monkeypatch.setattr(_room, "available_bytes", lambda: sys.maxsize)
    _, result, _ = run(capsys, "prune", model, "--out", tmp_path / "parts", *options)
    assert result["method"] == "functional" and "planned_bytes" in result
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_wide_model_goes_a_layer_at_a_time_whatever_the_memory(
    capsys, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(_room, "available_bytes", lambda: sys.maxsize)
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_size": 2050, "head_dim": 2, "vocab_size": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    skeleton = pruning._skeleton(str(tmp_path), None)
    assert _room.goes_in_turns(skeleton, "cpu", functional=False)
    assert capsys.readouterr().err == ""


def test_memory_in_the_page_cache_counts_as_free_and_no_system_call_is_needed(
    monkeypatch,
):
    meminfo = "MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable: 5 kB\n"
    monkeypatch.setattr(Path, "read_text", lambda path: meminfo)
    assert _room.available_bytes() == 5 * 1024

    def missing(*arguments):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    pages = {"SC_PHYS_PAGES": 100, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert _room.available_bytes() == 100 * 4096

    def unknown(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert _room.available_bytes() == sys.maxsize
    monkeypatch.delattr(os, "sysconf")
    assert _room.available_bytes() == sys.maxsize


@pytest.fixture
def uneven(model, tmp_path):
    """Folder of the tiny model with 20 and 35 neurons and without a tokenizer."""
    smaller = AutoModelForCausalLM.from_pretrained(model)
    kept = [range(20), range(5, 40)]
    folder = tmp_path / "uneven"
    return save_pruned(slice_ffn_(smaller, kept), None, folder, [*map(list, kept)])


@pytest.mark.parametrize("method", ["functional", "spectral"])
def test_what_has_uneven_widths_or_no_tokenizer_can_be_pruned(
    method, capsys, uneven, tmp_path
):
    options = ("--ratio", 0.2, "--out", tmp_path / "out", *FEW, "--json")
    _, result, _ = run(capsys, "prune", uneven, *options, "--method", method)
    assert result["rows_kept"] == [16, 28]
    load, _, export = result["load"].partition("; for other loaders: prunefair ")
    pruned = eval(load, {"prunefair": prunefair})
    assert pruned.num_parameters() == result["params_after"]
    assert result["params_before"] - result["params_after"] == (4 + 7) * 3 * 16
    assert not list((tmp_path / "out").glob("tokenizer*"))
    *command, _ = shlex.split(export)
    _, padded, _ = run(capsys, *command, tmp_path / "padded", "--json")
    wide = AutoModelForCausalLM.from_pretrained(padded["padded"])
    assert padded["parameters"] == wide.num_parameters()
    assert padded["parameters_unpadded"] == result["params_after"]
    assert (padded["width"], padded["widths"]) == (28, [16, 28])
    assert padded["ffn_times"] == pytest.approx(56 / 44)


def test_an_export_is_for_one_reader_and_says_so_if_not(capsys, model, tmp_path):
    both = ("--gguf", tmp_path / "a.gguf", "--padded", tmp_path / "b")
    for options in ((), both):
        line = complaint(capsys, "export", model, *options)
        words = r"--gguf is '.*a.gguf' and --padded '.*b'; give one of the two"
        if not options:
            words = "neither of --gguf and --padded is given; give one of the two"
        assert re.search(words, line)
    line = complaint(capsys, "export", model, "--padded", tmp_path / "b")
    assert re.search(r"FOLDER is '.*', whose layers all have 40 neurons; take it", line)
    assert not list(tmp_path.glob("[ab]*"))


def test_weights_that_are_cut_off_are_one_line(capsys, model, tmp_path):
    shutil.copytree(model, tmp_path / "short")
    weights = tmp_path / "short" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    options = ("--ratio", 0.3, "--out", tmp_path / "out")
    line = complaint(capsys, "prune", tmp_path / "short", *options)
    assert re.search(r"MODEL is '.*short', whose model\.safetensors is cut off", line)
    assert not (tmp_path / "out").exists()


def test_a_geometry_says_first_that_it_is_random_and_writes_only_if_asked(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    options = ("prune", "--geometry", "tiny", "--ratio", "0.3", "--episodes", "1")
    with pytest.raises(SystemExit) as stopped:
        cli.main([*options, "--spectra", "lanczos"])
    assert stopped.value.code in (0, None)
    out = capsys.readouterr().out
    assert out.startswith("weights: random weights in the geometry tiny")
    assert not list(tmp_path.iterdir())
    run(capsys, *options, "--out", "pruned", "--json")
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
    assert reloaded.config.intermediate_size == 120


def test_evaluate_reports_every_key_and_a_model_against_itself_is_perfect(
    capsys, model
):
    _, result, _ = run(
        capsys,
        *("evaluate", model, "--against", model, "--tasks", "piqa,mmlu_philosophy"),
        *("--limit", 2, "--json"),
    )
    assert list(result) == [
        *("perplexity", "perplexity_window", "perplexity_beginning"),
        *("kl_to_dense", "tasks", "dense_perplexity", "dense_tasks"),
        *("raw_retention", "above_chance_retention"),
    ]
    assert result["dense_perplexity"] == result["perplexity"]
    assert result["dense_tasks"] == result["tasks"]
    assert set(result["tasks"]["piqa"]) == {"acc", "acc_norm", "stderr", "n", "chance"}
    assert {name: task["n"] for name, task in result["tasks"].items()} == {
        "piqa": 2,
        "mmlu_philosophy": 2,
    }
    assert result["kl_to_dense"] == pytest.approx(0, abs=1e-6)
    assert result["perplexity"] > 1
    assert (result["perplexity_window"], result["perplexity_beginning"]) == (1024, None)


def test_the_perplexity_follows_the_tokenizer_and_the_context_and_says_so(
    capsys, tmp_path
):
    tokenizer = load_tokenizer("smollm2")
    frame = TemplateProcessing(single="<|im_start|> $A", special_tokens=[
        ("<|im_start|>", tokenizer.vocab["<|im_start|>"])
    ])  # fmt: skip
    tokenizer.backend_tokenizer.post_processor = frame
    tokenizer.save_pretrained(tmp_path)
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    generator = torch.Generator().manual_seed(0)
    model = tiny_model("llama", generator=generator, **size)
    model.save_pretrained(tmp_path)
    options = ("--tasks", "", "--limit", 2, "--against", tmp_path)
    _, result, _ = run(capsys, "evaluate", tmp_path, *options, "--json")
    assert result["perplexity_window"] == 16
    assert result["perplexity_beginning"] == "<|im_start|>"
    text = wikitext_tokens(tokenizer)[:30].view(2, 15)
    start = torch.full((2, 1), tokenizer.vocab["<|im_start|>"])
    expected = token_nats(model, torch.cat([start, text], 1)).mean().exp()
    assert result["perplexity"] == pytest.approx(float(expected), rel=1e-5)


def test_evaluate_has_null_where_nothing_is_defined(capsys, model):
    _, result, _ = run(
        capsys, "evaluate", model, "--tasks", "winogrande", "--limit", 1, "--json"
    )
    assert result["tasks"]["winogrande"]["n"] == 1
    assert result["tasks"]["winogrande"]["stderr"] is None  # of a single question
    assert result["tasks"]["winogrande"]["acc_norm"] is None
    assert result["kl_to_dense"] is None
    assert result["dense_perplexity"] is result["dense_tasks"] is None
    assert result["raw_retention"] is None
    assert result["above_chance_retention"] is None


def test_a_bad_reference_is_named_before_anything_is_measured(
    capsys, model, monkeypatch
):
    monkeypatch.setattr("prunefair.pruning.perplexity.perplexity", pytest.fail)
    line = complaint(capsys, "evaluate", model, "--against", "no/such")
    assert (
        "--against is 'no/such', which is no folder here, nor came from the hub" in line
    )


@pytest.mark.parametrize("name", ["./no/such", "/no/such", "a/b/c"])
def test_a_path_that_is_not_there_is_no_name_of_the_hub(name, tmp_path, capsys):
    line = complaint(capsys, "prune", name, "--ratio", "0.3", "--out", tmp_path / "out")
    assert f"MODEL is '{name}', which is no folder; give" in line


def test_texts_begin_with_the_tokenizers_token_where_the_model_names_none():
    dense = tiny_model("qwen2", generator=torch.Generator())
    dense.config.bos_token_id = dense.config.eos_token_id = None
    given, nothing = Given("model", "mine"), SimpleNamespace(eos_token_id=None)
    for tokenizer in (None, nothing):
        with (
            pytest.raises(ValueError, match="model is 'mine', whose.*bos_token_id in"),
            started(dense, tokenizer, given),
        ):
            pytest.fail("no text can begin")
    ended = SimpleNamespace(bos_token_id=None, eos_token_id=0)
    with started(dense, ended, given):
        assert start_token(dense) == 0
    assert dense.config.bos_token_id is None  # it is somebody's own model


def test_another_vocabulary_is_named_before_anything_is_measured(
    capsys, model, tmp_path, monkeypatch
):
    monkeypatch.setattr("prunefair.pruning.perplexity.perplexity", pytest.fail)
    tiny_model("llama", generator=torch.Generator()).save_pretrained(tmp_path)
    line = complaint(capsys, "evaluate", model, "--against", tmp_path, "--tasks", "")
    assert re.search("--against is '.*among 32 tokens, but '.*among 49152;", line), line


def test_data_that_is_missing_is_named_before_a_model_is_loaded(
    capsys, model, tmp_path, monkeypatch
):
    monkeypatch.setenv("PRUNEFAIR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PRUNEFAIR_DATA", "")
    monkeypatch.setattr("prunefair.pipelines.evaluation.model_of", pytest.fail)
    monkeypatch.setattr("prunefair.data._fetch", unreachable)
    for tasks in ("piqa", "mmlu", ""):
        command = ("evaluate", model, "--data", tmp_path, "--tasks", tasks)
        assert "give a --data that holds it" in complaint(capsys, *command)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("inf")])
def test_what_json_does_not_know_is_null_wherever_it_stands(value, capsys):
    cli._report({"a": value, "b": [1.5, value], "c": {"d": (value,)}, "e": "x"}, True)
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == {"a": None, "b": [1.5, None], "c": {"d": [None]}, "e": "x"}


@pytest.mark.parametrize("feedback", ["full", "bandit"])
def test_bandits_plays_every_policy_on_movielens(capsys, feedback):
    _, result, _ = run(
        capsys, "bandits", "--feedback", feedback, "--rounds", 300, "--json"
    )
    assert list(result) == [
        *("alpha", "feedback", "T", "M", "N", "offline_utility", "certificate_gap"),
        "policies",
    ]
    assert (result["T"], result["M"], result["N"]) == (300, 75, 19)
    assert 0 <= result["certificate_gap"] < 1e-6 * result["offline_utility"]
    assert "uniform" in result["policies"]
    assert len(result["policies"]) >= 4
    for values in result["policies"].values():
        assert set(values) == POLICY_KEYS
        factor = 0.1**-0.1
        assert values["regret"] == pytest.approx(
            result["offline_utility"] - values["utility"]
        )
        assert values["c_regret"] == pytest.approx(
            result["offline_utility"] - factor * values["utility"]
        )
        assert 1 / 19 <= values["jain"] <= 1


def test_bandits_plays_on_the_data_set_that_is_named(capsys, tmp_path):
    (tmp_path / "ml-25m").mkdir()
    rows = "".join(f"{user},1,4.0,9\n" for user in range(80))
    for name, text in {
        "ratings.csv": "userId,movieId,rating,timestamp\n" + rows,
        "movies.csv": "movieId,title,genres\n1,A,War|IMAX\n",
    }.items():
        (tmp_path / "ml-25m" / name).write_text(text)
    options = ("bandits", "--data", tmp_path, "--dataset", "ml-25m", "--json")
    _, result, _ = run(capsys, *options, "--policies", "uniform")
    assert (result["T"], result["M"], result["N"]) == (75, 75, 2)


def test_bandits_with_the_same_seed_draws_the_same_arms(capsys):
    options = ("bandits", "--feedback", "bandit", "--rounds", 200, "--json", "--seed")
    results = [run(capsys, *options, seed)[1]["policies"] for seed in (3, 3, 4)]
    utilities = [{k: v["utility"] for k, v in result.items()} for result in results]
    assert utilities[0] == utilities[1] != utilities[2]


@pytest.mark.parametrize("feedback", ["full", "bandit"])
def test_bandits_with_the_same_seed_print_the_same_bytes(capsys, feedback):
    options = ("bandits", "--feedback", feedback, "--rounds", "200", "--seed", "3")
    printed = []
    for _ in range(2):
        with pytest.raises(SystemExit):
            cli.main([*options, "--json"])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    _, timed, _ = run(capsys, *options, "--json", "--timings")
    for name, values in json.loads(printed[0])["policies"].items():
        speed = timed["policies"][name].pop("rounds_per_second")
        assert speed > 0 and timed["policies"][name] == values


def ratings_folder(folder, ratings):
    for name, text in {
        "ratings.csv": "userId,movieId,rating,timestamp\n" + ratings,
        "movies.csv": "movieId,title,genres\n1,A,War|IMAX\n2,B,Comedy\n",
    }.items():
        (folder / name).write_text(text)
    return folder


def test_bandits_takes_alpha_as_far_as_the_policies_do(capsys, tmp_path):
    rows = "1,1,4.0,9\n1,2,4.0,8\n2,1,4.0,7\n"
    names = "alpha_fair,uniform"
    data = ("bandits", "--data", ratings_folder(tmp_path, rows), "--policies", names)
    _, result, _ = run(capsys, *data, "--users", 0, "--json", "--alpha", 1)
    for values in result["policies"].values():
        assert values["c_regret"] is None  # no factor at 1
        assert values["regret"] == pytest.approx(
            result["offline_utility"] - values["utility"]
        )
    assert "give a number in [0, 1]" in complaint(capsys, *data, "--alpha", 1.001)


def test_bandits_takes_users_small_rewards_and_malformed_rows(capsys, tmp_path):
    rows = "1,1,4.0,9\n1,2,4.0,8\n2,1,4.0,7\n3,2,1.0\n"
    data = (
        "bandits",
        "--data",
        ratings_folder(tmp_path, rows),
        "--policies",
        "uniform",
    )
    data += ("--json", "--alpha", 0)
    line = complaint(capsys, *data)
    assert "ratings.csv line 5" in line and line.endswith(
        "pass --malformed drop to leave them out"
    )
    data += ("--malformed", "drop")
    line = complaint(capsys, *data)
    assert "--users is 75; it must lie in 1, ..., 2" in line
    assert line.endswith("or give --users 0 for all")
    _, one, _ = run(capsys, *data, "--users", 1, "--small-reward", 0)
    assert (one["T"], one["M"]) == (2, 1)  # optimum 1 + 1 for IMAX or War, or 1 Comedy
    assert one["policies"]["uniform"]["reward_sum"] == pytest.approx(3 + 1)
    _, half, _ = run(capsys, *data, "--users", 0, "--small-reward", 0.5)
    assert (half["T"], half["M"]) == (3, 2)
    earned = 3 + (2 * 2.5 + 2.0) / 3
    assert half["policies"]["uniform"]["reward_sum"] == pytest.approx(earned)


def test_without_json_the_same_values_are_shown_to_a_reader(capsys):
    with pytest.raises(SystemExit):
        cli.main(["bandits", "--rounds", "50", "--policies", "uniform"])
    out = capsys.readouterr().out
    assert "offline_utility: " in out
    assert "\n  uniform:\n    utility: " in out


BAD = {
    "ratio": (("prune", "MODEL", "--ratio", "1", "--out", "OUT"), "'--ratio'.*'1'"),
    "ratio-word": (
        ("prune", "MODEL", "--ratio", "x", "--out", "OUT"),
        "'--ratio'.*'x'.*give a number in",
    ),
    "rows": (("prune", "MODEL", "--ratio", "0.99", "--out", "OUT"), "ratio is 0.99"),
    "model": (
        ("prune", "no/such", "--ratio", "0.3", "--out", "OUT"),
        "MODEL is 'no/such'.*give 'smollm2'",
    ),
    "missing": (("prune", "MODEL", "--ratio", "0.3"), "--out"),
    "neither": (
        ("prune", "--ratio", "0.3"),
        "neither of MODEL and --geometry is given; give one of the two",
    ),
    "both": (
        ("prune", "MODEL", "--geometry", "tiny", "--ratio", "0.3"),
        "--geometry 'tiny'; give one of the two",
    ),
    "geometry": (("prune", "--geometry", "x", "--ratio", "0.3"), "geometry is 'x'"),
    "spectra": (
        ("prune", "MODEL", "--ratio", "0.3", "--out", "OUT", "--spectra", "fast"),
        "--spectra is 'fast'; give exact or lanczos",
    ),
    "method": (
        ("prune", "MODEL", "--ratio", "0.3", "--out", "OUT", "--method", "kl"),
        "--method is 'kl'; give functional or spectral",
    ),
    "functional-spectra": (
        (
            *("prune", "MODEL", "--ratio", "0.3", "--out", "OUT"),
            *("--method", "functional", "--spectra", "exact"),
        ),
        "--method is 'functional', which knows no --spectra",
    ),
    "no-ratio": (
        ("prune", "MODEL", "--out", "OUT"),
        "none of --ratio, --parameters and --bytes is given; give one of them, such "
        "as --ratio 0.3$",
    ),
    "parameters": (
        ("prune", "MODEL", "--out", "OUT", "--parameters", "5.4e9"),
        "--parameters is 5400000000, and the model has no more than [0-9]+; give",
    ),
    "bytes": (
        ("prune", "MODEL", "--out", "OUT", "--bytes", "7"),
        "--bytes is 7, fewer than the .* that are left when almost all FFN",
    ),
    "bytes-and-parameters": (
        ("prune", "MODEL", "--out", "OUT", "--bytes", "3.6e6", "--parameters", "9"),
        "--parameters 9 and --bytes 3600000 are given; give one of them",
    ),
    "choice": (
        ("prune", "MODEL", "--ratio", "0.3", "--out", "OUT", "--choice", "best"),
        "--choice is 'best'; give policy or energy",
    ),
    "offload": (
        (
            *("prune", "MODEL", "--ratio", "0.3", "--out", "OUT"),
            *("--offload", "w", "--method", "spectral"),
        ),
        "--offload is 'w', which only the functional method knows",
    ),
    "widths": (
        ("prune", "MODEL", "--ratio", "0.3", "--out", "OUT", "--widths", "odd"),
        "--widths is 'odd'; give equal or uneven",
    ),
    "spectral-widths": (
        (
            *("prune", "MODEL", "--ratio", "0.3", "--out", "OUT"),
            *("--widths", "uneven", "--method", "spectral"),
        ),
        "--widths is 'uneven'.*give equal, or --method functional",
    ),
    "multiple": (
        ("prune", "MODEL", "--ratio", "0.3", "--out", "OUT", "--multiple", "0"),
        "'--multiple'.*'0'.*at least 1",
    ),
    "texts": (
        ("prune", "MODEL", "--ratio", "0.3", "--out", "OUT", "--texts", "1"),
        "'--texts'.*'1'.*at least 2",
    ),
    "episodes": (
        ("prune", "MODEL", "--ratio", "0.3", "--out", "OUT", "--episodes", "0"),
        "'--episodes'.*'0'.*at least 1",
    ),
    "seed": (
        ("prune", "MODEL", "--ratio", "0.3", "--out", "OUT", "--seed", str(2**64)),
        "'--seed'.*'18446744073709551616'; give a whole number in .0, 1844674407370955",
    ),
    "long-seed": (
        ("bandits", "--seed", "9" * 5000),
        "'--seed': it is '999.*[.]{3}9+'; give a whole number in",
    ),
    "long-option": (
        ("bandits", "--" + "x" * 5000),
        "No such option:? .*--xxx.*[.]{3}x",
    ),
    "device": (
        ("prune", "MODEL", "--ratio", "0.3", "--out", "OUT", "--device", "abacus"),
        "--device is 'abacus'.*give 'cpu'",
    ),
    "device-without-values": (
        ("prune", "MODEL", "--ratio", "0.3", "--out", "OUT", "--device", "meta"),
        "--device is 'meta'.*give 'cpu'",
    ),
    "policy": (
        (
            *("prune", "MODEL", "--ratio", "0.3", "--out", "OUT"),
            *("--policy", "nowhere/policy.safetensors"),
        ),
        "--policy is 'nowhere/policy.safetensors'.*create that folder",
    ),
    "tasks": (("evaluate", "MODEL", "--tasks", "piqa,no"), "--tasks names 'no'"),
    "data": (("evaluate", "MODEL", "--data", "nowhere"), "--data is 'nowhere'"),
    "ratings": (("bandits", "--data", "nowhere"), "--data is 'nowhere'.*ratings.csv"),
    "dataset": (("bandits", "--dataset", "ml-1m"), "--dataset is 'ml-1m'.*ml-25m"),
    "users": (("bandits", "--users", "9999"), "--users is 9999; .* 610, the number"),
    "users-word": (("bandits", "--users", "all"), "'--users'.*'all'.*at least 0"),
    "small-reward": (
        ("bandits", "--small-reward", "2"),
        "'--small-reward'.*'2'; give.*0, 1.",
    ),
    "small-reward-low": (
        ("bandits", "--small-reward", "-1"),
        "'--small-reward'.*'-1'; give a number in .0, 1.",
    ),
    "policy-of-bandits": (
        ("bandits", "--policies", "uniform, scale_free"),
        "--policies names 'scale_free', which needs --feedback bandit; .*alpha_fair",
    ),
    "policy-of-full": (
        ("bandits", "--policies", "hedge", "--feedback", "bandit"),
        "--policies names 'hedge', which needs --feedback full; .*scale_free",
    ),
    "malformed": (("bandits", "--malformed", "skip"), "--malformed is 'skip'.*'drop'"),
    "alpha": (("bandits", "--alpha", "-1"), "'--alpha'.*'-1'"),
    "policies": (("bandits", "--policies", "no"), "--policies names 'no'.*choose"),
    "feedback": (("bandits", "--feedback", "no"), "--feedback is 'no'; give full"),
    "rounds": (("bandits", "--rounds", "10000000"), "--rounds is 10000000.*53372"),
    "command": (("dance",), "dance"),
    "option": (("bandits", "--alhpa", "1"), "--alhpa"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_with_status_two_and_writes_nothing(
    name, capsys, model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arguments, pattern = BAD[name]
    places = {"MODEL": model, "OUT": tmp_path / "out"}
    line = complaint(capsys, *(places.get(word, word) for word in arguments))
    assert re.search(pattern, line), line
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_before_any_work_and_kept(
    capsys, model, tmp_path
):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("kept")
    line = complaint(
        capsys, "prune", model, "--ratio", 0.3, "--out", tmp_path / "out", "--json"
    )
    assert "out is " in line
    assert contents(tmp_path / "out") == {"precious": b"kept"}


WAYS = {
    "functional": ("--method", "functional"),
    "spectral": ("--method", "spectral"),
    "a layer at a time": ("--spectra", "exact"),
}


def unreachable(*arguments):
    raise FileNotFoundError("no network")


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("way", WAYS)
def test_a_policy_outlives_a_full_disk_and_the_command_can_be_repeated(
    way, capsys, model, tmp_path, monkeypatch
):
    policy = tmp_path / "policy.safetensors"
    command = ("prune", model, "--ratio", 0.3, "--out", tmp_path / "out", *FEW)
    command += ("--policy", policy, *WAYS[way])
    with monkeypatch.context() as patched:
        patched.setattr("prunefair.pruning.folders._write_model", full)
        line = complaint(capsys, *command)
    assert re.search("--out is '.*No space left on device.*the policy is saved", line)
    assert list(tmp_path.iterdir()) == [policy]
    saved = policy.read_bytes()
    _, result, _ = run(capsys, *command, "--json")
    assert result["seconds_policy"] == 0 and policy.read_bytes() == saved
    assert load_pruned(tmp_path / "out").num_parameters() == result["params_after"]


@pytest.mark.parametrize("way", WAYS)
def test_a_policy_that_cannot_be_written_leaves_no_folder(
    way, capsys, model, tmp_path, monkeypatch
):
    monkeypatch.setattr("prunefair.pruning.row_policy.save_file", full)
    line = complaint(
        capsys,
        *("prune", model, "--ratio", 0.3, "--out", tmp_path / "out", *FEW),
        *("--policy", tmp_path / "policy.safetensors", *WAYS[way]),
    )
    assert re.search("--policy is '.*No space left on device.*nothing was left", line)
    assert list(tmp_path.iterdir()) == []


UNWRITABLE = {
    "out-below-a-file": (("--out", "file/out"), "--out is 'file/out'.*below '.*file'"),
    "out-is-a-file": (("--out", "file"), "--out is 'file', which exists and is not"),
    "out-is-no-place": (("--out", "/proc/out"), "--out is '/proc/out'.*cannot be"),
    "out-has-a-long-name": (("--out", "n" * 300), "--out is 'nnn.*too long"),
    "policy-is-a-folder": (
        ("--out", "o", "--policy", "folder"),
        "--policy is 'folder', which is a folder; name a file",
    ),
    "policy-below-a-file": (
        ("--out", "o", "--policy", "file/p"),
        "--policy is 'file/p', whose folder does not exist",
    ),
    "policy-is-no-place": (
        ("--out", "o", "--policy", "/proc/policy"),
        "--policy is '/proc/policy'.*cannot be written",
    ),
    "policy-is-out": (("--out", "p", "--policy", "./p"), "one would be in the place"),
    "out-in-policy": (("--out", "p/o", "--policy", "p"), "one would be in the place"),
    "policy-in-out": (("--out", "o", "--policy", "o/p"), "one would be in the place"),
    "policy-in-out-by-a-link": (
        ("--out", "folder", "--policy", "link/p"),
        "one would be in the place of the other; name two places side by side",
    ),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_outputs_are_checked_as_a_set_before_anything_else(
    name, capsys, model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    before = {*tmp_path.rglob("*")}
    monkeypatch.setattr(pruning, "usable_device", pytest.fail)
    options, pattern = UNWRITABLE[name]
    line = complaint(capsys, "prune", model, "--ratio", 0.3, *options)
    assert re.search(pattern, line), line
    assert {*tmp_path.rglob("*")} == before


def test_the_current_folder_is_filled_if_it_is_empty(
    capsys, model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    options = ("--ratio", 0.3, "--out", ".", *FEW, "--json")
    _, result, _ = run(capsys, "prune", model, *options)
    assert result["out"] == "." and os.stat(".").st_ino == before
    assert load_pruned(".").num_parameters() == result["params_after"]


@pytest.mark.parametrize("way", WAYS)
def test_what_the_configuration_excludes_needs_no_weights(way, capsys, model, tmp_path):
    """The folder holds a configuration alone, as the hub gives it first."""
    options = ("--out", tmp_path / "out", *WAYS[way])
    config = json.loads((model / "config.json").read_text())
    for change, ratio, pattern in (
        (
            {"model_type": "bloom"},
            0.3,
            "MODEL is '.*family 'bloom'.*give one of falcon",
        ),
        ({}, 0.99, "--ratio is 0.99, which leaves no row of 40; lower it"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        line = complaint(capsys, "prune", tmp_path, "--ratio", ratio, *options)
        assert re.search(pattern, line), line


@pytest.mark.parametrize("way", WAYS)
def test_a_policy_that_does_not_fit_needs_no_weights(way, capsys, model, tmp_path):
    shutil.copy(model / "config.json", tmp_path)
    other = {True: RowPolicy, False: FunctionalPolicy}[way == "functional"]
    save_policy(other(), tmp_path / "other")
    save_file({"weights": torch.zeros(9)}, tmp_path / "strange")
    for name, pattern in (("other", "file of that kind"), ("strange", "no row policy")):
        options = ("--policy", tmp_path / name, "--out", tmp_path / "out", *WAYS[way])
        line = complaint(capsys, "prune", tmp_path, "--ratio", 0.3, *options)
        assert re.search(pattern, line), line
    assert not (tmp_path / "out").exists()


def in_a_terminal(
    *arguments, stdout=subprocess.PIPE, module="prunefair", **environment
):
    """Run the command as another process, and give what it left."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("words", [(), ("prune",), ("evaluate",), ("bandits",)])
def test_a_terminal_without_unicode_shows_the_help(words):
    result = in_a_terminal(*words, "--help", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert result.returncode == 0 and result.stderr == b""
    assert b"Usage: prunefair" in result.stdout
    result.stdout.decode("ascii")


def test_the_module_of_the_command_is_the_command_too():
    result = in_a_terminal("--help", module="prunefair.cli")
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"Usage: prunefair" in result.stdout
    result = in_a_terminal("prune", module="prunefair.cli")
    assert result.returncode == 2 and result.stderr.startswith(
        b"error: neither of MODEL"
    )


def test_a_terminal_without_unicode_ends_a_finished_run_well(
    capsys, monkeypatch, tmp_path
):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    out = tmp_path / "größer"
    options = ("--geometry", "tiny", "--ratio", "0.3", "--episodes", "1")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["prune", *options, "--out", str(out), "--seed", str(2**64 - 1)])
    assert stopped.value.code in (0, None)
    assert rb"gr\xf6\xdfer" in written.getvalue() and (out / "config.json").is_file()


def test_output_that_nobody_can_take_is_one_line():
    with open("/dev/full", "wb") as device:
        result = in_a_terminal("--help", stdout=device)
    assert result.returncode == 2
    assert result.stderr.startswith(b"error: ") and b"No space left" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        result = in_a_terminal("--help", stdout=pipe)
    assert (result.returncode, result.stderr) == (1, b"")


def test_the_installed_command_separates_results_from_progress():
    command = Path(sys.executable).with_name("prunefair")
    result = subprocess.run(
        [command, "bandits", "--rounds", "20", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(result.stdout.splitlines()) == 1
    assert np.isfinite(json.loads(result.stdout)["offline_utility"])
