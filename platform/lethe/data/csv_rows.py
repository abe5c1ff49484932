"""Rows of CSV and TSV files: a header, then records whose quoted fields may have separators and line breaks."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from lethe.data.text_files import TextFile
from lethe.errors import UserError

SEPARATORS = ",;\t|"
QUOTED_BEHIND_SPACE = re.compile(r'\s+".*"\s*', re.DOTALL)
# What a sentence is and the name of a column is not: a header is named in messages, a row of data never.
PROSE = re.compile(r'^\W*\d|[.?!,;:"]\s*$|(?:\S+\s+){4}|.{41}', re.DOTALL)


def csv_rows(file: TextFile, path: Path) -> list[dict[str, str]]:
    """Return the records of a CSV file by the names in its header; columns without a name are left out. The separator
    is the one that gives the header most fields: comma, semicolon, tab or bar.

    Raises UserError that names row and line for a record with more or fewer fields than the header, and for quotes that
    CSV does not have. No message has a record's text.
    """
    separator = "\t" if _ending(path) == ".tsv" else _separator(file.text)
    # The limit on a field is csv's own, of the whole process; a document in a field may be longer.
    limit = csv.field_size_limit(max(csv.field_size_limit(), len(file.text) + 1))
    try:
        return _records(file.text, separator, path)
    finally:
        csv.field_size_limit(limit)


def _records(text: str, separator: str, path: Path) -> list[dict[str, str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] | None = None
    rows: list[dict[str, str]] = []
    try:
        for fields in reader:
            if not any(field.strip() for field in fields) and len(fields) < 2:
                continue  # an empty line
            if header is None:
                header = _header(fields, path)
                continue
            _check(fields, header, f"{path}, row {len(rows) + 1} (line {reader.line_num})", separator)
            rows.append({name: field for name, field in zip(header, fields, strict=True) if name})
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: no CSV: {error}") from None
    return rows


def _header(fields: list[str], path: Path) -> list[str]:
    names = [field.strip() for field in fields]
    if any(PROSE.search(name) for name in names if name):
        raise UserError(f"{path}: the first line has no names of columns: begin it with a line such as question,answer")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path} has two columns {twice!r}: rename one of them")
    return names


def _check(fields: list[str], header: list[str], where: str, separator: str) -> None:
    shown = "tabs" if separator == "\t" else repr(separator)
    if len(fields) != len(header):
        raise UserError(
            f"{where} has {len(fields)} fields, the header has {len(header)}: fields that contain {shown} or a line"
            ' break stand in quotes ("...")'
        )
    if any(QUOTED_BEHIND_SPACE.fullmatch(field) for field in fields):
        raise UserError(f'{where}: a field begins with a space before its quote ("): take the space out')


def _separator(text: str) -> str:
    def fields(separator: str) -> int:
        try:
            return len(next(csv.reader(io.StringIO(text.lstrip("\n"), newline=""), delimiter=separator), []))
        except csv.Error:
            return 0

    return max(SEPARATORS, key=fields)  # of equal ones the first


def _ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix
