"""Greedy generation for many prompts at once; token by token what `transformers.generate` gives for each alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from lethe.evaluation.causal_lm import base_model, device_of, text_config
from lethe.evaluation.kv_cache import TensorPool, builds_own_mask, growing_cache, release
from lethe.evaluation.likelihood import max_scored_positions

CACHE_BYTES = 4 * 2**30  # keys and values of one batch
DROP = 8  # rows leave the batch once one in so many is done


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    eos: int,
    pad: int,
    max_new_tokens: int,
    token_budget: int,
    begun: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """Return the greedy continuation of each prompt, in the order given: new tokens only, up to and with `eos` where it
    comes, at most `max_new_tokens`, and fewer where the model's learned positions end.

    `begun`: the first tokens of each answer, if they are known already (see `known_beginning`); they are part of the
    returned answer. The first pass over a batch has at most `token_budget` padded prompt tokens, its cache at most
    `CACHE_BYTES`. Put the model into eval mode first.
    """
    decoder = GreedyDecoder(model, eos=eos, pad=pad, max_new_tokens=max_new_tokens)
    answers = [_until_eos([*tokens[:max_new_tokens]], eos) for tokens in begun or [()] * len(prompts)]
    unfinished = [i for i, answer in enumerate(answers) if len(answer) < max_new_tokens and answer[-1:] != [eos]]
    contexts = [[*prompts[i], *answers[i]] for i in unfinished]
    for batch in decoder.batches([len(context) for context in contexts], token_budget):
        spent = [len(answers[unfinished[j]]) for j in batch]
        for j, rest in zip(batch, decoder.batch([contexts[j] for j in batch], spent), strict=True):
            answers[unfinished[j]] += rest
    return answers


def known_beginning(answer: Sequence[int], guess: Sequence[int]) -> list[int]:
    """Return how a greedy answer begins, from the model's `guess` at each token of a teacher-forced `answer`: the
    tokens up to where both differ, and the guess there."""
    pairs = zip(answer, guess, strict=True)
    same = next((k for k, (token, guessed) in enumerate(pairs) if token != guessed), len(answer))
    return [*answer[:same], *map(int, guess[same : same + 1])]


class GreedyDecoder:
    """Greedy decoding for one model, in left-padded batches of similar length that lose their finished rows."""

    def __init__(self, model: nn.Module, *, eos: int, pad: int, max_new_tokens: int) -> None:
        self.model, self.eos, self.pad, self.max_new_tokens = model, eos, pad, max_new_tokens
        self.device = device_of(model)
        self.base, self.config = base_model(model), text_config(model)
        inputs = inspect.signature(self.base.forward).parameters
        self.takes_positions = "position_ids" in inputs
        self.last_logit = {"logits_to_keep": 1} if "logits_to_keep" in inputs else {}
        self.positions = getattr(self.config, "max_position_embeddings", None) or 2**31
        self.pool = TensorPool()

    def batches(self, lengths: Sequence[int], token_budget: int) -> list[list[int]]:
        """Return the prompts' numbers in groups of nearly equal size and similar length, within the budgets."""
        order = sorted(range(len(lengths)), key=lambda i: lengths[i])
        if not order:
            return []
        longest = max(lengths)
        cached = (longest + self.max_new_tokens) * cache_bytes_per_token(self.base)
        rows = max(1, min(token_budget // max(1, longest), CACHE_BYTES // cached, max_scored_positions(self.base)))
        groups = -(-len(order) // rows)
        size = -(-len(order) // groups)
        return [order[start : start + size] for start in range(0, len(order), size)]

    @torch.no_grad()
    def batch(self, prompts: Sequence[Sequence[int]], spent: Sequence[int]) -> list[list[int]]:
        """Return the continuations of prompts that share one batch; the last `spent[i]` tokens of prompt i belong to
        its answer and count towards `max_new_tokens`."""
        width = max(map(len, prompts))
        # Some attention has a table of positions for the whole padded batch.
        taken = [width if builds_own_mask(self.config) else len(p) for p in prompts]
        limits = [min(self.max_new_tokens - s, self.positions - t) for s, t in zip(spent, taken, strict=True)]
        steps = max(limits)
        tokens = torch.full((len(prompts), max(0, steps)), self.eos, device=self.device)
        if steps > 0:
            cache = growing_cache(self.config, width + steps, self.pool)
            with one_token_attention(self.base, self.device) as switch:
                self._decode(prompts, torch.tensor(limits, device=self.device), tokens, cache, switch)
            release(cache)
        return [_until_eos(row[: max(0, limit)], self.eos) for row, limit in zip(tokens.tolist(), limits, strict=True)]

    def _decode(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Tensor,
        tokens: Tensor,
        cache: DynamicCache,
        switch: Callable[[], None],
    ) -> None:
        """Fill `tokens` [rows, steps]; call `switch` after the pass over the prompts."""
        # Positions count from each prompt's own start; left padding is masked.
        width, steps = max(map(len, prompts)), tokens.shape[1]
        ids = torch.tensor([[self.pad] * (width - len(p)) + list(p) for p in prompts], device=self.device)
        mask = torch.ones(len(prompts), width + steps, dtype=torch.long, device=self.device)
        for row, prompt in enumerate(prompts):
            mask[row, : width - len(prompt)] = 0
        positions = (mask[:, :width].cumsum(1) - 1).clamp(min=0)
        rows = torch.arange(len(prompts), device=self.device)
        done = limits <= 0
        for step in range(steps):
            ids = self._next(ids, mask[:, : width + step], positions, cache)
            if step == 0:
                switch()
            tokens[rows, step] = ids
            done |= (ids == self.eos) | (limits <= step + 1)
            finished = int(done.sum())
            if finished == len(rows):
                return
            ids, positions = ids[:, None], positions[:, -1:] + 1
            if finished * DROP >= len(rows):
                keep = (~done).nonzero()[:, 0]
                cache.reorder_cache(keep)  # type: ignore[arg-type]  # transformers names a CPU type, any int64 works
                ids, mask, positions, rows, limits, done = (x[keep] for x in (ids, mask, positions, rows, limits, done))

    def _next(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Return the argmax after the last of `ids` [rows, new] for each row [rows]."""
        further = {"position_ids": positions} if self.takes_positions else {}
        output = self.model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **further, **self.last_logit
        )
        chosen: Tensor = output.logits[:, -1].argmax(-1)
        return chosen


def _until_eos(row: list[int], eos: int) -> list[int]:
    return row[: row.index(eos) + 1] if eos in row else row


def cache_bytes_per_token(model: nn.Module) -> int:
    """Return an upper bound for the bytes of one token's keys and values in all layers: grouped heads need less."""
    config, itemsize = text_config(model), next(model.parameters()).element_size()
    return int(2 * config.num_hidden_layers * config.hidden_size * itemsize)


@contextmanager
def one_token_attention(model: nn.Module, device: torch.device) -> Iterator[Callable[[], None]]:
    """Yield a function that switches the model's attention to plain batched products, until the block ends.

    PyTorch's fused CPU kernel is made for many queries: with one query per row, plain products are three times as fast.
    Elsewhere than on a CPU with that kernel the function does nothing.
    """
    base = base_model(model)
    fused = device.type == "cpu" and getattr(base.config, "_attn_implementation", None) == "sdpa"
    switched = False

    def switch() -> None:
        nonlocal switched
        if fused:
            base.set_attn_implementation("eager")
            switched = True

    try:
        yield switch
    finally:
        if switched:
            base.set_attn_implementation("sdpa")
