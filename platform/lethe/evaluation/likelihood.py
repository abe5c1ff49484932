"""Scoring answers: one teacher-forced pass over (prompt, answer) pairs, which every likelihood metric is made from.

Pairs that begin alike share one row of a batch, so that a token of several pairs is computed once. A question's answer,
its paraphrase and the wrong answers differ late: on a TOFU benchmark more than half of all tokens are repeated. Such a
row is a tree of prefixes, flattened; its attention mask lets a token see only its own ancestors, so that every token's
numbers are those of its own pair alone (tree attention, Cai et al. 2024, arXiv 2401.10774).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lethe.data.template import Encoded
from lethe.evaluation.causal_lm import base_model, device_of, text_config
from lethe.evaluation.kv_cache import builds_own_mask, remembers_by_keys
from lethe.models.forward import scored_logits

# Of one forward pass's logits, which grow with the vocabulary, so that the batch has to shrink with it.
LOGIT_BYTES = {"cpu": 2**27, "cuda": 2**29}
CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**24}  # of a float32 copy of them; a CPU keeps 4 MB in its caches
CACHED_ELEMENTS = 2**18  # tokens x width of a forward pass on a CPU: a larger one falls out of its caches
CACHED_TOKENS = (512, 2048)  # least and most tokens of such a pass: fewer do not keep a core busy
SMALLEST_SIGMA = 1e-6  # of log-probabilities in float32; below it a distribution is one point
IMPOSSIBLE = -1e4  # in place of a log-probability of minus infinity, whose share in a mean is 0
TOLERANCE = 0.05  # of the spread of logits: rounding is far below, a token that sees too much far above


# Scores


@dataclass(frozen=True)
class LikelihoodScores:
    """Scores of n pairs, in the order given; an answer of t tokens includes its end of sequence. Natural logarithms,
    float64.

    `logp[i]` [t]: log-probability of each answer token; `correct[i]` [t]: whether it is the argmax, which is
    `guess[i]` [t]; `standard[i]` [t]: (logp - mu) / sigma, with mean and standard deviation of a token's
    log-probability as the model itself would draw it there (Min-K++, arXiv 2404.02936), empty for pairs of which it
    was not asked for.
    """

    logp: list[np.ndarray]
    correct: list[np.ndarray]
    guess: list[np.ndarray]
    standard: list[np.ndarray]

    @cached_property
    def nll_sum(self) -> np.ndarray:
        """Summed negative log-likelihood of each answer [n]."""
        row = np.repeat(np.arange(len(self.logp)), self.tokens)
        return np.bincount(row, weights=-np.concatenate([*self.logp, np.empty(0)]), minlength=len(self.logp))

    @property
    def tokens(self) -> np.ndarray:
        """Number of scored tokens of each answer, the end of sequence included [n]."""
        return np.array([len(row) for row in self.logp], dtype=np.int64)

    @cached_property
    def nll_mean(self) -> np.ndarray:
        """Mean token negative log-likelihood of each answer [n]: the loss that TOFU's metrics are made from."""
        means: np.ndarray = self.nll_sum / self.tokens
        return means


class _PairScores(NamedTuple):
    """The arrays of `LikelihoodScores` for a single pair."""

    logp: np.ndarray
    correct: np.ndarray
    guess: np.ndarray
    standard: np.ndarray


def score(
    model: nn.Module,
    pairs: Sequence[Encoded],
    *,
    pad: int,
    token_budget: int,
    standardised: Sequence[bool] | None = None,
) -> LikelihoodScores:
    """Score the answer of every pair given its prompt.

    `token_budget` bounds rows x longest row of one forward pass; `standardised`: for which pairs `standard` is wanted,
    none by default. The model may be wrapped by peft, in any dtype, on any device; log-softmax is in float32, over the
    answers' positions only. Put the model into eval mode first.
    """
    rows = pack_for(model, pairs)
    wanted = np.zeros(len(pairs), dtype=bool) if standardised is None else np.asarray(standardised, dtype=bool)
    by_pair: dict[int, _PairScores] = {}
    scored = [len(row.scored) for row in rows]
    most = min(token_budget, max_tokens(model))
    for batch in batches([len(row.ids) for row in rows], most, scored, max_scored_positions(model)):
        by_pair |= _score_batch(model, [rows[i] for i in batch], pairs, wanted, pad)
    in_order = [by_pair[i] for i in range(len(pairs))]
    return LikelihoodScores(
        logp=[pair.logp for pair in in_order],
        correct=[pair.correct for pair in in_order],
        guess=[pair.guess for pair in in_order],
        standard=[pair.standard for pair in in_order],
    )


def batches(
    lengths: Sequence[int], token_budget: float, scored: Sequence[int] = (), most_scored: int = 0
) -> Iterator[list[int]]:
    """Yield groups of row numbers, longest rows first. A group's rows x longest row is at most `token_budget`, and the
    sum of its `scored` at most `most_scored`, if that is given; a single row always is a group."""
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
    """Return for how many positions one forward pass may compute logits: `LOGIT_BYTES` of float32, at least one."""
    device = device_of(model).type
    return max(1, LOGIT_BYTES.get(device, 2**29) // (4 * int(text_config(model).vocab_size)))


def max_tokens(model: nn.Module) -> float:
    """Return how many tokens one forward pass over whole sequences may have to be fast: on a CPU what its caches hold,
    elsewhere any number."""
    if device_of(model).type != "cpu":
        return math.inf
    least, most = CACHED_TOKENS
    return min(most, max(least, CACHED_ELEMENTS // int(text_config(model).hidden_size)))


@torch.no_grad()
def _score_batch(
    model: nn.Module, rows: Sequence[PackedRow], pairs: Sequence[Encoded], wanted: np.ndarray, pad: int
) -> dict[int, _PairScores]:
    """Return the scores of the pairs in `rows`, by their numbers, from one forward pass."""
    weight = next(model.parameters())
    inputs = batch_inputs(rows, pad, weight.device, weight.dtype)
    width = inputs["input_ids"].shape[1]
    starts = np.cumsum([0, *(len(row.scored) for row in rows)])[:-1]
    places = torch.tensor([r * width + t for r, row in enumerate(rows) for t in row.scored], device=weight.device)
    numbers = [i for row in rows for i in row.pairs]
    # For each pair, the indices into `places` from which its answer tokens are predicted.
    predictors = [
        path[row.prompt - 1 :] + (start - row.prompt + 1)
        for row, start in zip(rows, starts, strict=True)
        for path in row.paths
    ]
    labels = np.array([token for i in numbers for token in pairs[i].answer])
    standardise = np.repeat(wanted[numbers], [len(part) for part in predictors])
    logits = scored_logits(model, inputs.pop("input_ids"), places, **inputs)
    logp, guess, standard = _gather(logits, np.concatenate(predictors), labels, standardise)
    correct, stop = guess == labels, 0
    by_pair = {}
    for i, part in zip(numbers, predictors, strict=True):
        start, stop = stop, stop + len(part)
        z = standard[start:stop] if wanted[i] else standard[:0]
        by_pair[i] = _PairScores(logp[start:stop], correct[start:stop], guess[start:stop], z)
    return by_pair


def _gather(
    logits: Tensor, at: np.ndarray, labels: np.ndarray, standardise: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each label [n], predicted by `logits[at]` of `logits` [places, V]: its log-probability in float64
    (computed in float32), the argmax there, and its standard score, 0 except where `standardise` [n]."""
    device, rows = logits.device, max(1, CHUNK_ELEMENTS.get(logits.device.type, 2**24) // logits.shape[-1])
    logp, standard = np.empty(len(labels)), np.zeros(len(labels))
    guess = np.empty(len(logits), dtype=np.int64)
    order = np.argsort(at, kind="stable")
    for start in range(0, len(logits), rows):
        chunk = logits[start : start + rows]
        # The labels that this chunk predicts.
        here = order[np.searchsorted(at[order], start) : np.searchsorted(at[order], start + len(chunk))]
        log_probabilities = chunk.float().log_softmax(-1)
        guess[start : start + rows] = chunk.argmax(-1).cpu().numpy()
        place, label = (torch.from_numpy(x[here] - shift).to(device) for x, shift in ((at, start), (labels, 0)))
        own = log_probabilities[place, label]
        logp[here] = own.double().cpu().numpy()
        if (chosen := standardise[here]).any():
            z = _standard_scores(log_probabilities[place[chosen]], own[chosen])
            standard[here[chosen]] = z.double().cpu().numpy()
    return logp, guess[at], standard


def _standard_scores(log_probabilities: Tensor, logp: Tensor) -> Tensor:
    """Return (logp - mu) / sigma [n] of `logp` [n] under the distributions `log_probabilities` [n, V], which are
    overwritten."""
    # The variance is taken about the mean: of a nearly uniform distribution over a large vocabulary, float32 leaves
    # nothing of the difference of E[logp^2] and mu^2.
    log_probabilities.clamp_(min=IMPOSSIBLE)
    probability = log_probabilities.exp()
    mu = torch.linalg.vecdot(probability, log_probabilities)
    sigma = torch.linalg.vecdot(probability, log_probabilities.sub_(mu[:, None]).square_()).sqrt()
    scores: Tensor = (logp - mu) / sigma.clamp(min=SMALLEST_SIGMA)
    return scores


# Packing


@dataclass(frozen=True)
class PackedRow:
    """Several pairs with one prompt as one row of T tokens.

    `pairs`: their numbers; `paths[i]`: the places in the row of pair i's tokens but its last, which predicts nothing;
    `ids` [T]; `spans`: (start, stop, parent) of each stretch without a branch, parent -1 for the root; `prompt`: the
    length of the prompt.
    """

    pairs: tuple[int, ...]
    paths: tuple[np.ndarray, ...]
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int, int], ...]
    prompt: int

    @property
    def scored(self) -> range:
        """The places that predict an answer token: all from the prompt's last token on."""
        return range(self.prompt - 1, len(self.ids))

    def depths(self) -> np.ndarray:
        """Return the position of each token in its own pair [T]."""
        depths = np.empty(len(self.ids), dtype=np.int64)
        for start, stop, parent in self.spans:
            depths[start:stop] = np.arange(stop - start) + (depths[parent] + 1 if parent >= 0 else 0)
        return depths

    def seen(self, width: int) -> np.ndarray:
        """Return whether token i (row) sees token j (column), bool [width, width]; padding sees itself."""
        seen, lower = np.eye(width, dtype=bool), np.tri(width, dtype=bool)
        for start, stop, parent in self.spans:
            if parent >= 0:
                seen[start:stop] = seen[parent]
            seen[start:stop, start:stop] = lower[: stop - start, : stop - start]
        return seen


def pack_for(model: nn.Module, pairs: Sequence[Encoded]) -> list[PackedRow]:
    """Return `pack` of the pairs with the row length that pays for this model; each pair in a row of its own where the
    model does not read packed rows correctly."""
    # Attention grows with the square of a row, the rest with its length: in a row twice as long as a token is wide it
    # costs a third more, and less is saved by longer ones.
    rows = pack(pairs, 2 * int(text_config(model).hidden_size))
    if len(rows) < len(pairs) and reads_packed_rows(model, max(len(pair.ids) for pair in pairs)):
        return rows
    return pack(pairs, 0)


def reads_packed_rows(model: nn.Module, longest: int) -> bool:
    """Return whether several sequences of at most `longest` tokens in one row, kept apart by a mask and with positions
    of their own, give what each gives in a row of its own: the architecture declares what that needs, and a short
    forward pass shows it. `tests/models/test_architectures.py` proves the answer for each family."""
    return _may_pack(base_model(model), longest) and _sees_ancestors_only(model, int(text_config(model).vocab_size))


def pack(pairs: Sequence[Encoded], most: int) -> list[PackedRow]:
    """Return rows of at most `most` tokens that hold the pairs, those of one prompt together; with 0 each pair has a
    row of its own."""
    rows: list[_RowBuilder] = []
    last: tuple[int, ...] = ()
    for i in sorted(range(len(pairs)), key=lambda i: (pairs[i].ids[: pairs[i].prompt_length], pairs[i].ids)):
        ids, prompt = pairs[i].ids[:-1], pairs[i].prompt_length
        shared = _common_length(last, ids)
        if not rows or rows[-1].prompt != prompt or shared < prompt or len(rows[-1].ids) + len(ids) - shared > most:
            rows.append(_RowBuilder(prompt))
            shared = 0
        rows[-1].add(i, ids, shared)
        last = ids
    return [PackedRow(tuple(row.pairs), tuple(row.paths), tuple(row.ids), tuple(row.spans), row.prompt) for row in rows]


@dataclass
class _RowBuilder:
    """A `PackedRow` that grows. Pairs are added in lexicographic order, so a new one shares tokens with the one before
    it."""

    prompt: int
    pairs: list[int] = field(default_factory=list)
    paths: list[np.ndarray] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    spans: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, number: int, ids: tuple[int, ...], shared: int) -> None:
        """Add pair `number` with tokens `ids`, of which the first `shared` are those of the pair before."""
        start, stop = len(self.ids), len(self.ids) + len(ids) - shared
        new = np.arange(start, stop)
        if stop > start:
            self.spans.append((start, stop, int(self.paths[-1][shared - 1]) if shared else -1))
        self.ids += ids[shared:]
        self.pairs.append(number)
        self.paths.append(np.concatenate([self.paths[-1][:shared], new]) if shared else new)


def _common_length(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Return the length of the common beginning of `a` and `b`."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def batch_inputs(rows: Sequence[PackedRow], pad: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the model's inputs for R rows: `input_ids` [R, T], and where a row has a branch `attention_mask`
    [R, 1, T, T], 0 or the lowest value of `dtype`, and `position_ids` [R, T]. Without them faster kernels apply."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[pad] * (width - len(row.ids))] for row in rows], device=device)
    if all(len(row.spans) == 1 for row in rows):
        return {"input_ids": ids}
    seen = torch.from_numpy(np.stack([row.seen(width) for row in rows]))[:, None].to(device)
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)
    depths = [np.pad(row.depths(), (0, width - len(row.ids))) for row in rows]
    return {"input_ids": ids, "attention_mask": mask, "position_ids": torch.from_numpy(np.stack(depths)).to(device)}


def _may_pack(base: PreTrainedModel, longest: int) -> bool:
    """Return whether the model declares what packing needs: positions are an input, masks are taken as given, no layer
    has a state that runs through the row, and in sequences of up to `longest` tokens every layer sees everything."""
    config = text_config(base)
    window = getattr(config, "sliding_window", None)
    local = {*(getattr(config, "layer_types", None) or ())} - {"full_attention"}
    return (
        "position_ids" in inspect.signature(base.forward).parameters
        and getattr(base.config, "_attn_implementation", None) in ("sdpa", "eager")
        and remembers_by_keys(base)
        and not builds_own_mask(config)
        and (not window or window >= longest)
        and local <= {"sliding_attention"}
    )


@torch.no_grad()
def _sees_ancestors_only(model: nn.Module, vocabulary: int) -> bool:
    """Return whether the end of a row's second branch has the logits that it has in a row of its own, by a forward pass
    of each."""
    tokens = [i % vocabulary for i in (5, 6, 7, 8, 9)]
    pairs = [Encoded((*tokens[:3], *end, 0), 1) for end in (tokens[3:4] * 2, tokens[4:5])]
    weight = next(model.parameters())
    if weight.device.type == "meta" or len({*tokens}) < 5:
        return False
    logits = []
    for most in (0, 99):
        rows = pack(pairs, most)
        inputs = batch_inputs(rows, 0, weight.device, weight.dtype)
        width = inputs["input_ids"].shape[1]
        ends = {
            i: r * width + path[-1] for r, row in enumerate(rows) for i, path in zip(row.pairs, row.paths, strict=True)
        }
        places = torch.tensor([int(ends[i]) for i in range(2)], device=weight.device)
        logits.append(scored_logits(model, inputs.pop("input_ids"), places, **inputs).float())
    alone, packed = logits
    return bool((alone - packed).abs().max() <= TOLERANCE * alone.std())
