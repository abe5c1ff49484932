"""Inputs of a study for a dry run: where data and models are, and one whole prompt. Nothing is downloaded."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lethe.benchmarks.base import Benchmark, load_benchmark
from lethe.config.benchmark import EMBEDDED
from lethe.config.model import EmbeddedModel
from lethe.config.run import Evaluation
from lethe.config.study import Study
from lethe.data.template import Template
from lethe.errors import UserError
from lethe.study.model_sources import REGISTERED, find_model, has_tokenizer, named
from lethe.study.preparation import embedded_template, named_models, rendered_prompt


@dataclass(frozen=True)
class Inputs:
    """A study's data, start model and template, each None where it is not on this machine. `notes`: a line for the data
    and one for each model that the study names."""

    notes: tuple[str, ...]
    benchmark: Benchmark | None
    start: Path | None
    template: Template | None

    def row_lengths(self) -> list[tuple[int, int]]:
        """Return the tokens of each forget row, and those of its answer; nothing where they are not known."""
        if self.start is None or self.template is None or self.benchmark is None:
            return []
        rows = (self.template.encode(row.question, row.answer) for row in self.benchmark.asked(Evaluation()))
        return [(len(row.ids), len(row.answer)) for row in rows]


def find_inputs(study: Study) -> Inputs:
    """Look a study's data and models up without a network. Raises UserError for local files that are missing or
    malformed; a hub id that is not on this machine is no error."""
    sources = study.benchmark.given_sources().values()
    away = {source for source in sources if is_hub_id(source) and not Path(source).expanduser().exists()}
    benchmark = None if away else load_benchmark(study.benchmark)
    notes = [f"data         {source}{_hub_note(source, 'dataset') if source in away else ''}" for source in sources]
    from lethe.models.loading import check_adapter_tensors, check_tensors  # import torch when they are called

    folders: dict[str, Path] = {}
    for key, name in named_models(study.model).items():
        if is_hub_id(name) and not Path(name).expanduser().exists():
            folder = _cached(name, "model")
            notes.append(f"model.{key:6} {name}{_hub_note(name, 'model')}")
        elif name.startswith(REGISTERED):
            folder = None
            notes.append(f"model.{key:6} {name}: a registered model, which is looked up when the study starts")
        else:
            found = find_model(
                name,
                f"model.{key}",
                None if key == "base" else getattr(study.model, "base", None),
                registry=study.tracking.uri,
            )
            folder = found.folder if found.base is None or has_tokenizer(found.folder) else found.base
            notes.append(f"model.{key:6} {folder}")
            with named(f"model.{key}"):
                check_tensors(found.base or folder)
                if found.base is not None:
                    check_adapter_tensors(found.base, found.folder)
            if key != "oracle" and found.base is not None:
                folders["weights"] = found.base
        if folder is not None:
            folders[key] = folder
    start = folders.get("path") or folders.get("base")
    template = _template(study, start)
    return Inputs(tuple(notes), benchmark, folders.get("weights") or start, template)


def describe_inputs(study: Study, inputs: Inputs) -> Iterator[str]:
    """Yield lines about data, models and prompt for `--dry-run`. Raises UserError for a prompt that cannot be
    rendered."""
    yield from inputs.notes
    # An embedded tokenizer is trained before it is known how many tokens a text has.
    if inputs.benchmark is not None and inputs.template is not None and not isinstance(study.model, EmbeddedModel):
        notes = inputs.benchmark.notes(study.first_recipe().evaluation, inputs.template)
        yield from (f"warning      {line}" for line in notes)
    if text := _stored_text(study):
        yield f"text         {text}"
    if not study.benchmark.has_questions or (inputs.benchmark and not inputs.benchmark.has_questions):
        return
    if inputs.template is None:
        yield "prompt       it is rendered by the start model's tokenizer, which is not here"
        return
    kept = study.stored_text == "keep"
    shown = rendered_prompt(inputs.template, inputs.benchmark if kept else None)
    yield f"prompt       of {'the first forget row' if kept else 'a made-up row'}:"
    yield textwrap.indent(shown.prompt, "  | ", lambda _: True)
    yield "answer       and its end:"
    yield textwrap.indent(shown.answer, "  | ", lambda _: True)


def _stored_text(study: Study) -> str:
    """Return what the study stores of the rows' text, in words; nothing where all of it is invented."""
    if EMBEDDED in study.benchmark.given_sources().values() and study.stored_text == "keep":
        return ""
    return {
        "keep": "rows to forget go into report, MLflow and files of the study (privacy.text: redact leaves them out)",
        "redact": "rows to forget are stored nowhere; reports and files name them by number and hash",
        "none": "no row is stored anywhere; files name the rows to forget by number and hash",
    }[study.stored_text]


def is_hub_id(name: str) -> bool:
    """Return whether `name` has the form owner/name."""
    # No colon: `models:/name@alias` is a registered model.
    return name.count("/") == 1 and ":" not in name and not name.startswith(("/", ".", "~")) and not name.endswith("/")


def _template(study: Study, start: Path | None) -> Template | None:
    """Return the template of the start model in a folder, or of an embedded one; None where it is not here, and where
    the texts are those that an embedded tokenizer is trained on first."""
    if isinstance(study.model, EmbeddedModel):
        return embedded_template(study.model, study.prompt) if study.benchmark.has_questions else None
    if start is None:
        return None
    from lethe.benchmarks.measurement import template_of  # imports torch

    return template_of(start, study.prompt)


def _hub_note(name: str, kind: str) -> str:
    return "" if _cached(name, kind) else ": a hub id, not on this machine"


def _cached(name: str, kind: str) -> Path | None:
    """Return the folder of a hub model or data set that was downloaded before, None where it was not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type=kind, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise UserError(f"{name} is neither a folder nor a hub id: {error}") from None
