"""Audits of a study's front, and of start model and oracle for comparison, in the search's own worker groups.

The start model shows how much an audit can bring out at all, the oracle how much of it a model gives that never knew.
Where an audit measures an objective, trials end with it (`lethe.audits.worker_entry.run_audited_trial`), and start
model and oracle are audited before the search, whose floors may be shares of the start model's numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.config.audits import Audits, variant_meanings, variants
from lethe.config.base import canonical_json, short_digest
from lethe.config.run import Recipe
from lethe.errors import UserError
from lethe.pool.jobs import run_jobs
from lethe.pool.messages import EntryPoint, Job
from lethe.records import (
    AuditRecord,
    EpochReport,
    FinalReport,
    ModelScores,
    Record,
    StudyRecord,
    TrialRecord,
    audit_numbers,
)
from lethe.storage.paths import atomic_write
from lethe.study.confirmation import Front, FrontMember, in_turn
from lethe.unlearning.requests import AuditReport

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool
    from lethe.study.run_requests import Planner

RESULTS = ("complete", "diverged", "infeasible", "out_of_memory")  # what another attempt would find again
START, ORACLE = "start model", "oracle"  # names of subjects


@dataclass(frozen=True)
class Subject:
    """A finished model with its recipe and metrics.

    `name`: what users call it; `key`: names its content; `folder`: its files; `kept`: where its audits' results lie;
    `known`: what it was audited by before.
    """

    name: str
    key: str
    folder: Path
    kept: Path
    recipe: Recipe
    metrics: dict[str, float]
    known: tuple[AuditRecord, ...] = ()


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


def audit(planner: Planner, pool: Pool, record: StudyRecord, fronts: Sequence[Front]) -> StudyRecord:
    """Return the record with the study's audits of start model and oracle and of its fronts' members; variants that
    these have already, or that are kept on disk, are not done again.

    Raises KeyboardInterrupt; what has ended by then is kept.
    """
    assert planner.study.audits is not None
    references = _references(planner, record.start, record.oracle)
    found = _audited(planner, pool, [*references, *map(_subject, in_turn(fronts))], planner.study.audits, "audits")
    trials = tuple(t.model_copy(update={"audits": found[_name(t)]}) if _name(t) in found else t for t in record.trials)
    changes: dict[str, object] = {"trials": trials}
    for field, name, model in (("start", START, record.start), ("oracle", ORACLE, record.oracle)):
        changes[field] = model and model.model_copy(update={"audits": found.get(name, ())})
    return record.model_copy(update=changes)


class _ReferenceAudits(Record):
    """The content of `references.json`: the audits of start model and oracle that objectives need."""

    start: tuple[AuditRecord, ...]
    oracle: tuple[AuditRecord, ...] = ()


def with_reference_audits(
    planner: Planner, pool: Pool, start: ModelScores, oracle: ModelScores | None
) -> tuple[ModelScores, ModelScores | None]:
    """Return start model and oracle with the audits that the study's objectives need, their numbers among the metrics;
    as they are, where no objective is an audit's. They are made once: a resumed study, and another member of a
    comparison, reads them back.

    Raises UserError for a model that cannot be audited, KeyboardInterrupt.
    """
    needed, file = planner.study.trial_audits(), planner.scores_folder / "audits" / "references.json"
    if needed is None:
        return start, oracle
    if file.exists():
        stored = _ReferenceAudits.model_validate_json(file.read_text())
    else:
        found = _audited(planner, pool, _references(planner, start, oracle), needed, "audits before the search")
        for name, audits in found.items():
            for failed in (audited for audited in audits if audited.verdict != "complete"):
                raise UserError(f"cannot audit the {name} ({failed.variant}): {failed.reason or failed.verdict}")
        stored = _ReferenceAudits(start=found[START], oracle=found.get(ORACLE, ()))
        atomic_write(file, stored.model_dump_json())
    return _with_numbers(start, stored.start), oracle and _with_numbers(oracle, stored.oracle)


def _with_numbers(model: ModelScores, audits: tuple[AuditRecord, ...]) -> ModelScores:
    return model.model_copy(update={"metrics": {**model.metrics, **audit_numbers(audits)}, "audits": audits})


def _audited(
    planner: Planner, pool: Pool, subjects: list[Subject], audits: Audits, stage: str
) -> dict[str, tuple[AuditRecord, ...]]:
    """Return all audits of each subject by its name, those that it had among them, in the order of reports."""
    planned = {audit.job.run: audit for audit in _planned(planner, subjects, audits)}
    results = {run: kept for run, audit in planned.items() if (kept := _read(audit.file)) is not None}
    missing = {run: audit for run, audit in planned.items() if run not in results}
    advance = planner.console.stage(stage, len(missing))

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
    by_subject = {subject.name: subject.known for subject in subjects}
    for run, done in planned.items():
        by_subject[done.subject.name] += tuple(results.get(run, ()))
    order = list(variant_meanings())
    return {name: tuple(sorted(found, key=lambda a: order.index(a.variant))) for name, found in by_subject.items()}


def _planned(planner: Planner, subjects: list[Subject], audits: Audits) -> Iterator[PlannedAudit]:
    for subject in subjects:
        trial = planner.plan(0, subject.recipe)  # in groups of the same shape
        known = {audited.variant for audited in subject.known}
        for name, config in audits.asked().items():
            left = [variant for variant in config.variants() if variant not in known]
            if not left:
                continue
            one = Audits.model_validate(
                {name: config if known.isdisjoint(config.variants()) else config.narrowed(left)}
            )
            file = subject.kept / f"{name}-{_digest(subject, one)}.json"
            request = planner.audit_request(one, subject.recipe, subject.folder, subject.metrics)
            job = Job.of(f"audit:{file}", EntryPoint.AUDIT, request, trial.job.shape, trial.job.log_folder)
            yield PlannedAudit(subject, one, file, job)


def _digest(subject: Subject, audits: Audits) -> str:
    """Return a digest of everything that decides the result of an audit."""
    return short_digest(canonical_json([subject.key, audits.canonical(), subject.recipe.canonical()]))


def _references(planner: Planner, start: ModelScores, oracle: ModelScores | None) -> list[Subject]:
    prepared, recipe = planner.prepared, planner.study.first_recipe()
    models = {START: (prepared.start, start), ORACLE: (prepared.oracle, oracle)}
    return [
        Subject(
            name=name,
            key=f"{prepared.digests.canonical()} {name}",
            folder=folder,
            kept=planner.folder / "audits" / name.replace(" ", "-"),
            recipe=recipe,
            metrics=scores.metrics,
            known=scores.audits,
        )
        for name, (folder, scores) in models.items()
        if folder and scores
    ]


def _subject(member: FrontMember) -> Subject:
    trial, folder = member.trial, Path(member.trial.folder)
    model, kept = folder / "model", folder / "audits"
    return Subject(_name(trial), trial.run, model, kept, member.recipe, trial.metrics, trial.audits)


def _name(trial: TrialRecord) -> str:
    return f"trial {trial.number}"


def _read(file: Path) -> list[AuditRecord] | None:
    return [AuditRecord.model_validate(raw) for raw in json.loads(file.read_text())] if file.exists() else None


def _records(audit: PlannedAudit, report: FinalReport) -> list[AuditRecord]:
    """Return the records in an audit's report; of one that failed, a record with the reason for each variant."""
    if isinstance(report, AuditReport):
        return list(report.audits)
    return [AuditRecord(variant=v, verdict=report.verdict, reason=report.reason) for v in variants(audit.audits)]
