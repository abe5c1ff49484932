"""Run MLflow with logins and an S3 store here, for development."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.services")
