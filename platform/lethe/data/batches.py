"""The training plan, which says the rows of every optimizer step, and the batches of tensors that it gives.

The plan is a pure function of (rows, schedule, seed): every rank computes it whole, so global token counts need
no communication and do not depend on how a step is divided into ranks and micro-batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import chain
from math import ceil

import numpy as np
import torch

from lethe.config.run import Schedule
from lethe.data.packing import pack_rows, padded_tokens
from lethe.data.refusals import Refusals
from lethe.data.template import Encoded

RowPair = tuple[int, tuple[int, ...]]  # a forget row and the retain rows beside it, one at `retain_ratio` 1
Sourced = tuple[int, Encoded]  # a row and its number among all rows of its kind
NOWHERE: Mapping[RowKind, int] = {}


class RowKind(IntEnum):
    """The kind of a row of a batch: a forget answer, a retain answer, or what a forget question is answered with in its
    place, a refusal or an alternative."""

    FORGET = 0
    RETAIN = 1
    REFUSAL = 2


@dataclass(frozen=True)
class Step:
    """One optimizer step: its forget rows with their retain rows, over all ranks; `epoch` counts from 1."""

    epoch: int
    number: int
    pairs: tuple[RowPair, ...]
    ends_epoch: bool


def steps_per_epoch(forget_rows: int, schedule: Schedule) -> int:
    """Return the number of optimizer steps in one pass over the forget rows."""
    return -(-forget_rows // schedule.batch_size)


def total_epochs(forget_rows: int, schedule: Schedule) -> int:
    """Return the number of epochs that the run begins."""
    return -(-total_steps(forget_rows, schedule) // steps_per_epoch(forget_rows, schedule))


def total_steps(forget_rows: int, schedule: Schedule) -> int:
    """Return the number of optimizer steps of the whole run."""
    steps = schedule.epochs * steps_per_epoch(forget_rows, schedule)
    return steps if schedule.max_steps is None else min(steps, schedule.max_steps)


def plan(forget_rows: int, retain_rows: int, schedule: Schedule, seed: int) -> Iterator[Step]:
    """Yield the steps of a run: in every epoch the forget rows in a new order, and `schedule.retain_ratio` random
    retain rows for each, none twice before all have come. A step's retain rows are dealt out to its forget rows in
    turn."""
    last = total_steps(forget_rows, schedule)
    number = 0
    for epoch in range(1, schedule.epochs + 1):
        random = np.random.default_rng([seed, epoch])
        forget = random.permutation(forget_rows)
        rounds = -(-retain_count(forget_rows, schedule) // retain_rows)
        retain = np.concatenate([random.permutation(retain_rows) for _ in range(rounds)]).tolist()
        for start in range(0, forget_rows, schedule.batch_size):
            stop = min(start + schedule.batch_size, forget_rows)
            number += 1
            beside = retain[retain_count(start, schedule) : retain_count(stop, schedule)]
            pairs = [(f, tuple(beside[i :: stop - start])) for i, f in enumerate(forget[start:stop].tolist())]
            yield Step(epoch, number, tuple(pairs), ends_epoch=number == last or stop == forget_rows)
            if number == last:
                return


def retain_count(forget_rows: int, schedule: Schedule) -> int:
    """Return the number of retain rows beside the first so many forget rows of an epoch."""
    return ceil(round(forget_rows * schedule.retain_ratio, 6))  # 30 times .1 is more than 3


def micro_batches(step: Step, rank: int, world: int, accumulation: int) -> list[tuple[RowPair, ...]]:
    """Return this rank's pairs of a step, one entry per micro-batch; some are empty when the step is small."""
    slots = world * accumulation
    return [step.pairs[rank + micro * world :: slots] for micro in range(accumulation)]


def split(
    pairs: Sequence[RowPair],
    rows: StepRows,
    kinds: Sequence[RowKind],
    epoch: int,
    most: int,
    hidden_size: int | None,
    everywhere: Mapping[RowKind, int] = NOWHERE,
) -> list[tuple[RowPair, ...]]:
    """Cut a micro-batch into ones of at most `most` tokens each, padding included, longest rows first; a pair that
    alone has more is one by itself. `everywhere`: see `collate`."""
    lengths = {
        pair: [[max(len(row.ids), everywhere.get(k, 0)) for _, row in rows.of(k, [pair], epoch)] for k in kinds]
        for pair in pairs
    }
    hidden_size = None if everywhere else hidden_size
    parts: list[tuple[RowPair, ...]] = []
    for pair in sorted(pairs, key=lambda pair: -max(chain(*lengths[pair]), default=0)):
        more = (*parts[-1], pair) if parts else (pair,)
        # As `collate` has them.
        together = [length for kind in range(len(kinds)) for p in more for length in lengths[p][kind]]
        if parts and padded_tokens(pack_rows(together, hidden_size), together) <= most:
            parts[-1] = more
        else:
            parts.append((pair,))
    return parts


@dataclass(frozen=True)
class StepRows:
    """The rows that a run's batches are made of."""

    forget: Sequence[Encoded]
    retain: Sequence[Encoded]
    refusals: Refusals | None = None

    def of(self, kind: RowKind, pairs: Sequence[RowPair], epoch: int) -> list[Sourced]:
        """Return the rows of this kind of the pairs in this epoch, each with its number among those of its kind."""
        if kind == RowKind.FORGET:
            return [(f, self.forget[f]) for f, _ in pairs]
        if kind == RowKind.RETAIN:
            return [(r, self.retain[r]) for _, beside in pairs for r in beside]
        if self.refusals is None:
            raise ValueError("these rows hold no refusals")
        return [self.refusals.of(f, epoch) for f, _ in pairs]


@dataclass(frozen=True)
class TokenBatch:
    """One micro-batch: rows of one kind after rows of another, in packs that are padded on the right.

    input_ids: [P, T]; position: [N] flat index p*T + t of the logits that predict label [N];
    row: [N] row in this batch; place: [N] position within its answer, -1 outside; kind: [R], a `RowKind`; partner: [R]
    the row with the other answer to the same question, itself where there is none; source: [R] row number among those
    of its kind; segment: [P, T] the row of each token, -1 for padding, and depth: [P, T] its position in that row, both
    None where every pack is one row; length: [R] tokens of each row where padding is scored, else None.
    """

    input_ids: torch.Tensor
    position: torch.Tensor
    labels: torch.Tensor
    row: torch.Tensor
    place: torch.Tensor
    kind: torch.Tensor
    partner: torch.Tensor
    source: torch.Tensor
    segment: torch.Tensor | None = None
    depth: torch.Tensor | None = None
    length: torch.Tensor | None = None

    def to(self, device: torch.device) -> TokenBatch:
        """Return the same batch on another device."""
        tensors = {name: tensor.to(device) for name, tensor in vars(self).items() if tensor is not None}
        return replace(self, **tensors)

    def inputs(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return what a model of this `dtype` needs besides `input_ids`, so that no row sees another: `position_ids`
        [P, T] and `attention_mask` [P, 1, T, T], 0 or the lowest value; nothing where every pack is one row, which
        faster kernels read. Where padding is scored: an `attention_mask` [R, T], 0 at padding, which nothing sees."""
        if self.length is not None:
            place = torch.arange(self.input_ids.shape[1], device=self.length.device)
            return {"attention_mask": (place < self.length[:, None]).long()}
        if self.segment is None or self.depth is None:
            return {}
        seen = (self.segment[:, :, None] == self.segment[:, None, :]).tril_()[:, None]
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
        return {"position_ids": self.depth, "attention_mask": mask}


def collate(
    groups: Mapping[RowKind, Sequence[Sourced]],
    pad: int,
    hidden_size: int | None = None,
    everywhere: Mapping[RowKind, int] = NOWHERE,
) -> TokenBatch:
    """Return rows as a `TokenBatch`, one kind after another in the order given, packed for a model of this
    `hidden_size`, if it is given. The i-th forget row and the i-th refusal are partners. Without any rows it has one
    retain row of padding, in which nothing is scored.

    `everywhere`: the kinds of rows that are scored at their first so many positions, prompt and padding included, and
    not at their answers alone; nothing is packed then."""
    rows = [row for group in groups.values() for row in group]
    every = np.array([everywhere.get(k, 0) for k, group in groups.items() for _ in group], dtype=np.int64)
    lengths = [len(e.ids) for _, e in rows]
    packs = pack_rows(lengths, None if everywhere else hidden_size) or [[]]
    width = max(padded_tokens(packs, lengths) // len(packs), int(every.max(initial=1)))
    ids = np.full((len(packs), width), pad, dtype=np.int64)
    segment, depth = np.full_like(ids, -1), np.zeros_like(ids)
    starts = np.zeros(len(rows), dtype=np.int64)  # flat index of each row's first token
    for p, pack in enumerate(packs):
        stop = 0
        for r in pack:
            start, stop = stop, stop + lengths[r]
            ids[p, start:stop], segment[p, start:stop], depth[p, start:stop] = rows[r][1].ids, r, np.arange(lengths[r])
            starts[r] = p * width + start
    prompts = np.array([e.prompt_length for _, e in rows], dtype=np.int64)
    answers = np.array(lengths, dtype=np.int64) - prompts
    first = starts + prompts - 1  # the position that predicts an answer's first token
    count = np.where(every, every, answers)
    row = np.repeat(np.arange(len(rows)), count)
    position = np.where(every, starts, first)[row] + np.arange(len(row)) - (count.cumsum() - count)[row]
    place = position - first[row]
    place[(place < 0) | (place >= answers[row])] = -1
    following = np.pad(ids[:, 1:], ((0, 0), (0, 1)), constant_values=pad).ravel()
    label = following[position]
    positions, labels, row_of, place_of = (torch.from_numpy(values) for values in (position, label, row, place))
    kind = torch.tensor([k for k, group in groups.items() for _ in group] or [RowKind.RETAIN])
    source = torch.tensor([i for i, _ in rows] or [0], dtype=torch.long)
    batch = TokenBatch(torch.from_numpy(ids), positions, labels, row_of, place_of, kind, _partners(kind), source)
    if everywhere:
        return replace(batch, length=torch.tensor(lengths or [1]))
    if all(len(pack) <= 1 for pack in packs):
        return batch
    return replace(batch, segment=torch.from_numpy(segment), depth=torch.from_numpy(depth))


def _partners(kind: torch.Tensor) -> torch.Tensor:
    partner = torch.arange(len(kind))
    forget, refusal = (torch.nonzero(kind == k).flatten() for k in (RowKind.FORGET, RowKind.REFUSAL))
    if len(forget) == len(refusal):
        partner[forget], partner[refusal] = refusal, forget
    return partner
