"""The coupled policies for slates: k of N arms are chosen in each round."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np

from prunefair.fairness.bandit_feedback import LogBarrierBandit, LogBarrierState
from prunefair.fairness.fast.compiled import slate_barrier_step, slate_gradient_step
from prunefair.fairness.full_information import AlphaFairGradient, surrogate_weights
from prunefair.fairness.online_gradient import AdaptiveState
from prunefair.fairness.policy import (
    NEVER,
    Policy,
    check_context,
    check_generator,
    check_mask,
    check_probability,
    check_reward,
    check_slate,
)
from prunefair.fairness.slates import (
    capped_projection,
    drawn_slate,
    slate_barrier_point,
    systematic_slate,
)
from prunefair.messages import shown


class SlateDraw(NamedTuple):
    """Names of the arms that were drawn, and the probability with which each was.

    Attributes
    ----------
    arms : tuple, length k
        In the order of the policy's `arms`.
    probabilities : ndarray, shape (k,), float64
        In the same order.
    """

    arms: tuple
    probabilities: np.ndarray


def _each(values, name: str, check: Callable) -> list:
    """What `check` makes of every entry, one for each arm of a slate, or raise.

    Parameters
    ----------
    values : sequence or array_like, shape (k,)
        What the caller was given.
    name : str
        Its name.
    check : callable
        Takes an entry, and returns it checked.
    """
    if type(values) not in (list, tuple):
        listed = isinstance(values, Iterable) and getattr(values, "shape", True) != ()
        if not listed or isinstance(values, str | bytes | Mapping | Set):
            raise ValueError(
                f"{name} is {shown(values)}; give a list with an entry for each arm"
            )
        values = values.tolist() if isinstance(values, np.ndarray) else list(values)
    try:
        return [check(value) for value in values]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {shown(values)}, where {error}") from error


class SlatePolicy(Policy):
    """What policies for slates share: play is a point of the capped simplex.

    Attributes
    ----------
    slate : int
        Number of arms chosen in each round, $k$.
    """

    def retire_arm(self, arm: Hashable) -> None:
        """End an arm, as every policy does; a slate of the others must be left.

        Parameters
        ----------
        arm : hashable
            Its name.

        Raises
        ------
        ValueError
            If there is no such arm, or no slate without it; nothing is changed then.
        """
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
            Whether each arm may be played now; at least `slate` of them.  Such a round
            is told to `update` with what was played, `played` or `probabilities`.

        Returns
        -------
        x : ndarray, shape (N,), float64
            Entries in [0, 1] whose sum is `slate`, 0 where an arm may not be played.

        Raises
        ------
        TypeError, ValueError
            If `context` is none, or `mask` leaves no slate.
        """
        if mask is None:
            return super().probabilities(context)
        context, allowed = check_context(context), check_mask(mask, self.n_arms)
        self._asked = False
        if allowed.sum() < self.slate:
            raise ValueError(
                f"mask is {shown(mask)}; it must leave at least {self.slate} arms, the "
                "size of a slate"
            )
        x = np.array(self.play(context))
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
            Whether each arm may be played now; at least `slate` of them.

        Returns
        -------
        draw : SlateDraw

        Raises
        ------
        TypeError, ValueError
            As `probabilities`, or if `rng` is no generator.
        """
        check_generator(rng)
        with self._lock:  # so that the names are those of the probabilities
            x, arms = self.probabilities(context, mask=mask), self.arms
        places = np.sort(drawn_slate(x, rng=rng))
        return SlateDraw(tuple(arms[i] for i in places), x[places])

    def _loaded(self, name: str, values: np.ndarray, like: np.ndarray) -> np.ndarray:
        if name != "point":
            return super()._loaded(name, values, like)
        super()._loaded(name, values / self.slate, like)
        if values.max(initial=0) > 1:
            raise ValueError(f"{name} has an entry out of range")
        return values.astype(np.float64)


class SlateGradient(SlatePolicy, AlphaFairGradient):
    r"""The coupled policy that chooses $k$ arms in each round.

    Parameters
    ----------
    n_arms : int or sequence of names
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

    def __init__(self, n_arms: int | Sequence[Hashable], alpha: float, slate: int):
        super().__init__(n_arms, alpha)
        self.slate = check_slate(slate, self.n_arms)

    def initial(self) -> AdaptiveState:
        return AdaptiveState(np.full(self.n_arms, self.slate / self.n_arms), 0.0)

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        g, state = surrogate_weights(self.rewards, self.alpha) * rewards, self.learner
        self.learners[context] = slate_gradient_step(state(context), g, self.slate)

    def rearranged(self, state, places, rewards):
        """New arms have probability 0; what is free is shared."""
        state = Policy.rearranged(self, state, places, rewards)
        if state.point.sum() > self.slate - 1e-12:
            return state
        return state._replace(point=capped_projection(state.point, self.slate))


class SlateBandit(SlatePolicy, LogBarrierBandit):
    r"""Chooses $k$ arms in each round and sees the rewards of these alone.

    Parameters
    ----------
    n_arms : int or sequence of names
        Number of arms $N$, or their names.
    alpha : float
        Fairness parameter in [0, 1]; the theorem is for [0, 1).
    slate : int
        Number of arms chosen in each round, $k$, from 1 to $N$.
    horizon : float
        Number of rounds $T \ge 2$ that the rate is made for; more may be played.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Book {eq}`eq-slates-shown`, {prf:ref}`thm-slates-shown`.

    Examples
    --------
    >>> import numpy as np
    >>> from prunefair.fairness.slate_policy import SlateBandit
    >>> names = ["news", "sport", "art", "film"]
    >>> policy = SlateBandit(names, alpha=0.5, slate=2, horizon=1000)
    >>> draw = policy.draw("evening", np.random.default_rng(0))
    >>> draw.arms
    ('sport', 'art')
    >>> policy.update("evening", rewards=[1.0, 0.0], **draw._asdict())
    >>> policy.rewards
    array([1., 2., 1., 1.])
    """

    told = "probabilities"

    def __init__(
        self,
        n_arms: int | Sequence[Hashable],
        alpha: float,
        slate: int,
        *,
        horizon: float,
    ):
        super().__init__(n_arms, alpha, horizon=horizon)
        self.slate = check_slate(slate, self.n_arms)

    def initial(self) -> LogBarrierState:
        state = super().initial()
        return state._replace(point=np.full(self.n_arms, self.slate / self.n_arms))

    def drawn(self, p: np.ndarray, u: float) -> tuple[tuple, np.ndarray]:
        """Names and places under the comb that begins at `u`, in the arms' order."""
        places = np.unique(systematic_slate(p, u))
        return tuple(self.arms[i] for i in places), places

    def update(self, context, arms, rewards, *, probabilities=None) -> None:
        """Learn from the rewards of the arms that were shown in `context`.

        Parameters
        ----------
        context : hashable
            The context $j_t$, as `check_context` says.
        arms : sequence of int or names, length k
            The arms that were shown, by their names, all different; fewer than `slate`
            where only some of them are answered for, or some were retired since.
        rewards : array_like, shape (k,)
            Their rewards in [0, 1], reward units, in this order.
        probabilities : array_like, shape (k,), optional
            With which each was drawn, as `draw` returned them.  Give them for rewards
            that come late: the default are those of now, which are the same only if no
            update came between and no arm was masked.

        Raises
        ------
        ValueError
            If an arm is unknown, retired or twice there, a reward is outside [0, 1], a
            probability outside [1e-9, 1], or there are more or fewer of one than of
            the others; the state is unchanged then.
        TypeError
            If `context` is none.
        """
        with self._lock:
            self._learn(*self._checked(context, arms, rewards, probabilities))

    def update_many(self, contexts, arms, rewards, *, probabilities=None) -> None:
        """Learn from several rounds in their order, as `update` one by one would.

        Parameters
        ----------
        contexts : sequence, length T
            Context of each round.
        arms, rewards : sequence of sequences, length T
            The arms that were shown in each round, and their rewards.
        probabilities : sequence of array_like, length T, optional
            With which each arm was drawn, as for `update`.

        Raises
        ------
        TypeError, ValueError
            As `update`, with the number of the round; the state is unchanged then.
        """
        super().update_many(contexts, arms, rewards, probabilities=probabilities)

    def _checked(self, context: Hashable, arms, rewards, probabilities) -> tuple:
        key, places = check_context(context), _each(arms, "arms", self._place)
        r = _each(rewards, "rewards", check_reward)
        if not 0 < len(set(places)) == len(places) == len(r) <= self.slate:
            raise ValueError(
                f"arms is {shown(arms)} and rewards {shown(rewards)}; give at most "
                f"{self.slate} different arms, and a reward for each"
            )
        places, r = np.array(places), np.array(r)
        if probabilities is None:
            return key, places, r, None
        p = np.array(_each(probabilities, "probabilities", check_probability))
        if len(p) != len(places):
            raise ValueError(
                f"probabilities is {shown(probabilities)}; give one for each of the "
                f"{len(places)} arms"
            )
        return key, places, r, p

    def _learn(self, context, places: np.ndarray, r: np.ndarray, p) -> None:
        p = self._play_now(context)[places] if p is None else p
        if p.min() < NEVER:
            raise ValueError(
                f"arms has {shown(self.arms[places[p.argmin()]])}, which is all but "
                "never drawn now; give `probabilities`, those of the draw"
            )
        self.step(context, places, r, p)
        earned = self.rewards.copy()
        earned[places] += r
        self.rewards = earned
        self._updated(context)

    def step(self, context, arm: np.ndarray, reward: np.ndarray, probability) -> None:
        state = self.learner(context)
        estimates = -reward * self.rewards[arm] ** -self.alpha / probability
        rates = (self.barrier, self.cap * self.barrier * state.scale)
        self.learners[context] = slate_barrier_step(
            state, arm, estimates, rates, self.slate
        )

    def rearranged(self, state, places, rewards):
        """A new arm is one that was there and paid nothing."""
        state = super().rearranged(state, places, rewards)
        rate = self.log_horizon * places.size
        rate /= self.cap * rate * state.scale + state.penalties
        point = slate_barrier_point(rate * state.estimates, self.slate)
        return state._replace(point=point)

    def begun(self, x: np.ndarray, gradients: np.ndarray) -> LogBarrierState:
        """A learner that begins near the inclusion probabilities `x` of a log."""
        state, n = self.initial(), len(gradients)
        p = (n * x + state.point) / (n + 1)  # below 1, and positive
        start = self.cap * self.barrier * state.scale
        estimates = (1 / p - 1 / p.min()) * start / self.barrier
        return state._replace(point=p, estimates=estimates)
