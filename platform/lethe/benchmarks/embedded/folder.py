"""The folders of the embedded corpora."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lethe.config.base import canonical_json, short_digest
from lethe.storage.paths import atomic_folder, home
from lethe.storage.replica import ensure_local


def written(files: Mapping[str, str]) -> Path:
    """Return the folder with these `files`, texts by their paths in it, written once per content."""
    folder = home() / "benchmarks" / short_digest(canonical_json(dict(files)))
    if not ensure_local(folder):
        with atomic_folder(folder) as target:
            for name, text in files.items():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).write_text(text, encoding="utf-8", newline="\n")
    return folder
