"""A user's own task files for lm-evaluation-harness: YAML with data files beside it, read as data and never as code.

A study copies their folder into the storage root under the digest of its content. Runs carry `path: content:<digest>`,
so that equal tasks are equal wherever they lie, and changed ones differ. The harness itself would import whatever a
file names with `!function`, and load metrics as code from a hub: such files are refused.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lethe.config.loading import merge, parse
from lethe.config.run import LmEval
from lethe.errors import UserError
from lethe.storage.paths import atomic_folder, check_root, home
from lethe.storage.replica import ensure_local, local_path

TaskSettings = dict[str, Any]
"""A task file as YAML has it: with the harness's own keys, of which few are known here."""

KEY = "evaluation.lm_eval"
CONTENT = "content:"
MOST_BYTES = 2**28  # of one folder: a wrong path should not fill the storage
CODE_KEYS = frozenset({"class", "unsafe_code", "use_prompt", "custom_dataset", "hf_evaluate"})
FORMATS = ("json", "csv", "parquet", "text")  # those that `datasets` reads without a hub


def store_tasks(folder: Path) -> str:
    """Copy a folder of task files into the storage root; return its address, `content:` and the content's digest.
    Raises UserError where there is no such folder or it is larger than `MOST_BYTES`."""
    if not folder.is_dir():
        raise UserError(f"run.{KEY}.path: there is no folder {folder}")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if (size := sum(path.stat().st_size for path in files)) > MOST_BYTES:
        raise UserError(
            f"run.{KEY}.path: {folder} has {size / 2**20:.0f} MiB: give a folder of tasks and their data alone"
        )
    content = hashlib.sha256()
    for path in files:
        content.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    address = CONTENT + content.hexdigest()[:16]
    check_root()
    if not ensure_local(target := tasks_folder(address)):
        with atomic_folder(target) as copy:
            for path in files:
                (copy / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy / path.relative_to(folder))
    return address


def tasks_folder(address: str) -> Path:
    """Return the folder in the storage root for an address that `store_tasks` returned."""
    return home() / "cache" / "tasks" / address.removeprefix(CONTENT)


def own_tasks(config: LmEval) -> dict[str, TaskSettings]:
    """Return the settings of every task in the stored folder by name, with the files that they include merged in and
    data files as absolute paths; {} without a folder. Raises UserError for files that are no tasks or contain code."""
    if config.path is None:
        return {}
    root = local_path(tasks_folder(config.path))
    tasks: dict[str, TaskSettings] = {}
    for path in sorted([*root.rglob("*.yaml"), *root.rglob("*.yml")]):
        raw = _read(path, root, [])
        if isinstance(name := raw.get("task"), str):
            if name in tasks:
                raise UserError(f"{_relative(path, root)}: there is another task {name}")
            tasks[name] = raw
    if not tasks:
        raise UserError(f"run.{KEY}.path: no YAML file in it has a task")
    return tasks


def _read(path: Path, root: Path, including: list[Path]) -> TaskSettings:
    """Return the settings in a file with those that it includes; `including`: the files on the way to it."""
    where = _relative(path, root)
    if path in including:
        raise UserError(f"{where}: includes itself")
    if not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{where}: is not among the files of run.{KEY}.path")
    text = path.read_text(encoding="utf-8")
    raw = None if "!function" in text else parse(text, where)
    code = sorted(CODE_KEYS.intersection(_keys(raw))) if raw is not None else ["!function"]
    if code:
        raise UserError(f"{where}: {code[0]} would run code of whoever wrote the file: such tasks are not run")
    if not isinstance(raw, dict):
        raise UserError(f"{where}: not a task: a mapping is needed")
    included = raw.pop("include", [])
    merged: TaskSettings = {}
    for other in included if isinstance(included, list) else [included]:
        merged = merge(merged, _read(path.parent / str(other), root, [*including, path]))
    merged = merge(merged, raw)
    for unread in ("tag", "group", "task_list"):
        merged.pop(unread, None)
    return _with_files(merged, path, root) if not including else merged


def _keys(value: Any) -> Iterator[str]:
    """Yield every key of a mapping, at any depth."""
    if isinstance(value, dict):
        for key, nested in value.items():
            yield str(key)
            yield from _keys(nested)
    elif isinstance(value, list):
        for nested in value:
            yield from _keys(nested)


def _with_files(raw: TaskSettings, path: Path, root: Path) -> TaskSettings:
    """Return a task's settings with its data files as absolute paths. Raises UserError for data elsewhere than in the
    folder: its digest would not cover them, and they might need a network."""
    where, kwargs = _relative(path, root), raw.get("dataset_kwargs") or {}
    if "task" not in raw:
        return raw
    if raw.get("dataset_path") not in FORMATS or "data_files" not in kwargs:
        raise UserError(f"{where}: needs dataset_path ({', '.join(FORMATS)}) and dataset_kwargs.data_files beside it")

    def absolute(name: Any) -> Any:
        if isinstance(name, list):
            return [absolute(part) for part in name]
        file = (path.parent / str(name)).resolve()
        if not file.is_file() or not file.is_relative_to(root.resolve()):
            raise UserError(f"{where}: data_files: {name} is not among the files of run.{KEY}.path")
        return str(file)

    files = kwargs["data_files"]
    files = {split: absolute(name) for split, name in files.items()} if isinstance(files, Mapping) else absolute(files)
    return {**raw, "dataset_kwargs": {**kwargs, "data_files": files}}


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
