"""Random micro-batches, and every objective once more in plain float64 autograd."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lethe.config.objective import (
    AltPo,
    AnyObjective,
    CeU,
    Dpo,
    File,
    GradDiff,
    GradientAscent,
    Ihl,
    Kl,
    Npo,
    Pdu,
    PreferenceOptimization,
    Rmu,
    SatImp,
    SimNpo,
    Undial,
    Wga,
    WithRetain,
)
from lethe.data.batches import RowKind
from lethe.unlearning.objectives import Counts, Scored, make_loss

EXAMPLE = Path(__file__).parents[3] / "docs/examples/objective.py"
CONFIGS: tuple[AnyObjective, ...] = (
    GradientAscent(),
    GradDiff(gamma=0.7),
    Kl(gamma=1.3),
    PreferenceOptimization(gamma=0.6),
    Npo(gamma=2.5, beta=0.1),
    Npo(gamma=2.5, beta=0.6, reduction="token_mean"),
    SimNpo(gamma=0.2, beta=2.5, delta=0.3),
    Dpo(gamma=1.5, beta=0.4),
    Ihl(gamma=0.4),
    Wga(gamma=0.8, beta=1.7),
    SatImp(gamma=1.2, beta1=2.0, beta2=0.5),
    Undial(gamma=0.9, beta=3.0, retain="kl"),
    Undial(gamma=0.9, beta=3.0, reduction="released"),
    CeU(gamma=1.1),
    CeU(gamma=1.1, skip_first=False),
    Pdu(gamma=0.8, logits="released"),
    Rmu(gamma=1.4, layer=0, coefficient=3.0, trained=None),
)
# Those that go through a model as one of the others does: they keep the contract, and whole steps are not tried.
MORE: tuple[AnyObjective, ...] = (
    AltPo(gamma=1.5, beta=0.4),
    File(path=str(EXAMPLE), settings={"power": 1.5}),
    Dpo(gamma=1.5, beta=0.4, retain="kl"),
    Ihl(gamma=0.4, retain="kl"),
    Undial(gamma=0.9, beta=3.0),
    Kl(gamma=1.3, reduction="released"),
    Undial(gamma=0.9, beta=3.0, retain="kl", reduction="released"),
    PreferenceOptimization(retain="none"),
    Undial(beta=3.0, retain="none"),
    Pdu(gamma=0.8, retain="kl"),
    Rmu(gamma=1.4, layer=0, coefficient=3.0, trained=None, reduction="token_mean"),
    Rmu(gamma=1.4, layer=0, coefficient=3.0, trained=None, reduction="released"),
    Rmu(gamma=1.4, layer=0, coefficient=3.0, trained=None, retain="kl"),
    Rmu(gamma=1.4, layer=0, coefficient=3.0, trained=None, retain="none"),
)
WIDTH = 6  # of hidden states


def micro_batch(
    config: AnyObjective, seed: int = 0, *, pairs: int = 3, vocabulary: int = 70, dtype: torch.dtype = torch.float32
) -> Scored:
    """What this objective is given: rows of unequal length in any order, with their positions shuffled."""
    g = torch.Generator().manual_seed(seed)
    loss = make_loss(config)
    kinds = loss.trains_on
    rows = pairs * len(kinds)
    order = torch.randperm(rows, generator=g)
    kind = torch.tensor([k for k in kinds for _ in range(pairs)])[order]
    partner = torch.arange(rows)
    if RowKind.FORGET in kinds and RowKind.REFUSAL in kinds:
        partner = torch.cat([partner[pairs : 2 * pairs], partner[:pairs], partner[2 * pairs :]])
    partner = order.argsort()[partner[order]]
    lengths = torch.randint(1, 9, (rows,), generator=g)
    row = torch.arange(rows).repeat_interleave(lengths)
    place = torch.arange(row.numel()) - (lengths.cumsum(0) - lengths)[row]
    shuffled = torch.randperm(row.numel(), generator=g)
    row, place = row[shuffled], place[shuffled]
    logits = 2 * torch.randn(row.numel(), vocabulary, generator=g)
    labels = torch.randint(vocabulary, (row.numel(),), generator=g)
    # Half of the labels are the model's own favourite, as in a model that has memorised them.
    labels = torch.where(torch.rand(row.numel(), generator=g) < 0.5, logits.argmax(1), labels)
    start_log_probs = -10 * torch.rand(rows, generator=g)
    start = logits + torch.randn(logits.shape, generator=g)
    scored = Scored(logits.to(dtype).requires_grad_(), labels, row, place, kind, partner, start_log_probs)
    scored.start_logits = start[scored.of(*loss.start_logits_of)].to(dtype)
    states = torch.randn(row.numel(), WIDTH, generator=g)
    scored.start_states = (states + torch.randn(states.shape, generator=g))[scored.of(*loss.start_states_of)].to(dtype)
    scored.states = states.to(dtype).requires_grad_()
    outside = scored.of(*loss.everywhere) & (torch.rand(row.numel(), generator=g) < 0.5)
    scored.place = place.masked_fill(outside, -1)
    return scored


def read(config: AnyObjective, scored: Scored) -> list[Tensor]:
    """What this objective has a gradient on: logits, states or both."""
    loss = make_loss(config)
    given = ((loss.reads_logits, scored.logits), (loss.layer is not None, scored.states))
    return [tensor for reads, tensor in given if reads and tensor is not None]


def counts_of(*batches: Scored) -> Counts:
    """The global normalisers of batches that make up one step."""
    tokens = {kind: sum(int(b.of(kind).sum()) for b in batches) for kind in RowKind}
    forget = (torch.unique(torch.minimum(b.row, b.partner[b.row])[~b.of(RowKind.RETAIN)]).numel() for b in batches)
    lengths = {kind: [n for b in batches for n in b.row[b.of(kind)].bincount().tolist() if n] for kind in RowKind}
    inverse = {kind: sum(1 / n for n in each) for kind, each in lengths.items()}
    return Counts(tokens, sum(forget), {kind: len(each) for kind, each in lengths.items()}, inverse)


def subset(config: AnyObjective, scored: Scored, keep: Tensor) -> Scored:
    """The positions where `keep` [N] holds, or which it lists; row numbers and the logits' graph stay."""
    assert scored.start_logits is not None
    assert scored.states is not None

    def kept(values: Tensor | None, kinds: tuple[RowKind, ...]) -> Tensor:
        at = scored.of(*kinds)
        assert values is not None
        return values[(at.cumsum(0) - 1)[keep][at[keep]]]

    loss = make_loss(config)
    return Scored(
        scored.logits[keep],
        scored.labels[keep],
        scored.row[keep],
        scored.place[keep],
        scored.kind,
        scored.partner,
        scored.start_log_probs,
        kept(scored.start_logits, loss.start_logits_of),
        scored.states[keep],
        kept(scored.start_states, loss.start_states_of),
    )


def expected(config: AnyObjective, scored: Scored, logits: Tensor) -> Tensor:
    """docs/METHODS.md section 1 for a whole step, written naively; `logits` and the states of `scored` are the float64
    leaves to differentiate."""
    p = logits.softmax(-1)
    p_t = p.gather(1, scored.labels.unsqueeze(1)).squeeze(1)
    retain = scored.of(RowKind.RETAIN)
    forget = _expected_forget(config, scored, p, p_t, logits)
    if isinstance(config, Rmu) and config.retain == "states":
        return forget + config.gamma * _of_states(config, RowKind.RETAIN, scored, scored.start_states)
    if not isinstance(config, WithRetain) or config.retain == "none":
        return forget
    if config.retain == "kl":
        p_ref = start_at(RowKind.RETAIN, config, scored).softmax(-1)
        return forget + config.gamma * (p_ref * (p_ref / p[retain]).log()).sum(-1).mean()
    return forget - config.gamma * p_t[retain].log().mean()


def start_at(kind: RowKind, config: AnyObjective, scored: Scored) -> Tensor:
    """The start model's logits at rows of one kind, in float64."""
    whole = scored.logits.detach().double().fill_(torch.nan)
    assert scored.start_logits is not None
    whole[scored.of(*make_loss(config).start_logits_of)] = scored.start_logits.double()
    return whole[scored.of(kind)]


def _expected_forget(config: AnyObjective, scored: Scored, p: Tensor, p_t: Tensor, logits: Tensor) -> Tensor:
    forget = scored.of(RowKind.FORGET)
    if isinstance(config, GradientAscent | GradDiff | Kl):
        return p_t[forget].log().mean()
    if isinstance(config, PreferenceOptimization):
        return -p_t[scored.of(RowKind.REFUSAL)].log().mean()
    if isinstance(config, Ihl):
        others = p.masked_fill(one_hot(scored.labels, p.shape[1]).bool(), -1)
        return (1 + p_t - others.max(1).values)[forget].mean()
    if isinstance(config, Wga | SatImp):
        of_rows = p_t[forget]
        beta1, beta2 = (config.beta, 0) if isinstance(config, Wga) else (config.beta1, config.beta2)
        return ((of_rows**beta1 * (1 - of_rows) ** beta2).detach() * of_rows.log()).mean()
    if isinstance(config, File):
        return (p_t[forget] ** config.settings["power"]).mean()
    if isinstance(config, Undial):
        true = torch.where(scored.place >= 0, scored.labels, -100 % p.shape[1])
        lowered = start_at(RowKind.FORGET, config, scored) - config.beta * one_hot(true[forget], p.shape[1])
        return -(lowered.softmax(-1) * p[forget].log()).sum(-1).mean()
    if isinstance(config, CeU):
        used = forget & (scored.place > 0) if config.skip_first else forget
        others = p[used].masked_fill(one_hot(scored.labels[used], p.shape[1]).bool(), 0)
        q = (others / others.sum(-1, keepdim=True)).detach()
        return -(q * p[used].log()).sum(-1).mean()
    if isinstance(config, Pdu):
        return (logits.max(1).values - logits.mean(1)).square()[forget].mean()
    if isinstance(config, Rmu):
        u = torch.rand(WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return _of_states(config, RowKind.FORGET, scored, config.coefficient * u / u.norm())
    if not isinstance(config, Npo | SimNpo | Dpo | AltPo):
        raise AssertionError(f"add the formula of {config.name} here")
    terms = []
    for i in torch.nonzero(scored.kind == RowKind.FORGET).flatten().tolist():
        x = _expected_margin(config, scored, p_t, i)
        terms.append(-2 / config.beta * torch.sigmoid(x).log())
    return torch.stack(terms).mean()


def _of_states(config: Rmu, kind: RowKind, scored: Scored, target: Tensor) -> Tensor:
    """RMU's mean of squared distances in rows of one kind, by the table of rows that its reduction means."""
    at = scored.of(kind)
    distance = (scored.states[at] - target.double()).square().mean(-1)
    if config.reduction == "token_mean":
        return distance.mean()
    rows = scored.row[at]
    sums = torch.stack([distance[rows == row].sum() for row in rows.unique()])
    lengths = torch.stack([(rows == row).sum() for row in rows.unique()])
    return (sums / (lengths.unsqueeze(1) if config.reduction == "released" else lengths)).mean()


def _expected_margin(config: Npo | SimNpo | Dpo | AltPo, scored: Scored, p_t: Tensor, i: int) -> Tensor:
    def s(row: int) -> Tensor:
        return p_t[scored.row == row].log().sum()

    def change(row: int) -> Tensor:
        return s(row) - scored.start_log_probs[row].double()

    length = (scored.row == i).sum()
    if isinstance(config, SimNpo):
        return -config.beta * s(i) / length - config.delta
    if isinstance(config, Dpo | AltPo):
        return config.beta * (change(int(scored.partner[i])) - change(i))
    return -config.beta * change(i) / (length if config.reduction == "token_mean" else 1)
