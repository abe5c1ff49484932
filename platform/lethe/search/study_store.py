"""Optuna's study for one of ours: found or created under its name, and known to be the same.

Which of a study's trials are under way, by index, and which recipes were proposed.

A study's proposals and results, kept in Optuna's own storage: the truth that a resume starts from. No Ray.

When the store hears of a result: at once, or in an order that does not depend on who was faster.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import optuna
from lethe.config.run import Recipe
from lethe.config.space import Scalar
from lethe.config.study import Study
from lethe.config.validation_errors import to_user_error
from lethe.errors import UserError
from lethe.search.objectives import ObjectiveSpace
from lethe.search.samplers import make_sampler
from lethe.search.space import build_recipe, from_trial, rebuild
from lethe.search.storages import open_storage
from lethe.search.trial_state import (
    DUPLICATE,
    INTERRUPTED,
    TrialOutcome,
    counts,
    is_duplicate,
    not_repeated,
    repeat,
    trial_outcome,
)
from lethe.search.warm_start import add_earlier_trials
from optuna.storages import BaseStorage
from optuna.trial import BaseTrial, FrozenTrial, TrialState
from pydantic import ValidationError


def open_or_create_study(study: Study, storage: BaseStorage, name: str) -> optuna.Study:
    """The study with its points to try first enqueued. Raises BadInput for a name that another study has."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=[goal.direction for goal in study.objectives.values()],
        load_if_exists=True,
    )
    _identify(found, study)
    _enqueue_first(found, study)
    return found


def _identify(found: optuna.Study, study: Study) -> None:
    identity, known = study.identity(), found.user_attrs.get("identity")
    if known is None:
        found.set_user_attr("identity", identity)
        with warnings.catch_warnings():  # marked experimental; optuna-dashboard and the plots show the names
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            found.set_metric_names(list(study.objectives))
    elif known != identity:
        raise UserError(
            f"study {found.study_name} was begun with another space, run, objectives or seed ({known}, now {identity}): "
            "resume it as it was, or choose another name"
        )


def _enqueue_first(found: optuna.Study, study: Study) -> None:
    """Each point once, whatever was killed in between."""
    made = {trial.user_attrs.get("first") for trial in found.get_trials(deepcopy=False)}
    for number, point in enumerate(study.search.first):
        if number not in made:
            found.enqueue_trial(dict(point), user_attrs={"first": number})


class TrialIndex:
    """A trial's index is its place among the study's trials: Optuna's numbers also count what is no trial of the study,
    such as what was interrupted and repeated, or proposed twice. `open` has pending trials' numbers by index."""

    def __init__(self, study: Study, trials: Iterable[FrozenTrial]) -> None:
        self.open: dict[int, int] = {}
        self.next = 0
        self._recipes: set[str] = set()
        for trial in trials:
            if "index" in trial.user_attrs and not is_duplicate(trial):
                self.next = max(self.next, trial.user_attrs["index"] + 1)
            if counts(trial):
                self._recipes |= _digest(study, trial)

    def index(self, trial: BaseTrial) -> int:
        """A repeated trial's own, else the next."""
        return trial.user_attrs.get("index", self.next)

    def begin(self, index: int, number: int, recipe: Recipe | None) -> None:
        """A trial of the study was asked for; `recipe` is None if it cannot run."""
        self.next = max(self.next, index + 1)
        self.open[index] = number
        if recipe is not None:
            self._recipes.add(recipe.digest())

    def end(self, number: int) -> None:
        """It is not pending any more."""
        self.open = {index: other for index, other in self.open.items() if other != number}

    def knows(self, recipe: Recipe) -> bool:
        """Whether an equal one was proposed before."""
        return recipe.digest() in self._recipes


def _digest(study: Study, trial: FrozenTrial) -> set[str]:
    try:
        return {rebuild(study, trial.params).digest()}
    except (KeyError, ValidationError):  # a proposal that broke a rule: it is told so again when it comes again
        return set()


REASKS = 10  # of a proposal that equals an earlier one


class Proposal(NamedTuple):
    """A trial that Optuna now has as RUNNING: Optuna's number, its recipe, what was suggested for it, and its index
    among the study's trials, which an interrupted trial and its repetition share."""

    number: int
    recipe: Recipe
    params: dict[str, Scalar]
    index: int


class InfeasibleProposal(Exception):
    """A proposal whose values break a rule across fields; it was told infeasible and counts as a trial."""


class StudyStore:
    """Asks and tells. One at a time may be open on a study: opening takes RUNNING trials for those of a killed session.

    Trial states: COMPLETE has every objective, finite, at full budget; PRUNED was stopped; FAIL is everything else,
    its `verdict` and `reason` in the trial's user attributes. Samplers learn nothing from FAIL trials. Interrupted
    trials are FAIL too, each followed by a copy with the same parameters, and so are proposals that equal an earlier
    one, asked again; neither counts.
    """

    def __init__(self, study: Study, storage: str | BaseStorage | None = None, name: str | None = None) -> None:
        """Open or create `name` (default: the study's name and identity) in a storage (see `open_storage`), by default
        in memory.

        Raises BadInput for a storage that cannot be opened and a name that another study has.
        """
        self.study = study
        self.name = name or f"{study.name}-{study.identity()}"
        opened = storage if isinstance(storage, BaseStorage) else open_storage(storage)
        self._storage = optuna.storages.get_storage(opened)
        self.optuna = open_or_create_study(study, self._storage, self.name)
        self._objectives: ObjectiveSpace | None = None
        self._running: dict[int, optuna.Trial] = {}
        self._recover()
        trials = self.optuna.get_trials(deepcopy=False)
        self._counted = sum(counts(t) for t in trials)
        self._ledger = TrialIndex(study, trials)
        self._groups: int | None = self.optuna.user_attrs.get("groups")

    def freeze(self, start: Mapping[str, float]) -> ObjectiveSpace:
        """Fix floors and scales from the start model's metrics, once: a resumed study keeps its first objectives. Then an
        earlier study's trials are taken up, where there is one to learn from."""
        stored = self.optuna.user_attrs.get("frame")
        self._objectives = (
            ObjectiveSpace.model_validate(stored) if stored else ObjectiveSpace.from_goals(self.study.objectives, start)
        )
        if not stored:
            self.optuna.set_user_attr("frame", self._objectives.model_dump(mode="json"))
        if self.study.search.warm_start:
            add_earlier_trials(self.optuna, self.study, self._objectives, self._storage)
        return self._objectives

    @property
    def objectives(self) -> ObjectiveSpace:
        """What `freeze` fixed; raises RuntimeError before."""
        if self._objectives is None:
            raise RuntimeError("freeze the study's floors before its first trial")
        return self._objectives

    def fix_groups(self, groups: int) -> None:
        """For a deterministic order: how many trials run at once, fixed by the study's first session."""
        if self.study.search.order == "deterministic" and self._groups is None:
            self.optuna.set_user_attr("groups", groups)
            self._groups = groups

    @property
    def groups(self) -> int | None:
        """G, where proposal n sees the results of trials <= n - G only; None where it sees all that have ended."""
        return self._groups

    @property
    def next_index(self) -> int:
        """The index of the next proposal: an interrupted trial's own, which comes first, or a new one."""
        waiting = self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return self._ledger.index(waiting[0]) if waiting else self._ledger.next

    @property
    def open(self) -> dict[int, int]:
        """Optuna's numbers of pending trials, by index."""
        return self._ledger.open

    @property
    def pending(self) -> int:
        """How many trials were asked for in this session and not told yet."""
        return len(self._running)

    @property
    def counted(self) -> int:
        """Trials that count and have ended."""
        return self._counted

    def remaining(self, trials: int) -> int:
        """How many of a budget are not yet finished, stopped or failed; pending ones are among them."""
        return max(0, trials - self._counted)

    def ask(self) -> Proposal:
        """The next proposal, first those that an interruption left behind, then the points to try first.

        One that equals an earlier one is asked again, a few times: what a small space, or a parent's child, cannot
        avoid is proposed all the same. Raises Impossible for a recipe that breaks a rule across fields, once it has
        been told.
        """
        _ = self.objectives
        for attempt in range(REASKS + 1):
            self.optuna.sampler = make_sampler(self.study.search, self._ledger.next, attempt)
            trial = self.optuna.ask()
            self._running[trial.number] = trial
            recipe = self._recipe(trial)
            given = trial.user_attrs.keys() & {"repeats", "first"}
            if given or attempt == REASKS or not self._ledger.knows(recipe):
                break
            self._drop(trial.number)
        return Proposal(trial.number, recipe, dict(trial.params), self._begin(trial, recipe))

    def _recipe(self, trial: optuna.Trial) -> Recipe:
        try:
            return build_recipe(self.study, from_trial(trial))
        except ValidationError as error:
            reason = str(to_user_error(error, Recipe))
            self._begin(trial, None)
            self.tell(trial.number, {"verdict": "infeasible", "reason": reason})
            raise InfeasibleProposal(reason) from None

    def _begin(self, trial: optuna.Trial, recipe: Recipe | None) -> int:
        index = self._ledger.index(trial)
        self._ledger.begin(index, trial.number, recipe)
        self.note(trial.number, index=index)
        return index

    def note(self, number: int, **attributes: str | int) -> None:
        """Attach attributes to a pending trial: which run it is, for one."""
        for name, value in attributes.items():
            self._running[number].set_user_attr(name, value)

    def tell(self, number: int, report: Mapping[str, Any]) -> TrialOutcome:
        """The end of a pending trial, by its last report (see `judge`). Raises KeyError if it is not pending."""
        verdict = trial_outcome(report, self.objectives)
        if verdict.name == INTERRUPTED:
            self.interrupted(number, verdict.reason)
            return verdict
        trial = self._running[number]
        if verdict.values is not None and verdict.state != TrialState.FAIL:
            for name, violation in self.objectives.violations(verdict.values).items():
                trial.set_constraint(name, violation)
        self._end(number, verdict.name, verdict.reason)
        self.optuna.tell(number, verdict.values if verdict.state == TrialState.COMPLETE else None, verdict.state)
        self._counted += 1
        self._close(number)
        return verdict

    def interrupted(self, number: int, reason: str = "") -> None:
        """A pending trial ended with its session, not by itself: it does not count and is asked again."""
        self._close(number)
        self._fail_and_repeat(number, reason)

    def interrupt_pending(self, reason: str = "") -> list[int]:
        """`interrupted` for every pending trial; their numbers. Call it when a session ends early."""
        numbers = sorted(self._running)
        for number in numbers:
            self.interrupted(number, reason)
        return numbers

    def trials(self) -> list[FrozenTrial]:
        """Every trial that counts, in the order of numbers."""
        return [t for t in self.optuna.get_trials(deepcopy=False) if counts(t)]

    def completed(self) -> dict[int, list[float]]:
        """The objectives of COMPLETE trials by number: the rows that a front is made of."""
        return {t.number: t.values for t in self.trials() if t.state == TrialState.COMPLETE}

    def _close(self, number: int) -> None:
        del self._running[number]
        self._ledger.end(number)

    def _drop(self, number: int) -> None:
        """End a proposal that equals an earlier one: it never was a trial of the study."""
        self._close(number)
        self._end(number, DUPLICATE, "")
        self.optuna.tell(number, state=TrialState.FAIL)

    def _end(self, number: int, verdict: str, reason: str) -> None:
        """Attributes first: a trial that has its final state cannot be written to."""
        study = self._storage.get_study_id_from_name(self.name)
        trial = self._storage.get_trial_id_from_study_id_trial_number(study, number)
        self._storage.set_trial_user_attr(trial, "verdict", verdict)
        if reason:
            self._storage.set_trial_user_attr(trial, "reason", reason)

    def _fail_and_repeat(self, number: int, reason: str) -> None:
        self._end(number, INTERRUPTED, reason)
        self.optuna.add_trial(repeat(self.optuna.tell(number, state=TrialState.FAIL)))

    def _recover(self) -> None:
        """End what a killed session left RUNNING, and repeat what it had ended but not yet repeated."""
        trials = self.optuna.get_trials(deepcopy=False)
        for trial in not_repeated(trials):
            self.optuna.add_trial(repeat(trial))
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                self._fail_and_repeat(trial.number, "its session was killed")


class DeterministicOrder:
    """Between trials that end and the store that is told.

    Where the store has `groups` G, proposal n sees the results of trials <= n - G and of no other, told in the order
    of their indices (METHODS section 6). A trial that ends earlier is held back, as if it still ran: G groups wait
    only for one that is more than G - 1 trials behind.
    """

    def __init__(self, store: StudyStore) -> None:
        self._store = store
        self._held: dict[int, Mapping[str, Any]] = {}
        self._closed = False

    @property
    def running(self) -> int:
        """Trials that have not ended."""
        return self._store.pending - len(self._held)

    def ready(self) -> bool:
        """Whether the next proposal can see what it is to see; what it may see is told."""
        if self._store.groups is None:
            return True
        limit = self._store.next_index - self._store.groups
        self._release(limit)
        return all(index > limit for index in self._store.open)

    def tell(self, number: int, report: Mapping[str, Any]) -> None:
        """A pending trial has ended with this report."""
        if self._store.groups is None or report.get("verdict") == "interrupted":
            self._store.tell(number, report)
            return
        self._held[number] = report
        if self._closed:
            self._release(None)

    def close(self) -> None:
        """There will be no more proposals: nothing is held back but for its turn."""
        self._closed = True
        self._release(None)

    def _release(self, limit: int | None) -> None:
        """Tell what is held, in the order of indices, up to `limit` or to the first that still runs."""
        for index, number in sorted(self._store.open.items()):
            if number not in self._held or (limit is not None and index > limit):
                return
            self._store.tell(number, self._held.pop(number))
