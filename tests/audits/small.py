"""A model small enough to memorise its rows in a second or two, and one finished model of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lethe.audits.worker_entry import run_audit
from lethe.config.adapter import FullParameters
from lethe.config.audits import FULL
from lethe.config.benchmark import TofuBenchmark
from lethe.config.optimizer import AdamW
from lethe.config.run import Evaluation, Recipe, Schedule
from lethe.data.batches import RowKind, collate
from lethe.models.forward import scored_logits
from lethe.models.hashing import model_digest
from lethe.models.loading import load_model, load_tokenizer
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Alone
from lethe.unlearning.requests import Assets, AuditRequest
from tests import tiny

RECIPE = Recipe(
    optimizer=AdamW(learning_rate=1e-2),
    adapter=FullParameters(),
    schedule=Schedule(epochs=1, batch_size=6),
    evaluation=Evaluation(max_new_tokens=10),
)


def memorised(folder: Path) -> Assets:
    """`tests.tiny`'s benchmark and a start model that knows its forget and retain rows by heart."""
    assets = tiny.assets(folder)
    context = Context(assets)
    rows = [*context.forget, *context.retain]
    model = load_model(Path(assets.start)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = collate({RowKind.FORGET: list(enumerate(rows))}, context.template.pad)
    for _ in range(120):
        loss = torch.nn.functional.cross_entropy(scored_logits(model, batch.input_ids, batch.position), batch.labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    start = folder / "memorised"
    model.eval().save_pretrained(start)
    load_tokenizer(Path(assets.start)).save_pretrained(start)
    return assets.model_copy(update={"start": str(start), "model_digest": model_digest(start)})


def audit(assets: Assets, model: Path, audits: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One audit through the workers' door, in this process."""
    payload = {
        "audits": audits,
        "assets": assets.model_dump(mode="json"),
        "recipe": RECIPE.model_dump(mode="json"),
        "model": str(model),
        "reference": None,
        "metrics": dict.fromkeys((*FULL, *TofuBenchmark.leaks), 0.5),
        **changes,
    }
    report = run_audit(AuditRequest.model_validate(payload), lambda values: None, Alone())
    return tiny.flat(report)


def by_variant(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A complete report's audits."""
    assert report["verdict"] == "complete", report
    return {found["variant"]: found for found in report["audits"]}
