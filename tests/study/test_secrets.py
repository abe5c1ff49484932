"""Secrets planted wherever a person may keep them are found nowhere when a study is done.

The study is a Ray job on a cluster with a token, with an MLflow server that wants a login.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest

from lethe.tracking.connection import quiet_mlflow
from tests.conftest import ROOT, Head, private_head
from tests.faults.world import write_study

pytestmark = pytest.mark.slow

USER = "ada"
PAGES = (
    "api/jobs/",
    *(f"api/v0/{kind}?detail=1" for kind in ("actors", "workers", "runtime_envs", "nodes", "tasks", "jobs")),
)


@dataclass
class Planted:
    """Each secret by the place where it was put."""

    token: str = field(default_factory=lambda: os.environ["RAY_AUTH_TOKEN"])
    password: str = field(default_factory=lambda: secrets.token_hex(16))
    stored: str = field(default_factory=lambda: secrets.token_hex(16))
    storage: str = field(default_factory=lambda: secrets.token_hex(16))

    def found(self, text: bytes) -> list[str]:
        """Names of those that are in it, as they are or as a login's header has them."""
        seen = [name for name, word in vars(self).items() if word.encode() in text]
        return seen + ["login"] * (base64.b64encode(f"{USER}:{self.password}".encode()) in text)


@dataclass(frozen=True)
class Places:
    """Folders of one person's study; `person` is the home folder, where the secrets may be."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        return folder


def guarded(app: Callable[..., Iterable[bytes]], word: str) -> Callable[..., Iterable[bytes]]:
    """A web application behind a login."""
    wanted = "Basic " + base64.b64encode(f"{USER}:{word}".encode()).decode()

    def guard(environ: dict[str, str], respond: Callable[..., None]) -> Iterable[bytes]:
        if environ.get("HTTP_AUTHORIZATION") == wanted:
            return app(environ, respond)
        respond("401 Unauthorized", [("WWW-Authenticate", "Basic")])
        return [b""]

    return guard


@pytest.fixture
def mlflow(places: Places, planted: Planted, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow's own application in a thread, behind a login."""
    quiet_mlflow()
    from mlflow import server
    from mlflow.server import handlers
    from mlflow.tracking._model_registry import utils as registries
    from mlflow.tracking._tracking_service import utils as trackings
    from werkzeug.serving import make_server

    monkeypatch.setenv(server.BACKEND_STORE_URI_ENV_VAR, f"sqlite:///{places.mlflow}/mlflow.db")
    monkeypatch.setenv(server.REGISTRY_STORE_URI_ENV_VAR, f"sqlite:///{places.mlflow}/mlflow.db")
    monkeypatch.setenv(server.ARTIFACT_ROOT_ENV_VAR, "mlflow-artifacts:/")
    monkeypatch.setenv(server.ARTIFACTS_DESTINATION_ENV_VAR, (places.mlflow / "artifacts").as_uri())
    monkeypatch.setenv(server.SERVE_ARTIFACTS_ENV_VAR, "true")
    # The application sets its addresses for this whole process, and in variables.
    for name, module in (("registry", registries), ("tracking", trackings)):
        monkeypatch.setenv(f"MLFLOW_{name.upper()}_URI", "")
        monkeypatch.setattr(module, f"_{name}_uri", None)
    for store in ("_tracking_store", "_model_registry_store", "_artifact_repo"):
        monkeypatch.setattr(handlers, store, None)
    handlers._get_tracking_store().search_experiments()  # makes the tables, which takes a while
    running = make_server("127.0.0.1", 0, guarded(server.app, planted.password), threaded=True)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


@pytest.fixture
def planted() -> Planted:
    return Planted()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.fixture
def guarded_head(places: Places, planted: Planted, mlflow: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    """A cluster whose head has the login in its environment, as cluster/kubernetes/cluster.yaml gives it."""
    (places.person / ".mlflow").mkdir()
    (places.person / ".mlflow/credentials").write_text(
        f"[mlflow]\nmlflow_tracking_username = somebody\nmlflow_tracking_password = {planted.stored}\n"
    )
    with monkeypatch.context() as patch:
        patch.setenv("HOME", str(places.person))
        patch.setenv("LETHE_HOME", str(places.home))
        patch.setenv("LETHE_WORKER_LOGS", "1")
        patch.setenv("MLFLOW_TRACKING_URI", mlflow)
        patch.setenv("MLFLOW_TRACKING_USERNAME", USER)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", planted.password)
        with private_head() as started:
            yield started


def submit(head: Head, *command: str) -> Iterator[str]:
    """A job's output; every line of the processes' commands, as `ps` shows them, in between."""
    ray = [
        sys.executable,
        "-c",
        "from ray.scripts.scripts import main; main()",
        "job",
        "submit",
        "--address",
        head.dashboard,
    ]
    process = subprocess.Popen(
        [*ray, "--working-dir", ".", "--", *command],
        cwd=ROOT,
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
    reader.start()
    while reader.is_alive():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            for child in psutil.Process(head.pid).children(recursive=True):
                yield " ".join(child.cmdline())
        time.sleep(0.5)
    assert process.wait() == 0, "".join(lines)
    yield "".join(lines)


def files(*folders: Path) -> Iterator[tuple[str, bytes]]:
    for folder in folders:
        for path in (p for p in folder.rglob("*") if p.is_file()):
            yield str(path), path.read_bytes()


def pages(head: Head, token: str) -> Iterator[tuple[str, bytes]]:
    """What the cluster tells those who have its token."""

    def page(name: str) -> bytes:
        with urlopen(
            Request(f"{head.dashboard}/{name}", headers={"Authorization": f"Bearer {token}"}), timeout=60
        ) as answer:
            return answer.read()

    for name in PAGES:
        yield name, page(name)
    for job in json.loads(page("api/jobs/")):
        if job["submission_id"]:
            yield "the job's log", page(f"api/jobs/{job['submission_id']}/logs")


def test_no_secret_is_found_anywhere_afterwards(guarded_head: Head, places: Places, planted: Planted) -> None:
    kept = f"sqlite:///file:{places.database}/optuna.db?uri=true&password={planted.storage}"
    search = {"sampler": "random", "trials": 2, "storage": kept}
    study = write_study(places.person, 2, search=search, resources={"checkpoint": {"every_steps": 1}, "groups": 1})
    said = list(submit(guarded_head, "python", "-m", "platform.sweep", str(study), "--reports", str(places.reports)))
    assert not [line for line in said if planted.found(line.encode())]
    (temporary,) = (
        a.partition("=")[2] for a in psutil.Process(guarded_head.pid).cmdline() if a.startswith("--temp-dir=")
    )
    told = [
        *pages(guarded_head, planted.token),
        *files(places.home, places.reports, places.mlflow, places.database, Path(temporary)),
    ]
    names = {name.rpartition("/")[2] for name, _ in told}
    assert {
        "study.json",
        "report.html",
        "mlflow.db",
        "optuna.db",
        "raylet.out",
        "the job's log",
        "result.json",
    } <= names
    assert b"lethe.study" in next(text for name, text in told if name.endswith("/mlflow.db")), "the study is in MLflow"
    leaks = {name: planted.found(text) for name, text in told if planted.found(text)}
    assert not leaks
