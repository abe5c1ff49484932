"""The Pareto front as a drawing: where every trial, the start model, the oracle and the floors lie.

The front as a PNG, for slides and papers. Drawn without pyplot, which keeps every figure of the process alive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from lethe.records import StudyRecord, TrialRecord
from lethe.reporting.comparison.arms import arms, colors, legend
from lethe.reporting.scales import Scale, format_number, format_setting, scale
from lethe.reporting.trial_views import KINDS, TrialKind, names, param_names, trial_kind, value, wanted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WIDTH, HEIGHT = 880, 500
LEFT, RIGHT, TOP, BOTTOM = 64, 22, 22, 58

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One objective as a coordinate. A study of one objective is drawn over its trials' numbers."""

    key: str
    label: str
    lower_is_better: bool
    floor: float | None

    def of(self, trial: TrialRecord) -> float:
        """Where a trial lies."""
        return value(trial.metrics, self.key) if self.key else float(trial.number)


@dataclass(frozen=True)
class Mark:
    """A trial on the drawing, with what its tooltip says."""

    trial: TrialRecord
    kind: TrialKind
    x: float
    y: float
    named: list[str]
    lines: list[tuple[str, str]]


@dataclass(frozen=True)
class Front:
    """Everything that the templates and the picture draw. Points are data; `sx`, `sy` make pixels of them."""

    x: Axis
    y: Axis
    sx: Scale
    sy: Scale
    marks: list[Mark]
    missing: list[TrialRecord]
    start: Point | None
    oracle: Point | None
    stairs: list[Point]
    counts: dict[TrialKind, int]


def axes(record: StudyRecord) -> tuple[Axis, Axis]:
    """The first two objectives."""
    found = [
        Axis(goal.metric, f"{goal.metric} ({wanted(goal)})", goal.direction == "minimize", goal.floor)
        for goal in record.objectives[:2]
    ]
    if len(found) == 1:
        found.insert(0, Axis("", "trial", True, None))
    return found[0], found[1]


def front(record: StudyRecord) -> Front:
    """Lay the study out."""
    x, y = axes(record)
    start = _point(x, y, record.start.metrics)
    oracle = _point(x, y, record.oracle.metrics) if record.oracle else None
    placed = [trial for trial in record.trials if _finite((x.of(trial), y.of(trial)))]
    others = [point for point in (start, oracle) if point]
    sx = scale([*(x.of(t) for t in placed), *(p[0] for p in others), *_known(x.floor)], LEFT, WIDTH - RIGHT)
    sy = scale([*(y.of(t) for t in placed), *(p[1] for p in others), *_known(y.floor)], HEIGHT - BOTTOM, TOP)
    kinds = list(KINDS)
    order, told = sorted(placed, key=lambda t: -kinds.index(trial_kind(t))), param_names(record)
    marks = [_mark(record, trial, told, sx(x.of(trial)), sy(y.of(trial))) for trial in order]
    missing = [trial for trial in record.trials if trial not in placed]
    stairs = _stairs(record, x, y, sx, sy)
    counts = {each: sum(mark.kind == each for mark in marks) for each in KINDS}
    return Front(x, y, sx, sy, marks, missing, start, oracle, stairs, counts)


def _mark(record: StudyRecord, trial: TrialRecord, told: dict[str, str], x: float, y: float) -> Mark:
    goals = [(goal.metric, format_number(value(trial.metrics, goal.metric))) for goal in record.objectives]
    shown = [(name, format_setting(trial.params[key])) for key, name in told.items() if key in trial.params]
    cost = [(key, format_setting(trial.metrics[key])) for key in ("win_rate", "seconds") if key in trial.metrics]
    named = names(record).get(trial.number, [])
    return Mark(trial, trial_kind(trial), x, y, named, goals + shown + cost)


def _stairs(record: StudyRecord, x: Axis, y: Axis, sx: Scale, sy: Scale) -> list[Point]:
    """The border between what the front beats and what it does not, from edge to edge. Only two objectives have one."""
    points = sorted(
        {(x.of(trial), y.of(trial)) for trial in record.trials if trial.on_front}, reverse=not x.lower_is_better
    )
    points = [point for point in points if _finite(point)]
    if len(record.objectives) != 2 or not points:
        return []
    worst_x = x.floor if x.floor is not None else (sx.high if x.lower_is_better else sx.low)
    worst_y = y.floor if y.floor is not None else (sy.high if y.lower_is_better else sy.low)
    steps: list[Point] = [(points[0][0], worst_y)]
    for place, (px, py) in enumerate(points):
        steps.append((px, py))
        next_x = points[place + 1][0] if place + 1 < len(points) else worst_x
        steps.append((next_x, py))
    return steps


def _point(x: Axis, y: Axis, metrics: dict[str, float]) -> Point | None:
    point = (value(metrics, x.key), value(metrics, y.key))
    return point if _finite(point) else None


def _finite(point: Point) -> bool:
    return all(map(math.isfinite, point))


def _known(floor: float | None) -> list[float]:
    return [] if floor is None else [floor]


INK, SOFT, FAINT, GRID = "#1d2433", "#667085", "#98a2b3", "#e7e9ef"
ACCENT, KNEE, BAD = "#1f6feb", "#d9480f", "#c92a2a"
STYLES: dict[TrialKind, dict[str, Any]] = {
    "front": {"marker": "o", "s": 62, "color": ACCENT, "edgecolors": "white", "linewidths": 1.2, "zorder": 6},
    "beaten": {"marker": "o", "s": 34, "color": FAINT, "edgecolors": "white", "linewidths": 0.8, "zorder": 4},
    "infeasible": {"marker": "o", "s": 34, "facecolors": "white", "edgecolors": FAINT, "linewidths": 1.2, "zorder": 3},
    "stopped": {"marker": "_", "s": 60, "color": FAINT, "linewidths": 1.8, "zorder": 3},
    "failed": {"marker": "x", "s": 40, "color": BAD, "linewidths": 1.5, "zorder": 3},
}


def front_png(record: StudyRecord) -> bytes:
    """The bytes of front.png."""
    figure = blank(8.4, 5.2)
    _draw(figure.add_subplot(), front(record), record)
    return png(figure)


def blank(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=170, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a file's content."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def _draw(plot: Axes, shown: Front, record: StudyRecord) -> None:
    found = arms(record)
    tints = colors(found)
    _frame(plot, shown, record)
    _floors(plot, shown)
    if shown.stairs:
        xs, ys = zip(*shown.stairs, strict=True)
        plot.fill([*xs, xs[-1]], [*ys, ys[0]], color=ACCENT, alpha=0.07, linewidth=0, zorder=1)
        plot.plot(xs, ys, color=ACCENT, linewidth=1.4, alpha=0.75, zorder=2)
    for each in KINDS:
        marks = [mark for mark in shown.marks if mark.kind == each]
        if marks:
            xs, ys = [shown.x.of(m.trial) for m in marks], [shown.y.of(m.trial) for m in marks]
            plot.scatter(xs, ys, **STYLES[each] | _tints(each, [tints.get(m.trial.number, "") for m in marks]))
            plot.scatter([], [], label=f"{KINDS[each]} ({len(marks)})", **STYLES[each])
    for color, who in legend(found).items():
        plot.scatter([], [], label=plain(who), s=40, color=color)
    for mark in shown.marks:
        if mark.kind == "front":
            _label(plot, shown, mark)
    for name, point, marker in (("start", shown.start, "D"), ("oracle", shown.oracle, "*")):
        if point:
            size = 130 if marker == "*" else 52
            plot.scatter(*point, marker=marker, s=size, color=INK, edgecolors="white", linewidths=1, zorder=7)
            right = shown.sx(point[0]) > WIDTH / 2
            _say(plot, name, point, INK, (-10 if right else 10, -4), bold=True)
    if shown.marks:
        key = plot.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=5, frameon=False, fontsize=8.5)
        for entry in key.get_texts():
            entry.set_color(SOFT)


def _tints(kind: TrialKind, tints: list[str]) -> dict[str, list[str]]:
    """The arms' colors in the place of a kind's own, if there are arms."""
    return {key: tints for key, own in STYLES[kind].items() if own in (ACCENT, FAINT) and all(tints)}


def _frame(plot: Axes, shown: Front, record: StudyRecord) -> None:
    plot.set_xlim(shown.sx.low, shown.sx.high)
    plot.set_ylim(shown.sy.low, shown.sy.high)
    plot.set_xlabel(shown.x.label, color=INK)
    plot.set_ylabel(shown.y.label, color=INK)
    volume = "" if record.hypervolume is None else f"  ·  hypervolume {record.hypervolume:.3g}"
    title = f"{record.space}: {len(record.trials)} trials, {len(record.front)} on the front{volume}"
    style(plot, title)


def style(plot: Axes, title: str) -> None:
    """A title, a light grid, no box."""
    plot.set_title(plain(title), loc="left", color=INK, fontsize=11.5, fontweight="bold", pad=12)
    plot.grid(color=GRID, linewidth=0.8, zorder=0)
    plot.set_axisbelow(True)
    plot.tick_params(colors=SOFT, length=0, labelsize=9)
    for side in plot.spines.values():
        side.set_visible(False)


def _floors(plot: Axes, shown: Front) -> None:
    """What lies behind a floor is shaded: nothing there can be on the front."""
    for axis, line, span, ends in (
        (shown.x, plot.axvline, plot.axvspan, (shown.sx.low, shown.sx.high)),
        (shown.y, plot.axhline, plot.axhspan, (shown.sy.low, shown.sy.high)),
    ):
        if axis.floor is not None:
            span(axis.floor, ends[1] if axis.lower_is_better else ends[0], color="#f3f4f7", zorder=0.5, linewidth=0)
            line(axis.floor, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    if shown.y.floor is not None:
        across = plot.get_yaxis_transform()
        plot.text(0.01, shown.y.floor, "floor", transform=across, color=SOFT, fontsize=8.5, verticalalignment="bottom")


def _label(plot: Axes, shown: Front, mark: Mark) -> None:
    """On the side where no trial is better, hence no line and no mark."""
    point = (shown.x.of(mark.trial), shown.y.of(mark.trial))
    left, up = shown.x.lower_is_better and mark.x > 170, not shown.y.lower_is_better
    if "knee" in mark.named:
        plot.scatter(*point, s=190, facecolors="none", edgecolors=KNEE, linewidths=1.8, zorder=5)
        _say(plot, f"knee · trial {mark.trial.number}", point, KNEE, (-8 if left else 8, 8 if up else -14), bold=True)
    else:
        _say(plot, str(mark.trial.number), point, SOFT, (-5 if left else 5, 5 if up else -12))


def _say(plot: Axes, text: str, point: Point, color: str, offset: Point, *, bold: bool = False) -> None:
    plot.annotate(
        text,
        point,
        offset,
        textcoords="offset points",
        horizontalalignment="right" if offset[0] < 0 else "left",
        color=color,
        fontsize=9,
        fontweight="bold" if bold else "normal",
        zorder=8,
    )


def plain(text: str) -> str:
    """Matplotlib reads dollars as mathematics."""
    return text.replace("$", r"\$")
