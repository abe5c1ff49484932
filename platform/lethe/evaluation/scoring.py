"""One teacher-forced pass over (prompt, answer) pairs: what every likelihood metric is made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lethe.data.template import Encoded
from lethe.models.forward import scored_logits

LOG_SOFTMAX_ELEMENTS = 2**24  # of the float32 copy, 64 MB, that log-softmax works on at a time


@dataclass(frozen=True)
class Scores:
    """Per pair, in the order given; the answer includes its end-of-sequence token. Natural logarithms, float64.

    `logp[i]` [t]: log-probability of each answer token; `correct[i]` [t]: whether it is the argmax.
    """

    logp: list[np.ndarray]
    correct: list[np.ndarray]

    @property
    def nll_sum(self) -> np.ndarray:
        """Summed negative log-likelihood [n]."""
        return np.array([-row.sum() for row in self.logp], dtype=np.float64)

    @property
    def tokens(self) -> np.ndarray:
        """Scored tokens [n], the end of sequence included."""
        return np.array([len(row) for row in self.logp], dtype=np.int64)

    @property
    def nll_mean(self) -> np.ndarray:
        """Mean token negative log-likelihood [n]: the loss that TOFU's metrics are made from."""
        return self.nll_sum / self.tokens


def score(model: nn.Module, pairs: Sequence[Encoded], *, pad: int, token_budget: int) -> Scores:
    """Score every answer given its prompt; `token_budget` bounds rows x longest pair of one forward pass.

    The model may be adapter-wrapped, in any dtype, on any device; log-softmax is in float32, over the answer's
    positions only. Put it in eval mode first.
    """
    logp: list[np.ndarray] = [np.empty(0)] * len(pairs)
    correct: list[np.ndarray] = [np.empty(0, dtype=bool)] * len(pairs)
    for batch in batches([len(pair.ids) for pair in pairs], token_budget):
        chosen = [pairs[i] for i in batch]
        ends = np.cumsum([len(pair.ids) - pair.prompt_length for pair in chosen])[:-1]
        flat_logp, flat_correct = _score_batch(model, chosen, pad)
        for i, row in zip(batch, np.split(flat_logp, ends), strict=True):
            logp[i] = row
        for i, row in zip(batch, np.split(flat_correct, ends), strict=True):
            correct[i] = row
    return Scores(logp, correct)


def batches(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Indices, longest first, in groups whose padded size stays within the budget (one row always fits)."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        rows = max(1, token_budget // max(1, lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


@torch.no_grad()
def _score_batch(model: nn.Module, pairs: Sequence[Encoded], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability and correctness of all answer tokens of a batch, one after another."""
    device = next(model.parameters()).device
    width = len(pairs[0].ids)
    ids = torch.tensor([[*pair.ids, *[pad] * (width - len(pair.ids))] for pair in pairs], device=device)
    before = [range(pair.prompt_length - 1, len(pair.ids) - 1) for pair in pairs]  # a token is predicted one earlier
    places = torch.tensor([row * width + at for row, places in enumerate(before) for at in places], device=device)
    logits = scored_logits(model, ids, places)
    return _gather(logits, ids.flatten()[places + 1])


def _gather(logits: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability [n] of each label in float64 (computed in float32), and whether it is the argmax."""
    rows = max(1, LOG_SOFTMAX_ELEMENTS // logits.shape[-1])
    logp, correct = [], []
    for some, label in zip(logits.split(rows), labels.split(rows), strict=True):
        logp.append(some.float().log_softmax(-1).gather(-1, label[:, None])[:, 0])
        correct.append(some.argmax(-1) == label)
    return torch.cat(logp).double().cpu().numpy(), torch.cat(correct).cpu().numpy()
