"""From measured points to what the report says: on points that are made from known laws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lethe.config.scaling import ScalingStudy, load_scaling
from lethe.config.study import Study, load_study
from lethe.models.transformer import Transformer
from lethe.records import ModelScores, ObjectiveRecord, StudyRecord, TrialRecord
from lethe.reporting.scaling import describe_scaling, scaling_opening, scaling_steps, write_scaling_report
from lethe.reporting.scaling_figures import scaling_figures
from lethe.scaling.design import SearchPoint, cost_points
from lethe.scaling.laws import fit_laws, parallel_records, predicted_speed_up, serial_share, setting_laws
from lethe.scaling.study_cost import study_costs
from lethe.scaling.transfer import (
    FinishedSearch,
    best_of,
    plan_move,
    predict,
    rank_correlations,
    search_record,
    steps_to,
    transfer_record,
    with_setting,
)
from lethe.scaling_records import ScalingRecord, SearchRecord
from tests.browser import CONTRAST, check_links, draw_all, opened, reached_by_keyboard
from tests.reporting.pages import Page

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def seconds(parameters: float, rows: int, workers: int) -> float:
    """A made-up machine: 2 ms, and 30 ms for a million parameters and four rows, a tenth of which is serial."""
    return 0.002 + 0.03 * parameters / 1e6 * rows / 4 * (0.1 + 0.9 / workers)


@pytest.fixture(scope="module")
def study() -> ScalingStudy:
    return load_scaling("tofu")


@pytest.fixture(scope="module")
def points(study: ScalingStudy) -> tuple[TrialRecord, ...]:
    draw = np.random.default_rng(0)
    found = []
    for number, point in enumerate(cost_points(study)):
        parameters = float(Transformer.of_embedded(point.model).parameters)
        took = seconds(parameters, point.rows, point.workers) * np.exp(draw.normal(0, 0.01, 20))
        series = tuple(
            {"epoch": float(i), "wall_seconds": float(s), "cpu_seconds": float(s)} for i, s in enumerate(took, 1)
        )
        metrics = {
            "parameters": parameters, "tokens": 62.0 * point.rows, "step_seconds": float(np.median(took)),
            "step_cpu_seconds": float(np.median(took)), "refresh_share": 0.0, "states_mb": 12 * parameters / 2**20,
            "step_tensors_mb": 3.0 + parameters / 2**20, "tokens_per_second": 1.0, "peak_memory_mb": 600.0,
            "communication_share": 0.1, "matrix_rate": 9e10, "busy": 1.0, "flops": 1e9, "utilisation": 0.5,
            "predicted_step_mb": (3.0 + parameters / 2**20) * (10 / 9 if parameters > 1e7 else 1),
        }  # fmt: skip
        found.append(
            TrialRecord(
                number=number, run=f"r{number}", verdict="complete", params=point.labels, metrics=metrics, series=series
            )
        )
    return tuple(found)


def test_laws_of_the_made_up_machine(study: ScalingStudy, points: tuple[TrialRecord, ...]) -> None:
    found = {(law.name, law.arm): law for law in fit_laws(study, points)}
    assert set(found) == {
        ("step time", "sophia"),
        ("step time", "adamw"),
        ("step time by batch", "sophia"),
    }
    for law in found.values():
        assert abs(law.error) < 0.1, law.name
    time = found["step time", "adamw"]
    assert time.held_out.x == max(time.x)
    assert len(time.x) == 7
    assert time.exponent == pytest.approx(1, abs=0.05)
    far = time.extrapolations[0]
    assert far.low < far.value < far.high
    assert far.value == pytest.approx(seconds(7e9, 4, 1), rel=0.3)
    assert len(found["step time by batch", "sophia"].x) == 5, "1, 2, 4, 8, 16 rows: the base point is one of them"


def test_points_that_failed_are_left_out(study: ScalingStudy, points: tuple[TrialRecord, ...]) -> None:
    broken = [
        p.model_copy(update={"verdict": "out_of_memory"}) if p.params["size"] in ("2M", "4M", "8M", "16M") else p
        for p in points
    ]
    assert [law.name for law in fit_laws(study, broken)] == ["step time by batch"]


def test_serial_shares() -> None:
    assert serial_share("strong", {1: 1.0, 2: 1 / (0.1 + 0.9 / 2), 4: 1 / (0.1 + 0.9 / 4)}) == pytest.approx(0.1)
    assert serial_share("weak", {1: 1.0, 2: 2 - 0.2, 4: 4 - 0.2 * 3}) == pytest.approx(0.2)
    assert predicted_speed_up("strong", 64, 0.1) == pytest.approx(1 / (0.1 + 0.9 / 64))
    assert predicted_speed_up("weak", 64, 0.2) == pytest.approx(64 - 0.2 * 63)


def test_parallel_records_of_strong_and_weak_scaling(points: tuple[TrialRecord, ...]) -> None:
    found = {(p.kind, p.stage): p for p in parallel_records(points)}
    assert set(found) == {("strong", 0), ("strong", 2), ("weak", 0)}
    strong = found["strong", 0]
    one, two = (seconds(1041536, 4, w) for w in (1, 2))
    assert strong.workers == (1, 2)
    assert strong.efficiency[1] == pytest.approx(one / two / 2, rel=0.02)
    assert strong.serial.low <= strong.serial.value <= strong.serial.high
    assert [p.x for p in strong.extrapolations] == [8, 16, 32, 64]
    assert all(p.low <= p.value <= p.high for p in strong.extrapolations)


def trial(number: int, forget: float, utility: float, rate: float, seconds: float = 10.0) -> TrialRecord:
    reports = [{"epoch": e, "optimizer_step": 10.0 * e, "forget": 0.8 + (forget - 0.8) * e / 2} for e in (1.0, 2.0)]
    metrics = {
        **reports[-1],
        "utility": utility,
        "win_rate": 0.4,
        "seconds": seconds,
        "train_seconds": 6.0,
        "evaluate_seconds": 3.0,
    }
    params = {"optimizer.learning_rate": rate, "optimizer.clip_threshold": 1.0, "objective.gamma": 2.0}
    return TrialRecord(
        number=number,
        run=f"t{number}",
        verdict="complete",
        params=params,
        metrics=metrics,
        series=(reports[0], metrics),
    )


def search(study: Study, size: str, parameters: float, trials: list[TrialRecord]) -> FinishedSearch:
    goals = (
        ObjectiveRecord(metric="forget", direction="minimize"),
        ObjectiveRecord(metric="utility", direction="maximize"),
    )
    start = ModelScores(metrics={"forget": 0.8, "utility": 1.0})
    record = StudyRecord(
        id=size, space="s", study={}, objectives=goals, digests={}, start=start, start_folder="", trials=tuple(trials)
    )
    point = SearchPoint(size, "sophia", "forget10", study)
    return FinishedSearch(point, record, search_record(point, record, parameters, 0.75, 7.0))


@pytest.fixture(scope="module")
def line() -> list[FinishedSearch]:
    """Searches of equal settings at three sizes; the middle size wants half the rate, the large one costs ten times."""
    space = load_study(
        "tofu",
        [
            "run.adapter.name=full",
            "space.adapter.name=null",
            "space.adapter.rank=null",
            "space.optimizer.hessian_interval=null",
        ],
    )
    rates = (1e-3, 4e-3, 2e-3)
    gains = {"small": (0.7, 0.3, 0.6), "middle": (0.7, 0.6, 0.3), "large": (0.7, 0.45, 0.65)}
    sizes = {"small": 1e5, "middle": 1e6, "large": 1e7}
    line = []
    for name, by_rate in gains.items():
        seconds = 100.0 if name == "large" else 10.0
        settings = enumerate(zip(by_rate, rates, strict=True))
        trials = [trial(number, gain, 0.9, rate, seconds) for number, (gain, rate) in settings]
        line.append(search(space, name, sizes[name], trials))
    return line


def test_the_record_of_a_search(line: list[FinishedSearch]) -> None:
    small = line[0].record
    assert small.chosen == 1
    assert line[0].best["optimizer.learning_rate"] == 4e-3
    assert small.target == pytest.approx(0.6)
    assert small.reached == 2, "0.3 and 0.6"
    assert small.steps_to_target == 10, "at the first report the chosen trial is at 0.55"
    assert small.seconds == {"prepare": 7.0, "train": 18.0, "evaluate": 9.0, "rest": 3.0}
    assert small.win_rate == 0.4
    assert small.hypervolume > 0
    assert len(small.scores) == 3


def test_steps_to_a_target() -> None:
    one = trial(0, 0.4, 1.0, 1e-3)
    assert steps_to(one, "forget", 0.61, "minimize") == 10
    assert steps_to(one, "forget", 0.5, "minimize") == 20
    assert steps_to(one, "forget", 0.1, "minimize") is None
    assert steps_to(one, "utility", 0.9, "maximize") == 20, "reports without the metric are no evidence"


def test_a_setting_follows_the_trend_of_smaller_sizes(line: list[FinishedSearch]) -> None:
    move = plan_move(line)
    assert move.trend["optimizer.learning_rate"] == pytest.approx(1e-3), "4e-3, 2e-3, so 1e-3"
    assert move.setting["objective.gamma"] == 2.0
    assert move.run["optimizer"]["learning_rate"] == pytest.approx(1e-3)
    assert move.run["optimizer"]["name"] == "sophia"
    only = predict([(1e5, {"optimizer.learning_rate": 4e-3})], line[0].point.study, 1e7)
    assert only == ({"optimizer.learning_rate": 4e-3}, {}), "one size has no trend: the setting as it is"
    steep, _ = predict(
        [(1e5, {"optimizer.learning_rate": 9e-3}), (1e6, {"optimizer.learning_rate": 4e-4})], line[0].point.study, 1e7
    )
    assert steep["optimizer.learning_rate"] == line[0].point.study.space["optimizer.learning_rate"].low, (
        "no further than the search could have gone"
    )


def test_transfer_is_compared_with_searching_for_as_long(line: list[FinishedSearch]) -> None:
    sweep = line[-1].sweep.model_copy(update={"trials": (trial(9, 0.2, 0.9, 1e-3, 100.0),)})
    found = transfer_record(line, plan_move(line), sweep)
    assert found.trials_for_the_same == pytest.approx(1.3), "three trials of 10 s and one of 100, at 100 s each"
    assert found.random_score.x == 1
    assert found.score > found.random_score.high
    assert "did better than" in " ".join(describe_scaling(record_of(transfer=(found,))))
    assert set(found.rank_correlation) == {"small to middle", "small to large", "middle to large"}
    assert found.rank_correlation["small to middle"] == pytest.approx(0.5)


def test_the_expected_best_of_random_trials() -> None:
    scores = (0.0, 0.0, 0.6, 0.2)
    assert best_of(scores, 4.2).value == pytest.approx(0.6) == best_of(scores, 99).value
    assert best_of(scores, 0.2).value == pytest.approx(0.2, abs=0.02), "one at least: the mean"
    assert best_of(scores, 2).value == pytest.approx((3 * 0.6 + 2 * 0.2) / 6, abs=0.02)


def test_rank_correlation_needs_settings_in_common(line: list[FinishedSearch]) -> None:
    records = [s.record for s in line[:2]]
    other = records[1].model_copy(update={"scores": {f"x{key}": value for key, value in records[1].scores.items()}})
    assert rank_correlations([records[0], other]) == {}


def test_a_setting_is_put_into_the_run() -> None:
    run = {"optimizer": {"name": "sophia"}, "seed": 1}
    assert with_setting(run, {"optimizer.learning_rate": 2e-3, "objective.gamma": 3, "seed": 2}) == {
        "optimizer": {"name": "sophia", "learning_rate": 2e-3}, "objective": {"gamma": 3}, "seed": 2,
    }  # fmt: skip
    assert run == {"optimizer": {"name": "sophia"}, "seed": 1}


def test_the_best_rate_by_size_is_a_power(study: ScalingStudy) -> None:
    sizes = (1e5, 1e6, 1e7, 1e8)
    trials = [trial(i, 0.3, 0.9, 1e-3 * (size / 1e5) ** -0.5) for i, size in enumerate(sizes)]
    records = [
        SearchRecord(
            size=f"{size:g}", arm="sophia", forget="forget10", parameters=size, trials=(i,), hypervolume=0.1, chosen=i,
            start={}, target=0.6, steps_to_target=None, reached=0, seconds={}, win_rate=None, scores={},
        )
        for i, size in enumerate(sizes)
    ]  # fmt: skip
    rate, _ = setting_laws(study, records, trials)
    assert (rate.name, rate.form) == ("best learning rate", "power")
    assert rate.exponent == pytest.approx(-0.5)
    assert setting_laws(study, records[:3], trials) == ()


def record_of(**parts: object) -> ScalingRecord:
    """A study of nothing but what is given."""
    return ScalingRecord(id="s-1", study={"name": "s"}, machine={"matrix_rate": 9e10, "busy": 0.5}, points=(), **parts)


def whole_record(study: ScalingStudy, points: tuple[TrialRecord, ...], line: list[FinishedSearch]) -> ScalingRecord:
    """A study with everything, of which one point ran out of memory."""
    sweep = line[-1].sweep.model_copy(update={"trials": (trial(9, 0.2, 0.9, 1e-3),)})
    trials = tuple(t for s in line for t in s.sweep.trials)
    record = record_of(
        laws=fit_laws(study, points), parallel=parallel_records(points), searches=tuple(s.record for s in line),
        trials=trials, transfer=(transfer_record(line, plan_move(line), sweep),), plans={"7B": "fits <b>nowhere</b>"},
        studies=study_costs(),
    )  # fmt: skip
    failed = points[0].model_copy(update={"verdict": "out_of_memory", "reason": "no <memory>"})
    return record.model_copy(update={"points": (failed, *points[1:])})


def test_the_first_screen_answers_and_says_what_next(
    study: ScalingStudy, points: tuple[TrialRecord, ...], line: list[FinishedSearch]
) -> None:
    record = whole_record(study, points, line)
    first = scaling_opening(record)
    held = sum(law.covered for law in record.laws)
    growth = "Step time grows in proportion to parameters with Sophia and AdamW"
    assert first.sentence == f"{growth}; {held} of 3 laws predicted the largest size."
    assert first.because.startswith(
        "A step at 16.7M parameters holds 19 MiB beyond weights and optimizer states, by the memory model 21.1; it is"
        " at most 11% from any of 21 points."
    )
    assert list(first.facts) == [
        "What was done", "What won", "Is it enough", "What it cost", "What larger studies cost", "How far to trust it",
    ]  # fmt: skip
    assert first.facts["What was done"].startswith("21 of 22 points timed at 7 sizes from 101k to 16.7M parameters;")
    assert "a random search there" in first.facts["What won"]
    assert first.facts["Is it enough"].startswith(("Yes, to plan larger models: 3 of 3", "Partly, to plan"))
    steps = scaling_steps(record, "python -m platform.")
    assert steps[0].command.startswith("python -m platform.scaling plan --model-params 7e9 ")
    interrupted = record.model_copy(update={"interrupted": True})
    assert scaling_steps(interrupted)[0].command == "lethe scaling s --resume"
    figures = scaling_figures(record)
    assert list(figures) == ["law-step-time", "law-step-time-by-batch", "workers", "quality"]
    measured = [trace for trace in figures["law-step-time"]["data"] if trace.get("name", "").endswith("measured")]
    assert [trace["name"] for trace in measured] == ["Sophia, measured", "AdamW, measured"]
    assert [trace["marker"]["symbol"].count("diamond") for trace in measured] == [1, 1], "the one that is held out"
    assert scaling_opening(record_of()).sentence.startswith("No law was fitted")
    assert scaling_figures(record_of()) == {}


def test_the_report_has_laws_points_searches_and_plans(
    study: ScalingStudy, points: tuple[TrialRecord, ...], line: list[FinishedSearch], tmp_path: Path
) -> None:
    record = whole_record(study, points, line)
    page = write_scaling_report(record, tmp_path / "r").read_text()
    assert {p.name for p in (tmp_path / "r").iterdir()} == {"report.html", "scaling.png", "points.csv", "scaling.json"}
    assert ScalingRecord.model_validate_json((tmp_path / "r/scaling.json").read_text()) == record
    assert (tmp_path / "r/scaling.png").read_bytes().startswith(b"\x89PNG")
    for words in (
        "Extrapolation of",
        "Held out at",
        "serial share",
        "Steps to target",
        "Transfer, sophia",
        "Llama 3.1 8B, every weight: part by part",
        "no &lt;memory&gt;",
        "&lt;b&gt;",
    ):
        assert words in page
    assert "<b>nowhere" not in page
    text = Page(page).text
    assert "python -m platform" not in text
    assert "lethe scaling plan --model-params 7e9 --gpu-memory 80e9" in text
    assert len(page) < 5e6
    assert len((tmp_path / "r/points.csv").read_text().splitlines()) == 23


def test_a_report_without_points(tmp_path: Path) -> None:
    assert "No law was fitted" in write_scaling_report(record_of(interrupted=True), tmp_path).read_text()


@pytest.fixture(scope="module")
def report(
    study: ScalingStudy,
    points: tuple[TrialRecord, ...],
    line: list[FinishedSearch],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    return write_scaling_report(whole_record(study, points, line), tmp_path_factory.mktemp("scaling"))


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (420, "dark")])
def test_the_page_is_drawn_readable_and_as_wide_as_the_window(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    page = opened(browser, report, width, color_scheme=scheme)
    draw_all(page)
    page.eval_on_selector_all("details", "all => all.forEach((one) => { one.open = true; })")
    assert page.locator(".drawn").count() == 4
    assert not page.locator(".picture").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CONTRAST) == []
    assert page.errors == []  # type: ignore[attr-defined]
    page.close()


def test_the_first_screen_fits_and_tables_links_and_keys_work(browser: Browser, report: Path) -> None:
    page = opened(browser, report)
    assert page.locator("header.opening dl.facts dt").count() == 6
    for selector in ("h1", "dl.facts", "[data-figure=law-step-time]", "dl.steps"):
        box = page.locator(f"header.opening {selector}").bounding_box()
        assert box
        assert box["y"] + box["height"] < 900, f"{selector} is below the first screen"
    table = page.locator("table.sortable", has_text="Utilisation")
    table.locator("th button", has_text="Parameters").press("Enter")
    assert table.locator("tbody tr").first.locator("td").first.inner_text() == "0.1M"
    table.locator("th button", has_text="Parameters").press("Enter")
    assert table.locator("tbody tr").first.locator("td").first.inner_text() == "16M"
    page.evaluate("document.querySelector('nav a').focus()")
    assert {"A #laws true", "INPUT filter the table true", "BUTTON  true"} <= reached_by_keyboard(page, 25)
    check_links(page, report)
    assert page.errors == []  # type: ignore[attr-defined]
    page.close()
    page = opened(browser, report, java_script_enabled=False)
    assert page.locator(".picture img").is_visible()
    assert page.locator(".interactive:visible").count() == 0
    page.close()
