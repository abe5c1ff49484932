"""Laws of the measured points: step time against parameters and against tokens, and settings
against size; and strong and weak scaling: the speed-up of more workers, and the share that they do not shorten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from lethe.config.scaling import ScalingStudy
from lethe.records import TrialRecord
from lethe.scaling.law_fitting import BootstrappedLaw, Floats, Samples, interval_of, judge
from lethe.scaling_records import Estimate, Form, LawRecord, ParallelRecord, SearchRecord

FAR = (7e9, 7e10)  # parameters
TOKENS_FAR = (1e5,)
BOOTSTRAPS = 200
MOVES = ("optimizer.learning_rate", "optimizer.clip_threshold")  # settings that may follow a trend over sizes

Measured = dict[float, tuple[float, ...]]  # x -> repeats


def step_seconds(point: TrialRecord) -> tuple[float, ...]:
    """Return the seconds of every timed step of a point, its share of a refresh included.

    They are the process's CPU seconds for a point of one worker (on any device, also on a GPU) that has them, and
    wall-clock seconds for every other: other processes lengthen a step's wall-clock time, and hardly its CPU time.
    """
    alone = point.params.get("workers") == 1 and point.metrics.get("step_cpu_seconds", 0) > 0
    key = "cpu_seconds" if alone else "wall_seconds"
    share = point.metrics.get("refresh_share", 0.0)
    return tuple(step[key] / (1 - share) for step in point.series)


def fit_laws(study: ScalingStudy, points: Sequence[TrialRecord]) -> tuple[LawRecord, ...]:
    """Return every law that the complete points carry; a law with too few sizes is left out."""
    complete = [point for point in points if point.verdict == "complete"]
    base = _base(study, complete)
    records: list[LawRecord | None] = []
    for arm in study.scaling.arms:
        sizes = [p for p in complete if p.params["arm"] == arm and _matches(p, base, ("rows", "workers", "stage"))]
        time = _samples_by(sizes, "parameters", step_seconds)
        records.append(_law(study, "step time", arm, "parameters", "seconds", "s", time, FAR))
    batches = [p for p in complete if _matches(p, base, ("arm", "size", "workers", "stage"))]
    tokens = _samples_by(batches, "tokens", step_seconds)
    records.append(
        _law(study, "step time by batch", str(base["arm"]), "tokens in a step", "seconds", "s", tokens, TOKENS_FAR)
    )
    return tuple(law for law in records if law)


def setting_laws(
    study: ScalingStudy, searches: Sequence[SearchRecord], trials: Sequence[TrialRecord]
) -> tuple[LawRecord, ...]:
    """Return powers of size for the chosen learning rate and clip threshold, where enough sizes were searched."""
    by_number = {trial.number: trial for trial in trials}
    records = []
    for arm in dict.fromkeys(search.arm for search in searches):
        line = [s for s in searches if s.arm == arm and s.forget == study.benchmark.forget_set and s.chosen is not None]
        for key in MOVES:
            chosen = {s.parameters: by_number[s.chosen].params.get(key) for s in line if s.chosen is not None}
            known = {size: (float(value),) for size, value in sorted(chosen.items()) if value is not None}
            name = key.rpartition(".")[2].replace("_", " ")
            records.append(_law(study, f"best {name}", arm, "parameters", name, "", known, FAR, "power"))
    return tuple(law for law in records if law)


def _base(study: ScalingStudy, points: Iterable[TrialRecord]) -> dict[str, object]:
    """Return the labels of the point where all axes meet: the first of the base size with the first arm.

    Only the arm where no such point is complete.
    """
    arm, size = next(iter(study.scaling.arms)), study.scaling.base
    return next((dict(p.params) for p in points if p.params["arm"] == arm and p.params["size"] == size), {"arm": arm})


def _matches(point: TrialRecord, base: dict[str, object], keys: Iterable[str]) -> bool:
    return all(point.params.get(key) == base.get(key) for key in keys)


def _samples_by(points: Iterable[TrialRecord], x: str, y: Callable[[TrialRecord], tuple[float, ...]]) -> Measured:
    samples = {point.metrics[x]: y(point) for point in points}
    return {key: values for key, values in sorted(samples.items()) if np.isfinite(values).all()}


def _law(
    study: ScalingStudy,
    name: str,
    arm: str,
    x_name: str,
    y_name: str,
    unit: str,
    points: Mapping[float, tuple[float, ...]],
    far: Sequence[float],
    form: Form | None = None,
) -> LawRecord | None:
    samples = Samples(tuple(points), tuple(points.values()))
    try:
        judged = judge(samples, form or study.scaling.form, times=BOOTSTRAPS)
    except ValueError:
        return None
    spans = [interval_of(values) for values in samples.y]
    law = judged.final.law
    exponents = [resampled.exponent for resampled in judged.final.resampled]
    exponent_low, exponent_high = np.quantile(exponents, [0.05, 0.95])
    return LawRecord(
        name=name,
        arm=arm,
        x_name=x_name,
        y_name=y_name,
        unit=unit,
        x=samples.x,
        y=tuple(samples.centre.tolist()),
        low=tuple(low for low, _ in spans),
        high=tuple(high for _, high in spans),
        held_out=Estimate(x=judged.held_out, value=judged.predicted, low=judged.low, high=judged.high),
        measured=judged.measured,
        errors={str(name): error for name, error in judged.errors.items()},
        curve=tuple(_estimates(judged.trained, np.geomspace(min(samples.x), max(samples.x) * 4, 40))),
        extrapolations=tuple(_estimates(judged.final, far)),
        form=law.form,
        factor=law.factor,
        offset=law.offset,
        scale=law.scale,
        exponent=law.exponent,
        exponent_low=float(exponent_low),
        exponent_high=float(exponent_high),
    )


def _estimates(fitted: BootstrappedLaw, xs: Sequence[float] | Floats) -> list[Estimate]:
    lows, highs = fitted.interval(np.asarray(xs, float))
    values = fitted.law(np.asarray(xs, float))
    return [
        Estimate(x=float(x), value=float(v), low=float(a), high=float(b))
        for x, v, a, b in zip(xs, values, lows, highs, strict=True)
    ]


FAR_WORKERS = (8, 16, 32, 64)
LEVEL = (0.05, 0.95)
Times = dict[int, tuple[float, ...]]  # workers -> wall-clock seconds of steps


def parallel_records(points: Iterable[TrialRecord]) -> tuple[ParallelRecord, ...]:
    """Return a record per ZeRO stage and kind (strong, weak) for which one worker and more were timed.

    Times are wall-clock times, since waiting for others costs no CPU time.
    """
    complete = [p for p in points if p.verdict == "complete"]
    several = [p for p in complete if int(p.params["workers"] or 1) > 1]
    if not several:
        return ()
    rows = min(int(p.params["rows"] or 0) for p in several)
    like = (several[0].params["size"], several[0].params["arm"], rows, 1)
    alone = [p for p in complete if tuple(p.params[key] for key in ("size", "arm", "rows", "workers")) == like]
    records = []
    for single in alone:
        stage = single.params["stage"]
        for kind in ("strong", "weak"):
            more = [p for p in several if p.params["stage"] == stage and _is_of_kind(kind, p, rows)]
            if more:
                records.append(_parallel_record(kind, int(stage or 0), [single, *more]))
    return tuple(records)


def _is_of_kind(kind: str, point: TrialRecord, rows: int) -> bool:
    return point.params["rows"] == rows * (1 if kind == "strong" else int(point.params["workers"] or 1))


def _parallel_record(kind: str, stage: int, points: Sequence[TrialRecord]) -> ParallelRecord:
    times: Times = {int(p.params["workers"] or 1): tuple(s["wall_seconds"] for s in p.series) for p in points}
    medians = {workers: float(np.median(values)) for workers, values in times.items()}
    speeds = {w: _speed_up(kind, w, medians[1], seconds) for w, seconds in medians.items()}
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        resampled = {w: float(np.median(draw.choice(values, len(values)))) for w, values in times.items()}
        shares.append(serial_share(kind, {w: _speed_up(kind, w, resampled[1], s) for w, s in resampled.items()}))
    share, (low, high) = serial_share(kind, speeds), np.quantile(shares, LEVEL)
    return ParallelRecord(
        kind=kind,
        stage=stage,
        workers=tuple(times),
        step_seconds=tuple(medians.values()),
        efficiency=tuple(speed / w for w, speed in speeds.items()),
        communication_share=tuple(p.metrics["communication_share"] for p in points),
        serial=Estimate(x=max(times), value=share, low=float(low), high=float(high)),
        extrapolations=tuple(_extrapolate(kind, workers, share, float(low), float(high)) for workers in FAR_WORKERS),
    )


def _extrapolate(kind: str, workers: int, share: float, low: float, high: float) -> Estimate:
    """Return the speed-up with so many workers; its low end belongs to the high end of the serial share."""
    value, least, most = (predicted_speed_up(kind, workers, s) for s in (share, high, low))
    return Estimate(x=workers, value=value, low=least, high=most)


def _speed_up(kind: str, workers: int, alone: float, seconds: float) -> float:
    """Return the measured rows per second over one worker's."""
    return alone / seconds * (workers if kind == "weak" else 1)


def serial_share(kind: str, speeds: dict[int, float]) -> float:
    """Return the serial share s in [0, 1] that fits speed-ups by workers best, by least squares.

    Strong scaling: Amdahl's 1 / speed = s + (1 - s) / w; weak scaling: Gustafson's speed = w - s (w - 1).
    """
    several = [(w, speed) for w, speed in speeds.items() if w > 1]
    if kind == "strong":
        pairs = [(1 - 1 / w, 1 / speed - 1 / w) for w, speed in several]
    else:
        pairs = [(w - 1.0, w - speed) for w, speed in several]
    share = sum(a * b for a, b in pairs) / sum(a * a for a, _ in pairs)
    return float(np.clip(share, 0.0, 1.0))


def predicted_speed_up(kind: str, workers: int, share: float) -> float:
    """Return the speed-up over one worker by Amdahl's or Gustafson's law with this serial share."""
    return 1 / (share + (1 - share) / workers) if kind == "strong" else workers - share * (workers - 1)
