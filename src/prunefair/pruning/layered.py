"""Models whose layers take turns on the device, and what is put aside meanwhile.

Any supported family runs a layer at a time without being known: the model's own forward
pass runs once with layers that do nothing but remember what they were told, such as
masks and positions; from then on each layer runs alone.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils._pytree import tree_map
from tqdm import tqdm

from prunefair.checkpoint import read_json, write_shard
from prunefair.messages import Given, shown
from prunefair.models import empty_model
from prunefair.outputs import check_new_folder, remove_dead_scratch, whole_file
from prunefair.pruning.surgery import adapter_for

FORMAT = 2  # of what a folder holds


class LayeredModel:
    """A causal language model of which one decoder layer has values at a time.

    What is outside the layers, such as embeddings and head, stays on the device.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of a supported family, on the meta device; unchanged.
    read : callable
        Gives the tensor of a name in the model.
    device : str or torch.device
        Where to compute.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        A copy with values outside the layers only, in evaluation mode.
    layers : list of torch.nn.Module
        Its decoder layers.

    Raises
    ------
    ValueError
        If the family is not supported.
    """

    def __init__(self, model, read: Callable, *, device="cpu"):
        self.adapter, self.read = adapter_for(model), read
        self.model, self.device = copy.deepcopy(model).eval(), torch.device(device)
        self._names = {id(part): name for name, part in self.model.named_modules()}
        self._calls, self._tuples = {}, None
        self._reader, self._ahead = ThreadPoolExecutor(max_workers=1), {}
        _take_buffers_(self.model, self.device)
        path = self.adapter.layers
        self.layers = list(self.model.base_model.get_submodule(path))
        inside = {id(part) for layer in self.layers for part in layer.modules()}
        self._fill(part for part in self.model.modules() if id(part) not in inside)

    def __len__(self) -> int:
        return len(self.layers)

    def block(self, layer: int) -> torch.nn.Module:
        """What the adapter calls the feed-forward block of a layer."""
        return self.layers[layer].get_submodule(self.adapter.block)

    def linears(self, layer: int) -> list[torch.nn.Linear]:
        """Linear maps of that block, the one that takes the hidden vectors last."""
        return self.adapter.linears(self.block(layer))

    def down_projection(self, layer: int) -> torch.nn.Linear:
        """Linear map of a layer that takes the hidden vectors."""
        return self.linears(layer)[-1]

    def map_names(self, layer: int) -> list[tuple[str, str | None]]:
        """Names of weight and bias, None where there is none, of each of `linears`."""
        names = [(self._names[id(x)], x.bias is not None) for x in self.linears(layer)]
        return [(f"{n}.weight", f"{n}.bias" if biased else None) for n, biased in names]

    def down_weight(self, layer: int) -> torch.Tensor:
        """D of a layer, (d, m), on the device, in its own type."""
        name = self._names[id(self.down_projection(layer))]
        return self.read(f"{name}.weight").to(self.device)

    def _fill(self, parts, known=None) -> list[tuple]:
        """Give modules the values of their parameters; return what was in place."""
        before, filled, known = [], {}, known or {}
        for part in parts:
            for attribute, empty in part._parameters.items():
                if empty is None:
                    continue
                before.append((part, attribute, empty))
                if id(empty) not in filled:  # of tied weights one
                    name = f"{self._names[id(part)]}.{attribute}"
                    value = known.pop(name) if name in known else self.read(name)
                    value = torch.nn.Parameter(value.to(self.device), False)
                    filled[id(empty)] = value
                part._parameters[attribute] = filled[id(empty)]
        return before

    @contextlib.contextmanager
    def present(self, layer: int, *, then: int | None = None):
        """A layer with its values, for the time of the block.

        Parameters
        ----------
        layer : int
            Counted from 0.
        then : int, optional
            Layer to read from the disk meanwhile, if there is one.
        """
        known = self._ahead.pop(layer).result() if layer in self._ahead else {}
        self._ahead.clear()
        before = self._fill(self.layers[layer].modules(), known)
        if then is not None and 0 <= then < len(self):
            self._ahead[then] = self._reader.submit(self._tensors, then)
        try:
            yield self.layers[layer]
        finally:
            for part, attribute, empty in before:
                part._parameters[attribute] = empty

    def _tensors(self, layer: int) -> dict[str, torch.Tensor]:
        """All parameters of a layer, as they are read."""
        path = self._names[id(self.layers[layer])]
        names = [name for name, _ in self.layers[layer].named_parameters()]
        return {f"{path}.{name}": self.read(f"{path}.{name}") for name in names}

    @contextlib.contextmanager
    def whole(self, resident: int):
        """The model for the time of the block, ready to run.

        Parameters
        ----------
        resident : int
            Layers that stay on the device; the others come when they are called.
        """
        with contextlib.ExitStack() as stack:
            for layer, module in enumerate(self.layers):
                if layer < resident:
                    stack.enter_context(self.present(layer))
                    continue
                turn = stack.enter_context(contextlib.ExitStack())
                come = self._coming(turn, layer)
                for hook in (
                    module.register_forward_pre_hook(come),
                    module.register_forward_hook(lambda *_, turn=turn: turn.close()),
                ):
                    stack.callback(hook.remove)
            yield self.model

    def _coming(self, turn: contextlib.ExitStack, layer: int) -> Callable:
        def come(*_):
            turn.enter_context(self.present(layer))

        return come

    @contextlib.contextmanager
    def _instead(self, forward: Callable):
        """All layers do what `forward` does."""
        for layer in self.layers:
            layer.forward = forward
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.forward

    def _as_output(self, hidden):
        return (hidden,) if self._tuples else hidden

    @torch.no_grad()
    def begin(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the first layer is given.

        Parameters
        ----------
        tokens : Tensor, shape (B, N), int64
            Texts.

        Returns
        -------
        hidden : Tensor, shape (B, N, d)
            On the device.
        """
        calls = []

        def remember(hidden, *args, **kwargs):
            calls.append((hidden, args, kwargs))
            if self._tuples is None:
                self._tuples = self._gives_tuples(*calls[0])
            return self._as_output(hidden)

        with self._instead(remember):
            self.model(tokens.to(self.device), use_cache=False, logits_to_keep=1)
        self._calls[tuple(tokens.shape)] = [call[1:] for call in calls]
        return calls[0][0]

    def _gives_tuples(self, *given) -> bool:
        """Whether a layer gives a tuple; found without values."""
        empty = copy.deepcopy(self.layers[0]).to("meta")
        del empty.forward
        for part in empty.modules():  # whoever watches is not meant
            part._forward_hooks.clear()
            part._forward_pre_hooks.clear()
        hidden, args, kwargs = tree_map(
            lambda x: x.to("meta") if isinstance(x, torch.Tensor) else x, given
        )
        return isinstance(empty(hidden, *args, **kwargs), tuple)

    def run(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """What a layer that is present makes of its input.

        Parameters
        ----------
        layer : int
            Counted from 0.
        hidden : Tensor, shape (B, N, d)
            Of any B texts of N tokens: what else the layer is told depends on the
            shape alone.

        Returns
        -------
        hidden : Tensor, shape (B, N, d)
        """
        shape = tuple(hidden.shape[:2])
        if shape not in self._calls:
            self.begin(torch.zeros(shape, dtype=torch.int64))
        args, kwargs = self._calls[shape][layer]
        found = self.layers[layer](hidden, *args, **kwargs)
        return found[0] if isinstance(found, tuple) else found

    def end(self, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of texts for what their last layer puts out.

        Parameters
        ----------
        tokens : Tensor, shape (B, N), int64
            Texts.
        hidden : Tensor, shape (B, N, d)
            Output of the last layer.

        Returns
        -------
        logits : Tensor, shape (B, N, V)
        """
        with self._instead(lambda *_, **__: self._as_output(hidden)):
            return self.model(tokens.to(self.device), use_cache=False).logits


def layered_copy(model) -> LayeredModel:
    """A model in memory as one whose layers take turns; it shares all weights.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of a supported family, with values.

    Returns
    -------
    layered : LayeredModel
        On the same device.
    """
    config, given = copy.deepcopy(model.config), Given("model", type(model).__name__)
    empty = empty_model(config, given, dtype=model.dtype)
    return LayeredModel(empty, model.state_dict().__getitem__, device=model.device)


@contextlib.contextmanager
def _without_values():
    """Parameters of modules that are built in the block have no values; buffers have."""
    register = torch.nn.Module.register_parameter

    def on_meta(module, name, parameter):
        if parameter is not None and not parameter.is_meta:
            parameter = torch.nn.Parameter(parameter.to("meta"), False)
        register(module, name, parameter)

    torch.nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register


def _take_buffers_(model, device) -> None:
    """Give a model on the meta device its buffers, such as the angles of positions."""
    with _without_values():
        config = copy.deepcopy(model.config)
        twin = type(model)._from_config(config, dtype=model.dtype)
    for name, buffer in twin.named_buffers():
        owner, _, attribute = name.rpartition(".")
        model.get_submodule(owner)._buffers[attribute] = buffer.to(device)


class MemoryStore:
    """Tensors put aside under names, in the memory of the host."""

    def __init__(self):
        self._held = {}

    def has(self, name: str) -> bool:
        """Whether something is there."""
        return name in self._held

    def get(self, name: str) -> dict[str, torch.Tensor]:
        """What is there."""
        return self._held[name]

    def put(self, name: str, **tensors: torch.Tensor) -> None:
        """Put tensors there."""
        self._held[name] = tensors

    def drop(self, name: str) -> None:
        """Forget what is there."""
        self._held.pop(name, None)


class FolderStore:
    """Tensors put aside under names, in files that appear only whole.

    Parameters
    ----------
    folder : str or path
        Made if it is not there.
    identity : dict
        What they are of, in values that JSON knows.
    argument : str
        What errors call `folder`.
    holds : str
        What the tensors are; `HOLDS.json` in the folder says of what.

    Raises
    ------
    ValueError
        If `folder` holds something else, or tensors of something else.
    OSError
        If it cannot be written.
    """

    def __init__(
        self,
        folder,
        identity: dict,
        *,
        argument: str = "offload",
        holds: str = "statistics",
    ):
        self.folder, self.argument, self._sound = Path(folder), argument, set()
        wanted = {"format": f"prunefair {holds} {FORMAT}"} | identity
        given = Given(argument, folder)
        manifest = self.folder / f"{holds}.json"
        if not manifest.is_file():
            if self.folder.is_dir():
                remove_dead_scratch(self.folder)
                if any(self.folder.iterdir()):
                    problem = (
                        f"which holds other files and no {manifest.name} of prunefair"
                    )
                    raise given.error(problem, "name another folder")
            check_new_folder(folder, argument=argument)
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(manifest, argument=argument) as partial:
                partial.write_text(json.dumps(wanted, indent=1) + "\n")
        found = read_json(manifest, given)
        for key in wanted:
            if (there := found.get(key)) != wanted[key]:
                was = f"no {key}" if there is None else f"the {key} {shown(there, 40)}"
                now = "none" if wanted[key] is None else shown(wanted[key], 40)
                problem = f"which holds {holds} of {was}, not {now}"
                raise given.error(problem, "name another folder")

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def has(self, name: str) -> bool:
        """Whether something is there."""
        return self._file(name).is_file()

    def get(self, name: str) -> dict[str, torch.Tensor]:
        """What is there, mapped into memory; checked when it is first asked for."""
        path = self._file(name)
        given = Given(self.argument, self.folder)
        problem = f"whose {path.name} is damaged"
        with given.using(problem, "remove that file and run again"):
            tensors = load_file(path)
            if name not in self._sound:
                with safe_open(path, "pt") as file:
                    known = (file.metadata() or {}).get("sha256")
                if digest(tensors) != known:
                    raise ValueError("its bytes are not those that were written")
                self._sound.add(name)
        return tensors

    def put(self, name: str, **tensors: torch.Tensor) -> None:
        """Put tensors there."""
        note = {"sha256": digest(tensors)}
        with whole_file(self._file(name), argument=self.argument) as partial:
            write_shard(partial, tensors, tensors.__getitem__, note=note)

    def drop(self, name: str) -> None:
        """Forget what is there."""
        with contextlib.suppress(PermissionError):  # Windows, while it is mapped
            self._file(name).unlink(missing_ok=True)


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of tensors with their names, types and shapes.

    Parameters
    ----------
    tensors : dict of str to Tensor
        Of any type, on any device.

    Returns
    -------
    digest : str
        64 hexadecimal digits.
    """
    found = hashlib.sha256()
    for name in sorted(tensors):
        _add(found, name, tensors[name])
    return found.hexdigest()


def _add(found, name: str, tensor: torch.Tensor) -> None:
    tensor = tensor.detach().cpu().contiguous()
    found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    found.update(tensor.reshape(-1).view(torch.uint8).numpy())


def fingerprint(model, read: Callable) -> str:
    """What tells a model from others: its configuration and all of its weights.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        On the meta device.
    read : callable
        Gives the tensor of a name in the model.

    Returns
    -------
    fingerprint : str
        32 hexadecimal digits.
    """
    config = model.config.to_dict()
    for key in ("_name_or_path", "transformers_version", "architectures"):
        config.pop(key, None)  # say where it comes from, not what it is
    found = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, _ in tqdm([*model.named_parameters()], "fingerprint"):
        _add(found, name, read(name))
    return found.hexdigest()[:32]
