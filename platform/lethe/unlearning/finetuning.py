"""Plain training of a base checkpoint with the training loop of all runs: the start models and oracles of studies, and
what retraining and relearning have in common with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from lethe.benchmarks.base import EvaluationResult
from lethe.benchmarks.measurement import PROMPT
from lethe.config.objective import GradientAscent
from lethe.config.prompt import Prompt
from lethe.config.run import FOLDER
from lethe.data.template import Encoded
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.models.saving import merged, write_model
from lethe.records import TRAINING, FinalReport, Metrics, TrainingRecord
from lethe.storage.paths import atomic_folder
from lethe.storage.replica import delete, local_path
from lethe.unlearning.checkpoint import checkpoints_in
from lethe.unlearning.context import Context, context_for
from lethe.unlearning.objectives.base import Counts, Loss, Scored
from lethe.unlearning.outcome import Outcome, Ranks, ReportFunction, expected_failure, is_io
from lethe.unlearning.requests import FinetuneRequest
from lethe.unlearning.trainer import unlearn


class Descent(Loss):
    """Plain training: L = NLL of the rows that stand where the training plan looks for forget rows."""

    def __init__(self) -> None:
        super().__init__(GradientAscent())

    def forget_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Return the share of the mean token loss: minus that of gradient ascent."""
        return -super().forget_share(values, scored, counts)


def training_context(context: Context, base: Path, rows: Sequence[Encoded]) -> Context:
    """Return a context with the base checkpoint as the start model and `rows`, as `context`'s tokenizer reads them,
    where the training plan looks for forget rows."""
    training = Context(context.assets, start_folder=base)
    shared = {name: getattr(context, name) for name in ("benchmark", "template", "task", "retain")}
    # Presets what its cached properties would load. The base knows no forget row, so forgetting ends no run.
    vars(training).update(shared, forget=rows, until_forgotten=False)
    return training


def run_finetuning(request: FinetuneRequest, report: ReportFunction, ranks: Ranks) -> FinalReport:
    """Train the base as the request says and write the model into its folder. Entry point FINETUNE.

    Each epoch but the last is reported, with its mean token `loss`; the final report has the last one's. Failures are
    as in `lethe.unlearning.worker_entry.run_trial`.
    """
    try:
        with _finetune(request, report, ranks) as outcome:
            if outcome.model is not None:
                with outcome.whole_model():
                    if ranks.rank == 0:
                        _save(outcome, request)
            return outcome.report
    except (UserError, torch.cuda.OutOfMemoryError, MemoryError) as error:
        if ranks.world > 1 or is_io(error):
            raise
        return expected_failure(error)


def _finetune(request: FinetuneRequest, report: ReportFunction, ranks: Ranks) -> Outcome:
    base = context_for(request.assets)
    rows = base.task.training_rows(request.include_forget)
    context = training_context(base, local_path(request.base), rows)
    vars(context).update(task=_NoEvaluation(base.task.forget, base.task.retain))
    recipe = request.model.recipe(request.engine)
    outcome = unlearn(
        recipe,
        context,
        None,
        lambda values: report(_renamed(values)),
        ranks,
        checkpoints_in(request.work / FOLDER, request.checkpoint, ranks),
        Descent(),
        request.model.target_loss,
    )
    outcome.report = outcome.report.model_copy(update={"values": _renamed(outcome.report.values)})
    return outcome


def _renamed(values: Metrics) -> Metrics:
    return {("loss" if key == "forget_loss" else key): value for key, value in values.items()}


def _save(outcome: Outcome, request: FinetuneRequest) -> None:
    """Write the trained model, with an adapter merged, and its record; remove the checkpoints."""
    values, context = outcome.report.values, context_for(request.assets)
    record = TrainingRecord(
        base=request.model.base,
        base_digest=request.base_digest,
        rows=len(context.task.training_rows(request.include_forget)),
        epochs=int(values["epoch"]),
        steps=int(values["optimizer_step"]),
        tokens=int(values["tokens"]),
        seconds=values["train_seconds"],
        peak_memory_mb=values["peak_memory_mb"],
        loss=values["loss"],
    )
    with atomic_folder(request.folder) as folder:
        trained = cast("PreTrainedModel | PeftModel", outcome.model)  # `unlearn` trains what `Context` has loaded
        whole = merged(trained) if isinstance(trained, PeftModel) else trained
        write_model(whole, folder, context.template.portable_tokenizer())
        if context.template.config != Prompt():
            (folder / PROMPT).write_text(context.template.config.model_dump_json())
        (folder / TRAINING).write_text(record.model_dump_json(indent=1))
    delete(request.work / FOLDER)


@dataclass(frozen=True)
class _NoEvaluation:
    """A task whose model is not measured: its loss says enough."""

    forget: list[Encoded]
    retain: list[Encoded]
    until_forgotten: bool = field(default=False, init=False)

    def eval_set(self, config: Any) -> None:
        """Return nothing: nothing is measured."""

    def evaluate(
        self, model: nn.Module, evals: None, config: Any, reference: None, shard: RankShard, *, last: bool
    ) -> EvaluationResult:
        """Return no metrics. A loss that is not finite has ended the run before."""
        return EvaluationResult(metrics={}, finite=True)
