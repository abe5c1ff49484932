"""Attention of one token by plain products equals PyTorch's fused kernel, and is used inside its block alone."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv

from lethe.evaluation.one_token_attention import fast_one_token_attention, one_token_attention
from tests.models.small import llama

ROWS, SLOTS, WIDTH = 3, 11, 8


def attended(
    heads: int, groups: int, mask: Tensor | None, scaling: float | None, new: int = 1
) -> tuple[Tensor, Tensor]:
    """Our attention and PyTorch's, over keys and values that are repeated for all heads."""
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(ROWS, heads, new, WIDTH, generator=draw)
    key, value = (torch.randn(ROWS, groups, SLOTS, width, generator=draw) for width in (WIDTH, 5))
    module = nn.Module()
    module.num_key_value_groups, module.is_causal = heads // groups, True
    ours, _ = one_token_attention(module, query, key, value, mask, scaling=scaling)
    key, value = (repeat_kv(x, heads // groups) for x in (key, value))
    expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return ours, expected.transpose(1, 2)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (6, 1)])
@pytest.mark.parametrize("kind", ["none", "bool", "float", "each head"])
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_it_equals_the_fused_kernel(heads: int, groups: int, kind: str, scaling: float | None) -> None:
    seen = torch.rand(ROWS, heads if kind == "each head" else 1, 1, SLOTS, generator=torch.Generator().manual_seed(1))
    masks = {"none": None, "bool": seen > 0.4, "float": seen.log()}
    ours, expected = attended(heads, groups, masks.get(kind, seen > 0.4), scaling)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


def test_several_queries_are_causal_as_the_fused_kernel_has_them() -> None:
    seen = torch.ones(1, 1, 4, SLOTS, dtype=torch.bool).tril(SLOTS - 4)
    ours, expected = attended(6, 2, seen, None, new=4)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_used_inside_the_block_alone(fails: bool) -> None:
    registered = AttentionInterface()
    before = registered["sdpa"]
    with pytest.raises(RuntimeError) if fails else nullcontext(), fast_one_token_attention(torch.device("cpu")):
        assert registered["sdpa"] is one_token_attention
        if fails:
            raise RuntimeError
    assert registered["sdpa"] is before
    with fast_one_token_attention(torch.device("cuda")):
        assert registered["sdpa"] is before


def test_a_model_reads_its_cache_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = []

    def watched(module: nn.Module, query: Tensor, *rest: object, **further: object) -> tuple[Tensor, None]:
        queries.append(query.shape[2])
        return one_token_attention(module, query, *rest, **further)

    monkeypatch.setattr("lethe.evaluation.one_token_attention.one_token_attention", watched)
    model, ids = llama(), torch.tensor([[5, 6, 7]])
    with fast_one_token_attention(torch.device("cpu")), torch.no_grad():
        cache = model(ids[:, :2], use_cache=True).past_key_values
        logits = model(ids[:, 2:], past_key_values=cache).logits
    assert queries == [2, 2, 1, 1]
    torch.testing.assert_close(logits, model(ids).logits[:, 2:], atol=1e-5, rtol=1e-5)
