"""What can be known to fail before the first trial: adapters that do not fit the model, devices that are not there."""

from __future__ import annotations

from lethe.config.adapter import Lora
from lethe.config.run import Recipe
from lethe.config.space import Choice
from lethe.config.study import Study
from lethe.errors import BadInput
from lethe.models.prepare import Prepared
from lethe.search.space import build_recipe


def corners(study: Study) -> list[Recipe]:
    """Recipes that touch every variant, each with the largest and the smallest rank that the space allows."""
    found = []
    names = [key for key in study.space if key.endswith(".name")]
    count = max([len(p.choices) for key in names if isinstance(p := study.space[key], Choice)], default=1)
    for i in range(count):
        for extreme in (min, max):

            def suggest(name: str, parameter: object, i: int = i, extreme: object = extreme) -> object:
                if isinstance(parameter, Choice):
                    if name.endswith(".name"):
                        return parameter.choices[i % len(parameter.choices)]
                    return extreme(parameter.choices, key=lambda v: v if isinstance(v, int | float) else 0)
                return extreme((parameter.low, parameter.high))

            found.append(build_recipe(study, suggest))
    return found


def check_model(study: Study, prepared: Prepared) -> None:
    """Raises BadInput for targets that match nothing and ranks larger than a layer: on shapes, without weights."""
    adapters = {r.adapter for r in corners(study) if isinstance(r.adapter, Lora)}
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


def check_devices(study: Study) -> None:
    """Raises BadInput where a run asks for CUDA and the cluster has no GPU, or more than the cluster holds."""
    import ray

    from lethe.pool.shape import Shape

    total = ray.cluster_resources()
    for recipe in corners(study):
        shape = Shape.of(recipe.engine)
        for kind, amount in shape.total().items():
            if total.get(kind, 0) < amount:
                raise BadInput(
                    f"run.engine: {shape.workers} worker(s) need {amount:g} {kind}, the cluster has"
                    f" {total.get(kind, 0):g}: lower engine.workers or engine.threads, or add nodes"
                )
