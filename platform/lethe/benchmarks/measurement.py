"""Scoring of a model that is not trained: from its folder to an evaluation's result.

A study's baselines and `score` both go through these functions. Whatever can change their numbers is imported from
here or from the benchmark: `lethe.evaluation.score_cache` derives from these imports which code a stored score depends
on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError
from torch import nn

from lethe.benchmarks.base import AnyTask, Benchmark, EvalSet, EvaluationResult
from lethe.config.error_messages import to_user_error
from lethe.config.privacy import StoredText
from lethe.config.prompt import Prompt
from lethe.config.run import Evaluation, Quantisation
from lethe.data.privacy import ShownText
from lethe.data.template import Template, opening
from lethe.errors import UserError
from lethe.evaluation.distributed import RankShard
from lethe.models.loading import Precision, load_adapted, load_model, load_tokenizer
from lethe.models.model_files import read_json

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


PROMPT = "prompt.json"  # beside a model that a study saved, where its prompt is not the default


def load_network(
    folder: Path,
    device: Literal["cpu", "cuda"],
    precision: Precision | None = None,
    quantisation: Quantisation | None = None,
) -> PreTrainedModel:
    """Load the model in `folder` onto `device`, in evaluation mode, as `load_model` does."""
    # As any: transformers' `to` is annotated as one without arguments.
    network: Any = load_model(folder, precision, quantisation, device)
    moved: PreTrainedModel = network.to(device)
    return moved


def load_adapted_network(base: Path, adapter: Path, device: Literal["cpu", "cuda"]) -> PeftModel:
    """Load the `adapter` on its `base` onto `device`, in the adapter's precision and evaluation mode, the base
    quantised as the adapter was trained."""
    network: PeftModel = load_adapted(base, adapter, device=device).to(device)
    return network


def template_of(
    tokenizer: Path, prompt: Prompt | None = None, *, instruction: str = "", model: Path | None = None
) -> Template:
    """Return the template of the tokenizer in a folder for the model in `model`, by default the same folder.

    A default `prompt` gives way to the one that a study saved with the tokenizer. `instruction` stands in front of
    every question, once: a chat template that a study saved has it already.
    """
    if prompt in (None, Prompt()):
        prompt = saved_prompt(tokenizer)
    loaded = load_tokenizer(tokenizer)
    stops, vocabulary = _generation_limits(model or tokenizer)
    template = Template(loaded, prompt, instruction=instruction, stops=stops, vocabulary=vocabulary)
    has_it = template.is_chat and opening(instruction) in str(loaded.chat_template)
    return template.with_instruction("") if has_it else template


def saved_prompt(folder: Path) -> Prompt:
    """Return the prompt that a study saved in a model's folder; the default where there is none. Raises UserError for a
    file that holds something else."""
    path = folder / PROMPT
    if not path.is_file():
        return Prompt()
    try:
        return Prompt.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: not a prompt: {to_user_error(error, Prompt)}") from None


def _generation_limits(folder: Path) -> tuple[tuple[int, ...], int | None]:
    """Return the ids that end generated text, as transformers takes them from the folder's configuration, and the
    number of the model's token ids; () and None where it does not say."""
    config, generation = _json(folder / "config.json"), _json(folder / "generation_config.json")
    text = next((config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), dict)), config)
    eos = (generation or text).get("eos_token_id")
    stops = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(type(stop) is int for stop in stops):
        raise UserError(f"{folder}: eos_token_id must be a token id or a list of them, given {eos!r}")
    vocabulary = text.get("vocab_size", config.get("vocab_size"))
    return tuple(stops), vocabulary if isinstance(vocabulary, int) else None


def _json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; {} where there is no such file. Raises UserError for anything else in it."""
    return read_json(path) if path.exists() or path.is_symlink() else {}


def task_of(benchmark: Benchmark, template: Template, network: nn.Module) -> AnyTask:
    """Return the benchmark as `template` renders it for `network`'s vocabulary."""
    return benchmark.task(template, vocabulary_of(network.config))


def vocabulary_of(config: Any) -> int:
    """Return the number of token ids that a model with this `config.json` reads."""
    size: int = config.get_text_config(decoder=True).vocab_size
    return size


def shown_text(
    rule: StoredText,
    benchmark: Benchmark,
    task: Callable[[], AnyTask],
    made: Callable[[], Iterable[str]] = tuple,
) -> ShownText:
    """Return what a study that stores `rule` of the text of the `benchmark`'s rows may show; `task` gives the
    benchmark as a model reads it, `made` further texts to forget."""

    def withheld() -> Iterator[str]:
        yield from benchmark.texts(forget_only=rule == "redact")
        yield from made()
        # Rows of token ids have no other text.
        yield from (task().template.decode(list(row.answer)) for row in task().forget)

    return ShownText(rule, withheld)


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
