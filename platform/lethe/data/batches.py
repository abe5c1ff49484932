"""Which rows are in which optimizer step, and how they become tensors.

The plan is a pure function of (rows, schedule, seed): every rank computes it whole, so global token counts need
no communication and do not depend on how a step is divided into ranks and micro-batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lethe.config.schedule import Schedule
from lethe.data.template import Encoded

Pair = tuple[int, int]


@dataclass(frozen=True)
class Step:
    """One optimizer step: (forget row, retain row) pairs over all ranks; `epoch` counts from 1."""

    epoch: int
    number: int
    pairs: tuple[Pair, ...]
    ends_epoch: bool


def steps_per_epoch(forget_rows: int, schedule: Schedule) -> int:
    """Optimizer steps in one pass over the forget rows."""
    return -(-forget_rows // schedule.batch_size)


def total_steps(forget_rows: int, schedule: Schedule) -> int:
    """Optimizer steps of the whole run."""
    steps = schedule.epochs * steps_per_epoch(forget_rows, schedule)
    return steps if schedule.max_steps is None else min(steps, schedule.max_steps)


def plan(forget_rows: int, retain_rows: int, schedule: Schedule, seed: int) -> Iterator[Step]:
    """Every epoch: the forget rows in a new order, each with one random retain row (none twice while they last)."""
    last = total_steps(forget_rows, schedule)
    number = 0
    for epoch in range(1, schedule.epochs + 1):
        random = np.random.default_rng([seed, epoch])
        forget = random.permutation(forget_rows)
        rounds = -(-forget_rows // retain_rows)
        retain = np.concatenate([random.permutation(retain_rows) for _ in range(rounds)])[:forget_rows]
        pairs = list(zip(forget.tolist(), retain.tolist(), strict=True))
        for start in range(0, forget_rows, schedule.batch_size):
            number += 1
            ends = number == last or start + schedule.batch_size >= forget_rows
            yield Step(epoch, number, tuple(pairs[start : start + schedule.batch_size]), ends)
            if number == last:
                return


def micro_batches(step: Step, rank: int, world: int, accumulation: int) -> list[tuple[Pair, ...]]:
    """This rank's share of a step, one entry per micro-batch; some may be empty when the step is small."""
    slots = world * accumulation
    return [step.pairs[rank + micro * world :: slots] for micro in range(accumulation)]


@dataclass(frozen=True)
class Batch:
    """One micro-batch: forget rows, then retain rows, padded on the right.

    input_ids: [R, T]; position: [N] flat index r*T + t of the logits that predict label [N];
    row: [N] row in this batch; place: [N] position within its answer; is_forget: [R]; source: [R] row number in its
    own split.
    """

    input_ids: torch.Tensor
    position: torch.Tensor
    labels: torch.Tensor
    row: torch.Tensor
    place: torch.Tensor
    is_forget: torch.Tensor
    source: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


def collate(forget: Sequence[tuple[int, Encoded]], retain: Sequence[tuple[int, Encoded]], pad: int) -> Batch:
    """Pad rows into a `Batch`. With no rows at all: one row of padding with nothing scored."""
    rows = [*forget, *retain]
    width = max((len(e.ids) for _, e in rows), default=1)
    count = max(len(rows), 1)
    ids = np.full((count, width), pad, dtype=np.int64)
    position, labels, row, place = [], [], [], []
    for r, (_, encoded) in enumerate(rows):
        n, p = len(encoded.ids), encoded.prompt_length
        ids[r, :n] = encoded.ids
        position.append(np.arange(p - 1, n - 1) + r * width)
        labels.append(ids[r, p:n])
        row.append(np.full(n - p, r))
        place.append(np.arange(n - p))
    none = np.zeros(0, np.int64)
    flat = [torch.from_numpy(np.concatenate([none, *x])) for x in (position, labels, row, place)]
    is_forget = torch.zeros(count, dtype=torch.bool)
    is_forget[: len(forget)] = True
    source = torch.tensor([i for i, _ in rows] or [0], dtype=torch.long)
    return Batch(torch.from_numpy(ids), *flat, is_forget, source)
