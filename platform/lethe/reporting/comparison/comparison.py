"""Everything the page says about a comparison, worked out once."""

from __future__ import annotations

from dataclasses import dataclass

from lethe.records import Sample, StudyRecord
from lethe.reporting.comparison.arms import Arm, arms, seeds
from lethe.reporting.comparison.curves import Cost, Strip, arm_charts, cost, strip
from lethe.reporting.comparison.draws import draws
from lethe.reporting.comparison.edges import Edge, edges
from lethe.reporting.comparison.layouts import COSTS, Column, Layout, layout_of
from lethe.reporting.comparison.pairs import judgements, said, sentence
from lethe.reporting.comparison.table import ORACLE, ORIGINAL, Row, costs, table
from lethe.reporting.facts import by_question
from lethe.reporting.lines import Chart


Answers = tuple[Arm | None, str, list[str | None]]


@dataclass(frozen=True)
class Comparison:
    """`said` in short, then `pairs`, a sentence each. `answers`: who, under which name, said what to each of
    `questions` (None: not kept)."""

    layout: Layout
    caption: str
    said: list[str]
    pairs: list[str]
    rows: list[Row]
    charts: list[Chart]
    strip: Strip
    cost: Cost | None
    questions: list[Sample]
    answers: list[Answers]
    cost_columns: tuple[Column, ...]
    costs: list[Row]
    edges: list[Edge]


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
        said(found, judged),
        [*map(sentence, judged), *map(str, draws(record, found))],
        table(record, layout.columns),
        arm_charts(record, found, curves(record, layout)),
        strip(found),
        cost(found, *layout.cost) if layout.cost else None,
        asked,
        answers(record, found, asked),
        COSTS,
        costs(found),
        edges(record, found),
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

    def said(samples: tuple[Sample, ...]) -> list[str | None]:
        return [by_question(samples).get((sample.split, sample.question)) for sample in asked]

    return [(arm, name, said(samples)) for arm, name, samples in kept]
