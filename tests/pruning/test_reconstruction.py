"""Blocks fitted to the dense ones: the gradient, what is never worse, what helps."""

import copy
import dataclasses
import functools
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from prunefair.pruning.layered import layered_copy
from prunefair.pruning.perplexity import kl_to_dense, self_sample
from prunefair.pruning.reconstruction import (
    INPUTS,
    FfnBlock,
    ReconstructionPlan,
    Samples,
    block_error,
    ffn_block,
    reconstruct_,
    reconstruct_block,
    refit_block,
    residual_scale,
    spread_inputs,
)
from prunefair.pruning.refit import refit_
from prunefair.pruning.self_moments import down_projections, hidden_moments
from prunefair.pruning.surgery import ADAPTERS, adapter_for, prune_rows, tiny_model

ROOT = Path(__file__).resolve().parents[2]
KEPT = [torch.arange(7), torch.arange(3, 11)]
SMALL = ReconstructionPlan(batch=64, steps=180, spread=0.3, learning_rate=0.01)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def refitted(model, texts, kept=KEPT):
    moments = hidden_moments(model, texts)
    return refit_(prune_rows(model, kept), model, kept, moments, ridge=0.1)


def block(seed=0, d=6, m=10, activation=torch.nn.functional.silu, dtype=torch.float32):
    """A gated block with biases."""
    g = seeded(seed)
    shapes = ((m, d), (m, d), (d, m))
    maps = [
        (
            torch.randn(s, generator=g).to(dtype),
            torch.randn(s[0], generator=g).to(dtype),
        )
        for s in shapes
    ]
    return FfnBlock(maps, activation)


def fewer(whole, rows):
    """The block without some neurons."""
    (W, a), (U, b), (D, c) = whole.maps
    maps = [(W[rows], a[rows]), (U[rows], b[rows]), (D[:, rows], c)]
    return whole._replace(maps=maps)


@pytest.mark.parametrize("family", sorted(ADAPTERS))
@torch.no_grad()
def test_a_block_is_the_function_that_the_model_computes(family):
    """The oracle is what passes the model's own linear maps."""
    model = tiny_model(family, generator=seeded(3))
    adapter, seen = adapter_for(model), []
    for module in adapter.blocks(model):
        first, *_, last = adapter.linears(module)
        first.register_forward_hook(lambda _, x, y: seen.append(x[0]))
        # Falcon adds to the output in place
        last.register_forward_hook(lambda _, x, y: seen.append((x[0], y.clone())))
    model(torch.arange(3, 15)[None])
    for module, x, (h, y) in zip(adapter.blocks(model), seen[::2], seen[1::2]):
        ours, d = ffn_block(model, module), x.shape[-1]
        torch.testing.assert_close(ours.hidden(x.reshape(-1, d)), h.flatten(0, -2))
        torch.testing.assert_close(ours(x.reshape(-1, d)), y.reshape(-1, d))


@pytest.mark.parametrize("which", range(6))
def test_the_gradient_is_that_of_finite_differences(which):
    whole = block(1, dtype=torch.float64)
    start = fewer(whole, torch.arange(6))
    x = torch.randn(20, 6, generator=seeded(2)).double()
    leaves = [w.clone().requires_grad_() for pair in start.maps for w in pair]

    def loss(values):
        maps = [*zip(values[::2], values[1::2])]
        return (FfnBlock(maps, start.activation)(x) - whole(x)).square().sum()

    loss(leaves).backward()
    towards = torch.randn(leaves[which].shape, generator=seeded(which)).double()
    ends = []
    for step in (1e-5, -1e-5):
        moved = [
            w.detach() + (step * towards if i == which else 0)
            for i, w in enumerate(leaves)
        ]
        ends.append(float(loss(moved)))
    slope = float((leaves[which].grad * towards).sum())
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope, rel=1e-6)


def test_an_error_is_weighted_by_tokens_and_after_a_metric():
    whole = block(4)
    part, x = fewer(whole, torch.arange(7)), torch.randn(9, 6, generator=seeded(1))
    gap, weight = (
        torch.randn(9, 6, generator=seeded(2)),
        torch.rand(9, generator=seeded(3)),
    )
    R = torch.randn(6, 6, generator=seeded(5))
    lost = energy = 0.0
    for i in range(9):
        target = R @ (whole(x[i : i + 1])[0] + gap[i])
        lost += float(weight[i] * (R @ part(x[i : i + 1])[0] - target).norm() ** 2)
        energy += float(weight[i] * target.norm() ** 2)
    samples = Samples(x, gap, weight)
    found = block_error(whole, part, samples, metric=R, batch=4)
    assert found == pytest.approx(lost / energy, rel=1e-5)
    assert block_error(whole, whole, Samples(x)) == 0
    silent = whole._replace(maps=[*whole.maps[:2], (0 * whole.maps[2][0], None)])
    assert block_error(silent, silent, Samples(x)) == 0


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rate=st.sampled_from([1e-3, 0.02, 0.9]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    spread=st.sampled_from([0.0, 0.6, 5.0]),
    n=st.integers(1, 60),
)
def test_no_fit_is_worse_than_its_start_on_what_judges(seed, rate, dtype, spread, n):
    """Whatever the step, the noise, the rounding and the number of tokens."""
    whole, g = block(seed), seeded(seed + 1)
    start = fewer(block(seed, dtype=dtype), torch.randperm(10, generator=g)[:6])
    x, held = (Samples(torch.randn(k, 6, generator=g)) for k in (n, 20))
    plan = ReconstructionPlan(batch=16, steps=20, learning_rate=rate, spread=spread)
    fit = reconstruct_block(whole, start, x, held, plan=plan, generator=g)
    assert fit.errors[fit.best] == min(fit.errors) <= fit.errors[0]
    assert all(w.dtype == dtype for pair in fit.maps for w in pair)
    as_float = [tuple(w.float() for w in pair) for pair in fit.maps]
    again = block_error(whole, start._replace(maps=as_float), held)
    assert again == pytest.approx(fit.errors[fit.best], rel=1e-6)
    assert len(fit.errors) - 1 - fit.best <= plan.patience


def test_a_fit_finds_a_block_of_which_it_has_seen_only_the_outputs():
    """A block that a smaller one equals: the fit comes near, the re-fit cannot."""
    whole = block(7, m=5)
    (W, a), (U, b), (D, c) = whole.maps
    moved = [(W + 0.2 * W.flip(0), a), (U, b), (D, c)]
    x, held = (Samples(torch.randn(k, 6, generator=seeded(k))) for k in (2000, 300))
    start = whole._replace(maps=moved)
    h, y = start.hidden(x.x), whole(x.x)
    ones = torch.ones(len(h), 1)
    least = torch.linalg.lstsq(torch.cat([h, ones], 1), y).solution
    start.maps[2] = (least[:-1].T.contiguous(), least[-1])
    plan = ReconstructionPlan(batch=100, steps=1200, learning_rate=0.02, spread=0)
    fit = reconstruct_block(whole, start, x, held, plan=plan, generator=seeded())
    assert fit.errors[0] > 0.01 and fit.errors[fit.best] < fit.errors[0] / 20


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 3.0), st.integers(1, 40))
def test_spread_inputs_keep_the_mean_and_widen_the_rest(seed, nu, n):
    x = torch.randn(n, 4, generator=seeded(seed)).double() + 3
    moved = spread_inputs(x, nu, generator=seeded(seed))
    torch.testing.assert_close(moved.mean(0), x.mean(0))
    assert torch.equal(spread_inputs(x, 0, generator=seeded(seed)), x)
    many = x[:1] + torch.randn(20_000, 4, generator=seeded(seed)).double()
    wider = spread_inputs(many, nu, generator=seeded(seed)).var(0) / many.var(0)
    torch.testing.assert_close(wider, 1 + 0 * wider + nu**2, rtol=0.1, atol=0)


@pytest.mark.parametrize("family", sorted(ADAPTERS))
def test_a_reconstructed_model_is_nearer_than_a_re_fitted_one(family):
    """On texts that neither has read; what is shared with the dense model stays."""
    model = tiny_model(family, generator=seeded())
    texts, held = (self_sample(model, n, 16, generator=seeded(n)) for n in (48, 24))
    before = copy.deepcopy(model.state_dict())
    pruned = refitted(model, texts)
    far = kl_to_dense(model, pruned, held)
    fits = reconstruct_(pruned, model, texts, plan=SMALL, generator=seeded())
    ends = [(fit.errors[0], fit.errors[fit.best]) for fit in fits]
    assert sum(b for _, b in ends) < 0.9 * sum(a for a, _ in ends)
    assert kl_to_dense(model, pruned, held) < 0.97 * far
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def weights(model):
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("inputs", INPUTS)
def test_a_fit_depends_on_its_seed_and_on_nothing_else(inputs):
    model = tiny_model("gemma", generator=seeded())
    texts = self_sample(model, 12, 9, generator=seeded(1))
    plan, found = ReconstructionPlan(batch=32, steps=20, inputs=inputs), []
    for seed, drawn in ((1, 0), (1, 5), (2, 0)):
        generator = seeded(seed)
        torch.rand(drawn, generator=generator)  # where it stands does not matter
        pruned = refitted(model, texts)
        reconstruct_(pruned, model, texts, plan=plan, generator=generator)
        found.append(weights(pruned))
    assert all(map(torch.equal, found[0], found[1]))
    assert not all(map(torch.equal, found[0], found[2]))


def test_later_blocks_make_up_for_earlier_ones_only_where_they_are_asked_to():
    """The second block keeps all neurons: there is only the first to make up for."""
    model = tiny_model("llama", generator=seeded(2))
    texts = self_sample(model, 24, 12, generator=seeded(1))
    kept, found = [torch.arange(3), torch.arange(12)], {}
    for inputs in INPUTS:
        pruned = refitted(model, texts, kept)
        plan = ReconstructionPlan(batch=64, steps=90, inputs=inputs)
        fits = reconstruct_(pruned, model, texts, plan=plan, generator=seeded())
        found[inputs] = fits[1].errors
        untouched = torch.equal(
            down_projections(pruned)[1].weight, down_projections(model)[1].weight
        )
        assert untouched == (inputs != "corrected")
    assert found["dense"] == found["own"] == [0.0]
    assert 0 < min(found["corrected"]) < 0.9 * found["corrected"][0]


def test_tokens_count_by_the_stream_where_they_are_asked_to():
    """One token with an enormous stream no longer decides."""
    model = tiny_model("mistral", generator=seeded())
    texts = self_sample(model, 24, 12, generator=seeded(1))
    embedding = model.get_input_embeddings().weight
    embedding.data[texts[0, 0]] *= 1e4  # the start token of every text
    found = {}
    for weighting in ("plain", "stream"):
        plan = ReconstructionPlan(batch=64, steps=24, weighting=weighting)
        pruned = prune_rows(model, KEPT)
        found[weighting] = reconstruct_(
            pruned, model, texts, plan=plan, generator=seeded()
        )
    first = [fits[0].errors[0] for fits in found.values()]
    assert first[0] != first[1]


def test_what_cannot_be_fitted_is_told_before_the_work():
    model = tiny_model("llama", generator=seeded())
    pruned = prune_rows(model, KEPT)
    texts, judges = torch.ones(2, 4).long(), torch.ones(2, 5).long()
    with pytest.raises(ValueError, match="judges have 5 tokens and texts 4; give both"):
        reconstruct_(pruned, model, texts, judges=judges, generator=seeded())
    with pytest.raises(ValueError, match="texts holds 99"):
        reconstruct_(pruned, model, torch.full((2, 4), 99), generator=seeded())
    with pytest.raises(ValueError, match="a text of 65 tokens is longer"):
        reconstruct_(pruned, model, torch.ones(2, 65).long(), generator=seeded())


CLOSED = ReconstructionPlan(steps=0, ridges=(0.1,))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.3, 5.0]), st.booleans())
def test_a_closed_fit_solves_the_least_squares_that_it_states(seed, ridge, weighted):
    whole = block(seed)
    start, g = fewer(whole, torch.arange(0, 10, 2)), seeded(seed)
    x, gap = torch.randn(2, 40, 6, generator=g)
    weight = torch.rand(40, generator=g) + 0.1 if weighted else None
    some = Samples(x, gap, weight)
    found = refit_block(whole, start, some, some, ridges=[ridge]).maps[-1]
    h = np.c_[start.hidden(x).numpy(), np.ones(40)]
    root = np.ones(40) if weight is None else weight.sqrt().numpy()
    rows = h * root[:, None]
    damp = np.diag(np.sqrt(ridge * np.square(rows).sum(0)))
    missing = (whole(x) + gap - start(x)).numpy() * root[:, None]
    system = np.r_[rows, damp], np.r_[missing, np.zeros((6, 6))]
    change = np.linalg.lstsq(*system, rcond=None)[0].T
    D, c = (x.numpy() for x in start.maps[-1])
    np.testing.assert_allclose(
        found[0].numpy(), D + change[:, :-1], rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(
        found[1].numpy(), c + change[:, -1], rtol=1e-3, atol=1e-4
    )


def test_the_texts_that_judge_choose_the_ridge():
    whole, g = block(1), seeded(2)
    start = fewer(whole, torch.arange(4))
    few, many = (Samples(torch.randn(n, 6, generator=g)) for n in (5, 500))
    ridges, errors = (1e-6, 0.1, 1.0, 1e3), []
    for ridge in ridges:
        made = refit_block(whole, start, few, many, ridges=[ridge])
        errors.append(block_error(whole, made, many))
    best = refit_block(whole, start, few, many, ridges=ridges)
    assert block_error(whole, best, many) == min(errors) < 0.9 * max(errors)


def test_with_the_dense_inputs_it_is_the_re_fit():
    model = tiny_model("mistral", generator=seeded())
    texts = self_sample(model, 24, 12, generator=seeded(1))
    pruned = prune_rows(model, KEPT)
    options = {"plan": CLOSED, "judges": texts, "generator": seeded()}
    reconstruct_(pruned, model, texts, **options)
    for ours, known in zip(
        *map(down_projections, (pruned, refitted(model, texts))), strict=True
    ):
        torch.testing.assert_close(ours.weight, known.weight, rtol=1e-3, atol=1e-5)


def streams(model, texts):
    """What the last layer is given by the block before it, and puts out itself."""
    found = []
    layers = model.base_model.get_submodule(adapter_for(model).layers)
    with torch.no_grad():
        for layer in layers:
            hook = layer.register_forward_hook(lambda *a: found.append(a[-1]))
            model(texts, use_cache=False)
            hook.remove()
    return [out[0] if isinstance(out, tuple) else out for out in found]


@pytest.mark.parametrize("family", ["llama", "opt", "gpt_neox", "granite", "phi"])
def test_the_whole_share_leaves_the_least_drift_on_the_texts_of_the_fit(family):
    model = tiny_model(family, generator=seeded())
    texts = self_sample(model, 24, 12, generator=seeded(1))
    dense, left = streams(model, texts), {}
    for share in (0.0, 0.5, 1.0):
        plan = ReconstructionPlan(
            steps=0, inputs="corrected", drift=share, ridges=(1e-6,)
        )
        pruned = prune_rows(model, KEPT)
        reconstruct_(pruned, model, texts, plan=plan, judges=texts, generator=seeded())
        pairs = zip(dense, streams(pruned, texts), strict=True)
        left[share] = [float((a - b).square().sum()) for a, b in pairs]
    firsts = [some[0] for some in left.values()]
    assert max(firsts) < 1.001 * min(firsts)  # nothing has drifted before
    assert left[1.0][1] < left[0.5][1] < left[0.0][1]


@pytest.mark.parametrize(
    ("family", "expected"),
    [("llama", 1), ("phi", 1), ("granite", "multiplier"), ("gemma2", None)],
)
def test_the_scale_of_the_stream_is_that_of_the_family(family, expected):
    model = tiny_model(family, generator=seeded())
    layered = layered_copy(model)
    with layered.present(1):
        hidden = torch.randn(1, 5, model.config.hidden_size, generator=seeded())
        before = [p.clone() for p in layered.linears(1)[-1].parameters()]
        scale = residual_scale(layered, 1, hidden)
        assert all(map(torch.equal, before, layered.linears(1)[-1].parameters()))
    if expected == "multiplier":
        expected = model.config.residual_multiplier
        assert expected != 1
    assert scale is None if expected is None else scale == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"steps": -1}, "steps is -1; give a whole number at least 0"),
        ({"batch": 0}, "batch is 0; give a whole number at least 1"),
        ({"learning_rate": 0}, "learning_rate is 0; give a number between 0 and 1"),
        ({"spread": -0.1}, "spread is -0.1; give a number between 0 and 10"),
        ({"spread": float("nan")}, "spread is nan; give"),
        ({"held": 1.0}, "held is 1.0; give a number between 0 and 1"),
        ({"drift": 1.1}, "drift is 1.1; give a number between 0 and 1"),
        ({"drift": -0.1}, "drift is -0.1; give"),
        ({"ridges": (0.1, 0)}, "ridges holds 0; give positive numbers"),
        ({"inputs": "mine"}, "inputs is 'mine'; give dense or own or corrected"),
        ({"weighting": "by ear"}, "weighting is 'by ear'; give plain or stream"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(fields, line):
    with pytest.raises(ValueError, match=line):
        ReconstructionPlan(**fields)


def test_without_steps_or_without_loss_nothing_changes():
    model = tiny_model("opt", generator=seeded())
    texts = self_sample(model, 6, 9, generator=seeded(1))
    for kept, plan in (
        (KEPT, ReconstructionPlan(steps=0)),
        ([torch.arange(12)] * 2, SMALL),
    ):
        pruned = prune_rows(model, kept)
        before = [w.clone() for w in weights(pruned)]
        reconstruct_(pruned, model, texts, plan=plan, generator=seeded())
        assert all(map(torch.equal, weights(pruned), before))


# the stored measurement


def test_the_stored_choices_keep_their_order_and_gain_by_every_repair():
    table = json.loads((ROOT / "book/results/functional_policy.json").read_text())
    repaired, ranked = table["repaired"], table["selections"]["0.3"]
    assert [*repaired] == [*ranked] and len(ranked) == 22
    means = {stage: [] for stage in ("sliced", "refitted", "reconstructed")}
    for name, row in repaired.items():
        # the same slices as were ranked; policies are trained, and a few rows differ
        near = {"rtol": 0.05 if name.startswith("policy") else 2e-3}
        np.testing.assert_allclose(row["sliced"], ranked[name]["kl"], **near)
        for stage, values in means.items():
            assert len(row[stage]) == 8
            values.append(np.mean(row[stage]))
        assert values[-1] < means["refitted"][-1] < means["sliced"][-1]
        assert 0.3 <= row["ridge"] <= 10  # inside of what was walked on
    order = spearmanr(means["sliced"], means["reconstructed"]).statistic
    assert order > 0.9
    best = np.argsort(means["sliced"])[:11]
    inner = [spearmanr(np.take(means["sliced"], best), np.take(v, best)).statistic
             for v in means.values()]  # fmt: skip
    assert inner[0] > 0.999 and min(inner[1:]) > 0.8


def tiny_run(tmp_path, monkeypatch, model):
    """The benchmark of more text, on a tiny model and in small sizes."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import reconstruction_text as benchmark

    kept = functools.partial(benchmark.tensors_once, tmp_path / "scratch")
    settings = {"layers": [0, 1], "length": 9, "parts": [2, 12], "rows_on": 6}
    settings |= {"judges": 6, "tests": 8, "seeds": 2, "long": [24, 16, 0.0]}
    settings |= {"steps": {"4": [8], "24": [8]}, "model_on": [[4, 24], 5]}
    settings["judgements"] = {"8": [2, 2], "16": [4, 2]}
    for name, value in {
        "CONFIGURATION": benchmark.CONFIGURATION | settings,
        "load_model": lambda _, dtype: model,
        "kept_file": kept,
    }.items():
        monkeypatch.setattr(benchmark, name, value)
    path = tmp_path / "table.json"
    monkeypatch.setattr(sys, "argv", ["reconstruction_text.py", "--results", str(path)])
    return benchmark, path


def test_the_benchmark_of_more_text_fits_what_is_asked_and_nothing_twice(
    tmp_path, monkeypatch
):
    model = tiny_model("llama", generator=seeded(), mlp_bias=False)
    benchmark, path = tiny_run(tmp_path, monkeypatch, model)
    benchmark.main()
    table = json.loads(path.read_text())
    for layer in "01":
        sliced = np.mean(table["sliced"][layer])
        assert {n: [*rows] for n, rows in table["refitted"][layer].items()} == {
            "4": ["0", "1"],
            "24": ["0"],
        }
        most = np.mean(table["refitted"][layer]["24"]["0"]["errors"])
        assert len(table["sliced"][layer]) == 8 and most < sliced
        fits = table["fits"][layer]["24"]
        assert [len(row) for row in fits.values()] == [3]
        for row in fits["0"].values():
            assert min(row["judged"]) <= row["judged"][0]
    assert [len(kl) for kl in table["model"]["fitted"].values()] == [5, 5]
    dropped = table["fits"]["1"]["4"].pop("1")
    path.write_text(json.dumps(table))
    calls, fit = [], benchmark.Bench.fit
    monkeypatch.setattr(
        benchmark.Bench, "fit", lambda *on: calls.append(on[1:]) or fit(*on)
    )
    monkeypatch.setattr(benchmark, "written", pytest.fail)
    benchmark.main()
    assert calls == [(1, 4, 1, 0.0, 8)]
    made = json.loads(path.read_text())["fits"]["1"]["4"]["1"]
    for name, row in dropped.items():
        assert made[name]["errors"] == row["errors"]


def test_the_benchmark_of_more_text_writes_what_the_model_says(tmp_path, monkeypatch):
    model = tiny_model("llama", generator=seeded(), mlp_bias=False)
    benchmark, _ = tiny_run(tmp_path, monkeypatch, model)
    found, n = benchmark.written(model, 4000, seeded(1)), 4000
    tokens, seen = found["tokens"], []
    hook = lambda _, x: seen.append(x[0])  # noqa: E731
    model.model.layers[1].mlp.register_forward_pre_hook(hook)
    with torch.no_grad():
        p = model(tokens[:, :-1]).logits.softmax(-1)
    torch.testing.assert_close(found["x.1"], seen[0], rtol=1e-4, atol=1e-5)
    for place in (0, 7):  # what is drawn there, beside what was probable there
        share = torch.bincount(tokens[:, place + 1], minlength=p.shape[-1]) / n
        mean = p[:, place].mean(0)
        assert ((share - mean).abs() < 5 * (mean / n).sqrt() + 1e-3).all()


def test_the_quick_turns_of_the_benchmark_do_what_the_package_does(
    tmp_path, monkeypatch
):
    """In bfloat16, and with the target put together in another way."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import reconstruction as benchmark

    kept_file = functools.partial(benchmark.tensors_once, tmp_path)
    monkeypatch.setattr(benchmark, "kept_file", kept_file)
    model = tiny_model("llama", generator=seeded(), mlp_bias=False)
    texts, judges = (self_sample(model, n, 9, generator=seeded(n)) for n in (48, 12))
    plan = ReconstructionPlan(
        steps=0, inputs="corrected", drift=0.5, ridges=(0.01, 0.1, 1.0)
    )
    long = dataclasses.replace(plan, steps=40, batch=64, spread=0.0, patience=8)
    bench = types.SimpleNamespace(model=model, whole_rows=KEPT, say=lambda *_: None)
    found = benchmark.in_turns(bench, texts, judges, {"closed": plan, "steps": long})
    pruned = prune_rows(model, KEPT)
    fits = reconstruct_(
        pruned, model, texts, judges=judges, plan=plan, generator=seeded()
    )
    for number, (fit, maps) in enumerate(zip(fits, found["closed"][0], strict=True)):
        for (weight, _), (near, _) in zip(fit.maps, maps, strict=True):
            assert (weight - near).norm() < 0.02 * weight.norm()
        sliced, closed = found["closed"][1][number]
        assert closed == pytest.approx(min(fit.errors), rel=0.02) and closed < sliced
        stepped = found["steps"][1][number]
        assert min(stepped) < stepped[1]  # better than in closed form
    monkeypatch.setattr(benchmark, "fit_to_target", pytest.fail)  # nothing twice
    again = benchmark.in_turns(bench, texts, judges, {"closed": plan, "steps": long})
    assert [again[name][1] for name in again] == [found[name][1] for name in found]
