"""Forward passes with logits at scored positions only: the head is the widest layer, and prompts need none of it.

Where even these logits would be large, the head is applied to a part of the positions at a time (`PositionLogits`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lethe.errors import UserError
from lethe.models.language import decoder_layer

# Elements of logits [N, V] above which they are computed in parts, and those of a part.
WHOLE_ELEMENTS = 1 << 24
PART_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 25}
TOLERANCE = 0.05  # of the spread of logits: rounding is far below, a head that is not all there is far above

Term = Callable[[Tensor, slice], Tensor]  # logits [n, V] of positions `part` -> one value each, [n]


def scored_logits(model: nn.Module, input_ids: Tensor, position: Tensor, **further: Tensor) -> Tensor:
    """Return logits [N, V] at flat positions r*T + t of a batch [R, T] padded on the right; `model` may be wrapped by
    peft.

    There is no attention mask, unless it is among `further` inputs: padding is on the right, where a causal model
    cannot see it, and without a mask faster kernels apply. The head is given the chosen positions only; everything that
    the model does behind its head (soft-capping, scaling) still happens. A model whose head cannot be found computes
    all its logits.
    """
    with _head_input(model, input_ids, lambda states: states.flatten(0, 1)[position]) as chosen:
        logits: Tensor = model(input_ids=input_ids, use_cache=False, **further).logits
    return logits[0] if chosen else logits.flatten(0, 1)[position]


@contextmanager
def _head_input(model: nn.Module, input_ids: Tensor, choose: Callable[[Tensor], Tensor]) -> Iterator[list[bool]]:
    """Give the head of `model` only `choose(states)` [n, H] of its input [R, T, H] inside the context, as one row; the
    list stays empty where that cannot be done."""
    head = output_embeddings(model)
    chosen: list[bool] = []

    def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not args or args[0].shape[:-1] != input_ids.shape:
            return None
        chosen.append(True)
        return (choose(args[0]).unsqueeze(0), *args[1:])

    handle = head.register_forward_pre_hook(before) if head is not None else None
    try:
        yield chosen
    finally:
        if handle is not None:
            handle.remove()


def output_embeddings(model: nn.Module) -> nn.Module | None:
    """Return a causal model's head, None where it cannot be found."""
    getter: Callable[[], nn.Module | None] | None = getattr(model, "get_output_embeddings", None)
    return getter and getter()


def checkpoint_activations(model: nn.Module, on: bool) -> None:
    """Compute the activations of every layer anew in the backward pass, or keep them again; only in training mode.

    `model` may be wrapped. Raises UserError for an architecture without layers that can.
    """
    base = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)
    if base is None or not (on or base.is_activation_checkpointing):
        return
    if not on:
        base.activation_checkpointing_disable()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
        return
    if not base.supports_gradient_checkpointing:
        raise UserError(f"engine.gradient_checkpointing: {type(base).__name__} does not support it: set it to false")
    base.activation_checkpointing_enable({"use_reentrant": False})
    # Asked for by the reentrant kind only, whose frozen inputs would stop the gradient of every adapter behind them.
    base.disable_input_require_grads()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated


# States of one layer


@dataclass(frozen=True)
class Tap:
    """A place in a model where hidden states are read: the output of decoder layer `layer`, from 0, which is the
    residual stream behind it, at flat positions r*T + t, `position` [N]. `alone`: nothing behind that layer gets a
    gradient, so no activation of it is kept."""

    layer: int
    position: Tensor
    alone: bool = False

    @contextmanager
    def open(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """Collect the layer's output [R, T, H] of every forward inside the context, on its graph. `model` may be
        wrapped. Raises UserError for a layer that it does not have."""
        graph, outputs = torch.is_grad_enabled(), list[Tensor]()

        # Nothing else may happen in here: where activations are recomputed, the backward runs the layer without it.
        def after(_: nn.Module, __: Any, output: Any) -> None:
            outputs.append(output[0] if isinstance(output, tuple) else output)
            if self.alone:
                torch.set_grad_enabled(False)

        handle = decoder_layer(model, self.layer).register_forward_hook(after)
        try:
            yield outputs
        finally:
            handle.remove()
            torch.set_grad_enabled(graph)

    def states(self, outputs: list[Tensor], input_ids: Tensor) -> Tensor:
        """Return the states [N, H] of the last forward. Raises UserError for a layer whose output is none per token."""
        hidden = outputs[-1]
        if hidden.shape[:-1] != input_ids.shape:
            raise UserError("objective.layer: the output of this architecture's layers is not one state per token")
        return hidden.flatten(0, 1)[self.position]


def layer_states(model: nn.Module, input_ids: Tensor, tap: Tap, **further: Tensor) -> Tensor:
    """Return the states [N, H] of a forward pass without logits; inputs as in `scored_logits`."""
    with tap.open(model) as outputs:
        scored_logits(model, input_ids, tap.position[:0], **further)
    return tap.states(outputs, input_ids)


# Logits in parts


class ScoredLM(nn.Module):
    """A causal language model whose forward gives one value per scored position; the DeepSpeed engine wraps it.

    `in_parts`: more than `WHOLE_ELEMENTS` logits are never held at once. Off for ZeRO stage 3, whose ranks would call
    the head, a collective, each as often as its own rows need.
    """

    def __init__(self, model: nn.Module, in_parts: bool = True) -> None:
        super().__init__()
        self.model = model
        self.in_parts = in_parts

    def forward(
        self, input_ids: Tensor, position: Tensor, term: Term, tap: Tap | None = None, **further: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return `term` of the logits at each position [N], and with a `tap` its states [M, H]; inputs as in
        `scored_logits`."""
        if tap is None:
            return self.logits(input_ids, position, **further).map(term)
        with tap.open(self.model) as outputs:
            logits = self.logits(input_ids, position, **further)
        return logits.map(term), tap.states(outputs, input_ids)

    def logits(self, input_ids: Tensor, position: Tensor, **further: Tensor) -> PositionLogits:
        """Return the logits at the positions, in parts where they are many."""
        vocabulary = self._vocabulary()
        if self.in_parts and vocabulary and len(position) * vocabulary > WHOLE_ELEMENTS:
            logits = self._in_parts(input_ids, position, vocabulary, further)
            if logits is not None:
                return logits
            self.in_parts = False
        return PositionLogits(scored_logits(self.model, input_ids, position, **further))

    def _vocabulary(self) -> int:
        """Return the width of the head, 0 where it cannot be found."""
        head = output_embeddings(self.model)
        return 0 if head is None else int(cast(Tensor, head.weight).shape[0])

    def _in_parts(
        self, input_ids: Tensor, position: Tensor, vocabulary: int, further: dict[str, Tensor]
    ) -> PositionLogits | None:
        """Return logits in parts, None for a model that does more behind its head than `_Head` knows: the first
        position's logits are the model's own, to compare with."""
        found: list[Tensor] = []

        def first(states: Tensor) -> Tensor:
            found.append(states.flatten(0, 1)[position])
            return found[0][:1]

        with _head_input(self.model, input_ids, first):
            own = self.model(input_ids=input_ids, use_cache=False, **further).logits
        if not found:
            return None
        head = _Head(self.model)
        with torch.no_grad():
            own, ours = own[0].float(), head(found[0][:1]).float()
            if not bool((own - ours).abs().max() <= TOLERANCE * own.std()):
                # Also where both are NaN: the whole logits then tell it.
                return None
        size = max(1, PART_ELEMENTS.get(position.device.type, 1 << 25) // vocabulary)
        return PositionLogits(found[0], head, size)


class _Head:
    """A model's head with what known families do behind it."""

    def __init__(self, model: nn.Module) -> None:
        config: Any = cast(Any, model).config.get_text_config(decoder=True)
        head = output_embeddings(model)
        assert head is not None
        self.head = head
        self.trained = any(p.requires_grad for p in head.parameters())
        self.factor: float = (getattr(config, "logit_scale", None) or 1) / (
            getattr(config, "logits_scaling", None) or 1
        )
        self.cap: float | None = getattr(config, "final_logit_softcapping", None)

    def __call__(self, states: Tensor) -> Tensor:
        """Return logits [n, V] of states [n, H]."""
        logits: Tensor = self.head(states)
        logits = logits if self.factor == 1 else logits * self.factor
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


@dataclass
class PositionLogits:
    """Logits [N, V] at scored positions. `values` are the logits themselves, or with a `head` its inputs [N, H], of
    which it is given `size` at a time."""

    values: Tensor
    head: _Head | None = None
    size: int = 0

    def of(self, part: slice) -> Tensor:
        """Return the logits of a part of the positions."""
        return self.values[part] if self.head is None else self.head(self.values[part])

    def map(self, term: Term) -> Tensor:
        """Return `term` of all positions [N], on the graph."""
        if self.head is None:
            return term(self.values, slice(0, len(self.values)))
        starts = range(0, len(self.values), self.size)
        parts = [slice(start, min(start + self.size, len(self.values))) for start in starts]
        if not torch.is_grad_enabled():
            return torch.cat([term(self.of(part), part) for part in parts])
        if not self.head.trained:
            return cast(Tensor, _FrozenHeadTerms.apply(self.values, self.head, term, parts))  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        # A trained head's gradient needs the logits once more.
        head = self.head
        found = [
            checkpoint(lambda states, part: term(head(states), part), states, part, use_reentrant=False)
            for states, part in zip(torch.split(self.values, self.size), parts, strict=True)
        ]
        return torch.cat(found)


class _FrozenHeadTerms(torch.autograd.Function):
    """A position's value depends on its own state alone, so the forward takes all gradients [N, H], which the backward
    scales: no logits are computed twice."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: _Head, term: Term, parts: list[slice]) -> Tensor:
        values, gradients = [], torch.empty_like(states)
        for part in parts:
            with torch.enable_grad():
                inputs = states[part].detach().requires_grad_()
                value = term(head(inputs), part)
            values.append(value.detach())
            (gradients[part],) = torch.autograd.grad(value, inputs, torch.ones_like(value))
        ctx.save_for_backward(gradients)
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return (grad.unsqueeze(1) * gradients).to(gradients.dtype), None, None, None
