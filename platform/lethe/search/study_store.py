"""A study's proposals and results in Optuna's storage: the truth that a resumed study starts from. Without Ray.

`open_or_create_study` finds or creates the Optuna study, `StudyStore` asks it for proposals and tells it results, and
`DeterministicOrder` decides when results are told if the order must not depend on which trial was faster.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import BaseTrial, FrozenTrial, TrialState
from pydantic import ValidationError

from lethe.config.error_messages import to_user_error
from lethe.config.run import Recipe
from lethe.config.space import Choice, IntRange, Parameter, Scalar, Suggest, build_recipe, rebuild
from lethe.config.study import Study
from lethe.errors import UserError
from lethe.search.held_study import HeldStudy
from lethe.search.objectives import ObjectiveSpace
from lethe.search.samplers import make_sampler
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

REASKS = 10  # of a proposal that equals an earlier one


@dataclass(frozen=True)
class Proposal:
    """A trial that Optuna now has as RUNNING: Optuna's `number`, its recipe, the values suggested for it, and its
    `index` among the study's trials, which an interrupted trial and its copy share."""

    number: int
    recipe: Recipe
    params: dict[str, Scalar]
    index: int


class InfeasibleProposalError(Exception):
    """A proposal whose values break a rule across fields. It has been told as infeasible and counts as a trial."""


def open_or_create_study(study: Study, storage: BaseStorage, name: str) -> optuna.Study:
    """Return the Optuna study `name` in `storage`, created if need be, with the study's points to try first enqueued.
    Raises UserError where another study has this name."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=[goal.direction for goal in study.objectives.values()],
        load_if_exists=True,
    )
    _check_identity(opened, study)
    _enqueue_first_points(opened, study)
    return opened


def _check_identity(opened: optuna.Study, study: Study) -> None:
    """Store the study's identity with a new Optuna study; refuse one that has another identity."""
    identity, known = study.identity(), opened.user_attrs.get("identity")
    if known is None:
        opened.set_user_attr("identity", identity)
        with warnings.catch_warnings():  # marked experimental; optuna-dashboard and the plots show the names
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            opened.set_metric_names(list(study.objectives))
    elif known != identity:
        raise UserError(
            f"study {opened.study_name} was begun with another space, run, objectives or seed "
            f"({known}, now {identity}): resume it as it was, or choose another name"
        )


def _enqueue_first_points(opened: optuna.Study, study: Study) -> None:
    """Enqueue each of `study.search.first` that is not enqueued yet: an earlier session may have been killed between
    two of them."""
    enqueued = {trial.user_attrs.get("first") for trial in opened.get_trials(deepcopy=False)}
    for number, point in enumerate(study.search.first):
        if number not in enqueued:
            opened.enqueue_trial(dict(point), user_attrs={"first": number})


class StudyStore:
    """Asks Optuna for proposals and tells it results.

    Only one store at a time may be open on a study: opening takes RUNNING trials for those of a killed session.

    Trial states: COMPLETE has every objective, finite, at full budget; PRUNED was stopped; FAIL is everything else,
    with `verdict` and `reason` in the trial's user attributes. Samplers learn nothing from FAIL trials. Interrupted
    trials are FAIL too, each followed by a copy with the same parameters, and so are proposals that equal an earlier
    one, which are asked again; neither counts towards the budget.
    """

    def __init__(self, study: Study, storage: str | BaseStorage | None = None, name: str | None = None) -> None:
        """Open or create the study `name` (default: the study's name and identity) in `storage` (see `open_storage`;
        default: in memory).

        Raises UserError for a storage that cannot be opened and a name that another study has.
        """
        self.study = study
        self.name = name or f"{study.name}-{study.identity()}"
        opened = storage if isinstance(storage, BaseStorage) else open_storage(storage)
        self._stored = optuna.storages.get_storage(opened)
        open_or_create_study(study, self._stored, self.name)
        self._storage = HeldStudy(self._stored, self.name)
        self.optuna = optuna.load_study(study_name=self.name, storage=self._storage)
        self._objectives: ObjectiveSpace | None = None
        self._running: dict[int, optuna.Trial] = {}
        self._recover()
        trials = self.optuna.get_trials(deepcopy=False)
        self._counted = sum(counts(t) for t in trials)
        self._index = TrialIndex(study, trials)
        self._groups: int | None = self.optuna.user_attrs.get("groups")

    def _recover(self) -> None:
        """End what a killed session left RUNNING, and repeat what it had ended but not yet repeated."""
        trials = self.optuna.get_trials(deepcopy=False)
        for trial in not_repeated(trials):
            self.optuna.add_trial(repeat(trial))
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                self._fail_and_repeat(trial.number, "its session was killed")

    # What holds for the whole study

    def freeze(self, start: Mapping[str, float]) -> ObjectiveSpace:
        """Fix the objectives' floors and scales from the start model's metrics `start` and return them; a resumed study
        keeps those of its first session. Then add the earlier study's trials of a warm start."""
        stored = self.optuna.user_attrs.get("frame")
        self._objectives = (
            ObjectiveSpace.model_validate(stored) if stored else ObjectiveSpace.from_goals(self.study.objectives, start)
        )
        if not stored:
            self.optuna.set_user_attr("frame", self._objectives.model_dump(mode="json"))
        if self.study.search.warm_start:
            add_earlier_trials(self.optuna, self.study, self._objectives, self._stored)
        return self._objectives

    @property
    def objectives(self) -> ObjectiveSpace:
        """The objectives as `freeze` fixed them. Raises RuntimeError before."""
        if self._objectives is None:
            raise RuntimeError("freeze the study's floors before its first trial")
        return self._objectives

    def fix_groups(self, groups: int) -> None:
        """With a deterministic order, store how many trials run at once; a resumed study keeps its first number."""
        if self.study.search.order == "deterministic" and self._groups is None:
            self.optuna.set_user_attr("groups", groups)
            self._groups = groups

    @property
    def groups(self) -> int | None:
        """The number G of a deterministic order, in which proposal n sees the results of trials up to n - G only; None
        where a proposal sees all trials that have ended."""
        return self._groups

    # How far the study is

    @property
    def next_index(self) -> int:
        """The index of the next proposal: an interrupted trial's own, which comes first, or a new one."""
        waiting = self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return self._index.index(waiting[0]) if waiting else self._index.next

    @property
    def open(self) -> dict[int, int]:
        """Optuna's numbers of pending trials, by index."""
        return self._index.open

    @property
    def pending(self) -> int:
        """The number of trials asked for in this session and not told yet."""
        return len(self._running)

    @property
    def counted(self) -> int:
        """The number of trials that have ended and count."""
        return self._counted

    def remaining(self, trials: int) -> int:
        """Return how many of a budget of `trials` have not ended yet, pending ones included."""
        return max(0, trials - self._counted)

    def trials(self) -> list[FrozenTrial]:
        """Return every trial that has ended and counts, in the order of Optuna's numbers."""
        return [t for t in self.optuna.get_trials(deepcopy=False) if counts(t)]

    def completed(self) -> dict[int, list[float]]:
        """Return the objectives [k] of COMPLETE trials by number."""
        return {t.number: t.values for t in self.trials() if t.state == TrialState.COMPLETE}

    # Asking and telling

    def ask(self) -> Proposal:
        """Return the next proposal: first copies of interrupted trials, then the points to try first, then new ones.

        A proposal that equals an earlier one is asked again, at most `REASKS` times: a small space, or a genetic
        algorithm's child, cannot always avoid repetition. Raises InfeasibleProposalError for a recipe that breaks a
        rule across fields, after it has been told as infeasible.
        """
        _ = self.objectives  # frozen, or this raises
        for attempt in range(REASKS + 1):
            with self._storage.together():
                self.optuna.sampler = make_sampler(self.study.search, self._index.next, attempt)
                trial = self.optuna.ask()
                self._running[trial.number] = trial
                recipe = self._recipe(trial)
                prescribed = trial.user_attrs.keys() & {"repeats", "first"}
                if prescribed or attempt == REASKS or not self._index.knows(recipe):
                    index = self._begin(trial, recipe)
                    break
                self._drop(trial.number)
        return Proposal(trial.number, recipe, dict(trial.params), index)

    def _recipe(self, trial: optuna.Trial) -> Recipe:
        try:
            return build_recipe(self.study.run, self.study.space, from_trial(trial))
        except ValidationError as error:
            reason = str(to_user_error(error, Recipe))
            self._begin(trial, None)
            self.tell(trial.number, {"verdict": "infeasible", "reason": reason})
            raise InfeasibleProposalError(reason) from None

    def _begin(self, trial: optuna.Trial, recipe: Recipe | None) -> int:
        index = self._index.index(trial)
        self._index.begin(index, trial.number, recipe)
        self.note(trial.number, index=index)
        return index

    def note(self, number: int, **attributes: str | int) -> None:
        """Set user attributes of the pending trial `number`, such as the run's hash."""
        for name, value in attributes.items():
            self._running[number].set_user_attr(name, value)

    def tell(self, number: int, report: Mapping[str, Any]) -> TrialOutcome:
        """End the pending trial `number` by its last report and return its outcome (see `trial_outcome`). Raises
        KeyError if it is not pending."""
        outcome = trial_outcome(report, self.objectives)
        if outcome.name == INTERRUPTED:
            self.interrupted(number, outcome.reason)
            return outcome
        trial = self._running[number]
        with self._storage.together():
            if outcome.values is not None and outcome.state != TrialState.FAIL:
                for name, violation in self.objectives.violations(outcome.values).items():
                    trial.set_constraint(name, violation)
            self._note_end(number, outcome.name, outcome.reason)
            self.optuna.tell(number, outcome.values if outcome.state == TrialState.COMPLETE else None, outcome.state)
        self._counted += 1
        self._remove_pending(number)
        return outcome

    def interrupted(self, number: int, reason: str = "") -> None:
        """End the pending trial `number` because its session ends: it does not count and is proposed again."""
        self._fail_and_repeat(number, reason)
        self._remove_pending(number)

    def interrupt_pending(self, reason: str = "") -> list[int]:
        """Call `interrupted` for every pending trial, when a session ends early; return their numbers."""
        numbers = sorted(self._running)
        for number in numbers:
            self.interrupted(number, reason)
        return numbers

    def _remove_pending(self, number: int) -> None:
        del self._running[number]
        self._index.end(number)

    def _drop(self, number: int) -> None:
        """End a proposal that equals an earlier one: it never was a trial of the study."""
        self._note_end(number, DUPLICATE, "")
        self.optuna.tell(number, state=TrialState.FAIL)
        self._remove_pending(number)

    def _fail_and_repeat(self, number: int, reason: str) -> None:
        """End a trial as interrupted and have it proposed again. What an earlier call has done already, before its
        storage failed, is not done twice."""
        trial = self._storage.get_trial(self._trial_id(number))
        if not trial.state.is_finished():
            self._note_end(number, INTERRUPTED, reason)
            trial = self.optuna.tell(number, state=TrialState.FAIL)
        if trial.user_attrs.get("verdict") == INTERRUPTED:
            self.optuna.add_trial(repeat(trial))

    def _trial_id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(self.name)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)

    def _note_end(self, number: int, verdict: str, reason: str) -> None:
        """Set verdict and reason of a trial. Before its final state is told: afterwards Optuna refuses attributes."""
        trial = self._trial_id(number)
        self._storage.set_trial_user_attr(trial, "verdict", verdict)
        if reason:
            self._storage.set_trial_user_attr(trial, "reason", reason)


class TrialIndex:
    """The indices of a study's trials, its pending trials, and the recipes that were proposed.

    A trial's index is its place among the study's trials. Optuna's numbers also count trials that are none of the
    study's: interrupted ones, which were proposed again, and duplicates. `open` has Optuna's numbers of pending trials
    by index; `next` is the index of the next new trial.
    """

    def __init__(self, study: Study, trials: Iterable[FrozenTrial]) -> None:
        self.open: dict[int, int] = {}
        self.next = 0
        self._recipes: set[str] = set()
        for trial in trials:
            if "index" in trial.user_attrs and not is_duplicate(trial):
                self.next = max(self.next, trial.user_attrs["index"] + 1)
            if counts(trial) and (digest := _recipe_digest(study, trial)):
                self._recipes.add(digest)

    def index(self, trial: BaseTrial) -> int:
        """Return the index that a copy has from its interrupted trial, else the next new one."""
        return int(trial.user_attrs.get("index", self.next))

    def begin(self, index: int, number: int, recipe: Recipe | None) -> None:
        """Add a pending trial; `recipe` is None if it cannot run."""
        self.next = max(self.next, index + 1)
        self.open[index] = number
        if recipe is not None:
            self._recipes.add(recipe.digest())

    def end(self, number: int) -> None:
        """Remove a pending trial by Optuna's number."""
        self.open = {index: other for index, other in self.open.items() if other != number}

    def knows(self, recipe: Recipe) -> bool:
        """Return whether an equal recipe was proposed before."""
        return recipe.digest() in self._recipes


def _recipe_digest(study: Study, trial: FrozenTrial) -> str | None:
    """Return the digest of a trial's recipe, None for one that breaks a rule: proposed again, it is told again."""
    try:
        return rebuild(study.run, study.space, trial.params).digest()
    except (KeyError, ValidationError):
        return None


def from_trial(trial: optuna.Trial) -> Suggest:
    """Return a function that suggests values by an Optuna trial, define-by-run: Optuna records which parameters this
    trial has."""

    def suggest(name: str, parameter: Parameter) -> Scalar:
        if isinstance(parameter, Choice):
            value: Scalar = trial.suggest_categorical(name, parameter.choices)
            return value
        if isinstance(parameter, IntRange):
            return trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log)
        return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)

    return suggest


class DeterministicOrder:
    """Passes results on to the store, in an order that does not depend on which trial was faster.

    Where the store has `groups` G, proposal n sees the results of trials up to n - G and of no other, told in the order
    of their indices (docs/METHODS.md section 6). A trial that ends earlier is held back, as if it still ran: G groups
    wait only for a trial that is more than G - 1 behind. Without `groups` every result is told at once.
    """

    def __init__(self, store: StudyStore) -> None:
        self._store = store
        self._held: dict[int, Mapping[str, Any]] = {}
        self._closed = False

    @property
    def running(self) -> int:
        """The number of trials that have not ended."""
        return self._store.pending - len(self._held)

    def ready(self) -> bool:
        """Tell the results that the next proposal may see; return whether it can be asked for, that is, whether all
        trials whose results it has to see have ended."""
        if self._store.groups is None:
            return True
        limit = self._store.next_index - self._store.groups
        self._release(limit)
        return all(index > limit for index in self._store.open)

    def tell(self, number: int, report: Mapping[str, Any]) -> None:
        """Take the last report of the pending trial `number`; it is told now or when its turn comes."""
        if self._store.groups is None or report.get("verdict") == INTERRUPTED:
            self._store.tell(number, report)
            return
        self._held[number] = report
        if self._closed:
            self._release(None)

    def close(self) -> None:
        """Tell all results in order from now on: there will be no more proposals."""
        self._closed = True
        self._release(None)

    def _release(self, limit: int | None) -> None:
        """Tell held results in the order of indices, up to index `limit` or to the first trial that still runs."""
        for index, number in sorted(self._store.open.items()):
            if number not in self._held or (limit is not None and index > limit):
                return
            self._store.tell(number, self._held[number])
            del self._held[number]
