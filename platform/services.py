"""Run MLflow with logins over PostgreSQL and an S3 store on this machine, for development."""

from lethe.cli.services import main

if __name__ == "__main__":
    raise SystemExit(main())
