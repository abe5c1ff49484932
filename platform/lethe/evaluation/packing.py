"""Pairs that begin alike, as one row of a batch: a token that several of them share is computed once.

A question's answer, its paraphrase and the wrong answers differ late: on a TOFU benchmark more than half of all
tokens are repeated. The row is a tree of prefixes, flattened; its mask lets a token see its own ancestors only, so
that every token's numbers are those of its own pair alone (Cai et al. 2024, arXiv 2401.10774, verify drafts so).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lethe.data.template import Encoded
from lethe.evaluation.cache import masks_itself
from lethe.models.forward import scored_logits

TOLERANCE = 0.05  # of the spread of logits: rounding is far below, a token that sees too much far above


@dataclass(frozen=True)
class Packed:
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


def pack_for(model: nn.Module, pairs: Sequence[Encoded]) -> list[Packed]:
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


def pack(pairs: Sequence[Encoded], most: int) -> list[Packed]:
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
    return [Packed(tuple(row.pairs), tuple(row.paths), tuple(row.ids), tuple(row.spans), row.prompt) for row in rows]


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


def batch_inputs(rows: Sequence[Packed], pad: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
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
        and not masks_itself(config)
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
