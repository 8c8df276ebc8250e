"""Models come from the wheel, a folder or the hub, or one clear error says why not."""

import json
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("name", ["", ".", "no/such-model-anywhere", "a b c!"])
def test_an_unknown_model_is_named_with_the_remedy(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"MODEL is '.*; give 'smollm2'") as error:
        models.load_model(name)
    assert repr(name) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_interrupted_conversion_leaves_nothing(tiny, tmp_path, monkeypatch):
    class Interrupted(Exception):
        pass

    def stop(*args, **options):
        raise Interrupted

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", stop)
    tiny.config.quantization_config = {}
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *a, **k: tiny, raising=True
    )
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *a, **k: 0)
    with pytest.raises(Interrupted):
        models._convert_gguf(tmp_path / "model.gguf", tmp_path / "cache" / "model")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_the_wheel_the_hub_has_the_same_model(monkeypatch):
    monkeypatch.setattr(models, "_wheel_gguf", lambda: None)
    assert models.model_source("smollm2") == "HuggingFaceTB/SmolLM2-135M-Instruct"


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
