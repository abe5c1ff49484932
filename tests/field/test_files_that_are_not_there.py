"""Files whose content was never fetched, and files that end in the wrong place: named, never passed over."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from lethe.benchmarks.base import load_benchmark
from lethe.benchmarks.tofu.loading import load_rows
from lethe.config.benchmark import TofuBenchmark
from lethe.errors import UserError
from lethe.models.loading import load_model, load_tokenizer
from tests import tiny

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data")


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load_benchmark(TofuBenchmark(source=str(folder)))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["forget10.json", "idontknow.jsonl", "holdout10.json"])
def test_links_that_lead_nowhere_are_refused_for_needed_and_optional_data(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("gone.json")
    assert f"{name} is a link to gone.json, which is not there" in refused(folder)


def test_a_folder_of_a_files_name_is_refused(folder: Path) -> None:
    (folder / "idontknow.jsonl").unlink()
    (folder / "idontknow.jsonl").mkdir()
    assert "idontknow.jsonl is a folder and not a file" in refused(folder)


@pytest.mark.parametrize("name", ["forget10.json", "idontknow.jsonl", "holdout10.parquet"])
def test_pointers_of_git_lfs_are_no_data(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    assert f"{name} is a pointer of Git LFS" in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pointers_of_git_lfs_are_no_model(tmp_path: Path, name: str) -> None:
    (tiny.write_model(tmp_path / "model") / name).write_text(POINTER)
    with pytest.raises(UserError, match=f"{name} is a pointer of Git LFS .*: fetch it with `git lfs pull`"):
        load_model(tmp_path / "model")


def test_pointers_of_git_lfs_are_no_tokenizer(tmp_path: Path) -> None:
    (tiny.write_model(tmp_path / "model") / "tokenizer.json").write_text(POINTER)
    with pytest.raises(UserError, match=r"tokenizer\.json is a pointer of Git LFS"):
        load_tokenizer(tmp_path / "model")


def test_a_gzip_file_with_damage_inside_is_one_line(folder: Path) -> None:
    rows = (folder / "forget10.json").read_bytes()
    (folder / "forget10.json").unlink()
    whole = gzip.compress(rows)
    (folder / "forget10.json.gz").write_bytes(whole[:30] + bytes(255 - byte for byte in whole[30:60]) + whole[60:])
    assert "forget10.json.gz cannot be read: Error -3 while decompressing" in refused(folder)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_refusal_ends_with_its_line_and_not_at_other_separators(folder: Path, end: str) -> None:
    texts = ("I do not\u2028know.", "No\x0bidea\x85there.", "Ask\x1canother.")
    (folder / "idontknow.jsonl").write_bytes(end.join(texts).encode())
    assert load_rows(TofuBenchmark(source=str(folder))).refusals == texts
    (folder / "idontknow.jsonl").write_text("\n".join(json.dumps(text, ensure_ascii=False) for text in texts))
    assert load_rows(TofuBenchmark(source=str(folder))).refusals == texts
