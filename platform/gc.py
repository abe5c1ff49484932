"""Show what studies hold on disk, and free it."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.gc")
