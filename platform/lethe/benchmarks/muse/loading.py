"""Reading MUSE's data: the embedded texts, a folder, or a data set of the hub (Shi et al. 2024, arXiv 2407.06460).

A folder has the names of the public data sets; a file is JSON lines or another form that `lethe.data.files` reads, or
the hub's own Parquet parts (forget-00000-of-00001.parquet):
    raw/       forget retain1 retain2 holdout           {"text": ...}
    verbmem/   forget                                   {"prompt": ..., "gt": ...}
    knowmem/   forget_qa retain_qa, each with *_icl     {"question": ..., "answer": ...}
    privleak/  forget holdout                           {"text": ...}; may be absent
    scal/, sust/  forget_1 to forget_4                  {"text": ...}; read where one of them is to be forgotten
    train/     forget retain1 retain2                   {"text": ...}; may be absent
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lethe.benchmarks.embedded.folder import written
from lethe.benchmarks.embedded.news import news_files
from lethe.config.base import canonical_json, short_digest
from lethe.config.benchmark import EMBEDDED
from lethe.config.muse import MuseBenchmark
from lethe.data.files import Raw, find_file, is_blank, read_rows
from lethe.data.hub import is_hub_id, open_dataset
from lethe.data.overlap import refuse_shared
from lethe.data.template import Row
from lethe.data.words import same_text
from lethe.errors import UserError

Read = Callable[[str, str], list[Raw] | None]  # subset and split -> its rows, None where there is no such split


@dataclass(frozen=True, slots=True)
class Passage:
    """The beginning of a text, and what follows it."""

    prompt: str
    gt: str


@dataclass(frozen=True, slots=True)
class MuseRows:
    """The data of one study.

    `forget` and `retain` are trained on, `earlier` are the documents of earlier requests, `trained` all that the start
    model saw. `verbmem`, `forget_qa` and `forget_icl` belong to the first request: to `earlier`, where there are any.
    `members` are texts of the documents to forget, `holdout` such as no model saw; `holdout` may be empty.
    """

    forget: tuple[str, ...]
    retain: tuple[str, ...]
    earlier: tuple[str, ...]
    trained: tuple[str, ...]
    verbmem: tuple[Passage, ...]
    forget_qa: tuple[Row, ...]
    forget_icl: tuple[Row, ...]
    retain_qa: tuple[Row, ...]
    retain_icl: tuple[Row, ...]
    members: tuple[str, ...]
    holdout: tuple[str, ...]
    digest: str


def load_rows(config: MuseBenchmark) -> MuseRows:
    """Read the data of one study. Raises UserError that names file and row."""
    source, read = _reader(config)
    reader = _Reader(source, read)
    forget, retain = reader.texts(*config.forget_file), reader.texts("raw", "retain1")
    earlier = tuple(text for file in config.earlier_files for text in reader.texts(*file))
    trained = [reader.texts("train", name, optional=True) for name in ("forget", "retain1", "retain2")]
    if not all(trained):
        trained = [earlier, forget, retain, reader.texts("raw", "retain2", optional=True)]
    holdout = reader.texts("privleak", "holdout", optional=True)
    members = forget if earlier else reader.texts("privleak", "forget", optional=not holdout) or forget
    rows = MuseRows(
        forget=forget,
        retain=retain,
        earlier=earlier,
        trained=tuple(dict.fromkeys(text for part in trained for text in part)),
        verbmem=tuple(Passage(raw["prompt"], raw["gt"]) for raw in reader.rows("verbmem", "forget", "prompt", "gt")),
        forget_qa=reader.questions("forget_qa"),
        forget_icl=reader.questions("forget_qa_icl")[: config.examples],
        retain_qa=reader.questions("retain_qa"),
        retain_icl=reader.questions("retain_qa_icl")[: config.examples],
        members=members,
        holdout=holdout,
        digest="",
    )
    if not config.allow_overlap:
        parts = {config.forget: forget, "retain1": retain, "the holdout texts": holdout, "earlier requests": earlier}
        same = {name: [same_text(text) for text in part] for name, part in parts.items()}
        named, kept_ones, unseen, before = parts
        refuse_shared(source, same, [(named, kept_ones), (named, unseen), (unseen, kept_ones), (before, kept_ones)])
    measured = config.model_dump(mode="json", include={"window", "verbmem_tokens", "knowmem_tokens", "examples"})
    content = [asdict(rows), measured, config.ends_with_space]
    return replace(rows, digest=short_digest(canonical_json(content)))


def kept(rows: MuseRows) -> tuple[str, ...]:
    """Return the documents that a model saw which never saw those of this request and of earlier ones."""
    gone = {same_text(text) for text in (*rows.forget, *rows.earlier)}
    return tuple(text for text in rows.trained if same_text(text) not in gone)


@dataclass(frozen=True)
class _Reader:
    source: str
    read: Read

    def rows(self, subset: str, split: str, *columns: str, optional: bool = False) -> list[Raw]:
        """Return the rows of a split, which have these columns of text; none where an optional one is absent."""
        found = self.read(subset, split)
        where = f"{self.source}/{subset}/{split}"
        if not found and not optional:
            raise UserError(f"{where} {'has no rows' if found is not None else 'is missing: MUSE has it'}")
        for number, raw in enumerate(found or (), 1):
            for column in columns:
                if not isinstance(raw.get(column), str) or is_blank(raw[column]):
                    has = "must be text that is not empty" if column in raw else f"is missing: it has {', '.join(raw)}"
                    raise UserError(f"{where}, row {number}: {column} {has}")
        return found or []

    def texts(self, subset: str, split: str, optional: bool = False) -> tuple[str, ...]:
        return tuple(raw["text"] for raw in self.rows(subset, split, "text", optional=optional))

    def questions(self, split: str) -> tuple[Row, ...]:
        found = self.rows("knowmem", split, "question", "answer", optional=split.endswith("_icl"))
        return tuple(Row(raw["question"], raw["answer"]) for raw in found)


def _reader(config: MuseBenchmark) -> tuple[str, Read]:
    """Return what the source is called, and the function that reads its splits."""
    if config.source == EMBEDDED:
        return "the embedded benchmark", _folder_reader(written(news_files(config.news)))
    folder = Path(config.source).expanduser()
    if folder.is_dir():
        return config.source, _folder_reader(folder)
    if not is_hub_id(config.source):
        raise UserError(
            f"benchmark.source {config.source!r}: no such folder; give 'embedded', a folder or a hub id (owner/name)"
        )
    dataset = open_dataset(config.source, "benchmark.source")

    def read(subset: str, split: str) -> list[Raw] | None:
        known = subset in dataset.configurations and split in dataset.splits(subset)
        return dataset.rows(subset, split) if known else None

    return config.source, read


def _folder_reader(folder: Path) -> Read:
    def read(subset: str, split: str) -> list[Raw] | None:
        if parts := sorted((folder / subset).glob(f"{split}-?????-of-?????.parquet")):
            return [row for part in parts for row in read_rows(part)]
        path = find_file(folder / subset, split)
        return None if path is None else read_rows(path)

    return read
