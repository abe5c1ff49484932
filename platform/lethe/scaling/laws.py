"""From measured points to laws: step time and memory against parameters, step time against tokens.

Strong and weak scaling: how much faster more workers are, and the share of a step that they do not shorten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from lethe.config.scaling import ScalingStudy
from lethe.records import TrialRecord
from lethe.scaling.law_fitting import Fitted, Judged, Samples, interval_of, judge
from lethe.scaling_records import Estimate, Form, LawRecord, ParallelRecord, SearchRecord

FAR = (7e9, 7e10)  # parameters
TOKENS_FAR = (1e5,)
BOOTSTRAPS = 200
MOVES = ("optimizer.learning_rate", "optimizer.clip_threshold")  # settings that may follow a trend over sizes

Measured = dict[float, tuple[float, ...]]  # x -> repeats


def step_seconds(point: TrialRecord) -> tuple[float, ...]:
    """Of every timed step, its share of a refresh included. CPU time where one process computes on a CPU: others on
    the machine lengthen a step's wall-clock time, and hardly its CPU time."""
    alone = point.params.get("workers") == 1 and point.metrics.get("step_cpu_seconds", 0) > 0
    key = "cpu_seconds" if alone else "wall_seconds"
    share = point.metrics.get("refresh_share", 0.0)
    return tuple(step[key] / (1 - share) for step in point.series)


def laws(study: ScalingStudy, points: Sequence[TrialRecord]) -> tuple[LawRecord, ...]:
    """Every law that the complete points carry; fewer sizes than a law needs give none."""
    whole = [point for point in points if point.verdict == "complete"]
    base = _base(study, whole)
    found: list[LawRecord | None] = []
    for arm in study.scaling.arms:
        sizes = [p for p in whole if p.params["arm"] == arm and _like(p, base, ("rows", "workers", "stage"))]
        time = _of(sizes, "parameters", step_seconds)
        found.append(_law(study, "step time", arm, "parameters", "seconds", "s", time, FAR))
        # Not extrapolated: its two regimes (activations, then gradients) are the memory model's business.
        peak = _of(sizes, "parameters", lambda p: (p.metrics.get("states_mb", np.nan) + p.metrics["step_tensors_mb"],))
        found.append(_law(study, "memory of tensors", arm, "parameters", "MiB", "MiB", peak, ()))
    batches = [p for p in whole if p.params["arm"] == base["arm"] and _like(p, base, ("size", "workers", "stage"))]
    tokens = _of(batches, "tokens", step_seconds)
    found.append(
        _law(study, "step time by batch", str(base["arm"]), "tokens in a step", "seconds", "s", tokens, TOKENS_FAR)
    )
    return tuple(law for law in found if law)


def setting_laws(
    study: ScalingStudy, searches: Sequence[SearchRecord], trials: Sequence[TrialRecord]
) -> tuple[LawRecord, ...]:
    """The chosen learning rate and clip threshold against size, as powers, where enough sizes were searched."""
    by_number = {trial.number: trial for trial in trials}
    found = []
    for arm in dict.fromkeys(search.arm for search in searches):
        line = [s for s in searches if s.arm == arm and s.forget == study.benchmark.forget and s.chosen is not None]
        for key in MOVES:
            chosen = {s.parameters: by_number[s.chosen].params.get(key) for s in line}
            known = {size: (float(value),) for size, value in sorted(chosen.items()) if value is not None}
            name = key.rpartition(".")[2].replace("_", " ")
            found.append(_law(study, f"best {name}", arm, "parameters", name, "", known, FAR, "power"))
    return tuple(law for law in found if law)


def _base(study: ScalingStudy, points: Iterable[TrialRecord]) -> dict[str, object]:
    """The labels of the point where all axes meet: the first of the base size with the first arm."""
    arm, size = next(iter(study.scaling.arms)), study.scaling.base
    return next((dict(p.params) for p in points if p.params["arm"] == arm and p.params["size"] == size), {"arm": arm})


def _like(point: TrialRecord, base: dict[str, object], keys: Iterable[str]) -> bool:
    return all(point.params.get(key) == base.get(key) for key in keys)


def _of(points: Iterable[TrialRecord], x: str, y: Callable[[TrialRecord], tuple[float, ...]]) -> Measured:
    found = {point.metrics[x]: y(point) for point in points}
    return {key: values for key, values in sorted(found.items()) if np.isfinite(values).all()}


def _law(
    study: ScalingStudy,
    name: str,
    arm: str,
    x_name: str,
    y_name: str,
    unit: str,
    points: Measured,
    far: Sequence[float],
    form: Form | None = None,
) -> LawRecord | None:
    samples = Samples(tuple(points), tuple(points.values()))
    try:
        judged = judge(samples, form or study.scaling.form, times=BOOTSTRAPS)
    except ValueError:
        return None
    spans = [interval_of(values) for values in samples.y]
    centre = samples.centre.tolist()
    return LawRecord(
        name=name,
        arm=arm,
        x_name=x_name,
        y_name=y_name,
        unit=unit,
        x=samples.x,
        y=tuple(centre),
        low=tuple(low for low, _ in spans),
        high=tuple(high for _, high in spans),
        held_out=Estimate(x=judged.held_out, value=judged.predicted, low=judged.low, high=judged.high),
        measured=judged.measured,
        errors={str(form): error for form, error in judged.errors.items()},
        curve=tuple(_estimates(judged.trained, np.geomspace(min(samples.x), max(samples.x) * 4, 40))),
        extrapolations=tuple(_estimates(judged.final, far)),
        **_parameters(judged),
    )


def _parameters(judged: Judged) -> dict[str, float | Form]:
    law = judged.final.law
    low, high = np.quantile([other.exponent for other in judged.final.resampled], [0.05, 0.95])
    return {
        "form": law.form,
        "factor": law.factor,
        "offset": law.offset,
        "scale": law.scale,
        "exponent": law.exponent,
        "exponent_low": float(low),
        "exponent_high": float(high),
    }


def _estimates(fitted: Fitted, xs: Sequence[float]) -> list[Estimate]:
    lows, highs = fitted.interval(np.asarray(xs, float))
    values = fitted.law(np.asarray(xs, float))
    return [
        Estimate(x=float(x), value=float(v), low=float(a), high=float(b)) for x, v, a, b in zip(xs, values, lows, highs)
    ]


FAR_WORKERS = (8, 16, 32, 64)
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
        extrapolations=tuple(_far(kind, workers, share, float(low), float(high)) for workers in FAR_WORKERS),
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
