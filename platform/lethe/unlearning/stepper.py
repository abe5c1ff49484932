"""From the rows of a step to forward and backward passes on this rank: `Stepper`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import torch
from torch import Tensor, nn

from lethe.config.optimizer import HessianData
from lethe.config.run import Schedule
from lethe.data.batches import (
    NOWHERE,
    RowKind,
    RowPair,
    Sourced,
    Step,
    StepRows,
    TokenBatch,
    collate,
    micro_batches,
    split,
)
from lethe.data.template import Encoded
from lethe.evaluation.causal_lm import text_config
from lethe.evaluation.likelihood import reads_packed_rows
from lethe.models.forward import PositionLogits, ScoredLM, Tap, Term, layer_states
from lethe.unlearning.engine import Engine
from lethe.unlearning.objectives.base import Counts, Loss, Scored
from lethe.unlearning.objectives.tokens import token_log_probs
from lethe.unlearning.optim.hessian import sample_keys, sampled_labels, sampled_loss

KIND_KEYS = 1 << 40  # sampling keys of the rows of one kind start this far from the next, so that they never meet
# Of the smallest model whose rows are packed. Chosen so that the embedded models are trained as before, not measured.
PACKED_HIDDEN_SIZE = 512

Kinds = tuple[RowKind, ...]
RowsOfKinds = Mapping[RowKind, Sequence[Sourced]]


@dataclass
class Stepper:
    """Turns the steps of the training plan into forward and backward passes on this rank.

    `start_log_probs`: S0 of all rows of a kind, where the loss needs it; `start`: the frozen start model, where it
    needs that model's logits or states; `micro_tokens`: the most tokens of a micro-batch, padding included;
    `pack_for`: the model's hidden size where its rows are packed. `tokens` counts those that went through the trained
    model, prompts included, over all ranks.
    """

    engine: Engine
    loss: Loss
    rows: StepRows
    pad: int
    rank: int
    seed: int
    start_log_probs: Mapping[RowKind, Tensor] = field(default_factory=dict)
    start: nn.Module | None = None
    micro_tokens: int | None = None
    pack_for: int | None = None
    refreshes: int = 0
    tokens: int = 0
    _metrics: dict[str, Tensor] = field(default_factory=dict)

    def step(self, step: Step, rate: float) -> tuple[dict[str, Tensor], float]:
        """Take one optimizer step. Returns this rank's shares of the step's losses by name, and the gradient norm over
        all ranks: with SAM the losses where the weights are and the norm uphill of them, with MeZO means over all
        forward passes and the slope."""
        self._metrics = {}
        kinds = self.loss.trains_on
        everywhere = self._everywhere(step)
        counts = self._counts(step, kinds, everywhere)

        def losses() -> list[Callable[[], Tensor]]:
            return self._losses(step, kinds, lambda rows: self._share(rows, counts, everywhere))

        passes = self.engine.passes
        if not passes.backward:
            norm = self.engine.probe(losses, rate, self.seed, step.number)
            return {name: value / passes.forward for name, value in self._metrics.items()}, norm
        if passes.backward == 1:
            norm = self.engine.step(losses(), rate)
            return self._metrics, norm
        with self.engine.uphill(losses()):
            metrics, self._metrics = self._metrics, {}
            norm = self.engine.step(losses(), rate)
        return metrics, norm

    def refresh(self, step: Step, data: HessianData) -> float:
        """Refresh the optimizer's Hessian from labels that the model itself samples on this step's rows; returns the
        norm of their gradient.

        `data`: `both` are the rows that the objective trains on; `forget` those among them that answer forget
        questions, so refusals where it trains on refusals; `retain` the retain rows, also for an objective without.
        """
        kinds = self._hessian_kinds(data)
        sampled = sum(self._counts(step, kinds).tokens.values())
        norm = self.engine.refresh(self._losses(step, kinds, lambda rows: self._sampled(rows, sampled)), sampled)
        self.refreshes += 1
        return norm

    def micro_batches(self, step: Step, kinds: Kinds) -> list[tuple[RowPair, ...]]:
        """Return this rank's pairs of each micro-batch, as many on every rank: backward passes are collectives."""
        world, accumulation = self.engine.world, self.engine.accumulation
        if self.micro_tokens is None:
            return micro_batches(step, self.rank, world, accumulation)
        everywhere = self._everywhere(step)
        of_ranks = [
            [
                part
                for pairs in micro_batches(step, rank, world, accumulation)
                for part in split(pairs, self.rows, kinds, step.epoch, self.micro_tokens, self.pack_for, everywhere)
            ]
            for rank in range(world)
        ]
        own = of_ranks[self.rank]
        return own + [()] * (max(1, *map(len, of_ranks)) - len(own))

    def _hessian_kinds(self, data: HessianData) -> Kinds:
        if data == "retain":
            return (RowKind.RETAIN,)
        return tuple(k for k in self.loss.trains_on if data == "both" or k != RowKind.RETAIN)

    def _everywhere(self, step: Step) -> dict[RowKind, int]:
        """Return how many positions of each row are scored, of the kinds `Loss.everywhere`: those of the longest row of
        the whole step, so that they depend on neither ranks nor micro-batches."""
        left_out = self.loss.everywhere
        encoded = self._encoded(step, tuple(left_out))
        return {kind: max((len(row.ids) - left_out[kind] for row in rows), default=0) for kind, rows in encoded.items()}

    def _counts(self, step: Step, kinds: Kinds, everywhere: Mapping[RowKind, int] = NOWHERE) -> Counts:
        """Count scored tokens and forget rows of the whole step, over all ranks."""
        encoded = self._encoded(step, kinds)
        lengths = {kind: [len(row.answer) for row in rows] for kind, rows in encoded.items()}
        return Counts(
            {kind: len(each) * everywhere.get(kind, 0) or sum(each) for kind, each in lengths.items()},
            forget_rows=len(step.pairs),
            rows={kind: len(each) for kind, each in lengths.items()},
            inverse_lengths={kind: sum(1 / length for length in each) for kind, each in lengths.items()},
        )

    def _encoded(self, step: Step, kinds: Kinds) -> dict[RowKind, list[Encoded]]:
        return {kind: [row for _, row in self.rows.of(kind, step.pairs, step.epoch)] for kind in kinds}

    def _losses(self, step: Step, kinds: Kinds, share: Callable[[RowsOfKinds], Tensor]) -> list[Callable[[], Tensor]]:
        """Return the forward pass of each micro-batch of this rank, and add the whole step's tokens to `tokens`."""
        self.tokens += sum(len(row.ids) for rows in self._encoded(step, kinds).values() for row in rows)
        batches = [
            {kind: self.rows.of(kind, pairs, step.epoch) for kind in kinds} for pairs in self.micro_batches(step, kinds)
        ]
        return [lambda rows=rows: share(rows) for rows in batches]  # type: ignore[misc]  # mypy infers no defaults

    def _share(self, rows: RowsOfKinds, counts: Counts, everywhere: Mapping[RowKind, int]) -> Tensor:
        batch = self._collate(rows, everywhere)
        # The frozen forward first: its activations are gone when the other's are kept for the backward.
        start = None if self.start is None else self._start_logits(self.start, rows, everywhere)
        start_states = None if self.start is None else self._start_states(self.start, rows)
        nothing = torch.empty(len(batch.labels), 0, device=batch.labels.device)
        scored = Scored(
            nothing, batch.labels, batch.row, batch.place, batch.kind, batch.partner, self._start_log_probs(batch)
        )
        at_start = scored.of(*self.loss.start_logits_of)
        before = torch.cat([torch.zeros(1, dtype=torch.long, device=batch.row.device), at_start.cumsum(0)])

        def term(logits: Tensor, part: slice) -> Tensor:
            start_logits = None if start is None else start.of(slice(int(before[part.start]), int(before[part.stop])))
            return self.loss.token_values(scored.part(part, logits, start_logits))

        values, states = self._read(batch, scored, term)
        scored.states, scored.start_states = states, start_states
        loss, metrics = self.loss.share(values, scored, counts)
        for name, value in metrics.items():
            self._metrics[name] = self._metrics.get(name, 0) + value
        return loss

    def _sampled(self, rows: RowsOfKinds, total: int) -> Tensor:
        batch = self._collate(rows)
        source = batch.source + KIND_KEYS * batch.kind
        keys = sample_keys(self.seed, self.refreshes, source[batch.row], batch.place)

        def term(logits: Tensor, part: slice) -> Tensor:
            return token_log_probs(logits, sampled_labels(logits, keys[part]))

        return sampled_loss(self._values(batch, term), total)

    def _collate(self, rows: RowsOfKinds, everywhere: Mapping[RowKind, int] = NOWHERE) -> TokenBatch:
        return collate(rows, self.pad, self.pack_for, everywhere).to(self.engine.device)

    def _values(self, batch: TokenBatch, term: Term) -> Tensor:
        """Return `term` of each scored position of the batch [N], by the trained model."""
        values: Tensor = self.engine.engine(batch.input_ids, batch.position, term, **batch.inputs(self.engine.dtype))
        return values

    def _read(self, batch: TokenBatch, scored: Scored, term: Term) -> tuple[Tensor, Tensor | None]:
        """Return `term` of each scored position of the batch [N], by the trained model, and its states [N, H] where the
        loss reads them."""
        position = batch.position + scored.of(*self.loss.late)
        if self.loss.layer is None:
            return self._values(replace(batch, position=position), term), None
        # At the tokens themselves, each of which has a place behind the position that predicts it.
        tap = Tap(self.loss.layer, batch.position + 1, alone=not self.loss.reads_logits)
        read = position if self.loss.reads_logits else position[:0]
        values, states = self.engine.engine(batch.input_ids, read, term, tap, **batch.inputs(self.engine.dtype))
        return values if self.loss.reads_logits else torch.zeros(len(position), device=position.device), states

    def _start_log_probs(self, batch: TokenBatch) -> Tensor:
        log_probs = torch.zeros(len(batch.kind), device=batch.labels.device)
        for kind, of_rows in self.start_log_probs.items():
            of_kind = batch.kind == kind
            log_probs = torch.where(of_kind, of_rows.to(log_probs.device)[batch.source * of_kind], log_probs)
        return log_probs

    @torch.no_grad()
    def _start_logits(
        self, start: nn.Module, rows: RowsOfKinds, everywhere: Mapping[RowKind, int]
    ) -> PositionLogits | None:
        """Return the start model's logits [M, V] at the scored positions of the rows for which the loss needs them,
        forwarded alone, None where it needs none."""
        if not self.loss.start_logits_of:
            return None
        batch = self._collate({kind: rows[kind] for kind in self.loss.start_logits_of}, everywhere)
        inputs = batch.inputs(next(start.parameters()).dtype)
        return ScoredLM(start).logits(batch.input_ids, batch.position, **inputs)

    @torch.no_grad()
    def _start_states(self, start: nn.Module, rows: RowsOfKinds) -> Tensor | None:
        """Return the start model's states [K, H] at the scored tokens of the rows for which the loss needs them,
        forwarded alone, None where it needs none."""
        if self.loss.layer is None or not self.loss.start_states_of:
            return None
        batch = self._collate({kind: rows[kind] for kind in self.loss.start_states_of})
        tap = Tap(self.loss.layer, batch.position + 1, alone=True)
        return layer_states(start, batch.input_ids, tap, **batch.inputs(next(start.parameters()).dtype))


def pack_width(model: nn.Module, rows: StepRows, schedule: Schedule) -> int | None:
    """Return the model's hidden size if its training rows are packed, else None: the schedule does without, the model
    is small, or it does not read packed rows correctly. Under ZeRO stage 3 a collective."""
    hidden_size = int(text_config(model).hidden_size)
    if schedule.packing == "off" or hidden_size < PACKED_HIDDEN_SIZE:
        return None
    refusals = rows.refusals.rows if rows.refusals else ()
    longest = max(len(row.ids) for row in chain(rows.forget, rows.retain, refusals))
    training = model.training
    model.eval()
    packs = reads_packed_rows(model, longest)
    model.train(training)
    return hidden_size if packs else None
