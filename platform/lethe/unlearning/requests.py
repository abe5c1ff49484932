"""Requests and reports of the entry points that train, score and audit models. Imports no torch: drivers make requests.

A request's paths are those of the process that made it; `lethe.pool.worker` rewrites them where a node's storage root
lies elsewhere. None of this enters a run's digest except `TrialRequest.run`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from lethe.config.audits import AnyAudits
from lethe.config.base import Frozen
from lethe.config.benchmarks import AnyBenchmark
from lethe.config.model import AnyEmbedded, FinetunedModel
from lethe.config.privacy import StoredText
from lethe.config.prompt import Prompt
from lethe.config.run import Checkpoint, Engine, Evaluation, Quantisation, Recipe, UnlearnRun
from lethe.records import AuditRecord, FinalReport, Metrics, Sample


class Request(Frozen):
    """The arguments of an entry point (`lethe.pool.messages.EntryPoint`). Metrics in it may be NaN."""

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")


class Assets(Frozen):
    """Paths of a run's inputs on this machine, with the digests of data and start model.

    `origin` is what the start model was made from, for retraining: the embedded family's recipe, or the folder of a
    base checkpoint. All models of a study are loaded and measured in `precision` and with `quantisation`.
    `largest_rank`: of the adapters that the study searches, None where that is unknown. `text`: what of the rows' text
    runs may store; `study`: the folder with the salt of their names, None where they get none.
    """

    benchmark: AnyBenchmark
    data_digest: str
    model_digest: str
    start: str
    origin: AnyEmbedded | str | None = None
    cache: str
    largest_rank: int | None = None
    prompt: Prompt = Prompt()
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    quantisation: Quantisation | None = None
    text: StoredText = "keep"
    study: Path | None = None


class TrialRequest(Request):
    """One unlearning run, which leaves model and rows in `folder`.

    `reference`: the JSON file of the reference values that it is compared with, None where there is none; `interim`: of
    those for interim evaluations, None where all evaluations are whole; `checkpoint`: when to save checkpoints below
    `folder`, None for a run that is not resumed.
    """

    run: UnlearnRun
    assets: Assets
    reference: Path | None
    interim: Path | None = None
    folder: Path
    checkpoint: Checkpoint | None = None


class AuditedTrialRequest(TrialRequest):
    """An unlearning run whose model is then audited: the search has objectives that only `audits` measure."""

    audits: AnyAudits


class FinetuneRequest(Request):
    """The training of the checkpoint in the folder `base` to a start model or an oracle, on the benchmark's rows as the
    tokenizer of `assets.start` reads them.

    The trained model goes to `folder`, with a `TrainingRecord`; checkpoints, saved as `checkpoint` says, into `work`,
    which is removed when it is done.
    """

    model: FinetunedModel
    engine: Engine
    base: Path
    base_digest: str
    assets: Assets
    include_forget: bool
    folder: Path
    work: Path
    checkpoint: Checkpoint


class TrialReport(FinalReport):
    """A trained model's last evaluation, with a few of its answers, and the audits that its objectives need."""

    samples: tuple[Sample, ...] = ()
    audits: tuple[AuditRecord, ...] = ()


class BaselineRequest(Request):
    """The evaluation of a model that is not trained; its rows go to the parquet file `rows`, unless that is None."""

    assets: Assets
    evaluation: Evaluation
    model: Path
    rows: Path | None = None


class BaselineReport(TrialReport):
    """A model's scores. `reference`: its reference values, as `ReferenceValues.dump` gives them; `fault`: as
    `EvaluationResult` has it."""

    reference: Any = None
    fault: str = ""


class AuditRequest(Request):
    """The `audits` of the model in the folder `model`, which was trained with `recipe`.

    `reference` is as in `TrialRequest`; `metrics` are those that the study measured on the model.
    """

    audits: AnyAudits
    assets: Assets
    recipe: Recipe
    model: Path
    reference: Path | None
    metrics: Metrics


class AuditReport(FinalReport):
    """The records of the audits, one per variant."""

    audits: tuple[AuditRecord, ...] = ()
