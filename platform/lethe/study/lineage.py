"""The requests that a model answers already: a later study on it knows them, and checks that they stay answered."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from lethe.benchmarks.base import Benchmark
from lethe.data.privacy import row_hash
from lethe.errors import UserError
from lethe.records import REQUESTS, AnsweredRequest


def answered(study_id: str, benchmark: Benchmark, start: Path) -> tuple[AnsweredRequest, ...]:
    """Return the requests that the models of a study answer: those of its start model, and its own."""
    # Equal whenever the study goes on. It lies beside the models anyway: what it prevents is a table made beforehand.
    salt = hashlib.sha256(f"{study_id} {benchmark.digest}".encode()).digest()
    rows = tuple(row_hash(salt, *texts) for texts in benchmark.forget_texts)
    return (*answered_by(start), AnsweredRequest(study=study_id, salt=salt.hex(), rows=rows))


def answered_by(model: Path) -> tuple[AnsweredRequest, ...]:
    """Return the requests that the model in a folder answers. Raises UserError for a file that does not say it."""
    file = model / REQUESTS
    if not file.is_file():
        return ()
    try:
        return tuple(AnsweredRequest.model_validate(request) for request in json.loads(file.read_text()))
    except (ValueError, TypeError, ValidationError):
        raise UserError(f"{file}: does not say which requests the model answers: restore the file") from None


def check_earlier(benchmark: Benchmark, model: Path) -> None:
    """Raise UserError where the start model answers a request whose rows the benchmark wants and was not given."""
    for request in answered_by(model) if benchmark.config.wants_earlier else ():
        salt = bytes.fromhex(request.salt)
        given = {row_hash(salt, *texts) for texts in benchmark.earlier_texts}
        if missing := [number for number, row in enumerate(request.rows, 1) if row not in given]:
            raise UserError(
                f"the start model forgot {len(request.rows)} rows in study {request.study}, of which {len(missing)} are"
                f" not in benchmark.earlier (the first is its row {missing[0]}): give them, so that they are measured"
                " again, or set benchmark.ignore_earlier: true"
            )
