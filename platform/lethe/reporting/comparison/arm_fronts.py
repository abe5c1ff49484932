"""Every arm's front after the searches: its members with fresh seeds, their verdicts, and what audits bring out of
them, beside start model and oracle."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lethe.config.audits import Audit, audit_of, variant_meanings
from lethe.records import ArmFrontRecord, AuditRecord, Confirmation, StudyRecord, TrialRecord
from lethe.reporting.comparison.arms import Arm, arms
from lethe.reporting.comparison.tables import ORACLE, ORIGINAL, count_verdicts
from lethe.reporting.confirmation_and_audits import leak_order
from lethe.reporting.scales import format_number
from lethe.reporting.terms import NAMES
from lethe.reporting.trial_views import metric_value


@dataclass(frozen=True)
class MeanSpread:
    """The mean of an objective over members, each by the mean of its fresh runs; `spread`: the root of the mean square
    of their sample standard deviations. NaN where nothing was run again."""

    mean: float
    spread: float

    def __str__(self) -> str:
        return "–" if math.isnan(self.mean) else f"{format_number(self.mean)} ± {format_number(self.spread)}"


UNKNOWN = MeanSpread(math.nan, math.nan)


@dataclass(frozen=True)
class AuditColumn:
    """An audit with its `variants` that were tried and the `metric` that is shown: the first that all of them
    measure."""

    name: str
    metric: str
    variants: tuple[str, ...]

    @property
    def title(self) -> str:
        """The audit's name as people write it."""
        return NAMES.get(self.name, self.name)


@dataclass(frozen=True)
class Change:
    """A number before and after: of an audit, of fresh seeds. NaN where it is not known."""

    before: float
    after: float

    def __str__(self) -> str:
        if math.isnan(self.after):
            return "–"
        return f"{format_number(self.before)} → {format_number(self.after)}"


@dataclass(frozen=True)
class FrontRow:
    """A row of the table: an arm with its `front` and `members`, or a model that is not trained (both None or empty).

    `objectives` are by goal, `changes` by audit: of each model the variant that brings out most, then their mean.
    """

    name: str
    arm: Arm | None
    front: ArmFrontRecord | None
    members: tuple[TrialRecord, ...]
    objectives: dict[str, MeanSpread]
    changes: dict[str, Change]

    @property
    def repeats(self) -> list[Confirmation]:
        """The members' confirmations."""
        return [trial.confirmation for trial in self.members if trial.confirmation]

    @property
    def confirmed(self) -> int | None:
        """The number of members that stay on the arm's front by their means; None without fresh seeds."""
        return sum(repeat.confirmed for repeat in self.repeats) if self.repeats else None

    @property
    def volumes(self) -> Change:
        """The members' hypervolume as the search saw it, and that of the confirmed ones by their means."""
        if self.front is None or self.front.confirmed_hypervolume is None:
            return Change(math.nan, math.nan)
        return Change(self.front.hypervolume, self.front.confirmed_hypervolume)

    @property
    def forgotten(self) -> str:
        """The verdicts on the members, `2 yes, 1 no`; a dash without any."""
        return count_verdicts(self.members) or "–"

    @property
    def fresh_forgotten(self) -> str:
        """The verdicts on the members' fresh runs; a dash without any."""
        return count_verdicts(run for repeat in self.repeats for run in repeat.runs) or "–"

    @property
    def utility(self) -> float:
        """The largest mean utility of the fresh runs of a member all of whose runs have forgotten; NaN without one."""
        means = [mean(run.metrics["utility"] for run in repeat.runs) for repeat in self.repeats if _always(repeat)]
        return max(means, default=math.nan)


def _always(repeat: Confirmation) -> bool:
    return bool(repeat.runs) and all(
        run.forgotten is not None and run.forgotten.forgotten == "yes" and "utility" in run.metrics
        for run in repeat.runs
    )


@dataclass(frozen=True)
class ArmFrontsView:
    """What the page shows of the arms' fronts, with `goals` and `audits` as columns. `models` are start model and
    oracle; `meanings`: of the audits' variants."""

    goals: tuple[str, ...]
    audits: tuple[AuditColumn, ...]
    models: tuple[FrontRow, ...]
    rows: tuple[FrontRow, ...]
    meanings: dict[str, str]

    @property
    def fresh(self) -> bool:
        """Whether members were run again."""
        return any(row.repeats for row in self.rows)

    @property
    def judged(self) -> bool:
        """Whether a member has a verdict."""
        return any(trial.forgotten for row in self.rows for trial in row.members)

    def summary(self) -> str:
        """Return in a sentence or two how many members were confirmed; "" without fresh seeds."""
        again = [repeat for row in self.rows for repeat in row.repeats]
        if not again:
            return ""
        confirmed, seeds = sum(repeat.confirmed for repeat in again), max(len(repeat.runs) for repeat in again)
        none = [row.name for row in self.rows if row.repeats and not row.confirmed]
        without = f" None of {', '.join(none)}." if none else ""
        return (
            f"{confirmed} of {len(again)} members of the arms' fronts stay on their arm's front by the mean of {seeds} "
            f"fresh seeds.{without}"
        )


def arm_fronts_view(record: StudyRecord) -> ArmFrontsView | None:
    """Return the view of the arms' fronts; None where they were neither confirmed nor audited."""
    if not record.arm_fronts:
        return None
    trials, by_name = {trial.number: trial for trial in record.trials}, {arm.name: arm for arm in arms(record)}
    members = [tuple(trials[number] for number in front.members) for front in record.arm_fronts]
    given = {ORIGINAL: record.start.audits, ORACLE: record.oracle.audits if record.oracle else ()}
    audits = tuple(_audit_columns([*given.values(), *(trial.audits for own in members for trial in own)]))
    goals = tuple(goal.metric for goal in record.objectives)
    models = tuple(
        FrontRow(name, None, None, (), {}, {column.name: _mean_change([found], column) for column in audits})
        for name, found in given.items()
        if found
    )
    rows = tuple(
        FrontRow(
            front.arm,
            by_name.get(front.arm),
            front,
            own,
            {goal: _mean_spread([trial.confirmation for trial in own if trial.confirmation], goal) for goal in goals},
            {column.name: _mean_change([trial.audits for trial in own], column) for column in audits},
        )
        for front, own in zip(record.arm_fronts, members, strict=True)
    )
    tried = {variant for column in audits for variant in column.variants}
    meanings = {name: meaning for name, meaning in variant_meanings().items() if name in tried}
    return ArmFrontsView(goals, audits, models, rows, meanings)


def _mean_spread(repeats: Sequence[Confirmation], goal: str) -> MeanSpread:
    means = [metric_value(repeat.mean, goal) for repeat in repeats if repeat.mean]
    squares = [metric_value(repeat.spread, goal) ** 2 for repeat in repeats if repeat.mean]
    return MeanSpread(mean(means), math.sqrt(mean(squares))) if means else UNKNOWN


def _audit_columns(models: Iterable[Sequence[AuditRecord]]) -> Iterator[AuditColumn]:
    measured = {audit.variant: set(audit.after) for audits in models for audit in audits if audit.after}
    variants = [variant for variant in variant_meanings() if variant in measured]
    for name in Audit.registered:
        own = tuple(variant for variant in variants if audit_of(variant) == name)
        shared = set.intersection(*(measured[variant] for variant in own)) if own else set()
        if shared:
            yield AuditColumn(name, min(shared, key=leak_order), own)


def audit_with(audits: Iterable[AuditRecord], variant: str) -> AuditRecord | None:
    """Return the audit of this variant, None where there is none."""
    return next((audit for audit in audits if audit.variant == variant), None)


def _mean_change(models: Iterable[Sequence[AuditRecord]], column: AuditColumn) -> Change:
    """Return the means over models of the metric before and after the variant that brings out most of each."""
    strongest = []
    for audits in models:
        own = [a for a in audits if a.variant in column.variants and column.metric in a.after]
        if own:
            strongest.append(max(own, key=lambda audit: audit.after[column.metric]))
    if not strongest:
        return Change(math.nan, math.nan)
    before = mean(metric_value(audit.before, column.metric) for audit in strongest)
    return Change(before, mean(audit.after[column.metric] for audit in strongest))


def arm_fronts_table(view: ArmFrontsView) -> Table:
    """Return the arms' fronts, start model and oracle for a terminal."""
    table = Table(title="every arm's front afterwards", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("arm", no_wrap=True)
    fresh = ("confirmed", "hypervolume", *view.goals) if view.fresh else ()
    for column in ("members", *fresh, *(["forgotten"] if view.judged else []), *(found.title for found in view.audits)):
        table.add_column(column, justify="right")
    for row in (*view.models, *view.rows):
        cells = [f"{len(row.members)} of {len(row.front.front)}" if row.front else "–"]
        if view.fresh:
            means = [row.objectives[goal] if row.front else UNKNOWN for goal in view.goals]
            cells += ["–" if row.confirmed is None else str(row.confirmed), str(row.volumes), *map(str, means)]
        cells += [row.forgotten] if view.judged else []
        table.add_row(row.name, *cells, *(str(row.changes[column.name]) for column in view.audits))
    return table


def csv_lines(record: StudyRecord) -> Iterator[tuple[str, str, str, float | None, float | None, int | None]]:
    """Yield row, group, metric, mean, spread and number of members for comparison.csv; nothing without arms' fronts."""
    view = arm_fronts_view(record)
    for row in (*view.models, *view.rows) if view else ():
        count = len(row.members) or None
        if row.front:
            yield row.name, "arm's front", "members", count or 0, None, None
            yield row.name, "arm's front", "hypervolume_of_members", row.front.hypervolume, None, count
        if row.front and row.repeats:
            repeats = len(row.repeats)
            yield row.name, "fresh seeds", "confirmed", row.confirmed, None, repeats
            yield row.name, "fresh seeds", "hypervolume", row.front.confirmed_hypervolume, None, repeats
            yield row.name, "fresh seeds", "utility_where_all_forget", _known(row.utility), None, repeats
            for goal, found in row.objectives.items():
                yield row.name, "fresh seeds", goal, _known(found.mean), _known(found.spread), repeats
        for word in ("yes", "partly", "no") if any(trial.forgotten for trial in row.members) else ():
            verdicts = [trial.forgotten.forgotten for trial in row.members if trial.forgotten]
            yield row.name, "forgotten", word, verdicts.count(word), None, len(verdicts)
        for column in view.audits if view else ():
            change = row.changes[column.name]
            yield row.name, column.name, f"{column.metric}_before", _known(change.before), None, count
            yield row.name, column.name, f"{column.metric}_after", _known(change.after), None, count


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number
