"""From a study's benchmark and model to the inputs of its runs: rows, model folders and content digests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lethe.benchmarks.base import Benchmark, load_benchmark
from lethe.config.base import Frozen
from lethe.config.benchmark import BenchmarkConfig
from lethe.config.model import AnyEmbedded, AnyModel, EmbeddedModel, FinetunedModel, PretrainedModel
from lethe.config.prompt import Prompt
from lethe.config.run import Digests, Evaluation
from lethe.config.study import Study, parse_study
from lethe.data.template import SHOWN, Template
from lethe.errors import UserError
from lethe.models.hashing import model_digest
from lethe.models.model_files import read_config
from lethe.models.subprocess_training import ProgressReport
from lethe.records import TRAINING, RenderedPrompt, StudyRecord, TrainingRecord
from lethe.storage.replica import share_with_nodes
from lethe.study.lineage import check_earlier
from lethe.study.model_sources import PARTS, check_whole, plain_folder

DEFAULT = Prompt()


@dataclass(frozen=True)
class Prepared:
    """The inputs of a study's runs. `start`, `oracle` and `base`, which `start` was made from, are folders with
    safetensors and a tokenizer; None where the study has no such model."""

    benchmark: Benchmark
    start: Path
    oracle: Path | None
    base: Path | None
    digests: Digests


def locate(
    benchmark: BenchmarkConfig, model: AnyModel, prompt: Prompt = DEFAULT, *, registry: str | None = None
) -> None:
    """Raise UserError for data and models that cannot be had or are not whole, and for a `prompt` that cannot be
    rendered; `registry` as in `find_model`. Quick, but for reading the weights of a `PretrainedModel` once: call it
    before anything expensive starts."""
    loaded = load_benchmark(benchmark)
    if not isinstance(model, EmbeddedModel):
        folders = model_folders(model, registry)
        for key, folder in folders.items():
            check_whole(folder, key)
        start = next(iter(folders.values()))
        check_earlier(loaded, start)
        loaded.check_vocabulary(_vocabulary(start))
        _template(start, prompt).digest(questions=loaded.has_questions)
    elif loaded.has_questions and prompt != DEFAULT:
        embedded_template(model, prompt).digest()


def prepare(
    benchmark: BenchmarkConfig,
    model: AnyEmbedded | PretrainedModel,
    prompt: Prompt = DEFAULT,
    *,
    progress: ProgressReport | None = None,
    registry: str | None = None,
) -> Prepared:
    """Load the data; find or train the start model and its oracle. Raises UserError for whatever is missing.

    Models that are trained on worker groups are `lethe.study.finetuning`'s: it calls this when they are there.
    `registry` is as in `find_model`. `progress` takes (name of a training, its finished share); without one, the
    console shows it.
    """
    loaded = load_benchmark(benchmark)
    if isinstance(model, EmbeddedModel):
        from lethe.benchmarks.embedded.models import trained_pair

        start, oracle = trained_pair(loaded, model, progress)
        base = None
    else:
        folders = model_folders(model, registry)
        start, oracle, base = folders["model.path"], folders.get("model.oracle"), folders.get("model.base")
        _check_vocabulary(base or start, start)
    template = _template(start, prompt)
    digests = Digests(
        data=loaded.digest,
        model=model_digest(start),
        oracle=None if oracle is None else model_digest(oracle),
        base=None if base is None else model_digest(base),
        prompt=template.digest(questions=loaded.has_questions),
    )

    def shared(folder: Path | None, digest: str | None) -> Path | None:
        return None if folder is None else share_with_nodes(folder, "models", str(digest), PARTS)

    return Prepared(
        benchmark=loaded,
        start=share_with_nodes(start, "models", digests.model, PARTS),
        oracle=shared(oracle, digests.oracle),
        base=shared(base, digests.base),
        digests=digests,
    )


def _template(start: Path, prompt: Prompt) -> Template:
    """Return the template of the start model in a folder."""
    from lethe.benchmarks.measurement import template_of  # imports torch

    return template_of(start, prompt)


def stored_benchmark(record: StudyRecord) -> tuple[Study, Benchmark]:
    """Return the settings and the data of a stored study, read again from where it read them. Raises UserError where
    the data have changed."""
    study = parse_study(dict(record.study))
    benchmark = load_benchmark(study.benchmark)
    if benchmark.digest != record.digests.get("data"):
        raise UserError(f"the rows of {study.benchmark.data_name} have changed since study {record.id}")
    return study, benchmark


def embedded_template(model: EmbeddedModel, prompt: Prompt) -> Template:
    """Return the template of an embedded model before that is trained: its vocabulary is trained with it, and the text
    around questions and answers is known."""
    from lethe.models.tokenizer import as_pretrained, train_tokenizer

    return Template(as_pretrained(train_tokenizer([], model.vocab_size)), prompt)


def rendered_prompt(template: Template, benchmark: Benchmark | None) -> RenderedPrompt:
    """Return the first forget row as a model reads it; a made-up row without a benchmark. Raises UserError for a prompt
    that cannot be rendered."""
    rows = () if benchmark is None else benchmark.asked(Evaluation())
    prompt, answer = template.rendered(*((rows[0].question, rows[0].answer) if rows else SHOWN))
    return RenderedPrompt(prompt=prompt, answer=answer)


def study_prompt(study: Study, prepared: Prepared) -> RenderedPrompt | None:
    """Return the first forget row as the start model reads it, a made-up one where the study does not store that; None
    where nothing is asked."""
    if not prepared.benchmark.has_questions:
        return None
    shown = prepared.benchmark if study.stored_text == "keep" else None
    return rendered_prompt(_template(prepared.start, study.prompt), shown)


def data_notes(study: Study, prepared: Prepared) -> Iterator[str]:
    """Yield a line for each thing that the study's evaluation leaves out of its data, and one for an oracle that is
    none."""
    if prepared.digests.oracle == prepared.digests.model:
        yield "the oracle is the start model itself: forget is 0 for a model that forgets nothing"
    template = _template(prepared.start, study.prompt)
    yield from prepared.benchmark.notes(study.first_recipe().evaluation, template)


def row_counts(benchmark: Benchmark) -> dict[str, int]:
    """Return how many rows are forgotten and, where they have questions, how many are trained on to be kept."""
    forget = len(benchmark.forget_questions) or benchmark.forget_count(Evaluation())
    counts = {"forget": forget, "retain": len(benchmark.retain_questions)}
    return {name: count for name, count in counts.items() if count}


def training_record(folder: Path) -> TrainingRecord | None:
    """Return the record of the training that made the model in a folder; None for a model from elsewhere."""
    path = folder / TRAINING
    return TrainingRecord.model_validate_json(path.read_text()) if path.is_file() else None


def model_folders(model: PretrainedModel | FinetunedModel, registry: str | None = None) -> dict[str, Path]:
    """Return the plain folders of the models that `model` names, by setting, the one first that it starts with; `store`
    as in `find_model`. Raises UserError for what is missing."""
    return {
        f"model.{key}": plain_folder(name, f"model.{key}", None if key == "base" else model.base, registry=registry)
        for key, name in named_models(model).items()
    }


def named_models(model: Frozen) -> dict[str, str]:
    """Return the models that a configuration names, by key."""
    found = {key: getattr(model, key, None) for key in ("path", "oracle", "base")}
    return {key: name for key, name in found.items() if isinstance(name, str)}


def _check_vocabulary(base: Path, start: Path) -> None:
    """Raise UserError if base and start model have vocabularies of different sizes."""
    # The start model's tokenizer makes the rows that the base is trained on.
    of_base, of_start = _vocabulary(base), _vocabulary(start)
    if of_base != of_start:
        raise UserError(f"model.base: {base} has a vocabulary of {of_base} tokens, model.path one of {of_start}")


def _vocabulary(folder: Path) -> int | None:
    """Return the vocabulary size in a model's configuration; None where it does not say."""
    size: int | None = read_config(folder).get("vocab_size")
    return size
