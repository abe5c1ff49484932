"""The store: what Optuna is told, what counts, and what a killed session leaves behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState
from pydantic import model_validator

from lethe.config import space
from lethe.config.run import Recipe
from lethe.config.study import Study
from lethe.errors import UserError
from lethe.search.study_store import InfeasibleProposalError, StudyStore

Make = Callable[..., Study]
DONE = {"verdict": "complete", "forget": 0.4, "utility": 0.5}


def open_store(study: Study, start: dict[str, float], storage: str | None = None, **options: Any) -> StudyStore:
    store = StudyStore(study, storage, **options)
    store.freeze(start)
    return store


def result(number: int) -> dict[str, Any]:
    """A made-up result, a function of the number."""
    forget, utility = np.random.default_rng(number).random(2)
    return {"verdict": "complete", "forget": float(forget), "utility": float(utility)}


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'deep' / 'studies.db'}"


REPORTS = [
    (DONE, TrialState.COMPLETE, "complete", None),
    ({**DONE, "full_budget": False}, TrialState.PRUNED, "stopped", None),
    ({**DONE, "verdict": "stopped"}, TrialState.PRUNED, "stopped", None),
    ({"forget": 0.5, "utility": 0.5, "epoch": 2}, TrialState.PRUNED, "stopped", None),
    ({**DONE, "utility": float("nan")}, TrialState.FAIL, "non_finite", "utility is nan"),
    ({**DONE, "forget": float("inf")}, TrialState.FAIL, "non_finite", "forget is inf"),
    ({"verdict": "complete", "forget": 0.4}, TrialState.FAIL, "non_finite", "utility is None"),
    ({"verdict": "diverged", "reason": "at step 7"}, TrialState.FAIL, "diverged", "at step 7"),
    ({"verdict": "out_of_memory", "reason": "9 GB"}, TrialState.FAIL, "out_of_memory", "9 GB"),
    ({"verdict": "lost"}, TrialState.FAIL, "lost", None),
]


@pytest.mark.parametrize(("report", "state", "verdict", "reason"), REPORTS)
def test_verdicts_become_optuna_states(
    make_study: Make, start: dict, report: dict, state: TrialState, verdict: str, reason: str | None
) -> None:
    store = open_store(make_study(), start)
    told = store.tell(store.ask().number, report)
    trial = store.optuna.trials[0]
    assert (trial.state, trial.user_attrs["verdict"], trial.user_attrs.get("reason")) == (state, verdict, reason)
    assert (told.name, told.state) == (verdict, state)
    assert trial.values == ([0.4, 0.5] if state == TrialState.COMPLETE else None)
    assert store.remaining(3) == 2
    assert store.pending == 0


def test_optunas_best_trials_are_our_front(make_study: Make, start: dict) -> None:
    """Floors reach the samplers as constraints, so Optuna's own tools agree with ours."""
    store = open_store(make_study(), start)
    for _ in range(30):
        number = store.ask().number
        store.tell(number, result(number))
    done = store.completed()
    front = [list(done)[row] for row in store.objectives.front(list(done.values()))]
    assert front
    assert {t.number for t in store.optuna.best_trials} == set(front)
    assert store.optuna.metric_names == ["forget", "utility"]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "gp"])
def test_every_sampler_takes_conditions_stops_failures_and_pending_trials(
    make_study: Make, start: dict, sampler: str
) -> None:
    """Two start-up trials, so that the model of past trials is at work in the last proposals."""
    store = open_store(make_study(search={"sampler": sampler, "startup_trials": 2, "population": 2}), start)
    waiting: list[int] = []
    for count in range(12):
        proposal = store.ask()
        assert isinstance(proposal.recipe, Recipe)
        waiting.append(proposal.number)
        if count % 2:
            number = waiting.pop(0)
            verdict = {1: "stopped", 3: "diverged"}.get(count, "complete")
            store.tell(number, {**result(number), "verdict": verdict})
    assert (store.pending, len(store.completed())) == (len(waiting), 4)


def test_a_recipe_that_breaks_a_rule_across_fields_is_infeasible_and_counts(
    make_study: Make, start: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Strict(Recipe):
        @model_validator(mode="after")
        def _rule(self) -> "Strict":
            if self.adapter.name == "full":
                raise ValueError("not the full model")
            return self

    monkeypatch.setattr(space, "Recipe", Strict)
    store = open_store(make_study(), start)
    refusals = []
    while store.remaining(8):
        try:
            store.tell(store.ask().number, DONE)
        except InfeasibleProposalError as error:
            refusals.append(str(error))
    assert all("not the full model" in refusal for refusal in refusals)
    failed = [t for t in store.trials() if t.user_attrs["verdict"] == "infeasible"]
    assert 0 < len(refusals) == len(failed) < 8
    assert all(t.state == TrialState.FAIL for t in failed)
    assert all(t.user_attrs["reason"] for t in failed)


def test_a_name_belongs_to_one_study(make_study: Make, start: dict, tmp_path: Path) -> None:
    open_store(make_study(), start, url(tmp_path), name="mine")
    more = make_study(search={"sampler": "tpe", "startup_trials": 4, "population": 4, "trials": 99})
    assert open_store(more, start, url(tmp_path), name="mine").remaining(9) == 9
    other = make_study(search={"seed": 5})
    with pytest.raises(UserError, match="study mine was begun with another space"):
        StudyStore(other, url(tmp_path), name="mine")
    assert open_store(other, start, url(tmp_path)).name == f"test-{other.identity()}"


def test_asking_before_the_floors_are_frozen_is_an_error(make_study: Make) -> None:
    with pytest.raises(RuntimeError, match="freeze"):
        StudyStore(make_study()).ask()
