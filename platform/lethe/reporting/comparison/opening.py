"""The first screen of a comparison: which pairs differ, what was done, what won, what it cost, what to trust."""

from __future__ import annotations

from collections.abc import Sequence

from lethe.records import StudyRecord
from lethe.reporting.comparison.arm_fronts import arm_fronts_view
from lethe.reporting.comparison.arms import Arm, arms, best_arm
from lethe.reporting.comparison.claims import claims
from lethe.reporting.comparison.findings import (
    describe_claims_briefly,
    describe_test,
    describe_volumes,
)
from lethe.reporting.comparison.tables import count_verdicts
from lethe.reporting.opening import Opening, describe_cost, describe_task
from lethe.reporting.scales import format_count


def comparison_opening(record: StudyRecord) -> Opening:
    """Return the first screen of a comparison; its sentence says which pairs differ, and which arm won."""
    study_arms = arms(record)
    seeds, trials = format_count(len(study_arms[0].seeds), "seed"), format_count(len(record.trials), "trial")
    facts = {
        "What was done": f"{format_count(len(study_arms), 'arm')} with {seeds} each, {trials}. {describe_task(record)}",
        "What won": " ".join(describe_volumes(study_arms)) or "No arm has a trial above the floors.",
        "Is it enough": describe_enough(record, study_arms),
        "What it cost": describe_cost(record),
        "How far to trust it": describe_spread(record, study_arms),
    }
    found = claims(record)
    best = best_arm(study_arms)
    won = f"{best.name} has the largest hypervolume" if best else "No arm is above the floors"
    verdicts = describe_claims_briefly(found)
    return Opening(None, f"{won}; {verdicts}." if verdicts else f"{won}.", describe_test(found), None, facts)


def describe_enough(record: StudyRecord, arms: Sequence[Arm]) -> str:
    """Return how many models on the common front have forgotten, by the study's criteria, and of the best arm."""
    if not record.front:
        return "No: no trial is better than every floor."
    verdicts = count_verdicts(record.front)
    if not verdicts:
        return "Not judged: no criterion about forgetting was checked."
    passed = any(trial.forgotten and trial.forgotten.forgotten == "yes" for trial in record.front)
    whether = "Yes" if passed else "No: no model on the common front meets every criterion"
    best = best_arm(arms)
    of_best = f"; of {best.name}'s, by seed: {own}" if best and (own := count_verdicts(best.chosen)) else ""
    return f"{whether}. Forgotten: {verdicts} of {format_count(len(record.front), 'model')}{of_best}."


def describe_spread(record: StudyRecord, arms: Sequence[Arm]) -> str:
    """Return what stands behind the numbers: seeds, references, and an end before time."""
    seeds = len(arms[0].seeds)
    sentences = [f"Means over {seeds} seeds, with their spread." if seeds > 1 else "One seed, so there is no spread."]
    names = [arm.name for arm in arms if arm.reference]
    if names:
        noun = "a reference" if len(names) == 1 else "references"
        # A record from before references left the front has them on it.
        on_front = any(trial.params.get("arm") in names for trial in record.front)
        place = ", in this record on the front" if on_front else " and not on the front"
        sentences.append(f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} {noun}{place}.")
    unequal = {len(seed.trials) for arm in arms if not arm.reference for seed in arm.seeds if seed.trials}
    if len(unequal) > 1:
        sentences.append("Arms have unequal numbers of trials.")
    if (fronts := arm_fronts_view(record)) and fronts.fresh:
        sentences.append(fronts.summary())
    if not any(trial.audits for trial in record.trials):
        sentences.append("Not audited: the answers may be hidden and not gone.")
    if record.interrupted:
        sentences.append("The study was interrupted.")
    return " ".join(sentences)
