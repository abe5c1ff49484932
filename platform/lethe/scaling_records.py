"""Records of a scaling study: plain values for its report, the tracker and `--resume`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lethe.records import Record, TrialRecord

Form = Literal["power", "linear", "offset"]  # of a law y = c + a x^b: c = 0, b = 1, both free


class Estimate(Record):
    """A value at `x` with its 90 % interval."""

    x: float
    value: float
    low: float
    high: float


class LawRecord(Record):
    """A law, the points that it was fitted to and the point that it was judged on.

    `x`, `y` are the points with `low`, `high` of their medians; `held_out` is the estimate for the largest x by a fit
    that has not seen it, `measured` the measurement there; `exponent` is of the fit to all points, with interval.
    `errors`: mean absolute error of log y by form, sizes left out in turn. `curve` is for drawing.
    """

    name: str
    arm: str
    x_name: str
    y_name: str
    unit: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    form: Form
    factor: float
    offset: float
    exponent: float
    exponent_low: float
    exponent_high: float
    scale: float
    held_out: Estimate
    measured: float
    errors: dict[str, float]
    curve: tuple[Estimate, ...]
    extrapolations: tuple[Estimate, ...] = ()

    @property
    def error(self) -> float:
        """Relative error of the held-out prediction: 0.1 is 10 % too high."""
        return self.held_out.value / self.measured - 1

    @property
    def covered(self) -> bool:
        """True where the held-out interval contains the measurement."""
        return self.held_out.low <= self.measured <= self.held_out.high


class ParallelRecord(Record):
    """Speed with more workers under one ZeRO stage. `kind`: `strong` (equal rows) or `weak` (as many times the rows).

    `serial` is Amdahl's share of a step that more workers do not shorten, for weak scaling Gustafson's.
    """

    kind: str
    stage: int
    workers: tuple[int, ...]
    step_seconds: tuple[float, ...]
    efficiency: tuple[float, ...]
    communication_share: tuple[float, ...]
    serial: Estimate
    extrapolations: tuple[Estimate, ...]  # x: workers, value: speed-up over one worker


class SearchRecord(Record):
    """One search of a scaling study: its trials (numbers), its cost and its result."""

    size: str
    arm: str
    forget: str
    parameters: float
    trials: tuple[int, ...]
    hypervolume: float
    chosen: int | None
    start: dict[str, float]
    target: float
    steps_to_target: float | None  # of the chosen trial, or of the first that reached it; None: no trial did
    reached: int
    seconds: dict[str, float]  # prepare (models), train, evaluate, rest: sums over trials
    win_rate: float | None
    scores: dict[str, float]  # a trial's own hypervolume, by its setting's digest


class TransferRecord(Record):
    """The smallest search's setting at the largest size, against searching there for as long."""

    arm: str
    small: str
    large: str
    setting: dict[str, Any]
    scaled: dict[str, float]  # parameters that were moved along a trend over the smaller sizes
    trial: int | None
    score: float
    seconds: float
    trials_for_the_same: float  # how many random trials at the large size cost as much
    random_score: Estimate  # the best of so many, expected; x: that number
    rank_correlation: dict[str, float]  # of equal settings' scores, by pair of sizes


EVERY_WEIGHT = "every weight"


class StudyCostRecord(Record):
    """GPU hours, low to high, of a study of a model on paper; `fewest`: GPUs that hold a run; `parts`: a table."""

    model: str
    trained: str
    gpu: str
    fewest: int
    low: float
    high: float
    parts: str


class ScalingRecord(Record):
    """A whole scaling study."""

    id: str
    study: dict[str, Any]
    machine: dict[str, float]
    points: tuple[TrialRecord, ...]
    searches: tuple[SearchRecord, ...] = ()
    trials: tuple[TrialRecord, ...] = ()
    laws: tuple[LawRecord, ...] = ()
    parallel: tuple[ParallelRecord, ...] = ()
    transfer: tuple[TransferRecord, ...] = ()
    plans: dict[str, str] = Field(default_factory=dict)
    studies: tuple[StudyCostRecord, ...] = ()
    began: float = 0.0
    ended: float = 0.0
    interrupted: bool = False
