"""The command line: one typer application, to which every module of this package adds its command.

The modules import at their top only what is light, so that help, completion and refusals answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

import lethe
from lethe.errors import UserError, exit_codes, unknown_name

PROGRAM = "lethe"
COMPLETION = "_LETHE_COMPLETE"  # set by the shell's completion: the words are in variables of its own


class Main(Protocol):
    """A command as a function."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Run the command with the arguments `argv` (default: the process's) and return the exit code."""


class _Commands(TyperGroup):
    """The commands by name. A name may have two words, such as `scaling plan`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the name, the command and its arguments. Raises UserError for an unknown command."""
        two = " ".join(args[:2])
        if two in self.commands:
            return two, self.commands[two], args[2:]
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise unknown_name("command", args[0], (name for name in self.commands if " " not in name))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name=PROGRAM,
    cls=_Commands,
    help="Studies of LLM unlearning.",
    epilog="\b\nlethe sweep tofu --trials 24    # a study\nlethe COMMAND --help            # options and examples",
    rich_markup_mode=None,  # help is plain text: it is there at once, and in a pipe as on a terminal
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        print(f"lethe {lethe.__version__}")
        raise typer.Exit


def command(name: str, examples: str, *, hidden: bool = False) -> Callable[[Callable[..., int]], Main]:
    """Return a decorator that adds a function as the command `name`, with lines of `examples` below its help, and makes
    it a `Main`. The function's parameters are the command's, its docstring is the help, up to a form feed."""

    def add(function: Callable[..., int]) -> Main:
        settings = {"help_option_names": ["-h", "--help"]}
        epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines())
        app.command(name, epilog=epilog, hidden=hidden, context_settings=settings)(function)

        @exit_codes
        def main(argv: Sequence[str] | None = None) -> int:
            return invoke([*name.split(), *(sys.argv[1:] if argv is None else argv)])

        return main

    return add


def invoke(words: Sequence[str], program: str = PROGRAM) -> int:
    """Run the command line `words`, whose first one names the command, and return its exit code. Raises UserError for
    words that are no command line."""
    group = typer.main.get_command(app)
    if COMPLETION in os.environ:
        group.main(list(words), prog_name=PROGRAM, complete_var=COMPLETION)  # ends the process
    _refuse_empty(words[1:])
    try:
        # Not `group.main`, which takes Ctrl-C and broken pipes upon itself.
        with group.make_context(program, list(words)) as context:
            code: int = group.invoke(context)
            return code
    except typer.Exit as ended:
        return ended.exit_code
    except TyperException as error:
        path = PROGRAM if words[0].startswith("-") else f"{PROGRAM} {words[0]}"
        raise UserError(_describe(error, path)) from None


def _describe(error: TyperException, path: str) -> str:
    """Return what is wrong with the command line of the command `path`, and how to see what would be right."""
    path = getattr(getattr(error, "ctx", None), "command_path", path)
    message = error.format_message().rstrip(".")
    return f"{message[:1].lower()}{message[1:]}: see {path} --help"


def _refuse_empty(words: Sequence[str]) -> None:
    """Raise UserError for an empty argument, such as that of a shell variable that is not set: none means anything."""
    for before, word in zip(["the first argument", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if not word.strip():
            raise UserError(f"{before}: an empty argument, where a shell variable may not be set")
        if option.startswith("--") and equals and not value.strip():
            raise UserError(f"{option}: an empty argument, where a shell variable may not be set")
