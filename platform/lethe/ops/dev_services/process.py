"""One program that runs beside us: started in a session of its own, waited for, ended with all that it started."""

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
    """Running from the start. What it prints goes to `folder/NAME.log`; Ctrl-C reaches us alone, and we end it."""

    def __init__(
        self,
        name: str,
        command: list[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        user: str | None = None,
        ask: signal.Signals = signal.SIGTERM,
    ) -> None:
        """`ask`: what asks the program to end. `user`: whose it is, where that is not us."""
        self.name, self.log, self._ask = name, folder / f"{name}.log", ask
        with self.log.open("w") as log:
            try:
                self.process = subprocess.Popen(
                    command, cwd="/", env=dict(environment), stdin=subprocess.DEVNULL, stdout=log,
                    stderr=subprocess.STDOUT, start_new_session=True, user=user, extra_groups=None if user is None else [],
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
        """Whether it is gone, by whatever cause."""
        return self.process.poll() is not None

    def wait_for(self, ready: Callable[[], bool], limit_s: float) -> None:
        """Until `ready`; BadInput with the last that it said where it ends before, or takes longer."""
        deadline = time.monotonic() + limit_s
        while not ready():
            if self.ended:
                raise UserError(f"{self.name} does not start: {self.said()}")
            if time.monotonic() > deadline:
                raise UserError(f"{self.name} is not ready after {limit_s:g} s: {self.said()}")
            time.sleep(LOOK_S)

    def said(self) -> str:
        """The last line of its log that tells something, and where the rest is."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line for word in ("FATAL", "ERROR", "rror:"))]
        return f"{(telling or lines or ['it said nothing'])[-1]} ({self.log})"

    def end(self) -> None:
        """Ask, wait, kill what is left of it. Processes are known by their start as well as by their number."""
        started = []
        with suppress(psutil.NoSuchProcess):
            started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(self._ask)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()  # which looks first whether it is still the same one
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(started, timeout=KILLED_S)


def check_port(port: int, option: str) -> None:
    """Raise BadInput where something listens at this port of loopback already."""
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


def answers(port: int) -> bool:
    """Whether something accepts connections at this port of loopback."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0
