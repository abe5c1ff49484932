"""Check this machine, the cluster and the services, and say how to mend what is wrong."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.doctor")
