"""Bandit policies played on a stream, beside the certified optimum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunefair.messages import checked_whole, named, shown
from prunefair.pipelines._arguments import check_names

POLICY_KEYS = ("utility", "jain", "regret", "c_regret", "reward_sum")


@dataclass(frozen=True, kw_only=True)
class PlayReport:
    """What policies earned on a stream, beside the certified optimum.

    Attributes
    ----------
    stream : RewardStream or BlockStream
        What was played.
    alpha : float
        Fairness parameter.
    feedback : {"full", "bandit"}
    optimum : OfflineOptimum
        The best fixed map in hindsight.
    results : dict of str to PolicyResult
        What each policy earned.
    """

    stream: Any
    alpha: float
    feedback: str
    optimum: Any
    results: dict[str, Any]

    def summary(self, *, timings: bool = False) -> dict[str, Any]:
        """What JSON can hold of the report, for a file or a terminal.

        Parameters
        ----------
        timings : bool
            Also give speeds, which differ each time.
        """
        keys = POLICY_KEYS + (("rounds_per_second",) if timings else ())
        return {
            "alpha": self.alpha,
            "feedback": self.feedback,
            "T": self.stream.n_rounds,
            "M": self.stream.n_contexts,
            "N": self.stream.n_arms,
            "offline_utility": self.optimum.utility,
            "certificate_gap": self.optimum.gap,
            "policies": {
                name: {key: getattr(result, key) for key in keys}
                for name, result in self.results.items()
            },
        }


def play(
    stream,
    policies: Sequence[str] | None = None,
    *,
    alpha: float = 0.9,
    feedback: str = "full",
    rounds: int | None = None,
    seed: int = 0,
) -> PlayReport:
    """Play bandit policies on a stream and compare them with the certified optimum.

    Parameters
    ----------
    stream : RewardStream or BlockStream
        Contexts and rewards, such as those of
        `prunefair.fairness.ratings.movielens_stream`, or of
        `prunefair.fairness.rating_blocks.movielens_blocks` where no memory holds them.
    policies : sequence of str, optional
        Names in `prunefair.fairness.baselines.POLICIES[feedback]`; all by default.
    alpha : float
        Fairness: 0 gives the sum, 1 proportional fairness.
    feedback : {"full", "bandit"}
        Whether a policy is told the rewards of all arms, or of the one it played.
    rounds : int, optional
        Only the first so many.
    seed : int
        Of the draws under bandit feedback.

    Returns
    -------
    report : PlayReport

    Raises
    ------
    ValueError
        If a policy is unknown or needs the other feedback, `alpha` is out of range, or
        the stream has fewer rounds.

    Examples
    --------
    >>> from prunefair.pipelines import play
    >>> from prunefair.fairness.simulation import RewardStream
    >>> stream = RewardStream(
    ...     contexts=[0, 1] * 50, rewards=[[0.2, 0.8], [0.6, 0.4]] * 50, n_contexts=2
    ... )
    >>> report = play(stream, ["alpha_fair", "hedge"], alpha=0.5)
    >>> {name: round(r.utility, 1) for name, r in report.results.items()}
    {'alpha_fair': 23.8, 'hedge': 19.6}
    """
    from prunefair.fairness.movielens import compare_policies
    from prunefair.fairness.offline_optimum import offline_optimum_of
    from prunefair.fairness.policy import check_alpha
    from prunefair.fairness.rating_blocks import BlockStream

    names = policy_names(policies, feedback)
    seed = checked_whole("seed", seed, 0, 2**64)
    alpha = check_alpha(alpha)
    if rounds is not None:
        rounds = checked_whole("rounds", rounds, 1)
        if rounds > stream.n_rounds:
            raise ValueError(
                f"{named('rounds')} is {rounds}; the data has {stream.n_rounds} "
                "rounds, give at most so many or leave it out"
            )
        stream = stream.first(rounds)
    blocks = isinstance(stream, BlockStream)
    optimum = stream.optimum(alpha) if blocks else offline_optimum_of(stream, alpha)
    results = compare_policies(
        stream, names, alpha, seed=seed, feedback=feedback, optimum=optimum
    )
    return PlayReport(
        stream=stream, alpha=alpha, feedback=feedback, optimum=optimum, results=results
    )


def policy_names(policies: Sequence[str] | None, feedback: str) -> list[str]:
    """The policies that are named, or all with this feedback.

    Parameters
    ----------
    policies : sequence of str or None
    feedback : {"full", "bandit"}

    Returns
    -------
    names : list of str

    Raises
    ------
    ValueError
        If a policy is unknown or needs the other feedback.
    """
    from prunefair.fairness.baselines import POLICIES

    if feedback not in ("full", "bandit"):
        raise ValueError(
            f"{named('feedback')} is {shown(feedback)}; give {' or '.join(POLICIES)}"
        )
    known = tuple(POLICIES[feedback])
    other = "bandit" if feedback == "full" else "full"
    names = policies if isinstance(policies, str | bytes) else list(policies or known)
    for name in names if isinstance(names, list) else ():
        if name in POLICIES[other] and name not in known:
            raise ValueError(
                f"{named('policies')} names {name!r}, which needs "
                f"{named('feedback', other)}; with {feedback} feedback choose among "
                + ", ".join(known)
            )
    return check_names(names, known, "policies")
