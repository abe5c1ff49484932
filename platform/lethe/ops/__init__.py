"""Checking, cleaning up and serving: the doctor, disk usage, development services."""
