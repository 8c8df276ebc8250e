# %% [markdown]
r"""
# Recut: which verdicts stand on other streams

One choice of users, one order of rounds: all that [MovieLens](movielens.ipynb) and [MovieLens figures](movielens_figures.ipynb) say was seen on a single stream.
"""

# %%
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from prunefair.fairness.bandit_feedback import (
    LogBarrierBandit,
    ScaleFreeBandit,
    bandit_bound,
    mean_interval,
)
from prunefair.fairness.baselines import (
    ContextFreeGradient,
    FairCB,
    FullInformationFairCB,
    Hedge,
    IndependentGradient,
)
from prunefair.fairness.fast.compiled import run_fast
from prunefair.fairness.full_information import AlphaFairGradient, approximation_factor

# %%
from prunefair.fairness.movielens import RewardFedBandit, price_bound
from prunefair.fairness.movielens_figures import fair_rivals
from prunefair.fairness.offline_optimum import (
    inner_product_benchmark,
    offline_optimum_of,
    optimum_over_time,
    reward_sums,
)
from prunefair.fairness.policy import Policy
from prunefair.fairness.ratings import (
    Ratings,
    half_years,
    movielens_stream,
    random_groups,
    random_users,
    shuffled,
    users_with,
)
from prunefair.fairness.simulation import RewardStream, checkpoints, simulate
from prunefair.fairness.uniform import Uniform, UniformBandit
from prunefair.fairness.utility import alpha_fair_utility, jain_index

# %%
ALPHAS = (0.0, 0.25, 0.5, 0.75, 0.9)  # 0.9 is that of the book, the others a sweep
FLOORS = (0.0, 0.98)  # N nu of FairCB: none, and nearly all


# %%
def cuts(ratings: Ratings, n_runs: int) -> dict[str, Callable]:
    """Builders of the streams of every cut: of a generator, a list of streams.

    Parameters
    ----------
    ratings : Ratings
    n_runs : int
        Streams of a cut that is drawn at random; copies of one that is not.
    """
    book = movielens_stream(ratings)
    cold = movielens_stream(users_with(ratings, 1, 40), n_users=None)

    def drawn(make):
        return lambda rng: [make(rng=child) for child in rng.spawn(n_runs)]

    def stream_of(choose, *given):
        return lambda rng: movielens_stream(
            choose(ratings, *given, rng=rng), n_users=None
        )

    halves = half_years(ratings, 500).values()
    return {
        "as in the book": lambda rng: [book] * n_runs,
        "shuffled": drawn(partial(shuffled, book)),
        "other users": drawn(stream_of(random_users, 75)),
        "cold users": lambda rng: [cold] * n_runs,
        "half-years": lambda rng: [movielens_stream(h, n_users=None) for h in halves],
        "drifting groups": drawn(stream_of(random_groups, 12)),
    }


# %%
def players(stream: RewardStream, alpha: float) -> dict[str, Callable[[], Policy]]:
    """Builders of all that plays on a stream, by the name of its curve."""
    n, released = stream.n_arms, {"step": "released", "weights": "after"}
    found = {
        "coupled": partial(AlphaFairGradient, n, alpha),
        "coupled, released step": partial(AlphaFairGradient, n, alpha, **released),
        "independent": partial(IndependentGradient, n, alpha),
        "blind to contexts": partial(ContextFreeGradient, n, alpha),
        "Hedge": partial(Hedge, n, horizon=stream.n_rounds),
        "uniform": partial(Uniform, n),
        "scale-free": partial(ScaleFreeBandit, n, alpha),
        "scale-free, released sign": partial(RewardFedBandit, n, alpha),
        "log-barrier": partial(LogBarrierBandit, n, alpha, horizon=stream.n_rounds),
        "uniform, drawn": partial(UniformBandit, n),
    }
    for floor in FLOORS:
        for name, build in fair_rivals(stream, floor).items():
            found[f"{name}, floor {floor}"] = build
    return found


# %%
class Played(NamedTuple):
    """What all policies reached on one stream, as verdicts read it.

    Parameters
    ----------
    rounds, contexts : int
        Of the stream.
    ratio, jain, total : dict of str to float
        $U^*/U$, Jain's index and sum of the final rewards, by the name of the curve.
    optimum : float
        $U^*$, utility units.
    optimum_jain : float
        Jain's index of the rewards of the optimum.
    top_two : float
        Share of Hedge's rewards that its two richest arms have.
    ahead : float
        Share of the checkpoints at which the coupled policy has a negative regret.
    price : float
        Price bound of the coupled run over $U^*$.
    broadcast : float
        Value of the released benchmark over $U^*$.
    proved : float
        Bound in the mean of the log-barrier learner over its utility.
    sweep : dict of str to ndarray
        Over `ALPHAS`: `"mean_reward"`, `"jain"` and `"ratio"` of the coupled policy,
        and `"lead"`, by how much the scale-free one has the lower $U^*/U$ than uniform
        play.
    """

    rounds: int
    contexts: int
    ratio: dict[str, float]
    jain: dict[str, float]
    total: dict[str, float]
    optimum: float
    optimum_jain: float
    top_two: float
    ahead: float
    price: float
    broadcast: float
    proved: float
    sweep: dict[str, np.ndarray]


# %%
def alpha_sweep(
    stream: RewardStream, *, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """What `Played.sweep` holds, each policy played for and judged by every alpha."""
    rows = []
    for alpha in ALPHAS:
        coupled = AlphaFairGradient(stream.n_arms, alpha)
        drawn = ScaleFreeBandit(stream.n_arms, alpha)
        for policy in (coupled, drawn):
            run_fast(policy, stream, rng=rng, n_points=1)
        best = offline_optimum_of(stream, alpha).utility
        die = 1 + stream.rewards.sum(0) / stream.n_arms
        fair, bandit, uniform = (
            best / alpha_fair_utility(R, alpha)
            for R in (coupled.rewards, drawn.rewards, die)
        )
        R = coupled.rewards
        rows.append((R.mean(), jain_index(R), fair, uniform - bandit))
    columns = np.array(rows).T
    return dict(zip(("mean_reward", "jain", "ratio", "lead"), columns))


# %%
def played(stream: RewardStream, alpha: float, *, rng: np.random.Generator) -> Played:
    """One run of every policy on `stream`, and the sweep over alpha.

    Parameters
    ----------
    stream : RewardStream
    alpha : float
        Fairness in [0, 1).
    rng : numpy.random.Generator

    Returns
    -------
    played : Played
    """
    best = offline_optimum_of(stream, alpha)
    rounds, finals, path = checkpoints(stream.n_rounds, 20), {}, None
    for name, build in players(stream, alpha).items():
        policy = build()
        play = simulate if type(policy) is RewardFedBandit else run_fast
        run = play(policy, stream, rng=rng, n_points=len(rounds))
        finals[name], path = run.rewards[-1], path or run  # the coupled one is first
    G = reward_sums(stream.contexts, stream.rewards, stream.n_contexts)
    utility = {name: alpha_fair_utility(R, alpha) for name, R in finals.items()}
    over_time = optimum_over_time(stream, alpha, rounds).utility
    sizes = {"n_arms": stream.n_arms, "n_contexts": stream.n_contexts}
    proved = bandit_bound(
        utility["log-barrier"], 0.0, alpha, **sizes, horizon=stream.n_rounds
    )
    hedge = np.sort(finals["Hedge"])
    return Played(
        rounds=stream.n_rounds,
        contexts=stream.n_contexts,
        ratio={name: best.utility / u for name, u in utility.items()},
        jain={name: jain_index(R) for name, R in finals.items()},
        total={name: R.sum() for name, R in finals.items()},
        optimum=best.utility,
        optimum_jain=jain_index(best.rewards),
        top_two=hedge[-2:].sum() / hedge.sum(),
        ahead=(over_time < alpha_fair_utility(path.rewards, alpha)).mean(),
        price=price_bound(finals["coupled"], G, alpha) / best.utility,
        broadcast=inner_product_benchmark(G, alpha) / best.utility,
        proved=proved / utility["log-barrier"],
        sweep=alpha_sweep(stream, rng=rng),
    )


# %%
def stored_runs(runs: Sequence[Played]) -> dict:
    """What a table keeps of runs: the values of each field, over the runs."""
    kept = {}
    for name in Played._fields:
        values = [getattr(run, name) for run in runs]
        named = isinstance(values[0], dict)
        kept[name] = {k: [v[k] for v in values] for k in values[0]} if named else values
    return kept


def read_runs(part: Mapping) -> list[Played]:
    """The runs of which `stored_runs` made `part`."""
    runs = []
    for k in range(len(part["optimum"])):
        fields = {
            name: {key: np.array(v[k])[()] for key, v in values.items()}
            if isinstance(values, Mapping)
            else values[k]
            for name, values in part.items()
        }
        runs.append(Played(**fields))
    return runs


# %%
def _of(values: Mapping[str, float], *known: str) -> list[float]:
    """The entries of `values` whose names begin with one of `known`."""
    return [value for name, value in values.items() if name.startswith(known)]


RIVALS = ("independent", "blind", "Hedge", "FairCB", "uniform")
BELOW = tuple(name for name in (*RIVALS, "coupled") if name != "Hedge")


def _hedge_margin(run: Played) -> float:
    lead = run.total["Hedge"] / max(_of(run.total, *BELOW)) - 1
    return min(run.top_two - 0.99, lead)


def _sweep_margin(run: Played) -> float:
    mean, jain = run.sweep["mean_reward"], run.sweep["jain"]
    return min((1 - mean[1:] / mean[:-1]).min(), np.diff(jain).min())


# %%
C = approximation_factor(0.9)
VERDICTS: dict[str, Callable[[Played], float]] = {
    "coupled: least regret of all": lambda run: (
        min(_of(run.ratio, *RIVALS)) - run.ratio["coupled"]
    ),
    "coupled: within 1 % of the optimum": lambda run: 1.01 - run.ratio["coupled"],
    "coupled: most even of all": lambda run: (
        run.jain["coupled"] - max(_of(run.jain, *RIVALS))
    ),
    "coupled: more even than the optimum": lambda run: (
        run.jain["coupled"] - run.optimum_jain
    ),
    "coupled: mostly ahead of every fixed map": lambda run: run.ahead - 0.5,
    "coupled: price bound below twice the regret": lambda run: (
        2 * (1 - 1 / run.ratio["coupled"]) - run.price
    ),
    "released step: behind independent learners": lambda run: (
        run.ratio["coupled, released step"] - run.ratio["independent"]
    ),
    "released benchmark: off by more than any regret": lambda run: (
        run.broadcast - 2 + 1 / max(_of(run.ratio, *RIVALS))
    ),
    "Hedge: largest sum, 99 % of it in two genres": _hedge_margin,
    "uniform play: below the factor": lambda run: C - run.ratio["uniform"],
    "all but Hedge below the factor": lambda run: min(
        C - max(_of(run.ratio, *BELOW)), run.ratio["Hedge"] - C
    ),
    "FairCB: no floor as even as coupled": lambda run: (
        run.jain["coupled"] - max(_of(run.jain, "FairCB"))
    ),
    "FairCB: no floor as little regret": lambda run: (
        min(_of(run.ratio, "FairCB")) - run.ratio["coupled"]
    ),
    "larger alpha: less mean reward, more even": _sweep_margin,
    "coupled: within 2 % at every alpha": lambda run: 1.02 - run.sweep["ratio"].max(),
    "bandit: scale-free ahead of uniform play": lambda run: (
        run.ratio["uniform, drawn"] - run.ratio["scale-free"]
    ),
    "bandit: ahead at every alpha": lambda run: run.sweep["lead"].min(),
    "bandit: released sign behind uniform play": lambda run: (
        run.ratio["scale-free, released sign"] - run.ratio["uniform, drawn"]
    ),
    "bandit: released sign more even": lambda run: (
        run.jain["scale-free, released sign"] - run.jain["scale-free"]
    ),
    "bandit: bound in the mean above the utility": lambda run: run.proved - 1,
}
