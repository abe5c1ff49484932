"""Random micro-batches, and every objective once more in plain float64 autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from lethe.config.objective import AnyObjective, GradDiff, Ihl, Npo
from lethe.losses import Counts, Scored

CONFIGS: tuple[AnyObjective, ...] = (
    GradDiff(gamma=0.7),
    Npo(gamma=2.5, beta=0.1),
    Npo(gamma=2.5, beta=0.6, reduction="token_mean"),
    Ihl(gamma=0.4),
)


def micro_batch(seed: int = 0, *, rows: int = 6, vocabulary: int = 70, dtype: torch.dtype = torch.float32) -> Scored:
    """Rows of unequal length whose positions are shuffled: nothing may rely on their order."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (rows,), generator=g)
    row = torch.arange(rows).repeat_interleave(lengths)
    row = row[torch.randperm(row.numel(), generator=g)]
    is_forget = torch.zeros(rows, dtype=torch.bool)
    is_forget[torch.randperm(rows, generator=g)[: rows // 2]] = True
    logits = 2 * torch.randn(row.numel(), vocabulary, generator=g)
    labels = torch.randint(vocabulary, (row.numel(),), generator=g)
    # Half of the labels are the model's own favourite, as in a model that has memorised them.
    labels = torch.where(torch.rand(row.numel(), generator=g) < 0.5, logits.argmax(1), labels)
    reference = -10 * torch.rand(rows, generator=g)
    return Scored(logits.to(dtype).requires_grad_(), labels, row, is_forget, reference)


def counts_of(*batches: Scored) -> Counts:
    """The global normalisers of batches that make up one step."""
    forget = sum(int(b.is_forget[b.row].sum()) for b in batches)
    tokens = sum(b.row.numel() for b in batches)
    rows = sum(int(b.is_forget[b.row.unique()].sum()) for b in batches)
    return Counts(forget_tokens=forget, retain_tokens=tokens - forget, forget_rows=rows)


def subset(scored: Scored, keep: Tensor) -> Scored:
    """The positions where `keep` [N] holds, with the row numbers unchanged; logits stay on the same graph."""
    return Scored(scored.logits[keep], scored.labels[keep], scored.row[keep], scored.is_forget, scored.reference)


def expected(config: AnyObjective, scored: Scored, logits: Tensor) -> Tensor:
    """METHODS.md section 1 for a whole step, written naively; `logits` is the float64 leaf to differentiate."""
    p = logits.softmax(-1)
    p_t = p.gather(1, scored.labels.unsqueeze(1)).squeeze(1)
    forget = scored.is_forget[scored.row]
    retain = -p_t[~forget].log().mean()
    if isinstance(config, GradDiff):
        return p_t[forget].log().mean() + config.gamma * retain
    if isinstance(config, Ihl):
        others = p.masked_fill(torch.nn.functional.one_hot(scored.labels, p.shape[1]).bool(), -1)
        return (1 + p_t - others.max(1).values)[forget].mean() + config.gamma * retain
    terms = []
    for i in torch.nonzero(scored.is_forget).flatten().tolist():
        mine = scored.row == i
        change = p_t[mine].log().sum() - scored.reference[i].double()
        if config.reduction == "token_mean":
            change = change / mine.sum()
        terms.append(-2 / config.beta * torch.sigmoid(-config.beta * change).log())
    return torch.stack(terms).mean() + config.gamma * retain
