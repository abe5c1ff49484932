"""What can be wrong with one's own rows: one line before Ray starts that names the row and shows none of its text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lethe.benchmarks.base import load_benchmark
from lethe.cli.sweep import main
from lethe.config.own import OwnBenchmark
from lethe.config.run import Evaluation
from lethe.data.template import Template
from lethe.models.tokenizer import as_pretrained, train_tokenizer
from tests import tiny

SECRET = "w7 w11 w13"
ROWS = [{"question": f"w{i} w{i + 1}", "answer": f"w{i + 2} w{i + 3}"} for i in range(0, 30, 5)]
FORGET, RETAIN, HOLDOUT = [*ROWS[:2], {"question": "w1 w2", "answer": SECRET}], ROWS[2:4], ROWS[4:]


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    parts = {"forget": FORGET, "retain": RETAIN, "holdout": HOLDOUT}
    return {name: write(tmp_path / f"{name}.jsonl", rows) for name, rows in parts.items()}


def refused(sources: dict[str, str], capsys: pytest.CaptureFixture[str], model: Path, *more: str) -> str:
    given = [f"benchmark.{name}={source}" for name, source in sources.items()]
    sets = [part for assignment in (*given, f"model.path={model}", *more) for part in ("--set", assignment)]
    assert main(["own", *sets]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lethe:")]
    assert SECRET not in line
    return line


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


def test_rows_that_are_forgotten_and_kept_are_named(
    sources: dict[str, str], capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    sources["retain"] = write(tmp_path / "retain.jsonl", [*RETAIN, {"question": "W1  w2", "answer": SECRET}])
    line = refused(sources, capsys, model)
    assert "benchmark.forget: 1 of 3 rows are also in benchmark.retain" in line
    assert "forget.jsonl row 3 is retain.jsonl row 3" in line
    assert "benchmark.allow_overlap" in line
    load_benchmark(OwnBenchmark(**sources, allow_overlap=True))


def test_a_holdout_with_forget_rows_is_refused(
    sources: dict[str, str], capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    sources["holdout"] = write(tmp_path / "holdout.jsonl", [*HOLDOUT, FORGET[2]])
    line = refused(sources, capsys, model)
    assert "benchmark.holdout" in line
    assert "holdout.jsonl row 3 is forget.jsonl row 3" in line
    assert "unseen" in line


def test_a_holdout_of_another_kind_is_refused(
    sources: dict[str, str], capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    sources["holdout"] = write(tmp_path / "texts.jsonl", [{"text": "w1 w2 w3"}])
    line = refused(sources, capsys, model)
    assert "documents" in line
    assert "questions" in line


def test_general_text_must_be_text(
    sources: dict[str, str], capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    sources["general"] = write(tmp_path / "general.jsonl", ROWS[:1])
    assert "benchmark.general" in refused(sources, capsys, model)


def test_missing_files_empty_ones_and_columns_are_named(
    sources: dict[str, str], capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    assert "benchmark.retain: there is no nowhere.csv" in refused({**sources, "retain": "nowhere.csv"}, capsys, model)
    empty = write(tmp_path / "empty.jsonl", [])
    assert "has no rows" in refused({**sources, "forget": empty}, capsys, model)
    line = refused(sources, capsys, model, "benchmark.columns.answer=reply")
    assert "reply" in line
    assert "question" in line


def test_windows_longer_than_the_model_reads_are_refused_and_answers_counted_and_named(
    sources: dict[str, str], capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    texts = {name: write(tmp_path / f"{name}-texts.jsonl", [{"text": f"w{n} w2 w3"}]) for n, name in enumerate(sources)}
    line = refused(texts, capsys, model)
    assert "benchmark.window is 256" in line
    assert "64 tokens" in line
    long = {"question": "w1", "answer": " ".join(["w5"] * 80)}
    sources["forget"] = write(tmp_path / "long.jsonl", [*FORGET, long])
    line = refused(sources, capsys, model)
    assert "long.jsonl row 4" in line
    assert "longer than" in line


def test_objectives_that_ask_need_questions(
    sources: dict[str, str], capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    texts = {name: write(tmp_path / f"{name}-texts.jsonl", [{"text": f"w{n} w2 w3"}]) for n, name in enumerate(sources)}
    short = ("benchmark.window=32", "benchmark.overlap=8", "run.objective={name: preference_optimization}")
    assert "preference_optimization needs questions" in refused(texts, capsys, model, *short, "space=null")


def test_objectives_on_a_holdout_need_one(
    sources: dict[str, str], capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    del sources["holdout"]
    line = refused(sources, capsys, model, "objectives.mia_excess={direction: minimize}")
    assert "needs holdout" in line


def test_notes_say_what_cannot_be_claimed(sources: dict[str, str]) -> None:
    template = Template(as_pretrained(train_tokenizer(["w1 w2"], 400)))

    def notes(**given: str) -> str:
        return "\n".join(load_benchmark(OwnBenchmark(**given)).notes(Evaluation(), template))

    assert "its AUC lies between" in notes(**sources)
    del sources["holdout"]
    assert "there is no benchmark.holdout" in notes(**sources)
    assert "its AUC lies between" not in notes(**sources)
