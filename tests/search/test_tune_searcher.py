"""The searcher by itself, as Tune drives it; no Ray cluster."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import ray
from optuna.trial import TrialState
from ray.tune.search import Searcher, SearchGenerator

from lethe.config.study import Study
from lethe.records import EpochReport, FinalReport
from lethe.search.study_store import InfeasibleProposalError, Proposal, StudyStore
from lethe.study.recorder import PLAN, REPORT, TrialPlan
from lethe.study.tune_searcher import Answered, StudySearcher
from tests.search.simulated import plan_for

LAST = FinalReport(verdict="complete", values={"forget": 0.4, "utility": 0.5})
DONE = {REPORT: LAST}


@pytest.fixture
def store(make_study: Callable[..., Study], start: dict[str, float]) -> StudyStore:
    store = StudyStore(make_study())
    store.freeze(start)
    return store


def number(searcher: StudySearcher, trial: str) -> int:
    config = searcher.suggest(trial)
    assert isinstance(config, dict)
    return config[PLAN].number


def test_the_searcher_waits_for_groups_and_finishes_at_the_budget(store: StudyStore) -> None:
    connected = ray.is_initialized()
    groups = [0]
    searcher = StudySearcher(store, 3, lambda: groups[0], plan_for)
    assert searcher.suggest("a") is None
    groups[0] = 2
    assert number(searcher, "a") == 0
    assert number(searcher, "b") == 1
    assert searcher.suggest("c") is None
    tunes = {"training_iteration": 2, "trial_id": "a", "done": True}
    searcher.on_trial_complete("a", {**tunes, **DONE})
    assert number(searcher, "c") == 2
    assert searcher.suggest("d") is None, "the last ones run"
    searcher.on_trial_complete("c", DONE)
    searcher.on_trial_complete("b", DONE)
    assert searcher.suggest("d") == Searcher.FINISHED
    assert store.remaining(3) == 0
    assert len(store.completed()) == 3
    assert ray.is_initialized() == connected, "the searcher needs no cluster"


def test_a_trials_end_becomes_its_verdict(store: StudyStore) -> None:
    searcher = StudySearcher(store, 9, lambda: 9, plan_for)
    for trial in "abcd":
        searcher.suggest(trial)
    searcher.on_trial_complete("a", {REPORT: FinalReport(verdict="diverged", reason="the loss is not finite")})
    searcher.on_trial_complete("b", {REPORT: EpochReport(values={"forget": 0.5, "utility": 0.5, "epoch": 1})})
    searcher.on_trial_complete("c", {"trial_id": "c", "pid": 1, "config/plan": "x"})
    searcher.on_trial_complete("c", DONE)  # told already
    searcher.on_trial_complete("unknown", DONE)
    verdicts = [t.user_attrs.get("verdict") for t in store.optuna.trials]
    assert verdicts == ["diverged", "stopped", "interrupted", None, None]
    assert store.remaining(9) == 7
    assert store.pending == 1
    store.interrupt_pending()
    assert TrialState.RUNNING not in [t.state for t in store.optuna.trials]


def test_a_new_tune_trial_replaces_a_dead_actors(store: StudyStore) -> None:
    searcher = StudySearcher(store, 2, lambda: 2, plan_for)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("c") == first
    assert store.pending == 2
    searcher.on_trial_complete("c", DONE)
    assert searcher.suggest("d") is None
    searcher.on_trial_complete("b", error=True)
    assert searcher.suggest("d") == second, "also for the last one"
    searcher.on_trial_complete("d", DONE)
    assert searcher.suggest("e") == Searcher.FINISHED
    assert len(store.completed()) == 2


def test_an_actor_that_died_after_its_trials_end_is_not_replaced(store: StudyStore) -> None:
    ended = {1: LAST}
    searcher = StudySearcher(store, 2, lambda: 2, plan_for, ended=lambda plan: ended.get(plan.number))
    first, _ = searcher.suggest("a"), searcher.suggest("b")
    searcher.on_trial_complete("b", error=True)
    assert list(store.completed()) == [1]
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("c") == first, "this one had not ended"


def test_known_results_are_told_at_once_within_the_budget(store: StudyStore) -> None:
    asked: list[int] = []

    def mostly_known(proposal: Proposal) -> TrialPlan | Answered:
        asked.append(proposal.index)
        return plan_for(proposal) if proposal.index == 2 else Answered(LAST)

    searcher = StudySearcher(store, 5, lambda: 1, mostly_known)
    assert number(searcher, "a") == 2
    assert asked == [0, 1, 2]
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", DONE)
    assert searcher.suggest("b") == Searcher.FINISHED
    assert asked == [0, 1, 2, 3, 4]
    assert len(store.completed()) == 5


def test_infeasible_proposals_spend_the_budget(store: StudyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = store.ask

    def impossible() -> None:
        store.tell(ask().number, {"verdict": "infeasible"})
        raise InfeasibleProposalError("no")

    monkeypatch.setattr(store, "ask", impossible)
    assert StudySearcher(store, 4, lambda: 1, plan_for).suggest("a") == Searcher.FINISHED
    assert [t.user_attrs["verdict"] for t in store.trials()] == ["infeasible"] * 4


def test_an_error_while_a_config_is_made_leaves_no_trial_running(store: StudyStore) -> None:
    searcher = StudySearcher(store, 4, lambda: 1, lambda proposal: {}[proposal.index])
    with pytest.raises(KeyError):
        searcher.suggest("a")
    assert store.pending == 0
    assert store.remaining(4) == 4


def test_tune_can_wrap_save_and_pickle_the_searcher(store: StudyStore, tmp_path: Any) -> None:
    connected = ray.is_initialized()
    searcher = StudySearcher(store, 2, lambda: 2, plan_for)
    generator = SearchGenerator(searcher)
    generator.save_to_dir(str(tmp_path), "session")
    generator.restore_from_dir(str(tmp_path))
    assert number(searcher, "a") == 0
    assert pickle.loads(pickle.dumps(searcher)).__dict__ == {}
    assert ray.is_initialized() == connected, "the searcher needs no cluster"
