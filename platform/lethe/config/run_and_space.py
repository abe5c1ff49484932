"""Checks of a study's `run` and `space`: what no trial could have, or what means nothing in any of them, is refused.

Every function that checks raises UserError with the key and the choices, and returns nothing where all is well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from pydantic import BaseModel, ValidationError

from lethe.config.adapter import Lora
from lethe.config.base import field_condition, field_of, nested
from lethe.config.error_messages import to_user_error
from lethe.config.objective import Objective
from lethe.config.optimizer import Optimizer
from lethe.config.run import Recipe
from lethe.config.space import Choice, FloatRange, Parameter, Scalar, assemble, possible, refusal, variants
from lethe.errors import UserError, unknown_name

Run = Mapping[str, Any]
Space = Mapping[str, Parameter]

BASELINE_FIELDS = (
    "engine.precision",
    "engine.quantisation",
    "engine.device",
    "evaluation.interim",
    "evaluation.share",
)
BASELINE_REASON = "start model and oracle are scored once, as the trials are, so a study has one of it"


def check_run_and_space(run: Run, space: Space) -> None:
    """Refuse values and ranges that no trial of the study could have."""
    _check_sections(run)
    _check_names(run, space)
    names = possible(run, space)
    fixed = dict(_leaves(run))
    if both := sorted(fixed.keys() & space.keys()):
        raise UserError(f"run.{both[0]}: is searched by space.{both[0]} as well: take one of them out")
    for key, value in fixed.items():
        for model, field in _owners("run", key, names):
            if reason := refusal(model, nested(field, value), field_of(model, field)):
                raise UserError(f"run.{key}: {reason}, given {value!r}")
    for key, parameter in space.items():
        if key.startswith("evaluation."):
            raise UserError(
                f"space.{key}: start model and oracle are scored once, so trials share one evaluation: set run.{key}"
            )
        if key in BASELINE_FIELDS:
            raise UserError(f"space.{key}: {BASELINE_REASON}: set run.{key}")
        _check_parameter(key, parameter, names)
    for section, keys in (("run", fixed), ("space", space)):
        for key in keys:
            _check_read(section, key, names["objective"])
            _check_used(section, key, run, space, _owners(section, key, names))
    _check_quantised(run, space, names)
    _check_stage(run, space, names)
    _check_corners(run, space)


def stages(run: Run, space: Space) -> list[Scalar]:
    """Return the ZeRO stage of every trial, or the ends of the stages that are searched."""
    searched = space.get("engine.stage")
    return list(searched.ends().values()) if searched else [run.get("engine", {}).get("stage", 0)]


def _check_quantised(run: Run, space: Space, names: dict[str, list[str]]) -> None:
    """Refuse a quantised base where a trial could train its weights or shard them: 4-bit weights do neither."""
    engine = run.get("engine", {})
    if engine.get("quantisation") is None:
        return
    key = f"run.engine.quantisation: {engine['quantisation']} trains adapters on a frozen base"
    for name in names["objective"]:
        if "adapter" in Objective.registered[name].ignored_fields:
            raise UserError(f"{key}, and the objective {name} has no adapter: take one of them out")
    low_rank = sorted(name for name, model in variants("adapter").items() if issubclass(model, Lora))
    for name in names["adapter"]:
        if name not in low_rank:
            raise UserError(f"{key}, and adapter.name {name} trains the base: choose from {', '.join(low_rank)}")
    if 3 in stages(run, space):
        raise UserError(f"{key}, which engine.stage 3 would shard: choose from 0, 1, 2")


def _check_stage(run: Run, space: Space, names: dict[str, list[str]]) -> None:
    """Refuse an optimizer under a ZeRO stage that it cannot do, in any trial."""
    if all("optimizer" in Objective.registered[name].ignored_fields for name in names["objective"]):
        return
    for name in names["optimizer"]:
        allowed = Optimizer.registered[name].stages
        for stage in stages(run, space):
            if stage not in allowed:
                known = " or ".join(map(str, allowed))
                raise UserError(f"optimizer.name: {name} needs engine.stage {known}, given {stage}")


def _check_sections(run: Run) -> None:
    for family, given in run.items():
        if family not in Recipe.model_fields:
            raise unknown_name("run key", family, Recipe.model_fields)
        if variants(family) and not isinstance(given, dict):
            raise UserError(f"run.{family}: must be a section with keys of its own, given {given!r}")


def _check_names(run: Run, space: Space) -> None:
    for family in Recipe.model_fields:
        known = [name for name in variants(family) if name]
        given = run.get(family, {}).get("name") if known else None
        if given is not None and given not in known:
            raise unknown_name(f"run.{family}.name", str(given), known)
        searched = space.get(f"{family}.name")
        if not known or searched is None:
            continue
        if not isinstance(searched, Choice):
            raise UserError(f"space.{family}.name.type: must be choice: choose from {', '.join(sorted(known))}")
        for name in searched.choices:
            if name not in known:
                raise unknown_name(f"choice in space.{family}.name", str(name), known)


def _leaves(run: Run) -> Iterator[tuple[str, Any]]:
    """Yield every fixed value with its dotted key."""
    for family, given in run.items():
        if variants(family):
            yield from ((f"{family}.{field}", value) for field, value in given.items())
        else:
            yield family, given


def _owners(section: str, key: str, names: dict[str, list[str]]) -> list[tuple[type[BaseModel], str]]:
    """Return the models, among those that the study can choose, that have this key's field, with the field's name.
    Raises UserError where none has it."""
    family, dot, field = key.partition(".")
    if names.get(family) == [] and not dot:
        return [(Recipe, family)]
    models = variants(family) if names.get(family) else {}
    owning = [models[name] for name in names.get(family, [])]
    if owners := [(model, field) for model in owning if field_of(model, field) in model.model_fields]:
        return owners
    known = sorted(_keys(names, family if models else None))
    if having := [name for name, model in models.items() if field in model.model_fields]:
        others = f"{' and '.join(having)} {'has' if len(having) == 1 else 'have'}"
        raise UserError(
            f"{section}.{key}: {', '.join(names[family])} has no {field}, {others}: take it out with "
            f"--set {section}.{key}=null, or choose from {', '.join(known)}"
        )
    raise unknown_name(f"{section} key", key, known)


def _keys(names: dict[str, list[str]], only: str | None = None) -> Iterator[str]:
    """Yield every dotted key that some possible recipe has, of one family where `only` is given."""
    for family, given in names.items():
        if only in (None, family):
            yield from dict.fromkeys(f"{family}.{f}" for name in given for f in variants(family)[name].model_fields)
            if not given:
                yield family


def _check_parameter(key: str, parameter: Parameter, names: dict[str, list[str]]) -> None:
    for model, field in _owners("space", key, names):
        if field == "name":  # each variant knows its own name only: see `_check_names`
            continue
        for where, value in parameter.ends().items():
            reason = refusal(model, nested(field, value), field_of(model, field))
            if reason and where == "between":
                raise UserError(f"space.{key}.type: {reason}, and a float range gives {value:g}")
            if reason:
                raise UserError(f"space.{key}.{where}: {reason}, given {value!r}")


def _check_read(section: str, key: str, objectives: list[str]) -> None:
    """Refuse a key that is ignored by every objective that the study can choose."""
    family = key.partition(".")[0]
    if all(family in Objective.registered[name].ignored_fields for name in objectives):
        out = f"run.{family}" if section == "run" else f"space.{key}"
        raise UserError(
            f"{section}.{key}: {', '.join(objectives)} reads no {family}: take it out with --set {out}=null"
        )


def _check_used(section: str, key: str, run: Run, space: Space, owners: list[tuple[type[BaseModel], str]]) -> None:
    """Refuse a field whose condition (`only_where`) holds in no trial."""
    family = key.partition(".")[0]

    def unmet(model: type[BaseModel], field: str) -> str | None:
        for other, values in field_condition(model, field_of(model, field)).items():
            searched = space.get(f"{family}.{other}")
            fixed = run.get(family, {}).get(other, model.model_fields[other].default)
            given = searched.choices if isinstance(searched, Choice) else (fixed,)
            if not set(values) & set(given):
                return f"needs {family}.{other} {' or '.join(map(str, values))}, given {', '.join(map(str, given))}"
        return None

    reasons = [unmet(model, field) for model, field in owners]
    if all(reasons):
        raise UserError(f"{section}.{key}: {reasons[0]}: take it out with --set {section}.{key}=null")


def _check_corners(run: Run, space: Space) -> None:
    """Refuse a study whose recipes all break a rule across fields: at both ends of every range, for every
    combination of variants. Where only some break one, such a trial is infeasible when it is met."""
    searched = [key for key in space if key.endswith(".name")]
    first: ValidationError | None = None
    for picked in product(*(space[key].ends().values() for key in searched)):
        for end in (0, -1):

            def suggest(key: str, parameter: Parameter, picked: Any = picked, end: int = end) -> Scalar:
                return picked[searched.index(key)] if key in searched else _end(parameter, end)

            try:
                Recipe.model_validate(assemble(run, space, suggest))
                return
            except ValidationError as error:
                first = first or error
    if first is not None:
        raise to_user_error(first, Recipe, "run.")


def _end(parameter: Parameter, end: int) -> Scalar:
    return parameter.choices[end] if isinstance(parameter, Choice) else (parameter.low, parameter.high)[end]


def check_first(first: tuple[Mapping[str, Any], ...], space: Mapping[str, Parameter]) -> None:
    """Refuse points of `search.first` with keys or values that the search could not propose itself."""
    for number, point in enumerate(first):
        where = f"search.first[{number}]"
        if not point:
            raise UserError(f"{where}: is empty: choose from {', '.join(sorted(space))}")
        for key, value in point.items():
            if key not in space:
                raise unknown_name(f"key in {where}", key, space)
            if reason := outside(space[key], value):
                raise UserError(f"{where}.{key}: {reason}, given {value!r}")
        if point in first[:number]:
            raise UserError(f"{where}: is the same point as search.first[{first.index(point)}]: take one of them out")


def outside(parameter: Parameter, value: Any) -> str | None:
    """Return why a parameter cannot have this value, or None."""
    if isinstance(parameter, Choice):
        known = any(type(value) is type(choice) and value == choice for choice in parameter.choices)
        return None if known else f"must be one of {', '.join(map(str, parameter.choices))}"
    kind = (int, float) if isinstance(parameter, FloatRange) else int
    if isinstance(value, bool) or not isinstance(value, kind) or not parameter.low <= value <= parameter.high:
        number = "a number" if isinstance(parameter, FloatRange) else "a whole number"
        return f"must be {number} from {parameter.low:g} to {parameter.high:g}"
    return None
