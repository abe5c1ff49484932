"""Registered versions in MLflow, as folders: `models:/name@alias`, `models:/name/3`.

Which runs MLflow has registered: their models are safe there, in files of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lethe.config.base import canonical_json, short_digest
from lethe.errors import UserError, unknown_name
from lethe.storage.paths import atomic_folder, home
from lethe.tracking.connection import check_login, check_uri, quiet_mlflow, resolve_uri, sqlite_path, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


FORM = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def fetch_registered_model(address: str, key: str) -> tuple[Path, Mapping[str, str]]:
    """The version's files, and its tags. Raises BadInput that says what there is."""
    match = FORM.fullmatch(address)
    if match is None:
        raise UserError(f"{key}: {address!r} is not of the form models:/name@alias or models:/name/3")
    uri = resolve_uri()
    shown = without_password(uri)
    if uri.startswith("sqlite") and not sqlite_path(uri).is_file():
        raise UserError(f"{key}: {address}: there is no MLflow store at {shown}: set MLFLOW_TRACKING_URI")
    check_uri(uri)
    quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        version = _version(MlflowClient(tracking_uri=uri), **match.groupdict())
        return _files(version, uri), version.tags
    except MlflowException as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{key}: {address}: the MLflow store at {shown} says: {first}") from None


def _version(client: MlflowClient, name: str, alias: str | None, version: str | None) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        known = dict(client.get_registered_model(name).aliases)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise unknown_name(
            "registered model", name, [model.name for model in client.search_registered_models()]
        ) from None
    if alias is not None:
        if alias not in known:
            raise unknown_name(f"alias of {name}", alias, known)
        version = str(known[alias])
    versions = {str(found.version): found for found in client.search_model_versions(f"name = '{name}'")}
    if version not in versions:
        raise unknown_name(f"version of {name}", str(version), versions)
    return versions[version]


def _files(version: ModelVersion, uri: str) -> Path:
    """Where they are, or a copy of what a server holds, made once."""
    source = version.source
    if (parts := urlsplit(source)).scheme in ("", "file"):
        folder = Path(unquote(parts.path))
        if not folder.is_dir():
            raise UserError(f"version {version.version} of {version.name} has lost its files: {folder} is no folder")
        return folder
    from mlflow.artifacts import download_artifacts

    which = [without_password(uri), version.name, version.version, version.creation_timestamp]
    copy = home() / "cache" / "registered" / short_digest(canonical_json(which))
    if not copy.is_dir():
        with atomic_folder(copy) as target:
            found = Path(download_artifacts(artifact_uri=source, tracking_uri=uri, dst_path=str(target / "files")))
            for path in found.iterdir():
                path.rename(target / path.name)
    return copy


def registered_runs(uri: str | None) -> set[str]:
    """Hashes of runs that a model version names. BadInput where the store cannot be asked."""
    address = resolve_uri(uri)
    check_uri(address)
    check_login(address)
    quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client, found, token = MlflowClient(tracking_uri=address), set(), None
    try:
        while token != "":
            page = client.search_model_versions(page_token=token)
            found |= {version.tags["lethe.run"] for version in page if "lethe.run" in version.tags}
            token = page.token or ""
    except MlflowException as error:
        raise UserError(f"MLflow does not say what is registered: {str(error).splitlines()[0]}") from None
    return found
