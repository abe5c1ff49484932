"""Several models' scores side by side, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from lethe.config.metrics import Metric

GROUPS = ("forget", "retain", "real_authors", "world_facts", "mia", "soul", "lm_eval")  # prefixes, in this order
FIRST = ("forget", "utility", "forget_quality", "forget_quality_log10")
TARGET = "\N{RIGHTWARDS ARROW}"
ARROWS = {"minimize": "\N{DOWNWARDS ARROW}", "maximize": "\N{UPWARDS ARROW}"}

Column = tuple[str, Mapping[str, float]]


def score_table(
    models: Sequence[Column],
    references: Sequence[Column],
    known: Mapping[str, Metric],
    title: str,
    names: Sequence[str] = (),
    faulty: Collection[str] = (),
) -> Table:
    """Return a table with a row per metric and a column per model, (name, values by metric) each.

    `references` are faint last columns, never marked; `known` gives the direction of a metric, shown as an arrow;
    `names` are the rows, all that a model has by default. A star marks the best model of a row; the models named in
    `faulty` have none.
    """
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("metric", no_wrap=True)
    for name, _ in models:
        table.add_column(name, justify="right", overflow="fold")
    for name, _ in references:
        table.add_column(name, justify="right", style="dim", overflow="fold")
    for section in [names] if names else grouped(dict.fromkeys(name for _, values in models for name in values)):
        for name in section:
            values = [scores.get(name) for _, scores in models]
            metric = known.get(name)
            sound = [None if model in faulty else scores.get(name) for model, scores in models]
            best = best_models(sound, metric)
            if any(best):
                table.caption = "* best of the models in its row"
            cells: list[str | Text] = [_cell(value, marked) for value, marked in zip(values, best, strict=True)]
            cells += [_format_score(scores.get(name)) for _, scores in references]
            table.add_row(f"{name} {_arrow(metric)}" if metric else name, *cells)
        table.add_section()
    return table


def grouped(names: Mapping[str, None]) -> Iterator[list[str]]:
    """Yield the names by group: `FIRST` with those of no group, then each of `GROUPS`; empty groups are left out."""
    groups: dict[str, list[str]] = {"": [name for name in FIRST if name in names]}
    groups |= {group: [] for group in GROUPS}
    for name in names:
        if name not in FIRST:
            groups[next((group for group in GROUPS if name.startswith(f"{group}_")), "")].append(name)
    return (group for group in groups.values() if group)


def best_models(values: Sequence[float | None], metric: Metric | None) -> list[bool]:
    """Tell for each value whether it is the best, or looks like the best; all False where every value looks the same
    or the metric's direction is unknown (None)."""
    if metric is not None and metric.target is not None:
        values, metric = [None if v is None else abs(v - metric.target) for v in values], Metric("minimize", "")
    known = [value for value in values if value is not None]
    if metric is None or len({_format_score(value) for value in known}) < 2:
        return [False] * len(values)
    best = min(known) if metric.better == "minimize" else max(known)
    return [value is not None and _format_score(value) == _format_score(best) for value in values]


def _arrow(metric: Metric) -> str:
    return ARROWS[metric.better] if metric.target is None else f"{TARGET}{metric.target:g}"


def _cell(value: float | None, best: bool) -> str | Text:
    text = _format_score(value)
    return Text.assemble((text, "bold green"), " *") if best else f"{text}  "


def _format_score(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"
