"""The main jobs from Python: the same as from the command line, in Python's words."""

import copy
import json
import logging
import threading

import cvxpy as cp
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForSequenceClassification

import prunefair
from prunefair import cli, messages, model_card
from prunefair.fairness.simulation import RewardStream
from prunefair.models import alone, load_tokenizer
from prunefair.pruning.recovery import RecoveryPlan
from prunefair.pruning.row_policy import RowPolicy
from prunefair.pruning.surgery import tiny_model

pytestmark = pytest.mark.usefixtures("short_texts")
FEW = {"episodes": 2, "texts": 4, "seed": 7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of a tiny random LLaMA with the small real model's tokenizer."""
    path = tmp_path_factory.mktemp("dense") / "tiny"
    generator = torch.Generator().manual_seed(0)
    tiny_model("llama", generator=generator, vocab_size=49152).save_pretrained(path)
    load_tokenizer("smollm2").save_pretrained(path)
    return path


def files(path):
    return {p.name: p.read_bytes() for p in path.iterdir()}


@pytest.mark.parametrize("method", ["functional", "spectral"])
def test_a_call_writes_and_reports_what_the_command_does(
    method, folder, tmp_path, capsys
):
    report = prunefair.prune(folder, 0.4, out=tmp_path / "a", method=method, **FEW)
    options = [f"--{name}={value}" for name, value in FEW.items()]
    options += ["--ratio=0.4", "--method", method, "--json"]
    with pytest.raises(SystemExit):
        cli.main(["prune", str(folder), "--out", str(tmp_path / "b"), *options])
    printed = json.loads(capsys.readouterr().out)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    summary = json.loads(json.dumps(report.summary()))
    for key in {"out", "load", "seconds_policy", "seconds_total"}:
        assert summary.pop(key) is not None and printed.pop(key) is not None
    assert summary == printed


@pytest.mark.parametrize("method", ["functional", "spectral"])
def test_nobody_is_asked_for_the_licence_of_a_model_in_memory(
    method, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(model_card, "license_in", lambda name: pytest.fail(name))
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    out = tmp_path / method
    prunefair.prune(model, 0.4, out=out, method=method, **FEW)
    assert "see the base model" in (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", ["functional", "spectral"])
def test_a_model_in_memory_gives_the_rows_of_its_folder_and_is_not_changed(
    method, folder, tmp_path
):
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    before = copy.deepcopy(model.state_dict())
    named = prunefair.prune(folder, 0.4, method=method, **FEW)
    held = prunefair.prune(model, 0.4, method=method, **FEW)
    assert all(map(torch.equal, named.kept, held.kept))
    assert named.out is None and held.model.num_parameters() == held.params_after
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for a, b in zip(named.model.parameters(), held.model.parameters(), strict=True):
        assert torch.equal(a, b)
    again = prunefair.prune(
        model, 0.2, out=tmp_path / "p", policy=held.policy, method=method, **FEW
    )
    assert again.seconds_policy == 0 and again.policy is held.policy
    reloaded = prunefair.load_pruned(tmp_path / "p")
    assert reloaded.num_parameters() == again.params_after


def test_a_layer_at_a_time_gives_the_same_rows_and_no_model(folder):
    whole = prunefair.prune(folder, 0.4, method="spectral", **FEW)
    streamed = prunefair.prune(folder, 0.4, spectra="exact", **FEW)
    assert streamed.model is None and streamed.params_after == whole.params_after
    assert all(map(torch.equal, whole.kept, streamed.kept))


def test_evaluate_of_models_in_memory_is_that_of_their_folders(folder):
    model, tokenizer = prunefair.load_model(folder), load_tokenizer(folder)
    options = {"tasks": (), "limit": 2}
    named = prunefair.evaluate(folder, against=folder, **options)
    held = prunefair.evaluate(model, against=model, tokenizer=tokenizer, **options)
    assert named == held and named.kl_to_dense == pytest.approx(0, abs=1e-6)
    assert json.dumps(named.summary())


def test_the_dense_model_is_reported_as_evaluate_alone_reports_it(folder, tmp_path):
    model, tokenizer = prunefair.load_model(folder), load_tokenizer(folder)
    model.config.max_position_embeddings = 40  # windows are those of both
    other = {"vocab_size": 49152, "max_position_embeddings": 48}
    dense = tiny_model("llama", generator=torch.Generator().manual_seed(9), **other)
    options = {"tokenizer": tokenizer, "tasks": ["piqa", "arc_easy"], "limit": 5}
    both = prunefair.evaluate(model, against=dense, **options)
    dense.config.max_position_embeddings = 40
    alone = prunefair.evaluate(dense, **options)
    assert both.perplexity_window == alone.perplexity_window == 40
    assert both.dense_perplexity == alone.perplexity != both.perplexity
    assert alone.dense_perplexity is alone.dense_tasks is None
    means = [
        sum(answer.acc for answer in answers.values()) / 2
        for answers in (both.tasks, both.dense_tasks)
    ]
    assert both.raw_retention == pytest.approx(means[0] / means[1])
    summary = both.summary()
    assert summary["dense_tasks"]["piqa"]["n"] == 5
    assert summary["dense_tasks"] == alone.summary()["tasks"] and json.dumps(summary)


def test_play_certifies_and_ranks_on_a_stream_of_ones_own():
    rng = np.random.default_rng(0)
    stream = RewardStream(
        contexts=rng.integers(3, size=200), rewards=rng.random((200, 4)), n_contexts=3
    )
    report = prunefair.play(stream, ["alpha_fair", "uniform"], alpha=0.5, rounds=150)
    x = cp.Variable((3, 4), nonneg=True)
    earned = 1 + sum(
        cp.multiply(x[stream.contexts[t]], stream.rewards[t]) for t in range(150)
    )
    utility = cp.sum(cp.sqrt(earned)) / 0.5
    best = cp.Problem(cp.Maximize(utility), [cp.sum(x, axis=1) == 1]).solve()
    assert report.optimum.utility == pytest.approx(best, rel=1e-6)
    assert [*report.results] == ["alpha_fair", "uniform"]
    for result in report.results.values():
        assert result.utility <= report.optimum.utility + report.optimum.gap
    assert "rounds_per_second" in report.summary(timings=True)["policies"]["uniform"]
    everyone = prunefair.play(stream, feedback="bandit", seed=1)
    assert len(everyone.results) >= 4


BAD = {
    "ratio": ((1.0,), {}, r"^ratio is 1.0; give a number in \[0, 1\)"),
    "ratio-none": ((None,), {}, "^none of ratio, parameters and bytes is given; give"),
    "ratio-tensor": ((torch.tensor(0.3),), {}, "^ratio is tensor"),
    "widths-none": ((0.3,), {"widths": None}, "^widths is None; give equal or uneven"),
    "episodes": (
        (0.3,),
        {"episodes": 0},
        "^episodes is 0; give a whole number at least",
    ),
    "texts": ((0.3,), {"texts": 2.5}, "^texts is 2.5; give a whole number at least 2"),
    "seed": ((0.3,), {"seed": -1}, r"^seed is -1; give a whole number in \[0, 1844674"),
    "truth": ((0.3,), {"multiple": True}, "^multiple is True; give a whole number"),
    "tokenizer": ((0.3,), {"tokenizer": "x"}, "^tokenizer is 'x'; give a loaded one"),
    "lanczos": (
        (0.3,),
        {"spectra": "lanczos"},
        "^spectra is 'lanczos', which needs 32",
    ),
    "long": ((0.3,), {"method": "x" * 999}, "^method is 'x+[.]{3}x+'; give functional"),
    "rows": ((0.999,), {}, "ratio is 0.999, which leaves no row of 12; lower it"),
    "method": (
        (0.3,),
        {"method": "kl"},
        "^method is 'kl'; give functional or spectral",
    ),
    "widths": (
        (0.3,),
        {"widths": "uneven", "method": "spectral"},
        "^widths is 'uneven'.*give equal, or method='functional'",
    ),
    "spectra": (
        (0.3,),
        {"method": "functional", "spectra": "exact"},
        "^method is 'functional', which knows no spectra; .*or give method='spectral'",
    ),
    "device": ((0.3,), {"device": "abacus"}, "^device is 'abacus'.*give 'cpu'"),
    "multiple": ((0.3,), {"multiple": 13}, "^multiple is 13, more than the 12 neurons"),
    "out": ((0.3,), {"out": __file__}, "^out is .*exists and is not an empty folder"),
    "policy": ((0.3,), {"policy": "no/such"}, "^policy is 'no/such', whose folder"),
    "policy-of-another-method": (
        (0.3,),
        {"policy": RowPolicy(), "method": "functional"},
        "^policy is a RowPolicy, which another method trains; give a FunctionalPolicy",
    ),
    "geometry": ((0.3,), {"geometry": "tiny"}, "and geometry 'tiny'; give one of"),
}


@pytest.mark.parametrize("name", [name for name in BAD if name.startswith("ratio")])
def test_a_target_is_checked_before_the_folder_is_looked_at(name, folder, monkeypatch):
    monkeypatch.setattr("prunefair.models.load_config", pytest.fail)
    positional, options, pattern = BAD[name]
    with pytest.raises(ValueError, match=pattern):
        prunefair.prune(folder, *positional, **options)


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named_in_the_words_of_python(name, folder, monkeypatch):
    monkeypatch.setattr("prunefair.models.load_opened", pytest.fail)
    positional, options, pattern = BAD[name]
    with pytest.raises(ValueError, match=pattern):
        prunefair.prune(folder, *positional, **options)


def test_what_a_model_in_memory_cannot_do_is_said():
    model = tiny_model("llama", generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="spectra is 'exact'.*its folder or name"):
        prunefair.prune(model, 0.3, spectra="exact")
    with pytest.raises(ValueError, match="tokenizer is None, but model is a model in"):
        prunefair.evaluate(model)
    with pytest.raises(
        ValueError, match="policies names 'scale_free', which needs feedb"
    ):
        prunefair.play(None, ["scale_free"])


SHORT = RecoveryPlan(rank=1, steps=1, batch_size=1, window=4)


def whole_call(model, **options):
    options = {"tokenizer": load_tokenizer("smollm2"), "tasks": ["piqa"]} | options
    return prunefair.evaluate(model, limit=1, **options)


CALLS = {
    "prune": lambda model: prunefair.prune(model, 0.3, method="functional", **FEW),
    "prune-spectral": lambda m: prunefair.prune(m, 0.3, method="spectral", **FEW),
    "evaluate": whole_call,
    "against": lambda model: whole_call(wide(), against=model),
    "recover": lambda model: prunefair.recover(
        model, torch.arange(9), SHORT, generator=torch.Generator()
    ),
    "distill": lambda model: prunefair.distill(model, twin(model), tokens=2048),
    "taught": lambda model: prunefair.distill(twin(model), model, tokens=2048),
}


def twin(model):
    """Model of the vocabulary of another one, which may be none."""
    return wide(vocab_size=model.config.vocab_size)


def wide(family="llama", *, vocab_size=49152, **fields):
    """Tiny model with an embedding of every token of the tokenizer."""
    generator = torch.Generator().manual_seed(0)
    return tiny_model(family, generator=generator, vocab_size=vocab_size, **fields)


@pytest.mark.parametrize("call", CALLS)
def test_a_weight_in_memory_that_is_not_finite_is_named(call, monkeypatch):
    works = "functional_pruning.self_statistics", "perplexity.perplexity"
    for work in (*works, "self_distillation.self_sample"):
        monkeypatch.setattr(f"prunefair.pruning.{work}", pytest.fail)
    argument = "against" if call in ("against", "taught") else "model"
    for name, value in (("lm_head", np.inf), ("model.embed_tokens", np.nan)):
        model = wide()
        model.get_submodule(name).weight.data[-1, 3] = value
        pattern = (
            f"^{argument} is 'LlamaForCausalLM', whose weight '{name}.weight' hold"
        )
        with pytest.raises(ValueError, match=pattern) as caught:
            CALLS[call](model)
        assert "config.json" not in str(caught.value)


@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_language_model_in_memory_is_said_without_files(call):
    odd = LlamaForSequenceClassification(wide().config)
    meta = copy.deepcopy(wide()).to("meta")
    argument = "against" if call in ("against", "taught") else "model"
    for model, problem in (
        (odd, "which does not run .*; give a causal language model"),
        (meta, "whose weight '.*' has no value; give a causal language model"),
    ):
        with pytest.raises(
            ValueError, match=f"^{argument} is '.*', {problem}"
        ) as caught:
            CALLS[call](model)
        text = str(caught.value)
        assert "config.json" not in text and len(text) <= 293 and "\n" not in text


EVALUATE = {
    "tasks-none": ({"tasks": None}, r"^tasks is None; give a list .*\['piqa'\]"),
    "tasks-number": ({"tasks": 3}, r"^tasks is 3; give a list of names"),
    "data-number": ({"data": 3}, "^data is 3; give a path, as a string or a Path"),
    "data-file": ({"data": __file__}, "^data is '.*', which is no folder; give one"),
    "device-list": ({"device": ["cpu"]}, r"^device is \['cpu'\], which torch cannot"),
    "device-word": ({"device": "abacus"}, "^device is 'abacus', which torch cannot"),
}
TOKENIZERS = ("smollm2", 3, type(load_tokenizer("smollm2")), lambda text: [1])


@pytest.mark.parametrize("name", EVALUATE)
def test_bad_arguments_of_evaluate_are_named_before_the_work(name, folder, monkeypatch):
    monkeypatch.setattr("prunefair.pruning.perplexity.perplexity", pytest.fail)
    options, pattern = EVALUATE[name]
    with pytest.raises(ValueError, match=pattern) as caught:
        prunefair.evaluate(folder, **{"tasks": [], "limit": 1} | options)
    assert len(str(caught.value)) <= 293


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["name", "number", "class", "f"])
def test_what_is_no_tokenizer_is_named(tokenizer):
    with pytest.raises(ValueError, match="^tokenizer is .* in memory; give its loaded"):
        prunefair.evaluate(wide(), tokenizer=tokenizer, tasks=[])
    with pytest.raises(
        ValueError, match="^tokenizer is .*; give a loaded one, or None"
    ):
        prunefair.prune(wide(), 0.3, tokenizer=tokenizer)


def test_types_and_devices_are_checked_before_a_model_is_loaded(folder, monkeypatch):
    monkeypatch.setattr("prunefair.models.load_opened", pytest.fail)
    for load in (prunefair.load_model, prunefair.load_pruned):
        for dtype in (torch.int8, "float99", 3, torch.float8_e4m3fn, "auto"):
            with pytest.raises(ValueError, match="^dtype is .*; give torch.float32, "):
                load(folder, dtype=dtype)
        for device in ("abacus", "meta", ["cpu"], 7**20):
            with pytest.raises(ValueError, match="^device is .*, which torch cannot"):
                load(folder, device=device)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_on_a_model_waits_for_the_other_one(call):
    words = {"distill": 32, "taught": 32}  # what it samples, it draws from all of them
    model, done = wide(vocab_size=words.get(call, 49152)), threading.Event()
    mine = copy.deepcopy(model)

    def work():
        CALLS[call](model)
        done.set()

    with alone(model, "a name", None):
        thread = threading.Thread(target=work)
        thread.start()
        with alone(mine, model):  # another model is free, and so is one's own
            assert not done.wait(0.3)
    thread.join(60)
    assert done.is_set()


@pytest.mark.parametrize("method", ["functional", "spectral"])
def test_the_pruned_model_and_the_given_one_are_two(method):
    model = tiny_model("llama", generator=torch.Generator().manual_seed(0))
    trained = [p.requires_grad for p in model.parameters()]
    report = prunefair.prune(model, 0.25, method=method, **FEW)
    ours = {p.data_ptr() for p in report.model.parameters()}
    assert not ours & {p.data_ptr() for p in model.parameters()}
    assert [p.requires_grad for p in report.model.parameters()] == trained
    report.model.half()
    with torch.no_grad():
        model(torch.arange(9)[None])
    assert len(repr(report)) < 1000 and "params_after" in repr(report)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_training_needs_no_gradients_around_the_call(around, folder):
    with around():
        report = prunefair.prune(folder, 0.25, method="spectral", **FEW)
    assert len(report.history) == FEW["episodes"]


def test_numbers_of_numpy_are_numbers(folder, tmp_path):
    options = {"texts": np.int64(4), "episodes": np.int32(2), "seed": np.uint8(7)}
    options |= {"multiple": np.int64(2), "refit": np.True_}
    report = prunefair.prune(folder, np.float32(0.5), out=tmp_path / "a", **options)
    plain = {"texts": 4, "episodes": 2, "seed": 7, "multiple": 2}
    prunefair.prune(folder, 0.5, out=tmp_path / "b", **plain)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert json.dumps(report.summary())


def test_evaluate_leaves_the_dense_models_configuration_as_it_was(folder):
    model, tokenizer = prunefair.load_model(folder), load_tokenizer(folder)
    model.config.bos_token_id = model.config.eos_token_id = None
    options = {"tokenizer": tokenizer, "tasks": iter([]), "limit": 1}
    report = prunefair.evaluate(model, against=model, **options)
    assert report.kl_to_dense is not None and model.config.bos_token_id is None


def test_names_come_in_any_order_of_a_list_and_never_as_a_word():
    rewards = np.random.default_rng(0).random((30, 2))
    stream = RewardStream(contexts=[0] * 30, rewards=rewards, n_contexts=1)
    report = prunefair.play(stream, iter(["uniform", "hedge"]), rounds=np.int64(20))
    assert [*report.results] == ["uniform", "hedge"]
    for wrong, pattern in (
        ({"policies": "hedge"}, r"^policies is 'hedge'; give a list .*\['hedge'\]"),
        ({"rounds": 0}, "^rounds is 0; give a whole number at least 1"),
        ({"seed": None}, "^seed is None; give a whole number in"),
        ({"feedback": ["full"]}, r"^feedback is \['full'\]; give full or bandit"),
    ):
        with pytest.raises(ValueError, match=pattern):
            prunefair.play(stream, **wrong)
    with pytest.raises(ValueError, match="^tasks names 'no', .* or mmlu_SUBJECT$"):
        prunefair.evaluate("smollm2", tasks=["no"])


def test_a_warning_is_one_line_of_the_librarys_log(folder, tmp_path, caplog):
    model = tiny_model("llama", generator=torch.Generator().manual_seed(0))
    with caplog.at_level(logging.WARNING, logger="prunefair"):
        prunefair.prune(model, 0.3, out=tmp_path / "out", method="spectral", **FEW)
    assert caplog.messages == ["model has no tokenizer; none is written"]


def test_messages_take_other_words_only_inside_the_block():
    assert messages.named("users", None) == "users=None"
    with messages.called({"users": "--users", ("users", None): "--users 0"}):
        assert messages.named("users") == "--users"
        assert messages.named("users", 3) == "--users 3"
        assert messages.named("users", None) == "--users 0"
        assert messages.named("other", "x") == "other='x'"
    assert messages.named("users", 3) == "users=3"
