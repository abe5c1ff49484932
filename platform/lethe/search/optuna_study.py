"""A study's proposals and results, kept in Optuna's own storage: the truth that a resume starts from. No Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from lethe.config.messages import refused
from lethe.config.run import Recipe
from lethe.config.space import Scalar
from lethe.config.study import Study
from lethe.search.frame import Frame
from lethe.search.ledger import Ledger
from lethe.search.opening import open_study
from lethe.search.recovery import DUPLICATE, counts, not_repeated, repeat
from lethe.search.samplers import make_sampler
from lethe.search.space import build_recipe, from_trial
from lethe.search.storages import open_storage
from lethe.search.verdict import INTERRUPTED, Verdict, judge
from lethe.search.warm_start import learn

REASKS = 10  # of a proposal that equals an earlier one


class Proposal(NamedTuple):
    """A trial that Optuna now has as RUNNING: Optuna's number, its recipe, what was suggested for it, and its index
    among the study's trials, which an interrupted trial and its repetition share."""

    number: int
    recipe: Recipe
    params: dict[str, Scalar]
    index: int


class Impossible(Exception):
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
        self.optuna = open_study(study, self._storage, self.name)
        self._frame: Frame | None = None
        self._running: dict[int, optuna.Trial] = {}
        self._recover()
        trials = self.optuna.get_trials(deepcopy=False)
        self._counted = sum(counts(t) for t in trials)
        self._ledger = Ledger(study, trials)
        self._width: int | None = self.optuna.user_attrs.get("groups")

    def freeze(self, start: Mapping[str, float]) -> Frame:
        """Fix floors and scales from the start model's metrics, once: a resumed study keeps its first frame. Then an
        earlier study's trials are taken up, where there is one to learn from."""
        stored = self.optuna.user_attrs.get("frame")
        self._frame = Frame.model_validate(stored) if stored else Frame.of(self.study.objectives, start)
        if not stored:
            self.optuna.set_user_attr("frame", self._frame.model_dump(mode="json"))
        if self.study.search.warm_start:
            learn(self.optuna, self.study, self._frame, self._storage)
        return self._frame

    @property
    def frame(self) -> Frame:
        """What `freeze` fixed; raises RuntimeError before."""
        if self._frame is None:
            raise RuntimeError("freeze the study's floors before its first trial")
        return self._frame

    def fix_groups(self, groups: int) -> None:
        """For a deterministic order: how many trials run at once, fixed by the study's first session."""
        if self.study.search.order == "deterministic" and self._width is None:
            self.optuna.set_user_attr("groups", groups)
            self._width = groups

    @property
    def width(self) -> int | None:
        """G, where proposal n sees the results of trials <= n - G only; None where it sees all that have ended."""
        return self._width

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
        _ = self.frame
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
            reason = str(refused(error, Recipe))
            self._begin(trial, None)
            self.tell(trial.number, {"verdict": "infeasible", "reason": reason})
            raise Impossible(reason) from None

    def _begin(self, trial: optuna.Trial, recipe: Recipe | None) -> int:
        index = self._ledger.index(trial)
        self._ledger.begin(index, trial.number, recipe)
        self.note(trial.number, index=index)
        return index

    def note(self, number: int, **attributes: str | int) -> None:
        """Attach attributes to a pending trial: which run it is, for one."""
        for name, value in attributes.items():
            self._running[number].set_user_attr(name, value)

    def tell(self, number: int, report: Mapping[str, Any]) -> Verdict:
        """The end of a pending trial, by its last report (see `judge`). Raises KeyError if it is not pending."""
        verdict = judge(report, self.frame)
        if verdict.name == INTERRUPTED:
            self.interrupted(number, verdict.reason)
            return verdict
        trial = self._running[number]
        if verdict.values is not None and verdict.state != TrialState.FAIL:
            for name, violation in self.frame.violations(verdict.values).items():
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
