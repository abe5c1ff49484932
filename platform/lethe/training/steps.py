"""One optimizer step and one Hessian refresh, from rows to loss shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from lethe.data.batches import Batch, Pair, Step, collate, micro_batches
from lethe.data.template import Encoded
from lethe.losses.contract import Counts, Loss, Scored
from lethe.optim import sample_keys, sampled_labels, sampled_loss
from lethe.training.engine import Engine

RETAIN_KEYS = 1 << 40  # retain rows' sampling keys start here, so that they never meet a forget row's


@dataclass
class Stepper:
    """Turns the plan's steps into forward and backward passes on this rank."""

    engine: Engine
    loss: Loss
    forget: list[Encoded]
    retain: list[Encoded]
    reference: torch.Tensor | None
    pad: int
    rank: int
    seed: int
    refreshes: int = 0
    tokens: int = 0
    _metrics: dict[str, torch.Tensor] = field(default_factory=dict)

    def counts(self, step: Step) -> Counts:
        """Scored tokens of the whole step, over all ranks."""
        return Counts(
            forget_tokens=sum(_answer(self.forget[f]) for f, _ in step.pairs),
            retain_tokens=sum(_answer(self.retain[r]) for _, r in step.pairs),
            forget_rows=len(step.pairs),
        )

    def step(self, step: Step, rate: float) -> dict[str, torch.Tensor]:
        """Train on one step; returns this rank's shares of the step's metrics."""
        self._metrics = {}
        counts = self.counts(step)
        self.tokens += sum(len(self.forget[f].ids) + len(self.retain[r].ids) for f, r in step.pairs)
        self.engine.step((self._share(b, counts) for b in self._batches(step, self._both)), rate)
        return self._metrics

    def refresh(self, step: Step, data: str) -> None:
        """Refresh Sophia's Hessian from labels that the model itself samples on this step's rows."""
        select = {"both": self._both, "forget": self._only_forget, "retain": self._only_retain}[data]
        counts = self.counts(step)
        sampled = {
            "both": counts.forget_tokens + counts.retain_tokens,
            "forget": counts.forget_tokens,
            "retain": counts.retain_tokens,
        }[data]
        used = {"forget": (1, 0), "retain": (0, 1), "both": (1, 1)}[data]
        self.tokens += sum(used[0] * len(self.forget[f].ids) + used[1] * len(self.retain[r].ids) for f, r in step.pairs)
        self.engine.refresh((self._sampled(b, sampled) for b in self._batches(step, select)), sampled)
        self.refreshes += 1

    def _share(self, batch: Batch, counts: Counts) -> torch.Tensor:
        loss, metrics = self.loss(self._scored(batch), counts)
        for name, value in metrics.items():
            self._metrics[name] = self._metrics.get(name, 0) + value
        return loss

    def _sampled(self, batch: Batch, total: int) -> torch.Tensor:
        logits = self._logits(batch)
        source = batch.source + torch.where(batch.is_forget, 0, RETAIN_KEYS)
        keys = sample_keys(self.seed, self.refreshes, source[batch.row], batch.place)
        return sampled_loss(logits, sampled_labels(logits, keys), total)

    def _scored(self, batch: Batch) -> Scored:
        reference = torch.zeros(len(batch.is_forget), device=batch.labels.device)
        if self.reference is not None:
            known = self.reference.to(reference.device)[batch.source * batch.is_forget]
            reference = torch.where(batch.is_forget, known, reference)
        return Scored(self._logits(batch), batch.labels, batch.row, batch.is_forget, reference)

    def _logits(self, batch: Batch) -> torch.Tensor:
        return self.engine.engine(batch.input_ids, batch.position)

    def _batches(self, step: Step, select: Callable[[tuple[Pair, ...]], Batch]) -> Iterator[Batch]:
        for pairs in micro_batches(step, self.rank, self.engine.world, self.engine.accumulation):
            yield select(pairs).to(self.engine.device)

    def _both(self, pairs: tuple[Pair, ...]) -> Batch:
        return collate(self._forget_rows(pairs), self._retain_rows(pairs), self.pad)

    def _only_forget(self, pairs: tuple[Pair, ...]) -> Batch:
        return collate(self._forget_rows(pairs), [], self.pad)

    def _only_retain(self, pairs: tuple[Pair, ...]) -> Batch:
        return collate([], self._retain_rows(pairs), self.pad)

    def _forget_rows(self, pairs: tuple[Pair, ...]) -> list[tuple[int, Encoded]]:
        return [(f, self.forget[f]) for f, _ in pairs]

    def _retain_rows(self, pairs: tuple[Pair, ...]) -> list[tuple[int, Encoded]]:
        return [(r, self.retain[r]) for _, r in pairs]


def _answer(row: Encoded) -> int:
    return len(row.ids) - row.prompt_length
