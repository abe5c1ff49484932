"""`lethe` and `python -m platform`: list the commands, or run one."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from lethe.cli import COMMANDS
from lethe.cli.app import PROGRAM, invoke
from lethe.errors import exit_codes
from lethe.interrupts import run_command

for _name in COMMANDS:
    import_module(f"lethe.cli.{_name}")  # adds its command


def run() -> NoReturn:
    """Run the process's command line: the installed `lethe`."""
    run_command("lethe.cli.main")


@exit_codes
def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Run the command that `argv` (default: the process's) names, or list them all; `program` is what the user typed
    before it."""
    words = list(sys.argv[1:] if argv is None else argv)
    return invoke(["--help"] if words in ([], ["help"]) else words, program)
