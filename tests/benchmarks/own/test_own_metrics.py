"""The metrics of one's own rows against scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp, mannwhitneyu
from sklearn.metrics import roc_auc_score

from lethe.benchmarks.own.metrics import Measured, References, chance, compared
from lethe.config.own import OwnBenchmark
from lethe.errors import UserError
from lethe.search.verdict import judge

DRAW = np.random.default_rng(0)
FORGET, HOLDOUT = DRAW.normal(1, 0.5, 12), DRAW.normal(2, 0.5, 9)
HARD = DRAW.normal(0, 5, 21)  # how hard each row is for any model


def measured(forget: np.ndarray = FORGET, holdout: np.ndarray = HOLDOUT, general: float | None = None) -> Measured:
    labels = [1] * len(forget) + [0] * len(holdout)
    auc = roc_auc_score(labels, [*-forget, *-holdout]) if len(holdout) else math.nan
    return Measured(
        data="d",
        forget=tuple(forget),
        holdout=tuple(holdout),
        attacks={"mia_loss": auc, "mia_min_k": 0.5} if len(holdout) else {},
        found=0.25,
        kept={"retain_probability": 0.5, "retain_rouge": 0.25},
        general=general,
    )


def test_forget_is_the_distance_of_forget_from_holdout_rows() -> None:
    found, truth = compared(measured(), None), ks_2samp(FORGET, HOLDOUT, method="exact")
    assert found["forget"] == pytest.approx(truth.statistic)
    assert found["forget_quality"] == pytest.approx(truth.pvalue)


def test_a_base_model_takes_out_what_makes_rows_hard_for_any_model() -> None:
    hard = measured(FORGET + HARD[:12], HOLDOUT + HARD[12:])
    unaware = measured(HARD[:12], HARD[12:])
    raw, calibrated = compared(hard, None), compared(hard, References({"base": unaware}))
    assert raw["forget_quality"] > 0.05, "hidden by how hard the rows are"
    truth = ks_2samp(FORGET, HOLDOUT, method="exact")
    assert calibrated["forget"] == pytest.approx(truth.statistic)
    labels = [1] * 12 + [0] * 9
    assert calibrated["mia_reference"] == pytest.approx(roc_auc_score(labels, [*-FORGET, *-HOLDOUT]))
    assert "mia_reference" not in raw
    easy = measured(0 * FORGET, 0 * HOLDOUT)
    beside_both = compared(hard, References({"base": easy, "oracle": unaware}))
    assert beside_both["mia_reference"] == calibrated["mia_reference"], "an oracle is asked before a base"


def test_an_oracle_is_compared_on_the_forget_rows() -> None:
    oracle = measured(FORGET + 0.3)
    found = compared(measured(), References({"oracle": oracle}))
    truth = ks_2samp(FORGET, FORGET + 0.3, method="exact")
    assert (found["oracle_distance"], found["oracle_quality"]) == pytest.approx((truth.statistic, truth.pvalue))
    assert compared(oracle, References({"oracle": oracle}))["oracle_distance"] == 0
    alone = compared(measured(holdout=np.empty(0)), References({"oracle": oracle}))
    assert alone["forget"] == alone["oracle_distance"] == pytest.approx(truth.statistic)


def test_without_a_holdout_forget_is_what_is_found_and_nothing_is_said_of_membership() -> None:
    found = compared(measured(holdout=np.empty(0)), None)
    assert found == {"forget": 0.25, "utility": pytest.approx(1 / 3)}


def test_utility_has_the_perplexity_of_the_start_model_over_the_models_at_most_one() -> None:
    start = References({"start": measured(general=2.0)})
    worse, better = (compared(measured(general=loss), start)["utility"] for loss in (3.0, 1.0))
    assert worse == pytest.approx(3 / (1 / 0.5 + 1 / 0.25 + math.exp(1)))
    assert better == pytest.approx(3 / (1 / 0.5 + 1 / 0.25 + 1))
    assert compared(measured(general=3.0), None)["utility"] == pytest.approx(1 / 3), "nothing to compare with"


@pytest.mark.parametrize(("members", "others"), [(12, 12), (40, 25)])
def test_chance_is_what_equal_samples_give_in_95_of_100_cases(members: int, others: int) -> None:
    draw = np.random.default_rng(1)
    pairs = ((draw.normal(size=members), draw.normal(size=others)) for _ in range(2000))
    aucs = np.array([mannwhitneyu(a, b).statistic / (members * others) for a, b in pairs])
    assert np.mean(np.abs(aucs - 0.5) <= chance(members, others)) == pytest.approx(0.95, abs=0.02)


def test_excess_is_that_of_the_attack_that_is_farthest_from_blind_beyond_chance() -> None:
    def attacked(**aucs: float) -> Measured:
        return measured().model_copy(update={"attacks": aucs})

    most = chance(12, 9)
    near = attacked(mia_loss=0.5 + most / 2, mia_min_k=0.5 - most / 2)
    assert compared(near, None)["mia_excess"] == 0
    far = attacked(mia_loss=0.6, mia_min_k=0.05)
    assert compared(far, None)["mia_excess"] == pytest.approx(0.45 - most)
    # An oracle that gives the same attacks the same to see: the holdout is no fair one, and the model as blind as it.
    assert compared(far, References({"oracle": far}))["mia_excess"] == 0


def test_values_of_other_rows_are_refused() -> None:
    stored = References({"start": measured()}).dump()
    assert References.load(stored, "d").models["start"] == measured()
    with pytest.raises(UserError, match="the start model was scored on other rows"):
        References.load(stored, "other")
    with pytest.raises(UserError, match="another version of lethe"):
        References.load({"start": {"data": "d"}}, "d")


def test_the_verdict_claims_only_what_could_be_measured() -> None:
    kept = {"utility": 0.9, "retain_rouge": 0.9}
    alone = {**kept, "forget_verbatim": 0.0, "forget_extraction_strength": 0.4}
    beside = {**alone, "forget_quality": 0.01, "mia_excess": 0.0, "extraction_difference": 0.0}
    oracle = {"forget_extraction_strength": 0.4}

    def judged(metrics: dict[str, float], **others: dict[str, float]) -> tuple[str, set[str]]:
        verdict = judge(metrics, {"start": kept, **others}, OwnBenchmark.criteria)
        assert verdict
        return verdict.forgotten, {criterion.metric for criterion in verdict.criteria}

    assert judged(alone) == ("yes", {"forget_verbatim", *kept})
    assert judged({**alone, "oracle_quality": 0.3}, oracle=oracle) == (
        "yes",
        {"oracle_quality", "forget_extraction_strength", "forget_verbatim", *kept},
    )
    assert judged(beside) == ("no", {"forget_quality", "mia_excess", "extraction_difference", *kept, "forget_verbatim"})
