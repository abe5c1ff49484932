"""One run as a value: `UnlearnRun` holds everything that determines the result, and nothing else.

Its `Recipe` is the part that a search may change: objective, optimizer, adapter, schedule, engine, evaluation and seed.
`Checkpoint` says how often a running trial saves its state, which determines no result and is no part of a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from lethe.config.adapter import AnyAdapter, Lora
from lethe.config.base import OMITTED_AT_DEFAULT, Frozen
from lethe.config.objective import AnyObjective, Npo
from lethe.config.optimizer import AdamW, AnyOptimizer

Quantisation = Literal["nf4"]
Offload = Literal["none", "optimizer", "parameters"]
Stage = Literal[0, 1, 2, 3]
OFFLOAD_STAGES: Mapping[Offload, tuple[Stage, ...]] = {"none": (0, 1, 2, 3), "optimizer": (2, 3), "parameters": (3,)}
RougeRule = Literal["tofu", "unicode"]

RowT = TypeVar("RowT")
LEAST_ROWS = 2  # of a split: fewer make no sample to test
GOLDEN = (5**0.5 - 1) / 2


class Engine(Frozen):
    """DeepSpeed ZeRO stage, precision and the number of workers that share one model. Each can change the last bits of
    a result. With `quantisation` the linear layers of start model and oracle are rounded to 4 bits, and adapters train
    on them in `precision` (QLoRA: Dettmers et al. 2023, arXiv 2305.14314).

    Equal runs are bit-identical on the CPU; on CUDA the fused attention kernels add gradients in no fixed order.
    """

    stage: Stage = Field(0, description="of ZeRO. Workers share out, from 1: optimizer state, 2: gradients, 3: weights")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of start model, oracle and trials")
    quantisation: Quantisation | None = Field(None, description="nf4: a frozen base of 4 bits a weight; none: plain")
    workers: int = Field(1, ge=1, description="processes that share one model and its batches")
    threads: int = Field(1, ge=1, description="CPU threads per worker")
    device: Literal["cpu", "cuda"] = Field("cpu", description="in a study also auto: cuda where there is a GPU")
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass instead of keeping them"
    )
    offload: Offload = Field(
        "none", description="keep in the CPU's memory: masters and optimizer state (stages 2, 3), weights too (stage 3)"
    )

    @model_validator(mode="after")
    def _offloads_what_is_sharded(self) -> Self:
        stages = OFFLOAD_STAGES[self.offload]
        if self.stage not in stages:
            needed = " or ".join(map(str, stages))
            raise ValueError(f"offload: {self.offload} needs stage {needed}, and this is stage {self.stage}")
        return self


class Schedule(Frozen):
    """The length of a run, its batches and its learning rates. An epoch is one pass over the forget rows, beside which
    stand random retain rows."""

    epochs: int = Field(5, ge=1, description="passes over the forget rows")
    max_steps: int | None = Field(None, ge=1, description="end after so many optimizer steps")
    batch_size: int = Field(20, ge=1, description="forget rows in one optimizer step, over all workers")
    retain_ratio: float = Field(
        1.0, gt=0, le=100, description="retain rows per forget row in a step", json_schema_extra=OMITTED_AT_DEFAULT
    )
    accumulation: int = Field(1, ge=1, description="micro-batches per worker in one optimizer step")
    micro_tokens: int | None = Field(None, ge=1, description="most tokens of a micro-batch, which is cut further")
    packing: Literal["auto", "off"] = Field(
        "auto", description="rows side by side instead of padding, if the model can"
    )
    warmup: float = Field(0.0, ge=0, lt=1, description="share of all steps with a rising learning rate")
    decay: bool = Field(True, description="linear decay to zero; false keeps the rate")
    clip_norm: float = Field(1.0, ge=0, description="largest gradient norm; 0: no clipping")
    dropout: bool = Field(
        False, description="train with the model's own dropout; without, the policy begins as its reference"
    )

    @field_validator("packing", mode="before")
    @classmethod
    def _off_in_yaml(cls, given: Any) -> Any:
        return "off" if given is False else given  # YAML reads `off` as false


class LmEval(Frozen):
    """Tasks of lm-evaluation-harness (the extra `lm-eval`): each gives the metric `lm_eval_TASK`, which is the first of
    its metrics that is better when higher. Prompts are the task's own, without a chat template. `path`: see
    lethe.evaluation.lm_eval_tasks."""

    tasks: tuple[str, ...] = Field(min_length=1, description="names of tasks")
    path: str | None = Field(None, min_length=1, description="a folder with task files of your own, read as data")
    limit: int | None = Field(None, ge=1, description="documents per task; none: all")


class Evaluation(Frozen):
    """The evaluation of a model: rows are a `share` of the first `max_rows` of each split, generation is greedy."""

    every: int = Field(1, ge=1, description="epochs between evaluations; the last epoch is always evaluated")
    interim: float = Field(
        0.2,  # about a quarter of the cost at 1M parameters, where short batches are slower per row
        gt=0,
        le=1,
        description="share of the rows that evaluations before the last one read; 1: all",
        json_schema_extra=OMITTED_AT_DEFAULT,
    )
    max_rows: int | None = Field(None, ge=LEAST_ROWS, description="rows per split; none: all")
    share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="of these rows, spread evenly over each split",
        json_schema_extra=OMITTED_AT_DEFAULT,
    )
    max_new_tokens: int = Field(200, ge=1, description="longest generated answer")
    token_budget: int = Field(8192, ge=64, description="padded tokens in one forward pass")
    rouge: RougeRule = Field(
        "tofu", description="words of ROUGE: tofu: a to z and digits, as published, of Latin answers; unicode: all"
    )
    lm_eval: LmEval | None = None
    gradnorm: bool = Field(False, description="mia_gradnorm: one backward pass a forget or holdout row, dear")

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return `dumped` without the default rule of words, so that earlier runs keep their digests."""
        fields = super().canonical_fields(dumped)
        return {key: value for key, value in fields.items() if (key, value) != ("rouge", "tofu")}

    def chosen(self, rows: Sequence[RowT]) -> Sequence[RowT]:
        """Return the rows of a split that are read, in order."""
        first = rows[: self.max_rows]
        return first if self.share == 1 else tuple(first[i] for i in spread(len(first), self.share))

    def before_last(self) -> Evaluation:
        """Return the evaluation of the epochs before the last, itself where that is whole, too."""
        if self.interim == 1:
            return self
        return self.model_copy(update={"share": self.share * self.interim, "interim": 1.0})


def spread(count: int, share: float) -> list[int]:
    """Return a fixed, rising `share` of the indices below `count`, at least `LEAST_ROWS` of them: one of each of so
    many equal stretches."""
    chosen = max(min(count, LEAST_ROWS), int(count * share))
    ends = [count * i // chosen for i in range(chosen + 1)] if chosen else [0]
    # Not the first of each stretch: splits have rhythms of their own, such as TOFU's 20 questions on each author.
    # Multiples of the golden ratio fall evenly into [0, 1), whatever the rhythm.
    return [low + int(i * GOLDEN % 1 * (high - low)) for i, (low, high) in enumerate(pairwise(ends))]


FOLDER = "checkpoint"  # in a run's folder


class Checkpoint(Frozen):
    """When a run saves a checkpoint, from which another attempt continues with the same result, to the bit.

    A checkpoint holds the trained weights three times over in fp32 (weights and two moments). The newest is kept, none
    when the trial has ended.
    """

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
    seed: int = Field(0, ge=0, description="of the order of rows, random draws and adapters")

    @model_validator(mode="after")
    def _optimizer_has_what_it_needs(self) -> Self:
        stages, stage = self.optimizer.stages, self.engine.stage
        if stage not in stages and "optimizer" not in self.objective.ignored_fields:
            name, known = getattr(self.optimizer, "name", ""), " or ".join(map(str, stages))
            raise ValueError(f"optimizer.name: {name} needs engine.stage {known}, given {stage}")
        return self

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return `dumped` without the fields that the objective ignores: trials that do the same have one digest."""
        return {
            key: value
            for key, value in super().canonical_fields(dumped).items()
            if key not in self.objective.ignored_fields
        }


class Digests(Frozen):
    """Content digests of the data and models that a run reads, never their paths, and of the `prompt` as rendered."""

    data: str
    model: str
    oracle: str | None = None
    base: str | None = None
    prompt: str | None = None


class UnlearnRun(Frozen):
    """One unlearning run. Its digest names the trial, its MLflow run and its folder."""

    schema_version: Literal[2] = 2
    recipe: Recipe
    digests: Digests
