"""LLaMA-2-7B on one GPU: time, memory and throughput of pruning, in one command.

    python benchmarks/llama2_7b.py                        # random weights, on the GPU
    python benchmarks/llama2_7b.py --model FOLDER         # a real checkpoint
    python benchmarks/llama2_7b.py --geometry tiny --device cpu --results t.json
    python benchmarks/llama2_7b.py --not-measured         # the empty table

writes `book/results/llama2_7b.json`.  Under ten minutes, without a network; of packages
it needs what an image with PyTorch for GPUs holds: torch, transformers, safetensors,
numpy, scipy, tqdm and the source of this book, found beside this file if it is not
installed.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
import tempfile
import time
from pathlib import Path

from storing import check_same, options_of, read_table, write_table

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "llama2_7b.json"
NEEDED = ("torch", "transformers", "safetensors", "numpy", "scipy", "tqdm")
STAGES = ("load", "features", "spectra", "policy", "distances", "save", "total")
SPEEDS = ("prefill", "decode")


def check_packages() -> None:
    """Stop with one clear line if a package is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"error: {', '.join(missing)} is not installed; pip install it first")
    if importlib.util.find_spec("prunefair") is None:
        sys.path.insert(0, str(ROOT / "src"))


def parsed():
    """Options of the command line, which are the configuration of the table."""
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--model", default="", help="folder of a checkpoint")
    parser.add_argument("--geometry", default="llama-2-7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--ratio", type=float, default=0.3)
    parser.add_argument("--episodes", type=int, default=12)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--probes", type=int, default=32)
    parser.add_argument("--prompt", type=int, nargs=2, default=(4, 512))
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=20250129)
    parser.add_argument("--not-measured", action="store_true")
    return parser.parse_args()


def settings(options) -> dict:
    """What a table is measured with; the type of the weights is found on loading."""
    from prunefair.pruning.lanczos import STEPS

    left_out = ("results", "not_measured", "model", "device")
    chosen = {k: v for k, v in vars(options).items() if k not in left_out}
    return chosen | {"steps": STEPS, "dtype": None}


def empty_table(options, config) -> dict:
    """The table with nothing measured."""
    import torch
    import transformers

    from prunefair.pruning.anatomy import parameter_counts, throughput_bound
    from prunefair.pruning.llama2_7b import weights_line

    weights = f"weights of {Path(options.model).name}" if options.model else ""
    packages = {"torch": torch, "transformers": transformers}
    return {
        "weights": weights or weights_line(options.geometry),
        "status": "not measured",
        "device": None,
        "seconds": dict.fromkeys(STAGES),
        "over_floor": dict.fromkeys(("features", "spectra", "policy")),
        "peak_gpu_bytes": None,
        "rows_kept": None,
        "ks_mean": None,
        "ks_error": None,
        "throughput": {f"{s} {w}": None for s in SPEEDS for w in ("dense", "pruned")},
        "throughput_note": None,
        "gain": dict.fromkeys(SPEEDS),
        "bound": throughput_bound(parameter_counts(config), options.ratio),
        "configuration": settings(options),
        "versions": {"python": platform.python_version()}
        | {name: package.__version__ for name, package in packages.items()},
    }


def opened(options):
    """Skeleton and reader of the checkpoint or of the geometry."""
    from prunefair.models import stream_folder
    from prunefair.pruning.llama2_7b import open_geometry

    if options.model:
        return stream_folder(options.model)
    return open_geometry(options.geometry, seed=options.seed, device=options.device)


def over_floor(options, config, seconds, device: str) -> dict:
    """Measured time of each stage over the least, on a device that is known."""
    from prunefair.pruning import llama2_7b

    name = next((name for name in llama2_7b.DEVICES if name in device), None)
    if name is None:
        return dict.fromkeys(("features", "spectra", "policy"))
    work = llama2_7b.work_plan(
        config,
        options.ratio,
        episodes=options.episodes,
        draws=options.draws,
        probes=options.probes or None,
    )
    floor = llama2_7b.floor_seconds(work, name)
    return {stage: seconds[stage] / least for stage, least in floor.items()}


def speeds(options, model, read, kept) -> tuple[dict, str | None]:
    """Throughput before and after, or why it was not measured."""
    import torch

    from prunefair.pruning.llama2_7b import loaded_model, median_throughput

    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if options.device.startswith("cuda"):
        free = torch.cuda.mem_get_info(torch.device(options.device).index)[0]
        if 1.15 * size > free:
            return {}, f"the dense model needs {size} bytes and {free} are free"
    generator = torch.Generator().manual_seed(options.seed)
    shape = tuple(options.prompt)
    tokens = torch.randint(3, model.config.vocab_size, shape, generator=generator)
    found = {}
    for label, rows in (("dense", None), ("pruned", kept)):
        loaded = loaded_model(model, read, rows, device=options.device)
        with torch.no_grad():
            speed = median_throughput(
                loaded, tokens, options.new_tokens, repeats=options.repeats
            )
        found |= {f"{name} {label}": getattr(speed, name) for name in SPEEDS}
        del loaded
        if options.device.startswith("cuda"):
            torch.cuda.empty_cache()
    return found, None


def exact_error(read, name, rows, estimate, device) -> float:
    """Estimated minus exact distance of one layer."""
    import torch

    from prunefair.pruning.llama2_7b import full_precision
    from prunefair.pruning.spectrum import spectral_distance

    with full_precision():
        W = read(name).to(device)
        exact = spectral_distance(W, rows.to(device)[None], dtype=torch.float32)
    return estimate - float(exact)


def measure(options) -> dict:
    """The run, its speed before and after, and one layer checked by exact values."""
    import torch

    from prunefair.pruning.llama2_7b import prune_streamed
    from prunefair.pruning.surgery import ffn_slices

    cuda = options.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        sys.exit(
            "error: --device is 'cuda', which torch cannot use here; run this on a "
            "machine with a GPU, or give --geometry tiny --device cpu"
        )
    device = torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU"
    if cuda:  # the first call of each library sets it up; not part of the work
        warm = torch.randn(64, 64, device=options.device)
        torch.linalg.eigvalsh(warm @ warm.T)
    model, read = opened(options)
    table = empty_table(options, model.config)
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        run = prune_streamed(
            model,
            read,
            options.ratio,
            generator=torch.Generator().manual_seed(options.seed),
            device=options.device,
            episodes=options.episodes,
            draws=options.draws,
            probes=options.probes,
            out=Path(scratch) / "pruned",
        )
        total = time.perf_counter() - start
    name = next(iter(ffn_slices(model)[0]))
    error = exact_error(read, name, run.kept[0], run.distances[0], options.device)
    found, note = speeds(options, model, read, run.kept)
    seconds = run.seconds | {"total": total}
    table |= {
        "status": "measured",
        "device": device,
        "seconds": {stage: seconds[stage] for stage in STAGES},
        "over_floor": over_floor(options, model.config, seconds, device),
        "peak_gpu_bytes": run.peak_bytes,
        "rows_kept": len(run.kept[0]),
        "ks_mean": sum(run.distances) / len(run.distances),
        "ks_error": error,
        "throughput": table["throughput"] | found,
        "throughput_note": note,
    }
    table["configuration"]["dtype"] = str(model.dtype).removeprefix("torch.")
    if found:
        table["gain"] = {s: found[f"{s} pruned"] / found[f"{s} dense"] for s in SPEEDS}
    return table


def main() -> None:
    """Measure, or write the empty table."""
    check_packages()
    options = parsed()
    known = read_table(options.results).get("configuration", {})
    check_same(options.results, known and known | {"dtype": None}, settings(options))
    if options.not_measured:
        from prunefair.pruning.llama2_7b import geometry_config

        table = empty_table(options, geometry_config(options.geometry))
    else:
        table = measure(options)
    write_table(options.results, table)
    from prunefair.pruning.llama2_7b import run_lines

    print(*run_lines(table), sep="\n")


if __name__ == "__main__":
    main()
