"""Front members run again with fresh seeds, in the search's own worker groups. They are no trials of the search."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lethe.config.run import FOLDER as CHECKPOINT
from lethe.config.run import Recipe
from lethe.pool.jobs import Job, run_jobs
from lethe.records import StudyRecord, TrialRecord
from lethe.search.objectives import ObjectiveSpace, aliases_of_means, hypervolume_of_means, with_confirmations
from lethe.search.space import build_recipe
from lethe.storage.replica import delete
from lethe.study.recorder import numbers, write_result
from pydantic import ValidationError

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool
    from lethe.study.runner import Sweep


@dataclass(frozen=True)
class Repeat:
    """A member's run with another seed: `config` is what a trial would carry."""

    member: TrialRecord
    config: dict[str, Any]

    @property
    def job(self) -> Job:
        """For the pool."""
        return Job(self.config["run"], self.config["payload"], self.config["shape"])


def members(sweep: Sweep, record: StudyRecord) -> Iterator[tuple[TrialRecord, Recipe]]:
    """The front with what each member ran: the study's fixed values and the trial's own. One whose run does not come
    out again, a point of another study say, is left out with a warning."""
    for trial in record.front:
        try:
            recipe = build_recipe(sweep.study, lambda name, _, trial=trial: trial.params[name])
        except (KeyError, ValidationError):
            recipe = None
        if recipe and sweep.config(trial.number, recipe)["run"] == trial.run:
            yield trial, recipe
        else:
            sweep.console.warn(f"trial {trial.number} is left as it is: its recipe is not one of this study's")


def confirm(sweep: Sweep, pool: Pool, record: StudyRecord, objectives: ObjectiveSpace) -> StudyRecord:
    """The record whose front members have confirmations; equal runs are answered from the store.

    KeyboardInterrupt keeps what has ended in the run folders.
    """
    repeats = list(_repeats(sweep, record))
    done: dict[int, list[TrialRecord]] = {repeat.member.number: [] for repeat in repeats}
    missing: dict[str, list[Repeat]] = {}

    def add(repeat: Repeat, run: TrialRecord) -> None:
        changes = {"number": repeat.member.number, "params": repeat.config["params"], "kind": "confirmation"}
        run = run.model_copy(update=changes)
        done[repeat.member.number].append(run)
        if run.run != repeat.member.run:  # a method that reads no seed is the member itself
            sweep.tracker.trial_ended(run)

    for repeat in repeats:
        stored = sweep.stored(repeat.config)
        if stored is None:
            missing.setdefault(repeat.config["run"], []).append(repeat)
        else:
            add(repeat, stored)
    advance = sweep.console.stage("confirmations", sum(map(len, missing.values())))

    def ended(job: Job, reports: list[dict[str, Any]]) -> None:
        for repeat in missing[job.name]:
            run = _record(repeat, reports)
            if run.verdict != "stopped":
                write_result(run)
            for part in ("model", CHECKPOINT):
                delete(Path(run.folder) / part)
            add(repeat, run)
            advance(f"trial {repeat.member.number} seed {repeat.config['params'].get('seed')}", run)

    run_jobs(pool, [some[0].job for some in missing.values()], ended)
    order = {repeat.config["run"]: place for place, repeat in enumerate(repeats)}
    runs = {number: sorted(found, key=lambda run: order[run.run]) for number, found in done.items()}
    trials = with_confirmations(record.trials, runs, objectives)
    return record.model_copy(
        update={
            "trials": trials,
            "aliases": aliases_of_means(trials, objectives) or record.aliases,
            "confirmed_hypervolume": hypervolume_of_means(trials, objectives),
        }
    )


def _repeats(sweep: Sweep, record: StudyRecord) -> Iterator[Repeat]:
    """The same seeds for members that began with the same one: their differences are then the members' own."""
    assert sweep.study.confirm is not None
    for member, recipe in members(sweep, record):
        for seed in range(recipe.seed + 1, recipe.seed + 1 + sweep.study.confirm.seeds):
            yield Repeat(member, sweep.config(member.number, recipe.model_copy(update={"seed": seed})))


def _record(repeat: Repeat, reports: list[dict[str, Any]]) -> TrialRecord:
    """What a run's reports say; the last one has the verdict."""
    last, ended = reports[-1], time.time()
    series = tuple(numbers(report) for report in reports if "epoch" in report)
    return TrialRecord(
        number=repeat.member.number,
        run=repeat.config["run"],
        verdict=last["verdict"],
        reason=str(last.get("reason", "")),
        params=repeat.config["params"],
        metrics=numbers(last),
        series=series,
        folder=repeat.config["payload"]["folder"],
        began=ended - float(last.get("seconds", 0.0)),
        ended=ended,
    )
