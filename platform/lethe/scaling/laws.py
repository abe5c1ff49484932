"""From measured points to laws: step time and memory against parameters, step time against tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from lethe.config.scaling import ScalingStudy
from lethe.records import TrialRecord
from lethe.scaling.fits import Fitted, Judged, Samples, interval_of, judge
from lethe.scaling.law import Form
from lethe.scaling.records import Estimate, LawRecord, SearchRecord

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
    found.append(_law(study, "step time by batch", str(base["arm"]), "tokens in a step", "seconds", "s", tokens, TOKENS_FAR))
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
    return [Estimate(x=float(x), value=float(v), low=float(a), high=float(b)) for x, v, a, b in zip(xs, values, lows, highs)]
