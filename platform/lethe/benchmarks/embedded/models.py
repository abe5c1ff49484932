"""Models of the embedded family: one trained on all of a benchmark, and its oracle, trained without the forget set.

Both share one tokenizer, made from the full model's text; otherwise their truth ratios could not be compared.
Each is cached by what it was trained from, so that another forget set of the same data trains an oracle only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.benchmarks.base import Benchmark
from lethe.config.base import canonical_json, short_digest
from lethe.config.model import AnyEmbedded
from lethe.data.template import Row
from lethe.errors import UserError
from lethe.models.subprocess_training import (
    ProgressReport,
    Training,
    console_report,
    train_in_subprocesses,
)
from lethe.models.tokenizer import train_tokenizer
from lethe.records import TRAINING, TrainingRecord
from lethe.storage.paths import atomic_folder, home
from lethe.storage.replica import ensure_local

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RECIPE = 1  # raise it when a change of the training code changes its results: old caches are then left alone


def trained_pair(
    benchmark: Benchmark, model: AnyEmbedded, report: ProgressReport | None = None
) -> tuple[Path, Path | None]:
    """Return the folders of the full model and of its oracle, None where the benchmark compares with no oracle; models
    that are not cached are trained side by side."""
    full = benchmark.training_rows(include_forget=True)
    rows_by_model = {"full model": full}
    if benchmark.has_oracle:
        rows_by_model["oracle"] = benchmark.training_rows(include_forget=False)
    length = benchmark.config.sequence_length
    folders = {name: _folder(model, full, rows, length) for name, rows in rows_by_model.items()}
    missing = {name: rows for name, rows in rows_by_model.items() if not ensure_local(folders[name])}
    if missing:
        _train(model, _tokenizer(model, full), missing, folders, report, length)
    return folders["full model"], folders.get("oracle")


def train_anew(benchmark: Benchmark, model: AnyEmbedded, folder: Path) -> TrainingRecord:
    """Train the oracle into `folder`, whatever is cached, and return what that took: the cost of exact unlearning."""
    full, retained = benchmark.training_rows(include_forget=True), benchmark.training_rows(include_forget=False)
    length = benchmark.config.sequence_length
    _train(model, _tokenizer(model, full), {"oracle": retained}, {"oracle": folder}, _ignore_progress, length)
    return TrainingRecord.model_validate_json((folder / TRAINING).read_text())


def _tokenizer(model: AnyEmbedded, rows: Sequence[Row]) -> Tokenizer:
    """Train a tokenizer on the texts of `rows`."""
    # Plain text is repeated to be memorised; it counts once here, or its numbers would become tokens.
    return train_tokenizer(_texts(rows) if rows[0].question else dict.fromkeys(_texts(rows)), model.vocab_size)


def _ignore_progress(name: str, share: float) -> None:
    """Show nothing."""


def _folder(model: AnyEmbedded, text_of: Sequence[Row], rows: Sequence[Row], length: int) -> Path:
    content = [
        RECIPE,
        model.model_dump(mode="json"),
        list(_texts(text_of)),
        list(_texts(rows)),
        *([length] if length else []),
    ]
    return home() / "models" / short_digest(canonical_json(content))


def _train(
    model: AnyEmbedded,
    tokenizer: Tokenizer,
    rows_by_model: Mapping[str, Sequence[Row]],
    folders: dict[str, Path],
    report: ProgressReport | None,
    length: int,
) -> None:
    for rows in rows_by_model.values():
        _check_lengths(model, tokenizer, rows, length)
    with ExitStack() as stack:
        if report is None:
            report = stack.enter_context(console_report(tuple(rows_by_model)))
        trainings = [
            Training(
                name=name,
                config=model.model_dump_json(),
                tokenizer=tokenizer.to_str(),
                pairs=tuple((row.question, row.answer) for row in rows),
                folder=stack.enter_context(atomic_folder(folders[name])),
                length=length,
            )
            for name, rows in rows_by_model.items()
        ]
        train_in_subprocesses(trainings, report, model.threads)


def _check_lengths(model: AnyEmbedded, tokenizer: Tokenizer, rows: Sequence[Row], length: int) -> None:
    """Raise UserError if the longest row, or a text of `length` tokens, does not fit into the model. With `length` 0
    any text does, in windows."""
    rows = rows if length else [row for row in rows if row.question]
    markers = 6  # <s> <|user|> <|end|> <|assistant|> </s>, and one to spare
    questions, answers = (
        tokenizer.encode_batch([getattr(row, part) for row in rows]) for part in ("question", "answer")
    )
    pairs = zip(questions, answers, strict=True)
    longest = length or max((markers + len(question.ids) + len(answer.ids) for question, answer in pairs), default=0)
    if longest > model.max_length:
        raise UserError(f"model.max_length is {model.max_length}, but the longest row has {longest} tokens: raise it")


def _texts(rows: Sequence[Row]) -> list[str]:
    return [text for row in rows for text in (row.question, row.answer)]
