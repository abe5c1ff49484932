"""comparison.csv: the table of a comparison with every seed's numbers, then what came after the searches."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from io import StringIO

from lethe.records import StudyRecord
from lethe.reporting.comparison.arm_fronts import csv_lines
from lethe.reporting.comparison.arms import layout_of, seeds
from lethe.reporting.comparison.tables import result_rows


def comparison_csv(record: StudyRecord) -> str:
    """Return comparison.csv: a line per row and column of the table with mean, spread and each seed's number; then, for
    each arm whose front was confirmed or audited, its members' numbers.

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
    without_seeds = [None] * len(seeds(record))
    lines.writerows([*line, *without_seeds] for line in csv_lines(record))
    return file.getvalue()


def _none_for_nan(number: float) -> float | None:
    return None if math.isnan(number) else number
