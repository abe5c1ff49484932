"""One teacher-forced pass over (prompt, answer) pairs: what every likelihood metric is made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from lethe.data.template import Encoded
from lethe.evaluation.packing import Packed, batch_inputs, pack_for
from lethe.models.forward import scored_logits

LOGIT_BYTES = 2**29  # of one forward pass's logits: they grow with the vocabulary, so the batch has to shrink with it
CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**24}  # of a float32 copy of them; a CPU keeps 4 MB in its caches
CACHED_TOKENS = 2048  # of a forward pass on a CPU: a longer one falls out of its caches
SMALLEST_SIGMA = 1e-6  # of log-probabilities in float32; below it a distribution is one point
IMPOSSIBLE = -1e4  # in place of a log-probability of minus infinity, whose share in a mean is 0


@dataclass(frozen=True)
class Scores:
    """Per pair, in the order given; the answer includes its end-of-sequence token. Natural logarithms, float64.

    `logp[i]` [t]: log-probability of each answer token; `correct[i]` [t]: whether it is the argmax, which is
    `guess[i]` [t]; `standard[i]` [t]: (logp - mu) / sigma, with mean and standard deviation of a token's
    log-probability as the model itself would draw it there (Min-K++, arXiv 2404.02936): empty for pairs of which it
    was not wanted.
    """

    logp: list[np.ndarray]
    correct: list[np.ndarray]
    guess: list[np.ndarray]
    standard: list[np.ndarray]

    @cached_property
    def nll_sum(self) -> np.ndarray:
        """Summed negative log-likelihood [n]."""
        row = np.repeat(np.arange(len(self.logp)), self.tokens)
        return np.bincount(row, weights=-np.concatenate([*self.logp, np.empty(0)]), minlength=len(self.logp))

    @property
    def tokens(self) -> np.ndarray:
        """Scored tokens [n], the end of sequence included."""
        return np.array([len(row) for row in self.logp], dtype=np.int64)

    @cached_property
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
    """Score every answer given its prompt; `token_budget` bounds rows x longest row of one forward pass.

    `standardised`: of which pairs `Scores.standard` is wanted, none by default. The model may be adapter-wrapped, in
    any dtype, on any device; log-softmax is in float32, over the answer's positions only. Put it in eval mode first.
    """
    rows = pack_for(model, pairs)
    wanted = np.zeros(len(pairs), dtype=bool) if standardised is None else np.asarray(standardised, dtype=bool)
    values: list[tuple[np.ndarray, ...]] = [()] * len(pairs)
    scored = [len(row.scored) for row in rows]
    most = min(token_budget, CACHED_TOKENS) if next(model.parameters()).device.type == "cpu" else token_budget
    for batch in batches([len(row.ids) for row in rows], most, scored, most_logits(model)):
        for i, found in _score_batch(model, [rows[i] for i in batch], pairs, wanted, pad):
            values[i] = found
    return Scores(*map(list, zip(*values, strict=True))) if values else Scores([], [], [], [])


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


def most_logits(model: nn.Module) -> int:
    """Positions whose logits one forward pass may give."""
    return max(1, LOGIT_BYTES // (4 * model.config.get_text_config(decoder=True).vocab_size))


@torch.no_grad()
def _score_batch(
    model: nn.Module, rows: Sequence[Packed], pairs: Sequence[Encoded], wanted: np.ndarray, pad: int
) -> list[tuple[int, tuple[np.ndarray, ...]]]:
    """For each pair its number and log-probability, correctness, guess and standard score of its answer tokens."""
    weight = next(model.parameters())
    inputs = batch_inputs(rows, pad, weight.device, weight.dtype)
    width = inputs["input_ids"].shape[1]
    first = np.cumsum([0, *(len(row.scored) for row in rows)])
    places = torch.tensor([r * width + t for r, row in enumerate(rows) for t in row.scored], device=weight.device)
    numbers = [i for row in rows for i in row.pairs]
    # Which of these places each answer token is predicted from.
    flat = [path[row.prompt - 1 :] + (start - row.prompt + 1) for row, start in zip(rows, first) for path in row.paths]
    labels = np.array([token for i in numbers for token in pairs[i].answer])
    asked = np.repeat(wanted[numbers], [len(part) for part in flat])
    logits = scored_logits(model, inputs.pop("input_ids"), places, **inputs)
    logp, guess, standard = _gather(logits, np.concatenate(flat), labels, asked)
    correct, found, stop = guess == labels, [], 0
    for i, part in zip(numbers, flat, strict=True):
        start, stop = stop, stop + len(part)
        z = standard[start:stop] if wanted[i] else standard[:0]
        found.append((i, (logp[start:stop], correct[start:stop], guess[start:stop], z)))
    return found


def _gather(
    logits: Tensor, at: np.ndarray, labels: np.ndarray, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per label [n], predicted by `logits[at]` [places, V]: its log-probability in float64 (computed in float32), the
    argmax there, and where `asked` its standard score, elsewhere 0."""
    device, rows = logits.device, max(1, CHUNK_ELEMENTS.get(logits.device.type, 2**24) // logits.shape[-1])
    logp, standard = np.empty(len(labels)), np.zeros(len(labels))
    guess = np.empty(len(logits), dtype=np.int64)
    order = np.argsort(at, kind="stable")
    for start in range(0, len(logits), rows):
        some = logits[start : start + rows]
        here = order[np.searchsorted(at[order], start) : np.searchsorted(at[order], start + len(some))]
        everything = some.float().log_softmax(-1)
        guess[start : start + rows] = some.argmax(-1).cpu().numpy()
        place, label = (torch.from_numpy(x[here] - shift).to(device) for x, shift in ((at, start), (labels, 0)))
        own = everything[place, label]
        logp[here] = own.double().cpu().numpy()
        if (mine := asked[here]).any():
            z = _standard(everything[place[mine]], own[mine])
            standard[here[mine]] = z.double().cpu().numpy()
    return logp, guess[at], standard


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
