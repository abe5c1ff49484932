"""Task files of lm-evaluation-harness that a user brings: YAML beside JSON lines, read as data and never as code.

A study copies their folder into the storage, under its content: `path: content:<digest>` is what runs carry, so that
equal tasks are equal wherever they lie, and changed ones are others. The harness itself would import whatever a file
names with `!function`, and load metrics as code from a hub: such files are refused.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lethe.config.loading import merge, parse
from lethe.config.run import LmEval
from lethe.config.study import Study
from lethe.errors import UserError
from lethe.storage.paths import atomic_folder, check_root, home
from lethe.storage.replica import ensure_local, local_path

Raw = dict[str, Any]

KEY = "evaluation.lm_eval"
CONTENT = "content:"
MOST_BYTES = 2**28  # of one folder: a wrong path should not fill the storage
CODE = frozenset({"class", "unsafe_code", "use_prompt", "custom_dataset", "hf_evaluate"})  # keys
FORMATS = ("json", "csv", "parquet", "text")  # what `datasets` reads without a hub


def with_stored_tasks(study: Study) -> Study:
    """The study with its own tasks kept by content. Raises BadInput for what the trials could not measure: a missing
    package, an unknown task, files that are code."""
    given = study.run.get("evaluation", {}).get("lm_eval")
    if given is None:
        return study
    config = LmEval.model_validate(given)
    if find_spec("lm_eval") is None:
        raise UserError(f"run.{KEY}: the package lm-eval is not installed: pip install 'lethe[lm-eval]'")
    if config.path and not config.path.startswith(CONTENT):
        config = config.model_copy(update={"path": store_tasks(Path(config.path).expanduser())})
    own = own_tasks(config)
    if any(task not in own for task in config.tasks):
        from lethe.evaluation.lm_eval import check_names

        check_names(config.tasks, own)
    run = {**study.run, "evaluation": {**study.run["evaluation"], "lm_eval": config.model_dump(mode="json")}}
    return study.model_copy(update={"run": run})


def store_tasks(folder: Path) -> str:
    """Copy a folder of tasks into the storage; `content:` and its digest, which stands for it from now on."""
    if not folder.is_dir():
        raise UserError(f"run.{KEY}.path: there is no folder {folder}")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if (size := sum(path.stat().st_size for path in files)) > MOST_BYTES:
        raise UserError(
            f"run.{KEY}.path: {folder} has {size / 2**20:.0f} MiB: give a folder of tasks and their data alone"
        )
    whole = hashlib.sha256()
    for path in files:
        whole.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    address = CONTENT + whole.hexdigest()[:16]
    check_root()
    if not ensure_local(target := tasks_folder(address)):
        with atomic_folder(target) as copy:
            for path in files:
                (copy / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy / path.relative_to(folder))
    return address


def tasks_folder(address: str) -> Path:
    """Where a folder of tasks lies in the storage."""
    return home() / "cache" / "tasks" / address.removeprefix(CONTENT)


def own_tasks(config: LmEval) -> dict[str, Raw]:
    """The settings of every task in the kept folder by name, with what they include; data files are whole paths."""
    if config.path is None:
        return {}
    root = local_path(tasks_folder(config.path))
    found: dict[str, Raw] = {}
    for path in sorted([*root.rglob("*.yaml"), *root.rglob("*.yml")]):
        raw = _read(path, root, [])
        if isinstance(name := raw.get("task"), str):
            if name in found:
                raise UserError(f"{_shown(path, root)}: there is another task {name}")
            found[name] = raw
    if not found:
        raise UserError(f"run.{KEY}.path: no YAML file in it has a task")
    return found


def _read(path: Path, root: Path, below: list[Path]) -> Raw:
    where = _shown(path, root)
    if path in below:
        raise UserError(f"{where}: includes itself")
    if not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{where}: is not among the files of run.{KEY}.path")
    text = path.read_text(encoding="utf-8")
    raw = None if "!function" in text else parse(text, where)
    code = sorted(CODE.intersection(_keys(raw))) if raw is not None else ["!function"]
    if code:
        raise UserError(f"{where}: {code[0]} would run code of whoever wrote the file: such tasks are not run")
    if not isinstance(raw, dict):
        raise UserError(f"{where}: not a task: a mapping is needed")
    included = raw.pop("include", [])
    merged: Raw = {}
    for other in included if isinstance(included, list) else [included]:
        merged = merge(merged, _read(path.parent / str(other), root, [*below, path]))
    merged = merge(merged, raw)
    for unread in ("tag", "group", "task_list"):
        merged.pop(unread, None)
    return _with_files(merged, path, root) if not below else merged


def _keys(value: Any) -> Iterator[str]:
    """Every key at any depth."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield str(key)
            yield from _keys(below)
    elif isinstance(value, list):
        for below in value:
            yield from _keys(below)


def _with_files(raw: Raw, path: Path, root: Path) -> Raw:
    """Data beside the task are part of what the folder's digest covers; anything else could change or need a network."""
    where, kwargs = _shown(path, root), raw.get("dataset_kwargs") or {}
    if "task" not in raw:
        return raw
    if raw.get("dataset_path") not in FORMATS or "data_files" not in kwargs:
        raise UserError(f"{where}: needs dataset_path ({', '.join(FORMATS)}) and dataset_kwargs.data_files beside it")

    def whole(name: Any) -> Any:
        if isinstance(name, list):
            return [whole(one) for one in name]
        file = (path.parent / str(name)).resolve()
        if not file.is_file() or not file.is_relative_to(root.resolve()):
            raise UserError(f"{where}: data_files: {name} is not among the files of run.{KEY}.path")
        return str(file)

    files = kwargs["data_files"]
    files = {split: whole(name) for split, name in files.items()} if isinstance(files, Mapping) else whole(files)
    return {**raw, "dataset_kwargs": {**kwargs, "data_files": files}}


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
