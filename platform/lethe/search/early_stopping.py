"""Multi-objective successive halving, stopping type (Schmucker et al. 2021, arXiv 2106.12639): rungs and decisions.

A trial that reaches a rung is compared with all that reached it before; METHODS section 6 has the rule. Decisions are
by place per row: the best-known implementation takes row indices for places and stops the wrong trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from lethe.config.metrics import Direction
from lethe.records import Record
from lethe.search import pareto
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class RungRule:
    """What a rung compares: names, directions and floors (None: no floor), in one order; rungs at grace * eta^k."""

    names: tuple[str, ...]
    directions: tuple[Direction, ...]
    floors: tuple[float | None, ...]
    grace: int = 1
    eta: int = 2

    def rung(self, resource: float) -> int | None:
        """The highest k with grace * eta^k <= resource; None before the first."""
        k = -1
        while self.grace * self.eta ** (k + 1) <= resource:
            k += 1
        return None if k < 0 else k

    def judge(self, values: ArrayLike, row: int) -> tuple[bool, int]:
        """Whether this row of a rung's [n, k] goes on, and its place, 0 the best. Places below n / eta go on, and each
        objective's extreme of the first front; a row that is not finite never does."""
        table = np.asarray(values, dtype=np.float64)
        place = int(pareto.places(table, self.directions, self.floors)[row])
        extreme = bool(pareto.extremes(table, self.directions, self.floors)[row])
        return bool(np.isfinite(table[row]).all()) and (extreme or place * self.eta < len(table)), place


class RungEntry(Record):
    """One run at one rung: what it reported there and what was decided. `trial` is its index in the study."""

    rung: int
    run: str
    trial: int
    resource: float
    values: tuple[float, ...]
    goes_on: bool
    place: int
    of: int


class RungTables:
    """Every run's entries, by rung. A run has one per rung, made once: told again, it is answered as before."""

    def __init__(self, rule: RungRule, groups: int | None = None) -> None:
        """`groups` G: trial n is compared with trials <= n - G only, those that its proposal saw, so that decisions do
        not depend on who was faster. None: with all."""
        self.rule = rule
        self._groups = groups
        self._tables: dict[int, dict[str, RungEntry]] = {}

    def restore(self, entries: Sequence[RungEntry]) -> None:
        """Take up what an earlier session decided."""
        for entry in entries:
            self._tables.setdefault(entry.rung, {}).setdefault(entry.run, entry)

    def decide(self, run: str, trial: int, resource: float, values: Sequence[float]) -> RungEntry | None:
        """The decision on a run that has come so far; None between two rungs. A report that passes several rungs at
        once counts at the highest: there others have trained as long."""
        rung = self.rule.rung(resource)
        if rung is None or any(entry.rung > rung for entry in self.entries(run)):
            return None
        table = self._tables.setdefault(rung, {})
        if run in table:
            return table[run] if table[run].resource == resource else None
        seen = [e.values for e in table.values() if self._groups is None or e.trial <= trial - self._groups]
        goes_on, place = self.rule.judge([*seen, tuple(values)], len(seen))
        table[run] = RungEntry(
            rung=rung,
            run=run,
            trial=trial,
            resource=resource,
            values=tuple(values),
            goes_on=goes_on,
            place=place,
            of=len(seen) + 1,
        )
        return table[run]

    def entries(self, run: str) -> tuple[RungEntry, ...]:
        """A run's own, lowest rung first."""
        return tuple(table[run] for _, table in sorted(self._tables.items()) if run in table)
