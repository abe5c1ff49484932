"""The contract of a loss: what it receives and returns. Units: nats; every sum is over answer tokens only, but for
the kinds of rows `Loss.everywhere`.

A loss is a subclass of `Loss` in a module of this package, decorated with `LOSSES.implements(CONFIGURATION)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lethe.config.adapter import AnyAdapter
from lethe.config.component import Implementations
from lethe.config.objective import AnyObjective, Objective, RetainTerm, WithRetain
from lethe.data.batches import NOWHERE, RowKind
from lethe.models.adapters import Rule
from lethe.models.trained import trained_rule
from lethe.unlearning.objectives.divergences import token_divergences
from lethe.unlearning.objectives.tokens import masked_sum, token_log_probs


@dataclass(frozen=True, slots=True)
class Counts:
    """Global normalisers of one optimizer step: summed over ranks and micro-batches.

    A mean of per-rank means would weigh a rank with few tokens as much as one with many. `tokens`: scored tokens of
    each kind of row that is trained on; `forget_rows`: forget questions, however they are answered; `rows` of each
    kind, and the sum over them of 1 / (answer tokens of the row), `inverse_lengths`.
    """

    tokens: Mapping[RowKind, int]
    forget_rows: int
    rows: Mapping[RowKind, int] = field(default_factory=dict)
    inverse_lengths: Mapping[RowKind, float] = field(default_factory=dict)


@dataclass(slots=True)
class Scored:
    """The result of one forward pass over the concatenated rows of a micro-batch, at scored positions only.

    `logits` [N, V] any float type, with grad, already aligned so that `labels[n]` is the token that
    `logits[n]` predicts; `labels` [N] int64; `row` [N] int64 in [0, R), the row of each position;
    `place` [N] int64, the position within its answer, from 0, and -1 outside the answer (`Loss.everywhere`);
    `kind` [R] int64, a `RowKind`; `partner` [R] int64, the row with the other answer to the same question (forget
    answer and refusal), itself where there is none; `start_log_probs` [R] float32, S0: the row's summed answer
    log-probability under the frozen start model, 0 where no objective reads it; `start_logits` [M, V], the start
    model's at the M positions in rows of the kinds `Loss.start_logits_of`, in their order. N, M and R may be 0.

    `states` [N, H] any float type, with grad: the hidden states behind decoder layer `Loss.layer` at the tokens
    `labels` themselves, one position behind those that predict them; `start_states` [K, H]: the start model's at the K
    positions in rows of the kinds `Loss.start_states_of`, in their order. Both are None until all positions have their
    `token_values`, and for a loss that reads no states.
    """

    logits: Tensor
    labels: Tensor
    row: Tensor
    place: Tensor
    kind: Tensor
    partner: Tensor
    start_log_probs: Tensor
    start_logits: Tensor | None = None
    states: Tensor | None = None
    start_states: Tensor | None = None

    def of(self, *kinds: RowKind) -> Tensor:
        """Return a mask [N] bool of the positions in rows of these kinds."""
        return torch.isin(self.kind, self.kind.new_tensor(kinds))[self.row]

    def part(self, part: slice, logits: Tensor, start_logits: Tensor | None) -> Scored:
        """Return a part of the positions, with the logits there; rows stay those of the micro-batch."""
        at_positions = {"labels": self.labels[part], "row": self.row[part], "place": self.place[part]}
        return replace(self, logits=logits, start_logits=start_logits, **at_positions)


class Loss:
    """L = L_forget, + gamma * L_retain unless `retain` is "none": one micro-batch's share of the global value.

    L_retain is the mean over retain tokens of -log p, or with "kl" of KL(p_start || p), p_start the start model's.

    A share is this micro-batch's sum divided by the global count, so shares add up over ranks and
    micro-batches to the loss of the whole step (the engine undoes its own averaging). A micro-batch
    without a scored position has share 0 and can still be back-propagated.

    `forget_kinds`: the rows of the forget term, forget rows or their replacements or both. `needs_start_log_probs`:
    it reads `Scored.start_log_probs`; `needs_start_logits`: it reads the start model's logits at forget rows.

    A loss on activations sets in `__init__` what follows. `layer`: the decoder layer, from 0, whose output is
    `Scored.states`, None for no states; `start_states_of`: the kinds of rows at which it reads the start model's too;
    `reads_logits`: if False no logits are made, all `token_values` are 0, and weights behind the layer are frozen.
    `trained`: a regular expression that is searched in the names of weights, of which only those that match train;
    "published": the MLP's down projections of `layer` and the two layers below; None: all that the adapter says.

    `late`: the kinds of rows whose logits are read one position late, at the tokens `labels` themselves.
    `everywhere`: the kinds of rows that are scored at all positions, prompt and padding up to the step's longest row of
    the kind included, each with the number of positions left out at the end. It goes with neither `late` nor `layer`.
    `changing`: the names of attributes, numbers, that `after_step` changes: checkpoints hold them, reports show them.
    `seed`: the run's, for what a loss draws; equal on all ranks.
    """

    forget_kinds: ClassVar[tuple[RowKind, ...]] = (RowKind.FORGET,)
    needs_start_log_probs: ClassVar[bool] = False
    changing: ClassVar[tuple[str, ...]] = ()

    needs_start_logits: bool = False
    layer: int | None = None
    start_states_of: tuple[RowKind, ...] = ()
    reads_logits: bool = True
    trained: str | None = None
    late: tuple[RowKind, ...] = ()
    everywhere: Mapping[RowKind, int] = NOWHERE
    seed: int = 0

    def __init__(self, config: Objective) -> None:
        self.retain: RetainTerm = config.retain if isinstance(config, WithRetain) else "none"
        self.gamma = config.gamma if isinstance(config, WithRetain) else 0.0

    @property
    def trains_on(self) -> tuple[RowKind, ...]:
        """The kinds of rows that a batch must hold, retain rows last."""
        return self.forget_kinds if self.retain == "none" else (*self.forget_kinds, RowKind.RETAIN)

    @property
    def start_logits_of(self) -> tuple[RowKind, ...]:
        """The kinds of rows at which `Scored.start_logits` are read, in the order of `trains_on`."""
        read = {RowKind.FORGET: self.needs_start_logits, RowKind.RETAIN: self.retain == "kl"}
        return tuple(kind for kind in self.trains_on if read.get(kind))

    @property
    def needs_start(self) -> bool:
        """True if the start model runs on the rows of every step."""
        return bool(self.start_logits_of or self.start_states_of)

    def trains(self, model: PreTrainedModel, adapter: AnyAdapter) -> Rule:
        """Return which weights of the base `model` train, as `trained_rule` does."""
        return trained_rule(model, adapter, self.trained, self.layer, self.reads_logits)

    def __call__(self, scored: Scored, counts: Counts) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to back-propagate, and detached shares `forget_loss` and `retain_loss` (before gamma).

        There is no `retain_loss` where no retain rows are trained on.
        """
        return self.share(self.token_values(scored), scored, counts)

    def share(self, values: Tensor, scored: Scored, counts: Counts) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what a call returns, from `token_values` [N] of all positions; no logits are read."""
        forget = self.forget_share(values, scored, counts)
        if self.retain == "none":
            return forget, {"forget_loss": forget.detach()}
        retain = self.retain_share(values, scored, counts)
        return forget + self.gamma * retain, {"forget_loss": forget.detach(), "retain_loss": retain.detach()}

    def token_values(self, scored: Scored) -> Tensor:
        """Return the terms that are summed over positions, [N] fp32 on the graph of `logits`: those of the forget term,
        and at retain positions log p of the label, or -KL(p_start || p). Each depends on its own position alone:
        `scored` may be a part of a micro-batch."""
        values = self.forget_values(scored)
        if self.retain != "kl":
            return token_log_probs(scored.logits, scored.labels) if values is None else values
        retain = scored.of(RowKind.RETAIN)
        kept = token_divergences(scored.logits, scored.labels, self.start_logits_at(RowKind.RETAIN, scored), retain)
        return kept if values is None else torch.where(retain, kept, values)

    def forget_values(self, scored: Scored) -> Tensor | None:
        """Return the forget term's part of `token_values`, [N], with log p of the label at retain positions; None, the
        default, where it is log p of the label at all positions."""

    def start_logits_at(self, kind: RowKind, scored: Scored) -> Tensor:
        """Return the start model's logits at the positions in rows of one of the kinds `start_logits_of`."""
        if scored.start_logits is None:
            raise ValueError("the start model's logits are needed")
        if self.start_logits_of == (kind,):
            return scored.start_logits
        return scored.start_logits[scored.of(kind)[scored.of(*self.start_logits_of)]]

    def forget_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Return the forget term's share, an fp32 scalar: the mean of `values` over forget tokens unless overridden."""
        return token_mean(values, RowKind.FORGET, scored, counts)

    def retain_share(self, values: Tensor, scored: Scored, counts: Counts) -> Tensor:
        """Return the retain term's share before gamma, an fp32 scalar: minus the mean of `values` over retain tokens
        unless overridden."""
        return -token_mean(values, RowKind.RETAIN, scored, counts)

    def after_step(self, losses: Mapping[str, float], epoch: int) -> None:
        """Change the numbers named in `changing` behind an optimizer step. Every rank calls it with the step's losses
        by name, summed over ranks, and the epoch, from 1; does nothing unless overridden."""


LOSSES: Implementations[type[Loss]] = Implementations("lethe.unlearning.objectives")


def make_loss(config: AnyObjective, seed: int = 0) -> Loss:
    """Return the loss that implements an objective, for a run with this seed. Raises LookupError for one without a
    loss, such as a `Method`."""
    loss = LOSSES.of(config)(config)
    loss.seed = seed
    return loss


def token_mean(values: Tensor, kind: RowKind, scored: Scored, counts: Counts) -> Tensor:
    """Return this micro-batch's share of the mean of `values` [N] over all tokens in rows of one kind."""
    return masked_sum(values, scored.of(kind)) / max(1, counts.tokens[kind])
