"""Tune's trial actors live as long as its search: they are all alike, and each takes seconds of a core to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from ray.tune.execution import tune_controller
from ray.tune.utils.object_cache import _ObjectCache

Controller = tune_controller.TuneController


class _Kept(_ObjectCache):
    """Tune keeps as many idle actors as there are trials that wait for one, else a single one. Ours never wait: the
    searcher proposes when a group is free. So of several trials that end at once all but one would lose their actor."""

    def cache_object(self, key: Any, obj: Any) -> bool:
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        if force_all:
            yield from super().flush_cached_objects(force_all=True)


@contextmanager
def kept() -> Iterator[None]:
    """What Tune starts inside the block keeps its actors until its search is over.

    A trial whose actor is being started waits for it. Tune would give it one that became idle meanwhile and end the
    other: where trials take no longer than actors to start, hardly any is ever alive.
    """
    reuse = Controller._maybe_reuse_cached_actor

    def unless_coming(self: Controller, trial: Any) -> bool:
        coming = trial in self._trial_to_actor and trial not in self._resetting_trials
        return False if coming else reuse(self, trial)

    with ExitStack() as stack:
        stack.enter_context(patch.object(tune_controller, "_ObjectCache", _Kept))
        stack.enter_context(patch.object(Controller, "_maybe_reuse_cached_actor", unless_coming))
        yield
