"""Tables of a comparison as rows of cells: the paper's columns by arm, also as CSV, and the costs of each arm."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import groupby
from typing import get_args

from lethe.records import Forgotten, StudyRecord, TrialRecord
from lethe.reporting.comparison.arms import COSTS, Arm, Cell, Column, arms, layout_of, seeds
from lethe.reporting.scales import format_fixed
from lethe.reporting.trial_views import metric_value

ORIGINAL, ORACLE = "Original", "Oracle"


@dataclass(frozen=True)
class TableRow:
    """An arm, or a model that the study does not train (`arm` is None); one cell per column, in its unit."""

    name: str
    cells: tuple[Cell, ...]
    arm: Arm | None = None

    @property
    def feasible(self) -> str:
        """`2/3`: of how many seeds the chosen trial is above every floor; a dash without an arm."""
        if self.arm is None:
            return "–"
        return f"{sum(trial.feasible for trial in self.arm.chosen)}/{len(self.arm.seeds)}"

    @property
    def forgotten(self) -> str:
        """`1 partly, 2 no`: the verdicts on the chosen models; a dash without any."""
        return (self.arm and count_verdicts(self.arm.chosen)) or "–"

    @property
    def complete(self) -> str:
        """`7/9`: how many of the arm's trials were complete; a dash without an arm."""
        return f"{len(self.arm.complete)}/{sum(len(seed.trials) for seed in self.arm.seeds)}" if self.arm else "–"


def result_rows(record: StudyRecord, columns: Sequence[Column]) -> list[TableRow]:
    """Return the rows of start model, oracle (if there is one), references and every arm by its chosen trials."""
    models = {ORIGINAL: record.start, ORACLE: record.oracle}
    rows = [
        TableRow(name, tuple(Cell((metric_value(model.metrics, column.key) * column.factor,)) for column in columns))
        for name, model in models.items()
        if model
    ]
    references_first = sorted(arms(record), key=lambda arm: not arm.reference)
    return rows + [TableRow(arm.name, tuple(map(arm.column_cell, columns)), arm) for arm in references_first]


def count_verdicts(trials: Iterable[TrialRecord]) -> str:
    """Return how many of the judged trials have forgotten: `1 partly, 2 no`; empty where none is judged."""
    counts = Counter(trial.forgotten.forgotten for trial in trials if trial.forgotten)
    return ", ".join(f"{counts[word]} {word}" for word in get_args(Forgotten) if counts[word])


def cost_rows(arms: Iterable[Arm]) -> list[TableRow]:
    """Return a row per arm with the columns `COSTS`; each cell has all complete trials of the arm."""
    return [TableRow(arm.name, tuple(_trials_cell(arm, column) for column in COSTS), arm) for arm in arms]


def _trials_cell(arm: Arm, column: Column) -> Cell:
    return Cell(tuple(metric_value(trial.metrics, column.key) * column.factor for trial in arm.complete))


def column_groups(columns: Iterable[Column]) -> list[tuple[str, int]]:
    """Return the heading and the length of each run of columns under one heading."""
    return [(name, len(list(run))) for name, run in groupby(column.group for column in columns)]


def format_mean(cell: Cell, column: Column) -> str:
    """Return the cell's mean with the column's decimals; a dash without a number."""
    return format_fixed(cell.mean, column.decimals)


def format_spread(cell: Cell, column: Column) -> str:
    """Return the cell's spread as `± 0.012`; empty where there is none."""
    return "" if cell.spread is None else f"± {format_fixed(cell.spread, column.decimals)}"


def format_values(cell: Cell, column: Column) -> str:
    """Return the number of every seed, joined by commas."""
    return ", ".join(format_fixed(number, column.decimals) for number in cell.values)


def comparison_csv(record: StudyRecord) -> str:
    """Return comparison.csv: a line per row and column of the table with mean, spread and each seed's number.

    Numbers are as measured (shares, not percent); a field is empty where there is no number.
    """
    columns = [replace(column, factor=1.0) for column in layout_of(record).columns]
    file = StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(["row", "group", "metric", "mean", "spread", "seeds", *(f"seed_{seed}" for seed in seeds(record))])
    for row in result_rows(record, columns):
        for column, cell in zip(columns, row.cells, strict=True):
            summary = [_none_for_nan(cell.mean), cell.spread, len(cell.known) if row.arm else None]
            by_seed = cell.values if row.arm else [math.nan] * len(seeds(record))
            lines.writerow([row.name, column.group, column.key, *summary, *map(_none_for_nan, by_seed)])
    return file.getvalue()


def _none_for_nan(number: float) -> float | None:
    return None if math.isnan(number) else number
