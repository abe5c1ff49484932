"""The verdict on a finished model: what decides, what is left out, and how it is said."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from lethe.config.benchmark import TdecBenchmark, TofuBenchmark
from lethe.config.study import parse_study
from lethe.config.verdict import Criterion
from lethe.errors import UserError
from lethe.records import AuditRecord, Confirmation, ModelScores
from lethe.search.verdict import judge, start_note, with_verdicts
from tests.tracking.studies import study, trial

START = {
    "forget_quality": 3e-9,
    "privleak_distance": 99.0,
    "mia_min_k": 0.99,
    "forget_extraction_strength": 1.0,
    "utility": 0.6,
    "retain_rouge": 0.96,
}
ORACLE = {
    **START,
    "forget_quality": 1.0,
    "privleak_distance": 0.0,
    "mia_min_k": 0.5,
    "forget_extraction_strength": 0.03,
}
GOOD = {**ORACLE, "forget_quality": 0.4, "privleak_distance": 4.0}
MODELS = {"start": START, "oracle": ORACLE}
CRITERIA = TofuBenchmark.criteria


def test_a_model_like_the_oracle_has_forgotten() -> None:
    verdict = judge(GOOD, MODELS, CRITERIA)
    assert verdict is not None
    assert verdict.forgotten == "yes"
    assert verdict.describe() == "forgotten"
    assert [found.metric for found in verdict.criteria] == [name for name in CRITERIA if not name.startswith("audit_")]


def test_the_first_criterion_decides_between_no_and_partly() -> None:
    broken = {**GOOD, "retain_rouge": 0.71, "utility": math.nan}
    partly = judge(broken, MODELS, CRITERIA)
    assert partly.forgotten == "partly"
    said = "partly forgotten: utility nan (+nan %), at least 0.54 (0.9 start); "
    assert partly.describe() == said + "retain rouge 0.71 (-26 %), at least 0.864 (0.9 start)"
    kept = judge({**broken, "forget_quality": 2.8e-8}, MODELS, CRITERIA)
    assert kept.forgotten == "no"
    assert kept.describe().startswith("not forgotten: forget quality 2.8e-08, at least 0.05; utility")


def test_a_start_model_that_meets_the_deciding_criterion_is_warned_of() -> None:
    knows, forgot = ModelScores(metrics=START), ModelScores(metrics={**START, "forget_quality": 0.98})
    oracle = ModelScores(metrics=ORACLE)
    assert start_note(knows, oracle, CRITERIA) is None
    assert start_note(forgot, oracle, {}) is None
    note = start_note(forgot, oracle, CRITERIA)
    assert note is not None
    assert note.startswith("the start model itself counts as having forgotten (partly): ")


def test_one_of_two_measures_of_membership_is_enough() -> None:
    conspicuous = {**GOOD, "privleak_distance": 114.0}
    assert judge({**conspicuous, "mia_min_k": 0.46}, MODELS, CRITERIA).forgotten == "yes"
    for auc in (0.44, 0.56):
        verdict = judge({**conspicuous, "mia_min_k": auc}, MODELS, CRITERIA)
        assert [found.metric for found in verdict.failing] == ["privleak_distance"], auc


def test_without_what_decides_there_is_no_verdict() -> None:
    own = {name: value for name, value in GOOD.items() if name not in ("forget_quality", "privleak_distance")}
    assert judge(own, {"start": START}, CRITERIA) is None, "what is kept says nothing about what is forgotten"
    deciding = {**CRITERIA, "forget_rouge": Criterion(at_most="0.5 start")}
    models = {"start": {**START, "forget_rouge": 0.98}}
    verdict = judge({**own, "forget_rouge": 0.3}, models, deciding)
    assert [found.metric for found in verdict.criteria] == ["utility", "retain_rouge", "forget_rouge"]
    assert verdict.forgotten == "yes"
    assert judge({**own, "forget_rouge": 0.6}, models, deciding).forgotten == "no"
    assert judge({}, {"start": START}, CRITERIA) is None


def test_audits_that_ran_count_against_the_oracles() -> None:
    def audited(strength: float) -> tuple[AuditRecord, ...]:
        return (AuditRecord(variant="quant4", after={"forget_extraction_strength": strength}),)

    record = study(
        trial(0, metrics={**GOOD, "forget": 0.2}, pareto_rank=0, audits=audited(0.3)),
        trial(1, metrics={**GOOD, "forget": 0.3}, pareto_rank=0, audits=audited(0.08)),
        trial(2, metrics={**GOOD, "forget": 0.4}, feasible=False),
        start=ModelScores(metrics=START),
        oracle=ModelScores(metrics=ORACLE, audits=audited(0.04)),
    )
    hidden, gone, beaten = (t.forgotten for t in with_verdicts(record, CRITERIA).trials)
    assert hidden.describe() == (
        "partly forgotten: audit quant4 forget extraction strength 0.3, at most 0.09 (oracle + 0.05)"
    )
    assert gone.forgotten == "yes"
    assert beaten is None, "only the front is judged"


def test_fresh_runs_and_models_judged_before_have_verdicts_too() -> None:
    runs = tuple(
        trial(1, kind="confirmation", params={"seed": seed}, metrics={**GOOD, **changed})
        for seed, changed in ((4, {}), (5, {"forget_quality": 0.01}))
    )
    lost = trial(1, kind="confirmation", params={"seed": 6}, verdict="lost", metrics={})
    beaten = trial(1, metrics=GOOD, pareto_rank=3, confirmation=Confirmation(runs=(*runs, lost)))
    before = judge(GOOD, MODELS, CRITERIA)
    earlier = trial(2, metrics={**GOOD, "forget_quality": 0.0}, pareto_rank=2, forgotten=before)
    record = study(
        trial(0, metrics={**GOOD, "forget": 0.1}, pareto_rank=0),
        beaten,
        earlier,
        trial(3, metrics=GOOD, pareto_rank=1),
        start=ModelScores(metrics=START),
        oracle=ModelScores(metrics=ORACLE),
    )
    found = with_verdicts(record, CRITERIA)
    assert [t.forgotten and t.forgotten.forgotten for t in found.trials] == ["yes", "yes", "no", None]
    again = found.trials[1].confirmation
    assert again is not None
    assert [run.forgotten and run.forgotten.forgotten for run in again.runs] == ["yes", "no", None]


def test_tdec_is_forgotten_strictly_below_its_thresholds() -> None:
    models = {"start": {"utility": 0.5, "perplexity": 20.0}}
    metrics = {"forget": 1.0, "utility": 0.5, "perplexity": 21.0}
    assert judge(metrics, models, TdecBenchmark.criteria).forgotten == "no"
    assert judge({**metrics, "forget": 0.99}, models, TdecBenchmark.criteria).forgotten == "yes"


def test_a_study_changes_adds_and_drops_criteria() -> None:
    raw = {"name": "x", "objectives": {"forget": {"direction": "minimize"}}}
    given = parse_study({**raw, "verdict": {"utility": {"at_least": "0.85 start"}, "retain_rouge": None}})
    criteria = given.criteria()
    assert criteria["utility"] == Criterion(at_least="0.85 start")
    assert "retain_rouge" not in criteria
    assert criteria["forget_quality"] == CRITERIA["forget_quality"]
    assert given.identity() == parse_study(raw).identity(), "what counts as forgotten changes no trial"


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        ({"utilty": {"at_least": 1}}, "metric in verdict 'utilty'"),
        ({"utility": {"at_least": "90 % of start"}}, "verdict.utility.at_least: must be a number, or like"),
        ({"utility": {"at_least": "nan"}}, "verdict.utility.at_least: must be a number, or like"),
        ({"utility": {"at_most": "1e999 start"}}, "verdict.utility.at_most: must be a number, or like"),
        ({"utility": {"at_most": "٥"}}, "verdict.utility.at_most: must be a number, or like"),
        ({"utility": {}}, "verdict.utility: has no bound: choose from at_least, at_most, below"),
        ({"seconds": {"at_most": "2 start"}}, "verdict.seconds: start model and oracle have no seconds"),
        ({"privleak_distance": {"at_most": 1, "instead": {"nothing": {"below": 1}}}}, "metric in verdict 'nothing'"),
    ],
)
def test_bad_criteria_are_refused_by_name(verdict: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_study({"name": "x", "objectives": {"forget": {"direction": "minimize"}}, "verdict": verdict})
    assert message in str(caught.value)


def test_bounds_read_numbers_and_references() -> None:
    assert Criterion(at_most="oracle").bounds()["at_most"].value(0.3) == 0.3
    assert Criterion(at_most="0.5 start - 1e-1").bounds()["at_most"].value(2.0) == pytest.approx(0.9)
    assert Criterion(at_most=3).bounds()["at_most"].value(math.nan) == 3
    assert Criterion(at_least=-0.5).bounds()["at_least"].value(math.nan) == -0.5
    assert Criterion(at_least=2).bounds()["at_least"].value(math.nan) == 2
    with pytest.raises(ValidationError):
        Criterion(at_most="start * 2")
