"""What can be known to fail before the first trial: data without refusals, adapters that do not fit the model, devices
that are not there."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lethe.config.adapter import Lora
from lethe.config.assemble import possible
from lethe.config.method import unread
from lethe.config.objective import WithRefusals
from lethe.config.run import Recipe
from lethe.config.space import Choice, Parameter, Scalar, variants
from lethe.config.study import Study
from lethe.data.refusals import NO_REFUSALS
from lethe.data.rows import Benchmark
from lethe.data.tdec import Passages, tokenised
from lethe.errors import BadInput
from lethe.models.prepare import Prepared
from lethe.search.space import build_recipe

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def corners(study: Study) -> list[Recipe]:
    """Recipes of every combination of variants, each with the largest and the smallest rank that the space allows."""
    return [recipe for part in study.parts() for recipe in _corners(part)]


def _corners(study: Study) -> list[Recipe]:
    found = []
    names = {key: p.choices for key, p in study.space.items() if key.endswith(".name") and isinstance(p, Choice)}
    for picked in product(*names.values()):
        chosen = dict(zip(names, picked, strict=True))
        for extreme in (min, max):

            def suggest(name: str, parameter: Parameter, chosen: dict = chosen, extreme: Any = extreme) -> Scalar:
                if name in chosen:
                    return chosen[name]
                if isinstance(parameter, Choice):
                    return extreme(parameter.choices, key=lambda v: v if isinstance(v, int | float) else 0)
                return extreme((parameter.low, parameter.high))

            found.append(build_recipe(study, suggest))
    return found


def check_data(study: Study, benchmark: Benchmark | Passages) -> None:
    """Raises BadInput where a trial could answer with refusals and the benchmark has none."""
    if isinstance(benchmark, Passages):
        return  # it has no questions: such an objective is refused with the configuration
    known = variants("objective")
    refusing = {name for name, model in known.items() if issubclass(model, WithRefusals)}
    for name in (name for part in study.parts() for name in possible(part.run, part.space)["objective"]):
        if name in refusing and not benchmark.refusals:
            raise BadInput(
                f"objective.name: {name} answers with refusals, but {NO_REFUSALS.format(study.benchmark.source)}: "
                f"choose from {', '.join(sorted(known.keys() - refusing))}"
            )


def check_model(study: Study, prepared: Prepared) -> None:
    """Raises BadInput for targets that match nothing, ranks larger than a layer and sequences that the model cannot
    read: on shapes, without weights."""
    reading = [r for r in corners(study) if "adapter" not in unread(type(r.objective))]
    adapters = {r.adapter for r in reading if isinstance(r.adapter, Lora)}
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from lethe.models.adapters import check_fits

    try:
        config = AutoConfig.from_pretrained(str(prepared.start), trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"model.path: transformers cannot read the model in {prepared.start}: {reason}") from None
    for adapter in sorted(adapters, key=lambda a: a.rank):
        check_fits(model, adapter)
    if isinstance(prepared.benchmark, Passages):
        _check_sequences(prepared.benchmark, prepared.start, config.get_text_config(decoder=True))


def _check_sequences(passages: Passages, start: Path, config: PreTrainedConfig) -> None:
    from lethe.models.loading import load_tokenizer

    positions = getattr(config, "max_position_embeddings", None) or passages.length
    if positions < passages.length:
        raise BadInput(f"benchmark.length is {passages.length}, the model in {start} takes {positions} tokens")
    tokenised(passages, load_tokenizer(start), config.vocab_size)


def check_devices(study: Study) -> None:
    """Raises BadInput where a run asks for CUDA and the cluster can have no GPU, or for more than it can ever hold."""
    from lethe.pool.capacity import require
    from lethe.pool.shape import Shape

    for shape in dict.fromkeys(Shape.of(recipe.engine) for recipe in corners(study)):
        require(shape)
