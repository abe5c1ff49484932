"""Ctrl-C and SIGTERM, from the first line of a command to its end.

`run_command` is the way into every command. It imports the standard library only, so that signals are handled before
anything else is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType
from typing import NoReturn

from lethe.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, flush_output

LIMIT_S = 8.0  # from a signal to the end of a process that does not end by itself
IMPORT_S = 2.0  # the same where the main thread imports all the time
SHOW_CURSOR = b"\x1b[?25h"
RETRY_S = 0.05  # from an interrupt that could not be raised to the next try

_unlimited = 0  # blocks of `may_take_long` that the main thread is in
_noted: float | None = None  # when a signal came that waits for an import to be over


def run_command(module: str, **options: str) -> NoReturn:
    """Import a command's module, run its `main` with these options, and end the process with the exit code.

    Ctrl-C and SIGTERM are a KeyboardInterrupt in the main thread, once it is not importing. Where that does not end the
    process within `LIMIT_S` seconds, the process is ended. A Python without the packages that lethe needs gets one line
    and exit code 2.
    """
    _handle_signals()
    try:
        command = import_module(module)
    except KeyboardInterrupt:
        _end_now()
    except ModuleNotFoundError as error:
        if str(error.name).startswith("lethe"):
            raise
        print(
            f"lethe: {sys.executable} has no {error.name}: make install makes an environment in .venv", file=sys.stderr
        )
        raise SystemExit(EXIT_USER_ERROR) from None
    try:
        code = command.main(**options)
    except KeyboardInterrupt:  # before or after the command, which has its own ending
        _end_now()
    if code == 0:
        raise SystemExit(code)
    # Other threads may be anywhere, in an import for one: Python would wait for some of them, and crash in others.
    with suppress(OSError, ValueError):
        flush_output()
    os._exit(code)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; later, if `frame` is inside an import. A signal handler.

    An import that is cut off leaves its lock behind, for which other threads wait for ever, and modules half made.
    """
    global _noted  # signals are the process's
    if not _is_importing(frame):
        _noted = None
        raise KeyboardInterrupt
    now = time.monotonic()
    _noted = _noted or now
    if now - _noted > IMPORT_S and not _unlimited:
        _end_now()
    signal.setitimer(signal.ITIMER_REAL, RETRY_S)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def may_take_long() -> Iterator[None]:
    """Set no limit, inside the block, to the time between a signal and the end: the block itself ends at signals, and
    keeps what is finished."""
    global _unlimited  # signals are the process's
    _unlimited += 1
    try:
        yield
    finally:
        _unlimited -= 1


def _handle_signals() -> None:
    sys.unraisablehook = _interrupt_again
    signal.signal(signal.SIGINT, interrupt)  # also where a shell ignores it for what it starts with `&`
    for number in (signal.SIGTERM, signal.SIGALRM):  # SIGALRM: of a timer, to try again
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # Python writes a signal's number there at once, even if the main thread does not come to run a handler.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_limit, args=(reader,), name="signals", daemon=True).start()


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """Interrupt again, `RETRY_S` later, if Python dropped a KeyboardInterrupt, as it does in destructors."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, RETRY_S)
    else:
        sys.__unraisablehook__(lost)


def _limit(signals: int) -> None:
    """End the process `LIMIT_S` seconds after the first signal that comes outside of `may_take_long`."""
    while number := os.read(signals, 1):
        if number[0] in (signal.SIGINT, signal.SIGTERM) and not _unlimited:
            time.sleep(LIMIT_S)
            if not _unlimited:
                _end_now()


def _end_now() -> NoReturn:
    """End the process wherever its threads are; whatever it has to keep is on disk already."""
    # By no stream: another thread may hold its lock. A progress display may have hidden the cursor.
    os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + b"lethe: interrupted\n")
    os._exit(EXIT_INTERRUPTED)
