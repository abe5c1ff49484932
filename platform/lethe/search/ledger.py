"""Which of a study's trials are under way, by index, and which recipes were proposed."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import BaseTrial, FrozenTrial
from pydantic import ValidationError

from lethe.config.run import Recipe
from lethe.config.study import Study
from lethe.search.recovery import counts, is_duplicate
from lethe.search.space import rebuild


class Ledger:
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
