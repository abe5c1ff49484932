"""Reading WMDP's data: the embedded texts, or a folder (Li et al. 2024, arXiv 2403.03218).

A folder has documents of one `text` each, as JSON lines or another form that `lethe.data.files` reads. Several files
are one part, as the authors publish them (bio-forget-corpus.jsonl, cyber-forget-corpus.jsonl):
    forget.jsonl or *-forget-*    what has to go
    retain.jsonl or *-retain-*    texts of the same kind that are kept
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lethe.benchmarks.embedded.fields import town_files
from lethe.benchmarks.embedded.folder import written
from lethe.config.base import canonical_json, short_digest
from lethe.config.benchmark import EMBEDDED
from lethe.config.run import LmEval
from lethe.config.wmdp import WmdpBenchmark
from lethe.data.files import ENDINGS, is_blank, read_rows
from lethe.data.overlap import refuse_shared
from lethe.data.words import same_text
from lethe.errors import UserError
from lethe.evaluation.lm_eval_tasks import CONTENT, own_tasks, store_tasks


@dataclass(frozen=True, slots=True)
class WmdpRows:
    """Documents to forget and to keep, and the folder of the user's own task files: its address in the storage root,
    None where all tasks are the harness's."""

    forget: tuple[str, ...]
    retain: tuple[str, ...]
    task_path: str | None
    digest: str


def load_rows(config: WmdpBenchmark) -> WmdpRows:
    """Read the documents, store the task files and check that the tasks exist. Raises UserError that names what is
    missing or malformed, and where."""
    embedded = config.source == EMBEDDED
    folder = written(town_files(config.towns)) if embedded else Path(config.source).expanduser()
    if not folder.is_dir():
        raise UserError(f"benchmark.source {config.source!r}: no such folder: give 'embedded' or one of documents")
    if find_spec("lm_eval") is None:
        raise UserError("benchmark.name: wmdp needs the package lm-eval: pip install 'lethe[lm-eval]'")
    forget, retain = _documents(folder, "forget"), _documents(folder, "retain")
    if not config.allow_overlap:
        parts = {"forget": [same_text(text) for text in forget], "retain": [same_text(text) for text in retain]}
        refuse_shared(str(folder), parts, [("forget", "retain")])
    path = _stored(folder / "tasks" if embedded else config.task_path)
    _check_tasks(config, path)
    content = [list(config.asked), len(config.forget_tasks), path, config.window, list(forget), list(retain)]
    return WmdpRows(forget, retain, path, short_digest(canonical_json(content)))


def _documents(folder: Path, part: str) -> tuple[str, ...]:
    """Return the texts of all files of a part, in the order of the files' names."""
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.name.endswith(ENDINGS) and (path.name.split(".")[0] == part or f"-{part}-" in path.name)
    ]
    if not files:
        raise UserError(f"{folder} has no {part}.jsonl and no file like bio-{part}-corpus.jsonl")
    texts = []
    for path in files:
        for number, raw in enumerate(read_rows(path), 1):
            if not isinstance(raw.get("text"), str) or is_blank(raw["text"]):
                raise UserError(f"{path}, row {number}: needs a text that is not empty")
            texts.append(raw["text"])
    if not texts:
        raise UserError(f"{files[0]} has no rows")
    return tuple(texts)


def _stored(given: Path | str | None) -> str | None:
    """Return the address of a folder of task files, which is copied into the storage root."""
    if given is None or str(given).startswith(CONTENT):
        return None if given is None else str(given)
    return store_tasks(Path(given).expanduser())


def harness(config: WmdpBenchmark, path: str | None, limit: int | None = None) -> LmEval:
    """Return all tasks as the harness takes them, with at most `limit` questions each."""
    return LmEval(tasks=config.asked, path=path, limit=limit)


def _check_tasks(config: WmdpBenchmark, path: str | None) -> None:
    own = own_tasks(harness(config, path))
    if any(task not in own for task in config.asked):
        from lethe.evaluation.lm_eval import check_names  # imports the harness, seconds

        check_names(config.asked, own)
