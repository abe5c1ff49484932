"""The timed points of a scaling study, one after the other on a warm group: two at once would time each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ray

from lethe.config.base import canonical_json, short_digest
from lethe.pool.groups import Pool
from lethe.pool.shape import Shape
from lethe.records import Scalar, TrialRecord
from lethe.scaling.design import CostPoint
from lethe.sweep.recorder import numbers, read_result, write_result
from lethe.tracking.tracker import Tracker
from lethe.training.assets import Assets

ENTRY = "lethe.scaling.measure:execute"
MEASURE = 1  # raise it when a change of the measurement makes earlier results incomparable

OnEnd = Callable[[CostPoint, TrialRecord, bool], None]


def run_points(
    points: Iterable[tuple[int, CostPoint, Assets]], steps: int, pool: Pool, tracker: Tracker, folder: Path, on_end: OnEnd
) -> tuple[tuple[TrialRecord, ...], bool]:
    """Results in order, and whether the user interrupted. What lies in `folder` is answered, not measured again.
    `on_end` gets each result, and whether it was measured now."""
    done: list[TrialRecord] = []
    try:
        for number, point, assets in points:
            stored = read_result(folder / _digest(point, assets, steps))
            result = stored and stored.model_copy(update={"number": number})
            result = result or _run(number, point, assets, steps, pool, tracker, folder)
            done.append(result)
            if stored:
                tracker.trial_began(number, result.run, result.params)
            tracker.trial_ended(result)
            on_end(point, result, stored is None)
    except KeyboardInterrupt:
        return tuple(done), True
    return tuple(done), False


def _digest(point: CostPoint, assets: Assets, steps: int) -> str:
    """Names a point by all that its result depends on."""
    recipe = point.recipe.model_dump(mode="json")
    return short_digest(canonical_json([MEASURE, recipe, assets.data_digest, assets.model_digest, steps]))


def _run(
    number: int, point: CostPoint, assets: Assets, steps: int, pool: Pool, tracker: Tracker, folder: Path
) -> TrialRecord:
    run = _digest(point, assets, steps)
    recipe = point.recipe.model_dump(mode="json")
    payload = {"entry": ENTRY, "recipe": recipe, "assets": assets.model_dump(mode="json"), "steps": steps}
    params: dict[str, Scalar] = dict(point.labels)
    tracker.trial_began(number, run, params)
    began = time.time()
    ray.get(pool.mailbox.submit.remote(run, payload, Shape.of(point.recipe.engine).key))
    try:
        report: dict[str, Any] = pool.result(pool.mailbox.next_report.remote(run, 0))
    except KeyboardInterrupt:
        ray.get(pool.mailbox.stop.remote(run))
        raise
    ray.get(pool.mailbox.forget.remote(run))
    result = TrialRecord(
        number=number,
        run=run,
        verdict=report["verdict"],
        reason=str(report.get("reason", "")),
        params=params,
        metrics=numbers({key: value for key, value in report.items() if key != "steps"}),
        series=tuple({"epoch": float(i), **step} for i, step in enumerate(report.get("steps", ()), 1)),
        folder=str(folder / run),
        began=began,
        ended=time.time(),
    )
    write_result(result)
    return result
