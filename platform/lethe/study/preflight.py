"""Checks of a study before its first trial: data, adapters on the model's shapes, rows, devices."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lethe.benchmarks.base import AnyTask, Benchmark, load_benchmark
from lethe.config.adapter import Lora, Vila
from lethe.config.devices import this_device, torch_has_cuda
from lethe.config.model import EmbeddedGptNeo, EmbeddedModel
from lethe.config.objective import Method, Objective, Pdu
from lethe.config.prompt import Prompt
from lethe.config.run import Digests, Recipe
from lethe.config.search import Search
from lethe.config.space import Choice, Parameter, Scalar, build_recipe, possible
from lethe.config.study import Study
from lethe.config.validation import refuse_asking, refuse_asking_audits, refuse_needing
from lethe.data.refusals import NO_ALTERNATIVES, NO_REFUSALS
from lethe.errors import UserError, first_line
from lethe.models.layer_names import check_targets
from lethe.models.model_files import CONFIG, read_json
from lethe.storage.paths import require_database
from lethe.study.preparation import Prepared, model_folders, named_models

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_place(search: Search) -> None:
    """Raise UserError if the storage root holds objects, which hold no database, and `search.storage` names none."""
    if not search.storage:
        require_database("search.storage", "name one, such as postgresql://host/lethe")


def corners(study: Study) -> list[Recipe]:
    """Return recipes of every combination of variants, each with all numbers at their smallest and at their largest."""
    return [recipe for part in study.parts() for recipe in _corners(part)]


def _corners(study: Study) -> list[Recipe]:
    recipes = []
    names = {key: p.choices for key, p in study.space.items() if key.endswith(".name") and isinstance(p, Choice)}
    for picked in product(*names.values()):
        chosen = dict(zip(names, picked, strict=True))
        for extreme in (min, max):

            def suggest(
                name: str,
                parameter: Parameter,
                chosen: dict[str, Scalar] = chosen,
                extreme: Callable[..., Scalar] = extreme,
            ) -> Scalar:
                if name in chosen:
                    return chosen[name]
                if isinstance(parameter, Choice):
                    return extreme(parameter.choices, key=lambda v: v if isinstance(v, int | float) else 0)
                return extreme((parameter.low, parameter.high))

            recipes.append(build_recipe(study.run, study.space, suggest))
    return recipes


def check_data(study: Study, benchmark: Benchmark) -> None:
    """Raise UserError if an objective trains towards refusals or alternatives, or an audit or an objective measures
    rows, that the benchmark does not have, and for rows on which a metric would mean nothing."""
    benchmark.check_rows(study.first_recipe().evaluation)
    audits = [asked for asked in (study.audits, study.trial_audits()) if asked]
    forget_rows = benchmark.forget_count(study.first_recipe().evaluation) if audits else 0
    for audit in (audit for asked in audits for audit in asked.asked().values()):
        audit.check_data(benchmark, study.benchmark.data_name, forget_rows)
    for need in benchmark.missing:
        remedy = f"needs {need} rows, and {study.benchmark.data_name} has none"
        refuse_needing(need, remedy, study.objectives, study.benchmark)
    objectives = [name for part in study.parts() for name in possible(part.run, part.space)["objective"]]
    if not benchmark.has_questions:
        refuse_asking(objectives, study.benchmark.data_name)
        for asked in audits:
            refuse_asking_audits(asked, study.benchmark.data_name)
    known = Objective.registered
    refusing = {name for name, objective in known.items() if objective.needs_refusals}
    has_others = benchmark.alternatives or study.benchmark.generates_alternatives
    without = set() if has_others else {n for n, objective in known.items() if objective.needs_alternatives}
    for name in objectives:
        if name in without:
            raise UserError(f"objective.name: {name} trains towards other answers, and {NO_ALTERNATIVES}")
        if name in refusing and not benchmark.refusals:
            raise UserError(
                f"objective.name: {name} answers with refusals, but {NO_REFUSALS.format(study.benchmark.data_name)}: "
                f"choose from {', '.join(sorted(known.keys() - refusing - without))}"
            )


def check_files(study: Study) -> None:
    """Raise UserError for what files and settings tell: objectives without their rows, ranks larger than a layer,
    targets that match nothing, rows that a model cannot read. Call it after `locate`, before Ray starts."""
    benchmark = load_benchmark(study.benchmark)
    check_data(study, benchmark)
    if isinstance(study.model, EmbeddedModel):
        check_shapes(study, None)
        return
    folders = model_folders(study.model, study.tracking.uri)
    start, *_ = folders.values()
    digests = Digests(data=benchmark.digest, model="")  # which nothing here reads
    check_model(study, Prepared(benchmark, start, folders.get("model.oracle"), folders.get("model.base"), digests))


def check_adapters(study: Study) -> None:
    """Raise UserError for ranks larger than the model's width and for targets that its family lacks, by its
    configuration alone. It takes no time: torch is not imported. `check_model` knows the exact layers."""
    if isinstance(study.model, EmbeddedModel):
        gpt_neo = isinstance(study.model, EmbeddedGptNeo)
        config = {"hidden_size": study.model.hidden_size, "model_type": "gpt_neo" if gpt_neo else "llama"}
    else:
        start = next(iter(named_models(study.model).values()))
        path = Path(start).expanduser() / CONFIG
        config = read_json(path) if path.is_file() else {}
    width: object = next((config[key] for key in ("hidden_size", "n_embd", "d_model") if key in config), None)
    adapters = _adapters(study)
    ranks = [adapter.rank for adapter in adapters]
    if isinstance(width, int) and any(rank > width for rank in ranks):
        raise UserError(f"adapter.rank {max(ranks)} is larger than the model's width: choose at most {width}")
    for targets in dict.fromkeys(adapter.targets for adapter in adapters):
        check_targets(config.get("model_type"), targets)


def _adapters(study: Study) -> list[Lora]:
    """Return the low-rank adapters that a trial can have, those of small ranks first."""
    with_adapter = [r for r in corners(study) if "adapter" not in r.objective.ignored_fields]
    return sorted({r.adapter for r in with_adapter if isinstance(r.adapter, Lora)}, key=lambda adapter: adapter.rank)


def check_model(study: Study, prepared: Prepared) -> None:
    """Raise UserError for adapter targets that match nothing, ranks larger than a layer, dropout that cannot be
    switched off and rows that a model cannot read. No weights are loaded: shapes are enough."""
    check_shapes(study, prepared.start)
    _check_rows(study, prepared)


def check_shapes(study: Study, start: Path | None) -> None:
    """Raise UserError for adapters, layers of an objective and dropout that the start model in a folder cannot have, or
    without one the embedded model; no weights are loaded."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from lethe.models.pretraining import new_model

    with torch.device("meta"):
        if start is None and isinstance(study.model, EmbeddedModel):
            _check_shapes(study, new_model(study.model, study.model.vocab_size))
        if start is None:
            return
        try:
            config = AutoConfig.from_pretrained(str(start), trust_remote_code=False)
            build: Any = AutoModelForCausalLM.from_config  # transformers annotates nothing of it
            model = build(config, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            problem = f"transformers cannot read the model in {start}: {first_line(error)}"
            raise UserError(f"model.path: {problem}") from None
    _check_shapes(study, model)


def _check_shapes(study: Study, model: PreTrainedModel) -> None:
    """Raise UserError for adapters, layers of an objective and dropout that the model cannot have, and for an objective
    that trains nothing; its weights may be on the meta device."""
    from lethe.models.adapters import check_adapter
    from lethe.models.dropout import check_dropout
    from lethe.unlearning.objectives.base import make_loss

    for adapter in _adapters(study):
        check_adapter(model, adapter)
    for objective, of_objective in dict.fromkeys((r.objective, r.adapter) for r in corners(study)):
        if not isinstance(objective, Method):
            make_loss(objective).trains(model, of_objective)
    if any(not r.schedule.dropout for r in corners(study) if "schedule" not in r.objective.ignored_fields):
        check_dropout(model)
    if any("logit_lens" in audits.asked() for audits in (study.audits, study.trial_audits()) if audits):
        from lethe.models.layers import inner_layers

        inner_layers(model)


def task_of_start(prepared: Prepared, prompt: Prompt) -> AnyTask:
    """Return the benchmark as the start model reads it with this prompt. Raises UserError for rows that it cannot
    represent."""
    from transformers import AutoConfig

    from lethe.benchmarks.measurement import template_of
    from lethe.evaluation.context_length import ContextLimits

    config = AutoConfig.from_pretrained(str(prepared.start), trust_remote_code=False)
    limits = ContextLimits.of_config(config, f"the model in {prepared.start}")
    return prepared.benchmark.task(template_of(prepared.start, prompt), limits.vocabulary)


def _check_rows(study: Study, prepared: Prepared) -> None:
    """Raise UserError for a row, trained on or evaluated, that start model, oracle or base cannot read."""
    from transformers import AutoConfig

    from lethe.evaluation.context_length import ContextLimits, check_context_length
    from lethe.models.vila import check_variance

    models = [folder for folder in (prepared.start, prepared.oracle, prepared.base) if folder]
    configs = [AutoConfig.from_pretrained(str(folder), trust_remote_code=False) for folder in models]
    limits = [
        ContextLimits.of_config(config, f"the model in {folder}")
        for config, folder in zip(configs, models, strict=True)
    ]
    for limit in limits:
        if limit.context is not None:
            prepared.benchmark.check_context(limit.context, limit.name)
    task = task_of_start(prepared, study.prompt)
    rows = [*task.eval_set(study.first_recipe().evaluation).named_rows(), *task.named_rows()]
    for limit in limits:
        check_context_length(rows, limit, least=task.least_tokens)
    for adapter in _adapters(study):
        if isinstance(adapter, Vila):
            check_variance(task.forget, task.retain, adapter)


def check_gpu(study: Study) -> None:
    """Raise UserError if a run needs a GPU and this machine, where the study's own Ray will start, has none that torch
    can use."""
    if problem := without_gpu(study):
        raise UserError(problem)


def without_gpu(study: Study) -> str:
    """Return the words for a GPU that a run needs and this machine has not; nothing where it has one or none is
    needed."""
    if study.first_recipe().engine.device != "cuda" or this_device() == "cuda":
        return ""
    missing = "no GPU" if torch_has_cuda() else "a torch without CUDA"
    return f"run.engine.device is cuda, and this machine has {missing}: choose cpu, auto, or a cluster by RAY_ADDRESS"


def check_cores(study: Study) -> None:
    """Raise UserError if a run needs more cores than this machine has, where the study's own Ray will start."""
    engine = max((recipe.engine for recipe in corners(study)), key=lambda engine: engine.workers * engine.threads)
    needed, cores = engine.workers * engine.threads, os.cpu_count()
    if cores is not None and needed > cores:
        raise UserError(
            f"run.engine: {engine.workers} workers of {engine.threads} threads need {needed} cores, this machine has"
            f" {cores}: lower engine.workers or engine.threads, or name a cluster by RAY_ADDRESS"
        )


def check_devices(study: Study) -> None:
    """Raise UserError if a run needs a GPU and the cluster can have none, or more than the cluster can ever hold."""
    from lethe.pool.resources import Shape, require

    share = study.resources.gpus_per_worker
    for shape in dict.fromkeys(Shape.of(recipe.engine, share) for recipe in corners(study)):
        require(shape)


def warm_up_note(study: Study) -> str:
    """Return a line on runs of PDU that end within its warm-up; empty where there are none."""
    for objective, epochs in dict.fromkeys((r.objective, r.schedule.epochs) for r in corners(study)):
        if isinstance(objective, Pdu) and epochs <= objective.warmup_epochs:
            return (
                f"objective.warmup_epochs {objective.warmup_epochs} covers all of a run of {epochs} epochs: pdu's dual"
                " variable, the weight of its retain loss, never moves"
            )
    return ""
