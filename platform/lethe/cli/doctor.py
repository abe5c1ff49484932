"""`doctor`: check this machine, the cluster and the services, and say how to mend what is wrong."""

from __future__ import annotations

import argparse

from lethe.cli.arguments import parse_arguments
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
    """Run the checks and print a line for each; return 0 where nothing is wrong, else 2."""
    args = parse_arguments(_parser(), argv)
    from lethe.ops.doctor.machine import quick
    from lethe.pool.cluster import prepare_environment

    prepare_environment()
    wrong = run_checks(quick())
    if not args.quick and not wrong:
        wrong = _run_cluster_checks(args.grow)
    return EXIT_USER_ERROR if wrong else 0


def _run_cluster_checks(grow: bool) -> int:
    """Run the checks on a cluster, that of RAY_ADDRESS or our own for the time being; return how many failed."""
    import ray

    from lethe.ops.doctor.workers import Workers, node_checks
    from lethe.pool.cluster import check_address, connect

    connect(check_address())
    try:
        return run_checks([*node_checks(), *Workers(grow).checks()])
    finally:
        ray.shutdown()
