"""A trial's saved model as a folder that MLflow and stock transformers load: no lethe, no custom code, no pickle.

`mlflow.transformers.save_model` is not used: given a local folder it asks the Hugging Face hub for that name's model
card (half a minute of retries without a network, and a private path told to a stranger), and it needs the model in
memory. The format is small and documented, and the tests load what is written here through MLflow's own loader.

The models on a study's front as versions of one registered model: what another team loads by its alias.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.models.loading import put_adapter
from lethe.records import StudyRecord, TrialRecord
from lethe.storage.replica import temporary_copy
from lethe.tracking.connection import quiet_transformers
from lethe.tracking.mlflow_tracker import TrackedTrial, clip_text

if TYPE_CHECKING:
    from mlflow import MlflowClient


WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "adapter_*", "README.md", "generation_config.json")
REQUIREMENTS = ("mlflow", "torch", "transformers", "safetensors")


def is_adapter(folder: Path) -> bool:
    """Whether a model folder is a peft adapter rather than a whole model."""
    return (folder / "adapter_config.json").is_file()


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Write base + adapter as one plain model with the adapter's tokenizer, in fp32: what the trial evaluated."""
    with quiet_transformers():
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            str(base), dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        merged = put_adapter(model, adapter).merge_and_unload()
        merged.save_pretrained(str(target))
    has_tokenizer = (adapter / "tokenizer_config.json").is_file()
    _copy_small(adapter if has_tokenizer else base, target)


def write_wrapping(weights: Path, target: Path) -> None:
    """Write what stands around `model/`: MLmodel, the requirements, and the tokenizer where MLflow looks for it."""
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    _copy_small(weights, target / "components" / "tokenizer")
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


def _copy_small(source: Path, target: Path) -> None:
    """The tokenizer and the configuration that names its class."""
    target.mkdir(parents=True, exist_ok=True)
    skipped = {path.name for pattern in WEIGHTS for path in source.glob(pattern)}
    for path in source.iterdir():
        if path.is_file() and path.name not in skipped and not (target / path.name).exists():
            shutil.copy(path, target)


def _write_requirements(target: Path) -> None:
    """Public versions only: `2.13.0+cpu` is on no index."""
    pins = [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS]
    (target / "requirements.txt").write_text("\n".join(pins) + "\n")
    (target / "python_env.yaml").write_text(
        f"python: {platform.python_version()}\n"
        "build_dependencies: [pip, setuptools, wheel]\n"
        "dependencies: [-r requirements.txt]\n"
    )


def model_name(space: str) -> str:
    """The registered model of a study's front members."""
    return f"lethe-{space}"


class Registry:
    """Puts the front of one study into the registry. `entries` are its trials by number.

    An equal run hash is an equal model, hence the same version.
    """

    def __init__(self, client: MlflowClient, record: StudyRecord, entries: Mapping[int, TrackedTrial]) -> None:
        self.client, self.record, self.entries = client, record, entries
        self.name = model_name(record.space)

    def jobs(self) -> Iterator[Callable[[], None]]:
        """One call per front member, then one per alias: each can fail without the others."""
        for trial in self.record.front:
            yield partial(self.register, trial)
        runs = {trial.number: trial.run for trial in self.record.front}
        for alias, number in self.record.aliases.items():
            if number in runs:
                yield partial(self.point, alias, runs[number])

    @cached_property
    def versions(self) -> dict[str, str]:
        """Version by run hash."""
        from mlflow.exceptions import MlflowException

        try:
            about = f"Unlearned models of the study {self.record.space}."
            self.client.create_registered_model(self.name, description=about)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return {version.tags["lethe.run"]: version.version for version in found if "lethe.run" in version.tags}

    def register(self, trial: TrialRecord) -> None:
        """Upload the trial's model as plain transformers files, and make it a version."""
        run_id = self.entries[trial.number].run_id
        if trial.run in self.versions:
            self._tell(trial)
            return
        with temporary_copy(Path(trial.folder) / "model") as folder:
            if run_id is None or not trial.folder or folder is None:
                raise FileNotFoundError(f"trial {trial.number} has no saved model ({trial.folder}/model)")
            self._upload(folder, run_id)
        version = self.client.create_model_version(
            self.name,
            source=f"{self.client.get_run(run_id).info.artifact_uri}/model",
            run_id=run_id,
            tags={key: clip_text(value) for key, value in self._tags(trial).items()},
            description=f"Trial {trial.number} of study {self.record.id}.",
        )
        self.versions[trial.run] = version.version

    def _tell(self, trial: TrialRecord) -> None:
        """A version of an earlier session gets the tags that it has not."""
        version = self.versions[trial.run]
        known = self.client.get_model_version(self.name, version).tags
        for key, value in _afterwards(trial).items():
            if known.get(key) != clip_text(value):
                self.client.set_model_version_tag(self.name, version, key, clip_text(value))

    def point(self, alias: str, run: str) -> None:
        """Move an alias to a run's version; quietly nothing where registering it failed, which was said."""
        if run in self.versions:
            self.client.set_registered_model_alias(self.name, alias, self.versions[run])

    def _upload(self, folder: Path, run_id: str) -> None:
        """MLflow's wrapping around `model/`, which any transformers loads; an adapter goes beside its merged model."""
        with tempfile.TemporaryDirectory(prefix=".register-", dir=folder.parent) as temporary:
            wrapping, merged = Path(temporary, "wrapping"), Path(temporary, "merged")
            weights = folder
            if is_adapter(folder):
                merge(Path(self.record.start_folder), folder, merged)
                self.client.log_artifacts(run_id, str(folder), "model/adapter")
                weights = merged
            write_wrapping(weights, wrapping)
            self.client.log_artifacts(run_id, str(wrapping), "model")
            self.client.log_artifacts(run_id, str(weights), "model/model")

    def _tags(self, trial: TrialRecord) -> dict[str, object]:
        digests = {"lethe.data": "data", "lethe.base": "model", "lethe.oracle": "oracle"}
        found = {tag: self.record.digests.get(key) for tag, key in digests.items()}
        return {
            **{goal.metric: trial.metrics[goal.metric] for goal in self.record.objectives},
            "lethe.run": trial.run,
            "lethe.trial": trial.number,
            "lethe.study": self.record.id,
            **{tag: digest for tag, digest in found.items() if digest},
            **_afterwards(trial),
        }


def _afterwards(trial: TrialRecord) -> dict[str, object]:
    """What fresh seeds and audits say."""
    confirmed = {"confirmed": str(trial.confirmation.confirmed).lower()} if trial.confirmation else {}
    return {**confirmed, **trial.afterwards}
