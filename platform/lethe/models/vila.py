"""VILA's weights: FILA's, from the Fisher information of a random adapter instead of every weight.

w_i = sqrt(sum_j F_f[i, j] / (F_r[i, j] + eps)),   F = Var[d NLL / d B] Var[d NLL / d A],   A, B ~ N(0, fisher_std^2)

VILA: Kim et al. 2025, arXiv 2508.21300, as its authors released it; docs/METHODS.md section 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lethe.config.adapter import Vila
from lethe.data.template import Encoded
from lethe.errors import UserError
from lethe.models.adapters import features, target_modules
from lethe.models.fisher import Part, differentiable, evenly_spread, fisher_parts, mean_nll

Pair = tuple[Tensor, Tensor]  # of A [r, in] and of B [out, r]


def adapter_row_weights(
    model: PreTrainedModel, forget: Sequence[Encoded], retain: Sequence[Encoded], config: Vila
) -> dict[str, Tensor]:
    """Return w [out] fp32 of each target layer by name, from the rows that `fisher.row_weights` takes.

    The adapter is drawn by the layers' names alone, so that every trial of every study has the same. Beside the model
    and the activations of one part's rows this holds seven tensors of the adapter's size. The model is left as it was.
    Raises UserError where there is a single gradient, whose variance is zero.
    """
    parts = _parts(forget, retain, config)
    with differentiable(model, []), _random_adapters(model, config) as adapters:
        of_forget, of_retain = (_variances(model, adapters, part) for part in parts)
    result = {}
    for name in adapters:
        (a_f, b_f), (a_r, b_r) = of_forget[name], of_retain[name]
        fisher = b_r @ a_r
        scale = fisher.mean() if config.fisher_eps_relative else fisher.new_ones(())
        fisher += (config.fisher_eps * scale).clamp_min(torch.finfo(torch.float32).tiny)
        result[name] = (b_f @ a_f).div_(fisher).sum(1).sqrt_()
    return result


def check_variance(forget: Sequence[Encoded], retain: Sequence[Encoded], config: Vila) -> None:
    """Raise UserError where the rows give a single gradient, whose variance is zero."""
    _parts(forget, retain, config)


def _parts(forget: Sequence[Encoded], retain: Sequence[Encoded], config: Vila) -> list[list[Part]]:
    count = len(forget) if config.fisher_rows is None else config.fisher_rows
    parts = [fisher_parts(evenly_spread(rows, count), config) for rows in (forget, retain)]
    if any(len(part) < 2 for part in parts):
        raise UserError(
            f"adapter.name: {config.name} takes the variance of gradients, and {len(forget)} forget and {len(retain)} "
            "retain rows give a single one: take fila"
        )
    return parts


def _variances(model: PreTrainedModel, adapters: dict[str, Pair], parts: Sequence[Part]) -> dict[str, Pair]:
    """Return the elementwise variance over `parts` of the gradient of each adapter: E[g^2] - E[g]^2."""
    leaves = [factor for pair in adapters.values() for factor in pair]
    means, squares = ([torch.zeros_like(leaf) for leaf in leaves] for _ in range(2))
    for share, rows in parts:
        grads = torch.autograd.grad(mean_nll(model, rows), leaves, materialize_grads=True)
        for mean, square, grad in zip(means, squares, grads, strict=True):
            mean.add_(grad, alpha=share)
            square.addcmul_(grad, grad, value=share)
    for mean, square in zip(means, squares, strict=True):
        square.addcmul_(mean, mean, value=-1).clamp_min_(0)
    return dict(zip(adapters, zip(squares[::2], squares[1::2], strict=True), strict=True))


@contextmanager
def _random_adapters(model: PreTrainedModel, config: Vila) -> Iterator[dict[str, Pair]]:
    """Inside the block every target layer computes W x + B A x. Yield A and B by name, fp32 and with gradients."""
    adapters: dict[str, Pair] = {}
    with ExitStack() as stack:
        for name in target_modules(model, config.targets):
            module = model.get_submodule(name)
            rows, columns = features(module)
            digest = hashlib.sha256(name.encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
            shapes = (config.fisher_rank, columns), (rows, config.fisher_rank)
            a, b = (
                (config.fisher_std * torch.randn(shape, generator=generator)).to(model.device).requires_grad_()
                for shape in shapes
            )
            adapters[name] = a, b
            stack.callback(module.register_forward_hook(_adding(a, b)).remove)
        yield adapters


def _adding(a: Tensor, b: Tensor) -> Any:
    def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + (inputs[0].float() @ a.T @ b.T).to(output.dtype)

    return add
