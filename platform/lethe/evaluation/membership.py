"""Membership inference: signals that tell from a model whether a row was among its training data.

A signal is one number per row, the lower the likelier the row was in the training data. The attack's strength is the
AUC with forget rows as members against holdout rows, which no model has seen: .5 is chance, 1 is certain.

    loss                 mean token NLL (Yeom et al. 2018, arXiv 1709.01604)
    zlib                 loss / bytes of the answer, compressed (Carlini et al. 2021, arXiv 2012.07805)
    min_k                minus the mean of the lowest 40 % of log-probabilities (Shi et al. 2024, arXiv 2310.16789)
    min_k_plus_plus      the same of standardised log-probabilities (Zhang et al. 2025, arXiv 2404.02936)
    gradnorm             norm of the row's gradient: how much the model would still learn from it (`gradient_norms`)
    reference            loss - the oracle's loss, see `lethe.benchmarks.tofu.metrics`

Min-K leaves the end of sequence out, the others include it, as the public implementation of TOFU's authors does.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lethe.data.template import Encoded
from lethe.evaluation.causal_lm import device_of
from lethe.evaluation.metrics import auc, losses
from lethe.models.forward import scored_logits

if TYPE_CHECKING:
    from lethe.evaluation.likelihood import LikelihoodScores

MIN_K = 0.4  # share of an answer's least likely tokens
TINY = 1e-10  # added to a divisor that is 0 for an oracle with AUC 1


def signals(
    scores: LikelihoodScores, rows: Iterable[int], answers: Sequence[str], *, has_end: bool = True
) -> dict[str, np.ndarray]:
    """Return the signals that `scores` alone gives, by name, each [n] and never NaN. `rows`: the numbers of n pairs in
    `scores`; `answers`: their texts; `has_end`: the last token of each is an end of sequence."""
    rows, stop = list(rows), -1 if has_end else None
    loss = losses(scores.nll_mean[rows])
    return {
        "loss": loss,
        "zlib": loss / np.array([len(zlib.compress(text.encode())) for text in answers], dtype=np.float64),
        "min_k": -min_k([scores.logp[i][:stop] for i in rows]),
        "min_k_plus_plus": -min_k([scores.standard[i][:stop] for i in rows]),
    }


def min_k(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of each row's lowest `MIN_K` values, of at least one [n]. NaN counts as infinite; a row that is
    empty, or whose mean is infinite then, gives minus infinity."""
    lengths = np.array([len(row) for row in values])
    table = np.full((len(values), max(1, lengths.max(initial=0))), np.inf)
    table[np.arange(table.shape[1]) < lengths[:, None]] = losses(np.concatenate(values))
    table.sort(1)
    taken = np.maximum(1, (lengths * MIN_K).astype(np.int64))
    mean = table.cumsum(1)[np.arange(len(values)), taken - 1] / taken
    return np.where(mean < np.inf, mean, -np.inf)


def membership_metrics(members: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return `mia_<signal>`, the AUC of members against others, for every signal that both have."""
    return {f"mia_{name}": auc(-members[name], -others[name]) for name in members if name in others}


def privleak(auc: float, oracle_auc: float) -> dict[str, float]:
    """Return `privleak` and its absolute value, `privleak_distance`, from Min-K's AUC of a model and of its oracle.

    privleak = 100 ((1 - AUC) - (1 - AUC*)) / (1 - AUC*) (Shi et al. 2024, arXiv 2407.06460): 0 like the oracle, below
    it where forget rows are still remembered, above it where they stand out as forgotten.
    """
    leak = 100 * (oracle_auc - auc) / (1 - oracle_auc + TINY)
    return {"privleak": leak, "privleak_distance": abs(leak)}


def gradient_norms(model: nn.Module, pairs: Sequence[Encoded]) -> list[float]:
    """Return for each pair [n] the mean over the model's weight tensors of the L2 norm of the loss's gradient; one
    forward and one backward pass per pair.

    The loss is the summed NLL of the answer and its end over the number of tokens before that end. Both means are the
    public implementation's, whose values these are. An adapter's own tensors do not count: the gradient at W + B A is
    W's. One tensor's gradient is in memory at a time. Not for weights that ZeRO-3 has sharded.
    """
    weights = [p for name, p in model.named_parameters() if "lora_" not in name and p.is_floating_point()]
    means = []
    with _collect_norms(weights) as norms:
        for pair in pairs:
            torch.autograd.grad(_loss(model, pair), weights, allow_unused=True)
            means.append(float(torch.stack(norms).mean()))
            norms.clear()
    return means


def _loss(model: nn.Module, pair: Encoded) -> Tensor:
    ids = torch.tensor([pair.ids], device=device_of(model))
    logits = scored_logits(model, ids, torch.arange(pair.prompt_length - 1, ids.shape[1] - 1, device=ids.device))
    labels = ids[0, pair.prompt_length :]
    return cross_entropy(logits.float(), labels, reduction="sum") / max(1, len(labels) - 1)


@contextmanager
def _collect_norms(weights: Sequence[nn.Parameter]) -> Iterator[list[Tensor]]:
    """Inside the block, append the norm of each gradient to the yielded list and keep no gradient. Afterwards the
    weights' `requires_grad` is what it was."""
    norms: list[Tensor] = []

    def keep_norm(gradient: Tensor) -> Tensor:
        norms.append(torch.linalg.vector_norm(gradient, dtype=torch.float32))
        # One zero in the shape of the weight takes no memory. `torch.autograd.grad` leaves `.grad`, and what DeepSpeed
        # has hooked there, alone.
        return gradient.new_zeros(()).expand_as(gradient)

    flags = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    hooks = [weight.register_hook(keep_norm) for weight in weights]  # type: ignore[no-untyped-call]  # torch has none here
    try:
        with torch.enable_grad():
            yield norms
    finally:
        for hook, weight, flag in zip(hooks, weights, flags, strict=True):
            hook.remove()
            weight.requires_grad_(flag)
