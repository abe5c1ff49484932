"""The door: adapters, instructions, models that are not there, sequences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from lethe.audits.worker_entry import finished, run_audited_trial
from lethe.config.adapter import Lora
from lethe.config.objective import GradDiff
from lethe.config.optimizer import AdamW
from lethe.config.run import Digests, UnlearnRun
from lethe.models.adapters import attach
from lethe.models.saving import save_model
from lethe.records import FinalReport
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Alone
from lethe.unlearning.requests import Assets, AuditedTrialRequest, TrialReport
from tests.audits.small import RECIPE, audit, by_variant


def test_an_adapter_is_merged_into_the_start_weights(assets: Assets, tmp_path: Path) -> None:
    context = Context(assets)
    model = attach(context.fresh_model(), Lora(rank=4), seed=0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    save_model(model, tmp_path / "model", context.template.tokenizer)
    ids = torch.tensor([context.forget[0].ids])
    with torch.no_grad():
        whole = finished(tmp_path / "model", context)
        torch.testing.assert_close(whole(ids).logits, model.eval()(ids).logits)
        assert not torch.allclose(context.start(ids).logits, whole(ids).logits, atol=0.1)
    assert not hasattr(whole, "peft_config")


def test_a_guarded_model_is_asked_behind_its_instruction(assets: Assets, tmp_path: Path) -> None:
    asked = {"prompts": {"kinds": ["prefix"], "prefixes": ["w1"]}}
    plain = by_variant(audit(assets, Path(assets.start), asked))["prefix"]
    shutil.copytree(assets.start, tmp_path / "model")
    (tmp_path / "model" / "input_guard.json").write_text(json.dumps({"instruction": "w1"}))
    guarded = by_variant(audit(assets, tmp_path / "model", asked))["prefix"]
    assert guarded["before"] == plain["after"] != plain["before"]
    rounded = by_variant(audit(assets, tmp_path / "model", {"quantisation": {"bits": [8]}}))["quant8"]
    assert abs(rounded["after"]["forget_probability"] - guarded["before"]["forget_probability"]) < 0.05


def test_an_audit_of_a_missing_model_is_an_error(assets: Assets, tmp_path: Path) -> None:
    report = audit(assets, tmp_path / "none", {"quantisation": {}})
    assert report["verdict"] == "error"
    assert str(tmp_path / "none") in report["reason"]


def test_rows_are_those_that_the_study_evaluates(assets: Assets) -> None:
    evaluation = RECIPE.evaluation.model_copy(update={"max_rows": 2})
    recipe = RECIPE.model_copy(update={"evaluation": evaluation, "optimizer": AdamW()}).model_dump(mode="json")
    audits = {"relearning": {"rows": ["forget"], "share": 0.5, "steps": 1}}
    few = by_variant(audit(assets, Path(assets.start), audits, recipe=recipe))["relearn"]
    assert few["before"]["forget_rouge"] == 1


def audited_trial(assets: Assets, folder: Path, audits: dict[str, Any]) -> FinalReport:
    """A short run that ends with these audits."""
    recipe = RECIPE.model_copy(update={"objective": GradDiff(), "optimizer": AdamW(learning_rate=1e-3)})
    run = UnlearnRun(recipe=recipe, digests=Digests(data=assets.data_digest, model=assets.model_digest))
    request = {"run": run, "assets": assets, "reference": None, "folder": folder, "audits": audits}
    return run_audited_trial(AuditedTrialRequest.model_validate(request), lambda _: None, Alone())


def test_a_trial_can_end_with_audits_whose_numbers_are_those_of_a_later_one(assets: Assets, tmp_path: Path) -> None:
    audits = {"quantisation": {"bits": [3]}, "relearning": {"rows": ["forget"], "steps": 2}}
    report = audited_trial(assets, tmp_path, audits)
    assert isinstance(report, TrialReport)
    assert [record.variant for record in report.audits] == ["relearn", "quant3"]
    for name, config in audits.items():
        later = audit(assets, tmp_path / "model", {name: config}, metrics=report.values)
        for variant, record in by_variant(later).items():
            measured = {key: report.values[f"audit_{variant}_{key}"] for key in record["after"]}
            assert measured == record["after"]
            assert record in [found.model_dump(mode="json") for found in report.audits]
    assert report.values["audit_quant3_utility"] != report.values["utility"]
    assert report.values["seconds"] > report.values["audit_seconds"] > 0


def test_a_trial_whose_audit_fails_has_no_objective_and_says_why(assets: Assets, tmp_path: Path) -> None:
    report = audited_trial(assets, tmp_path, {"relearning": {"rows": ["forget"], "steps": 3, "learning_rate": 1e30}})
    assert report.verdict == "diverged"
    assert report.reason.startswith("audit relearn: ")
    assert not any(name.startswith("audit_relearn") for name in report.values)
