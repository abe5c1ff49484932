"""Frozen values with a content digest: the base of every configuration model."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable configuration value that refuses unknown keys and non-finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def canonical(self) -> str:
        """One JSON text per value: sorted keys, no spaces."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """16 hex digits that name this value's content."""
        return short_digest(self.canonical())


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def short_digest(text: str | bytes) -> str:
    """The first 16 hex digits of SHA-256."""
    raw = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(raw).hexdigest()[:16]
