"""What can be wrong with a cluster or a service before a study starts: one line within seconds, exit code 2."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from lethe.cli.sweep import main
from tests.conftest import Head
from tests.faults.world import write_study

LIMIT_S = 10.0  # of processor time, nearly all of it imports


def refusal(head: Head, study: Path, *arguments: str, **environment: str) -> str:
    """The one line of a study that this cluster cannot run."""
    before, began = psutil.Process().cpu_times(), time.monotonic()
    asked = replace(head, environment={**head.environment, **environment})
    done = asked.run(sys.executable, "-m", "platform.sweep", str(study), "--reports", str(study.parent), *arguments)
    after = psutil.Process().cpu_times()
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(lines) == 1, done.stdout + done.stderr
    assert lines[0].startswith("lethe: ")
    assert after.children_user - before.children_user < LIMIT_S
    assert time.monotonic() - began < 180
    return lines[0]


def refuses(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """As `refusal`, in this process."""
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), 2)


def test_a_wrong_token(head: Head, study: Path) -> None:
    line = refusal(head, study, RAY_AUTH_TOKEN="0" * 64)
    assert f"the Ray cluster at {head.address} refuses this token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in line


def test_no_token_where_the_cluster_wants_one(head: Head, study: Path) -> None:
    line = refusal(head, study, RAY_AUTH_MODE="disabled")
    assert f"the Ray cluster at {head.address} refuses a driver without a token" in line


@pytest.mark.parametrize("place", ["", "no/such/file"])
def test_a_token_that_is_not_there(place: str, head: Head, study: Path, tmp_path: Path) -> None:
    """Neither in the environment nor in a file of the home folder, or not in the file that is named."""
    without = {name: word for name, word in head.environment.items() if name != "RAY_AUTH_TOKEN"}
    named = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / place)} if place else {}
    line = refusal(replace(head, environment=without), study, HOME=str(tmp_path), **named)
    assert "token" in line
    assert ": set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in line
    assert not place or str(tmp_path / place) in line


def test_a_cluster_smaller_than_a_run(head: Head, study: Path) -> None:
    line = refusal(head, study, "--set", "run.engine.workers=3")
    assert "needs 3 x (1 CPU), each on one node, the cluster has 1 x (2 CPU): lower engine.workers" in line


@contextmanager
def control_store(**runs: str) -> Iterator[str]:
    """What a head of another version answers when it is asked which it is."""
    import grpc
    from ray.core.generated import gcs_service_pb2 as messages

    answer = messages.InternalKVGetReply(value=json.dumps(runs).encode())
    method = grpc.unary_unary_rpc_method_handler(
        lambda request, context: answer,
        request_deserializer=messages.InternalKVGetRequest.FromString,
        response_serializer=messages.InternalKVGetReply.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("ray.rpc.InternalKVGcsService", {"InternalKVGet": method})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ray_version": "2.9.0"}, "ray 2.9.0 (here "),
        ({"python_version": "3.10.1"}, f"python 3.10.1 (here {sys.version_info[0]}.{sys.version_info[1]}"),
    ],
)
def test_a_cluster_of_other_versions(
    changed: dict[str, str], said: str, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import platform

    import ray

    mine = {"ray_version": ray.__version__, "python_version": platform.python_version()}
    with control_store(**mine | changed) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        line = refuses(capsys, str(study))
    assert f"the Ray cluster at {address} runs {said}" in line
    assert "the same versions" in line


class _Refusing(BaseHTTPRequestHandler):
    """Lets nobody in."""

    def do_GET(self) -> None:
        self.send_response(self.server.answer)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [(401, "refuses these credentials (401)"), (403, "(403)"), (404, "answers 404 where MLflow would not")],
)
def test_an_mlflow_server_that_refuses_us(
    answer: int,
    said: str,
    web: HTTPServer,
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    web.answer = answer  # type: ignore[attr-defined]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{web.server_port}")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-word")
    line = refuses(capsys, str(study))
    assert said in line
    assert "wrong-word" not in line


def test_an_address_that_is_no_head_node(
    web: HTTPServer, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{web.server_port}")
    assert "is no Ray head node" in refuses(capsys, str(study))
    monkeypatch.setenv("RAY_ADDRESS", f"http://127.0.0.1:{web.server_port}")
    assert "is a dashboard" in refuses(capsys, str(study))
    assert os.environ["RAY_AUTH_MODE"] == "token"
