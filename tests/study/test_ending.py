"""The rules that end a study, told trial by trial."""

import pytest

from lethe.config.search import Stop
from lethe.config.study import load_study
from lethe.search.study_store import StudyStore
from lethe.study.tune_loop import Ending


@pytest.fixture
def store() -> StudyStore:
    store = StudyStore(load_study("tofu", ["search.sampler=random"]))
    store.freeze({"forget": 0.8, "utility": 0.9})
    return store


def test_no_growth_counts_every_trial_since_the_hypervolume_grew(store: StudyStore) -> None:
    ends = Ending(Stop(no_growth=3), store)
    grew = {"verdict": "complete", "utility": 0.8}
    told = [
        {"forget": 0.5},
        {"forget": 0.6},
        {"verdict": "diverged"},
        {"forget": 0.4},
        {"forget": 0.79, "utility": 0.1},
        {"verdict": "stopped"},
        {"forget": 0.4},
    ]
    answers = []
    for report in told:
        answers.append(ends())
        store.tell(store.ask().number, {**grew, **report})
    assert answers == [False] * 7
    assert ends.reason == ""
    assert ends()
    assert ends()
    assert ends.reason == "the hypervolume has not grown in 3 trials"


def test_a_young_study_and_one_without_rules_go_on(store: StudyStore) -> None:
    without, strict = Ending(Stop(), store), Ending(Stop(no_growth=2), store)
    for _ in range(3):
        assert not without()
        assert not strict()
        store.tell(store.ask().number, {"verdict": "diverged"})
    assert not without()
    assert strict(), "nothing in three trials, the first of which began the count"


def test_time(store: StudyStore) -> None:
    assert Stop(hours=2, minutes=90).seconds == 5400
    assert Stop(hours=1).seconds == 3600
    assert Stop().seconds is None
    assert not Ending(Stop(minutes=60), store)()
    late = Ending(Stop(minutes=1e-9), store)
    assert late()
    assert late.reason == "the search has taken 1e-09 minutes"
