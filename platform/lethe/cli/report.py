"""`report STUDY`: the report once more, from the stored record."""

from __future__ import annotations

from lethe.cli.app import command
from lethe.cli.options import Reports, StoredStudy

EXAMPLES = """
lethe report tofu                          # the latest study of this search space, into reports/
lethe report tofu-1a2b3c4d --reports path/to/reports
"""


@command("report", EXAMPLES)
def main(study: StoredStudy, reports: Reports = None) -> int:
    """Write a study's report again.

    Nothing is measured and no cluster is started. Exit codes: 0 done, 2 bad input.
    """
    from pathlib import Path

    from lethe.ops.stored_studies import read_study
    from lethe.records import StudyRecord
    from lethe.reporting.report import write_report
    from lethe.reporting.scaling import write_scaling_report
    from lethe.storage.paths import ensure_writable
    from lethe.tracking.connection import store_of
    from lethe.tracking.model_registry import model_name

    usage, record = read_study(study)
    target = ensure_writable(reports or Path("reports")) / usage.name
    if isinstance(record, StudyRecord):
        registered = any(trial.version for trial in record.trials)
        model = model_name(record.space) if registered else ""
        print(write_report(record, target, store=store_of(record.study), model=model))
    else:
        print(write_scaling_report(record, target))
    return 0
