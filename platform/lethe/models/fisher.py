"""FILA's weights: how much each output row of a layer matters to the forget rows and not to the retain rows.

w_i = sqrt(sum_j F_f[i, j] / (F_r[i, j] + eps)),   F = E[(d NLL / d W)^2]

LoKU: Cha et al. 2024, arXiv 2408.06621; docs/METHODS.md section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lethe.config.adapter import Fila
from lethe.data.template import Encoded
from lethe.models.adapters import features, stored_weight, target_modules
from lethe.models.quantised import plain_layers

# Of F_r in fp32 at a time: layers beyond it wait for another pass over the rows. A decoder layer of an 8B Llama has
# 0.87e9 bytes, and models up to 250M parameters need one pass.
HELD_BYTES = 1 << 30

Item = TypeVar("Item")
Part = tuple[float, Sequence[Encoded]]  # rows behind one squared gradient, and its share of the Fisher
UseGradient = Callable[[str, float, Tensor], None]  # takes a layer's name, the share and the fp32 gradient, once


def row_weights(
    model: PreTrainedModel, forget: Sequence[Encoded], retain: Sequence[Encoded], config: Fila
) -> dict[str, Tensor]:
    """Return w [out] fp32 of each target layer by name, from `fisher_rows` forget rows and up to as many retain rows,
    both evenly spread.

    `fisher: example` averages the rows' squared gradients of their mean answer NLL, as published; `batch` squares the
    gradient of each batch's mean token NLL and weighs it by its tokens, as released. A relative eps is a share of the
    layer's mean F_r (an absolute 1e-5, as released, swamps F_r at any real size). The model's weights, flags and
    `.grad` are left as they were.

    Beside the model and the activations of one part's rows it holds F_r of one group of layers (`layer_groups`) and the
    gradient of one layer; `batch` with several rows holds the gradients of the group. The layers of a group are plain
    while it is worked on: F of a quantised layer is that of the weights that it multiplies with.
    """
    count = len(forget) if config.fisher_rows is None else config.fisher_rows
    of_forget, of_retain = (fisher_parts(evenly_spread(rows, count), config) for rows in (forget, retain))
    result: dict[str, Tensor] = {}
    for names in layer_groups(model, target_modules(model, config.targets)):
        with plain_layers(model, names):
            modules = {name: model.get_submodule(name) for name in names}
            with differentiable(model, [stored_weight(module) for module in modules.values()]):
                result |= _group_weights(model, modules, of_forget, of_retain, config)
    return result


def evenly_spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return `count` of the items at equal distances, from the first on; all where there are no more."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def layer_groups(model: nn.Module, names: Iterable[str]) -> list[list[str]]:
    """Return the layers `names` in order, in groups whose weights have at most HELD_BYTES in fp32; a larger layer is a
    group of its own. Weights on the meta device are enough."""
    groups: list[list[str]] = []
    held = 0
    for name in names:
        size = 4 * prod(features(model.get_submodule(name)))
        if not groups or held + size > HELD_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups


def _group_weights(
    model: PreTrainedModel,
    modules: Mapping[str, nn.Module],
    forget: Sequence[Part],
    retain: Sequence[Part],
    config: Fila,
) -> dict[str, Tensor]:
    """Return w of the layers `modules`, whose weights alone have gradients."""
    weights = {name: stored_weight(module) for name, module in modules.items()}
    retain_fisher = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}

    def add(name: str, share: float, grad: Tensor) -> None:
        retain_fisher[name].addcmul_(grad, grad, value=share)

    _each_gradient(model, weights, retain, add)
    for fisher in retain_fisher.values():
        scale = fisher.mean() if config.fisher_eps_relative else fisher.new_ones(())
        fisher.add_((config.fisher_eps * scale).clamp_min(torch.finfo(torch.float32).tiny))
    # Only row sums of F_f / (F_r + eps) are needed, so F_f itself is never held.
    inputs = {name: 0 if isinstance(module, Conv1D) else 1 for name, module in modules.items()}
    sums = {name: fisher.new_zeros(fisher.shape[1 - inputs[name]]) for name, fisher in retain_fisher.items()}

    def add_ratio(name: str, share: float, grad: Tensor) -> None:
        sums[name] += grad.square_().div_(retain_fisher[name]).sum(inputs[name]) * share

    _each_gradient(model, weights, forget, add_ratio)
    return {name: total.sqrt_() for name, total in sums.items()}


def _each_gradient(
    model: PreTrainedModel, weights: Mapping[str, Tensor], parts: Sequence[Part], use: UseGradient
) -> None:
    """Call `use` with the gradient of the mean token NLL of every part for every weight that has one. A gradient is
    passed on as soon as the backward pass has it, and freed then: no set of them is held."""
    for share, rows in parts:
        with ExitStack() as stack:
            for name, weight in weights.items():

                def pass_on(weight: Tensor, name: str = name, share: float = share) -> None:
                    assert weight.grad is not None
                    grad, weight.grad = weight.grad, None
                    use(name, share, grad.float())

                hook = weight.register_post_accumulate_grad_hook(pass_on)  # type: ignore[no-untyped-call]
                stack.callback(hook.remove)
            mean_nll(model, rows).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated


def fisher_parts(rows: Sequence[Encoded], config: Fila) -> list[Part]:
    """Return the rows behind each gradient of a Fisher estimate, with its share: single rows, or batches by tokens."""
    if config.fisher == "example":
        return [(1 / len(rows), [row]) for row in rows]
    size = config.fisher_batch_size
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [(_tokens(batch) / _tokens(rows), batch) for batch in batches]


def mean_nll(model: PreTrainedModel, rows: Sequence[Encoded]) -> Tensor:
    """Return the mean token NLL of the rows' answers."""
    return torch.stack([_nll(model, row) for row in rows]).sum() / _tokens(rows)


def _nll(model: PreTrainedModel, row: Encoded) -> Tensor:
    """Return the summed NLL of a row's answer."""
    ids = torch.tensor([row.ids], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, row.prompt_length - 1 : -1]
    return cross_entropy(logits.float(), ids[0, row.prompt_length :], reduction="sum")


def _tokens(rows: Sequence[Encoded]) -> int:
    return sum(len(row.ids) - row.prompt_length for row in rows)


@contextmanager
def differentiable(model: PreTrainedModel, weights: list[Tensor]) -> Iterator[None]:
    """Put the model in evaluation mode with gradients on `weights` only, and restore flags, gradients and mode
    afterwards."""
    before = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    training = model.training
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    model.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
        weight.grad = None
    try:
        with torch.enable_grad():
            yield
    finally:
        model.train(training)
        for p, flag, grad in before:
            p.requires_grad_(flag)
            p.grad = grad
