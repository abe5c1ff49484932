"""The page of a scaling study, its picture and its tables as files."""

from __future__ import annotations

import base64
import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import lethe
from lethe.records import TrialRecord
from lethe.reporting.page import Tile, environment
from lethe.reporting.scales import count, duration, setting
from lethe.reporting.scaling.picture import laws_png
from lethe.reporting.scaling.said import said
from lethe.scaling.records import ScalingRecord, SearchRecord
from lethe.storage import atomic_write


def write_scaling_report(record: ScalingRecord, folder: Path) -> Path:
    """report.html, scaling.png, points.csv and scaling.json in `folder`; the path of the first."""
    picture = laws_png(record)
    files: dict[str, str | bytes] = {
        "scaling.json": record.model_dump_json(indent=1),
        "points.csv": points_csv(record),
        "scaling.png": picture,
        "report.html": render(record, picture),
    }
    for name, content in files.items():
        atomic_write(folder / name, content if isinstance(content, bytes) else content.encode(errors="replace"))
    return folder / "report.html"


def render(record: ScalingRecord, picture: bytes) -> str:
    """One page that needs nothing else."""
    pages = environment()
    pages.filters |= {"big": big, "percent": percent}
    return pages.get_template("scaling.html.j2").render(
        record=record,
        version=lethe.__version__,
        said=said(record),
        tiles=tiles(record),
        picture=base64.b64encode(picture).decode(),
        points=[p for p in record.points if p.verdict == "complete"],
        failed=[p for p in record.points if p.verdict != "complete"],
        searches=[Row.of(record, search) for search in record.searches],
        took=duration(record.ended - record.began),
    )


def tiles(record: ScalingRecord) -> list[Tile]:
    """The numbers at the top."""
    judged = record.laws
    inside = sum(law.covered for law in judged)
    found = [
        Tile("Timed points", str(len(record.points)), f"{count(len(record.searches), 'search')} beside them"),
        Tile("Held-out predictions", f"{inside} of {len(judged)}", "inside their 90 % interval"),
    ]
    if rate := record.machine.get("matrix_rate"):
        found.append(Tile("Matrix rate", f"{rate / 1e9:.0f} GFLOP/s", "one worker, measured beside the steps"))
    if busy := record.machine.get("busy"):
        found.append(Tile("CPU share of wall time", f"{busy:.0%}", "of single workers; others used the rest"))
    return found


@dataclass(frozen=True)
class Row:
    """A search with the trial that stands for it."""

    search: SearchRecord
    trial: TrialRecord | None

    @classmethod
    def of(cls, record: ScalingRecord, search: SearchRecord) -> Row:
        """Trials are numbered through the study."""
        return cls(search, next((t for t in record.trials if t.number == search.chosen), None))

    def param(self, key: str) -> Any:
        """Of the chosen trial."""
        return self.trial and self.trial.params.get(key)

    def metric(self, key: str) -> float | None:
        """Of the chosen trial."""
        return self.trial and self.trial.metrics.get(key)


def points_csv(record: ScalingRecord) -> str:
    """One row per timed point: labels, then every number."""
    labels = list(dict.fromkeys(key for p in record.points for key in p.params))
    metrics = list(dict.fromkeys(key for p in record.points for key in p.metrics))
    file = StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["number", "verdict", *labels, *metrics])
    for p in record.points:
        rows.writerow([p.number, p.verdict, *(p.params.get(k) for k in labels), *(p.metrics.get(k) for k in metrics)])
    return file.getvalue()


def big(value: float) -> str:
    """Parameters, tokens, seconds over many orders: 7 billion is 7B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return setting(value)


def percent(value: float | None) -> str:
    """Whole per cent."""
    return "–" if value is None else f"{value:.0%}".replace("-", "−")


