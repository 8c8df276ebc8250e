"""Folders of pruned models: save them, load them, prune a checkpoint into one.

A folder appears whole or not at all, and plain transformers reloads it where all layers
have one width; `export_padded` gives them one.  The chapter on surgery shows each step.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from prunefair.checkpoint import read_json, weights_size, write_weights
from prunefair.messages import Given
from prunefair.model_card import (
    model_card,
    portable_config,
    portable_tokenizer_config,
    versions,
)
from prunefair.models import (
    empty_model,
    file_name,
    load_model,
    load_tokenizer,
    stream_folder,
)
from prunefair.outputs import check_new_folder, whole_folder
from prunefair.pruning.surgery import (
    ffn_slices,
    padded_reader,
    read_row_matrices,
    row_matrices,
    select_rows,
    slice_ffn_,
    sliced_reader,
)
from prunefair.widths import CONFIG_KEY, KEPT_ROWS, set_widths_

SHARD_BYTES = 5_000_000_000


def stored_names(model) -> dict[str, str]:
    """Names in a checkpoint's files of everything the model stores, each once.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family; its weights may be on the meta device.

    Returns
    -------
    names : dict
        Name in the files to name in the model, in the order of the model; of tied
        weights only the first.
    """
    once = dict(model.named_parameters()) | dict(model.named_buffers())
    return {file_name(model, n): n for n in model.state_dict() if n in once}


def stored_bytes(model, widths=None) -> int:
    """Bytes of the safetensors files of a model, with their headers.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family; its values are not read.
    widths : sequence of L ints, optional
        Neurons of every layer, no more than it has; by default all.

    Returns
    -------
    size : int
        What `save_pruned` writes of the model with so many neurons.
    """
    names, state = stored_names(model), model.state_dict()
    specs = {file: state[name].to("meta") for file, name in names.items()}
    if widths is not None:
        sizes, file_of = [len(W) for W in row_matrices(model)], {}
        for file, name in names.items():
            file_of[name] = file
        for axes, width, size in zip(ffn_slices(model), widths, sizes):
            for name, axis in axes.items():
                spec = specs[file_of[name]]
                specs[file_of[name]] = spec.narrow(
                    axis, 0, spec.shape[axis] // size * width
                )
    return weights_size(specs, SHARD_BYTES)


def save_pruned(model, tokenizer, out, kept, record=None):
    """Write a sliced model so that plain `from_pretrained` reloads it.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model after `slice_ffn_`.
    tokenizer : transformers.PreTrainedTokenizerBase or None
        Saved beside the model if given.
    out : str or path
        Folder to create; it appears whole or not at all.
    kept : sequence of L integer vectors, kept[l] of shape (k_l,)
        Rows that were kept, as given to `slice_ffn_`; stored in `kept_rows.json`.
    record : dict, optional
        How the model came about, in values that JSON knows: `base_model`, `objective`,
        `ratio`, `seed` and what else is known; for the model card, `kept_rows.json`
        and `config.json`.

    Returns
    -------
    out : pathlib.Path
        The folder.

    Raises
    ------
    ValueError
        If `out` exists and is not an empty folder, or `kept` does not fit the model.
    OSError
        If the folder cannot be written, as on a full disk.
    """
    widths, given = [len(m) for m in row_matrices(model)], [len(r) for r in kept]
    if given != widths:
        raise ValueError(
            f"kept names {given} rows and the model has {widths}; call slice_ffn_ first"
        )
    state = model.state_dict()
    with whole_folder(out) as partial:
        _write_model(partial, model, state.__getitem__, tokenizer, kept, record)
    return Path(out)


def _write_model(folder, model, tensor_of, tokenizer, kept, record) -> None:
    """Fill `folder` with what `from_pretrained` needs, and the rows if given."""
    names, state = stored_names(model), model.state_dict()
    write_weights(
        folder,
        {file_name: state[name] for file_name, name in names.items()},
        lambda file_name: tensor_of(names[file_name]),
        max_bytes=SHARD_BYTES,
        parameters=model.num_parameters(),
    )
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
        _rewrite(folder / "tokenizer_config.json", portable_tokenizer_config)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    record = {k: v for k, v in (record or {}).items() if v is not None}
    if "bytes_after" in record:  # of a folder that is written anew, too
        record["bytes_after"] = stored_bytes(model)
    widths = [len(matrix) for matrix in row_matrices(model)]
    record |= {"widths": widths, "versions": versions()}
    if kept is not None:
        kept = [torch.as_tensor(rows).tolist() for rows in kept]
        text = json.dumps(record | {"kept": kept}, sort_keys=True) + "\n"
        (folder / KEPT_ROWS).write_text(text, encoding="utf-8")
    _write_config(folder, model, record)


def _write_config(folder, model, record) -> None:
    """Write `config.json` as versions 4 and 5 both read it, and the model card."""
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = str(model.dtype).removeprefix("torch.")
    setattr(config, CONFIG_KEY, record)
    config.save_pretrained(folder)  # as transformers writes it, then completed
    content = _rewrite(folder / "config.json", portable_config)
    tokenizer = (folder / "tokenizer_config.json").is_file()
    card = model_card(record, content, tokenizer=tokenizer)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _rewrite(path, change) -> dict:
    """Put `change` of a JSON file in its place, in the form of transformers."""
    content = change(json.loads(path.read_text(encoding="utf-8")))
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
    return content


_RELOAD = """
import sys
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
folder, given, result = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder).eval()
logits = model(load_file(given)["tokens"]).logits.detach().clone()
assert "prunefair" not in sys.modules
save_file({"logits": logits}, result)
"""


def reloaded_logits(folder, tokens) -> torch.Tensor:
    """Logits of the model in `folder` by plain transformers in a fresh process.

    Parameters
    ----------
    folder : str or path
        Folder that `AutoModelForCausalLM.from_pretrained` reads.
    tokens : Tensor, shape (B, T), int64
        Token numbers.

    Returns
    -------
    logits : Tensor, shape (B, T, V)

    Raises
    ------
    ValueError
        If that process fails; the message ends with its last line, or with its exit
        status if it wrote none.
    """
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as exchange:
        given, result = f"{exchange}/tokens", f"{exchange}/logits"
        save_file({"tokens": tokens.contiguous()}, given)
        command = [sys.executable, "-c", _RELOAD, str(folder), given, result]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            status = f"exit status {run.returncode}"
            last = [status, *run.stderr.strip().splitlines()][-1]
            raise ValueError(f"folder {str(folder)!r} does not load: {last}")
        return load_file(result)["logits"].clone()


def load_pruned(folder, *, dtype=None, device="cpu", argument="folder"):
    """Model that `save_pruned` wrote, also if the widths of its layers differ.

    Parameters
    ----------
    folder : str or path
        Folder written by `save_pruned` or `prune_checkpoint`.
    dtype : torch.dtype, optional
        Type of the weights; the stored one by default.
    device : str or torch.device
        Where the weights go.
    argument : str
        What errors call `folder`.

    Returns
    -------
    model : transformers.PreTrainedModel
        In evaluation mode.

    Raises
    ------
    ValueError
        If `load_model` refuses the folder.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from prunefair.pruning.folders import load_pruned, save_pruned
    >>> from prunefair.pruning.surgery import slice_ffn_, tiny_model
    >>> model = tiny_model("llama", generator=torch.Generator().manual_seed(0))
    >>> kept = [torch.arange(8), torch.arange(4)]
    >>> model = slice_ffn_(model, kept)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     folder = save_pruned(model, None, f"{place}/pruned", kept)
    ...     load_pruned(folder).num_parameters() == model.num_parameters()
    True
    """
    return load_model(folder, dtype=dtype, device=device, argument=argument)


def prune_checkpoint(folder, out, policy, ratio, *, generator=None):
    """Prune the checkpoint in `folder` into `out` without loading the model.

    In memory at a time are one tensor and what is cut from it or converted, or what
    the policy needs for one matrix; in the stored type that is less than two layers
    and one file.

    Parameters
    ----------
    folder : str or path
        Causal language model as safetensors files, with `config.json`; its tokenizer,
        if any, is taken along.
    out : str or path
        Folder to create; it appears whole or not at all.
    policy, ratio, generator
        See `select_rows`.

    Returns
    -------
    out : pathlib.Path
        The folder, byte for byte what `save_pruned` writes for the same rows.

    Raises
    ------
    ValueError
        If `folder` holds no such model or a quantised one, its family is not
        supported, `ratio` does not fit it, or `out` exists and is not an empty folder.
    OSError
        If `out` cannot be written, as on a full disk.
    """
    model, read = stream_folder(folder, argument="folder")
    check_new_folder(out)
    seen = read_row_matrices(model, read)
    kept = select_rows(seen, policy, ratio, generator=generator)
    tokenizer = load_tokenizer(folder, argument="folder", optional=True)
    return write_sliced(model, read, out, kept, tokenizer)


def export_padded(folder, out) -> dict[str, Any]:
    """Write the model in `folder` with all layers as wide as the widest of them.

    What is missing is filled with neurons of zeros: the function is the same, and every
    loader reads it.  Memory holds a tensor at a time.

    Parameters
    ----------
    folder : str or path
        Model whose layers differ in width, such as `save_pruned` writes.
    out : str or path
        Folder to create; it appears whole or not at all.

    Returns
    -------
    report : dict
        The folder, bytes of its weights, width of all layers, widths without the zeros,
        parameters with and without them, and `ffn_times`, by which the zeros multiply
        the feed-forward weights and the operations with them.

    Raises
    ------
    ValueError
        If `folder` holds no model of a supported family, all layers of it have one
        width, or `out` exists and is not an empty folder.
    OSError
        If `out` cannot be written, as on a full disk.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from prunefair.pruning.folders import export_padded, save_pruned
    >>> from prunefair.pruning.surgery import slice_ffn_, tiny_model
    >>> model = tiny_model("llama", generator=torch.Generator().manual_seed(0))
    >>> kept = [torch.arange(8), torch.arange(4)]
    >>> model = slice_ffn_(model, kept)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     folder = save_pruned(model, None, f"{place}/pruned", kept)
    ...     report = export_padded(folder, f"{place}/padded")
    >>> report["width"], report["widths"], round(report["ffn_times"], 2)
    (8, [8, 4], 1.33)
    """
    model, read = stream_folder(folder, argument="folder")
    given, widths = Given("folder", folder), [len(W) for W in row_matrices(model)]
    width = max(widths)
    if min(widths) == width:
        raise given.error(
            f"whose layers all have {width} neurons",
            "take it as it is: every loader reads it",
        )
    check_new_folder(out)
    tokenizer = load_tokenizer(folder, argument="folder", optional=True)
    path = Path(folder) / KEPT_ROWS
    record = getattr(model.config, CONFIG_KEY, None) or {}
    record = read_json(path, given) if path.is_file() else dict(record)
    kept, config = record.pop("kept", None), copy.deepcopy(model.config)
    with given.using(f"whose {KEPT_ROWS} does not hold the rows", "get it again"):
        kept = kept and [torch.as_tensor(rows).tolist() for rows in kept]
    set_widths_(config, [width])
    wide = empty_model(config, given, dtype=model.dtype)
    wide.generation_config = model.generation_config
    counts = {"parameters": wide.num_parameters()}
    counts["parameters_unpadded"] = model.num_parameters()
    record |= {"params_after": counts["parameters"], "widths_unpadded": widths}
    record |= {"params_unpadded": counts["parameters_unpadded"]}
    with whole_folder(out) as partial:
        tensor_of = padded_reader(model, read, width)
        _write_model(partial, wide, tensor_of, tokenizer, kept, record)
    return {
        "padded": str(out),
        "bytes": sum(file.stat().st_size for file in Path(out).glob("*.safetensors")),
        "width": width,
        "widths": widths,
        **counts,
        "ffn_times": width * len(widths) / sum(widths),
    }


def write_sliced(model, read, out, kept, tokenizer=None, record=None, *, changed=None):
    """Write the sliced model a tensor at a time; `model` becomes its skeleton.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model on the meta device; sliced in place.
    read : callable
        Gives the dense tensor of a name.
    out : str or path
        Folder to create; it appears whole or not at all.
    kept : sequence of L integer vectors, kept[l] of shape (k_l,)
        Rows to keep in layer l, strictly increasing.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        Saved beside the model.
    record : dict, optional
        See `save_pruned`.
    changed : dict of str to callable, optional
        What gives the tensors of these names in the place of the sliced ones.

    Returns
    -------
    out : pathlib.Path

    Raises
    ------
    ValueError
        If `kept` does not fit the model or `out` exists and is not an empty folder.
    OSError
        If `out` cannot be written, as on a full disk.
    """
    with whole_folder(out) as partial:
        read_sliced, changed = sliced_reader(model, read, kept), changed or {}
        slice_ffn_(model, kept)

        def tensor_of(name):
            return changed[name]() if name in changed else read_sliced(name)

        _write_model(partial, model, tensor_of, tokenizer, kept, record)
    return Path(out)
