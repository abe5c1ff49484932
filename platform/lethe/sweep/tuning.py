"""Ray Tune over the pool: our searcher proposes, thin trials pass reports on, the recorder keeps them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ray import tune

from lethe.search.optuna_study import Proposal
from lethe.search.searcher import Answered, StudySearcher
from lethe.sweep.ending import Ending
from lethe.sweep.recorder import Recorder, stop_all
from lethe.sweep.rungs import rung_scheduler
from lethe.sweep.trial import PoolTrial, placed

if TYPE_CHECKING:
    from lethe.search.optuna_study import StudyStore
    from lethe.sweep.driver import Sweep


def tune_study(sweep: Sweep, pool: Any, store: StudyStore, recorder: Recorder) -> bool:
    """Run the trials that remain; True if the user interrupted. No trial is left running anywhere."""

    study = sweep.study
    trials = study.search.trials

    def make_config(proposal: Proposal) -> dict[str, Any] | Answered:
        config = sweep.config(proposal.index, proposal.recipe)
        store.note(proposal.number, run=config["run"])
        stored = sweep.stored(config)
        if stored is not None:
            recorder.answered(config, stored)
            return Answered({**stored.metrics, "verdict": stored.verdict, "reason": stored.reason})
        recorder.began(config)
        return {**config, "mailbox": pool.mailbox}

    if store.remaining(trials) == 0:
        return False
    for name in ("ray.tune", "ray.tune.analysis", "ray.tune.execution", "ray.air"):
        logging.getLogger(name).setLevel(logging.ERROR)
    store.fix_groups(study.resources.groups or pool.slots())
    ending = Ending(study.stop, store)
    scheduler = rung_scheduler(study, store.frame, sweep.folder / "runs", store.width)
    if scheduler is not None:
        recorder.why_stopped = scheduler.reason
    tuner = tune.Tuner(
        tune.with_resources(PoolTrial, placed()),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(store, trials, pool.slots, make_config, ending),
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="trials", storage_path=str(sweep.folder / "tune"), verbose=0, callbacks=[recorder]
        ),
    )
    try:
        tuner.fit()
    except KeyboardInterrupt:
        pass  # the second Ctrl-C: Tune handles the first; what is finished is still reported
    finally:
        stop_all(pool.mailbox, [recorder.running[n]["config"]["run"] for n in recorder.interrupted()])
        interrupted = store.interrupt_pending("the session was interrupted")
    if ending.reason and not interrupted:
        sweep.console.say(f"no more trials: {ending.reason}")
        return False
    return store.remaining(trials) > 0
