"""The paper's table of a comparison, and what its arms cost, as rows of cells; the former also as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import groupby

from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import COSTS, Arm, Cell, Column, arms, layout_of, seeds
from lethe.reporting.scales import format_fixed
from lethe.reporting.trial_views import value

ORIGINAL, ORACLE = "Original", "Oracle"


@dataclass(frozen=True)
class TableRow:
    """A model that the study does not train (`arm` is None), or an arm; one cell per column, in its unit."""

    name: str
    cells: tuple[Cell, ...]
    arm: Arm | None = None

    @property
    def feasible(self) -> str:
        """`2/3`: of how many seeds the chosen trial is above every floor."""
        if self.arm is None:
            return "–"
        return f"{sum(trial.feasible for trial in self.arm.chosen)}/{len(self.arm.seeds)}"

    @property
    def complete(self) -> str:
        """`7/9`: how many of its trials were complete."""
        return f"{len(self.arm.complete)}/{sum(len(each.trials) for each in self.arm.seeds)}" if self.arm else "–"


def table(record: StudyRecord, columns: Sequence[Column]) -> list[TableRow]:
    """The start model, the oracle if there is one, then every arm by its chosen trials."""
    models = {ORIGINAL: record.start, ORACLE: record.oracle}
    rows = [
        TableRow(name, tuple(Cell((value(model.metrics, column.key) * column.factor,)) for column in columns))
        for name, model in models.items()
        if model
    ]
    return rows + [TableRow(arm.name, tuple(map(arm.shown, columns)), arm) for arm in arms(record)]


def costs(of: Iterable[Arm]) -> list[TableRow]:
    """What a trial of each arm cost, over all its complete trials."""
    return [
        TableRow(
            arm.name, tuple(Cell(tuple(value(t.metrics, c.key) * c.factor for t in arm.complete)) for c in COSTS), arm
        )
        for arm in of
    ]


def groups(columns: Iterable[Column]) -> list[tuple[str, int]]:
    """Each run of columns under one heading, with its length."""
    return [(name, len(list(run))) for name, run in groupby(column.group for column in columns)]


def mean(cell: Cell, column: Column) -> str:
    """A dash where there is no number."""
    return format_fixed(cell.mean, column.decimals)


def spread(cell: Cell, column: Column) -> str:
    """`± 0.012`; empty with one number."""
    return "" if cell.spread is None else f"± {format_fixed(cell.spread, column.decimals)}"


def each(cell: Cell, column: Column) -> str:
    """Every seed's number."""
    return ", ".join(format_fixed(number, column.decimals) for number in cell.values)


def comparison_csv(record: StudyRecord) -> str:
    """One row per row and column of the table: mean, spread and each seed's number, as they were measured (shares,
    not percent). Empty where there is no number."""
    columns = [replace(column, factor=1.0) for column in layout_of(record).columns]
    file = StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["row", "group", "metric", "mean", "spread", "seeds", *(f"seed_{seed}" for seed in seeds(record))])
    for row in table(record, columns):
        for column, cell in zip(columns, row.cells, strict=True):
            told = [_blank(cell.mean), cell.spread, len(cell.known) if row.arm else None]
            by_seed = cell.values if row.arm else [math.nan] * len(seeds(record))
            rows.writerow([row.name, column.group, column.key, *told, *map(_blank, by_seed)])
    return file.getvalue()


def _blank(number: float) -> float | None:
    return None if math.isnan(number) else number
