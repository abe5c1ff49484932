"""`ray job submit --working-dir .` uploads the program, whatever else lies in the folder."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BESIDE = [
    "models/own/model.safetensors",
    "data/forget10.json",
    "mlruns/1/metrics",
    "x/y",
    ".cache/z",
    "notes.txt",
    ".own.yaml",
]


@pytest.mark.parametrize("include_gitignore", [True, False])
def test_only_the_program_and_studies_are_uploaded(include_gitignore: bool, tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    folder = tmp_path / "checkout"
    for part in ("platform", "search_spaces"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns(".*_cache"))
    for name in (".gitignore", ".rayignore", "Makefile"):
        shutil.copy(ROOT / name, folder)
    for name in BESIDE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            file.truncate(300 << 20)  # takes no room on the disk
    (folder / "mine.yaml").write_text("extends: tofu\n")
    package = tmp_path / "package.zip"
    create_package(str(folder), package, include_gitignore=include_gitignore)
    names = [name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")]
    assert {name.split("/")[0] for name in names} == {"platform", "search_spaces", "mine.yaml"}
    assert {"platform/sweep.py", "platform/lethe/py.typed", "search_spaces/tofu.yaml"} <= set(names)
    assert not any("__pycache__" in name for name in names)
    assert package.stat().st_size < 5 << 19
