"""Scoring of a model that is not trained: from its folder to an evaluation's result.

A study's baselines and `score` both go through these functions. Whatever can change their numbers is imported from
here or from the benchmark: `lethe.evaluation.score_cache` derives from these imports which code a stored score depends
on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from lethe.benchmarks.base import AnyTask, Benchmark, EvalSet, EvaluationResult
from lethe.config.run import Evaluation
from lethe.data.template import Template, opening
from lethe.evaluation.distributed import RankShard
from lethe.models.loading import Precision, load_adapted, load_model, load_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_network(folder: Path, device: Literal["cpu", "cuda"], precision: Precision | None = None) -> PreTrainedModel:
    """Load the model in `folder` onto `device`, in evaluation mode, as `load_model` does."""
    network: Any = load_model(folder, precision)  # transformers' `to` is annotated as one without arguments
    moved: PreTrainedModel = network.to(device)
    return moved


def load_adapted_network(base: Path, adapter: Path, device: Literal["cpu", "cuda"]) -> PeftModel:
    """Load the `adapter` on its `base` onto `device`, in the adapter's precision and evaluation mode."""
    network: PeftModel = load_adapted(base, adapter).to(device)
    return network


def template_of(tokenizer: Path, instruction: str = "") -> Template:
    """Return the template of the tokenizer in a folder, with `instruction` in front of every question, once: a chat
    template that a study saved has it already."""
    loaded = load_tokenizer(tokenizer)
    return Template(loaded, "" if opening(instruction) in str(loaded.chat_template) else instruction)


def task_of(benchmark: Benchmark, template: Template, network: nn.Module) -> AnyTask:
    """Return the benchmark as `template` renders it for `network`'s vocabulary."""
    config: Any = network.config
    return benchmark.task(template, config.get_text_config(decoder=True).vocab_size)


def measure(
    network: nn.Module,
    task: AnyTask,
    evals: EvalSet,
    evaluation: Evaluation,
    shard: RankShard,
    stored_reference: Any = None,
) -> EvaluationResult:
    """Evaluate `network` on `evals`, which are `task.eval_set(evaluation)`: against `stored_reference`, a
    `ReferenceValues.dump`, or as a baseline without one."""
    if stored_reference is None:
        return task.baseline(network, evals, evaluation, shard)
    return task.evaluate(network, evals, evaluation, task.reference_values(stored_reference, evals), shard, last=True)
