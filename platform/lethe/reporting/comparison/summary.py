"""A comparison as the page shows it, worked out once, and as a terminal shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lethe.records import Sample, StudyRecord
from lethe.reporting.comparison.arm_fronts import ArmFrontsView, arm_fronts_table, arm_fronts_view
from lethe.reporting.comparison.arms import COSTS, HYPERVOLUME, Arm, Column, Layout, arms, layout_of, seeds
from lethe.reporting.comparison.boundaries import ChosenSettings, boundary_hits, chosen_settings
from lethe.reporting.comparison.claims import claims
from lethe.reporting.comparison.figures import (
    CostPlot,
    HypervolumeStrip,
    arm_charts,
    cost_plot,
    curve_columns,
    hypervolume_strip,
)
from lethe.reporting.comparison.findings import describe_claim, describe_test, describe_volumes
from lethe.reporting.comparison.tables import (
    ORACLE,
    ORIGINAL,
    TableRow,
    cost_rows,
    format_mean,
    format_spread,
    result_rows,
)
from lethe.reporting.comparison.verdict_table import ClaimView, claim_views
from lethe.reporting.curves import Chart
from lethe.reporting.scales import format_count
from lethe.reporting.trial_views import answers_by_question
from lethe.terminal import PIPED_WIDTH, Terminal

Answers = tuple[Arm | None, str, list[str | None]]


@dataclass(frozen=True)
class ComparisonView:
    """Everything that the page shows of a comparison.

    `findings` are short sentences, `test` says how claims are tested; `charts`: by metric. `second_order`: an arm has
    such an optimizer; `references`: an arm is one. `answers`: the arm (None: a model that is not trained),
    its name and its answer to each of `questions` (None: not kept).
    """

    layout: Layout
    caption: str
    second_order: bool
    references: bool
    findings: list[str]
    test: str
    claims: list[ClaimView]
    rows: list[TableRow]
    charts: dict[str, Chart]
    strip: HypervolumeStrip
    cost: CostPlot | None
    questions: list[Sample]
    answers: list[Answers]
    cost_columns: tuple[Column, ...]
    costs: list[TableRow]
    settings: list[ChosenSettings]
    fronts: ArmFrontsView | None


def comparison_view(record: StudyRecord) -> ComparisonView | None:
    """Return the view of a comparison; None for a plain study."""
    study_arms = arms(record)
    if not study_arms:
        return None
    layout = layout_of(record)
    questions = example_questions(record)
    return ComparisonView(
        layout,
        table_caption(record, layout),
        any(arm.second_order for arm in study_arms),
        any(arm.reference for arm in study_arms),
        [*map(describe_claim, claims(record)), *describe_volumes(study_arms)],
        describe_test(claims(record)),
        claim_views(record, boundary_hits(record, study_arms)),
        result_rows(record, layout.columns),
        arm_charts(record, study_arms, curve_columns(record, layout)),
        hypervolume_strip(study_arms),
        cost_plot(study_arms, *layout.cost) if layout.cost else None,
        questions,
        example_answers(record, study_arms, questions),
        COSTS,
        cost_rows(study_arms),
        chosen_settings(record, study_arms),
        arm_fronts_view(record),
    )


def table_caption(record: StudyRecord, layout: Layout) -> str:
    """Return the sentences that say which trials a row of the table has."""
    count = len(seeds(record))
    over = f"mean ± sample standard deviation over {count} seeds" if count > 1 else "one seed, so there is no spread"
    return (
        f"Columns as in {layout.source}, then ours. Each arm: {over}. For every seed stands one trial: the knee of "
        "the arm's own front, or, where no trial is above the floors, the complete trial that is least below them; "
        "'Seeds above floors' says of how many seeds it is above. A dash: no such number."
    )


def example_questions(record: StudyRecord) -> list[Sample]:
    """Return at most two questions: one to forget, and one to answer as before (of world facts where there is one)."""
    samples = [*record.start.samples, *(sample for trial in record.trials for sample in trial.samples)]
    forget = [sample for sample in samples if sample.split == "forget"]
    others = [sample for sample in samples if sample.split != "forget"]
    others.sort(key=lambda sample: sample.split != "world_facts")
    return forget[:1] + others[:1]


def example_answers(record: StudyRecord, arms: list[Arm], questions: list[Sample]) -> list[Answers]:
    """Return the start model's answers to the questions, then the oracle's, then every arm's."""
    models = [(ORIGINAL, record.start), *([(ORACLE, record.oracle)] if record.oracle else [])]
    samples: list[tuple[Arm | None, str, tuple[Sample, ...]]] = [(None, name, model.samples) for name, model in models]
    samples += [(arm, arm.name, next((t.samples for t in arm.chosen if t.samples), ())) for arm in arms]

    def answers(of_model: tuple[Sample, ...]) -> list[str | None]:
        return [answers_by_question(of_model).get((question.split, question.question)) for question in questions]

    return [(arm, name, answers(of_model)) for arm, name, of_model in samples]


def print_comparison(record: StudyRecord, console: Terminal) -> None:
    """Print the table, then a line for each finding, claim and setting at an end of its range, then the arms' fronts
    where they were run again or audited."""
    study_arms = arms(record)
    console.print(comparison_table(record, console), soft_wrap=True)  # a log is as wide as the table
    for line in (
        *describe_volumes(study_arms),
        describe_test(claims(record)),
        *map(describe_claim, claims(record)),
        *(f"at the edge: {hit}" for hit in boundary_hits(record, study_arms)),
    ):
        console.print(line)
    if fronts := arm_fronts_view(record):
        tables = console if console.is_terminal else Terminal(width=PIPED_WIDTH, file=console.file)
        tables.print(arm_fronts_table(fronts))
        if fronts.fresh:
            console.print(fronts.summary())


def comparison_table(record: StudyRecord, console: Terminal) -> Table:
    """Return the widest table that fits the console: means with spreads, else means, else fewer of the paper's last
    columns; a console that is no terminal fits any."""
    columns = [column for column in layout_of(record).columns if column.group != "ours" or column.key == HYPERVOLUME]
    limit = console.width if console.is_terminal else math.inf
    narrower = [(False, [*columns[:count], columns[-1]]) for count in range(len(columns) - 1, 0, -1)]
    for spreads, chosen in [(True, columns), *narrower]:
        table = _table(record, chosen, spreads)
        table.width = console.measure(table, options=console.options.update(width=1000)).maximum
        if table.width <= limit:
            break
    return table


def _table(record: StudyRecord, columns: Sequence[Column], spreads: bool) -> Table:
    over = f"{'mean ± spread' if spreads else 'means'} over {format_count(len(seeds(record)), 'seed')}"
    title = f"{record.id}: the arms' chosen trials, {over}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("arm")
    for column in columns:
        table.add_column("\n".join(f"{column.group} {column.title}".removeprefix("ours ").split()), justify="right")
    table.add_column("above\nfloors", justify="right")
    for row in result_rows(record, columns):
        cells = zip(row.cells, columns, strict=True)
        texts = (f"{format_mean(cell, c)} {format_spread(cell, c) if spreads else ''}".strip() for cell, c in cells)
        table.add_row(row.name, *texts, row.feasible)
    return table
