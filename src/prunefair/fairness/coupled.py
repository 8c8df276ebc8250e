r"""The coupled policy over any learner: contexts may be vectors, texts, rows of a table.

The reduction ({eq}`eq-full-information-reduction`) holds for every sequence of plays,
so a learner that is fed *gains*, rewards times $w_i=R_i^{-\alpha}$, makes a fair policy
whoever wrote it: on every path and against every map from contexts to arms, the
$c_\alpha$-regret is at most $(1-\alpha)^\alpha$ times what the learner's gains lack,
less $\frac{N\alpha}{1-\alpha}$.  What the learner promises is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import numpy as np

from prunefair.fairness.policy import (
    Draw,
    check_arms,
    check_count,
    check_generator,
    check_mask,
    check_n_arms,
    check_policy_alpha,
    check_probability,
    check_real,
    check_reward,
    masked_play,
)
from prunefair.messages import shown


class GainLearner(Protocol):
    """What `coupled` asks of a learner; a context is whatever the learner reads."""

    def predict(self, context: Any, weights: np.ndarray) -> np.ndarray:
        """Distribution to draw from, shape (N,).

        Arm $i$ gains its reward times `weights[i]`, a number in (0, 1].  A learner of
        gains leaves the weights unread; one of rewards, which do not change when arms
        grow rich, multiplies by them.
        """

    def update(
        self, context: Any, arm: int, gain: float, *, probability: float, weight: float
    ) -> None:
        """Learn what the drawn arm gained; its reward is `gain / weight`."""


class Coupled:
    r"""A learner made fair: `draw` asks it, `update` tells it what was gained.

    Parameters
    ----------
    learner, n_arms, alpha
        As for `coupled`.

    Attributes
    ----------
    arms : tuple
        Names of the arms.
    rewards : ndarray, shape (N,), float64
        Cumulative rewards $R_i(t)$, reward units; $R_i(0) = 1$.
    """

    def __init__(self, learner: GainLearner, n_arms, alpha: float):
        named = isinstance(n_arms, list | tuple)
        self.arms = check_arms(n_arms) if named else tuple(range(check_n_arms(n_arms)))
        self.learner, self.alpha = learner, check_policy_alpha(alpha)
        self.n_arms, self.rewards = len(self.arms), np.ones(len(self.arms))

    def probabilities(self, context: Any, *, mask=None) -> np.ndarray:
        """What the learner predicts, shape (N,), as `Policy.probabilities`.

        Raises
        ------
        ValueError
            If it is no distribution, or `mask` leaves no arm.
        """
        p = np.array(self.learner.predict(context, self.rewards**-self.alpha))
        fits = p.dtype.kind == "f" and p.shape == (self.n_arms,)
        if not fits or not ((p >= 0).all() and abs(p.sum() - 1) <= 1e-6):
            raise ValueError(
                f"learner predicts {shown(p)}; `predict` must return the probabilities "
                f"of {self.n_arms} arms"
            )
        p = p.astype(np.float64) / p.sum(dtype=np.float64)
        return p if mask is None else masked_play(p, check_mask(mask, self.n_arms))

    def draw(self, context: Any, rng: np.random.Generator, *, mask=None) -> Draw:
        """An arm by its name, and its probability, as `Policy.draw`."""
        p = self.probabilities(context, mask=mask)
        place = int(check_generator(rng).choice(self.n_arms, p=p))
        return Draw(self.arms[place], float(p[place]))

    def update(
        self, context: Any, arm: Hashable, reward: float, *, probability: float
    ) -> None:
        """Tell the learner what the arm gained that `draw` drew.

        Raises
        ------
        ValueError
            If there is no such arm, or `reward` or `probability` is out of range;
            nothing is learned then.
        """
        if arm not in self.arms:
            raise ValueError(f"arm is {shown(arm)}; it must be one of {self.arms}")
        place, reward = self.arms.index(arm), check_reward(reward)
        p, weight = check_probability(probability), self.rewards[place] ** -self.alpha
        self.learner.update(
            context, place, float(reward * weight), probability=p, weight=float(weight)
        )
        self.rewards = self.rewards + reward * (np.arange(self.n_arms) == place)


def coupled(learner: GainLearner, n_arms: int, alpha: float) -> Coupled:
    r"""The $\alpha$-fair policy over a learner of any kind.

    Parameters
    ----------
    learner : GainLearner
        Predicts a distribution from a context, and learns from gains.
    n_arms : int, list or tuple
        Number of arms $N$, or their names.
    alpha : float
        Fairness parameter in [0, 1].

    Returns
    -------
    policy : Coupled

    Raises
    ------
    ValueError
        If `n_arms` or `alpha` is out of range.

    References
    ----------
    Book {eq}`eq-full-information-reduction`.

    Examples
    --------
    >>> import numpy as np
    >>> from prunefair.fairness.coupled import RidgeLearner, coupled
    >>> policy = coupled(RidgeLearner(2, n_features=3), ["news", "sport"], alpha=0.5)
    >>> features, rng = np.array([1.0, 0.2, 0.0]), np.random.default_rng(0)
    >>> arm, probability = policy.draw(features, rng)
    >>> policy.update(features, arm, 1.0, probability=probability)
    >>> float(policy.rewards.sum())
    3.0
    """
    return Coupled(learner, n_arms, alpha)


def explored(scores: np.ndarray, explore: float) -> np.ndarray:
    """The arm with the largest score, mixed with a share of uniform play.

    Parameters
    ----------
    scores : ndarray, shape (N,), float64
    explore : float
        The share of uniform play, in [0, 1].

    Returns
    -------
    p : ndarray, shape (N,), float64

    Raises
    ------
    ValueError
        If a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError(
            f"scores are {shown(scores)}; they must be finite, so scale the features"
        )
    p = np.full(scores.size, explore / scores.size)
    p[scores.argmax()] += 1 - explore
    return p


def check_share(explore: float) -> float:
    """Return `explore` as a float, or raise if it is no share."""
    return check_real(explore, "explore", lambda s: 0 <= s <= 1, "lie in [0, 1]")


class RidgeLearner:
    r"""Rewards linear in features: ridge regression for each arm, and optimism (LinUCB).

    The score of arm $i$ is $w_i\,(\langle\theta_i,x\rangle+\text{width}\cdot
    \sqrt{x^\top A_i^{-1}x})$ with $A_i$ the identity and the squares of the features
    seen with it.

    Parameters
    ----------
    n_arms, n_features : int
        Numbers of arms and of features.
    width : float
        How optimistic, in standard deviations.
    explore : float
        The share of uniform play.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    def __init__(self, n_arms: int, n_features: int, *, width=0.5, explore=0.05):
        n, d = check_n_arms(n_arms), check_count(n_features, "n_features")
        self.width = check_real(width, "width", lambda w: w >= 0, "be at least 0")
        self.explore = check_share(explore)
        self.inverses, self.sums = np.tile(np.eye(d), (n, 1, 1)), np.zeros((n, d))

    def predict(self, context, weights: np.ndarray) -> np.ndarray:
        """Distribution over the arms, shape (N,), for features of shape (d,)."""
        x = self._features(context)
        towards = self.inverses @ x  # (N, d)
        means = (towards * self.sums).sum(1)
        spread = np.sqrt(towards @ x)
        return explored(weights * (means + self.width * spread), self.explore)

    def update(self, context, arm: int, gain: float, *, probability, weight) -> None:
        """Add a round of one arm, by the formula of Sherman and Morrison."""
        x = self._features(context)
        towards = self.inverses[arm] @ x
        self.inverses[arm] -= np.outer(towards, towards) / (1 + x @ towards)
        self.sums[arm] += gain / weight * x

    def _features(self, context) -> np.ndarray:
        """Features as an array of shape (d,), or raise."""
        d = self.sums.shape[1]
        try:
            x = np.asarray(context)
            fits = x.dtype.kind in "fiub" and x.shape == (d,)
        except ValueError:  # ragged
            fits = False
        if not (fits and (np.abs(x) <= 1e100).all()):
            raise ValueError(
                f"context is {shown(context)}; it must be {d} finite numbers, none of "
                "them beyond 1e100"
            )
        return x.astype(np.float64)


class RegressorLearner:
    """Rewards by a regressor for each arm that has `predict` and `partial_fit`.

    Any incremental regressor of scikit-learn will do.  An arm that has not been drawn
    counts as one that pays 1.

    Parameters
    ----------
    build : callable
        Makes the regressor of an arm.
    n_arms : int
        Number of arms $N$.
    explore : float
        The share of uniform play.

    Raises
    ------
    ValueError
        If `n_arms` or `explore` is out of range.
    """

    def __init__(self, build: Callable[[], Any], n_arms: int, *, explore=0.1):
        self.regressors = [build() for _ in range(check_n_arms(n_arms))]
        self.drawn, self.explore = np.zeros(n_arms, bool), check_share(explore)

    def predict(self, context, weights: np.ndarray) -> np.ndarray:
        """Distribution over the arms, shape (N,), for features of shape (d,)."""
        rewards = [
            float(regressor.predict([context])[0]) if drawn else 1.0
            for regressor, drawn in zip(self.regressors, self.drawn)
        ]
        return explored(weights * np.clip(rewards, 0, 1), self.explore)

    def update(self, context, arm: int, gain: float, *, probability, weight) -> None:
        """Fit the regressor of the arm to one more round."""
        self.regressors[arm].partial_fit([context], [gain / weight])
        self.drawn[arm] = True
