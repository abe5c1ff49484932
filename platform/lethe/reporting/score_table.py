"""Several models' scores side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lethe.config.metrics import Metric
from rich.markup import escape
from rich.table import Table

GROUPS = ("forget", "retain", "real_authors", "world_facts", "mia", "soul", "lm_eval")  # prefixes, in this order
FIRST = ("forget", "utility", "forget_quality", "forget_quality_log10")
ARROWS = {"minimize": "\N{DOWNWARDS ARROW}", "maximize": "\N{UPWARDS ARROW}"}

Column = tuple[str, Mapping[str, float]]


def score_table(
    models: Sequence[Column],
    yardstick: Column | None,
    known: Mapping[str, Metric],
    title: str,
    names: Sequence[str] = (),
) -> Table:
    """A row per metric, or per name in `names`, with what is better of it; a column per model, and a faint one for
    what they are measured against. A star marks the best model of a row."""
    table = Table(
        title=escape(title), title_justify="left", caption="* best of the models in its row", caption_justify="left"
    )
    table.add_column("metric", no_wrap=True)
    for name, _ in models:
        table.add_column(escape(name), justify="right", overflow="fold")
    if yardstick:
        table.add_column(yardstick[0], justify="right", style="dim", overflow="fold")
    if len(models) < 2:
        table.caption = None
    for section in [names] if names else grouped(dict.fromkeys(name for _, values in models for name in values)):
        for name in section:
            given = [values.get(name) for _, values in models]
            metric = known.get(name)
            marks = best(given, metric)
            cells = [_cell(value, mark) for value, mark in zip(given, marks, strict=True)]
            beside = [_shown(yardstick[1].get(name))] if yardstick else []
            table.add_row(f"{name} {ARROWS[metric.better]}" if metric else name, *cells, *beside)
        table.add_section()
    return table


def grouped(names: Mapping[str, None]) -> Iterator[list[str]]:
    """What counts first, then what belongs to no group, then a list per group; a group without names is left out."""
    groups: dict[str, list[str]] = {"": [name for name in FIRST if name in names]}
    groups |= {group: [] for group in GROUPS}
    for name in names:
        if name not in FIRST:
            groups[next((group for group in GROUPS if name.startswith(f"{group}_")), "")].append(name)
    return (group for group in groups.values() if group)


def best(values: Sequence[float | None], metric: Metric | None) -> list[bool]:
    """Which models are best, those together that look alike: none where all do, or nobody knows what is better."""
    found = [value for value in values if value is not None]
    if metric is None or len({_shown(value) for value in found}) < 2:
        return [False] * len(values)
    top = min(found) if metric.better == "minimize" else max(found)
    return [value is not None and _shown(value) == _shown(top) for value in values]


def _cell(value: float | None, mark: bool) -> str:
    return f"[bold green]{_shown(value)}[/] *" if mark else f"{_shown(value)}  "


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"
