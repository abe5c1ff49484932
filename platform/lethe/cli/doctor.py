"""`doctor`: check this machine, the cluster and the services, and say how to mend what is wrong."""

from __future__ import annotations

from typing import Annotated

import typer

from lethe.cli.app import command
from lethe.errors import EXIT_USER_ERROR


@command("doctor", "lethe doctor --quick\nRAY_ADDRESS=auto lethe doctor --grow")
def main(
    quick: Annotated[bool, typer.Option("--quick", help="Only what takes seconds: start nothing.")] = False,
    grow: Annotated[bool, typer.Option("--grow", help="Let an autoscaling cluster start the nodes of a run.")] = False,
) -> int:
    """Check machine, cluster and services, and say how to mend them.

    Exit codes: 0 nothing is wrong, 2 something is.
    """
    from lethe.ops.doctor import machine
    from lethe.ops.doctor.checks import run_checks
    from lethe.pool.cluster import prepare_environment

    prepare_environment()
    wrong = run_checks(machine.quick())
    if not quick and not wrong:
        wrong = _run_cluster_checks(grow)
    return EXIT_USER_ERROR if wrong else 0


def _run_cluster_checks(grow: bool) -> int:
    """Run the checks on a cluster, that of RAY_ADDRESS or our own for the time being; return how many failed."""
    import ray

    from lethe.ops.doctor.checks import run_checks
    from lethe.ops.doctor.workers import Workers, node_checks
    from lethe.pool.cluster import check_address, connect

    connect(check_address())
    try:
        return run_checks([*node_checks(), *Workers(grow).checks()])
    finally:
        ray.shutdown()
