"""One law y(x) = c + a x^b, fitted to relative errors.

Costs span orders of magnitude, so residuals are those of log y: an error of 10 % weighs the same at every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import least_squares

Floats = np.ndarray
Form = Literal["power", "linear", "offset"]
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
        """The law's value at x, of x's shape."""
        return self.offset + self.factor * (np.asarray(x, float) / self.scale) ** self.exponent


def fit(x: Sequence[float], y: Sequence[float], form: Form) -> Law:
    """Least squares of log y; x and y are positive, [n] each. Raises ValueError for fewer points than parameters."""
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

    found = least_squares(residuals, np.clip(start, low, high), bounds=(low, high), x_scale=0.1, xtol=1e-12, ftol=1e-12)
    return grid.law(np.log(ys), *parts(found.x))


def fit_many(x: Floats, log_y: Floats, form: Form) -> list[Law]:
    """A law for every row of log_y [m, n]: on a grid over all exponents and offsets, then on one over those found."""
    coarse = _Grid.of(x, form)
    exponents, weights = coarse.nearest(log_y)
    fine = coarse.around(exponents, weights)
    exponents, weights = fine.nearest(log_y)
    return [fine.law(row, b, w) for row, b, w in zip(log_y, exponents, weights)]


def _shape(log_x: Floats, exponent: Floats | float, weight: Floats | float) -> Floats:
    """log(exp(weight) + x^exponent): a law up to its factor."""
    return np.logaddexp(weight, exponent * log_x)


def _centred(values: Floats) -> Floats:
    """Less their mean along the last axis: what a factor cannot make up for."""
    return values - values.mean(-1, keepdims=True)


@dataclass(frozen=True)
class _Grid:
    """Exponents and weights (logarithm of the offset at x = scale, in units of the factor), each pair with its shape
    at the points: the factor is then the mean residual, so the search has two dimensions."""

    form: Form
    scale: float
    log_x: Floats  # [n], of x / scale
    exponents: Floats  # [k]
    weights: Floats  # [k]

    @classmethod
    def of(cls, x: Floats, form: Form) -> _Grid:
        """Over everything that a form allows."""
        log_x = np.log(x)
        exponents = np.linspace(-STEEPEST, STEEPEST, CELLS) if form != "linear" else np.ones(1)
        weights = np.linspace(LIGHTEST, HEAVIEST, CELLS) if form != "power" else np.full(1, -np.inf)
        return cls(form, float(np.exp(log_x.mean())), log_x - log_x.mean(), *_pairs(exponents, weights))

    def around(self, exponents: Floats, weights: Floats) -> _Grid:
        """Finer, over the range of these and a cell more."""
        cell = (2 * STEEPEST / CELLS, (HEAVIEST - LIGHTEST) / CELLS)
        steep, heavy = np.ones(1), np.full(1, -np.inf)
        if self.form != "linear":
            steep = np.linspace(exponents.min() - cell[0], exponents.max() + cell[0], CELLS)
        if self.form != "power":
            heavy = np.linspace(max(LIGHTEST, weights.min() - cell[1]), min(HEAVIEST, weights.max() + cell[1]), CELLS)
        return _Grid(self.form, self.scale, self.log_x, *_pairs(np.clip(steep, -STEEPEST, STEEPEST), heavy))

    def nearest(self, log_y: Floats) -> tuple[Floats, Floats]:
        """For every row [m, n] the exponent and the weight [m] of the best cell."""
        shapes = _centred(_shape(self.log_x, self.exponents[:, None], self.weights[:, None]))
        best = ((shapes**2).sum(1) - 2 * _centred(log_y) @ shapes.T).argmin(1)  # least squares, less a constant
        return self.exponents[best], self.weights[best]

    def law(self, log_y: Floats, exponent: float, weight: float) -> Law:
        """With the factor that these points [n] want."""
        factor = float(np.exp((log_y - _shape(self.log_x, exponent, weight)).mean()))
        return Law(self.form, factor, float(exponent), float(factor * np.exp(weight)), self.scale)


def _pairs(exponents: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """All pairs, flat."""
    return np.repeat(exponents, len(weights)), np.tile(weights, len(exponents))
