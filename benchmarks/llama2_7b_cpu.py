"""Functional pruning by sweeps without a GPU: a billion parameters, and seven.

    python benchmarks/llama2_7b_cpu.py --write FOLDER --part disk   # 13.5 GB, once
    python benchmarks/llama2_7b_cpu.py --dense FOLDER --part disk --scratch FOLDER

fill `book/results/llama2_7b_cpu.json`, a stage at a time; the parts are `disk` (the
geometry of LLaMA-2-7B from a checkpoint), `billion` (that of TinyLlama) and `block`
(one block of LLaMA-2-7B against float64).  Statistics wait in the scratch folder, from
which an interrupted part goes on; a stage that is there already is not stored again.

All weights are random, of the right shapes: memory and time are measured, nothing about
quality.  They are stored in bfloat16 and computed with in float32, because a processor
without bfloat16 arithmetic needs ten times as long for it.

Not in pieces for workers: times and peaks are measured, and each stage needs the one
before.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import shutil
from pathlib import Path

import torch
from llama2_7b import write_dense
from meter import Meter
from storing import Table, cpu, options_of

RESULT = Path(__file__).parents[1] / "book" / "results" / "llama2_7b_cpu.json"
PARTS = {  # `ridge`: None is searched; what is found for random weights says nothing
    "disk": {"geometry": "llama-2-7b", "texts": 8, "length": 32, "sampled": False}
    | {"choice": "energy", "ridge": 0.3},
    "billion": {"geometry": "tinyllama-1.1b", "texts": 16, "length": 32}
    | {"sampled": True, "choice": "policy", "ridge": None},
    "block": {"geometry": "llama-2-7b", "texts": 16, "length": 32, "ridge": 0.3},
}
CONFIGURATION = {
    "parts": PARTS,
    "ratio": 0.3,
    "probes": 4,  # of the quadrature that judges the selection in a whole run
    "quadrature_steps": 12,
    "stored": "bfloat16",
    "computed": "float32",
    "threads": 2,
    "seed": 20250129,
}
SEED, RATIO = CONFIGURATION["seed"], CONFIGURATION["ratio"]


def write_random(geometry: str, folder: Path) -> None:
    """A random checkpoint in bfloat16, a tensor at a time.

    One gate matrix is drawn with the spectrum of trained ones; those of the other
    layers are the same with rows and columns in another order, and have its spectrum.
    """
    from prunefair.pruning.llama2_7b import open_geometry
    from prunefair.pruning.surgery import ffn_slices

    model, read = open_geometry(geometry, seed=SEED, dtype=torch.bfloat16)
    gates = [next(iter(names)) for names in ffn_slices(model)]
    one = read(gates[0])

    def tensor_of(name):
        if name not in gates:
            return read(name)
        generator = torch.Generator().manual_seed(gates.index(name))
        rows, columns = (torch.randperm(n, generator=generator) for n in one.shape)
        return one[rows][:, columns]

    write_dense(model, tensor_of, folder)


def in_type(dense, read, dtype):
    """Skeleton and reader of a checkpoint in another type of number."""
    return copy.deepcopy(dense).to(dtype), lambda name: read(name).to(dtype)


def known_texts(how: dict, vocabulary: int, generator) -> torch.Tensor:
    """Random tokens: what they cost is what any text of their number costs."""
    shape = how["texts"], how["length"]
    return torch.randint(3, vocabulary, shape, generator=generator)


def quadrature(columns: int, generator):
    """The estimated functional distance, with fewer probes and steps."""
    from prunefair.pruning.lanczos import orthonormal_probes
    from prunefair.pruning.sweeps import FunctionalQuadrature

    probes = orthonormal_probes(columns, CONFIGURATION["probes"], generator=generator)
    steps = CONFIGURATION["quadrature_steps"]
    return functools.partial(FunctionalQuadrature, probes=probes, steps=steps)


def prune(part: str, options, table) -> None:
    """The whole pipeline on a checkpoint, a stage at a time."""
    from prunefair.models import stream_folder
    from prunefair.pruning.folders import write_sliced
    from prunefair.pruning.layered import FolderStore, LayeredModel
    from prunefair.pruning.surgery import removed_parameters
    from prunefair.pruning.sweeps import (
        prune_swept,
        refitted_tensors,
        sweep_plan,
        swept_statistics,
    )

    how, generator = PARTS[part], torch.Generator().manual_seed(SEED)
    dense, stored = stream_folder(options.dense)
    meter = Meter(table, part)
    read = meter.counted(stored, "seconds_reading")
    skeleton, read = in_type(dense, read, torch.float32)
    tokens = how["texts"] * how["length"]
    plan = sweep_plan(skeleton, RATIO, tokens=tokens, length=how["length"])
    if not table.has(part, "planned_bytes"):
        weights = dense.num_parameters() * dense.dtype.itemsize
        table.add(plan._asdict() | {"weights": weights}, part, "planned_bytes")
    with meter("open"):
        layered = LayeredModel(skeleton, read)
    store = FolderStore(options.scratch / f"{part}-sums", {"part": part})
    if not how["sampled"] and not store.has("texts"):
        texts = known_texts(how, dense.config.vocab_size, generator)
        store.put("texts", tokens=texts, state=generator.get_state())
    size = {"n_texts": how["texts"], "length": how["length"]}
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(options.scratch / f"{part}-pruned")
    statistics = swept_statistics(
        layered, store, generator=generator, watch=meter, **size
    )
    run = prune_swept(
        layered,
        statistics,
        RATIO,
        generator=generator,
        choice=how["choice"],
        penalty=quadrature(dense.config.hidden_size, generator),
        ridge=how["ridge"],
        watch=meter,
    )
    changed = {
        name: meter.counted(lambda fit=fit: fit().to(dense.dtype), "seconds_refitting")
        for name, fit in refitted_tensors(layered, statistics, run).items()
    }
    out = options.scratch / f"{part}-pruned"
    removed = removed_parameters(dense, run.kept)
    with meter("save"):
        stored = meter.counted(stored, "seconds_reading")
        write_sliced(dense, stored, out, run.kept, changed=changed)
    written = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    found = {"removed_parameters": removed, "written_bytes": written}
    found["ridge"] = run.ridge
    table.add(found | {"widths": [len(rows) for rows in run.kept]}, part, "result")


def exact_distance(D, hidden, kept) -> float:
    """KS distance of the functional spectra, from fewer hidden vectors than outputs.

    There are no more singular values above zero than hidden vectors; the others are
    exact zeros here, which rounding would tear apart in a product of the moments.
    """
    from prunefair.pruning.spectrum import ks_distance

    every = torch.arange(D.shape[1])
    products = (hidden[:, rows] @ D[:, rows].T for rows in (every, kept))
    values = [torch.linalg.svdvals(product) for product in products]
    missing = len(D) - len(values[0])
    return float(ks_distance(*(torch.cat([x, x.new_zeros(missing)]) for x in values)))


def one_block(options, table) -> None:
    """Each step of the first block in its working precision and in float64."""
    from transformers import AutoModelForCausalLM

    from prunefair.models import stream_folder
    from prunefair.pruning.anatomy import rows_to_keep
    from prunefair.pruning.functional_policy import (
        FunctionalLayer,
        surgeon_energies,
    )
    from prunefair.pruning.layered import LayeredModel, MemoryStore
    from prunefair.pruning.refit import refit_down, solved_errors
    from prunefair.pruning.sweeps import functional_penalty, swept_statistics

    how, (dense, stored) = PARTS["block"], stream_folder(options.dense)
    dense.config.num_hidden_layers = 1
    with torch.device("meta"):
        dense = AutoModelForCausalLM.from_config(dense.config, dtype=dense.dtype)
    meter = Meter(table, "block")
    generator = torch.Generator().manual_seed(SEED)
    texts = known_texts(how, dense.config.vocab_size, generator)
    state, tokens = generator.get_state(), texts.numel()
    moments, costs = {}, {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        name, backward = str(dtype).removeprefix("torch."), dtype != torch.bfloat16
        layered, store = LayeredModel(*in_type(dense, stored, dtype)), MemoryStore()
        store.put("texts", tokens=texts, state=state)
        with meter(f"statistics, {name}"):
            found = swept_statistics(
                layered, store, generator=generator, costs=backward
            )
            moments[name] = found.moments.second[0]
        costs[name] = found.fisher and found.fisher[0]
        if name == "float64":
            hidden = store.get("moments-0000")["hidden"]
            moments[name] = hidden.T @ hidden / tokens
            D = layered.down_weight(0)
    exact, working = moments["float64"], moments["float32"]

    def gap(found, expected):
        return float((found - expected).norm() / expected.norm())

    def store_error(value, name):
        print(name, value, flush=True)
        table.add(value, "block", "errors", name)

    store_error(gap(working, exact), "moments, float32")
    store_error(gap(moments["bfloat16"], exact), "moments, bfloat16")
    store_error(gap(costs["float32"], costs["float64"]), "fisher, float32")
    layer = FunctionalLayer(D.float(), working, costs["float32"])
    count = rows_to_keep(len(layer), RATIO)
    kept = layer.energies.topk(count).indices.sort().values
    with meter("refit, one block"):
        fit = refit_down(D.float(), working, kept, ridge=how["ridge"]).weight
    with meter("refit, float64"):
        expected = refit_down(D, exact, kept, ridge=how["ridge"]).weight
    store_error(gap(fit.float(), expected), "refit")
    store_error(gap(fit.bfloat16(), expected), "refit, rounded to bfloat16")
    with meter("quadrature, one selection"):
        penalty = functional_penalty(len(D), generator=generator)(layer)
        estimated = float(penalty(kept))
    with meter("singular values, one selection"):
        distance = exact_distance(D, hidden, kept)
    table.add({"estimated": estimated, "exact": distance}, "block", "distance")
    with meter("features, one block"):
        surgeon_energies(layer.D, layer.H)
    halves = hidden.float().tensor_split(2)
    fit, held = (half.T @ half / len(half) for half in halves)
    with meter("ridge, one value and half"):
        solved_errors(layer.D, fit, held, kept, [how["ridge"]])


def main() -> None:
    """Write the checkpoint, or measure one part."""
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--write", type=Path, help="write the dense checkpoint there")
    parser.add_argument("--dense", type=Path, help="the dense checkpoint")
    parser.add_argument("--scratch", type=Path, help="folder for what is written")
    options = parser.parse_args()
    torch.set_num_threads(CONFIGURATION["threads"])
    if options.write:
        write_random(PARTS[options.part]["geometry"], options.write)
        return
    names = ("torch", "transformers", "safetensors")
    device = cpu(CONFIGURATION["threads"])
    table = Table(options.results, CONFIGURATION, *names, device=device)
    if options.part == "block":
        one_block(options, table)
    else:
        prune(options.part, options, table)


if __name__ == "__main__":
    main()
