"""`prune` a layer at a time: the same bytes, within its plan, to a given size."""

import copy
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prunefair
from prunefair.models import load_model
from prunefair.pipelines import _room, pruning, sweeping
from prunefair.pipelines._targets import wanted_ratio
from prunefair.pruning import folders, sweeps
from prunefair.pruning.anatomy import ratio_of_rows, rows_to_keep
from prunefair.pruning.folders import load_pruned, save_pruned
from prunefair.pruning.functional_policy import uneven_ratios
from prunefair.pruning.lanczos import SelectionCost
from prunefair.pruning.perplexity import kl_to_dense, self_sample
from prunefair.pruning.surgery import (
    ADAPTERS,
    removed_parameters,
    slice_ffn_,
    tiny_model,
)
from prunefair.pruning.throughput import device_rates

FEW = {"texts": 6, "episodes": 1}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "opt"
    model = tiny_model("opt", generator=seeded(), dtype=torch.bfloat16)
    model.save_pretrained(place)
    return place


def test_a_folder_is_pruned_to_the_same_bytes_in_memory_and_in_turns(folder, tmp_path):
    for widths in ("equal", "uneven"):
        options = FEW | {"widths": widths}
        prunefair.prune(folder, 0.3, out=tmp_path / widths, **options)
        place = {"out": tmp_path / f"{widths} in turns", "offload": tmp_path / "work"}
        report = prunefair.prune(folder, 0.3, **place, **options)
        assert files(place["out"]) == files(tmp_path / widths)
        assert report.model is None and report.details["planned_bytes"]["waiting"] > 0
        assert load_pruned(place["out"]).num_parameters() == report.params_after


@pytest.mark.parametrize("how", [{"reconstruct": True}, {"reconstruct_steps": 24}])
def test_a_reconstruction_too_is_the_same_in_turns_and_the_card_says_it(
    how, folder, tmp_path
):
    options = FEW | how
    whole = prunefair.prune(folder, 0.5, out=tmp_path / "whole", **options)
    place = {"out": tmp_path / "in turns", "offload": tmp_path / "work"}
    report = prunefair.prune(folder, 0.5, **place, **options)
    assert files(place["out"]) == files(tmp_path / "whole")
    before, after = report.details["reconstruction"]
    assert after < before and whole.details["reconstruction"] == [before, after]
    card = (place["out"] / "README.md").read_text()
    assert "before and after | " + f"{before}, {after} |" in card
    assert ("fit of each block | 24 |" in card) == ("reconstruct_steps" in how)
    plan, plain = report.details["planned_bytes"], FEW | {"offload": tmp_path / "work"}
    assert not [*(tmp_path / "work").glob("fit-*")]
    again = prunefair.prune(folder, 0.5, **plain)
    assert again.details["planned_bytes"]["waiting"] < plan["waiting"]
    assert again.details["planned_bytes"]["refit"] < plan["refit"]
    assert "reconstruction" not in again.details


def test_statistics_serve_every_ratio_and_no_other_run(folder, tmp_path, monkeypatch):
    place = {"offload": tmp_path / "work"}
    prunefair.prune(folder, 0.3, **place, **FEW)
    whole = prunefair.prune(folder, 0.5, choice="energy", **FEW)
    monkeypatch.setattr(sweeps, "sample_texts", pytest.fail)
    monkeypatch.setattr(sweeps, "_through", pytest.fail)
    options = FEW | place | {"out": tmp_path / "out"}
    other = prunefair.prune(folder, 0.5, choice="energy", **options)
    for ours, theirs in zip(other.kept, whole.kept, strict=True):
        assert torch.equal(ours, theirs)
    assert other.policy is None and other.history == []
    card = (tmp_path / "out" / "README.md").read_text()
    assert "rows of largest energy" in card and "policy" not in card
    for change, name in (({"seed": 1}, "seed"), ({"texts": 7}, "texts")):
        with pytest.raises(ValueError, match=f"offload is .*of the {name} "):
            prunefair.prune(folder, 0.3, **place, **FEW | change)
    small = tiny_model("opt", generator=seeded(1), dtype=torch.bfloat16)
    small.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="offload is .*of the model "):
        prunefair.prune(tmp_path / "other", 0.3, **place, **FEW)


WRONG = {
    "spectral": ({"method": "spectral", "offload": "w"}, "offload is 'w'.*only the fu"),
    "choice": ({"choice": "best"}, "choice is 'best'; give policy or energy"),
    "choice-spectral": (
        {"method": "spectral", "choice": "energy"},
        "choice is 'energy', which only the functional method knows",
    ),
    "reconstruct-spectral": (
        {"method": "spectral", "reconstruct": True},
        "reconstruct is True, which only the functional method knows; leave it out",
    ),
    "steps-spectral": (
        {"method": "spectral", "reconstruct_steps": 9},
        "reconstruct_steps is 9, which only the functional method knows; leave it out",
    ),
    "steps-negative": ({"reconstruct_steps": -1}, "reconstruct_steps is -1"),
    "no-policy": (
        {"choice": "energy", "policy": "p"},
        "policy is 'p', and choice 'energy', which knows no policy; leave one",
    ),
    "inside": ({"out": "a/b", "offload": "a"}, "offload is 'a' and out 'a/b': one wo"),
    "two": ({"parameters": 1e3}, "ratio 0.3 and parameters 1000 are given; give one"),
    "none": (
        {"ratio": None},
        "none of ratio, parameters and bytes is given.*ratio=0.3$",
    ),
    "word": ({"ratio": None, "bytes": "1GB"}, "bytes is '1GB'; give a positive number"),
    "more": (
        {"ratio": None, "parameters": 1e9},
        "parameters is 1000000000, and the model has no more than 1864; give fewer",
    ),
    "less": (
        {"ratio": None, "bytes": 1000},
        "bytes is 1000, fewer than the 6[0-9]+ that are left when almost all FFN rows",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_done_is_said_before_the_work(name, folder, monkeypatch):
    monkeypatch.setattr(sweeping, "prune_in_turns", pytest.fail)
    monkeypatch.setattr("prunefair.models.load_opened", pytest.fail)
    options, line = WRONG[name]
    with pytest.raises(ValueError, match=line):
        prunefair.prune(folder, **{"ratio": 0.3} | options)
    model = tiny_model("llama", generator=seeded())
    with pytest.raises(ValueError, match="offload is 'w', with which a model goes"):
        prunefair.prune(model, 0.3, offload="w")


PLAN = sweeps.SweepPlan(
    forward=2, backward=3, choice=1, refit=10**9, waiting=4 * 10**9, passing=10**8
)


@pytest.mark.parametrize(
    ("free", "offload", "line"),
    [
        (10**6, None, "device is 'cpu', which has 0.001 GB free where a layer"),
        (
            3 * 10**9,
            None,
            "offload is missing, and 5.1 GB would be in memory where",
        ),
        (
            10**9 + 5,
            "work",
            "texts take 1.1 GB of memory a layer at a time, where 1",
        ),
        (6 * 10**9, None, None),
        (2 * 10**9, "work", None),
    ],
)
def test_a_plan_that_does_not_fit_says_what_would(free, offload, line, monkeypatch):
    monkeypatch.setattr(_room, "available_bytes", lambda: free)
    options = {"device": "cpu", "offload": offload, "out": None, "size": 0}
    if line is None:
        _room.check_room(PLAN, **options)
        return
    with pytest.raises(ValueError, match=line) as found:
        _room.check_room(PLAN, **options)
    assert len(str(found.value)) <= 300 and "give" in str(found.value)


def test_a_full_disk_is_seen_before_and_what_lies_there_already_counts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(_room, "available_bytes", lambda: 10**12)
    free = type("Usage", (), {"free": 5 * 10**9})
    monkeypatch.setattr(_room.shutil, "disk_usage", lambda place: free)
    work, out = tmp_path / "work", tmp_path / "new" / "out"
    options = {"device": "cpu", "offload": work, "out": out}
    _room.check_room(PLAN, size=10**9, **options)
    with pytest.raises(ValueError, match="out is .* with 5 GB free where 6 GB are"):
        _room.check_room(PLAN, size=2 * 10**9, **options)
    work.mkdir()
    with open(work / "moments-0000.safetensors", "wb") as file:
        file.truncate(2 * 10**9)
    _room.check_room(PLAN._replace(waiting=6 * 10**9), size=0, **options)


def counted(model, kept):
    return model.num_parameters() - removed_parameters(model, kept)


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(sorted(ADAPTERS)),
    multiple=st.sampled_from([1, 3, 4]),
    even=st.booleans(),
    share=st.floats(0.05, 0.95),
)
def test_a_target_is_met_and_nothing_less_would_do(family, multiple, even, share):
    model = tiny_model(family, generator=seeded())
    dense = model.num_parameters()
    least = counted(model, [[0] for _ in range(2)])
    most = least + multiple * (dense - least) / 11 + share * (dense - least) * 0.6
    options = {"even": even, "multiple": multiple}
    if most >= dense:
        return
    ratio = wanted_ratio("parameters", most, model, **options)

    def left(ratio):
        shares = [ratio] * 2
        if not even:
            costs = [torch.rand(12, generator=seeded(1)) for _ in range(2)]
            shares = uneven_ratios(costs, ratio, multiple=multiple)
        widths = [rows_to_keep(12, s, multiple if even else 1) for s in shares]
        assert not any(width % multiple for width in widths) or ratio == 0
        return counted(model, [range(width) for width in widths])

    assert left(ratio) <= most
    step = multiple if even else 1
    wider = rows_to_keep(12, ratio, step) + step
    if wider <= 12:
        assert left(ratio_of_rows(12, wider)) > most


def test_prune_meets_a_number_of_parameters_and_of_bytes(folder):
    report = prunefair.prune(folder, parameters=1700, choice="energy", **FEW)
    assert 1700 - 2 * 17 < report.params_after <= 1700
    most = report.bytes_after
    again = prunefair.prune(folder, bytes=most, choice="energy", **FEW)
    assert again.ratio == report.ratio and again.bytes_after == most
    fewer = prunefair.prune(folder, bytes=most - 1, choice="energy", **FEW)
    assert fewer.ratio > report.ratio and fewer.bytes_after < most


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(sorted(ADAPTERS)),
    multiple=st.sampled_from([1, 3, 4]),
    even=st.booleans(),
    share=st.floats(0.3, 0.95),
    shard=st.sampled_from([10**9, 3000, 700]),
)
def test_the_files_of_weights_never_exceed_the_bytes_that_were_asked(
    family, multiple, even, share, shard
):
    model = tiny_model(family, generator=seeded())

    def written(widths):
        kept = [list(range(width)) for width in widths]
        with tempfile.TemporaryDirectory() as place:
            sliced = slice_ffn_(copy.deepcopy(model), kept)
            out = save_pruned(sliced, None, f"{place}/out", kept)
            return sum(file.stat().st_size for file in out.glob("*.safetensors"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "SHARD_BYTES", shard)
        dense, least = written([12, 12]), written([multiple] * 2)
        assert folders.stored_bytes(model) == dense
        assert folders.stored_bytes(model, [multiple] * 2) == least
        most = least + share * (dense - least)
        ratio = wanted_ratio("bytes", most, model, even=even, multiple=multiple)
        shares = [ratio] * 2
        if not even:
            costs = [torch.rand(12, generator=seeded(1)) for _ in range(2)]
            shares = uneven_ratios(costs, ratio, multiple=multiple)
        step = multiple if even else 1
        widths = [rows_to_keep(12, s, step) for s in shares]
        assert folders.stored_bytes(model, widths) == written(widths) <= most
        if even and widths[0] + step <= 12:
            assert written([width + step for width in widths]) > most


def trained_like(generator, d=24, m=64):
    """A LLaMA whose large rows do little and whose small rows do the work."""
    fields = {"hidden_size": d, "intermediate_size": m, "head_dim": 12}
    model = tiny_model("llama", generator=generator, **fields | {"mlp_bias": False})
    for layer in model.model.layers:
        large = torch.randperm(m, generator=generator)[: m // 2]
        for name in ("gate_proj", "up_proj"):
            getattr(layer.mlp, name).weight.data[large] *= 5
        layer.mlp.down_proj.weight.data[:, large] *= 1e-4
    return model


def test_by_default_a_wide_model_keeps_what_matters_and_not_what_is_large(
    tmp_path, monkeypatch
):
    model = trained_like(seeded(5))
    model.save_pretrained(tmp_path / "dense")
    monkeypatch.setattr(_room, "WIDE", 16)  # as if 24 columns were 4096
    monkeypatch.setattr(sweeps, "WIDE", 16)
    monkeypatch.setattr(sweeps, "PROBES", 16)
    texts, lost = self_sample(model, 8, 32, generator=seeded(6)), {}
    for method in (None, "spectral"):
        place = tmp_path / str(method)
        report = prunefair.prune(
            tmp_path / "dense", 0.3, out=place, method=method, texts=16
        )
        assert report.model is None  # in turns, both of them
        assert report.method == (method or "functional")
        lost[method] = kl_to_dense(model, load_model(place), texts)
    assert lost[None] < 0.01 and lost["spectral"] > 0.1, lost


def test_the_functional_method_runs_on_a_geometry_too(tmp_path):
    report = prunefair.prune(
        None, 0.3, geometry="tiny", method="functional", out=tmp_path / "out", **FEW
    )
    assert report.summary()["weights"].startswith("random weights")
    assert load_model(tmp_path / "out").num_parameters() == report.params_after
    assert prunefair.prune(None, 0.3, geometry="tiny", episodes=1).method == "spectral"


# The allocator of Linux gives large blocks back at once, as those of large models are.
GIVES_BACK = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "262144"}
GIVES_BACK |= dict(os.environ) | {"OMP_NUM_THREADS": "1"}
PEAK = """
import sys, threading, time
from pathlib import Path
import torch
import prunefair
from prunefair.pipelines import sweeping
from prunefair.pruning import layered, refit, surgery

folder, work, greedy = sys.argv[1:]
peak, done = [0], threading.Event()

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(s.split()[1]) for s in lines if s.startswith("RssAnon"))

def watch():
    while not done.wait(0.01):
        peak[0] = max(peak[0], resident())

refit.RIDGE_LAYERS = 1  # the peak of one is that of six
options = {"texts": 16, "episodes": 1, "multiple": 1, "out": work + "/out"}
if greedy == "greedy":  # all that waits is in memory; one sweep is enough for that
    sweeping._store = lambda *_: layered.MemoryStore()
    options |= {"choice": "energy", "refit": False}
tiny = surgery.tiny_model("llama", generator=torch.Generator())
prunefair.prune(tiny, 0.3, texts=2, episodes=1)  # libraries take what they take
before = resident()
threading.Thread(target=watch, daemon=True).start()
report = prunefair.prune(folder, 0.3, offload=work + "/sums", **options)
done.set()
plan = report.details["planned_bytes"]
device = max(plan[stage] for stage in ("forward", "backward", "choice", "refit"))
print(peak[0] - before, device, plan["passing"], plan["waiting"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_memory_stays_under_the_plan(tmp_path):
    """Fifteen layers of 960 neurons: all that waits is more than the plan allows."""
    fields = {"hidden_size": 96, "intermediate_size": 960, "num_hidden_layers": 15}
    fields |= {"num_attention_heads": 2, "head_dim": 48, "num_key_value_heads": 2}
    tiny_model("mistral", generator=seeded(), **fields).save_pretrained(tmp_path / "m")
    peaks = {}
    for kind in ("as it is", "greedy"):
        work = tmp_path / kind
        work.mkdir()
        command = [sys.executable, "-c", PEAK, tmp_path / "m", work, kind]
        run = subprocess.run(command, capture_output=True, text=True, env=GIVES_BACK)
        assert run.returncode == 0, run.stderr[-2000:]
        peaks[kind], device, passing, waiting = map(int, run.stdout.split())
    assert peaks["as it is"] < device + passing < peaks["greedy"], peaks
    assert waiting > 0.5 * (device + passing)


def test_a_long_run_says_before_it_starts_what_it_takes(folder, monkeypatch, caplog):
    monkeypatch.setattr(sweeping, "SMALL", 0)
    report = prunefair.prune(folder, 0.3, choice="energy", offload=None, **FEW)
    assert report.model is not None and not caplog.records  # in memory
    monkeypatch.setattr(pruning, "goes_in_turns", lambda *_, **__: True)
    found = {}
    for choice in ("energy", "policy"):
        report = prunefair.prune(folder, 0.3, choice=choice, **FEW)
        found[choice] = report.details["planned_seconds"]
        assert all(seconds > 0 for seconds in found[choice].values())
    assert set(found["policy"]) - set(found["energy"]) == {
        *("backward", "features", "policy")
    }
    assert not caplog.records  # too short for a word
    monkeypatch.setattr(sweeping, "SAID_FROM", 0)
    prunefair.prune(folder, 0.3, choice="energy", **FEW)
    assert "a layer at a time: " in caplog.text and "wait in memory" in caplog.text


def test_stages_take_what_the_slower_of_work_and_memory_takes():
    rates = {"float32": 10.0, "bytes": 2.0}
    work = {
        "a": ("float32", SelectionCost(50, 1)),
        "b": ("float32", SelectionCost(1, 50)),
    }
    assert sweeps.stage_seconds(work, rates) == {"a": 5.0, "b": 25.0}
    measured = device_rates("cpu", torch.float32)
    assert set(measured) == {"stored", "float32", "float64", "bytes"}
    assert all(rate > 1e6 for rate in measured.values())


def test_a_run_that_failed_to_write_takes_up_its_choice_and_its_ridge(
    tmp_path, monkeypatch
):
    folder, fields = tmp_path / "m", {"hidden_size": 32, "intermediate_size": 64}
    tiny_model("llama", generator=seeded(), **fields).save_pretrained(folder)
    options = {"offload": tmp_path / "w", **FEW, "episodes": 2}
    first = prunefair.prune(folder, 0.3, out=tmp_path / "a", **options)
    with monkeypatch.context() as broken:
        broken.setattr(sweeps, "write_sliced", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prunefair.prune(folder, 0.5, out=tmp_path / "b", **options)
    assert not (tmp_path / "b").exists()
    for work in ("choose_neurons", "find_ridge", "sample_texts", "_through"):
        monkeypatch.setattr(sweeps, work, None)  # nothing of it is done again
    again = prunefair.prune(folder, 0.3, out=tmp_path / "c", **options)
    assert again.history == first.history and again.ks_mean == first.ks_mean
    assert torch.equal(again.policy.weights, first.policy.weights)
    assert first.policy.weights.any()
    for file in (tmp_path / "a").iterdir():
        assert (tmp_path / "c" / file.name).read_bytes() == file.read_bytes()
    prunefair.prune(folder, 0.5, out=tmp_path / "b", **options)
    for other in ({"widths": "uneven"}, {"choice": "energy"}, {"policy": again.policy}):
        with pytest.raises(TypeError):  # another choice is another name
            prunefair.prune(folder, 0.5, **options | other)


def test_a_model_that_overflows_is_told_in_one_line_when_it_is_to_write(tmp_path):
    model = tiny_model("opt", generator=seeded())
    for layer in model.model.decoder.layers:
        layer.fc1.weight.data *= 1e30
        layer.fc2.weight.data *= 1e30
    model.save_pretrained(tmp_path / "m")
    line = "model is .*, from which no text can be sampled .*; give another model"
    with pytest.raises(ValueError, match=line):
        prunefair.prune(tmp_path / "m", 0.3, offload=tmp_path / "w", **FEW)
