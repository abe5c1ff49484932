"""Compare two checkouts of this repository by the numbers that the same studies give, to the last digit.

    python -m benchmarks.same_numbers record CHECKOUT OUT.json [--home FOLDER] [--only PART]
    python -m benchmarks.same_numbers compare A.json B.json [--only PART] [--ignore PATTERN] [--show N]

`record` runs the small deterministic studies in `PARTS`, one after the other, by the command line of CHECKOUT, each
with a new storage root, and writes every number in the files that they leave. FOLDER keeps these files: a part that it
holds is not run again, only read again. `compare` prints the differences and exits with 1 if there is one. lethe is not
imported here: the two checkouts may have different modules, and only commands and files have to be the same.
Keys in OUT.json are the paths that `benchmarks.study_numbers` gives to values.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study_numbers import counted, extract, file_digest, text_digest

Difference = tuple[str, str, str]  # path, value in a, value in b
ABSENT = "(absent)"

ORDER = ["--set", "search.order=deterministic"]
WHOLE = ["--set", "early_stopping=null"]  # whatever a checkout's `tofu` has
SCALING = {
    "scaling.sizes": "{1M: null, 2M: null, 4M: null, 8M: null, 16M: null,"
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
    "run.evaluation.every": "1",
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
    "early_stopping": "{name: mo_asha, grace: 2, eta: 2, metrics: null}",
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
    "tofu": ["platform.sweep", "tofu", "--seed", "1", *ORDER, *WHOLE, "--trials", "8"],
    "tdec": ["platform.sweep", "tdec", "--seed", "1", *ORDER, "--trials", "6", "--set", "early_stopping.name=mo_asha"],
    "scaling": ["platform.scaling", "tofu", *_sets(SCALING)],
    "losses": ["platform.sweep", "tofu", *_sets(LOSS)],
    "arms": ["platform.sweep", "soul", *_sets(ARMS)],
    "zero": ["platform.sweep", "tofu", *WHOLE, *_sets(ZERO)],
}


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
    args = parser.parse_args()
    if args.command == "compare":
        return compare(args.a, args.b, args.only or (), args.ignore, args.show)
    checkout = args.checkout.resolve()
    # Short, since names of sockets are limited to about 100 characters.
    home = args.home or Path(tempfile.gettempdir(), f"sn-{text_digest(str(checkout))[:8]}")
    return record(checkout, args.out, home.resolve(), args.only or PARTS)


# Recording


def record(checkout: Path, out: Path, home: Path, parts: Iterable[str]) -> int:
    """Run every part that `home` does not hold yet, then write the numbers of all `parts` to `out`."""
    if not (checkout / "platform" / "sweep.py").is_file():
        print(f"{checkout} is no checkout: it has no platform/sweep.py", file=sys.stderr)
        return 2
    code = code_digest(checkout)
    recorded = {}
    for part in parts:
        folder = home / part
        stamp = folder / "done.json"  # written when the command has ended well
        if not stamp.is_file():
            seconds = _run(part, checkout, folder)
            if seconds is None:
                return 2
            stamp.write_text(json.dumps({"seconds": seconds, "arguments": PARTS[part], "code": code}))
        done = json.loads(stamp.read_text())
        if done["code"] != code or done["arguments"] != PARTS[part]:
            print(f"{folder} was recorded from other code or by another command: give another --home", file=sys.stderr)
            return 2
        numbers = extract(folder)
        print(f"{part}: {done['seconds']:.0f} s, {counted(numbers)}", flush=True)
        recorded[part] = {"arguments": PARTS[part], "seconds": done["seconds"], "numbers": numbers}
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, cwd=checkout, capture_output=True, text=True, check=False).stdout.strip()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"code": code, "commit": commit, "parts": recorded}, indent=0))
    return 0


def _run(part: str, checkout: Path, folder: Path) -> float | None:
    """Run one part with a new storage root in `folder`. Returns the seconds it took, None if the command failed."""
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
        code = subprocess.call(command, cwd=checkout, env=environment, stdout=file, stderr=subprocess.STDOUT)
    if code:
        print(f"{part}: exit code {code}: {' '.join(command)}\n{log.read_text()[-2000:]}", file=sys.stderr)
        return None
    return time.monotonic() - began


def code_digest(checkout: Path) -> str:
    """Digest of all that a command of the checkout reads: its packages and search spaces."""
    files = [f for top in ("platform", "search_spaces") for f in (checkout / top).rglob("*") if f.is_file()]
    lines = (f"{f.relative_to(checkout)}\0{file_digest(f)}\n" for f in sorted(files) if f.suffix != ".pyc")
    return text_digest("".join(lines))


# Comparing


def compare(a: Path, b: Path, only: Iterable[str], ignored: Sequence[str], show: int) -> int:
    """Print the differences between two recordings, the first `show` of them with both values.

    `ignored` holds patterns of paths: differences there are counted and do not matter. Returns 1 if there is another
    difference or a part is in one recording only, otherwise 0.
    """
    recordings = [json.loads(path.read_text()) for path in (a, b)]
    for name, path, recording in zip("ab", (a, b), recordings, strict=True):
        print(f"{name}: {recording['commit']} ({path})")
    differences: list[Difference] = []
    for part in only or dict.fromkeys(part for recording in recordings for part in recording["parts"]):
        x, y = (recording["parts"].get(part) for recording in recordings)
        if x is None or y is None:
            print(f"{part}: not recorded in both")
            differences.append((part, "recorded" if x else ABSENT, "recorded" if y else ABSENT))
            continue
        texts, others = _texts(x), _texts(y)
        paths = [path for path in texts | others if texts.get(path) != others.get(path)]
        in_part = [(f"{part}/{path}", texts.get(path, ABSENT), others.get(path, ABSENT)) for path in paths]
        remaining = [entry for entry in in_part if not any(fnmatch.fnmatchcase(entry[0], p) for p in ignored)]
        common = {path: leaf for path, leaf in x["numbers"].items() if path in y["numbers"]}
        counts = f"{len(remaining)} differences, {len(in_part) - len(remaining)} ignored"
        print(f"{part}: {counted(common)} compared: {counts}")
        differences += remaining
    for path, in_a, in_b in differences[:show]:
        print(f"  {path}\n    a {in_a[:200]}\n    b {in_b[:200]}")
    if len(differences) > show:
        print(f"  and {len(differences) - show} more")
    print("different" if differences else "equal")
    return 1 if differences else 0


def _texts(recorded: dict[str, Any]) -> dict[str, str]:
    """Each value's shortest text that distinguishes it from every other, by path; two NaN have the same."""
    return {path: repr(leaf) for path, leaf in ({"arguments": recorded["arguments"]} | recorded["numbers"]).items()}


if __name__ == "__main__":
    sys.exit(main())
