"""FILA's weights: how much each output row of a layer matters to the forget rows and not to the retain rows.

w_i = sqrt(sum_j F_f[i, j] / (F_r[i, j] + eps)),   F = E[(d NLL / d W)^2]

LoKU: Cha et al. 2024, arXiv 2408.06621; docs/METHODS.md section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lethe.config.adapter import Fila
from lethe.data.template import Encoded
from lethe.models.adapters import stored_weight, target_modules

Part = tuple[float, Sequence[Encoded]]  # rows behind one squared gradient, and its share of the Fisher


def row_weights(
    model: PreTrainedModel, forget: Sequence[Encoded], retain: Sequence[Encoded], config: Fila
) -> dict[str, Tensor]:
    """Return w [out] fp32 of each target layer by name, from the first `fisher_rows` forget rows and up to
    `fisher_rows` retain rows, evenly spread.

    `fisher: example` averages the rows' squared gradients of their mean answer NLL, as published; `batch` squares the
    gradient of each batch's mean token NLL and weighs it by its tokens, as released. A relative eps is a share of the
    layer's mean F_r (an absolute 1e-5, as released, swamps F_r at any real size). The model's weights, flags and
    `.grad` are left as they were.
    """
    count = config.fisher_rows
    forget, retain = forget[:count], retain[:: max(1, len(retain) // count)][:count]
    modules = {name: model.get_submodule(name) for name in target_modules(model, config.targets)}
    weights = {name: stored_weight(module) for name, module in modules.items()}
    with _differentiable(model, list(weights.values())):
        retain_fisher = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}
        for share, name, grad in _gradients(model, weights, _parts(retain, config)):
            retain_fisher[name].addcmul_(grad, grad, value=share)
        for fisher in retain_fisher.values():
            scale = fisher.mean() if config.fisher_eps_relative else fisher.new_ones(())
            fisher.add_((config.fisher_eps * scale).clamp_min(torch.finfo(torch.float32).tiny))
        # Only row sums of F_f / (F_r + eps) are needed, so F_f itself is never held.
        inputs = {name: 0 if isinstance(module, Conv1D) else 1 for name, module in modules.items()}
        sums = {name: fisher.new_zeros(fisher.shape[1 - inputs[name]]) for name, fisher in retain_fisher.items()}
        for share, name, grad in _gradients(model, weights, _parts(forget, config)):
            sums[name] += grad.square().div_(retain_fisher[name]).sum(inputs[name]) * share
    return {name: total.sqrt_() for name, total in sums.items()}


def _parts(rows: Sequence[Encoded], config: Fila) -> list[Part]:
    if config.fisher == "example":
        return [(1 / len(rows), [row]) for row in rows]
    size = config.fisher_batch_size
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [(_tokens(batch) / _tokens(rows), batch) for batch in batches]


def _gradients(
    model: PreTrainedModel, weights: dict[str, Tensor], parts: Sequence[Part]
) -> Iterator[tuple[float, str, Tensor]]:
    """Yield (share, module, fp32 gradient of the mean token NLL) of every part, with one backward pass each."""
    for share, rows in parts:
        loss = torch.stack([_nll(model, row) for row in rows]).sum() / _tokens(rows)
        grads = torch.autograd.grad(loss, list(weights.values()))
        yield from ((share, name, grad.float()) for name, grad in zip(weights, grads, strict=True))


def _nll(model: PreTrainedModel, row: Encoded) -> Tensor:
    """Return the summed NLL of a row's answer."""
    ids = torch.tensor([row.ids], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, row.prompt_length - 1 : -1]
    return cross_entropy(logits.float(), ids[0, row.prompt_length :], reduction="sum")


def _tokens(rows: Sequence[Encoded]) -> int:
    return sum(len(row.ids) - row.prompt_length for row in rows)


@contextmanager
def _differentiable(model: PreTrainedModel, weights: list[Tensor]) -> Iterator[None]:
    """Put the model in evaluation mode with gradients on `weights` only, and restore flags and mode afterwards."""
    flags = [p.requires_grad for p in model.parameters()]
    training = model.training
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    model.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        model.train(training)
        for p, flag in zip(model.parameters(), flags, strict=True):
            p.requires_grad_(flag)
