"""Models that unlearn: one that lethe trains itself, from random weights or a base, or one that the user brings."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lethe.config.adapter import FullParameters, Lora
from lethe.config.base import Frozen
from lethe.config.objective import GradientAscent
from lethe.config.optimizer import AdamW
from lethe.config.run import Engine, Recipe, Schedule
from lethe.errors import UserError


class EmbeddedModel(Frozen):
    """A small Llama that is trained on the benchmark itself, with its tokenizer; sizes are a dial.

    The defaults memorise the embedded corpus in 12 epochs, half a minute on one core. Weights start at standard
    deviation 1/sqrt(hidden_size); with the usual .02 the same loss took about 20 epochs.
    """

    name: Literal["embedded"] = "embedded"
    hidden_size: int = Field(128, ge=16, description="width; a multiple of 2 x heads")
    layers: int = Field(4, ge=1, description="decoder layers")
    heads: int = Field(4, ge=1, description="attention heads")
    vocab_size: int = Field(1024, ge=300, description="byte-level BPE: 256 bytes, 6 special tokens and merges")
    max_length: int = Field(512, ge=16, description="tokens in the longest question with its answer")
    epochs: int = Field(12, ge=1, description="passes over the rows")
    target_loss: float = Field(0.0, ge=0, description="stop after an epoch with this mean token loss; 0: never")
    batch_size: int = Field(16, ge=1, description="rows in one step")
    learning_rate: float = Field(3e-3, gt=0, description="of AdamW, at its highest")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of all steps with a rising learning rate")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    threads: int = Field(1, ge=1, description="CPU threads of each of the two trainings")
    seed: int = Field(0, ge=0, description="of the first weights, where they are random, and of the order of rows")

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of 2 x heads ({self.heads})")
        return self

    @property
    def intermediate_size(self) -> int:
        """Return the width of the gated feed-forward layer: 8/3 of the hidden size (Touvron et al. 2023), rounded
        down to a multiple of 16."""
        return max(16, self.hidden_size * 8 // 3 // 16 * 16)


class EmbeddedGptNeo(EmbeddedModel):
    """A small GPT-Neo, LoKU's family on TDEC: learned positions, tied embeddings, every second layer local.

    The defaults memorise the embedded TDEC documents that are repeated, in three epochs, under a minute on one core.
    Fewer and larger steps or more layers learned less of the rest in the same time.
    """

    name: Literal["embedded_gpt_neo"] = "embedded_gpt_neo"  # type: ignore[assignment]  # another name for a special case
    layers: int = Field(2, ge=1, description="decoder layers")
    epochs: int = Field(3, ge=1, description="passes over the rows")
    batch_size: int = Field(4, ge=1, description="rows in one step")
    window: int = Field(32, ge=1, description="tokens that a local layer sees")
    initializer_range: float = Field(0.04, gt=0, description="attention is not scaled, so not 1/sqrt(hidden_size)")


class PretrainedModel(Frozen):
    """A model that already knows the benchmark: a folder (a model's or an adapter's), a hub id, a .gguf file,
    package:NAME for a GGUF file in a Python package, or models:/name@alias in MLflow's registry."""

    name: Literal["pretrained"] = "pretrained"
    path: str = Field(min_length=1, description="the model that has memorised the forget set")
    oracle: str | None = Field(
        None,
        min_length=1,
        description="the same model, trained without the forget set; train: made from `base` before the trials, and"
        " the keys of `finetuned` say how",
    )
    base: str | None = Field(
        None, min_length=1, description="the checkpoint that `path` was made from: for retrain, an adapter, an oracle"
    )


TRAIN = "train"  # the oracle that is not there yet
LEARNING_RATES = {"full": 1e-5, "lora": 2e-4}  # by adapter: TOFU's for models of 1B to 8B, and ten times a LoRA's


class FinetunedModel(Frozen):
    """A start model that lethe trains from a base checkpoint on the benchmark's retain and forget rows, and its oracle,
    trained likewise on the retain rows alone; with a `path` the oracle only. Adapters are merged.

    AdamW with linear warm-up and decay, on the study's worker groups, with the engine of `run`. The defaults are for
    models of 1B to 8B parameters; a smaller one memorises with a larger rate, 135M with 3e-4 in 6 epochs.
    """

    name: Literal["finetuned"] = "finetuned"
    path: str | None = Field(
        None,
        min_length=1,
        description="the start model where there is one: as `pretrained` with `oracle: train`",
    )
    base: str = Field(min_length=1, description="the checkpoint to train: what `path` of a pretrained model takes")
    adapter: FullParameters | Lora = Field(FullParameters(), discriminator="name", description="what is trained")
    epochs: int = Field(5, ge=1, description="passes over the rows")
    target_loss: float = Field(0.0, ge=0, description="stop after an epoch with this mean token loss; 0: never")
    batch_size: int = Field(16, ge=1, description="rows in one optimizer step, over all workers")
    accumulation: int = Field(1, ge=1, description="micro-batches per worker in one optimizer step")
    micro_tokens: int | None = Field(None, ge=1, description="most tokens of a micro-batch, which is cut further")
    learning_rate: float = Field(gt=0, description="of AdamW", json_schema_extra={"default": "1e-5, with a LoRA 2e-4"})
    warmup: float = Field(0.1, ge=0, lt=1, description="share of all steps with a rising learning rate")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    seed: int = Field(0, ge=0, description="of the first weights, where they are random, and of the order of rows")

    @model_validator(mode="before")
    @classmethod
    def _rate_of_the_adapter(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("learning_rate") is not None:
            return given
        adapter = given.get("adapter", {})
        name = adapter.get("name") if isinstance(adapter, dict) else getattr(adapter, "name", None)
        return {**given, "learning_rate": LEARNING_RATES.get(str(name), LEARNING_RATES["full"])}

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return `dumped` without a `path` that is not given, so that earlier studies keep their digests."""
        return {key: value for key, value in super().canonical_fields(dumped).items() if (key, value) != ("path", None)}

    def recipe(self, engine: Engine) -> Recipe:
        """Return the recipe of a training on `engine`. Its objective is not used: the loss is that of the rows."""
        return Recipe(
            objective=GradientAscent(),
            optimizer=AdamW(learning_rate=self.learning_rate, weight_decay=self.weight_decay),
            adapter=self.adapter,
            schedule=Schedule(
                epochs=self.epochs,
                batch_size=self.batch_size,
                accumulation=self.accumulation,
                micro_tokens=self.micro_tokens,
                warmup=self.warmup,
            ),
            engine=engine,
            seed=self.seed,
        )


AnyEmbedded = Annotated[EmbeddedModel | EmbeddedGptNeo, Field(discriminator="name")]
MODELS = (EmbeddedModel, EmbeddedGptNeo, PretrainedModel, FinetunedModel)


def _with_trained_oracle(given: Any) -> Any:
    """Return a pretrained model with `oracle: train` as the `FinetunedModel` with its path, anything else as it is.
    Raises UserError without a base."""
    if not isinstance(given, dict) or (given.get("name"), given.get("oracle")) != ("pretrained", TRAIN):
        return given
    for key in ("path", "base"):
        if given.get(key) is None:
            raise UserError(f"model.{key}: missing: oracle: {TRAIN} makes the oracle of a path from the path's base")
    return {**{key: value for key, value in given.items() if key != "oracle"}, "name": "finetuned"}


AnyModel = Annotated[
    EmbeddedModel | EmbeddedGptNeo | PretrainedModel | FinetunedModel,
    Field(discriminator="name"),
    BeforeValidator(_with_trained_oracle),
]
