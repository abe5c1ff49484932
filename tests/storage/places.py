"""Where objects lie in these tests: a folder, and the S3 store of `make services` where that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import free_port

KINDS = ("folder", "s3")


@contextmanager
def place(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty address; for S3 this process's environment has the credentials."""
    if kind == "folder":
        yield (folder / "objects").as_uri()
        return
    for name in ("nanio", "boto3"):
        pytest.importorskip(name, reason="the extra services is not installed")
    from lethe.ops.dev_services.mlflow_and_objects import credentials, object_store
    from lethe.ops.dev_services.passwords import passwords

    port, words = free_port(), passwords(folder)
    with object_store(folder, port, words):
        for name, value in credentials(port, words).items():
            monkeypatch.setenv(name, value)
        yield "s3://lethe/root"
