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

    def make_config(number: int, recipe: Recipe) -> dict[str, Any] | Answered:
        config = sweep.config(number, recipe)
        store.note_run(number, config["run"])
        stored = sweep.stored(config)
        if stored is not None:
            recorder.answered(config, stored)
            return Answered({"verdict": stored.verdict, "reason": stored.reason, **stored.metrics})
        recorder.began(config)
        return {**config, "mailbox": pool.mailbox}

    searcher = StudySearcher(store, slots=pool.slots, make_config=make_config)
    if store.remaining() == 0:
        return False
    for name in ("ray.tune", "ray.tune.analysis", "ray.tune.execution", "ray.air"):
        logging.getLogger(name).setLevel(logging.ERROR)
    tuner = tune.Tuner(
        tune.with_resources(PoolTrial, placed()),
        tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(
            name="trials", storage_path=str(sweep.folder / "tune"), verbose=0, callbacks=[recorder]
        ),
    )
    tuner.fit()
    cut = recorder.interrupted()
    if cut:
        stop_all(pool.mailbox, [recorder.running[n]["config"]["run"] for n in cut])
        for number in cut:
            store.interrupted(number)
    return bool(cut) or store.remaining() > 0
