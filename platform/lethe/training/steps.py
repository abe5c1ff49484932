"""One optimizer step and one Hessian refresh, from rows to loss shares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from lethe.data.batches import Batch, Kind, Rows, Step, collate, micro_batches
from lethe.data.template import Encoded
from lethe.losses.contract import Counts, Loss, Scored
from lethe.models.forward import scored_logits
from lethe.optim import sample_keys, sampled_labels, sampled_loss
from lethe.training.engine import Engine

KIND_KEYS = 1 << 40  # sampling keys of the rows of one kind start this far from the next, so that they never meet

Kinds = tuple[Kind, ...]


@dataclass
class Stepper:
    """Turns the plan's steps into forward and backward passes on this rank.

    `references`: S0 of all rows of a kind, where the loss needs it; `start`: the frozen start model, where it needs
    that model's logits. `tokens` counts those that went through the trained model, prompts included, over all ranks.
    """

    engine: Engine
    loss: Loss
    rows: Rows
    pad: int
    rank: int
    seed: int
    references: Mapping[Kind, torch.Tensor] = field(default_factory=dict)
    start: nn.Module | None = None
    refreshes: int = 0
    tokens: int = 0
    _metrics: dict[str, torch.Tensor] = field(default_factory=dict)

    def step(self, step: Step, rate: float) -> tuple[dict[str, torch.Tensor], float]:
        """Train on one step; returns this rank's shares of the step's metrics, and the gradient norm over all ranks."""
        self._metrics = {}
        kinds = self.loss.trains_on
        counts = self._counts(step, kinds)
        shares = (self._share(batch, counts) for batch in self._batches(step, kinds))
        norm = self.engine.step(shares, rate)
        return self._metrics, norm

    def refresh(self, step: Step, data: str) -> float:
        """Refresh Sophia's Hessian from labels that the model itself samples on this step's rows; returns the norm.

        `data`: `both` are the rows that the objective trains on; `forget` those among them that answer forget
        questions, so refusals where it trains on refusals; `retain` the retain rows, also for an objective without.
        """
        kinds = self._hessian_kinds(data)
        sampled = sum(self._counts(step, kinds).tokens.values())
        norm = self.engine.refresh((self._sampled(batch, sampled) for batch in self._batches(step, kinds)), sampled)
        self.refreshes += 1
        return norm

    def _hessian_kinds(self, data: str) -> Kinds:
        if data == "retain":
            return (Kind.RETAIN,)
        return tuple(k for k in self.loss.trains_on if data == "both" or k != Kind.RETAIN)

    def _counts(self, step: Step, kinds: Kinds) -> Counts:
        """Of the whole step, over all ranks: what `_batches` gives is this rank's part of it."""
        found = self._encoded(step, kinds)
        return Counts({kind: sum(map(_answer, rows)) for kind, rows in found.items()}, forget_rows=len(step.pairs))

    def _encoded(self, step: Step, kinds: Kinds) -> dict[Kind, list[Encoded]]:
        return {kind: [row for _, row in self.rows.of(kind, step.pairs, step.epoch)] for kind in kinds}

    def _batches(self, step: Step, kinds: Kinds) -> Iterator[Batch]:
        """This rank's micro-batches of rows of these kinds; the whole step's tokens are counted."""
        self.tokens += sum(len(row.ids) for rows in self._encoded(step, kinds).values() for row in rows)
        for pairs in micro_batches(step, self.rank, self.engine.world, self.engine.accumulation):
            rows = {kind: self.rows.of(kind, pairs, step.epoch) for kind in kinds}
            yield collate(rows, self.pad).to(self.engine.device)

    def _share(self, batch: Batch, counts: Counts) -> torch.Tensor:
        loss, metrics = self.loss(self._scored(batch), counts)
        for name, value in metrics.items():
            self._metrics[name] = self._metrics.get(name, 0) + value
        return loss

    def _sampled(self, batch: Batch, total: int) -> torch.Tensor:
        logits = self._logits(batch)
        source = batch.source + KIND_KEYS * batch.kind
        keys = sample_keys(self.seed, self.refreshes, source[batch.row], batch.place)
        return sampled_loss(logits, sampled_labels(logits, keys), total)

    def _scored(self, batch: Batch) -> Scored:
        # The frozen forward first: its activations are gone when the other's are kept for the backward.
        start_logits = None if self.start is None else _retain_logits(self.start, batch)
        logits = self._logits(batch)
        return Scored(
            logits, batch.labels, batch.row, batch.kind, batch.partner, self._reference(batch), start_logits
        )

    def _reference(self, batch: Batch) -> torch.Tensor:
        reference = torch.zeros(len(batch.kind), device=batch.labels.device)
        for kind, known in self.references.items():
            mine = batch.kind == kind
            reference = torch.where(mine, known.to(reference.device)[batch.source * mine], reference)
        return reference

    def _logits(self, batch: Batch) -> torch.Tensor:
        return self.engine.engine(batch.input_ids, batch.position)


@torch.no_grad()
def _retain_logits(model: nn.Module, batch: Batch) -> torch.Tensor:
    """[M, V] at the scored positions of retain rows, which are forwarded alone; `collate` was given them last."""
    retain = batch.kind == Kind.RETAIN
    first = int(torch.count_nonzero(~retain))
    position = batch.position[retain[batch.row]] - first * batch.input_ids.shape[1]
    return scored_logits(model, batch.input_ids[first:], position)


def _answer(row: Encoded) -> int:
    return len(row.ids) - row.prompt_length
