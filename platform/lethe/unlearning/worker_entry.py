"""Entry points that train and score models in a worker group: a request in, reports out, models on disk."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from lethe.benchmarks.base import ReferenceValues
from lethe.benchmarks.measurement import PROMPT, load_network, measure
from lethe.config.objective import AnyObjective
from lethe.config.objective import Method as MethodConfig
from lethe.config.prompt import Prompt
from lethe.config.run import FOLDER, Evaluation
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.rows import write_rows
from lethe.models.saving import save_model
from lethe.records import FinalReport, Sample
from lethe.storage.paths import atomic_write
from lethe.storage.replica import delete, evict_local, local_path, read_current
from lethe.unlearning.checkpoint import Checkpoints, checkpoints_in
from lethe.unlearning.context import Context, context_for
from lethe.unlearning.methods.base import METHODS, Method
from lethe.unlearning.outcome import Measure, Outcome, Ranks, ReportFunction, expected_failure, is_io
from lethe.unlearning.requests import BaselineReport, BaselineRequest, TrialReport, TrialRequest
from lethe.unlearning.trainer import unlearn

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def run_trial(request: TrialRequest, report: ReportFunction, ranks: Ranks) -> FinalReport:
    """Unlearn as the request says and keep model and rows in its folder. Entry point TRIAL.

    A complete run's report is a `TrialReport`. In a group of one worker a UserError or a lack of memory becomes a
    report with that verdict; with more workers, which wait in a collective, it is raised, as is a failing disk or
    connection.
    """
    recipe = request.run.recipe
    context = context_for(request.assets)
    try:
        reference = read_reference(request.reference, context, recipe.evaluation)
        checkpoints = _checkpoints(request, ranks)
        method = method_of(recipe.objective, _interim(request, context))
        with method(recipe, context, reference, report, ranks, checkpoints) as outcome:
            if outcome.model is None or outcome.result is None:
                return outcome.report
            stored = context.stored(outcome.result)
            with outcome.whole_model():
                if ranks.rank == 0:
                    _save(outcome, context, request.folder)
                    write_rows(request.folder / "rows.parquet", stored.rows)
                    evict_local(request.folder / "rows.parquet")
            answers = tuple(Sample.model_validate(sample) for sample in context.benchmark.samples(stored))
            return TrialReport(verdict=outcome.report.verdict, values=outcome.report.values, samples=answers)
    except (UserError, torch.cuda.OutOfMemoryError, MemoryError) as error:
        if ranks.world > 1 or is_io(error):
            raise  # the other ranks wait in a collective, or another attempt may do better
        return expected_failure(error)


def method_of(objective: AnyObjective, interim: Measure | None = None) -> Method:
    """Return the function that pursues an objective: the method itself, or the training loop for a loss, which measures
    `interim` before its last epoch."""
    return METHODS.of(objective) if isinstance(objective, MethodConfig) else partial(unlearn, interim=interim)


def _interim(request: TrialRequest, context: Context) -> Measure | None:
    """Return what is measured before a run's last epoch; None for a run without such an evaluation."""
    recipe = request.run.recipe
    if request.interim is None or recipe.evaluation.every >= recipe.schedule.epochs:
        return None
    config = recipe.evaluation.before_last()
    return Measure(config, read_reference(request.interim, context, config))


def _checkpoints(request: TrialRequest, ranks: Ranks) -> Checkpoints:
    if request.checkpoint is None:
        return Checkpoints.none(ranks)
    return checkpoints_in(request.folder / FOLDER, request.checkpoint, ranks)


def _save(outcome: Outcome, context: Context, folder: Path) -> None:
    """Write the trained model. One left by a killed attempt is overwritten."""
    assert outcome.model is not None
    folder.mkdir(parents=True, exist_ok=True)
    delete(folder / "model")
    template = outcome.template or context.template
    model = cast("PreTrainedModel | PeftModel", outcome.model)  # every method trains one that `Context` has loaded
    save_model(model, folder / "model", template.portable_tokenizer())
    if template.config != Prompt():
        atomic_write(folder / "model" / PROMPT, template.config.model_dump_json())
    if template.instruction:
        atomic_write(folder / "model" / "input_guard.json", json.dumps({"instruction": template.instruction}))
    evict_local(folder / "model")


def run_baseline(request: BaselineRequest, report: ReportFunction, ranks: Ranks) -> FinalReport:
    """Score a model that is not trained, the oracle or the start model. Entry point BASELINE.

    The report is a `BaselineReport`, whose metrics compare with no other model: the driver does that.
    """
    context = context_for(request.assets)
    began = time.perf_counter()
    try:
        folder = local_path(request.model)
        assets = context.assets
        is_start = str(folder) == assets.start
        kept = (assets.device, assets.precision, assets.quantisation)
        model = context.start if is_start else load_network(folder, *kept)
        shard = RankShard(ranks.rank, ranks.world, ranks.gather)
        evals = context.eval_set(request.evaluation)
        result = measure(model, context.task, evals, request.evaluation, shard)
    except UserError as error:
        return FinalReport(verdict="infeasible", reason=str(error))
    stored = context.stored(result, named=False)  # other studies may read these scores
    if ranks.rank == 0 and request.rows:
        write_rows(request.rows, stored.rows)
    values = {**result.metrics, "evaluate_seconds": time.perf_counter() - began}
    assert result.reference is not None  # of a baseline
    answers = tuple(Sample.model_validate(sample) for sample in context.benchmark.samples(stored))
    reference = result.reference.dump()
    return BaselineReport(verdict="complete", values=values, reference=reference, samples=answers, fault=result.fault)


def read_reference(path: Path | None, context: Context, config: Evaluation) -> ReferenceValues | None:
    """Return the values that a run is compared with, from the JSON file `path` that the study wrote: the oracle's
    scores, or the start model's thresholds. Without a file, the task's `reference_values(None)`."""
    stored = None if path is None else json.loads(read_current(path))
    return context.task.reference_values(stored, context.eval_set(config))
