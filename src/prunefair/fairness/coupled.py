r"""The coupled policy over any learner: contexts may be vectors, texts, rows of a table.

The reduction ({eq}`eq-full-information-reduction`) holds for every sequence of plays,
so a learner that is fed *gains*, rewards times $w_i=R_i^{-\alpha}$, makes a fair policy
whoever wrote it: on every path and against every map from contexts to arms, the
$c_\alpha$-regret is at most $(1-\alpha)^\alpha$ times what the learner's gains lack,
less $\frac{N\alpha}{1-\alpha}$.  What the learner promises is its own affair.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import numpy as np

from prunefair.fairness.policy import (
    Draw,
    arms_of,
    arrays_of_file,
    check_arms,
    check_context,
    check_count,
    check_generator,
    check_mask,
    check_n_arms,
    check_policy_alpha,
    check_probability,
    check_real,
    check_reward,
    checked_rounds,
    decode_key,
    encode_key,
    masked_play,
    opened_file,
    unknown_arm,
)
from prunefair.messages import checked_path, shown
from prunefair.outputs import check_new_file, whole_file


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

    Arms come and go if the learner has `add_arm()`, a new arm after its last, and
    `retire_arm(place)`.  All is saved if it has `arrays()`, its state as a dict of
    arrays, and `resume(arrays)`, which takes it up.  `RidgeLearner` has them all.

    Parameters
    ----------
    learner, n_arms, alpha
        As for `coupled`.

    Attributes
    ----------
    arms : tuple
        Names of the arms.
    retired : frozenset
        Names of the arms that there were; no name is given twice.  `update` and
        `update_many` refuse what comes for them late; drop a reward whose arm is
        `in policy.retired`.
    rewards : ndarray, shape (N,), float64
        Cumulative rewards $R_i(t)$, reward units; $R_i(0) = 1$.
    """

    def __init__(
        self, learner: GainLearner, n_arms: int | Sequence[Hashable], alpha: float
    ):
        self.arms = arms_of(n_arms)
        self.learner, self.alpha = learner, check_policy_alpha(alpha)
        self.n_arms, self.rewards = len(self.arms), np.ones(len(self.arms))
        self.retired: frozenset[Hashable] = frozenset()

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

        Parameters
        ----------
        context : object
            What the learner reads.
        arm : int or name
            The arm that was drawn, by its name.
        reward, probability : float
            Its reward in [0, 1], reward units, and with which it was drawn.

        Raises
        ------
        ValueError
            If there is no such arm or it was retired, or `reward` or `probability` is
            out of range; nothing is learned then.
        """
        self._learn(context, *self._checked(arm, reward, probability))

    def update_many(self, contexts, arms, rewards, *, probabilities) -> None:
        """Tell the learner several rounds in their order, as `update` one by one would.

        All rounds are checked before the first is told.  If the learner itself refuses
        a context, those before are learned: it is not ours to undo.

        Parameters
        ----------
        contexts, arms : sequence, length T
            Context and arm of each round; none of the arms is retired.
        rewards, probabilities : array_like, shape (T,)
            Reward of the arm, reward units, and with which it was drawn.

        Raises
        ------
        ValueError
            As `update`, with the number of the round.
        """
        columns = {"contexts": list(contexts), "arms": arms, "rewards": rewards}
        columns["probabilities"] = probabilities

        def check(context, *feedback):
            return context, *self._checked(*feedback)

        for feedback in checked_rounds(check, columns):
            self._learn(*feedback)

    def _checked(self, arm, reward, probability) -> tuple[int, float, float]:
        place = self._place(arm)
        return place, check_reward(reward), check_probability(probability)

    def _place(self, arm: Hashable) -> int:
        try:
            return self.arms.index(check_context(arm))
        except (TypeError, ValueError):
            raise unknown_arm(arm, self.arms, self.retired) from None

    def _learn(self, context, place: int, reward: float, p: float) -> None:
        weight = self.rewards[place] ** -self.alpha
        self.learner.update(
            context, place, float(reward * weight), probability=p, weight=float(weight)
        )
        self.rewards = self.rewards + reward * (np.arange(self.n_arms) == place)

    def _able(self, *methods: str) -> GainLearner:
        """The learner, or raise if it has not all these methods."""
        lacking = [m for m in methods if not callable(getattr(self.learner, m, None))]
        if lacking:
            raise ValueError(
                f"learner is a {type(self.learner).__name__} without {lacking[0]}; "
                "give it this method, or make a new policy"
            )
        return self.learner

    def add_arm(self, arm: Hashable, *, initial: float = 1.0) -> Hashable:
        r"""Begin a new arm, last in the order, and return its name.

        Parameters
        ----------
        arm : hashable
            Its name, one that no arm has or had.
        initial : float
            $R_i$ to begin with, at least 1 and in reward units.

        Raises
        ------
        ValueError
            If the name is none or was given before, `initial` is below 1, or the
            learner takes no new arm; nothing is changed.
        """
        (key,), learner = check_arms([arm]), self._able("add_arm")
        if key in self.arms or key in self.retired:
            raise ValueError(
                f"arm is {shown(arm)}, which is or was one; take a new name"
            )
        start = check_real(
            initial, "initial", lambda c: 1 <= c < np.inf, "be at least 1, finite"
        )
        learner.add_arm()
        self.arms, self.n_arms = (*self.arms, key), self.n_arms + 1
        self.rewards = np.append(self.rewards, start)
        return key

    def retire_arm(self, arm: Hashable) -> None:
        """End an arm, whose name then stands in `retired`.

        Rewards that come for it later are refused; drop them.

        Raises
        ------
        ValueError
            If there is no such arm, or no other, or the learner gives none away;
            nothing is changed then.
        """
        place = self._place(arm)
        if self.n_arms == 1:
            raise ValueError(f"arm is {shown(arm)}, the only one; add one before")
        learner = self._able("retire_arm")
        learner.retire_arm(place)
        self.retired |= {self.arms[place]}
        self.arms = (*self.arms[:place], *self.arms[place + 1 :])
        self.n_arms, self.rewards = self.n_arms - 1, np.delete(self.rewards, place)

    def save(self, path) -> None:
        """Write all state to one npz file, which `resume` reads.

        Raises
        ------
        ValueError
            If the learner has no `arrays`, or `path` is no new file.
        """
        learner = self._able("arrays", "resume")
        check_new_file(path)
        arms, gone = ([encode_key(a) for a in part] for part in self._names())
        header = {"arms": arms, "retired": gone, "alpha": self.alpha}
        header["learner"] = type(learner).__name__
        arrays = {f"learner.{k}": v for k, v in learner.arrays().items()}
        arrays |= {"header": np.array(json.dumps(header)), "rewards": self.rewards}
        with whole_file(path) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)

    def resume(self, path) -> None:
        """Take up what `save` wrote; the learner is of the same kind and settings.

        Raises
        ------
        ValueError
            If `path` holds nothing that fits; nothing is changed then.
        OSError
            If it cannot be read.
        """
        learner, path = self._able("arrays", "resume"), checked_path(path)
        with opened_file(path) as file:
            try:
                arrays = arrays_of_file(file)
                header = json.loads(str(arrays.pop("header")))
                rewards = arrays.pop("rewards")
                arms = check_arms(decode_key(value) for value in header["arms"])
                fits = header["alpha"] == self.alpha and rewards.shape == (len(arms),)
                if not fits or header["learner"] != type(learner).__name__:
                    raise ValueError("another alpha or another kind of learner")
                learner.resume(
                    {k.removeprefix("learner."): v for k, v in arrays.items()}
                )
            except Exception as error:
                reason = shown(str(error), 120).strip("\"'")
                raise ValueError(
                    f"path is {shown(path)}, which does not fit this policy ({reason}); "
                    "give a file that its `save` wrote"
                ) from error
        self.arms, self.n_arms, self.rewards = arms, len(arms), rewards
        self.retired = frozenset(decode_key(value) for value in header["retired"])

    def _names(self) -> tuple:
        return self.arms, sorted(self.retired, key=repr)


def coupled(
    learner: GainLearner, n_arms: int | Sequence[Hashable], alpha: float
) -> Coupled:
    r"""The $\alpha$-fair policy over a learner of any kind.

    Parameters
    ----------
    learner : GainLearner
        Predicts a distribution from a context, and learns from gains.
    n_arms : int or sequence of names
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

    def add_arm(self) -> None:
        """One arm more, of which nothing is known."""
        d = self.sums.shape[1]
        self.inverses = np.concatenate([self.inverses, np.eye(d)[None]])
        self.sums = np.concatenate([self.sums, np.zeros((1, d))])

    def retire_arm(self, place: int) -> None:
        """Forget an arm; those after it move up."""
        self.inverses = np.delete(self.inverses, place, axis=0)
        self.sums = np.delete(self.sums, place, axis=0)

    def arrays(self) -> dict[str, np.ndarray]:
        """All state."""
        return {"inverses": self.inverses, "sums": self.sums}

    def resume(self, arrays: dict[str, np.ndarray]) -> None:
        """Take up the state of a learner with as many features.

        Raises
        ------
        ValueError
            If it has another shape or is not finite.
        """
        d, n = self.sums.shape[1], len(arrays["sums"])
        wanted = {"inverses": (n, d, d), "sums": (n, d)}
        if {k: v.shape for k, v in arrays.items()} != wanted:
            raise ValueError(f"inverses and sums must be of {n} arms and {d} features")
        if not all(v.dtype == float and np.isfinite(v).all() for v in arrays.values()):
            raise ValueError("inverses and sums must be finite floats")
        self.inverses, self.sums = (arrays[k].copy() for k in wanted)

    def _features(self, context) -> np.ndarray:
        """Features as an array of shape (d,), or raise."""
        return check_features(context, self.sums.shape[1])


def check_features(context, n_features: int) -> np.ndarray:
    """Return `context` as float64 of shape (d,), or raise if it is no such vector."""
    try:
        x = np.asarray(context)
        fits = x.dtype.kind in "fiub" and x.shape == (n_features,)
    except ValueError:  # ragged
        fits = False
    if not (fits and (np.abs(x) <= 1e100).all()):
        raise ValueError(
            f"context is {shown(context)}; it must be {n_features} finite numbers, none "
            "of them beyond 1e100"
        )
    return x.astype(np.float64)


class KernelLearner(RidgeLearner):
    r"""Rewards smooth in features: `RidgeLearner` on random features of a kernel.

    In the place of $x$ it reads $\sqrt{2/n}\cos(\langle\omega_k,x\rangle+b_k)$,
    $k=1,\dots,n$, with $\omega_k$ normal and $b_k$ uniform.  The mean of an inner
    product of two such vectors is the Gaussian kernel $e^{-\|x-y\|^2/(2s^2)}$.

    Parameters
    ----------
    n_arms, n_features : int
        Numbers of arms and of features that a context has.
    rng : numpy.random.Generator
        Draws the random features, once.
    scale : float
        $s$, in units of the features: contexts much nearer than that are alike.
    size : int
        Number of random features, $n$; memory is of the order $N n^2$.
    width, explore : float
        As for `RidgeLearner`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    {cite}`rahimi2007random`.
    """

    def __init__(
        self,
        n_arms: int,
        n_features: int,
        *,
        rng: np.random.Generator,
        scale: float = 1.0,
        size: int = 100,
        width: float = 0.5,
        explore: float = 0.05,
    ):
        n, d = check_count(size, "size"), check_count(n_features, "n_features")
        s = check_real(
            scale, "scale", lambda s: 0 < s < np.inf, "be positive and finite"
        )
        super().__init__(n_arms, n, width=width, explore=explore)
        self.frequencies = check_generator(rng).normal(size=(n, d)) / s
        self.phases = rng.uniform(0, 2 * np.pi, n)

    def arrays(self) -> dict[str, np.ndarray]:
        """All state, the random features as well."""
        own = {"frequencies": self.frequencies, "phases": self.phases}
        return super().arrays() | own

    def resume(self, arrays: dict[str, np.ndarray]) -> None:
        """Take up the state of a learner of as many features, and its random ones.

        Raises
        ------
        ValueError
            If it has another shape or is not finite.
        """
        own = {k: arrays.get(k) for k in ("frequencies", "phases")}
        for name, value in own.items():
            mine = getattr(self, name)
            if not (
                isinstance(value, np.ndarray)
                and (value.shape, value.dtype) == (mine.shape, mine.dtype)
                and np.isfinite(value).all()
            ):
                raise ValueError(f"{name} must be {mine.shape} finite floats")
        super().resume({k: v for k, v in arrays.items() if k not in own})
        self.frequencies, self.phases = (own[k].copy() for k in own)

    def _features(self, context) -> np.ndarray:
        """Random features of a context, shape (n,), or raise."""
        x = check_features(context, self.frequencies.shape[1])
        return (2 / len(self.phases)) ** 0.5 * np.cos(
            self.frequencies @ x + self.phases
        )


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
        self.build = build
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

    def add_arm(self) -> None:
        """One arm more, with a regressor of its own."""
        self.regressors.append(self.build())
        self.drawn = np.append(self.drawn, False)

    def retire_arm(self, place: int) -> None:
        """Forget an arm; those after it move up."""
        del self.regressors[place]
        self.drawn = np.delete(self.drawn, place)
