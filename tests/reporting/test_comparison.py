"""A comparison's tables, drawings and sentences, against values worked out by hand."""

from __future__ import annotations

import csv
import math
from io import StringIO
from typing import Any

import pytest
from pydantic import TypeAdapter

from lethe.config.space import Parameter, Scalar
from lethe.records import CriterionRecord, StudyRecord, VerdictRecord
from lethe.reporting.comparison.arms import HYPERVOLUME, LAYOUTS, Arm, ArmSeed, Cell, Column, arms
from lethe.reporting.comparison.boundaries import arm_space, boundary_end, boundary_hits
from lethe.reporting.comparison.csv_file import comparison_csv
from lethe.reporting.comparison.figures import mean_curve
from lethe.reporting.comparison.findings import describe_volumes
from lethe.reporting.comparison.opening import comparison_opening, describe_spread
from lethe.reporting.comparison.summary import comparison_view, print_comparison
from lethe.reporting.comparison.tables import cost_rows, format_mean, format_spread, result_rows
from lethe.reporting.next_steps import AUDITS, next_steps
from lethe.reporting.report import render_pages
from lethe.reporting.scales import format_fixed
from lethe.terminal import Terminal
from tests.reporting.comparisons import ARMS, arm_trial, comparison_study, member
from tests.reporting.pages import Page
from tests.tracking.studies import EVIL, busy_study

ACC = Column("soul_forget_accuracy", "Acc", "forget", "minimize", 100, 1)
VOLUME = Column(HYPERVOLUME, HYPERVOLUME, "", "maximize")


def texts(record: StudyRecord, *columns: Column) -> dict[str, list[str]]:
    """Every row's cells as they are view."""
    rows = result_rows(record, columns)
    return {
        row.name: [
            f"{format_mean(cell, c)} {format_spread(cell, c)}".strip()
            for cell, c in zip(row.cells, columns, strict=True)
        ]
        for row in rows
    }


def arm(name: str, *volumes: float) -> Arm:
    """Seeds with a trial each."""
    return Arm(
        name, "#000", 0, tuple(ArmSeed(n, (arm_trial(n, name, n, 0.5),), None, v) for n, v in enumerate(volumes))
    )


def test_means_and_spreads_over_seeds() -> None:
    found = texts(comparison_study(), ACC, VOLUME, Column("soul_mia", "MIA"))
    assert list(found) == ["Original", "Oracle", *ARMS]
    assert found["Original"] == ["95.0", "–", "–"]
    assert found["Oracle"] == ["–", "–", "–"]
    assert found["FO-GA"] == ["60.0 ± 14.1", "0.150 ± 0.071", "–"]
    assert found["SO-GA"] == ["30.0 ± 14.1", "0.600 ± 0.141", "–"]


def test_an_arm_without_a_complete_trial_has_its_row() -> None:
    rows = {row.name: row for row in result_rows(comparison_study(), [ACC, VOLUME])}
    assert texts(comparison_study(), ACC, VOLUME)["SO-NPO"] == ["–", "0.000"]  # its second seed was not begun
    assert [rows[name].feasible for name in ("Original", *ARMS)] == ["–", "0/2", "1/2", "2/2", "0/2"]
    assert rows["SO-NPO"].cells[1].known == [0.0]
    assert rows["SO-NPO"].complete == "0/1"


def test_one_seed_has_no_spread() -> None:
    record = comparison_study(members=(member("SO-GA", 0, 3, hypervolume=0.5),))
    assert texts(record, ACC, VOLUME)["SO-GA"] == ["20.0", "0.500"]
    assert texts(record, ACC, VOLUME)["FO-GA"] == ["–", "–"]  # planned, not reached
    view = comparison_view(record)
    assert view
    assert "one seed, so there is no spread" in view.caption


def test_cells_of_numbers_that_are_not_finite() -> None:
    nothing, broken = Cell((math.nan, math.nan)), Cell((1.0, math.inf, math.nan))
    assert math.isnan(nothing.mean)
    assert nothing.spread is None
    assert format_fixed(nothing.mean, 2) == "–"
    assert broken.mean == math.inf
    assert broken.spread is None
    assert format_fixed(broken.mean, 2) == "∞"
    assert [format_fixed(n, d) for n, d in ((-1234.5, 1), (0.05, 0), (2.5e7, 1))] == ["−1,234.5", "0", "2.5e7"]


def test_costs_are_of_all_complete_trials() -> None:
    rows = {row.name: row for row in cost_rows(arms(comparison_study()))}
    seconds, training = rows["FO-GA"].cells[:2]
    assert training.values == (60.0, 60.0, 120.0)
    assert rows["FO-GA"].complete == "3/3"
    assert seconds.mean == pytest.approx(4.5 / 60)
    assert rows["SO-NPO"].cells[0].values == ()


def test_csv_has_every_seeds_number() -> None:
    rows = list(csv.DictReader(StringIO(comparison_csv(comparison_study()))))
    assert len(rows) == 6 * len(LAYOUTS["tofu"].columns)
    found = {(row["row"], row["metric"]): row for row in rows}
    accuracy = found["FO-GA", "soul_forget_accuracy"]
    assert [float(accuracy[key]) for key in ("mean", "seed_0", "seed_1")] == [0.6, 0.5, 0.7]
    assert float(accuracy["spread"]) == pytest.approx(math.sqrt(0.02))
    assert accuracy["seeds"] == "2"
    assert found["SO-NPO", "hypervolume"]["seed_1"] == ""
    assert found["SO-NPO", "soul_mia"]["mean"] == ""
    assert found["Original", "soul_retain_accuracy"]["mean"] == "1.0"
    assert found["Original", "forget"]["seed_0"] == ""


@pytest.mark.parametrize(
    ("parameter", "ends"),
    [
        ({"type": "float", "low": 0.0, "high": 1.0}, {0.0: "low", 0.05: "low", 0.06: None, 0.94: None, 0.96: "high"}),
        ({"type": "float", "low": 1e-4, "high": 1e-2, "log": True}, {1.25e-4: "low", 1.3e-4: None, 8e-3: "high"}),
        ({"type": "int", "low": 1, "high": 25}, {1: "low", 2: "low", 3: None, 24: "high", 25: "high"}),
        ({"type": "int", "low": 3, "high": 3}, {3: None}),
        ({"type": "choice", "choices": [16, 4, 32, 8]}, {4: "low", 8: None, 16: None, 32: "high"}),
        ({"type": "choice", "choices": [4, 8]}, {4: None, 8: None}),
        ({"type": "choice", "choices": ["a", "b", "c"]}, {"a": None, "c": None}),
        ({"type": "choice", "choices": [1, 2, None]}, {1: None, None: None}),
        ({"type": "choice", "choices": [True, False]}, {True: None}),
    ],
)
def test_values_at_an_end_of_their_range(parameter: dict[str, Any], ends: dict[Scalar, str | None]) -> None:
    made = TypeAdapter(Parameter).validate_python(parameter)
    assert {value: boundary_end(value, made) for value in ends} == ends


def test_an_arms_space_is_laid_over_the_studys() -> None:
    record = comparison_study()
    assert arm_space(record, "SO-GA")["optimizer.hessian_interval"].ends() == {"low": 2, "high": 25}
    nothing = {"run": {"optimizer": {"learning_rate": 1e-3}}, "space": {"optimizer.hessian_interval": None}}
    study = {**record.study, "compare": {"layout": "tofu", "arms": {"FO-GA": nothing}}}
    assert arm_space(record.model_copy(update={"study": study}), "FO-GA") == {}


def test_boundary_hits_are_gathered_over_seeds() -> None:
    record = comparison_study()
    rates, intervals = {1: 2e-3, 2: 1e-4, 3: 9e-3, 7: 1e-2}, {1: 5, 2: 1, 3: 2, 7: 9}

    def given(number: int) -> dict[str, float]:
        keys = {"optimizer.learning_rate": rates, "optimizer.hessian_interval": intervals}
        return {key: values[number] for key, values in keys.items() if number in values}

    trials = tuple(t.model_copy(update={"params": given(t.number)}) for t in record.trials)
    record = record.model_copy(update={"trials": trials})
    found = boundary_hits(record, arms(record))  # trial 2 was not chosen
    assert [str(one) for one in found] == [
        "SO-GA optimizer.learning_rate at the high end of 1e−4 to 0.01, log (seeds 0, 1)",
        "SO-GA optimizer.hessian_interval at the low end of 2 to 25 (seed 0)",
    ]
    assert found[0].at == ((0, 3, 9e-3), (1, 7, 1e-2))


def test_the_largest_hypervolumes_in_words() -> None:
    assert describe_volumes(arms(comparison_study())) == [
        "Largest mean hypervolumes (SO-GA is ahead of FO-GA with 2 of 2 seeds):"
        " SO-GA 0.600 ± 0.141, FO-GA 0.150 ± 0.071.",
        "No trial of any seed is above the floors: SO-NPO.",
        "References: Guard 0.000 ± 0.000.",
    ]


def test_in_the_mean_a_curve_without_a_number_keeps_its_last_value() -> None:
    short, long = [(0.0, 1.0), (1.0, 0.2)], [(0.0, 1.0), (1.0, math.nan), (2.0, 0.4), (3.0, 0.6)]
    assert mean_curve([short, long]) == [
        (0.0, 1.0),
        (1.0, pytest.approx(0.6)),
        (2.0, pytest.approx(0.3)),
        (3.0, pytest.approx(0.4)),
    ]


def with_method(record: StudyRecord, arm: str, method: str) -> StudyRecord:
    """The study with another objective in an arm."""
    arms_given = {**ARMS, arm: {"run": {"objective": {"name": method}}, "space": {}}}
    compare = {**record.study["compare"], "arms": arms_given}
    trials = tuple(
        t.model_copy(update={"params": {**t.params, "objective.name": method}}) if t.params["arm"] == arm else t
        for t in record.trials
    )
    return record.model_copy(update={"study": {**record.study, "compare": compare}, "trials": trials})


def test_an_arm_evaluated_once_and_a_reference_are_level_lines() -> None:
    view = comparison_view(comparison_study())
    assert view
    assert [c.label.split(" (")[0] for c in view.charts.values()] == ["forget Acc", "retain Acc", "forget", "utility"]
    chart = view.charts["soul_forget_accuracy"]
    assert [name for name, _, _ in chart.references] == ["start", "Guard"]
    assert chart.y_scale.back(chart.references[1][1]) == pytest.approx(90, abs=0.1)
    other = comparison_view(with_method(comparison_study(), "Guard", "influence"))
    assert other
    chart = other.charts["soul_forget_accuracy"]
    lines = {line.label: line for line in chart.lines if line.label}
    assert list(lines) == ["Guard", "FO-GA", "SO-GA"]
    assert [name for name, _, _ in chart.references] == ["start"]
    assert lines["Guard"].css == "front flat"
    assert lines["Guard"].segments == [[(0.0, 90.0), (3.0, 90.0)]]
    assert lines["FO-GA"].css == "front dash1"
    assert lines["FO-GA"].segments[0][0] == (0.0, 95.0)
    assert lines["SO-GA"].css == "front dash0"
    assert lines["SO-GA"].end == (3.0, pytest.approx(30.0))
    assert lines["FO-GA"].color == lines["SO-GA"].color != lines["Guard"].color
    assert sum(line.css == "seed" for line in chart.lines) == 4
    assert {line.trial for line in chart.lines} == {None, 1, 3, 6, 7}


def test_the_page_has_the_table_and_everyones_answers() -> None:
    page = Page(render_pages(comparison_study())["report.html"])
    cells = page.arms["FO-GA"]
    assert {"FO-GA", "60.0", "± 14.1", "70.0", "0.150", "± 0.071", "1/2"} <= set(cells)
    assert "–" in page.arms["SO-NPO"]
    assert {"95.0", "100.0"} <= set(page.arms["Original"])
    heads = ("Acc (choice), % ↓", "Acc (occurs), % ↑", "4 arms with 2 seeds each, 8 trials")
    for words in (*heads, "a fact", "wiped", EVIL):
        assert words in page.text
    assert "What won" in page.text
    assert "Before and after" not in page.text
    assert page.rows.keys() == set(range(8))
    assert "Where the best settings lie" in page.text
    assert "The comparison" not in Page(render_pages(busy_study())["report.html"]).text


def test_tdecs_layout_on_the_same_code() -> None:
    record = comparison_study("tdec")
    metrics = {"trained_share": 0.016, "epochs_to_criterion": 6.0, "extraction_likelihood": 0.003, "perplexity": 24.0}
    trials = tuple(t.model_copy(update={"metrics": {**t.metrics, **metrics}}) for t in record.trials)
    view = comparison_view(record.model_copy(update={"trials": trials}))
    assert view
    assert view.cost
    assert [point[0].name for point in view.cost.points] == ["FO-GA", "SO-GA"]
    assert view.cost.points[0][1].values == (60.0, 120.0)
    row = next(row for row in view.rows if row.name == "SO-GA")
    means = [format_mean(cell, column) for cell, column in zip(row.cells, view.layout.columns, strict=True)]
    assert means == ["1.6", "6.0", "0.3", "–", "–", "–", "24.0", "0.300", "0.500", "0.600"]
    assert [score.name for score, _ in view.claims[0].answers][::2] == ["volume", "epochs"]


@pytest.mark.parametrize(("width", "text"), [(250, "60.0 ± 14.1"), (110, "60.0"), (60, "60.0")])
def test_a_narrow_terminal_gets_fewer_columns(width: int, text: str) -> None:
    screen = StringIO()
    print_comparison(comparison_study(), Terminal(file=screen, width=width, force_terminal=True, color_system=None))
    lines = screen.getvalue().splitlines()
    row = next(line for line in lines if line.strip().startswith("FO-GA"))
    assert text in row
    assert "0.150" in row
    assert "1/2" in row
    assert len(row) <= width
    assert ("±" in row) == (width == 250)
    assert any(line.startswith("second order (1 pair, 1 seed): no verdict") for line in lines)


def test_a_log_is_as_wide_as_the_table() -> None:
    screen = StringIO()
    print_comparison(comparison_study(), Terminal(file=screen, width=80))
    row = next(line for line in screen.getvalue().splitlines() if line.strip().startswith("FO-GA"))
    assert "60.0 ± 14.1" in row
    assert "0.150 ± 0.071" in row
    assert len(row) > 80


def test_plain_studies_have_no_arms() -> None:
    record = busy_study()
    record = record.model_copy(update={"study": {**record.study, "compare": None}})
    assert arms(record) == []
    assert comparison_view(record) is None
    assert render_pages(record).keys() == {"report.html", "front.html"}


def test_references_are_said_to_be_where_the_record_has_them() -> None:
    record = comparison_study()
    assert "Guard is a reference and not on the front." in describe_spread(record, arms(record))
    guard = arm_trial(0, "Guard", 0, 0.1, pareto_rank=0)
    on_front = (guard, *record.trials[1:])
    earlier = record.model_copy(update={"trials": on_front})
    assert "Guard is a reference, in this record on the front." in describe_spread(earlier, arms(earlier))
    other = with_method(record, "Guard", "influence")
    assert "reference" not in describe_spread(other, arms(other)), "no arm is one"


def test_the_first_screen_says_who_won_what_a_verdict_needs_and_whether_it_is_enough() -> None:
    first = comparison_opening(comparison_study())
    assert first.sentence == "SO-GA has the largest hypervolume."
    assert first.because == "No verdict: it needs 3 seeds with equal numbers of trials, and there is 1."
    assert first.facts["Is it enough"] == "Not judged: no criterion about forgetting was checked."
    assert "Guard is a reference" in first.facts["How far to trust it"]
    criterion = CriterionRecord(metric="utility", value=0.1, bound="at least 0.5", holds=False)
    partly = VerdictRecord(forgotten="partly", criteria=(criterion,))
    record = comparison_study()
    trials = tuple(t.model_copy(update={"forgotten": partly}) if t.number == 7 else t for t in record.trials)
    judged = record.model_copy(update={"trials": trials, "space": "soul"})
    assert comparison_opening(judged).facts["Is it enough"] == (
        "No: no model on the common front meets every criterion. Forgotten: 1 partly of 2 models;"
        " of SO-GA's, by seed: 1 partly."
    )
    page = Page(render_pages(judged)["report.html"])
    assert "1 partly" in page.arms["SO-GA"]
    assert "what wins" in page.text
    assert [step.command for step in next_steps(judged)] == [
        "lethe sweep soul-full",
        f"lethe sweep {judged.id} --resume --set confirm.seeds=3 --set '{AUDITS}'",
        f"lethe show {judged.id}",
    ]
