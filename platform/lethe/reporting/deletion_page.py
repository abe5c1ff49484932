"""A deletion record as a page to read and print."""

from __future__ import annotations

from lethe.config.audits import variant_meanings
from lethe.deletion_records import DeletionRecord, Seal
from lethe.reporting.report import template_environment
from lethe.reporting.scales import format_count
from lethe.reporting.terms import NAMES


def deletion_page(record: DeletionRecord, seal: Seal, file: str) -> str:
    """Return the page of a record. `file`: the name of the record's own file, which can be verified."""
    values = {
        "record": record,
        "seal": seal,
        "file": file,
        "sentence": _sentence(record),
        "facts": _facts(record),
        "oracle": any(row.oracle is not None for row in record.evidence),
        "meanings": variant_meanings(),
        "scripts": None,
    }
    return template_environment().get_template("deletion.html.j2").render(values)


def _sentence(record: DeletionRecord) -> str:
    """Return the verdict in one sentence."""
    if record.verdict is None:
        return "No verdict: no criterion about forgetting could be checked."
    failing, checked = len(record.verdict.failing), len(record.verdict.criteria)
    if not failing:
        return f"Forgotten by every criterion that was checked ({checked})."
    word = {"yes": "Forgotten", "partly": "Partly forgotten", "no": "Not forgotten"}[record.verdict.forgotten]
    return f"{word}: {failing} of {checked} criteria fail."


def _facts(record: DeletionRecord) -> dict[str, str]:
    before = [f"{format_count(rows, 'row')} ({study})" for study, rows in record.earlier.items()]
    method = [NAMES.get(str(name), str(name)) for name in map(record.method.get, _PARTS) if name]
    return {
        "What was asked": f"To forget {format_count(len(record.request.rows), 'row')}.",
        **({"What was asked before": f"To forget {', '.join(before)}."} if before else {}),
        "Which model answers it": f"{record.after.name}, made from {record.before.name} by {', '.join(method)}.",
        "When": f"Unlearned {_minute(record.began)} to {_minute(record.ended)}, written {_minute(record.written)}.",
        "Who stands for it": record.by or "Nobody has put a name to it.",
    }


_PARTS = ("objective.name", "optimizer.name", "adapter.name")


def _minute(time: str) -> str:
    return time[:16].replace("T", " ") + " UTC"
