"""Audits of a study's front, and of start model and oracle for comparison, in the search's own worker groups.

The start model shows how much an audit can bring out at all, the oracle how much of it a model gives that never knew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.config.audits import Audits, variants
from lethe.config.base import canonical_json, short_digest
from lethe.config.run import Recipe
from lethe.pool.jobs import run_jobs
from lethe.pool.messages import EntryPoint, Job
from lethe.records import AuditRecord, EpochReport, FinalReport, ModelScores, StudyRecord, TrialRecord
from lethe.storage.paths import atomic_write
from lethe.study.confirmation import members
from lethe.unlearning.requests import AuditReport

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool
    from lethe.study.run_requests import Planner

RESULTS = ("complete", "diverged", "infeasible", "out_of_memory")  # what another attempt would find again


@dataclass(frozen=True)
class Subject:
    """A finished model with its recipe and metrics.

    `name`: what users call it; `key`: names its content; `folder`: its files; `kept`: where its audits' results lie.
    """

    name: str
    key: str
    folder: Path
    kept: Path
    recipe: Recipe
    metrics: dict[str, float]


@dataclass(frozen=True)
class PlannedAudit:
    """One audit, the only one in `audits`, of one subject, and the file that keeps its result."""

    subject: Subject
    audits: Audits
    file: Path
    job: Job

    @property
    def name(self) -> str:
        """The audit's name in the configuration."""
        return next(iter(self.audits.asked()))


def audit(planner: Planner, pool: Pool, record: StudyRecord) -> StudyRecord:
    """Return the record with audits of its front, start model and oracle; those kept on disk are not done again.

    Raises KeyboardInterrupt; what has ended by then is kept.
    """
    assert planner.study.audits is not None
    planned = {audit.job.run: audit for audit in _planned(planner, record)}
    results = {run: kept for run, audit in planned.items() if (kept := _read(audit.file)) is not None}
    missing = {run: audit for run, audit in planned.items() if run not in results}
    advance = planner.console.stage("audits", len(missing))

    def ended(job: Job, reports: list[EpochReport], final: FinalReport) -> None:
        done = missing[job.run]
        records = results[job.run] = _records(done, final)
        if final.verdict in RESULTS:
            atomic_write(done.file, json.dumps([audited.model_dump(mode="json") for audited in records]))
        advance(f"{done.name} of {done.subject.name}", None)
        for audited in records:
            if audited.verdict != "complete":
                reason = (audited.reason.strip().splitlines() or [audited.verdict])[-1]
                planner.console.warn(f"audit {audited.variant} of {done.subject.name} failed: {reason}")

    run_jobs(pool, [audit.job for audit in missing.values()], ended)
    order = list(variants(planner.study.audits))
    by_subject: dict[str, tuple[AuditRecord, ...]] = {}
    for run, done in planned.items():
        records = (*by_subject.get(done.subject.name, ()), *results.get(run, ()))
        by_subject[done.subject.name] = tuple(sorted(records, key=lambda a: _place(order, a.variant)))
    return _with_audits(record, by_subject)


def _place(order: list[str], variant: str) -> int:
    return order.index(variant) if variant in order else len(order)


def _planned(planner: Planner, record: StudyRecord) -> Iterator[PlannedAudit]:
    assert planner.study.audits is not None
    for subject in _subjects(planner, record):
        trial = planner.plan(0, subject.recipe)  # in groups of the same shape
        for name, config in planner.study.audits.asked().items():
            one = Audits.model_validate({name: config})
            file = subject.kept / f"{name}-{_digest(subject, one)}.json"
            request = planner.audit_request(one, subject.recipe, subject.folder, subject.metrics)
            job = Job.of(f"audit:{file}", EntryPoint.AUDIT, request, trial.job.shape, trial.job.log_folder)
            yield PlannedAudit(subject, one, file, job)


def _digest(subject: Subject, audits: Audits) -> str:
    """Return a digest of everything that decides the result of an audit."""
    return short_digest(canonical_json([subject.key, audits.canonical(), subject.recipe.canonical()]))


def _subjects(planner: Planner, record: StudyRecord) -> Iterator[Subject]:
    prepared, common = planner.prepared, planner.study.first_recipe()
    models = {"start model": (prepared.start, record.start), "oracle": (prepared.oracle, record.oracle)}
    for name, (folder, scores) in models.items():
        if folder and scores:
            key = f"{planner.prepared.digests.canonical()} {name}"
            yield Subject(name, key, folder, planner.folder / "audits" / name.replace(" ", "-"), common, scores.metrics)
    for trial, recipe in members(planner, record):
        folder = Path(trial.folder)
        yield Subject(_name(trial), trial.run, folder / "model", folder / "audits", recipe, trial.metrics)


def _name(trial: TrialRecord) -> str:
    return f"trial {trial.number}"


def _read(file: Path) -> list[AuditRecord] | None:
    return [AuditRecord.model_validate(raw) for raw in json.loads(file.read_text())] if file.exists() else None


def _records(audit: PlannedAudit, report: FinalReport) -> list[AuditRecord]:
    """Return the records in an audit's report; of one that failed, a record with the reason for each variant."""
    if isinstance(report, AuditReport):
        return list(report.audits)
    return [AuditRecord(variant=v, verdict=report.verdict, reason=report.reason) for v in variants(audit.audits)]


def _with_audits(record: StudyRecord, found: dict[str, tuple[AuditRecord, ...]]) -> StudyRecord:
    def scores(name: str, model: ModelScores | None) -> ModelScores | None:
        return model and model.model_copy(update={"audits": found.get(name, ())})

    trials = tuple(t.model_copy(update={"audits": found[_name(t)]}) if _name(t) in found else t for t in record.trials)
    models = {"start": scores("start model", record.start), "oracle": scores("oracle", record.oracle)}
    return record.model_copy(update={"trials": trials, **models})
