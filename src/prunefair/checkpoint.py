"""Checkpoint folders: read a tensor at a time, write a tensor at a time.

The weights lie in safetensors files: the length of a header (8 bytes, little endian),
the header as JSON, then the bytes of the tensors one after another.  Reading and
writing them directly, instead of mapping files into memory, keeps the memory of a
process at the size of the tensors it holds.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

INDEX = "model.safetensors.index.json"
# In the order of the format: types of more bytes come first in a file.
_TYPES = {
    "F64": "float64",
    "I64": "int64",
    "F32": "float32",
    "I32": "int32",
    "BF16": "bfloat16",
    "F16": "float16",
    "I16": "int16",
    "U8": "uint8",
    "I8": "int8",
    "BOOL": "bool",
}
_PIECE_BYTES = 2**20


class Checkpoint:
    """Tensors of a folder of safetensors files, each read when it is asked for.

    Parameters
    ----------
    folder : str or path
        Folder that holds `model.safetensors`, or the files that its index names, or
        without an index `model-*-of-*.safetensors`.

    Attributes
    ----------
    entries : dict
        For every tensor: file, type, shape, and the place of its bytes in the file.

    Raises
    ------
    ValueError
        If the folder holds no such file or not every file of its index, or if a file
        is cut off, is no safetensors file or has a type that this book does not read.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.entries = {}
        for path in self._files():
            entries = _entries(path)
            for name, (_, code, *_) in entries.items():
                if code not in _TYPES:
                    raise ValueError(
                        f"{path} holds {name!r} in the type {code}, which is none of "
                        f"{', '.join(_TYPES)}; load the model in one of them and save "
                        "it with save_pretrained first"
                    )
            self.entries |= entries

    def _files(self) -> list[Path]:
        """Files that hold the weights, as transformers chooses them."""
        single, index = self.folder / "model.safetensors", self.folder / INDEX
        if single.is_file():
            return [single]
        files = sorted(self.folder.glob("model-*-of-*.safetensors"))
        if index.is_file():
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files = [self.folder / name for name in sorted(set(weight_map.values()))]
        missing = [path.name for path in files if not path.is_file()]
        if missing or not files:
            raise ValueError(
                f"folder is {str(self.folder)!r}, which holds no "
                f"{missing[0] if missing else 'model*.safetensors'}; get the file, or "
                "load the model and save it with save_pretrained first"
            )
        return files

    def dtype(self):
        """Type of the first tensor of floating point numbers, as transformers takes."""
        import torch

        types = (getattr(torch, _TYPES[entry[1]]) for entry in self.entries.values())
        for dtype in types:
            if dtype.is_floating_point:
                return dtype
        raise ValueError(
            f"folder is {str(self.folder)!r}, which holds no floating point tensor; "
            "load the model dequantised and save it with save_pretrained first"
        )

    def tensor(self, name):
        """Tensor `name`, read from the disk into memory of its own."""
        import torch

        _, code, shape, start, end = self.entries[name]
        dtype = getattr(torch, _TYPES[code])
        buffer = self._read(name, 0, end - start)
        if not buffer:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(buffer, dtype=dtype).view(shape)

    def same(self, first, second) -> bool:
        """Whether two tensors have the same type, shape and bytes, read in pieces."""
        _, code, shape, start, end = self.entries[first]
        return [code, shape] == list(self.entries[second][1:3]) and all(
            self._read(first, *piece) == self._read(second, *piece)
            for piece in _pieces(end - start)
        )

    def _read(self, name, first, last) -> bytearray:
        """Bytes `first` to `last` of a tensor, `last` not included."""
        path, *_, start, _ = self.entries[name]
        buffer = bytearray(last - first)
        try:
            with open(path, "rb") as file:
                file.seek(start + first)
                if file.readinto(buffer) < len(buffer):
                    raise OSError("it is cut off")
        except OSError as error:
            message = f"{path} could not be read ({error}); get the file again"
            raise ValueError(message) from error
        return buffer


def _pieces(size):
    """First and last byte of every piece of `size` bytes."""
    for first in range(0, size, _PIECE_BYTES):
        yield first, min(first + _PIECE_BYTES, size)


def _entries(path) -> dict[str, tuple]:
    """For every tensor of one file: file, type, shape and the place of its bytes."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))[0]
        text = file.read(length) if 8 + length <= size else b""
    try:
        header, entries = json.loads(text), {}
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start, end = (8 + length + place for place in entry["data_offsets"])
            entries[name] = (path, entry["dtype"], entry["shape"], start, end)
            if end > size:
                raise ValueError(f"{name} ends at byte {end} of {size}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"{path} is cut off or no safetensors file; get the file again"
        raise ValueError(message) from error
    return entries


class TensorSequence(Sequence):
    """Sequence of tensors, each read when it is asked for and never kept.

    Parameters
    ----------
    read : callable
        Gives the tensor of a name.
    names : list of str
        Name of every tensor; a slice is a sequence of the same kind.
    """

    def __init__(self, read, names):
        self.read, self.names = read, names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return TensorSequence(self.read, self.names[index])
        return self.read(self.names[index])


def shard_names(sizes, max_bytes) -> list[list[str]]:
    """Names of the tensors of each file: in order, a new file before `max_bytes`.

    Parameters
    ----------
    sizes : dict of int
        Bytes of every tensor, in the order of the model.
    max_bytes : int
        A file holds at most so many bytes of tensors, or one larger tensor.

    Returns
    -------
    shards : list of list of str
    """
    shards, current, filled = [], [], 0
    for name, size in sizes.items():
        if size > max_bytes:
            shards.append([name])
            continue
        if filled + size > max_bytes:
            shards.append(current)
            current, filled = [], 0
        current.append(name)
        filled += size
    return shards + [current] * bool(current)


def write_weights(folder, specs, tensor_of, *, max_bytes, parameters) -> None:
    """Write `model*.safetensors` and its index, holding one tensor at a time.

    Parameters
    ----------
    folder : pathlib.Path
        Existing folder.
    specs : dict of torch.Tensor
        Type and shape of every tensor, in the order of the model; the values are not
        read, so that they may lie on the meta device.
    tensor_of : callable
        Gives the tensor of a name.
    max_bytes : int
        Bytes of tensors in a file; see `shard_names`.
    parameters : int
        Number of parameters of the model, stored in the index.

    Raises
    ------
    ValueError
        If a tensor has another type or shape than its spec, or its type is none that
        the format has.
    """
    sizes = {name: spec.numel() * spec.element_size() for name, spec in specs.items()}
    shards = shard_names(sizes, max_bytes)
    weight_map = {}
    for number, names in enumerate(shards, 1):
        suffix = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        file_name = f"model{suffix}.safetensors"
        _write_shard(folder / file_name, {n: specs[n] for n in names}, tensor_of)
        weight_map |= dict.fromkeys(names, file_name)
    if len(shards) > 1:
        size = sum(sizes.values())
        metadata = {"total_parameters": parameters, "total_size": size}
        index = {"metadata": metadata, "weight_map": weight_map}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / INDEX).write_text(text, encoding="utf-8")


def _write_shard(path, specs, tensor_of) -> None:
    """One safetensors file: header, then the tensors by type and name."""
    import torch

    types = {getattr(torch, name): code for code, name in _TYPES.items()}
    for name, spec in specs.items():
        if spec.dtype not in types:
            raise ValueError(
                f"tensor {name} is {spec.dtype}, which is none of "
                f"{', '.join(_TYPES.values())}; convert the model first"
            )
    rank = list(types)
    order = sorted(specs, key=lambda name: (rank.index(specs[name].dtype), name))
    header, place = {"__metadata__": {"format": "pt"}}, 0
    for name in order:
        spec = specs[name]
        end = place + spec.numel() * spec.element_size()
        header[name] = {
            "dtype": types[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [place, end],
        }
        place = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            _write_tensor(file, name, specs[name], tensor_of(name))


def _write_tensor(file, name, spec, tensor) -> None:
    import torch

    if tensor.shape != spec.shape or tensor.dtype != spec.dtype:
        raise ValueError(
            f"tensor {name} is {tensor.dtype} of shape {tuple(tensor.shape)}, but the "
            f"model needs {spec.dtype} of shape {tuple(spec.shape)}"
        )
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    file.write(flat.view(torch.uint8).numpy().data)
