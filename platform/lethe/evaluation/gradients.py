"""The norm of each row's gradient: membership inference by how much the model would still learn from the row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lethe.data.template import Encoded
from lethe.models.forward import scored_logits


def gradient_norms(model: nn.Module, pairs: Sequence[Encoded]) -> list[float]:
    """Mean over the weight tensors of the L2 norm of a row's gradient [n]; one forward and one backward a row.

    The loss is the summed NLL of the answer and its end over the tokens before that end. Both means are the public
    implementation's, whose values these are. An adapter's own tensors do not count: the gradient at W + B A is W's.
    One tensor's gradient is in memory at a time. Not for weights that ZeRO-3 has sharded.
    """
    weights = [p for name, p in model.named_parameters() if "lora_" not in name and p.is_floating_point()]
    with _norms_only(weights) as norms:
        found = []
        for pair in pairs:
            torch.autograd.grad(_loss(model, pair), weights, allow_unused=True)
            found.append(float(torch.stack(norms).mean()))
            norms.clear()
    return found


def _loss(model: nn.Module, pair: Encoded) -> Tensor:
    ids = torch.tensor([pair.ids], device=next(model.parameters()).device)
    logits = scored_logits(model, ids, torch.arange(pair.prompt_length - 1, ids.shape[1] - 1, device=ids.device))
    labels = ids[0, pair.prompt_length :]
    return cross_entropy(logits.float(), labels, reduction="sum") / max(1, len(labels) - 1)


@contextmanager
def _norms_only(weights: Sequence[nn.Parameter]) -> Iterator[list[Tensor]]:
    """Collects norms and lets go of the gradients; the weights' flags are put back.

    A gradient is handed on as one zero in the shape of the weight. `torch.autograd.grad` leaves `.grad` and what
    DeepSpeed has hooked there alone.
    """
    norms: list[Tensor] = []

    def keep(gradient: Tensor) -> Tensor:
        norms.append(torch.linalg.vector_norm(gradient, dtype=torch.float32))
        return gradient.new_zeros(()).expand_as(gradient)

    flags = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    hooks = [weight.register_hook(keep) for weight in weights]
    try:
        with torch.enable_grad():
            yield norms
    finally:
        for hook, weight, flag in zip(hooks, weights, flags, strict=True):
            hook.remove()
            weight.requires_grad_(flag)
