"""TensorBoard and Weights & Biases beside MLflow, with their own packages, and without a network."""

from __future__ import annotations

import getpass
import importlib.util
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lethe.config.study import Study, Tracking
from lethe.errors import UserError
from lethe.storage.paths import home
from lethe.tracking import run_writers
from lethe.tracking.base import TrackerGroup, open_tracker
from tests.tracking.studies import busy_study, study, trial
from tests.tracking.test_mlflow_tracker import by_trial, live


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    home().mkdir()


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    """The points of a scalar in a folder's event files, read by tensorboardX's own messages."""
    from tensorboardX.proto.event_pb2 import Event

    points = []
    for path in sorted(folder.rglob("events.*")):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            points += [(event.step, value.simple_value) for value in event.summary.value if value.tag == tag]
            content = content[16 + length :]
    return points


def test_a_list_of_stores_is_what_a_study_asks_for() -> None:
    objectives = {"forget": {"direction": "minimize"}}
    named: Any = {"name": "a", "objectives": objectives, "tracking": ["mlflow", "tensorboard"]}
    assert Study.model_validate(named).tracking.to == ("mlflow", "tensorboard")
    assert Tracking(experiment="e").to == ("mlflow",)
    with pytest.raises(ValueError, match="names a store twice"):
        Tracking(to=("mlflow", "mlflow"))


def test_tensorboard_beside_mlflow_has_every_trial(uri: str, report: Path, look: Any) -> None:
    record = busy_study()
    tracker = open_tracker(Tracking(uri=uri, to=("tensorboard", "mlflow"), register_models=False))
    assert isinstance(tracker, TrackerGroup)
    assert tracker.uri == uri
    tracker.begin(record.model_copy(update={"trials": ()}))
    for done in record.trials[:4]:
        live(tracker, done)
    link = tracker.finish(record, report)  # the others come from disk
    assert link == f"MLFLOW_TRACKING_URI={uri} lethe ui {record.id}"
    assert by_trial(look, uri).keys() == set(range(9))
    folder = home() / "tensorboard" / record.id
    assert {path.name for path in folder.iterdir()} == {f"trial-{number:03d}" for number in range(9)}
    for done in record.trials[:6]:
        points = events(folder / f"trial-{done.number:03d}", "forget")
        assert {step: value for step, value in points if step} == pytest.approx(
            {int(metrics["epoch"]): metrics["forget"] for metrics in done.series}
        )
    assert math.isnan(dict(events(folder / "trial-006", "forget"))[1])


def test_a_store_that_fails_costs_one_warning(
    report: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> Any:
        raise OSError("no space left\non device")

    monkeypatch.setattr(run_writers, "TensorBoardRun", full)
    tracker = open_tracker(Tracking(to=("tensorboard",)))
    record = study(trial(0), trial(1))
    tracker.begin(record)
    for done in record.trials:
        live(tracker, done)
    assert tracker.finish(record, report) is None
    assert [r.getMessage() for r in caplog.records] == ["nothing more goes to tensorboard: OSError: no space left"]


def test_a_store_that_hangs_ends_the_study_after_a_while_with_one_warning(
    report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(run_writers, "TensorBoardRun", lambda *_: (tmp_path / "pipe").open())  # nobody ever writes
    monkeypatch.setattr(run_writers, "GIVE_UP_S", 0.5)
    tracker = open_tracker(Tracking(to=("tensorboard",)))
    record = study(trial(0), trial(1))
    tracker.begin(record)
    live(tracker, record.trials[0])
    began = time.monotonic()
    assert tracker.finish(record, report) is None
    assert 0.5 <= time.monotonic() - began < 20
    said = "nothing more goes to tensorboard: it has taken nothing for 0.5 s, so the rest was not sent"
    assert [r.getMessage() for r in caplog.records] == [said]
    (tmp_path / "pipe").open("w").close()  # lets the thread end


def test_a_store_that_is_slow_gets_everything(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(run_writers.TensorBoardRun):
        def end(self, *args: Any) -> None:
            time.sleep(0.8)
            super().end(*args)

    monkeypatch.setattr(run_writers, "TensorBoardRun", Slow)
    monkeypatch.setattr(run_writers, "GIVE_UP_S", 2.5)
    record = study(*map(trial, range(4)))
    tracker = open_tracker(Tracking(to=("tensorboard",)))
    tracker.begin(record)
    assert tracker.finish(record, report) is not None
    assert all(events(home() / "tensorboard" / record.id / f"trial-{number:03d}", "forget") for number in range(4))


def test_a_missing_package_is_refused_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_writers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^tracking: wandb needs the package wandb: pip install 'lethe\[wandb\]'$"):
        open_tracker(Tracking(to=("wandb",)))


WANDB = """
import sys, platform
from pathlib import Path
from lethe.config.study import Tracking
from lethe.tracking.base import open_tracker
from tests.tracking.studies import study, trial
from tests.tracking.test_mlflow_tracker import live
tracker = open_tracker(Tracking(to=("wandb",)))
record = study(trial(0, pareto_rank=0), trial(1, verdict="diverged"))
tracker.begin(record)
for done in record.trials:
    live(tracker, done)
assert tracker.finish(record, Path(sys.argv[1])) == "the project lethe of Weights & Biases"
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is not installed: pip install 'lethe[wandb]'"
)
def test_wandb_has_a_run_per_trial_without_a_network(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    root = Path(__file__).parents[2]
    process = subprocess.run([sys.executable, "-c", WANDB, str(report)], cwd=root, text=True, capture_output=True)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    runs = list(home().glob("wandb/offline-run-*/*.wandb"))
    assert len(runs) == 2
    host = socket.gethostname()  # with the tag and the length that its format puts before it: it may be short
    for private in (f"j{chr(len(host))}{host}", sys.executable, getpass.getuser()):
        assert not any(private.encode() in run.read_bytes() for run in runs), private
