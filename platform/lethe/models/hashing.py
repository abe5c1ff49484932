"""Content digests of model folders: a model has the same digest wherever it lies."""

from __future__ import annotations

import hashlib
from pathlib import Path

# Every file that changes the model's results or a prompt's tokens; all others may differ.
WEIGHTS = ("config.json", "adapter_config.json", "*.safetensors")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.*",
)


def model_sha256(folder: Path) -> str:
    """Return the SHA-256 over the names and bytes of the configuration, the weights and the tokenizer."""
    return _sha256(folder, WEIGHTS + TOKENIZER)


def model_digest(folder: Path) -> str:
    """Return the first 16 hex digits of `model_sha256`."""
    return model_sha256(folder)[:16]


def tokenizer_digest(folder: Path) -> str:
    """Return 16 hex digits over the files that decide how a prompt is tokenised."""
    return _sha256(folder, TOKENIZER)[:16]


def _sha256(folder: Path, content: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if any(path.match(pattern) for pattern in content)):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
