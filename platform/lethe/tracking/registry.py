"""The models on a study's front as versions of one registered model: what another team loads by its alias."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.copies import borrowed
from lethe.records import StudyRecord, TrialRecord
from lethe.tracking.entries import Entry, text
from lethe.tracking.model_folder import is_adapter, merge, write_wrapping

if TYPE_CHECKING:
    from mlflow import MlflowClient


def model_name(space: str) -> str:
    """The registered model of a study's front members."""
    return f"lethe-{space}"


class Registry:
    """Puts the front of one study into the registry. `entries` are its trials by number.

    An equal run hash is an equal model, hence the same version.
    """

    def __init__(self, client: MlflowClient, record: StudyRecord, entries: Mapping[int, Entry]) -> None:
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
        with borrowed(Path(trial.folder) / "model") as folder:
            if run_id is None or not trial.folder or folder is None:
                raise FileNotFoundError(f"trial {trial.number} has no saved model ({trial.folder}/model)")
            self._upload(folder, run_id)
        version = self.client.create_model_version(
            self.name,
            source=f"{self.client.get_run(run_id).info.artifact_uri}/model",
            run_id=run_id,
            tags={key: text(value) for key, value in self._tags(trial).items()},
            description=f"Trial {trial.number} of study {self.record.id}.",
        )
        self.versions[trial.run] = version.version

    def _tell(self, trial: TrialRecord) -> None:
        """A version of an earlier session gets the tags that it has not."""
        version = self.versions[trial.run]
        known = self.client.get_model_version(self.name, version).tags
        for key, value in _afterwards(trial).items():
            if known.get(key) != text(value):
                self.client.set_model_version_tag(self.name, version, key, text(value))

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
