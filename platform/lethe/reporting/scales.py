"""Axes of drawings with round ticks, and numbers as people write them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard


@dataclass(frozen=True)
class Scale:
    """A linear axis: values `low` to `high` on pixels `start` to `stop` (the latter may run backwards)."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return round(self.start + self.share(value) * (self.stop - self.start), 2)

    def share(self, value: float) -> float:
        """Return where a value lies between the axis's ends, 0 at `low` and 1 at `high`."""
        return (value - self.low) / (self.high - self.low)

    def back(self, place: float) -> float:
        """Return the value at a pixel."""
        return self.low + (place - self.start) / (self.stop - self.start) * (self.high - self.low)

    def ticks(self, about: int = 6) -> list[tuple[float, str]]:
        """Return (pixel, label) of about `about` round values: steps of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / about
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        decimals = max(0, -math.floor(math.log10(step)))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(self(place * step), f"{place * step + 0.0:,.{decimals}f}") for place in range(first, last + 1)]


def scale(values: Iterable[float], start: float, stop: float, *, margin: float = 0.07) -> Scale:
    """Return an axis that shows all finite values, with `margin` of their span at both ends; 0 to 1 without any."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = (high - low) * margin or abs(high) * margin or 0.5
    return Scale(low - room, high + room, start, stop)


def format_number(value: object) -> str:
    """Return a measured number with three decimals, other values as their text, a dash for None."""
    if not _is_number(value):
        return "–" if value is None else str(value)
    number = float(value)
    if number.is_integer() or not math.isfinite(number) or not 0.01 <= abs(number) < 10:
        return format_setting(number)
    return f"{number:.3f}".replace("-", "−")


def format_setting(value: object) -> str:
    """Return a chosen number with three significant digits and no zeros behind them, other values as their text, a dash
    for None."""
    if not _is_number(value):
        return "–" if value is None else str(value)
    number = float(value)
    if not math.isfinite(number):
        return {"nan": "NaN", "inf": "∞", "-inf": "−∞"}[str(number)]
    if number == 0 or 1e-3 <= abs(number) < 1e6:
        digits = 0 if number.is_integer() else max(0, 2 - math.floor(math.log10(abs(number))))
        text = f"{number:,.{digits}f}"
        return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")
    mantissa, exponent = f"{number:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", "−")


def format_magnitude(value: float) -> str:
    """Return a number over many orders with a suffix: 7 billion is 7B, 1500 is 1.5k."""
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return format_setting(value)


def format_fixed(number: float, decimals: int) -> str:
    """Return a number with as many decimals, a dash for NaN, as `format_setting` does from a million on."""
    if math.isnan(number):
        return "–"
    text = f"{number:,.{decimals}f}" if abs(number) < 1e6 else format_setting(number)
    return text.replace("-", "−")


def format_count(number: int, noun: str) -> str:
    """Return `1 trial` or `2 trials`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Return `3.4 s`, `2.7 min` or `1.4 h`; a dash for less than 0 or a number that is not finite."""
    if not math.isfinite(seconds) or seconds < 0:
        return "–"
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
