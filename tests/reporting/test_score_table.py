"""Which model is best in a row, and in which order the rows stand."""

from __future__ import annotations

from io import StringIO

import pytest

from lethe.config.metrics import TOFU_METRICS, Metric
from lethe.reporting.score_table import best_models, grouped, score_table
from lethe.terminal import Terminal

DOWN, UP = Metric("minimize", ""), Metric("maximize", "")


@pytest.mark.parametrize(
    ("values", "metric", "expected"),
    [
        ([0.3, 0.1, 0.2], DOWN, [False, True, False]),
        ([0.3, 0.1, 0.2], UP, [True, False, False]),
        ([0.3, 0.3000001, 0.2], UP, [True, True, False]),
        ([0.3, 0.3], UP, [False, False]),
        ([None, 0.3, 0.1], DOWN, [False, False, True]),
        ([0.3, 0.1], None, [False, False]),
        ([1e-20, 3e-9], UP, [False, True]),
    ],
)
def test_best_models_of_a_row(values: list, metric: Metric | None, expected: list[bool]) -> None:
    assert best_models(values, metric) == expected


def test_rows_stand_in_groups_and_none_is_lost() -> None:
    names = ["soul_mia", "retain_rouge", "something", "utility", "forget_rouge", "forget", "lm_eval_arc"]
    expected = [["forget", "utility", "something"], ["forget_rouge"], ["retain_rouge"], ["soul_mia"], ["lm_eval_arc"]]
    assert list(grouped(dict.fromkeys(names))) == expected


def test_the_reference_is_shown_and_never_best() -> None:
    models = [("a[b]", {"forget": 0.5}), ("b", {"forget": 0.25})]
    text = StringIO()
    Terminal(file=text, width=100).print(score_table(models, [("oracle", {"forget": 0.0})], TOFU_METRICS, "tofu"))
    (row,) = (line for line in text.getvalue().splitlines() if "forget" in line)
    assert "0.250 *" in row
    assert "0.000 *" not in row
    assert "a[b]" in text.getvalue()


def test_stars_are_explained_where_there_are_any() -> None:
    known = {"forget": Metric("minimize", "")}
    equal, other = ("a", {"forget": 0.5}), ("b", {"forget": 0.25})
    assert score_table([equal, ("b", {"forget": 0.5})], [], known, "tofu").caption is None
    assert score_table([equal, other], [], known, "tofu", faulty=["a", "b"]).caption is None
    assert score_table([equal, other], [], known, "tofu").caption == "* best of the models in its row"
