"""A real SQLite store per test, and the client that looks into it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lethe.tracking.connection import DEFAULTS, quiet_mlflow

for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
    os.environ.pop(name, None)
quiet_mlflow()
assert DEFAULTS.keys() <= os.environ.keys()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables, which take MLflow a second or more to make."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path) -> str:
    (tmp_path / "store").mkdir()
    shutil.copy(empty_database, tmp_path / "store/mlflow.db")
    return f"sqlite:///{tmp_path}/store/mlflow.db"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """What a study's report folder looks like to a tracker."""
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "report.html").write_text("<p>report</p>")
    return folder


@pytest.fixture
def look() -> Callable[[str], Any]:
    from mlflow import MlflowClient

    return lambda uri: MlflowClient(tracking_uri=uri)
