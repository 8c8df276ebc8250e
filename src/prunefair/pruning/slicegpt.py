"""SliceGPT on a LLaMA: principal directions of the residual stream, the rest cut off.

Every half block of a LLaMA reads the residual stream through a normalisation that no
rotation changes (its scale moves into the linear layers behind it).  So the stream may
be turned into its principal axes on a calibration text, and its last coordinates cut; a
small matrix between two half blocks turns from one set of axes into the next.

As in the code of its authors (microsoft/TransformerCompression), the axes are those of
the stream before its normalisation, about zero and over every position; each half block
sees what the sliced ones before it give; and the last half block writes the whole
stream, which norm and head read as in the dense model.  Equation 8 of their paper takes
the axes of the normalised stream instead; on the small model the perplexity is then
higher.

We differ from their code in three things that change the model.  Embedding and head,
tied in the small model, stay one whole matrix behind the first turn, where their code
stores an embedding of its own for the sliced stream; with as many parameters its stream
would be narrower.  The width is the largest that the parameters allow and not a
multiple of eight.  The calibration text is short and in one piece, the start of the
validation text, where theirs is drawn from all of the training text.  Their damping and
the random turn of the kept axes leave the sliced model as it is and are left out.
"""

from __future__ import annotations

import copy
from itertools import product

import torch
from torch import nn

from prunefair.models import measuring
from prunefair.pruning.surgery import row_matrices, sharing_copy


class SlicedNorm(nn.Module):
    """Division by the root mean square of the stream before it was sliced."""

    def __init__(self, hidden, eps):
        super().__init__()
        self.hidden, self.eps = hidden, eps

    def forward(self, x):
        return x * torch.rsqrt(
            x.square().sum(-1, keepdim=True) / self.hidden + self.eps
        )


def _linear(weight, bias=None):
    layer = nn.Linear(*weight.T.shape, bias=bias is not None)
    layer.weight.data = weight.contiguous()
    if bias is not None:
        layer.bias.data = bias
    return layer


class SlicedLayer(nn.Module):
    """A block whose stream has the axes `Q[0]`, then `Q[1]`, and at its end `Q[2]`.

    Parameters
    ----------
    layer : LlamaDecoderLayer
        Dense block, which is not changed.
    axes : three Tensors, each of shape (d, k)
        Orthonormal columns; the last may have d of them, and the block then writes the
        whole stream.
    """

    def __init__(self, layer, axes):
        super().__init__()
        first, second, third = axes
        self.norm = SlicedNorm(len(first), layer.input_layernorm.variance_epsilon)
        self.self_attn, self.mlp = copy.deepcopy((layer.self_attn, layer.mlp))
        before, after = layer.input_layernorm, layer.post_attention_layernorm
        for name in ("q_proj", "k_proj", "v_proj"):
            self.read(self.self_attn, name, before.weight, first)
        for name in ("gate_proj", "up_proj"):
            self.read(self.mlp, name, after.weight, second)
        self.write(self.self_attn, "o_proj", second)
        self.write(self.mlp, "down_proj", third)
        self.turns = nn.ModuleList(
            [_linear(second.T @ first), _linear(third.T @ second)]
        )

    @staticmethod
    def read(module, name, scale, Q):
        old = getattr(module, name)
        setattr(module, name, _linear(old.weight * scale @ Q, old.bias))

    @staticmethod
    def write(module, name, Q):
        old = getattr(module, name)
        bias = None if old.bias is None else Q.T @ old.bias
        setattr(module, name, _linear(Q.T @ old.weight, bias))

    def forward(self, x, **options):
        x = self.turns[0](x) + self.self_attn(hidden_states=self.norm(x), **options)[0]
        return self.turns[1](x) + self.mlp(self.norm(x))


def principal_axes(x, k):
    """First k principal axes of the stream about zero, (d, k)."""
    X = x.flatten(0, -2).double()
    return torch.linalg.eigh(X.T @ X).eigenvectors[:, -k:].flip(1).to(x.dtype)


def sliced_width(model, parameters):
    """Largest k at which the sliced model has at most so many parameters.

    Parameters
    ----------
    model : transformers.LlamaForCausalLM
        Dense model with tied embedding.
    parameters : int
        Parameters that the sliced model may have.

    Returns
    -------
    k : int
        Coordinates of the residual stream.

    Raises
    ------
    ValueError
        If the model is another one, or what is not sliced has more parameters.
    """
    check_sliceable(model)
    core, d = model.model, model.config.hidden_size
    turns, per_coordinate = 2 * len(core.layers) - 1, 2 * d  # the two outer turns
    last = core.layers[-1].mlp.down_proj
    kept = model.num_parameters() + sum(x.numel() for x in last.parameters())
    kept -= sum(x.numel() for x in core.layers.parameters())
    for name, module in core.layers.named_modules():
        if isinstance(module, nn.Linear) and module is not last:  # reads or writes
            per_coordinate += module.weight.numel() // d
            if module.bias is not None and name.endswith(("o_proj", "down_proj")):
                per_coordinate += 1
            elif module.bias is not None:
                kept += module.bias.numel()
    sizes = [kept + k * per_coordinate + k * k * turns for k in range(d + 1)]
    if sizes[0] > parameters:
        raise ValueError(
            f"parameters is {parameters}, and what is not sliced already has "
            f"{sizes[0]}; lower the ratio"
        )
    return max(k for k, size in enumerate(sizes) if size <= parameters)


def check_sliceable(model) -> None:
    """Raise unless SliceGPT as it is written here fits the model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model.

    Raises
    ------
    ValueError
        If it is no LLaMA with a tied embedding and layers that are alike.
    """
    family, tied = model.config.model_type, model.config.tie_word_embeddings
    widths = {len(W) for W in row_matrices(model)}
    if family != "llama" or not tied or len(widths) > 1:
        uneven = " with layers of several widths" if len(widths) > 1 else ""
        raise ValueError(
            f"model is of the family {family!r}{'' if tied else ' with an untied head'}"
            f"{uneven}; SliceGPT is written here for a LLaMA with a tied embedding and "
            "layers that are alike"
        )


def _attention_half(layer, x, turn):
    return layer.self_attn(layer.input_layernorm(x), turn, None)[0]


def _feed_forward_half(layer, x, turn):
    return layer.mlp(layer.post_attention_layernorm(x))


@torch.no_grad()
def slice_gpt(model, tokens, k):
    """SliceGPT with k coordinates kept everywhere but behind the last half block.

    Parameters
    ----------
    model : transformers.LlamaForCausalLM
        Dense model with tied embedding, which is not changed.
    tokens : Tensor, shape (n, N), int64
        Calibration texts; every layer sees what the sliced ones before it give.
    k : int
        Coordinates of the residual stream kept, at most its width.

    Returns
    -------
    sliced : transformers.LlamaForCausalLM
        Shares the embedding with `model`.

    Raises
    ------
    ValueError
        If the model is another one, `tokens` are not texts of it, or `k` is not between
        1 and its width.

    References
    ----------
    {cite}`ashkboos2024slicegpt`.
    """
    check_sliceable(model)
    if not 1 <= k <= model.config.hidden_size:
        raise ValueError(
            f"k is {k!r}; give a number from 1 to {model.config.hidden_size}, the width "
            "of the residual stream"
        )
    with measuring(model, tokens=tokens):
        return _sliced(model, tokens, k)


def _sliced(model, tokens, k):
    """The sliced model; every layer is measured behind the sliced ones before it."""
    core = model.model
    x = core.embed_tokens(tokens.to(model.device))  # (n, N, d)
    places = torch.arange(tokens.shape[1], device=x.device)[None]
    turn = core.rotary_emb(x, places)
    axes = [principal_axes(x, k)]
    x = x @ axes[-1] @ axes[-1].T
    halves = product(core.layers, (_attention_half, _feed_forward_half))
    for layer, half in [*halves][:-1]:
        x = x + torch.cat([half(layer, text, turn) for text in x.split(1)])
        axes.append(principal_axes(x, k))
        x = x @ axes[-1] @ axes[-1].T
    axes.append(torch.eye(x.shape[-1], dtype=x.dtype, device=x.device))
    sliced = sharing_copy(model)
    inner = sliced.model
    inner.layers = nn.ModuleList(
        SlicedLayer(layer, axes[2 * i : 2 * i + 3])
        for i, layer in enumerate(core.layers)
    )
    inner.embed_tokens = nn.Sequential(core.embed_tokens, _linear(axes[0].T))
    return sliced
