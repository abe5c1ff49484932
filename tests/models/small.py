"""Small random models and rows, built in a few milliseconds."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from lethe.config.adapter import AnyAdapter, Fila, Pissa, Vila
from lethe.data.template import Encoded
from lethe.models import fila
from lethe.models.adapters import Initial, attach
from lethe.models.fisher import row_weights
from lethe.models.vila import adapter_row_weights

VOCABULARY = 64


def llama(*, seed: int = 0, tied: bool = False) -> PreTrainedModel:
    """Two layers of width 32, weights large enough that layers matter; k and v project to 16."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    return _seeded(LlamaForCausalLM, config, seed)


def gpt2(*, seed: int = 0) -> PreTrainedModel:
    """Two layers of width 32 whose linear layers are Conv1D, tied to the head as GPT-2 is."""
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
    )
    return _seeded(GPT2LMHeadModel, config, seed)


def gpt_neo(*, seed: int = 0) -> PreTrainedModel:
    """Two layers of width 32, the second of which sees a window of 8 tokens; tied to the head."""
    config = GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=8,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
    )
    return _seeded(GPTNeoForCausalLM, config, seed)


def sliding(*, seed: int = 0) -> PreTrainedModel:
    """Two layers of width 32 that keep a window of 8 tokens: a kind of cache of its own."""
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        sliding_window=8,
        initializer_range=0.2,
    )
    return _seeded(MistralForCausalLM, config, seed)


def _seeded(kind: type[PreTrainedModel], config: object, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(config).eval()


def tokens(seed: int = 0, rows: int = 3, length: int = 10) -> torch.Tensor:
    """Random ids [rows, length]."""
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def encoded(n: int, seed: int = 0) -> list[Encoded]:
    """Rows of unequal prompt and answer lengths."""
    g = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(n):
        prompt, answer = (int(torch.randint(2, 7, (), generator=g)) for _ in range(2))
        ids = torch.randint(VOCABULARY, (prompt + answer,), generator=g)
        rows.append(Encoded(tuple(ids.tolist()), prompt))
    return rows


def start_of(model: PreTrainedModel, config: Pissa) -> Initial:
    """Where the adapter starts on this model, by Fisher of a few random rows."""
    estimate = adapter_row_weights if isinstance(config, Vila) else row_weights
    weights = estimate(model, encoded(3), encoded(3, seed=1), config) if isinstance(config, Fila) else None
    return fila.truncated(fila.start_factors(model, config, weights), config)


def started(make: Callable[[], PreTrainedModel], config: AnyAdapter) -> nn.Module:
    """A fresh model with its trainable weights as a run begins."""
    return attach(make(), config, seed=0, initial=start_of(make(), config) if isinstance(config, Pissa) else None)


@torch.no_grad()
def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """What the model computes, without a graph."""
    return model(input_ids=ids, use_cache=False).logits


@torch.no_grad()
def disturb(model: torch.nn.Module, scale: float = 0.05) -> None:
    """Move every trainable weight, as training would."""
    g = torch.Generator().manual_seed(1)
    for p in model.parameters():
        if p.requires_grad:
            p.add_(scale * torch.randn(p.shape, generator=g))


@torch.no_grad()
def partly_known(model: PreTrainedModel, seed: int, share: float, length: int) -> list[int]:
    """A sequence whose tokens are the model's own greedy choice with probability `share`."""
    draw = random.Random(seed)
    ids = [draw.randrange(model.config.vocab_size)]
    while len(ids) < length:
        greedy = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        ids.append(greedy if draw.random() < share else draw.randrange(model.config.vocab_size))
    return ids
