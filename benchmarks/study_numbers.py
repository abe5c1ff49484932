"""Every deterministic value in the files that a study leaves: read by `benchmarks.same_numbers`.

A value is known by its path, with names in the place of digests: `studies/study/runs/trial-3-seed-0/
result.json/series/1/forget_loss`. The digests are values themselves, so that a run whose id has changed still has its
metrics compared with those of the same trial.

Two recordings of one commit on one machine were equal in all but these, which are left out (300,000 numbers):
- seconds, dates, memory and paths (`LEFT_OUT`);
- laws fitted to seconds (`TIMED_LAWS`), and the columns of `parallel` but its labels;
- the ids that MLflow draws at random, with the files under them except saved weights.
Left out, too: the digest of the source text in the key of cached scores, which every edit changes; pages and pictures
of reports, which show dates (their tables are compared); files of Ray (`tune/`, `groups/`); locks.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Leaf = str | int | float | bool | None
Numbers = dict[str, Leaf]  # by path

# Keys of records, metrics and columns that are left out wherever they stand.
LEFT_OUT = frozenset({
    "began", "ended", "seconds", "train_seconds", "evaluate_seconds", "prepare_seconds", "wall_seconds", "cpu_seconds",
    "communication_seconds", "step_seconds", "step_cpu_seconds", "tokens_per_second", "communication_share",
    "refresh_share", "busy", "utilisation", "matrix_rate",
    "trials_for_the_same", "random_score",  # how many trials the same seconds would have paid for
    "peak_memory_mb",  # of a process, as the kernel counts it
    "folder", "start_folder",
    "code",  # the digest of the source text
})  # fmt: skip
TIMED_LAWS = frozenset({"step time", "step time by batch"})
PARALLEL_LABELS = frozenset({"kind", "stage", "workers"})
UNREAD_FOLDERS = frozenset({"tune", "groups", "report", "mlartifacts", "checkpoint"})


def text_digest(text: str) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def extract(folder: Path) -> Numbers:
    """Every deterministic value in the storage root `folder/home` and in the tables of `folder/reports`.

    Raises:
        ValueError: two values have the same path.
    """
    numbers: Numbers = {}
    for where, value in _contents(folder / "home", folder / "reports"):
        for path, leaf in leaves(where, value):
            if path in numbers:
                raise ValueError(f"two values for {path}")
            numbers[path] = leaf
    return numbers


def _contents(home: Path, reports: Path) -> Iterator[tuple[str, Any]]:
    """(path, value) of files, digests, databases and tables; a value may be nested."""
    names = Names(home)
    for file in sorted(f for f in home.rglob("*") if f.is_file() and f.suffix in READERS):
        below = file.relative_to(home)
        if UNREAD_FOLDERS.isdisjoint(below.parts) and not any(part.startswith(".") for part in below.parts):
            yield names.in_path(below), READERS[file.suffix](file)
    yield "digests", names.compared_digests()
    for database, reader in ((home / "optuna.db", optuna), (home / "mlflow.db", mlflow)):
        if database.exists():
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
                yield database.stem, reader(connection, names)
    for table in sorted(reports.glob("*/*.csv")):
        yield f"report/{table.name}", read_table(table)
    yield "registered", sorted(file_digest(file) for file in (home / "mlartifacts").rglob("*.safetensors"))


def leaves(where: str, value: Any) -> Iterator[tuple[str, Leaf]]:
    """(path, leaf) of nested dicts and lists below the path `where`, without what is left out."""
    if isinstance(value, dict):
        for key, below in _compared_entries(value).items():
            yield from leaves(f"{where}/{key}", below)
        if not value:
            yield where, "{}"
    elif isinstance(value, list | tuple):
        yield f"{where}/len", len(value)
        for number, below in enumerate(value):
            yield from leaves(f"{where}/{number}", below)
    else:
        yield where, value


def _compared_entries(record: dict[str, Any]) -> dict[str, Any]:
    """The entries of `record` that are the same in every recording of a commit."""
    if {"held_out", "exponent", "name"} <= record.keys() and record["name"] in TIMED_LAWS:
        return {key: record[key] for key in ("name", "arm", "x", "unit")}
    if {"efficiency", "serial"} <= record.keys():
        return {key: below for key, below in record.items() if key in PARALLEL_LABELS}
    return {key: below for key, below in record.items() if key.rpartition(".")[2] not in LEFT_OUT}


# Folders and files with a digest for a name, and what they are called here.
CONTENTS = {
    "models/*": "model",
    "benchmarks/*": "data",
    "cache/scores/*.json": "scores",
    "cache/adapters/factors-*.safetensors": "factors",
    "cache/adapters/fisher-*.safetensors": "fisher",
}
# Their digests are compared. Runs have theirs in their records; those of scores depend on the source text.
COMPARED_DIGESTS = ("study", "model", "data", "factors", "fisher")


class Names:
    """Names that do not depend on digests: a run is called by its trial's number and seed, other content by its rank
    among the contents of its kind."""

    def __init__(self, home: Path) -> None:
        self._names = {path.name: "study" for path in sorted((home / "studies").glob("*")) if path.is_dir()}
        for file in sorted((home / "studies").rglob("result.json")):
            if UNREAD_FOLDERS.isdisjoint(file.relative_to(home).parts):
                self._names.setdefault(file.parent.name, _run_name(json.loads(file.read_text())))
        for pattern, kind in CONTENTS.items():
            paths = (path for path in home.glob(pattern) if not path.name.startswith("."))
            for rank, (_, path) in enumerate(sorted((_sort_key(path), path) for path in paths)):
                self._names.setdefault(path.name.removesuffix(path.suffix), f"{kind}-{rank}")

    def compared_digests(self) -> dict[str, str]:
        """Digests by name, of the kinds in `COMPARED_DIGESTS`."""
        return {name: digest for digest, name in self._names.items() if name.partition("-")[0] in COMPARED_DIGESTS}

    def in_path(self, path: Path) -> str:
        """`path` with names in the place of digests."""
        return "/".join(self._in_part(part) for part in path.parts)

    def _in_part(self, part: str) -> str:
        stem, dot, suffix = part.partition(".")
        named = self._names.get(part) or f"{self._names.get(stem, stem)}{dot}{suffix}"
        return re.sub(r"-[0-9a-f]{16}(?=\.)", "", named)  # audits: a folder has one of each kind

    def in_text(self, text: str) -> str:
        """`text` with names in the place of digests."""
        for digest, name in self._names.items():
            text = text.replace(digest, name)
        return text


def _run_name(run: dict[str, Any]) -> str:
    seed = run["params"].get("seed")  # a confirmation has the number of the trial that it repeats, and another seed
    return f"trial-{run['number']}{'' if seed is None else f'-seed-{seed}'}"


def _sort_key(path: Path) -> str:
    """Text that depends on content alone; for scores without the key of the measurement, which has the source's
    digest."""
    if path.is_dir():
        files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != "training.json")
        return text_digest("".join(map(file_digest, files)))
    if path.suffix == ".json":
        return json.dumps(json.loads(path.read_text())["scores"])
    return file_digest(path)


def read_json(file: Path) -> Any:
    """The values of a record; of a tokenizer or a benchmark's data the digest."""
    if file.name == "tokenizer.json" or file.parent.parent.name == "benchmarks":
        return file_digest(file)
    return _parsed(json.loads(file.read_text()))


def _parsed(value: Any) -> Any:
    """`value` with every text in it that is JSON itself (as in the cache of scores) parsed."""
    if isinstance(value, dict):
        return {key: _parsed(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_parsed(below) for below in value]
    if isinstance(value, str) and re.match(r"\s*[\[{]", value):
        try:
            return _parsed(json.loads(value))
        except ValueError:
            return value
    return value


def read_parquet(file: Path) -> Any:
    """Rows of an evaluation, by column."""
    return pq.read_table(file).to_pydict()


def read_table(file: Path) -> dict[str, Any]:
    """A report's table by column."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}


READERS = {
    ".json": read_json,
    ".parquet": read_parquet,
    ".safetensors": file_digest,
    ".jsonl": file_digest,
    ".jinja": file_digest,
}


def optuna(database: sqlite3.Connection, names: Names) -> dict[str, Any]:
    """Optuna's studies by name: attributes, and each trial with its state, proposed parameters and told values."""
    studies = {}
    for study, name in list(database.execute("select study_id, study_name from studies")):
        studies[names.in_text(name)] = record = _attributes(database, "study", study)
        trials = database.execute("select trial_id, number, state from trials where study_id = ?", [study])
        for trial, number, state in list(trials):
            record[f"number-{number}"] = {"state": state, **_trial(database, trial)}
    return studies


def _trial(database: sqlite3.Connection, trial: int) -> dict[str, Any]:
    params = "select param_name, param_value, distribution_json from trial_params where trial_id = ?"
    values = "select value from trial_values where trial_id = ? order by objective"
    return {
        "params": {key: [value, json.loads(space)] for key, value, space in database.execute(params, [trial])},
        "values": [value for (value,) in database.execute(values, [trial])],
        **_attributes(database, "trial", trial),
    }


def _attributes(database: sqlite3.Connection, owner: str, number: int) -> dict[str, Any]:
    """The user's and the system's attributes of a study or trial."""
    attributes = {}
    for kind in ("user", "system"):
        rows = database.execute(f"select key, value_json from {owner}_{kind}_attributes where {owner}_id = ?", [number])
        attributes[kind] = {key: _parsed(json.loads(value)) for key, value in rows}
    return attributes


def mlflow(database: sqlite3.Connection, names: Names) -> dict[str, Any]:
    """MLflow's runs by name: metrics by step, parameters, lethe's tags; and the registered models' aliases."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for run, name in list(database.execute("select run_uuid, name from runs where lifecycle_stage = 'active'")):
        runs.setdefault(names.in_text(name), []).append(_tracked_run(database, run))
    for same_name in runs.values():  # in no order of their own
        same_name.sort(key=lambda run: json.dumps([run["params"], run["tags"].get("lethe.run")], sort_keys=True))
    aliases = database.execute("select name, alias, version from registered_model_aliases order by name, alias")
    return {"runs": runs, "aliases": list(aliases)}


def _tracked_run(database: sqlite3.Connection, run: str) -> dict[str, Any]:
    metrics: dict[str, dict[str, float]] = {}
    rows = database.execute("select key, value, step, is_nan from metrics where run_uuid = ?", [run])
    for key, value, step, nan in rows:
        metrics.setdefault(key, {})[str(step)] = float("nan") if nan else value
    params = database.execute("select key, value from params where run_uuid = ?", [run])
    tags = database.execute("select key, value from tags where run_uuid = ? and key not like 'mlflow.%'", [run])
    return {"metrics": metrics, "params": dict(params), "tags": dict(tags)}


def counted(numbers: Numbers) -> str:
    """A phrase with the count of numbers and that of other values."""
    count = sum(isinstance(leaf, int | float) and not isinstance(leaf, bool) for leaf in numbers.values())
    return f"{count} numbers and {len(numbers) - count} other values"
