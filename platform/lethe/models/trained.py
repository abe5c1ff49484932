"""The rule of an objective for which weights train, by their names in the base model: `trained_rule`."""

from __future__ import annotations

import re

from torch import nn
from transformers import PreTrainedModel

from lethe.config.adapter import AnyAdapter, Lora
from lethe.errors import UserError
from lethe.models.adapters import Rule, target_modules, target_stacks
from lethe.models.forward import output_embeddings
from lethe.models.language import decoder_layer, decoder_layers, language_model

PUBLISHED = "published"
# The last matrix of the MLP as common families name it, behind the first number in the name, which is the layer's.
_DOWN = r"^\D*\.({layers})\.(.*\.)?(down_proj|dense_4h_to_h|fc2|fc_out|w2|proj_down|mlp\.c_proj)(\.|$)"


def trained_rule(
    model: PreTrainedModel,
    adapter: AnyAdapter,
    pattern: str | None = None,
    layer: int | None = None,
    behind: bool = True,
) -> Rule:
    """Return whether the weight of a name may train. Raises UserError for a layer that `model` does not have, and where
    nothing would train; weights on the meta device are enough.

    `pattern`: a regular expression that is searched in the names, None for all; "published": the MLP's down projections
    of decoder layer `layer` and of the two below it. Unless `behind`, weights behind that layer are frozen too: the
    objective has no gradient there, and weight decay would move them.
    """
    if pattern is None and layer is None:
        return lambda _: True
    expression = pattern
    if layer is not None:
        decoder_layer(model, layer)
        if pattern == PUBLISHED:
            expression = _DOWN.format(layers="|".join(str(k) for k in range(max(0, layer - 2), layer + 1)))
    frozen = set() if layer is None or behind else _behind(model, layer)

    def trains(name: str) -> bool:
        return name not in frozen and (expression is None or re.search(expression, name) is not None)

    names = _candidates(model, adapter)
    if not any(map(trains, names)):
        owner = f"adapter.targets {adapter.targets}" if isinstance(adapter, Lora) else type(model).__name__
        known = ", ".join(sorted({_short(name) for name in names if name not in frozen}))
        raise UserError(f"objective.trained: {pattern!r} trains nothing of {owner}: choose from the names of {known}")
    return trains


def _candidates(model: PreTrainedModel, adapter: AnyAdapter) -> list[str]:
    """Return the names of the weights that train where the objective has no rule."""
    if isinstance(adapter, Lora):
        layers = [f"{name}.weight" for name in target_modules(model, adapter.targets)]
        return layers + target_stacks(model, adapter.targets)
    prefix, _ = language_model(model)
    head = output_embeddings(model)
    ends = set() if head is None else {id(weight) for weight in head.parameters()}
    return [name for name, weight in model.named_parameters() if name.startswith(prefix) or id(weight) in ends]


def _short(name: str) -> str:
    """Return the last part of a weight's name that is not just `weight` or `bias`."""
    return name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]


def _behind(model: PreTrainedModel, layer: int) -> set[str]:
    """Return the names of the weights that a forward pass reaches behind the output of decoder layer `layer` alone:
    later layers, what the decoder holds behind its layers, and the head unless it is the embedding."""
    name, layers = decoder_layers(model)
    owner, _, leaf = name.rpartition(".")
    siblings = list(model.get_submodule(owner).named_children())
    at = [child for child, _ in siblings].index(leaf)
    modules: list[nn.Module] = [*layers[layer + 1 :], *(module for _, module in siblings[at + 1 :])]
    head = output_embeddings(model)
    if head is not None:
        modules.append(head)
    behind = {id(weight) for module in modules for weight in module.parameters()}
    embedding = model.get_input_embeddings()
    behind -= {id(weight) for weight in embedding.parameters()}
    return {name for name, weight in model.named_parameters(remove_duplicate=False) if id(weight) in behind}
