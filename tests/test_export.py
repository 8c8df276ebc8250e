"""GGUF files against their reader, transformers' loader and llama.cpp itself.

The last needs the extra `llama`; without it those tests are skipped.
"""

import contextlib
import importlib.util
import json

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import prunefair.export
from prunefair import cli
from prunefair.export import export_gguf
from prunefair.messages import shown
from prunefair.models import load_model, load_tokenizer, model_source
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.folders import load_pruned, save_pruned
from prunefair.pruning.surgery import prune_rows, row_matrices, slice_ffn_, tiny_model

TEXT = "One neuron, 1234 more; naïve über 😀\n\n  don't — x  y"
WIDTHS = {"even": (64, 64), "uneven": (32, 96)}
PLAIN = {"rope_type": "default", "rope_theta": 1e5}
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 5e4,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
TOKENS = torch.arange(3, 31)[None]
needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama_cpp is not installed"
)


@contextlib.contextmanager
def llama(path):
    """The file in llama.cpp, which computes the logits of every token."""
    import llama_cpp

    options = {"n_ctx": 64, "logits_all": True, "verbose": False, "n_threads": 2}
    model = llama_cpp.Llama(model_path=str(path), **options)
    try:
        yield model
    finally:
        model.close()


def logits(model, tokens=TOKENS):
    with torch.no_grad():
        return model(tokens).logits


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of tiny LLaMAs by widths, rope and whether embeddings are tied."""
    place, tokenizer = tmp_path_factory.mktemp("tiny"), byte_level()
    folders = {}
    for shape, (first, second) in WIDTHS.items():
        for name, rope in (("plain", PLAIN), ("scaled", SCALED)):
            model = tiny_model(
                "llama",
                generator=torch.Generator().manual_seed(0),
                vocab_size=len(tokenizer),
                hidden_size=32,
                head_dim=8,
                num_attention_heads=4,
                num_key_value_heads=2,
                intermediate_size=96,
                rope_parameters=dict(rope),
                tie_word_embeddings=name == "plain",
                mlp_bias=name == "scaled",
                attention_bias=name == "scaled",
            )
            kept = [list(range(first)), list(range(96 - second, 96))]
            record = {"base_model": "some/base", "base_license": "mit"}
            out = place / f"{shape}-{name}"
            save_pruned(slice_ffn_(model, kept), tokenizer, out, kept, record)
            folders[shape, name] = out
    return folders


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("shape", WIDTHS)
def test_the_reader_of_gguf_finds_every_weight_and_what_the_model_is(
    shape, kind, saved, tmp_path
):
    folder = saved[shape, "scaled"]
    report = export_gguf(folder, tmp_path / "a.gguf", kind=kind)
    assert report["bytes"] == (tmp_path / "a.gguf").stat().st_size
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = "llama" if shape == "even" else "deci"
    assert report["architecture"] == fields["general.architecture"] == architecture
    widths = WIDTHS[shape]
    expected = 64 if shape == "even" else list(widths)
    assert fields[f"{architecture}.feed_forward_length"] == expected
    assert fields[f"{architecture}.rope.freq_base"] == 5e4
    assert fields["general.license"] == "mit"
    state = load_pruned(folder).state_dict()
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == len(state) + 1  # the factors of the positions
    step = {"f32": 0, "f16": 2**-11, "q8_0": 1 / 127}[kind]
    for number, width in enumerate(widths):
        for theirs, ours in (("gate", "gate"), ("up", "up"), ("down", "down")):
            tensor = tensors[f"blk.{number}.ffn_{theirs}.weight"]
            weight = state[f"model.layers.{number}.mlp.{ours}_proj.weight"].numpy()
            found = dequantize(tensor.data, tensor.tensor_type)
            assert width in found.shape
            np.testing.assert_allclose(found, weight, atol=step * np.abs(weight).max())


def test_transformers_reads_the_file_back_with_the_same_logits_and_tokens(
    saved, tmp_path
):
    folder = saved["even", "plain"]
    export_gguf(folder, tmp_path / "a.gguf", kind="f32")
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf")
    assert torch.equal(logits(again.eval()), logits(load_pruned(folder)))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="a.gguf")
    assert tokenizer(TEXT)["input_ids"] == load_tokenizer(folder)(TEXT)["input_ids"]


@needs_llama
@pytest.mark.parametrize("rope", ["plain", "scaled"])
@pytest.mark.parametrize("shape", WIDTHS)
def test_llama_cpp_has_the_logits_and_the_tokens_of_transformers(
    shape, rope, saved, tmp_path
):
    folder = saved[shape, rope]
    export_gguf(folder, tmp_path / "a.gguf", kind="f32")
    expected = logits(load_pruned(folder))[0].numpy()
    with llama(tmp_path / "a.gguf") as model:
        model.eval(TOKENS[0].tolist())
        found = model.scores[: TOKENS.shape[1]]
        # its cache holds float16
        assert np.abs(found - expected).max() < 0.03 * expected.std()
        tokens = model.tokenize(TEXT.encode(), add_bos=True)
    assert tokens == load_tokenizer(folder)(TEXT)["input_ids"]


# -- tokenizers

PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]


def sentence_pieces(prepend=True):
    """A tokenizer as LLaMA-2 has it: pieces by score, bytes for the rest."""
    words = ["▁the", "▁neuron", "▁one", "▁two", "▁kept", "▁re", "ceived", "▁n", "on"]
    letters = sorted({letter for word in words for letter in word})
    pieces = list(PIECES) + letters
    known = set(letters)
    for word in words:  # every beginning is a piece, shorter ones have better scores
        for end in range(2, len(word) + 1):
            if word[:end] not in known:
                known.add(word[:end])
                pieces.append(word[:end])
    rank = {piece: number for number, piece in enumerate(pieces)}
    merges = [
        (rank[piece], (piece[:cut], piece[cut:]))
        for piece in pieces[len(PIECES) + len(letters) :]
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]
    merges = [pair for _, pair in sorted(merges, key=lambda merge: merge[0])]
    model = models.BPE(
        rank, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    tokenizer = Tokenizer(model)
    steps = [normalizers.Prepend("▁")] * prepend + [normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def byte_level(splitter=None):
    """A tokenizer as GPT-2 has it, of all bytes and some words."""
    words = ["Ġthe", "Ġneuron", "Ġone", "Ġkept", "Ġ12", "don", "Ã¼b"]
    pieces = ["<|start|>", "<|end|>", "<tool>"]
    pieces += sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                pieces.append(word[:end])
                merges.append((word[: end - 1], word[end - 1]))
    tokenizer = Tokenizer(models.BPE({p: n for n, p in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = splitter or LEVEL
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|start|>", "<|end|>"])
    tokenizer.add_tokens(["<tool>"])
    special = {"bos_token": "<|start|>", "eos_token": "<|end|>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
SPLITTERS = {
    "gpt-2": LEVEL,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), LEVEL]),
}


def folder_with(tokenizer, place):
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.mark.parametrize("name", [*SPLITTERS, "pieces", "no space"])
def test_every_kind_of_tokenizer_gives_llama_cpp_the_same_tokens(name, tmp_path):
    if name in SPLITTERS:
        tokenizer = byte_level(SPLITTERS[name])
    else:
        tokenizer = sentence_pieces(prepend=name == "pieces")
    folder = folder_with(tokenizer, tmp_path / "model")
    export_gguf(folder, tmp_path / "a.gguf")
    fields = gguf.GGUFReader(tmp_path / "a.gguf").fields
    pre = fields["tokenizer.ggml.pre"].contents()
    assert pre == (name if name in SPLITTERS else "default")
    pytest.importorskip("llama_cpp")
    texts = [TEXT, "the neuron one", "two kept  neurons received", "12 123 x12"]
    texts.append("one" + tokenizer.eos_token + "kept")
    with llama(tmp_path / "a.gguf") as model:
        for text in texts:
            found = model.tokenize(text.encode(), add_bos=True, special=True)
            assert found == tokenizer(text)["input_ids"], text


def test_what_the_export_cannot_express_is_refused_in_one_line(tmp_path):
    wrong = {
        "pre_tokenizer": byte_level(pre_tokenizers.Whitespace()),
        "normalizer": byte_level(LEVEL),
    }
    wrong["normalizer"].backend_tokenizer.normalizer = normalizers.NFC()
    for part, tokenizer in wrong.items():
        folder = folder_with(tokenizer, tmp_path / part)
        with pytest.raises(ValueError, match=f"tokenizer.json has the {part}") as error:
            export_gguf(folder, tmp_path / "a.gguf")
        assert len(str(error.value)) < 400 and "\n" not in str(error.value)
    folder = folder_with(sentence_pieces(), tmp_path / "merges")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"].remove(["▁o", "n"])  # "on" is a piece, too
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="the merges without .*▁o.*n"):
        export_gguf(folder, tmp_path / "a.gguf")
    assert list(tmp_path.glob("*.gguf")) == []


# -- what is refused


def refusal(folder, file, **options):
    with pytest.raises(ValueError) as error:
        export_gguf(folder, file, **options)
    assert not file.exists() or file.read_bytes() == b"mine"
    return str(error.value)


def test_refusals_name_what_is_wrong_and_the_remedy(saved, tmp_path):
    file, llama_folder = tmp_path / "a.gguf", saved["even", "plain"]
    assert "kind is 'q4_0'; give one of f16" in refusal(llama_folder, file, kind="q4_0")
    assert "holds no config.json" in refusal(tmp_path / "nowhere", file)
    assert "does not exist" in refusal(llama_folder, tmp_path / "no" / "a.gguf")
    (tmp_path / "taken.gguf").write_bytes(b"mine")
    assert "which exists" in refusal(llama_folder, tmp_path / "taken.gguf")
    generator = torch.Generator().manual_seed(0)
    tiny_model("gemma", generator=generator).save_pretrained(tmp_path / "gemma")
    assert "family 'gemma'; only 'llama'" in refusal(tmp_path / "gemma", file)
    shape = {"hidden_size": 32, "head_dim": 16, "vocab_size": 64}
    model = tiny_model("llama", generator=generator, **shape)
    model.save_pretrained(tmp_path / "bare")
    assert "holds no tokenizer.json" in refusal(tmp_path / "bare", file)
    message = refusal(tmp_path / "bare", file, kind="q8_0")
    assert "rows of 12, no multiple of 32" in message and "multiple=32" in message
    byte_level().save_pretrained(tmp_path / "bare")
    assert "embedding has 64 rows" in refusal(tmp_path / "bare", file)
    for field, value in (("hidden_act", "gelu"), ("rope_type", "yarn")):
        config = json.loads((llama_folder / "config.json").read_text())
        rope = config["rope_parameters"] | {"factor": 2.0}
        config |= {"rope_scaling": None, "rope_parameters": rope}
        (config if field in config else rope)[field] = value
        other = tmp_path / field
        other.mkdir()
        for path in llama_folder.iterdir():
            (other / path.name).symlink_to(path)
        (other / "config.json").unlink()
        (other / "config.json").write_text(json.dumps(config))
        assert f"whose {field} is '{value}'" in refusal(other, file)


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_a_weight_that_the_type_cannot_hold_leaves_no_file(value, saved, tmp_path):
    model = load_pruned(saved["even", "plain"])
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = value
    rows = [list(range(64))] * 2
    tokenizer = byte_level()
    folder = save_pruned(model, tokenizer, tmp_path / "model", rows)
    message = refusal(folder, tmp_path / "a.gguf", kind="f16")
    assert "layers.1.mlp.up_proj" in message or "blk.1.ffn_up" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    if value == 1e5:
        export_gguf(folder, tmp_path / "a.gguf", kind="f32")


def test_without_the_package_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ValueError, match=r"pip install 'prunefair\[gguf\]'"):
        prunefair.export.export_gguf(tmp_path, tmp_path / "a.gguf")


def test_the_command_exports_and_says_what(saved, tmp_path, capsys):
    folder, file = saved["uneven", "plain"], tmp_path / "a.gguf"
    arguments = ["export", str(folder), "--gguf", str(file), "--type"]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments, "q8_0", "--json"])
    assert stopped.value.code in (0, None)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["feed_forward_length"] == [32, 96] and result["type"] == "q8_0"
    assert file.stat().st_size == result["bytes"]
    for wrong, message in (
        ([*arguments, "q5"], "--type is 'q5'; give one of f16, q8_0, f32"),
        (
            ["export", "no/such", "--gguf", "x"],
            "FOLDER is 'no/such', which holds no config",
        ),
        (
            [*arguments, "f16"],
            f"is {shown(str(file))}, which exists; choose another name",
        ),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(wrong)
        assert stopped.value.code == 2
        err = capsys.readouterr().err
        assert message in err and "Traceback" not in err


# -- the real model


@needs_llama
@pytest.mark.parametrize("shape", ["dense", "even", "uneven"])
def test_the_small_real_model_writes_the_same_continuation_in_llama_cpp(
    shape, tmp_path
):
    model, tokenizer = load_model("smollm2"), load_tokenizer("smollm2")
    folder = model_source("smollm2")
    if shape != "dense":
        sizes = [len(matrix) for matrix in row_matrices(model)]
        ratios = [0.1, 0.05, 0.0] * 10 if shape == "uneven" else [0.1] * 30
        downs = [layer.mlp.down_proj.weight for layer in model.model.layers]
        kept = [
            down.norm(dim=0).topk(rows_to_keep(m, ratio, 32)).indices.sort().values
            for down, m, ratio in zip(downs, sizes, ratios)
        ]
        model = prune_rows(model, kept)
        folder = save_pruned(model, tokenizer, tmp_path / "model", kept)
    export_gguf(folder, tmp_path / "a.gguf")
    prompt = tokenizer("The first thing to know about neurons is", return_tensors="pt")
    options = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0}
    written = model.generate(**prompt, **options)
    expected = logits(model, written)[0].numpy()
    with llama(tmp_path / "a.gguf") as other:
        other.eval(written[0].tolist())
        found = other.scores[: written.shape[1]].copy()
        other.reset()
        start = prompt["input_ids"][0].tolist()
        tokens = other.generate(start, temp=0)
        again = [next(tokens) for _ in range(written.shape[1] - len(start))]
    error = np.abs(found - expected).max()
    print(f"{shape}: logits differ by {error:.3f} of {expected.std():.2f}")
    assert again == written[0, len(start) :].tolist()
    assert error < 0.1 * expected.std()
