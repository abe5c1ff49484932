"""What a study will need, before it starts: memory of a rank, disk and hours of training, from the model's shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lethe.config.adapter import Lora
from lethe.config.model import EmbeddedModel
from lethe.config.run import Recipe
from lethe.config.study import Study
from lethe.errors import UserError
from lethe.scaling.memory import BYTES, Layout, peak
from lethe.scaling.plan import RATE, UTILISATION
from lethe.scaling.transformer import BatchShape, Transformer, step_flops

LENGTH, ANSWER, FORGET_ROWS = 128, 64, 400  # assumed, and printed: no row is tokenised yet; TOFU's forget10
CPU_RATE = 1.5e10  # FLOP/s of a core in training steps, assumed: a sixth of 97 GFLOP/s (docs/LOG.md)


def describe_needs(study: Study, recipes: list[Recipe]) -> str:
    """Return one line per kind of need, the largest over `recipes`; for a model whose shape is not known, one line that
    says so."""
    try:
        shape = shape_of(study.model)
    except UserError as error:
        return f"memory, disk and time: not known ({error})"
    memory, recipe = max(((_peak(shape, recipe), recipe) for recipe in recipes), key=lambda pair: pair[0])
    trained = shape.parameters
    if isinstance(recipe.adapter, Lora):
        trained = sum(shape.adapters(recipe.adapter.rank))
    checkpoint, model = 12 * trained, BYTES[recipe.engine.precision] * trained
    hours = max(_hours(shape, recipe) for recipe in recipes)
    return "\n".join(
        [
            f"{shape.parameters / 1e6:.3g}M parameters; assumed: {FORGET_ROWS} forget rows of {LENGTH} tokens, {ANSWER}"
            " of them answer",
            f"memory  {_size(memory)} of tensors per worker at the peak of a step (evaluation not counted)",
            f"disk    {_size(checkpoint)} per running trial for its checkpoint, {_size(model)} per saved model",
            f"time    {hours:.2g} h of training for the longest trial (evaluation not counted)",
        ]
    )


def shape_of(model: Any) -> Transformer:
    """Return the shape of a study's start model. Raises UserError where no file on this machine has it."""
    if isinstance(model, EmbeddedModel):
        return Transformer.of_embedded(model)
    name = getattr(model, "path", None) or getattr(model, "base", "")
    config = Path(str(name)).expanduser() / "config.json"
    if not config.is_file():
        raise UserError(f"{name} is no folder with a config.json")
    return Transformer.of_config(json.loads(config.read_text(encoding="utf-8")))


def _peak(shape: Transformer, recipe: Recipe) -> float:
    engine, schedule = recipe.engine, recipe.schedule
    rows = -(-schedule.batch_size // (engine.workers * schedule.accumulation))
    return peak(shape, Layout.of(recipe), BatchShape.uniform(2 * rows, LENGTH, ANSWER)).total


def _hours(shape: Transformer, recipe: Recipe) -> float:
    engine, schedule = recipe.engine, recipe.schedule
    rank = recipe.adapter.rank if isinstance(recipe.adapter, Lora) else None
    flops = step_flops(shape, BatchShape.uniform(2 * schedule.batch_size, LENGTH, ANSWER), rank)
    steps = schedule.epochs * -(-FORGET_ROWS // schedule.batch_size)
    steps = min(steps, schedule.max_steps or steps)
    rate = RATE * UTILISATION[0] if engine.device == "cuda" else CPU_RATE * engine.threads
    return flops * steps / rate / engine.workers / 3600


def _size(count: float) -> str:
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
