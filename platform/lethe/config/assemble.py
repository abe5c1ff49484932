"""From a study's fixed values and chosen parameters to one recipe's fields: the conditional space in one place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from lethe.config.base import is_used
from lethe.config.method import unread
from lethe.config.run import Recipe
from lethe.config.space import Choice, Parameter, Scalar, default_name, variants

Suggest = Callable[[str, Parameter], Scalar]


def possible(run: Mapping[str, Any], space: Mapping[str, Parameter]) -> dict[str, list[str]]:
    """By family, the names of the variants that a trial can have; [""] where there is one form, [] for plain values."""
    found: dict[str, list[str]] = {}
    for family in Recipe.model_fields:
        searched = space.get(f"{family}.name")
        if "" in variants(family):
            found[family] = [""]
        elif variants(family) and isinstance(searched, Choice):
            found[family] = [str(name) for name in searched.choices]
        elif variants(family):
            found[family] = [run.get(family, {}).get("name", default_name(family))]
        else:
            found[family] = []
    return found


def assemble(run: Mapping[str, Any], space: Mapping[str, Parameter], suggest: Suggest) -> dict[str, Any]:
    """A recipe's fields, not validated. Names are suggested first, that of the objective before those of what it reads,
    then active parameters in the order of their names, so that equal studies ask alike; fixed values that the chosen
    variant lacks or does not use are dropped."""
    fields = copy.deepcopy(dict(run))
    names = {family: given[0] for family, given in possible(run, space).items() if given}
    models: dict[str, type[BaseModel]] = {}
    silent: frozenset[str] = frozenset()
    for family in ("objective", *sorted(names.keys() - {"objective"})):
        if family in silent:
            continue
        name = str(suggest(f"{family}.name", space[f"{family}.name"])) if f"{family}.name" in space else names[family]
        fields[family] = {**fields.get(family, {}), **({"name": name} if name else {})}
        models[family] = variants(family)[name]
        if family == "objective":
            silent = unread(models[family])
    for key in sorted(space):
        family, _, field = key.partition(".")
        if family in silent:
            continue
        if not field:
            fields[family] = suggest(key, space[key])
        elif field != "name" and is_used(models[family], fields[family], field):
            fields[family][field] = suggest(key, space[key])
    for family, model in models.items():
        fields[family] = {key: value for key, value in fields[family].items() if is_used(model, fields[family], key)}
    return {family: value for family, value in fields.items() if family not in silent}


def resolved(run: Mapping[str, Any], space: Mapping[str, Parameter]) -> dict[str, Any]:
    """Every value that a trial can start from, defaults included, by family and variant: what an identity covers."""
    out: dict[str, Any] = {}
    for family, names in possible(run, space).items():
        if not names:
            out[family] = run.get(family, Recipe.model_fields[family].default)
        for name in names:
            model = variants(family)[name]
            given = {key: value for key, value in run.get(family, {}).items() if key in model.model_fields}
            full = {**model.model_construct().model_dump(mode="json"), **given}
            out.setdefault(family, {})[name] = {k: v for k, v in full.items() if f"{family}.{k}" not in space}
    return out
