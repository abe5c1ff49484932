"""Metrics on numbers small enough to check by hand, and on losses that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest

from lethe.benchmarks.tofu.metrics import SplitScores, model_utility, split_metrics
from lethe.evaluation import metrics

BROKEN = [np.nan, np.inf]


def test_harmonic_mean_equals_golden_values() -> None:
    parts = [
        0.8210499032114303, 0.6967473664683093, 0.4295557937069344, 0.505168359434624, 0.943,
        0.6591336231061837, 0.478685379756773, 0.9216524216524216, 0.6085091204510102,
    ]  # fmt: skip
    assert metrics.harmonic_mean(parts) == pytest.approx(0.6269273964348965, rel=1e-12)


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_harmonic_mean_of_a_zero_is_zero(bad: float) -> None:
    assert metrics.harmonic_mean([0.9, bad, 0.9]) == 0.0


def test_truth_ratio_is_geometric() -> None:
    ratio = metrics.truth_ratio(np.log([2.0, 4.0]), [np.log([1.0, 4.0]), np.log([8.0])])
    np.testing.assert_allclose(ratio, [1.0, 0.5])
    np.testing.assert_allclose(metrics.truth_score(np.array([0.25, 1.0, 3.0])), [0.75, 0, 0])
    np.testing.assert_allclose(metrics.forget_truth_score(np.array([0.25, 1.0, 4.0, 0.0])), [0.25, 1, 0.25, 0])


def test_option_probability_is_the_share_of_all_options() -> None:
    answer, wrong = -np.log([0.5]), [-np.log([0.2, 0.3])]
    np.testing.assert_allclose(metrics.option_probability(answer, wrong), [0.5])
    far = metrics.option_probability(np.array([2000.0]), [np.array([2000.0])])  # exp(-2000) is 0 in float64
    np.testing.assert_allclose(far, [0.5])


def test_memorisation_and_extraction_by_hand() -> None:
    rows = [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 1], []]
    correct = [np.array(row, dtype=bool) for row in rows]
    np.testing.assert_allclose(metrics.exact_memorization(correct), [1, 0.75, 0.75, 0.25, 0])
    np.testing.assert_allclose(metrics.extraction_strength(correct), [1, 0.5, 0, 0.25, 0])


def test_auc_counts_ties_half() -> None:
    members, others = np.array([3.0, 1.0, 2.0]), np.array([2.0, 0.0])
    wins = [(m > o) + 0.5 * (m == o) for m in members for o in others]
    assert metrics.auc(members, others) == pytest.approx(np.mean(wins))


@pytest.mark.parametrize("bad", BROKEN)
@pytest.mark.parametrize("split", ["forget", "retain", "real_authors", "world_facts"])
def test_a_broken_model_gets_the_worst_finite_scores(bad: float, split: str) -> None:
    losses = np.full(3, bad)
    values = split_metrics(split, SplitScores(losses, losses, [np.full(5, bad)] * 3, np.zeros(3)))
    assert values == {f"{split}_{kind}": 0.0 for kind in ("probability", "rouge", "truth_ratio")}


def test_one_broken_row_does_not_change_the_others() -> None:
    losses = np.array([np.nan, np.log(2.0)])
    values = split_metrics("retain", SplitScores(losses, losses, [np.array([np.nan]), np.log([4.0])], np.ones(2)))
    assert values["retain_probability"] == pytest.approx(0.25)
    assert values["retain_truth_ratio"] == pytest.approx(0.25)


def test_utility_is_over_the_splits_that_exist() -> None:
    values = {f"retain_{kind}": 0.5 for kind in ("probability", "rouge", "truth_ratio")}
    assert model_utility(values) == pytest.approx(0.5)
    assert model_utility({**values, "forget_rouge": 0.0}) == pytest.approx(0.5)


def test_extraction_strength_of_an_answer_that_ends_wrong_is_zero() -> None:
    """Where no prefix gives the rest, the public implementation's loop ends at k = n - 1 and it says 1/n."""

    def theirs(row: np.ndarray) -> float:
        k = next((k for k in range(len(row)) if row[k:].all()), len(row) - 1)
        return 1 - k / len(row)

    rows = [np.array(row, dtype=bool) for row in ([1, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1])]
    assert metrics.extraction_strength(rows) == pytest.approx([0.25, 0.0, 0.0, 1.0])
    assert [theirs(row) for row in rows] == pytest.approx([0.25, 0.25, 0.25, 1.0])
