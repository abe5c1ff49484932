"""Training a small model from random weights on question-answer pairs or plain text, in a process of its own
(`lethe.models.subprocess_training`).

Results are equal bit for bit for one configuration, one torch and one kind of machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import GPTNeoConfig, GPTNeoForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lethe.config.model import AnyEmbedded, EmbeddedGptNeo, EmbeddedModel
from lethe.data.template import Encoded, Template
from lethe.data.windows import windows
from lethe.models.memory import peak_mb
from lethe.models.tokenizer import as_pretrained
from lethe.records import TrainingRecord

BETAS = (0.9, 0.95)
CLIP_NORM = 1.0
BUCKET = 8  # batches that are sorted by length together: less padding, still shuffled

Fraction = Callable[[float], None]
PretrainingBatch = tuple[torch.Tensor, torch.Tensor]


def pretrain(
    config: AnyEmbedded,
    tokenizer: Tokenizer,
    pairs: Sequence[tuple[str, str]],
    folder: Path,
    progress: Fraction,
    length: int = 0,
) -> TrainingRecord:
    """Train on `pairs` of question and answer, write model and tokenizer to `folder`, which exists, and return the
    costs. Of an answer without a question, which is plain text, the first `length` tokens are to predict; with 0 all of
    them, in windows as long as the model reads."""
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    pretrained = as_pretrained(tokenizer)
    template = Template(pretrained)
    torch.manual_seed(config.seed)
    model = new_model(config, len(pretrained))
    rows = [row for pair in pairs for row in _encoded(template, pair, length, config.max_length)]
    spent = train(model, rows, config, progress)
    save(model, folder)
    pretrained.save_pretrained(folder)
    return spent


def _encoded(template: Template, pair: tuple[str, str], length: int, longest: int) -> list[Encoded]:
    question, text = pair
    if question:
        return [template.encode(question, text)]
    if length:
        return [template.passage(text, length)]
    opening = template.text_opening
    return windows(template.text(text)[len(opening) :], longest, longest // 8, opening)


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write a model with its configuration as `save_pretrained` does."""
    # `save_pretrained` would import DeepSpeed where it is installed: two seconds and its messages.
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    weights, tied = folder / "model.safetensors", model.all_tied_weights_keys
    save_file({k: v for k, v in model.state_dict().items() if k not in tied}, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors leaves 0600


def new_model(config: AnyEmbedded, vocabulary: int) -> PreTrainedModel:
    """Return a model with random weights, drawn from torch's global generator."""
    if isinstance(config, EmbeddedGptNeo):
        return GPTNeoForCausalLM(gpt_neo_config(config, vocabulary))
    return LlamaForCausalLM(llama_config(config, vocabulary))


def gpt_neo_config(config: EmbeddedGptNeo, vocabulary: int) -> GPTNeoConfig:
    """Return the configuration of a GPT-Neo with global and local layers in turn, without dropout."""
    kinds = (["global", "local"] * config.layers)[: config.layers]
    return GPTNeoConfig(
        vocab_size=max(vocabulary, config.vocab_size),
        hidden_size=config.hidden_size,
        num_layers=config.layers,
        num_heads=config.heads,
        attention_types=[[kinds, 1]],
        window_size=config.window,
        max_position_embeddings=config.max_length,
        initializer_range=config.initializer_range,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )


def llama_config(config: EmbeddedModel, vocabulary: int) -> LlamaConfig:
    """Return the configuration of a Llama with untied embeddings, full attention heads and initialisation
    1/sqrt(hidden size)."""
    return LlamaConfig(
        vocab_size=max(vocabulary, config.vocab_size),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=config.max_length,
        initializer_range=config.hidden_size**-0.5,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )


def train(model: PreTrainedModel, rows: Sequence[Encoded], config: AnyEmbedded, progress: Fraction) -> TrainingRecord:
    """Train `model` in place and return the costs: AdamW, warm-up then linear decay to zero, on the mean token loss of
    each batch's answers and EOS."""
    optimizer = _optimizer(model, config)
    shuffle = torch.Generator().manual_seed(config.seed)
    steps = config.epochs * math.ceil(len(rows) / config.batch_size)
    done = 0
    began = time.perf_counter()
    model.train()
    for epoch in range(1, config.epochs + 1):  # noqa: B007, read behind the loop
        total = tokens = 0.0
        for batch in _batches(rows, config.batch_size, shuffle):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _rate(done, steps, config.warmup)
            loss, count = _step(model, optimizer, batch)
            total, tokens, done = total + loss * count, tokens + count, done + 1
            progress(done / steps)
        if total / tokens < config.target_loss:
            break
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    seen = epoch * sum(len(row.ids) for row in rows)
    return TrainingRecord(
        epochs=epoch,
        steps=done,
        tokens=seen,
        seconds=time.perf_counter() - began,
        peak_memory_mb=peak_mb("cpu"),
        loss=total / tokens,
    )


def _optimizer(model: PreTrainedModel, config: AnyEmbedded) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS, fused=True)


def _rate(step: int, steps: int, warmup: float) -> float:
    rising = int(warmup * steps)
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)


def _step(model: PreTrainedModel, optimizer: torch.optim.Optimizer, batch: PretrainingBatch) -> tuple[float, int]:
    """Take one optimizer step. Returns the mean loss over the batch's scored tokens, whose logits alone are computed,
    and their number."""
    ids, labels = batch
    scored = labels != -100
    # Padding is on the right, so that causal attention alone hides it from every scored position.
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    loss = cross_entropy(model.lm_head(hidden[scored]), labels[scored])
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item(), int(scored.sum())


def _batches(rows: Sequence[Encoded], size: int, shuffle: torch.Generator) -> list[PretrainingBatch]:
    """Return the batches of one epoch: every row once, rows of similar length together, batches in random order."""
    order = torch.randperm(len(rows), generator=shuffle).tolist()
    batches = []
    for start in range(0, len(order), size * BUCKET):
        bucket = sorted(order[start : start + size * BUCKET], key=lambda i: len(rows[i].ids))
        batches += [bucket[i : i + size] for i in range(0, len(bucket), size)]
    return [_collate([rows[i] for i in batches[b]]) for b in torch.randperm(len(batches), generator=shuffle).tolist()]


def _collate(rows: Sequence[Encoded]) -> PretrainingBatch:
    """Return token ids and next-token labels [rows, longest]; labels are -100 outside the answer."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), -100)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, row.prompt_length - 1 : len(row.ids) - 1] = torch.tensor(row.ids[row.prompt_length :])
    return ids, labels
