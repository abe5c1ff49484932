"""Trainings of small models in processes of their own, at the same time, with their progress on the console.

Processes are started afresh (never forked: the parent may hold Ray's and torch's threads) and receive their work as
JSON on stdin. They do not import the parent's main module, so it does not matter how lethe was started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import lethe
from lethe.terminal import Terminal

ProgressReport = Callable[[str, float], None]  # name of a training, its finished share

LINE_S = 60.0  # between lines about one training

# The child finds lethe where the parent did: a checkout, a Ray working directory or an installation.
_BOOT = """
import importlib.util, sys
where = sys.argv[1]
spec = importlib.util.spec_from_file_location("lethe", where + "/__init__.py", submodule_search_locations=[where])
sys.modules["lethe"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from lethe.models.subprocess_child import main
main()
"""


@dataclass(frozen=True, slots=True)
class Training:
    """One model to train, as plain values; `config` is an AnyEmbedded's JSON, `folder` exists. A pair without a
    question is plain text, of which the first `length` tokens are trained on."""

    name: str
    config: str
    tokenizer: str
    pairs: tuple[tuple[str, str], ...]
    folder: Path
    length: int = 0


def train_in_subprocesses(trainings: Sequence[Training], report: ProgressReport, threads: int) -> None:
    """Train all of them at once, each with so many threads, and pass their progress to `report`. An error or Ctrl-C
    ends the processes, too. Raises RuntimeError with the last lines of a training that failed."""
    started: list[tuple[subprocess.Popen[str], IO[str]]] = []
    try:
        for _ in trainings:
            started.append(_start(threads))  # noqa: PERF401, those that have started are ended even where one fails
        with ThreadPoolExecutor(max(1, len(trainings))) as pool:
            try:
                follow = (pool.submit(_follow, t, *s, report) for t, s in zip(trainings, started, strict=True))
                for future in list(follow):
                    future.result()
            except BaseException:  # Ctrl-C, too
                _kill(started)  # before the pool waits for its threads, which wait for the processes
                raise
    finally:
        _kill(started)


def _start(threads: int) -> tuple[subprocess.Popen[str], IO[str]]:
    errors = TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115, `_kill` closes it
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(
        # -P: the working directory may hold anything, `platform` for one.
        [sys.executable, "-P", "-c", _BOOT, str(Path(lethe.__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        encoding="utf-8",
        env=environment,
        start_new_session=True,  # Ctrl-C reaches the parent only, which ends its children itself
    )
    return process, errors


def _kill(started: Sequence[tuple[subprocess.Popen[str], IO[str]]]) -> None:
    for process, _ in started:
        process.kill()
    for process, errors in started:
        process.wait()
        errors.close()


def _follow(training: Training, process: subprocess.Popen[str], errors: IO[str], report: ProgressReport) -> None:
    """Send a child its work, then pass its progress on until it ends."""
    assert process.stdin
    assert process.stdout
    try:
        with process.stdin as stdin:
            json.dump(
                {
                    "config": training.config,
                    "tokenizer": training.tokenizer,
                    "pairs": training.pairs,
                    "folder": str(training.folder),
                    "length": training.length,
                },
                stdin,
            )
    except BrokenPipeError:
        pass  # the child is gone: its exit code says more
    with process.stdout as stdout:
        for line in stdout:
            report(training.name, float(line))
    if process.wait() != 0:
        errors.seek(0)
        tail = errors.read().strip().splitlines()[-15:]
        raise RuntimeError(f"training the {training.name} ended with {process.returncode}:\n" + "\n".join(tail))


@contextmanager
def console_report(names: Sequence[str]) -> Iterator[ProgressReport]:
    """Yield a function that takes finished shares by name, from any thread, and shows them with the time left: bars on
    a terminal, elsewhere a line per quarter and, of a long training, per minute. A smaller share than before is not
    shown."""
    console = Terminal(soft_wrap=True)
    if not console.is_terminal:
        console.print(f"training {' and '.join(names)}; they are kept for the next study")
        yield _lines(console)
        return
    columns = (
        TextColumn("training {task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {name: bars.add_task(name, total=1.0) for name in names}
        done = dict.fromkeys(names, 0.0)

        def report(name: str, share: float) -> None:
            done[name] = max(share, done[name])
            bars.update(tasks[name], completed=done[name])

        yield report


def _lines(console: Terminal) -> ProgressReport:
    first: dict[str, tuple[float, float]] = {}  # seconds and share at the first report: a resumed training begins late
    shown: dict[str, tuple[float, float]] = {}

    def report(name: str, share: float) -> None:
        now = time.monotonic()
        began, at = first.setdefault(name, (now, share))
        said, before = shown.setdefault(name, (now, 0.0))
        minute = now - said >= LINE_S and int(100 * share) > int(100 * before)
        if int(4 * share) <= int(4 * before) and not minute:
            return
        shown[name] = now, share
        left = (now - began) * (1 - share) / (share - at) if at < share < 1 else 0.0
        console.print(f"training {name}: {int(100 * share)} %" + (f", {_duration(left)} left" if left >= 1 else ""))

    return report


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
