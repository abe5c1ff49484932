"""A study held in memory: what the storage has is what memory has, and few statements bring it there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from sqlalchemy import event

from lethe.config.study import Study
from lethe.search.database import Database
from lethe.search.storages import open_storage
from lethe.search.study_store import InfeasibleProposalError, StudyStore

Make = Callable[..., Study]
DONE = {"verdict": "complete", "forget": 0.4, "utility": 0.5}
MOST_STATEMENTS = 22  # of a trial with up to six parameters; by Optuna's own calls there were 69 to 93


def opened(study: Study, start: dict[str, float], url: str) -> tuple[StudyStore, BaseStorage]:
    """A store on `url`, and the storage as another program opens it."""
    store = StudyStore(study, url, "mine")
    store.freeze(start)
    return store, open_storage(url)


def fields(trial: FrozenTrial) -> dict[str, Any]:
    names = ("number", "_trial_id", "state", "values", "params", "distributions", "user_attrs", "system_attrs")
    moments = {
        name: (at := getattr(trial, name)) and at.timestamp() for name in ("datetime_start", "datetime_complete")
    }
    return {name: getattr(trial, name) for name in names} | {
        name: at and pytest.approx(at, abs=2) for name, at in moments.items()
    }


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
@pytest.mark.parametrize("address", ["sqlite:///{}/a.db", "journal:{}/a.log"])
def test_another_program_reads_every_trial_as_it_is_in_memory(
    make_study: Make, start: dict, tmp_path: Path, address: str, sampler: str
) -> None:
    study = make_study(search={"sampler": sampler, "startup_trials": 2, "population": 3})
    store, storage = opened(study, start, address.format(tmp_path))
    ends = [DONE, {**DONE, "verdict": "stopped"}, {"verdict": "diverged", "reason": "NaN"}, {"verdict": "interrupted"}]
    for number in range(12):
        try:
            proposal = store.ask()
        except InfeasibleProposalError:
            continue
        store.note(proposal.number, run=f"run-{number}")
        if number % 6 != 5:
            store.tell(proposal.number, ends[number % 4] | {"utility": 0.5 + number / 100})
    held = store.optuna.get_trials(deepcopy=False)
    study_id = storage.get_study_id_from_name("mine")
    assert [fields(trial) for trial in storage.get_all_trials(study_id)] == [fields(trial) for trial in held]
    assert storage.get_study_system_attrs(study_id) == store._storage.get_study_system_attrs(study_id)
    assert storage.get_study_user_attrs(study_id) == store.optuna.user_attrs


def test_a_trial_takes_few_statements_of_a_database(make_study: Make, start: dict, tmp_path: Path) -> None:
    store, _ = opened(make_study(search={"startup_trials": 2}), start, f"sqlite:///{tmp_path}/a.db")
    statements: list[str] = []
    assert isinstance(store._stored, Database)

    @event.listens_for(store._stored._backend.engine, "before_cursor_execute")
    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    for _ in range(6):
        statements.clear()
        proposal = store.ask()
        store.note(proposal.number, run="a")
        store.tell(proposal.number, DONE)
        assert len(statements) <= MOST_STATEMENTS, "\n".join(statements)


def test_a_trial_that_is_written_again_since_the_answer_was_lost_stays_the_same(
    make_study: Make, start: dict, tmp_path: Path
) -> None:
    store, storage = opened(make_study(), start, f"sqlite:///{tmp_path}/a.db")
    proposal = store.ask()
    before = store.optuna.get_trials(deepcopy=False)[proposal.number]
    store.tell(proposal.number, DONE)
    after = store.optuna.get_trials(deepcopy=False)[proposal.number]
    assert isinstance(store._stored, Database)
    store._stored.write_trial(before, after)
    assert fields(storage.get_trial(after._trial_id)) == fields(after)


def test_a_tell_that_fails_midway_leaves_the_trial_running_in_memory_and_storage(
    make_study: Make, start: dict, tmp_path: Path
) -> None:
    store, storage = opened(make_study(), start, f"sqlite:///{tmp_path}/a.db")
    proposal = store.ask()
    before = store.optuna.get_trials(deepcopy=False)[proposal.number]
    assert isinstance(store._stored, Database)

    @event.listens_for(store._stored._backend.engine, "before_cursor_execute")
    def fail(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "INSERT INTO trial_values" in statement:  # after verdict and constraints
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.tell(proposal.number, DONE)
    assert store.optuna.get_trials(deepcopy=False)[proposal.number] is before
    assert fields(storage.get_trial(before._trial_id)) == fields(before)
    event.remove(store._stored._backend.engine, "before_cursor_execute", fail)
    store.tell(proposal.number, DONE)
    assert store.completed() == {proposal.number: [0.4, 0.5]}
