"""The design of a scaling study: its timed points and searches, the memory that they need, and `--dry-run`'s preview.

Points that cannot run (sizes that do not fit in memory, impossible settings) are refused before the first is timed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError
from rich.table import Table

from lethe.config.comparison import arm_parts
from lethe.config.error_messages import to_user_error
from lethe.config.model import AnyModel, EmbeddedModel
from lethe.config.run import Recipe
from lethe.config.scaling import ScalingStudy
from lethe.config.study import Study
from lethe.errors import UserError
from lethe.models.transformer import BatchShape, Transformer
from lethe.records import Scalar
from lethe.scaling.memory import Layout, peak
from lethe.terminal import Terminal


@dataclass(frozen=True)
class CostPoint:
    """A fixed setting whose steps are timed. `rows`: forget rows in a step, over all workers."""

    size: str
    arm: str
    rows: int
    workers: int
    stage: int
    model: AnyModel
    recipe: Recipe

    @property
    def labels(self) -> dict[str, Scalar]:
        """The point's parameters in the record, different for every point."""
        axes = {"rows": self.rows, "workers": self.workers, "stage": self.stage}
        return {"part": "cost", "size": self.size, "arm": self.arm, **axes}


@dataclass(frozen=True)
class SearchPoint:
    """A small sweep at one size, with one arm and one forget set."""

    size: str
    arm: str
    forget: str
    study: Study
    part: str = "quality"

    @property
    def labels(self) -> dict[str, Scalar]:
        """The search's parameters in the record, different for every search."""
        return {"part": self.part, "size": self.size, "arm": self.arm, "forget": self.forget}

    @property
    def models(self) -> str:
        """Name of the pair of models (start and oracle) that the search reads; arms share it."""
        return f"{self.size}/{self.forget}"


def cost_points(study: ScalingStudy) -> tuple[CostPoint, ...]:
    """Return each timed point once: sizes x arms, and the axes at the base.

    They are sorted by their number of workers, since another number needs other processes.
    """
    points: dict[tuple[Scalar, ...], CostPoint] = {}
    models = study.models()
    for size, arm, rows, workers, stage in _settings(study):
        recipe = _recipe(study, arm, rows, workers, stage)
        engine = recipe.engine
        point = CostPoint(size, arm, recipe.schedule.batch_size, engine.workers, engine.stage, models[size], recipe)
        points.setdefault(tuple(point.labels.values()), point)
    return tuple(sorted(points.values(), key=lambda point: point.workers))


Setting = tuple[str, str, int | None, int | None, int | None]  # size, arm, rows, workers, stage; None: the study's own


def _settings(study: ScalingStudy) -> Iterator[Setting]:
    scaling = study.scaling
    base, first = scaling.base, next(iter(scaling.arms))
    yield from ((size, arm, None, None, None) for size in scaling.sizes for arm in scaling.arms)
    yield from ((base, first, rows, None, None) for rows in scaling.cost.batch)
    own = _recipe(study, first, None, None, None)
    for workers in scaling.cost.workers or (own.engine.workers,):
        for stage in scaling.cost.stage or (own.engine.stage,):
            yield base, first, None, workers, stage
        yield base, first, own.schedule.batch_size * workers, workers, None  # weak scaling


def _recipe(study: ScalingStudy, arm: str, rows: int | None, workers: int | None, stage: int | None) -> Recipe:
    """Return the recipe of the arm's fixed values; searched parameters keep their defaults, costs do not depend on
    them."""
    run: dict[str, Any] = arm_parts(study.run, study.space, study.scaling.arms[arm])["run"]
    axes: dict[str, dict[str, int | None]] = {
        "schedule": {"batch_size": rows},
        "engine": {"workers": workers, "stage": stage},
    }
    for family, fields in axes.items():
        run[family] = {**run.get(family, {}), **{key: value for key, value in fields.items() if value is not None}}
    try:
        return Recipe.model_validate(run)
    except ValidationError as error:
        raise to_user_error(error, Recipe, f"scaling.arms.{arm}: run.") from None


def search_points(study: ScalingStudy) -> tuple[SearchPoint, ...]:
    """Return each search: by arm the sizes in the study's order, then the other forget sets at the base size."""
    quality = study.scaling.quality
    arms = quality.arms or (next(iter(study.scaling.arms)),)
    own = study.benchmark.forget_set
    sets = [(size, own) for size in quality.sizes] + [(study.scaling.base, f) for f in quality.forget if quality.sizes]
    pairs = dict.fromkeys(sets)
    return tuple(SearchPoint(s, arm, forget, point_study(study, s, arm, forget)) for arm in arms for s, forget in pairs)


def point_study(study: ScalingStudy, size: str, arm: str, forget: str, run: Mapping[str, Any] | None = None) -> Study:
    """Return the plain study of one size, arm and forget set; with `run` a single trial of these fixed values.

    Raises UserError, with the arm's key, for a study that is not valid.
    """
    name = f"{study.name}-{size}-{arm}-{forget}".replace("+", "-")
    changed = {
        "name": name if run is None else f"{name}-transfer",
        "model": study.models()[size].model_dump(mode="json"),
        "benchmark": study.benchmark.with_forget_set(forget).model_dump(mode="json"),
    }
    return study.arm_study(arm, changed if run is None else {**changed, "run": dict(run), "space": {}})


PROCESS = 640 * 2**20  # bytes of a worker's libraries: 626 to 639 MiB were measured with models of 0.1 MB
LONGEST = 128  # tokens: of the embedded corpus's rows none is longer


def check_memory(study: ScalingStudy, available: float) -> None:
    """Raise UserError for a point that needs more than `available` bytes: predicted from shapes, nothing is built.

    Points whose shape is not known here are left to run.
    """
    for point in cost_points(study):
        need = predicted_memory(point)
        if need is not None and need > available:
            raise UserError(
                f"scaling.sizes.{point.size}: {point.workers} worker(s) with {point.rows} rows a step need"
                f" {need / 2**30:.3g} GiB, predicted, and there are {available / 2**30:.3g}: take it out, or lower"
                " run.schedule.batch_size or scaling.cost.batch"
            )


def predicted_memory(point: CostPoint) -> float | None:
    """Return the bytes of all of the point's workers on one machine; None for a model whose shape is not known."""
    if not isinstance(point.model, EmbeddedModel) or point.model.name != "embedded":
        return None
    shape = Transformer.of_embedded(point.model)
    rows = 2 * -(-point.rows // (point.workers * point.recipe.schedule.accumulation))
    longest = min(LONGEST, point.model.max_length)
    of_worker = peak(shape, Layout.of(point.recipe), BatchShape.uniform(rows, longest, longest // 2))
    start = 4.0 * shape.parameters  # the copy that a warm process keeps
    return point.workers * (of_worker.total + start + PROCESS)


def available_memory(study: ScalingStudy) -> float:
    """Return the free bytes of this machine, of its GPU where the study runs on one; infinite where it is elsewhere."""
    if study.first_recipe().engine.device == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else float("inf")
    import psutil

    return float(psutil.virtual_memory().available)


def check_points(study: ScalingStudy) -> None:
    """Raise UserError for a search or a timed point that is not valid, before anything is timed."""
    search_points(study)
    cost_points(study)


def preview(study: ScalingStudy) -> None:
    """Print the study as YAML, then its timed points with their predicted memory, and its searches."""
    console = Terminal(soft_wrap=True)
    console.print(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    timed = Table(
        "size", "arm", "rows", "workers", "stage", "predicted MiB", title="timed points", title_justify="left"
    )
    for point in cost_points(study):
        need = predicted_memory(point)
        mebibytes = "-" if need is None else f"{need / 2**20:.0f}"
        timed.add_row(*map(str, (point.size, point.arm, point.rows, point.workers, point.stage, mebibytes)))
    console.print(timed)
    searches = Table("size", "arm", "forget set", "trials", title="searches", title_justify="left")
    for search in search_points(study):
        searches.add_row(search.size, search.arm, search.forget, str(search.study.search.trials))
    console.print(searches)
