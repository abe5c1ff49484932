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
