"""What a study leaves for people: pages, a picture and a table, each written whole or not at all."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

from lethe.errors import BadInput
from lethe.records import StudyRecord
from lethe.reporting.comparison.picture import comparison_png
from lethe.reporting.comparison.table import comparison_csv
from lethe.reporting.facts import names
from lethe.reporting.page import render
from lethe.reporting.picture import front_png
from lethe.storage import atomic_write


def write_report(record: StudyRecord, folder: Path, *, store: str | None = None, model: str = "") -> Path:
    """Write report.html, front.html, front.png, trials.csv and study.json into `folder`, for a comparison also
    comparison.csv and comparison.png; return report.html's path.

    `store` is the address of the runs (a tracker's `uri`) and `model` the registered model's name, where there are
    such. Raises BadInput where the folder cannot be written.
    """
    files: dict[str, str | bytes] = {
        "study.json": record.model_dump_json(indent=1),
        "trials.csv": trials_csv(record),
        "front.png": front_png(record),
        **render(record, store=store, model=model),
    }
    if record.members:
        files |= {"comparison.csv": comparison_csv(record), "comparison.png": comparison_png(record)}
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode(errors="replace")
        try:
            atomic_write(folder / name, raw)
        except OSError as error:
            raise BadInput(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return folder / "report.html"


def trials_csv(record: StudyRecord) -> str:
    """One row per trial in the order of their numbers: parameters as `params.*`, last numbers as `metrics.*`."""
    params = list(dict.fromkeys(key for trial in record.trials for key in trial.params))
    found = {trial.number: {**trial.metrics, **trial.afterwards} for trial in record.trials}
    metrics = list(dict.fromkeys(key for values in found.values() for key in values))
    named = names(record)
    file = StringIO()
    rows = csv.writer(file, lineterminator="\n")
    plain = ["number", "run", "verdict", "reason", "feasible", "pareto_rank", "began", "ended", "folder"]
    heads = [*(f"params.{key}" for key in params), *(f"metrics.{key}" for key in metrics)]
    rows.writerow([*plain, "front", "aliases", "epochs", *heads])
    for trial in sorted(record.trials, key=lambda trial: trial.number):
        told = [trial.on_front, " ".join(named.get(trial.number, ())), len(trial.series)]
        values = [*(trial.params.get(key) for key in params), *(found[trial.number].get(key) for key in metrics)]
        rows.writerow([*(getattr(trial, name) for name in plain), *told, *values])
    return file.getvalue()
