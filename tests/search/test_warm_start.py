"""Learning from an earlier study: what is taken, what is refused, and that it is nobody's result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from lethe.config.study import Study
from lethe.errors import UserError
from lethe.search.study_store import StudyStore
from lethe.search.warm_start import check_storage

Make = Callable[..., Study]
RATE = {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}


def opened(study: Study, start: dict[str, float], name: str) -> StudyStore:
    store = StudyStore(study, study.search.storage, name)
    store.freeze(start)
    return store


@pytest.fixture
def url(make_study: Make, start: dict, tmp_path: Path) -> str:
    """A storage with a study "old" of 6 complete trials, one stopped and one diverged."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    store = opened(make_study(search={"sampler": "random", "storage": url}), start, "old")
    for i in range(8):
        verdict = {6: "stopped", 7: "diverged"}.get(i, "complete")
        store.tell(store.ask().number, {"verdict": verdict, "forget": 0.1 * i, "utility": 0.4})
    return url


def warm(make_study: Make, url: str, **sections: Any) -> Study:
    search = {"sampler": "tpe", "startup_trials": 5, "warm_start": "old", "storage": url}
    return make_study(search=search, **sections)


def test_earlier_trials_inform_the_sampler_and_are_no_results(make_study: Make, start: dict, url: str) -> None:
    study = warm(make_study, url)
    check_storage(study)
    for _ in range(2):  # a resume takes nothing twice
        store = opened(study, {"forget": 0.45, "utility": 0.6}, "new")
        taken = [t for t in store.optuna.trials if "from" in t.user_attrs]
        assert [t.state for t in taken] == [TrialState.COMPLETE] * 6 + [TrialState.PRUNED]
        assert store.remaining(4) == 4
        assert store.trials() == []
        assert store.completed() == {}
    assert [max(t.constraints.values()) <= 0 for t in taken[:6]] == [True] * 5 + [False], "by this study's floors"
    proposal = store.ask()
    assert proposal.index == 0
    cold = opened(make_study(search={"sampler": "tpe", "startup_trials": 5}), start, "cold").ask()
    assert cold.params != proposal.params, "no start-up: six results are known"


def test_trials_outside_a_narrower_range_are_left_out(make_study: Make, start: dict, url: str) -> None:
    space = {**make_study().model_dump()["space"], "optimizer.learning_rate": {**RATE, "low": 1e-4}}
    store = opened(warm(make_study, url, space=space), start, "new")
    rates = [t.params["optimizer.learning_rate"] for t in store.optuna.trials]
    assert 0 < len(rates) < 7
    assert min(rates) >= 1e-4


def refused(make_study: Make, url: str, **sections: Any) -> str:
    with pytest.raises(UserError) as error:
        check_storage(warm(make_study, url, **sections))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_earlier_study_that_does_not_fit_is_refused_in_one_line(make_study: Make, url: str) -> None:
    space = make_study().model_dump()["space"]
    without = {key: value for key, value in space.items() if key != "adapter.rank"}
    line = refused(make_study, url, space=without)
    assert line.startswith("search.warm_start: old searched adapter.rank, which this study does not")
    line = refused(make_study, url, space={**space, "adapter.rank": {"type": "choice", "choices": [4, 8, 16]}})
    assert "old searched adapter.rank over" in line
    assert "(4, 8, 16)" in line
    narrow = {**RATE, "low": 9.999e-3}
    line = refused(make_study, url, space={**space, "optimizer.learning_rate": narrow})
    assert line == "search.warm_start: old has no finished trial inside this study's space"
    line = refused(make_study, url, objectives={"forget": {"direction": "minimize"}})
    assert line == "search.warm_start: old searched to minimize forget, maximize utility, this study to minimize forget"
    study = make_study(search={"sampler": "tpe", "warm_start": "odl", "storage": url})
    with pytest.raises(UserError, match=r"unknown study in search.warm_start 'odl' \(did you mean 'old'\?\)"):
        check_storage(study)
