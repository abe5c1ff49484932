"""`scaling plan`: what a model of a size that was not tried needs, on paper."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lethe.cli.app import command
from lethe.errors import UserError

EXAMPLES = """
lethe scaling plan --model-params 7e9 --gpu-memory 80e9
lethe scaling plan --model-params 7e9 --gpu-memory 24e9 --offload optimizer --gradient-checkpointing
lethe scaling plan --model path/to/model --gpu-memory 24e9 --quantisation nf4 --lora-rank 16
"""
MOST = {int: 10**9, float: 1e18}


@command("scaling plan", EXAMPLES, hidden=True)
def main(
    gpu_memory: Annotated[float, typer.Option(metavar="BYTES", help="Of one device, such as 80e9.")],
    model_params: Annotated[
        float | None, typer.Option(metavar="N", help="Parameters, such as 7e9: a Llama of about this size.")
    ] = None,
    model: Annotated[Path | None, typer.Option(metavar="DIR", help="A folder with a config.json.")] = None,
    precision: Annotated[Literal["bf16", "fp32"], typer.Option(help="Of weights and activations.")] = "bf16",
    lora_rank: Annotated[
        int | None, typer.Option(metavar="R", help="LoRA on all linear layers; without it every weight is trained.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Compute activations again in the backward pass.")
    ] = False,
    offload: Annotated[
        Literal["none", "optimizer", "parameters"], typer.Option(help="What lies in the CPU's memory.")
    ] = "none",
    quantisation: Annotated[
        Literal["nf4"] | None, typer.Option(help="A frozen base of 4 bits a weight; with --lora-rank.")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", help="Forget rows in a step, over all workers.")] = 32,
    length: Annotated[int, typer.Option(metavar="N", help="Tokens of a row.")] = 256,
    answer: Annotated[int, typer.Option(metavar="N", help="Of these in the answer.")] = 128,
    forget_rows: Annotated[int, typer.Option(metavar="N", help="Rows to forget; TOFU's forget10 has 400.")] = 400,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over them.")] = 5,
    vocabulary: Annotated[int, typer.Option(metavar="N", help="Tokens that there are; with --model-params.")] = 32_000,
    rate: Annotated[
        float | None, typer.Option(metavar="FLOPS", help="FLOP/s of one device (312e12, an A100's in bf16).")
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option(metavar="BYTES", help="A second, of its memory (2.04e12, an A100's).")
    ] = None,
) -> int:
    """Say on paper which stage, workers, batch, memory and hours a model needs, and what a whole study costs.

    Exit codes: 0 done, 2 bad input.
    """
    if (model is None) == (model_params is None):
        raise UserError("the size of the model is needed: give --model-params or --model, one of them")
    _check_bounds(
        {
            "--model-params": model_params, "--gpu-memory": gpu_memory, "--lora-rank": lora_rank, "--batch": batch,
            "--length": length, "--answer": answer, "--forget-rows": forget_rows, "--epochs": epochs,
            "--vocabulary": vocabulary, "--rate": rate, "--bandwidth": bandwidth,
        }
    )  # fmt: skip
    from lethe.models.transformer import Transformer
    from lethe.scaling.plan import BANDWIDTH, RATE, Question
    from lethe.scaling.plan import answer as answer_to
    from lethe.scaling.study_cost import describe_study

    if model_params is None:
        assert model is not None
        shape = Transformer.of_config(_read_config(model))
    else:
        shape = Transformer.of_size(model_params, vocabulary)
        if not model_params / 2 <= shape.parameters <= model_params * 2:
            nearest = f"the nearest Llama of {vocabulary} tokens has {shape.parameters:.3g} parameters"
            raise UserError(f"--model-params {model_params:g}: {nearest}")
    narrowest = min(min(pair) for pair in shape.linears())
    if lora_rank and lora_rank > narrowest:
        raise UserError(f"--lora-rank {lora_rank}: the narrowest layer of this model has {narrowest} columns")
    question = Question(
        shape=shape,
        memory=gpu_memory,
        precision=precision,
        rank=lora_rank,
        rows=batch,
        length=length,
        answer=answer,
        steps=epochs * -(-forget_rows // batch),
        rate=rate or RATE,
        bandwidth=bandwidth or BANDWIDTH,
        checkpointing=gradient_checkpointing,
        offload=offload,
        quantisation=quantisation,
    )
    print(answer_to(question))
    print()
    print("\n".join(describe_study(question)))
    return 0


def _check_bounds(numbers: Mapping[str, float | None]) -> None:
    """Raise UserError for numbers, by option, that no plan can mean: infinite, not a number, beyond `MOST` or not
    above 0."""
    for option, value in numbers.items():
        if value is not None and not value <= MOST[type(value)]:
            needed = f"at most {MOST[type(value)]:g}" if isfinite(value) else "a finite number"
            raise UserError(f"{option} {value:g}: must be {needed}")
        if value is not None and not value > 0:
            raise UserError(f"{option} {value:g}: must be above 0")


def _read_config(folder: Path) -> dict[str, Any]:
    """Return a model folder's config.json. Raises UserError where it cannot be read."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return config
    except (OSError, ValueError) as error:
        raise UserError(f"--model {folder}: no config.json that can be read ({type(error).__name__})") from None
