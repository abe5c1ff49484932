"""Tracking: a study's metrics and models go to MLflow, or nowhere."""
