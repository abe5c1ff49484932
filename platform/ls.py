"""List the studies, the latest first."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.ls")
