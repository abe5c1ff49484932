"""Names of layers that are known without torch are those that the models have."""

from __future__ import annotations

import pytest
import torch

from lethe.errors import UserError
from lethe.models.adapters import target_modules
from lethe.models.layer_names import LAYERS, check_targets
from tests.models.architectures import FAMILIES


@pytest.mark.parametrize("family", LAYERS)
def test_the_table_has_exactly_the_layers_of_the_family(family: str) -> None:
    with torch.device("meta"):
        model = next(known for known in FAMILIES.values() if known.model_type == family).build()
    assert {name.rpartition(".")[2] for name in target_modules(model, "all-linear")} == LAYERS[family]


def test_only_plain_names_of_known_families_are_refused() -> None:
    for targets in ("all-linear", "q_proj, v_proj", "mlp.nothing", "*.nothing", ""):
        check_targets("llama", targets)
    check_targets("unheard-of", "nothing")
    with pytest.raises(UserError, match=r"matches 'c_fc': choose from all-linear, down_proj, gate_proj"):
        check_targets("llama", "q_proj,c_fc")
