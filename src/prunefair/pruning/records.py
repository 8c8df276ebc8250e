"""What was measured of a model, outcome by outcome, and how it is stored.

A model is judged in pieces: some windows of a text, some questions of a task.  Both are
taken in one random order that is the same for all models, so that what has been read
so far is a simple random sample of the whole, and any two models can be compared on
the pieces that both have.  Outcomes of questions are zeros and ones; a file holds them
four to a hexadecimal digit, after their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from prunefair.pruning.zero_shot import TASK_CHANCE, TaskResult


def evaluation_order(count: int, *, rng: np.random.Generator) -> np.ndarray:
    """Random order of `count` windows or questions, of which any prefix is a sample."""
    return rng.permutation(count)


@dataclass(kw_only=True)
class ModelRecord:
    """Everything that was measured on one model.

    Parameters
    ----------
    method : str
        Name of the method; "dense" for the whole model.
    seed : int or None
        Seed of a method that draws.
    ratio : float
        Share of the rows removed.
    parameters : int
        Parameters left, tied ones counted once.
    seconds : float
        Processor time of choosing the rows at this ratio and of the re-fit, in seconds,
        with what a method shares between ratios.
    ks : float or None
        Mean KS distance of the spectra of `gate_proj`; none where no rows are cut.
    lost : list of float
        Share of each layer's output that the removed neurons wrote on the dense model's
        own text, by `lost_outputs`; empty where no rows are cut.
    rows : str
        Digest of the rows kept and of the ridge, by which a later run knows the model
        again; empty where no rows are cut.
    kl : list of float
        Divergence from the dense model on each self-sampled text; nats a token.
    nats : list of float
        Information of each window read, in the fixed order; nats.
    answers : dict of str to list of str
        For every task the outcomes by `acc` and, where it exists, by `acc_norm`: "1"
        for a right answer, in the fixed order.
    """

    method: str
    seed: int | None
    ratio: float
    parameters: int
    seconds: float
    ks: float | None
    lost: list[float] = field(default_factory=list)
    rows: str = ""
    kl: list[float] = field(default_factory=list)
    nats: list[float] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)

    def n_answered(self, task: str) -> int:
        """Questions of a task that the model has answered."""
        return len(self.answers.get(task, [""])[0])

    def to_json(self) -> dict:
        """Plain values for a JSON file, floats with six digits."""
        values = asdict(self)
        for name in ("lost", "kl", "nats"):
            values[name] = [float(f"{x:.6g}") for x in values[name]]
        values["answers"] = {
            t: [outcomes_to_hex(s) for s in a] for t, a in self.answers.items()
        }
        return values

    @classmethod
    def from_json(cls, values: dict) -> ModelRecord:
        """Record written by `to_json`."""
        answers = {
            t: [outcomes_from_hex(s) for s in a] for t, a in values["answers"].items()
        }
        return cls(**values | {"answers": answers})


def outcomes_to_hex(outcomes: str) -> str:
    """Zeros and ones as their number, a colon and hexadecimal digits."""
    size = -(-len(outcomes) // 4)
    bits = outcomes.ljust(4 * size, "0")
    return f"{len(outcomes)}:{int(bits or '0', 2):0{size}x}"


def outcomes_from_hex(text: str) -> str:
    """Zeros and ones that `outcomes_to_hex` wrote."""
    count, digits = text.split(":")
    return f"{int(digits, 16):0{4 * len(digits)}b}"[: int(count)]


def records_by_method(
    records: Sequence[ModelRecord], ratio: float
) -> dict[str, list[ModelRecord]]:
    """Records of every method at one ratio, in the order in which methods come."""
    groups: dict[str, list[ModelRecord]] = {}
    for record in records:
        if record.ratio == ratio and record.method != "dense":
            groups.setdefault(record.method, []).append(record)
    return groups


def outcome_results(answers: dict[str, Sequence[str]]) -> dict[str, TaskResult]:
    """Results of tasks from zeros and ones, for each task a string a rule."""
    results = {}
    for task, rules in answers.items():
        outcomes = (np.array([*rule]) == "1" for rule in rules)
        results[task] = TaskResult.from_outcomes(TASK_CHANCE[task], *outcomes)
    return results


def task_results(record: ModelRecord, limits: dict[str, int]) -> dict[str, TaskResult]:
    """Outcomes of the first questions of every task, as `zero_shot` judges them.

    Parameters
    ----------
    record : ModelRecord
        Model with at least so many answers.
    limits : dict of str to int
        How many questions of each task count; at least two.

    Returns
    -------
    results : dict of str to TaskResult
        Ready for `raw_retention`, `above_chance_retention` and `paired_bootstrap`.

    Raises
    ------
    ValueError
        If the record has fewer answers than a limit.
    """
    for task, n in limits.items():
        if record.n_answered(task) < n:
            raise ValueError(
                f"limits asks for {n} questions of {task}, of which {record.method} has "
                f"answered {record.n_answered(task)}; take `common_questions`"
            )
    return outcome_results(
        {task: [a[:n] for a in record.answers[task]] for task, n in limits.items()}
    )


def common_questions(records: Sequence[ModelRecord]) -> dict[str, int]:
    """Number of questions of each task that all of the records have answered."""
    tasks = [t for t in TASK_CHANCE if all(t in r.answers for r in records)]
    return {t: min(r.n_answered(t) for r in records) for t in tasks}
