"""Going through a checkpoint a block at a time changes nothing but the memory."""

import dataclasses
import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layered import FAMILIES, layered_copy, seeded
from torch.utils.flop_counter import FlopCounterMode

from prunefair.messages import Given
from prunefair.models import empty_model
from prunefair.pruning import functional_pruning, sweeps
from prunefair.pruning.folders import load_pruned, save_pruned
from prunefair.pruning.functional_policy import (
    FunctionalLayer,
    FunctionalSlices,
    fisher_costs,
)
from prunefair.pruning.functional_pruning import prune_functional, self_statistics
from prunefair.pruning.lanczos import orthonormal_probes
from prunefair.pruning.layered import FolderStore, MemoryStore
from prunefair.pruning.reconstruction import (
    CORRECTED,
    ReconstructionPlan,
    reconstruct_,
)
from prunefair.pruning.refit import mean_moments
from prunefair.pruning.self_moments import down_projections
from prunefair.pruning.surgery import prune_rows, tiny_model
from prunefair.pruning.sweeps import (
    FunctionalQuadrature,
    functional_penalty,
    prune_swept,
    reconstruct_swept,
    sample_texts,
    sweep_work,
    swept_statistics,
    write_swept,
)


def both(family, dtype=torch.float32, *, n_texts=6, length=6, store=None, **fields):
    """The statistics of a tiny model by the sweeps and in memory."""
    model = tiny_model(family, generator=seeded(), dtype=dtype, **fields)
    layered, size = layered_copy(model), {"n_texts": n_texts, "length": length}
    store = MemoryStore() if store is None else store
    swept = swept_statistics(layered, store, generator=seeded(1), **size)
    return model, layered, swept, self_statistics(model, generator=seeded(1), **size)


def same(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


# 16 float32 texts of 6 tokens: moments are kept; 3 bfloat16 ones: hidden vectors
@pytest.mark.parametrize(
    ("dtype", "n_texts"), [(torch.float32, 16), (torch.bfloat16, 3)], ids=str
)
@pytest.mark.parametrize("family", FAMILIES)
def test_swept_statistics_and_the_pruned_folder_are_those_of_the_pipeline_in_memory(
    family, dtype, n_texts, tmp_path
):
    model, layered, swept, known = both(family, dtype, n_texts=n_texts)
    moments = mean_moments(known.halves)
    assert same(swept.fisher, known.fisher)
    for found, expected in ((swept.moments, moments), *zip(swept.halves, known.halves)):
        assert same(found.second, expected.second) and same(found.mean, expected.mean)
        assert found.tokens == expected.tokens
    options = {"even": family != "llama", "episodes": 1}
    run = prune_swept(layered, swept, 0.3, generator=seeded(2), **options)
    whole = prune_functional(
        model, 0.3, generator=seeded(2), statistics=known, **options
    )
    assert same(run.kept, whole.kept) and run.ridge == whole.ridge
    assert (run.ks == whole.ks).all() and run.history == whole.history
    out = write_swept(layered.model, layered, swept, run, tmp_path / "swept")
    save_pruned(whole.model, None, tmp_path / "whole", whole.kept)
    for file in (tmp_path / "whole").iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes(), file.name
    assert load_pruned(out).num_parameters() == whole.model.num_parameters()


def test_without_a_bias_the_swept_re_fit_is_that_in_memory_too(tmp_path):
    """OPT and Phi have a bias, a plain LLaMA has none: both are in the test above."""
    kinds = {
        name: down_projections(tiny_model(name, generator=seeded()))[0].bias is None
        for name in FAMILIES
    }
    assert set(kinds.values()) == {True, False} and kinds["mistral"]
    assert not kinds["opt"] and not kinds["phi"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_swept_reconstruction_is_that_in_memory(family, dtype, tmp_path):
    """With the inputs of the dense model and of the pruned one, and after a stop."""
    model, layered, swept, known = both(family, dtype, n_texts=8)
    plan, options = ReconstructionPlan(batch=16, steps=12), {"even": True}
    if dtype == torch.bfloat16:
        plan = dataclasses.replace(CORRECTED, batch=16, steps=12)
    options["episodes"] = 1
    whole = prune_functional(
        *(model, 0.5),
        generator=seeded(2),
        statistics=known,
        reconstruct=plan,
        **options,
    )
    save_pruned(whole.model, None, tmp_path / "whole", whole.kept)
    run = prune_swept(layered, swept, 0.5, generator=seeded(2), **options)
    how, place = {"plan": plan, "generator": seeded(2)}, tmp_path / "sums"
    with pytest.raises(Interrupted):
        store = Fragile(place, {}, puts=2)  # the texts that judge, and a block
        reconstruct_swept(layered, swept, run, store, **how)
    done = files(place)
    store = FolderStore(place, {})
    fitted = reconstruct_swept(layered, swept, run, store, **how)
    assert done.items() < files(place).items()
    assert fitted.block_errors == [list(pair) for pair in whole.block_errors]
    out = write_swept(layered.model, layered, swept, fitted, tmp_path / "swept")
    for file in (tmp_path / "whole").iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes(), file.name
    other = ReconstructionPlan(batch=16, steps=0)
    again = reconstruct_swept(
        layered, swept, run, store, plan=other, generator=seeded(2)
    )
    assert [a == b for a, b in again.block_errors] == [True, True]
    fitted.fits.drop()
    again.fits.drop()
    assert len(files(place)) == 2  # the statement, and the texts that judge


class Interrupted(Exception):
    pass


class Fragile(FolderStore):
    """A folder that breaks down when something has been put into it."""

    def __init__(self, *given, puts):
        super().__init__(*given)
        self.left = puts

    def put(self, name, **tensors):
        if not self.left:
            raise Interrupted(name)
        self.left -= 1
        super().put(name, **tensors)


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_the_costs_are_those_of_the_first_texts_on_every_way(monkeypatch):
    monkeypatch.setattr(functional_pruning, "COST_TEXTS", 3)
    model, layered, swept, known = both("llama", n_texts=20)  # halves of 8 and 2
    assert same(swept.fisher, known.fisher)
    assert same(known.fisher, fisher_costs(model, swept.texts[:8]))
    moments = mean_moments(known.halves)
    assert same(swept.moments.second, moments.second) and moments.tokens == 20 * 6
    plans = [
        sweeps.sweep_plan(layered.model, 0.3, tokens=6 * n, length=6) for n in (20, 40)
    ]
    assert plans[1].waiting - plans[0].waiting == 20 * 6 * (2 * 8 * 4 + 8)
    work = [sweep_work(layered.model, 0.3, tokens=6 * n, length=6) for n in (20, 40)]
    assert work[0]["backward"][1].operations == work[1]["backward"][1].operations


@pytest.mark.parametrize(("n_texts", "few"), [(3, 64), (16, 64), (20, 3)])
def test_an_interrupted_run_goes_on_where_it_stopped_to_the_same_bytes(
    n_texts, few, tmp_path, monkeypatch
):
    monkeypatch.setattr(functional_pruning, "COST_TEXTS", few)
    model = tiny_model("opt", generator=seeded(), dtype=torch.bfloat16)
    size = {"n_texts": n_texts, "length": 6}

    def statistics(store):
        return swept_statistics(layered_copy(model), store, generator=seeded(1), **size)

    def selection(store):
        generator, layered = seeded(1), layered_copy(model)
        known = swept_statistics(layered, store, generator=generator, **size)
        options = {"generator": generator, "episodes": 2, "even": True}
        return prune_swept(layered, known, 0.5, **options)

    statistics(FolderStore(tmp_path / "whole", {"seed": 1}))
    expected = files(tmp_path / "whole")
    chosen = selection(MemoryStore())
    for puts in range(10):
        folder = tmp_path / str(puts)
        with pytest.raises(Interrupted):
            statistics(Fragile(folder, {"seed": 1}, puts=puts))
        again = selection(FolderStore(folder, {"seed": 1}))
        assert files(folder) == expected, puts
        assert same(again.kept, chosen.kept) and again.history == chosen.history
    assert len(expected) == 2 + 2 * 2  # texts, statement, moments and costs


class Weighed(FolderStore):
    """A folder that knows the most bytes that ever were in it."""

    most = 0

    def put(self, name, **tensors):
        super().put(name, **tensors)
        sizes = [file.stat().st_size for file in self.folder.iterdir()]
        self.most = max(self.most, sum(sizes))


@pytest.mark.parametrize("few", [4, 64])
def test_a_folder_never_holds_more_than_is_planned(few, tmp_path, monkeypatch):
    monkeypatch.setattr(functional_pruning, "COST_TEXTS", few)
    shape = {"hidden_size": 64, "num_hidden_layers": 5}
    layered = layered_copy(tiny_model("llama", generator=seeded(), **shape))
    store, size = Weighed(tmp_path / "x", {}), {"n_texts": 48, "length": 32}
    swept_statistics(layered, store, generator=seeded(1), **size)
    plan = sweeps.sweep_plan(layered.model, 0.3, tokens=48 * 32, length=32)
    assert 0.8 * plan.waiting < store.most < plan.waiting + 30_000  # headers


def test_what_is_done_is_not_done_again_and_costs_can_come_later(tmp_path, monkeypatch):
    model = tiny_model("llama", generator=seeded())
    layered, size = layered_copy(model), {"n_texts": 4, "length": 6}
    store = FolderStore(tmp_path / "x", {})
    first = swept_statistics(layered, store, generator=seeded(1), costs=False, **size)
    assert first.fisher is None and not list((tmp_path / "x").glob("inputs*"))
    later = swept_statistics(layered, store, generator=seeded(7), **size)
    assert same(
        later.fisher, self_statistics(model, generator=seeded(1), **size).fisher
    )
    monkeypatch.setattr(sweeps, "_through", None)  # nothing is run any more
    monkeypatch.setattr(sweeps, "sample_texts", None)
    again = swept_statistics(layered, store, generator=seeded(9), **size)
    assert same(again.fisher, later.fisher) and torch.equal(again.texts, first.texts)


def test_texts_fit_into_what_is_free_or_the_error_says_what_does_not():
    model = tiny_model("llama", generator=seeded())
    layered = layered_copy(model)
    *_, layer, _, _ = sweeps._sizes(layered.model)
    plenty = sample_texts(layered, 8, 6, generator=seeded(1))
    for free in (1e9, 40_000, 20_000, 3 * layer):
        resident, group = sweeps._room(layered.model, 8, 6, free)
        assert 0 <= resident <= 2 and 1 <= group <= 8
        found = sample_texts(layered, 8, 6, generator=seeded(1), free=free)
        assert found.shape == (8, 6)
        assert torch.equal(found, plenty) or group < 8
    with pytest.raises(ValueError, match="free is .* GB, where a layer has"):
        sample_texts(layered, 8, 6, generator=seeded(1), free=layer)


def test_fewer_than_two_texts_or_tokens_are_refused():
    layered = layered_copy(tiny_model("llama", generator=seeded()))
    for n_texts, length in ((1, 6), (2, 1)):
        with pytest.raises(ValueError, match="both must be at least 2"):
            swept_statistics(
                layered,
                MemoryStore(),
                generator=seeded(),
                n_texts=n_texts,
                length=length,
            )


def wide_layer(d=48, m=100, seed=3):
    """A block whose functional spectrum spans some decades, as trained ones do."""
    g = seeded(seed)
    size = torch.logspace(1, -2, m)[torch.randperm(m, generator=g)]
    h = torch.randn(4 * m, m, generator=g) @ torch.randn(m, m, generator=g) / m**0.5
    h = h * size
    D = torch.randn(d, m, generator=g)
    return FunctionalLayer(D, h.T @ h / len(h), torch.rand(m, generator=g))


def test_quadrature_estimates_what_eigenvalues_say():
    layer, g = wide_layer(), seeded(4)
    orders = [torch.rand(100, generator=g) for _ in range(4)]
    orders += [layer.energies, layer.energies.log() + torch.randn(100, generator=g)]
    kept = torch.stack([x.topk(70).indices.sort().values for x in orders])
    exact = FunctionalSlices(layer, dtype=torch.float64)(kept)
    every = orthonormal_probes(48, 48, generator=g)
    full = FunctionalQuadrature(layer, probes=every, steps=48)(kept)
    assert (full - exact).abs().max() < 0.03  # a node for every value
    some = FunctionalQuadrature(layer, probes=every[:32])(kept)
    assert (some - exact).abs().max() < 0.06
    assert some[4] < some[:4].min() and exact[4] < exact[:4].min()
    one = FunctionalQuadrature(layer, probes=every[:32])(kept[0])
    assert one.shape == () and torch.equal(one, some[0])


def test_wide_models_are_charged_by_quadrature_in_both_pipelines(monkeypatch):
    assert functional_penalty(2048, generator=seeded()) is FunctionalSlices
    monkeypatch.setattr(sweeps, "WIDE", 4)
    monkeypatch.setattr(sweeps, "PROBES", 4)
    model, layered, swept, known = both("llama")
    generator = seeded(2)
    penalty = functional_penalty(8, generator=generator)
    assert penalty.func is FunctionalQuadrature
    options = {"episodes": 2, "even": True}
    whole = prune_functional(
        model, 0.3, statistics=known, generator=generator, penalty=penalty, **options
    )
    run = prune_swept(layered, swept, 0.3, generator=seeded(2), **options)
    assert same(run.kept, whole.kept) and run.history == whole.history
    assert (run.ks == whole.ks).all()


def test_energies_choose_without_costs_and_without_training():
    model, layered, _, known = both("llama")
    store = MemoryStore()
    swept = swept_statistics(
        layered, store, generator=seeded(1), n_texts=6, length=6, costs=False
    )
    run = prune_swept(
        layered, swept, 0.3, generator=seeded(2), choice="energy", even=True
    )
    linears = zip(mean_moments(known.halves).second, down_projections(model))
    for rows, (H, linear) in zip(run.kept, linears, strict=True):
        energies = H.diagonal() * linear.weight.square().sum(0)
        assert rows.tolist() == energies.topk(8).indices.sort().values.tolist()
    assert run.policy is None and run.history == []
    with pytest.raises(ValueError, match="choice is 'best'; give policy or energy"):
        prune_swept(layered, swept, 0.3, generator=seeded(2), choice="best", even=True)


ON_GPU = """
import copy, sys, tempfile
sys.path.insert(0, sys.argv[1])
import torch
import accelerator
accelerator.pretend()
torch.cuda.reset_peak_memory_stats = torch.cuda.synchronize = lambda *_: None
from prunefair.messages import Given
from prunefair.models import empty_model
from prunefair.pruning import sweeps
from prunefair.pruning.layered import FolderStore, LayeredModel
from prunefair.pruning.surgery import prune_rows, tiny_model

for family, n_texts, wide in (("opt", 3, 4), ("falcon", 16, 2048)):
    sweeps.WIDE = sweeps.PROBES = wide
    model = tiny_model(family, generator=torch.Generator().manual_seed(0))
    empty = empty_model(copy.deepcopy(model.config), Given("model", ""))
    read, options = model.state_dict().__getitem__, {"even": False, "episodes": 1}
    layered = LayeredModel(empty, read, device="cuda")
    with tempfile.TemporaryDirectory() as place:
        store, draws = FolderStore(place + "/s", {}), torch.Generator().manual_seed(1)
        size = {"n_texts": n_texts, "length": 6, "generator": draws}
        swept = sweeps.swept_statistics(layered, store, **size)
        run = sweeps.prune_swept(layered, swept, 0.3, generator=draws, **options)
        sweeps.write_swept(empty, layered, swept, run, place + "/out")
print("passed")
"""


def test_nothing_of_two_devices_is_mixed():
    tools = Path(__file__).resolve().parents[2] / "tools"
    command = [sys.executable, "-c", ON_GPU, str(tools)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout == "passed\n", run.stderr[-2000:]


def counted(work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_the_work_that_is_planned_is_the_work_that_torch_counts():
    fields = {"hidden_size": 64, "intermediate_size": 160, "head_dim": 32}
    fields |= {"num_hidden_layers": 6}
    layered = layered_copy(tiny_model("llama", generator=seeded(), **fields))
    store, texts = MemoryStore(), torch.ones(16, 16).long()
    store.put("texts", tokens=texts)
    planned = sweep_work(layered.model, 0.3, tokens=texts.numel())
    layered.begin(texts[:8])  # how layers answer is found once, by a further run
    stages = {name: cost.operations for name, (_, cost) in planned.items()}
    forward = counted(lambda: sweeps.sweep_forward(layered, store))
    assert 0.95 < forward / stages["forward"] < 1.05  # torch counts no sum in place
    assert stages["moments"] == 6 * 2 * 256 * 160**2  # one band
    backward = counted(lambda: sweeps.sweep_backward(layered, store))
    assert 0.85 < backward / stages["backward"] < 1.05  # the first layer stops early
    layer = wide_layer(48, 100)
    kept = torch.arange(70)
    probes = orthonormal_probes(48, 32, generator=seeded(1))
    distance = FunctionalQuadrature(layer, probes=probes)
    products = 32 * 24 * (4 * 48 * 70 + 2 * 70**2)
    assert 1 <= counted(lambda: distance(kept)) / products < 1.7  # and projections


@pytest.mark.parametrize(
    "plan", [ReconstructionPlan(steps=128, batch=64, patience=99), CORRECTED]
)
def test_the_work_of_a_reconstruction_is_what_torch_counts(plan):
    fields = {"hidden_size": 64, "intermediate_size": 160, "head_dim": 32}
    model = tiny_model("llama", generator=seeded(), **fields)
    layered, texts = layered_copy(model), torch.ones(64, 16).long()
    pruned = prune_rows(model, [torch.arange(112)] * 2)
    planned = sweep_work(layered.model, 0.3, tokens=texts.numel(), reconstruct=plan)
    options = {"plan": plan, "generator": seeded()}
    found = counted(lambda: reconstruct_(pruned, model, texts, **options))
    share = found / planned["reconstruction"][1].operations
    assert 0.85 < share < 1.15  # it also samples and judges


@settings(max_examples=50, deadline=None)
@given(st.floats(5e3, 1e5), st.integers(1, 40))
def test_parts_of_texts_fit_and_no_other_parts_read_fewer_layers(free, n_texts):
    model = empty_model(
        tiny_model("llama", generator=seeded(), num_hidden_layers=4).config,
        Given("model", "tiny"),
    )
    layer = sum(p.numel() for p in model.model.layers[0].parameters()) * 4
    text = 2 * 4 * 4 * 9 * 4 + 16 * 32  # keys and values of one head of 4, and logits
    resident, group = sweeps._room(model, n_texts, 9, free)

    def taken(resident, group):
        turns = resident < 4
        return (resident + turns) * layer + group * text

    def read(resident, group):
        return math.ceil(n_texts / group) * (4 - resident)

    assert taken(resident, group) <= free and 1 <= group <= n_texts
    for kept, size in itertools.product(range(5), range(1, n_texts + 1)):
        if taken(kept, size) <= free:
            assert read(kept, size) >= read(resident, group)
