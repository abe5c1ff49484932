"""Laws y(x) = c + a x^b: fitted, chosen and judged on sizes that they have not seen, with intervals from a bootstrap.

Costs span orders of magnitude, so residuals are those of log y: an error of 10 % weighs the same at every size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from lethe.scaling_records import Form

Floats = npt.NDArray[np.float64]
FREE: dict[Form, int] = {"power": 2, "linear": 2, "offset": 3}  # parameters of each form
STEEPEST = 2.0  # largest exponent that is tried, in either direction: no cost of a step grows faster than the square
LIGHTEST, HEAVIEST = -16.0, 7.0  # logarithm of an offset over the factor, where x is the mean size
CELLS = 81  # of a grid, along each axis


@dataclass(frozen=True)
class Law:
    """c + a (x / scale)^b with a > 0 and c >= 0; `power` has c = 0, `linear` b = 1, `offset` both free."""

    form: Form
    factor: float
    exponent: float
    offset: float
    scale: float

    def __call__(self, x: Floats | float) -> Floats:
        """Return the law's value at x, of x's shape."""
        return self.offset + self.factor * (np.asarray(x, float) / self.scale) ** self.exponent


def fit(x: Sequence[float] | Floats, y: Sequence[float] | Floats, form: Form) -> Law:
    """Fit a law by least squares of log y; x and y are positive, [n] each.

    Raises ValueError where x has fewer different values than the form has parameters.
    """
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    if len(np.unique(xs)) < FREE[form]:
        raise ValueError(f"{len(np.unique(xs))} sizes cannot give a law of form {form} its {FREE[form]} parameters")
    grid = _Grid.of(xs, form)
    exponent, weight = grid.nearest(np.log(ys)[None])
    steep, heavy = (exponent[0], -STEEPEST, STEEPEST), (weight[0], LIGHTEST, HEAVIEST)
    searched = {"power": [steep], "linear": [heavy], "offset": [steep, heavy]}[form]
    start, low, high = zip(*searched, strict=True)

    def parts(free: Floats) -> tuple[float, float]:
        return (1.0 if form == "linear" else free[0]), (-np.inf if form == "power" else free[-1])

    def residuals(free: Floats) -> Floats:
        return _centred(_shape(grid.log_x, *parts(free))) - _centred(np.log(ys))

    solution = least_squares(
        residuals, np.clip(start, low, high), bounds=(low, high), x_scale=0.1, xtol=1e-12, ftol=1e-12
    )
    return grid.law(np.log(ys), *parts(solution.x))


def fit_many(x: Floats, log_y: Floats, form: Form) -> list[Law]:
    """Fit a law to every row of log_y [m, n]: on a grid over all exponents and offsets, then on a finer one."""
    coarse = _Grid.of(x, form)
    exponents, weights = coarse.nearest(log_y)
    fine = coarse.around(exponents, weights)
    exponents, weights = fine.nearest(log_y)
    return [fine.law(row, b, w) for row, b, w in zip(log_y, exponents, weights, strict=True)]


def _shape(log_x: Floats, exponent: Floats | float, weight: Floats | float) -> Floats:
    """Return log(exp(weight) + x^exponent): the logarithm of a law up to its factor."""
    return np.logaddexp(weight, exponent * log_x)


def _centred(values: Floats) -> Floats:
    """Return the values less their mean along the last axis: the residuals that no factor can make up for."""
    centred: Floats = values - values.mean(-1, keepdims=True)
    return centred


@dataclass(frozen=True)
class _Grid:
    """Pairs of an exponent and a weight, the logarithm of the offset in units of the factor.

    For each pair the best factor is the mean residual, so the search has two dimensions.
    """

    form: Form
    scale: float
    log_x: Floats  # [n], of x / scale
    exponents: Floats  # [k]
    weights: Floats  # [k]

    @classmethod
    def of(cls, x: Floats, form: Form) -> _Grid:
        """Return the grid over everything that the form allows."""
        log_x = np.log(x)
        exponents = np.linspace(-STEEPEST, STEEPEST, CELLS) if form != "linear" else np.ones(1)
        weights = np.linspace(LIGHTEST, HEAVIEST, CELLS) if form != "power" else np.full(1, -np.inf)
        return cls(form, float(np.exp(log_x.mean())), log_x - log_x.mean(), *_pairs(exponents, weights))

    def around(self, exponents: Floats, weights: Floats) -> _Grid:
        """Return a finer grid over the range of these exponents and weights and a cell more."""
        cell = (2 * STEEPEST / CELLS, (HEAVIEST - LIGHTEST) / CELLS)
        steep, heavy = np.ones(1), np.full(1, -np.inf)
        if self.form != "linear":
            steep = np.linspace(exponents.min() - cell[0], exponents.max() + cell[0], CELLS)
        if self.form != "power":
            heavy = np.linspace(max(LIGHTEST, weights.min() - cell[1]), min(HEAVIEST, weights.max() + cell[1]), CELLS)
        return _Grid(self.form, self.scale, self.log_x, *_pairs(np.clip(steep, -STEEPEST, STEEPEST), heavy))

    def nearest(self, log_y: Floats) -> tuple[Floats, Floats]:
        """Return the exponent [m] and the weight [m] of the best pair for every row of log_y [m, n]."""
        shapes = _centred(_shape(self.log_x, self.exponents[:, None], self.weights[:, None]))
        best = ((shapes**2).sum(1) - 2 * _centred(log_y) @ shapes.T).argmin(1)  # least squares, less a constant
        return self.exponents[best], self.weights[best]

    def law(self, log_y: Floats, exponent: float, weight: float) -> Law:
        """Return the law with the factor that fits these points [n] best."""
        factor = float(np.exp((log_y - _shape(self.log_x, exponent, weight)).mean()))
        return Law(self.form, factor, float(exponent), float(factor * np.exp(weight)), self.scale)


def _pairs(exponents: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return all pairs of both, as two flat arrays."""
    return np.repeat(exponents, len(weights)), np.tile(weights, len(exponents))


MOST = 5.0  # of the noise in log y: a factor of 150
NORMAL_MEDIAN = (np.pi / 2) ** 0.5  # how much less certain a median is than a mean, for normal errors


def forms_for(sizes: int, requested: Form | Literal["auto"] = "auto") -> tuple[Form, ...]:
    """Return the requested forms that so many sizes can carry with one of them held out; empty if there are too few."""
    able = tuple(form for form, free in FREE.items() if sizes - 1 > free)
    return able if requested == "auto" else tuple(form for form in able if form == requested)


def left_out_error(x: Floats, y: Floats, form: Form) -> float:
    """Return the mean absolute error of log y over the sizes, each predicted by a fit to the others.

    It is infinite where the others are too few.
    """
    sizes = np.unique(x)
    if len(sizes) <= FREE[form]:
        return np.inf
    predicted = {s: fit(x[x != s], y[x != s], form)(s) for s in sizes}
    errors = [np.abs(np.log(predicted[s]) - np.log(y[x == s])).mean() for s in sizes]
    return float(np.mean(errors))


def choose(x: Sequence[float], y: Sequence[float], forms: Sequence[Form]) -> Form:
    """Return the form with the smallest error on sizes left out; among equals the one with fewer parameters.

    A form that the sizes cannot judge is taken only where it is the only one.
    """
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    return min(forms, key=lambda form: (left_out_error(xs, ys, form), FREE[form]))


@dataclass(frozen=True)
class Samples:
    """Repeated measurements at every size; `y[i]` are those at `x[i]`, whose median is the point that is fitted."""

    x: tuple[float, ...]
    y: tuple[tuple[float, ...], ...]

    @property
    def centre(self) -> Floats:
        """The medians, [n]."""
        return np.array([np.median(values) for values in self.y])

    def without_largest(self) -> Samples:
        """Return all sizes but the largest, in ascending order."""
        smaller = sorted(range(len(self.x)), key=lambda i: self.x[i])[:-1]
        return Samples(tuple(self.x[i] for i in smaller), tuple(self.y[i] for i in smaller))


@dataclass(frozen=True)
class BootstrappedLaw:
    """A law with the laws of its bootstrap, from which intervals come. `spreads` are the standard deviations of log y
    about the law, one per resampled law: with few sizes they are themselves uncertain."""

    law: Law
    resampled: tuple[Law, ...]
    spreads: tuple[float, ...]

    def interval(self, x: Floats | float, level: float = 0.9, *, point: bool = True) -> tuple[Floats, Floats]:
        """Return the low and the high end at x, of x's shape: with `point` of a new measurement, else of the law."""
        values = np.log(np.stack([law(x) for law in self.resampled]))
        if point:
            noise = np.random.default_rng(1).normal(0.0, self.spreads)
            values = values + noise.reshape(-1, *([1] * (values.ndim - 1)))
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return np.exp(low), np.exp(high)


def bootstrap(samples: Samples, form: Form, *, times: int = 300, seed: int = 0) -> BootstrappedLaw:
    """Refit the law `times` to its own values with noise: as large as the residuals say, and never smaller than the
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
    return BootstrappedLaw(law, tuple(fit_many(x, np.log(law(x)) + shifts, form)), tuple(map(float, spreads)))


def noise(samples: Samples) -> float:
    """Return the standard error of a size's median in log y, the mean over sizes; 0 without repeats."""
    errors = [np.std(np.log(values)) / np.sqrt(len(values)) for values in samples.y if len(values) > 1]
    return float(np.mean(errors)) * NORMAL_MEDIAN if errors else 0.0


@dataclass(frozen=True)
class JudgedLaw:
    """A law that was fitted without the largest size, and its prediction for that size; `final` is fitted to all."""

    form: Form
    trained: BootstrappedLaw
    final: BootstrappedLaw
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


def judge(
    samples: Samples, requested: Form | Literal["auto"] = "auto", *, seed: int = 0, times: int = 300
) -> JudgedLaw:
    """Choose a form and fit it without the largest size, predict that size, then fit the form to all sizes.

    Raises ValueError where there are too few sizes for any requested form.
    """
    forms = forms_for(len(samples.x), requested)
    if not forms:
        raise ValueError(f"{len(samples.x)} sizes are too few")
    smaller = samples.without_largest()
    xs, ys = np.asarray(smaller.x), smaller.centre
    errors = {form: left_out_error(xs, ys, form) for form in forms}
    form = choose(smaller.x, ys.tolist(), forms)
    trained = bootstrap(smaller, form, times=times, seed=seed)
    largest = max(samples.x)
    low, high = trained.interval(largest)
    return JudgedLaw(
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
    """Return the bootstrap interval of a statistic of repeated measurements."""
    draw = np.random.default_rng(0)
    measured = np.asarray(values, float)
    resampled = [statistic(draw.choice(measured, len(measured))) for _ in range(400)]
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
