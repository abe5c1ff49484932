"""People's own data: a file, a folder of texts or a data set of the hub becomes rows of one kind."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lethe.config.base import canonical_json, short_digest
from lethe.config.columns import REQUIRED, Columns, Kind
from lethe.data.files import ENDINGS, check_characters, is_blank, read_table
from lethe.data.hub import hub_rows, is_hub_id
from lethe.data.source_rows import VARIANTS, Chat, Completion, Document, SourceRow, parse_row
from lethe.data.text_files import read_text_file
from lethe.data.words import unicode_words
from lethe.errors import UserError, first_names, unknown_name

TEXTS = (".txt", ".md")
TABLES = (*ENDINGS, ".csv", ".tsv", ".csv.gz", ".tsv.gz")
FORMS = f"a file ({', '.join((*TABLES, *TEXTS))}), a folder of texts ({', '.join(TEXTS)}) or a hub id (owner/name)"
# The usual names, alike in every data set of a kind: pairs belong together. The first that a file has counts.
USUAL: dict[Kind, tuple[tuple[str, ...], ...]] = {
    "chats": (("messages",), ("conversations",), ("conversation",)),
    "questions": (("question", "answer"), ("instruction", "output"), ("instruction", "response")),
    "completions": (("prompt", "completion"),),
    "documents": (("text",), ("document",), ("content",)),
}
USUAL_VARIANTS = {
    "paraphrase": ("paraphrase", "paraphrased_answer"),
    "paraphrased_question": ("paraphrased_question",),
    "wrong_answers": ("wrong_answers", "perturbed_answers", "perturbed_answer", "wrong_answer"),
}
NAMING = (
    "name them with columns: {question: ..., answer: ...}, {prompt: ..., completion: ...}, {messages: ...}"
    " or {text: ...}"
)


@dataclass(frozen=True)
class Source:
    """The rows of a file, a folder or a data set, in their order and each once.

    `columns`: the source's columns by the fields of `Columns`, `unread`: its others; both empty for plain texts.
    `notes`: what was merged, left out or decoded, a line each, without any row's text. `digest` covers kind and rows.
    """

    name: str
    kind: Kind
    rows: tuple[SourceRow, ...]
    columns: Mapping[str, str]
    unread: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """16 hex digits that name the rows."""
        return short_digest(canonical_json([self.kind, [_content(row) for row in self.rows]]))


def read_source(source: str, columns: Columns | None = None) -> Source:
    """Read the rows of `source`: a file, a folder of texts, which is read with its folders and in the order of names,
    or a hub id (owner/name/configuration/split, the last two where there are several).

    `columns` names those that are not called as usual. Raises UserError, in one line that names file and row and has
    no row's text, for what cannot be read and for a row without its texts.
    """
    columns = columns or Columns()
    path = Path(source).expanduser()
    if path.is_dir():
        return _texts(source, path, columns)
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link to {path.readlink()}, which is not there: fetch the file")
    ending = _ending(path)
    if path.is_file() and ending in TEXTS:
        return _texts(source, path, columns)
    if path.is_file() and ending in TABLES:
        return _table(source, path, columns)
    if path.exists():
        raise UserError(f"{source} has another form than lethe reads: give {FORMS}")
    owner_and_name = "/".join(source.split("/")[:2])
    if ending in (*TABLES, *TEXTS) or not is_hub_id(owner_and_name) or source.count("/") > 3:
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise UserError(f"there is no {source}{where}: give {FORMS}")
    raw = hub_rows(source)
    for number, row in enumerate(raw, 1):
        check_characters(row, f"{source}, row {number}")
    return _rows(source, source, raw, columns, ())


def _ending(path: Path) -> str:
    """Return the ending in lower case, with `.gz` behind another one."""
    return "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]).lower()


# Plain texts


def _texts(source: str, path: Path, columns: Columns) -> Source:
    """Return the texts of a file or a folder as documents."""
    if columns.kind is not None:
        raise UserError(f"{source} has texts and no columns: leave columns out")
    files, others = _files(path) if path.is_dir() else ([path], [])
    if not files:
        has = f": it has {first_names(others)}: name the file" if others else ": it is empty"
        raise UserError(f"the folder {source} has no texts ({', '.join(TEXTS)}){has}")
    rows, encodings = [], Counter[str]()
    for file in files:
        name = file.relative_to(path).as_posix() if file != path else file.name
        text, encoding = read_text_file(file)
        if is_blank(text):
            raise UserError(f"{file} is empty")
        rows.append(Document(text.strip(), name))
        encodings[encoding] += 1
    notes = [*_encodings(encodings)]
    if others:
        files_are = "file of the folder is" if len(others) == 1 else "files of the folder are"
        notes.append(f"{len(others)} {files_are} not read: {first_names(others)}")
    return _source(source, "documents", rows, {}, (), notes)


def _files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the texts below `folder`, sorted by their names below it, and the names of the other files. What begins
    with a dot is neither."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    found.sort(key=lambda path: path.relative_to(folder).as_posix())
    texts = [path for path in found if path.suffix.lower() in TEXTS]
    return texts, [path.relative_to(folder).as_posix() for path in found if path.suffix.lower() not in TEXTS]


# Rows with columns


def _table(source: str, path: Path, columns: Columns) -> Source:
    raw, encoding = read_table(path)
    return _rows(source, path.name, raw, columns, _encodings(Counter([encoding])))


def _rows(source: str, short: str, raw: Sequence[Mapping[str, Any]], columns: Columns, notes: Iterable[str]) -> Source:
    """Return rows with columns. `short` is what rows are named by."""
    if not raw:
        raise UserError(f"{source} has no rows")
    known = list(dict.fromkeys(column for row in raw for column in row))
    kind, chosen = _choose(source, known, columns)
    rows, empty = [], []
    for number, values in enumerate(raw, 1):
        name = f"{short} row {number}"
        if all(value is None or (isinstance(value, str) and is_blank(value)) for value in values.values()):
            empty.append(name)
        else:
            rows.append(parse_row(values, kind, chosen, name))
    if not rows:
        raise UserError(f"{source}: all rows are empty")
    more = [f"{len(empty)} of {len(raw)} rows are empty and left out: {first_names(empty)}"] if empty else []
    unread = tuple(column for column in known if column not in chosen.values())
    return _source(source, kind, rows, chosen, unread, [*notes, *more])


def _choose(source: str, known: Sequence[str], columns: Columns) -> tuple[Kind, dict[str, str]]:
    """Return the kind of the rows, and the columns by field. Raises UserError that lists the columns."""
    named = {field: column for field, column in columns if column is not None}
    by_usual_name: dict[str, str] = {}
    for column in known:
        by_usual_name.setdefault(column.strip().lower().replace(" ", "_").replace("-", "_"), column)
    exact = {**{column.lower(): column for column in known}, **{column: column for column in known}}
    for column in named.values():
        if column not in exact and column.lower() not in exact:
            raise unknown_name(f"column of {source}", column, known)
    named = {field: exact.get(column, exact.get(column.lower(), "")) for field, column in named.items()}
    for kind in (columns.kind,) if columns.kind else REQUIRED:
        found = _required(kind, named, by_usual_name)
        if found:
            break
    else:
        needs = f"{columns.kind} ({', '.join(REQUIRED[columns.kind])})" if columns.kind else "rows that lethe knows"
        raise UserError(f"{source} has no columns of {needs}, it has {', '.join(known) or 'none'}: {NAMING}")
    if kind == "questions" and found["question"] == by_usual_name.get("instruction") and "input" in by_usual_name:
        found["input"] = by_usual_name["input"]
    for field in VARIANTS if kind != "documents" else ():
        usual = next((by_usual_name[name] for name in USUAL_VARIANTS[field] if name in by_usual_name), "")
        if named_or_usual := named.get(field, usual):
            found[field] = named_or_usual
    return kind, found


def _required(kind: Kind, named: Mapping[str, str], by_usual_name: Mapping[str, str]) -> dict[str, str]:
    """Return the columns of the fields that the kind needs; nothing where the file lacks one."""
    for names in USUAL[kind]:
        pairs = zip(REQUIRED[kind], names, strict=True)
        found = {field: named.get(field, by_usual_name.get(usual, "")) for field, usual in pairs}
        if all(found.values()):
            return found
    return {}


# Both


def _source(
    source: str,
    kind: Kind,
    rows: Sequence[SourceRow],
    columns: Mapping[str, str],
    unread: tuple[str, ...],
    notes: Sequence[str],
) -> Source:
    """Return the source with each of equal rows once, and what is said of it."""
    first: dict[tuple[str, ...], SourceRow] = {}
    repeated = [f"{row.name} is {first[row.key].name}" for row in rows if first.setdefault(row.key, row) is not row]
    if repeated:
        notes = [
            *notes,
            f"{len(repeated)} of {len(rows)} rows are there before and count once: {first_names(repeated)}",
        ]
    said = tuple(f"{source}: {note}" for note in [*notes, *_unusual([*first.values()])])
    return Source(source, kind, tuple(first.values()), columns, unread, said)


def _unusual(rows: Sequence[SourceRow]) -> Iterator[str]:
    """Yield what is said of completions that begin in the middle of what looks like a word, and of chats that go on
    behind their last answer."""
    glued = [
        row.name
        for row in rows
        if isinstance(row, Completion) and (both := row.prompt[-1:] + row.answer[:1]).isalnum()
        if len(unicode_words(both)) == 1
    ]
    if glued:
        yield (
            f"{len(glued)} of {len(rows)} completions begin with a letter right behind their prompt's last one, and are"
            f" read as one word: {first_names(glued)}: begin them with a space if they are a word of their own"
        )
    longer = [row.name for row in rows if isinstance(row, Chat) and row.unread]
    if longer:
        yield (
            f"{len(longer)} of {len(rows)} chats go on behind their last answer, which is not read:"
            f" {first_names(longer)}"
        )


def _encodings(encodings: Mapping[str, int]) -> list[str]:
    others = {name: count for name, count in encodings.items() if not name.startswith("utf-8") and name}
    return [f"{count} file{'s' * (count > 1)} in {name.upper()}" for name, count in others.items()]


def _content(row: SourceRow) -> list[Any]:
    """Return what makes rows equal: all but the name."""
    return [getattr(row, field.name) for field in fields(row) if field.compare]
