"""Audit by quantisation: rounding the weights can undo small changes of them. Zhang et al. 2024, arXiv 2410.16454."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lethe.audits.base import AUDITS, Audited
from lethe.config.audits import FULL, Quantisation
from lethe.models.adapters import linear_layers, stacked_weight, stacks_of, weight_of
from lethe.models.loading import put_adapter
from lethe.models.merging import is_adapter
from lethe.models.quantised import dequantised
from lethe.models.rounding import int8, int8_activations, nf4
from lethe.records import AuditRecord

BESIDE = "nf4_adapter"


@AUDITS.implements(Quantisation)
def quantise(audited: Audited, config: Quantisation) -> Iterator[AuditRecord]:
    """Repeat the whole evaluation at every precision. A model with an adapter is rounded when that is merged, but for
    the variant that leaves it beside a rounded base."""
    names = (*FULL, *audited.context.assets.benchmark.leaks)
    before = {name: audited.metrics[name] for name in names}
    for variant, bits in zip(config.variants(), config.bits, strict=True):
        # No name for the copy: it would live while the next one is made.
        metrics = audited.evaluate(_beside(audited) if bits == BESIDE else quantised(audited.model, bits))
        yield AuditRecord(variant=variant, before=before, after={name: metrics[name] for name in names})


def _beside(audited: Audited) -> nn.Module:
    """Return the model with its adapter beside a base in NF4, as servers of QLoRA have it; in NF4 as a whole where it
    has none."""
    if not is_adapter(audited.folder):
        return quantised(audited.model, "nf4")
    base = _round_in_place(dequantised(audited.context.fresh_model()), "nf4")
    beside: nn.Module = put_adapter(base, audited.folder)
    return beside.eval()


def quantised(model: PreTrainedModel, bits: int | str) -> PreTrainedModel:
    """Return a copy of the model whose linear layers and stacked experts, all but the head, hold rounded weights in
    their own dtype. `bits`: of a symmetric grid, or `nf4` or `int8`, with which linear layers round their inputs,
    too."""
    return _round_in_place(copy.deepcopy(model), bits)


@torch.no_grad()
def _round_in_place(model: PreTrainedModel, bits: int | str) -> PreTrainedModel:
    layers = linear_layers(model)
    for module in layers.values():
        weight = weight_of(module)
        weight.copy_(rounding(bits)(weight))
        if bits == "int8":
            module.register_forward_pre_hook(_round_inputs)
    for name in stacks_of(model):
        for weight in stacked_weight(model, name):  # each expert's matrix is rounded alone
            weight.copy_(rounding(bits)(weight))
    return model


def _round_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return int8_activations(inputs[0]), *inputs[1:]


def rounding(bits: int | str) -> Callable[[Tensor], Tensor]:
    """Return the function that rounds a matrix [out, in]."""
    return {"nf4": nf4, "int8": int8}[bits] if isinstance(bits, str) else partial(rounded, bits=bits)


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Return `weight` [..., out, in] rounded row by row to a grid of 2^bits - 1 equally spaced values, symmetric around
    0, that ends at the row's largest absolute weight."""
    levels = 2 ** (bits - 1) - 1
    step = weight.abs().amax(-1, keepdim=True) / levels
    step = torch.where(step > 0, step, 1.0)  # a row of zeros stays as it is
    return (weight / step).round() * step
