"""How a run is executed: the DeepSpeed engine and its processes. All of it can change the last bits of a result.

How long a run trains and in what batches.

What is measured on an unlearned model, and how often.

How often a running trial writes down where it is, so that another attempt can go on from there.

A run is a value: everything that determines its result, and nothing else.
"""

from __future__ import annotations

from typing import Any, Literal

from lethe.config.adapter import AnyAdapter, Lora
from lethe.config.base import Frozen
from lethe.config.objective import AnyObjective, Npo, ignored_fields
from lethe.config.optimizer import AdamW, AnyOptimizer
from pydantic import Field


class Engine(Frozen):
    """DeepSpeed ZeRO stage, precision and the number of workers that share one model.

    Equal runs are bit-identical on the CPU; on CUDA the fused attention kernels add gradients in no fixed order.
    """

    stage: Literal[0, 1, 2, 3] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    workers: int = Field(1, ge=1)
    threads: int = Field(1, ge=1, description="CPU threads per worker")
    device: Literal["cpu", "cuda"] = "cpu"


class Schedule(Frozen):
    """An epoch is one pass over the forget rows, each paired with one random retain row."""

    epochs: int = Field(5, ge=1)
    max_steps: int | None = Field(None, ge=1, description="end after so many optimizer steps")
    batch_size: int = Field(20, ge=1, description="forget rows in one optimizer step, over all workers")
    accumulation: int = Field(1, ge=1, description="micro-batches per worker in one optimizer step")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of all steps with a rising learning rate")
    decay: bool = Field(True, description="linear decay to zero; false keeps the rate")
    clip_norm: float = Field(1.0, ge=0, description="largest gradient norm; 0: no clipping")


class LmEval(Frozen):
    """Tasks of lm-evaluation-harness (the extra `lm-eval`): each gives the metric `lm_eval_TASK`, which is the first of
    its metrics that is better when higher. Its own prompts, no chat template. `path`: see lethe.evaluation.lm_eval_tasks."""

    tasks: tuple[str, ...] = Field(min_length=1)
    path: str | None = Field(None, min_length=1, description="a folder with task files of your own, read as data")
    limit: int | None = Field(None, ge=1, description="documents per task; none: all")


class Evaluation(Frozen):
    """Rows are the first `max_rows` of each split; generation is greedy."""

    every: int = Field(1, ge=1, description="epochs between evaluations; the last epoch is always evaluated")
    max_rows: int | None = Field(None, ge=2, description="rows per split; none: all")
    max_new_tokens: int = Field(200, ge=1)
    token_budget: int = Field(8192, ge=64, description="padded tokens in one forward pass")
    lm_eval: LmEval | None = None
    gradnorm: bool = Field(False, description="mia_gradnorm: one backward pass a forget or holdout row, dear")


FOLDER = "checkpoint"  # in a run's folder


class Checkpoint(Frozen):
    """No part of a run: its result is the same to the bit however often it was interrupted. One checkpoint holds what
    trains three times over in fp32 (weights and two moments); the newest is kept, none when the trial has ended."""

    at_reports: bool = Field(True, description="after every evaluation")
    every_steps: int | None = Field(None, ge=1, description="optimizer steps")
    every_seconds: float | None = Field(300.0, gt=0, description="seconds since the last one; none: never by time")


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
        return {
            key: value for key, value in super().kept(dumped).items() if key not in ignored_fields(type(self.objective))
        }


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
