"""`doctor`: check this machine, the cluster and the services, and say how to mend what is wrong."""

from __future__ import annotations

import argparse

from lethe.errors import EXIT_USER_ERROR, exit_codes
from lethe.ops.doctor.checks import run_checks


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="doctor",
        description="Check this machine, the cluster and the services, and say how to mend what is wrong.",
    )
    parser.add_argument("--quick", action="store_true", help="only what takes less than three seconds: starts nothing")
    parser.add_argument(
        "--grow", action="store_true", help="let an autoscaling cluster start the nodes that a run needs"
    )
    return parser


@exit_codes
def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 nothing is wrong, 2 something is."""
    args = _parser().parse_args(argv)
    from lethe.ops.doctor.machine import quick
    from lethe.pool.cluster import prepare_environment

    prepare_environment()
    wrong = run_checks(quick())
    if not args.quick and not wrong:
        wrong = _full(args.grow)
    return EXIT_USER_ERROR if wrong else 0


def _full(grow: bool) -> int:
    """What needs a cluster: the one of RAY_ADDRESS, or one of our own for the time of the checks."""
    import ray
    from lethe.ops.doctor.nodes import node_checks
    from lethe.ops.doctor.workers import Workers
    from lethe.pool.cluster import check_address, connect

    connect(check_address())
    try:
        return run_checks([*node_checks(), *Workers(grow).checks()])
    finally:
        ray.shutdown()
