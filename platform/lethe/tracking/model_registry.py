"""The models on a study's front as versions of one registered model in MLflow, which other teams load by alias.

A version is a folder that MLflow and plain transformers load: no lethe, no custom code, no pickle. It is written here
and not by `mlflow.transformers.save_model`, which, given a local folder, asks the Hugging Face hub for a model card of
that name (half a minute of retries without a network, and a private path shown to a third party), and which needs the
model in memory. The format is small and documented, and the tests load these folders through MLflow's own loader.
"""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lethe.models.merging import copy_without_weights, is_adapter, merge
from lethe.records import REQUESTS, StudyRecord, TrialRecord, cut_folder
from lethe.storage.paths import apply_umask
from lethe.storage.replica import temporary_copy
from lethe.tracking.aliases import advance, study_alias
from lethe.tracking.model_card import CARD, model_card, requests_file
from lethe.tracking.tracked_trials import TrackedTrial, clip_text, verdict_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

REQUIREMENTS = ("mlflow", "torch", "transformers", "safetensors")


def model_name(space: str) -> str:
    """Return the name of the registered model of a study with the search space `space`."""
    return f"lethe-{space}"


class Registry:
    """Registers the front of one study. An equal run hash is an equal model, hence the same version."""

    def __init__(self, client: MlflowClient, record: StudyRecord, tracked: Mapping[int, TrackedTrial]) -> None:
        """`tracked` has the study's trials, with their MLflow runs, by number."""
        self.client, self.record, self.tracked = client, record, tracked
        self.name = model_name(record.space)
        self.notes: list[str] = []  # what became of the space's aliases, a line each

    def jobs(self) -> Iterator[Callable[[], None]]:
        """Yield one call per front member, then one per alias: each can fail without the others."""
        for trial in self.record.front:
            yield partial(self.register, trial)
        runs = {trial.number: trial.run for trial in self.record.front}
        for alias, number in self.record.aliases.items():
            if number in runs:
                yield partial(self.place_alias, alias, runs[number])

    @cached_property
    def versions(self) -> dict[str, str]:
        """Versions of the registered model, which is created if need be, by run hash."""
        from mlflow.exceptions import MlflowException

        try:
            description = f"Unlearned models of the study {self.record.space}."
            self.client.create_registered_model(self.name, description=description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = self.client.search_model_versions(f"name = '{self.name}'")
        return {version.tags["lethe.run"]: str(version.version) for version in known if "lethe.run" in version.tags}

    def register(self, trial: TrialRecord) -> None:
        """Upload the trial's model as plain transformers files and make it a version; an existing version gets what it
        lacks. Raises FileNotFoundError where the trial has no saved model."""
        run_id = self.tracked[trial.number].run_id
        if trial.run in self.versions:
            self._update(trial)
            return
        with temporary_copy(Path(trial.folder) / "model") as folder:
            if run_id is None or not trial.folder or folder is None:
                raise FileNotFoundError(f"trial {trial.number} has no saved model ({trial.folder}/model)")
            model = self._log_model(trial, folder, run_id)
        version = self.client.create_model_version(
            self.name,
            source=model.artifact_location,
            run_id=run_id,
            model_id=model.model_id,
            tags={key: clip_text(value) for key, value in self._tags(trial).items()},
            description=f"Trial {trial.number} of study {self.record.id}.",
        )
        self.versions[trial.run] = str(version.version)

    def _log_model(self, trial: TrialRecord, folder: Path, run_id: str) -> LoggedModel:
        """Upload the model in `folder` as the output of a run: a logged model, with its parameters and its metrics."""
        from mlflow.entities import LoggedModelOutput

        model = self.client.create_logged_model(
            self.client.get_run(run_id).info.experiment_id,
            name=f"trial-{trial.number:03d}",
            source_run_id=run_id,
            tags={key: clip_text(value) for key, value in self._tags(trial).items()},
            params={key: clip_text(value) for key, value in trial.params.items()},
            model_type="unlearned",
        )
        ready: Literal["READY", "FAILED"] = "FAILED"
        try:
            self._upload(trial, folder, model.model_id)
            self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=len(trial.series))])
            self._link_metrics(trial, run_id, model.model_id)
            ready = "READY"
        finally:
            self.client.finalize_logged_model(model.model_id, ready)
        return model

    def _link_metrics(self, trial: TrialRecord, run_id: str, model_id: str) -> None:
        """Make the run's last objectives, and what its verdict rests on, the model's metrics. The run keeps one point
        of each: a point with equal time, step and value is the same."""
        from mlflow.entities import Metric

        judged = [criterion.metric for criterion in trial.forgotten.criteria] if trial.forgotten else []
        points = []
        for key in dict.fromkeys([*(goal.metric for goal in self.record.objectives), *judged]):
            if history := self.client.get_metric_history(run_id, key):
                last = history[-1]
                points.append(Metric(key, last.value, last.timestamp, last.step, model_id=model_id))
        self.client.log_batch(run_id, points, synchronous=True)

    def _update(self, trial: TrialRecord) -> None:
        """Give a version of an earlier session the tags of confirmation, audits and verdict that it lacks, and with
        them a new card and the adapter at a lower rank."""
        version = self.client.get_model_version(self.name, self.versions[trial.run])
        tags = {key: clip_text(value) for key, value in _tags_afterwards(trial).items()}
        missing = {key: value for key, value in tags.items() if version.tags.get(key) != value}
        if missing and (model_id := self._logged_model(trial, version.source)):
            with tempfile.TemporaryDirectory() as cards:
                self._write_cards(trial, Path(cards), "", "model", *["adapter"] * bool(trial.adapter))
                self.client.log_model_artifacts(model_id, cards)
            if trial.adapter and trial.adapter.cut_to:
                cut = cut_folder(trial.adapter.cut_to)
                self.client.log_model_artifacts(model_id, str(Path(trial.folder, "model", cut)), f"adapter/{cut}")
        for key, value in missing.items():
            self.client.set_model_version_tag(self.name, version.version, key, value)

    def _logged_model(self, trial: TrialRecord, source: str | None) -> str | None:
        """Return the id of the trial's logged model with its files at `source`, None where an earlier release of lethe
        logged none: MLflow does not keep it with the version."""
        run_id = self.tracked[trial.number].run_id
        outputs = self.client.get_run(run_id).outputs if run_id else None
        for output in outputs.model_outputs if outputs else ():
            if self.client.get_logged_model(output.model_id).artifact_location == source:
                return str(output.model_id)
        return None

    def place_alias(self, alias: str, run: str) -> None:
        """Move the study's own `alias` to the version of a run, and the search space's if that is an improvement; do
        nothing where registering it failed, which has been warned about."""
        if run in self.versions:
            version = self.versions[run]
            self.client.set_registered_model_alias(self.name, study_alias(self.record.id, alias), version)
            note = advance(self.client, self.name, alias, version, self.record.objectives)
            self.notes += [note] if note else []

    def address(self, trial: TrialRecord) -> str:
        """Return the address of the trial's version; empty where it is not registered."""
        return f"models:/{self.name}/{self.versions[trial.run]}" if trial.run in self.versions else ""

    def _upload(self, trial: TrialRecord, folder: Path, model_id: str) -> None:
        """Upload the model in `folder`, with MLflow's files around it, as artifacts of a logged model. An adapter is
        uploaded beside its merged model."""
        with tempfile.TemporaryDirectory(prefix=".register-", dir=folder.parent) as temporary:
            wrapping, merged = Path(temporary, "wrapping"), Path(temporary, "merged")
            weights = folder
            if is_adapter(folder):
                # In fp32, which is the model that the trial evaluated.
                merge(Path(self.record.start_folder), folder, merged, "fp32")
                apply_umask(merged)
                self.client.log_model_artifacts(model_id, str(folder), "adapter")
                weights = merged
            write_wrapping(weights, wrapping)
            self._write_cards(trial, wrapping, "", "model")
            self.client.log_model_artifacts(model_id, str(wrapping))
            self.client.log_model_artifacts(model_id, str(weights), "model")

    def _write_cards(self, trial: TrialRecord, target: Path, *places: str) -> None:
        """Write the model's card, and the requests that it answers, into these folders below `target`."""
        for place in places:
            folder = target / place
            folder.mkdir(exist_ok=True)
            (folder / CARD).write_text(model_card(self.record, trial, adapter=place == "adapter"))
            (folder / REQUESTS).write_text(requests_file(self.record))

    def _tags(self, trial: TrialRecord) -> dict[str, object]:
        digests = {"lethe.data": "data", "lethe.base": "model", "lethe.oracle": "oracle", "lethe.prompt": "prompt"}
        by_tag = {tag: self.record.digests.get(key) for tag, key in digests.items()}
        return {
            **{goal.metric: trial.metrics[goal.metric] for goal in self.record.objectives},
            "lethe.run": trial.run,
            "lethe.trial": trial.number,
            "lethe.study": self.record.id,
            "lethe.requests": "; ".join(f"{r.study}: {len(r.rows)} rows" for r in self.record.requests),
            **{tag: digest for tag, digest in by_tag.items() if digest},
            **_tags_afterwards(trial),
        }


def _tags_afterwards(trial: TrialRecord) -> dict[str, object]:
    """Return the tags of confirmation, audits and verdict, which come when the search is over."""
    confirmed = {"confirmed": str(trial.confirmation.confirmed).lower()} if trial.confirmation else {}
    return {**confirmed, **trial.afterwards, **verdict_tags(trial)}


def write_wrapping(weights: Path, target: Path) -> None:
    """Write MLflow's files around the model in `weights` to `target`: MLmodel, the requirements, and the tokenizer
    where MLflow looks for it. The model itself belongs into `target/model`."""
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    copy_without_weights(weights, target / "components" / "tokenizer")
    config = json.loads((weights / "config.json").read_text())
    _write_requirements(target)
    text = Schema([ColSpec("string")])
    model = Model(signature=ModelSignature(inputs=text, outputs=text))
    model.add_flavor(
        "python_function",
        loader_module="mlflow.transformers",
        env={"virtualenv": "python_env.yaml"},
        python_version=platform.python_version(),
    )
    model.add_flavor(
        "transformers",
        code=None,
        task="text-generation",
        instance_type="TextGenerationPipeline",
        # Auto classes: a class that the reader's transformers does not know would be loaded with remote code.
        pipeline_model_type="AutoModelForCausalLM",
        tokenizer_type="AutoTokenizer",
        components=["tokenizer"],
        model_binary="model",
        source_model_name=config.get("model_type", "model"),
        torch_dtype=f"torch.{config.get('dtype') or config.get('torch_dtype') or 'float32'}",
        transformers_version=version("transformers"),
    )
    model.save(str(target / "MLmodel"))


def _write_requirements(target: Path) -> None:
    # Public versions only: a local one such as `2.13.0+cpu` is on no index.
    pins = [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS]
    (target / "requirements.txt").write_text("\n".join(pins) + "\n")
    (target / "python_env.yaml").write_text(
        f"python: {platform.python_version()}\n"
        "build_dependencies: [pip, setuptools, wheel]\n"
        "dependencies: [-r requirements.txt]\n"
    )
