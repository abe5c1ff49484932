"""The reference of every key of a study, as Markdown from the configuration models: `docs/reference.md`.

`python -m lethe.config.reference`, in the folder `platform`, prints it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticUndefined

from lethe.config.base import field_condition
from lethe.config.error_messages import tagged_models, without_none
from lethe.config.run import Recipe
from lethe.config.scaling import ScalingStudy

INTRODUCTION = """\
# Every key of a study

A study is a YAML file in `search_spaces/`, or anywhere else. `--set KEY=VALUE` changes one key for a command,
`--dry-run` shows the whole result, and an unknown key is refused with the names that exist. `extends: NAME` takes over
another study; what follows is laid over it, and a key with the value `null` is taken out.

A capital word in a key, such as `objectives.METRIC`, stands for a metric, an arm or a key: `space.KEY` is searched in
place of `run.KEY`. A key without a default has to be given. `make docs` writes this file from the models in
`platform/lethe/config`.
"""
# What stands for the keys of a section that are names of the user's choice.
PLACEHOLDERS = {"space": "KEY", "objectives": "METRIC", "verdict": "METRIC", "arms": "ARM"}
TYPES = {"boolean": "true or false", "integer": "whole number", "number": "number", "string": "text", "null": "null"}
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "multipleOf": "a multiple of",
}


class _Schema(GenerateJsonSchema):
    """pydantic's JSON schema, in which a field with a validator of its own takes anything."""

    def function_plain_schema(self, schema: Any) -> dict[str, Any]:
        return {}


class _Section(NamedTuple):
    """The forms of a key that is a section: models by name, or one model under "". `default`: pydantic's."""

    models: Mapping[str, type[BaseModel]]
    default: Any = PydanticUndefined


def reference() -> str:
    """Return the Markdown text."""
    return "\n".join([INTRODUCTION, *_write("", _Section({"": ScalingStudy}), 2)])


def _write(key: str, section: _Section, level: int) -> Iterator[str]:
    """Yield the lines of the section `key`: what it is, a table of its keys, the sections in it."""
    if key:
        yield f"{'#' * level} {key}\n"
        yield from _describe(key, section)
    yield from _table(f"{key}." if key else "", section.models)
    for name, below in _sections(section.models).items():
        yield from _write(f"{key}.{name}" if key else name, below, level + 1 if key else level)


def _describe(key: str, section: _Section) -> Iterator[str]:
    absent = " Left out by default." if section.default is None else ""
    if "" in section.models:
        yield f"{_first_paragraph(section.models[''])}{absent}\n"
        return
    tag = "type" if "type" in next(iter(section.models.values())).model_fields else "name"
    default = getattr(section.default, tag, "")
    yield f"`{key}.{tag}` is one of these{f', by default `{default}`' if default else ''}:{absent}\n"
    yield from (f"- `{name}`: {_first_paragraph(model)}" for name, model in section.models.items())
    yield ""


def _first_paragraph(model: type[BaseModel]) -> str:
    return " ".join(inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].split())


def _sections(models: Mapping[str, type[BaseModel]]) -> dict[str, _Section]:
    """Return the sections among the keys of `models`, by key."""
    found = {}
    for model in models.values():
        for name in model.model_fields:
            if below := _section_of(model, name, nested="" not in models):
                found[name + below[0]] = below[1]
    return found


def _section_of(model: type[BaseModel], name: str, nested: bool) -> tuple[str, _Section] | None:
    """Return what stands behind the key of a section, and the section; None for a field that is a value. Components in
    a component (`nested`) are values: they have sections of their own."""
    field = model.model_fields[name]
    if model is ScalingStudy and name == "run":
        return "", _Section({"": Recipe})
    annotation, placeholder = without_none(field.annotation), ""
    if get_origin(annotation) is dict:
        annotation, placeholder = without_none(get_args(annotation)[1]), f".{PLACEHOLDERS.get(name, 'NAME')}"
    if variants := tagged_models(annotation):
        return None if nested else (placeholder, _Section(variants, field.default))
    if annotation is not model and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return placeholder, _Section({"": annotation}, field.default)
    return None


def _table(prefix: str, models: Mapping[str, type[BaseModel]]) -> Iterator[str]:
    """Yield the table of the keys that are values. A key that several models have alike has one row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for variant, model in models.items():
        schema = model.model_json_schema(schema_generator=_Schema)
        properties = schema.get("$defs", {}).get(model.__name__, schema)["properties"]  # a model in itself is a $ref
        for name, field in model.model_fields.items():
            if not _section_of(model, name, nested=bool(variant)) and (not variant or name not in ("name", "type")):
                takes, default = _takes(field, properties[name]), _default(properties[name])
                rows.setdefault((f"`{prefix}{name}`", takes, default, _meaning(model, name)), []).append(variant)
    if not rows:
        return
    several = len(models) > 1
    yield "| key |" + (" of |" if several else "") + " takes | default | meaning |"
    yield "|---" * (5 if several else 4) + "|"
    for (key, *cells), variants in sorted(rows.items(), key=lambda row: -len(row[1])):
        of = "all" if len(variants) == len(models) else ", ".join(f"`{name}`" for name in variants)
        yield f"| {' | '.join([key, *([of] if several else []), *cells])} |"
    yield ""


def _takes(field: FieldInfo, schema: Mapping[str, Any]) -> str:
    if variants := tagged_models(without_none(field.annotation)):
        return f"a section: {', '.join(f'`{variant}`' for variant in variants)}"
    return _words(schema)


def _words(schema: Mapping[str, Any]) -> str:
    """Return what a JSON schema accepts in words."""
    if options := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_words(option) for option in options))
    if values := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return ", ".join(f"`{_yaml(value)}`" for value in values)
    kind = schema.get("type", "")
    if kind == "array":
        items: Any = schema.get("items") or next(iter(schema.get("prefixItems", [])), {})
        return f"list: {_words(items)}"
    if kind == "object" or "$ref" in schema:
        return "a section"
    bounds = [f"{words} {schema[bound]:g}" for bound, words in BOUNDS.items() if bound in schema]
    pattern = [f"like `{schema['pattern']}`"] if "pattern" in schema else []
    return ", ".join([TYPES.get(kind, "any value"), *bounds, *pattern])


def _default(schema: Mapping[str, Any]) -> str:
    """Return a property's default, empty where it has none and the key is needed."""
    if "default" not in schema:
        return ""
    default = schema["default"]
    return f"`{default['name'] if isinstance(default, dict) and 'name' in default else _yaml(default)}`"


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _meaning(model: type[BaseModel], name: str) -> str:
    needs = ", ".join(
        " or ".join(f"`{other}: {_yaml(value)}`" for value in values)
        for other, values in field_condition(model, name).items()
    )
    return "; ".join(filter(None, [model.model_fields[name].description or "", needs and f"only with {needs}"]))


if __name__ == "__main__":
    print(reference(), end="")
