"""Entry points of a worker group: audits of a finished model, and a trial that ends with audits."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from transformers import PreTrainedModel

from lethe.audits import AUDITS
from lethe.audits.base import Audited
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.models.loading import load_model, on_device, put_adapter
from lethe.models.quantised import dequantised
from lethe.records import FinalReport, audit_numbers
from lethe.storage.replica import temporary_copy
from lethe.unlearning.context import Context, context_for
from lethe.unlearning.outcome import Ranks, ReportFunction, expected_failure
from lethe.unlearning.requests import AuditedTrialRequest, AuditReport, AuditRequest, TrialReport
from lethe.unlearning.worker_entry import read_reference, run_trial


def run_audited_trial(request: AuditedTrialRequest, report: ReportFunction, ranks: Ranks) -> FinalReport:
    """Unlearn as `run_trial` does, then audit the model: the numbers of the audits, under their full names, are values
    of the report, and `audit_seconds` is a part of its `seconds`. Entry point AUDITED_TRIAL.

    A variant that fails, as relearning that diverges does, ends the run with its verdict: an objective is missing.
    """
    trained = run_trial(request, report, ranks)
    if not isinstance(trained, TrialReport):
        return trained
    began = time.perf_counter()
    ranks.gather(None)  # rank 0 has saved the model
    audits = AuditRequest(
        audits=request.audits,
        assets=request.assets,
        recipe=request.run.recipe,
        model=request.folder / "model",
        reference=request.reference,
        metrics=trained.values,
    )
    done = run_audit(audits, report, ranks)
    spent = time.perf_counter() - began
    values = {**trained.values, "audit_seconds": spent, "seconds": trained.values["seconds"] + spent}
    if not isinstance(done, AuditReport):
        return FinalReport(verdict=done.verdict, reason=f"audits: {done.reason}", values=values)
    values |= audit_numbers(done.audits)
    failed = next((audit for audit in done.audits if audit.verdict != "complete"), None)
    if failed is not None:
        return FinalReport(verdict=failed.verdict, reason=f"audit {failed.variant}: {failed.reason}", values=values)
    return trained.model_copy(update={"values": values, "audits": done.audits})


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
    try:
        model = finished(folder, context)
        reference = read_reference(request.reference, context, request.recipe.evaluation)
        audited = Audited(
            model=model,
            folder=folder,
            template=_template(folder, context),
            context=context,
            recipe=request.recipe,
            reference=reference,
            metrics=request.metrics,
            ranks=ranks,
        )
        found = [record for config in request.audits.asked().values() for record in AUDITS.of(config)(audited, config)]
        return AuditReport(verdict="complete", audits=tuple(found))
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
