"""Requests that a model answers already: written beside it, asked for by the next study, measured again."""

from __future__ import annotations

from pathlib import Path

import pytest

from lethe.benchmarks.base import load_benchmark
from lethe.benchmarks.measurement import measure, task_of, template_of
from lethe.cli.main import main
from lethe.config.run import Evaluation
from lethe.config.study import Study, load_study
from lethe.data.privacy import ShownText
from lethe.evaluation.distributed import RankShard
from lethe.models.loading import load_model
from lethe.records import REQUESTS
from lethe.study.lineage import answered, answered_by
from lethe.study.preparation import locate
from lethe.tracking.model_card import write_model_cards
from tests.cli.test_bad_input import refuses
from tests.cli.test_init import write_rows
from tests.tiny import write_model
from tests.tracking.studies import busy_study, trial


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a first and of a second request, rows to keep, and a model that answers the first."""
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name, rows in {"first": range(6), "second": range(10, 14), "retain": range(20, 30)}.items():
        write_rows(f"{name}.csv", rows)
    write_model(Path("start"))
    write_model(Path("runs/2/model"), seed=1)
    benchmark = load_benchmark(study("first").benchmark)
    member = trial(2, folder="runs/2", pareto_rank=0)
    write_model_cards(busy_study(trials=(member,), requests=answered("own-00000001", benchmark, Path("start"))))


def study(forget: str, *more: str, model: str = "start") -> Study:
    settings = {"benchmark.forget": f"{forget}.csv", "benchmark.retain": "retain.csv", "model.path": model}
    return load_study("own", [*(f"{key}={value}" for key, value in settings.items()), *more])


def check(study: Study) -> None:
    locate(study.benchmark, study.model, study.prompt)


def test_a_model_says_what_it_answers_and_the_next_one_says_both() -> None:
    (first,) = answered_by(Path("runs/2/model"))
    assert (first.study, len(first.rows)) == ("own-00000001", 6)
    second = answered("own-00000002", load_benchmark(study("second").benchmark), Path("runs/2/model"))
    assert [request.study for request in second] == ["own-00000001", "own-00000002"]
    assert "book" not in Path("runs/2/model", REQUESTS).read_text()


def test_the_next_study_wants_the_rows_of_the_requests_before(capsys: pytest.CaptureFixture[str]) -> None:
    check(study("second", "benchmark.earlier=first.csv", model="runs/2"))
    check(study("second", "benchmark.ignore_earlier=true", model="runs/2"))
    check(study("second"))
    options = ["--set", "benchmark.forget=second.csv", "--set", "benchmark.retain=retain.csv"]
    line = refuses(capsys, "sweep", "own", *options, "--set", "model.path=runs/2", command=main)
    assert "forgot 6 rows in study own-00000001, of which 6 are not in benchmark.earlier" in line
    write_rows("some.csv", range(4))
    options += ["--set", "model.path=runs/2", "--set", "benchmark.earlier=some.csv"]
    line = refuses(capsys, "sweep", "own", *options, command=main)
    assert "of which 2 are not in benchmark.earlier (the first is its row 5)" in line


def test_rows_of_earlier_requests_cannot_be_kept(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--set", "benchmark.forget=second.csv", "--set", "benchmark.retain=first.csv"]
    given = [*options, "--set", "benchmark.earlier=first.csv", "--set", "model.path=runs/2"]
    assert "they would stay forgotten and be kept" in refuses(capsys, "sweep", "own", *given, command=main)


def test_a_damaged_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/2/model", REQUESTS).write_text('[{"study": 1}]')
    options = ["--set", "benchmark.forget=second.csv", "--set", "benchmark.retain=retain.csv"]
    line = refuses(capsys, "sweep", "own", *options, "--set", "model.path=runs/2", command=main)
    assert f"{REQUESTS}: does not say which requests the model answers" in line


def test_earlier_rows_are_measured_as_rows_to_forget_are() -> None:
    def metrics(asked: Study) -> dict[str, float]:
        benchmark = load_benchmark(asked.benchmark)
        model = load_model(Path("start"))
        task = task_of(benchmark, template_of(Path("start")), model)
        evaluation = Evaluation(max_new_tokens=8, rouge="unicode")
        return measure(model, task, task.eval_set(evaluation), evaluation, RankShard()).metrics

    both = metrics(study("second", "benchmark.earlier=first.csv"))
    assert both["earlier_found"] == pytest.approx(metrics(study("first"))["forget_found"], rel=1e-6)
    assert "earlier_found" not in metrics(study("second"))
    assert study("second").criteria()["earlier_found"].at_most == "start + 0.05"


def test_text_of_earlier_rows_is_as_private_as_that_of_the_rows_to_forget() -> None:
    benchmark = load_benchmark(study("second", "benchmark.earlier=first.csv").benchmark)
    private = set(benchmark.texts(forget_only=True))
    assert {text for texts in (*benchmark.forget_texts, *benchmark.earlier_texts) for text in texts} <= private
    assert "Who wrote book 20?" not in private
    assert "Who wrote book 20?" in set(benchmark.texts(forget_only=False))
    columns = {"split": ["earlier", "retain"], "answer": ["It was author 3.", "Nobody."]}
    assert ShownText("redact", lambda: private).columns(columns)["answer"] == [None, "Nobody."]
