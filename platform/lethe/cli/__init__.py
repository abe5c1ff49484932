"""The commands, one module each with `main(argv: Sequence[str] | None = None) -> int`.

A command has an entry here, which is its place in the list, and a door of three lines, `platform/<name>.py`.
"""

COMMANDS = (
    *("init", "sweep", "ls", "show", "report", "score", "promote", "record"),
    *("scaling", "doctor", "gc", "ui", "services"),
)
