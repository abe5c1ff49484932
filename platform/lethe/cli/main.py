"""`lethe` and `python -m platform`: list the commands, or run one.

Each command parses its own arguments and is imported only when it is called, so
that the list and a mistyped name answer at once.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import NoReturn

import lethe
from lethe.cli import SUMMARIES
from lethe.errors import exit_codes, unknown_name
from lethe.interrupts import run_command


def run() -> NoReturn:
    """Run the process's command line: the installed `lethe`."""
    run_command("lethe.cli.main")


@exit_codes
def main(argv: list[str] | None = None, call: str = "lethe ") -> int:
    """Run the command that `argv` (default: the process's) names, or list them all.

    `call` is the text before a command's name in the list. Raises UserError for an unknown command.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(listing(call))
        return 0
    name, *rest = arguments
    if name == "--version":
        print(f"lethe {lethe.__version__}")
        return 0
    if name not in SUMMARIES:
        raise unknown_name("command", name, SUMMARIES)
    command: Callable[[list[str]], int] = import_module(f"lethe.cli.{name}").main
    return command(rest)


def listing(call: str) -> str:
    """Return the commands, each after `call`, with their summaries, a line each."""
    width = max(map(len, SUMMARIES))
    lines = [f"  {call}{name:<{width}}  {summary}" for name, summary in SUMMARIES.items()]
    return "\n".join(["lethe: studies of LLM unlearning", "", *lines, "", "Each takes --help."])
