"""Layers that differ in width: what a configuration says, and how to build them.

transformers has a form for such models, `per_layer_config`, and versions up to 5.23 do
not build them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunefair.checkpoint import read_json
from prunefair.messages import Given

CONFIG_KEY = "prunefair"
KEPT_ROWS = "kept_rows.json"
MOST_ROWS = 10**7  # more in a layer is a damaged file
# Field of the configuration that holds the number of neurons of a layer, by family.
WIDTH_FIELDS = dict.fromkeys(
    (
        *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
        *("olmo2", "granite", "smollm3", "stablelm", "phi3", "phi", "gpt_neox"),
    ),
    "intermediate_size",
) | {"opt": "ffn_dim", "falcon": "ffn_hidden_size"}


def layer_widths_of(config: dict[str, Any], field: str) -> list[int] | None:
    """Widths of the layers where a configuration gives them one by one.

    Parameters
    ----------
    config : dict
        Content of a `config.json`.
    field : str
        Field that holds the width of a layer.

    Returns
    -------
    widths : list of int, or None
        None where all layers have the width of the field.

    Raises
    ------
    KeyError, TypeError, ValueError, IndexError, AttributeError
        If `per_layer_config` is not of the form that transformers reads.
    """
    changes = config.get("per_layer_config") or {}
    if not any(field in change for change in changes.values()):
        return None
    widths = [config[field]] * config["num_hidden_layers"]
    for layer, change in changes.items():
        width = change.get(field, config[field])
        if type(width) is not int or width < 1 or int(layer) < 0:
            raise ValueError(f"layer {layer} has the width {width!r}")
        widths[int(layer)] = width
    return widths


def stored_widths(folder, *, argument="folder") -> list[int] | None:
    """Widths of the layers of the model in `folder`, where they differ.

    Parameters
    ----------
    folder : str or path
        Folder with `config.json`; where that does not hold the widths, `kept_rows.json`
        is asked.
    argument : str
        What errors call `folder`.

    Returns
    -------
    widths : list of L int, or None
        None where the layers are alike, or of a family that cannot be pruned.

    Raises
    ------
    ValueError
        If one of the two files does not hold what it should.
    """
    given, path = Given(argument, folder), Path(folder) / "config.json"
    config = read_json(path, given) if path.is_file() else {}
    field, widths = WIDTH_FIELDS.get(config.get("model_type")), None
    remedy = "give a folder written by save_pruned"
    with given.using(f"whose {path.name} does not hold the widths", remedy):
        if field:
            widths = layer_widths_of(config, field)
    path = Path(folder) / KEPT_ROWS
    if field and widths is None and path.is_file():
        widths = read_json(path, given).get("widths")
        if not isinstance(widths, list) or not widths:
            raise given.error(f"whose {path.name} does not hold the widths", remedy)
    if any(
        type(width) is not int or not 0 < width <= MOST_ROWS for width in widths or ()
    ):
        raise given.error(f"whose {path.name} does not hold the widths", remedy)
    return widths if widths and len(set(widths)) > 1 else None


def set_widths_(config, widths: Sequence[int]) -> None:
    """Write the widths into a configuration, one by one where they differ.

    The form is transformers' own `per_layer_config`; what was said of the model before
    is taken back.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Of a family of `WIDTH_FIELDS`; changed in place.
    widths : sequence of int
        One for each layer, or one for all.
    """
    for key in ("per_layer_config", CONFIG_KEY):
        setattr(config, key, None)  # where transformers knows it, a property
        vars(config).pop(key, None)
    field, widest = WIDTH_FIELDS[config.model_type], max(widths)
    setattr(config, field, widest)
    own = {layer: width for layer, width in enumerate(widths) if width != widest}
    if own:
        digits = len(str(max(own)))
        own = {f"{layer:0{digits}}": {field: width} for layer, width in own.items()}
        config.per_layer_config = own


def narrow_layers_(model, widths: Sequence[int]) -> None:
    """Give a model without values layers of their own widths, in place.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Of a family of `WIDTH_FIELDS`, with all layers as wide as the widest.
    widths : sequence of int
        One for each layer; they are written into its configuration, too.

    Raises
    ------
    ValueError
        If there are not as many widths as layers.
    """
    from torch.nn import ModuleList

    config, count = model.config, model.config.num_hidden_layers
    stacks = (m for m in model.modules() if isinstance(m, ModuleList))
    layers = next((stack for stack in stacks if len(stack) == count), ())
    if len(widths) != len(layers):
        raise ValueError(f"widths are {len(widths)} and the layers {len(layers)}")
    for layer, width in enumerate(widths):
        setattr(config, WIDTH_FIELDS[config.model_type], width)
        layers[layer] = type(layers[layer])(config, layer)
    set_widths_(config, widths)
