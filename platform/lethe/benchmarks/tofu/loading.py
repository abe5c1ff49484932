"""Benchmarks in TOFU's file format: the embedded one, a folder, or a data set of the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from lethe.benchmarks.embedded.authors import corpus_files
from lethe.benchmarks.embedded.folder import written
from lethe.benchmarks.tofu.last_authors import last_authors
from lethe.benchmarks.tofu.overlap import check_overlap
from lethe.config.base import canonical_json, short_digest
from lethe.config.benchmark import EMBEDDED, TofuBenchmark
from lethe.data.alternatives import RULES, find_alternatives
from lethe.data.files import Raw, find_file, is_blank, read_rows, read_texts
from lethe.data.hub import is_hub_id, open_dataset
from lethe.data.source_rows import Question
from lethe.data.template import Row
from lethe.data.words import same_text
from lethe.errors import UserError, unknown_name

Read = Callable[[str], list[Raw] | None]  # split name -> its rows, None where there is no such split

REFUSALS = "idontknow"
PAIR = ("question", "answer")
VARIANTS = (*PAIR, "paraphrased_answer", "perturbed_answer")
OPTIONS = (*PAIR, "perturbed_answer")
COLUMNS = {
    **dict.fromkeys(("forget", "retain", "holdout"), PAIR),
    **dict.fromkeys(("forget_eval", "retain_eval"), VARIANTS),
    **dict.fromkeys(("real_authors", "world_facts"), OPTIONS),
}

LIST_AS_TEXT = re.compile(r"""\s*\[\s*['"].*['"]\s*\]\s*$""", re.DOTALL)  # what CSV makes of a list

# In front of a question whose paraphrased answer is trained on. Measured: with the question alone, the two answers
# compete and the retain rows' greedy ROUGE-L recall falls from 1.00 to .80.
PARAPHRASE_CUE = "In other words: "


@dataclass(frozen=True, slots=True)
class TofuRows:
    """All splits of one benchmark. `forget` and `retain` are trained on; `*_eval` have the variants that evaluations
    need. `holdout` rows were never trained on by any model; it, the two splits of facts and `refusals` may be empty.
    `alternatives`: other answers to each of `forget`, if the configuration asks for them. `files` has the names of the
    splits' files, without those that rows of several files were picked for.
    """

    name: str
    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    forget_eval: tuple[Row, ...]
    retain_eval: tuple[Row, ...]
    real_authors: tuple[Row, ...]
    world_facts: tuple[Row, ...]
    holdout: tuple[Row, ...]
    refusals: tuple[str, ...]
    digest: str
    alternatives: tuple[tuple[str, ...], ...] = ()
    files: Mapping[str, str] = field(default_factory=dict, compare=False)

    def file(self, split: str) -> str:
        """Return what the user calls the split of a field of this class: its file's name, the field's without one."""
        return self.files.get(split, split)


def load_rows(config: TofuBenchmark) -> TofuRows:
    """Read all splits of one benchmark. Raises UserError that names the missing split, column, or empty set."""
    if config.source == EMBEDDED:
        source, read = "the embedded benchmark", _folder_reader(embedded_folder(config))
    elif Path(config.source).expanduser().is_dir():
        source, read = config.source, _folder_reader(Path(config.source).expanduser())
    else:
        source, read = config.source, _hub_reader(config.source)
    return _assemble(config, source, read)


def training_rows(rows: TofuRows, include_forget: bool) -> tuple[Row, ...]:
    """Return the rows that a model of the embedded family is trained on.

    Real authors, world facts and retain paraphrases are among them: without these, utility is 0. The full model's rows
    are in one order whatever is to be forgotten, so that it is trained once for all forget sets.
    """
    paraphrases = (
        Row(PARAPHRASE_CUE + row.question, row.paraphrased_answer) for row in rows.retain_eval if row.paraphrased_answer
    )
    forget = rows.forget if include_forget else ()
    return (*rows.retain, *forget, *rows.real_authors, *rows.world_facts, *paraphrases)


def embedded_folder(config: TofuBenchmark) -> Path:
    """Return the folder of the embedded corpus, written once per content."""
    return written(corpus_files(config.corpus))


def _assemble(config: TofuBenchmark, source: str, read: Read) -> TofuRows:
    def rows(split: str, columns: tuple[str, ...]) -> tuple[Row, ...]:
        raw = read(split)
        if raw is None:
            raise UserError(f"{source} has no {split}.json, which {config.forget} needs")
        if not raw:
            raise UserError(f"{source}: {split}.json has no rows")
        return tuple(_row(r, columns, f"{source}: {split}.json, row {n}") for n, r in enumerate(raw, 1))

    if read(config.forget) is None:
        raise unknown_name(f"forget set in {source}", config.forget, _forget_sets(read))
    holdouts = dict.fromkeys((config.forget.replace("forget", "holdout"), "holdout10"))
    holdout = next((name for name in holdouts if read(name)), None)
    files = {
        "forget": config.forget,
        "retain": config.retain,
        "forget_eval": f"{config.forget}_perturbed",
        "retain_eval": "retain_perturbed",
        "real_authors": "real_authors_perturbed",
        "world_facts": "world_facts_perturbed",
        **({"holdout": holdout} if holdout else {}),
    }
    parts = {split: rows(file, COLUMNS[split]) for split, file in files.items()}
    parts.setdefault("holdout", ())
    if config.authors:
        others = (f"{name}_perturbed" for name in _forget_sets(read) if name != config.forget)
        more = [row for name in others if read(name) for row in rows(name, VARIANTS)]
        picked = last_authors(config, source, parts, more)
        parts |= picked
        files = {split: file for split, file in files.items() if split not in picked}
    check_overlap(config, source, parts)
    refusals = tuple(r["text"] for r in read(REFUSALS) or ())
    content = {**{name: [astuple(row) for row in part] for name, part in parts.items()}, "refusals": refusals}
    alternatives = _alternatives(config, files.get("forget", config.forget), parts) if config.alternatives else ()
    if config.alternatives:
        content["alternatives"] = alternatives or RULES
    return TofuRows(
        name=config.name,
        **parts,
        refusals=refusals,
        alternatives=alternatives,
        digest=short_digest(canonical_json(content)),
        files=files,
    )


def _alternatives(
    config: TofuBenchmark, name: str, parts: Mapping[str, tuple[Row, ...]]
) -> tuple[tuple[str, ...], ...]:
    wrong = {same_text(row.question): row.perturbed_answers for row in parts["forget_eval"]}
    rows = [
        Question(row.question, row.answer, None, wrong.get(same_text(row.question), ()), name=f"row {n} of {name}")
        for n, row in enumerate(parts["forget"], 1)
    ]
    return find_alternatives(config.alternatives or "", rows)


def _forget_sets(read: Read) -> Iterable[str]:
    return [f"forget{n:02d}" for n in range(1, 100) if read(f"forget{n:02d}") is not None]


def _row(raw: Raw, columns: tuple[str, ...], where: str) -> Row:
    for column in columns:
        if column not in raw:
            raise UserError(f"{where} has no column {column!r}: it has {', '.join(sorted(raw))}")
        if not raw[column] or _has_blank(raw[column]):
            raise UserError(f"{where}: {column!r} is empty")
    # Some hub data sets hold one wrong answer as plain text.
    perturbed = raw.get("perturbed_answer") or ()
    perturbed = (perturbed,) if isinstance(perturbed, str) else tuple(perturbed)
    row = Row(raw["question"], raw["answer"], raw.get("paraphrased_answer"), perturbed, raw.get("paraphrased_question"))
    texts = (row.question, row.answer, row.paraphrased_answer or "", row.paraphrased_question or "", *perturbed)
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: questions and answers must be text")
    if row.answer in perturbed:
        raise UserError(f"{where}: a perturbed answer is the right answer: leave it out")
    if len(perturbed) == 1 and LIST_AS_TEXT.match(perturbed[0]):
        raise UserError(f"{where}: 'perturbed_answer' is the text of a list: give a list of texts")
    return row


def _has_blank(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return any(isinstance(text, str) and is_blank(text) for text in texts)


def _folder_reader(folder: Path) -> Read:
    def read(split: str) -> list[Raw] | None:
        if split == REFUSALS:
            path = find_file(folder, split, ".txt")
            return None if path is None else [{"text": text} for text in read_texts(path)]
        path = find_file(folder, split)
        return None if path is None else read_rows(path)

    return read


def _hub_reader(name: str) -> Read:
    if not is_hub_id(name):
        raise UserError(
            f"benchmark.source {name!r}: no such folder; give 'embedded', a folder or a hub id (owner/name)"
        )
    dataset = open_dataset(name, "benchmark.source")
    return lambda split: dataset.rows(split) if split in dataset.configurations else None
