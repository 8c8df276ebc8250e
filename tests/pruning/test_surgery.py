"""Surgery: every family under one contract, folders, uneven widths and streaming."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from prunefair.models import load_model, load_tokenizer
from prunefair.pruning.anatomy import parameter_counts
from prunefair.pruning.folders import (
    reloaded_logits,
    save_pruned,
)
from prunefair.pruning.surgery import (
    ADAPTERS,
    adapter_for,
    ffn_slices,
    layer_ratios,
    mask_ffn_,
    plot_neurons,
    removed_parameters,
    row_matrices,
    select_rows,
    slice_ffn_,
    tiny_model,
)

FAMILIES = sorted(ADAPTERS)
EVEN = [[0, 3, 4, 7, 9], [1, 2, 6, 10, 11]]
UNEVEN = [[0, 3, 11], [1, 2, 6, 10, 11]]
TOKENS = torch.arange(3, 31)[None]
# Parameters of one neuron at hidden size 8, from the shapes of the matrices.
NEURON = dict.fromkeys(FAMILIES, 3 * 8) | {"llama": 3 * 8 + 2, "granite": 3 * 8 + 2}
NEURON |= dict.fromkeys(("phi", "opt", "falcon", "gpt_neox"), 2 * 8 + 1)


class LargestRows:
    """Keeps the rows of largest norm, or draws if a generator is given."""

    def select(self, W, k, *, generator=None):
        scores = W.double().norm(dim=1)
        if generator is not None:
            scores = torch.rand(len(W), generator=generator)
        return scores.topk(k).indices.sort().values


def tiny(family, seed=0, **options):
    return tiny_model(family, generator=torch.Generator().manual_seed(seed), **options)


def logits(model, tokens=TOKENS):
    with torch.no_grad():
        return model(tokens).logits


# -- the contract of every family


@pytest.mark.parametrize("kept", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("family", FAMILIES)
def test_slicing_equals_masking_to_rounding(family, kept):
    dense = tiny(family)
    sliced = slice_ffn_(copy.deepcopy(dense), kept)
    masked = mask_ffn_(copy.deepcopy(dense), kept)
    torch.testing.assert_close(logits(sliced), logits(masked), atol=1e-5, rtol=1e-5)
    assert (logits(dense) - logits(masked)).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_slicing_equals_masking_in_double_precision(family):
    dense = tiny(family, dtype=torch.float64)
    sliced = slice_ffn_(copy.deepcopy(dense), EVEN)
    masked = mask_ffn_(dense, EVEN)
    # rotary angles and some norms are computed in float32 in both models alike
    torch.testing.assert_close(logits(sliced), logits(masked), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_as_many_parameters_leave_as_the_shapes_say(family):
    dense = tiny(family)
    before, predicted = dense.num_parameters(), removed_parameters(dense, UNEVEN)
    slice_ffn_(dense, UNEVEN)
    assert before - dense.num_parameters() == predicted == (9 + 7) * NEURON[family]


def test_the_contract_rejects_columns_that_do_not_belong_to_the_rows():
    dense = tiny("llama")
    wrong = slice_ffn_(copy.deepcopy(dense), EVEN)
    other = slice_ffn_(copy.deepcopy(dense), [[0, 3, 4, 7, 10], EVEN[1]])
    wrong.model.layers[0].mlp.down_proj = other.model.layers[0].mlp.down_proj
    error = (logits(wrong) - logits(mask_ffn_(dense, EVEN))).abs().max()
    assert error > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_with_a_cache_equals_generation_without(family):
    model = slice_ffn_(tiny(family), UNEVEN)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    mask = torch.ones(1, 5, dtype=torch.int64)
    with_cache, without = (
        model.generate(TOKENS[:, :5], attention_mask=mask, use_cache=use, **options)
        for use in (True, False)
    )
    assert with_cache.shape == (1, 13)
    assert torch.equal(with_cache, without)


# -- what is refused


def test_an_unsupported_family_is_named_with_the_supported_ones():
    fields = {"vocab_size": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    config = AutoConfig.for_model("gpt2", **fields)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match="'gpt2', which has no adapter.*gpt_neox"):
        adapter_for(model)


def test_the_family_is_the_type_of_the_configuration_and_not_a_part_of_a_name():
    model = tiny("llama")
    model.config._name_or_path = "my-falcon-finetuned-by-opt"
    assert adapter_for(model) is ADAPTERS["llama"]


def test_feed_forward_weights_tied_between_layers_are_refused():
    model = tiny("mistral")
    model.model.layers[1].mlp = model.model.layers[0].mlp
    with pytest.raises(ValueError, match="ties feed-forward weights between layers"):
        slice_ffn_(model, EVEN)


class Packed(torch.nn.Linear):
    """Two codes of 4 bits in a byte, as bitsandbytes keeps them."""

    def __init__(self, *shape, storage=torch.uint8):
        super().__init__(*shape)
        codes = torch.zeros(self.weight.numel() // 2, 1, dtype=storage)
        self.weight = torch.nn.Parameter(codes, False)


class PackedInFloats(Packed):
    """The same, in what says to be floating point numbers."""

    def __init__(self, *shape):
        super().__init__(*shape, storage=torch.bfloat16)


class Int8(torch.nn.Linear):
    """Codes in the shape of the weight."""

    def __init__(self, *shape):
        super().__init__(*shape)
        self.weight = torch.nn.Parameter(self.weight.detach().to(torch.int8), False)


class Scaled(torch.nn.Linear):
    """A weight in the right shape with scales beside it."""

    def __init__(self, *shape):
        super().__init__(*shape)
        self.register_buffer("scales", torch.ones(shape[1]))


class Hidden(torch.nn.Linear):
    """A weight of a type of its own, which may stand for codes and scales."""

    class Codes(torch.nn.Parameter):
        pass

    def __init__(self, *shape):
        super().__init__(*shape)
        self.weight = self.Codes(self.weight.detach())


def test_a_wrapped_or_quantised_map_is_refused():
    model = tiny("qwen3")
    mlp = model.model.layers[1].mlp
    mlp.up_proj = torch.nn.Sequential(mlp.up_proj)
    with pytest.raises(ValueError, match="Sequential where the family 'qwen3'"):
        mask_ffn_(model, EVEN)
    for wrong in (Packed, PackedInFloats, Int8, Scaled, Hidden):
        mlp.up_proj = wrong(8, 12)
        message = f"holds a {wrong.__name__} where the family 'qwen3'"
        with pytest.raises(ValueError, match=message):
            mask_ffn_(model, EVEN)
    mlp.up_proj = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(8, 12))
    with pytest.raises(ValueError, match="ParametrizedLinear where the family"):
        mask_ffn_(model, EVEN)


def test_a_model_not_built_like_its_family_is_refused():
    model = tiny("llama")
    del model.model.layers[0].mlp.up_proj
    with pytest.raises(ValueError, match="is not built like it"):
        row_matrices(model)


BAD_ROWS = [
    ([[0, 1]], "kept has 1 entries and the model 2 layers"),
    ([[0, 1], []], r"kept\[1\] is empty: too few rows"),
    ([[0, 1], [0, 0]], r"kept\[1\] must increase strictly within \[0, 12\)"),
    ([[0, 1], [1, 0]], r"kept\[1\] must increase strictly"),
    ([[0, 1], [-1, 0]], r"kept\[1\] must increase strictly"),
    ([[0, 1], [0, 12]], r"kept\[1\] must increase strictly"),
    ([[0, 1], [0.0, 1.0]], r"kept\[1\] must be a vector of row numbers"),
    ([[0, 1], [True, False]], r"kept\[1\] must be a vector of row numbers"),
    ([[0, 1], [[0, 1]]], r"kept\[1\] must be a vector of row numbers"),
    ([[0, 1], [0, 1j]], r"kept\[1\] must be a vector of row numbers"),
    ([[0, 1], torch.tensor([3, 1], dtype=torch.uint8)], r"kept\[1\] must increase"),
    ([[0, 1], np.array([3, 1], dtype=np.uint16)], r"kept\[1\] must increase"),
    ([[0, 1], np.array([3, 2**64 - 1], dtype=np.uint64)], r"kept\[1\] must increase"),
]


@pytest.mark.parametrize("action", [slice_ffn_, mask_ffn_, removed_parameters])
@pytest.mark.parametrize(("kept", "message"), BAD_ROWS)
def test_bad_rows_are_refused_before_anything_changes(action, kept, message):
    model = tiny("opt")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        action(model, kept)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_unsigned_rows_that_increase_are_kept():
    rows = [np.array(r, dtype=t) for r, t in zip(UNEVEN, (np.uint8, np.uint16))]
    assert [len(m) for m in row_matrices(slice_ffn_(tiny("opt"), rows))] == [3, 5]


def test_a_tiny_model_of_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="family is 'gpt2'; give one of llama, .*neox"):
        tiny("gpt2")


def test_a_tiny_model_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    tiny("falcon")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("number", [0.3, 0, np.float32(0.3)])
def test_one_ratio_serves_every_layer(number):
    assert layer_ratios(number, 3) == [number] * 3


def test_ratios_of_their_own_are_counted():
    assert layer_ratios(np.array([0.1, 0.2]), 2) == [0.1, 0.2]
    with pytest.raises(ValueError, match="ratio has 1 entries and the model 2 layers"):
        layer_ratios([0.1], 2)
    for odd in ("0.3", None):
        with pytest.raises(ValueError, match="ratio is .*; give a number"):
            layer_ratios(odd, 2)


# -- invariants


subsets = st.sets(st.integers(0, 11), min_size=1).map(sorted)


@settings(max_examples=30)
@given(first=subsets, second=subsets, family=st.sampled_from(FAMILIES))
def test_any_rows_sliced_equal_the_same_rows_masked(first, second, family):
    kept = [torch.tensor(first), torch.tensor(second)]
    dense = tiny(family)
    predicted = dense.num_parameters() - removed_parameters(dense, kept)
    sliced = slice_ffn_(copy.deepcopy(dense), kept)
    masked = mask_ffn_(dense, kept)
    torch.testing.assert_close(logits(sliced), logits(masked), atol=1e-5, rtol=1e-5)
    assert sliced.num_parameters() == predicted
    assert [len(m) for m in row_matrices(sliced)] == [len(first), len(second)]


@settings(max_examples=20)
@given(rows=subsets, data=st.data())
def test_slicing_twice_is_slicing_once_by_the_composed_rows(rows, data):
    places = st.sets(st.integers(0, len(rows) - 1), min_size=1).map(sorted)
    then = data.draw(places)
    twice = slice_ffn_(slice_ffn_(tiny("gemma"), [rows] * 2), [then] * 2)
    once = slice_ffn_(tiny("gemma"), [[rows[t] for t in then]] * 2).state_dict()
    assert all(torch.equal(v, once[name]) for name, v in twice.state_dict().items())


def test_slices_name_the_gate_first_and_every_bias_but_the_last():
    first, _ = ffn_slices(tiny("llama"))
    assert list(first)[0].endswith("gate_proj.weight")
    assert sorted(name.rsplit(".", 2)[-2:] for name in first) == [
        ["down_proj", "weight"],
        ["gate_proj", "bias"],
        ["gate_proj", "weight"],
        ["up_proj", "bias"],
        ["up_proj", "weight"],
    ]
    assert [dim for dim in first.values()].count(1) == 1
    assert first["model.layers.0.mlp.down_proj.weight"] == 1


def test_of_two_matrices_in_one_a_policy_sees_the_gate_and_a_neuron_has_both_rows():
    model = tiny("phi3", hidden_act="sigmoid", dtype=torch.float64)
    mlp, x = model.model.layers[0].mlp, torch.randn(3, 8, dtype=torch.float64)
    U, D = mlp.gate_up_proj.weight[12:].clone(), mlp.down_proj.weight.clone()
    row_matrices(model)[0].zero_()  # a sigmoid of nothing is a half, wherever x is
    torch.testing.assert_close(mlp(x), x @ U.T @ D.T / 2)
    slice_ffn_(model, EVEN)
    assert mlp.gate_up_proj.weight.shape == (10, 8)
    assert mlp.gate_up_proj.out_features == 10
    torch.testing.assert_close(mlp(x), x @ U[EVEN[0]].T @ D[:, EVEN[0]].T / 2)


def test_frozen_parameters_stay_frozen_and_the_modules_say_their_new_shape():
    model = tiny("llama").requires_grad_(False)
    slice_ffn_(model, EVEN)
    assert not any(p.requires_grad for p in model.parameters())
    mlp = model.model.layers[1].mlp
    assert (mlp.gate_proj.out_features, mlp.down_proj.in_features) == (5, 5)
    assert mlp.intermediate_size == model.config.intermediate_size == 5


# -- the small real model


def test_the_real_model_sliced_masked_reloaded_and_streamed(tmp_path):
    dense, tokenizer = load_model("smollm2"), load_tokenizer("smollm2")
    config, before = copy.deepcopy(dense.config), dense.num_parameters()
    text = "The kept rows of the gate are those of the up-projection."
    tokens = tokenizer(text, return_tensors="pt")["input_ids"]
    kept = select_rows(row_matrices(dense), LargestRows(), 0.3)
    sliced = slice_ffn_(copy.deepcopy(dense), kept)
    oracle = logits(mask_ffn_(dense, kept), tokens)
    scale = oracle.abs().max()
    assert (logits(sliced, tokens) - oracle).abs().max() < 1e-4 * scale
    assert sliced.num_parameters() == parameter_counts(config, [1075] * 30).total
    assert round(sliced.num_parameters() / before, 3) == 0.822
    save_pruned(sliced, tokenizer, tmp_path / "out", kept)
    again = reloaded_logits(tmp_path / "out", tokens)
    assert (again - oracle).abs().max() < 1e-4 * scale


def test_in_double_precision_the_real_model_sliced_equals_masked_exactly_enough():
    model = load_model("smollm2", dtype=torch.float64)
    kept = select_rows(row_matrices(model), LargestRows(), 0.3)
    oracle = logits(mask_ffn_(model, kept))
    sliced = logits(slice_ffn_(model, kept))  # the masked rows are those that leave
    assert (sliced - oracle).abs().max() < 1e-9 * oracle.abs().max()


def test_the_picture_blanks_the_removed_neurons():
    import matplotlib.pyplot as plt

    shapes = {"llama": 3 * 8 + 2, "opt": 2 * 8 + 1, "phi3": 3 * 8 + 2}
    for family, columns in shapes.items():
        _, ax = plt.subplots()
        plot_neurons(ax, tiny(family), EVEN)
        image = torch.as_tensor(ax.images[0].get_array().filled(torch.nan))
        assert image.shape == (12, columns)
        blank = image.isnan().all(dim=1)
        assert (~blank).nonzero()[:, 0].tolist() == EVEN[0]
        plt.close("all")
