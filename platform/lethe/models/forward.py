"""Forward passes with logits at scored positions only: the head is the widest layer, and prompts need none of it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def scored_logits(model: nn.Module, input_ids: Tensor, position: Tensor, **further: Tensor) -> Tensor:
    """Return logits [N, V] at flat positions r*T + t of a batch [R, T] padded on the right; `model` may be wrapped by
    peft.

    There is no attention mask, unless it is among `further` inputs: padding is on the right, where a causal model
    cannot see it, and without a mask faster kernels apply. The head is given the chosen positions only; everything that
    the model does behind its head (soft-capping, scaling) still happens. A model whose head cannot be found computes
    all its logits.
    """
    head = output_embeddings(model)
    chosen: list[bool] = []

    def choose(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not args or args[0].shape[:-1] != input_ids.shape:
            return None
        chosen.append(True)
        return (args[0].flatten(0, 1)[position].unsqueeze(0), *args[1:])

    handle = head.register_forward_pre_hook(choose) if head is not None else None
    try:
        logits: Tensor = model(input_ids=input_ids, use_cache=False, **further).logits
    finally:
        if handle is not None:
            handle.remove()
    return logits[0] if chosen else logits.flatten(0, 1)[position]


def output_embeddings(model: nn.Module) -> nn.Module | None:
    """Return a causal model's head, None where it cannot be found."""
    getter: Callable[[], nn.Module | None] | None = getattr(model, "get_output_embeddings", None)
    return getter and getter()


class ScoredLM(nn.Module):
    """A causal language model whose forward is `scored_logits`; the DeepSpeed engine wraps it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, position: Tensor) -> Tensor:
        """Return logits [N, V] as `scored_logits` does."""
        return scored_logits(self.model, input_ids, position)
