"""`report STUDY`: the report once more, from the record; of several comparisons, that of the one they make together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lethe.cli.app import command
from lethe.cli.completion import study_ids
from lethe.cli.options import Reports

EXAMPLES = """
lethe report tofu                          # the latest study of this search space, into reports/
lethe report tofu-1a2b3c4d --reports path/to/reports
lethe report soul-1a2b3c4d other/machine/study.json   # one comparison, whose seeds two machines have run
"""


@command("report", EXAMPLES)
def main(
    studies: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY...",
            help="A study's id, the beginning of one, a search space, or a report's study.json (also .json.xz).",
            autocompletion=study_ids,
        ),
    ],
    reports: Reports = None,
) -> int:
    """Write a study's report again, or join comparisons.

    Several comparisons with other seeds of the same arms make one. Nothing is measured and no cluster is started. Exit
    codes: 0 done, 2 bad input.
    """
    from lethe.ops.joined_comparisons import join_comparisons
    from lethe.ops.stored_studies import is_record_file, read_record_file, read_search
    from lethe.reporting.report import write_report
    from lethe.storage.paths import ensure_writable

    if len(studies) == 1 and not is_record_file(studies[0]):
        return _write_stored(studies[0], reports)
    records = [read_record_file(name) if is_record_file(name) else read_search(name)[1] for name in studies]
    record = join_comparisons(records) if len(records) > 1 else records[0]
    print(write_report(record, ensure_writable(reports or Path("reports")) / record.id))
    return 0


def _write_stored(study: str, reports: Path | None) -> int:
    """Write the report of a study of the storage root, under its name, with links to its runs."""
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
