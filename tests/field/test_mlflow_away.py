"""MLflow's store fails in the middle of a study: a line of ours each, none of MLflow's, and an end in time."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from lethe.tracking import mlflow_tracker
from lethe.tracking.mlflow_tracker import MlflowTracker
from tests.tracking.conftest import empty_database, report, uri  # noqa: F401  # fixtures
from tests.tracking.studies import study, trial


@pytest.mark.parametrize("limit", [60.0, 0.0])
def test_a_store_that_fails_is_a_line_of_ours_and_is_given_up(
    uri: str,  # noqa: F811
    report: Path,  # noqa: F811
    limit: float,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(mlflow_tracker, "GIVE_UP_S", limit)
    record = study(trial(0), trial(1))
    tracker = MlflowTracker(uri, register_models=False)
    tracker.begin(record)
    deadline = time.monotonic() + 60
    while tracker._store is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        database.execute("ALTER TABLE metrics RENAME TO away")
    for ended in record.trials:
        tracker.trial_began(ended.number, ended.run, ended.params)
        tracker.trial_ended(ended)
    tracker.finish(record, report)
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert all("\n" not in message for message in caplog.messages)
    assert "not everything is in MLflow: " in caplog.text
    assert ("it has taken nothing for 0 s, so the rest was not sent" in caplog.text) == (limit == 0)
