"""Influence against a known truth: logistic regression with one-hot features, whose Hessian is diagonal."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lethe.config.objective import Influence
from lethe.data.batches import RowKind, Sourced
from lethe.data.template import Encoded
from lethe.unlearning.methods.influence import newton_step, row_totals
from tests.models import small

Rows = list[tuple[RowKind, Sourced]]

# Rows of each context: how many in all, how many of them with label 0; and the same of those to be forgotten.
ALL, ZEROS = torch.tensor([120, 200, 150]), torch.tensor([30, 120, 75])
FORGET, FORGET_ZEROS = torch.tensor([6, 8, 5]), torch.tensor([5, 1, 4])


class Logistic(nn.Module):
    """P(next token is 0 | token x) = sigmoid(z[x]), else it is 1; at its optimum for all rows."""

    def __init__(self) -> None:
        super().__init__()
        self.z = nn.Parameter(torch.logit(ZEROS / ALL))

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        z = self.z[input_ids]
        return SimpleNamespace(logits=torch.stack([z, torch.zeros_like(z)], -1))


def rows() -> Rows:
    found: Rows = []
    for kind, count, zeros in (
        (RowKind.FORGET, FORGET, FORGET_ZEROS),
        (RowKind.RETAIN, ALL - FORGET, ZEROS - FORGET_ZEROS),
    ):
        labels = [(x, int(i >= zeros[x])) for x in range(len(ALL)) for i in range(count[x])]
        found += [(kind, (i, Encoded(pair, 1))) for i, pair in enumerate(labels)]
    return found


# Where training without the forget rows ends, and the Hessian of the sum over all rows.
WITHOUT = torch.logit((ZEROS - FORGET_ZEROS) / (ALL - FORGET))
CURVATURE = ALL * (ZEROS / ALL) * (1 - ZEROS / ALL)


def test_the_step_ends_where_training_without_the_rows_does() -> None:
    config, model = Influence(hessian="empirical_fisher", damping=1e-9), Logistic()
    start, all_rows = model.z.detach().clone(), rows()
    totals = row_totals(model, all_rows, config, 0, seed=0)
    torch.testing.assert_close(totals.hessian[0], CURVATURE)  # at an optimum the empirical Fisher is the Hessian
    assert totals.tokens.tolist() == [FORGET.sum(), (ALL - FORGET).sum()]
    assert newton_step([model.z], totals, config)
    step, truth = model.z.detach() - start, WITHOUT - start
    # The rest is of second order in the share of rows that go, about a twentieth.
    torch.testing.assert_close(step, truth, rtol=0.15, atol=0)

    means, removed = Logistic(), int(FORGET.sum())
    totals.gradient[0] /= removed
    totals.hessian[0] /= len(all_rows)
    newton_step([means.z], totals, config)
    torch.testing.assert_close(means.z.detach() - start, step * len(all_rows) / removed)
    assert torch.linalg.vector_norm(means.z.detach() - WITHOUT) > 10 * torch.linalg.vector_norm(truth)


def test_sampled_labels_estimate_the_hessian_without_the_true_ones() -> None:
    """Also where the model is wrong about every label, and the empirical Fisher with it."""
    model = Logistic()
    wrong = [(kind, (i, Encoded((row.ids[0], 0), 1))) for kind, (i, row) in rows()]
    found = [row_totals(model, wrong, Influence(hessian="gnb"), 0, seed).hessian[0] for seed in range(2)]
    torch.testing.assert_close(torch.stack(found).mean(0), CURVATURE, rtol=0.2, atol=0)
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("hessian", ["gnb", "empirical_fisher"])
def test_ranks_add_up_to_one(hessian: str) -> None:
    config, model = Influence.model_validate({"hessian": hessian}), small.llama()
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, 40, (9,), generator=draw).tolist() for _ in range(7)]
    several: Rows = [(RowKind(i % 2), (i, Encoded(tuple(ids), 3 + i % 3))) for i, ids in enumerate(texts)]
    whole = row_totals(model, several, config, 0, seed=1)
    halves = [row_totals(model, several[rank::2], config, 0, seed=1) for rank in range(2)]
    for name in ("gradient", "hessian"):
        for total, *parts in zip(getattr(whole, name), *(getattr(half, name) for half in halves), strict=True):
            torch.testing.assert_close(sum(parts), total)
    torch.testing.assert_close(halves[0].nll + halves[1].nll, whole.nll)
    assert all(p.grad is None for p in model.parameters())


def test_damping_is_relative_and_strength_a_factor() -> None:
    totals = row_totals(Logistic(), rows(), Influence(), 0, seed=0)
    heavy, twice = Logistic(), Logistic()
    newton_step([heavy.z], totals, Influence(damping=1e4))
    newton_step([twice.z], totals, Influence(damping=1e4, strength=2))
    start = Logistic().z.detach()
    # As damping grows the step becomes gradient ascent on the forget rows.
    ascent = totals.gradient[0] / (1e4 * totals.hessian[0].mean())
    torch.testing.assert_close(heavy.z.detach() - start, ascent, rtol=1e-2, atol=0)
    torch.testing.assert_close(twice.z.detach() - start, 2 * (heavy.z.detach() - start), rtol=1e-2, atol=0)
    totals.hessian[0].zero_()
    assert not newton_step([heavy.z], totals, Influence())
