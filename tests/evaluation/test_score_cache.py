"""Scores are found again by what they depend on, and by nothing else."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lethe.config.benchmark import TofuBenchmark
from lethe.config.run import Engine, Evaluation, LmEval
from lethe.evaluation.score_cache import Measurement, Scores, load_scores, store_scores

SCORES = Scores(metrics={"forget": 0.25, "utility": 1 / 3}, reference=[0.5, math.nan, math.inf])


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))


def measurement(**changes: object) -> Measurement:
    values = {
        "benchmark": TofuBenchmark(),
        "model": "m",
        "tokenizer": "t",
        "data": "d",
        "prompt": "p",
        "evaluation": Evaluation(),
        "engine": Engine(),
        "ranks": 1,
    }
    return Measurement.of(**(values | changes))


def test_what_was_stored_is_read_back_to_the_last_bit() -> None:
    assert load_scores(measurement()) is None
    store_scores(measurement(), SCORES)
    found = load_scores(measurement())
    assert found is not None
    assert found.metrics == SCORES.metrics
    assert repr(found.reference) == repr(SCORES.reference)


def test_files_of_the_cache_call_reference_values_truth() -> None:
    store_scores(measurement(), SCORES)
    assert "truth" in json.loads(json.loads(measurement().path.read_text())["scores"])


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "other"},
        {"tokenizer": "other"},
        {"data": "other"},
        {"ranks": 2},
        {"prompt": "other"},
        {"reference": "start"},
        {"engine": Engine(threads=2)},
        {"engine": Engine(device="cuda")},
        {"engine": Engine(precision="bf16")},
        {"precision": "fp16"},
        {"evaluation": Evaluation(max_rows=5)},
        {"evaluation": Evaluation(token_budget=64)},
        {"evaluation": Evaluation(max_new_tokens=5)},
    ],
    ids=str,
)
def test_what_changes_the_numbers_is_another_measurement(changes: dict) -> None:
    store_scores(measurement(), SCORES)
    assert load_scores(measurement(**changes)) is None


@pytest.mark.parametrize(
    "changes", [{"engine": Engine(stage=2)}, {"precision": "fp32"}, {"evaluation": Evaluation(every=3)}], ids=str
)
def test_settings_that_do_not_change_the_numbers_are_not_in_the_key(changes: dict) -> None:
    store_scores(measurement(), SCORES)
    found = load_scores(measurement(**changes))
    assert found is not None
    assert found.metrics == SCORES.metrics


def test_changed_code_of_the_evaluation_is_another_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    store_scores(measurement(), SCORES)
    monkeypatch.setattr("lethe.evaluation.score_cache.code_digest", lambda entries: "edited")
    assert load_scores(measurement()) is None


def test_harness_tasks_bring_the_harness_version_into_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"lm-eval": "1"}
    monkeypatch.setattr("lethe.evaluation.score_cache.version", lambda name: versions.get(name, "2"))
    asked = {"evaluation": Evaluation(lm_eval=LmEval(tasks=("a",)))}
    store_scores(measurement(**asked), SCORES)
    versions["lm-eval"] = "3"
    assert load_scores(measurement(**asked)) is None


def cut(text: str) -> str:
    return text[: len(text) // 2]


def another_number(text: str) -> str:
    return text.replace("0.25", "0.26")


def of_another(text: str) -> str:
    return json.dumps({**json.loads(text), "of": measurement(model="other").canonical()})


def not_a_mapping(text: str) -> str:
    return "[]"


@pytest.mark.parametrize("damage", [cut, another_number, of_another, not_a_mapping, lambda text: ""])
def test_a_damaged_file_is_measured_again(damage) -> None:
    store_scores(measurement(), SCORES)
    path = measurement().path
    text = path.read_text()
    path.write_text(damage(text))
    assert path.read_text() != text
    assert load_scores(measurement()) is None
    path.write_bytes(b"\xff\xfe")
    assert load_scores(measurement()) is None
    store_scores(measurement(), SCORES)
    assert load_scores(measurement()) is not None


def test_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store_scores(measurement(), SCORES), range(40)))
        assert all(pool.map(lambda _: load_scores(measurement()), range(40)))
    assert [path.name for path in measurement().path.parent.iterdir()] == [measurement().path.name]
