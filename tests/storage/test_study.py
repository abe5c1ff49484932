"""A study whose driver and workers are on two nodes that share objects and nothing else; the driver is killed, and goes
on on a third machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lethe.storage.object_store import ObjectStore, parse_address
from tests.conftest import ROOT, joined, private_head
from tests.faults.world import Session, write_study
from tests.storage.places import KINDS, place

pytestmark = pytest.mark.slow

TRIALS = 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_on_nodes_without_a_common_disk_ends_and_resumes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place(kind, tmp_path, monkeypatch) as url:
        monkeypatch.setenv("LETHE_HOME", url)
        monkeypatch.setenv("LETHE_SCRATCH", str(tmp_path / "head"))
        storage, tracking = f"sqlite:///{tmp_path}/optuna.db", f"sqlite:///{tmp_path}/mlflow.db"
        study = write_study(tmp_path, TRIALS)
        given = [
            "--set",
            f"search.storage={storage}",
            "--set",
            f"tracking.uri={tracking}",
            "--set",
            "tracking.register_models=true",
        ]
        with private_head(cpus=0) as head, joined(head, tmp_path / "log", LETHE_SCRATCH=str(tmp_path / "node")):
            first = Session.start(study, head.environment, *given)
            first.await_trials(1)
            first.process.kill()
            first.wait()
            elsewhere = {**head.environment, "LETHE_SCRATCH": str(tmp_path / "elsewhere")}
            second = Session.start(study, elsewhere, *given, "--resume")
            assert second.wait() == 0, second.output[-3000:]
            objects = ObjectStore(parse_address(url, "LETHE_HOME"))
            (name,) = objects.list_names("studies")
            record = json.loads(objects.read(f"studies/{name}/study.json") or b"")
            check_record(record, storage)
            check_objects(objects, record)
            check_nodes(tmp_path)
            check_registry(record, tracking)
            shown = run_gc(elsewhere)
            assert f"studies in {url}" in shown
            assert name in shown
            assert "finished" in shown
            run_gc(elsewhere, "--study", name, "--caches", "--yes")
            assert not [each.name for each in objects.list_objects() if not each.name.startswith(".")]


def check_record(record: dict[str, Any], storage: str) -> None:
    """Every trial once; what the first session finished is not done again."""
    import optuna

    assert [t["verdict"] for t in record["trials"]] == ["complete"] * TRIALS
    assert not record["interrupted"]
    assert len({t["run"] for t in record["trials"]}) == TRIALS
    told = optuna.load_study(study_name=record["id"], storage=storage).trials
    assert sorted(t.state.name for t in told).count("COMPLETE") == TRIALS


def check_objects(objects: ObjectStore, record: dict[str, Any]) -> None:
    """The front's models, everybody's result and rows; no checkpoint, no lease."""
    front = {t["run"] for t in record["trials"] if t["pareto_rank"] == 0}
    below = f"studies/{record['id']}/runs/"
    parts = {tuple(each.name.removeprefix(below).split("/")[:2]) for each in objects.list_objects(below.rstrip("/"))}
    every = {t["run"] for t in record["trials"]}
    assert parts == {(run, part) for run in every for part in ("result.json", "rows.parquet")} | {
        (run, "model") for run in front
    }
    assert objects.info(f"studies/{record['id']}/lease") is None


def check_nodes(folder: Path) -> None:
    """The second node worked, with copies; weights of runs stay on none but where they were registered from."""
    (node,) = (folder / "node").iterdir()
    assert list((node / "models").iterdir())
    assert not list(node.glob("studies/*/runs/*/model"))
    assert list(node.glob("studies/*/runs"))
    assert not any(os.path.islink(path) for path in (node / "models").iterdir())


def check_registry(record: dict[str, Any], tracking: str) -> None:
    """The front is registered, though its models were trained elsewhere."""
    from mlflow import MlflowClient

    versions = MlflowClient(tracking).search_model_versions("name = 'lethe-faults'")
    assert {v.tags["lethe.run"] for v in versions} == {t["run"] for t in record["trials"] if t["pareto_rank"] == 0}


def run_gc(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "platform.gc", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
