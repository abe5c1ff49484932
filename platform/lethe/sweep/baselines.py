"""The scores of start model and oracle: the yardsticks of a study, and where its floors come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ray

from lethe.config.benchmark import TdecBenchmark
from lethe.config.study import Study
from lethe.errors import BadInput
from lethe.evaluation.oracle import Truth, against
from lethe.models.prepare import Prepared
from lethe.pool.groups import Pool
from lethe.pool.shape import Shape
from lethe.records import ModelScores, Sample
from lethe.storage import atomic_write
from lethe.sweep.recorder import numbers
from lethe.training.assets import Assets

ENTRY = "lethe.training.entry:baseline"
FILE = "baselines.json"


def baselines(
    study: Study, prepared: Prepared, assets: Assets, pool: Pool, folder: Path
) -> tuple[ModelScores, ModelScores | None]:
    """Scores of the start model and, where there is one, the oracle, on two groups at once.

    They fix the floors, so a resumed study reads them back from `folder`. There `truth.json` holds what the trials
    compare theirs with: the oracle's scores, or for TDEC the start model's thresholds.
    """
    path = folder / FILE
    if scored(folder):
        stored = json.loads(path.read_text())
        oracle = stored["oracle"] and ModelScores.model_validate(stored["oracle"])
        return ModelScores.model_validate(stored["start"]), oracle
    models = {"start": prepared.start, **({"oracle": prepared.oracle} if prepared.oracle else {})}
    for role, model in models.items():
        _submit(study, assets, pool, role, model, folder / f"{role}_rows.parquet")
    reports = {role: _result(pool, role, model) for role, model in models.items()}
    if "oracle" in reports:
        truth = reports["oracle"]["truth"]
        atomic_write(folder / "truth.json", json.dumps(truth))
        for report in reports.values():
            report |= against(Truth.load(report["truth"]), Truth.load(truth))
    elif isinstance(study.benchmark, TdecBenchmark):
        atomic_write(folder / "truth.json", json.dumps(reports["start"]["truth"]))
    scores = {role: _scores(report) for role, report in reports.items()}
    both = {role: scores[role].model_dump() if role in scores else None for role in ("start", "oracle")}
    atomic_write(path, json.dumps(both))
    return scores["start"], scores.get("oracle")


def scored(folder: Path) -> bool:
    """Whether an earlier session, or another member of the comparison, has done it."""
    return (folder / FILE).exists()


def truth_file(folder: Path) -> str | None:
    """Where a study keeps what its trials compare theirs with, if there is such."""
    path = folder / "truth.json"
    return str(path) if path.exists() else None


def _submit(study: Study, assets: Assets, pool: Pool, role: str, model: Path, rows: Path) -> None:
    recipe = study.first_recipe()
    payload = {
        "entry": ENTRY,
        "assets": assets.model_dump(mode="json"),
        "evaluation": recipe.evaluation.model_dump(mode="json"),
        "model": str(model),
        "is_oracle": role == "oracle",
        "rows": str(rows),
    }
    ray.get(pool.mailbox.submit.remote(_name(role, model), payload, Shape.of(recipe.engine).key))


def _result(pool: Pool, role: str, model: Path) -> dict[str, Any]:
    report = pool.result(pool.mailbox.next_report.remote(_name(role, model), 0))
    if report["verdict"] != "complete":
        raise BadInput(f"cannot score the model in {model}: {report.get('reason', report['verdict'])}")
    return report


def _name(role: str, model: Path) -> str:
    return f"baseline:{role}:{model}"


def _scores(report: dict[str, Any]) -> ModelScores:
    return ModelScores(
        metrics=numbers({k: v for k, v in report.items() if k != "truth"}),
        samples=tuple(Sample.model_validate(s) for s in report.get("samples", ())),
    )
