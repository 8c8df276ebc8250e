"""Peak memory of pruning a checkpoint of more than 2 GB, streamed and in memory.

    python benchmarks/streaming_memory.py [--results FILE]

Random weights in the geometry of TinyLlama (1.1 billion parameters, bfloat16) are
written in files of at most 500 MB, then pruned by 30 % in two fresh processes.  What
is stored is how far the resident memory rises above its value before the work starts.

Not in pieces: what is measured is memory, of two fresh processes.
"""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from meter import resident
from storing import Table, cpu, options_of

RESULT = Path(__file__).parents[1] / "book" / "results" / "streaming_memory.json"
CONFIGURATION = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "dtype": "bfloat16",
    "max_shard_bytes": 500_000_000,
    "ratio": 0.3,
    "seed": 20250127,
}
POLICY = "largest row norm"


class LargestRows:
    """Keep the rows of largest norm."""

    def select(self, W, k, *, generator=None):
        return W.float().norm(dim=1).topk(k).indices.sort().values


def prune(way: str, dense: str, out: str) -> None:
    """Prune in one of the two ways and print the rise of the peak."""
    import transformers  # noqa: F401  (its memory is not part of the work)

    from prunefair.models import load_model
    from prunefair.pruning.folders import prune_checkpoint, save_pruned
    from prunefair.pruning.surgery import (
        row_matrices,
        select_rows,
        slice_ffn_,
        tiny_model,
    )

    tiny_model("llama", generator=torch.Generator())  # imports what the work imports
    before, ratio = resident("VmRSS"), CONFIGURATION["ratio"]
    if way == "streamed":
        prune_checkpoint(dense, out, LargestRows(), ratio)
    else:
        model = load_model(dense)
        kept = select_rows(row_matrices(model), LargestRows(), ratio)
        save_pruned(slice_ffn_(model, kept), None, out, kept)
    print(resident("VmHWM") - before)


def write_dense(folder: Path) -> None:
    """Random weights on the disk, drawn and written one tensor at a time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from prunefair.checkpoint import write_weights

    other = ("dtype", "max_shard_bytes", "ratio", "seed")
    fields = {k: v for k, v in CONFIGURATION.items() if k not in other}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**fields)).to(torch.bfloat16)
    generator = torch.Generator().manual_seed(CONFIGURATION["seed"])
    specs = model.state_dict()

    def draw(name):
        shape = specs[name].shape
        return torch.randn(shape, generator=generator).mul_(0.02).bfloat16()

    folder.mkdir()
    write_weights(
        folder,
        specs,
        draw,
        max_bytes=CONFIGURATION["max_shard_bytes"],
        parameters=model.num_parameters(),
    )
    model.config.architectures, model.config.dtype = ["LlamaForCausalLM"], "bfloat16"
    model.config.save_pretrained(folder)


def measure(scratch: Path) -> dict:
    """Run both ways and compare their files."""

    write_dense(scratch / "dense")
    files = list((scratch / "dense").glob("*.safetensors"))
    d, m = CONFIGURATION["hidden_size"], CONFIGURATION["intermediate_size"]
    keys = d * CONFIGURATION["num_key_value_heads"] // 32
    peaks = {}
    for way in ("streamed", "in_memory"):
        part = ["--part", way, scratch / "dense", scratch / way]
        command = [sys.executable, __file__, *part]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[way] = int(run.stdout)
    names = sorted(path.name for path in (scratch / "streamed").iterdir())
    pair = scratch / "streamed", scratch / "in_memory"
    assert filecmp.cmpfiles(*pair, names, shallow=False)[0] == names
    return {
        "peak_bytes": peaks["streamed"],
        "in_memory_peak_bytes": peaks["in_memory"],
        "checkpoint_bytes": sum(path.stat().st_size for path in files),
        "shard_bytes": max(path.stat().st_size for path in files),
        "layer_bytes": 2 * (3 * m * d + 2 * d * d + 2 * d * keys + 2 * d),
        "policy": POLICY,
    }


def main() -> None:
    """The measurement, or one of its two parts in a process of its own."""
    parser = options_of(__doc__, RESULT)
    parser.add_argument("--part", nargs=3, help="one way, for a child process")
    options = parser.parse_args()
    if options.part:
        prune(*options.part)
        return
    names = ("torch", "transformers", "safetensors")
    table = Table(options.results, CONFIGURATION, *names, device=cpu())
    with tempfile.TemporaryDirectory() as scratch:
        table.replace(measure(Path(scratch)))


if __name__ == "__main__":
    main()
