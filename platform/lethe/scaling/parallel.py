"""Strong and weak scaling: how much faster more workers are, and the share of a step that they do not shorten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lethe.records import TrialRecord
from lethe.scaling.records import Estimate, ParallelRecord

FAR = (8, 16, 32, 64)
LEVEL = (0.05, 0.95)
Times = dict[int, tuple[float, ...]]  # workers -> wall-clock seconds of steps


def parallel(points: Iterable[TrialRecord]) -> tuple[ParallelRecord, ...]:
    """A record per ZeRO stage and kind for which one worker and more were timed; wall-clock times, since waiting for
    others costs no CPU time."""
    whole = [p for p in points if p.verdict == "complete"]
    several = [p for p in whole if int(p.params["workers"] or 1) > 1]
    if not several:
        return ()
    rows = min(int(p.params["rows"] or 0) for p in several)
    like = (several[0].params["size"], several[0].params["arm"], rows, 1)
    alone = [p for p in whole if tuple(p.params[key] for key in ("size", "arm", "rows", "workers")) == like]
    found = []
    for one in alone:
        stage = one.params["stage"]
        for kind in ("strong", "weak"):
            chosen = [p for p in several if p.params["stage"] == stage and _is(kind, p, rows)]
            if chosen:
                found.append(_record(kind, int(stage or 0), [one, *chosen]))
    return tuple(found)


def _is(kind: str, point: TrialRecord, rows: int) -> bool:
    return point.params["rows"] == rows * (1 if kind == "strong" else int(point.params["workers"] or 1))


def _record(kind: str, stage: int, points: Sequence[TrialRecord]) -> ParallelRecord:
    times: Times = {int(p.params["workers"] or 1): tuple(s["wall_seconds"] for s in p.series) for p in points}
    medians = {workers: float(np.median(values)) for workers, values in times.items()}
    speeds = {w: _speed_up(kind, w, medians[1], seconds) for w, seconds in medians.items()}
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        again = {w: float(np.median(draw.choice(values, len(values)))) for w, values in times.items()}
        shares.append(serial_share(kind, {w: _speed_up(kind, w, again[1], s) for w, s in again.items()}))
    share, (low, high) = serial_share(kind, speeds), np.quantile(shares, LEVEL)
    return ParallelRecord(
        kind=kind,
        stage=stage,
        workers=tuple(times),
        step_seconds=tuple(medians.values()),
        efficiency=tuple(speed / w for w, speed in speeds.items()),
        communication_share=tuple(p.metrics["communication_share"] for p in points),
        serial=Estimate(x=max(times), value=share, low=float(low), high=float(high)),
        extrapolations=tuple(_far(kind, workers, share, float(low), float(high)) for workers in FAR),
    )


def _far(kind: str, workers: int, share: float, low: float, high: float) -> Estimate:
    """A speed-up; the larger the serial share, the smaller."""
    value, least, most = (predicted(kind, workers, s) for s in (share, high, low))
    return Estimate(x=workers, value=value, low=least, high=most)


def _speed_up(kind: str, workers: int, alone: float, seconds: float) -> float:
    """Rows per second against one worker's."""
    return alone / seconds * (workers if kind == "weak" else 1)


def serial_share(kind: str, speeds: dict[int, float]) -> float:
    """The share s that fits best, in [0, 1]: Amdahl's 1 / speed = s + (1 - s) / w, Gustafson's speed = w - s (w - 1)."""
    several = [(w, speed) for w, speed in speeds.items() if w > 1]
    if kind == "strong":
        pairs = [(1 - 1 / w, 1 / speed - 1 / w) for w, speed in several]
    else:
        pairs = [(w - 1.0, w - speed) for w, speed in several]
    share = sum(a * b for a, b in pairs) / sum(a * a for a, _ in pairs)
    return float(np.clip(share, 0.0, 1.0))


def predicted(kind: str, workers: int, share: float) -> float:
    """Speed-up over one worker."""
    return 1 / (share + (1 - share) / workers) if kind == "strong" else workers - share * (workers - 1)
