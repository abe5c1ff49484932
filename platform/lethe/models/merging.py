"""Adapters merged into their base models: plain folders, kept under the storage root by the content of both."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lethe.config.base import short_digest
from lethe.models.hashing import model_digest
from lethe.models.model_files import ADAPTER_CONFIG, PICKLES
from lethe.storage.paths import atomic_folder, home
from lethe.storage.replica import ensure_local

if TYPE_CHECKING:
    from lethe.models.loading import Precision

FORMAT = 1  # raise it when a change of the code makes other models of the same files
OF_WEIGHTS = ("*.safetensors", "*.index.json", "*.gguf", *PICKLES, "adapter_*", "README.md", "generation_config.json")


def is_adapter(folder: Path) -> bool:
    """Return whether a model folder is a peft adapter rather than a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def model_with_adapter(base: Path, adapter: Path) -> Path:
    """Return the folder of the plain model `base` + `adapter`, in the base's precision; it is written once. Raises
    UserError, naming both, for an adapter that does not fit."""
    content = short_digest(f"{FORMAT}:{model_digest(base)}+{model_digest(adapter)}")
    folder = home() / "models" / f"merged-{content}"
    if not ensure_local(folder):
        print(f"merging {adapter} into {base}, once: it is kept for the next study", file=sys.stderr, flush=True)
        from lethe.models.loading import stored_precision

        with atomic_folder(folder) as fresh:
            merge(base, adapter, fresh, stored_precision(base))
    return folder


def merge(base: Path, adapter: Path, target: Path, precision: Precision) -> None:
    """Write base model + adapter to `target` as one plain model in `precision`, added in fp32, with the adapter's
    tokenizer or else the base model's. A base that was quantised when the adapter was trained is rounded likewise.

    Raises UserError, naming both, for an adapter that does not fit."""
    import torch

    from lethe.models.loading import DTYPES, load_adapted, quiet_transformers

    with quiet_transformers():
        model = load_adapted(base, adapter, "fp32", to_merge=True)
        merged: Any = cast(Any, model.base_model).merge_and_unload()  # peft types it as any module
        merged.to(getattr(torch, DTYPES[precision])).save_pretrained(str(target))
    copy_without_weights(adapter if (adapter / "tokenizer_config.json").is_file() else base, target)


def copy_without_weights(source: Path, target: Path) -> None:
    """Copy the tokenizer, and the configuration that names its class, unless `target` has them."""
    target.mkdir(parents=True, exist_ok=True)
    skipped = {path.name for pattern in OF_WEIGHTS for path in source.glob(pattern)}
    for path in source.iterdir():
        if path.is_file() and path.name not in skipped and not (target / path.name).exists():
            shutil.copy(path, target)
