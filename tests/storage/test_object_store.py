"""Objects under an address: every byte comes back, and a folder that is not whole does not count."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from lethe.errors import StoreUnreachableError, UserError, exit_codes
from lethe.storage.object_store import MANIFEST, ObjectStore, parse_address
from tests.storage.places import KINDS, place


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with place(request.param, tmp_path, monkeypatch) as url:
        yield ObjectStore(parse_address(url, "LETHE_HOME"))


def fill(folder: Path) -> dict[str, bytes]:
    """A model's folder; its weights are more than S3 clients send in one piece."""
    found = {"config.json": b"{}", "model.safetensors": os.urandom(12_000_000), "deeper/x": b"", "deeper/y": b"1"}
    for name, content in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_object_is_replaced_read_and_removed(store: ObjectStore) -> None:
    assert store.read("a/b") is None
    assert store.info("a/b") is None
    assert store.list_names("a") == []
    store.put("a/b", b"one")
    store.put("a/b", b"second")
    assert store.read("a/b") == b"second"
    found = store.info("a/b")
    assert found
    assert found.bytes == 6
    assert store.info("a") is None
    assert store.list_names("a") == ["b"]
    assert [each.name for each in store.list_objects()] == ["a/b"]
    store.remove("a/b")
    store.remove("a/b")
    assert store.read("a/b") is None
    assert store.list_objects("a") == []


def test_a_fetched_folder_equals_the_one_that_was_put(store: ObjectStore, tmp_path: Path) -> None:
    wanted = fill(tmp_path / "from")
    store.put_folder(tmp_path / "from", "models/one")
    store.put("models/one/later", b"more")
    assert store.fetch_folder("models/one", tmp_path / "to")
    assert content(tmp_path / "to") == {**wanted, "later": b"more"}
    store.remove("models/one")
    assert store.list_objects("models") == []
    assert not store.fetch_folder("models/one", tmp_path / "again")


def test_a_folder_with_a_missing_or_truncated_file_does_not_count(store: ObjectStore, tmp_path: Path) -> None:
    fill(tmp_path / "from")
    store.put_folder(tmp_path / "from", "models/one")
    store.put("models/one/model.safetensors", b"short")
    assert not store.fetch_folder("models/one", tmp_path / "to")
    store.put_folder(tmp_path / "from", "models/one")
    store.remove(f"models/one/{MANIFEST}")
    assert not store.fetch_folder("models/one", tmp_path / "to")


def test_an_interrupted_write_leaves_a_complete_object_or_none(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes while the bytes are on their way: the store then has the new object, never a part of it."""
    store.put("a", b"before")
    whole = ObjectStore._write

    def slowly(self: ObjectStore, path: str, content: BinaryIO) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        whole(self, path, content)
        written.set()

    written = threading.Event()
    monkeypatch.setattr(ObjectStore, "_write", slowly)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever ran in this process
    try:
        with pytest.raises(KeyboardInterrupt):
            store.put("a", b"after" * 1000)
    finally:
        signal.signal(signal.SIGINT, before)
    assert written.wait(30)
    assert store.read("a") == b"after" * 1000


def test_a_failing_store_gives_an_error_of_one_line(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*_: object) -> None:
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(ObjectStore, "_write", away)
    with pytest.raises(StoreUnreachableError, match=f"{store.address.url}: no route to host"):
        store.put("a", b"1")
    assert exit_codes(lambda: store.put("a", b"1"))() == 75  # type: ignore[arg-type, return-value]
    assert "no route to host: what is finished is kept" in capsys.readouterr().err
    with pytest.raises(UserError, match="cannot write there: no route to host"):
        store.check("LETHE_HOME")


@pytest.mark.parametrize("address", ["s3://[bad/x", "s3://bucket/x#y", "s3://bucket/x?endpoint=y"])
def test_malformed_addresses_are_refused(address: str) -> None:
    with pytest.raises(UserError, match="LETHE_HOME s3://"):
        parse_address(address, "LETHE_HOME")
