"""A program beside us: started in a session of its own, waited for, ended with all processes that it started."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from lethe.errors import UserError

END_S = 15.0
KILLED_S = 5.0
LOOK_S = 0.1


class Child:
    """A running program with its output in `folder/NAME.log`. Ctrl-C does not reach it: leaving the context ends it."""

    def __init__(
        self,
        name: str,
        command: list[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        user: str | None = None,
        end_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Start the program. `end_signal` asks it to end; `user` runs it, by default our own.

        Raises UserError where it cannot be started.
        """
        self.name, self.log, self._end_signal = name, folder / f"{name}.log", end_signal
        with self.log.open("w") as log:
            try:
                self.process = subprocess.Popen(
                    command, cwd="/", env=dict(environment), stdin=subprocess.DEVNULL, stdout=log,
                    stderr=subprocess.STDOUT, start_new_session=True, user=user, extra_groups=[] if user else None,
                )  # fmt: skip
            except OSError as error:
                whose = f" as {user}" if user else ""
                raise UserError(f"{name} cannot be started{whose}: {command[0]}: {error.strerror}") from None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def ended(self) -> bool:
        """True once the process is gone, for whatever reason."""
        return self.process.poll() is not None

    def wait_for(self, ready: Callable[[], bool], limit_s: float) -> None:
        """Wait until `ready()`. Raises UserError, with the last line of the log, where the program ends before that or
        takes longer than `limit_s`."""
        deadline = time.monotonic() + limit_s
        while not ready():
            if self.ended:
                raise UserError(f"{self.name} does not start: {self.last_line()}")
            if time.monotonic() > deadline:
                raise UserError(f"{self.name} is not ready after {limit_s:g} s: {self.last_line()}")
            time.sleep(LOOK_S)

    def last_line(self) -> str:
        """Return the last line of the log, if possible one of an error, with the log's path."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if any(word in line for word in ("FATAL", "ERROR", "rror:"))]
        return f"{(errors or lines or ['it said nothing'])[-1]} ({self.log})"

    def end(self) -> None:
        """Ask the program to end, wait, then kill it and every process that it started."""
        started = []
        with suppress(psutil.NoSuchProcess):
            started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(self._end_signal)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()  # psutil compares start times first: never another process of the same number
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(started, timeout=KILLED_S)


def check_port(port: int, option: str) -> None:
    """Raise UserError, naming `option`, where this port of loopback cannot be listened at."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: old connections do not count
        try:
            if port == 0:
                raise OverflowError
            server.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no such port"
            raise UserError(
                f"port {port} of 127.0.0.1 cannot be used ({reason}): give another one with {option}"
            ) from None


def is_listening(port: int) -> bool:
    """Tell whether a server accepts connections at this port of loopback."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0
