"""`ls`: the studies of the storage root."""

from __future__ import annotations

import json

from lethe.cli.app import command
from lethe.cli.options import AsJson

EXAMPLES = """
lethe ls
lethe ls --json | jq -r '.[] | select(.state == "finished") | .id'
"""


@command("ls", EXAMPLES)
def main(as_json: AsJson = False) -> int:
    """List the studies, the latest first.

    Of each its trials, the scores and the verdict of its best model, and whether it is running, finished, interrupted
    or can be resumed. Exit codes: 0 done, 2 bad input.
    """
    from lethe.ops.disk_usage import storage_snapshot, study_usages
    from lethe.reporting.terminal_tables import StudyLine, study_list
    from lethe.storage.paths import root as storage_root
    from lethe.terminal import Terminal

    with storage_snapshot() as root:
        lines = [
            StudyLine(usage.name, usage.status, usage.total.changed, usage.runs, usage.record)
            for usage in study_usages(root / "studies")
        ]
    if as_json:
        print(json.dumps([line.as_json() for line in lines], indent=1))
    elif lines:
        Terminal.for_tables().print(study_list(lines, f"Studies in {storage_root()}"))
    else:
        print(f"no studies in {storage_root()}: lethe sweep tofu makes one")
    return 0
