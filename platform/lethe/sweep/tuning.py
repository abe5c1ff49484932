"""Ray Tune over the pool: our searcher proposes, thin trials pass reports on, the recorder keeps them."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError
from ray import tune
from sqlalchemy.exc import SQLAlchemyError

from lethe.errors import Broken
from lethe.records import TrialRecord
from lethe.search.optuna_study import Proposal
from lethe.search.searcher import Answered, StudySearcher
from lethe.sweep.actors import kept
from lethe.sweep.ending import Ending
from lethe.sweep.recorder import Recorder
from lethe.sweep.rungs import rung_scheduler
from lethe.sweep.trial import PoolTrial, placed

if TYPE_CHECKING:
    from lethe.pool.groups import Pool
    from lethe.search.optuna_study import StudyStore
    from lethe.sweep.driver import Sweep


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
        if self._pool.silent:
            raise Broken(self._pool.broken)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._errors = 0

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._errors += 1
        if self._errors > MOST_ERRORS:
            raise Broken("the actors of Ray Tune's trials die before they do anything")


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
        config = {**sweep.config(proposal.index, proposal.recipe), "mailbox": pool.mailbox, "claim": claim}
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
    scheduler = rung_scheduler(study, store.frame, sweep.folder / "runs", store.width)
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
        raise Broken(f"the study cannot be written: {reason}") from error
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
