"""A study that nothing can kill: real processes on a private cluster, each fault at a seeded random moment.

One study lives through all of it; the tests are its chapters and run in their order. Groups' drivers are threads of
the study's driver: they die with it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import Head, private_head
from tests.faults.world import RUN_QUEUE, TRIAL, WORKER, Facts, Session, kill_cluster, kill_one, write_study

pytestmark = pytest.mark.slow

TRIALS = 40  # an idle machine ends 20 of them before the disk is full, and the next chapter needs some to interrupt
SEED = 5


@dataclass
class Story:
    """The study, where it lives, and the cluster that it lives on."""

    folder: Path
    stack: ExitStack
    study: Path
    draw: random.Random = field(default_factory=lambda: random.Random(SEED))
    head: Head = field(init=False)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def new_cluster(self) -> None:
        self.head = self.stack.enter_context(private_head())

    def session(self, *arguments: str) -> Session:
        session = Session.start(self.study, {**self.head.environment, "LETHE_HOME": str(self.home)}, *arguments)
        self.stack.callback(session.process.kill)
        return session

    def moment(self) -> None:
        time.sleep(self.draw.uniform(0, 1))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("faults")
    with ExitStack() as stack:
        story = Story(folder, stack, write_study(folder, TRIALS))
        story.home.mkdir()
        if small_disk(story.home):
            stack.callback(subprocess.run, ["umount", "-l", str(story.home)], check=True)
        story.new_cluster()
        yield story


def small_disk(folder: Path) -> bool:
    """Whether `folder` could be made a file system of its own, of 256 MB."""
    if os.geteuid() or not shutil.which("mount"):
        return False
    command = ["mount", "-t", "tmpfs", "-o", "size=256m", "lethe-faults", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def placement_groups(head: Head) -> list[str]:
    """States of those that hold something."""
    from ray.util.state import list_placement_groups

    return [g.state for g in list_placement_groups(head.dashboard, limit=1000) if g.state != "REMOVED"]


def test_a_killed_worker_run_queue_and_trial_actor_cost_nothing(story: Story) -> None:
    """The session goes on by itself; then the disk is full, and it ends with one line."""
    session = story.session()
    session.await_trials(2)
    for victim in story.draw.sample((WORKER, RUN_QUEUE, TRIAL), 3):
        story.moment()
        kill_one(story.head.pid, victim, story.draw.choice)
        session.await_trials(session.finished() + 2)
    if os.path.ismount(story.home):
        filler = story.home / "filler"
        story.moment()
        with filler.open("wb", buffering=0) as file, suppress(OSError):  # until no space is left
            while True:
                file.write(b"0" * (1 << 16))
        code = session.wait(60)
        filler.unlink()
        assert code == 75, session.output[-3000:]
        assert "space left" in session.last_line or "disk is full" in session.last_line
    else:
        session.process.send_signal(signal.SIGKILL)


@pytest.mark.long  # tests/storage/test_study.py kills a driver, too
def test_a_killed_driver_leaves_nothing_behind(story: Story) -> None:
    session = story.session("--resume")
    session.await_trials(2)
    story.moment()
    session.process.kill()
    session.process.wait()
    deadline = time.monotonic() + 60
    while placement_groups(story.head):
        assert time.monotonic() < deadline, placement_groups(story.head)
        time.sleep(0.5)


def test_a_dead_cluster_ends_the_session_with_one_line(story: Story) -> None:
    session = story.session("--resume")
    session.await_trials(2)
    story.moment()
    kill_cluster(story.head.pid, story.draw)
    assert session.wait(55) == 75, session.output[-3000:]
    assert "cluster is gone" in session.last_line
    assert "--resume" in session.last_line


def test_then_the_study_ends_as_if_nothing_had_happened(story: Story) -> None:
    story.new_cluster()
    session = story.session("--resume")
    assert session.wait() == 0, session.output[-3000:]
    facts = Facts(story.home, story.study)
    assert (facts.lost(TRIALS), facts.duplicated()) == (0, 0)
    assert len(facts.record["trials"]) == TRIALS
    assert not facts.record["interrupted"]
    assert facts.states() <= {"COMPLETE", "FAIL"}
    children, states = facts.mlflow()
    assert set(children.values()) == {1}, "one run per trial"
    assert len(children) == TRIALS
    assert states == {"FINISHED"}
    assert not list(facts.folder.glob("runs/*/checkpoint")), "finished runs keep no checkpoint"
    assert facts.differing(6) == []
    assert not placement_groups(story.head)
