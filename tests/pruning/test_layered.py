"""A layer at a time gives, bit by bit, what the model gives."""

import copy

import pytest
import torch

from prunefair.messages import Given
from prunefair.models import empty_model
from prunefair.pruning import layered
from prunefair.pruning.layered import (
    FolderStore,
    LayeredModel,
    MemoryStore,
    digest,
    fingerprint,
)
from prunefair.pruning.perplexity import self_sample
from prunefair.pruning.surgery import ADAPTERS, tiny_model

FAMILIES = sorted(ADAPTERS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def layered_copy(model):
    config, given = copy.deepcopy(model.config), Given("model", "tiny")
    skeleton = empty_model(config, given, dtype=model.dtype)
    return LayeredModel(skeleton, model.state_dict().__getitem__)


def values(module):
    return [p for p in module.parameters() if not p.is_meta]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_layer_by_layer_the_logits_are_those_of_the_model(family, dtype):
    model = tiny_model(family, generator=seeded(), dtype=dtype)
    layered, texts = layered_copy(model), torch.arange(3, 23).view(4, 5)
    hidden = layered.begin(texts)
    for layer in range(len(layered)):
        with layered.present(layer) as module:
            assert len(values(module)) == len([*module.parameters()])
            hidden = layered.run(layer, hidden)
    assert torch.equal(layered.end(texts, hidden), model(texts).logits)
    assert not [x for module in layered.layers for x in values(module)]
    few = layered.begin(texts[:1, :3])  # another shape is asked for when it comes
    with layered.present(0):
        out = LayeredModel.run(layered_copy_with(layered), 0, few)
        torch.testing.assert_close(layered.run(0, few), out)


def layered_copy_with(layered):
    """The same, which has forgotten every shape."""
    other = copy.copy(layered)
    other._calls = {}
    return other


@pytest.mark.parametrize("resident", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_the_same_however_many_layers_stay(family, resident):
    model = tiny_model(family, generator=seeded())
    layered = layered_copy(model)
    with layered.whole(resident) as whole:
        found = self_sample(whole, 3, 6, generator=seeded(1))
    assert torch.equal(found, self_sample(model, 3, 6, generator=seeded(1)))
    assert not [x for module in layered.layers for x in values(module)]
    assert not any(module._forward_hooks for module in layered.layers)


def test_a_layer_that_fails_leaves_no_values_and_no_hooks():
    model = tiny_model("llama", generator=seeded())
    layered = layered_copy(model)
    with pytest.raises(IndexError), layered.whole(1) as whole:
        whole(torch.tensor([[99]]))  # no such token
    for module in layered.layers:
        assert not values(module) and not module._forward_pre_hooks
    assert "forward" not in vars(layered.layers[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_is_all_that_a_checkpoint_holds(family):
    """No family has buffers with values of its own, which nobody would read."""
    model = tiny_model(family, generator=seeded())
    parameters = dict(model.named_parameters(remove_duplicate=False))
    assert set(model.state_dict()) == set(parameters)


@pytest.mark.parametrize("kind", [MemoryStore, FolderStore])
def test_stores_give_back_what_was_put_aside(kind, tmp_path):
    store = kind() if kind is MemoryStore else kind(tmp_path / "new", {"model": "a"})
    assert not store.has("x")
    store.put("x", a=torch.arange(6).view(2, 3).T, b=torch.zeros(0).bfloat16())
    found = store.get("x")
    assert torch.equal(found["a"], torch.arange(6).view(2, 3).T)
    assert store.has("x") and found["b"].dtype == torch.bfloat16
    store.drop("x")
    store.drop("x")
    assert not store.has("x")


def test_a_folder_of_something_else_is_refused(tmp_path):
    FolderStore(tmp_path / "a", {"model": "one", "seed": 1})
    FolderStore(tmp_path / "a", {"model": "one", "seed": 1})  # the same again
    line = "offload is .*a', which holds statistics of the seed 1, not 2; name another"
    with pytest.raises(ValueError, match=line):
        FolderStore(tmp_path / "a", {"model": "one", "seed": 2})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(ValueError, match="offload is .*full', which holds other files"):
        FolderStore(tmp_path / "full", {})
    with pytest.raises(ValueError, match="offload is .*txt', which exists and is not"):
        FolderStore(tmp_path / "full" / "notes.txt", {})
    (tmp_path / "a" / "statistics.json").write_text("[]")
    with pytest.raises(ValueError, match="offload is .* is no JSON object"):
        FolderStore(tmp_path / "a", {})


def halved(data):
    return data[: len(data) // 2]


def without_a_header(data):
    return b"{" + data[1:]


def with_other_numbers(data):
    return data[:-5] + bytes(5)


@pytest.mark.parametrize("harm", [halved, without_a_header, with_other_numbers])
def test_a_damaged_file_is_named_and_what_is_sound_is_read_once_for_that(
    harm, tmp_path, monkeypatch
):
    FolderStore(tmp_path / "a", {}).put("x", a=torch.arange(1.0, 9.0))
    store, checked = FolderStore(tmp_path / "a", {}), []
    monkeypatch.setattr(
        layered, "digest", lambda tensors: checked.append(1) or digest(tensors)
    )
    for _ in range(3):
        assert store.get("x")["a"].sum() == 36
    assert len(checked) == 1
    file = tmp_path / "a" / "x.safetensors"
    file.write_bytes(harm(file.read_bytes()))
    line = "offload is .*a', whose x.safetensors is damaged.*; remove that file and run"
    with pytest.raises(ValueError, match=line):
        FolderStore(tmp_path / "a", {}).get("x")


@pytest.mark.parametrize("family", ["llama", "opt", "gpt_neox"])
def test_a_fingerprint_knows_every_tensor_and_the_configuration(family):
    model = tiny_model(family, generator=seeded())
    state = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = {fingerprint(model, state.__getitem__)}
    assert found == {fingerprint(copy.deepcopy(model), model.get_parameter)}
    for name, value in state.items():
        changed = value.clone()
        changed.view(-1)[-1] += 1
        found.add(fingerprint(model, (state | {name: changed}).__getitem__))
    assert len(found) == 1 + len(state)
    model.config.some_epsilon = 0.5
    assert fingerprint(model, state.__getitem__) not in found


def test_the_layer_that_is_next_is_read_meanwhile_and_once():
    model = tiny_model("llama", generator=seeded())
    layered, state, read = layered_copy(model), model.state_dict(), []
    layered.read = lambda name: read.append(name) or state[name]
    with layered.present(0, then=1):
        layered._ahead[1].result()
        first = [name for name in read if ".layers.0." in name]
    assert len(read) == 2 * len(first) == len(set(read))
    with layered.present(1, then=2) as module:
        assert len(values(module)) == len(first) and not layered._ahead
    assert len(read) == 2 * len(first)  # nothing twice, and there is no third layer

    def broken(name):
        if ".layers.0." in name:
            raise OSError(name)
        return state[name]

    layered.read = broken
    with layered.present(1, then=0):
        pass  # what cannot be read is told when it is its turn
    with pytest.raises(OSError, match="layers.0"), layered.present(0):
        pass
