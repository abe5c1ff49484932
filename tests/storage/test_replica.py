"""Two nodes with a store between them and no disk: what one writes the other finds, and what goes is gone for both."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lethe.config.run import Digests
from lethe.config.search import Search
from lethe.config.study import load_study
from lethe.errors import UserError
from lethe.pool.messages import relocate_paths
from lethe.search.storages import storage_url
from lethe.storage import lease
from lethe.storage.object_store import ObjectStore
from lethe.storage.paths import atomic_folder, atomic_write, check_root, home, store
from lethe.storage.replica import (
    delete,
    ensure_local,
    evict_local,
    local_path,
    missing_parts,
    read_current,
    refresh_local,
    share_with_nodes,
    temporary_copy,
)
from lethe.study.preflight import check_place
from lethe.study.resume import claim, hold
from lethe.study.run_requests import DATA
from lethe.tracking.connection import resolve_uri

Node = Callable[[str], Path]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """Become a node; its copy of the storage root."""
    monkeypatch.setenv("LETHE_HOME", (tmp_path / "objects").as_uri())
    monkeypatch.setattr(lease, "SETTLE_S", 0.05)

    def become(name: str) -> Path:
        monkeypatch.setenv("LETHE_SCRATCH", str(tmp_path / name))
        return home()

    return become


def test_files_and_folders_reach_the_other_node(node: Node) -> None:
    first = node("a")
    atomic_write(first / "cache/x.json", "1")
    with atomic_folder(first / "models/m") as target:
        (target / "config.json").write_text("{}")
        atomic_write(target / "weights", b"w")  # not yet whole: stays here
    names = {each.name for each in store().list_objects()}  # type: ignore[union-attr]
    assert names == {"cache/x.json", "models/m/config.json", "models/m/weights", "models/m/.lethe-whole"}
    second = node("b")
    assert second != first
    assert not (second / "models").exists()
    assert local_path(second / "cache/x.json").read_text() == "1"
    assert ensure_local(second / "models/m")
    assert (second / "models/m/weights").read_bytes() == b"w"
    assert not ensure_local(second / "models/none")
    assert (second / "models/m").stat().st_mode & 0o777 == 0o755


def test_an_evicted_copy_can_be_fetched_again_and_a_deleted_file_cannot(node: Node) -> None:
    first = node("a")
    with atomic_folder(first / "runs/r/model") as target:
        (target / "weights").write_bytes(b"w")
    evict_local(first / "runs/r/model")
    assert not (first / "runs/r/model").exists()
    assert ensure_local(first / "runs/r/model")
    second = node("b")
    assert ensure_local(second / "runs/r/model")
    delete(second / "runs/r/model")
    delete(second / "runs/r/model")
    assert not ensure_local(second / "runs/r/model")
    node("a")
    evict_local(first / "runs/r/model")
    assert not ensure_local(first / "runs/r/model")


def test_a_study_continues_from_the_files_of_the_last_machine(node: Node) -> None:
    first = node("a")
    atomic_write(first / "studies/s/baselines.json", "old")
    second = node("b")
    for name in ("baselines.json", "runs/1/result.json", "runs/1/model/weights", "runs/1/rows.parquet"):
        atomic_write(second / "studies/s" / name, "new")
    node("a")
    atomic_write(first / "studies/s/.lock", "held")
    refresh_local(first / "studies/s", leave_out=frozenset({"model", "rows.parquet"}))
    found = {p.relative_to(first / "studies/s").as_posix(): p.read_text() for p in first.rglob("*") if p.is_file()}
    assert found == {"baselines.json": "new", "runs/1/result.json": "new", ".lock": "held"}


def test_data_in_folders_of_a_folder_are_shared_with_their_paths(node: Node, tmp_path: Path) -> None:
    (tmp_path / "data/raw").mkdir(parents=True)
    for name in ("raw/forget.jsonl", "top.json", "raw/notes.md"):
        (tmp_path / "data" / name).write_text(name)
    node("a")
    share_with_nodes(tmp_path / "data", "benchmarks", "d1", DATA)
    second = node("b") / "benchmarks/d1"
    assert ensure_local(second)
    found = {path.relative_to(second).as_posix() for path in second.rglob("*.*") if path.is_file()}
    assert {"raw/forget.jsonl", "top.json"} <= found
    assert "raw/notes.md" not in found


def test_a_users_model_is_shared_under_its_content_without_a_second_copy(node: Node, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("config.json", "model.safetensors", "optimizer.bin"):
        (mine / name).write_text(name)
    first = node("a")
    shared = share_with_nodes(mine, "models", "d1", ("*.json", "*.safetensors"))
    assert shared == first / "models/d1"
    assert shared.is_symlink()
    assert share_with_nodes(mine, "models", "d1") == shared
    assert share_with_nodes(shared, "models", "d1") == shared
    second = node("b")
    assert ensure_local(second / "models/d1")
    assert not (second / "models/d1").is_symlink()
    assert {p.name for p in (second / "models/d1").iterdir()} == {"config.json", "model.safetensors"}
    node("a")
    delete(shared)
    assert (mine / "config.json").exists()
    assert not shared.is_symlink()


def test_a_shared_name_links_to_the_folder_given_last(node: Node, tmp_path: Path) -> None:
    """The first one changed under its name, or is gone: the content that was shared counts."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("same")
    first = node("a")
    share_with_nodes(tmp_path / "one", "models", "d1")
    (tmp_path / "one/config.json").write_text("other")
    assert (share_with_nodes(tmp_path / "two", "models", "d1") / "config.json").read_text() == "same"
    (tmp_path / "two").rename(tmp_path / "gone")
    assert ensure_local(first / "models/d1")
    assert (first / "models/d1/config.json").read_text() == "same"


def test_a_local_folder_is_shared_again_after_its_objects_were_removed(node: Node) -> None:
    """A model that was trained here, after somebody else has freed the store's."""
    first = node("a")
    with atomic_folder(first / "models/recipe") as target:
        (target / "config.json").write_text("{}")
    node("b")
    delete(home() / "models/recipe")
    node("a")
    assert share_with_nodes(first / "models/recipe", "models", "d2") == first / "models/d2"
    second = node("b")
    assert (local_path(second / "models/d2") / "config.json").read_text() == "{}"


def test_a_temporary_copy_is_removed_and_read_current_ignores_older_copies(node: Node) -> None:
    first = node("a")
    with atomic_folder(first / "runs/r/model") as target:
        (target / "weights").write_bytes(b"w")
    atomic_write(first / "truth.json", "old")
    second = node("b")
    with temporary_copy(second / "runs/r/model") as found, temporary_copy(second / "runs/r/none") as nothing:
        assert found
        assert (found / "weights").read_bytes() == b"w"
        assert nothing is None
    assert not found.exists()
    assert not (second / "runs").exists()
    with temporary_copy(second / "truth.json") as file:
        assert file
        assert file.read_text() == "old"
    local_path(second / "truth.json")
    node("a")
    with temporary_copy(first / "runs/r/model") as found:
        assert found == first / "runs/r/model"
    atomic_write(first / "truth.json", "new")
    node("b")
    assert read_current(second / "truth.json") == "new"
    with pytest.raises(FileNotFoundError, match=r"there is no file://.*/none.json"):
        read_current(second / "none.json")


def test_concurrent_processes_fetch_one_copy(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    first = node("a")
    with atomic_folder(first / "models/m") as target:
        (target / "weights").write_bytes(b"w")
    second, fetched = node("b"), []
    whole = ObjectStore.fetch_folder
    monkeypatch.setattr(ObjectStore, "fetch_folder", lambda self, *given: fetched.append(given) or whole(self, *given))
    threads = [threading.Thread(target=ensure_local, args=(second / "models/m",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(fetched) == 1
    assert (second / "models/m/weights").exists()


def test_missing_parts_takes_one_request_per_folder(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    first = node("a")
    atomic_write(first / "studies/s/runs/1/model/weights", "w")
    atomic_write(first / "studies/s/runs/2/result.json", "{}")
    asked, whole = [], ObjectStore.list_objects
    monkeypatch.setattr(ObjectStore, "list_objects", lambda self, *given: asked.append(given) or whole(self, *given))
    runs = [first / "studies/s/runs" / name for name in ("1", "2")]
    gone = missing_parts(runs, ("model", "checkpoint"))
    assert gone == {runs[0] / "checkpoint", runs[1] / "model", runs[1] / "checkpoint"}
    assert len(asked) == 1


def test_a_study_is_found_by_the_store_alone(node: Node) -> None:
    """Ended before its first score, it goes on elsewhere; freed elsewhere, it is no study any more."""
    study, digests = load_study("tofu"), Digests(data="d", model="m")
    node("a")
    with claim(study, digests, resume=False) as (name, folder):
        pass
    second = node("b")
    with claim(study, digests, resume=True) as (again, _):
        assert again == name
        with hold(second / "studies" / name) as other:
            assert not other
    with claim(study, digests, resume=False) as (next_one, _):
        assert next_one == f"{name}-2"
    delete(second / "studies" / name)
    delete(second / "studies" / next_one)
    node("a")
    atomic_write(folder / ".left", "")
    with pytest.raises(UserError, match="nothing to resume"), claim(study, digests, resume=True):
        pass
    (folder / "baselines.json").write_text("of the one that is gone")
    with claim(study, digests, resume=False) as (new, _):
        assert new == name
        assert not (folder / "baselines.json").exists()


def test_paths_of_the_driver_become_paths_of_the_node(node: Node, tmp_path: Path) -> None:
    driver, worker = str(node("a")), str(node("b"))
    payload = {
        "folder": f"{driver}/runs/1",
        "assets": {"start": f"{driver}/models/m", "n": 1},
        "list": [driver, "x"],
        "no": None,
    }
    assert relocate_paths(payload, driver, worker) == {
        "folder": f"{worker}/runs/1",
        "assets": {"start": f"{worker}/models/m", "n": 1},
        "list": [driver, "x"],
        "no": None,
    }


def test_with_a_folder_as_root_nothing_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    atomic_write(tmp_path / "a/b", "1")
    evict_local(tmp_path / "a/b")
    assert ensure_local(tmp_path / "a/b")
    assert not ensure_local(tmp_path / "c")
    assert share_with_nodes(tmp_path / "a", "models", "d") == tmp_path / "a"
    assert store() is None
    delete(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert {p.name for p in tmp_path.iterdir()} == set()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://host/x", "LETHE_HOME http://host/x: an address begins with s3://, gs:// or file://"),
        ("s3://key:secret@bucket/x", "keys and options belong in the environment"),
        ("file:///proc/nothing", "LETHE_HOME file:///proc/nothing: cannot write there"),
    ],
)
def test_an_unusable_root_gives_an_error_of_one_line(
    address: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lethe.cli.sweep import main

    monkeypatch.setenv("LETHE_HOME", address)
    monkeypatch.setenv("LETHE_SCRATCH", str(tmp_path))
    assert main(["tofu"]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert "secret" not in printed


def test_an_object_store_as_root_needs_a_named_database(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    from lethe.cli.sweep import main

    node("a")
    check_root()
    assert main(["tofu", "--set", "tracking.enabled=false"]) == 2
    assert "search.storage: LETHE_HOME=file://" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"search\.storage: LETHE_HOME=file://.* holds objects and no databases"):
        check_place(Search())
    with pytest.raises(UserError, match=r"tracking\.uri: LETHE_HOME=file://.* MLFLOW_TRACKING_URI"):
        resolve_uri()
    assert storage_url(Search(storage="sqlite:////tmp/x.db")) == "sqlite:////tmp/x.db"
