# %% [markdown]
r"""
# What the model feels

A feed-forward block adds $D h$ to the residual stream: its hidden vector $h$ times `down_proj`.
"""

# %%
from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from prunefair.pruning.spectrum import row_mask
from prunefair.pruning.surgery import adapter_for

MOMENTS_FORMAT = "prunefair moments 1"


# %%
class Moments(NamedTuple):
    """Moments of the hidden vectors of some blocks, on the CPU."""

    second: list[torch.Tensor]  # each (m, m): mean of h h^T; squared activations
    mean: list[torch.Tensor]  # each (m,): mean of h; activations
    tokens: int  # that the means are over


# %%
@torch.no_grad()
def hidden_moments(
    model,
    tokens: torch.Tensor,
    *,
    layers: Sequence[int] | None = None,
    batch_size: int = 8,
    dtype: torch.dtype = torch.float32,
) -> Moments:
    r"""First and second moment of the hidden vector of every feed-forward block.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family, on any device.
    tokens : Tensor, shape (n, L), int64
        Texts, best sampled by `model` itself.
    layers : sequence of int, optional
        Blocks to measure, counted from 0; all by default.
    batch_size : int
        Texts in one forward pass.
    dtype : torch.dtype
        Precision of the products and sums: float32 or float64.

    Returns
    -------
    moments : Moments
        In `dtype`, one entry for each of `layers`, in their order.

    Raises
    ------
    ValueError
        If `tokens` is not a matrix with a token, a layer does not exist, `dtype` is
        another one, or the family is not supported.

    References
    ----------
    Book {eq}`eq-self-moments-estimate`.
    """
    if tokens.ndim != 2 or not tokens.numel():
        raise ValueError(
            f"tokens has shape {tuple(tokens.shape)}; give texts of shape (n, L)"
        )
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype is {dtype}; give torch.float32 or torch.float64")
    sums = [_HiddenSum(linear, dtype) for linear in _down_projections(model, layers)]
    try:
        for chunk in tqdm(tokens.split(batch_size), "moments"):
            model(chunk.to(model.device), use_cache=False, logits_to_keep=1)
    finally:
        for each in sums:
            each.hook.remove()
    count = tokens.numel()
    second = [each.second.div_(count).cpu() for each in sums]
    return Moments(second, [each.first.div_(count).cpu() for each in sums], count)


# %%
def _down_projections(model, layers=None) -> list[torch.nn.Module]:
    """Linear maps that take the hidden vectors of `layers`, or of all."""
    adapter = adapter_for(model)
    linears = [adapter.linears(block)[-1] for block in adapter.blocks(model)]
    layers = range(len(linears)) if layers is None else layers
    for layer in layers:
        if not 0 <= layer < len(linears):
            raise ValueError(
                f"layers names {layer}; the model has layers 0 to {len(linears) - 1}"
            )
    return [linears[layer] for layer in layers]


# %%
class _HiddenSum:
    """Sums of h and of h h^T over everything that a linear map is given."""

    def __init__(self, linear, dtype: torch.dtype):
        m, device = linear.in_features, linear.weight.device
        self.first = torch.zeros(m, dtype=dtype, device=device)
        self.second = torch.zeros(m, m, dtype=dtype, device=device)
        self.hook = linear.register_forward_pre_hook(self.add)

    def add(self, linear, inputs) -> None:
        """Add the tokens of one forward pass."""
        h = inputs[0].flatten(0, -2).to(self.second.dtype)  # (tokens, m)
        self.first += h.sum(0)
        self.second.addmm_(h.T, h)


# %%
def lost_energy(D: torch.Tensor, H: torch.Tensor, removed) -> torch.Tensor:
    r"""Mean squared error of a block's output without some neurons.

    Parameters
    ----------
    D : Tensor, shape (d, m), any floating type
        `down_proj`; weight units.
    H : Tensor, shape (m, m), any floating type
        Second moment of its input; squared activations.
    removed : Tensor, shape (r,), integer
        Neurons removed, in any order, each once; may be empty.

    Returns
    -------
    energy : Tensor, shape (), float64
        $\operatorname{tr}(D_R H_{RR} D_R^\top)$, on the device of `D`; squared output
        units.  With all neurons removed it is the energy of the output itself.

    Raises
    ------
    ValueError
        If `removed` names a neuron twice or one that is not there.

    References
    ----------
    Book {eq}`eq-self-moments-error`.
    """
    removed = torch.as_tensor(removed)
    if not removed.numel():
        return D.new_zeros((), dtype=torch.float64)
    return _output_moment(D, H, removed).trace()


# %%
def functional_spectrum(D: torch.Tensor, H: torch.Tensor, kept=None) -> torch.Tensor:
    r"""Singular values of $D_S H_{SS}^{1/2}$.

    Parameters
    ----------
    D : Tensor, shape (d, m), any floating type
        `down_proj`; weight units.
    H : Tensor, shape (m, m), any floating type
        Second moment of its input, possibly singular; squared activations.
    kept : Tensor, shape (k,), integer, optional
        Neurons kept, in any order, each once; all by default.

    Returns
    -------
    values : Tensor, shape (min(d, k),), float64
        Descending, not negative, on the device of `D`; output units.

    Raises
    ------
    ValueError
        If `kept` is empty, names a neuron twice or one that is not there.

    References
    ----------
    Book {eq}`eq-self-moments-spectrum`.
    """
    d, m = D.shape
    kept = torch.arange(m) if kept is None else torch.as_tensor(kept)
    squares = torch.linalg.eigvalsh(_output_moment(D, H, kept)).flip(0)
    return squares[: min(d, kept.numel())].clamp(min=0).sqrt()


# %%
def _output_moment(D, H, neurons) -> torch.Tensor:
    """D_S H_SS D_S^T in float64, shape (d, d), for checked neurons S."""
    chosen = row_mask(neurons, D.shape[1]).to(D.device)
    D, H = D.detach()[:, chosen].double(), H.to(D.device)[chosen][:, chosen].double()
    M = D @ H @ D.T
    return (M + M.T) / 2


# %%
def participation_ratio(H: torch.Tensor) -> torch.Tensor:
    r"""Effective number of directions of a positive semidefinite matrix.

    Parameters
    ----------
    H : Tensor, shape (m, m), any floating type
        Symmetric, positive semidefinite, not zero; any unit.

    Returns
    -------
    ratio : Tensor, shape (), float64
        $(\operatorname{tr} H)^2 / \lVert H \rVert_F^2$, from 1 to m; no unit.

    References
    ----------
    Book {eq}`eq-self-moments-participation`.
    """
    H = H.double()
    return H.trace().square() / H.square().sum()


# %%
def save_moments(moments: Moments, path: str | os.PathLike, note=None) -> None:
    """Write moments to a safetensors file that appears only whole.

    Parameters
    ----------
    moments : Moments
    path : str or path
        File to write; an older one is replaced.
    note : dict, optional
        What was measured, such as the name of the model and the seed of the texts;
        anything that JSON can hold.

    Raises
    ------
    TypeError
        If `note` is not what JSON can hold.
    """
    path = Path(path)
    header = {"format": MOMENTS_FORMAT, "tokens": moments.tokens, "note": note or {}}
    header = {"moments": json.dumps(header, sort_keys=True)}  # one key: the same bytes
    tensors = {}
    for layer, (second, mean) in enumerate(zip(*moments[:2], strict=True)):
        tensors[f"{layer:04d}.second"] = second.contiguous()
        tensors[f"{layer:04d}.mean"] = mean.contiguous()
    with tempfile.TemporaryDirectory(prefix=".moments-", dir=path.parent) as partial:
        whole = Path(partial) / path.name
        save_file(tensors, whole, header)
        os.replace(whole, path)


# %%
def load_moments(path: str | os.PathLike) -> tuple[Moments, dict]:
    """Moments and note that `save_moments` wrote.

    Parameters
    ----------
    path : str or path
        File to read.

    Returns
    -------
    moments : Moments
    note : dict

    Raises
    ------
    ValueError
        If the file holds something else.
    FileNotFoundError
        If there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"path is {os.fspath(path)!r}; there is no such file")
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("moments", "{}"))
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except SafetensorError:
        header = {}
    if header.get("format") != MOMENTS_FORMAT:
        raise ValueError(
            f"path is {os.fspath(path)!r}, which holds no moments of this version; "
            "give a file that save_moments wrote"
        )
    second, mean = (
        [tensor for name, tensor in tensors.items() if name.endswith(end)]
        for end in (".second", ".mean")
    )
    return Moments(second, mean, header["tokens"]), header["note"]
