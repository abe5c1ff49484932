"""Sessions that end early, however they end: nothing stays RUNNING, nothing is lost, nothing is proposed twice."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from lethe.config.study import Study
from lethe.search.study_store import StudyStore

pytestmark = pytest.mark.slow

Make = Callable[..., Study]
DONE = {"verdict": "complete", "forget": 0.4, "utility": 0.5}


def open_store(study: Study, start: dict[str, float], storage: Any = None) -> StudyStore:
    store = StudyStore(study, storage)
    store.freeze(start)
    return store


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'deep' / 'studies.db'}"


def test_an_interrupted_trial_does_not_count_and_is_asked_again(make_study: Make, start: dict) -> None:
    store = open_store(make_study(), start)
    first, second = store.ask(), store.ask()
    assert store.pending == 2
    assert store.remaining(5) == 5
    store.tell(first.number, {"verdict": "interrupted", "reason": "Ctrl-C"})
    assert store.interrupt_pending() == [second.number]
    assert store.pending == 0
    assert store.remaining(5) == 5
    assert store.trials() == []
    again = [store.ask(), store.ask()]
    assert [p.recipe for p in again] == [first.recipe, second.recipe]
    store.interrupted(again[0].number)
    assert store.ask().recipe == first.recipe
    assert store.remaining(5) == 5
    with pytest.raises(KeyError):
        store.tell(first.number, DONE)


def test_what_a_failing_storage_cut_off_is_ended_once(
    make_study: Make, start: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after a trial's end was stored, and before the trial was queued again or forgotten."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    store = open_store(make_study(), start, url(tmp_path))
    failed, finished = store.ask(), store.ask()
    with monkeypatch.context() as disk:
        disk.setattr(store.optuna, "add_trial", full)
        with pytest.raises(OSError, match="no space"):
            store.interrupted(failed.number)
    with monkeypatch.context() as disk:
        disk.setattr(store, "_remove_pending", full)
        with pytest.raises(OSError, match="no space"):
            store.tell(finished.number, DONE)
    assert store.interrupt_pending() == [failed.number, finished.number]
    assert store.ask().recipe == failed.recipe
    assert store.ask().recipe not in (failed.recipe, finished.recipe)
    assert [trial.values for trial in store.trials()] == [[0.4, 0.5]]


KILLED = """
import os, platform, sys
from lethe.config.study import Study
from lethe.search.study_store import StudyStore
store = StudyStore(Study.model_validate_json(sys.argv[1]), sys.argv[2])
store.freeze({"forget": 0.9, "utility": 0.6})
store.tell(store.ask().number, {"verdict": "complete", "forget": 0.4, "utility": 0.5})
print(store.ask().recipe.canonical())
print(store.ask().recipe.canonical(), flush=True)
store.optuna.ask()
os.kill(os.getpid(), 9)
"""


def test_after_a_kill_nothing_runs_nothing_is_lost_and_the_floors_stay(make_study: Make, tmp_path: Path) -> None:
    study, root = make_study(), Path(__file__).parents[2]
    command = [sys.executable, "-c", KILLED, study.model_dump_json(), url(tmp_path)]
    killed = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert killed.returncode == -9, killed.stderr
    for _ in range(2):  # opening twice repeats nothing twice
        store = StudyStore(study, url(tmp_path))
        states = [t.state for t in store.optuna.trials]
        assert states == [TrialState.COMPLETE] + [TrialState.FAIL] * 3 + [TrialState.WAITING] * 3
        assert store.remaining(4) == 3
    assert store.freeze({"forget": 0.1, "utility": 0.1}).start == {"forget": 0.9, "utility": 0.6}
    assert [store.ask().recipe.canonical() for _ in range(2)] == killed.stdout.split("\n")[:2]
    assert store.ask().params  # was killed before anything was suggested: suggested now


def test_a_recovery_that_was_killed_is_finished_by_the_next(make_study: Make, start: dict) -> None:
    store = open_store(make_study(), start)
    proposal = store.ask()
    store._note_end(proposal.number, "interrupted", "")
    store.optuna.tell(proposal.number, state=TrialState.FAIL)
    again = open_store(store.study, start, store._storage)
    assert again.ask().recipe == proposal.recipe


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_resumed_study_goes_on_as_if_it_had_not_been_interrupted(
    make_study: Make, start: dict, tmp_path: Path, sampler: str
) -> None:
    """Also: a resume does not propose again what the session before it proposed, as a seeded sampler would."""
    study = make_study(search={"sampler": sampler, "startup_trials": 4, "population": 4, "seed": 3})

    def go(store: StudyStore, trials: int) -> list[dict]:
        while store.remaining(trials):
            proposal = store.ask()
            store.tell(proposal.number, {**DONE, "forget": 0.9 * len(proposal.params) / 7})
        return [t.params for t in store.trials()]

    whole = go(open_store(study, start), 12)
    store = open_store(study, start, url(tmp_path))
    go(store, 7)
    store.ask()
    assert go(open_store(study, start, url(tmp_path)), 12) == whole
    if sampler != "nsga2":  # a child may equal its parent
        assert len({str(params) for params in whole}) == 12
