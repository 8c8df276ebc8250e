"""LLaMA-2-7B on one GPU: time, memory and throughput of pruning, in one command.

    python benchmarks/llama2_7b.py                        # random weights, on the GPU
    python benchmarks/llama2_7b.py --model FOLDER         # a real checkpoint
    python benchmarks/llama2_7b.py --geometry tiny --device cpu --results t.json
    python benchmarks/llama2_7b.py --not-measured         # the empty table

writes `book/results/llama2_7b.json`.  It ends within eight minutes, without a network,
and stores what it has after each stage; parts that are there are not measured again.
Of packages it needs what an image with PyTorch for GPUs holds: torch, transformers,
safetensors, numpy, scipy, tqdm and the source of this book, found beside this file if
it is not installed.  Random weights are written to the scratch folder first, if its
disk has room, and read from there as those of a real checkpoint are.

Not in pieces for workers: one GPU, whose times are measured, and each stage needs the
one before.
"""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from storing import Table, options_of

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "llama2_7b.json"
PACKAGES = ("torch", "transformers", "safetensors")
NEEDED = (*PACKAGES, "numpy", "scipy", "tqdm")
SLACK = 8 * 10**8  # bytes of a GPU that sampling leaves alone


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
    parser.add_argument("--scratch", help="folder for checkpoints and statistics")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--ratio", type=float, default=0.3)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--episodes", type=int, default=6)
    parser.add_argument("--spectral-episodes", type=int, default=12)
    parser.add_argument("--cap", type=float, default=15e9, help="bytes of a T4")
    parser.add_argument("--widths", type=int, nargs="+", default=[7705, 7680])
    parser.add_argument(
        "--prompts",
        nargs="+",
        default=["4x512", "1x128", "16x128", "64x128"],
        help="number of prompts x tokens of each",
    )
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=20250129)
    parser.add_argument("--not-measured", action="store_true")
    return parser.parse_args()


def settings(options) -> dict:
    """What a table is measured with."""
    left_out = ("results", "not_measured", "model", "device", "scratch", "minutes")
    return {k: v for k, v in vars(options).items() if k not in left_out}


def write_dense(model, read, folder: Path) -> None:
    """A checkpoint of what `read` draws, a tensor at a time."""
    from prunefair.checkpoint import write_weights

    folder.mkdir(parents=True)
    specs, count = model.state_dict(), model.num_parameters()
    options = {"max_bytes": 2 * 10**9, "parameters": count}
    write_weights(folder, specs, lambda name: read(name).cpu(), **options)
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.save_pretrained(folder)


class Job:
    """What the parts of the measurement share.

    Parameters
    ----------
    options : argparse.Namespace
    table : Table
    scratch : pathlib.Path
        Folder for checkpoints and statistics.
    """

    def __init__(self, options, table, scratch: Path):
        self.options, self.table, self.scratch = options, table, scratch
        self.cuda = options.device.startswith("cuda")
        self.end = time.monotonic() + 60 * options.minutes

    def generator(self):
        import torch

        return torch.Generator().manual_seed(self.options.seed)

    def open(self):
        """Skeleton and reader of the checkpoint, written first if it is random."""
        import torch

        from prunefair.models import stream_folder
        from prunefair.pruning.llama2_7b import open_geometry

        options, dense = self.options, self.scratch / "dense"
        if options.model or (dense / "config.json").exists():
            return stream_folder(options.model or dense)
        how = {"seed": options.seed, "device": options.device}
        drawn = open_geometry(options.geometry, dtype=torch.bfloat16, **how)
        size = 2 * drawn[0].num_parameters()
        if shutil.disk_usage(self.scratch).free < 5 * size:
            return drawn
        write_dense(*drawn, dense)
        return stream_folder(dense)

    def free(self, cap: float) -> float:
        """Bytes of the device that sampling may take."""
        import torch

        if not self.cuda:
            return float("inf")
        free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
        return min(free, cap) - torch.cuda.memory_allocated() - SLACK

    @contextlib.contextmanager
    def capped(self, cap: float):
        """No more than so many bytes of the GPU for the time of the block."""
        import torch

        if not self.cuda:
            yield
            return
        torch.cuda.empty_cache()
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(min(cap / total, 1.0))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    def functional(self, part: str, cap: float = float("inf")) -> dict:
        """The functional pipeline whole, a layer at a time."""
        from meter import Meter

        from prunefair.pipelines._room import available_bytes
        from prunefair.pruning.layered import FolderStore, LayeredModel, MemoryStore
        from prunefair.pruning.sweeps import (
            prune_swept,
            sweep_plan,
            swept_statistics,
            write_swept,
        )

        options, generator = self.options, self.generator()
        size = {"n_texts": options.texts, "length": options.length}
        model, read = self.open()
        tokens = options.texts * options.length
        plan = sweep_plan(model, options.ratio, tokens=tokens, length=options.length)
        folder = cap < float("inf")  # a machine with such a GPU has little memory
        folder = folder or available_bytes() < 2 * plan.waiting
        store = FolderStore(self.scratch / part, size) if folder else MemoryStore()
        meter, start = Meter(self.table, part, options.device), time.perf_counter()
        meter.before = 0  # the whole process is what a small machine must hold
        with self.capped(cap):
            with meter("open"):
                layered = LayeredModel(model, read, device=options.device)
            free, rest = self.free(cap), {"generator": generator, "watch": meter}
            statistics = swept_statistics(layered, store, free=free, **size, **rest)
            wide = model.config.intermediate_size >= 512  # as `prunefair.prune` does
            rest |= {"episodes": options.episodes, "multiple": 32 if wide else 1}
            run = prune_swept(layered, statistics, options.ratio, even=True, **rest)
            out = self.scratch / f"{part}-pruned"
            with meter("save"):
                write_swept(model, layered, statistics, run, out)
        seconds = time.perf_counter() - start
        shutil.rmtree(out)
        shutil.rmtree(self.scratch / part, ignore_errors=True)
        widths = [len(rows) for rows in run.kept]
        found = {"widths": [min(widths), max(widths)], "ks_mean": float(run.ks.mean())}
        found |= {"ridge": run.ridge, "planned_bytes": plan._asdict()}
        return self.table[part] | found | {"seconds": seconds}

    def spectral(self, part: str) -> dict:
        """The paper's objective, with one layer checked by exact values."""
        import torch

        from prunefair.pruning.llama2_7b import full_precision, prune_streamed
        from prunefair.pruning.spectrum import spectral_distance
        from prunefair.pruning.surgery import ffn_slices

        options, (model, read) = self.options, self.open()
        start, out = time.perf_counter(), self.scratch / "spectral-pruned"
        run = prune_streamed(
            model,
            read,
            options.ratio,
            generator=self.generator(),
            device=options.device,
            episodes=options.spectral_episodes,
            out=out,
        )
        seconds = time.perf_counter() - start
        shutil.rmtree(out)
        with full_precision():
            W = read(next(iter(ffn_slices(model)[0]))).to(options.device)
            rows = run.kept[0].to(options.device)[None]
            exact = spectral_distance(W, rows, dtype=torch.float32)
        stages = {name: {"seconds": s} for name, s in run.seconds.items()}
        return {
            "stages": stages,
            "peak_gpu_bytes": run.peak_bytes,
            "ks_mean": sum(run.distances) / len(run.distances),
            "ks_error": run.distances[0] - float(exact),
            "seconds": seconds,
        }

    def speed(self, part: str) -> dict:
        """Prefill and decode, dense and at each width, for several prompts."""
        import torch

        from prunefair.pruning.llama2_7b import loaded_model, median_throughput

        options, (model, read) = self.options, self.open()
        start, layers = time.perf_counter(), model.config.num_hidden_layers
        for width in (None, *options.widths):
            kept = width and [torch.arange(width)] * layers
            loaded = loaded_model(model, read, kept, device=options.device)
            for prompt in options.prompts:
                shape = tuple(map(int, prompt.split("x")))
                tokens = torch.randint(
                    3, model.config.vocab_size, shape, generator=self.generator()
                )
                how = {"repeats": options.repeats}
                found = median_throughput(loaded, tokens, options.new_tokens, **how)
                place = part, "tokens_per_second", str(width or "dense"), prompt
                self.table.add(found._asdict(), *place)
            del loaded
            if self.cuda:
                torch.cuda.empty_cache()
        return self.table[part] | {"seconds": time.perf_counter() - start}

    def measure(self, part: str, call) -> None:
        """Store a part, or why it is not there."""
        import torch

        if self.table.has(part, "seconds"):
            return
        self.table.pop(part, None)  # of a run that did not end
        left = self.end - time.monotonic()
        try:
            with ending(left):
                self.table.add(call(part), part)
            self.table.get("notes", {}).pop(part, None)
        except TimeoutError:
            note = f"not finished within {self.options.minutes:g} minutes in all"
            self.table.add(note, "notes", part)
        except torch.cuda.OutOfMemoryError as error:
            self.table.add(str(error)[:200], "notes", part)
        self.table.write()


@contextlib.contextmanager
def ending(seconds: float):
    """Raise TimeoutError in the block when the time is over, where signals can."""
    if seconds <= 0:
        raise TimeoutError
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def over(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def opened_table(options) -> Table:
    """The stored table, or a new one."""
    import torch

    from prunefair.pruning.llama2_7b import PARTS, weights_line

    cuda = options.device.startswith("cuda") and not options.not_measured
    if cuda and not torch.cuda.is_available():
        sys.exit(
            "error: --device is 'cuda', which torch cannot use here; run this on a "
            "machine with a GPU, or give --geometry tiny --device cpu"
        )
    device = torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU"
    if options.not_measured:
        device = None
    table = Table(options.results, settings(options), *PACKAGES, device=device)
    if not any(part in table for part in PARTS):
        weights = f"weights of {Path(options.model).name}" if options.model else ""
        table.replace({"weights": weights or weights_line(options.geometry)})
    return table


def main() -> None:
    """Measure, or write the empty table."""
    check_packages()
    options = parsed()
    table = opened_table(options)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        job = Job(options, table, Path(scratch))
        parts = {
            "functional": job.functional,
            "speed": job.speed,
            "capped": lambda part: job.functional(part, options.cap),
            "spectral": job.spectral,
        }
        for part, call in {} if options.not_measured else parts.items():
            job.measure(part, call)
    from prunefair.pruning.llama2_7b import run_lines

    print(*run_lines(table), sep="\n")


if __name__ == "__main__":
    main()
