"""Audit by quantisation: rounding the weights can undo small changes of them. Zhang et al. 2024, arXiv 2410.16454."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lethe.audits.base import AUDITS, Audited
from lethe.config.audits import FULL, Quantisation
from lethe.models.adapters import linear_layers, stacked_weight, stacks_of, weight_of
from lethe.records import AuditRecord


@AUDITS.implements(Quantisation)
def quantise(audited: Audited, config: Quantisation) -> Iterator[AuditRecord]:
    """Repeat the whole evaluation at every precision."""
    names = (*FULL, *audited.context.assets.benchmark.leaks)
    before = {name: audited.metrics[name] for name in names}
    for variant, bits in zip(config.variants(), config.bits, strict=True):
        metrics = audited.evaluate(quantised(audited.model, bits))
        yield AuditRecord(variant=variant, before=before, after={name: metrics[name] for name in names})


@torch.no_grad()
def quantised(model: PreTrainedModel, bits: int) -> PreTrainedModel:
    """Return a copy of the model whose linear layers and stacked experts, all but the head, hold rounded weights in
    their own dtype."""
    rounded_model = copy.deepcopy(model)
    layers = [weight_of(module) for module in linear_layers(rounded_model).values()]
    for weight in [*layers, *(stacked_weight(rounded_model, name) for name in stacks_of(rounded_model))]:
        weight.copy_(rounded(weight, bits))
    return rounded_model


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Return `weight` [..., out, in] rounded row by row to a grid of 2^bits - 1 equally spaced values, symmetric around
    0, that ends at the row's largest absolute weight."""
    levels = 2 ** (bits - 1) - 1
    step = weight.abs().amax(-1, keepdim=True) / levels
    step = torch.where(step > 0, step, 1.0)  # a row of zeros stays as it is
    return (weight / step).round() * step
