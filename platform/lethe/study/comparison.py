"""A comparison on Ray: one sweep after another over the same warm groups, and one record of them all."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from lethe.config.comparison import REFERENCE_METHODS
from lethe.config.study import Member, Study
from lethe.records import MemberRecord, Scalar, StudyRecord, TrialRecord
from lethe.reporting.console import Console
from lethe.search.front import (
    front_aliases,
    front_hypervolume,
    mark_front,
    representative_trial,
)
from lethe.search.objectives import ObjectiveSpace
from lethe.storage.paths import atomic_write
from lethe.study.preparation import Prepared
from lethe.study.run_requests import opening_record, write_first
from lethe.study.runner import Sweep
from lethe.study.session import Session
from lethe.tracking.base import NullTracker, Tracker


@dataclass
class Comparison:
    """One session of a comparison, used like `Sweep`. Trials are numbered through all members, in their order."""

    study: Study
    id: str
    prepared: Prepared
    tracker: Tracker
    console: Console
    folder: Path

    def run(self, session: Session) -> StudyRecord:
        """Run all members' remaining trials and return one record of them, which `study.json` keeps. Ctrl-C ends it
        early with what is finished."""
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
            done = self._sweep(member, first).run(session)
            trials = tuple(trial.model_copy(update={"number": first + trial.number}) for trial in done.trials)
            ended.append((member, trials))
            if interrupted := done.interrupted:
                break
        record = whole(record, ended, objectives, interrupted)
        atomic_write(self.folder / "study.json", record.model_dump_json(indent=1))
        return record

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
