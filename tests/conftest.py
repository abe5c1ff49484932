"""Session-wide fixtures: a home of our own, one Ray cluster of exactly two CPUs, one prepared benchmark."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import psutil
import pytest

# Before anything imports torch, Ray or MLflow: processes of the tests inherit all of it.
_HOME = tempfile.TemporaryDirectory(prefix="lethe-tests-")
os.environ.update(LETHE_HOME=_HOME.name, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", DS_ACCELERATOR="cpu")
# Ray reads the token once per process, so it is there before Ray is.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
# Commands that run in this process would choose loopback for it, and clusters of several nodes come later.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
for _name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
    os.environ.pop(_name, None)

from lethe.pool.cluster import connect, prepare_environment  # noqa: E402  # after the environment above
from tests.browser import browser  # noqa: E402, F401  # a fixture for all tests
from tests.side_by_side import is_slow, order, pytest_xdist_make_scheduler  # noqa: E402, F401  # a hook

prepare_environment()

if TYPE_CHECKING:
    from lethe.study.preparation import Prepared

ROOT = Path(__file__).resolve().parents[1]
# Ports of workers as the system gives them. By default all clusters of a machine count from 10002, and two that start
# workers at the same time take the same one.
ANY_PORT = ("--min-worker-port=0", "--max-worker-port=0")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test ARGS=--long` before a release."""
    parser.addoption("--long", action="store_true", help="also what other tests nearly show: minutes more")
    parser.addoption("--fast", action="store_true", help="without tests that start a cluster or train for long")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: only with --long")
    config.addinivalue_line("markers", "slow: starts a cluster or a server, or trains for long; not with --fast")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items if not config.getoption("--long") else ():
        if "long" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="with --long"))
    if config.getoption("--fast"):
        slow = [item for item in items if is_slow(item)]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]
    order(items)


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether `--long` was given."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of development data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("LETHE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the development data are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden data, which the repository contains."""
    return ROOT / "tests" / "golden"


@dataclass(frozen=True)
class Head:
    """A private Ray cluster of exactly so many CPUs, with token authentication, that was started from the checkout."""

    address: str
    dashboard: str
    environment: dict[str, str]
    pid: int

    def run(self, *command: str, cwd: Path = ROOT, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """A command of a user of this cluster; its output is kept."""
        return subprocess.run(
            command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """The cluster that tests share."""
    with private_head() as started:
        yield started


@contextmanager
def private_head(cpus: int = 2) -> Iterator[Head]:
    """`ray start --head` on ports and in a folder of its own; only its own processes are ended."""
    port, dashboard, client, agent = (free_port() for _ in range(4))
    # A short path: Ray's sockets lie in it, and their names are limited to about 100 characters.
    folder = tempfile.mkdtemp(prefix="lr-", dir="/tmp")
    activated = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": activated, "TMPDIR": folder}  # what is left in it goes with it
    ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
    command = [
        *ray,
        "start",
        "--head",
        "--block",
        f"--num-cpus={cpus}",
        f"--port={port}",
        f"--temp-dir={folder}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}",
        f"--dashboard-agent-listen-port={agent}",
        *ANY_PORT,
        "--disable-usage-stats",
    ]
    with Path(folder, "head.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _await_port(dashboard, process, Path(folder, "head.log"))
        address = f"127.0.0.1:{port}"
        yield Head(address, f"http://127.0.0.1:{dashboard}", {**environment, "RAY_ADDRESS": address}, process.pid)
    finally:
        kill_all(process)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def joined(head: Head, log: Path, *apart: str, before: str = "", **environment: str) -> Iterator[None]:
    """A second node of one CPU, by a shell: `before` is what that does first, `apart` the command it is under."""
    start = f"{sys.executable} -c 'from ray.scripts.scripts import main; main()' start --block --address={head.address}"
    options = " ".join(("--num-cpus=1", "--dashboard-agent-listen-port=0", *ANY_PORT))
    command = [*apart, "sh", "-c", f"{before}exec {start} {options}"]
    with log.open("w") as file:
        node = subprocess.Popen(
            command, cwd=ROOT, env={**head.environment, **environment}, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        _await_node(node, head, log)
        yield
    finally:
        kill_all(node)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """A process and what it started. Asked to end, a cluster takes its time over workers that nobody needs any more."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.wait()


def _await_node(node: subprocess.Popen[bytes], head: Head, log: Path) -> None:
    """Until the cluster has two nodes."""
    asked = Request(
        f"{head.dashboard}/api/v0/nodes", headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    )
    deadline, states = time.monotonic() + 90, ""
    while states.count('"ALIVE"') < 2:
        assert node.poll() is None, log.read_text()[-2000:] + states
        assert time.monotonic() < deadline, log.read_text()[-2000:] + states
        time.sleep(0.5)
        with urlopen(asked, timeout=30) as answer:
            states = answer.read().decode()


def free_port() -> int:
    """Of loopback; nobody listens there."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        with socket.socket() as client:
            client.settimeout(1)
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"the cluster did not come up: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def cluster(head: Head) -> Iterator[None]:
    """This process as a driver on the private cluster."""
    import ray

    connect(head.address)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def embedded() -> Prepared:
    """The default embedded benchmark with both of its models, trained once per session."""
    from lethe.config.benchmark import TofuBenchmark
    from lethe.config.model import EmbeddedModel
    from lethe.study.preparation import prepare

    return prepare(TofuBenchmark(), EmbeddedModel())
