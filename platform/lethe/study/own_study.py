"""A first study on people's own rows: what can be measured with the files that there are, and ranges for the model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

from lethe.benchmarks.own.loading import PartName, load_parts
from lethe.config.benchmark import EMBEDDED
from lethe.config.columns import Columns
from lethe.config.model import TRAIN
from lethe.config.own import OwnBenchmark
from lethe.data.source_rows import Document
from lethe.data.sources import Source
from lethe.errors import UserError
from lethe.evaluation.context_length import context_of
from lethe.models.loading import load_config, load_tokenizer
from lethe.models.model_files import parameter_count
from lethe.study.model_sources import find_model

BATCH = 8  # forget rows in a step
MOST_EPOCHS = 30
WINDOW = 256  # tokens of a document that are read at once, by default
SMALL, LARGE = 20e6, 500e6  # parameters
MADE = "a column wrong_answers, or benchmark.made_answers, which makes some by rule"
LONGEST_ANSWER = 256  # tokens to generate, at most


class Ability(NamedTuple):
    """Something that can be measured. `given`: by the files that there are; `remedy`: what would make it possible;
    `compares`: with rows or a model that know nothing of what is to be forgotten."""

    what: str
    given: bool
    remedy: str
    compares: bool = False


class Ranges(NamedTuple):
    """Where a search begins. `adapters`: the choices; `rates`: lowest and highest learning rate; `steps`: of a trial;
    `oracle`: learning rate and epochs of one that is trained; `source`: where the numbers are from."""

    adapters: tuple[str, ...]
    ranks: tuple[int, ...]
    rates: tuple[float, float]
    steps: int
    oracle: tuple[float, int]
    source: str


# Assumption beyond the models that were measured: rates that move a model fall with its size.
BY_SIZE = {
    SMALL: Ranges(("full", "lora"), (8, 16), (3e-4, 3e-3), 150, (3e-3, 12), "the embedded models of 1M parameters"),
    LARGE: Ranges(("lora", "full"), (16, 32), (2e-5, 5e-4), 40, (3e-4, 6), "SmolLM2-135M"),
    math.inf: Ranges(("lora",), (8, 16, 32), (1e-5, 3e-4), 40, (1e-5, 5), "LoKU's for models of 1.3B to 7B"),
}


@dataclass(frozen=True)
class Given:
    """Names of the files and models that a person has, and of columns that are not called as usual."""

    forget: str
    retain: str
    model: str
    holdout: str | None = None
    earlier: str | None = None
    general: str | None = None
    oracle: str | None = None
    base: str | None = None
    columns: Columns = field(default_factory=Columns)

    @property
    def files(self) -> dict[PartName, str]:
        """The sources by the field of the benchmark."""
        return {name: getattr(self, name) for name in get_args(PartName) if getattr(self, name)}


@dataclass(frozen=True)
class OwnStudy:
    """A first study: `sources` as they were read, the model's size and context (None: unknown), the file's `text`."""

    given: Given
    sources: Mapping[PartName, Source]
    parameters: int | None
    context: int | None
    text: str

    @property
    def abilities(self) -> list[Ability]:
        """All things that such a study could measure, each with what it needs."""
        return list(_abilities(self.given, self.sources))


def own_study(given: Given) -> OwnStudy:
    """Return a first study for what there is. Raises UserError, in one line, for files that cannot be read, sets that
    share rows, holdout rows of another kind and a model that cannot be found."""
    sources = _read(given)
    parameters = context = longest = None
    if given.model != EMBEDDED:
        found = find_model(given.model, "--model", given.base)
        whole = found.base or found.folder
        parameters, context = parameter_count(whole), context_of(load_config(whole).get_text_config())
        longest = _longest_answer(sources["forget"], whole)
    elif given.oracle or given.base:
        raise UserError("--model embedded: is trained on these rows, with an oracle: leave --oracle and --base out")
    if given.oracle == TRAIN and not given.base:
        raise UserError(f"--oracle {TRAIN}: needs --base, the checkpoint that --model was made from")
    for option, other in (("--oracle", given.oracle), ("--base", given.base)):
        if other and (option, other) != ("--oracle", TRAIN):
            find_model(other, option)
    ranges = next(ranges for limit, ranges in BY_SIZE.items() if (parameters or 0) <= limit)
    return OwnStudy(given, sources, parameters, context, _text(given, sources, ranges, context, longest))


def _read(given: Given) -> Mapping[PartName, Source]:
    """Read the sources as the benchmark does, with the names of options in messages."""
    try:
        return load_parts(OwnBenchmark.model_validate({**given.files, "columns": given.columns}))
    except UserError as error:
        raise UserError(re.sub(r"benchmark\.(forget|retain|holdout|earlier|general)", r"--\1", str(error))) from None


def _abilities(given: Given, sources: Mapping[PartName, Source]) -> Iterator[Ability]:
    columns = sources["forget"].columns
    unseen = "--holdout: rows like those to forget that the model was never trained on"
    base = bool(given.holdout and given.base)
    yield Ability("what is left of the rows: probability, ROUGE, extraction strength", True, "")
    yield Ability("forgotten rows beside unseen ones: KS test, membership", bool(given.holdout), unseen, True)
    yield Ability(
        "the same, less what its base model knows", base, "--holdout, and --base: what the model was made from"
    )
    oracle = bool(given.oracle) or given.model == EMBEDDED
    such = f"--oracle: such a model, or {TRAIN} with --base, which makes one"
    yield Ability("distance to a model that never saw the rows", oracle, such, True)
    if sources["forget"].kind != "documents":
        yield Ability("the right answer against wrong ones", "wrong_answers" in columns, MADE)
    if sources["forget"].kind == "questions":
        asked = "paraphrased_question" in columns
        yield Ability("questions in other words (an audit)", asked, "a column paraphrased_question")
    if given.earlier:
        yield Ability("whether the rows of earlier requests stay forgotten", True, "")
    yield Ability("what is kept: probability and ROUGE of the rows to keep", True, "")
    yield Ability("what is kept of other text: perplexity", bool(given.general), "--general: any text")
    yield Ability("general abilities", False, "tasks of lm-evaluation-harness: run.evaluation.lm_eval")


def _longest_answer(forget: Source, model: Path) -> int | None:
    """Return how many tokens the longest answer has; None for documents."""
    tokenizer = load_tokenizer(model)
    answers = (row.answer for row in forget.rows if not isinstance(row, Document))
    return max((len(tokenizer(answer, add_special_tokens=False)["input_ids"]) for answer in answers), default=None)


def _text(
    given: Given, sources: Mapping[PartName, Source], ranges: Ranges, context: int | None, longest: int | None
) -> str:
    """Return the study as YAML with a comment where a value needs one."""
    forget = sources["forget"]
    batch = min(BATCH, len(forget.rows))
    epochs = min(MOST_EPOCHS, max(4, math.ceil(ranges.steps * batch / len(forget.rows))))
    low, high = map(_rate, ranges.rates)
    lines = [
        "# Written by lethe init. `lethe sweep FILE --dry-run` says what it needs, docs/reference.md has every key.",
        "extends: own",
        "",
        "benchmark:",
        "  name: own",
        *(f"  {name}: {_quoted(source)} # {_counted(sources[name])}" for name, source in given.files.items()),
        *_columns(given.columns),
        *([f"  window: {context} # the model's context"] if context and context < WINDOW else []),
        "",
        "model:",
        *_model(given, ranges),
        "",
        "run:",
        "  adapter:",
        "    name: null # searched below",
        "  schedule:",
        f"    epochs: {epochs} # of {math.ceil(len(forget.rows) / batch)} steps",
        f"    batch_size: {batch} # rows to forget in a step; each comes with one to keep",
        "  evaluation:",
        f"    every: {max(1, epochs // 2)} # epochs; the last is always measured",
        *_answers(longest),
        "",
        f"# Ranges that come from {ranges.source}: widen them where the best trial lies at an end.",
        "space:",
        f"  optimizer.learning_rate: {{ type: float, low: {low}, high: {high}, log: true }}",
        f"  adapter.name: {{ type: choice, choices: [{', '.join(ranges.adapters)}] }}",
        f"  adapter.rank: {{ type: choice, choices: [{', '.join(map(str, ranges.ranks))}] }} # a LoRA's alone",
    ]
    return "\n".join(lines) + "\n"


def _model(given: Given, ranges: Ranges) -> Iterator[str]:
    if given.model == EMBEDDED:
        yield "  name: embedded # a small Llama, trained on these rows before the trials"
        return
    yield "  name: pretrained"
    names = {"path": given.model, "oracle": given.oracle, "base": given.base}
    yield from (f"  {key}: {_quoted(name)}" for key, name in names.items() if name)
    if given.oracle == TRAIN:
        rate, epochs = ranges.oracle
        yield "  # How it is trained, from base on the rows to keep alone: as path was, where you know that."
        yield f"  learning_rate: {_rate(rate)} # suits the model's size"
        yield f"  epochs: {epochs}"


def _answers(longest: int | None) -> list[str]:
    if longest is None:
        return []
    tokens = min(LONGEST_ANSWER, max(16, math.ceil(1.25 * longest)))
    return [f"    max_new_tokens: {tokens} # the longest answer has {longest}"]


def _columns(columns: Columns) -> list[str]:
    named = {key: column for key, column in columns if column is not None}
    return [f"  columns: {json.dumps(named, ensure_ascii=False)}"] if named else []


def _counted(source: Source) -> str:
    return f"{len(source.rows)} {source.kind}"


def _rate(value: float) -> str:
    """Return a learning rate as people write it: 3e-4."""
    return f"{value:.0e}".replace("e-0", "e-")


def _quoted(text: Any) -> str:
    """Return a text as YAML reads it back, in quotes unless it is plain."""
    import yaml

    return yaml.safe_dump(str(text), allow_unicode=True, width=math.inf).removesuffix("...\n").strip()
