"""Ray Tune over the pool: our searcher proposes, thin trials pass reports on, the recorder keeps them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ray import tune

from lethe.config.run import Recipe
from lethe.search.searcher import Answered, StudySearcher
from lethe.sweep.recorder import Recorder, stop_all
from lethe.sweep.trial import PoolTrial, placed

if TYPE_CHECKING:
    from lethe.search.optuna_study import StudyStore
    from lethe.sweep.driver import Sweep


def tune_study(sweep: Sweep, pool: Any, store: StudyStore, recorder: Recorder) -> bool:
    """Run the trials that remain; True if the user interrupted. No trial is left running anywhere."""

    trials = sweep.study.search.trials

    def make_config(number: int, recipe: Recipe) -> dict[str, Any] | Answered:
        config = sweep.config(number, recipe)
        store.note(number, run=config["run"])
        stored = sweep.stored(config)
        if stored is not None:
            recorder.answered(config, stored)
            return Answered({"verdict": stored.verdict, "reason": stored.reason, **stored.metrics})
        recorder.began(config)
        return {**config, "mailbox": pool.mailbox}

    if store.remaining(trials) == 0:
        return False
    for name in ("ray.tune", "ray.tune.analysis", "ray.tune.execution", "ray.air"):
        logging.getLogger(name).setLevel(logging.ERROR)
    tuner = tune.Tuner(
        tune.with_resources(PoolTrial, placed()),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(store, trials, pool.slots, make_config), num_samples=-1, reuse_actors=True
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
        store.interrupt_pending("the session was interrupted")
    return store.remaining(trials) > 0
