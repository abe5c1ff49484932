"""MLflow's page on this machine: its server on loopback, and the address at which a study's trials are seen."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil

from lethe.config.addresses import without_password
from lethe.errors import StudyBrokenError, UserError, unknown_name
from lethe.tracking.connection import DEFAULTS, authorization_header
from lethe.tracking.mlflow_pages import VIEW, runs_page

HOST = "127.0.0.1"
START_LIMIT_S = 120.0
STOP_LIMIT_S = 5.0
# One process answers one person, and the jobs are those of language models' traces, which need eight more processes.
SETTINGS = {**DEFAULTS, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_LOGGING_LEVEL": "WARNING"}


@contextmanager
def mlflow_server(store: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run MLflow's server on `store` for the duration of the block, in which it answers at `port`. Raises UserError
    where the port is taken, StudyBrokenError where the server does not come up."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}: choose another") from None
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--host", HOST]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"],
        env={**SETTINGS, **os.environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_answer(process, port)
        yield process
    finally:
        workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT_S)
        for survivor in (process, *workers):
            with suppress(psutil.NoSuchProcess):
                survivor.kill()


def _await_answer(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StudyBrokenError(f"MLflow's server ended by itself with exit code {process.returncode}")
        with suppress(OSError), urlopen(f"http://{HOST}:{port}/health", timeout=1):
            return
        time.sleep(0.1)
    raise StudyBrokenError(f"MLflow's server gives no answer within {START_LIMIT_S:g} s")


def trials_page(server: str, study: str | None) -> str:
    """Return the address of the trials of `study`, its id or the beginning of it; None: of the latest one that is
    tracked. Of the server itself where no study is. Raises UserError for a study that the server does not know."""
    experiments = _ask(server, "experiments/search", {"max_results": 1000}).get("experiments", [])
    ids = [experiment["experiment_id"] for experiment in experiments]
    wanted = {"experiment_ids": ids, "filter": "tags.`lethe.space` != ''", "order_by": ["attributes.start_time DESC"]}
    found = [_study_of(run) for run in _ask(server, "runs/search", {**wanted, "max_results": 5000}).get("runs", [])]
    known = {name: experiment for name, experiment in reversed(found) if name}  # the latest study comes last
    chosen = next((name for name in reversed(known) if name.startswith(study or "")), None)
    if chosen is None:
        if study:
            raise unknown_name("study in MLflow", study, known)
        return server
    (experiment,) = (one for one in experiments if one["experiment_id"] == known[chosen])
    views = {tag["key"] for tag in experiment.get("tags", [])}
    return f"{server}/{runs_page(known[chosen], chosen if VIEW + chosen in views else None)}"


def _study_of(run: dict[str, Any]) -> tuple[str, str]:
    tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}
    return tags.get("lethe.study", ""), run["info"]["experiment_id"]


def _ask(server: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the server's answer to one request, with our credentials. Raises UserError where there is none."""
    authorization = authorization_header(server)
    headers = {"Content-Type": "application/json"} | ({"Authorization": authorization} if authorization else {})
    address = f"{without_password(server).rstrip('/')}/api/2.0/mlflow/{method}"
    try:
        request = Request(address, data=json.dumps(body).encode(), headers=headers)  # noqa: S310  # checked before
        with urlopen(request, timeout=30) as answer:  # noqa: S310  # as above
            content: dict[str, Any] = json.load(answer)
            return content
    except (URLError, OSError, ValueError) as error:
        raise UserError(f"the MLflow server at {without_password(server)} gives no answer: {error}") from None
