"""MO-ASHA: multi-objective successive halving, stopping variant (Schmucker et al. 2021, arXiv 2106.12639).

A trial that reaches a rung is compared with all trials that reached the rung before it; docs/METHODS.md section 6 has
the rule. `RungRule` is the rule, `RungTables` the state of a study, and `write_entries` and `read_entries` keep that
state on disk, one small file per run, from which a resumed study continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from pydantic import TypeAdapter

from lethe.config.audit_objectives import audited_metrics
from lethe.config.metrics import Direction
from lethe.config.search import MoAsha
from lethe.config.study import Study
from lethe.records import Record
from lethe.search import pareto
from lethe.search.objectives import ObjectiveSpace
from lethe.storage.paths import atomic_write

FILE = "rungs.json"


@dataclass(frozen=True)
class RungRule:
    """The quantities that a rung compares, with their directions and floors (None: no floor), k of each in one order;
    rung r lies at the resource `grace * eta**r`."""

    names: tuple[str, ...]
    directions: tuple[Direction, ...]
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


def rung_rule(stopping: MoAsha, study: Study, objectives: ObjectiveSpace) -> RungRule:
    """Return the rule of a study's early stopping: it compares the objectives with their floors, but for those that
    audits measure when a trial has ended, or the metrics that `stopping.metrics` names instead."""
    floors = dict(zip(objectives.names, objectives.floors, strict=True))
    better = {name: metric.better for name, metric in study.benchmark.metrics.items()}
    better |= dict(zip(objectives.names, objectives.directions, strict=True))
    audited = audited_metrics(study.benchmark)
    names = stopping.metrics or tuple(name for name in objectives.names if name not in audited)
    return RungRule(
        names=tuple(names),
        directions=tuple(better[name] for name in names),
        floors=tuple(floors.get(name) for name in names),
        grace=stopping.grace,
        eta=stopping.eta,
    )


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
