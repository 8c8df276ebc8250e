"""Layers that differ in width: read from a configuration, and built."""

import ast
import copy
from pathlib import Path

import pytest
import torch

from prunefair import models
from prunefair.pruning.surgery import ADAPTERS, slice_ffn_, tiny_model
from prunefair.widths import WIDTH_FIELDS, layer_widths_of, narrow_layers_, set_widths_

UNEVEN = [[0, 3, 11], [1, 2, 6, 10, 11]]


@pytest.mark.parametrize("changes", [None, {}, {"1": {"head_dim": 4}}])
def test_layers_without_a_width_of_their_own_are_alike(changes):
    config = {"intermediate_size": 5, "num_hidden_layers": 2}
    config["per_layer_config"] = changes
    assert layer_widths_of(config, "intermediate_size") is None


@pytest.mark.parametrize("family", sorted(ADAPTERS))
def test_narrowed_layers_have_the_shapes_and_the_configuration_of_sliced_ones(family):
    dense = tiny_model(family, generator=torch.Generator())
    sliced = slice_ffn_(copy.deepcopy(dense), UNEVEN)
    config = copy.deepcopy(dense.config)
    set_widths_(config, [5])
    with torch.device("meta"):
        narrow = type(dense)(config)
    narrow_layers_(narrow, [3, 5])
    ours, theirs = (
        {n: v.shape for n, v in m.state_dict().items()} for m in (narrow, sliced)
    )
    assert ours == theirs
    assert narrow.config.to_dict() == sliced.config.to_dict()
    with pytest.raises(ValueError, match="widths are 3 and the layers 2"):
        narrow_layers_(narrow, [3, 5, 5])


def test_the_families_that_can_be_pruned_are_those_whose_widths_can_be_read():
    assert set(WIDTH_FIELDS) == set(ADAPTERS)


def test_loading_a_model_needs_nothing_of_the_chapters():
    for name in ("models", "checkpoint", "widths", "model_card"):
        path = Path(models.__file__).with_name(f"{name}.py")
        for node in ast.walk(ast.parse(path.read_text())):
            assert "pruning" not in (getattr(node, "module", None) or "")
