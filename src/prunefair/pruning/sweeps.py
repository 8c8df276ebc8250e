# %%
from __future__ import annotations

import contextlib
import copy
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch.utils._pytree import tree_map
from tqdm import tqdm

from prunefair.checkpoint import TensorSequence, read_json
from prunefair.messages import Given, shown
from prunefair.models import measuring, within_context
from prunefair.outputs import check_new_folder, whole_file
from prunefair.pruning.folders import write_sliced
from prunefair.pruning.functional_policy import (
    FisherSum,
    FunctionalLayer,
    FunctionalSlices,
    functional_distances,
    log_likelihood,
)
from prunefair.pruning.functional_pruning import choose_neurons
from prunefair.pruning.perplexity import self_sample
from prunefair.pruning.refit import (
    find_ridge,
    mean_moments,
    refit_down,
    ridge_layers,
)
from prunefair.pruning.self_moments import HiddenSum, Moments, hidden_vectors
from prunefair.pruning.surgery import adapter_for, ffn_slices

STATISTICS_FORMAT = "prunefair statistics 1"
MANIFEST = "statistics.json"
BATCH = 8  # texts in one pass, as in memory


# %%
@contextlib.contextmanager
def _parameters_on_meta():
    """Parameters of modules that are built inside have no values; buffers have."""
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


# %%
def _take_buffers_(model, device) -> None:
    """Give a model without values its buffers, such as the angles of positions."""
    with _parameters_on_meta():
        config = copy.deepcopy(model.config)
        twin = type(model)._from_config(config, dtype=model.dtype)
    for name, buffer in twin.named_buffers():
        owner, _, attribute = name.rpartition(".")
        model.get_submodule(owner)._buffers[attribute] = buffer.to(device)


# %%
class LayeredModel:
    def __init__(self, model, read, *, device="cpu"):
        self.adapter = adapter_for(model)
        self.model, self.read = copy.deepcopy(model).eval(), read
        self.device, self._calls, self._tuples = torch.device(device), {}, None
        _take_buffers_(self.model, device)
        layers = self.model.base_model.get_submodule(self.adapter.layers)
        self.layers = list(layers)
        inside = {id(part) for layer in layers for part in layer.modules()}
        outside = [m for m in self.model.modules() if id(m) not in inside]
        self._fill(outside)

    def __len__(self):
        return len(self.layers)

    def down_projection(self, layer: int):
        """Linear map of a layer that takes the hidden vectors."""
        block = self.layers[layer].get_submodule(self.adapter.block)
        return self.adapter.linears(block)[-1]

    def room(self, n_texts: int, length: int, free: float) -> tuple[int, int]:
        return len(self), n_texts

    def _fill(self, modules) -> list:
        """Give parameters their values; returns what was in their places."""
        names = {id(part): name for name, part in self.model.named_modules()}
        before, new = [], {}
        for part in modules:
            for attribute, empty in part._parameters.items():
                if empty is None:
                    continue
                if id(empty) not in new:  # tied weights are one
                    value = self.read(f"{names[id(part)]}.{attribute}").to(self.device)
                    new[id(empty)] = torch.nn.Parameter(value, False)
                before.append((part, attribute, empty))
                part._parameters[attribute] = new[id(empty)]
        return before

    @contextlib.contextmanager
    def present(self, layer: int):
        before = self._fill(self.layers[layer].modules())
        try:
            yield self.layers[layer]
        finally:
            for part, attribute, empty in before:
                part._parameters[attribute] = empty

    @contextlib.contextmanager
    def whole(self, resident: int):
        """The model; its first layers stay, the others come when they are called."""
        with contextlib.ExitStack() as stack:
            for layer in range(resident):
                stack.enter_context(self.present(layer))
            for layer in range(resident, len(self)):
                turn, module = contextlib.ExitStack(), self.layers[layer]
                enter = lambda *_, turn=turn, at=layer: (  # noqa: E731
                    turn.enter_context(self.present(at)) and None
                )
                leave = lambda *_, turn=turn: turn.close()  # noqa: E731
                for hook in (
                    module.register_forward_pre_hook(enter),
                    module.register_forward_hook(leave),
                ):
                    stack.callback(hook.remove)
                stack.callback(turn.close)
            yield self.model

    @contextlib.contextmanager
    def _passing(self, forward: Callable):
        """Layers do what `forward` does in the place of their own work."""
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
    def begin(self, tokens):
        calls = []

        def remember(hidden, *args, **kwargs):
            calls.append((hidden, args, kwargs))
            if self._tuples is None:
                self._tuples = self._gives_tuples(*calls[0])
            return self._as_output(hidden)

        with self._passing(remember):
            self.model(tokens.to(self.device), use_cache=False, logits_to_keep=1)
        self._calls[tuple(tokens.shape)] = [call[1:] for call in calls]
        return calls[0][0]

    def _gives_tuples(self, hidden, args, kwargs) -> bool:
        """Whether a layer gives a tuple; found without values."""
        empty = copy.deepcopy(self.layers[0]).to("meta")
        del empty.forward
        given = tree_map(
            lambda x: x.to("meta") if isinstance(x, torch.Tensor) else x,
            (hidden, args, kwargs),
        )
        return isinstance(empty(given[0], *given[1], **given[2]), tuple)

    def run(self, layer: int, hidden):
        shape = tuple(hidden.shape[:2])
        if shape not in self._calls:
            self.begin(torch.zeros(shape, dtype=torch.int64))
        args, kwargs = self._calls[shape][layer]
        out = self.layers[layer](hidden, *args, **kwargs)
        return out[0] if isinstance(out, tuple) else out

    def end(self, tokens, hidden):
        with self._passing(lambda *_, **__: self._as_output(hidden)):
            return self.model(tokens.to(self.device), use_cache=False).logits


# %%
class MemoryStore:
    """What the sweeps leave behind, in the memory of the host."""

    def __init__(self):
        self.held = {}

    def has(self, name: str) -> bool:
        """Whether something is there under this name."""
        return name in self.held

    def get(self, name: str) -> dict[str, torch.Tensor]:
        """What is there under a name."""
        return self.held[name]

    def put(self, name: str, **tensors) -> None:
        """Put tensors there under a name."""
        self.held[name] = tensors

    def drop(self, name: str) -> None:
        """Forget what is there."""
        self.held.pop(name, None)


# %%
class FolderStore:
    """What the sweeps leave behind, in files that appear only whole.

    Parameters
    ----------
    folder : str or path
        Created if need be.
    identity : dict
        What the statistics are of, in values that JSON knows.

    Raises
    ------
    ValueError
        If `folder` holds something else, or statistics of something else.
    OSError
        If it cannot be written.
    """

    def __init__(self, folder, identity: dict, *, argument: str = "offload"):
        self.folder, given = Path(folder), Given(argument, folder)
        wanted = {"format": STATISTICS_FORMAT} | identity
        file = self.folder / MANIFEST
        if not file.is_file():
            check_new_folder(folder, argument=argument)
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(file, argument=argument) as partial:
                partial.write_text(json.dumps(wanted, indent=1) + "\n")
        found = read_json(file, given)
        for key, value in wanted.items():
            if found.get(key) != value:
                raise given.error(
                    f"which holds statistics with the {key} {shown(found.get(key), 40)}"
                    f", not {shown(value, 40)}",
                    "name another folder, or remove it",
                )

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def has(self, name: str) -> bool:
        """Whether something is there under this name."""
        return self._file(name).is_file()

    def get(self, name: str) -> dict[str, torch.Tensor]:
        """What is there under a name."""
        return load_file(self._file(name))

    def put(self, name: str, **tensors) -> None:
        """Put tensors there under a name."""
        with whole_file(self._file(name), argument="offload") as partial:
            save_file({k: x.contiguous() for k, x in tensors.items()}, partial)

    def drop(self, name: str) -> None:
        """Forget what is there."""
        with contextlib.suppress(PermissionError):  # Windows, while it is mapped
            self._file(name).unlink(missing_ok=True)


# %%
def _name(kind: str, layer: int) -> str:
    return f"{kind}-{layer:04d}"


# %%
class SweptStatistics(NamedTuple):
    """What the functional objective needs to know of a model, read layer by layer."""

    halves: tuple[Moments, Moments]  # of `ridge_layers` only
    moments: Moments
    fisher: list[torch.Tensor] | None  # each (m,); None if they were not asked for
    texts: torch.Tensor  # (n, N)


# %%
def _halves(texts) -> list:
    """Places of the texts of every batch of both halves, as in memory."""
    halves = torch.arange(len(texts)).tensor_split(2)
    return [half.split(BATCH) for half in halves]


# %%
@torch.no_grad()
def sweep_forward(
    layered: LayeredModel, store, *, keep: bool = True
) -> None:
    """Moments of the hidden vectors of every block, one layer on the device.

    Parameters
    ----------
    layered : LayeredModel
    store : MemoryStore or FolderStore
        Holds `texts`; gets `moments` of every layer, and `inputs` if they are kept.
    keep : bool
        Keep the inputs of the layers for the backward sweep.
    """
    texts, last = store.get("texts")["tokens"], len(layered)
    todo = _missing(store, last, keep)
    start = todo[0] if todo else last
    while start and not store.has(_name("inputs", start)):
        start -= 1
    if todo and not start:
        rows = [rows for half in _halves(texts) for rows in half]
        hidden = torch.cat([layered.begin(texts[r]).cpu() for r in rows])
        store.put(_name("inputs", 0), hidden=hidden)
    for layer in tqdm(range(start, max(todo, default=-1) + 1), "forward sweep"):
        outputs, halves = _through(layered, store, layer)
        store.put(_name("inputs", layer + 1), hidden=outputs)
        if not store.has(_name("moments", layer)):
            store.put(_name("moments", layer), **halves)
        if not keep:
            store.drop(_name("inputs", layer))


# %%
def _missing(store, last: int, keep: bool) -> list[int]:
    """Layers whose moments, or whose outputs for the backward sweep, are not there."""
    costs = [layer for layer in range(last) if not store.has(_name("fisher", layer))]
    top = max(costs, default=-1) + 1 if keep else 0  # inputs up to here are wanted
    if top == last and store.has(_name("gradient", last)):
        top -= 1
    return [
        layer
        for layer in range(last)
        if not store.has(_name("moments", layer))
        or (layer < top and not store.has(_name("inputs", layer + 1)))
    ]


# %%
def _through(layered: LayeredModel, store, layer: int):
    """What a layer puts out for all texts, and what is kept of its hidden vectors."""
    texts, inputs = (store.get(n) for n in ("texts", _name("inputs", layer)))
    texts, inputs = texts["tokens"], inputs["hidden"]
    outputs, found = torch.empty_like(inputs), []
    with layered.present(layer):
        linear = layered.down_projection(layer)
        m, whole = linear.in_features, _kept_whole(texts, linear)
        for half in _halves(texts):
            seen = [] if whole else HiddenSum(m, device=layered.device)
            add = (lambda h: seen.append(h.cpu())) if whole else seen.add
            with hidden_vectors(linear, add):
                for rows in half:
                    hidden = inputs[rows].to(layered.device)
                    outputs[rows] = layered.run(layer, hidden).cpu()
            found.append(seen)
    if whole:
        return outputs, {"hidden": torch.cat(sum(found, []))}
    halves = _as_moments(found, texts)
    return outputs, _parts(halves if layer in ridge_layers(len(layered)) else halves[2:])


# %%
def _as_moments(sums, texts) -> list[Moments]:
    """Moments of one layer: of both halves, and of all."""
    counts = [texts[torch.cat(h)].numel() for h in _halves(texts)]
    means = [(*each.means(count), count) for each, count in zip(sums, counts)]
    halves = [Moments([second], [mean], count) for second, mean, count in means]
    return [*halves, mean_moments(halves)]


# %%
def _parts(found: list[Moments]) -> dict[str, torch.Tensor]:
    """What a file holds of one layer: both halves, or all."""
    found = found[:2]
    second, mean = ([part[0] for part in column] for column in list(zip(*found))[:2])
    return {"second": torch.stack(second), "mean": torch.stack(mean)}


# %%
def _kept_whole(texts, linear) -> bool:
    """Whether the hidden vectors of all texts take less room than their moment."""
    itemsize = linear.weight.dtype.itemsize
    return texts.numel() * itemsize < 4 * linear.in_features


# %%
def sweep_backward(layered: LayeredModel, store) -> None:
    """Fisher costs of every neuron, from the last layer to the first.

    Parameters
    ----------
    layered : LayeredModel
    store : MemoryStore or FolderStore
        Holds `texts` and `inputs`, which are dropped one after another; gets `fisher`.
    """
    texts, last = store.get("texts")["tokens"], len(layered)
    batches = torch.arange(len(texts)).split(BATCH)
    todo = [n for n in range(last) if not store.has(_name("fisher", n))][::-1]
    if todo[:1] == [last - 1] and not store.has(_name("gradient", last)):
        hidden = store.get(_name("inputs", last))["hidden"]
        pieces = [_last_gradient(layered, texts[r], hidden[r]) for r in batches]
        store.put(_name("gradient", last), hidden=torch.cat(pieces))
    for layer in tqdm(todo, "backward sweep"):
        inputs = store.get(_name("inputs", layer))["hidden"]
        above = store.get(_name("gradient", layer + 1))["hidden"]
        below, on = torch.empty_like(inputs), layered.device
        with layered.present(layer), torch.enable_grad():
            with FisherSum(layered.down_projection(layer)) as costs:
                for rows in batches:
                    hidden = inputs[rows].to(on).requires_grad_(layer > 0)
                    layered.run(layer, hidden).backward(above[rows].to(on))
                    if layer:
                        below[rows] = hidden.grad.cpu()
        if layer:
            store.put(_name("gradient", layer), hidden=below)
        store.put(_name("fisher", layer), fisher=costs.mean(texts.numel()))
        for kind in ("gradient", "inputs"):
            store.drop(_name(kind, layer + 1))


# %%
def _last_gradient(layered: LayeredModel, tokens, hidden) -> torch.Tensor:
    """Gradient of the log-likelihood of texts at the output of the last layer."""
    tokens = tokens.to(layered.device)
    with torch.enable_grad():
        hidden = hidden.to(layered.device).requires_grad_(True)
        log_likelihood(layered.end(tokens, hidden), tokens).backward()
    return hidden.grad.cpu()


# %%
def swept_statistics(
    layered: LayeredModel,
    store,
    *,
    generator: torch.Generator,
    n_texts: int = 256,
    length: int = 128,
    costs: bool = True,
    free: float = float("inf"),
) -> SweptStatistics:
    """Moments and Fisher costs of a model on its own texts, a layer at a time.

    Parameters
    ----------
    layered : LayeredModel
    store : MemoryStore or FolderStore
        What it holds already is not done again.
    generator : torch.Generator
        Source of the texts.
    n_texts, length : int
        Number of texts, at least two, and tokens in each; the model's context where
        that is shorter.
    costs : bool
        Measure the Fisher costs, too.
    free : float
        Bytes on the device that the sampling may take beyond the weights outside the
        layers.

    Returns
    -------
    statistics : SweptStatistics

    Raises
    ------
    ValueError
        If there are fewer than two texts or two tokens, or nothing fits into `free`.
    """
    if n_texts < 2 or length < 2:
        raise ValueError(
            f"n_texts, length are {n_texts!r}, {length!r}; both must be at least 2"
        )
    length = within_context(layered.model, length)
    if not store.has("texts"):
        options = {"generator": generator, "free": free}
        store.put("texts", tokens=sample_texts(layered, n_texts, length, **options))
    with measuring(layered.model, length=length):
        sweep_forward(layered, store, keep=costs)
        if costs:
            sweep_backward(layered, store)
    for kind in ("inputs", "gradient"):
        for layer in range(len(layered) + 1):
            store.drop(_name(kind, layer))
    return stored_statistics(layered, store, costs=costs)


# %%
def stored_statistics(layered: LayeredModel, store, *, costs: bool) -> SweptStatistics:
    """What the sweeps have left behind, to be read a layer at a time.

    Parameters
    ----------
    layered : LayeredModel
    store : MemoryStore or FolderStore
        After both sweeps, or only the first.
    costs : bool
        There are Fisher costs.

    Returns
    -------
    statistics : SweptStatistics
    """
    texts, layers = store.get("texts")["tokens"], range(len(layered))

    @functools.lru_cache(maxsize=1)
    def read(layer):
        """Moments of one layer: of both halves where they are there, and of all."""
        found = store.get(_name("moments", layer))
        if "hidden" in found:
            return _as_moments(_summed(found["hidden"], texts, layered.device), texts)
        pairs = zip(found["second"], found["mean"])
        parts = [Moments([H], [h], n) for (H, h), n in zip(pairs, counts)]
        return [*parts, mean_moments(parts)] if len(parts) > 1 else [None, None, *parts]

    def part(place):
        """Moments of all layers, each read when it is asked for."""
        columns = (
            TensorSequence(lambda layer, c=c: read(layer)[place][c][0], layers)
            for c in range(2)
        )
        return Moments(*columns, counts[place])

    counts = [texts[torch.cat(half)].numel() for half in _halves(texts)]
    counts.append(sum(counts))
    fisher = [store.get(_name("fisher", n))["fisher"] for n in layers] if costs else None
    return SweptStatistics((part(0), part(1)), part(2), fisher, texts)


# %%
def _summed(hidden: torch.Tensor, texts, device) -> list[HiddenSum]:
    """Sums over both halves of kept hidden vectors, in the order of the sweep."""
    sums, length, place = [], texts.shape[1], 0
    for half in _halves(texts):
        one = HiddenSum(hidden.shape[1], device=device)
        for rows in half:
            one.add(hidden[place : place + len(rows) * length].to(device))
            place += len(rows) * length
        sums.append(one)
    return sums


# %%
def sample_texts(
    layered: LayeredModel,
    n_texts: int,
    length: int,
    *,
    generator: torch.Generator,
    free: float = float("inf"),
) -> torch.Tensor:
    """Texts that a model samples itself, with as many layers on the device as fit.

    Parameters
    ----------
    layered : LayeredModel
    n_texts, length : int
        Number of texts, and tokens in each.
    generator : torch.Generator
        Source of the draws.
    free : float
        Bytes on the device for layers, keys and values.

    Returns
    -------
    tokens : Tensor, shape (n_texts, length), int64
        On the CPU.

    Raises
    ------
    ValueError
        If not even one layer and one text fit.
    """
    resident, group = layered.room(n_texts, length, free)
    sizes = [len(part) for part in torch.arange(n_texts).split(group)]
    with layered.whole(resident) as model:
        pieces = [self_sample(model, n, length, generator=generator) for n in sizes]
    return torch.cat(pieces)


# %%
class StoredLayer(FunctionalLayer):
    """A block whose matrices are read when they are needed.

    Parameters
    ----------
    read : callable
        Gives D and H on the device.
    fisher : Tensor, shape (m,), or None
        Fisher costs; nats squared.
    m : int
        Number of neurons.
    """

    def __init__(self, read: Callable, fisher, m: int):
        self._read, self.fisher, self._m = read, fisher, m

    def __len__(self) -> int:
        return self._m

    D = property(lambda self: self._read()[0])
    H = property(lambda self: self._read()[1])


# %%
def stored_layers(layered: LayeredModel, statistics: SweptStatistics) -> list:
    """Every feed-forward block, of which one at a time is on the device.

    Parameters
    ----------
    layered : LayeredModel
    statistics : SweptStatistics

    Returns
    -------
    layers : list of L StoredLayer
    """
    names, device = [_column(s) for s in ffn_slices(layered.model)], layered.device

    @functools.lru_cache(maxsize=1)
    def read(layer):
        H = statistics.moments.second[layer]
        return layered.read(names[layer]).to(device), H.to(device)

    sizes = [layered.down_projection(n).in_features for n in range(len(layered))]
    fisher = statistics.fisher or [None] * len(sizes)
    return [
        StoredLayer(functools.partial(read, layer), None if cost is None else cost.to(device), m)
        for layer, (m, cost) in enumerate(zip(sizes, fisher))
    ]


# %%
def _column(names: dict[str, int]) -> str:
    """Name of the matrix that has neurons as columns."""
    return next(name for name, dim in names.items() if dim == 1)


# %%
class Swept(NamedTuple):
    """What the sweeps and the choice give; nothing of the pruned model is in memory.

    Attributes
    ----------
    kept : list of L Tensors, each of shape (k,), int64
        Neurons kept in every layer.
    policy : FunctionalPolicy or None
        Reusable at any ratio; None if the energies chose.
    ks : list of float
        Functional distance of every layer.
    history : list of float
        Mean distance in every episode of training; empty if there was none.
    ridge : float or None
        Of the re-fit, if there is to be one.
    statistics : SweptStatistics
    seconds : dict of str to float
        By stage.
    """

    kept: list
    policy: object
    ks: list
    history: list
    ridge: float | None
    statistics: SweptStatistics
    seconds: dict


# %%
def prune_swept(
    layered: LayeredModel,
    ratio: float,
    *,
    generator: torch.Generator,
    statistics: SweptStatistics,
    refit: bool = True,
    ridge: float | None = None,
    exact: bool | None = None,
    **options,
):
    layers = stored_layers(layered, statistics)
    chosen = choose_neurons(layers, ratio, generator=generator, **options)
    ks = functional_distances(layers, chosen.kept).tolist()
    if refit and ridge is None:
        names = [_column(s) for s in ffn_slices(layered.model)]
        weights = TensorSequence(lambda n: layered.read(n).to(layered.device), names)
        biased = layered.down_projection(0).bias is not None
        halves, kept = statistics.halves, chosen.kept
        ridge, _ = find_ridge(weights, halves, kept, biased=biased)
    return Swept(*chosen[:2], ks, chosen.history, ridge if refit else None, statistics, {"policy": chosen.seconds})


# %%
def write_swept(model, read, out, run: Swept, *, device="cpu", tokenizer=None, record=None):
    names = [_column(s) for s in ffn_slices(model)]
    moments, changed = run.statistics.moments, {}

    @functools.lru_cache(maxsize=1)
    def fitted(layer, bias):
        D, H = read(names[layer]).to(device), moments.second[layer]
        mean = moments.mean[layer] if bias else None
        return refit_down(D, H, run.kept[layer], ridge=run.ridge, mean=mean)

    def weight(layer, bias):
        dtype = model.get_parameter(names[layer]).dtype
        return fitted(layer, bias).weight.to(dtype)

    def shifted(layer, bias):
        value = read(bias)
        return value + fitted(layer, bias).shift.to(value)

    for layer, name in enumerate(names if run.ridge is not None else ()):
        bias = name.removesuffix("weight") + "bias"
        linear = model.get_submodule(name.removesuffix(".weight"))
        bias = None if linear.bias is None else bias
        changed[name] = functools.partial(weight, layer, bias)
        if bias:
            changed[bias] = functools.partial(shifted, layer, bias)
    options = {"changed": changed}
    return write_sliced(
        copy.deepcopy(model), read, out, run.kept, tokenizer, record, **options
    )
