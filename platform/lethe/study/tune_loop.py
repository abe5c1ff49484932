"""Tune's trial actors live as long as its search: they are all alike, and each takes seconds of a core to start.

When a study ends before its trials are used up.

A Tune trial: hands its run to the pool and passes the reports on. Holds no model and imports no torch.

Ray Tune over the pool: our searcher proposes, thin trials pass reports on, the recorder keeps them.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from lethe.config.search import Stop
from lethe.errors import StudyBrokenError
from lethe.pool.jobs import QueuedRun
from lethe.pool.resources import HEAD_SLIVER
from lethe.records import TrialRecord
from lethe.search.study_store import Proposal, StudyStore
from lethe.study.recorder import Recorder
from lethe.study.tune_searcher import Answered, StudySearcher, rung_scheduler
from optuna.exceptions import StorageInternalError
from ray import tune
from ray.tune.execution import tune_controller
from ray.tune.utils.object_cache import _ObjectCache
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool
    from lethe.search.study_store import StudyStore
    from lethe.study.runner import Sweep


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


class Ending:
    """A study's `stop` rules. `reason` says which one held; empty while none did."""

    def __init__(self, rules: Stop, store: StudyStore) -> None:
        self._rules, self._store = rules, store
        self._began = time.monotonic()
        self._counted = -1
        self.reason = ""

    def __call__(self) -> bool:
        """Whether no more trials should begin."""
        if self.reason:
            return True
        limit = self._rules.seconds
        if limit is not None and time.monotonic() - self._began >= limit:
            self.reason = f"the search has taken {limit / 60:g} minutes"
        elif self._rules.no_growth and self._changed() and not self._grown(self._rules.no_growth):
            self.reason = f"the hypervolume has not grown in {self._rules.no_growth} trials"
        return bool(self.reason)

    def _changed(self) -> bool:
        before, self._counted = self._counted, self._store.counted
        return before != self._counted

    def _grown(self, trials: int) -> bool:
        """Whether the last so many trials, by index, made the front's hypervolume larger; young studies have."""
        told = sorted(self._store.trials(), key=lambda trial: trial.user_attrs["index"])
        if len(told) <= trials:
            return True
        values = [[trial.values for trial in part if trial.values] for part in (told[:-trials], told)]
        before, now = (self._store.objectives.hypervolume(rows) if rows else 0.0 for rows in values)
        return now > before


class PoolTrial(tune.Trainable):
    """`config` carries `run` (its digest), `payload` and `shape`; `queue`, the pool's; `claim`, the trial's own name.

    Every report is one Tune result; asking for the next one means "continue". Stopping is told to the run queue by the
    driver's callback, since a reused actor is neither stopped nor cleaned up by Tune. An actor that stands in for
    one that died passes the reports on from the first.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._request = QueuedRun(*(config[key] for key in ("queue", "run", "payload", "shape", "claim")))
        self._seen = 0

    def step(self) -> dict[str, Any]:
        report = self._request.report(self._seen)
        self._seen += 1
        return {"report": report, "done": bool(report.get("final"))}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the truth is in the run folders."""

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: see `save_checkpoint`."""


def placed() -> tune.PlacementGroupFactory:
    """A trial's own request: a sliver of the head node, none of the cores that groups need."""
    return tune.PlacementGroupFactory([HEAD_SLIVER])


UNWRITABLE = (OSError, SQLAlchemyError, StorageInternalError)
MOST_ERRORS = 10  # actors of Tune's in a row that died without passing a report on
CTRL_C = "interrupted"


class _Watch(tune.Callback):
    """Ends the search where Tune's actors cannot live, or nobody is left who could end its trials."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._errors = 0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks before it starts."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._pool.lost:
            raise StudyBrokenError(self._pool.broken)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._errors = 0

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._errors += 1
        if self._errors > MOST_ERRORS:
            raise StudyBrokenError("the actors of Ray Tune's trials die before they do anything")


@contextmanager
def _on_ctrl_c(call: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C calls `call`, the second is a KeyboardInterrupt. Tune's own handler would wait for actors that
    wait for reports, so it is off (see `cluster.DEFAULTS`)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        call()

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def tune_study(sweep: Sweep, pool: Pool, store: StudyStore, recorder: Recorder) -> bool:
    """Run the trials that remain; True if they did not all run: the user interrupted, or the pool broke and says why
    in `broken`. No trial is left running anywhere. Raises Broken where the cluster or the study's own disk is gone."""
    study = sweep.study
    trials = study.search.trials

    def make_config(proposal: Proposal) -> dict[str, Any] | Answered:
        claim = f"{store.name}:{proposal.number}"
        config = {**sweep.config(proposal.index, proposal.recipe), "queue": pool.queue, "claim": claim}
        store.note(proposal.number, run=config["run"])
        stored = sweep.stored(config)
        if stored is not None:
            recorder.answered(config, stored)
            return Answered(_report(stored))
        recorder.began(config)
        return config

    def ended(config: dict[str, Any]) -> dict[str, Any] | None:
        record = recorder.trials.get(config["number"])
        return record and _report(record)

    if store.remaining(trials) == 0:
        return False
    for name in ("ray.tune", "ray.tune.analysis", "ray.tune.execution", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    store.fix_groups(study.resources.groups or pool.slots())
    ending = Ending(study.stop, store)
    scheduler = rung_scheduler(study, store.objectives, sweep.folder / "runs", store.groups)
    if scheduler is not None:
        recorder.why_stopped = scheduler.reason
    tuner = tune.Tuner(
        tune.with_resources(PoolTrial, placed()),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(
                store, trials, pool.slots, make_config, lambda: bool(pool.ended) or ending(), ended
            ),
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(sweep.folder / "tune"),
            verbose=0,
            callbacks=[recorder, _Watch(pool)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trials hold nothing
        ),
    )
    try:
        with _on_ctrl_c(lambda: pool.abandon(CTRL_C)), kept():
            tuner.fit()
    except KeyboardInterrupt:
        pass  # the second Ctrl-C; what is finished is still reported
    except (EOFError, UnpicklingError):
        pass  # all is done: Tune reads back how its actors ended, and a full disk cut that off
    except (*UNWRITABLE, tune.TuneError) as error:
        reason = unwritable(error)
        if reason is None:
            raise
        raise StudyBrokenError(f"the study cannot be written: {reason}") from error
    finally:
        if recorder.running:
            pool.abandon(CTRL_C)
        interrupted: list[int] = []
        with suppress(*UNWRITABLE):  # a resume does it where this session cannot
            interrupted = store.interrupt_pending(pool.ended or "")
    if ending.reason and not interrupted and not pool.ended:
        sweep.console.say(f"no more trials: {ending.reason}")
        return False
    return store.remaining(trials) > 0


def _report(record: TrialRecord) -> dict[str, Any]:
    """The last report of a trial, as the store hears of it."""
    return {**record.metrics, "verdict": record.verdict, "reason": record.reason}


def unwritable(error: BaseException | None) -> str | None:
    """Why the study cannot be written, if that is behind an error. Tune raises its own, with ours as text, while it
    handles what our callbacks raised; what a database said has layers around it."""
    while error is not None and not isinstance(error, UNWRITABLE):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).splitlines()[0]
