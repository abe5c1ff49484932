"""Reading TDEC's data: files that the user brings, or the embedded texts (Jang et al. 2022, arXiv 2210.01504).

A folder has JSON lines, or another form that `lethe.data.files` reads:
    forget.jsonl retain.jsonl unseen.jsonl validation.jsonl
        {"input_ids": [200 token ids]} or {"text": "..."}, of which the first 200 tokens count, or all of them
    dialogue.jsonl  {"context": "A: Hello!\\nB:", "response": " Hello."}; may be absent
    choice.jsonl    {"question": "Rain is", "choices": [" wet.", " dry."], "answer": 0}; may be absent
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lethe.benchmarks.embedded.folder import written
from lethe.benchmarks.embedded.towns import document_files
from lethe.config.base import canonical_json, short_digest
from lethe.config.benchmark import EMBEDDED, TdecBenchmark
from lethe.data.files import FORMS, Raw, find_file, is_blank, read_rows
from lethe.data.overlap import refuse_shared
from lethe.data.template import Row
from lethe.data.words import same_text
from lethe.errors import UserError

if TYPE_CHECKING:
    from lethe.data.template import Template

Passage = str | tuple[int, ...]  # text, or the token ids of one tokenizer
SPLITS = ("forget", "retain", "unseen", "validation")  # of passages
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn:
    """A dialogue up to the name of the next speaker, and that speaker's reply."""

    context: str
    response: str


@dataclass(frozen=True, slots=True)
class Question:
    """A beginning and its possible ends, the right one at index `answer`."""

    question: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class Passages:
    """All parts of one benchmark.

    `unseen` sets the thresholds, `validation` the perplexity; no model was trained on either. `memorised` are all rows
    of the forget file, each of which an embedded model sees `repeats` times: `forget` are the first of them, the others
    are at the end of `retain`. Sequences have `length` tokens; of a longer text the first counts, or all if `whole`.
    """

    name: str
    forget: tuple[Passage, ...]
    retain: tuple[Passage, ...]
    unseen: tuple[Passage, ...]
    validation: tuple[Passage, ...]
    dialogue: tuple[Turn, ...]
    choice: tuple[Question, ...]
    memorised: tuple[Passage, ...]
    repeats: int
    length: int
    digest: str
    whole: bool = False


def load_passages(config: TdecBenchmark) -> Passages:
    """Read all parts of one benchmark. Raises UserError that names file and row."""
    folder = embedded_documents(config) if config.source == EMBEDDED else Path(config.source).expanduser()
    if not folder.is_dir():
        raise UserError(f"benchmark.source {config.source!r}: no such folder: give 'embedded' or one of JSON lines")

    def passages(split: str) -> tuple[Passage, ...]:
        return _rows(folder, split, lambda raw: _passage(raw, config.length))

    memorised = passages("forget")
    forget, retain = memorised[: config.sequences], (*passages("retain"), *memorised[config.sequences :])
    unseen, validation = passages("unseen"), passages("validation")
    dialogue = _rows(folder, "dialogue", _turn, optional=True)
    choice = _rows(folder, "choice", _question, optional=True)
    if not config.allow_overlap:
        parts = {"forget": forget, "retain": retain, "unseen": unseen, "validation": validation}
        same = {name: [_same(row) for row in part] for name, part in parts.items()}
        pairs = [("forget", "retain"), ("forget", "unseen"), ("forget", "validation"), ("retain", "unseen")]
        refuse_shared(str(folder), same, pairs)
    rows = {
        "forget": forget,
        "retain": retain,
        "unseen": unseen,
        "validation": validation,
        "dialogue": [asdict(turn) for turn in dialogue],
        "choice": [asdict(question) for question in choice],
    }
    # The digest covers how the passages are measured, too: thresholds depend on it.
    measured = config.model_dump(mode="json", exclude={"source", "repeats", "documents", "allow_overlap"})
    return Passages(
        name=config.name,
        forget=forget,
        retain=retain,
        unseen=unseen,
        validation=validation,
        dialogue=dialogue,
        choice=choice,
        memorised=memorised,
        repeats=config.repeats,
        length=config.length,
        digest=short_digest(canonical_json([measured, rows])),
        whole=config.texts == "whole",
    )


def _same(row: Passage) -> Passage:
    return same_text(row) if isinstance(row, str) else row


def embedded_documents(config: TdecBenchmark) -> Path:
    """Return the folder of the embedded texts, written once per content."""
    return written(document_files(config.documents))


def training_rows(passages: Passages, include_forget: bool) -> tuple[Row, ...]:
    """Return the rows that a model of the embedded family is trained on: plain text, without questions. Raises
    UserError for token ids, which belong to another tokenizer.

    Repetition is what makes a model memorise (Carlini et al. 2022, arXiv 2202.07646).
    """
    others = passages.memorised[len(passages.forget) :]
    once = passages.retain[: len(passages.retain) - len(others)]
    texts = (*once, *(passages.memorised if include_forget else others) * passages.repeats)
    if not all(isinstance(text, str) for text in texts):
        raise UserError("model.name: an embedded model has its own tokenizer: give text, or a pretrained model")
    return tuple(Row("", str(text)) for text in texts)


@dataclass(frozen=True)
class Sequences:
    """The passages as token ids [rows, length] of one tokenizer."""

    forget: np.ndarray
    retain: np.ndarray
    unseen: np.ndarray
    validation: np.ndarray


def check_ids(passages: Passages, vocabulary: int | None) -> None:
    """Raise UserError that names split and row for a token id outside `vocabulary`, or below 0 where that is None."""
    for split in SPLITS:
        for number, row in enumerate(getattr(passages, split), 1):
            foreign = [i for i in row if not 0 <= i < (vocabulary or i + 1)] if isinstance(row, tuple) else []
            if foreign:
                where = f"{split}.jsonl, row {number}"
                raise UserError(f"{where}: token id {foreign[0]} is not in the model's vocabulary of {vocabulary}")


def tokenised(passages: Passages, template: Template, vocabulary: int) -> Sequences:
    """Return the passages as token ids: of a text the first `length`, BOS among them where the tokenizer adds it, or
    with `passages.whole` all of them, cut into sequences.

    Raises UserError, with split and row, for text that is too short and for ids outside `vocabulary`.
    """
    check_ids(passages, vocabulary)
    sequences: dict[str, np.ndarray] = {}
    for split in SPLITS:
        rows: list[tuple[int, ...]] = []
        for number, row in enumerate(getattr(passages, split), 1):
            ids = template.text(row) if isinstance(row, str) else row
            if len(ids) < passages.length:
                short = f"the text has {len(ids)} tokens, {passages.length} are needed (benchmark.length)"
                raise UserError(f"{split}.jsonl, row {number}: {short}")
            rows += _cut(ids, passages.length) if passages.whole else [ids[: passages.length]]
        sequences[split] = np.array(rows, dtype=np.int64)
    return Sequences(**sequences)


def _cut(ids: tuple[int, ...], length: int) -> list[tuple[int, ...]]:
    """Return consecutive sequences of `length` tokens that cover `ids`; the last one ends with them, and shares its
    first tokens with the one before where `length` does not divide their number."""
    starts = [*range(0, len(ids) - length, length), len(ids) - length]
    return [ids[start : start + length] for start in starts]


def texts_read(passages: Passages, template: Template) -> list[str]:
    """Return for each part that has longer texts than sequences how many of their tokens are read: none if all are."""
    found = []
    for split in SPLITS if not passages.whole else ():
        lengths = [len(template.text(row)) for row in getattr(passages, split) if isinstance(row, str)]
        if any(length > passages.length for length in lengths):
            read = sum(min(length, passages.length) for length in lengths)
            found.append(f"{split} {read:,} of {sum(lengths):,} tokens, the longest text has {max(lengths):,}")
    return found


def _rows(folder: Path, name: str, parse: Callable[[Raw], T], optional: bool = False) -> tuple[T, ...]:
    path = find_file(folder, name)
    if path is None:
        if optional:
            return ()
        needed = "a benchmark needs forget, retain, unseen and validation"
        raise UserError(f"there is no {folder}/{name}.jsonl: {needed}, each as {FORMS}")
    rows = []
    for number, raw in enumerate(read_rows(path), 1):
        try:
            rows.append(parse(raw))
        except ValueError as error:
            raise UserError(f"{path}, row {number}: {error}") from None
    if not rows:
        raise UserError(f"{path} has no rows")
    return tuple(rows)


def _passage(raw: Raw, length: int) -> Passage:
    ids = raw.get("input_ids")
    if ids is None:
        return _text(raw, "text", " nor input_ids")
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        raise ValueError("input_ids must be a list of whole numbers")
    if len(ids) != length:
        raise ValueError(f"input_ids has {len(ids)} token ids, exactly {length} are needed (benchmark.length)")
    return tuple(ids)


def _turn(raw: Raw) -> Turn:
    return Turn(_text(raw, "context"), _text(raw, "response"))


def _question(raw: Raw) -> Question:
    choices, answer = raw.get("choices"), raw.get("answer")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise ValueError("choices must be a list of at least two texts")
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise ValueError(f"answer must be the place of the right choice, 0 to {len(choices) - 1}")
    return Question(_text(raw, "question"), tuple(choices), answer)


def _text(raw: Raw, key: str, otherwise: str = "") -> str:
    if not isinstance(raw.get(key), str) or is_blank(raw[key]):
        raise ValueError(f"has no {key}{otherwise}" if key not in raw else f"{key} must be text that is not empty")
    return str(raw[key])
