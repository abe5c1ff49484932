"""The metrics of one's own rows against scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp, mannwhitneyu
from sklearn.metrics import roc_auc_score

from lethe.benchmarks.own.metrics import Measured, References, chance, compared, excess
from lethe.config.own import OwnBenchmark
from lethe.errors import UserError

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
    base = References({"base": measured(HARD[:12], HARD[12:])})
    raw, calibrated = compared(hard, None), compared(hard, base)
    assert raw["forget_quality"] > 0.05, "hidden by how hard the rows are"
    truth = ks_2samp(FORGET, HOLDOUT, method="exact")
    assert calibrated["forget"] == pytest.approx(truth.statistic)
    labels = [1] * 12 + [0] * 9
    assert calibrated["mia_base"] == pytest.approx(roc_auc_score(labels, [*-FORGET, *-HOLDOUT]))
    assert "mia_base" not in raw


def test_an_oracle_is_compared_on_the_forget_rows() -> None:
    oracle = measured(FORGET + 0.3)
    found = compared(measured(), References({"oracle": oracle}))
    truth = ks_2samp(FORGET, FORGET + 0.3, method="exact")
    assert (found["oracle_distance"], found["oracle_quality"]) == pytest.approx((truth.statistic, truth.pvalue))
    assert compared(oracle, References({"oracle": oracle}))["oracle_distance"] == 0


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


def test_excess_is_that_of_the_strongest_attack_on_either_side() -> None:
    most = chance(12, 12)
    assert excess([0.5 + most / 2, 0.5 - most / 2], 12, 12) == 0
    assert excess([0.6, 0.05], 12, 12) == pytest.approx(0.45 - most)


def test_values_of_other_rows_are_refused() -> None:
    stored = References({"start": measured()}).dump()
    assert References.load(stored, "d").models["start"] == measured()
    with pytest.raises(UserError, match="the start model was scored on other rows"):
        References.load(stored, "other")
    with pytest.raises(UserError, match="another version of lethe"):
        References.load({"start": {"data": "d"}}, "d")


def test_criteria_claim_nothing_about_unseen_rows_without_a_holdout() -> None:
    alone = OwnBenchmark(forget="f.csv", retain="r.csv").default_criteria()
    beside = OwnBenchmark(forget="f.csv", retain="r.csv", holdout="h.csv").default_criteria()
    needing = {name for name, metric in OwnBenchmark.metrics.items() if "holdout" in metric.needs}
    assert needing.isdisjoint(alone)
    assert {"forget_quality", "mia_excess", "extraction_difference"} <= beside.keys()
    assert next(iter(beside)) == "forget_quality"
    assert "forget_extraction_strength" in alone
