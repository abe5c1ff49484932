"""Frozen values with a content digest: the base of every configuration model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails


class Frozen(BaseModel):
    """An immutable configuration value that refuses unknown keys, non-finite numbers, and true and false for
    numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, given: Any) -> Any:
        """Refuse true and false where a number is due: pydantic reads them as 1 and 0."""
        if isinstance(given, dict):
            for name, value in given.items():
                if _has_truth(value) and name in _numbers(cls):
                    error = InitErrorDetails(type="float_type", loc=(name,), input=value)
                    raise ValidationError.from_exception_data(cls.__name__, [error])
        return given

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Return pydantic's dump without the fields that `canonical_fields` leaves out, at every depth."""
        # Not a serializer of pydantic's, which would make an ordinary error of a Ctrl-C inside it.
        dumped: dict[str, Any] = _canonical(self, super().model_dump(**options))
        return dumped

    def model_dump_json(self, **options: Any) -> str:
        """Return `model_dump` as JSON text."""
        return json.dumps(self.model_dump(mode="json", **options))

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return `dumped` without unused fields, so that values with the same meaning have the same digest."""
        return {key: value for key, value in dumped.items() if self._is_written(key)}

    def _is_written(self, key: str) -> bool:
        extra = type(self).model_fields[key].json_schema_extra if key in type(self).model_fields else None
        left_out = isinstance(extra, dict) and extra.get("omitted", False)
        if left_out and getattr(self, key) == type(self).model_fields[key].default:
            return False
        return is_used(type(self), vars(self), key)

    def canonical(self) -> str:
        """Return this value as JSON with sorted keys and no spaces: equal values give equal text."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """Return 16 hex digits that name this value's content."""
        return short_digest(self.canonical())


def _has_truth(value: Any) -> bool:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(each, bool) for each in values)


@lru_cache
def _numbers(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of the fields that take numbers and neither true nor false."""
    return frozenset(
        name
        for name, field in model.model_fields.items()
        if (kinds := set(_kinds(field.annotation))) & {int, float} and not kinds & {bool, Any}
    )


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield the plain types of an annotation, those of a Literal's values too."""
    if arguments := get_args(annotation):
        for argument in arguments:
            yield from _kinds(argument)
    else:
        yield annotation if isinstance(annotation, type) or annotation is Any else type(annotation)


def _canonical(value: Any, dumped: Any) -> Any:
    """Apply `canonical_fields` at every depth of `dumped`, which pydantic made of `value`."""
    if isinstance(value, Frozen):
        return value.canonical_fields({key: _canonical(getattr(value, key), item) for key, item in dumped.items()})
    if isinstance(value, Mapping):
        return {key: _canonical(*pair) for key, *pair in zip(dumped, value.values(), dumped.values(), strict=True)}
    if isinstance(value, tuple | list):
        return type(dumped)(_canonical(*pair) for pair in zip(value, dumped, strict=True))
    return dumped


OMITTED_AT_DEFAULT: dict[str, Any] = {"omitted": True}
"""The `json_schema_extra` of a field that was added later and is left out at its default, so that earlier runs keep
their digests."""


def only_where(**values: Any) -> dict[str, Any]:
    """Return a `json_schema_extra` for a field that means something only where each of these other fields has its value
    of `values`, or one of them where a tuple is given."""
    return {"needs": {field: value if isinstance(value, tuple) else (value,) for field, value in values.items()}}


def field_condition(model: type[BaseModel], field: str) -> dict[str, tuple[Any, ...]]:
    """Return the values of `only_where` on a field of `model` by field, {} for a field without a condition."""
    extra = model.model_fields[field].json_schema_extra
    condition: Any = extra.get("needs", {}) if isinstance(extra, dict) else {}
    return dict(condition)


def is_used(model: type[BaseModel], given: Mapping[str, Any], field: str) -> bool:
    """Return whether `model` has the field and its condition holds for the values of others (`given`, else their
    defaults)."""
    fields, field = model.model_fields, field_of(model, field)
    return field in fields and all(
        given.get(o, fields[o].default) in v for o, v in field_condition(model, field).items()
    )


def field_of(model: type[BaseModel], key: str) -> str:
    """Return the field of `model` that holds `key`: the key itself, or `settings` for `settings.NAME` where `settings`
    is a field of numbers by name."""
    field, dot, _ = key.partition(".")
    numbers = dot and field in model.model_fields and get_origin(model.model_fields[field].annotation) is dict
    return field if numbers else key


def nested(key: str, value: Any, beside: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return `value` at `key` of a section, for `settings.NAME` inside of `settings`, with what is there `beside`."""
    field, dot, name = key.partition(".")
    return {field: {**((beside or {}).get(field) or {}), name: value}} if dot else {field: value}


def flatten(value: Frozen) -> dict[str, Any]:
    """Return a value's JSON as dotted names and scalars, for a table or a tracker; a list becomes its JSON text."""
    return dict(leaves(value.model_dump(mode="json")))


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested JSON under dotted names; a list is one value, its JSON text."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, canonical_json(value) if isinstance(value, list) else value


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def short_digest(text: str | bytes) -> str:
    """Return the first 16 hex digits of the SHA-256 of `text`."""
    raw = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(raw).hexdigest()[:16]
