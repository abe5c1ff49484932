"""The scores of start model and oracle: the yardsticks of a study, and where its floors come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lethe.config.study import Study
from lethe.errors import UserError
from lethe.evaluation.score_cache import Measurement, Scores, load_scores, store_scores
from lethe.models.hashing import tokenizer_digest
from lethe.pool.jobs import QueuedRun
from lethe.pool.resources import Shape
from lethe.pool.worker_pool import Pool
from lethe.records import ModelScores, Sample
from lethe.storage.paths import atomic_write
from lethe.study.preparation import Prepared
from lethe.study.recorder import numbers
from lethe.unlearning.requests import Assets

ENTRY = "lethe.unlearning.worker_entry:run_baseline"
FILE = "baselines.json"


def baselines(
    study: Study, prepared: Prepared, assets: Assets, pool: Pool, folder: Path
) -> tuple[ModelScores, ModelScores | None]:
    """Scores of the start model and, where there is one, the oracle, on two groups at once; what any study measured
    before on the same models and data is read back.

    They fix the floors, so a resumed study reads its own from `folder`. There `truth.json` holds what the trials
    compare theirs with: the oracle's scores, or for TDEC the start model's thresholds.
    """
    path = folder / FILE
    if scored(folder):
        stored = json.loads(path.read_text())
        oracle = stored["oracle"] and ModelScores.model_validate(stored["oracle"])
        return ModelScores.model_validate(stored["start"]), oracle
    found = _measured(study, prepared, assets, pool)
    measured_oracle = found.get("oracle")
    if reference := found.get(study.benchmark.compared_with):
        atomic_write(folder / "truth.json", json.dumps(reference.truth))

    def metrics(model: Scores) -> dict[str, float]:
        if measured_oracle is None:
            return model.metrics
        return {**model.metrics, **prepared.benchmark.reference_metrics(model.truth, measured_oracle.truth)}

    scores = {role: ModelScores(metrics=metrics(model), samples=model.samples) for role, model in found.items()}
    both = {role: scores[role].model_dump() if role in scores else None for role in ("start", "oracle")}
    atomic_write(path, json.dumps(both))
    return scores["start"], scores.get("oracle")


def measurements(study: Study, prepared: Prepared) -> dict[str, Measurement]:
    """What has to be known of the start model and the oracle, by role; both are asked with the start's tokenizer."""
    recipe, digests = study.first_recipe(), prepared.digests
    tokenizer, workers = tokenizer_digest(prepared.start), recipe.engine.workers
    models = {"start": digests.model, **({"oracle": digests.oracle} if digests.oracle else {})}
    return {
        role: Measurement.of(study.benchmark, model, tokenizer, digests.data, recipe.evaluation, recipe.engine, workers)
        for role, model in models.items()
    }


def scored(folder: Path) -> bool:
    """Whether an earlier session, or another member of the comparison, has done it."""
    return (folder / FILE).exists()


def known(study: Study, prepared: Prepared, folder: Path) -> bool:
    """Whether no model has to be scored."""
    return scored(folder) or all(load_scores(measurement) for measurement in measurements(study, prepared).values())


def truth_file(folder: Path) -> str | None:
    """Where a study keeps what its trials compare theirs with, if there is such."""
    path = folder / "truth.json"
    return str(path) if path.exists() else None


def _measured(study: Study, prepared: Prepared, assets: Assets, pool: Pool) -> dict[str, Scores]:
    """By role, from the cache or measured now. How long it took is told, and not kept."""
    wanted = measurements(study, prepared)
    found = {role: scores for role, measurement in wanted.items() if (scores := load_scores(measurement))}
    folders = {"start": prepared.start, **({"oracle": prepared.oracle} if prepared.oracle else {})}
    requests = {
        role: _submit(study, assets, pool, role, folders[role], wanted[role].rows)
        for role in wanted
        if role not in found
    }
    for role, request in requests.items():
        report = _result(pool, request, folders[role])
        seconds = report.pop("evaluate_seconds")
        scores = _scores(report)
        store_scores(wanted[role], scores)
        found[role] = scores.model_copy(update={"metrics": {**scores.metrics, "evaluate_seconds": seconds}})
    return found


def _submit(study: Study, assets: Assets, pool: Pool, role: str, model: Path, rows: Path) -> QueuedRun:
    recipe = study.first_recipe()
    payload = {
        "entry": ENTRY,
        "assets": assets.model_dump(mode="json"),
        "evaluation": recipe.evaluation.model_dump(mode="json"),
        "model": str(model),
        "rows": str(rows),
    }
    return pool.submit(f"baseline:{role}:{model}", payload, Shape.of(recipe.engine))


def _result(pool: Pool, request: QueuedRun, model: Path) -> dict[str, Any]:
    report = pool.result(request)
    if report["verdict"] != "complete":
        raise UserError(f"cannot score the model in {model}: {report.get('reason', report['verdict'])}")
    return report


def _scores(report: dict[str, Any]) -> Scores:
    return Scores(
        metrics=numbers({k: v for k, v in report.items() if k != "truth"}),
        samples=tuple(Sample.model_validate(s) for s in report.get("samples", ())),
        truth=report["truth"],
    )
