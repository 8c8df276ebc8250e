"""Recovery from folder to folder: what is written, said, taken up again and refused."""

import dataclasses
import inspect
import json
import re

import pytest
import torch
import typer

import prunefair
from prunefair import cli
from prunefair.models import load_tokenizer
from prunefair.pipelines import _room, fine_tune
from prunefair.pruning import self_distillation
from prunefair.pruning.folders import export_padded, load_pruned, save_pruned
from prunefair.pruning.layered import FolderStore
from prunefair.pruning.perplexity import kl_to_dense, self_sample
from prunefair.pruning.recovery import RecoveryPlan
from prunefair.pruning.self_distillation import DistillationPlan
from prunefair.pruning.surgery import prune_rows, tiny_model

ROWS = [[0, 3, 4, 7, 9], [1, 2, 6, 8, 10, 11]]  # widths of their own
RECORD = {"base_model": "some/model", "method": "functional", "ratio": 0.5, "seed": 3}
FAST = {"tokens": 12 * 1024, "learning_rate": 0.02}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of a small dense model without a tokenizer, and of what is left of it."""
    place = tmp_path_factory.mktemp("models")
    dense = tiny_model("llama", generator=seeded(1))
    for weight in dense.parameters():
        if weight.ndim == 2:
            weight.data.mul_(3)
    dense.save_pretrained(place / "dense")
    pruned = prune_rows(dense, ROWS)
    record = RECORD | {"ks_mean": 0.1, "base_license": "mit"}
    save_pruned(pruned, None, place / "pruned", ROWS, record)
    return place / "dense", place / "pruned"


def files(path):
    return {p.name: p.read_bytes() for p in path.iterdir()}


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        cli.main([str(a) for a in arguments])
    return end.value.code


@pytest.fixture(scope="module")
def recovered(folders, tmp_path_factory):
    dense, pruned = folders
    out = tmp_path_factory.mktemp("recovered") / "out"
    return prunefair.distill(pruned, dense, out=out, **FAST)


def test_a_folder_of_uneven_widths_comes_nearer_to_the_dense_model(folders, recovered):
    dense, pruned = map(load_pruned, folders)
    again = load_pruned(recovered.out)
    assert [len(b.mlp.up_proj.weight) for b in again.model.layers] == [5, 6]
    texts = self_sample(dense, 32, 24, generator=seeded(5))
    before, after = (kl_to_dense(dense, model, texts) for model in (pruned, again))
    assert after < 0.6 * before
    assert recovered.divergence_after < 0.6 * recovered.divergence_before
    for name, weight in recovered.model.named_parameters():
        assert torch.equal(weight, again.get_parameter(name))
    looks = [look["divergence"] for look in recovered.curve]
    assert recovered.divergence_before == looks[0]
    assert recovered.divergence_after == min(looks)


def test_the_folder_says_how_it_came_about(recovered):
    card = (recovered.out / "README.md").read_text(encoding="utf-8")
    assert "what is left was trained again" in card
    assert "| tokens of that training | 12288 |" in card
    assert "on text that the base model samples itself" in card
    assert f"| the same after it | {recovered.divergence_after:.3g} |" in card
    record = json.loads((recovered.out / "kept_rows.json").read_text())
    assert record["kept"] == ROWS and record["base_license"] == "mit"
    assert RECORD.items() <= record.items()
    assert "ks_mean" not in record  # of the weights before
    assert record["recovery"] == "own" and "recovery_rank" not in record


def test_the_command_writes_and_reports_what_the_call_does(
    folders, recovered, tmp_path, capsys
):
    dense, pruned = folders
    options = [f"--{k.replace('_', '-')}={v}" for k, v in FAST.items()]
    options += ["--against", dense, "--out", tmp_path / "out", "--json"]
    assert not run("recover", pruned, *options)
    assert files(tmp_path / "out") == files(recovered.out)
    printed = json.loads(capsys.readouterr().out)
    summary = json.loads(json.dumps(recovered.summary()))
    for key in ("out", "seconds_total"):
        assert printed.pop(key) is not None and summary.pop(key) is not None
    assert printed == summary
    assert {"divergence_before", "divergence_after", "n_trained"} <= printed.keys()


class Killed(Exception):
    pass


def test_an_interrupted_command_goes_on_to_the_same_bytes(
    folders, recovered, tmp_path, monkeypatch, capsys
):
    dense, pruned = folders
    options = [f"--{k.replace('_', '-')}={v}" for k, v in FAST.items()]
    options += [
        "--against",
        dense,
        "--out",
        tmp_path / "out",
        "--state",
        tmp_path / "s",
    ]
    put = FolderStore.put

    def dying(self, name, **tensors):
        if name == "run" and tensors["progress"][0] > 8:
            raise Killed
        put(self, name, **tensors)

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put", dying)
        with pytest.raises(Killed):
            cli.main(["recover", str(pruned), *map(str, options)])
    assert not (tmp_path / "out").exists()
    assert not run("recover", pruned, *options)
    assert files(tmp_path / "out") == files(recovered.out)
    capsys.readouterr()
    options[options.index(tmp_path / "out")] = tmp_path / "other"
    assert run("recover", pruned, *options, "--seed", 1) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.search("--state is '.*', which holds training of the seed 0, not 1", line)


def test_what_is_not_given_is_what_the_plan_has_and_the_help_says(folders, tmp_path):
    dense, pruned = folders
    few = {"tokens": 1024, "state": tmp_path / "run"}
    prunefair.distill(pruned, dense, **few)
    stored = json.loads((tmp_path / "run" / "training.json").read_text())
    plan = dataclasses.asdict(DistillationPlan(tokens=1024))
    assert plan | stored == stored | {"tokens": 1024}
    command = typer.main.get_command(cli.app).commands["recover"]
    (rate,) = (p.help for p in command.params if p.name == "learning_rate")
    plans = {prunefair.distill: DistillationPlan(), fine_tune: RecoveryPlan()}
    for function, plan in plans.items():
        given = inspect.signature(function).parameters["learning_rate"].default
        assert given in (None, plan.learning_rate)
        assert f"{plan.learning_rate:.4f}" in rate


def test_a_run_that_helps_nothing_says_so_and_keeps_the_weights(
    folders, tmp_path, caplog
):
    dense, _ = folders
    few = {"tokens": 1024, "learning_rate": 1e-3}
    report = prunefair.distill(dense, dense, out=tmp_path / "out", **few)
    assert "no look came nearer to the dense model" in caplog.text
    assert report.divergence_after == report.divergence_before
    given = load_pruned(dense).state_dict()
    for name, weight in load_pruned(tmp_path / "out").state_dict().items():
        assert torch.equal(weight, given[name])


def test_who_interrupts_is_told_from_where_the_command_goes_on(
    folders, tmp_path, monkeypatch, capsys
):
    dense, pruned = folders

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(FolderStore, "put", interrupted)
    monkeypatch.chdir(tmp_path)
    place = ("--against", dense, "--out", "out", "--state", "s")
    assert run("recover", pruned, *place) == 130
    lines = capsys.readouterr().err.splitlines()
    assert "interrupted; the same command goes on from 's'" in lines
    assert not (tmp_path / "out").exists()


def test_adapters_are_merged_and_the_card_names_their_rank(folders, tmp_path):
    dense, pruned = folders
    report = prunefair.distill(pruned, dense, rank=2, out=tmp_path / "out", **FAST)
    assert report.divergence_after < 0.8 * report.divergence_before
    assert report.n_trained < sum(p.numel() for p in report.model.parameters()) / 2
    assert load_pruned(report.out).num_parameters() == report.model.num_parameters()
    card = (report.out / "README.md").read_text(encoding="utf-8")
    assert "| rank of its adapters, which are merged | 2 |" in card


def test_models_in_memory_stay_as_they_were(folders):
    dense, pruned = map(load_pruned, folders)
    before = {name: value.clone() for name, value in pruned.state_dict().items()}
    with torch.inference_mode():
        report = prunefair.distill(pruned, dense, **FAST)
    assert report.out is None and report.divergence_after < report.divergence_before
    for name, value in pruned.state_dict().items():
        assert torch.equal(value, before[name])
    assert len(repr(report)) < 1000


def test_a_folder_of_another_tool_keeps_its_own_rows(folders, tmp_path):
    dense, _ = folders
    options = {"tokens": 1024, "out": tmp_path / "out", "learning_rate": 1e-6}
    prunefair.distill(dense, dense, **options)
    record = json.loads((tmp_path / "out" / "kept_rows.json").read_text())
    assert record["base_model"] == "dense"
    assert record["kept"] == [[*range(12)]] * 2


def test_the_papers_recovery_reads_wikitext_and_says_so(tmp_path):
    model = tiny_model("llama", generator=seeded(), vocab_size=49152)
    tokenizer, out = load_tokenizer("smollm2"), tmp_path / "out"
    report = fine_tune(model, tokenizer=tokenizer, tokens=512, rank=1, out=out)
    assert report.text == "wikitext" and report.against is None
    assert report.tokens == 512 and len(report.curve) == 2
    assert "on WikiText-2 validation" in (out / "README.md").read_text("utf-8")
    with pytest.raises(ValueError, match="tokenizer is None, but model is a model in"):
        fine_tune(model)
    with pytest.raises(ValueError, match="tokens is 255; give a whole number at least"):
        fine_tune(model, tokenizer=tokenizer, tokens=255)


BAD = {
    "against": ((), "--against is missing; name the dense model, or give --text wik"),
    "word": (("--text", "news"), "--text is 'news'; give own or wikitext"),
    "tokens": (
        ("--against", "DENSE", "--tokens", "99"),
        "--tokens is 99, fewer than the 1024 of one step; give more",
    ),
    "tokens-word": (("--against", "DENSE", "--tokens", "many"), "'--tokens'.*'many'"),
    "rank": (("--against", "DENSE", "--lora", "0"), "'--lora'.*'0'.*at least 1"),
    "rate": (
        ("--against", "DENSE", "--learning-rate", "0"),
        "--learning-rate is 0.0; give a positive number",
    ),
    "teacher-of-a-text": (
        ("--against", "DENSE", "--text", "wikitext"),
        "--against is '.*', which --text wikitext does not read; leave it out",
    ),
    "state-of-a-text": (
        ("--state", "s", "--text", "wikitext"),
        "--state is 's', which --text wikitext does not read; leave it out",
    ),
    "data": (
        ("--against", "DENSE", "--data", "d"),
        "--data is 'd', which --text own does not read; leave it out",
    ),
    "state": (
        ("--against", "DENSE", "--state", "OUT/s"),
        "--state is '.*' and --out '.*': one would be in the place of the other",
    ),
    "vocabulary": (
        ("--against", "OTHER"),
        "--against chooses among 40 tokens and MODEL among 32; give the model that",
    ),
    "no-model": (("--against", "no/such"), "--against is 'no/such'.*give 'smollm2'"),
    "device": (
        ("--against", "DENSE", "--device", "abacus"),
        "--device is 'abacus'.*give 'cpu'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_before_the_work(
    name, folders, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(self_distillation, "self_sample", pytest.fail)
    dense, pruned = folders
    tiny_model("llama", generator=seeded(), vocab_size=40).save_pretrained("other")
    options, pattern = BAD[name]
    places = {"DENSE": dense, "OTHER": "other", "OUT/s": "out/s"}
    words = [places.get(word, word) for word in options]
    assert run("recover", pruned, "--out", "out", *words) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert re.search(pattern, line) and len(line) <= 300 and not said.out
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


def test_rows_that_do_not_fit_the_weights_are_told_before_the_work(
    folders, tmp_path, monkeypatch
):
    monkeypatch.setattr(self_distillation, "self_sample", pytest.fail)
    dense, _ = folders
    model = prune_rows(load_pruned(dense), [[0, 1, 2]] * 2)
    folder = save_pruned(model, None, tmp_path / "pruned", [[0, 1, 2]] * 2)
    for kept in ([[0, 1], [0, 1, 2]], None, 3):
        (folder / "kept_rows.json").write_text(
            json.dumps({"kept": kept, "widths": [3, 3]})
        )
        with pytest.raises(ValueError, match="whose kept_rows.json does not fit it"):
            prunefair.distill(folder, dense, out=tmp_path / "out")


def test_a_padded_folder_is_not_trained_but_what_it_was_made_from(folders, tmp_path):
    dense, pruned = folders
    export_padded(pruned, tmp_path / "padded")
    with pytest.raises(
        ValueError, match="filled up with neurons of zeros; recover the"
    ):
        prunefair.distill(tmp_path / "padded", dense, out=tmp_path / "out")


def test_a_training_that_memory_does_not_hold_is_refused_with_what_would_fit(
    folders, monkeypatch
):
    dense, pruned = map(load_pruned, folders)
    size = sum(m.num_parameters() * 4 for m in (dense, pruned))
    monkeypatch.setattr(self_distillation, "self_sample", pytest.fail)
    monkeypatch.setattr(_room, "free_bytes", lambda _: size + 10_000)
    with pytest.raises(ValueError, match="device is 'cpu', which has .* free .*rank=8"):
        prunefair.distill(pruned, dense)
    monkeypatch.setattr(_room, "free_bytes", lambda _: size)
    with pytest.raises(ValueError, match="give a device with more memory$"):
        prunefair.distill(pruned, dense, rank=1)
