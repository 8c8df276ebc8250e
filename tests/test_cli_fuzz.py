"""Whatever the command line is given, it ends well or with one line, and tidily.

Every example is one call with options and folders from the tables below, most of them
odd.  `PRUNEFAIR_FUZZ=5000` makes so many calls of each command, by other seeds.
"""

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path
from unittest import mock

import hypothesis.strategies as st
import pytest
import requests
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from prunefair import cli
from prunefair.data import data_file
from prunefair.pruning.folders import save_pruned
from prunefair.pruning.functional_policy import FunctionalPolicy
from prunefair.pruning.row_policy import RowPolicy, save_policy
from prunefair.pruning.surgery import slice_ffn_, tiny_model

pytestmark = pytest.mark.usefixtures("short_texts")
MORE = int(os.environ.get("PRUNEFAIR_FUZZ", 0))
CONFIGS = {  # what stands in config.json instead of what belongs there
    "family-unknown": {"model_type": "abacus"},
    "family-without-adapter": {"model_type": "bloom"},
    "family-encoder": {"model_type": "bert"},
    "family-state-space": {"model_type": "mamba"},
    "family-number": {"model_type": 7},
    "family-list": {"model_type": ["llama"]},
    "code": {"auto_map": {"AutoModelForCausalLM": "code.Model"}, "model_type": "x"},
    "quantised": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    "quantised-null": {"quantization_config": {}},
    "hidden-negative": {"hidden_size": -8},
    "hidden-zero": {"hidden_size": 0},
    "hidden-other": {"hidden_size": 16},
    "hidden-text": {"hidden_size": "8"},
    "hidden-null": {"hidden_size": None},
    "hidden-huge": {"hidden_size": 10**15},
    "width-other": {"intermediate_size": 11},
    "width-huge": {"intermediate_size": 10**12},
    "width-list": {"intermediate_size": [12, 12]},
    "layers-none": {"num_hidden_layers": 0},
    "layers-more": {"num_hidden_layers": 3},
    "layers-fewer": {"num_hidden_layers": 1},
    "layers-many": {"num_hidden_layers": 10**9},
    "layers-text": {"num_hidden_layers": "two"},
    "heads-zero": {"num_attention_heads": 0},
    "heads-odd": {"num_attention_heads": 3},
    "act-unknown": {"hidden_act": "swiglu"},
    "dtype-unknown": {"dtype": "float99"},
    "dtype-number": {"torch_dtype": 3, "dtype": 3},
    "vocab-other": {"vocab_size": 31},
    "vocab-negative": {"vocab_size": -1},
    "rope-odd": {"rope_parameters": {"rope_type": "spiral"}},
    "rope-list": {"rope_parameters": [1, 2]},
    "eps-text": {"rms_norm_eps": "small"},
    "layers-own": {"per_layer_config": {"0": {"intermediate_size": 5}}},
    "layers-own-odd": {"per_layer_config": [None]},
    "record-odd": {"prunefair": ["x"]},
    "tied": {"tie_word_embeddings": "maybe"},
    "architectures": {"architectures": 5},
}
FILES = {  # what stands in a file instead of what belongs there
    "config-empty": ("config.json", b""),
    "config-list": ("config.json", b"[]"),
    "config-null": ("config.json", b"null"),
    "config-deep": ("config.json", b"[" * 100_000),
    "config-bytes": ("config.json", b"\xff\xfe{"),
    "generation-odd": ("generation_config.json", b'{"temperature": "warm"}'),
    "generation-list": ("generation_config.json", b"[1]"),
    "weights-empty": ("model.safetensors", b""),
    "weights-text": ("model.safetensors", b"not weights " * 99),
    "weights-header": ("model.safetensors", (99).to_bytes(8, "little") + b"{" * 99),
    "index-null": ("model.safetensors.index.json", b'{"weight_map": null}'),
    "index-bare": ("model.safetensors.index.json", b"{}"),
    "index-lost": ("model.safetensors.index.json", b'{"weight_map": {"a": "gone"}}'),
    "tokenizer-bare": ("tokenizer.json", b"{}"),
    "tokenizer-text": ("tokenizer.json", b"no"),
    "tokenizer-config-list": ("tokenizer_config.json", b"[]"),
    "tokenizer-class": ("tokenizer_config.json", b'{"tokenizer_class": "Abacus"}'),
    "kept-list": ("kept_rows.json", b"[]"),
    "kept-null": ("kept_rows.json", b'{"widths": null}'),
    "kept-negative": ("kept_rows.json", b'{"widths": [-1, 4]}'),
    "kept-huge": ("kept_rows.json", b'{"widths": [100000000000, 4]}'),
    "kept-one": ("kept_rows.json", b'{"widths": [12]}'),
    "adapter": ("adapter_config.json", b'{"peft_type": "LORA"}'),
    "card-odd": ("README.md", b"---\nlicense: [\xff\n---\n"),
}
GOOD = ("llama", "opt", "phi", "gpt_neox", "gemma2", "uneven")
ODD_NAMES = ("", ".", "no/such", "nobody/model", "a b!", "x" * 300, "ü\n", "\udcff")
MODELS = (*GOOD, *CONFIGS, *FILES, "nan", "cut", "pickled", "bare", "file", "lost-link")
POLICIES = ("spectral", "functional", "wrong-shape", "nan-policy", "headless")
POLICIES += ("header-list", "file", "model", "new-policy", "no/such/policy", "out", "")
OUTS = ("out", "deep/er/out", "empty", ".", "full", "file", "file/out", "/proc/out")
OUTS += ("", "n" * 300, "ü ö", "a\nb", "\udcff", "out/policy", "new-policy/out")
NUMBERS = ("0", "1", "2", "-1", "1.5", "nan", "inf", "1e400", "x", "", "٣", "1_0")
NUMBERS += ("9" * 30, "9" * 5000, str(2**63), str(2**64), "0x10")


RATINGS = {
    "ratings": "".join(f"{u},{1 + u % 2},{1 + u % 5},9\n" for u in range(90)),
    "ratings-none": "",
    "ratings-odd": "a,b\n1,,3,4\n\x00\n",
    "ratings-few": "1,1,4.0,9\n",
    "ratings-huge": "1,1,4.0,9" + "9" * 400 + "\n",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folder of tiny models, whole and broken, policies and ratings."""
    folder = tmp_path_factory.mktemp("world")
    data_file("wikitext2/test.txt")  # while the network may be asked
    generator = torch.Generator().manual_seed(0)
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, "the": 3, "=": 4, ",": 5}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    kept = [[0, 3, 5], [1, 2, 8, 10]]
    for family in GOOD[:-1]:
        model = tiny_model(family, generator=generator)
        model.save_pretrained(folder / family)
        tokenizer.save_pretrained(folder / family)
    model = slice_ffn_(tiny_model("llama", generator=generator), kept)
    save_pruned(model, tokenizer, folder / "uneven", kept)

    def broken(name):
        return Path(shutil.copytree(folder / "llama", folder / name))

    config = json.loads((folder / "llama" / "config.json").read_text())
    for name, change in CONFIGS.items():
        (broken(name) / "config.json").write_text(json.dumps(config | change))
    for name, (file, content) in FILES.items():
        if file == "model.safetensors.index.json":
            (broken(name) / "model.safetensors").unlink()
        else:
            broken(name)
        (folder / name / file).write_bytes(content)
    weights = load_file(folder / "llama" / "model.safetensors")
    first = next(name for name in weights if "up_proj" in name)
    bad = weights | {first: weights[first] * float("nan")}
    save_file(bad, broken("nan") / "model.safetensors", {"format": "pt"})
    with open(broken("cut") / "model.safetensors", "rb+") as file:
        file.truncate(3000)
    (broken("pickled") / "model.safetensors").rename(
        folder / "pickled" / "pytorch_model.bin"
    )
    for path in broken("bare").iterdir():
        if path.name != "config.json":
            path.unlink()
    save_policy(RowPolicy(), folder / "spectral")
    save_policy(FunctionalPolicy(), folder / "functional")
    header = {"policy": '{"format": "prunefair row policy 1", "features": []}'}
    save_file({"weights": torch.zeros(4)}, folder / "wrong-shape", header)
    policy = load_file(folder / "spectral")
    with open(folder / "spectral", "rb") as file:
        text = file.read(int.from_bytes(file.read(8), "little"))
    header = json.loads(text)["__metadata__"]
    save_file(
        {"weights": policy["weights"] * float("nan")}, folder / "nan-policy", header
    )
    save_file(policy, folder / "headless")
    save_file(policy, folder / "header-list", {"policy": "[1]"})
    (folder / "model").symlink_to(folder / "llama" / "model.safetensors")
    (folder / "file").write_text("a file")
    (folder / "lost-link").symlink_to("nowhere")
    for name, ratings in RATINGS.items():
        (folder / name).mkdir()
        (folder / name / "movies.csv").write_text(
            "movieId,title,genres\n1,A,War|IMAX\n2,B,Drama\n"
        )
        rows = f"userId,movieId,rating,timestamp\n{ratings}"
        (folder / name / "ratings.csv").write_text(rows)
    return folder


class Untouched(io.RawIOBase):
    """Standard input that fails the test if it is asked for anything."""

    def readable(self):
        pytest.fail("standard input was read")

    readline = read = readinto = isatty = fileno = readable


def tree(folder):
    """Everything in a folder, and when its files were written."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {p: None if p.is_dir() else s.st_mtime_ns for p, s in found.items()}


def called(world, place, arguments):
    """Run the command in a fresh folder of a few files; give status and output."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "full").mkdir(parents=True)
    (place / "empty").mkdir()
    (place / "full" / "precious").write_text("kept")
    (place / "file").write_text("a file")
    places = {name: str(world / name) for name in (*MODELS, *POLICIES, *RATINGS)}
    places |= {name: name for name in OUTS} | {"": "", "new-policy": "new-policy"}
    words = [places.get(word, word) for word in arguments]
    before, models = tree(place), tree(world)
    out, err, here = io.StringIO(), io.StringIO(), os.getcwd()
    unreachable = mock.patch("pooch.retrieve", side_effect=requests.ConnectionError)
    with (
        unreachable,
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "stdin", Untouched()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        os.chdir(place)
        try:
            with pytest.raises(SystemExit) as stopped:
                cli.main(words)
        finally:
            os.chdir(here)
    assert tree(world) == models, "the input was changed"
    status = stopped.value.code or 0
    if status:
        assert tree(place) == before, "something was left behind"
    return status, out.getvalue(), err.getvalue()


def judge(world, place, arguments):
    status, out, err = called(world, place, arguments)
    assert status in (0, 2) and "Traceback" not in err
    if status == 0:
        if "--json" in arguments and "--help" not in arguments:
            json.loads(out.splitlines()[-1], parse_constant=pytest.fail)
        return
    *others, last = err.rstrip("\n").split("\n")
    others = [line for line in others if not line.startswith("MODEL has ")]  # a note
    assert last.startswith("error: ") and 10 < len(last) <= 300, last
    assert not others, others
    assert out == ""


MODEL = st.one_of(st.sampled_from(GOOD), st.sampled_from((*MODELS, *ODD_NAMES)))
OUT = st.one_of(st.sampled_from(OUTS[:4]), st.sampled_from(OUTS))
ANY = {
    "--seed": NUMBERS,
    "--device": ("cpu", "", "meta", "abacus", "cuda:99", "cpu:-1"),
    "--json": (None,),
    "--help": (None,),
    "--nonsense": (None,),
    "stray": (None,),
    "--": (None,),
}
PRUNE = {
    "--ratio": (*NUMBERS, "0.3", "0.99", "0.05"),
    "--method": ("", "functional", "spectral", "kl"),
    "--spectra": ("", "exact", "lanczos", "fast"),
    "--widths": ("equal", "uneven", "odd"),
    "--multiple": (*NUMBERS, "4", "12", "13"),
    "--policy": POLICIES,
    "--geometry": ("", "tiny", "abacus", "tiny"),
    "--no-refit": (None,),
    "--reconstruct": (None,),
    "--reconstruct-steps": ("0", "3", "-1", "x"),
    "--texts": ("2", "1", "x", "-1"),
    "--episodes": ("1", "0", "x", "1.5"),
    "--choice": ("policy", "energy", "best"),
    "--parameters": (*NUMBERS, "1500", "1e9"),
    "--bytes": (*NUMBERS, "6000"),
    "--offload": ("", "sums", "model"),
}
EVALUATE = {
    "--against": (*MODELS, *ODD_NAMES),
    "--tasks": ("piqa", "mmlu_philosophy", "no", ",", "piqa,,piqa", "\x00"),
    "--limit": ("1", "0", "-1", "x", "1e9"),
    "--data": ("ratings", "no/such", "file", "", "\udcff"),
}
BANDITS = {
    "--data": (*RATINGS, "no/such", "file", "", "\udcff"),
    "--dataset": ("ml-latest-small", "ml-25m", "abacus", ""),
    "--policies": ("uniform", "no", ",", "uniform,uniform"),
    "--alpha": (*NUMBERS, "0.5", "1e-300", "0.999999"),
    "--feedback": ("full", "bandit", "", "none"),
    "--rounds": (*NUMBERS, "20", "76"),
    "--users": (*NUMBERS, "2", "76"),
    "--small-reward": (*NUMBERS, "0.01"),
    "--malformed": ("error", "drop", "", "none"),
    "--timings": (None,),
}
RECOVER = {
    "--against": (*MODELS, *ODD_NAMES),
    "--text": ("own", "wikitext", "news", ""),
    "--tokens": (*NUMBERS, "2048", "2047"),
    "--lora": ("1", "0", "x", "-1"),
    "--learning-rate": (*NUMBERS, "0.01"),
    "--state": ("", "state", "out"),
    "--data": ("ratings", "no/such"),
}
EXPORT = {
    "--gguf": OUTS,
    "--padded": OUTS,
    "--type": ("f16", "q8_0", "f32", "q4_k", "", "\x00"),
}


def extras(table):
    """Up to three options of a table with a value each; the last of a name counts."""
    table = table | ANY
    pair = st.sampled_from([*table]).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(table[name]))
    )
    return st.lists(pair, max_size=3).map(
        lambda pairs: tuple(word for pair in pairs for word in pair if word is not None)
    )


CALLS = {
    "prune": st.tuples(MODEL, OUT, extras(PRUNE)).map(
        lambda p: (
            ("prune", p[0], "--ratio", "0.3", "--out", p[1])
            + ("--episodes", "1", "--texts", "2", *p[2])
        )
    ),
    "evaluate": st.tuples(MODEL, extras(EVALUATE)).map(
        lambda p: ("evaluate", p[0], "--tasks", "", "--limit", "1", *p[1])
    ),
    "bandits": extras(BANDITS).map(
        lambda p: ("bandits", "--data", "ratings", "--rounds", "9", *p)
    ),
    "recover": st.tuples(MODEL, OUT, extras(RECOVER)).map(
        lambda p: (
            ("recover", p[0], "--against", "llama", "--tokens", "2048")
            + ("--out", p[1], *p[2])
        )
    ),
    "export": st.tuples(
        MODEL, st.sampled_from(("--gguf", "--padded")), OUT, extras(EXPORT)
    ).map(lambda p: ("export", *p[:3], *p[3])),
    "anything": st.lists(
        st.sampled_from(
            (
                "prune",
                "evaluate",
                "bandits",
                "export",
                "recover",
                "",
                "--help",
                "-",
                "--ratio",
                "--out",
            )
            + ("out", "llama", "0.3", "\x1b[31m", "\n", "x" * 400, "--json", "-h")
        ),
        max_size=5,
    ),
}
EXAMPLES = {"prune": 150, "evaluate": 30, "recover": 40, "bandits": 60, "export": 40}
EXAMPLES["anything"] = 40


@pytest.mark.parametrize("command", CALLS)
def test_every_call_ends_well_or_with_one_line_and_leaves_nothing_half_done(
    command, world, tmp_path
):
    @settings(
        max_examples=MORE or EXAMPLES[command],
        derandomize=not MORE,
        database=None,
        suppress_health_check=[*HealthCheck],
    )
    @given(CALLS[command])
    def check(arguments):
        judge(world, tmp_path / "here", arguments)

    check()
