"""Checkpoint folders: which files count, and what a damaged one says."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

import prunefair.checkpoint as checkpoint
from prunefair.checkpoint import INDEX, Checkpoint, TensorSequence, write_weights

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(4, dtype=torch.int8)}


@pytest.fixture
def file(tmp_path):
    """The one file of a folder with the tensors `TENSORS`."""
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_tensors_are_read_as_they_were_written(file):
    found = Checkpoint(file.parent)
    assert found.dtype() == torch.float32
    for name, tensor in TENSORS.items():
        assert found.tensor(name).dtype == tensor.dtype
        assert torch.equal(found.tensor(name), tensor)


def test_a_file_cut_anywhere_is_named_and_so_is_a_garbled_header(file):
    whole = file.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    lengths = (0, 4, 8, 9, end - 8, end - 7, end - 4, end - 1, end, len(whole) - 1)
    broken = [whole[:length] for length in lengths]
    broken += [whole[:8] + b"#" * (end - 8) + whole[end:]]
    broken += [whole[:8] + text.ljust(end - 8) + whole[end:] for text in (b"[1]", b"9")]
    broken += [whole.replace(b'"data_offsets"', b'"data_offsetz"')]
    for content in broken:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors is cut off or no"):
            Checkpoint(file.parent)


def test_a_type_that_is_not_read_is_named_with_its_file_and_tensor(tmp_path):
    tensors = TENSORS | {"codes": torch.zeros(4, dtype=torch.float8_e4m3fn)}
    save_file(tensors, tmp_path / "model.safetensors")
    message = r"model\.safetensors holds 'codes' in the type F8_E4M3, which is none of"
    with pytest.raises(ValueError, match=message):
        Checkpoint(tmp_path)


def test_files_without_floating_point_tensors_have_no_type(tmp_path):
    save_file({"b": TENSORS["b"]}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="holds no floating point tensor; load the"):
        Checkpoint(tmp_path).dtype()


def test_the_files_of_the_index_count_and_no_other(tmp_path):
    one, two = (f"model-{n:05d}-of-00002.safetensors" for n in (1, 2))
    save_file({"a": TENSORS["a"]}, tmp_path / one)
    save_file({"a": TENSORS["a"] + 1}, tmp_path / two)  # left over from another model
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": one}}))
    assert torch.equal(Checkpoint(tmp_path).tensor("a"), TENSORS["a"])
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": one, "b": "gone"}}))
    with pytest.raises(
        ValueError, match="folder is .*, which holds no gone; get that file"
    ):
        Checkpoint(tmp_path)
    save_file({"a": TENSORS["a"] + 2}, tmp_path / "model.safetensors")
    assert torch.equal(Checkpoint(tmp_path).tensor("a"), TENSORS["a"] + 2)


def test_a_file_that_is_lost_or_cut_later_is_named(file):
    found, whole = Checkpoint(file.parent), file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"model\.safetensors could not be read"):
        [found.tensor(name) for name in TENSORS]
    os.remove(file)
    with pytest.raises(ValueError, match=r"model\.safetensors could not be read .*No"):
        found.tensor("a")


def test_tensors_are_the_same_if_type_shape_and_every_piece_are(tmp_path, monkeypatch):
    base, sizes = torch.arange(10, dtype=torch.int16), []
    other = base.clone()
    other[-1] = 0
    state = {
        "base": base,
        "copy": base.clone(),
        "other": other,
        "flat": base.view(2, 5),
    }
    state |= {"bits": base.view(torch.float16), "none": base[:0], "empty": base[:0]}
    state = {name: tensor.clone() for name, tensor in state.items()}
    save_file(state, tmp_path / "model.safetensors")
    read = Checkpoint._read

    def recorded(self, name, first, last):
        sizes.append(last - first)
        return read(self, name, first, last)

    monkeypatch.setattr(checkpoint, "_PIECE_BYTES", 8)
    monkeypatch.setattr(Checkpoint, "_read", recorded)
    found = Checkpoint(tmp_path)
    assert found.same("base", "copy") and found.same("none", "empty")
    assert sizes == [8, 8, 8, 8, 4, 4]
    for name in ("other", "flat", "bits", "empty"):
        assert not found.same("base", name)


def test_a_slice_of_a_sequence_of_tensors_reads_nothing_until_asked():
    read = []
    tensors = TensorSequence(
        lambda name: read.append(name) or name.upper(), list("abc")
    )
    part = tensors[1:]
    assert read == [] and len(part) == 2
    assert list(part) == ["B", "C"] and read == ["b", "c"] and tensors[-1] == "C"


def test_what_the_format_or_the_spec_does_not_hold_is_not_written(tmp_path):
    def attempt(spec, tensor, message):
        with pytest.raises(ValueError, match=message):
            write_weights(
                tmp_path, {"a": spec}, {"a": tensor}.get, max_bytes=99, parameters=6
            )

    wanted = "but the model needs torch.float32 of shape"
    attempt(TENSORS["a"], TENSORS["a"].double(), f"a is torch.float64 .*{wanted}")
    attempt(TENSORS["a"], TENSORS["a"].T, f"a is .* of shape .3, 2., {wanted}")
    complex_ = TENSORS["a"].to(torch.complex64)
    attempt(complex_, complex_, "a is torch.complex64, which is none of float64, int64")
