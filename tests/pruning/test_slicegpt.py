"""The SliceGPT baseline of the comparison table is SliceGPT."""

from __future__ import annotations

import pytest
import torch

from prunefair.pruning import slicegpt
from prunefair.pruning.surgery import tiny_model


@pytest.fixture
def llama():
    """A tiny LLaMA with biases, and scales that move into its linear layers; texts."""
    generator = torch.Generator().manual_seed(0)
    fields = {"hidden_size": 16, "vocab_size": 23, "num_attention_heads": 4}
    fields |= {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
    model = tiny_model("llama", generator=generator, **fields)
    return model, torch.randint(23, (6, 9), generator=generator)


def test_nothing_is_lost_while_every_coordinate_stays(llama):
    model, tokens = llama
    with torch.no_grad():
        before = model(tokens).logits
        after = slicegpt.slice_gpt(model, tokens, 16)(tokens).logits
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(model(tokens).logits, before, rtol=0, atol=0)


def test_cutting_coordinates_projects_the_stream(llama, monkeypatch):
    """The sliced model is the dense one whose half blocks each read a projection."""
    model, tokens = llama
    axes, find = [], slicegpt.principal_axes
    monkeypatch.setattr(
        slicegpt, "principal_axes", lambda *a: axes.append(find(*a)) or axes[-1]
    )
    sliced = slicegpt.slice_gpt(model, tokens, 11)
    project = [lambda x, Q=Q: x @ Q @ Q.T for Q in axes]
    project += [lambda x: x]  # norm and head read the whole stream
    core = model.model
    with torch.no_grad():
        x = project[0](core.embed_tokens(tokens))
        turn = core.rotary_emb(x, torch.arange(9)[None])
        for i, layer in enumerate(core.layers):
            attended = layer.self_attn(layer.input_layernorm(x), turn, None)[0]
            x = project[2 * i + 1](x + attended)
            forward = layer.mlp(layer.post_attention_layernorm(x))
            x = project[2 * i + 2](x + forward)
        expected = model.lm_head(core.norm(x))
        torch.testing.assert_close(
            sliced(tokens).logits, expected, rtol=1e-3, atol=1e-4
        )
        whole = model(tokens).logits
    assert (expected - whole).abs().max() > 0.01  # something was cut


def test_axes_are_the_principal_ones_of_the_stream_before_its_normalisation():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(50, 6, generator=generator).double()
    x = x * torch.arange(1, 51)[:, None]  # long tokens count for more
    Q = slicegpt.principal_axes(x.view(5, 10, 6), 4)
    V = torch.linalg.svd(x).Vh[:4].T
    torch.testing.assert_close(Q.T @ Q, torch.eye(4).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        (Q.T @ V).abs(), torch.eye(4).double(), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("k", [1, 7, 16])
def test_the_width_spends_the_parameters_and_no_more(llama, k):
    model, tokens = llama
    size = slicegpt.slice_gpt(model, tokens, k).num_parameters()
    assert slicegpt.sliced_width(model, size) == k
    assert slicegpt.sliced_width(model, size - 1) == k - 1


def test_what_it_cannot_slice_is_refused(llama):
    model, tokens = llama
    for k in (0, 17, -1):
        with pytest.raises(ValueError, match=f"k is {k}; give a number from 1 to 16"):
            slicegpt.slice_gpt(model, tokens, k)
    with pytest.raises(
        ValueError, match="parameters is 9, and what is not sliced already has"
    ):
        slicegpt.sliced_width(model, 9)
    generator = torch.Generator().manual_seed(0)
    opt = tiny_model("opt", generator=generator)
    untied = tiny_model("llama", generator=generator, tie_word_embeddings=False)
    for other, named in ((opt, "'opt'"), (untied, "'llama' with an untied head")):
        for call in (slicegpt.slice_gpt, lambda m, t, k: slicegpt.sliced_width(m, k)):
            with pytest.raises(ValueError, match=f"model is of the family {named}"):
                call(other, tokens, 4)
