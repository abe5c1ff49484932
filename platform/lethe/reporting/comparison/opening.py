"""The first screen of a comparison: which pairs differ, what was done, what won, what it cost, what to trust."""

from __future__ import annotations

from collections.abc import Sequence

from lethe.records import StudyRecord
from lethe.reporting.comparison.arms import Arm, arms, arms_by_volume, best_arm, layout_of
from lethe.reporting.comparison.judgements import arm_pairs, describe_findings, judgements, lead_of
from lethe.reporting.comparison.paired_trials import (
    ALPHA,
    FEWEST_DRAWS,
    describe_difference_of_pairs,
    paired_trials,
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
        "What won": " ".join(describe_findings(study_arms, [])) or "No arm has a trial above the floors.",
        "Is it enough": describe_enough(record, study_arms),
        "What it cost": describe_cost(record),
        "How far to trust it": describe_spread(record, study_arms),
    }
    differences = describe_differences(record, study_arms)
    best = best_arm(study_arms)
    won = _lead(best, study_arms) if best else "No arm is above the floors"
    sentence = f"{won}; {differences}." if differences else f"{won}."
    return Opening(None, sentence, describe_evidence(record, study_arms), None, facts)


def _lead(best: Arm, arms: Sequence[Arm]) -> str:
    """Return which arm leads; none does where the best one's lead over the next is no larger than the spread."""
    first, *others = arms_by_volume(arms)
    if others and lead_of(first, others[0]).verdict == "within the spread":
        return f"No arm leads: {best.name} has the largest hypervolume, within the spread"
    return f"{best.name} has the largest hypervolume"


def describe_differences(record: StudyRecord, arms: Sequence[Arm]) -> str:
    """Return in how many pairs of arms the second is better or worse: by paired tests where there are enough equal
    draws, else by the first column that the comparison judges; empty without a pair."""
    if tests := paired_trials(record, arms):
        return describe_difference_of_pairs(tests)
    return describe_difference_of_pairs(judgements(arms, layout_of(record).judged[:1]))


def describe_evidence(record: StudyRecord, arms: Sequence[Arm]) -> str:
    """Return by which test pairs are said to differ."""
    tests, pairs = paired_trials(record, arms), len(arm_pairs(arms))
    if tests:
        draws = sorted({test.better + test.worse + test.same for test in tests})
        count = str(draws[0]) if len(draws) == 1 else f"{draws[0]} to {draws[-1]}"
        return (
            f"By sign tests over {count} trials of each arm with equal settings (p < {ALPHA} after Holm's correction)."
        )
    if not pairs:
        return "No two arms differ in one thing only, so none are tested as a pair."
    column = layout_of(record).judged[0].head
    needs = f"no pair has the {FEWEST_DRAWS} trials with equal settings that a paired test needs"
    return f"By mean {column} against the spread over seeds: {needs}."


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
    if not any(trial.audits for trial in record.front):
        sentences.append("Not audited: the answers may be hidden and not gone.")
    if record.interrupted:
        sentences.append("The study was interrupted.")
    return " ".join(sentences)
