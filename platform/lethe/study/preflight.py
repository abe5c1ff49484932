"""What can be known to fail before the first trial: data without refusals, adapters that do not fit the model, devices
that are not there.

`--dry-run`: the resolved study and the first configurations that it would try.
"""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import yaml
from lethe.benchmarks.base import Benchmark
from lethe.config.adapter import Lora
from lethe.config.objective import Objective
from lethe.config.run import Recipe
from lethe.config.search import Search
from lethe.config.space import Choice, Parameter, Scalar, possible
from lethe.config.study import Study
from lethe.config.validation import refuse_needing
from lethe.data.refusals import NO_REFUSALS
from lethe.errors import UserError
from lethe.search.space import build_recipe, flatten
from lethe.storage.paths import require_database
from lethe.study.preparation import Prepared
from rich.console import Console
from rich.table import Table


def check_place(search: Search) -> None:
    """Raises BadInput where Optuna's study would have no place: objects hold none."""
    if not search.storage:
        require_database("search.storage", "name one, such as postgresql://host/lethe")


def corners(study: Study) -> list[Recipe]:
    """Recipes of every combination of variants, each with the largest and the smallest rank that the space allows."""
    return [recipe for part in study.parts() for recipe in _corners(part)]


def _corners(study: Study) -> list[Recipe]:
    found = []
    names = {key: p.choices for key, p in study.space.items() if key.endswith(".name") and isinstance(p, Choice)}
    for picked in product(*names.values()):
        chosen = dict(zip(names, picked, strict=True))
        for extreme in (min, max):

            def suggest(name: str, parameter: Parameter, chosen: dict = chosen, extreme: Any = extreme) -> Scalar:
                if name in chosen:
                    return chosen[name]
                if isinstance(parameter, Choice):
                    return extreme(parameter.choices, key=lambda v: v if isinstance(v, int | float) else 0)
                return extreme((parameter.low, parameter.high))

            found.append(build_recipe(study, suggest))
    return found


def check_data(study: Study, benchmark: Benchmark) -> None:
    """Raises BadInput where a trial could answer with refusals, an audit needs rows, or an objective is of rows, that
    the benchmark lacks."""
    forget_rows = benchmark.forget_count(study.first_recipe().evaluation) if study.audits else 0
    for audit in study.audits.asked().values() if study.audits else ():
        audit.check_data(benchmark, study.benchmark.source, forget_rows)
    for need in benchmark.missing:
        remedy = f"needs {need} rows, and {study.benchmark.source} has none"
        refuse_needing(need, remedy, study.objectives, study.benchmark)
    known = Objective.registered
    refusing = {name for name, objective in known.items() if objective.needs_refusals}
    for name in (name for part in study.parts() for name in possible(part.run, part.space)["objective"]):
        if name in refusing and not benchmark.refusals:
            raise UserError(
                f"objective.name: {name} answers with refusals, but {NO_REFUSALS.format(study.benchmark.source)}: "
                f"choose from {', '.join(sorted(known.keys() - refusing))}"
            )


def check_model(study: Study, prepared: Prepared) -> None:
    """Raises BadInput for targets that match nothing, ranks larger than a layer and rows that a model cannot read: on
    shapes, without weights."""
    reading = [r for r in corners(study) if "adapter" not in r.objective.ignored_fields]
    adapters = {r.adapter for r in reading if isinstance(r.adapter, Lora)}
    import torch
    from lethe.models.adapters import check_adapter
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(str(prepared.start), trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"model.path: transformers cannot read the model in {prepared.start}: {reason}") from None
    for adapter in sorted(adapters, key=lambda a: a.rank):
        check_adapter(model, adapter)
    _check_rows(study, prepared)


def _check_rows(study: Study, prepared: Prepared) -> None:
    """Everything that is trained on or evaluated, as the start model's tokenizer reads it, for every model's limits."""
    from lethe.data.template import Template
    from lethe.evaluation.context_length import ContextLimits, check_context_length
    from lethe.models.loading import load_tokenizer
    from transformers import AutoConfig

    models = [folder for folder in (prepared.start, prepared.oracle, prepared.base) if folder]
    configs = [AutoConfig.from_pretrained(str(folder), trust_remote_code=False) for folder in models]
    limits = [
        ContextLimits.of_config(config, f"the model in {folder}")
        for config, folder in zip(configs, models, strict=True)
    ]
    length, most = study.benchmark.sequence_length, limits[0].context
    if most is not None and most < length:
        raise UserError(f"benchmark.length is {length}, {limits[0].name} takes {most} tokens")
    task = prepared.benchmark.task(Template(load_tokenizer(prepared.start)), limits[0].vocabulary)
    rows = [*task.eval_set(study.first_recipe().evaluation).named_rows(), *task.named_rows()]
    for limit in limits:
        check_context_length(rows, limit, least=task.least_tokens)


def check_devices(study: Study) -> None:
    """Raises BadInput where a run asks for CUDA and the cluster can have no GPU, or for more than it can ever hold."""
    from lethe.pool.resources import Shape, require

    for shape in dict.fromkeys(Shape.of(recipe.engine) for recipe in corners(study)):
        require(shape)


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
