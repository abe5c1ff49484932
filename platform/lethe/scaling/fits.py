"""Laws chosen and judged on sizes that they have not seen, with intervals from a bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lethe.scaling.law import FREE, Floats, Form, Law, fit, fit_many

MOST = 5.0  # of the noise in log y: a factor of 150
NORMAL_MEDIAN = (np.pi / 2) ** 0.5  # how much less certain a median is than a mean, for normal errors


def forms_for(sizes: int, wanted: Form | Literal["auto"] = "auto") -> tuple[Form, ...]:
    """The forms that this many sizes can carry when one of them is held out; none if there are too few."""
    able = tuple(form for form, free in FREE.items() if sizes - 1 > free)
    return able if wanted == "auto" else tuple(form for form in able if form == wanted)


def left_out_error(x: Floats, y: Floats, form: Form) -> float:
    """Mean absolute error of log y over the sizes, each predicted by a fit to the others; infinite where the others
    are too few."""
    sizes = np.unique(x)
    if len(sizes) <= FREE[form]:
        return np.inf
    predicted = {s: fit(x[x != s], y[x != s], form)(s) for s in sizes}
    errors = [np.abs(np.log(predicted[s]) - np.log(y[x == s])).mean() for s in sizes]
    return float(np.mean(errors))


def choose(x: Sequence[float], y: Sequence[float], forms: Sequence[Form]) -> Form:
    """The form with the smallest error on sizes left out; among equals the one with fewer parameters. A form that the
    sizes cannot judge is taken only where it is the only one."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    return min(forms, key=lambda form: (left_out_error(xs, ys, form), FREE[form]))


@dataclass(frozen=True)
class Samples:
    """Repeated measurements at every size; `y[i]` are those at `x[i]`, whose median is the point that is fitted."""

    x: tuple[float, ...]
    y: tuple[tuple[float, ...], ...]

    @property
    def centre(self) -> Floats:
        """Medians, [n]."""
        return np.array([np.median(values) for values in self.y])

    def without_largest(self) -> Samples:
        """All sizes but the largest."""
        kept = sorted(range(len(self.x)), key=lambda i: self.x[i])[:-1]
        return Samples(tuple(self.x[i] for i in kept), tuple(self.y[i] for i in kept))


@dataclass(frozen=True)
class Fitted:
    """A law with the laws of its bootstrap, from which intervals come. `spreads` are the standard deviations of log y
    about the law, one per resampled law: with few sizes they are themselves uncertain."""

    law: Law
    resampled: tuple[Law, ...]
    spreads: tuple[float, ...]

    def interval(self, x: Floats | float, level: float = 0.9, *, point: bool = True) -> tuple[Floats, Floats]:
        """Low and high ends at x, of x's shape: of the law, or with `point` of a new measurement there."""
        values = np.log(np.stack([law(x) for law in self.resampled]))
        if point:
            noise = np.random.default_rng(1).normal(0.0, self.spreads)
            values = values + noise.reshape(-1, *([1] * (values.ndim - 1)))
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return np.exp(low), np.exp(high)


def bootstrap(samples: Samples, form: Form, *, times: int = 300, seed: int = 0) -> Fitted:
    """Refit `times` to the law's own values with noise: as large as the residuals say, and never smaller than the
    repeats at a size differ.

    The variance of so few residuals is uncertain too: each time it is drawn from its scaled inverse chi-square
    distribution, so that intervals are as wide as Student's.
    """
    x, y = np.asarray(samples.x), samples.centre
    law = fit(x, y, form)
    free = max(1, len(x) - FREE[form])
    squares = float(((np.log(y) - np.log(law(x))) ** 2).sum())
    draw = np.random.default_rng(seed)
    spreads = np.maximum(np.sqrt(squares / draw.chisquare(free, times)), noise(samples))
    shifts = np.clip(draw.normal(size=(times, len(x))) * spreads[:, None], -MOST, MOST)
    return Fitted(law, tuple(fit_many(x, np.log(law(x)) + shifts, form)), tuple(map(float, spreads)))


def noise(samples: Samples) -> float:
    """Standard error of a size's median in log y, the mean over sizes; 0 without repeats."""
    found = [np.std(np.log(values)) / np.sqrt(len(values)) for values in samples.y if len(values) > 1]
    return float(np.mean(found)) * NORMAL_MEDIAN if found else 0.0


@dataclass(frozen=True)
class Judged:
    """A law that was fitted without the largest size, and what it says of that size; `final` is fitted to all."""

    form: Form
    trained: Fitted
    final: Fitted
    held_out: float  # x
    measured: float
    predicted: float
    low: float
    high: float
    errors: dict[Form, float]  # of every form that was tried, on sizes left out

    @property
    def error(self) -> float:
        """Relative error of the prediction: 0.1 is 10 % too high."""
        return self.predicted / self.measured - 1


def judge(samples: Samples, wanted: Form | Literal["auto"] = "auto", *, seed: int = 0, times: int = 300) -> Judged:
    """Choose a form and fit it without the largest size, predict that size, then fit the form to all sizes.

    Raises ValueError where there are too few sizes for any form that is wanted.
    """
    forms = forms_for(len(samples.x), wanted)
    if not forms:
        raise ValueError(f"{len(samples.x)} sizes are too few")
    kept = samples.without_largest()
    xs, ys = np.asarray(kept.x), kept.centre
    errors = {form: left_out_error(xs, ys, form) for form in forms}
    form = choose(kept.x, ys.tolist(), forms)
    trained = bootstrap(kept, form, times=times, seed=seed)
    largest = max(samples.x)
    low, high = trained.interval(largest)
    return Judged(
        form=form,
        trained=trained,
        final=bootstrap(samples, form, times=times, seed=seed),
        held_out=largest,
        measured=float(samples.centre[samples.x.index(largest)]),
        predicted=float(trained.law(largest)),
        low=float(low),
        high=float(high),
        errors=errors,
    )


Statistic = Callable[[Floats], float]


def interval_of(values: Sequence[float], statistic: Statistic = np.median, level: float = 0.9) -> tuple[float, float]:
    """Bootstrap interval of a statistic of repeated measurements."""
    draw = np.random.default_rng(0)
    given = np.asarray(values, float)
    found = [statistic(draw.choice(given, len(given))) for _ in range(400)]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
