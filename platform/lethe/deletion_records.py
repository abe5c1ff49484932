"""Deletion records: what was to be forgotten, what was done, and what holds of the model, without any row's text."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from lethe.records import AuditRecord, Record, Scalar, VerdictRecord

FORMAT: Literal["lethe deletion record, version 1"] = "lethe deletion record, version 1"


class ModelIdentity(Record):
    """A model by the bytes of its configuration, weights and tokenizer. `name`: as people call it; `base_sha256`: of
    the model that an adapter belongs on, None for a whole model."""

    name: str
    sha256: str
    base_sha256: str | None = None

    def same_files(self, other: ModelIdentity) -> bool:
        """Return True if the files of both are equal, whatever their names."""
        return (self.sha256, self.base_sha256) == (other.sha256, other.base_sha256)


class Request(Record):
    """The rows that were to be forgotten, in order. `rows[i]`: HMAC-SHA256 of row i + 1 with `salt` (hex), as
    `lethe.data.privacy.row_hash` gives it."""

    salt: str
    rows: tuple[str, ...]


class Evidence(Record):
    """One metric of the model before and after, and of the oracle; None where a model lacks it."""

    metric: str
    meaning: str
    before: float | None
    after: float | None
    oracle: float | None


class DeletionRecord(Record):
    """One request and the model that answers it.

    `earlier`: how many rows the requests have that the model before answered, by study. `method`: settings of the run
    by dotted name. `verdict`: None where no criterion about forgetting could be checked. `unchecked`: a sentence for
    each thing that nobody looked at. `by`: who stands for the record, "" for nobody.
    Times are ISO 8601 in UTC.
    """

    format: Literal["lethe deletion record, version 1"] = FORMAT
    written: str
    by: str
    study: str
    trial: int
    began: str
    ended: str
    request: Request
    earlier: dict[str, int]
    before: ModelIdentity
    after: ModelIdentity
    method: dict[str, Scalar]
    verdict: VerdictRecord | None
    evidence: tuple[Evidence, ...]
    audits: tuple[AuditRecord, ...]
    unchecked: tuple[str, ...]
    software: dict[str, str]


class Seal(Record):
    """The seal of a record: its content's SHA-256, and a signature (Ed25519, hex) with the key that checks it, both
    empty where nobody signed with a key."""

    sha256: str
    signature: str = ""
    public_key: str = ""


def content_sha256(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a record's content, which does not depend on the order of keys or on white space."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
