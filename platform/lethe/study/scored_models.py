"""Models to score, found by their names: whole ones, and adapters on their bases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lethe.benchmarks.measurement import load_adapted_network, load_network, template_of
from lethe.config.base import short_digest
from lethe.config.prompt import Prompt
from lethe.config.run import Quantisation
from lethe.data.template import Template
from lethe.models.hashing import model_digest, tokenizer_digest
from lethe.models.loading import Precision, check_adapter_tensors, stored_precision, stored_quantisation
from lethe.models.model_files import read_json
from lethe.study.model_sources import check_whole, find_model, has_tokenizer, named

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

GUARD = "input_guard.json"  # beside a model that an instruction belongs to: see lethe.unlearning.worker_entry


@dataclass(frozen=True)
class ScoredModel:
    """A model on this machine. `base`: the model that an adapter was trained on; `tags`: a registered version's;
    `as_precision` and `as_quantisation`: of the weights that are measured; without a precision, those in the folder."""

    name: str
    folder: Path
    base: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    as_precision: Precision | None = None
    as_quantisation: Quantisation | None = None

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

    @cached_property
    def quantisation(self) -> Quantisation | None:
        """The quantisation of its linear layers: of an adapter, its base's when it was trained."""
        return self.as_quantisation or stored_quantisation(self.folder)

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
        """Load the model onto `device`, in its `precision` and `quantisation`, in evaluation mode, an adapter on its
        base."""
        if self.base is None:
            return load_network(self.folder, device, self.precision, self.quantisation)
        return load_adapted_network(self.base, self.folder, device)

    def template(self, prompt: Prompt | None = None) -> Template:
        """Return the template that this model is asked with, its instruction included: by `prompt`, or by its own
        where that is the default."""
        return template_of(self.tokenizer, prompt, instruction=self.instruction, model=self.base or self.folder)


def distinct(models: Sequence[ScoredModel]) -> list[ScoredModel]:
    """Return the models without those whose files came before, under whatever name."""
    found: dict[tuple[Path, Path | None], ScoredModel] = {}
    for model in models:
        found.setdefault((model.folder.resolve(), model.base and model.base.resolve()), model)
    return [*found.values()]


def find(name: str, key: str = "MODEL", base: str | None = None, *, registry: str | None = None) -> ScoredModel:
    """Return the model that `name` means. `base` names the model that an adapter belongs on, `store` is as in
    `find_model`. Raises UserError, with the option or argument `key` in front, for a model that does not exist and for
    one that cannot be loaded as it is."""
    found = find_model(name, key, base, registry=registry)
    check_whole(found.base or found.folder, key)
    if found.base is not None:
        with named(key):
            check_adapter_tensors(found.base, found.folder)
    return ScoredModel(name, found.folder, found.base, found.tags)
