"""The FLOPs of a trial's training, as far as its record tells them."""

from __future__ import annotations

import math

from lethe.config.model import EmbeddedModel
from lethe.config.optimizer import Optimizer, Passes
from lethe.models.transformer import BatchShape, Transformer, step_flops
from lethe.records import StudyRecord, TrialRecord
from lethe.reporting.trial_views import metric_value


def model_shape(record: StudyRecord) -> Transformer | None:
    """Return the shape of the study's start model: of another than an embedded one the Llama of as many parameters.

    None where their number is not recorded.
    """
    model = record.study.get("model", {})
    if model.get("name", "embedded") == "embedded" and "hidden_size" in model:
        return Transformer.of_embedded(EmbeddedModel.model_validate(model))
    return Transformer.of_size(record.parameters) if record.parameters else None


def training_flops(shape: Transformer, trial: TrialRecord) -> float:
    """Return the FLOPs of the passes over the tokens that went through the trained model; 0 of a trial without tokens.

    The tokens count once for every pass, those of SAM and of Hessian refreshes too, so each of them costs one forward
    and, unless the optimizer takes none, one backward. A record has no lengths of rows: every position counts as one
    whose logits are computed, and products of positions are left out. Both arms of a pair are alike in this.
    """
    tokens = metric_value(trial.metrics, "tokens")
    if not math.isfinite(tokens):
        return 0.0
    params = trial.params
    optimizer = Optimizer.registered.get(str(params.get("optimizer.name")))
    backward = optimizer is None or optimizer().passes.backward > 0
    rank = params.get("adapter.rank")
    batch = BatchShape(rows=0, tokens=int(tokens), scored=int(tokens), squares=0, padded=int(tokens))
    return step_flops(
        shape,
        batch,
        int(rank) if isinstance(rank, int | float) else None,
        checkpointing=bool(params.get("engine.gradient_checkpointing")),
        passes=Passes() if backward else Passes(forward=1, backward=0),
    )
