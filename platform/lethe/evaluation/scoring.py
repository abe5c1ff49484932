"""One teacher-forced pass over (prompt, answer) pairs: what every likelihood metric is made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lethe.data.template import Encoded
from lethe.models.forward import scored_logits

LOGIT_BYTES = 2**29  # of one forward pass's logits: they grow with the vocabulary, so the batch has to shrink with it
CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**24}  # of a float32 copy of them; a CPU keeps 4 MB in its caches
SMALLEST_SIGMA = 1e-6  # of log-probabilities in float32; below it a distribution is one point
IMPOSSIBLE = -1e4  # in place of a log-probability of minus infinity, whose share in a mean is 0


@dataclass(frozen=True)
class Scores:
    """Per pair, in the order given; the answer includes its end-of-sequence token. Natural logarithms, float64.

    `logp[i]` [t]: log-probability of each answer token; `correct[i]` [t]: whether it is the argmax; `standard[i]` [t]:
    (logp - mu) / sigma, with mean and standard deviation of a token's log-probability as the model itself would draw
    it there (Min-K++, arXiv 2404.02936): empty for pairs of which it was not wanted.
    """

    logp: list[np.ndarray]
    correct: list[np.ndarray]
    standard: list[np.ndarray]

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


def score(
    model: nn.Module,
    pairs: Sequence[Encoded],
    *,
    pad: int,
    token_budget: int,
    standardised: Sequence[bool] | None = None,
) -> Scores:
    """Score every answer given its prompt; `token_budget` bounds rows x longest pair of one forward pass.

    `standardised`: of which pairs `Scores.standard` is wanted, none by default. The model may be adapter-wrapped, in
    any dtype, on any device; log-softmax is in float32, over the answer's positions only. Put it in eval mode first.
    """
    logp: list[np.ndarray] = [np.empty(0)] * len(pairs)
    correct: list[np.ndarray] = [np.empty(0, dtype=bool)] * len(pairs)
    standard: list[np.ndarray] = [np.empty(0)] * len(pairs)
    wanted = [False] * len(pairs) if standardised is None else standardised
    scored = [len(pair.ids) - pair.prompt_length for pair in pairs]
    for batch in batches([len(pair.ids) for pair in pairs], token_budget, scored, _most_logits(model)):
        asked = np.repeat([wanted[i] for i in batch], [scored[i] for i in batch])
        found = _score_batch(model, [pairs[i] for i in batch], pad, torch.from_numpy(asked))
        ends = np.cumsum([scored[i] for i in batch])[:-1]
        for i, *row in zip(batch, *(np.split(values, ends) for values in found), strict=True):
            logp[i], correct[i], z = row
            standard[i] = z if wanted[i] else standard[i]
    return Scores(logp, correct, standard)


def batches(
    lengths: Sequence[int], token_budget: int, scored: Sequence[int] = (), most_scored: int = 0
) -> Iterator[list[int]]:
    """Indices, longest first, in groups whose padded size stays within the budget (one row always fits), and whose
    `scored` tokens within `most_scored`, if that is given."""
    group: list[int] = []
    total = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        more = scored[i] if most_scored else 0
        if group and ((len(group) + 1) * lengths[group[0]] > token_budget or total + more > most_scored):
            yield group
            group, total = [], 0
        group.append(i)
        total += more
    if group:
        yield group


def _most_logits(model: nn.Module) -> int:
    """Positions whose logits one forward pass may give."""
    config = getattr(model, "config", None)
    vocabulary = getattr(config and config.get_text_config(decoder=True), "vocab_size", None)
    return max(1, LOGIT_BYTES // (4 * vocabulary)) if vocabulary else 0


@torch.no_grad()
def _score_batch(model: nn.Module, pairs: Sequence[Encoded], pad: int, asked: Tensor) -> tuple[np.ndarray, ...]:
    """Log-probability, correctness and standard score of all answer tokens of a batch, one after another."""
    device = next(model.parameters()).device
    width = len(pairs[0].ids)
    ids = torch.tensor([[*pair.ids, *[pad] * (width - len(pair.ids))] for pair in pairs], device=device)
    before = [range(pair.prompt_length - 1, len(pair.ids) - 1) for pair in pairs]  # a token is predicted one earlier
    places = torch.tensor([row * width + at for row, places in enumerate(before) for at in places], device=device)
    logits = scored_logits(model, ids, places)
    return _gather(logits, ids.flatten()[places + 1], asked.to(device))


def _gather(logits: Tensor, labels: Tensor, asked: Tensor) -> tuple[np.ndarray, ...]:
    """Per label [n]: its log-probability in float64 (computed in float32), whether it is the argmax, and where asked
    for its standard score, elsewhere 0."""
    rows = max(1, CHUNK_ELEMENTS.get(logits.device.type, 2**24) // logits.shape[-1])
    logp, correct, standard = [], [], torch.zeros(len(labels), device=logits.device)
    for start, some, label in zip(range(0, len(labels), rows), logits.split(rows), labels.split(rows), strict=True):
        everything = some.float().log_softmax(-1)
        logp.append(everything.gather(-1, label[:, None])[:, 0])
        correct.append(some.argmax(-1) == label)
        here = asked[start : start + rows].nonzero()[:, 0]
        if len(here):
            standard[start + here] = _standard(everything[here], logp[-1][here])
    return torch.cat(logp).double().cpu().numpy(), torch.cat(correct).cpu().numpy(), standard.double().cpu().numpy()


def _standard(everything: Tensor, logp: Tensor) -> Tensor:
    """(logp - mu) / sigma [n] under the distributions `everything` [n, V], which is overwritten.

    The variance is taken about the mean: of a nearly uniform distribution over a large vocabulary, float32 leaves
    nothing of the difference of E[logp^2] and mu^2.
    """
    everything.clamp_(min=IMPOSSIBLE)
    probability = everything.exp()
    mu = torch.linalg.vecdot(probability, everything)
    sigma = torch.linalg.vecdot(probability, everything.sub_(mu[:, None]).square_()).sqrt()
    return (logp - mu) / sigma.clamp(min=SMALLEST_SIGMA)
