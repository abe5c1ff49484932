"""Models that have only a shape: what a step costs does not depend on what the weights are worth."""

from __future__ import annotations

from math import prod
from pathlib import Path

from lethe.config.base import canonical_json, short_digest
from lethe.config.model import AnyModel, EmbeddedModel
from lethe.copies import everywhere, there
from lethe.data.benchmark import training_rows
from lethe.data.rows import Benchmark
from lethe.models.digests import model_digest
from lethe.models.prepare import PARTS, model_folder
from lethe.models.tokenizer import as_pretrained, train_tokenizer
from lethe.storage import atomic_folder, home

RECIPE = 1


def shaped(benchmark: Benchmark, model: AnyModel) -> Path:
    """A folder with a model of this shape and the benchmark's tokenizer: random weights of the embedded family, cached;
    a model that the user brings as it is."""
    if not isinstance(model, EmbeddedModel):
        folder = model_folder(model.path, "model.path")
        return everywhere(folder, "models", model_digest(folder), PARTS)
    texts = [text for row in training_rows(benchmark, include_forget=True) for text in (row.question, row.answer)]
    content = canonical_json([RECIPE, model.model_dump(mode="json"), texts])
    folder = home() / "models" / f"untrained-{short_digest(content)}"
    if not there(folder):
        with atomic_folder(folder) as fresh:
            _write(model, texts, fresh)
    return folder


def _write(model: EmbeddedModel, texts: list[str], folder: Path) -> None:
    import torch

    from lethe.models.pretraining import new_model, save

    tokenizer = as_pretrained(train_tokenizer(texts, model.vocab_size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(model.seed)
        save(new_model(model, len(tokenizer)), folder)
    tokenizer.save_pretrained(folder)


def count_parameters(folder: Path) -> float:
    """Elements of all tensors in a model's folder, read off their headers."""
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as tensors:
            total += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return float(total)
