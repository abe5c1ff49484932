"""Confirmation: front members run again with fresh seeds, in the search's own worker groups, outside the search."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from lethe.config.run import FOLDER as CHECKPOINT
from lethe.config.run import Recipe
from lethe.config.space import rebuild
from lethe.config.study import Study
from lethe.pool.jobs import run_jobs
from lethe.pool.messages import Job, Report
from lethe.records import EpochReport, FinalReport, StudyRecord, TrialRecord
from lethe.search.front import with_confirmations
from lethe.search.objectives import ObjectiveSpace
from lethe.storage.replica import delete
from lethe.study.recorder import TrialPlan, trial_record, write_result

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool
    from lethe.study.run_requests import Planner


@dataclass(frozen=True)
class FrontMember:
    """A trial of a front with its recipe; `seed`: the first of those that its repeats have."""

    trial: TrialRecord
    recipe: Recipe
    seed: int


Front = Sequence[FrontMember]


@dataclass(frozen=True)
class Repeat:
    """A front member's run with another seed."""

    member: TrialRecord
    plan: TrialPlan


def front_members(
    planner: Planner, study: Study, trials: Iterable[TrialRecord], seed: int | None = None
) -> Iterator[FrontMember]:
    """Yield the trials of a front with the recipe of each, made of the fixed values of `study`, which searched them,
    and the trial's own. `seed`: the first of the fresh ones; None: the one after the trial's own.

    A trial whose run does not come out again, a point of another study say, is left out with a warning.
    """
    for trial in trials:
        recipe = _recipe(study, trial)
        if recipe and planner.plan(trial.number, recipe).run == trial.run:
            yield FrontMember(trial, recipe, recipe.seed + 1 if seed is None else seed)
        else:
            planner.console.warn(f"trial {trial.number} is left as it is: its recipe is not one of this study's")


def _recipe(study: Study, trial: TrialRecord) -> Recipe | None:
    try:
        return rebuild(study.run, study.space, trial.params)
    except (KeyError, ValidationError):
        return None


def confirm(
    planner: Planner, pool: Pool, record: StudyRecord, fronts: Sequence[Front], objectives: ObjectiveSpace
) -> StudyRecord:
    """Return the record with confirmations of the members of its fronts, each compared with those of its own; equal
    runs are answered from the run folders.

    Raises KeyboardInterrupt; what has ended by then is in the run folders.
    """
    runs = _run_again(planner, pool, [repeat for member in in_turn(fronts) for repeat in _repeats(planner, member)])
    trials = record.trials
    for front in fronts:
        numbers = [member.trial.number for member in front]
        trials = with_confirmations(trials, {number: runs[number] for number in numbers}, objectives)
    return record.model_copy(update={"trials": trials})


def in_turn(fronts: Sequence[Front]) -> list[FrontMember]:
    """Return the members, the first of every front before the second of any."""
    places = zip_longest(*fronts)
    return [member for place in places for member in place if member is not None]


def _run_again(planner: Planner, pool: Pool, repeats: Sequence[Repeat]) -> dict[int, list[TrialRecord]]:
    """Return the records of all repeats by the member's number, in the order of the repeats."""
    done: dict[int, list[TrialRecord]] = {repeat.member.number: [] for repeat in repeats}
    missing: dict[str, list[Repeat]] = {}

    def add(repeat: Repeat, run: TrialRecord) -> None:
        params = {**repeat.member.params, "seed": repeat.plan.params["seed"]}
        changes = {"number": repeat.member.number, "params": params, "kind": "confirmation"}
        run = run.model_copy(update=changes)
        done[repeat.member.number].append(run)
        if run.run != repeat.member.run:  # a method that reads no seed is the member itself
            planner.tracker.trial_ended(run)

    for repeat in repeats:
        stored = planner.stored(repeat.plan)
        if stored is None:
            missing.setdefault(repeat.plan.run, []).append(repeat)
        else:
            add(repeat, stored)
    advance = planner.console.stage("confirmations", sum(map(len, missing.values())))

    def ended(job: Job, reports: list[EpochReport], final: FinalReport) -> None:
        for repeat in missing[job.run]:
            run = _record(repeat, reports, final)
            if run.verdict != "stopped":
                write_result(run)
            for part in ("model", CHECKPOINT):
                delete(Path(run.folder) / part)
            add(repeat, run)
            arm = f"{repeat.member.params['arm']} " if "arm" in repeat.member.params else ""
            advance(f"{arm}trial {repeat.member.number} seed {repeat.plan.params.get('seed')}", run)

    run_jobs(pool, [same[0].plan.job for same in missing.values()], ended)
    order = {repeat.plan.run: place for place, repeat in enumerate(repeats)}
    return {number: sorted(found, key=lambda run: order[run.run]) for number, found in done.items()}


def _repeats(planner: Planner, member: FrontMember) -> Iterator[Repeat]:
    """Yield a member's repeats. Members that began with the same seed, and all of a comparison, get the same ones:
    their differences are then the members' own."""
    assert planner.study.confirm is not None
    for seed in range(member.seed, member.seed + planner.study.confirm.seeds):
        recipe = member.recipe.model_copy(update={"seed": seed})
        yield Repeat(member.trial, planner.plan(member.trial.number, recipe))


def _record(repeat: Repeat, reports: list[EpochReport], final: FinalReport) -> TrialRecord:
    """Return the record of a repeat that has just ended, without samples: reports show the member's."""
    plan = repeat.plan
    sent: list[Report] = [*reports, final]
    series = [report.values for report in sent if "epoch" in report.values]
    began = time.time() - final.values.get("seconds", 0.0)
    record = trial_record(plan.number, plan.run, plan.params, plan.folder, series, final, began=began)
    return record.model_copy(update={"samples": ()})
