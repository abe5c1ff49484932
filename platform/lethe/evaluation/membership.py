"""Membership inference: can one tell from the model that a row was among its training data?

A signal is one number a row, the lower the likelier it was. The attack's strength is the AUC with forget rows as
members against holdout rows, which no model has seen: .5 is blind, 1 is certain.
    loss                 mean token NLL (Yeom et al. 2018, arXiv 1709.01604)
    zlib                 loss / bytes of the answer, compressed (Carlini et al. 2021, arXiv 2012.07805)
    min_k                minus the mean of the least likely 40 % of log-probabilities (Shi et al. 2024, arXiv 2310.16789)
    min_k_plus_plus      the same of standardised log-probabilities (Zhang et al. 2025, arXiv 2404.02936)
    gradnorm             see `lethe.evaluation.membership`
    reference            loss - the oracle's loss, see `lethe.benchmarks.tofu.reference`
Min-K leaves out the end of sequence, the others have it. As in the public implementation of TOFU's authors.

The norm of each row's gradient: membership inference by how much the model would still learn from the row.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from lethe.data.template import Encoded
from lethe.evaluation.metrics import auc, losses
from lethe.models.forward import scored_logits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from lethe.evaluation.likelihood import LikelihoodScores


MIN_K = 0.4  # share of an answer's least likely tokens


def signals(scores: LikelihoodScores, rows: Iterable[int], answers: Sequence[str]) -> dict[str, np.ndarray]:
    """Each signal of these pairs [n], from `scores` alone; never NaN."""
    rows = list(rows)
    loss = losses(scores.nll_mean[rows])
    return {
        "loss": loss,
        "zlib": loss / np.array([len(zlib.compress(text.encode())) for text in answers], dtype=np.float64),
        "min_k": -min_k([scores.logp[i][:-1] for i in rows]),
        "min_k_plus_plus": -min_k([scores.standard[i][:-1] for i in rows]),
    }


def min_k(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of each row's lowest `MIN_K`, at least of one [n]; minus infinity for what is no number or empty."""
    lengths = np.array([len(row) for row in values])
    table = np.full((len(values), max(1, lengths.max(initial=0))), np.inf)
    table[np.arange(table.shape[1]) < lengths[:, None]] = losses(np.concatenate(values))
    table.sort(1)
    taken = np.maximum(1, (lengths * MIN_K).astype(np.int64))
    mean = table.cumsum(1)[np.arange(len(values)), taken - 1] / taken
    return np.where(mean < np.inf, mean, -np.inf)


def membership_metrics(members: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`mia_<signal>` of every signal that both have."""
    return {f"mia_{name}": auc(-members[name], -others[name]) for name in members if name in others}


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
