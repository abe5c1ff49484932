"""The door that a worker group goes through for one audit of one finished model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lethe.audits import AUDITS
from lethe.audits.base import Audited
from lethe.config.audits import Audits
from lethe.config.run import Recipe
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.models.loading import load_model, put_adapter
from lethe.storage.replica import temporary_copy
from lethe.unlearning.context import Context, context_for
from lethe.unlearning.outcome import ReportFunction
from lethe.unlearning.requests import Assets
from lethe.unlearning.worker_entry import read_truth
from transformers import PreTrainedModel


def run_audit(payload: dict[str, Any], report: ReportFunction, ranks: Any) -> dict[str, Any]:
    """`payload`: audits (Audits with one of them), assets (Assets), recipe (Recipe), model (folder), truth (path or
    None), metrics (what the study measured on the model). The answer has `audits`, a list of AuditRecord."""
    with temporary_copy(Path(payload["model"])) as folder:
        if folder is None:
            return {"verdict": "error", "reason": f"there is no model in {payload['model']}"}
        return _audit(payload, folder, ranks)


def _audit(payload: dict[str, Any], folder: Path, ranks: Any) -> dict[str, Any]:
    recipe = Recipe.model_validate(payload["recipe"])
    context = context_for(Assets.model_validate(payload["assets"]))
    (config,) = Audits.model_validate(payload["audits"]).asked().values()
    try:
        model = finished(folder, context)
        truth = read_truth(payload["truth"], context, recipe.evaluation)
        audited = Audited(model, _template(folder, context), context, recipe, truth, payload["metrics"], ranks)
        found = [record.model_dump(mode="json") for record in AUDITS.of(config)(audited, config)]
        return {"verdict": "complete", "audits": found}
    except (UserError, torch.cuda.OutOfMemoryError, MemoryError) as error:
        if ranks.world > 1:
            raise  # the other ranks wait in a collective
        verdict = "infeasible" if isinstance(error, UserError) else "out_of_memory"
        return {"verdict": verdict, "reason": str(error).splitlines()[0] if str(error) else verdict}


def finished(folder: Path, context: Context) -> PreTrainedModel:
    """A run's saved model, or another model's folder: whole, its adapter merged into a copy of the start weights."""
    if not (folder / "adapter_config.json").is_file():
        return load_model(folder).to(context.assets.device)
    return put_adapter(context.fresh_model(), folder).merge_and_unload().eval()


def _template(folder: Path, context: Context) -> Template:
    """An input guard's model is asked behind its instruction."""
    guard = folder / "input_guard.json"
    if not guard.is_file():
        return context.template
    return Template(context.template.tokenizer, json.loads(guard.read_text())["instruction"])
