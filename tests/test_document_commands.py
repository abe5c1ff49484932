"""Commands and YAML in documents and in the help are accepted as they stand: names, options and settings exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
import typer

from lethe.cli import app, main  # main adds the commands
from lethe.config.loading import spaces
from lethe.config.study import load_study
from tests.test_documents import PRESENT, ROOT

BLOCK = re.compile(r"^```(sh|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"\blethe |-m platform\.")
STORED = re.compile(r"(?P<space>.+)-[0-9a-f]{8}")
EXTENDS = {"documents": "tdec"}  # what a reader's own study extends where that is not tofu
assert main.COMMANDS
GROUP = typer.main.get_command(app.app)


def blocks(document: Path, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return [text for found, text in BLOCK.findall(document.read_text(encoding="utf-8")) if found == language]


def lines() -> Iterator[tuple[str, str]]:
    """Yield the name of each document, and of each command with examples in its help, with each line of its code."""
    texts = {document.name: "".join(blocks(document, "sh")) for document in PRESENT}
    texts |= {f"{name} --help": command.epilog or "" for name, command in GROUP.commands.items()}
    for source, text in texts.items():
        yield from ((source, line.strip()) for line in text.replace("\\\n", " ").splitlines())


def command_of(line: str) -> list[str]:
    """Return the words behind `lethe` or behind `python -m platform.` in a line of a shell, up to a pipe; none where it
    runs something else."""
    words = list(takewhile(lambda word: word != "|", shlex.split(line, comments=True)))
    for place, word in enumerate(words):
        if word == app.PROGRAM and all("=" in before for before in words[:place]):
            return words[place + 1 :]
        if word.startswith("platform.") and words[place - 1] == "-m":
            return [word.removeprefix("platform."), *words[place + 1 :]]
    return []


COMMANDS = [pytest.param(line, id=f"{name}: {line}") for name, line in lines() if COMMAND.search(line)]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_written_down_is_accepted(line: str) -> None:
    """The command and its options exist; a study's settings are read, of a stored study and of a reader's own in the
    place of the search space that it comes from."""
    if not (words := command_of(line)):
        return
    with typer.Context(GROUP, info_name=app.PROGRAM) as context:
        name, command, rest = GROUP.resolve_command(context, words)
        parameters = command.make_context(name, rest, parent=context).params
    if name == "sweep":
        stored = STORED.fullmatch(parameters["study"])
        space = stored["space"] if stored else parameters["study"].removesuffix(".yaml")
        is_own = space not in spaces() and space != parameters["study"]
        load_study(EXTENDS.get(space, "tofu") if is_own else space, parameters["overrides"] or ())


@pytest.mark.parametrize("document", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_in_a_document_is_a_study_or_a_part_of_one(document: Path, tmp_path: Path) -> None:
    for number, text in enumerate(blocks(document, "yaml")):
        file = tmp_path / f"part{number}.yaml"
        file.write_text(text if "extends:" in text else f"extends: tofu\n{text}", encoding="utf-8")
        load_study(str(file))
