"""A comparison on Ray: one search after another over the same warm groups, then fresh seeds and audits of every arm's
front, and one record of them all."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.config.comparison import REFERENCE_METHODS
from lethe.config.study import Member, Study
from lethe.errors import UserError
from lethe.records import Scalar, StudyRecord, TrialRecord
from lethe.search.front import mark_front, spread_members
from lethe.search.members import SearchedMember, trials_by_arm, with_arm_fronts, with_members
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
        which `study.json` keeps. Ctrl-C ends it early with what is finished. Raises UserError where an earlier session
        began with other seeds."""
        began = time.time()
        check_seeds(self.study, self.folder)
        members = self.study.members()
        firsts = [0, *accumulate(member.study.search.trials for member in members)]
        _, start, oracle = self._sweep(members[0], 0).begin(session)
        objectives = ObjectiveSpace.from_goals(self.study.objectives, start.metrics)
        record = opening_record(self.id, self.study, self.prepared, objectives, start, oracle, began)
        self.tracker.begin(record)
        write_first(record, self.folder)
        ended: list[SearchedMember] = []
        interrupted = False
        for member, first in zip(members, firsts, strict=False):
            done = self._sweep(member, first).search(session)
            trials = tuple(trial.model_copy(update={"number": first + trial.number}) for trial in done.trials)
            ended.append(SearchedMember(member.arm, member.seed, trials, is_reference(member)))
            if interrupted := done.interrupted:
                break
        record = with_members(record, ended, objectives)
        record = record.model_copy(update={"ended": time.time(), "interrupted": interrupted})
        if (self.study.confirm or self.study.audits) and not interrupted:
            from lethe.study.after_search import finish

            fronts = self._fronts(ended, members, objectives)
            record = finish(self, session.pool(), record, list(fronts.values()), objectives)
            again = {arm: [member.trial.number for member in front] for arm, front in fronts.items()}
            record = with_arm_fronts(record, again, objectives)
        atomic_write(self.folder / "study.json", record.model_dump_json(indent=1))
        return record

    def _fronts(
        self, ended: Sequence[SearchedMember], members: Sequence[Member], objectives: ObjectiveSpace
    ) -> dict[str, list[FrontMember]]:
        """Return by arm the members of its front that are run again and audited, all of them with the same fresh seeds,
        which no search has used."""
        from lethe.study.confirmation import front_members

        fronts: dict[str, list[FrontMember]] = {}
        seed = self.study.largest_seed() + 1
        studies = {t.number: member.study for member, done in zip(members, ended, strict=True) for t in done.trials}
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


def check_seeds(study: Study, folder: Path) -> None:
    """Raise UserError unless the seeds of a comparison that goes on in `folder` begin with those of its last session,
    or are the first of them: trials are numbered in their order."""
    file = folder / "study.json"
    if study.compare is None or not file.is_file():
        return
    known = json.loads(file.read_text(encoding="utf-8"))["study"]["compare"]["seeds"]
    if any(one != other for one, other in zip(known, study.compare.seeds, strict=False)):
        listed = ", ".join(map(str, known))
        raise UserError(
            f"compare.seeds: this comparison has begun with {listed}: name these first and new ones after them"
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
