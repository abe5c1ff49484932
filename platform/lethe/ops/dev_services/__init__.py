"""MLflow as a service for development: its server with logins, PostgreSQL and an S3 store, on loopback only."""
