"""`promote STUDY TRIAL --as ALIAS`: an alias for a trial's model, in MLflow's registry."""

from __future__ import annotations

from typing import Annotated

import typer

from lethe.cli.app import command
from lethe.cli.options import StoredStudy

EXAMPLES = """
lethe promote tofu knee --as champion
lethe promote tofu-1a2b3c4d 9 --as champion --as release-3
lethe score models:/lethe-tofu@champion
"""


@command("promote", EXAMPLES)
def main(
    study: StoredStudy,
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="A trial's number, or the study's alias, such as knee.")
    ],
    aliases: Annotated[list[str], typer.Option("--as", metavar="ALIAS", help="The name. Repeatable.")],
) -> int:
    """Give a trial's model an alias that stays, such as champion.

    No study moves it; promote does. A model that is not registered is, if its weights are still on disk. Exit codes: 0
    done, 2 bad input.
    """
    from lethe.config.study import parse_study
    from lethe.ops.stored_studies import find_trial, read_search
    from lethe.storage.paths import atomic_write, home
    from lethe.tracking.aliases import Registered, check_aliases
    from lethe.tracking.promotion import promote

    check_aliases(aliases)
    usage, record = read_search(study)
    chosen = find_trial(record, trial)
    version = promote(record, chosen, aliases, parse_study(dict(record.study)).tracking)
    if usage.state != "running" and chosen.version != version:
        changed = Registered({chosen.number: version}).add_to(record)
        atomic_write(home() / "studies" / usage.name / "study.json", changed.model_dump_json(indent=1))
    name = version.rpartition("/")[0]
    print(f"trial {chosen.number} of {record.id} is {version}, " + ", ".join(f"{name}@{alias}" for alias in aliases))
    return 0
