"""Giving a trial's model an alias by hand; a model that is not registered yet becomes a version first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lethe.config.addresses import without_password
from lethe.errors import UserError, first_line
from lethe.records import StudyRecord, TrialRecord
from lethe.tracking.connection import check_login, check_uri, quiet_mlflow, resolve_uri
from lethe.tracking.model_registry import Registry
from lethe.tracking.tracked_trials import TrackedTrial

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from lethe.config.study import Tracking


def promote(record: StudyRecord, trial: TrialRecord, aliases: Sequence[str], tracking: Tracking) -> str:
    """Let `aliases` name the trial's model in the registry of the study's MLflow store; return the version's address.

    Raises UserError where the store cannot be asked, does not have the study, or the trial has no model any more.
    """
    if not all(goal.metric in trial.metrics for goal in record.objectives):
        raise UserError(f"trial {trial.number} of {record.id} has no scores: it ended {trial.verdict}")
    uri = resolve_uri(tracking.uri)
    printable = without_password(uri)
    check_uri(uri)
    check_login(uri)
    quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri=uri)
        tracked = TrackedTrial(trial.run, trial.number, run_id=_find_run(client, tracking.experiment, record, trial))
        registry = Registry(client, record, {trial.number: tracked})
        if trial.run not in registry.versions and tracked.run_id is None:
            remedy = f"lethe sweep {record.id} --resume sends it there"
            raise UserError(f"trial {trial.number} of {record.id} is not in the MLflow store at {printable}: {remedy}")
        registry.register(trial)
        for alias in aliases:
            client.set_registered_model_alias(registry.name, alias, registry.versions[trial.run])
    except FileNotFoundError:
        reason = f"no model is left of trial {trial.number}: a study keeps the weights of its front alone"
        raise UserError(f"{record.id}: {reason}; lethe show {record.id} has it") from None
    except MlflowException as error:
        raise UserError(f"the MLflow store at {printable} says: {first_line(error)}") from None
    return registry.address(trial)


def _find_run(client: MlflowClient, experiment: str, record: StudyRecord, trial: TrialRecord) -> str | None:
    """Return the id of the trial's run in MLflow, None where there is none."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    tags = {"lethe.study": record.id, "lethe.run": trial.run}
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    runs = client.search_runs([found.experiment_id], query, max_results=1)
    return str(runs[0].info.run_id) if runs else None
