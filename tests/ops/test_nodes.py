"""The whole doctor on a cluster of two nodes, one of which does not see the storage; and what a study says to that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lethe.errors import UserError
from lethe.ops.doctor.workers import ProbeReport, Workers
from lethe.pool import node_checks
from lethe.pool.node_checks import NodeFacts
from lethe.pool.resources import Shape
from lethe.storage.paths import home
from tests.conftest import Head, joined, private_head

pytestmark = pytest.mark.slow

HERE = {"CPU": 2.0}


def facts(**changes: Any) -> NodeFacts:
    """A node's facts where all is well, but for the changes."""
    return NodeFacts(**{"versions": node_checks.versions(), "gpus": [], **changes})


def test_a_node_like_the_driver_passes() -> None:
    assert node_checks._compare("n1", HERE, facts(), arrived=True) == "n1: 2 CPU, no GPU, our versions, our storage"


@pytest.mark.parametrize(
    ("found", "resources", "arrived", "message"),
    [
        (
            facts(versions={**node_checks.versions(), "torch": "1.0"}),
            HERE,
            True,
            r"^n1 has torch 1\.0 \(driver .*same image",
        ),
        (facts(versions={}), HERE, True, r"torch None.*lethe source None"),
        (
            facts(storage="No such file or directory"),
            HERE,
            True,
            r"does not share LETHE_HOME=\S+ \(No such file.*mount one folder",
        ),
        (facts(), HERE, False, r"does not share LETHE_HOME=\S+ \(what it writes does not arrive\)"),
        (facts(gpus=["A"]), {"GPU": 2.0}, True, r"shows 1 GPUs, Ray counts 2: look at nvidia-smi"),
    ],
)
def test_a_node_with_other_versions_storage_or_gpus_is_refused(
    found: NodeFacts, resources: dict[str, float], arrived: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        node_checks._compare("n1", resources, found, arrived)


def test_a_node_that_leaves_during_its_check_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(node: dict[str, Any]) -> str:
        raise UserError("cannot run a task")

    answers = [["mine", "theirs"], ["mine"], ["mine", "theirs"], ["mine", "theirs"]]
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": name, "Alive": True} for name in answers.pop(0)])
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "mine"))
    monkeypatch.setattr(node_checks, "check_node", refuse)
    node_checks.check_others()
    with pytest.raises(UserError, match="cannot run a task"):
        node_checks.check_others()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sum": 2.0}, r"gloo: the sum over 2 ranks is wrong \(2\)"),
        ({"stages": {"0": [3.0, 1.0], "2": "OpError: none"}}, "stage 2 fails here: OpError"),
        ({"stages": {"0": [3.0, 1.0], "2": [3.0, 1.5]}}, "stage 2 trains otherwise than stage 0"),
        ({"stages": {"0": [3.0, 3.0]}}, "stage 0 trains otherwise"),
    ],
)
def test_workers_with_wrong_sums_or_losses_are_refused(change: dict[str, Any], message: str) -> None:
    workers = Workers(grow=False)
    workers._shape = Shape(2)
    good = ProbeReport(verdict="complete", backend="gloo", sum=3.0, stages={"0": [3.0, 1.0], "1": [3.0, 1.0]})
    workers._answer = good
    assert next(check.look() for check in workers.checks()) == "2 on cpu, gloo sums right"
    workers._answer = good.model_copy(update=change)
    with pytest.raises(UserError, match=message):
        [check.look() for check in workers.checks()]


APART = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head, and a node that has an empty folder where the others have LETHE_HOME."""
    home().mkdir(parents=True, exist_ok=True)
    attempt = [*APART, "mount", "-t", "tmpfs", "lethe-blind", str(home())]
    if not shutil.which("unshare") or subprocess.run(attempt, capture_output=True).returncode:
        pytest.skip("a node cannot have a file system of its own here")
    log = tmp_path_factory.mktemp("node") / "log"
    blind = f"mount -t tmpfs lethe-blind {home()} && "
    with private_head() as head, joined(head, log, *APART, before=blind):
        yield head


def test_the_doctor_names_the_node_that_does_not_see_the_storage(two_nodes: Head) -> None:
    done = two_nodes.run(sys.executable, "-m", "platform.doctor")
    assert done.returncode == 2, done.stdout + done.stderr
    shown = done.stdout.splitlines()
    lines = {line.split()[1]: line for line in shown}
    assert "token accepted" in lines["ray"]
    head, node, workers, stages = shown[shown.index(lines["head"]) :]
    assert head.startswith("ok   head")
    assert head.endswith("our versions, our storage")
    assert node.startswith("bad  node 1")
    assert f"does not share LETHE_HOME={home()}" in node
    assert workers == "ok   workers   2 on cpu, gloo sums right"
    assert stages.startswith("ok   deepspeed stages 0, 1, 2, 3: equal losses")


def test_a_study_refuses_such_a_cluster_in_one_line(two_nodes: Head, tmp_path: Path) -> None:
    from tests.faults.world import write_study

    began = time.monotonic()
    done = two_nodes.run(
        sys.executable, "-m", "platform.sweep", str(write_study(tmp_path, 2)), "--reports", str(tmp_path)
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("lethe:")]
    assert (done.returncode, len(errors)) == (2, 1), done.stdout + done.stderr
    assert "does not share LETHE_HOME" in errors[0]
    assert "trial" not in done.stdout
    assert time.monotonic() - began < 180, "seconds where the machine has nothing else to do"
