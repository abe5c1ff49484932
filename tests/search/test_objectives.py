"""Floors and scales: fixed once, the same units for every objective."""

import numpy as np
import pytest

from lethe.config.search import Goal
from lethe.errors import UserError
from lethe.search.objectives import ObjectiveSpace

GOALS = {
    "forget": Goal(direction="minimize", floor_of_start=1.0),
    "utility": Goal(direction="maximize", floor_of_start=0.5),
}
FRAME = ObjectiveSpace.from_goals(GOALS, {"forget": 0.8, "utility": 0.6, "forget_rouge": 1.0})


def test_a_gain_of_one_is_the_oracles_forgetting_and_the_starts_utility() -> None:
    assert FRAME.floors == (0.8, 0.3)
    assert FRAME.gains([[0.0, 0.6], [0.8, 0.3], [0.4, 0.45]]) == pytest.approx(np.array([[1, 1], [0, 0], [0.5, 0.5]]))
    assert FRAME.hypervolume([[0.4, 0.45], [0.9, 0.9], [np.nan, 0.6]]) == pytest.approx(0.25)


def test_violations_agree_with_feasibility_on_the_floor_too() -> None:
    rows = [[0.4, 0.5], [0.8, 0.5], [0.4, 0.3], [0.9, 0.1]]
    for row, able in zip(rows, FRAME.feasible(rows), strict=True):
        assert all(v <= 0 for v in FRAME.violations(row).values()) == able
    assert FRAME.violations([1.2, 0.6]) == pytest.approx({"forget": 0.5, "utility": -1.0})


def test_front_and_knee_are_row_numbers_of_the_given_values() -> None:
    values = [[0.9, 0.6], [0.5, 0.35], [0.3, 0.5], [0.1, 0.31], [0.7, 0.55], [np.nan, 1.0]]
    assert sorted(FRAME.front(values)) == [2, 3, 4]
    assert FRAME.knee(values) == 2
    assert FRAME.ranks(values).tolist() == [2, 1, 0, 0, 0, 3]


def test_without_feasible_rows_there_is_no_front() -> None:
    values = [[0.9, 0.6], [np.nan, 0.5]]
    assert FRAME.front(values) == []
    assert FRAME.knee(values) is None
    assert FRAME.hypervolume(values) == 0.0
    assert FRAME.ranks(values).tolist() == [1, 2]
    assert FRAME.front([]) == []


def test_objectives_without_a_floor_have_gains_and_no_violations() -> None:
    goals = {**GOALS, "seconds": Goal(direction="minimize", floor=60.0), "tokens": Goal(direction="minimize")}
    objectives = ObjectiveSpace.from_goals(goals, {"forget": 0.8, "utility": 0.6})
    assert objectives.floors == (0.8, 0.3, 60.0, None)
    assert objectives.gains([[0.4, 0.45, 30.0, 7.0]]) == pytest.approx(np.array([[0.5, 0.5, 0.5, -7.0]]))
    assert objectives.hypervolume([[0.4, 0.45, 30.0, 7.0]]) == pytest.approx(0.125)
    assert "tokens" not in objectives.violations([0.4, 0.45, 30.0, 7.0])


@pytest.mark.parametrize("start", [{}, {"forget": float("nan")}])
def test_a_floor_relative_to_a_missing_metric_is_refused(start: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"objectives\.forget\.floor_of_start: the start model has no forget"):
        ObjectiveSpace.from_goals(GOALS, {"utility": 0.6, **start})


def test_an_objective_space_survives_json_and_reads_reports() -> None:
    assert ObjectiveSpace.model_validate_json(FRAME.model_dump_json()) == FRAME
    assert FRAME.values({"utility": np.float32(0.5), "forget": 1, "epoch": 3}) == [1.0, 0.5]
    assert np.isnan(FRAME.values({"utility": None})).all()
