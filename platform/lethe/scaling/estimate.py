"""Estimates for a dry run, from the model's shape: memory of a rank, disk, and time of training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lethe.config.adapter import Lora
from lethe.config.model import AnyModel, EmbeddedModel
from lethe.config.run import Recipe
from lethe.config.study import Study
from lethe.errors import UserError
from lethe.scaling.memory import BYTES, Layout, peak
from lethe.scaling.plan import RATE, UTILISATION
from lethe.scaling.transformer import BatchShape, Transformer, step_flops
from lethe.study.inputs import Inputs

LENGTH, ANSWER, FORGET_ROWS = 128, 64, 400  # assumed where no row can be tokenised, and printed; TOFU's forget10
# FLOP/s of a core in training steps: measured 27e9 at 1M parameters and 70e9 at 135M, with 97e9 in matrix products.
CPU_RATE = 5e10


@dataclass(frozen=True)
class _Rows:
    """The forget rows of a study: their number, and the mean tokens of one and of its answer. `note`: what of this is
    assumed."""

    count: int
    length: int
    answer: int
    note: str = ""

    @classmethod
    def of(cls, inputs: Inputs) -> _Rows:
        lengths = inputs.row_lengths()
        count = 0 if inputs.benchmark is None else len(inputs.benchmark.forget_questions)
        if lengths:
            length, answer = (round(sum(column) / len(lengths)) for column in zip(*lengths, strict=True))
            return cls(count, length, answer)
        if count:
            return cls(count, LENGTH, ANSWER, " (tokens assumed)")
        return cls(FORGET_ROWS, LENGTH, ANSWER, " (assumed)")


def describe_needs(study: Study, recipes: list[Recipe], inputs: Inputs) -> str:
    """Return one line per kind of need, the largest over `recipes`; for a model whose shape is not known, one line that
    says so."""
    try:
        shape = shape_of(study.model, inputs.start)
    except UserError as error:
        return f"memory, disk and time: not known ({error})"
    rows = _Rows.of(inputs)
    memory, recipe = max(((_peak(shape, recipe, rows), recipe) for recipe in recipes), key=lambda pair: pair[0])
    trained = shape.parameters
    if isinstance(recipe.adapter, Lora):
        trained = sum(shape.adapters(recipe.adapter.rank))
    checkpoint, model = 12 * trained, BYTES[recipe.engine.precision] * trained
    hours = max(_hours(shape, recipe, rows) for recipe in recipes)
    return "\n".join(
        [
            f"{shape.parameters / 1e6:.3g}M parameters; {rows.count} forget rows of {rows.length} tokens,"
            f" {rows.answer} of them answer{rows.note}",
            f"memory  {_size(memory)} of tensors per worker at the peak of a step (evaluation not counted)",
            f"disk    {_size(checkpoint)} per running trial for its checkpoint, {_size(model)} per saved model",
            f"time    {_time(hours)} of training for the longest trial (evaluation not counted)",
        ]
    )


def shape_of(model: AnyModel, start: Path | None = None) -> Transformer:
    """Return the shape of a study's start model, whose config.json is in `start` unless it is an embedded one. Raises
    UserError where no file on this machine has it."""
    if isinstance(model, EmbeddedModel):
        return Transformer.of_embedded(model)
    if start is None:
        raise UserError("the start model is not on this machine")
    return Transformer.of_config(json.loads((start / "config.json").read_text(encoding="utf-8")))


def _peak(shape: Transformer, recipe: Recipe, rows: _Rows) -> float:
    engine, schedule = recipe.engine, recipe.schedule
    count = -(-schedule.batch_size // (engine.workers * schedule.accumulation))
    return peak(shape, Layout.of(recipe), BatchShape.uniform(2 * count, rows.length, rows.answer)).total


def _hours(shape: Transformer, recipe: Recipe, rows: _Rows) -> float:
    engine, schedule = recipe.engine, recipe.schedule
    rank = recipe.adapter.rank if isinstance(recipe.adapter, Lora) else None
    flops = step_flops(shape, BatchShape.uniform(2 * schedule.batch_size, rows.length, rows.answer), rank)
    steps = schedule.epochs * -(-rows.count // schedule.batch_size)
    steps = min(steps, schedule.max_steps or steps)
    rate = RATE * UTILISATION[0] if engine.device == "cuda" else CPU_RATE * engine.threads
    return flops * steps / rate / engine.workers / 3600


def _time(hours: float) -> str:
    return f"{hours:.2g} h" if hours >= 1 else f"{60 * hours:.2g} min"


def _size(count: float) -> str:
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
