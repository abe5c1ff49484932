"""Show a study, or one of its trials."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.show")
