"""Entry point of a worker group: one audit of one finished model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel

from lethe.audits import AUDITS
from lethe.audits.base import Audited
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.models.loading import load_model, on_device, put_adapter
from lethe.models.quantised import dequantised
from lethe.records import FinalReport
from lethe.storage.replica import temporary_copy
from lethe.unlearning.context import Context, context_for
from lethe.unlearning.outcome import Ranks, ReportFunction, expected_failure
from lethe.unlearning.requests import AuditReport, AuditRequest
from lethe.unlearning.worker_entry import read_reference


def run_audit(request: AuditRequest, report: ReportFunction, ranks: Ranks) -> FinalReport:
    """Audit the model in the request's folder. Entry point AUDIT; a complete report is an `AuditReport`.

    In a group of one worker a UserError or a lack of memory becomes a report with that verdict; with more workers,
    which wait in a collective, it is raised.
    """
    with temporary_copy(request.model) as folder:
        if folder is None:
            return FinalReport(verdict="error", reason=f"there is no model in {request.model}")
        return _audit(request, folder, ranks)


def _audit(request: AuditRequest, folder: Path, ranks: Ranks) -> FinalReport:
    context = context_for(request.assets)
    (config,) = request.audits.asked().values()
    try:
        model = finished(folder, context)
        reference = read_reference(request.reference, context, request.recipe.evaluation)
        audited = Audited(model, _template(folder, context), context, request.recipe, reference, request.metrics, ranks)
        return AuditReport(verdict="complete", audits=tuple(AUDITS.of(config)(audited, config)))
    except (UserError, torch.cuda.OutOfMemoryError, MemoryError) as error:
        if ranks.world > 1:
            raise  # the other ranks wait in a collective
        return expected_failure(error)


def finished(folder: Path, context: Context) -> PreTrainedModel:
    """Load the model in `folder`: a whole one, or an adapter, merged into a copy of the context's start weights. In
    a quantised study its base is rounded, then multiplied out: merging into 4 bits would round the change away."""
    assets = context.assets
    if not (folder / "adapter_config.json").is_file():
        loaded = load_model(folder, assets.precision, assets.quantisation, assets.device)
        return on_device(dequantised(loaded), assets.device)
    merged: PreTrainedModel = put_adapter(dequantised(context.fresh_model()), folder).merge_and_unload()
    merged.eval()  # type: ignore[no-untyped-call]  # transformers', not annotated
    return merged


def _template(folder: Path, context: Context) -> Template:
    """Return the template for the model in `folder`, with the instruction if it is an input guard's."""
    guard = folder / "input_guard.json"
    if not guard.is_file():
        return context.template
    return context.template.with_instruction(json.loads(guard.read_text())["instruction"])
