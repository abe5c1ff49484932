"""`services`: MLflow with logins over PostgreSQL and an S3 store, on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lethe.cli.arguments import parse_arguments
from lethe.errors import EXIT_RETRY_LATER, UserError, exit_codes
from lethe.interrupts import may_take_long
from lethe.storage.paths import ensure_writable, home, root, store

FOLDER = "services"  # in the storage root
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="services",
        description="Run MLflow with logins over PostgreSQL and an S3 store on this machine, for development.",
    )
    parser.add_argument("--port", type=int, default=5000, metavar="N", help="MLflow's (5000), on loopback")
    parser.add_argument("--store-port", type=int, default=9000, metavar="N", help="the S3 store's (9000), on loopback")
    return parser


@exit_codes
def main(argv: list[str] | None = None) -> int:
    """Run the services until a signal ends them; return the exit code.

    0: ended by Ctrl-C, SIGTERM or a closed terminal, 2: bad input, 75: a service ended by itself.
    """
    args = parse_arguments(_parser(), argv)
    for option, port in (("--port", args.port), ("--store-port", args.store_port)):
        if not 0 < port < 2**16:
            raise UserError(f"{option} {port}: must lie between 1 and {2**16 - 1}")
    from lethe.ops.dev_services.supervisor import run_services

    if store():
        raise UserError(
            f"LETHE_HOME={root()} is where studies go; the services keep theirs in a folder: unset it for them"
        )
    folder = ensure_writable(home()) / FOLDER
    try:
        with may_take_long(), _interrupted_once(), run_services(folder, args.port, args.store_port) as running:
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
