"""What is wrong with a folder is said in one line, the same way on every path."""

import json
import logging
import os
import random
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from prunefair import cli
from prunefair.checkpoint import INDEX, Checkpoint
from prunefair.messages import Given, InputError, shown
from prunefair.models import load_model, load_tokenizer, stream_folder
from prunefair.pruning.folders import prune_checkpoint, save_pruned
from prunefair.pruning.row_policy import RowPolicy, load_policy, save_policy
from prunefair.pruning.surgery import slice_ffn_, tiny_model

WEIGHTS = "model.safetensors"


def tiny(family="llama", **fields):
    return tiny_model(family, generator=torch.Generator().manual_seed(5), **fields)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folders of tiny models that are whole: to be copied, and then broken."""
    root = tmp_path_factory.mktemp("whole")
    for family in ("llama", "gpt_neox", "opt"):
        tiny(family).save_pretrained(root / family)
    tiny("qwen2", tie_word_embeddings=True).save_pretrained(root / "tied")
    fields = {"n_embd": 8, "n_layer": 2, "n_head": 2, "vocab_size": 32}
    config = AutoConfig.for_model("gpt2", **fields, n_positions=64)
    AutoModelForCausalLM.from_config(config).save_pretrained(root / "gpt2")
    return root


@pytest.fixture
def folder(whole, tmp_path):
    """Copy of the tiny LLaMA."""
    return Path(shutil.copytree(whole / "llama", tmp_path / "model"))


def edit(folder, **fields):
    """Change fields of the configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def weights(folder, change):
    """Change the tensors of a folder."""
    state = load_file(folder / WEIGHTS)
    state = change(state) or state
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def streamed(folder):
    """Everything that the streamed path reads before it works."""
    model, read = stream_folder(folder)
    for name in model.state_dict():
        read(name)
    return model


def complaints(folder):
    """Message of either path."""
    messages = []
    for load in (load_model, streamed):
        with pytest.raises(InputError) as stopped:
            load(folder)
        message = str(stopped.value)
        assert len(message) <= 300 and "\n" not in message and "; " in message
        messages.append(message)
    return messages


UP = "model.layers.1.mlp.up_proj.weight"
DEEP = '{"model_type": "llama", "a": ' + "[" * 10**5 + "]" * 10**5 + "}"


def without(*parts):
    return lambda folder: weights(
        folder,
        lambda state: {
            name: value
            for name, value in state.items()
            if not any(part in name for part in parts)
        },
    )


def put(name, value):
    """Put `value` in the first place of a tensor."""

    def change(state):
        state[name].view(-1)[0] = value

    return lambda folder: weights(folder, change)


def add(**tensors):
    return lambda folder: weights(folder, lambda state: state | tensors)


def config(**fields):
    return lambda folder: edit(folder, **fields)


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def too_large_for_float16(folder):
    put(UP, 1e6)(folder)
    edit(folder, dtype="float16")


def index(weight_map):
    def change(folder):
        os.rename(folder / WEIGHTS, folder / "part.safetensors")
        (folder / INDEX).write_text(json.dumps(weight_map))

    return change


def pickled(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    os.remove(folder / WEIGHTS)


def twice(folder):
    shutil.copy(folder / WEIGHTS, folder / "b.safetensors")
    index({"weight_map": {"x": "part.safetensors", "y": "b.safetensors"}})(folder)


def code_of_its_own(folder):
    edit(folder, model_type="own", auto_map={"AutoConfig": "own.OwnConfig"})


ANOTHER_SHAPE = r"with the shape \(.*\) where its config.json makes it \("
LACK = r"files lack \d+ of the \d+ weights"
NO_MODEL = "whose config.json describes no model that transformers can build"
DISAGREE = "whose widths of layers do not fit"
WIDTHS = "does not hold the widths"
NOT_FINITE = f"whose weight '{UP}' holds NaN, infinity or numbers too large for "
BROKEN = {
    "no head": (without("lm_head"), LACK + ".*'lm_head.weight'"),
    "a block's MLP": (without("layers.1.mlp"), LACK + ".*layers.1.mlp"),
    "nothing of the model": (
        lambda folder: weights(folder, lambda state: {"x": torch.ones(3)}),
        LACK,
    ),
    "a layer too few": (config(num_hidden_layers=3), LACK + ".*layers.2"),
    "a layer too many": (
        config(num_hidden_layers=1),
        r"hold 12 weights of layers that its config.json does not .*layers\.1\.",
    ),
    "a bias too many": (config(mlp_bias=False), r"hold 6 weights of layers .*bias"),
    "a norm of another family": (
        add(**{"model.layers.0.self_attn.q_norm.weight": torch.ones(4)}),
        "hold 1 weights of layers that its config.json does not .*q_norm",
    ),
    "another width": (config(intermediate_size=11), ANOTHER_SHAPE),
    "another vocabulary": (config(vocab_size=40), ANOTHER_SHAPE),
    "another depth of shape": (
        add(**{UP: torch.ones(12, 8, 1)}),
        f"hold '{UP}' " + ANOTHER_SHAPE,
    ),
    "bitsandbytes": (
        config(quantization_config={"load_in_8bit": True}),
        "config.json has a quantization_config: it is quantised",
    ),
    "gptq": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        r"has a quantization_config \('gptq'\): it is quantised",
    ),
    "odd quantisation": (config(quantization_config="x"), "it is quantised"),
    "quantised part": (
        config(text_config={"quantization_config": {"quant_method": "torchao"}}),
        r"quantization_config \('torchao'\): it is quantised",
    ),
    "compressed": (
        config(compression_config={}),
        "compression_config: it is quantised",
    ),
    "packed weights": (
        lambda folder: weights(folder, lambda s: s | {UP: s[UP].to(torch.int8)}),
        f"hold '{UP}' as I8: it is quantised",
    ),
    "eight bits": (
        lambda folder: weights(
            folder, lambda s: s | {UP: s[UP].to(torch.float8_e4m3fn)}
        ),
        f"holds '{UP}' in the type F8_E4M3, which is none of",
    ),
    "NaN": (put(UP, float("nan")), NOT_FINITE + "float32"),
    "infinity": (put(UP, -float("inf")), NOT_FINITE + "float32"),
    "overflow": (too_large_for_float16, NOT_FINITE + "float16"),
    "cut off": (
        lambda folder: os.truncate(folder / WEIGHTS, 900),
        "model.safetensors is cut off or no safetensors file",
    ),
    "no weights": (
        lambda folder: os.remove(folder / WEIGHTS),
        "which holds no model.safetensors;",
    ),
    "pickled": (pickled, "holds no model.safetensors but pytorch_model.bin, a pickle;"),
    "index without map": (index({"metadata": {}}), "index.json has no weight_map"),
    "index of numbers": (
        index({"weight_map": {"x": 3}}),
        "index.json has no weight_map",
    ),
    "index of a list": (index([1]), "index.json is no JSON object"),
    "index elsewhere": (
        index({"weight_map": {"x": "../model/part.safetensors"}}),
        "index.json has no weight_map of names to files of the folder",
    ),
    "index of nothing": (index({"weight_map": {}}), "holds no model.safetensors"),
    "index of lost files": (index({"weight_map": {"x": "y"}}), "which holds no y;"),
    "a tensor twice": (twice, "holds '.*' once more"),
    "distributed": (
        text("shard-00001-model-00001-of-00001.safetensors", ""),
        "holds a distributed checkpoint",
    ),
    "adapter beside a model": (
        text("adapter_config.json", "{}"),
        "which holds an adapter .adapter_config.json. beside its model; merge it",
    ),
    "adapter alone": (
        lambda folder: os.rename(
            folder / "config.json", folder / "adapter_config.json"
        ),
        "which holds an adapter .adapter_config.json. without its model; load both",
    ),
    "no configuration": (
        lambda folder: os.remove(folder / "config.json"),
        "which holds no config.json; give 'smollm2'",
    ),
    "code of its own": (code_of_its_own, "asks for Python code of its own .auto_map"),
    "weights elsewhere": (
        config(transformers_weights="part.safetensors"),
        "has the entry transformers_weights, by which other weights",
    ),
    "layers of another kind": (
        config(fusion_config={"x": True}),
        "has the entry fusion_config, by which other weights",
    ),
    "NaN in the configuration": (
        config(rms_norm_eps=float("nan")),
        "config.json is no JSON object in UTF-8 .a number is NaN",
    ),
    "kept rows": (text("kept_rows.json", "[]"), "kept_rows.json|" + WIDTHS),
    "widths": (text("kept_rows.json", "{}"), WIDTHS),
    "as many widths": (text("kept_rows.json", '{"widths": [5, 12, 12]}'), DISAGREE),
    "odd widths": (
        config(per_layer_config={"9": {"intermediate_size": 3}}),
        WIDTHS + "|" + NO_MODEL,
    ),
    "widths below zero": (
        config(per_layer_config={"1": {"intermediate_size": -3}}),
        WIDTHS + "|" + NO_MODEL,
    ),
    "widths of an odd form": (config(per_layer_config=[3]), NO_MODEL),
    "wide widths": (text("kept_rows.json", '{"widths": [5, 99]}'), ANOTHER_SHAPE),
    "other widths": (text("kept_rows.json", '{"widths": [5, 12]}'), ANOTHER_SHAPE),
    "generation": (
        text("generation_config.json", "[1]"),
        "which could not be|whose gen",
    ),
    # configurations of odd structure
    "half a configuration": (text("config.json", '{"a": 1'), "is no JSON object"),
    "a list": (text("config.json", "[1]"), "config.json is no JSON object"),
    "a number": (text("config.json", "7"), "config.json is no JSON object"),
    "deep nesting": (text("config.json", DEEP), "config.json is no JSON object"),
    "no text": (
        lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe{}"),
        "config.json is no JSON object in UTF-8",
    ),
    "empty": (text("config.json", "{}"), "has the model_type None, which this version"),
    "unknown": (
        config(model_type="zzz"),
        "has the model_type 'zzz', which this version",
    ),
    "a type of odd type": (config(model_type=["llama"]), r"model_type \['llama'\]"),
    "an encoder": (config(model_type="vit"), NO_MODEL + "|" + LACK),
    "many layers": (config(num_hidden_layers=10**9), "has the num_hidden_layers 1000"),
    "more layers": (
        config(num_hidden_layers=10**400),
        "has the num_hidden_layers 1000",
    ),
    "layers below zero": (config(num_hidden_layers=-1), "has the num_hidden_layers -1"),
    "huge vocabulary": (config(vocab_size=10**12), r"describes 1.6e\+13 parameters"),
    "huge width": (config(hidden_size=2**70), NO_MODEL),
    "no width": (config(hidden_size=0), NO_MODEL),
    "null": (config(hidden_size=None), NO_MODEL),
    "a fraction": (config(hidden_size=8.5), NO_MODEL),
    "a word": (config(intermediate_size="twelve"), NO_MODEL),
    "words": (config(vocab_size=["a"]), NO_MODEL),
    "true": (config(vocab_size=True), NO_MODEL),
    "a negative width": (config(intermediate_size=-12), NO_MODEL),
    "heads that do not divide": (config(num_attention_heads=0), NO_MODEL),
    "activation": (config(hidden_act="swiglu"), NO_MODEL + ".*swiglu"),
    "type of the weights": (config(dtype="int8"), NO_MODEL),
    "no type of weights": (config(dtype="abacus"), NO_MODEL),
    "rope": (config(rope_parameters="x"), NO_MODEL),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_alike_in_memory_and_streamed(name, folder):
    change, pattern = BROKEN[name]
    change(folder)
    for message in complaints(folder):
        assert re.search(pattern, message), message


def renamed(old, new):
    def change(state):
        return {re.sub(old, new, name): value for name, value in state.items()}

    return lambda folder: weights(folder, change)


def in_two_files(folder):
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(
        folder, max_shard_size=2000
    )
    os.remove(folder / WEIGHTS)


def uneven(folder):
    kept = [[0, 2, 5], [1, 3, 4, 5, 8]]
    model = slice_ffn_(load_model(folder), kept)
    shutil.rmtree(folder)
    save_pruned(model, None, folder, kept)


LEGITIMATE = {
    "several files": ("llama", in_two_files),
    "tied": ("tied", lambda folder: None),
    "tied, both stored": (
        "tied",
        lambda folder: weights(
            folder,
            lambda s: s | {"lm_head.weight": s["model.embed_tokens.weight"].clone()},
        ),
    ),
    "tied, the twin stored": ("tied", renamed("model.embed_tokens", "lm_head")),
    "without prefix": ("opt", renamed("^model.", "")),
    "another name of the head": ("gpt_neox", lambda folder: None),
    "declared left-overs": (
        "gpt_neox",
        add(**{"gpt_neox.layers.0.attention.masked_bias": torch.ones(1)}),
    ),
    "old buffers": (
        "llama",
        add(**{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}),
    ),
    "a head of another task": ("llama", add(**{"v_head.weight": torch.ones(1, 8)})),
    "uneven widths": ("llama", uneven),
    "code for a known family": (
        "llama",
        config(auto_map={"AutoModelForCausalLM": "own.OwnModel"}),
    ),
    "no type of weights": ("llama", config(dtype=None)),
}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_what_fits_together_loads_alike_in_memory_and_streamed(name, whole, tmp_path):
    family, change = LEGITIMATE[name]
    folder = Path(shutil.copytree(whole / family, tmp_path / "model"))
    change(folder)
    model = load_model(folder)
    skeleton, read = stream_folder(folder)
    assert type(skeleton) is type(model)
    assert skeleton.num_parameters() == model.num_parameters()
    state = model.state_dict()
    assert list(state) == list(skeleton.state_dict())
    for key, value in state.items():
        assert torch.equal(read(key), value) and read(key).dtype == value.dtype


REPORTED = {
    "missing": (without("h.1.mlp"), LACK + ".*h.1.mlp"),
    "a layer more": (config(n_layer=3), LACK + ".*h.2"),
    "a layer less": (config(n_layer=1), r"hold 11 weights of layers .*h\.1\."),
    "shape": (config(n_positions=65), "hold '.*wpe.weight' " + ANOTHER_SHAPE),
    "NaN": (
        put("transformer.wte.weight", float("nan")),
        "'transformer.wte.weight' holds NaN",
    ),
}


@pytest.mark.parametrize("name", REPORTED)
def test_a_family_that_cannot_be_pruned_is_judged_by_what_transformers_reports(
    name, whole, tmp_path
):
    folder = Path(shutil.copytree(whole / "gpt2", tmp_path / "model"))
    add(**{"transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64)})(folder)
    load_model(folder)  # what old versions have left is no weight
    with pytest.raises(ValueError, match="'gpt2', which has no adapter"):
        prune_checkpoint(folder, tmp_path / "out", None, 0.3)
    change, pattern = REPORTED[name]
    change(folder)
    with pytest.raises(InputError, match=pattern):
        load_model(folder)
    with pytest.raises(InputError, match=pattern):
        empty, read = stream_folder(folder)
        for weight in empty.state_dict():  # values are read when they are asked for
            read(weight)


def test_a_streamed_uneven_model_has_the_parameters_that_it_has(folder):
    uneven(folder)
    dense, _ = stream_folder(folder)
    stored = sum(tensor.numel() for tensor in load_file(folder / WEIGHTS).values())
    assert dense.num_parameters() == stored == load_model(folder).num_parameters()


def test_loading_logs_nothing_neither_of_what_fits_nor_of_what_is_refused(
    folder, caplog
):
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        load_model(folder), stream_folder(folder)
        without("lm_head")(folder)
        complaints(folder)
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.records == []


# -- no code of a folder, no pickle


MARKER = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from transformers import LlamaConfig as OwnConfig, LlamaForCausalLM as OwnModel
from transformers import PreTrainedTokenizerFast as OwnTokenizer
"""


def test_python_of_a_folder_is_never_run_whatever_standard_input_says(whole, tmp_path):
    names = {"AutoConfig": "OwnConfig", "AutoModelForCausalLM": "OwnModel"}
    tokenizer = {"auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    folders = [tmp_path / "own", tmp_path / "llama"]
    for folder in folders:
        shutil.copytree(whole / "llama", folder)
        own = {name: f"own.{value}" for name, value in names.items()}
        edit(folder, model_type=folder.name, auto_map=own)
        (folder / "own.py").write_text(MARKER)
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
        (folder / "tokenizer.json").write_text("{}")
    script = (
        "import sys\nfrom prunefair import cli\n"
        "for words in (['prune', '--ratio', '.3', '--out', 'o'], ['evaluate']):\n"
        "    for folder in sys.argv[1:]:\n"
        "        try: cli.main([words[0], folder, *words[1:]])\n"
        "        except SystemExit as stopped: print(stopped.code, flush=True)\n"
        "print(sys.stdin.readline())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, *folders],
        input="y\n" * 1000,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.stdout.split() == ["2", "2", "2", "2", "y"]
    lines = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    reasons = ["(auto_map), which is never run", "whose tokenizer could not be loaded"]
    for line, reason in zip(lines, reasons * 2, strict=True):
        assert line.startswith("error: MODEL is ") and reason in line
    assert "[y/N]" not in run.stdout + run.stderr
    assert not list(tmp_path.glob("**/ran")) and not (tmp_path / "o").exists()


# -- tokenizers


TOKENIZERS = {
    "empty": "{}",
    "a list": "[]",
    "no JSON": "{",
    "odd model": '{"version": "1.0", "model": {"type": "BPE", "vocab": 3}}',
    "deep": "[" * 10**4,
    "null": "null",
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_odd_tokenizer_is_one_line(name, folder):
    (folder / "tokenizer.json").write_text(TOKENIZERS[name])
    with pytest.raises(InputError, match="name is .*tokenizer") as stopped:
        load_tokenizer(folder)
    assert len(str(stopped.value)) <= 300


@pytest.mark.parametrize("content", ['{"tokenizer_class": 3}', "[]", "{", '"x"'])
def test_an_odd_configuration_of_a_tokenizer_is_one_line(content, folder):
    load_tokenizer("smollm2").save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(InputError, match="name is .*tokenizer") as stopped:
        load_tokenizer(folder)
    assert len(str(stopped.value)) <= 300


def test_a_folder_without_a_tokenizer_says_so(folder):
    words = "name is .* which holds no tokenizer, so no text can be read; "
    words += "copy tokenizer.json and .*; prune, recover on own text and padded"
    with pytest.raises(InputError, match=words) as stopped:
        load_tokenizer(folder)
    assert len(str(stopped.value)) <= 300


# -- the command line, in its own words


def complaint(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    line = capsys.readouterr().err.rstrip("\n").splitlines()[-1]
    assert line.startswith("error: ") and len(line) <= 300
    return line.removeprefix("error: ")


def prune(folder, *more):
    options = ("--ratio", 0.3, "--out", folder / "out", "--episodes", 1, "--texts", 2)
    return ("prune", folder, *options, *more)


PATHS = {
    "functional": lambda folder: prune(folder, "--method", "functional"),
    "spectral": lambda folder: prune(folder, "--method", "spectral"),
    "a layer at a time": lambda folder: prune(folder, "--spectra", "exact"),
    "evaluate": lambda folder: ("evaluate", folder, "--tasks", ""),
}


@pytest.mark.parametrize("way", PATHS)
def test_a_number_that_is_not_finite_is_found_by_every_command_before_the_work(
    way, folder, capsys, monkeypatch
):
    put(UP, float("nan"))(folder)
    load_tokenizer("smollm2").save_pretrained(folder)
    functions = ("llama2_7b.prune_streamed", "spectral_pruning.prune_spectral")
    for name in (*functions, "functional_pruning.prune_functional"):
        monkeypatch.setattr(f"prunefair.pruning.{name}", pytest.fail)
    line = complaint(capsys, *PATHS[way](folder))
    assert f"MODEL is {str(folder)!r}, {NOT_FINITE}float32" in line
    assert not (folder / "out").exists()


def test_the_reference_is_named_by_its_option(folder, whole, tmp_path, capsys):
    put(UP, float("nan"))(folder)
    judged = Path(shutil.copytree(whole / "llama", tmp_path / "judged"))
    load_tokenizer("smollm2").save_pretrained(judged)
    line = complaint(capsys, "evaluate", judged, "--against", folder)
    assert line.startswith("--against is ") and UP in line


@pytest.mark.parametrize("way", ["functional", "spectral", "evaluate"])
def test_a_model_that_does_not_run_is_told_before_the_work(way, tmp_path, capsys):
    folder = tmp_path / "model"
    tiny("gemma2", vocab_size=49152).save_pretrained(folder)
    load_tokenizer("smollm2").save_pretrained(folder)
    edit(folder, sliding_window=None)
    line = complaint(capsys, *PATHS[way](folder))
    assert "config.json describes a model that does not run (TypeError: " in line


@pytest.mark.parametrize("way", [way for way in PATHS if way != "evaluate"])
def test_a_family_that_cannot_be_pruned_is_told_before_a_weight_is_read(
    way, whole, tmp_path, capsys
):
    folder = Path(shutil.copytree(whole / "gpt2", tmp_path / "model"))
    os.remove(folder / WEIGHTS)
    line = complaint(capsys, *PATHS[way](folder))
    assert "of the family 'gpt2', which cannot be pruned; give one of fal" in line


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(folder, capsys):
    load_tokenizer("smollm2").save_pretrained(folder)
    line = complaint(capsys, "evaluate", folder, "--tasks", "")
    wanted = (
        "whose tokenizer gives tokens up to 49151 where the model has embeddings of"
    )
    assert f"{wanted} 32; " in line


def test_a_recurrent_state_is_not_shared_by_answers(tmp_path, capsys):
    fields = {"hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 49152}
    config = AutoConfig.for_model("mamba", **fields)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    load_tokenizer("smollm2").save_pretrained(tmp_path)
    line = complaint(capsys, "evaluate", tmp_path, "--tasks", "piqa")
    assert "of the family 'mamba', whose state cannot be shared by" in line


# -- policies


POLICIES = {
    "no features": {"format": None, "metadata": {}},
    "features of a number": {"features": 3},
    "features of numbers": {"features": [1, 2]},
    "no metadata": {"metadata": None, "format": "x"},
    "a list": [],
    "null": None,
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_file_of_odd_structure_is_one_line(name, whole, tmp_path, capsys):
    path = tmp_path / "policy"
    save_policy(RowPolicy(), path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["policy"])
    odd = POLICIES[name]
    if isinstance(odd, dict):
        odd = {k: v for k, v in (header | odd).items() if v is not None}
        if name == "no features":
            del odd["features"]
    save_file({"weights": RowPolicy().weights}, path, {"policy": json.dumps(odd)})
    with pytest.raises(InputError, match="path is .* which holds no row policy"):
        load_policy(path)
    line = complaint(
        capsys,
        *("prune", whole / "llama", "--ratio", 0.3, "--out", tmp_path / "out"),
        *("--method", "spectral", "--policy", path),
    )
    assert line.startswith("--policy is ") and "which holds no row policy" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "tensors",
    [
        {"other": torch.ones(6)},
        {"weights": torch.ones(7)},
        {"weights": torch.full((6,), torch.nan)},
        {"weights": torch.ones(6, dtype=torch.int64)},
        {"weights": torch.ones(6, 1)},
    ],
)
def test_weights_that_are_none_of_a_policy_are_one_line(tensors, tmp_path):
    save_policy(RowPolicy(), tmp_path / "policy")
    with safe_open(tmp_path / "policy", "pt") as file:
        metadata = file.metadata()
    save_file(tensors, tmp_path / "policy", metadata)
    with pytest.raises(InputError, match="which holds no weights of a policy .*; give"):
        load_policy(tmp_path / "policy")


# -- the format of the files, held against its library


TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.arange(4, dtype=torch.int8),
    "c": torch.zeros(0, 3),
    "d": torch.tensor(1.5, dtype=torch.bfloat16),
}
ODD = (
    *(-1, 0, 1, 7, 2**31, 2**63, 2**64, 10**30, 1.0, 1e400, True, None, "1"),
    *([], [0], {}, "F32", "I8", "F64", "zzz", "\ud800"),
)


def mutated(rng, header, data):
    """A header, or its text, and the bytes after it, changed at one place."""
    header = json.loads(json.dumps(header))
    name, other = rng.sample(["a", "b", "c", "d"], 2)
    entry, kind = header[name], rng.randrange(12)
    if kind == 0:
        entry[rng.choice(list(entry))] = rng.choice(ODD)
    elif kind == 1:
        place = rng.randrange(2)
        entry["data_offsets"][place] = rng.choice(ODD)
    elif kind == 2:
        entry["data_offsets"][rng.randrange(2)] += rng.choice((-8, -1, 1, 8))
    elif kind == 3:
        entry["shape"] = [*entry["shape"], rng.choice(ODD)]
    elif kind == 4:
        entry["shape"] = rng.choice(([6], [3, 2], [1, 2, 3], [-2, -3], [4], []))
    elif kind == 5:
        entry["data_offsets"] = header[other]["data_offsets"]
    elif kind == 6:
        del entry[rng.choice(list(entry))]
    elif kind == 7:
        data = rng.choice((data[:-1], data + b"\0", b"", data * 2))
    elif kind == 8:
        entry["more"] = rng.choice(ODD)
    elif kind == 9:
        header["__metadata__"] = rng.choice((*ODD, {"a": 1}, {"a": "b"}, None))
    elif kind == 10:
        del header[name]
    text = json.dumps(header).encode()
    if kind == 11:
        place = rng.randrange(len(text))
        text = text[:place] + bytes([rng.randrange(256)]) + text[place + 1 :]
    return text, data


def test_the_reader_refuses_the_files_that_the_library_of_the_format_refuses(tmp_path):
    path, rng = tmp_path / WEIGHTS, random.Random(7)
    save_file(TENSORS, path)
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header, accepted = json.loads(whole[8:end]), 0
    for _ in range(600):
        text, data = mutated(rng, header, whole[end:])
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)
        try:
            oracle = load_file(path)
        except (SafetensorError, TypeError):  # sizes beyond 64 bits
            with pytest.raises(InputError, match="is cut off or no safetensors file"):
                Checkpoint(tmp_path)
            continue
        found, accepted = Checkpoint(tmp_path), accepted + 1
        assert set(found.entries) == set(oracle)
        for name, tensor in oracle.items():
            assert torch.equal(found.tensor(name), tensor), text
    assert 50 < accepted < 300


def test_a_name_that_occurs_twice_is_refused_though_the_library_takes_the_last(
    tmp_path,
):
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    text = f'{{"a":{entry},"a":{entry}}}'.encode()
    content = struct.pack("<Q", len(text)) + text + bytes(4)
    (tmp_path / WEIGHTS).write_bytes(content)
    assert list(load_file(tmp_path / WEIGHTS)) == ["a"]
    with pytest.raises(InputError, match="no safetensors file .a name occurs twice"):
        Checkpoint(tmp_path)


# -- messages


def test_a_message_is_one_short_line_that_keeps_argument_and_remedy():
    given = Given("--policy", "/a\nb/" + "x" * 400 + "/end")
    with (
        pytest.raises(InputError) as stopped,
        given.using("which is odd", "mend it"),
    ):
        raise RuntimeError("first\nsecond " + "y" * 400)
    message = str(stopped.value)
    assert len(message) == 293 and "\n" not in message
    assert message.startswith("--policy is '/a") and message.endswith("); mend it")
    assert "x/end', which is odd (RuntimeError: first second y" in message
    assert isinstance(stopped.value.__cause__, RuntimeError)


def test_what_the_user_stops_is_no_error_of_the_input():
    with pytest.raises(KeyboardInterrupt), Given("name", "x").using("a", "b"):
        raise KeyboardInterrupt


def test_values_that_are_too_large_to_show_are_named_by_their_type():
    deep = []
    for _ in range(10**5):
        deep = [deep]
    assert shown(deep) == "a list too large to show"
    assert shown(10**5000) == "a int too large to show"
    assert len(shown(["x"] * 1000, 40)) == 40
