"""The verdict on each model of the front: does it count as having forgotten, and if not, why (`config.verdict`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from lethe.config.verdict import Bound, Criterion
from lethe.records import (
    CriterionRecord,
    Forgotten,
    Metrics,
    ModelScores,
    StudyRecord,
    TrialRecord,
    VerdictRecord,
)

WORDS = {"at_least": "at least", "at_most": "at most", "below": "below"}


def with_verdicts(record: StudyRecord, criteria: Mapping[str, Criterion]) -> StudyRecord:
    """Return the record with a verdict on every front member that can be judged, on models that have one already, as
    those of a comparison's searches, and on the runs with fresh seeds."""
    references = _references(record.start, record.oracle)
    front = {trial.number for trial in record.front}

    def judged(trial: TrialRecord) -> TrialRecord:
        changes: dict[str, object] = {"forgotten": judge(trial.numbers, references, criteria)}
        if trial.confirmation:
            runs = tuple(judged(run) if run.verdict == "complete" else run for run in trial.confirmation.runs)
            changes["confirmation"] = trial.confirmation.model_copy(update={"runs": runs})
        return trial.model_copy(update=changes)

    trials = tuple(
        judged(trial) if trial.number in front or trial.forgotten or trial.confirmation else trial
        for trial in record.trials
    )
    return record.model_copy(update={"trials": trials})


def start_note(start: ModelScores, oracle: ModelScores | None, criteria: Mapping[str, Criterion]) -> str | None:
    """Return a line to warn of a start model that meets the deciding criterion, which then tells no model from one that
    has forgotten; None for a start model that does not, or that cannot be judged."""
    references = _references(start, oracle)
    verdict = judge(references["start"], references, criteria)
    if verdict is None or verdict.forgotten == "no":
        return None
    return (
        f"the start model itself counts as having forgotten ({verdict.forgotten}): it does not know the rows to forget"
        " well, or they are too few to tell"
    )


def judge(
    metrics: Metrics, references: Mapping[str, Metrics], criteria: Mapping[str, Criterion]
) -> VerdictRecord | None:
    """Return the verdict on a model with these metrics; None where nothing that decides can be checked.

    The first criterion that can be checked decides, among those that do not ask for a share of the start model's value:
    what is kept of other abilities says nothing about what was forgotten. `no`: it fails; `partly`: it holds, and
    another one fails; `yes`: all hold. A criterion on a metric that the model or its reference model lacks is left out.
    """
    checked, deciding = [], None
    for name, criterion in criteria.items():
        if (found := _check(name, criterion, metrics, references)) is not None:
            checked.append(found)
            deciding = deciding or (None if criterion.is_kept_share else found)
    if deciding is None:
        return None
    forgotten: Forgotten = "yes" if all(c.holds for c in checked) else "partly" if deciding.holds else "no"
    return VerdictRecord(forgotten=forgotten, criteria=tuple(checked))


def _check(
    name: str, criterion: Criterion, metrics: Metrics, references: Mapping[str, Metrics]
) -> CriterionRecord | None:
    """Return what a criterion finds; where it fails, that of an alternative that holds, if one does."""
    if name not in metrics or any(b.of and name not in references.get(b.of, {}) for b in criterion.bounds().values()):
        others = (_check(other, c, metrics, references) for other, c in criterion.instead.items())
        return next((found for found in others if found), None)
    value = metrics[name]
    given = criterion.bounds()
    bounds = {kind: (bound, bound.value(_reference(bound, name, references))) for kind, bound in given.items()}
    own = CriterionRecord(
        metric=name,
        value=value,
        bound=" and ".join(f"{WORDS[kind]} {_in_words(bound, number)}" for kind, (bound, number) in bounds.items()),
        holds=all(_holds(kind, value, number) for kind, (_, number) in bounds.items()),
        start=references["start"].get(name),
    )
    return own if own.holds else next(_holding(criterion, metrics, references), own)


def _holding(criterion: Criterion, metrics: Metrics, references: Mapping[str, Metrics]) -> Iterator[CriterionRecord]:
    for name, other in criterion.instead.items():
        found = _check(name, other, metrics, references)
        if found and found.holds:
            yield found


def _holds(kind: str, value: float, bound: float) -> bool:
    """NaN holds nothing."""
    if kind == "at_least":
        return value >= bound
    return value <= bound if kind == "at_most" else value < bound


def _reference(bound: Bound, name: str, references: Mapping[str, Metrics]) -> float:
    return references[bound.of][name] if bound.of else math.nan


def _in_words(bound: Bound, number: float) -> str:
    """Return `0.08 (oracle + 0.05)`."""
    if bound.of is None:
        return f"{number:.3g}"
    times = "" if bound.times == 1 else f"{bound.times:g} "
    plus = "" if bound.plus == 0 else f" {'-' if bound.plus < 0 else '+'} {abs(bound.plus):g}"
    return f"{number:.3g} ({times}{bound.of}{plus})"


def _references(start: ModelScores, oracle: ModelScores | None) -> dict[str, Metrics]:
    return {"start": start.numbers} | ({"oracle": oracle.numbers} if oracle else {})
