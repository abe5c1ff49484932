"""Generation for many prompts at once: greedy, token by token what `transformers.generate` gives for each alone, or
sampled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from lethe.errors import UserError
from lethe.evaluation.causal_lm import base_model, device_of, text_config
from lethe.evaluation.context_length import context_of
from lethe.evaluation.kv_cache import (
    TensorPool,
    builds_own_mask,
    cache_bytes,
    capacity,
    growing_cache,
    release,
    remembers_by_keys,
)
from lethe.evaluation.likelihood import max_scored_positions
from lethe.evaluation.one_token_attention import fast_one_token_attention

LEAST_CACHE_BYTES = {"cpu": 2**27, "cuda": 2**32}
DROP = 8  # rows leave the batch once one in so many is done

Choose = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From logits [n, V], the numbers of their prompts [n] and the lengths of their answers so far [n] to tokens [n]."""


def most_likely(logits: Tensor, number: Tensor, place: Tensor) -> Tensor:
    """Return the argmax: greedy decoding."""
    found: Tensor = logits.argmax(-1)
    return found


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    stops: Collection[int],
    pad: int,
    max_new_tokens: int,
    token_budget: int,
    begun: Sequence[Sequence[int]] | None = None,
    choose: Choose = most_likely,
) -> list[list[int]]:
    """Return the continuation of each prompt, in the order given: new tokens only, up to and with the first of
    `stops`, at most `max_new_tokens`, and fewer where the model's learned positions end.

    `choose` takes each next token: the likeliest by default. Equal prompts of a batch are read once. `begun`: the first
    tokens of each answer, if they are known already (see `known_beginning`); they are part of the returned answer. The
    first pass over a batch has at most `token_budget` padded prompt tokens, its cache at most `cache_budget` bytes. Put
    the model into eval mode first.
    """
    decoder = Decoder(model, stops=stops, pad=pad, max_new_tokens=max_new_tokens, choose=choose)
    answers = [_until_stop([*tokens[:max_new_tokens]], stops) for tokens in begun or [()] * len(prompts)]
    unfinished = [
        i for i, answer in enumerate(answers) if len(answer) < max_new_tokens and not {*stops} & {*answer[-1:]}
    ]
    contexts = [[*prompts[i], *answers[i]] for i in unfinished]
    for batch in decoder.batches([len(context) for context in contexts], token_budget):
        spent = [len(answers[unfinished[j]]) for j in batch]
        numbers = [unfinished[j] for j in batch]
        for j, rest in zip(batch, decoder.batch([contexts[j] for j in batch], spent, numbers), strict=True):
            answers[unfinished[j]] += rest
    return answers


def cache_budget(model: nn.Module) -> int:
    """Return how many bytes the keys and values of one batch may take: a quarter of the weights, and at least
    `LEAST_CACHE_BYTES`. More rows make a token little faster."""
    return max(LEAST_CACHE_BYTES.get(device_of(model).type, 2**32), sum(p.nbytes for p in model.parameters()) // 4)


def known_beginning(answer: Sequence[int], guess: Sequence[int]) -> list[int]:
    """Return how a greedy answer begins, from the model's `guess` at each token of a teacher-forced `answer`: the
    tokens up to where both differ, and the guess there."""
    pairs = zip(answer, guess, strict=True)
    same = next((k for k, (token, guessed) in enumerate(pairs) if token != guessed), len(answer))
    return [*answer[:same], *map(int, guess[same : same + 1])]


def up_to_first(text: str, ends: str | Sequence[str]) -> str:
    """Return `text` up to the first of `ends`."""
    for end in (ends,) if isinstance(ends, str) else ends:
        text = text.partition(end)[0] if end else text
    return text


class Decoder:
    """Decoding for one model, in left-padded batches of similar length that lose their finished rows.

    Padding would enter the state of a recurrent or convolutional layer: a model with such layers is decoded by its own
    `generate`, in batches of equal length; row by row where its state is no cache of transformers (RWKV's mixes rows).
    """

    def __init__(
        self, model: nn.Module, *, stops: Collection[int], pad: int, max_new_tokens: int, choose: Choose = most_likely
    ) -> None:
        self.choose = choose
        self.model, self.stops, self.pad, self.max_new_tokens = model, stops, pad, max_new_tokens
        self.device = device_of(model)
        self.stop_ids = torch.tensor(list(stops), dtype=torch.long, device=self.device)
        self.base, self.config = base_model(model), text_config(model)
        inputs = inspect.signature(self.base.forward).parameters
        self.takes_positions = "position_ids" in inputs
        self.last_logit = {"logits_to_keep": 1} if "logits_to_keep" in inputs else {}
        self.positions = context_of(self.config) or 2**31
        self.pads = remembers_by_keys(self.base)
        self.has_cache = not {"past_key_values", "cache_params"}.isdisjoint(inputs)
        self.pool = TensorPool()

    def batches(self, lengths: Sequence[int], token_budget: int) -> list[list[int]]:
        """Return the prompts' numbers in groups of nearly equal size and similar length, within the budgets."""
        order = sorted(range(len(lengths)), key=lambda i: lengths[i])
        if not order:
            return []
        longest = max(lengths)
        most = min(token_budget // max(1, longest), max_scored_positions(self.base))
        if self.pads:
            row = cache_bytes(self.model, capacity(longest + self.max_new_tokens))
            most = min(most, cache_budget(self.model) // row)
            return _even_parts(order, max(1, most))
        most = max(1, most) if self.has_cache else 1
        return [part for _, equal in groupby(order, key=lambda i: lengths[i]) for part in _even_parts([*equal], most)]

    @torch.no_grad()
    def batch(self, prompts: Sequence[Sequence[int]], spent: Sequence[int], numbers: Sequence[int]) -> list[list[int]]:
        """Return the continuations of prompts that share one batch; the last `spent[i]` tokens of prompt i belong to
        its answer and count towards `max_new_tokens`. `numbers[i]` is its number for `choose`."""
        width = max(map(len, prompts))
        # Some attention has a table of positions for the whole padded batch.
        taken = [width if builds_own_mask(self.config) else len(p) for p in prompts]
        limits = [min(self.max_new_tokens - s, self.positions - t) for s, t in zip(spent, taken, strict=True)]
        steps = max(limits)
        tokens = torch.full((len(prompts), max(0, steps)), self.pad, device=self.device)
        named = torch.tensor([[*numbers], [*spent]], device=self.device)
        if steps > 0 and not self.pads:
            tokens = self._generate(prompts, named, steps)
        elif steps > 0:
            cache = growing_cache(self.config, width + steps, self.pool)
            with fast_one_token_attention(self.device):
                self._decode(prompts, named, torch.tensor(limits, device=self.device), tokens, cache)
            release(cache)
        return [
            _until_stop(row[: max(0, limit)], self.stops) for row, limit in zip(tokens.tolist(), limits, strict=True)
        ]

    def _generate(self, prompts: Sequence[Sequence[int]], named: Tensor, steps: int) -> Tensor:
        """Return `steps` or fewer new tokens [rows, new] of prompts of equal length, by the model's own `generate`.
        `named`: as in `_decode`."""
        _check_own_cache(self.config)
        ids = torch.tensor([[*prompt] for prompt in prompts], device=self.device)
        # The model's own generation configuration would fill in what is not given: penalties, samplers, lengths.
        make: Callable[..., GenerationConfig] = GenerationConfig  # transformers leaves it unannotated
        stops = [*self.stops] or None
        greedy = make(do_sample=False, max_new_tokens=steps, eos_token_id=stops, pad_token_id=self.pad)
        own, self.base.generation_config = self.base.generation_config, make()
        try:
            found: Tensor = self.base.generate(  # type: ignore[operator]  # transformers types it loosely
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=greedy,
                logits_processor=LogitsProcessorList([_Chosen(self.choose, named, ids.shape[1])]),
            )
        finally:
            self.base.generation_config = own
        return found[:, ids.shape[1] :]

    def _decode(
        self, prompts: Sequence[Sequence[int]], named: Tensor, limits: Tensor, tokens: Tensor, cache: DynamicCache
    ) -> None:
        """Fill `tokens` [rows, steps]. `named` [2, rows]: each row's number, and how long its answer is before."""
        # Positions count from each prompt's own start; left padding is masked.
        width, steps = max(map(len, prompts)), tokens.shape[1]
        different = {prompt: i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        ids = torch.tensor([[self.pad] * (width - len(p)) + list(p) for p in different], device=self.device)
        mask = torch.ones(len(different), width + steps, dtype=torch.long, device=self.device)
        for row, prompt in enumerate(different):
            mask[row, : width - len(prompt)] = 0
        positions = (mask[:, :width].cumsum(1) - 1).clamp(min=0)
        logits = self._logits(ids, mask[:, :width], positions, cache)
        if len(different) < len(prompts):
            same = torch.tensor([different[tuple(prompt)] for prompt in prompts], device=self.device)
            cache.reorder_cache(same)  # type: ignore[arg-type]  # transformers names a CPU type, any int64 works
            logits, mask, positions = logits[same], mask[same], positions[same]
        rows = torch.arange(len(prompts), device=self.device)
        done = limits <= 0
        for step in range(steps):
            ids = self.choose(logits, named[0, rows], named[1, rows] + step)
            tokens[rows, step] = ids
            done |= torch.isin(ids, self.stop_ids) | (limits <= step + 1)
            finished = int(done.sum())
            if finished == len(rows):
                return
            ids, positions = ids[:, None], positions[:, -1:] + 1
            if finished * DROP >= len(rows):
                keep = (~done).nonzero()[:, 0]
                cache.reorder_cache(keep)  # type: ignore[arg-type]  # as above
                ids, mask, positions, rows, limits, done = (x[keep] for x in (ids, mask, positions, rows, limits, done))
            logits = self._logits(ids, mask[:, : width + step + 1], positions, cache)

    def _logits(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Return the logits after the last of `ids` [rows, new] for each row [rows, V]."""
        further = {"position_ids": positions} if self.takes_positions else {}
        output = self.model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **further, **self.last_logit
        )
        logits: Tensor = output.logits[:, -1]
        return logits


class _Chosen(LogitsProcessor):
    """Leaves transformers' greedy search one token to take, the one that `choose` names."""

    def __init__(self, choose: Choose, named: Tensor, prompt: int) -> None:
        """`named` [2, rows]: each row's number, and how long its answer is before; `prompt`: its prompt's length."""
        self.choose, self.named, self.prompt = choose, named, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores [rows, V], 0 at the chosen token and minus infinity elsewhere."""
        number, spent = self.named
        chosen = self.choose(scores, number, spent + input_ids.shape[1] - self.prompt)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


def _check_own_cache(config: Any) -> None:
    """Raise UserError for an xLSTM that transformers cannot generate with: its cache has widths that are multiples of
    64, and the layers need not have."""
    if config.model_type != "xlstm":
        return
    layers = {name: config.hidden_size * getattr(config, f"{name}_dim_factor") for name in ("qk", "v")}
    if odd := [f"{name} {width:g}" for name, width in layers.items() if getattr(config, f"{name}_dim") != width]:
        raise UserError(f"an xLSTM generates only with widths that are multiples of 64: this one has {', '.join(odd)}")


def _until_stop(row: list[int], stops: Collection[int]) -> list[int]:
    first = next((place for place, token in enumerate(row) if token in stops), len(row))
    return row[: first + 1]


def _even_parts(items: Sequence[int], most: int) -> list[list[int]]:
    """Return `items` in consecutive parts of nearly equal size, each of at most `most`."""
    size = -(-len(items) // -(-len(items) // most))
    return [[*items[start : start + size]] for start in range(0, len(items), size)]
