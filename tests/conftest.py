"""Session-wide fixtures: a home of our own, one Ray cluster of exactly two CPUs, one prepared benchmark."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Before anything imports torch, Ray or MLflow: processes of the tests inherit all of it.
_HOME = tempfile.TemporaryDirectory(prefix="lethe-tests-")
os.environ.update(LETHE_HOME=_HOME.name, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", DS_ACCELERATOR="cpu")
for _name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
    os.environ.pop(_name, None)

from lethe.sweep.cluster import connect, prepare_environment  # noqa: E402

prepare_environment()

if TYPE_CHECKING:
    from lethe.models.prepare import Prepared

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of development data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("LETHE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the development data are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A private Ray cluster; it ends with the session and touches no other."""
    import ray

    connect(None, cpus=2)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def embedded() -> Prepared:
    """The default embedded benchmark with both of its models, trained once per session."""
    from lethe.config.benchmark import TofuBenchmark
    from lethe.config.model import EmbeddedModel
    from lethe.models.prepare import prepare

    return prepare(TofuBenchmark(), EmbeddedModel())
