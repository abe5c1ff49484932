"""Writing the deletion record of a study's model: what was forgotten, by which model, and what nobody checked."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath

import lethe
from lethe.benchmarks.base import Benchmark
from lethe.config.audits import Audit
from lethe.config.study import Study
from lethe.data.privacy import row_hash
from lethe.deletion_records import DeletionRecord, Evidence, ModelIdentity, Request
from lethe.errors import UserError
from lethe.models.hashing import model_sha256
from lethe.records import Scalar, StudyRecord, TrialRecord
from lethe.study.preparation import stored_benchmark
from lethe.study.scored_models import ScoredModel, find

SALT_BYTES = 32
SECTIONS = ("objective", "optimizer", "adapter", "schedule", "seed")  # of a run: how a model was unlearned
SOFTWARE = ("torch", "transformers", "peft", "deepspeed")
ALWAYS_UNCHECKED = (
    "Copies outside of the model: training data, backups, indexes, logs and other models.",
    "What the rows say in other words, in other languages or as parts of other questions, beyond the audits below.",
)


def deletion_record(record: StudyRecord, trial: TrialRecord, by: str = "") -> DeletionRecord:
    """Return the deletion record of a trial of a stored study. `by`: who stands for it.

    The rows are read again from where the study read them. Raises UserError if they, or the start model, are others
    than the study's, and for a trial whose model is nowhere.
    """
    study, benchmark = stored_benchmark(record)
    after = trial.version or trial.folder
    if not after:
        raise UserError(f"trial {trial.number} of {record.id} has no model: a study keeps those of its front alone")
    salt = secrets.token_bytes(SALT_BYTES)
    return DeletionRecord(
        written=_time(datetime.now(UTC).timestamp()),
        by=by,
        study=record.id,
        trial=trial.number,
        began=_time(trial.began or record.began),
        ended=_time(trial.ended or record.ended),
        request=Request(salt=salt.hex(), rows=tuple(row_hash(salt, *texts) for texts in benchmark.forget_texts)),
        earlier={request.study: len(request.rows) for request in record.requests[:-1]},
        before=_before(record),
        after=identity(find(after, f"trial {trial.number}", registry=study.tracking.uri), after),
        method=_method(trial),
        verdict=trial.forgotten,
        evidence=tuple(_evidence(record, trial, study)),
        audits=trial.audits,
        unchecked=tuple(_unchecked(record, trial, study, benchmark)),
        software=_software(),
    )


def identity(model: ScoredModel, name: str) -> ModelIdentity:
    """Return what identifies a model's files. Of a folder's `name` the last part is kept: the others may say where, and
    whose, it is."""
    short = name if name.startswith("models:/") else PurePath(name).name
    base = None if model.base is None else model_sha256(model.base)
    return ModelIdentity(name=short, sha256=model_sha256(model.folder), base_sha256=base)


def _before(record: StudyRecord) -> ModelIdentity:
    """Return the start model. Raises UserError where its files are gone or others than the study's."""
    found = find(record.start_folder, f"the start model of {record.id}")
    if found.digest != record.digests.get("model"):
        raise UserError(f"{record.start_folder}, the start model of {record.id}, has changed since")
    model = record.study.get("model", {})
    return identity(found, str(model.get("path") or model.get("base") or f"{model.get('name', 'start')} model"))


def _method(trial: TrialRecord) -> dict[str, Scalar]:
    """Return the settings by which the trial's model was unlearned."""
    used = {key: value for key, value in trial.params.items() if value is not None}
    return {key: value for key, value in used.items() if key.split(".")[0] in SECTIONS}


def _evidence(record: StudyRecord, trial: TrialRecord, study: Study) -> Iterator[Evidence]:
    known = study.benchmark.metrics
    names = study.benchmark.evidence or tuple(name for name, metric in known.items() if not metric.cost)
    oracle = record.oracle.metrics if record.oracle else {}
    for name in names:
        if name in trial.metrics:
            yield Evidence(
                metric=name,
                meaning=known[name].meaning,
                before=record.start.metrics.get(name),
                after=trial.metrics[name],
                oracle=oracle.get(name),
            )


def _unchecked(record: StudyRecord, trial: TrialRecord, study: Study, benchmark: Benchmark) -> Iterator[str]:
    """Yield a sentence for each thing that nobody looked at."""
    checked = {criterion.metric for criterion in trial.forgotten.criteria} if trial.forgotten else set()
    for metric, criterion in study.criteria().items():
        # An audit's criteria are said with the audit.
        if not metric.startswith("audit_") and checked.isdisjoint({metric, *criterion.instead}):
            yield f"The criterion on {metric.replace('_', ' ')}: the study has no number for it."
    tried = {audit.variant for audit in trial.audits if audit.after}
    for name, audit in Audit.registered.items():
        if tried.isdisjoint(audit.meanings) and (benchmark.has_questions or not audit.needs_questions):
            yield f"{name.replace('_', ' ').capitalize()}: this audit was not run on the model."
    known = study.benchmark.metrics
    if record.requests[:-1] and not any("earlier" in known[name].needs for name in trial.metrics if name in known):
        yield "Rows of earlier requests: whether they stay forgotten was not measured."
    if trial.confirmation is None:
        yield "Chance: the model is one run with one seed, chosen among others by the same measurements."
    if record.oracle is None:
        yield "A model that never saw the rows: there is none to compare with."
    yield from (f"{note}." for note in record.notes)
    yield from ALWAYS_UNCHECKED


def _software() -> dict[str, str]:
    found = {"lethe": lethe.__version__, "python": platform.python_version()}
    for package in SOFTWARE:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
