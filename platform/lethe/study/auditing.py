"""The study's audits of its front, and of start model and oracle beside it, in the search's own worker groups.

The start model shows how much an audit can bring out at all, the oracle how much of it a model gives that never knew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lethe.config.audits import Audits, variants
from lethe.config.base import canonical_json, short_digest
from lethe.config.run import Recipe
from lethe.pool.jobs import Job, run_jobs
from lethe.records import AuditRecord, ModelScores, StudyRecord, TrialRecord
from lethe.storage.paths import atomic_write
from lethe.study.confirmation import members

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool
    from lethe.study.runner import Sweep

ENTRY = "lethe.audits.worker_entry:run_audit"
RESULTS = ("complete", "diverged", "infeasible", "out_of_memory")  # what another attempt would find again


@dataclass(frozen=True)
class Subject:
    """A finished model: `name` says which, `key` is its content, `folder` its files, `kept` where its audits lie."""

    name: str
    key: str
    folder: Path
    kept: Path
    recipe: Recipe
    metrics: dict[str, float]


@dataclass(frozen=True)
class AuditJob:
    """One audit of one subject."""

    subject: Subject
    audits: Audits
    payload: dict[str, Any]
    shape: str

    @property
    def name(self) -> str:
        """The audit's own."""
        return next(iter(self.audits.asked()))

    @property
    def file(self) -> Path:
        """Where the answer is kept: named after everything that decides it."""
        parts = [self.subject.key, self.audits.canonical(), self.subject.recipe.canonical()]
        return self.subject.kept / f"{self.name}-{short_digest(canonical_json(parts))}.json"


def audit(sweep: Sweep, pool: Pool, record: StudyRecord) -> StudyRecord:
    """The record whose front, start model and oracle have `audits`; what is kept on disk is not done again.

    KeyboardInterrupt keeps what has ended.
    """
    assert sweep.study.audits is not None
    jobs = {f"audit:{job.file}": job for job in _jobs(sweep, record)}
    found = {name: _read(job.file) for name, job in jobs.items()}
    missing = {name: job for name, job in jobs.items() if found[name] is None}
    advance = sweep.console.stage("audits", len(missing))

    def ended(errand: Job, reports: list[dict[str, Any]]) -> None:
        job, report = missing[errand.name], reports[-1]
        found[errand.name] = _records(job, report)
        if report["verdict"] in RESULTS:
            text = json.dumps([audited.model_dump(mode="json") for audited in found[errand.name]])
            atomic_write(job.file, text)
        advance(f"{job.name} of {job.subject.name}", None)
        for audited in found[errand.name]:
            if audited.verdict != "complete":
                reason = (audited.reason.strip().splitlines() or [audited.verdict])[-1]
                sweep.console.warn(f"audit {audited.variant} of {job.subject.name} failed: {reason}")

    run_jobs(pool, [Job(name, job.payload, job.shape) for name, job in missing.items()], ended)
    order = list(variants(sweep.study.audits))
    by_subject: dict[str, tuple[AuditRecord, ...]] = {}
    for name, job in jobs.items():
        whole = (*by_subject.get(job.subject.name, ()), *(found[name] or ()))
        by_subject[job.subject.name] = tuple(sorted(whole, key=lambda a: _place(order, a.variant)))
    return _with_audits(record, by_subject)


def _place(order: list[str], variant: str) -> int:
    return order.index(variant) if variant in order else len(order)


def _jobs(sweep: Sweep, record: StudyRecord) -> Iterator[AuditJob]:
    assert sweep.study.audits is not None
    for subject in _subjects(sweep, record):
        trial = sweep.config(0, subject.recipe)  # a trial reads the same data, in groups of the same shape
        for name, config in sweep.study.audits.asked().items():
            one = Audits.model_validate({name: config})
            payload = {
                "entry": ENTRY,
                "audits": one.model_dump(mode="json"),
                "assets": trial["payload"]["assets"],
                "recipe": subject.recipe.model_dump(mode="json"),
                "model": str(subject.folder),
                "truth": trial["payload"]["truth"],
                "metrics": subject.metrics,
            }
            yield AuditJob(subject, one, payload, trial["shape"])


def _subjects(sweep: Sweep, record: StudyRecord) -> Iterator[Subject]:
    prepared, common = sweep.prepared, sweep.study.first_recipe()
    models = {"start model": (prepared.start, record.start), "oracle": (prepared.oracle, record.oracle)}
    for name, (folder, scores) in models.items():
        if folder and scores:
            key = f"{sweep.prepared.digests.canonical()} {name}"
            yield Subject(name, key, folder, sweep.folder / "audits" / name.replace(" ", "-"), common, scores.metrics)
    for trial, recipe in members(sweep, record):
        folder = Path(trial.folder)
        yield Subject(_name(trial), trial.run, folder / "model", folder / "audits", recipe, trial.metrics)


def _name(trial: TrialRecord) -> str:
    return f"trial {trial.number}"


def _read(file: Path) -> list[AuditRecord] | None:
    return [AuditRecord.model_validate(raw) for raw in json.loads(file.read_text())] if file.exists() else None


def _records(job: AuditJob, report: dict[str, Any]) -> list[AuditRecord]:
    """What an audit found, or for each of its ways why it found nothing."""
    if report["verdict"] == "complete":
        return [AuditRecord.model_validate(raw) for raw in report["audits"]]
    reason = str(report.get("reason", ""))
    return [AuditRecord(variant=v, verdict=report["verdict"], reason=reason) for v in variants(job.audits)]


def _with_audits(record: StudyRecord, found: dict[str, tuple[AuditRecord, ...]]) -> StudyRecord:
    def scores(name: str, model: ModelScores | None) -> ModelScores | None:
        return model and model.model_copy(update={"audits": found.get(name, ())})

    trials = tuple(t.model_copy(update={"audits": found[_name(t)]}) if _name(t) in found else t for t in record.trials)
    models = {"start": scores("start model", record.start), "oracle": scores("oracle", record.oracle)}
    return record.model_copy(update={"trials": trials, **models})
