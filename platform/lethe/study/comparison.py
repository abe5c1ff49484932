"""A comparison on Ray: one search after another over the same warm groups, then fresh seeds and audits of every arm's
front, and one record of them all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from lethe.config.comparison import REFERENCE_METHODS
from lethe.config.study import Member
from lethe.records import ArmFrontRecord, MemberRecord, Scalar, StudyRecord, TrialRecord
from lethe.search.front import (
    front_aliases,
    front_hypervolume,
    hypervolume_of_means,
    mark_front,
    representative_trial,
    spread_members,
)
from lethe.search.objectives import ObjectiveSpace
from lethe.storage.paths import atomic_write
from lethe.study.run_requests import Planner, opening_record, write_first
from lethe.study.runner import Sweep
from lethe.study.session import Session
from lethe.tracking.base import NullTracker, Tracker

if TYPE_CHECKING:
    from lethe.study.confirmation import FrontMember


class Comparison(Planner):
    """One session of a comparison, used like `Sweep`. Trials are numbered through all members, in their order; runs
    with fresh seeds lie in its own folder."""

    def run(self, session: Session) -> StudyRecord:
        """Run all members' remaining trials, then confirm and audit every arm's front, and return one record of them,
        which `study.json` keeps. Ctrl-C ends it early with what is finished."""
        began = time.time()
        members = self.study.members()
        firsts = [0, *accumulate(member.study.search.trials for member in members)]
        _, start, oracle = self._sweep(members[0], 0).begin(session)
        objectives = ObjectiveSpace.from_goals(self.study.objectives, start.metrics)
        record = opening_record(self.id, self.study, self.prepared, objectives, start, oracle, began)
        self.tracker.begin(record)
        write_first(record, self.folder)
        ended: list[tuple[Member, tuple[TrialRecord, ...]]] = []
        interrupted = False
        for member, first in zip(members, firsts, strict=False):
            done = self._sweep(member, first).search(session)
            trials = tuple(trial.model_copy(update={"number": first + trial.number}) for trial in done.trials)
            ended.append((member, trials))
            if interrupted := done.interrupted:
                break
        record = whole(record, ended, objectives, interrupted)
        if (self.study.confirm or self.study.audits) and not interrupted:
            from lethe.study.after_search import finish

            fronts = self._fronts(ended, objectives)
            record = finish(self, session.pool(), record, list(fronts.values()), objectives)
            record = with_arm_fronts(record, fronts, objectives)
        atomic_write(self.folder / "study.json", record.model_dump_json(indent=1))
        return record

    def _fronts(
        self, ended: list[tuple[Member, tuple[TrialRecord, ...]]], objectives: ObjectiveSpace
    ) -> dict[str, list[FrontMember]]:
        """Return by arm the members of its front that are run again and audited, all of them with the same fresh seeds,
        which no search has used."""
        from lethe.study.confirmation import front_members

        fronts: dict[str, list[FrontMember]] = {}
        seed = self.study.largest_seed() + 1
        studies = {trial.number: member.study for member, trials in ended for trial in trials}
        for arm, trials in trials_by_arm(ended).items():
            chosen = spread_members(mark_front(trials, objectives), objectives, self.study.most_members())
            fronts[arm] = [
                found for trial in chosen for found in front_members(self, studies[trial.number], [trial], seed)
            ]
        return fronts

    def _sweep(self, member: Member, first: int) -> Sweep:
        name = f"{member.arm}-{member.seed}"
        return Sweep(
            member.study,
            f"{self.id}.{name}",
            self.prepared,
            Numbered(self.tracker, first),
            self.console,
            self.folder / "members" / name,
            baselines_folder=self.folder,
            largest_rank=self.study.largest_rank(),
            labels={"arm": member.arm, "arm_seed": member.seed},
        )


def trials_by_arm(ended: list[tuple[Member, tuple[TrialRecord, ...]]]) -> dict[str, tuple[TrialRecord, ...]]:
    """Return the trials of each arm, of all its seeds."""
    arms: dict[str, tuple[TrialRecord, ...]] = {}
    for member, trials in ended:
        arms[member.arm] = arms.get(member.arm, ()) + trials
    return arms


def with_arm_fronts(
    record: StudyRecord, fronts: Mapping[str, Sequence[FrontMember]], objectives: ObjectiveSpace
) -> StudyRecord:
    """Return the record with the front of each arm, `fronts` having the members that were run again or audited."""
    trials = {trial.number: trial for trial in record.trials}

    def of_arm(arm: str, members: Sequence[FrontMember]) -> ArmFrontRecord:
        own = [trials[number] for member in record.members if member.arm == arm for number in member.trials]
        again = tuple(trials[member.trial.number] for member in members)
        confirmed = any(trial.confirmation for trial in again)
        return ArmFrontRecord(
            arm=arm,
            front=tuple(trial.number for trial in mark_front(tuple(own), objectives) if trial.on_front),
            members=tuple(trial.number for trial in again),
            hypervolume=front_hypervolume(again, objectives),
            confirmed_hypervolume=hypervolume_of_means(again, objectives) if confirmed else None,
        )

    return record.model_copy(update={"arm_fronts": tuple(of_arm(arm, found) for arm, found in fronts.items())})


def whole(
    record: StudyRecord,
    ended: list[tuple[Member, tuple[TrialRecord, ...]]],
    objectives: ObjectiveSpace,
    interrupted: bool,
) -> StudyRecord:
    """Return the record with every member's trials, their common front, and a trial that stands for each member.

    Retraining and the input guard are references: they unlearn nothing, so they are not on the common front.
    """
    competing = tuple(trial for member, given in ended if not is_reference(member) for trial in given)
    references = [trial for member, given in ended if is_reference(member) for trial in mark_front(given, objectives)]
    aside = [trial.model_copy(update={"pareto_rank": None}) for trial in references]
    front = mark_front(competing, objectives)
    trials = tuple(sorted([*front, *aside], key=lambda trial: trial.number))
    members = tuple(
        MemberRecord(
            arm=member.arm,
            seed=member.seed,
            trials=tuple(trial.number for trial in given),
            chosen=representative_trial(mark_front(given, objectives), objectives),
            hypervolume=front_hypervolume(given, objectives),
        )
        for member, given in ended
    )
    return record.model_copy(
        update={
            "trials": trials,
            "members": members,
            "aliases": front_aliases(front, objectives),
            "hypervolume": front_hypervolume(front, objectives),
            "ended": time.time(),
            "interrupted": interrupted,
        }
    )


def is_reference(member: Member) -> bool:
    """Tell whether the arm is something to compare with, and not a way to unlearn: see `REFERENCE_METHODS`."""
    return (member.study.run.get("objective") or {}).get("name") in REFERENCE_METHODS


@dataclass
class Numbered(NullTracker):
    """A member's view of the comparison's tracker: the same runs under the comparison's numbers."""

    tracker: Tracker
    first: int

    def trial_began(self, number: int, run_hash: str, params: dict[str, Scalar]) -> None:
        """Pass the event on under the comparison's number."""
        self.tracker.trial_began(self.first + number, run_hash, params)

    def trial_reported(self, number: int, step_metrics: dict[str, float], epoch: int) -> None:
        """Pass the report on under the comparison's number."""
        self.tracker.trial_reported(self.first + number, step_metrics, epoch)

    def trial_ended(self, trial: TrialRecord) -> None:
        """Pass the record on under the comparison's number."""
        self.tracker.trial_ended(trial.model_copy(update={"number": self.first + trial.number}))
