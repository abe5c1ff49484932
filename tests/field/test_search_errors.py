"""An error in a method that Ray Tune calls ends the search, with the first error, and hangs nothing."""

from __future__ import annotations

import pickle
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from ray import tune

from lethe.errors import StudyBrokenError
from lethe.records import TrialRecord
from lethe.search import storages
from lethe.search.study_store import StudyStore
from lethe.study.first_error import FirstError
from lethe.study.recorder import Recorder
from lethe.study.tune_loop import tune_study
from lethe.tracking.base import NullTracker
from tests.field.test_storage_outages import locked
from tests.study.test_stopping import FORGET, START, pool, sweep  # noqa: F401  # a fixture


class Fails(tune.Callback):
    """A callback with one error, and a method of its own."""

    def __init__(self) -> None:
        self.calls = 0

    def on_trial_result(self, **info: Any) -> None:
        self.calls += 1
        raise ValueError(self.calls)

    def on_trial_complete(self, **info: Any) -> None:
        self.calls += 1

    def own(self) -> None:
        raise OSError("not Tune's")


def test_the_first_error_is_kept_and_raised_before_the_next_step() -> None:
    first = FirstError()
    called = first.guard(Fails())
    first.on_step_begin(0, [])
    called.on_trial_complete()
    for _ in range(3):
        assert called.on_trial_result() == "CONTINUE"
        called.on_trial_complete()
    assert called.calls == 2, "nothing comes through after an error"
    with pytest.raises(ValueError, match="2"):
        first.on_step_begin(1, [])
    with pytest.raises(OSError, match="not Tune's"):
        called.own()
    assert pickle.loads(pickle.dumps(first)).__dict__ == {}


@pytest.mark.slow
def test_a_database_locked_during_a_search_delays_it_or_ends_it(
    pool: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part, database = sweep(tmp_path, "early_stopping={name: none}"), tmp_path / "optuna.db"
    seconds = [2.5, 6.0]

    def search() -> bool:
        def after_two(record: TrialRecord | None) -> None:
            if record is not None and len(recorder.trials) % 4 == 2 and seconds:
                lock = locked(database, seconds.pop(0))
                lock.__enter__()
                locks.append(lock)

        locks: list[Any] = []
        store = StudyStore(part.study, f"sqlite:///{database}", "live")
        recorder = Recorder(pool.queue, NullTracker(), store.freeze(START), after_two)
        try:
            return tune_study(part, pool, store, recorder)
        finally:
            for lock in locks:
                lock.__exit__(None, None, None)

    monkeypatch.setattr(storages, "OUTAGE_S", 4.0)
    with pytest.raises(StudyBrokenError, match=f"storage sqlite:///{database} cannot be used: .*locked"):
        search()
    assert seconds == [], "the shorter lock was waited for"
    pool._stop_reason = None
    assert search() is False
    study = StudyStore(part.study, f"sqlite:///{database}", "live")
    assert len(study.trials()) == len(FORGET)
    assert {trial.state for trial in study.trials()} == {TrialState.COMPLETE}


@pytest.mark.slow
def test_a_database_locked_before_the_first_trial_ends_the_search(
    pool: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tune asks for a first proposal for ten minutes if it gets none."""
    part, database = sweep(tmp_path, "early_stopping={name: none}"), tmp_path / "optuna.db"
    store = StudyStore(part.study, f"sqlite:///{database}", "first")
    recorder = Recorder(pool.queue, NullTracker(), store.freeze(START), lambda record: None)
    monkeypatch.setattr(storages, "OUTAGE_S", 1.0)
    began = time.monotonic()
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StudyBrokenError, match=r"cannot be used: .*locked"):
            tune_study(part, pool, store, recorder)
    pool._stop_reason = None
    assert time.monotonic() - began < 60
