"""The members of a comparison in its record: one front over all of their trials, and each arm's own over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lethe.records import ArmFrontRecord, MemberRecord, StudyRecord, TrialRecord
from lethe.search.front import (
    front_aliases,
    front_hypervolume,
    hypervolume_of_means,
    mark_front,
    representative_trial,
)
from lethe.search.objectives import ObjectiveSpace


@dataclass(frozen=True)
class SearchedMember:
    """The trials of an arm with a seed. `reference`: the arm is something to compare with, and not a way to unlearn."""

    arm: str
    seed: int
    trials: tuple[TrialRecord, ...]
    reference: bool = False


def with_members(record: StudyRecord, members: Sequence[SearchedMember], objectives: ObjectiveSpace) -> StudyRecord:
    """Return the record with every member's trials, their common front, and a trial that stands for each member.

    References are not on the common front.
    """
    competing = tuple(trial for member in members if not member.reference for trial in member.trials)
    references = [trial for member in members if member.reference for trial in mark_front(member.trials, objectives)]
    aside = [trial.model_copy(update={"pareto_rank": None}) for trial in references]
    front = mark_front(competing, objectives)
    records = tuple(
        MemberRecord(
            arm=member.arm,
            seed=member.seed,
            trials=tuple(trial.number for trial in member.trials),
            chosen=representative_trial(mark_front(member.trials, objectives), objectives),
            hypervolume=front_hypervolume(member.trials, objectives),
        )
        for member in members
    )
    return record.model_copy(
        update={
            "trials": tuple(sorted([*front, *aside], key=lambda trial: trial.number)),
            "members": records,
            "aliases": front_aliases(front, objectives),
            "hypervolume": front_hypervolume(front, objectives),
        }
    )


def trials_by_arm(members: Sequence[SearchedMember]) -> dict[str, tuple[TrialRecord, ...]]:
    """Return the trials of each arm, of all its seeds."""
    arms: dict[str, tuple[TrialRecord, ...]] = {}
    for member in members:
        arms[member.arm] = arms.get(member.arm, ()) + member.trials
    return arms


def with_arm_fronts(record: StudyRecord, again: Mapping[str, Sequence[int]], objectives: ObjectiveSpace) -> StudyRecord:
    """Return the record with the front of each arm; `again`: by arm, the trials that were run again or audited."""
    trials = {trial.number: trial for trial in record.trials}

    def of_arm(arm: str, numbers: Sequence[int]) -> ArmFrontRecord:
        own = tuple(trials[number] for member in record.members if member.arm == arm for number in member.trials)
        members = tuple(trials[number] for number in numbers)
        confirmed = any(trial.confirmation for trial in members)
        return ArmFrontRecord(
            arm=arm,
            front=tuple(trial.number for trial in mark_front(own, objectives) if trial.on_front),
            members=tuple(numbers),
            hypervolume=front_hypervolume(members, objectives),
            confirmed_hypervolume=hypervolume_of_means(members, objectives) if confirmed else None,
        )

    return record.model_copy(update={"arm_fronts": tuple(of_arm(arm, found) for arm, found in again.items())})
