"""Content digests of model folders: the same weights and tokenizer, wherever they lie, have one digest."""

from __future__ import annotations

import hashlib
from pathlib import Path


def model_digest(folder: Path) -> str:
    """16 hex digits over config, weights and tokenizer files, by name."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name in ("config.json", "tokenizer.json", "tokenizer.model") or path.suffix == ".safetensors":
            whole.update(path.name.encode())
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]
