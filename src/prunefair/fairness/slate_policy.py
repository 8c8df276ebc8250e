"""The coupled policy for slates: k of N arms are chosen in each round."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from prunefair.fairness.full_information import AlphaFairGradient, surrogate_weights
from prunefair.fairness.online_gradient import AdaptiveState
from prunefair.fairness.policy import Policy, array_of, check_generator, check_mask
from prunefair.fairness.slates import (
    capped_projection,
    check_slate,
    drawn_slate,
    slate_step,
)
from prunefair.messages import shown


class SlateDraw(NamedTuple):
    """Names of the arms that were drawn, and the probability with which each was."""

    arms: tuple
    probabilities: np.ndarray


class SlateGradient(AlphaFairGradient):
    r"""The coupled policy that chooses $k$ arms in each round.

    Parameters
    ----------
    n_arms : int or sequence
        Number of arms $N$, or their names.
    alpha : float
        Fairness parameter in [0, 1]; the theorems are for [0, 1).
    slate : int
        Number of arms chosen in each round, $k$, from 1 to $N$.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Book {eq}`eq-slates-step`, {prf:ref}`thm-slates-fair`.

    Examples
    --------
    >>> import numpy as np
    >>> from prunefair.fairness.slate_policy import SlateGradient
    >>> policy = SlateGradient(["news", "sport", "art", "film"], alpha=0.5, slate=2)
    >>> policy.update("evening", [1.0, 0.0, 0.0, 1.0])
    >>> policy.probabilities("evening")
    array([1., 0., 0., 1.])
    >>> policy.draw("evening", np.random.default_rng(0)).arms
    ('news', 'film')
    """

    begun = None

    def __init__(self, n_arms: int, alpha: float, slate: int):
        super().__init__(n_arms, alpha)
        self.slate = check_slate(slate, self.n_arms)

    def config(self) -> dict[str, Any]:
        return {"n_arms": self.n_arms, "alpha": self.alpha, "slate": self.slate}

    def initial(self) -> AdaptiveState:
        return AdaptiveState(np.full(self.n_arms, self.slate / self.n_arms), 0.0)

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        g = surrogate_weights(self.rewards, self.alpha) * rewards
        self.learners[context] = slate_step(self.learner(context), g, self.slate)

    def rearranged(self, state, places, rewards):
        """New arms have probability 0; what is free is shared."""
        state = Policy.rearranged(self, state, places, rewards)
        if state.point.sum() > self.slate - 1e-12:
            return state
        return state._replace(point=capped_projection(state.point, self.slate))

    def retire_arm(self, arm: Hashable) -> None:
        """End an arm, as every policy does; a slate of the others must be left."""
        if self._place(arm) >= 0 and self.n_arms == self.slate:
            raise ValueError(
                f"arm is {shown(arm)}, one of {self.slate} for a slate of {self.slate}; "
                "add an arm before"
            )
        super().retire_arm(arm)

    def probabilities(self, context: Hashable, *, mask=None) -> np.ndarray:
        """Inclusion probability of each arm, shape (N,); changes no state.

        Parameters
        ----------
        context : hashable
            As `check_context` says.
        mask : array_like of bool, shape (N,), optional
            Whether each arm may be played now; at least `slate` of them.
        """
        x = super().probabilities(context)
        if mask is None:
            return x
        allowed = check_mask(mask, self.n_arms)
        if allowed.sum() < self.slate:
            raise ValueError(
                f"mask is {shown(mask)}; it must leave at least {self.slate} arms, the "
                "size of a slate"
            )
        x[~allowed] = 0
        x[allowed] = capped_projection(x[allowed], self.slate)
        return x

    def draw(self, context: Hashable, rng: np.random.Generator, *, mask=None):
        """A slate drawn with `probabilities`, as `SlateDraw`; changes no state.

        Parameters
        ----------
        context : hashable
            As `check_context` says.
        rng : numpy.random.Generator
            Gives an order of the arms and one uniform number.
        mask : array_like of bool, shape (N,), optional
            Whether each arm may be played now.
        """
        check_generator(rng)
        with self._lock:  # so that the names are those of the probabilities
            x, arms = self.probabilities(context, mask=mask), self.arms
        places = np.sort(drawn_slate(x, rng=rng))
        return SlateDraw(tuple(arms[i] for i in places), x[places])

    def _checked(self, context: Hashable, rewards, played) -> tuple:
        context, r, _ = super()._checked(context, rewards, None)
        if played is None:
            return context, r, None
        x = array_of(played)
        fits = x.dtype.kind in "biuf" and x.shape == (self.n_arms,)
        if not fits or not (
            (x >= 0).all() and (x <= 1).all() and abs(x.sum() - self.slate) <= 1e-6
        ):
            raise ValueError(
                f"played is {shown(played)}; it must hold {self.n_arms} inclusion "
                f"probabilities whose sum is {self.slate}, as `probabilities` returned "
                "them"
            )
        return context, r, x.astype(np.float64)

    def _loaded(self, name: str, values: np.ndarray, like: np.ndarray) -> np.ndarray:
        if name != "point":
            return super()._loaded(name, values, like)
        super()._loaded(name, values / self.slate, like)
        if values.max(initial=0) > 1:
            raise ValueError(f"{name} has an entry out of range")
        return values.astype(np.float64)
