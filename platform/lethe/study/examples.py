"""Answers of a trial's model before and after, asked again and stored nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lethe.benchmarks.measurement import measure, task_of
from lethe.config.run import LEAST_ROWS, Evaluation
from lethe.config.study import Study
from lethe.data.privacy import SALT, row_hash, study_salt
from lethe.evaluation.distributed import RankShard
from lethe.records import StudyRecord, TrialRecord
from lethe.storage.replica import ensure_local
from lethe.study.preparation import stored_benchmark
from lethe.study.scored_models import ScoredModel, find


@dataclass(frozen=True)
class Example:
    """A row to forget by its number, counted from 1, and its hash, which is empty where the study has no salt, with the
    answers of start model and trial."""

    number: int
    name: str
    question: str
    answer: str
    before: str
    after: str


def examples(record: StudyRecord, trial: TrialRecord, study_folder: Path, count: int) -> Iterator[Example]:
    """Yield the first `count` rows to forget that the study evaluates, as its start model and `trial`'s answer them.

    Raises UserError where the data have changed, or a model is gone.
    """
    study, benchmark = stored_benchmark(record)
    evaluation = study.first_recipe().evaluation.model_copy(
        update={"max_rows": max(LEAST_ROWS, count), "share": 1.0, "lm_eval": None, "gradnorm": False}
    )
    found = [find(name, registry=study.tracking.uri) for name in (record.start_folder, trial.folder)]
    before, after = (_asked(study, benchmark, evaluation, model) for model in found)
    salt = study_salt(study_folder) if ensure_local(study_folder / SALT) else None
    for number, (own, answered) in enumerate(zip(before[:count], after[:count], strict=True), 1):
        name = row_hash(salt, own["question"], own["answer"]) if salt else ""
        yield Example(number, name, own["question"], own["answer"], own["generated"], answered["generated"])


def _asked(study: Study, benchmark: Any, evaluation: Evaluation, model: ScoredModel) -> list[dict[str, str]]:
    """Return the texts of the rows to forget, with the model's answers."""
    engine = study.first_recipe().engine
    network = model.load(engine.device)
    task = task_of(benchmark, model.template(study.prompt), network)
    rows = measure(network, task, task.eval_set(evaluation), evaluation, RankShard()).rows
    names = ("question", "answer", "generated")
    texts = zip(rows["split"], *(rows.get(name) or [""] * len(rows["split"]) for name in names), strict=True)
    forget = ([text or "" for text in own] for split, *own in texts if split.startswith("forget") and any(own))
    return [dict(zip(names, own, strict=True)) for own in forget]
