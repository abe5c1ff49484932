"""From a scaling study to its points: what is timed, and where a search runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lethe.config.compare import Arm, arm_parts
from lethe.config.messages import refused
from lethe.config.model import AnyModel
from lethe.config.run import Recipe
from lethe.config.scaling import ScalingStudy
from lethe.config.study import Study
from lethe.errors import BadInput
from lethe.records import Scalar


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
        """What tells it from every other."""
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
        """What tells it from every other."""
        return {"part": self.part, "size": self.size, "arm": self.arm, "forget": self.forget}

    @property
    def models(self) -> str:
        """Names the pair of models that it reads: other arms share it."""
        return f"{self.size}/{self.forget}"


def cost_points(study: ScalingStudy) -> tuple[CostPoint, ...]:
    """Each once: sizes x arms, then the axes at the base; smallest groups of workers first, since another number of
    workers needs other processes."""
    found: dict[tuple[Scalar, ...], CostPoint] = {}
    models = study.models()
    for size, arm, rows, workers, stage in _settings(study):
        recipe = _recipe(study, arm, rows, workers, stage)
        engine = recipe.engine
        point = CostPoint(size, arm, recipe.schedule.batch_size, engine.workers, engine.stage, models[size], recipe)
        found.setdefault(tuple(point.labels.values()), point)
    return tuple(sorted(found.values(), key=lambda point: point.workers))


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
    """The arm's fixed values; what it would search has its default, since costs do not depend on it."""
    run: dict[str, Any] = {**_parts(study, arm)["run"]}
    given = {
        "schedule": {"batch_size": rows},
        "engine": {"workers": workers, "stage": stage},
    }
    for family, fields in given.items():
        run[family] = {**run.get(family, {}), **{key: value for key, value in fields.items() if value is not None}}
    try:
        return Recipe.model_validate(run)
    except ValidationError as error:
        raise refused(error, Recipe, f"scaling.arms.{arm}: run.") from None


def search_points(study: ScalingStudy) -> tuple[SearchPoint, ...]:
    """Every arm that is searched at every size, smallest first as they are named; then other forget sets at the base."""
    quality = study.scaling.quality
    arms = quality.arms or (next(iter(study.scaling.arms)),)
    own = study.benchmark.forget
    sets = [(size, own) for size in quality.sizes] + [(study.scaling.base, f) for f in quality.forget if quality.sizes]
    pairs = dict.fromkeys(sets)
    return tuple(SearchPoint(s, arm, forget, member(study, s, arm, forget)) for arm in arms for s, forget in pairs)


def member(study: ScalingStudy, size: str, arm: str, forget: str, run: Mapping[str, Any] | None = None) -> Study:
    """The plain study of one size, arm and forget set; with `run` a single trial of these fixed values."""
    whole = study.model_dump(mode="json", exclude={"scaling", "compare"})
    parts = _parts(study, arm) if run is None else {"run": dict(run), "space": {}}
    name = f"{study.name}-{size}-{arm}-{forget}".replace("+", "-")
    changed = {
        **parts,
        "name": name if run is None else f"{name}-transfer",
        "model": study.models()[size].model_dump(mode="json"),
        "benchmark": {**whole["benchmark"], "forget": forget},
        "search": {**whole["search"], **({} if parts["space"] else {"trials": 1})},
    }
    where = f"scaling.arms.{arm}."
    try:
        return Study.model_validate({**whole, **changed})
    except ValidationError as error:
        raise refused(error, Study, where) from None
    except BadInput as error:
        raise BadInput(f"{where}{error}") from None


def _parts(study: ScalingStudy, arm: str) -> dict[str, Any]:
    given: Arm = study.scaling.arms[arm]
    return arm_parts(study.run, study.space, given)
