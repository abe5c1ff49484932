"""What a terminal shows while a study runs and when it is over."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import pytest

from lethe.records import ModelScores, StudyRecord, VerdictRecord
from lethe.reporting.console import Console
from lethe.reporting.terminal_tables import format_settings
from lethe.terminal import Terminal
from tests.tracking.studies import busy_study, study, trial


@dataclass
class Running:
    series: list[dict[str, float]] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=lambda: {"schedule.epochs": 5, "schedule.max_steps": None})
    steps: tuple[int, int] = (0, 0)


@dataclass
class Search:
    trials: dict[int, Any]
    running: dict[int, Running]


def on(terminal: bool, width: int = 160) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(Terminal(file=text, force_terminal=terminal, width=width, soft_wrap=True)), text


def test_the_bar_says_where_each_running_trial_is_and_how_long_the_rest_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    console, text = on(terminal=True)
    now = [0.0]
    monkeypatch.setattr("lethe.reporting.console.time.monotonic", lambda: now[0])
    record = study(trial(0), study={"space": {"adapter.rank": {}}})
    running = {1: Running([{"epoch": 2.0, "optimizer_step": 20.0}], steps=(41, 75)), 2: Running(), 3: Running()}
    running |= {4: Running()}
    search = Search({0: trial(0)}, running)
    console.begin(record, search, remaining=4)
    now[0] = 90.0
    console.trial(search, trial(0))
    console.stop()
    shown = " ".join(text.getvalue().split())
    assert "trial 1: epoch 3/5, step 41/75, trial 2: begins" in shown
    assert "1 more" in shown
    assert "about 2.4 min left" in shown, "(4 - 1.55) trials of 90 s / 1.55"


def test_the_bar_moves_before_a_trial_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    console, text = on(terminal=True)
    now = [0.0]
    monkeypatch.setattr("lethe.reporting.console.time.monotonic", lambda: now[0])
    limited = {"schedule.epochs": 5, "schedule.max_steps": 30}
    search = Search({}, {0: Running(steps=(15, 60)), 1: Running(steps=(6, 30), params=limited)})
    console.begin(study(), search, remaining=3)
    now[0] = 45.0
    console.trial(search, None)
    console.stop()
    shown = " ".join(text.getvalue().split())
    assert "about 4.2 min left, trial 0: epoch 2/5, step 15/60, trial 1: step 6/30" in shown


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (busy_study(), "show 0123456789abcdef"),
        (busy_study(interrupted=True), "sweep 0123456789abcdef --resume"),
        (study(trial(0, feasible=False)), "show 0123456789abcdef"),
    ],
    ids=["finished", "interrupted", "no front"],
)
def test_the_last_line_is_a_command_alone(record: StudyRecord, command: str) -> None:
    console, text = on(terminal=False)
    console.finish(record, None, ["models, runs elsewhere"])
    console.next_step(record)
    assert text.getvalue().splitlines()[-1] == f"lethe {command}"


def test_an_empty_front_is_one_sentence_that_names_the_floors() -> None:
    console, text = on(terminal=False)
    console.finish(study(trial(0, 0.95, feasible=False), trial(1, verdict="diverged")), None, [])
    assert text.getvalue() == (
        "0123456789abcdef: no trial is on the front: 1 of 2 completed,"
        " and none of them is better than every floor (forget below 0.900, utility above 0.300)\n"
    )


def test_a_version_stays_whole_in_a_narrow_table() -> None:
    console, text = on(terminal=True, width=70)
    found = trial(0, pareto_rank=0, version="models:/lethe-tofu/12")
    console.finish(study(found, aliases={"knee": 0}), None, [])
    assert "models:/lethe-tofu/12" in text.getvalue()


@pytest.mark.parametrize(("name", "measured"), [("own", {}), ("own", {"mia_loss": 0.5}), ("tdec", {})])
def test_the_end_says_that_membership_is_not_claimed_where_unseen_rows_were_missing(
    name: str, measured: dict[str, float]
) -> None:
    verdict = VerdictRecord(forgotten="yes", criteria=())
    start = ModelScores(metrics={"forget": 1.0, "utility": 0.9, **measured})
    console, text = on(terminal=False)
    record = study(
        trial(0, pareto_rank=0, forgotten=verdict), study={"benchmark": {"name": name}, "space": {}}, start=start
    )
    console.finish(record, None, [])
    assert ("(membership) is not claimed" in text.getvalue()) == (name == "own" and not measured)


def test_a_trial_is_told_by_whatever_was_searched() -> None:
    done = trial(0).model_copy(update={"params": {"objective.settings.power": 2.5, "objective.retain": "kl"}})
    assert format_settings(done, {"objective.settings.power", "objective.retain"}) == "retain kl, power 2.5"
