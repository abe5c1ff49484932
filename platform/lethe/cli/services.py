"""`services`: MLflow with logins over PostgreSQL and an S3 store, on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from lethe.cli.app import command
from lethe.errors import EXIT_RETRY_LATER, UserError
from lethe.interrupts import may_take_long

FOLDER = "services"  # in the storage root
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@command("services", "lethe services\nlethe services --port 5001 --store-port 9001")
def main(
    port: Annotated[int, typer.Option(metavar="N", help="MLflow's, on loopback.")] = 5000,
    store_port: Annotated[int, typer.Option(metavar="N", help="The S3 store's, on loopback.")] = 9000,
) -> int:
    """Run MLflow with logins and an S3 store here, for development.

    They run until Ctrl-C, and their data stay. Exit codes: 0 ended by Ctrl-C, SIGTERM or a closed terminal, 2 bad
    input, 75 a service ended by itself.
    """
    for option, given in (("--port", port), ("--store-port", store_port)):
        if not 0 < given < 2**16:
            raise UserError(f"{option} {given}: must lie between 1 and {2**16 - 1}")
    from lethe.ops.dev_services.supervisor import run_services
    from lethe.storage.paths import ensure_writable, home, root, store

    if store():
        raise UserError(
            f"LETHE_HOME={root()} is where studies go; the services keep theirs in a folder: unset it for them"
        )
    folder = ensure_writable(home()) / FOLDER
    try:
        with may_take_long(), _interrupted_once(), run_services(folder, port, store_port) as running:
            print(f"MLflow with logins: {running.uri}; in the shell of a study: . {running.login}", flush=True)
            print(f"S3 store: {running.store_uri}; its keys: . {running.store}", flush=True)
            print(f"data, logs and passwords: {folder}; Ctrl-C ends all three, and the data stay", flush=True)
            ended = running.wait()
    except KeyboardInterrupt:
        print("ended", flush=True)
        return 0
    print(f"lethe: {ended.name} ended by itself, so the others were ended: {ended.last_line()}", file=sys.stderr)
    return EXIT_RETRY_LATER


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at the first of END_SIGNALS, and ignore those that follow.

    SIGINT counts also where a shell ignores it for programs that it starts with `&`. Under nohup a closed terminal
    ends nothing.
    """

    def interrupt(*_: object) -> None:
        for number in END_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    under_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    handled = [number for number in END_SIGNALS if not (under_nohup and number is signal.SIGHUP)]
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
