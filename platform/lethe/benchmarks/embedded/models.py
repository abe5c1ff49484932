"""The embedded family: a small model trained on everything, and its oracle, trained without the forget set.

Both share one tokenizer, made from the full model's text; otherwise their truth ratios could not be compared.
Each is cached by what it was trained from, so that another forget set of the same data trains an oracle only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.benchmarks.tdec.loading import Passages
from lethe.benchmarks.tofu.loading import training_rows
from lethe.config.base import canonical_json, short_digest
from lethe.config.model import AnyEmbedded
from lethe.data.rows import Benchmark, Row
from lethe.errors import UserError
from lethe.models.subprocess_training import (
    SPENT,
    ProgressReport,
    Spent,
    Training,
    console_report,
    train_in_subprocesses,
)
from lethe.models.tokenizer import train_tokenizer
from lethe.storage.paths import atomic_folder, home
from lethe.storage.replica import ensure_local

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RECIPE = 1  # raise it when a change of the training code changes its results: old caches are then left alone


def trained_pair(
    benchmark: Benchmark | Passages, model: AnyEmbedded, report: ProgressReport | None = None
) -> tuple[Path, Path | None]:
    """Folders of the full model and of its oracle, which passages have none of; those that are not cached are trained
    side by side."""
    full = training_rows(benchmark, include_forget=True)
    wanted = {"full model": full}
    if isinstance(benchmark, Benchmark):
        wanted["oracle"] = training_rows(benchmark, include_forget=False)
    length = _length(benchmark)
    folders = {name: _folder(model, full, rows, length) for name, rows in wanted.items()}
    missing = {name: rows for name, rows in wanted.items() if not ensure_local(folders[name])}
    if missing:
        _train(model, _tokenizer(model, full), missing, folders, report, length)
    return folders["full model"], folders.get("oracle")


def train_anew(benchmark: Benchmark | Passages, model: AnyEmbedded, folder: Path) -> Spent:
    """Train the oracle into `folder`, new, whatever is cached: what exact unlearning takes is measured."""
    full, kept = training_rows(benchmark, include_forget=True), training_rows(benchmark, include_forget=False)
    _train(model, _tokenizer(model, full), {"oracle": kept}, {"oracle": folder}, _in_silence, _length(benchmark))
    return Spent(**json.loads((folder / SPENT).read_text()))


def _tokenizer(model: AnyEmbedded, rows: Sequence[Row]) -> Tokenizer:
    """From each text once, where some are repeated to be memorised: their numbers should not become tokens."""
    return train_tokenizer(_texts(rows) if rows[0].question else dict.fromkeys(_texts(rows)), model.vocab_size)


def _length(benchmark: Benchmark | Passages) -> int:
    """Tokens of every text; 0 for questions and answers, which are as long as they are."""
    return benchmark.length if isinstance(benchmark, Passages) else 0


def _in_silence(name: str, share: float) -> None:
    """A progress report that nobody reads."""


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
    wanted: dict[str, Sequence[Row]],
    folders: dict[str, Path],
    report: ProgressReport | None,
    length: int,
) -> None:
    for rows in wanted.values():
        _check_lengths(model, tokenizer, rows, length)
    with ExitStack() as stack:
        if report is None:
            report = stack.enter_context(console_report(tuple(wanted)))
        trainings = [
            Training(
                name=name,
                config=model.model_dump_json(),
                tokenizer=tokenizer.to_str(),
                pairs=tuple((row.question, row.answer) for row in rows),
                folder=stack.enter_context(atomic_folder(folders[name])),
                length=length,
            )
            for name, rows in wanted.items()
        ]
        train_in_subprocesses(trainings, report, model.threads)


def _check_lengths(model: AnyEmbedded, tokenizer: Tokenizer, rows: Sequence[Row], length: int) -> None:
    markers = 6  # <s> <|user|> <|end|> <|assistant|> </s>, and one to spare
    pairs = zip(tokenizer.encode_batch([r.question for r in rows]), tokenizer.encode_batch([r.answer for r in rows]))
    longest = length or markers + max(len(question.ids) + len(answer.ids) for question, answer in pairs)
    if longest > model.max_length:
        raise UserError(f"model.max_length is {model.max_length}, but the longest row has {longest} tokens: raise it")


def _texts(rows: Sequence[Row]) -> list[str]:
    return [text for row in rows for text in (row.question, row.answer)]
