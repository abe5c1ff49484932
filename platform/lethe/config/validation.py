"""Checks across the sections of a study, before any trial: what cannot run or cannot be searched is refused.

Every function raises UserError with the key and the choices, and returns nothing where all is well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lethe.config.audit_objectives import SHORT_NAMES, audited_metrics
from lethe.config.audits import Audit, Audits
from lethe.config.benchmark import GENERATED, PERTURBED, RULE, BenchmarkConfig
from lethe.config.metrics import Need
from lethe.config.model import AnyModel, EmbeddedModel, FinetunedModel, PretrainedModel
from lethe.config.objective import Objective
from lethe.config.run_and_space import BASELINE_FIELDS, BASELINE_REASON, Run, Space, stages
from lethe.config.search import AnyHalving, AnyStopping, Goal, Sampler, Search, Stop
from lethe.config.space import possible
from lethe.config.verdict import Criterion
from lethe.errors import UserError, unknown_name


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
    if 3 in stages(run, space):
        for name in possible(run, space)["objective"]:
            if Objective.registered[name].needs_alternatives:
                raise UserError(
                    f"benchmark.alternatives: {GENERATED} asks the start model, which engine.stage 3 shards: take stage"
                    f" 0, 1 or 2, or give a file, {PERTURBED} or {RULE}"
                )


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


MEASURED = ("seconds", "cpu_seconds", "peak_memory_mb")  # by a clock or by the system: never twice the same


def check_rungs(stopping: AnyStopping, goals: Mapping[str, Goal], benchmark: BenchmarkConfig) -> None:
    """Refuse early stopping by metrics that no report has, audits' among them, which come with a trial's end."""
    known = benchmark.metrics
    if isinstance(stopping, AnyHalving) and not stopping.metrics and goals.keys() <= audited_metrics(benchmark).keys():
        raise UserError(
            "early_stopping.metrics: none, and audits measure the objectives when a trial has ended: choose from "
            f"{', '.join(sorted(known))}"
        )
    for name in _compared(stopping):
        if name not in known:
            raise unknown_name("metric in early_stopping.metrics", name, known)


def _compared(stopping: AnyStopping) -> tuple[str, ...]:
    return (stopping.metrics or ()) if isinstance(stopping, AnyHalving) else ()


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
