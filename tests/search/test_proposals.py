"""Which points are proposed: those to try first, no point twice, costs as objectives."""

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from lethe.config.study import Study
from lethe.search.study_store import REASKS, StudyStore

Make = Callable[..., Study]
DONE = {"verdict": "complete", "forget": 0.4, "utility": 0.5}
FIRST = [
    {"optimizer.name": "adamw", "optimizer.learning_rate": 1e-4, "adapter.name": "full"},
    {"adapter.rank": 8, "adapter.name": "lora"},
]


def opened(study: Study, start: dict[str, float], url: str | None = None) -> StudyStore:
    store = StudyStore(study, url)
    store.freeze(start)
    return store


def test_points_to_try_first_come_first_and_once(make_study: Make, start: dict, tmp_path: Path) -> None:
    study = make_study(search={"sampler": "tpe", "first": FIRST})
    url = f"sqlite:///{tmp_path / 'a.db'}"
    store = opened(study, start, url)
    first = store.ask()
    assert first.params == FIRST[0]
    assert first.recipe.optimizer.name == "adamw"
    store.tell(first.number, DONE)
    resumed = opened(study, start, url)  # nothing is enqueued again
    second, third = resumed.ask(), resumed.ask()
    assert {key: second.params[key] for key in FIRST[1]} == FIRST[1]
    assert len(second.params) > 2, "the rest is proposed"
    assert [second.index, third.index] == [1, 2]
    assert third.params["optimizer.learning_rate"] != 1e-4
    assert make_study().identity() != study.identity()


def small(make_study: Make, **search: object) -> Study:
    space = {"adapter.rank": {"type": "choice", "choices": [4, 8, 16]}}
    return make_study(run={"adapter": {"name": "lora"}}, space=space, search={"sampler": "random", **search})


def test_an_equal_proposal_is_asked_again(make_study: Make, start: dict) -> None:
    """Three points in three trials: plain draws would find all of them 2 times in 9."""
    for seed in range(1, 5):
        store = opened(small(make_study, seed=seed), start)
        ranks = []
        while store.remaining(3):
            proposal = store.ask()
            ranks.append(proposal.params["adapter.rank"])
            store.tell(proposal.number, DONE)
        assert sorted(ranks) == [4, 8, 16]
        assert [t.user_attrs["index"] for t in store.trials()] == [0, 1, 2]
        dropped = [t for t in store.optuna.trials if t.state == TrialState.FAIL]
        assert all(t.user_attrs["verdict"] == "duplicate" for t in dropped)


def test_a_space_that_is_used_up_is_proposed_again_after_a_few_tries(make_study: Make, start: dict) -> None:
    store = opened(small(make_study, seed=2), start)
    for _ in range(6):
        store.tell(store.ask().number, DONE)
    assert store.remaining(6) == 0
    assert len(store.trials()) == 6
    assert [t.user_attrs["index"] for t in store.trials()] == list(range(6))
    dropped = len(store.optuna.trials) - 6
    assert dropped >= 3 * REASKS, "three of the six could not be new"


def test_duplicates_are_known_after_a_resume(make_study: Make, start: dict, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    ranks = []
    for _ in range(3):
        store = opened(small(make_study, seed=1), start, url)
        proposal = store.ask()
        ranks.append(proposal.params["adapter.rank"])
        store.tell(proposal.number, DONE)
    assert sorted(ranks) == [4, 8, 16]


def test_an_interrupted_trial_is_no_duplicate_of_itself(make_study: Make, start: dict) -> None:
    store = opened(make_study(), start)
    cut = store.ask()
    store.interrupted(cut.number)
    again = store.ask()
    assert (again.recipe, again.index) == (cut.recipe, cut.index)
    assert store.ask().index == 1


@pytest.mark.parametrize("cost", ["seconds", "peak_memory_mb", "tokens"])
def test_a_cost_is_an_objective_without_a_floor(make_study: Make, start: dict, cost: str) -> None:
    """The start model has none; the front is of three objectives, the hypervolume of those with floors."""
    objectives = make_study().model_dump()["objectives"] | {cost: {"direction": "minimize"}}
    store = opened(make_study(objectives=objectives, search={"sampler": "tpe", "startup_trials": 2}), start)
    for forget, price in ((0.4, 30.0), (0.5, 10.0), (0.5, 20.0)):
        store.tell(store.ask().number, {**DONE, "forget": forget, cost: price})
    store.tell(store.ask().number, DONE)
    assert store.trials()[-1].user_attrs["reason"] == f"{cost} is None"
    rows = list(store.completed().values())
    assert sorted(store.objectives.front(rows)) == [0, 1]
    assert store.objectives.hypervolume(rows) == pytest.approx((0.5 / 0.9) * (0.2 / 0.3))
    store.ask()
