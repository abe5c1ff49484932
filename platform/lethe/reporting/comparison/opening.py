"""The first screen of a comparison: which pairs differ, what was done, what won, what it cost, what to trust."""

from __future__ import annotations

from lethe.config.comparison import REFERENCE_METHODS
from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import arms, layout_of
from lethe.reporting.comparison.judgements import describe_findings, judgements
from lethe.reporting.comparison.summary import tested
from lethe.reporting.opening import Opening, describe_cost, describe_task
from lethe.reporting.scales import format_count


def comparison_opening(record: StudyRecord) -> Opening:
    """Return the first screen of a comparison; its sentence is the first paired test's."""
    study_arms = arms(record)
    tests = tested(record, study_arms) or ["No two arms differ in one thing only, so none are tested as a pair."]
    findings = describe_findings(study_arms, judgements(study_arms, layout_of(record).judged))
    seeds, trials = format_count(len(study_arms[0].seeds), "seed"), format_count(len(record.trials), "trial")
    facts = {
        "What was done": f"{format_count(len(study_arms), 'arm')} with {seeds} each, {trials}. {describe_task(record)}",
        "What won": " ".join(findings) or "No arm has a trial above the floors.",
        "Is it enough": describe_enough(record),
        "What it cost": describe_cost(record),
        "How far to trust it": describe_spread(record, len(study_arms[0].seeds)),
    }
    return Opening(None, tests[0], " ".join(tests[1:]), None, facts)


def describe_enough(record: StudyRecord) -> str:
    """Return how many models on the arms' common front have forgotten, by the study's criteria."""
    judged = [trial.forgotten.forgotten for trial in record.front if trial.forgotten]
    if not record.front:
        return "No trial is better than every floor."
    if not judged:
        return "Not judged: no criterion about forgetting was checked."
    return f"{judged.count('yes')} of {format_count(len(judged), 'model')} on the common front meet every criterion."


def describe_spread(record: StudyRecord, seeds: int) -> str:
    """Return what stands behind the numbers: seeds, references, and an end before time."""
    spread = f"Means over {seeds} seeds, with their spread." if seeds > 1 else "One seed, so there is no spread."
    # A record from before references left the front has them on it.
    on_front = any(trial.params.get("objective.name") in REFERENCE_METHODS for trial in record.front)
    place = ", in this record on the front" if on_front else " and not on the front"
    sides = f"Retraining and the input guard are references{place}."
    return " ".join([spread, sides, *(["The study was interrupted."] if record.interrupted else [])])
