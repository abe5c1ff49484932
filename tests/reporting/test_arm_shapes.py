"""How the arms of a comparison are told apart in its figures: by color and shape, references as lines."""

from __future__ import annotations

from lethe.reporting.comparison.arms import arms
from lethe.reporting.comparison.figures import comparison_png
from lethe.reporting.figure_style import ARM_MARKERS
from lethe.reporting.front import lay_out_front
from lethe.reporting.front_picture import front_png
from lethe.reporting.report import render_pages, template_environment
from lethe.reporting.study_figures import study_figures
from tests.reporting.comparisons import comparison_study, member
from tests.reporting.pages import Page


def test_orders_differ_in_shape_and_references_are_lines() -> None:
    record = comparison_study()
    assert {arm.name: arm.symbol for arm in arms(record) if not arm.reference} == {
        "FO-GA": "circle",
        "SO-GA": "diamond",
        "SO-NPO": "diamond",
    }
    drawing = lay_out_front(record)
    assert [(arm.name, point) for arm, point in drawing.references] == []
    assert {mark.kind for mark in drawing.marks} == {"front", "beaten", "infeasible"}
    assert all(drawing.arm_of[mark.trial.number].name != "Guard" for mark in drawing.marks)
    objectives = {"forget": 0.8, "utility": 0.5}
    guards = tuple(
        t.model_copy(update={"metrics": {**t.metrics, **objectives}}) if t.number in (0, 5) else t
        for t in record.trials
    )
    record = record.model_copy(update={"trials": guards})
    assert [(arm.name, point) for arm, point in lay_out_front(record).references] == [("Guard", (0.8, 0.5))]
    figures = study_figures(record)
    points = {trace["name"]: trace["marker"] for trace in figures["front"]["data"] if trace.get("customdata")}
    assert points["FO-GA"]["symbol"] == ["circle", "circle", "circle-open"]
    assert points["SO-GA"]["symbol"] == ["diamond", "diamond"]
    assert points["SO-GA"]["size"] == [12, 12], "large on the front"
    assert "Guard" not in points
    dotted = [
        shape["line"]["color"] for shape in figures["front"]["layout"]["shapes"] if shape["line"]["dash"] == "dot"
    ]
    assert dotted == [arms(record)[0].color] * 2
    page = render_pages(record)["report.html"]
    assert page.count('<path class="level"') == 2, "in the front, and among the hypervolumes"
    assert "a reference, not on the front" in Page(page).text
    assert front_png(record).startswith(b"\x89PNG")
    assert comparison_png(record).startswith(b"\x89PNG")


def test_parts_that_are_added_differ_in_shape() -> None:
    record = comparison_study()
    study = {**record.study, "compare": {"arms": {"X": {}, "X+Y": {}, "X+Y+Z": {}}}}
    members = (member("X", 0), member("X+Y", 0), member("X+Y+Z", 0))
    found = arms(record.model_copy(update={"study": study, "members": members, "trials": ()}))
    assert [arm.symbol for arm in found] == ["triangle-up", "square", "circle"]
    assert len({arm.color for arm in found}) == 1


def test_eighteen_arms_differ_in_color_or_shape() -> None:
    record = comparison_study()
    names = [f"arm {letter}" for letter in "abcdefghijklmnopqr"]
    study = {**record.study, "compare": {"arms": {name: {} for name in names}}}
    members = tuple(member(name, 0) for name in names)
    found = arms(record.model_copy(update={"study": study, "members": members, "trials": ()}))
    assert len({(arm.color, arm.symbol) for arm in found}) == len(names)
    assert {arm.symbol for arm in found} <= ARM_MARKERS.keys()


def test_every_shape_of_an_arm_can_be_drawn_in_a_page() -> None:
    drawn = template_environment().get_template("plots.j2").module.symbol
    for shape in ARM_MARKERS:
        assert 'd="M' in drawn("front", 1, 1, 6, "", shape) or shape == "circle"
