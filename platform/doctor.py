"""Check machine, cluster and services, and say how to mend them."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.doctor")
