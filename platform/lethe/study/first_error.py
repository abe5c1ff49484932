"""The first error in the methods of ours that Ray Tune calls: it ends the search.

Tune itself logs what a searcher, scheduler or callback raises, takes it for an error of the trial, and calls again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

T = TypeVar("T")


class FirstError(tune.Callback):
    """A callback of Tune's that raises `error`, the first one that a guarded object raised, before Tune's next step."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its callbacks before it starts."""
        return {}

    def guard(self, called: T) -> T:
        """Return `called`, a searcher, scheduler or callback, with all methods guarded that its classes override of
        Tune's: the first error is kept instead of raised, and after it no call comes through."""
        classes = type(called).__mro__
        ours = [cls for cls in classes if not cls.__module__.startswith("ray.") and cls is not object]
        tunes = {name for cls in classes if cls not in ours and cls is not object for name in vars(cls)}
        for name in {name for cls in ours for name in vars(cls)} & tunes:
            if not name.startswith("_"):
                setattr(called, name, self._guarded(getattr(called, name)))
        return called

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.error is None:
                try:
                    return method(*args, **kwargs)
                except Exception as error:  # noqa: BLE001  # kept, and raised by `on_step_begin`
                    self.error = error
            # A search without running trials would ask for proposals for ten minutes, and make no step, if it had none.
            answers = {"on_trial_result": TrialScheduler.CONTINUE, "suggest": Searcher.FINISHED}
            return answers.get(method.__name__)

        return guarded

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Raise the error that was kept."""
        if self.error is not None:
            raise self.error
