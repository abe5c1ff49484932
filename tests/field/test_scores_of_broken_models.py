"""`score` says which models are broken, marks none of their values, and marks what is best: privleak at 0."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lethe.cli.score import main
from lethe.config.metrics import TOFU_METRICS
from lethe.config.study import load_study
from lethe.errors import UserError
from lethe.models.loading import load_model
from lethe.reporting.score_table import best_models
from lethe.study.scored_models import ScoredModel
from lethe.study.scoring import Scoring
from tests import tiny


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    tiny.write_data(tmp_path / "data")
    for seed, name in enumerate(("one", "two", "oracle")):
        tiny.write_model(tmp_path / name, seed)


def change(name: str, head: float, norm: float = 1.0) -> None:
    """Another model from `two`: its head and its last norm times a factor."""
    model = load_model(Path("two"))
    with torch.no_grad():
        model.lm_head.weight.mul_(head)
        model.model.norm.weight.mul_(norm)
    shutil.copytree("two", name)
    model.save_pretrained(name)


def score(capsys: pytest.CaptureFixture[str], *models: str) -> tuple[dict, str, str]:
    target = Path("scores.json")
    settings = ["--source", "data", "--oracle", "oracle", "--set", "run.evaluation.max_new_tokens=5"]
    assert main([*models, *settings, "--json", str(target)]) == 0
    shown = capsys.readouterr()
    return json.loads(target.read_text()), shown.out, " ".join(shown.err.split())


def stars(table: str) -> list[int]:
    """In which of two columns of models each star stands."""
    rows = [line.split("│") for line in table.splitlines() if line.count("│") > 3]
    return [column for cells in rows for column in (0, 1) if "*" in cells[2 + column]]


def test_models_that_predict_nothing_are_named_and_have_no_star(capsys: pytest.CaptureFixture[str]) -> None:
    change("saturated", 1e6)
    change("overflowing", 1e30, norm=1e30)
    for name, reason in (("saturated", "are saturated: every answer costs more"), ("overflowing", "are not numbers")):
        found, table, notes = score(capsys, "one", name)
        assert f"{name}: its likelihoods {reason}" in notes
        assert reason in found["models"][1]["fault"]
        assert "fault" not in found["models"][0]
        assert set(stars(table)) <= {0}
    _, table, notes = score(capsys, "one", "two")
    assert "likelihoods" not in notes
    assert set(stars(table)) == {0, 1}


def test_a_model_given_twice_is_scored_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    original = Scoring._measure

    def measure(self: Scoring, model: ScoredModel, *given: Any) -> Any:
        measured.append(model.name)
        return original(self, model, *given)

    monkeypatch.setattr(Scoring, "_measure", measure)
    Path("link").symlink_to("one")
    found, _, _ = score(capsys, "one", "two", "./one", "link", "one")
    assert [model["model"] for model in found["models"]] == ["one", "two"]
    assert measured == ["oracle", "one", "two"]


def test_privleak_is_best_at_zero() -> None:
    assert best_models([30.0, -2.0, -50.0], TOFU_METRICS["privleak"]) == [False, True, False]
    assert best_models([2.0, -2.0, 50.0], TOFU_METRICS["privleak"]) == [True, True, False]
    with pytest.raises(UserError, match=r"objectives.privleak: it is best at 0: search privleak_distance"):
        load_study("tofu", ["objectives.privleak={direction: maximize}"])


def test_a_cap_below_the_answers_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, notes = score(capsys, "one")
    assert "answers are longer than run.evaluation.max_new_tokens, 5, the longest has 7 tokens" in notes
