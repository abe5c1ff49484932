"""Training moves the language model alone of a checkpoint that reads images as well."""

from __future__ import annotations

import torch

from lethe.config.adapter import FullParameters, Lora
from lethe.config.objective import Influence
from lethe.data.batches import RowKind
from lethe.models.adapters import attach, target_modules
from lethe.models.language import language_model
from lethe.unlearning.methods.influence import newton_step, row_totals
from tests.models.architectures import FAMILIES
from tests.models.small import encoded, llama


def towers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights outside of the text decoder and its head."""
    return {n: p for n, p in model.named_parameters() if "vision_tower" in n or "projector" in n}


def test_a_text_model_is_its_own_language_model() -> None:
    model = llama()
    assert language_model(model) == ("", model)


def test_adapters_and_full_training_leave_the_vision_tower_alone() -> None:
    model = FAMILIES["gemma3"].build()
    assert towers(model)
    assert not [name for name in target_modules(model, "all-linear") if "language_model" not in name]
    assert len(target_modules(model, "q_proj")) == 2, "of the text decoder's two layers, not the tower's one"
    attach(model, FullParameters(), seed=0)
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == towers(model).keys()
    assert not [n for n, p in attach(model, Lora(), seed=0).named_parameters() if p.requires_grad and "vision" in n]


def test_influence_moves_the_language_model_alone() -> None:
    model = attach(FAMILIES["gemma3"].build(), FullParameters(), seed=0)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    rows = [(RowKind.FORGET, (0, encoded(1)[0])), (RowKind.RETAIN, (0, encoded(1, seed=1)[0]))]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert newton_step(trained, row_totals(model, rows, Influence(), 0, seed=0), Influence())
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved
    assert not moved & towers(model).keys()
