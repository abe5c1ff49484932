"""Tables of a comparison as rows of cells: the paper's columns by arm, also as CSV, and the costs of each arm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import get_args

from lethe.records import Forgotten, StudyRecord, TrialRecord
from lethe.reporting.comparison.arms import COSTS, Arm, Cell, Column, arms
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
