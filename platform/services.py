"""Run MLflow with logins over PostgreSQL and an S3 store on this machine, for development."""

from lethe.interrupts import run_command

if __name__ == "__main__":
    run_command("lethe.cli.services")
