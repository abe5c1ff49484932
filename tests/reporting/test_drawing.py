"""Axes, numbers and the front's border, against values worked out by hand."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest

from lethe.records import ObjectiveRecord
from lethe.reporting.curves import objective_charts
from lethe.reporting.front import lay_out_front
from lethe.reporting.labels import Frame, Label, place_labels
from lethe.reporting.scales import Scale, format_duration, format_number, format_setting, scale
from tests.tracking.studies import busy_study, study, trial


def test_ticks_are_round_and_inside() -> None:
    assert [text for _, text in Scale(-0.03, 1.02, 0, 100).ticks(5)] == ["0.0", "0.5", "1.0"]
    assert [text for _, text in Scale(0.83, 0.872, 0, 100).ticks(5)] == ["0.83", "0.84", "0.85", "0.86", "0.87"]
    assert [text for _, text in Scale(-3, 3, 0, 100).ticks(6)] == ["-3", "-2", "-1", "0", "1", "2", "3"]
    places = [place for place, _ in Scale(0, 10, 400, 20).ticks(5)]
    assert places == [400, 324, 248, 172, 96, 20]


@pytest.mark.parametrize("values", [[], [0.0], [3.0, 3.0], [math.nan, math.inf], [1e-12, 2e-12], [-1e9, 1e9]])
def test_every_list_of_values_has_an_axis(values: list[float]) -> None:
    axis = scale(values, 0, 100)
    assert axis.low < axis.high
    assert axis.ticks()
    assert all(0 <= place <= 100 for place, _ in axis.ticks())


def test_numbers_as_people_write_them() -> None:
    values = [0.56, 0.0, -0.25, 1e-9, 12.345, 1234.5, math.nan, math.inf, 0.0721]
    assert [format_number(v) for v in values] == ["0.560", "0", "−0.250", "1e−9", "12.3", "1,234", "NaN", "∞", "0.072"]
    for write in (format_number, format_setting):
        assert [write(v) for v in (None, "sophia", True)] == ["–", "sophia", "True"]
    settings = [1e-4, 0.0021, 5.5, 16, 1000.0, 546.71, 3.0e7, 0.1, 8]
    assert [format_setting(v) for v in settings] == ["1e−4", "0.0021", "5.5", "16", "1,000", "547", "3e7", "0.1", "8"]
    assert [format_duration(s) for s in (3.44, 59.0, 160, 4000, math.nan)] == [
        "3.4 s",
        "59.0 s",
        "2.7 min",
        "1.1 h",
        "–",
    ]


def test_border_of_the_front_runs_from_floor_to_floor() -> None:
    drawing = lay_out_front(busy_study())
    assert drawing.stairs == [
        (0.05, 0.3),
        (0.05, 0.35),
        (0.2, 0.35),
        (0.2, 0.45),
        (0.5, 0.45),
        (0.5, 0.58),
        (0.9, 0.58),
    ]
    pixels = [(drawing.x_scale(x), drawing.y_scale(y)) for x, y in drawing.stairs]
    assert all(b[0] >= a[0] and b[1] <= a[1] for a, b in pairwise(pixels))


@pytest.mark.parametrize(
    ("directions", "border"),
    [
        (("maximize", "maximize"), [(0.4, 0.0), (0.4, 0.1), (0.2, 0.1), (0.2, 0.3), (0.0, 0.3)]),
        (("minimize", "minimize"), [(0.2, 1.0), (0.2, 0.3), (0.4, 0.3), (0.4, 0.1), (1.0, 0.1)]),
    ],
)
def test_border_for_other_directions(directions: tuple[str, str], border: list[tuple[float, float]]) -> None:
    floor = 0.0 if directions[0] == "maximize" else 1.0
    named = zip(("a", "b"), directions, strict=True)
    goals = tuple(ObjectiveRecord(metric=metric, direction=way, floor=floor) for metric, way in named)
    trials = [trial(n, pareto_rank=0, metrics={"a": a, "b": b}) for n, (a, b) in enumerate([(0.2, 0.3), (0.4, 0.1)])]
    assert lay_out_front(study(*trials, objectives=goals)).stairs == border


def test_no_label_covers_another_and_the_knee_always_has_one() -> None:
    frames = [Frame(300, 200), Frame(800, 400)]
    for step in (0.0, 0.001, 0.01, 0.05):
        labels = [Label(n, "knee · trial 0" if n == 0 else str(n), 0.5 + step * n, 0.5 + step * n, 8) for n in range(9)]
        sides = place_labels(labels, [(label.x, label.y) for label in labels], frames, (-1, -1))
        assert 0 in sides
        assert sides.keys() == set(range(9)) or step < 0.05, "where there is room everyone has one"
        for frame in frames:
            boxes = [frame.box(label, sides[label.name]) for label in labels if label.name in sides]
            for one, other in combinations(boxes, 2):
                assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_a_label_stands_on_the_side_that_is_asked_for_unless_a_mark_or_the_edge_is_there() -> None:
    def side(x: float, y: float, *marks: tuple[float, float]) -> tuple[int, int]:
        return place_labels([Label("a", "12", x, y, 8)], marks, [Frame(500, 300)], (-1, -1))["a"]

    assert side(0.5, 0.5) == (-1, -1)
    assert side(0.5, 0.5, (0.48, 0.46)) == (-1, 0), "above it would cover a part of the mark"
    assert side(0.005, 0.5) == (1, -1)
    assert side(0.005, 0.005) == (1, 1)


def test_marks_have_kind_order_and_tooltip_of_their_trial() -> None:
    drawing = lay_out_front(busy_study())
    kinds = {mark.trial.number: mark.kind for mark in drawing.marks}
    assert kinds == {0: "front", 1: "front", 2: "front", 3: "beaten", 4: "infeasible", 5: "stopped"}
    assert [trial.number for trial in drawing.missing] == [6, 7, 8]
    assert drawing.marks[-1].kind == "front"  # drawn last, hence on top
    lines = dict(next(mark for mark in drawing.marks if mark.trial.number == 2).tooltip)
    assert lines["learning_rate"] == "3e−4"
    assert "optimizer" not in lines, "it is the same in every trial"
    assert lines["win_rate"] == "0.3"


def test_lines_begin_at_the_start_model_and_break_where_numbers_end() -> None:
    way = ({"epoch": 1.0, "forget": 0.5}, {"epoch": 2.0, "forget": math.nan}, {"epoch": 4.0, "forget": 0.4})
    record = study(trial(0, series=way, metrics=way[-1], pareto_rank=0))
    chart = objective_charts(record)["forget"]
    (line,) = chart.lines
    assert [len(piece) for piece in line.segments] == [2, 1]
    assert line.segments[0][0] == (0, 0.9)
    assert line.end == (4, 0.4)
    assert [text for _, text in chart.epochs] == ["0", "1", "2", "3", "4"]


def test_whole_epochs_are_marked() -> None:
    for epochs, marked in ((1, ["0", "1"]), (2, ["0", "1", "2"]), (20, ["0", "5", "10", "15", "20"])):
        assert [text for _, text in objective_charts(study(trial(0, epochs=epochs)))["forget"].epochs] == marked


def test_labels_of_lines_that_end_together_are_apart() -> None:
    record = study(*(trial(n, 0.4 + n / 1000, pareto_rank=0) for n in (2, 0, 1)))
    heights = [height for height, _ in objective_charts(record)["forget"].labels]
    assert all(b - a >= 12 for a, b in pairwise(heights))


def test_labels_stay_in_the_drawing() -> None:
    record = study(*(trial(n, 0.9, 0.01 + n / 1000, pareto_rank=0) for n in range(8)))
    chart = objective_charts(record)["utility"]
    heights = [height for height, _ in chart.labels]
    assert heights[-1] <= chart.y_scale.start
    assert heights[0] >= chart.y_scale.stop
    assert all(b - a >= 12 for a, b in pairwise(heights))
