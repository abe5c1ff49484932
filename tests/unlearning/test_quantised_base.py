"""Runs on a base in NF4: baselines, trials, audits and `score` measure one model; what cannot be is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from lethe.audits.worker_entry import finished
from lethe.benchmarks.base import load_benchmark
from lethe.benchmarks.measurement import measure
from lethe.config.adapter import AnyAdapter, Fila, Lora
from lethe.config.run import Engine, Recipe, Schedule
from lethe.config.study import parse_study
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.models.packages import check_quantised
from lethe.models.quantised import quantisation_of
from lethe.study.scored_models import find
from lethe.study.scoring import Scoring
from lethe.unlearning.context import Context, context_for
from lethe.unlearning.requests import Assets
from tests import tiny
from tests.unlearning.tiny_runs import EVALUATION, baseline, trial

SCHEDULE = Schedule(epochs=2, batch_size=3)
GOALS = {"forget": {"direction": "minimize"}, "utility": {"direction": "maximize"}}

needs_bitsandbytes = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="extra `quantised`")


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    plain = tiny.assets(tmp_path_factory.mktemp("tiny"), hidden=64)
    return plain.model_copy(update={"quantisation": "nf4"})


def differing(one: dict[str, float], other: dict[str, float]) -> dict[str, tuple[float, float]]:
    """The metrics that both measure and that are not equal to the bit."""
    shared = {key for key in one if key in other and "seconds" not in key}
    assert {"forget", "utility", "forget_rouge"} <= shared
    return {key: (one[key], other[key]) for key in shared if one[key] != other[key]}


@needs_bitsandbytes
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trial_that_does_nothing_has_exactly_the_scores_of_the_quantised_start(
    assets: Assets, tmp_path: Path, precision: str, stage: int
) -> None:
    assets = assets.model_copy(update={"precision": precision})
    start = baseline(assets)
    assert differing(start, trial(assets, tmp_path, Lora(rank=2), 1e-30, SCHEDULE, stage)) == {}
    assert differing(start, baseline(assets.model_copy(update={"quantisation": None}))), "4 bits show in the scores"


@needs_bitsandbytes
@pytest.mark.parametrize("adapter", [Lora(rank=2), Fila(rank=2)], ids=lambda a: a.name)
def test_what_a_trial_logged_is_what_score_and_audits_measure(
    assets: Assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: AnyAdapter
) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    logged = trial(assets, tmp_path / "run", adapter, 3e-3, SCHEDULE)
    assert any(a != pytest.approx(b, rel=0.01) for a, b in differing(baseline(assets), logged).values()), "it moved"
    scoring = Scoring(load_benchmark(assets.benchmark), EVALUATION, Engine())
    model = find(str(tmp_path / "run"), base=assets.start)
    assert model.quantisation == "nf4"
    assert scoring.measurement(model, model.template()).quantisation == "nf4"
    context = context_for(assets)
    plain = finished(tmp_path / "run" / "model", context)
    assert quantisation_of(plain) is None
    audited = measure(plain, context.task, context.eval_set(EVALUATION), EVALUATION, RankShard())
    for found in (scoring.scores(model).metrics, audited.metrics):
        for key, (one, other) in differing(found, logged).items():
            assert one == pytest.approx(other, rel=1e-3, abs=1e-5), key


@needs_bitsandbytes
def test_audits_of_the_start_model_see_what_its_baseline_measured(assets: Assets) -> None:
    context = context_for(assets)
    plain = finished(Path(assets.start), context)
    assert quantisation_of(plain) is None
    audited = measure(plain, context.task, context.eval_set(EVALUATION), EVALUATION, RankShard()).metrics
    for key, (one, other) in differing(audited, baseline(assets)).items():
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6), key


def study(engine: dict[str, Any], **sections: Any) -> dict[str, Any]:
    run = {"engine": {"quantisation": "nf4", **engine}, **sections.pop("run", {})}
    return {"name": "s", "objectives": GOALS, "run": run, **sections}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (study({"stage": 3}), r"engine\.stage 3 would shard: choose from 0, 1, 2"),
        (study({}, run={"adapter": {"name": "full"}}), r"adapter\.name full trains the base: choose from fila, lora"),
        (study({}, run={"objective": {"name": "retrain"}}), r"the objective retrain has no adapter"),
        (
            study({}, space={"adapter.name": {"type": "choice", "choices": ["lora", "full"]}}),
            r"adapter\.name full trains the base",
        ),
        (
            study({}, space={"engine.stage": {"type": "choice", "choices": [0, 3]}}),
            r"engine\.stage 3 would shard",
        ),
        (study({"quantisation": "int8"}), r"run\.engine\.quantisation"),
    ],
)
def test_what_would_move_or_shard_the_base_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        parse_study(given)
    assert "\n" not in str(refused.value)


def test_a_study_has_one_quantisation_which_its_runs_name() -> None:
    searched = {"engine.quantisation": {"type": "choice", "choices": ["nf4"]}}
    with pytest.raises(UserError, match=r"space\.engine\.quantisation: .*: set run\.engine\.quantisation"):
        parse_study({"name": "s", "objectives": GOALS, "space": searched})
    digests = {Recipe(engine=Engine(quantisation=q)).digest() for q in (None, "nf4")}
    assert len(digests) == 2


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lethe.models.packages.find_spec", lambda _: None)
    check_quantised(None)
    with pytest.raises(UserError, match=r"needs the package bitsandbytes.*: pip install 'lethe\[quantised\]'"):
        check_quantised("nf4")


def test_cached_starts_of_plain_and_quantised_bases_are_kept_apart(assets: Assets) -> None:
    pytest.importorskip("bitsandbytes")
    for quantisation in (None, "nf4"):
        Context(assets.model_copy(update={"quantisation": quantisation})).initial(Fila(rank=3, fisher_rows=2))
    assert len(list((Path(assets.cache) / "adapters").glob("factors-*.safetensors"))) >= 2
