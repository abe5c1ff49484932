"""Rows of data from files: JSON lines or one JSON array, plain or gzipped, and Parquet; CSV where it is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lethe.data.csv_rows import csv_rows
from lethe.data.text_files import read_text_file
from lethe.errors import UserError, first_line
from lethe.storage.files import refuse_pointer

Raw = dict[str, Any]

ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
FORMS = f"one JSON object a line or one array of them, or Parquet ({', '.join(ENDINGS)})"
BOM = "\ufeff"
LINE_END = re.compile(r"\r\n|\n|\r")  # str.splitlines ends lines at characters that texts hold, too
CSV_HEADER = re.compile(r'"?\w*"?(?:(?P<separator>[,;\t])"?\w+"?)+', re.ASCII)
JSON_BEGINS = re.compile(r'\s*(\[\s*["{\]]|\{\s*")')


def find_file(folder: Path, name: str, *more: str) -> Path | None:
    """Return the file `name` with one of `ENDINGS`, or of the endings `more`; None where there is no file of that name.
    Raises UserError for a file of another form, for two files of one name, and for what has such a name and is no file.
    """
    named = [folder / (name + ending) for ending in (*ENDINGS, *more)]
    accepted = [path for path in named if path.is_file()]
    for path in named:
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} is a link to {path.readlink()}, which is not there: fetch the file")
        if path.is_dir():
            raise UserError(f"{path} is a folder and not a file")
    if len(accepted) > 1:
        raise UserError(f"{folder} has {accepted[0].name} and {accepted[1].name}: leave one of them")
    if accepted:
        return accepted[0]
    other = next((path for path in sorted(folder.glob(f"{name}.*")) if path.is_file()), None)
    if other is not None:
        raise UserError(f"{other}: data are read as {FORMS}: convert the file")
    return None


class Table(NamedTuple):
    """The `rows` of a file and the `encoding` of its text; none for Parquet."""

    rows: list[Raw]
    encoding: str


def read_table(path: Path) -> Table:
    """Read the rows of a file that is JSON, CSV or Parquet by its name. Raises UserError, with file and row, for what
    is no row, and for text that is none."""
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if ending == ".parquet":
        found = Table(_parquet_rows(path), "")
    else:
        file = read_text_file(path)
        rows = csv_rows(file, path) if ending in (".csv", ".tsv") else _json_values(file.text, path)
        found = Table(rows, file.encoding)
    for number, row in enumerate(found.rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, row {number}: not a JSON object: data are read as {FORMS}")
        check_characters(row, f"{path}, row {number}")
    return found


def read_rows(path: Path) -> list[Raw]:
    """Read the rows of a file that `find_file` found, as `read_table` does."""
    return read_table(path).rows


def read_texts(path: Path) -> list[str]:
    """Read one text a line: plain, as a JSON string, or as a JSON object whose text is `text` or its only value; or an
    array of such. Blank lines are left out. Raises UserError for what has the header of a CSV file."""
    if path.suffix == ".parquet":
        values: list[Any] = _parquet_rows(path)
    elif JSON_BEGINS.match(text := read_text_file(path).text):
        values = _json_values(text, path)
    else:
        lines = [line.strip() for line in LINE_END.split(text) if line.strip()]
        if _is_csv(lines):
            raise UserError(f"{path} is a CSV file ({lines[0]}): give one text a line, or {FORMS}")
        values = [*map(_json_string, lines)]
    found = []
    for number, value in enumerate(values, 1):
        single = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else None
        given = value.get("text", single) if isinstance(value, dict) else value
        if not isinstance(given, str):
            raise UserError(f"{path}, row {number}: not a text, nor an object with a 'text'")
        check_characters(given, f"{path}, row {number}")
        found.append(given.strip())
    return [text for text in found if text]


def _is_csv(lines: list[str]) -> bool:
    """Tell whether the first line has names of columns and every other one as many fields; or the name of one column,
    `text`."""
    header = CSV_HEADER.fullmatch(lines[0]) if lines else None
    if header is None:
        return bool(lines) and lines[0].strip('"').lower() == "text"
    separator = header["separator"]
    return all(line.count(separator) >= lines[0].count(separator) for line in lines)


def is_blank(text: str) -> bool:
    """Return whether nothing of `text` can be seen: white space, control and format characters alone."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def _json_values(text: str, path: Path) -> list[Any]:
    """Return the values of an array, or of the lines that are not blank."""
    if text.lstrip().startswith("["):
        found = _parse(text, path, 1)
        return found if isinstance(found, list) else [found]
    lines = (line.strip(f" \t\r{BOM}") for line in text.split("\n"))
    return [_parse(line, path, number) for number, line in enumerate(lines, 1) if line]


def _parse(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)
        raise UserError(f"{path}, line {line}: not JSON ({reason}): data are read as {FORMS}") from None


def _json_string(line: str) -> str:
    """Return the text of a JSON string, any other line as it is."""
    try:
        found = json.loads(line) if line.startswith('"') else line
    except ValueError:
        return line
    return found if isinstance(found, str) else line


def _parquet_rows(path: Path) -> list[Any]:
    from pyarrow import ArrowException, parquet

    refuse_pointer(path)
    read: Callable[[Path], Any] = parquet.read_table
    try:
        rows: list[Any] = read(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} is no Parquet file: {first_line(error)}") from None
    return rows


def check_characters(value: Any, where: str) -> None:
    """Raise UserError for half of a surrogate pair, which JSON can hold and UTF-8 and tokenizers cannot."""
    for text in _texts(value):
        half = next((character for character in text if 0xD800 <= ord(character) < 0xE000), None)
        if half is not None:
            raise UserError(
                f"{where}: \\u{ord(half):04x} is half of a surrogate pair and no character: repair the text"
            )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for nested in value.values():
            yield from _texts(nested)
    elif isinstance(value, list):
        for nested in value:
            yield from _texts(nested)
