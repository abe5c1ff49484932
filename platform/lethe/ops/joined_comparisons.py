"""One comparison of several that were run apart, on other machines or other days, with other seeds of the same arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from lethe.config.base import canonical_json, leaves, short_digest
from lethe.errors import UserError
from lethe.records import StudyRecord, TrialRecord
from lethe.reporting.comparison.arms import arms
from lethe.search.front import mark_front, with_confirmations
from lethe.search.members import SearchedMember, trials_by_arm, with_arm_fronts, with_members
from lethe.search.objectives import ObjectiveSpace

# Settings that may differ: none of them is a part of a trial.
APART = ("compare.seeds", "compare.pairs", "resources", "tracking", "search.storage", "confirm", "audits", "stop")
# A start model that two machines trained differs in the last bits, and with it the floors.
FLOORS_DIFFER = 1e-3  # relative


def join_comparisons(records: Sequence[StudyRecord]) -> StudyRecord:
    """Return one record with the members of all, their trials numbered anew in the order of the records.

    An arm with a seed that one record has in part and another whole is taken whole. Floors, start model and oracle are
    those of the first record. Fronts are drawn anew, and fresh seeds compared anew, over all members. Raises UserError
    where the records are no parts of one comparison: other settings, data or floors, or the same arm and seed twice.
    """
    first = records[0]
    for record in records:
        _check_part(first, record)
    firsts = [0, *accumulate(1 + max((t.number for t in record.trials), default=-1) for record in records)]
    parts = [_renumbered(record, by) for record, by in zip(records, firsts, strict=False)]
    members = _members(parts)
    objectives = ObjectiveSpace.from_records(first.objectives, first.start.metrics)
    joined = first.model_copy(
        update={
            "id": f"{first.space}-{short_digest(canonical_json([record.id for record in records]))[:8]}",
            "study": _with_seeds(first.study, list(dict.fromkeys(member.seed for member in members))),
            "parts": tuple(record.id for record in records),
            "notes": (*first.notes, *_notes(records)),
            "began": min(record.began for record in records),
            "ended": max(record.ended for record in records),
            "interrupted": any(record.interrupted for record in records),
        }
    )
    return _with_fronts(with_members(joined, members, objectives), members, objectives)


def _check_part(first: StudyRecord, other: StudyRecord) -> None:
    """Raise UserError where `other` is not of the same comparison as `first`."""
    if not other.members:
        raise UserError(f"{other.id} has no arms: only comparisons are joined")
    of_another = f"{other.id} is of another comparison than {first.id}"
    one, two = _settings(first.study), _settings(other.study)
    for key in dict.fromkeys([*one, *two]):
        if one.get(key) != two.get(key):
            raise UserError(f"{of_another}: {key} is {two.get(key)}, not {one.get(key)}")
    if first.digests.get("data") != other.digests.get("data"):
        raise UserError(f"{of_another}: its data are others")
    for goal, twin in zip(first.objectives, other.objectives, strict=True):
        near = math.isclose(goal.floor or 0.0, twin.floor or 0.0, rel_tol=FLOORS_DIFFER)
        if not near or (goal.floor is None) != (twin.floor is None):
            raise UserError(f"{of_another}: the floor of {goal.metric} is {twin.floor}, not {goal.floor}")


def _settings(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide what a trial is, by dotted key."""
    measured = any(name.startswith("audit_") for name in study.get("objectives", {}))  # audits end every trial then
    apart = [name for name in APART if not (measured and name == "audits")]
    return {k: v for k, v in leaves(study) if not any(k == name or k.startswith(f"{name}.") for name in apart)}


def _renumbered(record: StudyRecord, by: int) -> StudyRecord:
    """Return the record with every trial's number larger by `by`, and without addresses in MLflow."""

    def moved(trial: TrialRecord) -> TrialRecord:
        again = trial.confirmation
        if again:
            runs = tuple(run.model_copy(update={"number": by + run.number}) for run in again.runs)
            again = again.model_copy(update={"runs": runs})
        # Its registry and its runs are those of one of several machines.
        update = {"number": by + trial.number, "confirmation": again, "version": "", "page": ""}
        return trial.model_copy(update=update)

    members = tuple(
        member.model_copy(update={"trials": tuple(by + number for number in member.trials)})
        for member in record.members
    )
    return record.model_copy(update={"trials": tuple(map(moved, record.trials)), "members": members})


def _members(parts: Sequence[StudyRecord]) -> list[SearchedMember]:
    """Return every arm with every seed that has trials, once. Raises UserError for one that two parts have as whole."""
    references = {arm.name for arm in arms(parts[0]) if arm.reference}
    found: dict[tuple[str, int], SearchedMember] = {}
    origin: dict[tuple[str, int], str] = {}
    for part in parts:
        trials = {trial.number: trial for trial in part.trials}
        for member in part.members:
            key, own = (member.arm, member.seed), tuple(trials[number] for number in member.trials)
            known = found[key].trials if key in found else ()
            if known and len(known) == len(own):
                where = f"{origin[key]} and {part.id}"
                raise UserError(
                    f"arm {member.arm} with seed {member.seed} is in both {where}: join records of other seeds"
                )
            if len(own) > len(known):
                found[key] = SearchedMember(*key, own, member.arm in references)
                origin[key] = part.id
    return list(found.values())


def _with_seeds(study: Mapping[str, Any], seeds: list[int]) -> dict[str, Any]:
    return {**study, "compare": {**study["compare"], "seeds": seeds}}


def _notes(records: Sequence[StudyRecord]) -> list[str]:
    """Return what the joined record has of each part, and that their models differ where they do."""
    seeds = {record.id: list(dict.fromkeys(str(m.seed) for m in record.members)) for record in records}
    parts = " and ".join(f"{name} (seeds {', '.join(found)})" for name, found in seeds.items())
    lines = [f"joined from {parts}"]
    if len({(record.digests.get("model"), record.digests.get("oracle")) for record in records}) > 1:
        lines.append(
            "start model or oracle of the parts differ, as two machines train them; floors and references are those of"
            f" {records[0].id}"
        )
    if any(record.arm_fronts for record in records):
        lines.append("fresh seeds are each part's own, and may be seeds that another part searched with")
    return lines


def _with_fronts(record: StudyRecord, members: Sequence[SearchedMember], objectives: ObjectiveSpace) -> StudyRecord:
    """Return the record with every arm's front, where a part had them run again or audited: fresh seeds are compared
    anew among the members that are still on it."""
    again: dict[str, list[int]] = {}
    trials = record.trials
    for arm, own in trials_by_arm(members).items():
        front = [t for t in mark_front(own, objectives) if t.on_front and (t.confirmation or t.audits)]
        again[arm] = [trial.number for trial in front]
        runs = {trial.number: trial.confirmation.runs for trial in front if trial.confirmation}
        trials = with_confirmations(trials, runs, objectives)
    if not any(again.values()):
        return record
    return with_arm_fronts(record.model_copy(update={"trials": trials}), again, objectives)
