"""Checks across the sections of a study, before any trial: what cannot run or cannot be searched is refused.

Every function raises UserError with the key and the choices, and returns nothing where all is well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from pydantic import BaseModel, ValidationError

from lethe.config.adapter import Lora
from lethe.config.audit_objectives import SHORT_NAMES, audited_metrics
from lethe.config.audits import Audit, Audits
from lethe.config.base import field_condition, field_of, nested
from lethe.config.benchmark import GENERATED, PERTURBED, RULE, BenchmarkConfig
from lethe.config.comparison import Compare
from lethe.config.error_messages import to_user_error
from lethe.config.metrics import Need
from lethe.config.model import AnyModel, EmbeddedModel, FinetunedModel, PretrainedModel
from lethe.config.objective import Objective
from lethe.config.optimizer import Optimizer
from lethe.config.run import Recipe
from lethe.config.search import AnyStopping, Confirm, Goal, MoAsha, Sampler, Search, Stop
from lethe.config.space import Choice, FloatRange, Parameter, Scalar, assemble, possible, refusal, variants
from lethe.config.verdict import Criterion
from lethe.errors import UserError, unknown_name

Run = Mapping[str, Any]
Space = Mapping[str, Parameter]


def check_goals(goals: Mapping[str, Goal], benchmark: BenchmarkConfig, tasks: Iterable[str] = ()) -> None:
    """Refuse a study without objectives, metrics that the benchmark does not report or that are best between their
    extremes, and `floor_of_start` for metrics that a start model has no value of."""
    own, audited = benchmark.known_metrics(tasks), audited_metrics(benchmark)
    known = {**own, **audited}
    if not goals:
        raise UserError(f"objectives: none: choose from {', '.join(sorted(own))}")
    for name, goal in goals.items():
        if name not in known:
            choices = audited if name.startswith("audit_") else {**own, **SHORT_NAMES}
            raise unknown_name("metric in objectives", name, choices)
        if known[name].target is not None:
            raise UserError(f"objectives.{name}: it is best at {known[name].target:g}: search {name}_distance")
        if known[name].cost and goal.floor_of_start is not None:
            raise UserError(f"objectives.{name}.floor_of_start: a start model has no {name}: use floor")


def check_needs(goals: Mapping[str, Goal], benchmark: BenchmarkConfig, model: AnyModel, run: Run) -> None:
    """Refuse objectives that no run could report, for lack of the oracle or the option that they need."""
    if not run.get("evaluation", {}).get("gradnorm"):
        refuse_needing("gradnorm", "set run.evaluation.gradnorm=true", goals, benchmark)
    elif run.get("engine", {}).get("stage") == 3:
        raise UserError(
            "run.evaluation.gradnorm: needs whole weights, and stage 3 shards them: set run.engine.stage to 0, 1 or 2"
        )
    if isinstance(model, PretrainedModel) and model.oracle is None:
        refuse_needing("oracle", "set model.oracle, a model that never saw the forget rows", goals, benchmark)
        if model.base is None:
            refuse_needing("reference", "set model.oracle or model.base", goals, benchmark)


def refuse_needing(need: Need, remedy: str, goals: Iterable[str], benchmark: BenchmarkConfig) -> None:
    """Raises UserError for the first objective whose metric needs `need`; the message gives `remedy` and the metrics
    that do without."""
    known = benchmark.metrics
    for name in goals:
        if name in known and need in known[name].needs:
            others = sorted(other for other, metric in known.items() if need not in metric.needs)
            raise UserError(f"objectives.{name}: {remedy}, or choose from {', '.join(others)}")


def check_origin(model: AnyModel, run: Run, space: Space) -> None:
    """Refuse an objective that trains from the base checkpoint where the study does not name one."""
    needing = [name for name in possible(run, space)["objective"] if _needs_base(name)]
    if needing and isinstance(model, PretrainedModel) and model.base is None:
        raise UserError(f"model.base: missing: {needing[0]} needs the checkpoint that model.path was made from")


def _needs_base(objective: str) -> bool:
    return objective in Objective.registered and Objective.registered[objective].needs_base


def check_benchmark(benchmark: BenchmarkConfig, model: AnyModel, run: Run, space: Space) -> None:
    """Refuse what the benchmark cannot have: refusals or instructions without questions, an oracle that it does not
    compare with, a model that is too short for its sequences, alternatives by a start model that is sharded."""
    if not benchmark.has_questions:
        refuse_asking(possible(run, space)["objective"], benchmark.name)
    if benchmark.generates_alternatives:
        _check_whole_start(run, space)
    alone = model.oracle if isinstance(model, PretrainedModel) else isinstance(model, FinetunedModel) and model.path
    if alone and "oracle" not in benchmark.compared_with:
        raise UserError(f"model.oracle: {benchmark.name} compares with {benchmark.comparison}: leave it out")
    length = benchmark.sequence_length
    if isinstance(model, EmbeddedModel) and model.max_length < length:
        raise UserError(f"model.max_length is {model.max_length}, but benchmark.length is {length}: raise it")


def refuse_asking(objectives: Iterable[str], data: str) -> None:
    """Raise UserError for the first of `objectives` that needs questions, for `data` without any."""
    asking = [name for name, objective in Objective.registered.items() if objective.needs_questions]
    for name in objectives:
        if name in asking:
            known = ", ".join(sorted(Objective.registered.keys() - set(asking)))
            raise UserError(f"objective.name: {name} needs questions, and {data} has none: choose from {known}")


def refuse_asking_audits(audits: Audits, data: str) -> None:
    """Raise UserError for the first audit that asks questions, of `data` without any."""
    for name, audit in audits.asked().items():
        if audit.needs_questions:
            known = sorted(other for other, kind in Audit.registered.items() if not kind.needs_questions)
            raise UserError(f"audits.{name}: {data} asks no questions: choose from {', '.join(known)}")


def _check_whole_start(run: Run, space: Space) -> None:
    """Refuse alternatives that the start model makes where a trial would shard it."""
    searched, fixed = space.get("engine.stage"), run.get("engine", {}).get("stage", 0)
    if 3 in (searched.ends().values() if searched else [fixed]):
        for name in possible(run, space)["objective"]:
            if Objective.registered[name].needs_alternatives:
                raise UserError(
                    f"benchmark.alternatives: {GENERATED} asks the start model, which engine.stage 3 shards: take stage"
                    f" 0, 1 or 2, or give a file, {PERTURBED} or {RULE}"
                )


def check_stages(
    benchmark: BenchmarkConfig, audits: Audits | None, confirm: Confirm | None, compare: Compare | None
) -> None:
    """Refuse `confirm` and `audits` for a comparison, which has many fronts, and audits for benchmarks without
    questions."""
    for key, given in (("confirm", confirm), ("audits", audits)):
        if given and compare:
            raise UserError(f"{key}: a comparison registers no one front: take it out with --set {key}=null")
    check_audits(benchmark, audits)


def check_audits(benchmark: BenchmarkConfig, audits: Audits | None) -> None:
    """Refuse audits that no data of this benchmark allow."""
    if audits is None:
        return
    if not benchmark.has_questions:
        refuse_asking_audits(audits, benchmark.name)
    for audit in audits.asked().values():
        audit.check_benchmark(benchmark)


def check_verdict(criteria: Mapping[str, Criterion], benchmark: BenchmarkConfig, tasks: Iterable[str]) -> None:
    """Refuse criteria on metrics that neither a run nor an audit of this benchmark reports, or that a start model has
    no value of where the bound is relative."""
    known = benchmark.known_metrics(tasks)
    audited = audited_metrics(benchmark)
    for name, criterion in criteria.items():
        if name not in known and name not in audited:
            raise unknown_name("metric in verdict", name, {**known, **(audited if name.startswith("audit_") else {})})
        relative = any(bound.of for bound in criterion.bounds().values())
        if relative and name in known and known[name].cost:
            raise UserError(f"verdict.{name}: start model and oracle have no {name}: give a number as its bound")
        check_verdict(criterion.instead, benchmark, tasks)


BASELINE_FIELDS = ("engine.precision", "engine.quantisation", "engine.device")
BASELINE_REASON = "start model and oracle are scored once, as the trials are, so a study has one of it"


def check_run_and_space(run: Run, space: Space) -> None:
    """Refuse values and ranges that no trial of the study could have."""
    _check_sections(run)
    _check_names(run, space)
    names = possible(run, space)
    fixed = dict(_leaves(run))
    if both := sorted(fixed.keys() & space.keys()):
        raise UserError(f"run.{both[0]}: is searched by space.{both[0]} as well: take one of them out")
    for key, value in fixed.items():
        for model, field in _owners("run", key, names):
            if reason := refusal(model, nested(field, value), field_of(model, field)):
                raise UserError(f"run.{key}: {reason}, given {value!r}")
    for key, parameter in space.items():
        if key.startswith("evaluation."):
            raise UserError(
                f"space.{key}: start model and oracle are scored once, so trials share one evaluation: set run.{key}"
            )
        if key in BASELINE_FIELDS:
            raise UserError(f"space.{key}: {BASELINE_REASON}: set run.{key}")
        _check_parameter(key, parameter, names)
    for section, keys in (("run", fixed), ("space", space)):
        for key in keys:
            _check_read(section, key, names["objective"])
            _check_used(section, key, run, space, _owners(section, key, names))
    _check_quantised(run, space, names)
    _check_stage(run, space, names)
    _check_corners(run, space)


def _check_quantised(run: Run, space: Space, names: dict[str, list[str]]) -> None:
    """Refuse a quantised base where a trial could train its weights or shard them: 4-bit weights do neither."""
    engine = run.get("engine", {})
    if engine.get("quantisation") is None:
        return
    key = f"run.engine.quantisation: {engine['quantisation']} trains adapters on a frozen base"
    for name in names["objective"]:
        if "adapter" in Objective.registered[name].ignored_fields:
            raise UserError(f"{key}, and the objective {name} has no adapter: take one of them out")
    low_rank = sorted(name for name, model in variants("adapter").items() if issubclass(model, Lora))
    for name in names["adapter"]:
        if name not in low_rank:
            raise UserError(f"{key}, and adapter.name {name} trains the base: choose from {', '.join(low_rank)}")
    searched = space.get("engine.stage")
    if 3 in (searched.ends().values() if searched else [engine.get("stage")]):
        raise UserError(f"{key}, which engine.stage 3 would shard: choose from 0, 1, 2")


def _check_stage(run: Run, space: Space, names: dict[str, list[str]]) -> None:
    """Refuse an optimizer under a ZeRO stage that it cannot do, in any trial."""
    if all("optimizer" in Objective.registered[name].ignored_fields for name in names["objective"]):
        return
    searched, fixed = space.get("engine.stage"), run.get("engine", {}).get("stage", 0)
    for name in names["optimizer"]:
        allowed = Optimizer.registered[name].stages
        for stage in searched.ends().values() if searched else [fixed]:
            if stage not in allowed:
                known = " or ".join(map(str, allowed))
                raise UserError(f"optimizer.name: {name} needs engine.stage {known}, given {stage}")


def _check_sections(run: Run) -> None:
    for family, given in run.items():
        if family not in Recipe.model_fields:
            raise unknown_name("run key", family, Recipe.model_fields)
        if variants(family) and not isinstance(given, dict):
            raise UserError(f"run.{family}: must be a section with keys of its own, given {given!r}")


def _check_names(run: Run, space: Space) -> None:
    for family in Recipe.model_fields:
        known = [name for name in variants(family) if name]
        given = run.get(family, {}).get("name") if known else None
        if given is not None and given not in known:
            raise unknown_name(f"run.{family}.name", str(given), known)
        searched = space.get(f"{family}.name")
        if not known or searched is None:
            continue
        if not isinstance(searched, Choice):
            raise UserError(f"space.{family}.name.type: must be choice: choose from {', '.join(sorted(known))}")
        for name in searched.choices:
            if name not in known:
                raise unknown_name(f"choice in space.{family}.name", str(name), known)


def _leaves(run: Run) -> Iterator[tuple[str, Any]]:
    """Yield every fixed value with its dotted key."""
    for family, given in run.items():
        if variants(family):
            yield from ((f"{family}.{field}", value) for field, value in given.items())
        else:
            yield family, given


def _owners(section: str, key: str, names: dict[str, list[str]]) -> list[tuple[type[BaseModel], str]]:
    """Return the models, among those that the study can choose, that have this key's field, with the field's name.
    Raises UserError where none has it."""
    family, dot, field = key.partition(".")
    if names.get(family) == [] and not dot:
        return [(Recipe, family)]
    models = variants(family) if names.get(family) else {}
    owning = [models[name] for name in names.get(family, [])]
    if owners := [(model, field) for model in owning if field_of(model, field) in model.model_fields]:
        return owners
    known = sorted(_keys(names, family if models else None))
    if having := [name for name, model in models.items() if field in model.model_fields]:
        others = f"{' and '.join(having)} {'has' if len(having) == 1 else 'have'}"
        raise UserError(
            f"{section}.{key}: {', '.join(names[family])} has no {field}, {others}: take it out with "
            f"--set {section}.{key}=null, or choose from {', '.join(known)}"
        )
    raise unknown_name(f"{section} key", key, known)


def _keys(names: dict[str, list[str]], only: str | None = None) -> Iterator[str]:
    """Yield every dotted key that some possible recipe has, of one family where `only` is given."""
    for family, given in names.items():
        if only in (None, family):
            yield from dict.fromkeys(f"{family}.{f}" for name in given for f in variants(family)[name].model_fields)
            if not given:
                yield family


def _check_parameter(key: str, parameter: Parameter, names: dict[str, list[str]]) -> None:
    for model, field in _owners("space", key, names):
        if field == "name":  # each variant knows its own name only: see `_check_names`
            continue
        for where, value in parameter.ends().items():
            reason = refusal(model, nested(field, value), field_of(model, field))
            if reason and where == "between":
                raise UserError(f"space.{key}.type: {reason}, and a float range gives {value:g}")
            if reason:
                raise UserError(f"space.{key}.{where}: {reason}, given {value!r}")


def _check_read(section: str, key: str, objectives: list[str]) -> None:
    """Refuse a key that is ignored by every objective that the study can choose."""
    family = key.partition(".")[0]
    if all(family in Objective.registered[name].ignored_fields for name in objectives):
        out = f"run.{family}" if section == "run" else f"space.{key}"
        raise UserError(
            f"{section}.{key}: {', '.join(objectives)} reads no {family}: take it out with --set {out}=null"
        )


def _check_used(section: str, key: str, run: Run, space: Space, owners: list[tuple[type[BaseModel], str]]) -> None:
    """Refuse a field whose condition (`only_where`) holds in no trial."""
    family = key.partition(".")[0]

    def unmet(model: type[BaseModel], field: str) -> str | None:
        for other, values in field_condition(model, field_of(model, field)).items():
            searched = space.get(f"{family}.{other}")
            fixed = run.get(family, {}).get(other, model.model_fields[other].default)
            given = searched.choices if isinstance(searched, Choice) else (fixed,)
            if not set(values) & set(given):
                return f"needs {family}.{other} {' or '.join(map(str, values))}, given {', '.join(map(str, given))}"
        return None

    reasons = [unmet(model, field) for model, field in owners]
    if all(reasons):
        raise UserError(f"{section}.{key}: {reasons[0]}: take it out with --set {section}.{key}=null")


def _check_corners(run: Run, space: Space) -> None:
    """Refuse a study whose recipes all break a rule across fields: at both ends of every range, for every
    combination of variants. Where only some break one, such a trial is infeasible when it is met."""
    searched = [key for key in space if key.endswith(".name")]
    first: ValidationError | None = None
    for picked in product(*(space[key].ends().values() for key in searched)):
        for end in (0, -1):

            def suggest(key: str, parameter: Parameter, picked: Any = picked, end: int = end) -> Scalar:
                return picked[searched.index(key)] if key in searched else _end(parameter, end)

            try:
                Recipe.model_validate(assemble(run, space, suggest))
                return
            except ValidationError as error:
                first = first or error
    if first is not None:
        raise to_user_error(first, Recipe, "run.")


def _end(parameter: Parameter, end: int) -> Scalar:
    return parameter.choices[end] if isinstance(parameter, Choice) else (parameter.low, parameter.high)[end]


MEASURED = ("seconds", "cpu_seconds", "peak_memory_mb")  # by a clock or by the system: never twice the same


def check_first(first: tuple[Mapping[str, Any], ...], space: Mapping[str, Parameter]) -> None:
    """Refuse points of `search.first` with keys or values that the search could not propose itself."""
    for number, point in enumerate(first):
        where = f"search.first[{number}]"
        if not point:
            raise UserError(f"{where}: is empty: choose from {', '.join(sorted(space))}")
        for key, value in point.items():
            if key not in space:
                raise unknown_name(f"key in {where}", key, space)
            if reason := outside(space[key], value):
                raise UserError(f"{where}.{key}: {reason}, given {value!r}")
        if point in first[:number]:
            raise UserError(f"{where}: is the same point as search.first[{first.index(point)}]: take one of them out")


def outside(parameter: Parameter, value: Any) -> str | None:
    """Return why a parameter cannot have this value, or None."""
    if isinstance(parameter, Choice):
        known = any(type(value) is type(choice) and value == choice for choice in parameter.choices)
        return None if known else f"must be one of {', '.join(map(str, parameter.choices))}"
    kind = (int, float) if isinstance(parameter, FloatRange) else int
    if isinstance(value, bool) or not isinstance(value, kind) or not parameter.low <= value <= parameter.high:
        number = "a number" if isinstance(parameter, FloatRange) else "a whole number"
        return f"must be {number} from {parameter.low:g} to {parameter.high:g}"
    return None


def check_rungs(stopping: AnyStopping, goals: Mapping[str, Goal], benchmark: BenchmarkConfig) -> None:
    """Refuse early stopping by metrics that no report has, audits' among them, which come with a trial's end."""
    known = benchmark.metrics
    if isinstance(stopping, MoAsha) and not stopping.metrics and goals.keys() <= audited_metrics(benchmark).keys():
        raise UserError(
            "early_stopping.metrics: none, and audits measure the objectives when a trial has ended: choose from "
            f"{', '.join(sorted(known))}"
        )
    for name in _compared(stopping):
        if name not in known:
            raise unknown_name("metric in early_stopping.metrics", name, known)


def _compared(stopping: AnyStopping) -> tuple[str, ...]:
    return (stopping.metrics or ()) if isinstance(stopping, MoAsha) else ()


def check_repeatable(search: Search, goals: Mapping[str, Goal], stopping: AnyStopping, stop: Stop) -> None:
    """Refuse a deterministic order where a clock decides."""
    if search.order == "free":
        return
    for name in (*goals, *_compared(stopping)):
        if name in MEASURED:
            raise UserError(f"search.order: {name} is measured, so a study over it cannot be repeated: use free")
    if stop.seconds is not None:
        raise UserError("search.order: a study that ends by the clock cannot be repeated: use free, or stop.no_growth")


def check_learning(search: Search) -> None:
    """Refuse to start warm with a sampler that does not learn from other studies' trials."""
    if search.warm_start and not Sampler.registered[search.sampler].learns_from_others:
        learning = " or ".join(name for name, sampler in Sampler.registered.items() if sampler.learns_from_others)
        raise UserError(
            f"search.warm_start: {search.sampler} does not learn from another study's trials: use {learning}"
        )


def check_gpus(gpus_per_worker: float, run: Run) -> None:
    """Refuse groups of several workers that share a GPU, which NCCL cannot connect."""
    workers = run.get("engine", {}).get("workers", 1)
    if gpus_per_worker < 1 and workers > 1:
        raise UserError(
            f"resources.gpus_per_worker: {gpus_per_worker:g} puts several groups of one worker on a GPU, given "
            f"run.engine.workers {workers}: set one of them to 1"
        )


def check_arms(runs: Iterable[Run]) -> None:
    """Refuse arms of a comparison that differ in what their common baselines are measured with."""
    runs = list(runs)
    for key in BASELINE_FIELDS:
        family, _, field = key.partition(".")
        given = {run.get(family, {}).get(field) for run in runs}
        if len(given) > 1:
            raise UserError(f"compare.arms: run.{key} differs: {BASELINE_REASON}: set it in the study's run")


def check_comparison(search: Search) -> None:
    """Refuse settings that would give one arm of a comparison an advantage over the others."""
    for key in ("first", "warm_start"):
        if getattr(search, key):
            raise UserError(f"search.{key}: a comparison searches every arm alike: take it out")
