"""Pairs that begin alike, as one row of a batch: a token that several of them share is computed once.

A question's answer, its paraphrase and the wrong answers differ late: on a TOFU benchmark more than half of all
tokens are repeated. The row is a tree of prefixes, flattened; its mask lets a token see its own ancestors only, so
that every token's numbers are those of its own pair alone (Cai et al. 2024, arXiv 2401.10774, verify drafts so).

One teacher-forced pass over (prompt, answer) pairs: what every likelihood metric is made from.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lethe.data.template import Encoded
from lethe.evaluation.kv_cache import builds_own_mask
from lethe.models.forward import scored_logits
from torch import Tensor, nn

TOLERANCE = 0.05  # of the spread of logits: rounding is far below, a token that sees too much far above


@dataclass(frozen=True)
class PackedRow:
    """Some pairs as one row of T tokens.

    `pairs`: their numbers; `paths[i]`: the places in the row of pair i's tokens but its last, which predicts nothing.
    `ids` [T]; `spans`: (start, stop, parent) of each stretch without a branch, -1 for no parent. `prompt`: its length.
    """

    pairs: tuple[int, ...]
    paths: tuple[np.ndarray, ...]
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int, int], ...]
    prompt: int

    @property
    def scored(self) -> range:
        """Where some answer token is predicted: from the prompt's last token on, everywhere."""
        return range(self.prompt - 1, len(self.ids))

    def depths(self) -> np.ndarray:
        """Position of each token in its own pair [T]."""
        found = np.empty(len(self.ids), dtype=np.int64)
        for start, stop, parent in self.spans:
            found[start:stop] = np.arange(stop - start) + (found[parent] + 1 if parent >= 0 else 0)
        return found

    def seen(self, width: int) -> np.ndarray:
        """Whether a token sees another [width, width] bool; padding sees itself."""
        found, lower = np.eye(width, dtype=bool), np.tri(width, dtype=bool)
        for start, stop, parent in self.spans:
            if parent >= 0:
                found[start:stop] = found[parent]
            found[start:stop, start:stop] = lower[: stop - start, : stop - start]
        return found


def pack_for(model: nn.Module, pairs: Sequence[Encoded]) -> list[PackedRow]:
    """`pack` as far as this model can read it; else each pair has a row of its own.

    Attention grows with the square of a row, the rest with its length: in a row twice as long as a token is wide it
    costs a third more, and less is saved by longer ones.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = base.config.get_text_config(decoder=True)
    if _may_pack(base, config, max((len(pair.ids) for pair in pairs), default=0)):
        rows = pack(pairs, 2 * config.hidden_size)
        if len(rows) < len(pairs) and _sees_ancestors_only(model, config):
            return rows
    return pack(pairs, 0)


def pack(pairs: Sequence[Encoded], most: int) -> list[PackedRow]:
    """Pairs of one prompt together, in rows of at most `most` tokens; with 0 each has a row of its own."""
    rows: list[_Row] = []
    last: tuple[int, ...] = ()
    for i in sorted(range(len(pairs)), key=lambda i: (pairs[i].ids[: pairs[i].prompt_length], pairs[i].ids)):
        ids, prompt = pairs[i].ids[:-1], pairs[i].prompt_length
        shared = _common(last, ids)
        if not rows or rows[-1].prompt != prompt or shared < prompt or len(rows[-1].ids) + len(ids) - shared > most:
            rows.append(_Row(prompt))
            shared = 0
        rows[-1].add(i, ids, shared)
        last = ids
    return [PackedRow(tuple(row.pairs), tuple(row.paths), tuple(row.ids), tuple(row.spans), row.prompt) for row in rows]


@dataclass
class _Row:
    """A row that grows. Pairs come in lexicographic order, so what a new one shares it shares with the one before."""

    prompt: int
    pairs: list[int] = field(default_factory=list)
    paths: list[np.ndarray] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    spans: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, number: int, ids: tuple[int, ...], shared: int) -> None:
        start, stop = len(self.ids), len(self.ids) + len(ids) - shared
        new = np.arange(start, stop)
        if stop > start:
            self.spans.append((start, stop, int(self.paths[-1][shared - 1]) if shared else -1))
        self.ids += ids[shared:]
        self.pairs.append(number)
        self.paths.append(np.concatenate([self.paths[-1][:shared], new]) if shared else new)


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Length of the common beginning."""
    return next((k for k, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def batch_inputs(rows: Sequence[PackedRow], pad: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """What a model reads [R, T]; without mask and positions where no row has a branch: faster kernels apply then."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[pad] * (width - len(row.ids))] for row in rows], device=device)
    if all(len(row.spans) == 1 for row in rows):
        return {"input_ids": ids}
    seen = torch.from_numpy(np.stack([row.seen(width) for row in rows]))[:, None].to(device)
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)
    depths = [np.pad(row.depths(), (0, width - len(row.ids))) for row in rows]
    return {"input_ids": ids, "attention_mask": mask, "position_ids": torch.from_numpy(np.stack(depths)).to(device)}


def _may_pack(base: nn.Module, config: Any, longest: int) -> bool:
    """By what is declared: positions are an input, masks are taken as given, and no layer sees less than everything."""
    window = getattr(config, "sliding_window", None)
    local = {*(getattr(config, "layer_types", None) or ())} - {"full_attention"}
    return (
        "position_ids" in inspect.signature(base.forward).parameters
        and getattr(base.config, "_attn_implementation", None) in ("sdpa", "eager")
        and not builds_own_mask(config)
        and (window is None or window >= longest)
        and local <= {"sliding_attention"}
    )


@torch.no_grad()
def _sees_ancestors_only(model: nn.Module, config: Any) -> bool:
    """By trying: the end of a second branch has the logits that it has alone."""
    some = [i % config.vocab_size for i in (5, 6, 7, 8, 9)]
    pairs = [Encoded((*some[:3], *end, 0), 1) for end in (some[3:4] * 2, some[4:5])]
    weight = next(model.parameters())
    if weight.device.type == "meta" or len({*some}) < 5:
        return False
    logits = []
    for most in (0, 99):
        rows = pack(pairs, most)
        inputs = batch_inputs(rows, 0, weight.device, weight.dtype)
        width = inputs["input_ids"].shape[1]
        where = {i: r * width + path[-1] for r, row in enumerate(rows) for i, path in zip(row.pairs, row.paths)}
        places = torch.tensor([int(where[i]) for i in range(2)], device=weight.device)
        logits.append(scored_logits(model, inputs.pop("input_ids"), places, **inputs).float())
    alone, packed = logits
    return bool((alone - packed).abs().max() <= TOLERANCE * alone.std())


LOGIT_BYTES = 2**29  # of one forward pass's logits: they grow with the vocabulary, so the batch has to shrink with it
CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**24}  # of a float32 copy of them; a CPU keeps 4 MB in its caches
CACHED_TOKENS = 2048  # of a forward pass on a CPU: a longer one falls out of its caches
SMALLEST_SIGMA = 1e-6  # of log-probabilities in float32; below it a distribution is one point
IMPOSSIBLE = -1e4  # in place of a log-probability of minus infinity, whose share in a mean is 0


@dataclass(frozen=True)
class LikelihoodScores:
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
) -> LikelihoodScores:
    """Score every answer given its prompt; `token_budget` bounds rows x longest row of one forward pass.

    `standardised`: of which pairs `Scores.standard` is wanted, none by default. The model may be adapter-wrapped, in
    any dtype, on any device; log-softmax is in float32, over the answer's positions only. Put it in eval mode first.
    """
    rows = pack_for(model, pairs)
    wanted = np.zeros(len(pairs), dtype=bool) if standardised is None else np.asarray(standardised, dtype=bool)
    values: list[tuple[np.ndarray, ...]] = [()] * len(pairs)
    scored = [len(row.scored) for row in rows]
    most = min(token_budget, CACHED_TOKENS) if next(model.parameters()).device.type == "cpu" else token_budget
    for batch in batches([len(row.ids) for row in rows], most, scored, max_scored_positions(model)):
        for i, found in _score_batch(model, [rows[i] for i in batch], pairs, wanted, pad):
            values[i] = found
    return LikelihoodScores(*map(list, zip(*values, strict=True))) if values else LikelihoodScores([], [], [], [])


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


def max_scored_positions(model: nn.Module) -> int:
    """Positions whose logits one forward pass may give."""
    return max(1, LOGIT_BYTES // (4 * model.config.get_text_config(decoder=True).vocab_size))


@torch.no_grad()
def _score_batch(
    model: nn.Module, rows: Sequence[PackedRow], pairs: Sequence[Encoded], wanted: np.ndarray, pad: int
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
