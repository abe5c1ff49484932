"""What a TDEC study may say, and what is refused in one line."""

from __future__ import annotations

import pytest

from lethe.config.benchmark import TdecBenchmark, TofuBenchmark
from lethe.config.benchmarks import BENCHMARKS
from lethe.config.model import EmbeddedGptNeo, EmbeddedModel
from lethe.config.study import load_study, parse_study
from lethe.errors import UserError

REFUSED = {
    "run.objective.name=dpo": "objective.name: dpo needs questions, and tdec has none: choose from ce_u, file, ",
    "run.objective.name=preference_optimization": "objective.name: preference_optimization needs questions",
    "model={name: pretrained, path: a, oracle: b}": "model.oracle: tdec compares with the start model on unseen text",
    "model.max_length=128": "model.max_length is 128, but benchmark.length is 200: raise it",
    "benchmark.sequences=13": "benchmark: sequences is 13, but documents.memorised is 12",
    "benchmark.length=300": "benchmark: length is 300, but documents.tokens is 200",
    "benchmark.ngram=200": "benchmark: ngram 200 leaves no prefix of a sequence of 200 tokens",
    "benchmark.el_divisor=both": "unknown benchmark.el_divisor 'both': choose from generated, true",
    "benchmark.forget=forget10": "unknown key 'benchmark.forget'",
    "benchmark.name=tdce": "unknown benchmark.name 'tdce' (did you mean 'tdec'?): choose from muse, own, tdec, tofu, "
    "wmdp",
    "objectives.forget_quality={direction: maximize}": "unknown metric in objectives 'forget_quality'",
    "objectives.epochs_to_criterion={direction: minimize, floor_of_start: "
    "1}": "a start model has no epochs_to_criterion",
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_mistake_is_one_line(override: str) -> None:
    with pytest.raises(UserError) as error:
        load_study("tdec", [override])
    assert REFUSED[override] in str(error.value)


def test_every_arm_of_a_comparison_is_checked() -> None:
    arms = {"a": {"run": {"objective": {"name": "ihl"}}}, "b": {"run": {"objective": {"name": "input_guard"}}}}
    raw = load_study("tdec").model_dump(mode="json")
    raw |= {"run": {}, "space": {}, "compare": {"arms": arms}}
    with pytest.raises(UserError, match=r"compare.arms.b.*input_guard needs questions"):
        parse_study(raw)


def test_a_metric_of_the_other_benchmark_is_refused() -> None:
    with pytest.raises(UserError, match="unknown metric in objectives 'perplexity'"):
        load_study("tofu", ["objectives.perplexity={direction: minimize}"])
    study = load_study("tdec", ["objectives.perplexity={direction: minimize, floor_of_start: 2}"])
    assert list(study.objectives) == ["forget", "utility", "perplexity"]


def test_both_benchmarks_have_the_default_objectives() -> None:
    for benchmark in BENCHMARKS.values():
        metrics = benchmark.metrics
        assert (metrics["forget"].better, metrics["utility"].better) == ("minimize", "maximize")
        assert all(metric.meaning for metric in metrics.values())


def test_the_default_study() -> None:
    study = load_study("tdec")
    assert isinstance(study.benchmark, TdecBenchmark)
    assert isinstance(study.model, EmbeddedGptNeo)
    recipe = study.first_recipe()
    assert (study.benchmark.sequences, recipe.schedule.batch_size, recipe.schedule.epochs) == (8, 8, 20)
    assert study.objectives["forget"].floor == 1.0, "the criterion is the floor"


def test_a_llama_is_possible_and_tofu_is_what_no_name_means() -> None:
    study = load_study("tdec", ["model={name: embedded}", "run.adapter.targets=all-linear"])
    assert type(study.model) is EmbeddedModel
    raw = {"name": "mine", "benchmark": {"forget": "forget05"}, "objectives": {"forget": {"direction": "minimize"}}}
    assert parse_study(raw).benchmark == TofuBenchmark(forget="forget05")
