"""The search on Ray Tune: our searcher proposes, thin trials pass reports on, the recorder keeps them.

`tune_study` runs it. `PoolTrial` is a Tune trial: it hands its job to the pool, holds no model and imports no torch.
`Ending` ends a study before its trials are used up. `keep_actors` lets Tune's trial actors live as long as its search:
they are all alike, and each takes seconds of a core to start.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from ray import tune
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache

from lethe.config.search import Stop
from lethe.errors import StudyBrokenError, first_line
from lethe.interrupts import may_take_long
from lethe.pool.resources import HEAD_SLIVER
from lethe.pool.run_queue import QueuedRun
from lethe.records import FinalReport, TrialRecord
from lethe.search.study_store import Proposal, StudyStore
from lethe.study.first_error import FirstError
from lethe.study.recorder import PLAN, QUEUE, REPORT, Recorder, TrialPlan
from lethe.study.tune_searcher import Answered, StudySearcher, rung_scheduler

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool
    from lethe.study.run_requests import Planner


MOST_ERRORS = 10  # actors of Tune's in a row that died without passing a report on
CTRL_C = "interrupted"


def tune_study(planner: Planner, pool: Pool, store: StudyStore, recorder: Recorder) -> bool:
    """Run the trials that remain. No trial is left running anywhere.

    Returns True if they did not all run: the user interrupted, or the pool broke and says why in `broken`. Raises
    StudyBrokenError where the cluster or the study's own disk is gone.
    """
    study = planner.study
    trials = study.search.trials

    def make_plan(proposal: Proposal) -> TrialPlan | Answered:
        claim = f"{store.name}:{proposal.number}"
        plan = replace(planner.plan(proposal.index, proposal.recipe), claim=claim)
        store.note(proposal.number, run=plan.run)
        stored = planner.stored(plan)
        if stored is not None:
            recorder.answered(plan, stored)
            return Answered(_last_report(stored))
        recorder.began(plan)
        return plan

    def ended(plan: TrialPlan) -> FinalReport | None:
        record = recorder.trials.get(plan.number)
        return None if record is None else _last_report(record)

    if store.remaining(trials) == 0:
        return False
    for name in ("ray.tune", "ray.tune.analysis", "ray.tune.execution", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    store.fix_groups(study.resources.groups or pool.slots())
    ending = Ending(study.stop, store)
    scheduler = rung_scheduler(study, store.objectives, planner.folder / "runs", store.groups)
    if scheduler is not None:
        recorder.why_stopped = scheduler.reason
    searcher = StudySearcher(
        store, trials, pool.slots, make_plan, lambda: bool(pool.ended) or ending(), ended, pool.queue
    )
    first = FirstError()
    for called in (recorder, searcher, scheduler, watch := _SearchWatch(pool)):
        first.guard(called)
    tuner = tune.Tuner(
        tune.with_resources(PoolTrial, trial_resources()),
        tune_config=tune.TuneConfig(search_alg=searcher, scheduler=scheduler, num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(planner.folder / "tune"),
            verbose=0,
            callbacks=[first, recorder, watch],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trials hold nothing
        ),
    )
    try:
        with _on_ctrl_c(lambda: pool.abandon(CTRL_C)), keep_actors():
            tuner.fit()
    except KeyboardInterrupt:
        pass  # the second Ctrl-C; what is finished is still reported
    except (EOFError, UnpicklingError):
        pass  # all is done: Tune reads back how its actors ended, and a full disk cut that off
    except (OSError, tune.TuneError) as error:
        first.error = first.error or error
    finally:
        if recorder.running:
            pool.abandon(CTRL_C)
        interrupted: list[int] = []
        with suppress(OSError, StudyBrokenError):  # a resume does it where this session cannot
            interrupted = store.interrupt_pending(pool.ended or "")
    if first.error is not None:
        if isinstance(first.error, StudyBrokenError) or (reason := unwritable(first.error)) is None:
            raise first.error
        raise StudyBrokenError(f"the study cannot be written: {reason}") from first.error
    if ending.reason and not interrupted and not pool.ended:
        planner.console.say(f"no more trials: {ending.reason}")
        return False
    return store.remaining(trials) > 0


def _last_report(record: TrialRecord) -> FinalReport:
    """Return the last report of a recorded trial, as the store hears of it."""
    return FinalReport(verdict=record.verdict, reason=record.reason, values=record.metrics)


class PoolTrial(tune.Trainable):
    """One trial of Tune's. `config` carries its plan and the pool's queue, as the searcher puts them there.

    Every report is one Tune result; asking for the next one means "continue". Stopping is told to the queue by the
    recorder, a callback in the driver, since a reused actor is neither stopped nor cleaned up by Tune. An actor that
    stands in for one that died passes the reports on from the first.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Submit the plan's job."""
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Submit the next plan's job; True: the actor can be used again."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        plan: TrialPlan = config[PLAN]
        self._run = QueuedRun(config[QUEUE], plan.job, plan.claim)
        self._seen = 0

    def step(self) -> dict[str, Any]:
        """Return the next report, for which it waits."""
        report = self._run.report(self._seen)
        self._seen += 1
        return {REPORT: report, "done": isinstance(report, FinalReport)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: the truth is in the run folders."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Load nothing: see `save_checkpoint`."""


def trial_resources() -> tune.PlacementGroupFactory:
    """Return a Tune trial's own request: a sliver of the head node, none of the cores that groups need."""
    return tune.PlacementGroupFactory([HEAD_SLIVER])


class Ending:
    """A study's `stop` rules. `reason` says which one held; empty while none did."""

    def __init__(self, rules: Stop, store: StudyStore) -> None:
        self._rules, self._store = rules, store
        self._began = time.monotonic()
        self._counted = -1
        self.reason = ""

    def __call__(self) -> bool:
        """Return whether no more trials should begin."""
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
        """Return whether the last so many trials, by index, made the front's hypervolume larger; True for as many as
        that or fewer."""
        ended = sorted(self._store.trials(), key=lambda trial: trial.user_attrs["index"])
        if len(ended) <= trials:
            return True
        values = [[trial.values for trial in part if trial.values] for part in (ended[:-trials], ended)]
        before, now = (self._store.objectives.hypervolume(rows) if rows else 0.0 for rows in values)
        return now > before


class _SearchWatch(tune.Callback):
    """Ends the search where Tune's actors cannot live, or no queue is left that could end its trials."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._errors = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its callbacks before it starts."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Raise StudyBrokenError once the pool is lost."""
        if self._pool.lost:
            raise StudyBrokenError(self._pool.broken)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Count from anew: actors live."""
        self._errors = 0

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Raise StudyBrokenError once too many actors in a row have died."""
        self._errors += 1
        if self._errors > MOST_ERRORS:
            raise StudyBrokenError("the actors of Ray Tune's trials die before they do anything")


@contextmanager
def _on_ctrl_c(call: Callable[[], None]) -> Iterator[None]:
    """Inside the block the first Ctrl-C calls `call`, the second is a KeyboardInterrupt. Tune's own handler would wait
    for actors that wait for reports, so it is off (see `cluster.DEFAULTS`)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        call()

    signal.signal(signal.SIGINT, first)
    try:
        with may_take_long():
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def unwritable(error: BaseException | None) -> str | None:
    """Return why the study's folder cannot be written, if that is behind an error, else None. Tune raises its own, with
    the cause as text, while it handles another."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return None if error is None else first_line(error)


# Tune's actors

Controller = tune_controller.TuneController


class _AllActorsKept(_ObjectCache):
    """A cache of idle actors that keeps all. Tune's own keeps as many as there are trials that wait for one, else a
    single one. Ours never wait: the searcher proposes when a group is free. So of several trials that end at once all
    but one would lose their actor."""

    def cache_object(self, key: Any, obj: Any) -> bool:
        """Keep an idle actor, however many there are; True."""
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Generator[Any, None, None]:
        """Give up the actors when all are to go, at the search's end, and never before."""
        if force_all:
            yield from super().flush_cached_objects(force_all=True)


@contextmanager
def keep_actors() -> Iterator[None]:
    """Make a Tune search that starts inside the block keep its actors until it is over.

    A trial whose actor is being started waits for it. Tune would give it one that became idle meanwhile and end the
    other: where trials take no longer than actors to start, hardly any is ever alive.
    """
    reuse = Controller._maybe_reuse_cached_actor

    def unless_coming(self: Controller, trial: Any) -> bool:
        coming = trial in self._trial_to_actor and trial not in self._resetting_trials
        return False if coming else reuse(self, trial)

    with ExitStack() as stack:
        stack.enter_context(patch.object(tune_controller, "_ObjectCache", _AllActorsKept))
        stack.enter_context(patch.object(Controller, "_maybe_reuse_cached_actor", unless_coming))
        yield
