"""The timed points of a scaling study, and the untrained models that they run on: a step costs the same with them.

Points run one after the other on a warm group, since two at once would time each other, and in rounds: a machine that
others use has slow minutes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import ray

from lethe.benchmarks.base import Benchmark
from lethe.config.base import canonical_json, short_digest
from lethe.config.model import AnyModel, EmbeddedModel
from lethe.models.hashing import model_digest
from lethe.models.tokenizer import as_pretrained, train_tokenizer
from lethe.pool.messages import EntryPoint
from lethe.pool.resources import Shape
from lethe.pool.run_queue import RunQueue
from lethe.pool.worker_pool import Pool
from lethe.records import Scalar, TrialRecord
from lethe.scaling.design import CostPoint
from lethe.scaling.measure import CostPointReport, CostPointRequest
from lethe.storage.paths import atomic_folder, home
from lethe.storage.replica import ensure_local, share_with_nodes
from lethe.study.model_sources import PARTS
from lethe.study.preparation import model_folders
from lethe.study.recorder import read_result, trial_record, write_result
from lethe.unlearning.requests import Assets

MODEL_VERSION = 1  # raise it when a change of the code makes other untrained models


def untrained_model(benchmark: Benchmark, model: AnyModel, registry: str | None = None) -> Path:
    """Return the folder of a model to time, with the benchmark's tokenizer; `registry` as in `find_model`.

    A model of the embedded family gets random weights and is cached; a model that the user brings is taken as it is,
    and the base of one that is fine-tuned.
    """
    if not isinstance(model, EmbeddedModel):
        folder = next(iter(model_folders(model, registry).values()))
        return share_with_nodes(folder, "models", model_digest(folder), PARTS)
    texts = [text for row in benchmark.training_rows(include_forget=True) for text in (row.question, row.answer)]
    content = canonical_json([MODEL_VERSION, model.model_dump(mode="json"), texts])
    folder = home() / "models" / f"untrained-{short_digest(content)}"
    if not ensure_local(folder):
        with atomic_folder(folder) as fresh:
            _write_untrained(model, texts, fresh)
    return folder


def _write_untrained(model: EmbeddedModel, texts: list[str], folder: Path) -> None:
    import torch

    from lethe.models.pretraining import new_model, save

    tokenizer = as_pretrained(train_tokenizer(texts, model.vocab_size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(model.seed)
        save(new_model(model, len(tokenizer)), folder)
    tokenizer.save_pretrained(folder)


MEASUREMENT_VERSION = 1  # raise it when a change of the measurement makes earlier results incomparable


@dataclass(frozen=True)
class Timing:
    """One measurement of a point: `steps` optimizer steps, in round `turn`, from 0."""

    point: CostPoint
    assets: Assets
    steps: int
    turn: int = 0

    @property
    def params(self) -> dict[str, Scalar]:
        """What the point is called by, as parameters of a trial."""
        return dict(self.point.labels)

    @property
    def digest(self) -> str:
        """A digest of everything that the result depends on, and of the round."""
        recipe = self.point.recipe.model_dump(mode="json")
        given = [MEASUREMENT_VERSION, recipe, self.assets.data_digest, self.assets.model_digest, self.steps]
        return short_digest(canonical_json([*given, *([self.turn] if self.turn else [])]))


def run_timing(timing: Timing, pool: Pool, folder: Path) -> tuple[TrialRecord, bool]:
    """Return the result of one measurement, numbered 0, and whether it was made now: one that lies in `folder` is not
    made again."""
    stored = read_result(folder / timing.digest)
    return (stored, False) if stored else (_measure(timing, pool, folder), True)


def joined_rounds(number: int, rounds: Sequence[TrialRecord]) -> TrialRecord:
    """Return a point's result from those of its rounds: the steps of all, and the medians of their metrics. Where a
    round failed, its result is the point's."""
    if failed := [result for result in rounds if result.verdict != "complete"]:
        return failed[0].model_copy(update={"number": number, "run": rounds[0].run})
    steps = [step for result in rounds for step in result.series]
    metrics = {key: median(result.metrics[key] for result in rounds) for key in rounds[0].metrics}
    series = tuple(step | {"epoch": float(i)} for i, step in enumerate(steps, 1))
    changes = {"number": number, "metrics": metrics, "series": series, "ended": rounds[-1].ended}
    return rounds[0].model_copy(update=changes)


def describe_point(point: CostPoint, result: TrialRecord, fresh: bool) -> str:
    """Return the terminal's line of a point; without `fresh` it says that the result is from disk."""
    where = f"{point.size:<6} {point.arm:<8} {point.rows:>2} rows  {point.workers} x stage {point.stage}"
    m = result.metrics
    if result.verdict != "complete":
        return f"{where}  {result.verdict} {result.reason}"
    times = f"{m['step_seconds'] * 1e3:8.1f} ms a step ({m['step_cpu_seconds'] * 1e3:.1f} CPU)"
    rest = f"{m['tokens_per_second']:7.0f} tokens/s  peak {m['peak_memory_mb']:.0f} MiB"
    return f"{where}  {times}  {rest}{'' if fresh else '  (from disk)'}"


def _measure(timing: Timing, pool: Pool, folder: Path) -> TrialRecord:
    run, point = timing.digest, timing.point
    began = time.time()
    pool.log_to(folder)
    request = CostPointRequest(recipe=point.recipe, assets=timing.assets, steps=timing.steps)
    queued = pool.submit(run, EntryPoint.COST_POINT, request, Shape.of(point.recipe.engine))
    try:
        report = pool.result(queued)
    except KeyboardInterrupt:
        ray.get(pool.queue.call(RunQueue.stop, run))
        raise
    ray.get(pool.queue.call(RunQueue.withdraw, run, run))
    measured = report.steps if isinstance(report, CostPointReport) else ()
    series = [{"epoch": float(i), **step} for i, step in enumerate(measured, 1)]
    result = trial_record(0, run, timing.params, folder / run, series, report, began=began)
    write_result(result)
    return result
