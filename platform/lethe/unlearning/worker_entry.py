"""The door that a worker group goes through: payloads in, reports out, models on disk."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from lethe.benchmarks.base import ReferenceValues
from lethe.benchmarks.measurement import load_network, measure
from lethe.config.run import FOLDER, Checkpoint, Evaluation, UnlearnRun
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.rows import write_rows
from lethe.models.saving import save_model
from lethe.storage.paths import atomic_write, object_of
from lethe.storage.replica import delete, evict_local, local_path, read_current
from lethe.unlearning.checkpoint import Checkpoints, StoredCheckpoints
from lethe.unlearning.context import Context, context_for
from lethe.unlearning.methods import method_of
from lethe.unlearning.outcome import Outcome, ReportFunction, is_io
from lethe.unlearning.requests import Assets


def run_trial(payload: dict[str, Any], report: ReportFunction, ranks: Any) -> dict[str, Any]:
    """One unlearning run. `payload`: run (UnlearnRun), assets (Assets), truth (path or None), folder (path) and, if
    the run is to leave checkpoints there, checkpoint (Checkpoint)."""
    run = UnlearnRun.model_validate(payload["run"])
    context = context_for(Assets.model_validate(payload["assets"]))
    try:
        truth = read_truth(payload["truth"], context, run.recipe.evaluation)
        saved = _checkpoints(payload, ranks)
        with method_of(run.recipe.objective)(run.recipe, context, truth, report, ranks, saved) as outcome:
            if outcome.model is None or outcome.result is None:
                return outcome.report
            with outcome.whole_model():
                if ranks.rank == 0:
                    _keep(outcome, context, Path(payload["folder"]))
            return {**outcome.report, "samples": context.benchmark.samples(outcome.result)}
    except (UserError, torch.cuda.OutOfMemoryError, MemoryError) as error:
        if ranks.world > 1 or is_io(error):
            raise  # the other ranks wait in a collective, or another attempt may do better
        verdict = "infeasible" if isinstance(error, UserError) else "out_of_memory"
        return {"verdict": verdict, "reason": str(error).splitlines()[0] if str(error) else verdict}


def _checkpoints(payload: dict[str, Any], ranks: Any) -> Checkpoints:
    if "checkpoint" not in payload:
        return Checkpoints.none(ranks)
    folder = Path(payload["folder"]) / FOLDER
    kind = StoredCheckpoints if object_of(folder) else Checkpoints
    return kind(folder, Checkpoint.model_validate(payload["checkpoint"]), ranks)


def _keep(outcome: Outcome, context: Context, folder: Path) -> None:
    """The trained model and the rows of its last evaluation. A folder that a killed attempt left gives way."""
    folder.mkdir(parents=True, exist_ok=True)
    delete(folder / "model")
    template = outcome.template or context.template
    save_model(outcome.model, folder / "model", template.portable_tokenizer())
    if template.instruction:
        atomic_write(folder / "model" / "input_guard.json", json.dumps({"instruction": template.instruction}))
    write_rows(folder / "rows.parquet", outcome.result.rows)
    for part in ("model", "rows.parquet"):
        evict_local(folder / part)


def run_baseline(payload: dict[str, Any], report: ReportFunction, ranks: Any) -> dict[str, Any]:
    """Score a model that is not trained, the oracle or the start model; the driver compares their `truth`. `rows`, if
    the payload has it, is the parquet file to leave."""
    context = context_for(Assets.model_validate(payload["assets"]))
    config = Evaluation.model_validate(payload["evaluation"])
    began = time.perf_counter()
    try:
        folder = local_path(Path(payload["model"]))
        model = context.start if str(folder) == context.assets.start else load_network(folder, context.assets.device)
        shard = RankShard(ranks.rank, ranks.world, ranks.gather)
        result = measure(model, context.task, context.eval_set(config), config, shard)
    except UserError as error:
        return {"verdict": "infeasible", "reason": str(error)}
    if ranks.rank == 0 and payload.get("rows"):
        write_rows(Path(payload["rows"]), result.rows)
    spent = {"evaluate_seconds": time.perf_counter() - began}
    assert result.reference is not None  # of a baseline
    found = {"truth": result.reference.dump(), "samples": context.benchmark.samples(result)}
    return {"verdict": "complete", **result.metrics, **spent, **found}


def read_truth(path: str | None, context: Context, config: Evaluation) -> ReferenceValues | None:
    """What the study's yardstick left in a JSON file: an oracle's scores, or a start model's thresholds."""
    stored = None if path is None else json.loads(read_current(Path(path)))
    return context.task.reference_values(stored, context.eval_set(config))
