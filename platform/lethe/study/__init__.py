"""The study on Ray: driver, trial, resume."""
