"""Checkpoint folders: read a tensor at a time, write a tensor at a time.

The weights lie in safetensors files: the length of a header (8 bytes, little endian),
the header as JSON, then the bytes of the tensors one after another.  Reading and
writing them directly, instead of mapping files into memory, keeps the memory of a
process at the size of the tensors it holds.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from prunefair.messages import Given, shown

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
_JSON_BYTES = 100_000_000
SAVE_AGAIN = "load the model and save it with save_pretrained first"
DEQUANTISE = "load the model dequantised and save it with save_pretrained first"


class Checkpoint:
    """Tensors of a folder of safetensors files, each read when it is asked for.

    Parameters
    ----------
    folder : str or path
        Folder that holds `model.safetensors`, or the files that its index names.
    given : Given, optional
        What errors call the folder; by default `folder`.

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

    def __init__(self, folder, given: Given | None = None):
        self.folder = Path(folder)
        self.given = given or Given("folder", folder)
        self.entries = {}
        for path in self._files():
            for name, entry in _entries(path, self.given).items():
                if entry[1] not in _TYPES:
                    raise self.given.error(
                        f"whose {path.name} holds {shown(name)} in the type "
                        f"{entry[1]}, which is none of {', '.join(_TYPES)}",
                        "load the model in one of them and save it first",
                    )
                if name in self.entries:
                    raise self.given.error(
                        f"whose {path.name} holds {shown(name)} once more", SAVE_AGAIN
                    )
                self.entries[name] = entry

    def _files(self) -> list[Path]:
        """Files that hold the weights, as transformers chooses them."""
        if any(self.folder.glob("shard-*-model-*.safetensors")):
            raise self.given.error(
                "which holds a distributed checkpoint (shard-*)", SAVE_AGAIN
            )
        single, index = self.folder / "model.safetensors", self.folder / INDEX
        if single.is_file():
            return [single]
        names = self._shards(index) if index.is_file() else [single.name]
        missing = [name for name in names if not (self.folder / name).is_file()]
        if missing:
            pickled = [*self.folder.glob("*.bin"), *self.folder.glob("*.pt*")]
            besides = f" but {pickled[0].name}, a pickle" if pickled else ""
            raise self.given.error(
                f"which holds no {missing[0]}{besides}",
                "get that file, or " + SAVE_AGAIN,
            )
        return [self.folder / name for name in names]

    def _shards(self, index) -> list[str]:
        """Names of the files of the weights by the index, each in the folder."""
        names = read_json(index, self.given).get("weight_map")
        names = names.values() if isinstance(names, dict) else [None]
        for name in names:
            if not isinstance(name, str) or Path(name).name != name:
                raise self.given.error(
                    f"whose {INDEX} has no weight_map of names to files of the folder",
                    "get that file again, or " + SAVE_AGAIN,
                )
        return sorted(set(names)) or ["model.safetensors"]

    def dtype(self):
        """Type of the first tensor of floating point numbers, as transformers takes."""
        import torch

        types = (getattr(torch, _TYPES[entry[1]]) for entry in self.entries.values())
        for dtype in types:
            if dtype.is_floating_point:
                return dtype
        raise self.given.error("which holds no floating point tensor", DEQUANTISE)

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
            problem = f"whose {path.name} could not be read ({error})"
            raise self.given.error(problem, "get the file again") from error
        return buffer


def _pieces(size):
    """First and last byte of every piece of `size` bytes."""
    for first in range(0, size, _PIECE_BYTES):
        yield first, min(first + _PIECE_BYTES, size)


def read_json(path, given: Given) -> dict:
    """Object in a JSON file; whatever else it holds is one line about `given`."""
    remedy = "get that file again, or give another folder"
    with given.using(f"whose {path.name} is no JSON object in UTF-8", remedy):
        size = path.stat().st_size
        if size > _JSON_BYTES:
            raise ValueError(f"{size} bytes, more than {_JSON_BYTES}")
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=_infinite)
        if not isinstance(content, dict):
            raise ValueError(f"it is of the type {type(content).__name__}")
    return content


def _infinite(name: str) -> float:
    """Infinity, which configurations may hold, but not NaN."""
    if name == "NaN":
        raise ValueError("a number is NaN")
    return float(name)


def _entries(path, given: Given) -> dict[str, tuple]:
    """For every tensor of one file: file, type, shape and the place of its bytes.

    The library of the format judges the header: whole numbers, sizes that are those
    of the shapes, tensors one after another from the first byte to the last.
    """
    from safetensors import safe_open

    problem = f"whose {path.name} is cut off or no safetensors file"
    with given.using(problem, "get that file again"):
        with safe_open(os.fspath(path), framework="numpy"):
            pass
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(length), object_pairs_hook=_unique)
        header.pop("__metadata__", None)
        if any(size >= 2**63 for e in header.values() for size in e["shape"]):
            raise ValueError("a shape beyond 64 bits")  # of an empty tensor
    return {
        name: (
            path,
            entry["dtype"],
            entry["shape"],
            *(8 + length + place for place in entry["data_offsets"]),
        )
        for name, entry in header.items()
    }


def _unique(pairs) -> dict:
    """Object of JSON whose names differ; the library would take the last of them."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name occurs twice")
    return content


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
        write_shard(folder / file_name, {n: specs[n] for n in names}, tensor_of)
        weight_map |= dict.fromkeys(names, file_name)
    if len(shards) > 1:
        size = sum(sizes.values())
        metadata = {"total_parameters": parameters, "total_size": size}
        index = {"metadata": metadata, "weight_map": weight_map}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / INDEX).write_text(text, encoding="utf-8")


def weights_size(specs, max_bytes) -> int:
    """Bytes of all files that `write_weights` fills, with their headers.

    Parameters
    ----------
    specs, max_bytes
        See `write_weights`.

    Returns
    -------
    size : int
        Without the index, which holds no weights.
    """
    sizes = {name: spec.numel() * spec.element_size() for name, spec in specs.items()}
    shards = shard_names(sizes, max_bytes)
    headers = (_header({n: specs[n] for n in names})[1] for names in shards)
    return sum(sizes.values()) + sum(map(len, headers))


def write_shard(path, specs, tensor_of, *, note: dict | None = None) -> None:
    """Write one safetensors file, holding one tensor at a time.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    specs, tensor_of
        See `write_weights`.
    note : dict of str to str, optional
        What the header says beside the format.

    Raises
    ------
    ValueError
        See `write_weights`.
    """
    order, header = _header(specs, note)
    with open(path, "wb") as file:
        file.write(header)
        for name in order:
            _write_tensor(file, name, specs[name], tensor_of(name))


def _header(specs, note: dict | None = None) -> tuple[list[str], bytes]:
    """Order of the tensors of a file, and the bytes that stand before them."""
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
    header, place = {"__metadata__": {"format": "pt"} | (note or {})}, 0
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
    return order, struct.pack("<Q", len(text)) + text


def _write_tensor(file, name, spec, tensor) -> None:
    import torch

    if tensor.shape != spec.shape or tensor.dtype != spec.dtype:
        raise ValueError(
            f"tensor {name} is {tensor.dtype} of shape {tuple(tensor.shape)}, but the "
            f"model needs {spec.dtype} of shape {tuple(spec.shape)}"
        )
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    file.write(flat.view(torch.uint8).numpy().data)
