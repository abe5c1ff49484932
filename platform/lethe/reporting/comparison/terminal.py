"""A comparison on a terminal: the paper's columns and the hypervolume, what came out, settings at the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import arms, seeds
from lethe.reporting.comparison.draws import draws
from lethe.reporting.comparison.edges import edges
from lethe.reporting.comparison.layouts import HYPERVOLUME, Column, layout_of
from lethe.reporting.comparison.pairs import judgements, said, sentence
from lethe.reporting.comparison.table import mean, spread, table
from lethe.reporting.scales import count


def print_comparison(record: StudyRecord, console: Console) -> None:
    """The table, then one line per finding."""
    found = arms(record)
    console.print(comparison_table(record, console), soft_wrap=True)  # a log is as wide as the table
    judged = judgements(found, layout_of(record).judged)
    at_edges = (f"at the edge: {edge}" for edge in edges(record, found))
    for line in (*said(found, judged), *map(sentence, judged), *map(str, draws(record, found)), *at_edges):
        console.print(line, markup=False)


def comparison_table(record: StudyRecord, console: Console) -> Table:
    """Means with spreads; where the terminal is too narrow means alone, then fewer of the paper's last columns."""
    columns = [column for column in layout_of(record).columns if column.group != "ours" or column.key == HYPERVOLUME]
    limit = console.width if console.is_terminal else math.inf
    smaller = [(False, [*columns[:kept], columns[-1]]) for kept in range(len(columns) - 1, 0, -1)]
    for spreads, kept in [(True, columns), *smaller]:
        shown = _table(record, kept, spreads)
        shown.width = console.measure(shown, options=console.options.update(width=1000)).maximum
        if shown.width <= limit:
            break
    return shown


def _table(record: StudyRecord, columns: Sequence[Column], spreads: bool) -> Table:
    of = f"{'mean ± spread' if spreads else 'means'} over {count(len(seeds(record)), 'seed')}"
    title = f"{record.id}: the arms' chosen trials, {of}"
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("arm")
    for column in columns:
        shown.add_column("\n".join(f"{column.group} {column.title}".removeprefix("ours ").split()), justify="right")
    shown.add_column("above\nfloors", justify="right")
    for row in table(record, columns):
        cells = zip(row.cells, columns, strict=True)
        texts = (f"{mean(cell, c)} {spread(cell, c) if spreads else ''}".strip() for cell, c in cells)
        shown.add_row(row.name, *texts, row.feasible)
    return shown
