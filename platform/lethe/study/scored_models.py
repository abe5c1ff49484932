"""Finding a model by its name: a folder, a study's run, a hub id, or a registered version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lethe.benchmarks.measurement import load_adapted_network, load_network, template_of
from lethe.config.base import short_digest
from lethe.config.prompt import Prompt
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.models.hashing import model_digest, tokenizer_digest
from lethe.models.loading import ADAPTER, Precision, check_tensors, stored_precision
from lethe.models.model_files import check_finite, read_json
from lethe.storage.paths import home, store
from lethe.storage.replica import ensure_local, local_path, resolve_local
from lethe.study.preparation import TOKENIZERS, model_folder, named, snapshot

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

REGISTERED = "models:/"
GUARD = "input_guard.json"  # beside a model that an instruction belongs to: see lethe.unlearning.worker_entry
LEVELS = 5  # from a run's model up to its study


@dataclass(frozen=True)
class ScoredModel:
    """A model on this machine. `base`: the model that an adapter was trained on; `tags`: a registered version's;
    `as_precision`: of the weights that are measured, None: those in the folder."""

    name: str
    folder: Path
    base: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    as_precision: Precision | None = None

    @cached_property
    def digest(self) -> str:
        """Digest of everything that decides what the model computes, its base included."""
        own = model_digest(self.folder)
        return own if self.base is None else short_digest(f"{model_digest(self.base)}+{own}")

    @cached_property
    def precision(self) -> Precision:
        """The precision that the model is measured in: of a model that a study saved, the one the study measured it
        in."""
        return self.as_precision or stored_precision(self.folder)

    @property
    def tokenizer(self) -> Path:
        """The folder that has the tokenizer: the base's, where an adapter has none of its own."""
        return self.folder if self.base is None or has_tokenizer(self.folder) else self.base

    @cached_property
    def tokenizer_digest(self) -> str:
        """Digest of everything that decides how a prompt is tokenised."""
        return tokenizer_digest(self.tokenizer)

    @cached_property
    def instruction(self) -> str:
        """The text in front of every question that an input guard left with the model; empty for most."""
        path = self.folder / GUARD
        return str(read_json(path).get("instruction", "")) if path.is_file() else ""

    def load(self, device: Literal["cpu", "cuda"] = "cpu") -> PreTrainedModel | PeftModel:
        """Load the model onto `device`, in its `precision` and evaluation mode, an adapter on its base."""
        if self.base is None:
            return load_network(self.folder, device, self.precision)
        return load_adapted_network(self.base, self.folder, device)

    def template(self, prompt: Prompt | None = None) -> Template:
        """Return the template that this model is asked with, its instruction included: by `prompt`, or by its own
        where that is the default."""
        return template_of(self.tokenizer, prompt, instruction=self.instruction, model=self.base or self.folder)


def find(name: str, key: str = "MODEL", base: str | None = None) -> ScoredModel:
    """Return the model that `name` means. `base` names the model that an adapter belongs on. Raises UserError, with the
    option or argument `key` in front, for a model that does not exist and for a folder that lacks something."""
    if name.startswith(REGISTERED):
        from lethe.tracking.model_addresses import fetch_registered_model

        folder, tags = fetch_registered_model(name, key)
        return _candidate(name, folder, key, base, tags)
    folder = resolve_local(name)
    if folder.is_dir():
        return _candidate(name, folder, key, base)
    if name.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise UserError(f"{key}: there is no folder {name}: give one, a hub id (owner/name) or models:/name@alias")
    return _candidate(name, snapshot(name, key), key, base)


def has_tokenizer(folder: Path) -> bool:
    """Return True if the folder has a tokenizer's main file."""
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
        return ScoredModel(name, _sound(str(folder), key), tags=tags or {})
    if not (folder / ADAPTER).is_file():
        raise UserError(f"{key}: {folder} is an adapter and has no {ADAPTER}")
    return ScoredModel(name, folder.resolve(), _base(folder.resolve(), key, base), tags or {})


def _sound(name: str, key: str) -> Path:
    """Return a model's folder. Raises UserError, with `key` in front, for a model that cannot be loaded as it is."""
    folder = model_folder(name, key)
    with named(key):
        check_tensors(folder)
        check_finite(folder)
    return folder


def _is_model(folder: Path) -> bool:
    return any((folder / file).is_file() for file in ("config.json", "adapter_config.json"))


def _base(adapter: Path, key: str, given: str | None) -> Path:
    """Return the folder of the model that an adapter was trained on: `given`, named by the adapter, or the start model
    of the study that the adapter's folder is in."""
    if given is not None:
        return _sound(given, "--base")
    if on := read_json(adapter / "adapter_config.json").get("base_model_name_or_path"):
        return _sound(str(on), f"{key}: the base of {adapter}")
    for parent in list(adapter.parents)[:LEVELS]:
        if ensure_local(parent / "study.json"):
            study = read_json(parent / "study.json")
            start = Path(study["start_folder"])
            start = local_path(home() / "models" / start.name) if store() else start  # of whichever machine wrote it
            base = _sound(str(start), f"{key}: the base of {adapter}")
            if model_digest(base) != study["digests"]["model"]:
                raise UserError(
                    f"{key}: {base}, which {adapter} was trained on, has changed since: name another --base"
                )
            return base
    raise UserError(f"{key}: {adapter} is an adapter and does not say on what: name its base with --base")
