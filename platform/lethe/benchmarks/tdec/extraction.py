"""Memorisation accuracy (MA) and extraction likelihood (EL) of token sequences.

Jang et al. 2022, arXiv 2210.01504; docs/METHODS.md section 5. Sequences are ids x[0..T-1]; `guesses[t]` is the greedy
token after x[:t] (x[0] at 0). The likelihood asks for a greedy continuation of every prefix. It is exact and cheap
because
  - where guesses[i] = x[i], the continuation from i is x[i] and that from i + 1: only mismatches need generating;
  - prefixes of one sequence share its keys and values, and all continuations end at T. So one decoding moves along
    the positions, and a continuation joins it where its prefix ends: no prefix is read twice, nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lethe.evaluation.generation import generate
from lethe.evaluation.kv_cache import cache_bytes, remembers_by_keys
from lethe.evaluation.likelihood import batches
from lethe.evaluation.one_token_attention import fast_one_token_attention
from lethe.models.forward import scored_logits

BRANCH_BYTES = 2**28  # keys and values of the continuations that are decoded together
PREFIX_TOKENS = 8192  # of prefixes that are decoded together, where there are no keys and values

Branch = tuple[int, int]  # number of a sequence, position at which the greedy continuation leaves it


def greedy_guesses(model: nn.Module, ids: np.ndarray, token_budget: int) -> np.ndarray:
    """Return the guesses [S, T] for sequences [S, T], by teacher forcing. Put the model in eval mode first."""
    guesses = ids.copy()
    device = next(model.parameters()).device
    length = ids.shape[1]
    for rows in batches([length] * len(ids), token_budget):
        places = [r * length + t for r in range(len(rows)) for t in range(length - 1)]
        with torch.no_grad():
            logits = scored_logits(model, torch.tensor(ids[rows], device=device), torch.tensor(places, device=device))
        guesses[rows, 1:] = logits.argmax(-1).view(len(rows), length - 1).cpu().numpy()
    return guesses


def memorization_accuracy(ids: np.ndarray, guesses: np.ndarray) -> np.ndarray:
    """Return the share [S] of the tokens after the first that are guessed."""
    share: np.ndarray = (ids == guesses)[:, 1:].mean(1)
    return share


def mismatches(ids: np.ndarray, guesses: np.ndarray) -> list[Branch]:
    """Return every position at which a guess is not the sequence's token, in order."""
    return [(int(s), int(t)) for s, t in np.argwhere(ids != guesses)]


def extraction_likelihood(
    ids: Sequence[int],
    branches: Mapping[int, Sequence[int]],
    n: int,
    *,
    eos: int | None = None,
) -> float:
    """Return EL_n of one sequence, in [0, 1]: the mean over prefixes x[:i], i in 1..T-n, of the share of n-grams of the
    true rest x[i:] that its greedy continuation has; n-grams of the continuation count as often as they come.

    `branches[m]` [T] for every mismatch m: x[:m] and its continuation. With `eos` a continuation ends where that
    token comes, and the share is of its own n-grams: as published; as released it is of the true rest's.
    """
    ids = list(ids)
    total, first, last = 0.0, 1, len(ids) - n
    latest = {gram: start for start, gram in _grams(ids, 0, n)}  # x[i:] has the n-grams whose latest start is >= i
    for m in (*sorted(branches), len(ids)):
        continued = list(branches.get(m, ids))
        starts = np.array([latest.get(gram, -1) for _, gram in _grams(continued, first, n)])
        for i in range(first, min(m, last) + 1):
            grams = last + 1 - i if eos is None else _until(continued, i, eos) - n + 1
            if grams > 0:
                total += (starts[i - first :][:grams] >= i).sum() / grams
        first = m + 1
    return float(total / last)


def _grams(ids: list[int], first: int, n: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    return ((start, tuple(ids[start : start + n])) for start in range(first, len(ids) - n + 1))


def _until(ids: list[int], start: int, eos: int) -> int:
    """Return the number of tokens from `start` up to and with the first `eos`."""
    return ids.index(eos, start) + 1 - start if eos in ids[start:] else len(ids) - start


def continuations(
    model: nn.Module, ids: np.ndarray, guesses: np.ndarray, branches: Sequence[Branch]
) -> dict[Branch, list[int]]:
    """Return for each (s, m) of `branches`, mismatches: x[:m] of sequence s and its greedy continuation to length T,
    past EOS.

    Put the model in eval mode first.
    """
    if not remembers_by_keys(model):
        return _generated(model, ids, guesses, branches)
    device = next(model.parameters()).device
    rows = max(1, BRANCH_BYTES // cache_bytes(model, ids.shape[1], windows=False))
    continued: dict[Branch, list[int]] = {}
    order = sorted(branches)
    for start in range(0, len(order), rows):
        some = sorted(order[start : start + rows], key=lambda branch: branch[1])
        tokens = torch.tensor(np.stack([ids[s] for s, _ in some]), device=device)
        for row, (s, m) in enumerate(some):
            tokens[row, m] = int(guesses[s, m])
        with torch.no_grad(), fast_one_token_attention(device):
            cache = _prefixes(model, torch.tensor(ids, device=device), some)
            _decode(model, tokens, cache, np.array([m for _, m in some]))
        continued |= dict(zip(some, tokens.tolist(), strict=True))
    return continued


def _generated(
    model: nn.Module, ids: np.ndarray, guesses: np.ndarray, branches: Sequence[Branch]
) -> dict[Branch, list[int]]:
    """Return `continuations` for a model whose states do not divide into tokens, by reading every prefix anew."""
    length = ids.shape[1]
    continued: dict[Branch, list[int]] = {}
    for place, some in groupby(sorted(branches, key=lambda branch: branch[1]), key=lambda branch: branch[1]):
        here = [*some]
        begun = [[*map(int, ids[s, :place]), int(guesses[s, place])] for s, _ in here]
        new = length - place - 1
        budget = PREFIX_TOKENS
        rest = (
            generate(model, begun, stops=(), pad=0, max_new_tokens=new, token_budget=budget)
            if new
            else [[]] * len(here)
        )
        continued |= {branch: [*row, *more] for branch, row, more in zip(here, begun, rest, strict=True)}
    return continued


def _prefixes(model: nn.Module, ids: Tensor, some: Sequence[Branch]) -> DynamicCache:
    """Return the keys and values of each branch's sequence, ready to decode from the position of the first branch."""
    used = sorted({s for s, _ in some})
    seen = model(input_ids=ids[used, :-1], past_key_values=DynamicCache(), use_cache=True).past_key_values
    row = torch.tensor([used.index(s) for s, _ in some], device=ids.device)
    cache = DynamicCache()
    cache.layers = [BranchLayer(layer.keys[row], layer.values[row], some[0][1]) for layer in seen.layers]
    return cache


def _decode(model: nn.Module, tokens: Tensor, cache: DynamicCache, starts: np.ndarray) -> None:
    """Fill `tokens` [R, T] in place behind the rows' `starts` [R], which ascend: at each position some rows join."""
    for place in range(int(starts[0]), tokens.shape[1] - 1):
        rows = int(np.searchsorted(starts, place, "right"))
        logits = model(input_ids=tokens[:rows, place, None], past_key_values=cache, use_cache=True).logits
        tokens[:rows, place + 1] = logits[:, -1].argmax(-1)


class BranchLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers annotates no __init_subclass__
    """Keys and values [R, heads, T - 1, d] of one layer. The rows that decode so far, the first ones, write at
    `length`, over what the true sequence had there; the others still hold their prefix."""

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers annotates no __init__
        self.length = length
        self.keys: Tensor = keys
        self.values: Tensor = values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write one token of the first rows; return all keys and values of these rows."""
        rows, position = len(key_states), self.length
        self.keys[:rows, :, position], self.values[:rows, :, position] = key_states[:, :, 0], value_states[:, :, 0]
        self.length = position + 1
        return self.keys[:rows, :, : self.length], self.values[:rows, :, : self.length]

    def get_seq_length(self) -> int:
        """Return the number of tokens before the next one."""
        return self.length
