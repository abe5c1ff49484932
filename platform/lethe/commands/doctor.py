"""`doctor`: check this machine, the cluster and the services, and say how to mend what is wrong."""

from __future__ import annotations

import argparse

from lethe.doctor.check import examine
from lethe.errors import BAD_INPUT, guard


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="doctor", description="Check this machine, the cluster and the services, and say how to mend what is wrong."
    )
    parser.add_argument("--quick", action="store_true", help="only what takes less than three seconds: starts nothing")
    parser.add_argument("--grow", action="store_true", help="let an autoscaling cluster start the nodes that a run needs")
    return parser


@guard
def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 nothing is wrong, 2 something is."""
    args = _parser().parse_args(argv)
    from lethe.doctor.machine import quick
    from lethe.sweep.cluster import prepare_environment

    prepare_environment()
    wrong = examine(quick())
    if not args.quick and not wrong:
        wrong = _full(args.grow)
    return BAD_INPUT if wrong else 0


def _full(grow: bool) -> int:
    """What needs a cluster: the one of RAY_ADDRESS, or one of our own for the time of the checks."""
    from lethe.doctor.nodes import checks
    from lethe.doctor.workers import Workers
    from lethe.sweep.cluster import check_address, connect

    import ray

    connect(check_address())
    try:
        return examine([*checks(), *Workers(grow).checks()])
    finally:
        ray.shutdown()
