"""Every method of the comparison by its name: which neurons it keeps, at every ratio.

What a method needs to know is measured, and its policy is trained, when it is made; then
it serves every ratio.  It is for Part I what `make_policy` is for Part II.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from prunefair.messages import checked_share, checked_whole, shown
from prunefair.models import (
    alone,
    check_rng,
    check_runs,
    check_tokens,
    given_model,
    within_context,
)
from prunefair.pruning.anatomy import parameter_counts, rows_to_keep
from prunefair.pruning.comparison import wanda_scores
from prunefair.pruning.functional_policy import (
    functional_layers,
    surgeon_energies,
    train_functional,
    uneven_ratios,
)
from prunefair.pruning.functional_pruning import (
    SelfStatistics,
    self_statistics,
    text_statistics,
)
from prunefair.pruning.policy_gradient import train_policy
from prunefair.pruning.reconstruction import CORRECTED, reconstruct_
from prunefair.pruning.refit import find_ridge, mean_moments, refit_
from prunefair.pruning.released import released_draw, train_released
from prunefair.pruning.row_policy import ReleasedScorer
from prunefair.pruning.self_moments import down_projections
from prunefair.pruning.slicegpt import check_sliceable, slice_gpt, sliced_width
from prunefair.pruning.spectral_pruning import rows_by_scores
from prunefair.pruning.spectrum import singular_values, uniform_selections
from prunefair.pruning.surgery import prune_rows, row_matrices

REFIT = ", re-fitted"
RECONSTRUCTED = ", reconstructed"
SLICEGPT = "SliceGPT"
ON_TEXT = "energy on WikiText-2"


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What a method may use."""

    model: object
    generator: torch.Generator
    statistics: SelfStatistics | None
    calibration: torch.Tensor | None
    trained_at: float
    episodes: int | None

    def matrices(self) -> list[torch.Tensor]:
        """What a policy of Part I sees, in float32."""
        return [W.float() for W in row_matrices(self.model)]

    def training(self) -> dict:
        """Options of the training of a policy."""
        options = {"generator": self.generator}
        return (
            options if self.episodes is None else options | {"episodes": self.episodes}
        )

    def layers(self) -> list:
        """What the functional policy sees."""
        moments = mean_moments(self.statistics.halves)
        return functional_layers(self.model, moments, self.statistics.fisher)


def _by_scores(scores) -> Callable:
    return lambda ratio: rows_by_scores(scores, ratio)


def _row_norm(given: _Given) -> Callable:
    return _by_scores([W.norm(dim=1) for W in given.matrices()])


def _wanda(given: _Given) -> Callable:
    return _by_scores(wanda_scores(given.model, given.calibration))


def _random(given: _Given) -> Callable:
    sizes = [len(W) for W in row_matrices(given.model)]

    def rows(ratio):
        kept = [(m, rows_to_keep(m, ratio)) for m in sizes]
        draws = [uniform_selections(*k, 1, generator=given.generator) for k in kept]
        return [draw[0].sort().values for draw in draws]

    return rows


def _released(given: _Given) -> Callable:
    matrices = [W.cpu() for W in given.matrices()]
    m, n = matrices[0].shape
    scorer = ReleasedScorer(n, m, generator=given.generator, collapsed=True)
    options = {"scorer": scorer, **given.training()}
    options["spectrum"] = lambda W: singular_values(W, dtype=torch.float32)
    train_released(matrices, given.trained_at, **options)
    scores = [scorer.scores(W).detach() for W in matrices]
    return lambda ratio: [
        released_draw(s, rows_to_keep(len(s), ratio), generator=given.generator)
        for s in scores
    ]


def _exact(given: _Given) -> Callable:
    matrices, options = given.matrices(), given.training()
    trained = train_policy(matrices, given.trained_at, dtype=torch.float32, **options)
    return _by_scores([trained.policy.scores(W).detach() for W in matrices])


def _energy(given: _Given, which: int = 0) -> Callable:
    return _by_scores([surgeon_energies(la.D, la.H)[which] for la in given.layers()])


def _surgeon_energy(given: _Given) -> Callable:
    return _energy(given, 1)


def _functional_even(given: _Given) -> Callable:
    layers = given.layers()
    policy = train_functional(layers, given.trained_at, **given.training()).policy
    return _by_scores([policy.scores(layer).detach() for layer in layers])


def _functional(given: _Given) -> Callable:
    rows, fisher = _functional_even(given), given.statistics.fisher
    return lambda ratio: rows(uneven_ratios(fisher, ratio))


_BY_MOMENTS = {  # each also with a re-fit
    "energy": _energy,
    ON_TEXT: _energy,
    "surgeon energy": _surgeon_energy,
    "functional, equal widths": _functional_even,
    "functional": _functional,
}
_BY_COSTS = ("functional, equal widths", "functional")
_METHODS = _BY_MOMENTS | {
    "row norm": _row_norm,
    "wanda": _wanda,
    "random": _random,
    "released": _released,
    "exact": _exact,
}
CALIBRATED = ("wanda", ON_TEXT, SLICEGPT)  # these need `calibration`
_REPAIRED = (*(name + REFIT for name in _BY_MOMENTS), "functional" + RECONSTRUCTED)
SELECTIONS = (*_METHODS, *_REPAIRED, SLICEGPT)


@dataclass(frozen=True)
class Selection:
    """A method of the comparison that has measured and learnt what it needs.

    Parameters
    ----------
    name : str
        One of `SELECTIONS`.
    rows : callable or None
        Gives for a ratio the rows kept in every layer, ascending and on the CPU; a
        method that draws draws anew in every call.  None for a method that cuts
        something else.
    prune : callable
        Gives for a ratio the smaller model, which shares what was not cut.
    """

    name: str
    rows: Callable[[float], list[torch.Tensor]] | None
    prune: Callable[[float], object]


def make_selection(
    name: str,
    model,
    *,
    generator: torch.Generator,
    statistics: SelfStatistics | None = None,
    calibration: torch.Tensor | None = None,
    trained_at: float = 0.3,
    episodes: int | None = None,
) -> Selection:
    """A method of the comparison by its name in `SELECTIONS`.

    Parameters
    ----------
    name : str
        One of `SELECTIONS`; those that end in `REFIT` re-fit `down_proj` to what is
        left, and those in `RECONSTRUCTED` one block after the other, with the drift.
    model : transformers.PreTrainedModel
        Dense model of a supported family; it is not changed.
    generator : torch.Generator
        Source of all draws: of texts, of initial weights, of rows.
    statistics : SelfStatistics, optional
        Of `model`, for the methods by moments; by default they are measured on texts
        that it samples, or on `calibration` for "energy on WikiText-2".
    calibration : Tensor, shape (n, N), int64, optional
        Texts from outside, for the methods of `CALIBRATED`.
    trained_at : float
        Ratio that a policy is trained at, in [0, 1).
    episodes : int, optional
        Episodes of its training; by default what the method takes.

    Returns
    -------
    selection : Selection

    Raises
    ------
    ValueError
        If `name` is unknown, a calibrated method is given no texts, another argument
        cannot be used, or the model cannot be pruned by the method; all of it before
        the work.

    Examples
    --------
    >>> import torch
    >>> from prunefair.pruning.selections import make_selection
    >>> from prunefair.pruning.surgery import tiny_model
    >>> generator = torch.Generator().manual_seed(0)
    >>> model = tiny_model("llama", generator=generator)
    >>> selection = make_selection("random", model, generator=generator)
    >>> [len(rows) for rows in selection.rows(0.25)]
    [9, 9]
    """
    if name not in SELECTIONS:
        names = ", ".join(map(repr, (*_METHODS, SLICEGPT)))
        raise ValueError(
            f"name is {shown(name, 40)}; give one of {names}, or one by moments with "
            f"{REFIT!r}"
        )
    method, repair = parted(name)
    check_rng(generator)
    trained_at = checked_share("trained_at", trained_at)
    episodes = None if episodes is None else checked_whole("episodes", episodes, 1)
    with alone(model):
        _check_model(model, method)
        _check_texts(model, name, method, calibration)
        if statistics is not None:
            needs = {"costs": method in _BY_COSTS, "texts": repair == RECONSTRUCTED}
            _check_statistics(model, statistics, **needs)
        if method == SLICEGPT:
            return Selection(name, None, partial(_sliced, model, calibration))
        if method == ON_TEXT and statistics is None:
            statistics = text_statistics(model, calibration, costs=False)
        if method in _BY_MOMENTS and statistics is None:
            costs = method in _BY_COSTS
            statistics = self_statistics(model, generator=generator, costs=costs)
        given = _Given(
            model=model,
            generator=generator,
            statistics=statistics,
            calibration=calibration,
            trained_at=trained_at,
            episodes=episodes,
        )
        choose = _METHODS[method](given)

    def rows(ratio):
        return [kept.cpu() for kept in choose(checked_share("ratio", ratio))]

    def prune(ratio):
        kept = rows(ratio)
        pruned = prune_rows(model, kept)
        if repair == RECONSTRUCTED:
            texts, options = given.statistics.texts, {"generator": generator}
            reconstruct_(pruned, model, texts, plan=CORRECTED, **options)
        return _refitted(pruned, given, kept) if repair == REFIT else pruned

    return Selection(name, rows, prune)


def parted(name: str) -> tuple[str, str]:
    """How a method chooses, and how it repairs what is left.

    Parameters
    ----------
    name : str
        One of `SELECTIONS`.

    Returns
    -------
    method, repair : str
        The name without its end, and the end: `REFIT`, `RECONSTRUCTED` or "".
    """
    for end in (REFIT, RECONSTRUCTED):
        if name.endswith(end):
            return name.removesuffix(end), end
    return name, ""


def _check_model(model, method: str) -> None:
    """Raise unless the method can begin with the model."""
    given = given_model(model)
    if not given.held:
        raise given.error("which is the name of a model", "load it by load_model first")
    sizes = {len(W) for W in row_matrices(model)}
    if method == SLICEGPT:
        check_sliceable(model)
    elif method == "released" and len(sizes) > 1:
        raise given.error(
            f"whose layers have widths from {min(sizes)} to {max(sizes)}, and the "
            "released policy has one score a row",
            "give a model whose layers are alike",
        )
    check_runs(model, given)


def _check_texts(model, name: str, method: str, calibration) -> None:
    """Raise unless there are texts where they are needed, and the model can read them."""
    if calibration is None:
        if method not in CALIBRATED:
            return
        raise ValueError(
            f"calibration is None, and {name!r} reads texts; give tokens of shape (n, N)"
        )
    check_tokens(calibration, model, argument="calibration")
    n, length = calibration.shape
    if within_context(model, length) < length:
        raise ValueError(
            f"calibration has texts of {length} tokens, longer than the "
            f"{within_context(model, length)} of the model's context "
            "(max_position_embeddings); give shorter texts"
        )
    if method == ON_TEXT and n < 2:
        raise ValueError(
            f"calibration is one text, and {name!r} compares two halves; give two or more"
        )


def _check_statistics(model, statistics, *, costs: bool, texts: bool) -> None:
    """Raise unless the statistics are those of a model with these widths, and enough."""
    widths = [len(W) for W in row_matrices(model)]
    if not isinstance(statistics, SelfStatistics):
        raise ValueError(
            f"statistics is {shown(statistics)}; give what self_statistics measures"
        )
    if costs and statistics.fisher is None:
        raise ValueError(
            "statistics have no Fisher costs, which this method needs; measure them "
            "with costs=True"
        )
    if texts and statistics.texts is None:
        raise ValueError(
            "statistics keep no texts, to which this method fits; measure them on this "
            "model by self_statistics"
        )
    found = [len(mean) for mean in statistics.halves[0].mean]
    if found != widths:
        raise ValueError(
            f"statistics are of layers with {shown(found)} neurons, and the model has "
            f"{shown(widths)}; measure them on this model"
        )


def _refitted(pruned, given: _Given, kept):
    """The pruned model with the ridge that the halves choose."""
    linears, halves = down_projections(given.model), given.statistics.halves
    weights, biased = [linear.weight for linear in linears], linears[0].bias is not None
    ridge, _ = find_ridge(weights, halves, kept, biased=biased)
    return refit_(pruned, given.model, kept, mean_moments(halves), ridge=ridge)


def _sliced(model, tokens: torch.Tensor, ratio: float):
    """SliceGPT with the parameters of a model without a share of its rows."""
    rows = len(row_matrices(model)[0])
    rows = rows_to_keep(rows, checked_share("ratio", ratio))
    width = sliced_width(model, parameter_counts(model.config, rows).total)
    with alone(model):
        return slice_gpt(model, tokens, width)
