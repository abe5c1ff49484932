"""What is refused before the first trial although every value is possible by itself."""

from __future__ import annotations

import dataclasses

import pytest

from lethe.config.benchmark import TofuBenchmark
from lethe.config.study import load_study
from lethe.data.benchmark import load_benchmark
from lethe.errors import BadInput
from lethe.sweep.checks import check_data

OBJECTIVES = "space.objective.name={type: choice, choices: [npo, dpo]}"
PO = "run.objective.name=preference_optimization"


@pytest.mark.parametrize("override", ["run.objective.name=dpo", PO, OBJECTIVES])
def test_objectives_that_answer_with_refusals_need_some(override: str) -> None:
    study = load_study("tofu", [override])
    benchmark = load_benchmark(TofuBenchmark())
    check_data(study, benchmark)
    without = dataclasses.replace(benchmark, refusals=())
    check_data(load_study("tofu"), without)
    with pytest.raises(BadInput) as raised:
        check_data(study, without)
    problem, known = str(raised.value).split(": choose from ")
    assert problem.startswith("objective.name: ")
    assert problem.endswith("answers with refusals, but embedded has no refusals (idontknow.jsonl, one a line)")
    assert known.startswith("grad_diff, gradient_ascent, ") and "dpo" not in known


@pytest.mark.parametrize(
    ("override", "changes", "line"),
    [
        ("audits.prompts={}", {"forget_eval": "plain"}, "audits.prompts.kinds: paraphrase: row 1 of forget10_perturbed in"),
        ("audits.relearning={rows: [holdout]}", {"holdout": ()}, "audits.relearning.rows: holdout: embedded has no holdout"),
        ("audits.relearning={}", {"forget_eval": "one"}, "audits.relearning: one forget row is evaluated"),
    ],
)
def test_audits_need_rows(override: str, changes: dict, line: str) -> None:
    benchmark = load_benchmark(TofuBenchmark())
    study = load_study("tofu", [override])
    check_data(study, benchmark)
    rows = {
        "plain": (dataclasses.replace(benchmark.forget_eval[0], paraphrased_question=None), *benchmark.forget_eval[1:]),
        "one": benchmark.forget_eval[:1],
    }
    lacking = dataclasses.replace(benchmark, **{name: rows.get(given, given) for name, given in changes.items()})
    with pytest.raises(BadInput) as raised:
        check_data(study, lacking)
    assert str(raised.value).startswith(line)
    check_data(load_study("tofu", ["audits.prompts.kinds=[prefix, first_words]"]), lacking)
