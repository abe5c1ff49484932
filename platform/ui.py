"""Open MLflow on a study's trials."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.ui")
