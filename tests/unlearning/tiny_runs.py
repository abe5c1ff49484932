"""One trial and one baseline on tiny assets, called as a worker calls them."""

from __future__ import annotations

from pathlib import Path

from lethe.config.adapter import AnyAdapter
from lethe.config.objective import GradDiff
from lethe.config.optimizer import AdamW
from lethe.config.run import Digests, Engine, Evaluation, Recipe, Schedule, UnlearnRun
from lethe.records import FinalReport
from lethe.unlearning.outcome import Alone
from lethe.unlearning.requests import Assets, BaselineRequest, TrialRequest
from lethe.unlearning.worker_entry import run_baseline, run_trial

EVALUATION = Evaluation(max_new_tokens=4)


def metrics(report: FinalReport) -> dict[str, float]:
    """Return the values of a report that has to be complete."""
    assert report.verdict == "complete", report.reason
    return report.values


def baseline(assets: Assets) -> dict[str, float]:
    """Return the scores of the start model."""
    request = BaselineRequest(assets=assets, evaluation=EVALUATION, model=Path(assets.start))
    return metrics(run_baseline(request, lambda _: None, Alone()))


def trial(
    assets: Assets, folder: Path, adapter: AnyAdapter, rate: float, schedule: Schedule, stage: int = 0
) -> dict[str, float]:
    """Run GradDiff with AdamW, in the precision and quantisation of `assets`; return its last metrics."""
    recipe = Recipe(
        objective=GradDiff(),
        optimizer=AdamW(learning_rate=rate),
        adapter=adapter,
        engine=Engine(stage=stage, precision=assets.precision, quantisation=assets.quantisation),
        schedule=schedule,
        evaluation=EVALUATION,
    )
    run = UnlearnRun(recipe=recipe, digests=Digests(data=assets.data_digest, model=assets.model_digest))
    request = TrialRequest(run=run, assets=assets, reference=None, folder=folder)
    return metrics(run_trial(request, lambda _: None, Alone()))
