"""The report of real records: what a person finds in it, and that nothing in it runs."""

from __future__ import annotations

import base64
import csv
import hashlib
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from markupsafe import escape

from lethe.config.metrics import TOFU_METRICS
from lethe.errors import UserError
from lethe.records import (
    CriterionRecord,
    ModelScores,
    ObjectiveRecord,
    RenderedPrompt,
    StudyRecord,
    VerdictRecord,
)
from lethe.reporting.comparison.figures import comparison_png
from lethe.reporting.console import Console
from lethe.reporting.front_picture import front_png
from lethe.reporting.report import render_pages, write_report
from lethe.reporting.study_figures import study_figures
from tests.reporting.comparisons import comparison_study
from tests.reporting.pages import Page
from tests.tracking.studies import EVIL, busy_study, sample, study, trial

FILES = {"report.html", "front.html", "front.png", "front-small.png", "trials.csv", "study.json"}


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes half a second: one test draws them all."""
    for name in ("front_png", "front_thumbnail", "comparison_png", "verdicts_png"):
        monkeypatch.setattr(f"lethe.reporting.report.{name}", lambda record: b"a picture")


def report(record: StudyRecord, folder: Path, **settings: str) -> Page:
    assert write_report(record, folder, **settings) == folder / "report.html"
    of_comparison = {"comparison.csv", "comparison.png", "verdicts.csv", "verdicts.png"} if record.members else set()
    assert {path.name for path in folder.iterdir()} == FILES | of_comparison
    return Page((folder / "report.html").read_text())


def test_every_trial_with_its_parameters_and_verdict(tmp_path: Path) -> None:
    record = busy_study()
    page = report(record, tmp_path)
    assert page.rows.keys() == {trial.number for trial in record.trials}
    for done in record.trials:
        cells = page.rows[done.number]
        assert f"{done.number + 1}e−4" in cells
    assert {"knee", "0.200", "0.450", "0.300"} <= set(page.rows[2])
    assert "The same in every trial: 2 settings optimizer.name sophia , adapter.rank 8" in page.text
    assert "beaten by another" in page.rows[3]
    assert "below a floor" in page.rows[4]
    assert "stopped" in page.rows[5]
    assert {"diverged", "NaN", "∞"} <= set(page.rows[6])
    assert "rank above the layer's width" in page.rows[7]
    assert "out of memory" in page.rows[8]


def test_points_of_interim_evaluations_are_hollow_and_the_last_one_is_not(tmp_path: Path) -> None:
    done = trial(0, pareto_rank=0)
    series = tuple({**r, "evaluated_share": share} for r, share in zip(done.series, (0.25, 0.25, 1.0), strict=True))
    record = study(done.model_copy(update={"series": series}), trial(1, 0.3, 0.4, pareto_rank=0))
    marked, plain = (
        next(line for line in study_figures(record)["epochs-forget"]["data"] if line["name"] == name)["marker"]
        for name in ("trial 0", "trial 1")
    )
    assert marked["symbol"] == ["circle", "circle-open", "circle-open", "circle"], "the start model's is first"
    assert "symbol" not in plain
    interim = "interim : evaluated before the last epoch, on an evenly spread share of the rows"
    assert interim in report(record, tmp_path).text
    assert interim not in report(busy_study(), tmp_path).text


def test_a_whole_prompt_is_shown_as_text(tmp_path: Path) -> None:
    prompt = RenderedPrompt(prompt=f"<s><|user|>{EVIL}<|end|>\n<|assistant|>\n", answer="Ada did.<|end|>")
    report(busy_study(prompt=prompt), tmp_path)
    assert f"{escape(prompt.prompt)}<mark>{escape(prompt.answer)}</mark>" in (tmp_path / "report.html").read_text()
    report(busy_study(), tmp_path)
    assert "A whole prompt" not in (tmp_path / "report.html").read_text(), "token sequences are asked for nothing"


def test_parameter_importance_is_shown_as_shares(tmp_path: Path) -> None:
    shares = {"forget": {"optimizer.learning_rate": 0.8, "adapter.rank": 0.2}, "utility": {"adapter.rank": 1.0}}
    page = report(busy_study(importance=shares), tmp_path)
    assert "With 5 complete trials this is a hint, no more." in page.text
    assert "forget optimizer.learning rate 80 % adapter.rank 20 % utility adapter.rank 100 %" in page.text
    assert {("style", "width:80.0%"), ("style", "width:100.0%")} <= set(page.attributes)
    assert "What decides" not in report(busy_study(), tmp_path).text


def test_headline_front_and_answers(tmp_path: Path) -> None:
    page = report(busy_study(), tmp_path, store="sqlite:///runs.db", model="lethe-tofu")
    assert "Sophia" in page.text
    won = "Trial 2 (knee): forget 0.200 (start 0.900, oracle 0), utility 0.450 (start 0.600, oracle 0.580)."
    assert f"{won} The front has 2 others." in page.text
    assert "1.1 min for 9 trials on 1 worker group (0.018 group-hours)." in page.text
    assert "9 trials: 5 complete, 1 stopped, 1 diverged, 1 infeasible, 1 out of memory." in page.text
    for word in ("start", "oracle", "floor 0.900", "floor 0.300", "knee · trial 2", "hypervolume :"):
        assert word in page.text
    assert "trial 6 (diverged), 7 (infeasible), 8 (out of memory)" in page.text
    for answer in ("the start model's answer", "the oracle's answer", "a retained answer", "less wrong"):
        assert answer in page.text
    assert "lethe ui 0123456789abcdef opens them, from sqlite:///runs.db" in page.text
    assert ("href", "sqlite:///runs.db") not in page.attributes


def test_evidence_stands_beside_start_model_and_oracle_for_every_winner(tmp_path: Path) -> None:
    measured = {"forget": 0.2, "utility": 0.45, "privleak": -31.5, "retain_rouge": 0.71}
    models = {
        "start": ModelScores(metrics={"privleak": -99.0, "forget_quality": 3e-8}),
        "oracle": ModelScores(metrics={"privleak": 0.0, "retain_rouge": 0.92}),
    }
    winners = (trial(0, metrics=measured, pareto_rank=0), trial(1, metrics={"forget": 0.3}, pareto_rank=0))
    page = report(study(*winners, aliases={"knee": 0}, **models), tmp_path)
    table = page.text.partition("The evidence")[2].partition("Before and after")[0]
    assert "Metric Start model Trial 0 knee Trial 1 Oracle" in table
    assert (
        "against the oracle's in percent: 0 like the oracle, below it remembered, above it conspicuous −99 −31.5 – 0"
        in table
    )
    assert "greedy answers to retain rows – 0.710 – 0.920" in table
    assert "forget quality" not in table, "no winner has it"
    assert "The evidence" not in report(study(trial(0, feasible=False)), tmp_path).text


def test_the_first_sentence_and_the_winners_say_whether_it_is_forgotten(tmp_path: Path) -> None:
    holds = CriterionRecord(metric="forget_quality", value=0.4, bound="at least 0.05", holds=True)
    fails = CriterionRecord(metric="utility", value=0.3, bound="at least 0.54 (0.9 start)", holds=False, start=0.6)
    partly = VerdictRecord(forgotten="partly", criteria=(holds, fails))
    knee = trial(0, 0.2, 0.3, pareto_rank=0, forgotten=partly)
    why = "utility 0.3 (-50 %), at least 0.54 (0.9 start)"
    page = report(study(knee, aliases={"knee": 0}), tmp_path)
    said = f"Partly forgotten: none of 1 winner meets every criterion. Trial 0 fails 1 of 2: {why}. What was done"
    assert said in page.text
    assert f"partly {why}" in page.text.partition("The winners")[2]
    passed = trial(1, 0.3, 0.5, pareto_rank=0, forgotten=VerdictRecord(forgotten="yes", criteria=(holds,)))
    page = report(study(knee, passed, aliases={"knee": 0}), tmp_path)
    assert "Forgotten: trial 1 meets every criterion. Trial 1: forget quality 0.4, at least 0.05." in page.text
    assert "lethe promote 0123456789abcdef 1 --as champion" in page.text, "the best verdict wins, not the knee"


def test_the_console_says_that_nothing_is_on_the_front(capsys: pytest.CaptureFixture[str]) -> None:
    Console().finish(study(trial(0, 0.2, 0.3)), None, [])
    assert "no trial is on the front: 1 of 1 completed" in capsys.readouterr().out


def test_the_console_names_what_fails(capsys: pytest.CaptureFixture[str]) -> None:
    fails = CriterionRecord(metric="forget_quality", value=3e-8, bound="at least 0.05", holds=False)
    knee = trial(0, 0.2, 0.3, pareto_rank=0, forgotten=VerdictRecord(forgotten="no", criteria=(fails,)))
    Console().finish(study(knee, aliases={"knee": 0}), None, [])
    shown = capsys.readouterr().out
    assert "forgotten" in shown
    assert "trial 0 (knee): not forgotten: forget quality 3e-08, at least 0.05" in shown


def test_the_console_speaks_of_the_best_verdict_not_of_the_knee(capsys: pytest.CaptureFixture[str]) -> None:
    fails = CriterionRecord(metric="privleak_distance", value=26, bound="at most 10", holds=False)
    verdicts = (VerdictRecord(forgotten="partly", criteria=(fails,)), VerdictRecord(forgotten="yes", criteria=()))
    knee, other = (trial(n, 0.2 - n / 10, 0.3, pareto_rank=0, forgotten=v) for n, v in enumerate(verdicts))
    Console().finish(study(knee, other, aliases={"knee": 0, "best-forget": 1}), None, [])
    assert "trial 1 (best-forget): forgotten\n" in capsys.readouterr().out


@pytest.mark.parametrize("made", [busy_study, comparison_study])
def test_pages_run_only_our_scripts_and_fetch_nothing(tmp_path: Path, made: Callable[..., StudyRecord]) -> None:
    record = made(space="tofu")
    record = record.model_copy(update={"study": {**record.study, "name": EVIL, "note": "</pre><script>1</script>"}})
    report(record, tmp_path, store="http://host/'\"><script>", model="m")
    for name, scripts in (("report.html", 3), ("front.html", 0)):
        text = (tmp_path / name).read_text()
        page = Page(text)
        assert not {"iframe", "object", "link", "img"} & set(page.tags)
        assert page.tags.count("script") == scripts
        assert not [key for key, _ in page.attributes if key.startswith("on") or key == "src"]
        files = {path.name for path in tmp_path.iterdir()} | {"http://host/'\"><script>"}
        assert {link for key, link in page.attributes if key == "href" and not link.startswith("#")} <= files
        assert page.attributes_of("content").count("default-src 'none'") == 1
        assert not re.search(r"(?:url\(|@import)", text)
    text = (tmp_path / "report.html").read_text()
    (code,) = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}' 'sha256-" in Page(text).attributes_of("content")
    assert EVIL in Page(text).text


@pytest.mark.parametrize("record", [busy_study(), comparison_study(), comparison_study("tdec")])
def test_drawings_are_well_formed(tmp_path: Path, record: StudyRecord) -> None:
    report(record, tmp_path)
    pages = "".join((tmp_path / name).read_text() for name in ("report.html", "front.html"))
    drawings = re.findall(r"<svg.*?</svg>", pages, flags=re.S)
    assert len(drawings) > 4
    for drawing in drawings:
        for element in ElementTree.fromstring(drawing).iter():
            for key in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"):
                assert math.isfinite(float(element.get(key, "0")))
            assert float(element.get("width", "1")) > 0
    assert "nan" not in "".join(drawings).lower()


def test_files_beside_the_page(tmp_path: Path) -> None:
    record = busy_study()
    report(record, tmp_path)
    again = StudyRecord.model_validate_json((tmp_path / "study.json").read_text())
    assert again.model_dump_json() == record.model_dump_json()
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert [int(row["number"]) for row in rows] == list(range(9))
    assert rows[2]["aliases"] == "knee"
    assert rows[2]["front"] == "True"
    assert rows[3]["front"] == "False"
    assert float(rows[2]["metrics.forget"]) == record.trials[0].metrics["forget"]
    assert float(rows[1]["params.optimizer.learning_rate"]) == 2e-4
    assert EVIL in rows[6]["reason"]
    assert math.isnan(float(rows[6]["metrics.forget"]))
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o644


def test_a_report_of_200_trials_is_below_5_mb() -> None:
    metrics = {name: 0.123456789 * rank for rank, name in enumerate(TOFU_METRICS, start=1)}
    answers = tuple(sample(f"{number} " + "a long answer " * 20) for number in range(11))
    trials = [trial(n, 0.1 + n / 400, 0.4 + n / 1000, samples=answers, pareto_rank=n % 5) for n in range(200)]
    full = [t.model_copy(update={"metrics": t.metrics | metrics, "series": 5 * t.series[-1:]}) for t in trials]
    assert len(render_pages(study(*full))["report.html"]) < 5e6


BROKEN = trial(0, verdict="error", reason="x", metrics={}, series=(), feasible=False)


@pytest.mark.parametrize("trials", [(), (BROKEN,)])
def test_study_without_a_complete_trial(tmp_path: Path, trials: tuple) -> None:
    page = report(study(*trials, oracle=None, interrupted=True), tmp_path)
    assert "No trial completed." in page.text
    assert "The study was interrupted." in page.text
    assert "lethe sweep 0123456789abcdef --resume" in page.text


def test_all_trials_below_a_floor_or_in_one_point(tmp_path: Path) -> None:
    page = report(study(trial(0, feasible=False), oracle=None), tmp_path)
    assert "No trial is better than every floor." in page.text
    goals = tuple(ObjectiveRecord(metric=m, direction=d) for m, d in (("forget", "minimize"), ("utility", "maximize")))
    nobody = ModelScores(metrics={})
    alone = study(trial(0, 0.0, 0.0, pareto_rank=0), objectives=goals, start=nobody, oracle=None)
    assert "Trial 0: forget 0, utility 0." in report(alone, tmp_path).text


def test_one_objective_three_objectives_and_swapped_ones(tmp_path: Path) -> None:
    one = report(busy_study(objectives=busy_study().objectives[1:]), tmp_path)
    assert "5 complete" in one.text
    cost = ObjectiveRecord(metric="seconds", direction="minimize")
    three = report(busy_study(objectives=(*busy_study().objectives, cost)), tmp_path)
    assert "The study has 3 objectives; the first two are drawn." in three.text
    turned = report(busy_study(objectives=busy_study().objectives[::-1]), tmp_path)
    assert "knee · trial 2" in turned.text


def test_a_failed_write_leaves_the_old_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report(study(trial(0)), tmp_path)
    before = (tmp_path / "report.html").read_text()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(UserError, match="No space left"):
        write_report(busy_study(), tmp_path)
    assert (tmp_path / "report.html").read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_report(study(), tmp_path / "file" / "report")
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(UserError, match="cannot write"):
            write_report(study(), tmp_path / "report")


def test_pictures_of_all_kinds_of_studies() -> None:
    goals = busy_study().objectives
    records = [busy_study(space="$x^{"), study(), busy_study(objectives=goals[1:]), busy_study(objectives=goals[::-1])]
    pictures = [front_png(record) for record in [*records, comparison_study()]]
    pictures += [comparison_png(comparison_study()), comparison_png(comparison_study("tdec"))]
    for picture in pictures:
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000
