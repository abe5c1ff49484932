"""`--dry-run`: the resolved study and the first configurations that it would try."""

from __future__ import annotations

import random

import yaml
from rich.console import Console
from rich.table import Table

from lethe.config.space import Parameter
from lethe.config.study import Study
from lethe.search.space import build_recipe, flatten

SHOWN = 5


def preview(study: Study) -> None:
    """Print the study as YAML, then `SHOWN` random configurations: a sampler with results would learn from there."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    for member in study.members():
        if member.seed == study.members()[0].seed:
            _configurations(console, member.study, member.arm)
    if not study.members():
        _configurations(console, study, "")


def _configurations(console: Console, study: Study, arm: str) -> None:
    draw = random.Random(study.search.seed)
    rows = [flatten(build_recipe(study, lambda _, p: _draw(draw, p))) for _ in range(SHOWN)]
    table = Table("", title=f"{arm} first configurations, drawn at random".strip(), title_justify="left")
    table.columns[0].no_wrap = True
    for i in range(1, SHOWN + 1):
        table.add_column(str(i))
    for key in study.space:
        table.add_row(key, *(_shown(row.get(key)) for row in rows))
    console.print(table)


def _shown(value: object) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _draw(random_: random.Random, parameter: Parameter) -> object:
    from math import exp, log

    if parameter.type == "choice":
        return random_.choice(parameter.choices)
    low, high = parameter.low, parameter.high
    value = exp(random_.uniform(log(low), log(high))) if parameter.log else random_.uniform(low, high)
    return round(value) if parameter.type == "int" else value
