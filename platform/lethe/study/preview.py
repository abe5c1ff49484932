"""What `--dry-run` shows of a study: its settings, what it reads, and the first configurations that it would try."""

from __future__ import annotations

import random
from math import exp, log

import yaml
from rich.table import Table

from lethe.config.base import flatten
from lethe.config.space import Choice, IntRange, Parameter, Scalar, build_recipe
from lethe.config.study import Study
from lethe.study.inputs import Inputs, describe_inputs
from lethe.terminal import Terminal

SHOWN = 5  # configurations of a dry run


def describe_trial_audits(study: Study) -> str:
    """Return a line on the audits with which every trial ends, and what they cost; empty where no objective needs
    one."""
    audits = study.trial_audits()
    if audits is None:
        return ""
    costs = [f"{name}: {audit.cost()}" for name, audit in audits.asked().items()]
    return f"audits  every trial ends with those of its objectives: {'; '.join(costs)}"


def preview(study: Study, inputs: Inputs) -> None:
    """Print the study as YAML, where its data and models are, one whole prompt, then `SHOWN` random configurations:
    every sampler begins at random."""
    console = Terminal(soft_wrap=True)
    console.print(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    for line in describe_inputs(study, inputs):
        console.print(line)
    console.print()
    for member in study.members():
        if member.seed == study.members()[0].seed:
            _configurations(console, member.study, member.arm)
    if not study.members():
        _configurations(console, study, "")


def _configurations(console: Terminal, study: Study, arm: str) -> None:
    draw = random.Random(study.search.seed)
    rows = [flatten(build_recipe(study.run, study.space, lambda _, p: _draw(draw, p))) for _ in range(SHOWN)]
    table = Table("", title=f"{arm} first configurations, drawn at random".strip(), title_justify="left")
    table.columns[0].no_wrap = True
    for i in range(1, SHOWN + 1):
        table.add_column(str(i))
    for key in study.space:
        table.add_row(key, *(_cell(row.get(key)) for row in rows))
    console.print(table)


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _draw(rng: random.Random, parameter: Parameter) -> Scalar:
    """Draw a value of a parameter, evenly or evenly in its logarithm."""
    if isinstance(parameter, Choice):
        chosen: Scalar = rng.choice(parameter.choices)
        return chosen
    low, high = parameter.low, parameter.high
    value: float = exp(rng.uniform(log(low), log(high))) if parameter.log else rng.uniform(low, high)
    return round(value) if isinstance(parameter, IntRange) else value
