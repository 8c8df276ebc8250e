"""Self-distillation on tiny models: what it lowers, when it stops, what it keeps."""

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefair.pruning import self_distillation
from prunefair.pruning.layered import FolderStore
from prunefair.pruning.perplexity import (
    kl_per_position,
    kl_to_dense,
    random_llama,
    self_sample,
)
from prunefair.pruning.recovery import lora_targets
from prunefair.pruning.self_distillation import (
    DistillationPlan,
    check_pair,
    falls_from,
    levelled,
    rate_at,
    self_distill,
    text_divergences,
)
from prunefair.pruning.surgery import prune_rows, tiny_model

ROOT = Path(__file__).parents[2]
ROWS = [[0, 3, 4, 7, 9], [1, 2, 6, 8, 10, 11]]  # widths of their own
PLAN = DistillationPlan(
    tokens=12 * 128,
    batch_size=8,
    window=16,
    learning_rate=0.02,
    warmup=2,
    cooldown=0.25,
    held=12,
    every=3,
    patience=4,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pair():
    """A dense model whose tokens depend on the context, and what is left of it."""
    dense = tiny_model("llama", generator=seeded(1))
    for weight in dense.parameters():
        if weight.ndim == 2:
            weight.data.mul_(3)
    return dense, prune_rows(dense, ROWS)


def same(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(v, w) for (a, v), (b, w) in pairs)


# what is minimised


def test_the_loss_is_the_divergence_that_evaluation_measures(pair):
    texts = torch.randint(32, (3, 9), generator=seeded(2))
    ours = text_divergences(*pair, texts)
    oracle = kl_per_position(*pair, texts).mean(1)
    np.testing.assert_allclose(ours.detach(), oracle, rtol=1e-5)


def test_its_gradient_by_the_logits_is_the_difference_of_the_probabilities():
    dense, student = (random_llama(vocabulary=6, generator=seeded(s)) for s in (3, 4))
    seen = []
    student.lm_head.register_full_backward_hook(lambda *a: seen.append(a[2][0]))
    texts = torch.randint(6, (2, 7), generator=seeded(5))
    text_divergences(dense, student, texts).sum().backward()
    p, q = (m(texts).logits.softmax(-1) for m in (dense, student))
    torch.testing.assert_close(seen[0], (q - p) / 7)
    assert not any(w.grad is not None for w in dense.parameters())


def test_its_gradient_is_the_slope_of_the_loss():
    dense, student = (random_llama(vocabulary=6, generator=seeded(s)) for s in (3, 4))
    texts = torch.randint(6, (2, 7), generator=seeded(5))
    weight = student.model.layers[1].mlp.up_proj.weight
    (slope,) = torch.autograd.grad(
        text_divergences(dense, student, texts).sum(), weight
    )
    way = torch.randn(weight.shape, generator=seeded(6), dtype=weight.dtype)
    ends = []
    for step in (1e-3, -1e-3):
        weight.data.add_(way, alpha=step)
        ends.append(text_divergences(dense, student, texts).sum().item())
        weight.data.add_(way, alpha=-step)
    np.testing.assert_allclose(
        (ends[0] - ends[1]) / 2e-3, float((slope * way).sum()), rtol=1e-3
    )


def test_the_gradient_has_no_noise_where_the_models_agree():
    model = random_llama(vocabulary=6, generator=seeded(3))
    texts = torch.randint(6, (4, 7), generator=seeded(5))
    loss = text_divergences(model, model, texts).sum()
    grads = torch.autograd.grad(loss, [*model.parameters()])
    assert max(g.abs().max() for g in grads) < 1e-12


# what it does


@pytest.fixture(scope="module")
def distilled(pair):
    dense, pruned = pair
    return self_distill(pruned, dense, PLAN, generator=seeded(7))


def test_the_divergence_falls_on_text_that_nothing_was_chosen_by(pair, distilled):
    dense, pruned = pair
    texts = self_sample(dense, 64, 16, generator=seeded(8))
    before, after = (kl_to_dense(dense, m, texts) for m in (pruned, distilled.model))
    assert after < 0.4 * before
    assert distilled.curve[-1].mean() < 0.4 * distilled.curve[0].mean()
    assert not distilled.levelled and distilled.looked_at == [0, 384, 768, 1152, 1536]


def test_adapters_of_a_rank_help_less_and_change_by_that_rank(pair, distilled):
    dense, pruned = pair
    plan = dataclasses.replace(PLAN, rank=1)
    found = self_distill(pruned, dense, plan, generator=seeded(7))
    means = found.curve.mean(1)
    all_weights = distilled.curve.mean(1)
    assert all_weights[-1] / all_weights[0] < means[-1] / means[0] < 0.6
    shapes = [pruned.get_submodule(n).weight.shape for n in lora_targets(pruned)]
    assert found.n_trained == sum(map(sum, shapes)) < distilled.n_trained / 4
    assert type(found.model) is type(pruned)
    changed = found.model.state_dict()
    adapted = {f"{name}.weight" for name in lora_targets(pruned)}
    for name, old in pruned.state_dict().items():
        change = (changed[name] - old).double()
        assert (
            torch.linalg.matrix_rank(change, rtol=1e-4) == 1
            if (name in adapted)
            else not change.any()
        )
    judged = kl_per_position(dense, found.model, found.held).mean(1)
    np.testing.assert_allclose(judged, found.curve[found.best], rtol=1e-3)


def test_both_models_stay_as_they_were_and_the_result_shares_nothing(pair, distilled):
    dense, pruned = pair
    again = prune_rows(tiny_copy(dense), ROWS)
    assert same(pruned, again) and not any(
        p.grad is not None for p in dense.parameters()
    )
    places = {p.data_ptr() for m in pair for p in m.parameters()}
    assert not places & {p.data_ptr() for p in distilled.model.parameters()}


def tiny_copy(model):
    twin = tiny_model("llama", generator=seeded(9))
    twin.load_state_dict(model.state_dict())
    return twin


def test_all_weights_are_trained_and_the_held_out_texts_are_not(pair, distilled):
    _, pruned = pair
    for name, old in pruned.named_parameters():
        assert not torch.equal(old, distilled.model.get_parameter(name)), name
    assert distilled.n_trained == pruned.num_parameters()


def test_no_text_is_trained_on_twice_and_none_is_held_out(pair, monkeypatch):
    dense, pruned = pair
    trained, loss = [], text_divergences

    def listening(dense, student, tokens):
        if torch.is_grad_enabled():
            trained.extend(map(tuple, tokens.tolist()))
        return loss(dense, student, tokens)

    monkeypatch.setattr(self_distillation, "text_divergences", listening)
    found = self_distill(pruned, dense, PLAN, generator=seeded(7))
    held = set(map(tuple, found.held.tolist()))
    assert len(trained) == PLAN.steps * PLAN.batch_size == len(set(trained))
    assert len(held) == PLAN.held and not held & set(trained)
    assert {text[0] for text in trained} == {dense.config.bos_token_id}


def test_the_norm_is_clipped_when_the_step_is_taken(pair, monkeypatch):
    dense, pruned = pair
    norms, rates, step = [], [], torch.optim.AdamW.step

    def listening(self):
        (group,) = self.param_groups
        grads = [p.grad.flatten() for p in group["params"] if p.grad is not None]
        norms.append(torch.cat(grads).norm().item())
        rates.append(group["lr"])
        assert group["betas"] == (0.9, 0.95) and group["weight_decay"] == 0
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", listening)
    plan = dataclasses.replace(PLAN, max_norm=1e-3)
    self_distill(pruned, dense, plan, generator=seeded(7))
    np.testing.assert_allclose(norms, 1e-3, rtol=1e-4)
    assert rates == [rate_at(plan, t, plan.steps) for t in range(plan.steps)]


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(pair, monkeypatch):
    dense, pruned = pair
    found = []
    for logits in (2**25, 32 * 16 * 3):  # all texts, or three at a time
        monkeypatch.setattr(self_distillation, "LOGITS", logits)
        plan = dataclasses.replace(PLAN, tokens=3 * 128)
        found.append(self_distill(pruned, dense, plan, generator=seeded(7)).curve)
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_the_best_look_is_kept_and_what_only_hurts_is_not(pair):
    dense, pruned = pair
    plan = dataclasses.replace(PLAN, learning_rate=5.0, warmup=1)
    found = self_distill(pruned, dense, plan, generator=seeded(7))
    assert found.best == 0 and found.curve[1:].mean(1).min() > found.curve[0].mean()
    assert same(found.model, pruned)


def test_weights_of_16_bits_are_trained_in_32_and_come_back_in_16(pair):
    dense, pruned = (tiny_copy_of(m).bfloat16() for m in pair)
    plan = dataclasses.replace(PLAN, learning_rate=1e-3)  # below what 16 bits resolve
    found = self_distill(pruned, dense, plan, generator=seeded(7))
    assert {p.dtype for p in found.model.parameters()} == {torch.bfloat16}
    assert found.curve[-1].mean() < 0.95 * found.curve[0].mean()


def tiny_copy_of(model):
    import copy

    return copy.deepcopy(model)


# when it stops


@given(st.integers(1, 400), st.integers(1, 30), st.floats(0, 0.9))
def test_the_rate_is_a_trapezium_and_never_zero(steps, warmup, cooldown):
    plan = DistillationPlan(
        tokens=1024 * steps, warmup=warmup, cooldown=cooldown, learning_rate=1.0
    )
    assert plan.steps == steps
    rates = np.array([rate_at(plan, t, steps) for t in range(steps)])
    places = [0, warmup, max((1 - cooldown) * steps, 1e-9), steps]
    up = np.interp(np.arange(1, steps + 1), [0, warmup], [0, 1])
    down = np.interp(np.arange(steps), [places[2], steps], [1, 0]) if cooldown else 1
    np.testing.assert_allclose(rates, np.minimum(up, down), rtol=1e-6, atol=1e-9)
    assert rates.min() > 0


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(1e-3, 1))
def test_a_curve_without_change_is_level_and_a_steep_one_is_not(seed, patience, spread):
    rng = np.random.default_rng(seed)
    texts = rng.gamma(2, 1, 48)  # some texts are harder, by more than any change
    noise = rng.normal(0, spread / 100, (patience + 1, 48))
    steep = texts + noise - spread * np.arange(patience + 1)[:, None]
    assert not levelled([*steep], patience)
    assert not levelled([*(texts + noise)][:patience], patience)
    assert levelled([texts + 0.1 * i for i in range(patience + 1)], patience)


def test_a_level_curve_is_told_nearly_always():
    rng, told = np.random.default_rng(0), 0
    for _ in range(400):
        told += levelled([*rng.normal(0, 1, (5, 48))], 4)
    assert 0.95 < told / 400 < 0.999  # a one-sided test of 2.5 %


def test_a_run_that_has_levelled_off_descends_early_and_ends(pair):
    dense, _ = pair
    plan = dataclasses.replace(PLAN, tokens=400 * 128, every=2, patience=2, held=4)
    found = self_distill(dense, dense, plan, generator=seeded(7))  # nothing to learn
    assert found.levelled
    level = 4  # the first look that has two before it
    assert found.looked_at[-1] == math.ceil(level / 0.75) * 128
    assert same(found.model, dense) or found.curve.max() < 1e-6


# what can be interrupted


class Killed(Exception):
    pass


def dying(after):
    """A watch that kills the run after so many looks."""
    left = [after]

    def watch(*_):
        left[0] -= 1
        if not left[0]:
            raise Killed

    return watch


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("looks", [1, 3])
def test_an_interrupted_run_ends_with_the_bytes_of_one_that_was_not(
    pair, rank, looks, tmp_path
):
    dense, pruned = pair
    plan = dataclasses.replace(PLAN, rank=rank)
    generators = seeded(7), seeded(7)
    whole = self_distill(pruned, dense, plan, generator=generators[0])
    store = FolderStore(tmp_path / "run", {}, argument="state")
    with pytest.raises(Killed):
        options = {"generator": seeded(7), "store": store, "watch": dying(looks)}
        self_distill(pruned, dense, plan, **options)
    torch.rand(3)  # the global generator has moved on
    seen = []
    resumed = self_distill(
        pruned,
        dense,
        plan,
        generator=generators[1],
        store=store,
        watch=lambda tokens, *_: seen.append(tokens),
    )
    assert same(whole.model, resumed.model)
    assert np.array_equal(whole.curve, resumed.curve)
    assert torch.equal(whole.held, resumed.held)
    assert torch.equal(*(g.get_state() for g in generators))
    assert seen == whole.looked_at[looks:]  # what was done is not done again


def test_a_run_between_looks_loses_only_what_came_after_the_last(pair, tmp_path):
    dense, pruned = pair
    whole = self_distill(pruned, dense, PLAN, generator=seeded(7))
    store, put = FolderStore(tmp_path / "run", {}), FolderStore.put
    calls = []

    def failing(name, **tensors):  # the best is written, and then the power goes
        calls.append(name)
        if calls.count("run") == 3:
            raise Killed
        put(store, name, **tensors)

    store.put = failing
    with pytest.raises(Killed):
        self_distill(pruned, dense, PLAN, generator=seeded(7), store=store)
    fresh = FolderStore(tmp_path / "run", {})
    resumed = self_distill(pruned, dense, PLAN, generator=seeded(), store=fresh)
    assert same(whole.model, resumed.model)


def test_a_stored_run_may_be_given_more_tokens_while_its_rate_is_level(pair, tmp_path):
    dense, pruned = pair
    more = dataclasses.replace(PLAN, tokens=24 * 128)
    whole = self_distill(pruned, dense, more, generator=seeded(7))
    store = FolderStore(tmp_path / "run", {})
    with pytest.raises(Killed):
        options = {"generator": seeded(7), "store": store, "watch": dying(3)}
        self_distill(pruned, dense, PLAN, **options)  # six of twelve steps
    resumed = self_distill(pruned, dense, more, generator=seeded(), store=store)
    assert same(whole.model, resumed.model) and resumed.looked_at[-1] == 24 * 128
    problem = "tokens is 1536, and the stored run is of 3072 and its learning rate fa"
    with pytest.raises(ValueError, match=problem):
        self_distill(pruned, dense, PLAN, generator=seeded(), store=store)


def test_a_stored_run_may_not_be_made_so_short_that_its_rate_had_fallen(pair, tmp_path):
    dense, pruned = pair
    store = FolderStore(tmp_path / "run", {})
    with pytest.raises(Killed):
        options = {"generator": seeded(7), "store": store, "watch": dying(3)}
        self_distill(pruned, dense, PLAN, **options)  # six of twelve steps
    short = dataclasses.replace(PLAN, tokens=7 * 128)  # falls from 5.25 on
    problem = "of 1536 and has read 768, where a run of 896 would be at a lower .*1536$"
    with pytest.raises(ValueError, match=problem):
        self_distill(pruned, dense, short, generator=seeded(), store=store)


# errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tokens": 1023},
            "tokens is 1023, fewer than the 1024 of one step; give more",
        ),
        ({"tokens": 1.5}, "tokens is 1.5; give a whole number of at least|at least 2"),
        ({"rank": 0}, "rank is 0; give a whole number at least 1"),
        ({"learning_rate": 0}, "learning_rate is 0; give a positive number"),
        ({"learning_rate": math.nan}, "learning_rate is nan; give a positive number"),
        ({"cooldown": 1}, r"cooldown is 1; give a number in \[0, 1\)"),
        ({"held": 1}, "held is 1; give a whole number at least 2"),
        ({"alpha": True}, "alpha is True; give a positive number"),
    ],
)
def test_a_bad_plan_is_refused_when_it_is_made(change, message):
    with pytest.raises(ValueError, match=message):
        DistillationPlan(**change)


def test_what_does_not_go_together_is_said_before_the_work(pair, monkeypatch):
    dense, pruned = pair
    monkeypatch.setattr(self_distillation, "self_sample", pytest.fail)
    other = tiny_model("llama", generator=seeded(), vocab_size=40)
    on = {"generator": seeded()}
    with pytest.raises(ValueError, match="dense chooses among 40 tokens and model amo"):
        self_distill(pruned, other, PLAN, **on)
    with pytest.raises(ValueError, match="window is 128, longer than a context of 64"):
        self_distill(pruned, dense, **on)
    with pytest.raises(ValueError, match="plan is 3; give a DistillationPlan, or None"):
        self_distill(pruned, dense, 3, **on)
    with pytest.raises(ValueError, match="generator is 0; give a torch.Generator"):
        self_distill(pruned, dense, PLAN, generator=0)
    with pytest.raises(ValueError, match="against chooses among 40 tokens"):
        check_pair(pruned, other, PLAN, argument="against")


def test_a_loss_that_is_not_finite_ends_the_run_with_the_remedy(pair, monkeypatch):
    dense, pruned = pair
    loss = text_divergences

    def breaking(*models_and_tokens):
        found = loss(*models_and_tokens)
        return found * math.nan if torch.is_grad_enabled() else found

    monkeypatch.setattr(self_distillation, "text_divergences", breaking)
    with pytest.raises(ValueError, match="loss is nan at step 0; lower learning_rate"):
        self_distill(pruned, dense, PLAN, generator=seeded())


def test_the_rate_falls_over_the_share_of_the_plan():
    assert falls_from(DistillationPlan(cooldown=0.2), 100) == pytest.approx(80)


# the stored measurement


def test_the_default_plan_is_the_stored_run_that_comes_nearest_for_its_tokens():
    stored = json.loads((ROOT / "book" / "results" / "distillation.json").read_text())
    runs, reached = stored["runs"], {}
    least = min(max(map(int, run["looks"])) for run in runs.values())
    for name, run in runs.items():
        look = max(tokens for tokens in map(int, run["looks"]) if tokens <= least)
        reached[name] = np.mean(run["looks"][str(look)]["kl"])
    plan, default = runs[min(reached, key=reached.get)]["plan"], DistillationPlan()
    for field in ("batch_size", "window", "learning_rate", "cooldown", "patience"):
        assert getattr(default, field) == plan[field], field


def test_the_benchmark_stores_each_look_and_takes_a_run_up_again(
    pair, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import distillation as benchmark

    dense, pruned = pair
    small = {"batch_size": 4, "every": 1, "learning_rate": 1e-3, "cooldown": 0.5}
    settings = {"plan": {"held": 4, "window": 16}, "plans": {"small": small}}
    settings["test"] = {"windows": 2, "window": 16}
    words = torch.randint(32, (99,), generator=seeded())
    for name, value in {
        "CONFIGURATION": benchmark.CONFIGURATION | settings,
        "load_model": lambda _: dense,
        "load_tokenizer": lambda _: None,
        "load_pruned": lambda _: pruned,
        "wikitext_tokens": lambda *_: words,
        "beginning_tokens": lambda _: (),
    }.items():
        monkeypatch.setattr(benchmark, name, value)
    path = tmp_path / "table.json"
    options = ["--results", path, "--scratch", tmp_path / "scratch"]
    options += ["--tokens", 256, "--plan", "small"]
    monkeypatch.setattr(sys, "argv", ["distillation.py", *map(str, options)])
    benchmark.main()
    table = json.loads(path.read_text())
    (run,) = table["runs"].values()
    assert [*run["looks"]] == ["0", "64", "128", "192", "256"]
    assert [k for k, look in run["looks"].items() if "nats" in look] == [
        "0",
        "192",
        "256",
    ]
    means = [np.mean(look["kl"]) for look in run["looks"].values()]
    assert len(run["looks"]["0"]["kl"]) == 4 and means[-1] < means[0]
    monkeypatch.setattr(self_distillation, "text_divergences", pytest.fail)
    benchmark.main()  # all of it is there
    assert json.loads(path.read_text()) == table


def test_the_stored_runs_begin_alike_and_one_differs_by_its_rate_alone():
    table = json.loads((ROOT / "book/results/distillation.json").read_text())
    runs = table["runs"]
    first, *others = (run["looks"]["0"]["kl"] for run in runs.values())
    for other in others:  # the same model on the same texts
        np.testing.assert_allclose(other, first, atol=2e-5)
    names = [f"all weights, 8 texts a step{more}" for more in ("", ", half the rate")]
    whole, half = (runs[name] for name in names)
    assert [*whole["looks"]] == [*half["looks"]] and half["best"] == 57_344
    rates = [run["plan"].pop("learning_rate") for run in (whole, half)]
    assert rates[0] == 2 * rates[1] and whole["plan"] == half["plan"]
