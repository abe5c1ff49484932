"""A model by whatever names it: a folder, a study's run, a hub id, a registered version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lethe.config.base import short_digest
from lethe.data.template import Template, opening
from lethe.errors import UserError
from lethe.models.hashing import model_digest, tokenizer_digest
from lethe.models.loading import ADAPTER, load_adapted, load_model, load_tokenizer
from lethe.storage.paths import home, store
from lethe.storage.replica import ensure_local, local_path, resolve_local
from lethe.study.preparation import TOKENIZERS, model_folder, snapshot

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

REGISTERED = "models:/"
GUARD = "input_guard.json"  # beside a model that an instruction belongs to: see lethe.unlearning.worker_entry
LEVELS = 5  # from a run's model up to its study


@dataclass(frozen=True)
class ScoredModel:
    """A model on this machine. `base`: what an adapter belongs on; `tags`: a registered version's."""

    name: str
    folder: Path
    base: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Of everything that decides what it computes, its base included."""
        own = model_digest(self.folder)
        return own if self.base is None else short_digest(f"{model_digest(self.base)}+{own}")

    @property
    def tokenizer(self) -> Path:
        """The folder that has its tokenizer: an adapter may leave that to its base."""
        return self.folder if self.base is None or has_tokenizer(self.folder) else self.base

    @cached_property
    def tokenizer_digest(self) -> str:
        return tokenizer_digest(self.tokenizer)

    @cached_property
    def instruction(self) -> str:
        """What it is told in front of every question."""
        path = self.folder / GUARD
        return str(_json(path).get("instruction", "")) if path.is_file() else ""

    def load(self) -> PreTrainedModel | PeftModel:
        """In fp32, in evaluation mode."""
        return load_model(self.folder) if self.base is None else load_adapted(self.base, self.folder)

    def template(self) -> Template:
        """How it is asked. A chat template that a study saved says the instruction already."""
        tokenizer = load_tokenizer(self.tokenizer)
        said = opening(self.instruction) in str(tokenizer.chat_template)
        return Template(tokenizer, "" if said else self.instruction)


def find(name: str, key: str = "MODEL", base: str | None = None) -> ScoredModel:
    """The model that `name` means. `key` is what the user calls it; `base` is a name, too, for an adapter.

    Raises BadInput for what is nowhere, and for a folder that lacks something.
    """
    if name.startswith(REGISTERED):
        from lethe.tracking.registered_models import fetch_registered_model

        folder, tags = fetch_registered_model(name, key)
        return _candidate(name, folder, key, base, tags)
    folder = resolve_local(name)
    if folder.is_dir():
        return _candidate(name, folder, key, base)
    if name.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise UserError(f"{key}: there is no folder {name}: give one, a hub id (owner/name) or models:/name@alias")
    return _candidate(name, snapshot(name, key), key, base)


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer's main file is there."""
    return any((folder / file).is_file() for file in TOKENIZERS)


def _candidate(
    name: str, folder: Path, key: str, base: str | None, tags: Mapping[str, str] | None = None
) -> ScoredModel:
    inside = folder / "model"  # of a run, or of a registered version
    if not _is_model(folder) and _is_model(inside):
        folder = inside
    elif not _is_model(folder) and (folder / "result.json").is_file():
        raise UserError(f"{key}: {folder} has no model: a study keeps the weights of its front alone")
    if not (folder / "adapter_config.json").is_file():
        return ScoredModel(name, model_folder(str(folder), key), tags=tags or {})
    if not (folder / ADAPTER).is_file():
        raise UserError(f"{key}: {folder} is an adapter and has no {ADAPTER}")
    return ScoredModel(name, folder.resolve(), _base(folder.resolve(), key, base), tags or {})


def _is_model(folder: Path) -> bool:
    return any((folder / file).is_file() for file in ("config.json", "adapter_config.json"))


def _base(adapter: Path, key: str, given: str | None) -> Path:
    """The model that an adapter was trained on: as given, as the adapter says, or the start model of its study."""
    if given is not None:
        return model_folder(given, "--base")
    if named := _json(adapter / "adapter_config.json").get("base_model_name_or_path"):
        return model_folder(str(named), f"{key}: the base of {adapter}")
    for parent in list(adapter.parents)[:LEVELS]:
        if ensure_local(parent / "study.json"):
            study = _json(parent / "study.json")
            start = Path(study["start_folder"])
            start = local_path(home() / "models" / start.name) if store() else start  # of whichever machine wrote it
            base = model_folder(str(start), f"{key}: the base of {adapter}")
            if model_digest(base) != study["digests"]["model"]:
                raise UserError(
                    f"{key}: {base}, which {adapter} was trained on, has changed since: name another --base"
                )
            return base
    raise UserError(f"{key}: {adapter} is an adapter and does not say on what: name its base with --base")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: must be a JSON object")
    return found
