"""MLflow as a service on this machine, for development: its server with logins, PostgreSQL, an S3 store. Loopback only."""
