"""Logits at scored positions only: the head is the widest layer, and prompts and padding need none of it."""

from __future__ import annotations

import torch
from torch import nn

# Architectures whose causal-LM forward is exactly head(backbone(x)): no soft-capping, no logit scale.
PLAIN_HEADS = frozenset({"llama", "mistral", "qwen2", "qwen3", "phi3", "gpt_neo", "gpt2", "gpt_neox", "opt"})


def scored_logits(
    model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, position: torch.Tensor
) -> torch.Tensor:
    """Logits [N, V] at flat positions r*T + t of a batch [R, T]; `model` may be wrapped by peft."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if base.config.model_type not in PLAIN_HEADS:
        logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
        return logits.flatten(0, 1)[position]
    hidden = base.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]
    return base.get_output_embeddings()(hidden.flatten(0, 1)[position])


class ScoredLM(nn.Module):
    """A causal language model whose forward is `scored_logits`: what the DeepSpeed engine wraps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position: torch.Tensor
    ) -> torch.Tensor:
        """See `scored_logits`."""
        return scored_logits(self.model, input_ids, attention_mask, position)
