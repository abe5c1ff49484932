"""Does rounding the weights bring back what small changes of them had hidden? Zhang et al. 2024, arXiv 2410.16454."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from lethe.audits.base import Audited
from lethe.config.audits import Quantisation, measured
from lethe.models.adapters import target_modules, weight_of
from lethe.records import AuditRecord
from torch import Tensor
from transformers import PreTrainedModel


def quantise(audited: Audited, config: Quantisation) -> Iterator[AuditRecord]:
    """The whole evaluation again, at every precision."""
    names = measured("quant", audited.context.assets.benchmark.leaks)
    before = {name: audited.metrics[name] for name in names}
    for bits in config.bits:
        found = audited.evaluate(quantised(audited.model, bits))
        yield AuditRecord(variant=f"quant{bits}", before=before, after={name: found[name] for name in names})


@torch.no_grad()
def quantised(model: PreTrainedModel, bits: int) -> PreTrainedModel:
    """A copy whose linear layers, all but the head, hold rounded weights in their own dtype."""
    rounded_model = copy.deepcopy(model)
    for name in target_modules(rounded_model, "all-linear"):
        weight = weight_of(rounded_model.get_submodule(name))
        weight.copy_(rounded(weight, bits))
    return rounded_model


def rounded(weight: Tensor, bits: int) -> Tensor:
    """[out, in]: each row on its own grid of 2^bits - 1 values, even around 0, whose end is its largest weight."""
    levels = 2 ** (bits - 1) - 1
    step = weight.abs().amax(1, keepdim=True) / levels
    step = torch.where(step > 0, step, 1.0)  # a row of zeros stays one
    return (weight / step).round() * step
