"""Early stopping by successive halving, stopping variant.

A trial that reaches a rung is compared with all trials that reached the rung before it; docs/METHODS.md section 6 has
the rules. `ParetoRule` and `AreaRule` are the rules, `RungTables` the state of a study, and `write_entries` and
`read_entries` keep that state on disk, one small file per run, from which a resumed study continues.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from pydantic import TypeAdapter

from lethe.config.audit_objectives import audited_metrics
from lethe.config.metrics import Direction
from lethe.config.search import AnyHalving, AreaHalving
from lethe.config.study import Study
from lethe.records import Record
from lethe.search import pareto
from lethe.search.objectives import ObjectiveSpace
from lethe.storage.paths import atomic_write

FILE = "rungs.json"


@dataclass(frozen=True)
class RungRule(ABC):
    """The quantities that a rung compares, with their directions, k of each in one order."""

    names: tuple[str, ...]
    directions: tuple[Direction, ...]

    @abstractmethod
    def rung(self, resource: float) -> int | None:
        """Return the highest rung at or below `resource`, 0 the first; None before the first."""

    @abstractmethod
    def judge(self, values: ArrayLike, row: int) -> tuple[bool, int]:
        """Return whether row `row` of a rung's `values` [n, k] goes on, and its place in the rung, 0 the best; a row
        with a value that is not finite never goes on."""


@dataclass(frozen=True)
class ParetoRule(RungRule):
    """MO-ASHA (Schmucker et al. 2021, arXiv 2106.12639): rung r lies at the resource `grace * eta**r`. `floors` has k
    values, None where a quantity has no floor."""

    floors: tuple[float | None, ...]
    grace: int = 1
    eta: int = 2

    def rung(self, resource: float) -> int | None:
        """Return the highest r with `grace * eta**r <= resource`, None before the first rung."""
        r = -1
        while self.grace * self.eta ** (r + 1) <= resource:
            r += 1
        return None if r < 0 else r

    def judge(self, values: ArrayLike, row: int) -> tuple[bool, int]:
        """Return whether row `row` of a rung's `values` [n, k] goes on, and its place in the rung, 0 the best.

        A row goes on if its place is below n / eta, or if it is the best of the first front in some objective; a row
        with a value that is not finite never does.
        """
        # By the place of each row. A known implementation takes `argsort` for places, and stops the wrong trials.
        table = np.asarray(values, dtype=np.float64)
        place = int(pareto.places(table, self.directions, self.floors)[row])
        extreme = bool(pareto.extremes(table, self.directions, self.floors)[row])
        return bool(np.isfinite(table[row]).all()) and (extreme or place * self.eta < len(table)), place


@dataclass(frozen=True)
class AreaRule(RungRule):
    """Halving by how much is forgotten times how much is kept; rung r lies at the resource `rungs[r]`, ascending."""

    rungs: tuple[int, ...] = (1, 2)
    eta: int = 3

    def rung(self, resource: float) -> int | None:
        """Return the highest r with `rungs[r] <= resource`, None before the first rung."""
        return sum(rung <= resource for rung in self.rungs) - 1 if resource >= self.rungs[0] else None

    def judge(self, values: ArrayLike, row: int) -> tuple[bool, int]:
        """Return whether row `row` of a rung's `values` [n, k] goes on, and its place in the rung, 0 the best.

        A row goes on if its place is below the whole part of n / eta, or if it is 0; of equal rows the earlier one has
        the better place. A row with a value that is not finite never does.
        """
        area = self._areas(np.asarray(values, dtype=np.float64))
        # In a stable order, so that each row's place is known; `argsort` alone gives rows by place.
        place = int(np.argsort(np.argsort(-area, kind="stable"))[row])
        return bool(area[row] >= 0) and place < max(1, len(area) // self.eta), place

    def _areas(self, table: pareto.Floats) -> pareto.Floats:
        """Return the product over the directions of the mean share of each metric [n]; -1 for rows that are not
        finite."""
        finite = np.isfinite(table).all(axis=1)
        areas = np.full(len(table), -1.0)
        rows = table[finite]
        areas[finite] = 1.0
        for direction in set(self.directions) if len(rows) else ():
            part = rows[:, [d == direction for d in self.directions]]
            # Floors are no reference here: a utility that is below its floor in the middle of a run may come back.
            gain = np.maximum(part, 0) if direction == "maximize" else part.max(axis=0) - part
            best = gain.max(axis=0)
            areas[finite] *= (gain / np.where(best > 0, best, 1)).mean(axis=1)
        return areas


def rung_rule(stopping: AnyHalving, study: Study, objectives: ObjectiveSpace) -> RungRule:
    """Return the rule of a study's early stopping: it compares the objectives, but for those that audits measure when a
    trial has ended, or the metrics that `stopping.metrics` names instead."""
    better = {name: metric.better for name, metric in study.benchmark.metrics.items()}
    better |= dict(zip(objectives.names, objectives.directions, strict=True))
    audited = audited_metrics(study.benchmark)
    names = tuple(stopping.metrics or (name for name in objectives.names if name not in audited))
    directions = tuple(better[name] for name in names)
    if isinstance(stopping, AreaHalving):
        return AreaRule(names, directions, stopping.rungs, stopping.eta)
    floors = dict(zip(objectives.names, objectives.floors, strict=True))
    return ParetoRule(names, directions, tuple(floors.get(name) for name in names), stopping.grace, stopping.eta)


class RungEntry(Record):
    """The decision on one run at one rung. `trial` is the run's index in the study, `resource` and `values` [k] are
    those that it reported there; it was at `place`, 0 the best, of the `of` runs known then."""

    rung: int
    run: str
    trial: int
    resource: float
    values: tuple[float, ...]
    goes_on: bool
    place: int
    of: int


class RungTables:
    """The decisions of a study, by rung and run. Each is made once: an equal report gets the same entry again."""

    def __init__(self, rule: RungRule, groups: int | None = None) -> None:
        """With `groups` G, trial n is compared only with the trials up to n - G, those that its proposal saw: decisions
        then do not depend on which trial was faster. With None it is compared with all."""
        self.rule = rule
        self._groups = groups
        self._tables: dict[int, dict[str, RungEntry]] = {}

    def restore(self, entries: Sequence[RungEntry]) -> None:
        """Add the decisions of an earlier session."""
        for entry in entries:
            self._tables.setdefault(entry.rung, {}).setdefault(entry.run, entry)

    def decide(self, run: str, trial: int, resource: float, values: Sequence[float]) -> RungEntry | None:
        """Return the decision on a run that reports `values` [k] at `resource`, None between two rungs. A report that
        passes several rungs at once counts at the highest: the runs there have trained as long."""
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
        """Return the entries of one run, lowest rung first."""
        return tuple(table[run] for _, table in sorted(self._tables.items()) if run in table)


_entries = TypeAdapter(tuple[RungEntry, ...])


def write_entries(folder: Path, entries: tuple[RungEntry, ...]) -> None:
    """Write all entries of one run to its run folder."""
    atomic_write(folder / FILE, _entries.dump_json(entries))


def read_entries(runs: Path) -> list[RungEntry]:
    """Return the entries of every run folder in `runs`, by trial index and rung."""
    entries = [entry for path in runs.glob(f"*/{FILE}") for entry in _entries.validate_json(path.read_bytes())]
    return sorted(entries, key=lambda entry: (entry.trial, entry.rung))
