"""A log of what a worker group does, to attach to a bug report: LETHE_LOG=debug turns it on.

Each process of a session writes a file of its own to the folder `log` of the study: `driver.log`, `queue.log`, and one
per rank, `group-1-rank-0.log`. A line has the time (UTC), the process, the run and one event: groups that start, end or
are dissolved; leases granted, lapsed and taken; runs that begin and end; reports and their answers; heartbeats; nodes
lost. Lines hold names, numbers and verdicts, never texts of rows, settings or the wording of an error, so that
they can be shown to others. Where nodes share no disk each keeps its own files, in its copy of the study's folder.

Processes start before the study has a folder: their first lines wait in memory.
"""

from __future__ import annotations

import logging
import os
import time
from logging.handlers import MemoryHandler
from pathlib import Path

VARIABLE = "LETHE_LOG"
FOLDER = "log"  # in a study's folder
WAITING = 10_000  # lines that a process keeps until it knows where to write them


def enabled() -> bool:
    """Return whether this session logs events."""
    return os.environ.get(VARIABLE, "").lower() == "debug"


def log_folder(study: Path) -> str | None:
    """Return the folder of the logs of the study in the folder `study`; None while logging is off."""
    return str(study / FOLDER) if enabled() else None


class EventLog:
    """The event log of one process, or of one part of it. Without LETHE_LOG=debug its methods do nothing."""

    def __init__(self, process: str) -> None:
        """`process`: the name of the file and of the process in every line."""
        self._process = process
        self._folder: str | None = None
        self._logger: logging.Logger | None = None
        if enabled():
            self._logger = logging.Logger(f"lethe.events.{process}", logging.DEBUG)
            self._logger.addHandler(MemoryHandler(WAITING, flushLevel=logging.CRITICAL))

    def write_to(self, folder: str | None) -> None:
        """Write to this folder from now on, the lines that waited first; they go on waiting if that fails."""
        if self._logger is None or folder is None or folder == self._folder:
            return
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            file = logging.FileHandler(Path(folder) / f"{self._process}.log", encoding="utf-8")
        except OSError:
            return
        formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        file.setFormatter(formatter)
        for handler in list(self._logger.handlers):
            if isinstance(handler, MemoryHandler):
                handler.setTarget(file)
            self._logger.removeHandler(handler)
            handler.close()
        self._logger.addHandler(file)
        self._folder = folder

    def __call__(self, event: str, run: str = "-", **facts: str | int) -> None:
        """Log one event of a run (`-`: of none) with its facts."""
        if self._logger is not None:
            listed = " ".join(f"{name}={value}" for name, value in facts.items())
            self._logger.debug("%s", f"{self._process} run={run} {event} {listed}".rstrip())
