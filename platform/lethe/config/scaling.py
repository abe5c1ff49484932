"""Scaling studies: models of several sizes, of which each is timed and some are searched."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from lethe.config import loading
from lethe.config.base import Frozen, canonical_json, short_digest
from lethe.config.benchmarks import BENCHMARKS
from lethe.config.comparison import Arm, Name, arm_parts
from lethe.config.devices import with_devices
from lethe.config.error_messages import to_user_error
from lethe.config.model import AnyModel
from lethe.config.study import Study
from lethe.errors import UserError, unknown_name

# Sizes: one is held out, and two or three parameters need one more.
FEWEST = {"auto": 4, "power": 4, "linear": 4, "offset": 5}
Count = Annotated[int, Field(ge=1)]


class Cost(Frozen):
    """The timed points. Every size and arm is timed with the study's own batch and engine; all points in turn, `rounds`
    times, so that a spell in which the machine is slow meets every point and not a few.

    The axes below vary at the base size with the first arm; `workers` and `stage` are crossed, and every number of
    workers is also timed with as many times the rows.
    """

    steps: int = Field(20, ge=4, description="timed optimizer steps of a point in each round")
    rounds: int = Field(3, ge=1, description="times that all points are timed, one after the other")
    batch: tuple[Count, ...] = Field((), description="forget rows in a step")
    workers: tuple[Count, ...] = Field((), description="numbers of workers")
    stage: tuple[Literal[0, 1, 2, 3], ...] = Field((), description="ZeRO stages")


class Quality(Frozen):
    """The searches: at each of `sizes` the study's `space` is searched as `search` says. Forget sets beyond the
    benchmark's own are searched at the base size."""

    sizes: tuple[str, ...] = Field((), description="sizes that are searched")
    arms: tuple[str, ...] = Field((), description="none: the first")
    forget: tuple[str, ...] = Field((), description="further forget sets")
    target_of_start: float = Field(0.75, gt=0, lt=1, description="of the first objective: what counts as forgotten")
    transfer: bool = Field(True, description="take the setting found at the smallest size to the largest")


class Scaling(Frozen):
    """The design of a scaling study: `sizes` lay fields over the study's model, or name another; `arms` lay `run` and
    `space` over the study's."""

    sizes: dict[Name, dict[str, Any]] = Field(description="fields of `model` by the size's name")
    arms: dict[Name, Arm] = Field(min_length=1)
    base: str = Field(description="the size at which the axes of `cost` vary")
    cost: Cost = Cost()
    quality: Quality = Quality()
    form: Literal["auto", "power", "linear", "offset"] = Field(
        "auto", description="of the laws; auto: by held-out error"
    )

    @model_validator(mode="after")
    def _can_be_fitted(self) -> Self:
        named = "a law with an offset" if self.form == "offset" else "a power law"
        if len(self.sizes) < FEWEST[self.form]:
            need = f"{named} needs {FEWEST[self.form]}, the largest of which is held out"
            raise UserError(f"scaling.sizes: {len(self.sizes)} sizes: {need}")
        for key, given, known in (
            ("base", [self.base], self.sizes),
            ("quality.sizes", self.quality.sizes, self.sizes),
            ("quality.arms", self.quality.arms, self.arms),
        ):
            for name in given:
                if name not in known:
                    raise unknown_name(f"scaling.{key}", name, known)
        for key in ("cost.batch", "cost.workers", "cost.stage", "quality.sizes", "quality.forget"):
            section, field = key.split(".")
            _check_axis(f"scaling.{key}", getattr(getattr(self, section), field))
        if twice := _twice(self.quality.arms):
            raise UserError(f"scaling.quality.arms: {twice} is named twice")
        return self


def _check_axis(key: str, values: Sequence[Hashable]) -> None:
    if twice := _twice(values):
        raise UserError(f"{key}: {twice} is named twice: every point is measured once")
    if len(values) == 1:
        raise UserError(f"{key}: an axis of one value, {values[0]}: give two, or leave it out and set it in the study")


def _twice(values: Iterable[Hashable]) -> str | None:
    seen: set[Hashable] = set()
    for value in values:
        if value in seen:
            return str(value)
        seen.add(value)
    return None


class ScalingStudy(Study):
    """A study with a `scaling` section: its `benchmark`, `run`, `space` and `search` hold at every size."""

    scaling: Scaling

    @model_validator(mode="after")
    def _sizes_differ(self) -> Self:
        if not self.benchmark.has_forget_sets:
            known = ", ".join(sorted(name for name, kind in BENCHMARKS.items() if kind.has_forget_sets))
            raise UserError(
                f"benchmark.name: scaling studies vary the forget set, {self.benchmark.name} has one: "
                f"choose from {known}"
            )
        seen: dict[str, str] = {}
        for name, model in self.models().items():
            other = seen.setdefault(model.canonical(), name)
            if other != name:
                raise UserError(f"scaling.sizes: {other} and {name} are the same model: every point is measured once")
        return self

    def models(self) -> dict[str, AnyModel]:
        """Return the model of every size by the size's name. Raises UserError for one that is not valid."""
        return {name: self._model(name, given) for name, given in self.scaling.sizes.items()}

    def _model(self, size: str, given: dict[str, Any]) -> AnyModel:
        base = self.model.model_dump(mode="json")
        fields = {**(base if given.get("name", base["name"]) == base["name"] else {}), **given}
        try:
            return TypeAdapter(AnyModel).validate_python(fields)
        except ValidationError as error:
            raise to_user_error(error, type(self.model), f"scaling.sizes.{size}.") from None

    def parts(self) -> tuple[Study, ...]:
        """Return the plain study of every arm. Raises UserError, with the arm's key, for one that is not valid."""
        return tuple(self.arm_study(arm) for arm in self.scaling.arms)

    def arm_study(self, arm: str, changed: Mapping[str, Any] | None = None) -> Study:
        """Return the plain study of an arm, with other sections where they are `changed`; one trial where nothing is
        searched. Raises UserError, with the arm's key, for a study that is not valid."""
        dumped = self.model_dump(mode="json", exclude={"scaling", "compare"})
        dumped |= {**arm_parts(self.run, self.space, self.scaling.arms[arm]), **(changed or {})}
        if not dumped["space"]:
            dumped["search"]["trials"] = 1
        where = f"scaling.arms.{arm}."
        try:
            return Study.model_validate(dumped)
        except ValidationError as error:
            raise to_user_error(error, Study, where) from None
        except UserError as error:
            raise UserError(f"{where}{error}") from None

    def identity(self) -> str:
        """Return `Study.identity` with the design in it."""
        return short_digest(canonical_json([super().identity(), self.scaling.model_dump(mode="json")]))


PREFIX = "scaling-"


def load_scaling(name_or_path: str, overrides: Iterable[str] = ()) -> ScalingStudy:
    """Return a scaling study by name (`tofu` finds `scaling-tofu`) or path, with overrides as in `load_study`."""
    known = {name for name in loading.spaces() if name.startswith(PREFIX)}
    by_path = name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path
    if not by_path and PREFIX + name_or_path.removeprefix(PREFIX) not in known:
        raise unknown_name("scaling study", name_or_path, (name.removeprefix(PREFIX) for name in known))
    raw = loading.read(name_or_path if by_path else PREFIX + name_or_path.removeprefix(PREFIX))
    for assignment in overrides:
        raw = loading.assign(raw, assignment)
    if "scaling" not in raw:
        raise UserError(f"{name_or_path} has no section scaling: `sweep` runs it, `scaling` wants sizes and arms")
    if raw.get("compare"):
        raise UserError("compare: a scaling study has arms of its own, scaling.arms: take compare out")
    try:
        return ScalingStudy.model_validate(with_devices(raw))
    except ValidationError as error:
        raise to_user_error(error, ScalingStudy) from None
