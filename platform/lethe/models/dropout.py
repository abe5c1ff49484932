"""Training without a model's own random noise, so that a policy equals its reference at the first step."""

from __future__ import annotations

import inspect
import re

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from lethe.errors import UserError

# How transformers calls probabilities of dropout and layer drop, and the noise on a mixture's input. PhiMoE's
# `router_jitter_noise` is none of them: it is the width of a mask, in evaluation too.
NOISE = re.compile(r"drop|^(input_)?jitter_noise$")


def disable_dropout(model: nn.Module) -> None:
    """Set every probability of dropout, layer drop and input noise in `model` to zero, in place, and put routers in
    evaluation mode; the configuration, which is saved with the model, stays as it is. Call it after `model.train()`.
    Raises UserError as `check_dropout` does."""
    # Evaluation mode everywhere would switch off gradient checkpointing, too.
    check_dropout(model)
    for module in model.modules():
        if "Router" in type(module).__name__:
            module.eval()  # PhiMoE's draws experts at random while it trains
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if NOISE.search(name) and isinstance(value, float):
                setattr(module, name, 0.0)


def check_dropout(model: nn.Module) -> None:
    """Raise UserError for a model that reads a positive probability from its configuration at every forward pass.
    Weights on the meta device are enough."""
    for module in model.modules():
        config = getattr(module, "config", None)
        noisy = [name for name, value in getattr(config, "__dict__", {}).items() if NOISE.search(name) and value]
        source = inspect.getsource(type(module).forward) if noisy else ""
        for name in noisy:
            if f"self.config.{name}" in source:
                raise UserError(
                    f"{type(module).__name__} takes {name} ({getattr(config, name)}) from its configuration while it "
                    "trains: set it to 0 in the model's config.json, or schedule.dropout to true"
                )
