"""Run the chapters as on a GPU, on a machine that has none.

    python tools/accelerator.py [NOTEBOOK ...]     # all of Part I by default

Every tensor lives in ordinary memory, but remembers whether it "is" on the device
`cuda:0`.  As on a GPU, an operation on tensors of both places is an error, numpy reads
no tensor of the device, and a generator draws on its own device only; and matrix
products end in other last digits, by a few units of rounding.  A chapter passes if each
of its cells runs and each of its checks holds.  Nothing is stored.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ROOT = Path(__file__).resolve().parents[1]
DEVICE = torch.device("cuda:0")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "_scaled_dot_product")
ROUNDING = {torch.float32: 2.0, torch.bfloat16: 0.25, torch.float16: 0.25}  # of eps
READS = ("numpy", "__array__", "__dlpack__")
CELL = """import accelerator
accelerator.pretend()"""


def _tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Memory:
    """Which storages are on the device: a mark that ends with the storage itself."""

    def __init__(self):
        self.inside = 0
        self.noise = torch.Generator()

    def has(self, tensor) -> bool:
        """Whether `tensor` is on the device."""
        return _is_placed(tensor) and hasattr(tensor.untyped_storage(), "on_device")

    def place(self, tensor, there: bool) -> None:
        """Note that `tensor` is on the device from now on, or in ordinary memory."""
        if there and _is_placed(tensor):
            tensor.untyped_storage().on_device = True
        elif self.has(tensor):
            del tensor.untyped_storage().on_device


def _is_placed(tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.layout == torch.strided


class _Move(torch.autograd.Function):
    """A copy at the other place, whose gradient comes back."""

    @staticmethod
    def forward(context, tensor, memory, there):
        context.memory, context.there = memory, there
        copy = tensor.clone()
        memory.place(copy, there)
        return copy

    @staticmethod
    def backward(context, gradient):
        copy = gradient.clone()
        context.memory.place(copy, not context.there)
        return copy, None, None


class Operations(TorchDispatchMode):
    """Results are where their operands are; operands of two places are an error."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        operands = _tensors((args, kwargs))
        there = [tensor for tensor in operands if self.memory.has(tensor)]
        here = [t for t in operands if t.dim() and not self.memory.has(t) and t.numel()]
        if name.startswith("index") and args and self.memory.has(args[0]):
            here = [t for t in here if t.dtype not in (torch.int64, torch.bool)]
        if there and here and name not in ("copy_", "_foreach_copy_", "set_"):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {name} found "
                f"{DEVICE} and cpu, with shapes {[tuple(t.shape) for t in operands]}"
            )
        out = func(*args, **kwargs)
        if name in ("copy_", "_foreach_copy_"):
            return out
        if there or (self.memory.inside and not operands):
            for tensor in _tensors(out):
                self._perturb(name, tensor)
                self.memory.place(tensor, True)
        return out

    def _perturb(self, name, tensor) -> None:
        """Other last digits, as another order of summation gives."""
        share = ROUNDING.get(tensor.dtype, 0)
        if share and name.startswith(PRODUCTS):
            noise = self.memory.noise.manual_seed(tensor.numel())  # the same each time
            draw = torch.randn(tensor.shape, generator=noise)
            eps = share * torch.finfo(tensor.dtype).eps
            tensor.copy_(tensor.float() * (1 + eps * draw))


class Placement(TorchFunctionMode):
    """Python's view of the device: where a tensor is, and moving it."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        owner = getattr(func, "__self__", None)
        operands = _tensors((args, kwargs))
        there = any(map(self.memory.has, operands))
        if name == "__get__" and owner is torch.Tensor.device:
            return DEVICE if there else func(*args, **kwargs)
        if name == "__get__" and owner is torch.Tensor.is_cuda:
            return there
        if there and name in READS:
            raise TypeError(
                f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() "
                "to copy the tensor to host memory first."
            )
        target = self._target(name, args, kwargs)
        if target is None:
            return self._inside(func, args, kwargs, there)
        args, kwargs = tree_map(_on_cpu, (args, kwargs))
        if name in ("cuda", "cpu"):
            func, args, kwargs = torch.Tensor.to, (args[0], "cpu"), {}
        generator = kwargs.get("generator")
        if target and generator is not None and generator.device.type == "cpu":
            raise RuntimeError("Expected a 'cuda' device type for generator, found cpu")
        source = operands[0] if name in ("to", "cuda", "cpu") else None
        out = func(*args, **kwargs)
        if source is not None and there != target:
            return _Move.apply(out, self.memory, target)
        for tensor in _tensors(out):
            self.memory.place(tensor, target)
        return out

    def _inside(self, func, args, kwargs, there):
        """Run `func`; what it makes by itself is on the device if an operand is."""
        self.memory.inside += there
        try:
            return func(*args, **kwargs)
        finally:
            self.memory.inside -= there

    def _target(self, name, args, kwargs):
        """True for the device, False for ordinary memory, None where none is named."""
        if name in ("cuda", "cpu") and args and isinstance(args[0], torch.Tensor):
            return name == "cuda"
        named = [kwargs["device"]] if kwargs.get("device") is not None else []
        if name == "to":
            named += [a for a in args[1:] if isinstance(a, str | torch.device)]
            others = [*args[1:2], kwargs.get("other")]
            named += [DEVICE for a in others if _is_there(self.memory, a)]
            named += [torch.device("cpu") for a in others if _is_here(self.memory, a)]
        named = [torch.device(n) if isinstance(n, str | int) else n for n in named]
        if not named or named[0].type not in ("cpu", "cuda"):
            return None
        return named[0].type == "cuda"


def _is_there(memory, value) -> bool:
    return isinstance(value, torch.Tensor) and memory.has(value)


def _is_here(memory, value) -> bool:
    return isinstance(value, torch.Tensor) and not memory.has(value)


def _on_cpu(value):
    """The ordinary device in the place of the one that is pretended."""
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return "cpu" if isinstance(value, str) and value.startswith("cuda") else value


def pretend() -> None:
    """From now on this process has a device, and the book takes it."""
    from prunefair import models

    memory = Memory()
    Operations(memory).__enter__()
    Placement(memory).__enter__()
    torch.cuda.synchronize = lambda device=None: None
    torch.cuda.is_bf16_supported = lambda *args, **kwargs: True
    models.default_device = lambda: "cuda"


def failures(path: Path) -> list[str]:
    """Run every cell of a chapter on the pretended device; a text for each failure."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(1, nbformat.v4.new_code_cell(CELL))
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        allow_errors=True,
        resources=resources,
    ).execute()
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                where = [line for line in output.traceback if "---->" in line]
                lines = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(where)).splitlines()
                marked = [line.strip() for line in lines if line.startswith("---->")]
                found.append("\n  ".join([*marked, f"{output.ename}: {output.evalue}"]))
    return found


def main(arguments: list[str]) -> int:
    """Run the named chapters, or all of Part I; the exit status counts the failures."""
    from execute import ENVIRONMENT

    tools = str(Path(__file__).parent)
    path = os.pathsep.join([tools, os.environ.get("PYTHONPATH", "")])
    os.environ.update(ENVIRONMENT, PYTHONPATH=path.rstrip(os.pathsep))
    chapters = [Path(name).resolve() for name in arguments]
    failed = 0
    for chapter in chapters or sorted((ROOT / "book" / "pruning").glob("*.ipynb")):
        start, found = time.perf_counter(), failures(chapter)
        failed += len(found)
        seconds = time.perf_counter() - start
        print(f"{chapter.stem}: {seconds:.0f} s, {len(found)} cells failed", flush=True)
        print(*found, sep="\n", end="\n" * bool(found), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
