"""Whole runs of methods through the workers' door, in this process or in two."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lethe.config.objective import AnyObjective
from lethe.config.optimizer import AdamW
from lethe.config.run import Digests, Evaluation, Recipe, Schedule, UnlearnRun
from lethe.unlearning.outcome import Alone
from lethe.unlearning.requests import Assets, TrialRequest
from lethe.unlearning.worker_entry import run_trial
from tests import tiny

Report = dict[str, Any]
WORLD = 2
ALONE = Alone()


def recipe(objective: AnyObjective, **changes: Any) -> Recipe:
    """Short in everything."""
    schedule, evaluation = Schedule(epochs=2, batch_size=4), Evaluation(max_new_tokens=3, max_rows=4)
    values: dict[str, Any] = {"optimizer": AdamW(learning_rate=1e-2), "schedule": schedule, "evaluation": evaluation}
    return Recipe(objective=objective, **{**values, **changes})


def run(run_recipe: Recipe, assets: Assets, folder: Path, ranks: Any = ALONE) -> tuple[Report, list[Report]]:
    """The last report and those before it."""
    digests = Digests(data=assets.data_digest, model=assets.model_digest)
    request = TrialRequest(
        run=UnlearnRun(recipe=run_recipe, digests=digests), assets=assets, reference=None, folder=folder
    )
    # As a worker gets it: without the fields that the objective ignores.
    request = TrialRequest.model_validate(request.model_dump(mode="json"))
    before: list[Report] = []
    return tiny.flat(run_trial(request, before.append, ranks)), before


def serve(rank: int, folder: str, trained: str, cases: list[tuple[Recipe, Assets]]) -> None:
    """One of two ranks: the cases in turn; every rank keeps its reports in `folder`. What the embedded family's
    training would leave on rank 0 is the model in `trained`."""
    from lethe.pool.worker import Ranks
    from lethe.records import TrainingRecord
    from lethe.unlearning.methods import retrain

    def train_anew(benchmark: Any, family: Any, target: Path) -> TrainingRecord:
        assert rank == 0
        shutil.copytree(trained, target)
        return TrainingRecord(epochs=1, steps=2, tokens=3, seconds=4.0, peak_memory_mb=5.0, loss=6.0)

    retrain.train_anew = train_anew
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(WORLD))
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=WORLD)
    found = [run(r, assets, Path(folder, str(i)), Ranks(rank, WORLD))[0] for i, (r, assets) in enumerate(cases)]
    torch.save(found, Path(folder, f"reports-{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()
