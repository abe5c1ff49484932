"""Trials, their baselines and what `score` says of saved models are measured in one precision."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lethe.benchmarks.base import load_benchmark
from lethe.config.adapter import AnyAdapter, FullParameters, Lora
from lethe.config.run import Engine, Schedule
from lethe.config.study import parse_study
from lethe.errors import UserError
from lethe.models.loading import load_model, stored_precision
from lethe.study.scored_models import find
from lethe.study.scoring import Scoring
from lethe.unlearning.requests import Assets
from tests import tiny
from tests.unlearning.tiny_runs import EVALUATION, baseline, trial

SCHEDULE = Schedule(epochs=1, batch_size=6)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return tiny.assets(tmp_path_factory.mktemp("tiny"))


def in_precision(assets: Assets, precision: str) -> Assets:
    return assets.model_copy(update={"precision": precision})


def shared(one: dict[str, float], other: dict[str, float]) -> list[str]:
    """The metrics that both measure."""
    return [key for key in one if key in other and "seconds" not in key]


@pytest.mark.parametrize("stage", [0, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("adapter", [FullParameters(), Lora(rank=2)], ids=lambda a: a.name)
@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp32", marks=pytest.mark.long)])
def test_a_trial_that_does_nothing_has_exactly_the_scores_of_the_start_model(
    fp32: Assets, tmp_path: Path, precision: str, adapter: AnyAdapter, stage: int
) -> None:
    assets = in_precision(fp32, precision)
    start, idle = baseline(assets), trial(assets, tmp_path, adapter, 1e-30, SCHEDULE, stage)
    both = shared(start, idle)
    assert {"forget", "utility", "forget_rouge"} <= set(both)
    assert {key: idle[key] for key in both} == {key: start[key] for key in both}
    if precision == "bf16":
        wide = baseline(fp32)
        assert any(start[key] != wide[key] for key in both), "the precision shows in the scores"


@pytest.mark.parametrize("adapter", [FullParameters(), Lora(rank=2)], ids=lambda a: a.name)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_score_of_a_saved_model_is_what_its_trial_logged(
    fp32: Assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, adapter: AnyAdapter
) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    assets = in_precision(fp32, precision)
    logged = trial(assets, tmp_path / "run", adapter, 1e-3, SCHEDULE)
    assert stored_precision(tmp_path / "run" / "model") == precision
    scoring = Scoring(load_benchmark(assets.benchmark), EVALUATION, Engine())
    found = scoring.scores(find(str(tmp_path / "run"), base=assets.start)).metrics
    both = shared(found, logged)
    assert {"forget", "utility", "forget_rouge"} <= set(both)
    assert {key: found[key] for key in both} == {key: logged[key] for key in both}
    start = baseline(assets)
    assert any(not math.isclose(start[key], logged[key], rel_tol=1e-3) for key in both), "the trial moved the weights"


def test_a_model_is_loaded_in_the_precision_asked_for_or_its_own(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path)
    assert load_model(folder).dtype == torch.float32
    assert load_model(folder, "bf16").dtype == torch.bfloat16
    weights = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert stored_precision(folder) == "bf16"
    assert load_model(folder).dtype == torch.bfloat16
    assert load_model(folder, "fp32").dtype == torch.float32


GOALS = {"forget": {"direction": "minimize"}, "utility": {"direction": "maximize"}}


def test_a_study_has_one_precision() -> None:
    searched = {"engine.precision": {"type": "choice", "choices": ["fp32", "bf16"]}}
    with pytest.raises(UserError, match=r"space\.engine\.precision: .*: set run\.engine\.precision"):
        parse_study({"name": "s", "objectives": GOALS, "space": searched})
    arms = {"a": {}, "b": {"run": {"engine": {"precision": "bf16"}}}}
    with pytest.raises(UserError, match=r"compare\.arms: run\.engine\.precision differs"):
        parse_study({"name": "s", "objectives": GOALS, "compare": {"arms": arms}, "run": {"seed": 0}})
