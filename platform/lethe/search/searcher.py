"""The study's store as a Ray Tune searcher. With the scheduler, the only file of the search that knows Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.search.searcher import Searcher

from lethe.config.run import Recipe
from lethe.search.optuna_study import Impossible, StudyStore
from lethe.search.verdict import INTERRUPTED


_NESTED = "report/"


@dataclass(frozen=True)
class Answered:
    """A proposal that needs no trial: its run's last report is known, or it cannot run (verdict infeasible)."""

    report: Mapping[str, Any]


MakeConfig = Callable[[int, Recipe], dict[str, Any] | Answered]


class StudySearcher(Searcher):
    """Proposes while a worker group is free, up to the budget of trials; tells the store how each one ended.

    Ray's own OptunaSearch tells stopped trials as complete, leaves those with a NaN RUNNING and has no constraints.
    Nothing of it is saved or pickled: the truth is in the storage, and a resume is a new searcher on it.
    """

    def __init__(
        self,
        store: StudyStore,
        trials: int,
        slots: Callable[[], int],
        make_config: MakeConfig,
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        """`slots()` is the number of live worker groups; `make_config` gives a Tune trial's config; after `ended()`
        nothing more is proposed."""
        super().__init__()
        self._store, self._trials, self._slots, self._make_config = store, trials, slots, make_config
        self._ended = ended
        self._numbers: dict[str, int] = {}
        self._configs: dict[int, dict[str, Any]] = {}
        self._again: list[int] = []

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A config; None while no group is free; FINISHED when all trials of the budget are asked for."""
        if self._again and not self._ended():
            return self._under(trial_id, self._again.pop(0))
        while self._store.remaining(self._trials) > self._store.pending and not self._ended():
            if self._store.pending >= self._slots():
                return None
            try:
                number, recipe, _ = self._store.ask()
            except Impossible:
                continue
            config = self._config(number, recipe)
            if isinstance(config, Answered):
                self._store.tell(number, config.report)
                continue
            self._configs[number] = config
            return self._under(trial_id, number)
        return Searcher.FINISHED

    def _under(self, trial_id: str, number: int) -> dict[str, Any]:
        self._numbers[trial_id] = number
        return self._configs[number]

    def _config(self, number: int, recipe: Recipe) -> dict[str, Any] | Answered:
        try:
            return self._make_config(number, recipe)
        except BaseException:
            self._store.interrupted(number, "its configuration could not be made")
            raise

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tune has no result of ours for a trial that ended before its first report.

        An error is that of Tune's actor, which only passes reports on: the next Tune trial stands in for it.
        """
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        if error:
            self._again.append(number)
            return
        del self._configs[number]
        report = _report(result or {})
        if not report.keys() & {"verdict", *self._store.frame.names}:
            report = {"verdict": INTERRUPTED, "reason": "ended before its first report"}
        self._store.tell(number, report)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing."""

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its whole configuration before it starts; callables and connections do not belong there."""
        return {}


def _report(result: Mapping[str, Any]) -> dict[str, Any]:
    """The trial's last report: Tune flattens what `step` returned as {"report": ...} and adds keys of its own."""
    nested = {key.removeprefix(_NESTED): value for key, value in result.items() if key.startswith(_NESTED)}
    return nested or dict(result)
