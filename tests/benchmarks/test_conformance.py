"""Every registered benchmark keeps the contract of `lethe.benchmarks.base`, and so does the example of CONTRIBUTING."""

from __future__ import annotations

import inspect
import json
import math
import pkgutil
import sys
from collections import Counter
from copy import deepcopy
from importlib import import_module
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

import lethe.benchmarks
from lethe.benchmarks.base import Benchmark, EvaluationResult, implementation, load_benchmark
from lethe.benchmarks.embedded import models as embedded_models
from lethe.config.adapter import FullParameters
from lethe.config.benchmark import BenchmarkConfig
from lethe.config.benchmarks import BENCHMARKS
from lethe.config.model import EmbeddedModel
from lethe.config.objective import GradientAscent
from lethe.config.optimizer import AdamW
from lethe.config.run import Engine, Recipe, Schedule
from lethe.config.study import parse_study
from lethe.errors import UserError
from lethe.evaluation.context_length import ContextLimits, check_context_length
from lethe.evaluation.distributed import RankShard
from lethe.evaluation.rows import write_rows
from lethe.evaluation.score_cache import Measurement
from lethe.models.subprocess_training import Training
from lethe.records import EpochReport
from lethe.unlearning.context import Context
from lethe.unlearning.outcome import Alone, Measure
from lethe.unlearning.requests import Assets
from lethe.unlearning.trainer import unlearn
from tests.benchmarks.conforming import EVALUATION, INTERIM, World, make_world, on_ranks, skip_without_its_package
from tests.benchmarks.example_capitals.config import CapitalsBenchmark
from tests.conftest import ROOT

del BENCHMARKS["capitals"]  # other tests do not know it
CONFIGURED = dict(BENCHMARKS)
HELPERS = {"embedded"}  # folders beside the benchmarks that are none
OPTIONS = {"oracle", "reference", "gradnorm"}  # needs that are not splits of the data


@pytest.fixture(autouse=True, scope="module")
def _example(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LETHE_HOME", str(tmp_path_factory.mktemp("home")))
        BENCHMARKS["capitals"] = CapitalsBenchmark
        yield
        del BENCHMARKS["capitals"]


@pytest.fixture(scope="module", params=[*CONFIGURED.values(), CapitalsBenchmark], ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[BenchmarkConfig]:
    found: type[BenchmarkConfig] = request.param
    skip_without_its_package(found)
    return found


@pytest.fixture(scope="module")
def world(kind: type[BenchmarkConfig], tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(kind, tmp_path_factory.mktemp("world"))


def promised(world: World, *, compared: bool) -> set[str]:
    """Metrics that an evaluation of these data reports, beside other models or alone."""
    absent = {"gradnorm", *world.benchmark.missing, *(() if compared else ("oracle", "reference"))}
    return {name for name, m in world.config.known_metrics().items() if not m.cost and not absent & set(m.needs)}


def softened(world: World) -> PreTrainedModel:
    """A model with the same greedy answers and other likelihoods."""
    model = deepcopy(world.model)
    model.lm_head.weight.data *= 0.7
    return model


# Registration


def test_configured_and_implemented_benchmarks_are_the_same() -> None:
    folders = {m.name for m in pkgutil.iter_modules(lethe.benchmarks.__path__) if m.ispkg} - HELPERS
    for folder in folders:
        import_module(f"lethe.benchmarks.{folder}.benchmark")
    implemented = {kind for kind in Benchmark.__subclasses__() if kind.__module__.startswith("lethe.")}
    assert {implementation(kind) for kind in CONFIGURED.values()} == implemented
    assert {kind.implementation.split(".")[2] for kind in CONFIGURED.values()} == folders


def test_the_guide_shows_the_example_as_it_is() -> None:
    guide = (ROOT / "docs" / "CONTRIBUTING.md").read_text()
    shown = guide.partition("## A benchmark\n")[2].partition("```python\n")[2].partition("\n```")[0]
    assert shown
    assert shown in inspect.getsource(sys.modules[CapitalsBenchmark.__module__])


def test_a_study_can_choose_it_by_name(kind: type[BenchmarkConfig]) -> None:
    given = kind.small().model_dump(mode="json")
    study = parse_study({"name": "x", "benchmark": given, "objectives": {"forget": {"direction": "minimize"}}})
    assert study.benchmark == kind.small()
    assert study.model_dump(mode="json")["benchmark"] == given
    with pytest.raises(UserError, match="unknown benchmark.name 'atlantis': choose from .*" + given["name"]):
        parse_study({**study.model_dump(mode="json"), "benchmark": {"name": "atlantis"}})


def test_the_implementation_is_complete(kind: type[BenchmarkConfig]) -> None:
    found = implementation(kind)
    assert issubclass(found, Benchmark)
    assert not inspect.isabstract(found)


def test_the_configuration_has_its_facts(kind: type[BenchmarkConfig]) -> None:
    assert (kind.metrics["forget"].better, kind.metrics["utility"].better) == ("minimize", "maximize")
    assert all(metric.meaning for metric in kind.metrics.values())
    assert kind.compared_with
    assert set(kind.compared_with) <= {"oracle", "start", "base"}
    assert not kind.needs_start or kind.compared_with == ("start",)
    assert kind.leaks
    config = kind.small()
    assert kind.model_validate(json.loads(config.model_dump_json())) == config
    if kind.has_forget_sets:
        assert config.with_forget_set(config.forget_set) == config


# Data


def test_the_digest_is_that_of_the_data(kind: type[BenchmarkConfig], world: World) -> None:
    again = load_benchmark(kind.small())
    assert again == world.benchmark
    assert again.digest == world.benchmark.digest
    assert len(again.digest) == 16
    assert world.benchmark.config == kind.small()


def test_an_oracle_is_trained_on_less_and_on_nothing_else(world: World) -> None:
    full, less = (world.benchmark.training_rows(include_forget=given) for given in (True, False))
    assert Counter(less) < Counter(full)
    assert all(row.answer for row in full)
    if world.config.has_questions:
        missing = {row.question for row in Counter(full) - Counter(less)}
        assert missing == set(world.benchmark.forget_questions) == {texts[0] for texts in world.benchmark.forget_texts}


def test_the_request_has_a_text_for_every_row_to_forget(world: World) -> None:
    texts = world.benchmark.forget_texts
    assert 0 < len(texts) == len(set(texts)) <= len(world.task.forget)
    assert {len(row) for row in texts} == {2 if world.config.has_questions else 1}
    assert all(row[-1] for row in texts)


def test_models_of_the_embedded_family_are_trained_on_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Training] = []
    monkeypatch.setattr(embedded_models, "train_in_subprocesses", lambda trainings, *_: asked.extend(trainings))
    start, oracle = embedded_models.trained_pair(world.benchmark, EmbeddedModel(max_length=256), lambda *_: None)
    assert [training.name for training in asked] == ["full model", *(["oracle"] if world.benchmark.has_oracle else [])]
    assert (oracle is not None) == world.benchmark.has_oracle
    assert {training.length for training in asked} == {world.config.sequence_length}
    assert start != oracle


def test_capabilities_and_data_agree(world: World) -> None:
    benchmark, task = world.benchmark, world.task
    assert len(benchmark.forget_questions) == (len(task.forget) if benchmark.has_questions else 0)
    assert len(benchmark.retain_questions) == (len(task.retain) if benchmark.has_questions else 0)
    assert len(benchmark.asked(EVALUATION)) == (benchmark.forget_count(EVALUATION) if benchmark.has_questions else 0)
    assert world.config.has_questions or not benchmark.has_questions
    assert len(task.evaluated_forget(EVALUATION)) == benchmark.forget_count(EVALUATION) > 0
    assert bool(task.holdout) == benchmark.has_holdout
    assert world.config.has_holdout or not benchmark.has_holdout
    assert benchmark.has_questions or not benchmark.refusals
    assert {need for metric in world.config.metrics.values() for need in metric.needs} >= set(benchmark.missing)
    assert OPTIONS.isdisjoint(benchmark.missing)
    benchmark.check_vocabulary(None)
    benchmark.check_vocabulary(world.model.config.vocab_size)


def test_rows_can_be_trained_on_and_evaluated(world: World) -> None:
    rows = [*world.task.named_rows()]
    assert len(rows) == len(world.task.forget) + len(world.task.retain)
    limits, least = ContextLimits.of(world.model), world.task.least_tokens
    check_context_length([*rows, *world.evals.named_rows()], limits, least=least)
    length = world.config.sequence_length
    assert not length or {len(row.ids) for _, row in rows} == {length}
    assert len(dict(rows)) == len(rows), "every row has a name of its own"


# Evaluation


def test_every_promised_metric_is_reported_and_finite(world: World) -> None:
    alone = world.baseline()
    result = world.evaluate(world.reference(alone))
    assert promised(world, compared=world.config.needs_start) <= alone.metrics.keys()
    assert result.metrics.keys() == promised(world, compared=True)
    assert all(isinstance(v, float) and math.isfinite(v) for v in (alone.metrics | result.metrics).values())
    assert result.finite
    assert alone.finite


def test_reference_values_survive_a_file(world: World) -> None:
    baseline = world.baseline()
    stored = world.stored_reference(baseline)
    read = world.task.reference_values(stored, world.evals)
    assert read is not None
    assert read.dump() == stored
    assert world.evaluate(read).metrics == world.evaluate(world.reference(baseline)).metrics
    assert world.task.reference_values(None, world.evals) is None
    assert world.benchmark.reference({}) is None


def test_stored_values_are_compared_without_a_forward_pass(world: World) -> None:
    baseline = world.baseline()
    assert baseline.reference is not None
    own = json.loads(json.dumps(baseline.reference.dump()))
    compared = world.benchmark.reference_metrics(own, world.stored_reference(baseline))
    metrics = world.evaluate(world.reference(baseline)).metrics
    assert compared == {name: metrics[name] for name in compared}
    needing = {name for name in metrics if {"oracle", "reference"} & {*world.config.known_metrics()[name].needs}}
    assert needing <= compared.keys()
    assert compared.keys() <= world.config.metrics.keys()


def test_ranks_share_the_work_and_agree(world: World) -> None:
    # Another model's values: against its own, the last bits of equal losses decide which is larger.
    reference = world.reference(world.task.baseline(softened(world), world.evals, EVALUATION, RankShard()))
    one = world.evaluate(reference)
    results = on_ranks(world, 2, lambda world, shard: world.evaluate(reference, shard))
    assert results[0].metrics == results[1].metrics
    assert results[0].metrics == pytest.approx(one.metrics, rel=1e-5, abs=1e-9)
    assert results[0].rows["generated"] == one.rows["generated"]


def test_an_interim_evaluation_has_every_metric_of_fewer_rows_on_one_rank_and_on_two(world: World) -> None:
    interim, evals = world.interim(softened(world)), world.task.eval_set(INTERIM)

    def measured(world: World, shard: RankShard) -> EvaluationResult:
        return world.task.evaluate(deepcopy(world.model), evals, INTERIM, interim.reference, shard, last=False)

    one, results = measured(world, RankShard()), on_ranks(world, 2, measured)
    objectives = {"forget", "utility"}
    assert objectives <= one.metrics.keys() <= promised(world, compared=True)
    assert promised(world, compared=True) - one.metrics.keys() <= {"extraction_likelihood"}, "TDEC's is for the last"
    assert all(math.isfinite(value) for value in one.metrics.values())
    assert results[0].metrics == results[1].metrics
    assert results[0].metrics == pytest.approx(one.metrics, rel=1e-5, abs=1e-9)
    whole = world.evaluate(world.reference())
    named = [set(zip(result.rows["split"], result.rows["answer"], strict=True)) for result in (one, whole)]
    assert named[0] <= named[1], "they are some of the last evaluation's"
    counts = [Counter(result.rows["split"]) for result in (one, whole)]
    assert counts[0].keys() == counts[1].keys()
    assert all(counts[0][split] < counts[1][split] or counts[1][split] <= 2 for split in counts[0])


def test_an_evaluation_leaves_the_model_as_it_was(world: World) -> None:
    before = {name: value.clone() for name, value in world.model.state_dict().items()}
    world.model.train()
    try:
        assert world.baseline().metrics == world.baseline().metrics
        assert all(module.training for module in world.model.modules())
    finally:
        world.model.eval()
    assert all(torch.equal(value, before[name]) for name, value in world.model.state_dict().items())


def test_a_broken_model_gives_finite_metrics_and_is_not_finite(world: World) -> None:
    reference = world.reference()
    weight = world.model.lm_head.weight
    kept = weight.data.clone()
    try:
        weight.data.fill_(torch.nan)
        result = world.evaluate(reference)
    finally:
        weight.data.copy_(kept)
    assert not result.finite
    assert all(math.isfinite(value) for value in result.metrics.values())


def test_rows_become_a_parquet_file_and_samples(world: World, tmp_path: Path) -> None:
    result = world.baseline()
    write_rows(tmp_path / "rows.parquet", result.rows)
    assert (tmp_path / "rows.parquet").stat().st_size
    samples = world.benchmark.samples(result)
    assert {sample["split"] for sample in samples} <= set(world.benchmark.shown_samples)
    assert samples[0].keys() == {"split", "question", "answer", "generated"}


def test_leaks_are_measured_on_chosen_rows(world: World) -> None:
    reference, shard = world.reference(), RankShard()
    count = world.benchmark.forget_count(EVALUATION)
    for chosen in ([0], list(range(count))):
        leaks = world.task.leaks(world.model, chosen, EVALUATION, reference, shard)
        assert tuple(leaks) == world.config.leaks
        assert all(math.isfinite(value) for value in leaks.values())


def test_a_scores_key_has_the_benchmarks_code(world: World) -> None:
    def key(config: BenchmarkConfig) -> str:
        return Measurement.of(config, "m", "t", world.benchmark.digest, "p", EVALUATION, Engine(), 1).code

    others = [kind.small() for kind in BENCHMARKS.values() if kind is not type(world.config)]
    assert key(world.config) not in {key(other) for other in others}


# A run


def test_the_training_loop_reports_its_metrics(world: World) -> None:
    """The whole loop: its reports carry the benchmark's metrics."""
    given = {"benchmark": world.config.model_dump(mode="json"), "data_digest": world.benchmark.digest}
    assets = Assets.model_validate({**given, "model_digest": "m", "start": str(world.folder), "cache": ""})
    recipe = Recipe(
        objective=GradientAscent(),
        optimizer=AdamW(learning_rate=1e-3),
        adapter=FullParameters(),
        schedule=Schedule(epochs=2, batch_size=2),
        evaluation=EVALUATION,
    )
    reports: list[EpochReport] = []
    reference = world.reference()
    with unlearn(recipe, Context(assets), reference, reports.append, Alone()) as outcome:
        assert outcome.report.verdict == "complete"
        assert promised(world, compared=True) <= outcome.report.values.keys()
        assert ("epochs_to_criterion" in outcome.report.values) == ("epochs_to_criterion" in world.config.metrics)
    if not world.task.until_forgotten:
        assert len(reports) == 1


def test_interim_evaluations_leave_the_last_one_and_the_weights_to_the_bit(world: World) -> None:
    given = {"benchmark": world.config.model_dump(mode="json"), "data_digest": world.benchmark.digest}
    assets = Assets.model_validate({**given, "model_digest": "m", "start": str(world.folder), "cache": ""})
    recipe = Recipe(
        objective=GradientAscent(),
        optimizer=AdamW(learning_rate=1e-5),  # too little for TDEC's criterion
        adapter=FullParameters(),
        schedule=Schedule(epochs=3, batch_size=2),
        evaluation=EVALUATION,
    )

    def run(interim: Measure | None) -> tuple[list[dict[str, float]], dict[str, float], list[torch.Tensor]]:
        reports: list[dict[str, float]] = []
        given = world.reference(), reports.append, Alone()
        with unlearn(recipe, Context(assets), *given, interim=interim) as outcome:
            assert outcome.model is not None
            return reports, outcome.report.values, [p.detach().clone() for p in outcome.model.parameters()]

    (_, whole, weights), (reports, last, again) = run(None), run(world.interim())
    costs = {"seconds", "cpu_seconds", "train_seconds", "evaluate_seconds", "peak_memory_mb", "evaluated_share"}
    assert {k: v for k, v in last.items() if k not in costs} == {k: v for k, v in whole.items() if k not in costs}
    assert all(torch.equal(one, other) for one, other in zip(weights, again, strict=True))
    assert [report["evaluated_share"] for report in (*reports, last)] == [0.2, 0.2, 1.0]
    assert all(math.isfinite(report[name]) for report in reports for name in ("forget", "utility"))
    assert "evaluated_share" not in whole


def test_a_configuration_that_cannot_be_loaded_is_a_users_error(kind: type[BenchmarkConfig]) -> None:
    config = kind.unloadable()
    if config is None:
        pytest.skip("its data are always there")
    with pytest.raises(UserError, match=r"^benchmark\."):
        load_benchmark(config)
