"""Confirmation: front members run again with fresh seeds, in the search's own worker groups, outside the search."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
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
from lethe.search.front import (
    aliases_of_means,
    hypervolume_of_means,
    with_confirmations,
)
from lethe.search.objectives import ObjectiveSpace
from lethe.storage.replica import delete
from lethe.study.recorder import TrialPlan, trial_record, write_result

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool
    from lethe.study.run_requests import Planner


@dataclass(frozen=True)
class Repeat:
    """A front member's run with another seed."""

    member: TrialRecord
    plan: TrialPlan


def members(planner: Planner, record: StudyRecord) -> Iterator[tuple[TrialRecord, Recipe]]:
    """Yield the front's trials with the recipe of each, made of the study's fixed values and the trial's own.

    A trial whose run does not come out again, a point of another study say, is left out with a warning.
    """
    for trial in record.front:
        recipe = _recipe(planner.study, trial)
        if recipe and planner.plan(trial.number, recipe).run == trial.run:
            yield trial, recipe
        else:
            planner.console.warn(f"trial {trial.number} is left as it is: its recipe is not one of this study's")


def _recipe(study: Study, trial: TrialRecord) -> Recipe | None:
    try:
        return rebuild(study.run, study.space, trial.params)
    except (KeyError, ValidationError):
        return None


def confirm(planner: Planner, pool: Pool, record: StudyRecord, objectives: ObjectiveSpace) -> StudyRecord:
    """Return the record with confirmations of its front members; equal runs are answered from the run folders.

    Raises KeyboardInterrupt; what has ended by then is in the run folders.
    """
    repeats = list(_repeats(planner, record))
    done: dict[int, list[TrialRecord]] = {repeat.member.number: [] for repeat in repeats}
    missing: dict[str, list[Repeat]] = {}

    def add(repeat: Repeat, run: TrialRecord) -> None:
        changes = {"number": repeat.member.number, "params": repeat.plan.params, "kind": "confirmation"}
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
            advance(f"trial {repeat.member.number} seed {repeat.plan.params.get('seed')}", run)

    run_jobs(pool, [same[0].plan.job for same in missing.values()], ended)
    order = {repeat.plan.run: place for place, repeat in enumerate(repeats)}
    runs = {number: sorted(found, key=lambda run: order[run.run]) for number, found in done.items()}
    trials = with_confirmations(record.trials, runs, objectives)
    return record.model_copy(
        update={
            "trials": trials,
            "aliases": aliases_of_means(trials, objectives) or record.aliases,
            "confirmed_hypervolume": hypervolume_of_means(trials, objectives),
        }
    )


def _repeats(planner: Planner, record: StudyRecord) -> Iterator[Repeat]:
    """Yield every member's repeats. Members that began with the same seed get the same ones: their differences are then
    the members' own."""
    assert planner.study.confirm is not None
    for member, recipe in members(planner, record):
        for seed in range(recipe.seed + 1, recipe.seed + 1 + planner.study.confirm.seeds):
            yield Repeat(member, planner.plan(member.number, recipe.model_copy(update={"seed": seed})))


def _record(repeat: Repeat, reports: list[EpochReport], final: FinalReport) -> TrialRecord:
    """Return the record of a repeat that has just ended, without samples: reports show the member's."""
    plan = repeat.plan
    sent: list[Report] = [*reports, final]
    series = [report.values for report in sent if "epoch" in report.values]
    began = time.time() - final.values.get("seconds", 0.0)
    record = trial_record(plan.number, plan.run, plan.params, plan.folder, series, final, began=began)
    return record.model_copy(update={"samples": ()})
