"""Frozen values with a content digest: the base of every configuration model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable configuration value that refuses unknown keys and non-finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """As pydantic's, of what `kept` keeps at every depth.

        Not a serializer of pydantic's, which would make an ordinary error of a Ctrl-C inside it.
        """
        return _kept(self, super().model_dump(**options))

    def model_dump_json(self, **options: Any) -> str:
        """`model_dump` as JSON."""
        return json.dumps(self.model_dump(mode="json", **options))

    def kept(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Without unused fields, so that values which mean the same have the same digest."""
        return {key: value for key, value in dumped.items() if is_used(type(self), vars(self), key)}

    def canonical(self) -> str:
        """One JSON text per value: sorted keys, no spaces."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """16 hex digits that name this value's content."""
        return short_digest(self.canonical())


def _kept(value: Any, dumped: Any) -> Any:
    """`dumped` is what pydantic made of `value`."""
    if isinstance(value, Frozen):
        return value.kept({key: _kept(getattr(value, key), below) for key, below in dumped.items()})
    if isinstance(value, Mapping):
        return {key: _kept(*pair) for key, *pair in zip(dumped, value.values(), dumped.values(), strict=True)}
    if isinstance(value, tuple | list):
        return type(dumped)(_kept(*pair) for pair in zip(value, dumped, strict=True))
    return dumped


def only_where(**values: Any) -> dict[str, Any]:
    """As a field's `json_schema_extra`: the field means something only where other fields have these values.

    Needed fields come first in the alphabet: a search suggests a variant's parameters in that order.
    """
    return {"needs": values}


def field_condition(model: type[BaseModel], field: str) -> dict[str, Any]:
    """What `needs` says of a field: {} for most."""
    extra = model.model_fields[field].json_schema_extra
    return extra.get("needs", {}) if isinstance(extra, dict) else {}


def is_used(model: type[BaseModel], given: Mapping[str, Any], field: str) -> bool:
    """Whether `model` has the field, and the values of others (`given`, else their defaults) leave it a meaning."""
    fields = model.model_fields
    return field in fields and all(
        given.get(o, fields[o].default) == v for o, v in field_condition(model, field).items()
    )


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def short_digest(text: str | bytes) -> str:
    """The first 16 hex digits of SHA-256."""
    raw = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(raw).hexdigest()[:16]
