"""The policy that plays a fixed map from contexts to distributions."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from prunefair.fairness.policy import (
    FullInformationPolicy,
    array_of,
    check_context,
    decode_key,
    encode_key,
    masked_play,
)
from prunefair.fairness.uniform import NoState
from prunefair.messages import shown


class FixedMap(FullInformationPolicy):
    """A fixed map from contexts to distributions; uniform elsewhere.

    Parameters
    ----------
    table : array_like, shape (M, N)
        The distribution over the arms of each context.
    contexts : sequence, length M, optional
        The context of each row, as `check_context` says; 0, ..., M-1 by default.
    arms : sequence, length N, optional
        Names of the arms; 0, ..., N-1 by default.

    Raises
    ------
    ValueError
        If `table` is no matrix, a row is not a distribution, or names do not fit it.
    """

    def __init__(self, table, *, contexts=None, arms=None):
        rows = array_of(table)
        if rows.dtype.kind not in "biuf" or rows.ndim != 2 or not rows.size:
            raise ValueError(
                f"table is {shown(table)}; it must hold numbers, shape (M, N)"
            )
        rows = rows.astype(np.float64)
        if not ((rows >= 0).all() and abs(rows.sum(1) - 1).max() <= 1e-9):
            raise ValueError("table has a row that is not a distribution; normalise it")
        super().__init__(rows.shape[1] if arms is None else list(arms))
        if self.n_arms != rows.shape[1]:
            raise ValueError(
                f"arms has {self.n_arms} names, table {rows.shape[1]} arms"
            )
        given = range(len(rows)) if contexts is None else contexts
        keys = [check_context(decode_key(context)) for context in given]
        self.table, self._rows = rows, {key: row for row, key in enumerate(keys)}
        if len(self._rows) != len(rows) or len(keys) != len(rows):
            raise ValueError(
                f"contexts is {shown(contexts)}; it must hold {len(rows)} contexts, no "
                "two of them equal"
            )

    def config(self) -> dict[str, Any]:
        table = {"table": self.table.tolist()}
        if list(self._rows) == list(range(len(self.table))):
            return table
        return table | {"contexts": [encode_key(context) for context in self._rows]}

    def initial(self) -> NoState:
        return NoState()

    def play(self, context: Hashable) -> np.ndarray:
        row = self._rows.get(context)
        return np.full(self.n_arms, 1 / self.n_arms) if row is None else self.table[row]

    def step(self, context: Hashable, x: np.ndarray, rewards: np.ndarray) -> None:
        pass

    def _rearrange(self, arms: tuple, old: list[int], initial: float) -> None:
        """A new arm is never played; what a retired one had goes to the others."""
        new = np.array(old) < 0
        rows = np.where(new, 0, self.table[:, old])
        super()._rearrange(arms, old, initial)
        self.table = np.array([masked_play(row, ~new) for row in rows])
