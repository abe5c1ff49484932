"""Compare two checkouts of this repository by the numbers that the same studies give, to the last digit.

    python -m benchmarks.same_numbers record CHECKOUT OUT.json [--home FOLDER] [--only PART]
    python -m benchmarks.same_numbers compare A.json B.json [--only PART] [--ignore PATTERN] [--show N]

`record` runs the small deterministic studies in `PARTS`, one after the other, by the command line of CHECKOUT, each
with a new storage root, and writes every number in the files that they leave. FOLDER keeps these files: a part that it
holds is not run again, only read again. `compare` prints the differences and exits with 1 if there is one. lethe is not
imported here: the two checkouts may have different modules, and only commands and files have to be the same.

Keys in OUT.json are paths of values, with names in the place of digests: `studies/study/runs/trial-3-seed-0/
result.json/series/1/forget_loss`. The digests are values themselves, so that a run whose id has changed still has its
metrics compared with those of the same trial.

Two recordings of one commit on one machine were equal in all but these, which are left out (300,000 numbers):
- seconds and dates (`TIME`), and what is fitted to seconds: `TIMED_LAWS`, the columns of `parallel` but its labels;
- resident memory of a process as the kernel counts it (`MEMORY`);
- paths (`PLACES`), and the ids that MLflow draws at random, with the files under them except saved weights.
Left out, too: the digest of the source text in the key of cached scores (`CODE`), which every edit changes; pages and
pictures of reports, which show dates (their tables are compared); files of Ray (`tune/`, `groups/`); locks.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Leaf = str | int | float | bool | None
Difference = tuple[str, str, str]  # path, value in a, value in b
ABSENT = "(absent)"

ORDER = ["--set", "search.order=deterministic"]
SCALING = {
    "scaling.sizes": "{1M: null, 4M: null, 16M: null,"
    " 0.5M: {hidden_size: 64, layers: 7}, 0.7M: {hidden_size: 96, layers: 5}}",
    "scaling.base": "0.1M",
    "scaling.cost": "{steps: 4, batch: [2, 4], workers: [1, 2], stage: [0, 2]}",
    "scaling.quality.sizes": "[0.1M, 0.3M, 0.5M]",
    "search.trials": "3",
    "search.seed": "1",
    "search.order": "deterministic",
    "run.schedule.epochs": "2",
    "run.evaluation.max_new_tokens": "16",
    "run.evaluation.max_rows": "40",
    "model.epochs": "6",
}
LOSSES = "gradient_ascent, grad_diff, kl, preference_optimization, npo, simnpo, dpo, ihl"
# A model that is made and unlearned in seconds.
TINY = {
    "search.order": "deterministic",
    "model": "{hidden_size: 64, layers: 3, epochs: 16}",
    "run.schedule.epochs": "3",
    "run.evaluation.max_rows": "16",
    "run.evaluation.max_new_tokens": "24",
}
# Every loss and both optimizers, trials that are stopped, then what is done to a front.
LOSS = TINY | {
    "search.trials": "16",
    "search.seed": "1",
    "space.objective.name": f"{{type: choice, choices: [{LOSSES}]}}",
    "space.optimizer.name": "{type: choice, choices: [sophia, adamw]}",
    "search.first": f"[{', '.join(f'{{objective.name: {name}}}' for name in LOSSES.split(', '))}]",
    "space.optimizer.learning_rate": "{low: 1e-4, high: 3e-3}",
    # A distance between 16 rows has few values; a probability has many, and the front more than one member.
    "objectives": "{forget: null, forget_probability: {direction: minimize, floor_of_start: 1.0}}",
    "early_stopping": "{name: mo_asha, grace: 2, eta: 2}",
    "confirm.seeds": "2",
    "audits": "{relearning: {steps: 2}, quantisation: {}, prompts: {}}",
}
# A comparison: arms of one trial with two seeds, methods without a gradient loss among them.
NOT_COMPARED = ("FO-GA", "SO-GA", "FO-GradDiff", "SO-GradDiff", "FO-PO", "SO-PO", "FO-NPO")
ARMS = TINY | {
    "search.trials": "1",
    "compare.seeds": "[0, 1]",
    "compare.arms": f"{{{', '.join(f'{name}: null' for name in NOT_COMPARED)}}}",
}
# Two workers, optimizer states and gradients sharded.
ZERO = TINY | {"search.trials": "2", "search.seed": "1", "run.engine": "{workers: 2, stage: 2}"}


def _sets(values: dict[str, str]) -> list[str]:
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


# By name: the arguments behind `python -m`.
PARTS: dict[str, list[str]] = {
    "tofu": ["platform.sweep", "tofu", "--seed", "1", *ORDER, "--trials", "8"],
    "tdec": ["platform.sweep", "tdec", "--seed", "1", *ORDER, "--trials", "6", "--set", "early_stopping.name=mo_asha"],
    "scaling": ["platform.scaling", "tofu", *_sets(SCALING)],
    "losses": ["platform.sweep", "tofu", *_sets(LOSS)],
    "arms": ["platform.sweep", "soul", *_sets(ARMS)],
    "zero": ["platform.sweep", "tofu", *_sets(ZERO)],
}

# Keys of records, metrics, columns: left out wherever they stand.
TIME = frozenset({
    "began", "ended", "seconds", "train_seconds", "evaluate_seconds", "prepare_seconds", "wall_seconds", "cpu_seconds",
    "communication_seconds", "step_seconds", "step_cpu_seconds", "tokens_per_second", "communication_share",
    "refresh_share", "busy", "utilisation", "matrix_rate",
    "trials_for_the_same", "random_score",  # how many trials the same seconds would have paid for
})  # fmt: skip
MEMORY = frozenset({"peak_memory_mb"})
PLACES = frozenset({"folder", "start_folder"})
CODE = frozenset({"code"})
LEFT_OUT = TIME | MEMORY | PLACES | CODE
TIMED_LAWS = frozenset({"step time", "step time by batch"})
PARALLEL_LABELS = frozenset({"kind", "stage", "workers"})
UNREAD = frozenset({"tune", "groups", "report", "mlartifacts", "checkpoint"})  # folders


def main() -> int:
    """Exit codes: 0 recorded, or equal; 1 different; 2 bad input, or a command that failed."""
    parser = argparse.ArgumentParser(prog="same_numbers", description="Compare the numbers of two checkouts.")
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run the studies of a checkout and write their numbers")
    recording.add_argument("checkout", type=Path)
    recording.add_argument("out", type=Path)
    recording.add_argument("--home", type=Path, metavar="FOLDER", help="keeps storage roots and logs; a short path")
    comparing = commands.add_parser("compare", help="print the numbers that differ")
    comparing.add_argument("a", type=Path)
    comparing.add_argument("b", type=Path)
    comparing.add_argument("--ignore", action="append", default=[], metavar="PATTERN", help="of paths, e.g. '*/run'")
    comparing.add_argument("--show", type=int, default=50, metavar="N", help="differences to print (50)")
    for command in (recording, comparing):
        command.add_argument("--only", action="append", choices=PARTS, help="this part; may be repeated")
    given = parser.parse_args()
    if given.command == "compare":
        return compare(given.a, given.b, given.only or (), given.ignore, given.show)
    checkout = given.checkout.resolve()
    # Short, since names of sockets are limited to about 100 characters.
    home = given.home or Path(tempfile.gettempdir(), f"sn-{_sha(str(checkout).encode())[:8]}")
    return record(checkout, given.out, home.resolve(), given.only or PARTS)


# Recording


def record(checkout: Path, out: Path, home: Path, parts: Iterable[str]) -> int:
    """Run every part that `home` does not hold yet, then write the numbers of all of them to `out`."""
    if not (checkout / "platform" / "sweep.py").is_file():
        print(f"{checkout} is no checkout: it has no platform/sweep.py", file=sys.stderr)
        return 2
    state = code_digest(checkout)
    recorded = {}
    for part in parts:
        folder = home / part
        done = folder / "done.json"
        found = json.loads(done.read_text()) if done.is_file() else None
        if found and (found["code"] != state or found["arguments"] != PARTS[part]):
            print(f"{folder} was recorded from other code or by another command: give another --home", file=sys.stderr)
            return 2
        if not found:
            found = _run(part, checkout, folder)
            if found is None:
                return 2
            found["code"] = state
            done.write_text(json.dumps(found))
        numbers = extract(folder)
        print(f"{part}: {found['seconds']:.0f} s, {_counted(numbers)}", flush=True)
        recorded[part] = {"arguments": PARTS[part], "seconds": found["seconds"], "numbers": numbers}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"code": state, "commit": _commit(checkout), "parts": recorded}, indent=0))
    return 0


def _run(part: str, checkout: Path, folder: Path) -> dict[str, Any] | None:
    """One part with a new storage root in `folder`; None if the command failed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "LETHE_", "OPTUNA_"))}
    environment |= {"LETHE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)  # the checkout is the working directory: its packages come first
    command = [sys.executable, "-m", *PARTS[part], "--reports", str(folder / "reports")]
    log = folder / "log"
    print(f"{part}: running, log {log}", flush=True)
    began = time.monotonic()
    with log.open("w") as file:
        done = subprocess.run(
            command, cwd=checkout, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        print(f"{part}: exit code {done.returncode}: {' '.join(command)}\n{log.read_text()[-2000:]}", file=sys.stderr)
        return None
    return {"seconds": time.monotonic() - began, "arguments": PARTS[part]}


def code_digest(checkout: Path) -> str:
    """Digest of all that a command of the checkout reads: its packages and search spaces."""
    files = [f for top in ("platform", "search_spaces") for f in (checkout / top).rglob("*") if f.is_file()]
    found = hashlib.sha256()
    for file in sorted(f for f in files if f.suffix != ".pyc"):
        found.update(f"{file.relative_to(checkout)}\0{_sha(file.read_bytes())}\n".encode())
    return found.hexdigest()


def _commit(checkout: Path) -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    return done.stdout.strip()


# From files to numbers


def extract(folder: Path) -> dict[str, Leaf]:
    """Every deterministic value in the storage root `folder/home` and in the tables of `folder/reports`, by path."""
    home = folder / "home"
    found: dict[str, Leaf] = {}
    names = Names(home)
    for file in sorted(f for f in home.rglob("*") if f.is_file()):
        below = file.relative_to(home)
        if UNREAD & set(below.parts) or any(part.startswith(".") for part in below.parts):
            continue
        if file.suffix in READERS:
            add(found, names.path(below), READERS[file.suffix](file))
    add(found, "digests", names.digests())
    if (database := home / "optuna.db").exists():
        add(found, "optuna", optuna(database, names))
    if (database := home / "mlflow.db").exists():
        add(found, "mlflow", mlflow(database, names))
    for table in sorted((folder / "reports").glob("*/*.csv")):
        add(found, f"report/{table.name}", table_of(table))
    digests = sorted(_sha(file.read_bytes()) for file in (home / "mlartifacts").rglob("*.safetensors"))
    add(found, "registered", digests)
    return found


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
        self.given: dict[str, str] = {}  # by digest
        for study in sorted((home / "studies").glob("*")):
            if study.is_dir():
                self._give(study.name, "study")
        for record in sorted((home / "studies").rglob("result.json")):
            if UNREAD.isdisjoint(record.relative_to(home).parts):
                self._give(record.parent.name, _run_name(json.loads(record.read_text())))
        for pattern, name in CONTENTS.items():
            paths = (path for path in home.glob(pattern) if not path.name.startswith("."))
            for rank, (_, path) in enumerate(sorted((_content(path), path) for path in paths)):
                self._give(path.name.removesuffix(path.suffix), f"{name}-{rank}")

    def _give(self, digest: str, name: str) -> None:
        self.given.setdefault(digest, name)

    def digests(self) -> dict[str, str]:
        """The digests that are compared, by name."""
        return {name: digest for digest, name in self.given.items() if name.partition("-")[0] in COMPARED_DIGESTS}

    def path(self, path: Path) -> str:
        """`path` with names in the place of digests."""
        return "/".join(self._part(part) for part in path.parts)

    def _part(self, part: str) -> str:
        stem, dot, suffix = part.partition(".")
        named = self.given.get(part) or f"{self.given.get(stem, stem)}{dot}{suffix}"
        return re.sub(r"-[0-9a-f]{16}(?=\.)", "", named)  # audits: a folder has one of each kind

    def text(self, text: str) -> str:
        """`text` with names in the place of digests."""
        for digest, name in self.given.items():
            text = text.replace(digest, name)
        return text


def _run_name(run: dict[str, Any]) -> str:
    seed = run["params"].get("seed")  # a confirmation has the number of the trial that it repeats, and another seed
    return f"trial-{run['number']}{'' if seed is None else f'-seed-{seed}'}"


def _content(path: Path) -> str:
    """A sort key of content alone; of scores without the key of the measurement, which has the source's digest."""
    if path.is_dir():
        files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != "training.json")
        return _sha("".join(_sha(file.read_bytes()) for file in files).encode())
    if path.suffix == ".json":
        return json.dumps(json.loads(path.read_text())["scores"])
    return _sha(path.read_bytes())


def add(found: dict[str, Leaf], where: str, value: Any) -> None:
    """Put every leaf of `value` into `found`."""
    for path, leaf in flat(where, value):
        if path in found:
            raise ValueError(f"two values for {path}")
        found[path] = leaf


def flat(where: str, value: Any) -> Iterator[tuple[str, Leaf]]:
    """(path, leaf) of nested dicts and lists, without what is left out."""
    if isinstance(value, dict):
        for key, below in chosen(value).items():
            yield from flat(f"{where}/{key}", below)
        if not value:
            yield where, "{}"
    elif isinstance(value, list | tuple):
        yield f"{where}/len", len(value)
        for number, below in enumerate(value):
            yield from flat(f"{where}/{number}", below)
    else:
        yield where, value


def chosen(value: dict[str, Any]) -> dict[str, Any]:
    """The entries of a record that are compared."""
    if {"held_out", "exponent", "name"} <= value.keys() and value["name"] in TIMED_LAWS:
        return {key: value[key] for key in ("name", "arm", "x", "unit")}
    if {"efficiency", "serial"} <= value.keys():
        return {key: below for key, below in value.items() if key in PARALLEL_LABELS}
    return {key: below for key, below in value.items() if key.rpartition(".")[2] not in LEFT_OUT}


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_json(file: Path) -> Any:
    """A record; text that is JSON itself (as in the cache of scores) is read, too."""
    text = file.read_text()
    if file.name in ("tokenizer.json",) or file.parent.parent.name == "benchmarks":
        return _sha(text.encode())
    return _inside(json.loads(text))


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _inside(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_inside(below) for below in value]
    if isinstance(value, str) and re.match(r"\s*[\[{]", value):
        try:
            return _inside(json.loads(value))
        except ValueError:
            return value
    return value


def read_parquet(file: Path) -> Any:
    """Rows of an evaluation, by column."""
    return pq.read_table(file).to_pydict()


def read_bytes(file: Path) -> str:
    """The digest of weights, of data."""
    return _sha(file.read_bytes())


READERS = {
    ".json": read_json,
    ".parquet": read_parquet,
    ".safetensors": read_bytes,
    ".jsonl": read_bytes,
    ".jinja": read_bytes,
}


def table_of(file: Path) -> dict[str, Any]:
    """A report's table by column."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}


def optuna(database: Path, names: Names) -> dict[str, Any]:
    """Optuna's studies by name: attributes, and each trial with its state, proposed parameters and told values."""
    with _open(database) as base:
        studies = list(base.execute("select study_id, study_name from studies"))
        return {names.text(name): _study(base, study) for study, name in studies}


def _study(base: sqlite3.Connection, study: int) -> dict[str, Any]:
    trials = list(base.execute("select trial_id, number, state from trials where study_id = ?", [study]))
    numbered = {f"number-{number}": {"state": state, **_trial(base, trial)} for trial, number, state in trials}
    return {**_attributes(base, "study", study), **numbered}


def _trial(base: sqlite3.Connection, trial: int) -> dict[str, Any]:
    asked = "select param_name, param_value, distribution_json from trial_params where trial_id = ?"
    told = "select value from trial_values where trial_id = ? order by objective"
    return {
        "params": {key: [value, json.loads(space)] for key, value, space in base.execute(asked, [trial])},
        "values": [value for (value,) in base.execute(told, [trial])],
        **_attributes(base, "trial", trial),
    }


def _attributes(base: sqlite3.Connection, owner: str, number: int) -> dict[str, Any]:
    found = {}
    for kind in ("user", "system"):
        rows = base.execute(f"select key, value_json from {owner}_{kind}_attributes where {owner}_id = ?", [number])
        found[kind] = {key: _inside(json.loads(value)) for key, value in rows}
    return found


def mlflow(database: Path, names: Names) -> dict[str, Any]:
    """MLflow's runs by name: metrics by step, parameters, lethe's tags; and the registered models' aliases."""
    found: dict[str, list[dict[str, Any]]] = {}
    with _open(database) as base:
        for run, name in list(base.execute("select run_uuid, name from runs where lifecycle_stage = 'active'")):
            found.setdefault(names.text(name), []).append(_tracked(base, run))
        aliases = base.execute("select name, alias, version from registered_model_aliases order by name, alias")
        registered = [list(row) for row in aliases]
    for runs in found.values():  # those of one name are in no order of their own
        runs.sort(key=lambda run: json.dumps([run["params"], run["tags"].get("lethe.run")], sort_keys=True))
    return {"runs": found, "aliases": registered}


def _tracked(base: sqlite3.Connection, run: str) -> dict[str, Any]:
    metrics: dict[str, dict[str, float]] = {}
    for key, value, step, nan in base.execute("select key, value, step, is_nan from metrics where run_uuid = ?", [run]):
        metrics.setdefault(key, {})[str(step)] = float("nan") if nan else value
    params = base.execute("select key, value from params where run_uuid = ?", [run])
    tags = base.execute("select key, value from tags where run_uuid = ? and key not like 'mlflow.%'", [run])
    return {"metrics": metrics, "params": dict(params), "tags": dict(tags)}


@contextmanager
def _open(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as base:
        yield base


# Comparing


def compare(a: Path, b: Path, only: Iterable[str], ignored: Sequence[str], show: int) -> int:
    """Print the differences between two recordings, `show` of them whole. Returns 1 if there is one, or if a part is
    in one recording only. `ignored`: patterns of paths, whose differences are counted and do not matter."""
    recordings = [json.loads(path.read_text()) for path in (a, b)]
    for name, path, recording in zip("ab", (a, b), recordings, strict=True):
        print(f"{name}: {recording['commit']} ({path})")
    differences: list[Difference] = []
    for part in only or dict.fromkeys(part for recording in recordings for part in recording["parts"]):
        pair = [recording["parts"].get(part) for recording in recordings]
        if pair[0] is None or pair[1] is None:
            print(f"{part}: not recorded in both")
            x, y = ("recorded" if recorded else ABSENT for recorded in pair)
            differences.append((part, x, y))
            continue
        found = list(_differences(part, *pair))
        kept = [entry for entry in found if not any(fnmatch.fnmatchcase(entry[0], pattern) for pattern in ignored)]
        common = {where: leaf for where, leaf in pair[0]["numbers"].items() if where in pair[1]["numbers"]}
        print(f"{part}: {_counted(common)} compared: {len(kept)} differences, {len(found) - len(kept)} ignored")
        differences += kept
    for where, x, y in differences[:show]:
        print(f"  {where}\n    a {x[:200]}\n    b {y[:200]}")
    if len(differences) > show:
        print(f"  and {len(differences) - show} more")
    print("different" if differences else "equal")
    return 1 if differences else 0


def _differences(part: str, a: dict[str, Any], b: dict[str, Any]) -> Iterator[Difference]:
    if a["arguments"] != b["arguments"]:
        yield f"{part}/arguments", str(a["arguments"]), str(b["arguments"])
    for path in dict.fromkeys([*a["numbers"], *b["numbers"]]):
        x, y = _shown(a["numbers"], path), _shown(b["numbers"], path)
        if x != y:
            yield f"{part}/{path}", x, y


def _shown(numbers: dict[str, Leaf], path: str) -> str:
    """The shortest text that distinguishes a value from every other. NaN has one, too: two of them are equal."""
    return repr(numbers[path]) if path in numbers else ABSENT


def _counted(numbers: dict[str, Leaf]) -> str:
    count = sum(isinstance(leaf, int | float) and not isinstance(leaf, bool) for leaf in numbers.values())
    return f"{count} numbers and {len(numbers) - count} other values"


if __name__ == "__main__":
    sys.exit(main())
