"""Folders of pruned models: saved, loaded, of uneven widths, and streamed."""

import copy
import errno
import filecmp
import json
import os
import re
import resource
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_surgery import (
    EVEN,
    FAMILIES,
    NEURON,
    TOKENS,
    UNEVEN,
    LargestRows,
    logits,
    tiny,
)
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

import prunefair.checkpoint
import prunefair.pruning.folders as folders
from prunefair.models import load_model, load_tokenizer
from prunefair.pruning.folders import (
    export_padded,
    load_pruned,
    prune_checkpoint,
    reloaded_logits,
    save_pruned,
    stored_names,
)
from prunefair.pruning.row_policy import RowPolicy
from prunefair.pruning.surgery import (
    row_matrices,
    select_rows,
    slice_ffn_,
)
from prunefair.widths import WIDTH_FIELDS


def same_files(first, second):
    names = sorted(os.listdir(first))
    same, *_ = filecmp.cmpfiles(first, second, names, shallow=False)
    return same == names == sorted(os.listdir(second))


OURS = {"prunefair", "rope_theta", "rope_scaling", "partial_rotary_factor"}
OURS |= {"rotary_emb_base", "rotary_pct", "rope_local_base_freq"}


def same_as_plain(ours, plain):
    """Same files as transformers wrote, but for what only our folders say."""
    for name in ("kept_rows.json", "README.md"):
        os.remove(ours / name)
    for folder in (ours, plain):
        path = folder / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({k: config[k] for k in config if k not in OURS}))
    return same_files(ours, plain)


def left_behind(folder):
    return sorted(os.listdir(folder))


RELOAD_ALL = """
import sys
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
root, families = sys.argv[1], sys.argv[2].split(",")
tokens = load_file(f"{root}/tokens")["tokens"]
result = {}
for family in families:
    model = AutoModelForCausalLM.from_pretrained(f"{root}/{family}").eval()
    result[family] = model(tokens).logits.detach().clone()
assert "prunefair" not in sys.modules
save_file(result, f"{root}/logits")
"""


def test_plain_transformers_reload_every_family_in_a_fresh_process(tmp_path):
    wanted = {}
    save_file({"tokens": TOKENS}, tmp_path / "tokens")
    for family in FAMILIES:
        model = slice_ffn_(tiny(family), EVEN)
        wanted[family] = logits(model)
        save_pruned(model, None, tmp_path / family, EVEN)
    arguments = [str(tmp_path), ",".join(FAMILIES)]
    subprocess.run([sys.executable, "-c", RELOAD_ALL, *arguments], check=True)
    found = load_file(tmp_path / "logits")
    for family in FAMILIES:
        torch.testing.assert_close(found[family], wanted[family], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_stays_half_precision(family, dtype, tmp_path):
    for name, kept in (("even", EVEN), ("uneven", UNEVEN)):
        model = slice_ffn_(tiny(family, dtype=dtype), kept)
        assert {p.dtype for p in model.parameters()} == {dtype}
        again = load_pruned(save_pruned(model, None, tmp_path / name, kept))
        assert {p.dtype for p in again.parameters()} == {dtype}
        assert again.config.dtype == dtype
        torch.testing.assert_close(logits(again), logits(model))
    assert load_pruned(tmp_path / "uneven", dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_tied_embeddings_stay_tied_and_untied_ones_untied(family, tied, tmp_path):
    for name, kept in (("even", EVEN), ("uneven", UNEVEN)):
        model = slice_ffn_(tiny(family, tie_word_embeddings=tied), kept)
        save_pruned(model, None, tmp_path / name, kept)
        again = load_pruned(tmp_path / name)
        same = (
            again.get_output_embeddings().weight is again.get_input_embeddings().weight
        )
        assert same == tied
        assert torch.equal(logits(again), logits(model))
        stored = load_file(tmp_path / name / "model.safetensors")
        assert sum(v.numel() for v in stored.values()) == model.num_parameters()


# -- folders


def test_the_weights_are_written_as_transformers_write_them(tmp_path):
    for family in FAMILIES:
        model = slice_ffn_(tiny(family), EVEN)
        save_pruned(model, None, tmp_path / family, EVEN)
        model.save_pretrained(tmp_path / "oracle" / family)
        assert same_as_plain(tmp_path / family, tmp_path / "oracle" / family)


def test_several_files_are_written_as_transformers_write_them(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "SHARD_BYTES", 1500)
    model = slice_ffn_(tiny("llama"), EVEN)
    save_pruned(model, None, tmp_path / "ours", EVEN)
    model.save_pretrained(tmp_path / "oracle", max_shard_size=1500)
    assert len(os.listdir(tmp_path / "ours")) > 5
    assert same_as_plain(tmp_path / "ours", tmp_path / "oracle")


def test_saving_leaves_the_configuration_of_the_model_alone(tmp_path):
    model = slice_ffn_(tiny("llama"), EVEN)
    before = copy.deepcopy(vars(model.config))
    save_pruned(model, None, tmp_path / "out", EVEN)
    assert vars(model.config) == before
    assert load_pruned(tmp_path / "out").config.architectures == ["LlamaForCausalLM"]


def test_same_model_same_bytes_whatever_folder_it_came_from(tmp_path):
    tokenizer = load_tokenizer("smollm2")
    for name in ("one", "two"):
        tiny("qwen2").save_pretrained(tmp_path / name)
        model = slice_ffn_(load_model(tmp_path / name), EVEN)
        save_pruned(model, tokenizer, tmp_path / f"{name}-pruned", EVEN)
    assert same_files(tmp_path / "one-pruned", tmp_path / "two-pruned")
    text = "one neuron fewer"
    again = load_tokenizer(tmp_path / "one-pruned")
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_an_empty_folder_is_filled_and_another_one_refused(tmp_path):
    model = slice_ffn_(tiny("phi"), EVEN)
    (tmp_path / "empty").mkdir()
    save_pruned(model, None, tmp_path / "empty", EVEN)
    for taken in ("empty", "file"):
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match=f"out is .*{taken}', which exists and is"):
            save_pruned(model, None, tmp_path / taken, EVEN)
    assert left_behind(tmp_path) == ["empty", "file"]


def test_rows_that_are_not_those_of_the_model_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\[5, 5\] rows and the model has \[12, 12\]"):
        save_pruned(tiny("llama"), None, tmp_path / "out", EVEN)
    assert left_behind(tmp_path) == []


@pytest.fixture
def small_disk():
    """Files of this process may not grow beyond 20 kB for the time of the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_gives_one_clear_error_and_leaves_nothing(tmp_path, small_disk):
    model = slice_ffn_(tiny("llama", vocab_size=2000), EVEN)
    with pytest.raises(
        OSError, match="out is .*could not be written .*nothing was left"
    ):
        save_pruned(model, None, tmp_path / "out", EVEN)
    assert left_behind(tmp_path) == []


def test_a_disk_that_fills_up_at_the_tokenizer_gives_the_same_error(tmp_path, request):
    tokenizer = load_tokenizer("smollm2")
    request.getfixturevalue("small_disk")
    with pytest.raises(
        OSError, match="out is .*could not be written .*nothing was left"
    ):
        save_pruned(slice_ffn_(tiny("llama"), EVEN), tokenizer, tmp_path / "out", EVEN)
    assert left_behind(tmp_path) == []


def test_an_error_that_is_not_the_disks_is_passed_on(tmp_path):
    folder = prunefair.outputs.whole_folder(tmp_path / "out")
    with pytest.raises(ZeroDivisionError), folder as partial:
        (partial / "config.json").write_text("{}")
        raise ZeroDivisionError
    assert left_behind(tmp_path) == []


def test_saving_as_the_released_code_does_cannot_be_loaded(tmp_path):
    model = slice_ffn_(tiny("llama"), EVEN)
    model.config.intermediate_size = 12
    model.model.save_pretrained(tmp_path / "released")
    with pytest.raises(ValueError, match="does not load: RuntimeError"):
        reloaded_logits(tmp_path / "released", TOKENS)


def test_a_process_that_dies_without_a_word_is_named_by_its_status(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(folders, "_RELOAD", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ValueError, match="does not load: exit status -9"):
        reloaded_logits(tmp_path, TOKENS)


def test_uneven_widths_load_with_our_loader_and_never_wrongly_with_the_plain_one(
    tmp_path,
):
    for family in FAMILIES:
        model = slice_ffn_(tiny(family), UNEVEN)
        folder = save_pruned(model, None, tmp_path / family, UNEVEN)
        again = load_pruned(folder)
        assert type(again) is type(model) and not again.training
        assert [len(m) for m in row_matrices(again)] == [3, 5]
        assert torch.equal(logits(again), logits(model))
        try:
            plain = AutoModelForCausalLM.from_pretrained(folder)
        except RuntimeError as error:  # versions that do not build such models
            assert re.search("per-layer attribute|ignore_mismatched", str(error))
        else:
            assert torch.equal(logits(plain), logits(model))
        save_pruned(again, None, tmp_path / "again" / family, UNEVEN)
        assert same_files(folder, tmp_path / "again" / family)


@pytest.mark.parametrize("family", FAMILIES)
def test_uneven_widths_survive_being_saved_by_transformers(family, tmp_path):
    sliced = slice_ffn_(tiny(family), UNEVEN)
    record = {"base_model": "some/base", "seed": 3}
    loaded = load_pruned(save_pruned(sliced, None, tmp_path / "a", UNEVEN, record))
    for name, model in (("sliced", sliced), ("loaded", loaded)):
        model.save_pretrained(tmp_path / name)  # what the Trainer does
        assert not (tmp_path / name / "kept_rows.json").exists()
        again = load_pruned(tmp_path / name)
        assert torch.equal(logits(again), logits(sliced))
        field = WIDTH_FIELDS[family]
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["per_layer_config"] == {"0": {field: 3}} and config[field] == 5
    assert loaded.config.prunefair["base_model"] == "some/base"
    again = AutoConfig.from_pretrained(tmp_path / "loaded")
    assert again.prunefair["widths"] == [3, 5]
    slice_ffn_(loaded, [[0, 1], [2, 4]])  # widths and record are those of before
    loaded.save_pretrained(tmp_path / "even")
    config = json.loads((tmp_path / "even" / "config.json").read_text())
    assert not {"per_layer_config", "prunefair"} & set(config) and config[field] == 2
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "even")
    assert torch.equal(logits(plain), logits(loaded))


def test_no_entry_of_the_configuration_opens_uneven_widths_to_the_plain_loader(
    tmp_path,
):
    folder = save_pruned(
        slice_ffn_(tiny("llama"), UNEVEN), None, tmp_path / "a", UNEVEN
    )
    path = folder / "config.json"
    config = json.loads(path.read_text())
    named = {f"{i}": {"intermediate_size": k} for i, k in enumerate((3, 5))}
    allowed = {"allow_global_per_layer_attribute_access": True}
    for entry in (allowed, {"per_layer_config": named}, {"per_layer_config": {}}):
        path.write_text(json.dumps(config | entry))
        with pytest.raises(RuntimeError, match="per-layer attr|ignore_mismatched"):
            AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_layers_compute_the_same_and_every_loader_reads_them(family, tmp_path):
    sliced = slice_ffn_(tiny(family, dtype=torch.float64), UNEVEN)
    narrow = save_pruned(sliced, None, tmp_path / "a", UNEVEN, {"seed": 3})
    report = export_padded(narrow, tmp_path / "b")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "b").eval()
    assert type(plain) is type(sliced) and plain.dtype == torch.float64
    torch.testing.assert_close(logits(plain), logits(sliced), atol=1e-12, rtol=1e-12)
    assert getattr(plain.config, WIDTH_FIELDS[family]) == report["width"] == 5
    for full, part in zip(plain.parameters(), sliced.parameters(), strict=True):
        assert torch.equal(full[full != 0], part.flatten())
    counts = report["parameters"], report["parameters_unpadded"]
    assert counts == (plain.num_parameters(), sliced.num_parameters())
    assert counts[0] - counts[1] == 2 * NEURON[family]
    assert (report["widths"], report["ffn_times"]) == ([3, 5], 10 / 8)
    weights = (tmp_path / "b" / "model.safetensors").stat().st_size
    assert 8 * counts[0] < report["bytes"] == weights < 8 * counts[0] + 10_000
    assert torch.equal(logits(load_pruned(tmp_path / "b")), logits(plain))
    said = json.loads((tmp_path / "b" / "kept_rows.json").read_text())
    assert (said["kept"], said["widths"], said["seed"]) == (UNEVEN, [5, 5], 3)
    for name in "ab":  # and the cards of both say what it costs
        assert "1.25 times the feed" in (tmp_path / name / "README.md").read_text()


def test_what_cannot_be_padded_is_refused_and_nothing_is_written(tmp_path):
    even = save_pruned(slice_ffn_(tiny("phi"), EVEN), None, tmp_path / "a", EVEN)
    with pytest.raises(ValueError, match="folder is .*, whose layers all have 5 neur"):
        export_padded(even, tmp_path / "b")
    kept = UNEVEN
    uneven = save_pruned(slice_ffn_(tiny("phi"), kept), None, tmp_path / "c", kept)
    with pytest.raises(ValueError, match="^out is .*/a', which exists"):
        export_padded(uneven, tmp_path / "a")
    record = json.loads((uneven / "kept_rows.json").read_text())
    (uneven / "kept_rows.json").write_text(json.dumps(record | {"kept": [["x"]]}))
    with pytest.raises(ValueError, match="folder is .*, whose kept_rows.json does not"):
        export_padded(uneven, tmp_path / "b")
    assert left_behind(tmp_path) == ["a", "c"]


def test_a_folder_that_a_trainer_wrote_is_padded_without_the_rows(tmp_path):
    sliced = slice_ffn_(tiny("opt"), UNEVEN)
    sliced.save_pretrained(tmp_path / "a")
    export_padded(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b" / "kept_rows.json").exists()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "b").eval()
    torch.testing.assert_close(logits(plain), logits(sliced), atol=1e-5, rtol=1e-5)


def test_a_folder_from_before_the_widths_stood_in_the_configuration_loads(tmp_path):
    folder = save_pruned(slice_ffn_(tiny("phi"), UNEVEN), None, tmp_path / "a", UNEVEN)
    config = json.loads((folder / "config.json").read_text())
    del config["per_layer_config"]
    (folder / "config.json").write_text(json.dumps(config))
    assert [len(m) for m in row_matrices(load_pruned(folder))] == [3, 5]


@pytest.mark.skipif(
    not hasattr(PreTrainedConfig, "per_layer_config"), reason="older transformers"
)
def test_transformers_reads_the_widths_of_every_layer(tmp_path):
    kept = [[0, 3, 11], *[[1, 2, 6, 10, 11]] * 10, [4, 5]]  # two digits, sorted as text
    model = slice_ffn_(tiny("qwen3", num_hidden_layers=12), kept)
    config = AutoConfig.from_pretrained(save_pruned(model, None, tmp_path / "a", kept))
    widths = [layer.intermediate_size for layer in config.per_layer_config]
    assert widths == [len(rows) for rows in kept]


LAZY = """
import sys
import prunefair
assert not {"torch", "transformers"} & set(sys.modules)
from prunefair import load_pruned
model = load_pruned(sys.argv[1])
print([len(layer.mlp.gate_proj.weight) for layer in model.model.layers])
"""


def test_load_pruned_is_a_name_of_the_package_that_loads_torch_only_when_used(tmp_path):
    folder = save_pruned(
        slice_ffn_(tiny("llama"), UNEVEN), None, tmp_path / "out", UNEVEN
    )
    command = [sys.executable, "-c", LAZY, folder]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert run.stdout == "[3, 5]\n"
    assert prunefair.load_pruned is load_pruned
    with pytest.raises(AttributeError, match="'prunefair' has no attribute 'unknown'"):
        prunefair.unknown  # noqa: B018


def test_widths_that_are_none_are_refused_and_a_folder_without_any_loads(tmp_path):
    with pytest.raises(ValueError, match="folder is .*holds no config"):
        load_pruned(tmp_path)
    folder = save_pruned(slice_ffn_(tiny("llama"), EVEN), None, tmp_path / "a", EVEN)
    (folder / "kept_rows.json").unlink()
    assert [len(m) for m in row_matrices(load_pruned(folder))] == [5, 5]
    odd = ('{"widths": null}', '{"widths": []}', '{"widths": [3, -5]}')
    for content in ("{}", "[]", '{"widths": [3', '{"widths": [true, 5]}', *odd):
        (folder / "kept_rows.json").write_text(content)
        message = r"kept_rows\.json (does not hold the widths|is no JSON object)"
        with pytest.raises(ValueError, match=message):
            load_pruned(folder)
    config = json.loads((folder / "config.json").read_text())
    for bad in ({"9": {"intermediate_size": 3}}, {"x": {"intermediate_size": 3}}, [3]):
        (folder / "config.json").write_text(
            json.dumps(config | {"per_layer_config": bad})
        )
        with pytest.raises(
            ValueError, match=r"config\.json d(oes not hold the wid|escribes no model)"
        ):
            load_pruned(folder)


# -- streaming


@pytest.mark.parametrize("max_bytes", [10**9, 1500], ids=["one file", "many files"])
@pytest.mark.parametrize("family", FAMILIES)
def test_streaming_equals_the_in_memory_way_byte_for_byte(
    family, max_bytes, tmp_path, monkeypatch
):
    monkeypatch.setattr(folders, "SHARD_BYTES", max_bytes)
    tiny(family, dtype=torch.bfloat16).save_pretrained(
        tmp_path / "dense", max_shard_size=1000
    )
    for ratio in (0.3, [0.0, 0.5]):
        model = load_model(tmp_path / "dense")
        kept = select_rows(row_matrices(model), LargestRows(), ratio)
        ours, streamed = tmp_path / f"memory{ratio}", tmp_path / f"stream{ratio}"
        save_pruned(slice_ffn_(model, kept), None, ours, kept)
        prune_checkpoint(tmp_path / "dense", streamed, LargestRows(), ratio)
        assert same_files(ours, streamed)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "stream0.3")
    assert [len(m) for m in row_matrices(plain)] == [8, 8]


def test_streaming_draws_the_same_rows_with_the_same_seed(tmp_path):
    tiny("phi").save_pretrained(tmp_path / "dense")
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        generator = torch.Generator().manual_seed(seed)
        out = tmp_path / name
        prune_checkpoint(
            tmp_path / "dense", out, LargestRows(), 0.5, generator=generator
        )
    assert same_files(tmp_path / "one", tmp_path / "two")
    assert not same_files(tmp_path / "one", tmp_path / "three")


def test_streaming_with_the_row_policy_tokenizer_and_another_stored_type(tmp_path):
    model, tokenizer = tiny("llama"), load_tokenizer("smollm2")
    model.save_pretrained(tmp_path / "dense")
    tokenizer.save_pretrained(tmp_path / "dense")
    config = model.config
    config.dtype = "bfloat16"  # the files hold float32
    config.save_pretrained(tmp_path / "dense")
    os.remove(tmp_path / "dense" / "generation_config.json")
    policy = RowPolicy(torch.tensor([1.0, 0.2, 0, 0, 0, 0.1]))
    prune_checkpoint(tmp_path / "dense", tmp_path / "stream", policy, 0.3)
    model = load_model(tmp_path / "dense")
    kept = select_rows(row_matrices(model), policy, 0.3)
    tokenizer = load_tokenizer(tmp_path / "dense")
    save_pruned(slice_ffn_(model, kept), tokenizer, tmp_path / "memory", kept)
    assert model.dtype == torch.bfloat16
    assert same_files(tmp_path / "stream", tmp_path / "memory")


def test_weights_named_without_the_models_prefix_are_found(tmp_path):
    model = tiny("opt")
    model.save_pretrained(tmp_path / "dense")
    prune_checkpoint(tmp_path / "dense", tmp_path / "one", LargestRows(), 0.3)
    path = tmp_path / "dense" / "model.safetensors"
    state = {name.removeprefix("model."): v for name, v in load_file(path).items()}
    save_file(state, path, metadata={"format": "pt"})
    prune_checkpoint(tmp_path / "dense", tmp_path / "two", LargestRows(), 0.3)
    assert same_files(tmp_path / "one", tmp_path / "two")


def test_an_own_name_without_prefix_comes_before_the_name_of_a_twin(tmp_path):
    tiny("opt", tie_word_embeddings=True).save_pretrained(tmp_path / "dense")
    path = tmp_path / "dense" / "model.safetensors"
    state = {name.removeprefix("model."): v for name, v in load_file(path).items()}
    state["lm_head.weight"] = state["decoder.embed_tokens.weight"].clone()
    save_file(state, path, metadata={"format": "pt"})
    prune_checkpoint(tmp_path / "dense", tmp_path / "out", LargestRows(), 0.3)
    state["lm_head.weight"] += 1
    save_file(state, path, metadata={"format": "pt"})
    message = "different weights for 'decoder.embed_tokens.weight' and 'lm_head.weight'"
    with pytest.raises(ValueError, match=message):
        prune_checkpoint(tmp_path / "dense", tmp_path / "two", LargestRows(), 0.3)
    embedding = state.pop("decoder.embed_tokens.weight") + 1
    save_file(state, path, metadata={"format": "pt"})  # the twin alone serves both
    prune_checkpoint(tmp_path / "dense", tmp_path / "two", LargestRows(), 0.3)
    stored = load_file(tmp_path / "two" / "model.safetensors")
    assert torch.equal(stored["model.decoder.embed_tokens.weight"], embedding)


def test_streaming_refuses_ratios_that_do_not_fit(tmp_path):
    tiny("llama").save_pretrained(tmp_path / "dense")
    for ratio, message in (
        ([0.1, 0.2, 0.3], "ratio has 3 entries and the model 2 layers"),
        (0.95, "leaves no row of 12"),
        (1.0, "ratio is 1.0"),
        (-0.1, "ratio is -0.1"),
    ):
        with pytest.raises(ValueError, match=message):
            prune_checkpoint(tmp_path / "dense", tmp_path / "out", LargestRows(), ratio)
    assert left_behind(tmp_path) == ["dense"]


def test_streaming_refuses_a_folder_that_is_no_whole_checkpoint(tmp_path):
    def attempt(message):
        with pytest.raises(ValueError, match=message):
            prune_checkpoint(tmp_path / "dense", tmp_path / "out", LargestRows(), 0.3)
        assert left_behind(tmp_path) == ["dense"]

    model = tiny("gpt_neox")
    model.save_pretrained(tmp_path / "dense")
    path = tmp_path / "dense" / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    attempt("is cut off")
    path.write_bytes(whole[:100])
    attempt("is cut off")
    path.write_bytes(whole[:4])
    attempt("is cut off")
    path.write_bytes(whole)
    state = load_file(path)
    del state["embed_out.weight"]
    save_file(state, path, metadata={"format": "pt"})
    attempt("lack 1 of the 28 weights .* such as 'lm_head.weight'")
    path.unlink()
    attempt(r"holds no model\.safetensors")


def test_streaming_refuses_a_quantised_checkpoint(tmp_path):
    def attempt(message):
        with pytest.raises(ValueError, match=message):
            prune_checkpoint(tmp_path / "dense", tmp_path / "out", LargestRows(), 0.3)
        assert left_behind(tmp_path) == ["dense"]

    tiny("llama").save_pretrained(tmp_path / "dense")
    path = tmp_path / "dense" / "model.safetensors"
    state = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    codes = {name: state[name].to(torch.int8), f"{name}_scale": torch.ones(12, 1)}
    save_file(state | codes, path, metadata={"format": "pt"})
    attempt(f"hold '{name}' as I8: it is quantised; load the model dequantised")
    fields = json.loads((tmp_path / "dense" / "config.json").read_text())
    fields["quantization_config"] = {"quant_method": "compressed-tensors"}
    (tmp_path / "dense" / "config.json").write_text(json.dumps(fields))
    attempt("quantization_config .'compressed-tensors'.*; load the model dequantised")


def test_a_weight_that_is_lost_while_streaming_is_not_blamed_on_the_result(
    tmp_path, monkeypatch
):
    tiny("llama").save_pretrained(tmp_path / "dense")
    path = tmp_path / "dense" / "model.safetensors"
    failing_writer(monkeypatch, 3, path.unlink)
    with pytest.raises(
        ValueError, match=r"^folder is .*dense', whose model.safetensors could not be"
    ):
        prune_checkpoint(tmp_path / "dense", tmp_path / "out", LargestRows(), 0.3)
    assert left_behind(tmp_path) == ["dense"]


def test_streaming_refuses_two_values_for_tied_weights(tmp_path):
    tiny("qwen2", tie_word_embeddings=True).save_pretrained(tmp_path / "dense")
    path = tmp_path / "dense" / "model.safetensors"
    state = load_file(path)
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    save_file(state, path, metadata={"format": "pt"})
    prune_checkpoint(tmp_path / "dense", tmp_path / "out", LargestRows(), 0.3)
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    state["lm_head.weight"] += 1
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="different weights for .*which its config"):
        prune_checkpoint(tmp_path / "dense", tmp_path / "two", LargestRows(), 0.3)


def test_weights_of_another_shape_than_the_configurations_are_refused(tmp_path):
    model = tiny("llama")
    model.save_pretrained(tmp_path / "dense")
    model.config.vocab_size = 40
    model.config.save_pretrained(tmp_path / "dense")
    with pytest.raises(
        ValueError, match="shape .32, 8. where its config.json makes it .40, 8."
    ):
        prune_checkpoint(tmp_path / "dense", tmp_path / "out", LargestRows(), 0.3)
    assert left_behind(tmp_path) == ["dense"]


def failing_writer(monkeypatch, calls, action):
    """Let the write of tensor number `calls` perform `action` instead."""
    original, done = prunefair.checkpoint._write_tensor, []

    def write(*arguments):
        done.append(1)
        if len(done) == calls:
            action()
        original(*arguments)

    monkeypatch.setattr(prunefair.checkpoint, "_write_tensor", write)


@pytest.mark.parametrize("calls", [1, 7, 14])
def test_a_full_disk_while_streaming_leaves_nothing(tmp_path, monkeypatch, calls):
    tiny("falcon").save_pretrained(tmp_path / "dense")

    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    failing_writer(monkeypatch, calls, full)
    with pytest.raises(OSError, match="out is .*No space left on device"):
        prune_checkpoint(tmp_path / "dense", tmp_path / "out", LargestRows(), 0.3)
    assert left_behind(tmp_path) == ["dense"]


def test_an_interrupt_while_streaming_leaves_nothing(tmp_path, monkeypatch):
    tiny("mistral").save_pretrained(tmp_path / "dense")

    def interrupt():
        raise KeyboardInterrupt

    failing_writer(monkeypatch, 5, interrupt)
    with pytest.raises(KeyboardInterrupt):
        prune_checkpoint(tmp_path / "dense", tmp_path / "out", LargestRows(), 0.3)
    assert left_behind(tmp_path) == ["dense"]


def test_a_killed_process_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    tiny("qwen3").save_pretrained(tmp_path / "dense")
    failing_writer(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGKILL))
    child = os.fork()
    if not child:
        prune_checkpoint(tmp_path / "dense", tmp_path / "out", LargestRows(), 0.3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    hidden, dense = left_behind(tmp_path)
    assert dense == "dense" and hidden.startswith(".prunefair-partial-")
    assert left_behind(tmp_path / hidden / "partial") == ["model.safetensors"]
    monkeypatch.undo()
    prune_checkpoint(tmp_path / "dense", tmp_path / "out", LargestRows(), 0.3)
    assert load_pruned(tmp_path / "out").config.intermediate_size == 8


PEAK = """
import sys
from pathlib import Path
import torch
from prunefair.models import load_model
from prunefair.pruning.folders import *
from prunefair.pruning.surgery import *
class LargestRows:
    def select(self, W, k, *, generator=None):
        return W.norm(dim=1).topk(k).indices.sort().values
def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(s.split()[1]) for s in lines if s.startswith(field))
dense, out = sys.argv[1:]
policy = LargestRows()
tiny_model("mistral", generator=torch.Generator()).save_pretrained(f"{out}-tiny")
prune_checkpoint(f"{out}-tiny", f"{out}-warm", policy, 0.3)  # everything is imported
before = resident("VmRSS")
prune_checkpoint(dense, f"{out}/stream", policy, 0.3)
print(resident("VmHWM") - before)
model = load_model(dense)
kept = select_rows(row_matrices(model), policy, 0.3)
save_pruned(slice_ffn_(model, kept), None, f"{out}/memory", kept)
print(resident("VmHWM") - before)  # of both ways, so the larger peak
"""


MANY_LAYERS = {"num_hidden_layers": 10}
MANY_WORDS = {"vocab_size": 40_000, "tie_word_embeddings": True}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("more", [MANY_LAYERS, MANY_WORDS], ids=["layers", "words"])
def test_streaming_needs_less_than_two_layers_and_one_file(more, tmp_path):
    d, m = 512, 1536
    fields = {"hidden_size": d, "intermediate_size": m} | more
    fields |= {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64}
    model = tiny("mistral", **fields)
    model.save_pretrained(tmp_path / "dense", max_shard_size="30MB")
    if more is MANY_WORDS:  # both copies are stored, each in a file of its own
        twin = {"lm_head.weight": model.lm_head.weight.detach()}
        save_file(twin, tmp_path / "dense" / "model-twin.safetensors")
        path = tmp_path / "dense" / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        index["weight_map"] |= dict.fromkeys(twin, "model-twin.safetensors")
        path.write_text(json.dumps(index))
    total = 4 * model.num_parameters()
    del model
    files = (tmp_path / "dense").glob("*.safetensors")
    bound = 2 * 4 * (3 * m * d + 4 * d * d) + max(f.stat().st_size for f in files)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", PEAK, tmp_path / "dense", out]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    stream, memory = map(int, run.stdout.split())
    assert same_files(out / "stream", out / "memory")
    assert stream < bound < memory
    assert more is MANY_WORDS or bound < total / 2


def test_stored_names_are_in_the_order_of_the_model_and_translated():
    names = stored_names(tiny("gpt_neox"))
    assert names["embed_out.weight"] == "lm_head.weight"
    assert list(names)[0] == "gpt_neox.embed_in.weight"
