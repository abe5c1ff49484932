"""The console that every command prints on: text is shown as it is, square brackets and colons included."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from typing import Any

from rich.console import Console

from lethe.errors import silence_output

PIPED_WIDTH = 200  # columns of a table that goes into a file or a pipe; a terminal has its own


class Terminal(Console):
    """A console without markup, emoji codes and highlighting: names, paths and answers of models may contain any of
    these. Style is given by `rich.text.Text` or `style=`."""

    def __init__(self, **options: Any) -> None:
        """Take the options of rich's console."""
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    @classmethod
    def for_tables(cls) -> Terminal:
        """Return a console on which a table has a terminal's width, or `PIPED_WIDTH` elsewhere."""
        console = cls()
        return console if console.is_terminal else cls(width=PIPED_WIDTH)

    def on_broken_pipe(self) -> None:
        """End the command as Ctrl-C does, without another word: whoever read the output, such as `head`, has gone."""
        silence_output()
        signal.raise_signal(signal.SIGINT)


def command_prefix() -> str:
    """Return the text that this process's user types before a command's name, so that a printed command works when
    pasted: `python -m platform.`, or `lethe ` with the path of the program where the shell would not find it."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if module is not None and module.parent == "platform":
        return f"{shlex.quote(sys.orig_argv[0])} -m platform."
    program = sys.argv[0] if sys.argv[0].endswith("/lethe") and shutil.which("lethe") is None else "lethe"
    return f"{shlex.quote(program)} "
