"""A study in a cluster that grows and shrinks, with a node killed in mid-trial: the trace of its worker nodes.

    python -m benchmarks.autoscaling [--trials 6] [--plot FILE] [--trace FILE]     # make demo-autoscaling
    python -m benchmarks.autoscaling --null                                        # runs that only wait

The nodes are real raylets on this machine (cluster/local.yaml), in a cluster with ports and a token of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform  # noqa: F401  # from the repository root this makes `lethe` importable
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from lethe.pool.cluster import LOOPBACK

ROOT = Path(__file__).resolve().parents[1]
HEAD_ID = "f" * 51 + "00000"  # the id that the fake provider gives its head
LIMIT_S = 120.0
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--null", action="store_true", help="runs that only wait, instead of a study")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--trace", type=Path, help="where the trace goes, as JSON")
    args = parser.parse_args()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ.update(token, **LOOPBACK, OMP_NUM_THREADS="1", LETHE_NODES=promise())
    with head() as address:
        os.environ["RAY_ADDRESS"] = address
        from lethe.pool.cluster import connect, prepare_environment

        prepare_environment()
        connect(address)
        import ray

        trace = Trace()
        try:
            done = null_runs(trace) if args.null else study(trace, args.trials)
            trace.until(lambda: trace.now == 0, "the cluster did not shrink")
        finally:
            nodes = trace.finish()
            ray.shutdown()  # while the head is there: later, even an error would wait for it
    found = {"nodes": nodes, "marks": trace.marks, **done}
    print(" -> ".join(str(count) for _, count in found["nodes"]))
    for at, what in found["marks"]:
        print(f"{at:6.1f} s  {what}")
    if args.trace:
        args.trace.write_text(json.dumps(found))
    if args.plot:
        plot(found, args.plot)
        print(f"plot {args.plot}")


def config() -> dict[str, Any]:
    """cluster/local.yaml."""
    return yaml.safe_load((ROOT / "cluster/local.yaml").read_text())


def promise() -> str:
    """LETHE_NODES for that cluster."""
    worker = config()["available_node_types"]["worker"]
    return f"{worker['max_workers']}:CPU={worker['resources']['CPU']}"


@contextmanager
def head() -> Iterator[str]:
    """The head node, without cores, and the autoscaler; yields host:port. All its processes end with the block."""
    port, dashboard, client = (free_port() for _ in range(3))
    folder = Path(tempfile.mkdtemp(prefix="la-", dir="/tmp"))  # short: Ray's sockets lie in it
    whole = config()
    whole["provider"]["gcs_address"] = f"127.0.0.1:{port}"
    (folder / "cluster.yaml").write_text(yaml.safe_dump(whole))
    environment = {
        **os.environ,
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_NODE_TYPE_NAME": whole["head_node_type"],
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        # A killed raylet is missed after 3 s instead of 15 or more.
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "3",
    }
    command = [
        *RAY, "start", "--head", "--block", "--num-cpus=0", f"--port={port}", f"--temp-dir={folder}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
        f"--autoscaling-config={folder / 'cluster.yaml'}", "--object-store-memory=100000000", "--disable-usage-stats",
    ]  # fmt: skip
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait(lambda: answers(dashboard), f"the head did not come up, see {folder}/head.log")
        yield f"127.0.0.1:{port}"
    finally:
        # Asked to end, a cluster takes its time over nodes that nobody needs any more.
        for mine in [*psutil.Process(process.pid).children(recursive=True), *processes(str(folder))]:
            with suppress(psutil.NoSuchProcess):
                mine.kill()
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


class Trace:
    """Living worker nodes over time, sampled by a thread: `now`, and every change with its time in seconds."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._changes = [(0.0, 0)]
        self.marks: list[tuple[float, str]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    @property
    def now(self) -> int:
        return self._changes[-1][1]

    def mark(self, what: str) -> None:
        """Something happened."""
        self.marks.append((self._at(), what))

    def until(self, ready: Callable[[], bool], otherwise: str) -> None:
        """Wait for it."""
        wait(ready, f"{otherwise}: {self._changes}")

    def finish(self) -> list[tuple[float, int]]:
        """Every change, and the last count with the time of the end."""
        self._ended.set()
        self._thread.join()
        return self._changes

    def _at(self) -> float:
        return round(time.monotonic() - self._began, 2)

    def _sample(self) -> None:
        while not self._ended.wait(0.2):
            count = len(workers())
            if count != self.now:
                self._changes.append((self._at(), count))


def workers() -> list[dict[str, Any]]:
    """The living nodes but the head."""
    import ray

    return [n for n in ray.nodes() if n["Alive"] and "node:__internal_head__" not in n["Resources"]]


def null_runs(trace: Trace) -> dict[str, Any]:
    """A pool and runs that wait: as many at once as nodes may come, one of them on the node that is killed."""
    import ray

    from lethe.pool.messages import EntryPoint
    from lethe.pool.null_run import NullRequest, pids_of
    from lethe.pool.resources import Shape
    from lethe.pool.worker_pool import Pool

    def get(reference: Any) -> Any:
        return ray.get(reference, timeout=LIMIT_S)

    most, epochs = config()["max_workers"], 3
    folder = Path(tempfile.mkdtemp(prefix="lethe-null-"))
    pool = Pool(folder, wait_s=LIMIT_S)
    try:
        pool.warm(Shape())
        request = NullRequest(epochs=epochs, seconds=0.5)
        runs = [pool.submit(f"run-{i}", EntryPoint.NULL, request, Shape()) for i in range(most)]
        # Nobody has asked for a second report: every run waits in the middle, on a node of its own.
        first = [run.report(0, get) for run in runs]
        trace.until(lambda: trace.now == most, "not every node came")
        kill_node(pids_of(first[0])[0], trace)
        trace.until(lambda: trace.now < most, "the killed node is still counted")
        trace.until(lambda: trace.now == most, "no node came for the one that was killed")
        last = [[run.report(seen, get) for seen in range(1, epochs)][-1] for run in runs]
    finally:
        pool.close()
        shutil.rmtree(folder, ignore_errors=True)
    trace.mark("all runs done")
    moved = [pids_of(a) != pids_of(b) for a, b in zip(first, last, strict=True)]
    return {"verdicts": [r.verdict for r in last], "epochs": [r.values["epoch"] for r in last], "moved": moved}


def study(trace: Trace, trials: int) -> dict[str, Any]:
    """`sweep tofu` as a user runs it; the node of one trial is killed once all nodes are at work."""
    reports = Path(tempfile.mkdtemp(prefix="lethe-demo-"))
    command = [sys.executable, "-m", "platform.sweep", "tofu", "--trials", str(trials), "--reports", str(reports)]
    command += ["--set", "early_stopping.name=none"]  # a trial lasts until its node is killed
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    killed = False
    assert process.stdout is not None
    for line in process.stdout:
        print("   ", line, end="", flush=True)
        if line.startswith("trial"):
            trace.mark(" ".join(line.split()[:3]))
            if not killed and trace.now == config()["max_workers"]:
                kill_node(busy_worker(), trace)
                killed = True
    assert process.wait() == 0, f"the sweep ended with {process.returncode}"
    trace.mark("the study is done")
    found = json.loads(next(reports.glob("*/study.json")).read_text())
    shutil.rmtree(reports, ignore_errors=True)
    return {"verdicts": [trial["verdict"] for trial in found["trials"]]}


def busy_worker() -> int:
    """A process that trains: the one of this cluster's workers that has used most of a core in half a second."""
    session = os.environ["RAY_ADDRESS"].rpartition(":")[2]
    found = [p for p in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in " ".join(p.info["cmdline"] or ())]
    mine = [p for p in found if f":{session}" in " ".join(parent_raylet(p).cmdline())]
    for process in mine:
        process.cpu_percent()
    time.sleep(0.5)
    return max(mine, key=lambda p: p.cpu_percent()).pid


def parent_raylet(process: psutil.Process) -> psutil.Process:
    """The node that a worker process belongs to."""
    return next(p for p in process.parents() if p.name() == "raylet")


def kill_node(worker: int, trace: Trace) -> None:
    """Kill -9 of the raylet whose worker this is; its processes die with it, as with a machine that is taken away."""
    raylet = parent_raylet(psutil.Process(worker))
    children = raylet.children(recursive=True)
    raylet.kill()
    for child in children:
        if child.is_running():
            child.kill()
    trace.mark("a node is killed")


def processes(folder: str) -> Iterator[psutil.Process]:
    """Those that were started for a cluster in this folder."""
    for process in psutil.process_iter(["cmdline"]):
        if any(folder in word for word in process.info["cmdline"] or ()):
            yield process


def answers(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def wait(ready: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(otherwise)
        time.sleep(0.1)


def plot(found: dict[str, Any], path: Path) -> None:
    """Nodes over time, with what happened."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    times, counts = zip(*found["nodes"], strict=True)
    end = max(times[-1], *(at for at, _ in found["marks"])) + 3
    axes.step([*times, end], [*counts, counts[-1]], where="post", color="#3b6ea5", linewidth=2)
    for at, what in found["marks"]:
        color = "#b3412d" if "killed" in what else "#888888"
        axes.axvline(at, color=color, linewidth=0.8, linestyle=":")
        axes.text(at, max(counts) * 1.04, what, rotation=30, fontsize=7, color=color)
    axes.set(xlabel="seconds", ylabel="worker nodes", yticks=range(max(counts) + 1), xlim=(0, end))
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
