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
from lethe.config.study import load_study
from tests.test_documents import PRESENT, ROOT

BLOCK = re.compile(r"^```(sh|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What stands for a reader's own study, and what its page makes it an extension of.
OWN = {"my-study": "tofu", "study": "tofu", "documents": "tdec"}
assert main.COMMANDS
GROUP = typer.main.get_command(app.app)


def blocks(document: Path, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return [text for found, text in BLOCK.findall(document.read_text(encoding="utf-8")) if found == language]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each document, and of each command with examples in its help, with the words behind `lethe`, or
    behind `python -m platform.`, of a line there."""
    texts = {document.name: "".join(blocks(document, "sh")) for document in PRESENT}
    texts |= {f"{name} --help": command.epilog or "" for name, command in GROUP.commands.items()}
    for source, text in texts.items():
        for line in text.replace("\\\n", " ").splitlines():
            words = list(takewhile(lambda word: word != "|", shlex.split(line, comments=True)))
            for place, word in enumerate(words):
                if word == app.PROGRAM and all("=" in before for before in words[:place]):
                    yield source, words[place + 1 :]
                elif word.startswith("platform.") and words[place - 1] == "-m":
                    yield source, [word.removeprefix("platform."), *words[place + 1 :]]


@pytest.mark.parametrize("words", [pytest.param(words, id=f"{name}: {' '.join(words)}") for name, words in commands()])
def test_a_command_that_is_written_down_is_accepted(words: list[str]) -> None:
    """The command and its options exist; a study's settings are read, of a stored study and of a reader's own in the
    place of the search space that it comes from."""
    with typer.Context(GROUP, info_name=app.PROGRAM) as context:
        name, command, rest = GROUP.resolve_command(context, words)
        parameters = command.make_context(name, rest, parent=context).params
    if name == "sweep":
        space = re.sub(r"-[0-9a-f]{8}$", "", Path(parameters["study"]).stem)
        load_study(OWN.get(space, space), parameters["overrides"] or ())


@pytest.mark.parametrize("document", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_in_a_document_is_a_study_or_a_part_of_one(document: Path, tmp_path: Path) -> None:
    for number, text in enumerate(blocks(document, "yaml")):
        file = tmp_path / f"part{number}.yaml"
        file.write_text(text if "extends:" in text else f"extends: tofu\n{text}", encoding="utf-8")
        load_study(str(file))
