"""The training recipe of PruneNet's public code, restated to be measured.

It shares the scorer of the chapter on row policies and the arguments of `train_policy`;
the chapter on the policy gradient shows why it does not come down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm

from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.policy_gradient import TrainedPolicy, check_training, discounts
from prunefair.pruning.row_policy import ReleasedScorer, released_keep_probabilities
from prunefair.pruning.spectrum import ks_distance


def released_spectrum(W: torch.Tensor) -> torch.Tensor:
    """Singular values of `W`, descending, from a whole decomposition in float32."""
    return torch.linalg.svd(W.float(), full_matrices=False)[1]


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
    matrices, history = [W.detach() for W in matrices], []
    m, n = matrices[0].shape
    scorer = scorer or ReleasedScorer(n, m, generator=generator)
    k = rows_to_keep(m, ratio)
    references = [spectrum(W) for W in matrices]
    optimiser = torch.optim.AdamW(scorer.parameters(), lr=learning_rate)
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
            loss = released_loss(scorer.scores(W), rows, reward, generator=generator)
            _released_step_(scorer, optimiser, loss)
    return TrainedPolicy(scorer, history)


def _released_step_(scorer: ReleasedScorer, optimiser, loss: torch.Tensor) -> None:
    """One step, but none if a gradient is not finite, as by the released scaler."""
    loss.backward()
    if all(p.grad.isfinite().all() for p in scorer.parameters()):
        optimiser.step()
