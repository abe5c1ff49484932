"""Of several processes one holds a lease, until it lets go, dies here, or is silent for too long elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lethe.storage import lease
from lethe.storage.lease import StudyLease
from lethe.storage.object_store import ObjectStore, parse_address

NAME = "studies/x/lease"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setattr(lease, "SETTLE_S", 0.2)
    return ObjectStore(parse_address(tmp_path.as_uri(), "LETHE_HOME"))


def ask(store: ObjectStore, lost: list[str] | None = None) -> StudyLease:
    return StudyLease(store, NAME, lambda: (lost if lost is not None else []).append("lost"))


def leave(store: ObjectStore, machine: str, pid: int) -> None:
    store.put(NAME, json.dumps({"word": "theirs", "host": "a", "machine": machine, "pid": pid}).encode())


def test_a_lease_has_one_holder_at_a_time(store: ObjectStore) -> None:
    assert not ask(store).is_held()
    with ask(store).hold() as ours:
        assert ours
        assert ask(store).is_held()
        with ask(store).hold() as theirs:
            assert not theirs
        assert ask(store).is_held()
    with ask(store).hold() as ours:
        assert ours
    assert store.list_objects() == []


def test_one_of_many_concurrent_processes_gets_the_lease(store: ObjectStore) -> None:
    held: list[bool] = []
    ready, done = threading.Barrier(6), threading.Barrier(6)

    def run() -> None:
        ready.wait()
        with ask(store).hold() as ours:
            held.append(ours)
            done.wait()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(held) == [False] * 5 + [True]


def test_a_dead_process_of_this_machine_holds_no_lease(store: ObjectStore) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    leave(store, lease._machine(), done.pid)
    assert not ask(store).is_held()
    leave(store, lease._machine(), os.getpid())
    assert ask(store).is_held()
    leave(store, "a container with pids of its own", done.pid)
    assert ask(store).is_held()


def test_a_silent_holder_on_another_machine_keeps_the_lease_until_it_expires(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(store, "another machine", 1)
    assert ask(store).is_held()
    path = Path(store.address.folder, NAME)
    before = path.stat().st_mtime - lease.EXPIRES_S
    os.utime(path, (before, before))
    with ask(store).hold() as ours:
        assert ours


def test_a_lease_is_renewed_and_its_loss_is_reported(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.1)
    lost: list[str] = []
    held = ask(store, lost)
    with held.hold() as ours:
        assert ours
        path = Path(store.address.folder, NAME)
        os.utime(path, (1, 1))
        _until(lambda: path.stat().st_mtime > 1)
        leave(store, "another machine", 1)
        _until(lambda: lost == ["lost"])
    assert json.loads(store.read(NAME) or b"")["word"] == "theirs"


def _until(true: object) -> None:
    import time

    deadline = time.monotonic() + 30
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)
