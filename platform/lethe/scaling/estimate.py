"""Estimates for a dry run, from the model's shape: memory of a rank, disk, and time of training."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from lethe.config.adapter import Lora
from lethe.config.benchmark import EMBEDDED, TofuBenchmark
from lethe.config.model import AnyModel, EmbeddedModel, FinetunedModel
from lethe.config.objective import WithRetain
from lethe.config.run import Recipe
from lethe.config.search import AnyHalving
from lethe.config.study import Member, Study
from lethe.errors import UserError
from lethe.models.transformer import BatchShape, Transformer, newton_schulz_flops, step_flops
from lethe.scaling.memory import BYTES, Layout, offloaded, peak
from lethe.scaling.plan import RATE, UTILISATION
from lethe.study.finetuning import Training, recipe_of
from lethe.study.inputs import Inputs

LENGTH, ANSWER, FORGET_ROWS = 128, 64, 400  # assumed where no row can be tokenised, and printed; TOFU's forget10
# Mean tokens of the embedded benchmark's forget rows and of their answers: its tokenizer is trained with the model.
EMBEDDED_LENGTH, EMBEDDED_ANSWER = 31, 19
# FLOP/s of a core in training steps: measured 27e9 at 1M parameters and 70e9 at 135M, with 97e9 in matrix products.
CPU_RATE = 5e10
STEP_S = 0.01  # seconds of a step beside its FLOPs: .012 measured with 0.02M parameters on one core


@dataclass(frozen=True)
class _Rows:
    """The forget rows of a study: their number, the mean tokens of one and of its answer, and those of the longest, 0
    where they are not known. `note`: what of this is assumed."""

    count: int
    length: int
    answer: int
    longest: int = 0
    note: str = ""

    @classmethod
    def of(cls, inputs: Inputs, study: Study) -> _Rows:
        lengths = inputs.row_lengths()
        count = 0 if inputs.benchmark is None else len(inputs.benchmark.forget_questions)
        if lengths:
            length, answer = (round(sum(column) / len(lengths)) for column in zip(*lengths, strict=True))
            return cls(count, length, answer, max(length for length, _ in lengths))
        tofu = isinstance(study.benchmark, TofuBenchmark) and study.benchmark.source == EMBEDDED
        if count and tofu and isinstance(study.model, EmbeddedModel):
            return cls(count, EMBEDDED_LENGTH, EMBEDDED_ANSWER, note=" (tokens as measured before)")
        if count:
            return cls(count, LENGTH, ANSWER, note=" (tokens assumed)")
        return cls(FORGET_ROWS, LENGTH, ANSWER, note=" (assumed)")

    def batch(self, rows: int) -> BatchShape:
        """Return a batch of so many of them."""
        return BatchShape.uniform(rows, self.length, self.answer)


def describe_needs(study: Study, recipes: list[Recipe], inputs: Inputs, trainings: Sequence[Training] = ()) -> str:
    """Return one line per kind of need, the largest over `recipes`, with that of the `trainings` before the trials; for
    a model whose shape is not known, one line that says so."""
    try:
        shape = shape_of(study.model, inputs.start)
    except UserError as error:
        return f"memory, disk and time: not known ({error})"
    rows = _Rows.of(inputs, study)
    memory, recipe = max(
        ((_peak(shape, recipe, rows, _sides(recipe)), recipe) for recipe in recipes), key=lambda pair: pair[0]
    )
    trained = shape.parameters
    if isinstance(recipe.adapter, Lora):
        trained = sum(shape.adapters(recipe.adapter.rank))
    checkpoint, model = 12 * trained, BYTES[recipe.engine.precision] * trained
    hours = max(_hours(shape, recipe, rows, _sides(recipe), _steps(recipe, rows)) for recipe in recipes)
    away = offloaded(shape, Layout.of(recipe))
    lines = [
        f"{shape.parameters / 1e6:.3g}M parameters; {rows.count} forget rows of {rows.length} tokens,"
        f" {rows.answer} of them answer{rows.note}",
        f"memory  {_size(memory)} of tensors per worker at the peak of a step (evaluation not counted)"
        + (f", {_size(away)} in the CPU's" if away else ""),
        f"disk    {_size(checkpoint)} per running trial for its checkpoint, {_size(model)} per saved model",
        f"time    {_time(hours)} of training for the longest trial (evaluation not counted)",
    ]
    limits = {"run.schedule.micro_tokens": {recipe.schedule.micro_tokens for recipe in recipes}}
    if isinstance(study.model, FinetunedModel) and trainings:
        before = recipe_of(study, study.model)
        times = {training.name: _hours(shape, before, rows, 1, training.steps) for training in trainings}
        told = ", ".join(f"{_time(hours)} for the {name}" for name, hours in times.items())
        together = " (side by side where there are groups for both)" if len(times) > 1 else ""
        lines.append(f"before  {told} to be trained{together}, {_size(_peak(shape, before, rows, 1))} per worker")
        limits["model.micro_tokens"] = {study.model.micro_tokens}
    lines += [
        f"note    {key} is {most} and the longest forget row has {rows.longest} tokens: rows are never cut, such ones"
        " make a micro-batch of their own"
        for key, values in limits.items()
        for most in sorted(value for value in values if value and value < rows.longest)
    ]
    return "\n".join(lines)


def describe_study_time(
    study: Study, recipes: list[Recipe], inputs: Inputs, measured: tuple[str, float] | None = None
) -> str:
    """Return one line on how long all trials take on this machine: from the mean seconds of a trial of an earlier study
    (`measured`: its id, the seconds), else from an estimate of the training alone."""
    trials = sum(member.study.search.trials for member in study.members()) or study.search.trials
    groups = _groups(study, recipes, trials)
    at_once = f"{groups} at once" if groups > 1 else "one after another"
    if measured:
        name, seconds = measured
        total = _time(-(-trials // groups) * seconds / 3600)
        return f"study   about {total} for {trials} trials, {at_once}: {_time(seconds / 3600)} each, as in {name}"
    try:
        shape = shape_of(study.model, inputs.start)
    except UserError:
        return f"study   time of {trials} trials: not known"
    rows = _Rows.of(inputs, study)
    hours = max(_hours(shape, recipe, rows, _sides(recipe), _steps(recipe, rows)) for recipe in recipes)
    total = _time(-(-trials // groups) * hours)
    if isinstance(study.early_stopping, AnyHalving):
        return (
            f"study   {total} of training for {trials} trials, {at_once}, if none stops early; evaluation comes on top"
        )
    return f"study   at least {total} for {trials} trials, {at_once}: evaluation comes on top and may take longer"


def describe_after_search(study: Study, recipes: list[Recipe], measured: tuple[str, float] | None = None) -> str:
    """Return one line on the runs with fresh seeds and the audits that follow the search, at most so many, and the time
    of those runs where that of a trial is `measured`; empty where the study asks for neither."""
    if not (study.confirm or study.audits):
        return ""
    members = study.members() or (Member("", 0, study),)
    trials: dict[str, int] = {}
    for member in members:
        trials[member.arm] = trials.get(member.arm, 0) + member.study.search.trials
    most = study.most_members()
    models = sum(min(count, most or count) for count in trials.values())
    of = f" of {len(trials)} arms' fronts" if study.compare else " of the front"
    parts = []
    if study.confirm:
        runs = models * study.confirm.seeds
        took = f", about {_time(-(-runs // _groups(study, recipes, runs)) * measured[1] / 3600)}" if measured else ""
        parts.append(f"{runs} runs with fresh seeds ({study.confirm.seeds} for each of {models} members{of}){took}")
    if study.audits:
        costs = "; ".join(f"{name}: {audit.cost()}" for name, audit in study.audits.asked().items())
        parts.append(f"audits of {models} members{of}, start model and oracle, each {costs}")
    return f"after   at most {'; then '.join(parts)}"


def _groups(study: Study, recipes: list[Recipe], runs: int) -> int:
    """Return how many of the runs this machine does at once."""
    engine = max((recipe.engine for recipe in recipes), key=lambda engine: engine.workers * engine.threads)
    fitting = 1 if engine.device == "cuda" else (os.cpu_count() or 1) // (engine.workers * engine.threads)
    return max(1, min(runs, study.resources.groups or fitting))


def shape_of(model: AnyModel, start: Path | None = None) -> Transformer:
    """Return the shape of a study's start model, whose config.json is in `start` unless it is an embedded one. Raises
    UserError where no file on this machine has it."""
    if isinstance(model, EmbeddedModel):
        return Transformer.of_embedded(model)
    if start is None:
        raise UserError("the start model is not on this machine")
    return Transformer.of_config(json.loads((start / "config.json").read_text(encoding="utf-8")))


def _sides(recipe: Recipe) -> float:
    """Return the rows in a step per forget row: itself and the retain rows beside it."""
    without = isinstance(recipe.objective, WithRetain) and recipe.objective.retain == "none"
    return 1 if without else 1 + recipe.schedule.retain_ratio


def _peak(shape: Transformer, recipe: Recipe, rows: _Rows, sides: float) -> float:
    """Return the bytes of a step; `sides`: rows in it per forget row, 1 where these stand alone."""
    engine, schedule = recipe.engine, recipe.schedule
    count = -(-schedule.batch_size // (engine.workers * schedule.accumulation))
    if schedule.micro_tokens:
        count = max(1, min(count, int(schedule.micro_tokens // (sides * rows.length))))
    return peak(shape, Layout.of(recipe), rows.batch(ceil(sides * count))).total


def _hours(shape: Transformer, recipe: Recipe, rows: _Rows, sides: float, steps: int) -> float:
    """Return the hours of `steps` steps; `sides` as in `_peak`."""
    engine = recipe.engine
    rank = recipe.adapter.rank if isinstance(recipe.adapter, Lora) else None
    batch = rows.batch(ceil(sides * recipe.schedule.batch_size))
    flops = step_flops(shape, batch, rank, checkpointing=engine.gradient_checkpointing, passes=recipe.optimizer.passes)
    rate = RATE * UTILISATION[0] if engine.device == "cuda" else CPU_RATE * engine.threads
    alone = newton_schulz_flops(shape, rank, recipe.optimizer.newton_schulz)
    return steps * (STEP_S + (flops / engine.workers + alone) / rate) / 3600


def _steps(recipe: Recipe, rows: _Rows) -> int:
    schedule = recipe.schedule
    steps = schedule.epochs * -(-rows.count // schedule.batch_size)
    return min(steps, schedule.max_steps or steps)


def _time(hours: float) -> str:
    for unit, per_hour in (("h", 1), ("min", 60), ("s", 3600)):
        if hours * per_hour >= 1:
            return f"{hours * per_hour:.2g} {unit}"
    return "less than a second"


def _size(count: float) -> str:
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
