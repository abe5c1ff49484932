"""`show STUDY [TRIAL]`: what a study found, or what is known of one trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lethe.cli.app import command
from lethe.cli.options import AsJson, StoredStudy
from lethe.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from lethe.records import StudyRecord, TrialRecord
    from lethe.scaling_records import ScalingRecord
    from lethe.terminal import Terminal

EXAMPLES = """
lethe show tofu                            # the latest study of this search space
lethe show tofu-1a2b knee                  # one trial, by number or alias
lethe show tofu-1a2b3c4d 9 --json
lethe show tofu-1a2b3c4d knee --texts      # answers before and after, in the terminal alone
"""


@command("show", EXAMPLES)
def main(
    study: StoredStudy,
    trial: Annotated[
        str | None,
        typer.Argument(metavar="[TRIAL]", help="A trial's number, or the study's alias, such as knee."),
    ] = None,
    as_json: AsJson = False,
    texts: Annotated[
        bool, typer.Option("--texts", help="Ask start model and trial again and print their answers; store nothing.")
    ] = False,
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="With --texts: so many rows to forget.")] = 4,
) -> int:
    """Show a study, or one of its trials.

    A study: what was done, the front with its verdicts, what to do next. A trial: parameters, scores, verdict, folder
    and version. Exit codes: 0 done, 2 bad input.
    """
    from lethe.ops.stored_studies import find_member, find_trial, read_search, read_study
    from lethe.reporting.terminal_tables import trial_view
    from lethe.terminal import Terminal

    console = Terminal.for_tables()
    if texts and (trial is None or as_json):
        raise UserError("--texts: needs a trial, and prints no JSON: lethe show STUDY TRIAL --texts")
    if trial is None:
        usage, record = read_study(study)
        if as_json:
            print(record.model_dump_json(indent=1))
        else:
            _print_study(console, record, usage.status)
        return 0
    usage, search = read_search(study)
    found = find_trial(search, trial)
    if texts:
        _print_texts(console, usage.name, search, find_member(search, trial), rows)
        return 0
    if as_json:
        print(found.model_dump_json(indent=1))
        return 0
    for part in trial_view(search, found):
        console.print(part, soft_wrap=isinstance(part, str))
    return 0


def _print_texts(console: Terminal, study: str, record: StudyRecord, trial: TrialRecord, rows: int) -> None:
    from lethe.storage.paths import home
    from lethe.study.examples import examples

    for example in examples(record, trial, home() / "studies" / study, rows):
        console.print(f"row {example.number} to forget {example.name}".rstrip(), soft_wrap=True)
        for name in ("question", "answer", "before", "after"):
            console.print(f"  {name:9} {getattr(example, name)}", soft_wrap=True)


def _print_study(console: Terminal, record: StudyRecord | ScalingRecord, status: str) -> None:
    from lethe.records import StudyRecord
    from lethe.reporting.next_steps import next_steps
    from lethe.reporting.report import describe_date, first_screen
    from lethe.reporting.scaling import describe_scaling, scaling_opening, scaling_steps
    from lethe.reporting.terminal_tables import front_table
    from lethe.terminal import command_prefix
    from lethe.tracking.connection import store_of

    call = command_prefix()
    tables: list[Table | str] = []
    if isinstance(record, StudyRecord):
        first, steps = first_screen(record), next_steps(record, store_of(record.study), call)
        tables = [front_table(record)] if record.front else []
    else:
        first, steps = scaling_opening(record), scaling_steps(record, call)
        tables = [f"- {sentence}" for sentence in describe_scaling(record)]
    console.print(f"study {record.id} · {describe_date(record.began)} · {status}", soft_wrap=True)
    for line in first.lines():
        console.print(line, soft_wrap=True)
    for part in tables:
        console.print(part, soft_wrap=isinstance(part, str))
    for step in steps:
        if not step.command.endswith(f"show {record.id}"):
            console.print(f"{step.purpose}:\n    {step.command}", soft_wrap=True)
