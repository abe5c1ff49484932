"""Everything the page says about a comparison, worked out once.

A comparison on a terminal: the paper's columns and the hypervolume, what came out, settings at the edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lethe.records import Sample, StudyRecord
from lethe.reporting.comparison.arms import COSTS, HYPERVOLUME, Arm, Column, Layout, arms, layout_of, seeds
from lethe.reporting.comparison.figures import Cost, Strip, arm_charts, cost, strip
from lethe.reporting.comparison.judgements import (
    BoundaryHit,
    boundary_hits,
    describe_pair,
    judgements,
    paired_trials,
    sentence,
)
from lethe.reporting.comparison.tables import ORACLE, ORIGINAL, TableRow, costs, mean, spread, table
from lethe.reporting.curves import Chart
from lethe.reporting.scales import format_count
from lethe.reporting.trial_views import by_question
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

Answers = tuple[Arm | None, str, list[str | None]]


@dataclass(frozen=True)
class Comparison:
    """`said` in short, then `pairs`, a sentence each. `answers`: who, under which name, said what to each of
    `questions` (None: not kept)."""

    layout: Layout
    caption: str
    sentences: list[str]
    pairs: list[str]
    rows: list[TableRow]
    charts: list[Chart]
    strip: Strip
    cost: Cost | None
    questions: list[Sample]
    answers: list[Answers]
    cost_columns: tuple[Column, ...]
    costs: list[TableRow]
    boundary_hits: list[BoundaryHit]


def comparison(record: StudyRecord) -> Comparison | None:
    """None for a plain study."""
    found = arms(record)
    if not found:
        return None
    layout = layout_of(record)
    judged = judgements(found, layout.judged)
    asked = questions(record)
    return Comparison(
        layout,
        caption(record, layout),
        describe_pair(found, judged),
        [*map(sentence, judged), *map(str, paired_trials(record, found))],
        table(record, layout.columns),
        arm_charts(record, found, curves(record, layout)),
        strip(found),
        cost(found, *layout.cost) if layout.cost else None,
        asked,
        answers(record, found, asked),
        COSTS,
        costs(found),
        boundary_hits(record, found),
    )


def curves(record: StudyRecord, layout: Layout) -> list[Column]:
    """The paper's, then the objectives."""
    goals = [Column(goal.metric, goal.metric, better=goal.direction) for goal in record.objectives]
    return [*layout.curves, *(goal for goal in goals if goal.key not in {column.key for column in layout.curves})]


def caption(record: StudyRecord, layout: Layout) -> str:
    """What a row of the table is."""
    count = len(seeds(record))
    over = f"mean ± sample standard deviation over {count} seeds" if count > 1 else "one seed, so there is no spread"
    return (
        f"Columns as in {layout.source}, then ours. Each arm: {over}. For every seed stands one trial: the knee of "
        "the arm's own front, or, where no trial is above the floors, the complete trial that is least below them; "
        "the last column says of how many seeds it is above. A dash: no such number."
    )


def questions(record: StudyRecord) -> list[Sample]:
    """What is shown as an example: a forget question, and one that should be answered as before."""
    kept = [*record.start.samples, *(sample for trial in record.trials for sample in trial.samples)]
    forget = [sample for sample in kept if sample.split == "forget"]
    others = sorted((s for s in kept if s.split != "forget"), key=lambda sample: sample.split != "world_facts")
    return forget[:1] + others[:1]


def answers(record: StudyRecord, of: list[Arm], asked: list[Sample]) -> list[Answers]:
    """The start model's first, then the oracle's, then every arm's."""
    models = [(ORIGINAL, record.start), *([(ORACLE, record.oracle)] if record.oracle else [])]
    kept: list[tuple[Arm | None, str, tuple[Sample, ...]]] = [(None, name, model.samples) for name, model in models]
    kept += [(arm, arm.name, next((t.samples for t in arm.chosen if t.samples), ())) for arm in of]

    def describe_pair(samples: tuple[Sample, ...]) -> list[str | None]:
        return [by_question(samples).get((sample.split, sample.question)) for sample in asked]

    return [(arm, name, describe_pair(samples)) for arm, name, samples in kept]


def print_comparison(record: StudyRecord, console: Console) -> None:
    """The table, then one line per finding."""
    found = arms(record)
    console.print(comparison_table(record, console), soft_wrap=True)  # a log is as wide as the table
    judged = judgements(found, layout_of(record).judged)
    at_edges = (f"at the edge: {edge}" for edge in boundary_hits(record, found))
    for line in (
        *describe_pair(found, judged),
        *map(sentence, judged),
        *map(str, paired_trials(record, found)),
        *at_edges,
    ):
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
    of = f"{'mean ± spread' if spreads else 'means'} over {format_count(len(seeds(record)), 'seed')}"
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
