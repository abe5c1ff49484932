"""Audits of finished models: one file each, with one contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lethe.audits.base import Audited
from lethe.audits.prompts import ask_otherwise
from lethe.audits.quantisation import quantise
from lethe.audits.relearning import relearn
from lethe.records import AuditRecord

__all__ = ["AUDITS", "Audited"]

AUDITS: dict[str, Callable[[Audited, Any], Iterator[AuditRecord]]] = {
    "relearning": relearn,
    "quantisation": quantise,
    "prompts": ask_otherwise,
}
