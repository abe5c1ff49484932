"""Rung tables on disk: one small file per run, from which a resumed study goes on deciding."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from lethe.config.metrics import METRICS_OF
from lethe.config.stopping import MoAsha
from lethe.config.study import Study
from lethe.search.frame import Frame
from lethe.search.mo_asha import Entry, Rule, Rungs
from lethe.search.scheduler import RungScheduler
from lethe.storage import atomic_write

FILE = "rungs.json"
_entries = TypeAdapter(tuple[Entry, ...])


def rung_scheduler(study: Study, frame: Frame, runs: Path, sight: int | None) -> RungScheduler | None:
    """The study's early stopping, None where it has none; `runs` is the folder of the study's run folders."""
    stopping = study.early_stopping
    if not isinstance(stopping, MoAsha):
        return None
    rungs = Rungs(rule(stopping, study, frame), sight)
    rungs.restore(read_entries(runs))
    return RungScheduler(rungs, stopping.resource, lambda run, entries: write_entries(runs / run, entries))


def rule(stopping: MoAsha, study: Study, frame: Frame) -> Rule:
    """What is compared: the objectives with their floors, or the metrics that stand in for them."""
    floors = dict(zip(frame.names, frame.floors, strict=True))
    better = {name: metric.better for name, metric in METRICS_OF[study.benchmark.name].items()}
    better |= dict(zip(frame.names, frame.directions, strict=True))
    names = stopping.metrics or frame.names
    return Rule(
        names=tuple(names),
        directions=tuple(better[name] for name in names),
        floors=tuple(floors.get(name) for name in names),
        grace=stopping.grace,
        eta=stopping.eta,
    )


def write_entries(folder: Path, entries: tuple[Entry, ...]) -> None:
    """All of a run's entries, in its folder."""
    atomic_write(folder / FILE, _entries.dump_json(entries))


def read_entries(runs: Path) -> list[Entry]:
    """Every run's entries, in the order of trials and rungs."""
    found = [entry for path in runs.glob(f"*/{FILE}") for entry in _entries.validate_json(path.read_bytes())]
    return sorted(found, key=lambda entry: (entry.trial, entry.rung))
