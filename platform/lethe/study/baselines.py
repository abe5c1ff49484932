"""The baselines of a study: the scores of start model and oracle, which fix its floors."""

from __future__ import annotations

import json
from pathlib import Path

from lethe.config.base import short_digest
from lethe.config.benchmark import Role
from lethe.config.study import Study
from lethe.errors import UserError
from lethe.evaluation.score_cache import Measurement, Scores, load_scores, store_scores
from lethe.models.hashing import tokenizer_digest
from lethe.pool.messages import EntryPoint
from lethe.pool.resources import Shape
from lethe.pool.run_queue import QueuedRun
from lethe.pool.worker_pool import Pool
from lethe.records import ModelScores, Record
from lethe.storage.paths import atomic_write
from lethe.study.preparation import Prepared
from lethe.unlearning.requests import Assets, BaselineReport, BaselineRequest

FILE = "baselines.json"
REFERENCE_FILE = "truth.json"
SECONDS = "evaluate_seconds"


def baselines(
    study: Study, prepared: Prepared, assets: Assets, pool: Pool, folder: Path
) -> tuple[ModelScores, ModelScores | None]:
    """Return the scores of the start model and, where there is one, of the oracle.

    They are measured on several groups at once; scores of the same models on the same data that any study measured
    before are read back. They fix the floors, so a resumed study reads its own from `folder`. There `truth.json` holds
    what the trials are compared with, of the models that the benchmark's configuration names: `Benchmark.reference`.

    Raises UserError for a model that cannot be scored.
    """
    path = folder / FILE
    if scored(folder):
        stored = _StoredBaselines.model_validate(json.loads(path.read_text()))
        return stored.start, stored.oracle
    measured = _measured(study, prepared, assets, pool)
    reference = prepared.benchmark.reference({role: scores.reference for role, scores in measured.items()})
    if reference is not None:
        atomic_write(folder / REFERENCE_FILE, json.dumps(reference))

    def compared(model: Scores) -> ModelScores:
        metrics = model.metrics
        if reference is not None:
            metrics = {**metrics, **prepared.benchmark.reference_metrics(model.reference, reference)}
        return ModelScores(metrics=metrics, samples=model.samples)

    scores = {role: compared(model) for role, model in measured.items()}
    stored = _StoredBaselines(start=scores["start"], oracle=scores.get("oracle"))
    atomic_write(path, json.dumps(stored.model_dump()))
    return stored.start, stored.oracle


class _StoredBaselines(Record):
    """The content of `baselines.json`."""

    start: ModelScores
    oracle: ModelScores | None


def _models(study: Study, prepared: Prepared) -> dict[Role, tuple[Path, str]]:
    """Return folder and digest of the models that the study scores, by role: the start model, the oracle, and the base
    where the benchmark compares with it."""
    digests = prepared.digests
    found: dict[Role, tuple[Path | None, str | None]] = {
        "start": (prepared.start, digests.model),
        "oracle": (prepared.oracle, digests.oracle),
        "base": (prepared.base if "base" in study.benchmark.compared_with else None, digests.base),
    }
    return {role: (folder, digest) for role, (folder, digest) in found.items() if folder and digest}


def measurements(study: Study, prepared: Prepared) -> dict[Role, Measurement]:
    """Return the keys of the scores that the study needs, by role. All models are asked with the start model's
    tokenizer."""
    recipe, digests = study.first_recipe(), prepared.digests
    tokenizer, workers = tokenizer_digest(prepared.start), recipe.engine.workers
    return {
        role: Measurement.of(
            study.benchmark,
            model,
            tokenizer,
            digests.data,
            str(digests.prompt),
            recipe.evaluation,
            recipe.engine,
            workers,
            text=study.stored_text,
        )
        for role, (_, model) in _models(study, prepared).items()
    }


def scored(folder: Path) -> bool:
    """Return whether an earlier session, or another member of the comparison, left its baselines in `folder`."""
    return (folder / FILE).exists()


def known(study: Study, prepared: Prepared, folder: Path) -> bool:
    """Return whether all scores are in `folder` or in the cache, so that no model has to be scored."""
    return scored(folder) or all(load_scores(measurement) for measurement in measurements(study, prepared).values())


def reference_file(folder: Path) -> Path | None:
    """Return the file in `folder` with the reference values of a study's trials; None where there is no such file."""
    path = folder / REFERENCE_FILE
    return path if path.exists() else None


def _measured(study: Study, prepared: Prepared, assets: Assets, pool: Pool) -> dict[Role, Scores]:
    """Return the scores by role, from the cache or measured now. Only those measured now have `evaluate_seconds`, which
    is not cached."""
    needed = measurements(study, prepared)
    found = {role: scores for role, measurement in needed.items() if (scores := load_scores(measurement))}
    folders = {role: folder for role, (folder, _) in _models(study, prepared).items()}
    runs = {
        role: _submit(study, assets, pool, role, folders[role], needed[role].rows)
        for role in needed
        if role not in found
    }
    for role, run in runs.items():
        report = pool.result(run)
        if not isinstance(report, BaselineReport):
            raise UserError(f"cannot score the model in {folders[role]}: {report.reason or report.verdict}")
        metrics = {name: value for name, value in report.values.items() if name != SECONDS}
        scores = Scores(metrics=metrics, samples=report.samples, reference=report.reference, fault=report.fault)
        store_scores(needed[role], scores)
        found[role] = scores.model_copy(update={"metrics": {**metrics, SECONDS: report.values[SECONDS]}})
    return found


def _submit(study: Study, assets: Assets, pool: Pool, role: str, model: Path, rows: Path) -> QueuedRun:
    recipe = study.first_recipe()
    name = f"baseline:{role}:{short_digest(str(model))}"  # no path: names of runs stand in logs
    request = BaselineRequest(assets=assets, evaluation=recipe.evaluation, model=model, rows=rows)
    return pool.submit(name, EntryPoint.BASELINE, request, Shape.of(recipe.engine, study.resources.gpus_per_worker))
