"""Memory and work planned and counted, a run a layer at a time against the whole."""

import importlib
import json
import runpy
import subprocess
import sys
import time
import weakref
from itertools import count
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from prunefair.pruning import llama2_7b
from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.folders import load_pruned
from prunefair.pruning.lanczos import (
    PROBES,
    LanczosSlices,
    SelectionCost,
    orthonormal_probes,
)
from prunefair.pruning.llama2_7b import (
    PROFILE,
    PROFILE_LEVELS,
    PreparedLayer,
    Stopwatch,
    floor_seconds,
    full_precision,
    geometry_config,
    layer_spectra,
    loaded_model,
    median_throughput,
    memory_plan,
    open_geometry,
    prepare_layers,
    prune_streamed,
    run_lines,
    shaped_matrix,
    stage_lines,
    work_plan,
)
from prunefair.pruning.row_policy import RowPolicy
from prunefair.pruning.spectral_pruning import prune_spectral
from prunefair.pruning.spectrum import (
    RowSlices,
    ks_distance,
    sliced_values,
    uniform_selections,
)
from prunefair.pruning.surgery import ffn_slices, row_matrices
from prunefair.pruning.throughput import Throughput

ROOT = Path(__file__).resolve().parents[2]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(13)


@pytest.fixture
def tiny():
    return open_geometry("tiny", seed=4)


class LiveBytes(TorchDispatchMode):
    """Peak of the bytes of all storages that operations made and that are alive."""

    def __init__(self):
        super().__init__()
        self.now, self.peak, self.seen = 0, 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage):
        key = storage._cdata
        if key not in self.seen:
            size = storage.nbytes()
            self.seen[key] = size
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key):
        self.now -= self.seen.pop(key)


def one_layer(config, generator):
    """Everything that happens to one layer, in its order."""
    m, n = config.intermediate_size, config.hidden_size
    v = orthonormal_probes(n, 32, generator=generator)
    kept = uniform_selections(m, rows_to_keep(m, 0.3), 2, generator=generator)
    W = shaped_matrix(m, n, generator=generator).half()

    def work():
        RowPolicy().state(W)
        LanczosSlices(W, probes=v).distance(kept)

    return W, work


def test_the_plan_covers_what_a_layer_takes_and_not_much_more(generator):
    config = geometry_config("llama-2-7b")
    config.hidden_size, config.intermediate_size = 384, 1032
    W, work = one_layer(config, generator)
    plan = memory_plan(config, 0.3)
    with LiveBytes() as live:
        work()
    taken = live.peak + 2 * W.numel()
    peak = plan.peak - plan.policy
    assert taken < peak < 2.5 * taken


def test_the_work_that_is_planned_is_the_work_that_torch_counts(generator):
    config = geometry_config("llama-2-7b")
    config.hidden_size, config.intermediate_size = 256, 688
    config.num_hidden_layers = 1
    _, work = one_layer(config, generator)
    with FlopCounterMode(display=False) as counter:
        work()
    planned = work_plan(config, 0.3, episodes=1, draws=2)
    n, m = 256, 688
    products = sum(cost.operations for _, cost in planned.values())
    products -= 4 / 3 * n**3 + m * n**2  # eigenvalues and solve: no products for torch
    whole_matrix = 2 * n**2 * 32 * 8 + 4 * n * 32 * 8**2  # its own quadrature
    assert 0.95 < counter.get_total_flops() / (products + whole_matrix) < 1.1


def test_floors_are_the_slower_of_arithmetic_and_memory():
    work = work_plan(geometry_config("llama-2-7b"), 0.3)
    precision, cost = work["policy"]
    slow, fast = floor_seconds(work, "T4"), floor_seconds(work, "H100")
    assert precision == "float32"
    stored = {"sweep": ("stored", SelectionCost(1e15, 1.0))}
    assert floor_seconds(stored, "T4") == {"sweep": 1e15 / 65e12}  # by tensor cores
    assert slow["policy"] == max(cost.operations / 8.1e12, cost.bytes_moved / 0.32e12)
    assert all(fast[stage] < slow[stage] for stage in work)
    exact = work_plan(geometry_config("llama-2-7b"), 0.3, probes=None)
    assert exact["policy"][1].bytes_moved > 4 * cost.bytes_moved


def test_a_shaped_matrix_has_the_quantiles_of_the_profile(generator):
    W = shaped_matrix(500, 200, generator=generator)
    values = torch.linalg.svdvals(W.double())
    levels = torch.tensor(PROFILE_LEVELS, dtype=torch.float64)
    found = (values / values[0]).quantile(levels)
    torch.testing.assert_close(found, torch.tensor(PROFILE).double(), atol=2e-3, rtol=0)
    assert W.square().mean().sqrt() == pytest.approx(0.02, rel=1e-4)
    assert 0.085 < W.norm(dim=1).log().std() < 0.15  # 0.07 of equal factors


def test_the_same_seed_gives_the_same_bytes_in_any_order_of_reading(tiny):
    model, read = tiny
    names = list(model.state_dict())
    first = {name: read(name) for name in names}
    again = open_geometry("tiny", seed=4)[1]
    other = open_geometry("tiny", seed=5)[1]
    for name in reversed(names):
        assert first[name].shape == model.state_dict()[name].shape
        assert torch.equal(first[name], again(name))
        assert first[name].ndim == 1 or not torch.equal(first[name], other(name))
    gates = [next(iter(layer)) for layer in ffn_slices(model)]
    assert not torch.equal(first[gates[0]], first[gates[1]])


@pytest.mark.parametrize("device", DEVICES)
def test_a_layer_at_a_time_keeps_the_rows_that_the_whole_model_keeps(
    device, tiny, tmp_path
):
    model, read = tiny
    draw = torch.Generator().manual_seed(2)
    run = prune_streamed(
        model, read, 0.3, generator=draw, episodes=3, device=device, out=tmp_path / "p"
    )
    whole = loaded_model(model, read, device="cpu")
    same = prune_spectral(whole, 0.3, episodes=3, generator=draw.manual_seed(2))
    if device == "cpu":
        assert run.peak_bytes is None and run.history == same.history
        assert all(torch.equal(a, b) for a, b in zip(run.kept, same.kept))
        assert run.distances == pytest.approx(same.ks, abs=1 / 64)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "p")
    assert [len(W) for W in row_matrices(loaded)] == [120] * 3
    tokens = torch.arange(3, 20)[None]
    cut = loaded_model(model, read, run.kept, device="cpu")
    assert torch.equal(cut(tokens).logits, loaded(tokens).logits)
    assert len(row_matrices(loaded_model(model, read, device="cpu"))[0]) == 172
    stages = {"load", "features", "spectra", "policy", "distances", "save"}
    assert set(run.seconds) == stages


def test_without_a_folder_nothing_is_written_and_a_policy_is_reused(
    tiny, tmp_path, monkeypatch
):
    model, read = tiny
    monkeypatch.chdir(tmp_path)
    policy = RowPolicy(torch.tensor([1.0, 0, 0, 0, 0, 0]))
    draw = torch.Generator().manual_seed(0)
    run = prune_streamed(model, read, 0.5, generator=draw, policy=policy, probes=16)
    assert run.history == [] and not list(tmp_path.iterdir())
    gates = [read(next(iter(layer))) for layer in ffn_slices(model)]
    for W, rows in zip(gates, run.kept):  # the policy asks for the longest rows
        longest = W.double().norm(dim=1).topk(86).indices.sort().values
        assert torch.equal(rows, longest)


@pytest.mark.parametrize(
    ("columns", "kept", "probes", "quadrature"),
    [(64, 70, None, False), (64, 70, 4, True), (4096, 4097, None, True),
     (4096, 4000, None, False), (4096, 7705, 0, False)],
)  # fmt: skip
def test_wide_matrices_get_quadrature(columns, kept, probes, quadrature, generator):
    options = {"device": "cpu", "generator": generator, "probes": probes}
    prepare = layer_spectra(columns, kept, **options)
    W = torch.randn(columns + 1, columns) if columns < 100 else None
    if W is not None:
        assert isinstance(prepare(W), LanczosSlices if quadrature else RowSlices)
    assert ("v" in prepare.__code__.co_freevars) == quadrature


def test_layers_wait_without_their_matrix_on_the_device(generator):
    W = shaped_matrix(90, 30, generator=generator)
    spectra = layer_spectra(30, 60, device="cpu", generator=generator, probes=4)
    watch = Stopwatch("cpu")
    (layer,) = prepare_layers([W], spectra=spectra, watch=watch)
    assert isinstance(layer, PreparedLayer) and len(layer) == 90
    assert layer.state.shape == (90, 6)
    assert set(watch.seconds) == {"load", "features", "spectra"}


def test_time_of_an_inner_stage_is_not_counted_twice(monkeypatch):
    ticks = count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    watch = Stopwatch("cpu")
    with watch("outer"):  # 0
        with watch("inner"):  # 1 to 2
            pass
        with watch("inner"):  # 3 to 4
            pass
    assert watch.seconds == {"outer": 5 - 2, "inner": 2}


def test_full_precision_is_set_and_taken_back():
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_median_over_repeats_counts(monkeypatch):
    speeds = iter([Throughput(1, 50), Throughput(9, 10), Throughput(2, 20)])
    monkeypatch.setattr(llama2_7b, "throughput", lambda *a, **k: next(speeds))
    assert median_throughput(None, torch.zeros(1, 1), 1, repeats=3) == (2, 20)
    with pytest.raises(ValueError, match="repeats is 0"):
        median_throughput(None, torch.zeros(1, 1), 1, repeats=0)


def test_bad_names_and_uneven_rows_are_refused(tiny):
    with pytest.raises(ValueError, match="geometry is 'llama'.*llama-2-7b, tiny"):
        geometry_config("llama")
    model, read = tiny
    with pytest.raises(ValueError, match="kept differs in length.*load_pruned"):
        loaded_model(model, read, [range(5), range(6), range(5)], device="cpu")


BLOCKED = ("cvxpy", "numba", "typer", "pooch", "joblib", "peft", "pandas")
BLOCKED += ("sklearn",)  # which needs joblib
RUN = """
import runpy, sys
for name in {blocked!r}:
    sys.modules[name] = None
sys.argv = ["llama2_7b.py", *sys.argv[1:]]
sys.path.insert(0, {folder!r})  # as Python does for a script
runpy.run_path({script!r}, run_name="__main__")
"""
SCRIPT = str(ROOT / "benchmarks" / "llama2_7b.py")
DRY = "--geometry tiny --device cpu --texts 4 --length 8 --episodes 1 "
DRY += "--spectral-episodes 1 --widths 120 112 --prompts 1x8 2x4 --new-tokens 2 "
DRY = (DRY + "--repeats 1").split()
STAGES = {"open", "texts", "forward", "backward", "choice", "ridge", "save"}


def stored(name):
    return json.loads((ROOT / "book" / "results" / name).read_text(encoding="utf-8"))


def run_here(monkeypatch, script, *arguments):
    """A benchmark in this process."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(script, run_name="__main__")


def test_the_benchmark_runs_where_only_pytorch_and_transformers_are(
    tmp_path, monkeypatch, capsys
):
    code = RUN.format(blocked=BLOCKED, script=SCRIPT, folder=str(Path(SCRIPT).parent))
    options = [*DRY, "--results", str(tmp_path / "table.json")]
    run = subprocess.run(
        [sys.executable, "-c", code, *options], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    table = json.loads((tmp_path / "table.json").read_text())
    assert set(table) == set(stored("llama2_7b.json")) | set(llama2_7b.PARTS)
    assert set(table["configuration"]) == set(stored("llama2_7b.json")["configuration"])
    for part in ("functional", "capped"):
        assert set(table[part]["stages"]) == STAGES
        assert table[part]["widths"] == [120, 120]
    for part in ("functional", "capped", "spectral"):
        parts = sum(x["seconds"] for x in table[part]["stages"].values())
        assert 0.5 * table[part]["seconds"] < parts <= table[part]["seconds"]
    assert set(table["speed"]["tokens_per_second"]) == {"dense", "120", "112"}
    lines = run_lines(table)
    assert lines[0].startswith("random weights in the geometry tiny")
    assert lines == run.stdout.splitlines()[-len(lines) :]
    missing = [line for line in lines if line.endswith("not measured")]
    assert all("GPU" in line or "spectral" in line for line in missing)
    # What is there stays, even if there is no time for anything.
    before = (tmp_path / "table.json").read_bytes()
    run_here(monkeypatch, SCRIPT, *options, "--minutes", 0)
    assert (tmp_path / "table.json").read_bytes() == before


PRETEND = """
import runpy, sys
import torch
sys.path[:0] = {folders!r}
import accelerator
cuda, caps = torch.cuda, []
cuda.is_available, cuda.get_device_name = lambda: True, lambda: "NVIDIA T4"
cuda.mem_get_info = lambda *_: (14 * 10**9, 16 * 10**9)
for name in ("memory_reserved", "memory_allocated", "max_memory_allocated"):
    setattr(cuda, name, lambda *_: 10**6)
for name in ("reset_peak_memory_stats", "empty_cache"):
    setattr(cuda, name, lambda *_: None)
cuda.set_per_process_memory_fraction = caps.append
accelerator.pretend()
runpy.run_path({script!r}, run_name="__main__")
print(caps)
"""


def test_the_benchmark_runs_on_a_device_that_is_pretended(tiny, tmp_path):
    dense = tmp_path / "dense"
    loaded_model(*tiny, device="cpu").save_pretrained(dense)
    folders = [str(ROOT / name) for name in ("benchmarks", "tools")]
    options = [*DRY, "--device", "cuda", "--model", str(dense)]
    options += ["--results", str(tmp_path / "table.json")]
    code = PRETEND.format(folders=folders, script=SCRIPT)
    run = subprocess.run(
        [sys.executable, "-c", code, *options], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[1.0, 1.0, 0.9375, 1.0]"  # 15 of 16 GB
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["device"] == "NVIDIA T4" and table["weights"] == "weights of dense"
    for part in ("functional", "capped"):
        for stage in STAGES:
            assert table[part]["stages"][stage]["peak_gpu_bytes"] == 10**6
    gains = [line for line in run_lines(table) if line.startswith("gain")]
    assert len(gains) == 8 and not any("not measured" in line for line in gains)


def test_what_the_time_does_not_allow_is_said_and_another_run_adds_it(
    tmp_path, monkeypatch
):
    options = [*DRY, "--results", tmp_path / "table.json"]
    run_here(monkeypatch, SCRIPT, *options, "--minutes", 0)
    table = json.loads((tmp_path / "table.json").read_text())
    assert set(table["notes"]) == set(llama2_7b.PARTS)
    assert set(table["notes"].values()) == {"not finished within 0 minutes in all"}
    assert not set(table) & set(llama2_7b.PARTS)
    table["notes"].pop("spectral")
    table["spectral"] = {"seconds": 1.0, "stages": {}}
    for part in ("functional", "capped"):  # in the middle of which it stopped
        table[part] = {"stages": {"open": {"seconds": 9e9}}}
    (tmp_path / "table.json").write_text(json.dumps(table))
    run_here(monkeypatch, SCRIPT, *options)
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["spectral"] == {"seconds": 1.0, "stages": {}}
    assert table["notes"] == {} and table["functional"]["seconds"] < 9e9
    assert table["functional"]["stages"]["open"]["seconds"] < 9e9


def test_the_empty_table_claims_nothing(tmp_path, monkeypatch):
    options = ["--not-measured", "--results", tmp_path / "table.json"]
    run_here(monkeypatch, SCRIPT, *options)
    table = json.loads((tmp_path / "table.json").read_text())
    assert not set(table) & set(llama2_7b.PARTS) and table["device"] is None
    assert all(line.endswith("not measured") for line in run_lines(table)[1:])


def test_the_parts_without_a_gpu_run_at_a_tiny_size(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module("llama2_7b_cpu")
    for part in benchmark.PARTS.values():
        monkeypatch.setitem(part, "geometry", "tiny")
        monkeypatch.setitem(part, "length", 8)
    monkeypatch.setitem(benchmark.PARTS["block"], "texts", 4)  # hidden vectors are kept
    threads, options = torch.get_num_threads(), ["--dense", tmp_path / "dense"]
    options += ["--scratch", tmp_path, "--results", tmp_path / "table.json"]
    try:
        for more in (
            ("--part", "disk", "--write", tmp_path / "dense"),
            *(("--part", part) for part in benchmark.PARTS),
        ):
            arguments = [*options, *more]
            monkeypatch.setattr(sys, "argv", ["cpu", *map(str, arguments)])
            benchmark.main()
    finally:
        torch.set_num_threads(threads)
    table = json.loads((tmp_path / "table.json").read_text())
    for part, pieces in stored("llama2_7b_cpu.json").items():
        if part in benchmark.PARTS:
            assert set(table[part]) == set(pieces)
            assert set(table[part]["stages"]) == set(pieces["stages"])
    assert table["block"]["errors"]["moments, float32"] < 1e-5
    assert table["block"]["errors"]["refit"] < 1e-5
    assert len(stage_lines(table["disk"])) == 6
    pruned = load_pruned(tmp_path / "disk-pruned")
    assert [len(W) for W in row_matrices(pruned)] == table["disk"]["result"]["widths"]


def test_a_layer_of_half_the_size_of_llama_2_7b(generator):
    """5504 x 2048 in float32: one slice by quadrature and by its eigenvalues."""
    W = torch.randn(5504, 2048, generator=generator) * torch.linspace(0.2, 1, 2048)
    slices = RowSlices(W, dtype=torch.float32)
    kept = uniform_selections(5504, 3853, 1, generator=generator)
    v = orthonormal_probes(2048, PROBES, generator=generator)
    found = LanczosSlices(slices, probes=v).distance(kept)
    exact = ks_distance(slices.values, sliced_values(slices, kept))
    assert abs(found - exact) < 0.004 < exact / 20
