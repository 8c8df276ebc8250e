"""Counts against tensors and torch's own counter; the bound against drawn machines."""

import json
import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from prunefair.models import load_model, model_source
from prunefair.pruning.anatomy import (
    FlopCounts,
    ParameterCounts,
    counted_flops,
    ffn_layers,
    flops_per_token,
    gate_matrices,
    layer_widths,
    parameter_counts,
    plot_parameter_groups,
    plot_throughput_bounds,
    ratio_of_rows,
    rows_to_keep,
    tensor_counts,
    throughput_bound,
    weight_bytes,
)

LLAMA2_7B = LlamaConfig(
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    vocab_size=32000,
    tie_word_embeddings=False,
)
TINY = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 20,
    "pad_token_id": 0,
}
CONFIGS = {
    "llama": LlamaConfig(**TINY, tie_word_embeddings=False),
    "llama, biases": LlamaConfig(**TINY, attention_bias=True, mlp_bias=True),
    "llama, wide heads": LlamaConfig(**TINY, head_dim=6, tie_word_embeddings=True),
    "mistral": MistralConfig(**TINY, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**TINY, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**TINY, head_dim=6, tie_word_embeddings=False),
    "gemma": GemmaConfig(**TINY, head_dim=6, tie_word_embeddings=True),
}
PRUNED = 7


def with_width(config, width):
    return type(config)(**config.to_dict() | {"intermediate_size": width})


def on_meta(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.fixture(scope="module")
def small():
    return load_model("smollm2", dtype=torch.float32)


@given(
    rows=st.integers(1, 20_000),
    ratio=st.decimals(0, Decimal("0.9999"), places=4),
)
def test_rows_to_keep_is_the_floor_in_decimal_arithmetic(rows, ratio):
    expected = math.floor((1 - ratio) * rows)  # Decimal: exact here
    if expected:
        assert rows_to_keep(rows, float(ratio)) == expected
    else:
        with pytest.raises(ValueError, match="leaves no row"):
            rows_to_keep(rows, float(ratio))


@given(
    rows=st.integers(1, 20_000),
    ratio=st.integers(0, 99),
    multiple=st.integers(1, 64),
)
def test_the_multiple_that_is_kept_is_the_nearest_that_there_is(rows, ratio, multiple):
    if multiple > rows:
        with pytest.raises(ValueError, match=f"between 1 and the {rows} rows"):
            rows_to_keep(rows, 0.0, multiple)
        return
    exact = max(rows * (100 - ratio) // 100, 1)
    if rows * (100 - ratio) < 100:
        return  # no row is left
    found = rows_to_keep(rows, ratio / 100, multiple)
    if exact == rows:
        assert found == rows
        return
    choices = range(multiple, rows + 1, multiple)
    assert found == min(choices, key=lambda width: (abs(width - exact), width))
    assert rows_to_keep(rows, ratio_of_rows(rows, found)) == found


def test_the_formats_of_gguf_take_multiples_of_32_and_not_the_papers_count():
    from gguf import GGMLQuantizationType, QuantError
    from gguf.quants import dequantize, quantize

    generator = np.random.default_rng(0)
    for kind in (GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_0):
        for rows in (1536, 11008):
            taken = rows_to_keep(rows, 0.3, 32)
            weight = generator.standard_normal((2, taken)).astype(np.float32)
            again = dequantize(quantize(weight, kind), kind)
            assert np.abs(again - weight).max() < 0.6
            with pytest.raises(QuantError):
                quantize(np.ones((2, rows_to_keep(rows, 0.3)), np.float32), kind)


def test_rows_to_keep_differs_from_binary_arithmetic_where_that_is_wrong():
    assert rows_to_keep(10, 0.9) == 1 and int((1 - 0.9) * 10) == 0
    assert rows_to_keep(10, np.float64(0.9)) == 1
    assert rows_to_keep(7, 0) == 7


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, math.nan, math.inf])
def test_rows_to_keep_refuses_a_ratio_that_is_no_share(ratio):
    with pytest.raises(ValueError, match=r"ratio is .*\[0, 1\)"):
        rows_to_keep(10, ratio)


def test_feed_forward_layers_are_the_modules_of_the_model_and_of_its_body(small):
    assert ffn_layers(small) == [block.mlp for block in small.model.layers]
    assert ffn_layers(small.model) == ffn_layers(small)
    gates = gate_matrices(small)
    assert {tuple(gate.shape) for gate in gates} == {(1536, 576)} and len(gates) == 30
    weight = small.model.layers[4].mlp.gate_proj.weight
    assert gates[4].data_ptr() == weight.data_ptr() and not gates[4].requires_grad


@pytest.mark.parametrize(
    "model",
    [
        torch.nn.Linear(2, 2),
        on_meta(
            OPTConfig(
                hidden_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                ffn_dim=8,
                vocab_size=20,
                word_embed_proj_dim=8,
            )
        ),
    ],
    ids=["linear", "opt"],
)
def test_a_model_without_gated_layers_is_refused(model):
    with pytest.raises(ValueError, match="without gated feed-forward layers"):
        ffn_layers(model)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_parameters_from_the_configuration_are_those_of_the_tensors(config):
    assert parameter_counts(config) == tensor_counts(on_meta(config))
    pruned = parameter_counts(config, PRUNED)
    assert pruned == tensor_counts(on_meta(with_width(config, PRUNED)))
    assert pruned == parameter_counts(config, [PRUNED] * 2)
    assert pruned._replace(ffn=0) == parameter_counts(config)._replace(ffn=0)
    model = on_meta(config)
    assert parameter_counts(config).total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("tokens", [1, 5])
def test_flops_from_the_configuration_are_those_that_torch_counts(config, tokens):
    for width in (config.intermediate_size, PRUNED):
        model = on_meta(with_width(config, width))
        flops = flops_per_token(config, width, context=tokens)
        assert counted_flops(model, tokens) == tokens * flops.total


def test_angles_that_are_written_as_a_product_of_matrices_are_not_counted():
    model = on_meta(CONFIGS["llama"])
    rotary, flops = model.model.rotary_emb, counted_flops(model, 5)
    elementwise = rotary.forward

    def product(x, position_ids):  # as older versions of transformers write it
        rotary.inv_freq[None, :, None] @ position_ids[:, None].to(rotary.inv_freq.dtype)
        return elementwise(x, position_ids)

    rotary.forward = product
    assert counted_flops(model, 5) == flops


def test_counting_leaves_the_model_as_it_was(small):
    before = small.config._attn_implementation
    counted_flops(small, 2)
    assert small.config._attn_implementation == before != "eager"


def test_per_layer_widths_add_up():
    config = CONFIGS["llama"]
    sizes = [parameter_counts(config, width).ffn / 2 for width in (3, 9)]
    assert parameter_counts(config, [3, 9]).ffn == sum(sizes)
    flops = flops_per_token(config, [3, 9], context=4)
    assert flops.ffn == 2 * parameter_counts(config, [3, 9]).ffn


def test_llama2_7b_has_the_published_size_and_64_percent_of_it_feed_forward():
    counts = parameter_counts(LLAMA2_7B)
    assert counts == tensor_counts(on_meta(LLAMA2_7B))
    assert counts.total == 6_738_415_616  # as published with the checkpoint
    assert round(counts.ffn / 1e6) == 4329
    assert round(counts.ffn / counts.total, 3) == 0.642
    gone = counts.total - parameter_counts(LLAMA2_7B, rows_to_keep(11008, 0.3)).total
    assert round(gone / 1e6) == 1299 and round(gone / counts.total, 3) == 0.193


def test_the_real_model_matches_its_configuration_in_parameters_bytes_and_flops(small):
    counts = parameter_counts(small.config)
    assert counts == tensor_counts(small)
    flops = flops_per_token(small.config, context=8)
    assert counted_flops(small, 8) == 8 * flops.total
    memory = {p.untyped_storage().data_ptr(): p.nbytes for p in small.parameters()}
    assert sum(memory.values()) == weight_bytes(counts, torch.float32)
    assert weight_bytes(counts, torch.bfloat16) == 2 * counts.total
    kept = rows_to_keep(1536, 0.3)
    left = parameter_counts(small.config, kept).total
    assert round(left / 1e6, 1) == 110.6 and round(left / counts.total, 3) == 0.822


def test_bytes_are_those_of_the_checkpoint_file(tmp_path):
    config = CONFIGS["qwen2"]
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    raw = (tmp_path / "model.safetensors").read_bytes()
    header = int.from_bytes(raw[:8], "little")
    assert json.loads(raw[8 : 8 + header])
    counts = parameter_counts(config)
    assert len(raw) - 8 - header == weight_bytes(counts, torch.float32)
    assert model_source(tmp_path) == str(tmp_path)


def test_a_wrong_count_would_be_seen():
    config = CONFIGS["llama"]
    wrong = with_width(config, config.intermediate_size - 1)
    assert parameter_counts(wrong) != tensor_counts(on_meta(config))
    flops = flops_per_token(wrong, context=5).total
    assert counted_flops(on_meta(config), 5) != 5 * flops


def test_unknown_families_and_wrong_widths_are_named():
    with pytest.raises(ValueError, match=r"family 'opt'.*tensor_counts"):
        parameter_counts(OPTConfig())
    with pytest.raises(ValueError, match="family 'opt'"):
        flops_per_token(OPTConfig(), context=1)
    for function in (layer_widths, parameter_counts):
        with pytest.raises(ValueError, match="has 3 entries; give one for each of the"):
            function(CONFIGS["llama"], [1, 2, 3])
    with pytest.raises(ValueError, match="context is -1"):
        flops_per_token(CONFIGS["llama"], context=-1)
    with pytest.raises(ValueError, match="'weight' that is in no group"):
        tensor_counts(torch.nn.Linear(2, 2))


MACHINES = {
    "bandwidth": st.floats(1e9, 1e14),
    "peak": st.floats(1e10, 1e16),
    "constant": st.floats(0, 1),
    "batch": st.integers(1, 10_000),
    "cache": st.floats(0, 1e12),
}


@given(**MACHINES, ratio=st.floats(0, 1), additive=st.booleans())
def test_no_machine_gains_more_than_the_bound(
    bandwidth, peak, constant, batch, cache, ratio, additive
):
    counts = parameter_counts(LLAMA2_7B)
    join = sum if additive else max

    def seconds(matrices):
        work = (2 * matrices + cache) / bandwidth, 2 * batch * matrices / peak
        return constant + join(work)

    pruned = seconds(counts.matrices - ratio * counts.ffn)
    gain = seconds(counts.matrices) / pruned
    assert gain <= throughput_bound(counts, ratio) * (1 + 1e-12)


def test_a_machine_outside_the_assumptions_can_beat_the_bound():
    counts = parameter_counts(LLAMA2_7B)

    def seconds(matrices):  # slow as soon as the weights overflow a fast memory
        return matrices * (10 if 2 * matrices > 11e9 else 1)

    gain = seconds(counts.matrices) / seconds(counts.matrices - 0.3 * counts.ffn)
    assert gain > throughput_bound(counts, 0.3)


def test_the_reported_speed_up_exceeds_the_bound_even_without_the_head():
    counts = parameter_counts(LLAMA2_7B)
    removed = 1 - rows_to_keep(11008, 0.3) / 11008
    reported = 20.74 / 11.96
    assert round(throughput_bound(counts, removed), 2) == 1.24
    headless = counts.matrices - removed * counts.ffn - counts.head
    assert counts.matrices / headless < 1.3 < 1.7 < reported


PHI2 = PhiConfig(
    hidden_size=2560, intermediate_size=10240, num_hidden_layers=32, vocab_size=51200
)


def test_phi_2_has_the_published_size_and_its_reported_speed_up_exceeds_its_bound():
    model = on_meta(PHI2)
    counts = tensor_counts(model)
    assert counts.total == 2_779_683_840 == sum(p.numel() for p in model.parameters())
    fc = {n: p for n, p in model.named_parameters() if ".fc1." in n or ".fc2." in n}
    assert counts.ffn == sum(p.numel() for p in fc.values()) and len(fc) == 4 * 32
    head = sum(p.numel() for p in model.lm_head.parameters())
    assert counts.head == head == 51200 * 2561
    assert round(counts.ffn / counts.total, 3) == 0.604
    removed = 1 - rows_to_keep(10240, 0.3) / 10240
    assert round(throughput_bound(counts, removed), 2) == 1.23
    headless = counts.matrices - removed * counts.ffn - counts.head
    assert counts.matrices / headless < 1.32 < 29.50 / 20.20


def test_the_bound_counts_a_tied_embedding_once_and_an_untied_one_not_at_all():
    tied = ParameterCounts(embedding=10, attention=20, ffn=30, norm=1, head=0)
    untied = tied._replace(head=10)
    assert tied.matrices == untied.matrices == 60
    assert throughput_bound(tied, 0.5) == throughput_bound(untied, 0.5) == 60 / 45
    assert (tied.total, untied.total) == (61, 71)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, math.nan])
def test_the_bound_refuses_a_ratio_that_is_no_share(ratio):
    with pytest.raises(ValueError, match=r"ratio is .*\[0, 1\]"):
        throughput_bound(parameter_counts(LLAMA2_7B), ratio)


def test_flops_by_group_add_up():
    assert FlopCounts(1, 2, 3, 4).total == 10


def test_figures_show_every_model_and_claim():
    from matplotlib.figure import Figure

    counts = {"a": parameter_counts(LLAMA2_7B)}
    counts["a, pruned"] = parameter_counts(LLAMA2_7B, 7705)
    ax = plot_parameter_groups(Figure().subplots(), counts)
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches[-2:]]
    norm = counts["a"].norm
    for end, count in zip(ends, counts.values()):
        assert end == pytest.approx((count.total - norm) / counts["a"].total)
    ax = plot_throughput_bounds(Figure().subplots(), counts, {"c": (0.3, 1.7)})
    labels = [line.get_label() for line in ax.lines]
    assert labels == ["bound, a", "bound, a, pruned", "c"]
    x, y = ax.lines[0].get_data()
    assert y[30] == throughput_bound(counts["a"], x[30])
