"""The time of a study's trials: what ran at once, and what all of it cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lethe.records import StudyRecord

Span = tuple[float, float]  # begin and end, in seconds


@dataclass(frozen=True)
class Cost:
    """`wall`: seconds in which at least one run was going, so without pauses between sessions; `group_seconds`: of all
    runs together; `groups`: most runs at once; `runs`: trials and their repetitions with fresh seeds."""

    wall: float
    group_seconds: float
    groups: int
    runs: int


def study_cost(record: StudyRecord) -> Cost | None:
    """Return the cost of all trials and confirmations that have both times; None where none has."""
    repeats = [run for trial in record.trials if trial.confirmation for run in trial.confirmation.runs]
    spans = [(run.began, run.ended) for run in (*record.trials, *repeats) if run.ended > run.began > 0]
    if not spans:
        return None
    total = sum(end - begin for begin, end in spans)
    return Cost(covered(spans), total, max(lanes(spans)) + 1, len(spans))


def covered(spans: Iterable[Span]) -> float:
    """Return the seconds that at least one span covers."""
    seconds, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        seconds += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return seconds


def lanes(spans: Sequence[Span]) -> list[int]:
    """Return a row for each span, from 0, so that spans of one row do not overlap and as few rows as possible are
    used."""
    rows, free = [0] * len(spans), list[float]()
    for index in sorted(range(len(spans)), key=lambda index: spans[index]):
        begin, end = spans[index]
        row = next((row for row, until in enumerate(free) if until <= begin), len(free))
        free[row : row + 1] = [end]
        rows[index] = row
    return rows
