"""Uniform play, the least that a policy has to beat."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np

from prunefair.fairness.policy import BanditPolicy, FullInformationPolicy


class NoState(NamedTuple):
    """State of a learner that learns nothing."""


class _Even:
    """What both forms share: play is uniform."""

    def initial(self) -> NoState:
        return NoState()

    def play(self, context: Hashable) -> np.ndarray:
        return np.full(self.n_arms, 1 / self.n_arms)


class Uniform(_Even, FullInformationPolicy):
    """Every arm with the same probability, whatever happens.

    Parameters
    ----------
    n_arms : int or sequence of names
        Number of arms $N$, or their names.
    """

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        pass


class UniformBandit(_Even, BanditPolicy):
    """Pulls every arm with the same probability, whatever happens.

    Parameters
    ----------
    n_arms : int or sequence of names
        Number of arms $N$, or their names.
    """

    def step(self, context, arm: int, reward: float, probability: float) -> None:
        pass
