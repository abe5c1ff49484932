"""A run is a value: everything that determines its result, and nothing else."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lethe.config.adapter import AnyAdapter, Lora
from lethe.config.base import Frozen
from lethe.config.engine import Engine
from lethe.config.evaluation import Evaluation
from lethe.config.method import unread
from lethe.config.objective import AnyObjective, Npo
from lethe.config.optimizer import AdamW, AnyOptimizer
from lethe.config.schedule import Schedule


class Recipe(Frozen):
    """The part of a run that a search may change."""

    objective: AnyObjective = Npo()
    optimizer: AnyOptimizer = AdamW()
    adapter: AnyAdapter = Lora()
    schedule: Schedule = Schedule()
    engine: Engine = Engine()
    evaluation: Evaluation = Evaluation()
    seed: int = Field(0, ge=0)

    def kept(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Without what the objective does not read, so that trials which do the same have the same digest."""
        return {key: value for key, value in super().kept(dumped).items() if key not in unread(type(self.objective))}


class Digests(Frozen):
    """Content digests of what a run reads: never paths."""

    data: str
    model: str
    oracle: str | None = None
    base: str | None = None


class UnlearnRun(Frozen):
    """One unlearning run; its digest names the trial, its MLflow run and its folder."""

    schema_version: Literal[1] = 1
    recipe: Recipe
    digests: Digests
