"""Recovery on tiny random models: where it starts, what it does, what it leaves."""

import ast
import dataclasses
import importlib
import inspect
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import recovery as benchmark
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.import_utils import is_torchao_available
from scipy import stats
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

from prunefair.pruning.folders import save_pruned
from prunefair.pruning.perplexity import perplexity, random_llama, token_nats
from prunefair.pruning.records import outcome_results
from prunefair.pruning.recovery import (
    RecoveryPlan,
    draw_windows,
    fit_lora_,
    learning_rates,
    lora_targets,
    merged_model,
    next_token_loss,
    paired_change,
    plot_recovery,
    recover,
    window_nats,
    with_lora,
)
from prunefair.pruning.retention import Interval, accuracy_difference
from prunefair.pruning.surgery import ADAPTERS, slice_ffn_, tiny_model

ROWS = [[0, 3, 4, 7, 9], [1, 2, 6, 10, 11]]
TEXT = torch.arange(200) % 32  # each token has one successor
PLAN = RecoveryPlan(rank=2, steps=8, window=16, learning_rate=0.02)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pruned_model(family="llama", **options):
    return slice_ffn_(tiny_model(family, generator=seeded(1), **options), ROWS)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[n], second[n]) for n in first | second)


def adapters(adapted):
    """Module name to its pair (A, B)."""
    pairs = {}
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            owner, _, factor = name.partition(".lora_")
            pairs.setdefault(owner.removeprefix("base_model.model."), {})[factor[0]] = (
                weight
            )
    return pairs


@pytest.fixture
def tokens():
    return torch.randint(32, (2, 9), generator=seeded(2))


# what is trained


@pytest.mark.parametrize("family", ADAPTERS)
def test_every_family_starts_at_the_pruned_model_and_merges_to_what_was_trained(
    family, tokens
):
    model = pruned_model(family)
    before, untouched = state(model), torch.get_rng_state()
    adapted = with_lora(model, PLAN, generator=seeded(3))
    with torch.no_grad():
        assert torch.equal(adapted(tokens).logits, model(tokens).logits)
    fit_lora_(adapted, TEXT, PLAN, generator=seeded(4))
    assert torch.equal(torch.get_rng_state(), untouched)
    with torch.no_grad():
        trained = adapted(tokens).logits
        plain = merged_model(adapted)
        torch.testing.assert_close(plain(tokens).logits, trained, atol=1e-4, rtol=1e-4)
        assert (trained - model(tokens).logits).abs().max() > 1e-2
    assert same(state(model), before)
    assert type(plain) is type(model)
    assert [*state(plain)] == [*before]


@pytest.mark.parametrize(
    ("family", "a_layer"), [("llama", 7), ("phi", 6), ("opt", 6), ("falcon", 4)]
)
def test_all_linear_maps_of_a_layer_are_adapted_and_nothing_else(family, a_layer):
    model = pruned_model(family)
    linear = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    outside = {n for n in linear if "layers" not in n and ".h." not in n}
    assert set(lora_targets(model)) == linear - outside
    assert outside and len(lora_targets(model)) == 2 * a_layer


def test_adapters_count_rank_times_rows_plus_columns_and_the_rest_is_frozen():
    model = pruned_model()
    shapes = [model.get_submodule(n).weight.shape for n in lora_targets(model)]
    result = recover(model, TEXT, PLAN, generator=seeded())
    assert result.n_trained == 2 * sum(sum(shape) for shape in shapes)
    plain, names = state(result.model), {f"{n}.weight" for n in lora_targets(model)}
    for name, value in state(model).items():
        assert torch.equal(value, plain[name]) == (name not in names), name


def test_the_first_factor_is_uniform_within_one_over_the_root_of_the_columns():
    adapted = with_lora(
        tiny_model("llama", generator=seeded(), hidden_size=64),
        RecoveryPlan(rank=64),
        generator=seeded(5),
    )
    for pair in adapters(adapted).values():
        scaled = pair["A"].detach().flatten().double() * math.sqrt(pair["A"].shape[1])
        assert stats.kstest(scaled.numpy(), "uniform", (-1, 2)).pvalue > 1e-4
        assert not pair["B"].any()


def test_the_first_factor_comes_from_the_given_generator_alone():
    drawn = []
    for seed in (5, 5, 6):
        torch.rand(3)  # moves the global generator
        adapted = with_lora(pruned_model(), PLAN, generator=seeded(seed))
        drawn.append([pair["A"] for pair in adapters(adapted).values()])
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1]))
    assert not any(torch.equal(a, b) for a, b in zip(drawn[0], drawn[2]))


@pytest.fixture
def old_torchao(tmp_path, monkeypatch):
    """A torchao that peft refuses lies on the path, as on Colab."""
    (tmp_path / "torchao").mkdir()
    (tmp_path / "torchao" / "__init__.py").write_text("here = True\n")
    (tmp_path / "torchao-0.3.0.dist-info").mkdir()
    (tmp_path / "torchao-0.3.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchao\nVersion: 0.3.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchao", raising=False)
    is_torchao_available.cache_clear()
    with pytest.raises(ImportError, match="incompatible version of torchao"):
        is_torchao_available()
    yield
    is_torchao_available.cache_clear()


@pytest.mark.parametrize("imported", [False, True])
def test_adapters_beside_a_torchao_that_is_too_old_for_peft(
    imported, old_torchao, monkeypatch
):
    torchao = importlib.import_module("torchao") if imported else None
    adapted = with_lora(pruned_model(), PLAN, generator=seeded())
    assert len(adapters(adapted)) == len(lora_targets(pruned_model()))
    assert sys.modules.get("torchao") is torchao
    assert importlib.import_module("torchao").here
    monkeypatch.delitem(sys.modules, "torchao")
    with pytest.raises(ImportError, match="incompatible version of torchao"):
        is_torchao_available()  # as others find it
    plain = recover(pruned_model(), TEXT, PLAN, generator=seeded()).model
    assert type(plain) is type(pruned_model())


def test_first_gradients_are_the_projected_full_gradient_and_zero(tokens):
    model = random_llama(vocabulary=32, generator=seeded(6))
    adapted = with_lora(model, PLAN, generator=seeded(7))
    next_token_loss(model, tokens).backward()
    next_token_loss(adapted, tokens).backward()
    for name, pair in adapters(adapted).items():
        G = model.get_submodule(name).weight.grad
        torch.testing.assert_close(pair["B"].grad, 8 * G @ pair["A"].T)
        assert not pair["A"].grad.any() and G.norm() > 0


def test_the_change_has_the_rank_of_the_plan():
    model = random_llama(vocabulary=32, hidden=16, generator=seeded(8))
    plain = recover(model, TEXT, PLAN, generator=seeded(9)).model
    for name in lora_targets(model):
        W, V = (m.get_submodule(name).weight.detach() for m in (model, plain))
        values = torch.linalg.svdvals(V - W)
        assert values[1] > 1e-6 and values[2] < 1e-12


# the loss and the steps


@pytest.mark.parametrize("shape", [(1, 2), (3, 7)])
def test_the_loss_is_the_mean_information_that_evaluation_measures(shape):
    model = pruned_model()
    text = torch.randint(32, shape, generator=seeded(10))
    loss = next_token_loss(model, text)
    np.testing.assert_allclose(loss.item(), token_nats(model, text).mean())
    np.testing.assert_allclose(
        loss.item(), model(text, labels=text).loss.item(), rtol=1e-5
    )


@given(st.integers(1, 60), st.floats(0, 0.95))
def test_rates_rise_to_the_largest_and_fall_like_the_cosine_of_transformers(
    steps, warmup
):
    plan = RecoveryPlan(steps=steps, warmup=warmup, learning_rate=0.5)
    rates, rise = learning_rates(plan), math.ceil(warmup * steps)
    weight = torch.nn.Parameter(torch.zeros(1))
    schedule = get_cosine_schedule_with_warmup(
        torch.optim.SGD([weight], lr=0.5), rise, steps
    ).lr_lambdas[0]
    np.testing.assert_allclose(
        rates[rise:], [0.5 * schedule(t) for t in range(rise, steps)]
    )
    np.testing.assert_allclose(
        rates[:rise], [0.5 * schedule(t + 1) for t in range(rise)]
    )
    assert (rates > 0).all() and rates.max() == pytest.approx(0.5)


def test_the_gradient_is_clipped_when_the_step_uses_it(monkeypatch):
    norms, step = [], torch.optim.AdamW.step

    def watched(self, *arguments):
        grads = [p.grad.flatten() for g in self.param_groups for p in g["params"]]
        norms.append(float(torch.cat(grads).norm()))
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    for norm in (1e-3, 1e6):
        plan = RecoveryPlan(rank=2, steps=3, window=16, max_norm=norm)
        recover(pruned_model(), TEXT, plan, generator=seeded())
    np.testing.assert_allclose(norms[:3], 1e-3, rtol=1e-3)
    assert min(norms[3:]) > 1e-2


def test_every_step_uses_a_gradient_of_its_own_and_the_rate_of_the_plan():
    """Against a loop written out with plain tensors for the same draws."""
    model = random_llama(vocabulary=32, generator=seeded(11))
    plan = RecoveryPlan(rank=2, steps=4, window=12, batch_size=2, max_norm=1e9)
    adapted = with_lora(model, plan, generator=seeded(12))
    reference = with_lora(model, plan, generator=seeded(12))
    losses = fit_lora_(adapted, TEXT, plan, generator=seeded(13))
    factors = [p for p in reference.parameters() if p.requires_grad]
    first, second = ([torch.zeros_like(p) for p in factors] for _ in range(2))
    generator = seeded(13)
    for t, rate in enumerate(learning_rates(plan), 1):
        batch = draw_windows(TEXT, 2, 12, generator=generator)
        loss = next_token_loss(reference, batch)
        assert loss.item() == pytest.approx(losses[t - 1], rel=1e-9)
        for p, g, m, v in zip(
            factors, torch.autograd.grad(loss, factors), first, second
        ):
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g**2)
            root = (v / (1 - 0.999**t)).sqrt() + 1e-8
            p.data -= rate * m / (1 - 0.9**t) / root
    for ours, oracle in zip(
        (p for p in adapted.parameters() if p.requires_grad), factors
    ):
        torch.testing.assert_close(ours, oracle)


def test_training_lowers_the_loss_on_its_text_for_float32_and_bfloat16_weights():
    plan = RecoveryPlan(rank=4, steps=40, window=16, learning_rate=0.02)
    for dtype in (torch.float32, torch.bfloat16):
        model = pruned_model(dtype=dtype)
        result = recover(model, TEXT, plan, generator=seeded())
        before, after = (
            window_nats(m, TEXT, 50, 4).mean() for m in (model, result.model)
        )
        assert result.model.dtype == dtype and after < before - 0.5
        assert result.losses.shape == (40,) and result.losses[-1] < result.losses[0]


def test_adapters_of_bfloat16_weights_are_float32():
    adapted = with_lora(pruned_model(dtype=torch.bfloat16), PLAN, generator=seeded())
    trained = {p.dtype for p in adapted.parameters() if p.requires_grad}
    frozen = {p.dtype for p in adapted.parameters() if not p.requires_grad}
    assert (trained, frozen) == ({torch.float32}, {torch.bfloat16})


def test_one_seed_is_one_result_to_the_byte_and_another_seed_another():
    results = [
        recover(pruned_model(), TEXT, PLAN, generator=seeded(s)) for s in (0, 0, 1)
    ]
    states = [state(result.model) for result in results]
    assert same(states[0], states[1]) and not same(states[0], states[2])
    assert (results[0].losses == results[1].losses).all()


def test_windows_begin_at_every_place_equally_often_and_are_contiguous():
    windows = draw_windows(torch.arange(10, 17), 4000, 4, generator=seeded(14))
    assert (windows.diff() == 1).all()
    counts = torch.bincount(windows[:, 0] - 10)
    assert len(counts) == 4 and stats.chisquare(counts.numpy()).pvalue > 1e-3


# what it leaves


def test_a_recovered_model_is_saved_and_reloaded_by_plain_transformers(
    tmp_path, tokens
):
    result = recover(pruned_model(), TEXT, PLAN, generator=seeded())
    save_pruned(result.model, None, tmp_path / "model", ROWS)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert same(state(again), state(result.model))
    assert not (tmp_path / "model" / "adapter_config.json").exists()
    assert all(p.requires_grad for p in result.model.parameters())
    assert again.config.intermediate_size == 5


def test_recovery_reads_no_file_so_the_judging_text_cannot_be_trained_on(tmp_path):
    recover(pruned_model(), TEXT, PLAN, generator=seeded())  # everything is imported
    opened, watching = [], [True]

    def audit(event, arguments):
        if watching and event == "open" and isinstance(arguments[0], str | Path):
            opened.append(str(arguments[0]))

    sys.addaudithook(audit)
    recover(pruned_model(), TEXT, PLAN, generator=seeded())
    held = tmp_path / "wikitext" / "test.txt"
    held.parent.mkdir()
    held.write_text("seen")  # that the hook sees a file is seen in this one
    watching.clear()
    assert [name for name in opened if "wikitext" in name or name.endswith(".txt")] == [
        str(held)
    ]


def test_the_benchmark_trains_on_validation_and_judges_on_test():
    nodes = [*ast.walk(ast.parse(inspect.getsource(benchmark)))]
    calls = [n for n in nodes if isinstance(n, ast.Call)]
    named = {ast.unparse(c.func): ast.unparse(c) for c in calls}
    assert "self.validation" in named["recover"]
    assert "self.test" in named["window_nats"]
    read = {
        ast.unparse(n.targets[0]): ast.unparse(n.value)
        for n in nodes
        if isinstance(n, ast.Assign)
    }
    for split in ("validation", "test"):
        assert read[f"self.{split}"] == f"wikitext_tokens(self.tokenizer, '{split}')"
    reads = [c for c in calls if ast.unparse(c.func) == "wikitext_tokens"]
    assert len(reads) == 2  # no others


def test_the_stored_table_is_resumed_and_other_sizes_are_refused(monkeypatch, tmp_path):
    stored = json.loads(benchmark.RESULT.read_text())
    path, n = tmp_path / "table.json", len(stored["runs"]["dense"]["after"])
    path.write_bytes(benchmark.RESULT.read_bytes())
    for name in ("load_model", "load_tokenizer", "wikitext_tokens", "self_sample"):
        monkeypatch.setattr(benchmark, name, lambda *arguments, **options: None)
    for name in ("before", "after"):
        monkeypatch.setattr(benchmark.Bench, name, lambda bench, *which: which)

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["r.py", "--results", str(path), *options])
        benchmark.main()

    run("--seeds", str(n))
    assert path.read_bytes() == benchmark.RESULT.read_bytes()
    run("--seeds", str(n + 1))
    for method, row in json.loads(path.read_text())["runs"].items():
        assert row["after"].pop(str(n)) == [method, n]
        assert row == stored["runs"][method]
    with pytest.raises(SystemExit, match="another plan and does not belong"):
        run("--steps", "7")


# before and after


@pytest.mark.parametrize("beginning", [(), (3,), (3, 1)])
def test_mean_of_window_nats_is_the_logarithm_of_the_perplexity(beginning):
    model = random_llama(vocabulary=32, generator=seeded(15))
    nats = window_nats(model, TEXT, 20, 5, beginning=beginning)
    options = {"window": 20, "max_windows": 5, "beginning": beginning}
    expected = perplexity(model, TEXT, **options)
    np.testing.assert_allclose(math.exp(nats.mean()), expected)
    assert nats.shape == (5,) and np.ptp(nats) > 0


@settings(max_examples=30)
@given(st.lists(st.tuples(*[st.floats(-9, 9)] * 2), min_size=2, max_size=9))
def test_the_interval_of_a_change_is_that_of_the_paired_t_test(pairs):
    before, after = np.array(pairs).T
    change = paired_change(before, after)
    d = after - before
    if np.ptp(d) > 1e-6:
        test = stats.ttest_rel(after, before)
        np.testing.assert_allclose(change[2:], test.confidence_interval(), atol=1e-9)
        np.testing.assert_allclose(change.stderr, d.std(ddof=1) / len(d) ** 0.5)
    np.testing.assert_allclose(change.value, d.mean(), atol=1e-12)


def test_stored_answers_give_the_paired_difference():
    before, after = (
        outcome_results({"piqa": [right]}) for right in ("110010", "111010")
    )
    d = accuracy_difference(after, before)
    values = np.array([0, 0, 1, 0, 0, 0])
    assert d.value == pytest.approx(values.mean())
    assert d.stderr == pytest.approx(values.std(ddof=1) / 6**0.5)
    assert before["piqa"].chance == 0.5 and before["piqa"].n == 6


def test_the_picture_shows_the_intervals_it_is_given():
    from matplotlib.figure import Figure

    before = {"a": Interval(4.0, 1.0, 2.0, 5.0), "b": Interval(9.0, 1.0, 8.0, 9.5)}
    after = {"a": Interval(3.0, 1.0, 2.5, 3.5), "b": Interval(6.0, 1.0, 4.0, 9.0)}
    ax = plot_recovery(Figure().subplots(), before, after)
    for container, values in zip(ax.containers, (before, after)):
        points, _, (bars,) = container
        assert points.get_xdata().tolist() == [v.value for v in values.values()]
        ends = [segment[:, 0].tolist() for segment in bars.get_segments()]
        assert ends == [[v.low, v.high] for v in values.values()]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]


# bad inputs


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("rank", v) for v in (0, 2.5, True, "8", None)),
        *(("steps", v) for v in (0, 10.0, math.nan, [3])),
        ("batch_size", -1),
        ("window", 1),
        *(("alpha", v) for v in (0.0, math.inf, "x", True)),
        *(("learning_rate", v) for v in (math.nan, -1e-3, "1e-4", 1j, None)),
        ("max_norm", -1.0),
        *(("warmup", v) for v in (-0.1, 1.0, "x", None)),
    ],
)
def test_a_plan_out_of_range_is_refused_with_its_name_and_value(field, value):
    with pytest.raises(ValueError, match=re.escape(f"{field} is {value!r}; give a")):
        RecoveryPlan(**{field: value})


def test_numbers_of_numpy_make_the_plan_that_pythons_make():
    options = {"rank": np.int64(2), "learning_rate": np.float32(0.5), "alpha": 16}
    plan = RecoveryPlan(**options, warmup=0)
    assert plan == RecoveryPlan(rank=2, learning_rate=0.5, alpha=16.0, warmup=0.0)
    assert json.dumps(dataclasses.asdict(plan))


SHORT = {"max_position_embeddings": 15}
UNUSABLE = {  # what is given, and how the line begins
    "text-short": ({"tokens": TEXT[:15]}, "tokens is torch.int64 of shape .15,.; give"),
    "text-matrix": ({"tokens": TEXT[None]}, "tokens is torch.int64 of shape .1, 200."),
    "text-float": ({"tokens": TEXT.float()}, "tokens is torch.float32 of shape"),
    "text-bool": ({"tokens": TEXT > 3}, "tokens is torch.bool of shape"),
    "text-int32": ({"tokens": TEXT.int()}, "tokens is torch.int32.* as torch.int64"),
    "text-complex": ({"tokens": TEXT * 1j}, "tokens is torch.complex64 of shape"),
    "text-list": ({"tokens": [1, 2]}, r"tokens is \[1, 2\]; give one text of shape"),
    "text-words": ({"tokens": "words"}, "tokens is 'words'; give one text of shape"),
    "text-none": ({"tokens": None}, "tokens is None; give one text of shape"),
    "token-high": ({"tokens": TEXT + 1}, "tokens holds 32, and .* 0 to 31; encode"),
    "token-low": ({"tokens": TEXT - 1}, "tokens holds -1, and .* 0 to 31; encode"),
    "plan-dict": ({"plan": {"steps": 3}}, "plan is {'steps': 3}; give a RecoveryPlan"),
    "plan-type": ({"plan": RecoveryPlan}, "plan is <class .*; give a RecoveryPlan"),
    "seed": ({"generator": 0}, "generator is 0; give a torch.Generator, such as"),
    "numpy": ({"generator": np.random.default_rng(0)}, "generator is Generator.*give"),
    "no-seed": ({"generator": None}, "generator is None; give a torch.Generator"),
    "name": (
        {"model": "no/such/model"},
        "model is 'no/such/model', which is no folder",
    ),
    "empty-name": (
        {"model": ""},
        "model is '', which holds no config.json; give 'smol",
    ),
    "module": ({"model": torch.nn.Linear(1, 1)}, "model is Linear.*give 'smollm2', a"),
    "nothing": ({"model": None}, "model is None; give 'smollm2', a folder"),
    "window": (
        {"model": pruned_model(**SHORT)},
        "window is 16, longer than the model's context of 15 .*; give at most 15",
    ),
    "window-opt": (
        {"model": pruned_model("opt", **SHORT)},
        "window is 16, longer than the model's context of 15 .*; give at most 15",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_is_one_line_before_the_work(name, monkeypatch):
    monkeypatch.setattr("prunefair.pruning.recovery.with_lora", pytest.fail)
    change, pattern = UNUSABLE[name]
    options = {"model": pruned_model(), "tokens": TEXT, "plan": PLAN}
    options |= {"generator": seeded()} | change
    with pytest.raises(ValueError, match=f"^{pattern}") as caught:
        recover(**options)
    assert len(str(caught.value)) <= 293 and "\n" not in str(caught.value)


def test_training_on_another_models_tokens_or_past_the_context_is_refused():
    for text, model, pattern in (
        (TEXT + 1, pruned_model(), "tokens holds 32"),
        (TEXT, pruned_model(**SHORT), "window is 16, longer than"),
    ):
        adapted = with_lora(model, PLAN, generator=seeded())
        with pytest.raises(ValueError, match=pattern):
            fit_lora_(adapted, text, PLAN, generator=seeded())
    with pytest.raises(ValueError, match="tokens holds 32"):
        window_nats(pruned_model(), TEXT + 1, 20, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_named_before_the_work(value, monkeypatch):
    monkeypatch.setattr("prunefair.pruning.recovery.with_lora", pytest.fail)
    model = pruned_model()
    model.model.embed_tokens.weight.data[7] = value  # no text need hold the token
    pattern = "^model is 'LlamaForCausalLM', whose weight 'model.embed_tokens.weight' h"
    with pytest.raises(ValueError, match=pattern):
        recover(model, TEXT, PLAN, generator=seeded())


def test_a_loss_that_is_not_finite_stops_training():
    plan = dataclasses.replace(PLAN, learning_rate=1e30)
    with pytest.raises(ValueError, match="loss is nan at step .; lower learning_rate"):
        recover(pruned_model(), TEXT, plan, generator=seeded())


def test_a_folder_is_recovered_as_the_model_in_it_is(tmp_path):
    pruned_model().save_pretrained(tmp_path)
    held = recover(pruned_model(), TEXT, PLAN, generator=seeded())
    for name in (tmp_path, str(tmp_path)):
        named = recover(name, TEXT, PLAN, generator=seeded())
        assert same(state(named.model.cpu()), state(held.model))


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_recovery_needs_no_gradients_around_the_call(around):
    held = recover(pruned_model(), TEXT, PLAN, generator=seeded())
    with around():
        again = recover(pruned_model(), TEXT, PLAN, generator=seeded())
    assert same(state(again.model), state(held.model))


def test_an_unsupported_family_is_refused_by_name():
    model = pruned_model()
    model.config.model_type = "bert"
    with pytest.raises(ValueError, match="'bert', which has no adapter"):
        recover(model, TEXT, PLAN, generator=seeded())


def test_without_peft_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"install prunefair\[recover\]"):
        with_lora(pruned_model(), PLAN, generator=seeded())


def test_windows_and_pairs_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="tokens holds 200 tokens; 3 windows of 100"):
        window_nats(pruned_model(), TEXT, 100, 3)
    with pytest.raises(ValueError, match="window is 1; a window needs at least 2"):
        window_nats(pruned_model(), TEXT, 1, 3)
    with pytest.raises(ValueError, match="window is 2; .* one of the text"):
        window_nats(pruned_model(), TEXT, 2, 3, beginning=(1, 2))
    with pytest.raises(ValueError, match="hold 2 and 3 values"):
        paired_change([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="at least two"):
        paired_change([1], [2])
