"""Models in MLflow's registry, read: a version's files by its address, and the runs that have a registered version.

An address is `models:/name@alias` or `models:/name/3`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lethe.config.addresses import without_password
from lethe.config.base import canonical_json, short_digest
from lethe.errors import UserError, first_line, unknown_name
from lethe.storage.paths import atomic_folder, home
from lethe.tracking.connection import check_login, check_uri, quiet_mlflow, resolve_uri, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ADDRESS = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def fetch_registered_model(address: str, key: str, store: str | None = None) -> tuple[Path, Mapping[str, str]]:
    """Return a local folder with the files of the version at `address` in the MLflow `store` (default: see
    `resolve_uri`), and its tags.

    Raises UserError, naming the setting `key` and the models, aliases or versions that exist, where there is no such
    version, its files are lost or the store cannot be asked.
    """
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(f"{key}: {address!r} is not of the form models:/name@alias or models:/name/3")
    uri = resolve_uri(store)
    printable = without_password(uri)
    if uri.startswith("sqlite") and not sqlite_path(uri).is_file():
        remedy = "set tracking.uri or MLFLOW_TRACKING_URI"
        raise UserError(f"{key}: {address}: there is no MLflow store at {printable}: {remedy}")
    check_uri(uri)
    quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        version = _version(MlflowClient(tracking_uri=uri), **match.groupdict())
        return _files(version, uri), version.tags
    except MlflowException as error:
        raise UserError(f"{key}: {address}: the MLflow store at {printable} says: {first_line(error)}") from None


def _version(client: MlflowClient, name: str, alias: str | None, version: str | None) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        aliases = dict(client.get_registered_model(name).aliases)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        names = [model.name for model in client.search_registered_models()]
        raise unknown_name("registered model", name, names) from None
    if alias is not None:
        if alias not in aliases:
            raise unknown_name(f"alias of {name}", alias, aliases)
        version = str(aliases[alias])
    versions = {str(known.version): known for known in client.search_model_versions(f"name = '{name}'")}
    if version not in versions:
        raise unknown_name(f"version of {name}", str(version), versions)
    return versions[version]


def _files(version: ModelVersion, uri: str) -> Path:
    """Return the folder of a version's files; files that a server holds are downloaded once."""
    source = version.source
    if (parts := urlsplit(source)).scheme in ("", "file"):
        folder = Path(unquote(parts.path))
        if not folder.is_dir():
            raise UserError(f"version {version.version} of {version.name} has lost its files: {folder} is no folder")
        return folder
    from mlflow.artifacts import download_artifacts

    identity = [without_password(uri), version.name, version.version, version.creation_timestamp]
    copy = home() / "cache" / "registered" / short_digest(canonical_json(identity))
    if not copy.is_dir():
        with atomic_folder(copy) as target:
            files = Path(download_artifacts(artifact_uri=source, tracking_uri=uri, dst_path=str(target / "files")))
            for path in files.iterdir():
                path.rename(target / path.name)
    return copy


def registered_runs(uri: str | None) -> set[str]:
    """Return the hashes of the runs that have a registered version in the store at `uri` (default: see `resolve_uri`):
    the store has their models in files of its own. Raises UserError where it cannot be asked."""
    address = resolve_uri(uri)
    check_uri(address)
    check_login(address)
    quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client, runs, token = MlflowClient(tracking_uri=address), set(), None
    try:
        while token != "":
            page = client.search_model_versions(page_token=token)
            runs |= {version.tags["lethe.run"] for version in page if "lethe.run" in version.tags}
            token = page.token or ""
    except MlflowException as error:
        raise UserError(f"MLflow does not say what is registered: {first_line(error)}") from None
    return runs
