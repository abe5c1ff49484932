"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lethe.errors import UserError
from lethe.storage.paths import atomic_folder, atomic_write, home


def test_home_is_absolute_wherever_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LETHE_HOME", "there")
    assert home() == tmp_path / "there"
    monkeypatch.setenv("LETHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".lethe"


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "target") as folder:
            (folder / "a").write_text("1")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with atomic_folder(target) as slow:
        (slow / "a").write_text("slow")
        with atomic_folder(target) as fast:
            (fast / "a").write_text("fast")
    assert (target / "a").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_is_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    atomic_write(path, "one")
    atomic_write(path, b"two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_the_error_names_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file"):
        atomic_write(tmp_path / "file" / "below", "x")
    with pytest.raises(UserError, match=r"cannot write to .*file"), atomic_folder(tmp_path / "file" / "below"):
        pass


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750), (0o077, 0o600, 0o700)]
)
def test_files_have_the_mode_that_the_umask_allows(tmp_path: Path, umask: int, file: int, folder: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "model") as made:
            save_file({"a": np.zeros(2)}, made / "model.safetensors")
            (made / "inner").mkdir()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").rglob("*")}
    assert modes == {"model.safetensors": file, "inner": folder}
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == folder
