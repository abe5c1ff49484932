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
INTERIM_FILE = "truth-interim.json"
SECONDS = "evaluate_seconds"

Key = tuple[Role, bool]  # of a model's scores; true: of the rows that interim evaluations read


def baselines(
    study: Study, prepared: Prepared, assets: Assets, pool: Pool, folder: Path
) -> tuple[ModelScores, ModelScores | None]:
    """Return the scores of the start model and, where there is one, of the oracle.

    They are measured on several groups at once; scores of the same models on the same data that any study measured
    before are read back. They fix the floors, so a resumed study reads its own from `folder`. There `truth.json` holds
    what the trials are compared with, of the models that the benchmark's configuration names: `Benchmark.reference`;
    `truth-interim.json` holds the same of the rows of interim evaluations, null where there is nothing to compare with.

    Raises UserError for a model that cannot be scored.
    """
    path = folder / FILE
    if scored(folder):
        stored = _StoredBaselines.model_validate(json.loads(path.read_text()))
        return stored.start, stored.oracle
    found = _measured(study, prepared, assets, pool)
    measured = {role: scores for (role, is_interim), scores in found.items() if not is_interim}
    reference = prepared.benchmark.reference({role: scores.reference for role, scores in measured.items()})
    if reference is not None:
        atomic_write(folder / REFERENCE_FILE, json.dumps(reference))
    if study.interim_evaluation() is not None:
        dumped = {role: scores.reference for (role, is_interim), scores in found.items() if is_interim}
        atomic_write(folder / INTERIM_FILE, json.dumps(prepared.benchmark.reference(dumped)))

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


def measurements(study: Study, prepared: Prepared) -> dict[Key, Measurement]:
    """Return the keys of the scores that the study needs: of all models whole ones, and of those that trials are
    compared with what interim evaluations read. All models are asked with the start model's tokenizer."""
    recipe, digests = study.first_recipe(), prepared.digests
    tokenizer, workers = tokenizer_digest(prepared.start), recipe.engine.workers
    models = {role: digest for role, (_, digest) in _models(study, prepared).items()}
    needed = {(role, False): recipe.evaluation for role in models}
    if (interim := study.interim_evaluation()) is not None:
        needed |= {(role, True): interim for role in models if role in study.benchmark.compared_with}
    return {
        (role, is_interim): Measurement.of(
            study.benchmark,
            models[role],
            tokenizer,
            digests.data,
            str(digests.prompt),
            evaluation,
            recipe.engine,
            workers,
            text=study.stored_text,
        )
        for (role, is_interim), evaluation in needed.items()
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


def interim_file(folder: Path) -> Path | None:
    """Return the file in `folder` with the reference values for interim evaluations; None where there is no such file:
    then all evaluations are whole, as in a study that an earlier version of lethe began."""
    path = folder / INTERIM_FILE
    return path if path.exists() else None


def _measured(study: Study, prepared: Prepared, assets: Assets, pool: Pool) -> dict[Key, Scores]:
    """Return the scores, from the cache or measured now. Only those measured now have `evaluate_seconds`, which is not
    cached."""
    needed = measurements(study, prepared)
    found = {key: scores for key, measurement in needed.items() if (scores := load_scores(measurement))}
    folders = {role: folder for role, (folder, _) in _models(study, prepared).items()}
    missing = [key for key in needed if key not in found]
    runs = {key: _submit(study, assets, pool, key, folders[key[0]], needed[key].rows) for key in missing}
    for key, run in runs.items():
        report = pool.result(run)
        if not isinstance(report, BaselineReport):
            raise UserError(f"cannot score the model in {folders[key[0]]}: {report.reason or report.verdict}")
        metrics = {name: value for name, value in report.values.items() if name != SECONDS}
        samples = () if key[1] else report.samples  # the whole evaluation's are enough
        scores = Scores(metrics=metrics, samples=samples, reference=report.reference, fault=report.fault)
        store_scores(needed[key], scores)
        found[key] = scores.model_copy(update={"metrics": {**metrics, SECONDS: report.values[SECONDS]}})
    return found


def _submit(study: Study, assets: Assets, pool: Pool, key: Key, model: Path, rows: Path) -> QueuedRun:
    role, is_interim = key
    recipe, interim = study.first_recipe(), study.interim_evaluation() if is_interim else None
    name = f"baseline:{role}:{short_digest(str(model))}"  # no path: names of runs stand in logs
    request = BaselineRequest(
        assets=assets, evaluation=interim or recipe.evaluation, model=model, rows=None if interim else rows
    )
    shape = Shape.of(recipe.engine, study.resources.gpus_per_worker)
    return pool.submit(name + (":interim" if interim else ""), EntryPoint.BASELINE, request, shape)
